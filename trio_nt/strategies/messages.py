"""What an actor is told through its mailbox, each with an answer for who wants to wait for it."""

from collections.abc import Callable
from typing import TypeAlias

import trio

from trio_nt.strategies.base import Strategy


class _Message:
    """``done``, ``failed`` or ``ended`` answers it; only the first of them counts."""

    def __init__(self) -> None:
        self._answered = trio.Event()
        self._error: Exception | None = None

    def done(self) -> None:
        """It was done."""
        self._answered.set()

    def failed(self, error: Exception) -> None:
        """It was not done, and had no effect."""
        if not self._answered.is_set():
            self._error = error
            self._answered.set()

    def ended(self) -> None:
        """The strategy ended before it was done."""
        self.failed(trio.BrokenResourceError("the strategy has ended"))

    async def answer(self) -> None:
        """Wait until it was done. A checkpoint; cancelled, it is done all the same.

        Raises:
            trio.BrokenResourceError: the strategy ended before that.
            Exception: why it was not done.
        """
        await self._answered.wait()
        if self._error is not None:
            raise self._error


class UpdateConfig(_Message):
    """Let a strategy of another configuration take this one's place; ``on_done`` is called when it has."""

    def __init__(self, strategy: Strategy, on_done: Callable[[], None]) -> None:
        super().__init__()
        self.strategy = strategy
        self._on_done = on_done

    def done(self) -> None:
        self._on_done()
        super().done()


class SaveState(_Message):
    """Have the strategy's state saved now."""


class TimersChanged(_Message):
    """The next timer is due at another time than before: the mailbox's own wake-up call."""


Message: TypeAlias = UpdateConfig | SaveState | TimersChanged
