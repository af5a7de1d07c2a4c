"""Mailboxes: bounded queues of single items between tasks, with batches, watermarks and counters of their own.

The contract is that of Trio's memory channels (names, errors, order, cloneable ends); beyond it a waiting receiver is
woken straight into its lane, ``receive_batch`` drains in one step and a sender waits at the high watermark.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

import attrs
import trio
from trio.lowlevel import Task, current_task

from scheduler.backpressure import Backpressure, FlowControl
from scheduler.channel_errors import SendTimeout
from scheduler.parking import park, wake

T = TypeVar("T")
R = TypeVar("R")


@attrs.frozen
class MailboxStatistics:
    """A snapshot; counts are of items."""

    capacity: int
    used: int
    sent: int
    received: int
    current_rate: float
    slow_downs: int
    open_senders: int
    open_receivers: int
    tasks_waiting_to_send: int
    tasks_waiting_to_receive: int
    timed_out: int


class _Mailbox(Generic[T]):
    """What all ends of one mailbox share. ``sent`` and ``taken`` only ever grow."""

    def __init__(self, capacity: int, backpressure: Backpressure | None) -> None:
        self.flow = FlowControl(capacity, backpressure)
        self.timeout_s = math.inf if backpressure is None else backpressure.send_timeout_s
        self.items: deque[T] = deque()
        self.sent = 0
        self.taken = 0
        self.timed_out = 0
        self.open_senders = 0
        self.open_receivers = 0
        self.senders: dict[Task, list[T]] = {}
        self.receivers: dict[Task, None] = {}
        self.low_waiters: dict[Task, None] = {}

    def admits(self, count: int) -> bool:
        return self.flow.admits_at(self.sent, self.taken, count) <= self.taken

    def put(self, items: list[T]) -> None:
        self.items.extend(items)
        self.sent += len(items)
        self.flow.accepted(self.taken)
        self.wake_receiver()

    def wake_receiver(self) -> None:
        """Wake one waiting receiver; it wakes the next if it leaves items behind."""
        if self.receivers:
            task = next(iter(self.receivers))
            del self.receivers[task]
            wake(task)

    def progress(self) -> None:
        """Items were taken: let waiting senders go ahead, first come, first served."""
        while self.senders:
            task, items = next(iter(self.senders.items()))
            if not self.admits(len(items)):
                break
            del self.senders[task]
            self.put(items)
            wake(task)
        if self.low_waiters and self.sent - self.taken <= self.flow.low:
            waiters, self.low_waiters = self.low_waiters, {}
            for task in waiters:
                wake(task)


class _End(Generic[T]):
    __slots__ = ("_box", "_closed")

    def __init__(self, box: _Mailbox[T]) -> None:
        self._box = box
        self._closed = False

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def statistics(self) -> MailboxStatistics:
        """Counters and sizes, frozen."""
        box = self._box
        return MailboxStatistics(
            capacity=box.flow.capacity,
            used=box.sent - box.taken,
            sent=box.sent,
            received=box.taken,
            current_rate=box.flow.current_rate,
            slow_downs=box.flow.slow_downs,
            open_senders=box.open_senders,
            open_receivers=box.open_receivers,
            tasks_waiting_to_send=len(box.senders),
            tasks_waiting_to_receive=len(box.receivers),
            timed_out=box.timed_out,
        )


class MailboxSender(_End[T]):
    """The sending end; ``clone()`` gives further ends."""

    def __init__(self, box: _Mailbox[T]) -> None:
        super().__init__(box)
        box.open_senders += 1

    def send_nowait(self, item: T) -> None:
        """Send one item. Raises WouldBlock, ClosedResourceError, BrokenResourceError. Not a checkpoint."""
        self._send_nowait([item])

    def _send_nowait(self, items: list[T]) -> None:
        box = self._box
        if self._closed:
            raise trio.ClosedResourceError
        if not box.open_receivers:
            raise trio.BrokenResourceError
        if box.senders or not box.admits(len(items)):
            raise trio.WouldBlock
        box.put(items)

    async def send(self, item: T) -> None:
        """Send one item, waiting for room. A checkpoint; cancelled, nothing was sent."""
        await self._send([item], item)

    async def _send(self, items: list[T], whole: object) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._send_nowait(items)
        except trio.WouldBlock:
            pass
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        box = self._box
        task = current_task()
        box.senders[task] = items

        def abort() -> None:
            del box.senders[task]
            box.progress()

        with trio.move_on_after(box.timeout_s):
            error = await park(abort)
            if error is not None:
                raise error
            return
        box.timed_out += len(items)
        raise SendTimeout(whole, box.timeout_s)

    async def send_batch(self, items: Iterable[T]) -> None:
        """Send all items in order, in pieces where they do not fit at once. A checkpoint."""
        rest = list(items)
        piece = max(1, self._box.flow.high - self._box.flow.low)
        while True:
            await self._send(rest[:piece], rest)
            rest = rest[piece:]
            if not rest:
                return

    async def wait_below_low_watermark(self) -> None:
        """Wait until the buffer is at or below the low watermark. A checkpoint."""
        box = self._box
        if box.sent - box.taken <= box.flow.low:
            await trio.lowlevel.checkpoint()
            return
        task = current_task()
        box.low_waiters[task] = None
        await park(partial(box.low_waiters.__delitem__, task))

    def clone(self) -> "MailboxSender[T]":
        """A further sending end; the mailbox ends when all are closed."""
        if self._closed:
            raise trio.ClosedResourceError
        return MailboxSender(self._box)

    def close(self) -> None:
        """Close this end; after the last one receivers end when they have drained."""
        if not self._closed:
            self._closed = True
            box = self._box
            box.open_senders -= 1
            if not box.open_senders:
                receivers, box.receivers = box.receivers, {}
                for task in receivers:
                    wake(task)


class MailboxReceiver(_End[T]):
    """The receiving end; ``clone()`` gives ends that share the stream (workers compete)."""

    def __init__(self, box: _Mailbox[T]) -> None:
        super().__init__(box)
        box.open_receivers += 1

    def receive_nowait(self) -> T:
        """Take the oldest item. Raises WouldBlock, EndOfChannel, ClosedResourceError. Not a checkpoint."""
        return self._take(self._box.items.popleft, 1)

    def receive_batch_nowait(self, max_items: int | None = None) -> list[T]:
        """Take all items that are there, at most ``max_items``. As ``receive_nowait``."""
        items = self._box.items
        count = len(items) if max_items is None else min(len(items), max_items)
        return self._take(lambda: [items.popleft() for _ in range(count)], count)

    def _take(self, pop: Callable[[], R], count: int) -> R:
        box = self._box
        if self._closed:
            raise trio.ClosedResourceError
        if not box.items:
            if not box.open_senders:
                raise trio.EndOfChannel
            raise trio.WouldBlock
        taken = pop()
        box.taken += count
        if box.senders or box.low_waiters:
            box.progress()
        if box.items:
            box.wake_receiver()
        return taken

    async def _wait(self) -> None:
        box = self._box
        if box.items or self._closed or not box.open_senders:
            await trio.lowlevel.checkpoint()
        while not (box.items or self._closed or not box.open_senders):
            task = current_task()
            box.receivers[task] = None
            await park(partial(box.receivers.__delitem__, task))

    async def receive(self) -> T:
        """Take the oldest item, waiting for one. A checkpoint; cancelled, nothing was taken."""
        await self._wait()
        return self.receive_nowait()

    async def receive_batch(self, max_items: int | None = None) -> list[T]:
        """Take all items that are there, at most ``max_items``, waiting for the first. A checkpoint."""
        await self._wait()
        return self.receive_batch_nowait(max_items)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def clone(self) -> "MailboxReceiver[T]":
        """A further end: each item goes to exactly one of them."""
        if self._closed:
            raise trio.ClosedResourceError
        return MailboxReceiver(self._box)

    def close(self) -> None:
        """Close this end; after the last one senders get BrokenResourceError."""
        if not self._closed:
            self._closed = True
            box = self._box
            box.open_receivers -= 1
            if not box.open_receivers:
                senders, box.senders = box.senders, {}
                for task in senders:
                    wake(task, trio.BrokenResourceError())
                box.items.clear()


def open_mailbox(
    capacity: int = 1_000, *, backpressure: Backpressure | None = None
) -> tuple[MailboxSender[T], MailboxReceiver[T]]:
    """Open a mailbox of ``capacity`` items."""
    box: _Mailbox[T] = _Mailbox(capacity, backpressure)
    return MailboxSender(box), MailboxReceiver(box)
