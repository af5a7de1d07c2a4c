"""When instruments trade. The NYSE's own lists of holidays are the oracle."""

from datetime import UTC, date, datetime, timedelta

import pytest

from trio_nt.model.calendar import ALWAYS_OPEN, US_EQUITIES, Calendar, UsEquities

HOLIDAYS = {
    2021: "01-01 01-18 02-15 04-02 05-31 07-05 09-06 11-25 12-24",
    2022: "01-17 02-21 04-15 05-30 06-20 07-04 09-05 11-24 12-26",
    2023: "01-02 01-16 02-20 04-07 05-29 06-19 07-04 09-04 11-23 12-25",
    2024: "01-01 01-15 02-19 03-29 05-27 06-19 07-04 09-02 11-28 12-25",
    2025: "01-01 01-09 01-20 02-17 04-18 05-26 06-19 07-04 09-01 11-27 12-25",
    2026: "01-01 01-19 02-16 04-03 05-25 06-19 07-03 09-07 11-26 12-25",
    2027: "01-01 01-18 02-15 03-26 05-31 06-18 07-05 09-06 11-25 12-24",
}
EARLY_CLOSES = {
    2021: "11-26",
    2022: "11-25",
    2023: "07-03 11-24",
    2024: "07-03 11-29 12-24",
    2025: "07-03 11-28 12-24",
    2026: "11-27 12-24",
    2027: "11-26",
}


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp()) * 1_000_000_000


def days_of(year: int) -> list[date]:
    return [date(year, 1, 1) + timedelta(days=count) for count in range(365 + (year % 4 == 0))]


def open_at_noon(day: date) -> bool:
    """At 16:00 UTC: 11:00 or 12:00 in New York."""
    return US_EQUITIES.is_open(ns(f"{day}T16:00:00Z"))


def open_late(day: date) -> bool:
    """At 19:00 UTC: 14:00 or 15:00 in New York, after an early close."""
    return US_EQUITIES.is_open(ns(f"{day}T19:00:00Z"))


@pytest.mark.parametrize("year", HOLIDAYS)
def test_no_session_on_weekends_and_the_nyse_s_holidays(year: int) -> None:
    closed = [day for day in days_of(year) if day.weekday() < 5 and not open_at_noon(day)]
    assert " ".join(day.strftime("%m-%d") for day in closed) == HOLIDAYS[year]
    assert not any(open_at_noon(day) for day in days_of(year) if day.weekday() >= 5)


@pytest.mark.parametrize("year", EARLY_CLOSES)
def test_early_closes(year: int) -> None:
    early = [day for day in days_of(year) if open_at_noon(day) and not open_late(day)]
    assert " ".join(day.strftime("%m-%d") for day in early) == EARLY_CLOSES[year]


@pytest.mark.parametrize(
    ("first", "end"),
    [
        ("2024-01-02T14:30:00Z", "2024-01-02T21:00:00Z"),  # winter
        ("2024-07-02T13:30:00Z", "2024-07-02T20:00:00Z"),  # summer
        ("2024-03-11T13:30:00Z", "2024-03-11T20:00:00Z"),  # the first session after the clocks went forward
        ("2024-11-29T14:30:00Z", "2024-11-29T18:00:00Z"),  # the day after Thanksgiving
    ],
)
def test_a_session_holds_its_first_nanosecond_and_not_its_end(first: str, end: str) -> None:
    assert US_EQUITIES.is_open(ns(first))
    assert not US_EQUITIES.is_open(ns(first) - 1)
    assert US_EQUITIES.is_open(ns(end) - 1)
    assert not US_EQUITIES.is_open(ns(end))


@pytest.mark.parametrize(
    ("at", "day"),
    [
        ("2024-07-02T06:00:00Z", date(2024, 7, 2)),  # before the open
        ("2024-07-02T15:00:00Z", date(2024, 7, 2)),
        ("2024-07-02T20:00:00Z", date(2024, 7, 3)),  # the close
        ("2024-07-03T17:00:00Z", date(2024, 7, 5)),  # early close, then Independence Day
        ("2024-07-06T12:00:00Z", date(2024, 7, 8)),  # Saturday
        ("2024-01-03T02:00:00Z", date(2024, 1, 3)),  # still January 2 in New York, after its close
        ("2024-01-02T04:30:00Z", date(2024, 1, 2)),  # January 1 in New York: a holiday
    ],
)
def test_what_happens_after_the_close_belongs_to_the_next_session(at: str, day: date) -> None:
    assert US_EQUITIES.trading_day(ns(at)) == day


def test_days_closed_besides_the_rules() -> None:
    assert not open_at_noon(date(2012, 10, 29))
    assert open_at_noon(date(2012, 10, 31))


def test_always_open_has_utc_days() -> None:
    assert ALWAYS_OPEN.is_open(0)
    assert ALWAYS_OPEN.trading_day(ns("2024-07-06T23:59:59Z")) == date(2024, 7, 6)
    assert ALWAYS_OPEN.trading_day(ns("2024-07-07T00:00:00Z")) == date(2024, 7, 7)


def test_both_are_calendars_and_equal_by_value() -> None:
    assert isinstance(US_EQUITIES, Calendar)
    assert isinstance(ALWAYS_OPEN, Calendar)
    assert UsEquities() == US_EQUITIES
