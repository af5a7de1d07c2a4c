"""Four strategies to read and to start from. They show the contract; they are no advice."""

from math import log, sqrt

import attrs
from attrs.validators import ge, gt

from trio_nt.features import FeatureSpec, ema, mid, zscore
from trio_nt.model.actions import Action, Cancel, OrderType, Replace, Signal, target
from trio_nt.model.events import Accepted, OrderEvent, Refused, Rejected
from trio_nt.model.instruments import Side
from trio_nt.model.market import Quote
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.context import StrategyContext


@attrs.define
class EmaCrossover(Strategy):
    """Follow the trend: long while the fast average is above the slow one, short while it is below.

    ``hysteresis`` (a fraction of the slow average) keeps it from trading every time the two touch.
    """

    fast: int = attrs.field(default=10, validator=ge(1))
    slow: int = attrs.field(default=20, validator=ge(1))
    quantity: float = attrs.field(default=1.0, validator=gt(0))
    hysteresis: float = attrs.field(default=0.00006, validator=ge(0))
    _sides: dict[str, int] = attrs.field(factory=dict, init=False, repr=False)

    def features(self) -> dict[str, FeatureSpec]:
        return {"fast": ema(self.fast), "slow": ema(self.slow)}

    def on_quote(self, quote: Quote, context: StrategyContext) -> Signal | None:
        gap = context.features.fast - context.features.slow
        band = self.hysteresis * context.features.slow
        side = 1 if gap > band else -1 if gap < -band else 0  # 0 during warm-up, too: a comparison with NaN is False
        if side == 0 or side == self._sides.get(quote.instrument):
            return None
        self._sides[quote.instrument] = side
        return target(quote.instrument, side * self.quantity)


@attrs.define
class MeanReversion(Strategy):
    """Expect the price to come back: sell when it is far above its average, buy when far below, leave near it.

    Distances are z-scores of the mid price over ``window`` quotes.
    """

    window: int = attrs.field(default=200, validator=ge(2))
    enter: float = attrs.field(default=2.5, validator=gt(0))
    leave: float = attrs.field(default=0.5, validator=ge(0))
    quantity: float = attrs.field(default=1.0, validator=gt(0))
    _sides: dict[str, int] = attrs.field(factory=dict, init=False, repr=False)

    def features(self) -> dict[str, FeatureSpec]:
        return {"distance": zscore(self.window, on=mid())}

    def on_quote(self, quote: Quote, context: StrategyContext) -> Signal | None:
        distance = context.features.distance
        held = self._sides.get(quote.instrument, 0)
        if distance > self.enter:
            wanted = -1
        elif distance < -self.enter:
            wanted = 1
        elif abs(distance) < self.leave:
            wanted = 0
        else:
            return None
        if wanted == held:
            return None
        self._sides[quote.instrument] = wanted
        return target(quote.instrument, wanted * self.quantity)


@attrs.define
class MarketMaker(Strategy):
    """Quote both sides, and lean away from what is held: the longer the position, the lower both quotes.

    ``half_spread``, ``lean`` (for each ``quantity`` held) and ``tolerance`` are fractions of the price. A quote of ours
    is moved when it is further than ``tolerance`` from its place. At ``max_position`` only the other side is quoted.
    """

    half_spread: float = attrs.field(default=0.0003, validator=gt(0))
    quantity: float = attrs.field(default=1.0, validator=gt(0))
    max_position: float = attrs.field(default=5.0, validator=gt(0))
    lean: float = attrs.field(default=0.0001, validator=ge(0))
    tolerance: float = attrs.field(default=0.0001, validator=ge(0))
    _on_their_way: dict[str, int] = attrs.field(factory=dict, init=False, repr=False)
    _asked: set[str] = attrs.field(factory=set, init=False, repr=False)

    def on_quote(self, quote: Quote, context: StrategyContext) -> list[Action]:
        if self._on_their_way.get(quote.instrument):
            return []  # they are not among `context.orders` yet: quoting now would quote twice
        held = float(context.position(quote.instrument))
        fair = (quote.bid + quote.ask) / 2 * (1 - self.lean * held / self.quantity)
        prices = {Side.BUY: fair * (1 - self.half_spread), Side.SELL: fair * (1 + self.half_spread)}
        if held >= self.max_position:
            del prices[Side.BUY]
        if held <= -self.max_position:
            del prices[Side.SELL]
        near = max(self.tolerance * fair, float(context.instruments[quote.instrument].tick_size))
        actions: list[Action] = []
        for order in context.orders(quote.instrument):
            price = prices.pop(order.side, None)
            if order.client_order_id in self._asked:
                continue
            if price is None:
                actions.append(Cancel(order.client_order_id))
            elif abs(float(order.limit_price or 0) - price) > near:
                actions.append(Replace(order.client_order_id, limit_price=price))
            else:
                continue
            self._asked.add(order.client_order_id)
        self._on_their_way[quote.instrument] = len(prices)
        for side, price in prices.items():
            actions.append(Signal(quote.instrument, side, self.quantity, order_type=OrderType.LIMIT, limit_price=price))
        return actions

    def on_order(self, update: OrderEvent, context: StrategyContext) -> None:
        self._asked.discard(update.client_order_id)
        is_new = isinstance(update, Refused) and isinstance(update.action, Signal)
        if is_new or isinstance(update, (Accepted, Rejected)):
            self._on_their_way[update.instrument] = max(0, self._on_their_way.get(update.instrument, 0) - 1)


