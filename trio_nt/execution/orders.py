"""What is known of every order, and which news changes it how. Pure: no Trio, no clock.

Rules
-----
- ``TRANSITIONS`` is the only place that says which state follows which.
- An execution counts once: its id is remembered. It counts whenever it comes, before the acknowledgement or after a
  cancel, because positions follow the venue.
- An order is FILLED when its executions sum up to its quantity; the venue's word alone does not fill it.
- News that says nothing new (repeated, or overtaken by later news) changes nothing and makes no event.
- UNKNOWN means that it is not known whether the venue has the order. A cancel or replace without an answer stays
  PENDING: the order itself is known.
- An order that none of ours sent belongs to ``EXTERNAL``.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from trio_nt.model.events import (
    Accepted,
    Cancelled,
    CancelRejected,
    Expired,
    Filled,
    OrderEvent,
    Rejected,
    Replaced,
)
from trio_nt.model.money import EXACT
from trio_nt.model.orders import (
    EXTERNAL,
    BrokerUpdate,
    Execution,
    Fill,
    Order,
    OrderRequest,
    OrderState,
    UpdateKind,
)

_add, _multiply = EXACT.add, EXACT.multiply
_S = OrderState
_UNSENT = (_S.INTENDED, _S.SENT, _S.UNKNOWN, _S.ABANDONED)  # the venue has not yet said that it has the order
_LIVE = (_S.ACCEPTED, _S.PARTIALLY_FILLED)
_PENDING = (_S.PENDING_CANCEL, _S.PENDING_REPLACE)
_OPEN = (*_UNSENT, *_LIVE, *_PENDING)


class Next:
    """Where a transition leads when no fixed state does."""

    WORKING: Final = "working"  # PENDING_… if a request of ours is under way, else ACCEPTED or PARTIALLY_FILLED
    SAME: Final = "same"  # the state stays, the news still counts


# state before -> state after. News that is not in the table for a state is old news and is ignored.
TRANSITIONS: Mapping[UpdateKind, Mapping[OrderState, OrderState | str]] = {
    UpdateKind.ACCEPTED: dict.fromkeys(_UNSENT, Next.WORKING),
    # A fill leads to FILLED from every state once nothing remains. A fill before the acknowledgement implies it; a
    # fill after the end (it crossed our cancel on the wire) is booked and the order stays ended.
    UpdateKind.PARTIALLY_FILLED: {
        **dict.fromkeys(_OPEN, Next.WORKING),
        **dict.fromkeys((_S.CANCELLED, _S.EXPIRED, _S.REJECTED, _S.FILLED, _S.REPLACED), Next.SAME),
    },
    UpdateKind.CANCELLED: dict.fromkeys(_OPEN, _S.CANCELLED),
    UpdateKind.EXPIRED: dict.fromkeys(_OPEN, _S.EXPIRED),
    # Venues reject orders that they had accepted, too.
    UpdateKind.REJECTED: dict.fromkeys(_OPEN, _S.REJECTED),
    UpdateKind.REPLACED: dict.fromkeys(_OPEN, Next.WORKING),
    UpdateKind.CANCEL_REJECTED: {_S.PENDING_CANCEL: Next.WORKING},
    UpdateKind.REPLACE_REJECTED: dict.fromkeys(_PENDING, Next.WORKING),
    # What we asked for we know; what somebody else asked for shows when it happens.
    UpdateKind.PENDING_CANCEL: {},
    UpdateKind.PENDING_REPLACE: {},
}
_FILLS = TRANSITIONS[UpdateKind.PARTIALLY_FILLED]
_NO_EVENTS: tuple[OrderEvent, ...] = ()


class OrderTable:
    """Every working order and the last ``keep_final`` ended ones.

    ``incomplete`` holds orders that the venue calls filled though executions are missing: they need a look-up.
    ``executions`` counts those that were booked, ``unplaced`` updates about orders that are not known and do not say
    enough to be adopted.
    """

    def __init__(self, *, keep_final: int = 100_000) -> None:
        self._orders: dict[str, Order] = {}
        self._working: dict[str, Order] = {}
        self._final: deque[str] = deque()
        self._keep_final = keep_final
        self._executions: dict[str, list[str]] = {}  # by client order id, forgotten with their order
        self._seen: set[str] = set()
        self._cancel_pending: set[str] = set()
        self._replace_pending: dict[str, tuple[Decimal | None, Decimal | None]] = {}
        self.incomplete: dict[str, Order] = {}
        self.executions = self.unplaced = 0

    # ── reading ──

    def get(self, client_order_id: str) -> Order | None:
        """An order by its client order id; None when it is unknown or forgotten."""
        return self._orders.get(client_order_id)

    def working(self, strategy_id: str | None = None, instrument: str | None = None) -> Iterator[Order]:
        """Orders that are not final, oldest first; of one strategy, of one instrument, or both."""
        for order in list(self._working.values()):
            if strategy_id is not None and order.strategy_id != strategy_id:
                continue
            if instrument is None or order.instrument == instrument:
                yield order

    def __iter__(self) -> Iterator[Order]:
        return iter(list(self._orders.values()))

    def __len__(self) -> int:
        return len(self._orders)

    def pending_replace(self, order: Order) -> tuple[Decimal | None, Decimal | None]:
        """Quantity and limit price that a replace under way asks for (None: unchanged)."""
        return self._replace_pending.get(order.client_order_id, (None, None))

    def instruments(self) -> set[str]:
        """Ids of every instrument with an order."""
        return {order.instrument for order in self._orders.values()}

    def knows_execution(self, execution_id: str) -> bool:
        """Whether this execution was booked."""
        return execution_id in self._seen

    # ── what we do to orders ──

    def add(self, order: Order) -> None:
        """Take in an order: an approved one, or one from the journal or from the broker's book."""
        if order.client_order_id in self._orders:
            raise ValueError(f"client_order_id must be new, was {order.client_order_id!r}")
        self._orders[order.client_order_id] = order
        if not order.state.is_final:
            self._working[order.client_order_id] = order

    def mark_sent(self, order: Order) -> None:
        """The request is about to leave. A fill may have been heard of already."""
        if order.state is _S.INTENDED:
            order.state = _S.SENT

    def mark_unknown(self, order: Order) -> None:
        """The request left and no answer came."""
        if order.state in (_S.INTENDED, _S.SENT):
            order.state = _S.UNKNOWN

    def mark_abandoned(self, order: Order, now_ns: int, reason: str) -> None:
        """It was looked for until the grace period's end and not found; news of it still counts."""
        if order.state in _UNSENT:
            order.reason = reason
            self._enter(order, _S.ABANDONED, now_ns)

    def mark_pending_cancel(self, order: Order) -> None:
        """A cancel is about to leave."""
        self._cancel_pending.add(order.client_order_id)
        if order.state in (*_LIVE, *_PENDING):
            order.state = _S.PENDING_CANCEL

    def mark_pending_replace(self, order: Order, quantity: Decimal | None, limit_price: Decimal | None) -> None:
        """A replace is about to leave."""
        self._replace_pending[order.client_order_id] = (quantity, limit_price)
        if order.state in _LIVE:
            order.state = _S.PENDING_REPLACE

    # ── what the venue says ──

    def apply(self, update: BrokerUpdate, now_ns: int) -> tuple[OrderEvent, ...]:
        """Take in one message from the broker; what it means for the order's strategy, in order.

        Args:
            update: in the order of arrival, which need not be the order of happening.
            now_ns: the engine's time.
        """
        order = self._orders.get(update.client_order_id)
        if order is None:
            if update.request is None:
                self.unplaced += 1
                return _NO_EVENTS
            order = self.adopt(update.request, update.broker_order_id)
        kind = update.kind
        if update.execution is not None:
            return self._apply_execution(order, update, update.execution, now_ns)
        if kind is UpdateKind.FILLED:
            self._check_complete(order)
            return _NO_EVENTS
        following = TRANSITIONS[kind].get(order.state)
        if following is None or (kind is UpdateKind.REPLACED and self._knows_replacement(order, update)):
            return _NO_EVENTS
        events: tuple[OrderEvent, ...] = _NO_EVENTS
        if kind is UpdateKind.ACCEPTED or (kind is UpdateKind.REPLACED and order.state in _UNSENT):
            events = (Accepted(order.strategy_id, order.client_order_id, order.instrument, now_ns),)
        if kind is UpdateKind.REPLACED:
            order.broker_order_id = update.broker_order_id or order.broker_order_id
            self._take_replacement(order, update.request)
        elif kind is UpdateKind.REPLACE_REJECTED:
            if self._replace_pending.pop(order.client_order_id, None) is None:
                return _NO_EVENTS
        elif kind is UpdateKind.CANCEL_REJECTED:
            self._cancel_pending.discard(order.client_order_id)
        order.broker_order_id = order.broker_order_id or update.broker_order_id
        order.reason = update.reason or order.reason
        self._follow(order, following, now_ns)
        return events if kind is UpdateKind.ACCEPTED else (*events, _event(kind, order, update.reason, now_ns))

    def adopt(self, request: OrderRequest, broker_order_id: str) -> Order:
        """Take in an order that is none of ours, as EXTERNAL's."""
        order = Order(
            request.client_order_id,
            EXTERNAL,
            request.instrument,
            request.side,
            request.quantity,
            request.order_type,
            request.limit_price,
            request.stop_price,
            request.time_in_force,
            request.reduce_only,
            "",
            0,
            _S.ACCEPTED,
            broker_order_id,
        )
        self.add(order)
        return order

    def _apply_execution(
        self, order: Order, update: BrokerUpdate, execution: Execution, now_ns: int
    ) -> tuple[OrderEvent, ...]:
        if execution.execution_id in self._seen:
            return _NO_EVENTS
        order_id = order.client_order_id
        self._seen.add(execution.execution_id)
        self.executions += 1
        self._executions.setdefault(order_id, []).append(execution.execution_id)
        unacknowledged = order.state in _UNSENT
        # Not the other way round: a fill of an order's former link must not bring its former id back.
        order.broker_order_id = order.broker_order_id or update.broker_order_id
        quantity, price = execution.quantity, execution.price
        order.filled_quantity = _add(order.filled_quantity, quantity)
        order.filled_notional = _add(order.filled_notional, _multiply(quantity, price))
        following = _FILLS[order.state]
        complete = order.filled_quantity >= order.quantity
        if complete and (update.kind is UpdateKind.FILLED or order_id not in self._replace_pending):
            following = _S.FILLED
            self.incomplete.pop(order_id, None)
        elif update.kind is UpdateKind.FILLED:
            self._check_complete(order)
        self._follow(order, following, now_ns)
        fill = Fill(
            execution.execution_id,
            order_id,
            order.strategy_id,
            order.instrument,
            order.side,
            quantity,
            price,
            execution.fee,
            execution.fee_currency,
            execution.liquidity,
            update.ts_event,
            now_ns,
        )
        filled = Filled(order.strategy_id, order_id, order.instrument, now_ns, fill, order.state is _S.FILLED)
        if unacknowledged:
            return (Accepted(order.strategy_id, order_id, order.instrument, now_ns), filled)
        return (filled,)

    # ── states ──

    def _follow(self, order: Order, following: OrderState | str, now_ns: int) -> None:
        if following is Next.SAME:
            return
        if isinstance(following, OrderState):
            if following is not order.state:
                self._enter(order, following, now_ns)
            return
        order_id = order.client_order_id
        if order.state is _S.ABANDONED:
            self._working[order_id] = order
            order.ts_end = 0
        if order_id in self._cancel_pending:
            order.state = _S.PENDING_CANCEL
        elif order_id in self._replace_pending:
            order.state = _S.PENDING_REPLACE
        else:
            order.state = _S.PARTIALLY_FILLED if order.filled_quantity else _S.ACCEPTED

    def _enter(self, order: Order, state: OrderState, now_ns: int) -> None:
        """A final state."""
        order_id = order.client_order_id
        order.state = state
        order.ts_end = now_ns
        if self._working.pop(order_id, None) is not None:
            self._final.append(order_id)
        if state is not _S.ABANDONED:
            self._cancel_pending.discard(order_id)
            self._replace_pending.pop(order_id, None)
        while len(self._final) > self._keep_final:
            self._forget(self._final.popleft())

    def _forget(self, order_id: str) -> None:
        if order_id in self._working:  # it came back to life
            return
        self._orders.pop(order_id, None)
        self.incomplete.pop(order_id, None)
        self._seen.difference_update(self._executions.pop(order_id, ()))

    def _take_replacement(self, order: Order, request: OrderRequest | None) -> None:
        quantity, limit_price = self._replace_pending.pop(order.client_order_id, (None, None))
        if request is not None:
            quantity, limit_price = request.quantity, request.limit_price
        if quantity is not None:
            order.quantity = quantity
        if limit_price is not None:
            order.limit_price = limit_price

    def _knows_replacement(self, order: Order, update: BrokerUpdate) -> bool:
        """An answer and the stream both tell of one replacement: the second to come finds its broker id known."""
        pending, request = self._replace_pending.get(order.client_order_id), update.request
        if pending is None and request is None:
            return True
        if pending is not None and request is not None:
            quantity, limit_price = pending
            # An order may have been heard of first under the id of its replacement, after a restart.
            if quantity in (None, request.quantity) and limit_price in (None, request.limit_price):
                return False
        return bool(update.broker_order_id) and update.broker_order_id == order.broker_order_id

    def _check_complete(self, order: Order) -> None:
        if order.filled_quantity < order.quantity:
            self.incomplete[order.client_order_id] = order


def _event(kind: UpdateKind, order: Order, reason: str, now_ns: int) -> OrderEvent:
    strategy_id, order_id, instrument = order.strategy_id, order.client_order_id, order.instrument
    if kind is UpdateKind.CANCELLED:
        return Cancelled(strategy_id, order_id, instrument, now_ns)
    if kind is UpdateKind.EXPIRED:
        return Expired(strategy_id, order_id, instrument, now_ns)
    if kind is UpdateKind.REJECTED:
        return Rejected(strategy_id, order_id, instrument, now_ns, reason)
    if kind is UpdateKind.REPLACED:
        return Replaced(strategy_id, order_id, instrument, now_ns)
    assert kind in (UpdateKind.CANCEL_REJECTED, UpdateKind.REPLACE_REJECTED)
    return CancelRejected(strategy_id, order_id, instrument, now_ns, reason, kind is UpdateKind.REPLACE_REJECTED)
