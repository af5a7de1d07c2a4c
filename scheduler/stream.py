"""Who has read what of a ring, and how far a sender may go: the bookkeeping of a broadcast.

Pure: no Trio, no clock. The rules:

1. ``head`` counts the rows ever sent. A cursor's ``next`` is the row it reads next; its ``floor`` is the oldest row
   that one of its ends may still look at: the first row of the oldest batch held, or ``next``.
2. A lossless cursor's rows from ``floor`` on are never overwritten. ``tail`` is the lowest such floor; it is looked up
   only when the last one known does not let a send through.
3. A lagging cursor that was overtaken counts what it missed, reports it once and goes on with the oldest row left.
4. A conflating cursor's rows are folded into its table of latest rows before they are overwritten.
5. Clones share a cursor: each row goes to exactly one of them.
"""

from enum import Enum

import numpy as np

from scheduler.backpressure import Backpressure, FlowControl
from scheduler.channel_errors import Lagged
from scheduler.ring import Batch, Column, DebugBatch, OwnedBatch, Ring

_ROW = "\0row"  # the pending table's own column: each row's number


class Policy(Enum):
    """What a receiver gets when it cannot keep up."""

    LOSSLESS = "lossless"
    LAGGING = "lagging"
    CONFLATING = "conflating"


class Cursor:
    """One reading position, shared by the clones of one receiver."""

    __slots__ = (
        "cloned",
        "copies",
        "detached",
        "ends",
        "floor",
        "held",
        "key",
        "missed",
        "name",
        "next",
        "pending",
        "policy",
        "stalls",
    )

    def __init__(self, name: str, policy: Policy, key: str | None, start: int) -> None:
        self.name = name
        self.policy = policy
        self.copies = policy is not Policy.LOSSLESS  # receives copies and never holds a sender back
        self.key = key
        self.next = start
        self.floor = start
        self.ends = 1
        self.cloned = False  # has or had clones: wakes must be passed on among them
        self.held: dict[object, int] = {}  # end → first row of the batch it holds; oldest first, as rows only go up
        self.pending: dict[str, Column] | None = None  # conflating: latest row per key, in order of arrival
        self.detached = False
        self.stalls = 0
        self.missed = 0


