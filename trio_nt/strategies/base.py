"""The strategy contract: subclass ``Strategy``, decorate with ``@attrs.define``, write the handlers you need.

The class's attrs fields are its configuration. Handlers may be plain or ``async``; each returns None, one action or
an iterable of actions. A strategy never reaches a broker, a clock or a feed: all it knows is the market rows it is
given, what its ``context`` says, and what happened to its own orders.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from trio_nt.features import FeatureSpec
from trio_nt.model.actions import Actions
from trio_nt.model.events import OrderEvent
from trio_nt.model.market import Bar, MarketBatch, Quote, Trade
from trio_nt.model.orders import Fill

if TYPE_CHECKING:
    from trio_nt.strategies.context import StrategyContext

HandlerResult: TypeAlias = Actions | Awaitable[Actions]


class Strategy:
    """Base class of strategies.

    ``instruments``: ids or symbols that the per-event handlers are called for; ``"*"`` is every one.
    ``open_loop``: True promises that no position, order or fill is read (reading one raises ``OpenLoopError``);
    in return a replay hands over batches of any length.
    """

    instruments: ClassVar[str | Sequence[str]] = "*"
    open_loop: ClassVar[bool] = False

    def features(self) -> Mapping[str, FeatureSpec]:
        """Names of the features this strategy reads, each an identifier."""
        return {}

    def on_start(self, context: "StrategyContext") -> HandlerResult:
        """Once, before the first row."""
        return None

    def on_market_data(self, batch: MarketBatch, context: "StrategyContext") -> HandlerResult:
        """Rows that arrived together, oldest first. State ``row=`` in every action: the index that caused it."""
        return None

    def on_quote(self, quote: Quote, context: "StrategyContext") -> HandlerResult:
        """One good quote; ``context.features`` holds that row's features."""
        return None

    def on_trade(self, trade: Trade, context: "StrategyContext") -> HandlerResult:
        """One good trade; ``context.features`` holds that row's features."""
        return None

    def on_bar(self, bar: Bar, context: "StrategyContext") -> HandlerResult:
        """One good bar, at its close; ``context.features`` holds that row's features."""
        return None

    def on_order(self, update: OrderEvent, context: "StrategyContext") -> HandlerResult:
        """Something happened to an own order: accepted, refused, rejected, filled, cancelled, expired."""
        return None

    def on_fill(self, fill: Fill, context: "StrategyContext") -> HandlerResult:
        """An own order was executed, in part or whole; called after ``on_order`` with the same execution."""
        return None

    def on_timer(self, name: str, context: "StrategyContext") -> HandlerResult:
        """A timer set with ``context.set_timer`` is due."""
        return None

    def on_stop(self, context: "StrategyContext") -> HandlerResult:
        """Once, after the last row."""
        return None

    def save_state(self) -> bytes | Mapping[str, Any] | None:
        """What this strategy has learnt and would miss after a restart; None where that is nothing.

        A mapping of what JSON holds (texts, numbers, lists, mappings with texts as keys, None), or bytes; at most
        5 MB. Plain, quick, and without effects: a running engine asks now and then, and again after ``on_stop``.
        Positions and orders are no part of it: the engine knows them.
        """
        return None

    def restore_state(self, state: Any) -> None:
        """Before ``on_start``, where a state was saved: the bytes or the mapping that ``save_state`` returned."""
        return
