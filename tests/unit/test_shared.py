"""The thread-safe structures by themselves; ``tests/stages/test_channels_threads.py`` hammers them."""

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from scheduler import EventLog, OrderQueue, PositionCache, SharedLog, SharedMap, SharedQueue


def test_a_map_gets_sets_and_removes() -> None:
    shared: SharedMap[str, int] = SharedMap({"a": 1})
    shared.set("b", 2)
    shared.update({"c": 3, "a": 0})
    assert (shared.get("a"), shared.get("b"), shared.get("none"), len(shared)) == (0, 2, None, 3)
    assert "c" in shared
    assert shared.remove("c") == 3
    assert shared.remove("c") is None
    assert shared.modify("b", lambda value: (value or 0) + 5) == 7
    assert shared.modify("new", lambda value: 1 if value is None else 2) == 1
    assert shared.snapshot() == {"a": 0, "b": 7, "new": 1}


def test_a_modification_that_raises_changes_nothing_and_frees_the_lock() -> None:
    shared: SharedMap[str, int] = SharedMap({"a": 1})
    with pytest.raises(ZeroDivisionError):
        shared.modify("a", lambda _: 1 // 0)
    assert shared.snapshot() == {"a": 1}
    shared.set("a", 2)


def test_a_snapshot_is_a_copy() -> None:
    cache: PositionCache[str, int] = PositionCache()
    cache.update("ABC", 5)
    snapshot = cache.snapshot()
    cache.update("ABC", 6)
    snapshot["XYZ"] = 1
    assert snapshot == {"ABC": 5, "XYZ": 1}
    assert cache.get("ABC") == 6
    assert cache.remove("ABC") == 6
    assert cache.remove("ABC") is None
    assert len(cache) == 0


def test_a_queue_refuses_what_does_not_fit_and_leaves_it_with_the_caller() -> None:
    queue: OrderQueue[str] = OrderQueue(2)
    assert queue.try_pop() is None
    assert queue.try_push("a")
    assert queue.try_push("b")
    assert not queue.try_push("c")
    assert queue.try_pop() == "a"
    assert queue.try_push("c")
    assert [queue.try_pop(), queue.try_pop(), queue.try_pop()] == ["b", "c", None]
    statistics = queue.statistics()
    assert (statistics.pushed, statistics.popped, statistics.refused, statistics.used) == (3, 3, 1, 0)


async def test_a_pop_waits_is_a_checkpoint_and_cancelled_takes_nothing() -> None:
    queue: SharedQueue[int] = SharedQueue(4)
    queue.try_push(1)
    with assert_checkpoints():
        assert await queue.pop() == 1
    queue.try_push(2)
    with trio.CancelScope() as scope:
        scope.cancel()
        await queue.pop()
    assert len(queue) == 1
    queue.try_pop()
    with trio.move_on_after(0):
        await queue.pop()
    assert queue.statistics().tasks_waiting == 0
    async with trio.open_nursery() as nursery:
        popped: list[int] = []

        @nursery.start_soon
        async def pop() -> None:
            with assert_checkpoints():
                popped.append(await queue.pop())

        await wait_all_tasks_blocked()
        assert queue.statistics().tasks_waiting == 1
        queue.try_push(3)
    assert popped == [3]


async def test_tasks_that_pop_are_served_in_turn_and_none_sleeps_beside_items() -> None:
    queue: SharedQueue[int] = SharedQueue(4)
    popped: list[tuple[str, int]] = []

    async def pop(name: str) -> None:
        popped.append((name, await queue.pop()))

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(pop, name)
            await wait_all_tasks_blocked()
        for value in range(3):
            queue.try_push(value)
    assert popped == [("a", 0), ("b", 1), ("c", 2)]


async def test_a_cancelled_pop_hands_its_wake_on() -> None:
    queue: SharedQueue[int] = SharedQueue(4)
    popped: list[int] = []
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        @nursery.start_soon
        async def cancelled() -> None:
            with scope:
                await queue.pop()

        await wait_all_tasks_blocked()

        @nursery.start_soon
        async def waits() -> None:
            popped.append(await queue.pop())

        await wait_all_tasks_blocked()
        queue.try_push(1)
        scope.cancel()
    assert popped == [1]


def test_a_log_that_refuses() -> None:
    log: EventLog[int] = EventLog(3)
    assert log.extend(range(5)) == 3
    assert len(log) == 3
    assert log.drain() == [0, 1, 2]
    assert log.drain() == []
    assert log.append(9)
    assert log.statistics().dropped == {"refused": 2}
    assert (log.statistics().appended, log.statistics().drained, log.statistics().used) == (4, 3, 1)


def test_a_log_that_drops_its_oldest() -> None:
    log: SharedLog[int] = SharedLog(3, when_full="drop_oldest")
    assert log.extend(range(5)) == 5
    assert log.drain() == [2, 3, 4]
    assert log.statistics().dropped == {"overwritten": 2}


@pytest.mark.parametrize("capacity", [0, -5])
@pytest.mark.parametrize("structure", [SharedQueue, SharedLog, OrderQueue, EventLog])
def test_a_capacity_below_one_is_refused(structure: type[SharedQueue[int]], capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity must be at least 1"):
        structure(capacity)


def test_an_unknown_full_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="when_full must be"):
        SharedLog(3, when_full="panic")  # type: ignore[arg-type]
