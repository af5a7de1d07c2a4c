"""The whole engine live: quotes from another process over a socket, through strategies and risk, to bytes on the wire.

    venue's market (core 1, a process) ══ WebSocket ══► feed ─► ring ─► strategies ─► risk ─► gateway ══ HTTP ══► venue
                                                                                               └─► journal's writer

Every event has the time at which the venue meant to send it (a grid of 1 ms, by this machine's clock); delays count
from there, so whatever waited anywhere counts. *Seen* is the moment at which a handler is called with the event, which
is never before t2; *on the wire* is t6 - t0. The bare socket is a loop around ``recv`` on the same stream from the same
venue, on the engine's core, in the same run: nothing is decoded before the clock is read.

``rows(quick)`` is for ``benchmarks.engine``. The case of ten minutes runs with ``--minutes 10`` alone.
"""

import argparse
import gc
import os
import re
import socket
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import attrs
import numpy as np
import trio
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from benchmarks.harness import Row, is_wanted, main
from benchmarks.rig import KEY, MS, US, Watched, at, instruments, pinned, venue
from scheduler import Scheduler, TaskPriority, open_scheduler
from trio_nt import EngineConfig, MarketBatch, Quote, Strategy, StrategyContext, open_engine
from trio_nt.alpaca import parse_time
from trio_nt.execution.alpaca import open_alpaca
from trio_nt.execution.gateway import Outgoing
from trio_nt.feeds.alpaca import AlpacaFeed
from trio_nt.feeds.base import MarketSender
from trio_nt.model.actions import Signal, target
from trio_nt.report import LatencyRow
from trio_nt.risk.limits import RiskLimits
from trio_nt.storage.durable import open_journal

SYMBOLS = 10
EVENTS_PER_S = 10_000
QUOTES_AN_ORDER = 160  # about fifty orders a second
BLOCK_S = 0.05
LIMITS = RiskLimits(submit_rate_per_s=None, stale_after_s=None, price_collar=None)
OPTIONS = argparse.ArgumentParser(add_help=False)
OPTIONS.add_argument("--minutes", type=float, default=0.0, help="how long the case of constant memory runs")


# -- strategies --


@attrs.define
class Trader(Strategy):
    """Sees every quote; goes in and out of the market at every so many of them."""

    quotes_an_order: int = QUOTES_AN_ORDER
    seen: "array[int]" = attrs.field(factory=lambda: array("q"), repr=False)
    _count: int = 0
    _held: dict[str, int] = attrs.field(factory=dict)

    def on_quote(self, quote: Quote, context: StrategyContext) -> Signal | None:
        self.seen.append(time.time_ns() - quote.ts_event)
        self._count += 1
        if self._count % self.quotes_an_order:
            return None
        self._held[quote.instrument] = wanted = 1 - self._held.get(quote.instrument, 0)
        return target(quote.instrument, wanted)


@attrs.define
class Watcher(Strategy):
    """Sees every quote and does nothing about it."""

    seen: "array[int]" = attrs.field(factory=lambda: array("q"), repr=False)
    events: int = 0

    def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> None:
        self.events += len(batch["kind"])
        self.seen.extend((time.time_ns() - batch["ts_event"]).tolist())


@attrs.define
class OneSymbol(Strategy):
    """A per-event strategy: the average of the mid price."""

    average: float = 0.0

    def on_quote(self, quote: Quote, context: StrategyContext) -> None:
        self.average += 0.1 * ((quote.bid + quote.ask) / 2 - self.average)


def one_symbol(index: int) -> Strategy:
    name = instruments(SYMBOLS).ids[index % SYMBOLS]
    return type("OneSymbol", (OneSymbol,), {"instruments": (name,)})()  # type: ignore[no-any-return]


@attrs.define
class Raising(Strategy):
    def on_quote(self, quote: Quote, context: StrategyContext) -> None:
        if quote.ts_event % 1_000_000_000 > 990_000_000:
            raise RuntimeError("as it was written")


@attrs.define
class Blocking(Strategy):
    """Blocks the loop once a second."""

    _second: int = 0

    def on_quote(self, quote: Quote, context: StrategyContext) -> None:
        if quote.ts_event // 1_000_000_000 != self._second:
            self._second = quote.ts_event // 1_000_000_000
            time.sleep(BLOCK_S)


@attrs.define
class Leaking(Strategy):
    _kept: list[bytes] = attrs.field(factory=list)

    def on_quote(self, quote: Quote, context: StrategyContext) -> None:
        self._kept.append(bytes(1_000))


@attrs.define
class Flooding(Strategy):
    """Ten orders for every quote, most of them refused."""

    def on_quote(self, quote: Quote, context: StrategyContext) -> list[Signal]:
        return [target(quote.instrument, number) for number in range(10)]


