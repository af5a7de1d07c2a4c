"""``open_scheduler``, ``Scheduler`` and ``TaskHandle``."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Generic, Literal, TypeVar

import outcome
import trio

from scheduler.lanes import LaneSettings, TaskPriority, checked_lanes, checked_priority
from scheduler.parking import park, wake

T = TypeVar("T")
_PRIORITY: ContextVar[TaskPriority | None] = ContextVar("scheduler_priority", default=None)


class TaskCancelled(Exception):
    """The awaited task was cancelled."""


class TaskHandle(Generic[T]):
    """A spawned task."""

    def __init__(self, name: str, priority: TaskPriority) -> None:
        self.name = name
        self.priority = priority
        self._scope = trio.CancelScope()
        self._outcome: outcome.Outcome[T] | None = None
        self._waiters: dict[trio.lowlevel.Task, None] = {}
        self.taken = False

    @property
    def done(self) -> bool:
        return self._outcome is not None

    def cancel(self) -> None:
        self._scope.cancel()

    async def result(self) -> T:
        if self._outcome is None:
            task = trio.lowlevel.current_task()
            self._waiters[task] = None
            await park(lambda: self._waiters.pop(task))
        else:
            await trio.lowlevel.checkpoint()
        self.taken = True
        assert self._outcome is not None
        if isinstance(self._outcome, outcome.Error):
            raise self._outcome.error
        return self._outcome.unwrap()

    async def _run(self, async_fn: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> None:
        _PRIORITY.set(self.priority)
        result: outcome.Outcome[T] = outcome.Error(TaskCancelled(self.name))
        try:
            with self._scope:
                try:
                    result = outcome.Value(await async_fn(*args))
                except Exception as error:  # noqa: BLE001 - waits in the handle
                    result = outcome.Error(error)
        finally:
            self._outcome = result
            for task in self._waiters:
                wake(task)


class Scheduler:
    """Priority lanes over one nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._handles: list[TaskHandle[Any]] = []

    def start_soon(
        self, priority: TaskPriority, async_fn: Callable[..., Awaitable[object]], *args: Any, name: object = None
    ) -> None:
        priority = checked_priority(priority)

        async def run() -> None:
            _PRIORITY.set(priority)
            await async_fn(*args)

        self._nursery.start_soon(run, name=name)

    def spawn(
        self, priority: TaskPriority, async_fn: Callable[..., Awaitable[T]], *args: Any, name: object = None
    ) -> TaskHandle[T]:
        handle: TaskHandle[T] = TaskHandle(str(name or getattr(async_fn, "__qualname__", async_fn)), checked_priority(priority))
        self._handles.append(handle)
        self._nursery.start_soon(handle._run, async_fn, args, name=name or async_fn)
        return handle

    async def start(
        self, priority: TaskPriority, async_fn: Callable[..., Awaitable[object]], *args: Any, name: object = None
    ) -> Any:
        return await self._nursery.start(async_fn, *args, name=name)

    async def submit(
        self, priority: TaskPriority, async_fn: Callable[..., Awaitable[T]], *args: Any, name: object = None
    ) -> TaskHandle[T]:
        await trio.lowlevel.checkpoint()
        return self.spawn(priority, async_fn, *args, name=name)

    async def run_blocking(
        self, sync_fn: Callable[..., T], *args: Any, priority: TaskPriority | None = None
    ) -> T:
        return await trio.to_thread.run_sync(sync_fn, *args)

    def statistics(self) -> Any:
        return None


@asynccontextmanager
async def open_scheduler(
    *,
    policy: Literal["shares", "strict"] = "shares",
    quantum_s: float = 200e-6,
    lanes: Mapping[TaskPriority, LaneSettings] | None = None,
    critical_quota: float = 0.95,
    gate_children: bool = True,
    stall_after_s: float = 0.025,
    freeze_gc: bool = False,
) -> AsyncIterator[Scheduler]:
    checked_lanes(lanes, critical_quota)
    async with trio.open_nursery() as nursery:
        scheduler = Scheduler(nursery)
        yield scheduler
    errors = [
        handle._outcome.error
        for handle in scheduler._handles
        if isinstance(handle._outcome, outcome.Error)
        and not handle.taken
        and not isinstance(handle._outcome.error, TaskCancelled)
    ]
    if errors:
        raise ExceptionGroup("tasks failed and nobody took their errors", errors)  # type: ignore[type-var]


def current_priority() -> TaskPriority | None:
    return _PRIORITY.get()


_slice_ends = 0.0


def should_yield() -> bool:
    return time.perf_counter() > _slice_ends


async def checkpoint_if_needed() -> None:
    global _slice_ends
    if should_yield():
        await trio.lowlevel.checkpoint()
        _slice_ends = time.perf_counter() + 200e-6


def pin_thread(cores: set[int]) -> None:
    import os

    os.sched_setaffinity(0, cores)
