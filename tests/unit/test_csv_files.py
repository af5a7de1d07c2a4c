"""CSV files of quotes, trades and bars."""

import gzip
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from trio_nt.errors import InputError
from trio_nt.feeds import files
from trio_nt.feeds.data import MarketData, open_market_data
from trio_nt.model.market import CROSSED, NEGATIVE, NOT_FINITE

QUOTES = "time,instrument,bid,ask,bid_size,ask_size\n"
TRADES = "time,instrument,price,size\n"
BARS = "time,instrument,open,high,low,close,volume\n"
DAY = 86_400_000_000_000


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000_000


def opened(folder: Path, text: str | bytes, **settings: Any) -> MarketData:
    path = folder / "data.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return open_market_data([path], **settings)


def rows_of(data: MarketData, *names: str) -> list[tuple[Any, ...]]:
    return [row for block in data.blocks() for row in zip(*(block[name].tolist() for name in names), strict=True)]


def test_quotes(tmp_path: Path) -> None:
    data = opened(tmp_path, QUOTES + "2024-01-02T10:00:00Z,ABC,1.25,1.26,3,4\n2024-01-02T10:00:00Z,X,2,3,4,5\n")
    names = ("sequence", "kind", "instrument", "ts_event", "ts_init", "bid", "ask", "bid_size", "ask_size", "aggressor")
    time = at("2024-01-02T10:00:00")
    assert rows_of(data, *names) == [
        (0, 1, 0, time, time, 1.25, 1.26, 3, 4, 0),
        (1, 1, 1, time, time, 2, 3, 4, 5, 0),
    ]
    assert all(math.isnan(value) for row in rows_of(data, "price", "size") for value in row)
    assert data.instruments.ids == ["ABC", "X"]
    assert data.statistics.messages == {"quote": 2}


@pytest.mark.parametrize(
    "text",
    [
        TRADES + "1704189600000,ABC,1.5,2\n",
        "size,price,instrument,time\n2,1.5,ABC,1704189600000\n",
        "Time, Instrument ,PRICE,size\r\n1704189600000, ABC ,1.5,2\r\n",
        "\ufeff" + TRADES + "\n1704189600000,ABC,1.5,2",
        TRADES + '"1704189600000","ABC","1.5","2"\n\n',
    ],
    ids=["plain", "other order", "spaces and returns", "byte order mark and empty lines", "quoted"],
)
def test_trades_however_they_are_written(tmp_path: Path, text: str) -> None:
    for data in (opened(tmp_path, text), opened(tmp_path, gzip.compress(text.encode()))):
        assert data.instruments.ids == ["ABC"]
        assert rows_of(data, "kind", "ts_init", "price", "size") == [(2, at("2024-01-02T10:00:00"), 1.5, 2)]


@pytest.mark.parametrize("read_bytes", [7, 64, 1 << 18])
def test_chunks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int) -> None:
    monkeypatch.setattr(files, "READ_BYTES", read_bytes)
    text = TRADES + "".join(f"{1704189600000 + number // 3},S{number % 7},{number},1\n" for number in range(100))
    data = opened(tmp_path, text)
    rows = rows_of(data, "sequence", "instrument", "price")
    assert rows == [(number, number % 7, number if number else 0.0) for number in range(100)]


def test_bars_are_visible_at_their_close(tmp_path: Path) -> None:
    stamps = ("2024-01-02,A", "2024-01-02,B", "2024-01-03,A", "2024-01-03,B", "2024-01-05,A")
    text = BARS + "".join(f"{stamp},1,2,1,2,5\n" for stamp in stamps)
    by_open = opened(tmp_path, text, bar_time="open")
    first = at("2024-01-02T00:00:00")
    assert [row[0] - first for row in rows_of(by_open, "ts_init")] == [DAY, DAY, 2 * DAY, 2 * DAY, 4 * DAY]
    assert any("stamped at their open and last 86,400 s" in said for said in by_open.assumptions)
    by_close = opened(tmp_path, text, bar_time="close")
    assert [row[0] - first for row in rows_of(by_close, "ts_init")] == [0, 0, DAY, DAY, 3 * DAY]
    names = ("kind", "open", "high", "low", "close", "volume")
    assert rows_of(by_close, *names)[0] == (3, 1, 2, 1, 2, 5)


def test_the_interval_is_found_however_late_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "READ_BYTES", 64)
    first_day = "".join(f"2024-01-02,S{number},1,2,1,2,5\n" for number in range(30))
    data = opened(tmp_path, BARS + first_day + "2024-01-03,S0,1,2,1,2,5\n", bar_time="open")
    assert rows_of(data, "ts_init")[0][0] == at("2024-01-03T00:00:00")
    assert len(rows_of(data, "kind")) == 31


