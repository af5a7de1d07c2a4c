"""Ten million events leave nothing behind: the process is as large after them as after the first tenth."""

import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from scheduler import Lagged, SharedLog, open_broadcast, open_mailbox, open_watch

EVENTS = 10_000_000
ALLOWED_BYTES = 1_000_000  # a tenth of a byte an event
PAGE = 4096


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


async def ring(events: int) -> None:
    """Lossless, lagging and conflating receivers, who come and go."""
    rows = 1000
    sender, receiver = open_broadcast(10_000, {"key": "i4", "bid": "f8"})
    lagging = sender.subscribe("lagging")
    columns = {"key": np.arange(rows, dtype="i4") % 10, "bid": np.arange(rows, dtype="f8")}
    total = 0
    for number in range(events // rows):
        sender.send_nowait(columns)
        total += len(receiver.receive_nowait())
        if number % 100 == 0:
            with sender.subscribe("conflating", key="key") as visitor:
                sender.send_nowait(columns)
                assert len(visitor.receive_nowait()) == 10
                total += len(receiver.receive_nowait()) - rows
            with suppress(Lagged, trio.WouldBlock):
                lagging.receive_nowait()
    assert total == events // rows * rows


async def mailbox(events: int) -> None:
    """Batches through a mailbox that is too small for them, so that both ends wait."""
    sender, receiver = open_mailbox[int](1000)
    total = 0
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            with sender:
                for _ in range(events // 2500):
                    await sender.send_batch(range(2500))

        with suppress(trio.EndOfChannel):
            while True:
                total += len(await receiver.receive_batch())
    assert total == events // 2500 * 2500


async def watch(events: int) -> None:
    writer, reader = open_watch(0)
    for value in range(events):
        writer.set(value)
    assert await reader.changed() == events - 1


async def log(events: int) -> None:
    kept: Any = SharedLog(1000, when_full="drop_oldest")
    kept.extend(range(events))
    assert len(kept.drain()) == 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "events"), [(ring, EVENTS), (mailbox, EVENTS), (watch, EVENTS // 10), (log, EVENTS // 10)]
)
async def test_memory_is_flat(work: Callable[[int], Awaitable[None]], events: int) -> None:
    await work(events // 10)
    before = resident_bytes()
    await work(events)
    assert resident_bytes() - before < ALLOWED_BYTES
