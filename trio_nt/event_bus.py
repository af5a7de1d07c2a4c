"""Events for hosts: every listener hears everything from its subscription on, and nobody waits for a listener.

A listener that falls more than the capacity behind loses the oldest events and is told so once, by ``Lagged``.
"""

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

import trio

from scheduler import Lagged

T = TypeVar("T")
DEFAULT_CAPACITY = 1_000


class EventReceiver(Generic[T]):
    """One listener; an asynchronous iterator that ends with the engine. ``with`` or ``close`` unsubscribes it."""

    def __init__(self, capacity: int, leave: "Callable[[EventReceiver[T]], None]") -> None:
        self._events: deque[T] = deque(maxlen=capacity)
        self._missed = 0
        self._ended = False
        self._leave = leave
        self._waiting = trio.lowlevel.ParkingLot()

    def put(self, event: T) -> None:
        if len(self._events) == self._events.maxlen:
            self._missed += 1
        self._events.append(event)
        self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        self._waiting.unpark_all()

    async def receive(self) -> T:
        """The next event. A checkpoint; cancelled, nothing was taken. One task at a time.

        Raises:
            Lagged: events were lost; ``missed`` says how many. The next call goes on with the oldest one left.
            trio.EndOfChannel: the engine has closed and everything was read.
            trio.BusyResourceError: another task waits here.
        """
        await trio.lowlevel.checkpoint()
        if self._waiting:
            raise trio.BusyResourceError("another task is waiting for events here; subscribe once for each")
        while not self._events:
            if self._ended:
                raise trio.EndOfChannel
            await self._waiting.park()
        if self._missed:
            missed, self._missed = self._missed, 0
            raise Lagged(missed)
        return self._events.popleft()

    async def receive_batch(self) -> list[T]:
        """All events that are there, at least one; otherwise like ``receive``."""
        batch = [await self.receive()]
        batch += self._events
        self._events.clear()
        return batch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def close(self) -> None:
        """Unsubscribe. Closing twice does nothing."""
        self._leave(self)
        self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EventBus(Generic[T]):
    """Passes events to listeners. Not thread-safe."""

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, was {capacity}")
        self._capacity = capacity
        self._receivers: list[EventReceiver[T]] = []
        self._ended = False

    def subscribe(self) -> EventReceiver[T]:
        """A listener that hears everything published from now on."""
        receiver: EventReceiver[T] = EventReceiver(self._capacity, self._forget)
        if self._ended:
            receiver.end()
        else:
            self._receivers.append(receiver)
        return receiver

    def publish(self, event: T) -> None:
        """Pass an event on. Never waits."""
        for receiver in self._receivers:
            receiver.put(event)

    def end(self) -> None:
        """No more events: listeners end when they have read what is there."""
        self._ended = True
        for receiver in self._receivers:
            receiver.end()

    def _forget(self, receiver: EventReceiver[T]) -> None:
        if receiver in self._receivers:
            self._receivers.remove(receiver)
