"""An event-driven trading engine on Trio structured concurrency.

Users import from here, from ``scheduler``, from ``trio_nt.testing`` and, beside asyncio or threads, from
``trio_nt.bridge``; everything else is private.
"""

from typing import TYPE_CHECKING, Any

import trio_nt._scheduler_check  # noqa: F401  # first: it says what is wrong before something else fails
from trio_nt.engine import Engine
from trio_nt.engine_config import EngineConfig
from trio_nt.engine_opening import open_engine
from trio_nt.episodes import open_memory
from trio_nt.errors import (
    EnvironmentFailure,
    ExecutionError,
    FeedError,
    InputError,
    InvalidStrategy,
    JournalError,
    OpenLoopError,
    OrderRejected,
    OutcomeUnknown,
    TrioNTError,
)
from trio_nt.exchange.simulated import SimulatedBroker
from trio_nt.features import (
    FeatureSpec,
    adx,
    atr,
    bollinger,
    cci,
    cross,
    dema,
    difference,
    ema,
    field,
    imbalance,
    macd,
    mfi,
    microprice,
    mid,
    obv,
    realised_volatility,
    roc,
    rolling_max,
    rolling_min,
    rsi,
    sma,
    spread,
    stdev,
    stochastic,
    tema,
    vwap,
    williams_r,
    wma,
    zscore,
)
from trio_nt.feeds.base import Feed, MarketSender
from trio_nt.metrics import EngineMetrics, PerformanceTimer
from trio_nt.model.actions import Action, Cancel, OrderType, Replace, Signal, TimeInForce, buy, sell, target
from trio_nt.model.broker import Account, Broker, BrokerOrder
from trio_nt.model.calendar import ALWAYS_OPEN, AlwaysOpen, Calendar
from trio_nt.model.events import (
    Accepted,
    Cancelled,
    CancelRejected,
    Event,
    Expired,
    FeedState,
    Filled,
    Halted,
    OrderEvent,
    Refused,
    Rejected,
    Replaced,
    StrategyState,
    StrategyWarning,
)
from trio_nt.model.instruments import Instrument, InstrumentKind, Instruments, Side
from trio_nt.model.market import Bar, MarketBatch, Quote, Trade
from trio_nt.model.memory import Episode, MemoryStatistics, Recalled, StrategyMemory
from trio_nt.model.orders import Fill, Order, OrderState
from trio_nt.model.reasons import Reason
from trio_nt.portfolio import PortfolioState
from trio_nt.replay import replay
from trio_nt.report import Report
from trio_nt.risk.core import RiskRule
from trio_nt.risk.limits import RiskLimits, TradingState
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.context import StrategyContext
from trio_nt.strategies.supervision import FloodPolicy, OverrunPolicy, RestartPolicy, Supervision

if TYPE_CHECKING:
    from trio_nt.storage.durable import open_journal

__version__ = "0.1.0"

__all__ = [
    "ALWAYS_OPEN",
    "Accepted",
    "Account",
    "Action",
    "AlwaysOpen",
    "Bar",
    "Broker",
    "BrokerOrder",
    "Calendar",
    "Cancel",
    "CancelRejected",
    "Cancelled",
    "Engine",
    "EngineConfig",
    "EngineMetrics",
    "EnvironmentFailure",
    "Episode",
    "Event",
    "ExecutionError",
    "Expired",
    "FeatureSpec",
    "Feed",
    "FeedError",
    "FeedState",
    "Fill",
    "Filled",
    "FloodPolicy",
    "Halted",
    "InputError",
    "Instrument",
    "InstrumentKind",
    "Instruments",
    "InvalidStrategy",
    "JournalError",
    "MarketBatch",
    "MarketSender",
    "MemoryStatistics",
    "OpenLoopError",
    "Order",
    "OrderEvent",
    "OrderRejected",
    "OrderState",
    "OrderType",
    "OutcomeUnknown",
    "OverrunPolicy",
    "PerformanceTimer",
    "PortfolioState",
    "Quote",
    "Reason",
    "Recalled",
    "Refused",
    "Rejected",
    "Replace",
    "Replaced",
    "Report",
    "RestartPolicy",
    "RiskLimits",
    "RiskRule",
    "Side",
    "Signal",
    "SimulatedBroker",
    "Strategy",
    "StrategyContext",
    "StrategyMemory",
    "StrategyState",
    "StrategyWarning",
    "Supervision",
    "TimeInForce",
    "Trade",
    "TradingState",
    "TrioNTError",
    "adx",
    "atr",
    "bollinger",
    "buy",
    "cci",
    "cross",
    "dema",
    "difference",
    "ema",
    "field",
    "imbalance",
    "macd",
    "mfi",
    "microprice",
    "mid",
    "obv",
    "open_engine",
    "open_journal",
    "open_memory",
    "realised_volatility",
    "replay",
    "roc",
    "rolling_max",
    "rolling_min",
    "rsi",
    "sell",
    "sma",
    "spread",
    "stdev",
    "stochastic",
    "target",
    "tema",
    "vwap",
    "williams_r",
    "wma",
    "zscore",
]


def __getattr__(name: str) -> Any:
    if name == "open_journal":  # not before somebody asks: SQLite takes its time to load
        from trio_nt.storage.durable import open_journal

        return open_journal
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
