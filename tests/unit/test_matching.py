"""The matching core's rules, one by one."""

from datetime import date
from decimal import Decimal

import attrs
import pytest

from trio_nt.errors import DuplicateOrder
from trio_nt.exchange.book import Touch
from trio_nt.exchange.fees import fee_of
from trio_nt.exchange.matching import Exchange
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.instruments import Instrument, InstrumentKind, Instruments, Side
from trio_nt.model.orders import BrokerUpdate, Liquidity, OrderRequest, OrderState, UpdateKind

ACCEPTED, FILLED, PARTIALLY_FILLED = UpdateKind.ACCEPTED, UpdateKind.FILLED, UpdateKind.PARTIALLY_FILLED
CANCELLED, REJECTED, EXPIRED, REPLACED = (
    UpdateKind.CANCELLED,
    UpdateKind.REJECTED,
    UpdateKind.EXPIRED,
    UpdateKind.REPLACED,
)
DAY_NS = 86_400_000_000_000


def make(*, live: bool = False, **fields: object) -> Exchange:
    instrument = Instrument(id="ABC", symbol="ABC", **({"maker_fee": "0.0001", "taker_fee": "0.001"} | fields))
    return Exchange(Instruments([instrument]), cash={"USD": 100_000}, match_on_arrival=live)


def order(key: str = "a", side: str = "buy", quantity: object = 10, **fields: object) -> OrderRequest:
    limit, stop = fields.pop("limit", None), fields.pop("stop", None)
    kind = {
        (False, False): OrderType.MARKET,
        (True, False): OrderType.LIMIT,
        (False, True): OrderType.STOP,
        (True, True): OrderType.STOP_LIMIT,
    }[limit is not None, stop is not None]
    return OrderRequest(
        key,
        "ABC",
        Side(side),
        Decimal(str(quantity)),
        kind,
        None if limit is None else Decimal(str(limit)),
        None if stop is None else Decimal(str(stop)),
        **fields,  # type: ignore[arg-type]
    )


def quote(exchange: Exchange, bid: float, ask: float, now_ns: int) -> list[BrokerUpdate]:
    return exchange.quote(0, bid, ask, 1.0, 1.0, now_ns)


def kinds(updates: list[BrokerUpdate]) -> list[UpdateKind]:
    return [update.kind for update in updates]


def fill(updates: list[BrokerUpdate]) -> tuple[str, str]:
    """Price and liquidity of the one execution there is."""
    (execution,) = [update.execution for update in updates if update.execution]
    return str(execution.price), execution.liquidity.value


# -- when an order meets the market --


def test_in_replay_a_quote_held_from_before_does_not_count():
    exchange = make()
    assert kinds(exchange.submit(order(), 5, Touch(1.00, 1.01, 1, 1, 4))) == [ACCEPTED]
    assert fill(quote(exchange, 1.00, 1.05, 6)) == ("1.05", "taker")


def test_in_replay_a_quote_of_the_same_moment_counts():
    exchange = make()
    assert kinds(exchange.submit(order(side="sell"), 5, Touch(1.00, 1.01, 1, 1, 5))) == [ACCEPTED, FILLED]


def test_the_live_venue_matches_against_the_quote_in_force():
    exchange = make(live=True)
    exchange.touch(0, 1.00, 1.01, 1, 1, 4)
    assert fill(exchange.submit(order(), 500)) == ("1.01", "taker")


def test_a_live_order_waits_for_the_first_quote():
    exchange = make(live=True)
    assert kinds(exchange.submit(order(), 5)) == [ACCEPTED]
    assert kinds(quote(exchange, 1.00, 1.01, 9)) == [FILLED]


def test_the_whole_quantity_fills_whatever_the_quote_shows():
    exchange = make(live=True)
    quote(exchange, 1.00, 1.01, 1)
    (_, filled) = exchange.submit(order(quantity=1_000), 2)
    assert filled.execution is not None
    assert filled.execution.quantity == 1_000


def test_where_no_quotes_are_a_market_order_meets_the_next_print():
    exchange = make()
    exchange.trade(0, 1.00, 1, 4)
    assert kinds(exchange.submit(order(), 5)) == [ACCEPTED]
    assert fill(exchange.trade(0, 1.02, 1, 6)) == ("1.02", "taker")


