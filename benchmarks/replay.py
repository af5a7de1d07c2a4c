"""Messages per second through a replay of a real capture, on one core: gzip and JSON included.

    file -> gunzip -> JSON -> columns -> features -> strategy -> risk -> exchange -> report        one process, one core

The baseline is a plain loop over the same file: ``gzip``, ``json.loads``, one comparison per quote, no orders, no
report. Every run's answer is checked: the messages counted are those in the file, and its orders are the same each
time. Without the capture beside the repository a synthetic one of the same form is measured, and its rows say so.
"""

import gzip
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from benchmarks.harness import Row, main, median_of, seconds
from trio_nt import FeatureSpec, MarketBatch, Quote, Report, Strategy, StrategyContext, ema, replay, target
from trio_nt.strategies.examples import EmaCrossover

CAPTURE = Path(__file__).parents[2] / "shared" / "data" / "binance_ws_raw" / "usdm_btcusdt_20240808.jsonl.gz"
SYNTHETIC_LINES = 90_000


@attrs.define
class OpenLoopBatch(Strategy):
    """Follows the cross of two averages, whole blocks at a time."""

    open_loop = True
    side: int = 0

    def features(self) -> dict[str, FeatureSpec]:
        return {"fast": ema(10), "slow": ema(20)}

    def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> Any:
        gap = batch["fast"] - batch["slow"]
        band = 0.00002 * batch["slow"]
        actions = []
        for row in batch.quotes[abs(gap[batch.quotes]) > band[batch.quotes]]:
            side = 1 if gap[row] > 0 else -1
            if side != self.side:
                self.side = side
                actions.append(target(int(batch["instrument"][row]), side * 0.001, row=row))
        return actions


class NeverTrades(Strategy):
    """The cost of showing every event to a handler."""

    def on_quote(self, quote: Quote, context: StrategyContext) -> None:
        return None


@attrs.define
class ReadsPosition(Strategy):
    """Decides on every quote from its position, as a closed loop does."""

    above: float = 0.0

    def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
        before, self.above = self.above, quote.bid
        held = context.position(quote.instrument)
        if quote.bid > before + 10:
            return target(quote.instrument, "0.001") if held <= 0 else None
        if quote.bid < before - 10:
            return target(quote.instrument, "-0.001") if held >= 0 else None
        return None


CASES: dict[str, tuple[Callable[[], Strategy], float]] = {
    "open loop, batches, two averages, orders": (OpenLoopBatch, 100_000),
    "closed loop, per event, two averages, orders": (lambda: EmaCrossover(quantity=0.001), 60_000),
    "closed loop, per event, reads its position": (ReadsPosition, 60_000),
    "closed loop, per event, never trades": (NeverTrades, 60_000),
}


def plain_loop(file: Path) -> int:
    """The loop that everybody writes first; how many messages it read."""
    count, best = 0, 0.0
    with gzip.open(file, "rt") as lines:
        for line in lines:
            message = json.loads(line[line.index(" ") + 1 :])
            count += 1
            if message.get("stream", "").endswith("@bookTicker"):
                best = max(best, float(message["data"]["b"]))
    assert best > 0
    return count


def synthetic(folder: Path, lines: int) -> Path:
    """A capture of the same form as the real one."""
    file, chance, price = folder / "synthetic_usdm.jsonl.gz", random.Random(1), 600_000
    with gzip.open(file, "wt") as out:
        for number in range(lines):
            stamp = 1_723_161_256_000_000_000 + number * 3_000_000
            price += chance.randrange(-3, 4)
            event = {"s": "BTCUSDT", "T": stamp // 1_000_000, "E": stamp // 1_000_000}
            if number % 4:
                event |= {"b": f"{price / 10:.1f}", "B": "3.1", "a": f"{price / 10 + 0.1:.1f}", "A": "2.7", "u": number}
                stream = "btcusdt@bookTicker"
            else:
                event |= {"p": f"{price / 10:.1f}", "q": "0.02", "m": bool(number % 8), "t": number, "X": "MARKET"}
                stream = "btcusdt@trade"
            out.write(f"{stamp} {json.dumps({'stream': stream, 'data': event}, separators=(',', ':'))}\n")
    return file


def cases(quick: bool) -> Iterator[Row]:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        real = CAPTURE.exists()
        file = CAPTURE if real else synthetic(Path(folder), SYNTHETIC_LINES)
        runs = 2 if quick else 7
        count = plain_loop(file)
        baseline = count / median_of(lambda: seconds(lambda: plain_loop(file)), runs=runs)
        note = f"{count:,} messages" + ("" if real else ", synthetic capture")
        for name, (make, gate) in CASES.items():
            speed = count / median_of(lambda make=make: seconds(lambda: _checked(file, make(), count)), runs=runs)  # type: ignore[misc]
            yield Row(name, "messages/s", speed, "1/s", baseline, None if quick else gate, at_most=False, note=note)


_orders: dict[str, str] = {}


def _checked(file: Path, strategy: Strategy, count: int) -> Report:
    report = replay(file, strategy)
    read = next(row.count for row in report.throughput if row.name == "messages")
    orders = report.orders_csv()
    # The depth snapshot at a capture's beginning is counted as a message, too.
    if not report.ok or read != count or _orders.setdefault(type(strategy).__name__, orders) != orders:
        sys.exit(f"a fast wrong answer: {read:,} of {count:,} messages\n{report.format()}")
    return report


if __name__ == "__main__":
    raise SystemExit(main("replay", cases))
