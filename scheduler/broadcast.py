"""Broadcast: one ring of columns, several senders, every receiver reads everything.

The rules stand in ``scheduler.stream`` (who may read and overwrite what) and ``scheduler.backpressure`` (when a sender
waits); here tasks wait and are woken. A receiver waits for rows, a sender for room; a waiting sender's rows are written
by whoever makes the room, so that nobody can overtake it and cancelling it before that leaves nothing behind.
"""

import math
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Literal, Self, TypeAlias

import attrs
import trio
from numpy.typing import DTypeLike
from trio.lowlevel import Task, current_task

from scheduler.backpressure import Backpressure
from scheduler.channel_errors import SendTimeout
from scheduler.parking import park, wake
from scheduler.ring import Batch, Column, Ring, Rows
from scheduler.stream import Cursor, Policy, Stream

PolicyName: TypeAlias = Literal["lossless", "lagging", "conflating"]


@attrs.frozen
class ReceiverStatistics:
    """One receiver (with its clones): ``lag`` is the number of rows it has not received yet."""

    name: str
    policy: str
    lag: int
    missed: int
    waiting: int


@attrs.frozen
class BroadcastStatistics:
    """A snapshot; all counts are of rows."""

    capacity: int
    used: int
    sent: int
    current_rate: float
    slow_downs: int
    open_senders: int
    tasks_waiting_to_send: int
    dropped: Mapping[str, int]
    bytes_viewed: int
    bytes_copied: int
    receivers: tuple[ReceiverStatistics, ...]
    stalled: Mapping[str, int]


class _Waiter:
    """A send that waits for room."""

    __slots__ = ("count", "task", "values")

    def __init__(self, values: list[Column], count: int, task: Task) -> None:
        self.values = values
        self.count = count
        self.task = task


class _Hub:
    """What all ends of one broadcast share."""

    def __init__(self, stream: Stream, backpressure: Backpressure | None) -> None:
        self.stream = stream
        self.timeout_s = math.inf if backpressure is None else backpressure.send_timeout_s
        self.open_senders = 0
        self.waiting: dict[Task, _Waiter] = {}
        self.parked: dict[Task, Cursor] = {}
        self.names = 0

    def next_name(self) -> str:
        self.names += 1
        return f"receiver-{self.names}"

    def wake_receivers(self) -> None:
        parked, self.parked = self.parked, {}
        for task in parked:
            wake(task)

    def progress(self) -> None:
        """Room was made: let waiting senders go ahead, first come, first served."""
        stream = self.stream
        while self.waiting:
            task, waiter = next(iter(self.waiting.items()))
            if not stream.admits(waiter.count):
                stream.want(stream.flow.admits_at(stream.head, stream.tail, waiter.count))
                return
            del self.waiting[task]
            stream.commit(waiter.values, waiter.count)
            self.wake_receivers()
            wake(task)
        stream.wanted = -1


