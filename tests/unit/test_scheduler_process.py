"""What reaches beyond the loop: threads, stalls, collection, affinity, process-wide settings."""

import gc
import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from scheduler import (
    LaneSettings,
    RuntimeSettings,
    Scheduler,
    TaskPriority,
    open_scheduler,
    pin_thread,
    unpin_process,
    unpinned,
)
from scheduler.blocking import ThreadLimits
from scheduler.collector import Collector
from scheduler.lanes import DEFAULT_LANES
from scheduler.process_wide import read_stack_size
from scheduler.statistics import Histogram

CRITICAL, HIGH, MEDIUM, LOW, BACKGROUND = TaskPriority


def run(async_fn: Callable[..., Any], *args: Any) -> Any:
    async def bounded() -> Any:
        with trio.fail_after(60):
            return await async_fn(*args)

    return trio.run(bounded)


def test_blocking_calls_have_named_threads_and_are_counted() -> None:
    async def main() -> None:
        async with open_scheduler() as scheduler:
            assert await scheduler.run_blocking(lambda: threading.current_thread().name) == "nt-worker"
            with pytest.raises(ZeroDivisionError):
                await scheduler.run_blocking(lambda: 1 // 0)
            assert await scheduler.run_blocking(int, "7", priority=HIGH) == 7
        assert scheduler.statistics().blocking_calls == 3
        assert all(lane.blocking_threads == 0 for lane in scheduler.statistics().lanes.values())

    run(main)


def test_blocking_calls_wait_in_priority_order_and_can_be_cancelled() -> None:
    async def main() -> None:
        order: list[str] = []
        release = threading.Event()
        async with open_scheduler(runtime=RuntimeSettings(max_blocking_threads=5)) as scheduler:

            async def call(priority: TaskPriority, name: str) -> None:
                await scheduler.run_blocking(lambda: (release.wait(5), order.append(name)), priority=priority)

            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(call, CRITICAL, f"first {number}")
                await trio.testing.wait_all_tasks_blocked(0.005)
                for name, priority in (("low", LOW), ("high", HIGH), ("medium", MEDIUM)):
                    nursery.start_soon(call, priority, name)
                    await trio.testing.wait_all_tasks_blocked(0.002)
                lanes = scheduler.statistics().lanes
                assert lanes[CRITICAL].blocking_threads == 5
                assert [lanes[lane].blocking_waiting for lane in (HIGH, MEDIUM, LOW)] == [1, 1, 1]
                with trio.move_on_after(0.001) as scope:
                    await call(HIGH, "cancelled")
                assert scope.cancelled_caught
                release.set()
        assert "cancelled" not in order
        assert len(order) == 8

    run(main)


def test_a_running_blocking_call_is_not_abandoned() -> None:
    async def main() -> None:
        done: list[int] = []
        async with open_scheduler() as scheduler:
            with trio.move_on_after(0.005) as scope:
                await scheduler.run_blocking(lambda: (time.sleep(0.05), done.append(1)))
            assert done == [1]
            assert not scope.cancelled_caught, "it had finished before the cancellation could be delivered"

    run(main)


def test_the_limits_of_the_lanes() -> None:
    limits = ThreadLimits(RuntimeSettings(), DEFAULT_LANES)
    assert [limits.lanes[lane].limit for lane in TaskPriority] == [512, 512, 384, 256, 128]
    for _ in range(128):
        assert limits.try_start(BACKGROUND)
    assert not limits.try_start(BACKGROUND), "a lower lane can never take them all"
    for _ in range(384):
        assert limits.try_start(CRITICAL)
    assert not limits.try_start(CRITICAL)


def test_the_most_urgent_lane_gets_the_free_thread_and_the_queue_is_bounded() -> None:
    lanes = dict(DEFAULT_LANES) | {HIGH: LaneSettings(share=1, queue_capacity=2)}
    limits = ThreadLimits(RuntimeSettings(max_blocking_threads=5), lanes)
    tasks: Any = [object() for _ in range(6)]
    for _ in range(5):
        limits.try_start(CRITICAL)
    limits.wait(BACKGROUND, tasks[0])
    for task in tasks[1:5]:
        limits.wait(HIGH, task)
    assert (len(limits.lanes[HIGH].waiting), len(limits.lanes[HIGH].outside)) == (2, 2)
    assert limits.finish(CRITICAL) == [tasks[1]]
    assert (len(limits.lanes[HIGH].waiting), len(limits.lanes[HIGH].outside)) == (2, 1)
    limits.give_up(HIGH, tasks[2])
    limits.give_up(HIGH, tasks[4])
    assert limits.finish(CRITICAL) == [tasks[3]]
    assert limits.finish(CRITICAL) == [tasks[0]]
    assert limits.finish(CRITICAL) == []


async def saturate(scheduler: Scheduler, tasks: int) -> None:
    async def busy() -> None:
        while True:
            end = time.perf_counter() + 50e-6
            while time.perf_counter() < end:
                pass
            await trio.lowlevel.checkpoint()

    for _ in range(tasks):
        scheduler.start_soon(BACKGROUND, busy)


@pytest.mark.slow
def test_a_saturated_loop_does_not_starve_its_threads() -> None:
    """Trap 13; through Trio's own threads as well."""

    async def main() -> None:
        async with open_scheduler() as scheduler:
            await saturate(scheduler, 100)
            waits = []
            for call in (scheduler.run_blocking, trio.to_thread.run_sync) * 10:
                start = time.perf_counter()
                await call(lambda: None)
                waits.append(time.perf_counter() - start)
            scheduler.cancel_scope.cancel()
        assert sorted(waits)[-2] < 0.05

    run(main)


def test_the_switch_interval_is_lowered_and_restored() -> None:
    before = sys.getswitchinterval()

    async def main() -> None:
        async with open_scheduler(quantum_s=200e-6):
            assert sys.getswitchinterval() == pytest.approx(50e-6)
            async with open_scheduler(quantum_s=200e-6):
                pass
            assert sys.getswitchinterval() == pytest.approx(50e-6)
        assert sys.getswitchinterval() == before

    run(main)
    assert sys.getswitchinterval() == before


def test_the_stack_size_is_set_and_restored() -> None:
    before = read_stack_size()

    async def main() -> None:
        async with open_scheduler(runtime=RuntimeSettings(thread_stack_size=4 * 1024 * 1024)):
            assert read_stack_size() == 4 * 1024 * 1024

    run(main)
    assert read_stack_size() == before


def test_process_wide_settings_are_restored_after_an_error() -> None:
    before = sys.getswitchinterval()

    async def main() -> None:
        async with open_scheduler(freeze_gc=True):
            raise KeyError

    with pytest.raises(ExceptionGroup):
        run(main)
    assert sys.getswitchinterval() == before
    assert gc.isenabled()


def test_a_stall_is_counted_and_reported_with_its_line(caplog: pytest.LogCaptureFixture) -> None:
    async def stalling() -> None:
        time.sleep(0.03)  # here
        await trio.sleep(0)
        time.sleep(0.03)

    async def main() -> Any:
        async with open_scheduler(stall_after_s=0.01) as scheduler:
            scheduler.start_soon(LOW, stalling, name="the stalling one")
        return scheduler.statistics()

    with caplog.at_level(logging.WARNING, "scheduler"):
        statistics = run(main)
    assert statistics.lanes[LOW].stalls == 2
    (record,) = caplog.records
    message = record.getMessage()
    line = stalling.__code__.co_firstlineno + 1
    assert "the stalling one" in message
    assert "LOW" in message
    assert f"test_scheduler_process.py:{line}" in message
    assert statistics.last_stall in message


def test_no_watchdog_without_a_stall_limit() -> None:
    async def main() -> None:
        async with open_scheduler(stall_after_s=math.inf) as scheduler:
            assert "stall-watchdog" not in [thread.name for thread in threading.enumerate()]
            time.sleep(0.001)
        assert scheduler.statistics().last_stall == ""

    for thread in threading.enumerate():
        if thread.name == "stall-watchdog":
            thread.join(1)
    run(main)


@pytest.mark.slow
def test_collection_is_frozen_and_restored() -> None:
    async def main() -> None:
        frozen = gc.get_freeze_count()
        async with open_scheduler(freeze_gc=True) as scheduler:
            assert not gc.isenabled()
            await trio.sleep(0.05)
            assert gc.get_freeze_count() > frozen, "frozen after start-up, as soon as the loop is idle"
            async with open_scheduler(freeze_gc=True):
                pass
            assert not gc.isenabled(), "the first one still wants it off"
            held = [[] for _ in range(5000)]
            with trio.fail_after(60):
                while not scheduler.statistics().collections:
                    await trio.sleep(0.01)
            old = {id(each) for each in gc.get_objects(2)}
            assert all(id(each) in old for each in held), "looked through once, no second time as middle-aged"
        assert gc.isenabled()
        assert gc.get_freeze_count() == 0

    run(main)


async def test_an_idle_loop_is_woken_for_its_garbage_once_a_second(autojump_clock: trio.testing.MockClock) -> None:
    class Steps(trio.abc.Instrument):
        count = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.count += task.name == "collector"

    steps, collector = Steps(), Collector(lambda: True)
    trio.lowlevel.add_instrument(steps)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collector.run, name="collector")
            await trio.sleep(100)
            collector.stop()
    finally:
        trio.lowlevel.remove_instrument(steps)
        gc.unfreeze()
    assert 90 < steps.count < 120


