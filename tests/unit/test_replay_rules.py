"""Rules of the replay, one by one, with orders, times and prices that can be checked by eye."""

from decimal import Decimal
from typing import Any

import attrs
import pytest

from trio_nt import (
    Cancel,
    Instrument,
    InstrumentKind,
    MarketBatch,
    OpenLoopError,
    OrderEvent,
    OrderState,
    Quote,
    Strategy,
    StrategyContext,
    TimeInForce,
    buy,
    replay,
    sell,
    target,
)
from trio_nt.testing import START_NS, StrategyResult, bars, quotes, run_strategy, trades

MS = 1_000_000
FIVE = {"order_latency_s": 0.005, "report_latency_s": 0.005}


def at(ms: float) -> int:
    return START_NS + round(ms * MS)


def ms_quotes(count: int, *, every_ms: float = 1.0, first: float = 100.0) -> list[Any]:
    """Quotes whose mid rises by 1 each, so that a price tells its row."""
    return quotes("ABC", mid=[first + number for number in range(count)], every_s=every_ms / 1e3)


@attrs.define
class Acts(Strategy):
    """Returns what ``plan`` says for the number of the event."""

    plan: dict[int, Any]
    seen: list[Any] = attrs.field(factory=list)
    heard: list[tuple[str, int]] = attrs.field(factory=list)

    def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
        self.seen.append((quote.ts_init, context.position("ABC"), len(context.orders("ABC"))))
        return self.plan.get(len(self.seen) - 1)

    on_bar = on_trade = on_quote  # type: ignore[assignment]

    def on_order(self, update: OrderEvent, context: StrategyContext) -> None:
        self.heard.append((type(update).__name__, context.now_ns))


def fills(result: StrategyResult) -> list[tuple[int, str]]:
    return [(fill.ts_event - START_NS, str(fill.price)) for fill in result.fills]


# -- latency --


def test_a_market_order_meets_the_first_quote_at_or_after_its_arrival() -> None:
    result = run_strategy(Acts({0: buy("ABC", 1)}), ms_quotes(10, every_ms=2), **FIVE)
    assert fills(result) == [(6 * MS, "103.01")]  # sent at 0, arrives at 5, the next quote is at 6


def test_a_quote_exactly_at_the_arrival_counts() -> None:
    result = run_strategy(Acts({0: buy("ABC", 1)}), ms_quotes(10, every_ms=5), **FIVE)
    assert fills(result) == [(5 * MS, "101.01")]


@pytest.mark.parametrize("block_rows", [1, 2, 3, 100])
def test_an_order_never_meets_a_quote_from_before_its_arrival_whatever_the_blocks(block_rows: int) -> None:
    from trio_nt.feeds.data import from_events

    data = from_events(ms_quotes(12), block_rows=block_rows)
    result = run_strategy(Acts({0: buy("ABC", 1), 2: sell("ABC", 1)}), data, **FIVE)
    assert fills(result) == [(5 * MS, "105.01"), (7 * MS, "106.99")]


def test_reports_are_heard_after_the_report_latency() -> None:
    strategy = Acts({0: buy("ABC", 1)})
    run_strategy(strategy, ms_quotes(30), order_latency_s=0.004, report_latency_s=0.003)
    assert strategy.heard == [("Accepted", at(7)), ("Filled", at(7))]
    assert [position for when, position, _ in strategy.seen if when < at(7)] == [0] * 7
    assert strategy.seen[7][1] == 1


def test_without_latency_an_order_fills_on_the_row_that_caused_it_and_is_heard_before_the_next() -> None:
    strategy = Acts({1: buy("ABC", 1)})
    result = run_strategy(strategy, ms_quotes(4))
    assert fills(result) == [(1 * MS, "101.01")]
    assert [position for _, position, _ in strategy.seen] == [0, 0, 1, 1]


def test_a_refusal_is_heard_after_the_round_trip() -> None:
    strategy = Acts({0: buy("ABC", 0.001)})
    result = run_strategy(strategy, ms_quotes(20), order_latency_s=0.004, report_latency_s=0.003)
    assert not result.orders
    assert len(result.refusals) == 1
    assert strategy.heard == [("Refused", at(7))]


