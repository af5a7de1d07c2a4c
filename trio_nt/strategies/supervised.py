"""One strategy under supervision, from the first of its lives to the last.

Rules
- A failure belongs to its strategy. What it did before it ended, also by an error, reaches risk.
- A life ends once: stopped, failed or quarantined. Between two lives a strategy hears nothing; the next one is a fresh
  object that reads positions and orders from the engine.
- Nobody waits for a strategy: news that it does not take quarantines it.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from scheduler import MailboxSender, TaskHandle, TaskPriority
from trio_nt.model.events import OrderEvent, Refused
from trio_nt.model.reasons import Reason
from trio_nt.strategies.actor import Proposal, StrategyActor
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.blueprint import Blueprint
from trio_nt.strategies.failures import in_one_line, with_traceback
from trio_nt.strategies.supervision import DEMOTE, QUARANTINE, Floods, Overruns, Restarts, Supervision

RUNNING, STOPPED, FAILED, RESTARTING, QUARANTINED = "running", "stopped", "failed", "restarting", "quarantined"


@attrs.frozen
class StrategyStatistics:
    """One strategy's counters, over all its lives.

    Attributes:
        state: ``running``, ``stopped``, ``failed``, ``restarting`` or ``quarantined``.
        lane: where it runs now.
        rows, signals, proposed: shown to it, caused by it, on their way to risk or beyond.
        restarts: how often it was started again.
        failure, traceback: what ended it last, in one line and in full; empty where nothing has.
        slowest_step_s, overruns: its longest step, and how many were longer than the step budget allows.
        refused_by_rate: orders that risk refused because there were too many of them.
        state_bytes, state_saved_ns: size and time of the last saved state; 0 where there is none.
        warnings: what was warned of, one line each.
    """

    state: str
    lane: TaskPriority
    rows: int
    signals: int
    proposed: int
    restarts: int
    slowest_step_s: float
    overruns: int
    refused_by_rate: int
    state_bytes: int
    state_saved_ns: int
    failure: str
    traceback: str
    warnings: tuple[str, ...]


class StrategyLife:
    """One actor from its start to its end, with the queues that lead to it. ``joined_at`` counts the rows before it."""

    def __init__(
        self,
        actor: StrategyActor,
        news: MailboxSender[OrderEvent],
        proposals: MailboxSender[Proposal],
        joined_at: int,
    ) -> None:
        self.actor = actor
        self.news = news
        self.proposals = proposals
        self.joined_at = joined_at
        self.market = trio.CancelScope()
        self.whole = trio.CancelScope()
        self.ended = trio.Event()
        self.withdrawn = trio.Event()
        self.is_withdrawing = False

    async def run(self, state: bytes | None, market_ended: Callable[[], None]) -> Exception | None:
        """Run until the rings have ended or ``market`` is cancelled, and the news has ended after that.

        Returns what the strategy raised.
        """
        failure: Exception | None = None
        try:
            try:
                with self.whole:
                    await self._run_actor(state, market_ended)
            except Exception as error:  # noqa: BLE001 - the supervisor: what a strategy raises ends that strategy alone
                failure = error
            await self.actor.flush()
        finally:
            self.close()
        return failure

    async def _run_actor(self, state: bytes | None, market_ended: Callable[[], None]) -> None:
        actor = self.actor
        async with trio.open_nursery() as nursery:
            nursery.start_soon(actor.run_news)
            async with trio.open_nursery() as inner:
                await actor.start(state)
                inner.start_soon(actor.run_mailbox)
                with self.market:
                    async with trio.open_nursery() as rings:
                        rings.start_soon(actor.run_bars)
                        await actor.run_market()
                actor.close()
                await actor.flush()
                await actor.stop()
                inner.cancel_scope.cancel()
            actor.close_mailbox()
            market_ended()

    def stop(self) -> None:
        """Leave the rings; an ``async`` handler that waits is cancelled there."""
        self.actor.keep_configuration()
        self.market.cancel()

    def close(self) -> None:
        """Leave rings and queues, for good; also where it never ran."""
        self.ended.set()
        self.actor.close()
        self.actor.close_mailbox()
        self.proposals.close()
        self.news.close()


class Surroundings(Protocol):
    """What a supervised strategy needs of its supervisor."""

    def make_life(self, entry: "SupervisedStrategy") -> StrategyLife: ...
    async def load(self, entry: "SupervisedStrategy") -> bytes | None: ...
    def entered(self, entry: "SupervisedStrategy", detail: str) -> None: ...
    def warned(self, entry: "SupervisedStrategy", reason: str, detail: str) -> None: ...


class SupervisedStrategy:
    """One strategy. ``state`` is where it is now; ``failure`` is what ended one of its lives last, in one line."""

    life: StrategyLife

    def __init__(
        self,
        strategy_id: str,
        strategy: Strategy,
        supervision: Supervision,
        around: Surroundings,
        *,
        step_budget_s: float,
    ) -> None:
        self.strategy_id = strategy_id
        self.blueprint = Blueprint.of(strategy)
        self.supervision = supervision
        self.restarts = Restarts(supervision.restart)
        self.overruns = Overruns(supervision.overruns, step_budget_s)
        self.floods = Floods(supervision.floods)
        self.state = STOPPED
        self.failure = ""
        self.traceback = ""
        self.warnings: dict[str, str] = {}
        self.saved: bytes | None = None
        self.saved_ns = 0
        self.market_ended = trio.Event()
        self.ended = trio.Event()
        self.handle: TaskHandle[None] | None = None
        self._first: Strategy | None = strategy
        self._around = around
        self._log = logging.getLogger(f"trio_nt.strategy.{strategy_id}")
        self._step_budget_s = step_budget_s
        self._is_leaving = False
        self._pause = trio.CancelScope()
        self._warned: set[str] = set()
        self._past = (0, 0, 0)  # rows, signals and proposals of the lives before

    # -- what is told and asked from outside --

    @property
    def proposed(self) -> int:
        """Proposals of all its lives."""
        return self._totals()[2]

    @property
    def was_stopped(self) -> bool:
        """Whether it was asked to leave the rings before they ended."""
        return self.life.market.cancel_called

    def tell(self, event: OrderEvent) -> None:
        """Pass on news of its orders. Nobody waits: a strategy that does not take its news is quarantined."""
        if isinstance(event, Refused) and event.reason is Reason.SUBMIT_RATE:
            self._flooded(event)
        if self.state != RUNNING or not self.life.actor.runner.hears_orders:
            return
        try:
            self.life.news.send_nowait(event)
        except trio.WouldBlock:
            self.quarantine("it did not take the news of its orders")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def is_leaving(self) -> bool:
        """Whether its present life is its last."""
        return self._is_leaving

    def let_end(self) -> None:
        """No more lives after this one."""
        self._is_leaving = True
        self._pause.cancel()

    def stop(self) -> None:
        """Have it leave the rings; it takes news until ``end_news``."""
        self.let_end()
        self.life.stop()

    def end_news(self) -> None:
        """No more news: it ends when it has heard the rest."""
        self.life.news.close()

    def quarantine(self, why: str) -> None:
        """Put it out at once."""
        if self.state == RUNNING:
            self._fail(QUARANTINED, why)
            self.life.whole.cancel()

    def _flooded(self, refused: Refused) -> None:
        for consequence in self.floods.refused(refused.ts_ns):
            if self.state != RUNNING:  # what it had sent before its end
                return
            many = f"{self.floods.in_a_second:,} orders refused within a second: {refused.detail}"
            if consequence == QUARANTINE:
                self.quarantine(f"it floods: {many}")
            elif consequence == DEMOTE:
                self._demote(many)
            else:
                self.warn("flood", f"its orders are refused: {refused.detail}")

    def stepped(self, rows: int, elapsed_ns: int) -> None:
        """Take account of a step."""
        for consequence in self.overruns.measured(rows, elapsed_ns):
            took = (
                f"{self.overruns.count} steps over the budget of {self._step_budget_s * 1e6:g} µs an event, "
                f"the longest {self.overruns.slowest_ns / 1e6:.3g} ms"
            )
            if consequence == QUARANTINE:
                self.quarantine(f"it holds the loop: {took}")
            elif consequence == DEMOTE:
                self._demote(took)
            else:
                self.warn("overrun", took)

    def warn(self, reason: str, detail: str) -> None:
        """Say something, once in a life."""
        self.warnings[reason] = detail
        if reason not in self._warned:
            self._warned.add(reason)
            self._log.warning("%s: %s", reason, detail)
            self._around.warned(self, reason, detail)

    def statistics(self) -> StrategyStatistics:
        """Counters, frozen."""
        rows, signals, proposed = self._totals()
        return StrategyStatistics(
            state=self.state,
            lane=self.supervision.lane if self.handle is None else self.handle.priority,
            rows=rows,
            signals=signals,
            proposed=proposed,
            restarts=self.restarts.count,
            slowest_step_s=self.overruns.slowest_ns / 1e9,
            overruns=self.overruns.count,
            refused_by_rate=self.floods.count,
            state_bytes=len(self.saved or b""),
            state_saved_ns=self.saved_ns,
            failure=self.failure,
            traceback=self.traceback,
            warnings=tuple(f"{reason}: {detail}" for reason, detail in self.warnings.items()),
        )

    def _demote(self, why: str) -> None:
        assert self.handle is not None, "its first step comes after its spawn"
        self.handle.priority = TaskPriority(min(self.handle.priority + 1, TaskPriority.BACKGROUND))
        self.warn("demoted", f"to lane {self.handle.priority.name}: {why}")

    def _totals(self) -> tuple[int, int, int]:
        past, actor = self._past, self.life.actor
        return past[0] + actor.runner.rows_seen, past[1] + actor.runner.signals, past[2] + actor.proposed

    # -- its lives --

    def make(self) -> Strategy:
        """The strategy of its next life: the host's own object first, then fresh ones."""
        first, self._first = self._first, None
        return self.blueprint.make() if first is None else first

    def begin(self) -> None:
        """Make its next life. Where the strategy's class raises, or what it asks for, nothing is changed."""
        life = self._around.make_life(self)
        if hasattr(self, "life"):
            self._past = self._totals()
        self.life = life
        self.overruns.forgive()
        self.floods.forgive()
        self._warned.clear()
        self._is_leaving = False
        if self.ended.is_set():
            self.market_ended, self.ended = trio.Event(), trio.Event()
        if self.handle is not None:
            self.handle.priority = self.supervision.lane
        self._enter(RUNNING, "")

    async def run(self) -> None:
        """Live until it is stopped, the rings have ended, or it ended otherwise and is not to be restarted."""
        try:
            while True:
                began = trio.current_time()
                failure = await self._live()
                if not await self._wait_for_next(failure, trio.current_time() - began):
                    return
        finally:
            self.life.close()
            self.market_ended.set()
            self.ended.set()

    async def _live(self) -> Exception | None:
        life = self.life
        try:
            state = await self._around.load(self)
        except Exception as error:  # noqa: BLE001 - the supervisor: a state that cannot be read fails its strategy
            life.close()
            return error
        if self.state != RUNNING:  # put out meanwhile
            life.close()
            return None
        return await life.run(state, self.market_ended.set)

    async def _wait_for_next(self, failure: Exception | None, ran_s: float) -> bool:
        """Wait as its policy says; whether its next life has begun."""
        while True:
            if failure is not None and self.state in (RUNNING, RESTARTING):  # and not quarantined meanwhile
                self._fail(FAILED, in_one_line(failure), with_traceback(failure))
            elif self.state == RUNNING:
                self._enter(STOPPED, "")
            if self.state == STOPPED or self.is_leaving() or self.market_ended.is_set():
                return False
            wait_s = self.restarts.wait_s(ran_s=ran_s, is_quarantine=self.state == QUARANTINED)
            if wait_s is None:
                if self.state == FAILED and self.restarts.in_a_row:
                    times = self.restarts.in_a_row + 1
                    self._fail(QUARANTINED, f"{self.failure}, {times} times in a row", self.traceback)
                return False
            await self.life.withdrawn.wait()
            ended_as, self._pause = self.state, trio.CancelScope()
            self._enter(RESTARTING, f"restart {self.restarts.count} in {wait_s:g} s")
            with self._pause:
                if self.is_leaving():
                    self._pause.cancel()
                await trio.sleep(wait_s)
            if self.is_leaving():
                self._enter(ended_as, self.traceback or self.failure)
                return False
            try:
                self.begin()
            except Exception as error:  # noqa: BLE001 - the supervisor: who cannot be made again has failed
                failure, ran_s = error, 0.0
            else:
                return True

    def _fail(self, state: str, failure: str, traceback: str = "") -> None:
        self.failure, self.traceback = failure, traceback
        self._log.error("%s: %s", state, failure)
        self._enter(state, traceback or failure)

    def _enter(self, state: str, detail: str) -> None:
        self.state = state
        self._around.entered(self, detail)
