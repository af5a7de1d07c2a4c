"""Plain threads hammer the channels, with the interpreter switching between them as often as it can."""

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from scheduler import (
    Backpressure,
    EventLog,
    OrderQueue,
    PositionCache,
    SendTimeout,
    SharedLog,
    SharedMap,
    SharedQueue,
    TaskPriority,
    open_broadcast,
    open_mailbox,
    open_scheduler,
)

THREADS = 4


@pytest.fixture(autouse=True)
def frantic_switching() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def hammer(work: Callable[[int], None], threads: int = THREADS) -> None:
    """Run ``work(0)`` … ``work(threads - 1)`` at once; the first error is raised here."""
    errors: list[BaseException] = []
    begin = threading.Barrier(threads)

    def run(number: int) -> None:
        begin.wait()
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  # handed to the test
            errors.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]


def in_order_per_thread(values: list[tuple[int, int]], each: int) -> bool:
    return all([v for t, v in values if t == thread] == list(range(each)) for thread in range(THREADS))


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [1, 3, 1000])
@pytest.mark.parametrize("in_lane", [False, True])
async def test_threads_send_into_a_mailbox(capacity: int, in_lane: bool) -> None:
    each = 500
    sender, receiver = open_mailbox[tuple[int, int]](capacity, backpressure=Backpressure(send_timeout_s=60))
    received: list[tuple[int, int]] = []

    async def receive() -> None:
        received.extend([value async for value in receiver])

    async def threads() -> None:
        with sender:
            await trio.to_thread.run_sync(
                hammer, lambda thread: [sender.send_from_thread((thread, value)) for value in range(each)]
            )

    if in_lane:
        async with open_scheduler() as scheduler:
            scheduler.start_soon(TaskPriority.LOW, receive)
            await threads()
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await threads()
    assert len(received) == THREADS * each
    assert in_order_per_thread(received, each)


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [3, 64])
async def test_threads_send_into_a_ring(capacity: int) -> None:
    each, rows = 600, 3
    sender, receiver = open_broadcast(capacity, {"thread": "i4", "value": "i8"})
    received: dict[int, list[tuple[int, int]]] = {0: [], 1: []}

    async def receive(number: int, end: Any) -> None:
        async for batch in end:
            received[number] += zip(batch["thread"].tolist(), batch["value"].tolist(), strict=True)

    def send(thread: int) -> None:
        for first in range(0, each, rows):
            sender.send_from_thread({"thread": thread, "value": np.arange(first, first + rows)})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, 0, receiver)
        nursery.start_soon(receive, 1, sender.subscribe())
        await trio.to_thread.run_sync(hammer, send)
        sender.close()
    assert received[0] == received[1]
    assert in_order_per_thread(received[0], each)
    runs = [received[0][start : start + rows] for start in range(0, len(received[0]), rows)]
    assert all(len({thread for thread, _ in run}) == 1 for run in runs), "a send of several rows is one piece"


async def test_a_thread_times_out_with_its_item_like_a_task() -> None:
    sender, receiver = open_mailbox[str](2)
    ring, reader = open_broadcast(2, {"value": "i8"}, backpressure=Backpressure(send_timeout_s=0.01))
    sender.send_nowait("a")
    sender.send_nowait("b")
    ring.send_nowait({"value": 1})
    rows = {"value": np.array([2, 3])}

    def time_out() -> None:
        with pytest.raises(SendTimeout) as timeout:
            sender.send_from_thread("c", timeout_s=0.01)
        assert timeout.value.item == "c"
        with pytest.raises(SendTimeout) as timeout:
            ring.send_from_thread(rows)
        assert timeout.value.item is rows

    await trio.to_thread.run_sync(time_out)
    await wait_all_tasks_blocked()
    assert sender.statistics().timed_out == 1
    assert sender.statistics().sends_waiting == ring.statistics().sends_waiting == 0
    assert receiver.receive_batch_nowait() == ["a", "b"]
    assert reader.receive_nowait()["value"].tolist() == [1]
    sender.send_nowait("d")
    assert receiver.receive_nowait() == "d"


@pytest.mark.slow
async def test_whether_a_thread_times_out_or_not_its_item_is_in_one_place() -> None:
    """Timeouts and room come at nearly the same moment; each item was sent or handed back, never both or neither."""
    sender, receiver = open_mailbox[tuple[int, int]](1)
    handed_back: list[tuple[int, int]] = []
    received: list[tuple[int, int]] = []

    def send(thread: int) -> None:
        for value in range(200):
            try:
                sender.send_from_thread((thread, value), timeout_s=0.0005)
            except SendTimeout as timeout:
                handed_back.append(timeout.item)  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            async for value in receiver:
                received.append(value)
                await trio.sleep(0.0004)

        await trio.to_thread.run_sync(hammer, send)
        await wait_all_tasks_blocked()
        sender.close()
    assert sorted(received + handed_back) == [(t, v) for t in range(THREADS) for v in range(200)]


async def test_a_thread_hears_that_the_channel_closed() -> None:
    sender, receiver = open_mailbox[int](1)
    sender.send_nowait(0)
    raised: list[type[BaseException]] = []

    def send(end: Any) -> None:
        try:
            end.send_from_thread(1)
        except (trio.ClosedResourceError, trio.BrokenResourceError) as error:
            raised.append(type(error))

    clone = sender.clone()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, send, sender)
        while not sender.statistics().sends_waiting:
            await trio.sleep(0.001)
        sender.close()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, send, clone)
        while not clone.statistics().sends_waiting:
            await trio.sleep(0.001)
        receiver.close()
    await trio.to_thread.run_sync(send, clone)
    await trio.to_thread.run_sync(send, sender)
    assert raised == [
        trio.ClosedResourceError,
        trio.BrokenResourceError,
        trio.BrokenResourceError,
        trio.ClosedResourceError,
    ]


