"""Random task programs give the same on plain Trio and in lanes: results, times, cancellations, exception groups.

A program is a tree of operations. Every wait takes a time of its own (a distinct number of microseconds on a mock
clock), so that what happens at one moment in one task cannot race with another: whatever differs is the gate's doing.
"""

from collections.abc import Callable
from typing import Any

import attrs
import hypothesis.strategies as st
import trio
from hypothesis import given
from scheduler_examples import EXAMPLES
from trio.testing import MockClock

from scheduler import Scheduler, TaskPriority, open_scheduler
from scheduler.cells import CELLS

Operation = tuple[Any, ...]

LEAVES = st.one_of(
    st.just(("sleep",)),
    st.just(("checkpoint",)),
    st.just(("shielded_checkpoint",)),
    st.tuples(st.just("send"), st.integers(0, 1)),
    st.tuples(st.just("receive"), st.integers(0, 1)),
    st.tuples(st.just("cancel"), st.integers(0, 3)),
    st.tuples(st.just("event_set"), st.integers(0, 1)),
    st.tuples(st.just("event_wait"), st.integers(0, 1)),
    st.tuples(st.just("lock"), st.integers(0, 1)),
    st.tuples(st.just("priority"), st.integers(0, 3), st.sampled_from(TaskPriority)),
    st.just(("raise",)),
    st.just(("agen",)),
)


def blocks(children: st.SearchStrategy[list[Operation]]) -> st.SearchStrategy[list[Operation]]:
    block = st.one_of(
        st.tuples(st.just("move_on_after"), st.booleans(), children),
        st.tuples(st.just("fail_after"), children),
        st.tuples(st.just("nursery"), st.lists(children, min_size=1, max_size=3)),
        st.tuples(st.just("start"), children),
        st.tuples(st.just("catch"), children),
        st.tuples(st.just("shield_finally"), children),
    )
    return st.lists(st.one_of(LEAVES, block), min_size=1, max_size=4)


BODIES = st.recursive(st.lists(LEAVES, min_size=1, max_size=4), blocks, max_leaves=8)
TASKS = st.lists(st.tuples(st.sampled_from(TaskPriority), BODIES), min_size=1, max_size=4)


def shape(error: BaseException) -> Any:
    """An exception as nested tuples, groups sorted: their order is Trio's business."""
    if isinstance(error, BaseExceptionGroup):
        return (type(error).__name__, tuple(sorted((shape(inner) for inner in error.exceptions), key=repr)))
    return (type(error).__name__, str(error) if isinstance(error, ValueError) else "")


