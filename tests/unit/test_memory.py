"""Strategies' memories: what is recalled, what is evicted, and that no handler ever waits."""

import math
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_nt import InputError, Strategy, buy, open_memory, replay
from trio_nt.strategies.memory import EpisodeMemory
from trio_nt.testing import quotes, run_strategy

VECTORS = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]), min_size=3, max_size=3).filter(any)


def cosine(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True)) / (math.hypot(*left) * math.hypot(*right))


@given(st.lists(VECTORS, max_size=12), VECTORS, st.integers(1, 6), st.integers(1, 6))
def test_recall_is_the_nearest_of_the_last_ones(
    stored: list[list[float]], wanted: list[float], capacity: int, count: int
) -> None:
    memory = EpisodeMemory(capacity=capacity)
    for number, vector in enumerate(stored):
        memory.store(vector, number, note=str(number))
    kept = list(enumerate(stored))[-capacity:]
    expected = sorted(kept, key=lambda one: (-round(cosine(one[1], wanted), 5), -one[0]))[:count]
    recalled = memory.recall(wanted, count)
    # Of vectors in the same direction that differ in length the last bit may differ: compare by what is meant.
    assert [round(each.similarity, 5) for each in recalled] == [
        pytest.approx(cosine(vector, wanted), abs=2e-5) for _, vector in expected
    ]
    assert len({each.episode.outcome for each in recalled}) == len(recalled) == len(expected)
    assert all(each.episode.outcome in dict(kept) for each in recalled)
    statistics = memory.statistics()
    assert (statistics.episodes, statistics.stored) == (len(kept), len(stored))
    assert statistics.evicted == len(stored) - len(kept)


@pytest.mark.parametrize("capacity", [3, 4, 10])
def test_of_equally_similar_ones_the_latest_comes_first(capacity: int) -> None:
    memory = EpisodeMemory(capacity=capacity)
    for number in range(7):
        memory.store([1, 2], number)
    assert [each.episode.outcome for each in memory.recall([1, 2], 3)] == [6, 5, 4]


