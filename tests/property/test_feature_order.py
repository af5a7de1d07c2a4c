"""Rows of two rings are computed in the order in which they were sent, whoever asks first, and each once."""

from typing import Any

import numpy as np
from features_support import part
from hypothesis import given
from hypothesis import strategies as st

from trio_nt.features import FeatureBoard, FeaturePipeline, apply, difference, sma
from trio_nt.features.stage import FeatureOrder, FeatureStage
from trio_nt.feeds.market_ring import MarketRing
from trio_nt.model.instruments import Instrument, Instruments
from trio_nt.model.market import BAR, BAR_FIELDS, QUOTE, empty_columns

SPECS = [
    difference(sma(2), sma(2, on="bar")),
    sma(1, on="bar"),
    apply(lambda window: float(window[0]), 2, on=difference(sma(1), sma(1, on="bar"))),
]
CAPACITY = 8


class Recorder:
    def record_many(self, durations_ns: Any) -> None:
        pass


def rows_of(kind: int, count: int, first: int) -> dict[str, Any]:
    rows = empty_columns(count, BAR_FIELDS) if kind == BAR else empty_columns(count)
    rows["kind"][:] = kind
    rows["sequence"][:] = np.arange(first, first + count)
    for name in ("close",) if kind == BAR else ("bid", "ask"):
        rows[name][:] = rows["sequence"] ** 2
    return rows


steps = st.lists(
    st.one_of(st.tuples(st.sampled_from([QUOTE, BAR]), st.integers(1, 4)), st.sampled_from([QUOTE, BAR, 0])),
    max_size=30,
)


@given(steps)
def test_any_interleaving_of_sending_and_computing(steps) -> None:
    pipeline, expected = FeaturePipeline(1), FeaturePipeline(1)
    board = FeatureBoard(pipeline, Instruments([Instrument(id="ABC", symbol="ABC")]), history_rows=100)
    order = FeatureOrder(pipeline, board)
    rings = {QUOTE: MarketRing(CAPACITY), BAR: MarketRing(CAPACITY, BAR_FIELDS)}
    stages = {
        kind: FeatureStage(order, ring.subscribe("features"), CAPACITY, t1=ring.t1, t2=ring.t2, recorder=Recorder())
        for kind, ring in rings.items()
    }
    readers = {kind: ring.subscribe("reader") for kind, ring in rings.items()}
    for stage in stages.values():
        stage.require(SPECS)
    expected.require(SPECS)
    waiting: dict[int, list[tuple[int, list[list[float]]]]] = {QUOTE: [], BAR: []}
    whole: list[list[float]] = [[] for _ in SPECS]
    for spec in SPECS:
        board.history("ABC", spec, 100)
    unread, sequence = {QUOTE: 0, BAR: 0}, 0

    def read(kind: int) -> None:
        names = {str(index): spec for index, spec in enumerate(SPECS)}
        while waiting[kind]:
            batch = readers[kind].receive_nowait()
            got = np.array([column.copy() for column in stages[kind].of(names, batch).values()])
            wanted: list[list[float]] = [[] for _ in SPECS]
            rows = 0
            while rows < len(batch):
                count, values = waiting[kind].pop(0)
                taken = min(count, len(batch) - rows)
                for index, column in enumerate(values):
                    wanted[index] += column[:taken]
                if taken < count:
                    waiting[kind].insert(0, (count - taken, [column[taken:] for column in values]))
                rows += taken
            assert np.array_equal(got, wanted, equal_nan=True)
        unread[kind] = 0

    for step in steps:
        if isinstance(step, tuple):
            kind, count = step
            if unread[kind] + count > CAPACITY // 2:
                read(kind)
                order.advance()
            rows = rows_of(kind, count, sequence)
            values = expected.compute(part(rows, 0, count))
            columns = [values[spec].tolist() for spec in SPECS]
            for index, column in enumerate(columns):
                whole[index] += column
            waiting[kind].append((count, columns))
            rings[kind].sender.send_nowait(rows)
            sequence += count
            unread[kind] += count
        elif step:
            read(step)
        else:
            order.advance()
    order.advance()
    for kind in (QUOTE, BAR):
        read(kind)
    for spec, column in zip(SPECS, whole, strict=True):
        kept = board.history("ABC", spec, 100)
        assert np.array_equal(kept, column[-100:], equal_nan=True)
