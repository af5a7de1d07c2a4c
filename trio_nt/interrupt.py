"""Ctrl-C in the terminal: the first asks for an end, the second takes it.

A signal handler may run between any two bytecodes, so it only sets a flag and calls listeners that are safe to call
from there (``TrioToken.run_sync_soon`` is).
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED = 130


class StopRequest:
    """Whether the user asked for the end. ``request()`` may be called from any thread and from a signal handler."""

    def __init__(self) -> None:
        self._requested = False
        self._listeners: list[Callable[[], object]] = []

    @property
    def requested(self) -> bool:
        return self._requested

    def request(self) -> None:
        """Ask for the end; asking again changes nothing."""
        if self._requested:
            return
        self._requested = True
        for listener in self._listeners.copy():
            listener()

    def add_listener(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` when the end is asked for, at once if it was. It must be safe in a signal handler."""
        self._listeners.append(listener)
        if self._requested:
            listener()


@contextmanager
def stop_on_interrupt() -> Iterator[StopRequest]:
    """SIGINT and SIGTERM ask for the end while the block runs; a second SIGINT ends the process at once with 130.

    Only in the main thread. The handlers that were there before are put back.
    """
    stop = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested and number == signal.SIGINT:
            sys.stderr.flush()
            os._exit(EXIT_INTERRUPTED)
        stop.request()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
