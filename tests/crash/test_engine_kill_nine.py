"""Whole engines are killed with SIGKILL, and started again on the same journal. Afterwards the engine's orders,
executions, positions and cash are what the venue's log says, for the account and for each strategy; and no strategy was
called before the comparison with the venue had ended.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from crash_rig import (
    ENGINE_TRADER,
    FAULTS,
    KILLS,
    chance,
    check_engine,
    check_unsent,
    died_at,
    failing_syncs,
    life,
    of_venue,
    read_orders,
    settled,
    trader,
    traders,
    venue,
)

ENGINE_KILLS = KILLS // 10
GROUPS = 4
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
async def zygote(tmp_path: Path) -> AsyncIterator[Path]:
    async with traders(tmp_path, ENGINE_TRADER) as path:
        yield path


@pytest.mark.parametrize("group", range(GROUPS))
async def test_the_engine_knows_the_truth_whenever_it_dies(zygote, tmp_path, group):
    """Groups: the engine alone dies; with faults on the wire; the venue dies as well; the clock goes back."""
    choose = chance()
    settings: dict[str, object] = {"partial_fills": 0.2, "events_per_second": 1000, "leverage": None}
    if group == 1:
        settings["faults"] = {**FAULTS, "seed": choose.randrange(1000)}
    async with venue(tmp_path / "venue", **settings) as at:
        for number in range(ENGINE_KILLS // GROUPS):
            clock_s = -3600.0 * number if group == 3 else 0.0
            await life(zygote, at, tmp_path / "engine", choose, clock_s=clock_s)
            if group == 2 and choose.random() < 0.4:
                await at.die()
                await at.start()
        check_engine(await settled(zygote, at.url, tmp_path / "engine"), at.log, tmp_path / "engine", least=5)


async def test_the_engine_dies_at_certain_steps(zygote, tmp_path):
    engine = tmp_path / "engine"
    async with venue(tmp_path / "venue", events_per_second=1000, leverage=None) as at:
        unsent: list[str] = []
        for die in (
            "submit before 5",  # its intent is durable, and it has not left
            "submit after 5",  # it is acknowledged, and nothing of that is durable
            "fills_since after 0",  # while it reconciles
            "account before 0",  # it has reconciled, and strategies do not run yet
        ):
            unsent += await died_at(zygote, at, engine, die)
        check_engine(await settled(zygote, at.url, engine), at.log, engine)
        assert len(unsent) == 1
        check_unsent(unsent, at.log, engine)


async def test_a_disk_that_does_not_sync_halts_the_engine_and_nothing_leaves_unrecorded(zygote, tmp_path):
    library = await failing_syncs(tmp_path)
    engine = tmp_path / "engine"
    async with venue(tmp_path / "venue", events_per_second=1000, leverage=None) as at:
        for works in (25, 60):
            environment = {"LD_PRELOAD": library, "SYNCS_THAT_WORK": str(works)}
            async with trader(zygote, at.url, engine, settle=True, fills=10**9, environment=environment) as opened:
                said = await opened.read("halted: ")
                line = await opened.read("{")
                await opened.read("never")
            assert said is not None, opened.lines
            assert "the journal cannot record" in said
            assert line is not None, opened.lines
            told = json.loads(line)
            assert f"halted: {told['engine halted']}" == said
            assert f"trading was not halted: halted / {told['engine halted']}" in told["failed"]
            # What a sync refused may still be read from the file: only what the writer had answered for may leave.
            assert told["submitted"] <= told["recorded"]
            assert of_venue(at.log)[0].keys() <= read_orders(engine / "journal.sqlite")[0].keys()
        check_engine(await settled(zygote, at.url, engine), at.log, engine)
