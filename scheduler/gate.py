"""The gate: drives tasks step by step through the lanes.

A gated task's coroutine sits in a ``Cell``, a coroutine-like shell that Trio resumes in its place. Each time it is
resumed the shell asks first whether the task may run now; only then does the task's own coroutine take its next step.

- *Which* waiting task goes next is decided in ``ready.py`` alone. This module decides *when* to ask: whenever tasks
  wait and no granted one is still on its way, at the end of a step, at an arrival, or at a wake.
- Time is a tick of Trio's loop. A tick has a budget of one quantum; when it is used up, tasks below CRITICAL that
  arrive go back to their place. One of them may always run in a tick, else a quantum of 0 would hang.
- A task that waits at the gate cannot be aborted: what it was handed must not be lost. ``Cancelled`` reaches it at its
  next checkpoint, exactly as it does for a plain Trio task that was already rescheduled.
- One Instrument tells which tasks Trio has scheduled and when a tick begins. Trio drops an Instrument that raises.
  A released task always resumes in a later tick; if the tick has not moved, the Instrument is gone and the gate opens.
- An open gate lets everything through, as plain Trio would. It never shuts again.

Only public names of Trio are used. Tasks are recognised by the ``CELLS`` map, never by the type of their coroutine,
which others (greenback) may wrap again.
"""

from __future__ import annotations

import collections.abc
import logging
from collections.abc import Coroutine, Generator
from time import perf_counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import attrs
import outcome
import trio
from trio.lowlevel import Abort, Task, reschedule

from scheduler.jobs import JOB, Job
from scheduler.lanes import LaneSettings, TaskPriority
from scheduler.ready import GRANTED, IDLE, QUEUED, READY, Entry, Lane, Policy, ReadyLanes
from scheduler.statistics import Histogram

if TYPE_CHECKING:
    from scheduler.stalls import Watchdog

logger = logging.getLogger("scheduler")


def _message_of(trap: Coroutine[Any, Any, object]) -> Any:
    """What ``trap`` yields to Trio's loop."""
    message = trap.send(None)
    trap.close()
    return message


PARK = _message_of(trio.lowlevel.wait_task_rescheduled(lambda _: Abort.FAILED))  # noqa: ASYNC105
CHECKPOINT = _message_of(trio.lowlevel.cancel_shielded_checkpoint())  # noqa: ASYNC105

# What a checkpoint that waited at the gate is resumed with. Trio would send a fresh single-use ``Value(None)``; nothing
# here can be used up, so one object does for all: its ``unwrap`` returns None.
_NOTHING = cast(outcome.Outcome[object], SimpleNamespace(unwrap=[].clear))

NOTHING_HANDED = object()

CELLS: dict[Task, Cell] = {}
"""The gated tasks of all Trio runs in this process."""


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


class Cell(Entry):
    """The shell around a gated task's coroutine; Trio sees it as the task's coroutine.

    ``send``, ``throw`` and ``close`` go to the driving generator, everything else a coroutine can be asked to the
    coroutine itself, so that await frames, ``inspect.getcoroutinestate`` (``trio.Lock`` calls it) and tracebacks show
    what they would show without the gate.
    """

    __slots__ = ("__weakref__", "coro", "error", "gate", "handed", "job", "parked", "released_at", "send", "task",
                 "woken_at")  # fmt: skip
    lane: LaneRecord
    error: BaseException  # what Trio threw in; set only until it is passed on
    send: Any  # the driving generator's

    def __init__(self, task: Task, gate: Gate, job: Job) -> None:
        self.lane = gate.lanes[job.lane]  # not through Entry: every spawn pays for this
        self.state = IDLE
        self.sequence = 0
        self.task = task
        self.gate = gate
        self.job = job
        self.coro = cast(Any, task.coro)
        self.parked = False  # Trio waits for the gate to reschedule the task
        self.released_at = -1  # the tick of that
        self.handed: object = NOTHING_HANDED  # what `wake` handed over
        self.woken_at = 0.0
        self.send = _drive(self, self.coro, gate).send

    def throw(self, *error: Any) -> Any:
        return self.send.__self__.throw(*error)

    def close(self) -> None:
        self.send.__self__.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.coro, name)  # cr_frame, cr_await, cr_running, __qualname__, …

    def __await__(self) -> Generator[Any, Any, Any]:
        raise RuntimeError("this coroutine belongs to a task of the scheduler and cannot be awaited")

    def take_handed(self) -> outcome.Outcome[object]:
        handed, self.handed = self.handed, NOTHING_HANDED
        return outcome.Value(handed)

    def take_error(self) -> BaseException:
        error = self.error
        del self.error
        return error


