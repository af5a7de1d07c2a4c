"""One line that says how far it has got, on a terminal only.

Writing to a terminal may block, so a thread of its own writes; whoever works only leaves the latest text. A text that
nobody will see costs one attribute assignment.
"""

import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

INTERVAL_S = 0.25
_CLEAR = "\r\x1b[K"


class _Line:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = ""
        self._shown = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._write, name="trio-nt progress", daemon=True)

    def update(self, text: str) -> None:
        self._text = text

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join(timeout=1)

    def _write(self) -> None:
        while not self._end.wait(INTERVAL_S):
            if self._text != self._shown:
                self._shown = self._text
                self._stream.write(_CLEAR + self._shown[: shutil.get_terminal_size().columns - 1])
                self._stream.flush()
        if self._shown:
            self._stream.write(_CLEAR)
            self._stream.flush()


@contextmanager
def progress_line(stream: TextIO | None = None) -> Iterator[Callable[[str], None]]:
    """A function that takes the latest text; shown at most four times a second on ``stream`` (default: stderr).

    Does nothing where the stream is no terminal. The line is gone when the block ends.
    """
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        yield lambda text: None
        return
    line = _Line(stream)
    line.start()
    try:
        yield line.update
    finally:
        line.stop()
