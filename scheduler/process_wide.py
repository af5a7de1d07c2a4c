"""Process-wide settings that several schedulers may want at once: counted, and restored by the last to leave."""

import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedSetting(Generic[T]):
    """A setting of the interpreter of which the most demanding wish holds.

    ``read`` and ``write`` get at the setting, ``choose`` picks from the wishes (``min`` or ``max``). Thread-safe. If
    somebody else changed the setting meanwhile it is left alone at the end.
    """

    def __init__(self, read: Callable[[], T], write: Callable[[T], object], choose: Callable[[list[T]], T]) -> None:
        self._read = read
        self._write = write
        self._choose = choose
        self._lock = threading.Lock()
        self._wishes: list[T] = []
        self._original: T | None = None
        self._written: T | None = None

    def acquire(self, wish: T) -> None:
        with self._lock:
            if not self._wishes:
                self._original = self._read()
            self._wishes.append(wish)
            self._apply()

    def release(self, wish: T) -> None:
        with self._lock:
            self._wishes.remove(wish)
            if self._wishes:
                self._apply()
            elif self._original is not None and self._read() == self._written:
                self._write(self._original)

    def _apply(self) -> None:
        assert self._original is not None
        self._write(self._choose([self._original, *self._wishes]))
        self._written = self._read()


def _lowest(values: list[float]) -> float:
    return min(values)


def _latest(values: list[int]) -> int:
    return values[-1]


SWITCH_INTERVAL: SharedSetting[float] = SharedSetting(sys.getswitchinterval, sys.setswitchinterval, _lowest)
"""How long a thread may keep the GIL that another waits for: the shortest wish holds."""


def read_stack_size() -> int:
    """The stack size of new threads; ``threading.stack_size()`` alone would reset it."""
    size = threading.stack_size()
    threading.stack_size(size)
    return size


STACK_SIZE: SharedSetting[int] = SharedSetting(read_stack_size, threading.stack_size, _latest)
"""Bytes of stack of threads started from now on: the latest wish holds."""
