"""What all ends of one broadcast share: the queue of sends over a stream, and the receivers parked on it."""

import logging
from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias

import attrs
import trio
from trio.lowlevel import Task

from scheduler.backpressure import Backpressure
from scheduler.parking import wake, wake_all
from scheduler.ring import Column
from scheduler.sending import SendQueue
from scheduler.stream import Cursor, Policy, Stream

PolicyName: TypeAlias = Literal["lossless", "lagging", "conflating"]

_log = logging.getLogger(__name__)


class ReceivingEnd(Protocol):
    """What the hub knows of a receiver."""

    cursor: Cursor


@attrs.frozen
class ReceiverStatistics:
    """One receiver with its clones.

    Attributes:
        lag: rows sent that it has not received yet.
        missed: rows overwritten before it received them (lagging receivers only).
        stalls: how often it held a sender longer than the stall timeout.
    """

    name: str
    policy: PolicyName
    lag: int
    missed: int
    stalls: int
    open_ends: int


@attrs.frozen
class BroadcastStatistics:
    """A snapshot; all counts are of rows where nothing else is said.

    Attributes:
        used: rows that some lossless receiver still needs.
        current_rate: 1.0 while free, the slow-down factor while the flow is slowed.
        dropped: rows that some receiver did not get, by reason: ``lagged``, ``conflated``, ``detached``, ``closed``
            (left unread by a receiver that closed) and ``no_receiver``.
        bytes_viewed, bytes_copied: what receivers were handed as windows into the ring and as copies.
        detached: names of the receivers that were detached.
    """

    capacity: int
    used: int
    sent: int
    current_rate: float
    slow_downs: int
    timed_out: int
    open_senders: int
    sends_waiting: int
    receivers_waiting: int
    bytes_viewed: int
    bytes_copied: int
    dropped: Mapping[str, int]
    receivers: tuple[ReceiverStatistics, ...]
    detached: tuple[str, ...]


class Hub(SendQueue[list[Column]]):
    """What all ends of one broadcast share."""

    def __init__(
        self, stream: Stream, backpressure: Backpressure | None, stall_timeout_s: float | None, detach_stalled: bool
    ) -> None:
        super().__init__(stream.flow, backpressure, stall_timeout_s)
        self.stream = stream
        self.detach_stalled = detach_stalled
        self.parked: dict[Task, ReceivingEnd] = {}
        self.orphans: list[tuple[Cursor, object]] = []
        self.detached: list[str] = []
        self.subscribed = 0
        self.cloned = False  # some receiver has or had clones: only one of them is woken for new rows

    # -- for the queue of sends

    def counts(self) -> tuple[int, int]:
        if self.orphans:
            self._bury()
        stream = self.stream
        stream.limit = -1  # the answer may slow the flow: no short cut until the next send went ahead
        return stream.head, stream.find_tail()

    def write(self, payload: list[Column], count: int) -> None:
        self.stream.commit(payload, count)
        if self.parked:
            self.wake_receivers()

    def want(self, taken: int) -> None:
        self.stream.want(taken)

    def stall_mark(self) -> int:
        return self.stream.wanted

    def report_stall(self, mark: int) -> None:
        stalled = [cursor for cursor in self.stream.lossless if cursor.floor < mark]
        for cursor in stalled:
            cursor.stalls += 1
            consequence = "it is detached" if self.detach_stalled else "it is waited for"
            _log.warning("%s held the sender longer than %g s: %s", cursor.name, self.stall_timeout_s, consequence)
            if self.detach_stalled:
                self._detach(cursor)
        if stalled:
            self.advance()

    def _detach(self, cursor: Cursor) -> None:
        cursor.detached = True
        self.detached.append(cursor.name)
        self.stream.remove(cursor)
        self.wake_ends(cursor)

    # -- receivers

    def subscribe(self, policy: PolicyName, key: str | None, name: str | None) -> Cursor:
        cursor = self.stream.subscribe(name or f"receiver-{self.subscribed + 1}", Policy(policy), key)
        self.subscribed += 1
        return cursor

    def wake_receivers(self) -> None:
        """Rows came: wake one end of every cursor."""
        parked, self.parked = self.parked, {}
        if self.cloned:
            woken: set[Cursor] = set()
            for task, end in list(parked.items()):
                if end.cursor in woken:
                    self.parked[task] = end
                    del parked[task]
                woken.add(end.cursor)
        wake_all(parked)

    def wake_clone(self, cursor: Cursor) -> None:
        """An end that was woken is done: wake the next clone if there are rows left."""
        if self.parked and self.stream.ready(cursor):
            for task, end in self.parked.items():
                if end.cursor is cursor:
                    del self.parked[task]
                    wake(task)
                    return

    def wake_ends(self, cursor: Cursor, end: ReceivingEnd | None = None) -> None:
        """Wake the tasks parked on a cursor (on one end of it), because receiving fails from now on."""
        concerned = [
            task for task, parked in self.parked.items() if (parked.cursor is cursor if end is None else parked is end)
        ]
        for task in concerned:
            del self.parked[task]
        wake_all(concerned)

    def leave(self, cursor: Cursor, hold: object) -> bool:
        """An end closed: give back what it holds; the last one takes the cursor away. True when that made room."""
        cursor.ends -= 1
        room = self.stream.release(cursor, hold)
        if not cursor.ends and not cursor.detached:
            room |= self.stream.remove(cursor)
        return room

    def unpark(self, task: Task) -> None:
        del self.parked[task]

    def wake_all_receivers(self) -> None:
        """The stream ended."""
        parked, self.parked = self.parked, {}
        wake_all(parked)

    def orphan(self, cursor: Cursor, hold: object) -> None:
        """An end was collected, in any thread and in the middle of anything: remember it, bury it later."""
        self.orphans.append((cursor, hold))
        if self.token is not None:
            try:
                self.token.run_sync_soon(self.advance, idempotent=True)
            except trio.RunFinishedError:
                return

    def _bury(self) -> None:
        while self.orphans:
            self.leave(*self.orphans.pop())

    # -- what users see

    def current_rate(self) -> float:
        sent, taken = self.counts()
        return self.flow.rate(sent - taken)

    def statistics(self) -> BroadcastStatistics:
        sent, taken = self.counts()
        stream = self.stream
        row_bytes = stream.ring.row_bytes
        return BroadcastStatistics(
            capacity=stream.capacity,
            used=sent - taken,
            sent=sent,
            current_rate=self.flow.rate(sent - taken),
            slow_downs=self.flow.slow_downs,
            timed_out=self.timed_out,
            open_senders=self.open_senders,
            sends_waiting=len(self.waiting),
            receivers_waiting=len(self.parked),
            bytes_viewed=stream.viewed * row_bytes,
            bytes_copied=stream.copied * row_bytes,
            dropped=dict(stream.dropped),
            receivers=tuple(
                ReceiverStatistics(c.name, c.policy.value, sent - c.next, c.missed, c.stalls, c.ends)
                for c in (*stream.lossless, *stream.others)
            ),
            detached=tuple(self.detached),
        )
