"""Strategies that follow a drawn script, once for the reference and once for the engine: the same decisions."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from replay_reference import Wish

from trio_nt import (
    Accepted,
    Action,
    Cancel,
    Cancelled,
    CancelRejected,
    Fill,
    Filled,
    MarketBatch,
    OrderEvent,
    Quote,
    Refused,
    Strategy,
    StrategyContext,
    TimeInForce,
    Trade,
    buy,
    sell,
    target,
)
from trio_nt.model.market import QUOTE

MS = 1_000_000
CENT = Decimal("0.01")
OPS = 18
READS_STATE = (6, 14)
NEWS = {
    Accepted: "accepted",
    Refused: "refused",
    Filled: "filled",
    Cancelled: "cancelled",
    CancelRejected: "cancel rejected",
}


class Script:
    """Decides by a list of numbers; ``view`` answers ``position``, ``told`` and ``set_timer``, and knows ``now``.

    ``log`` holds all it was given and could read, in order.
    """

    def __init__(self, name: str, ops: list[int], *, blind: bool, timer_ns: int) -> None:
        self.name, self.ops, self.blind, self.timer_ns = name, ops, blind, timer_ns
        self.calls = 0
        self.log: list[Any] = []
        self.last: dict[str, Quote] = {}
        self.latest = ""

    def start(self, view: Any) -> list[Wish]:
        if self.timer_ns:
            view.set_timer(self.name, "tick", view.now + self.timer_ns)
        return []

    def row(self, row: Any, view: Any) -> list[Wish]:
        self.log.append(("row", row.ts_init, row.instrument, *self._state(row.instrument, view)))
        if isinstance(row, Quote):
            self.last[row.instrument] = row
        self.latest = row.instrument
        return self._next(view)

    def order(self, state: str, view: Any) -> list[Wish]:
        if self.blind:
            return []
        self.log.append((state, view.now, *self._state(self.latest, view)))
        return self._next(view) if state in ("filled", "refused") and self.calls % 3 == 0 else []

    def timer(self, name: str, view: Any) -> list[Wish]:
        self.log.append((name, view.now, *self._state(self.latest, view)))
        if name == "tick":
            view.set_timer(self.name, "tick", view.now + self.timer_ns)
        return self._next(view)

    def _state(self, instrument: str, view: Any) -> tuple[int, int]:
        if self.blind or not instrument:
            return 0, 0
        return view.position(self.name, instrument), view.told(self.name, instrument)

    def _next(self, view: Any) -> list[Wish]:
        op = self.ops[self.calls % len(self.ops)]
        self.calls += 1
        instrument = self.latest
        quote = self.last.get(instrument)
        if self.blind and op in READS_STATE:
            return []
        if op in (3, 4, 5):
            return [Wish("target", instrument, None, (2, -2, 0)[op - 3])]
        if op == 6:
            return [Wish("order", instrument, 1 if view.position(self.name, instrument) <= 0 else -1, 1)]
        if op == 13:
            return [Wish("cancel", instrument)]
        if op == 17:
            view.set_timer(self.name, "once", view.now + 3 * MS)
            return []
        if quote is None or op < 3:
            return []
        return self._priced(op, instrument, Decimal(str(quote.bid)), Decimal(str(quote.ask)), view)

    def _priced(self, op: int, instrument: str, bid: Decimal, ask: Decimal, view: Any) -> list[Wish]:
        if op == 14 and view.told(self.name, instrument):
            return [Wish("cancel", instrument)]
        table = {
            7: Wish("order", instrument, 1, 1, limit=bid - CENT),
            8: Wish("order", instrument, -1, 1, limit=ask + CENT),
            9: Wish("order", instrument, 1, 1, limit=ask, ioc=True),
            10: Wish("order", instrument, -1, 1, limit=ask + 5 * CENT, ioc=True),
            11: Wish("order", instrument, 1, 2, stop=ask + CENT),
            12: Wish("order", instrument, -1, 1, stop=bid - CENT),
            14: Wish("order", instrument, 1, 1, limit=bid),
            15: Wish("order", instrument, -1, 1),
            16: Wish("order", instrument, 1, 1, stop=ask + CENT, limit=ask + 2 * CENT),
        }
        extra = [Wish("order", instrument, 1, 1, limit=bid - 2 * CENT)] if op == 15 else []
        return [table[op], *extra]


def as_action(wish: Wish, row: int | None) -> Action:
    if wish.kind == "cancel":
        return Cancel(instrument=wish.instrument, row=row)
    if wish.side is None:
        return target(wish.instrument, wish.quantity, row=row)
    make = buy if wish.side > 0 else sell
    in_force = TimeInForce.IOC if wish.ioc else TimeInForce.GTC
    return make(
        wish.instrument, wish.quantity, limit_price=wish.limit, stop_price=wish.stop, time_in_force=in_force, row=row
    )


class _View:
    """A strategy's context as scripts see the reference."""

    def __init__(self, context: StrategyContext) -> None:
        self._context = context

    @property
    def now(self) -> int:
        return self._context.now_ns

    def position(self, name: str, instrument: str) -> int:
        return int(self._context.position(instrument))

    def told(self, name: str, instrument: str) -> int:
        return len(self._context.orders(instrument))

    def set_timer(self, name: str, timer: str, at_ns: int) -> None:
        self._context.set_timer(timer, at_ns=at_ns)


