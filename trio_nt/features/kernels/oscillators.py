"""Oscillators on one price: RSI, rate of change, stochastic, Williams %R, CCI."""

from trio_nt.features.kernels import NAN, State


def rsi(state: State, at: int, window: int, factor: float, price: float) -> float:
    """Relative strength index: ``100 gain / (gain + loss)`` of averages smoothed by Wilder; 0 where nothing moved.

    Warm-up: ready at value ``window`` + 1 (the averages start as means of the first ``window`` changes).
    State: count, last price, average gain, average loss. Source: TA-Lib RSI; Wilder 1978.
    """
    count = state[at]
    change = price - state[at + 1]
    state[at + 1] = price
    if count == 0.0:
        state[at] = 1.0
        return NAN
    gain = change if change > 0.0 else 0.0
    loss = -change if change < 0.0 else 0.0
    if count > window:
        gain = state[at + 2] + (gain - state[at + 2]) * factor
        loss = state[at + 3] + (loss - state[at + 3]) * factor
    else:
        gain += state[at + 2]
        loss += state[at + 3]
        state[at] = count + 1.0
        if count < window:
            state[at + 2] = gain
            state[at + 3] = loss
            return NAN
        gain /= window
        loss /= window
    state[at + 2] = gain
    state[at + 3] = loss
    moved = gain + loss
    return 100.0 * (gain / moved) if moved != 0.0 else 0.0


def roc(state: State, at: int, window: int, factor: float, price: float) -> float:
    """Rate of change: ``100 (x / x[window values ago] - 1)``; 0 where that value was 0.

    Warm-up: ready at value ``window`` + 1. State: place, ring full, ``window`` values. Source: TA-Lib ROC.
    """
    newer = state[at] + 1.0
    place = at + 1 + int(newer)
    before = state[place]
    state[place] = price
    full = state[at + 1]
    if newer == window:
        newer = 0.0
        state[at + 1] = 1.0
    state[at] = newer
    if full == 0.0:
        return NAN
    return (price / before - 1.0) * 100.0 if before != 0.0 else 0.0


def stochastic(state: State, at: int, window: int, factor: float, close: float, highest: float, lowest: float) -> float:
    """Raw %K: where the close lies between the window's lowest low and highest high, 0 to 100; 0 without a range.

    Warm-up: that of its inputs, value ``window``. State: none. Source: TA-Lib STOCHF; Lane 1984.
    """
    width = highest - lowest
    return 100.0 * ((close - lowest) / width) if width != 0.0 else 0.0


def williams_r(state: State, at: int, window: int, factor: float, close: float, highest: float, lowest: float) -> float:
    """Williams %R: how far the close lies below the window's highest high, -100 to 0; 0 without a range.

    Warm-up: that of its inputs, value ``window``. State: none. Source: TA-Lib WILLR.
    """
    width = highest - lowest
    return -100.0 * ((highest - close) / width) if width != 0.0 else 0.0


def cci(state: State, at: int, window: int, factor: float, typical: float) -> float:
    """Commodity channel index: ``(x - mean) / (0.015 * mean absolute deviation)``; 0 where nothing deviates.

    Deviations are taken from the newest value first, so that a constant price gives an exact 0.
    Warm-up: ready at value ``window``. State: place, ring full, ``window`` values. Source: TA-Lib CCI; Lambert 1980.
    """
    newer = state[at] + 1.0
    first = at + 2
    last = first + window
    place = first - 1 + int(newer)
    full = state[at + 1] != 0.0
    if newer == window:
        newer = 0.0
        full = True
        state[at + 1] = 1.0
    state[at] = newer
    if not full:
        state[place] = typical
        return NAN
    # The newest value is written last: reading the ring right behind that write stalls for longer than both sums take.
    total = 0.0
    for k in range(first, place):
        total += state[k] - typical
    for k in range(place + 1, last):
        total += state[k] - typical
    mean = total / window
    centre = typical + mean
    deviation = abs(typical - centre)
    for k in range(first, place):
        deviation += abs(state[k] - centre)
    for k in range(place + 1, last):
        deviation += abs(state[k] - centre)
    state[place] = typical
    return -mean / (0.015 * (deviation / window)) if deviation != 0.0 else 0.0
