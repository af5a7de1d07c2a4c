"""``Scheduler``: starts tasks in lanes. ``opening.py`` opens it."""

import math
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, TypeVar

import attrs
import trio

from scheduler.blocking import BlockingPool
from scheduler.collector import Collector
from scheduler.current import current_priority
from scheduler.functions import checked_async_fn, checked_coroutine, checked_sync_fn, task_name
from scheduler.gate import Gate, GateSettings
from scheduler.handle import TaskHandle
from scheduler.jobs import JOB, Job
from scheduler.lanes import LaneSettings, TaskPriority, checked_priority
from scheduler.settings import RuntimeSettings
from scheduler.statistics import LaneStatistics, SchedulerStatistics

T = TypeVar("T")
_AsyncFn = Callable[..., Awaitable[T]]


@attrs.frozen(kw_only=True)
class Options:
    """The checked arguments of ``open_scheduler``."""

    gate: GateSettings
    gate_children: bool
    stall_after_s: float
    freeze_gc: bool
    runtime: RuntimeSettings


class _Submissions:
    """One lane's submitted tasks: how many run, and those that wait in a bounded memory channel."""

    def __init__(self, settings: LaneSettings) -> None:
        self.max_tasks = settings.max_tasks
        self.running = 0
        self.send, self.receive = trio.open_memory_channel["_Submission"](settings.queue_capacity)

    def waiting(self) -> int:
        return self.receive.statistics().current_buffer_used


async def _call(async_fn: _AsyncFn[T], args: tuple[Any, ...]) -> T:
    return await async_fn(*args)


class _Submission:
    """A submitted task, started or waiting."""

    def __init__(
        self, scheduler: "Scheduler", handle: TaskHandle[Any], async_fn: _AsyncFn[Any], args: tuple[Any, ...]
    ) -> None:
        self._scheduler = scheduler
        self._handle = handle
        self._async_fn = async_fn
        self._args = args
        self._context = copy_context()

    def start(self, nursery: trio.Nursery, lane: _Submissions) -> None:
        lane.running += 1
        job, name = self._handle._job, self._handle.name
        self._context.run(lambda: nursery.start_soon(_enter, job, self._run, (lane,), name=name))

    def drop(self) -> None:
        self._handle._drop()

    @property
    def cancelled(self) -> bool:
        return self._handle._scope.cancel_called

    async def _run(self, lane: _Submissions) -> None:
        try:
            await self._handle._run(_call(self._async_fn, self._args))
        finally:
            lane.running -= 1
            self._scheduler._start_queued(lane)


