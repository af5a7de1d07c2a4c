"""What the engine must know before it trades: first what its journal says, then what the broker says.

Rules
-----
- ``restore`` replays the journal through the same order table, risk and portfolio as live trading. An order whose
  intent is there and no answer may have been sent or not: it is UNKNOWN, and never sent late.
- ``reconcile`` runs whenever the update stream is connected, before its first update is read: executions since the
  last one known, the broker's open orders, each of our own working orders, then positions. Executions are told apart
  by their ids, so the stream may repeat all of it.
- An open order under our prefix that the journal does not know means that an older journal was restored: HALTED.
- Other orders that are not ours belong to EXTERNAL, as does the difference between the broker's positions and ours.
  Nothing is cancelled.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Protocol, TypeVar

import attrs
import trio

from trio_nt.errors import ExecutionError
from trio_nt.execution.lookup import SKEW_NS, UNANSWERED, Lookup, LookupSettings
from trio_nt.execution.orders import OrderTable
from trio_nt.model.broker import Broker, BrokerOrder
from trio_nt.model.orders import EXTERNAL, BrokerUpdate, Order, OrderState
from trio_nt.storage.journal import CancelIntent, Heard, OrderIntent, Record, ReplaceIntent

_log = logging.getLogger("trio_nt.execution")
_ATTEMPTS = 3
Answer = TypeVar("Answer")


class Books(Protocol):
    """What risk knows of the account (``RiskEngine`` is one)."""

    def adopt(self, order: Order) -> None: ...
    def adopt_position(
        self, strategy_id: str, instrument: str, signed_quantity: Decimal, price: Decimal | None = None
    ) -> None: ...
    def position(self, instrument: str) -> Decimal: ...


def _nothing(instrument: str) -> None:
    return


def restore(
    records: Iterable[Record],
    table: OrderTable,
    books: Books,
    hear: Callable[[BrokerUpdate, int], object],
    *,
    earlier: Iterable[Record] = (),
    know: Callable[[str], None] = _nothing,
) -> int:
    """Bring a journal's records into the order table and, through ``hear``, into positions; how many orders it held.

    Args:
        hear: takes an update and the time at which it was first heard.
        earlier: records whose executions are in the positions already; they bring orders into the table alone.
        know: told the instrument of every order before anything else is.
    """
    count = 0
    for record in earlier:
        count += _bring_in(record, table, know, table.apply) is not None
    for order in table.working():
        books.adopt(order)
    for record in records:
        added = _bring_in(record, table, know, hear)
        if added is not None:
            books.adopt(added)
            count += 1
    for order in table.working():
        table.mark_unknown(order)
    return count


def _bring_in(
    record: Record, table: OrderTable, know: Callable[[str], None], hear: Callable[[BrokerUpdate, int], object]
) -> Order | None:
    """The order that a record is the intent of; None for every other record."""
    if isinstance(record, OrderIntent):
        order = _order_of(record)
        know(order.instrument)
        table.add(order)
        return order
    if isinstance(record, Heard):
        hear(record.update, record.ts_ns)
    elif isinstance(record, (CancelIntent, ReplaceIntent)):
        known = table.get(record.client_order_id)
        if known is None or known.state.is_final:
            return None
        if isinstance(record, CancelIntent):
            table.mark_pending_cancel(known)
        else:
            table.mark_pending_replace(known, record.quantity, record.limit_price)
    return None


def _order_of(intent: OrderIntent) -> Order:
    request = intent.request
    return Order(
        request.client_order_id,
        intent.strategy_id,
        request.instrument,
        request.side,
        request.quantity,
        request.order_type,
        request.limit_price,
        request.stop_price,
        request.time_in_force,
        request.reduce_only,
        intent.tag,
        intent.ts_signal,
    )


@attrs.frozen
class Reconciliation:
    """What one comparison with the broker found: for the log and the report.

    Attributes:
        resolved: ids of own orders whose state was not known or not current, and what they turned out to be.
        new_fills: executions that had not been heard of.
        adopted: ids of open orders of others.
        differences: broker's position minus ours, by instrument, now EXTERNAL's.
        halted: why nothing may be sent; empty when all is well.
    """

    ts_ns: int
    resolved: tuple[tuple[str, str], ...] = ()
    new_fills: int = 0
    adopted: tuple[str, ...] = ()
    differences: tuple[tuple[str, Decimal], ...] = ()
    halted: str = ""

    def __str__(self) -> str:
        parts = [f"{order_id} is {state}" for order_id, state in self.resolved]
        if self.new_fills:
            parts.append(f"{self.new_fills} executions were new")
        parts += [f"order {order_id} is not ours" for order_id in self.adopted]
        parts += [f"{difference} {instrument} are not ours" for instrument, difference in self.differences]
        return "; ".join(parts) or "nothing had changed"


class Reconciler:
    """Compares with the broker; ``history`` keeps the last results.

    Args:
        hear: takes what is learnt, one update at a time (``Gateway.hear``).
        prefix: what our client order ids begin with, whatever the run.
        halt: called with the reason when nothing may be sent.
    """

    def __init__(
        self,
        broker: Broker,
        table: OrderTable,
        books: Books,
        *,
        hear: Callable[[BrokerUpdate], object],
        now_ns: Callable[[], int],
        prefix: str,
        halt: Callable[[str], None],
        since_ns: int,
        settings: LookupSettings | None = None,
    ) -> None:
        self._broker = broker
        self._table = table
        self._books = books
        self._hear_update = hear
        self._now_ns = now_ns
        self._prefix = prefix
        self._halt = halt
        self._since_ns = since_ns
        self._lookup = Lookup(broker, table, self._hear, now_ns, settings or LookupSettings())
        self.history: list[Reconciliation] = []

    async def reconcile(self) -> None:
        """Compare once, and log what was found. A checkpoint.

        Raises:
            ExecutionError: the broker could not be asked; the caller connects again.
        """
        before = {order.client_order_id: order.state for order in self._table.working()}
        new_fills = await self._catch_up()
        listed = {order.client_order_id: order for order in await self._broker.open_orders()}
        adopted, stray = self._take_in(listed.values())
        async with trio.open_nursery() as nursery:
            for order in self._table.working():
                if order.state is OrderState.INTENDED:
                    continue  # it waits for its turn in this engine: the broker cannot know it
                nursery.start_soon(self._resolve, order, listed.get(order.client_order_id))
        differences = await self._compare_positions()
        resolved = [
            (order_id, known.state.value)
            for order_id, state in before.items()
            if (known := self._table.get(order_id)) is not None and known.state is not state
        ]
        halted = ""
        if stray:
            halted = f"the broker has orders of ours that the journal does not know ({', '.join(stray[:3])}): an older "
            halted += "journal was restored"
            self._halt(halted)
        found = Reconciliation(
            self._now_ns(), tuple(resolved), new_fills, tuple(adopted), tuple(differences), halted
        )  # fmt: skip
        self.history = [*self.history[-99:], found]
        _log.info("reconciled with the broker: %s", found)

    async def cash(self) -> Mapping[str, Decimal]:
        """The account's cash, with exactly those executions in it that are booked. A checkpoint.

        Raises as ``reconcile``.
        """
        return (await self._as_booked(self._broker.account)).cash

    async def _as_booked(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """What the broker says of the account, with exactly those executions in it that are booked. A checkpoint.

        Asked again while executions come in, from here or from wherever else they are heard of meanwhile: else one of
        them would be missing from the answer, or be in it and be booked once more afterwards.

        Raises:
            ExecutionError: the broker could not be asked, or executions never pause.
        """
        for _ in range(_ATTEMPTS):
            booked = self._table.executions
            answer = await ask()
            await self._catch_up()
            if self._table.executions == booked:
                return answer
        raise ExecutionError("the account changes faster than it can be compared")

    def _hear(self, update: BrokerUpdate) -> object:
        self._since_ns = max(self._since_ns, update.ts_event)
        return self._hear_update(update)

    async def _catch_up(self) -> int:
        """Hear every execution since the last one; how many were new."""
        count = 0
        for update in await self._broker.fills_since(max(self._since_ns - SKEW_NS, 0)):
            execution = update.execution
            if execution is None or self._table.get(update.client_order_id) is None:
                continue  # not ours: it shows in the positions
            count += not self._table.knows_execution(execution.execution_id)
            self._hear(update)
        return count

    def _take_in(self, listed: Iterable[BrokerOrder]) -> tuple[list[str], list[str]]:
        """Open orders that are not known: those of others, now EXTERNAL's, and those that should be known."""
        adopted, stray = [], []
        for found in listed:
            if self._table.get(found.client_order_id) is not None:
                continue
            if found.client_order_id.startswith(self._prefix):
                stray.append(found.client_order_id)
            if found.request is not None:
                order = self._table.adopt(found.request, found.broker_order_id)
                order.filled_quantity = found.filled_quantity
                self._books.adopt(order)
            adopted.append(found.client_order_id)
        return adopted, stray

    async def _resolve(self, order: Order, listed: BrokerOrder | None) -> None:
        """Find out what one of the working orders is."""
        if order.strategy_id == EXTERNAL and listed is None:
            await self._resolve_ended(order)
            return
        if order.state not in (OrderState.PENDING_CANCEL, OrderState.PENDING_REPLACE):
            if listed is not None:
                await self._lookup.follow(order, listed)
            elif order.state in UNANSWERED:
                await self._lookup.unanswered(order)
            else:
                await self._resolve_ended(order)
        # An order of which nothing was known may turn out to have a cancel or a replace without an answer, or both.
        if order.state is OrderState.PENDING_CANCEL:
            await self._lookup.cancelled(order, "")
        if order.state is OrderState.PENDING_REPLACE:
            await self._lookup.replaced(order, *self._table.pending_replace(order))

    async def _resolve_ended(self, order: Order) -> None:
        found = await self._broker.find(order.client_order_id)
        if found is not None:
            await self._lookup.follow(order, found)
        else:
            _log.warning("the broker does not know order %s any more; it stays reserved", order.client_order_id)

    async def _compare_positions(self) -> Sequence[tuple[str, Decimal]]:
        """Give EXTERNAL what the broker holds and nobody of ours."""
        held = await self._as_booked(self._broker.positions)
        differences = []
        for instrument in sorted(self._table.instruments() | held.keys()):
            try:
                difference = held.get(instrument, Decimal(0)) - self._books.position(instrument)
            except KeyError:
                continue  # an instrument that this run does not know cannot be traded by it
            if difference:
                differences.append((instrument, difference))
                self._books.adopt_position(EXTERNAL, instrument, difference)
        return differences
