"""Where journals stand, and which of them are in use."""

import re
from pathlib import Path

import pytest

from trio_nt import journal_files
from trio_nt.config import JournalConfig, RunConfig
from trio_nt.errors import EnvironmentFailure, InputError
from trio_nt.journal_files import account_journal, is_in_use, journals_in_use, simulated_journal, state_folder
from trio_nt.live_safety import journal_path, open_run_journal
from trio_nt.storage.durable import open_journal
from trio_nt.storage.reading import mark_halted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "trio-nt"


def test_the_folder_follows_the_environment() -> None:
    assert state_folder({"XDG_STATE_HOME": "/somewhere"}) == Path("/somewhere/trio-nt")
    assert state_folder({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/trio-nt"
    assert state_folder({}) == Path.home() / ".local/state/trio-nt"


def test_each_account_has_one_file_whatever_its_name(folder: Path) -> None:
    assert account_journal("alpaca-paper", "PA1", folder) == folder / "alpaca-paper-PA1.sqlite"
    assert account_journal("x", "../../etc", folder).parent == folder
    assert journal_path(RunConfig(broker="alpaca-paper"), "PA1") == folder / "alpaca-paper-PA1.sqlite"
    chosen = RunConfig(broker="alpaca-paper", journal=JournalConfig(file=Path("mine")))
    assert journal_path(chosen, "PA1") == Path("mine")


async def test_simulated_runs_get_a_new_file_each_and_old_ones_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_files, "KEEP_SIMULATED", 3)
    made = []
    for number in range(5):
        path = simulated_journal(number, folder)
        assert not path.exists()
        async with open_journal(path, account=f"a{number}", lock_folder=folder):
            if number == 0:
                assert journals_in_use(folder) == [path]
        made.append(path)
    assert sorted((folder / "simulated").glob("*.sqlite")) == made[-3:]
    async with open_journal(made[2], account="a2", lock_folder=folder):  # one that is in use stays
        simulated_journal(9, folder)
        assert made[2].exists()


def test_a_simulated_market_does_not_go_on_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    config = RunConfig(journal=JournalConfig(file=path))
    assert journal_path(config, "a") == path
    path.touch()
    with pytest.raises(InputError, match=f"journal {path}: is there already"):
        journal_path(config, "a")


async def test_a_file_is_in_use_while_its_journal_is_open(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    assert not is_in_use(path)
    async with open_journal(path, account="a", lock_folder=tmp_path):
        assert is_in_use(path)
    assert not is_in_use(path)


async def test_a_run_on_a_halted_journal_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j.sqlite"
    config = RunConfig(broker="alpaca-paper", journal=JournalConfig(file=path))
    async with open_run_journal(config, "https://broker", "PA1"):
        mark_halted(path, "kill switch", 1)
    with pytest.raises(ExceptionGroup) as caught:
        async with open_run_journal(config, "https://broker", "PA1"):
            pass  # pragma: no cover
    (error,) = caught.value.exceptions
    assert isinstance(error, EnvironmentFailure)
    assert re.search(f"HALTED .kill switch.*trio-nt kill --release --journal {path}", str(error))
