"""Drives a replay whose strategies have ``async`` handlers, behind a barrier.

One handler runs at a time, in the order that the driver asks for; it has answered when it returns or goes to sleep in
market time. What else it awaits (a lock, a thread, a socket) the replay waits for, however long that takes: wall-clock
time never decides anything.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import outcome
import trio

from trio_nt.replay.seats import Asleep, Handler, Run, Wake


class _Call:
    """A handler under way."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.wake = trio.Event()
        self.ended = False
        self.value: Any = None
        self.error: Exception | None = None


class AsyncHandlers:
    """Awaits what the driver yields. One object serves one replay."""

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}

    def sleep_of(self, strategy_id: str) -> Callable[[int], Awaitable[None]]:
        """``context.sleep`` of one strategy: waits until the driver says that its market time has come.

        Raises:
            RuntimeError: a handler of the strategy sleeps already, in another task.
        """

        async def sleep(until_ns: int) -> None:
            call = self._calls[strategy_id]
            if call.answered.is_set():
                raise RuntimeError(f"strategy {strategy_id!r} sleeps already: one sleep at a time")
            call.value = Asleep(until_ns)
            call.wake = trio.Event()
            call.answered.set()
            await call.wake.wait()

        return sleep

    async def drive(self, run: Run) -> None:
        """Run a replay to its end. Handlers that still sleep then are cancelled; so is everything when it fails."""
        async with trio.open_nursery() as nursery:
            step = outcome.capture(next, run)
            while isinstance(step, outcome.Value):
                step = await self._answer(nursery, run, step.value)
            nursery.cancel_scope.cancel()
        if not isinstance(step.error, StopIteration):
            raise step.error  # here, so that it does not arrive in a group

    async def _answer(self, nursery: trio.Nursery, run: Run, request: Handler | Wake) -> Any:
        """The driver's next step, once the handler has returned or sleeps."""
        if isinstance(request, Handler):
            call = self._calls[request.strategy_id] = _Call()
            nursery.start_soon(self._await, call, request.awaitable, name=request.strategy_id)
        else:
            call = self._calls[request.strategy_id]
            if not call.ended:  # it may have failed in another of its tasks meanwhile: that is heard now
                call.answered = trio.Event()
                call.wake.set()
        await call.answered.wait()
        if call.error is not None:
            return outcome.capture(run.throw, call.error)
        return outcome.capture(run.send, call.value)

    async def _await(self, call: _Call, awaitable: Awaitable[Any]) -> None:
        try:
            call.value = await awaitable
        except Exception as error:  # noqa: BLE001 - handed to the driver, which supervises
            call.error = error
        call.ended = True
        call.answered.set()
