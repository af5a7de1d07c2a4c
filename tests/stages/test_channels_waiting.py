"""Sends that wait: timeouts, watermarks, stalled receivers, what is told about them. On a clock that jumps."""

import logging
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import trio
from channel_kinds import MAILBOX_WITH_WATERMARKS, RING_WITH_WATERMARKS, Kind
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler import Backpressure, SendTimeout, TaskPriority, open_broadcast, open_mailbox, open_scheduler, open_watch

HASTY = Backpressure(high_watermark=0.5, low_watermark=0.25, send_timeout_s=2.0)


def column(*values: int) -> dict[str, Any]:
    return {"value": np.array(values)}


async def test_a_timeout_carries_the_item_and_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    sender, receiver = open_mailbox[str](4, backpressure=HASTY)
    sender.send_nowait("a")
    sender.send_nowait("b")
    start = trio.current_time()
    with pytest.raises(SendTimeout, match="within 2 s") as timeout:
        await sender.send("c")
    assert timeout.value.item == "c"
    assert trio.current_time() - start == 2.0
    assert receiver.receive_batch_nowait() == ["a", "b"]
    assert sender.statistics().timed_out == 1
    await sender.send(timeout.value.item)
    assert receiver.receive_nowait() == "c"


async def test_a_ring_times_out_likewise(autojump_clock: MockClock) -> None:
    sender, receiver = open_broadcast(8, {"value": "i8"}, backpressure=HASTY)
    await sender.send(column(1, 2, 3, 4))
    rows = column(5, 6)
    with pytest.raises(SendTimeout) as timeout:
        await sender.send(rows)
    assert timeout.value.item is rows
    assert receiver.receive_nowait()["value"].tolist() == [1, 2, 3, 4]
    assert sender.statistics().timed_out == 2
    with pytest.raises(trio.WouldBlock):
        receiver.receive_nowait()


async def test_a_batch_that_times_out_hands_back_what_was_not_sent(autojump_clock: MockClock) -> None:
    sender, receiver = open_mailbox[int](8, backpressure=HASTY)
    with pytest.raises(SendTimeout) as timeout:
        await sender.send_batch(range(11))
    assert receiver.receive_batch_nowait() + timeout.value.item == list(range(11))
    assert sender.statistics().timed_out + sender.statistics().sent <= 11


async def test_a_timed_out_send_lets_the_next_one_go(autojump_clock: MockClock) -> None:
    sender, receiver = open_broadcast(8, {"value": "i8"}, backpressure=HASTY)
    await sender.send(column(1, 2))
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def too_large() -> None:
            with pytest.raises(SendTimeout):
                await sender.send(column(3, 4, 5))

        await wait_all_tasks_blocked()

        @nursery.start_soon
        async def small() -> None:
            await trio.sleep(1.5)
            await sender.send(column(8))
            assert trio.current_time() - start == 2.0

        start = trio.current_time()
    assert receiver.receive_nowait()["value"].tolist() == [1, 2, 8]


@pytest.mark.parametrize("kind", [MAILBOX_WITH_WATERMARKS, RING_WITH_WATERMARKS], ids=str)
async def test_waiting_below_the_low_watermark(kind: Kind, autojump_clock: MockClock) -> None:
    sender, receiver = kind.open(8)
    await sender.wait_below_low_watermark()
    for value in range(4):
        kind.send_nowait(sender, value)
    reached: list[str] = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            await sender.wait_below_low_watermark()
            reached.append("low")

        @nursery.start_soon
        async def give_up() -> None:
            with trio.move_on_after(1):
                await sender.wait_below_low_watermark()
                reached.append("never")

        await trio.sleep(2)
        assert reached == []
        while sender.statistics().used > 2:
            await trio.sleep(1)
            assert reached == []
            if kind is MAILBOX_WITH_WATERMARKS:
                receiver.receive_nowait()
            else:
                receiver.receive_nowait(1)
        await trio.sleep(1)
        assert reached == ["low"]


