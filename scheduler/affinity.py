"""CPU pinning and its rules.

A thread or process inherits the affinity mask of the thread that starts it. So whatever is started from a pinned
thread would crowd onto the pinned cores. Three rules keep it off them: a forked child resets its mask first, a thread
that works for ``run_blocking`` resets its mask first, and everything else is started inside ``with unpinned():``, or
given to ``unpin_process`` where, as with Trio's ``open_process``, another thread does the starting.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

_lock = threading.Lock()
_pinned_threads: dict[int, set[int]] = {}  # native thread id -> the mask it had before


def _check_supported() -> None:
    if not hasattr(os, "sched_setaffinity"):
        raise NotImplementedError("pinning threads needs sched_setaffinity, which this platform lacks")


class Pin:
    """A pinned thread; ``restore()``, or leaving the ``with`` block, gives it back the mask it had."""

    def __init__(self, thread_id: int) -> None:
        self._thread_id = thread_id

    def restore(self) -> None:
        """Undo the pin; later calls do nothing."""
        with _lock:
            mask = _pinned_threads.pop(self._thread_id, None)
        if mask is not None:
            os.sched_setaffinity(self._thread_id, mask)

    def __enter__(self) -> "Pin":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()


def pin_thread(cores: Iterable[int]) -> Pin:
    """Let the calling thread run on ``cores`` only. Linux.

    Args:
        cores: core numbers, at least one, each of which the thread may use now.

    Returns:
        The pin, to be restored or not; pinning a pinned thread again replaces its cores.

    Raises:
        TypeError: ``cores`` is not an iterable of integers.
        ValueError: it is empty, or names a core the thread may not use.
        NotImplementedError: the platform has no affinity masks.
    """
    _check_supported()
    if isinstance(cores, (str, bytes)) or not isinstance(cores, Iterable):
        raise TypeError(f"cores must be an iterable of core numbers, was {cores!r}")
    wanted = list(cores)
    for core in wanted:
        if isinstance(core, bool) or not isinstance(core, int):
            raise TypeError(f"cores must hold integers, had {core!r}")
    if not wanted:
        raise ValueError("cores must name at least one core, was empty")
    thread_id = threading.get_native_id()
    before = _pinned_threads.get(thread_id) or os.sched_getaffinity(0)
    unusable = sorted(set(wanted) - before)
    if unusable:
        raise ValueError(f"cores must be among {sorted(before)}, had {unusable}")
    os.sched_setaffinity(0, wanted)
    with _lock:
        _pinned_threads.setdefault(thread_id, before)
    return Pin(thread_id)


def original_affinity() -> set[int] | None:
    """The mask that whatever is started from the calling thread should have; None when the thread is not pinned."""
    return _pinned_threads.get(threading.get_native_id())


@contextmanager
def unpinned() -> Iterator[None]:
    """Give a pinned thread its old mask back while it starts a thread or a child process, which then inherits that."""
    mask = original_affinity()
    if mask is None:
        yield
        return
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, mask)
    try:
        yield
    finally:
        os.sched_setaffinity(0, pinned)


def unpin_process(pid: int) -> None:
    """Give a child process that was just started the mask that the calling, pinned thread had before.

    What the child has started by then keeps its own. Nothing happens where the thread is not pinned, or where the child
    has ended.
    """
    mask = original_affinity()
    if mask is not None:
        with suppress(ProcessLookupError):
            os.sched_setaffinity(pid, mask)


def _reset_in_forked_child() -> None:
    masks = list(_pinned_threads.values())
    _pinned_threads.clear()
    if masks:
        os.sched_setaffinity(0, set().union(*masks))


if hasattr(os, "sched_setaffinity"):
    os.register_at_fork(after_in_child=_reset_in_forked_child)
