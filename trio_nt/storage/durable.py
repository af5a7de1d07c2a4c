"""The journal that survives ``kill -9``: this end of the writer process.

Rules
-----
- ``append`` returns when the writer has answered that its group is committed and synced.
- What is noted travels with the next group, at once when no group is under way; order is kept.
- One engine per journal and per account: two lock files, held by engine and writer together.
- A journal that is HALTED takes records and lets nothing be sent: ``append`` raises.
"""

import contextlib
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import attrs
import trio

from trio_nt.errors import JournalError
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.instruments import Side
from trio_nt.model.orders import BrokerUpdate, Execution, Liquidity, OrderRequest, UpdateKind
from trio_nt.storage import writer
from trio_nt.storage.journal import (
    CancelIntent,
    Heard,
    JournalStatistics,
    OrderIntent,
    Record,
    ReplaceIntent,
)
from trio_nt.storage.locks import account_lock_path, hold

_MOST_PENDING = 100_000
_RECOVERY = (
    "keep a copy of it and of its -wal file, move both away and start again; "
    "open orders and positions are then taken in from the broker as EXTERNAL"
)
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


@attrs.frozen
class Recovered:
    """What a journal held when it was opened: every record in its order, and why it is HALTED (empty: it is not)."""

    records: tuple[Record, ...]
    halted: str
    last_sequence: int


