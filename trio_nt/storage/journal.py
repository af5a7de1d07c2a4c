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


@attrs.frozen
class HeldPosition:
    """What one strategy (or EXTERNAL) holds in one instrument, and what it cost."""

    strategy_id: str
    instrument: str
    quantity: Decimal
    average_price: Decimal


@attrs.frozen
class HeldMoney:
    """What a strategy's fills have come to in one currency; ``cash`` is what they moved, not what the account has."""

    strategy_id: str
    currency: str
    cash: Decimal
    fees: Decimal
    realised: Decimal


@attrs.frozen
class Carried:
    """What everything recorded before adds up to, so that old orders can be forgotten and a start is quick."""

    positions: tuple[HeldPosition, ...] = ()
    money: tuple[HeldMoney, ...] = ()
    ts_ns: int = 0


@attrs.frozen
class Recovered:
    """What a journal held when it was opened.

    Attributes:
        earlier: records before ``carried``, of the orders that were not long over then: ``carried`` holds what their
            executions came to.
        carried: the last summary; empty where there is none.
        records: what came after it, in order.
        halted: why the journal is HALTED; empty when it is not.
    """

    records: tuple[Record, ...] = ()
    halted: str = ""
    last_sequence: int = 0
    earlier: tuple[Record, ...] = ()
    carried: Carried = Carried()


def intent_of(order: Order, ts_ns: int) -> OrderIntent:
    return OrderIntent(order.request(), order.strategy_id, order.tag, order.ts_signal, ts_ns)


@attrs.frozen
class JournalStatistics:
    """Of this run. ``groups``: how many times records were made durable together; ``lost``: records that could not be
    taken because the journal had stopped."""

    records: int
    groups: int
    orders: int = 0
    lost: int = 0


class Journal(Protocol):
    """``recovered`` is what it held when it was opened, ``halted`` why nothing may be sent now (empty: all is well)."""

    @property
    def recovered(self) -> Recovered: ...

    @property
    def halted(self) -> str: ...

    @property
    def place(self) -> str:
        """Where a person finds it; empty where nothing outlives the process."""

    async def wait_stopped(self) -> str:
        """Wait until it can record nothing any more, or was marked HALTED: the reason. A checkpoint."""

    def carry(self, carried: Carried) -> None:
        """Take a summary of everything recorded so far; never waits."""

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
        self._total = self._orders = 0
        self.records: list[Record] = []
        self.recovered = Recovered()
        self.halted = ""
        self.place = ""

    async def wait_stopped(self) -> str:
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    def carry(self, carried: Carried) -> None:
        return

    async def append(self, records: Sequence[Record]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()  # nothing is waited for: no step of the loop for it
        for record in records:
            self.note(record)
        self._groups += 1

    def note(self, record: Record) -> None:
        self._total += 1
        self._orders += isinstance(record, OrderIntent)
        self.records.append(record)
        if len(self.records) >= 2 * self._keep:
            del self.records[: self._keep]

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    def statistics(self) -> JournalStatistics:
        return JournalStatistics(self._total, self._groups, self._orders)
