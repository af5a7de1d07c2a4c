"""Mailboxes: bounded queues of single items between tasks, with batches, watermarks and counters of their own.

The contract is that of Trio's memory channels (names, errors, order, cloneable ends that are
``trio.abc.SendChannel`` and ``trio.abc.ReceiveChannel``). Beyond it: ``receive_batch`` drains in one step, senders
wait at the high watermark, plain threads can send, and a waiting receiver is woken straight into its lane.

One rule keeps receivers from sleeping beside items: whoever puts items in wakes one receiver, and a woken receiver that
leaves items behind, or fails, wakes the next.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

import attrs
import trio
from trio.lowlevel import Task, current_task

from scheduler.backpressure import Backpressure, FlowControl, check_capacity
from scheduler.parking import park, wake, wake_all
from scheduler.sending import SendQueue

T = TypeVar("T")


@attrs.frozen
class ChannelSizes:
    """Capacities that have proved themselves, in items; what is configured wins.

    Attributes:
        stream: a stream of data from many producers to many consumers (the seed's market data).
        messages: messages of many actors to one (the seed's signals, and an actor's mailbox).
        requests: requests that each wait for something outside (the seed's orders).
        events: an event bus.
    """

    stream: int = 10_000
    messages: int = 1_000
    requests: int = 100
    events: int = 1_000


DEFAULT_SIZES = ChannelSizes()


@attrs.frozen
class MailboxStatistics:
    """A snapshot; all counts are of items where nothing else is said.

    Attributes:
        current_rate: 1.0 while free, the slow-down factor while the flow is slowed.
        timed_out: items handed back by ``SendTimeout``.
        dropped: items that nobody got, by reason: ``closed`` (left in the mailbox by the last receiver to close).
    """

    capacity: int
    used: int
    sent: int
    received: int
    current_rate: float
    slow_downs: int
    timed_out: int
    open_senders: int
    open_receivers: int
    sends_waiting: int
    receivers_waiting: int
    dropped: Mapping[str, int]


class _Mailbox(SendQueue[list[T]]):
    """What all ends of one mailbox share. ``sent`` and ``taken`` only ever grow."""

    def __init__(self, capacity: int, backpressure: Backpressure | None) -> None:
        super().__init__(FlowControl(capacity, backpressure), backpressure, None)
        self.items: deque[T] = deque()
        self.sent = 0
        self.taken = 0
        self.discarded = 0
        self.open_receivers = 0
        self.parked: dict[Task, MailboxReceiver[T]] = {}

    def counts(self) -> tuple[int, int]:
        return self.sent, self.taken

    def refusal(self, end: object) -> type[Exception] | None:
        if isinstance(end, MailboxSender) and end.closed:
            return trio.ClosedResourceError
        return None if self.open_receivers else trio.BrokenResourceError

    def write(self, payload: list[T], count: int) -> None:
        self.items.extend(payload)
        self.sent += count
        if self.flow.slowed:
            self.flow.accepted(self.taken)
        if self.parked:
            self.wake_receiver()

    def wake_receiver(self) -> None:
        task = next(iter(self.parked))
        del self.parked[task]
        wake(task)

    def unpark(self, task: Task) -> None:
        del self.parked[task]

    def take(self, max_items: int | None) -> list[T]:
        """All items, at most ``max_items``; there is at least one."""
        items = self.items
        if max_items is None or max_items >= len(items):
            taken = list(items)
            items.clear()
        else:
            taken = [items.popleft() for _ in range(max_items)]
        self.taken += len(taken)
        if self.waiting or self.low_waiters:
            self.advance()
        return taken

    def close_receivers(self) -> None:
        """The last receiver left: nothing can be received any more."""
        self.discarded += len(self.items)
        self.taken += len(self.items)
        self.items.clear()
        self.refuse_all(None, trio.BrokenResourceError)
        self.advance()

    def wake_everyone(self) -> None:
        parked, self.parked = self.parked, {}
        wake_all(parked)

    def statistics(self) -> MailboxStatistics:
        used = self.sent - self.taken
        return MailboxStatistics(
            capacity=self.flow.capacity,
            used=used,
            sent=self.sent,
            received=self.taken - self.discarded,
            current_rate=self.flow.rate(used),
            slow_downs=self.flow.slow_downs,
            timed_out=self.timed_out,
            open_senders=self.open_senders,
            open_receivers=self.open_receivers,
            sends_waiting=len(self.waiting),
            receivers_waiting=len(self.parked),
            dropped={"closed": self.discarded} if self.discarded else {},
        )


class _End(Generic[T]):
    """What both ends have in common."""

    def __init__(self, box: _Mailbox[T]) -> None:
        self._box = box
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether this end was closed."""
        return self._closed

    @property
    def capacity(self) -> int:
        """Items that the mailbox holds."""
        return self._box.flow.capacity

    def statistics(self) -> MailboxStatistics:
        """Counters and sizes, frozen; also of a closed end."""
        return self._box.statistics()

    def close(self) -> None:
        """Close this end; closing twice does nothing. Not a checkpoint."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """``close()`` for those who hold a ``trio.abc.AsyncResource``. A checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError(f"this {type(self).__name__} is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MailboxSender(_End[T], trio.abc.SendChannel[T]):
    """The sending end; ``clone()`` gives further ends into the same mailbox."""

    def __init__(self, box: _Mailbox[T]) -> None:
        super().__init__(box)
        box.open_senders += 1

    def send_nowait(self, item: T) -> None:
        """Send one item. Not a checkpoint.

        Raises:
            trio.WouldBlock: above the high watermark, or other sends are waiting.
            trio.ClosedResourceError: this end is closed.
            trio.BrokenResourceError: all receivers are closed.
        """
        self._check_sendable()
        if not self._box.offer([item], 1):
            raise trio.WouldBlock

    async def send(self, value: T) -> None:
        """Send one item, waiting for room where there is none. A checkpoint. Cancelled, nothing was sent.

        Raises:
            SendTimeout: no room within the backpressure's ``send_timeout_s``; its ``item`` is the item.
            trio.ClosedResourceError, trio.BrokenResourceError: as ``send_nowait``, also while it waits.
        """
        self._check_sendable()
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_sendable()
        if self._box.offer([value], 1):
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self._box.wait(self, [value], 1, value)

    async def send_batch(self, items: Iterable[T]) -> None:
        """Send all items in order. A checkpoint.

        They go in pieces of at most what fits between the watermarks, and each piece is all or nothing. Cancelled in
        between, the pieces before were sent; a batch of one piece is all or nothing as a whole.

        Raises:
            SendTimeout: a piece found no room in time; ``item`` is the list of all items not sent.
            trio.ClosedResourceError, trio.BrokenResourceError: as ``send``.
        """
        self._check_sendable()
        await trio.lowlevel.checkpoint_if_cancelled()
        box = self._box
        rest = list(items)
        size = box.flow.piece
        waited = False
        while rest:
            self._check_sendable()
            piece = rest if len(rest) <= size else rest[:size]
            if not box.offer(piece, len(piece)):
                await box.wait(self, piece, len(piece), rest)
                waited = True
            rest = rest[size:]
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def send_from_thread(self, item: T, *, timeout_s: float | None = None) -> None:
        """Send from a plain thread, which is blocked as ``send`` would have waited.

        Args:
            item: what to send.
            timeout_s: longest wait in seconds; by default the backpressure's, without one no limit.

        Raises:
            SendTimeout: no room in time; its ``item`` is the item.
            trio.BrokenResourceError: all receivers are closed, or the Trio run has ended.
            RuntimeError: called in a Trio thread, or the mailbox was opened outside a Trio run.
            trio.ClosedResourceError: this end is closed.
        """
        self._check_open()
        self._box.send_from_thread(self, [item], 1, item, timeout_s)

    async def wait_below_low_watermark(self) -> None:
        """Wait until the mailbox is at or below the low watermark (30 % where no backpressure is set). A checkpoint."""
        self._check_open()
        await self._box.wait_below_low()

    @property
    def current_rate(self) -> float:
        """1.0 while the flow is free, the slow-down factor (of what the receivers take) while it is slowed."""
        return self._box.flow.rate(self._box.sent - self._box.taken)

    def clone(self) -> "MailboxSender[T]":
        """A further sending end; the mailbox ends when all are closed.

        Raises:
            trio.ClosedResourceError: this end is closed.
        """
        self._check_open()
        return MailboxSender(self._box)

    def close(self) -> None:
        """Close this end. Its waiting sends raise ``ClosedResourceError``; receivers end when all senders are closed
        and everything is received. Closing twice does nothing. Not a checkpoint."""
        if self._closed:
            return
        self._closed = True
        box = self._box
        box.open_senders -= 1
        box.refuse_all(self, trio.ClosedResourceError)
        if not box.open_senders:
            box.wake_everyone()

    def _check_sendable(self) -> None:
        if self._closed:
            self._check_open()
        if not self._box.open_receivers:
            raise trio.BrokenResourceError("all receivers of this mailbox are closed")


class MailboxReceiver(_End[T], trio.abc.ReceiveChannel[T]):
    """The receiving end, also an asynchronous iterator; ``clone()`` gives further ends that share the stream."""

    def __init__(self, box: _Mailbox[T]) -> None:
        super().__init__(box)
        box.open_receivers += 1

    def receive_nowait(self) -> T:
        """Take the oldest item. Not a checkpoint.

        Raises:
            trio.WouldBlock: there is none.
            trio.EndOfChannel: there is none and all senders are closed.
            trio.ClosedResourceError: this end is closed.
        """
        self._check_receivable()
        box = self._box
        item = box.items.popleft()
        box.taken += 1
        if box.waiting or box.low_waiters:
            box.advance()
        return item

    def receive_batch_nowait(self, max_items: int | None = None) -> list[T]:
        """Take all items that are there, at most ``max_items``; at least one. Not a checkpoint.

        Raises:
            ValueError: ``max_items`` below 1.
            As ``receive_nowait``.
        """
        _check_max_items(max_items)
        self._check_receivable()
        return self._box.take(max_items)

    async def receive(self) -> T:
        """Take the oldest item, waiting for one. A checkpoint. Cancelled, nothing was taken.

        Raises:
            As ``receive_nowait`` but for WouldBlock, also while it waits.
        """
        try:
            await self._wait()
            return self.receive_nowait()
        finally:
            self._pass_on()

    async def receive_batch(self, max_items: int | None = None) -> list[T]:
        """Take all items that are there, at most ``max_items``, waiting for the first. A checkpoint.

        Cancelled, nothing was taken.

        Raises:
            As ``receive_batch_nowait`` but for WouldBlock, also while it waits.
        """
        _check_max_items(max_items)
        try:
            await self._wait()
            return self.receive_batch_nowait(max_items)
        finally:
            self._pass_on()

    async def _wait(self) -> None:
        """Wait until receiving gives an answer: an item or an error."""
        self._check_open()
        box = self._box
        if box.items or not box.open_senders:
            await trio.lowlevel.checkpoint()
        while not box.items and box.open_senders and not self._closed:
            task = current_task()
            box.parked[task] = self
            await park(partial(box.unpark, task))

    def _pass_on(self) -> None:
        box = self._box
        if box.parked and box.items:
            box.wake_receiver()

    def _check_receivable(self) -> None:
        if self._closed:
            self._check_open()
        box = self._box
        if not box.items:
            raise trio.WouldBlock if box.open_senders else trio.EndOfChannel

    def clone(self) -> "MailboxReceiver[T]":
        """A further end: each item goes to exactly one of them (workers compete).

        Raises:
            trio.ClosedResourceError: this end is closed.
        """
        self._check_open()
        return MailboxReceiver(self._box)

    def close(self) -> None:
        """Close this end; a ``receive`` that waits here raises ``ClosedResourceError``.

        After the last one senders get ``BrokenResourceError``, and items left are counted as dropped. Closing twice
        does nothing. Not a checkpoint.
        """
        if self._closed:
            return
        self._closed = True
        box = self._box
        box.open_receivers -= 1
        for task in [task for task, end in box.parked.items() if end is self]:
            box.unpark(task)
            wake(task)
        if not box.open_receivers:
            box.close_receivers()


def _check_max_items(max_items: int | None) -> None:
    if max_items is not None and max_items < 1:
        raise ValueError(f"max_items must be at least 1, was {max_items}")


class open_mailbox(tuple[MailboxSender[T], MailboxReceiver[T]], Generic[T]):  # noqa: N801  # used as a function
    """Open a bounded queue of single items; data flows from the left end to the right.

    ``sender, receiver = open_mailbox[Order](100)``; the item's type may be left out.

    Args:
        capacity: items it holds, at least 1.
        backpressure: watermarks, pace and timeout of the senders; without it they wait at the full mailbox, for ever.

    Raises:
        ValueError, TypeError: a capacity below 1, or no integer.
    """

    __slots__ = ()

    def __new__(cls, capacity: int = DEFAULT_SIZES.messages, *, backpressure: Backpressure | None = None) -> Self:
        check_capacity(capacity)
        box: _Mailbox[T] = _Mailbox(capacity, backpressure)
        return super().__new__(cls, (MailboxSender(box), MailboxReceiver(box)))