collections.abc.Coroutine.register(Cell)


def _drive(cell: Cell, coro: Any, gate: Gate) -> Generator[Any, Any, Any]:
    """Take the task's steps, each after asking the gate. Yields to Trio what the task yields, or waits at the gate.

    Three stages in a loop: arrive, step, leave the step. The first has a loop of its own, because a task may be sent
    back many times; ``value`` is held meanwhile.
    """
    ready, critical, slow_step_s, clock = gate.ready, gate.lanes[0], gate.slow_step_s, perf_counter
    send, again = coro.send, ready.again
    value: Any = None
    thrown = False
    started = 0.0
    try:
        while True:
            # Arrive. IDLE means that Trio did not schedule this step as far as we know: a foreign runner drives the
            # coroutine (see `temporarily_detach_coroutine_object`), or the gate is open.
            lane = cell.lane
            if lane is critical:
                started = clock()
            else:
                if cell.state == READY:
                    ready.again(cell)  # lost its place in CRITICAL while Trio had it scheduled
                while True:
                    state = cell.state
                    if state == GRANTED:
                        started = clock()
                        if not ready.mask & cell.above and (started < gate.tick_ends or not gate.lower_ran):
                            ready.outstanding -= 1
                            cell.state = READY
                            gate.lower_ran = True
                            break
                        ready.send_back(cell)
                        cell.lane.forced_yields += 1
                        if not ready.outstanding:
                            gate.release()
                    elif state == QUEUED:
                        if not ready.outstanding:
                            gate.release()
                            if cell.state != QUEUED:
                                continue
                    else:
                        started = clock()
                        break
                    if cell.state == QUEUED:
                        cell.parked = True
                        yield PARK
                    else:  # chosen again at once: through Trio's queue into the next tick
                        cell.released_at = gate.tick
                        yield CHECKPOINT
                    if cell.released_at == gate.tick:
                        gate.fail_open()
                lane = cell.lane

            # Step.
            was_ready = cell.state
            if cell.woken_at:
                lane.wake_to_run.add(started - cell.woken_at)
                cell.woken_at = 0.0
            gate.step_started = started
            gate.current = cell
            if thrown:
                thrown = False
                message = coro.throw(cell.take_error())
            else:
                message = send(value)
            spent = clock() - started
            gate.current = None
            lane.busy_s += spent
            lane.steps += 1
            if spent > slow_step_s:
                gate.count_slow_step(lane, spent)
            if not lane.steps & 15:
                lane.step_time.add(spent)

            # Leave the step. In a foreign runner's step the task may have been reattached: then Trio has scheduled it.
            if message is not CHECKPOINT:
                if was_ready and cell.state == READY:
                    ready.rest(cell)
            elif cell.lane is not critical and was_ready and cell.state == READY:
                # Still runnable: straight to the lane's queue, past Trio's.
                again(cell)
                if not ready.outstanding:
                    gate.release()
                if cell.state == QUEUED:
                    cell.parked = True
                    value = yield PARK
                else:
                    cell.released_at = gate.tick
                    value = yield CHECKPOINT
                if cell.released_at == gate.tick:
                    gate.fail_open()
                continue
            if ready.queued and not ready.outstanding:
                gate.release()
            try:
                value = yield message
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: ASYNC103, BLE001 - what Trio throws goes on into the task
                cell.error = error
                thrown = True
    except StopIteration as stop:
        return stop.value
    except GeneratorExit:
        coro.close()
        raise
    finally:
        value = message = None  # the frame may live on in a traceback; no cycle through it
        gate.task_ended(cell, started)


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
                    reschedule(cell.task, _NOTHING)
                else:
                    reschedule(cell.task, cell.take_handed())

    def release_from_outside(self) -> None:
        """The same, for callers that may run between steps, when no step's end will do it."""
        if self.current is None and self.ready.queued and not self.ready.outstanding:
            self.release()

    def _unpark(self, cell: Cell) -> None:
        cell.parked = False
        cell.released_at = self.tick
        reschedule(cell.task, _NOTHING if cell.handed is NOTHING_HANDED else cell.take_handed())

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
