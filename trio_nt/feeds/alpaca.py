"""Live market data in Alpaca's dialect: a chunk from the socket becomes one batch of rows.

The same feed serves the simulated venue, and paper and live accounts. Trades carry no aggressor in this dialect.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
import msgspec
import numpy as np
import trio

from trio_nt.alpaca import (
    AUTH_FAILED,
    INVALID_SYNTAX,
    SYMBOL_LIMIT,
    ErrorMessage,
    MarketMessage,
    QuoteMessage,
    SubscriptionMessage,
    SuccessMessage,
    TradeMessage,
    decode_market,
    parse_time,
)
from trio_nt.errors import FeedError
from trio_nt.feeds.base import MarketSender
from trio_nt.model.instruments import Instruments
from trio_nt.model.market import MARKET_FIELDS, QUOTE, TRADE, Column

if TYPE_CHECKING:  # imported when it is used: a replay needs no network
    from trio_nt.websocket import WebSocket

_INTEGERS = ("kind", "instrument", "ts_event")
_FLOATS = ("bid", "ask", "bid_size", "ask_size", "price", "size")
_NAN = float("nan")
_FIRST_DELAY_S, _LAST_DELAY_S = 0.1, 5.0


@attrs.frozen
class Session:
    """One connection: the venue's name for it, where it has one, and how many events came over it.

    ``events_sent`` is what the venue said it had sent when this side unsubscribed; None if it did not say.
    """

    name: str
    events_received: int
    events_sent: int | None = None


@attrs.frozen
class AlpacaFeedStatistics:
    sessions: tuple[Session, ...]
    reconnects: int
    events_unknown: int
    """Events of instruments that the engine does not know: counted and left out."""

    @property
    def events_received(self) -> int:
        return sum(session.events_received for session in self.sessions)


class RowDecoder:
    """Messages to columns. Pure; ``instruments`` are the engine's."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self._index_by_symbol: dict[str, int] = {}
        self._time_text = ""
        self._time_ns = 0
        self.events_unknown = 0

    def rows(self, messages: Sequence[MarketMessage]) -> dict[str, Column] | None:
        """Quotes and trades as columns of one block, without ``ts_init``, ``sequence`` and ``flags``; None if there
        are none. Shape (n,) each, in order.

        Raises:
            FeedError: a time that is none.
        """
        integers: list[int] = []
        floats: list[float] = []
        known = self._index_by_symbol
        for message in messages:
            if type(message) is QuoteMessage:
                row = (message.bid, message.ask, message.bid_size, message.ask_size, _NAN, _NAN)
                number = QUOTE
            elif type(message) is TradeMessage:
                row = (_NAN, _NAN, _NAN, _NAN, message.price, message.size)
                number = TRADE
            else:
                continue
            index = known.get(message.symbol)
            if index is None:
                index = self._look_up(message.symbol)
            if index < 0:
                self.events_unknown += 1
                continue
            text = message.time
            if text != self._time_text:  # events that were sent together mostly have one time
                self._read_time(text)
            integers += (number, index, self._time_ns)
            floats += row
        if not integers:
            return None
        by_row = np.array(integers, np.int64).reshape(-1, len(_INTEGERS))
        values = np.array(floats, np.float64).reshape(-1, len(_FLOATS))
        columns: dict[str, Column] = {
            name: by_row[:, position].astype(MARKET_FIELDS[name]) for position, name in enumerate(_INTEGERS)
        }
        columns |= {name: values[:, position] for position, name in enumerate(_FLOATS)}
        columns["aggressor"] = np.zeros(len(by_row), MARKET_FIELDS["aggressor"])
        return columns

    def _look_up(self, symbol: str) -> int:
        try:
            index = self._instruments.index(symbol)
        except KeyError:
            index = -1
        self._index_by_symbol[symbol] = index
        return index

    def _read_time(self, text: str) -> None:
        try:
            self._time_ns = parse_time(text)
        except ValueError as error:
            raise FeedError(f"market data without meaning: {error}") from error
        self._time_text = text


