"""The scheduler's gates: how soon a critical task runs, what a step costs, and how fair the lanes are.

    python -m benchmarks.scheduler [--quick] [--only WORD] [--json FILE]

The latency cases share one topology:

    a process of its own ──pipe, one stamp per ms, on schedule──► CRITICAL task   ─┐
    N background tasks: 50 µs of arithmetic, then a plain checkpoint               ─┴─ one Trio loop

The waker sends by its own schedule whether or not the loop keeps up, and each stamp is counted by itself, so a loop
that falls behind cannot hide it (coordinated omission). The waker is a process, so that no GIL is in between; how late
its own sleep ends is not counted.
Every stamp must arrive, and every case checks its own answer; a fast wrong answer is an error.

Words for --only: wake, huge, herd, step, spawn, throughput, shares, quota, blocking, numpy, max (the last takes two
minutes and only runs when asked for); "wake, quantum 50" or "herd of 1,000" takes one part of a case. Each part fits
into three minutes.
"""

import asyncio
import contextlib
import gc
import os
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from time import perf_counter
from typing import Any

import attrs
import trio

from benchmarks.harness import RUNS, Row, main, percentile
from scheduler import Scheduler, TaskPriority, open_scheduler
from scheduler.parking import park, wake_all

STEP_S = 50e-6
STAMP = struct.Struct("d")

_WAKER = """
import os, struct, sys, time
fd, wakes, period = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
due = time.monotonic() + 0.25
for _ in range(wakes):
    time.sleep(max(0.0, due - time.monotonic()))
    os.write(fd, struct.pack("d", time.monotonic()))
    due += period
"""


def spin(seconds: float) -> None:
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


@contextlib.contextmanager
def waker(wakes: int, period_s: float = 0.001) -> Iterator[int]:
    """A process that writes ``wakes`` stamps to the pipe whose read end this yields."""
    read_fd, write_fd = os.pipe()
    arguments = [sys.executable, "-S", "-c", _WAKER, str(write_fd), str(wakes), str(period_s)]
    process = subprocess.Popen(arguments, pass_fds=[write_fd])
    os.close(write_fd)
    try:
        yield read_fd
    finally:
        os.close(read_fd)
        process.terminate()
        process.wait()


def stamps_in(data: bytes, now: float) -> list[float]:
    return [now - due for (due,) in STAMP.iter_unpack(data)]


@attrs.frozen
class Delays:
    """Wake-to-run delays of one run, seconds, sorted."""

    values: Sequence[float]

    @property
    def p50(self) -> float:
        return percentile(self.values, 0.5)

    @property
    def p99(self) -> float:
        return percentile(self.values, 0.99)

    @property
    def longest(self) -> float:
        return self.values[-1]


async def collect_delays(read_fd: int, wakes: int, give_up_s: float = 8.0) -> Delays:
    """The critical task: read stamps until all have come, or ``give_up_s`` after the last one should have."""
    delays: list[float] = []
    with trio.move_on_after(give_up_s + wakes * 0.001):
        while len(delays) < wakes:
            await trio.lowlevel.wait_readable(read_fd)
            data = os.read(read_fd, 1 << 16)
            if not data:
                break
            delays += stamps_in(data, time.monotonic())
    if not delays:
        raise RuntimeError("no stamp arrived")
    return Delays(sorted(delays))


async def background() -> None:
    while True:
        spin(STEP_S)
        await trio.lowlevel.checkpoint()


Load = Callable[[Scheduler | None, trio.Nursery], Awaitable[object]]


async def start_background(scheduler: Scheduler | None, nursery: trio.Nursery, tasks: int) -> None:
    for _ in range(tasks):
        if scheduler:
            scheduler.start_soon(TaskPriority.BACKGROUND, background)
        else:
            nursery.start_soon(background)


@contextlib.asynccontextmanager
async def gated_or_plain(
    quantum_s: float | None, **options: Any
) -> AsyncIterator[tuple[Scheduler | None, trio.Nursery]]:
    """A scheduler, or with ``quantum_s`` None plain Trio; whatever runs in it is cancelled at the end."""
    async with trio.open_nursery() as nursery:
        if quantum_s is None:
            yield None, nursery
        else:
            async with open_scheduler(quantum_s=quantum_s, **options) as scheduler:
                yield scheduler, nursery
                scheduler.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


