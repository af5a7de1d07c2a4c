"""One strategy live: its reader of the ring, its news of its own orders, its mailbox, its timers.

Rules
- A turn is one synchronous step. It is given at most as many rows as fit the step budget, from the measured cost of
  a row, so that no backlog makes a step longer than the budget.
- What the turn caused leaves for risk when the turn ends, also where it ended with an error or was cut short. Nobody
  waits for a strategy: news of its orders that it does not take fails it.
- Handlers of one strategy never overlap: an ``async`` handler holds the turn until it returns. It may wait on any row,
  so its turns are of one row, as in a replay.
- Rows, news, and messages with timers have a task each, in the strategy's lane: none of them waits behind the others'
  backlog. A message is never in the way of a stop, which cancels and does not queue.
- Rows come in the order of their sequence. Quotes and trades are taken by one task; bars are copied and wait until
  every row before them was shown.
"""

import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import trio

from scheduler import Batch, BroadcastReceiver, MailboxReceiver, MailboxSender, open_mailbox
from trio_nt.model.actions import Action
from trio_nt.model.events import OrderEvent
from trio_nt.model.instruments import Instruments
from trio_nt.model.market import Column, Columns, events_by_row
from trio_nt.stamps import StageRecorder
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.messages import Message, SaveState, TimersChanged, UpdateConfig
from trio_nt.strategies.pacing import Linger, drive_async
from trio_nt.strategies.runner import Block, Caused, Events, Steps, StrategyRunner, run_plain
from trio_nt.strategies.states import decode_state, encode_state

FIRST_ROWS = 16


class Proposal(NamedTuple):
    """An action on its way to risk. ``t0`` and ``t3`` are stamps (``perf_counter_ns``)."""

    action: Action
    ts_signal: int
    t0: int
    t3: int


class FeatureSource(Protocol):
    def require(self, specs: Any) -> None: ...
    def of(self, specs: Any, batch: Batch) -> dict[str, Column]: ...


class StepBudget:
    """How many rows a step may take: what fits ``budget_s``, growing at most twofold. Pure.

    A step costs a turn and its rows, and only their sum is seen. By that sum a single row can look as if two did not
    fit, when it is the turn that is dear, and rows taken one by one are then too slow for ever. So a step that fits
    may be followed by one of a row more than its cost says, unless so many were too long a short while ago.
    """

    __slots__ = ("_budget_ns", "_cost_ns", "_forgotten_in", "_too_many", "rows")
    _FORGET_AFTER = 64  # steps

    def __init__(self, budget_s: float) -> None:
        self._budget_ns = budget_s * 1e9
        self._cost_ns = 0.0
        self._too_many = math.inf  # rows
        self._forgotten_in = 0
        self.rows = FIRST_ROWS

    def measured(self, rows: int, elapsed_ns: int) -> None:
        """Take account of a step."""
        cost = elapsed_ns / rows
        # Up at once, as a batch too long breaks the promise to others; down within a few steps, as a turn costs as much
        # as ten rows: after a step that the machine interrupted, a strategy with single rows would fall behind.
        self._cost_ns = cost if cost > self._cost_ns else 0.5 * (self._cost_ns + cost)
        fits = int(self._budget_ns / max(self._cost_ns, 1.0))
        if elapsed_ns > self._budget_ns:
            self._too_many, self._forgotten_in = rows, self._FORGET_AFTER
        else:
            self._forgotten_in -= 1
            if self._forgotten_in <= 0:
                self._too_many = math.inf
            if rows + 1 < self._too_many:
                fits = max(fits, rows + 1)
        self.rows = max(1, min(fits, 2 * self.rows))


class Source(NamedTuple):
    """One ring as a strategy reads it: its reader, the features of its rows, their stamps, the rows as events.

    ``sent`` is how many rows its ring has had so far.
    """

    receiver: BroadcastReceiver
    features: FeatureSource
    rows: "SharedRows"
    t0: Column
    t2: Column
    sent: Callable[[], int]


class _WaitingBars(NamedTuple):
    """Bars that wait for the rows before them, in memory of their own; ``first`` is the first row not shown yet."""

    batch: Batch
    features: Mapping[str, Column]
    first: int


