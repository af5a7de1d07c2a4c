"""What was found in recorded data: counted, never dropped in silence."""

import numpy as np
from attrs import define, field

from trio_nt.model.market import FLAG_NAMES, Column, Columns

BAD_LINES_SHOWN = 5


@define
class FileStatistics:
    """Counts of one source; they grow while it is read and are complete when its last block was given.

    Attributes:
        messages: messages by kind as the source names it (``bookTicker``, ``trade``, ``depth``…), good ones only.
        rows: market events among them, flagged ones included.
        bad_lines: lines that could not be understood; ``bad_line_examples`` holds the first few as (line, why).
        flagged: rows that carry bad data, by reason; one row may have several reasons.
        ts_event_absent: rows for which the exchange states no time.
        ts_event_backwards: rows whose exchange time is before the previous one's of this source.
        ts_event_ahead: rows whose exchange time is after their receipt (the clocks differ).
        ts_init_lifted: rows received before the previous one by their stamp, replayed at the previous stamp.
    """

    path: str
    format: str = ""
    lines: int = 0
    rows: int = 0
    messages: dict[str, int] = field(factory=dict)
    bad_lines: int = 0
    bad_line_examples: list[tuple[int, str]] = field(factory=list)
    flagged: dict[str, int] = field(factory=dict)
    ts_event_absent: int = 0
    ts_event_backwards: int = 0
    ts_event_ahead: int = 0
    ts_init_lifted: int = 0
    first_ts_init: int = 0
    last_ts_init: int = 0
    _last_ts_event: int = 0

    def count(self, kind: str, messages: int) -> None:
        if messages:
            self.messages[kind] = self.messages.get(kind, 0) + messages

    def count_bad_line(self, line: int, why: str) -> None:
        self.bad_lines += 1
        self.bad_line_examples.append((line, why))
        self.bad_line_examples.sort()
        del self.bad_line_examples[BAD_LINES_SHOWN:]

    def never_decreasing(self, stamps: Column) -> Column:
        """``stamps`` with each one lifted to the highest before it (this source's earlier rows included)."""
        lifted = np.maximum.accumulate(np.maximum(stamps, self.last_ts_init))
        self.ts_init_lifted += int(np.count_nonzero(lifted != stamps))
        return lifted

    def count_rows(self, columns: Columns) -> None:
        """Take account of a piece's rows; pieces come in order."""
        ts_init, ts_event, flags = columns["ts_init"], columns["ts_event"], columns["flags"]
        if not self.rows:
            self.first_ts_init = int(ts_init[0])
        self.rows += len(ts_init)
        self.last_ts_init = int(ts_init[-1])
        for bit, name in FLAG_NAMES.items():
            if found := int(np.count_nonzero(flags & bit)):
                self.flagged[name] = self.flagged.get(name, 0) + found
        stated = ts_event[ts_event != 0]
        self.ts_event_absent += len(ts_event) - len(stated)
        self.ts_event_ahead += int(np.count_nonzero(ts_event > ts_init))
        if len(stated):
            self.ts_event_backwards += int(np.count_nonzero(np.diff(stated, prepend=self._last_ts_event) < 0))
            self._last_ts_event = int(stated[-1])


@define
class DataStatistics:
    """Counts of all sources of a replay, in the order in which they were named."""

    files: list[FileStatistics] = field(factory=list)

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def messages(self) -> dict[str, int]:
        """Messages by kind, all sources together."""
        return _added([file.messages for file in self.files])

    @property
    def bad_lines(self) -> int:
        return sum(file.bad_lines for file in self.files)

    @property
    def flagged(self) -> dict[str, int]:
        return _added([file.flagged for file in self.files])


def _added(counts: list[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in counts:
        for name, number in part.items():
            total[name] = total.get(name, 0) + number
    return total
