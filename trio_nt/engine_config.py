"""What an engine can be told before it starts, and what it counts while it runs."""

from collections.abc import Callable, Mapping, Sequence

import attrs

from scheduler import SchedulerStatistics
from trio_nt.execution.gateway import GatewaySettings, GatewayStatistics
from trio_nt.model.instruments import Instruments
from trio_nt.risk.core import RiskRule
from trio_nt.risk.limits import RiskLimits


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
        step_budget_s: the longest step a strategy may take, whatever its backlog.
        on_exit: what closing does with working orders: ``cancel`` or ``keep`` them.
        exit_timeout_s: how long each step of closing waits: for feeds, for strategies that are in the middle of
            something, for working orders to end.
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
    step_budget_s: float = attrs.field(default=500e-6, validator=attrs.validators.gt(0))
    on_exit: str = attrs.field(default="cancel", validator=attrs.validators.in_(("cancel", "keep")))
    exit_timeout_s: float = attrs.field(default=5.0, validator=attrs.validators.ge(0))
    gateway: GatewaySettings = attrs.field(factory=GatewaySettings)
    on_progress: Callable[[str], None] = _say_nothing


@attrs.frozen
class EngineStatistics:
    """Counters of a running engine."""

    rows: int
    flagged: int
    bars: int
    strategies: Mapping[str, str]
    proposals: int
    approved: int
    refused: int
    fills: int
    gateway: GatewayStatistics
    scheduler: SchedulerStatistics
