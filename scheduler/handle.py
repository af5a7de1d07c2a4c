"""``TaskHandle``: a spawned task's result, to be awaited any number of times."""

from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import trio
from trio.lowlevel import Task

from scheduler.jobs import JOB, Job
from scheduler.lanes import TaskPriority, checked_priority
from scheduler.parking import park, wake_all

T = TypeVar("T")


class TaskCancelled(Exception):
    """The awaited task was cancelled, or never started because its scheduler's block was."""


class _Owner(Protocol):
    token: trio.lowlevel.TrioToken

    def failed(self, handle: "TaskHandle[Any]") -> None: ...
    def taken(self, handle: "TaskHandle[Any]") -> None: ...


class TaskHandle(Generic[T]):
    """A task started by ``Scheduler.spawn`` or ``Scheduler.submit``."""

    def __init__(self, owner: _Owner, job: Job, name: str) -> None:
        self._owner = owner
        self._job = job
        self._name = name
        self._scope = trio.CancelScope()
        self._done = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._traceback: TracebackType | None = None
        self._waiters: dict[Task, None] = {}

    def __repr__(self) -> str:
        return f"<TaskHandle {self._name!r} {self.priority.name} {'done' if self._done else 'running'}>"

    @property
    def name(self) -> str:
        """The task's name, as Trio shows it."""
        return self._name

    @property
    def done(self) -> bool:
        """Whether the task has ended, or will never start."""
        return self._done

    @property
    def priority(self) -> TaskPriority:
        """The task's own lane, without what is lent to it; set it to move the task and its descendants at once.

        Raises (on setting):
            TypeError, ValueError: not a lane.
        """
        return self._job.priority

    @priority.setter
    def priority(self, priority: TaskPriority) -> None:
        self._job.set_priority(checked_priority(priority))

    def cancel(self) -> None:
        """Cancel the task, from the Trio thread; ``result()`` then raises ``TaskCancelled``. Not a checkpoint."""
        self._scope.cancel()

    async def result(self) -> T:
        """Wait for the task and return what it returned; may be called any number of times. A checkpoint.

        While it waits, the caller's lane is lent to the task if it is the more urgent one. Cancelling the wait ends
        only the wait.

        Raises:
            Exception: what the task raised. Once it is delivered to anybody, closing the scheduler no longer raises it.
            TaskCancelled: the task was cancelled.
            RuntimeError: called by the task itself or a descendant of its own, or in another Trio run.
        """
        if trio.lowlevel.current_trio_token() is not self._owner.token:
            raise RuntimeError(f"the result of {self._name!r} must be awaited in the Trio run that started it")
        job = JOB.get()
        if job is self._job:
            raise RuntimeError(f"task {self._name!r} must not await its own result: it would wait for ever")
        if self._done:
            await trio.lowlevel.checkpoint()
        else:
            await self._wait(job)
        if self._error is None:
            return self._value  # type: ignore[return-value]
        self._owner.taken(self)
        raise self._error.with_traceback(self._traceback)

    async def _wait(self, job: Job | None) -> None:
        task = trio.lowlevel.current_task()
        self._waiters[task] = None
        if job is None or job.gate is not self._job.gate:
            await park(lambda: self._waiters.pop(task))
            return
        job.lend_to(self._job)
        try:
            await park(lambda: self._waiters.pop(task))
        finally:
            job.take_back(self._job)

    async def _run(self, coroutine: Awaitable[T]) -> None:
        """The task's body."""
        error: Exception | None = TaskCancelled(f"task {self._name!r} was cancelled")
        try:
            with self._scope:
                try:
                    self._value = await coroutine
                    error = None
                except BaseException as raised:  # noqa: ASYNC103 - what is left out waits in the handle, nothing else
                    error, rest = _split(raised, error)
                    if rest is raised:
                        raise
                    if rest is not None:
                        raise rest from None  # noqa: ASYNC104 - the cancellations among what was raised
        finally:
            self._finish(error)
            error = None

    def _finish(self, error: Exception | None) -> None:
        self._done = True
        self._error = error
        if error is not None:
            self._traceback = error.__traceback__
            if not isinstance(error, TaskCancelled):
                self._owner.failed(self)
        waiters = list(self._waiters)
        self._waiters.clear()
        wake_all(waiters)

    def _drop(self) -> None:
        """The task will never start."""
        self._finish(TaskCancelled(f"task {self._name!r} was dropped: its scheduler was cancelled before it started"))


def _split(raised: BaseException, cancelled: Exception | None) -> tuple[Exception | None, BaseException | None]:
    """What of ``raised`` waits in the handle, and what goes on to the scheduler's nursery at once."""
    if isinstance(raised, Exception):
        return raised, None
    if isinstance(raised, BaseExceptionGroup):
        waiting, rest = raised.split(Exception)
        if waiting is not None:
            return waiting, rest
    return cancelled, raised
