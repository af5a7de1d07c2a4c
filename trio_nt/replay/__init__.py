"""Recorded data through the engine's own cores: ``replay(data, strategies) -> Report``."""

import time
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

import attrs

from trio_nt.feeds.data import MarketData, from_events, open_market_data
from trio_nt.feeds.instruments import Fees, as_fees, load_instruments
from trio_nt.model.instruments import Instruments
from trio_nt.model.market import MarketEvent
from trio_nt.model.money import Number, to_decimal
from trio_nt.replay.results import report_of
from trio_nt.replay.run import Progress, Stop, run_replay
from trio_nt.replay.settings import DEFAULT_CASH, DEFAULT_LATENCY_S, ReplaySettings
from trio_nt.report import Check, Report
from trio_nt.risk.core import RiskRule
from trio_nt.risk.limits import RiskLimits
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.naming import by_id

Data: TypeAlias = MarketData | Path | str | Sequence[Path | str] | Sequence[MarketEvent]

__all__ = ["ReplaySettings", "replay", "run_replay"]


def replay(
    data: Data,
    strategies: Strategy | Iterable[Strategy] | Mapping[str, Strategy],
    *,
    instruments: Instruments | Path | str | None = None,
    cash: Mapping[str, Number] | Number | None = None,
    order_latency_s: float = DEFAULT_LATENCY_S,
    report_latency_s: float = DEFAULT_LATENCY_S,
    fees: "Number | tuple[Number, Number] | Fees | None" = None,
    limits: RiskLimits | None = None,
    rules: Sequence[RiskRule] = (),
    check_causality: bool = False,
    raise_errors: bool = False,
    progress: Progress | None = None,
    stop: Stop | None = None,
    time_unit: str | None = None,
    bar_time: str | None = None,
) -> Report:
    """Replay recorded market data through strategies, risk and a simulated exchange.

    The same data, strategies and settings give the same orders, to the byte, on any machine. Synchronous: it has a
    Trio run of its own where a handler is ``async``; call it from a thread inside a running event loop.

    Args:
        data: files of market data, merged by receipt time; ``MarketData``; or events in order of ``ts_init``.
        strategies: one, several, or a mapping from id to strategy. They are registered in order of their ids.
        instruments: described ones, or a TOML file of them; None to infer them from the data.
        cash: amounts by currency; one number is that much of every settlement currency (default 100,000).
        order_latency_s: from a row's receipt to the exchange.
        report_latency_s: from the exchange to the strategy.
        fees: a fraction of the notional, or ``(maker, taker)``; None for the instruments' own.
        limits: the account's risk limits.
        rules: the user's own risk checks.
        check_causality: replay a second time row by row; a strategy that looks ahead in its batches gives other
            orders then, and the check in the report fails.
        raise_errors: let a strategy's exception end the replay. By default it ends that strategy alone, and the report
            says what it was.
        progress: called with (rows so far, time reached in UNIX ns) now and then.
        stop: asked now and then; once it says True the data ends there, and the report is of what was replayed.
        time_unit, bar_time: what a CSV file leaves open, see ``open_market_data``.

    Raises:
        InputError: data, instruments or settings are wrong; the message names file, line or key. Nothing was traded.
        TypeError, ValueError: an argument is wrong.
    """
    started_ns = time.perf_counter_ns()
    registered = by_id(strategies)
    twins = deepcopy(registered) if check_causality else {}
    opened = _open(data, instruments, None if fees is None else as_fees(fees), time_unit, bar_time)
    settings = ReplaySettings(
        cash=_cash(cash, opened.instruments),
        order_latency_s=order_latency_s,
        report_latency_s=report_latency_s,
        limits=RiskLimits() if limits is None else limits,
        rules=tuple(rules),
        raise_errors=raise_errors,
    )
    result = run_replay(opened, registered, settings, progress=progress, stop=stop, started_ns=started_ns)
    report = report_of(result)
    if not check_causality or result.stopped:
        return report
    again = run_replay(opened, twins, attrs.evolve(settings, single_rows=True), progress=progress, stop=stop)
    if again.stopped:
        return report  # of two parts of the data nothing can be compared
    return attrs.evolve(report, checks=(*report.checks, _same_orders(report, report_of(again))))


def _open(
    data: Data,
    instruments: Instruments | Path | str | None,
    fees: Fees | None,
    time_unit: str | None,
    bar_time: str | None,
) -> MarketData:
    if isinstance(data, MarketData):
        return data
    given = [data] if isinstance(data, (str, Path)) else list(data)
    paths = [each for each in given if isinstance(each, (str, Path))]
    if len(paths) == len(given):
        return open_market_data(paths, instruments=instruments, fees=fees, time_unit=time_unit, bar_time=bar_time)
    events = [each for each in given if not isinstance(each, (str, Path))]
    if paths:
        raise TypeError("data must be files or events, was both")
    described = load_instruments(instruments) if isinstance(instruments, (str, Path)) else instruments
    return from_events(events, instruments=described, fees=fees)


def _cash(cash: Mapping[str, Number] | Number | None, instruments: Instruments) -> Mapping[str, Decimal]:
    if isinstance(cash, Mapping):
        return {currency: to_decimal(amount, f"cash in {currency}") for currency, amount in cash.items()}
    amount = DEFAULT_CASH if cash is None else to_decimal(cash, "cash")
    return {instrument.settlement: amount for instrument in instruments}


def _same_orders(report: Report, one_by_one: Report) -> Check:
    """Whether batches and single rows gave the same orders; where they did not, their first difference."""
    left, right = report.orders_csv(), one_by_one.orders_csv()
    shown, others = f"{len(report.orders):,}", f"{len(one_by_one.orders):,}"
    if left != right and shown == others:
        pairs = enumerate(zip(left.splitlines(), right.splitlines(), strict=False))
        others += f" others, from line {next(number for number, (one, other) in pairs if one != other) + 1} on"
    return Check("orders in batches = orders row by row", shown, others, ok=left == right)
