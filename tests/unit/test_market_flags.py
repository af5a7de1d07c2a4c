"""Which rows carry bad data."""

import itertools
import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from trio_nt.model.market import (
    CROSSED,
    NEGATIVE,
    NOT_FINITE,
    QUOTE,
    TRADE,
    flag_bars,
    flag_quotes,
    flag_rows,
    flag_trades,
)

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


NUMBERS = st.sampled_from(VALUES)


@given(st.lists(st.tuples(st.booleans(), *[NUMBERS] * 6), max_size=6))
def test_rows_together_are_flagged_as_each_kind_by_itself(rows: list[tuple[Any, ...]]) -> None:
    is_quote = np.array([row[0] for row in rows], np.bool_)
    names = ("bid", "ask", "bid_size", "ask_size", "price", "size")
    columns = dict(zip(names, np.array([row[1:] for row in rows]).reshape(-1, 6).T, strict=True))
    columns["kind"] = np.where(is_quote, QUOTE, TRADE)
    quotes, trades = flag_quotes(*(columns[name] for name in names[:4])), flag_trades(columns["price"], columns["size"])
    assert flag_rows(columns).tolist() == np.where(is_quote, quotes, trades).tolist()
