"""For Prometheus: what an operation took (``operation_duration_seconds{operation}``), and what an engine counts.

The only importer of prometheus_client, and only when something is to be shown: ``import trio_nt`` stays quick. The
process's default registry is used, as every exporter expects; several engines share its metrics, told apart by name.
"""

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

P = ParamSpec("P")
R = TypeVar("R")

METRIC = "operation_duration_seconds"
# Source: the seed, "Performance Monitoring".
BUCKETS_S = (0.0001, 0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0)


@functools.cache
def operation_duration() -> Any:
    """The histogram, made on first use: ``operation_duration().labels(operation=...).observe(seconds)``."""
    from prometheus_client import Histogram

    return Histogram(METRIC, "Duration of operations", ["operation"], buckets=BUCKETS_S)


@functools.cache
def _observer(operation: str) -> Callable[[float], None]:
    # A label lookup takes a lock; one for each operation's name is enough.
    observe: Callable[[float], None] = operation_duration().labels(operation=operation).observe
    return observe


class PerformanceTimer:
    """Measure an operation into ``operation_duration_seconds{operation}``.

    A context manager (plain ``with``, around awaits too) and a decorator for plain and async functions. One timer may
    be nested in itself and used again; a block or call that raises is measured as well. Two tasks share a timer only
    as a decorator: each call then measures on its own.

        with PerformanceTimer("signal_processing"):
            ...

        @PerformanceTimer("risk")
        async def check(signal): ...

    Raises:
        ValueError: ``operation`` is empty.
    """

    __slots__ = ("_starts", "operation")

    def __init__(self, operation: str) -> None:
        if not operation:
            raise ValueError("operation must not be empty")
        self.operation = operation
        self._starts: list[int] = []

    def __enter__(self) -> "PerformanceTimer":
        self._starts.append(time.perf_counter_ns())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _observe(self.operation, self._starts.pop())

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        operation = self.operation
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(f"{function.__qualname__} is a generator: its call returns before it runs")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def timed_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                start = time.perf_counter_ns()
                try:
                    return await function(*args, **kwargs)
                finally:
                    _observe(operation, start)

            return timed_async  # type: ignore[return-value]

        @functools.wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            start = time.perf_counter_ns()
            try:
                return function(*args, **kwargs)
            finally:
                _observe(operation, start)

        return timed


def _observe(operation: str, start_ns: int) -> None:
    _observer(operation)((time.perf_counter_ns() - start_ns) / 1e9)


# State of a strategy, one sample for each state: 1 for the one it is in. Source: Prometheus' own StateSet.
STATES = ("running", "stopped", "failed", "restarting", "quarantined")
# Metric → attribute of ``StrategyStatistics``, kind, help.
_OF_STRATEGIES = {
    "trio_nt_strategy_rows": ("rows", "counter", "Market events shown to a strategy"),
    "trio_nt_strategy_proposals": ("proposed", "counter", "Actions of a strategy on their way to risk or beyond"),
    "trio_nt_strategy_restarts": ("restarts", "counter", "How often a strategy was started again"),
    "trio_nt_strategy_overruns": ("overruns", "counter", "Steps of a strategy that were longer than its budget"),
    "trio_nt_strategy_refused_by_rate": ("refused_by_rate", "counter", "Orders refused because there were too many"),
    "trio_nt_strategy_slowest_step_seconds": ("slowest_step_s", "gauge", "The longest step of a strategy"),
    "trio_nt_strategy_state_bytes": ("state_bytes", "gauge", "Size of the last saved state"),
    "trio_nt_strategy_lane": ("lane", "gauge", "The lane a strategy runs in, 0 for CRITICAL to 4 for BACKGROUND"),
}
# Metric → attribute of ``EngineStatistics``, help.
_OF_ENGINES = {
    "trio_nt_market_events": ("rows", "Quotes and trades"),
    "trio_nt_flagged_events": ("flagged", "Market events with bad prices or sizes"),
    "trio_nt_bars": ("bars", "Bars"),
    "trio_nt_proposals": ("proposals", "Actions that risk has decided on"),
    "trio_nt_orders_approved": ("approved", "Orders that risk has approved"),
    "trio_nt_refusals": ("refused", "Actions that risk has refused"),
    "trio_nt_fills": ("fills", "Executions booked"),
}
# Metric → attribute of ``CacheStatistics``, kind, help.
_OF_FEATURE_CACHES = {
    "trio_nt_feature_cache_lookups": ("lookups", "counter", "Reads of features by hosts and dashboards"),
    "trio_nt_feature_cache_hits": ("hits", "counter", "Reads that found their history"),
    "trio_nt_feature_cache_evictions": ("evictions", "counter", "Histories given up for room"),
    "trio_nt_feature_cache_hit_rate": ("hit_rate", "gauge", "Share of reads that found their history, 0 to 1"),
    "trio_nt_feature_cache_bytes": ("bytes", "gauge", "Memory of the histories"),
}


