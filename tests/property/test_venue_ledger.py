"""The matching core against an account kept by hand, in fractions: nothing is lost, nothing fills outside the rules.

At any point the venue may die and be rebuilt from its log.
"""

from decimal import Decimal
from fractions import Fraction

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_nt.errors import DuplicateOrder
from trio_nt.exchange.matching import Exchange
from trio_nt.exchange.records import Record, line_of, progress_of, read_lines, record_of, restore
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.instruments import Instrument, Instruments, Side
from trio_nt.model.orders import BrokerUpdate, Liquidity, OrderRequest, UpdateKind

MAKER, TAKER = Fraction(7, 100_000), Fraction(31, 100_000)
DAY_NS = 86_400_000_000_000
ENDS = {UpdateKind.FILLED, UpdateKind.CANCELLED, UpdateKind.EXPIRED}
SYMBOLS = ("AAA", "BBB")

symbols = st.sampled_from(range(len(SYMBOLS)))
ticks = st.integers(98, 102)
sides = st.sampled_from(Side)


@attrs.define
class Known:
    """What the account's owner knows of an order."""

    index: int
    side: Side
    quantity: Decimal
    limit: Decimal | None
    stop: Decimal | None
    time_in_force: TimeInForce
    broker_order_id: str
    day: int
    filled: Decimal = Decimal(0)
    is_open: bool = True

    def allows(self, price: Decimal) -> bool:
        if self.limit is None:
            return True
        return price <= self.limit if self.side is Side.BUY else price >= self.limit


def price_of(tick: int) -> float:
    return tick / 100


