"""The engine's thread, and how others call into it. Knows nothing of who calls.

Rules
- One thread, one Trio run, one engine. Its thread ends after its engine has closed, and never before its calls ended.
- A call is a ``concurrent.futures.Future``. Cancelling it cancels what runs for it; a call that the end overtakes
  raises ``EngineEnded``.
- Events stay in the engine's own bounded receiver until somebody asks; then all that are there cross at once. So a slow
  host costs the engine nothing, and is told once (``Lagged``) what it missed.
"""

import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeAlias, TypeVar

import outcome
import trio

from scheduler import Lagged
from trio_nt.engine import Engine
from trio_nt.errors import TrioNTError
from trio_nt.event_bus import EventReceiver
from trio_nt.model.events import Event

T = TypeVar("T")
OpenEngine: TypeAlias = Callable[[], AbstractAsyncContextManager[Engine]]


class EngineEnded(TrioNTError):
    """The engine's block has ended, by an error of its own or because its host left it; no call is answered."""


class EngineThread:
    """Opens an engine in a thread of its own. Thread-safe, except that one thread starts it and waits for its end.

    ``opened`` is done when calls can be made, or when that will never be; ``ended`` when the run is over: its result is
    what the run raised, or None.
    """

    def __init__(self, open_engine: OpenEngine) -> None:
        self.opened: Future[None] = _uncancellable()
        self.ended: Future[BaseException | None] = _uncancellable()
        self._token: Future[trio.lowlevel.TrioToken] = _uncancellable()
        self._open_engine = open_engine
        self._scope = trio.CancelScope()
        self._leaving: trio.Event
        self._engine: Engine
        self._calls: trio.Nursery | None = None  # None: no call is taken
        self._thread = threading.Thread(target=self._run, name="trio-nt engine")

    def start(self) -> None:
        self._thread.start()

    def leave(self) -> None:
        """Let the engine close in order, then end. Does not wait."""
        self._soon(lambda: self._leaving.set())

    def cancel(self) -> None:
        """Cancel everything at once. Does not wait."""
        self._soon(self._scope.cancel)

    def join(self) -> BaseException | None:
        """Wait for the end; what the run raised. A few microseconds once ``ended`` is done."""
        failure = self.ended.result()
        self._thread.join()
        return failure

    def submit(self, function: Callable[..., Awaitable[T]], *args: Any) -> "Future[T]":
        """Have ``function(engine, *args)`` run in the engine's Trio run, in a task of its own.

        The future raises what the function raises, or ``EngineEnded``.
        """
        future: Future[T] = Future()
        if not self._soon(self._begin, future, function, args):
            future.set_exception(_ended())
        return future

    def submit_sync(self, function: Callable[..., T], *args: Any) -> "Future[T]":
        """The same for a function that is not ``async``."""

        async def call(engine: Engine) -> T:
            await trio.lowlevel.checkpoint_if_cancelled()  # cancelled before its turn, it does nothing
            return function(engine, *args)

        return self.submit(call)

    def subscribe(self) -> "Future[Events]":
        """A subscription to the engine's events from now on."""
        return self.submit_sync(lambda engine: Events(self, engine.events()))

    # -- in the engine's thread --

    def _run(self) -> None:
        result = outcome.capture(trio.run, self._main)
        failure = result.error if isinstance(result, outcome.Error) else None
        for future in (self._token, self.opened):
            if not future.done():
                future.set_exception(failure or _ended())
        self.ended.set_result(failure)

    async def _main(self) -> None:
        self._leaving = trio.Event()
        self._token.set_result(trio.lowlevel.current_trio_token())
        with self._scope:
            async with self._open_engine() as self._engine, trio.open_nursery() as self._calls:
                try:
                    self.opened.set_result(None)
                    await self._leaving.wait()
                    await self._engine.close()  # before calls end: who waits for the report gets it
                finally:
                    calls, self._calls = self._calls, None
                calls.cancel_scope.cancel()

    def _begin(self, future: "Future[Any]", function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        if self._calls is None:
            with suppress(InvalidStateError):
                future.set_exception(_ended())
        else:
            self._calls.start_soon(self._call, future, function, args, name=function)

    async def _call(
        self, future: "Future[Any]", function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]
    ) -> None:
        scope = trio.CancelScope()
        future.add_done_callback(lambda done: self._soon(scope.cancel) if done.cancelled() else None)
        if future.cancelled():  # before its turn; nothing of it may be in the way of the caller's next call
            return
        # The caller may cancel its future at any moment, also between two lines here: then there is nobody to tell.
        try:
            with scope:
                value = await function(self._engine, *args)
                with suppress(InvalidStateError):
                    future.set_result(value)
        except Exception as error:  # noqa: BLE001 - the caller's, in another thread
            with suppress(InvalidStateError):
                future.set_exception(error)
        finally:
            if not future.done():
                with suppress(InvalidStateError):
                    future.set_exception(_ended())

    def _soon(self, function: Callable[..., object], *args: Any) -> bool:
        """Have a function called in the Trio run; False where that is over. Where it has not begun, once it has."""

        def call(token: "Future[trio.lowlevel.TrioToken]") -> None:
            token.result().run_sync_soon(function, *args)

        if not self._token.done():
            self._token.add_done_callback(lambda token: None if token.exception() else call(token))
            return True
        try:
            call(self._token)
        except trio.RunFinishedError:
            return False
        return True


class Events:
    """A subscription, seen from outside: ``take`` what has crossed, ``fetch`` more. For one caller at a time."""

    def __init__(self, thread: EngineThread, receiver: EventReceiver[Event]) -> None:
        self.has_ended = False
        self._thread = thread
        self._receiver = receiver
        self._ready: deque[Event | Lagged] = deque()  # filled while empty, with what one receiver holds: bounded
        self._fetching: Future[None] | None = None

    def fetch(self) -> "Future[None] | None":
        """Done when there is something to ``take``, or ``has_ended``; None where that is so now.

        Cancelled, nothing is lost: what crossed is there for the next call.
        """
        if self._ready or self.has_ended:
            return None
        if self._fetching is None or self._fetching.done():
            self._fetching = self._thread.submit(self._fetch)
        return self._fetching

    def take(self) -> Event:
        """The next event that has crossed.

        Raises:
            Lagged: as ``EventReceiver.receive`` does.
            trio.EndOfChannel: the engine has closed, and everything was read.
        """
        if not self._ready:
            raise trio.EndOfChannel
        event = self._ready.popleft()
        if isinstance(event, Lagged):
            raise event
        return event

    def close(self) -> None:
        """Unsubscribe. Does not wait; closing twice does nothing."""
        self._thread._soon(self._receiver.close)

    async def _fetch(self, engine: Engine) -> None:
        if self._ready:  # one that was cancelled a moment ago had just succeeded
            return
        try:
            batch = await self._receiver.receive_batch()
        except Lagged as lagged:
            self._ready.append(lagged)
        except trio.EndOfChannel:
            self.has_ended = True
        else:
            self._ready.extend(batch)


def raised_by(error: BaseException | None, failure: BaseException | None) -> BaseException | None:
    """What a block raises whose body raised ``error`` and whose engine ``failure``; None for what the body raised."""
    if failure is None or failure is error:
        return None
    if error is None or isinstance(error, EngineEnded):
        return failure
    return BaseExceptionGroup("the engine failed, and so did the block around it", [failure, error])


def _ended() -> EngineEnded:
    return EngineEnded("the engine has ended: the block that opened it says why")


def _uncancellable() -> "Future[Any]":
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future