def test_where_quotes_are_a_waiting_order_ignores_prints():
    exchange = make()
    exchange.submit(order(), 5, Touch(1.00, 1.01, 1, 1, 4))
    assert exchange.trade(0, 0.50, 1, 6) == []
    assert fill(quote(exchange, 1.00, 1.01, 7)) == ("1.01", "taker")


# -- limits --


def test_a_marketable_limit_takes_the_touch():
    exchange = make(live=True)
    quote(exchange, 1.00, 1.01, 1)
    assert fill(exchange.submit(order(limit="1.10"), 2)) == ("1.01", "taker")


@pytest.mark.parametrize(("side", "limit", "reached"), [("buy", "0.99", (0.98, 0.99)), ("sell", "1.02", (1.02, 1.03))])
def test_a_resting_limit_fills_at_its_price_as_maker_when_the_other_side_reaches_it(side, limit, reached):
    exchange = make(live=True)
    quote(exchange, 1.00, 1.01, 1)
    assert kinds(exchange.submit(order(side=side, limit=limit), 2)) == [ACCEPTED]
    assert quote(exchange, 1.00, 1.01, 3) == []
    assert fill(quote(exchange, *reached, 4)) == (limit, "maker")


def test_a_resting_limit_fills_at_its_own_price_even_when_the_quote_jumps_past_it():
    exchange = make(live=True)
    quote(exchange, 1.00, 1.01, 1)
    exchange.submit(order(limit="0.99"), 2)
    assert fill(quote(exchange, 0.50, 0.51, 3)) == ("0.99", "maker")


@pytest.mark.parametrize(("side", "limit", "through"), [("buy", "0.99", 0.98), ("sell", "1.02", 1.03)])
def test_a_print_at_the_limit_does_not_fill_and_one_beyond_it_does(side, limit, through):
    exchange = make(live=True)
    quote(exchange, 1.00, 1.01, 1)
    exchange.submit(order(side=side, limit=limit), 2)
    assert exchange.trade(0, float(limit), 5, 3) == []
    assert fill(exchange.trade(0, through, 5, 4)) == (limit, "maker")


@pytest.mark.parametrize("time_in_force", [TimeInForce.IOC, TimeInForce.FOK])
def test_ioc_and_fok_end_with_the_first_quote(time_in_force):
    exchange = make()
    exchange.submit(order(limit="0.99", time_in_force=time_in_force), 1)
    assert kinds(quote(exchange, 1.00, 1.01, 2)) == [CANCELLED]
    assert not exchange.working_instruments[0]
    exchange.submit(order("b", limit="1.01", time_in_force=time_in_force), 3)
    assert kinds(quote(exchange, 1.00, 1.01, 4)) == [FILLED]


# -- stops --


@pytest.mark.parametrize(
    ("side", "stop", "before", "after", "price"),
    [
        ("buy", "1.05", (1.03, 1.04), (1.06, 1.07), "1.07"),
        ("sell", "0.95", (0.96, 0.97), (0.93, 0.94), "0.93"),
    ],
)
def test_a_stop_is_triggered_by_its_side_of_the_quote_and_takes_the_touch(side, stop, before, after, price):
    exchange = make(live=True)
    quote(exchange, 1.00, 1.01, 1)
    assert kinds(exchange.submit(order(side=side, stop=stop), 2)) == [ACCEPTED]
    assert quote(exchange, *before, 3) == []
    assert fill(quote(exchange, *after, 4)) == (price, "taker")


def test_a_buy_stop_exactly_at_the_ask_is_triggered():
    exchange = make(live=True)
    quote(exchange, 1.00, 1.01, 1)
    assert fill(exchange.submit(order(stop="1.01"), 2)) == ("1.01", "taker")


def test_a_stop_triggered_by_a_print_meets_the_next_quote_in_replay():
    exchange = make()
    exchange.submit(order(stop="1.05"), 1, Touch(1.00, 1.01, 1, 1, 1))
    assert exchange.trade(0, 1.06, 1, 2) == []
    assert fill(quote(exchange, 1.00, 1.01, 3)) == ("1.01", "taker")


def test_a_stop_limit_rests_once_triggered_beyond_its_limit():
    exchange = make(live=True)
    quote(exchange, 1.00, 1.01, 1)
    exchange.submit(order(stop="1.05", limit="1.06"), 2)
    assert quote(exchange, 1.09, 1.10, 3) == []
    assert fill(quote(exchange, 1.05, 1.06, 4)) == ("1.06", "maker")


