"""A whole engine, opened as a user's program opens it, trading as fast as it can until it is killed.

Two strategies share the account: one sends market orders to either side, the other rests orders near the market and
far from it, cancels and replaces them. To settle, they trade on for a while, so that the last life books fills as well;
then the engine closes in order, and tells what it knows.

What must never be seen is written into the folder's file ``wrong``, where it outlives the process: a strategy that is
called before the comparison with the broker has ended, and one that found a difference in positions.
"""

import json
import random
import sys
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from forking import Doomed, Task, plain, serve, truth

from trio_nt import (
    Action,
    Cancel,
    Engine,
    EngineConfig,
    ExecutionError,
    FeedError,
    Halted,
    OrderState,
    OrderType,
    Quote,
    Reason,
    Replace,
    RiskLimits,
    Strategy,
    StrategyContext,
    buy,
    engine_recovery,
    open_engine,
    open_journal,
    sell,
    target,
)
from trio_nt.exchange.market import venue_instruments
from trio_nt.execution.alpaca import open_alpaca
from trio_nt.execution.gateway import GatewaySettings
from trio_nt.execution.lookup import LookupSettings
from trio_nt.feeds.alpaca import AlpacaFeed
from trio_nt.risk.limits import SelfTrade

SYMBOLS = 4
MOST_RESTING = 10  # of each instrument; no limit of risk's, which counts abandoned orders as well: they add up
CARRIES_AFTER = 50  # records: short lives are to sum up, too
DEADLINE_S = 60


@attrs.define
class Watch:
    """Whether what strategies see may be seen."""

    folder: Path
    engine: Engine | None = None
    calls: int = 0

    def look(self) -> None:
        self.calls += 1
        assert self.engine is not None
        history = self.engine.recovery.history
        if not history:
            self.wrong("a strategy was called before the comparison with the broker had ended")
        elif history[-1].differences:
            self.wrong(f"positions differed: {history[-1]}")

    def wrong(self, what: str) -> None:
        with (self.folder / "wrong").open("a") as file:
            file.write(what + "\n")


@attrs.define
class Watched(Strategy):
    """A strategy that is watched and acts by chance."""

    watch: Watch
    choose: random.Random

    def on_start(self, context: StrategyContext) -> None:
        self.watch.look()

    def on_order(self, update: object, context: StrategyContext) -> None:
        self.watch.look()

    def on_quote(self, quote: Quote, context: StrategyContext) -> Action | None:
        self.watch.look()
        return self.act(quote, context) if self.choose.random() < 0.5 else None

    def act(self, quote: Quote, context: StrategyContext) -> Action | None:
        raise NotImplementedError


@attrs.define
class Taker(Watched):
    """Market orders; some turn the position around, which risk splits in two."""

    def act(self, quote: Quote, context: StrategyContext) -> Action:
        if self.choose.random() < 0.3:
            return target(quote.instrument, self.choose.randint(-3, 3))
        return self.choose.choice((buy, sell))(quote.instrument, self.choose.randint(1, 3))


@attrs.define
class Maker(Watched):
    """Resting orders and stops, that are cancelled, replaced, or filled whenever the market comes to them."""

    def act(self, quote: Quote, context: StrategyContext) -> Action | None:
        resting = [
            order
            for order in context.orders(quote.instrument)
            if order.order_type is not OrderType.MARKET
            and order.state in (OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED)
        ]
        is_full = len(resting) > MOST_RESTING
        if resting and (is_full or self.choose.random() < 0.5):
            order = self.choose.choice(resting)
            if is_full or order.order_type is not OrderType.LIMIT or self.choose.random() < 0.5:
                return Cancel(order.client_order_id)
            return Replace(order.client_order_id, quantity=order.quantity + 1)
        is_buy = self.choose.random() < 0.5
        away = Decimal(str(self.choose.choice((0.01, 0.03, 20))))
        near, sign = (Decimal(str(quote.bid)), -1) if is_buy else (Decimal(str(quote.ask)), 1)
        if self.choose.random() < 0.15:
            return (buy if is_buy else sell)(quote.instrument, 2, stop_price=near - sign * away)
        return (buy if is_buy else sell)(quote.instrument, 2, limit_price=near + sign * away)


