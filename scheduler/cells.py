"""The shell around a gated task's coroutine, and the loop in it that takes the task's steps.

A gated task's coroutine sits in a ``Cell``, a coroutine-like shell that Trio resumes in its place. Each time it is
resumed the shell asks the gate (``gate.py``) first whether the task may run now; only then does the task's own
coroutine take its next step.

- A task that waits at the gate cannot be aborted: what it was handed must not be lost. ``Cancelled`` reaches it at its
  next checkpoint, exactly as it does for a plain Trio task that was already rescheduled.
- A released task always resumes in a later tick; if the tick has not moved, the Instrument is gone and the gate opens.

Tasks are recognised by the ``CELLS`` map, never by the type of their coroutine: others (greenback) may wrap it again.
"""

from __future__ import annotations

import collections.abc
from collections.abc import Coroutine, Generator
from time import perf_counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import outcome
import trio
from trio.lowlevel import Abort, Task

from scheduler.jobs import Job
from scheduler.ready import GRANTED, IDLE, QUEUED, READY, Entry

if TYPE_CHECKING:
    from scheduler.gate import Gate, LaneRecord


def _message_of(trap: Coroutine[Any, Any, object]) -> Any:
    """What ``trap`` yields to Trio's loop."""
    message = trap.send(None)
    trap.close()
    return message


PARK = _message_of(trio.lowlevel.wait_task_rescheduled(lambda _: Abort.FAILED))  # noqa: ASYNC105
CHECKPOINT = _message_of(trio.lowlevel.cancel_shielded_checkpoint())  # noqa: ASYNC105

# What a checkpoint that waited at the gate is resumed with. Trio would send a fresh single-use ``Value(None)``; nothing
# here can be used up, so one object does for all: its ``unwrap`` returns None.
NOTHING = cast(outcome.Outcome[object], SimpleNamespace(unwrap=[].clear))

NOTHING_HANDED = object()

CELLS: dict[Task, Cell] = {}
"""The gated tasks of all Trio runs in this process."""


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
