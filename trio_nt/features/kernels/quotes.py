"""What one row says: prices as they are, mid, spread, microprice, imbalance, typical price."""

from trio_nt.features.kernels import State


def value(state: State, at: int, window: int, factor: float, price: float) -> float:
    """A field of the row as it is. Warm-up: none. State: none. Source: definition."""
    return price


def mid(state: State, at: int, window: int, factor: float, bid: float, ask: float) -> float:
    """``(bid + ask) / 2``. Warm-up: none. State: none. Source: definition."""
    return (bid + ask) / 2.0


def spread(state: State, at: int, window: int, factor: float, bid: float, ask: float) -> float:
    """``ask - bid``. Warm-up: none. State: none. Source: definition."""
    return ask - bid


def microprice(
    state: State, at: int, window: int, factor: float, bid: float, ask: float, bid_size: float, ask_size: float
) -> float:
    """``(bid * ask_size + ask * bid_size) / (bid_size + ask_size)``; the mid where both sizes are 0.

    Warm-up: none. State: none. Source: Gatheral and Oomen 2010.
    """
    total = bid_size + ask_size
    return (bid * ask_size + ask * bid_size) / total if total != 0.0 else (bid + ask) / 2.0


def imbalance(state: State, at: int, window: int, factor: float, bid_size: float, ask_size: float) -> float:
    """``(bid_size - ask_size) / (bid_size + ask_size)``, -1 to 1; 0 where both sizes are 0.

    Warm-up: none. State: none. Source: Cartea, Jaimungal and Penalva 2015.
    """
    total = bid_size + ask_size
    return (bid_size - ask_size) / total if total != 0.0 else 0.0


def typical(state: State, at: int, window: int, factor: float, high: float, low: float, close: float) -> float:
    """``(high + low + close) / 3``. Warm-up: none. State: none. Source: TA-Lib TYPPRICE."""
    return (high + low + close) / 3.0
