"""Risk's loop: what strategies propose is decided on in the order of its arrival, and what is approved goes on.

It drains its mailbox, and waits only for execution, which is downstream.
"""

import time
from collections.abc import Callable
from typing import Protocol

import trio

from scheduler import MailboxReceiver
from trio_nt.model.actions import Action
from trio_nt.stamps import RISK, StageClock

# Half a millisecond's work: a flood of proposals must not hold the loop, least of all in the most urgent lane.
MOST_IN_A_STEP = 64


class Proposed(Protocol):
    """An action with its stamps (``perf_counter_ns``; 0 where they were not taken)."""

    @property
    def action(self) -> Action: ...
    @property
    def ts_signal(self) -> int: ...
    @property
    def t0(self) -> int: ...
    @property
    def t3(self) -> int: ...


class Decide(Protocol):
    """Takes one proposal into the desk; ``t4`` is stamped when it has decided."""

    def __call__(self, proposal: Proposed) -> None: ...


class RiskStage:
    """Args:
    proposals: from the strategies.
    refresh: brings risk's prices up to date; called once per drained batch.
    decide: has the desk decide on one proposal.
    """

    def __init__(
        self,
        proposals: MailboxReceiver[Proposed],
        *,
        refresh: Callable[[], None],
        decide: Decide,
        stamps: StageClock,
    ) -> None:
        self._proposals = proposals
        self._refresh = refresh
        self._decide = decide
        self._risk = stamps.stage(RISK)
        self.decided = 0

    async def run(self, flush: "Flush") -> None:
        """Decide until nobody can propose any more. ``flush`` hands on what was approved; a checkpoint."""
        while True:
            try:
                batch = await self._proposals.receive_batch(MOST_IN_A_STEP)
            except trio.EndOfChannel:
                return
            self._refresh()
            for proposal in batch:
                self._decide(proposal)
                self.decided += 1
                self._risk.record(time.perf_counter_ns() - proposal.t3)
            await flush()


class Flush(Protocol):
    async def __call__(self) -> None: ...
