"""What a crash test is made of: a venue's process with its log, traders that are there at once, and the comparison."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from decimal import Decimal
from math import inf
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

TRADER = Path(__file__).with_name("trader.py")
ENGINE_TRADER = Path(__file__).with_name("engine_trader.py")
STATE_BY_END = {"filled": "filled", "cancelled": "cancelled", "expired": "expired"}
KILLS = int(os.environ.get("TRIO_NT_KILLS", "2000" if os.environ.get("HYPOTHESIS_PROFILE") == "long" else "200"))
FAULTS = {
    "delay": 0.1, "delay_s": 0.03, "drop_request": 0.01, "drop_response": 0.01, "duplicate": 0.03, "reorder": 0.03,
    "error": 0.03, "reset": 0.02, "silence_s": 0.05, "stream_duplicate": 0.05, "stream_reorder": 0.05,
    "stream_slow": 0.02, "disconnect": 0.002, "slow_s": 0.02,
}  # fmt: skip
SETTINGS = {"symbols": 4, "events_per_second": 500, "cash": "1000000000", "requests_per_minute": 10**9}

SHIM = """
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
static int left = -1;
static int fail(void) {
    if (left < 0) { const char *text = getenv("SYNCS_THAT_WORK"); left = text ? atoi(text) : 1 << 30; }
    if (left > 0) { left--; return 0; }
    errno = EIO;
    return -1;
}
int fsync(int fd) { return fail(); }
int fdatasync(int fd) { return fail(); }
"""


class Venue:
    """The simulated venue in its process, on a folder's log."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.log = folder / "venue.jsonl"
        self.url = ""
        self._settings = {**SETTINGS, "state": str(folder), **settings}
        self._process: trio.Process | None = None

    async def start(self) -> None:
        command = [sys.executable, "-m", "trio_nt.exchange", json.dumps(self._settings)]
        self._process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        line = b""
        with trio.fail_after(60):
            while not line.endswith(b"\n"):
                chunk = await self._process.stdout.receive_some(1)
                assert chunk, "the venue did not start"
                line += chunk
        self.url = line.decode().split()[-1]
        self._settings["port"] = int(self.url.rpartition(":")[2])

    async def die(self) -> None:
        process = self._process
        assert process is not None
        process.kill()
        await process.wait()
        for end in (process.stdin, process.stdout):
            if end is not None:
                await end.aclose()
        self._process = None


@asynccontextmanager
async def venue(folder: Path, **settings: Any) -> AsyncIterator[Venue]:
    folder.mkdir(exist_ok=True)
    opened = Venue(folder, settings)
    await opened.start()
    try:
        yield opened
    finally:
        if opened._process is not None:
            with trio.CancelScope(shield=True):
                await opened.die()


