"""Risk, the order table and the portfolio acting together: what one decision and one report do to all three.

The same object serves replay and the live stages, so that an order is reserved, recorded and booked by one rule.
Pure: no Trio, no clock; every time is given.

An order that must wait for others (the opening half of one that turns a position around, or one that first clears an
own working order out of the way) is held here and released, or dropped, when those have ended.
"""

from collections import Counter, deque
from collections.abc import Sequence
from decimal import Decimal

import attrs

from trio_nt.execution.orders import OrderTable
from trio_nt.execution.sequence import OrderSequence
from trio_nt.model.actions import Action
from trio_nt.model.decisions import Approved, ApprovedCancel, ApprovedOrder
from trio_nt.model.events import Filled, OrderEvent, Refused
from trio_nt.model.instruments import Instruments
from trio_nt.model.orders import BrokerUpdate, Order, OrderState, UpdateKind
from trio_nt.model.reasons import Reason
from trio_nt.portfolio import Portfolio, PortfolioState
from trio_nt.risk.core import RiskEngine

_ON_ITS_WAY = (OrderState.INTENDED, OrderState.SENT)
_ASKED_TO_CHANGE = (OrderState.PENDING_CANCEL, OrderState.PENDING_REPLACE)


@attrs.frozen
class Outcome:
    """What follows from an action or a report: instructions for the venue, and events for strategies, in order."""

    approved: tuple[Approved, ...] = ()
    events: tuple[OrderEvent, ...] = ()


class Desk:
    """One account's risk, orders and portfolio.

    ``refused`` counts refusals by their reason; ``refusals`` keeps them in order, the last ``keep_refusals`` of them.
    ``withdrawn`` counts approved orders that ended while they waited here.
    """

    def __init__(
        self,
        instruments: Instruments,
        risk: RiskEngine,
        portfolio: Portfolio,
        orders: OrderTable | None = None,
        *,
        keep_refusals: int | None = None,
    ) -> None:
        self.instruments = instruments
        self.risk = risk
        self.orders = OrderTable() if orders is None else orders
        self.books = portfolio
        self.refusals: deque[Refused] = deque(maxlen=keep_refusals)
        self.refused: Counter[Reason] = Counter()
        self.approved = self.withdrawn = 0
        self._sequence = OrderSequence(self.orders.get)

    def decide(self, action: Action, *, now_ns: int, ts_signal: int) -> Outcome:
        """Check one action. What is approved is reserved and in the order table when this returns."""
        approved: list[Approved] = []
        events: list[OrderEvent] = []
        for decision in self.risk.evaluate(action, now_ns=now_ns, ts_signal=ts_signal):
            if isinstance(decision, Refused):
                self.refusals.append(decision)
                self.refused[decision.reason] += 1
                events.append(decision)
            elif isinstance(decision, ApprovedOrder):
                self.approved += 1
                self.orders.add(decision.order)
                if self._sequence.admit(decision):
                    approved.append(decision)
            elif isinstance(decision, ApprovedCancel) and self._sequence.give_up(decision.order.client_order_id):
                events += self._end_unsent(decision.order, now_ns, "cancelled before it was sent")
            else:
                approved.append(decision)
        return Outcome(tuple(approved), tuple(events))

    def hear(self, update: BrokerUpdate, *, now_ns: int, mid: Decimal | None) -> Outcome:
        """Book what a broker says. Saying it twice does nothing.

        ``mid`` is the instrument's mid price when the execution happened, None where no quote was known.
        """
        events = list(self._book(update, now_ns, mid))
        if not events or not len(self._sequence):
            return Outcome((), tuple(events))
        order = self.orders.get(update.client_order_id)
        if order is None or not order.state.is_final:
            return Outcome((), tuple(events))
        ready, dropped = self._sequence.ended(order)
        for approved in dropped:
            reason = f"order {order.client_order_id}, which closes the position first, was not filled"
            events += self._end_unsent(approved.order, now_ns, reason)
        return Outcome(tuple(ready), tuple(events))

    def withdraw_waiting(self, reason: str, *, now_ns: int) -> Sequence[OrderEvent]:
        """End the orders that wait for others: nobody will be there to release them."""
        events: list[OrderEvent] = []
        for approved in self._sequence:
            self._sequence.give_up(approved.order.client_order_id)
            events += self._end_unsent(approved.order, now_ns, reason)
        return events

    def _book(self, update: BrokerUpdate, now_ns: int, mid: Decimal | None) -> Sequence[OrderEvent]:
        events = self.orders.apply(update, now_ns)
        for event in events:
            order = self.orders.get(event.client_order_id)
            assert order is not None, "the table has just spoken of it"
            self.risk.apply(event, order)
            if isinstance(event, Filled):
                self.books.book(event.fill, mid)
        return events

    def _end_unsent(self, order: Order, now_ns: int, reason: str) -> Sequence[OrderEvent]:
        self.withdrawn += 1
        update = BrokerUpdate(UpdateKind.CANCELLED, order.client_order_id, "", order.instrument, now_ns, reason=reason)
        return self._book(update, now_ns, None)

    # -- what strategies may read: only what they have been told --

    def position(self, strategy_id: str, instrument_id: str) -> Decimal:
        return self.books.position(strategy_id, instrument_id)

    def working_orders(self, strategy_id: str, instrument_id: str | None) -> Sequence[Order]:
        return [
            _as_told(order)
            for order in self.orders.working(strategy_id=strategy_id, instrument=instrument_id)
            if order.state not in _ON_ITS_WAY
        ]

    def portfolio(self) -> PortfolioState:
        return self.books.state()


def _as_told(order: Order) -> Order:
    """A copy that shows what the venue has said. What we asked it for meanwhile would show how rows are grouped."""
    state = order.state
    if state in _ASKED_TO_CHANGE:
        state = OrderState.PARTIALLY_FILLED if order.filled_quantity else OrderState.ACCEPTED
    return attrs.evolve(order, state=state)
