"""Episodes in memory, bounded, found by the angle between vectors. Pure: no disk, no clock, no chance.

Rules
- All vectors of one memory have the dimension of the first. A vector must be finite and must not be all zeros.
- At ``capacity`` the oldest episode makes room for the new one.
- ``recall`` compares with every episode; of equally similar ones the latest comes first. The same calls give the same
  answers, so a replay with it is as deterministic as one without.
"""

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from trio_nt.model.memory import Episode, MemoryStatistics, Recalled, Vector

CAPACITY = 1_000
MAX_DIMENSION = 64  # with CAPACITY and notes of NOTE_LENGTH half a megabyte
NOTE_LENGTH = 120


def _ignore(episode: Episode) -> None:
    return


class EpisodeMemory:
    """One strategy's memory.

    Args:
        episodes: what it knows from before, oldest first; of more than ``capacity`` the last ones.
        capacity: how many episodes it holds.
        on_store: told of every episode that is stored.

    Raises:
        ValueError: ``capacity`` is below 1.
    """

    def __init__(
        self,
        episodes: Iterable[Episode] = (),
        *,
        capacity: int = CAPACITY,
        on_store: Callable[[Episode], None] = _ignore,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, was {capacity}")
        self._capacity = capacity
        self._on_store = on_store
        # A ring: once full, row `_next` is the oldest.
        self._vectors = np.empty((0, 0), np.float32)
        self._lengths = np.empty(capacity)
        self._outcomes = np.empty(capacity)
        self._times = np.empty(capacity, np.int64)
        self._notes: list[str] = []
        self._next = self._stored = self._evicted = 0
        for episode in episodes:
            self._put(episode)
        self._stored = self._evicted = 0

    def store(self, vector: Vector, outcome: float, *, note: str = "", ts_ns: int = 0) -> None:
        """Remember an episode. Takes microseconds and never waits; what is kept on disk gets there later.

        Args:
            vector: shape (dimension,), at most 64 numbers; copied.
            outcome: what came of it, in whatever unit the strategy compares.
            note: at most 120 characters.
            ts_ns: when it was, UNIX ns (``context.now_ns``).

        Raises:
            ValueError: the vector has another dimension than those before, is not finite or all zeros (features are
                NaN while they warm up); the outcome is not finite; the note is too long. Nothing was stored.
        """
        if not np.isfinite(outcome):
            raise ValueError(f"outcome must be finite, was {outcome}")
        if len(note) > NOTE_LENGTH:
            raise ValueError(f"note must have at most {NOTE_LENGTH} characters, had {len(note)}")
        episode = Episode(self._checked(vector), float(outcome), note, int(ts_ns))
        self._put(episode)
        self._on_store(episode)

    def recall(self, vector: Vector, count: int = 5) -> list[Recalled]:
        """The ``count`` episodes most similar to ``vector``, most similar first; fewer where there are fewer.

        Some 20 microseconds at 1,000 episodes. Raises ValueError as ``store`` does, and for ``count`` below 1.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, was {count}")
        wanted = self._checked(vector)
        filled = len(self._notes)
        if not filled:
            return []
        towards = np.einsum("ij,j->i", self._vectors[:filled], wanted / np.float32(_length(wanted)))
        similarity = towards / self._lengths[:filled]  # not by BLAS, which may sum in another order
        age = (self._next - 1 - np.arange(filled)) % filled
        return [Recalled(self._at(row), float(similarity[row])) for row in np.lexsort((age, -similarity))[:count]]

    def statistics(self) -> MemoryStatistics:
        return MemoryStatistics(len(self._notes), self._capacity, self._stored, self._evicted)

    def _put(self, episode: Episode) -> None:
        if not self._notes:
            self._vectors = np.empty((self._capacity, len(episode.vector)), np.float32)
        row = self._next
        if row == len(self._notes):
            self._notes.append(episode.note)
        else:
            self._notes[row] = episode.note
            self._evicted += 1
        self._vectors[row], self._lengths[row] = episode.vector, _length(episode.vector)
        self._outcomes[row], self._times[row] = episode.outcome, episode.ts_ns
        self._next = (row + 1) % self._capacity
        self._stored += 1

    def _at(self, row: int) -> Episode:
        return Episode(self._vectors[row].copy(), float(self._outcomes[row]), self._notes[row], int(self._times[row]))

    def _checked(self, vector: Vector) -> npt.NDArray[np.float32]:
        copied = np.array(vector, np.float32)
        if copied.ndim != 1 or not 1 <= len(copied) <= MAX_DIMENSION:
            raise ValueError(f"vector must have one dimension of 1 to {MAX_DIMENSION} numbers, had {copied.shape}")
        dimension = self._vectors.shape[1]
        if dimension and len(copied) != dimension:
            raise ValueError(f"vector must have {dimension} numbers as those before, had {len(copied)}")
        if not np.isfinite(copied).all():
            raise ValueError(f"vector must be finite, was {copied.tolist()}")
        if not copied.any():
            raise ValueError("vector must not be all zeros: it has no direction")
        return copied


def _length(vector: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(vector, dtype=np.float64).sum()))  # float64: no square overflows or vanishes


class MemoriesInMemory:
    """A ``MemorySource`` without a disk: every strategy starts with nothing. The default, live and in replay."""

    def __init__(self) -> None:
        self._memories: dict[str, EpisodeMemory] = {}

    def of(self, strategy_id: str) -> EpisodeMemory:
        """The memory of a strategy: the same as long as this object lives, so that a restart forgets nothing."""
        return self._memories.setdefault(strategy_id, EpisodeMemory())
