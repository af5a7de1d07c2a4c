"""What an operation took, for Prometheus: ``operation_duration_seconds{operation}``.

The only importer of prometheus_client, and only when the first duration is observed: ``import trio_nt`` stays quick.
The process's default registry is used, as every exporter expects; several engines share one metric there.
"""

import functools
import inspect
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

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