@attrs.define
class Slow(Strategy):
    """Twenty microseconds for every event."""

    seen: int = 0

    def on_quote(self, quote: Quote, context: StrategyContext) -> None:
        end = time.perf_counter_ns() + 20_000
        self.seen += 1
        while time.perf_counter_ns() < end:
            pass


# -- running --


class Outcome(NamedTuple):
    """What a run left behind. ``cpu`` is the share of a core that this process used, ``rss`` MB, one a second."""

    items: list[Outgoing]
    stages: Mapping[str, LatencyRow]
    cpu: float
    rss: list[float]
    events: int
    states: Mapping[str, str]


def rss_mb() -> float:
    """Of this process and its children, as far as they are the engine's: the journal's writer."""
    own, pages = os.getpid(), 0
    children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
    for process in (str(own), *children):
        if process == str(own) or b"writer.py" in Path(f"/proc/{process}/cmdline").read_bytes():
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@asynccontextmanager
async def journal_in(folder: Path) -> AsyncIterator[Any]:
    async with open_journal(folder / f"{time.time_ns()}.sqlite", account="bench", lock_folder=folder) as journal:
        yield journal


async def live(url: str, strategies: Mapping[str, Strategy], seconds: float, folder: Path) -> Outcome:
    """Run an engine against the venue at ``url``; what the first two seconds left is dropped where it can be."""
    limits = {"flooding": RiskLimits(submit_rate_per_s=10.0)}
    async with (
        journal_in(folder) as journal,
        open_alpaca(url, instruments(SYMBOLS), unix_s=time.time, key=KEY, secret=KEY) as broker,
    ):
        feed = AlpacaFeed("ws" + url.removeprefix("http") + "/v2/iex", key=KEY, secret=KEY, now_ns=time.time_ns,
                          ts_event_is_scheduled_send=True)  # fmt: skip
        config = EngineConfig(
            instruments=instruments(SYMBOLS), limits=LIMITS,
            strategy_limits={name: limits[name] for name in strategies if name in limits},
        )  # fmt: skip
        async with open_engine(config, feeds=[feed], broker=broker, strategies=strategies, journal=journal) as engine:
            watched = Watched(engine)
            await engine.start()
            await trio.sleep(min(2.0, seconds / 4))
            for strategy in strategies.values():
                if isinstance(strategy, (Trader, Watcher)):
                    del strategy.seen[:]
            del watched.items[:]
            used, started, rss = time.process_time(), time.perf_counter(), [rss_mb()]
            while time.perf_counter() - started < seconds:
                await trio.sleep(1.0)
                rss.append(rss_mb())
            cpu = (time.process_time() - used) / (time.perf_counter() - started)
            engine.stop()
            with trio.fail_after(60):
                await engine.wait()
    stages = {row.name: row for row in engine.stamps.rows()}
    items = [item for item in watched.items if item.t6]
    return Outcome(items, stages, cpu, rss, engine.market.rows_sent, engine.statistics().strategies)


