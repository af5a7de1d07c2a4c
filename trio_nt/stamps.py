"""How long the stages took: durations between the stamps t0–t8, kept for the report. Statistics only.

Stamps: t0 scheduled send or socket read · t1 in the ring · t2 features · t3 signal returned · t4 approved ·
t5 journalled · t6 last byte of the request · t7 acknowledged · t8 fill booked.

Every value is kept, in arrays made beforehand, up to a stated capacity for each stage; percentiles are then recorded
values (nearest rank). A longer run folds the stage into a histogram whose buckets are at most 1/128 of their value
wide: memory stays bounded, no value is dropped, and the percentiles are the upper edges of their buckets, never too
good. The maximum and the count stay exact. Which of the two holds is in ``LatencyRow.exact``.
"""

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from trio_nt.report import LatencyRow

INGESTION = "ingestion"
FRAME = "frame"
FEATURES = "features"
SIGNAL = "signal"
RISK = "risk"
SUBMISSION = "submission"
EXECUTION = "execution"
END_TO_END = "end to end"

MILLISECOND = 1_000_000


@attrs.frozen
class StageBounds:
    """How a stage is named in the report, and its p99 target and greatest acceptable p99, None where none is set."""

    label: str
    target_ns: int | None = None
    limit_ns: int | None = None


# Source of the bounds: the seed, "P99 Latency Targets" (execution: none, its p50 target is 50 ms).
STAGES: Mapping[str, StageBounds] = {
    INGESTION: StageBounds("ingestion (t1 - t0)", 1 * MILLISECOND, 5 * MILLISECOND),
    FRAME: StageBounds("frame of 1,000 rows", 5 * MILLISECOND, 10 * MILLISECOND),
    FEATURES: StageBounds("features (t2 - t1)", 10 * MILLISECOND, 50 * MILLISECOND),
    SIGNAL: StageBounds("signal (t3 - t2)", 50 * MILLISECOND, 200 * MILLISECOND),
    RISK: StageBounds("risk (t4 - t3)", 10 * MILLISECOND, 50 * MILLISECOND),
    SUBMISSION: StageBounds("submission (t7 - t4)", 100 * MILLISECOND, 500 * MILLISECOND),
    EXECUTION: StageBounds("execution (t8 - t4)"),
    END_TO_END: StageBounds("end to end (t6 - t0)", 200 * MILLISECOND, 1000 * MILLISECOND),
}

DEFAULT_CAPACITY = 262_144  # 20 s at 10,000 events/s one by one, 3 MiB a stage

_SUB_BITS = 7
_SUB_BUCKETS = 1 << _SUB_BITS
_BUCKETS = (64 - _SUB_BITS) * _SUB_BUCKETS

Int64Array = NDArray[np.int64]


def bucket_of(durations: Int64Array) -> Int64Array:
    """The histogram bucket of each duration, shape (n,): exact below 128 ns, then 128 buckets for each doubling."""
    values = np.maximum(durations, 0)
    bit_length = np.frexp(values.astype(np.float64))[1].astype(np.int64)
    shift = np.maximum(bit_length - 1 - _SUB_BITS, 0)
    buckets: Int64Array = np.minimum((shift << _SUB_BITS) + (values >> shift), _BUCKETS - 1)
    return buckets


def upper_edge(bucket: int) -> int:
    """The greatest duration that falls into ``bucket``."""
    shift = max((bucket >> _SUB_BITS) - 1, 0)
    return ((bucket - (shift << _SUB_BITS) + 1) << shift) - 1


