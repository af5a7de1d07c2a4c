"""Recorded Binance streams: lines of ``<local receipt, UNIX ns> <message>``, plain or gzip.

Rules:
- ``ts_init`` is the line's stamp; one that is before the previous row's is lifted to it and counted.
- ``ts_event`` is the exchange's transaction time ``T``, else its event time ``E``, in ms; 0 where it states neither
  (spot ``bookTicker``).
- ``m`` says that the buyer was the maker, so the seller took: aggressor -1.
- Depth and every other kind of message is checked to be JSON and counted, not used.
- A line that cannot be understood is counted and reported with its number, and the rest goes on. A file whose first
  line is of no known form is refused: it is something else.

Lines are sorted out by their bytes before the first comma; then each kind is decoded at one go, and only where that
fails line by line.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import attrs
import msgspec
import numpy as np

from trio_nt.errors import InputError
from trio_nt.feeds.files import line_chunks
from trio_nt.feeds.instruments import DEFAULT_FEES, prices_and_sizes, step
from trio_nt.feeds.statistics import FileStatistics
from trio_nt.model.instruments import Instrument, InstrumentKind
from trio_nt.model.market import MARKET_FIELDS, QUOTE, TRADE, Column, Columns, empty_columns, flag_quotes, flag_trades

NS_PER_MS = 1_000_000
# What fits an int64 of nanoseconds.
Milliseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=(1 << 63) // NS_PER_MS)]


class QuoteData(msgspec.Struct, gc=False):
    s: str
    b: float
    B: float
    a: float
    A: float
    T: Milliseconds = 0
    E: Milliseconds = 0


class TradeData(msgspec.Struct, gc=False):
    s: str
    p: float
    q: float
    m: bool
    T: Milliseconds = 0
    E: Milliseconds = 0


class QuoteMessage(msgspec.Struct, gc=False):
    stream: str
    data: QuoteData


class TradeMessage(msgspec.Struct, gc=False):
    stream: str
    data: TradeData


class OtherMessage(msgspec.Struct, gc=False):
    """Any object: parsed to be checked, nothing of it kept."""


class Envelope(msgspec.Struct, gc=False):
    """What tells a message's kind and the exchange's market, whatever the order of its keys."""

    stream: str = ""
    data: Any = None
    lastUpdateId: int | None = None  # noqa: N815 - the exchange's own name


class Market(Enum):
    """Which of the exchange's markets a file was recorded from; the value is the venue in instrument ids."""

    SPOT = "BINANCE"
    LINEAR = "BINANCE_UM"
    INVERSE = "BINANCE_CM"


_INVERSE_SYMBOL = re.compile(r"([A-Z0-9]+)USD_(?:PERP|\d{6})")
_QUOTE_CURRENCIES = (
    *("USDT", "USDC", "FDUSD", "TUSD", "BUSD", "USDP", "DAI", "BTC", "ETH", "BNB", "EUR", "GBP", "TRY", "BRL", "JPY"),
    *("AUD", "ARS", "MXN", "PLN", "RON", "UAH", "ZAR", "USD"),
)


def market_of(envelope: Envelope) -> Market | None:
    """The market of a message, told from the fields that only one of them sends; None if this message has none."""
    data = envelope.data if isinstance(envelope.data, dict) else {}
    if _INVERSE_SYMBOL.fullmatch(str(data.get("s", ""))):
        return Market.INVERSE
    if "pu" in data or "X" in data:
        return Market.LINEAR
    kind = _kind_of(envelope)
    if kind == _QUOTES:
        return Market.LINEAR if "T" in data or "E" in data else Market.SPOT
    if "M" in data or kind == "depth":
        return Market.SPOT
    return None


def _kind_of(envelope: Envelope) -> str:
    """The stream ``btcusdt@depth@100ms`` is of kind ``depth``; "" is none."""
    if not envelope.stream:
        return "snapshot" if envelope.lastUpdateId is not None else ""
    name, _, kind = envelope.stream.partition("@")
    return kind.partition("@")[0] or name


_STREAM_HEAD = re.compile(rb'\{"stream":"[^"\\]+"')
_QUOTES, _TRADES = "bookTicker", "trade"
_envelopes = msgspec.json.Decoder(Envelope)
_DECODERS: dict[str, Callable[[bytes], Any]] = {
    _QUOTES: msgspec.json.Decoder(QuoteMessage, strict=False).decode,
    _TRADES: msgspec.json.Decoder(TradeMessage, strict=False).decode,
}
_check = msgspec.json.Decoder(OtherMessage).decode


