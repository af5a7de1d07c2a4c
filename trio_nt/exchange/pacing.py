"""Sleeping to the microsecond.

An event loop over epoll wakes up on whole milliseconds, rounded up: a venue that sends every millisecond would be half
of one late on average, and that would be measured as the engine's. Linux has a timer that is a file; elsewhere Trio's
own sleep has to do.
"""

import ctypes
import os
import sys
from types import TracebackType

import trio

_CLOCK_MONOTONIC = 1
_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)  # what TFD_NONBLOCK and TFD_CLOEXEC are defined as


class _Interval(ctypes.Structure):
    """struct itimerspec: the period (0: once), then the delay."""

    _fields_ = (
        ("period_s", ctypes.c_long),
        ("period_ns", ctypes.c_long),
        ("delay_s", ctypes.c_long),
        ("delay_ns", ctypes.c_long),
    )


class Pacer:
    """``await sleep_ns(…)`` from one task at a time; a ``with`` block gives the timer back."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            descriptor = self._libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
            self._descriptor = descriptor if descriptor >= 0 else None

    def __enter__(self) -> "Pacer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    async def sleep_ns(self, delay_ns: int) -> None:
        """Wait; a checkpoint even where there is nothing to wait for. Cancelled, it leaves nothing behind."""
        if delay_ns <= 0:
            await trio.lowlevel.checkpoint()
        elif self._descriptor is None:
            await trio.sleep(delay_ns / 1e9)
        else:
            interval = _Interval(0, 0, *divmod(delay_ns, 1_000_000_000))
            self._libc.timerfd_settime(self._descriptor, 0, ctypes.byref(interval), None)
            await trio.lowlevel.wait_readable(self._descriptor)
