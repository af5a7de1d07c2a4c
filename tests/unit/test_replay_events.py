"""Rows shown one by one to per-event strategies: no strategy is ahead of another, none sees less than it could."""

from decimal import Decimal
from typing import Any

import attrs
import pytest

from trio_nt import Quote, Strategy, StrategyContext, buy, replay
from trio_nt.testing import START_NS, quotes

MS = 1_000_000


@attrs.define
class Buys(Strategy):
    """Buys one at the rows named."""

    rows: tuple[int, ...] = ()
    seen: int = 0

    def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
        self.seen += 1
        return buy("ABC", 1) if self.seen - 1 in self.rows else None


@attrs.define
class Watches(Strategy):
    """Notes what the account holds, row by row."""

    held: list[Decimal] = attrs.field(factory=list)

    def on_quote(self, quote: Quote, context: StrategyContext) -> None:
        self.held.append(context.portfolio.position("ABC").quantity)


def market(count: int) -> list[Any]:
    return quotes("ABC", mid=[100 + number for number in range(count)], every_s=0.001)


@pytest.mark.parametrize(("latency_ms", "heard_after"), [(0, 1), (1, 2), (3, 6)])
@pytest.mark.parametrize("order", [("buyer", "watcher"), ("watcher", "buyer")])
def test_every_strategy_sees_anothers_fill_on_the_first_row_after_it(
    latency_ms: int, heard_after: int, order: tuple[str, str]
) -> None:
    buyer, watcher = Buys((2, 7)), Watches()
    ids = {"buyer": f"{order.index('buyer')}", "watcher": f"{order.index('watcher')}"}
    latency = {"order_latency_s": latency_ms / 1e3, "report_latency_s": latency_ms / 1e3}
    report = replay(market(30), {ids["buyer"]: buyer, ids["watcher"]: watcher}, **latency)
    assert report.ok
    # Without latency the fill is booked behind its own row; else what arrives at a row's time comes before that row.
    wanted = [sum(row >= at + heard_after for at in (2, 7)) for row in range(30)]
    assert [int(held) for held in watcher.held] == wanted


@attrs.define
class OfOne(Strategy):
    instruments = ("B",)
    seen: list[str] = attrs.field(factory=list)

    def on_quote(self, quote: Quote, context: StrategyContext) -> None:
        self.seen.append(quote.instrument)


def test_a_strategy_gets_the_rows_of_the_instruments_that_it_names() -> None:
    rows = [
        Quote("AB"[number % 2], START_NS + number * MS, START_NS + number * MS, 99.0, 101.0, 1.0, 1.0)
        for number in range(11)
    ]
    of_one, everything = OfOne(), Buys()
    report = replay(rows, {"one": of_one, "all": everything})
    assert of_one.seen == ["B"] * 5
    assert everything.seen == 11
    assert report.ok  # both were there for every row


@attrs.define
class Resets(Strategy):
    """Sets a timer on every row, for half a row later."""

    log: list[tuple[str, int]] = attrs.field(factory=list)

    def on_quote(self, quote: Quote, context: StrategyContext) -> None:
        self.log.append(("row", context.now_ns - START_NS))
        context.set_timer("half", at_ns=context.now_ns + MS // 2)

    def on_timer(self, name: str, context: StrategyContext) -> None:
        self.log.append((name, context.now_ns - START_NS))


def test_a_timer_set_on_a_row_fires_before_the_next_row_though_nobody_acts() -> None:
    strategy = Resets()
    replay(market(4), {"s": strategy, "other": Buys()})
    rows = [("row", number * MS) for number in range(4)]
    halves = [("half", number * MS + MS // 2) for number in range(3)]
    first = strategy.log[0][1]
    assert [(name, at - first) for name, at in strategy.log] == sorted(rows + halves, key=lambda entry: entry[1])


@attrs.define
class Raises(Strategy):
    left: int = 7

    def on_quote(self, quote: Quote, context: StrategyContext) -> None:
        if not self.left:
            raise ValueError("enough")
        self.left -= 1


def test_a_strategy_that_raises_has_seen_the_rows_up_to_that_one() -> None:
    report = replay(market(30), {"raises": Raises(), "buys": Buys((2,))})
    assert {line.strategy_id: (line.rows, line.state) for line in report.strategies} == {
        "raises": (8, "failed"),
        "buys": (30, "finished"),
    }
