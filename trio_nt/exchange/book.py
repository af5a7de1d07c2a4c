"""The venue's book: one account's orders, what is known of each instrument, and the ledger. It decides nothing.

Pure: no Trio, no clock.
"""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from trio_nt.model.actions import TimeInForce
from trio_nt.model.instruments import Instrument, Instruments, Side
from trio_nt.model.market import Column
from trio_nt.model.money import EXACT, ZERO, Number, to_decimal
from trio_nt.model.orders import BrokerUpdate, Execution, OrderRequest, OrderState
from trio_nt.model.positions import Ledger

_MINUTE_NS = 60_000_000_000
NOTHING, BARS, TRADES, QUOTES = range(4)  # what an instrument's prices come from, the better source last


class Touch(NamedTuple):
    """The best bid and ask of one instrument and when they were quoted, UNIX ns."""

    bid: float
    ask: float
    bid_size: float
    ask_size: float
    ts: int


@attrs.define(eq=False)
class VenueOrder:
    """One link of an order's chain: a replace ends it and starts the next, which carries the fills on.

    ``request`` holds what is in force now. Times: UNIX ns of the venue, 0 for what has not happened.
    """

    request: OrderRequest
    broker_order_id: str
    index: int  # of the instrument
    is_buy: bool
    limit: float | None  # the same prices as in the request, comparable with columns
    stop: float | None
    created_ns: int
    updated_ns: int
    day: date | None  # the trading day that a DAY order ends with
    is_triggered: bool  # a stop price, where there is one, has been reached
    is_resting: bool = False  # it met a first quote and was not marketable: from now on it makes
    state: OrderState = OrderState.ACCEPTED
    filled_quantity: Decimal = ZERO
    filled_notional: Decimal = ZERO  # Σ quantity × price
    ended_ns: int = 0
    replaces: str = ""
    replaced_by: str = ""
    value: float = 0.0  # about, when it came to work

    @property
    def remaining_quantity(self) -> Decimal:
        return self.request.quantity - self.filled_quantity

    @property
    def average_price(self) -> Decimal | None:
        return EXACT.divide(self.filled_notional, self.filled_quantity) if self.filled_quantity else None

    @property
    def ends_at_once(self) -> bool:
        return self.request.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)

    def reaches_stop(self, price: float) -> bool:
        assert self.stop is not None
        return price >= self.stop if self.is_buy else price <= self.stop

    def is_marketable(self, touch: float) -> bool:
        return self.limit is None or (touch <= self.limit if self.is_buy else touch >= self.limit)

    def is_printed_through(self, price: float) -> bool:
        """A print at the limit may have been another's in the queue; one beyond it cannot."""
        assert self.limit is not None
        return price < self.limit if self.is_buy else price > self.limit


def open_order(request: OrderRequest, broker_order_id: str, index: int, day: date | None, now_ns: int) -> VenueOrder:
    return VenueOrder(
        request=request,
        broker_order_id=broker_order_id,
        index=index,
        is_buy=request.side is Side.BUY,
        limit=None if request.limit_price is None else float(request.limit_price),
        stop=None if request.stop_price is None else float(request.stop_price),
        created_ns=now_ns,
        updated_ns=now_ns,
        day=day if request.time_in_force is TimeInForce.DAY else None,
        is_triggered=not request.order_type.needs_stop,
    )


class InstrumentState:
    """What the core remembers of one instrument."""

    __slots__ = ("day", "instrument", "is_open", "minute", "source", "touch", "working")

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.touch: Touch | None = None
        self.source = NOTHING
        self.working: dict[str, VenueOrder] = {}  # by client order id, in order of arrival
        self.minute = -1  # of the two values below: calendars change on minutes, and asking them costs
        self.is_open = False
        self.day: date | None = None

    def at(self, now_ns: int) -> "InstrumentState":
        """Bring ``is_open`` and ``day`` up to a moment."""
        minute = now_ns // _MINUTE_NS
        if minute != self.minute:
            self.minute = minute
            self.is_open = self.instrument.calendar.is_open(now_ns)
            self.day = self.instrument.calendar.trading_day(now_ns)
        return self


