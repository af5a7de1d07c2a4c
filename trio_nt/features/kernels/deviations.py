"""How far values spread: standard deviation, bands, z-score, realised volatility."""

import math

from trio_nt.features.kernels import NAN, State


def stdev(state: State, at: int, window: int, factor: float, price: float) -> float:
    """Standard deviation of the last ``window`` values (divided by ``window``, not by ``window`` - 1).

    Two halves, each by Welford's recurrence around its own mean, joined by Chan's formula: all terms are at least
    0, so a constant price gives an exact 0 and a large offset costs no digits.
    Warm-up: ready at value ``window``. State: place in block, block seen, mean, squares, ``window`` suffix means,
    ``window`` suffix squares. Source: TA-Lib STDDEV; Welford 1962; Chan, Golub and LeVeque 1983.
    """
    newer = state[at] + 1.0
    means = at + 4
    place = means - 1 + int(newer)
    mean = state[at + 2]
    step = price - mean
    mean += step * (1.0 / newer)
    square = state[at + 3] + step * (price - mean)
    state[place] = price
    if newer < window:
        state[at] = newer
        state[at + 2] = mean
        state[at + 3] = square
        if state[at + 1] == 0.0:
            return NAN
        apart = state[place + 1] - mean
        square += state[place + 1 + window] + apart * apart * (newer * (window - newer) / window)
        return math.sqrt(square / window)
    older_mean = 0.0
    older_square = 0.0
    count = 0.0
    for k in range(means + window - 1, means - 1, -1):
        count += 1.0
        value = state[k]
        step = value - older_mean
        older_mean += step / count
        older_square += step * (value - older_mean)
        state[k] = older_mean
        state[k + window] = older_square
    state[at] = 0.0
    state[at + 1] = 1.0
    state[at + 2] = 0.0
    state[at + 3] = 0.0
    return math.sqrt(square / window)


def band(state: State, at: int, window: int, factor: float, middle: float, deviation: float) -> float:
    """A Bollinger band: ``middle + factor * deviation``; the lower one has a negative factor.

    Warm-up: that of its inputs, value ``window``. State: none. Source: TA-Lib BBANDS; Bollinger 1983.
    """
    return middle + factor * deviation


def zscore(state: State, at: int, window: int, factor: float, price: float, mean: float, deviation: float) -> float:
    """How many standard deviations the value lies above the mean of its window; 0 where nothing deviates.

    Warm-up: that of its inputs, value ``window``. State: none. Source: definition (population deviation).
    """
    return (price - mean) / deviation if deviation != 0.0 else 0.0


def realised_volatility(state: State, at: int, window: int, factor: float, price: float) -> float:
    """Root of the sum of the last ``window`` squared logarithmic returns; per window, not per year.

    A price of 0 or below has no logarithm: such a row is passed over. Warm-up: ready at value ``window`` + 1.
    State: place in block, block seen, running sum, last price, ``window`` + 1 suffix sums.
    Source: Andersen, Bollerslev, Diebold and Labys 2003.
    """
    if price <= 0.0:
        return state[at - 1]
    before = state[at + 3]
    state[at + 3] = price
    if before == 0.0:
        return NAN
    step = math.log(price / before)
    squared = step * step
    newer = state[at] + 1.0
    suffix = at + 4
    place = suffix - 1 + int(newer)
    running = state[at + 2] + squared
    total = running + state[place + 1]
    state[place] = squared
    if newer < window:
        state[at] = newer
        state[at + 2] = running
        return math.sqrt(total) if state[at + 1] != 0.0 else NAN
    older = 0.0
    for k in range(suffix + window - 1, suffix - 1, -1):
        older += state[k]
        state[k] = older
    state[at] = 0.0
    state[at + 1] = 1.0
    state[at + 2] = 0.0
    return math.sqrt(total)
