"""The gate: order, budget, wakes, and each trap of gating tasks from the outside."""

import collections.abc
import gc
import inspect
import logging
import math
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from scheduler import (
    LaneSettings,
    Scheduler,
    TaskPriority,
    checkpoint_if_needed,
    current_priority,
    open_scheduler,
    should_yield,
    unconstrained,
)
from scheduler.cells import CELLS
from scheduler.parking import park, wake, wake_all
from scheduler.testing import assert_at_rest
from scheduler.testing import assert_checkpoints as assert_checkpoints_in_lane

CRITICAL, HIGH, MEDIUM, LOW, BACKGROUND = TaskPriority


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def run(async_fn: Callable[..., Any], *args: Any) -> Any:
    """In a Trio run of its own, with a bound: a gate that hangs is a failure, not a timeout of the suite."""

    async def bounded() -> Any:
        with trio.fail_after(60):
            return await async_fn(*args)

    return trio.run(bounded)


async def stepping(log: list[Any], name: Any, steps: int, step_s: float = 0.0) -> None:
    for _ in range(steps):
        log.append(name)
        spin(step_s)
        await trio.lowlevel.checkpoint()


def test_strict_serves_the_lanes_in_order() -> None:
    log: list[Any] = []
    lanes = {lane: LaneSettings(share=1, minimum_share=0) for lane in TaskPriority}

    async def main() -> None:
        async with open_scheduler(policy="strict", lanes=lanes) as scheduler:
            for lane in (BACKGROUND, HIGH, LOW, MEDIUM):
                for _ in range(5):
                    scheduler.start_soon(lane, stepping, log, lane, 20)

    run(main)
    assert log == sorted(log), "a lower lane took a step while a preferred one was ready"


def test_no_lower_step_while_critical_is_ready() -> None:
    log: list[str] = []

    async def waker(event: trio.Event) -> None:
        await trio.lowlevel.checkpoint()
        event.set()
        log.append("woken")
        await trio.lowlevel.checkpoint()

    async def critical(event: trio.Event) -> None:
        await event.wait()
        for _ in range(3):
            log.append("critical")
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with open_scheduler() as scheduler:
            event = trio.Event()
            for _ in range(50):
                scheduler.start_soon(LOW, stepping, log, "low", 20, 20e-6)
            scheduler.start_soon(CRITICAL, critical, event)
            scheduler.start_soon(LOW, waker, event)

    run(main)
    woken = log.index("woken")
    assert log[woken + 1 : woken + 4] == ["critical"] * 3


def test_quantum_zero_makes_progress() -> None:
    log: list[Any] = []

    async def main() -> None:
        async with open_scheduler(quantum_s=0) as scheduler:
            for lane in TaskPriority:
                scheduler.start_soon(lane, stepping, log, lane, 50)
        assert_at_rest(scheduler)

    run(main)
    assert len(log) == 250


def test_at_most_one_lower_step_starts_after_the_budget() -> None:
    """Invariant 5, with batches that were far too large: the first steps were short."""
    starts: list[tuple[int, bool]] = []

    async def worker(gate: Any) -> None:
        for step in range(30):
            starts.append((gate.tick, time.perf_counter() > gate.tick_ends))
            spin(0.0 if step < 15 else 400e-6)
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with open_scheduler(stall_after_s=math.inf) as scheduler:
            for _ in range(20):
                scheduler.start_soon(LOW, worker, scheduler._gate)

    run(main)
    late = [tick for tick, is_late in starts if is_late]
    assert len(late) == len(set(late)), "two steps of one tick started after its budget"
    assert len({tick for tick, _ in starts[-200:]}) > 150


@pytest.mark.parametrize("quantum_s", [0.0, 200e-6, 1.0])
@pytest.mark.parametrize("step_s", [0.0, 300e-6])
def test_order_within_a_lane(quantum_s: float, step_s: float) -> None:
    """Displacement below the release batch for every job, also with steps longer than the quantum; exact at k = 1."""
    log: list[int] = []

    async def job(number: int) -> None:
        log.append(number)
        spin(step_s)

    async def main() -> None:
        async with open_scheduler(quantum_s=quantum_s, stall_after_s=math.inf) as scheduler:
            for number in range(300):
                scheduler.start_soon(MEDIUM, job, number)

    run(main)
    displacement = max(abs(place - number) for place, number in enumerate(log))
    assert sorted(log) == list(range(300))
    assert displacement < 64
    if quantum_s <= step_s and quantum_s == 0:
        assert displacement == 0


