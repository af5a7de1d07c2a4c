"""The last values of features, per instrument and spec, within a bound of memory. Pure.

A ring exists for every (instrument, spec) that was looked up, and takes in every row of the instrument from then on.
**Eviction**: when one more ring would exceed the bound, the ring whose last lookup lies furthest back gives up its
memory; the next lookup of it is a miss and starts anew. Nothing is evicted by time.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from trio_nt.features.history import ranks
from trio_nt.features.specs import FeatureSpec

FloatArray: TypeAlias = NDArray[np.float64]
Backfill: TypeAlias = Callable[[int, FeatureSpec, int], FloatArray]

DEFAULT_LIMIT_BYTES = 50_000_000


@attrs.frozen
class CacheStatistics:
    """``hits`` + ``misses`` = ``lookups``; ``bytes`` is the memory of the rings that exist."""

    lookups: int
    hits: int
    misses: int
    evictions: int
    rings: int
    bytes: int

    @property
    def hit_rate(self) -> float:
        """Share of lookups that found their ring, 0 to 1; 0 before the first."""
        return self.hits / self.lookups if self.lookups else 0.0


class FeatureCache:
    """History rings of features.

    A lookup is a *hit* when its ring exists: nothing is set up or computed for it.

    Args:
        rows: values kept per ring, at least 1.
        limit_bytes: bound on the rings' memory; room for at least one ring.
        backfill: ``(instrument, spec, rows) -> values`` so far, oldest first, for a ring that starts; without it, a
            ring starts empty.
    """

    def __init__(
        self, *, rows: int = 1000, limit_bytes: int = DEFAULT_LIMIT_BYTES, backfill: Backfill | None = None
    ) -> None:
        if rows < 1:
            raise ValueError(f"rows must be at least 1, was {rows}")
        self._rows = rows
        self._ring_bytes = 2 * rows * 8  # every value is written twice, so that the last ones lie side by side
        self._limit = limit_bytes // self._ring_bytes
        if self._limit < 1:
            raise ValueError(f"limit_bytes must be at least {self._ring_bytes}, one ring, was {limit_bytes}")
        self._backfill = backfill
        self._pool: FloatArray = np.empty((0, 2 * rows))
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)
        self._slots: dict[tuple[int, FeatureSpec], int] = {}  # in order of the last lookup
        self._by_spec: dict[FeatureSpec, dict[int, int]] = {}
        self._hits = self._misses = self._evictions = 0

    def last(self, instrument: int, spec: FeatureSpec, rows: int) -> FloatArray:
        """The last ``rows`` values of a feature, oldest first: a read-only view, shorter where fewer have come.

        It shows newer values once ``self.rows - rows`` further rows of the instrument have arrived.

        Raises:
            ValueError: ``rows`` below 1 or above the ring's rows.
        """
        if not 1 <= rows <= self._rows:
            raise ValueError(f"rows must be between 1 and {self._rows}, was {rows}")
        key = (instrument, spec)
        slot = self._slots.pop(key, None)
        if slot is None:
            self._misses += 1
            slot = self._start(key)
        else:
            self._hits += 1
        self._slots[key] = slot
        seen = int(self._counts[slot])
        stop = (seen - 1) % self._rows + self._rows + 1
        view: FloatArray = self._pool[slot, stop - min(rows, seen) : stop]
        view.flags.writeable = False
        return view

    def _start(self, key: tuple[int, FeatureSpec]) -> int:
        instrument, spec = key
        if len(self._slots) >= self._limit:
            oldest = next(iter(self._slots))
            slot = self._slots.pop(oldest)
            del self._by_spec[oldest[1]][oldest[0]]
            self._evictions += 1
        else:
            slot = len(self._slots)
            if slot == len(self._counts):
                more = min(self._limit, max(16, 2 * slot)) - slot
                self._pool = np.concatenate([self._pool, np.empty((more, 2 * self._rows))])
                self._counts = np.concatenate([self._counts, np.zeros(more, np.int64)])
        self._counts[slot] = 0
        self._by_spec.setdefault(spec, {})[instrument] = slot
        if self._backfill is not None:
            values = self._backfill(instrument, spec, self._rows)[-self._rows :]
            self._pool[slot, : len(values)] = self._pool[slot, self._rows : self._rows + len(values)] = values
            self._counts[slot] = len(values)
        return slot

    def append(self, instruments: NDArray[Any], values: Mapping[FeatureSpec, FloatArray]) -> None:
        """Take in a batch: the rows' instruments and the features' columns, each of shape (n,), in order."""
        tracked = [(spec, slots) for spec, slots in self._by_spec.items() if slots and spec in values]
        if not tracked or len(instruments) == 0:
            return
        who = np.asarray(instruments, np.int64)
        rank, total = ranks(who)
        last = rank >= total - self._rows
        table = np.empty(int(who.max()) + 1, np.int64)
        for spec, slots in tracked:
            table[:] = -1
            for instrument, slot in slots.items():
                if instrument < len(table):
                    table[instrument] = slot
            taken = np.flatnonzero((table[who] >= 0) & last)
            at = table[who[taken]]
            places = (self._counts[at] + rank[taken]) % self._rows
            self._pool[at, places] = self._pool[at, places + self._rows] = values[spec][taken]
            present = table[who]
            np.add.at(self._counts, present[present >= 0], 1)

    def statistics(self) -> CacheStatistics:
        """Counters since the cache was made."""
        return CacheStatistics(
            lookups=self._hits + self._misses,
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            rings=len(self._slots),
            bytes=self._pool.nbytes,
        )
