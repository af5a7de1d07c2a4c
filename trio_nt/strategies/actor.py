"""One strategy live: its reader of the ring, its news of its own orders, its timers.

Rules
- A turn is one synchronous step. It is given at most as many rows as fit the step budget, from the measured cost of
  a row, so that no backlog makes a step longer than the budget.
- What the turn caused leaves for risk when the turn ends. Nobody waits for a strategy: news of its orders that it does
  not take fails it.
- Handlers of one strategy never overlap: an ``async`` handler holds the turn until it returns.
"""

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import trio

from scheduler import Batch, BroadcastReceiver, MailboxReceiver, MailboxSender
from trio_nt.model.actions import Action
from trio_nt.model.events import OrderEvent
from trio_nt.model.instruments import Instruments
from trio_nt.model.market import Column
from trio_nt.stamps import StageRecorder
from trio_nt.strategies.runner import Block, Caused, Steps, StrategyRunner, run_plain

FIRST_ROWS = 16


class Proposal(NamedTuple):
    """An action on its way to risk. ``t0`` and ``t3`` are stamps (``perf_counter_ns``)."""

    action: Action
    ts_signal: int
    t0: int
    t3: int


class FeatureSource(Protocol):
    def of(self, specs: Any, batch: Batch) -> dict[str, Column]: ...


class StepBudget:
    """How many rows a step may take: what fits ``budget_s``, growing at most twofold. Pure."""

    __slots__ = ("_budget_ns", "_cost_ns", "rows", "slowest_ns")

    def __init__(self, budget_s: float) -> None:
        self._budget_ns = budget_s * 1e9
        self._cost_ns = 0.0
        self.rows = FIRST_ROWS
        self.slowest_ns = 0

    def measured(self, rows: int, elapsed_ns: int) -> None:
        """Take account of a step."""
        self.slowest_ns = max(self.slowest_ns, elapsed_ns)
        cost = elapsed_ns / rows
        # Up at once, down slowly: a batch too long breaks the promise to others, one too short costs a step.
        self._cost_ns = cost if cost > self._cost_ns else 0.9 * self._cost_ns + 0.1 * cost
        self.rows = max(1, min(int(self._budget_ns / max(self._cost_ns, 1.0)), 2 * self.rows))


class StrategyActor:
    """Runs one strategy. ``run_market``, ``run_news`` and ``run_timers`` are its loops."""

    def __init__(
        self,
        runner: StrategyRunner,
        receiver: BroadcastReceiver,
        features: FeatureSource,
        news: MailboxReceiver[OrderEvent],
        proposals: MailboxSender[Proposal],
        *,
        blocks: "BlockCache",
        t0: Column,
        t2: Column,
        signal: StageRecorder,
        now_ns: Callable[[], int],
        budget_s: float,
    ) -> None:
        self.runner = runner
        self.budget = StepBudget(budget_s)
        self._receiver = receiver
        self._features = features
        self._news = news
        self._proposals = proposals
        self._blocks = blocks
        self._t0, self._t2 = t0, t2
        self._signal = signal
        self._now_ns = now_ns
        self._turn: AbstractAsyncContextManager[Any] = trio.Lock() if runner.is_async else nullcontext()
        self.proposed = 0
        self._last_row = 0
        self._timers_changed = trio.Event()

    async def start(self) -> None:
        await self._call(lambda out: self.runner.start(self._now_ns(), out))

    async def stop(self) -> None:
        await self._call(lambda out: self.runner.stop(self._now_ns(), self._last_row, out))

    async def run_market(self) -> None:
        """Take rows until the ring ends."""
        while True:
            try:
                batch = await self._receiver.receive(self.budget.rows)
            except trio.EndOfChannel:
                return
            async with self._turn:
                started = time.perf_counter_ns()
                block = self._blocks.of(batch)
                features = self._features.of(self.runner.feature_specs, batch)
                out: list[Caused] = []
                rows = self.runner.feature_rows(features, len(batch))
                await self._drive(self.runner.window(block, 0, len(batch), features, rows, out))
                ended = time.perf_counter_ns()
                self._last_row = len(batch) - 1
                t2 = int(self._t2[batch.slot + self._last_row])
                self._signal.record(ended - t2, len(batch))
                self.budget.measured(len(batch), ended - started)
                t0 = self._t0[batch.slot : batch.slot + len(batch)]
                proposals = [Proposal(one.action, one.at_ns, int(t0[one.row]), ended) for one in out]
            await self._propose(proposals)

    async def run_news(self) -> None:
        """Tell the strategy what happens to its orders until nobody can send any more."""
        while True:
            try:
                events = await self._news.receive_batch()
            except trio.EndOfChannel:
                return
            for event in events:
                await self._call(lambda out, event=event: self._heard(event, out))  # type: ignore[misc]

    def _heard(self, event: OrderEvent, out: list[Caused]) -> Steps:
        return self.runner.order_event(event, self._now_ns(), self._last_row, out)

    async def run_timers(self) -> None:
        """Fire the strategy's timers by the engine's clock."""
        while True:
            at_ns = self.runner.next_timer_ns
            changed = self._timers_changed
            wait_s = math.inf if at_ns is None else max(0, at_ns - self._now_ns()) / 1e9
            with trio.move_on_after(wait_s) as waited:
                await changed.wait()
            if waited.cancelled_caught:
                await self._call(lambda out: self.runner.timers(self._now_ns(), self._last_row, out))

    async def _call(self, call: Callable[[list[Caused]], Steps]) -> None:
        out: list[Caused] = []
        async with self._turn:
            await self._drive(call(out))
        ended = time.perf_counter_ns()
        await self._propose([Proposal(one.action, one.at_ns, 0, ended) for one in out])

    async def _drive(self, steps: Steps) -> None:
        timer = self.runner.next_timer_ns
        if self.runner.is_async:
            await _drive_async(steps)
        else:
            run_plain(steps)
        if self.runner.next_timer_ns != timer:
            self._timers_changed.set()
            self._timers_changed = trio.Event()

    async def _propose(self, proposals: Sequence[Proposal]) -> None:
        if proposals:
            self.proposed += len(proposals)
            await self._proposals.send_batch(proposals)


async def _drive_async(steps: Steps) -> None:
    try:
        awaitable: Awaitable[Any] = next(steps)
        while True:
            try:
                answer = await awaitable
            except Exception as error:  # noqa: BLE001 - handed back to where it was awaited
                awaitable = steps.throw(error)
            else:
                awaitable = steps.send(answer)
    except StopIteration:
        return


class BlockCache:
    """The last blocks, so that strategies which are given the same rows share what is made of them."""

    __slots__ = ("_blocks", "_instruments")
    _KEPT = 8

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self._blocks: dict[tuple[int, int], Block] = {}

    def of(self, batch: Batch) -> Block:
        key = (batch.sequence, len(batch))
        block = self._blocks.get(key)
        if block is None:
            if len(self._blocks) >= self._KEPT:
                del self._blocks[next(iter(self._blocks))]
            block = self._blocks[key] = Block(batch.columns, self._instruments)
        return block
