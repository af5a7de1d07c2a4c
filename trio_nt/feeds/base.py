"""What the engine asks of a live feed, what a feed may ask of the engine, and what replay asks of a file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import trio
from numpy.typing import ArrayLike

from trio_nt.feeds.statistics import FileStatistics
from trio_nt.model.instruments import Instrument, InstrumentKey, Instruments
from trio_nt.model.market import Columns

InstrumentKeys: TypeAlias = "InstrumentKey | Sequence[InstrumentKey] | np.ndarray[Any, Any]"


class MarketSender(Protocol):
    """Where a feed puts market events: the engine's ring.

    Each call sends one block of rows; every argument is a scalar (the same for all rows) or an array of shape (n,).
    ``instrument`` takes ids, unambiguous symbols or indices; times are integer UNIX ns. ``ts_event`` is 0 where the
    exchange states no time; ``ts_init=None`` means: received now, by the engine's clock. Rows that hold NaN, negative
    or crossed values are flagged, never refused.

    Every call waits while the ring is full, and is a checkpoint then and when the task's step budget is used up: a feed
    that awaits nothing else must checkpoint by itself. Cancelled, it has sent all of the block or nothing.

    Raises:
        KeyError: an unknown instrument.
        ValueError: arrays of different lengths.
    """

    @property
    def instruments(self) -> Instruments:
        """The engine's instruments: what ``instrument`` may name."""

    async def quotes(
        self,
        *,
        instrument: InstrumentKeys,
        ts_event: ArrayLike,
        bid: ArrayLike,
        ask: ArrayLike,
        bid_size: ArrayLike,
        ask_size: ArrayLike,
        ts_init: ArrayLike | None = None,
    ) -> None: ...

    async def trades(
        self,
        *,
        instrument: InstrumentKeys,
        ts_event: ArrayLike,
        price: ArrayLike,
        size: ArrayLike,
        aggressor: ArrayLike = 0,
        ts_init: ArrayLike | None = None,
    ) -> None: ...

    async def bars(
        self,
        *,
        instrument: InstrumentKeys,
        ts_event: ArrayLike,
        open: ArrayLike,
        high: ArrayLike,
        low: ArrayLike,
        close: ArrayLike,
        volume: ArrayLike,
        ts_init: ArrayLike | None = None,
    ) -> None: ...

    async def rows(self, columns: Columns) -> None:
        """Quotes and trades mixed, in order: columns as ``MARKET_FIELDS`` has them, shape (n,), n at least 1, without
        ``sequence`` and ``flags`` and, to be stamped now, without ``ts_init``. ``instrument`` holds indices.
        """


class Feed(Protocol):
    """A source of live market data.

    A feed may announce, as an attribute ``kinds``, which kinds of rows it sends: numbers among QUOTE, TRADE and BAR.
    Where every feed of an engine does, a strategy with a feature of another kind is refused when it is added.

    ``run`` calls ``task_status.started()`` once it is connected and subscribed, then sends until it is cancelled. It
    returns only when the source has ended for good; a broken connection is the feed's own affair (it reconnects, or
    raises ``FeedError``).
    """

    async def run(
        self, send: MarketSender, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None: ...


class Source(Protocol):
    """One recorded file: pieces of columns in its own order, and what it knows of its instruments.

    In pieces the column ``instrument`` is an index into ``symbols``, which grows while pieces are read.
    """

    statistics: FileStatistics
    symbols: dict[str, int]  # symbol as written → index, in order of first appearance
    first_lines: list[int]  # by that index: the line where the symbol appears first
    assumptions: list[str]  # what was taken for granted of the file itself; complete with the first piece
    kinds: frozenset[int]  # of rows that it can hold, as far as its form tells; complete with the first piece

    @property
    def path(self) -> Path | str: ...

    def pieces(self) -> Iterator[Columns]:
        """Read from the beginning: columns of one layout without ``sequence``, ``ts_init`` never decreasing."""

    def again(self) -> "Source":
        """The same source with nothing read."""

    def instrument_id(self, symbol: str) -> str:
        """The id under which an instrument of this source is described."""

    def infer(self, symbol: str, parts: Sequence[Columns]) -> tuple[Instrument, str]:
        """An instrument from its first rows, and what it was taken for."""