@pytest.mark.parametrize("kind", [MAILBOX_WITH_WATERMARKS, RING_WITH_WATERMARKS], ids=str)
async def test_the_current_rate_is_readable(kind: Kind) -> None:
    sender, receiver = kind.open(8)
    assert sender.current_rate == 1.0
    for value in range(kind.room(8)):
        kind.send_nowait(sender, value)
    with pytest.raises(trio.WouldBlock):
        kind.send_nowait(sender, 99)
    assert sender.current_rate == sender.statistics().current_rate == 0.5
    assert sender.statistics().slow_downs == 1
    with suppress(trio.WouldBlock):
        while True:
            kind.take_nowait(receiver)
    assert sender.current_rate == 1.0


def test_a_refused_send_slows_smaller_ones_too() -> None:
    """There would be room, but a slowed flow accepts only what the consumption allows."""
    sender, receiver = open_broadcast(16, {"value": "i8"}, backpressure=HASTY)
    sender.send_nowait(column(*range(7)))
    with pytest.raises(trio.WouldBlock):
        sender.send_nowait(column(7, 8))
    with pytest.raises(trio.WouldBlock):
        sender.send_nowait(column(7))
    assert len(receiver.receive_nowait(2)) == 2
    receiver.receive_nowait(1)
    sender.send_nowait(column(7))
    with pytest.raises(trio.WouldBlock):
        sender.send_nowait(column(8))


async def test_in_a_lane_a_herd_of_receivers_costs_trio_nothing() -> None:
    """Rows wake fifty receivers without one of them entering Trio's run queue before its lane lets it."""

    class Counter(trio.abc.Instrument):
        scheduled = 0

        def task_scheduled(self, task: trio.lowlevel.Task) -> None:
            self.scheduled += 1

    sender, receiver = open_broadcast(8, {"value": "i8"})
    writer, reader = open_watch(0)
    received: list[int] = []

    async def receive(end: Any) -> None:
        received.append(len(await end.receive()))

    async def read(end: Any) -> None:
        received.append(await end.changed())

    counter = Counter()

    async def send() -> None:
        trio.lowlevel.add_instrument(counter)
        sender.send_nowait(column(1))
        writer.set(1)
        trio.lowlevel.remove_instrument(counter)

    async with open_scheduler() as scheduler:
        for _ in range(50):
            scheduler.start_soon(TaskPriority.LOW, receive, receiver.subscribe())
            scheduler.start_soon(TaskPriority.LOW, read, reader.clone())
        await wait_all_tasks_blocked()
        scheduler.start_soon(TaskPriority.CRITICAL, send)
    assert counter.scheduled == 0
    assert received == [1] * 100


async def test_a_send_larger_than_the_watermark_goes_into_an_empty_ring(autojump_clock: MockClock) -> None:
    sender, receiver = open_broadcast(8, {"value": "i8"}, backpressure=HASTY)
    await sender.send(column(*range(8)))
    assert receiver.receive_nowait(5)["value"].tolist() == [0, 1, 2, 3, 4]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.send, column(*range(8, 16)))
        await wait_all_tasks_blocked()
        assert receiver.receive_nowait()["value"].tolist() == [5, 6, 7]
        await wait_all_tasks_blocked()
        assert sender.statistics().sent == 8
        assert (await receiver.receive())["value"].tolist() == [8, 9, 10, 11, 12, 13, 14, 15]


async def test_a_stalled_receiver_is_named_counted_and_detached(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    sender, receiver = open_broadcast(4, {"value": "i8"}, stall_timeout_s=3.0)
    sleepy = sender.subscribe(name="sleepy")
    received: list[int] = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def reads() -> None:
            async for batch in receiver:
                received.extend(batch["value"].tolist())

        start = trio.current_time()
        for value in range(20):
            await sender.send(column(value))
        assert trio.current_time() - start == 3.0, "it is waited for once"
        sender.close()
    assert received == list(range(20))
    assert caplog.record_tuples == [
        ("scheduler.hub", logging.WARNING, "sleepy held the sender longer than 3 s: it is detached")
    ]
    statistics = sender.statistics()
    assert statistics.detached == ("sleepy",)
    assert statistics.dropped == {"detached": 4}
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match="sleepy was detached"):
            sleepy.receive_nowait()
        with pytest.raises(trio.BrokenResourceError, match="sleepy was detached"):
            await sleepy.receive()
    sleepy.close()