def test_a_job_that_waits_long_is_not_overtaken() -> None:
    """Trap 10: entries sent back again and again keep their place."""
    log: list[int] = []

    async def job(number: int) -> None:
        log.append(number)
        spin(50e-6)

    async def preferred() -> None:
        for _ in range(200):
            await trio.sleep(0)
            spin(30e-6)

    async def main() -> None:
        async with open_scheduler(critical_quota=0.9) as scheduler:
            scheduler.start_soon(CRITICAL, preferred)
            for number in range(400):
                scheduler.start_soon(BACKGROUND, job, number)

    run(main)
    assert max(abs(place - number) for place, number in enumerate(log)) < 64


def test_each_value_handed_over_arrives_once() -> None:
    """Trap 1: outcomes are single-use, and a task may be sent back at the gate many times while it holds one."""
    received: list[int] = []

    async def consumer(receive: trio.MemoryReceiveChannel[int]) -> None:
        async for item in receive:
            received.append(item)
            spin(30e-6)

    async def main() -> None:
        async with open_scheduler(quantum_s=20e-6) as scheduler:
            send, receive = trio.open_memory_channel[int](0)
            scheduler.start_soon(HIGH, stepping, [], 0, 300, 20e-6)
            for _ in range(5):
                scheduler.start_soon(BACKGROUND, consumer, receive.clone())
            receive.close()
            async with send:
                for number in range(60):
                    await send.send(number)
        assert_at_rest(scheduler)

    run(main)
    assert sorted(received) == list(range(60))


def test_being_scheduled_twice_counts_as_ready_once() -> None:
    """Trap 3: a task that was woken and is then cancelled, moved and moved back is ready once, and wrapped once."""

    async def main() -> None:
        async with open_scheduler() as scheduler, open_scheduler() as second:
            event = trio.Event()
            handles = [opened.spawn(LOW, event.wait) for opened in (scheduler, second) for _ in range(5)]
            await trio.testing.wait_all_tasks_blocked()
            event.set()
            for handle in handles:
                handle.cancel()
                handle.priority = CRITICAL
                handle.priority = LOW
            assert scheduler._gate.lanes[LOW].ready == len(handles) == len(CELLS)
            assert all(not isinstance(cell.coro, type(cell)) for cell in CELLS.values())
        assert_at_rest(scheduler)

    run(main)


def test_a_value_received_while_cancelled_is_not_lost() -> None:
    """Trap 2: items sent = received + left, whenever the receivers are cancelled."""
    received: list[int] = []

    async def receiver(receive: trio.MemoryReceiveChannel[int]) -> None:
        while True:
            received.append(await receive.receive())

    async def main(cancel_after: int) -> None:
        received.clear()
        send, receive = trio.open_memory_channel[int](0)
        sent = 0
        async with open_scheduler(quantum_s=0) as scheduler:
            handles = [scheduler.spawn(BACKGROUND, receiver, receive) for _ in range(20)]
            scheduler.start_soon(CRITICAL, stepping, [], 0, 200)
            while True:
                try:
                    send.send_nowait(sent)
                except trio.WouldBlock:
                    await trio.lowlevel.checkpoint()
                    continue
                sent += 1
                if sent == cancel_after:
                    break
            for handle in handles:
                handle.cancel()
        assert sorted(received) == list(range(sent))

    for cancel_after in (1, 5, 19, 20, 21, 50):
        run(main, cancel_after)


def test_a_woken_task_is_never_aborted() -> None:
    aborted: list[int] = []
    got: list[Any] = []

    async def waiter(tasks: list[trio.lowlevel.Task]) -> None:
        tasks.append(trio.lowlevel.current_task())
        got.append(await park(lambda: aborted.append(1)))

    async def main(lane: TaskPriority) -> None:
        async with open_scheduler() as scheduler:
            tasks: list[trio.lowlevel.Task] = []
            handles = [scheduler.spawn(lane, waiter, tasks) for _ in range(3)]
            await trio.testing.wait_all_tasks_blocked()
            wake(tasks[0], "single")
            wake_all(tasks[1:2], "herd")
            for handle in handles:
                handle.cancel()
        assert_at_rest(scheduler)

    for lane in TaskPriority:
        aborted.clear()
        got.clear()
        run(main, lane)
        assert sorted(got) == ["herd", "single"]
        assert aborted == [1], "the third was cancelled, once"


