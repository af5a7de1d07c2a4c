"""How fast recorded data is read: Binance captures and CSV files, into columns, instruments inferred.

    file ──zlib──► lines ──► buckets by kind ──msgspec──► columns ──► blocks, counted

The data is made here, shaped like a futures capture (70 % quotes, 23 % trades, 7 % depth of 3 KB), from a fixed
seed. The baseline is the loop that a user would write: gzip or csv, json, one dictionary or row at a time. Both must
find the same rows and the same sum of prices.
"""

import csv
import gzip
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.harness import RUNS, Row, main, median_of, seconds
from trio_nt.feeds.data import open_market_data

START = 1_723_161_255_000_000_000
# A strategy without feedback is to replay 100,000 messages a second; reading may take less than half of each 10 µs.
LINE_GATE_US = 4.5
Found = tuple[int, float]


def write_capture(path: Path, lines: int) -> None:
    random = np.random.default_rng(7)
    kinds = random.random(lines)
    ticks = 600_000 + np.cumsum(random.integers(-1, 2, lines))
    levels = json.dumps([[f"{price / 10:.2f}", "0.123"] for price in range(600_000, 600_070)], separators=(",", ":"))
    with gzip.open(path, "wt") as file:
        for line, (kind, tick) in enumerate(zip(kinds.tolist(), ticks.tolist(), strict=True)):
            at = START // 1_000_000 + line
            times = f'"E":{at},"T":{at},"s":"BTCUSDT"'
            if kind < 0.70:
                prices = f'"b":"{tick / 10:.2f}","B":"2.5","a":"{tick / 10 + 0.1:.2f}","A":"1.2"'
                data = f'"e":"bookTicker","u":{line},{times},{prices}'
                stream = "bookTicker"
            elif kind < 0.93:
                data = f'"e":"trade",{times},"t":{line},"p":"{tick / 10:.2f}","q":"0.006","X":"MARKET","m":false'
                stream = "trade"
            else:
                data = f'"e":"depthUpdate",{times},"U":{line},"u":{line},"pu":{line},"b":{levels},"a":{levels}'
                stream = "depth@0ms"
            file.write(f'{START + line * 1_000} {{"stream":"btcusdt@{stream}","data":{{{data}}}}}\n')


def write_csv(path: Path, lines: int) -> None:
    ticks = 10_000 + np.cumsum(np.random.default_rng(7).integers(-1, 2, lines))
    with path.open("w") as file:
        file.write("time,instrument,bid,ask,bid_size,ask_size\n")
        for line, tick in enumerate(ticks.tolist()):
            file.write(f"{START + line * 1_000},S{line % 10},{tick / 100:.2f},{tick / 100 + 0.01:.2f},3,4\n")


def read(path: Path) -> Found:
    rows, prices = 0, 0.0
    for block in open_market_data([path]).blocks():
        rows += len(block["kind"])
        prices += float(np.nansum(block["bid"]) + np.nansum(block["price"]))
    return rows, prices


def read_capture_simply(path: Path) -> Found:
    rows, prices = 0, 0.0
    with gzip.open(path, "rt") as file:
        for line in file:
            message = json.loads(line.partition(" ")[2])
            kind, data = message["stream"].split("@")[1], message["data"]
            if kind in ("bookTicker", "trade"):
                rows += 1
                prices += float(data["b" if kind == "bookTicker" else "p"])
    return rows, prices


def read_csv_simply(path: Path) -> Found:
    rows, prices = 0, 0.0
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            values = [float(row[name]) for name in ("bid", "ask", "bid_size", "ask_size")]
            rows += int(int(row["time"]) > 0)
            prices += values[0]
    return rows, prices


def cases(quick: bool) -> Iterator[Row]:
    lines, runs = (10_000, 2) if quick else (100_000, RUNS)
    files: list[tuple[str, Callable[[Path, int], None], Callable[[Path], Found], float | None]] = [
        ("capture.jsonl.gz", write_capture, read_capture_simply, LINE_GATE_US),
        ("quotes.csv", write_csv, read_csv_simply, None),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, write, simply, gate in files:
            path = Path(folder) / name
            write(path, lines)
            found, expected = read(path), simply(path)
            if found[0] != expected[0] or abs(found[1] - expected[1]) > 1e-9 * expected[1]:
                raise SystemExit(f"{name}: read {found}, there are {expected}")
            ours = median_of(partial(seconds, partial(read, path)), runs=runs) / lines * 1e6
            naive = median_of(partial(seconds, partial(simply, path)), runs=runs) / lines * 1e6
            yield Row(f"read {name}", "time a line", ours, "µs", baseline=naive, gate=None if quick else gate)


if __name__ == "__main__":
    raise SystemExit(main("reading", cases))
