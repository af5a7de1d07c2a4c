"""When an instrument trades. Times are integer UNIX nanoseconds."""

from datetime import UTC, date, datetime
from typing import Protocol, runtime_checkable

import attrs


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
        return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).date()


ALWAYS_OPEN = AlwaysOpen()
