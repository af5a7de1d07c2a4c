"""Watch: the latest value of something, for many readers; the writer never waits.

Every ``set`` counts up a version. A reader is behind while the version it saw is not the latest.
"""

from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

import attrs
import trio
from trio.lowlevel import Task, current_task

from scheduler.parking import park, wake, wake_all

T = TypeVar("T")


@attrs.frozen
class WatchStatistics:
    """A snapshot. ``version`` counts the values set since the initial one."""

    version: int
    open_senders: int
    open_receivers: int
    tasks_waiting: int


class _State(Generic[T]):
    __slots__ = ("open_receivers", "open_senders", "value", "version", "waiting")

    def __init__(self, value: T) -> None:
        self.value = value
        self.version = 0
        self.open_senders = 0
        self.open_receivers = 0
        self.waiting: dict[Task, object] = {}

    def wake_everyone(self) -> None:
        waiting, self.waiting = self.waiting, {}
        wake_all(waiting)


class _End(Generic[T]):
    __slots__ = ("_closed", "_state")

    def __init__(self, state: _State[T]) -> None:
        self._state = state
        self._closed = False

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def statistics(self) -> WatchStatistics:
        """Counters, frozen."""
        state = self._state
        return WatchStatistics(state.version, state.open_senders, state.open_receivers, len(state.waiting))


class WatchSender(_End[T]):
    """The writing end."""

    __slots__ = ()

    def __init__(self, state: _State[T]) -> None:
        super().__init__(state)
        state.open_senders += 1

    def set(self, value: T) -> None:
        """Publish a value; readers that were not quick enough miss the one before. Never waits, not a checkpoint.

        Raises:
            trio.ClosedResourceError: this end is closed.
        """
        if self._closed:
            raise trio.ClosedResourceError
        state = self._state
        state.value = value
        state.version += 1
        if state.waiting:
            state.wake_everyone()

    def latest(self) -> T:
        """The value set last. Not a checkpoint."""
        return self._state.value

    def subscribe(self) -> "WatchReceiver[T]":
        """A reader for which the present value is not news."""
        if self._closed:
            raise trio.ClosedResourceError
        return WatchReceiver(self._state, self._state.version)

    def clone(self) -> "WatchSender[T]":
        """A further writing end; readers end when all are closed."""
        if self._closed:
            raise trio.ClosedResourceError
        return WatchSender(self._state)

    def close(self) -> None:
        """Close this end; after the last one ``changed()`` raises EndOfChannel once there is no news left."""
        if not self._closed:
            self._closed = True
            self._state.open_senders -= 1
            if not self._state.open_senders:
                self._state.wake_everyone()


class WatchReceiver(_End[T]):
    """A reader with its own memory of what it has seen."""

    __slots__ = ("_seen",)

    def __init__(self, state: _State[T], seen: int) -> None:
        super().__init__(state)
        self._seen = seen
        state.open_receivers += 1

    def latest(self) -> T:
        """The value set last, whether it is news or not; leaves ``changed()`` as it is. Not a checkpoint.

        Raises:
            trio.ClosedResourceError: this end is closed.
        """
        if self._closed:
            raise trio.ClosedResourceError
        return self._state.value

    async def changed(self) -> T:
        """Wait for a value set since the last ``changed()`` (at first: since this end was made); returns the latest.

        A checkpoint. Cancelled, the news stays news.

        Raises:
            trio.EndOfChannel: all writers are closed and there is no news.
            trio.ClosedResourceError: this end is closed.
        """
        state = self._state
        waited = False
        while True:
            if self._closed or state.version != self._seen or not state.open_senders:
                if not waited:
                    await trio.lowlevel.checkpoint()
                if self._closed:
                    raise trio.ClosedResourceError
                if state.version == self._seen:
                    raise trio.EndOfChannel
                self._seen = state.version
                return state.value
            task = current_task()
            state.waiting[task] = self
            await park(partial(state.waiting.__delitem__, task))
            waited = True

    def clone(self) -> "WatchReceiver[T]":
        """A further reader that has seen what this one has seen."""
        if self._closed:
            raise trio.ClosedResourceError
        return WatchReceiver(self._state, self._seen)

    def close(self) -> None:
        """Close this end; a ``changed()`` that waits on it raises ClosedResourceError."""
        if not self._closed:
            self._closed = True
            state = self._state
            state.open_receivers -= 1
            mine = [task for task, end in state.waiting.items() if end is self]
            for task in mine:
                del state.waiting[task]
                wake(task)


class open_watch(tuple[WatchSender[T], WatchReceiver[T]], Generic[T]):  # noqa: N801  # used as a function
    """Open a watch that holds ``initial``: any number of readers see the latest value, the writer never waits.

    ``sender, receiver = open_watch[float](0.0)``; the value's type may be left out. Values are shared, not copied: let
    them be immutable.
    """

    __slots__ = ()

    def __new__(cls, initial: T) -> Self:
        state = _State(initial)
        return super().__new__(cls, (WatchSender(state), WatchReceiver(state, 0)))
