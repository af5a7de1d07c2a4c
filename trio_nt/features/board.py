"""What hosts and dashboards read of features: latest values and history, through the cache. Never for a strategy.

A strategy's features are columns of its rows. Here stands what came last, which at a batch's end is ahead of the
batch's rows.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trio_nt.features.cache import DEFAULT_LIMIT_BYTES, CacheStatistics, FeatureCache, FloatArray
from trio_nt.features.pipeline import FeaturePipeline, FeatureStatistics, FeatureValues
from trio_nt.features.specs import FeatureSpec
from trio_nt.model.instruments import InstrumentKey, Instruments

HISTORY_ROWS = 1_000


class FeatureBoard:
    """The features of one engine as its host reads them.

    Every read is a lookup in a bounded cache of history rings, one for each instrument and spec that was ever read
    (see ``FeatureCache`` for its rule of eviction). Belongs to the engine's Trio thread; no read is a checkpoint.

    Args:
        history_rows: values kept per ring.
        limit_bytes: bound on the rings' memory.
    """

    def __init__(
        self,
        pipeline: FeaturePipeline,
        instruments: Instruments,
        *,
        history_rows: int = HISTORY_ROWS,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
    ) -> None:
        self.catch_up: Callable[[], None] = _nothing_is_behind  # computes what was sent and not computed yet
        self._pipeline = pipeline
        self._instruments = instruments
        self._cache = FeatureCache(rows=history_rows, limit_bytes=limit_bytes, backfill=self._first)

    def _first(self, instrument: int, spec: FeatureSpec, rows: int) -> FloatArray:
        """A ring starts with the value that the feature has then."""
        value = self._pipeline.last(instrument, spec)
        return np.full(0 if np.isnan(value) else 1, value)

    @property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """The features that strategies asked for."""
        return tuple(self._pipeline.plan)

    def latest(self, instrument: InstrumentKey, spec: FeatureSpec) -> float:
        """A feature's last value; NaN before the first.

        Raises:
            KeyError: an instrument that the engine does not know, or a feature that no strategy asked for.
        """
        values = self.history(instrument, spec, 1)
        return float(values[0]) if len(values) else float("nan")

    def history(self, instrument: InstrumentKey, spec: FeatureSpec, rows: int) -> FloatArray:
        """A feature's values on the last ``rows`` rows of an instrument: oldest first, at most (rows,), read-only.

        The first read of an instrument and spec starts its history: with the value of that moment, the others come.
        The view shows newer values once the ring has gone round: copy what is kept over a checkpoint.

        Raises:
            KeyError: as ``latest``.
            ValueError: ``rows`` below 1 or above the history.
        """
        self._pipeline.plan.slot(spec)
        self.catch_up()
        return self._cache.last(self._instruments.index(instrument), spec, rows)

    def take(self, instruments: NDArray[np.int32], values: FeatureValues) -> None:
        """Take in the features of rows, in their order."""
        self._cache.append(instruments, values)

    def statistics(self) -> FeatureStatistics:
        """What was computed, frozen."""
        self.catch_up()
        return self._pipeline.statistics()

    def cache_statistics(self) -> CacheStatistics:
        """Lookups, hits and memory of the cache, frozen."""
        return self._cache.statistics()


def _nothing_is_behind() -> None:
    return