def trio_delays(tasks: int, quantum_s: float | None, wakes: int, load: Load | None = None, **options: Any) -> Delays:
    """One run of the topology above; ``load`` replaces the background tasks."""

    async def run() -> Delays:
        async with gated_or_plain(quantum_s, **options) as (scheduler, nursery):
            if load:
                await load(scheduler, nursery)
            else:
                await start_background(scheduler, nursery, tasks)
            await trio.sleep(tasks * 20e-6)  # all of them have been through Trio's run queue once
            with waker(wakes) as read_fd:
                if scheduler is None:
                    return await collect_delays(read_fd, wakes)
                handle = scheduler.spawn(TaskPriority.CRITICAL, collect_delays, read_fd, wakes)
                return await handle.result()

    with garbage_frozen():
        return trio.run(run)


def asyncio_delays(tasks: int, wakes: int) -> Delays:
    async def busy() -> None:
        while True:
            spin(STEP_S)
            await asyncio.sleep(0)

    async def run(read_fd: int) -> Delays:
        delays: list[float] = []
        done = asyncio.Event()

        def on_readable() -> None:
            ready.set()

        ready = asyncio.Event()
        asyncio.get_running_loop().add_reader(read_fd, on_readable)

        async def critical() -> None:
            while len(delays) < wakes:
                await ready.wait()
                ready.clear()
                delays.extend(stamps_in(os.read(read_fd, 1 << 16), time.monotonic()))
            done.set()

        running = [asyncio.create_task(busy()) for _ in range(tasks)]
        running.append(asyncio.create_task(critical()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), 8.0 + wakes * 0.001)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        asyncio.get_running_loop().remove_reader(read_fd)
        return Delays(sorted(delays))

    with garbage_frozen(), waker(wakes) as read_fd:
        return asyncio.run(run(read_fd))


@contextlib.contextmanager
def garbage_frozen() -> Iterator[None]:
    """The same for every contestant: collection off while it is measured."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def medians(runs: Sequence[Delays]) -> tuple[float, float, float]:
    return tuple(statistics.median(getattr(run, name) for run in runs) for name in ("p50", "p99", "longest"))  # type: ignore[return-value]


# -- cases


def wake_cases(quantum_us: int) -> Callable[[bool], Iterator[Row]]:
    """Critical wake-to-run among N tasks at one quantum; N = 0 in the same run is the machine's own noise."""

    def cases(quick: bool) -> Iterator[Row]:
        runs, wakes = (1, 300) if quick else (RUNS, 1000)
        quantum_s = quantum_us * 1e-6
        sizes = (100, 1000) if quick else (100, 1000, 10_000)
        noise, loaded = [], {size: [] for size in sizes}
        for _ in range(runs):  # interleaved, so that all see the same weather
            noise.append(trio_delays(0, quantum_s, wakes))
            for size in sizes:
                loaded[size].append(trio_delays(size, quantum_s, wakes))
        noise_p50, noise_p99, noise_max = medians(noise)
        yield Row(f"wake, quantum {quantum_us} µs, N = 0", "p50", noise_p50 * 1e6, "µs")
        yield Row(f"wake, quantum {quantum_us} µs, N = 0", "p99", noise_p99 * 1e6, "µs")
        yield Row(f"wake, quantum {quantum_us} µs, N = 0", "max", noise_max * 1e6, "µs")
        for size in sizes:
            p50, p99, longest = medians(loaded[size])
            case = f"wake, quantum {quantum_us} µs, N = {size:,}"
            yield Row(case, "p50", p50 * 1e6, "µs")
            bound = noise_p99 + quantum_s + STEP_S + 50e-6
            yield Row(case, "p99", p99 * 1e6, "µs", baseline=noise_p99 * 1e6, gate=bound * 1e6, note="baseline: N = 0")
            yield Row(case, "max", longest * 1e6, "µs", baseline=noise_max * 1e6)

    return cases


def wake_others_cases(quick: bool) -> Iterator[Row]:
    """The same at N = 1,000 on plain Trio and asyncio, beside the lanes at the default quantum."""
    runs, wakes = (1, 300) if quick else (3, 1000)
    gated, plain, other = [], [], []
    for _ in range(runs):
        gated.append(trio_delays(1000, 200e-6, wakes))
        plain.append(trio_delays(1000, None, wakes))
        other.append(asyncio_delays(1000, wakes))
    p99, plain_p99 = medians(gated)[1], medians(plain)[1]
    yield Row("wake, others, N = 1,000, in lanes", "p99", p99 * 1e6, "µs")
    yield Row("wake, others, N = 1,000, plain Trio", "p99", plain_p99 * 1e6, "µs")
    yield Row("wake, others, N = 1,000, plain Trio ÷ lanes", "p99 ratio", plain_p99 / p99, "×", gate=400, at_most=False)
    yield Row("wake, others, N = 1,000, asyncio", "p99", medians(other)[1] * 1e6, "µs")


