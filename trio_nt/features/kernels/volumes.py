"""Price and volume: VWAP, on-balance volume, money flow index."""

from trio_nt.features.kernels import NAN, State


def _add_exactly(state: State, at: int, value: float) -> float:
    """Add to the sum at ``at``, keeping in ``at + 1`` what rounding lost (Neumaier 1974); the corrected sum."""
    total = state[at]
    added = total + value
    if abs(total) >= abs(value):
        state[at + 1] += (total - added) + value
    else:
        state[at + 1] += (value - added) + total
    state[at] = added
    return added + state[at + 1]


def vwap_total(state: State, at: int, window: int, factor: float, price: float, volume: float) -> float:
    """Volume-weighted average price since the first row.

    Both sums are compensated, so they do not drift however long they run. Warm-up: ready at the first volume above 0.
    State: two sums with what rounding lost. Source: definition; Neumaier 1974.
    """
    value = _add_exactly(state, at, price * volume)
    total = _add_exactly(state, at + 2, volume)
    return value / total if total > 0.0 else NAN


def vwap(state: State, at: int, window: int, factor: float, price: float, volume: float) -> float:
    """Volume-weighted average price of the last ``window`` rows; NaN while they hold no volume.

    Warm-up: ready at row ``window``. State: place in block, block seen, two running sums, ``window`` + 1 suffix
    sums of each. Source: definition.
    """
    newer = state[at] + 1.0
    value = state[at + 2] + price * volume
    total = state[at + 3] + volume
    values = at + 4
    totals = values + window + 1
    place = int(newer)
    all_value = value + state[values + place]
    all_total = total + state[totals + place]
    state[values + place - 1] = price * volume
    state[totals + place - 1] = volume
    if newer < window:
        state[at] = newer
        state[at + 2] = value
        state[at + 3] = total
        ready = state[at + 1] != 0.0
    else:
        older_value = 0.0
        older_total = 0.0
        for k in range(window - 1, -1, -1):
            older_value += state[values + k]
            older_total += state[totals + k]
            state[values + k] = older_value
            state[totals + k] = older_total
        state[at] = 0.0
        state[at + 1] = 1.0
        state[at + 2] = 0.0
        state[at + 3] = 0.0
        ready = True
    return all_value / all_total if ready and all_total > 0.0 else NAN


def obv(state: State, at: int, window: int, factor: float, price: float, volume: float) -> float:
    """On-balance volume: the volume of rising rows minus that of falling ones, from the first row's volume on.

    Warm-up: ready at the first row. State: row seen, last price, sum and what rounding lost.
    Source: TA-Lib OBV; Granville 1963.
    """
    before = state[at + 1]
    state[at + 1] = price
    if state[at] == 0.0:
        state[at] = 1.0
        return _add_exactly(state, at + 2, volume)
    if price > before:
        return _add_exactly(state, at + 2, volume)
    if price < before:
        return _add_exactly(state, at + 2, -volume)
    return state[at + 2] + state[at + 3]


def mfi(state: State, at: int, window: int, factor: float, typical: float, volume: float) -> float:
    """Money flow index: ``100 * rising / (rising + falling)`` flow of the last ``window`` rows; 0 without any flow.

    A row's flow is price times volume, and rising when the price is above the row before. Warm-up: ready at row
    ``window`` + 1. State: place in block, block seen, row seen, last price, two running sums, ``window`` + 1
    suffix sums of each. Source: TA-Lib MFI (which also says 0 where all flow is below 1; we do not).
    """
    before = state[at + 3]
    state[at + 3] = typical
    if state[at + 2] == 0.0:
        state[at + 2] = 1.0
        return NAN
    flow = typical * volume
    up = flow if typical > before else 0.0
    down = flow if typical < before else 0.0
    newer = state[at] + 1.0
    rising = state[at + 4] + up
    falling = state[at + 5] + down
    ups = at + 6
    downs = ups + window + 1
    place = int(newer)
    all_up = rising + state[ups + place]
    all_down = falling + state[downs + place]
    state[ups + place - 1] = up
    state[downs + place - 1] = down
    if newer < window:
        state[at] = newer
        state[at + 4] = rising
        state[at + 5] = falling
        if state[at + 1] == 0.0:
            return NAN
    else:
        older_up = 0.0
        older_down = 0.0
        for k in range(window - 1, -1, -1):
            older_up += state[ups + k]
            older_down += state[downs + k]
            state[ups + k] = older_up
            state[downs + k] = older_down
        state[at] = 0.0
        state[at + 1] = 1.0
        state[at + 4] = 0.0
        state[at + 5] = 0.0
    total = all_up + all_down
    return 100.0 * (all_up / total) if total != 0.0 else 0.0
