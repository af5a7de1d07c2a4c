"""Several sources as one run's data: instruments, order, blocks, what is said."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from trio_nt.errors import InputError
from trio_nt.feeds import data as market_data
from trio_nt.feeds.data import MarketData, from_columns, from_events, open_market_data
from trio_nt.model.instruments import Instrument, Instruments
from trio_nt.model.market import BAR_FIELDS, MARKET_FIELDS, QUOTE, TRADE, Bar, MarketEvent, Quote, Trade, events_by_row

T0 = 1_723_161_255_000_000_000
SPOT = f'{T0} {{"stream":"b@bookTicker","data":{{"u":1,"s":"BTCUSDT","b":"1.5","B":"1","a":"2","A":"1"}}}}\n'
FUTURES = SPOT.replace('"u":1', '"u":1,"T":5,"E":5')
CSV = f"time,instrument,price,size\n{T0},ABC,1,1\n{T0 + 1},ABC,1,1\n"
EVENTS: list[MarketEvent] = [
    Quote("ABC", 0, 1, 10.0, 11.0, 1.0, 2.0),
    Trade("X", 0, 2, 10.0, 1.0, -1),
    Bar("X", 5, 6, 1.0, 2.0, 1.0, 2.0, 5.0),
    Quote("ABC", 0, 7, 10.0, 11.0, 1.0, 2.0),
]


def write(folder: Path, **texts: str) -> list[Path]:
    paths = []
    for name, text in texts.items():
        paths.append(folder / name)
        paths[-1].write_text(text)
    return paths


def events(data: MarketData) -> list[MarketEvent]:
    ids = data.instruments.ids
    return [event for block in data.blocks() for event in events_by_row(block, ids) if event is not None]


def test_events_come_back_as_they_were_and_again() -> None:
    data = from_events(EVENTS)
    assert events(data) == EVENTS
    assert events(data) == EVENTS
    assert data.statistics.messages == {"quote": 2, "trade": 1, "bar": 1}
    assert data.instruments.ids == ["ABC", "X"]
    assert data.instruments["ABC"].tick_size == Decimal("0.01"), "no coarser, whatever its few prices show"


def test_blocks_have_their_layout_s_columns_and_types() -> None:
    layouts = [{name: column.dtype for name, column in block.items()} for block in from_events(EVENTS).blocks()]
    assert layouts == [MARKET_FIELDS, BAR_FIELDS, MARKET_FIELDS]
    assert [list(layout) for layout in layouts] == [list(MARKET_FIELDS), list(BAR_FIELDS), list(MARKET_FIELDS)]


@pytest.mark.parametrize("block_rows", [1, 2, 3, 100])
def test_blocks_are_no_longer_than_asked_and_sequence_runs_through(block_rows: int) -> None:
    quotes = [Quote("ABC", 0, time, 1.0, 2.0, 1.0, 1.0) for time in range(1, 8)]
    blocks = list(from_events(quotes, block_rows=block_rows).blocks())
    assert max(len(block["kind"]) for block in blocks) <= block_rows
    assert np.concatenate([block["sequence"] for block in blocks]).tolist() == list(range(7))


def test_events_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="ts_init must never decrease"):
        from_events([EVENTS[1], EVENTS[0]])
    with pytest.raises(InputError, match="holds no quote"):
        from_events([])


def test_columns_are_completed_and_flagged() -> None:
    instruments = Instruments([Instrument(id="A", symbol="A"), Instrument(id="B", symbol="B")])
    columns = {"kind": [QUOTE, TRADE], "instrument": [1, 0], "ts_init": [5, 6], "bid": [3.0, np.nan]}
    columns |= {"ask": [2.0, np.nan], "bid_size": [1.0, np.nan], "ask_size": [1.0, np.nan]}
    columns |= {"price": [np.nan, 2.0], "size": [np.nan, 1.0]}
    (block,) = from_columns({name: np.array(column) for name, column in columns.items()}, instruments).blocks()
    assert block["flags"].tolist() == [4, 0]
    assert block["sequence"].tolist() == [0, 1]
    assert {name: column.dtype for name, column in block.items()} == MARKET_FIELDS


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"ts_init": [1], "kind": [1], "prize": [1]}, "columns must be among"),
        ({"ts_init": [1], "kind": [1, 1]}, "column 'kind' must have shape"),
        ({"ts_init": [1], "kind": [7]}, "kind must be QUOTE or TRADE"),
        ({"ts_init": [1], "kind": [1], "instrument": [2]}, "instrument must be an index below 1"),
        ({"ts_init": [2, 1], "kind": [1, 1]}, "ts_init must never decrease"),
    ],
)
def test_wrong_columns_are_refused(columns: dict[str, list[int]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        from_columns(
            {name: np.array(column) for name, column in columns.items()}, Instruments([Instrument(id="A", symbol="A")])
        )


def test_files_are_merged_and_instruments_kept_apart(tmp_path: Path) -> None:
    paths = write(tmp_path, spot=SPOT, futures=FUTURES, csv=CSV)
    data = open_market_data(paths)
    assert data.instruments.ids == ["BTCUSDT.BINANCE", "BTCUSDT.BINANCE_UM", "ABC"]
    assert [event.instrument for event in events(data)] == [*data.instruments.ids, "ABC"]
    assert [file.rows for file in data.statistics.files] == [1, 1, 2]
    assert (data.statistics.rows, data.statistics.messages) == (4, {"bookTicker": 2, "trade": 2})
    turned = open_market_data(paths[::-1])
    assert [event.instrument for event in events(turned)][:3] == ["ABC", "BTCUSDT.BINANCE_UM", "BTCUSDT.BINANCE"]


def test_two_files_of_one_instrument_share_it(tmp_path: Path) -> None:
    first, second = write(tmp_path, first=SPOT, second=SPOT.replace("1.5", "1.25"))
    data = open_market_data([first, second])
    assert data.instruments.ids == ["BTCUSDT.BINANCE"]
    assert data.instruments["BTCUSDT"].tick_size == Decimal("0.01")
    assert "tick 0.01 and lot 1 of BTCUSDT.BINANCE inferred from its first 2 rows" in data.assumptions


def test_described_instruments_are_used_and_others_unknown(tmp_path: Path) -> None:
    spot, futures, described = write(
        tmp_path, spot=SPOT, futures=FUTURES, described='[instruments."BTCUSDT.BINANCE"]\nsymbol = "BTCUSDT"\n'
    )
    data = open_market_data([spot], instruments=described)
    assert data.instruments["BTCUSDT"].tick_size == Decimal("0.01")
    assert data.assumptions == ["fees of BTCUSDT.BINANCE: maker 0.0005, taker 0.0005 (default for equity)"]
    with pytest.raises(InputError, match=r"line 1: unknown instrument 'BTCUSDT.BINANCE_UM'; known: BTCUSDT.BINANCE"):
        open_market_data([futures], instruments=described)


def test_a_csv_may_name_a_described_instrument_by_its_symbol(tmp_path: Path) -> None:
    (path,) = write(tmp_path, csv=CSV)
    instruments = Instruments([Instrument(id="ABC.XNYS", symbol="ABC")])
    data = open_market_data([path], instruments=instruments)
    assert {event.instrument for event in events(data)} == {"ABC.XNYS"}
    assert "fees of ABC.XNYS: none, as described" in data.assumptions


def test_given_fees_replace_all_others(tmp_path: Path) -> None:
    (path,) = write(tmp_path, csv=CSV)
    data = open_market_data([path], fees=(0, "0.002"))
    assert (data.instruments["ABC"].maker_fee, data.instruments["ABC"].taker_fee) == (0, Decimal("0.002"))
    assert [said for said in data.assumptions if said.startswith("fees")] == [
        "fees of all instruments: maker 0, taker 0.002 (as given)"
    ]


def test_more_than_is_read_ahead_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_data, "ROWS_AHEAD", 1)
    monkeypatch.setattr("trio_nt.feeds.files.READ_BYTES", 64)
    rows = "".join(f"{T0 + number},{'ABC' if number < 90 else 'LATE'},1,1\n" for number in range(100))
    (path,) = write(tmp_path, csv="time,instrument,price,size\n" + rows)
    data = open_market_data([path])
    with pytest.raises(InputError, match="line 92: 'LATE' first appears here, after the rows that are read ahead"):
        events(data)
    described = Instruments(Instrument(id=name, symbol=name) for name in ("LATE", "ABC"))
    data = open_market_data([path], instruments=described)
    assert data.statistics.rows < 10
    assert [event.instrument for event in events(data)] == ["ABC"] * 90 + ["LATE"] * 10
    assert data.statistics.rows == 100


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    (path,) = write(tmp_path, csv=CSV)
    for paths, said in (
        ([], "no file of market data was named"),
        ([tmp_path], "no regular file"),
        ([tmp_path / "absent"], "absent: No such file"),
        ([tmp_path / ("x" * 1_000)], "File name too long"),
        ([path, path], "named twice"),
    ):
        with pytest.raises(InputError, match=said):
            open_market_data(paths)


def test_settings_of_blocks_and_sources() -> None:
    with pytest.raises(ValueError, match="block_rows must be at least 1"):
        from_events(EVENTS, block_rows=0)
    with pytest.raises(ValueError, match="at least one source"):
        MarketData([])
