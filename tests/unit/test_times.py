"""Times as text."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_nt.feeds.times import UNITS, TimeError, TimeReader

SECOND = 1_000_000_000
AT = int(datetime(2024, 8, 8, 23, 54, 14, tzinfo=UTC).timestamp())


def read(*texts: str, unit: str | None = None) -> list[int]:
    times: list[int] = TimeReader(unit).read(texts).tolist()
    return times


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_is_told_by_size_between_2000_and_2100(unit: str) -> None:
    for year in (2000, 2024, 2099):
        at = int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * SECOND
        reader = TimeReader()
        assert reader.read([str(at // UNITS[unit])]).tolist() == [at]
        assert "told from their size" in reader.assumption


@pytest.mark.parametrize("text", ["0", "5", "20240808", "17231612", "99999999999999999999", "-1723161254"])
def test_a_number_that_names_no_such_moment_needs_a_unit(text: str) -> None:
    with pytest.raises(TimeError, match="ambiguous"):
        read(text)


def test_a_stated_unit_takes_any_moment_and_assumes_nothing() -> None:
    reader = TimeReader("ms")
    assert reader.read(["5", "1723161254000"]).tolist() == [5_000_000, AT * SECOND]
    assert reader.assumption == ""


@pytest.mark.parametrize("later", [AT * 1000, 5_000_000_000])
def test_later_numbers_must_fit_the_unit_of_the_first(later: int) -> None:
    with pytest.raises(TimeError, match="cannot be in seconds") as caught:
        read(str(AT), str(later))
    assert caught.value.index == 1


def test_forms_are_not_mixed() -> None:
    with pytest.raises(TimeError, match="no number") as caught:
        read(str(AT), "2024-08-08")
    assert caught.value.index == 1
    with pytest.raises(TimeError, match="no ISO time"):
        read("2024-08-08", str(AT))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-08-08T23:54:14Z", AT * SECOND),
        ("2024-08-09 01:54:14+02:00", AT * SECOND),
        ("2024-08-08T23:54:14.087891268Z", AT * SECOND + 87_891_268),
        ("2024-08-08T23:54:14.0878912", AT * SECOND + 87_891_200),
        ("2024-08-08T23:54:14.5", AT * SECOND + SECOND // 2),
        (" 2024-08-08 ", AT // 86_400 * 86_400 * SECOND),
    ],
)
def test_iso_times(text: str, expected: int) -> None:
    assert read(text) == [expected]


def test_only_times_without_an_offset_are_taken_for_utc() -> None:
    naive, aware = TimeReader(), TimeReader()
    naive.read(["2024-08-08T23:54:14"])
    aware.read(["2024-08-08T23:54:14Z"])
    assert (naive.assumption, aware.assumption) == ("without an offset taken for UTC", "")


@pytest.mark.parametrize("text", ["", "now", "2024-13-01", "1960-01-01", "2300-01-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(TimeError):
        read("2024-01-01", text)


@given(
    unit=st.sampled_from(list(UNITS)),
    whole=st.integers(0, 4_000_000_000),
    decimals=st.text("0123456789", max_size=12),
)
def test_decimals_are_exact(unit: str, whole: int, decimals: str) -> None:
    text = f"{whole}.{decimals}"
    assert read(text, unit=unit) == [int(Decimal(text) * UNITS[unit])]
