"""The exchange of a replay, seen through the latencies: orders travel to it, reports travel back. Pure.

Everything in a replay has a key, and happens in the order of the keys:

    (time, row, number)

``row`` is the run-wide number of the row it follows at the same time, or ``BEFORE_ROWS`` when a latency brought it
there: what arrives at a time comes before the rows of that time. ``number`` counts, so equal times and rows keep the
order in which they came to be. A row's own key is ``(ts_init, row, 0)``.
"""

import heapq
from bisect import bisect_left
from decimal import Decimal
from typing import NamedTuple, TypeAlias

import numpy as np

from trio_nt.exchange.matching import Exchange, Touch
from trio_nt.model.events import OrderEvent
from trio_nt.model.instruments import Instruments
from trio_nt.model.market import QUOTE
from trio_nt.model.money import to_decimal
from trio_nt.model.orders import BrokerUpdate, OrderRequest
from trio_nt.strategies.runner import Block

BEFORE_ROWS = -1
Key: TypeAlias = tuple[int, int, int]


class Place(NamedTuple):
    """A moment in the order of everything: a time, and the row it follows at that time (or ``BEFORE_ROWS``)."""

    at_ns: int
    row: int

    def later(self, latency_ns: int) -> "Place":
        return Place(self.at_ns + latency_ns, BEFORE_ROWS) if latency_ns else self


class SubmitOrder(NamedTuple):
    request: OrderRequest


class CancelOrder(NamedTuple):
    client_order_id: str


class ReplaceOrder(NamedTuple):
    client_order_id: str
    quantity: Decimal | None
    limit_price: Decimal | None


Instruction: TypeAlias = SubmitOrder | CancelOrder | ReplaceOrder


class BlockRows:
    """One block as the exchange reads it: plain lists, and the good quotes of each instrument."""

    __slots__ = ("_quotes", "base", "block", "flags", "instrument", "is_bars", "prices", "times")

    def __init__(self, block: Block, base: int) -> None:
        self.block = block
        self.base = base  # run-wide number of row 0
        self.times = block.times
        self.is_bars = "open" in block.columns
        self.instrument: list[int] = block.columns["instrument"].tolist()
        self.flags: list[int] = block.columns["flags"].tolist()
        self._quotes: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self.times)

    def last_quote(self, index: int, before: int) -> Touch | None:
        """The last good quote of an instrument before row ``before``; None without one (bars have none)."""
        rows = self._quotes.get(index)
        if rows is None:
            columns = self.block.columns
            good = (columns["kind"] == QUOTE) & (columns["flags"] == 0) & (columns["instrument"] == index)
            rows = self._quotes[index] = np.flatnonzero(good).tolist()
        position = bisect_left(rows, before)
        return self.touch(rows[position - 1]) if position else None

    def touch(self, row: int) -> Touch:
        """A quote row as the exchange takes it."""
        bid, ask, bid_size, ask_size = (
            float(self.block.columns[name][row]) for name in ("bid", "ask", "bid_size", "ask_size")
        )
        return Touch(bid, ask, bid_size, ask_size, self.times[row])


class Delivery(NamedTuple):
    """A report on its way to the engine, with the mid price at the moment it speaks of."""

    update: BrokerUpdate
    mid: Decimal | None


class LocalNews(NamedTuple):
    """What the desk itself decided, for a strategy: it is heard when an answer of the venue would be."""

    event: OrderEvent


