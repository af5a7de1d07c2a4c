"""The engine as its hosts see it: what flows through it, how it starts, how it ends."""

from typing import Any

import attrs
import numpy as np
import pytest
import trio
from engine_scripts import (
    EndlessFeed,
    Listening,
    ScriptedFeed,
    arguments,
    bar,
    failed_checks,
    now_ns,
    pause,
    quote,
    trade,
    wait,
)

from scheduler import open_scheduler
from scheduler.testing import assert_at_rest
from trio_nt import SimulatedBroker, Strategy, buy, cross, ema, open_engine, sell, target
from trio_nt.errors import FeedError
from trio_nt.feeds.market_ring import QuoteBoard
from trio_nt.model.events import Accepted, FeedState, Filled, Halted, StrategyState
from trio_nt.model.market import Bar, Quote


@attrs.define
class Crossover(Strategy):
    fast: int = 2
    slow: int = 3
    wanted: list[Any] = attrs.field(factory=list)

    def features(self) -> Any:
        return {"cross": cross(ema(self.fast), ema(self.slow))}

    def on_quote(self, quote: Any, context: Any) -> Any:
        if context.features.cross:
            self.wanted.append((quote.bid, context.features.cross))
            return target(quote.instrument, context.features.cross)
        return None


def once(action: Any) -> Any:
    """React with an action to the first event alone."""
    left = [action]
    return lambda event, context: left.pop() if left else None


PRICES = [10.0, 9.0, 8.0, 12.0, 7.0, 13.0]


async def test_events_end_by_themselves_when_every_feed_has_ended() -> None:
    steps = [step for price in PRICES for step in (quote("ABC", price), pause())]
    with trio.fail_after(60):
        async with open_engine(
            feeds=[ScriptedFeed(*steps)], broker=SimulatedBroker(cash=100_000), strategies=[Crossover()]
        ) as engine:
            events = engine.events()
            await engine.start()
            names = [type(event).__name__ async for event in events]
            report = await engine.wait()
    assert report.ok, report.checks
    assert names.count("Filled") == engine.statistics().fills > 0
    assert [name for name in names if name == "StrategyState"] == ["StrategyState"] * 2


@pytest.mark.parametrize("rows", [1, 16, 999, 5_000])
async def test_every_strategy_sees_every_row_of_every_feed(rows: int) -> None:
    prices = np.linspace(10, 20, rows)

    @attrs.define
    class InBatches(Strategy):
        seen: list[float] = attrs.field(factory=list)

        def on_market_data(self, batch: Any, context: Any) -> None:
            self.seen += batch["bid"].tolist()

    @attrs.define
    class Sleepy(Strategy):
        seen: list[float] = attrs.field(factory=list)

        async def on_quote(self, quote: Any, context: Any) -> None:
            self.seen.append(quote.bid)
            if len(self.seen) % 100 == 0:
                await context.sleep(0.001)

    strategies = {"each": Listening(), "batches": InBatches(), "sleepy": Sleepy()}
    feeds = [ScriptedFeed(quote("ABC", prices)), ScriptedFeed(quote("XYZ", prices + 100))]
    async with open_engine(**arguments(feeds, strategies, market_capacity=1_000, exit_timeout_s=60)) as engine:
        await engine.start()
        report = await engine.wait()
    assert report.ok, report.checks
    assert engine.statistics().rows == 2 * rows
    expected = sorted([*prices.tolist(), *(prices + 100).tolist()])
    each = [event.bid for event in strategies["each"].seen]  # type: ignore[attr-defined]
    for seen in (each, strategies["batches"].seen, strategies["sleepy"].seen):  # type: ignore[attr-defined]
        assert sorted(seen) == expected
        assert [price for price in seen if price < 100] == prices.tolist()
    assert list(engine.instruments.ids) == ["ABC", "XYZ"]
    assert sum("described nowhere" in line for line in report.assumptions) == 2


