"""Recorded data for replay: files or events in memory, as blocks of columns in one order.

Reading is synchronous and needs no event loop. The first rows of every source are read when data is opened, so that
instruments are known before the first block; an ordinary file is read whole by then, and whatever is wrong with it is
said before anything happened.
"""

import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np

from trio_nt.errors import InputError
from trio_nt.feeds.base import Source
from trio_nt.feeds.binance import Capture
from trio_nt.feeds.csv import CsvFile
from trio_nt.feeds.files import line_chunks
from trio_nt.feeds.instruments import INFERENCE_ROWS, Fees, Inference, as_fees, load_described, say_fees
from trio_nt.feeds.memory import ColumnSource, EventSource
from trio_nt.feeds.merge import merge
from trio_nt.feeds.statistics import DataStatistics
from trio_nt.model.instruments import Instrument, Instruments
from trio_nt.model.market import BAR, QUOTE, TRADE, Column, Columns, MarketEvent

BLOCK_ROWS = 8_192
# Rows of each source that are read, and held, when data is opened.
ROWS_AHEAD = 500_000
_STAMPED = re.compile(rb"\d+ ")


class MarketData:
    """Recorded market data of one replay.

    Attributes:
        instruments: described or inferred; complete before the first block.
        assumptions: what was inferred or assumed, one sentence each.

    Args:
        default_fees: ids of described instruments whose fees nobody stated; the assumptions name them.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        instruments: Instruments | None = None,
        default_fees: Sequence[str] = (),
        fees: Fees | None = None,
        block_rows: int = BLOCK_ROWS,
    ) -> None:
        if not sources:
            raise ValueError("data must come from at least one source, there was none")
        if block_rows < 1:
            raise ValueError(f"block_rows must be at least 1, was {block_rows}")
        self._block_rows = block_rows
        self._readings = [_Reading(source) for source in sources]
        self._unread = True
        self._described = instruments is not None
        self.assumptions: list[str] = []
        for reading in self._readings:
            self.assumptions += reading.source.assumptions
        if instruments is None:
            instruments, said = self._inferred()
            self.assumptions += said
            default_fees = instruments.ids
        if fees is None:
            self.assumptions += [say_fees(instruments[name]) for name in default_fees]
            self.assumptions += [f"fees of {each.id}: none, as described" for each in instruments if _is_free(each)]
        else:
            maker, taker = as_fees(fees)
            instruments = Instruments(attrs.evolve(each, maker_fee=maker, taker_fee=taker) for each in instruments)
            self.assumptions.append(f"fees of all instruments: maker {maker:f}, taker {taker:f} (as given)")
        self.instruments = instruments
        for reading in self._readings:
            self._lookup(reading.source, np.zeros(0, np.int32))

    def _inferred(self) -> tuple[Instruments, list[str]]:
        inference = Inference()
        for reading in self._readings:
            for symbol, parts in reading.first_rows():
                instrument, taken_for = reading.source.infer(symbol, parts)
                inference.add(instrument, taken_for, rows=sum(len(part["kind"]) for part in parts))
        return Instruments(inference), inference.assumptions

    @property
    def statistics(self) -> DataStatistics:
        """What was found in each source so far; complete when the last block was given."""
        return DataStatistics([reading.source.statistics for reading in self._readings])

    @property
    def kinds(self) -> frozenset[int]:
        """Kinds of rows (QUOTE, TRADE, BAR) that the data may hold: those that were seen, where a source was read
        whole, else those that its form allows."""
        return frozenset().union(*(reading.kinds for reading in self._readings))

    @property
    def rows_of_kind(self) -> dict[int, int] | None:
        """How many rows of each kind there are; None where a source is longer than what is read ahead."""
        if not all(reading.is_whole for reading in self._readings):
            return None
        counts = dict.fromkeys((QUOTE, TRADE, BAR), 0)
        for reading in self._readings:
            for kind, rows in reading.rows_of_kind.items():
                counts[kind] += rows
        return counts

    def blocks(self) -> Iterator[dict[str, Column]]:
        """The rows of all sources in the order of (``ts_init``, source, line), at most ``block_rows`` at a time.

        A block has the columns of ``MARKET_FIELDS`` or of ``BAR_FIELDS``; ``sequence`` counts rows from 0 over all
        blocks. Each call reads the data from its beginning, and ``statistics`` are those of the latest.

        Raises:
            InputError: a file is damaged, unsorted or holds an unknown instrument; rows before it were given.
        """
        if not self._unread:
            self._readings = [_Reading(reading.source.again()) for reading in self._readings]
        self._unread = False
        sequence = 0
        for piece in merge([self._pieces(reading) for reading in self._readings]):
            rows = len(piece["kind"])
            for start in range(0, rows, self._block_rows):
                stop = min(start + self._block_rows, rows)
                block = {"sequence": np.arange(sequence, sequence + stop - start)}
                block |= {name: column[start:stop] for name, column in piece.items()}
                yield block
                sequence += stop - start

    def _pieces(self, reading: "_Reading") -> Iterator[Columns]:
        lookup = np.zeros(0, np.int32)
        for piece in reading.pieces():
            lookup = self._lookup(reading.source, lookup)
            yield {**piece, "instrument": lookup[piece["instrument"]]}

    def _lookup(self, source: Source, lookup: Column) -> Column:
        """``lookup`` (the source's index of a symbol → index in ``instruments``) with the symbols new since."""
        if len(lookup) == len(source.symbols):
            return lookup
        found = []
        for symbol in source.symbols:
            key = source.instrument_id(symbol)
            try:
                found.append(self.instruments.index(key))
            except KeyError as error:
                line = source.first_lines[source.symbols[symbol]]
                why = error.args[0]
                if not self._described:
                    why = f"{key!r} first appears here, after the rows that are read ahead; describe the instruments"
                raise InputError(f"{source.path}: line {line:,}: {why}") from error
        return np.array(found, np.int32)


def _is_free(instrument: Instrument) -> bool:
    return instrument.maker_fee == instrument.taker_fee == 0


class _Reading:
    """A source and what was read of it ahead."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._ahead: deque[Columns] = deque()
        self._rest = source.pieces()
        self.is_whole = False
        self.rows_of_kind: Counter[int] = Counter()
        rows = 0
        for piece in self._rest:
            self._ahead.append(piece)
            rows += len(piece["kind"])
            self.rows_of_kind += Counter(dict(enumerate(np.bincount(piece["kind"]).tolist())))
            if rows >= ROWS_AHEAD:
                break
        else:
            self.is_whole = True
        if not rows:
            raise InputError(f"{source.path}: holds no quote, trade or bar")

    @property
    def kinds(self) -> frozenset[int]:
        return frozenset(self.rows_of_kind) if self.is_whole else self.source.kinds

    def pieces(self) -> Iterator[Columns]:
        while self._ahead:
            yield self._ahead.popleft()
        yield from self._rest

    def first_rows(self) -> Iterator[tuple[str, list[Columns]]]:
        """Each symbol that was seen with up to INFERENCE_ROWS of its first rows."""
        for symbol, index in self.source.symbols.items():
            parts: list[Columns] = []
            missing = INFERENCE_ROWS
            for piece in self._ahead:
                rows = np.flatnonzero(piece["instrument"] == index)[:missing]
                if len(rows):
                    parts.append({name: column[rows] for name, column in piece.items()})
                    missing -= len(rows)
                if not missing:
                    break
            yield symbol, parts


def open_market_data(
    paths: Sequence[Path | str],
    *,
    instruments: Instruments | Path | str | None = None,
    fees: Fees | None = None,
    time_unit: str | None = None,
    bar_time: str | None = None,
    feed_latency_ns: int = 0,
    block_rows: int = BLOCK_ROWS,
) -> MarketData:
    """Open recorded files for replay: Binance captures and CSV files, plain or gzip, told apart by their first line.

    Args:
        paths: at least one file; rows with the same ``ts_init`` come in this order of files.
        instruments: described, or the TOML file that describes them; without it they are inferred from the data.
        fees: a fraction of the notional, or (maker, taker), for all instruments instead of their own.
        time_unit: of numeric CSV times: ``s``, ``ms``, ``us`` or ``ns``; without it the times' size must tell.
        bar_time: what CSV bars are stamped with: ``open`` or ``close``.
        feed_latency_ns: from a CSV's exchange time to its receipt.
        block_rows: the most rows of one block.

    Raises:
        InputError: a file is missing, damaged, empty, unsorted, of no known form, or has an instrument that is not
            described; or one of the settings is wrong. The message names file and line.
    """
    if not paths:
        raise InputError("no file of market data was named")
    default_fees: list[str] = []
    if isinstance(instruments, (str, Path)):
        instruments, default_fees = load_described(instruments)
    sources: list[Source] = []
    for path in map(Path, paths):
        if any(_is_same(path, source.path) for source in sources):
            raise InputError(f"{path}: named twice")
        if _is_csv(path):
            sources.append(CsvFile(path, time_unit=time_unit, bar_time=bar_time, feed_latency_ns=feed_latency_ns))
        else:
            sources.append(Capture(path))
    return MarketData(sources, instruments=instruments, default_fees=default_fees, fees=fees, block_rows=block_rows)


def _is_same(path: Path, other: Path | str) -> bool:
    return os.path.exists(path) and os.path.samefile(path, other)


def _is_csv(path: Path) -> bool:
    """Tell a CSV file from a capture by its first line."""
    if os.path.exists(path) and not os.path.isfile(path):  # pathlib's own raise where a folder cannot be searched
        raise InputError(f"{path}: no regular file")
    _, lines = next(line_chunks(path), (1, []))
    if not lines:
        raise InputError(f"{path}: is empty")
    first = lines[0]
    if b"{" in first or _STAMPED.match(first):
        return False
    if b"," in first:
        return True
    raise InputError(f"{path}: line 1: neither a CSV's column names nor a capture's '<receipt, UNIX ns> <message>'")


def from_events(
    events: Iterable[MarketEvent],
    *,
    instruments: Instruments | None = None,
    fees: Fees | None = None,
    block_rows: int = BLOCK_ROWS,
) -> MarketData:
    """Quotes, trades and bars in memory as data for replay, in order of ``ts_init``.

    Raises:
        ValueError: an event's ``ts_init`` is before the previous one's.
        InputError: there is no event, or one of an instrument that ``instruments`` does not know.
    """
    return MarketData([EventSource(list(events))], instruments=instruments, fees=fees, block_rows=block_rows)


def from_columns(
    columns: Columns | Sequence[Columns],
    instruments: Instruments,
    *,
    fees: Fees | None = None,
    block_rows: int = BLOCK_ROWS,
) -> MarketData:
    """Columns in memory as data for replay: one block or several in order, of MARKET_FIELDS or BAR_FIELDS.

    ``instrument`` is an index into ``instruments``. A column that is not given is filled: numbers with NaN, integers
    with 0; ``flags`` are worked out.

    Raises:
        ValueError: an unknown column, columns of different lengths, or a ``ts_init`` before the previous one.
    """
    blocks = [columns] if isinstance(columns, Mapping) else list(columns)
    source = ColumnSource(blocks, instruments.ids)
    return MarketData([source], instruments=instruments, fees=fees, block_rows=block_rows)
