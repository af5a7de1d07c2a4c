"""The journal that survives ``kill -9``: this end of the writer process.

Rules
-----
- ``append`` returns when the writer has answered that its group is committed and synced.
- What is noted travels with the next group, and makes one of its own after ``NOTES_WAIT_S``; order is kept. Nobody
  waits for notes: what a crash takes of them the broker tells again. A group of their own at once would keep the disk
  busy when the next intent comes.
- One engine per journal and per account: two lock files, held by engine and writer together.
- A journal that is HALTED takes records and lets nothing be sent: ``append`` raises.
- A journal belongs to the account that it was first opened for.
"""

import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import attrs
import trio

from scheduler import unpin_process
from trio_nt.errors import JournalError
from trio_nt.storage import writer
from trio_nt.storage.journal import (
    CancelIntent,
    Carried,
    HaltNote,
    Heard,
    JournalStatistics,
    OrderIntent,
    Record,
    Recovered,
    ReplaceIntent,
)
from trio_nt.storage.locks import account_lock_path, hold, lock_of
from trio_nt.storage.reading import RECOVERY, read_about, read_journal

NOTES_WAIT_S = 0.002
_MOST_PENDING = 100_000
Row = tuple[str, tuple[object, ...]]


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)


def rows_of(record: Record, sequence: int) -> list[Row]:
    """A record as rows of the journal's tables."""
    if isinstance(record, OrderIntent):
        request = record.request
        row = (
            sequence, request.client_order_id, record.strategy_id, request.instrument, request.side.value,
            str(request.quantity), request.order_type.value, _text(request.limit_price), _text(request.stop_price),
            request.time_in_force.value, int(request.reduce_only), record.tag, record.ts_signal, record.ts_ns,
        )  # fmt: skip
        return [("orders", row)]
    if isinstance(record, Heard):
        update, execution = record.update, record.update.execution
        rows: list[Row] = [
            (
                "updates",
                (
                    sequence, update.client_order_id, update.broker_order_id, update.instrument, update.kind.value,
                    update.ts_event, record.ts_ns, update.reason,
                ),
            )
        ]  # fmt: skip
        if execution is not None:
            amounts = str(execution.quantity), str(execution.price), str(execution.fee)
            about = execution.fee_currency, execution.liquidity.value
            rows.append(("executions", (sequence, execution.execution_id, *amounts, *about)))
        return rows
    if isinstance(record, CancelIntent):
        return [("requests", (sequence, record.client_order_id, "cancel", None, None, record.ts_ns))]
    if isinstance(record, ReplaceIntent):
        changes = _text(record.quantity), _text(record.limit_price)
        return [("requests", (sequence, record.client_order_id, "replace", *changes, record.ts_ns))]
    return [("halts", (int(record.halted), record.reason, record.ts_ns))]


def rows_of_summary(carried: Carried, sequence: int) -> list[Row]:
    rows: list[Row] = [("carried", (sequence, carried.ts_ns))]
    for held in carried.positions:
        amounts = str(held.quantity), str(held.average_price)
        rows.append(("carried_positions", (held.strategy_id, held.instrument, *amounts)))
    for money in carried.money:
        sums = str(money.cash), str(money.fees), str(money.realised)
        rows.append(("carried_money", (money.strategy_id, money.currency, *sums)))
    return rows


class DurableJournal:
    """A journal in SQLite, written by a process of its own. Open it with ``open_journal``."""

    def __init__(self, stream: trio.SocketStream, recovered: Recovered, place: str = "") -> None:
        self.recovered = recovered
        self.place = place
        self._stream = stream
        self._sequence = recovered.last_sequence
        self._pending: list[Row] = []
        self._number = 0  # of the group that takes what comes now
        self._durable = 0
        self._waiting: dict[int, trio.Event] = {}
        self._has_pending = trio.Event()
        self._is_awaited = trio.Event()  # somebody waits for what is pending
        self._problem = ""
        self._halted = recovered.halted
        self._stopped = trio.Event()
        self._records = self._orders = self._lost = 0
        self._groups = 0

    async def append(self, records: Sequence[Record]) -> None:
        """Make records durable, together with everything noted before. A checkpoint.

        Raises:
            JournalError: they cannot be recorded, or the journal is HALTED: nothing may be sent.
        """
        number = self._take(records)
        await self._until(number)
        self._orders += sum(type(record) is OrderIntent for record in records)
        if self._halted:
            raise JournalError(f"the journal is HALTED: {self._halted}")

    def note(self, record: Record) -> None:
        if self._problem:
            self._lost += 1
            return
        self._take((record,))
        if isinstance(record, HaltNote):  # the next engine must not trade, whatever becomes of this one
            self._is_awaited.set()

    def carry(self, carried: Carried) -> None:
        if not self._problem:
            self._take_rows(rows_of_summary(carried, self._sequence))

    def describe(self, about: Mapping[str, str]) -> None:
        """Note what the file is; what was noted first stays."""
        self._take_rows([("about", pair) for pair in about.items()])

    @property
    def halted(self) -> str:
        return self._halted

    async def wait_stopped(self) -> str:
        if self._halted:
            self._stopped.set()
        await self._stopped.wait()
        if self._problem:
            return f"the journal cannot record: {self._problem}"
        return f"the journal is HALTED: {self._halted}"

    async def flush(self) -> None:
        await self._until(self._number + 1 if self._pending else self._number)

    def statistics(self) -> JournalStatistics:
        return JournalStatistics(self._records, self._groups, self._orders, self._lost)

    def _take(self, records: Sequence[Record]) -> int:
        """Put records into the next group; its number."""
        if self._problem:
            raise JournalError(self._problem)
        if len(self._pending) > _MOST_PENDING:
            self._fail("its writer does not keep up")
            raise JournalError(self._problem)
        for record in records:
            self._sequence += 1
            self._pending += rows_of(record, self._sequence)
        self._records += len(records)
        self._has_pending.set()
        return self._number + 1

    def _take_rows(self, rows: list[Row]) -> None:
        self._pending += rows
        self._has_pending.set()

    async def _until(self, number: int) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._durable < number and not self._problem:
            if number > self._number:
                self._is_awaited.set()
            event = self._waiting.get(number)
            if event is None:
                event = self._waiting[number] = trio.Event()
            await event.wait()
        if self._problem:
            raise JournalError(self._problem)

    async def _send_groups(self) -> None:
        """Hand over what is pending, one frame for all of it."""
        try:
            while True:
                await self._has_pending.wait()
                if not self._is_awaited.is_set():
                    with trio.move_on_after(NOTES_WAIT_S):
                        await self._is_awaited.wait()
                rows, self._pending = self._pending, []
                self._number += 1
                self._has_pending, self._is_awaited = trio.Event(), trio.Event()
                await self._stream.send_all(writer.frame(self._number, rows))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._fail("its writer is gone")

    async def _hear_answers(self) -> None:
        frames = writer.Frames()
        while True:
            try:
                chunk = await self._stream.receive_some(65_536)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                chunk = b""
            if not chunk:
                self._fail("its writer is gone")
                return
            for number, halted, error in frames.feed(bytes(chunk)):
                if error:
                    self._fail(str(error))
                    return
                assert isinstance(number, int)
                self._groups += number > self._durable
                self._durable = number
                self._halted = str(halted)
                if halted:
                    self._stopped.set()
            for number in [number for number in self._waiting if number <= self._durable]:
                self._waiting.pop(number).set()

    def _fail(self, problem: str) -> None:
        if not self._problem:
            self._problem = problem
            self._lost += len(self._pending)
            self._stopped.set()
        for event in self._waiting.values():
            event.set()
        self._waiting.clear()


