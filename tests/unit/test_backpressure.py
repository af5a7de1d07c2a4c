"""The flow-control rules as a pure state machine, against the buffer they are about."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scheduler import Backpressure
from scheduler.backpressure import FlowControl


def test_the_defaults_are_the_seeds() -> None:
    settings = Backpressure()
    assert (settings.high_watermark, settings.low_watermark) == (0.8, 0.3)
    assert (settings.slow_down_factor, settings.send_timeout_s) == (0.5, 5.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low_watermark": 0.8}, "low_watermark must be below high_watermark"),
        ({"low_watermark": 0.9, "high_watermark": 0.4}, "low_watermark must be below high_watermark"),
        ({"high_watermark": 1.1}, "high_watermark must be between 0 and 1"),
        ({"low_watermark": -0.1}, "low_watermark must be between 0 and 1"),
        ({"low_watermark": float("nan")}, "low_watermark must be between 0 and 1"),
        ({"slow_down_factor": 0.0}, "slow_down_factor must be above 0"),
        ({"slow_down_factor": 1.5}, "slow_down_factor must be between 0 and 1"),
        ({"send_timeout_s": 0.0}, "send_timeout_s must be above 0"),
        ({"send_timeout_s": float("nan")}, "send_timeout_s must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Backpressure(**settings)


def test_without_settings_only_the_capacity_counts() -> None:
    flow = FlowControl(10, None)
    assert flow.admits_at(0, 0, 10) <= 0
    assert flow.admits_at(10, 0, 1) == 1
    assert flow.rate(10) == 1.0
    assert not flow.slowed


def test_a_slowed_flow_goes_at_the_factor_until_the_low_watermark() -> None:
    flow = FlowControl(10, Backpressure(high_watermark=0.8, low_watermark=0.2, slow_down_factor=0.5))
    assert flow.admits_at(7, 0, 1) <= 0
    assert flow.rate(8) == 1.0
    assert flow.admits_at(8, 0, 1) == 2, "one item for every two consumed"
    assert flow.rate(8) == 0.5
    assert flow.admits_at(8, 2, 1) <= 2
    flow.accepted(2)
    assert flow.admits_at(9, 2, 1) == 4
    assert flow.admits_at(9, 2, 4) == 7, "the low watermark frees it before 4 / 0.5 items are consumed"
    assert flow.rate(2) == 1.0
    assert flow.admits_at(9, 7, 6) <= 7
    assert not flow.slowed
    assert flow.slow_downs == 1


@given(capacity=st.integers(1, 40), count=st.integers(1, 40), watermark=st.floats(0.01, 1.0))
def test_any_send_that_fits_the_capacity_is_admitted_once_the_buffer_is_empty(
    capacity: int, count: int, watermark: float
) -> None:
    flow = FlowControl(capacity, Backpressure(high_watermark=watermark, low_watermark=watermark / 2))
    if count <= capacity:
        flow.admits_at(capacity, 0, count)
        assert flow.admits_at(capacity, capacity, count) <= capacity


class Flow(RuleBasedStateMachine):
    """A buffer whose producer obeys the answers and whose consumer takes what it likes."""

    @initialize(
        capacity=st.integers(1, 50),
        high=st.floats(0.05, 1.0),
        low_share=st.floats(0.0, 0.99),
        factor=st.floats(0.05, 1.0),
    )
    def open(self, capacity: int, high: float, low_share: float, factor: float) -> None:
        self.settings = Backpressure(high_watermark=high, low_watermark=high * low_share, slow_down_factor=factor)
        self.flow = FlowControl(capacity, self.settings)
        self.sent = self.taken = 0
        self.largest = 0
        self.slowed_at: int | None = None
        self.accepted_at = 0

    @rule(count=st.integers(1, 50))
    def send(self, count: int) -> None:
        if count > self.flow.capacity:
            return
        was_slowed, used = self.flow.slowed, self.sent - self.taken
        wanted = self.flow.admits_at(self.sent, self.taken, count)
        assert self.flow.admits_at(self.sent, self.taken, count) == wanted, "asking twice changes nothing"
        if was_slowed and not self.flow.slowed:
            assert used <= self.flow.low
        if self.flow.slowed and not was_slowed:
            assert used + count > self.flow.high
            self.accepted_at = self.taken
        if wanted > self.taken:
            assert self.flow.slowed, "what is held back makes the flow slowed"
            assert wanted <= self.sent, "an empty buffer always admits"
            return
        if self.flow.slowed and used > self.flow.low:
            consumed = self.taken - self.accepted_at
            assert count <= consumed * self.settings.slow_down_factor + 1e-6, "a slowed flow goes at the factor"
        self.flow.accepted(self.taken)
        self.accepted_at = self.taken
        self.largest = count if used == 0 else max(self.largest, 0)
        self.sent += count
        assert self.sent - self.taken <= max(self.flow.high, count if used == 0 else 0)

    @precondition(lambda self: self.sent > self.taken)
    @rule(share=st.floats(0.0, 1.0))
    def take(self, share: float) -> None:
        self.taken += max(1, round(share * (self.sent - self.taken)))

    @invariant()
    def the_rate_is_one_of_two(self) -> None:
        if hasattr(self, "flow"):
            assert self.flow.rate(self.sent - self.taken) in (1.0, self.settings.slow_down_factor)
            assert self.sent - self.taken <= max(self.flow.high, self.largest)


TestFlow = Flow.TestCase


@given(
    capacity=st.integers(10, 200),
    factor=st.floats(0.1, 0.9),
    takes=st.lists(st.integers(1, 5), min_size=50, max_size=200),
)
def test_it_does_not_flap(capacity: int, factor: float, takes: list[int]) -> None:
    """A greedy producer: between two slow-downs at least what lies between the watermarks is consumed."""
    flow = FlowControl(capacity, Backpressure(slow_down_factor=factor))
    sent = taken = 0
    slowed_when: list[int] = []
    for take in takes:
        while flow.admits_at(sent, taken, 1) <= taken:
            flow.accepted(taken)
            sent += 1
            assert sent - taken <= flow.high
        if not slowed_when or flow.slow_downs > len(slowed_when):
            slowed_when.append(taken)
        assert sent - taken >= min(flow.low, sent), "the consumer never runs dry"
        taken = min(taken + take, sent)
    assert all(later - earlier >= flow.high - flow.low for earlier, later in pairwise(slowed_when))
