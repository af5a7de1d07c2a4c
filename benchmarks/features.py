"""Features and frames: streaming, over a frame, as DataFrames; beside TA-Lib, talipp and polars.

    bars of m instruments ──batches of n──► FeaturePipeline.compute ──► one column per feature

The twenty features are those of ``TWENTY``, every output of each counted as one indicator only. Answers are checked
against TA-Lib before anything is timed: a fast wrong answer fails.
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import polars
import talib
import talipp.indicators as ti
import trio
from talipp.ohlcv import OHLCV

from benchmarks.harness import RUNS, Row, main, median_of, percentile, seconds
from trio_nt import Bar, EngineConfig, Instrument, Instruments, Strategy, StrategyContext, open_engine
from trio_nt.features import (
    FeatureCache,
    FeaturePipeline,
    FeatureSpec,
    MarketHistory,
    adx,
    atr,
    bollinger,
    cci,
    compute,
    cross,
    dema,
    dot_product,
    ema,
    macd,
    mfi,
    moving_average,
    obv,
    roc,
    rolling_max,
    rolling_min,
    rsi,
    sma,
    stdev,
    stochastic,
    tema,
    williams_r,
    wma,
)
from trio_nt.model.market import BAR, BAR_FIELDS, QUOTE, empty_columns

Columns = dict[str, np.ndarray]
ON = "bar"

# Ours (all outputs), TA-Lib's call, talipp's class.
TWENTY: dict[str, tuple[list[FeatureSpec], Callable[..., Any], Callable[[], Any] | None]] = {
    "sma": ([sma(20, ON)], lambda h, lo, c, v: talib.SMA(c, 20), lambda: ti.SMA(20)),
    "ema": ([ema(20, ON)], lambda h, lo, c, v: talib.EMA(c, 20), lambda: ti.EMA(20)),
    "wma": ([wma(20, ON)], lambda h, lo, c, v: talib.WMA(c, 20), lambda: ti.WMA(20)),
    "dema": ([dema(20, ON)], lambda h, lo, c, v: talib.DEMA(c, 20), lambda: ti.DEMA(20)),
    "tema": ([tema(20, ON)], lambda h, lo, c, v: talib.TEMA(c, 20), lambda: ti.TEMA(20)),
    "macd": (
        [macd(on=ON), macd(on=ON).signal, macd(on=ON).histogram],
        lambda h, lo, c, v: talib.MACD(c)[0],
        lambda: ti.MACD(12, 26, 9),
    ),
    "rsi": ([rsi(14, ON)], lambda h, lo, c, v: talib.RSI(c, 14), lambda: ti.RSI(14)),
    "stochastic": (
        [stochastic(14, 3, 3), stochastic(14, 3, 3).d],
        lambda h, lo, c, v: talib.STOCH(h, lo, c, 14, 3, 0, 3, 0)[0],
        lambda: ti.Stoch(14, 3),
    ),
    "williams_r": ([williams_r(14)], lambda h, lo, c, v: talib.WILLR(h, lo, c, 14), lambda: ti.Williams(14)),
    "cci": ([cci(20)], lambda h, lo, c, v: talib.CCI(h, lo, c, 20), lambda: ti.CCI(20)),
    "roc": ([roc(10, ON)], lambda h, lo, c, v: talib.ROC(c, 10), lambda: ti.ROC(10)),
    "atr": ([atr(14)], lambda h, lo, c, v: talib.ATR(h, lo, c, 14), lambda: ti.ATR(14)),
    "adx": ([adx(14)], lambda h, lo, c, v: talib.ADX(h, lo, c, 14), lambda: ti.ADX(14, 14)),
    "plus_di": ([adx(14).plus_di], lambda h, lo, c, v: talib.PLUS_DI(h, lo, c, 14), None),
    "bollinger": (
        [bollinger(20, 2.0, ON), bollinger(20, 2.0, ON).upper, bollinger(20, 2.0, ON).lower],
        lambda h, lo, c, v: talib.BBANDS(c, 20, 2.0, 2.0)[1],
        lambda: ti.BB(20, 2),
    ),
    "stdev": ([stdev(20, ON)], lambda h, lo, c, v: talib.STDDEV(c, 20), lambda: ti.StdDev(20)),
    "obv": ([obv()], lambda h, lo, c, v: talib.OBV(c, v), lambda: ti.OBV()),
    "mfi": ([mfi(14)], lambda h, lo, c, v: talib.MFI(h, lo, c, v, 14), None),
    "rolling_max": ([rolling_max(20, ON)], lambda h, lo, c, v: talib.MAX(c, 20), None),
    "rolling_min": ([rolling_min(20, ON)], lambda h, lo, c, v: talib.MIN(c, 20), None),
}
OF_BARS = ("stochastic", "williams_r", "cci", "atr", "adx", "obv")
SPECS = [spec for specs, _, _ in TWENTY.values() for spec in specs]
ONE_EACH = [specs[0] for specs, _, _ in TWENTY.values()]


def bars(count: int, instruments: int) -> Columns:
    random = np.random.default_rng(1)
    rows = empty_columns(count, BAR_FIELDS)
    rows["kind"][:] = BAR
    rows["instrument"][:] = random.integers(0, instruments, count)
    rows["close"][:] = 100 + 0.1 * random.standard_normal(count).cumsum()
    rows["open"][:] = rows["close"] + 0.1 * random.standard_normal(count)
    rows["high"][:] = np.maximum(rows["open"], rows["close"]) + 0.1 * random.random(count)
    rows["low"][:] = np.minimum(rows["open"], rows["close"]) - 0.1 * random.random(count)
    rows["volume"][:] = random.integers(1, 1000, count)
    return rows


def pipeline_of(specs: list[FeatureSpec], compiled: bool, instruments: int = 1) -> FeaturePipeline:
    pipeline = FeaturePipeline(instruments)
    if compiled and not pipeline.prepare():
        raise SystemExit("this benchmark needs the extra [compiled]")
    pipeline.require(specs)
    return pipeline


def batches(rows: Columns, size: int, most: int) -> list[Columns]:
    count = min(len(rows["kind"]) // size, most)
    return [{name: column[i * size : (i + 1) * size] for name, column in rows.items()} for i in range(count)]


def times_of(function: Callable[[], object], count: int) -> list[float]:
    """Sorted seconds of ``count`` calls, after up to 50 to warm up; no garbage collection."""
    for _ in range(min(count, 50)):
        function()
    gc.disable()
    try:
        return sorted(seconds(function) for _ in range(count))
    finally:
        gc.enable()


def oracle_inputs(rows: Columns) -> list[np.ndarray]:
    return [rows[name] for name in ("high", "low", "close", "volume")]


def check(values: Mapping[FeatureSpec, np.ndarray], rows: Columns) -> None:
    for name, (specs, call, _) in TWENTY.items():
        expected = call(*oracle_inputs(rows))
        known = ~np.isnan(expected)
        scale = np.maximum(np.abs(expected[known]), 1e-3 * np.abs(expected[known]).max())
        worst = np.max(np.abs(values[specs[0]][known] - expected[known]) / scale)
        if not worst <= 1e-9:
            raise SystemExit(f"{name} differs from TA-Lib by {worst}")


def twenty_over_a_frame(quick: bool) -> Iterator[Row]:
    rows = bars(1000, 1)
    inputs = oracle_inputs(rows)
    calls = [call for _, call, _ in TWENTY.values()]
    count = 100 if quick else 1000
    case = "20 indicators × 1,000 rows"
    oracle = times_of(lambda: [call(*inputs) for call in calls], count)
    for compiled in (True, False):
        pipeline = pipeline_of(SPECS, compiled)
        check(pipeline.compute(rows), rows)
        word = "compiled" if compiled else "interpreted"

        def run(pipeline: FeaturePipeline = pipeline) -> None:
            pipeline.reset()
            pipeline.compute(rows)

        ours = times_of(run, count if compiled else 20)
        gate = 1.0 if compiled else None
        yield Row(case, f"{word} p99", percentile(ours, 0.99) * 1e3, "ms", percentile(oracle, 0.99) * 1e3, gate=gate)
        yield Row(case, f"{word} p50 ÷ TA-Lib's", percentile(ours, 0.5) / percentile(oracle, 0.5), "×", 1.0, gate=gate)
    whole = times_of(lambda: compute(rows, SPECS), count)
    yield Row(
        case, "compute() p99", percentile(whole, 0.99) * 1e3, "ms", gate=1.0, note="builds its pipeline each time"
    )
    polars_frame = polars.DataFrame({"close": rows["close"]})
    five = [
        polars.col("close").rolling_mean(20).alias("sma"),
        polars.col("close").ewm_mean(span=20, adjust=False).alias("ema"),
        polars.col("close").rolling_std(20, ddof=0).alias("stdev"),
        polars.col("close").rolling_max(20).alias("max"),
        polars.col("close").rolling_min(20).alias("min"),
    ]
    theirs = times_of(lambda: polars_frame.select(five), count)
    pipeline = pipeline_of([sma(20, ON), ema(20, ON), stdev(20, ON), rolling_max(20, ON), rolling_min(20, ON)], True)

    def run_five() -> None:
        pipeline.reset()
        pipeline.compute(rows)

    ours = times_of(run_five, count)
    yield Row(
        "5 indicators × 1,000 rows, beside polars",
        "p50",
        percentile(ours, 0.5) * 1e6,
        "µs",
        percentile(theirs, 0.5) * 1e6,
    )


def talipp_values_per_second(rows: Columns, count: int) -> tuple[float, int]:
    """Values a second of one instrument through those of the twenty that talipp has; and how many those are."""
    made = {name: make() for name, (_, _, make) in TWENTY.items() if make is not None}
    values = [
        OHLCV(*(float(rows[name][i]) for name in ("open", "high", "low", "close", "volume"))) for i in range(count)
    ]
    start = time.perf_counter()
    for value in values:
        for name, indicator in made.items():
            indicator.add(value if name in OF_BARS else value.close)
    return count * len(made) / (time.perf_counter() - start), len(made)


def streaming(quick: bool) -> Iterator[Row]:
    size, instruments = 100, 1000
    rows = bars(50_000 if quick else 200_000, instruments)
    theirs, had = talipp_values_per_second(rows, 200 if quick else 1000)
    case = "20 features, 1,000 instruments, batches of 100"
    for compiled in (True, False):
        parts = batches(rows, size, 2000 if compiled else 100)
        pipeline = pipeline_of(ONE_EACH, compiled, instruments)
        for part in parts if compiled else parts[:20]:
            pipeline.compute(part)  # past the warm-up: compiled has seen 200 bars of every instrument

        def run(pipeline: FeaturePipeline = pipeline, parts: list[Columns] = parts) -> float:
            took = seconds(lambda: [pipeline.compute(part) for part in parts])
            return len(parts) * size * len(ONE_EACH) / took / 1e6

        rate = median_of(run, runs=3 if quick else RUNS, warm_up=0)
        yield Row(
            case, "compiled" if compiled else "interpreted", rate, "M values/s", theirs / 1e6,
            gate=50.0 if compiled else 0.5, aim=100.0 if compiled else None, at_most=False, note=f"talipp has {had}",
        )  # fmt: skip
    one = batches(bars(3000, 1), 1, 3000)
    for compiled in (True, False):
        pipeline = pipeline_of(ONE_EACH, compiled)
        took = []
        for part in one:
            start = time.perf_counter()
            pipeline.compute(part)
            took.append(time.perf_counter() - start)
        took = sorted(took[500:])
        gate = 5.0 if compiled else None
        word = "compiled p50" if compiled else "interpreted p50"
        yield Row(
            "one event of one instrument, all 20", word, percentile(took, 0.5) * 1e6, "µs", 20e6 / theirs, gate=gate
        )


def crossover(quick: bool) -> Iterator[Row]:
    """What the common strategy costs: cross(ema, ema) on quotes, in batches of 100."""
    count = 20_000 if quick else 100_000
    rows = empty_columns(count)
    rows["kind"][:] = QUOTE
    rows["bid"][:] = 100 + 0.1 * np.random.default_rng(1).standard_normal(count).cumsum()
    rows["ask"][:] = rows["bid"] + 0.01
    for compiled in (True, False):
        pipeline = pipeline_of([cross(ema(10), ema(20))], compiled)
        parts = batches(rows, 100, count)
        took = median_of(lambda: seconds(lambda: [pipeline.compute(part) for part in parts]), runs=3 if quick else RUNS)  # noqa: B023
        yield Row("cross(ema, ema) on quotes", "compiled" if compiled else "interpreted", took / count * 1e6, "µs/row")


def frames(quick: bool) -> Iterator[Row]:
    history = MarketHistory(1000, instrument_count=10)
    rows = empty_columns(5000)
    rows["bid"][:] = np.arange(5000)
    rows["instrument"][:] = np.arange(5000) % 3
    history.append(rows)
    count = 500 if quick else 5000
    case = "frame of 1,000 rows × 8"
    columns = times_of(lambda: history.frame(1), count)
    yield Row(case, "columns p99", percentile(columns, 0.99) * 1e6, "µs", gate=10.0)
    yield Row(case, "columns a second", 1 / percentile(columns, 0.5), "frames/s", gate=10_000, at_most=False)
    as_polars = times_of(lambda: history.frame(1).to_polars(), count)
    copied = times_of(
        lambda: polars.DataFrame({name: column.copy() for name, column in history.frame(1).items()}), count
    )
    yield Row(case, "polars p99", percentile(as_polars, 0.99) * 1e3, "ms", percentile(copied, 0.99) * 1e3, gate=0.5)
    yield Row(case, "polars a second", 1 / percentile(as_polars, 0.5), "frames/s", gate=10_000, at_most=False)
    as_arrow = times_of(lambda: history.frame(1).to_arrow(), count)
    yield Row(case, "arrow p99", percentile(as_arrow, 0.99) * 1e6, "µs")
    as_pandas = times_of(lambda: history.frame(1).to_pandas(), count)
    yield Row(case, "pandas p99", percentile(as_pandas, 0.99) * 1e6, "µs")
    part = {name: column[:100] for name, column in rows.items()}
    appended = times_of(lambda: history.append(part), count)
    yield Row("history, batches of 100 rows × 8", "p50", percentile(appended, 0.5) / 100 * 1e9, "ns/row")


def simd(quick: bool) -> Iterator[Row]:
    count = 200 if quick else 1000
    for dtype, gate in ((np.float32, 3.0), (np.float64, None)):
        prices = np.random.default_rng(1).random(100_000).astype(dtype)
        expected = polars.Series(prices.astype(np.float64)).rolling_mean(20).to_numpy()[19:]
        if not np.allclose(moving_average(prices, 20), expected, rtol=1e-5):
            raise SystemExit("moving_average is wrong")
        series = polars.Series(prices)
        ours = percentile(times_of(lambda: moving_average(prices, 20), count), 0.5)  # noqa: B023
        theirs = percentile(times_of(lambda: series.rolling_mean(20), count // 5), 0.5)  # noqa: B023
        case = f"SMA(20) on 100,000 {np.dtype(dtype).name}, beside polars"
        yield Row(case, "p50", ours / 1e5 * 1e9, "ns/element", theirs / 1e5 * 1e9, gate=gate)
        first, second = np.random.default_rng(2).random((2, 1024)).astype(dtype)
        repeat = range(100)
        ours = percentile(times_of(lambda: [dot_product(first, second) for _ in repeat], count), 0.5)  # noqa: B023
        theirs = percentile(times_of(lambda: [np.dot(first, second) for _ in repeat], count), 0.5)  # noqa: B023
        yield Row(f"dot product of 1,024 {np.dtype(dtype).name}, beside NumPy", "p50", ours * 1e7, "ns", theirs * 1e7)


def cache(quick: bool) -> Iterator[Row]:
    """100 strategies, each with 5 of 20 features on one of 50 instruments, ask for their windows at every batch."""
    random = np.random.default_rng(3)
    rows = bars(5_000 if quick else 20_000, 50)
    strategies = [(int(random.integers(50)), random.choice(20, 5, replace=False).tolist()) for _ in range(100)]
    pipeline = pipeline_of(ONE_EACH, True, 50)
    wanted = FeaturePipeline(50)
    for _, chosen in strategies:
        wanted.require(ONE_EACH[i] for i in chosen)
    kept = FeatureCache(rows=1000)
    for part in batches(rows, 100, 1000):
        kept.append(part["instrument"], pipeline.compute(part))
        for instrument, chosen in strategies:
            for i in chosen:
                kept.last(instrument, ONE_EACH[i], 100)
    statistics = kept.statistics()
    case = "feature cache, 100 strategies × 5 of 20 features"
    yield Row(case, "hit rate", 100 * statistics.hit_rate, "%", gate=80.0, at_most=False)
    yield Row(case, "memory", statistics.bytes / 1e6, "MB", gate=50.0)
    asked = wanted.statistics()
    yield Row(
        case, "requests computed once", 100 * (1 - asked.features / asked.requests), "%", gate=80.0, at_most=False
    )
    looked = percentile(times_of(lambda: kept.last(strategies[0][0], ONE_EACH[strategies[0][1][0]], 100), 2000), 0.5)
    yield Row(case, "lookup p50", looked * 1e6, "µs")


class Wants(Strategy):
    """Reads a few of the features on every bar of its own instrument."""

    def __init__(self, instrument: str, chosen: list[int]) -> None:
        self.instruments = instrument
        self.chosen = chosen
        self.bars = 0

    def features(self) -> Mapping[str, FeatureSpec]:
        return {f"f{i}": ONE_EACH[i] for i in self.chosen}

    def on_bar(self, bar: Bar, context: StrategyContext) -> None:
        self.bars += 1


def engine_cache(quick: bool) -> Iterator[Row]:
    """The same 100 strategies in an engine, and a dashboard that reads each one's features at every batch of bars."""
    random = np.random.default_rng(3)
    strategies = {
        f"s{n:03}": Wants(f"I{random.integers(50)}", random.choice(20, 5, replace=False).tolist()) for n in range(100)
    }
    rows = bars(2_000 if quick else 20_000, 50)
    parts = batches(rows, 100, 1000)
    names = [f"I{index}" for index in range(50)]
    prices = ("open", "high", "low", "close", "volume")
    reads = 0

    class Source:
        kinds = frozenset({BAR})

        async def run(self, send: Any, *, task_status: Any) -> None:
            nonlocal reads
            task_status.started()
            for part in parts:
                await send.bars(instrument=part["instrument"], ts_event=0, **{name: part[name] for name in prices})
                while engine.features.statistics().rows < engine.bars.rows_sent:
                    await trio.sleep(0.001)
                for strategy in strategies.values():
                    for i in strategy.chosen:
                        engine.features.history(strategy.instruments, ONE_EACH[i], 100)
                        reads += 1

    engine: Any = None

    async def trade() -> None:
        nonlocal engine
        described = Instruments(Instrument(id=name, symbol=name) for name in names)
        config = EngineConfig(instruments=described)
        async with open_engine(config, feeds=[Source()], strategies=strategies) as engine:
            await engine.start()
            await engine.wait()

    trio.run(trade)
    seen, expected = sum(strategy.bars for strategy in strategies.values()), 0
    for strategy in strategies.values():
        expected += int(np.count_nonzero(rows["instrument"] == int(strategy.instruments[1:])))
    statistics = engine.statistics()
    cached, asked = statistics.feature_cache, statistics.features
    if seen != expected or cached.lookups != reads or asked.rows != len(parts) * 100:
        raise SystemExit(
            f"the engine lost rows or lookups: {seen} of {expected} bars, {cached.lookups} of {reads} reads"
        )
    case = "feature cache of an engine, 100 strategies × 5 of 20"
    yield Row(case, "hit rate", 100 * cached.hit_rate, "%", gate=80.0, at_most=False, note=f"{reads:,} lookups")
    yield Row(case, "memory", cached.bytes / 1e6, "MB", gate=50.0)
    yield Row(
        case, "requests computed once", 100 * (1 - asked.features / asked.requests), "%", gate=80.0, at_most=False
    )


