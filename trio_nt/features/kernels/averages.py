"""Averages: simple, exponential, weighted, double and triple exponential."""

from trio_nt.features.kernels import NAN, State


def sma(state: State, at: int, window: int, factor: float, price: float) -> float:
    """Simple moving average: the mean of the last ``window`` values.

    Warm-up: ready at value ``window``. State: place in block, block seen, running sum, ``window`` + 1 suffix sums.
    Source: TA-Lib SMA.
    """
    newer = state[at] + 1.0
    place = at + 2 + int(newer)
    running = state[at + 1] + price
    mean = (running + state[place + 1]) / window
    state[place] = price
    if newer < window:
        state[at] = newer
        state[at + 1] = running
        return mean if state[at + 2] != 0.0 else NAN
    total = 0.0
    for k in range(at + 2 + window, at + 2, -1):
        total += state[k]
        state[k] = total
    state[at] = 0.0
    state[at + 1] = 0.0
    state[at + 2] = 1.0
    return mean


def ema(state: State, at: int, window: int, factor: float, price: float) -> float:
    """Exponential moving average: ``e += (x - e) * factor``, with ``factor`` = 2 / (window + 1).

    Warm-up: ready at value ``window``, where it starts as the mean of the first ``window`` values; a negative
    first count skips as many values before that (the fast average inside MACD). State: count, average.
    Source: TA-Lib EMA (classic start).
    """
    count = state[at]
    if count >= window:
        average = state[at + 1]
        average += (price - average) * factor
        state[at + 1] = average
        return average
    count += 1.0
    state[at] = count
    if count <= 0.0:
        return NAN
    total = state[at + 1] + price
    if count < window:
        state[at + 1] = total
        return NAN
    average = total / window
    state[at + 1] = average
    return average


def wma(state: State, at: int, window: int, factor: float, price: float) -> float:
    """Weighted moving average: weights 1 (oldest) to ``window`` (newest), divided by their sum.

    Warm-up: ready at value ``window``. State: place in block, block seen, running sum, running weighted sum,
    ``window`` + 1 suffix sums, weighted. Source: TA-Lib WMA.
    """
    newer = state[at] + 1.0
    suffix = at + 4
    place = suffix - 1 + int(newer)
    running = state[at + 1] + price
    weighted = state[at + 2] + newer * price
    average = (weighted + (window - newer) * running + state[place + 1]) / (0.5 * window * (window + 1.0))
    state[place] = price
    if newer < window:
        state[at] = newer
        state[at + 1] = running
        state[at + 2] = weighted
        return average if state[at + 3] != 0.0 else NAN
    total = 0.0
    total_weighted = 0.0
    for k in range(suffix + window - 1, suffix - 1, -1):
        total += state[k]
        total_weighted += total
        state[k] = total_weighted
    state[at] = 0.0
    state[at + 1] = 0.0
    state[at + 2] = 0.0
    state[at + 3] = 1.0
    return average


def dema(state: State, at: int, window: int, factor: float, once: float, twice: float) -> float:
    """Double exponential average: ``2 e1 - e2``, where ``e2`` is the EMA of the EMA ``e1``.

    Warm-up: that of its inputs, value ``2 window - 1``. State: none. Source: TA-Lib DEMA.
    """
    return 2.0 * once - twice


def tema(state: State, at: int, window: int, factor: float, once: float, twice: float, thrice: float) -> float:
    """Triple exponential average: ``3 e1 - 3 e2 + e3``.

    Warm-up: that of its inputs, value ``3 window - 2``. State: none. Source: TA-Lib TEMA.
    """
    return 3.0 * once - 3.0 * twice + thrice


def difference(state: State, at: int, window: int, factor: float, first: float, second: float) -> float:
    """``first - second``: the line of MACD (fast minus slow) and its histogram (line minus signal).

    Warm-up: that of its inputs. State: none. Source: TA-Lib MACD.
    """
    return first - second


def cross(state: State, at: int, window: int, factor: float, first: float, second: float) -> float:
    """+1 on the row where ``first`` rises above ``second``, -1 where it falls below, 0 on every other row.

    Equality is no crossing and keeps the side: a touch from above that returns upwards is nothing, one that goes
    through is a crossing on the row where the sign has changed. The first strict side is a beginning, no crossing.
    Equal means closer than a 1e-12th of the greater: two averages of one constant price differ by rounding alone, and
    that must not trade. Warm-up: 0 until both inputs are ready. State: the side. Source: definition.
    """
    side = state[at]
    gap = first - second
    rounding = 1e-12 * max(abs(first), abs(second))
    if gap > rounding:
        state[at] = 1.0
        return 1.0 if side < 0.0 else 0.0
    if gap < -rounding:
        state[at] = -1.0
        return -1.0 if side > 0.0 else 0.0
    return 0.0
