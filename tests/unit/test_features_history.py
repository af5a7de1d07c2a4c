"""Frames, the feature cache, the batch form and the two SIMD kernels."""

import numpy as np
import polars
import pyarrow
import pytest
from features_support import bar_rows, market_rows, quotes

from trio_nt.features import FeatureCache, MarketHistory, compute, dot_product, ema, moving_average, rsi, sma


def test_a_frame_is_a_view_of_the_ring() -> None:
    history = MarketHistory(100)
    rows = market_rows(500, 1)
    history.append(rows)
    mine = np.flatnonzero(rows["instrument"] == 1)[-50:]
    frame = history.frame(1, 50)
    assert frame.rows == 50
    assert list(frame) == ["ts_event", "ts_init", "bid", "ask", "bid_size", "ask_size", "price", "size"]
    assert np.array_equal(frame["bid"], rows["bid"][mine], equal_nan=True)
    assert frame["bid"].flags.c_contiguous
    assert not frame["bid"].flags.writeable
    assert not frame["bid"].flags.owndata


def test_conversions_share_memory() -> None:
    history = MarketHistory(100)
    history.append(market_rows(500, 1))
    frame = history.frame(1, 50)
    table = frame.to_arrow()
    assert isinstance(table, pyarrow.Table)
    address = frame["bid"].__array_interface__["data"][0]
    assert table["bid"].chunk(0).buffers()[1].address == address
    data = frame.to_polars()
    assert isinstance(data, polars.DataFrame)
    assert data.shape == (50, 8)
    assert data["bid"].to_numpy(allow_copy=False).__array_interface__["data"][0] == address
    assert data["bid"].null_count() == 0  # NaN is not null
    pandas_frame = frame.to_pandas()
    assert np.shares_memory(pandas_frame["bid"].to_numpy(), frame["bid"])
    assert list(pandas_frame.columns) == list(frame)


def test_a_frame_whose_rows_were_overwritten_says_so() -> None:
    history = MarketHistory(4, fields={"bid": "f8"})
    history.append(quotes([1, 2, 3, 4]))
    frame, kept = history.frame(0, 2), history.frame(0, 2).copy()
    view = frame["bid"]
    history.append(quotes([5, 6]))
    assert frame.intact
    assert view.tolist() == [3, 4]
    history.append(quotes([7]))
    assert not frame.intact
    assert view.tolist() == [7, 4]  # memory-safe, but new rows
    for use in (lambda: frame["bid"], frame.copy, frame.to_arrow, frame.to_polars, frame.to_pandas):
        with pytest.raises(BufferError, match="take a new frame, or copy"):
            use()
    assert kept.intact
    assert kept["bid"].tolist() == [3, 4]


def test_more_rows_than_the_ring_holds_in_one_batch() -> None:
    history = MarketHistory(3, fields={"bid": "f8"})
    history.append(quotes(list(range(10)), [0, 1] * 5))
    assert history.frame(0)["bid"].tolist() == [4, 6, 8]
    assert history.frame(1)["bid"].tolist() == [5, 7, 9]
    assert history.seen(1) == 5


def test_features_can_be_columns_of_a_history() -> None:
    history = MarketHistory(3, fields={"bid": "f8", "ema": "f8"}, instrument_count=1)
    rows = quotes([1, 2, 3, 4])
    history.append(rows | {"ema": compute(rows, [ema(2)])[ema(2)]})
    assert history.frame(0)["ema"].tolist() == [1.5, 2.5, 3.5]
    assert history.nbytes == 2 * 2 * 3 * 8


def test_mistakes_with_histories() -> None:
    with pytest.raises(ValueError, match="depth must be at least 1, was 0"):
        MarketHistory(0)
    history = MarketHistory(5)
    with pytest.raises(ValueError, match="rows must be between 1 and 5, the history's depth, was 6"):
        history.frame(0, 6)
    with pytest.raises(ValueError, match="was 0"):
        history.frame(0, 0)
    with pytest.raises(IndexError, match="instrument must be below 1, was 7"):
        history.frame(7)
    with pytest.raises(KeyError, match="bid"):
        history.append(bar_rows(2, 1))
    assert history.seen(0) == 0
    history.append(quotes([]))
    assert history.frame(0).rows == 0


