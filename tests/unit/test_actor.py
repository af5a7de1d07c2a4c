"""The actor's own parts: the length of its turns, the order of what it hears, its pauses, its mailbox."""

from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from strategies_support import open_rig
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_nt import Strategy
from trio_nt.model.events import Accepted
from trio_nt.strategies.actor import FIRST_ROWS, StepBudget
from trio_nt.strategies.messages import SaveState, TimersChanged
from trio_nt.strategies.pacing import Linger, drive_async
from trio_nt.strategies.runner import Steps

# -- the length of a turn --


BUDGET_NS = 500_000


def run_budget(budget: StepBudget, steps: int, turn_ns: int, row_ns: int) -> list[int]:
    """Rows of steps that cost a turn and their rows, always all that may be taken."""
    taken = []
    for _ in range(steps):
        taken.append(budget.rows)
        budget.measured(budget.rows, turn_ns + budget.rows * row_ns)
    return taken


@given(row_ns=st.integers(1, 10**10))
def test_a_steady_cost_leads_to_the_longest_batch_that_fits(row_ns: int) -> None:
    budget = StepBudget(BUDGET_NS / 1e9)
    assert budget.rows == FIRST_ROWS == 16
    taken = run_budget(budget, 200, 0, row_ns)
    assert all(after <= 2 * before for before, after in pairwise(taken))
    fits = max(1, BUDGET_NS // row_ns)
    settled = taken[40:]
    assert set(settled) <= {fits, fits + 1}
    assert settled.count(fits + 1) <= 3  # now and then a row more is tried


@given(turn_ns=st.integers(0, BUDGET_NS * 9 // 10), row_ns=st.integers(10, BUDGET_NS // 20), slow=st.integers(0, 3))
def test_a_dear_turn_does_not_keep_a_strategy_at_single_rows(turn_ns: int, row_ns: int, slow: int) -> None:
    """Also not after steps that the machine interrupted."""
    budget = StepBudget(BUDGET_NS / 1e9)
    for _ in range(slow):
        budget.measured(budget.rows, 100 * BUDGET_NS)
    taken = run_budget(budget, 400, turn_ns, row_ns)
    fits = (BUDGET_NS - turn_ns) // row_ns
    assert max(taken[200:]) >= 0.8 * min(fits, 10_000)


@given(st.lists(st.tuples(st.integers(1, 10**8), st.floats(0, 1)), max_size=40))
def test_a_costly_row_shortens_the_next_batch_at_once(steps: list[tuple[int, float]]) -> None:
    budget = StepBudget(BUDGET_NS / 1e9)
    for elapsed_ns, part in steps:
        taken = max(1, int(budget.rows * part))
        before = budget.rows
        budget.measured(taken, elapsed_ns)
        assert 1 <= budget.rows <= 2 * before
        one_more = elapsed_ns <= BUDGET_NS and budget.rows == taken + 1
        assert budget.rows == 1 or one_more or budget.rows * elapsed_ns / taken <= BUDGET_NS


@given(st.lists(st.integers(1, 2 * BUDGET_NS), max_size=300), st.integers(1, 50))
def test_a_size_that_was_too_long_is_not_tried_again_soon(noise: list[int], row_ns: int) -> None:
    budget = StepBudget(BUDGET_NS / 1e9)
    for elapsed_ns in noise:
        budget.measured(budget.rows, elapsed_ns)
    budget.measured(2, BUDGET_NS + 1)
    for _ in range(StepBudget._FORGET_AFTER - 1):
        budget.measured(1, BUDGET_NS * 2 // 3)
        assert budget.rows == 1


# -- what it hears --


@attrs.define
class Hearing(Strategy):
    """Notes what comes, in its order; a row takes a checkpoint or more."""

    heard: list[Any] = attrs.field(factory=list)
    row_s: float = 0.0

    async def on_quote(self, quote: Any, context: Any) -> None:
        self.heard.append(quote.bid)
        await trio.sleep(self.row_s)

    def on_order(self, update: Any, context: Any) -> None:
        self.heard.append(update.client_order_id)

    def on_timer(self, name: str, context: Any) -> None:
        self.heard.append(name)


async def test_news_and_messages_do_not_wait_behind_a_backlog_of_rows(autojump_clock: MockClock) -> None:
    strategy = Hearing(row_s=1.0)
    async with open_rig() as rig:
        rig.add("s", strategy)
        await wait_all_tasks_blocked()
        await rig.send(*range(1, 101))
        await trio.sleep(5.5)
        rig.supervisor.tell(Accepted("s", f"nt-{number}", "ABC", 0) for number in range(3))
        await rig.supervisor.update("s", {"row_s": 0.0})
    second = rig.supervisor.entries["s"].life.actor.runner.strategy
    assert isinstance(second, Hearing)
    heard = strategy.heard + second.heard
    assert [each for each in heard if isinstance(each, float)] == list(range(1, 101))
    assert heard[:6] == strategy.heard[:6] == [1, 2, 3, 4, 5, 6]
    assert 7 in second.heard  # the message was as quick
    for number, name in enumerate(("nt-0", "nt-1", "nt-2")):  # at most one row before each
        assert heard.index(name) <= 7 + 2 * number


async def test_a_timer_is_heard_between_two_rows(autojump_clock: MockClock) -> None:
    class Timed(Hearing):
        def on_start(self, context: Any) -> None:
            context.set_timer("timer", at_ns=context.now_ns + 2_500_000_000)

    strategy = Timed(row_s=1.0)
    async with open_rig() as rig:
        rig.add("s", strategy)
        await wait_all_tasks_blocked()
        await rig.send(*range(1, 11))
        await trio.sleep(20)
    assert strategy.heard == [1, 2, 3, "timer", *range(4, 11)]


async def test_a_full_mailbox_holds_who_sends_and_a_broadcast_passes_it_by(autojump_clock: MockClock) -> None:
    async with open_rig(mailbox_capacity=3) as rig:
        rig.add("busy", Hearing(row_s=100.0))
        rig.add("free", Hearing())
        await wait_all_tasks_blocked()
        await rig.send(1)
        mailbox = rig.supervisor.entries["busy"].life.actor.mailbox
        mailbox.send_nowait(SaveState())
        await wait_all_tasks_blocked()  # it is taken, and waits for the turn
        waiting = [SaveState() for _ in range(3)]
        for message in waiting:
            mailbox.send_nowait(message)
        with pytest.raises(trio.WouldBlock):
            mailbox.send_nowait(TimersChanged())
        assert len(rig.supervisor.broadcast(SaveState)) == 1
        began = trio.current_time()
        await rig.supervisor.update("busy", {"row_s": 0.0})
        assert trio.current_time() - began == pytest.approx(100, abs=1)
        for message in waiting:
            await message.answer()


# -- pauses and steps --


async def test_a_pause_is_shared_and_ends_for_all_when_who_began_it_leaves(autojump_clock: MockClock) -> None:
    linger, woke = Linger(1.0), []
    began = trio.current_time()

    async def wait(name: str, scope: trio.CancelScope | None = None) -> None:
        with scope or trio.CancelScope():
            await linger.wait()
            woke.append((name, round(trio.current_time() - began, 3)))

    leader = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "first", leader)
        await wait_all_tasks_blocked()
        nursery.start_soon(wait, "second")
        await trio.sleep(0.6)
        nursery.start_soon(wait, "third")
        await wait_all_tasks_blocked()
        leader.cancel()
        await wait_all_tasks_blocked()
        nursery.start_soon(wait, "fourth")
        await trio.sleep(0.3)
        nursery.start_soon(wait, "fifth")
    assert sorted(woke) == [("fifth", 1.6), ("fourth", 1.6), ("second", 0.6), ("third", 0.6)]


async def test_steps_between_waits_are_measured_and_what_is_thrown_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0]
    monkeypatch.setattr("time.perf_counter_ns", lambda: clock[0])
    noted: list[Any] = []

    async def handler(cost: int) -> str:
        clock[0] += cost
        await trio.lowlevel.checkpoint()
        clock[0] += 2 * cost
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            noted.append("cancelled")
            clock[0] += 5 * cost
            raise
        return "never"

    def steps() -> Steps:
        clock[0] += 1
        answer = yield checkpointing(7)
        noted.append(answer)
        yield handler(10)
        noted.append("not reached")

    async def checkpointing(answer: int) -> int:
        await trio.lowlevel.checkpoint()
        clock[0] += 100
        return answer

    with trio.move_on_after(0.01) as scope:
        await drive_async(steps())
    assert scope.cancelled_caught
    assert noted == [7, "cancelled"]

    def only() -> Steps:
        clock[0] += 1
        yield checkpointing(7)
        clock[0] += 30

    assert await drive_async(only()) == 100

    def raising() -> Steps:
        yield failing()

    async def failing() -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError("in a handler")

    with pytest.raises(ZeroDivisionError, match="in a handler"):
        await drive_async(raising())
