"""Invariants of a live gate under random load: nothing lost, everything ends, nothing hangs, nothing stays behind."""

import math
from typing import Any

import hypothesis.strategies as st
import trio
from hypothesis import given
from scheduler_examples import EXAMPLES
from trio.testing import MockClock

from scheduler import TaskPriority, open_scheduler
from scheduler.cells import CELLS
from scheduler.parking import park, wake, wake_all
from scheduler.testing import assert_at_rest

LANES = st.sampled_from(TaskPriority)
QUANTA = st.sampled_from([0.0, 20e-6, 200e-6])
POLICIES = st.sampled_from(["shares", "strict"])
ACTIONS = st.lists(
    st.tuples(st.sampled_from(["put", "cancel", "yield", "move", "herd"]), st.integers(0, 7), LANES), max_size=30
)


class Exchange:
    """A hand-off built on park and wake: an item goes to the first waiter, or waits for one."""

    def __init__(self) -> None:
        self.items: list[int] = []
        self.waiters: dict[trio.lowlevel.Task, None] = {}

    def put(self, item: int) -> None:
        if self.waiters:
            task = next(iter(self.waiters))
            del self.waiters[task]
            wake(task, item)
        else:
            self.items.append(item)

    async def get(self) -> Any:
        if self.items:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return self.items.pop(0) if self.items else None
        task = trio.lowlevel.current_task()
        self.waiters[task] = None
        return await park(lambda: self.waiters.pop(task))

    def put_to_all(self, item: int) -> int:
        woken = list(self.waiters)
        self.waiters.clear()
        wake_all(woken, item)
        return len(woken)


@EXAMPLES
@given(lanes=st.lists(LANES, min_size=1, max_size=8), actions=ACTIONS, policy=POLICIES, quantum_s=QUANTA)
def test_nothing_is_lost_and_everything_ends(
    lanes: list[TaskPriority], actions: list[Any], policy: Any, quantum_s: float
) -> None:
    received: list[int] = []
    exchange = Exchange()
    sent = 0

    async def receiver() -> None:
        while True:
            item = await exchange.get()
            if item is not None:
                received.append(item)

    async def main() -> None:
        nonlocal sent
        async with open_scheduler(policy=policy, quantum_s=quantum_s, stall_after_s=math.inf) as scheduler:
            handles = [scheduler.spawn(lane, receiver) for lane in lanes]
            for action, index, lane in actions:
                if action == "put":
                    exchange.put(sent)
                    sent += 1
                elif action == "herd":
                    sent += exchange.put_to_all(sent)
                elif action == "cancel":
                    handles[index % len(handles)].cancel()
                elif action == "move":
                    handles[index % len(handles)].priority = lane
                else:
                    await trio.lowlevel.checkpoint()
            scheduler.cancel_scope.cancel()
        assert all(handle.done for handle in handles)
        assert_at_rest(scheduler)
        assert not CELLS
        assert not exchange.waiters

    with_bound(main)
    assert len(received) + len(exchange.items) == sent


@EXAMPLES
@given(
    lanes=st.lists(LANES, min_size=1, max_size=12),
    policy=POLICIES,
    quantum_s=QUANTA,
    remove_after=st.integers(0, 12),
    foreign=st.booleans(),
)
def test_losing_the_instrument_or_closing_early_never_hangs(
    lanes: list[TaskPriority], policy: Any, quantum_s: float, remove_after: int, foreign: bool
) -> None:
    """Invariant 10, and with it invariant 4: whatever is parked gets its turn."""
    steps = 0

    async def worker() -> None:
        nonlocal steps
        for _ in range(10):
            steps += 1
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def parent() -> None:
                nursery.start_soon(worker)
                await worker()

            async with open_scheduler(policy=policy, quantum_s=quantum_s, stall_after_s=math.inf) as scheduler:
                for lane in lanes:
                    scheduler.start_soon(lane, parent if foreign else worker)
                for _ in range(remove_after):
                    await trio.lowlevel.checkpoint()
                if remove_after % 2:
                    trio.lowlevel.remove_instrument(scheduler._gate._instrument)
        assert not CELLS

    with_bound(main)
    assert steps == 10 * len(lanes) * (2 if foreign else 1)


def with_bound(main: Any) -> None:
    """Run ``main``. If everything sleeps before it is done, the mock clock jumps to the deadline: a failure.

    What waits at the gate cannot be cancelled, so the gate is opened then. A bound in real seconds would blame the gate
    for a process that was put aside.
    """
    hung = False

    async def rescue() -> None:
        nonlocal hung
        await trio.sleep(5)
        hung = True
        for gate in {cell.gate for cell in CELLS.values()}:
            gate.shut_down()

    async def bounded() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rescue)
            with trio.fail_after(10):
                await main()
            nursery.cancel_scope.cancel()

    trio.run(bounded, clock=MockClock(autojump_threshold=0))
    assert not hung, "something waited for ever"
