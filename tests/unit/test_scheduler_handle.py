"""Handles, submissions, closing, lending, and what is refused."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from scheduler import (
    LaneSettings,
    RuntimeSettings,
    TaskCancelled,
    TaskHandle,
    TaskPriority,
    current_priority,
    open_scheduler,
    pin_thread,
)
from scheduler.testing import assert_at_rest

CRITICAL, HIGH, MEDIUM, LOW, BACKGROUND = TaskPriority


def run(async_fn: Callable[..., Any], *args: Any) -> Any:
    async def bounded() -> Any:
        with trio.fail_after(60):
            return await async_fn(*args)

    return trio.run(bounded)


async def answer(value: int) -> int:
    await trio.sleep(0)
    return value


async def fail(text: str) -> None:
    await trio.sleep(0)
    raise ValueError(text)


def test_a_result_can_be_awaited_by_many_and_again() -> None:
    async def main() -> None:
        async with open_scheduler() as scheduler:
            handle = scheduler.spawn(LOW, answer, 42, name="the answer")
            assert (handle.name, handle.priority, handle.done) == ("the answer", LOW, False)
            got: list[int] = []

            async def awaiting() -> None:
                got.append(await handle.result())

            for _ in range(3):
                scheduler.start_soon(HIGH, awaiting)
            assert await handle.result() == 42
            assert await handle.result() == 42
            assert handle.done
        assert got == [42] * 3
        assert await handle.result() == 42, "also after the block"
        assert_at_rest(scheduler)

    run(main)


def test_an_error_taken_is_not_raised_again() -> None:
    async def main() -> None:
        async with open_scheduler() as scheduler:
            taken, left = scheduler.spawn(LOW, fail, "taken"), scheduler.spawn(HIGH, fail, "left")
            for _ in range(2):
                with pytest.raises(ValueError, match="taken"):
                    await taken.result()
            while not left.done:
                await trio.sleep(0)
            scheduler.start_soon(LOW, answer, 1)  # the block goes on

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert [str(error) for error in caught.value.exceptions] == ["left"]


def test_errors_come_together_with_the_bodys() -> None:
    async def main() -> None:
        async with open_scheduler() as scheduler:
            handle = scheduler.spawn(LOW, fail, "task")
            while not handle.done:
                await trio.sleep(0)
            raise KeyError("body")

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert sorted(repr(error) for error in caught.value.exceptions) == ["KeyError('body')", "ValueError('task')"]


def test_an_error_of_start_soon_cancels_the_block() -> None:
    async def main() -> None:
        async with open_scheduler() as scheduler:
            scheduler.start_soon(LOW, fail, "at once")
            handle = scheduler.spawn(LOW, trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                assert scheduler.cancel_scope.cancel_called
                handles.append(handle)

    handles: list[TaskHandle[Any]] = []
    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert [str(error) for error in caught.value.exceptions] == ["at once"]
    assert handles[0].done


def test_only_exceptions_wait_in_a_handle() -> None:
    async def interrupt() -> None:
        await trio.sleep(0)
        raise SystemExit(3)

    async def main() -> None:
        async with open_scheduler() as scheduler:
            scheduler.spawn(LOW, interrupt)
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        run(main)
    assert isinstance(caught.value.exceptions[0], SystemExit)


def test_cancelling_a_task_is_an_exception_of_its_own() -> None:
    async def main() -> None:
        async with open_scheduler() as scheduler:
            handle = scheduler.spawn(LOW, trio.sleep_forever)
            early = scheduler.spawn(LOW, trio.sleep_forever)
            early.cancel()
            await trio.testing.wait_all_tasks_blocked()
            handle.cancel()
            handle.cancel()
            for cancelled in (handle, early):
                with pytest.raises(TaskCancelled):
                    await cancelled.result()
            assert issubclass(TaskCancelled, Exception)
            with_block = scheduler.spawn(LOW, trio.sleep_forever)
            scheduler.cancel_scope.cancel()
        with pytest.raises(TaskCancelled):
            await with_block.result()

    run(main)


def test_cancelling_the_wait_leaves_the_task_alone() -> None:
    async def main() -> None:
        async with open_scheduler() as scheduler:
            event = trio.Event()
            handle = scheduler.spawn(LOW, event.wait)
            with trio.move_on_after(0) as scope:
                await handle.result()
            assert scope.cancelled_caught
            assert not handle.done
            event.set()
            await handle.result()

    run(main)


def test_a_result_on_oneself_or_in_another_run_is_refused() -> None:
    async def main() -> None:
        async with open_scheduler() as scheduler:
            handles: list[TaskHandle[Any]] = []

            async def selfish() -> None:
                with pytest.raises(RuntimeError, match="own result"):
                    await handles[0].result()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(child)

            async def child() -> None:
                with pytest.raises(RuntimeError, match="own result"):
                    await handles[0].result()

            handles.append(scheduler.spawn(LOW, selfish))
            await handles[0].result()

            async def elsewhere() -> None:
                with pytest.raises(RuntimeError, match="Trio run"):
                    await handles[0].result()

            await trio.to_thread.run_sync(trio.run, elsewhere)

    run(main)


def test_start_passes_on_the_value() -> None:
    async def service(name: str, task_status: Any) -> None:
        task_status.started((name, current_priority()))
        await trio.sleep(0)

    async def never(task_status: Any) -> None:
        await trio.sleep(0)

    async def main() -> None:
        async with open_scheduler() as scheduler:
            assert await scheduler.start(HIGH, service, "s") == ("s", HIGH)
            with pytest.raises(RuntimeError, match="task_status"):
                await scheduler.start(LOW, never)

    async def early_failure() -> None:
        async with open_scheduler() as scheduler:

            async def failing(task_status: Any) -> None:
                raise ValueError("early")

            with pytest.raises(ValueError, match="early"):
                await scheduler.start(LOW, failing)

    run(main)
    run(early_failure)


def test_a_priority_changes_while_the_task_runs() -> None:
    lanes: list[Any] = []

    async def child(go: trio.Event) -> None:
        await go.wait()
        lanes.append(current_priority())

    async def parent(go: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, go)
            await go.wait()
            lanes.append(current_priority())

    async def main(first: TaskPriority, second: TaskPriority) -> None:
        lanes.clear()
        async with open_scheduler() as scheduler:
            go = trio.Event()
            handle = scheduler.spawn(first, parent, go)
            await trio.testing.wait_all_tasks_blocked()
            handle.priority = second
            assert handle.priority == second
            assert scheduler.statistics().lanes[second].tasks == 2
            with pytest.raises(ValueError, match="lanes"):
                handle.priority = 7  # type: ignore[assignment]
            with pytest.raises(TypeError, match="TaskPriority"):
                handle.priority = "HIGH"  # type: ignore[assignment]
            go.set()
        assert lanes == [second] * 2
        assert_at_rest(scheduler)

    for first in TaskPriority:
        for second in TaskPriority:
            if first is not second:
                run(main, first, second)


def test_waiting_tasks_move_at_once() -> None:
    """Tasks queued at the gate behind thousands of others are moved in front of them by a change of priority."""
    log: list[str] = []

    async def job(name: str) -> None:
        log.append(name)
        time.sleep(20e-6)

    async def main(to: TaskPriority) -> None:
        log.clear()
        async with open_scheduler(quantum_s=50e-6, stall_after_s=math.inf) as scheduler:
            for _ in range(300):
                scheduler.start_soon(BACKGROUND, job, "crowd")
            handle = scheduler.spawn(BACKGROUND, job, "moved")
            await trio.lowlevel.checkpoint()
            handle.priority = to
        assert log.index("moved") < 50
        assert_at_rest(scheduler)

    run(main, HIGH)
    run(main, CRITICAL)


def test_a_waiter_lends_its_lane_until_its_wait_ends() -> None:
    """Invariant 9, over two hops; a boost never lowers a lane."""
    seen: dict[str, Any] = {}

    async def main() -> None:
        async with open_scheduler() as scheduler:
            go = trio.Event()
            gave_up = trio.Event()

            async def last() -> None:
                await go.wait()
                seen["last"] = current_priority()
                await gave_up.wait()
                seen["last, taken back"] = current_priority()

            async def middle() -> None:
                await last_handle.result()

            async def first() -> None:
                with trio.CancelScope() as scope:
                    scopes.append(scope)
                    await middle_handle.result()
                gave_up.set()

            async def lowly() -> None:
                await critical_handle.result()

            scopes: list[trio.CancelScope] = []
            last_handle = scheduler.spawn(BACKGROUND, last)
            middle_handle = scheduler.spawn(LOW, middle)
            scheduler.start_soon(CRITICAL, first)
            critical_handle = scheduler.spawn(HIGH, go.wait)
            scheduler.start_soon(BACKGROUND, lowly)
            await trio.testing.wait_all_tasks_blocked()
            lanes = scheduler.statistics().lanes
            seen["critical"] = lanes[CRITICAL].tasks
            seen["high"] = lanes[HIGH].tasks
            assert last_handle.priority is BACKGROUND, "its own priority stays"
            go.set()
            await trio.testing.wait_all_tasks_blocked()
            scopes[0].cancel()

    run(main)
    assert seen == {"critical": 3, "high": 1, "last": CRITICAL, "last, taken back": LOW}


def test_submit_runs_so_many_queues_so_many_then_waits() -> None:
    async def main(capacity: int) -> None:
        lanes = {LOW: LaneSettings(share=1, max_tasks=2, queue_capacity=capacity)}
        async with open_scheduler(lanes=lanes) as scheduler:
            gate = trio.Event()
            running: list[int] = []
            admitted: list[int] = []

            async def job(number: int) -> int:
                running.append(number)
                await gate.wait()
                running.remove(number)
                return number

            async def submitter(number: int) -> None:
                handle = await scheduler.submit(LOW, job, number)
                admitted.append(number)
                assert await handle.result() == number

            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(submitter, number)
                await trio.testing.wait_all_tasks_blocked()
                assert len(running) == 2
                assert len(admitted) == 2 + capacity
                statistics = scheduler.statistics().lanes[LOW]
                assert (statistics.submitted_running, statistics.submitted_waiting) == (2, capacity)
                gate.set()
        assert sorted(admitted) == list(range(10))

    for capacity in (0, 1, 3):
        run(main, capacity)


def test_a_cancelled_submit_admitted_nothing() -> None:
    async def main() -> None:
        lanes = {LOW: LaneSettings(share=1, max_tasks=1, queue_capacity=0)}
        ran: list[int] = []

        async def job(number: int) -> None:
            ran.append(number)
            await trio.sleep(0.01)

        async with open_scheduler(lanes=lanes) as scheduler:
            await scheduler.submit(LOW, job, 1)
            with trio.move_on_after(0.001) as scope:
                await scheduler.submit(LOW, job, 2)
            assert scope.cancelled_caught
            with trio.CancelScope() as cancelled:
                cancelled.cancel()
                await scheduler.submit(LOW, job, 3)
        assert ran == [1]

    run(main)


def test_leaving_waits_for_queued_submissions_and_cancelling_drops_them() -> None:
    async def main(cancel: bool) -> None:
        ran: list[int] = []
        lanes = {LOW: LaneSettings(share=1, max_tasks=1, queue_capacity=10)}

        async def job(number: int) -> None:
            ran.append(number)
            await trio.sleep(0.001)

        async with open_scheduler(lanes=lanes) as scheduler:
            handles = [await scheduler.submit(LOW, job, number) for number in range(5)]
            dropped = handles[3]
            dropped.cancel()
            await trio.sleep(0)
            if cancel:
                scheduler.cancel_scope.cancel()
        assert all(handle.done for handle in handles)
        assert ran == ([0] if cancel else [0, 1, 2, 4])
        with pytest.raises(TaskCancelled):
            await dropped.result()

    run(main, False)
    run(main, True)


def sync() -> None:
    called.append(1)


called: list[int] = []


@pytest.mark.parametrize("method", ["start_soon", "spawn", "start", "submit"])
def test_bad_functions_and_lanes_are_refused_before_any_effect(method: str) -> None:
    async def main() -> None:
        async with open_scheduler() as scheduler:

            async def call(*args: Any) -> None:
                result = getattr(scheduler, method)(*args)
                if method in ("start", "submit"):
                    await result

            with pytest.raises(TypeError, match=r"sync.*synchronous"):
                await call(LOW, sync)
            with pytest.raises(TypeError, match="synchronous"):
                await call(LOW, functools.partial(sync))
            with pytest.raises(TypeError, match="coroutine object answer"):
                await call(LOW, answer(1))
            with pytest.raises(TypeError, match="async function"):
                await call(LOW, 17)
            with pytest.raises(ValueError, match="lanes"):
                await call(5, answer, 1)
            with pytest.raises(ValueError, match="lanes"):
                await call(-1, answer, 1)
            with pytest.raises(TypeError, match="TaskPriority"):
                await call("HIGH", answer, 1)
            with pytest.raises(TypeError, match="TaskPriority"):
                await call(True, answer, 1)
            assert not called
            assert all(lane.spawned == 0 for lane in scheduler.statistics().lanes.values())
        with pytest.raises(trio.ClosedResourceError):
            await call(LOW, answer, 1)

    run(main)


def test_what_only_calling_shows_is_judged_by_the_result() -> None:
    async def generator() -> Any:
        yield 1

    class Worker:
        async def __call__(self) -> int:
            return 5

        async def method(self) -> int:
            return 6

    async def main() -> None:
        async with open_scheduler() as scheduler:
            assert await scheduler.spawn(LOW, lambda: answer(3)).result() == 3
            assert await scheduler.spawn(LOW, functools.partial(answer, 4)).result() == 4
            assert await scheduler.spawn(LOW, Worker()).result() == 5
            assert await scheduler.spawn(LOW, Worker().method).result() == 6
            with pytest.raises(TypeError, match="returned 9"):
                scheduler.spawn(LOW, lambda: 9)  # type: ignore[arg-type, return-value]
            with pytest.raises(TypeError, match=r"synchronous|generator"):
                scheduler.start_soon(LOW, generator)
            with pytest.raises(TypeError, match="callable"):
                await scheduler.run_blocking(3)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="answer is an async one"):
                await scheduler.run_blocking(answer, 1)
            with pytest.raises(TypeError, match=r"lambda.* returned a coroutine"):
                await scheduler.run_blocking(lambda: answer(1))
            with pytest.raises(ValueError, match="lanes"):
                await scheduler.run_blocking(sync, priority=9)  # type: ignore[arg-type]
            assert not called
        with pytest.raises(trio.ClosedResourceError):
            await scheduler.run_blocking(sync)
        assert scheduler.statistics().lanes[LOW].tasks == 0

    run(main)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"quantum_s": -1e-6}, ValueError, "quantum_s"),
        ({"quantum_s": math.nan}, ValueError, "quantum_s"),
        ({"quantum_s": math.inf}, ValueError, "quantum_s"),
        ({"quantum_s": "1"}, TypeError, "quantum_s"),
        ({"policy": "fair"}, ValueError, "policy"),
        ({"critical_quota": 0}, ValueError, "critical_quota"),
        ({"critical_quota": 1.5}, ValueError, "critical_quota"),
        ({"critical_quota": None}, TypeError, "critical_quota"),
        ({"critical_quota": 0.97}, ValueError, "add up"),
        ({"lanes": {LOW: LaneSettings(share=1, minimum_share=0.03)}}, ValueError, "add up"),
        ({"lanes": {LOW: 3}}, TypeError, "LaneSettings"),
        ({"lanes": {9: LaneSettings(share=1)}}, ValueError, "lanes"),
        ({"lanes": [LaneSettings(share=1)]}, TypeError, "lanes must map"),
        ({"critical_quota": math.nan}, ValueError, "critical_quota"),
        ({"gate_children": "no"}, TypeError, "gate_children"),
        ({"freeze_gc": 1}, TypeError, "freeze_gc"),
        ({"stall_after_s": 0}, ValueError, "stall_after_s"),
        ({"runtime": {}}, TypeError, "RuntimeSettings"),
    ],
)
def test_bad_settings_are_refused_by_name(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        open_scheduler(**arguments)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: LaneSettings(share=0), ValueError, "share"),
        (lambda: LaneSettings(share=math.inf), ValueError, "share"),
        (lambda: LaneSettings(share="much"), TypeError, "share"),  # type: ignore[arg-type]
        (lambda: LaneSettings(share=1, minimum_share=1.1), ValueError, "minimum_share"),
        (lambda: LaneSettings(share=1, max_tasks=0), ValueError, "max_tasks"),
        (lambda: LaneSettings(share=1, queue_capacity=-1), ValueError, "queue_capacity"),
        (lambda: LaneSettings(share=1, queue_capacity=1.5), TypeError, "queue_capacity"),  # type: ignore[arg-type]
        (lambda: RuntimeSettings(max_blocking_threads=4), ValueError, "max_blocking_threads"),
        (lambda: RuntimeSettings(thread_name="a name that is far too long"), ValueError, "thread_name"),
        (lambda: RuntimeSettings(thread_name=3), TypeError, "thread_name"),  # type: ignore[arg-type]
        (lambda: RuntimeSettings(thread_stack_size=100), ValueError, "thread_stack_size"),
        (lambda: RuntimeSettings(thread_stack_size=4 * 1024 * 1024 + 1), ValueError, "thread_stack_size"),
        (lambda: pin_thread([]), ValueError, "at least one"),
        (lambda: pin_thread([4096]), ValueError, "among"),
        (lambda: pin_thread("0"), TypeError, "cores"),  # type: ignore[arg-type]
        (lambda: pin_thread([1.5]), TypeError, "integers"),  # type: ignore[list-item]
        (lambda: pin_thread(0), TypeError, "cores"),  # type: ignore[arg-type]
    ],
)
def test_bad_values_are_refused_by_name(make: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
