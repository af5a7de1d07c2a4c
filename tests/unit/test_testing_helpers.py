"""``trio_nt.testing``: what users test their strategies with."""

from typing import Any

import attrs
import pytest

from trio_nt import Bar, FeatureSpec, MarketBatch, Quote, Strategy, StrategyContext, buy, cross, ema, target
from trio_nt.strategies.examples import EmaCrossover, MeanReversion
from trio_nt.testing import START_NS, assert_causal, bars, quotes, run_strategy, trades

WALK = [100 + ((number * 7919) % 23) / 10 + number % 7 for number in range(120)]


@attrs.define
class Crossover(Strategy):
    fast: int = 10
    slow: int = 20
    quantity: int = 1

    def features(self) -> dict[str, FeatureSpec]:
        return {"cross": cross(ema(self.fast), ema(self.slow))}

    def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
        if context.features.cross:
            return target(quote.instrument, self.quantity * context.features.cross)
        return None


def test_the_example_of_the_documentation() -> None:
    result = run_strategy(Crossover(fast=2, slow=3), quotes("ABC", mid=[10, 9, 8, 12, 7]))
    assert result.position == {"ABC": -1}
    assert len(result.orders) == len(result.fills) >= 2
    assert result.report.ok


@pytest.mark.parametrize(
    "strategy",
    [
        Crossover(fast=2, slow=5),
        EmaCrossover(fast=2, slow=5),
        MeanReversion(window=10, enter=1.0),
        pytest.param(None, id="a batch that looks at its own rows alone"),
    ],
)
def test_honest_strategies_pass(strategy: Strategy | None) -> None:
    class Rowwise(Strategy):
        def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> Any:
            return [buy("ABC", 1, row=row) for row in range(len(batch)) if batch["bid"][row] > 103]

        def on_stop(self, context: StrategyContext) -> Any:
            return target("ABC", 0)

    assert_causal(strategy or Rowwise(), quotes("ABC", mid=WALK))


class Peeking(Strategy):
    def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> Any:
        return [buy("ABC", 1, row=row) for row in range(len(batch)) if batch["bid"][row] < batch["bid"].max() - 5]


class PeekingAhead(Peeking):
    open_loop = True


class LatestValues(Strategy):
    def features(self) -> dict[str, FeatureSpec]:
        return {"average": ema(3)}

    def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> Any:
        latest = batch["average"][-1]  # of the batch's end, for every row of it
        return [buy("ABC", 1, row=row) for row in range(len(batch)) if batch["bid"][row] < latest - 2]


@pytest.mark.parametrize("strategy", [Peeking(), PeekingAhead(), LatestValues()])
def test_a_strategy_that_looks_ahead_is_caught(strategy: Strategy) -> None:
    with pytest.raises(AssertionError, match="looks ahead"):
        assert_causal(strategy, quotes("ABC", mid=WALK))


def test_assert_causal_leaves_the_strategy_as_it_was() -> None:
    strategy = EmaCrossover(fast=2, slow=5)
    assert_causal(strategy, quotes("ABC", mid=WALK[:20]))
    assert strategy == EmaCrossover(fast=2, slow=5)


def test_assert_causal_needs_data() -> None:
    with pytest.raises(ValueError, match="at least one event"):
        assert_causal(EmaCrossover(), [])


def test_events_of_several_instruments_are_put_in_order() -> None:
    class Counts(Strategy):
        def __init__(self) -> None:
            self.seen: list[tuple[str, int]] = []

        def on_quote(self, quote: Quote, context: StrategyContext) -> None:
            self.seen.append((quote.instrument, (quote.ts_init - START_NS) // 1_000_000_000))

    strategy = Counts()
    run_strategy(strategy, quotes("A", mid=[1, 2]) + quotes("B", mid=[3, 4]) + trades("A", price=[5]))
    assert strategy.seen == [("A", 0), ("B", 0), ("A", 1), ("B", 1)]


def test_what_a_strategy_raises_is_the_callers() -> None:
    class Breaks(Strategy):
        def on_start(self, context: StrategyContext) -> None:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run_strategy(Breaks(), quotes("ABC", mid=[1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either mid or bid and ask"),
        ({"mid": [1], "bid": [1], "ask": [1]}, "either mid or bid and ask"),
        ({"bid": [1]}, "either mid or bid and ask"),
        ({"bid": [1], "ask": [1, 2]}, "same length"),
    ],
)
def test_quotes_says_what_it_needs(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quotes("ABC", **arguments)


def test_bars_are_whole() -> None:
    (first, second) = bars("ABC", close=[10, 12])
    assert first == Bar("ABC", START_NS, START_NS, 10.0, 10.0, 10.0, 10.0, 1_000.0)
    assert (second.open, second.high, second.low, second.close) == (10.0, 12.0, 10.0, 12.0)
