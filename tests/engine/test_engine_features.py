"""Features in an engine and in a replay: what hosts read of them, and what is refused before anything happens."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from engine_scripts import Listening, ScriptedFeed, arguments, bar, pause, quote, trade, wait

import trio_nt.feeds.data as data_module
from trio_nt import InvalidStrategy, Strategy, atr, difference, ema, open_engine, replay, sma, vwap
from trio_nt.features import FeatureSpec, apply
from trio_nt.model.market import QUOTE, TRADE, Bar, Quote, Trade
from trio_nt.testing import run_strategy

PRICES = np.arange(1.0, 41.0)


@attrs.define
class Reads(Strategy):
    """Notes one feature row by row."""

    spec: FeatureSpec
    values: list[float] = attrs.field(factory=list)
    started: bool = False

    def features(self) -> Mapping[str, FeatureSpec]:
        return {"it": self.spec}

    def on_start(self, context: Any) -> None:
        self.started = True

    def on_quote(self, quote: Any, context: Any) -> None:
        self.values.append(context.features.it)

    on_trade = on_bar = on_quote


class QuotesOnly(ScriptedFeed):
    kinds = frozenset({QUOTE})


# -- what a host reads --


async def computed(engine: Any, rows: int) -> None:
    """Wait until the features of so many rows stand."""
    with trio.fail_after(60):
        while engine.statistics().features.rows < rows:
            await trio.sleep(0.001)


async def test_a_host_reads_latest_values_and_history_through_the_cache() -> None:
    spec, go, gone = sma(2), trio.Event(), trio.Event()
    feed = ScriptedFeed(quote("ABC", PRICES[:3]), wait(go), quote("ABC", PRICES[3:]), wait(gone))
    async with open_engine(**arguments([feed], Reads(spec), feature_history=10)) as engine:
        await engine.start()
        await computed(engine, 3)
        assert engine.features.specs == (spec,)
        assert engine.features.latest("ABC", spec) == 2.5
        go.set()
        await computed(engine, 40)
        assert engine.features.latest("ABC", spec) == 39.5
        history = engine.features.history("ABC", spec, 10)
        assert history.tolist() == (PRICES[-10:] - 0.5).tolist()
        assert not history.flags.writeable
        cached = engine.statistics().feature_cache
        assert (cached.lookups, cached.hits, cached.misses, cached.rings) == (3, 2, 1, 1)
        assert (engine.statistics().features.requests, engine.statistics().features.features) == (1, 1)
        for call in (lambda: engine.features.latest("XYZ", spec), lambda: engine.features.latest("ABC", sma(3))):
            with pytest.raises(KeyError):
                call()
        with pytest.raises(ValueError, match="rows must be between 1 and 10, was 11"):
            engine.features.history("ABC", spec, 11)
        gone.set()
        report = await engine.wait()
    assert report.ok
    (line,) = [line for line in report.data if line.startswith("feature cache: ")]
    assert line == "feature cache: 3 lookups, 66.7% hits, 1 histories in 0.0 MB, 0 evicted"


async def test_a_history_read_for_the_first_time_begins_with_the_value_of_the_moment() -> None:
    spec, gone = sma(2), trio.Event()
    async with open_engine(**arguments([ScriptedFeed(quote("ABC", PRICES), wait(gone))], Reads(spec))) as engine:
        await engine.start()
        await computed(engine, 40)
        assert engine.features.history("ABC", spec, 10).tolist() == [39.5]
        gone.set()
        await engine.wait()


async def test_the_cache_keeps_to_its_bound_and_evicts_what_was_read_longest_ago() -> None:
    gone = trio.Event()
    strategies = {f"s{n}": Reads(sma(n)) for n in range(1, 5)}
    feed = ScriptedFeed(quote("ABC", PRICES), wait(gone))
    async with open_engine(**arguments([feed], strategies, feature_history=10, feature_cache_bytes=3 * 160)) as engine:
        await engine.start()
        await computed(engine, 40)
        for n in (1, 2, 3, 1, 4, 1, 3):  # 4 takes the place of 2
            engine.features.latest("ABC", sma(n))
        cached = engine.statistics().feature_cache
        assert (cached.lookups, cached.hits, cached.evictions, cached.rings) == (7, 3, 1, 3)
        assert cached.bytes <= 3 * 160
        gone.set()
        await engine.wait()


# -- what is refused --


async def refused_live(strategy: Strategy, feeds: Sequence[Any], **config: Any) -> InvalidStrategy:
    """The error of adding a strategy to a new engine, which must be that of adding it to a running one."""
    async with open_engine(**arguments(feeds, (), **config)) as engine:
        with pytest.raises(InvalidStrategy) as new:
            engine.add_strategy("mine", strategy)
        await engine.start()
        with pytest.raises(InvalidStrategy) as running:
            engine.add_strategy("mine", strategy)
        assert engine.statistics().strategies == {}
        assert engine.statistics().features.requests == 0
        engine.stop()
    assert str(new.value) == str(running.value)
    assert isinstance(new.value, ValueError)
    return new.value


@pytest.mark.parametrize("spec", [ema(3, on="trade"), vwap(3), difference(ema(2), atr(3))])
async def test_a_field_that_no_feed_announces_is_refused_when_the_strategy_is_added(spec: FeatureSpec) -> None:
    error = await refused_live(Reads(spec), [QuotesOnly(), QuotesOnly(wait(trio.Event()))])
    assert "strategy 'mine': feature 'it': " in str(error)
    assert "which the data does not have; it has bid, ask, bid_size, ask_size" in str(error)


async def test_strategies_given_when_the_engine_opens_are_refused_as_they_are() -> None:
    with pytest.raises(InvalidStrategy, match="strategy 'reads': feature 'it'"):
        async with open_engine(**arguments([QuotesOnly()], Reads(ema(3, on="trade")))):
            raise AssertionError("the block must not begin")


async def test_a_window_longer_than_the_history_is_refused_when_the_strategy_is_added() -> None:
    error = await refused_live(Reads(sma(51)), [ScriptedFeed(wait(trio.Event()))], longest_window=50)
    assert str(error).endswith("the window of sma(51) must be at most 50 rows, the history, was 51")


async def test_what_no_feature_is_and_an_unknown_instrument_are_refused_when_the_strategy_is_added() -> None:
    @attrs.define
    class Elsewhere(Listening):
        instruments = "XYZ"

    async with open_engine(**arguments([QuotesOnly()], ())) as engine:
        with pytest.raises(TypeError, match="strategy 'a': feature 'it': a feature must be a FeatureSpec"):
            engine.add_strategy("a", Reads("ema(10)"))  # type: ignore[arg-type]
        with pytest.raises(KeyError, match="unknown instrument 'XYZ'"):
            engine.add_strategy("a", Elsewhere())
        engine.add_strategy("a", Listening())  # the id is free


async def test_where_a_feed_does_not_say_what_it_sends_everything_may_come() -> None:
    strategy = Reads(sma(1, on="trade"))
    feeds = [QuotesOnly(), ScriptedFeed(trade("ABC", 5.0))]
    async with open_engine(**arguments(feeds, strategy)) as engine:
        await engine.start()
        await engine.wait()
    assert strategy.values == [5.0]


def test_a_real_feed_announces_what_it_sends() -> None:
    from trio_nt.feeds.alpaca import AlpacaFeed

    assert AlpacaFeed.kinds == {QUOTE, TRADE}


QUOTES = [Quote("ABC", row, row, price, price, 1, 1) for row, price in enumerate(PRICES, 1)]
TRADES = [Trade("ABC", row, row, price, 1, 0) for row, price in enumerate(PRICES[:5], 100)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ema(3, on="bar"), r"needs the field 'close', which the data does not have; it has bid, .*, price, size"),
        (difference(mid_of := ema(2), sma(3, on="bar")), "needs the field 'close'"),
        (sma(41), r"the window of sma\(41\) must be at most 40 rows, all there are, was 41"),
        (difference(mid_of, sma(6, on="trade")), "must be at most 5 rows, all there are, was 6"),
        (sma(100_001), "at most 100000 rows, the history"),
    ],
)
def test_a_replay_refuses_what_its_data_cannot_give_before_any_effect(spec: FeatureSpec, message: str) -> None:
    strategy, other = Reads(spec), Reads(ema(2))
    with pytest.raises(InvalidStrategy, match=message) as refused:
        replay([*QUOTES, *TRADES], {"other": other, "mine": strategy})
    assert "strategy 'mine': feature 'it': " in str(refused.value)
    assert not strategy.started
    assert not other.started


def test_a_replay_takes_what_its_data_can_give() -> None:
    strategy = Reads(difference(sma(40), sma(5, on="trade")))
    assert replay([*QUOTES, *TRADES], strategy).ok
    assert strategy.values[-1] == PRICES.mean() - PRICES[:5].mean()


def test_what_a_long_file_holds_behind_the_rows_read_ahead_cannot_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture holds quotes and trades: trades may still come. Bars cannot."""
    monkeypatch.setattr(data_module, "ROWS_AHEAD", 10)
    strategy = Reads(sma(2, on="trade"))
    assert replay(data_module.MarketData([InPieces(QUOTES)]), strategy).ok
    assert np.isnan(strategy.values).all()
    with pytest.raises(InvalidStrategy, match="needs the field 'close'"):
        replay(data_module.MarketData([InPieces(QUOTES)]), Reads(sma(2, on="bar")))


