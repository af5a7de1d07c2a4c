"""Against TA-Lib, and against plain definitions where TA-Lib is silent or wrong."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import talib
from features_support import all_specs, bar_rows, run

from trio_nt.features import (
    adx,
    atr,
    bollinger,
    cci,
    cross,
    dema,
    difference,
    ema,
    macd,
    mfi,
    obv,
    realised_volatility,
    roc,
    rolling_max,
    rolling_min,
    rsi,
    sma,
    stdev,
    stochastic,
    tema,
    vwap,
    williams_r,
    wma,
    zscore,
)

Array = np.ndarray
BAR = "bar"
LINE, PLACE, BANDS, DIRECTION = macd(5, 13, 4, BAR), stochastic(9, 4, 3), bollinger(11, 1.5, BAR), adx(8)

ORACLES: dict[str, tuple[object, Callable[..., Array]]] = {
    "sma": (sma(10, BAR), lambda o, h, lo, c, v: talib.SMA(c, 10)),
    "ema": (ema(10, BAR), lambda o, h, lo, c, v: talib.EMA(c, 10)),
    "wma": (wma(10, BAR), lambda o, h, lo, c, v: talib.WMA(c, 10)),
    "dema": (dema(7, BAR), lambda o, h, lo, c, v: talib.DEMA(c, 7)),
    "tema": (tema(7, BAR), lambda o, h, lo, c, v: talib.TEMA(c, 7)),
    "macd": (LINE, lambda o, h, lo, c, v: talib.MACD(c, 5, 13, 4)[0]),
    "macd.signal": (LINE.signal, lambda o, h, lo, c, v: talib.MACD(c, 5, 13, 4)[1]),
    "macd.histogram": (LINE.histogram, lambda o, h, lo, c, v: talib.MACD(c, 5, 13, 4)[2]),
    "rsi": (rsi(14, BAR), lambda o, h, lo, c, v: talib.RSI(c, 14)),
    "stochastic": (PLACE, lambda o, h, lo, c, v: talib.STOCH(h, lo, c, 9, 4, 0, 3, 0)[0]),
    "stochastic.d": (PLACE.d, lambda o, h, lo, c, v: talib.STOCH(h, lo, c, 9, 4, 0, 3, 0)[1]),
    "stochastic.raw": (PLACE.raw, lambda o, h, lo, c, v: talib.STOCHF(h, lo, c, 9, 3, 0)[0]),
    "williams_r": (williams_r(14), lambda o, h, lo, c, v: talib.WILLR(h, lo, c, 14)),
    "cci": (cci(20), lambda o, h, lo, c, v: talib.CCI(h, lo, c, 20)),
    "cci odd": (cci(7), lambda o, h, lo, c, v: talib.CCI(h, lo, c, 7)),
    "roc": (roc(10, BAR), lambda o, h, lo, c, v: talib.ROC(c, 10)),
    "atr": (atr(14), lambda o, h, lo, c, v: talib.ATR(h, lo, c, 14)),
    "adx": (DIRECTION, lambda o, h, lo, c, v: talib.ADX(h, lo, c, 8)),
    "plus_di": (DIRECTION.plus_di, lambda o, h, lo, c, v: talib.PLUS_DI(h, lo, c, 8)),
    "minus_di": (DIRECTION.minus_di, lambda o, h, lo, c, v: talib.MINUS_DI(h, lo, c, 8)),
    "upper band": (BANDS.upper, lambda o, h, lo, c, v: talib.BBANDS(c, 11, 1.5, 1.5)[0]),
    "middle band": (BANDS, lambda o, h, lo, c, v: talib.BBANDS(c, 11, 1.5, 1.5)[1]),
    "lower band": (BANDS.lower, lambda o, h, lo, c, v: talib.BBANDS(c, 11, 1.5, 1.5)[2]),
    "stdev": (stdev(10, BAR), lambda o, h, lo, c, v: talib.STDDEV(c, 10)),
    "obv": (obv(), lambda o, h, lo, c, v: talib.OBV(c, v)),
    "mfi": (mfi(14), lambda o, h, lo, c, v: talib.MFI(h, lo, c, v, 14)),
    "rolling_max": (rolling_max(10, BAR), lambda o, h, lo, c, v: talib.MAX(c, 10)),
    "rolling_min": (rolling_min(10, BAR), lambda o, h, lo, c, v: talib.MIN(c, 10)),
}


def prices(rows) -> list[Array]:
    return [rows[name] for name in ("open", "high", "low", "close", "volume")]


def assert_close(got: Array, expected: Array, *, relative: float = 1e-9) -> None:
    """Equal after the oracle's warm-up, relative to the value or, near a zero, to the column's greatest value."""
    known = ~np.isnan(expected)
    assert known.any()
    assert not np.isnan(got[known]).any()
    scale = np.maximum(np.abs(expected[known]), 1e-3 * np.abs(expected[known]).max())
    assert np.max(np.abs(got[known] - expected[known]) / np.where(scale > 0, scale, 1.0)) <= relative


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("compiled", [False, True], ids=["interpreted", "compiled"])
def test_random_walks(name: str, compiled: bool) -> None:
    spec, oracle = ORACLES[name]
    for seed in range(4):
        rows = bar_rows(600, seed)
        got = run(rows, {name: spec}, compiled=compiled)[name]
        assert_close(got, oracle(*prices(rows)))


@pytest.mark.parametrize("name", [name for name in ORACLES if name not in ("macd", "stochastic", "stochastic.raw")])
def test_warm_up_ends_where_talibs_does(name: str) -> None:
    spec, oracle = ORACLES[name]
    rows = bar_rows(80, 1)
    expected = oracle(*prices(rows))
    assert np.isnan(expected).sum() == np.isnan(run(rows, {name: spec}, compiled=False)[name]).sum()


@pytest.mark.parametrize("on", ["quote", "trade", "bar"])
@pytest.mark.parametrize("window", [1, 2, 5])
def test_the_stated_warm_up_is_where_values_begin(on: str, window: int) -> None:
    rows = bar_rows(60, 2)
    if on != "bar":
        from features_support import quotes

        rows = quotes(rows["close"].tolist())
        rows["bid_size"][:] = rows["ask_size"][:] = 1.0
        if on == "trade":
            rows["kind"][:] = 2
            rows["price"][:], rows["size"][:] = rows["bid"], 1.0
    rows["volume" if on == "bar" else "size"][:] = 1.0
    for name, spec in all_specs(window, on).items():
        if not spec.kernel.is_event and "event" not in name:
            values = run(rows, {name: spec}, compiled=False)[name]
            assert np.isnan(values).sum() == spec.warm_up - 1, name
            assert np.isfinite(values[spec.warm_up - 1 :]).all(), name


SCALED = {
    "sma",
    "ema",
    "wma",
    "dema",
    "tema",
    "macd",
    "macd.signal",
    "macd.histogram",
    "atr",
    "upper band",
    "middle band",
}
SCALED |= {"lower band", "stdev", "rolling_max", "rolling_min"}


@pytest.mark.parametrize("scale", [2.0**-40, 1e-12, 2.0**40, 1e12])
@pytest.mark.parametrize("name", ORACLES)
def test_scales_of_prices(name: str, scale: float) -> None:
    """TA-Lib's fixed thresholds (1e-14; 1 in MFI) are wrong at small scales: the oracle runs at scale 1."""
    spec, oracle = ORACLES[name]
    expected = oracle(*prices(bar_rows(300, 7)))
    got = run(bar_rows(300, 7, scale=scale), {name: spec}, compiled=True)[name]
    if name == "obv":
        assert_close(got, expected)
        return
    assert_close(got / (scale if name in SCALED else 1.0), expected, relative=1e-9 if name != "cci" else 2e-9)


