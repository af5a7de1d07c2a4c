"""Broadcasts without a ring: what one would write first. Each gives every receiver every event, one by one.

All take (receivers, events) and return (seconds, sums): a receiver's sum of all values is the answer to check.
"""

import asyncio
import time
from collections.abc import Callable

import trio
import trio.testing

Result = tuple[float, list[int]]
CAPACITY = 1000


def trio_memory_channels(receivers: int, events: int) -> Result:
    """A bounded memory channel per receiver, and a send into each of them."""
    sums: list[int] = []

    async def receive(channel: trio.MemoryReceiveChannel[int]) -> None:
        total = 0
        async for value in channel:
            total += value
        sums.append(total)

    async def run() -> float:
        async with trio.open_nursery() as nursery:
            ends = []
            for _ in range(receivers):
                send, channel = trio.open_memory_channel[int](CAPACITY)
                ends.append(send)
                nursery.start_soon(receive, channel)
            await trio.testing.wait_all_tasks_blocked()
            start = time.perf_counter()
            for value in range(events):
                for send in ends:
                    await send.send(value)
            for send in ends:
                send.close()
        return time.perf_counter() - start

    return trio.run(run), sums


def asyncio_queues(receivers: int, events: int) -> Result:
    """A bounded asyncio queue per receiver, and a put into each of them."""
    sums: list[int] = []

    async def receive(queue: "asyncio.Queue[int | None]") -> None:
        total = 0
        while (value := await queue.get()) is not None:
            total += value
        sums.append(total)

    async def run() -> float:
        queues: list[asyncio.Queue[int | None]] = [asyncio.Queue(CAPACITY) for _ in range(receivers)]
        async with asyncio.TaskGroup() as group:
            for queue in queues:
                group.create_task(receive(queue))
            await asyncio.sleep(0)
            start = time.perf_counter()
            for value in [*range(events), None]:
                for queue in queues:
                    await queue.put(value)
        return time.perf_counter() - start

    return asyncio.run(run()), sums


def list_with_events(receivers: int, events: int) -> Result:
    """One growing list and an event that is replaced at every append; unbounded, and nobody holds the sender back."""
    sums: list[int] = []
    log: list[int] = []
    state = {"grown": trio.Event(), "ended": False}

    async def receive() -> None:
        total = position = 0
        while True:
            while position < len(log):
                total += log[position]
                position += 1
            if state["ended"]:
                break
            await state["grown"].wait()  # type: ignore[attr-defined]
        sums.append(total)

    async def run() -> float:
        async with trio.open_nursery() as nursery:
            for _ in range(receivers):
                nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            start = time.perf_counter()
            for value in range(events):
                log.append(value)
                grown, state["grown"] = state["grown"], trio.Event()
                grown.set()  # type: ignore[attr-defined]
                await trio.lowlevel.checkpoint()
            state["ended"] = True
            state["grown"].set()  # type: ignore[attr-defined]
        return time.perf_counter() - start

    return trio.run(run), sums


ALTERNATIVES: dict[str, tuple[Callable[[int, int], Result], dict[int, int]]] = {
    "Trio memory channels": (trio_memory_channels, {1: 20_000, 10: 1_500, 100: 150}),
    "asyncio queues": (asyncio_queues, {1: 100_000, 10: 12_000, 100: 1_000}),
    "list and events": (list_with_events, {1: 20_000, 10: 5_000, 100: 800}),
}
"""What to run, and the number of events per number of receivers that takes a fraction of a second."""