class Finishing:
    """Has ``rows`` quotes left to read when it is asked to finish, and then a connection that says nothing more."""

    def __init__(self, rows: int, *, ends: bool) -> None:
        self.rows, self.ends = rows, ends
        self.asked = trio.Event()

    async def run(self, send: Any, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await self.asked.wait()
        for _ in range(self.rows):
            await trio.sleep(0.2)
            await quote("ABC", 10.0)(send)
        if not self.ends:
            await trio.sleep_forever()

    async def finish(self) -> None:
        self.asked.set()


@pytest.mark.parametrize("ends", [True, False])
async def test_a_feed_that_still_has_to_read_is_waited_for_and_one_that_hears_nothing_is_not(ends: bool) -> None:
    strategy = Listening()
    with trio.fail_after(60):
        async with open_engine(**arguments([Finishing(8, ends=ends)], strategy, exit_timeout_s=1.0)) as engine:
            await engine.start()
            engine.stop()
            report = await engine.wait()
    assert report.ok, report.checks
    assert len(strategy.seen) == 8


async def test_flagged_rows_are_counted_and_never_traded_on() -> None:
    strategy = Listening(lambda event, context: buy(event.instrument, 1))
    feed = ScriptedFeed(quote("ABC", np.array([np.nan, -1.0, 10.0])), quote("ABC", 10.0, bid=11.0), pause())
    async with open_engine(**arguments([feed], strategy)) as engine:
        await engine.start()
        report = await engine.wait()
    assert report.ok, report.checks
    assert [event.bid for event in strategy.seen] == [10.0]
    assert (engine.statistics().rows, engine.statistics().flagged, engine.statistics().fills) == (4, 3, 1)


@pytest.mark.parametrize("is_async", [False, True])
async def test_rows_of_both_rings_come_in_their_order(is_async: bool) -> None:
    rng = np.random.default_rng(7)
    steps, expected, number = [], [], 1.0
    for is_bar in rng.random(300) < 0.3:
        count = int(rng.integers(1, 6))
        block = np.arange(number, number + count)
        expected += [(bool(is_bar), price) for price in block.tolist()]
        number += count
        steps.append(bar("ABC", block) if is_bar else quote("ABC", block))
        if rng.random() < 0.2:
            steps.append(pause(0.001))

    class Waiting(Listening):
        async def on_quote(self, quote: Any, context: Any) -> None:
            self.seen.append(quote)
            if quote.bid % 7 == 0:
                await context.sleep(0.0005)

        async def on_bar(self, bar: Any, context: Any) -> None:
            self.seen.append(bar)
            await context.sleep(0.0001)

    strategy = Waiting() if is_async else Listening()
    async with open_engine(
        **arguments([ScriptedFeed(*steps)], strategy, market_capacity=64, exit_timeout_s=60)
    ) as engine:
        await engine.start()
        report = await engine.wait()
    assert report.ok, report.checks
    assert [
        (isinstance(event, Bar), event.close if isinstance(event, Bar) else event.bid) for event in strategy.seen
    ] == expected


@pytest.mark.parametrize("step", [trade, bar])
async def test_trades_and_bars_stand_in_where_there_are_no_quotes(step: Any) -> None:
    strategy = Listening(lambda event, context: buy(event.instrument, 1))
    steps = [each for price in (10.0, 11.0, 12.0) for each in (step("ABC", price), pause())]
    async with open_engine(**arguments([ScriptedFeed(*steps)], strategy)) as engine:
        await engine.start()
        report = await engine.wait()
    assert report.ok, report.checks
    assert not engine.desk.refusals
    assert engine.desk.approved == 3
    assert engine.statistics().fills >= 2


def test_the_board_prices_by_the_best_source_that_an_instrument_has_shown() -> None:
    board = QuoteBoard(0)

    def show(kind: int, price: float, **more: float) -> Any:
        values = {"kind": kind, "flags": 0, "instrument": 0, "ts_init": 5, "price": price, **more}
        board.show({name: np.array([value]) for name, value in values.items()})
        return [changed[1:3] for changed in board.take_changed()]

    from trio_nt.model.market import BAR, QUOTE, TRADE

    assert show(BAR, 0, close=5.0) == [(5.0, 5.0)]
    assert show(TRADE, 6.0, bid=0, ask=0) == [(6.0, 6.0)]
    assert show(BAR, 0, close=7.0) == []
    assert show(QUOTE, 0, bid=8.0, ask=9.0) == [(8.0, 9.0)]
    assert show(TRADE, 6.0, bid=0, ask=0) == []
    assert board.mid(0) == 8.5


# -- endings --


async def test_leaving_without_starting_is_quiet_and_says_so_when_asked() -> None:
    async with open_engine(**arguments([EndlessFeed()], Listening())) as engine:
        with pytest.raises(RuntimeError, match="not started"):
            engine.statistics()
        with pytest.raises(RuntimeError, match="not started"):
            await engine.halt()
    assert [event async for event in engine.events()] == []
    with pytest.raises(RuntimeError, match="not started"):
        await engine.wait()


@pytest.mark.parametrize("moment", ["before", "started", "running"])
async def test_an_error_in_the_block_ends_everything(moment: str) -> None:
    async with open_scheduler() as scheduler:
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
            async with open_engine(**arguments([EndlessFeed()], Listening()), scheduler=scheduler) as engine:
                if moment != "before":
                    await engine.start()
                    engine.add_strategy("late", Listening())
                if moment == "running":
                    await trio.sleep(0.05)
                raise KeyError("mine")
        assert caught.group_contains(KeyError, match="mine")
        await trio.testing.wait_all_tasks_blocked()
        assert_at_rest(scheduler)
        assert sum(lane.tasks for lane in scheduler.statistics().lanes.values()) == 0


@pytest.mark.parametrize("delay_s", [0, 0.0005, 0.05])
async def test_a_cancelled_block_leaves_no_task(delay_s: float) -> None:
    async with open_scheduler() as scheduler:
        with trio.move_on_after(delay_s) as scope:
            async with open_engine(
                **arguments([EndlessFeed()], [Listening(), Crossover()]), scheduler=scheduler
            ) as engine:
                await engine.start()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert_at_rest(scheduler)
        assert sum(lane.tasks for lane in scheduler.statistics().lanes.values()) == 0


async def test_a_wait_that_is_given_up_does_not_stop_the_closing() -> None:
    async with open_engine(**arguments([EndlessFeed()], Listening())) as engine:
        await engine.start()
        engine.stop()
        with trio.move_on_after(0):
            await engine.wait()
        report = await engine.wait()
    assert report.ok, report.checks


async def test_a_feed_that_cannot_connect_is_what_start_raises() -> None:
    class Broken:
        async def run(self, send: Any, *, task_status: Any) -> None:
            await trio.sleep(0.01)
            raise FeedError("no route to the market")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with open_engine(**arguments([Broken()], Listening())) as engine:
            with pytest.raises(FeedError, match="no route"):
                await engine.start()
            raise LookupError
    assert caught.group_contains(LookupError)


async def test_a_feed_that_ends_without_connecting_is_told_of() -> None:
    class Silent:
        async def run(self, send: Any, *, task_status: Any) -> None:
            await trio.lowlevel.checkpoint()

    with pytest.raises(ExceptionGroup) as caught:
        async with open_engine(**arguments([Silent()], Listening())) as engine:
            await engine.start()
    assert caught.group_contains(RuntimeError, match="started")


async def test_stop_ends_an_engine_whose_feed_never_connects() -> None:
    class Waiting:
        async def run(self, send: Any, *, task_status: Any) -> None:
            await trio.sleep_forever()

    async with open_engine(**arguments([Waiting()], Listening())) as engine, trio.open_nursery() as nursery:
        nursery.start_soon(engine.start)
        await trio.sleep(0.1)
        engine.stop()
        report = await engine.wait()
    assert report.ok


@pytest.mark.parametrize("on_exit", ["cancel", "keep"])
async def test_working_orders_at_the_end(on_exit: str) -> None:
    strategy = Listening(once(buy("ABC", 1, limit_price=9.5)))
    feed = ScriptedFeed(quote("ABC", 10.0), pause())
    async with open_engine(**arguments([feed], strategy, on_exit=on_exit)) as engine:
        await engine.start()
        report = await engine.wait()
    assert report.ok, report.checks
    assert strategy.names() == (["Accepted", "Cancelled"] if on_exit == "cancel" else ["Accepted"])
    assert len(list(engine.desk.orders.working())) == (on_exit == "keep")


async def test_halt_cancels_what_works_and_refuses_what_comes() -> None:
    go = trio.Event()
    strategy = Listening(lambda event, context: buy("ABC", 1, limit_price=9.5))
    feed = ScriptedFeed(quote("ABC", 10.0), wait(go), quote("ABC", 10.0), pause())
    async with open_engine(**arguments([feed], strategy)) as engine:
        events = engine.events()
        await engine.start()
        await trio.sleep(0.1)
        await engine.halt()
        go.set()
        report = await engine.wait()
        told = [event async for event in events]
    assert [check.name for check in report.checks if not check.ok] == ["trading was not halted"]
    assert strategy.names() == ["Accepted", "Cancelled", "Refused"]
    assert [event.reason for event in told if isinstance(event, Halted)] == ["halted by the host"]


async def test_flatten_closes_positions_also_with_an_order_working_against_them() -> None:
    go = trio.Event()
    actions = [sell("ABC", 10, limit_price=10.5), buy("ABC", 10)]
    second = lambda event, context: actions.pop()  # noqa: E731
    strategy = Listening(second)
    feed = ScriptedFeed(quote("ABC", 10.0), pause(), quote("ABC", 10.0), pause(), wait(go))
    async with open_engine(**arguments([feed], strategy)) as engine:
        await engine.start()
        await trio.sleep(0.1)
        assert engine.desk.position("listening", "ABC") == 10
        assert [order.state.name for order in engine.desk.orders.working()] == ["ACCEPTED"]
        await engine.flatten()
        await trio.sleep(0.1)
        assert engine.desk.position("listening", "ABC") == 0
        go.set()
        report = await engine.wait()
    assert report.ok, report.checks


# -- hosts --


async def test_what_a_host_hears_and_reads() -> None:
    feed = ScriptedFeed(quote("ABC", 10.0), pause(), quote("ABC", 11.0), pause())
    async with open_engine(**arguments([feed], Listening(once(buy("ABC", 1))))) as engine:
        events = engine.events()
        await engine.start()
        heard = [event async for event in events]
    kinds = [type(event) for event in heard if not isinstance(event, (FeedState, StrategyState))]
    assert kinds == [Accepted, Filled]
    assert [event.state for event in heard if isinstance(event, FeedState)] == ["connecting", "connected", "ended"]
    assert [event.state for event in heard if isinstance(event, StrategyState)] == ["running", "stopped"]
    assert engine.portfolio.latest().position("ABC").quantity == 1
    assert engine.portfolio.latest().cash["USD"] == 99_990
    statistics = engine.statistics()
    assert (statistics.rows, statistics.proposals, statistics.approved, statistics.fills) == (2, 1, 1, 1)
    assert statistics.strategies == {"listening": "stopped"}


async def test_two_engines_share_one_scheduler() -> None:
    reports = []

    async def trade_alone(symbol: str, scheduler: Any) -> None:
        steps = [step for price in PRICES for step in (quote(symbol, price), pause())]
        async with open_engine(**arguments([ScriptedFeed(*steps)], Crossover()), scheduler=scheduler) as engine:
            await engine.start()
            reports.append(await engine.wait())

    async with open_scheduler() as scheduler:
        async with trio.open_nursery() as nursery:
            for symbol in ("ABC", "XYZ"):
                nursery.start_soon(trade_alone, symbol, scheduler)
        assert_at_rest(scheduler)
    assert [report.ok for report in reports] == [True, True]
    assert {order.instrument for order in reports[0].orders} != {order.instrument for order in reports[1].orders}


async def test_features_alone_say_the_same_live_and_in_replay() -> None:
    from trio_nt.testing import run_strategy

    prices = (100 + np.cumsum(np.random.default_rng(3).normal(size=2_000))).round(2)
    live, replayed = Crossover(3, 8), Crossover(3, 8)
    async with open_engine(**arguments([ScriptedFeed(quote("ABC", prices))], live, market_capacity=500)) as engine:
        await engine.start()
        await engine.wait()
    assert failed_checks(engine) == []
    start = now_ns()
    events = [Quote("ABC", start + row, start + row, price, price, 100, 100) for row, price in enumerate(prices)]
    run_strategy(replayed, events)
    assert len(live.wanted) > 100
    assert live.wanted == replayed.wanted
