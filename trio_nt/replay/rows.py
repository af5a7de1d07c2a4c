"""Where things stand in a replay's order of everything, and one block of rows as the venue and risk read it. Pure.

Everything has a key, and happens in the order of the keys:

    (time, row, number)

``row`` is the run-wide number of the row it follows at the same time, or ``BEFORE_ROWS`` when a time brought it: what
arrives, or is due, at a time comes before the rows of that time. ``number`` counts, so equal times and rows keep the
order in which they came to be. A row's own key is ``(ts_init, row, 0)``.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np

from trio_nt.exchange.book import Touch
from trio_nt.model.instruments import Instruments
from trio_nt.model.market import QUOTE, Columns
from trio_nt.strategies.runner import BEFORE_ROWS, Block

__all__ = ["BEFORE_ROWS", "END_OF_TIME", "BlockRows", "Key", "Place", "numbered"]

Key: TypeAlias = tuple[int, int, int]
END_OF_TIME: Key = (2**63, BEFORE_ROWS, 0)


class Place(NamedTuple):
    """A moment in the order of everything: a time, and the row it follows at that time (or ``BEFORE_ROWS``)."""

    at_ns: int
    row: int

    def later(self, latency_ns: int) -> "Place":
        return Place(self.at_ns + latency_ns, BEFORE_ROWS) if latency_ns else self


class BlockRows:
    """One block: plain lists, and the good quotes of each instrument. ``base`` is the run-wide number of row 0."""

    __slots__ = ("_flags", "_instrument", "_quotes", "_values", "base", "block", "is_bars", "times")

    def __init__(self, block: Block, base: int) -> None:
        self.block = block
        self.base = base
        self.times = block.times
        self.is_bars = "open" in block.columns
        self._quotes: dict[int, list[int]] | None = None
        self._values: dict[str, list[float]] = {}
        self._instrument: list[int] | None = None
        self._flags: list[int] | None = None

    def __len__(self) -> int:
        return len(self.times)

    @property
    def instrument(self) -> list[int]:
        if self._instrument is None:
            self._instrument = self.block.columns["instrument"].tolist()
        return self._instrument

    @property
    def flags(self) -> list[int]:
        if self._flags is None:
            self._flags = self.block.columns["flags"].tolist()
        return self._flags

    def values(self, name: str) -> list[float]:
        """A column of numbers as a list: reading one of it costs a tenth of reading it from the array."""
        found = self._values.get(name)
        if found is None:
            found = self._values[name] = self.block.columns[name].tolist()
        return found

    def key(self, row: int) -> Key:
        return self.times[row], self.base + row, 0

    def before(self, key: Key) -> int:
        """How many rows of this block come before a key."""
        at_ns, after_row, number = key
        if after_row >= self.base:
            return min(after_row - self.base + (number > 0), len(self))
        return bisect_left(self.times, at_ns)  # what follows a row of an earlier block comes before all rows here

    @property
    def quotes(self) -> dict[int, list[int]]:
        """Rows of the good quotes by instrument index."""
        if self._quotes is None:
            columns = self.block.columns
            rows = np.flatnonzero((columns["kind"] == QUOTE) & (columns["flags"] == 0))
            instruments = columns["instrument"][rows]
            order = np.argsort(instruments, kind="stable")
            present, starts = np.unique(instruments[order], return_index=True)
            parts = np.split(rows[order], starts[1:])
            self._quotes = {index: part.tolist() for index, part in zip(present.tolist(), parts, strict=False)}
        return self._quotes

    def last_quote(self, index: int, before: int) -> Touch | None:
        """The last good quote of an instrument before row ``before``; None without one (bars have none)."""
        rows = self.quotes.get(index, [])
        position = bisect_left(rows, before)
        return self.touch(rows[position - 1]) if position else None

    def last_touches(self) -> dict[int, Touch]:
        """The last good quote of each instrument that has one here (bars have none)."""
        if self.is_bars:
            return {}
        columns = self.block.columns
        rows = np.flatnonzero((columns["kind"] == QUOTE) & (columns["flags"] == 0))
        last = np.full(len(self.block.instruments), -1)
        last[columns["instrument"][rows]] = rows  # of rows of one instrument the last one stays
        found = last[last >= 0]
        values = (columns[name][found].tolist() for name in ("bid", "ask", "bid_size", "ask_size", "ts_init"))
        return dict(zip(columns["instrument"][found].tolist(), map(Touch, *values), strict=True))

    def touch(self, row: int) -> Touch:
        """A quote row as the exchange takes it."""
        values = self.values
        return Touch(
            values("bid")[row], values("ask")[row], values("bid_size")[row], values("ask_size")[row], self.times[row]
        )


def numbered(blocks: Iterable[Columns], instruments: Instruments) -> Iterator[tuple[BlockRows, Key]]:
    """Blocks that hold rows, each with the key of the first row that follows it (``END_OF_TIME`` after the last).

    One block is read ahead: until it is known what follows, nothing can be said to come before it.
    """
    base, held = 0, None
    for columns in blocks:
        rows = BlockRows(Block(columns, instruments), base)
        if not len(rows):
            continue
        base += len(rows)
        if held is not None:
            yield held, rows.key(0)
        held = rows
    if held is not None:
        yield held, END_OF_TIME
