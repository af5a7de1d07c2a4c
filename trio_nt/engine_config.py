"""What an engine can be told before it starts, and what it counts while it runs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from scheduler import SchedulerStatistics
from trio_nt.execution.gateway import GatewaySettings, GatewayStatistics
from trio_nt.features.board import HISTORY_ROWS
from trio_nt.features.cache import DEFAULT_LIMIT_BYTES, CacheStatistics
from trio_nt.features.pipeline import LONGEST_WINDOW, FeatureStatistics
from trio_nt.model.instruments import Instruments
from trio_nt.risk.core import RiskRule
from trio_nt.risk.limits import RiskLimits
from trio_nt.strategies.supervised import StrategyStatistics
from trio_nt.strategies.supervision import Supervision, SupervisorSettings

_positive_or_none: Any = attrs.validators.optional(attrs.validators.gt(0))


def _say_nothing(text: str) -> None:
    return


@attrs.frozen(kw_only=True)
class EngineConfig:
    """How an engine trades.

    Attributes:
        instruments: described ones; others are taken for equities when a feed first names them.
        limits, strategy_limits, rules: see ``RiskEngine``.
        market_capacity, signal_capacity, order_capacity, event_capacity: of the ring (rows), of the mailboxes to risk
            and to execution, and of each listener on the event bus.
        longest_window: the greatest window of a feature. Windows are part of a feature's state, 8 to 16 bytes for each
            row of the window and instrument.
        feature_history, feature_cache_bytes: values kept of each feature that a host reads, and the bound on the memory
            of all of them together (see ``FeatureBoard``).
        step_budget_s: the longest step a strategy may take, whatever its backlog.
        supervision: of strategies by id (restarts, lane, what follows on a failure); ``Supervision()`` for the others.
        mailbox_capacity: messages to one strategy (another configuration, save your state) that may wait for it.
        linger_s: how long a strategy that has read everything waits for more before its next turn: with hundreds of
            strategies 2 to 5 ms save much of the processor, for as much latency.
        stall_timeout_s: how long a strategy may hold the full ring, and with it every feed, without taking one row:
            then it is quarantined. None: for ever.
        state_folder: keeps what strategies save across runs, for one engine at a time; None keeps it in memory.
        state_every_s: how often running strategies are asked for what to save; None: only when they stop.
        on_exit: what closing does with working orders: ``cancel`` or ``keep`` them.
        exit_timeout_s: how long each step of closing waits: for feeds (from the last row that one of them sent), for
            strategies that are in the middle of something, for working orders to end.
        sum_up_every_s: how often the journal gets a summary of positions and money, so that the next start is quick and
            old orders may be forgotten. Closing gives it one as well.
        on_progress: told in a few words what the start is doing (compiling features takes seconds the first time).
    """

    instruments: Instruments = attrs.field(factory=Instruments)
    limits: RiskLimits = attrs.field(factory=RiskLimits)
    strategy_limits: Mapping[str, RiskLimits] = attrs.field(factory=dict)
    rules: Sequence[RiskRule] = ()
    market_capacity: int = attrs.field(default=10_000, validator=attrs.validators.ge(4))
    signal_capacity: int = attrs.field(default=1_000, validator=attrs.validators.ge(1))
    order_capacity: int = attrs.field(default=100, validator=attrs.validators.ge(1))
    event_capacity: int = attrs.field(default=1_000, validator=attrs.validators.ge(1))
    longest_window: int = attrs.field(default=LONGEST_WINDOW, validator=attrs.validators.ge(1))
    feature_history: int = attrs.field(default=HISTORY_ROWS, validator=attrs.validators.ge(1))
    feature_cache_bytes: int = attrs.field(default=DEFAULT_LIMIT_BYTES, validator=attrs.validators.ge(1))
    step_budget_s: float = attrs.field(default=500e-6, validator=attrs.validators.gt(0))
    supervision: Mapping[str, Supervision] = attrs.field(factory=dict)
    mailbox_capacity: int = attrs.field(default=1_000, validator=attrs.validators.ge(1))
    linger_s: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    stall_timeout_s: float | None = attrs.field(default=5.0, validator=_positive_or_none)
    state_folder: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    state_every_s: float | None = attrs.field(default=60.0, validator=_positive_or_none)
    on_exit: str = attrs.field(default="cancel", validator=attrs.validators.in_(("cancel", "keep")))
    exit_timeout_s: float = attrs.field(default=5.0, validator=attrs.validators.ge(0))
    sum_up_every_s: float = attrs.field(default=600.0, validator=attrs.validators.gt(0))
    gateway: GatewaySettings = attrs.field(factory=GatewaySettings)
    on_progress: Callable[[str], None] = _say_nothing

    @property
    def supervisor(self) -> SupervisorSettings:
        """What of it concerns strategies."""
        # Risk may answer a mailbox full of proposals in one step, and every order speaks a few times.
        burst = max(self.limits.max_open_orders or 1_000, self.signal_capacity)
        return SupervisorSettings(
            news_capacity=4 * burst,
            mailbox_capacity=self.mailbox_capacity,
            step_budget_s=self.step_budget_s,
            linger_s=self.linger_s,
            state_every_s=self.state_every_s,
        )


@attrs.frozen
class EngineStatistics:
    """Counters of a running engine. ``strategies``: their states by id; ``supervision``: what is counted of each."""

    rows: int
    flagged: int
    bars: int
    strategies: Mapping[str, str]
    supervision: Mapping[str, StrategyStatistics]
    proposals: int
    approved: int
    refused: int
    fills: int
    gateway: GatewayStatistics
    scheduler: SchedulerStatistics
    features: FeatureStatistics
    feature_cache: CacheStatistics