def huge_case(quick: bool) -> Iterator[Row]:
    """100,000 tasks: an aim."""
    wakes = 300 if quick else 1000
    size = 10_000 if quick else 100_000
    runs = [trio_delays(size, 200e-6, wakes) for _ in range(1 if quick else 3)]
    noise = medians([trio_delays(0, 200e-6, wakes) for _ in range(len(runs))])
    p50, p99, longest = medians(runs)
    yield Row(f"huge, N = {size:,}, quantum 200 µs", "p50", p50 * 1e6, "µs")
    yield Row(f"huge, N = {size:,}, quantum 200 µs", "p99", p99 * 1e6, "µs", aim=(noise[1] + 300e-6) * 1e6)
    yield Row(f"huge, N = {size:,}, quantum 200 µs", "max", longest * 1e6, "µs")


class Herd:
    """Lower tasks that are woken all at once, again and again."""

    def __init__(self, kind: str, size: int, every_s: float) -> None:
        self.kind, self.size, self.every_s = kind, size, every_s
        self.waiting: dict[trio.lowlevel.Task, None] = {}
        self.event = trio.Event()
        self.deadline = 0.0
        self.woken = 0

    async def start(self, scheduler: Scheduler | None, nursery: trio.Nursery) -> None:
        for _ in range(self.size):
            self._start_soon(scheduler, nursery, self.member)
        self._start_soon(scheduler, nursery, self.waker)

    @staticmethod
    def _start_soon(scheduler: Scheduler | None, nursery: trio.Nursery, function: Callable[[], Any]) -> None:
        if scheduler:
            scheduler.start_soon(TaskPriority.LOW, function)
        else:
            nursery.start_soon(function)

    async def member(self) -> None:
        task = trio.lowlevel.current_task()
        while True:
            if self.kind == "ours":
                self.waiting[task] = None
                await park(lambda: self.waiting.pop(task))
            elif self.kind == "trio.Event":
                await self.event.wait()
            else:
                await trio.sleep_until(self.deadline)
            self.woken += 1

    async def waker(self) -> None:
        self.deadline = trio.current_time() + self.every_s
        while True:
            await trio.sleep_until(self.deadline)
            self.deadline = trio.current_time() + self.every_s
            if self.kind == "ours":
                woken = list(self.waiting)
                self.waiting.clear()
                wake_all(woken)
            elif self.kind == "trio.Event":
                event, self.event = self.event, trio.Event()
                event.set()


def herd_cases(size: int, gate_ms: float) -> Callable[[bool], Iterator[Row]]:
    """Herds of lower tasks woken at once while the critical task is woken every millisecond."""

    def cases(quick: bool) -> Iterator[Row]:
        runs, wakes = (1, 500) if quick else (RUNS, 1500)
        every_s = 0.025 * size / 1000
        for kind in ("ours", "trio.Event", "timers"):
            results = []
            for _ in range(runs if kind == "ours" else min(runs, 3)):
                herd = Herd(kind, size, every_s)
                results.append(trio_delays(0, 200e-6, wakes, load=herd.start))
                if herd.woken < size:
                    raise RuntimeError(f"the herd never ran: {herd.woken} of {size}")
            p50, p99, longest = medians(results)
            case = f"herd of {size:,} every {every_s * 1e3:.0f} ms, {kind}"
            yield Row(case, "p50", p50 * 1e3, "ms")
            yield Row(case, "p99", p99 * 1e3, "ms", gate=gate_ms if kind == "ours" else None)
            yield Row(case, "max", longest * 1e3, "ms")

    return cases


class Told(trio.abc.Instrument):
    """What Trio charges for telling anybody of each scheduled task, whatever is done with it."""

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        pass