def bare_socket(url: str, seconds: float) -> list[float]:
    """Delays from scheduled sending to ``recv``, in µs, one for each event."""
    parts = urlsplit(url)
    address = f"ws://{parts.hostname}:{parts.port}/v2/iex"
    chunks: list[tuple[int, bytes]] = []
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        protocol = ClientProtocol(parse_uri(address))
        protocol.send_request(protocol.connect())
        connection.sendall(b"".join(protocol.data_to_send()))
        while protocol.state.name == "CONNECTING":
            protocol.receive_data(connection.recv(4096))
        protocol.send_text(f'{{"action":"auth","key":"{KEY}","secret":"{KEY}"}}'.encode())
        protocol.send_text(b'{"action":"subscribe","quotes":["*"],"trades":["*"]}')
        connection.sendall(b"".join(protocol.data_to_send()))
        gc.collect()
        gc.disable()
        try:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                content = connection.recv(262_144)
                chunks.append((time.time_ns(), content))
        finally:
            gc.enable()
    received = np.array([stamp for stamp, _ in chunks])
    ends = np.cumsum([len(content) for _, content in chunks])
    whole = b"".join(content for _, content in chunks)
    found = [(parse_time(match[1].decode()), match.end()) for match in re.finditer(rb'"t":"([^"]{20,40})"', whole)]
    times, places = (np.array(column) for column in zip(*found, strict=True))
    delays = (received[np.searchsorted(ends, places)] - times) * US
    return delays[len(delays) // 10 :].tolist()  # type: ignore[no-any-return]


# -- cases --


def delay_rows(
    case: str, seen: Sequence[int], items: Sequence[Outgoing], bare: Sequence[float], *, many: bool
) -> Iterator[Row]:
    fractions = (0.5, 0.99, 0.999, 1.0)
    names = ("p50", "p99", "p99.9", "max")
    for name, value, base in zip(names, at(seen, *fractions), at(bare, *fractions), strict=True):
        gate = None if many else {"p50": 150.0, "p99": 800.0}.get(name)
        yield Row(case, f"seen above bare {name}", value * US - base, "µs", gate=gate)
        yield Row(case, f"seen {name}", value * US, "µs", baseline=base)
    gates = {"p99": 20.0} if many else {"p50": 1.0, "p99": 5.0}
    wire = [item.t6 - item.t0 for item in items]
    for name, value in zip(names, at(wire, *fractions), strict=True):
        yield Row(case, f"on the wire {name}", value * MS, "ms", gate=gates.get(name), note=f"{len(wire)} orders")


def stage_rows(case: str, stages: Mapping[str, LatencyRow]) -> Iterator[Row]:
    for name, row in stages.items():
        if name.startswith(("ingestion", "features", "signal", "risk")):
            yield Row(case, f"{name.partition(' ')[0]} p50", row.p50_ns * US, "µs")
            yield Row(case, f"{name.partition(' ')[0]} p99", row.p99_ns * US, "µs")


def latency(quick: bool, folder: Path) -> Iterator[Row]:
    """One strategy, then a hundred."""
    seconds = 4.0 if quick else 20.0
    with venue(symbols=SYMBOLS, events_per_second=EVENTS_PER_S) as url:
        bare = bare_socket(url, seconds / 2)
        for case, count in ((ONE, 1), (HUNDRED, 100)):
            if not is_wanted(case):
                continue
            trader = Trader()
            others = {f"s{number}": one_symbol(number) for number in range(count - 1)}
            outcome = trio.run(live, url, {"trader": trader, **others}, seconds, folder)
            yield from delay_rows(case, trader.seen, outcome.items, bare, many=count > 1)
            yield from stage_rows(case, outcome.stages)
            yield Row(case, "CPU", 100 * outcome.cpu, "%")


def neighbours(quick: bool, folder: Path) -> Iterator[Row]:
    """Nine strategies that do nothing, and one that misbehaves."""
    seconds = 4.0 if quick else 12.0
    bad: dict[str, Callable[[], Strategy]] = {
        "raises": Raising, "blocks 50 ms": Blocking, "leaks": Leaking, "floods": Flooding,
    }  # fmt: skip
    with venue(symbols=SYMBOLS, events_per_second=EVENTS_PER_S) as url:
        alone = float("nan")
        for name, make in {"behaves": Watcher, **bad}.items():
            watchers = {f"w{number}": Watcher() for number in range(9)}
            key = "flooding" if make is Flooding else "bad"
            outcome = trio.run(live, url, {**watchers, key: make()}, seconds, folder)
            for watcher in watchers.values():
                assert watcher.events == outcome.events, (name, watcher.events, outcome.events)
            p99 = max(at(watcher.seen, 0.99)[0] for watcher in watchers.values()) * MS
            case = f"{NEIGHBOURS}: the tenth {name}"
            yield Row(case, "p99 of the others", p99, "ms", note=f"it is {outcome.states[key]}; no event lost")
            if name == "behaves":
                alone = p99
            else:
                yield Row(case, "growth of p99", p99 - alone, "ms", gate=1e3 * BLOCK_S)


class Backlog:
    """A feed that has all of its events at once."""

    def __init__(self, count: int) -> None:
        self._count = count

    async def run(self, send: MarketSender, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        count = self._count
        await send.quotes(instrument=np.arange(count) % SYMBOLS, ts_event=np.full(count, time.time_ns()),
                          bid=99.99, ask=100.01, bid_size=1, ask_size=1)  # fmt: skip
        await trio.sleep_forever()


def backlog(quick: bool, folder: Path) -> Iterator[Row]:
    """A critical task wakes every millisecond while fifty slow strategies catch up."""
    seconds, events = 3.0 if quick else 10.0, 200_000

    async def run() -> tuple[list[int], int]:
        delays: list[int] = []
        slow = {f"s{number}": Slow() for number in range(50)}
        async with (
            open_scheduler(freeze_gc=True) as scheduler,
            open_engine(
                EngineConfig(instruments=instruments(SYMBOLS), market_capacity=4 * events, exit_timeout_s=0.2),
                feeds=[Backlog(events)], strategies=slow, scheduler=scheduler,
            ) as engine,
        ):  # fmt: skip
            await engine.start()
            await trio.sleep(1.0)
            probing = scheduler.spawn(TaskPriority.CRITICAL, probe, delays, scheduler)
            await trio.sleep(seconds)
            probing.cancel()
            left = events - max(strategy.seen for strategy in slow.values())
            assert left > 0, "they caught up before the end"
            for name in slow:
                engine.supervised[name].quarantine("the end")
        return delays, left

    delays, left = trio.run(run)
    for name, value in zip(("p50", "p99", "p99.9", "max"), at(delays, 0.5, 0.99, 0.999, 1.0), strict=True):
        yield Row(BACKLOG, f"critical wake-to-run {name}", value * MS, "ms", gate={"p99": 1.0}.get(name),
                  note=f"{len(delays)} wakes, {left} events left at the end")  # fmt: skip


async def probe(delays: list[int], scheduler: Scheduler) -> None:
    """Woken through a socket by a thread that notes the time: nothing of Trio's timers is in it."""
    near, far = socket.socketpair()
    with near, far:
        far.setblocking(False)

        def tick() -> None:
            try:
                while True:
                    time.sleep(0.001)
                    near.send(time.perf_counter_ns().to_bytes(8, "big"))
            except OSError:
                return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, tick)
            try:
                while True:
                    await trio.lowlevel.wait_readable(far)
                    now = time.perf_counter_ns()
                    content = far.recv(4096)
                    delays += [now - int.from_bytes(content[i : i + 8], "big") for i in range(0, len(content), 8)]
            finally:
                near.shutdown(socket.SHUT_RDWR)


def processor(quick: bool, folder: Path) -> Iterator[Row]:
    """The share of a core that the engine's process uses."""
    seconds = 4.0 if quick else 15.0
    for case, rate, gate in ((IDLE, 0.1, 1.0), (NORMAL, EVENTS_PER_S, 40.0)):
        if is_wanted(case):
            with venue(symbols=SYMBOLS, events_per_second=rate) as url:
                strategies = {"trader": Trader(), **{f"s{number}": one_symbol(number) for number in range(9)}}
                outcome = trio.run(live, url, strategies, seconds, folder)
            yield Row(case, "CPU", 100 * outcome.cpu, "%", gate=gate)


def memory(quick: bool, folder: Path, minutes: float = 0.0) -> Iterator[Row]:
    seconds = 60 * minutes or (5.0 if quick else 15.0)
    with venue(symbols=SYMBOLS, events_per_second=20_000) as url:
        strategies = {f"s{number}": one_symbol(number) for number in range(99)}
        # It keeps no delays: that would be the benchmark's memory and not the engine's.
        outcome = trio.run(live, url, strategies | {"batch": Counting()}, seconds, folder)
    rss = outcome.rss
    yield Row(MEMORY, "RSS at most", max(rss), "MB", gate=400.0, note=f"{seconds:.0f} s, {outcome.events} events")
    # Every stage keeps its durations exactly until 262,144 have come, in memory that is taken as it is filled.
    later = rss[60:] if minutes > 2 else rss[len(rss) // 2 :]
    third = max(1, len(later) // 3)
    growth = float(np.median(later[-third:]) - np.median(later[:third]))
    yield Row(MEMORY, "growth, last third - first", growth, "MB", gate=5.0 if minutes else None)
    yield Row(MEMORY, "CPU", 100 * outcome.cpu, "%")


@attrs.define
class Counting(Strategy):
    events: int = 0

    def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> None:
        self.events += len(batch["kind"])


ONE, HUNDRED = "live, 10,000 quotes/s, 1 strategy", "live, 10,000 quotes/s, 100 strategies"
NEIGHBOURS = "live, neighbours"
BACKLOG = "50 slow strategies, 200,000 events behind"
IDLE, NORMAL = "live, idle", "live, 10,000 quotes/s, 10 strategies"
MEMORY = "live, 20,000 quotes/s, 100 strategies"
CASES: Mapping[tuple[str, ...], Callable[[bool, Path], Iterator[Row]]] = {
    (ONE, HUNDRED): latency, (NEIGHBOURS,): neighbours, (BACKLOG,): backlog, (IDLE, NORMAL): processor,
    (MEMORY,): memory,
}  # fmt: skip


def rows(quick: bool, minutes: float = 0.0) -> Iterator[Row]:
    """The rows of every case that is wanted; with ``minutes`` those of constant memory alone."""
    with pinned(), tempfile.TemporaryDirectory() as folder:
        if minutes:
            yield from memory(quick, Path(folder), minutes)
            return
        for names, case in CASES.items():
            if any(map(is_wanted, names)):
                yield from case(quick, Path(folder))


if __name__ == "__main__":
    minutes = OPTIONS.parse_known_args()[0].minutes
    raise SystemExit(main("engine_live", lambda quick: rows(quick, minutes), options=[OPTIONS]))
