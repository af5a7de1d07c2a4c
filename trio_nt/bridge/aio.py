"""The engine in a thread of its own, its methods awaited from asyncio."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
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


class AsyncioEvents:
    """The engine's events in asyncio: an asynchronous iterator that ends with the engine. For one task at a time."""

    def __init__(self, events: Events) -> None:
        self._events = events

    async def receive(self) -> Event:
        """The next event. Cancelled, nothing is lost.

        Raises:
            Lagged: this listener fell behind; ``missed`` events were lost. The next call goes on.
            trio.EndOfChannel: the engine has closed and everything was read.
            EngineEnded: the engine failed.
        """
        fetch = self._events.fetch()
        if fetch is not None:
            await asyncio.wrap_future(fetch)
        return self._events.take()

    def close(self) -> None:
        """Unsubscribe. Closing twice does nothing."""
        self._events.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncioEngine:
    """The methods of ``Engine``, from the asyncio loop that opened it. The loop goes on while a method waits.

    All raise what the engine's method raises, and ``EngineEnded`` where the engine failed or its block was left.
    Cancelling the task that awaits one cancels it in the engine.
    """

    def __init__(self, thread: EngineThread) -> None:
        self._thread = thread

    async def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run ``function(engine, *args)``, an ``async`` function of Trio, in the engine's Trio run; what it returns."""
        return await asyncio.wrap_future(self._thread.submit(function, *args))

    async def start(self) -> None:
        await self.run(Engine.start)

    async def stop(self) -> None:
        """Ask for the end: the engine closes in order, in the background."""
        await self._run_sync(Engine.stop)

    async def wait(self) -> Report:
        """Wait until the engine has closed; its report."""
        return await self.run(Engine.wait)

    async def halt(self) -> None:
        await self.run(Engine.halt)

    async def flatten(self) -> None:
        await self.run(Engine.flatten)

    async def add_strategy(self, strategy_id: str, strategy: Strategy) -> None:
        await self._run_sync(Engine.add_strategy, strategy_id, strategy)

    async def stop_strategy(self, strategy_id: str) -> None:
        await self.run(Engine.stop_strategy, strategy_id)

    async def statistics(self) -> EngineStatistics:
        return await self._run_sync(Engine.statistics)

    async def report(self) -> Report:
        return await self._run_sync(Engine.report)

    async def events(self) -> AsyncioEvents:
        """Everything that happens from now on."""
        return AsyncioEvents(await asyncio.wrap_future(self._thread.subscribe()))

    async def _run_sync(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.wrap_future(self._thread.submit_sync(function, *args))


class open_asyncio_bridge:  # noqa: N801 - a context manager, named as Trio names its own
    """Open an engine in a thread of its own: ``async with open_asyncio_bridge(partial(open_engine, …)) as engine:``.

    Args:
        open_engine: called in that thread; makes the context manager that gives the engine. It may open more, such as
            the connection of a broker.

    Leaving the block closes the engine in order; an error in it, or its cancellation, cancels the engine at once.
    Either way the thread has ended when the block has, also where the task is cancelled once more meanwhile. An engine
    that fails cancels the task inside the block, as ``asyncio.TaskGroup`` does, and the block raises what it failed
    with. Enter and leave it in one task.

    Raises:
        BaseException: what the engine raised, as by ``open_engine``; in a group with the error of the block where both
            failed. A method that was awaited meanwhile has raised ``EngineEnded``.
    """

    def __init__(self, open_engine: OpenEngine) -> None:
        self._thread = EngineThread(open_engine)
        self._is_open = False
        self._cancelled_host = False
        self._cancels_before = 0
        self._host: asyncio.Task[Any]

    async def __aenter__(self) -> AsyncioEngine:
        host = asyncio.current_task()
        if host is None:
            raise RuntimeError("open_asyncio_bridge must be entered in an asyncio task")
        self._host, self._cancels_before = host, host.cancelling()
        loop = asyncio.get_running_loop()
        self._thread.ended.add_done_callback(lambda ended: _call_soon(loop, self._on_end))
        self._thread.start()
        try:
            await asyncio.wrap_future(self._thread.opened)
        except BaseException:
            self._thread.cancel()
            await self._join()  # noqa: ASYNC102 - asyncio, not Trio: it waits whatever happens
            raise
        self._is_open = True
        if self._thread.ended.done():  # it failed before it could be told to anybody
            self._on_end()
        return AsyncioEngine(self._thread)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        if error is None:
            self._thread.leave()
        else:
            self._thread.cancel()
        failure = await self._join()  # noqa: ASYNC102 - as above
        if self._cancelled_host:
            self._host.uncancel()
        if failure is not None and isinstance(error, asyncio.CancelledError):
            raise failure  # the cancellation was ours, or comes too late to matter
        raised = raised_by(error, failure)
        if raised is not None:
            raise raised
        if error is None and self._host.cancelling() > self._cancels_before:
            raise asyncio.CancelledError  # it came while the engine was closing

    async def _join(self) -> BaseException | None:
        """Wait for the thread's end, also while cancelled: that cancels what is still closing."""
        ended = asyncio.wrap_future(self._thread.ended)
        while not ended.done():
            try:
                await asyncio.wait([ended])
            except asyncio.CancelledError:  # noqa: ASYNC103 - raised by whoever waits, once the thread has ended
                self._thread.cancel()
        return self._thread.join()

    def _on_end(self) -> None:
        if self._is_open and not self._cancelled_host and self._thread.ended.result() is not None:
            self._cancelled_host = True
            self._host.cancel()


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody is there to be told
        loop.call_soon_threadsafe(function)