# -- bars --


def test_an_order_caused_by_a_bar_meets_the_next_bars_open():
    exchange = make()
    exchange.bar(0, 1.0, 1.2, 0.9, 1.1, 10)
    exchange.submit(order(), 10)
    assert fill(exchange.bar(0, 1.15, 1.3, 1.0, 1.2, 20)) == ("1.15", "taker")


def test_inside_a_bar_stops_come_before_limits():
    exchange = make()
    exchange.submit(order("limit", "sell", limit="1.20"), 1)
    exchange.submit(order("stop", "sell", stop="0.90"), 1)
    updates = exchange.bar(0, 1.00, 1.30, 0.80, 1.00, 10)
    assert [(update.client_order_id, update.execution.price) for update in updates if update.execution] == [
        ("stop", Decimal("0.90")),
        ("limit", Decimal("1.20")),
    ]


def test_a_bar_that_opens_beyond_a_stop_fills_it_at_the_open():
    exchange = make()
    exchange.submit(order(side="sell", stop="0.90"), 1)
    assert fill(exchange.bar(0, 0.70, 0.95, 0.60, 0.80, 10)) == ("0.7", "taker")


def test_a_limit_needs_the_bars_range_to_go_beyond_it():
    exchange = make()
    exchange.submit(order(limit="0.90"), 1)
    assert exchange.bar(0, 1.00, 1.10, 0.90, 1.00, 10) == []
    assert fill(exchange.bar(0, 1.00, 1.10, 0.89, 1.00, 20)) == ("0.90", "maker")


def test_a_stop_limit_triggered_inside_a_bar_waits_for_the_next_one():
    exchange = make()
    exchange.submit(order(stop="1.10", limit="1.05"), 1)
    assert exchange.bar(0, 1.00, 1.20, 0.90, 1.15, 10) == []
    assert fill(exchange.bar(0, 1.10, 1.20, 1.00, 1.15, 20)) == ("1.05", "maker")


def test_bars_do_not_match_where_quotes_are():
    exchange = make()
    quote(exchange, 1.00, 1.01, 1)
    exchange.submit(order(), 2)
    assert exchange.bar(0, 1.0, 1.1, 0.9, 1.0, 3) == []


# -- time --


def test_a_day_order_expires_with_the_first_event_of_the_next_day_and_gtc_stays():
    exchange = make()
    exchange.submit(order("day", limit="0.50"), 1, Touch(1.00, 1.01, 1, 1, 1))
    exchange.submit(order("gtc", limit="0.50", time_in_force=TimeInForce.GTC), 1, Touch(1.00, 1.01, 1, 1, 1))
    assert quote(exchange, 1.00, 1.01, DAY_NS - 1) == []
    assert kinds(quote(exchange, 0.40, 0.41, DAY_NS)) == [EXPIRED, FILLED]
    assert exchange.orders["day"].state is OrderState.EXPIRED


def test_a_cancel_on_the_next_day_finds_the_order_expired():
    exchange = make()
    exchange.submit(order(limit="0.50"), 1)
    assert kinds(exchange.cancel("a", DAY_NS)) == [EXPIRED, UpdateKind.CANCEL_REJECTED]


@attrs.frozen
class OpensAtNoon:
    def is_open(self, at_ns: int) -> bool:
        return at_ns >= DAY_NS // 2

    def trading_day(self, at_ns: int) -> date:
        return date(2024, 1, 1)


