"""The venue's log: what it has told anybody is on the disk first.

Rules
-----
- A line is noted when it happens, and written and synced in groups by one task; nothing waits on the disk but answers.
- Whoever answers a request, or tells a stream, waits until all that was noted so far is durable. So what the venue
  forgets when it dies nobody has heard of.
- A torn last line was never told: it is cut off on opening. Any other damage is an error that names the line.
- A log is in use by one venue at a time.
"""

import fcntl
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

import trio

from trio_nt.errors import EnvironmentFailure
from trio_nt.exchange.records import Record, line_of, read_lines

FILE = "venue.jsonl"


class StateLog:
    """The log of one folder; ``records`` is what it held. Open it with ``open_log``, close it with ``close``."""

    def __init__(self, path: Path, descriptor: int, records: list[Record]) -> None:
        self.records = records
        self._path = path
        self._descriptor = descriptor
        self._lines: list[bytes] = []
        self._noted = self._durable = 0  # lines
        self._told: deque[tuple[int, Callable[[], None]]] = deque()
        self._noticed = trio.Event()
        self._synced = trio.Event()

    def note(self, record: Record) -> None:
        self._lines.append(line_of(record))
        self._noted += 1
        self._noticed.set()

    def tell(self, deliver: Callable[[], None]) -> None:
        """Call ``deliver`` when all that was noted so far is durable; in order, and at once if it is."""
        if self._durable == self._noted:
            deliver()
        else:
            self._told.append((self._noted, deliver))

    async def settled(self) -> None:
        """Wait until all that was noted so far is durable. No checkpoint if it is."""
        number = self._noted
        while self._durable < number:
            await self._synced.wait()

    async def run(self) -> None:
        """Write what is noted, for ever.

        Raises:
            EnvironmentFailure: the disk refuses.
        """
        while True:
            await self._noticed.wait()
            self._noticed = trio.Event()
            lines, self._lines = self._lines, []
            await trio.to_thread.run_sync(self._write, b"".join(lines))
            self._durable += len(lines)
            while self._told and self._told[0][0] <= self._durable:
                self._told.popleft()[1]()
            synced, self._synced = self._synced, trio.Event()
            synced.set()

    def close(self) -> None:
        """Give the log back. What was noted and never told is written as well."""
        try:
            if self._lines:
                self._write(b"".join(self._lines))
        finally:
            os.close(self._descriptor)

    def _write(self, content: bytes) -> None:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise EnvironmentFailure(f"the venue's log {self._path} cannot be written: {error.strerror}") from error


def open_log(folder: Path) -> StateLog:
    """Open the log of a folder, made if it is not there.

    Raises:
        EnvironmentFailure: it is in use, damaged, or cannot be opened.
    """
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentFailure(f"the venue's log {path} cannot be opened: {error.strerror}") from error
    try:
        return StateLog(path, descriptor, _recover(path, descriptor))
    except BaseException:
        os.close(descriptor)
        raise


def _recover(path: Path, descriptor: int) -> list[Record]:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise EnvironmentFailure(f"the venue's log {path} is in use by another venue") from None
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.ftruncate(descriptor, len(whole))
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    try:
        return read_lines(whole)
    except ValueError as error:
        raise EnvironmentFailure(f"the venue's log {path} is damaged: {error}") from error
