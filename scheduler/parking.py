"""How our own primitives block a task and wake it again: ``park`` and ``wake``."""

from collections.abc import Callable
from typing import Any

import outcome
import trio
from trio.lowlevel import Abort, Task


async def park(abort: Callable[[], None]) -> Any:
    """Block the current task until ``wake`` names it; returns the value given to ``wake``.

    The caller has put the task where its waker will find it. A checkpoint: on cancellation ``abort()`` is called once,
    so that the primitive forgets the waiter, and ``trio.Cancelled`` is raised. A task that was woken is never aborted,
    because what it was handed must not be lost.
    """

    def give_up(_: object) -> Abort:
        abort()
        return Abort.SUCCEEDED

    return await trio.lowlevel.wait_task_rescheduled(give_up)


def wake(task: Task, value: object = None) -> None:
    """Wake a task blocked in ``park``; once per ``park``, from the Trio thread. Not a checkpoint."""
    trio.lowlevel.reschedule(task, outcome.Value(value))
