"""Async handlers in a replay: ``context.sleep`` in market time, what waits meanwhile, and how a run ends."""

from decimal import Decimal
from typing import Any

import attrs
import pytest
import trio

from trio_nt import Fill, MarketBatch, Quote, Strategy, StrategyContext, buy, replay, sell
from trio_nt.feeds.data import from_events
from trio_nt.replay import ReplaySettings, run_replay
from trio_nt.testing import START_NS, quotes, run_strategy

MS = 1_000_000
LATENCY = {"order_latency_s": 0.002, "report_latency_s": 0.002}


def at(ms: float) -> int:
    return START_NS + round(ms * MS)


def ms_quotes(count: int) -> list[Any]:
    return quotes("ABC", mid=[100.0 + number for number in range(count)], every_s=0.001)


@attrs.define
class Sleeper(Strategy):
    """Sleeps ``sleep_s`` on the quotes of ``rows``, then buys."""

    rows: tuple[int, ...] = (2,)
    sleep_s: float = 0.0055
    log: list[tuple[str, int]] = attrs.field(factory=list)
    quotes: int = 0

    def on_start(self, context: StrategyContext) -> None:
        context.set_timer("t", at_ns=at(4))

    async def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
        self.quotes += 1
        self.log.append((f"quote {quote.ts_init - START_NS}", context.now_ns))
        if self.quotes - 1 in self.rows:
            await context.sleep(self.sleep_s)
            self.log.append(("woke", context.now_ns))
            return buy("ABC", 1)
        return None

    async def on_timer(self, name: str, context: StrategyContext) -> None:
        self.log.append((name, context.now_ns))

    async def on_fill(self, fill: Fill, context: StrategyContext) -> None:
        self.log.append((f"fill {fill.ts_event - START_NS}", context.now_ns))


@pytest.mark.parametrize("block_rows", [1, 2, 3, 100])
def test_a_sleep_lasts_in_market_time_and_what_came_meanwhile_is_heard_in_order(block_rows: int) -> None:
    strategy = Sleeper()
    run_strategy(strategy, from_events(ms_quotes(14), block_rows=block_rows), **LATENCY)
    assert strategy.log == [
        ("quote 0", at(0)),
        (f"quote {1 * MS}", at(1)),
        (f"quote {2 * MS}", at(2)),
        ("woke", at(7.5)),
        (f"quote {3 * MS}", at(7.5)),
        ("t", at(7.5)),
        *((f"quote {row * MS}", at(7.5)) for row in (4, 5, 6, 7)),
        *((f"quote {row * MS}", at(row)) for row in (8, 9, 10, 11)),
        (f"fill {10 * MS}", at(12)),  # sent at 7.5, arrives at 9.5, met by the quote at 10
        (f"quote {12 * MS}", at(12)),
        (f"quote {13 * MS}", at(13)),
    ]


def test_a_backlog_may_sleep_again() -> None:
    strategy = Sleeper(rows=(0, 1), sleep_s=0.002)
    run_strategy(strategy, ms_quotes(8), **LATENCY)
    assert [when for what, when in strategy.log if what == "woke"] == [at(2), at(4)]


def test_a_sleep_of_nothing_lasts_a_nanosecond() -> None:
    strategy = Sleeper(rows=(0,), sleep_s=0)
    run_strategy(strategy, ms_quotes(2), **LATENCY)
    assert strategy.log[1] == ("woke", at(0) + 1)


def test_others_go_on_while_one_sleeps() -> None:
    class Plain(Sleeper):
        def on_quote(self, quote: Quote, context: StrategyContext) -> Any:  # type: ignore[override]
            self.log.append(("quote", context.now_ns))

        on_timer = on_fill = lambda self, what, context: None  # type: ignore[assignment]

    sleeper, plain = Sleeper(), Plain()
    replay(ms_quotes(14), {"a": sleeper, "b": plain})
    assert [when for _, when in plain.log] == [at(row) for row in range(14)]