@asynccontextmanager
async def traders(folder: Path, program: Path = TRADER) -> AsyncIterator[Path]:
    """The process that forks traders; the socket that it listens at."""
    path = folder / "traders"
    process = await trio.lowlevel.open_process([sys.executable, str(program), str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        with trio.fail_after(60):
            assert (await process.stdout.receive_some(100)).startswith(b"ready")
        yield path
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


class Trader:
    """One trader, from its start to its death."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._text = b""
        self.lines: list[str] = []
        self.pid = 0
        self._may_live = True

    async def read(self, beginning: str) -> str | None:
        """The next line that begins so; None when it is dead without one."""
        with trio.fail_after(120):
            while True:
                while b"\n" in self._text:
                    content, _, self._text = self._text.partition(b"\n")
                    line = content.decode()
                    self.lines.append(line)
                    if line.startswith(beginning):
                        return line
                try:
                    chunk = await self._stream.receive_some(65_536)
                except trio.BrokenResourceError:
                    chunk = b""
                if not chunk:
                    self._may_live = False
                    return None
                self._text += chunk

    def kill(self, *, writer_too: bool = False) -> None:
        """SIGKILL. Without ``writer_too`` the journal's writer ends by itself when it has written what it was given."""
        self._may_live = False
        with suppress(ProcessLookupError):  # it was to die by itself, and has
            if writer_too:
                os.killpg(self.pid, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """However a test ends, no trader outlives it."""
        if self._may_live and self.pid:
            self.kill(writer_too=True)


@asynccontextmanager
async def trader(path: Path, url: str, folder: Path, **task: Any) -> AsyncIterator[Trader]:
    folder.mkdir(exist_ok=True)
    stream = await trio.open_unix_socket(path)
    started = Trader(stream)
    try:
        await stream.send_all(json.dumps({"url": url, "folder": str(folder), **task}).encode() + b"\n")
        line = await started.read("pid ")
        assert line is not None
        started.pid = int(line[4:])
        yield started
    finally:
        started.end()
        await trio.aclose_forcefully(stream)


async def settled(path: Path, url: str, folder: Path, **task: Any) -> dict[str, Any]:
    """What an engine knows that recovers from the journal and ends all orders."""
    async with trader(path, url, folder, settle=True, **task) as opened:
        line = await opened.read("{")
        assert line is not None, "\n".join(opened.lines)
        await opened.read("never")
        told: dict[str, Any] = json.loads(line)
        return told


def of_venue(log: Path) -> tuple[dict[str, tuple[str, str]], list[str], dict[str, str]]:
    """The venue's own account, by a reader of its own: orders with their end and what was filled, executions,
    positions.
    """
    state: dict[str, str] = {}
    filled: dict[str, int] = {}
    executions: list[str] = []
    positions: dict[str, int] = {}
    about: dict[str, tuple[str, int]] = {}
    links: set[str] = set()
    for content in log.read_text().splitlines():
        line = json.loads(content)
        kind, key = line["kind"], line.get("client_order_id", "")
        if kind == "accepted":
            assert key not in state, "an order was doubled"
            about[key] = line["symbol"], 1 if line["side"] == "buy" else -1
            filled[key] = 0
        if kind in ("accepted", "replaced"):
            assert line["order"] not in links, "an id was used twice"
            links.add(line["order"])
        if kind in ("filled", "partially filled"):
            quantity, (symbol, sign) = int(line["qty"]), about[key]
            executions.append(line["execution"])
            filled[key] += quantity
            positions[symbol] = positions.get(symbol, 0) + sign * quantity
        if kind not in ("opened", "progress", "replaced", "partially filled"):
            state[key] = kind
    return (
        {key: (kind, str(filled[key])) for key, kind in state.items()},
        sorted(executions),
        {symbol: str(quantity) for symbol, quantity in positions.items() if quantity},
    )


@attrs.define
class Books:
    """Positions and money of whoever owns the orders."""

    positions: Counter[str] = attrs.field(factory=Counter)
    cash: Decimal = Decimal(0)

    def told(self) -> dict[str, object]:
        return {
            "positions": {symbol: str(quantity) for symbol, quantity in self.positions.items() if quantity},
            "cash": self.cash,
        }


def books_of_venue(log: Path, owners: Mapping[str, str]) -> tuple[dict[str, Books], Decimal]:
    """What the venue's executions come to for each owner of orders, and what cash the account has after them."""
    cash = Decimal(0)
    books: dict[str, Books] = {}
    about: dict[str, tuple[str, int]] = {}
    for content in log.read_text().splitlines():
        line = json.loads(content)
        kind, key = line["kind"], line.get("client_order_id", "")
        if kind == "opened" and not line.get("times_before"):
            cash = Decimal(line["cash"])
        if kind == "accepted":
            about[key] = line["symbol"], 1 if line["side"] == "buy" else -1
        if kind in ("filled", "partially filled"):
            symbol, sign = about[key]
            quantity = int(line["qty"])
            paid = -sign * quantity * Decimal(line["price"]) - Decimal(line["fee"])
            of_owner = books.setdefault(owners[key], Books())
            of_owner.positions[symbol] += sign * quantity
            of_owner.cash += paid
            cash += paid
    return books, cash


def read_orders(journal: Path) -> tuple[dict[str, str], list[str]]:
    """What a journal's file holds, by a reader of its own: the owner of every order, and every execution."""
    with closing(sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True)) as database:
        owners = dict(database.execute("SELECT client_order_id, strategy_id FROM orders"))
        executions = sorted(each for (each,) in database.execute("SELECT execution_id FROM executions"))
    return owners, executions


def check_engine(told: Mapping[str, Any], log: Path, folder: Path, *, least: int = 1) -> None:
    """A whole engine's journal, orders, positions and money are what the venue has, each strategy's own as well."""
    wrong = folder / "wrong"
    assert not wrong.exists(), wrong.read_text()
    assert told["calls"] > 0
    assert told["submitted"] <= told["recorded"]
    owners, executions = read_orders(folder / "journal.sqlite")
    check({**told, "executions": executions}, log, least=least)
    books, cash = books_of_venue(log, owners)
    strategies = {
        name: {**each, "cash": Decimal(each["cash"])}
        for name, each in told["strategies"].items()
        if each["positions"] or Decimal(each["cash"])
    }
    assert strategies == {name: each.told() for name, each in books.items()}
    assert Decimal(told["cash"]) == cash
    assert told["failed"] == []


def check(told: Mapping[str, Any], log: Path, *, least: int = 1) -> None:
    """The engine's journal is what the venue has."""
    orders, executions, positions = of_venue(log)
    assert told["halted"] == []
    assert told["differences"] == []
    assert told["executions"] == executions
    assert len(set(executions)) == len(executions)
    assert told["positions"] == positions
    # What was never confirmed nor denied may still arrive: it alone stays reserved.
    assert told["reserved"] == sum(state == "abandoned" for state, _ in told["orders"].values())
    assert orders.keys() <= told["orders"].keys()  # nothing is at the venue that the journal does not know
    for order_id, (state, filled) in told["orders"].items():
        if order_id in orders:
            end, venue_filled = orders[order_id]
            assert (STATE_BY_END[end], venue_filled) == (state, filled), order_id
        else:  # journalled, and the engine died before it left, or the venue refused it
            assert (state, filled) in (("abandoned", "0"), ("rejected", "0"), ("cancelled", "0")), order_id
    assert len(orders) >= least


def chance() -> random.Random:
    seed = int(os.environ.get("TRIO_NT_SEED", str(time.time_ns() % 100_000)))
    print(f"TRIO_NT_SEED={seed}")
    return random.Random(seed)


async def life(zygote: Path, at: Venue, folder: Path, choose: random.Random, **task: object) -> None:
    """One engine from its start to a random moment, often while it still recovers."""
    async with trader(zygote, at.url, folder, **task) as opened:
        if choose.random() < 0.7:
            assert await opened.read("trading"), opened.lines
        await trio.sleep(choose.uniform(0, 0.25))
        opened.kill(writer_too=choose.random() < 0.3)
        if choose.random() < 0.5:  # else the next one comes while the journal's writer is still at work
            await opened.read("never")


def check_unsent(unsent: Sequence[str], log: Path, folder: Path) -> None:
    """Orders that were about to leave when everything died: recorded before that, and never sent late."""
    owners, _ = read_orders(folder / "journal.sqlite")
    assert owners.keys() >= set(unsent)
    assert of_venue(log)[0].keys().isdisjoint(unsent)


async def died_at(zygote: Path, at: Venue, folder: Path, die: str) -> list[str]:
    """One trader until it dies at a step, or is killed as it may not come to it; ids of orders that had not left."""
    method, _, left = die.split()
    # Submits go on and on, and every start asks the broker what there is, if not so often.
    comes = method == "submit" or (method in ("fills_since", "open_orders", "positions", "account") and left == "0")
    async with trader(zygote, at.url, folder, die=die) as opened:
        with trio.move_on_after(inf if comes else 1.0) as waited:
            await opened.read("never")
        if waited.cancelled_caught:
            opened.kill()
        else:
            assert opened.lines[-1].split()[0] in ("trading", "pid", "unsent"), opened.lines
        return [line.split()[1] for line in opened.lines if line.startswith("unsent ")]


async def failing_syncs(folder: Path) -> str:
    """A library for LD_PRELOAD, after SYNCS_THAT_WORK of which every fsync fails. Skips where nothing compiles it."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler, to make fsync fail")
    (folder / "shim.c").write_text(SHIM)
    library = folder / "shim.so"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "shim.c")]
    assert (await trio.run_process(command, stderr=subprocess.STDOUT)).returncode == 0
    return str(library)