def test_nothing_fills_while_the_market_is_closed():
    exchange = make(live=True, calendar=OpensAtNoon())
    quote(exchange, 1.00, 1.01, 1)
    assert kinds(exchange.submit(order(), 2)) == [ACCEPTED]
    assert quote(exchange, 1.00, 1.01, 3) == []
    assert kinds(quote(exchange, 1.00, 1.02, DAY_NS // 2)) == [FILLED]


# -- cancel and replace --


def test_a_cancelled_order_is_out_of_the_book():
    exchange = make(live=True)
    quote(exchange, 1.00, 1.01, 1)
    exchange.submit(order(limit="0.99"), 2)
    assert exchange.working_instruments.tolist() == [True]
    assert kinds(exchange.cancel("a", 3)) == [CANCELLED]
    assert quote(exchange, 0.90, 0.91, 4) == []
    assert (exchange.working_count, exchange.working_instruments.tolist()) == (0, [False])


def test_what_cannot_be_cancelled_says_why():
    exchange = make(live=True)
    (unknown,) = exchange.cancel("a", 1)
    assert (unknown.kind, unknown.reason) == (UpdateKind.CANCEL_REJECTED, "order not found")
    quote(exchange, 1.00, 1.01, 1)
    exchange.submit(order(), 2)
    (filled,) = exchange.cancel("a", 3)
    assert (filled.kind, filled.reason) == (UpdateKind.CANCEL_REJECTED, "order is no longer working: filled")


def test_a_replaced_order_lives_on_under_a_new_broker_id_and_the_same_client_id():
    exchange = make(live=True)
    quote(exchange, 1.00, 1.01, 1)
    exchange.submit(order(limit="0.99"), 2)
    first = exchange.orders["a"]
    (update,) = exchange.replace("a", limit_price=Decimal("0.98"), quantity=Decimal(20), now_ns=3)
    second = exchange.orders["a"]
    assert update.kind is REPLACED
    assert update.broker_order_id == second.broker_order_id != first.broker_order_id
    assert (first.state, first.replaced_by) == (OrderState.REPLACED, second.broker_order_id)
    assert quote(exchange, 0.98, 0.99, 4) == []
    (filled,) = quote(exchange, 0.97, 0.98, 5)
    assert filled.execution is not None
    assert (filled.execution.quantity, filled.execution.price) == (20, Decimal("0.98"))


def test_a_replacement_that_is_marketable_takes():
    exchange = make(live=True)
    quote(exchange, 1.00, 1.01, 1)
    exchange.submit(order(limit="0.99"), 2)
    assert fill(exchange.replace("a", limit_price=Decimal("1.02"), now_ns=3)) == ("1.01", "taker")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"limit_price": Decimal("0.985")}, "sub-penny"),
        ({"quantity": Decimal("1.5")}, "multiple of 1"),
        ({"quantity": Decimal(0)}, "qty must be > 0"),
    ],
)
def test_a_refused_replace_leaves_the_order_as_it_was(change, reason):
    exchange = make(live=True)
    quote(exchange, 1.00, 1.01, 1)
    exchange.submit(order(limit="0.99"), 2)
    (update,) = exchange.replace("a", **change, now_ns=3)
    assert update.kind is UpdateKind.REPLACE_REJECTED
    assert reason in update.reason
    assert fill(quote(exchange, 0.98, 0.99, 4)) == ("0.99", "maker")


# -- what is refused --


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (order(quantity="0"), "qty must be > 0"),
        (order(quantity="-1"), "qty must be > 0"),
        (order(quantity="NaN"), "qty must be > 0"),
        (order(quantity="1e40"), "qty must be > 0 and below"),
        (order(quantity="1.5"), "multiple of 1"),
        (order(limit="1.005"), "sub-penny"),
        (order(limit="Infinity"), "invalid limit_price"),
        (order(stop="-1"), "invalid stop_price"),
        (attrs.evolve(order(), limit_price=Decimal(1)), "must not have limit_price"),
        (attrs.evolve(order(), order_type=OrderType.STOP), "require stop_price"),
        (attrs.evolve(order(), instrument="XYZ"), "asset 'XYZ' not found"),
    ],
)
def test_a_bad_order_is_rejected_and_not_in_the_book(request_, reason):
    exchange = make(live=True)
    (update,) = exchange.submit(request_, 1)
    assert update.kind is REJECTED
    assert reason in update.reason
    assert not exchange.orders
    assert exchange.working_count == 0


def test_a_client_order_id_is_taken_once():
    exchange = make(live=True)
    quote(exchange, 1.00, 1.01, 1)
    exchange.submit(order(limit="0.99"), 2)
    with pytest.raises(DuplicateOrder, match="client_order_id must be unique"):
        exchange.submit(order(), 3)
    assert exchange.orders["a"].request.limit_price == Decimal("0.99")
    assert exchange.ledger.position("ABC").quantity == 0


def test_minimum_quantity_and_notional():
    exchange = make(min_quantity=5, min_notional=10)
    assert "at least 5" in exchange.submit(order(quantity=4), 1)[0].reason
    assert "minimal amount" in exchange.submit(order(quantity=5, limit="1.00"), 1)[0].reason
    assert kinds(exchange.submit(order(quantity=10, limit="1.00"), 1)) == [ACCEPTED]


