"""The example strategies, in the manner of the README, and in a closed loop over a random market."""

import random
from itertools import pairwise
from typing import Any

import pytest

from trio_nt import Reason, RiskLimits, replay
from trio_nt.strategies.examples import EmaCrossover, MarketMaker, MeanReversion, Pairs
from trio_nt.testing import assert_causal, quotes, run_strategy, trades

LATENCY = {"order_latency_s": 0.005, "report_latency_s": 0.005}


def walk(instrument: str, seed: int, count: int = 400, price: float = 100.0) -> list[Any]:
    chance, mids = random.Random(seed), [price]
    for _ in range(count):
        mids.append(max(1.0, mids[-1] * (1 + chance.gauss(0, 0.0004))))
    return quotes(instrument, mid=[round(mid, 2) for mid in mids], every_s=0.1)


def test_the_crossover_follows_the_trend() -> None:
    data = quotes("ABC", mid=[10, 10, 10, 11, 12, 13, 9, 7, 6])
    result = run_strategy(EmaCrossover(fast=2, slow=3), data)
    assert result.position == {"ABC": -1}
    assert [fill.quantity for fill in result.fills] == [1, 1, 1]  # in, out, and in the other way


def test_mean_reversion_buys_what_fell_and_leaves_near_the_average() -> None:
    calm = [100.0, 100.1] * 20
    strategy = MeanReversion(window=20, enter=2, leave=0.5)
    assert run_strategy(strategy, quotes("ABC", mid=[*calm, 99.0])).position == {"ABC": 1}
    strategy = MeanReversion(window=20, enter=2, leave=0.5)
    assert run_strategy(strategy, quotes("ABC", mid=[*calm, 99.0, 99.8, 100.0, 100.0])).position == {}


def test_the_market_maker_quotes_both_sides_once() -> None:
    result = run_strategy(MarketMaker(half_spread=0.01), quotes("ABC", mid=[100.0] * 10, every_s=0.002), **LATENCY)
    assert [(order.side.value, order.limit_price) for order in result.orders] == [("buy", 99), ("sell", 101)]
    assert not result.refusals


def test_the_market_maker_leans_away_from_what_it_holds() -> None:
    # A trade below 99 takes its bid; then both quotes belong 0.5 % lower.
    data = [*quotes("ABC", mid=[100.0] * 10), *trades("ABC", price=[98.9], size=10, start_ns=1_700_000_002_500_000_000)]
    result = run_strategy(MarketMaker(half_spread=0.01, lean=0.005), data, **LATENCY)
    assert result.position == {"ABC": 1}
    working = {order.side.value: float(order.limit_price or 0) for order in result.orders if order.is_working}
    assert working == {"buy": 98.5, "sell": 100.5}


def test_the_market_maker_stops_buying_at_its_limit_and_never_quotes_twice() -> None:
    falling = [round(100 * 0.998**number, 2) for number in range(60)]
    result = run_strategy(MarketMaker(max_position=3), quotes("ABC", mid=falling), **LATENCY)
    assert 0 < result.position["ABC"] <= 4  # one quote may be filled while it is being withdrawn
    working = [order.side for order in result.orders if order.is_working]
    assert len(working) == len(set(working))
    with_limits = run_strategy(
        MarketMaker(), walk("ABC", 1), **LATENCY, limits=RiskLimits(max_open_orders=2)
    )  # a third would be refused
    assert len(with_limits.fills) > 20
    assert {refusal.reason for refusal in with_limits.refusals} <= {Reason.SELF_TRADE}


def test_pairs_sells_the_dear_one_for_as_much_of_the_other() -> None:
    chance = random.Random(3)
    ratio = [2 + chance.uniform(-0.002, 0.002) for _ in range(60)]
    first = quotes("AAA", mid=[100 * each for each in ratio] + [204.0])
    second = quotes("BBB", mid=[100.0] * 61, start_ns=1_700_000_000_500_000_000)
    assert run_strategy(Pairs(window=50), [*first, *second]).position == {"AAA": -1, "BBB": 2}
    later = 1_700_000_100_000_000_000
    back = [*quotes("AAA", mid=[200.0, 200.0], start_ns=later), *quotes("BBB", mid=[100.0] * 2, start_ns=later + 1)]
    assert run_strategy(Pairs(window=50, leave=1.5), [*first, *second, *back]).position == {}


def test_pairs_keeps_no_leg_alone() -> None:
    chance = random.Random(3)
    ratio = [2 + chance.uniform(-0.002, 0.002) for _ in range(60)]
    data = [
        *quotes("AAA", mid=[*(100 * each for each in ratio), 204.0, 204.0]),
        *quotes("BBB", mid=[100.0] * 62, start_ns=1_700_000_000_500_000_000),
    ]
    result = run_strategy(Pairs(window=50), data, limits=RiskLimits(max_order_quantity=1))  # the second needs 2
    assert [refusal.instrument for refusal in result.refusals] == ["BBB"]
    assert result.position == {}


def test_pairs_needs_two_instruments() -> None:
    with pytest.raises(ValueError, match="Pairs needs two instruments, there is ABC"):
        run_strategy(Pairs(), quotes("ABC", mid=[1, 2]))


EXAMPLES = [
    lambda: EmaCrossover(fast=3, slow=8, hysteresis=0),
    lambda: MeanReversion(window=30, enter=1),
    lambda: MarketMaker(),
    lambda: Pairs(window=30, enter=1),
]


@pytest.mark.slow
@pytest.mark.parametrize("make", EXAMPLES, ids=["ema", "reversion", "maker", "pairs"])
def test_an_example_trades_looks_at_nothing_later_and_is_fully_accounted_for(make: Any) -> None:
    data = sorted([*walk("AAA", 1), *walk("BBB", 2, price=40.0)], key=lambda event: event.ts_init)
    assert all(one.ts_init <= other.ts_init for one, other in pairwise(data))
    assert_causal(make(), data)
    report = replay(data, make(), cash=1_000_000, check_causality=True)
    assert report.ok, report.format()
    assert report.orders_by_state.get("filled", 0) > 5
