"""The wiring of the stages, and nothing else: the only module that knows every one of them.

    venue ──► feeds ──ring──► features ──► strategies ──Proposal──► risk ──Outgoing──► execution ──► broker
                                               ▲                                          │
                                               └────────────── news of own orders ◄───────┘

Closing runs down the same way: feeds end, the ring is drained, strategies stop, working orders are handled as
configured, risk and execution empty their mailboxes, the journal is flushed. One task of the engine's own does it, once
every feed has ended or somebody asked for the end; whoever waits for it may go away.
"""

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import attrs
import trio

from scheduler import (
    Scheduler,
    TaskPriority,
    open_mailbox,
    open_watch,
)
from trio_nt.desk import Desk
from trio_nt.engine_config import EngineConfig, EngineStatistics
from trio_nt.engine_feeds import EngineFeeds
from trio_nt.engine_recovery import ORDER_PREFIX, EngineRecovery
from trio_nt.engine_tasks import EngineTasks
from trio_nt.errors import JournalError
from trio_nt.event_bus import EventBus, EventReceiver
from trio_nt.execution.gateway import Gateway, Outgoing
from trio_nt.features.board import FeatureBoard
from trio_nt.features.history import MarketHistory
from trio_nt.features.pipeline import FeaturePipeline
from trio_nt.features.stage import FeatureOrder, FeatureStage
from trio_nt.feeds.base import Feed
from trio_nt.feeds.market_ring import EngineSender, MarketRing, QuoteBoard
from trio_nt.feeds.market_ring import Sequence as RowSequence
from trio_nt.model.actions import Action, Cancel, target
from trio_nt.model.broker import Broker
from trio_nt.model.events import Event, Filled, Halted, OrderEvent
from trio_nt.model.instruments import Instrument
from trio_nt.model.market import BAR_FIELDS
from trio_nt.model.memory import MemorySource
from trio_nt.model.orders import EXTERNAL, BrokerUpdate, Order
from trio_nt.portfolio import Portfolio, PortfolioState
from trio_nt.report import Report
from trio_nt.risk.core import RiskEngine
from trio_nt.risk.limits import TradingState
from trio_nt.risk.stage import Proposed, RiskStage
from trio_nt.stamps import FEATURES, SIGNAL, StageClock
from trio_nt.storage.journal import HaltNote, Journal
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.naming import by_id
from trio_nt.strategies.requirements import check_features, find_instruments
from trio_nt.strategies.states import StateStore
from trio_nt.strategies.supervised import SupervisedStrategy
from trio_nt.strategies.supervision import Supervision
from trio_nt.strategies.supervisor import StrategySupervisor

HISTORY_EVERY_S = 0.005
REFUSALS_KEPT = 10_000  # a strategy may be refused thousands of times a second, for days
_log = logging.getLogger("trio_nt.engine")
CRITICAL = TaskPriority.CRITICAL


