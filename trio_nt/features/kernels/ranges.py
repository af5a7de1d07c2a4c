"""High, low and close: true range, directional movement, rolling extremes."""

from trio_nt.features.kernels import NAN, State


def atr(state: State, at: int, window: int, factor: float, high: float, low: float, close: float) -> float:
    """Average true range, smoothed by Wilder; a true range is the bar's range stretched to the previous close.

    Warm-up: ready at bar ``window`` + 1 (it starts as the mean of the first ``window`` true ranges).
    State: count, previous close, average. Source: TA-Lib ATR; Wilder 1978.
    """
    count = state[at]
    before = state[at + 1]
    state[at + 1] = close
    if count == 0.0:
        state[at] = 1.0
        return NAN
    reach = max(high - low, abs(high - before), abs(low - before))
    if count > window:
        average = state[at + 2] + (reach - state[at + 2]) * factor
        state[at + 2] = average
        return average
    total = state[at + 2] + reach
    state[at] = count + 1.0
    if count < window:
        state[at + 2] = total
        return NAN
    average = total / window
    state[at + 2] = average
    return average


def _move_directions(state: State, at: int, window: int, factor: float, high: float, low: float, close: float) -> float:
    """Take one bar into Wilder's smoothed +DM, -DM and true range; how many bars were seen before it.

    State from ``at``: count, previous high, low and close, +DM, -DM, true range.
    """
    count = state[at]
    up = high - state[at + 1]
    down = state[at + 2] - low
    before = state[at + 3]
    state[at + 1] = high
    state[at + 2] = low
    state[at + 3] = close
    state[at] = count + 1.0
    if count == 0.0:
        return count
    reach = max(high - low, abs(high - before), abs(low - before))
    plus = up if up > 0.0 and up > down else 0.0
    minus = down if down > 0.0 and down > up else 0.0
    if count < window:
        state[at + 4] += plus
        state[at + 5] += minus
        state[at + 6] += reach
    else:
        state[at + 4] += plus - state[at + 4] * factor
        state[at + 5] += minus - state[at + 5] * factor
        state[at + 6] += reach - state[at + 6] * factor
    return count


def plus_di(state: State, at: int, window: int, factor: float, high: float, low: float, close: float) -> float:
    """Plus directional indicator: ``100 +DM / TR``, both smoothed by Wilder; 0 where there is no range.

    Warm-up: ready at bar ``window`` + 1. State: see ``_move_directions``. Source: TA-Lib PLUS_DI; Wilder 1978.
    """
    count = _move_directions(state, at, window, factor, high, low, close)
    if count < window:
        return NAN
    reach = state[at + 6]
    return 100.0 * (state[at + 4] / reach) if reach != 0.0 else 0.0


def minus_di(state: State, at: int, window: int, factor: float, high: float, low: float, close: float) -> float:
    """Minus directional indicator: ``100 -DM / TR``, both smoothed by Wilder; 0 where there is no range.

    Warm-up: ready at bar ``window`` + 1. State: see ``_move_directions``. Source: TA-Lib MINUS_DI; Wilder 1978.
    """
    count = _move_directions(state, at, window, factor, high, low, close)
    if count < window:
        return NAN
    reach = state[at + 6]
    return 100.0 * (state[at + 5] / reach) if reach != 0.0 else 0.0


def adx(state: State, at: int, window: int, factor: float, high: float, low: float, close: float) -> float:
    """Average directional index: ``100 |+DI - -DI| / (+DI + -DI)``, smoothed by Wilder.

    A bar without range or direction leaves it as it is. Warm-up: ready at bar ``2 window`` (it starts as the mean
    of ``window`` first values). State: as ``plus_di``, and the average. Source: TA-Lib ADX; Wilder 1978.
    """
    count = _move_directions(state, at, window, factor, high, low, close)
    if count < window:
        return NAN
    average = state[at + 7]
    plus = state[at + 4]
    minus = state[at + 5]
    moved = plus + minus
    directed = moved != 0.0 and state[at + 6] != 0.0
    index = 100.0 * (abs(minus - plus) / moved) if directed else 0.0
    first = 2.0 * window - 1.0
    if count > first:
        if directed:
            average += (index - average) * factor
    else:
        average += index
        if count == first:
            average /= window
    state[at + 7] = average
    return average if count >= first else NAN


def rolling_max(state: State, at: int, window: int, factor: float, value: float) -> float:
    """The greatest of the last ``window`` values.

    Warm-up: ready at value ``window``. State: place in block, block seen, block's maximum, ``window`` suffix maxima.
    Source: TA-Lib MAX; van Herk 1992, Gil and Werman 1993.
    """
    newer = state[at] + 1.0
    ring = at + 3
    place = ring - 1 + int(newer)
    greatest = value
    if newer > 1.0 and state[at + 2] > value:
        greatest = state[at + 2]
    state[place] = value
    if newer < window:
        state[at] = newer
        state[at + 2] = greatest
        if state[at + 1] == 0.0:
            return NAN
        older = state[place + 1]
        return older if older > greatest else greatest
    for k in range(ring + window - 2, ring - 1, -1):
        if state[k + 1] > state[k]:
            state[k] = state[k + 1]
    state[at] = 0.0
    state[at + 1] = 1.0
    return greatest


def rolling_min(state: State, at: int, window: int, factor: float, value: float) -> float:
    """The least of the last ``window`` values.

    Warm-up: ready at value ``window``. State: as ``rolling_max``. Source: TA-Lib MIN; van Herk 1992.
    """
    newer = state[at] + 1.0
    ring = at + 3
    place = ring - 1 + int(newer)
    least = value
    if newer > 1.0 and state[at + 2] < value:
        least = state[at + 2]
    state[place] = value
    if newer < window:
        state[at] = newer
        state[at + 2] = least
        if state[at + 1] == 0.0:
            return NAN
        older = state[place + 1]
        return older if older < least else least
    for k in range(ring + window - 2, ring - 1, -1):
        if state[k + 1] < state[k]:
            state[k] = state[k + 1]
    state[at] = 0.0
    state[at + 1] = 1.0
    return least
