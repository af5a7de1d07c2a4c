"""Recorded Binance streams, made by hand."""

import gzip
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from trio_nt.errors import InputError
from trio_nt.feeds import files
from trio_nt.feeds.data import MarketData, open_market_data
from trio_nt.model.instruments import InstrumentKind
from trio_nt.model.market import CROSSED, NEGATIVE, NOT_FINITE

T0 = 1_723_161_255_000_000_000


def quote(at: int = 0, *, bid: Any = "10.1", ask: Any = "10.2", symbol: str = "BTCUSDT", **more: Any) -> str:
    data = {"u": 1, "s": symbol, "b": bid, "B": "2.5", "a": ask, "A": "3", **more}
    return f"{T0 + at} " + json.dumps({"stream": f"{symbol.lower()}@bookTicker", "data": data}, separators=(",", ":"))


def trade(at: int = 0, *, price: Any = "10.1", maker: bool = False, symbol: str = "BTCUSDT", **more: Any) -> str:
    data = {"e": "trade", "E": 7, "s": symbol, "t": 1, "p": price, "q": "0.25", "T": 5, "m": maker, **more}
    return f"{T0 + at} " + json.dumps({"stream": f"{symbol.lower()}@trade", "data": data}, separators=(",", ":"))


def depth(at: int = 0, **more: Any) -> str:
    data = {"e": "depthUpdate", "E": 7, "s": "BTCUSDT", "U": 1, "u": 2, "b": [["1", "2"]], "a": [], **more}
    return f"{T0 + at} " + json.dumps({"stream": "btcusdt@depth@100ms", "data": data}, separators=(",", ":"))


SNAPSHOT = f'{T0} {{"lastUpdateId":5,"bids":[["1","2"]],"asks":[]}}'


def opened(folder: Path, lines: Sequence[str], name: str = "capture.jsonl", **settings: Any) -> MarketData:
    path = folder / name
    text = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return open_market_data([path], **settings)


def rows_of(data: MarketData, *names: str) -> list[tuple[Any, ...]]:
    return [row for block in data.blocks() for row in zip(*(block[name].tolist() for name in names), strict=True)]


@pytest.mark.parametrize("name", ["capture.jsonl", "capture.jsonl.gz", "noname"])
def test_quotes_and_trades_in_the_order_of_lines(tmp_path: Path, name: str) -> None:
    lines = [SNAPSHOT, quote(1), trade(1, maker=True), depth(2), trade(3), quote(3, bid="10.15")]
    data = opened(tmp_path, lines, name)
    rows = rows_of(data, "sequence", "kind", "ts_init", "ts_event", "aggressor")
    assert rows == [
        (0, 1, T0 + 1, 0, 0),
        (1, 2, T0 + 1, 5_000_000, -1),  # the buyer was the maker: the seller took
        (2, 2, T0 + 3, 5_000_000, 1),
        (3, 1, T0 + 3, 0, 0),
    ]
    assert rows_of(data, "bid", "ask", "bid_size", "ask_size")[3] == (10.15, 10.2, 2.5, 3.0)
    assert rows_of(data, "price", "size")[1] == (10.1, 0.25)
    assert data.statistics.messages == {"snapshot": 1, "bookTicker": 2, "trade": 2, "depth": 1}


def test_the_exchange_s_time_is_the_transaction_s_else_the_event_s_else_absent(tmp_path: Path) -> None:
    data = opened(tmp_path, [quote(1, T=3, E=4), quote(2, E=4), quote(3)])
    assert [row[0] for row in rows_of(data, "ts_event")] == [3_000_000, 4_000_000, 0]
    assert data.statistics.files[0].ts_event_absent == 1


