"""An engine's order side alone, trading as fast as it can against a venue until it is killed.

A trader restores its journal, reconciles, then sends market orders, resting orders, stops, cancels and replaces. To
settle, it sends nothing new: it cancels what works, waits until every order has its end, and tells what it knows.
"""

import itertools
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from forking import Doomed, Task, serve, truth

from scheduler.mailbox import open_mailbox
from trio_nt.errors import ExecutionError
from trio_nt.exchange.market import venue_instruments
from trio_nt.execution.alpaca import open_alpaca
from trio_nt.execution.gateway import Gateway, GatewaySettings, Outgoing
from trio_nt.execution.lookup import LookupSettings
from trio_nt.execution.orders import OrderTable
from trio_nt.execution.recovery import Reconciler, restore
from trio_nt.model.actions import Action, Cancel, OrderType, Replace, Signal
from trio_nt.model.decisions import ApprovedOrder
from trio_nt.model.events import Filled, OrderEvent, Refused
from trio_nt.model.instruments import Side
from trio_nt.model.orders import BrokerUpdate, OrderState
from trio_nt.portfolio import Portfolio
from trio_nt.risk.core import RiskEngine
from trio_nt.risk.limits import RiskLimits, SelfTrade
from trio_nt.storage.durable import DurableJournal, open_journal
from trio_nt.storage.journal import Heard

INSTRUMENTS = venue_instruments(4, maker_fee=Decimal(0), taker_fee=Decimal("0.0001"))
PREFIX = "crash-"
MOST_RESTING = 40  # no limit of risk's, which counts abandoned orders as well: they add up


class Trader:
    """Risk, table and portfolio around a gateway."""

    def __init__(self, broker: object, journal: DurableJournal, task: Task) -> None:
        numbers = itertools.count()
        self.now_ns = task.now_ns
        run = f"{PREFIX}{task.now_ns():x}-{os.getpid()}-"
        self.risk = RiskEngine(
            INSTRUMENTS,
            RiskLimits(
                submit_rate_per_s=None, stale_after_s=None, price_collar=None, max_open_orders=None,
                self_trade=SelfTrade.ALLOW, split_flips=False,
            ),
            order_ids=lambda: f"{run}{next(numbers)}",
        )  # fmt: skip
        for index in range(4):
            self.risk.set_quote(index, 100.0, 100.0, 0)
        self.table = OrderTable()
        self.portfolio = Portfolio(INSTRUMENTS)
        lookup = LookupSettings(grace_s=0.5, signal_valid_s=5)
        self.restored = restore(journal.recovered.records, self.table, self.risk, self.hear_at)
        self.gateway = Gateway(
            broker,  # type: ignore[arg-type]
            self.table,
            journal,
            hear=self.hear,
            now_ns=self.now_ns,
            settings=GatewaySettings(lookup=lookup, reconnect_s=0.01, reconnect_max_s=0.2),
            reconcile=lambda: self.reconciler.reconcile(),
            on_halt=lambda reason: print(f"halted: {reason}", flush=True),
        )
        self.reconciler = Reconciler(
            broker, self.table, self.risk,  # type: ignore[arg-type]
            hear=self.gateway.hear, now_ns=self.now_ns, prefix=PREFIX, halt=self.gateway.halt,
            since_ns=last_execution_ns(journal),
            settings=lookup,
        )  # fmt: skip
        self.sender, self.receiver = open_mailbox[Outgoing](1000)

    def hear(self, update: BrokerUpdate) -> Sequence[OrderEvent]:
        return self.hear_at(update, self.now_ns())

    def hear_at(self, update: BrokerUpdate, now_ns: int) -> Sequence[OrderEvent]:
        events = self.table.apply(update, now_ns)
        for event in events:
            order = self.table.get(event.client_order_id)
            assert order is not None
            self.risk.apply(event, order)
            if isinstance(event, Filled):
                self.portfolio.book(event.fill)
        return events

    def act(self, action: Action) -> None:
        for decision in self.risk.evaluate(action, now_ns=self.now_ns(), ts_signal=self.now_ns()):
            if isinstance(decision, Refused):
                continue
            if isinstance(decision, ApprovedOrder):
                self.table.add(decision.order)
            self.sender.send_nowait(Outgoing(decision))

    async def trade(self, seed: int) -> None:
        choose = random.Random(seed)
        while True:
            if self.sender.statistics().used < 900:
                self.act(self.choice(choose))
            await trio.sleep(0.003)

    def choice(self, choose: random.Random) -> Action:
        working = [order for order in self.table.working() if order.order_type is not OrderType.MARKET]
        is_full = len(working) > MOST_RESTING
        if working and (is_full or choose.random() < 0.3):
            order = choose.choice(working)
            if is_full or order.order_type is not OrderType.LIMIT or choose.random() < 0.5:
                return Cancel(order.client_order_id, strategy_id=order.strategy_id)
            return Replace(order.client_order_id, quantity=order.quantity + 1, strategy_id=order.strategy_id)
        side, instrument = choose.choice(list(Side)), choose.choice(INSTRUMENTS.ids)
        if choose.random() < 0.3:
            price = Decimal(1) if side is Side.BUY else Decimal(100_000)
            return Signal(instrument, side, 2, order_type=OrderType.LIMIT, limit_price=price, strategy_id="s")
        if choose.random() < 0.1:
            far = Decimal(100_000) if side is Side.BUY else Decimal(1)
            return Signal(instrument, side, 2, order_type=OrderType.STOP, stop_price=far, strategy_id="s")
        return Signal(instrument, side, choose.randint(1, 3), strategy_id="s")

    async def settle(self) -> None:
        with trio.move_on_after(60) as scope:
            while working := list(self.table.working()):
                for order in working:
                    if order.state in (OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED):
                        self.act(Cancel(order.client_order_id, strategy_id=order.strategy_id))
                await trio.sleep(0.05)
        if scope.cancelled_caught:
            print("stuck:", *self.table.working(), self.gateway.statistics(), flush=True)

    def told(self) -> dict[str, object]:
        positions = {instrument: self.risk.position(instrument) for instrument in INSTRUMENTS.ids}
        return {
            **truth(self.table, positions, self.reconciler.history),
            "executions": sorted(
                fill.execution_id for fills in self.portfolio.fills_by_order.values() for fill in fills
            ),
            "reserved": self.risk.exposure.open_orders(),
        }


