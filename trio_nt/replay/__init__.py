"""Recorded data through the engine's own cores: ``replay(data, strategies) -> Report``."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from decimal import Decimal
from hashlib import blake2s
from itertools import count
from pathlib import Path
from typing import TypeAlias

import attrs
import trio

from trio_nt.desk import Desk
from trio_nt.exchange.matching import Exchange
from trio_nt.execution.orders import OrderTable
from trio_nt.features.pipeline import FeaturePipeline
from trio_nt.feeds.data import MarketData, open_market_data
from trio_nt.feeds.instruments import Fees, as_fees
from trio_nt.model.instruments import Instruments
from trio_nt.model.market import Column, Columns
from trio_nt.model.money import Number, to_decimal
from trio_nt.portfolio import Portfolio
from trio_nt.replay.asynchronous import AsyncHandlers
from trio_nt.replay.driver import ReplayDriver
from trio_nt.replay.results import ReplayResult, report_of
from trio_nt.replay.venue import ReplayVenue
from trio_nt.report import Check, Report
from trio_nt.risk.core import RiskEngine, RiskRule
from trio_nt.risk.limits import RiskLimits
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.naming import by_id, configuration_of
from trio_nt.strategies.runner import StrategyRunner

Data: TypeAlias = MarketData | Path | str | Sequence[Path | str]
Progress: TypeAlias = Callable[[int, int], None]
DEFAULT_CASH = Decimal(100_000)
DEFAULT_LATENCY_S = 0.005

__all__ = ["ReplaySettings", "replay", "run_replay"]


def _not_negative(instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} must not be negative, was {value}")


@attrs.frozen(kw_only=True)
class ReplaySettings:
    """How a replay trades.

    ``cash``: what the account starts with by currency; None for 100,000 of every settlement currency.
    ``order_latency_s``, ``report_latency_s``: from the row that caused an order to the exchange, and back. With both
    at 0 strategies are shown one row at a time.
    """

    cash: Mapping[str, Decimal] | None = None
    order_latency_s: float = attrs.field(default=DEFAULT_LATENCY_S, validator=_not_negative)
    report_latency_s: float = attrs.field(default=DEFAULT_LATENCY_S, validator=_not_negative)
    limits: RiskLimits = attrs.field(factory=RiskLimits)
    rules: Sequence[RiskRule] = ()
    single_rows: bool = False
    raise_errors: bool = False

    @property
    def order_latency_ns(self) -> int:
        return round(self.order_latency_s * 1e9)

    @property
    def report_latency_ns(self) -> int:
        return round(self.report_latency_s * 1e9)


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
    stop: Callable[[], bool] | None = None,
    time_unit: str | None = None,
    bar_time: str | None = None,
) -> Report:
    """Replay recorded market data through strategies, risk and a simulated exchange.

    The same data, strategies and settings give the same orders, to the byte, on any machine. Synchronous: it has a
    Trio run of its own where a handler is ``async``; call it from a thread inside a running event loop.

    Args:
        data: files of market data, merged by receipt time; or ``MarketData``.
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
            holds its traceback.
        progress: called with (rows so far, time reached in UNIX ns) now and then.
        stop: asked now and then; once it says True the data ends there, and the report is of what was replayed.
        time_unit, bar_time: what a CSV file leaves open, see ``open_market_data``.

    Raises:
        InputError: data, instruments or settings are wrong; the message names file, line or key. Nothing was traded.
        TypeError, ValueError: an argument is wrong.
    """
    chosen = None if fees is None else as_fees(fees)
    registered = by_id(strategies)

    def open_again() -> MarketData:
        if isinstance(data, MarketData):
            return data
        paths = [data] if isinstance(data, (str, Path)) else list(data)
        return open_market_data(paths, instruments=instruments, fees=chosen, time_unit=time_unit, bar_time=bar_time)

    started_ns = time.perf_counter_ns()
    opened = open_again()
    settings = ReplaySettings(
        cash=_cash(cash, opened.instruments),
        order_latency_s=order_latency_s,
        report_latency_s=report_latency_s,
        limits=RiskLimits() if limits is None else limits,
        rules=tuple(rules),
        raise_errors=raise_errors,
    )
    if not check_causality:
        return report_of(run_replay(opened, registered, settings, progress, stop, started_ns=started_ns))
    if isinstance(data, MarketData):
        raise ValueError("check_causality reads the data twice: give the files' paths instead of MarketData")
    twins = deepcopy(registered)
    result = run_replay(opened, registered, settings, progress, stop, started_ns=started_ns)
    again = run_replay(open_again(), twins, attrs.evolve(settings, single_rows=True), progress, stop)
    report, one_by_one = report_of(result), report_of(again)
    if result.stopped or again.stopped:
        return report  # of two parts of the data nothing can be compared
    check = Check(
        "orders in batches = orders row by row",
        f"{len(report.orders):,}",
        f"{len(one_by_one.orders):,}" + ("" if len(report.orders) != len(one_by_one.orders) else " others"),
        ok=report.orders_csv() == one_by_one.orders_csv(),
    )
    if check.ok:
        check = attrs.evolve(check, right=check.left)
    return attrs.evolve(report, checks=(*report.checks, check))


def _cash(cash: Mapping[str, Number] | Number | None, instruments: Instruments) -> Mapping[str, Decimal]:
    if isinstance(cash, Mapping):
        return {currency: to_decimal(amount, f"cash in {currency}") for currency, amount in cash.items()}
    amount = DEFAULT_CASH if cash is None else to_decimal(cash, "cash")
    return {instrument.settlement: amount for instrument in instruments}


def run_replay(
    data: MarketData,
    strategies: Mapping[str, Strategy],
    settings: ReplaySettings,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    *,
    started_ns: int | None = None,
) -> ReplayResult:
    """Drive one replay; ``strategies`` in order of registration.

    ``started_ns`` (``time.perf_counter_ns``) is when the work began, reading included; None for now.
    """
    started_ns = time.perf_counter_ns() if started_ns is None else started_ns
    instruments = data.instruments
    exchange = Exchange(instruments, cash=settings.cash or {})
    numbers = _order_ids(strategies, settings, instruments)
    risk = RiskEngine(instruments, settings.limits, order_ids=numbers, rules=settings.rules)
    risk.set_cash(settings.cash or {})
    desk = Desk(instruments, risk, Portfolio(instruments, settings.cash), OrderTable(keep_final=2**62))
    handlers = AsyncHandlers()
    runners = [
        StrategyRunner(name, strategy, instruments, desk, sleep=handlers.sleep_of(name))
        for name, strategy in strategies.items()
    ]
    pipeline = FeaturePipeline(len(instruments))
    for runner in runners:
        pipeline.require(runner.feature_specs.values())
    venue = ReplayVenue(exchange, instruments, settings.order_latency_ns, settings.report_latency_ns)
    driver = ReplayDriver(
        runners, desk, venue, pipeline, raise_errors=settings.raise_errors, single_rows=settings.single_rows
    )
    run = driver.run(_reporting(data.blocks(), progress, stop))
    if any(runner.is_async for runner in runners):
        trio.run(handlers.drive, run)
    else:
        for request in run:
            raise TypeError(f"a plain handler of {request.strategy_id!r} returned an awaitable: declare it `async def`")
    elapsed_s = (time.perf_counter_ns() - started_ns) / 1e9
    return ReplayResult(data, settings, driver, pipeline, elapsed_s, stopped=stop is not None and stop())


def _reporting(
    blocks: Iterator[dict[str, Column]], progress: Progress | None, stop: Callable[[], bool] | None
) -> Iterator[Columns]:
    rows = 0
    for block in blocks:
        if stop is not None and stop():
            return
        rows += len(block["kind"])
        if progress is not None and rows:
            progress(rows, int(block["ts_init"][-1]))
        yield block


def _order_ids(
    strategies: Mapping[str, Strategy], settings: ReplaySettings, instruments: Instruments
) -> Callable[[], str]:
    """Ids from what is replayed: the same configuration gives the same, another one others."""
    named = [(name, type(strategy).__qualname__, configuration_of(strategy)) for name, strategy in strategies.items()]
    # Neither how rows are grouped nor how errors are treated is part of what is traded.
    trading = attrs.evolve(settings, single_rows=False, raise_errors=False, rules=())
    configuration = repr((named, trading, list(instruments)))
    run = blake2s(configuration.encode(), digest_size=4).hexdigest()
    numbers = count(1)
    return lambda: f"{run}-{next(numbers)}"
