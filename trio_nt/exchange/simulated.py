"""A broker over a venue in the same process: for embedding and for tests.

It sees the market that the engine sees (``observe``) and matches against the quote in force. Of what a venue beyond
a network adds, latency and unknown outcomes, it has nothing.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal

import attrs
import numpy as np
import trio

from trio_nt.errors import ExecutionError, OrderRejected
from trio_nt.exchange.book import VenueOrder
from trio_nt.exchange.fees import FeesLike
from trio_nt.exchange.matching import Exchange
from trio_nt.model.broker import Account, BrokerOrder
from trio_nt.model.instruments import Instruments
from trio_nt.model.market import QUOTE, TRADE, Columns
from trio_nt.model.money import Number
from trio_nt.model.orders import BrokerUpdate, OrderRequest, UpdateKind

UPDATE_CAPACITY = 100_000


def as_cash(cash: "Number | Mapping[str, Number]") -> Mapping[str, Number]:
    """A plain number is US dollars."""
    return cash if isinstance(cash, Mapping) else {"USD": cash}


def show_rows(exchange: Exchange, columns: Columns) -> list[BrokerUpdate]:
    """Show a block of market rows to a matching core: what it did, in order. Rows with bad data are left out.

    Rows of instruments without working orders cost nothing each; of these the last quote alone is kept.
    """
    instrument, kind = columns["instrument"], columns["kind"]
    if not len(kind):
        return []
    if "open" in columns:
        return _show_bars(exchange, columns)
    good = columns["flags"] == 0
    wanted = exchange.is_working(instrument) & good
    quotes = np.flatnonzero((kind == QUOTE) & good)
    if len(quotes):
        _, last = np.unique(instrument[quotes][::-1], return_index=True)
        wanted[quotes[len(quotes) - 1 - last]] = True
    rows = np.flatnonzero(wanted)
    updates: list[BrokerUpdate] = []
    names = ("kind", "instrument", "bid", "ask", "bid_size", "ask_size", "price", "size", "ts_init")
    for row_kind, index, bid, ask, bid_size, ask_size, price, size, ts in zip(
        *(columns[name][rows].tolist() for name in names), strict=True
    ):
        if row_kind == QUOTE:
            updates += exchange.quote(index, bid, ask, bid_size, ask_size, ts)
        elif row_kind == TRADE:
            updates += exchange.trade(index, price, size, ts)
    return updates


def _show_bars(exchange: Exchange, columns: Columns) -> list[BrokerUpdate]:
    rows = np.flatnonzero(exchange.is_working(columns["instrument"]) & (columns["flags"] == 0))
    updates: list[BrokerUpdate] = []
    names = ("instrument", "open", "high", "low", "close", "ts_init")
    for values in zip(*(columns[name][rows].tolist() for name in names), strict=True):
        updates += exchange.bar(*values)
    return updates


def broker_order(order: VenueOrder) -> BrokerOrder:
    request = order.request
    return BrokerOrder(
        client_order_id=request.client_order_id,
        broker_order_id=order.broker_order_id,
        instrument=request.instrument,
        state=order.state,
        quantity=request.quantity,
        filled_quantity=order.filled_quantity,
        request=request,
    )


class _Updates:
    """One listener's updates. Bounded: a listener that falls too far behind has its stream broken, never thinned."""

    def __init__(self) -> None:
        self._pending: list[BrokerUpdate] = []
        self._arrived = trio.Event()
        self._state = "open"

    def put(self, updates: Sequence[BrokerUpdate]) -> None:
        if self._state == "open":
            if len(self._pending) + len(updates) > UPDATE_CAPACITY:
                self._state = "broken"
                self._pending.clear()
            else:
                self._pending += updates
            self._arrived.set()

    def end(self) -> None:
        self._state = "ended"
        self._arrived.set()

    async def receive(self) -> Sequence[BrokerUpdate]:
        """All updates that are there, at least one. Cancelled, it has taken none.

        Raises:
            trio.EndOfChannel: the stream has ended.
            trio.BrokenResourceError: more updates waited than the stream holds.
        """
        await trio.lowlevel.checkpoint()
        while not self._pending:
            if self._state == "broken":
                raise trio.BrokenResourceError("the listener fell behind; look orders and fills up instead")
            if self._state == "ended":
                raise trio.EndOfChannel
            self._arrived = trio.Event()
            await self._arrived.wait()
        taken, self._pending = self._pending, []
        return taken


