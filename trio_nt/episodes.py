"""Strategies' memories kept in SQLite: ``async with open_memory(path) as memory, open_engine(memory=memory): …``.

Rules
- All episodes are read when the file is opened, before anything trades; handlers then work with what is in memory.
- What handlers store waits for one task, which writes all of it in one transaction in a thread. A strategy's episodes
  that wait are at most its capacity: one that was evicted before it was written need not be.
- A disk that fails takes no order away: memories go on without it and say so (``statistics().problem``, the log).
"""

import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np
import trio

from trio_nt.errors import InputError
from trio_nt.model.memory import Episode, MemoryStatistics, Recalled, Vector
from trio_nt.strategies.memory import CAPACITY, EpisodeMemory

if TYPE_CHECKING:
    import sqlite3

_log = logging.getLogger("trio_nt.memory")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS episode (
    number INTEGER PRIMARY KEY AUTOINCREMENT, strategy TEXT NOT NULL, ts_ns INTEGER NOT NULL, outcome REAL NOT NULL,
    note TEXT NOT NULL, vector BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS episode_by_strategy ON episode (strategy, number);
"""
_INSERT = "INSERT INTO episode (strategy, ts_ns, outcome, note, vector) VALUES (?, ?, ?, ?, ?)"
_EVICT = """DELETE FROM episode WHERE strategy = :strategy AND number <= (
    SELECT number FROM episode WHERE strategy = :strategy ORDER BY number DESC LIMIT 1 OFFSET :capacity)"""


class SqliteMemory:
    """One strategy's memory, on disk a little later. See ``StrategyMemory``."""

    def __init__(self, store: "SqliteMemories", episodes: Sequence[Episode], capacity: int) -> None:
        self._store = store
        self._memory = EpisodeMemory(episodes, capacity=capacity, on_store=self._note)
        self.waiting: deque[Episode] = deque(maxlen=capacity)

    def store(self, vector: Vector, outcome: float, *, note: str = "", ts_ns: int = 0) -> None:
        self._memory.store(vector, outcome, note=note, ts_ns=ts_ns)

    def recall(self, vector: Vector, count: int = 5) -> list[Recalled]:
        return self._memory.recall(vector, count)

    def statistics(self) -> MemoryStatistics:
        return attrs.evolve(self._memory.statistics(), waiting=len(self.waiting), problem=self._store.problem)

    def _note(self, episode: Episode) -> None:
        if not self._store.problem:
            self.waiting.append(episode)
            self._store.has_news.set()


class SqliteMemories:
    """The memories in one file. Made by ``open_memory``."""

    def __init__(self, known: dict[str, list[Episode]], capacity: int) -> None:
        self.problem = ""
        self.has_news = trio.Event()
        self.capacity = capacity
        self._known = known
        self._memories: dict[str, SqliteMemory] = {}

    def of(self, strategy_id: str) -> SqliteMemory:
        """The memory of a strategy, with what it stored in earlier runs."""
        memory = self._memories.get(strategy_id)
        if memory is None:
            known = self._known.pop(strategy_id, [])
            memory = self._memories[strategy_id] = SqliteMemory(self, known, self.capacity)
        return memory

    def take(self) -> dict[str, list[Episode]]:
        """Everything that waits for the disk, by strategy."""
        taken = {name: list(memory.waiting) for name, memory in self._memories.items() if memory.waiting}
        for name in taken:
            self._memories[name].waiting.clear()
        return taken


@asynccontextmanager
async def open_memory(path: Path | str, *, capacity: int = CAPACITY) -> AsyncIterator[SqliteMemories]:
    """Open strategies' memories in an SQLite file, which is made where it is not there. A checkpoint.

    Leaving the block, also cancelled, writes what was stored. Open it around ``open_engine``.

    Args:
        capacity: episodes kept of each strategy, in memory and in the file; the oldest are evicted first.

    Raises:
        ValueError: ``capacity`` is below 1.
        InputError: the file cannot be opened, or is no file of memories.
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, was {capacity}")
    database, known = await trio.to_thread.run_sync(_open, Path(path), capacity)
    memories = SqliteMemories(known, capacity)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write_news, database, memories)
            try:
                yield memories
            finally:
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):  # a transaction or two: milliseconds, or the disk's own timeout
            await _write(database, memories)
            await trio.to_thread.run_sync(database.close)


async def _write_news(database: "sqlite3.Connection", memories: SqliteMemories) -> None:
    while not memories.problem:
        await memories.has_news.wait()
        memories.has_news = trio.Event()
        with trio.CancelScope(shield=True):  # whoever closes the file waits for this
            await _write(database, memories)


async def _write(database: "sqlite3.Connection", memories: SqliteMemories) -> None:
    taken = memories.take()
    if taken and not memories.problem:
        memories.problem = await trio.to_thread.run_sync(_write_rows, database, taken, memories.capacity)
        if memories.problem:
            _log.error("strategies' memories are not kept on disk any more: %s", memories.problem)


# -- in a thread --


def _open(path: Path, capacity: int) -> "tuple[sqlite3.Connection, dict[str, list[Episode]]]":
    import sqlite3

    try:
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    except sqlite3.Error as error:
        raise InputError(f"{path}: {error}") from error
    try:
        database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-100;" + _SCHEMA)
        known: dict[str, list[Episode]] = {}
        for strategy, ts_ns, outcome, note, vector in database.execute(
            "SELECT strategy, ts_ns, outcome, note, vector FROM episode ORDER BY number"
        ):
            known.setdefault(strategy, []).append(Episode(np.frombuffer(vector, np.float32), outcome, note, ts_ns))
        for strategy, episodes in known.items():
            del episodes[:-capacity]
            database.execute(_EVICT, {"strategy": strategy, "capacity": capacity})
    except (sqlite3.Error, ValueError) as error:
        database.close()
        raise InputError(f"{path}: {error}") from error
    return database, known


def _write_rows(database: "sqlite3.Connection", taken: dict[str, list[Episode]], capacity: int) -> str:
    """Write episodes, all or none; what went wrong, empty where nothing did."""
    import sqlite3

    try:
        with database:
            database.execute("BEGIN IMMEDIATE")
            for strategy, episodes in taken.items():
                rows = [(strategy, each.ts_ns, each.outcome, each.note, each.vector.tobytes()) for each in episodes]
                database.executemany(_INSERT, rows)
                database.execute(_EVICT, {"strategy": strategy, "capacity": capacity})
    except sqlite3.Error as error:
        return str(error)
    return ""
