"""What a strategy may remember: episodes, each a vector that describes a situation and the outcome it had."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt

Vector: TypeAlias = "npt.NDArray[np.floating] | Sequence[float]"


@attrs.frozen(eq=False)
class Episode:
    """One situation and how it ended. ``vector``: float32, shape (dimension,); ``outcome`` in a unit of its own."""

    vector: npt.NDArray[np.float32]
    outcome: float
    note: str = ""
    ts_ns: int = 0


@attrs.frozen
class Recalled:
    """An episode that was found, and how alike it is: the cosine of the angle, 1.0 for the same direction."""

    episode: Episode
    similarity: float


@attrs.frozen
class MemoryStatistics:
    """Counters of one strategy's memory.

    Attributes:
        episodes: how many it holds; ``capacity`` is how many it can.
        stored, evicted: since it was opened; the oldest is evicted first.
        waiting: stored and not yet on disk; 0 where it is in memory alone.
        problem: why the disk does not take any more, empty while it does.
    """

    episodes: int
    capacity: int
    stored: int
    evicted: int
    waiting: int = 0
    problem: str = ""


class StrategyMemory(Protocol):
    """One strategy's memory. Its methods are called by handlers, so they never wait: neither for a disk nor a lock."""

    def store(self, vector: Vector, outcome: float, *, note: str = "", ts_ns: int = 0) -> None: ...
    def recall(self, vector: Vector, count: int = 5) -> list[Recalled]: ...
    def statistics(self) -> MemoryStatistics: ...


class MemorySource(Protocol):
    """Where an engine gets its strategies' memories from, by id."""

    def of(self, strategy_id: str) -> StrategyMemory: ...
