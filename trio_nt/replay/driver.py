"""The order of everything in a replay: rows, reports, timers; strategies in order of registration. Pure.

Rules
- What happens next is what has the smallest key (``venue.py``): a report, a timer, or the next row.
- Rows are shown in windows. A window ends before the first row that its own consequences could have changed: at
  start + order latency + report latency, or at the next report, whichever comes first; it holds at least one row.
  So a batch strategy decides the same as one that is shown single rows. Timers cut a window for the strategy whose
  timers they are.
- A strategy with ``open_loop`` reads nothing that its actions change, and is shown whole blocks.
- Actions of a window reach risk by (time, row), then strategy, then position in what the handler returned.
- Nothing here knows wall-clock time, lanes or Trio. ``run`` is a generator only because a handler may be ``async``:
  it yields what must be awaited (``asynchronous.py`` does), and nothing where every handler is plain.
"""

import traceback
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import attrs
import numpy as np

from trio_nt.desk import Desk
from trio_nt.features.pipeline import FeaturePipeline
from trio_nt.model.actions import Cancel
from trio_nt.model.events import OrderEvent
from trio_nt.model.market import TRADE, Column, Columns
from trio_nt.replay.venue import (
    BEFORE_ROWS,
    BlockRows,
    CancelOrder,
    Instruction,
    Key,
    LocalNews,
    Place,
    ReplaceOrder,
    ReplayVenue,
    SubmitOrder,
)
from trio_nt.risk.core import Approved, ApprovedCancel, ApprovedOrder
from trio_nt.strategies.runner import Block, Caused, Steps, StrategyRunner

# Importing the compiler takes a second, in which as many rows go through the uncompiled kernels, with the same values.
COMPILE_AFTER_ROWS = 300_000
END_OF_TIME: Key = (2**62, 0, 0)
Run: TypeAlias = Generator["Handler | Wake", Any, None]
Call: TypeAlias = Callable[[list[Caused]], Steps]


class Handler(NamedTuple):
    """Yielded by ``run``: await a handler. The answer is what it returned, or ``Asleep``."""

    strategy_id: str
    awaitable: Awaitable[Any]


class Wake(NamedTuple):
    """Yielded by ``run``: let a sleeping handler go on. The answer is what it returned, or ``Asleep``."""

    strategy_id: str


class Asleep(NamedTuple):
    """Sent into ``run``: the handler sleeps until a market time."""

    until_ns: int


@attrs.define(eq=False)
class Seat:
    """One strategy's place in the replay. ``failure`` is its traceback once it has raised; it is then shown no more.

    While a handler sleeps, ``sleeping`` holds its suspended steps and ``backlog`` what the strategy is to hear next.
    """

    runner: StrategyRunner
    features: Mapping[str, Column] = attrs.field(factory=dict)
    feature_rows: Sequence[Any] = ()
    failure: str = ""
    wake_ns: int | None = None
    sleeping: "tuple[Steps, list[Caused]] | None" = None
    backlog: "deque[Call]" = attrs.field(factory=deque)


