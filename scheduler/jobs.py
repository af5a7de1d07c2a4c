"""Jobs: what shares one priority. A job is a task started with a lane, and the children that follow it there.

A job's lane is the more urgent of its own priority and the lanes lent to it. A job that awaits another's result lends
it its lane; what is lent is passed on to whatever that job awaits in turn. A loan never makes a lane less urgent.
"""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from scheduler.lanes import TaskPriority

if TYPE_CHECKING:
    from scheduler.cells import Cell
    from scheduler.gate import Gate


class Owner(Protocol):
    """The scheduler that a job belongs to."""

    closed: bool
    gate_children: bool


class Job:
    """One priority, shared by a task and its descendants."""

    __slots__ = ("awaits", "expected", "gate", "lane", "lenders", "members", "owner", "priority")

    def __init__(self, gate: "Gate", owner: Owner, priority: TaskPriority) -> None:
        self.gate = gate
        self.owner = owner
        self.priority = priority
        self.lane: int = priority
        self.expected = False  # the job's own first task is about to be spawned
        self.members: set[Cell] = set()
        self.lenders: tuple[Job, ...] = ()
        self.awaits: tuple[Job, ...] = ()

    def set_priority(self, priority: TaskPriority) -> None:
        self.priority = priority
        self.refresh()

    def lend_to(self, other: "Job") -> None:
        """This job awaits ``other``: until ``take_back`` the other runs at least as urgently."""
        self.awaits += (other,)
        other.lenders += (self,)
        other.refresh()

    def take_back(self, other: "Job") -> None:
        self.awaits = _without(self.awaits, other)
        other.lenders = _without(other.lenders, self)
        other.refresh()

    def refresh(self) -> None:
        """Move the members to the lane that priority and loans give now."""
        lane: int = min((lender.lane for lender in self.lenders), default=self.priority)
        lane = min(lane, self.priority)
        if lane == self.lane:
            return
        self.lane = lane
        for cell in sorted(self.members, key=_waking_order):
            self.gate.move(cell, lane)
        for other in self.awaits:
            other.refresh()


def _without(jobs: tuple[Job, ...], job: Job) -> tuple[Job, ...]:
    """``jobs`` less one mention of ``job``: two members of a job may await the same task."""
    index = jobs.index(job)
    return jobs[:index] + jobs[index + 1 :]


def _waking_order(cell: "Cell") -> int:
    return cell.sequence


JOB: ContextVar[Job | None] = ContextVar("scheduler_job", default=None)