@attrs.define
class _Bucket:
    """The lines of one kind in a chunk: their numbers, stamps and messages, not decoded yet."""

    kind: str
    numbers: list[int] = attrs.field(factory=list)
    stamps: list[bytes] = attrs.field(factory=list)
    payloads: list[bytes] = attrs.field(factory=list)

    def clear(self) -> None:
        self.numbers.clear()
        self.stamps.clear()
        self.payloads.clear()


class Capture:
    """A recorded Binance stream as a source of quotes and trades."""

    kinds = frozenset({QUOTE, TRADE})

    def __init__(self, path: Path) -> None:
        self.path = path
        self.statistics = FileStatistics(str(path), "Binance capture")
        self.symbols: dict[str, int] = {}
        self.first_lines: list[int] = []
        self.assumptions: list[str] = []
        self.market: Market | None = None
        self._buckets: dict[str, _Bucket] = {}
        self._bucket_by_head: dict[bytes, _Bucket] = {}  # a message's bytes before its first comma → where it goes

    def pieces(self) -> Iterator[Columns]:
        for number, lines in line_chunks(self.path):
            if number == 1:
                _check_first_line(self.path, lines[0])
            self.statistics.lines += len(lines)
            self._sort_out(number, lines)
            piece = self._decode()
            if piece is not None:
                self.statistics.count_rows(piece)
                yield piece

    def again(self) -> "Capture":
        return Capture(self.path)

    def _sort_out(self, first: int, lines: list[bytes]) -> None:
        """Put each line into its kind's bucket."""
        known = self._bucket_by_head
        for number, line in enumerate(lines, first):
            space = line.find(b" ")
            payload = line[space + 1 :]
            bucket = known.get(payload[: payload.find(b",")])
            if bucket is None:
                if not line:
                    continue
                bucket = self._bucket_of(number, payload)
                if bucket is None:
                    continue
            bucket.numbers.append(number)
            bucket.stamps.append(line[:space] if space > 0 else b"")
            bucket.payloads.append(payload)

    def _bucket_of(self, number: int, payload: bytes) -> _Bucket | None:
        """Where a message goes whose first bytes are new; None (and counted) if it is none."""
        try:
            envelope = _envelopes.decode(payload)
        except ValueError as error:
            self.statistics.count_bad_line(number, f"no JSON message ({error})")
            return None
        kind = _kind_of(envelope)
        if not kind:
            self.statistics.count_bad_line(number, "neither a stream's message nor a depth snapshot")
            return None
        if self.market is None:
            self.market = market_of(envelope)
        bucket = self._buckets.setdefault(kind, _Bucket(kind))
        head = payload[: payload.find(b",")]
        if _STREAM_HEAD.fullmatch(head):
            self._bucket_by_head[head] = bucket
        return bucket

    def _decode(self) -> Columns | None:
        """The quotes and trades of the buckets in the order of their lines; every other kind is counted."""
        parts = []
        for bucket in self._buckets.values():
            if not bucket.numbers:
                continue
            numbers, stamps, messages = self._messages(bucket)
            self.statistics.count(bucket.kind, len(messages))
            if bucket.kind in _ROWS and messages:
                data = [message.data for message in messages]
                symbols = self._symbol_column([item.s for item in data], numbers)
                parts.append((np.array(numbers), np.array(stamps), symbols, _ROWS[bucket.kind](data)))
            bucket.clear()
        return self._joined(parts) if parts else None

    def _messages(self, bucket: _Bucket) -> tuple[list[int], list[int], list[Any]]:
        """Line numbers, stamps and messages of a bucket's good lines."""
        decode = _DECODERS.get(bucket.kind, _check)
        try:
            return bucket.numbers[:], _stamps(bucket.stamps), list(map(decode, bucket.payloads))
        except ValueError:
            pass  # one of the lines is bad: find it
        numbers, stamps, messages = [], [], []
        for number, stamp, payload in zip(bucket.numbers, bucket.stamps, bucket.payloads, strict=True):
            try:
                received, message = _stamps([stamp]), decode(payload)
            except ValueError as error:
                self.statistics.count_bad_line(number, f"no {bucket.kind} message ({error})")
                continue
            numbers.append(number)
            stamps += received
            messages.append(message)
        return numbers, stamps, messages

    def _symbol_column(self, symbols: list[str], numbers: list[int]) -> Column:
        """Index into ``self.symbols`` of every row; new symbols are noted with their line."""
        for symbol in dict.fromkeys(symbols):
            if symbol not in self.symbols:
                self.symbols[symbol] = len(self.symbols)
                self.first_lines.append(numbers[symbols.index(symbol)])
        return np.fromiter(map(self.symbols.__getitem__, symbols), MARKET_FIELDS["instrument"], len(symbols))

    def _joined(self, parts: list[tuple[Column, Column, Column, Columns]]) -> Columns:
        order = np.sort(np.concatenate([numbers for numbers, *_ in parts]))
        piece = empty_columns(len(order))
        del piece["sequence"]
        for numbers, stamps, symbols, columns in parts:
            rows = np.searchsorted(order, numbers)
            piece["ts_init"][rows] = stamps
            piece["instrument"][rows] = symbols
            for name, column in columns.items():
                piece[name][rows] = column
        piece["ts_init"] = self.statistics.never_decreasing(piece["ts_init"])
        return piece

    def instrument_id(self, symbol: str) -> str:
        return f"{symbol}.{self._market_of(symbol).value}"

    def infer(self, symbol: str, parts: Sequence[Columns]) -> tuple[Instrument, str]:
        market = self._market_of(symbol)
        kind = InstrumentKind[market.name]
        base, quote = _currencies(symbol, market)
        prices, sizes = prices_and_sizes(parts)
        maker, taker = DEFAULT_FEES[kind]
        instrument = Instrument(
            id=self.instrument_id(symbol),
            symbol=symbol,
            venue=market.value,
            kind=kind,
            base=base,
            quote=quote,
            multiplier=(100 if base == "BTC" else 10) if market is Market.INVERSE else 1,
            tick_size=step(prices),
            lot_size=Decimal(1) if market is Market.INVERSE else step(sizes),
            maker_fee=maker,
            taker_fee=taker,
            shortable=market is not Market.SPOT,
        )
        told = "its messages" if self.market or market is Market.INVERSE else "its file's name alone"
        return instrument, f"{kind.value} {base}/{quote}, told from {told}"

    def _market_of(self, symbol: str) -> Market:
        if _INVERSE_SYMBOL.fullmatch(symbol):
            return Market.INVERSE
        if self.market is not None:
            return self.market
        return Market.LINEAR if re.search(r"usdm|futures|_um", self.path.name.lower()) else Market.SPOT


