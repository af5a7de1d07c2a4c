"""The order journal's writer: a process of its own that makes groups of records durable.

It is started by its path and imports the standard library alone, so it is there in a few hundredths of a second and
needs little memory. It outlives an engine that is killed: what the engine had handed over is still committed, and the
lock, whose descriptor it inherits, is held until then.

Rules
-----
- Everything that has arrived is committed as one transaction (WAL, ``synchronous=FULL``); only then is its number
  answered. The answer also says whether somebody (``trio-nt kill``) has marked the journal HALTED.
- When nothing arrives it brings the WAL into the file, says so when somebody marked the journal HALTED meanwhile, and
  deletes, some at a time, orders that were over for ``keep_ns`` when the engine last summed up (0: never).
- A failed write is final: the process says why and ends. After a failed fsync nobody knows what is on the disk, so
  trying again would be a guess.

Wire, both ways: four bytes length (big endian), then a ``marshal``led tuple.
Engine → writer: ``(number, [(table, row), …])``. Writer → engine: ``(number, halted, error)``.
"""

import marshal
import select
import socket
import sqlite3
import sys
from typing import Any

SCHEMA_VERSION = 1
CHUNK_BYTES = 1 << 20  # read at once
SCHEMA = """
-- What the file is: 'schema' (its version), 'account', 'broker' (where the account is).
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- Every order that was about to be sent. Times are UNIX nanoseconds of the engine's clock, amounts exact decimals.
CREATE TABLE IF NOT EXISTS orders (
    sequence INTEGER PRIMARY KEY, client_order_id TEXT NOT NULL UNIQUE, strategy_id TEXT NOT NULL,
    instrument TEXT NOT NULL, side TEXT NOT NULL, quantity TEXT NOT NULL, order_type TEXT NOT NULL, limit_price TEXT,
    stop_price TEXT, time_in_force TEXT NOT NULL, reduce_only INTEGER NOT NULL, tag TEXT NOT NULL,
    ts_signal INTEGER NOT NULL, ts_intended INTEGER NOT NULL);
-- Every cancel and replace that was about to be sent.
CREATE TABLE IF NOT EXISTS requests (
    sequence INTEGER PRIMARY KEY, client_order_id TEXT NOT NULL, kind TEXT NOT NULL, quantity TEXT, limit_price TEXT,
    ts_intended INTEGER NOT NULL);
-- What the broker said of orders, or what was concluded of its silence (then reason says so).
CREATE TABLE IF NOT EXISTS updates (
    sequence INTEGER PRIMARY KEY, client_order_id TEXT NOT NULL, broker_order_id TEXT NOT NULL,
    instrument TEXT NOT NULL, kind TEXT NOT NULL, ts_event INTEGER NOT NULL, ts_heard INTEGER NOT NULL,
    reason TEXT NOT NULL);
-- Executions, each also has its row in updates, under the same sequence.
CREATE TABLE IF NOT EXISTS executions (
    sequence INTEGER PRIMARY KEY, execution_id TEXT NOT NULL, quantity TEXT NOT NULL, price TEXT NOT NULL,
    fee TEXT NOT NULL, fee_currency TEXT NOT NULL, liquidity TEXT NOT NULL);
-- The last summary: what every record up to a sequence adds up to. Older orders that are over may have been deleted.
CREATE TABLE IF NOT EXISTS carried (sequence INTEGER PRIMARY KEY, ts INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS carried_positions (
    strategy_id TEXT NOT NULL, instrument TEXT NOT NULL, quantity TEXT NOT NULL, average_price TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS carried_money (
    strategy_id TEXT NOT NULL, currency TEXT NOT NULL, cash TEXT NOT NULL, fees TEXT NOT NULL,
    realised TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS updates_by_order ON updates (client_order_id);
CREATE INDEX IF NOT EXISTS requests_by_order ON requests (client_order_id);
-- Who stopped trading and who released it (the last row counts).
CREATE TABLE IF NOT EXISTS halts (number INTEGER PRIMARY KEY AUTOINCREMENT, halted INTEGER NOT NULL,
    reason TEXT NOT NULL, ts INTEGER NOT NULL);
"""
COLUMNS = {
    "orders": 14, "requests": 6, "updates": 8, "executions": 7,
    "carried": 2, "carried_positions": 4, "carried_money": 5,
}  # fmt: skip
INSERT = {
    table: f"INSERT INTO {table} VALUES ({', '.join('?' * count)})"  # noqa: S608 - names of our own
    for table, count in COLUMNS.items()
} | {
    "halts": "INSERT INTO halts (halted, reason, ts) VALUES (?, ?, ?)",
    "about": "INSERT OR IGNORE INTO about VALUES (?, ?)",
}
# Whether an order is over: the broker has named its end, nothing was heard of it since a time (the parameter), and
# everything that was heard is in the last summary.
IS_OVER = """(
    SELECT MAX(kind IN ('filled', 'cancelled', 'rejected', 'expired')) AND MAX(ts_heard) < ?
       AND MAX(sequence) <= (SELECT sequence FROM carried)
    FROM updates WHERE updates.client_order_id = orders.client_order_id)
"""
IDLE_AFTER_S = 1.0
FORGET_AT_ONCE = 200  # orders: some milliseconds, for which an intent may have to wait
DAY_NS = 86_400 * 1_000_000_000