CONSTANT = {
    "sma": 7.25, "ema": 7.25, "wma": 7.25, "dema": 7.25, "tema": 7.25, "macd": 0, "macd.signal": 0, "macd.histogram": 0,
    "rsi": 0, "stochastic": 0, "stochastic.d": 0, "stochastic.raw": 0, "williams_r": 0, "cci": 0, "roc": 0, "atr": 0,
    "adx": 0, "adx.plus_di": 0, "adx.minus_di": 0, "bollinger": 7.25, "bollinger.upper": 7.25, "bollinger.lower": 7.25,
    "stdev": 0, "rolling_max": 7.25, "rolling_min": 7.25, "zscore": 0, "realised_volatility": 0, "cross": 0,
    "difference": 0, "of a feature": 0, "of an event": 0, "user's function": 7.25, "vwap": 7.25, "vwap since": 7.25,
    "obv": 3.0, "mfi": 0, "field": 3.0,
}  # fmt: skip


@pytest.mark.parametrize("price", [7.25, 0.1, 1e-12 / 3, 1e12 / 3])
def test_constant_prices(price: float) -> None:
    rows = bar_rows(60, 1)
    for name in ("open", "high", "low", "close"):
        rows[name][:] = price
    rows["volume"][:] = 3.0
    specs = {name: spec for name, spec in all_specs(5, "bar").items() if name in CONSTANT}
    for name, values in run(rows, specs, compiled=True).items():
        expected = CONSTANT[name] if CONSTANT[name] != 7.25 else price
        known = values[~np.isnan(values)]
        assert len(known) > 30, name
        if name.startswith(("macd", "difference")):  # differences of averages keep the averages' rounding
            assert np.abs(known).max() <= 1e-15 * price, name
        elif expected == price:
            assert np.allclose(known, price, rtol=1e-15, atol=0), name
        else:
            assert (known == expected).all(), name


