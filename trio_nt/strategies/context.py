"""What a strategy sees beside the rows: its features of this row, its positions and orders, time, timers."""

import heapq
import logging
from collections import namedtuple
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from trio_nt.errors import OpenLoopError
from trio_nt.model.instruments import InstrumentKey, Instruments
from trio_nt.model.memory import StrategyMemory
from trio_nt.model.orders import Order
from trio_nt.portfolio import PortfolioState
from trio_nt.strategies.memory import EpisodeMemory


class Desk(Protocol):
    """What the engine knows of one strategy's trading, as far as the strategy has been told."""

    def position(self, strategy_id: str, instrument_id: str) -> Decimal: ...
    def working_orders(self, strategy_id: str, instrument_id: str | None) -> Sequence[Order]: ...
    def portfolio(self) -> PortfolioState: ...


class _Timer(NamedTuple):
    at_ns: int
    order: int  # set first, fires first
    name: str
    every_ns: int  # 0: once


class Timers:
    """One strategy's timers in market time, earliest first; equal times in the order in which they were set."""

    __slots__ = ("_set", "heap")

    def __init__(self) -> None:
        self.heap: list[_Timer] = []  # to look at; `set` and `pop_due` change it
        self._set = 0

    def set(self, name: str, at_ns: int, every_ns: int = 0) -> None:
        self._set += 1
        heapq.heappush(self.heap, _Timer(at_ns, self._set, name, every_ns))

    def next_ns(self) -> int | None:
        return self.heap[0].at_ns if self.heap else None

    def pop_due(self, now_ns: int) -> tuple[int, str] | None:
        """Time and name of the earliest timer due by ``now_ns``; a repeating one is set again."""
        if not self.heap or self.heap[0].at_ns > now_ns:
            return None
        timer = heapq.heappop(self.heap)
        if timer.every_ns:
            self.set(timer.name, timer.at_ns + timer.every_ns, timer.every_ns)
        return timer.at_ns, timer.name


def feature_row_type(names: Sequence[str]) -> "type[Any]":
    """A tuple type with one attribute per feature: reading one costs what reading a slot costs.

    Raises:
        ValueError: a name that is no identifier, or starts with an underscore.
    """
    for name in names:
        if not name.isidentifier() or name.startswith("_"):
            raise ValueError(f"the name of a feature must be an identifier without leading underscore, was {name!r}")
    return namedtuple("Features", names)


class StrategyContext:
    """Handed to every handler of one strategy. Valid while the strategy runs.

    ``features``: this row's features by the names of ``Strategy.features()``; NaN during warm-up. In
    ``on_market_data`` features are columns of the batch instead (``batch["name"]``).
    ``memory``: episodes that this strategy stores and recalls, see ``StrategyMemory``; empty at the start of a replay.
    """

    __slots__ = (
        "_desk",
        "_open_loop",
        "_sleep",
        "_timers",
        "features",
        "instruments",
        "log",
        "memory",
        "now_ns",
        "strategy_id",
    )

    def __init__(
        self,
        strategy_id: str,
        instruments: Instruments,
        desk: Desk,
        timers: Timers,
        *,
        open_loop: bool = False,
        sleep: Callable[[int], Awaitable[None]] | None = None,
        memory: StrategyMemory | None = None,
    ) -> None:
        self.strategy_id = strategy_id
        self.instruments = instruments
        self.features: Any = None
        self.memory: StrategyMemory = EpisodeMemory() if memory is None else memory
        self.now_ns = 0
        self.log = logging.getLogger(f"trio_nt.strategy.{strategy_id}")
        self._desk = desk
        self._timers = timers
        self._open_loop = open_loop
        self._sleep = sleep

    def position(self, instrument: InstrumentKey) -> Decimal:
        """This strategy's signed position, from the fills it has been told of."""
        self._refuse_in_open_loop("position")
        return self._desk.position(self.strategy_id, self.instruments[instrument].id)

    def orders(self, instrument: InstrumentKey | None = None) -> Sequence[Order]:
        """This strategy's working orders that the venue has acknowledged, oldest first.

        An order on its way is not among them yet; ``target`` counts it all the same.
        """
        self._refuse_in_open_loop("orders")
        instrument_id = None if instrument is None else self.instruments[instrument].id
        return self._desk.working_orders(self.strategy_id, instrument_id)

    @property
    def portfolio(self) -> PortfolioState:
        """The account as last booked, all strategies together."""
        self._refuse_in_open_loop("portfolio")
        return self._desk.portfolio()

    def set_timer(self, name: str, *, at_ns: int | None = None, every_ns: int | None = None) -> None:
        """Have ``on_timer(name)`` called at ``at_ns`` (UNIX ns, market time), or every ``every_ns`` from now on.

        A time that has passed is due one nanosecond from now, so that a timer never fires in the moment it was set.
        Both together: first at ``at_ns``, then every ``every_ns``.

        Raises:
            ValueError: neither is given, or ``every_ns`` is not above 0.
        """
        if at_ns is None and every_ns is None:
            raise ValueError("set_timer needs at_ns or every_ns")
        if every_ns is not None and every_ns <= 0:
            raise ValueError(f"every_ns must be above 0, was {every_ns}")
        first = self.now_ns + (every_ns or 0) if at_ns is None else at_ns
        self._timers.set(name, max(int(first), self.now_ns + 1), int(every_ns or 0))

    async def sleep(self, seconds: float) -> None:
        """Wait in market time, in an ``async`` handler, at least one nanosecond. A checkpoint.

        This strategy's next events wait meanwhile. A replay that ends first cancels the wait.

        Raises:
            ValueError: ``seconds`` is negative.
            RuntimeError: called from a plain handler's context.
        """
        if seconds < 0:
            raise ValueError(f"seconds must not be negative, was {seconds}")
        if self._sleep is None:
            raise RuntimeError("sleep needs async handlers: write `async def` and await it")
        await self._sleep(self.now_ns + max(1, round(seconds * 1e9)))

    def _refuse_in_open_loop(self, what: str) -> None:
        if self._open_loop:
            raise OpenLoopError(
                f"strategy {self.strategy_id!r} has open_loop = True and read {what}: remove open_loop, "
                "or decide from market data alone"
            )