@asynccontextmanager
async def open_journal(
    path: Path,
    *,
    account: str,
    broker: str = "",
    keep_s: float | None = None,
    lock_folder: Path | None = None,
    lock_wait_s: float = 3.0,
) -> AsyncIterator[DurableJournal]:
    """Open the journal of an account; what it held is in ``recovered``. Closing it makes everything noted durable.

    Args:
        path: the SQLite file; made if it is not there, with its folder.
        account: names the account wherever its journal stands, e.g. the broker's URL and account number.
        broker: where the account is, for ``trio-nt kill``.
        keep_s: how long orders that are over stay in the file; None: for ever.
        lock_folder: where locks of accounts stand; by default a folder of this user for temporary files.
        lock_wait_s: how long the writer of an engine that was just killed may take to finish.

    Raises:
        JournalError: it is in use by another engine, damaged, another account's, or cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(f"the journal {path} cannot be made: {error.strerror}") from error
    async with contextlib.AsyncExitStack() as stack:
        locks = []
        for lock, what in ((lock_of(path), f"the journal {path}"),
                           (account_lock_path(account, lock_folder), f"the account {account}")):  # fmt: skip
            locks.append(await _hold_soon(stack, lock, what, lock_wait_s))
        # What is there is read first, and nothing is changed before it is known to be sound.
        recovered = await trio.to_thread.run_sync(_recover, path, account)
        ours, theirs = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        with theirs:
            keep_ns = str(0 if keep_s is None else max(1, int(keep_s * 1e9)))
            command = [sys.executable, "-I", "-S", writer.__file__, str(theirs.fileno()), str(path), keep_ns]
            process = await trio.lowlevel.open_process(command, pass_fds=(theirs.fileno(), *locks))
            unpin_process(process.pid)  # it waits for the disk while the engine's core goes on
        try:
            problem, halted = await _greeting(stream)
            if problem:
                raise JournalError(f"the journal {path} cannot be opened ({problem}): {RECOVERY}")
            journal = DurableJournal(stream, attrs.evolve(recovered, halted=halted), str(path))
            journal.describe({"account": account, "broker": broker})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal._send_groups)
                nursery.start_soon(journal._hear_answers)
                try:
                    yield journal
                finally:
                    with trio.move_on_after(5, shield=True), contextlib.suppress(JournalError):
                        await journal.flush()
                    nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await stream.aclose()  # the writer finishes and ends
                with trio.move_on_after(5) as scope:
                    await process.wait()
                if scope.cancelled_caught:
                    process.kill()
                    await process.wait()


async def _hold_soon(stack: contextlib.AsyncExitStack, lock: Path, what: str, wait_s: float) -> int:
    deadline = trio.current_time() + wait_s
    while True:
        try:
            return stack.enter_context(hold(lock, what))
        except JournalError:
            if trio.current_time() >= deadline:
                raise
        await trio.sleep(0.05)


def _recover(path: Path, account: str) -> Recovered:
    if not path.exists():
        return Recovered()
    recovered = read_journal(path)
    owner = read_about(path).get("account", account)
    if owner != account:
        raise JournalError(f"the journal {path} belongs to the account {owner}, not to {account}")
    return recovered


async def _greeting(stream: trio.SocketStream) -> tuple[str, str]:
    """The writer's first words: the error that it met, empty when it is ready; and why the journal is HALTED."""
    frames = writer.Frames()
    while True:
        chunk = await stream.receive_some(65_536)
        if not chunk:
            return "its writer did not start", ""
        for _, halted, error in frames.feed(bytes(chunk)):
            return str(error), str(halted)