class Scheduler:
    """Starts tasks in lanes. Made by ``open_scheduler``; its methods belong to the Trio thread that opened it.

    Tasks belong to the scheduler's cancel scope, whoever started them. Every method raises ``trio.ClosedResourceError``
    once the block is closed, and ``TypeError`` or ``ValueError`` for an argument that is no lane or no async function,
    before any effect.
    """

    def __init__(self, gate: Gate, nursery: trio.Nursery, options: Options) -> None:
        self.token = trio.lowlevel.current_trio_token()
        self._gate = gate
        self._nursery = nursery
        self.gate_children = options.gate_children
        self.closed = False
        self._failed: dict[TaskHandle[Any], None] = {}
        lanes = options.gate.lanes
        self._submissions = {lane: _Submissions(lanes[lane]) for lane in TaskPriority}
        self._blocking = BlockingPool(options.runtime, lanes)
        self._collector: Collector | None = None

    @property
    def cancel_scope(self) -> trio.CancelScope:
        """The scope around all tasks of the scheduler, its block's body included."""
        return self._nursery.cancel_scope

    def start_soon(self, priority: TaskPriority, async_fn: _AsyncFn[object], *args: Any, name: object = None) -> None:
        """Start a task in a lane by Trio's rules: an error cancels the block and is raised by it. Not a checkpoint."""
        job = self._new_job(priority, async_fn)
        self._nursery.start_soon(_enter, job, async_fn, args, name=async_fn if name is None else name)

    def spawn(self, priority: TaskPriority, async_fn: _AsyncFn[T], *args: Any, name: object = None) -> TaskHandle[T]:
        """Start a task in a lane; its result or exception waits in the handle. Not a checkpoint.

        An exception that nobody took from the handle is raised when the block closes; anything but an ``Exception``
        (``KeyboardInterrupt``, say) cancels the block at once.
        """
        job = self._new_job(priority, async_fn)
        handle: TaskHandle[T] = TaskHandle(self, job, task_name(async_fn, name))
        self._nursery.start_soon(_enter_with_handle, job, handle, async_fn, args, name=handle.name)
        return handle

    async def start(self, priority: TaskPriority, async_fn: _AsyncFn[object], *args: Any, name: object = None) -> Any:
        """Start a task and wait until it calls ``task_status.started(value)``; returns the value. As ``Nursery.start``.

        A checkpoint; cancelling it cancels the task as long as that has not called ``started``.
        """
        job = self._new_job(priority, async_fn)
        return await self._nursery.start(_enter, job, async_fn, args, name=async_fn if name is None else name)

    async def submit(
        self, priority: TaskPriority, async_fn: _AsyncFn[T], *args: Any, name: object = None
    ) -> TaskHandle[T]:
        """Start a task as ``spawn`` does, but only ``max_tasks`` of the lane's at a time. A checkpoint.

        When they all run, the task waits in the lane's queue; when that is full, ``submit`` waits. If it is cancelled,
        nothing was admitted. Leaving the block waits for queued tasks, cancelling it drops them (``TaskCancelled``).
        """
        job = self._new_job(priority, async_fn)
        lane = self._submissions[job.priority]
        handle: TaskHandle[T] = TaskHandle(self, job, task_name(async_fn, name))
        submission = _Submission(self, handle, async_fn, args)
        await trio.lowlevel.checkpoint()
        self._check_open()
        if lane.running < lane.max_tasks:
            submission.start(self._nursery, lane)
            return handle
        try:
            await lane.send.send(submission)
        except trio.BrokenResourceError:
            raise trio.ClosedResourceError("the scheduler was closed while submit waited for room") from None
        return handle

    async def run_blocking(self, sync_fn: Callable[..., T], *args: Any, priority: TaskPriority | None = None) -> T:
        """Run a blocking function in a thread and return its result. A checkpoint.

        Args:
            sync_fn: called with ``args`` in one of Trio's threads, with the caller's context variables.
            priority: the lane whose limit counts; the caller's lane by default, MEDIUM outside of any.

        At most a lane's part of ``max_blocking_threads`` run at a time, the next ``queue_capacity`` calls wait in the
        lane's queue and later ones outside of it, most urgent lane first. While a call waits it can be cancelled and
        was not made. Once it runs in its thread a cancellation is held back until it is done, as in
        ``trio.to_thread.run_sync``.

        What must be quick *and* durable belongs in a process of its own: a thread has to share the GIL with the loop.

        Raises:
            Whatever ``sync_fn`` raises.
            TypeError: ``sync_fn`` is not callable, is an async function or returned a coroutine.
            TypeError, ValueError: ``priority`` is no lane.
            trio.ClosedResourceError: the block is closed.
        """
        checked_sync_fn(sync_fn)
        chosen = current_priority() if priority is None else checked_priority(priority)
        self._check_open()
        return await self._blocking.run(TaskPriority.MEDIUM if chosen is None else chosen, sync_fn, *args)

    def statistics(self) -> SchedulerStatistics:
        """A snapshot of the run's lanes (all schedulers of this Trio run share them); works after closing, too."""
        gate = self._gate
        return SchedulerStatistics(
            lanes={lane: self._lane_statistics(lane) for lane in TaskPriority},
            ticks=gate.tick,
            gate_open=gate.open,
            instrument_lost=gate.instrument_lost,
            last_stall=gate.watchdog.last_stall if gate.watchdog else "",
            blocking_calls=self._blocking.calls,
            collections=self._collector.collections if self._collector else 0,
        )

    def _lane_statistics(self, priority: TaskPriority) -> LaneStatistics:
        lane = self._gate.lanes[priority]
        submitted = self._submissions[priority]
        calls = self._blocking.limits.lanes[priority]
        return LaneStatistics(
            tasks=lane.tasks,
            depth=lane.queued,
            spawned=lane.spawned,
            steps=lane.steps,
            busy_s=lane.busy_s,
            forced_yields=lane.forced_yields,
            overruns=lane.overruns,
            stalls=lane.stalls,
            thread_wakes=lane.thread_wakes,
            wake_to_run=lane.wake_to_run.snapshot(),
            step_time=lane.step_time.snapshot(),
            submitted_running=submitted.running,
            submitted_waiting=submitted.waiting(),
            blocking_threads=calls.running,
            blocking_waiting=len(calls.waiting) + len(calls.outside),
        )

    # -- for handles

    def failed(self, handle: TaskHandle[Any]) -> None:
        self._failed[handle] = None

    def taken(self, handle: TaskHandle[Any]) -> None:
        self._failed.pop(handle, None)

    # -- opening and closing

    def _check_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("the scheduler's block is closed")

    def _new_job(self, priority: TaskPriority, async_fn: object) -> Job:
        checked_async_fn(async_fn)
        if type(priority) is not TaskPriority:
            priority = checked_priority(priority)
        if self.closed:
            self._check_open()
        return Job(self._gate, self, priority)

    def _start_queued(self, lane: _Submissions) -> None:
        """Called by a submitted task that ends: start what waits in its lane, or drop it on cancellation."""
        cancelled = trio.current_effective_deadline() == -math.inf
        while lane.running < lane.max_tasks or cancelled:
            try:
                submission = lane.receive.receive_nowait()
            except trio.WouldBlock:
                return
            if cancelled or submission.cancelled:
                submission.drop()
            else:
                submission.start(self._nursery, lane)

    def _start_collector(self) -> None:
        """As a system task, which the block does not wait for, but in its lane."""
        gate = self._gate

        def is_idle() -> bool:
            alone = gate.ready.mask in (0, 1 << TaskPriority.BACKGROUND) and not gate.ready.queued
            return alone and not trio.lowlevel.current_statistics().tasks_runnable

        self._collector = Collector(is_idle)
        job = Job(gate, self, TaskPriority.BACKGROUND)
        trio.lowlevel.spawn_system_task(_enter, job, self._collector.run, (), name="scheduler.freeze_gc")

    def _close(self) -> list[Exception]:
        """The block's tasks have ended; returns the errors that nobody took.

        Descendants that live on in foreign nurseries go on as plain Trio tasks.
        """
        self.closed = True
        for lane in self._submissions.values():
            while lane.waiting():
                lane.receive.receive_nowait().drop()
            lane.receive.close()
            lane.send.close()
        if self._collector:
            self._collector.stop()
        self._gate.leave_all(self)
        return [handle._error for handle in self._failed if handle._error is not None]


def _enter(job: Job, async_fn: _AsyncFn[T], args: tuple[Any, ...], **status: Any) -> Awaitable[T]:
    """Called by Trio in the new task's context to make its coroutine, right before the Instrument hears of the task."""
    coroutine = async_fn(*args, **status)
    checked_coroutine(coroutine, async_fn)
    JOB.set(job)
    job.expected = True
    return coroutine


def _enter_with_handle(
    job: Job, handle: TaskHandle[T], async_fn: _AsyncFn[T], args: tuple[Any, ...]
) -> Awaitable[None]:
    coroutine = async_fn(*args)
    checked_coroutine(coroutine, async_fn)
    JOB.set(job)
    job.expected = True
    return handle._run(coroutine)
