"""The order journal's writer: a process of its own that makes groups of records durable.

It is started by its path and imports the standard library alone, so it is there in a few hundredths of a second and
needs little memory. It outlives an engine that is killed: what the engine had handed over is still committed, and the
lock, whose descriptor it inherits, is held until then.

Rules
-----
- Everything that has arrived is committed as one transaction (WAL, ``synchronous=FULL``); only then is its number
  answered. The answer also says whether somebody (``trio-nt kill``) has marked the journal HALTED.
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
SCHEMA = """
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
-- Who stopped trading and who released it (the last row counts).
CREATE TABLE IF NOT EXISTS halts (number INTEGER PRIMARY KEY AUTOINCREMENT, halted INTEGER NOT NULL,
    reason TEXT NOT NULL, ts INTEGER NOT NULL);
"""
COLUMNS = {"orders": 14, "requests": 6, "updates": 8, "executions": 7}
INSERT = {
    table: f"INSERT INTO {table} VALUES ({', '.join('?' * count)})"  # noqa: S608 - names of our own
    for table, count in COLUMNS.items()
} | {"halts": "INSERT INTO halts (halted, reason, ts) VALUES (?, ?, ?)"}
CHECKPOINT_AFTER_S = 1.0


def connect(path: str) -> sqlite3.Connection:
    """Open a journal for writing, made if it is not there.

    Raises:
        sqlite3.Error: it is damaged, cannot be written, or is none.
    """
    database = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.split(";"):
        if statement.strip():
            database.execute(statement)
    database.execute("INSERT OR IGNORE INTO about VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
    database.execute("COMMIT")
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


def serve(connection: socket.socket, path: str) -> None:
    """Write until the other side hangs up."""
    try:
        database = connect(path)
        halted = halted_because(database)
    except sqlite3.Error as error:
        connection.sendall(frame(-1, "", str(error)))
        return
    connection.sendall(frame(0, halted, ""))
    version = database.execute("PRAGMA data_version").fetchone()[0]
    frames, is_idle = Frames(), True
    while True:
        if not is_idle and not select.select([connection], [], [], CHECKPOINT_AFTER_S)[0]:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")
            is_idle = True
        try:
            chunk = connection.recv(1 << 20)
        except ConnectionResetError:  # the engine died with our answers unread; what it handed over is still to come
            chunk = connection.recv(1 << 20)
        if not chunk:
            break
        groups = frames.feed(chunk)
        if not groups:
            continue
        is_idle = False
        number = groups[-1][0]
        try:
            database.execute("BEGIN IMMEDIATE")
            for _, rows in groups:
                for table, row in rows:
                    database.execute(INSERT[table], row)
            database.execute("COMMIT")
            changed = database.execute("PRAGMA data_version").fetchone()[0]
            if changed != version or any(table == "halts" for _, rows in groups for table, _ in rows):
                version, halted = changed, halted_because(database)
        except sqlite3.Error as error:
            connection.sendall(frame(number, halted, str(error)))
            return
        try:
            connection.sendall(frame(number, halted, ""))
        except OSError:
            break  # nobody waits for the answer any more; what was handed over is committed
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine: it hangs up when it is done
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
