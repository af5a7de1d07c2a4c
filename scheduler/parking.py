"""How our own primitives block a task and wake it again: ``park``, ``wake`` and ``wake_all``.

A gated task that is woken goes straight into its lane's queue. Trio is not told until the gate releases it, so a herd
of woken tasks costs the tick nothing. Any other task is rescheduled as usual.
"""

from collections.abc import Callable, Iterable
from typing import Any

import outcome
import trio
from trio.lowlevel import Abort, Task

from scheduler.cells import CELLS, NOTHING_HANDED, Cell
from scheduler.gate import Gate, LaneRecord

_THREAD_CALLBACKS = "<TrioToken.run_sync_soon task>"


async def park(abort: Callable[[], None]) -> Any:
    """Block the current task until ``wake`` names it; returns the value given to ``wake``.

    The caller has put the task where its waker will find it. A checkpoint: on cancellation ``abort()`` is called once,
    so that the primitive forgets the waiter, and ``trio.Cancelled`` is raised. A task that was woken is never aborted,
    because what it was handed must not be lost.
    """
    cell = CELLS.get(trio.lowlevel.current_task())

    def give_up(_: object) -> Abort:
        if cell is not None and cell.handed is not NOTHING_HANDED:
            return Abort.FAILED
        abort()
        return Abort.SUCCEEDED

    return await trio.lowlevel.wait_task_rescheduled(give_up)


def wake(task: Task, value: object = None) -> None:
    """Wake a task blocked in ``park``; once per ``park``, from the Trio thread. Not a checkpoint."""
    cell = CELLS.get(task)
    if cell is None or not cell.lane.index:
        trio.lowlevel.reschedule(task, outcome.Value(value))
        return
    cell.handed = value
    cell.parked = True
    cell.gate.ready.wake(cell)
    _after_waking(cell.gate, cell.lane, 1)


def wake_all(tasks: Iterable[Task], value: object = None) -> None:
    """Wake every task in ``tasks``, in this order, with the same value, at a third of the cost of so many ``wake``."""
    herds: dict[LaneRecord, list[Cell]] = {}
    herd: list[Cell] = []
    lane: LaneRecord | None = None
    find = CELLS.get
    for task in tasks:
        cell = find(task)
        if cell is None or cell.lane is not lane:
            if cell is None or not cell.lane.index:
                trio.lowlevel.reschedule(task, outcome.Value(value))
                continue
            lane = cell.lane
            herd = herds.setdefault(lane, [])
        cell.handed = value
        cell.parked = True
        herd.append(cell)
    for lane, herd in herds.items():
        gate = herd[0].gate
        gate.ready.wake_all(lane, herd)
        _after_waking(gate, lane, len(herd))


def _after_waking(gate: Gate, lane: LaneRecord, count: int) -> None:
    """A gated waker's step releases at its end; anybody else's wake must do it now."""
    if gate.current is None:
        if trio.lowlevel.in_trio_task() and trio.lowlevel.current_task().name == _THREAD_CALLBACKS:
            lane.thread_wakes += count
        gate.release_from_outside()
