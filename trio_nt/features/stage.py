"""Features as columns beside the market ring: computed once per row for all strategies.

A column of features is as long as the ring, so a batch's rows have theirs at the same place, without a copy. Rows are
computed when the first reader asks for them, a strategy as a rule, and for all readers at once: no task is woken for
it, and who is behind has many rows computed in one go. The stages follow the ring (``MarketRing.followers``), so that
rows that nobody asks for are computed, too, before they are overwritten.

Rows of several rings (market rows and bars) share one pipeline and are computed in the order of their ``sequence``,
whichever ring's turn it is: a feature that reads both, or that carries a bar's value to later quotes, is made of the
rows before it and of no others. Nobody waits for that order: a row is numbered when it enters its ring, so whatever has
a smaller number is there already.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
import trio

from scheduler import Batch, BroadcastReceiver
from trio_nt.features.board import FeatureBoard
from trio_nt.features.pipeline import FeaturePipeline
from trio_nt.features.specs import FeatureSpec
from trio_nt.model.market import Column, read_only


class Recorder(Protocol):
    def record_many(self, durations_ns: Column) -> None: ...


class FeatureOrder:
    """Computes the rows of all its stages in the order of their ``sequence``."""

    def __init__(self, pipeline: FeaturePipeline, board: FeatureBoard) -> None:
        self.pipeline = pipeline
        self.board = board
        self.stages: list[FeatureStage] = []
        board.catch_up = self.advance

    def advance(self) -> None:
        """Compute everything that was sent. Not a checkpoint.

        It takes until nothing is there: only that gives back the rows taken last, and a feed may be waiting for the
        room that these hold.
        """
        while ready := [stage for stage in self.stages if stage.has_rows()]:
            first = min(ready, key=lambda stage: stage.next_sequence)
            others = [stage.next_sequence for stage in ready if stage is not first]
            first.compute(min(others, default=None))


class FeatureStage:
    """The features of one ring.

    Args:
        order: what it shares with the other rings' stages.
        receiver: the stage's own reader of the ring.
        capacity: of the ring.
        t1, t2: the ring's stamp columns; ``t2`` is written when a row's features stand.
        recorder: keeps the durations t2 - t1.
    """

    def __init__(
        self,
        order: FeatureOrder,
        receiver: BroadcastReceiver,
        capacity: int,
        *,
        t1: Column,
        t2: Column,
        recorder: Recorder,
    ) -> None:
        self.done = 0
        self._order = order
        self._batch: Batch | None = None
        self._next = 0  # the first row of the batch that is not computed yet
        order.stages.append(self)
        self._receiver = receiver
        self._capacity = capacity
        self._t1, self._t2 = t1, t2
        self._recorder = recorder
        self._columns: dict[FeatureSpec, Column] = {}

    def require(self, specs: Iterable[FeatureSpec]) -> None:
        """Compute these features, too, from the next row on. Raises as ``FeaturePipeline.require``."""
        wanted = list(specs)
        self._order.advance()
        pipeline = self._order.pipeline
        # Every ring's stage is asked for the same: the request counts once.
        if self is self._order.stages[0] or not set(wanted) <= set(pipeline.plan.requested):
            pipeline.require(wanted)
        for spec in wanted:
            if spec not in self._columns:
                self._columns[spec] = np.full(self._capacity, np.nan)

    def of(self, specs: Mapping[str, FeatureSpec], batch: Batch) -> dict[str, Column]:
        """One strategy's features of a batch's rows, by name: read-only views, computed now if they were not yet."""
        end = batch.sequence + len(batch)
        if self.done < end:
            self._order.advance()
            assert self.done >= end, "the stage's reader has lost rows"
        start, stop = batch.slot, batch.slot + len(batch)
        return {name: read_only(self._columns[spec][start:stop]) for name, spec in specs.items()}

    def has_rows(self) -> bool:
        """Whether a row waits to be computed; takes the next ones of the ring where all it had are."""
        if self._batch is None:
            try:
                self._batch, self._next = self._receiver.receive_nowait(), 0
            except (trio.WouldBlock, trio.EndOfChannel):
                return False
        return True

    @property
    def next_sequence(self) -> int:
        """The ``sequence`` of the first row that waits; ``has_rows`` must have said that there is one."""
        assert self._batch is not None
        return int(self._batch["sequence"][self._next])

    def compute(self, before: int | None) -> None:
        """Compute the rows that wait, as far as their ``sequence`` lies below ``before``."""
        batch = self._batch
        assert batch is not None
        first, last = self._next, len(batch)
        if before is not None and batch["sequence"][-1] > before:
            last = int(np.searchsorted(batch["sequence"], before))
        start, stop = batch.slot + first, batch.slot + last
        if self._columns:
            out = {spec: column[start:stop] for spec, column in self._columns.items()}
            columns = batch.columns
            if last - first < len(batch):
                columns = {name: column[first:last] for name, column in columns.items()}
            self._order.board.take(columns["instrument"], self._order.pipeline.compute(columns, out))
        now = time.perf_counter_ns()
        self._t2[start:stop] = now
        self._recorder.record_many(now - self._t1[start:stop])
        self.done = batch.sequence + last
        self._next = last
        if last == len(batch):
            self._batch = None
