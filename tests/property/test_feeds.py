"""Reading and merging against models that are too simple to be wrong."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_nt.feeds import files
from trio_nt.feeds.binance import Capture
from trio_nt.feeds.merge import merge
from trio_nt.model.market import BAR, BAR_FIELDS, MARKET_FIELDS, QUOTE, Columns, empty_columns

T0 = 1_723_161_255_000_000_000

sources = st.lists(
    st.tuples(
        st.sampled_from([QUOTE, BAR]),
        # Steps of time and whether a piece ends here: few times, so that ties are the rule.
        st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=30),
    ),
    min_size=1,
    max_size=5,
)


def pieces_of(source: int, kind: int, steps: list[tuple[int, bool]]) -> Iterator[Columns]:
    times = np.cumsum([step for step, _ in steps])
    ends = [row + 1 for row, (_, ends) in enumerate(steps) if ends or row == len(steps) - 1]
    for start, end in zip([0, *ends], ends, strict=False):
        piece = empty_columns(end - start, BAR_FIELDS if kind == BAR else MARKET_FIELDS)
        piece["ts_init"] = times[start:end]
        piece["instrument"][:] = source
        piece["ts_event"] = np.arange(start, end)  # the row in its source
        yield piece


@given(described=sources)
def test_merged_rows_are_sorted_by_time_source_and_row(described: list[tuple[int, list[tuple[int, bool]]]]) -> None:
    merged: list[tuple[int, int, int]] = []
    for piece in merge([pieces_of(source, kind, steps) for source, (kind, steps) in enumerate(described)]):
        bars = {described[source][0] == BAR for source in piece["instrument"]}
        assert bars == {"open" in piece}, "a piece has rows of one layout"
        merged += zip(piece["ts_init"].tolist(), piece["instrument"].tolist(), piece["ts_event"].tolist(), strict=True)
    expected = [
        (int(time), source, row)
        for source, (_, steps) in enumerate(described)
        for row, time in enumerate(np.cumsum([step for step, _ in steps]))
    ]
    assert merged == sorted(expected)


number = (
    st.sampled_from(["1", "1.5", "61800.20", "-3", "nan", "x", ""])
    | st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
)
quote_data = st.fixed_dictionaries(
    {"s": st.sampled_from(["BTCUSDT", "ETHUSDT"]), "b": number, "B": number, "a": number, "A": number},
    optional={"T": st.integers(0, 5_000), "E": st.integers(0, 5_000), "u": st.integers()},
)
trade_data = st.fixed_dictionaries(
    {"s": st.just("BTCUSDT"), "p": number, "q": number, "m": st.booleans()},
    optional={"T": st.integers(0, 5_000), "E": st.integers(0, 5_000), "X": st.just("MARKET")},
)
messages = st.one_of(
    st.tuples(st.sampled_from(["b@bookTicker", "e@bookTicker"]), quote_data),
    st.tuples(st.just("b@trade"), trade_data),
    st.tuples(st.just("b@depth@100ms"), st.just({"u": 1, "b": [["1", "2"]]})),
    st.tuples(st.just("b@kline_1m"), st.just({"k": {}})),
)


@st.composite
def capture_lines(draw: st.DrawFn) -> bytes:
    """A line as the exchange sends it, or one that was written in another style, torn or mixed up."""
    stream, data = draw(messages)
    envelope = {"stream": stream, "data": data}
    if draw(st.booleans()):
        envelope = {"data": data, "stream": stream}
    style = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    line = f"{T0 + draw(st.integers(0, 10))} {json.dumps(envelope, separators=style)}".encode()
    if draw(st.integers(0, 4)) == 0:
        line = line[: draw(st.integers(0, len(line)))]
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(line)))
        line = line[:at] + draw(st.sampled_from([b"}", b'"', b"\\", b" "])) + line[at:]
    return line


def read_simply(lines: list[bytes]) -> tuple[list[tuple[object, ...]], dict[str, int], list[int]]:
    """Rows, messages by kind and bad lines, one line at a time."""
    rows: list[tuple[object, ...]] = []
    counts: dict[str, int] = {}
    bad: list[int] = []
    for line_number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            stamp_text, _, text = line.partition(b" ")
            stamp, envelope = int(stamp_text), json.loads(text)
            kind, data = envelope["stream"].split("@")[1], envelope.get("data")
            if kind == "bookTicker":
                values = [float(data[name]) for name in "baBA"]
            elif kind == "trade":
                values = [float(data["p"]), float(data["q"]), -1 if data["m"] else 1]
            if kind in ("bookTicker", "trade"):
                stamp = max([stamp, *(row[0] for row in rows)])
                rows.append((stamp, data["s"], (data.get("T") or data.get("E") or 0) * 1_000_000, *values))
            counts[kind] = counts.get(kind, 0) + 1
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            bad.append(line_number)
    return rows, counts, bad


def read_by_capture(path: Path) -> tuple[list[tuple[object, ...]], dict[str, int], int, list[int]]:
    capture = Capture(path)
    rows: list[tuple[object, ...]] = []
    for piece in capture.pieces():
        symbols = list(capture.symbols)
        for row in range(len(piece["kind"])):
            names = ("bid", "ask", "bid_size", "ask_size") if piece["kind"][row] == QUOTE else ("price", "size")
            values = [float(piece[name][row]) for name in names]
            if piece["kind"][row] != QUOTE:
                values.append(int(piece["aggressor"][row]))
            symbol = symbols[piece["instrument"][row]]
            rows.append((int(piece["ts_init"][row]), symbol, int(piece["ts_event"][row]), *values))
    file = capture.statistics
    return rows, file.messages, file.bad_lines, [line for line, _ in file.bad_line_examples]


FIRST = f'{T0} {{"stream":"b@depth@100ms","data":{{}}}}'.encode()


@given(lines=st.lists(capture_lines(), max_size=8), read_bytes=st.sampled_from([1 << 18, 300, 40]))
def test_a_capture_reads_as_line_by_line(lines: list[bytes], read_bytes: int) -> None:
    lines = [FIRST, *lines]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(files, "READ_BYTES", read_bytes)
        path = Path(folder) / "capture"
        path.write_bytes(b"\n".join(lines))
        rows, counts, bad_lines, examples = read_by_capture(path)
    expected_rows, expected_counts, expected_bad = read_simply(lines)
    assert repr(rows) == repr(expected_rows)  # NaN is unequal to itself, its text is not
    assert counts == expected_counts
    assert (bad_lines, examples) == (len(expected_bad), expected_bad[:5])