def test_a_sleep_that_the_data_does_not_outlast_is_cancelled_and_said() -> None:
    ended: list[str] = []

    class Long(Strategy):
        async def on_quote(self, quote: Quote, context: StrategyContext) -> None:
            try:
                await context.sleep(60)
            finally:
                ended.append("cancelled")

    report = replay(ms_quotes(3), Long())
    assert ended == ["cancelled"]
    assert report.strategies[0].state == "asleep"
    assert report.ok


def test_an_async_batch_that_slept_acts_when_it_woke() -> None:
    class Batch(Strategy):
        asked = False

        async def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> Any:
            if not self.asked:
                self.asked = True
                await context.sleep(0.0045)
                return buy("ABC", 1, row=0)
            return None

    result = run_strategy(Batch(), ms_quotes(10), **LATENCY)
    assert [(order.ts_signal, fill.ts_event) for order, fill in zip(result.orders, result.fills, strict=True)] == [
        (at(4.5), at(7))
    ]


def test_waiting_for_the_outside_decides_nothing() -> None:
    class Waits(Strategy):
        async def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
            await trio.to_thread.run_sync(lambda: None)
            return buy("ABC", 1)

    class Plain(Strategy):
        def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
            return buy("ABC", 1)

    def fills_of(strategy: Strategy) -> list[Any]:
        return [(fill.ts_event, fill.price) for fill in run_strategy(strategy, ms_quotes(9), **LATENCY).fills]

    assert fills_of(Waits()) == fills_of(Plain())


def test_an_async_failure_ends_its_strategy_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Breaks(Strategy):
        async def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
            await context.sleep(0.001)
            raise LookupError("gone")

    class Sells(Strategy):
        def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
            return sell("ABC", 1)

    report = replay(ms_quotes(5), {"a": Breaks(), "b": Sells()})
    assert report.strategies[0].failure.startswith("LookupError: gone")
    assert (report.strategies[1].state, report.strategies[1].rows) == ("finished", 5)
    assert "gone" in caplog.text


def test_an_async_error_is_the_callers_own_and_in_no_group() -> None:
    class Breaks(Strategy):
        async def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
            raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        run_strategy(Breaks(), ms_quotes(5))


def test_two_sleeps_at_once_are_refused() -> None:
    class Two(Strategy):
        async def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(context.sleep, 0.001)
                nursery.start_soon(context.sleep, 0.002)

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="one sleep at a time")):
        run_strategy(Two(), ms_quotes(5))


def test_a_handler_that_fails_in_another_task_while_it_sleeps_is_heard_when_it_wakes() -> None:
    class Fails(Strategy):
        async def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(context.sleep, 0.003)
                await trio.lowlevel.checkpoint()
                raise LookupError("gone")

    class Takes(Strategy):
        async def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
            for _ in range(20):
                await trio.lowlevel.checkpoint()

    report = replay(ms_quotes(9), {"a": Fails(), "b": Takes()})
    assert [line.state for line in report.strategies] == ["failed", "finished"]


def test_a_plain_handler_that_returns_an_awaitable_fails_by_name() -> None:
    class Returns(Strategy):
        def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
            return object()

    with pytest.raises(TypeError, match="must return None, an action or an iterable"):
        run_strategy(Returns(), ms_quotes(1))


@pytest.mark.parametrize("single_rows", [False, True])
@pytest.mark.parametrize("block_rows", [1, 3, 100])
def test_sleeping_strategies_trade_the_same_whatever_the_blocks_and_windows(single_rows: bool, block_rows: int) -> None:
    def run(block_rows: int, single_rows: bool) -> tuple[Any, ...]:
        settings = ReplaySettings(
            cash={"USD": Decimal(100_000)}, single_rows=single_rows, order_latency_s=0.002, report_latency_s=0.001
        )
        strategies = {"a": Sleeper(rows=(1, 5)), "b": Sleeper(rows=(0, 3, 4), sleep_s=0.003)}
        result = run_replay(from_events(ms_quotes(40), block_rows=block_rows), strategies, settings)
        orders = [(order.ts_signal, order.strategy_id) for order in result.driver.desk.orders]
        return orders, [strategy.log for strategy in strategies.values()]

    orders, logs = run(block_rows, single_rows)
    assert len(orders) == 5
    assert (orders, logs) == run(1000, False)