def connect(path: str) -> sqlite3.Connection:
    """Open a journal for writing, made if it is not there.

    Raises:
        sqlite3.Error: it is damaged, cannot be written, or is none.
    """
    database = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    try:
        database.execute("PRAGMA auto_vacuum=INCREMENTAL")  # for a new file; it must come first
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA.split(";"):
            if statement.strip():
                database.execute(statement)
        database.execute("INSERT OR IGNORE INTO about VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def halted_because(database: sqlite3.Connection) -> str:
    """Why the journal is HALTED; empty when it is not."""
    row = database.execute("SELECT halted, reason FROM halts ORDER BY number DESC LIMIT 1").fetchone()
    return str(row[1]) or "no reason given" if row and row[0] else ""


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[tuple[Any, ...]]:
        """What the chunk completed."""
        buffer = self._buffer
        buffer += chunk
        frames: list[tuple[Any, ...]] = []
        start = 0
        while len(buffer) - start >= 4:
            end = start + 4 + int.from_bytes(buffer[start : start + 4], "big")
            if len(buffer) < end:
                break
            frames.append(marshal.loads(buffer[start + 4 : end]))  # noqa: S302 - of our own other half
            start = end
        del buffer[:start]
        return frames


def frame(*content: Any) -> bytes:
    encoded = marshal.dumps(content)
    return len(encoded).to_bytes(4, "big") + encoded


def forget(database: sqlite3.Connection, keep_ns: int, after: int) -> int | None:
    """Delete what is long over among the next orders.

    Args:
        keep_ns: how long before the last summary an order must have ended.
        after: the sequence of the last order that was looked at.

    Returns:
        The same for the next call; None when there is nothing left to look at.
    """
    (newest,) = database.execute("SELECT MAX(ts) FROM carried").fetchone()
    if newest is None:
        return None
    limit = newest - keep_ns
    looked_at = database.execute(
        f"SELECT sequence, client_order_id, ts_intended, {IS_OVER} FROM orders WHERE sequence > ? "  # noqa: S608
        "ORDER BY sequence LIMIT ?",
        (limit, after, FORGET_AT_ONCE),
    ).fetchall()
    database.execute("BEGIN IMMEDIATE")
    for _, order_id, _, is_over in looked_at:
        if is_over:
            mine = "SELECT sequence FROM updates WHERE client_order_id = ?"
            database.execute(f"DELETE FROM executions WHERE sequence IN ({mine})", (order_id,))  # noqa: S608
            for table in ("updates", "requests", "orders"):
                database.execute(f"DELETE FROM {table} WHERE client_order_id = ?", (order_id,))  # noqa: S608
    database.execute("COMMIT")
    database.execute("PRAGMA incremental_vacuum(100)").fetchall()
    if len(looked_at) < FORGET_AT_ONCE or looked_at[-1][2] >= limit:
        return None
    return int(looked_at[-1][0])


class Writer:
    """Commits what arrives; looks after the file when nothing does."""

    def __init__(self, connection: socket.socket, database: sqlite3.Connection, keep_ns: int) -> None:
        self._connection = connection
        self._database = database
        self._keep_ns = keep_ns
        self._halted = halted_because(database)
        self._version = self._data_version()
        self._number = 0
        self._has_written = True
        self._looked_at: int | None = 0 if keep_ns else None  # None: nothing to forget

    def run(self) -> None:
        """Write until the other side hangs up."""
        self._answer("")
        frames = Frames()
        while True:
            while not select.select([self._connection], [], [], IDLE_AFTER_S)[0]:
                self._tidy()
            try:
                chunk = self._connection.recv(CHUNK_BYTES)
            except ConnectionResetError:  # the engine died with our answers unread; what it handed over is to come
                chunk = self._connection.recv(CHUNK_BYTES)
            if not chunk:
                break
            groups = frames.feed(chunk)
            if groups:
                self._commit(groups)
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _commit(self, groups: list[tuple[Any, ...]]) -> None:
        database = self._database
        self._number = groups[-1][0]
        database.execute("BEGIN IMMEDIATE")
        tables = set()
        for _, rows in groups:
            for table, row in rows:
                if table == "carried":
                    for each in ("carried", "carried_positions", "carried_money"):
                        database.execute(f"DELETE FROM {each}")  # noqa: S608 - names of our own
                    self._looked_at = 0 if self._keep_ns else None
                database.execute(INSERT[table], row)
                tables.add(table)
        database.execute("COMMIT")
        self._has_written = True
        version = self._data_version()
        if version != self._version or "halts" in tables:
            self._version, self._halted = version, halted_because(database)
        self._answer("")

    def _tidy(self) -> None:
        """Nothing has arrived for a while: hear of a halt, bring the WAL into the file, forget what is long over."""
        version = self._data_version()
        if version != self._version:
            self._version, before = version, self._halted
            self._halted = halted_because(self._database)
            if self._halted != before:
                self._answer("")
        if self._looked_at is not None:
            self._looked_at = forget(self._database, self._keep_ns, self._looked_at)
            self._has_written = True
        elif self._has_written:
            self._database.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._has_written = False

    def _answer(self, error: str) -> None:
        try:
            self._connection.sendall(frame(self._number, self._halted, error))
        except OSError:
            return  # the engine is dead; what it handed over is committed all the same

    def fail(self, error: sqlite3.Error) -> None:
        self._answer(str(error))

    def _data_version(self) -> int:
        """Changes when another connection has written."""
        (version,) = self._database.execute("PRAGMA data_version").fetchone()
        return int(version)


def serve(connection: socket.socket, path: str, keep_ns: int) -> None:
    """Write until the other side hangs up, or a write fails."""
    try:
        database = connect(path)
        writer = Writer(connection, database, keep_ns)
    except sqlite3.Error as error:
        connection.sendall(frame(-1, "", str(error)))
        return
    try:
        writer.run()
    except sqlite3.Error as error:
        writer.fail(error)
    finally:
        database.close()


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine: it hangs up when it is done
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], int(sys.argv[3]))
