"""The timer's durations reach the histogram, whatever way it is used."""

import inspect
import subprocess
import sys
from typing import Any

import attrs
import prometheus_client
import pytest
import trio
import trio.testing

from scheduler import TaskPriority
from trio_nt.engine_config import EngineStatistics
from trio_nt.features.cache import CacheStatistics
from trio_nt.metrics import (
    _OF_ENGINES,
    _OF_STRATEGIES,
    BUCKETS_S,
    STATES,
    EngineMetrics,
    PerformanceTimer,
    operation_duration,
)
from trio_nt.strategies.supervised import StrategyStatistics


def observed(operation: str) -> float:
    value = prometheus_client.REGISTRY.get_sample_value("operation_duration_seconds_count", {"operation": operation})
    return value or 0.0


def test_the_buckets_are_the_seeds() -> None:
    with PerformanceTimer("buckets"):
        pass
    (metric,) = operation_duration().collect()
    edges = [
        sample.labels["le"]
        for sample in metric.samples
        if sample.name.endswith("_bucket") and sample.labels["operation"] == "buckets"
    ]
    assert edges == ["0.0001", "0.001", "0.01", "0.1", "0.5", "1.0", "5.0", "10.0", "+Inf"]
    assert BUCKETS_S == (0.0001, 0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0)


def test_a_block_is_measured_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1_000_000_000, 3_500_000_000])
    monkeypatch.setattr("trio_nt.metrics.time.perf_counter_ns", lambda: next(times))
    with PerformanceTimer("in seconds"):
        pass
    total = prometheus_client.REGISTRY.get_sample_value("operation_duration_seconds_sum", {"operation": "in seconds"})
    assert total == 2.5


def test_a_timer_nests_in_itself_and_is_used_again() -> None:
    timer = PerformanceTimer("nested")
    with timer, timer:
        pass
    with timer:
        pass
    assert observed("nested") == 3


def test_a_block_that_raises_is_measured() -> None:
    with pytest.raises(KeyError), PerformanceTimer("raising"):
        raise KeyError("x")
    assert observed("raising") == 1


def test_a_function_is_measured_and_keeps_its_name() -> None:
    @PerformanceTimer("function")
    def double(x: int) -> int:
        return 2 * x

    assert (double(2), double(x=3)) == (4, 6)
    assert double.__name__ == "double"
    assert observed("function") == 2


def test_a_recursive_function_is_measured_for_each_call() -> None:
    @PerformanceTimer("recursive")
    def factorial(n: int) -> int:
        return n * factorial(n - 1) if n else 1

    assert factorial(4) == 24
    assert observed("recursive") == 5


async def test_calls_of_an_async_function_overlap(autojump_clock: trio.testing.MockClock) -> None:
    @PerformanceTimer("async")
    async def wait(seconds: float) -> None:
        await trio.sleep(seconds)

    assert inspect.iscoroutinefunction(wait)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, 2)
        nursery.start_soon(wait, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert observed("async") == 0
    assert observed("async") == 2


async def test_a_cancelled_call_is_measured() -> None:
    @PerformanceTimer("cancelled")
    async def forever() -> None:
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        scope.cancel()
        await forever()
    assert scope.cancelled_caught
    assert observed("cancelled") == 1


def test_a_generator_is_refused() -> None:
    with pytest.raises(TypeError, match="is a generator"):

        @PerformanceTimer("generator")
        def numbers() -> object:
            yield 1


def test_an_operation_needs_a_name() -> None:
    with pytest.raises(ValueError, match="operation must not be empty"):
        PerformanceTimer("")


def test_the_module_imports_no_exporter() -> None:
    program = "import sys, trio_nt.metrics; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def strategy(**counts: Any) -> StrategyStatistics:
    given: dict[str, Any] = {
        "state": "running", "lane": TaskPriority.HIGH, "rows": 1, "signals": 0, "proposed": 0, "restarts": 0,
        "slowest_step_s": 0.5, "overruns": 0, "refused_by_rate": 0, "state_bytes": 0, "state_saved_ns": 0,
        "failure": "", "traceback": "", "warnings": (),
    }  # fmt: skip
    return StrategyStatistics(**given | counts)


class Counts:
    """An engine's statistics, as far as they are shown."""

    def __init__(self, rows: int, **strategies: StrategyStatistics) -> None:
        self.rows, self.supervision = rows, strategies
        self.feature_cache = CacheStatistics(lookups=4, hits=3, misses=1, evictions=0, rings=1, bytes=160)
        self.flagged = self.bars = self.proposals = self.approved = self.refused = self.fills = 0


def test_engines_show_their_strategies_side_by_side() -> None:
    registry = prometheus_client.CollectorRegistry()
    read = registry.get_sample_value
    with EngineMetrics("one", registry=registry) as one, EngineMetrics("other", registry=registry) as other:
        assert read("trio_nt_market_events_total", {"engine": "one"}) is None
        one.show(Counts(7, a=strategy(state="quarantined", restarts=2), b=strategy(lane=TaskPriority.LOW)))
        other.show(Counts(9, a=strategy(rows=5)))
        assert read("trio_nt_market_events_total", {"engine": "one"}) == 7
        assert read("trio_nt_market_events_total", {"engine": "other"}) == 9
        of_a = {"engine": "one", "strategy": "a"}
        assert read("trio_nt_strategy_restarts_total", of_a) == 2
        states = {state: read("trio_nt_strategy_state", of_a | {"state": state}) for state in STATES}
        assert states == dict.fromkeys(STATES, 0.0) | {"quarantined": 1.0}
        assert read("trio_nt_strategy_lane", {"engine": "one", "strategy": "b"}) == 3
        assert read("trio_nt_strategy_rows_total", {"engine": "other", "strategy": "a"}) == 5
        assert read("trio_nt_feature_cache_lookups_total", {"engine": "one"}) == 4
        assert read("trio_nt_feature_cache_hit_rate", {"engine": "other"}) == 0.75
        assert read("trio_nt_feature_cache_bytes", {"engine": "other"}) == 160
        with pytest.raises(ValueError, match="an engine 'one' are there already"):
            EngineMetrics("one", registry=registry)
    assert read("trio_nt_market_events_total", {"engine": "one"}) is None
    one.close()
    with EngineMetrics("one", registry=registry) as again:
        again.show(Counts(1))
        assert read("trio_nt_market_events_total", {"engine": "one"}) == 1


def test_every_counter_of_an_engine_that_is_shown_exists() -> None:
    names = {field.name for field in attrs.fields(StrategyStatistics)}
    assert {attribute for attribute, _, _ in _OF_STRATEGIES.values()} <= names
    assert {attribute for attribute, _ in _OF_ENGINES.values()} <= {
        field.name for field in attrs.fields(EngineStatistics)
    }
