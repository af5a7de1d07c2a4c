"""Market events as columns.

Quotes and trades of all instruments travel in one ring of columns; bars in blocks of their own. A field that a row's
kind does not have is NaN (numbers) or 0 (aggressor). A row with ``flags`` other than 0 carries bad data: it is
counted, shown in no event handler, left out of ``batch.quotes`` and ``batch.trades``, and never traded on.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from trio_nt.model.instruments import Instruments

Column: TypeAlias = NDArray[Any]
Columns: TypeAlias = Mapping[str, Column]

QUOTE, TRADE, BAR = 1, 2, 3

# Bits of the column `flags`.
NOT_FINITE, NEGATIVE, CROSSED = 1, 2, 4
FLAG_NAMES = {NOT_FINITE: "not a number", NEGATIVE: "negative", CROSSED: "crossed"}

MARKET_FIELDS: dict[str, np.dtype[Any]] = {
    name: np.dtype(code)
    for name, code in {
        "sequence": "i8",  # position in the whole run's order of events, from 0
        "kind": "u1",
        "flags": "u1",
        "instrument": "i4",  # index into Instruments
        "ts_event": "i8",  # what the exchange says, UNIX ns; 0 if it says nothing
        "ts_init": "i8",  # receipt by the local clock, UNIX ns; never decreasing within a source
        "bid": "f8",
        "ask": "f8",
        "bid_size": "f8",
        "ask_size": "f8",
        "price": "f8",
        "size": "f8",
        "aggressor": "i1",  # +1 the buyer took, -1 the seller took, 0 unknown
    }.items()
}
BAR_FIELDS: dict[str, np.dtype[Any]] = {
    name: np.dtype(code)
    for name, code in {
        "sequence": "i8",
        "kind": "u1",
        "flags": "u1",
        "instrument": "i4",
        "ts_event": "i8",
        "ts_init": "i8",
        "open": "f8",
        "high": "f8",
        "low": "f8",
        "close": "f8",
        "volume": "f8",
    }.items()
}


class Quote(Struct, frozen=True, gc=False):
    """Best bid and ask at one moment. Sizes in units of the instrument; times UNIX ns."""

    instrument: str
    ts_event: int
    ts_init: int
    bid: float
    ask: float
    bid_size: float
    ask_size: float

    @property
    def mid(self) -> float:
        return (self.bid + self.ask) / 2

    @property
    def spread(self) -> float:
        return self.ask - self.bid


class Trade(Struct, frozen=True, gc=False):
    """One print. ``aggressor`` is +1 when the buyer took, -1 when the seller took, 0 when unknown."""

    instrument: str
    ts_event: int
    ts_init: int
    price: float
    size: float
    aggressor: int


class Bar(Struct, frozen=True, gc=False):
    """Prices of an interval, visible at its close (``ts_init``)."""

    instrument: str
    ts_event: int
    ts_init: int
    open: float
    high: float
    low: float
    close: float
    volume: float


MarketEvent: TypeAlias = Quote | Trade | Bar


# Sums of wild values overflow or cancel out: that is what is being looked for.
_QUIETLY = np.errstate(over="ignore", invalid="ignore")


@_QUIETLY
def flag_quotes(bid: Column, ask: Column, bid_size: Column, ask_size: Column) -> Column:
    """The column ``flags`` of quotes, shape (n,), uint8. A locked quote (bid = ask) is good, a crossed one is not."""
    prices = bid + ask  # NaN or infinite if either is
    flags = np.where(np.isfinite(prices + bid_size + ask_size), 0, NOT_FINITE).astype(np.uint8)
    flags |= np.where((bid <= 0) | (ask <= 0) | (bid_size < 0) | (ask_size < 0), NEGATIVE, 0).astype(np.uint8)
    flags |= np.where(bid > ask, CROSSED, 0).astype(np.uint8)
    return flags


@_QUIETLY
def flag_trades(price: Column, size: Column) -> Column:
    """The column ``flags`` of trades, shape (n,), uint8."""
    flags = np.where(np.isfinite(price + size), 0, NOT_FINITE).astype(np.uint8)
    flags |= np.where((price <= 0) | (size < 0), NEGATIVE, 0).astype(np.uint8)
    return flags


@_QUIETLY
def flag_rows(columns: Columns) -> Column:
    """The column ``flags`` of quotes and trades together, shape (n,), uint8."""
    is_quote = columns["kind"] == QUOTE
    bid, ask, price = columns["bid"], columns["ask"], columns["price"]
    bid_size, ask_size, size = columns["bid_size"], columns["ask_size"], columns["size"]
    # As a rule every row is good, and blocks are short: a few looks at all of them cost less than each rule by itself.
    low, high, least, most = bid, ask, np.minimum(bid_size, ask_size), bid_size + ask_size
    if not is_quote.all():
        low, high = np.where(is_quote, bid, price), np.where(is_quote, ask, price)
        least, most = np.where(is_quote, least, size), np.where(is_quote, most, size)
    most = most + high
    if ((low > 0) & (high >= low) & (least >= 0) & (most < np.inf)).all():
        return np.zeros(len(is_quote), np.uint8)
    return np.where(is_quote, flag_quotes(bid, ask, bid_size, ask_size), flag_trades(price, size))


@_QUIETLY
def flag_bars(columns: Columns) -> Column:
    """The column ``flags`` of bars, shape (n,), uint8. A bar whose high is below its low is crossed."""
    prices = columns["open"] + columns["high"] + columns["low"] + columns["close"]
    flags = np.where(np.isfinite(prices + columns["volume"]), 0, NOT_FINITE).astype(np.uint8)
    lowest = np.minimum(np.minimum(columns["open"], columns["close"]), columns["low"])
    flags |= np.where((lowest <= 0) | (columns["volume"] < 0), NEGATIVE, 0).astype(np.uint8)
    flags |= np.where(columns["high"] < columns["low"], CROSSED, 0).astype(np.uint8)
    return flags


def empty_columns(rows: int, fields: Mapping[str, np.dtype[Any]] = MARKET_FIELDS) -> dict[str, Column]:
    """``rows`` rows with every number NaN and every integer 0."""
    return {
        name: np.full(rows, np.nan, dtype) if dtype.kind == "f" else np.zeros(rows, dtype)
        for name, dtype in fields.items()
    }


def read_only(column: Column) -> Column:
    """A view of ``column`` that refuses writes; itself where it does so already."""
    if not column.flags.writeable:
        return column
    view = column.view()
    view.flags.writeable = False
    return view


class MarketBatch:
    """A window of consecutive rows: what ``on_market_data`` gets.

    ``batch["bid"]`` is a read-only column of shape (len(batch),); a strategy's own features are columns of the same
    rows under the names that its ``features()`` gave them. ``quotes``, ``trades``, ``bars`` and ``by_instrument()``
    are indices of good rows, ascending, computed once.

    Valid until the handler returns: the rows live in a ring whose slots are used again. ``copy()`` what is kept.
    """

    __slots__ = ("_by_instrument", "_columns", "_features", "_rows_by_kind", "instruments")

    def __init__(self, columns: Columns, instruments: Instruments, features: Columns | None = None) -> None:
        self._columns = columns
        self._features: Columns = features if features is not None else {}
        self.instruments = instruments
        self._rows_by_kind: dict[int, Column] = {}
        self._by_instrument: dict[str, Column] | None = None

    def __len__(self) -> int:
        return len(self._columns["kind"])

    def __getitem__(self, name: str) -> Column:
        column = self._columns.get(name)
        if column is None:
            column = self._features.get(name)
        if column is None:
            raise KeyError(f"unknown column {name!r}; there are {', '.join([*self._columns, *self._features])}")
        return column

    def __contains__(self, name: object) -> bool:
        return name in self._columns or name in self._features

    @property
    def columns(self) -> Columns:
        return self._columns

    @property
    def features(self) -> Columns:
        return self._features

    def with_features(self, features: Columns) -> "MarketBatch":
        """The same rows with another strategy's features; what was computed of the rows is shared."""
        batch = MarketBatch(self._columns, self.instruments, features)
        batch._rows_by_kind = self._rows_by_kind
        batch._by_instrument = self._by_instrument
        return batch

    def copy(self) -> "MarketBatch":
        """A batch that stays valid."""
        return MarketBatch(
            {name: column.copy() for name, column in self._columns.items()},
            self.instruments,
            {name: column.copy() for name, column in self._features.items()},
        )

    @property
    def quotes(self) -> Column:
        return self._rows_of(QUOTE)

    @property
    def trades(self) -> Column:
        return self._rows_of(TRADE)

    @property
    def bars(self) -> Column:
        return self._rows_of(BAR)

    def _rows_of(self, kind: int) -> Column:
        rows = self._rows_by_kind.get(kind)
        if rows is None:
            rows = np.flatnonzero((self._columns["kind"] == kind) & (self._columns["flags"] == 0))
            self._rows_by_kind[kind] = rows
        return rows

    def by_instrument(self) -> Mapping[str, Column]:
        """Good rows of each instrument that occurs, by instrument id, in order of registration."""
        if self._by_instrument is None:
            column = self._columns["instrument"]
            good = self._columns["flags"] == 0
            self._by_instrument = {
                self.instruments[int(index)].id: np.flatnonzero((column == index) & good)
                for index in np.unique(column[good])
            }
        return self._by_instrument


