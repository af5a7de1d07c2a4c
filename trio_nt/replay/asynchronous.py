"""Drives a replay whose strategies have ``async`` handlers, behind a barrier.

One handler runs at a time, in the order that the driver asks for; it has answered when it returns or goes to sleep in
market time. What else it awaits (a lock, a thread, a socket) the replay waits for, however long that takes: wall-clock
time never decides anything.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from trio_nt.replay.driver import Asleep, Handler, Run


class _Call:
    """A handler under way."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.wake = trio.Event()
        self.value: Any = None
        self.error: Exception | None = None


class AsyncHandlers:
    """Awaits what the driver yields. One object serves one replay."""

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}

    def sleep_of(self, strategy_id: str) -> Callable[[int], Awaitable[None]]:
        """``context.sleep`` of one strategy: waits until the driver says that its market time has come."""

        async def sleep(until_ns: int) -> None:
            call = self._calls[strategy_id]
            call.value = Asleep(until_ns)
            call.wake = trio.Event()
            call.answered.set()
            await call.wake.wait()

        return sleep

    async def drive(self, run: Run) -> None:
        """Run a replay to its end. Handlers that still sleep then are cancelled."""
        async with trio.open_nursery() as nursery:
            try:
                request = next(run)
                while True:
                    if isinstance(request, Handler):
                        call = self._calls[request.strategy_id] = _Call()
                        nursery.start_soon(self._await, call, request.awaitable, name=request.strategy_id)
                    else:
                        call = self._calls[request.strategy_id]
                        call.answered = trio.Event()
                        call.wake.set()
                    await call.answered.wait()
                    request = run.send(call.value) if call.error is None else run.throw(call.error)
            except StopIteration:
                nursery.cancel_scope.cancel()

    async def _await(self, call: _Call, awaitable: Awaitable[Any]) -> None:
        try:
            call.value = await awaitable
        except Exception as error:  # noqa: BLE001 - handed to the driver, which supervises
            call.error = error
        call.answered.set()
