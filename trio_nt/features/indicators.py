"""The constructors of feature specs: what a strategy writes in ``features()``.

``on`` says what an indicator reads: ``"quote"`` (the mid price), ``"trade"`` (the price), ``"bar"`` (the close; high,
low, close and volume where the indicator needs them), the name of one field, or another spec.
"""

import math
import operator
from typing import SupportsFloat, SupportsIndex, TypeAlias

import attrs

from trio_nt.features.specs import FIELD_KINDS, FeatureSpec, Field
from trio_nt.features.table import KERNELS

On: TypeAlias = str | FeatureSpec
Input: TypeAlias = Field | FeatureSpec

MID = FeatureSpec(KERNELS["mid"], (Field("bid"), Field("ask")), label="mid()")
_TYPICAL = FeatureSpec(KERNELS["typical"], (Field("high"), Field("low"), Field("close")), label="typical()")
_PRICES: dict[str, Input] = {"quote": MID, "mid": MID, "trade": Field("price"), "bar": Field("close")}


def check_window(window: SupportsIndex, name: str = "window", least: int = 1) -> int:
    try:
        number = operator.index(window)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, was {window!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, was {number}")
    return number


def as_input(on: On) -> Input:
    """What an indicator of one price reads."""
    if isinstance(on, FeatureSpec):
        return on
    if not isinstance(on, str):
        raise TypeError(f"on must be a string or a FeatureSpec, was {on!r}")
    if on in _PRICES:
        return _PRICES[on]
    if on in FIELD_KINDS:
        return Field(on)
    raise ValueError(f"on must be one of {', '.join([*_PRICES, *FIELD_KINDS])} or a FeatureSpec, was {on!r}")


def _high_low_close(on: On) -> tuple[Input, Input, Input]:
    """What an indicator of ranges reads: a bar's high, low and close, or one price three times."""
    if isinstance(on, str) and on == "bar":
        return Field("high"), Field("low"), Field("close")
    price = as_input(on)
    return price, price, price


def _typical(on: On) -> Input:
    return _TYPICAL if isinstance(on, str) and on == "bar" else as_input(on)


def _price_volume(on: str, *, typical: bool) -> tuple[Input, Input]:
    if on == "bar":
        return (_TYPICAL if typical else Field("close")), Field("volume")
    if on == "trade":
        return Field("price"), Field("size")
    raise ValueError(f"on must be 'trade' or 'bar', which have a volume, was {on!r}")


def _as_feature(on: On) -> FeatureSpec:
    """A field as a feature: it keeps its last value, so that fields of quotes and of trades can meet on one row."""
    item = as_input(on)
    return field(item.name) if isinstance(item, Field) else item


def _written(name: str, *parameters: object, on: On, default: str = "quote") -> str:
    suffix = [] if on == default else [f"on={on!r}" if isinstance(on, str) else f"on={on}"]
    return f"{name}({', '.join([*map(str, parameters), *suffix])})"


def _simple(name: str, window: SupportsIndex, on: On, factor: float = 0.0) -> FeatureSpec:
    size = check_window(window)
    return FeatureSpec(KERNELS[name], (as_input(on),), size, factor, label=_written(name, size, on=on))


def field(name: str) -> FeatureSpec:
    """A market field as a feature: the instrument's last ``bid``, ``price``, ``close``, … on every row."""
    return FeatureSpec(KERNELS["value"], (Field(name),), label=f"field({name!r})")


def mid() -> FeatureSpec:
    """Mid price of the quote."""
    return MID


def spread() -> FeatureSpec:
    """Ask minus bid."""
    return FeatureSpec(KERNELS["spread"], (Field("bid"), Field("ask")), label="spread()")


def microprice() -> FeatureSpec:
    """Mid price weighted by the size on the other side."""
    inputs = (Field("bid"), Field("ask"), Field("bid_size"), Field("ask_size"))
    return FeatureSpec(KERNELS["microprice"], inputs, label="microprice()")


def imbalance() -> FeatureSpec:
    """Share by which the bid's size exceeds the ask's, -1 to 1."""
    return FeatureSpec(KERNELS["imbalance"], (Field("bid_size"), Field("ask_size")), label="imbalance()")


def sma(window: SupportsIndex, on: On = "quote") -> FeatureSpec:
    """Simple moving average."""
    return _simple("sma", window, on)


def ema(window: SupportsIndex, on: On = "quote") -> FeatureSpec:
    """Exponential moving average, smoothing 2 / (window + 1)."""
    size = check_window(window)
    return _simple("ema", size, on, 2.0 / (size + 1.0))


def wma(window: SupportsIndex, on: On = "quote") -> FeatureSpec:
    """Linearly weighted moving average."""
    return _simple("wma", window, on)


def dema(window: SupportsIndex, on: On = "quote") -> FeatureSpec:
    """Double exponential moving average."""
    once = ema(window, on)
    return FeatureSpec(KERNELS["dema"], (once, ema(window, once)), label=_written("dema", once.window, on=on))


def tema(window: SupportsIndex, on: On = "quote") -> FeatureSpec:
    """Triple exponential moving average."""
    once = ema(window, on)
    twice = ema(window, once)
    inputs = (once, twice, ema(window, twice))
    return FeatureSpec(KERNELS["tema"], inputs, label=_written("tema", once.window, on=on))


def difference(first: On, second: On) -> FeatureSpec:
    """``first - second``."""
    return FeatureSpec(
        KERNELS["difference"], (_as_feature(first), _as_feature(second)), label=f"difference({first}, {second})"
    )


def cross(first: On, second: On) -> FeatureSpec:
    """+1 on the row where ``first`` rises above ``second``, -1 where it falls below, 0 on every other row.

    Equality is no crossing. 0 during warm-up too, and on rows of other kinds.
    """
    return FeatureSpec(KERNELS["cross"], (_as_feature(first), _as_feature(second)), label=f"cross({first}, {second})")


@attrs.frozen(eq=False, repr=False)
class Macd(FeatureSpec):
    """The MACD line; its other outputs are specs, too."""

    signal: FeatureSpec = MID
    histogram: FeatureSpec = MID


@attrs.frozen(eq=False, repr=False)
class Stochastic(FeatureSpec):
    """%K, smoothed; its moving average ``d`` and the unsmoothed ``raw`` are specs, too."""

    d: FeatureSpec = MID
    raw: FeatureSpec = MID


@attrs.frozen(eq=False, repr=False)
class Bollinger(FeatureSpec):
    """The middle band; the others are specs, too."""

    upper: FeatureSpec = MID
    lower: FeatureSpec = MID


@attrs.frozen(eq=False, repr=False)
class Adx(FeatureSpec):
    """The average directional index; both directional indicators are specs, too."""

    plus_di: FeatureSpec = MID
    minus_di: FeatureSpec = MID


def macd(fast: SupportsIndex = 12, slow: SupportsIndex = 26, signal: SupportsIndex = 9, on: On = "quote") -> Macd:
    """Moving average convergence/divergence: ``ema(fast) - ema(slow)``; ``.signal``, ``.histogram``.

    The fast average starts where the slow one does, as in TA-Lib, from the ``fast`` values before.

    Raises:
        ValueError: ``fast`` not below ``slow``.
    """
    quick, late, smooth = check_window(fast, "fast"), check_window(slow, "slow"), check_window(signal, "signal")
    if quick >= late:
        raise ValueError(f"fast must be below slow ({late}), was {quick}")
    started = attrs.evolve(ema(quick, on), skip=late - quick)
    written = _written("macd", quick, late, smooth, on=on)
    line = FeatureSpec(KERNELS["difference"], (started, ema(late, on)), label=written)
    average = attrs.evolve(ema(smooth, line), label=f"{written}.signal")
    histogram = FeatureSpec(KERNELS["difference"], (line, average), label=f"{written}.histogram")
    return Macd(line.kernel, line.inputs, label=written, signal=average, histogram=histogram)


def stochastic(
    window: SupportsIndex = 14, smooth: SupportsIndex = 3, signal: SupportsIndex = 3, on: On = "bar"
) -> Stochastic:
    """Stochastic oscillator: %K averaged over ``smooth`` bars; ``.d`` averages that over ``signal``; ``.raw`` is %K."""
    sizes = check_window(window), check_window(smooth, "smooth"), check_window(signal, "signal")
    written = _written("stochastic", *sizes, on=on, default="bar")
    raw = FeatureSpec(KERNELS["stochastic"], _place_in_range(sizes[0], on), label=f"{written}.raw")
    k = sma(sizes[1], raw)
    d = attrs.evolve(sma(sizes[2], k), label=f"{written}.d")
    return Stochastic(k.kernel, k.inputs, k.window, label=written, d=d, raw=raw)


def williams_r(window: SupportsIndex = 14, on: On = "bar") -> FeatureSpec:
    """Williams %R, -100 to 0."""
    size = check_window(window)
    written = _written("williams_r", size, on=on, default="bar")
    return FeatureSpec(KERNELS["williams_r"], _place_in_range(size, on), label=written)


def _place_in_range(window: int, on: On) -> tuple[Input, Input, Input]:
    high, low, close = _high_low_close(on)
    highest = FeatureSpec(KERNELS["rolling_max"], (high,), window)
    return close, highest, FeatureSpec(KERNELS["rolling_min"], (low,), window)


def bollinger(window: SupportsIndex = 20, width: SupportsFloat = 2.0, on: On = "quote") -> Bollinger:
    """Bollinger bands: the mean, and ``width`` standard deviations above (``.upper``) and below it (``.lower``).

    Raises:
        ValueError: ``width`` not above 0.
    """
    middle, deviation, times = sma(window, on), stdev(window, on), float(width)
    if not 0.0 < times < math.inf:
        raise ValueError(f"width must be above 0 and finite, was {width!r}")
    written = _written("bollinger", middle.window, times, on=on)
    upper = FeatureSpec(KERNELS["band"], (middle, deviation), factor=times, label=f"{written}.upper")
    lower = FeatureSpec(KERNELS["band"], (middle, deviation), factor=-times, label=f"{written}.lower")
    return Bollinger(middle.kernel, middle.inputs, middle.window, label=written, upper=upper, lower=lower)


def adx(window: SupportsIndex = 14, on: On = "bar") -> Adx:
    """Average directional index, 0 to 100; ``.plus_di``, ``.minus_di``."""
    size = check_window(window, least=2)
    written, inputs = _written("adx", size, on=on, default="bar"), _high_low_close(on)
    plus = FeatureSpec(KERNELS["plus_di"], inputs, size, 1.0 / size, label=f"{written}.plus_di")
    minus = FeatureSpec(KERNELS["minus_di"], inputs, size, 1.0 / size, label=f"{written}.minus_di")
    return Adx(KERNELS["adx"], inputs, size, 1.0 / size, label=written, plus_di=plus, minus_di=minus)


def vwap(window: SupportsIndex | None = None, on: str = "trade") -> FeatureSpec:
    """Volume-weighted average price of the last ``window`` rows, or since the first row; bars by typical price."""
    inputs = _price_volume(on, typical=True)
    if window is None:
        return FeatureSpec(KERNELS["vwap_total"], inputs, label=_written("vwap", on=on, default="trade"))
    size = check_window(window)
    return FeatureSpec(KERNELS["vwap"], inputs, size, label=_written("vwap", size, on=on, default="trade"))


def obv(on: str = "bar") -> FeatureSpec:
    """On-balance volume."""
    return FeatureSpec(KERNELS["obv"], _price_volume(on, typical=False), label=_written("obv", on=on, default="bar"))


def mfi(window: SupportsIndex = 14, on: str = "bar") -> FeatureSpec:
    """Money flow index, 0 to 100."""
    size = check_window(window)
    written = _written("mfi", size, on=on, default="bar")
    return FeatureSpec(KERNELS["mfi"], _price_volume(on, typical=True), size, label=written)


def rsi(window: SupportsIndex = 14, on: On = "quote") -> FeatureSpec:
    """Relative strength index, 0 to 100."""
    size = check_window(window)
    return _simple("rsi", size, on, 1.0 / size)


def roc(window: SupportsIndex = 10, on: On = "quote") -> FeatureSpec:
    """Rate of change over ``window`` values, in percent."""
    return _simple("roc", window, on)


def stdev(window: SupportsIndex, on: On = "quote") -> FeatureSpec:
    """Standard deviation, divided by ``window``."""
    return _simple("stdev", window, on)


def rolling_max(window: SupportsIndex, on: On = "quote") -> FeatureSpec:
    """The greatest of the last ``window`` values."""
    return _simple("rolling_max", window, on)


def rolling_min(window: SupportsIndex, on: On = "quote") -> FeatureSpec:
    """The least of the last ``window`` values."""
    return _simple("rolling_min", window, on)


def realised_volatility(window: SupportsIndex, on: On = "quote") -> FeatureSpec:
    """Root of the sum of the last ``window`` squared logarithmic returns."""
    return _simple("realised_volatility", window, on)


def zscore(window: SupportsIndex, on: On = "quote") -> FeatureSpec:
    """How many standard deviations the value lies above its window's mean."""
    inputs = (as_input(on), sma(window, on), stdev(window, on))
    return FeatureSpec(KERNELS["zscore"], inputs, label=_written("zscore", check_window(window), on=on))


def cci(window: SupportsIndex = 20, on: On = "bar") -> FeatureSpec:
    """Commodity channel index of the typical price."""
    size = check_window(window)
    return FeatureSpec(KERNELS["cci"], (_typical(on),), size, label=_written("cci", size, on=on, default="bar"))


def atr(window: SupportsIndex = 14, on: On = "bar") -> FeatureSpec:
    """Average true range."""
    size = check_window(window)
    return FeatureSpec(
        KERNELS["atr"], _high_low_close(on), size, 1.0 / size, label=_written("atr", size, on=on, default="bar")
    )
