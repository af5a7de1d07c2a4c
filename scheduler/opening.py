"""``open_scheduler``: checks its arguments, opens the gate, sets what is process-wide, and closes it all again."""

import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from scheduler.collector import COLLECTION_OFF
from scheduler.core import Options, Scheduler
from scheduler.gate import GateSettings, acquire_gate, release_gate
from scheduler.lanes import LaneSettings, TaskPriority, checked_lanes
from scheduler.process_wide import STACK_SIZE, SWITCH_INTERVAL
from scheduler.ready import Policy
from scheduler.settings import RuntimeSettings
from scheduler.stalls import Watchdog

SHORTEST_SWITCH_INTERVAL_S = 10e-6


def open_scheduler(
    *,
    policy: Policy = "shares",
    quantum_s: float = 200e-6,
    lanes: Mapping[TaskPriority, LaneSettings] | None = None,
    critical_quota: float = 0.95,
    gate_children: bool = True,
    stall_after_s: float = 0.025,
    freeze_gc: bool = False,
    runtime: RuntimeSettings | None = None,
) -> AbstractAsyncContextManager[Scheduler]:
    """Open priority lanes: ``async with open_scheduler() as scheduler:``.

    Leaving the block waits for all tasks, queued submissions included. Errors that nobody took from a handle are raised
    then, together with the body's, as one ExceptionGroup.

    Args:
        policy: ``"shares"``: the lanes below CRITICAL share the loop by weight; ``"strict"``: they are served in order,
            above their minimum shares.
        quantum_s: seconds for which tasks below CRITICAL may run between two looks at I/O and CRITICAL; 0 lets one of
            them take one step.
        lanes: settings of single lanes; the defaults hold for the others.
        critical_quota: the part of the loop's busy time over a rolling second within which CRITICAL goes first.
        gate_children: whether tasks started in a nursery by a gated task follow it into its lane.
        stall_after_s: a step longer than this is counted as a stall and reported; ``math.inf`` turns that off.
        freeze_gc: turn automatic garbage collection off (process-wide) and collect in BACKGROUND.
        runtime: thread settings.

    A second scheduler in the same Trio run shares the first one's lanes and must have the same policy, quantum, lanes
    and quota; the first one's ``stall_after_s`` holds for both. While one is open, ``sys.setswitchinterval`` is at most
    a quarter of the quantum.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or out of range, named, before any effect.
        ValueError: (on entering) another scheduler of this run has other settings.
    """
    if policy not in ("shares", "strict"):
        raise ValueError(f"policy must be 'shares' or 'strict', was {policy!r}")
    if runtime is not None and not isinstance(runtime, RuntimeSettings):
        raise TypeError(f"runtime must be RuntimeSettings, was {runtime!r}")
    for name, value in (("gate_children", gate_children), ("freeze_gc", freeze_gc)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, was {value!r}")
    quantum_s = _checked_seconds("quantum_s", quantum_s, 0.0)
    if math.isinf(quantum_s):
        raise ValueError("quantum_s must be finite, was inf")
    gate_settings = GateSettings(
        policy=policy,
        quantum_s=quantum_s,
        lanes=checked_lanes(lanes, critical_quota),
        critical_quota=critical_quota,
    )
    return _opened(
        Options(
            gate=gate_settings,
            gate_children=gate_children,
            stall_after_s=_checked_seconds("stall_after_s", stall_after_s, 1e-4),
            freeze_gc=freeze_gc,
            runtime=runtime or RuntimeSettings(),
        )
    )


def _checked_seconds(name: str, value: float, lowest: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, was {value!r}")
    if not value >= lowest:
        raise ValueError(f"{name} must be at least {lowest:g}, was {value!r}")
    return float(value)


@asynccontextmanager
async def _opened(options: Options) -> AsyncIterator[Scheduler]:
    gate = acquire_gate(options.gate, options.stall_after_s)
    restore = _set_process_wide(options)
    try:
        if gate.schedulers == 1 and not math.isinf(options.stall_after_s):
            gate.watchdog = Watchdog(gate)
            gate.watchdog.start()
        try:
            async with trio.open_nursery() as nursery:
                scheduler = Scheduler(gate, nursery, options)
                if options.freeze_gc:
                    scheduler._start_collector()
                yield scheduler
        except BaseException as raised:
            untaken = scheduler._close()
            if not untaken:
                raise
            first = raised.exceptions if isinstance(raised, BaseExceptionGroup) else (raised,)
            raise BaseExceptionGroup(  # noqa: ASYNC104 - what was raised is in the group, with what nobody took
                "exceptions from the scheduler's block and its tasks", [*first, *untaken]
            ) from None
        untaken = scheduler._close()
        if untaken:
            raise ExceptionGroup("exceptions from the scheduler's tasks that nobody took", untaken)
    finally:
        restore()
        release_gate(gate)


def _set_process_wide(options: Options) -> Callable[[], None]:
    """Make the process-wide settings of one scheduler; returns what undoes them."""
    interval_s = max(SHORTEST_SWITCH_INTERVAL_S, options.gate.quantum_s / 4)
    stack_size = options.runtime.thread_stack_size
    SWITCH_INTERVAL.acquire(interval_s)
    if stack_size is not None:
        STACK_SIZE.acquire(stack_size)
    if options.freeze_gc:
        COLLECTION_OFF.acquire()

    def restore() -> None:
        if options.freeze_gc:
            COLLECTION_OFF.release()
        if stack_size is not None:
            STACK_SIZE.release(stack_size)
        SWITCH_INTERVAL.release(interval_s)

    return restore