class StrategyActor:
    """Runs one strategy. ``run_market``, ``run_bars``, ``run_news`` and ``run_mailbox`` are its loops.

    Args:
        news, proposals: from and to the engine.
        make_runner: a runner of the strategy that takes this one's place when its configuration is changed, with its
            features required.
        on_step: told after every step how many rows it took (1 for any other handler) and how long, in ns.
        save: keeps a state that is not too large; a checkpoint.
        linger: None to take rows as soon as they are there.
    """

    def __init__(
        self,
        runner: StrategyRunner,
        market: Source,
        bars: Source,
        news: MailboxReceiver[OrderEvent],
        proposals: MailboxSender[Proposal],
        *,
        make_runner: Callable[[Strategy], StrategyRunner],
        signal: StageRecorder,
        now_ns: Callable[[], int],
        budget_s: float,
        mailbox_capacity: int,
        on_step: Callable[[int, int], None],
        save: Callable[[bytes], Awaitable[None]],
        linger: Linger | None = None,
    ) -> None:
        self.runner = runner
        self.budget = StepBudget(budget_s)
        self.mailbox, self._messages = open_mailbox[Message](mailbox_capacity)
        self.proposed = 0  # all of it reaches risk, or is counted by nobody: the engine is cancelled
        self.market_end, self.bars_end = market.sent(), bars.sent()
        self._market, self._bars = market, bars
        self._bars_waiting: deque[_WaitingBars] = deque()
        self._market_turn = trio.Event()
        self._unsent: deque[Proposal] = deque()
        self._news = news
        self._proposals = proposals
        self._signal = signal
        self._now_ns = now_ns
        self._turn: AbstractAsyncContextManager[Any] = trio.Lock() if runner.is_async else nullcontext()
        self._last_row = 0
        self._timers_noticed = False
        self._is_ending = False
        self._has_raised = False
        self._make_runner = make_runner
        self._on_step = on_step
        self._save = save
        self._linger = linger

    async def start(self, state: bytes | None = None) -> None:
        """Hand over a saved state, if there is one, and call ``on_start``."""
        await self._call(lambda out: self._begin(self.runner, state, out))

    async def stop(self) -> None:
        """Call ``on_stop``, then save what the strategy wants to be saved."""
        await self._call(lambda out: self.runner.stop(self._now_ns(), self._last_row, out))
        await self._save_state()

    def close(self) -> None:
        """Leave the rings."""
        self.keep_configuration()
        self._market.receiver.close()
        self._bars.receiver.close()

    def keep_configuration(self) -> None:
        """It is ending: no other configuration takes this one's place."""
        self._is_ending = True

    def close_mailbox(self) -> None:
        """Take no more messages; who waits for an answer hears that the strategy has ended. Twice does nothing more."""
        self.mailbox.close()
        while True:
            try:
                self._messages.receive_nowait().ended()
            except (trio.WouldBlock, trio.EndOfChannel):
                self._messages.close()
            except trio.ClosedResourceError:
                return

    async def run_market(self) -> None:
        """Take quotes and trades until their ring ends, and the bars that came between them."""
        while True:
            try:
                batch = await self._market.receiver.receive(1 if self.runner.is_async else self.budget.rows)
            except trio.EndOfChannel:
                return
            async with self._turn:
                await self._show_market(batch)
            await self.flush()
            if self._linger is not None and self.market_end == self._market.sent():
                await self._linger.wait()

    async def run_bars(self) -> None:
        """Take bars until their ring ends; show those that no quote or trade is before."""
        while True:
            try:
                bars = await self._bars.receiver.receive(self.budget.rows)
            except trio.EndOfChannel:
                return
            self._keep_bars(bars)
            async with self._turn:
                await self._show_last_bars()
            await self.flush()
            while self._bars_waiting:
                self._market_turn = trio.Event()
                await self._market_turn.wait()

    async def _show_market(self, batch: Batch) -> None:
        """One turn: rows of a batch, with the bars between them."""
        sequence, start = batch["sequence"], 0
        self._take_bars(int(sequence[-1]))
        while self._bars_waiting and start < len(batch):
            bars = self._bars_waiting[0]
            stop = int(np.searchsorted(sequence, bars.batch["sequence"][bars.first]))
            if stop > start:
                await self._show_rows(self._market, batch, start, stop, self._features(self._market, batch))
                start = stop
            if start < len(batch):
                await self._show_bars_before(int(sequence[start]))
        if start < len(batch):
            await self._show_rows(self._market, batch, start, len(batch), self._features(self._market, batch))
        self.market_end = batch.sequence + len(batch)
        await self._show_last_bars()
        self._market_turn.set()

    async def _show_last_bars(self) -> None:
        """Bars that wait for no row: later ones are in the hands of ``run_market``, which has rows to take."""
        while self._bars_waiting and self.market_end == self._market.sent():
            await self._show_bars_before(math.inf)

    async def _show_bars_before(self, sequence: float) -> None:
        """Show the first bars that wait, as far as they come before a sequence number."""
        bars = self._bars_waiting.popleft()
        batch, first, stop = bars.batch, bars.first, len(bars.batch)
        if sequence != math.inf:
            stop = int(np.searchsorted(batch["sequence"], sequence))
        if self.runner.is_async:
            stop = min(stop, first + 1)
        if stop < len(batch):
            self._bars_waiting.appendleft(bars._replace(first=stop))
        if stop > first:
            await self._show_rows(self._bars, batch, first, stop, bars.features)
        self.bars_end = batch.sequence + stop
        if self.runner.is_async:
            await self.flush()

    def _keep_bars(self, batch: Batch) -> None:
        features = {name: column.copy() for name, column in self._features(self._bars, batch).items()}
        self._bars_waiting.append(_WaitingBars(batch.copy(), features, 0))

    def _features(self, source: Source, batch: Batch) -> Mapping[str, Column]:
        return source.features.of(self.runner.feature_specs, batch)

    def _take_bars(self, until: int) -> None:
        """Take the bars that came before a sequence number, and at most one more."""
        while not self._bars_waiting or self._bars_waiting[-1].batch["sequence"][-1] < until:
            try:
                bars = self._bars.receiver.receive_nowait(1)  # the last one is held until the next
            except (trio.WouldBlock, trio.EndOfChannel):
                return
            self._keep_bars(bars)

    async def _show_rows(
        self, source: Source, batch: Batch, start: int, stop: int, features: Mapping[str, Column]
    ) -> None:
        runner, count = self.runner, len(batch)
        started = time.perf_counter_ns()
        block = source.rows.of(batch)
        ready = int(source.t2[batch.slot + stop - 1])
        out: list[Caused] = []
        slowest = 0
        try:
            slowest = await self._drive(
                runner.window(block, start, stop, features, runner.feature_rows(features, count), out)
            )
        finally:
            ended = time.perf_counter_ns()
            for caused in out:
                # A timer's action has no row that caused it, and so no t0.
                t0 = int(source.t0[batch.slot + caused.row]) if caused.row >= 0 else 0
                self._put(Proposal(caused.action, caused.at_ns, t0, ended))
        self._last_row = stop - 1
        self._signal.record(ended - ready, stop - start)
        self.budget.measured(stop - start, ended - started)
        # Time that an async handler waits for is nobody's step.
        self._on_step(stop - start, slowest if runner.is_async else ended - started)

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

    async def run_mailbox(self) -> None:
        """Do what messages say, and fire the strategy's timers by the engine's clock, until it is cancelled."""
        while True:
            at_ns = self.runner.next_timer_ns
            wait_s = math.inf if at_ns is None else max(0, at_ns - self._now_ns()) / 1e9
            with trio.move_on_after(wait_s) as waited:
                message = await self._messages.receive()
            if waited.cancelled_caught:
                await self._call(lambda out: self.runner.timers(self._now_ns(), self._last_row, out))
            else:
                await self._obey(message)

    async def _obey(self, message: Message) -> None:
        try:
            if isinstance(message, UpdateConfig):
                await self._update(message)
            elif isinstance(message, SaveState):
                await self._save_state()
                message.done()
            else:
                self._timers_noticed = False
        finally:
            message.ended()

    async def _update(self, message: UpdateConfig) -> None:
        """Put a rebuilt strategy in this one's place between two steps; on an error everything stays as it was."""
        out: list[Caused] = []
        async with self._turn:
            if self._is_ending:
                return
            try:
                state = self.runner.strategy.save_state()
                kept = None if state is None else encode_state(state)
                runner = self._make_runner(message.strategy)
                slowest = await self._drive(self._begin(runner, kept, out))
            except Exception as error:  # noqa: BLE001 - whatever the new one raises is told to who wants it
                self._has_raised = False
                message.failed(error)
                return
            runner.rows_seen, runner.signals = self.runner.rows_seen, self.runner.signals + runner.signals
            self.runner = runner
            self._propose(out)
            self._on_step(1, slowest)
        await self.flush()
        message.done()

    def _begin(self, runner: StrategyRunner, state: bytes | None, out: list[Caused]) -> Steps:
        if state is not None:
            runner.strategy.restore_state(decode_state(state))
        return runner.start(self._now_ns(), out)

    async def _save_state(self) -> None:
        async with self._turn:
            started = time.perf_counter_ns()
            state = self.runner.strategy.save_state()
            kept = None if state is None else encode_state(state)
            self._on_step(1, time.perf_counter_ns() - started)
        if kept is not None:
            await self._save(kept)

    async def _call(self, call: Callable[[list[Caused]], Steps]) -> None:
        out: list[Caused] = []
        async with self._turn:
            slowest = 0
            try:
                slowest = await self._drive(call(out))
            finally:
                self._propose(out)
            self._on_step(1, slowest)
        await self.flush()

    async def _drive(self, steps: Steps) -> int:
        """Call handlers, unless one has raised; how long the longest step of them took, in ns."""
        if self._has_raised:
            return 0  # its other tasks may take a step before they are cancelled: one failure is to be told
        timer = self.runner.next_timer_ns
        started = time.perf_counter_ns()
        try:
            if self.runner.is_async:
                slowest = await drive_async(steps)
            else:
                run_plain(steps)
                slowest = time.perf_counter_ns() - started
        except Exception:
            self._has_raised = True
            raise
        self._notice_timers(timer)
        return slowest

    def _notice_timers(self, before_ns: int | None) -> None:
        """Have ``run_mailbox`` look at the timers again where the next one is another than before."""
        if self.runner.next_timer_ns == before_ns or self._timers_noticed:
            return
        self._timers_noticed = True
        try:
            self.mailbox.send_nowait(TimersChanged())
        except (trio.WouldBlock, trio.ClosedResourceError):
            self._timers_noticed = False  # it looks after every message, and a full mailbox has some

    def _propose(self, out: list[Caused]) -> None:
        ended = time.perf_counter_ns()
        for caused in out:
            self._put(Proposal(caused.action, caused.at_ns, 0, ended))

    def _put(self, proposal: Proposal) -> None:
        self.proposed += 1
        self._unsent.append(proposal)

    async def flush(self) -> None:
        """Send what was caused to risk; a checkpoint where it waits. Cancelled, the rest is kept for the next call."""
        while self._unsent:
            proposal = self._unsent.popleft()
            try:
                try:
                    self._proposals.send_nowait(proposal)
                except trio.WouldBlock:
                    await self._proposals.send(proposal)
            except trio.Cancelled:
                self._unsent.appendleft(proposal)
                raise


