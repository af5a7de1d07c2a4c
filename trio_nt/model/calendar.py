"""When an instrument trades. Times are integer UNIX nanoseconds."""

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Protocol, runtime_checkable

import attrs

_NS = 1_000_000_000
_MONDAY, _THURSDAY, _SATURDAY, _SUNDAY = 0, 3, 5, 6
_DAY = timedelta(days=1)


@runtime_checkable
class Calendar(Protocol):
    def is_open(self, at_ns: int) -> bool:
        """Whether orders can execute at this moment."""

    def trading_day(self, at_ns: int) -> date:
        """The day to which a moment's fills and limits belong."""


@attrs.frozen
class AlwaysOpen:
    """Trades around the clock; days are UTC days."""

    def is_open(self, at_ns: int) -> bool:
        return True

    def trading_day(self, at_ns: int) -> date:
        return datetime.fromtimestamp(at_ns // _NS, UTC).date()


ALWAYS_OPEN = AlwaysOpen()


@attrs.frozen
class UsEquities:
    """The regular session of US shares: 9:30 to 16:00 in New York, to 13:00 before some holidays.

    Holidays and early closes follow the NYSE's rules of today (Juneteenth since 2022); the days on which it stayed
    closed outside them since 2000 are listed. A moment after the close, or on a day without a session, belongs to the
    next session's day: what is sent then waits for it.
    """

    def is_open(self, at_ns: int) -> bool:
        session = _session(_new_york_date(at_ns))
        return session is not None and session[0] <= at_ns < session[1]

    def trading_day(self, at_ns: int) -> date:
        day = _new_york_date(at_ns)
        session = _session(day)
        while session is None or at_ns >= session[1]:
            day += _DAY
            session = _session(day)
        return day


US_EQUITIES = UsEquities()

# Mourning, attacks, storms: no rule gives them.
_CLOSED_BESIDES = frozenset(
    map(
        date.fromisoformat,
        (
            *("2001-09-11", "2001-09-12", "2001-09-13", "2001-09-14", "2004-06-11", "2007-01-02"),
            *("2012-10-29", "2012-10-30", "2018-12-05", "2025-01-09"),
        ),
    )
)


@lru_cache(maxsize=1)
def _new_york() -> tzinfo:
    from zoneinfo import ZoneInfo  # 5 ms that only these markets need

    return ZoneInfo("America/New_York")


@lru_cache(maxsize=64)
def _hour_date(hour: int) -> date:
    return datetime.fromtimestamp(hour * 3_600, _new_york()).date()


def _new_york_date(at_ns: int) -> date:
    # New York's midnights fall on full hours of UTC, so a date holds for a whole hour.
    return _hour_date(at_ns // (3_600 * _NS))


@lru_cache(maxsize=64)
def _session(day: date) -> tuple[int, int] | None:
    """Open and close of a day's regular session, UNIX ns; None if it has none."""
    if day.weekday() >= _SATURDAY or day in _holidays(day.year) or day in _CLOSED_BESIDES:
        return None
    close = time(13) if day in _early_closes(day.year) else time(16)
    first, last = (datetime.combine(day, at, _new_york()) for at in (time(9, 30), close))
    return int(first.timestamp()) * _NS, int(last.timestamp()) * _NS


@lru_cache(maxsize=64)
def _holidays(year: int) -> frozenset[date]:
    days = {
        # On a Saturday this is December 31, a day of the year before, and that year's list does not have it: the
        # exchange opens, to end the books of the old year.
        _observed(date(year, 1, 1)),
        _nth(year, 1, _MONDAY, 3),  # Martin Luther King Jr. Day
        _nth(year, 2, _MONDAY, 3),  # Washington's Birthday
        _easter(year) - 2 * _DAY,  # Good Friday
        _nth(year, 6, _MONDAY, 1) - 7 * _DAY,  # Memorial Day: the last Monday of May
        _observed(date(year, 7, 4)),
        _nth(year, 9, _MONDAY, 1),  # Labor Day
        _nth(year, 11, _THURSDAY, 4),  # Thanksgiving
        _observed(date(year, 12, 25)),
    }
    if year >= 2022:
        days.add(_observed(date(year, 6, 19)))
    return frozenset(days)


def _early_closes(year: int) -> tuple[date, ...]:
    """Days that close at 13:00 if they have a session: they have none where the holiday itself was moved."""
    return date(year, 7, 3), _nth(year, 11, _THURSDAY, 4) + _DAY, date(year, 12, 24)


def _nth(year: int, month: int, weekday: int, count: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (count - 1))


def _observed(day: date) -> date:
    """A holiday on a Saturday is kept on the Friday before, one on a Sunday on the Monday after."""
    return day + {_SATURDAY: -_DAY, _SUNDAY: _DAY}.get(day.weekday(), timedelta())


def _easter(year: int) -> date:
    """Easter Sunday of the Gregorian calendar (the anonymous computus)."""
    golden = year % 19
    century, rest = divmod(year, 100)
    leap, after = divmod(century, 4)
    correction = (century - (century + 8) // 25 + 1) // 3
    moon = (19 * golden + century - leap - correction + 15) % 30
    quarter, remainder = divmod(rest, 4)
    weekday = (32 + 2 * after + 2 * quarter - moon - remainder) % 7
    shift = (golden + 11 * moon + 22 * weekday) // 451
    month, day = divmod(moon + weekday - 7 * shift + 114, 31)
    return date(year, month, day + 1)
