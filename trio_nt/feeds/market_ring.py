"""The market ring: where feeds put rows, and the price of every instrument beside it.

One sender writes the ring, so a row's place in it is known when it is written. Around the ring lie columns of the
same length for what belongs to a row but is nobody's market data: the stamps t0, t1 and t2 (``perf_counter_ns``).
"""

import math
import time
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import trio
from numpy.typing import ArrayLike

from scheduler import Backpressure, BroadcastReceiver, BroadcastSender, checkpoint_if_needed, open_broadcast
from trio_nt.feeds.base import InstrumentKeys
from trio_nt.model.instruments import Instrument, Instruments
from trio_nt.model.market import (
    BAR,
    BAR_FIELDS,
    MARKET_FIELDS,
    QUOTE,
    TRADE,
    Column,
    Columns,
    flag_bars,
    flag_rows,
)
from trio_nt.model.money import to_decimal
from trio_nt.model.prices import PricingRows
from trio_nt.stamps import INGESTION, StageClock


class QuoteBoard:
    """The price of every instrument, as far as rows were sent: for risk and for dashboards, never for a strategy.

    ``bid`` and ``ask`` are the last good quote's, or what stands in for it (``model/prices.py``).
    """

    def __init__(self, instruments: int) -> None:
        self._pricing = PricingRows(instruments)
        self.bid: Column = np.full(instruments, np.nan)
        self.ask: Column = np.full(instruments, np.nan)
        self.ts_init: Column = np.zeros(instruments, np.int64)
        self._changed: Column = np.zeros(instruments, np.bool_)

    def show(self, columns: Columns) -> None:
        """Take rows of one ring, oldest first; see ``model/prices.py`` for which of them give a price."""
        rows = self._pricing.find(columns)
        if not len(rows):
            return
        instrument, ts_init = columns["instrument"], columns["ts_init"]
        if "close" in columns:
            bid = ask = columns["close"]
        else:
            bid, ask = columns["bid"], columns["ask"]
            is_quote = columns["kind"] == QUOTE
            if not is_quote.all():
                bid, ask = np.where(is_quote, bid, columns["price"]), np.where(is_quote, ask, columns["price"])
        if len(rows) < len(instrument):
            instrument, ts_init, bid, ask = (column[rows] for column in (instrument, ts_init, bid, ask))
        greatest = int(instrument.max())
        if greatest >= len(self.bid):
            self._grow(greatest + 1)
        # Where an instrument occurs more than once, the last assignment stands.
        self.bid[instrument], self.ask[instrument] = bid, ask
        self.ts_init[instrument] = ts_init
        self._changed[instrument] = True

    def take_changed(self) -> list[tuple[int, float, float, int]]:
        """Index, bid, ask and time of the instruments that were priced since the last call."""
        rows = np.flatnonzero(self._changed)
        self._changed[rows] = False
        columns = (rows, self.bid[rows], self.ask[rows], self.ts_init[rows])
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def mid(self, index: int) -> Decimal | None:
        """The middle of bid and ask, exact; None before the first price."""
        if index >= len(self.bid) or not self.bid[index] > 0:
            return None
        return (to_decimal(self.bid[index]) + to_decimal(self.ask[index])) / 2

    def _grow(self, size: int) -> None:
        size = max(size, 2 * len(self.bid))
        for name in ("bid", "ask", "ts_init", "_changed"):
            old = getattr(self, name)
            new = np.full(size, np.nan) if old.dtype.kind == "f" else np.zeros(size, old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)


