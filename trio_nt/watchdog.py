"""Cancels an engine's working orders when the engine dies or hangs: a process of its own that listens for a heartbeat.

Rules
-----
- The engine writes a byte now and then into a pipe, and ``END`` when it has closed in order. Silence for ``after_s`` or
  a pipe that closes without ``END``, and the watchdog acts: the kill switch without flattening (``kill.py``), which
  marks the journal HALTED, so that an engine that wakes up again sends nothing more.
- It acts once and ends. It has the engine's environment and so its keys; they cross no pipe.
- The heartbeat is a task of the host's loop, which the scheduler's lanes never hold up for long: a busy engine still
  beats, one whose loop stands still does not.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import attrs
import trio

from scheduler import unpin_process
from trio_nt.brokers import keys_for
from trio_nt.clock import wall_clock_ns
from trio_nt.errors import TrioNTError
from trio_nt.execution.alpaca import open_alpaca
from trio_nt.kill import KillResult, kill
from trio_nt.model.instruments import Instruments

END = b"end"
BEATS = 4  # in the time that may pass without one
DEADLINE_S = 10.0
_log = logging.getLogger("trio_nt.watchdog")


@attrs.frozen
class Watched:
    """Whom to watch: the account by its address and journal."""

    url: str
    journal: str
    after_s: float


class ByteStream(Protocol):
    async def receive_some(self, max_bytes: int | None = None, /) -> bytes | bytearray: ...


# -- the engine's side --


@asynccontextmanager
async def open_watchdog(watched: Watched) -> AsyncIterator[None]:
    """Start a watchdog, and beat for as long as the block runs.

    Leaving the block in order sends the watchdog home. An error or a cancellation lets it act; it is waited for.
    """
    # A session of its own: Ctrl-C is for the engine.
    command = [sys.executable, "-m", "trio_nt.watchdog", json.dumps(attrs.asdict(watched))]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, start_new_session=True)
    unpin_process(process.pid)  # it is to act when the engine's core is held
    assert process.stdin is not None
    pipe = process.stdin

    async def beat() -> None:
        try:
            while True:
                await pipe.send_all(b".")
                await trio.sleep(watched.after_s / BEATS)
        except trio.BrokenResourceError:
            _log.error("the watchdog has ended: nobody cancels working orders if this engine hangs")

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat)
            yield
            nursery.cancel_scope.cancel()
        try:
            await pipe.send_all(END)
        except trio.BrokenResourceError:
            _log.error("the watchdog had ended before this engine")
    finally:
        with trio.CancelScope(shield=True):
            await pipe.aclose()
            with trio.move_on_after(DEADLINE_S + 5) as waited:
                await process.wait()
            if waited.cancelled_caught:
                process.kill()
                await process.wait()


# -- the watchdog's --


async def wait_for_silence(heartbeats: ByteStream, after_s: float) -> str:
    """Listen until the engine is silent, or ends: why to act, empty when it ended in order. A checkpoint."""
    heard = b""
    while True:
        with trio.move_on_after(after_s):
            chunk = await heartbeats.receive_some()
            if not chunk:
                return "" if heard.endswith(END) else "the engine died"
            heard = (heard + bytes(chunk))[-len(END) :]
            continue
        return f"no heartbeat of the engine for {after_s:g} s"


async def watch(watched: Watched, heartbeats: ByteStream) -> KillResult | None:
    """Watch one engine and act when it is silent; None when it ended in order."""
    reason = await wait_for_silence(heartbeats, watched.after_s)
    if not reason:
        return None
    key, secret = keys_for(watched.url)
    async with open_alpaca(
        watched.url, Instruments(), unix_s=lambda: wall_clock_ns() / 1e9, key=key, secret=secret
    ) as broker:
        return await kill(
            broker,
            now_ns=wall_clock_ns,
            journal=Path(watched.journal),
            reason=f"watchdog: {reason}",
            deadline_s=DEADLINE_S,
        )


async def _main(watched: Watched) -> int:
    async with trio.lowlevel.FdStream(os.dup(0)) as heartbeats:
        try:
            result = await watch(watched, heartbeats)
        except TrioNTError as error:
            sys.stderr.write(f"trio-nt watchdog: {error}\n")
            return 1
    if result is None:
        return 0
    sys.stderr.write(f"trio-nt watchdog: {result}\n")
    return 0 if result.is_complete else 1


if __name__ == "__main__":
    raise SystemExit(trio.run(_main, Watched(**json.loads(sys.argv[1]))))