class Stream:
    """A ring with its cursors and its flow control."""

    def __init__(self, ring: Ring, backpressure: Backpressure | None, debug: bool) -> None:
        self.ring = ring
        self.capacity = ring.capacity
        self.flow = FlowControl(ring.capacity, backpressure)
        self.debug = debug
        self.head = 0
        self.tail = 0
        self.limit = self.flow.high  # a send that ends at or below this row needs no closer look
        self.wanted = -1  # the tail that a waiting sender wants, -1 when none waits
        self.blockers = 0  # cursors below `wanted`
        self.lossless: list[Cursor] = []
        self.others: list[Cursor] = []
        self.lent: dict[object, DebugBatch] = {}  # debug: the batch each end holds
        self.poisoned = 0  # debug: slots of rows below this one were poisoned
        self.viewed = 0
        self.copied = 0
        self.dropped: dict[str, int] = {}

    # -- senders

    def want(self, tail: int) -> None:
        """Count the cursors that must still pass ``tail``; ``release`` counts them down."""
        self.wanted = tail
        self.blockers = sum(cursor.floor < tail for cursor in self.lossless)

    def find_tail(self) -> int:
        """Look up ``tail``: the oldest row that a lossless receiver still needs, ``head`` when there is none."""
        self.tail = tail = min([cursor.floor for cursor in self.lossless], default=self.head)
        return tail

    def commit(self, values: list[Column], count: int) -> None:
        """Append checked and admitted rows."""
        head = self.head
        if self.others:
            self._make_room(head + count - self.capacity)
        self.ring.write(head, values, count)
        self.head = head + count
        if self.flow.slowed:
            self.limit = -1
            self.flow.accepted(self.tail)
        else:
            self.limit = self.tail + self.flow.high
        if not self.lossless and not self.others:
            self.count_drop("no_receiver", count)

    def _make_room(self, oldest: int) -> None:
        for cursor in self.others:
            if cursor.policy is Policy.CONFLATING and cursor.next < oldest:
                self._fold(cursor)

    def count_drop(self, reason: str, count: int) -> None:
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    # -- receivers

    def ready(self, cursor: Cursor) -> bool:
        """Whether ``take`` would give something."""
        return cursor.next != self.head or cursor.pending is not None

    def subscribe(self, name: str, policy: Policy, key: str | None) -> Cursor:
        """A cursor that begins with the next row sent."""
        if (key is None) is (policy is Policy.CONFLATING):
            raise ValueError(f"key names the column of a conflating receiver and of no other, was {key!r}")
        if key is not None and key not in self.ring.fields:
            raise ValueError(f"key must be one of {list(self.ring.fields)}, was {key!r}")
        cursor = Cursor(name, policy, key, self.head)
        (self.others if cursor.copies else self.lossless).append(cursor)
        return cursor

    def remove(self, cursor: Cursor) -> bool:
        """Forget a cursor; True when that lets the waiting sender look again."""
        (self.others if cursor.copies else self.lossless).remove(cursor)
        unread = self.head - cursor.next + (0 if cursor.pending is None else len(cursor.pending[_ROW]))
        if unread:
            self.count_drop("detached" if cursor.detached else "closed", unread)
        old, cursor.floor = cursor.floor, self.head
        if self.debug:
            for end in cursor.held:
                self.lent.pop(end).expire()
        cursor.held.clear()
        cursor.pending = None
        if self.debug:
            self._poison()
        return not cursor.copies and self._passed(old, self.head)

    def release(self, cursor: Cursor, end: object) -> bool:
        """Give back the batch that ``end`` holds; True when that lets the waiting sender look again."""
        held = cursor.held
        if held.pop(end, None) is None:
            return False
        old = cursor.floor
        new = cursor.floor = next(iter(held.values())) if held else cursor.next
        if self.debug:
            self.lent.pop(end).expire()
            self._poison()
        return old < self.wanted and self._passed(old, new)

    def _passed(self, old: int, new: int) -> bool:
        if old < self.wanted <= new:
            self.blockers -= 1
            return self.blockers == 0
        return False

    def _poison(self) -> None:
        """Overwrite the slots that no lossless receiver needs any longer (others' unread rows stay as they are)."""
        old, tail = self.poisoned, self.find_tail()
        keep = min([cursor.next for cursor in self.others], default=tail)
        self.poisoned = new = max(old, min(tail, keep))
        self.ring.poison(max(old, self.head - self.capacity), new)

    def take(self, cursor: Cursor, end: object, max_items: int | None) -> Batch | None:
        """The next rows for ``end``, which holds none; None when there are none yet.

        Raises:
            Lagged: a lagging cursor was overtaken; the next call goes on with the oldest row left.
        """
        if cursor.copies:
            copied = self._take_copy(cursor, max_items)
            if self.debug:
                self._poison()
            return copied
        start = cursor.next
        count = self.head - start
        if not count:
            return None
        room = self.capacity - start % self.capacity
        if count > room:
            count = room
        if max_items is not None and count > max_items:
            count = max_items
        cursor.next = start + count
        cursor.held[end] = start
        self.viewed += count
        if self.debug:
            return self.lent.setdefault(end, DebugBatch(self.ring, start, count))
        return self.ring.window(start, count)

    def _take_copy(self, cursor: Cursor, max_items: int | None) -> Batch | None:
        if cursor.policy is Policy.CONFLATING:
            return self._take_latest(cursor, max_items)
        oldest = self.head - self.capacity
        if cursor.next < oldest:
            missed = oldest - cursor.next
            cursor.next = oldest
            cursor.missed += missed
            self.count_drop("lagged", missed)
            raise Lagged(missed)
        start = cursor.next
        count = min(self.head - start, self.capacity - start % self.capacity)
        if max_items is not None:
            count = min(count, max_items)
        if not count:
            return None
        cursor.next = cursor.floor = start + count
        self.copied += count
        return self.ring.copied(start, count)

    def _take_latest(self, cursor: Cursor, max_items: int | None) -> Batch | None:
        self._fold(cursor)
        latest = cursor.pending
        if latest is None:
            return None
        cursor.pending = None
        if max_items is not None and len(latest[_ROW]) > max_items:
            cursor.pending = {name: column[max_items:] for name, column in latest.items()}
            latest = {name: column[:max_items].copy() for name, column in latest.items()}
        sequence = int(latest.pop(_ROW)[0])
        batch = OwnedBatch(latest, sequence, sequence % self.capacity)
        self.copied += len(batch)
        return batch

    def _fold(self, cursor: Cursor) -> None:
        """Bring a conflating cursor's table of latest rows up to ``head``."""
        assert cursor.key is not None
        while cursor.next < self.head:
            start = cursor.next
            count = min(self.head - start, self.capacity - start % self.capacity)
            columns = dict(self.ring.copied(start, count).columns)
            columns[_ROW] = np.arange(start, start + count)
            cursor.next = cursor.floor = start + count
            if cursor.pending is not None:
                columns = {name: np.concatenate([cursor.pending[name], new]) for name, new in columns.items()}
            keys = columns[cursor.key]
            _, from_the_end = np.unique(keys[::-1], return_index=True)
            rows = np.sort(len(keys) - 1 - from_the_end)
            self.count_drop("conflated", len(keys) - len(rows))
            cursor.pending = {name: column[rows] for name, column in columns.items()}