@pytest.fixture
def two_cores() -> set[int]:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("needs two cores")
    return cores


def test_a_pinned_thread_does_not_hand_its_mask_on(two_cores: set[int]) -> None:
    """Trap 14: pool threads, forked children, and whatever is started inside `unpinned`."""

    async def main() -> None:
        with pin_thread([min(two_cores)]):
            assert os.sched_getaffinity(0) == {min(two_cores)}
            async with open_scheduler() as scheduler:
                assert await scheduler.run_blocking(lambda: os.sched_getaffinity(0)) == two_cores
            with unpinned():
                command = [sys.executable, "-S", "-c", "import os; print(len(os.sched_getaffinity(0)))"]
                printed = subprocess.run(command, capture_output=True, check=True).stdout
            assert int(printed) == len(two_cores)
            process = await trio.lowlevel.open_process(
                [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
            )
            os.sched_setaffinity(process.pid, {min(two_cores)})  # as it inherits it from most threads
            unpin_process(process.pid)
            assert os.sched_getaffinity(process.pid) == two_cores
            assert process.stdin is not None
            await process.stdin.aclose()
            await process.wait()
            unpin_process(process.pid)  # there is nobody any more
            assert os.sched_getaffinity(0) == {min(two_cores)}
            pin_thread([max(two_cores)])
            assert os.sched_getaffinity(0) == {max(two_cores)}
        assert os.sched_getaffinity(0) == two_cores

    run(main)


@pytest.mark.slow
def test_no_figure_is_taken_beside_hypothesis() -> None:
    """Trap 16: importing it makes Trio's scheduling deterministic for the whole process."""
    root = Path(__file__).parents[2]
    programs = {
        "import sys, benchmarks.scheduler; print('hypothesis' in sys.modules)": "False",
        "import hypothesis; from benchmarks.harness import main; main('none', lambda quick: iter(()))": "",
    }
    for program, printed in programs.items():
        done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=240)
        assert done.stdout.strip() == printed
    assert done.returncode == 1
    assert "hypothesis is imported" in done.stderr


def test_the_histogram_is_exact_to_six_percent() -> None:
    histogram = Histogram()
    for microseconds in range(1, 1001):
        histogram.add(microseconds * 1e-6)
    histogram.add(-1.0)
    timing = histogram.snapshot()
    assert timing.count == 1001
    assert timing.max == pytest.approx(1000e-6)
    assert 500e-6 <= timing.p50 * 1.002 <= 535e-6
    assert 990e-6 * 0.998 <= timing.p99 <= 1000e-6
    for seconds in (1e-9, 17e-9, 1e-6, 0.5, 1000.0):
        one = Histogram()
        one.add(seconds)
        assert one.snapshot().p50 == pytest.approx(seconds, rel=0.07)
    assert Histogram().snapshot().count == 0