def memory(quick: bool) -> Iterator[Row]:
    """1,000 instruments × 20 features: streaming state, and histories of 1,000 rows within the cache's bound."""
    case = "1,000 instruments × 20 features × 1,000 rows"
    state = pipeline_of(ONE_EACH, True, 1000).statistics().state_bytes
    yield Row(case, "streaming state", state / 1e6, "MB", note="no history: windows are part of the state")
    kept = FeatureCache(rows=1000)
    before = resident_bytes()
    for instrument in range(1000):
        for spec in ONE_EACH:
            kept.last(instrument, spec, 1)
    everyone = np.repeat(np.arange(1000, dtype=np.int32), 10)
    column = np.arange(10_000.0)
    for _ in range(100):
        kept.append(everyone, dict.fromkeys(ONE_EACH, column))
    grown = resident_bytes() - before
    yield Row(
        case,
        "histories in the cache",
        grown / 1e6,
        "MB",
        160.0,
        gate=50.0 * 1.1,
        note="the seed's row: 50 MB an instance; baseline: all of them as float64; rings are evicted",
    )


def resident_bytes() -> int:
    import psutil

    gc.collect()
    return int(psutil.Process().memory_info().rss)


def cases(quick: bool) -> Iterator[Row]:
    for part in (twenty_over_a_frame, streaming, crossover, frames, simd, cache, engine_cache, memory):
        yield from part(quick)


if __name__ == "__main__":
    raise SystemExit(main("features", cases))
