"""Sends that wait for room: the one queue behind every bounded channel, for tasks and for plain threads.

The rules:

1. First come, first served: while anything waits, nothing overtakes it, not even a smaller ``send_nowait``.
2. Whoever makes the room writes the waiting send's items on its behalf. So a waiting send either was written and
   returns, or was not and raises: cancellation, timeout and close never leave half of it behind.
3. A send that timed out or was cancelled blocks the queue until its task has run again (its scope may be one of ours).
"""

import math
import threading
from abc import ABC, abstractmethod
from functools import partial
from typing import Generic, Protocol, TypeVar

import trio
from trio.lowlevel import Task, TrioToken, current_task

from scheduler.backpressure import Backpressure, FlowControl
from scheduler.channel_errors import SendTimeout
from scheduler.parking import park, wake, wake_all

P = TypeVar("P")

_RUN_IS_OVER_CHECK_S = 1.0


class SendingEnd(Protocol):
    """What the queue knows of a sender."""

    @property
    def closed(self) -> bool: ...


class WaitingSend(Generic[P]):
    """One send in the queue. Exactly one of ``task`` and ``ticket`` waits for it."""

    __slots__ = ("count", "done", "end", "error", "mark", "payload", "suspended", "task", "ticket")

    def __init__(self, end: SendingEnd, payload: P, count: int, ticket: "Ticket | None" = None) -> None:
        self.end = end
        self.payload = payload
        self.count = count
        self.ticket = ticket
        self.task: Task | None = None
        self.suspended = False
        self.done = False
        self.error: Exception | None = None
        self.mark = -1

    def pending(self) -> bool:
        return not self.done

    def suspend(self) -> None:
        """Its park was aborted: until its task has run it can neither be written nor be overtaken."""
        self.task = None
        self.suspended = True


class Ticket:
    """Where a plain thread waits. Thread and loop race for it when the thread gives up: one ``claim`` succeeds."""

    __slots__ = ("_free", "answered", "error")

    def __init__(self) -> None:
        self._free = [None]
        self.answered = threading.Event()
        self.error: Exception | None = None

    def claim(self) -> bool:
        """True for the first caller only (``list.pop`` is atomic)."""
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def answer(self, error: Exception | None) -> None:
        self.error = error
        self.answered.set()


