"""Two strategies to read and to start from. They show the contract; they are no advice."""

import attrs
from attrs.validators import ge, gt

from trio_nt.features import FeatureSpec, ema, mid, zscore
from trio_nt.model.actions import Signal, target
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
