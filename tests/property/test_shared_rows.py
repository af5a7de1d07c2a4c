"""A ring's rows as events: made once, and for every batch of every strategy those of its own rows."""

from typing import Any

import attrs
import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from trio_nt import Instrument, Instruments
from trio_nt.model.market import QUOTE, empty_columns
from trio_nt.strategies import actor
from trio_nt.strategies.actor import SharedRows

CAPACITY = 16
INSTRUMENTS = Instruments([Instrument(id="ABC", symbol="ABC")])


@attrs.frozen
class Rows:
    """A batch whose rows say their place in the ring's history; every fifth is flagged."""

    sequence: int
    length: int

    @property
    def slot(self) -> int:
        return self.sequence % CAPACITY

    @property
    def columns(self) -> dict[str, Any]:
        places = np.arange(self.sequence, self.sequence + self.length)
        columns = empty_columns(self.length) | {"bid": places.astype(float)}
        return columns | {"kind": np.full(self.length, QUOTE), "flags": (places % 5 == 0).astype(np.uint8)}

    def __len__(self) -> int:
        return self.length

    @property
    def expected(self) -> list[float | None]:
        return [None if place % 5 == 0 else float(place) for place in range(self.sequence, self.sequence + self.length)]


BATCHES = st.builds(
    lambda sequence, length: Rows(sequence, min(length, CAPACITY - sequence % CAPACITY)),
    st.integers(0, 80),
    st.integers(1, CAPACITY),
)


@given(st.lists(BATCHES, max_size=30))
def test_a_batch_has_the_events_of_its_rows_whoever_came_before(batches: list[Rows]) -> None:
    rows = SharedRows(INSTRUMENTS, CAPACITY)
    for batch in batches:
        events: Any = rows.of(batch).events  # type: ignore[arg-type]
        assert [event and event.bid for event in events] == batch.expected


@given(st.lists(st.lists(st.integers(1, 6), min_size=20, max_size=20), min_size=1, max_size=4))
def test_rows_in_their_order_are_made_once(readers: list[list[int]]) -> None:
    """Strategies that follow the ring closely, in batches of their own lengths."""
    made: list[int] = []
    original = actor.events_by_row

    def counting(columns: Any, ids: Any) -> Any:
        made.extend(columns["bid"].astype(int).tolist())
        return original(columns, ids)

    actor.events_by_row = counting
    try:
        rows, places = SharedRows(INSTRUMENTS, CAPACITY), [0] * len(readers)
        for step in range(20):
            for reader, lengths in enumerate(readers):
                while places[reader] < 2 * step:
                    place = places[reader]
                    length = min(lengths[step], 2 * step - place, CAPACITY - place % CAPACITY)
                    assert len(rows.of(Rows(place, length)).events) == length  # type: ignore[arg-type]
                    places[reader] += length
    finally:
        actor.events_by_row = original
    assert made == list(range(38))