def test_working_orders_are_those_that_the_venue_has_acknowledged() -> None:
    strategy = Acts({0: buy("ABC", 1, limit_price=95), 12: Cancel(instrument="ABC")})
    run_strategy(strategy, ms_quotes(40), **FIVE)
    assert [when for when, _, orders in strategy.seen if orders] == [at(number) for number in range(10, 22)]


def test_what_context_orders_gives_is_a_copy_without_requests_under_way() -> None:
    states: list[Any] = []

    class Looks(Acts):
        def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
            for order in context.orders():
                states.append(order.state)
                order.quantity = Decimal(99)
            return super().on_quote(quote, context)

    result = run_strategy(
        Looks({0: buy("ABC", 1, limit_price=95), 12: Cancel(instrument="ABC")}), ms_quotes(40), **FIVE
    )
    assert set(states) == {OrderState.ACCEPTED}
    assert [order.quantity for order in result.orders] == [1]


# -- order types --


def test_a_resting_limit_fills_at_its_price_when_a_quote_reaches_it() -> None:
    data = quotes("ABC", mid=[100, 100, 99.5, 99, 98])
    result = run_strategy(Acts({0: buy("ABC", 1, limit_price=99.1)}), data)
    assert fills(result) == [(3_000 * MS, "99.1")]


def test_a_stop_becomes_a_market_order_when_a_quote_reaches_it() -> None:
    data = quotes("ABC", mid=[100, 100.5, 101, 102])
    result = run_strategy(Acts({0: buy("ABC", 1, stop_price=101)}), data)
    assert fills(result) == [(2_000 * MS, "101.01")]


def test_an_ioc_order_that_is_not_marketable_ends_at_its_first_quote() -> None:
    strategy = Acts({0: buy("ABC", 1, limit_price=99, time_in_force=TimeInForce.IOC)})
    result = run_strategy(strategy, quotes("ABC", mid=[100, 100, 98]))
    assert not result.fills
    assert [name for name, _ in strategy.heard] == ["Accepted", "Cancelled"]


def test_an_order_caused_by_a_bar_meets_the_next_bars_open() -> None:
    data = bars("ABC", open=[10, 12, 14], close=[11, 13, 15])
    result = run_strategy(Acts({0: buy("ABC", 1)}), data)
    assert fills(result) == [(60_000 * MS, "12.0")]


def test_inside_a_bar_stops_come_before_limits() -> None:
    data = bars("ABC", open=[100, 100, 100], high=[100, 106, 100], low=[100, 94, 100], close=[100, 100, 100])
    result = run_strategy(Acts({0: [buy("ABC", 1, stop_price=105), buy("ABC", 1, limit_price=95)]}), data)
    assert [str(fill.price) for fill in result.fills] == ["105.0", "95"]


def test_trades_price_an_instrument_that_shows_no_quotes() -> None:
    result = run_strategy(Acts({0: buy("ABC", 1)}), trades("ABC", price=[10, 11, 12]))
    assert not result.refusals
    assert fills(result) == [(1_000 * MS, "11.0")]


def test_a_flip_on_an_equity_is_split_and_its_opening_half_waits_for_the_closing_half() -> None:
    result = run_strategy(Acts({0: target("ABC", 2), 20: target("ABC", -3)}), ms_quotes(60), **FIVE)
    assert [(fill.side.value, int(fill.quantity), fill.ts_event - START_NS) for fill in result.fills] == [
        ("buy", 2, 5 * MS),
        ("sell", 2, 25 * MS),  # decided at 20, arrives at 25, heard at 30
        ("sell", 3, 35 * MS),
    ]


# -- timers --


@attrs.define
class Timed(Strategy):
    at_ns: int | None = None
    every_ns: int | None = None
    fired: list[tuple[str, int]] = attrs.field(factory=list)

    def on_start(self, context: StrategyContext) -> None:
        context.set_timer("beat", at_ns=self.at_ns, every_ns=self.every_ns)

    def on_quote(self, quote: Quote, context: StrategyContext) -> None:
        self.fired.append(("quote", context.now_ns))

    def on_timer(self, name: str, context: StrategyContext) -> None:
        self.fired.append((name, context.now_ns))


