"""Risk decides what may leave. Pure: no Trio, no clock; every decision is a value.

Rules
-----
- ``evaluate`` checks and reserves in one step, so that the second of two actions sees what the first one reserved.
- Limits look at exposure at its worst (``exposure.py``), never at a portfolio that lags behind.
- A target's order is ``target - (own position + own working orders)`` in that instrument.
- Quantity is put on the lot towards zero and prices on the tick to the side of caution, once, here.
- An order reserves until it is final; an order whose outcome is unknown stays reserved.
- Only this module makes ``ApprovedOrder``, ``ApprovedCancel`` and ``ApprovedReplace``; execution takes nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import TypeAlias

from trio_nt.model.actions import Action, Cancel, Replace, Signal
from trio_nt.model.calendar import ALWAYS_OPEN, Calendar
from trio_nt.model.decisions import Approved, ApprovedCancel, ApprovedOrder, ApprovedReplace, Decision
from trio_nt.model.events import Accepted, CancelRejected, Filled, OrderEvent, Refused, Replaced
from trio_nt.model.instruments import InstrumentKind, Instruments, Side
from trio_nt.model.money import EXACT, ZERO
from trio_nt.model.orders import Order, OrderState
from trio_nt.model.reasons import Reason
from trio_nt.risk.checks import Candidate, Level, Market, duplicate_key, make_level, make_market
from trio_nt.risk.crossing import OwnOrders
from trio_nt.risk.exposure import Book, Exposure
from trio_nt.risk.limits import RiskLimits, SelfTrade, TradingState

__all__ = ["Approved", "ApprovedCancel", "ApprovedOrder", "ApprovedReplace", "Decision", "RiskEngine", "RiskRule"]

_add, _subtract = EXACT.add, EXACT.subtract
_NO_LIMITS: Mapping[str, RiskLimits] = {}
_MINUTE_NS = 60_000_000_000
_REPLACEABLE = (OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED)


RiskRule: TypeAlias = Callable[[Action, Exposure, RiskLimits], Reason | None]
_NOTHING: tuple[Decision, ...] = ()


class _Refusal(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = detail


class RiskEngine:
    """Checks actions against limits at strategy and account level, and owns exposure.

    Args:
        instruments: those of the run; further ones may be added to it later.
        limits: the account's.
        strategy_limits: further limits by strategy id; a strategy without an entry has the account's alone.
        order_ids: makes the next client order id.
        rules: the user's own checks, run last: ``rule(action, exposure, limits) -> Reason | None``.
        calendar: whose trading day resets the daily loss.
    """

    def __init__(
        self,
        instruments: Instruments,
        limits: RiskLimits,
        *,
        strategy_limits: Mapping[str, RiskLimits] = _NO_LIMITS,
        order_ids: Callable[[], str],
        rules: Sequence[RiskRule] = (),
        calendar: Calendar = ALWAYS_OPEN,
    ) -> None:
        self.state = TradingState.ACTIVE
        self.exposure = Exposure(instruments)
        self._instruments = instruments
        self._limits = limits
        self._strategy_limits = dict(strategy_limits)
        self._order_ids = order_ids
        self._rules = tuple(rules)
        self.calendar = calendar
        self._markets = [make_market(index, instrument) for index, instrument in enumerate(instruments)]
        self._index: dict[str | int, int] = {}
        self._account = make_level("account", limits, self.exposure.account, self._markets, is_account=True)
        self._levels: dict[str, tuple[Book, tuple[Level, ...]]] = {}
        self._orders: dict[str, tuple[Order, int]] = {}  # working orders by client order id
        self._working: dict[tuple[str, int], dict[str, Order]] = {}  # the same by strategy and instrument
        self._cancelling: set[str] = set()
        self._replacing: dict[str, Decimal] = {}  # the total quantity that the replace asks for
        self._unpriced: dict[int, list[tuple[str, float]]] = {}  # adopted positions that wait for a first quote
        self._own_orders = OwnOrders() if limits.self_trade is not SelfTrade.ALLOW else None
        self._day: date | None = None
        self._day_minute = -1

    # ── what risk is told ──

    def set_quote(self, index: int, bid: float, ask: float, ts_init: int) -> None:
        """The last good quote of an instrument: the reference for prices and worths, and for staleness."""
        try:
            market = self._markets[index]
        except IndexError:
            market = self._market(index)
        market.show(bid, ask, ts_init)
        if self._unpriced:
            self._price_adopted(index)

    def set_mark(self, instrument: str, price: Decimal) -> None:
        """What an instrument counts as worth until its first quote; an order still needs a quote."""
        market = self._market(self._index_of(instrument))
        if not market.ask and price > 0:
            market.mark(float(price))

    def set_cash(self, cash: Mapping[str, Decimal]) -> None:
        """The account's cash per currency as it is now: what buying power counts from."""
        account = self._account
        base = {currency: float(amount) + account.fees.get(currency, 0.0) for currency, amount in cash.items()}
        for index, slot in account.book.slots.items():
            market = self._markets[index]
            counted = slot.flow  # what was paid for spot and equities has left the cash; a contract's worth has not
            if market.instrument.kind in (InstrumentKind.LINEAR, InstrumentKind.INVERSE):
                counted += -slot.held * market.unit if market.inverse else slot.held * market.unit
            base[market.settlement] = base.get(market.settlement, 0.0) - counted
        account.cash = base

    def apply(self, event: OrderEvent, order: Order) -> None:
        """Follow what happened to an order; ``order`` is already in its new state.

        Call it once for every event that the order table makes, in their order.
        """
        known = order.client_order_id in self._orders
        if type(event) is Accepted and known:  # what it may do was reserved on approval
            return
        index = self._index_of(order.instrument)
        if type(event) is Filled:
            fill = event.fill
            self._book_fill(order, index, fill.quantity, fill.price, fill.fee, fill.fee_currency)
        if order.state.is_final:
            if known and order.state is not OrderState.ABANDONED:
                self._release(order, index)
        elif known:
            self._settle(event, order, index)
        else:  # somebody else's order on this account
            self._admit(order, index)

    def adopt(self, order: Order) -> None:
        """Take in a working order that did not come from ``evaluate``: found at the broker or in the journal."""
        if order.client_order_id not in self._orders and order.is_working:
            self._admit(order, self._index_of(order.instrument))

    def adopt_position(
        self, strategy_id: str, instrument: str, signed_quantity: Decimal, price: Decimal | None = None
    ) -> None:
        """Take in a position that exists already, without profit or loss: found at the broker.

        ``price`` is what it counts as worth; by default the middle of the last quote, or of the first to come.
        """
        index = self._index_of(instrument)
        market, quantity = self._market(index), float(signed_quantity)
        flow = 0.0
        if price is not None:
            flow = -market.profit_value(quantity, float(price))
        else:
            self._unpriced.setdefault(index, []).append((strategy_id, quantity))
        self._level_of(strategy_id)
        self.exposure.move(strategy_id, index, signed_quantity, flow)
        if market.unit:
            self._price_adopted(index)

    def _price_adopted(self, index: int) -> None:
        market = self._markets[index]
        for strategy_id, quantity in self._unpriced.pop(index, ()):
            flow = market.unit * (quantity if market.inverse else -quantity)
            self.exposure.move(strategy_id, index, ZERO, flow)

    def position(self, instrument: str) -> Decimal:
        """The account's signed position; KeyError for an instrument that is not known."""
        return self.exposure.position(instrument)

    def release(self, order: Order) -> None:
        """Give up what an ABANDONED order reserves: its absence is certain now."""
        if order.client_order_id in self._orders:
            self._release(order, self._index_of(order.instrument))

    # ── decisions ──

    def evaluate(self, action: Action, *, now_ns: int, ts_signal: int) -> tuple[Decision, ...]:
        """Decide on one action and reserve what is approved.

        Args:
            action: with its ``strategy_id``.
            now_ns: the engine's time.
            ts_signal: ``ts_init`` of the row that caused the action.

        Returns:
            What to do, in this order; empty when nothing needs doing (a target already reached, a cancel of nothing).
        """
        try:
            if type(action) is Signal:
                return self._signal(action, now_ns, ts_signal)
            if type(action) is Cancel:
                return self._cancel(action)
            assert type(action) is Replace
            return self._replace(action, now_ns)
        except _Refusal as refusal:
            return (self._refused(action, refusal, now_ns),)

    def _signal(self, signal: Signal, now_ns: int, ts_signal: int) -> tuple[Decision, ...]:
        strategy_id = signal.strategy_id
        try:
            index = self._index_of(signal.instrument)
        except KeyError as error:
            raise _Refusal(Reason.UNKNOWN_INSTRUMENT, str(error.args[0])) from None
        market = self._markets[index]
        instrument = market.instrument
        book, levels = self._level_of(strategy_id)
        own = book.slot(index)
        side, quantity = signal.side, signal.quantity
        if side is None:
            quantity = _subtract(quantity, _subtract(_add(own.position, own.buys), own.sells))
            side = Side.BUY if quantity > 0 else Side.SELL
            quantity = abs(quantity)
        lot = instrument.lot_size
        if quantity % lot:
            quantity = instrument.round_quantity(quantity)
        if not quantity and signal.side is None:
            return _NOTHING
        self._take_tokens(levels, now_ns)
        if not quantity or quantity < instrument.min_quantity:
            detail = f"{quantity} after rounding to {lot}; the minimum is {max(lot, instrument.min_quantity)}"
            raise _Refusal(Reason.QUANTITY_TOO_SMALL, detail)
        limit, stop = signal.limit_price, signal.stop_price
        if limit is not None and not (limit := instrument.round_price(limit, side)):
            raise _Refusal(Reason.PRICE_COLLAR, f"the limit price is below one tick of {instrument.tick_size}")
        if stop is not None:
            stop = instrument.round_price(stop, side.opposite)  # never triggers earlier than asked
            stop = stop or instrument.tick_size
        buy = side is Side.BUY
        asked = stop if limit is None else limit
        candidate = Candidate(
            market,
            buy,
            quantity,
            quantity,
            (market.ask if buy else market.bid) if asked is None else float(asked),
            limit,
            stop,
            own,
            self.exposure.account.slot(index),
            now_ns,
            True,
        )
        self._check(signal, candidate, levels)
        cancels = self._against_own_orders(candidate, side)
        for level in levels:
            if level.recent is not None:
                level.recent.remember(duplicate_key(candidate), now_ns)
        decisions = [ApprovedCancel(order) for order in cancels] if cancels else []
        after = tuple(order.client_order_id for order in cancels)
        orders = [
            self._approved(signal, instrument.id, index, side, part, limit, stop, ts_signal)
            for part in self._parts(candidate)
        ]
        if len(orders) == 1 and not after:
            return (ApprovedOrder(orders[0]),)
        approved: list[Decision] = [*decisions]
        for order in orders:
            approved.append(ApprovedOrder(order, after))
            after = (*after, order.client_order_id)
        return tuple(approved)

    def _approved(
        self,
        signal: Signal,
        instrument_id: str,
        index: int,
        side: Side,
        quantity: Decimal,
        limit: Decimal | None,
        stop: Decimal | None,
        ts_signal: int,
    ) -> Order:
        order = Order(
            self._order_ids(),
            signal.strategy_id,
            instrument_id,
            side,
            quantity,
            signal.order_type,
            limit,
            stop,
            signal.time_in_force,
            signal.reduce_only,
            signal.tag,
            ts_signal,
        )
        self._admit(order, index)
        return order

    def _cancel(self, cancel: Cancel) -> tuple[Decision, ...]:
        if cancel.order_id is not None:
            order, _ = self._known(cancel.order_id, cancel.strategy_id)
            wanted = [order]
        else:
            assert cancel.instrument is not None
            try:
                index = self._index_of(cancel.instrument)
            except KeyError as error:
                raise _Refusal(Reason.UNKNOWN_INSTRUMENT, str(error.args[0])) from None
            wanted = list(self._working.get((cancel.strategy_id, index), {}).values())
        return tuple(self._cancelled(order) for order in wanted if order.client_order_id not in self._cancelling)

    def _cancelled(self, order: Order) -> ApprovedCancel:
        self._cancelling.add(order.client_order_id)
        return ApprovedCancel(order)

    def _replace(self, replace: Replace, now_ns: int) -> tuple[Decision, ...]:
        order, index = self._known(replace.order_id, replace.strategy_id)
        order_id = order.client_order_id
        book, levels = self._level_of(order.strategy_id)
        self._take_tokens(levels, now_ns)
        if order.state not in _REPLACEABLE or order_id in self._cancelling or order_id in self._replacing:
            raise _Refusal(Reason.NOT_REPLACEABLE, f"order {order_id} is {order.state.value} or about to change")
        market = self._markets[index]
        instrument, reserved = market.instrument, self.exposure.reserved(order_id)
        total = order.quantity if replace.quantity is None else instrument.round_quantity(replace.quantity)
        remaining = _subtract(total, order.filled_quantity)
        if remaining <= 0 or total < instrument.min_quantity:
            raise _Refusal(Reason.QUANTITY_TOO_SMALL, f"{total} would leave {remaining} to be filled")
        limit = order.limit_price
        if replace.limit_price is not None:
            if limit is None:
                raise _Refusal(Reason.NOT_REPLACEABLE, f"a {order.order_type.value} order has no limit price")
            limit = instrument.round_price(replace.limit_price, order.side)
        buy = order.side is Side.BUY
        touch = market.ask if buy else market.bid
        price = float(limit if limit is not None else order.stop_price or touch)
        added = max(_subtract(remaining, reserved), ZERO)
        whole = self.exposure.account.slot(index)
        candidate = Candidate(
            market, buy, remaining, added, price, limit, order.stop_price, book.slot(index), whole, now_ns, False
        )
        self._check(replace, candidate, levels)
        if self._against_own_orders(candidate, order.side, ignore=order_id):
            raise _Refusal(Reason.SELF_TRADE, f"{limit} could trade against an own working order")
        self._replacing[order_id] = total
        self.exposure.reserve(order, index, max(remaining, reserved))
        if self._own_orders is not None and limit is not None and limit != order.limit_price:
            self._own_orders.add_price(order, index, limit)
        return (
            ApprovedReplace(
                order,
                None if replace.quantity is None else total,
                None if replace.limit_price is None else limit,
            ),
        )

    # ── checks ──

    def _take_tokens(self, levels: tuple[Level, ...], now_ns: int) -> None:
        for level in levels:
            if level.bucket is not None and not level.bucket.take(now_ns):
                rate = level.limits.submit_rate_per_s
                raise _Refusal(Reason.SUBMIT_RATE, f"{level.name}: more than {rate:g} orders a second")

    def _check(self, action: Signal | Replace, candidate: Candidate, levels: tuple[Level, ...]) -> None:
        market = candidate.market
        if self.state is not TradingState.ACTIVE:
            if self.state is TradingState.HALTED:
                raise _Refusal(Reason.HALTED, "nothing is sent until a person decides")
            if not candidate.reduces:
                raise _Refusal(Reason.REDUCING, "it would add to a position")
        if type(action) is Signal and action.reduce_only and not candidate.reduces:
            raise _Refusal(Reason.REDUCE_ONLY, f"the position is {candidate.own.position}")
        if not market.ask > 0:
            raise _Refusal(Reason.NO_PRICE, f"no good quote of {market.instrument.id} yet")
        if not market.always_open and not market.instrument.calendar.is_open(candidate.now_ns):
            raise _Refusal(Reason.CLOSED, f"{market.instrument.id} does not trade now")
        if not market.instrument.shortable and not candidate.buy:
            whole = candidate.whole
            if _subtract(_subtract(whole.position, whole.sells), candidate.added) < 0:
                raise _Refusal(Reason.NOT_SHORTABLE, f"the account holds {whole.position} {market.instrument.id}")
        for level in levels:
            if level.limits.max_daily_loss is not None:
                self._start_day(candidate.now_ns)
            for reason, rule in level.rules:
                detail = rule(candidate, level)
                if detail is not None:
                    raise _Refusal(reason, detail if level.is_account else f"{level.name}: {detail}")
        for user_rule in self._rules:
            found = user_rule(action, self.exposure, self._limits)
            if found is not None:
                raise _Refusal(found, getattr(user_rule, "__name__", repr(user_rule)))

    def _against_own_orders(self, candidate: Candidate, side: Side, *, ignore: str = "") -> list[Order]:
        """Own working orders that must be cancelled first; a refusal where that is not wanted."""
        if self._own_orders is None:
            return []
        market = candidate.market
        found = self._own_orders.against(market.index, side, candidate.limit, ignore=ignore)
        if not found:
            return []
        if self._limits.self_trade is SelfTrade.REFUSE:
            raise _Refusal(Reason.SELF_TRADE, f"order {found[0]} of the same account stands on the other side")
        orders = [self._orders[order_id][0] for order_id in found]
        self._cancelling.update(found)
        return orders

    def _parts(self, candidate: Candidate) -> tuple[Decimal, ...]:
        """The quantities to send: two where one order would turn the account's position around."""
        split = self._limits.split_flips
        if split is None:
            split = candidate.market.instrument.kind is InstrumentKind.EQUITY
        if not split:
            return (candidate.quantity,)
        whole = candidate.whole
        left = _add(whole.position, whole.buys) if candidate.buy else _subtract(whole.sells, whole.position)
        closing = -left  # what may still be closed on this side
        if not ZERO < closing < candidate.quantity:
            return (candidate.quantity,)
        return closing, _subtract(candidate.quantity, closing)

    def _start_day(self, now_ns: int) -> None:
        minute = now_ns // _MINUTE_NS
        if minute == self._day_minute:
            return
        self._day_minute = minute
        day = self.calendar.trading_day(now_ns)
        if day == self._day:
            return
        self._day = day
        self._note_profit()

    def start_day(self, now_ns: int) -> None:
        """The trading day of ``now_ns`` began with what has been booked by now: after a restart."""
        self._day = self.calendar.trading_day(now_ns)
        self._note_profit()

    def _note_profit(self) -> None:
        currencies = dict.fromkeys(market.instrument.settlement for market in self._markets)
        for level in (self._account, *(level for _, levels in self._levels.values() for level in levels)):
            level.day_started_at = {currency: level.profit(currency) for currency in currencies}

    # ── bookkeeping ──

    def _admit(self, order: Order, index: int) -> None:
        self._orders[order.client_order_id] = (order, index)
        key = (order.strategy_id, index)
        working = self._working.get(key)
        if working is None:
            working = self._working[key] = {}
        working[order.client_order_id] = order
        self.exposure.reserve(order, index, order.remaining_quantity)
        if self._own_orders is not None:
            self._own_orders.add(order, index)

    def _release(self, order: Order, index: int) -> None:
        order_id = order.client_order_id
        del self._orders[order_id]
        del self._working[order.strategy_id, index][order_id]
        self._cancelling.discard(order_id)
        self._replacing.pop(order_id, None)
        self.exposure.reserve(order, index, ZERO)
        if self._own_orders is not None:
            self._own_orders.discard(order, index)

    def _settle(self, event: OrderEvent, order: Order, index: int) -> None:
        """Reserve what a working order may still do, now that something happened to it."""
        order_id = order.client_order_id
        if type(event) is CancelRejected and not event.is_replace:
            self._cancelling.discard(order_id)
        elif order_id in self._replacing and type(event) in (Replaced, CancelRejected):
            del self._replacing[order_id]
            if self._own_orders is not None:
                self._own_orders.settle(order, index)
        total = order.quantity
        if order_id in self._replacing:
            total = max(total, self._replacing[order_id])
        self.exposure.reserve(order, index, max(_subtract(total, order.filled_quantity), ZERO))

    def _book_fill(
        self, order: Order, index: int, quantity: Decimal, price: Decimal, fee: Decimal, fee_currency: str
    ) -> None:
        signed = quantity if order.side is Side.BUY else -quantity
        flow = -self._markets[index].profit_value(float(signed), float(price))
        _, levels = self._level_of(order.strategy_id)
        self.exposure.move(order.strategy_id, index, signed, flow)
        if fee:
            for level in levels:
                level.fees[fee_currency] = level.fees.get(fee_currency, 0.0) + float(fee)

    def _known(self, order_id: str, strategy_id: str) -> tuple[Order, int]:
        found = self._orders.get(order_id)
        if found is None or (strategy_id and found[0].strategy_id != strategy_id):
            raise _Refusal(Reason.UNKNOWN_ORDER, f"no working order {order_id!r} of this strategy")
        return found

    def _refused(self, action: Action, refusal: _Refusal, now_ns: int) -> Refused:
        key = action.order_id if isinstance(action, Replace) else action.instrument
        order_id = getattr(action, "order_id", None) or ""
        try:
            instrument = self._instruments[key].id if key is not None else ""
        except KeyError:
            known = self._orders.get(order_id)
            instrument = known[0].instrument if known is not None else str(key)
        return Refused(action.strategy_id, order_id, instrument, now_ns, refusal.reason, refusal.detail, action)

    def _index_of(self, key: str | int) -> int:
        found = self._index.get(key)
        if found is None:
            found = self._index[key] = self._instruments.index(key)
            self._market(found)
        return found

    def _market(self, index: int) -> Market:
        while len(self._markets) <= index:
            position = len(self._markets)
            self._markets.append(make_market(position, self._instruments[position]))
        return self._markets[index]

    def _level_of(self, strategy_id: str) -> tuple[Book, tuple[Level, ...]]:
        found = self._levels.get(strategy_id)
        if found is None:
            book = self.exposure.book(strategy_id)
            limits = self._strategy_limits.get(strategy_id)
            levels: tuple[Level, ...] = (self._account,)
            if limits is not None:
                levels = (make_level(strategy_id, limits, book, self._markets, is_account=False), self._account)
            found = self._levels[strategy_id] = (book, levels)
        return found
