"""Which rows carry bad data."""

import itertools
import math

import numpy as np
import pytest

from trio_nt.model.market import CROSSED, NEGATIVE, NOT_FINITE, flag_bars, flag_quotes, flag_trades

VALUES = (1.0, 2.0, 0.0, -1.0, math.nan, math.inf, -math.inf)


def expected(values: tuple[float, ...], *, negative: bool, crossed: bool = False) -> int:
    finite = all(math.isfinite(value) for value in values)
    return NOT_FINITE * (not finite) | NEGATIVE * negative | CROSSED * crossed


def test_quotes() -> None:
    rows = list(itertools.product(VALUES, repeat=4))
    flags = flag_quotes(*np.array(rows).T)
    for values, flag in zip(rows, flags.tolist(), strict=True):
        bid, ask, bid_size, ask_size = values
        negative = bid <= 0 or ask <= 0 or bid_size < 0 or ask_size < 0
        assert flag == expected(values, negative=negative, crossed=bid > ask), values


def test_trades() -> None:
    rows = list(itertools.product(VALUES, repeat=2))
    for values, flag in zip(rows, flag_trades(*np.array(rows).T).tolist(), strict=True):
        assert flag == expected(values, negative=values[0] <= 0 or values[1] < 0), values


@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume"])
@pytest.mark.parametrize("value", VALUES)
def test_bars(name: str, value: float) -> None:
    bar = {"open": 1.5, "high": 2.0, "low": 1.0, "close": 1.5, "volume": 3.0} | {name: value}
    flags = int(flag_bars({column: np.array([number]) for column, number in bar.items()})[0])
    assert bool(flags & NOT_FINITE) == (not math.isfinite(value))
    if math.isfinite(value):
        negative = min(bar["open"], bar["low"], bar["close"]) <= 0 or bar["volume"] < 0
        assert bool(flags & NEGATIVE) == negative
    assert bool(flags & CROSSED) == (bar["high"] < bar["low"])


def test_sums_that_overflow_make_no_noise() -> None:
    huge = np.array([1.7e308])
    assert flag_trades(huge, huge).shape == (1,)
    assert flag_quotes(huge, huge, huge, huge).shape == (1,)
