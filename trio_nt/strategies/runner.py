"""Calls one strategy's handlers: a pure core without Trio, the same in replay and live.

Rules
- A block is a run of consecutive rows; a window of it, ``[start, stop)``, is what a strategy is given at once.
- ``on_market_data`` is given the window in one batch; the per-event handlers see its good rows one by one. A strategy
  that has both is given batches of one row, each followed by its event: a longer one would know its later events.
- Timers due by a row's time fire before that row. When ``window`` ends, every timer due by its last row has fired.
- Every action leaves with the time and the row that caused it, in the order in which the handlers returned it.
- An ``async`` handler makes the caller drive ``window`` as a generator: it yields what is to be awaited and is sent
  the answer. Plain handlers yield nothing.
"""

import inspect
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from itertools import repeat
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from trio_nt.features import FeatureSpec
from trio_nt.model.actions import Action, as_actions, stamped
from trio_nt.model.events import Filled, OrderEvent
from trio_nt.model.instruments import Instruments
from trio_nt.model.market import (
    BAR,
    QUOTE,
    TRADE,
    Bar,
    Column,
    Columns,
    MarketBatch,
    MarketEvent,
    Quote,
    Trade,
    events_by_row,
    read_only,
)
from trio_nt.model.memory import StrategyMemory
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.context import Desk, StrategyContext, Timers, feature_row_type
from trio_nt.strategies.requirements import find_instruments

Steps: TypeAlias = Generator[Awaitable[Any], Any, None]
Events: TypeAlias = list[MarketEvent | None]
_NO_FEATURES: tuple[Any, ...] = ()
_EVENT_TYPES: dict[int, type] = {QUOTE: Quote, TRADE: Trade, BAR: Bar}
BEFORE_ROWS = -1
_LONG = 32  # rows


class Caused(NamedTuple):
    """An action with its cause.

    ``row`` counts within the block; ``BEFORE_ROWS`` where a time caused it, not a row. ``at_ns`` is later than the
    row's time where a handler slept.
    """

    at_ns: int
    row: int
    action: Action


class Block:
    """Consecutive rows, with what all strategies share of them computed once and only when asked for."""

    __slots__ = ("_columns", "_events", "_make_events", "_read_only", "_times", "instruments")

    def __init__(
        self, columns: Columns, instruments: Instruments, make_events: Callable[[], Events] | None = None
    ) -> None:
        self._columns = columns
        self._read_only: Columns | None = None
        self.instruments = instruments
        self._make_events = make_events
        self._events: Events | None = None
        self._times: list[int] | None = None

    def __len__(self) -> int:
        return len(self._columns["kind"])

    @property
    def columns(self) -> Columns:
        """Read-only views."""
        if self._read_only is None:
            self._read_only = MappingProxyType({name: read_only(column) for name, column in self._columns.items()})
        return self._read_only

    def rows_of(self, instruments: Column, start: int, stop: int) -> list[int]:
        """Rows of ``[start, stop)`` whose instrument is True in ``instruments``, shape (instruments,)."""
        found: list[int] = (np.flatnonzero(instruments[self._columns["instrument"][start:stop]]) + start).tolist()
        return found

    @property
    def times(self) -> list[int]:
        """``ts_init`` of every row."""
        if self._times is None:
            self._times = self._columns["ts_init"].tolist()
        return self._times

    @property
    def events(self) -> Events:
        """The event of every row, None where it is flagged."""
        if self._events is None:
            made = self._make_events
            self._events = events_by_row(self._columns, self.instruments.ids) if made is None else made()
        return self._events


