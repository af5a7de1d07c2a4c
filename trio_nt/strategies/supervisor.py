"""Keeps strategies running beside one another: a failure belongs to its strategy, and to nobody else."""

import traceback
from collections.abc import Callable

import attrs
import trio

from scheduler import MailboxSender
from trio_nt.model.events import OrderEvent
from trio_nt.strategies.actor import Proposal, StrategyActor

RUNNING, STOPPED, FAILED, QUARANTINED = "running", "stopped", "failed", "quarantined"


@attrs.define(eq=False)
class SupervisedStrategy:
    """One strategy under supervision. ``joined_at`` counts the rows before it, ``failure`` is what ended it."""

    actor: StrategyActor
    news: MailboxSender[OrderEvent]
    proposals: MailboxSender[Proposal]
    joined_at: int
    on_state: "Callable[[SupervisedStrategy], None]"
    state: str = RUNNING
    failure: str = ""
    market: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    whole: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    market_ended: trio.Event = attrs.field(factory=trio.Event)
    ended: trio.Event = attrs.field(factory=trio.Event)

    @property
    def strategy_id(self) -> str:
        return self.actor.runner.strategy_id

    def tell(self, event: OrderEvent) -> None:
        """Pass on news of its orders. Nobody waits: a strategy that does not take its news is quarantined."""
        if self.state != RUNNING and self.market_ended.is_set() and self.failure:
            return
        try:
            self.news.send_nowait(event)
        except trio.WouldBlock:
            self._end(QUARANTINED, "it did not take the news of its orders")
            self.whole.cancel()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def run(self) -> None:
        """Run until the ring has ended or ``market`` is cancelled, and the news has ended after that."""
        try:
            with self.whole:
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
                        await self.actor.stop()
                        inner.cancel_scope.cancel()
                    self.market_ended.set()
        except Exception as error:  # noqa: BLE001 - the supervisor: what a strategy raises ends that strategy alone
            self._end(FAILED, "".join(traceback.format_exception(_only(error))))
        finally:
            self.actor.close()
            self.proposals.close()
            self.market_ended.set()
            self.ended.set()
        if self.state == RUNNING:
            self._end(STOPPED, "")

    def _end(self, state: str, failure: str) -> None:
        self.state, self.failure = state, failure
        self.on_state(self)


def _only(error: BaseException) -> BaseException:
    """The one error in nested groups, where there is only one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