def test_averages_of_a_constant_price_never_cross() -> None:
    """They differ by rounding, and differently from row to row."""
    averages = [make(window, BAR) for make in (sma, ema, wma, dema) for window in (3, 7, 10)]
    specs = {f"{a}/{b}": cross(a, b) for a in averages for b in averages}
    flapping = 0
    for price in (0.1, 1 / 3, 1e-9 / 7, 123456.789):
        rows = bar_rows(200, 1)
        rows["close"][:] = price
        assert not any(column.any() for column in run(rows, specs, compiled=True).values())
        gap = np.diff(np.sign(run(rows, {"": difference(sma(7, BAR), wma(10, BAR))}, compiled=True)[""][60:]))
        flapping += np.count_nonzero(gap)
    assert flapping > 0  # or this test would show nothing


@pytest.mark.parametrize("on", ["quote", "trade", "bar"])
@pytest.mark.parametrize("compiled", [False, True], ids=["interpreted", "compiled"])
def test_zeros_give_numbers_or_nan_and_never_an_error(on: str, compiled: bool) -> None:
    rows = bar_rows(60, 1)
    for column in rows.values():
        if column.dtype.kind == "f":
            column[:] = 0.0
            column[30:40] = 2.0
    if on != "bar":
        from features_support import quotes

        close, rows = rows["close"], quotes(rows["close"].tolist())
        rows["bid_size"][:] = rows["ask_size"][:] = rows["size"][:] = rows["price"][:] = close
        rows["kind"][:] = 1 if on == "quote" else 2
    for name, values in run(rows, all_specs(3, on), compiled=compiled).items():
        assert not np.isinf(values).any(), name


def test_an_outlier_leaves_no_trace() -> None:
    """A running sum that subtracts what leaves the window would keep the outlier's rounding error."""
    rows = bar_rows(200, 3)
    clean = {name: column.copy() for name, column in rows.items()}
    for name in ("open", "high", "low", "close"):
        rows[name][50] = 1e15
    window = 10
    specs = {name: make for name, (make, _) in ORACLES.items() if name in ("sma", "wma", "stdev", "rolling_max", "mfi")}
    specs |= {"zscore": zscore(window, BAR), "vwap": vwap(window, BAR), "volatility": realised_volatility(window, BAR)}
    got, expected = run(rows, specs, compiled=True), run(clean, specs, compiled=True)
    for name in specs:
        # Sums are grouped by blocks, which are the same in both runs: equal to the last bit.
        assert np.array_equal(got[name][50 + 2 * 14 :], expected[name][50 + 2 * 14 :]), name


def test_definitions_without_a_talib_function() -> None:
    rows = bar_rows(200, 9)
    _, high, low, close, volume = prices(rows)
    typical = (high + low + close) / 3
    window = 12
    specs = {"z": zscore(window, BAR), "v": vwap(window, BAR), "s": vwap(on=BAR), "r": realised_volatility(window, BAR)}
    got = run(rows, specs, compiled=True)
    returns = np.diff(np.log(close))
    for row in range(window, 200):
        last = slice(row - window + 1, row + 1)
        assert got["z"][row] == pytest.approx(
            (close[row] - close[last].mean()) / close[last].std(), rel=1e-9, abs=1e-11
        )
        assert got["v"][row] == pytest.approx((typical[last] * volume[last]).sum() / volume[last].sum(), rel=1e-12)
        assert got["s"][row] == pytest.approx(
            math.fsum(typical[: row + 1] * volume[: row + 1]) / math.fsum(volume[: row + 1]), rel=1e-15
        )
        assert got["r"][row] == pytest.approx(math.sqrt((returns[row - window : row] ** 2).sum()), rel=1e-12)