@attrs.define(slots=False)
class Program:
    """Runs one program and records what happened and when."""

    tasks: list[tuple[TaskPriority, list[Operation]]]
    scheduler: Scheduler | None = None
    log: list[Any] = attrs.Factory(list)
    waits: int = 0
    names: int = 0
    scopes: dict[int, trio.CancelScope] = attrs.Factory(dict)

    def record(self, who: str, *what: Any) -> None:
        self.log.append((round(trio.current_time(), 9), who, *what))

    def next_wait(self, key: tuple[Any, ...]) -> float:
        """Deterministic in the place in the program, not in the order of execution; all different."""
        return 0.001 * (1 + hash(key) % 997) + 1e-6 * (hash((key, 1)) % 997) + 1e-8 * (hash((key, 2)) % 997)

    async def pause(self, place: tuple[Any, ...]) -> None:
        await trio.sleep(self.next_wait(place))

    async def body(self, who: str, operations: list[Operation], place: tuple[Any, ...]) -> None:
        for index, operation in enumerate(operations):
            here = (*place, index)
            try:
                await self.perform(who, operation, here)
            except BaseException as error:
                self.record(who, index, operation[0], shape(error))
                raise
            self.record(who, index, operation[0])
            await self.pause((*here, 7))

    async def perform(self, who: str, operation: Operation, place: tuple[Any, ...]) -> None:
        kind, *rest = operation
        await getattr(self, f"do_{kind}")(who, place, *rest)

    async def do_sleep(self, who: str, place: Any) -> None:
        await self.pause((*place, 3))

    async def do_checkpoint(self, who: str, place: Any) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()

    async def do_shielded_checkpoint(self, who: str, place: Any) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def do_send(self, who: str, place: Any, channel: int) -> None:
        with trio.move_on_after(self.next_wait((*place, 4))):
            await self.channels[channel][0].send((who, *place))

    async def do_receive(self, who: str, place: Any, channel: int) -> None:
        with trio.move_on_after(self.next_wait((*place, 5))):
            self.record(who, "got", await self.channels[channel][1].receive())

    async def do_cancel(self, who: str, place: Any, task: int) -> None:
        if task in self.scopes:
            self.scopes[task].cancel()

    async def do_event_set(self, who: str, place: Any, event: int) -> None:
        self.events[event].set()

    async def do_event_wait(self, who: str, place: Any, event: int) -> None:
        with trio.move_on_after(self.next_wait((*place, 6))):
            await self.events[event].wait()

    async def do_lock(self, who: str, place: Any, lock: int) -> None:
        with trio.move_on_after(self.next_wait((*place, 8))):
            async with self.locks[lock]:
                await self.pause((*place, 9))

    async def do_priority(self, who: str, place: Any, task: int, priority: TaskPriority) -> None:
        if task in self.jobs:
            self.jobs[task].set_priority(priority)

    async def do_raise(self, who: str, place: Any) -> None:
        raise ValueError(f"{who}{place}")

    async def do_agen(self, who: str, place: Any) -> None:
        async def numbers() -> Any:
            for number in range(2):
                await trio.lowlevel.checkpoint()
                yield number
                await self.pause((*place, number, 10))

        async for number in numbers():
            self.record(who, "number", number)

    async def do_move_on_after(self, who: str, place: Any, shield: bool, body: list[Operation]) -> None:
        with trio.move_on_after(self.next_wait((*place, 11)) * 2, shield=shield) as scope:
            await self.body(who, body, place)
        self.record(who, "caught", scope.cancelled_caught)

    async def do_fail_after(self, who: str, place: Any, body: list[Operation]) -> None:
        with trio.fail_after(self.next_wait((*place, 12)) * 2):
            await self.body(who, body, place)

    async def do_nursery(self, who: str, place: Any, bodies: list[list[Operation]]) -> None:
        async with trio.open_nursery() as nursery:
            for number, body in enumerate(bodies):
                nursery.start_soon(self.child, f"{who}.{number}", body, (*place, number))

    async def child(self, who: str, body: list[Operation], place: Any) -> None:
        await self.pause((*place, 13))
        await self.body(who, body, place)

    async def do_start(self, who: str, place: Any, body: list[Operation]) -> None:
        async def starting(task_status: Any) -> None:
            await self.pause((*place, 14))
            task_status.started((who, *place))
            await self.body(f"{who}s", body, (*place, 15))

        async with trio.open_nursery() as nursery:
            self.record(who, "started", await nursery.start(starting))

    async def do_catch(self, who: str, place: Any, body: list[Operation]) -> None:
        try:
            await self.body(who, body, place)
        except* (ValueError, trio.TooSlowError) as group:
            self.record(who, "handled", shape(group))

    async def do_shield_finally(self, who: str, place: Any, body: list[Operation]) -> None:
        try:
            await self.body(who, body, place)
        finally:
            with trio.CancelScope(shield=True):
                await self.pause((*place, 16))
                self.record(who, "cleaned up")

    async def task(self, number: int, body: list[Operation]) -> None:
        with trio.CancelScope() as scope:
            self.scopes[number] = scope
            cell = CELLS.get(trio.lowlevel.current_task())
            if cell:
                self.jobs[number] = cell.job
            await self.pause((number,))
            await self.body(str(number), body, (number,))
        self.record(str(number), "ended", scope.cancelled_caught)

    def prepare(self) -> None:
        self.channels = [trio.open_memory_channel[Any](size) for size in (0, 2)]
        self.events = [trio.Event() for _ in range(2)]
        self.locks = [trio.Lock() for _ in range(2)]
        self.jobs: dict[int, Any] = {}

    async def run(self, start: Callable[..., None], scope: trio.CancelScope) -> None:
        for number, (priority, body) in enumerate(self.tasks):
            start(priority, self.task, number, body)
        await trio.sleep(3.0)
        self.record("main", "cancels")
        scope.cancel()

    async def plain(self) -> None:
        self.prepare()
        async with trio.open_nursery() as nursery:
            await self.run(lambda _, function, *args: nursery.start_soon(function, *args), nursery.cancel_scope)

    async def gated(self, options: dict[str, Any]) -> None:
        self.prepare()
        async with open_scheduler(stall_after_s=float("inf"), **options) as scheduler:
            self.scheduler = scheduler
            await self.run(scheduler.start_soon, scheduler.cancel_scope)


def result_of(program: Program, function: Any, *args: Any) -> Any:
    """The log, sorted, and how the program ended."""
    ended: Any = None
    try:
        trio.run(function, *args, clock=MockClock(autojump_threshold=0))
    except* (ValueError, trio.TooSlowError) as error:
        ended = shape(error)
    assert program.log
    return sorted(program.log, key=repr), ended


OPTIONS = st.fixed_dictionaries(
    {
        "policy": st.sampled_from(["shares", "strict"]),
        "quantum_s": st.sampled_from([0.0, 20e-6, 200e-6, 1.0]),
        "gate_children": st.booleans(),
    }
)


@EXAMPLES
@given(tasks=TASKS, options=OPTIONS)
def test_a_program_runs_the_same_in_lanes(tasks: list[tuple[TaskPriority, list[Operation]]], options: Any) -> None:
    plain, gated = Program(tasks), Program(tasks)
    expected = result_of(plain, plain.plain)
    assert result_of(gated, gated.gated, options) == expected
    assert gated.scheduler is not None
    ready = gated.scheduler._gate.ready
    assert (ready.queued, ready.outstanding, ready.mask) == (0, 0, 0), "not at rest"
    assert all(lane.tasks == 0 for lane in gated.scheduler.statistics().lanes.values())
    assert not CELLS
