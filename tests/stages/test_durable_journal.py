"""The durable journal: what was acknowledged is there, whatever died; nobody else writes; a bad disk stops trading."""

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from decimal import Decimal
from pathlib import Path

import pytest
import trio

from scheduler import pin_thread
from trio_nt.errors import JournalError
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.instruments import Side
from trio_nt.model.orders import BrokerUpdate, Execution, Liquidity, OrderRequest, UpdateKind
from trio_nt.storage import writer
from trio_nt.storage.durable import DurableJournal, open_journal
from trio_nt.storage.journal import CancelIntent, HaltNote, Heard, OrderIntent, Record, ReplaceIntent
from trio_nt.storage.reading import mark_halted, read_journal

D = Decimal


def intent(number: int) -> OrderIntent:
    request = OrderRequest(
        f"o-{number}", "ABC", Side.SELL, D("1.50"), OrderType.STOP_LIMIT, D("9.90"), D("10"), TimeInForce.GTC, True
    )
    return OrderIntent(request, "s", "a tag", 1, 2)


def heard(number: int) -> Heard:
    execution = Execution(f"e-{number}", D("0.50"), D("9.91"), D("-0.01"), "USD", Liquidity.MAKER)
    return Heard(BrokerUpdate(UpdateKind.FILLED, f"o-{number}", "b", "ABC", 3, execution), 4)


EVERYTHING: list[Record] = [
    intent(1),
    CancelIntent("o-1", 5),
    ReplaceIntent("o-1", D("2.00"), None, 6),
    ReplaceIntent("o-1", None, D("9.95"), 7),
    heard(1),
    Heard(BrokerUpdate(UpdateKind.CANCELLED, "o-1", "b", "ABC", 8, None, "why"), 9),
]


async def test_the_writer_is_not_bound_to_the_core_of_a_pinned_engine(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("needs two cores")
    with pin_thread([min(cores)]):
        async with open_journal(tmp_path / "journal.sqlite", account="a", lock_folder=tmp_path):
            lists = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
            commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pids in lists for pid in pids}
            (writer_pid,) = [pid for pid, command in commands.items() if str(tmp_path) in command]
            assert os.sched_getaffinity(int(writer_pid)) == cores


async def test_what_was_written_comes_back_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "journal.sqlite"
    async with open_journal(path, account="a", lock_folder=tmp_path) as journal:
        assert journal.recovered.records == ()
        await journal.append(EVERYTHING[:2])
        for record in EVERYTHING[2:]:
            journal.note(record)
    async with open_journal(path, account="a", lock_folder=tmp_path) as journal:
        assert list(journal.recovered.records) == EVERYTHING
        await journal.append([intent(2)])
        assert list(read_journal(path).records) == [*EVERYTHING, intent(2)]


async def test_a_person_can_query_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    async with open_journal(path, account="a", lock_folder=tmp_path) as journal:
        await journal.append(EVERYTHING)
        with contextlib.closing(sqlite3.connect(path)) as database:  # while the engine runs
            rows = database.execute(
                "SELECT strategy_id, side, orders.quantity, execution_id, price FROM orders "
                "JOIN updates USING (client_order_id) JOIN executions ON executions.sequence = updates.sequence"
            ).fetchall()
    assert rows == [("s", "sell", "1.50", "e-1", "9.91")]


async def test_a_second_engine_on_the_journal_or_on_the_account_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    async with open_journal(path, account="a", lock_folder=tmp_path):
        for other, account in ((path, "b"), (tmp_path / "other.sqlite", "a")):
            with pytest.raises(JournalError, match=f"in use by another engine .process {os.getpid()}"):
                async with open_journal(other, account=account, lock_folder=tmp_path, lock_wait_s=0.1):
                    pass  # pragma: no cover
    async with open_journal(path, account="a", lock_folder=tmp_path):
        pass


async def test_groups_that_wait_together_are_committed_together(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "j.sqlite", account="a", lock_folder=tmp_path) as journal:
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(journal.append, [intent(number)])
        statistics = journal.statistics()
        assert statistics.records == 200
        assert statistics.groups < 20


async def test_notes_that_nobody_waits_for_are_written_soon_and_together(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "j.sqlite", account="a", lock_folder=tmp_path) as journal:
        await journal.append([intent(1)])
        before = journal.statistics().groups
        journal.note(heard(1))
        await trio.sleep(0)
        journal.note(CancelIntent("o-1", 5))
        with trio.fail_after(60):
            while journal.statistics().groups == before:
                await trio.sleep(0.001)
        assert journal.statistics().groups == before + 1
        assert len(read_journal(tmp_path / "j.sqlite").records) == 3


class TestHalted:
    async def test_by_another_process_while_the_engine_runs(self, tmp_path: Path) -> None:
        path = tmp_path / "j.sqlite"
        async with open_journal(path, account="a", lock_folder=tmp_path) as journal:
            await journal.append([intent(1)])
            mark_halted(path, "kill", 5)
            with pytest.raises(JournalError, match="HALTED: kill"):
                await journal.append([intent(2)])
        async with open_journal(path, account="a", lock_folder=tmp_path) as journal:
            assert journal.recovered.halted == "kill"
            with pytest.raises(JournalError, match="HALTED: kill"):
                await journal.append([intent(3)])
            mark_halted(path, "looked at it", 6, halted=False)
            await journal.append([intent(4)])

    async def test_by_the_engine_itself(self, tmp_path: Path) -> None:
        path = tmp_path / "j.sqlite"
        async with open_journal(path, account="a", lock_folder=tmp_path) as journal:
            journal.note(HaltNote(True, "loss", 5))
            with pytest.raises(JournalError, match="HALTED: loss"):
                await journal.append([intent(1)])
        assert read_journal(path).halted == "loss"


