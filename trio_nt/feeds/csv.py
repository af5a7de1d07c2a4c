"""CSV files of quotes, trades or bars, plain or gzip.

Rules:
- The first line names the columns, in any order: ``time``, ``instrument`` and those of one kind of event, no others.
- Rows are sorted by time; equal times are allowed. The first one that is not is an error.
- ``time`` is the exchange's (``ts_event``); a file states no receipt, so ``ts_init`` is ``time`` plus the feed latency.
- A bar is visible at its close. Whether its stamp is the open or the close must be said; from opens, the close is one
  interval later, and the interval is the most frequent spacing within an instrument (of equals, the longer one: late
  is harmless, early would look ahead).
- An empty value is NaN, and flagged; a value that is no number is an error that names line and column.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from trio_nt.errors import InputError
from trio_nt.feeds.files import line_chunks
from trio_nt.feeds.memory import plain_instrument
from trio_nt.feeds.statistics import FileStatistics
from trio_nt.feeds.times import UNITS, TimeError, TimeReader
from trio_nt.model.instruments import Instrument
from trio_nt.model.market import (
    BAR,
    BAR_FIELDS,
    MARKET_FIELDS,
    QUOTE,
    TRADE,
    Column,
    Columns,
    empty_columns,
    flag_bars,
    flag_quotes,
    flag_trades,
)

LAYOUTS = {
    QUOTE: ("bid", "ask", "bid_size", "ask_size"),
    TRADE: ("price", "size"),
    BAR: ("open", "high", "low", "close", "volume"),
}
BAR_TIMES = ("open", "close")
_KIND_NAMES = {QUOTE: "quote", TRADE: "trade", BAR: "bar"}


class CsvFile:
    """A CSV file as a source of quotes, trades or bars."""

    def __init__(
        self, path: Path, *, time_unit: str | None = None, bar_time: str | None = None, feed_latency_ns: int = 0
    ) -> None:
        if time_unit is not None and time_unit not in UNITS:
            raise InputError(f"the time unit must be one of {', '.join(UNITS)}, was {time_unit!r}")
        if bar_time is not None and bar_time not in BAR_TIMES:
            raise InputError(f"the bar time must be open or close, was {bar_time!r}")
        if feed_latency_ns < 0:
            raise InputError(f"the feed latency must not be negative, was {feed_latency_ns} ns")
        self.path: Path | str = path
        self.statistics = FileStatistics(str(path), "CSV")
        self.symbols: dict[str, int] = {}
        self.first_lines: list[int] = []
        self.assumptions: list[str] = []
        self.kinds = frozenset(LAYOUTS)
        self._file = path
        self._time_unit, self._bar_time, self._feed_latency_ns = time_unit, bar_time, feed_latency_ns
        self._times = TimeReader(time_unit)
        self._last_time = 0

    def again(self) -> "CsvFile":
        return CsvFile(
            self._file, time_unit=self._time_unit, bar_time=self._bar_time, feed_latency_ns=self._feed_latency_ns
        )

    def instrument_id(self, symbol: str) -> str:
        return symbol

    def infer(self, symbol: str, parts: Sequence[Columns]) -> tuple[Instrument, str]:
        return plain_instrument(symbol, parts)

    def pieces(self) -> Iterator[Columns]:
        interval: int | None = None
        waiting: list[dict[str, Column]] = []
        for piece in self._rows():
            waiting.append(piece)
            if interval is None:
                interval = self._interval(waiting)
                if interval is None:
                    continue
                self._say_times(interval)
            for each in waiting:
                each["ts_event"] = each["ts_event"] + interval
                each["ts_init"] = each["ts_event"] + self._feed_latency_ns
                self.statistics.count_rows(each)
                yield each
            waiting.clear()
        if waiting:
            raise self._error(
                1, "no instrument has two bars, so their interval is unknown; stamp closes (--bar-time close)"
            )

    def _interval(self, pieces: Sequence[Columns]) -> int | None:
        """From a row's stamp to the time when it is known, ns; None while that cannot be told."""
        if "open" not in pieces[0] or self._bar_time == "close":
            return 0
        spacings: Counter[int] = Counter()
        instruments = np.concatenate([piece["instrument"] for piece in pieces])
        times = np.concatenate([piece["ts_event"] for piece in pieces])
        for instrument in np.unique(instruments):
            spacings.update(np.diff(times[instruments == instrument]).tolist())
        del spacings[0]
        return max(spacings, key=lambda spacing: (spacings[spacing], spacing)) if spacings else None

    def _say_times(self, interval: int) -> None:
        if self._times.assumption:
            self.assumptions.append(f"times of {self.path} {self._times.assumption}")
        if interval:
            said = (
                f"bars of {self.path} are stamped at their open and last {interval / 1e9:,g} s, told from their spacing"
            )
            self.assumptions.append(said)
        latency = f"{self._feed_latency_ns / 1e6:g} ms"
        self.assumptions.append(f"{self.path} states no receipt times: received {latency} after the exchange's time")

    def _rows(self) -> Iterator[dict[str, Column]]:
        """Columns as the file has them: ``ts_event`` is the stamp, ``ts_init`` not set."""
        header: list[str] = []
        kind = QUOTE
        for number, lines in line_chunks(self._file):
            self.statistics.lines += len(lines)
            texts = self._decoded(number, lines)
            if number == 1:
                header, kind = self._header(texts.pop(0))
                self.kinds = frozenset({kind})
                number += 1
            numbers = [at for at, text in enumerate(texts, number) if text.strip()]
            if numbers:
                rows = self._split([text for text in texts if text.strip()], numbers)
                yield self._piece(kind, self._transposed(header, rows, numbers), numbers)

    def _decoded(self, number: int, lines: list[bytes]) -> list[str]:
        try:
            text = b"\n".join(lines).decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise self._error(number + error.object.count(b"\n", 0, error.start), "no UTF-8 text") from None
        return text.split("\n")

    def _split(self, texts: list[str], numbers: list[int]) -> list[list[str]]:
        rows: list[list[str]] = []
        try:
            rows.extend(csv.reader(texts, strict=True))
        except csv.Error as error:
            raise self._error(numbers[min(len(rows), len(numbers) - 1)], f"no CSV row ({error})") from None
        return rows

    def _header(self, line: str) -> tuple[list[str], int]:
        names = [name.strip().lower() for name in next(csv.reader([line]), [])]
        layouts = " or ".join(f"{','.join(columns)}" for columns in LAYOUTS.values())
        allowed = {"time", "instrument"}.union(*LAYOUTS.values())
        for name in names:
            if name not in allowed:
                raise self._error(1, f"unknown column {name!r}; a CSV has time,instrument and {layouts}")
            if names.count(name) > 1:
                raise self._error(1, f"column {name!r} is named twice")
        # The kind whose columns are there, or most nearly.
        kind = max(LAYOUTS, key=lambda kind: len(set(LAYOUTS[kind]) & set(names)))
        wanted = ("time", "instrument", *LAYOUTS[kind])
        for name in wanted:
            if name not in names:
                raise self._error(1, f"missing column {name!r}; a CSV has time,instrument and {layouts}")
        for name in names:
            if name not in wanted:
                raise self._error(1, f"column {name!r} does not go with {','.join(LAYOUTS[kind])}: one kind a file")
        if kind == BAR and self._bar_time is None:
            raise self._error(1, "it does not say whether bars are stamped at open or close; state it (--bar-time)")
        return names, kind

    def _transposed(self, header: list[str], rows: list[list[str]], numbers: list[int]) -> dict[str, tuple[str, ...]]:
        for number, row in zip(numbers, rows, strict=True):
            if len(row) != len(header):
                raise self._error(number, f"{len(row)} values, the header names {len(header)}")
        return dict(zip(header, zip(*rows, strict=True), strict=True))

    def _piece(self, kind: int, texts: dict[str, tuple[str, ...]], numbers: list[int]) -> dict[str, Column]:
        piece = empty_columns(len(numbers), BAR_FIELDS if kind == BAR else MARKET_FIELDS)
        del piece["sequence"]
        piece["kind"][:] = kind
        piece["ts_event"] = self._sorted_times(texts["time"], numbers)
        piece["instrument"][:] = self._symbol_column(texts["instrument"], numbers)
        for name in LAYOUTS[kind]:
            piece[name] = self._numbers(name, texts[name], numbers)
        if kind == BAR:
            piece["flags"] = flag_bars(piece)
        elif kind == QUOTE:
            piece["flags"] = flag_quotes(piece["bid"], piece["ask"], piece["bid_size"], piece["ask_size"])
        else:
            piece["flags"] = flag_trades(piece["price"], piece["size"])
        self.statistics.count(_KIND_NAMES[kind], len(numbers))
        return piece

    def _sorted_times(self, texts: Sequence[str], numbers: list[int]) -> Column:
        try:
            times = self._times.read(texts)
        except TimeError as error:
            raise self._error(numbers[error.index], str(error)) from None
        backwards = np.flatnonzero(np.diff(times, prepend=self._last_time) < 0)
        if len(backwards):
            row = int(backwards[0])
            raise self._error(
                numbers[row], f"the time {texts[row]!r} is before the row above; rows must be sorted by time"
            )
        self._last_time = int(times[-1])
        return times

    def _symbol_column(self, texts: Sequence[str], numbers: list[int]) -> list[int]:
        index_by_text: dict[str, int] = {}
        for text in dict.fromkeys(texts):
            symbol = text.strip()
            if not symbol:
                raise self._error(numbers[texts.index(text)], "no instrument is named")
            if symbol not in self.symbols:
                self.symbols[symbol] = len(self.symbols)
                self.first_lines.append(numbers[texts.index(text)])
            index_by_text[text] = self.symbols[symbol]
        return [index_by_text[text] for text in texts]

    def _numbers(self, name: str, texts: Sequence[str], numbers: list[int]) -> Column:
        try:
            return np.array(list(map(float, texts)))
        except ValueError:
            return np.array([self._number(name, text, line) for text, line in zip(texts, numbers, strict=True)])

    def _number(self, name: str, text: str, line: int) -> float:
        if not text.strip():
            return float("nan")
        try:
            return float(text)
        except ValueError:
            raise self._error(line, f"{name} must be a number, was {text!r}") from None

    def _error(self, line: int, why: str) -> InputError:
        return InputError(f"{self.path}: line {line:,}: {why}")
