"""A seeded market: the same seed and start give the same bytes, however it is asked for them.

Its rules:

- Events come at ``events_per_second`` on average (exactly so over each block), in bursts: stretches in which they
  come ten times as fast. An event is due at a step of the schedule's grid (``step_ns``): the venue sends a step's
  events together, so that is their scheduled time.
- Every tenth event is a trade, at the touch in force; the others are quotes. The first events are one quote each.
- A mid price walks at random, in steps of equal variance per event, so that bursts are volatile in clock time. A slow
  drift that changes its direction gives trends to follow; a weak pull brings the price back to where it began, so
  that it stays a price for weeks.
- Bid and ask are on the tick and at least one tick apart: never crossed, never locked. Bursts widen the spread.

Pure: the caller brings the time. Prices in ticks are integers here; what leaves is the nearest float64.
"""

from collections.abc import Iterator

import attrs
import numpy as np
from numpy.typing import NDArray

from trio_nt.model.instruments import Instrument, InstrumentKind, Instruments
from trio_nt.model.market import MARKET_FIELDS, QUOTE, TRADE, Column, empty_columns
from trio_nt.model.money import Number

BLOCK_ROWS = 2048
TICKS_PER_UNIT = 100  # prices are in cents
SYMBOLS = ("ALBA", "BRIO", "CIMA", "DUNE", "ELMS", "FARO", "GALE", "HELM", "IRIS", "JUNO")
_START_PRICES = (84.20, 152.75, 31.40, 240.10, 67.85, 118.30, 45.05, 196.60, 73.15, 309.90)
_SPREAD_TICKS = (1, 2, 1, 3, 1, 2, 1, 2, 1, 4)
_VOLATILITY = (6e-4, 4e-4, 8e-4, 3e-4, 5e-4, 4e-4, 7e-4, 3e-4, 5e-4, 4e-4)  # of the price in one second
_TRADE_SHARE = 0.1
_BURST_STARTS, _BURST_ROWS, _BURST_SPEED = 1.0, 160, 10.0  # per block, mean length, times as fast
_TREND_SECONDS = 8.0  # how long a drift lasts, about
_PULL_SECONDS = 1800.0


def venue_instruments(
    symbols: int = len(SYMBOLS), *, maker_fee: Number = "0.0001", taker_fee: Number = "0.0003"
) -> Instruments:
    """The first ``symbols`` of the venue's invented shares: tick 0.01, whole lots, settled in USD.

    Raises:
        ValueError: more than there are, or none.
    """
    if not 1 <= symbols <= len(SYMBOLS):
        raise ValueError(f"symbols must be from 1 to {len(SYMBOLS)}, was {symbols}")
    return Instruments(
        Instrument(
            id=symbol,
            symbol=symbol,
            venue="SIM",
            kind=InstrumentKind.EQUITY,
            maker_fee=maker_fee,
            taker_fee=taker_fee,
        )
        for symbol in SYMBOLS[:symbols]
    )


@attrs.define
class _Symbol:
    """Where one symbol's walk stands between two blocks."""

    start: float  # log of the price in ticks
    spread: int
    volatility: float  # per event
    position: float
    drift: float
    bid: int
    ask: int