class MarketRing:
    """One ring of market rows, with its stamps. ``rows_sent`` counts rows, ``flagged`` those with bad data.

    ``on_stall`` is told the names of receivers that have held the full ring for ``stall_timeout_s`` without taking a
    row, again and again as long as they do. One that takes rows, however slowly, is none of them: the feed goes at its
    pace.

    ``followers`` are readers that take rows when somebody asks them for what follows from these, and are in nobody's
    way meanwhile: nothing is woken for them at each block. They are called, to take everything, whenever a quarter of
    the ring was sent since the last time, and where the ring waits for room.
    """

    def __init__(
        self,
        capacity: int,
        fields: Mapping[str, np.dtype[Any]] = MARKET_FIELDS,
        *,
        backpressure: Backpressure | None = None,
        stall_timeout_s: float | None = None,
        debug: bool = False,
    ) -> None:
        self.sender: BroadcastSender
        self.sender, first = open_broadcast(capacity, fields, backpressure=backpressure, debug=debug)
        first.close()  # readers subscribe when they start; a reader that never reads would hold the sender
        self.capacity = capacity
        self.t0: Column = np.zeros(capacity, np.int64)
        self.t1: Column = np.zeros(capacity, np.int64)
        self.t2: Column = np.zeros(capacity, np.int64)
        self.rows_sent = 0
        self.flagged = 0
        self.followers: list[Callable[[], None]] = []
        self.on_stall: Callable[[Collection[str]], None] = _nobody_cares
        self._rows_ahead = 0  # of the followers, at most
        self._stall_timeout_s = math.inf if stall_timeout_s is None else stall_timeout_s
        # A block that is longer waits for ever between the watermarks.
        self.longest_block = max(1, capacity // 4)

    def subscribe(self, name: str) -> BroadcastReceiver:
        return self.sender.subscribe(name=name)

    async def put(self, rows: dict[str, Any], count: int, t0: Column, sequence: Callable[[int], Column]) -> int:
        """Write ``count`` rows when there is room; their t1. Cancelled, nothing was written.

        A checkpoint where it waits or the task's step budget is used up: reading a socket is one already, and each
        costs the rows behind it a turn of every task of the lane.
        """
        await checkpoint_if_needed()
        while True:
            rows["sequence"] = sequence(count)
            try:
                self.sender.send_nowait(rows)
                break
            except trio.WouldBlock:
                await self._wait_for_room()
        t1 = time.perf_counter_ns()
        self._stamp(count, t0, t1)
        self._rows_ahead += count
        if self._rows_ahead >= self.longest_block:
            self.call_followers()
        return t1

    def call_followers(self) -> None:
        """Have every follower take what was sent. Not a checkpoint."""
        self._rows_ahead = 0
        for follow in self.followers:
            follow()

    async def _wait_for_room(self) -> None:
        """Wait until the ring is nearly empty again, looking now and then who takes nothing."""
        behind: dict[str, int] = {}
        self.call_followers()
        while True:
            with trio.move_on_after(self._stall_timeout_s / 2) as patience:
                await self.sender.wait_below_low_watermark()
            if not patience.cancelled_caught:
                return
            # Nothing is sent meanwhile, so who took rows is less behind than half the time ago.
            now = {each.name: each.lag for each in self.sender.statistics().receivers if each.lag}
            stalled = [name for name, rows in now.items() if behind.get(name) == rows]
            if stalled:
                self.on_stall(stalled)
            behind = now

    def _stamp(self, count: int, t0: Column, t1: int) -> None:
        start = self.rows_sent % self.capacity
        self.rows_sent += count
        end = start + count
        if end <= self.capacity:
            self.t0[start:end] = t0
            self.t1[start:end] = t1
            return
        slots = np.arange(start, end) % self.capacity
        self.t0[slots] = t0
        self.t1[slots] = t1


class EngineSender:
    """What one feed sends into: the engine's rings, its clock, its instruments. See ``MarketSender``.

    An instrument that nobody described is taken for an equity on its first row; ``on_unknown`` hears of it. ``on_sent``
    is called with the number of rows of each block that is in the ring.
    ``t0_is_ts_event`` says that this feed's ``ts_event`` is the scheduled time of sending by the clock of this machine,
    so that latencies count from there; otherwise they count from the receipt.
    """

    def __init__(
        self,
        market: MarketRing,
        bars: MarketRing,
        instruments: Instruments,
        board: QuoteBoard,
        *,
        now_ns: Callable[[], int],
        sequence: "Sequence",
        stamps: StageClock,
        on_unknown: Callable[[Instrument], None] | None = None,
        t0_is_ts_event: bool = False,
    ) -> None:
        self.instruments = instruments
        self.rows_sent = 0
        self._market = market
        self._bars = bars
        self._board = board
        self._now_ns = now_ns
        self._sequence = sequence
        self._ingestion = stamps.stage(INGESTION)
        self.on_sent: Callable[[int], None] = _nobody_counts
        self._on_unknown = on_unknown
        self._t0_is_ts_event = t0_is_ts_event

    async def quotes(
        self,
        *,
        instrument: InstrumentKeys,
        ts_event: ArrayLike,
        bid: ArrayLike,
        ask: ArrayLike,
        bid_size: ArrayLike,
        ask_size: ArrayLike,
        ts_init: ArrayLike | None = None,
    ) -> None:
        values = {"bid": bid, "ask": ask, "bid_size": bid_size, "ask_size": ask_size}
        columns = self._columns(QUOTE, instrument, ts_event, ts_init, values)
        await self._send(self._market, columns, MARKET_FIELDS)

    async def trades(
        self,
        *,
        instrument: InstrumentKeys,
        ts_event: ArrayLike,
        price: ArrayLike,
        size: ArrayLike,
        aggressor: ArrayLike = 0,
        ts_init: ArrayLike | None = None,
    ) -> None:
        values = {"price": price, "size": size, "aggressor": aggressor}
        columns = self._columns(TRADE, instrument, ts_event, ts_init, values)
        await self._send(self._market, columns, MARKET_FIELDS)

    async def bars(
        self,
        *,
        instrument: InstrumentKeys,
        ts_event: ArrayLike,
        open: ArrayLike,
        high: ArrayLike,
        low: ArrayLike,
        close: ArrayLike,
        volume: ArrayLike,
        ts_init: ArrayLike | None = None,
    ) -> None:
        values = {"open": open, "high": high, "low": low, "close": close, "volume": volume}
        columns = self._columns(BAR, instrument, ts_event, ts_init, values)
        await self._send(self._bars, columns, BAR_FIELDS)

    async def rows(self, columns: Columns) -> None:
        """Quotes and trades in one block: every market field but ``sequence`` and ``flags``; ``ts_init`` may be absent.

        Shape (n,) each. A checkpoint, as the other calls.
        """
        block = dict(columns)
        if "ts_init" not in block:
            block["ts_init"] = np.full(len(block["kind"]), self._now_ns(), np.int64)
        await self._send(self._market, block, MARKET_FIELDS)

    def _columns(
        self,
        kind: int,
        instrument: InstrumentKeys,
        ts_event: ArrayLike,
        ts_init: ArrayLike | None,
        values: Mapping[str, ArrayLike],
    ) -> dict[str, Column]:
        fields = BAR_FIELDS if kind == BAR else MARKET_FIELDS
        stamped = self._now_ns() if ts_init is None else ts_init
        given = {"instrument": self._index(instrument), "ts_event": ts_event, "ts_init": stamped, **values}
        arrays = {name: np.atleast_1d(np.asarray(value, fields[name])) for name, value in given.items()}
        try:
            rows = np.broadcast_shapes(*(array.shape for array in arrays.values()))
        except ValueError:
            lengths = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
            raise ValueError(f"columns must have the same length, were {lengths}") from None
        if len(rows) != 1:
            raise ValueError(f"columns must be one-dimensional, had shape {rows}")
        columns: dict[str, Column] = {name: np.broadcast_to(array, rows) for name, array in arrays.items()}
        columns["kind"] = np.full(rows, kind, np.uint8)
        for name, dtype in fields.items():
            if name not in columns and name not in ("sequence", "flags"):
                columns[name] = np.full(rows, np.nan if dtype.kind == "f" else 0, dtype)
        return columns

    def _index(self, keys: InstrumentKeys) -> ArrayLike:
        if isinstance(keys, (str, Instrument)):
            return self._index_of(keys)
        if isinstance(keys, (int, np.integer)):
            return self.instruments.index(keys)
        array = np.asarray(keys)
        if array.dtype.kind in "iu":
            for index in np.unique(array).tolist():
                self.instruments.index(index)
            return array
        return [self._index_of(key) for key in keys]

    def _index_of(self, key: Any) -> int:
        try:
            return self.instruments.index(key)
        except KeyError:
            if self._on_unknown is None or not isinstance(key, str) or not key:
                raise
        instrument = Instrument(id=key, symbol=key)
        self.instruments.add(instrument)
        self._on_unknown(instrument)
        return self.instruments.index(key)

    async def _send(self, ring: MarketRing, columns: dict[str, Column], fields: Mapping[str, Any]) -> None:
        count = len(columns["kind"])
        columns["flags"] = flags = flag_bars(columns) if fields is BAR_FIELDS else flag_rows(columns)
        ring.flagged += int(np.count_nonzero(flags))
        for start in range(0, count, ring.longest_block):
            stop = min(start + ring.longest_block, count)
            piece = columns if count <= ring.longest_block else {k: v[start:stop] for k, v in columns.items()}
            await self._put(ring, piece, stop - start)

    async def _put(self, ring: MarketRing, piece: dict[str, Column], count: int) -> None:
        # Wall clock and perf_counter are read together: durations count from t0 by the clock that never steps.
        t0 = time.perf_counter_ns() - (self._now_ns() - piece["ts_event" if self._t0_is_ts_event else "ts_init"])
        self._board.show(piece)
        t1 = await ring.put(piece, count, t0, self._sequence.take)
        self.rows_sent += count
        self.on_sent(count)
        self._ingestion.record_many(t1 - t0)


class Sequence:
    """Numbers rows of all rings in one order."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> Column:
        """The next ``count`` numbers. Taken again when the rows found no room: numbers are unique, not dense."""
        start, self._next = self._next, self._next + count
        return np.arange(start, start + count, dtype=np.int64)


def _nobody_cares(names: Collection[str]) -> None:
    return


def _nobody_counts(rows: int) -> None:
    return
