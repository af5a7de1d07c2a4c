"""Test a strategy as a plain function: no event loop, no plugin, no files.

result = run_strategy(Crossover(fast=2, slow=3), quotes("ABC", mid=[10, 9, 8, 12, 7]))
assert result.position == {"ABC": -1}
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from decimal import Decimal
from itertools import count, zip_longest

import attrs

from trio_nt.feeds.data import MarketData, from_events
from trio_nt.model.events import Refused
from trio_nt.model.instruments import Instrument, Instruments
from trio_nt.model.market import Bar, MarketEvent, Quote, Trade
from trio_nt.model.money import Number, to_decimal
from trio_nt.model.orders import Fill, Order
from trio_nt.replay.results import report_of
from trio_nt.replay.run import run_replay
from trio_nt.replay.settings import ReplaySettings
from trio_nt.report import CurrencyPnl, Report
from trio_nt.risk.limits import RiskLimits
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.naming import by_id

START_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000

__all__ = ["StrategyResult", "assert_causal", "bars", "quotes", "run_strategy", "trades"]


def quotes(
    instrument: str,
    *,
    mid: Sequence[float] | None = None,
    spread: float = 0.02,
    bid: Sequence[float] | None = None,
    ask: Sequence[float] | None = None,
    size: float = 1_000.0,
    start_ns: int = START_NS,
    every_s: float = 1.0,
) -> list[MarketEvent]:
    """Quotes of one instrument, ``every_s`` apart: from ``mid`` and ``spread``, or from ``bid`` and ``ask``.

    Raises:
        ValueError: neither is given, or both, or ``bid`` and ``ask`` differ in length.
    """
    if mid is not None and bid is None and ask is None:
        bid, ask = [price - spread / 2 for price in mid], [price + spread / 2 for price in mid]
    elif mid is not None or bid is None or ask is None:
        raise ValueError("quotes needs either mid or bid and ask")
    if len(bid) != len(ask):
        raise ValueError(f"bid and ask must have the same length, were {len(bid)} and {len(ask)}")
    times = _times(start_ns, every_s, len(bid))
    return [
        Quote(instrument, at, at, float(low), float(high), size, size)
        for at, low, high in zip(times, bid, ask, strict=True)
    ]


def trades(
    instrument: str,
    *,
    price: Sequence[float],
    size: float | Sequence[float] = 1.0,
    aggressor: int = 0,
    start_ns: int = START_NS,
    every_s: float = 1.0,
) -> list[MarketEvent]:
    """Trades of one instrument, ``every_s`` apart."""
    sizes = [size] * len(price) if isinstance(size, (int, float)) else list(size)
    times = _times(start_ns, every_s, len(price))
    return [
        Trade(instrument, at, at, float(paid), float(volume), aggressor)
        for at, paid, volume in zip(times, price, sizes, strict=True)
    ]


def bars(
    instrument: str,
    *,
    close: Sequence[float],
    open: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    low: Sequence[float] | None = None,
    volume: float = 1_000.0,
    start_ns: int = START_NS,
    every_s: float = 60.0,
) -> list[MarketEvent]:
    """Bars of one instrument, visible ``every_s`` apart. What is not given follows from the closes."""
    opens = list(open) if open is not None else [close[0], *close[:-1]]
    highs = list(high) if high is not None else [max(pair) for pair in zip(opens, close, strict=True)]
    lows = list(low) if low is not None else [min(pair) for pair in zip(opens, close, strict=True)]
    times = _times(start_ns, every_s, len(close))
    return [
        Bar(instrument, at, at, float(first), float(top), float(bottom), float(last), volume)
        for at, first, top, bottom, last in zip(times, opens, highs, lows, close, strict=True)
    ]


def _times(start_ns: int, every_s: float, rows: int) -> list[int]:
    return [start_ns + round(number * every_s * SECOND_NS) for number in range(rows)]


@attrs.frozen
class StrategyResult:
    """What one strategy did with some data."""

    position: Mapping[str, Decimal]
    """Signed position by instrument id; flat ones are left out."""
    orders: Sequence[Order]
    fills: Sequence[Fill]
    refusals: Sequence[Refused]
    pnl: Sequence[CurrencyPnl]
    report: Report


def run_strategy(
    strategy: Strategy,
    data: Iterable[MarketEvent] | MarketData,
    *,
    instruments: Iterable[Instrument] | None = None,
    cash: Number = 1_000_000,
    fees: Number = 0,
    order_latency_s: float = 0.0,
    report_latency_s: float = 0.0,
    limits: RiskLimits | None = None,
) -> StrategyResult:
    """Replay ``data`` through one strategy, without latency and fees unless they are given.

    Events of several calls of ``quotes`` and ``trades`` may be added together: they are put in order of their times.
    An exception of the strategy is the caller's.
    """
    opened = data if isinstance(data, MarketData) else _data(data, instruments, fees)
    settings = ReplaySettings(
        cash={instrument.settlement: to_decimal(cash) for instrument in opened.instruments},
        order_latency_s=order_latency_s,
        report_latency_s=report_latency_s,
        limits=limits or RiskLimits(),
        raise_errors=True,
    )
    result = run_replay(opened, by_id(strategy), settings)
    desk, report = result.driver.desk, report_of(result)
    positions = desk.books.account.positions
    return StrategyResult(
        position={name: position.quantity for name, position in positions.items() if position.quantity},
        orders=list(desk.orders),
        fills=[fill for fills in desk.books.fills_by_order.values() for fill in fills],
        refusals=list(desk.refusals),
        pnl=report.pnl,
        report=report,
    )


def _data(events: Iterable[MarketEvent], instruments: Iterable[Instrument] | None, fees: Number) -> MarketData:
    order = count()
    ordered = sorted(events, key=lambda event: (event.ts_init, next(order)))
    described = None if instruments is None else Instruments(instruments)
    return from_events(ordered, instruments=described, fees=(to_decimal(fees), to_decimal(fees)))


def assert_causal(strategy: Strategy, data: Iterable[MarketEvent]) -> None:
    """Check that a strategy decides on no row from what came after it.

    With latencies from 5 ms to longer than the data (the longer they are, the more rows a batch holds) it is run in
    batches, row by row, and on the data cut off after actions that it took: what it wanted up to there must be the
    same each time.

    Raises:
        AssertionError: it is not; the message names the first difference.
        ValueError: there is no event.
    """
    events = sorted(data, key=lambda event: event.ts_init)
    if not events:
        raise ValueError("assert_causal needs at least one event")
    span_s = (events[-1].ts_init - events[0].ts_init) / SECOND_NS
    for latency_s in (0.005, span_s / 20, span_s + 1):
        whole = _actions(strategy, events, latency_s)
        _assert_same(whole, _actions(strategy, events, latency_s, single_rows=True), "shown row by row")
        times = sorted({at_ns for at_ns, _ in whole})
        for last_ns in times[:: 1 + len(times) // 10]:
            kept = [event for event in events if event.ts_init <= last_ns]
            found = _actions(strategy, kept, latency_s)
            _assert_same(_until(whole, last_ns), _until(found, last_ns), "without the rows that came later")


_Wanted = tuple[int, str]


def _actions(
    strategy: Strategy, events: list[MarketEvent], latency_s: float, *, single_rows: bool = False
) -> list[_Wanted]:
    """Time and text of every action, in order."""
    data = from_events(events, fees=(Decimal(0), Decimal(0)))
    settings = ReplaySettings(
        cash={instrument.settlement: Decimal(1_000_000) for instrument in data.instruments},
        order_latency_s=latency_s,
        report_latency_s=latency_s,
        raise_errors=True,
        keep_actions=True,
        single_rows=single_rows,
    )
    result = run_replay(data, by_id(deepcopy(strategy)), settings)
    # The row counts within a batch, and batches differ.
    return [(at_ns, str(attrs.evolve(action, row=None))) for at_ns, action in result.driver.actions]


def _until(wanted: list[_Wanted], last_ns: int) -> list[_Wanted]:
    return [one for one in wanted if one[0] <= last_ns]


def _assert_same(expected: list[_Wanted], found: list[_Wanted], how: str) -> None:
    for number, (one, other) in enumerate(zip_longest(expected, found), 1):
        if one != other:
            raise AssertionError(
                f"the strategy looks ahead: action {number} is {one or 'none'}, but {how} it is {other or 'none'}"
            )
