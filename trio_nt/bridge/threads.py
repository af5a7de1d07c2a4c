"""The engine in a thread of its own, for hosts whose calls may block: plain threads, GUIs, scripts."""

from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

import trio

from trio_nt.bridge.portal import EngineThread, Events, OpenEngine, raised_by
from trio_nt.engine import Engine
from trio_nt.engine_config import EngineStatistics
from trio_nt.model.events import Event
from trio_nt.report import Report
from trio_nt.strategies.base import Strategy

T = TypeVar("T")


class ThreadEvents:
    """The engine's events in another thread: an iterator that blocks, and ends with the engine. For one thread."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def receive(self, *, timeout_s: float | None = None) -> Event:
        """The next event; blocks until there is one. ``timeout_s=0`` for a GUI's timer.

        Raises:
            TimeoutError: there was none in time; nothing is lost.
            Lagged: this listener fell behind; ``missed`` events were lost. The next call goes on.
            trio.EndOfChannel: the engine has closed and everything was read.
            EngineEnded: the engine failed.
        """
        fetch = self._events.fetch()
        if fetch is not None:
            fetch.result(timeout_s)
        return self._events.take()

    def close(self) -> None:
        """Unsubscribe. Closing twice does nothing."""
        self._events.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        try:
            return self.receive()
        except trio.EndOfChannel:
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class ThreadEngine:
    """The methods of ``Engine``, from any thread but the engine's own. Each blocks until the engine has answered.

    All raise what the engine's method raises, and ``EngineEnded`` where the engine failed or its block was left.
    """

    def __init__(self, thread: EngineThread) -> None:
        self._thread = thread

    def submit(self, function: Callable[..., Awaitable[T]], *args: Any) -> "Future[T]":
        """Run ``function(engine, *args)``, an ``async`` function, in the engine's Trio run. Does not block.

        Cancelling the future cancels it there.
        """
        return self._thread.submit(function, *args)

    def start(self) -> None:
        self.submit(Engine.start).result()

    def stop(self) -> None:
        """Ask for the end: the engine closes in order, in the background."""
        self._thread.submit_sync(Engine.stop).result()

    def wait(self, *, timeout_s: float | None = None) -> Report:
        """Wait until the engine has closed; its report. ``TimeoutError`` where that takes longer than ``timeout_s``."""
        waiting = self.submit(Engine.wait)
        try:
            return waiting.result(timeout_s)
        finally:
            waiting.cancel()  # only where it was not answered

    def halt(self) -> None:
        self.submit(Engine.halt).result()

    def flatten(self) -> None:
        self.submit(Engine.flatten).result()

    def add_strategy(self, strategy_id: str, strategy: Strategy) -> None:
        self._thread.submit_sync(Engine.add_strategy, strategy_id, strategy).result()

    def stop_strategy(self, strategy_id: str) -> None:
        self.submit(Engine.stop_strategy, strategy_id).result()

    def statistics(self) -> EngineStatistics:
        return self._thread.submit_sync(Engine.statistics).result()

    def report(self) -> Report:
        return self._thread.submit_sync(Engine.report).result()

    def events(self) -> ThreadEvents:
        """Everything that happens from now on."""
        return ThreadEvents(self._thread.subscribe().result())


class open_thread_bridge:  # noqa: N801 - a context manager, named as Trio names its own
    """Open an engine in a thread of its own: ``with open_thread_bridge(partial(open_engine, …)) as engine:``.

    Args:
        open_engine: called in that thread; makes the context manager that gives the engine. It may open more, such as
            the connection of a broker.

    Leaving the block closes the engine in order; an error in it, also Ctrl-C, cancels the engine at once. Either way
    the thread has ended when the block has.

    Raises:
        BaseException: what the engine raised, by the block as by ``open_engine``; in a group with the error of the
            block where both failed. A method that was called meanwhile has raised ``EngineEnded``.
    """

    def __init__(self, open_engine: OpenEngine) -> None:
        self._thread = EngineThread(open_engine)

    def __enter__(self) -> ThreadEngine:
        self._thread.start()
        try:
            self._thread.opened.result()
        except BaseException:
            self._thread.cancel()
            self._join()
            raise
        return ThreadEngine(self._thread)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._thread.leave()
        else:
            self._thread.cancel()
        raised = raised_by(error, self._join())
        if raised is not None:
            raise raised

    def _join(self) -> BaseException | None:
        """Wait for the thread's end. Ctrl-C meanwhile cancels what is still closing, and is raised after it."""
        interrupt = None
        while True:
            try:
                failure = self._thread.join()
                break
            except KeyboardInterrupt as pressed:
                interrupt = pressed
                self._thread.cancel()
        if interrupt is not None:
            raise interrupt
        return failure
