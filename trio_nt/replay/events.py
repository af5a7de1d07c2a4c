"""Rows shown one by one to strategies that have plain per-event handlers and nothing else. Pure.

Rules
- Rows pass one after the other, and each is shown to every strategy in turn: no strategy is ahead of another.
- Showing goes on for as long as nothing can have changed what a strategy may read: to a row that the caller names, to
  the next timer, and, from the first action (or failure) on, to the first row that its consequences could come before.
- So a window needs no length decided in advance, and strategies see the same as if they were shown single rows.

What a row costs is one step of the loop and one call for each handler that wants it: which those are is looked up in a
table by instrument and kind.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from trio_nt.model.actions import Action, as_actions, stamped
from trio_nt.model.market import BAR, QUOTE, TRADE, MarketEvent
from trio_nt.replay.rows import BlockRows
from trio_nt.replay.seats import Seat
from trio_nt.strategies.context import StrategyContext

_STRIDE = 4  # the kinds, and 0 for a flagged row


class Happened(NamedTuple):
    """An action of a strategy at a row of the block; ``action=None``: it failed there."""

    row: int
    seat: Seat
    action: Action | None


class _Listener(NamedTuple):
    """One handler of one strategy."""

    seat: Seat
    handler: Callable[[Any, StrategyContext], Any]
    context: StrategyContext
    features: Sequence[Any] | None  # by row; None without any: the context holds the empty ones
    timers: Sequence[tuple[Any, ...]]  # a heap; the first item's first is its time


class EventLoop:
    """Shows rows to ``seats``, in their order. One object serves one replay. ``row`` is the next to be shown."""

    def __init__(self, seats: Sequence[Seat], instruments: int) -> None:
        self.row = 0
        self._first = 0  # of the rows that are being shown
        self._seats = list(seats)
        self._instruments = instruments
        self._rows: BlockRows
        self._table: list[tuple[_Listener, ...]] = []
        self._steps: Iterator[tuple[int, int, MarketEvent, int]] = iter(())

    @staticmethod
    def serves(seat: Seat) -> bool:
        """Whether a strategy can be shown rows this way."""
        return not (seat.runner.is_async or seat.runner.reads_batches)

    def open_block(self, rows: BlockRows) -> None:
        """Go on to the next block; its features are in the seats."""
        self._rows, self.row = rows, 0
        self._make_table()
        columns = rows.block.columns
        keys = columns["instrument"] * _STRIDE + columns["kind"] * (columns["flags"] == 0)
        events: Sequence[Any] = rows.block.events
        self._steps = zip(range(len(rows)), keys.tolist(), events, rows.times, strict=True)

    def _make_table(self) -> None:
        """Who wants rows of an instrument and a kind. Strategies that have failed want none."""
        self._table = [()] * (_STRIDE * self._instruments)
        seats = [seat for seat in self._seats if not seat.failure]
        for index in range(self._instruments):
            for kind in (QUOTE, TRADE, BAR):
                listeners = [
                    _listener(seat, handler) for seat in seats if (handler := seat.runner.handler_of(kind, index))
                ]
                self._table[_STRIDE * index + kind] = tuple(listeners)

    def show(self, stop: int, round_trip_ns: int) -> tuple[int, list[Happened]]:
        """Show rows from ``row`` on, at least one and at most those before ``stop``.

        Returns:
            The row before which showing ended; and what happened, in order.
        """
        happened: list[Happened] = []
        self._first = self.row
        times = self._rows.times
        while self.row < stop:
            self.row = self._show_until_something(self.row, stop, happened)
            if happened:
                first = happened[0].row
                stop = min(stop, bisect_left(times, times[first] + round_trip_ns, first + 1))
            timers = [due for seat in self._seats if (due := seat.next_call_ns) is not None]
            if timers:
                stop = min(stop, bisect_left(times, min(timers), self.row))
        for seat in self._seats:
            if not seat.failure:
                seat.runner.rows_seen += self.row - self._first
        return self.row, happened

    def _show_until_something(self, start: int, stop: int, happened: list[Happened]) -> int:
        """Show rows until something happened on one, or a timer before ``stop`` was set there; the row after it."""
        table, last_ns, is_over = self._table, self._rows.times[stop - 1], False
        for row, key, event, now in islice(self._steps, stop - start):
            for seat, handler, context, features, timers in table[key]:
                context.now_ns = now
                if features is not None:
                    context.features = features[row]
                try:
                    returned = handler(event, context)
                    if returned is not None:
                        for action in as_actions(returned):
                            seat.runner.signals += 1
                            happened.append(Happened(row, seat, stamped(action, seat.runner.strategy_id, row)))
                            is_over = True
                except Exception as error:  # noqa: BLE001 - what a strategy raises ends that strategy
                    seat.runner.rows_seen += row + 1 - self._first
                    seat.fail(error)
                    happened.append(Happened(row, seat, None))
                    self._make_table()
                    is_over = True
                if timers and timers[0][0] <= last_ns:
                    is_over = True
            if is_over:
                return row + 1
        return stop


def _listener(seat: Seat, handler: Callable[[Any, StrategyContext], Any]) -> _Listener:
    runner = seat.runner
    features = seat.feature_rows if runner.feature_specs else None
    if features is None:
        runner.context.features = seat.feature_rows[0]
    return _Listener(seat, handler, runner.context, features, runner.timers_set)