class TestFailing:
    async def test_a_writer_that_dies_stops_the_journal(self, tmp_path: Path) -> None:
        async with open_journal(tmp_path / "j.sqlite", account="a", lock_folder=tmp_path) as journal:
            await journal.append([intent(1)])
            os.kill(writer_of(tmp_path / "j.sqlite"), signal.SIGKILL)
            with pytest.raises(JournalError, match="writer is gone"):
                await append_many(journal)
            journal.note(intent(5000))  # goes nowhere, and does no harm

    async def test_a_full_disk_stops_the_journal_and_says_so(self, tmp_path: Path) -> None:
        path = tmp_path / "j.sqlite"
        async with open_journal(path, account="a", lock_folder=tmp_path) as journal:
            await journal.append([intent(1)])
            # A limit on the size of files is what a full disk looks like to SQLite.
            size = max(file.stat().st_size for file in tmp_path.iterdir())
            pid = writer_of(path)
            resource_limit(pid, size + 4096)
            with pytest.raises(JournalError, match=r"full|I/O"):
                await append_many(journal)
        kept = [record for record in read_journal(path).records if isinstance(record, OrderIntent)]
        assert kept[0] == intent(1)

    async def test_a_damaged_journal_is_refused_with_a_way_out_and_left_as_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "j.sqlite"
        async with open_journal(path, account="a", lock_folder=tmp_path) as journal:
            await journal.append([intent(number) for number in range(2000)])
        content = bytearray(path.read_bytes())
        content[8192:16384] = os.urandom(8192)
        path.write_bytes(content)
        with pytest.raises(JournalError, match="keep a copy"):
            async with open_journal(path, account="a", lock_folder=tmp_path):
                pass  # pragma: no cover
        assert path.read_bytes()[:8192] == content[:8192]

    async def test_a_file_that_is_no_journal(self, tmp_path: Path) -> None:
        path = tmp_path / "j.sqlite"
        path.write_text("something else entirely, and long enough to be looked at " * 100)
        with pytest.raises(JournalError, match="not a database"):
            async with open_journal(path, account="a", lock_folder=tmp_path):
                pass  # pragma: no cover

    async def test_a_torn_wal_loses_nothing_that_is_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "j.sqlite"
        async with open_journal(path, account="a", lock_folder=tmp_path) as journal:
            for number in range(20):
                await journal.append([intent(number)])
            copy = tmp_path / "copy.sqlite"
            copy.write_bytes(path.read_bytes())
            wal = path.with_name(path.name + "-wal").read_bytes()
        copy.with_name(copy.name + "-wal").write_bytes(wal[:-100])  # the last group's end is missing
        kept = [record for record in read_journal(copy).records if isinstance(record, OrderIntent)]
        assert kept == [intent(number) for number in range(19)]


async def append_many(journal: DurableJournal) -> None:
    for number in range(2, 1000):
        await journal.append([intent(number)])


ENGINE = """
    import sys, trio
    sys.path[:0] = sys.argv[2].split(":")
    from pathlib import Path
    from trio_nt.storage.durable import open_journal
    from test_durable_journal import intent, heard

    async def main():
        folder = Path(sys.argv[1])
        async with open_journal(folder / "j.sqlite", account="a", lock_folder=folder) as journal:
            number = len(journal.recovered.records)
            while True:
                await journal.append([intent(number)])
                print(number, flush=True)
                number += 1

    trio.run(main)
"""


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9_at_any_moment(tmp_path: Path) -> None:
    here = Path(__file__)
    search = f"{here.parents[2]}:{here.parent}"
    acknowledged = -1
    for round_number in range(6):
        command = [sys.executable, "-c", textwrap.dedent(ENGINE), str(tmp_path), search]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
            assert engine.stdout is not None
            acknowledged = int(engine.stdout.readline())
            time.sleep(0.005 * round_number)
            engine.kill()
            for line in engine.stdout:
                if line.endswith("\n"):
                    acknowledged = int(line)
        records = wait_until_unlocked(tmp_path)
        numbers = [int(record.request.client_order_id[2:]) for record in records if isinstance(record, OrderIntent)]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > acknowledged


def wait_until_unlocked(folder: Path) -> tuple[Record, ...]:
    async def main() -> tuple[Record, ...]:
        async with open_journal(folder / "j.sqlite", account="a", lock_folder=folder) as journal:
            return journal.recovered.records

    return trio.run(main)


def writer_of(path: Path) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(path).encode() in command:
                return int(entry.name)
    raise AssertionError("no writer")


def resource_limit(pid: int, size: int) -> None:
    import resource

    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))


def test_what_was_handed_over_is_committed_also_when_nobody_hears_the_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CHUNK_BYTES", 16)  # the engine dies with more in the socket than is read at once
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            for number in range(1, 4):
                ours.sendall(writer.frame(number, [("halts", (1, f"reason {number}", number))]))
        writer.serve(theirs, str(tmp_path / "j.sqlite"), 0)
    with contextlib.closing(sqlite3.connect(tmp_path / "j.sqlite")) as database:
        assert [reason for (reason,) in database.execute("SELECT reason FROM halts ORDER BY number")] == [
            "reason 1",
            "reason 2",
            "reason 3",
        ]


def test_sqlite_is_recent_enough_for_what_the_journal_relies_on() -> None:
    assert sqlite3.sqlite_version_info >= (3, 22)