class BroadcastSender:
    """The sending end; ``clone()`` gives further ends onto the same ring."""

    __slots__ = ("_closed", "_hub", "_stream")

    def __init__(self, hub: _Hub) -> None:
        self._hub = hub
        self._stream = hub.stream
        self._closed = False
        hub.open_senders += 1

    @property
    def capacity(self) -> int:
        """Rows that the ring holds."""
        return self._stream.capacity

    def send_nowait(self, columns: Rows) -> None:
        """Send one row or a run of rows, all or nothing. Not a checkpoint.

        Args:
            columns: one value per field: an array or sequence, all of the same length n, or a scalar that stands for
                n equal values; scalars alone are one row.

        Raises:
            trio.WouldBlock: above the high watermark, or other sends are waiting.
            trio.ClosedResourceError: this end is closed.
            ValueError, TypeError: wrong columns, lengths, shapes or types, or more rows than the ring holds.
        """
        if self._closed:
            raise trio.ClosedResourceError
        hub = self._hub
        stream = self._stream
        values, count = stream.ring.check(columns)
        if hub.waiting or (stream.head + count > stream.limit and not stream.admits(count)):
            raise trio.WouldBlock
        stream.commit(values, count)
        if hub.parked:
            hub.wake_receivers()

    async def send(self, columns: Rows) -> None:
        """Send as ``send_nowait`` does, waiting for room where there is none. A checkpoint.

        Cancelled, nothing was sent.

        Raises:
            SendTimeout: no room within the backpressure's ``send_timeout_s``; its ``item`` is ``columns``.
            As ``send_nowait``, but for WouldBlock.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self.send_nowait(columns)
        except trio.WouldBlock:
            pass
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        hub = self._hub
        values, count = self._stream.ring.check(columns)
        task = current_task()
        hub.waiting[task] = _Waiter(values, count, task)
        hub.progress()

        def abort() -> None:
            del hub.waiting[task]
            hub.progress()

        with trio.move_on_after(hub.timeout_s):
            await park(abort)
            return
        raise SendTimeout(columns, hub.timeout_s)

    def subscribe(
        self, policy: PolicyName = "lossless", key: str | None = None, name: str | None = None
    ) -> "BroadcastReceiver":
        """A receiver with a cursor of its own that starts at the next row sent."""
        if self._closed:
            raise trio.ClosedResourceError
        return BroadcastReceiver(self._hub, self._stream.subscribe(name or self._hub.next_name(), Policy(policy), key))

    def clone(self) -> "BroadcastSender":
        """A further sending end; the stream ends when all are closed."""
        if self._closed:
            raise trio.ClosedResourceError
        return BroadcastSender(self._hub)

    def close(self) -> None:
        """Close this end; the last one lets every receiver end after it has drained. Not a checkpoint."""
        if not self._closed:
            self._closed = True
            self._hub.open_senders -= 1
            if not self._hub.open_senders:
                self._hub.wake_receivers()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BroadcastReceiver:
    """The receiving end; ``subscribe()`` gives an independent reader, ``clone()`` one that shares this cursor."""

    __slots__ = ("__weakref__", "_closed", "_cursor", "_hub", "_stream")

    def __init__(self, hub: _Hub, cursor: Cursor) -> None:
        self._hub = hub
        self._stream = hub.stream
        self._cursor = cursor
        self._closed = False

    def receive_nowait(self, max_items: int | None = None) -> Batch:
        """Take all rows that are there, at most ``max_items``, after giving back the batch held. Not a checkpoint.

        Raises:
            trio.WouldBlock: there are none.
            trio.EndOfChannel: there are none and all senders are closed.
            trio.ClosedResourceError: this end is closed.
            trio.BrokenResourceError: this receiver was detached because it held the sender too long.
            Lagged: a lagging receiver was overtaken; call again to go on.
        """
        if self._closed:
            raise trio.ClosedResourceError
        cursor = self._cursor
        if cursor.detached:
            raise trio.BrokenResourceError(f"{cursor.name} was detached: it held the sender too long")
        if self._stream.release(cursor, self):
            self._hub.progress()
        batch = self._stream.take(cursor, self, max_items)
        if batch is None:
            if not self._hub.open_senders:
                raise trio.EndOfChannel
            raise trio.WouldBlock
        return batch

    async def receive(self, max_items: int | None = None) -> Batch:
        """Take all rows that are there, at most ``max_items``, waiting for the first. A checkpoint.

        The batch held until now is given back at once. Cancelled, nothing was taken.
        """
        if max_items is not None and max_items < 1:
            raise ValueError(f"max_items must be at least 1, was {max_items}")
        await trio.lowlevel.checkpoint_if_cancelled()
        shielded = False
        while True:
            try:
                batch = self.receive_nowait(max_items)
            except trio.WouldBlock:
                pass
            else:
                if not shielded:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                return batch
            hub = self._hub
            task = current_task()
            hub.parked[task] = self._cursor
            await park(partial(hub.parked.__delitem__, task))
            shielded = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def subscribe(
        self, policy: PolicyName = "lossless", key: str | None = None, name: str | None = None
    ) -> "BroadcastReceiver":
        """A receiver with a cursor of its own that starts at the next row sent (fan-out)."""
        if self._closed:
            raise trio.ClosedResourceError
        return BroadcastReceiver(self._hub, self._stream.subscribe(name or self._hub.next_name(), Policy(policy), key))

    def clone(self) -> "BroadcastReceiver":
        """A further end on this cursor: each row goes to exactly one of the clones (workers compete)."""
        if self._closed:
            raise trio.ClosedResourceError
        self._cursor.ends += 1
        return BroadcastReceiver(self._hub, self._cursor)

    def close(self) -> None:
        """Give back the batch held and leave. Not a checkpoint."""
        if self._closed:
            return
        self._closed = True
        cursor = self._cursor
        cursor.ends -= 1
        again = self._stream.release(cursor, self)
        if not cursor.ends and not cursor.detached:
            again |= self._stream.remove(cursor)
        if again:
            self._hub.progress()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_broadcast(
    capacity: int,
    fields: Mapping[str, DTypeLike],
    *,
    backpressure: Backpressure | None = None,
    stall_timeout_s: float | None = None,
    debug: bool = False,
) -> tuple[BroadcastSender, BroadcastReceiver]:
    """Open a ring of ``capacity`` rows with one column per field; data flows from the left end to the right."""
    hub = _Hub(Stream(Ring(capacity, fields), backpressure, debug), backpressure)
    sender = BroadcastSender(hub)
    return sender, sender.subscribe()


__all__ = ["Batch", "BroadcastReceiver", "BroadcastSender", "BroadcastStatistics", "open_broadcast"]