def config(task: Task) -> EngineConfig:
    return EngineConfig(
        instruments=venue_instruments(SYMBOLS),
        limits=RiskLimits(
            submit_rate_per_s=None, stale_after_s=None, price_collar=None, max_open_orders=None, leverage=None,
            self_trade=SelfTrade.CANCEL_WORKING,
        ),
        gateway=GatewaySettings(
            lookup=LookupSettings(grace_s=0.5, signal_valid_s=5), reconnect_s=0.01, reconnect_max_s=0.2
        ),
        exit_timeout_s=DEADLINE_S / 2,
        sum_up_every_s=0.05,
    )  # fmt: skip


async def main(task: Task) -> None:
    engine_recovery.CARRY_AFTER = CARRIES_AFTER
    with trio.fail_after(DEADLINE_S):
        while not await life(task):
            await trio.sleep(0.05)


async def life(task: Task) -> bool:
    """Whether it came to trading; a venue that does not answer at first is tried again, as a supervisor would."""
    has_started = False
    folder = Path(task.folder)
    try:
        async with AsyncExitStack() as stack:
            journal = await stack.enter_async_context(
                open_journal(
                    folder / "journal.sqlite", account=task.url, lock_folder=folder, lock_wait_s=task.lock_wait_s
                )
            )
            settings = config(task)
            broker: Any = await stack.enter_async_context(
                open_alpaca(
                    task.url, settings.instruments, unix_s=lambda: task.now_ns() / 1e9, key="sim", secret="sim",
                    timeout_s=2,
                )
            )  # fmt: skip
            stream = "ws" + task.url.removeprefix("http") + "/v2/iex"
            watch, choose = Watch(folder), random.Random(task.now_ns())
            engine = await stack.enter_async_context(
                open_engine(
                    settings,
                    feeds=[AlpacaFeed(stream, key="sim", secret="sim", now_ns=task.now_ns)],
                    broker=Doomed(broker, task.die) if task.die else broker,
                    strategies={"taker": Taker(watch, choose), "maker": Maker(watch, choose)},
                    journal=journal,
                    now_ns=task.now_ns,
                )
            )
            watch.engine = engine
            nursery = await stack.enter_async_context(trio.open_nursery())
            nursery.start_soon(tell_of_halts, engine)
            await engine.start()
            has_started = True
            print("trading", flush=True)
            if task.settle:
                await settle(engine, watch, task.fills)
            else:
                await trio.sleep_forever()
    except* (ExecutionError, FeedError):
        if has_started:
            raise
    return has_started


async def tell_of_halts(engine: Engine) -> None:
    async for event in engine.events():
        if isinstance(event, Halted):
            print(f"halted: {event.reason}", flush=True)


async def settle(engine: Engine, watch: Watch, fills: int) -> None:
    before = engine.statistics().fills
    while engine.statistics().fills < before + fills and not engine.halted:
        await trio.sleep(0.01)
    while engine.halted and not engine.desk.refused[Reason.HALTED]:
        await trio.sleep(0.01)  # strategies do not stop: what they want is refused
    engine.stop()
    report = await engine.wait()
    books, risk = engine.desk.books, engine.desk.risk
    positions = {name: held.quantity for name, held in books.account.positions.items()}
    assert positions.items() >= {name: risk.position(name) for name in positions}.items(), "risk and books differ"
    told = {
        **truth(engine.desk.orders, positions, engine.recovery.history),
        "reserved": risk.exposure.open_orders(),
        "cash": str(books.account.cash["USD"]),
        "strategies": {
            name: {
                "positions": {each: plain(held.quantity) for each, held in ledger.positions.items() if held.quantity},
                "cash": str(ledger.cash["USD"]),
            }
            for name, ledger in books.strategies.items()
        },
        "calls": watch.calls,
        "submitted": engine.statistics().gateway.submitted,
        "recorded": engine.journal.statistics().orders,
        "failed": [f"{check.name}: {check.left} / {check.right}" for check in report.checks if not check.ok],
        "engine halted": engine.halted,
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], main)
