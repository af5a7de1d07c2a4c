"""What a task can ask about itself: its lane, and whether it should give way."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import trio

from scheduler.cells import CELLS, Cell
from scheduler.jobs import JOB
from scheduler.lanes import TaskPriority


def _current_cell() -> Cell | None:
    return CELLS.get(trio.lowlevel.current_task()) if trio.lowlevel.in_trio_task() else None


def current_priority() -> TaskPriority | None:
    """The lane in which the calling task runs now, loans included; None outside of any lane. Not a checkpoint.

    In a thread started by ``run_blocking`` or ``trio.to_thread``: the lane of the task that waits for it.
    """
    if trio.lowlevel.in_trio_task():
        cell = _current_cell()
        return None if cell is None else TaskPriority(cell.lane.index)
    job = JOB.get()
    return None if job is None or job.gate.open else TaskPriority(job.lane)


def should_yield() -> bool:
    """Whether the calling task had better reach a checkpoint now. Not a checkpoint; costs a third of a microsecond.

    In a lane: the quantum is used up, or more urgent work became ready. Outside of any lane always True: nothing is
    known of how long the task has run. Inside ``unconstrained()`` always False.
    """
    cell = _current_cell()
    if cell is None:
        return True
    gate = cell.gate
    if gate.unconstrained and cell in gate.unconstrained:
        return False
    if not cell.lane.index:
        return perf_counter() - gate.step_started >= gate.quantum_s
    return bool(gate.ready.mask & cell.lane.above) or perf_counter() >= gate.tick_ends


async def checkpoint_if_needed() -> None:
    """Give way if ``should_yield()``; otherwise only notice a cancellation. For loops with much work and no waiting.

    Always a cancel point, a schedule point only when needed; ``forced_yields`` counts how often that was.
    """
    if should_yield():
        cell = _current_cell()
        if cell is not None:
            cell.lane.forced_yields += 1
        await trio.lowlevel.checkpoint()
    else:
        await trio.lowlevel.checkpoint_if_cancelled()


@contextmanager
def unconstrained() -> Iterator[None]:
    """Inside the block ``should_yield`` is False: the opt-out for a stretch that must not be interleaved.

    The bound for CRITICAL grows by the length of that stretch. Real waits still wait.
    """
    cell = _current_cell()
    if cell is None or cell in cell.gate.unconstrained:
        yield
        return
    cell.gate.unconstrained.add(cell)
    try:
        yield
    finally:
        cell.gate.unconstrained.discard(cell)