def _check_first_line(path: Path, line: bytes) -> None:
    stamp, _, payload = line.partition(b" ")
    try:
        _stamps([stamp])
        if _kind_of(_envelopes.decode(payload)):
            return
        why = "neither a stream's message nor a depth snapshot"
    except ValueError as error:
        why = f"no JSON message ({error})"
    raise InputError(f"{path}: line 1: not a capture's line '<receipt, UNIX ns> <message>': {why}")


def _stamps(stamps: list[bytes]) -> list[int]:
    """UNIX ns; ``ValueError`` if one of them is none."""
    numbers = list(map(int, stamps))
    if min(numbers) <= 0 or max(numbers) >= 1 << 63:
        raise ValueError("a receipt stamp must be UNIX ns")
    return numbers


def _quote_rows(data: list[QuoteData]) -> Columns:
    prices = {
        "bid": np.array([quote.b for quote in data]),
        "ask": np.array([quote.a for quote in data]),
        "bid_size": np.array([quote.B for quote in data]),
        "ask_size": np.array([quote.A for quote in data]),
    }
    kind = np.full(len(data), QUOTE, np.uint8)
    return {"kind": kind, "ts_event": _ts_event(data), "flags": flag_quotes(**prices)} | prices


def _trade_rows(data: list[TradeData]) -> Columns:
    prices = {"price": np.array([trade.p for trade in data]), "size": np.array([trade.q for trade in data])}
    kind = np.full(len(data), TRADE, np.uint8)
    aggressor = np.where([trade.m for trade in data], -1, 1).astype(np.int8)
    rows = {"kind": kind, "ts_event": _ts_event(data), "flags": flag_trades(**prices), "aggressor": aggressor}
    return rows | prices


_ROWS: dict[str, Callable[[list[Any]], Columns]] = {_QUOTES: _quote_rows, _TRADES: _trade_rows}


def _ts_event(data: Sequence[QuoteData | TradeData]) -> Column:
    return np.array([item.T or item.E for item in data]) * NS_PER_MS


def _currencies(symbol: str, market: Market) -> tuple[str, str]:
    """Base and quote of a symbol: the exchange writes them as one word."""
    inverse = _INVERSE_SYMBOL.fullmatch(symbol)
    if market is Market.INVERSE and inverse:
        return inverse[1], "USD"
    pair = symbol.partition("_")[0]  # BTCUSDT_240927 expires
    for quote in _QUOTE_CURRENCIES:
        if pair.endswith(quote) and pair != quote:
            return pair.removesuffix(quote), quote
    return pair, "USDT"
