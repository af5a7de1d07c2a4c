"""What ``trio-nt kill`` stops: found by options, or by what runs; keys go to known addresses alone."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from trio_nt.brokers import keys_for
from trio_nt.cli import main
from trio_nt.errors import InputError, JournalError
from trio_nt.execution.alpaca import LIVE_URL, PAPER_URL
from trio_nt.kill_command import find_target, release
from trio_nt.storage import writer
from trio_nt.storage.durable import open_journal
from trio_nt.storage.reading import halted_because, mark_halted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "trio-nt").mkdir()
    return tmp_path / "trio-nt"


def journal_of(path: Path, broker: str) -> Path:
    with closing(writer.connect(str(path))) as database:
        database.execute(writer.INSERT["about"], ("broker", broker))
    return path


async def test_without_options_it_is_the_engine_that_runs(folder: Path) -> None:
    with pytest.raises(InputError, match="no engine of yours runs now"):
        find_target(None, None)
    one, two = folder / "one.sqlite", folder / "two.sqlite"
    async with open_journal(one, account="a", broker="http://127.0.0.1:1", lock_folder=folder) as journal:
        await journal.flush()
        target = find_target(None, None)
        assert (target.url, target.journal) == ("http://127.0.0.1:1", one)
        async with open_journal(two, account="b", lock_folder=folder):
            with pytest.raises(InputError, match=f"--journal {one} or --journal {two}"):
                find_target(None, None)


def test_options_name_an_account(folder: Path) -> None:
    path = journal_of(folder / "j.sqlite", PAPER_URL)
    assert find_target(None, path).url == PAPER_URL
    assert find_target("alpaca-live", path).url == LIVE_URL
    with pytest.raises(InputError, match="no such file"):
        find_target(None, folder / "other.sqlite")
    with pytest.raises(InputError, match="--broker must be one of"):
        find_target("sim", None)
    with pytest.raises(JournalError, match="does not say where its account is"):
        find_target(None, journal_of(folder / "empty.sqlite", ""))


def test_keys_leave_for_known_addresses_alone() -> None:
    environment = {"APCA_API_KEY_ID": "k", "APCA_API_SECRET_KEY": "s"}
    assert keys_for(PAPER_URL, environment) == keys_for(LIVE_URL, environment) == ("k", "s")
    assert keys_for("http://127.0.0.1:8765", environment) == ("sim", "sim")
    for other in ("https://example.org", "http://127.0.0.1.example.org", "https://127.0.0.1:1", PAPER_URL + "/x", ""):
        with pytest.raises(InputError, match="no broker that trio-nt has keys for"):
            keys_for(other, environment)
    with pytest.raises(InputError, match="needs its keys in APCA_API_KEY_ID") as caught:
        keys_for(PAPER_URL, {"APCA_API_KEY_ID": "hidden"})
    assert "hidden" not in str(caught.value)


class TestRelease:
    def test_the_one_that_is_halted(self, folder: Path) -> None:
        with pytest.raises(InputError, match=f"no journal in {folder} is HALTED"):
            release(None, "why")
        path = journal_of(folder / "j.sqlite", PAPER_URL)
        journal_of(folder / "fine.sqlite", PAPER_URL)
        mark_halted(path, "kill switch", 1)
        assert release(None, "looked at it") == f"{path} is released (it was HALTED: kill switch)\n"
        assert halted_because(path) == ""
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT halted, reason FROM halts ORDER BY number").fetchall() == [
                (1, "kill switch"),
                (0, "looked at it"),
            ]
        assert release(path, "again") == f"{path} was not HALTED\n"

    def test_of_several_one_must_be_named(self, folder: Path) -> None:
        for name in ("one", "two"):
            mark_halted(folder / f"{name}.sqlite", "x", 1)
        with pytest.raises(InputError, match="several journals are HALTED"):
            release(None, "why")
        assert "is released" in release(folder / "two.sqlite", "why")


def test_the_command_says_what_it_did_and_exits_with_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = journal_of(folder / "j.sqlite", "http://127.0.0.1:1")  # nobody answers there
    monkeypatch.setattr("trio_nt.kill_command.DEADLINE_S", 0.5)
    assert main(["kill", "--journal", str(path), "--reason", "drill"]) == 1
    told = capsys.readouterr().out
    assert "journal: HALTED" in told
    assert "NOT COMPLETE" in told
    assert halted_because(path) == "drill"
    assert main(["kill", "--release", "--journal", str(path)]) == 0
    assert halted_because(path) == ""
    assert main(["kill", "--release", "--flatten"]) == 2