def test_wakes_reach_ungated_tasks_and_threads() -> None:
    async def main() -> None:
        waiting: list[trio.lowlevel.Task] = []

        async def waiter() -> None:
            waiting.append(trio.lowlevel.current_task())
            assert await park(lambda: None) == 7

        async with open_scheduler() as scheduler, trio.open_nursery() as nursery:
            nursery.start_soon(waiter)
            scheduler.start_soon(LOW, waiter)
            scheduler.start_soon(CRITICAL, waiter)
            await trio.testing.wait_all_tasks_blocked()
            token = trio.lowlevel.current_trio_token()
            await trio.to_thread.run_sync(token.run_sync_soon, wake_all, list(waiting), 7)
        assert scheduler.statistics().lanes[LOW].thread_wakes == 1

    run(main)


def test_removing_the_instrument_never_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """Traps 7 and 11: it fails open, is counted, and logged once."""

    async def main(lane_mix: list[TaskPriority]) -> None:
        async with open_scheduler(quantum_s=20e-6) as scheduler:
            for lane in lane_mix:
                scheduler.start_soon(lane, stepping, [], lane, 200, 20e-6)
            await trio.sleep(0.002)
            trio.lowlevel.remove_instrument(scheduler._gate._instrument)
        assert scheduler.statistics().instrument_lost == 1
        assert scheduler.statistics().gate_open
        assert not CELLS

    with caplog.at_level(logging.ERROR, "scheduler"):
        run(main, [LOW] * 10)
        run(main, [CRITICAL, HIGH, LOW, BACKGROUND] * 5)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_closing_lets_descendants_in_foreign_nurseries_go_on() -> None:
    """Trap 12."""
    log: list[int] = []

    async def main() -> None:
        async with trio.open_nursery() as foreign:

            async def parent() -> None:
                for _ in range(20):
                    foreign.start_soon(stepping, log, 1, 50, 20e-6)
                await trio.sleep(0.001)

            async with open_scheduler(quantum_s=20e-6) as scheduler:
                scheduler.start_soon(BACKGROUND, parent)
            assert len(log) < 1000
            assert not CELLS
            assert scheduler.statistics().gate_open
        assert len(log) == 1000

    run(main)


def test_one_of_two_schedulers_closes_and_its_descendants_leave_the_lanes() -> None:
    log: list[int] = []

    async def main() -> None:
        async with trio.open_nursery() as foreign, open_scheduler() as outer:
            outer.start_soon(LOW, stepping, log, 0, 100)

            async def parent() -> None:
                foreign.start_soon(stepping, log, 1, 100, 20e-6)
                await trio.sleep(0.001)

            async with open_scheduler() as inner:
                inner.start_soon(BACKGROUND, parent)
            assert not any(cell.job.owner is inner for cell in CELLS.values())
            assert not outer.statistics().gate_open
        assert log.count(1) == 100

    run(main)


def test_a_second_scheduler_must_agree() -> None:
    async def main() -> None:
        async with open_scheduler(quantum_s=100e-6):
            with pytest.raises(ValueError, match="quantum_s"):
                async with open_scheduler(quantum_s=200e-6):
                    pass
            with pytest.raises(ValueError, match="policy"):
                async with open_scheduler(quantum_s=100e-6, policy="strict"):
                    pass
            with pytest.raises(ValueError, match="lanes"):
                async with open_scheduler(quantum_s=100e-6, lanes={LOW: LaneSettings(share=7)}):
                    pass
            async with open_scheduler(quantum_s=100e-6) as second:
                second.start_soon(LOW, trio.sleep, 0)
        async with open_scheduler(quantum_s=200e-6):
            pass  # the first one's settings are gone with it

    run(main)


def test_children_join_their_parents_lane() -> None:
    lanes: dict[str, Any] = {}

    async def leaf(name: str) -> None:
        lanes[name] = current_priority()

    async def parent(scheduler: Scheduler, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leaf, "child")
            scheduler.start_soon(HIGH, leaf, "own lane")
            await nursery.start(starter)
            await trio.to_thread.run_sync(trio.from_thread.run, leaf, "from_thread")
            await trio.to_thread.run_sync(lambda: lanes.update(thread=current_priority()))
            await scheduler.run_blocking(lambda: lanes.update(blocking=current_priority()))
        task_status.started()

    async def starter(task_status: Any) -> None:
        await leaf("started")
        task_status.started()

    async def main(gate_children: bool) -> None:
        async with open_scheduler(gate_children=gate_children) as scheduler:
            assert current_priority() is None
            await scheduler.start(LOW, parent, scheduler)

    run(main, True)
    assert lanes == {
        "child": LOW,
        "own lane": HIGH,
        "started": LOW,
        "from_thread": LOW,
        "thread": LOW,
        "blocking": LOW,
    }
    run(main, False)
    assert (lanes["child"], lanes["own lane"], lanes["started"]) == (None, HIGH, None)


