"""Times as text → UNIX ns. Exact: no float in between.

Numbers are UNIX times in s, ms, µs or ns, decimals allowed. Without a stated unit the first one's size tells it, if it
names a moment from 2000 to 2099; the four ranges do not touch. Everything else is ISO 8601, in UTC where it has no
offset, with up to nine decimals of a second.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from trio_nt.model.market import Column

UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_YEAR_2000, _YEAR_2100 = 946_684_800 * UNITS["s"], 4_102_444_800 * UNITS["s"]
_END = 1 << 63
_NUMBER = re.compile(r"([+-]?\d+)(?:\.(\d*))?")
_BEYOND_MICROSECONDS = re.compile(r"[.,]\d{6}(\d+)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class TimeError(ValueError):
    """The text at ``index`` is no time; the message says why."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(why)
        self.index = index


class TimeReader:
    """Reads a column of times, all written in the form of the first one.

    Attributes:
        assumption: what was taken for granted, to be put after "times"; "" if nothing was.
    """

    def __init__(self, unit: str | None = None) -> None:
        self._unit = unit
        self._guessed = False
        self._numeric: bool | None = None
        self.assumption = ""

    def read(self, texts: Sequence[str]) -> Column:
        """UNIX ns of every text, shape (len(texts),), int64. ``TimeError`` names the first that is none."""
        if self._numeric is None and texts:
            self._tell_form(texts[0])
        return self._numbers(texts) if self._numeric else self._iso_times(texts)

    def _tell_form(self, first: str) -> None:
        self._numeric = _NUMBER.fullmatch(first.strip()) is not None
        if not self._numeric:
            if _iso(0, first)[1]:
                self.assumption = "without an offset taken for UTC"
        elif self._unit is None:
            whole = int(_numeric_parts(0, first)[0])
            fitting = [unit for unit, factor in UNITS.items() if _YEAR_2000 <= whole * factor < _YEAR_2100]
            if not fitting:
                raise TimeError(
                    0, f"the unit of the time {first!r} is ambiguous; state it: s, ms, us or ns (--time-unit)"
                )
            self._unit, self._guessed = fitting[0], True
            self.assumption = f"taken for UNIX {_UNIT_NAMES[self._unit]}, told from their size"

    def _numbers(self, texts: Sequence[str]) -> Column:
        assert self._unit is not None
        factor = UNITS[self._unit]
        try:
            times = [int(text) * factor for text in texts]
        except ValueError:
            times = [_scaled(index, text, factor) for index, text in enumerate(texts)]
        first, last = (_YEAR_2000, _YEAR_2100) if self._guessed else (0, _END)
        if min(times) < first or max(times) >= last:
            index = next(index for index, time in enumerate(times) if not first <= time < last)
            raise TimeError(index, f"the time {texts[index]!r} cannot be in {_UNIT_NAMES[self._unit]}")
        return np.array(times, np.int64)

    def _iso_times(self, texts: Sequence[str]) -> Column:
        times = [_iso(index, text)[0] for index, text in enumerate(texts)]
        if min(times) < 0 or max(times) >= _END:
            index = next(index for index, time in enumerate(times) if not 0 <= time < _END)
            raise TimeError(index, f"the time {texts[index]!r} is before 1970 or after 2262")
        return np.array(times, np.int64)


def _numeric_parts(index: int, text: str) -> tuple[str, str]:
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise TimeError(index, f"{text!r} is no number, as the times above are")
    return match[1], match[2] or ""


def _scaled(index: int, text: str, factor: int) -> int:
    whole, decimals = _numeric_parts(index, text)
    part = int(decimals or 0) * factor // int(10 ** len(decimals))
    return int(whole) * factor + (-part if whole.startswith("-") else part)


def _iso(index: int, text: str) -> tuple[int, bool]:
    """UNIX ns, and whether the text has no offset."""
    text = text.strip()
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise TimeError(index, f"{text!r} is no ISO time, e.g. 2024-08-08T23:54:14.087Z") from None
    naive = time.tzinfo is None
    if naive:
        time = time.replace(tzinfo=UTC)
    nanoseconds = (time - _EPOCH) // _MICROSECOND * 1_000
    beyond = _BEYOND_MICROSECONDS.search(text)  # datetime drops what is below a microsecond
    if beyond is not None:
        nanoseconds += int(beyond[1][:3].ljust(3, "0"))
    return nanoseconds, naive