def test_of_equally_frequent_spacings_the_longer_is_safe(tmp_path: Path) -> None:
    bars = "2024-01-02T09:30,A,1,2,1,2,5\n2024-01-02T10:00,A,1,2,1,2,5\n2024-01-02T11:00,A,1,2,1,2,5\n"
    data = opened(tmp_path, BARS + bars, bar_time="open")
    assert rows_of(data, "ts_init")[0][0] == at("2024-01-02T10:30:00")


def test_the_feed_s_latency_is_added_and_stated(tmp_path: Path) -> None:
    data = opened(tmp_path, TRADES + "2024-01-02,A,1,1\n", feed_latency_ns=1_500_000)
    ((ts_event, ts_init),) = rows_of(data, "ts_event", "ts_init")
    assert (ts_event, ts_init) == (at("2024-01-02T00:00:00"), at("2024-01-02T00:00:00") + 1_500_000)
    path = tmp_path / "data.csv"
    assert data.assumptions[:2] == [
        f"times of {path} without an offset taken for UTC",
        f"{path} states no receipt times: received 1.5 ms after the exchange's time",
    ]
    assert any("0 ms after" in said for said in opened(tmp_path, TRADES + "2024-01-02,A,1,1\n").assumptions)


def test_bad_values_are_flagged_and_counted(tmp_path: Path) -> None:
    text = QUOTES + "2024-01-02,A,,1,1,1\n2024-01-02,A,nan,1,1,1\n2024-01-02,A,2,1,1,1\n2024-01-02,A,1,2,-1,1\n"
    data = opened(tmp_path, text)
    assert [row[0] for row in rows_of(data, "flags")] == [NOT_FINITE, NOT_FINITE, CROSSED, NEGATIVE]
    assert data.statistics.flagged == {"not a number": 2, "crossed": 1, "negative": 1}
    bars = opened(tmp_path, BARS + "2024-01-02,A,1,1,2,1,5\n", bar_time="close")
    assert rows_of(bars, "flags") == [(CROSSED,)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (TRADES, "holds no quote, trade or bar"),
        ("time,instrument,price\n", "line 1: missing column 'size'"),
        ("time,price,size\n", "line 1: missing column 'instrument'"),
        ("instrument,price,size\n", "line 1: missing column 'time'"),
        ("date,instrument,price,size\n", "line 1: unknown column 'date'"),
        ("time,instrument,price,size,bid\n", "line 1: column 'bid' does not go with price,size"),
        ("time,instrument,price,size,size\n", "line 1: column 'size' is named twice"),
        (TRADES + "2024-01-03,A,1,1\n\n2024-01-02,A,1,1\n", "line 4: the time '2024-01-02' is before the row above"),
        (TRADES + "2024-01-03,A,1,1\n2024-01-03,A,1\n", "line 3: 3 values, the header names 4"),
        (TRADES + "2024-01-03,A,1,1,\n", "line 2: 5 values, the header names 4"),
        (TRADES + "2024-01-03,A,1,one\n", "line 2: size must be a number, was 'one'"),
        (TRADES + "2024-01-03,,1,1\n", "line 2: no instrument is named"),
        (TRADES + "soon,A,1,1\n", "line 2: 'soon' is no ISO time"),
        (TRADES + "1,A,1,1\n", "line 2: the unit of the time '1' is ambiguous"),
        (TRADES + '2024-01-03,"A,1,1\n', "line 2: no CSV row"),
        ((TRADES + "2024-01-03,A,1,1\n2024-01-03,\u00e9,1,1\n").encode("latin-1"), "line 3: no UTF-8 text"),
        (BARS, "line 1: it does not say whether bars are stamped at open or close; state it (--bar-time)"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(InputError) as caught:
        opened(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'data.csv'}: {said}")


def test_an_interval_that_nothing_shows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no instrument has two bars"):
        opened(tmp_path, BARS + "2024-01-02,A,1,2,1,2,5\n2024-01-03,B,1,2,1,2,5\n", bar_time="open")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"time_unit": "m"}, "the time unit must be one of s, ms, us, ns, was 'm'"),
        ({"bar_time": "end"}, "the bar time must be open or close, was 'end'"),
        ({"feed_latency_ns": -1}, "the feed latency must not be negative, was -1 ns"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        opened(tmp_path, TRADES + "2024-01-02,A,1,1\n", **settings)


def test_lines_keep_their_numbers_over_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "READ_BYTES", 50)
    text = TRADES + "2024-01-02,A,1,1\n" * 98 + "2024-01-01,A,1,1\n"
    with pytest.raises(InputError, match="line 100: the time '2024-01-01'"):
        opened(tmp_path, text)
