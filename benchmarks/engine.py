"""The whole engine on one core, columns in memory to report: events per second, beside a plain loop and a peer.

    columns ─► features ─► strategy ─► risk ─► order table ─► venue ─► fills ─► portfolio ─► report
                                        one process, one core

The work: 500,000 seeded quotes of ten instruments; EMA 10/20 on the mid price; each cross turns the position around
with one market order (about 22,800) that goes through risk with the default limits (but for the rate: market time costs
nothing here) to the matching core in this process, and fills at the touch at once: no latency, 2 basis points of fee.

What is timed: ``replay(...)``, from the data as columns in memory to the finished report, with the strategies' and the
engine's own set-up; making the columns is not, and features were compiled by the run that warms up. The plain loop
starts from the same columns, the peer from its own objects made of them beforehand, and neither makes a report.
Everything is pinned to one core. The answer is known before: a loop over whole numbers (``reference``) gives every
order, every fill and the profit to the cent, and a run with another answer ends the benchmark.

*Per event*: handlers are called with one quote at a time, positions and fills are there to be read. *Batch, open loop*:
handlers get columns, at most a block at a time, and promise not to read what their orders did; these figures are not
comparable with those of engines that call a handler for every event.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np

from benchmarks import engine_live
from benchmarks.harness import Row, format_value, is_wanted, main, median_of, seconds
from trio_nt import FeatureSpec, MarketBatch, Quote, Report, Strategy, StrategyContext, cross, ema, replay, target
from trio_nt.feeds.data import MarketData, from_columns
from trio_nt.model.instruments import Instrument, InstrumentKind, Instruments
from trio_nt.model.market import QUOTE, Column
from trio_nt.risk.limits import RiskLimits

SEED = 7
INSTRUMENTS = 10
FAST, SLOW = 10, 20
FEE = Decimal("0.0002")
CASH = 10**9
STEP_NS = 17_280_000  # five million of them are a day
START_NS = 1_700_000_000_000_000_000
PEER = Path(__file__).parent / "alternatives" / "nautilus.py"
LIMITS = RiskLimits(submit_rate_per_s=None)

OPTIONS = argparse.ArgumentParser(add_help=False)
OPTIONS.add_argument(
    "--peers",
    metavar="FOLDER",
    type=Path,
    help="measure NautilusTrader as well, in an environment of its own that is made in FOLDER where there is none",
)


# -- the work --


def make_columns(rows: int) -> dict[str, Column]:
    """Quotes of random walks: prices in cents, one or two cents between bid and ask."""
    chance = np.random.default_rng(SEED)
    instrument = chance.integers(0, INSTRUMENTS, rows).astype(np.int32)
    steps = chance.integers(-3, 4, rows)
    spread = chance.integers(1, 3, rows)
    bid = np.empty(rows, np.int64)
    for index in range(INSTRUMENTS):
        mine = instrument == index
        bid[mine] = np.maximum(50_000 * (index + 1) + np.cumsum(steps[mine]), 100)
    times = START_NS + STEP_NS * np.arange(1, rows + 1)
    return {
        "kind": np.full(rows, QUOTE, np.uint8),
        "instrument": instrument,
        "ts_event": times,
        "ts_init": times,
        "bid": bid / 100,
        "ask": (bid + spread) / 100,
        "bid_size": np.full(rows, 100.0),
        "ask_size": np.full(rows, 100.0),
    }


def make_instruments() -> Instruments:
    return Instruments(
        Instrument(id=f"I{index}", symbol=f"I{index}", kind=InstrumentKind.LINEAR, quote="USD",
                   maker_fee=FEE, taker_fee=FEE)
        for index in range(INSTRUMENTS)
    )  # fmt: skip


class Answer(NamedTuple):
    """``orders``: (time, instrument, signed quantity, fill price in cents); ``net`` in millionths of a dollar."""

    orders: list[tuple[int, str, int, int]]
    net: int


def reference(columns: Mapping[str, Column]) -> Answer:
    """The whole answer by a plain loop over whole numbers; the averages alone are floats. No code of the engine."""
    orders: list[tuple[int, str, int, int]] = []
    seen: list[list[float]] = [[] for _ in range(INSTRUMENTS)]
    fast, slow, side = [0.0] * INSTRUMENTS, [0.0] * INSTRUMENTS, [0] * INSTRUMENTS
    held, cash, marks = [0] * INSTRUMENTS, 0, [0] * INSTRUMENTS
    for ts, index, bid, ask in zip(
        *(columns[name].tolist() for name in ("ts_init", "instrument", "bid", "ask")), strict=True
    ):
        mid = (bid + ask) / 2
        marks[index] = round(100 * bid) + round(100 * ask)  # twice the mid, in cents
        history = seen[index]
        if len(history) < SLOW:
            history.append(mid)
            if len(history) == FAST:
                fast[index] = sum(history) / FAST
            elif len(history) > FAST:
                fast[index] += (mid - fast[index]) * (2 / (FAST + 1))
            if len(history) < SLOW:
                continue
            slow[index] = sum(history) / SLOW
        else:
            fast[index] += (mid - fast[index]) * (2 / (FAST + 1))
            slow[index] += (mid - slow[index]) * (2 / (SLOW + 1))
        gap = fast[index] - slow[index]
        if abs(gap) <= 1e-12 * max(fast[index], slow[index]):  # equal but for rounding: the definition of a cross
            continue
        now = 1 if gap > 0 else -1
        if now == side[index]:
            continue
        crossed, side[index] = side[index] != 0, now
        if not crossed:
            continue
        quantity = now - held[index]
        price = round(100 * ask) if quantity > 0 else round(100 * bid)
        held[index] = now
        cash -= quantity * price * 10_000 + abs(quantity) * price * 2  # and a fee of 2 / 10,000
        orders.append((ts, f"I{index}", quantity, price))
    return Answer(orders, cash + sum(held[index] * marks[index] * 5_000 for index in range(INSTRUMENTS)))


# -- the plain loop: what the language itself can do --


def plain_nothing(columns: Mapping[str, Column], strategies: int) -> None:
    """A handler called for each quote, and nothing else."""
    handlers = [DoNothing().on_quote for _ in range(strategies)]
    ids = [f"I{index}" for index in range(INSTRUMENTS)]
    context: Any = None
    names = ("instrument", "ts_event", "ts_init", "bid", "ask", "bid_size", "ask_size")
    for index, *values in zip(*(columns[name].tolist() for name in names), strict=True):
        quote = Quote(ids[index], *values)
        for handler in handlers:
            handler(quote, context)


# -- the strategies --


class DoNothing(Strategy):
    """The cost of showing every event to a handler."""

    def on_quote(self, quote: Quote, context: StrategyContext) -> None:
        return None


class Crossover(Strategy):
    """One market order for each cross of two averages."""

    def features(self) -> dict[str, FeatureSpec]:
        return {"cross": cross(ema(FAST), ema(SLOW))}

    def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
        if context.features.cross:
            return target(quote.instrument, int(context.features.cross))
        return None


class DoNothingBatch(Strategy):
    open_loop = True

    def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> None:
        return None


class CrossoverBatch(Strategy):
    """The same orders, decided a block at a time."""

    open_loop = True

    def features(self) -> dict[str, FeatureSpec]:
        return {"cross": cross(ema(FAST), ema(SLOW))}

    def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> Any:
        crossed = batch["cross"]
        rows = np.flatnonzero(crossed)
        instruments, sides = batch["instrument"][rows].tolist(), crossed[rows].tolist()
        return [
            target(instrument, int(side), row=row)
            for row, instrument, side in zip(rows.tolist(), instruments, sides, strict=True)
        ]


# -- measuring --


@attrs.frozen
class Case:
    make: Callable[[], Mapping[str, Strategy]]
    gate: float
    aim: float
    trades: bool = False


def _several(kind: type[Strategy], count: int) -> Callable[[], Mapping[str, Strategy]]:
    return lambda: {f"s{number}": kind() for number in range(count)}


PER_EVENT = {
    "per event: do nothing × 1": Case(_several(DoNothing, 1), 600e3, 1e6),
    "per event: do nothing × 10": Case(_several(DoNothing, 10), 250e3, 400e3),
    "per event: EMA + orders": Case(_several(Crossover, 1), 400e3, 700e3, trades=True),
}
BATCH = {
    "batch, open loop: do nothing × 1": Case(_several(DoNothingBatch, 1), 5e6, 10e6),
    "batch, open loop: do nothing × 10": Case(_several(DoNothingBatch, 10), 3e6, 5e6),
    "batch, open loop: EMA + orders": Case(_several(CrossoverBatch, 1), 800e3, 1.5e6, trades=True),
}


def run_case(data: MarketData, case: Case) -> Report:
    return replay(data, case.make(), cash=CASH, order_latency_s=0, report_latency_s=0, limits=LIMITS, raise_errors=True)


def check(report: Report, rows: int, answer: Answer | None) -> None:
    """End the benchmark where a report is not the answer."""
    if not report.ok or any(line.rows != rows for line in report.strategies):
        sys.exit(f"a fast wrong answer: not every row was seen, or a check failed\n{report.format()}")
    if answer is None:
        if report.orders:
            sys.exit("a fast wrong answer: orders of strategies that do nothing")
        return
    sign = {"buy": 1, "sell": -1}
    orders = [
        (order.ts_signal, order.instrument, sign[order.side] * int(order.quantity), int(fill.price * 100))
        for order in report.orders
        for fill in order.fills
    ]
    (pnl,) = report.pnl
    expected = Decimal(answer.net) / 1_000_000
    if (
        orders != answer.orders
        or len(report.orders) != len(answer.orders)
        or abs(pnl.net - expected) >= Decimal("0.01")
    ):
        sys.exit(
            f"a fast wrong answer: {len(orders):,} fills, net {pnl.net}; "
            f"the reference has {len(answer.orders):,}, net {expected}"
        )


@cache
def work(rows: int) -> tuple[dict[str, Column], MarketData, Answer]:
    columns = make_columns(rows)
    return columns, from_columns(columns, make_instruments()), reference(columns)


def engine_cases(rows: int, runs: int, gated: bool, peer: Mapping[str, float]) -> Iterator[Row]:
    for name, case in {**PER_EVENT, **BATCH}.items():
        if not is_wanted(name):
            continue
        columns, data, answer = work(rows)
        timed = partial(_timed, data, case, rows, answer if case.trades else None)
        rate = rows / median_of(timed, runs=runs)
        plain = partial(reference, columns) if case.trades else partial(plain_nothing, columns, len(case.make()))
        ceiling = rows / median_of(partial(seconds, plain), runs=min(runs, 3))
        note = f"plain loop {format_value(ceiling)}/s, {rate / ceiling:.2f}× it"
        yield Row(name, "events/s", rate, "1/s", peer.get(name), case.gate if gated else None, case.aim,
                  at_most=False, note=note)  # fmt: skip


def _timed(data: MarketData, case: Case, rows: int, answer: Answer | None) -> float:
    reports: list[Report] = []
    spent = seconds(lambda: reports.append(run_case(data, case)))
    check(reports[0], rows, answer)
    return spent


# -- a day of ticks --

DAY = "a day of ticks: EMA + orders, per event"


def day_cases(rows: int) -> Iterator[Row]:
    """In a process of its own: its memory is measured."""
    if not is_wanted(DAY):
        return
    command = [sys.executable, "-m", "benchmarks.engine", "--day", str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr or done.stdout)
    day = json.loads(done.stdout)
    note = f"{rows:,} quotes, {day['orders']:,} orders"
    yield Row(DAY, "wall time", day["seconds"], "s", note=note)
    yield Row(DAY, "events/s", rows / day["seconds"], "1/s", note=note)
    yield Row(DAY, "RSS before", day["before"] / 2**20, "MB", note="the data in memory, nothing run")
    yield Row(DAY, "RSS at the end", day["after"] / 2**20, "MB", note="with the report of every order")
    yield Row(DAY, "greatest RSS", day["peak"] / 2**20, "MB")


def run_day(rows: int) -> None:
    import resource

    columns = make_columns(rows)
    data = from_columns(columns, make_instruments())
    before = _rss()
    reports: list[Report] = []
    case = PER_EVENT["per event: EMA + orders"]
    spent = seconds(lambda: reports.append(run_case(data, case)))
    after, peak = _rss(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    answer = reference(columns)
    check(reports[0], rows, answer)
    print(json.dumps({"seconds": spent, "orders": len(answer.orders), "before": before, "after": after, "peak": peak}))


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- the peer --

PEER_CASES = {
    "per event: do nothing × 1": "nothing-1",
    "per event: do nothing × 10": "nothing-10",
    "per event: EMA + orders": "orders",
}


def peer_python(folder: Path) -> Path | None:
    """The Python of an environment with NautilusTrader, made where there is none; None where it cannot be had."""
    python = folder / "nautilus" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "nautilus")], check=True)
    known = subprocess.run([str(python), "-c", "import nautilus_trader"], capture_output=True, check=False)
    install = [str(python), "-m", "pip", "install", "--quiet", "nautilus_trader"]
    if known.returncode and subprocess.run(install, check=False).returncode:
        print("# NautilusTrader could not be installed: its figures are left out")
        return None
    return python


def peer_rates(folder: Path | None, rows: int, runs: int) -> dict[str, float]:
    """Events per second of the peer by case, its answer checked; empty where it is not asked for or cannot be had.

    Its averages start from the first price, not from the mean of the first ones: a cross more or less is no error.
    """
    if folder is None:
        print("# without --peers FOLDER the figures of NautilusTrader are left out")
        return {}
    python = peer_python(folder)
    rates: dict[str, float] = {}
    if python is None:
        return rates
    columns, _, answer = work(rows)
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "columns.npz"
        np.savez(file, **columns)  # type: ignore[arg-type]
        for name, word in PEER_CASES.items():
            if not is_wanted(name):
                continue
            command = [str(python), str(PEER), str(file), word, str(1 if word == "orders" else runs)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            result = json.loads(done.stdout)
            fills = result["runs"][0]["fills"]
            if word == "orders" and abs(fills - len(answer.orders)) > 10:
                sys.exit(f"the peer did other work: {fills:,} fills, the reference has {len(answer.orders):,}")
            rates[name] = statistics.median(run["rate"] for run in result["runs"])
            print(f"# NautilusTrader {result['version']}: {name}, {fills:,} fills, net {result['runs'][0]['net']:,.2f}")
    return rates


def cases(quick: bool) -> Iterator[Row]:
    rows, runs = (50_000, 2) if quick else (500_000, 7)
    peers = OPTIONS.parse_known_args()[0].peers
    with one_core():
        yield from engine_cases(rows, runs, not quick, peer_rates(peers, rows, runs))
        yield from day_cases(200_000 if quick else 5_000_000)
    yield from engine_live.rows(quick)


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and those that it starts meanwhile, on the first of its cores."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--day"]:
        run_day(int(sys.argv[2]))
    else:
        raise SystemExit(main("engine", cases, options=[OPTIONS]))
