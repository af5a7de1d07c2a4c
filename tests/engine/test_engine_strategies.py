"""Strategies in a running engine: their handlers, their failures, coming and going."""

import time
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from engine_scripts import EndlessFeed, Listening, ScriptedFeed, arguments, pause, quote, wait

from scheduler import TaskPriority, current_priority
from trio_nt import Strategy, buy, open_engine
from trio_nt.model.events import Accepted, StrategyState
from trio_nt.risk.limits import RiskLimits


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0.001)


def ticks(count: int) -> ScriptedFeed:
    return ScriptedFeed(*[step for _ in range(count) for step in (quote("ABC", 10.0), pause())])


async def test_actions_of_on_start_and_on_stop_reach_risk() -> None:
    class Ends(Listening):
        def on_start(self, context: Any) -> Any:
            return buy("ABC", 1)

        def on_stop(self, context: Any) -> Any:
            return buy("ABC", 2)

    strategy = Ends()
    async with open_engine(**arguments([ticks(3)], strategy)) as engine:
        engine.instruments
        await engine.start()
        report = await engine.wait()
    assert report.ok, report.checks
    assert engine.statistics().proposals == 2
    assert [order.quantity for order in engine.desk.orders][-1] == 2
    assert strategy.names()[-2:] == ["Accepted", "Filled"]


async def test_a_refused_action_is_heard_with_its_reason() -> None:
    strategy = Listening(lambda event, context: buy("ABC", 5))
    async with open_engine(**arguments([ticks(2)], strategy, limits=RiskLimits(max_order_quantity=1))) as engine:
        events = engine.events()
        await engine.start()
        told = [event async for event in events if type(event).__name__ == "Refused"]
    assert strategy.names() == ["Refused", "Refused"]
    assert strategy.heard == told
    assert [refused.reason for refused in strategy.heard] == [refusal.reason for refusal in engine.desk.refusals]


