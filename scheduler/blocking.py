"""Blocking calls on Trio's threads: who gets a thread next, and how many wait.

Rules, all in ``ThreadLimits``:

- All lanes together hold at most ``max_blocking_threads`` threads, and each lane at most its own part of them, so that
  a lower lane can never take them all.
- A free thread goes to the most urgent lane that waits and is below its limit; within a lane, in order of arrival.
- A lane's queue holds ``queue_capacity`` calls. Further callers wait outside, in order, and enter as places get free.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar

import trio
from trio.lowlevel import Task

from scheduler.affinity import original_affinity
from scheduler.functions import checked_sync_result
from scheduler.lanes import LaneSettings, TaskPriority
from scheduler.parking import park, wake
from scheduler.settings import RuntimeSettings

T = TypeVar("T")

_PART_OF_LANE = {
    TaskPriority.CRITICAL: 1.0,
    TaskPriority.HIGH: 1.0,
    TaskPriority.MEDIUM: 0.75,
    TaskPriority.LOW: 0.5,
    TaskPriority.BACKGROUND: 0.25,
}


class _LaneOfCalls:
    __slots__ = ("capacity", "limit", "outside", "running", "waiting")

    def __init__(self, limit: int, capacity: int) -> None:
        self.limit = limit
        self.capacity = capacity
        self.running = 0
        self.waiting: deque[Task] = deque()
        self.outside: deque[Task] = deque()


class ThreadLimits:
    """Decides which call may have a thread. Calls are known by their task; knows no threads itself."""

    def __init__(self, settings: RuntimeSettings, lanes: Mapping[TaskPriority, LaneSettings]) -> None:
        self.total = settings.max_blocking_threads
        self.running = 0
        self.lanes = {
            lane: _LaneOfCalls(max(1, int(self.total * _PART_OF_LANE[lane])), lanes[lane].queue_capacity)
            for lane in TaskPriority
        }

    def try_start(self, priority: TaskPriority) -> bool:
        """Take a thread at once, if nobody in the lane waits and the limits allow it."""
        lane = self.lanes[priority]
        if lane.waiting or lane.outside or not self._has_room(lane):
            return False
        self._take(lane)
        return True

    def wait(self, priority: TaskPriority, task: Task) -> None:
        """Put ``task`` in the lane's queue, or outside when that is full."""
        lane = self.lanes[priority]
        (lane.waiting if len(lane.waiting) < lane.capacity else lane.outside).append(task)

    def give_up(self, priority: TaskPriority, task: Task) -> None:
        """``task`` waits no longer."""
        lane = self.lanes[priority]
        if task in lane.waiting:
            lane.waiting.remove(task)
            self._admit(lane)
        else:
            lane.outside.remove(task)

    def finish(self, priority: TaskPriority) -> list[Task]:
        """A thread is free; returns the tasks that have one now."""
        self.lanes[priority].running -= 1
        self.running -= 1
        started: list[Task] = []
        for lane in self.lanes.values():
            while (lane.waiting or lane.outside) and self._has_room(lane):
                self._take(lane)
                started.append((lane.waiting or lane.outside).popleft())
                self._admit(lane)
        return started

    def _has_room(self, lane: _LaneOfCalls) -> bool:
        return self.running < self.total and lane.running < lane.limit

    def _take(self, lane: _LaneOfCalls) -> None:
        lane.running += 1
        self.running += 1

    @staticmethod
    def _admit(lane: _LaneOfCalls) -> None:
        while lane.outside and len(lane.waiting) < lane.capacity:
            lane.waiting.append(lane.outside.popleft())


class _NoLimit:
    """What ``to_thread`` is given as its limiter: the limits were applied before."""

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()

    def release_on_behalf_of(self, borrower: object) -> None:
        pass


class BlockingPool:
    """Runs blocking calls. The seam for process pools: another pool with the same ``run`` may stand in its place."""

    def __init__(self, settings: RuntimeSettings, lanes: Mapping[TaskPriority, LaneSettings]) -> None:
        self.limits = ThreadLimits(settings, lanes)
        self.calls = 0
        self._thread_name = settings.thread_name
        self._no_limit = _NoLimit()

    async def run(self, priority: TaskPriority, sync_fn: Callable[..., T], *args: object) -> T:
        """Wait for a thread as the limits say, then run ``sync_fn`` in it."""
        await trio.lowlevel.checkpoint_if_cancelled()
        limits = self.limits
        if not limits.try_start(priority):
            task = trio.lowlevel.current_task()
            limits.wait(priority, task)
            await park(lambda: limits.give_up(priority, task))
        try:
            return await trio.to_thread.run_sync(
                _call_unpinned,
                original_affinity(),
                sync_fn,
                args,
                thread_name=self._thread_name,
                limiter=self._no_limit,  # type: ignore[arg-type]
            )
        finally:
            self.calls += 1
            for waiter in limits.finish(priority):
                wake(waiter)


def _call_unpinned(mask: set[int] | None, sync_fn: Callable[..., T], args: tuple[object, ...]) -> T:
    """The first thing in the pool's thread: it may have been started by a pinned loop thread."""
    if mask is not None and os.sched_getaffinity(0) != mask:
        os.sched_setaffinity(threading.get_native_id(), mask)
    result = sync_fn(*args)
    checked_sync_result(result, sync_fn)
    return result
