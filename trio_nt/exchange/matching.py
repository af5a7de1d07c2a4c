"""The matching core: one account's orders against a market that they do not move.

Its rules:

- A market order takes the touch: the ask to buy, the bid to sell. The whole quantity fills there, whatever size the
  quote shows.
- An arriving order meets one quote. The venue that runs live (``match_on_arrival``) takes the quote in force; replay
  takes the first quote at or after the arrival, so a quote held from before does not count.
- A limit that is marketable when it meets its first quote takes the touch. Otherwise it rests, and fills at its limit
  as maker when the opposite side of a quote reaches it, or when a trade prints through it; a print *at* the limit may
  have been another's in the queue and does not fill.
- A stop is triggered when the quote (buy: ask, sell: bid) or a trade reaches it, and then behaves as an order that
  arrives at that moment.
- IOC and FOK end after the first quote that they meet. DAY ends with the instrument's trading day: EXPIRED at the
  first event after it.
- Where an instrument shows no quotes, trades stand in for them, and where it shows no trades either, bars do: an
  arriving order meets the next print, or the next bar's open. Inside a bar stops come before limits (the worse order
  of events for the trader), and a limit needs the range to go beyond it.
- Fee = rate × |notional|, in the settlement currency, to the eighth decimal place (ties to even).
- Orders of one instrument are served in the order of their arrival.

Pure: no Trio, no clock. Rows with bad data are the caller's to keep out.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import count
from typing import NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from trio_nt.errors import DuplicateOrder
from trio_nt.exchange.book import (
    DUPLICATE_ID,
    NOT_FOUND,
    NOT_WORKING,
    FeesLike,
    VenueOrder,
    as_fees,
    check_replace,
    check_request,
    open_order,
)
from trio_nt.model.instruments import Instrument, Instruments, Side
from trio_nt.model.market import Column
from trio_nt.model.money import EXACT, ZERO, Number, to_decimal
from trio_nt.model.orders import BrokerUpdate, Execution, Liquidity, OrderRequest, OrderState, UpdateKind
from trio_nt.model.positions import Ledger

FEE_STEP = Decimal("1e-8")
_MINUTE_NS = 60_000_000_000
_NOTHING, _BARS, _TRADES, _QUOTES = range(4)  # what an instrument's prices come from, the better source last


class Touch(NamedTuple):
    """The best bid and ask of one instrument and when they were quoted, UNIX ns."""

    bid: float
    ask: float
    bid_size: float
    ask_size: float
    ts: int


Listener = Callable[[BrokerUpdate, VenueOrder], None]


class _Market:
    """What the core remembers of one instrument."""

    __slots__ = ("day", "instrument", "is_open", "minute", "source", "touch", "working")

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.touch: Touch | None = None
        self.source = _NOTHING
        self.working: dict[str, VenueOrder] = {}  # by client order id, in order of arrival
        self.minute = -1  # of the two values below: calendars change on minutes, and asking them costs
        self.is_open = False
        self.day: date | None = None

    def at(self, now_ns: int) -> "_Market":
        """Bring ``is_open`` and ``day`` up to a moment."""
        minute = now_ns // _MINUTE_NS
        if minute != self.minute:
            self.minute = minute
            self.is_open = self.instrument.calendar.is_open(now_ns)
            self.day = self.instrument.calendar.trading_day(now_ns)
        return self


class Exchange:
    """A venue with one account. Each method returns what happened, in order; times are UNIX ns.

    ``cash`` is by currency. ``fees`` replaces the instruments' own. ``new_id`` makes order and execution ids, unique
    ones; by default they are numbered. ``listener`` hears each update at its moment, while the order still is in the
    state that the update speaks of.
    """

    def __init__(
        self,
        instruments: Instruments,
        *,
        cash: Mapping[str, Number],
        match_on_arrival: bool = False,
        new_id: Callable[[], str] | None = None,
        fees: FeesLike = None,
        listener: Listener | None = None,
    ) -> None:
        self.instruments = instruments
        self.ledger = Ledger(instruments, {currency: to_decimal(amount) for currency, amount in cash.items()})
        self.fills: list[BrokerUpdate] = []
        self.working_count = 0
        self.working_instruments: NDArray[np.bool_] = np.zeros(len(instruments), np.bool_)
        """By instrument index: has waiting or working orders. The rows of all others need not be shown."""
        self._match_on_arrival = match_on_arrival
        self._fees = as_fees(fees)
        numbers = count(1)
        self._new_id = new_id or (lambda: f"V{next(numbers)}")
        self._listener = listener
        self._markets = [_Market(instrument) for instrument in instruments]
        self._orders: dict[str, VenueOrder] = {}
        self._links: dict[str, VenueOrder] = {}

    # -- what the book holds --

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
        return [order for market in self._markets for order in market.working.values()]

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
        if len(self._markets) < len(self.instruments):
            self._grow()
        return self.working_instruments[indices]

    def last_quote(self, index: int) -> Touch | None:
        return self._market(index).touch

    # -- what a trader asks --

    def submit(self, request: OrderRequest, now_ns: int, quote: Touch | None = None) -> list[BrokerUpdate]:
        """Take an order: ACCEPTED and the fills it meets at once, or REJECTED (then the book does not have it).

        ``quote`` is the instrument's last good quote, for a caller that does not show the rows of instruments without
        working orders.

        Raises:
            DuplicateOrder: the client order id was used before. Its order stays as it is.
        """
        if request.client_order_id in self._orders:
            raise DuplicateOrder(DUPLICATE_ID)
        updates: list[BrokerUpdate] = []
        problem = self._problem(request)
        if problem is not None:
            return [
                BrokerUpdate(
                    UpdateKind.REJECTED, request.client_order_id, "", request.instrument, now_ns, reason=problem
                )
            ]
        index = self.instruments.index(request.instrument)
        market = self._market(index).at(now_ns)
        if quote is not None:
            self._show_quote(market, Touch(*quote))
        order = open_order(request, self._new_id(), index, market.day, now_ns)
        self._add(market, order)
        self._emit(updates, UpdateKind.ACCEPTED, order, now_ns)
        self._arrive(market, order, now_ns, updates)
        return updates

    def cancel(self, client_order_id: str, now_ns: int) -> list[BrokerUpdate]:
        """Withdraw an order: CANCELLED, or CANCEL_REJECTED with the reason."""
        updates: list[BrokerUpdate] = []
        order = self._working_order(client_order_id, now_ns, updates)
        if isinstance(order, str):
            updates.append(self._refusal(UpdateKind.CANCEL_REJECTED, client_order_id, now_ns, order))
        else:
            self._end(updates, UpdateKind.CANCELLED, OrderState.CANCELLED, order, now_ns)
        return updates

    def replace(
        self,
        client_order_id: str,
        *,
        quantity: Decimal | None = None,
        limit_price: Decimal | None = None,
        now_ns: int,
    ) -> list[BrokerUpdate]:
        """Change quantity (the new total, filled part included) or limit: REPLACED, with the new broker order id, and
        the fills it meets at once; or REPLACE_REJECTED with the reason, the order staying as it was.
        """
        updates: list[BrokerUpdate] = []
        old = self._working_order(client_order_id, now_ns, updates)
        problem = (
            old if isinstance(old, str) else check_replace(old, self.instruments[old.index], quantity, limit_price)
        )
        if problem is not None:
            updates.append(self._refusal(UpdateKind.REPLACE_REJECTED, client_order_id, now_ns, problem))
            return updates
        assert isinstance(old, VenueOrder)
        market = self._markets[old.index]
        request = attrs.evolve(
            old.request,
            quantity=old.request.quantity if quantity is None else quantity,
            limit_price=old.request.limit_price if limit_price is None else limit_price,
        )
        order = open_order(request, self._new_id(), old.index, old.day, now_ns)
        order.day = old.day
        order.filled_quantity, order.filled_notional = old.filled_quantity, old.filled_notional
        order.state, order.is_triggered, order.replaces = old.state, old.is_triggered, old.broker_order_id
        # With the same limit it goes on resting; with another it arrives anew.
        order.is_resting = old.is_resting and order.limit == old.limit
        self._remove(old)
        old.state, old.replaced_by = OrderState.REPLACED, order.broker_order_id
        old.updated_ns = old.ended_ns = now_ns
        self._add(market, order)
        self._emit(updates, UpdateKind.REPLACED, order, now_ns)
        if not order.is_resting:
            self._arrive(market, order, now_ns, updates)
        return updates

    # -- what the market shows --

    def touch(self, index: int, bid: float, ask: float, bid_size: float, ask_size: float, ts: int) -> None:
        """Remember a quote without matching: for instruments that have no working order."""
        self._show_quote(self._market(index), Touch(bid, ask, bid_size, ask_size, ts))

    def quote(
        self, index: int, bid: float, ask: float, bid_size: float, ask_size: float, now_ns: int
    ) -> list[BrokerUpdate]:
        market = self._market(index)
        self._show_quote(market, Touch(bid, ask, bid_size, ask_size, now_ns))
        updates: list[BrokerUpdate] = []
        if market.working:
            for order in self._executable(market, now_ns, updates):
                self._meet_quote(order, bid, ask, now_ns, updates)
        return updates

    def trade(self, index: int, price: float, size: float, now_ns: int) -> list[BrokerUpdate]:
        market = self._market(index)
        market.source = max(market.source, _TRADES)
        updates: list[BrokerUpdate] = []
        if not market.working:
            return updates
        for order in self._executable(market, now_ns, updates):
            if not order.is_triggered:
                if order.reaches_stop(price):
                    order.is_triggered = True
                    self._arrive(market, order, now_ns, updates)
            elif order.is_resting:
                if order.is_printed_through(price):
                    self._fill_as_maker(order, now_ns, updates)
            elif market.source == _TRADES:
                self._meet_quote(order, price, price, now_ns, updates)
        return updates

    def bar(self, index: int, open: float, high: float, low: float, close: float, now_ns: int) -> list[BrokerUpdate]:
        market = self._market(index)
        market.source = max(market.source, _BARS)
        updates: list[BrokerUpdate] = []
        if not market.working or market.source > _BARS:
            return updates
        orders = list(self._executable(market, now_ns, updates))
        for order in orders:
            if not order.is_resting:
                self._meet_quote(order, open, open, now_ns, updates)
        # Stable, so by arrival within each half; decided before the loop, so that what is triggered in it fills later.
        for order in sorted(orders, key=lambda order: order.is_triggered):
            if not order.is_triggered:
                extreme = high if order.is_buy else low
                if order.reaches_stop(extreme):
                    assert order.stop is not None
                    # Triggered between open and extreme, so the price then was the stop. A limit on its far side is
                    # not known to have been reached afterwards: it rests from here on.
                    self._meet_quote(order, order.stop, order.stop, now_ns, updates)
            elif order.is_resting and order.is_printed_through(low if order.is_buy else high):
                self._fill_as_maker(order, now_ns, updates)
        return updates

    # -- matching --

    def _executable(self, market: _Market, now_ns: int, updates: list[BrokerUpdate]) -> Iterator[VenueOrder]:
        """The working orders of an instrument by arrival; those whose day is over end here; none while closed."""
        market.at(now_ns)
        for order in tuple(market.working.values()):
            if order.day is not None and order.day != market.day:
                self._end(updates, UpdateKind.EXPIRED, OrderState.EXPIRED, order, now_ns)
            elif market.is_open and not order.state.is_final:
                yield order

    def _arrive(self, market: _Market, order: VenueOrder, now_ns: int, updates: list[BrokerUpdate]) -> None:
        touch = market.touch
        if touch is not None and market.is_open and (self._match_on_arrival or touch.ts == now_ns):
            self._meet_quote(order, touch.bid, touch.ask, now_ns, updates)

    def _meet_quote(self, order: VenueOrder, bid: float, ask: float, now_ns: int, updates: list[BrokerUpdate]) -> None:
        touch = ask if order.is_buy else bid
        if not order.is_triggered:
            if not order.reaches_stop(touch):
                return
            order.is_triggered = True
        if order.is_marketable(touch):
            if order.is_resting:
                self._fill_as_maker(order, now_ns, updates)
            else:
                self._fill(order, to_decimal(touch), Liquidity.TAKER, now_ns, updates)
        elif order.ends_at_once:
            self._end(updates, UpdateKind.CANCELLED, OrderState.CANCELLED, order, now_ns)
        else:
            order.is_resting = True

    def _fill_as_maker(self, order: VenueOrder, now_ns: int, updates: list[BrokerUpdate]) -> None:
        assert order.request.limit_price is not None
        self._fill(order, order.request.limit_price, Liquidity.MAKER, now_ns, updates)

    def _fill(
        self, order: VenueOrder, price: Decimal, liquidity: Liquidity, now_ns: int, updates: list[BrokerUpdate]
    ) -> None:
        request = order.request
        instrument = self._markets[order.index].instrument
        quantity = order.remaining_quantity
        if request.reduce_only:
            quantity = min(quantity, self._reducible(request))
        if quantity > 0:
            rates = self._fees
            if liquidity is Liquidity.MAKER:
                rate = instrument.maker_fee if rates is None else rates.maker
            else:
                rate = instrument.taker_fee if rates is None else rates.taker
            fee = fee_of(instrument, quantity, price, rate)
            currency = instrument.settlement
            self.ledger.book(instrument.id, request.side, quantity, price, fee, currency)
            execution = Execution(self._new_id(), quantity, price, fee, currency, liquidity)
            order.filled_quantity = EXACT.add(order.filled_quantity, quantity)
            order.filled_notional = EXACT.add(order.filled_notional, EXACT.multiply(quantity, price))
            if not order.remaining_quantity:
                self._end(updates, UpdateKind.FILLED, OrderState.FILLED, order, now_ns, execution)
                return
            order.state = OrderState.PARTIALLY_FILLED
            self._emit(updates, UpdateKind.PARTIALLY_FILLED, order, now_ns, execution)
        # Only a reduce-only order comes here: what is left of it would open a position.
        self._end(updates, UpdateKind.CANCELLED, OrderState.CANCELLED, order, now_ns)

    def _reducible(self, request: OrderRequest) -> Decimal:
        position = self.ledger.position(request.instrument).quantity
        return max(ZERO, -position if request.side is Side.BUY else position)

    def _problem(self, request: OrderRequest) -> str | None:
        if request.instrument not in self.instruments:
            return f"asset {request.instrument!r} not found"
        index = self.instruments.index(request.instrument)
        position = self.ledger.position(request.instrument).quantity
        return check_request(request, self.instruments[index], position, self._market(index).working.values())

    # -- the book --

    def _market(self, index: int) -> _Market:
        if index >= len(self._markets):
            self._grow()
        return self._markets[index]

    def _grow(self) -> None:
        """Instruments may be registered after the venue has opened."""
        known = len(self._markets)
        self._markets.extend(_Market(instrument) for instrument in list(self.instruments)[known:])
        self.working_instruments = np.append(self.working_instruments, np.zeros(len(self._markets) - known, np.bool_))

    def _show_quote(self, market: _Market, touch: Touch) -> None:
        market.touch = touch
        market.source = _QUOTES

    def _add(self, market: _Market, order: VenueOrder) -> None:
        self._orders[order.request.client_order_id] = order
        self._links[order.broker_order_id] = order
        market.working[order.request.client_order_id] = order
        self.working_instruments[order.index] = True
        self.working_count += 1

    def _remove(self, order: VenueOrder) -> None:
        working = self._markets[order.index].working
        del working[order.request.client_order_id]
        self.working_instruments[order.index] = bool(working)
        self.working_count -= 1

    def _working_order(self, client_order_id: str, now_ns: int, updates: list[BrokerUpdate]) -> "VenueOrder | str":
        """The order if it can still be changed, else why not."""
        order = self._orders.get(client_order_id)
        if order is None:
            return NOT_FOUND
        if not order.state.is_final and order.day not in (None, self._markets[order.index].at(now_ns).day):
            self._end(updates, UpdateKind.EXPIRED, OrderState.EXPIRED, order, now_ns)
        return f"{NOT_WORKING}: {order.state.value}" if order.state.is_final else order

    def _end(
        self,
        updates: list[BrokerUpdate],
        kind: UpdateKind,
        state: OrderState,
        order: VenueOrder,
        now_ns: int,
        execution: Execution | None = None,
    ) -> None:
        order.state = state
        order.ended_ns = now_ns
        self._remove(order)
        self._emit(updates, kind, order, now_ns, execution)

    def _emit(
        self,
        updates: list[BrokerUpdate],
        kind: UpdateKind,
        order: VenueOrder,
        now_ns: int,
        execution: Execution | None = None,
    ) -> None:
        order.updated_ns = now_ns
        request = order.request
        update = BrokerUpdate(
            kind, request.client_order_id, order.broker_order_id, request.instrument, now_ns, execution
        )
        if execution is not None:
            self.fills.append(update)
        updates.append(update)
        if self._listener is not None:
            self._listener(update, order)

    def _refusal(self, kind: UpdateKind, client_order_id: str, now_ns: int, reason: str) -> BrokerUpdate:
        order = self._orders.get(client_order_id)
        broker_order_id, instrument = ("", "") if order is None else (order.broker_order_id, order.request.instrument)
        return BrokerUpdate(kind, client_order_id, broker_order_id, instrument, now_ns, reason=reason)


def fee_of(instrument: Instrument, quantity: Decimal, price: Decimal, rate: Decimal) -> Decimal:
    """What an execution pays, in the settlement currency, to the eighth decimal place; negative: a rebate."""
    exact = EXACT.multiply(abs(instrument.notional(quantity, price)), rate)
    return exact.quantize(FEE_STEP, ROUND_HALF_EVEN, EXACT)
