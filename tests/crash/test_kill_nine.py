"""Engines under load are killed with SIGKILL. Afterwards the engine's journal is what the venue's log says: no order
lost, none doubled, no execution counted twice; whenever and wherever they died, and whatever went wrong on the wire.
"""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from crash_rig import (
    FAULTS,
    KILLS,
    Venue,
    chance,
    check,
    check_unsent,
    died_at,
    failing_syncs,
    life,
    of_venue,
    settled,
    trader,
    traders,
    venue,
)

GROUPS = 10
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
async def zygote(tmp_path: Path) -> AsyncIterator[Path]:
    async with traders(tmp_path) as path:
        yield path


@pytest.mark.parametrize("group", range(GROUPS))
async def test_no_order_is_lost_or_doubled_whenever_the_engine_dies(zygote, tmp_path, group):
    """Groups: the engine alone dies; with faults on the wire; the venue dies as well; the clock goes back."""
    choose = chance()
    settings: dict[str, object] = {"partial_fills": 0.2}
    if group in (4, 5, 6):
        settings["faults"] = {**FAULTS, "seed": choose.randrange(1000)}
    async with venue(tmp_path / "venue", **settings) as at:
        for number in range(KILLS // GROUPS):
            clock_s = -3600.0 * number if group == 9 else 0.0
            await life(zygote, at, tmp_path / "engine", choose, clock_s=clock_s)
            if group in (7, 8) and choose.random() < 0.4:
                await at.die()
                await at.start()
        check(await settled(zygote, at.url, tmp_path / "engine"), at.log)


@pytest.mark.parametrize(
    "die",
    [
        "submit before",  # its intent is durable, and it has not left
        "submit after",  # it is acknowledged, and nothing of that is durable
        "cancel before",
        "cancel after",
        "replace before",
        "replace after",
        "fills_since after",  # while it reconciles
        "open_orders after",
        "positions before",
        "find after",
    ],
)
async def test_death_at_a_certain_step(zygote, tmp_path, die):
    async with venue(tmp_path / "venue") as at:
        unsent: list[str] = []
        for left in (5, 0, 2):
            unsent += await died_at(zygote, at, tmp_path / "engine", f"{die} {left}")
        check(await settled(zygote, at.url, tmp_path / "engine"), at.log)
        assert len(unsent) == 3 * (die == "submit before")
        check_unsent(unsent, at.log, tmp_path / "engine")


@pytest.mark.parametrize("left", [0, 1, 5])
async def test_death_in_the_middle_of_a_kill(zygote, tmp_path, left):
    async with venue(tmp_path / "venue") as at:
        for when in ("before", "after"):
            die = f"cancel {when} {left}"
            async with trader(zygote, at.url, tmp_path / "engine", die=die, kill_first=True) as opened:
                with trio.move_on_after(2.0):
                    await opened.read("never")
                    continue
                opened.kill()
        check(await settled(zygote, at.url, tmp_path / "engine"), at.log)


async def test_of_two_engines_started_at_once_one_trades(zygote, tmp_path):
    async with venue(tmp_path / "venue") as at:
        for _ in range(3):
            said: list[str | None] = []

            async def start(said: list[str | None] = said) -> None:
                async with trader(zygote, at.url, tmp_path / "engine", lock_wait_s=0.3) as opened:
                    said.append(await opened.read("trading"))
                    if said[-1] is None:
                        assert "in use by another engine" in opened.lines[-1]
                    else:
                        await trio.sleep(0.6)
                        opened.kill()
                    await opened.read("never")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(start)
                nursery.start_soon(start)
            assert sorted(said, key=str) == [None, "trading"]
        check(await settled(zygote, at.url, tmp_path / "engine"), at.log)


async def test_a_torn_journal_is_refused_or_the_truth_is_known_before_trading(zygote, tmp_path):
    """The end of the write-ahead log is lost or damaged, as no honest disk does it: acknowledged intents are gone."""
    choose = chance()
    async with venue(tmp_path / "venue") as at:
        engine = tmp_path / "engine"
        for _ in range(3):
            async with trader(zygote, at.url, engine) as opened:
                await opened.read("trading")
                await trio.sleep(0.3)
                opened.kill(writer_too=True)
                await opened.read("never")
        wal = (engine / "journal.sqlite-wal").read_bytes()
        assert len(wal) > 10_000
        check(await settled(zygote, at.url, engine), at.log)
        for number in range(12):
            copy = tmp_path / f"copy-{number}"
            copy.mkdir()
            shutil.copy(engine / "journal.sqlite", copy)
            damaged = bytearray(wal[: choose.randrange(len(wal))])
            if number % 2:
                damaged = bytearray(wal)
                damaged[choose.randrange(len(wal))] ^= 0xFF
            (copy / "journal.sqlite-wal").write_bytes(damaged)
            await known_or_refused(zygote, at, copy)


async def known_or_refused(zygote: Path, at: Venue, folder: Path) -> None:
    async with trader(zygote, at.url, folder, settle=True) as opened:
        line = await opened.read("{")
        await opened.read("never")
    if line is None:
        assert opened.lines[-1].startswith("refused: "), opened.lines
        assert "journal" in opened.lines[-1]
        return
    told = json.loads(line)
    _, executions, positions = of_venue(at.log)
    # What the journal lost belongs to nobody of ours; with it, the account is what the venue says it is.
    assert told["positions"] == positions
    assert set(told["executions"]) <= set(executions)


async def test_a_disk_that_does_not_sync_halts_trading_and_nothing_leaves_unrecorded(zygote, tmp_path):
    library = await failing_syncs(tmp_path)
    async with venue(tmp_path / "venue") as at:
        for works in (25, 60):
            environment = {"LD_PRELOAD": library, "SYNCS_THAT_WORK": str(works)}
            async with trader(zygote, at.url, tmp_path / "engine", environment=environment) as opened:
                assert await opened.read("trading")
                said = await opened.read("halted: ")
                assert said is not None
                assert "the journal cannot record" in said
                await trio.sleep(0.1)
                opened.kill()
                await opened.read("never")
        check(await settled(zygote, at.url, tmp_path / "engine"), at.log)