@attrs.define
class Pairs(Strategy):
    """Expect two prices to keep their ratio: sell the one that got dear against the other, for the same money.

    ``first`` and ``second`` are the two instruments, by default the first two of the run. The distance is that of the
    log ratio from its exponential average, in standard deviations of the same weights; ``window`` is their length.
    """

    first: str = ""
    second: str = ""
    window: int = attrs.field(default=500, validator=ge(2))
    enter: float = attrs.field(default=2.5, validator=gt(0))
    leave: float = attrs.field(default=0.5, validator=ge(0))
    quantity: float = attrs.field(default=1.0, validator=gt(0))
    _prices: dict[str, float] = attrs.field(factory=dict, init=False, repr=False)
    _seen: int = attrs.field(default=0, init=False, repr=False)
    _average: float = attrs.field(default=0.0, init=False, repr=False)
    _variance: float = attrs.field(default=0.0, init=False, repr=False)
    _side: int = attrs.field(default=0, init=False, repr=False)
    _gave_up: bool = attrs.field(default=False, init=False, repr=False)

    def on_start(self, context: StrategyContext) -> None:
        if not (self.first and self.second):
            ids = [instrument.id for instrument in context.instruments]
            if len(ids) < 2:
                raise ValueError(f"Pairs needs two instruments, there is {', '.join(ids) or 'none'}")
            self.first, self.second = ids[:2]
        self.first, self.second = (context.instruments[name].id for name in (self.first, self.second))

    def on_quote(self, quote: Quote, context: StrategyContext) -> list[Signal]:
        if quote.instrument not in (self.first, self.second):
            return []
        self._prices[quote.instrument] = (quote.bid + quote.ask) / 2
        if len(self._prices) < 2:
            return []
        distance = self._distance(log(self._prices[self.first] / self._prices[self.second]))
        if self._gave_up:
            self._gave_up = abs(distance) >= self.leave
            return []
        if abs(distance) > self.enter:
            wanted = -1 if distance > 0 else 1
        else:
            wanted = 0 if abs(distance) < self.leave else self._side
        if wanted == self._side or self._seen < self.window:
            return []
        self._side = wanted
        as_much = self.quantity * self._prices[self.first] / self._prices[self.second]
        return [target(self.first, wanted * self.quantity), target(self.second, -wanted * as_much)]

    def on_order(self, update: OrderEvent, context: StrategyContext) -> list[Signal]:
        if self._side and isinstance(update, (Refused, Rejected)):
            self._side, self._gave_up = 0, True  # one leg alone is a bet on the market: leave it until the next time
            return [target(self.first, 0), target(self.second, 0)]
        return []

    def _distance(self, value: float) -> float:
        """How far ``value`` is from the average of those before it; then it counts itself."""
        weight, away = 2 / (self.window + 1), value - self._average
        distance = away / sqrt(self._variance) if self._variance > 0 else 0.0
        self._seen += 1
        if self._seen == 1:
            self._average = value
        else:
            self._average += weight * away
            self._variance = (1 - weight) * (self._variance + weight * away * away)
        return distance
