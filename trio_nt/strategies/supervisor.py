"""Keeps strategies running beside one another: a failure belongs to its strategy, and to nobody else."""

from collections.abc import Callable

import attrs
import trio

from scheduler import MailboxSender
from trio_nt.model.events import OrderEvent
from trio_nt.strategies.actor import Proposal, StrategyActor
from trio_nt.strategies.failures import in_one_line, with_traceback

RUNNING, STOPPED, FAILED, QUARANTINED = "running", "stopped", "failed", "quarantined"


@attrs.define(eq=False)
class SupervisedStrategy:
    """One strategy under supervision.

    ``joined_at`` counts the rows before it; ``failure`` is what ended it, in one line.
    """

    actor: StrategyActor
    news: MailboxSender[OrderEvent]
    proposals: MailboxSender[Proposal]
    joined_at: int
    on_state: "Callable[[SupervisedStrategy], None]"
    state: str = RUNNING
    failure: str = ""
    traceback: str = ""
    market: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    whole: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    market_ended: trio.Event = attrs.field(factory=trio.Event)
    ended: trio.Event = attrs.field(factory=trio.Event)

    @property
    def strategy_id(self) -> str:
        return self.actor.runner.strategy_id

    @property
    def detail(self) -> str:
        """What ended it, as fully as it is known."""
        return self.traceback or self.failure

    @property
    def was_stopped(self) -> bool:
        """Whether it was asked to leave the rings before they ended."""
        return self.market.cancel_called

    def tell(self, event: OrderEvent) -> None:
        """Pass on news of its orders. Nobody waits: a strategy that does not take its news is quarantined."""
        if self.state != RUNNING:
            return
        try:
            self.news.send_nowait(event)
        except trio.WouldBlock:
            self.quarantine("it did not take the news of its orders")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def run(self) -> None:
        """Run until the ring has ended or ``market`` is cancelled, and the news has ended after that.

        What it did before it ended, also by an error, reaches risk.
        """
        try:
            with self.whole:
                await self._run_actor()
            await self.actor.flush()
        except Exception as error:  # noqa: BLE001 - the supervisor: what a strategy raises ends that strategy alone
            if self.state == RUNNING:
                self.traceback = with_traceback(error)
                self.actor.runner.context.log.error("failed and is stopped: %s", in_one_line(error))
                self._end(FAILED, in_one_line(error))
            await self.actor.flush()
        finally:
            self.actor.close()
            self.proposals.close()
            self.market_ended.set()
            self.ended.set()
        if self.state == RUNNING:
            self._end(STOPPED, "")

    async def _run_actor(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.actor.run_news)
            async with trio.open_nursery() as inner:
                await self.actor.start()
                inner.start_soon(self.actor.run_timers)
                with self.market:
                    async with trio.open_nursery() as rings:
                        rings.start_soon(self.actor.run_bars)
                        await self.actor.run_market()
                self.actor.close()
                await self.actor.flush()
                await self.actor.stop()
                inner.cancel_scope.cancel()
            self.market_ended.set()

    def quarantine(self, why: str) -> None:
        """End it at once: it does not keep up with what it was told."""
        if self.state == RUNNING:
            self._end(QUARANTINED, why)
            self.whole.cancel()

    def _end(self, state: str, failure: str) -> None:
        self.state, self.failure = state, failure
        self.on_state(self)
