"""What must be known after a crash: every intent before it leaves, and what became of it.

Rules
-----
- ``append`` returns when its records are durable. Execution sends a request only after its intent was appended.
- ``note`` takes records that a broker could tell again (its updates); they become durable in their order, with the
  next ``append`` at the latest.
- A journal that cannot write raises ``JournalError``; then no order may leave.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol, TypeAlias

import attrs
import trio

from trio_nt.model.orders import BrokerUpdate, Order, OrderRequest


@attrs.frozen
class OrderIntent:
    """An order is about to be sent. Times: UNIX ns of the engine's clock."""

    request: OrderRequest
    strategy_id: str
    tag: str
    ts_signal: int
    ts_ns: int


@attrs.frozen
class CancelIntent:
    """A cancel is about to be sent."""

    client_order_id: str
    ts_ns: int


@attrs.frozen
class ReplaceIntent:
    """A replace is about to be sent; None: unchanged."""

    client_order_id: str
    quantity: Decimal | None
    limit_price: Decimal | None
    ts_ns: int


@attrs.frozen
class Heard:
    """What the broker said, or what was concluded of its silence (then ``update.reason`` says so)."""

    update: BrokerUpdate
    ts_ns: int


@attrs.frozen
class HaltNote:
    """Trading is halted, or (``halted`` False) a person has released it."""

    halted: bool
    reason: str
    ts_ns: int


Record: TypeAlias = OrderIntent | CancelIntent | ReplaceIntent | Heard | HaltNote


def intent_of(order: Order, ts_ns: int) -> OrderIntent:
    return OrderIntent(order.request(), order.strategy_id, order.tag, order.ts_signal, ts_ns)


@attrs.frozen
class JournalStatistics:
    """``groups``: how many times records were made durable together."""

    records: int
    groups: int


class Journal(Protocol):
    async def append(self, records: Sequence[Record]) -> None:
        """Make records durable. A checkpoint; cancelled, the records may or may not have become durable.

        Raises:
            JournalError: they cannot be recorded.
        """

    def note(self, record: Record) -> None:
        """Take a record whose loss a broker could make good; never waits."""

    async def flush(self) -> None:
        """Wait until everything noted is durable. A checkpoint."""

    def statistics(self) -> JournalStatistics: ...


class MemoryJournal:
    """Keeps records while the process lives: for replay, tests, and trying things out."""

    def __init__(self, *, keep: int = 1_000_000) -> None:
        self._keep = keep
        self._groups = 0
        self._total = 0
        self.records: list[Record] = []

    async def append(self, records: Sequence[Record]) -> None:
        await trio.lowlevel.checkpoint()
        for record in records:
            self.note(record)
        self._groups += 1

    def note(self, record: Record) -> None:
        self._total += 1
        self.records.append(record)
        if len(self.records) >= 2 * self._keep:
            del self.records[: self._keep]

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    def statistics(self) -> JournalStatistics:
        return JournalStatistics(self._total, self._groups)
