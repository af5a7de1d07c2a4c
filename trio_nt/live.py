"""``trio-nt run``: an engine against a venue, from the start of the venue's process to the report."""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import attrs
import httpx
import trio

from scheduler import pin_thread
from trio_nt.brokers import SIMULATED_KEY, URLS, keys_for
from trio_nt.clock import wall_clock_ns
from trio_nt.config import RunConfig
from trio_nt.engine import Engine
from trio_nt.engine_config import EngineConfig
from trio_nt.engine_opening import open_engine
from trio_nt.episodes import open_memory
from trio_nt.errors import EnvironmentFailure, InputError
from trio_nt.execution.alpaca import open_alpaca
from trio_nt.execution.transport import TrioTransport
from trio_nt.feeds.alpaca import AlpacaFeed
from trio_nt.live_safety import kill_on_signal, open_run_journal, open_run_watchdog
from trio_nt.model.instruments import Instrument, InstrumentKind, Instruments
from trio_nt.report import CENT, Check, Report
from trio_nt.risk.limits import RiskLimits
from trio_nt.stamps import FRAME
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.naming import by_id

FRAME_ROWS = 1_000
FRAME_EVERY_S = 0.05
MARKET_DATA_URL = "wss://stream.data.alpaca.markets/v2/iex"
Progress = Callable[[str], None]


class Stop(Protocol):
    def add_listener(self, listener: Callable[[], object]) -> None: ...


@attrs.frozen
class Venue:
    """Where an engine trades: addresses and keys. ``is_simulated`` venues can be asked for their side of the books."""

    url: str
    market_data_url: str
    key: str = attrs.field(repr=False)
    secret: str = attrs.field(repr=False)
    is_simulated: bool


def run(config: RunConfig, *, stop: Stop | None = None, progress: Progress | None = None) -> Report:
    """Trade until ``config.duration_s`` is over or ``stop`` is asked for, then report. Blocking: its own Trio run.

    Raises:
        InputError: the configuration is wrong.
        EnvironmentFailure, FeedError, ExecutionError: the venue could not be started or reached.
    """
    return trio.run(partial(run_async, config, stop=stop, progress=progress or (lambda text: None)))


async def run_async(config: RunConfig, *, stop: Stop | None, progress: Progress) -> Report:
    engine_core, venue_core = _cores() if config.broker == "sim" else (None, None)
    async with AsyncExitStack() as stack:
        venue = await stack.enter_async_context(_open_venue(config, venue_core))
        strategies = _strategies(config)
        instruments = await _instruments(venue, strategies)
        broker = await stack.enter_async_context(
            open_alpaca(
                venue.url, instruments, unix_s=lambda: wall_clock_ns() / 1e9, key=venue.key, secret=venue.secret
            )
        )
        symbols = ("*",) if venue.is_simulated else tuple(instrument.symbol for instrument in instruments)
        feed = AlpacaFeed(
            venue.market_data_url,
            symbols=symbols,
            key=venue.key,
            secret=venue.secret,
            now_ns=wall_clock_ns,
            ts_event_is_scheduled_send=venue.is_simulated,
        )
        engine_config = EngineConfig(
            instruments=instruments,
            limits=config.risk,
            on_progress=progress,
            on_exit=config.on_exit,
            rules=config.rules,
            strategy_limits=_strategy_limits(config, strategies),
            supervision={
                name: each.supervision
                for name, strategy in strategies.items()
                for each in config.strategies
                if each.strategy is strategy
            },
            state_folder=config.state_folder,
            linger_s=config.linger_s,
            stall_timeout_s=config.stall_timeout_s,
        )
        account = await broker.account()
        journal = await stack.enter_async_context(open_run_journal(config, venue.url, account.number))
        await stack.enter_async_context(open_run_watchdog(config, venue.url, Path(journal.place)))
        memory = None if config.memory is None else await stack.enter_async_context(open_memory(config.memory))
        if engine_core is not None:  # only now: the processes above shall run on either core
            stack.enter_context(pin_thread([engine_core]))
        async with open_engine(
            engine_config, feeds=[feed], broker=broker, strategies=strategies, journal=journal, memory=memory
        ) as engine:
            report = await _trade(engine, config, stop, progress)
            if venue.is_simulated:
                report = await _with_venue_checks(report, engine, feed, venue, config, engine_core is not None)
            return report


