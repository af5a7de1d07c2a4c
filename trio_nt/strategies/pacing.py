"""Waiting together, and measuring the steps of what waits in between."""

import time
from collections.abc import Awaitable, Generator
from typing import Any

import trio

from trio_nt.strategies.runner import Steps


class Linger:
    """A pause that many tasks share: each waits for the end of the one that is under way, or begins one.

    Hundreds of strategies that each slept for themselves would cost a Trio timer each, 20 µs that no lane can bound.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._over: trio.Event | None = None

    async def wait(self) -> None:
        """Wait for at most ``seconds``. A checkpoint. Cancelling who began a pause ends it for all."""
        if self._over is not None:
            await self._over.wait()
            return
        self._over = over = trio.Event()
        try:
            await trio.sleep(self.seconds)
        finally:
            self._over = None
            over.set()


async def drive_async(steps: Steps) -> int:
    """Drive handlers of which some are ``async``; how long the longest step took, in ns, waiting apart."""
    slowest, answer = 0, None
    try:
        while True:
            started = time.perf_counter_ns()
            try:
                awaitable = steps.send(answer)
            finally:
                slowest = max(slowest, time.perf_counter_ns() - started)
            stepwise = _Stepwise(awaitable)
            answer = await stepwise
            slowest = max(slowest, stepwise.slowest_ns)
    except StopIteration:
        return slowest
    finally:
        steps.close()


class _Stepwise:
    """Awaits something once; ``slowest_ns`` is how long the longest of its steps took."""

    __slots__ = ("_awaitable", "slowest_ns")

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self._awaitable = awaitable
        self.slowest_ns = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        inner: Any = self._awaitable.__await__()
        step, value = inner.send, None
        while True:
            started = time.perf_counter_ns()
            try:
                request = step(value)
            except StopIteration as stop:
                return stop.value
            finally:
                self.slowest_ns = max(self.slowest_ns, time.perf_counter_ns() - started)
            try:
                step, value = inner.send, (yield request)
            except BaseException as error:  # noqa: BLE001, ASYNC103 - handed to what is awaited, which is to see it
                step, value = inner.throw, error