async def test_timers_fire_by_the_engines_clock_also_between_rows() -> None:
    @attrs.define
    class Timed(Strategy):
        fired: list[Any] = attrs.field(factory=list)
        began: int = 0

        def on_start(self, context: Any) -> None:
            self.began = context.now_ns
            context.set_timer("every", every_ns=100_000_000)
            context.set_timer("once", at_ns=context.now_ns + 250_000_000)

        def on_timer(self, name: str, context: Any) -> None:
            self.fired.append((name, (context.now_ns - self.began) // 1_000_000))

    strategy = Timed()
    async with open_engine(**arguments([ScriptedFeed(quote("ABC", 10.0), pause(0.45))], strategy)) as engine:
        await engine.start()
        await engine.wait()
    assert strategy.fired == [("every", 100), ("every", 200), ("once", 250), ("every", 300), ("every", 400)]


async def test_an_async_handler_sleeps_and_what_it_does_leaves_at_once() -> None:
    slept = []

    class Sleepy(Listening):
        async def on_quote(self, quote: Any, context: Any) -> Any:
            before = context.now_ns
            await context.sleep(0.1)
            self.seen.append(quote)
            # Its clock goes on by what it slept; by the wall clock it sleeps on from the row, which may have waited.
            slept.append((context.now_ns - before, context.now_ns - time.time_ns()))
            return buy("ABC", 1)

    strategy = Sleepy()
    feed = ScriptedFeed(*[quote("ABC", 10.0)] * 3, pause(0.15), pause(1))
    async with open_engine(**arguments([feed], strategy)) as engine:
        await engine.start()
        await until(lambda: engine.statistics().approved > 0)
        assert engine.statistics().approved < 3  # the first one's order waits for no later row
        report = await engine.wait()
    assert report.ok, report.checks
    assert len(slept) == 3
    assert all(by_its_clock == 100_000_000 and early_by < 1_000_000 for by_its_clock, early_by in slept)


async def test_closing_waits_for_no_handler_for_ever() -> None:
    class Stuck(Listening):
        async def on_quote(self, quote: Any, context: Any) -> None:
            await trio.sleep_forever()

        async def on_stop(self, context: Any) -> None:
            await trio.sleep_forever()

    async with open_engine(
        **arguments([ticks(3)], {"stuck": Stuck(), "fine": Listening()}, exit_timeout_s=0.05)
    ) as engine:
        await engine.start()
        with trio.fail_after(60):
            report = await engine.wait()
    assert engine.statistics().strategies == {"stuck": "quarantined", "fine": "stopped"}
    assert {line.failure for line in report.strategies} == {"it did not end in time", ""}


@pytest.mark.parametrize("where", ["on_quote", "on_order", "on_start", "on_stop", "on_timer", "async"])
async def test_a_strategy_that_raises_fails_alone(where: str) -> None:
    def fail() -> None:
        raise ZeroDivisionError(f"in {where}")

    class Failing(Listening):
        def on_start(self, context: Any) -> None:
            context.set_timer("now", every_ns=1_000_000_000 if where != "on_timer" else 15_000_000)
            if where == "on_start":
                fail()

        def on_quote(self, quote: Any, context: Any) -> Any:
            self.seen.append(quote)
            if where == "on_quote" and len(self.seen) == 2:
                fail()
            return buy("ABC", 1, limit_price=9.5) if len(self.seen) == 1 else None

        def on_order(self, update: Any, context: Any) -> None:
            if where == "on_order":
                fail()

        def on_timer(self, name: str, context: Any) -> None:
            fail()

        def on_stop(self, context: Any) -> None:
            if where == "on_stop":
                fail()

    class FailingLater(Failing):
        async def on_trade(self, trade: Any, context: Any) -> None: ...

        async def on_quote(self, quote: Any, context: Any) -> Any:
            self.seen.append(quote)
            if len(self.seen) == 2:
                await context.sleep(0.001)
                fail()
            return buy("ABC", 1, limit_price=9.5)

    failing, neighbour = FailingLater() if where == "async" else Failing(), Listening()
    go = trio.Event()
    feed = ScriptedFeed(*ticks(10).steps, wait(go))
    async with open_engine(**arguments([feed], {"failing": failing, "fine": neighbour})) as engine:
        events = engine.events()
        await engine.start()
        if where != "on_stop":
            await until(lambda: engine.statistics().strategies["failing"] == "failed")
            await until(lambda: not any(engine.desk.orders.working()))  # at once, not when the engine ends
            assert engine.statistics().strategies == {"failing": "failed", "fine": "running"}
        go.set()
        report = await engine.wait()
        states = [event async for event in events if isinstance(event, StrategyState)]
    assert all(check.ok for check in report.checks), report.checks
    assert not report.ok
    assert len(neighbour.seen) == 10
    assert [state.state for state in states if state.strategy_id == "failing"] == ["running", "failed"]
    (line,) = [line for line in report.strategies if line.failure]
    assert line.failure.startswith(f"ZeroDivisionError: in {where} (test_engine_strategies.py, line ")
    assert "\n" not in line.failure
    assert line.traceback.startswith("Traceback (most recent call last):\n")
    assert "in fail\n" in line.traceback
    assert line.traceback in [state.detail for state in states]
    if where != "on_start":
        assert [order.state.name for order in engine.desk.orders] == ["CANCELLED"]


async def test_what_a_strategy_did_in_the_turn_in_which_it_failed_stands_and_is_cancelled() -> None:
    class Failing(Strategy):
        def on_quote(self, quote: Any, context: Any) -> Any:
            if quote.bid == 12.0:
                raise ZeroDivisionError
            return buy("ABC", 1, limit_price=5.0) if quote.bid == 11.0 else buy("ABC", 1)

    feed, limits = ScriptedFeed(quote("ABC", np.array([10.0, 11.0, 12.0]))), RiskLimits(self_trade="allow")
    async with open_engine(**arguments([feed], Failing(), limits=limits)) as engine:
        await engine.start()
        report = await engine.wait()
    assert all(check.ok for check in report.checks), report.checks
    assert not report.ok
    assert engine.statistics().proposals == engine.desk.approved + len(engine.desk.refusals)
    assert sorted(order.state.name for order in engine.desk.orders) == ["CANCELLED", "FILLED"]


async def test_a_strategy_that_does_not_take_its_news_is_quarantined() -> None:
    class Deaf(Listening):
        async def on_order(self, update: Any, context: Any) -> None:
            await trio.sleep_forever()

        def on_quote(self, quote: Any, context: Any) -> Any:
            return None

        def on_timer(self, name: str, context: Any) -> Any:
            return None

    neighbour = Listening()
    async with open_engine(
        **arguments(
            [ticks(20)], {"deaf": Deaf(), "fine": neighbour}, signal_capacity=1, limits=RiskLimits(max_open_orders=1)
        )
    ) as engine:
        events = engine.events()
        await engine.start()
        entry = engine.supervised["deaf"]
        await trio.sleep(0.05)
        for number in range(20):
            entry.tell(Accepted("deaf", f"nt-{number}", "ABC", 0))
            await trio.testing.wait_all_tasks_blocked()
        report = await engine.wait()
        states = [
            event.state async for event in events if isinstance(event, StrategyState) and event.strategy_id == "deaf"
        ]
    assert states == ["running", "quarantined"]
    assert len(neighbour.seen) == 20
    assert "news" in "".join(line.failure for line in report.strategies)


async def test_a_strategy_joins_a_running_engine_at_the_next_row_and_leaves_when_told() -> None:
    class Leaving(Listening):
        def on_stop(self, context: Any) -> Any:
            return buy("ABC", 1)

    first, late = Listening(), Leaving()
    async with open_engine(**arguments([EndlessFeed()], {"first": first})) as engine:
        await engine.start()
        await until(lambda: len(first.seen) > 10)
        before = len(first.seen)
        engine.add_strategy("late", late)
        with pytest.raises(ValueError, match="there already"):
            engine.add_strategy("late", Listening())
        await until(lambda: len(late.seen) > 5)
        await engine.stop_strategy("late")
        seen, rows = len(late.seen), len(first.seen)
        await until(lambda: len(first.seen) > rows + 5)
        assert engine.statistics().strategies == {"first": "running", "late": "stopped"}
        engine.stop()
        report = await engine.wait()
    assert report.ok, report.checks
    assert any("until late was stopped" in check.name for check in report.checks)
    assert before > 10
    assert len(late.seen) == seen > 5
    assert late.seen[0] in first.seen[before - 1 : before + 2]
    start = first.seen.index(late.seen[0])
    assert late.seen == first.seen[start : start + seen]
    assert [order.strategy_id for order in engine.desk.orders] == ["late"]
    with pytest.raises(trio.ClosedResourceError):
        engine.add_strategy("later", Listening())
    with pytest.raises(KeyError):
        await engine.stop_strategy("nobody")


async def test_proposals_that_waited_for_room_are_not_lost_when_their_strategy_is_stopped() -> None:
    strategy = Listening(lambda event, context: [buy("ABC", 1)] * 20)
    go = trio.Event()
    async with open_engine(**arguments([ScriptedFeed(quote("ABC", 10.0), wait(go))], strategy, signal_capacity=2,
                                       order_capacity=1)) as engine:  # fmt: skip
        await engine.start()
        with trio.fail_after(60):
            while not strategy.seen:
                await trio.lowlevel.checkpoint()
        await engine.stop_strategy("listening")
        go.set()
        report = await engine.wait()
    assert report.ok, report.checks
    assert engine.statistics().proposals == 20


async def test_a_feed_takes_turns_with_strategies_that_are_behind() -> None:
    go, lanes = trio.Event(), []

    class Waits(Listening):
        async def on_quote(self, quote: Any, context: Any) -> None:
            self.seen.append(quote)
            await go.wait()

    slow, quick = Waits(), Listening()

    def note(send: Any) -> Any:
        lanes.append(current_priority())
        return trio.lowlevel.checkpoint()

    def seen(strategy: Listening, count: int) -> Any:
        return lambda send: until(lambda: len(strategy.seen) == count)

    async def let_go(send: Any) -> None:
        go.set()
        await until(lambda: len(slow.seen) == 3)

    steps = [
        quote("ABC", 10.0), note, seen(quick, 1), quote("ABC", 11.0), note, seen(quick, 2), quote("ABC", 12.0), note,
        let_go, pause(), quote("ABC", 13.0), note,
    ]  # fmt: skip
    async with open_engine(**arguments([ScriptedFeed(*steps)], {"slow": slow, "quick": quick})) as engine:
        await engine.start()
        report = await engine.wait()
    assert lanes == [TaskPriority.CRITICAL, TaskPriority.HIGH, TaskPriority.HIGH, TaskPriority.CRITICAL]
    assert len(slow.seen) == len(quick.seen) == 4
    assert report.ok, report.checks


async def test_a_feed_without_strategies_stays_in_its_lane() -> None:
    lanes = []

    def note(send: Any) -> Any:
        lanes.append(current_priority())
        return trio.lowlevel.checkpoint()

    feed = ScriptedFeed(*[quote("ABC", 10.0), note] * 3)
    async with open_engine(**arguments([feed], {})) as engine:
        await engine.start()
        await engine.wait()
    assert lanes == [TaskPriority.CRITICAL] * 3
