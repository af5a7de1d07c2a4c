"""The matching core: one account's orders against a market that they do not move.

Its rules:

- A market order takes the touch: the ask to buy, the bid to sell. The whole quantity fills there, whatever size the
  quote shows; or, where executions come in ``portion``s, a part: the rest of a limit order then rests, the rest of a
  market order meets the next quote, the rest of an IOC order is cancelled, and FOK always fills whole.
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
from decimal import Decimal
from itertools import count

import attrs

from trio_nt.errors import DuplicateOrder
from trio_nt.exchange.book import BARS, QUOTES, TRADES, Book, InstrumentState, Touch, VenueOrder, open_order
from trio_nt.exchange.checks import check_replace, check_request
from trio_nt.exchange.fees import FeesLike, as_fees, fee_of
from trio_nt.model.actions import TimeInForce
from trio_nt.model.instruments import Instrument, Instruments, Side
from trio_nt.model.money import ZERO, Number, to_decimal
from trio_nt.model.orders import BrokerUpdate, Execution, Liquidity, OrderRequest, OrderState, UpdateKind

DUPLICATE_ID = "client_order_id must be unique"
NOT_FOUND = "order not found"
NOT_WORKING = "order is no longer working"
Listener = Callable[[BrokerUpdate, VenueOrder], None]
Afford = Callable[[OrderRequest, int, VenueOrder | None], str | None]


class Exchange(Book):
    """A venue with one account. Each method returns what happened, in order; times are UNIX ns.

    ``cash`` is by currency. ``fees`` replaces the instruments' own. ``new_id`` makes order and execution ids, unique
    ones; by default they are numbered. ``listener`` hears each update at its moment, while the order still is in the
    state that the update speaks of; ``on_progress`` hears of an order that was triggered or began to rest, which no
    update tells. ``portion`` says how much of a quantity an execution takes; without it, all. ``afford`` says why the
    account cannot afford an order, or one that replaces another.
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
        on_progress: Callable[[VenueOrder], None] | None = None,
        portion: Callable[[Instrument, Decimal], Decimal] | None = None,
        afford: Afford | None = None,
    ) -> None:
        super().__init__(instruments, cash)
        self._match_on_arrival = match_on_arrival
        self._fees = as_fees(fees)
        numbers = count(1)
        self._new_id = new_id or (lambda: f"V{next(numbers)}")
        self._listener = listener
        self._on_progress = on_progress
        self._portion = portion
        self._afford = afford

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
        index, problem = self._judged(request)
        if problem is not None:
            return [
                BrokerUpdate(
                    UpdateKind.REJECTED, request.client_order_id, "", request.instrument, now_ns, reason=problem
                )
            ]
        market = self.state_of(index).at(now_ns)
        if quote is not None:
            self._show_quote(market, Touch(*quote))
        order = open_order(request, self._new_id(), index, market.day, now_ns)
        self.enter(order)
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
        request = old if isinstance(old, str) else self._replacement(old, quantity, limit_price)
        if isinstance(request, str):
            updates.append(self._refusal(UpdateKind.REPLACE_REJECTED, client_order_id, now_ns, request))
            return updates
        assert isinstance(old, VenueOrder)
        market = self._states[old.index]
        order = open_order(request, self._new_id(), old.index, old.day, now_ns)
        self.continue_chain(old, order, now_ns)
        self._emit(updates, UpdateKind.REPLACED, order, now_ns)
        if not order.is_resting:
            self._arrive(market, order, now_ns, updates)
        return updates

    # -- what the market shows --

    def touch(self, index: int, bid: float, ask: float, bid_size: float, ask_size: float, ts: int) -> None:
        """Remember a quote without matching: for instruments that have no working order."""
        self._show_quote(self.state_of(index), Touch(bid, ask, bid_size, ask_size, ts))

    def quote(
        self, index: int, bid: float, ask: float, bid_size: float, ask_size: float, now_ns: int
    ) -> list[BrokerUpdate]:
        market = self.state_of(index)
        self._show_quote(market, Touch(bid, ask, bid_size, ask_size, now_ns))
        updates: list[BrokerUpdate] = []
        if market.working:
            for order in self._executable(market, now_ns, updates):
                self._meet_quote(order, bid, ask, now_ns, updates)
        return updates

    def trade(self, index: int, price: float, size: float, now_ns: int) -> list[BrokerUpdate]:
        market = self.state_of(index)
        market.source = max(market.source, TRADES)
        updates: list[BrokerUpdate] = []
        if not market.working:
            return updates
        for order in self._executable(market, now_ns, updates):
            if not order.is_triggered:
                if order.reaches_stop(price):
                    self._trigger(order)
                    self._arrive(market, order, now_ns, updates)
            elif order.is_resting:
                if order.is_printed_through(price):
                    self._fill_as_maker(order, now_ns, updates)
            elif market.source == TRADES:
                self._meet_quote(order, price, price, now_ns, updates)
        return updates

    def bar(self, index: int, open: float, high: float, low: float, close: float, now_ns: int) -> list[BrokerUpdate]:
        market = self.state_of(index)
        market.source = max(market.source, BARS)
        updates: list[BrokerUpdate] = []
        if not market.working or market.source > BARS:
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

    def _executable(self, market: InstrumentState, now_ns: int, updates: list[BrokerUpdate]) -> Iterator[VenueOrder]:
        """The working orders of an instrument by arrival; those whose day is over end here; none while closed."""
        market.at(now_ns)
        for order in tuple(market.working.values()):
            if order.day is not None and order.day != market.day:
                self._end(updates, UpdateKind.EXPIRED, OrderState.EXPIRED, order, now_ns)
            elif market.is_open and not order.state.is_final:
                yield order

    def _arrive(self, market: InstrumentState, order: VenueOrder, now_ns: int, updates: list[BrokerUpdate]) -> None:
        touch = market.touch
        if touch is not None and market.is_open and (self._match_on_arrival or touch.ts == now_ns):
            self._meet_quote(order, touch.bid, touch.ask, now_ns, updates)

    def _meet_quote(self, order: VenueOrder, bid: float, ask: float, now_ns: int, updates: list[BrokerUpdate]) -> None:
        touch = ask if order.is_buy else bid
        if not order.is_triggered:
            if not order.reaches_stop(touch):
                return
            self._trigger(order)
        if order.is_marketable(touch):
            if order.is_resting:
                self._fill_as_maker(order, now_ns, updates)
            else:
                self._fill(order, to_decimal(touch), Liquidity.TAKER, now_ns, updates)
        elif order.ends_at_once:
            self._end(updates, UpdateKind.CANCELLED, OrderState.CANCELLED, order, now_ns)
        else:
            self._rest(order)

    def _trigger(self, order: VenueOrder) -> None:
        order.is_triggered = True
        if self._on_progress is not None:
            self._on_progress(order)

    def _rest(self, order: VenueOrder) -> None:
        if not order.is_resting:
            order.is_resting = True
            if self._on_progress is not None:
                self._on_progress(order)

    def _fill_as_maker(self, order: VenueOrder, now_ns: int, updates: list[BrokerUpdate]) -> None:
        assert order.request.limit_price is not None
        self._fill(order, order.request.limit_price, Liquidity.MAKER, now_ns, updates)

    def _fill(
        self, order: VenueOrder, price: Decimal, liquidity: Liquidity, now_ns: int, updates: list[BrokerUpdate]
    ) -> None:
        request = order.request
        instrument = self._states[order.index].instrument
        wanted = order.remaining_quantity
        if request.reduce_only:
            wanted = min(wanted, self._reducible(request))
        quantity = wanted
        if self._portion is not None and request.time_in_force is not TimeInForce.FOK:
            quantity = self._portion(instrument, wanted)
        if quantity > 0:
            execution = self._book_execution(order, instrument, quantity, price, liquidity)
            if not order.remaining_quantity:
                self._end(updates, UpdateKind.FILLED, OrderState.FILLED, order, now_ns, execution)
                return
            order.state = OrderState.PARTIALLY_FILLED
            self._emit(updates, UpdateKind.PARTIALLY_FILLED, order, now_ns, execution)
            if quantity < wanted and not order.ends_at_once:
                if order.limit is not None:
                    self._rest(order)
                return
        # The rest of an order that ends at once, or of a reduce-only order, where it would open a position.
        self._end(updates, UpdateKind.CANCELLED, OrderState.CANCELLED, order, now_ns)

    def _book_execution(
        self, order: VenueOrder, instrument: Instrument, quantity: Decimal, price: Decimal, liquidity: Liquidity
    ) -> Execution:
        rates = self._fees
        if liquidity is Liquidity.MAKER:
            rate = instrument.maker_fee if rates is None else rates.maker
        else:
            rate = instrument.taker_fee if rates is None else rates.taker
        fee = fee_of(instrument, quantity, price, rate)
        execution = Execution(self._new_id(), quantity, price, fee, instrument.settlement, liquidity)
        self.take_execution(order, execution)
        return execution

    def _replacement(
        self, old: VenueOrder, quantity: Decimal | None, limit_price: Decimal | None
    ) -> OrderRequest | str:
        """What a replace asks for, or why it is refused."""
        problem = check_replace(old, self.instruments[old.index], quantity, limit_price)
        if problem is not None:
            return problem
        request = attrs.evolve(
            old.request,
            quantity=old.request.quantity if quantity is None else quantity,
            limit_price=old.request.limit_price if limit_price is None else limit_price,
        )
        problem = None if self._afford is None else self._afford(request, old.index, old)
        return request if problem is None else problem

    def _reducible(self, request: OrderRequest) -> Decimal:
        position = self.ledger.position(request.instrument).quantity
        return max(ZERO, -position if request.side is Side.BUY else position)

    def _judged(self, request: OrderRequest) -> tuple[int, str | None]:
        """The index of an order's instrument, and why the order is not taken; None if it is."""
        try:
            index = self.instruments.index(request.instrument)
        except KeyError:
            return -1, f"asset {request.instrument!r} not found"
        market, position = self.state_of(index), self.ledger.position(request.instrument).quantity
        problem = check_request(request, market.instrument, position, market.working.values())
        if problem is None and self._afford is not None:
            problem = self._afford(request, index, None)
        return index, problem

    # -- the book --

    def _show_quote(self, market: InstrumentState, touch: Touch) -> None:
        market.touch = touch
        market.source = QUOTES

    def _working_order(self, client_order_id: str, now_ns: int, updates: list[BrokerUpdate]) -> "VenueOrder | str":
        """The order if it can still be changed, else why not."""
        order = self._orders.get(client_order_id)
        if order is None:
            return NOT_FOUND
        if not order.state.is_final and order.day not in (None, self._states[order.index].at(now_ns).day):
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
        self.leave(order)
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
