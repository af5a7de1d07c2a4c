"""Structures that any thread may use, Trio's or not: a map, a bounded queue, a bounded log.

CPython's lock (the GIL) makes one bytecode's work on a built-in container atomic; two steps together are not. So:

| operation | how |
|---|---|
| ``SharedMap`` get, ``in``, len | one dict operation, no lock |
| ``SharedMap`` set, remove, update, modify, snapshot | under its lock: a snapshot never shows half an ``update`` |
| ``SharedQueue`` try_push, try_pop | under its lock: the bound is checked and kept in one step |
| ``SharedLog`` append, drain | under its lock: likewise, and no event falls between two drains |
| every ``len`` | one operation, no lock: right when it was taken |

No lock is held while foreign code runs, but for ``modify``'s function and the keys' ``__hash__`` and ``__eq__``: these
must not use the same map. A lock is held for well under a microsecond, save for snapshots (a copy of the dict).
Locks are re-entrant, so that a finaliser which the garbage collector runs in their midst cannot lock itself out; such
an append may overshoot the bound by one.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from threading import RLock
from typing import Generic, Literal, TypeVar

import attrs
import trio
from trio.lowlevel import Task, TrioToken, current_task, current_trio_token

from scheduler.backpressure import check_capacity
from scheduler.parking import park, wake

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


class SharedMap(Generic[K, V]):
    """A dict for many threads with consistent snapshots. Values are shared, not copied: let them be immutable."""

    __slots__ = ("_items", "_lock")

    def __init__(self, items: Mapping[K, V] | None = None) -> None:
        self._items: dict[K, V] = dict(items or {})
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def get(self, key: K) -> V | None:
        """The value, None where there is none. No lock."""
        return self._items.get(key)

    def set(self, key: K, value: V) -> None:
        """Put one value."""
        with self._lock:
            self._items[key] = value

    def update(self, items: Mapping[K, V]) -> None:
        """Put several values as one change: a snapshot shows all of them or none."""
        with self._lock:
            self._items.update(items)

    def remove(self, key: K) -> V | None:
        """Take a value out; None where there was none."""
        with self._lock:
            return self._items.pop(key, None)

    def modify(self, key: K, function: Callable[[V | None], V]) -> V:
        """Replace the value by ``function(value)`` with nobody in between; returns the new one.

        ``function`` runs under the lock: it must be short and not use this map. If it raises, nothing changed.
        """
        with self._lock:
            value = self._items[key] = function(self._items.get(key))
            return value

    def snapshot(self) -> dict[K, V]:
        """A copy of all as it was at one moment."""
        with self._lock:
            return self._items.copy()


@attrs.frozen
class SharedQueueStatistics:
    """A snapshot; ``refused`` counts pushes into the full queue, whose items stayed with the caller."""

    capacity: int
    used: int
    pushed: int
    popped: int
    refused: int
    tasks_waiting: int


class SharedQueue(Generic[T]):
    """A bounded first-in-first-out queue for many threads, with a ``pop`` for Trio tasks."""

    __slots__ = ("_items", "_lock", "_popped", "_pushed", "_refused", "_waiting", "capacity")

    def __init__(self, capacity: int) -> None:
        check_capacity(capacity)
        self.capacity = capacity
        self._items: deque[T] = deque()
        self._waiting: dict[Task, TrioToken] = {}
        self._lock = RLock()
        self._pushed = self._popped = self._refused = 0

    def __len__(self) -> int:
        return len(self._items)

    def try_push(self, item: T) -> bool:
        """Put ``item`` in from any thread; False (and nothing done) when the queue is full. Wakes a waiting task."""
        with self._lock:
            if len(self._items) >= self.capacity:
                self._refused += 1
                return False
            self._items.append(item)
            self._pushed += 1
            if self._waiting:
                self._call_one()
        return True

    def try_pop(self) -> T | None:
        """Take the oldest item from any thread; None when there is none."""
        with self._lock:
            return self._pop() if self._items else None

    async def pop(self) -> T:
        """Take the oldest item, waiting for one. A checkpoint. Cancelled, nothing was taken.

        Items go to whoever takes them first: a ``try_pop`` may get in before a task that was woken for its item.
        """
        await trio.lowlevel.checkpoint()
        task = current_task()
        while True:
            with self._lock:
                if self._items:
                    item = self._pop()
                    if self._items and self._waiting:
                        self._call_one()
                    return item
                self._waiting[task] = current_trio_token()
            await park(partial(self._forget, task))

    def statistics(self) -> SharedQueueStatistics:
        """Counters and sizes, frozen."""
        with self._lock:
            return SharedQueueStatistics(
                self.capacity, len(self._items), self._pushed, self._popped, self._refused, len(self._waiting)
            )

    def _pop(self) -> T:
        self._popped += 1
        return self._items.popleft()

    def _call_one(self) -> None:
        """Have the longest waiting task woken by its own loop; it stays listed until that happens."""
        for task, token in self._waiting.items():
            try:
                token.run_sync_soon(partial(self._wake, task))
            except trio.RunFinishedError:
                continue
            return

    def _wake(self, task: Task) -> None:
        with self._lock:
            waiting = self._waiting.pop(task, None) is not None
        if waiting:
            wake(task)

    def _forget(self, task: Task) -> None:
        with self._lock:
            del self._waiting[task]
            if self._items and self._waiting:
                self._call_one()


@attrs.frozen
class SharedLogStatistics:
    """A snapshot; ``dropped`` counts events lost, by reason: ``refused`` (new ones) or ``overwritten`` (the oldest)."""

    capacity: int
    used: int
    appended: int
    drained: int
    dropped: Mapping[str, int]


class SharedLog(Generic[T]):
    """A bounded log that any thread appends to and that is drained in order.

    Args:
        capacity: events it holds.
        when_full: ``refuse`` keeps the old events and says no to the new one, ``drop_oldest`` makes room for it.
            Either way the loss is counted.
    """

    __slots__ = ("_appended", "_drained", "_items", "_lock", "_overwritten", "_refused", "capacity", "when_full")

    def __init__(self, capacity: int, *, when_full: Literal["refuse", "drop_oldest"] = "refuse") -> None:
        check_capacity(capacity)
        if when_full not in ("refuse", "drop_oldest"):
            raise ValueError(f'when_full must be "refuse" or "drop_oldest", was {when_full!r}')
        self.capacity = capacity
        self.when_full = when_full
        self._items: deque[T] = deque()
        self._lock = RLock()
        self._appended = self._drained = self._refused = self._overwritten = 0

    def __len__(self) -> int:
        return len(self._items)

    def append(self, event: T) -> bool:
        """Add an event from any thread; False when it was refused because the log is full."""
        with self._lock:
            if len(self._items) >= self.capacity:
                if self.when_full == "refuse":
                    self._refused += 1
                    return False
                self._items.popleft()
                self._overwritten += 1
            self._items.append(event)
            self._appended += 1
        return True

    def extend(self, events: Iterable[T]) -> int:
        """Append several; returns how many were accepted. Events of other threads may come in between."""
        return sum(self.append(event) for event in events)

    def drain(self) -> list[T]:
        """Take all events, oldest first."""
        with self._lock:
            items, self._items = self._items, deque()
            self._drained += len(items)
        return list(items)

    def statistics(self) -> SharedLogStatistics:
        """Counters and sizes, frozen."""
        with self._lock:
            losses = {"refused": self._refused, "overwritten": self._overwritten}
            return SharedLogStatistics(
                self.capacity,
                len(self._items),
                self._appended,
                self._drained,
                {reason: count for reason, count in losses.items() if count},
            )


class PositionCache(Generic[K, V]):
    """The seed's position cache: the latest position per symbol, read and written by any thread."""

    __slots__ = ("_positions",)

    def __init__(self) -> None:
        self._positions: SharedMap[K, V] = SharedMap()

    def __len__(self) -> int:
        return len(self._positions)

    def get(self, symbol: K) -> V | None:
        """The position, None where there is none. No lock."""
        return self._positions.get(symbol)

    def update(self, symbol: K, position: V) -> None:
        """Put a position."""
        self._positions.set(symbol, position)

    def update_all(self, positions: Mapping[K, V]) -> None:
        """Put several positions that belong together: a snapshot shows all of them or none."""
        self._positions.update(positions)

    def remove(self, symbol: K) -> V | None:
        """Take a position out; None where there was none."""
        return self._positions.remove(symbol)

    def snapshot(self) -> dict[K, V]:
        """All positions as they were at one moment."""
        return self._positions.snapshot()


class OrderQueue(SharedQueue[T]):
    """The seed's bounded order queue: ``try_push`` and ``try_pop`` from any thread, ``await pop()`` in a task."""

    __slots__ = ()

    def __init__(self, capacity: int = 100) -> None:
        super().__init__(capacity)


class EventLog(SharedLog[T]):
    """The seed's event log: ``append`` from any thread, ``drain`` in order; bounded, where the seed's was not."""

    __slots__ = ()

    def __init__(self, capacity: int = 10_000, *, when_full: Literal["refuse", "drop_oldest"] = "refuse") -> None:
        super().__init__(capacity, when_full=when_full)
