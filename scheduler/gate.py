"""The gate: which tasks may take a step now.

Trio resumes a gated task through its shell (``cells.py``), which asks here first.

- *Which* waiting task goes next is decided in ``ready.py`` alone. This module decides *when* to ask: whenever tasks
  wait and no granted one is still on its way, at the end of a step, at an arrival, or at a wake.
- Time is a tick of Trio's loop. A tick has a budget of one quantum; when it is used up, tasks below CRITICAL that
  arrive go back to their place. One of them may always run in a tick, else a quantum of 0 would hang.
- One Instrument tells which tasks Trio has scheduled and when a tick begins. Trio drops an Instrument that raises.
- An open gate lets everything through, as plain Trio would. It never shuts again.

Only public names of Trio are used.
"""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import attrs
import trio
from trio.lowlevel import Task, reschedule

from scheduler.cells import CELLS, NOTHING, NOTHING_HANDED, Cell
from scheduler.jobs import JOB, Job
from scheduler.lanes import LaneSettings, TaskPriority
from scheduler.ready import READY, Lane, Policy, ReadyLanes
from scheduler.statistics import Histogram

if TYPE_CHECKING:
    from scheduler.stalls import Watchdog

logger = logging.getLogger("scheduler")


@attrs.frozen(kw_only=True)
class GateSettings:
    """What two schedulers must agree on to share a gate."""

    policy: Policy
    quantum_s: float
    lanes: dict[TaskPriority, LaneSettings]
    critical_quota: float


class LaneRecord(Lane):
    """A lane with what the statistics want to know of it."""

    __slots__ = ("forced_yields", "overruns", "spawned", "stalls", "step_time", "tasks", "thread_wakes", "wake_to_run")

    def __init__(self, index: int, settings: LaneSettings, policy: Policy) -> None:
        super().__init__(index, settings, policy)
        self.tasks = self.spawned = self.forced_yields = self.overruns = self.stalls = self.thread_wakes = 0
        self.wake_to_run = Histogram()
        self.step_time = Histogram()


class Gate:
    """The lanes of one Trio run, with the Instrument that feeds them. Shared by the run's schedulers."""

    def __init__(self, settings: GateSettings, stall_after_s: float) -> None:
        self.settings = settings
        self.quantum_s = settings.quantum_s
        self.lanes = [LaneRecord(lane, settings.lanes[lane], settings.policy) for lane in TaskPriority]
        self.outside = LaneRecord(0, settings.lanes[TaskPriority.CRITICAL], settings.policy)  # of those who left
        self.ready: ReadyLanes[Cell] = ReadyLanes(self.lanes, settings.policy, settings.critical_quota)
        self.schedulers = 0
        self.open = False
        self.instrument_lost = 0
        self.tick = 0
        self.tick_ends = 0.0
        self.lower_ran = False  # in this tick
        self.current: Cell | None = None  # whose step is running
        self.step_started = 0.0
        self.unconstrained: set[Cell] = set()  # see `current.unconstrained`
        self.stall_after_s = stall_after_s
        self.slow_step_s = min(stall_after_s, self.quantum_s)
        self.watchdog: Watchdog | None = None
        self._root = trio.lowlevel.current_root_task()
        self._instrument = _make_instrument(self)
        trio.lowlevel.add_instrument(self._instrument)

    # -- membership

    def adopt(self, task: Task, job: Job) -> None:
        """Gate a task that is being spawned, if it is the job's own or a child that follows it (no system task)."""
        if job.expected:
            job.expected = False
        else:
            nursery = task.parent_nursery
            if not job.owner.gate_children or nursery is None or nursery.parent_task is self._root:
                return
        cell = Cell(task, self, job)
        task.coro = cast(Any, cell)
        CELLS[task] = cell
        job.members.add(cell)
        cell.lane.tasks += 1
        cell.lane.spawned += 1

    def move(self, cell: Cell, index: int) -> None:
        """Put a task into another lane, whatever it is doing."""
        lane = self.lanes[index]
        cell.lane.tasks -= 1
        lane.tasks += 1
        self.ready.move(cell, lane)
        if cell.state == READY and cell.parked:
            self._unpark(cell)
        self.release_from_outside()

    def task_ended(self, cell: Cell, started: float) -> None:
        """The last step of a task: it returned, raised, or was closed."""
        lane = cell.lane
        if self.current is cell:
            self.current = None
            spent = perf_counter() - started
            lane.busy_s += spent
            lane.steps += 1
            if spent > self.slow_step_s:
                self.count_slow_step(lane, spent)
            if not lane.steps & 15:
                lane.step_time.add(spent)
        if CELLS.pop(cell.task, None) is not None:
            cell.job.members.discard(cell)
            cell.lane.tasks -= 1
            if cell.state == READY:
                self.ready.rest(cell)  # as `forget` would, and the usual case
            else:
                self.ready.forget(cell)
        del cell.task  # the task refers to the cell: no cycle for the collector
        if self.ready.queued and not self.ready.outstanding:
            self.release()

    def leave(self, cell: Cell) -> None:
        """Let a living task go on as a plain Trio task."""
        del CELLS[cell.task]
        cell.job.members.discard(cell)
        self.ready.forget(cell)
        cell.lane.tasks -= 1
        cell.lane = self.outside
        if cell.parked:
            self._unpark(cell)

    def leave_all(self, owner: object | None = None) -> None:
        """Let all tasks go, or those that belong to ``owner``."""
        for cell in [cell for cell in CELLS.values() if cell.gate is self]:
            if owner is None or cell.job.owner is owner:
                self.leave(cell)
        self.release_from_outside()

    # -- releasing

    def release(self) -> None:
        """Grant the next batch; tell Trio of those that it does not have in its run queue already."""
        tick = self.tick
        for cell in self.ready.choose(self.quantum_s):
            if cell.parked:
                cell.parked = False
                cell.released_at = tick
                if cell.handed is NOTHING_HANDED:
                    reschedule(cell.task, NOTHING)
                else:
                    reschedule(cell.task, cell.take_handed())

    def release_from_outside(self) -> None:
        """The same, for callers that may run between steps, when no step's end will do it."""
        if self.current is None and self.ready.queued and not self.ready.outstanding:
            self.release()

    def _unpark(self, cell: Cell) -> None:
        cell.parked = False
        cell.released_at = self.tick
        reschedule(cell.task, NOTHING if cell.handed is NOTHING_HANDED else cell.take_handed())

    # -- the end

    def shut_down(self) -> None:
        """Open for good: everything parked is released, whoever lives on does so as a plain Trio task."""
        if not self.open:
            self.open = True
            self.leave_all()
            try:
                trio.lowlevel.remove_instrument(self._instrument)
            except KeyError:
                if not self.instrument_lost:
                    self._count_loss()

    def fail_open(self) -> None:
        """The Instrument is gone, so neither ticks nor wakes are seen any more: stop gating."""
        if not self.open:
            self._count_loss()
            self.open = True
            self.leave_all()

    def _count_loss(self) -> None:
        self.instrument_lost += 1
        logger.error("the scheduler's Instrument was removed from Trio; its tasks go on without lanes")

    # -- accounts

    def count_slow_step(self, lane: LaneRecord, spent_s: float) -> None:
        if spent_s > self.quantum_s:
            lane.overruns += 1
        if spent_s > self.stall_after_s:
            lane.stalls += 1