@pytest.mark.parametrize("read_bytes", [1 << 18, 100])
def test_two_times_are_counted_and_receipt_is_lifted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr(files, "READ_BYTES", read_bytes)
    ahead = T0 // 1_000_000 + 10
    data = opened(tmp_path, [quote(5, T=9), quote(3, T=8), quote(4), quote(6, T=ahead), quote(7, T=ahead)])
    assert [row[0] - T0 for row in rows_of(data, "ts_init")] == [5, 5, 5, 6, 7]
    (file,) = data.statistics.files
    assert (file.ts_init_lifted, file.ts_event_backwards, file.ts_event_ahead) == (2, 1, 2)
    assert (file.first_ts_init, file.last_ts_init) == (T0 + 5, T0 + 7)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("hello", "no JSON message"),
        (f"{T0} ", "no JSON message"),
        (quote(2)[:-9], "no bookTicker message"),
        (depth(2)[:-9], "no depth message"),
        (f"x{quote(2)}", "no bookTicker message (invalid literal"),
        (quote(2).partition(" ")[2], "no bookTicker message"),
        (f"-5 {quote(2).partition(' ')[2]}", "a receipt stamp must be UNIX ns"),
        (f"{1 << 63} {quote(2).partition(' ')[2]}", "a receipt stamp must be UNIX ns"),
        (quote(2, bid="much"), "Expected `float`, got `str`"),
        (quote(2, bid=None), "Expected `float`, got `null`"),
        (quote(2, T=1 << 64), "Expected `int` <= "),
        (quote(2).replace('"b":', '"x":'), "missing required field `b`"),
        (f"{T0} 5", "Expected `object`, got `int`"),
        (f"{T0} {{}}", "neither a stream's message nor a depth snapshot"),
        (quote(2) + quote(2), "no bookTicker message"),
    ],
)
def test_a_bad_line_is_counted_with_its_number_and_the_rest_goes_on(tmp_path: Path, line: str, why: str) -> None:
    data = opened(tmp_path, [quote(1), depth(1), line, trade(3), "", quote(4)])
    assert [row[0] for row in rows_of(data, "ts_init")] == [T0 + 1, T0 + 3, T0 + 4]
    (file,) = data.statistics.files
    assert file.bad_lines == 1
    ((number, said),) = file.bad_line_examples
    assert number == 3
    assert why in said
    assert file.lines == 6


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    path.write_bytes(quote(1).encode() + b"\n" + quote(2).encode().replace(b"BTCUSDT", b"\xff\xfe") + b"\n")
    data = open_market_data([path])
    assert len(rows_of(data, "kind")) == 1
    assert data.statistics.bad_lines == 1