class InPieces(data_module.EventSource):
    """Events whose rows come five at a time, in the form of a capture."""

    def __init__(self, events: Sequence[Any]) -> None:
        super().__init__(events)
        self.kinds = frozenset({QUOTE, TRADE})
        self._events = list(events)

    def again(self) -> "InPieces":
        return InPieces(self._events)

    def pieces(self) -> Any:
        for piece in super().pieces():
            for start in range(0, len(piece["kind"]), 5):
                yield {name: column[start : start + 5] for name, column in piece.items()}


def test_the_command_line_names_strategy_feature_and_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trio_nt.cli import main

    strategy, data = tmp_path / "reads_quotes.py", tmp_path / "bars.csv"
    strategy.write_text(
        "import attrs\nfrom trio_nt import Strategy, ema\n\n\n@attrs.define\nclass Mine(Strategy):\n"
        "    def features(self):\n        return {'fast': ema(3)}\n"
    )
    rows = "".join(f"2024-01-02T00:0{minute}:00Z,ABC,1,2,1,2,10\n" for minute in range(5))
    data.write_text("time,instrument,open,high,low,close,volume\n" + rows)
    assert main(["replay", str(data), "--bar-time", "close", "--strategy", f"{strategy}:Mine"]) == 2
    said = capsys.readouterr().err
    assert "strategy 'mine': feature 'fast': ema(3) needs the field 'bid', which the data does not have" in said
    assert "Traceback" not in said