class _Instrument(trio.abc.Instrument):
    __slots__ = ("after_io_wait", "task_scheduled", "task_spawned")


def _make_instrument(gate: Gate) -> trio.abc.Instrument:
    """Closures instead of methods: Trio calls ``task_scheduled`` at every step of every task."""
    ready = gate.ready
    cell_of = CELLS.get
    quantum_s = gate.quantum_s

    def task_scheduled(task: Task) -> None:
        cell = cell_of(task)
        if cell is None or cell.state:
            return
        ready.wake(cell)
        if not cell.lane.index or not ready.sequence & 15:
            cell.woken_at = perf_counter()

    def task_spawned(task: Task) -> None:
        job = task.context.get(JOB)
        if job is not None and job.gate is gate and not gate.open and not job.owner.closed:
            gate.adopt(task, job)

    def after_io_wait(_timeout: float) -> None:
        gate.tick += 1
        gate.tick_ends = perf_counter() + quantum_s
        gate.lower_ran = False

    instrument = _Instrument()
    for hook in (task_scheduled, task_spawned, after_io_wait):
        setattr(instrument, hook.__name__, hook)
    return instrument


_GATE: trio.lowlevel.RunVar[Gate | None] = trio.lowlevel.RunVar("scheduler_gate", None)


def acquire_gate(settings: GateSettings, stall_after_s: float) -> Gate:
    """This run's gate, made on first use.

    Raises:
        ValueError: there is one with other settings.
    """
    gate = _GATE.get()
    if gate is None or gate.open:
        gate = Gate(settings, stall_after_s)
        _GATE.set(gate)
    elif gate.settings != settings:
        ours, theirs = attrs.asdict(settings, recurse=False), attrs.asdict(gate.settings, recurse=False)
        differing = ", ".join(f"{name} {theirs[name]!r}" for name in ours if ours[name] != theirs[name])
        raise ValueError(f"a scheduler is open in this Trio run already; a second one must have the same {differing}")
    gate.schedulers += 1
    return gate


def release_gate(gate: Gate) -> None:
    """One scheduler less; the last one opens the gate for good."""
    gate.schedulers -= 1
    if not gate.schedulers:
        gate.shut_down()
        if gate.watchdog:
            gate.watchdog.stop()
        if _GATE.get() is gate:
            _GATE.set(None)
