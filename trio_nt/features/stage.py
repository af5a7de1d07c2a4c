"""Features as columns beside the market ring: computed once per row for all strategies.

A column of features is as long as the ring, so a batch's rows have theirs at the same place, without a copy. The
stage's loop computes what arrives; a strategy that is quicker has it computed on the spot, so that no strategy ever
sees a row before its features.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
import trio

from scheduler import Batch, BroadcastReceiver
from trio_nt.features.pipeline import FeaturePipeline
from trio_nt.features.specs import FeatureSpec
from trio_nt.model.market import Column, read_only


class Recorder(Protocol):
    def record_many(self, durations_ns: Column) -> None: ...


class FeatureStage:
    """The features of one ring.

    Args:
        pipeline: the pure core.
        receiver: the stage's own reader of the ring.
        capacity: of the ring.
        t1, t2: the ring's stamp columns; ``t2`` is written when a row's features stand.
        recorder: keeps the durations t2 - t1.
    """

    def __init__(
        self,
        pipeline: FeaturePipeline,
        receiver: BroadcastReceiver,
        capacity: int,
        *,
        t1: Column,
        t2: Column,
        recorder: Recorder,
    ) -> None:
        self.pipeline = pipeline
        self.done = 0
        self._receiver = receiver
        self._capacity = capacity
        self._t1, self._t2 = t1, t2
        self._recorder = recorder
        self._columns: dict[FeatureSpec, Column] = {}

    def require(self, specs: Iterable[FeatureSpec]) -> None:
        """Compute these features, too, from the next row on. Raises as ``FeaturePipeline.require``."""
        wanted = list(specs)
        self.pipeline.require(wanted)
        for spec in wanted:
            if spec not in self._columns:
                self._columns[spec] = np.full(self._capacity, np.nan)

    def of(self, specs: Mapping[str, FeatureSpec], batch: Batch) -> dict[str, Column]:
        """One strategy's features of a batch's rows, by name: read-only views, computed now if they were not yet."""
        end = batch.sequence + len(batch)
        if self.done < end:
            self.advance(end)
        start, stop = batch.slot, batch.slot + len(batch)
        return {name: read_only(self._columns[spec][start:stop]) for name, spec in specs.items()}

    def advance(self, end: int) -> None:
        """Compute up to the row with this sequence number in the ring, and what came after it.

        It takes until nothing is there: only that gives back the rows taken last. ``run`` may be waiting for the next
        ones, and the feed for the room that these hold.
        """
        while True:
            try:
                batch = self._receiver.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            self._compute(batch)
        assert self.done >= end, "the stage's reader has lost rows"

    async def run(self) -> None:
        """Compute what arrives until the ring ends."""
        while True:
            try:
                batch = await self._receiver.receive()
            except trio.EndOfChannel:
                return
            self._compute(batch)

    def _compute(self, batch: Batch) -> None:
        start, stop = batch.slot, batch.slot + len(batch)
        if self._columns:
            out = {spec: column[start:stop] for spec, column in self._columns.items()}
            self.pipeline.compute(batch.columns, out)
        now = time.perf_counter_ns()
        self._t2[start:stop] = now
        self._recorder.record_many(now - self._t1[start:stop])
        self.done = batch.sequence + len(batch)