class _Scripted(Strategy):
    def __init__(self, script: Script) -> None:
        self.script = script

    def on_start(self, context: StrategyContext) -> Iterable[Action]:
        return [as_action(wish, None) for wish in self.script.start(_View(context))]

    def on_timer(self, name: str, context: StrategyContext) -> Iterable[Action]:
        return [as_action(wish, None) for wish in self.script.timer(name, _View(context))]

    def _row(self, event: Any, context: StrategyContext, row: int | None = None) -> list[Action]:
        return [as_action(wish, row) for wish in self.script.row(event, _View(context))]


class _Hearing(_Scripted):
    fills: int = 0

    def on_order(self, update: OrderEvent, context: StrategyContext) -> Iterable[Action]:
        return [as_action(wish, None) for wish in self.script.order(NEWS[type(update)], _View(context))]

    def on_fill(self, fill: Fill, context: StrategyContext) -> None:
        self.fills += 1


class PerEvent(_Hearing):
    def on_quote(self, quote: Quote, context: StrategyContext) -> Iterable[Action]:
        return self._row(quote, context)

    def on_trade(self, trade: Trade, context: StrategyContext) -> Iterable[Action]:
        return self._row(trade, context)


class InBatches(_Hearing):
    def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> Iterable[Action]:
        return [action for row in range(len(batch)) for action in self._at(batch, row, context)]

    def _at(self, batch: MarketBatch, row: int, context: StrategyContext) -> list[Action]:
        if batch["flags"][row]:
            return []
        return self._row(event_at(batch, row), context, row)


class Asynchronous(_Hearing):
    async def on_quote(self, quote: Quote, context: StrategyContext) -> Iterable[Action]:
        return self._row(quote, context)

    async def on_trade(self, trade: Trade, context: StrategyContext) -> Iterable[Action]:
        return self._row(trade, context)


class OpenLoop(_Scripted):
    open_loop = True

    def on_quote(self, quote: Quote, context: StrategyContext) -> Iterable[Action]:
        return self._row(quote, context)

    def on_trade(self, trade: Trade, context: StrategyContext) -> Iterable[Action]:
        return self._row(trade, context)


class OpenLoopInBatches(_Scripted):
    open_loop = True

    def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> Iterable[Action]:
        return [
            action
            for row in range(len(batch))
            if not batch["flags"][row]
            for action in self._row(event_at(batch, row), context, row)
        ]


def event_at(batch: MarketBatch, row: int) -> Any:
    name = batch.instruments[int(batch["instrument"][row])].id
    kind: Any = Quote if batch["kind"][row] == QUOTE else Trade
    return kind(name, *(batch[field][row].item() for field in kind.__struct_fields__[1:]))