class SharedRows:
    """A ring's rows as events, each made once, whichever strategies take it in batches of whatever length.

    Beside the ring's columns stands a list of events with as many places, filled by the strategy that is ahead. It
    holds a run of rows without a gap; a strategy that is behind it, or that jumped ahead, has events of its own made.
    Strategies that are given the same batch, one after another, share its block.
    """

    __slots__ = ("_batch", "_block", "_end", "_events", "_first", "_instruments")

    def __init__(self, instruments: Instruments, capacity: int) -> None:
        self._instruments = instruments
        self._events: Events = [None] * capacity
        self._first = self._end = 0  # the rows that the list holds
        self._batch: Batch | None = None
        self._block: Block

    def of(self, batch: Batch) -> Block:
        """A batch of the ring as strategies are shown it."""
        if batch is not self._batch:
            self._batch, self._block = batch, Block(batch.columns, self._instruments, partial(self._events_of, batch))
        return self._block

    def _events_of(self, batch: Batch) -> Events:
        start, end = batch.sequence, batch.sequence + len(batch)
        if start < self._first:
            return events_by_row(batch.columns, self._instruments.ids)
        if start > self._end:
            self._first = self._end = start
        if end > self._end:
            known = self._end - start
            news: Columns = batch.columns
            if known:
                news = {name: column[known:] for name, column in news.items()}
            self._events[batch.slot + known : batch.slot + len(batch)] = events_by_row(news, self._instruments.ids)
            self._end = end
            self._first = max(self._first, end - len(self._events))
        return self._events[batch.slot : batch.slot + len(batch)]
