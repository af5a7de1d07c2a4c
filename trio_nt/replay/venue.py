"""The exchange of a replay, seen through the latencies: orders travel to it, reports travel back. Pure."""

import heapq
from decimal import Decimal
from typing import NamedTuple, TypeAlias

from trio_nt.exchange.book import Touch
from trio_nt.exchange.matching import Exchange
from trio_nt.model.events import OrderEvent
from trio_nt.model.instruments import Instruments
from trio_nt.model.market import QUOTE
from trio_nt.model.orders import BrokerUpdate, OrderRequest
from trio_nt.replay.prices import middle
from trio_nt.replay.rows import BEFORE_ROWS, END_OF_TIME, BlockRows, Key, Place


class SubmitOrder(NamedTuple):
    request: OrderRequest


class CancelOrder(NamedTuple):
    client_order_id: str


class ReplaceOrder(NamedTuple):
    client_order_id: str
    quantity: Decimal | None
    limit_price: Decimal | None


class LocalNews(NamedTuple):
    """What the desk itself decided, for a strategy. It travels to the venue and back like any instruction: heard any
    sooner, a longer batch would be a look ahead."""

    event: OrderEvent


_LOOK_AHEAD = 256  # rows; it is asked anew after these

Instruction: TypeAlias = SubmitOrder | CancelOrder | ReplaceOrder | LocalNews


class Delivery(NamedTuple):
    """A report on its way to the engine, with the mid price at the moment it speaks of."""

    update: BrokerUpdate
    mid: Decimal | None


class ReplayVenue:
    """The matching core behind ``order_latency`` and ``report_latency``.

    ``advance`` runs it as far as no new instruction can reach: whatever happens at a floor leaves at the floor or
    later and arrives ``order_latency`` after that. It never runs past rows that are not there yet.
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
        self._end = END_OF_TIME
        self._last_touch: dict[int, Touch] = {}  # of blocks before this one
        self._instruments = instruments

    # -- instructions and reports --

    def send(self, instruction: Instruction, place: Place) -> None:
        """Put an instruction on its way."""
        heapq.heappush(self._arrivals, (self._key(place.later(self.order_latency_ns)), instruction))

    def _key(self, place: Place) -> Key:
        self._number += 1
        return place.at_ns, place.row, self._number

    @property
    def next_report(self) -> Key | None:
        return self._reports[0][0] if self._reports else None

    def earliest_report(self, row: int) -> Key | None:
        """The earliest key at which it could report, if nothing is sent to it any more; None where it will not.

        ``row``: the next row of the block that strategies will see.
        """
        keys = [self._reports[0][0]] if self._reports else []
        if self._arrivals:
            at_ns, after_row, _ = self._arrivals[0][0]
            keys.append((*Place(at_ns, after_row).later(self.report_latency_ns), 0))
        if self.exchange.working_count and self._rows is not None:
            rows, working = self._rows, self.exchange.working_instruments
            first = max(self._row, row)
            stop = min(first + _LOOK_AHEAD, len(rows))
            while first < stop and (rows.flags[first] or not working[rows.instrument[first]]):
                first += 1
            if first < len(rows):
                keys.append((*Place(rows.times[first], rows.base + first).later(self.report_latency_ns), 1))
        return min(keys, default=None)

    def pop_report(self) -> tuple[Key, Delivery | LocalNews]:
        return heapq.heappop(self._reports)

    # -- time --

    def open_block(self, rows: BlockRows, end: Key) -> None:
        """Go on to the next block, which ``end``, the key of the row after it, follows.

        The block before must have been shown to its end: ``advance`` to its own ``end`` does that.
        """
        if self._rows is not None:
            self._last_touch |= self._rows.last_touches()
        self._rows, self._row, self._end = rows, 0, end

    def advance(self, floor: Key) -> None:
        """Show the exchange rows and instructions in their order, up to where a new instruction could come between.

        ``floor``: the earliest key at which a strategy may act next. A report found on the way lowers it.
        """
        if not self._arrivals and not self.exchange.working_count:
            return
        horizon = min(self._horizon(floor), self._end)
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
        working, instrument, flags = self.exchange.working_instruments, rows.instrument, rows.flags
        stop = rows.before(limit)
        if self._row >= stop:
            return False
        for row in range(self._row, stop):
            if not flags[row] and working[instrument[row]]:
                updates = self._show(rows, row)
                if updates:
                    self._row = row + 1
                    self._report(updates, Place(rows.times[row], rows.base + row))
                    return True
        self._row = max(self._row, stop)
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
        # Rows that came before it are past, whether or not they had to be shown.
        if self._rows is not None:
            self._row = max(self._row, self._rows.before(key))
        row = self._row
        match instruction:
            case LocalNews():
                self._push(instruction, Place(at_ns, after_row))
                return
            case SubmitOrder(request):
                index = self._instruments.index(request.instrument)
                updates = self.exchange.submit(request, at_ns, self._touch_at(index, row))
            case CancelOrder(client_order_id):
                updates = self.exchange.cancel(client_order_id, at_ns)
            case ReplaceOrder(client_order_id, quantity, limit_price):
                updates = self.exchange.replace(
                    client_order_id, quantity=quantity, limit_price=limit_price, now_ns=at_ns
                )
        self._report(updates, Place(at_ns, after_row))

    def _touch_at(self, index: int, before: int) -> Touch | None:
        """The last good quote of an instrument before a row of this block."""
        touch = self._rows.last_quote(index, before) if self._rows is not None else None
        return self._last_touch.get(index) if touch is None else touch

    def _report(self, updates: list[BrokerUpdate], place: Place) -> None:
        for update in updates:
            mid = None
            if update.execution is not None:
                # The exchange has seen every quote of an instrument since an order of it arrived, and that one's last.
                touch = self.exchange.last_quote(self._instruments.index(update.instrument))
                mid = None if touch is None else middle(touch.bid, touch.ask)
            self._push(Delivery(update, mid), place)

    def _push(self, report: Delivery | LocalNews, place: Place) -> None:
        heapq.heappush(self._reports, (self._key(place.later(self.report_latency_ns)), report))