def _strategies(config: RunConfig) -> dict[str, Strategy]:
    named = {each.id: each.strategy for each in config.strategies if each.id}
    unnamed = [each.strategy for each in config.strategies if not each.id]
    return named | (by_id(unnamed) if unnamed else {})


def _strategy_limits(config: RunConfig, named: Mapping[str, Strategy]) -> dict[str, RiskLimits]:
    limits = {id(each.strategy): each.risk for each in config.strategies if each.risk is not None}
    return {name: limits[id(strategy)] for name, strategy in named.items() if id(strategy) in limits}


async def _trade(engine: Engine, config: RunConfig, stop: Stop | None, progress: Progress) -> Report:
    if stop is not None:
        token = trio.lowlevel.current_trio_token()
        stop.add_listener(partial(_call_soon, token, engine.stop))
    await engine.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill_on_signal, engine)
        nursery.start_soon(_show_progress, engine, config, progress)
        nursery.start_soon(_measure_frames, engine)
        if config.duration_s is not None:
            nursery.start_soon(_stop_after, engine, config.duration_s)
        report = await engine.wait()
        nursery.cancel_scope.cancel()
    return report


def _call_soon(token: trio.lowlevel.TrioToken, function: Callable[[], object]) -> None:
    try:
        token.run_sync_soon(function)
    except trio.RunFinishedError:
        return


async def _stop_after(engine: Engine, seconds: float) -> None:
    await trio.sleep(seconds)
    engine.stop()


async def _show_progress(engine: Engine, config: RunConfig, progress: Progress) -> None:
    whole = "" if config.duration_s is None else f" of {config.duration_s:g}"
    started = trio.current_time()
    while True:
        counts = engine.statistics()
        progress(
            f"{trio.current_time() - started:.0f}{whole} s: {counts.rows:,} events, {counts.approved:,} orders, "
            f"{counts.fills:,} fills, {counts.refused:,} refused"
        )
        await trio.sleep(0.25)


async def _measure_frames(engine: Engine) -> None:
    """Build a frame of the last rows now and then, as a dashboard would, and record how long it takes."""
    async with AsyncExitStack() as stack:
        try:
            history = await stack.enter_async_context(engine.open_history(depth=FRAME_ROWS))
        except trio.ClosedResourceError:  # the end was asked for while the engine started
            return
        number = 0
        while True:
            await trio.sleep(FRAME_EVERY_S)
            index = number % max(1, len(engine.instruments))
            number += 1
            if history.seen(index) < FRAME_ROWS:
                continue
            started = time.perf_counter_ns()
            frame = history.frame(index, FRAME_ROWS)
            _ = {name: frame[name] for name in frame}
            engine.stamps.record(FRAME, time.perf_counter_ns() - started)


