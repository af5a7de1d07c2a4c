"""The order of everything in a replay: rows, reports, timers; strategies in order of registration. Pure.

Rules
- What happens next is what has the smallest key (``rows.py``): a report, a timer, or the next row.
- Rows are shown in windows. A window ends before the first row that its own consequences could have changed: at
  start + order latency + report latency, or at the next report, whichever comes first; it holds at least one row.
  So a batch strategy decides the same as one that is shown single rows.
- Where closed-loop strategies have plain per-event handlers alone, rows pass one by one, until something happens
  (``events.py``): then no window is shorter than it must be.
- A strategy with ``open_loop`` reads nothing that its actions change. It is shown whole blocks, ahead of the others;
  what it wants is decided in its turn all the same.
- Where a closed-loop strategy has ``async`` handlers every window is one row: a handler may sleep on any of them.
- Actions reach risk by (time, row), then strategy, then position in what the handler returned.
- Nothing here knows wall-clock time, lanes or Trio; ``seats.py`` says why ``run`` is a generator.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

from trio_nt.desk import Desk
from trio_nt.features.pipeline import FeaturePipeline, compiler_is_loaded
from trio_nt.model.actions import Action, Cancel
from trio_nt.model.events import OrderEvent
from trio_nt.model.market import Columns
from trio_nt.replay.events import EventLoop
from trio_nt.replay.prices import ReferencePrices
from trio_nt.replay.rows import BEFORE_ROWS, END_OF_TIME, BlockRows, Key, Place, numbered
from trio_nt.replay.seats import Call, Run, Seat
from trio_nt.replay.venue import CancelOrder, Instruction, LocalNews, ReplaceOrder, ReplayVenue, SubmitOrder
from trio_nt.risk.core import Approved, ApprovedCancel, ApprovedOrder
from trio_nt.strategies.runner import StrategyRunner

# Importing the compiler takes a second, in which as many rows go through the uncompiled kernels, with the same values.
COMPILE_AFTER_ROWS = 300_000


CallOf: TypeAlias = Callable[[Seat], Call]


class Move(NamedTuple):
    """An action of a strategy at its place; ``action=None`` withdraws what a strategy that failed there has working.

    Moves sort by their first three fields; those of one strategy at one place keep their order.
    """

    at_ns: int
    row: int  # run-wide, or BEFORE_ROWS
    turn: int
    action: Action | None


class ReplayDriver:
    """Drives strategies, desk and venue over blocks of rows.

    ``actions`` keeps, where ``keep_actions`` is set, every action up to the end of the data with its time, in the order
    in which risk had them.

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
        keep_actions: bool = False,
    ) -> None:
        self.desk = desk
        self.venue = venue
        self.rows = 0
        self.prices = ReferencePrices(len(desk.instruments), desk.risk.set_quote)
        self.seats = [Seat(runner, turn, raise_errors=raise_errors) for turn, runner in enumerate(runners)]
        self.actions: list[tuple[int, Action]] = []
        self._keep_actions = keep_actions
        self._seat_by_id = {seat.runner.strategy_id: seat for seat in self.seats}
        # An async handler may sleep in the middle of a block, and what it does then belongs to a later time.
        self._ahead = [seat for seat in self.seats if seat.runner.open_loop and not seat.runner.is_async]
        if single_rows:
            self._ahead = []
        self._closed = [seat for seat in self.seats if seat not in self._ahead]
        self._single_rows = single_rows or any(seat.runner.is_async for seat in self._closed)
        serves = not single_rows and all(map(EventLoop.serves, self._closed))
        self._events = EventLoop(self._closed, len(desk.instruments)) if self._closed and serves else None
        self._timers = [seat.runner.timers_set for seat in self.seats]
        self._may_sleep = any(seat.runner.is_async for seat in self.seats)
        self._decided: deque[Move] = deque()  # of strategies that are ahead, for places that are not reached yet
        self._pipeline = pipeline
        self._compile_tried = False
        self._now_ns = 0
        self._rows: BlockRows

    # -- the run --

    def run(self, blocks: Iterable[Columns]) -> Run:
        """Drive everything to the end of the data."""
        started = False
        for rows, end in numbered(blocks, self.desk.instruments):
            self._open_block(rows, end)
            if not started:
                started = True
                self._now_ns = rows.times[0]
                yield from self._call_all(lambda seat: partial(seat.runner.start, self._now_ns))
            yield from self._show_block()
            yield from self._until(end)
        if started:
            self.prices.show_rest()
            self._keep_actions = False
            yield from self._call_all(lambda seat: partial(seat.runner.stop, self._now_ns, BEFORE_ROWS))
            yield from self._until(END_OF_TIME)

    def _open_block(self, rows: BlockRows, end: Key) -> None:
        columns = rows.block.columns
        self._rows = rows
        self.rows += len(rows)
        self.venue.open_block(rows, end)
        self.prices.open_block(rows)
        worth_it = self.rows > COMPILE_AFTER_ROWS or compiler_is_loaded()
        if self._pipeline.plan.requested and worth_it and not self._compile_tried:
            self._compile_tried = True
            self._pipeline.prepare()
        values = self._pipeline.compute(columns) if self._pipeline.plan.requested else None
        for seat in self.seats:
            runner = seat.runner
            if values is not None:
                seat.features = {name: values[spec] for name, spec in runner.feature_specs.items()}
            seat.feature_rows = runner.feature_rows(seat.features, len(rows))

    def _show_block(self) -> Run:
        rows, moves = self._rows, list[Move]()
        for seat in self._ahead:
            yield from self._hear(seat, self._window(seat, 0, len(rows)), moves)
        self._decided.extend(sorted(moves, key=_priority))
        if self._events is not None:
            self._events.open_block(rows)
            while self._events.row < len(rows):
                yield from self._until(rows.key(self._events.row))
                self._show_events(self._events)
            return
        start = 0 if self._closed else len(rows)
        while start < len(rows):
            yield from self._until(rows.key(start))
            stop = self._window_end(start)
            yield from self._show_window(start, stop)
            start = stop

    # -- rows --

    def _window(self, seat: Seat, start: int, stop: int) -> Call:
        return partial(seat.runner.window, self._rows.block, start, stop, seat.features, seat.feature_rows)

    def _window_end(self, start: int) -> int:
        """The first row after ``start`` that a consequence of the rows from ``start`` on could come before."""
        times, round_trip = self._rows.times, self.venue.round_trip_ns
        if self._single_rows or not round_trip:
            return start + 1
        end = bisect_left(times, times[start] + round_trip, start + 1)
        report = self.venue.next_report  # all that could come before `end` are known: see `ReplayVenue.advance`
        return end if report is None else min(end, self._rows.before(report))

    def _show_window(self, start: int, stop: int) -> Run:
        """Show a window to every closed-loop strategy, then have risk decide on what its rows caused."""
        moves: list[Move] = []
        for seat in self._closed:
            yield from self._hear(seat, self._window(seat, start, stop), moves)
        self._act_on_rows(moves, stop)

    def _act_on_rows(self, moves: list[Move], stop: int) -> None:
        """Have risk decide on what the rows before ``stop`` caused, and on what was decided ahead for them."""
        self._now_ns, row, _ = self._rows.key(stop - 1)
        while self._decided and self._decided[0][:2] <= (self._now_ns, row):
            moves.append(self._decided.popleft())
        self._act_all(moves)

    def _show_events(self, events: EventLoop) -> None:
        """Show rows one by one until something happens that strategies could hear of."""
        times, base = self._rows.times, self._rows.base
        stop, happened = events.show(self._quiet_until(events.row), self.venue.round_trip_ns)
        self._act_on_rows([Move(times[row], base + row, seat.turn, action) for row, seat, action in happened], stop)

    def _quiet_until(self, start: int) -> int:
        """The first row after ``start`` that news or a timer could come before, if no strategy acts until then."""
        rows, times = self._rows, self._rows.times
        stop, news = len(rows), self.venue.earliest_report(start)
        if news is not None:
            stop = min(stop, max(rows.before(news), start + 1))
        if self._decided:
            stop = min(stop, bisect_left(times, self._decided[0].at_ns + self.venue.round_trip_ns, start + 1))
        timer = self._next_call()
        return stop if timer is None else min(stop, bisect_left(times, timer, start + 1))

    # -- reports, timers, and what was decided ahead --

    def _until(self, key: Key) -> Run:
        """Let everything happen that comes before ``key``. At the end of time no timer fires any more."""
        while True:
            floor = key
            if self._decided:
                decided = self._decided[0]
                if (decided.at_ns, decided.row, 0) < floor:
                    floor = decided.at_ns, decided.row, 0
            timer = None if key == END_OF_TIME else self._next_call()
            if timer is not None:
                floor = min(floor, (timer, BEFORE_ROWS, 0))
            self.venue.advance(floor)
            report = self.venue.next_report
            if report is not None and report < floor:
                yield from self._deliver()
            elif floor == key:
                return
            else:
                yield from self._reach(Place(*floor[:2]))

    def _next_call(self) -> int | None:
        if not self._may_sleep and not any(self._timers):
            return None
        times = [at_ns for seat in self.seats if (at_ns := seat.next_call_ns) is not None]
        return min(times, default=None)

    def _deliver(self) -> Run:
        """Hear one report and tell the strategy whose order it is."""
        (at_ns, row, _), report = self.venue.pop_report()
        self._now_ns, place = at_ns, Place(at_ns, row)
        events: Sequence[OrderEvent]
        if isinstance(report, LocalNews):
            events = (report.event,)
        else:
            outcome = self.desk.hear(report.update, now_ns=at_ns, mid=report.mid)
            if outcome.approved:
                self._send(outcome.approved, place)
            events = outcome.events
        moves: list[Move] = []
        for event in events:
            seat = self._seat_by_id.get(event.strategy_id)
            if seat is not None and seat.runner.hears_orders:
                yield from self._hear(seat, partial(seat.runner.order_event, event, at_ns, BEFORE_ROWS), moves, place)
        if moves:
            self._act_all(moves)

    def _reach(self, place: Place) -> Run:
        """Fire the timers and wake the sleepers of a time, and act on what was decided ahead for this place."""
        at_ns, row = place
        self._now_ns = at_ns
        moves: list[Move] = []
        while self._decided and self._decided[0][:2] == place:
            moves.append(self._decided.popleft())
        if row == BEFORE_ROWS:
            for seat in self.seats:
                if seat.is_asleep and seat.next_call_ns == at_ns:
                    yield from self._take(seat, seat.wake(at_ns), moves, place)
                if seat.next_call_ns is not None and not seat.is_asleep:
                    yield from self._hear(seat, partial(seat.runner.timers, at_ns, BEFORE_ROWS), moves, place)
        self._act_all(moves)

    def _call_all(self, call_of: CallOf) -> Run:
        moves: list[Move] = []
        for seat in self.seats:
            yield from self._hear(seat, call_of(seat), moves, Place(self._now_ns, BEFORE_ROWS))
        self._act_all(moves)

    def _hear(self, seat: Seat, call: Call, moves: list[Move], place: Place | None = None) -> Run:
        yield from self._take(seat, seat.hear(call), moves, place)

    def _take(self, seat: Seat, run: Run, moves: list[Move], place: Place | None = None) -> Run:
        """Add what a strategy causes to ``moves``; ``place`` is its cause where that is no row of a window."""
        yield from run
        caused, failed = seat.take()
        moves += [Move(at_ns, self._row_of(at_ns, row, place), seat.turn, action) for at_ns, row, action in caused]
        if failed:
            at_ns = seat.runner.context.now_ns
            moves.append(Move(at_ns, self._row_of(at_ns, seat.runner.row, place), seat.turn, None))

    def _row_of(self, at_ns: int, row: int, place: Place | None) -> int:
        if place is not None:
            return place.row if at_ns == place.at_ns else BEFORE_ROWS
        # A handler that slept acts later than the row that it was called for.
        on_row = row != BEFORE_ROWS and self._rows.times[row] == at_ns
        return self._rows.base + row if on_row else BEFORE_ROWS

    # -- actions --

    def _act_all(self, moves: list[Move]) -> None:
        """Have risk decide on actions in their order, and send what it approves."""
        if len(moves) > 1:
            moves.sort(key=_priority)
        for at_ns, row, turn, action in moves:
            place = Place(at_ns, row)
            self.prices.show(self._rows.before((at_ns, row, 1)))
            if action is not None:
                self._act(action, place)
                continue
            for order in self.desk.orders.working(strategy_id=self.seats[turn].runner.strategy_id):
                self._act(Cancel(order.client_order_id, strategy_id=order.strategy_id), place)

    def _act(self, action: Action, place: Place) -> None:
        if self._keep_actions:
            self.actions.append((place.at_ns, action))
        outcome = self.desk.decide(action, now_ns=place.at_ns, ts_signal=place.at_ns)
        self._send(outcome.approved, place)
        for event in outcome.events:
            self.venue.send(LocalNews(event), place)

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


def _priority(move: Move) -> tuple[int, int, int]:
    return move[:3]
