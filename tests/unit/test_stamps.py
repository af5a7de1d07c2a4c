"""Durations are kept whole up to the capacity, then in buckets that never flatter."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_nt.stamps import RISK, SIGNAL, STAGES, StageClock, StageRecorder, bucket_of, upper_edge

DURATIONS = st.integers(0, 10**12)


def nearest_rank(values: list[int], per_mille: int) -> int:
    return sorted(values)[max(math.ceil(len(values) * per_mille / 1000), 1) - 1]


@given(st.lists(st.tuples(DURATIONS, st.integers(0, 20)), max_size=60))
def test_percentiles_are_recorded_values_at_the_nearest_rank(records: list[tuple[int, int]]) -> None:
    recorder = StageRecorder(capacity=60)
    for duration, count in records:
        recorder.record(duration, count)
    every = [duration for duration, count in records for _ in range(count)]
    row = recorder.row("x")
    if not every:
        assert row is None
        return
    assert row is not None
    assert row.exact
    assert row.count == len(every)
    assert (row.p50_ns, row.p99_ns, row.p999_ns) == tuple(nearest_rank(every, p) for p in (500, 990, 999))
    assert row.max_ns == max(every)


@given(st.lists(DURATIONS, min_size=1, max_size=80), st.integers(1, 10))
def test_a_full_recorder_goes_on_in_buckets(durations: list[int], capacity: int) -> None:
    one_by_one, at_once = StageRecorder(capacity), StageRecorder(capacity)
    for duration in durations:
        one_by_one.record(duration)
    at_once.record_many(np.array(durations, np.int64))
    row = one_by_one.row("x")
    assert row == at_once.row("x") == one_by_one.row("x")
    assert row is not None
    assert row.exact is (len(durations) <= capacity)
    assert row.count == len(durations)
    assert row.max_ns == max(durations)
    for shown, per_mille in ((row.p50_ns, 500), (row.p99_ns, 990), (row.p999_ns, 999)):
        true = nearest_rank(durations, per_mille)
        assert true <= shown <= true + true / 128


@given(st.integers(0, 2**63 - 1))
def test_a_bucket_holds_its_values(duration: int) -> None:
    bucket = int(bucket_of(np.array([duration]))[0])
    assert (upper_edge(bucket - 1) if bucket else -1) < duration <= upper_edge(bucket)


def test_rows_come_in_the_order_of_the_route_with_the_bounds() -> None:
    stamps = StageClock()
    stamps.record(RISK, 5)
    stamps.record_many(SIGNAL, np.array([1, 2, 3]))
    stamps.stage("execution")
    rows = stamps.rows()
    assert [row.name for row in rows] == [STAGES[SIGNAL].label, STAGES[RISK].label]
    assert [(row.target_ns, row.limit_ns) for row in rows] == [(50_000_000, 200_000_000), (10_000_000, 50_000_000)]
    assert [row.count for row in rows] == [3, 1]


def test_an_unknown_stage_is_named() -> None:
    with pytest.raises(KeyError, match="unknown stage 'rsik'; known: ingestion, "):
        StageClock().record("rsik", 1)