def _cores() -> tuple[int, int] | tuple[None, None]:
    """A core for the engine and another for the venue that it started, where there are two.

    Left together, each wakes the other on its own core and is put aside for it, for milliseconds.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[-1]) if len(usable) > 1 else (None, None)


# -- the venue --


@asynccontextmanager
async def _open_venue(config: RunConfig, core: int | None) -> AsyncIterator[Venue]:
    if config.broker != "sim":
        url = URLS[config.broker]
        yield Venue(url, MARKET_DATA_URL, *keys_for(url), False)
        return
    async with open_exchange_process(
        seed=config.seed,
        events_per_second=config.events_per_second,
        cash=str(config.cash.get("USD", Decimal(0))),
        core=core,
    ) as url:
        stream = "ws" + url.removeprefix("http") + "/v2/iex"
        yield Venue(url, stream, SIMULATED_KEY, SIMULATED_KEY, True)


@asynccontextmanager
async def open_exchange_process(*, core: int | None = None, **settings: Any) -> AsyncIterator[str]:
    """Start the simulated venue in a process of its own; its address. The process ends with the block.

    Args:
        core: the one that the process is pinned to; None for no pinning.
        settings: of ``ExchangeConfig``.

    Raises:
        EnvironmentFailure: it did not start; the message is what it said.
    """
    command = [sys.executable, "-m", "trio_nt.exchange", json.dumps(settings | {"core": core})]
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is the engine's: it closes first, the venue after it
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await _first_line(process.stdout)
        prefix, _, url = line.partition("listening on ")
        if prefix or not url:
            raise EnvironmentFailure(f"the simulated venue did not start: {await _complaint(process) or line}")
        yield url.strip()
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            with trio.move_on_after(5) as waited:
                await process.wait()
            if waited.cancelled_caught:
                process.kill()
                await process.wait()
            await process.stdout.aclose()
            if process.stderr is not None:
                await process.stderr.aclose()


async def _first_line(stream: trio.abc.ReceiveStream) -> str:
    text = b""
    with trio.move_on_after(30):
        while b"\n" not in text:
            chunk = await stream.receive_some()
            if not chunk:
                break
            text += chunk
    return text.decode().partition("\n")[0]


async def _complaint(process: trio.Process) -> str:
    assert process.stderr is not None
    text = b""
    with trio.move_on_after(1):
        while chunk := await process.stderr.receive_some():
            text += chunk
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


async def _ask(venue: Venue, path: str) -> Any:
    headers = {"APCA-API-KEY-ID": venue.key, "APCA-API-SECRET-KEY": venue.secret}
    async with httpx.AsyncClient(
        base_url=venue.url, headers=headers, timeout=10, trust_env=False, transport=TrioTransport()
    ) as client:
        answer = await client.get(path)
        answer.raise_for_status()
        return answer.json()


async def _instruments(venue: Venue, strategies: Mapping[str, Strategy]) -> Instruments:
    """What can be traded, as the venue describes it: everything where it is simulated, else what strategies name."""
    if venue.is_simulated:
        return Instruments(map(_instrument, await _ask(venue, "/v2/assets")))
    symbols: dict[str, None] = {}
    for name, strategy in strategies.items():
        if strategy.instruments == "*":
            raise InputError(f"strategy {name}: its instruments must be named for a real broker, not '*'")
        listed = [strategy.instruments] if isinstance(strategy.instruments, str) else strategy.instruments
        symbols |= dict.fromkeys(listed)
    return Instruments([_instrument(await _ask(venue, f"/v2/assets/{symbol}")) for symbol in symbols])


def _instrument(asset: Mapping[str, Any]) -> Instrument:
    return Instrument(
        id=asset["symbol"],
        symbol=asset["symbol"],
        kind=InstrumentKind.EQUITY,
        quote="USD",
        tick_size=asset.get("price_increment") or "0.01",
        lot_size=asset.get("min_trade_increment") or "1",
        shortable=asset["shortable"],
    )


async def _with_venue_checks(
    report: Report, engine: Engine, feed: AlpacaFeed, venue: Venue, config: RunConfig, is_pinned: bool
) -> Report:
    state = await _ask(venue, "/v2/simulation")
    sessions = feed.statistics().sessions
    received = sum(session.events_received for session in sessions)
    by_venue = [state["sessions"].get(session.name, {}) for session in sessions]
    sent = [
        venue.get("events_sent") if session.events_sent is None else session.events_sent
        for session, venue in zip(sessions, by_venue, strict=True)
    ]
    dropped = sum(venue.get("events_dropped", 0) for venue in by_venue)
    told = "not said" if None in sent else sum(count for count in sent if count is not None)
    books = engine.desk.books
    acknowledged = sum(bool(order.broker_order_id) for order in engine.desk.orders)
    checks = (
        Check.equal("events sent by the venue = received", told, received),
        *([Check.equal("events not sent: read too slowly", dropped, 0)] if dropped else []),
        Check.equal("events received = in the ring", received, engine.market.rows_sent),
        *report.checks,
        Check.equal("orders acknowledged = in the venue's book", acknowledged, state["orders"]),
        Check.equal("fills booked = venue's fills", books.fills, state["fills"]),
        Check.amounts(
            "engine's positions = venue's",
            {name: position.quantity for name, position in books.account.positions.items()},
            {name: Decimal(quantity) for name, quantity in state["positions"].items()},
        ),
        Check.amounts(
            "engine's cash = venue's, to the cent",
            books.account.cash,
            {currency: Decimal(amount) for currency, amount in state["cash"].items()},
            within=CENT,
        ),
    )
    return attrs.evolve(
        report,
        title=f"run of {engine.ran_s:.1f} s in a simulated market, seed {config.seed}",
        checks=checks,
        assumptions=(
            *report.assumptions,
            "a simulated market: prices are random, its fees are 1 (maker) and 3 (taker) basis points",
            "latencies count from the venue's scheduled sending, on a grid of 1 ms; it runs on this machine",
            *(["engine and venue are pinned to a core each"] if is_pinned else []),
        ),
        next_steps=(
            "trio-nt run --for 60 --seed 7 trades another market",
            "trio-nt init my_strategy.py writes a strategy of your own and its test",
            "trio-nt replay FILE replays a recorded market through the same engine",
        ),
    )
