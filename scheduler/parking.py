"""How our own primitives block a task and wake it again: ``park``, ``wake`` and ``wake_all``.

A gated task that is woken goes straight into its lane's queue. Trio is not told until the gate releases it, so a herd
of woken tasks costs the tick nothing. Any other task is rescheduled as usual.
"""

from collections.abc import Callable, Iterable
from typing import Any

import outcome
import trio
from trio.lowlevel import Abort, Task

from scheduler.gate import CELLS

_THREAD_CALLBACKS = "<TrioToken.run_sync_soon task>"


async def park(abort: Callable[[], None]) -> Any:
    """Block the current task until ``wake`` names it; returns the value given to ``wake``.

    The caller has put the task where its waker will find it. A checkpoint: on cancellation ``abort()`` is called once,
    so that the primitive forgets the waiter, and ``trio.Cancelled`` is raised. A task that was woken is never aborted,
    because what it was handed must not be lost.
    """
    cell = CELLS.get(trio.lowlevel.current_task())

    def give_up(_: object) -> Abort:
        if cell is not None and cell.outcome is not None:
            return Abort.FAILED
        abort()
        return Abort.SUCCEEDED

    return await trio.lowlevel.wait_task_rescheduled(give_up)


def wake(task: Task, value: object = None) -> None:
    """Wake a task blocked in ``park``; once per ``park``, from the Trio thread. Not a checkpoint."""
    wake_all((task,), value)


def wake_all(tasks: Iterable[Task], value: object = None) -> None:
    """Wake every task in ``tasks``, in this order, with the same value: half the cost of as many ``wake`` calls."""
    for task in tasks:
        cell = CELLS.get(task)
        if cell is None or not cell.lane.index:
            trio.lowlevel.reschedule(task, outcome.Value(value))
            continue
        cell.outcome = outcome.Value(value)
        cell.parked = True
        cell.gate.ready.wake(cell)
        gate = cell.gate
        if gate.current is None:
            if _called_from_a_thread():
                cell.lane.thread_wakes += 1
            gate.release_from_outside()


def _called_from_a_thread() -> bool:
    """Whether a callback that a thread gave to ``TrioToken.run_sync_soon`` is running."""
    return trio.lowlevel.in_trio_task() and trio.lowlevel.current_task().name == _THREAD_CALLBACKS
