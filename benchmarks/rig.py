"""What the live benchmarks run: the venue in a process of its own, on a core of its own, and an engine in this one.

venue (a process, core 1) ══ loopback ══► engine (this process, core 0) ──► journal's writer (a process)
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Any

import trio

from benchmarks.harness import percentile
from scheduler import pin_thread, unpinned
from trio_nt.exchange.market import venue_instruments
from trio_nt.execution.gateway import Outgoing
from trio_nt.model.instruments import Instruments

MS, US = 1e-6, 1e-3  # of a nanosecond
KEY = "sim"


def _cores() -> tuple[int | None, int | None]:
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (usable[0], usable[-1]) if len(usable) > 1 else (None, None)


# Read before anything is pinned: the two would else share the engine's core.
ENGINE_CORE, VENUE_CORE = _cores()


def pinned() -> Any:
    """This thread on the engine's core, where there are two."""
    return nullcontext() if ENGINE_CORE is None else pin_thread([ENGINE_CORE])


@contextmanager
def venue(**settings: Any) -> Iterator[str]:
    """The simulated venue in a process of its own; its URL. It never refuses for the rate or for want of money."""
    settings = {"cash": 10**9, "requests_per_minute": 10**9, "core": VENUE_CORE} | settings
    command = [sys.executable, "-m", "trio_nt.exchange", json.dumps(settings)]
    with unpinned():
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().partition("listening on ")[2].strip()
        finally:
            process.kill()


def instruments(count: int) -> Instruments:
    return venue_instruments(count, maker_fee=Decimal(0), taker_fee=Decimal(0))


class Watched:
    """The way from risk to execution; keeps what goes along it, with its stamps."""

    def __init__(self, engine: Any) -> None:
        self.items: list[Outgoing] = []
        self._sender = engine._outgoing
        engine._outgoing = self

    async def send_batch(self, batch: Sequence[Outgoing]) -> None:
        self.items += batch
        await self._sender.send_batch(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sender, name)


async def hog(step_ns: int = 50_000) -> None:
    """Always ready, one busy step after another."""
    while True:
        end = time.perf_counter_ns() + step_ns
        while time.perf_counter_ns() < end:
            pass
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def spawned(scheduler: Any, priority: Any, count: int) -> AsyncIterator[None]:
    """So many hogs in a lane while the block runs."""
    scopes = [trio.CancelScope() for _ in range(count)]

    async def run(scope: trio.CancelScope) -> None:
        with scope:
            await hog()

    for scope in scopes:
        scheduler.start_soon(priority, run, scope)
    try:
        yield
    finally:
        for scope in scopes:
            scope.cancel()


def sync_times(folder: Path, count: int, pause_s: float) -> list[float]:
    """What the disk itself takes to sync 8 KiB that overwrite others, sorted, ms: one every ``pause_s``."""
    times = []
    with (folder / "plain").open("w+b", buffering=0) as file:
        file.write(bytes(1 << 20))
        os.fsync(file.fileno())
        for number in range(count):
            file.seek(number % 128 * 8192)
            file.write(b"x" * 8192)
            start = time.perf_counter_ns()
            os.fsync(file.fileno())
            times.append((time.perf_counter_ns() - start) * MS)
            time.sleep(pause_s)
    return sorted(times)


def at(values: Sequence[float], *fractions: float) -> list[float]:
    """Percentiles of unsorted values."""
    ordered = sorted(values)
    return [percentile(ordered, fraction) for fraction in fractions]
