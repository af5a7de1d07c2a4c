"""Trio as a guest of a running asyncio loop, in its thread."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import outcome
import trio

T = TypeVar("T")


async def run_in_asyncio(async_fn: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run a Trio function in Trio's guest mode, inside the running asyncio loop; what it returns.

    Both loops share the thread: the function may call whatever the host's callbacks may, and each waits for the other.
    Await it once at a time in a thread; Trio allows no run inside another.

    Cancelling the asyncio task cancels the Trio function; this returns once that has ended. An error of the function
    is raised as it is.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[outcome.Outcome[T]] = loop.create_future()
    scope = trio.CancelScope()
    token: trio.lowlevel.TrioToken | None = None

    async def main() -> Any:
        nonlocal token
        token = trio.lowlevel.current_trio_token()
        with scope:
            return await async_fn(*args)

    trio.lowlevel.start_guest_run(
        main,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        run_sync_soon_not_threadsafe=loop.call_soon,
        done_callback=done.set_result,
        host_uses_signal_set_wakeup_fd=True,
    )
    cancelled = None
    while not done.done():
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError as error:  # noqa: ASYNC103 - raised below, once the guest has ended
            cancelled = error
            if token is None:
                scope.cancel()
            else:
                token.run_sync_soon(scope.cancel)
    result = done.result()
    if cancelled is not None and isinstance(result, outcome.Value):
        raise cancelled
    return result.unwrap()
