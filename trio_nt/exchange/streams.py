"""The venue's two streams, without their sockets: what a client says, what it hears.

Each session has an outbox, bounded in bytes. A client that falls behind further than that has its outbox emptied, hears
why where it still can (error 407 on the market-data stream), and is dropped: what it missed is counted, and no other
client waits for it.

Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from trio_nt import alpaca
from trio_nt.alpaca import MarketRequest, format_time
from trio_nt.model.market import QUOTE, TRADE, Columns

TRADE_UPDATES = "trade_updates"


class Outbox:
    """Messages on their way to one client, with the number of events in each."""

    def __init__(self, limit_bytes: int) -> None:
        self.events_sent = 0  # handed to the socket
        self.events_dropped = 0
        self.is_closing = False  # takes no more; what it holds is the last
        self._limit_bytes = limit_bytes
        self._waiting: list[tuple[bytes, int]] = []
        self._bytes = 0

    def put(self, message: bytes, events: int = 0) -> bool:
        """Queue a message; False if the client is too far behind: then the outbox has been emptied."""
        if self.is_closing:
            self.events_dropped += events
            return True
        if self._waiting and self._bytes + len(message) > self._limit_bytes:
            self.events_dropped += events + sum(count for _, count in self._waiting)
            self._waiting, self._bytes = [], 0
            return False
        self._waiting.append((message, events))
        self._bytes += len(message)
        return True

    def end(self, *last: bytes) -> None:
        """Take no more after these."""
        for message in last:
            self.put(message)
        self.is_closing = True

    def take(self) -> list[bytes]:
        """All that waits."""
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        self.events_sent += sum(count for _, count in waiting)
        return [message for message, _ in waiting]

    @property
    def events_queued(self) -> int:
        """Events that the client will have been sent when what waits now is written."""
        return self.events_sent + sum(count for _, count in self._waiting)


class MarketSession:
    """One client of the market-data stream: connected, then authenticated, then subscribed."""

    def __init__(self, name: str, symbols: Sequence[str], keys: Mapping[str, str], limit_bytes: int) -> None:
        self.name = name
        self.outbox = Outbox(limit_bytes)
        self._symbols = symbols
        self._keys = keys
        self._authenticated = False
        self._subscribed: dict[str, dict[str, None]] = {"trades": {}, "quotes": {}, "bars": {}}  # ordered sets
        self.wanted = np.zeros((3, len(symbols)), np.bool_)  # by kind of row and instrument
        self.wants_all = False
        self._say({"T": "success", "msg": "connected", "session": name})

    def receive(self, message: bytes) -> None:
        """Answer what the client said. A refusal closes nothing, except that of a wrong key."""
        try:
            request = alpaca.decode(message, MarketRequest)
        except msgspec.DecodeError:
            self._refuse(alpaca.INVALID_SYNTAX, "invalid syntax")
            return
        if request.action == "auth":
            self._authenticate(request)
        elif request.action not in ("subscribe", "unsubscribe"):
            self._refuse(alpaca.INVALID_SYNTAX, "invalid syntax")
        elif not self._authenticated:
            self._refuse(alpaca.NOT_AUTHENTICATED, "not authenticated")
        else:
            self._subscribe(request)

    def publish(self, encoded: "EncodedRows") -> None:
        """Take those of the rows that the client subscribed to."""
        if self.wants_all:
            message, count = encoded.all(), encoded.count
        elif self.wanted.any():
            message, count = encoded.some(self.wanted)
        else:
            return
        if count and not self.outbox.put(message, count):
            self._refuse(alpaca.SLOW_CLIENT, "slow client")
            self.outbox.end()

    def _authenticate(self, request: MarketRequest) -> None:
        if self._authenticated:
            self._refuse(alpaca.ALREADY_AUTHENTICATED, "already authenticated")
        elif request.key in self._keys and self._keys[request.key] == request.secret:
            self._authenticated = True
            self._say({"T": "success", "msg": "authenticated"})
        else:
            self._refuse(alpaca.AUTH_FAILED, "auth failed")
            self.outbox.end()

    def _subscribe(self, request: MarketRequest) -> None:
        known = {*self._symbols, "*"}
        unknown = [name for name in (*request.trades, *request.quotes, *request.bars) if name not in known]
        if unknown:
            self._refuse(alpaca.INVALID_SYNTAX, f"unknown symbol {unknown[0]}")
            return
        for channel, names in self._subscribed.items():
            asked = dict.fromkeys(getattr(request, channel))
            if request.action == "subscribe":
                names |= asked
            else:
                for name in asked:
                    names.pop(name, None)
        for kind, channel in ((QUOTE, "quotes"), (TRADE, "trades")):
            names = self._subscribed[channel]
            self.wanted[kind] = ["*" in names or symbol in names for symbol in self._symbols]
        self.wants_all = bool(self.wanted[[QUOTE, TRADE]].all())
        answer: dict[str, Any] = {"T": "subscription"}
        answer |= {channel: list(names) for channel, names in self._subscribed.items()}
        self._say(answer | {"events_sent": self.outbox.events_queued})

    def _refuse(self, code: int, message: str) -> None:
        self._say({"T": "error", "code": code, "msg": message})

    def _say(self, message: Mapping[str, Any]) -> None:
        # Control messages come alone in their array.
        if not self.outbox.put(alpaca.encode([message])):
            self.outbox.end(alpaca.encode([{"T": "error", "code": alpaca.SLOW_CLIENT, "msg": "slow client"}]))


class TradeSession:
    """One client of the order stream."""

    def __init__(self, keys: Mapping[str, str], limit_bytes: int) -> None:
        self.outbox = Outbox(limit_bytes)
        self.is_listening = False
        self._keys = keys
        self._authenticated = False

    def receive(self, message: bytes) -> None:
        try:
            request = alpaca.decode(message, dict[str, Any])
        except msgspec.DecodeError:
            self._say({"action": "error", "data": {"error_message": "invalid syntax"}})
            return
        action, data = request.get("action"), request.get("data")
        data = data if isinstance(data, dict) else {}
        if action in ("authenticate", "auth"):
            # The older form has its keys beside the action and under other names.
            key, secret = data.get("key_id", request.get("key")), data.get("secret_key", request.get("secret"))
            self._authenticated = isinstance(key, str) and key in self._keys and self._keys[key] == secret
            self._answer_authorisation(action)
            if not self._authenticated:
                self.outbox.end()
        elif action == "listen":
            self._listen(data)
        else:
            self._say({"action": "error", "data": {"error_message": f"unknown action {action!r}"}})

    def publish(self, message: bytes) -> None:
        """Take one update of an order. They cannot be thinned out: a client that is too far behind is dropped."""
        if self.is_listening and not self.outbox.put(message, 1):
            self._say({"action": "error", "data": {"error_message": "slow client"}})
            self.outbox.end()

    def _listen(self, data: Mapping[str, Any]) -> None:
        if not self._authenticated:
            self._answer_authorisation("listen")
            return
        streams = data.get("streams")
        known = [stream for stream in streams if stream == TRADE_UPDATES] if isinstance(streams, list) else []
        self.is_listening = bool(known)
        self._say({"stream": "listening", "data": {"streams": known}})

    def _answer_authorisation(self, action: str) -> None:
        status = "authorized" if self._authenticated else "unauthorized"
        self._say({"stream": "authorization", "data": {"status": status, "action": action}})

    def _say(self, message: Mapping[str, Any]) -> None:
        if not self.outbox.put(alpaca.encode(message)):
            self.outbox.end()


class EncodedRows:
    """A piece of the market as messages, each row encoded once, whoever takes it."""

    def __init__(self, columns: Columns, symbols: Sequence[str]) -> None:
        self.count = len(columns["kind"])
        self._kind, self._instrument = columns["kind"], columns["instrument"]
        self._rows = encode_rows(columns, symbols)
        self._all: bytes | None = None

    def all(self) -> bytes:
        if self._all is None:
            self._all = _array(self._rows)
        return self._all

    def some(self, wanted: "np.ndarray[Any, np.dtype[np.bool_]]") -> tuple[bytes, int]:
        """The rows whose kind and instrument are wanted, and how many they are."""
        rows = np.flatnonzero(wanted[self._kind, self._instrument]).tolist()
        return _array([self._rows[row] for row in rows]), len(rows)


def _array(rows: Sequence[str]) -> bytes:
    return ("[" + ",".join(rows) + "]").encode()


def encode_rows(columns: Columns, symbols: Sequence[str]) -> list[str]:
    """Each quote and trade as the dialect's JSON. Written out by hand: at 10,000 a second this is the venue's work."""
    names = ("kind", "instrument", "ts_event", "bid", "ask", "bid_size", "ask_size", "price", "size", "sequence")
    rows: list[str] = []
    last_ts, time = -1, ""
    for kind, index, ts, bid, ask, bid_size, ask_size, price, size, sequence in zip(
        *(columns[name].tolist() for name in names), strict=True
    ):
        if ts != last_ts:  # rows of one step have one time
            last_ts, time = ts, format_time(ts)
        if kind == QUOTE:
            rows.append(
                f'{{"T":"q","S":"{symbols[index]}","bx":"V","bp":{bid!r},"bs":{bid_size:.0f},"ax":"V","ap":{ask!r},'
                f'"as":{ask_size:.0f},"c":["R"],"z":"A","t":"{time}"}}'
            )
        else:
            rows.append(
                f'{{"T":"t","S":"{symbols[index]}","i":{sequence},"x":"V","p":{price!r},"s":{size:.0f},'
                f'"c":["@"],"z":"A","t":"{time}"}}'
            )
    return rows
