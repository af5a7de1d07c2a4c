"""When a strategy is restarted, and what follows when it overruns its step budget."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler import TaskPriority
from trio_nt.strategies.supervision import (
    FloodPolicy,
    Floods,
    OverrunPolicy,
    Overruns,
    RestartPolicy,
    Restarts,
    Supervision,
)

MS = 1_000_000


def waits(policy: RestartPolicy, *ends: tuple[float, bool]) -> list[float | None]:
    restarts = Restarts(policy)
    return [restarts.wait_s(ran_s=ran_s, is_quarantine=quarantined) for ran_s, quarantined in ends]


def test_never_means_never() -> None:
    assert waits(RestartPolicy(), (0, False), (1e9, True)) == [None, None]


def test_on_failure_waits_twice_as_long_each_time_up_to_its_limit() -> None:
    policy = RestartPolicy(when="on-failure", limit=4, backoff_s=1, max_backoff_s=5)
    assert waits(policy, *[(0, False)] * 5) == [1, 2, 4, 5, None]
    assert waits(policy, (0, True)) == [None]


def test_who_ran_long_enough_begins_to_count_anew() -> None:
    policy = RestartPolicy(when="on-failure", limit=2, backoff_s=1, healthy_after_s=10)
    assert waits(policy, (0, False), (9.9, False), (10, False), (0, False), (0, False)) == [1, 2, 1, 2, None]


def test_always_has_no_limit_and_restarts_after_quarantine_too() -> None:
    policy = RestartPolicy(when="always", limit=0, backoff_s=1, max_backoff_s=8)
    found = waits(policy, *[(0, number % 2 == 0) for number in range(2_000)])
    assert found == [1, 2, 4] + [8] * 1_997


@given(
    ends=st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=30),
    limit=st.integers(0, 5),
    when=st.sampled_from(["never", "on-failure", "always"]),
)
def test_restarts_in_a_row_are_bounded(ends: list[tuple[float, bool]], limit: int, when: str) -> None:
    policy = RestartPolicy(when=when, limit=limit, healthy_after_s=50, max_backoff_s=7)
    restarts, in_a_row, count = Restarts(policy), 0, 0
    for ran_s, quarantined in ends:
        in_a_row = 0 if ran_s >= 50 else in_a_row
        wait_s = restarts.wait_s(ran_s=ran_s, is_quarantine=quarantined)
        expected = when == "always" or (when == "on-failure" and not quarantined and in_a_row < limit)
        assert (wait_s is not None) == expected
        if wait_s is not None:
            assert wait_s == min(2.0**in_a_row, 7)
            in_a_row, count = in_a_row + 1, count + 1
    assert restarts.count == count


def test_a_step_overruns_when_its_rows_cost_more_than_the_budget_each() -> None:
    overruns = Overruns(OverrunPolicy(warn_after=1), 0.001)
    assert overruns.measured(1, MS) == []
    assert overruns.measured(16, 16 * MS) == []  # long, but a shorter batch would have helped
    assert overruns.measured(1, MS + 1) == ["warn"]
    assert overruns.measured(16, 17 * MS) == []  # once
    assert (overruns.count, overruns.slowest_ns) == (2, 17 * MS)


def test_consequences_come_in_their_order_and_once_in_a_life() -> None:
    overruns = Overruns(OverrunPolicy(warn_after=2, demote_after=3, quarantine_after=5), 0.001)
    assert [overruns.measured(1, 2 * MS) for _ in range(6)] == [[], ["warn"], ["demote"], [], ["quarantine"], []]
    overruns.forgive()
    assert [overruns.measured(1, 2 * MS) for _ in range(3)] == [[], ["warn"], ["demote"]]
    assert overruns.count == 9


def test_now_and_then_is_not_again_and_again() -> None:
    overruns = Overruns(OverrunPolicy(warn_after=3), 0.001)
    for _ in range(1_000):  # one step in eleven
        assert overruns.measured(1, 50 * MS) == []
        for _ in range(10):
            assert overruns.measured(1, MS // 2) == []
    assert overruns.count == 1_000
    assert overruns.strikes < 1.5


def test_no_policy_no_consequence() -> None:
    overruns = Overruns(OverrunPolicy(warn_after=None, demote_after=None), 0.001)
    assert [overruns.measured(1, 50 * MS) for _ in range(1_000)] == [[]] * 1_000


def test_a_text_stands_for_the_policy_with_that_name() -> None:
    supervision = Supervision(restart="on-failure", lane=2)  # type: ignore[arg-type]
    assert supervision.restart == RestartPolicy(when="on-failure")
    assert supervision.lane is TaskPriority.MEDIUM


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"restart": "sometimes"}, "'when' must be in"),
        ({"restart": 5}, "restart must be a RestartPolicy or one of never, on-failure, always, was 5"),
        ({"on_failure": "sell"}, "'on_failure' must be in"),
        ({"lane": 9}, "9 is not a valid TaskPriority"),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Supervision(**wrong)


def test_so_many_refusals_within_one_second_are_a_flood() -> None:
    floods = Floods(FloodPolicy(warn_after=1, demote_after=3, quarantine_after=4))
    assert [floods.refused(at) for at in (0, 500 * MS, 999 * MS)] == [["warn"], [], ["demote"]]
    assert floods.refused(1_000 * MS) == []  # another second
    assert [floods.refused(1_001 * MS) for _ in range(3)] == [[], [], ["quarantine"]]
    assert (floods.count, floods.in_a_second) == (7, 4)
    floods.forgive()
    assert floods.refused(1_002 * MS) == ["warn"]
    assert floods.in_a_second == 1


def test_a_clock_that_steps_back_begins_another_second() -> None:
    floods = Floods(FloodPolicy(warn_after=2, demote_after=None, quarantine_after=None))
    assert [floods.refused(at) for at in (5_000 * MS, 4_000 * MS, 4_999 * MS)] == [[], [], ["warn"]]


def test_refusals_now_and_then_are_no_flood() -> None:
    floods = Floods(FloodPolicy(warn_after=None))
    assert [floods.refused(number * 20 * MS) for number in range(10_000)] == [[]] * 10_000
    assert floods.count == 10_000