def test_lookups_are_counted_and_the_longest_unasked_ring_is_evicted() -> None:
    cache = FeatureCache(rows=10, limit_bytes=2 * 160 + 100)
    a, b, c = ema(1), ema(2), ema(3)
    for spec in (a, b, a):  # b was asked for longest ago
        cache.last(0, spec, 3)
    cache.append(np.zeros(4, np.int32), {spec: np.arange(4.0) for spec in (a, b, c)})
    assert cache.last(0, a, 3).tolist() == [1, 2, 3]
    assert cache.last(0, c, 3).tolist() == []
    statistics = cache.statistics()
    assert (statistics.lookups, statistics.hits, statistics.misses) == (5, 2, 3)
    assert (statistics.evictions, statistics.rings, statistics.bytes) == (1, 2, 320)
    assert statistics.hit_rate == 0.4
    assert cache.last(0, a, 10).tolist() == [0, 1, 2, 3]
    assert cache.last(0, b, 10).tolist() == []  # evicted: starts anew
    assert cache.statistics().evictions == 2


def test_a_cache_never_exceeds_its_bound() -> None:
    cache = FeatureCache(rows=100, limit_bytes=50_000)
    for instrument in range(500):
        cache.last(instrument, ema(2), 1)
    assert cache.statistics().bytes <= 50_000
    assert cache.statistics().rings == 50_000 // 1600


def test_a_ring_can_start_with_what_there_was() -> None:
    cache = FeatureCache(rows=3, backfill=lambda instrument, spec, rows: np.array([9.0, 1.0, 2.0, 3.0]))
    assert cache.last(0, ema(2), 3).tolist() == [1, 2, 3]
    cache.append(np.zeros(1, np.int32), {ema(2): np.array([4.0])})
    assert cache.last(0, ema(2), 3).tolist() == [2, 3, 4]


def test_mistakes_with_the_cache() -> None:
    with pytest.raises(ValueError, match="rows must be at least 1"):
        FeatureCache(rows=0)
    with pytest.raises(ValueError, match="limit_bytes must be at least 16000, one ring, was 100"):
        FeatureCache(limit_bytes=100)
    with pytest.raises(ValueError, match="rows must be between 1 and 1000, was 1001"):
        FeatureCache().last(0, ema(2), 1001)
    assert FeatureCache().statistics().hit_rate == 0.0


def test_compute_takes_frames_dicts_and_dataframes() -> None:
    rows = bar_rows(50, 1)
    spec = rsi(5, "bar")
    expected = compute(rows, [spec])[spec]
    alone = {"close": rows["close"].tolist()}
    history = MarketHistory(50, fields={"close": "f8", "kind": "u1"})
    history.append(rows)
    for columns in (alone, history.frame(0), history.frame(0).to_pandas()):
        assert np.array_equal(compute(columns, [spec])[spec], expected, equal_nan=True)
        assert np.array_equal(compute(columns, [spec], compiled=False)[spec], expected, equal_nan=True)


