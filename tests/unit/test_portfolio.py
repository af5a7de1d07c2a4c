"""The portfolio: exact amounts, checked against calculations by hand."""

from decimal import Decimal

from trio_nt.model.instruments import Instrument, InstrumentKind, Instruments, Side
from trio_nt.model.orders import Fill, Liquidity
from trio_nt.portfolio import Portfolio

D = Decimal
LINEAR = Instrument(id="BTCUSDT", symbol="BTCUSDT", kind=InstrumentKind.LINEAR, base="BTC", quote="USDT")
INVERSE = Instrument(
    id="BTCUSD", symbol="BTCUSD", kind=InstrumentKind.INVERSE, base="BTC", quote="USD", multiplier=D(100)
)
STOCK = Instrument(id="ABC", symbol="ABC")


def booked(*fills: tuple[Instrument, Side, str, str, str, str | None], strategy_id: str = "s") -> Portfolio:
    portfolio = Portfolio(Instruments([LINEAR, INVERSE, STOCK]), {"USD": D(1000)})
    for number, (instrument, side, quantity, price, fee, mid) in enumerate(fills):
        portfolio.book(
            Fill(
                f"e{number}", f"o{number}", strategy_id, instrument.id, side, D(quantity), D(price), D(fee),
                instrument.settlement, Liquidity.TAKER, 1, 1,
            ),
            None if mid is None else D(mid),
        )  # fmt: skip
    return portfolio


def test_a_round_trip_in_a_linear_contract() -> None:
    portfolio = booked((LINEAR, Side.BUY, "2", "100.5", "0.1", "100"), (LINEAR, Side.SELL, "2", "109.5", "0.2", "110"))
    (row,) = portfolio.pnl()
    # by hand: 2 × (109.5 − 100.5) = 18; half spread 2 × 0.5 + 2 × 0.5 = 2; fees 0.3
    assert (row.currency, row.gross, row.half_spread, row.fees, row.net) == ("USDT", D(20), D(2), D("0.3"), D("17.7"))
    assert portfolio.account.cash["USDT"] == D("17.7")


def test_an_inverse_contract_pays_in_its_base() -> None:
    portfolio = booked((INVERSE, Side.BUY, "10", "50000", "0", "49999"), (INVERSE, Side.SELL, "10", "40000", "0", None))
    (row,) = portfolio.pnl()
    # by hand: 10 × 100 USD; 1000/50000 = 0.02 BTC in, 1000/40000 = 0.025 BTC out, so long lost 0.005 BTC
    assert row.currency == "BTC"
    assert row.net == D("-0.005")
    # bought at 50000 instead of 49999: 1000/49999 − 1000/50000 BTC
    assert abs(row.half_spread - (D(1000) / 49999 - D(1000) / 50000)) < D("1e-25")
    assert row.half_spread > 0


def test_unrealised_profit_counts_at_the_marks() -> None:
    portfolio = booked((INVERSE, Side.SELL, "5", "50000", "0", None), (STOCK, Side.BUY, "3", "10", "0.01", "10"))
    by_currency = {row.currency: row for row in portfolio.pnl({"BTCUSD": D(40000), "ABC": D("10.5")})}
    assert by_currency["BTC"].net == D(500) / 40000 - D(500) / 50000  # short gains as 1/price grows
    assert by_currency["USD"].net == D("1.49")
    assert portfolio.account.cash["USD"] == D("969.99")


def test_currencies_never_meet() -> None:
    portfolio = booked((LINEAR, Side.BUY, "1", "100", "0", None), (STOCK, Side.BUY, "1", "100", "0", None))
    assert [row.currency for row in portfolio.pnl()] == ["USDT", "USD"]


def test_turning_around_realises_the_old_side_only() -> None:
    portfolio = booked((LINEAR, Side.BUY, "1", "100", "0", None), (LINEAR, Side.SELL, "3", "90", "0", None))
    position = portfolio.state().position("BTCUSDT")
    assert (position.quantity, position.average_price) == (D(-2), D(90))
    assert portfolio.account.realised["USDT"] == D(-10)


def test_the_account_is_the_sum_of_its_strategies() -> None:
    portfolio = Portfolio(Instruments([LINEAR]))
    for strategy, side, quantity in (("a", Side.BUY, 3), ("b", Side.SELL, 5), ("a", Side.BUY, 1)):
        portfolio.book(
            Fill("e", "o", strategy, LINEAR.id, side, D(quantity), D(10), D(0), "USDT", Liquidity.TAKER, 1, 1)
        )
    state = portfolio.state()
    assert state.position("BTCUSDT").quantity == D(-1)
    assert {key: state.position("BTCUSDT", key).quantity for key in state.strategies} == {"a": D(4), "b": D(-5)}
    assert portfolio.position("a", "BTCUSDT") == D(4)


def test_state_is_the_same_object_until_something_is_booked() -> None:
    portfolio = booked((LINEAR, Side.BUY, "1", "100", "0", None))
    state = portfolio.state()
    assert portfolio.state() is state
    portfolio.book(Fill("x", "o", "s", LINEAR.id, Side.BUY, D(1), D(10), D(0), "USDT", Liquidity.TAKER, 1, 1))
    assert portfolio.state() is not state
    assert state.position("BTCUSDT").quantity == D(1)  # what was handed out stays as it was