async def test_a_stalled_receiver_may_be_waited_for(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    sender, receiver = open_broadcast(2, {"value": "i8"}, stall_timeout_s=3.0, detach_stalled=False)
    await sender.send(column(1, 2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.send, column(3))
        await trio.sleep(10)
        (only,) = sender.statistics().receivers
        assert only.stalls == 3
        assert len(caplog.records) == 3
        assert "waited for" in caplog.records[0].message
        assert receiver.receive_nowait()["value"].tolist() == [1, 2]
        assert (await receiver.receive())["value"].tolist() == [3]


async def test_a_receiver_that_goes_on_in_time_is_no_stall(autojump_clock: MockClock) -> None:
    sender, receiver = open_broadcast(2, {"value": "i8"}, stall_timeout_s=3.0)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            with sender:
                for value in range(20):
                    await sender.send(column(value))

        received = []
        async for batch in receiver:
            received += batch["value"].tolist()
            await trio.sleep(2.5)
    assert received == list(range(20))
    assert sender.statistics().detached == ()


async def test_a_receiver_that_stalls_while_holding_a_batch_loses_it(autojump_clock: MockClock) -> None:
    sender, receiver = open_broadcast(2, {"value": "i8"}, stall_timeout_s=3.0, debug=True)
    await sender.send(column(1, 2))
    batch = await receiver.receive()
    await sender.send(column(3, 4))
    assert sender.statistics().detached == ("receiver-1",)
    with pytest.raises(RuntimeError, match="given back"):
        batch["value"]


async def test_a_send_timeout_comes_before_a_longer_stall_timeout(autojump_clock: MockClock) -> None:
    sender, receiver = open_broadcast(2, {"value": "i8"}, backpressure=HASTY, stall_timeout_s=5.0)
    await sender.send(column(1, 2))
    with pytest.raises(SendTimeout):
        await sender.send(column(3))
    assert sender.statistics().detached == ()
    receiver.close()


async def test_a_collected_receiver_frees_a_sender_that_waits(autojump_clock: MockClock) -> None:
    sender, receiver = open_broadcast(2, {"value": "i8"})
    await sender.send(column(1, 2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.send, column(3))
        await wait_all_tasks_blocked()
        assert sender.statistics().sends_waiting == 1
        del receiver
        await wait_all_tasks_blocked()
    assert sender.statistics().sent == 3
    assert sender.statistics().receivers == ()


async def test_a_receiver_that_leaves_frees_a_sender_that_waits() -> None:
    sender, receiver = open_broadcast(2, {"value": "i8"})
    other = sender.subscribe()
    await sender.send(column(1, 2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.send, column(3))
        await wait_all_tasks_blocked()
        other.receive_nowait()
        receiver.close()
        await wait_all_tasks_blocked()
        assert sender.statistics().sent == 2, "the other one still holds its batch"
        assert (await other.receive())["value"].tolist() == [3]


async def test_receive_nowait_beside_a_receive_that_waits_on_the_same_end() -> None:
    sender, receiver = open_broadcast(4, {"value": "i8"})
    async with trio.open_nursery() as nursery:
        received: list[int] = []

        @nursery.start_soon
        async def waits() -> None:
            received.extend((await receiver.receive())["value"].tolist())

        await wait_all_tasks_blocked()
        sender.send_nowait(column(1))
        assert receiver.receive_nowait()["value"].tolist() == [1]
        await wait_all_tasks_blocked()
        assert received == []
        sender.send_nowait(column(2))
    assert received == [2]


async def test_sending_to_a_mailbox_whose_receivers_left_is_a_broken_resource() -> None:
    sender, receiver = open_mailbox[int](2)
    sender.send_nowait(1)
    sender.send_nowait(2)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def waits() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await sender.send(3)

        await wait_all_tasks_blocked()
        receiver.close()
    with pytest.raises(trio.BrokenResourceError):
        sender.send_nowait(4)
    with pytest.raises(trio.BrokenResourceError):
        await sender.send_batch([4])
    assert sender.statistics().dropped == {"closed": 2}
    assert sender.statistics().used == 0
