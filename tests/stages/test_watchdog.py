"""The watchdog cancels an engine's working orders when the engine is killed or hangs, and else never."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest
import trio

from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.market import venue_instruments
from trio_nt.exchange.server import serve_exchange
from trio_nt.execution.alpaca import AlpacaBroker, open_alpaca
from trio_nt.storage.reading import read_journal
from trio_nt.watchdog import END, wait_for_silence

INSTRUMENTS = venue_instruments(2, maker_fee=Decimal(0), taker_fee=Decimal(0))

ENGINE = """
    import sys, time, trio
    from decimal import Decimal
    from pathlib import Path
    from trio_nt.exchange.market import venue_instruments
    from trio_nt.execution.alpaca import open_alpaca
    from trio_nt.model.actions import OrderType, TimeInForce
    from trio_nt.model.instruments import Side
    from trio_nt.model.orders import OrderRequest
    from trio_nt.storage.durable import open_journal
    from trio_nt.watchdog import Watched, open_watchdog

    async def main():
        url, path, how = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
        instruments = venue_instruments(2, maker_fee=Decimal(0), taker_fee=Decimal(0))
        async with (
            open_journal(path, account=url, lock_folder=path.parent),
            open_watchdog(Watched(url, str(path), 2.0)),
            open_alpaca(url, instruments, unix_s=time.time, key="sim", secret="sim") as broker,
        ):
            for number in range(3):
                order = OrderRequest(
                    f"o-{number}", instruments.ids[0], Side.BUY, Decimal(1), OrderType.LIMIT, Decimal(1), None,
                    TimeInForce.GTC,
                )
                await broker.submit(order)
            print("working", flush=True)
            if how == "raise":
                raise RuntimeError("a mistake")
            if how == "end":
                await trio.sleep(1.5)  # longer than the watchdog's patience: the heart beats
                return
            if how == "hang":
                time.sleep(3600)
            await trio.sleep_forever()

    trio.run(main)
"""


@asynccontextmanager
async def engine(tmp_path: Path, how: str) -> AsyncIterator[tuple[trio.Process, AlpacaBroker]]:
    """An engine's process with three orders at a venue that goes on."""
    async with trio.open_nursery() as nursery:
        config = ExchangeConfig(symbols=2, events_per_second=100)
        port = await nursery.start(partial(serve_exchange, config, now_ns=time.time_ns))
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-c", textwrap.dedent(ENGINE), url, str(tmp_path / "j.sqlite"), how]
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            with trio.fail_after(60):
                said = b""
                while not said.endswith(b"\n"):
                    said += await process.stdout.receive_some()
                assert said == b"working\n"
            async with open_alpaca(url, INSTRUMENTS, unix_s=time.time, key="sim", secret="sim") as broker:
                yield process, broker
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                await process.stdout.aclose()
                await process.stderr.aclose()
        nursery.cancel_scope.cancel()


async def until_cancelled(broker: AlpacaBroker) -> None:
    with trio.fail_after(60):
        while await broker.open_orders():
            await trio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reason"), [("killed", "the engine died"), ("stopped", "no heartbeat"), ("hang", "no heartbeat")]
)
async def test_working_orders_are_cancelled_when_the_engine_is(tmp_path: Path, how: str, reason: str) -> None:
    async with engine(tmp_path, how) as (process, broker):
        assert len(await broker.open_orders()) == 3
        if how == "killed":
            process.kill()
        elif how == "stopped":
            os.kill(process.pid, signal.SIGSTOP)
        await until_cancelled(broker)
        with trio.fail_after(60):
            while not read_journal(tmp_path / "j.sqlite").halted:
                await trio.sleep(0.05)
    assert reason in read_journal(tmp_path / "j.sqlite").halted


@pytest.mark.slow
async def test_an_engine_that_raises_has_not_closed_in_order(tmp_path: Path) -> None:
    async with engine(tmp_path, "raise") as (process, broker):
        await until_cancelled(broker)
        with trio.fail_after(60):
            assert await process.wait() == 1  # it waited for its watchdog


@pytest.mark.slow
async def test_an_orderly_end_leaves_orders_alone(tmp_path: Path) -> None:
    async with engine(tmp_path, "end") as (process, broker):
        with trio.fail_after(60):
            assert await process.wait() == 0
        assert len(await broker.open_orders()) == 3
    assert read_journal(tmp_path / "j.sqlite").halted == ""


class Heart:
    """Says these chunks, each after so many seconds, then ends."""

    def __init__(self, beats: Sequence[tuple[float, bytes]]) -> None:
        self.beats = list(beats)

    async def receive_some(self, max_bytes: int | None = None, /) -> bytes:
        if not self.beats:
            await trio.lowlevel.checkpoint()
            return b""
        pause, chunk = self.beats.pop(0)
        await trio.sleep(pause)
        return chunk


@pytest.mark.parametrize(
    ("beats", "reason"),
    [
        ([(0.9, b"."), (0.9, b".."), (0.9, END)], ""),
        ([(0.9, b"."), (0.1, b".en"), (0.1, b"d")], ""),
        ([(0.9, b".")], "the engine died"),
        ([(0.9, b"."), (1.1, b".")], "no heartbeat of the engine for 1 s"),
        ([], "the engine died"),
    ],
)
async def test_silence(beats: list[tuple[float, bytes]], reason: str, autojump_clock: trio.abc.Clock) -> None:
    assert await wait_for_silence(Heart(beats), 1.0) == reason
