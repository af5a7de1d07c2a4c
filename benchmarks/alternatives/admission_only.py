"""Rejected design: limit how many tasks are admitted, most urgent first, and leave their steps to Trio.

    python -m benchmarks.alternatives.admission_only [--quick] [--json FILE]

Long-lived tasks never give their place up. With K = 64 places and N = 1,000 background tasks, 936 of them never take a
step; and the critical task still waits for up to 64 steps of the admitted ones.
"""

import statistics
from collections.abc import Iterator

import trio

from benchmarks.harness import RUNS, Row, main
from benchmarks.scheduler import STEP_S, collect_delays, garbage_frozen, medians, spin, waker

PLACES = 64


def run_once(tasks: int, wakes: int) -> tuple[object, int]:
    served: set[int] = set()

    async def background(number: int, places: trio.Semaphore) -> None:
        async with places:
            while True:
                served.add(number)
                spin(STEP_S)
                await trio.lowlevel.checkpoint()

    async def run(read_fd: int) -> object:
        places = trio.Semaphore(PLACES)
        async with trio.open_nursery() as nursery:
            for number in range(tasks):
                nursery.start_soon(background, number, places)
            delays = await collect_delays(read_fd, wakes)
            nursery.cancel_scope.cancel()
        return delays

    with garbage_frozen(), waker(wakes) as read_fd:
        return trio.run(run, read_fd), len(served)


def cases(quick: bool) -> Iterator[Row]:
    runs, wakes = (1, 300) if quick else (RUNS, 1000)
    results = [run_once(1000, wakes) for _ in range(runs)]
    _, p99, _ = medians([delays for delays, _ in results])  # type: ignore[misc]
    case = f"admission only, {PLACES} places, N = 1,000"
    yield Row(case, "p99", p99 * 1e6, "µs")
    yield Row(case, "tasks never served", 1000 - statistics.median(served for _, served in results), "tasks")


if __name__ == "__main__":
    raise SystemExit(main("alternatives.admission_only", cases))