class AlpacaFeed:
    """Quotes and trades of ``symbols`` from a market-data stream (``ws://…/v2/iex``).

    ``now_ns`` is the clock that stamps the receipt, read as soon as the socket has given its bytes; without it the
    engine stamps the rows when they reach it. ``ts_event_is_scheduled_send`` says that the venue's clock is this
    machine's and its times are when it meant to send: latencies may count from there. A connection that breaks is
    opened again, after 0.1 s, 0.2 s, … 5 s; what happened meanwhile is missing, and ``statistics().reconnects`` counts
    it. The keys are in no repr.
    """

    kinds = frozenset({QUOTE, TRADE})

    def __init__(
        self,
        url: str,
        *,
        symbols: Sequence[str] = ("*",),
        key: str,
        secret: str,
        now_ns: Callable[[], int] | None = None,
        reconnect: bool = True,
        ts_event_is_scheduled_send: bool = False,
    ) -> None:
        self.url = url
        self.ts_event_is_scheduled_send = ts_event_is_scheduled_send
        self._symbols = list(symbols)
        self._key, self._secret = key, secret
        self._now_ns = now_ns
        self._reconnect = reconnect
        self._sessions: list[Session] = []
        self._session: str = ""
        self._received = 0
        self._reconnects = 0
        self._decoder: RowDecoder | None = None
        self._socket: WebSocket | None = None
        self._finish_asked = trio.Event()

    def __repr__(self) -> str:
        return f"AlpacaFeed({self.url!r}, symbols={self._symbols!r})"

    def statistics(self) -> AlpacaFeedStatistics:
        open_now = (Session(self._session, self._received),) if self._socket is not None else ()
        unknown = 0 if self._decoder is None else self._decoder.events_unknown
        return AlpacaFeedStatistics((*self._sessions, *open_now), self._reconnects, unknown)

    async def run(self, send: MarketSender, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, subscribe, then send until cancelled or ``finish``ed.

        Raises:
            FeedError: it cannot connect the first time, the keys or symbols are refused, what came has no meaning, or
                (without ``reconnect``) the connection broke.
        """
        from trio_nt.websocket import ConnectionFailed

        self._decoder = RowDecoder(send.instruments)
        started = _Once(task_status)
        delay_s = _FIRST_DELAY_S
        while not self._finish_asked.is_set():
            subscribed_before = started.count
            try:
                await self._one_connection(send, started)
                return
            except (ConnectionFailed, trio.BrokenResourceError, trio.EndOfChannel, _Dropped) as error:
                if self._finish_asked.is_set():
                    return
                if not (started.count and self._reconnect):
                    raise FeedError(f"market data from {self.url}: {error}") from error
            if started.count > subscribed_before:
                delay_s = _FIRST_DELAY_S
            self._reconnects += 1
            with trio.move_on_after(delay_s):
                await self._finish_asked.wait()
            delay_s = min(delay_s * 2, _LAST_DELAY_S)

    async def finish(self) -> None:
        """Unsubscribe; ``run`` returns when all that was sent before has been taken, or the connection breaks. A
        checkpoint.
        """
        await trio.lowlevel.checkpoint()
        self._finish_asked.set()  # whatever happens to this connection: there is none after it
        if self._socket is not None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # run() notices by itself
                await self._socket.send(self._request("unsubscribe"))

    # -- one connection --

    async def _one_connection(self, send: MarketSender, started: "_Once") -> None:
        from trio_nt.websocket import connect

        self._socket = socket = await connect(self.url)
        self._session, self._received, events_sent = "", 0, None
        try:
            while True:
                chunk = await socket.receive()
                ts_init = None if self._now_ns is None else self._now_ns()
                messages = [message for content in chunk for message in decode_market(content)]
                await self._take_rows(messages, ts_init, send)
                for message in messages:
                    if type(message) is QuoteMessage or type(message) is TradeMessage:
                        continue
                    if isinstance(message, SubscriptionMessage) and not (message.trades or message.quotes):
                        events_sent = message.events_sent
                        return
                    await self._answer(socket, message, started)
        finally:
            self._sessions.append(Session(self._session, self._received, events_sent))
            self._socket = None
            await socket.close()  # noqa: ASYNC102 - shields itself, with a deadline

    async def _take_rows(self, messages: Sequence[MarketMessage], ts_init: int | None, send: MarketSender) -> None:
        assert self._decoder is not None
        columns = self._decoder.rows(messages)
        if columns is None:
            return
        rows = len(columns["kind"])
        if ts_init is not None:
            columns["ts_init"] = np.full(rows, ts_init, MARKET_FIELDS["ts_init"])
        await send.rows(columns)
        self._received += rows

    async def _answer(self, socket: "WebSocket", message: MarketMessage, started: "_Once") -> None:
        if isinstance(message, SuccessMessage):
            if message.msg == "connected":
                self._session = message.session or ""
                login = {"action": "auth", "key": self._key, "secret": self._secret}
                await socket.send(msgspec.json.encode(login))
            elif message.msg == "authenticated":
                await socket.send(self._request("subscribe"))
        elif isinstance(message, SubscriptionMessage):
            started()
        elif isinstance(message, ErrorMessage):
            text = f"{message.msg} (error {message.code})"
            # What this side asked for is wrong, and will be the next time; of the others, the worst is being too slow.
            if message.code in (INVALID_SYNTAX, AUTH_FAILED, SYMBOL_LIMIT):
                raise FeedError(f"market data from {self.url}: {text}")
            raise _Dropped(text)

    def _request(self, action: str) -> bytes:
        return msgspec.json.encode({"action": action, "trades": self._symbols, "quotes": self._symbols})


class _Dropped(Exception):
    """The venue ended the stream and said why."""


class _Once:
    """Tells the nursery that the feed has started, the first time; counts all times."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status
        self.count = 0

    def __call__(self) -> None:
        if not self.count:
            self._task_status.started()
        self.count += 1
