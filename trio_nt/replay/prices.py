"""What risk and the report take as an instrument's price while rows pass: see ``model/prices.py``. Pure."""

from bisect import bisect_left
from decimal import Decimal
from typing import Protocol

from trio_nt.model.money import EXACT, to_decimal
from trio_nt.model.prices import PRICE_FIELDS, PricingRows
from trio_nt.replay.rows import BlockRows


class PriceListener(Protocol):
    def __call__(self, index: int, bid: float, ask: float, ts_init: int) -> None: ...


def middle(bid: float, ask: float) -> Decimal:
    """The mid price, exactly."""
    return EXACT.divide(EXACT.add(to_decimal(bid), to_decimal(ask)), Decimal(2))


class ReferencePrices:
    """Tells ``listener`` the last price of each instrument, as far as rows are shown."""

    def __init__(self, instruments: int, listener: PriceListener) -> None:
        self.last: dict[int, tuple[float, float]] = {}
        self._listener = listener
        self._pricing = PricingRows(instruments)
        self._rows: BlockRows | None = None
        self._priced: list[int] = []  # rows of the block that price their instrument
        self._shown = 0

    def open_block(self, rows: BlockRows) -> None:
        """Show what is left of the block before, and go on to the next."""
        self.show_rest()
        self._rows, self._shown = rows, 0
        self._priced = self._pricing.find(rows.block.columns).tolist()

    def show_rest(self) -> None:
        """Show the block to its end."""
        if self._rows is not None:
            self.show(len(self._rows))

    def show(self, stop: int) -> None:
        """Show the rows before ``stop``."""
        end = bisect_left(self._priced, stop, self._shown)
        if end == self._shown or self._rows is None:
            return
        rows, columns = self._rows, self._rows.block.columns
        latest = {rows.instrument[row]: row for row in self._priced[self._shown : end]}
        for index, row in latest.items():
            low, high = PRICE_FIELDS[int(columns["kind"][row])]
            bid, ask = float(columns[low][row]), float(columns[high][row])
            self._listener(index, bid, ask, rows.times[row])
            self.last[index] = (bid, ask)
        self._shown = end