def last_execution_ns(journal: DurableJournal) -> int:
    heard = [record.update for record in journal.recovered.records if isinstance(record, Heard)]
    return max((update.ts_event for update in heard if update.execution is not None), default=0)


async def main(task: Task) -> None:
    folder = Path(task.folder)
    async with (
        open_journal(
            folder / "journal.sqlite", account=task.url, lock_folder=folder, lock_wait_s=task.lock_wait_s
        ) as journal,
        open_alpaca(
            task.url, INSTRUMENTS, unix_s=lambda: task.now_ns() / 1e9, key="sim", secret="sim", timeout_s=2
        ) as broker,
        trio.open_nursery() as nursery,
    ):
        trader = Trader(Doomed(broker, task.die) if task.die else broker, journal, task)
        await connected(trader, nursery)
        nursery.start_soon(trader.gateway.run_orders, trader.receiver)
        print("trading", flush=True)
        if task.settle:
            await trader.settle()
            await journal.flush()
            print(json.dumps(trader.told()), flush=True)
            nursery.cancel_scope.cancel()
        else:
            nursery.start_soon(trader.trade, time.time_ns())
            if task.kill_first:
                await trio.sleep(0.1)
                trader.gateway.kill("the switch was thrown")


async def connected(trader: Trader, nursery: trio.Nursery) -> None:
    """Connect and reconcile; a venue that does not answer at first is asked again."""
    with trio.fail_after(60):
        while True:
            try:
                await nursery.start(lambda task_status: trader.gateway.run_updates(task_status=task_status))
                return
            except* (ExecutionError, trio.EndOfChannel, trio.BrokenResourceError):
                pass
            await trio.sleep(0.05)


if __name__ == "__main__":
    serve(sys.argv[1], main)
