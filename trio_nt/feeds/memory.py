"""Events and columns in memory as sources for replay: tests, generated data, data read by someone else."""

from collections.abc import Iterator, Sequence
from copy import copy
from decimal import Decimal
from itertools import groupby
from pathlib import Path

import numpy as np

from trio_nt.feeds.instruments import DEFAULT_FEES, prices_and_sizes, step
from trio_nt.feeds.statistics import FileStatistics
from trio_nt.model.instruments import Instrument, InstrumentKind
from trio_nt.model.market import (
    BAR,
    BAR_FIELDS,
    MARKET_FIELDS,
    QUOTE,
    TRADE,
    Bar,
    Column,
    Columns,
    MarketEvent,
    Quote,
    Trade,
    empty_columns,
    flag_bars,
    flag_rows,
)

CENT = Decimal("0.01")
_NAME = "in memory"
_KIND_NAMES = {QUOTE: "quote", TRADE: "trade", BAR: "bar"}


def plain_instrument(symbol: str, parts: Sequence[Columns]) -> tuple[Instrument, str]:
    """What is assumed of a symbol that nothing but its rows describes: a share traded in dollars."""
    prices, sizes = prices_and_sizes(parts)
    maker, taker = DEFAULT_FEES[InstrumentKind.EQUITY]
    instrument = Instrument(
        id=symbol,
        symbol=symbol,
        tick_size=min(step(prices), CENT),
        lot_size=step(sizes),
        maker_fee=maker,
        taker_fee=taker,
    )
    return instrument, "an equity in USD that can be sold short"


class ColumnSource:
    """Blocks of columns that somebody else made; ``symbols`` are what their column ``instrument`` counts."""

    path: Path | str = _NAME

    def __init__(self, blocks: Sequence[Columns], symbols: Sequence[str]) -> None:
        self.statistics = FileStatistics(_NAME, _NAME)
        self.symbols = {symbol: index for index, symbol in enumerate(symbols)}
        self.assumptions: list[str] = []
        self.first_lines = [0] * len(self.symbols)
        self._blocks = [_completed(block, len(symbols)) for block in blocks if len(block["ts_init"])]
        self.kinds = frozenset(int(kind) for block in self._blocks for kind in np.unique(block["kind"]))
        last = 0
        for block in self._blocks:
            if np.any(np.diff(block["ts_init"], prepend=last) < 0):
                raise ValueError("ts_init must never decrease, from row to row and from block to block")
            last = int(block["ts_init"][-1])

    def again(self) -> "ColumnSource":
        again = copy(self)  # the blocks are complete and checked: they are shared
        again.statistics = FileStatistics(_NAME, _NAME)
        return again

    def pieces(self) -> Iterator[Columns]:
        for block in self._blocks:
            for kind, name in _KIND_NAMES.items():
                self.statistics.count(name, int(np.count_nonzero(block["kind"] == kind)))
            self.statistics.count_rows(block)
            yield block

    def instrument_id(self, symbol: str) -> str:
        return symbol

    def infer(self, symbol: str, parts: Sequence[Columns]) -> tuple[Instrument, str]:
        return plain_instrument(symbol, parts)


class EventSource(ColumnSource):
    """Quotes, trades and bars as a source."""

    def __init__(self, events: Sequence[MarketEvent]) -> None:
        symbols = {symbol: index for index, symbol in enumerate(dict.fromkeys(event.instrument for event in events))}
        runs = groupby(events, key=lambda event: isinstance(event, Bar))
        blocks = [_bar_block(list(run), symbols) if bars else _market_block(list(run), symbols) for bars, run in runs]
        super().__init__(blocks, list(symbols))


def _market_block(events: Sequence[MarketEvent], symbols: dict[str, int]) -> dict[str, Column]:
    block = empty_columns(len(events))
    for row, event in enumerate(events):
        block["instrument"][row] = symbols[event.instrument]
        assert isinstance(event, (Quote, Trade))
        block["kind"][row] = QUOTE if isinstance(event, Quote) else TRADE
        for name in event.__struct_fields__[1:]:
            block[name][row] = getattr(event, name)
    return block


def _bar_block(events: Sequence[MarketEvent], symbols: dict[str, int]) -> dict[str, Column]:
    block = empty_columns(len(events), BAR_FIELDS)
    block["kind"][:] = BAR
    for row, event in enumerate(events):
        block["instrument"][row] = symbols[event.instrument]
        for name in event.__struct_fields__[1:]:
            block[name][row] = getattr(event, name)
    return block


def _completed(block: Columns, symbols: int) -> dict[str, Column]:
    """``block`` with every column of its layout but ``sequence``, of the right types, and its flags."""
    bars = "open" in block
    fields = BAR_FIELDS if bars else MARKET_FIELDS
    unknown = [name for name in block if name not in fields]
    if unknown:
        raise ValueError(f"columns must be among {', '.join(fields)}, was {unknown[0]!r}")
    complete = empty_columns(len(block["ts_init"]), fields)
    for name, column in block.items():
        if np.shape(column) != complete[name].shape:
            raise ValueError(f"column {name!r} must have shape {complete[name].shape}, had {np.shape(column)}")
        complete[name][:] = column
    if bars:
        complete["kind"][:] = BAR
    del complete["sequence"]
    _check(complete, symbols)
    complete["flags"] = _flags(complete)
    return complete


def _check(block: Columns, symbols: int) -> None:
    kinds = (BAR,) if "open" in block else (QUOTE, TRADE)
    if not np.isin(block["kind"], kinds).all():
        raise ValueError("kind must be QUOTE or TRADE in every row")
    index = block["instrument"]
    if np.any((index < 0) | (index >= symbols)):
        raise ValueError(f"instrument must be an index below {symbols}, was {int(index.min())} to {int(index.max())}")


def _flags(block: Columns) -> Column:
    return flag_bars(block) if "open" in block else flag_rows(block)
