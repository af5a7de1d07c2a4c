"""The runner of one strategy: what its handlers are called with, and what their actions are stamped with."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from trio_nt import FeatureSpec, Instrument, Instruments, MarketBatch, Quote, Strategy, StrategyContext, Trade, buy, ema
from trio_nt.model.market import QUOTE, TRADE, empty_columns
from trio_nt.model.orders import Order
from trio_nt.portfolio import Portfolio, PortfolioState
from trio_nt.strategies.runner import BEFORE_ROWS, Block, Caused, StrategyRunner, run_plain

INSTRUMENTS = Instruments(Instrument(id=f"{name}.X", symbol=name) for name in ("A", "B"))
NO_FEATURES: dict[str, Any] = {}


class NoDesk:
    def position(self, strategy_id: str, instrument_id: str) -> Decimal:
        return Decimal(0)

    def working_orders(self, strategy_id: str, instrument_id: str | None) -> Sequence[Order]:
        return []

    def portfolio(self) -> PortfolioState:
        return Portfolio(INSTRUMENTS).state()


def runner_of(strategy: Strategy) -> StrategyRunner:
    return StrategyRunner("s", strategy, INSTRUMENTS, NoDesk())


def block(*rows: tuple[int, str, int, int]) -> Block:
    """Rows of (time, kind, instrument, flags)."""
    columns = empty_columns(len(rows))
    for number, (at_ns, kind, instrument, flags) in enumerate(rows):
        columns["ts_init"][number], columns["instrument"][number], columns["flags"][number] = at_ns, instrument, flags
        columns["kind"][number] = QUOTE if kind == "quote" else TRADE
        columns["bid"][number] = columns["price"][number] = number
    return Block(columns, INSTRUMENTS)


def shown(runner: StrategyRunner, rows: Block, start: int, stop: int) -> list[tuple[int, int]]:
    """Time and row of what a window caused."""
    out: list[Caused] = []
    run_plain(runner.window(rows, start, stop, NO_FEATURES, runner.feature_rows(NO_FEATURES, len(rows)), out))
    return [(at_ns, row) for at_ns, row, _ in out]


ROWS = block((10, "quote", 0, 0), (10, "trade", 0, 0), (20, "quote", 1, 0), (30, "quote", 0, 4), (40, "quote", 0, 0))


class Events(Strategy):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
        self.seen.append((context.now_ns, "quote", quote.instrument, quote.bid))
        return buy(quote.instrument, 1)

    def on_trade(self, trade: Trade, context: StrategyContext) -> Any:
        self.seen.append((context.now_ns, "trade", trade.instrument, trade.price))


def test_events_come_one_by_one_and_flagged_rows_not_at_all() -> None:
    strategy = Events()
    runner = runner_of(strategy)
    assert shown(runner, ROWS, 0, 5) == [(10, 0), (20, 2), (40, 4)]
    assert strategy.seen == [
        (10, "quote", "A.X", 0.0),
        (10, "trade", "A.X", 1.0),
        (20, "quote", "B.X", 2.0),
        (40, "quote", "A.X", 4.0),
    ]
    assert (runner.rows_seen, runner.signals) == (5, 3)


@pytest.mark.parametrize("named", ["B", "B.X", ["B"]])
def test_events_are_of_the_instruments_named(named: str | list[str]) -> None:
    class OnlyB(Events):
        instruments = named

    strategy = OnlyB()
    assert shown(runner_of(strategy), ROWS, 0, 5) == [(20, 2)]
    assert [instrument for _, _, instrument, _ in strategy.seen] == ["B.X"]


@pytest.mark.parametrize("length", [1, 31, 32, 100, 299])
def test_long_windows_show_the_same_events_as_short_ones(length: int) -> None:
    rows = block(*[(number, "quote", number * number % 7 % 2, 0) for number in range(300)])
    expected = [(number, number) for number in range(300) if number * number % 7 % 2]

    class OnlyB(Events):
        instruments = "B"

    runner = runner_of(OnlyB())
    caused = [each for start in range(0, 300, length) for each in shown(runner, rows, start, min(300, start + length))]
    assert caused == expected


def test_an_instrument_that_is_not_there_is_named() -> None:
    class OnlyC(Events):
        instruments = "C"

    with pytest.raises(KeyError, match="unknown instrument 'C'"):
        runner_of(OnlyC())


class Batches(Strategy):
    def __init__(self, rows: Sequence[int | None] = (), timer_ns: int = 0) -> None:
        self.rows, self.timer_ns = rows, timer_ns
        self.seen: list[Any] = []

    def on_start(self, context: StrategyContext) -> None:
        if self.timer_ns:
            context.set_timer("t", at_ns=self.timer_ns)

    def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> Any:
        self.seen.append((len(batch), context.now_ns))
        return [buy("A", 1, row=row) for row in self.rows]

    def on_timer(self, name: str, context: StrategyContext) -> Any:
        self.seen.append((name, context.now_ns))
        return buy("A", 1)


def test_a_batchs_actions_name_their_rows_and_without_one_the_last() -> None:
    assert shown(runner_of(Batches([0, 2, None])), ROWS, 1, 5) == [(10, 1), (30, 3), (40, 4)]


@pytest.mark.parametrize("row", [-1, 4])
def test_a_row_outside_the_batch_is_an_error(row: int) -> None:
    with pytest.raises(ValueError, match=f"index into the batch of 4 rows, was {row}"):
        shown(runner_of(Batches([row])), ROWS, 1, 5)


def test_a_batch_is_read_only() -> None:
    class Writes(Strategy):
        def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> None:
            batch["bid"][0] = np.nan

    with pytest.raises(ValueError, match="read-only"):
        shown(runner_of(Writes()), ROWS, 0, 5)


@pytest.mark.parametrize(
    ("timer_ns", "seen"),
    [
        (20, [(2, 10), ("t", 20), (3, 40)]),
        (15, [(2, 10), ("t", 15), (3, 40)]),
        (5, [("t", 5), (5, 40)]),
        (41, [(5, 40)]),
    ],
)
def test_a_timer_cuts_a_batch_before_the_row_of_its_time(timer_ns: int, seen: list[Any]) -> None:
    strategy = Batches(timer_ns=timer_ns)
    runner = runner_of(strategy)
    out: list[Caused] = []
    run_plain(runner.start(1, out))
    caused = shown(runner, ROWS, 0, 5)
    assert strategy.seen == seen
    assert caused == ([(timer_ns, BEFORE_ROWS)] if timer_ns < 41 else [])


def test_timers_due_within_a_window_fire_though_its_last_rows_reach_no_handler() -> None:
    class Waits(Events):
        instruments = "A"

        def on_start(self, context: StrategyContext) -> None:
            context.set_timer("t", at_ns=25)

        def on_timer(self, name: str, context: StrategyContext) -> Any:
            return buy("B", 1)

    runner = runner_of(Waits())
    run_plain(runner.start(1, []))
    assert shown(runner, ROWS, 0, 4) == [(10, 0), (25, BEFORE_ROWS)]
    assert runner.next_timer_ns is None


def test_open_loop_and_order_handlers_exclude_each_other() -> None:
    class Both(Strategy):
        open_loop = True

        def on_fill(self, fill: Any, context: StrategyContext) -> None: ...

    with pytest.raises(TypeError, match="cannot do both"):
        runner_of(Both())


def test_a_features_name_is_an_identifier() -> None:
    class Named(Strategy):
        def features(self) -> dict[str, FeatureSpec]:
            return {"not one": ema(3)}

    with pytest.raises(ValueError, match="must be an identifier"):
        runner_of(Named())


def test_what_is_no_action_is_named() -> None:
    class Wrong(Strategy):
        def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
            return "buy"

    runner = runner_of(Wrong())
    with pytest.raises(TypeError, match="was 'buy'"):
        shown(runner, ROWS, 0, 5)
    assert runner.row == 0