class StageRecorder:
    """Durations of one stage. Not thread-safe: one task writes, reading copies nothing and may come at any time."""

    __slots__ = ("_capacity", "_counts", "_counts_view", "_durations", "_durations_view", "_histogram", "_max", "_used")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, was {capacity}")
        self._capacity = capacity
        self._durations: Int64Array = np.empty(capacity, np.int64)
        self._counts: Int64Array = np.empty(capacity, np.int64)
        # Writing through a memoryview costs a third of writing to the array.
        self._durations_view: Any = memoryview(self._durations)  # type: ignore[arg-type]
        self._counts_view: Any = memoryview(self._counts)  # type: ignore[arg-type]
        self._used = 0
        self._max = 0
        self._histogram: Int64Array | None = None

    def record(self, duration_ns: int, count: int = 1) -> None:
        """Keep one duration that ``count`` things shared (the events of a batch); ``count`` 0 keeps nothing."""
        if count <= 0:
            return
        if self._used == self._capacity:
            self._fold()
        self._durations_view[self._used] = duration_ns
        self._counts_view[self._used] = count
        self._used += 1

    def record_many(self, durations_ns: Int64Array) -> None:
        """Keep one duration for each thing, shape (n,), int64."""
        start, total = 0, len(durations_ns)
        while start < total:
            if self._used == self._capacity:
                self._fold()
            taken = min(total - start, self._capacity - self._used)
            self._durations[self._used : self._used + taken] = durations_ns[start : start + taken]
            self._counts[self._used : self._used + taken] = 1
            self._used += taken
            start += taken

    def row(self, name: str, target_ns: int | None = None, limit_ns: int | None = None) -> LatencyRow | None:
        """The percentiles of what was recorded so far, weighted by count; None where nothing was."""
        durations, counts = self._durations[: self._used], self._counts[: self._used]
        exact = self._histogram is None
        if not exact:
            self._fold()
            assert self._histogram is not None
            filled = np.flatnonzero(self._histogram)
            durations = np.array([min(upper_edge(int(bucket)), self._max) for bucket in filled], np.int64)
            counts = self._histogram[filled]
        if not len(durations):
            return None
        p50, p99, p999 = percentiles(durations, counts, (500, 990, 999))
        greatest = int(durations.max()) if exact else self._max
        return LatencyRow(name, int(counts.sum()), p50, p99, p999, greatest, target_ns, limit_ns, exact)

    def _fold(self) -> None:
        if self._histogram is None:
            self._histogram = np.zeros(_BUCKETS, np.int64)
        if self._used:
            durations = self._durations[: self._used]
            np.add.at(self._histogram, bucket_of(durations), self._counts[: self._used])
            self._max = max(self._max, int(durations.max()))
            self._used = 0


def percentiles(durations: Int64Array, counts: Int64Array, per_mille: tuple[int, ...]) -> list[int]:
    """Recorded values by nearest rank, ceil(n × fraction), each duration counted ``counts`` times; n above 0."""
    order = np.argsort(durations, kind="stable")
    cumulative = np.cumsum(counts[order])
    total = int(cumulative[-1])
    ranks = [max(-(-total * fraction // 1000), 1) for fraction in per_mille]
    return [int(durations[order[int(np.searchsorted(cumulative, rank))]]) for rank in ranks]


class StageClock:
    """The recorders of a run's stages.

    ``stamps.record(RISK, duration_ns)`` from anywhere; a loop that records often takes its ``stage(name)`` once.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self._capacity = capacity
        self._stages: dict[str, StageRecorder] = {}

    def stage(self, name: str) -> StageRecorder:
        """The recorder of one stage; KeyError for a name that is not in ``STAGES``."""
        recorder = self._stages.get(name)
        if recorder is None:
            if name not in STAGES:
                raise KeyError(f"unknown stage {name!r}; known: {', '.join(STAGES)}")
            recorder = self._stages[name] = StageRecorder(self._capacity)
        return recorder

    def record(self, name: str, duration_ns: int, count: int = 1) -> None:
        self.stage(name).record(duration_ns, count)

    def record_many(self, name: str, durations_ns: Int64Array) -> None:
        self.stage(name).record_many(durations_ns)

    def rows(self) -> list[LatencyRow]:
        """One row for each stage that recorded something, in the order of the route."""
        rows = [
            self._stages[name].row(bounds.label, bounds.target_ns, bounds.limit_ns)
            for name, bounds in STAGES.items()
            if name in self._stages
        ]
        return [row for row in rows if row is not None]
