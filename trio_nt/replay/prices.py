"""What risk and the report take as an instrument's price while rows pass: see ``model/prices.py``. Pure."""

from bisect import bisect_left
from decimal import Decimal
from typing import Protocol

import numpy as np

from trio_nt.model.market import Column
from trio_nt.model.money import EXACT, to_decimal
from trio_nt.model.prices import PRICE_FIELDS, PricingRows
from trio_nt.replay.rows import BlockRows

_TWO = Decimal(2)
_MANY = 200  # rows: from here on NumPy finds the last of each instrument sooner than a dictionary


class PriceListener(Protocol):
    def __call__(self, index: int, bid: float, ask: float, ts_init: int) -> None: ...


def middle(bid: float, ask: float) -> Decimal:
    """The mid price, exactly."""
    return EXACT.divide(EXACT.add(to_decimal(bid), to_decimal(ask)), _TWO)


class ReferencePrices:
    """Tells ``listener`` the last price of each instrument, as far as rows are shown.

    Columns become lists only where rows are shown a few at a time: a block that is shown as a whole stays in NumPy.
    """

    def __init__(self, instruments: int, listener: PriceListener) -> None:
        self.last: dict[int, tuple[float, float]] = {}
        self._listener = listener
        self._pricing = PricingRows(instruments)
        self._rows: BlockRows | None = None
        self._priced: Column = np.empty(0, np.int64)  # rows of the block that price their instrument
        self._listed: list[int] | None = None  # the same
        self._pairs: dict[int, tuple[list[float], list[float]]] = {}  # columns of the low and the high price, by kind
        self._kinds: list[int] | None = None  # None: all rows are of the one kind that `_pairs` has
        self._shown = 0  # of them

    def open_block(self, rows: BlockRows) -> None:
        """Show what is left of the block before, and go on to the next."""
        self.show_rest()
        self._rows, self._listed, self._shown = rows, None, 0
        self._priced = self._pricing.find(rows.block.columns)

    def show_rest(self) -> None:
        """Show the block to its end."""
        if self._rows is not None:
            self._show_until(self._rows, len(self._priced))

    def show(self, stop: int) -> None:
        """Show the rows before ``stop``."""
        rows, priced = self._rows, self._listed
        if rows is None:
            return
        if priced is None:
            priced = self._list(rows)
        shown = self._shown
        if shown < len(priced) and priced[shown] < stop:
            self._show_until(rows, bisect_left(priced, stop, shown))

    def _list(self, rows: BlockRows) -> list[int]:
        kind = rows.block.columns["kind"]
        kinds = np.unique(kind).tolist()
        self._pairs = {
            each: (rows.values(low), rows.values(high)) for each in kinds for low, high in [PRICE_FIELDS[each]]
        }
        self._kinds = None if len(kinds) == 1 else kind.tolist()
        self._listed = self._priced.tolist()
        return self._listed

    def _show_until(self, rows: BlockRows, end: int) -> None:
        """Show priced rows up to the one numbered ``end``."""
        shown, self._shown = self._shown, end
        if self._listed is None or end - shown > _MANY:
            self._show_last(rows, self._priced[shown:end])
            return
        instrument, times, kinds, listener = rows.instrument, rows.times, self._kinds, self._listener
        latest = {instrument[row]: row for row in self._listed[shown:end]}
        if kinds is None:
            (pair,) = self._pairs.values()
        for index, row in latest.items():
            lows, highs = pair if kinds is None else self._pairs[kinds[row]]
            price = lows[row], highs[row]
            listener(index, *price, times[row])
            self.last[index] = price

    def _show_last(self, rows: BlockRows, priced: Column) -> None:
        columns = rows.block.columns
        instrument, kind, times = columns["instrument"], columns["kind"], columns["ts_init"]
        last = np.full(len(rows.block.instruments), -1)
        last[instrument[priced]] = priced  # of rows of one instrument the last one stays
        for row in np.sort(last[last >= 0]).tolist():
            low, high = PRICE_FIELDS[int(kind[row])]
            price = float(columns[low][row]), float(columns[high][row])
            self._listener(int(instrument[row]), *price, int(times[row]))
            self.last[int(instrument[row])] = price
