"""The venue as a process of its own: the one place of this package that reads the machine's clock and its signals."""

import signal
import sys
import time
from collections.abc import Callable

import trio

from scheduler import open_scheduler
from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.server import serve_exchange


def _announce(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run_exchange(
    config: ExchangeConfig, *, announce: Callable[[str], None] = _announce, end_with_stdin: bool = False
) -> None:
    """Serve the venue until Ctrl-C, SIGTERM, or the end of ``config.duration_s``. A second Ctrl-C ends it at once.

    ``announce`` gets one line with the address, once it answers: ``listening on http://127.0.0.1:PORT``.
    ``end_with_stdin`` ends it, too, when standard input does: a venue that an engine started does not outlive it.

    Raises:
        EnvironmentFailure: the port is in use or not allowed.
    """
    trio.run(_main, config, announce, end_with_stdin)


async def _main(config: ExchangeConfig, announce: Callable[[str], None], end_with_stdin: bool) -> None:
    # Left to itself the collector stops the market for 15 to 30 ms every few seconds.
    async with open_scheduler(freeze_gc=True), trio.open_nursery() as nursery:
        await nursery.start(_end_on_signal, nursery.cancel_scope)
        if end_with_stdin:
            nursery.start_soon(_end_with_stdin, nursery.cancel_scope)

        async def serve(task_status: trio.TaskStatus[int]) -> None:
            await serve_exchange(config, now_ns=_steady_clock(), task_status=task_status)
            nursery.cancel_scope.cancel()

        port = await nursery.start(serve)
        announce(f"listening on http://{config.host}:{port}")


def _steady_clock() -> Callable[[], int]:
    """UNIX ns that never step: the machine's clock may be set while the venue runs."""
    offset = time.time_ns() - time.perf_counter_ns()
    return lambda: time.perf_counter_ns() + offset


async def _end_on_signal(scope: trio.CancelScope, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            break
    # The receiver has given SIGINT and SIGTERM back: a second one ends the process as usual.
    scope.cancel()


async def _end_with_stdin(scope: trio.CancelScope) -> None:
    # A thread, because standard input may be a file or a terminal, which an event loop cannot wait for everywhere.
    await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)
    scope.cancel()