def test_only_the_first_few_bad_lines_are_kept_but_all_are_counted(tmp_path: Path) -> None:
    data = opened(tmp_path, [quote(1), *(["bad"] * 100), quote(2)])
    (file,) = data.statistics.files
    assert file.bad_lines == 100
    assert [number for number, _ in file.bad_line_examples] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{T0} hello", "line 1: not a capture's line"),
        (f"{T0} {{}}", "neither a stream's message nor a depth snapshot"),
        (f"now {quote().partition(' ')[2]}", "line 1: not a capture's line"),
        ('{"a":1}', "line 1: not a capture's line"),
        ("hello", "line 1: neither a CSV's column names nor a capture's"),
        ("\x00\x01", "line 1: neither a CSV's column names nor a capture's"),
        (SNAPSHOT, "holds no quote, trade or bar"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        opened(tmp_path, [line])
    assert str(caught.value).startswith(f"{tmp_path / 'capture.jsonl'}: ")
    assert said in str(caught.value)


def test_bad_values_are_flagged_and_counted(tmp_path: Path) -> None:
    lines = [quote(1), quote(2, bid="NaN"), quote(3, bid="11"), trade(4, price="-1"), trade(5, q="nan"), trade(6)]
    data = opened(tmp_path, lines)
    assert [row[0] for row in rows_of(data, "flags")] == [0, NOT_FINITE, CROSSED, NEGATIVE, NOT_FINITE, 0]
    assert data.statistics.flagged == {"not a number": 2, "crossed": 1, "negative": 1}
    assert data.statistics.bad_lines == 0


def test_keys_in_another_order_mean_the_same(tmp_path: Path) -> None:
    stamp, _, message = quote(1).partition(" ")
    envelope = json.loads(message)
    turned = f"{stamp} " + json.dumps({"data": envelope["data"], "stream": envelope["stream"]}, indent=None)
    data = opened(tmp_path, [turned, quote(1)])
    first, second = rows_of(data, "kind", "bid", "ask")
    assert first == second


@pytest.mark.parametrize(
    ("line", "instrument_id", "kind", "settlement", "multiplier"),
    [
        (quote(), "BTCUSDT.BINANCE", InstrumentKind.SPOT, "USDT", 1),
        (quote(symbol="ETHBTC"), "ETHBTC.BINANCE", InstrumentKind.SPOT, "BTC", 1),
        (trade(M=True), "BTCUSDT.BINANCE", InstrumentKind.SPOT, "USDT", 1),
        (quote(T=1, E=1), "BTCUSDT.BINANCE_UM", InstrumentKind.LINEAR, "USDT", 1),
        (trade(X="MARKET"), "BTCUSDT.BINANCE_UM", InstrumentKind.LINEAR, "USDT", 1),
        (quote(symbol="BTCUSD_PERP"), "BTCUSD_PERP.BINANCE_CM", InstrumentKind.INVERSE, "BTC", 100),
        (trade(symbol="ETHUSD_240927"), "ETHUSD_240927.BINANCE_CM", InstrumentKind.INVERSE, "ETH", 10),
    ],
)
def test_markets_are_told_from_messages(
    tmp_path: Path, line: str, instrument_id: str, kind: InstrumentKind, settlement: str, multiplier: int
) -> None:
    (instrument,) = opened(tmp_path, [line]).instruments
    assert instrument.id == instrument_id
    assert (instrument.kind, instrument.settlement, instrument.multiplier) == (kind, settlement, multiplier)
    assert instrument.taker_fee > 0


def test_depth_tells_the_market_too(tmp_path: Path) -> None:
    assert opened(tmp_path, [depth(pu=1), trade()]).instruments.ids == ["BTCUSDT.BINANCE_UM"]
    assert opened(tmp_path, [depth(), trade()]).instruments.ids == ["BTCUSDT.BINANCE"]


def test_the_file_s_name_is_the_last_hint_and_that_is_said(tmp_path: Path) -> None:
    data = opened(tmp_path, [trade()], "usdm_x.jsonl")
    assert data.instruments.ids == ["BTCUSDT.BINANCE_UM"]
    assert "BTCUSDT.BINANCE_UM taken for linear BTC/USDT, told from its file's name alone" in data.assumptions


def test_what_is_inferred_is_said(tmp_path: Path) -> None:
    data = opened(tmp_path, [quote(T=1), trade(price="10.125", X="MARKET")])
    (instrument,) = data.instruments
    assert (instrument.tick_size, instrument.lot_size) == (Decimal("0.001"), Decimal("0.01"))
    assert data.assumptions == [
        "BTCUSDT.BINANCE_UM taken for linear BTC/USDT, told from its messages",
        "tick 0.001 and lot 0.01 of BTCUSDT.BINANCE_UM inferred from its first 2 rows",
        "fees of BTCUSDT.BINANCE_UM: maker 0.0002, taker 0.0005 (default for linear)",
    ]


def test_several_symbols_in_one_file_are_several_instruments(tmp_path: Path) -> None:
    data = opened(tmp_path, [quote(1), quote(2, symbol="ETHUSDT"), quote(3)])
    assert data.instruments.ids == ["BTCUSDT.BINANCE", "ETHUSDT.BINANCE"]
    assert [row[0] for row in rows_of(data, "instrument")] == [0, 1, 0]