class Book:
    """Orders, executions and the account. ``cash`` is by currency."""

    def __init__(self, instruments: Instruments, cash: Mapping[str, Number]) -> None:
        self.instruments = instruments
        self.ledger = Ledger(instruments, {currency: to_decimal(amount) for currency, amount in cash.items()})
        self.fills: list[BrokerUpdate] = []
        self.working_count = 0
        self.working_value = 0.0  # of all working orders, about
        self.working_instruments: NDArray[np.bool_] = np.zeros(len(instruments), np.bool_)
        """By instrument index: has waiting or working orders. The rows of all others need not be shown."""
        self._states = [InstrumentState(instrument) for instrument in instruments]
        self._orders: dict[str, VenueOrder] = {}
        self._links: dict[str, VenueOrder] = {}

    @property
    def orders(self) -> Mapping[str, VenueOrder]:
        """Every order ever taken, by client order id: the last link of its chain."""
        return self._orders

    @property
    def links(self) -> Mapping[str, VenueOrder]:
        """Every link of every chain, by broker order id, in order of arrival."""
        return self._links

    def working_orders(self) -> list[VenueOrder]:
        """Orders that can still fill, by instrument, then by arrival."""
        return [order for state in self._states for order in state.working.values()]

    def fills_since(self, ts_event: int) -> list[BrokerUpdate]:
        """Executions at or after a moment, in order."""
        first = len(self.fills)
        while first and self.fills[first - 1].ts_event >= ts_event:
            first -= 1
        return self.fills[first:]

    def is_working(self, indices: Column) -> NDArray[np.bool_]:
        """For each instrument index: whether it has waiting or working orders."""
        if self.working_count == 0:
            return np.zeros(len(indices), np.bool_)
        if len(self._states) < len(self.instruments):
            self._grow()
        return self.working_instruments[indices]

    def state_of(self, index: int) -> InstrumentState:
        """What is known of an instrument."""
        if index >= len(self._states):
            self._grow()
        return self._states[index]

    def last_quote(self, index: int) -> Touch | None:
        return self.state_of(index).touch

    def enter(self, order: VenueOrder) -> None:
        """Take an order, or the next link of its chain, as working."""
        key = order.request.client_order_id
        self._orders[key] = self._links[order.broker_order_id] = order
        self.state_of(order.index).working[key] = order
        self.working_instruments[order.index] = True
        self.working_count += 1
        order.value = float(order.request.quantity) * max(order.limit or 0.0, order.stop or 0.0)
        self.working_value += order.value

    def leave(self, order: VenueOrder) -> None:
        """An order no longer works; it stays known."""
        working = self._states[order.index].working
        del working[order.request.client_order_id]
        self.working_instruments[order.index] = bool(working)
        self.working_count -= 1
        self.working_value = self.working_value - order.value if self.working_count else 0.0

    def take_execution(self, order: VenueOrder, execution: Execution) -> None:
        """What an execution does to its order and to the account."""
        quantity, price = execution.quantity, execution.price
        self.ledger.book(
            order.request.instrument, order.request.side, quantity, price, execution.fee, execution.fee_currency
        )
        order.filled_quantity = EXACT.add(order.filled_quantity, quantity)
        order.filled_notional = EXACT.add(order.filled_notional, EXACT.multiply(quantity, price))

    def continue_chain(self, old: VenueOrder, order: VenueOrder, now_ns: int) -> None:
        """``order`` takes the place of ``old``: it carries on its fills, its day and how far it had come."""
        order.day, order.state, order.is_triggered = old.day, old.state, old.is_triggered
        order.filled_quantity, order.filled_notional = old.filled_quantity, old.filled_notional
        order.replaces = old.broker_order_id
        # With the same limit it goes on resting; with another it arrives anew.
        order.is_resting = old.is_resting and order.limit == old.limit
        self.leave(old)
        old.state, old.replaced_by = OrderState.REPLACED, order.broker_order_id
        old.updated_ns = old.ended_ns = now_ns
        self.enter(order)

    def _grow(self) -> None:
        """Instruments may be registered after the venue has opened."""
        known = len(self._states)
        self._states.extend(InstrumentState(instrument) for instrument in list(self.instruments)[known:])
        self.working_instruments = np.append(self.working_instruments, np.zeros(len(self._states) - known, np.bool_))