class StrategyRunner:
    """One strategy with its context, timers and features.

    ``row`` is the row of the block that the handler called last was called for, or ``BEFORE_ROWS``.

    Raises:
        TypeError: not a ``Strategy``; ``open_loop`` together with handlers of orders or fills.
        ValueError: a feature's name that is no identifier.
        KeyError: an instrument that the strategy names and the run does not have.
    """

    def __init__(
        self,
        strategy_id: str,
        strategy: Strategy,
        instruments: Instruments,
        desk: Desk,
        *,
        sleep: Callable[[int], Awaitable[None]] | None = None,
        memory: StrategyMemory | None = None,
    ) -> None:
        if not isinstance(strategy, Strategy):
            raise TypeError(f"a strategy must be an instance of Strategy, was {strategy!r}")
        self.strategy_id = strategy_id
        self.strategy = strategy
        self.open_loop = bool(strategy.open_loop)
        self.feature_specs: Mapping[str, FeatureSpec] = dict(strategy.features())
        self.rows_seen = 0
        self.signals = 0
        self.row = BEFORE_ROWS
        self._timers = Timers()
        self._event_handlers = self._find_event_handlers()
        self.reads_batches = self._overrides("on_market_data")
        self.hears_orders = self._overrides("on_order") or self._overrides("on_fill")
        self._instruments = instruments
        self._wanted = find_instruments(strategy, instruments)
        self._is_wanted: Column = np.zeros(0, np.bool_)  # the same by instrument index
        self._feature_row = feature_row_type(list(self.feature_specs))
        if self.open_loop and self.hears_orders:
            raise TypeError(
                f"strategy {strategy_id!r} has open_loop = True and handles orders or fills: it cannot do both"
            )
        self.is_async = any(
            inspect.iscoroutinefunction(getattr(strategy, name)) for name in dir(Strategy) if name.startswith("on_")
        )
        self.context = StrategyContext(
            strategy_id,
            instruments,
            desk,
            self._timers,
            open_loop=self.open_loop,
            sleep=sleep if self.is_async else None,
            memory=memory,
        )

    def _overrides(self, name: str) -> bool:
        return getattr(type(self.strategy), name) is not getattr(Strategy, name)

    def _find_event_handlers(self) -> dict[type, Callable[[Any, StrategyContext], Any]]:
        by_type: dict[type, str] = {Quote: "on_quote", Trade: "on_trade", Bar: "on_bar"}
        return {kind: getattr(self.strategy, name) for kind, name in by_type.items() if self._overrides(name)}

    def handler_of(self, kind: int, index: int) -> Callable[[Any, StrategyContext], Any] | None:
        """The per-event handler that wants good rows of a kind and an instrument, None where none does."""
        if self._wanted is not None and self._instruments[index].id not in self._wanted:
            return None
        return self._event_handlers.get(_EVENT_TYPES[kind])

    @property
    def timers_set(self) -> Sequence[tuple[Any, ...]]:
        """The timers that are set, the one that is due first at the front; the same object all the time."""
        return self._timers.heap

    @property
    def next_timer_ns(self) -> int | None:
        return self._timers.next_ns()

    def feature_rows(self, features: Mapping[str, Column], rows: int) -> Sequence[Any]:
        """One tuple of feature values per row, for ``window``. Empty where no per-event handler would read it."""
        if not self._event_handlers:
            return _NO_FEATURES
        if not self.feature_specs:
            return [self._feature_row()] * rows
        columns = [features[name].tolist() for name in self.feature_specs]
        return list(map(tuple.__new__, repeat(self._feature_row), zip(*columns, strict=True)))

    def window(
        self,
        block: Block,
        start: int,
        stop: int,
        features: Mapping[str, Column],
        feature_rows: Sequence[Any],
        out: list[Caused],
    ) -> Steps:
        """Show rows ``[start, stop)`` of a block, at least one, to the strategy; append what it does to ``out``."""
        self.rows_seen += stop - start
        if not self._event_handlers:
            if self.reads_batches:
                yield from self._batches(block, start, stop, features, out)
        elif not self.reads_batches:
            yield from self._events(block, start, stop, feature_rows, out)
        else:
            for row in range(start, stop):
                yield from self._batches(block, row, row + 1, features, out)
                yield from self._events(block, row, row + 1, feature_rows, out)
        yield from self.timers(block.times[stop - 1], BEFORE_ROWS, out)

    def _batches(self, block: Block, start: int, stop: int, features: Mapping[str, Column], out: list[Caused]) -> Steps:
        """The window in one batch, cut only where a timer known at a batch's start is due inside it."""
        times, context = block.times, self.context
        while start < stop:
            yield from self.timers(times[start], BEFORE_ROWS, out)
            timer = self._timers.next_ns()
            end = stop if timer is None else bisect_left(times, timer, start + 1, stop)
            context.now_ns, context.features = max(times[end - 1], context.now_ns), None
            columns: Columns = block.columns
            if end - start < len(block):
                columns = {name: column[start:end] for name, column in columns.items()}
            batch = MarketBatch(
                columns,
                block.instruments,
                {name: read_only(column[start:end]) for name, column in features.items()},
            )
            self.row = end - 1
            returned = self.strategy.on_market_data(batch, context)
            if self.is_async and inspect.isawaitable(returned):
                returned = yield returned
            if returned is not None:
                self._collect_batch(returned, times, start, end, out)
            start = end

    def _collect_batch(self, returned: object, times: list[int], start: int, end: int, out: list[Caused]) -> None:
        for action in as_actions(returned):
            row = end - start - 1 if action.row is None else action.row
            if not 0 <= row < end - start:
                raise ValueError(f"row must be an index into the batch of {end - start} rows, was {row}")
            self.signals += 1
            at_ns = times[start + row]
            if self.is_async and self.context.now_ns > times[end - 1]:
                at_ns = self.context.now_ns  # it slept
            out.append(Caused(at_ns, start + row, stamped(action, self.strategy_id, row)))

    def _events(self, block: Block, start: int, stop: int, feature_rows: Sequence[Any], out: list[Caused]) -> Steps:
        times, events, context, timers = block.times, block.events, self.context, self._timers
        handlers, wanted, is_async = self._event_handlers, self._wanted, self.is_async
        cause = BEFORE_ROWS
        try:
            for row in self._rows_wanted(block, start, stop):
                event = events[row]
                if event is None:
                    continue
                handler = handlers.get(event.__class__)
                if handler is None or (wanted is not None and event.instrument not in wanted):
                    continue
                now = times[row]
                if timers.heap and timers.heap[0].at_ns <= now:
                    cause = BEFORE_ROWS
                    yield from self.timers(now, BEFORE_ROWS, out)
                cause = row
                if now > context.now_ns:
                    context.now_ns = now
                context.features = feature_rows[row]
                returned = handler(event, context)
                if is_async and inspect.isawaitable(returned):
                    returned = yield returned
                if returned is not None:
                    self._collect(returned, context.now_ns, row, out)
        finally:
            self.row = cause

    def _rows_wanted(self, block: Block, start: int, stop: int) -> Sequence[int]:
        """Rows of a long window that may be wanted, every row of a short one: there a look at each costs less."""
        if self._wanted is None or stop - start < _LONG:
            return range(start, stop)
        instruments = self._instruments
        if len(self._is_wanted) < len(instruments):
            self._is_wanted = np.array([each.id in self._wanted for each in instruments], np.bool_)
        return block.rows_of(self._is_wanted, start, stop)

    def timers(self, now_ns: int, row: int, out: list[Caused]) -> Steps:
        """Fire every timer due by ``now_ns``, each at its own time; ``row`` is what their actions shall name."""
        while (due := self._timers.pop_due(now_ns)) is not None:
            at_ns, name = due
            # A handler that slept hears of what was due meanwhile when it wakes.
            self.context.now_ns = max(at_ns, self.context.now_ns)
            self.row = row
            yield from self._call(self.strategy.on_timer(name, self.context), row, out)

    def start(self, now_ns: int, out: list[Caused]) -> Steps:
        self.context.now_ns = now_ns
        yield from self._call(self.strategy.on_start(self.context), 0, out)

    def stop(self, now_ns: int, row: int, out: list[Caused]) -> Steps:
        self.context.now_ns = max(now_ns, self.context.now_ns)
        yield from self._call(self.strategy.on_stop(self.context), row, out)

    def order_event(self, event: OrderEvent, now_ns: int, row: int, out: list[Caused]) -> Steps:
        """Tell the strategy what happened to its order."""
        if self.open_loop:
            return
        self.context.now_ns = max(now_ns, self.context.now_ns)
        yield from self._call(self.strategy.on_order(event, self.context), row, out)
        if isinstance(event, Filled):
            yield from self._call(self.strategy.on_fill(event.fill, self.context), row, out)

    def _call(self, returned: Any, row: int, out: list[Caused]) -> Steps:
        if self.is_async and inspect.isawaitable(returned):
            returned = yield returned
        if returned is not None:
            self._collect(returned, self.context.now_ns, row, out)

    def _collect(self, returned: object, now_ns: int, row: int, out: list[Caused]) -> None:
        for action in as_actions(returned):
            self.signals += 1
            out.append(Caused(now_ns, row, stamped(action, self.strategy_id, row)))


def run_plain(steps: Steps) -> None:
    """Drive handlers that are not ``async``.

    Raises:
        TypeError: one of them returned something to be awaited after all.
    """
    for awaitable in steps:
        raise TypeError(f"a plain handler returned {awaitable!r}: declare it `async def`")
