"""How the public names are used, for the type checker alone: checked by ``make types``, never run."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import assert_type

import attrs
import numpy as np
import trio

from scheduler import TaskHandle, TaskPriority, open_mailbox, open_scheduler, open_watch
from trio_nt import (
    Action,
    Cancel,
    FeatureSpec,
    Fill,
    MarketBatch,
    OrderEvent,
    Quote,
    Replace,
    Report,
    Signal,
    Strategy,
    StrategyContext,
    buy,
    cross,
    ema,
    replay,
    rsi,
    sell,
    target,
)
from trio_nt.metrics import PerformanceTimer
from trio_nt.testing import quotes, run_strategy


@attrs.define
class Plain(Strategy):
    fast: int = 10

    def features(self) -> Mapping[str, FeatureSpec]:
        return {"cross": cross(ema(self.fast), ema(20)), "rsi": rsi(14)}

    def on_quote(self, quote: Quote, context: StrategyContext) -> Signal | None:
        if context.features.cross:
            return target(quote.instrument, context.features.cross)
        return None

    def on_order(self, update: OrderEvent, context: StrategyContext) -> None:
        context.log.info("%s", update)

    def on_fill(self, fill: Fill, context: StrategyContext) -> list[Action]:
        assert_type(fill.price, Decimal)
        return [Cancel(instrument=fill.instrument), Replace(fill.client_order_id, quantity="1.5")]


@attrs.define
class Vectorised(Strategy):
    open_loop = True

    def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> Iterable[Action]:
        rows = np.flatnonzero(batch["bid"] > 100)
        return [buy(int(batch["instrument"][row]), np.float64(1), row=row) for row in rows]


@attrs.define
class Asynchronous(Strategy):
    async def on_quote(self, quote: Quote, context: StrategyContext) -> Signal:
        await context.sleep(1)
        return sell(quote.instrument, Decimal(1), limit_price=quote.bid)


def replays() -> None:
    report = replay(
        [Path("a.csv"), Path("b.csv")], [Plain(), Vectorised(), Asynchronous()], cash={"USD": 5}, fees=0.001
    )
    assert_type(report, Report)
    assert_type(report.format(), str)
    assert_type(run_strategy(Plain(fast=2), quotes("ABC", mid=[1, 2])).position, Mapping[str, Decimal])


@PerformanceTimer("double")
def double(x: int) -> int:
    return 2 * x


@PerformanceTimer("wait")
async def wait(seconds: float) -> str:
    await trio.sleep(seconds)
    return "done"


async def lanes() -> None:
    assert_type(double(2), int)
    assert_type(await wait(1), str)
    async with open_scheduler() as scheduler:
        handle = scheduler.spawn(TaskPriority.HIGH, wait, 1.0)
        assert_type(handle, TaskHandle[str])
        assert_type(await handle.result(), str)
    sender, receiver = open_mailbox[int](10)
    with sender, receiver:
        await sender.send(1)
        assert_type(await receiver.receive(), int)
        assert_type(await receiver.receive_batch(), list[int])
        await sender.send("no number")  # type: ignore[arg-type]
    _, latest = open_watch(0.5)
    assert_type(latest.latest(), float)