@pytest.mark.parametrize(
    ("vector", "outcome", "note", "message"),
    [
        ([1.0, 2.0], 0.0, "", "must have 3 numbers as those before, had 2"),
        ([1.0, math.nan, 0.0], 0.0, "", "must be finite"),
        ([0.0, 0.0, 0.0], 0.0, "", "must not be all zeros"),
        ([[1.0, 2.0, 3.0]], 0.0, "", r"1 to 64 numbers, had \(1, 3\)"),
        ([1.0, 2.0, 3.0], math.inf, "", "outcome must be finite"),
        ([1.0, 2.0, 3.0], 0.0, "x" * 121, "at most 120 characters, had 121"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_stored(vector: Any, outcome: float, note: str, message: str) -> None:
    memory = EpisodeMemory()
    memory.store([1.0, 2.0, 3.0], 1.0)
    with pytest.raises(ValueError, match=message):
        memory.store(vector, outcome, note=note)
    assert memory.statistics().stored == 1
    with pytest.raises(ValueError, match="count must be at least 1"):
        memory.recall([1.0, 0.0, 0.0], 0)


class Remembers(Strategy):
    """Buys once where what it remembers went well."""

    def on_quote(self, quote: Any, context: Any) -> Any:
        similar = context.memory.recall([quote.bid, 1.0], 1)
        context.memory.store([quote.bid, 1.0], quote.bid - 10, ts_ns=context.now_ns)
        return buy(quote.instrument, 1) if similar and similar[0].episode.outcome > 0 else None


def test_a_replay_starts_with_nothing_and_gives_the_same_every_time() -> None:
    data = quotes("ABC", mid=[9, 12, 12, 9, 13, 10.5])
    results = [run_strategy(Remembers(), data).report.orders_csv() for _ in range(2)]
    assert results[0] == results[1]
    assert results[0].count("order,") == 3
    assert replay(data, [Remembers(), Remembers()], check_causality=True).ok  # each has a memory of its own


async def test_episodes_are_on_disk_when_the_block_is_left_and_there_again(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    async with open_memory(path, capacity=3) as memories:
        one, other = memories.of("one"), memories.of("other")
        for number in range(5):
            one.store([1.0, number], number, note=f"n{number}", ts_ns=number)
        other.store([1.0], 7.5)
        assert one.statistics().waiting == 3
        assert one.recall([1.0, 4.0], 1)[0].episode.note == "n4"  # before it is on disk
        assert memories.of("one") is one
    async with open_memory(path, capacity=3) as memories:
        assert memories.of("other").recall([2.0])[0].episode.outcome == 7.5
        one = memories.of("one")
        assert [each.episode.ts_ns for each in one.recall([0.0, 1.0])] == [4, 3, 2]
        statistics = one.statistics()
        assert (statistics.episodes, statistics.capacity, statistics.stored, statistics.evicted) == (3, 3, 0, 0)
    async with open_memory(path, capacity=2) as memories:
        assert memories.of("one").statistics().episodes == 2
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM episode").fetchone() == (3,)
    database.close()


async def test_a_cancelled_block_keeps_what_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    with trio.CancelScope() as scope:
        async with open_memory(path) as memories:
            memories.of("one").store([1.0], 1.0)
            scope.cancel()
            await trio.sleep_forever()
    async with open_memory(path) as memories:
        assert memories.of("one").statistics().episodes == 1


async def test_storing_is_written_in_the_background_and_waits_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite"
    async with open_memory(path) as memories:
        memory = memories.of("one")
        with sqlite3.connect(path, isolation_level=None) as lock:
            lock.execute("BEGIN EXCLUSIVE")  # the disk does not answer
            memory.store([1.0], 1.0)
            await trio.testing.wait_all_tasks_blocked(0.01)
            memory.store([2.0], 2.0)
            assert len(memory.recall([1.0])) == 2
            lock.execute("ROLLBACK")
        lock.close()
        with trio.fail_after(60):
            while memory.statistics().waiting:
                await trio.sleep(0.01)


async def test_a_disk_that_fails_is_named_and_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "memory.sqlite"
    async with open_memory(path) as memories:
        memory = memories.of("one")
        with sqlite3.connect(path) as other:
            other.execute("DROP TABLE episode")
        other.close()
        memory.store([1.0], 1.0)
        with trio.fail_after(60):
            while not memory.statistics().problem:
                await trio.sleep(0.01)
        memory.store([1.0], 2.0)
        assert [each.episode.outcome for each in memory.recall([1.0])] == [2.0, 1.0]
        assert memory.statistics().waiting == 0
    assert "no such table: episode" in caplog.text


async def test_a_file_of_something_else_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database" * 100)
    with pytest.raises(InputError, match=r"notes\.txt: file is not a database"):
        async with open_memory(path):
            raise AssertionError
    with pytest.raises(InputError, match="unable to open"):
        async with open_memory(tmp_path / "gone" / "memory.sqlite"):
            raise AssertionError
    with pytest.raises(ValueError, match="capacity must be at least 1"):
        async with open_memory(path, capacity=0):
            raise AssertionError


MEASURE = """
import os, sys, trio
from contextlib import AsyncExitStack
from trio_nt import open_memory

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def fill(stack, name):
    memory = (await stack.enter_async_context(open_memory(os.path.join(sys.argv[1], name)))).of("one")
    for number in range(1_500):
        memory.store([number % 7 + 1.0] * 63 + [number], 1.0, note=f"{number:0120}")
    while memory.statistics().waiting:
        await trio.sleep(0.01)
    memory.recall([1.0] * 64)

async def main():
    async with AsyncExitStack() as stack:
        for number in range(3):
            await fill(stack, f"warm{number}")
        before = rss()
        for number in range(20):
            await fill(stack, f"m{number}")
        print((rss() - before) // 20)

trio.run(main)
"""


@pytest.mark.slow
def test_a_full_connection_takes_less_than_a_megabyte(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    print(f"{int(result.stdout) / 1e3:.0f} kB a connection of 1,000 episodes with 64 numbers and 120 characters")
    assert int(result.stdout) < 1_000_000


def test_vectors_are_copied() -> None:
    memory, vector = EpisodeMemory(), np.array([1.0, 2.0])
    memory.store(vector, 1.0)
    vector[:] = 9
    (recalled,) = memory.recall([1.0, 2.0])
    assert recalled.episode.vector.tolist() == [1.0, 2.0]
    assert recalled.similarity == pytest.approx(1.0)
