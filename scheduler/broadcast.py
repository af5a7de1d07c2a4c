"""Broadcast: one ring of columns, several senders, every receiver reads everything.

Who may read and overwrite what is ruled in ``scheduler.stream``, when a sender waits in ``scheduler.backpressure`` and
``scheduler.sending``; here are the ends that users hold.
"""

from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import trio
from numpy.typing import DTypeLike
from trio.lowlevel import current_task

from scheduler.backpressure import Backpressure
from scheduler.hub import BroadcastStatistics, Hub, PolicyName, ReceiverStatistics
from scheduler.parking import park
from scheduler.ring import Batch, Ring, Rows
from scheduler.stream import Cursor, Stream

__all__ = [
    "Batch",
    "BroadcastReceiver",
    "BroadcastSender",
    "BroadcastStatistics",
    "PolicyName",
    "ReceiverStatistics",
    "Rows",
    "open_broadcast",
]


class _End:
    """What both ends have in common."""

    __slots__ = ("__weakref__", "_closed", "_hub")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._closed = False

    @property
    def capacity(self) -> int:
        """Rows that the ring holds."""
        return self._hub.stream.capacity

    @property
    def fields(self) -> Mapping[str, np.dtype[Any]]:
        """The columns and their types."""
        return self._hub.stream.ring.fields

    def subscribe(
        self, policy: PolicyName = "lossless", key: str | None = None, name: str | None = None
    ) -> "BroadcastReceiver":
        """A receiver with a cursor of its own: it gets every row from the next one sent on. Not a checkpoint.

        Args:
            policy: ``lossless`` holds the sender back; ``lagging`` loses the oldest rows and is told by ``Lagged``;
                ``conflating`` gets the latest row per value of the ``key`` column. The latter two receive copies.
            key: the column by which a conflating receiver tells rows apart; its values are held for ever, so they
                should be few.
            name: what statistics and stall reports call it.

        Raises:
            ValueError: an unknown policy or key, or a key where none belongs.
            trio.ClosedResourceError: this end is closed.
        """
        self._check_open()
        return BroadcastReceiver(self._hub, self._hub.subscribe(policy, key, name))

    def statistics(self) -> BroadcastStatistics:
        """Counters and sizes, frozen; also of a closed end."""
        return self._hub.statistics()

    def close(self) -> None:
        """Close this end; closing twice does nothing. Not a checkpoint."""
        raise NotImplementedError

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError(f"this {type(self).__name__} is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BroadcastSender(_End):
    """The sending end; ``clone()`` gives further ends onto the same ring."""

    __slots__ = ("_stream",)

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self._stream = hub.stream
        hub.open_senders += 1

    def send_nowait(self, columns: Rows) -> None:
        """Send a run of rows, all or nothing. Not a checkpoint.

        Args:
            columns: one value per field: an array or a sequence, all of the same length n, or a scalar that stands for
                n equal values; scalars alone are one row. The values are copied, the arrays stay the caller's.

        Raises:
            trio.WouldBlock: above the high watermark, or other sends are waiting.
            trio.ClosedResourceError: this end is closed.
            ValueError: missing or unknown columns, lengths or shapes that differ, more rows than the ring holds.
            TypeError: values that a field cannot hold without loss.
        """
        if self._closed:
            self._check_open()
        stream = self._stream
        values, count = stream.ring.check(columns)
        hub = self._hub
        if not hub.waiting and stream.head + count <= stream.limit:
            stream.commit(values, count)
            if hub.parked:
                hub.wake_receivers()
        elif not hub.offer(values, count):
            raise trio.WouldBlock

    async def send(self, columns: Rows) -> None:
        """Send a run of rows, all or nothing, waiting for room where there is none. A checkpoint.

        Cancelled, nothing was sent. While it waits the arrays must not be changed.

        Raises:
            SendTimeout: no room within the backpressure's ``send_timeout_s``; its ``item`` is ``columns``.
            trio.ClosedResourceError, ValueError, TypeError: as ``send_nowait``; the first also when this end is closed
                while it waits.
        """
        self._check_open()
        values, count = self._stream.ring.check(columns)
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        if self._hub.offer(values, count):
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self._hub.wait(self, values, count, columns)

    def send_from_thread(self, columns: Rows, *, timeout_s: float | None = None) -> None:
        """Send from a plain thread, which is blocked as ``send`` would have waited.

        Args:
            columns: as for ``send_nowait``.
            timeout_s: longest wait in seconds; by default the backpressure's, without one no limit.

        Raises:
            SendTimeout: no room in time; its ``item`` is ``columns``.
            trio.BrokenResourceError: the Trio run of this ring has ended.
            RuntimeError: called in a Trio thread, or the ring was opened outside a Trio run.
            trio.ClosedResourceError, ValueError, TypeError: as ``send_nowait``.
        """
        self._check_open()
        values, count = self._stream.ring.check(columns)
        self._hub.send_from_thread(self, values, count, columns, timeout_s)

    async def wait_below_low_watermark(self) -> None:
        """Wait until the ring is at or below the low watermark (30 % where no backpressure is set). A checkpoint."""
        self._check_open()
        await self._hub.wait_below_low()

    @property
    def current_rate(self) -> float:
        """1.0 while the flow is free, the slow-down factor (of what the slowest receiver takes) while it is slowed."""
        return self._hub.current_rate()

    @property
    def closed(self) -> bool:
        return self._closed

    def clone(self) -> "BroadcastSender":
        """A further sending end; the stream ends when all are closed.

        Raises:
            trio.ClosedResourceError: this end is closed.
        """
        self._check_open()
        return BroadcastSender(self._hub)

    def close(self) -> None:
        """Close this end. Its waiting sends raise ``ClosedResourceError``; receivers end when all senders are closed
        and everything is read. Closing twice does nothing. Not a checkpoint."""
        if self._closed:
            return
        self._closed = True
        hub = self._hub
        hub.open_senders -= 1
        hub.refuse_all(self, trio.ClosedResourceError)
        if not hub.open_senders:
            hub.wake_all_receivers()


class BroadcastReceiver(_End):
    """The receiving end, also an asynchronous iterator over batches.

    ``subscribe()`` gives an independent reader of everything (fan-out), ``clone()`` a further end on this cursor: each
    row goes to exactly one of the clones (workers compete). A receiver that is collected is closed by that.
    """

    __slots__ = ("_hold", "_stream", "cursor")

    def __init__(self, hub: Hub, cursor: Cursor) -> None:
        super().__init__(hub)
        self._stream = hub.stream
        self._hold = object()
        self.cursor = cursor

    def receive_nowait(self, max_items: int | None = None) -> Batch:
        """Take all rows that are there (to the ring's end), at most ``max_items``. Not a checkpoint.

        Gives back the batch this end holds, also when there is nothing to take.

        Raises:
            trio.WouldBlock: there are none.
            trio.EndOfChannel: there are none and all senders are closed.
            trio.ClosedResourceError: this end is closed.
            trio.BrokenResourceError: this receiver was detached because it held the sender too long.
            Lagged: a lagging receiver was overtaken; the next call goes on with the oldest row left.
            ValueError: ``max_items`` below 1.
        """
        if max_items is not None:
            _check_max_items(max_items)
        cursor = self.cursor
        if self._closed or cursor.detached:
            self._refuse()
        if self._stream.release(cursor, self._hold):
            self._hub.advance()
        batch = self._stream.take(cursor, self._hold, max_items)
        if batch is None:
            raise trio.WouldBlock if self._hub.open_senders else trio.EndOfChannel
        return batch

    def _refuse(self) -> None:
        self._check_open()
        raise trio.BrokenResourceError(f"{self.cursor.name} was detached: it held the sender too long")

    async def receive(self, max_items: int | None = None) -> Batch:
        """Take all rows that are there (to the ring's end), at most ``max_items``, waiting for the first.

        A checkpoint. The batch this end holds is given back at once. Cancelled, nothing was taken.

        Raises:
            As ``receive_nowait``, but for WouldBlock; also when it happens while it waits.
        """
        if max_items is not None:
            _check_max_items(max_items)
        hub, cursor, stream = self._hub, self.cursor, self._stream
        if not self._closed and stream.release(cursor, self._hold):
            hub.advance()
        if self._closed or cursor.detached or not hub.open_senders or stream.ready(cursor):
            await trio.lowlevel.checkpoint()
        try:
            while not (self._closed or cursor.detached or stream.ready(cursor)) and hub.open_senders:
                task = current_task()
                hub.parked[task] = self
                await park(partial(hub.unpark, task))
            return self.receive_nowait(max_items)
        finally:
            if cursor.cloned:
                hub.wake_clone(cursor)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def clone(self) -> "BroadcastReceiver":
        """A further end on this cursor: each row goes to exactly one of the clones. See ``subscribe()`` for fan-out.

        Raises:
            trio.ClosedResourceError: this end is closed.
        """
        self._check_open()
        self.cursor.ends += 1
        self.cursor.cloned = self._hub.cloned = True
        return BroadcastReceiver(self._hub, self.cursor)

    def close(self) -> None:
        """Give back the batch held and leave; a ``receive`` that waits here raises ``ClosedResourceError``.

        Closing twice does nothing. Not a checkpoint.
        """
        if self._closed:
            return
        self._closed = True
        self._hub.wake_ends(self.cursor, self)
        if self._hub.leave(self.cursor, self._hold):
            self._hub.advance()

    def __del__(self) -> None:
        if not self._closed:
            self._hub.orphan(self.cursor, self._hold)


def _check_max_items(max_items: int) -> None:
    if max_items < 1:
        raise ValueError(f"max_items must be at least 1, was {max_items}")


def open_broadcast(
    capacity: int,
    fields: Mapping[str, DTypeLike],
    *,
    backpressure: Backpressure | None = None,
    stall_timeout_s: float | None = None,
    detach_stalled: bool = True,
    debug: bool = False,
) -> tuple[BroadcastSender, BroadcastReceiver]:
    """Open a ring of columns that every receiver reads whole; data flows from the left end to the right.

    Args:
        capacity: rows the ring holds, exactly; also the longest single send.
        fields: column name → NumPy type (scalar types of fixed size).
        backpressure: watermarks, pace and timeout of the senders; without it they wait at the full ring, for ever.
        stall_timeout_s: how long a lossless receiver may hold a sender before it is named (in the log and in
            ``statistics()``) and counted.
        detach_stalled: whether such a receiver is detached as well: its ``receive`` raises ``BrokenResourceError``.
        debug: poison released slots (NaN, NaT, extreme integers) and refuse reads of batches given back, so that a
            kept view is caught. Slow: for tests.

    Raises:
        ValueError, TypeError: a capacity below 1 or no integer, no fields, a type that cannot lie in the ring, a
            timeout that is not above 0.
    """
    if stall_timeout_s is not None and not stall_timeout_s > 0.0:
        raise ValueError(f"stall_timeout_s must be above 0, was {stall_timeout_s!r}")
    stream = Stream(Ring(capacity, fields), backpressure, debug)
    hub = Hub(stream, backpressure, stall_timeout_s, detach_stalled)
    sender = BroadcastSender(hub)
    return sender, sender.subscribe()