class Market:
    """Market events of ``symbols`` instruments in the order of their time.

    ``next`` gives columns as ``MARKET_FIELDS`` has them, with ``ts_event`` = ``ts_init`` = the scheduled time.
    """

    def __init__(
        self,
        *,
        seed: int,
        start_ns: int,
        symbols: int = len(SYMBOLS),
        events_per_second: float = 10_000,
        step_ns: int = 1_000_000,
    ) -> None:
        if not 0 < events_per_second <= 10_000_000:
            raise ValueError(f"events_per_second must be above 0 and at most 10 million, was {events_per_second}")
        if step_ns < 1:
            raise ValueError(f"step_ns must be above 0, was {step_ns}")
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._events_per_second = events_per_second
        self._step_ns = step_ns
        self._origin_ns = start_ns
        self._elapsed_blocks = 0
        seconds_per_event = symbols / events_per_second
        self._symbols = [
            _opening(np.log(price * TICKS_PER_UNIT), spread, volatility * np.sqrt(seconds_per_event))
            for price, spread, volatility in zip(_START_PRICES, _SPREAD_TICKS, _VOLATILITY, strict=True)
        ][:symbols]
        self._trend_keep = float(np.exp(-seconds_per_event / _TREND_SECONDS))
        self._pull = seconds_per_event / _PULL_SECONDS
        self._block: dict[str, Column] = empty_columns(0)
        self._drawn = self._block
        self._drawing = self._draw_block()
        self._row = 0
        self._sequence = 0

    def next(self, until_ns: int) -> dict[str, Column]:
        """All events due up to and including ``until_ns`` that were not given yet. At most one block (2,048 rows) a
        call: a caller that fell behind asks again.
        """
        self._need_rows()
        stop = int(np.searchsorted(self._block["ts_init"], until_ns, "right"))
        rows = slice(self._row, max(stop, self._row))
        self._row = rows.stop
        return {name: column[rows] for name, column in self._block.items()}

    @property
    def next_due_ns(self) -> int:
        """When the next event is due."""
        self._need_rows()
        return int(self._block["ts_init"][self._row])

    def prepare(self) -> None:
        """Draw a part of the next block, about 0.1 ms, once the present one is half used up: for a caller with time to
        spare, so that nothing is left to be drawn when its first event is due."""
        if self._row > BLOCK_ROWS // 2:
            next(self._drawing, None)

    def _need_rows(self) -> None:
        if self._row == len(self._block["kind"]):
            for _ in self._drawing:
                pass
            self._block, self._row = self._drawn, 0
            self._drawing = self._draw_block()

    # -- one block --

    def _draw_block(self) -> Iterator[None]:
        """Draw the next block into ``_drawn``, in parts."""
        columns = empty_columns(BLOCK_ROWS)
        burst = self._bursts()
        columns["sequence"] = self._sequence + np.arange(BLOCK_ROWS)
        columns["ts_init"] = columns["ts_event"] = self._times(burst)
        kind = np.where(self._random.random(BLOCK_ROWS) < _TRADE_SHARE, TRADE, QUOTE).astype(MARKET_FIELDS["kind"])
        instrument = self._random.integers(0, len(self._symbols), BLOCK_ROWS).astype(MARKET_FIELDS["instrument"])
        if self._sequence == 0:
            opening = len(self._symbols)
            kind[:opening], instrument[:opening] = QUOTE, np.arange(opening)
        columns["kind"], columns["instrument"] = kind, instrument
        self._sequence += BLOCK_ROWS
        self._elapsed_blocks += 1
        # Drawn for all rows at once: what one symbol gets depends on no other's rows.
        noise = self._random.standard_normal((2, BLOCK_ROWS))
        widening = self._random.poisson(np.where(burst, 1.5, 0.3)).astype(np.int64)
        sizes = 100 * self._random.geometric(0.35, (2, BLOCK_ROWS)).astype(np.float64)
        buyer = self._random.random(BLOCK_ROWS) < 0.5
        for index, symbol in enumerate(self._symbols):
            yield
            rows = np.flatnonzero(instrument == index)
            if len(rows):
                self._walk(symbol, columns, rows, noise[:, rows], widening[rows], sizes[:, rows], buyer[rows])
        self._drawn = columns

    def _bursts(self) -> NDArray[np.bool_]:
        burst = np.zeros(BLOCK_ROWS, np.bool_)
        starts = self._random.integers(0, BLOCK_ROWS, self._random.poisson(_BURST_STARTS))
        lengths = self._random.geometric(1 / _BURST_ROWS, len(starts))
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            burst[start : start + length] = True
        return burst

    def _times(self, burst: NDArray[np.bool_]) -> NDArray[np.int64]:
        gaps = self._random.exponential(1.0, BLOCK_ROWS)
        gaps[burst] /= _BURST_SPEED
        due = np.cumsum(gaps)
        block_ns = BLOCK_ROWS * 1e9 / self._events_per_second
        offset = self._elapsed_blocks * block_ns  # from the origin: nothing adds up
        steps = np.ceil((offset + due * (block_ns / due[-1])) / self._step_ns).astype(np.int64)
        return np.asarray(self._origin_ns + steps * self._step_ns)

    def _walk(
        self,
        symbol: _Symbol,
        columns: dict[str, Column],
        rows: NDArray[np.int64],
        noise: NDArray[np.float64],
        widening: NDArray[np.int64],
        sizes: NDArray[np.float64],
        buyer: NDArray[np.bool_],
    ) -> None:
        position = symbol.position + self._steps(symbol, noise).cumsum()
        symbol.position = float(position[-1])
        mid = np.exp(symbol.start + position)
        spread = symbol.spread + widening
        bid = np.maximum(np.floor(mid - spread / 2).astype(np.int64), 1)
        ask = bid + spread
        quoted = columns["kind"][rows] == QUOTE
        # A trade prints at the touch of the last quote before it, which may lie in the block before.
        last_quote = np.maximum.accumulate(np.where(quoted, np.arange(len(rows)), -1))
        bid = np.where(last_quote < 0, symbol.bid, bid[last_quote])
        ask = np.where(last_quote < 0, symbol.ask, ask[last_quote])
        symbol.bid, symbol.ask = int(bid[-1]), int(ask[-1])
        quotes, trades = rows[quoted], rows[~quoted]
        columns["bid"][quotes] = bid[quoted] / TICKS_PER_UNIT
        columns["ask"][quotes] = ask[quoted] / TICKS_PER_UNIT
        columns["bid_size"][quotes], columns["ask_size"][quotes] = sizes[:, quoted]
        taken = buyer[~quoted]
        columns["price"][trades] = np.where(taken, ask[~quoted], bid[~quoted]) / TICKS_PER_UNIT
        columns["size"][trades] = sizes[0, ~quoted]
        columns["aggressor"][trades] = np.where(taken, 1, -1)

    def _steps(self, symbol: _Symbol, noise: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each event adds to the log price: noise, a drift that follows a slow noise of its own, the pull."""
        count = noise.shape[1]
        keep = self._trend_keep
        # One drift per block, moved on by the block's length: a block is short beside a trend at the usual rates.
        decay = keep**count
        symbol.drift = symbol.drift * decay + float(noise[1, 0]) * float(np.sqrt(1 - decay * decay))
        # In units of the noise: a trend of its usual strength moves the price, over its life, as far as three
        # standard deviations of the noise.
        events_per_trend = -1 / np.log(keep)
        trend = symbol.drift * symbol.volatility * 3 / np.sqrt(events_per_trend)
        pull = -symbol.position * self._pull
        return np.asarray(symbol.volatility * noise[0] + (trend + pull))


def _opening(start: float, spread: int, volatility: float) -> _Symbol:
    bid = int(np.exp(start)) - spread // 2
    return _Symbol(start, spread, volatility, 0.0, 0.0, bid, bid + spread)


def blocks(market: Market, until_ns: int) -> Iterator[dict[str, Column]]:
    """All that is due up to ``until_ns``, in pieces of at most one block."""
    while market.next_due_ns <= until_ns:
        yield market.next(until_ns)