# -- one order of bars, quotes and trades --


async def test_features_of_bars_and_quotes_are_those_of_a_replay() -> None:
    """Whichever ring is computed first: a row's value is made of the rows that were sent before it."""
    spec = difference(sma(2), sma(2, on="bar"))
    counted = apply(len_of, 3, on=spec)
    steps: list[Any] = []
    events: list[Any] = []
    random = np.random.default_rng(5)
    for row in range(300):
        price = float(random.integers(1, 100))
        if random.random() < 0.3:
            steps.append(bar("ABC", price))
            events.append(Bar("ABC", row, row, price, price, price, price, 1))
        else:
            steps.append(quote("ABC", price))
            events.append(Quote("ABC", row, row, price, price, 100, 100))
        if random.random() < 0.1:
            steps.append(pause(0.001))
    for each in (spec, counted):
        live, replayed = Reads(each), Reads(each)
        async with open_engine(**arguments([ScriptedFeed(*steps)], live)) as engine:
            await engine.start()
            assert (await engine.wait()).ok
        run_strategy(replayed, events)
        assert len(live.values) == 300
        assert np.array_equal(live.values, replayed.values, equal_nan=True)


def len_of(values: Any) -> float:
    return float(values.sum())


# -- compiling --


@pytest.mark.parametrize("with_features", [False, True])
def test_the_compiler_is_imported_only_where_an_engine_with_features_opens(with_features: bool) -> None:
    code = f"""
import sys, trio
import trio_nt
from trio_nt import EngineConfig, SimulatedBroker, Strategy, ema, open_engine
from trio_nt.testing import run_strategy

class Some(Strategy):
    def features(self):
        return {{"it": ema(2)}} if {with_features} else {{}}

said = []
async def main():
    assert "numba" not in sys.modules
    async with open_engine(EngineConfig(on_progress=said.append), broker=SimulatedBroker(cash=1), strategies=Some()):
        print("numba" in sys.modules, said[:1])
trio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = "['loading compiled features (the first time takes some seconds)']" if with_features else "[]"
    assert done.stdout.strip() == f"{with_features} {said}"