class Engine:
    """One engine, made by ``open_engine``. Its methods belong to the Trio thread that opened it."""

    def __init__(
        self,
        config: EngineConfig,
        scheduler: Scheduler,
        nursery: trio.Nursery,
        broker: Broker,
        feeds: Sequence[Feed],
        journal: Journal,
        now_ns: Callable[[], int],
        states: StateStore | None = None,
        memory: MemorySource | None = None,
        *,
        pipeline: FeaturePipeline,
    ) -> None:
        self.config = config
        self.instruments = config.instruments
        self.stamps = StageClock()
        self.assumptions: list[str] = []
        self.started_ns = 0
        self.initial_cash: Mapping[str, Decimal] = {}
        self._ended_ns = 0
        self.halted = ""
        self.broker = broker
        self.journal = journal
        self.feeds = list(feeds)
        self.market = MarketRing(config.market_capacity, stall_timeout_s=config.stall_timeout_s)
        self.bars = MarketRing(config.market_capacity, BAR_FIELDS, stall_timeout_s=config.stall_timeout_s)
        self.board = QuoteBoard(len(config.instruments))
        self.desk: Desk
        self.gateway: Gateway
        self.recovery: EngineRecovery
        self._now_ns = now_ns
        self._scheduler = scheduler
        self._nursery = nursery
        self.tasks = EngineTasks(scheduler, nursery)
        self._bus: EventBus[Event] = EventBus(config.event_capacity)
        self._portfolio_sender, self.portfolio = open_watch(PortfolioState({}, {}, {}, {}, {}, 0))
        self._proposals, self._proposals_receiver = open_mailbox[Proposed](config.signal_capacity)
        self._outgoing, self._outgoing_receiver = open_mailbox[Outgoing](config.order_capacity)
        self._outbox: list[Outgoing] = []
        self._pipeline = pipeline
        self.features = FeatureBoard(
            self._pipeline,
            self.instruments,
            history_rows=config.feature_history,
            limit_bytes=config.feature_cache_bytes,
        )
        self._feature_order = FeatureOrder(self._pipeline, self.features)
        self._features = [self._feature_stage(ring) for ring in (self.market, self.bars)]
        self._risk: RiskStage
        self._state = "new"
        self._stopping = trio.Event()
        self._closed = trio.Event()
        self._sequence = RowSequence()
        self._feeds = EngineFeeds(
            self.feeds,
            self._sender,
            self.tasks,
            stopping=self._stopping,
            publish=self._bus.publish,
            now_ns=now_ns,
            rows_sent=lambda: self.market.rows_sent + self.bars.rows_sent,
            rows_unseen=self._rows_unseen,
        )
        self.supervisor = StrategySupervisor(
            config.instruments,
            list(zip((self.market, self.bars), self._features, strict=True)),
            self._proposals,
            self.tasks,
            settings=config.supervisor,
            signal=self.stamps.stage(SIGNAL),
            now_ns=now_ns,
            publish=self._bus.publish,
            decided=lambda: self._risk.decided,
            cancel_working=self._cancel_working,
            states=states,
            memory=memory,
        )
        self.market.on_stall = self.bars.on_stall = self.supervisor.stalled

    # -- starting --

    def add_strategy(
        self, strategy_id: str, strategy: Strategy, *, supervision: Supervision | None = None, **settings: Any
    ) -> None:
        """Add a strategy; in a running engine it joins at the next batch.

        Args:
            supervision: how it is supervised; None for what the configuration says of this id.
            settings: single settings of ``Supervision`` over that: ``restart="on-failure"``.

        Raises:
            ValueError: the id is in use.
            InvalidStrategy: a feature's window is longer than ``EngineConfig.longest_window``, or it reads a field that
                no feed has, where all of them announce their ``kinds``. Nothing was added.
            TypeError: it is no ``Strategy``, a feature is no ``FeatureSpec``, or a setting is none.
            KeyError: it names an instrument that the engine does not know.
            trio.ClosedResourceError: the engine is closing.
        """
        by_id({strategy_id: strategy})
        if supervision is None:
            supervision = self.config.supervision.get(strategy_id, Supervision())
        supervision = attrs.evolve(supervision, **settings)
        if self._state not in ("new", "starting", "running"):
            raise trio.ClosedResourceError("the engine is closing: no strategy can join it")
        find_instruments(strategy, self.instruments)
        check_features(strategy_id, strategy, self._pipeline)
        self.supervisor.add(strategy_id, strategy, supervision)

    async def start(self) -> None:
        """Recover from the journal, compare with the broker, start strategies, then feeds.

        Returns when all feeds are connected, or when the end was asked for meanwhile. A journal that is HALTED, or what
        the comparison finds, may leave the engine halted: see ``halted``.

        Raises:
            RuntimeError: it was started before, or a feed has ended without saying that it was connected.
            FeedError, ExecutionError: a feed or the broker could not be reached.
        """
        if self._state != "new":
            raise RuntimeError("an engine is started once")
        self._state = "starting"
        self.started_ns = self._now_ns()
        bind = getattr(self.broker, "bind", None)
        if bind is not None:
            bind(self.instruments)
        risk = RiskEngine(
            self.instruments,
            self.config.limits,
            strategy_limits=self.config.strategy_limits,
            order_ids=_order_ids(self.started_ns, self.journal.recovered.last_sequence + 1),
            rules=self.config.rules,
        )
        books = Portfolio(self.instruments)
        self.desk = Desk(self.instruments, risk, books, keep_refusals=REFUSALS_KEPT)
        self.recovery = EngineRecovery(self.desk, self.journal, now_ns=self._now_ns, on_unknown=self._on_unknown)
        self.recovery.restore()
        self.gateway = Gateway(
            self.broker,
            self.desk.orders,
            self.journal,
            hear=self._hear,
            now_ns=self._now_ns,
            stamps=self.stamps,
            settings=self.config.gateway,
            reconcile=self.recovery.reconcile,
            on_halt=self._on_halt,
        )
        self.recovery.connect(self.broker, self.gateway, self.config.gateway.lookup)
        if self.journal.halted:
            self.gateway.halt(f"the journal is HALTED: {self.journal.halted}")
        self._risk = RiskStage(
            self._proposals_receiver, refresh=self._refresh_prices, decide=self._decide, stamps=self.stamps
        )
        await self.tasks.start(CRITICAL, self.gateway.run_updates, name="execution: updates", endless=True)
        self.initial_cash = dict(await self.recovery.cash())
        risk.set_cash(self.initial_cash)
        self.desk.books.set_cash(self.initial_cash)
        self._portfolio_sender.set(self.desk.portfolio())
        self.tasks.spawn(CRITICAL, self._watch_journal, name="journal: watch", endless=True)
        self.tasks.spawn(CRITICAL, self.gateway.run_orders, self._outgoing_receiver, name="execution: orders")
        self.tasks.spawn(CRITICAL, self._run_risk, name="risk")
        observe = getattr(self.broker, "observe", None)
        if observe is not None:
            for ring in (self.market, self.bars):
                self.tasks.spawn(
                    CRITICAL, _show_market, ring.subscribe("simulated venue"), observe, name="simulated venue"
                )
        self.tasks.spawn(
            TaskPriority.BACKGROUND,
            self.recovery.carry_now_and_then,
            self.config.sum_up_every_s,
            name="journal: summaries",
            endless=True,
        )
        self._state = "running"
        self.supervisor.open(self.desk)
        self._nursery.start_soon(self._close_when_stopping)
        if self._pipeline.plan.requested:
            await self._scheduler.run_blocking(self._pipeline.prepare, self.config.on_progress)
        await self._feeds.start()

    def _feature_stage(self, ring: MarketRing) -> FeatureStage:
        ring.followers.append(self._feature_order.advance)
        return FeatureStage(
            self._feature_order,
            ring.subscribe("features"),
            ring.capacity,
            t1=ring.t1,
            t2=ring.t2,
            recorder=self.stamps.stage(FEATURES),
        )

    # -- what hosts read and say --

    @property
    def supervised(self) -> Mapping[str, SupervisedStrategy]:
        """Every strategy that was started, by id."""
        return self.supervisor.entries

    @property
    def ran_s(self) -> float:
        """Seconds from the start to now, or to the beginning of the end."""
        return ((self._ended_ns or self._now_ns()) - self.started_ns) / 1e9

    @asynccontextmanager
    async def open_history(self, *, depth: int) -> AsyncIterator[MarketHistory]:
        """Keep the last ``depth`` quotes and trades of each instrument while the block runs: research, MEDIUM lane."""
        history = MarketHistory(depth, instrument_count=len(self.instruments))
        receiver = self.market.subscribe("history")
        scope = trio.CancelScope()

        async def keep() -> None:
            with scope, receiver:
                async for batch in receiver:
                    history.append(batch.columns)
                    await trio.sleep(HISTORY_EVERY_S)  # fewer, longer batches: nobody waits for these

        self.tasks.spawn(TaskPriority.MEDIUM, keep, name="history")
        try:
            yield history
        finally:
            scope.cancel()

    def events(self) -> EventReceiver[Event]:
        """Subscribe to everything that happens from now on: orders, fills, refusals, strategy and feed states."""
        return self._bus.subscribe()

    def statistics(self) -> EngineStatistics:
        """Counters, frozen. Raises RuntimeError where the engine was not started."""
        self._check_started()
        return EngineStatistics(
            rows=self.market.rows_sent,
            flagged=self.market.flagged + self.bars.flagged,
            bars=self.bars.rows_sent,
            strategies={name: entry.state for name, entry in self.supervised.items()},
            supervision=self.supervisor.statistics(),
            proposals=self._risk.decided,
            approved=self.desk.approved,
            refused=self.desk.refused.total(),
            fills=self.desk.books.fills - self.recovery.fills,
            gateway=self.gateway.statistics(),
            scheduler=self._scheduler.statistics(),
            features=self.features.statistics(),
            feature_cache=self.features.cache_statistics(),
        )

    def stop(self) -> None:
        """Ask for the end: the engine closes in order, in the background. Not a checkpoint."""
        self._stopping.set()

    async def wait(self) -> Report:
        """Wait until every feed has ended or ``stop`` was called and the engine has closed; report. A checkpoint.

        Raises:
            RuntimeError: the engine was closed without having been started.
        """
        await self._closed.wait()
        return self.report()

    def report(self) -> Report:
        """What happened up to now. Raises RuntimeError where the engine was not started."""
        self._check_started()
        self._refresh_prices()
        from trio_nt.engine_report import report_of

        return report_of(self)

    async def stop_strategy(self, strategy_id: str) -> None:
        """Stop one strategy after its current step; its ``on_stop`` is called. Returns when it has stopped.

        An ``async`` handler that waits is cancelled there. What the strategy did before reaches risk.

        Its working orders stay as they are. Raises KeyError for an unknown id.
        """
        await self.supervisor.stop(strategy_id)

    async def restart_strategy(self, strategy_id: str) -> None:
        """Start a fresh strategy of the same configuration, after stopping the one that runs. A checkpoint.

        It gets the state that was saved last, reads positions and orders from the engine, and joins at the next batch.

        Raises:
            KeyError: an unknown id.
            trio.ClosedResourceError: the engine is closing.
        """
        if self._state != "running":
            raise trio.ClosedResourceError("the engine is not running: no strategy can be restarted")
        await self.supervisor.restart(strategy_id)

    async def update_strategy(self, strategy_id: str, changes: Mapping[str, Any]) -> None:
        """Give a strategy another configuration between two of its steps; it misses no event. A checkpoint.

        A strategy is made from its first configuration with ``changes`` (values as in a configuration file, or objects
        of the field's type), is given what the old one's ``save_state`` returns and its own ``on_start``, and takes the
        old one's place; the old one's timers go with it, its ``on_stop`` is not called. One that does not run
        begins its next life with it.

        Raises:
            InputError: an unknown field, or a value that does not fit it.
            Exception: what the new strategy's class, its features or its ``on_start`` raised. The old one goes on.
            KeyError: an unknown id.
            trio.BrokenResourceError: it ended before that.
        """
        await self.supervisor.update(strategy_id, changes)

    async def save_strategies(self) -> None:
        """Have every running strategy save its state now. A checkpoint."""
        await self.supervisor.save()

    async def halt(self, reason: str = "halted by the host") -> None:
        """The kill switch: nothing but cancels leaves any more, and every working order is cancelled, past every queue.

        The journal is marked HALTED: also the next engine stays halted until a person releases it. Returns when the
        cancels are on their way. A checkpoint.
        """
        self._check_started()
        self.gateway.kill(reason)
        await trio.lowlevel.checkpoint()

    async def flatten(self) -> None:
        """Cancel working orders and close every position at the market; from then on only reduce. A checkpoint.

        Returns when the closing orders are on their way. They are made when the working orders have ended, or after
        ``exit_timeout_s``: what may still fill counts as filled. EXTERNAL's positions are closed, too. A halted engine
        closes what the broker lists, past risk and journal, as ``trio-nt kill --flatten`` does, and waits until that is
        done, or ``exit_timeout_s`` is over.
        """
        self._check_started()
        if self.halted:
            from trio_nt.kill import kill

            result = await kill(
                self.broker, now_ns=self._now_ns, flatten=True, deadline_s=max(1.0, self.config.exit_timeout_s)
            )
            log = _log.info if result.is_complete else _log.error
            log("flattened while halted: %s", result)
            return
        self.desk.risk.state = TradingState.REDUCING
        await self._cancel(self.desk.orders.working())
        with trio.move_on_after(self.config.exit_timeout_s):
            await self.tasks.until(lambda: not any(self.desk.orders.working()))
        self._refresh_prices()
        now_ns = self._now_ns()
        for strategy_id, ledger in list(self.desk.books.strategies.items()):
            for instrument_id, position in ledger.positions.items():
                if position.quantity:
                    close = attrs.evolve(target(instrument_id, 0, tag="flatten"), strategy_id=strategy_id)
                    self._act(close, now_ns, 0)
        await self._flush()

    # -- stages --

    async def _run_risk(self) -> None:
        await self._risk.run(self._flush)
        self._outgoing.close()

    def _decide(self, proposal: Proposed) -> None:
        self._act(proposal.action, proposal.ts_signal, proposal.t0, proposal.t3)

    def _act(self, action: Action, ts_signal: int, t0: int, t3: int = 0) -> None:
        outcome = self.desk.decide(action, now_ns=self._now_ns(), ts_signal=ts_signal)
        t4 = time.perf_counter_ns()
        self._outbox += [Outgoing(approved, t0=t0, t3=t3, t4=t4) for approved in outcome.approved]
        self._tell(outcome.events)

    async def _flush(self) -> None:
        batch, self._outbox = self._outbox, []
        await self._outgoing.send_batch(batch)
        self.tasks.notify()

    def _refresh_prices(self) -> None:
        for index, bid, ask, ts_init in self.board.take_changed():
            self.desk.risk.set_quote(index, bid, ask, ts_init)
        if self.desk.books.unpriced:
            self._price_adopted()

    def _price_adopted(self) -> None:
        for instrument_id in list(self.desk.books.unpriced):
            mid = self.board.mid(self.instruments.index(instrument_id))
            if mid is not None:
                self.desk.books.set_price(instrument_id, mid)

    def _hear(self, update: BrokerUpdate) -> Sequence[OrderEvent]:
        """What the broker says, into the desk and on to strategies and hosts."""
        mid = (
            self.board.mid(self.instruments.index(update.instrument)) if update.instrument in self.instruments else None
        )
        outcome = self.desk.hear(update, now_ns=self._now_ns(), mid=mid)
        if outcome.approved:
            self._outbox += [Outgoing(approved, t4=time.perf_counter_ns()) for approved in outcome.approved]
            self.tasks.spawn(CRITICAL, self._flush, name="execution: released orders")
        if any(isinstance(event, Filled) for event in outcome.events):
            self._portfolio_sender.set(self.desk.portfolio())
        self._tell(outcome.events)
        self.tasks.notify()
        return outcome.events

    def _tell(self, events: Iterable[OrderEvent]) -> None:
        self.supervisor.tell(events)
        for event in events:
            self._bus.publish(event)

    def _rows_unseen(self) -> int:
        seen = self.supervisor.market_seen()
        return 0 if seen is None else self.market.rows_sent - seen

    def _sender(self, feed: Feed) -> EngineSender:
        return EngineSender(
            self.market,
            self.bars,
            self.instruments,
            self.board,
            now_ns=self._now_ns,
            sequence=self._sequence,
            stamps=self.stamps,
            on_unknown=self._on_unknown,
            t0_is_ts_event=bool(getattr(feed, "ts_event_is_scheduled_send", False)),
        )

    # -- what stages report --

    def _on_unknown(self, instrument: Instrument) -> None:
        self.assumptions.append(
            f"{instrument.id} was described nowhere: taken for an equity in {instrument.settlement}, "
            f"tick {instrument.tick_size}, lot {instrument.lot_size}, no fees"
        )

    async def _watch_journal(self) -> None:
        """Nothing may be sent without a journal: stop at once, not when the next order fails."""
        self.gateway.halt(await self.journal.wait_stopped())

    def _on_halt(self, reason: str) -> None:
        if not self.journal.halted:
            self.journal.note(HaltNote(True, reason, self._now_ns()))
        self.halted = reason
        self.desk.risk.state = TradingState.HALTED
        self._bus.publish(Halted(reason, self._now_ns()))

    def _own_working(self) -> Iterator[Order]:
        """Orders of EXTERNAL's are others' to cancel."""
        return (order for order in self.desk.orders.working() if order.strategy_id != EXTERNAL)

    async def _cancel_working(self, strategy_id: str) -> None:
        await self._cancel(self.desk.orders.working(strategy_id=strategy_id))

    async def _cancel(self, orders: Iterable[Order]) -> None:
        for order in orders:
            self._act(Cancel(order.client_order_id, strategy_id=order.strategy_id), self._now_ns(), 0)
        await self._flush()

    # -- closing --

    async def close(self) -> None:
        """Close in order, and wait for it; closing twice does nothing more. A checkpoint.

        Cancelled, only the wait ends.
        """
        if self._state in ("new", "starting"):
            self._state = "closed"
            self._closed.set()
        self._stopping.set()
        await self._closed.wait()

    async def _close_when_stopping(self) -> None:
        await self._stopping.wait()
        self._state = "closing"
        self._ended_ns = self._now_ns()
        self.supervisor.let_end()
        await self._feeds.end(self.config.exit_timeout_s)
        self.market.sender.close()
        self.bars.sender.close()
        await self.supervisor.end_rings(self.config.exit_timeout_s)
        await self.tasks.until(lambda: self.supervisor.proposed() == self._risk.decided)
        self._tell(self.desk.withdraw_waiting("the engine is closing", now_ns=self._now_ns()))
        if self.config.on_exit == "cancel":
            await self._cancel(self._own_working())
            with trio.move_on_after(self.config.exit_timeout_s):
                await self.tasks.until(lambda: not any(self._own_working()))
        await self.supervisor.end_news(self.config.exit_timeout_s)
        self._proposals.close()
        await self.tasks.until(lambda: not self.tasks.finite)
        self.recovery.carry()
        try:
            await self.journal.flush()
        except JournalError as error:
            self.gateway.halt(f"the journal cannot record: {error}")
        self.tasks.cancel_all()
        await self.tasks.until(lambda: not self.tasks.running)
        self._bus.end()
        self._state = "closed"
        self._closed.set()

    def _check_started(self) -> None:
        if not hasattr(self, "desk"):
            raise RuntimeError("the engine was not started: await engine.start() first")

    async def cancel_tasks(self) -> None:
        """End whatever still runs, and wait for it: also while this block is being cancelled."""
        self.tasks.cancel_all()
        self._bus.end()
        with trio.CancelScope(shield=True):
            await self.tasks.until(lambda: not self.tasks.running)


async def _show_market(receiver: Any, observe: Callable[[Mapping[str, Any]], None]) -> None:
    async for batch in receiver:
        observe(batch.columns)


def _order_ids(started_ns: int, first: int) -> Callable[[], str]:
    """Ids from the run and a number, in order. Numbers go on from the journal's, which counts every order, so that ids
    are unique across the runs of an account, whatever its clock does."""
    numbers = iter(range(first, 2**62))
    run = f"{started_ns:x}"
    return lambda: f"{ORDER_PREFIX}{run}-{next(numbers)}"
