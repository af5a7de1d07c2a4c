"""Rejected design: a Trio loop of its own for the critical task, in a second thread.

    python -m benchmarks.alternatives.loop_per_thread [--quick] [--json FILE]

The two loops share the GIL: the critical one, once woken, waits until the other gives it up. At the default switch
interval of 5 ms that takes milliseconds; at a short one both loops pay for the switching.
"""

import sys
import threading
from collections.abc import Iterator

import trio

from benchmarks.harness import RUNS, Row, main
from benchmarks.scheduler import Delays, background, collect_delays, garbage_frozen, medians, waker


def run_once(tasks: int, wakes: int) -> Delays:
    async def crowd(stop: threading.Event) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(background)
            while not stop.is_set():
                await trio.sleep(0)
            nursery.cancel_scope.cancel()

    stop = threading.Event()
    thread = threading.Thread(target=trio.run, args=(crowd, stop))
    with garbage_frozen(), waker(wakes) as read_fd:
        thread.start()
        try:
            return trio.run(collect_delays, read_fd, wakes)
        finally:
            stop.set()
            thread.join()


def cases(quick: bool) -> Iterator[Row]:
    runs, wakes = (1, 300) if quick else (RUNS, 1000)
    before = sys.getswitchinterval()
    try:
        for interval_s in (5e-3, 50e-6):
            sys.setswitchinterval(interval_s)
            p50, p99, _ = medians([run_once(1000, wakes) for _ in range(runs)])
            case = f"loop per thread, N = 1,000, switch interval {interval_s * 1e6:.0f} µs"
            yield Row(case, "p50", p50 * 1e6, "µs")
            yield Row(case, "p99", p99 * 1e6, "µs")
    finally:
        sys.setswitchinterval(before)


if __name__ == "__main__":
    raise SystemExit(main("alternatives.loop_per_thread", cases))