class ReplayVenue:
    """The matching core behind ``order_latency`` and ``report_latency``.

    ``advance`` runs it as far as no new instruction can reach: whatever happens at a floor leaves at the floor or
    later and arrives ``order_latency`` after that.
    """

    def __init__(
        self, exchange: Exchange, instruments: Instruments, order_latency_ns: int, report_latency_ns: int
    ) -> None:
        self.exchange = exchange
        self.order_latency_ns = order_latency_ns
        self.report_latency_ns = report_latency_ns
        self.round_trip_ns = order_latency_ns + report_latency_ns
        self._arrivals: list[tuple[Key, Instruction]] = []
        self._reports: list[tuple[Key, Delivery | LocalNews]] = []
        self._number = 0
        self._row = 0  # next row of the block to show
        self._rows: BlockRows | None = None
        self._last_touch: dict[int, Touch] = {}  # of blocks before this one
        self._instruments = instruments

    # -- instructions and reports --

    def send(self, instruction: Instruction, place: Place) -> None:
        """Put an instruction on its way."""
        heapq.heappush(self._arrivals, (self._key(place.later(self.order_latency_ns)), instruction))

    def tell_later(self, event: OrderEvent, place: Place) -> None:
        """Put the desk's own news on its way: heard any sooner, a longer batch would be a look ahead."""
        heapq.heappush(self._reports, (self._key(place.later(self.round_trip_ns)), LocalNews(event)))

    def _key(self, place: Place) -> Key:
        self._number += 1
        return place.at_ns, place.row, self._number

    @property
    def next_report(self) -> Key | None:
        return self._reports[0][0] if self._reports else None

    def pop_report(self) -> tuple[Key, Delivery | LocalNews]:
        return heapq.heappop(self._reports)

    # -- time --

    def open_block(self, rows: BlockRows) -> None:
        """Go on to the next block. The one before must have been shown to its end or have no working order."""
        if self._rows is not None:
            for index in range(len(self._instruments)):
                touch = self._rows.last_quote(index, len(self._rows))
                if touch is not None:
                    self._last_touch[index] = touch
        self._rows, self._row = rows, 0

    def advance(self, floor: Key) -> None:
        """Show the exchange rows and instructions in their order, up to where a new instruction could come between.

        ``floor``: the earliest key at which a strategy may act next. A report found on the way lowers it.
        """
        horizon = self._horizon(floor)
        while True:
            if self._reports:
                horizon = min(horizon, self._horizon(self._reports[0][0]))
            arrival = self._arrivals[0][0] if self._arrivals else None
            limit = horizon if arrival is None else min(horizon, arrival)
            if self.exchange.working_count and self._show_rows(limit):
                continue
            if arrival is None or arrival >= horizon:
                return
            self._arrive(*heapq.heappop(self._arrivals))

    def _horizon(self, floor: Key) -> Key:
        return (floor[0] + self.order_latency_ns, BEFORE_ROWS, 0) if self.order_latency_ns else floor

    def _show_rows(self, limit: Key) -> bool:
        """Show working instruments' rows before ``limit``; True as soon as one of them made a report."""
        rows = self._rows
        if rows is None:
            return False
        working, times, base = self.exchange.working_instruments, rows.times, rows.base
        instrument, flags = rows.instrument, rows.flags
        row, end = self._row, len(times)
        while row < end and (times[row], base + row, 0) < limit:
            if not flags[row] and working[instrument[row]]:
                updates = self._show(rows, row)
                if updates:
                    self._row = row + 1
                    self._report(updates, Place(times[row], base + row), row + 1)
                    return True
            row += 1
        self._row = row
        return False

    def _show(self, rows: BlockRows, row: int) -> list[BrokerUpdate]:
        columns, index, now = rows.block.columns, rows.instrument[row], rows.times[row]
        if rows.is_bars:
            open_, high, low, close = (float(columns[name][row]) for name in ("open", "high", "low", "close"))
            return self.exchange.bar(index, open_, high, low, close, now)
        if columns["kind"][row] == QUOTE:
            touch = rows.touch(row)
            return self.exchange.quote(index, touch.bid, touch.ask, touch.bid_size, touch.ask_size, now)
        return self.exchange.trade(index, float(columns["price"][row]), float(columns["size"][row]), now)

    def _arrive(self, key: Key, instruction: Instruction) -> None:
        at_ns, after_row, _ = key
        rows = self._rows
        row = 0
        if rows is not None:
            # Rows that came before it are past, whether or not they had to be shown.
            row = bisect_left(rows.times, at_ns) if after_row == BEFORE_ROWS else after_row - rows.base + 1
            row = self._row = max(self._row, min(row, len(rows)))
        match instruction:
            case SubmitOrder(request):
                index = self._instruments.index(request.instrument)
                updates = self.exchange.submit(request, at_ns, self._touch_at(index, row))
            case CancelOrder(client_order_id):
                updates = self.exchange.cancel(client_order_id, at_ns)
            case ReplaceOrder(client_order_id, quantity, limit_price):
                updates = self.exchange.replace(
                    client_order_id, quantity=quantity, limit_price=limit_price, now_ns=at_ns
                )
        self._report(updates, Place(at_ns, after_row), row)

    def _touch_at(self, index: int, before: int) -> Touch | None:
        """The last good quote of an instrument before a row of this block."""
        touch = self._rows.last_quote(index, before) if self._rows is not None else None
        return self._last_touch.get(index) if touch is None else touch

    def _report(self, updates: list[BrokerUpdate], place: Place, before: int) -> None:
        for update in updates:
            mid = None
            if update.execution is not None:
                touch = self._touch_at(self._instruments.index(update.instrument), before)
                mid = None if touch is None else (to_decimal(touch.bid) + to_decimal(touch.ask)) / 2
            key = self._key(place.later(self.report_latency_ns))
            heapq.heappush(self._reports, (key, Delivery(update, mid)))
