"""The event bus: everything from the subscription on, in order, and nobody waits for a listener."""

from collections import deque
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from scheduler import Lagged
from trio_nt.event_bus import DEFAULT_CAPACITY, EventBus, EventReceiver


async def drain(receiver: EventReceiver[Any]) -> list[Any]:
    """Everything that is there; what was missed as ``("missed", count)``."""
    found: list[Any] = []
    while receiver._events or receiver._missed:
        try:
            found.append(await receiver.receive())
        except Lagged as lagged:
            found.append(("missed", lagged.missed))
    return found


async def test_listeners_hear_what_came_after_them() -> None:
    bus = EventBus[int]()
    bus.publish(0)
    first = bus.subscribe()
    bus.publish(1)
    second = bus.subscribe()
    bus.publish(2)
    assert await drain(first) == [1, 2]
    assert await drain(second) == [2]


async def test_who_falls_behind_loses_the_oldest_and_is_told_once() -> None:
    bus = EventBus[int](3)
    slow, quick = bus.subscribe(), bus.subscribe()
    for number in range(5):
        bus.publish(number)
        assert await quick.receive() == number
    with pytest.raises(Lagged) as lagged:
        await slow.receive()
    assert lagged.value.missed == 2
    assert await drain(slow) == [2, 3, 4]


async def test_the_end_comes_after_what_is_left() -> None:
    bus = EventBus[int]()
    listener, gone = bus.subscribe(), bus.subscribe()
    gone.close()
    gone.close()
    bus.publish(1)
    bus.end()
    assert [event async for event in listener] == [1]
    assert [event async for event in gone] == []
    assert [event async for event in bus.subscribe()] == []
    with pytest.raises(trio.EndOfChannel):
        await listener.receive()


async def test_a_listener_that_waits_is_woken_by_an_event_and_by_the_end() -> None:
    bus = EventBus[int]()
    heard: list[Any] = []

    async def listen() -> None:
        with bus.subscribe() as listener:
            async for event in listener:
                heard.append(event)  # noqa: PERF401 - each is looked at as it comes
        heard.append("end")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        bus.publish(1)
        await wait_all_tasks_blocked()
        assert heard == [1]
        bus.end()
    assert heard == [1, "end"]


async def test_leaving_ends_who_waits_and_lets_the_bus_forget_the_listener() -> None:
    bus = EventBus[int]()
    listener = bus.subscribe()

    async def listen() -> None:
        with pytest.raises(trio.EndOfChannel):
            await listener.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        listener.close()
    assert bus._receivers == []


async def test_a_cancelled_wait_takes_nothing() -> None:
    bus = EventBus[int]()
    listener = bus.subscribe()
    with trio.CancelScope() as scope:
        bus.publish(1)
        scope.cancel()
        await listener.receive()
    assert scope.cancelled_caught
    assert await listener.receive() == 1


async def test_two_tasks_cannot_share_a_listener() -> None:
    listener = EventBus[int]().subscribe()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.receive)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await listener.receive()
        nursery.cancel_scope.cancel()


def test_the_capacity_is_the_seeds_and_at_least_one() -> None:
    assert DEFAULT_CAPACITY == 1_000
    with pytest.raises(ValueError, match="capacity must be at least 1, was 0"):
        EventBus[int](0)


@pytest.mark.slow
@given(st.integers(1, 5), st.lists(st.sampled_from(["publish", "subscribe", "read", "close"]), max_size=40))
def test_against_one_bounded_list_per_listener(capacity: int, script: list[str]) -> None:
    async def main() -> None:
        bus = EventBus[int](capacity)
        listeners: list[EventReceiver[int]] = []
        models: list[tuple[deque[int], list[int]]] = []
        for number, step in enumerate(script):
            if step == "publish":
                bus.publish(number)
                for kept, missed in models:
                    missed[0] += len(kept) == capacity
                    kept.append(number)
            elif step == "subscribe":
                listeners.append(bus.subscribe())
                models.append((deque(maxlen=capacity), [0]))
            elif listeners and step == "close":
                listeners.pop(0).close()
                models.pop(0)
            elif listeners:
                kept, missed = models[0]
                expected: list[Any] = [("missed", missed[0])] if missed[0] else []
                assert await drain(listeners[0]) == expected + list(kept)
                kept.clear()
                missed[0] = 0

    trio.run(main)
