"""The kill switch: from a process of its own, straight against the broker, whatever state the engine is in.

Rules
-----
- First the journal is marked HALTED: an engine that still runs gets no further order acknowledged by its journal, so
  none leaves; one that starts later stays halted until a person releases it.
- Then working orders are cancelled, again and again until the broker lists none for a while: an order that left just
  before the mark may still be on its way.
- Then, if asked for, positions are closed at the market, EXTERNAL's included: the broker's word counts, nobody else's.
- A failure of one step does not keep the others from being tried; what is left open is named.
"""

from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path

import attrs
import trio

from trio_nt.errors import ExecutionError, JournalError
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.broker import Broker
from trio_nt.model.instruments import Side
from trio_nt.model.orders import OrderRequest
from trio_nt.storage.reading import mark_halted

_QUIET_S = 0.3  # for so long the broker must list no open order
_POLL_S = 0.05
_AT_ONCE = 10


@attrs.frozen
class KillResult:
    """What the kill switch did, and what it could not do."""

    journal: str  # "HALTED", or why it could not be marked; empty where there is none
    cancelled: tuple[str, ...]  # client order ids
    closed: tuple[str, ...]  # instruments
    left_open: tuple[str, ...]  # orders and positions, named
    problems: tuple[str, ...]
    took_s: float

    @property
    def is_complete(self) -> bool:
        return not self.left_open and not self.problems


async def kill(
    broker: Broker,
    *,
    now_ns: Callable[[], int],
    journal: Path | None = None,
    reason: str = "kill switch",
    flatten: bool = False,
    deadline_s: float = 10.0,
) -> KillResult:
    """Stop trading on an account. Returns by the deadline; a checkpoint.

    Args:
        journal: the engine's journal, marked HALTED first.
        flatten: close every position at the market as well.
        deadline_s: after which what is still open is left, and named.
    """
    return await _Kill(broker, now_ns, flatten).run(journal, reason, deadline_s)


class _Kill:
    def __init__(self, broker: Broker, now_ns: Callable[[], int], flatten: bool) -> None:
        self._broker = broker
        self._now_ns = now_ns
        self._flatten = flatten
        self._cancelled: dict[str, None] = {}
        self._closed: dict[str, None] = {}
        self._open: tuple[str, ...] = ()
        self._problems: dict[str, None] = {}
        self._places = trio.Semaphore(_AT_ONCE)

    async def run(self, journal: Path | None, reason: str, deadline_s: float) -> KillResult:
        start = trio.current_time()
        marked = ""
        with trio.move_on_after(deadline_s) as scope:
            if journal is not None:
                marked = await self._mark(journal, reason)
            await self._cancel_all()
            if self._flatten:
                await self._close_all()
        if scope.cancelled_caught:
            self._problems["the deadline passed before the broker said that nothing is open"] = None
        return KillResult(
            marked,
            tuple(self._cancelled),
            tuple(self._closed),
            self._open,
            tuple(self._problems),
            trio.current_time() - start,
        )

    async def _mark(self, journal: Path, reason: str) -> str:
        try:
            await trio.to_thread.run_sync(partial(mark_halted, journal, reason, self._now_ns()))
        except JournalError as error:
            self._problems[str(error)] = None
            return str(error)
        return "HALTED"

    async def _cancel_all(self) -> None:
        """Cancel until the broker has listed no open order for a while."""
        quiet_since = trio.current_time()
        while trio.current_time() - quiet_since < _QUIET_S:
            try:
                orders = await self._broker.open_orders()
            except ExecutionError as error:
                self._problem(error)
                await trio.sleep(_POLL_S)
                quiet_since = trio.current_time()
                continue
            self._problems = {problem: None for problem in self._problems if problem.startswith("the journal")}
            self._open = tuple(f"order {order.client_order_id} in {order.instrument}" for order in orders)
            if orders:
                quiet_since = trio.current_time()
            async with trio.open_nursery() as nursery:
                for order in orders:
                    nursery.start_soon(self._cancel, order.client_order_id)
            await trio.sleep(_POLL_S)

    async def _cancel(self, client_order_id: str) -> None:
        async with self._places:
            try:
                await self._broker.cancel(client_order_id)
            except ExecutionError as error:  # the next round tells whether the order is still open
                self._problem(error)
            else:
                self._cancelled[client_order_id] = None

    async def _close_all(self) -> None:
        """Close every position once, then wait until the broker lists none."""
        sent: dict[str, Decimal] = {}
        while True:
            try:
                positions = {key: held for key, held in (await self._broker.positions()).items() if held}
                self._open = tuple(f"position of {held} {key}" for key, held in positions.items())
                if not positions:
                    return
                for instrument, held in positions.items():
                    if sent.get(instrument) != held:  # a new position, or what a partial close left
                        await self._close(instrument, held)
                        sent[instrument] = held
            except ExecutionError as error:
                self._problem(error)
            await trio.sleep(_POLL_S)

    async def _close(self, instrument: str, held: Decimal) -> None:
        side = Side.SELL if held > 0 else Side.BUY
        order_id = f"kill-{self._now_ns():x}-{len(self._closed)}"
        await self._broker.submit(
            OrderRequest(order_id, instrument, side, abs(held), OrderType.MARKET, None, None, TimeInForce.DAY, True)
        )
        self._closed[instrument] = None

    def _problem(self, error: ExecutionError) -> None:
        self._problems[str(error)] = None