class SimulatedBroker:
    """A ``Broker`` over a venue in this process.

    ``cash`` is an amount of US dollars, or amounts by currency. ``fees`` replaces the instruments' own (see ``Fees``).
    The engine binds it to its instruments and shows it the market; by itself, call ``bind`` and ``observe``.
    """

    def __init__(self, cash: "Number | Mapping[str, Number]" = 100_000, *, fees: FeesLike = None) -> None:
        self._cash = as_cash(cash)
        self._fees = fees
        self._exchange: Exchange | None = None
        self._now_ns: Callable[[], int] | None = None
        self._market_ns = 0
        self._listeners: list[_Updates] = []

    def bind(self, instruments: Instruments, *, now_ns: Callable[[], int] | None = None) -> None:
        """Open the venue for these instruments. Without a clock its time is that of the last row it was shown.

        Raises:
            RuntimeError: it is bound already; a venue serves one engine.
        """
        if self._exchange is not None:
            raise RuntimeError("this SimulatedBroker is in use by an engine already; give each engine its own")
        self._now_ns = now_ns
        self._exchange = Exchange(instruments, cash=self._cash, match_on_arrival=True, fees=self._fees)

    @property
    def exchange(self) -> Exchange:
        """The venue's book and ledger, to look at."""
        if self._exchange is None:
            raise ExecutionError("the simulated broker has no instruments yet: bind() it first")
        return self._exchange

    def observe(self, columns: Columns) -> None:
        """Take market rows, in order. Orders that they fill are told to the listeners. Never waits."""
        updates = show_rows(self.exchange, columns)
        if len(columns["ts_init"]):
            self._market_ns = int(columns["ts_init"][-1])
        self._tell(updates)

    async def submit(self, request: OrderRequest) -> BrokerOrder:
        await trio.lowlevel.checkpoint()
        first, *others = self._accepted(self.exchange.submit(request, self._time()))
        # It says what the order is: whoever did not send it takes it in by that.
        self._tell([attrs.evolve(first, request=request), *others])
        return broker_order(self.exchange.orders[request.client_order_id])

    async def replace(
        self, client_order_id: str, *, quantity: Decimal | None = None, limit_price: Decimal | None = None
    ) -> BrokerOrder:
        await trio.lowlevel.checkpoint()
        now_ns = self._time()
        updates = self.exchange.replace(client_order_id, quantity=quantity, limit_price=limit_price, now_ns=now_ns)
        self._tell(self._accepted(updates))
        return broker_order(self.exchange.orders[client_order_id])

    async def cancel(self, client_order_id: str) -> None:
        await trio.lowlevel.checkpoint()
        self._tell(self._accepted(self.exchange.cancel(client_order_id, self._time())))

    async def find(self, client_order_id: str) -> BrokerOrder | None:
        await trio.lowlevel.checkpoint()
        order = self.exchange.orders.get(client_order_id)
        return None if order is None else broker_order(order)

    async def open_orders(self) -> Sequence[BrokerOrder]:
        await trio.lowlevel.checkpoint()
        return [broker_order(order) for order in self.exchange.working_orders()]

    async def fills_since(self, ts_event: int) -> Sequence[BrokerUpdate]:
        await trio.lowlevel.checkpoint()
        return self.exchange.fills_since(ts_event)

    async def positions(self) -> Mapping[str, Decimal]:
        await trio.lowlevel.checkpoint()
        return {key: position.quantity for key, position in self.exchange.ledger.positions.items()}

    async def account(self) -> Account:
        await trio.lowlevel.checkpoint()
        return Account(dict(self.exchange.ledger.cash))

    @asynccontextmanager
    async def updates(self) -> AsyncIterator[_Updates]:
        """Everything that happens to orders from here on."""
        listener = _Updates()
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)
            listener.end()

    def _time(self) -> int:
        return self._market_ns if self._now_ns is None else self._now_ns()

    def _tell(self, updates: Sequence[BrokerUpdate]) -> None:
        if updates:
            for listener in self._listeners:
                listener.put(updates)

    def _accepted(self, updates: list[BrokerUpdate]) -> list[BrokerUpdate]:
        """The updates of a request that took effect; what went before its refusal is told all the same."""
        last = updates[-1]
        if last.kind in (UpdateKind.REJECTED, UpdateKind.CANCEL_REJECTED, UpdateKind.REPLACE_REJECTED):
            self._tell(updates[:-1])
            raise OrderRejected(last.reason)
        return updates