def read_journal(path: Path) -> Recovered:
    """Everything a journal knows. It may be in use by an engine.

    Raises:
        JournalError: it is damaged or of another version; the message says how to recover.
    """
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=5.0)) as database:
            (damage,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if damage != "ok":
                raise JournalError(f"the journal {path} cannot be trusted ({damage}): {_RECOVERY}")
            (version,) = database.execute("SELECT value FROM about WHERE key = 'schema'").fetchone() or ("0",)
            if version != str(writer.SCHEMA_VERSION):
                raise JournalError(f"the journal {path} is of version {version}, not {writer.SCHEMA_VERSION}")
            found = sorted(_read_records(database), key=lambda pair: pair[0])
            halted = writer.halted_because(database)
    except sqlite3.Error as error:
        raise JournalError(f"the journal {path} cannot be read ({error}): {_RECOVERY}") from error
    return Recovered(tuple(record for _, record in found), halted, found[-1][0] if found else 0)


def _read_records(database: sqlite3.Connection) -> list[tuple[int, Record]]:
    def decimal(text: str | None) -> Decimal | None:
        return None if text is None else Decimal(text)

    records: list[tuple[int, Record]] = []
    for (
        sequence, order_id, strategy_id, instrument, side, quantity, order_type, limit_price, stop_price,
        time_in_force, reduce_only, tag, ts_signal, ts_ns,
    ) in database.execute("SELECT * FROM orders"):  # fmt: skip
        request = OrderRequest(
            order_id, instrument, Side(side), Decimal(quantity), OrderType(order_type), decimal(limit_price),
            decimal(stop_price), TimeInForce(time_in_force), bool(reduce_only),
        )  # fmt: skip
        records.append((sequence, OrderIntent(request, strategy_id, tag, ts_signal, ts_ns)))
    for sequence, order_id, kind, quantity, limit_price, ts_ns in database.execute("SELECT * FROM requests"):
        if kind == "cancel":
            records.append((sequence, CancelIntent(order_id, ts_ns)))
        else:
            records.append((sequence, ReplaceIntent(order_id, decimal(quantity), decimal(limit_price), ts_ns)))
    for (
        sequence, order_id, broker_id, instrument, kind, ts_event, ts_ns, reason,
        execution_id, quantity, price, fee, fee_currency, liquidity,
    ) in database.execute(
        "SELECT updates.*, execution_id, quantity, price, fee, fee_currency, liquidity "
        "FROM updates LEFT JOIN executions USING (sequence)"
    ):  # fmt: skip
        execution = None
        if execution_id is not None:
            execution = Execution(
                execution_id, Decimal(quantity), Decimal(price), Decimal(fee), fee_currency, Liquidity(liquidity)
            )
        update = BrokerUpdate(UpdateKind(kind), order_id, broker_id, instrument, ts_event, execution, reason)
        records.append((sequence, Heard(update, ts_ns)))
    return records


def mark_halted(path: Path, reason: str, ts_ns: int, *, halted: bool = True) -> None:
    """Mark a journal HALTED (or release it) from any process, also while an engine uses it; durable on return.

    Raises:
        JournalError: it cannot be written.
    """
    try:
        with contextlib.closing(writer.connect(str(path))) as database:
            database.execute(writer.INSERT["halts"], (int(halted), reason, ts_ns))
    except sqlite3.Error as error:
        raise JournalError(f"the journal {path} cannot be marked: {error}") from error


class DurableJournal:
    """A journal in SQLite, written by a process of its own. Open it with ``open_journal``."""

    def __init__(self, stream: trio.SocketStream, recovered: Recovered) -> None:
        self.recovered = recovered
        self._stream = stream
        self._sequence = recovered.last_sequence
        self._pending: list[Row] = []
        self._number = 0  # of the group that takes what comes now
        self._durable = 0
        self._waiting: dict[int, trio.Event] = {}
        self._has_pending = trio.Event()
        self._problem = ""
        self._halted = recovered.halted
        self._records = 0
        self._groups = 0

    async def append(self, records: Sequence[Record]) -> None:
        """Make records durable, together with everything noted before. A checkpoint.

        Raises:
            JournalError: they cannot be recorded, or the journal is HALTED: nothing may be sent.
        """
        number = self._take(records)
        await self._until(number)
        if self._halted:
            raise JournalError(f"the journal is HALTED: {self._halted}")

    def note(self, record: Record) -> None:
        if not self._problem:
            self._take((record,))

    async def flush(self) -> None:
        await self._until(self._number + 1 if self._pending else self._number)

    def statistics(self) -> JournalStatistics:
        return JournalStatistics(self._records, self._groups)

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

    async def _until(self, number: int) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._durable < number and not self._problem:
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
                rows, self._pending = self._pending, []
                self._number += 1
                self._has_pending = trio.Event()
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
                self._durable = number
                self._groups += 1
                self._halted = str(halted)
            for number in [number for number in self._waiting if number <= self._durable]:
                self._waiting.pop(number).set()

    def _fail(self, problem: str) -> None:
        if not self._problem:
            self._problem = problem
        for event in self._waiting.values():
            event.set()
        self._waiting.clear()


@asynccontextmanager
async def open_journal(
    path: Path, *, account: str, lock_folder: Path | None = None, lock_wait_s: float = 3.0
) -> AsyncIterator[DurableJournal]:
    """Open the journal of an account; what it held is in ``recovered``. Closing it makes everything noted durable.

    Args:
        path: the SQLite file; made if it is not there, with its folder.
        account: names the account wherever its journal stands, e.g. the broker's URL and account number.
        lock_folder: where locks of accounts stand; by default a folder of this user for temporary files.
        lock_wait_s: how long the writer of an engine that was just killed may take to finish.

    Raises:
        JournalError: it is in use by another engine, damaged, or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        locks = []
        for lock, what in ((path.with_name(path.name + ".lock"), f"the journal {path}"),
                           (account_lock_path(account, lock_folder), f"the account {account}")):  # fmt: skip
            locks.append(await _hold_soon(stack, lock, what, lock_wait_s))
        ours, theirs = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        with theirs:
            command = [sys.executable, "-I", "-S", writer.__file__, str(theirs.fileno()), str(path)]
            process = await trio.lowlevel.open_process(command, pass_fds=(theirs.fileno(), *locks))
        try:
            greeting = await _greeting(stream)
            if greeting:
                raise JournalError(f"the journal {path} cannot be opened ({greeting}): {_RECOVERY}")
            recovered = await trio.to_thread.run_sync(read_journal, path)
            journal = DurableJournal(stream, recovered)
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


async def _greeting(stream: trio.SocketStream) -> str:
    """The writer's first words: the error it met, empty when it is ready."""
    frames = writer.Frames()
    while True:
        chunk = await stream.receive_some(65_536)
        if not chunk:
            return "its writer did not start"
        for _, _, error in frames.feed(bytes(chunk)):
            return str(error)
