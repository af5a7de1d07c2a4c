"""Helpers for tests of programs that use the scheduler."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio
import trio.testing

from scheduler.cells import CELLS
from scheduler.core import Scheduler
from scheduler.lanes import TaskPriority

__all__ = ["assert_at_rest", "assert_checkpoints"]


@contextmanager
def assert_checkpoints() -> Iterator[None]:
    """``trio.testing.assert_checkpoints`` that is exact in a lane, too.

    In a lane below CRITICAL, waiting at the gate counts as a checkpoint for Trio's own version: a block that only
    makes a *shielded* checkpoint passes it. Inside this block the calling task runs in CRITICAL, where nothing waits.

    Raises:
        AssertionError: the block made no full checkpoint.
    """
    cell = CELLS.get(trio.lowlevel.current_task())
    if cell is None:
        with trio.testing.assert_checkpoints():
            yield
        return
    cell.gate.move(cell, TaskPriority.CRITICAL)
    try:
        with trio.testing.assert_checkpoints():
            yield
    finally:
        cell.gate.move(cell, cell.job.lane)


def assert_at_rest(scheduler: Scheduler) -> None:
    """Nothing of the scheduler's gate is waiting, granted or marked ready.

    True between bursts of work, and always after the block.

    Raises:
        AssertionError: something is.
    """
    ready = scheduler._gate.ready
    assert (ready.queued, ready.outstanding, ready.mask) == (0, 0, 0), (
        f"queued {ready.queued}, granted {ready.outstanding}, ready lanes {ready.mask:05b}"
    )
