"""Frozen snapshots of what the scheduler counted, and the histogram behind them."""

from collections.abc import Mapping

import attrs

from scheduler.lanes import TaskPriority

_SUB_BITS = 4  # 16 buckets an octave: a percentile is at most 6 % too high
_BUCKETS = 64 << _SUB_BITS


@attrs.frozen
class Timing:
    """A distribution of durations, in seconds: how many, the median, the 99th percentile and the longest.

    Percentiles are the upper edge of a log-linear bucket (at most 6 % too high), ``max`` is exact; all 0.0 when
    ``count`` is 0.
    """

    count: int
    p50: float
    p99: float
    max: float


class Histogram:
    """Durations in log-linear buckets: adding one costs a quarter of a microsecond, memory is fixed."""

    __slots__ = ("_counts", "count", "max_s")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.max_s = 0.0

    def add(self, duration_s: float) -> None:
        """Count one duration; a negative one (a clock that stepped back) counts as 0."""
        nanoseconds = int(duration_s * 1e9)
        shift = nanoseconds.bit_length() - _SUB_BITS - 1
        if shift <= 0:
            self._counts[nanoseconds if nanoseconds > 0 else 0] += 1
        else:
            self._counts[(shift << _SUB_BITS) + (nanoseconds >> shift)] += 1
        self.count += 1
        if duration_s > self.max_s:
            self.max_s = duration_s

    def percentile(self, fraction: float) -> float:
        """The upper edge, in seconds, of the bucket in which ``fraction`` of the durations is reached."""
        wanted = max(1, int(self.count * fraction))
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                return min(self.max_s, _upper_edge_s(index))
        return self.max_s

    def snapshot(self) -> Timing:
        if not self.count:
            return Timing(0, 0.0, 0.0, 0.0)
        return Timing(self.count, self.percentile(0.5), self.percentile(0.99), self.max_s)


def _upper_edge_s(index: int) -> float:
    shift = (index >> _SUB_BITS) - 1
    if shift <= 0:
        return (index + 1) * 1e-9
    mantissa = index - (shift << _SUB_BITS)
    return float((mantissa + 1) << shift) * 1e-9


@attrs.frozen(kw_only=True)
class LaneStatistics:
    """What one lane did since its gate opened.

    Attributes:
        tasks: tasks alive in the lane now.
        depth: of these, waiting at the gate now.
        spawned: tasks started in the lane, children that followed their parent included.
        steps: steps taken.
        busy_s: seconds spent in steps.
        forced_yields: how often a task had to give way: sent back at the gate because the quantum was used up or a
            preferred lane became ready, or yielding in ``checkpoint_if_needed``.
        overruns: steps that took longer than the quantum, each a violation of the bound.
        stalls: steps longer than ``stall_after_s``.
        thread_wakes: wakes through our own primitives and ``run_blocking`` that came from another thread.
        wake_to_run: from being woken to running; every wake in CRITICAL, one in 16 elsewhere. A task that merely
            yields is not woken.
        step_time: one step in 16.
        submitted_running, submitted_waiting: of the tasks given to ``submit``.
        blocking_threads, blocking_waiting: threads the lane holds, and calls waiting for one.
    """

    tasks: int
    depth: int
    spawned: int
    steps: int
    busy_s: float
    forced_yields: int
    overruns: int
    stalls: int
    thread_wakes: int
    wake_to_run: Timing
    step_time: Timing
    submitted_running: int
    submitted_waiting: int
    blocking_threads: int
    blocking_waiting: int


@attrs.frozen(kw_only=True)
class SchedulerStatistics:
    """A snapshot of a gate and its lanes.

    Attributes:
        lanes: one entry per lane, CRITICAL first.
        ticks: passes of Trio's loop since the gate opened.
        gate_open: True when nothing is gated any more: the block closed, or the Instrument was lost.
        instrument_lost: how often the gate failed open because its Instrument was gone; 0 or 1.
        last_stall: where the last reported stall stood (task, lane, file, line), or "".
        blocking_calls: blocking calls finished.
        collections: garbage collections made by ``freeze_gc``'s own task.
    """

    lanes: Mapping[TaskPriority, LaneStatistics]
    ticks: int
    gate_open: bool
    instrument_lost: int
    last_stall: str
    blocking_calls: int
    collections: int
