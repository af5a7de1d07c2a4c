"""Risk, order table, journal and the way to the broker.

    quote ─► strategy ─► risk ─► mailbox ─► gateway ─► journal's writer (a process)
                                               └─────► venue (a process, HTTP on loopback) ─► update stream ─► gateway

A whole engine, in its lanes, runs in this process, the venue in its own, the journal's writer in a third; engine and
venue are pinned to a core each. Stamps: t3 signal returned · t4 approved · t5 journalled · t6 last byte of the request
written · t7 acknowledged. The baseline of what is durable is the disk's plain sync, measured in the same run.
"""

import itertools
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from pathlib import Path

import attrs
import numpy as np
import trio

from benchmarks.harness import Row, is_wanted, main, percentile
from benchmarks.rig import KEY, MS, US, Watched, at, instruments, pinned, spawned, sync_times, venue
from scheduler import TaskPriority, open_scheduler
from trio_nt import EngineConfig, Quote, Strategy, StrategyContext, open_engine
from trio_nt.execution.alpaca import open_alpaca
from trio_nt.execution.gateway import Outgoing
from trio_nt.execution.orders import OrderTable
from trio_nt.feeds.base import MarketSender
from trio_nt.model.actions import OrderType, Signal, target
from trio_nt.model.decisions import ApprovedOrder
from trio_nt.model.instruments import Instrument, InstrumentKind, Instruments, Side
from trio_nt.model.orders import BrokerUpdate, Execution, Liquidity, UpdateKind
from trio_nt.portfolio import Portfolio
from trio_nt.risk.core import RiskEngine
from trio_nt.risk.limits import RiskLimits
from trio_nt.storage.durable import open_journal
from trio_nt.storage.journal import Journal, MemoryJournal

D = Decimal
EVERY_RULE = RiskLimits(
    max_order_quantity=D(100), min_order_notional=D(1), max_order_notional=D(10**6), max_position=D(1000),
    max_gross_exposure=D(10**8), price_collar=0.1, stale_after_s=1e9, submit_rate_per_s=1e9, submit_burst=10**9,
    max_open_orders=1000, duplicate_window_s=1e-9, max_daily_loss=D(10**7), leverage=1000.0,
    restricted=frozenset({"X"}),
)  # fmt: skip


def risk_engine(instruments: Instruments, limits: RiskLimits, *, strategy: bool) -> RiskEngine:
    numbers = itertools.count()
    risk = RiskEngine(
        instruments, limits, strategy_limits={"s": limits} if strategy else {}, order_ids=lambda: f"b-{next(numbers)}"
    )
    risk.set_cash({"USD": D(10**9)})
    for index in range(len(instruments)):
        risk.set_quote(index, 99.99, 100.01, 1)
    return risk