def test_system_tasks_are_never_gated() -> None:
    async def main() -> None:
        seen: list[bool] = []

        async def system() -> None:
            seen.append(trio.lowlevel.current_task() in CELLS)

        async def parent() -> None:
            await trio.to_thread.run_sync(
                lambda: trio.from_thread.run(system, trio_token=token)  # with a token: a system task
            )

        async with open_scheduler() as scheduler:
            token = trio.lowlevel.current_trio_token()
            scheduler.start_soon(LOW, parent)
        assert seen == [False]

    run(main)


def test_a_context_of_another_run_gates_nothing() -> None:
    async def inner() -> Any:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0)
        return current_priority()

    async def outer() -> None:
        async with open_scheduler() as scheduler:
            handle = scheduler.spawn(LOW, trio.to_thread.run_sync, trio.run, inner)
            assert await handle.result() is None

    run(outer)


def test_locks_and_introspection_see_a_coroutine() -> None:
    """Trap 6."""

    async def holder(lock: trio.Lock, task_status: Any) -> None:
        async with lock:
            task = trio.lowlevel.current_task()
            assert inspect.getcoroutinestate(task.coro) == inspect.CORO_RUNNING
            assert isinstance(task.coro, collections.abc.Coroutine)
            task_status.started(task)
            await trio.sleep_forever()

    async def main(lane: TaskPriority) -> None:
        lock = trio.Lock()
        async with open_scheduler() as scheduler:
            task = await scheduler.start(lane, holder, lock)
            await trio.testing.wait_all_tasks_blocked()
            frames = [frame.f_code.co_name for frame, _ in task.iter_await_frames()]
            assert frames[:3] == ["holder", "sleep_forever", "wait_task_rescheduled"]
            assert inspect.getcoroutinestate(task.coro) == inspect.CORO_SUSPENDED
            with pytest.raises(RuntimeError, match="cannot be awaited"):
                task.coro.__await__()
            scheduler.cancel_scope.cancel()

    run(main, CRITICAL)
    run(main, LOW)


def test_tracebacks_stay_readable() -> None:
    async def failing() -> None:
        await trio.sleep(0)
        raise ValueError("readable")

    async def main() -> None:
        async with open_scheduler() as scheduler:
            scheduler.start_soon(LOW, failing)

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    (error,) = caught.value.exceptions
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names[-1] == "failing"
    assert len([name for name in names if name == "_drive"]) <= 1


def test_an_error_thrown_in_by_trio_reaches_the_task() -> None:
    """A message Trio does not know comes back as a TypeError at the place that yielded it."""

    class Foreign:
        def __await__(self) -> Any:
            yield "asyncio?"

    async def main(lane: TaskPriority) -> None:
        async def awaiting() -> str:
            with pytest.raises(TypeError, match="unrecognized yield message"):
                await Foreign()
            await trio.lowlevel.checkpoint()
            return "survived"

        async with open_scheduler() as scheduler:
            assert await scheduler.spawn(lane, awaiting).result() == "survived"

    run(main, CRITICAL)
    run(main, LOW)


def test_a_detached_coroutine_is_not_gated() -> None:
    """A foreign runner drives the task's coroutine: the gate must not answer it with Trio's messages."""

    async def main() -> None:
        async def detaching() -> str:
            task = trio.lowlevel.current_task()
            token = trio.lowlevel.current_trio_token()

            def foreign_runner() -> None:
                assert task.coro.send("hello") == "done"

            token.run_sync_soon(foreign_runner)
            greeting = await trio.lowlevel.temporarily_detach_coroutine_object(lambda _: trio.lowlevel.Abort.FAILED)
            await trio.lowlevel.reattach_detached_coroutine_object(task, "done")
            await trio.sleep(0)
            return str(greeting)

        async with open_scheduler() as scheduler:
            for _ in range(20):
                scheduler.start_soon(LOW, stepping, [], 0, 50, 20e-6)
            assert await scheduler.spawn(LOW, detaching).result() == "hello"

    run(main)


def test_assert_checkpoints_in_a_lane() -> None:
    """Trap 15: a shielded checkpoint is half a checkpoint, also where it goes through the lane's queue."""

    async def main() -> None:
        async def half() -> None:
            with pytest.raises(AssertionError), assert_checkpoints_in_lane():
                await trio.lowlevel.cancel_shielded_checkpoint()
            with assert_checkpoints_in_lane():
                await trio.lowlevel.checkpoint()
            with pytest.raises(AssertionError), assert_checkpoints_in_lane():
                pass

        async with open_scheduler() as scheduler:
            scheduler.start_soon(LOW, half)
            scheduler.start_soon(CRITICAL, half)
        await half()

    run(main)