def test_what_cannot_be_sold_short_is_sold_once():
    exchange = make(live=True, shortable=False)
    quote(exchange, 1.00, 1.01, 1)
    assert "insufficient qty" in exchange.submit(order("a", "sell"), 2)[0].reason
    exchange.submit(order("b", "buy", 10), 2)
    assert kinds(exchange.submit(order("c", "sell", 6, limit="2.00"), 3)) == [ACCEPTED]
    assert "available: 4" in exchange.submit(order("d", "sell", 5), 3)[0].reason
    assert kinds(exchange.submit(order("e", "sell", 4), 3)) == [ACCEPTED, FILLED]


def test_a_reduce_only_order_never_opens():
    exchange = make(live=True)
    quote(exchange, 1.00, 1.01, 1)
    assert kinds(exchange.submit(order("a", "sell", reduce_only=True), 2)) == [ACCEPTED, CANCELLED]
    exchange.submit(order("b", "buy", 4), 3)
    updates = exchange.submit(order("c", "sell", 10, reduce_only=True), 4)
    assert kinds(updates) == [ACCEPTED, PARTIALLY_FILLED, CANCELLED]
    assert exchange.ledger.position("ABC").quantity == 0


# -- money --


def test_cash_pays_notional_and_fee_exactly():
    exchange = make(live=True)
    quote(exchange, 99.99, 100.01, 1)
    exchange.submit(order("a", "buy", 7), 2)
    assert exchange.ledger.cash["USD"] == Decimal("100000") - 7 * Decimal("100.01") * Decimal("1.001")
    exchange.submit(order("b", "sell", 7, limit="100.02"), 3)
    quote(exchange, 100.02, 100.05, 4)
    fees = 7 * Decimal("100.01") * Decimal("0.001") + 7 * Decimal("100.02") * Decimal("0.0001")
    assert exchange.ledger.fees["USD"] == fees
    assert exchange.ledger.cash["USD"] == Decimal("100000") + 7 * Decimal("0.01") - fees


def test_fees_given_to_the_venue_replace_the_instruments():
    instruments = Instruments([Instrument(id="ABC", symbol="ABC", taker_fee="0.5", maker_fee="0.5")])
    exchange = Exchange(instruments, cash={}, match_on_arrival=True, fees={"maker": "-0.01", "taker": 0})
    quote(exchange, 1.00, 1.01, 1)
    (_, taken) = exchange.submit(order("a"), 2)
    exchange.submit(order("b", limit="0.99"), 3)
    (made,) = quote(exchange, 0.98, 0.99, 4)
    assert taken.execution is not None
    assert made.execution is not None
    assert (taken.execution.fee, made.execution.fee) == (0, Decimal("-0.099"))
    assert made.execution.liquidity is Liquidity.MAKER


def test_a_fee_is_rounded_to_the_eighth_place_ties_to_even():
    linear = Instrument(id="A", symbol="A", kind=InstrumentKind.LINEAR, quote="USDT")
    assert fee_of(linear, Decimal(1), Decimal("0.000000125"), Decimal("0.1")) == Decimal("0.00000001")
    assert fee_of(linear, Decimal(1), Decimal("0.00000015"), Decimal("0.1")) == Decimal("0.00000002")
    inverse = Instrument(id="B", symbol="B", kind=InstrumentKind.INVERSE, base="BTC", multiplier=100)
    assert fee_of(inverse, Decimal(3), Decimal(60_000), Decimal("0.0005")) == Decimal("0.0000025")


def test_the_listener_hears_of_an_order_in_the_state_that_it_speaks_of():
    heard = []
    instruments = Instruments([Instrument(id="ABC", symbol="ABC")])
    exchange = Exchange(
        instruments,
        cash={},
        match_on_arrival=True,
        listener=lambda update, order: heard.append((update.kind, order.state, order.filled_quantity)),
    )
    quote(exchange, 1.00, 1.01, 1)
    exchange.submit(order(), 2)
    assert heard == [(ACCEPTED, OrderState.ACCEPTED, 0), (FILLED, OrderState.FILLED, 10)]


def test_instruments_registered_later_trade_too():
    exchange = make(live=True)
    exchange.instruments.add(Instrument(id="NEW", symbol="NEW"))
    exchange.quote(1, 2.00, 2.01, 1, 1, 1)
    updates = exchange.submit(attrs.evolve(order(), instrument="NEW"), 2)
    assert fill(updates) == ("2.01", "taker")
