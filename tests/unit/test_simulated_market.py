"""The seeded market: the same seed gives the same bytes, and what it gives is a market."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_nt.exchange.market import BLOCK_ROWS, Market, blocks, venue_instruments
from trio_nt.exchange.streams import EncodedRows
from trio_nt.model.market import MARKET_FIELDS, QUOTE, TRADE, flag_quotes, flag_trades

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


def rows(seconds: float = 3, **settings_: object) -> dict[str, np.ndarray]:
    market = Market(**({"seed": 7, "start_ns": START} | settings_))  # type: ignore[arg-type]
    pieces = list(blocks(market, START + int(seconds * SECOND)))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in MARKET_FIELDS}


def test_the_same_seed_gives_the_same_bytes():
    symbols = venue_instruments().ids
    first, second, other = (EncodedRows(rows(seed=seed), symbols).all() for seed in (7, 7, 8))
    assert first == second
    assert first != other


@given(st.lists(st.integers(0, 700_000_000), max_size=8))
@settings(max_examples=50)
def test_it_does_not_matter_in_what_pieces_it_is_asked_for(steps):
    market, until, pieces = Market(seed=7, start_ns=START), START, []
    for step in steps:
        until += step
        while market.next_due_ns <= until:
            pieces.append(market.next(until))
        assert not len(market.next(until)["kind"])
    count = sum(len(piece["kind"]) for piece in pieces)
    expected = rows(seconds=6)
    for name in MARKET_FIELDS:
        got = np.concatenate([piece[name] for piece in pieces]) if pieces else expected[name][:0]
        np.testing.assert_array_equal(got, expected[name][:count])


def test_what_it_gives_is_a_market():
    market = rows()
    quotes, trades = market["kind"] == QUOTE, market["kind"] == TRADE
    assert (quotes | trades).all()
    assert 0.08 < trades.mean() < 0.12
    names = ("bid", "ask", "bid_size", "ask_size")
    assert not flag_quotes(*(market[name][quotes] for name in names)).any()
    assert not flag_trades(market["price"][trades], market["size"][trades]).any()
    assert (market["ask"][quotes] > market["bid"][quotes]).all()
    assert (np.diff(market["ts_init"]) >= 0).all()
    np.testing.assert_array_equal(market["sequence"], np.arange(len(quotes)))
    np.testing.assert_array_equal(market["ts_event"], market["ts_init"])
    assert ((market["ts_init"] - START) % 1_000_000 == 0).all()
    assert set(np.abs(market["aggressor"][trades])) == {1}
    for name in ("bid", "ask"):
        np.testing.assert_array_equal(market[name][quotes], np.round(market[name][quotes], 2))


def test_every_trade_prints_at_the_touch_in_force():
    market = rows()
    touch: dict[int, tuple[float, float]] = {}
    for kind, index, bid, ask, price, aggressor in zip(
        *(market[name].tolist() for name in ("kind", "instrument", "bid", "ask", "price", "aggressor")), strict=True
    ):
        if kind == QUOTE:
            touch[index] = bid, ask
        else:
            assert price == touch[index][aggressor > 0]


@pytest.mark.parametrize("rate", [50.0, 10_000.0, 200_000.0])
def test_it_keeps_its_rate_exactly_block_by_block_and_comes_in_bursts(rate):
    seconds = 4 * BLOCK_ROWS / rate
    market = rows(seconds=seconds + 0.001, events_per_second=rate)  # an event is due at the end of its step
    last_ns = int(market["ts_init"][4 * BLOCK_ROWS - 1]) - START
    assert seconds * SECOND <= last_ns <= seconds * SECOND + 1_000_000
    per_step = np.bincount(((market["ts_init"] - START) // 1_000_000).astype(int))
    assert per_step.max() > 3 * max(rate / 1000, 1)


def test_each_instrument_is_quoted_first():
    market = rows(symbols=4)
    assert market["kind"][:4].tolist() == [QUOTE] * 4
    assert market["instrument"][:4].tolist() == [0, 1, 2, 3]
    assert set(market["instrument"]) == {0, 1, 2, 3}


@pytest.mark.parametrize("wrong", [{"events_per_second": 0}, {"step_ns": 0}, {"events_per_second": float("nan")}])
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Market(seed=1, start_ns=START, **wrong)


@pytest.mark.parametrize("symbols", [0, 11])
def test_there_are_ten_symbols(symbols):
    with pytest.raises(ValueError, match="symbols must be from 1 to 10"):
        venue_instruments(symbols)