class VenueMachine(RuleBasedStateMachine):
    @initialize(live=st.booleans())
    def open(self, live: bool) -> None:
        self.live = live
        self.instruments = Instruments(
            Instrument(id=symbol, symbol=symbol, maker_fee="0.00007", taker_fee="0.00031") for symbol in SYMBOLS
        )
        self.log: list[bytes] = []
        self.ids = 0
        self.part = 0  # lots that an execution leaves over
        self.exchange = self.venue()
        self.now = 1
        self.orders: dict[str, Known] = {}
        self.executions: set[str] = set()
        self.cash, self.fees = Fraction(1_000), Fraction(0)
        self.positions = [Fraction(0)] * len(SYMBOLS)
        self.touches: list[tuple[int, int] | None] = [None] * len(SYMBOLS)
        self.shown = 0  # when the market last showed a quote

    def venue(self) -> Exchange:
        return Exchange(
            self.instruments,
            cash={"USD": 1_000},
            match_on_arrival=self.live,
            new_id=self.new_id,
            listener=lambda update, order: self.note(record_of(update, order)),
            on_progress=lambda order: self.note(progress_of(order, self.now)),
            portion=lambda instrument, quantity: quantity - self.part if quantity > self.part else quantity,
        )

    def new_id(self) -> str:
        self.ids += 1
        return f"v{self.ids}"

    def note(self, record: Record) -> None:
        self.log.append(line_of(record))

    # -- what the trader does --

    @rule(
        index=symbols,
        side=sides,
        quantity=st.integers(1, 50),
        limit=st.none() | ticks,
        stop=st.none() | ticks,
        time_in_force=st.sampled_from(TimeInForce),
    )
    def submit(self, index, side, quantity, limit, stop, time_in_force):
        key = f"o{len(self.orders)}"
        self.partly = set()
        kind = {
            (False, False): OrderType.MARKET,
            (True, False): OrderType.LIMIT,
            (False, True): OrderType.STOP,
            (True, True): OrderType.STOP_LIMIT,
        }[limit is not None, stop is not None]
        limit_price = None if limit is None else Decimal(limit) / 100
        stop_price = None if stop is None else Decimal(stop) / 100
        request = OrderRequest(
            key, SYMBOLS[index], side, Decimal(quantity), kind, limit_price, stop_price, time_in_force
        )
        updates = self.exchange.submit(request, self.now)
        assert updates[0].kind is UpdateKind.ACCEPTED
        self.orders[key] = Known(
            index, side, Decimal(quantity), limit_price, stop_price, time_in_force, updates[0].broker_order_id, self.day
        )
        assert self.live or self.shown == self.now or not updates[1:]
        self.take(updates[1:])
        assert key not in self.partly or time_in_force is not TimeInForce.FOK

    @precondition(lambda self: self.orders)
    @rule(data=st.data())
    def submit_again(self, data):
        key = data.draw(st.sampled_from(sorted(self.orders)))
        request = OrderRequest(key, SYMBOLS[0], Side.BUY, Decimal(99))
        with pytest.raises(DuplicateOrder):
            self.exchange.submit(request, self.now)

    @rule(quantity=st.sampled_from(["0", "-3", "1.5", "NaN", "1e30"]))
    def submit_nonsense(self, quantity):
        (update,) = self.exchange.submit(OrderRequest("bad", SYMBOLS[0], Side.BUY, Decimal(quantity)), self.now)
        assert update.kind is UpdateKind.REJECTED

    @precondition(lambda self: self.orders)
    @rule(data=st.data())
    def cancel(self, data):
        key = data.draw(st.sampled_from(sorted(self.orders)))
        was_open = self.orders[key].is_open
        updates = self.exchange.cancel(key, self.now)
        assert updates[-1].kind is (UpdateKind.CANCELLED if was_open and not self.is_over(key) else REFUSED_CANCEL)
        self.take([update for update in updates if update.kind is not REFUSED_CANCEL])
        assert not self.orders[key].is_open

    @precondition(lambda self: self.orders)
    @rule(data=st.data(), quantity=st.none() | st.integers(1, 50), limit=st.none() | ticks)
    def replace(self, data, quantity, limit):
        key = data.draw(st.sampled_from(sorted(self.orders)))
        order = self.orders[key]
        limit_price = None if limit is None else Decimal(limit) / 100
        new_quantity = None if quantity is None else Decimal(quantity)
        updates = self.exchange.replace(key, quantity=new_quantity, limit_price=limit_price, now_ns=self.now)
        if updates[-1].kind is UpdateKind.REPLACE_REJECTED:
            assert (
                not order.is_open
                or self.is_over(key)
                or (limit is not None and order.limit is None)
                or (quantity is not None and quantity <= order.filled)
            )
            self.take(updates[:-1])
            return
        assert updates[0].kind is UpdateKind.REPLACED
        assert updates[0].broker_order_id != order.broker_order_id
        order.broker_order_id = updates[0].broker_order_id
        order.quantity = new_quantity or order.quantity
        order.limit = limit_price or order.limit
        self.take(updates[1:])

    # -- what the market does --

    @rule(index=symbols, bid=ticks, spread=st.integers(0, 3), later=st.integers(0, 2))
    def quote(self, index, bid, spread, later):
        self.now += later
        self.touches[index] = (bid, bid + spread)
        self.shown = self.now
        self.partly = set()
        self.take(self.exchange.quote(index, price_of(bid), price_of(bid + spread), 1.0, 1.0, self.now))
        for key, order in self.orders.items():
            if not order.is_open or order.index != index:
                continue
            assert not self.is_over(key)
            # Whoever has met a quote and still works could not trade against it, or not as a whole.
            assert (
                key in self.partly
                or order.stop is not None
                or (order.limit is not None and not self.is_marketable(order))
            )

    @rule(index=symbols, tick=ticks, later=st.integers(0, 2))
    def trade(self, index, tick, later):
        self.now += later
        self.take(self.exchange.trade(index, price_of(tick), 5.0, self.now), print_tick=tick)

    @rule()
    def next_day(self):
        self.now = (self.day + 1) * DAY_NS

    @rule(part=st.integers(0, 3))
    def fill_in_parts(self, part):
        self.part = part

    @rule()
    def die_and_come_back(self):
        """What the log says is all that there was, quotes excepted: those the market shows again."""
        died, self.exchange = self.exchange, self.venue()
        restore(self.exchange, read_lines(b"".join(self.log)))
        assert contents(self.exchange) == contents(died)
        for index, touch in enumerate(self.touches):
            if touch is not None:
                bid, ask = touch
                self.exchange.touch(index, price_of(bid), price_of(ask), 1.0, 1.0, died.last_quote(index).ts)

    # -- what the owner knows --

    @property
    def day(self) -> int:
        return self.now // DAY_NS

    def is_over(self, key: str) -> bool:
        order = self.orders[key]
        return order.time_in_force is TimeInForce.DAY and order.day != self.day

    def open_orders(self, index: int) -> list[Known]:
        return [order for order in self.orders.values() if order.is_open and order.index == index]

    def is_marketable(self, order: Known) -> bool:
        bid, ask = self.touches[order.index]
        return order.allows(Decimal(ask if order.side is Side.BUY else bid) / 100)

    def take(self, updates: list[BrokerUpdate], print_tick: int | None = None) -> None:
        """Book what the venue tells, and doubt all of it."""
        for update in updates:
            order = self.orders[update.client_order_id]
            assert order.is_open, "an order that has ended goes on"
            assert update.broker_order_id == order.broker_order_id
            assert update.ts_event == self.now
            if update.kind is UpdateKind.PARTIALLY_FILLED:
                assert not self.is_over(update.client_order_id)
                self.partly.add(update.client_order_id)
                self.book(order, update, print_tick)
                continue
            assert update.kind in ENDS
            order.is_open = False
            if update.kind is UpdateKind.EXPIRED:
                assert self.is_over(update.client_order_id)
            if update.kind is UpdateKind.FILLED:
                assert not self.is_over(update.client_order_id), "filled after its day"
                self.book(order, update, print_tick)

    def book(self, order: Known, update: BrokerUpdate, print_tick: int | None) -> None:
        execution = update.execution
        assert execution is not None
        assert execution.execution_id not in self.executions
        self.executions.add(execution.execution_id)
        left = order.quantity - order.filled
        whole = order.time_in_force is TimeInForce.FOK or left <= self.part
        assert execution.quantity == (left if whole else left - self.part)
        assert (execution.quantity == left) == (update.kind is UpdateKind.FILLED)
        order.filled += execution.quantity
        assert order.allows(execution.price), "worse than its limit"
        touch = self.touches[order.index]
        if execution.liquidity is Liquidity.MAKER:
            assert execution.price == order.limit
            if print_tick is None:
                assert self.is_marketable(order)
            else:
                assert order.allows(Decimal(print_tick) / 100)
                assert Decimal(print_tick) / 100 != order.limit, "a print at the limit"
        elif touch is None:
            assert execution.price == Decimal(print_tick) / 100
        else:
            assert execution.price == Decimal(touch[order.side is Side.BUY]) / 100
        notional = Fraction(execution.price) * Fraction(execution.quantity)
        fee = round(notional * (MAKER if execution.liquidity is Liquidity.MAKER else TAKER) * 10**8)
        assert Fraction(execution.fee) == Fraction(fee, 10**8)
        self.fees += Fraction(fee, 10**8)
        self.cash -= order.side.sign * notional + Fraction(fee, 10**8)
        self.positions[order.index] += order.side.sign * Fraction(execution.quantity)

    @invariant()
    def nothing_is_lost(self):
        ledger = self.exchange.ledger
        assert Fraction(ledger.cash["USD"]) == self.cash
        assert Fraction(ledger.fees["USD"]) == self.fees
        for index, symbol in enumerate(SYMBOLS):
            assert Fraction(ledger.position(symbol).quantity) == self.positions[index]
        assert len(self.exchange.fills) == len(self.executions)

    @invariant()
    def the_book_holds_what_is_open(self):
        open_now = [bool(self.open_orders(index)) for index in range(len(SYMBOLS))]
        assert self.exchange.working_instruments.tolist() == open_now
        assert self.exchange.working_count == sum(order.is_open for order in self.orders.values())
        assert set(self.exchange.orders) == set(self.orders)


def contents(exchange: Exchange) -> tuple[object, ...]:
    """All that a book holds."""
    ledger = exchange.ledger
    return (
        [attrs.asdict(order) for order in exchange.links.values()],
        [(key, order.broker_order_id) for key, order in exchange.orders.items()],
        [order.broker_order_id for order in exchange.working_orders()],
        exchange.working_instruments.tolist(),
        exchange.fills,
        dict(ledger.cash),
        dict(ledger.fees),
        dict(ledger.realised),
        dict(ledger.positions),
    )


REFUSED_CANCEL = UpdateKind.CANCEL_REJECTED
TestVenueLedger = VenueMachine.TestCase