def test_a_timer_fires_at_its_time_between_rows_and_before_a_row_of_that_time() -> None:
    strategy = Timed(at_ns=at(2), every_ns=3 * MS)
    run_strategy(strategy, ms_quotes(5, every_ms=2), **FIVE)
    assert strategy.fired == [
        ("quote", at(0)),
        ("beat", at(2)),
        ("quote", at(2)),
        ("quote", at(4)),
        ("beat", at(5)),
        ("quote", at(6)),
        ("beat", at(8)),
        ("quote", at(8)),
    ]


def test_a_timer_in_the_past_fires_a_nanosecond_later() -> None:
    strategy = Timed(at_ns=at(-50))
    run_strategy(strategy, ms_quotes(2))
    assert strategy.fired == [("quote", at(0)), ("beat", at(0) + 1), ("quote", at(1))]


def test_no_timer_fires_after_the_last_row() -> None:
    strategy = Timed(every_ns=10 * MS)
    run_strategy(strategy, ms_quotes(3))
    assert [name for name, _ in strategy.fired] == ["quote"] * 3


# -- failing --


@attrs.define
class Breaks(Strategy):
    at_row: int
    plan: dict[int, Any]
    rows: int = 0

    def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
        self.rows += 1
        if self.rows - 1 == self.at_row:
            raise ZeroDivisionError("as asked")
        return self.plan.get(self.rows - 1)


@attrs.define
class BreaksAhead(Breaks):
    open_loop = True


