"""A supervisor with nothing around it but rings, a mailbox to risk and a desk without orders."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import attrs
import numpy as np
import trio
from trio.testing import wait_all_tasks_blocked

from scheduler import MailboxReceiver, TaskPriority, open_mailbox
from trio_nt.feeds.market_ring import EngineSender, MarketRing, QuoteBoard
from trio_nt.feeds.market_ring import Sequence as RowSequence
from trio_nt.model.events import StrategyState, StrategyWarning
from trio_nt.model.instruments import Instrument, Instruments
from trio_nt.model.market import BAR_FIELDS
from trio_nt.model.orders import Order
from trio_nt.portfolio import Portfolio, PortfolioState
from trio_nt.stamps import SIGNAL, StageClock
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.supervision import Supervision, SupervisorSettings
from trio_nt.strategies.supervisor import StrategySupervisor

START_NS = 1_700_000_000_000_000_000


def now_ns() -> int:
    return START_NS + round(trio.current_time() * 1e9)


class NoFeatures:
    def require(self, specs: Any) -> None:
        if list(specs):
            raise ValueError("this feature cannot be computed")

    def of(self, specs: Any, batch: Any) -> dict[str, Any]:
        return {}


class NoDesk:
    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments

    def position(self, strategy_id: str, instrument_id: str) -> Decimal:
        return Decimal(0)

    def working_orders(self, strategy_id: str, instrument_id: str | None) -> Sequence[Order]:
        return []

    def portfolio(self) -> PortfolioState:
        return Portfolio(self._instruments).state()


class MemoryStates:
    """States in a dictionary, which outlives a rig; ``error`` is raised by the next save."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.error: Exception | None = None

    def load(self, strategy_id: str) -> bytes | None:
        return self.kept.get(strategy_id)

    def save(self, strategy_id: str, state: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.kept[strategy_id] = state


@attrs.define
class Handle:
    priority: TaskPriority


class PlainTasks:
    """Plain Trio tasks, and blocking calls in place: a mock clock jumps over what waits in a lane or a thread."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.running = 0
        self._nursery = nursery
        self._changed = trio.Event()

    def spawn(self, lane: TaskPriority, async_fn: Any, *args: Any, name: str) -> Any:
        async def run() -> None:
            try:
                await async_fn(*args)
            finally:
                self.running -= 1
                self.notify()

        self.running += 1
        self._nursery.start_soon(run, name=name)
        return Handle(lane)

    async def until(self, condition: Any) -> None:
        while not condition():
            await self._changed.wait()

    def notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def run_blocking(self, sync_fn: Any, *args: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return sync_fn(*args)


class Rig:
    """A running supervisor. ``send`` sends one row for each price; ``said`` is what it published."""

    def __init__(self, tasks: PlainTasks, capacity: int, settings: dict[str, Any], states: Any) -> None:
        instruments = Instruments([Instrument(id="ABC", symbol="ABC")])
        self.tasks = tasks
        self.market = MarketRing(capacity, stall_timeout_s=settings.pop("stall_timeout_s", None))
        self.bars = MarketRing(capacity, BAR_FIELDS)
        self.said: list[StrategyState | StrategyWarning] = []
        self.withdrawn: list[str] = []
        self.proposed: list[Any] = []
        self.stamps = StageClock()
        sender, self._proposals = open_mailbox[Any](settings.pop("signal_capacity", 1_000))
        self._sender = sender
        self.supervisor = StrategySupervisor(
            instruments,
            [(self.market, NoFeatures()), (self.bars, NoFeatures())],
            sender,
            tasks,
            settings=SupervisorSettings(**{"news_capacity": 100, "step_budget_s": 3600.0} | settings),
            signal=self.stamps.stage(SIGNAL),
            now_ns=now_ns,
            publish=self.said.append,
            decided=lambda: len(self.proposed),
            cancel_working=self._cancel_working,
            states=states,
        )
        self.market.on_stall = self.supervisor.stalled
        self.send_to = EngineSender(
            self.market,
            self.bars,
            instruments,
            QuoteBoard(1),
            now_ns=now_ns,
            sequence=RowSequence(),
            stamps=self.stamps,
        )
        self.supervisor.open(NoDesk(instruments))

    def add(self, strategy_id: str, strategy: Strategy, **supervision: Any) -> None:
        self.supervisor.add(strategy_id, strategy, Supervision(**supervision))

    async def send(self, *prices: float) -> None:
        values = np.array(prices)
        await self.send_to.quotes(instrument="ABC", ts_event=0, bid=values, ask=values, bid_size=1, ask_size=1)
        await wait_all_tasks_blocked()

    def states(self, strategy_id: str) -> list[str]:
        return [each.state for each in self.said if isinstance(each, StrategyState) and each.strategy_id == strategy_id]

    def warnings(self, strategy_id: str) -> list[str]:
        warned = [each for each in self.said if isinstance(each, StrategyWarning)]
        return [each.reason for each in warned if each.strategy_id == strategy_id]

    async def _cancel_working(self, strategy_id: str) -> None:
        self.withdrawn.append(strategy_id)

    async def take_proposals(self) -> None:
        """Risk's part: take everything."""
        receiver: MailboxReceiver[Any] = self._proposals
        while True:
            try:
                self.proposed += await receiver.receive_batch()
            except trio.EndOfChannel:
                return
            self.tasks.notify()

    async def close(self, timeout_s: float = 5) -> None:
        self.supervisor.let_end()
        self.market.sender.close()
        self.bars.sender.close()
        await self.supervisor.end_rings(timeout_s)
        await self.supervisor.end_news(timeout_s)
        self._sender.close()
        await self.tasks.until(lambda: not self.tasks.running)


@asynccontextmanager
async def open_rig(capacity: int = 1_000, states: Any = None, **settings: Any) -> AsyncIterator[Rig]:
    """A supervisor that ends with the block: strategies read their rings to the end first."""
    async with trio.open_nursery() as nursery:
        rig = Rig(PlainTasks(nursery), capacity, settings, states)
        rig.tasks.spawn(TaskPriority.CRITICAL, rig.take_proposals, name="risk")
        yield rig
        await rig.close()
