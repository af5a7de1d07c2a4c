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
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np
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


class Source(NamedTuple):
    """One ring as a strategy reads it: its reader, the features of its rows, their stamps, their shared blocks."""

    receiver: BroadcastReceiver
    features: FeatureSource
    blocks: "BlockCache"
    t0: Column
    t2: Column


class StrategyActor:
    """Runs one strategy. ``run_market``, ``run_bars``, ``run_news`` and ``run_timers`` are its loops."""

    def __init__(
        self,
        runner: StrategyRunner,
        market: Source,
        bars: Source,
        news: MailboxReceiver[OrderEvent],
        proposals: MailboxSender[Proposal],
        *,
        signal: StageRecorder,
        now_ns: Callable[[], int],
        budget_s: float,
    ) -> None:
        self.runner = runner
        self.budget = StepBudget(budget_s)
        self.proposed = 0
        self._market, self._bars = market, bars
        self._news = news
        self._proposals = proposals
        self._signal = signal
        self._now_ns = now_ns
        self._turn: AbstractAsyncContextManager[Any] = trio.Lock() if runner.is_async else nullcontext()
        self._last_row = 0
        self._timers_changed = trio.Event()

    async def start(self) -> None:
        await self._call(lambda out: self.runner.start(self._now_ns(), out))

    async def stop(self) -> None:
        await self._call(lambda out: self.runner.stop(self._now_ns(), self._last_row, out))

    def close(self) -> None:
        """Leave the rings."""
        self._market.receiver.close()
        self._bars.receiver.close()

    async def run_market(self) -> None:
        """Take quotes and trades until their ring ends, and the bars that came between them."""
        while True:
            try:
                batch = await self._market.receiver.receive(self.budget.rows)
            except trio.EndOfChannel:
                return
            async with self._turn:
                proposals = await self._show(batch, _take_nowait(self._bars.receiver, None))
            await self._propose(proposals)

    async def run_bars(self) -> None:
        """Take bars until their ring ends, and the quotes and trades that came before them."""
        while True:
            try:
                bars = await self._bars.receiver.receive()
            except trio.EndOfChannel:
                return
            async with self._turn:
                first = bars["sequence"][0]
                proposals: list[Proposal] = []
                batch = _take_nowait(self._market.receiver, self.budget.rows)
                while batch is not None and batch["sequence"][-1] < first:
                    proposals += await self._show(batch, None)
                    batch = _take_nowait(self._market.receiver, self.budget.rows)
                proposals += await self._show(batch, bars)
            await self._propose(proposals)

    async def _show(self, market: Batch | None, bars: Batch | None) -> list[Proposal]:
        """One turn: rows of both rings in the order of their sequence."""
        if self.runner.is_async:  # a handler that waits must not hold the senders back
            market, bars = market and market.copy(), bars and bars.copy()
        proposals: list[Proposal] = []
        for is_bars, start, stop in _in_order(market, bars):
            batch = bars if is_bars else market
            assert batch is not None
            await self._show_rows(self._bars if is_bars else self._market, batch, start, stop, proposals)
        return proposals

    async def _show_rows(self, source: Source, batch: Batch, start: int, stop: int, proposals: list[Proposal]) -> None:
        runner, count = self.runner, len(batch)
        started = time.perf_counter_ns()
        block = source.blocks.of(batch)
        features = source.features.of(runner.feature_specs, batch)
        out: list[Caused] = []
        await self._drive(runner.window(block, start, stop, features, runner.feature_rows(features, count), out))
        ended = time.perf_counter_ns()
        self._last_row = stop - 1
        self._signal.record(ended - int(source.t2[batch.slot + stop - 1]), stop - start)
        self.budget.measured(stop - start, ended - started)
        for caused in out:
            # A timer's action has no row that caused it, and so no t0.
            t0 = int(source.t0[batch.slot + caused.row]) if caused.row >= 0 else 0
            proposals.append(Proposal(caused.action, caused.at_ns, t0, ended))

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


def _take_nowait(receiver: BroadcastReceiver, max_items: int | None) -> Batch | None:
    try:
        return receiver.receive_nowait(max_items)
    except (trio.WouldBlock, trio.EndOfChannel):
        return None


def _in_order(market: Batch | None, bars: Batch | None) -> Iterator[tuple[bool, int, int]]:
    """Runs of rows of two rings in the order of their sequence: (is it bars, start, stop)."""
    if bars is None or market is None:
        batch = bars if market is None else market
        if batch is not None:
            yield market is None, 0, len(batch)
        return
    sequences = market["sequence"], bars["sequence"]
    at = [0, 0]
    while at[0] < len(market) or at[1] < len(bars):
        turn = at[1] < len(bars) and (at[0] == len(market) or sequences[1][at[1]] < sequences[0][at[0]])
        mine, other = int(turn), 1 - int(turn)
        stop = len(sequences[mine])
        if at[other] < len(sequences[other]):
            stop = int(np.searchsorted(sequences[mine], sequences[other][at[other]]))
        yield turn, at[mine], stop
        at[mine] = stop


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
