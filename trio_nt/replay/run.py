"""One replay put together: the engine's cores, the strategies' runners, and whoever awaits their handlers."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2s
from itertools import count
from typing import TypeAlias

import trio

from trio_nt.desk import Desk
from trio_nt.exchange.matching import Exchange
from trio_nt.execution.orders import OrderTable
from trio_nt.features.pipeline import FeaturePipeline
from trio_nt.features.specs import fields_of_kinds
from trio_nt.feeds.data import MarketData
from trio_nt.model.instruments import Instruments
from trio_nt.model.market import Columns
from trio_nt.portfolio import Portfolio
from trio_nt.replay.asynchronous import AsyncHandlers
from trio_nt.replay.driver import ReplayDriver
from trio_nt.replay.results import ReplayResult
from trio_nt.replay.settings import ReplaySettings
from trio_nt.replay.venue import ReplayVenue
from trio_nt.risk.core import RiskEngine
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.naming import configuration_of
from trio_nt.strategies.requirements import check_features
from trio_nt.strategies.runner import StrategyRunner

Progress: TypeAlias = Callable[[int, int], None]
Stop: TypeAlias = Callable[[], bool]

# Orders, fills and rows stay for as long as the report needs them, and hold no cycles: at Python's default of 700 new
# objects the garbage collector walks them over and over.
_OBJECTS_BETWEEN_COLLECTIONS = 100_000


def run_replay(
    data: MarketData,
    strategies: Mapping[str, Strategy],
    settings: ReplaySettings,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
    started_ns: int | None = None,
) -> ReplayResult:
    """Drive one replay; ``strategies`` in order of registration.

    ``progress`` is told (rows so far, time reached) with every block, and ``stop`` asked whether to end there.
    ``started_ns`` (``time.perf_counter_ns``) is when the work began, reading included; None for now.
    """
    started_ns = time.perf_counter_ns() if started_ns is None else started_ns
    instruments = data.instruments
    desk = _desk(instruments, strategies, settings)
    handlers = AsyncHandlers()
    runners = [
        StrategyRunner(name, strategy, instruments, desk, sleep=handlers.sleep_of(name))
        for name, strategy in strategies.items()
    ]
    # A test of a strategy may well ask what it does before its averages are there.
    rows_of_kind = None if settings.raise_errors else data.rows_of_kind
    pipeline = FeaturePipeline(len(instruments), fields=fields_of_kinds(data.kinds), rows_of_kind=rows_of_kind)
    for runner in runners:
        check_features(runner.strategy_id, runner.strategy, pipeline)
        pipeline.require(runner.feature_specs.values())
    exchange = Exchange(instruments, cash=settings.cash)
    venue = ReplayVenue(exchange, instruments, settings.order_latency_ns, settings.report_latency_ns)
    driver = ReplayDriver(
        runners,
        desk,
        venue,
        pipeline,
        raise_errors=settings.raise_errors,
        single_rows=settings.single_rows,
        keep_actions=settings.keep_actions,
    )
    blocks = _Blocks(data, progress, stop)
    run = driver.run(blocks)
    with _rare_collections():
        if any(runner.is_async for runner in runners):
            trio.run(handlers.drive, run)
        else:
            for request in run:
                raise AssertionError(f"a plain handler was to be awaited: {request}")
    elapsed_s = (time.perf_counter_ns() - started_ns) / 1e9
    return ReplayResult(data, settings, driver, pipeline, elapsed_s, stopped=blocks.stopped)


def _desk(instruments: Instruments, strategies: Mapping[str, Strategy], settings: ReplaySettings) -> Desk:
    risk = RiskEngine(
        instruments,
        settings.limits,
        order_ids=_order_ids(strategies, settings, instruments),
        rules=settings.rules,
    )
    risk.set_cash(settings.cash)
    return Desk(instruments, risk, Portfolio(instruments, settings.cash), OrderTable(keep_final=2**62))


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Have the garbage collector run less often; a host that wants it rarer still, or never, has its way."""
    before = gc.get_threshold()
    if not 0 < before[0] < _OBJECTS_BETWEEN_COLLECTIONS:
        yield
        return
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Blocks:
    """The data's blocks, as far as nobody wants to stop. ``stopped``: somebody did, before the last."""

    def __init__(self, data: MarketData, progress: Progress | None, stop: Stop | None) -> None:
        self.stopped = False
        self._data = data
        self._progress = progress
        self._stop = stop

    def __iter__(self) -> Iterator[Columns]:
        rows = 0
        for block in self._data.blocks():
            if self._stop is not None and self._stop():
                self.stopped = True
                return
            rows += len(block["kind"])
            if self._progress is not None:
                self._progress(rows, int(block["ts_init"][-1]))
            yield block


def _order_ids(
    strategies: Mapping[str, Strategy], settings: ReplaySettings, instruments: Instruments
) -> Callable[[], str]:
    """Ids from what is replayed: the same configuration gives the same, another one others."""
    configuration = configuration_of((strategies, settings.trading, list(instruments)))
    run = blake2s(configuration.encode(), digest_size=4).hexdigest()
    numbers = count(1)
    return lambda: f"{run}-{next(numbers)}"