@pytest.mark.parametrize("kind", [Breaks, BreaksAhead])
@pytest.mark.parametrize("latency_s", [0.0, 0.005])
def test_a_failing_strategy_ends_alone_and_its_orders_are_cancelled(
    kind: type[Breaks], latency_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    other = Acts({0: buy("ABC", 1, limit_price=90), 8: buy("ABC", 1)})
    failing = kind(6, {2: buy("ABC", 3, limit_price=91), 5: buy("ABC", 2, limit_price=92), 7: buy("ABC", 7)})
    report = replay(ms_quotes(40), {"a": failing, "b": other}, order_latency_s=latency_s, report_latency_s=latency_s)
    assert failing.rows == 7
    assert len(other.seen) == 40
    lines = {line.strategy_id: line for line in report.strategies}
    assert "ZeroDivisionError: as asked (test_replay_rules.py, line " in lines["a"].failure
    assert "\n" not in lines["a"].failure
    assert lines["a"].traceback.startswith("Traceback (most recent call last):\n")
    assert lines["a"].traceback.endswith("ZeroDivisionError: as asked\n")
    assert (lines["a"].state, lines["b"].state, lines["b"].failure) == ("failed", "finished", "")
    assert not report.ok
    assert [(order.strategy_id, int(order.quantity), order.status) for order in report.orders] == [
        ("b", 1, "accepted"),
        ("a", 3, "cancelled"),
        ("a", 2, "cancelled"),
        ("b", 1, "filled"),
    ]
    assert "as asked" in caplog.text


def test_an_error_can_be_made_the_callers() -> None:
    with pytest.raises(ZeroDivisionError, match="as asked"):
        run_strategy(Breaks(1, {}), ms_quotes(3))


def test_an_open_loop_strategy_that_reads_its_position_fails() -> None:
    class Peeks(Strategy):
        open_loop = True

        def on_quote(self, quote: Quote, context: StrategyContext) -> None:
            context.position("ABC")

    with pytest.raises(OpenLoopError):
        run_strategy(Peeks(), ms_quotes(3))


# -- windows --


@attrs.define
class Sizes(Strategy):
    sizes: list[int] = attrs.field(factory=list)

    def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> Any:
        self.sizes.append(len(batch))
        return buy("ABC", 1, row=0) if len(self.sizes) == 1 else None


def test_a_batch_ends_before_its_own_consequences() -> None:
    strategy = Sizes()
    run_strategy(strategy, ms_quotes(40), order_latency_s=0.004, report_latency_s=0.003)
    # The report of the order at 0 is heard at 7, before the row of that time.
    assert strategy.sizes == [7] * 5 + [5]


def test_without_latency_a_batch_is_one_row_and_an_open_loop_one_is_a_block() -> None:
    class Ahead(Sizes):
        open_loop = True

    closed, ahead = Sizes(), Ahead()
    run_strategy(closed, ms_quotes(4))
    run_strategy(ahead, ms_quotes(4))
    assert (closed.sizes, ahead.sizes) == ([1] * 4, [4])


def test_a_strategy_with_both_kinds_of_handlers_gets_batches_of_one_row() -> None:
    calls: list[Any] = []

    class Both(Strategy):
        def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> None:
            calls.append(("batch", len(batch), context.now_ns))

        def on_quote(self, quote: Quote, context: StrategyContext) -> None:
            calls.append(("quote", quote.ts_init, context.now_ns))

    run_strategy(Both(), ms_quotes(3), **FIVE)
    assert calls == [entry for row in range(3) for entry in (("batch", 1, at(row)), ("quote", at(row), at(row)))]


def test_flagged_rows_are_shown_in_no_event_handler_and_never_traded_on() -> None:
    good, bad = quotes("ABC", mid=[100, 101]), quotes("ABC", bid=[120], ask=[110], start_ns=START_NS + 500 * MS)
    strategy = Acts({0: buy("ABC", 1)})
    result = run_strategy(strategy, [*good, *bad], order_latency_s=0.1)
    assert len(strategy.seen) == 2
    assert [str(fill.price) for fill in result.fills] == ["101.01"]
    assert any("crossed" in line for line in result.report.data)


# -- the report --


def test_half_spread_and_fees_are_told_apart() -> None:
    result = run_strategy(
        Acts({0: buy("ABC", 10), 2: sell("ABC", 10)}), quotes("ABC", mid=[100, 100, 110], spread=0.5), fees="0.001"
    )
    (pnl,) = result.pnl
    assert (pnl.currency, pnl.gross, pnl.half_spread) == ("USD", Decimal(100), Decimal(5))
    assert pnl.fees == Decimal("0.001") * 10 * (Decimal("100.25") + Decimal("109.75"))
    assert pnl.net == pnl.gross - pnl.half_spread - pnl.fees


def test_an_inverse_contracts_profit_is_in_the_base_currency() -> None:
    inverse = Instrument(
        id="ABC", symbol="ABC", kind=InstrumentKind.INVERSE, base="BTC", quote="USD", multiplier=100, taker_fee="0.0005"
    )
    data = quotes("ABC", bid=[50_000, 60_000], ask=[50_010, 60_010])
    result = run_strategy(Acts({0: buy("ABC", 3), 1: sell("ABC", 3)}), data, instruments=[inverse])
    bought, sold = Decimal(300) / Decimal(50_010), Decimal(300) / Decimal(60_000)
    (pnl,) = result.pnl
    assert pnl.currency == "BTC"
    assert pnl.gross - pnl.half_spread == pytest.approx(bought - sold, abs=Decimal("1e-18"))
    assert result.report.ok


def test_every_check_of_a_report_holds_and_a_stop_is_said() -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    from trio_nt.feeds.data import from_events

    report = replay(from_events(ms_quotes(50), block_rows=10), Acts({0: buy("ABC", 1)}), stop=stop)
    assert report.ok
    assert "interrupted" in report.title
    assert report.strategies[0].rows == 20


def test_check_causality_passes_a_honest_batch_and_fails_a_peeking_one() -> None:
    class Honest(Strategy):
        def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> Any:
            return [buy("ABC", 1, row=row) for row in range(len(batch)) if int(batch["bid"][row]) % 7 == 0]

    class Peeking(Strategy):
        def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> Any:
            return buy("ABC", 1, row=0) if batch["bid"].max() > batch["bid"][0] else None

    def check(strategy: Strategy) -> bool:
        report = replay(ms_quotes(60), strategy, check_causality=True)
        return {one.name: one.ok for one in report.checks}["orders in batches = orders row by row"]

    assert check(Honest())
    assert not check(Peeking())


@pytest.mark.parametrize("name", ["order_latency_s", "report_latency_s"])
@pytest.mark.parametrize("value", [-0.001, float("nan"), float("inf")])
def test_a_latency_must_be_finite_and_not_negative(name: str, value: float) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=name):
        replay(ms_quotes(2), Acts({}), **arguments)