class ReplayDriver:
    """Drives strategies, desk and venue over blocks of rows.

    Args:
        raise_errors: let a strategy's exception end the replay instead of that strategy alone.
        single_rows: show every strategy one row at a time, whatever it promises.
    """

    def __init__(
        self,
        runners: Sequence[StrategyRunner],
        desk: Desk,
        venue: ReplayVenue,
        pipeline: FeaturePipeline,
        *,
        raise_errors: bool = False,
        single_rows: bool = False,
    ) -> None:
        self.desk = desk
        self.venue = venue
        self.rows = 0
        self.now_ns = 0
        self.last_prices: dict[int, float] = {}
        self.seats = [Seat(runner) for runner in runners]
        self._seat_by_id = {seat.runner.strategy_id: seat for seat in self.seats}
        self._turn = {seat.runner.strategy_id: turn for turn, seat in enumerate(self.seats)}
        self._open = [] if single_rows else [seat for seat in self.seats if seat.runner.open_loop]
        self._closed = [seat for seat in self.seats if single_rows or not seat.runner.open_loop]
        self._single_rows = single_rows
        self._decided: list[Caused] = []  # by open-loop strategies, for rows of the block that are not reached yet
        self._pipeline = pipeline
        self._compile_tried = False
        self._raise_errors = raise_errors
        self._rows: BlockRows
        self._priced: list[int] = []  # rows of the block that price an instrument
        self._priced_shown = 0

    # -- the run --

    def run(self, blocks: Iterable[Columns]) -> Run:
        """Drive everything to the end of the data."""
        started = False
        for columns in blocks:
            rows = BlockRows(Block(columns, self.desk.instruments), self.rows)
            if not len(rows):
                continue
            if started:
                yield from self._until((rows.times[0], rows.base, 0), len(self._rows))
            self._open_block(rows)
            if not started:
                started = True
                yield from self._call_all(lambda runner: partial(runner.start, self.now_ns), BEFORE_ROWS)
            yield from self._show_block()
        if started:
            yield from self._until(None, len(self._rows))
            last = len(self._rows) - 1
            yield from self._call_all(lambda runner: partial(runner.stop, self.now_ns, last), self.rows - 1)
            yield from self._until(None, len(self._rows))

    def _open_block(self, rows: BlockRows) -> None:
        if self.rows == 0:
            self.now_ns = rows.times[0]
        self.rows += len(rows)
        self.venue.open_block(rows)
        columns = rows.block.columns
        self._rows = rows
        self._priced = np.flatnonzero((columns["flags"] == 0) & (columns["kind"] != TRADE)).tolist()
        self._priced_shown = 0
        if self._pipeline.plan.requested and self.rows > COMPILE_AFTER_ROWS and not self._compile_tried:
            self._compile_tried = True
            self._pipeline.prepare()
        values = self._pipeline.compute(columns) if self._pipeline.plan.requested else None
        for seat in self.seats:
            runner = seat.runner
            if values is not None:
                seat.features = {name: values[spec] for name, spec in runner.feature_specs.items()}
            seat.feature_rows = runner.feature_rows(seat.features, len(rows))

    def _show_block(self) -> Run:
        rows = self._rows
        for seat in self._open:
            decided: list[Caused] = []
            yield from self._guard(seat, self._window(seat, 0, len(rows)), decided)
            self._decided += decided
        self._decided.sort(key=self._priority)
        start = 0
        while start < len(rows):
            yield from self._until((rows.times[start], rows.base + start, 0), start)
            stop = self._window_end(start)
            yield from self._show_window(start, stop)
            start = stop
        self._show_prices(len(rows))

    # -- rows --

    def _window_end(self, start: int) -> int:
        """The first row after ``start`` that a consequence of the window's rows could come before."""
        if self._single_rows:
            return start + 1
        rows, round_trip = self._rows, self.venue.round_trip_ns
        times, end = rows.times, len(rows)
        # The first row of the window with consequences: any, where a strategy reacts to what happens.
        cause = start if self._closed else self._decided[0].row if self._decided else end
        if cause < end:
            end = bisect_left(times, times[cause] + round_trip, cause + 1) if round_trip else cause + 1
        for seat in self._closed:
            if seat.wake_ns is not None:
                end = min(end, max(bisect_left(times, seat.wake_ns, start), start + 1))
        report = self.venue.next_report
        if report is not None:
            at_ns, after, _ = report
            before = bisect_left(times, at_ns, start) if after == BEFORE_ROWS else after - rows.base + 1
            end = min(end, max(before, start + 1))
        return end

    def _show_window(self, start: int, stop: int) -> Run:
        """Show a window to every closed-loop strategy, then have risk decide on what its rows caused."""
        out: list[Caused] = []
        for seat in self._closed:
            yield from self._guard(seat, self._window(seat, start, stop), out)
        if self._decided:
            ready = next((i for i, caused in enumerate(self._decided) if caused.row >= stop), len(self._decided))
            out += self._decided[:ready]
            del self._decided[:ready]
        self.now_ns = self._rows.times[stop - 1]
        if len(out) > 1:
            out.sort(key=self._priority)
        for caused in out:
            on_row = caused.at_ns == self._rows.times[caused.row]
            self._act(caused, Place(caused.at_ns, self._rows.base + caused.row if on_row else BEFORE_ROWS))

    def _window(self, seat: Seat, start: int, stop: int) -> Call:
        return partial(seat.runner.window, self._rows.block, start, stop, seat.features, seat.feature_rows)

    def _priority(self, caused: Caused) -> tuple[int, int, int]:
        return caused.at_ns, caused.row, self._turn[caused.action.strategy_id]

    # -- reports and timers --

    def _until(self, key: Key | None, row: int) -> Run:
        """Let everything happen that comes before ``key``, the key of row ``row`` (None: the end of the data)."""
        while True:
            timer = None if key is None else self._next_timer()
            floor = END_OF_TIME if key is None else key
            if timer is not None:
                floor = min(floor, (timer, BEFORE_ROWS, 0))
            self.venue.advance(floor)
            report = self.venue.next_report
            if report is not None and report < floor:
                yield from self._deliver(max(row - 1, 0))
            elif timer is None or floor == key:
                return
            else:
                yield from self._fire_timers(timer, max(row - 1, 0))

    def _next_timer(self) -> int | None:
        """The next time at which a strategy wants to be called, or a sleeping handler to go on."""
        times = (
            seat.runner.next_timer_ns if seat.sleeping is None else seat.wake_ns
            for seat in self.seats
            if not seat.failure
        )
        return min((at_ns for at_ns in times if at_ns is not None), default=None)

    def _deliver(self, last_row: int) -> Run:
        """Hear one report and tell the strategy whose order it is."""
        key, report = self.venue.pop_report()
        self.now_ns, place = key[0], Place(key[0], key[1])
        events: Sequence[OrderEvent]
        if isinstance(report, LocalNews):
            events = (report.event,)
        else:
            outcome = self.desk.hear(report.update, now_ns=key[0], mid=report.mid)
            self._send(outcome.approved, place)
            events = outcome.events
        out: list[Caused] = []
        for event in events:
            seat = self._seat_by_id.get(event.strategy_id)
            if seat is not None:
                yield from self._guard(seat, partial(seat.runner.order_event, event, self.now_ns, last_row), out)
        self._act_all(out, place)

    def _fire_timers(self, at_ns: int, last_row: int) -> Run:
        self.now_ns = at_ns
        out: list[Caused] = []
        for seat in self.seats:
            if seat.wake_ns is not None and seat.wake_ns <= at_ns:
                yield from self._wake(seat, out)
            yield from self._guard(seat, partial(seat.runner.timers, at_ns, last_row), out)
        self._act_all(out, Place(at_ns, BEFORE_ROWS))

    def _call_all(self, call: Callable[[StrategyRunner], Call], after_row: int) -> Run:
        out: list[Caused] = []
        for seat in self.seats:
            yield from self._guard(seat, call(seat.runner), out)
        self._act_all(out, Place(self.now_ns, after_row))

    # -- actions --

    def _act_all(self, out: list[Caused], place: Place) -> None:
        for caused in out:
            self._act(caused, place if caused.at_ns == place.at_ns else Place(caused.at_ns, BEFORE_ROWS))

    def _act(self, caused: Caused, place: Place) -> None:
        """Have risk decide on one action and send what it approves."""
        self._show_prices(
            caused.row + 1 if place.row >= self._rows.base else bisect_left(self._rows.times, place.at_ns)
        )
        outcome = self.desk.decide(caused.action, now_ns=caused.at_ns, ts_signal=caused.at_ns)
        self._send(outcome.approved, place)
        for event in outcome.events:
            self.venue.tell_later(event, place)

    def _send(self, approved: Iterable[Approved], place: Place) -> None:
        for decision in approved:
            order = decision.order
            if isinstance(decision, ApprovedOrder):
                self.desk.orders.mark_sent(order)
                instruction: Instruction = SubmitOrder(order.request())
            elif isinstance(decision, ApprovedCancel):
                self.desk.orders.mark_pending_cancel(order)
                instruction = CancelOrder(order.client_order_id)
            else:
                self.desk.orders.mark_pending_replace(order, decision.quantity, decision.limit_price)
                instruction = ReplaceOrder(order.client_order_id, decision.quantity, decision.limit_price)
            self.venue.send(instruction, place)

    def _show_prices(self, stop: int) -> None:
        """Give risk the last good price of each instrument before row ``stop`` of the block."""
        shown = self._priced_shown
        end = bisect_left(self._priced, stop, shown)
        if end == shown:
            return
        rows, columns = self._rows, self._rows.block.columns
        latest = {rows.instrument[row]: row for row in self._priced[shown:end]}
        low, high = ("close", "close") if rows.is_bars else ("bid", "ask")
        for index, row in latest.items():
            bid, ask = float(columns[low][row]), float(columns[high][row])
            self.desk.risk.set_quote(index, bid, ask, rows.times[row])
            self.last_prices[index] = (bid + ask) / 2
        self._priced_shown = end

    # -- handlers: failing, sleeping --

    def _guard(self, seat: Seat, call: Call, out: list[Caused]) -> Run:
        """Call one strategy's handlers, after what it still has to hear. What it raises ends it, not the replay."""
        if seat.failure:
            return
        if seat.sleeping is not None:
            seat.backlog.append(call)
            return
        yield from self._advance_handlers(seat, call(out), out, None)

    def _wake(self, seat: Seat, out: list[Caused]) -> Run:
        """Let a sleeping handler go on, then have the strategy hear what came meanwhile, until it sleeps again."""
        assert seat.sleeping is not None
        steps, late = seat.sleeping
        seat.runner.context.now_ns = self.now_ns
        seat.sleeping = seat.wake_ns = None
        late.clear()
        yield from self._advance_handlers(seat, steps, late, Wake(seat.runner.strategy_id))
        out += late
        while seat.backlog and seat.sleeping is None and not seat.failure:
            yield from self._guard(seat, seat.backlog.popleft(), out)

    def _advance_handlers(self, seat: Seat, steps: Steps, out: list[Caused], wake: Wake | None) -> Run:
        strategy_id = seat.runner.strategy_id
        try:
            request: Handler | Wake = wake if wake is not None else Handler(strategy_id, next(steps))
            while True:
                answer = yield request
                if isinstance(answer, Asleep):
                    seat.sleeping, seat.wake_ns = (steps, out), answer.until_ns
                    return
                request = Handler(strategy_id, steps.send(answer))
        except StopIteration:
            return
        except Exception as error:
            if self._raise_errors:
                raise
            seat.failure = "".join(traceback.format_exception(error))
            self._withdraw(strategy_id)

    def _withdraw(self, strategy_id: str) -> None:
        """Cancel what a failed strategy has working."""
        for order in self.desk.orders.working(strategy_id=strategy_id):
            cancel = Cancel(order.client_order_id, strategy_id=strategy_id)
            place = Place(self.now_ns, BEFORE_ROWS)
            self._send(self.desk.decide(cancel, now_ns=self.now_ns, ts_signal=self.now_ns).approved, place)