def events_by_row(columns: Columns, ids: Sequence[str]) -> list[MarketEvent | None]:
    """The event of every row of a block; None where the row is flagged. ``ids``: instrument ids by index.

    Column by column and kind by kind, so that the cost per row is that of making one object.
    """
    events: list[MarketEvent | None] = [None] * len(columns["kind"])
    good, kinds = columns["flags"] == 0, columns["kind"]
    for kind, event_type, names in _EVENT_TYPES:
        rows = np.flatnonzero(good & (kinds == kind))
        if not len(rows):
            continue
        chosen = [columns[name] for name in ("instrument", *names)]
        if len(rows) < len(events):
            chosen = [column[rows] for column in chosen]
        indices, *values = (column.tolist() for column in chosen)
        made: Iterable[MarketEvent] = map(event_type, map(ids.__getitem__, indices), *values)
        if len(rows) == len(events):
            return list(made)
        for row, event in zip(rows.tolist(), made, strict=True):
            events[row] = event
    return events


_EVENT_TYPES: tuple[tuple[int, type[Quote | Trade | Bar], tuple[str, ...]], ...] = (
    (QUOTE, Quote, Quote.__struct_fields__[1:]),
    (TRADE, Trade, Trade.__struct_fields__[1:]),
    (BAR, Bar, Bar.__struct_fields__[1:]),
)
