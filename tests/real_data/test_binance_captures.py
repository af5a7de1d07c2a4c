"""Recorded Binance streams as they are: every message counted, instruments kept apart."""

import gzip
import re
from collections import Counter
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from trio_nt.errors import InputError
from trio_nt.feeds.data import open_market_data
from trio_nt.model.instruments import InstrumentKind
from trio_nt.model.market import QUOTE, TRADE

FILES = [
    "cm_btcusd_perp_20240808",
    "cm_btcusd_perp_20240809",
    "spot_btcusdt_20240808",
    "spot_ethusdt_20240808",
    "usdm_btcusdt_20240808",
]


@pytest.fixture(scope="module")
def captures(shared_data: Path) -> Path:
    return shared_data / "binance_ws_raw"


def path_of(captures: Path, name: str) -> Path:
    return captures / f"{name}.jsonl.gz"


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_message_is_counted_as_a_plain_search_counts_it(captures: Path, name: str) -> None:
    text = gzip.decompress(path_of(captures, name).read_bytes())
    searched = Counter(kind.decode() for kind in re.findall(rb'"stream":"[^"@]+@([^"@]+)', text))
    data = open_market_data([path_of(captures, name)])
    kinds = np.concatenate([block["kind"] for block in data.blocks()])
    messages = dict(data.statistics.messages)
    assert messages.pop("snapshot", 0) == text.count(b'{"lastUpdateId"')
    assert messages == searched
    assert np.count_nonzero(kinds == QUOTE) == searched["bookTicker"]
    assert np.count_nonzero(kinds == TRADE) == searched["trade"]
    (file,) = data.statistics.files
    assert file.lines == text.count(b"\n")
    assert (file.bad_lines, file.flagged, file.ts_init_lifted) == (0, {}, 0)


@pytest.mark.slow
def test_three_markets_in_one_run_are_three_instruments_in_order(captures: Path) -> None:
    names = ["spot_btcusdt_20240808", "usdm_btcusdt_20240808", "cm_btcusd_perp_20240808"]
    data = open_market_data([path_of(captures, name) for name in names])
    spot, linear, inverse = data.instruments
    assert data.instruments.ids == ["BTCUSDT.BINANCE", "BTCUSDT.BINANCE_UM", "BTCUSD_PERP.BINANCE_CM"]
    assert (spot.kind, spot.settlement, spot.tick_size, spot.lot_size) == (
        InstrumentKind.SPOT,
        "USDT",
        Decimal("0.01"),
        Decimal("0.00001"),
    )
    assert (linear.kind, linear.settlement, linear.tick_size, linear.lot_size) == (
        InstrumentKind.LINEAR,
        "USDT",
        Decimal("0.1"),
        Decimal("0.001"),
    )
    assert (inverse.kind, inverse.settlement, inverse.tick_size, inverse.multiplier) == (
        InstrumentKind.INVERSE,
        "BTC",
        Decimal("0.1"),
        100,
    )
    last = 0
    rows: Counter[int] = Counter()
    for block in data.blocks():
        assert not np.any(np.diff(block["ts_init"], prepend=last) < 0)
        last = int(block["ts_init"][-1])
        rows.update(block["instrument"].tolist())
    assert [rows[index] for index in range(3)] == [file.rows for file in data.statistics.files]


@pytest.mark.slow
def test_a_capture_cut_off_is_an_error_that_names_it(captures: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(path_of(captures, FILES[2]).read_bytes()[:500_000])
    with pytest.raises(InputError, match=r"cut\.jsonl\.gz: truncated gzip, it ends in the middle after line \d+,\d+$"):
        open_market_data([path])


@pytest.mark.slow
def test_a_damaged_line_in_the_middle_is_counted_and_the_rest_is_used(captures: Path, tmp_path: Path) -> None:
    lines = gzip.decompress(path_of(captures, FILES[3]).read_bytes()).split(b"\n")
    lines[9_999] = lines[9_999][:-5]
    path = tmp_path / "damaged.jsonl"
    path.write_bytes(b"\n".join(lines))
    data = open_market_data([path])
    (file,) = data.statistics.files
    assert [line for line, _ in file.bad_line_examples] == [10_000]
    assert sum(len(block["kind"]) for block in data.blocks()) == 30_183 - 1
