"""Specs and rows that the features' tests share."""

from collections.abc import Callable

import numpy as np

from trio_nt.features import (
    FeaturePipeline,
    FeatureSpec,
    adx,
    apply,
    atr,
    bollinger,
    cci,
    cross,
    dema,
    difference,
    ema,
    field,
    imbalance,
    kernel,
    macd,
    mfi,
    microprice,
    mid,
    obv,
    realised_volatility,
    roc,
    rolling_max,
    rolling_min,
    rsi,
    sma,
    spread,
    stdev,
    stochastic,
    tema,
    vwap,
    williams_r,
    wma,
    zscore,
)
from trio_nt.model.market import BAR, BAR_FIELDS, QUOTE, TRADE, Column, empty_columns

Rows = dict[str, Column]


@kernel(state=1)
def decay(state, at, window, factor, price):
    state[at] += (price - state[at]) / window
    return state[at]


def middle_of_window(prices):
    return float(np.median(prices))


def all_specs(window: int, on: str) -> dict[str, FeatureSpec]:
    """Every feature that can read rows of one kind, with one window, and some features of features."""
    line = macd(window, window + 3, 2, on)
    place = stochastic(window, 2, 3, on)
    bands = bollinger(window, 2.0, on)
    direction = adx(window + 1, on)
    specs = {
        "sma": sma(window, on),
        "ema": ema(window, on),
        "wma": wma(window, on),
        "dema": dema(window, on),
        "tema": tema(window, on),
        "macd": line,
        "macd.signal": line.signal,
        "macd.histogram": line.histogram,
        "rsi": rsi(window, on),
        "stochastic": place,
        "stochastic.d": place.d,
        "stochastic.raw": place.raw,
        "williams_r": williams_r(window, on),
        "cci": cci(window, on),
        "roc": roc(window, on),
        "atr": atr(window, on),
        "adx": direction,
        "adx.plus_di": direction.plus_di,
        "adx.minus_di": direction.minus_di,
        "bollinger": bands,
        "bollinger.upper": bands.upper,
        "bollinger.lower": bands.lower,
        "stdev": stdev(window, on),
        "rolling_max": rolling_max(window, on),
        "rolling_min": rolling_min(window, on),
        "zscore": zscore(window, on),
        "realised_volatility": realised_volatility(window, on),
        "cross": cross(ema(window, on), sma(window + 2, on)),
        "difference": difference(ema(2, on), sma(3, on)),
        "of a feature": sma(window, rsi(2, on)),
        "of an event": sma(window, cross(ema(2, on), ema(3, on))),
        "user's kernel": decay(window, on=on),
        "user's function": apply(middle_of_window, window, on),
    }
    if on == "quote":
        specs |= {"mid": mid(), "spread": spread(), "microprice": microprice(), "imbalance": imbalance()}
    else:
        specs |= {"vwap": vwap(window, on), "vwap since": vwap(on=on), "obv": obv(on), "mfi": mfi(window, on)}
        specs |= {"field": field("price" if on == "trade" else "volume")}
    return specs


def random_walk(count: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return scale * (100.0 + 0.1 * np.random.default_rng(seed).standard_normal(count).cumsum())


def market_rows(count: int, seed: int, instruments: int = 3, *, broken: float = 0.0) -> Rows:
    """Quotes and trades of several instruments, interleaved; a share of them bad."""
    random = np.random.default_rng(seed)
    rows = empty_columns(count)
    kinds = random.choice([QUOTE, TRADE], count)
    rows["kind"][:] = kinds
    rows["sequence"][:] = np.arange(count)
    rows["instrument"][:] = random.integers(0, instruments, count)
    walk = random_walk(count, seed)
    quote, trade = kinds == QUOTE, kinds == TRADE
    rows["bid"][quote] = walk[quote]
    rows["ask"][quote] = walk[quote] + random.integers(0, 4, quote.sum()) / 100
    rows["bid_size"][quote] = random.integers(0, 5, quote.sum())
    rows["ask_size"][quote] = random.integers(0, 5, quote.sum())
    rows["price"][trade] = np.round(walk[trade], 1)
    rows["size"][trade] = random.integers(0, 5, trade.sum())
    bad = random.random(count) < broken
    rows["flags"][bad] = 1
    rows["bid"][bad & (random.random(count) < 0.5)] = np.nan
    return rows


def bar_rows(count: int, seed: int, instruments: int = 1, *, scale: float = 1.0, broken: float = 0.0) -> Rows:
    random = np.random.default_rng(seed)
    rows = empty_columns(count, BAR_FIELDS)
    rows["kind"][:] = BAR
    rows["sequence"][:] = np.arange(count)
    rows["instrument"][:] = random.integers(0, instruments, count)
    rows["close"][:] = random_walk(count, seed)
    rows["open"][:] = rows["close"] + 0.1 * random.standard_normal(count)
    rows["high"][:] = np.maximum(rows["open"], rows["close"]) + 0.1 * random.random(count)
    rows["low"][:] = np.minimum(rows["open"], rows["close"]) - 0.1 * random.random(count)
    for name in ("open", "high", "low", "close"):
        rows[name] *= scale
    rows["volume"][:] = random.integers(0, 1000, count)
    rows["flags"][random.random(count) < broken] = 1
    return rows


def quotes(mids: list[float], instruments: list[int] | None = None) -> Rows:
    rows = empty_columns(len(mids))
    rows["kind"][:] = QUOTE
    rows["bid"][:] = rows["ask"][:] = mids
    if instruments is not None:
        rows["instrument"][:] = instruments
    return rows


def part(rows: Rows, start: int, stop: int) -> Rows:
    return {name: column[start:stop] for name, column in rows.items()}


def run(
    rows: Rows, specs: dict[str, FeatureSpec], *, compiled: bool, cuts: list[int] | None = None
) -> dict[str, Column]:
    """Each spec's column over all rows, computed in batches that end at ``cuts``."""
    pipeline = FeaturePipeline()
    if compiled:
        assert pipeline.prepare()
    pipeline.require(specs.values())
    count = len(rows["kind"])
    ends = [*sorted(cuts or []), count]
    pieces: dict[str, list[Column]] = {name: [] for name in specs}
    start = 0
    for end in ends:
        values = pipeline.compute(part(rows, start, end))
        for name, spec in specs.items():
            pieces[name].append(values[spec])
        start = end
    return {name: np.concatenate(columns) for name, columns in pieces.items()}


Run = Callable[..., dict[str, Column]]
