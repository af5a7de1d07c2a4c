"""What risk and the report take as an instrument's price while rows pass: see ``model/prices.py``. Pure."""

from bisect import bisect_left
from decimal import Decimal
from typing import Protocol

import numpy as np

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
    """Tells ``listener`` the last price of each instrument, as far as rows are shown."""

    def __init__(self, instruments: int, listener: PriceListener) -> None:
        self.last: dict[int, tuple[float, float]] = {}
        self._listener = listener
        self._pricing = PricingRows(instruments)
        self._rows: BlockRows | None = None
        self._priced: list[int] = []  # rows of the block that price their instrument
        self._pairs: dict[int, tuple[list[float], list[float]]] = {}  # columns of the low and the high price, by kind
        self._kinds: list[int] | None = None  # None: all rows are of the one kind that `_pairs` has
        self._shown = 0

    def open_block(self, rows: BlockRows) -> None:
        """Show what is left of the block before, and go on to the next."""
        self.show_rest()
        self._rows, self._shown = rows, 0
        columns = rows.block.columns
        self._priced = self._pricing.find(columns).tolist()
        kinds = np.unique(columns["kind"]).tolist()
        self._pairs = {
            kind: (rows.values(low), rows.values(high)) for kind in kinds for low, high in [PRICE_FIELDS[kind]]
        }
        self._kinds = None if len(kinds) == 1 else columns["kind"].tolist()

    def show_rest(self) -> None:
        """Show the block to its end."""
        if self._rows is not None:
            self.show(len(self._rows))

    def show(self, stop: int) -> None:
        """Show the rows before ``stop``."""
        priced, shown, rows = self._priced, self._shown, self._rows
        if rows is None or shown == len(priced) or priced[shown] >= stop:
            return
        end = bisect_left(priced, stop, shown)
        instrument, times, kinds, listener = rows.instrument, rows.times, self._kinds, self._listener
        if end - shown > _MANY:
            part = priced[shown:end]
            last = np.full(len(rows.block.instruments), -1)
            last[rows.block.columns["instrument"][part]] = part  # of rows of one instrument the last one stays
            latest = {instrument[row]: row for row in np.sort(last[last >= 0]).tolist()}
        else:
            latest = {instrument[row]: row for row in priced[shown:end]}
        if kinds is None:
            (pair,) = self._pairs.values()
        for index, row in latest.items():
            lows, highs = pair if kinds is None else self._pairs[kinds[row]]
            price = lows[row], highs[row]
            listener(index, *price, times[row])
            self.last[index] = price
        self._shown = end
