"""Garbage collection under control: ``freeze_gc``.

With 10,000 tasks alive a full collection holds the loop for 20 ms, at a time that nobody chose. Under ``freeze_gc``
garbage is collected once on opening and automatic collection turned off; what start-up left alive is frozen, out of the
collector's sight; a BACKGROUND task collects what is young in small portions, and everything when the loop is idle.

What is alive at one collection of the young is old at once: a generation between would be looked through a second time,
ten portions together, and hold the loop for as long. Garbage in cycles that lived through a collection waits for the
loop to be idle.
"""

import gc
import threading
from collections.abc import Callable

import trio

START_UP_S = 1.0
INTERVAL_S, IDLE_INTERVAL_S = 0.1, 1.0  # the second where nothing grows: an idle loop is woken seldom
YOUNG_OBJECTS = 2_000
YOUNG_GENERATIONS = 1  # the number of the older of the two
ROUNDS_TO_ALL = 100


class _CollectionOff:
    """Automatic collection is off while anybody wants it off. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._was_enabled = False
        self._was_frozen = 0

    def acquire(self) -> None:
        with self._lock:
            if not self._users:
                self._was_enabled = gc.isenabled()
                self._was_frozen = gc.get_freeze_count()
                gc.collect()
                gc.disable()
            self._users += 1

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
            if not self._was_frozen:
                gc.unfreeze()
            if self._was_enabled:
                gc.enable()


COLLECTION_OFF = _CollectionOff()


class Collector:
    """The body of the BACKGROUND task; ``is_idle()`` says whether nothing else is runnable."""

    def __init__(self, is_idle: Callable[[], bool]) -> None:
        self._is_idle = is_idle
        self._scope = trio.CancelScope()
        self.collections = 0

    async def run(self) -> None:
        """Freeze after start-up, then collect until ``stop``."""
        with self._scope:
            await self._collect_for_ever()

    def stop(self) -> None:
        self._scope.cancel()

    async def _collect_for_ever(self) -> None:
        await self._wait_for_start_up()
        gc.freeze()  # takes no time, unlike a collection: the loop may be busy by now
        rounds, wait_s = 0, INTERVAL_S
        while True:
            await trio.sleep(wait_s)
            wait_s = min(2 * wait_s, IDLE_INTERVAL_S)
            if gc.get_count()[0] >= YOUNG_OBJECTS:
                wait_s = INTERVAL_S
                rounds += 1
                gc.collect(YOUNG_GENERATIONS)
                self.collections += 1
            if rounds >= ROUNDS_TO_ALL and self._is_idle():
                rounds = 0
                gc.collect()

    async def _wait_for_start_up(self) -> None:
        """Start-up is over when the loop is idle for the first time, or after a second."""
        with trio.move_on_after(START_UP_S):
            while True:
                await trio.sleep(INTERVAL_S / 10)
                if self._is_idle():
                    return