def pure_costs(limits: RiskLimits, orders: int, *, strategy: bool) -> dict[str, list[int]]:
    """Nanoseconds of each order's evaluate, table, release and booking: ten instruments, every order filled."""
    instruments = Instruments(
        Instrument(id=f"I{number}", symbol=f"I{number}", kind=InstrumentKind.LINEAR, quote="USD")
        for number in range(10)
    )
    risk = risk_engine(instruments, limits, strategy=strategy)
    table, portfolio = OrderTable(), Portfolio(instruments, keep_fills=False)
    costs: dict[str, list[int]] = {"evaluate": [], "table": [], "release": [], "book": []}
    clock, price, mid, fee = time.perf_counter_ns, D("100.01"), D(100), D("0.04")
    for number in range(orders):
        wanted = attrs.evolve(target(f"I{number % 10}", 1 if number // 10 % 2 == 0 else -1), strategy_id="s")
        start = clock()
        (decision,) = risk.evaluate(wanted, now_ns=2 + number * 1000, ts_signal=1)
        approved = clock()
        assert isinstance(decision, ApprovedOrder), decision
        order = decision.order
        table.add(order)
        table.mark_sent(order)
        execution = Execution(f"e{number}", order.quantity, price, fee, "USD", Liquidity.TAKER)
        accepted = BrokerUpdate(UpdateKind.ACCEPTED, order.client_order_id, "b", order.instrument, 1)
        filled = BrokerUpdate(UpdateKind.FILLED, order.client_order_id, "b", order.instrument, 1, execution)
        told = clock()
        events = (*table.apply(accepted, 1), *table.apply(filled, 1))
        applied = clock()
        for event in events:
            risk.apply(event, order)
        released = clock()
        portfolio.book(events[-1].fill, mid)  # type: ignore[union-attr]
        booked = clock()
        for name, spent in zip(
            costs, (approved - start, applied - told, released - applied, booked - released), strict=True
        ):
            costs[name].append(spent)
    assert portfolio.fills == orders
    return costs


def pure_cases(quick: bool) -> Iterator[Row]:
    orders = 2_000 if quick else 20_000
    for case, limits, strategy in (
        ("default limits", RiskLimits(submit_rate_per_s=None, stale_after_s=None), False),
        ("every rule, account", EVERY_RULE, False),
        ("every rule, account and strategy", EVERY_RULE, True),
    ):
        if not is_wanted(f"risk: {case}"):
            continue
        pure_costs(limits, orders // 10, strategy=strategy)
        costs = pure_costs(limits, orders, strategy=strategy)
        ordered = sorted(costs["evaluate"])
        gate = 20.0 if limits is EVERY_RULE else None
        yield Row(f"risk: {case}", "p50 an action", percentile(ordered, 0.5) * US, "µs")
        yield Row(f"risk: {case}", "p99 an action", percentile(ordered, 0.99) * US, "µs", gate=gate)
        for name in ("table", "release", "book"):
            yield Row(f"risk: {case}", f"{name} p50", percentile(sorted(costs[name]), 0.5) * US, "µs")


# -- the way to the broker --

SYMBOLS = 4
LIMITS = RiskLimits(
    submit_rate_per_s=None, stale_after_s=None, max_open_orders=None, split_flips=False, price_collar=None
)
Open = Callable[[], AbstractAsyncContextManager[Journal]]
_BLOCK = 20


class Quotes:
    """A feed of ``count`` quotes, one after another at a steady rate, or in blocks as fast as they are taken."""

    def __init__(self, count: int, rate: float | None) -> None:
        self._count, self._rate = count, rate

    async def run(self, send: MarketSender, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        start = trio.current_time()
        block = _BLOCK if self._rate is None else 1
        for number in range(0, self._count, block):
            if self._rate is not None:
                await trio.sleep_until(start + number / self._rate)
            await send.quotes(
                instrument=np.arange(number, number + block) % SYMBOLS,
                ts_event=time.time_ns(), bid=99.99, ask=100.01, bid_size=100, ask_size=100,
            )  # fmt: skip
        await trio.sleep_forever()


@attrs.define
class EveryQuote(Strategy):
    """A market order for every quote: a round of purchases, then a round of sales."""

    _seen: int = 0

    def on_quote(self, quote: Quote, context: StrategyContext) -> Signal:
        side = (Side.BUY, Side.SELL)[self._seen // SYMBOLS % 2]
        self._seen += 1
        return Signal(quote.instrument, side, 1)


@attrs.define
class Resting(Strategy):
    """Orders that wait far below the market, then one at the market for every further quote."""

    count: int = 50
    _seen: int = 0

    def on_quote(self, quote: Quote, context: StrategyContext) -> Signal:
        self._seen += 1
        if self._seen <= self.count:
            return Signal(quote.instrument, Side.BUY, 1, order_type=OrderType.LIMIT, limit_price=1)
        return Signal(quote.instrument, Side.BUY, 1)


async def run_flow(url: str, journal: Journal, orders: int, rate: float | None, hogs: int = 0) -> list[Outgoing]:
    """Send one market order for every quote of a feed; every one of them, acknowledged and filled."""
    async with (
        open_alpaca(url, instruments(SYMBOLS), unix_s=time.time, key=KEY, secret=KEY) as broker,
        open_scheduler(freeze_gc=True) as scheduler,
        spawned(scheduler, TaskPriority.HIGH, hogs),
        open_engine(
            EngineConfig(instruments=instruments(SYMBOLS), limits=LIMITS),
            feeds=[Quotes(orders, rate)], broker=broker, strategies=EveryQuote(), scheduler=scheduler, journal=journal,
        ) as engine,
    ):  # fmt: skip
        watched = Watched(engine)
        with trio.fail_after(120):
            await engine.start()
            while engine.gateway.statistics().acknowledged < orders or engine.desk.books.fills < orders:
                await trio.sleep(0.005)
    assert len(watched.items) == orders
    assert all(0 < item.t3 <= item.t4 <= item.t5 <= item.t6 <= item.t7 for item in watched.items)
    return watched.items


def wire_cases(quick: bool) -> Iterator[Row]:
    paced, flood, runs = (200, 400, 1) if quick else (1_500, 5_000, 3)
    quiet = "100 orders/s, no journal", "100 orders/s, durable journal", "100 orders/s, durable, HIGH saturated"
    floods = "20 in flight, no journal", "20 in flight, durable journal"
    if not any(map(is_wanted, (*quiet, *floods, KILL))):
        return
    with venue(symbols=SYMBOLS, events_per_second=100) as url, pinned(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        @asynccontextmanager
        async def durable() -> AsyncIterator[Journal]:
            path = folder / f"{time.time_ns()}.sqlite"
            async with open_journal(path, account="bench", lock_folder=folder) as journal:
                yield journal

        @asynccontextmanager
        async def in_memory() -> AsyncIterator[Journal]:
            yield MemoryJournal()

        async def flow(make: Open, orders: int, rate: float | None, hogs: int = 0) -> list[Outgoing]:
            async with make() as journal:
                return await run_flow(url, journal, orders, rate, hogs)

        trio.run(flow, durable, 100, None)
        sync_p50, sync_p99 = at(sync_times(folder, 100 if quick else 500, 0.01), 0.5, 0.99)
        for case, make, hogs, gate in zip(
            quiet, (in_memory, durable, durable), (0, 0, 20), (1.0, 5.0, 5.0), strict=True
        ):
            if is_wanted(case):
                items = trio.run(flow, make, paced, 100.0, hogs)
                yield from paced_rows(case, items, gate, None if make is in_memory else (sync_p50, sync_p99))
        for case, make in zip(floods, (in_memory, durable), strict=True):
            if not is_wanted(case):
                continue
            rates = []
            for _ in range(runs):
                items = trio.run(flow, make, flood, None)
                rates.append(len(items) / (max(item.t7 for item in items) - items[0].t4) * 1e9)
            gate = 1_000.0 if make is durable else None
            yield Row(case, "acknowledged", sorted(rates)[len(rates) // 2], "orders/s", gate=gate, aim=2_000.0,
                      at_most=False)  # fmt: skip
        if is_wanted(KILL):
            yield from kill_rows(url, folder)


def paced_rows(case: str, items: list[Outgoing], gate: float, sync: tuple[float, float] | None) -> Iterator[Row]:
    """Where the time of an order goes; ``sync`` is the plain sync of the same run, p50 and p99 in ms."""
    to_wire = at([(item.t6 - item.t3) * MS for item in items], 0.5, 0.99)
    yield Row(case, "signal to wire p50", to_wire[0], "ms", baseline=sync and sync[0])
    yield Row(case, "signal to wire p99", to_wire[1], "ms", gate=gate, baseline=sync and sync[1])
    acknowledged = at([(item.t7 - item.t4) * MS for item in items], 0.5, 0.99)
    is_quiet = "saturated" not in case
    yield Row(
        case, "acknowledged p50", acknowledged[0], "ms", gate=2.0 if is_quiet else None, baseline=sync and sync[0]
    )
    yield Row(case, "acknowledged p99", acknowledged[1], "ms", gate=20.0 if is_quiet else None,
              baseline=sync and sync[1])  # fmt: skip
    hops = (
        ("risk t4-t3", [item.t4 - item.t3 for item in items]),
        ("journal t5-t4", [item.t5 - item.t4 for item in items]),
        ("request t6-t5", [item.t6 - item.t5 for item in items]),
        ("venue t7-t6", [item.t7 - item.t6 for item in items]),
    )
    for name, durations in hops:
        p50, p99 = at(durations, 0.5, 0.99)
        yield Row(case, f"{name} p50", p50 * MS, "ms")
        yield Row(case, f"{name} p99", p99 * MS, "ms")


KILL = "kill switch, HIGH saturated"
KILLER = """
import os, sys, time
os.sched_setaffinity(0, range(os.cpu_count()))  # as from a shell: not bound to the engine's core
import trio
from pathlib import Path
from benchmarks.rig import KEY, instruments
from trio_nt.execution.alpaca import open_alpaca
from trio_nt.kill import kill
async def main():
    async with open_alpaca(sys.argv[1], instruments(4), unix_s=time.time, key=KEY, secret=KEY) as broker:
        print(await kill(broker, now_ns=time.time_ns, journal=Path(sys.argv[2])))
trio.run(main)
"""


def kill_rows(url: str, folder: Path) -> Iterator[Row]:
    """Fifty orders rest at the venue, a hundred more leave every second, and the engine's HIGH lane is never idle."""
    path = folder / "killed.sqlite"

    async def run(how: str) -> float:
        async with (
            open_journal(path.with_name(how), account=how, lock_folder=folder) as journal,
            open_alpaca(url, instruments(SYMBOLS), unix_s=time.time, key=KEY, secret=KEY) as broker,
            open_scheduler(freeze_gc=True) as scheduler,
            open_engine(
                EngineConfig(instruments=instruments(SYMBOLS), limits=LIMITS, on_exit="keep", exit_timeout_s=0.5),
                feeds=[Quotes(10**6, 100.0)], broker=broker, strategies=Resting(), scheduler=scheduler, journal=journal,
            ) as engine,
            spawned(scheduler, TaskPriority.HIGH, 20),
        ):  # fmt: skip
            await engine.start()
            while len(await broker.open_orders()) < 50 or engine.desk.books.fills < 50:
                await trio.sleep(0.05)
            start = time.perf_counter()
            if how == "own process":
                command = [sys.executable, "-c", KILLER, url, str(path.with_name(how))]
                done = await trio.run_process(command, capture_stdout=True)
                assert b"left_open=(), problems=()" in done.stdout, done.stdout
            else:
                await engine.halt()
                while await broker.open_orders():
                    await trio.sleep(0.005)
            took = time.perf_counter() - start
            sent = engine.gateway.statistics().submitted
            await trio.sleep(0.3)
            assert not await broker.open_orders()
            assert engine.gateway.statistics().submitted == sent, "an order has left after the kill"
            return took

    for how in ("host's call", "own process"):
        yield Row(KILL, how, trio.run(run, how), "s", gate=1.0)


def cases(quick: bool) -> Iterator[Row]:
    yield from pure_cases(quick)
    yield from wire_cases(quick)


if __name__ == "__main__":
    raise SystemExit(main("orders", cases))