class EngineMetrics:
    """One engine's counters in a Prometheus registry, under the label ``engine``.

    Exporters read from threads of their own, an engine belongs to its Trio thread. So whoever runs the engine calls
    ``show`` now and then, and exporters get what was shown last. ``with`` or ``close`` takes the engine out again.

        with EngineMetrics("paper") as metrics:
            while True:
                metrics.show(engine.statistics())
                await trio.sleep(1)

    Args:
        engine: a name, unique in the registry.
        registry: None for the process's default one.
    """

    def __init__(self, engine: str, *, registry: Any = None) -> None:
        from prometheus_client import REGISTRY

        self._engine = engine
        self._shown: Any = None
        self._registry = REGISTRY if registry is None else registry
        _engines(self._registry).add(self)

    def show(self, statistics: Any) -> None:
        """Show an ``EngineStatistics``. Not a checkpoint."""
        self._shown = statistics

    def close(self) -> None:
        """Take the engine out of the registry. Closing twice does nothing."""
        _engines(self._registry).discard(self)

    def __enter__(self) -> "EngineMetrics":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        return self._engine

    @property
    def shown(self) -> Any:
        return self._shown


class _Engines:
    """The collector of all engines in one registry: a registry takes each metric from one collector alone."""

    def __init__(self) -> None:
        self._metrics: dict[str, EngineMetrics] = {}

    def add(self, metrics: EngineMetrics) -> None:
        if metrics.name in self._metrics:
            raise ValueError(f"metrics of an engine {metrics.name!r} are there already: give each engine a name")
        self._metrics = self._metrics | {metrics.name: metrics}  # replaced as a whole: threads iterate over it

    def discard(self, metrics: EngineMetrics) -> None:
        self._metrics = {name: each for name, each in self._metrics.items() if each is not metrics}

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        shown = [(name, each.shown) for name, each in self._metrics.items() if each.shown is not None]
        family: Any
        for metric, (attribute, text) in _OF_ENGINES.items():
            family = CounterMetricFamily(metric, text, labels=["engine"])
            for name, statistics in shown:
                family.add_metric([name], getattr(statistics, attribute))
            yield family
        for metric, (attribute, kind, text) in _OF_FEATURE_CACHES.items():
            family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(metric, text, labels=["engine"])
            for name, statistics in shown:
                family.add_metric([name], getattr(statistics.feature_cache, attribute))
            yield family
        for metric, (attribute, kind, text) in _OF_STRATEGIES.items():
            make = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
            family = make(metric, text, labels=["engine", "strategy"])
            for name, statistics in shown:
                for strategy_id, counts in statistics.supervision.items():
                    family.add_metric([name, strategy_id], getattr(counts, attribute))
            yield family
        labels = ["engine", "strategy", "state"]
        family = GaugeMetricFamily("trio_nt_strategy_state", "1 for the state a strategy is in", labels=labels)
        for name, statistics in shown:
            for strategy_id, counts in statistics.supervision.items():
                for state in STATES:
                    family.add_metric([name, strategy_id, state], float(counts.state == state))
        yield family

    def describe(self) -> list[Any]:
        return list(self.collect())


_BY_REGISTRY: "WeakKeyDictionary[Any, _Engines]" = WeakKeyDictionary()


def _engines(registry: Any) -> _Engines:
    engines = _BY_REGISTRY.get(registry)
    if engines is None:
        engines = _BY_REGISTRY[registry] = _Engines()
        registry.register(engines)
    return engines