class SendQueue(ABC, Generic[P]):
    """Admission, waiting and timeouts of one channel. All but ``send_from_thread`` belongs to the Trio thread."""

    def __init__(self, flow: FlowControl, backpressure: Backpressure | None, stall_timeout_s: float | None) -> None:
        self.flow = flow
        self.timeout_s = math.inf if backpressure is None else backpressure.send_timeout_s
        self.stall_timeout_s = math.inf if stall_timeout_s is None else stall_timeout_s
        self.waiting: dict[WaitingSend[P], None] = {}
        self.low_waiters: dict[Task, None] = {}
        self.timed_out = 0
        self.open_senders = 0
        try:
            self.token: TrioToken | None = trio.lowlevel.current_trio_token()
        except RuntimeError:  # opened outside Trio: everything but threads works
            self.token = None

    # -- what a channel adds

    @abstractmethod
    def counts(self) -> tuple[int, int]:
        """Items ever sent and ever taken."""

    @abstractmethod
    def write(self, payload: P, count: int) -> None:
        """Put admitted items in, waking receivers."""

    def refusal(self, end: SendingEnd) -> type[Exception] | None:
        """Why ``end`` cannot send at all, if it cannot."""
        return trio.ClosedResourceError if end.closed else None

    def want(self, taken: int) -> None:
        """Call ``advance`` when this consumption is reached (a channel may call it more often)."""

    def stall_mark(self) -> int:
        """Where receivers must get to for the first in the queue; handed to ``report_stall`` if they do not."""
        return -1

    def report_stall(self, mark: int) -> None:
        """``stall_timeout_s`` went by."""

    # -- admission

    def admits(self, count: int) -> bool:
        """Whether ``count`` items may be sent now."""
        sent, taken = self.counts()
        return self.flow.admits_at(sent, taken, count) <= taken

    def offer(self, payload: P, count: int) -> bool:
        """Send at once if nothing waits and there is room."""
        if self.waiting or not self.admits(count):
            return False
        self.write(payload, count)
        return True

    def advance(self) -> None:
        """Room was made or the queue changed: write what may go ahead and say what the next one wants."""
        while self.waiting:
            first = next(iter(self.waiting))
            if first.suspended:
                return
            sent, taken = self.counts()
            wanted = self.flow.admits_at(sent, taken, first.count)
            if wanted > taken:
                self.want(min(wanted, sent - self.flow.low) if self.low_waiters else wanted)
                break
            del self.waiting[first]
            if first.ticket is not None and not first.ticket.claim():
                continue
            self.write(first.payload, first.count)
            self._finish(first, None)
        self._wake_below_low()

    def _wake_below_low(self) -> None:
        if not self.low_waiters:
            return
        sent, taken = self.counts()
        if sent - taken <= self.flow.low:
            waiters, self.low_waiters = self.low_waiters, {}
            wake_all(waiters)
        elif not self.waiting:
            self.want(sent - self.flow.low)

    def _finish(self, send: WaitingSend[P], error: Exception | None) -> None:
        send.done = True
        send.error = error
        if send.ticket is not None:
            send.ticket.answer(error)
        elif send.task is not None:
            wake(send.task)

    def refuse_all(self, end: SendingEnd | None, error: type[Exception]) -> None:
        """Let the waiting sends of ``end`` (of all ends: None) raise ``error``; nothing of them was written."""
        refused = [send for send in self.waiting if end is None or send.end is end]
        for send in refused:
            del self.waiting[send]
            if send.ticket is None or send.ticket.claim():
                self._finish(send, error())
        if refused:
            self.advance()

    # -- waiting

    async def wait(self, end: SendingEnd, payload: P, count: int, item: object) -> None:
        """Wait until ``payload`` is written. Raises SendTimeout with ``item``."""
        if self.token is None:
            self.token = trio.lowlevel.current_trio_token()
        send = WaitingSend(end, payload, count)
        self.waiting[send] = None
        self.advance()
        deadline = trio.current_time() + self.timeout_s
        try:
            while send.pending():
                send.mark = self.stall_mark()
                send.task = current_task()
                with trio.move_on_at(min(deadline, trio.current_time() + self.stall_timeout_s)):
                    await park(send.suspend)
                if send.suspended:
                    send.suspended = False
                    self.advance()
                if send.pending() and trio.current_time() >= deadline:
                    self.timed_out += count
                    raise SendTimeout(item, self.timeout_s)
                if send.pending():
                    self.report_stall(send.mark)
        finally:
            if send.pending():
                self.waiting.pop(send, None)
                self.advance()
        if send.error is not None:
            raise send.error

    async def wait_below_low(self) -> None:
        """Wait until the buffer is at or below the low watermark. A checkpoint."""
        sent, taken = self.counts()
        if sent - taken <= self.flow.low:
            await trio.lowlevel.checkpoint()
            return
        task = current_task()
        self.low_waiters[task] = None
        self.advance()
        await park(partial(self._forget_low, task))

    def _forget_low(self, task: Task) -> None:
        del self.low_waiters[task]

    # -- plain threads

    def send_from_thread(self, end: SendingEnd, payload: P, count: int, item: object, timeout_s: float | None) -> None:
        """Send from a thread that runs no Trio, blocking it as ``send`` would have waited."""
        if self.token is None:
            raise RuntimeError("the channel must be opened inside a Trio run to be sent to from threads")
        if trio.lowlevel.in_trio_run():
            raise RuntimeError("send_from_thread would block the Trio loop: await send() there")
        limit = self.timeout_s if timeout_s is None else timeout_s
        ticket = Ticket()
        send = WaitingSend(end, payload, count, ticket)
        self._in_loop(partial(self._enter, send))
        if not self._answered(send, ticket, limit) and ticket.claim():
            self._in_loop(partial(self._give_up, send))
            raise SendTimeout(item, limit)
        ticket.answered.wait()
        if ticket.error is not None:
            raise ticket.error

    def _in_loop(self, function: "partial[None]") -> None:
        assert self.token is not None
        try:
            self.token.run_sync_soon(function)
        except trio.RunFinishedError:
            raise trio.BrokenResourceError("the Trio run of this channel has ended") from None

    def _answered(self, send: WaitingSend[P], ticket: Ticket, limit: float) -> bool:
        """Wait for the answer; looks up now and then whether the loop still runs, and for stalls."""
        slice_s = min(_RUN_IS_OVER_CHECK_S, self.stall_timeout_s)
        while limit > slice_s:
            if ticket.answered.wait(slice_s):
                return True
            limit -= slice_s
            self._in_loop(partial(self._look_again, send))
        return ticket.answered.wait(limit)

    def _enter(self, send: WaitingSend[P]) -> None:
        assert send.ticket is not None
        refusal = self.refusal(send.end)
        if refusal is not None:
            if send.ticket.claim():
                self._finish(send, refusal())
            return
        self.waiting[send] = None
        self.advance()
        send.mark = self.stall_mark()

    def _look_again(self, send: WaitingSend[P]) -> None:
        if not send.done and self.stall_timeout_s < math.inf:
            self.report_stall(send.mark)
            send.mark = self.stall_mark()

    def _give_up(self, send: WaitingSend[P]) -> None:
        self.timed_out += send.count
        if send in self.waiting:
            del self.waiting[send]
            self.advance()
