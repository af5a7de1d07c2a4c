"""The last rows of every instrument, contiguous, as frames without a copy. Pure.

Each instrument and field has a row of ``2 * depth`` numbers, and every value is written twice, ``depth`` apart: so the
last n rows (n at most ``depth``) always lie side by side, wherever the ring stands.

What happens when the ring wraps under a frame: a frame of n rows stays intact while at most ``depth - n`` further rows
of its instrument arrive; then its oldest rows are overwritten by new ones. From there on the frame's own methods raise
``BufferError``. Arrays and DataFrames that were taken from it before keep pointing at the ring and show the new rows:
memory-safe, but no longer the old data. ``copy()`` what is kept longer.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

Column = NDArray[Any]

FRAME_FIELDS: dict[str, DTypeLike] = {
    "ts_event": "i8",
    "ts_init": "i8",
    "bid": "f8",
    "ask": "f8",
    "bid_size": "f8",
    "ask_size": "f8",
    "price": "f8",
    "size": "f8",
}


class Frame(Mapping[str, Column]):
    """Rows of one instrument, oldest first: a mapping of read-only columns, each of shape (len(frame.rows),).

    Made by ``MarketHistory.frame``; zero-copy until ``copy()``. ``rows`` is their number.
    """

    __slots__ = ("_columns", "_history", "_instrument", "_seen", "rows")

    def __init__(
        self, columns: dict[str, Column], rows: int, history: "MarketHistory | None", instrument: int, seen: int
    ) -> None:
        self._columns = columns
        self._history = history
        self._instrument = instrument
        self._seen = seen
        self.rows = rows

    @property
    def intact(self) -> bool:
        """False once the ring has overwritten rows of this frame."""
        if self._history is None:
            return True
        further = self._history.seen(self._instrument) - self._seen
        return further <= self._history.depth - self.rows

    def _checked(self) -> dict[str, Column]:
        if not self.intact:
            raise BufferError("the frame's rows were overwritten by newer ones: take a new frame, or copy() in time")
        return self._columns

    def __getitem__(self, name: str) -> Column:
        return self._checked()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def copy(self) -> "Frame":
        """The same rows in arrays of their own: never overwritten."""
        columns = {name: column.copy() for name, column in self._checked().items()}
        return Frame(columns, self.rows, None, self._instrument, self._seen)

    def to_arrow(self) -> "pyarrow.Table":
        """A pyarrow Table on the same memory. Needs the extra ``[frames]``.

        Raises:
            BufferError: rows were overwritten.
            ModuleNotFoundError: pyarrow is not installed.
        """
        import pyarrow

        columns = self._checked()
        return pyarrow.Table.from_arrays([pyarrow.array(column) for column in columns.values()], names=list(columns))

    def to_polars(self) -> "polars.DataFrame":
        """A polars DataFrame on the same memory. Needs the extra ``[frames]``; raises as ``to_arrow``.

        NaN stays NaN: it is not turned into null.
        """
        import polars

        frame = polars.from_arrow(self.to_arrow(), rechunk=False)
        assert isinstance(frame, polars.DataFrame)
        return frame

    def to_pandas(self) -> "pandas.DataFrame":
        """A pandas DataFrame on the same memory. Needs the extra ``[frames]``; raises as ``to_arrow``."""
        import pandas

        return pandas.DataFrame(dict(self._checked()), copy=False)


class MarketHistory:
    """The last ``depth`` rows of every instrument.

    Args:
        depth: rows kept per instrument, at least 1.
        fields: names and dtypes of the columns; names of features may be among them.
        instrument_count: instruments to make room for; more are taken in as they appear.

    Memory: ``2 * depth`` values per instrument and field, touched as they are written.
    """

    def __init__(
        self, depth: int = 1000, *, fields: Mapping[str, DTypeLike] | None = None, instrument_count: int = 0
    ) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, was {depth}")
        self.depth = depth
        self._fields = {name: np.dtype(code) for name, code in (FRAME_FIELDS if fields is None else fields).items()}
        self._rings: dict[str, Column] = {}
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)
        self._make_room(max(1, instrument_count))

    def _make_room(self, instruments: int) -> None:
        before = len(self._counts)
        for name, dtype in self._fields.items():
            ring = np.empty((instruments, 2 * self.depth), dtype)
            if before:
                ring[:before] = self._rings[name]
            self._rings[name] = ring
        self._counts = np.concatenate([self._counts, np.zeros(instruments - before, np.int64)])

    def __len__(self) -> int:
        """Instruments that have room."""
        return len(self._counts)

    def seen(self, instrument: int) -> int:
        """Rows of this instrument so far."""
        return int(self._counts[instrument])

    def append(self, columns: Mapping[str, Column]) -> None:
        """Take in a batch of rows: ``instrument`` and this history's fields, each of shape (n,), in order.

        Raises:
            KeyError: a field is missing; nothing was written.
        """
        who = np.asarray(columns["instrument"])
        taken = {name: columns[name] for name in self._rings}
        if len(who) == 0:
            return
        greatest = int(who.max())
        if greatest >= len(self._counts):
            self._make_room(max(2 * len(self._counts), greatest + 1))
        if len(who) == 1:
            place = int(self._counts[greatest]) % self.depth
            for name, column in taken.items():
                ring = self._rings[name][greatest]
                ring[place] = ring[place + self.depth] = column[0]
            self._counts[greatest] += 1
            return
        rank, totals = ranks(who)
        last = rank >= totals - self.depth  # of more rows than fit, only the last
        rows = slice(None) if bool(last.all()) else np.flatnonzero(last)
        instruments = who[rows]
        places = (self._counts[instruments] + rank[rows]) % self.depth
        for name, column in taken.items():
            values = column[rows]
            self._rings[name][instruments, places] = values
            self._rings[name][instruments, places + self.depth] = values
        np.add.at(self._counts, who, 1)

    def frame(self, instrument: int, rows: int | None = None) -> Frame:
        """The last ``rows`` rows of an instrument, without a copy; fewer where fewer have come.

        Raises:
            ValueError: ``rows`` below 1 or above ``depth``.
            IndexError: an instrument that was never seen.
        """
        wanted = self.depth if rows is None else rows
        if not 1 <= wanted <= self.depth:
            raise ValueError(f"rows must be between 1 and {self.depth}, the history's depth, was {wanted}")
        if not 0 <= instrument < len(self._counts):
            raise IndexError(f"instrument must be below {len(self._counts)}, was {instrument}")
        seen = int(self._counts[instrument])
        count = min(wanted, seen)
        stop = (seen - 1) % self.depth + self.depth + 1
        columns = {}
        for name, ring in self._rings.items():
            view = ring[instrument, stop - count : stop]
            view.flags.writeable = False
            columns[name] = view
        return Frame(columns, count, self, instrument, seen)

    @property
    def nbytes(self) -> int:
        """Bytes of the rings, written or not."""
        return sum(ring.nbytes for ring in self._rings.values())


def ranks(keys: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For every element: how many equal ones came before it, and how many equal ones there are; shape (n,) each."""
    count = len(keys)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.append(starts, count))
    rank = np.empty(count, np.int64)
    total = np.empty(count, np.int64)
    rank[order] = np.arange(count) - np.repeat(starts, lengths)
    total[order] = np.repeat(lengths, lengths)
    return rank, total
