"""Which market rows give an instrument its price: one rule for risk and reports, in replay and live. Pure.

The price is the last good quote's; where an instrument has shown no quote yet the last trade stands in for both sides,
and where it has shown no trade either the last bar's close: the same sources, in the same order, as the venue matches
against.
"""

import numpy as np

from trio_nt.model.market import BAR, QUOTE, TRADE, Column, Columns

PRICE_FIELDS = {BAR: ("close", "close"), TRADE: ("price", "price"), QUOTE: ("bid", "ask")}
_RANK = np.zeros(4, np.int8)
_RANK[[BAR, TRADE, QUOTE]] = 1, 2, 3


class PricingRows:
    """Finds the rows that price their instrument, given every row in order. Grows with the instruments."""

    __slots__ = ("_rank",)

    def __init__(self, instruments: int = 0) -> None:
        self._rank = np.zeros(instruments, np.int8)  # of the best source that each instrument has shown

    def find(self, columns: Columns) -> Column:
        """Indices of the rows that price their instrument, ascending, shape (m,). Rows with bad data never do."""
        index, rank = columns["instrument"], _RANK[columns["kind"]]
        if not len(index):
            return np.empty(0, np.int64)
        if (greatest := int(index.max())) >= len(self._rank):
            self._rank = np.concatenate([self._rank, np.zeros(greatest + 1, np.int8)])
        good = columns["flags"] == 0
        known = self._rank[index]
        if (known >= rank).all():  # as a rule: every instrument has shown its quotes before this block
            return np.flatnonzero(good & (rank == known))
        priced = []
        rows = np.flatnonzero(good)
        for row, instrument, of_row in zip(rows.tolist(), index[rows].tolist(), rank[rows].tolist(), strict=True):
            if of_row >= self._rank[instrument]:
                self._rank[instrument] = of_row
                priced.append(row)
        return np.array(priced, np.int64)