async def test_a_thread_that_waits_sees_a_stalled_receiver_detached() -> None:
    sender, receiver = open_broadcast(2, {"value": "i8"}, stall_timeout_s=0.02)
    sender.send_nowait({"value": [1, 2]})
    await trio.to_thread.run_sync(sender.send_from_thread, {"value": 3})
    assert sender.statistics().detached == ("receiver-1",)
    with pytest.raises(trio.BrokenResourceError):
        receiver.receive_nowait()


async def test_in_a_trio_thread_it_is_an_error() -> None:
    sender, _receiver = open_mailbox[int](1)
    with pytest.raises(RuntimeError, match="await send"):
        sender.send_from_thread(1)


def test_without_a_trio_run_it_is_an_error() -> None:
    sender, _receiver = open_mailbox[int](1)
    with pytest.raises(RuntimeError, match="opened inside a Trio run"):
        sender.send_from_thread(1)


def test_after_the_run_it_is_a_broken_resource() -> None:
    async def open_one() -> Any:
        return open_mailbox[int](1)

    sender, _receiver = trio.run(open_one)
    with pytest.raises(trio.BrokenResourceError, match="has ended"):
        sender.send_from_thread(1)


def test_a_thread_that_waits_when_the_run_ends_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.sending._RUN_IS_OVER_CHECK_S", 0.01)
    raised: list[BaseException] = []

    async def leave_a_thread_waiting() -> threading.Thread:
        sender, _receiver = open_mailbox[int](1)
        sender.send_nowait(0)

        def send() -> None:
            try:
                sender.send_from_thread(1)
            except trio.BrokenResourceError as error:
                raised.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        while not sender.statistics().sends_waiting:
            await trio.sleep(0.001)
        return thread

    trio.run(leave_a_thread_waiting).join()
    assert len(raised) == 1


@pytest.mark.slow
@pytest.mark.parametrize("queue_type", [SharedQueue, OrderQueue])
def test_a_shared_queue_loses_and_doubles_nothing(queue_type: Any) -> None:
    queue = queue_type(7)
    each = 3000
    popped: list[list[tuple[int, int]]] = [[] for _ in range(THREADS)]
    longest: list[int] = []

    def work(thread: int) -> None:
        pushed = 0
        mine = popped[thread]
        while pushed < each or len(queue):
            if pushed < each and queue.try_push((thread, pushed)):
                pushed += 1
            longest.append(len(queue))
            item = queue.try_pop()
            if item is not None:
                mine.append(item)

    hammer(work)
    everything = sorted(item for mine in popped for item in mine)
    assert everything == [(t, v) for t in range(THREADS) for v in range(each)]
    assert max(longest) <= 7
    for mine in popped:
        for thread in range(THREADS):
            values = [value for t, value in mine if t == thread]
            assert values == sorted(values)


@pytest.mark.slow
async def test_threads_wake_tasks_that_pop() -> None:
    queue: SharedQueue[int] = SharedQueue(3)
    each = 1000
    popped: list[int] = []

    async def pop_all() -> None:
        while True:
            popped.append(await queue.pop())

    def push(thread: int) -> None:
        for value in range(each):
            while not queue.try_push(thread * each + value):
                pass

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(pop_all)
        await trio.to_thread.run_sync(hammer, push)
        await wait_all_tasks_blocked(0.001)
        while len(popped) < THREADS * each:
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    assert sorted(popped) == list(range(THREADS * each))
    assert queue.statistics().tasks_waiting == 0


@pytest.mark.slow
@pytest.mark.parametrize("log_type", [SharedLog, EventLog])
def test_a_shared_log_keeps_every_threads_order_and_counts_what_it_refuses(log_type: Any) -> None:
    log = log_type(50)
    each = 5000
    drained: list[tuple[int, int]] = []
    accepted: list[list[int]] = [[] for _ in range(THREADS)]
    done = threading.Event()

    def drain() -> None:
        while not done.is_set():
            drained.extend(log.drain())

    drainer = threading.Thread(target=drain)
    drainer.start()
    hammer(lambda thread: accepted[thread].extend(value for value in range(each) if log.append((thread, value))))
    done.set()
    drainer.join()
    drained.extend(log.drain())
    for thread in range(THREADS):
        assert [value for t, value in drained if t == thread] == accepted[thread]
    statistics = log.statistics()
    assert statistics.drained == statistics.appended == len(drained)
    assert statistics.appended + statistics.dropped.get("refused", 0) == THREADS * each


@pytest.mark.slow
def test_a_snapshot_never_shows_half_an_update() -> None:
    cache: PositionCache[str, int] = PositionCache()
    cache.update_all({"AAA": 0, "BBB": 0})
    torn: list[dict[str, int]] = []

    def work(thread: int) -> None:
        for number in range(5000):
            if thread < 2:
                cache.update_all({"AAA": number, "BBB": -number, f"only {thread}": number})
            else:
                snapshot = cache.snapshot()
                if snapshot["AAA"] != -snapshot["BBB"]:
                    torn.append(snapshot)

    hammer(work)
    assert torn == []


@pytest.mark.slow
def test_no_modification_of_a_shared_map_is_lost() -> None:
    shared: SharedMap[str, int] = SharedMap({"count": 0})

    def work(_: int) -> None:
        for _ in range(5000):
            shared.modify("count", lambda value: (value or 0) + 1)

    hammer(work)
    assert shared.get("count") == THREADS * 5000
