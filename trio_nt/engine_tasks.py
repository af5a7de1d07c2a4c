"""Tasks that end with their engine, in the lanes of a scheduler that it may share with others."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from scheduler import Scheduler, TaskCancelled, TaskHandle, TaskPriority

T = TypeVar("T")


class EngineTasks:
    """The tasks of one engine. An error of one is raised by ``nursery``.

    ``running`` counts those that have not ended, ``finite`` those of them that end by themselves once their input has
    ended (``endless`` ones are cancelled). ``until`` waits for a condition, asked again after every ``notify``;
    a task that ends notifies by itself.
    """

    def __init__(self, scheduler: Scheduler, nursery: trio.Nursery) -> None:
        self.running = self.finite = 0
        self._scheduler = scheduler
        self._nursery = nursery
        self._scopes: set[trio.CancelScope] = set()
        self._changed = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def spawn(
        self,
        lane: TaskPriority,
        async_fn: Callable[..., Awaitable[Any]],
        *args: Any,
        name: str,
        endless: bool = False,
    ) -> TaskHandle[None]:
        """Start a task in a lane."""
        handle = self._begin(lane, async_fn, args, name, endless)
        self._nursery.start_soon(_raise_error, handle.result)
        return handle

    async def start(
        self,
        lane: TaskPriority,
        async_fn: Callable[..., Awaitable[Any]],
        *args: Any,
        name: str,
        endless: bool = False,
        on_spawn: Callable[[TaskHandle[None]], None] | None = None,
    ) -> None:
        """The same for a task that says when it has started; its error before that is raised here.

        ``on_spawn`` is given its handle before its first step.
        """
        status = _Status()

        async def run() -> None:
            try:
                await async_fn(*args, task_status=status)
            finally:
                status.decided.set()

        handle = self._begin(lane, run, (), name, endless)
        if on_spawn is not None:
            on_spawn(handle)
        await status.decided.wait()
        if status.is_started:
            self._nursery.start_soon(_raise_error, handle.result)
            return
        await _raise_error(handle.result)

    async def run_blocking(self, sync_fn: Callable[..., T], *args: Any) -> T:
        """Run a blocking function in a thread, behind everything more urgent. A checkpoint."""
        return await self._scheduler.run_blocking(sync_fn, *args, priority=TaskPriority.LOW)

    def cancel_all(self) -> None:
        for scope in list(self._scopes):
            scope.cancel()

    def _begin(
        self,
        lane: TaskPriority,
        async_fn: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        name: str,
        endless: bool,
    ) -> TaskHandle[None]:
        scope = trio.CancelScope()  # made here: a task that is cancelled before its first step never gets to it
        handle = self._scheduler.spawn(lane, self._owned, scope, async_fn, args, endless, name=name)
        self.running += 1
        self.finite += not endless
        self._scopes.add(scope)
        return handle

    async def _owned(
        self,
        scope: trio.CancelScope,
        async_fn: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        endless: bool,
    ) -> None:
        try:
            with scope:
                await async_fn(*args)
        finally:
            self._scopes.discard(scope)
            self.running -= 1
            self.finite -= not endless
            self.notify()


class _Status:
    """What a task is given to say that it has started; ``decided`` when it has, or never will."""

    def __init__(self) -> None:
        self.decided = trio.Event()
        self.is_started = False

    def started(self, value: object = None) -> None:
        self.is_started = True
        self.decided.set()


async def _raise_error(result: Callable[[], Awaitable[Any]]) -> None:
    try:
        await result()
    except TaskCancelled:
        return
