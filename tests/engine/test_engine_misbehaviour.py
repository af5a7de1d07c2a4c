"""One bad strategy in an engine: it is seen, it is dealt with as configured, and its neighbours lose nothing."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from engine_scripts import EndlessFeed, Listening, ScriptedFeed, arguments, pause, quote, wait

from scheduler import TaskPriority, open_scheduler
from trio_nt import Strategy, buy, open_engine
from trio_nt.errors import EnvironmentFailure
from trio_nt.model.events import StrategyState, StrategyWarning
from trio_nt.risk.limits import RiskLimits
from trio_nt.strategies.supervision import FloodPolicy, OverrunPolicy, RestartPolicy, Supervision


def ticks(count: int) -> ScriptedFeed:
    return ScriptedFeed(*[step for number in range(count) for step in (quote("ABC", 10.0 + number), pause(0.002))])


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0.001)


@attrs.define
class Raising(Strategy):
    """Has an order working, and raises at every price of ``bad``."""

    bad: tuple[float, ...] = ()

    def on_start(self, context: Any) -> None:
        context.log.info("orders %s", len(context.orders("ABC")))

    def on_quote(self, quote: Any, context: Any) -> Any:
        if quote.bid in self.bad:
            raise ZeroDivisionError
        return buy("ABC", 1, limit_price=9.5) if not context.orders("ABC") and not context.position("ABC") else None


@pytest.mark.parametrize("on_failure", ["cancel", "keep"])
async def test_a_strategy_that_raises_is_started_again_and_finds_its_orders(on_failure: str) -> None:
    supervision = Supervision(restart=RestartPolicy(when="on-failure", limit=1, backoff_s=0.02), on_failure=on_failure)
    neighbour = Listening()
    go = [trio.Event() for _ in range(3)]
    steps = [
        step for number in range(3) for step in (quote("ABC", 10.0), quote("ABC", 14.0 + number), wait(go[number]))
    ]
    strategies = {"bad": Raising((14.0, 15.0)), "good": neighbour}
    async with open_engine(**arguments([ScriptedFeed(*steps)], strategies, supervision={"bad": supervision})) as engine:
        events = engine.events()
        await engine.start()
        entry = engine.supervised["bad"]
        await until(lambda: entry.restarts.count == 1 and entry.state == "running")
        go[0].set()
        await until(lambda: entry.state == "quarantined")
        go[1].set()
        go[2].set()
        report = await engine.wait()
        states = [event async for event in events if isinstance(event, StrategyState) and event.strategy_id == "bad"]
    assert [price.bid for price in neighbour.seen] == [10.0, 14.0, 10.0, 15.0, 10.0, 16.0]
    assert [each.state for each in states] == ["running", "failed", "restarting", "running", "failed", "quarantined"]
    assert "ZeroDivisionError" in states[-1].detail
    made = [order.state.name for order in engine.desk.orders]
    assert made == (["CANCELLED", "CANCELLED"] if on_failure == "cancel" else ["CANCELLED"])  # the last by the close
    (line,) = [line for line in report.strategies if line.strategy_id == "bad"]
    assert (line.state, line.restarts) == ("quarantined", 1)
    assert "ZeroDivisionError" in line.traceback
    text = report.format()
    assert "quarantined, restarted once" in text
    assert "2 times in a row" in text
    counts = engine.statistics().supervision["bad"]
    assert (counts.state, counts.restarts) == ("quarantined", 1)
    assert all(check.ok for check in report.checks)
    assert not report.ok


@pytest.mark.slow
async def test_a_strategy_that_blocks_is_reported_and_its_neighbours_see_everything() -> None:
    class Blocking(Strategy):
        def on_quote(self, quote: Any, context: Any) -> None:
            time.sleep(0.05)

    neighbours = {f"good-{number}": Listening() for number in range(3)}
    policy = Supervision(overruns=OverrunPolicy(warn_after=1, demote_after=2, quarantine_after=4))
    config = arguments([ticks(10)], {"bad": Blocking(), **neighbours}, supervision={"bad": policy})
    async with open_engine(**config) as engine:
        events = engine.events()
        await engine.start()
        report = await engine.wait()
        said = [event async for event in events if isinstance(event, (StrategyWarning, StrategyState))]
    assert all(len(neighbour.seen) == 10 for neighbour in neighbours.values())
    assert [each.reason for each in said if isinstance(each, StrategyWarning) and each.strategy_id == "bad"] == [
        "overrun",
        "demoted",
    ]
    counts = engine.statistics().supervision["bad"]
    assert (counts.state, counts.lane, counts.overruns) == ("quarantined", TaskPriority.MEDIUM, 4)
    assert counts.slowest_step_s >= 0.05
    assert "holds the loop: 4 steps over the budget of 500 µs" in counts.failure
    assert "overrun: " in report.format()


@pytest.mark.slow
async def test_a_strategy_that_floods_is_refused_by_its_rate_and_reported() -> None:
    flood = Listening(lambda event, context: [buy("ABC", 1)] * 200)
    buyer = Listening(lambda event, context: buy("ABC", 1))
    config = arguments(
        [ticks(10)],
        {"flood": flood, "buyer": buyer, "good": Listening()},
        signal_capacity=10,
        event_capacity=10_000,
        strategy_limits={"flood": RiskLimits(submit_rate_per_s=0.001, submit_burst=5)},
        supervision={"flood": Supervision(floods=FloodPolicy(demote_after=None, quarantine_after=None))},
    )
    async with open_engine(**config) as engine:
        events = engine.events()
        await engine.start()
        report = await engine.wait()
        warned = [event async for event in events if isinstance(event, StrategyWarning)]
    assert [(each.strategy_id, each.reason) for each in warned if each.reason == "flood"] == [("flood", "flood")]
    counts = engine.statistics().supervision
    assert counts["flood"].refused_by_rate == 2_000 - 5
    assert counts["buyer"].refused_by_rate == 0
    assert len(flood.seen) == len(buyer.seen) == 10
    assert [order.state.name for order in engine.desk.orders if order.strategy_id == "buyer"] == ["FILLED"] * 10
    assert "flood: its orders are refused: flood: more than 0.001 orders a second" in report.format()
    assert report.ok, report.checks


async def test_a_strategy_that_goes_on_flooding_is_demoted_and_put_out_and_its_neighbours_see_everything() -> None:
    flood = Listening(lambda event, context: [buy("ABC", 1)] * 200)
    buyer = Listening(lambda event, context: buy("ABC", 1))
    config = arguments(
        [ticks(40)],
        {"flood": flood, "buyer": buyer},
        event_capacity=10_000,
        strategy_limits={"flood": RiskLimits(submit_rate_per_s=0.001, submit_burst=5)},
        supervision={"flood": Supervision(floods=FloodPolicy(demote_after=100, quarantine_after=1_000))},
    )
    config["now_ns"] = lambda: 1_000_000_000  # a second that does not end
    async with open_engine(**config) as engine:
        events = engine.events()
        await engine.start()
        report = await engine.wait()
        said = [event async for event in events if isinstance(event, (StrategyWarning, StrategyState))]
    assert [each.reason for each in said if isinstance(each, StrategyWarning) and each.strategy_id == "flood"] == [
        "flood",
        "demoted",
    ]
    counts = engine.statistics().supervision
    assert (counts["flood"].state, counts["flood"].lane) == ("quarantined", TaskPriority.MEDIUM)
    assert "it floods: 1,000 orders refused within a second: flood: more than 0.001" in counts["flood"].failure
    assert counts["flood"].refused_by_rate >= 1_000
    assert len(buyer.seen) == 40
    assert [order.state.name for order in engine.desk.orders if order.strategy_id == "buyer"] == ["FILLED"] * 40
    assert all(check.ok for check in report.checks), report.checks


async def test_a_strategy_that_keeps_whatever_it_is_shown_harms_nobody() -> None:
    class Leaking(Strategy):
        def __init__(self) -> None:
            self.kept: list[Any] = []

        def on_market_data(self, batch: Any, context: Any) -> None:
            self.kept += [batch, batch["bid"], context, bytearray(100_000)]

    neighbour = Listening()
    prices = np.arange(10.0, 110.0)
    feed = ScriptedFeed(*[quote("ABC", prices + 100 * number) for number in range(20)])
    async with open_engine(**arguments([feed], {"bad": Leaking(), "good": neighbour}, market_capacity=200)) as engine:
        await engine.start()
        report = await engine.wait()
    assert [event.bid for event in neighbour.seen] == np.arange(10.0, 2010.0).tolist()
    assert report.ok, report.checks


@pytest.mark.slow
async def test_a_strategy_that_sleeps_on_a_full_ring_is_put_out_and_the_market_goes_on() -> None:
    class Sleeping(Listening):
        async def on_quote(self, quote: Any, context: Any) -> None:
            await context.sleep(3_600)

    neighbour = Listening()
    feed = ScriptedFeed(*[quote("ABC", np.full(10, 10.0 + number)) for number in range(30)])
    config = arguments([feed], {"bad": Sleeping(), "good": neighbour}, market_capacity=100, stall_timeout_s=0.1)
    async with open_engine(**config) as engine:
        await engine.start()
        with trio.fail_after(60):
            report = await engine.wait()
    assert len(neighbour.seen) == 300
    assert engine.statistics().strategies == {"bad": "quarantined", "good": "stopped"}
    assert "held the market data" in {line.strategy_id: line.failure for line in report.strategies}["bad"]


async def test_a_strategy_runs_in_its_lane_and_is_listed() -> None:
    lanes = []

    class Asking(Strategy):
        def on_quote(self, quote: Any, context: Any) -> None:
            from scheduler import current_priority

            lanes.append(current_priority())

    async with open_engine(**arguments([EndlessFeed()], ())) as engine:
        engine.add_strategy("low", Asking(), lane=TaskPriority.LOW)
        await engine.start()
        await until(lambda: bool(lanes))
        engine.add_strategy("high", Listening(), restart="always")
        with pytest.raises(TypeError):
            engine.add_strategy("x", Listening(), lain=TaskPriority.LOW)
        with pytest.raises(ValueError, match="when"):
            engine.add_strategy("x", Listening(), restart="sometimes")
        counts = engine.statistics().supervision
        assert {name: each.lane.name for name, each in counts.items()} == {"low": "LOW", "high": "HIGH"}
    assert set(lanes) == {TaskPriority.LOW}


async def test_a_running_strategy_is_given_another_configuration() -> None:
    @attrs.define
    class Buying(Strategy):
        quantity: int = 1
        seen: list[float] = attrs.field(factory=list)

        def on_quote(self, quote: Any, context: Any) -> Any:
            return buy("ABC", self.quantity)

    go = [trio.Event(), trio.Event()]
    feed = ScriptedFeed(quote("ABC", 10.0), pause(), wait(go[0]), quote("ABC", 11.0), pause(), wait(go[1]))
    async with open_engine(**arguments([feed], {"s": Buying()})) as engine:
        await engine.update_strategy("s", {"quantity": 2})
        await engine.start()
        await until(lambda: engine.statistics().fills == 1)
        await engine.update_strategy("s", {"quantity": 3})
        with pytest.raises(Exception, match="must be a whole number"):
            await engine.update_strategy("s", {"quantity": 0.5})
        with pytest.raises(KeyError):
            await engine.update_strategy("nobody", {})
        go[0].set()
        await until(lambda: engine.statistics().fills == 2)
        go[1].set()
        report = await engine.wait()
    assert report.ok, report.checks
    assert [int(order.quantity) for order in engine.desk.orders] == [2, 3]


async def test_a_strategy_is_started_again_by_hand() -> None:
    async with open_engine(**arguments([EndlessFeed()], {"s": Listening()})) as engine:
        with pytest.raises(trio.ClosedResourceError):
            await engine.restart_strategy("s")
        await engine.start()
        counts = engine.supervised["s"].statistics
        await until(lambda: counts().rows > 2)
        await engine.stop_strategy("s")
        before = counts().rows
        await engine.restart_strategy("s")
        await engine.restart_strategy("s")
        await until(lambda: counts().rows > before + 2)
        engine.stop()
        report = await engine.wait()
    assert report.ok, report.checks
    assert engine.statistics().strategies == {"s": "stopped"}
    assert engine.statistics().supervision["s"].rows == report.strategies[0].rows > before + 2


async def test_engines_in_one_process_supervise_on_their_own() -> None:
    good = [Listening(), Listening()]
    async with open_scheduler() as scheduler:
        bad = arguments([ticks(10)], {"s": Raising((12.0,)), "good": good[0]}) | {"scheduler": scheduler}
        fine = arguments([ticks(10)], {"s": good[1]}) | {"scheduler": scheduler}
        async with open_engine(**bad) as one, open_engine(**fine) as other:
            await one.start()
            await other.start()
            reports = [await one.wait(), await other.wait()]
    assert [report.ok for report in reports] == [False, True]
    assert [len(each.seen) for each in good] == [10, 10]
    assert one.statistics().strategies == {"good": "stopped", "s": "failed"}


async def test_two_engines_do_not_share_a_folder_of_states(tmp_path: Path) -> None:
    config = arguments([], (), state_folder=tmp_path)
    async with open_engine(**config):
        with pytest.raises(EnvironmentFailure, match="in use by another engine"):
            async with open_engine(**arguments([], (), state_folder=tmp_path)):
                pass