def seconds_per_step(priority: TaskPriority | None, tasks: int, steps: int, *, told: bool = False) -> float:
    """Tasks that do nothing but yield: seconds per step, ``priority`` None for plain Trio."""
    done = 0

    async def yielder() -> None:
        nonlocal done
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        done += 1
        if done == tasks:
            finished.set()

    async def run() -> float:
        nonlocal finished
        finished = trio.Event()
        async with gated_or_plain(None if priority is None else 200e-6) as (scheduler, nursery):
            start = perf_counter()
            for _ in range(tasks):
                if scheduler and priority is not None:
                    scheduler.start_soon(priority, yielder)
                else:
                    nursery.start_soon(yielder)
            await finished.wait()
            return perf_counter() - start

    finished = trio.Event()
    with garbage_frozen():
        elapsed = trio.run(run, instruments=[Told()] if told else [])
    return elapsed / (tasks * steps)


def step_cases(quick: bool) -> Iterator[Row]:
    """What the gate adds to a step."""
    runs, steps = (1, 200) if quick else (RUNS, 2000)
    figures: dict[TaskPriority | None, list[float]] = {None: [], TaskPriority.CRITICAL: [], TaskPriority.BACKGROUND: []}
    floor = []
    for _ in range(runs):
        for priority, values in figures.items():
            values.append(seconds_per_step(priority, 100, steps) * 1e6)
        floor.append(seconds_per_step(None, 100, steps, told=True) * 1e6)
    plain = statistics.median(figures[None])
    yield Row("step, 100 tasks, plain Trio", "time", plain, "µs")
    yield Row("step, 100 tasks, plain Trio with an empty Instrument", "added", statistics.median(floor) - plain, "µs")
    for priority, gate, aim in ((TaskPriority.CRITICAL, 0.5, 0.3), (TaskPriority.BACKGROUND, 1.0, 0.7)):
        added = statistics.median(figures[priority]) - plain
        yield Row(f"step, 100 tasks, {priority.name}", "added", added, "µs", baseline=plain, gate=gate, aim=aim)