@pytest.mark.parametrize(
    ("columns", "specs", "error", "message"),
    [
        ({"bid": [1.0], "ask": [2.0]}, [ema(2)], ValueError, "window of ema.2. must be at most 1 rows"),
        ({"bid": [1.0, 2.0]}, [ema(2)], ValueError, r"ema\(2\) needs the field 'ask', .* it has bid"),
        ({"bid": [1.0], "close": [1.0]}, [], ValueError, "need a column 'kind'"),
        ({"bid": [1.0], "ask": [1.0, 2.0]}, [], ValueError, "all of one length"),
        ({"time": [1]}, [], ValueError, "must hold prices"),
        ({"price": [1.0]}, ["sma"], TypeError, "must be a FeatureSpec"),
    ],
)
def test_mistakes_with_compute(columns, specs, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compute(columns, specs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("window", [1, 2, 3, 5, 8, 20, 31, 100])
def test_moving_average(dtype: type, window: int) -> None:
    prices = np.random.default_rng(1).random(500).astype(dtype)
    expected = np.array([prices[i : i + window].astype(np.float64).mean() for i in range(501 - window)])
    got = moving_average(prices, window)
    assert got.dtype == dtype
    assert got.shape == (501 - window,)
    assert np.allclose(got, expected, rtol=1e-6 if dtype is np.float32 else 1e-14)
    prices[250] = np.nan
    assert np.isnan(moving_average(prices, window)).sum() == window


def test_moving_average_leaves_its_input_alone_and_may_be_empty() -> None:
    prices = np.arange(4.0)
    assert moving_average(prices, 1).tolist() == [0, 1, 2, 3]
    moving_average(prices, 1)[0] = 9
    assert prices.tolist() == [0, 1, 2, 3]
    assert moving_average(prices, 5).shape == (0,)
    assert moving_average(np.empty(0, np.float32), 3).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dot_product(dtype: type) -> None:
    first, second = np.random.default_rng(1).random((2, 1027)).astype(dtype)
    got = dot_product(first, second)
    assert got.dtype == dtype
    assert got == pytest.approx((first.astype(np.float64) * second).sum(), rel=1e-5 if dtype is np.float32 else 1e-13)
    assert dot_product(first[:0], second[:0]) == 0


def test_mistakes_with_simd() -> None:
    ones = np.ones(3)
    with pytest.raises(ValueError, match="window must be at least 1, was 0"):
        moving_average(ones, 0)
    with pytest.raises(ValueError, match="one dimension, had 2"):
        moving_average(np.ones((2, 2)), 1)
    with pytest.raises(TypeError, match="float32 or float64, was int64"):
        moving_average(np.arange(3), 1)
    with pytest.raises(ValueError, match="one length"):
        dot_product(ones, np.ones(4))
    with pytest.raises(TypeError, match="one dtype"):
        dot_product(ones, ones.astype(np.float32))


@pytest.mark.slow
def test_nothing_drifts_over_ten_million_updates() -> None:
    """The last values equal those of a pipeline that has seen only the last rows; sums since the start are exact."""
    from trio_nt.features import FeaturePipeline, mfi, obv, realised_volatility, stdev, vwap, wma

    block, blocks, window = 100_000, 100, 20
    make = [sma, wma, stdev, realised_volatility, vwap]
    specs = [build(window, on="bar") for build in make] + [mfi(window), vwap(on="bar"), obv()]
    pipeline = FeaturePipeline(1)
    pipeline.prepare()
    pipeline.require(specs)
    rows = bar_rows(block, 1)
    rows["close"][: block // 2] += 1e6  # half the time at another level: what a running sum would not forget
    rows["volume"][:] = 0.1 * np.arange(1, block + 1)
    for _ in range(blocks):
        values = pipeline.compute(rows)
    tail = {name: column[-10 * window :] for name, column in rows.items()}
    fresh = FeaturePipeline(1)
    fresh.require(specs)
    expected = fresh.compute(tail)
    for spec in specs[:-2]:
        assert values[spec][-window:] == pytest.approx(expected[spec][-window:], rel=1e-12), spec
    from math import fsum

    typical = (rows["high"] + rows["low"] + rows["close"]) / 3
    average = fsum(typical * rows["volume"]) / fsum(rows["volume"])
    assert values[specs[-2]][-1] == pytest.approx(average, rel=1e-14)
    signs = np.sign(np.diff(rows["close"], prepend=rows["close"][-1]))
    flow = fsum(signs * rows["volume"])
    start = rows["volume"][0] - signs[0] * rows["volume"][0]
    assert values[specs[-1]][-1] == pytest.approx(blocks * flow + start, rel=1e-13)
