"""Checked by mypy, never run: what users of the channels get typed."""

from typing import assert_type

import numpy as np
import trio

from scheduler import (
    Backpressure,
    Batch,
    BroadcastReceiver,
    BroadcastSender,
    EventLog,
    MailboxReceiver,
    MailboxSender,
    OrderQueue,
    PositionCache,
    WatchReceiver,
    WatchSender,
    open_broadcast,
    open_mailbox,
    open_watch,
)


async def mailboxes() -> None:
    sender, receiver = open_mailbox[int](10, backpressure=Backpressure())
    assert_type(sender, MailboxSender[int])
    assert_type(receiver, MailboxReceiver[int])
    await sender.send(1)
    await sender.send("1")  # type: ignore[arg-type]
    await sender.send_batch([1, 2])
    await sender.send_batch(["1"])  # type: ignore[list-item]
    sender.send_from_thread(1, timeout_s=0.5)
    assert_type(await receiver.receive(), int)
    assert_type(receiver.receive_nowait(), int)
    assert_type(await receiver.receive_batch(max_items=5), list[int])
    assert_type(sender.clone(), MailboxSender[int])
    async for item in receiver:
        assert_type(item, int)
    with sender, receiver as same:
        assert_type(same, MailboxReceiver[int])
    anywhere: trio.abc.SendChannel[int] = sender
    everywhere: trio.abc.ReceiveChannel[int] = receiver
    await anywhere.send(await everywhere.receive())


async def broadcasts() -> None:
    sender, receiver = open_broadcast(10, {"bid": "f8", "size": np.int32}, stall_timeout_s=1.0, debug=True)
    assert_type(sender, BroadcastSender)
    assert_type(receiver, BroadcastReceiver)
    await sender.send({"bid": [1.0, 2.0], "size": np.array([1, 2])})
    sender.send_nowait({"bid": 1.0, "size": 1})
    sender.send_nowait([1.0])  # type: ignore[arg-type]
    batch = await receiver.receive(max_items=5)
    assert_type(batch, Batch)
    assert_type(batch.sequence, int)
    assert_type(batch.slot, int)
    assert_type(len(batch), int)
    assert_type(batch.copy(), Batch)
    assert_type(receiver.subscribe("conflating", key="bid"), BroadcastReceiver)
    receiver.subscribe("lossy")  # type: ignore[arg-type]
    async for batch in receiver:
        assert_type(batch["bid"].ndim, int)


async def watches() -> None:
    sender, receiver = open_watch(1.0)
    assert_type(sender, WatchSender[float])
    assert_type(receiver, WatchReceiver[float])
    sender.set("1")  # type: ignore[arg-type]
    assert_type(await receiver.changed(), float)
    assert_type(receiver.latest(), float)


async def shared() -> None:
    positions: PositionCache[str, float] = PositionCache()
    assert_type(positions.get("ABC"), float | None)
    assert_type(positions.snapshot(), dict[str, float])
    orders: OrderQueue[str] = OrderQueue()
    assert_type(orders.try_push("a"), bool)
    assert_type(orders.try_pop(), str | None)
    assert_type(await orders.pop(), str)
    events: EventLog[int] = EventLog()
    assert_type(events.drain(), list[int])