def seconds_per_spawn(how: str, tasks: int) -> float:
    """Start tasks that end at once, a hundred at a time."""
    ended = 0

    async def child() -> None:
        nonlocal ended
        ended += 1

    async def run() -> float:
        async with gated_or_plain(None if how == "plain" else 200e-6) as (scheduler, nursery):
            start_one: dict[str, Callable[[], object]] = {"plain": lambda: nursery.start_soon(child)}
            if scheduler:
                start_one["CRITICAL"] = lambda: scheduler.start_soon(TaskPriority.CRITICAL, child)
                start_one["BACKGROUND"] = lambda: scheduler.start_soon(TaskPriority.BACKGROUND, child)
                start_one["BACKGROUND, with a handle"] = lambda: scheduler.spawn(TaskPriority.BACKGROUND, child)
            one = start_one[how]
            start = perf_counter()
            for _ in range(tasks // 100):
                for _ in range(100):
                    one()
                await trio.lowlevel.checkpoint()
            while ended < tasks:
                await trio.lowlevel.checkpoint()
            return perf_counter() - start

    with garbage_frozen():
        return trio.run(run) / tasks


def spawn_cases(quick: bool) -> Iterator[Row]:
    runs, tasks = (1, 2000) if quick else (RUNS, 20_000)
    kinds = ("plain", "CRITICAL", "BACKGROUND", "BACKGROUND, with a handle")
    figures: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(runs):
        for kind in kinds:
            figures[kind].append(seconds_per_spawn(kind, tasks) * 1e6)
    plain = statistics.median(figures["plain"])
    yield Row("spawn + exit, plain Trio", "time", plain, "µs")
    for kind in kinds[1:]:
        gate = None if "handle" in kind else 2 * plain
        time_us = statistics.median(figures[kind])
        yield Row(f"spawn + exit, {kind}", "time", time_us, "µs", baseline=plain, gate=gate, aim=1.5 * plain)


def steps_per_second(gated: bool, tasks: int, seconds: float) -> float:
    """Steps of 50 µs that ``tasks`` tasks get done."""
    steps = 0

    async def worker() -> None:
        nonlocal steps
        while True:
            spin(STEP_S)
            steps += 1
            await trio.lowlevel.checkpoint()

    async def run() -> float:
        async with gated_or_plain(200e-6 if gated else None) as (scheduler, nursery):
            for _ in range(tasks):
                if scheduler:
                    scheduler.start_soon(TaskPriority.BACKGROUND, worker)
                else:
                    nursery.start_soon(worker)
            while steps < tasks:
                await trio.sleep(0.01)
            first, start = steps, perf_counter()
            await trio.sleep(seconds)
            return (steps - first) / (perf_counter() - start)

    with garbage_frozen():
        return trio.run(run)


def throughput_cases(quick: bool) -> Iterator[Row]:
    runs, seconds = (1, 0.3) if quick else (RUNS, 1.0)
    plain, gated = [], []
    for _ in range(runs):
        plain.append(steps_per_second(False, 1000, seconds))
        gated.append(steps_per_second(True, 1000, seconds))
    baseline, rate = statistics.median(plain), statistics.median(gated)
    allowed = 0.92 if sys.version_info < (3, 12) else 0.85
    case = "throughput, 1,000 tasks, 50 µs steps"
    yield Row(
        case, "steps", rate, "1/s", baseline=baseline, gate=allowed * baseline, aim=0.94 * baseline, at_most=False
    )


def busy_seconds(tasks_per_lane: Sequence[int], step_s: float, seconds: float) -> list[float]:
    """How many busy seconds each of the four lower lanes gets, all saturated, over ``seconds``."""
    lanes = (TaskPriority.HIGH, TaskPriority.MEDIUM, TaskPriority.LOW, TaskPriority.BACKGROUND)
    spent = dict.fromkeys(lanes, 0)

    async def worker(lane: TaskPriority) -> None:
        while True:
            spin(step_s)
            spent[lane] += 1
            await trio.lowlevel.checkpoint()

    async def run() -> list[float]:
        async with open_scheduler() as scheduler:
            for lane, tasks in zip(lanes, tasks_per_lane, strict=True):
                for _ in range(tasks):
                    scheduler.start_soon(lane, worker, lane)
            await trio.sleep(0.2)
            before = [scheduler.statistics().lanes[lane].busy_s for lane in lanes]
            counted = dict(spent)
            await trio.sleep(seconds)
            after = [scheduler.statistics().lanes[lane].busy_s for lane in lanes]
            if any(spent[lane] == counted[lane] for lane in lanes):
                raise RuntimeError("a lane got nothing at all")
            scheduler.cancel_scope.cancel()
        return [b - a for a, b in zip(before, after, strict=True)]

    with garbage_frozen():
        return trio.run(run)


def shares_cases(quick: bool) -> Iterator[Row]:
    runs, seconds = (1, 0.5) if quick else (RUNS, 1.5)
    weights = (1000, 500, 200, 50)
    for tasks in ((1, 10, 50, 200), (200, 50, 10, 1)):
        results = []
        for _ in range(runs):
            busy = busy_seconds(tasks, 20e-6, seconds)
            results.append([part / sum(busy) for part in busy])
        for index, name in enumerate(("HIGH", "MEDIUM", "LOW", "BACKGROUND")):
            ideal = weights[index] / sum(weights)
            off = abs(statistics.median(result[index] for result in results) / ideal - 1) * 100
            numbers = "/".join(map(str, tasks))
            yield Row(f"shares, {numbers} tasks, {name}", "off the ideal", off, "%", gate=5.0)


def quota_cases(quick: bool) -> Iterator[Row]:
    """A CRITICAL task that never sleeps; each lower lane has ten tasks."""
    seconds = 1.0 if quick else 3.0
    lower = (TaskPriority.HIGH, TaskPriority.MEDIUM, TaskPriority.LOW, TaskPriority.BACKGROUND)

    async def worker() -> None:
        while True:
            spin(20e-6)
            await trio.lowlevel.checkpoint()

    async def run(policy: Any) -> list[float]:
        async with open_scheduler(policy=policy) as scheduler:
            scheduler.start_soon(TaskPriority.CRITICAL, worker)
            for lane in lower:
                for _ in range(10):
                    scheduler.start_soon(lane, worker)
            await trio.sleep(1.2)  # until the rolling second holds nothing of the start
            before = [lane.busy_s for lane in scheduler.statistics().lanes.values()]
            await trio.sleep(seconds)
            after = [lane.busy_s for lane in scheduler.statistics().lanes.values()]
            scheduler.cancel_scope.cancel()
        busy = [b - a for a, b in zip(before, after, strict=True)]
        return [part / sum(busy) * 100 for part in busy]

    for policy in ("shares", "strict"):
        results = [trio.run(run, policy) for _ in range(1 if quick else RUNS)]
        parts = [statistics.median(result[index] for result in results) for index in range(5)]
        case = f"quota, CRITICAL never sleeps, {policy}"
        yield Row(case, "lower lanes together", sum(parts[1:]), "%", gate=4.75, at_most=False, note="promised: 5")
        for lane, part in zip(lower, parts[1:], strict=True):
            if policy == "strict":
                yield Row(f"{case}, {lane.name}", "part", part, "%", gate=0.95, at_most=False, note="promised: 1")
            else:
                yield Row(f"{case}, {lane.name}", "part", part, "%")


def blocking_p99(gated: bool, calls: int, function: Callable[[], object] = lambda: None) -> float:
    """A blocking call beside 100 saturated BACKGROUND tasks, seconds."""

    async def run() -> float:
        async with gated_or_plain(200e-6 if gated else None) as (scheduler, nursery):
            await start_background(scheduler, nursery, 100)
            waits = []
            for _ in range(calls):
                start = perf_counter()
                if scheduler:
                    await scheduler.run_blocking(function)
                else:
                    await trio.to_thread.run_sync(function)
                waits.append(perf_counter() - start)
                await trio.sleep(0.001)
            return percentile(sorted(waits), 0.99)

    with garbage_frozen():
        return trio.run(run)


def blocking_cases(quick: bool) -> Iterator[Row]:
    runs, calls = (1, 30) if quick else (RUNS, 100)
    plain = statistics.median(blocking_p99(False, 30) for _ in range(1 if quick else 3)) * 1e3
    gated = statistics.median(blocking_p99(True, calls) for _ in range(runs)) * 1e3
    yield Row("blocking call beside 100 BACKGROUND tasks", "p99", gated, "ms", baseline=plain, gate=50.0)


def numpy_cases(quick: bool) -> Iterator[Row]:
    """Critical delays beside NumPy work in threads that releases the GIL, and without it."""
    import numpy

    runs, wakes = (1, 300) if quick else (RUNS, 1000)
    matrix = numpy.random.default_rng(1).random((400, 400))

    def work() -> None:
        for _ in range(10):
            numpy.sqrt(matrix @ matrix)

    async def load(scheduler: Scheduler | None, nursery: trio.Nursery) -> None:
        async def work_on() -> None:
            while True:
                assert scheduler
                await scheduler.run_blocking(work, priority=TaskPriority.BACKGROUND)

        assert scheduler
        scheduler.start_soon(TaskPriority.BACKGROUND, work_on)

    without, beside = [], []
    for _ in range(runs):
        without.append(trio_delays(0, 200e-6, wakes))
        beside.append(trio_delays(0, 200e-6, wakes, load=load))
    baseline, p99 = medians(without)[1] * 1e6, medians(beside)[1] * 1e6
    yield Row("numpy in run_blocking, critical", "p99", p99, "µs", baseline=baseline, gate=2 * baseline)


def max_case(quick: bool) -> Iterator[Row]:
    """The longest delay of a minute at N = 10,000 with collection frozen, beside that of N = 0."""
    wakes = 2000 if quick else 60_000
    noise = trio_delays(0, 200e-6, wakes, freeze_gc=True)
    loaded = trio_delays(10_000, 200e-6, wakes, freeze_gc=True)
    case = f"max over {wakes // 1000} s, N = 10,000, freeze_gc"
    aim = (noise.longest + 3 * 200e-6) * 1e6
    yield Row(case, "max", loaded.longest * 1e6, "µs", baseline=noise.longest * 1e6, aim=aim, note="baseline: N = 0")
    yield Row(case, "p99", loaded.p99 * 1e6, "µs", baseline=noise.p99 * 1e6)


CASES: dict[str, Callable[[bool], Iterator[Row]]] = {
    "wake, quantum 200": wake_cases(200),
    "wake, quantum 100": wake_cases(100),
    "wake, quantum 50": wake_cases(50),
    "wake, others": wake_others_cases,
    "huge": huge_case,
    "herd of 1,000": herd_cases(1000, 0.5),
    "herd of 10,000": herd_cases(10_000, 2.0),
    "step": step_cases,
    "spawn": spawn_cases,
    "throughput": throughput_cases,
    "shares": shares_cases,
    "quota": quota_cases,
    "blocking": blocking_cases,
    "numpy": numpy_cases,
    "max": max_case,
}


def cases(quick: bool) -> Iterator[Row]:
    """All cases, or those whose word is on the command line; the long ones only by their word."""
    arguments = sys.argv[1:]
    asked = arguments[arguments.index("--only") + 1] if "--only" in arguments else ""
    for word, case in CASES.items():
        if asked.startswith(word) or (asked and word.startswith(asked)) or (not asked and (quick or word != "max")):
            yield from case(quick)


if __name__ == "__main__":
    raise SystemExit(main("scheduler", cases))
