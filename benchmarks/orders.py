"""Risk, order table, journal and the way to the broker.

    strategy ─► risk ─► mailbox ─► gateway ─► journal's writer (a process)
                                      └─────► venue (a process, HTTP on loopback) ─► update stream ─► gateway

The engine's side runs in this process, the venue in its own, the journal's writer in a third.
"""

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import attrs
import trio

from benchmarks.harness import Row, main, percentile
from scheduler.mailbox import open_mailbox
from trio_nt.exchange.market import venue_instruments
from trio_nt.execution.alpaca import open_alpaca
from trio_nt.execution.gateway import Gateway, Outgoing
from trio_nt.execution.orders import OrderTable
from trio_nt.model.actions import Signal, target
from trio_nt.model.decisions import ApprovedOrder
from trio_nt.model.events import OrderEvent
from trio_nt.model.instruments import Instrument, InstrumentKind, Instruments, Side
from trio_nt.model.orders import BrokerUpdate, Execution, Liquidity, UpdateKind
from trio_nt.portfolio import Portfolio
from trio_nt.risk.core import RiskEngine
from trio_nt.risk.limits import RiskLimits
from trio_nt.storage.durable import open_journal
from trio_nt.storage.journal import Journal, MemoryJournal

D = Decimal
US = 1e-3  # of a nanosecond
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
        pure_costs(limits, orders // 10, strategy=strategy)
        costs = pure_costs(limits, orders, strategy=strategy)
        ordered = sorted(costs["evaluate"])
        gate = 20.0 if limits is EVERY_RULE else None
        yield Row(f"risk: {case}", "p50 an action", percentile(ordered, 0.5) * US, "µs")
        yield Row(f"risk: {case}", "p99 an action", percentile(ordered, 0.99) * US, "µs", gate=gate)
        for name in ("table", "release", "book"):
            yield Row(f"risk: {case}", f"{name} p50", percentile(sorted(costs[name]), 0.5) * US, "µs")


# -- the way to the broker --


@contextmanager
def venue() -> Iterator[str]:
    """The simulated venue in its own process; its URL."""
    program = (
        "import sys, time, trio\n"
        "from trio_nt.exchange.config import ExchangeConfig\n"
        "from trio_nt.exchange.server import serve_exchange\n"
        "class Say:\n"
        "    def started(self, port): print(port, flush=True)\n"
        "config = ExchangeConfig(symbols=4, events_per_second=100, cash=10**9, requests_per_minute=10**9)\n"
        "async def main(): await serve_exchange(config, now_ns=time.time_ns, task_status=Say())\n"
        "trio.run(main)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


async def run_flow(url: str, journal: Journal, orders: int, rate: float | None) -> list[Outgoing]:
    """Send market orders, at a steady rate or 20 in flight without pause; every one, acknowledged."""
    async with open_alpaca(url, venue_instruments(4, maker_fee=D(0), taker_fee=D(0)), unix_s=time.time,
                           key="sim", secret="sim") as broker, trio.open_nursery() as nursery:  # fmt: skip
        instruments = venue_instruments(4, maker_fee=D(0), taker_fee=D(0))
        prefix, numbers = f"{time.time_ns():x}", itertools.count()
        limits = RiskLimits(submit_rate_per_s=None, stale_after_s=None, max_open_orders=None, split_flips=False)
        risk = RiskEngine(instruments, limits, order_ids=lambda: f"{prefix}-{next(numbers)}")
        for index in range(4):
            risk.set_quote(index, 99.99, 100.01, 1)
        table = OrderTable()

        def hear(update: BrokerUpdate) -> Sequence[OrderEvent]:
            events = table.apply(update, 1)
            for event in events:
                order = table.get(event.client_order_id)
                assert order is not None
                risk.apply(event, order)
            return events

        gateway = Gateway(broker, table, journal, hear=hear, now_ns=time.time_ns)
        sender, receiver = open_mailbox[Outgoing](1000)
        await nursery.start(lambda task_status: gateway.run_updates(task_status=task_status))
        nursery.start_soon(gateway.run_orders, receiver)
        sent: list[Outgoing] = []
        start = trio.current_time()
        for number in range(orders):
            if rate is not None:
                await trio.sleep_until(start + number / rate)
            signal = Signal(instruments.ids[number % 4], (Side.BUY, Side.SELL)[number // 4 % 2], 1, strategy_id="s")
            stamp = time.perf_counter_ns()
            (decision,) = risk.evaluate(signal, now_ns=time.time_ns(), ts_signal=time.time_ns())
            assert isinstance(decision, ApprovedOrder), decision
            table.add(decision.order)
            item = Outgoing(decision, stamp, time.perf_counter_ns())
            sent.append(item)
            await sender.send(item)
        with trio.fail_after(60):
            while gateway.statistics().acknowledged < orders or list(table.working()):
                await trio.sleep(0.002)
        nursery.cancel_scope.cancel()
    return sent


def wire_cases(quick: bool) -> Iterator[Row]:
    paced, flood = (100, 300) if quick else (1_500, 5_000)
    with venue() as url, tempfile.TemporaryDirectory() as folder:

        async def durable(orders: int, rate: float | None) -> list[Outgoing]:
            path = Path(folder) / f"{time.time_ns()}.sqlite"
            async with open_journal(path, account="bench", lock_folder=Path(folder)) as journal:
                return await run_flow(url, journal, orders, rate)

        async def in_memory(orders: int, rate: float | None) -> list[Outgoing]:
            return await run_flow(url, MemoryJournal(), orders, rate)

        trio.run(durable, 100, None)
        for name, run, gate in (("no journal", in_memory, 1.0), ("durable journal", durable, 5.0)):
            items = trio.run(run, paced, 100.0)
            to_wire = sorted((item.t6 - item.t0) / 1e6 for item in items)
            acknowledged = sorted((item.t7 - item.t4) / 1e6 for item in items)
            case = f"100 orders/s, {name}"
            yield Row(case, "signal to wire p99", percentile(to_wire, 0.99), "ms", gate=gate)
            yield Row(case, "acknowledged p50", percentile(acknowledged, 0.5), "ms", gate=2.0)
            yield Row(case, "acknowledged p99", percentile(acknowledged, 0.99), "ms", gate=20.0)
        for name, run in (("no journal", in_memory), ("durable journal", durable)):
            rates = []
            for _ in range(1 if quick else 3):
                items = trio.run(run, flood, None)
                rates.append(len(items) / (max(item.t7 for item in items) - items[0].t4) * 1e9)
            gate = 1_000.0 if name.startswith("durable") else None
            yield Row(f"20 in flight, {name}", "acknowledged", sorted(rates)[len(rates) // 2], "orders/s", gate=gate,
                      aim=2_000.0, at_most=False)  # fmt: skip


def cases(quick: bool) -> Iterator[Row]:
    yield from pure_cases(quick)
    yield from wire_cases(quick)


if __name__ == "__main__":
    raise SystemExit(main("orders", cases))