def test_awaitables_without_frames_are_wrapped_as_trio_does() -> None:
    class Frameless(collections.abc.Coroutine[Any, Any, str]):
        def send(self, value: Any) -> Any:
            raise StopIteration("done")

        def throw(self, *error: Any) -> Any:
            raise error[0]

        def close(self) -> None: ...

        def __await__(self) -> Any:
            return iter(())

    async def main() -> None:
        async with open_scheduler() as scheduler:
            scheduler.start_soon(LOW, lambda: Frameless())

    run(main)


def test_finished_tasks_leave_no_cycles() -> None:
    async def failing() -> None:
        raise ValueError("cyclic?")

    async def main() -> None:
        async with open_scheduler(stall_after_s=math.inf) as scheduler:
            for _ in range(3):
                for lane in (CRITICAL, LOW):
                    with pytest.raises(ValueError, match="cyclic"):
                        await scheduler.spawn(lane, failing).result()
                    await scheduler.spawn(lane, trio.sleep, 0).result()
            gc.collect()
            gc.disable()
            try:
                for _ in range(200):
                    await scheduler.spawn(LOW, stepping, [], 0, 3).result()
                cells = [thing for thing in gc.get_objects() if type(thing).__name__ == "Cell"]
                assert not cells, "ended tasks wait for the collector"
            finally:
                gc.enable()

    run(main)


def test_should_yield_and_checkpoint_if_needed() -> None:
    answers: dict[str, Any] = {}

    async def lower(scheduler: Scheduler, event: trio.Event) -> None:
        await trio.lowlevel.checkpoint()
        answers["fresh"] = should_yield()
        await checkpoint_if_needed()
        spin(0.11)
        answers["quantum used up"] = should_yield()
        with unconstrained():
            answers["unconstrained"] = should_yield()
        before = scheduler.statistics().lanes[LOW].forced_yields
        await checkpoint_if_needed()
        answers["forced"] = scheduler.statistics().lanes[LOW].forced_yields - before >= 1
        event.set()
        answers["critical ready"] = should_yield()

    async def critical(event: trio.Event) -> None:
        answers["critical"] = should_yield()
        spin(0.11)
        answers["critical, used up"] = should_yield()
        await event.wait()

    async def main() -> None:
        assert should_yield()
        await checkpoint_if_needed()
        with unconstrained():
            assert should_yield(), "outside of any lane nothing is known"
        # A busy machine puts the process aside for some milliseconds: they must not use the quantum up.
        async with open_scheduler(quantum_s=0.1) as scheduler:
            event = trio.Event()
            scheduler.start_soon(CRITICAL, critical, event)
            await scheduler.spawn(LOW, lower, scheduler, event).result()

    run(main)
    assert answers == {
        "fresh": False,
        "quantum used up": True,
        "unconstrained": False,
        "forced": True,
        "critical ready": True,
        "critical": False,
        "critical, used up": True,
    }


def test_checkpoint_if_needed_notices_cancellation() -> None:
    async def main() -> None:
        async def working() -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                await checkpoint_if_needed()
                raise AssertionError("not reached")
            assert scope.cancelled_caught

        async with open_scheduler() as scheduler:
            scheduler.start_soon(LOW, working)

    run(main)


def test_statistics_count() -> None:
    async def main() -> None:
        async with open_scheduler(quantum_s=100e-6) as scheduler:
            for _ in range(10):
                scheduler.start_soon(LOW, stepping, [], 0, 100, 20e-6)
            scheduler.start_soon(HIGH, stepping, [], 0, 1, 300e-6)
            handle = scheduler.spawn(CRITICAL, trio.sleep, 0.001)
            await handle.result()
            middle = scheduler.statistics().lanes[LOW]
            assert (middle.tasks, middle.spawned) == (10, 10)
            assert middle.depth > 0
        lanes = scheduler.statistics().lanes
        assert lanes[LOW].steps == 10 * 101
        assert lanes[LOW].busy_s >= 0.02
        assert lanes[LOW].step_time.count == lanes[LOW].steps // 16
        assert 20e-6 <= lanes[LOW].step_time.p50 <= lanes[LOW].step_time.max
        assert (lanes[LOW].tasks, lanes[LOW].depth) == (0, 0)
        assert lanes[HIGH].overruns == 1
        assert lanes[CRITICAL].wake_to_run.count >= 2
        assert lanes[CRITICAL].wake_to_run.p50 <= lanes[CRITICAL].wake_to_run.p99 <= lanes[CRITICAL].wake_to_run.max
        assert scheduler.statistics().ticks > 10

    run(main)
