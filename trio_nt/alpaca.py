"""The Alpaca dialect: its messages, and how they say what the model says.

One codec for the three that speak it: the simulated venue, the broker adapter and the market-data feed. Amounts cross
the wire as decimal strings, times as RFC 3339 with nine digits. Of what comes in, strings and numbers are both taken
for amounts, and none goes through a float on its way to a ``Decimal``.
"""

import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from trio_nt.errors import ExecutionError, FeedError
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.broker import BrokerOrder
from trio_nt.model.instruments import Side
from trio_nt.model.money import ZERO, to_decimal
from trio_nt.model.orders import BrokerUpdate, Execution, Liquidity, OrderRequest, OrderState, UpdateKind

KEY_HEADER, SECRET_HEADER = "APCA-API-KEY-ID", "APCA-API-SECRET-KEY"

# Codes of error bodies: the HTTP status and a number.
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, RATE_LIMITED = 40110000, 40310000, 40410000, 42910000
BAD_BODY, BAD_PARAMETER, UNPROCESSABLE = 40010000, 40010001, 42210000
# Codes on the market-data stream.
INVALID_SYNTAX, NOT_AUTHENTICATED, AUTH_FAILED, ALREADY_AUTHENTICATED = 400, 401, 402, 403
AUTH_TIMEOUT, SYMBOL_LIMIT, CONNECTION_LIMIT, SLOW_CLIENT, INTERNAL = 404, 405, 406, 407, 500

EVENT_BY_KIND = {
    UpdateKind.ACCEPTED: "new",
    UpdateKind.PARTIALLY_FILLED: "partial_fill",
    UpdateKind.FILLED: "fill",
    UpdateKind.CANCELLED: "canceled",
    UpdateKind.REJECTED: "rejected",
    UpdateKind.EXPIRED: "expired",
    UpdateKind.REPLACED: "replaced",
    UpdateKind.PENDING_CANCEL: "pending_cancel",
    UpdateKind.PENDING_REPLACE: "pending_replace",
    UpdateKind.CANCEL_REJECTED: "order_cancel_rejected",
    UpdateKind.REPLACE_REJECTED: "order_replace_rejected",
}
KIND_BY_EVENT = {event: kind for kind, event in EVENT_BY_KIND.items()} | {"accepted": UpdateKind.ACCEPTED}
# Events that change nothing for whoever waits for an end: the order goes on, or another event follows.
QUIET_EVENTS = frozenset({"pending_new", "done_for_day", "calculated", "stopped", "suspended", "held", "restated"})

STATUS_BY_STATE = {
    OrderState.ACCEPTED: "new",
    OrderState.PARTIALLY_FILLED: "partially_filled",
    OrderState.FILLED: "filled",
    OrderState.CANCELLED: "canceled",
    OrderState.REJECTED: "rejected",
    OrderState.EXPIRED: "expired",
    OrderState.REPLACED: "replaced",
    OrderState.PENDING_CANCEL: "pending_cancel",
    OrderState.PENDING_REPLACE: "pending_replace",
}
_MEANS_WORKING = (
    *("accepted", "pending_new", "pending_review", "accepted_for_bidding"),
    *("held", "stopped", "suspended", "calculated", "done_for_day"),
)
STATE_BY_STATUS = {status: state for state, status in STATUS_BY_STATE.items()} | dict.fromkeys(
    _MEANS_WORKING, OrderState.ACCEPTED
)


# -- times and amounts ------------------------------------------------------------------------------------------------

_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_SECOND = 1_000_000_000


@lru_cache(maxsize=64)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=64)
def _second_ns(text: str) -> int:
    return int(datetime.fromisoformat(text + "+00:00").timestamp()) * _SECOND


def format_time(ns: int) -> str:
    """UNIX ns as RFC 3339 in UTC with nine digits."""
    second, fraction = divmod(ns, _SECOND)
    return f"{_second_text(second)}.{fraction:09d}Z"


def parse_time(text: str) -> int:
    """RFC 3339 with any number of digits and any offset as UNIX ns; digits past the ninth are cut.

    Raises:
        ValueError: it is something else.
    """
    if len(text) == 30 and text[19] == "." and text[29] == "Z":  # what the market-data stream sends, by the thousand
        fraction = text[20:29]
        if fraction.isdigit():
            return _second_ns(text[:19]) + int(fraction)
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"time must be RFC 3339, was {text!r}")
    whole, digits, offset = match.groups()
    moment = datetime.fromisoformat(whole.upper().replace(" ", "T") + ("+00:00" if offset in "Zz" else offset))
    return int(moment.timestamp()) * _SECOND + int((digits or "0").ljust(9, "0"))


def amount(value: Decimal) -> str:
    """A decimal as the wire has it: no exponent, no needless zeros."""
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


# -- orders -----------------------------------------------------------------------------------------------------------


class OrderBody(msgspec.Struct, gc=False):
    """The body of POST /v2/orders."""

    symbol: str
    side: str
    type: str
    time_in_force: str
    qty: Decimal | None = None
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    client_order_id: str | None = None
    order_class: str | None = None
    extended_hours: bool | None = None


class ReplaceBody(msgspec.Struct, gc=False):
    """The body of PATCH /v2/orders/{id}."""

    qty: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail: Decimal | None = None
    time_in_force: str | None = None
    client_order_id: str | None = None


class OrderMessage(msgspec.Struct):
    """An order as the venue tells it. All keys are always there; ``null`` where there is nothing to say."""

    id: str
    client_order_id: str
    created_at: str | None = None
    updated_at: str | None = None
    submitted_at: str | None = None
    filled_at: str | None = None
    expired_at: str | None = None
    canceled_at: str | None = None
    failed_at: str | None = None
    replaced_at: str | None = None
    replaced_by: str | None = None
    replaces: str | None = None
    asset_id: str | None = None
    symbol: str | None = None
    asset_class: str | None = "us_equity"
    notional: str | None = None
    qty: str | None = None
    filled_qty: str | None = "0"
    filled_avg_price: str | None = None
    order_class: str | None = ""
    order_type: str | None = None
    type: str | None = None
    side: str | None = None
    time_in_force: str | None = None
    limit_price: str | None = None
    stop_price: str | None = None
    status: str = "new"
    extended_hours: bool | None = False
    legs: list[Any] | None = None
    trail_percent: str | None = None
    trail_price: str | None = None
    hwm: str | None = None
    position_intent: str | None = None


class TradeUpdate(msgspec.Struct, omit_defaults=True):
    """The ``data`` of a message on the stream ``trade_updates``. The last three keys are the simulated venue's own."""

    event: str
    order: OrderMessage
    timestamp: str | None = None
    execution_id: str | None = None
    price: str | None = None
    qty: str | None = None
    position_qty: str | None = None
    fee: str | None = None
    fee_currency: str | None = None
    liquidity: str | None = None


class StreamMessage(msgspec.Struct):
    """Any message that the server sends on /stream; ``data`` is decoded by what ``stream`` says."""

    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")
    action: str = ""


class ErrorBody(msgspec.Struct):
    message: str = ""
    code: int = 0


class PositionMessage(msgspec.Struct):
    asset_id: str
    symbol: str
    qty: str
    avg_entry_price: str
    cost_basis: str
    side: str
    exchange: str = "NASDAQ"
    asset_class: str = "us_equity"
    market_value: str | None = None
    unrealized_pl: str | None = None
    unrealized_plpc: str | None = None
    unrealized_intraday_pl: str | None = None
    unrealized_intraday_plpc: str | None = None
    current_price: str | None = None
    lastday_price: str | None = None
    change_today: str | None = None
    qty_available: str | None = None


class AccountMessage(msgspec.Struct):
    id: str
    account_number: str
    status: str = "ACTIVE"
    currency: str = "USD"
    cash: str | None = None
    equity: str | None = None
    last_equity: str | None = None
    portfolio_value: str | None = None
    buying_power: str | None = None
    long_market_value: str | None = None
    short_market_value: str | None = None
    initial_margin: str | None = None
    maintenance_margin: str | None = None
    accrued_fees: str | None = None
    multiplier: str | None = None
    shorting_enabled: bool | None = None
    trading_blocked: bool | None = None
    transfers_blocked: bool | None = None
    account_blocked: bool | None = None
    trade_suspended_by_user: bool | None = None
    created_at: str | None = None


MessageT = TypeVar("MessageT")
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def decode(content: bytes | str | msgspec.Raw, kind: type[MessageT]) -> MessageT:
    """JSON as one of the messages above, or a list of them.

    Raises:
        msgspec.DecodeError: no JSON; its subclass ``ValidationError``: not of this shape.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        message: MessageT = decoder.decode(content)
    except (UnicodeDecodeError, RecursionError) as error:  # what nests too deeply has no meaning here
        raise msgspec.DecodeError(f"JSON is malformed: {error}") from error
    return message


encode = msgspec.json.Encoder().encode


def encode_order(request: OrderRequest, symbol: str) -> bytes:
    """The body of POST /v2/orders. ``reduce_only`` has no word in the dialect: risk sees to it."""
    body = {
        "symbol": symbol,
        "qty": amount(request.quantity),
        "side": request.side.value,
        "type": request.order_type.value,
        "time_in_force": request.time_in_force.value,
        "client_order_id": request.client_order_id,
    }
    if request.limit_price is not None:
        body["limit_price"] = amount(request.limit_price)
    if request.stop_price is not None:
        body["stop_price"] = amount(request.stop_price)
    return encode(body)


def encode_replace(quantity: Decimal | None, limit_price: Decimal | None) -> bytes:
    """The body of PATCH /v2/orders/{id}."""
    body = {"qty": quantity, "limit_price": limit_price}
    return encode({key: amount(value) for key, value in body.items() if value is not None})


def broker_order(message: OrderMessage, instrument: str) -> BrokerOrder:
    """An order in the model's words. ``instrument`` is the id that the message's symbol stands for.

    Raises:
        ExecutionError: a status or an amount without meaning.
    """
    state = STATE_BY_STATUS.get(message.status)
    if state is None:
        raise ExecutionError(f"order {message.id} has the unknown status {message.status!r}")
    quantity, filled = _decimal(message.qty, "qty"), _decimal(message.filled_qty, "filled_qty")
    return BrokerOrder(
        client_order_id=message.client_order_id,
        broker_order_id=message.id,
        instrument=instrument,
        state=state,
        quantity=quantity,
        filled_quantity=filled,
        request=_request_of(message, instrument, quantity),
    )


def _request_of(message: OrderMessage, instrument: str, quantity: Decimal) -> OrderRequest | None:
    """What was asked for, where the model has the words for it: an order placed elsewhere may be of another kind."""
    try:
        return OrderRequest(
            message.client_order_id,
            instrument,
            Side(message.side),
            quantity,
            OrderType(message.type or message.order_type),
            None if message.limit_price is None else _decimal(message.limit_price, "limit_price"),
            None if message.stop_price is None else _decimal(message.stop_price, "stop_price"),
            TimeInForce(message.time_in_force),
        )
    except ValueError:
        return None


def broker_update(update: TradeUpdate, instrument: str, *, currency: str = "USD") -> BrokerUpdate | None:
    """A message of ``trade_updates`` in the model's words; None for an event that changes nothing.

    A venue that states no fee charges none per execution; one that states no liquidity is taken for the dearer kind.

    Raises:
        ExecutionError: an event, a time or an amount without meaning.
    """
    kind = KIND_BY_EVENT.get(update.event)
    order = update.order
    if kind is None:
        if update.event in QUIET_EVENTS:
            return None
        raise ExecutionError(f"order {order.id} has the unknown event {update.event!r}")
    text = update.timestamp or order.updated_at
    try:
        ts_event = parse_time(text) if text else 0
    except ValueError as error:
        raise ExecutionError(f"update of order {order.id}: {error}") from error
    execution = None
    if kind in (UpdateKind.FILLED, UpdateKind.PARTIALLY_FILLED):
        if not update.execution_id:
            raise ExecutionError(f"update of order {order.id}: {update.event} without execution_id")
        execution = Execution(
            execution_id=update.execution_id,
            quantity=_decimal(update.qty, "qty"),
            price=_decimal(update.price, "price"),
            fee=ZERO if update.fee is None else _decimal(update.fee, "fee"),
            fee_currency=update.fee_currency or currency,
            liquidity=Liquidity.MAKER if update.liquidity == "maker" else Liquidity.TAKER,
        )
    # After a replace the order lives on under its new id.
    broker_order_id = order.replaced_by or order.id if kind is UpdateKind.REPLACED else order.id
    return BrokerUpdate(kind, order.client_order_id, broker_order_id, instrument, ts_event, execution)


def _decimal(text: str | None, name: str) -> Decimal:
    try:
        return to_decimal("" if text is None else text)
    except ValueError as error:
        raise ExecutionError(f"{name} must be a decimal string, was {text!r}") from error


# -- market data ------------------------------------------------------------------------------------------------------


class QuoteMessage(
    msgspec.Struct,
    tag_field="T",
    tag="q",
    gc=False,
    rename={"symbol": "S", "bid": "bp", "bid_size": "bs", "ask": "ap", "ask_size": "as", "time": "t"},
):
    symbol: str
    bid: float
    bid_size: float
    ask: float
    ask_size: float
    time: str


class TradeMessage(
    msgspec.Struct, tag_field="T", tag="t", gc=False, rename={"symbol": "S", "price": "p", "size": "s", "time": "t"}
):
    symbol: str
    price: float
    size: float
    time: str


class SuccessMessage(msgspec.Struct, tag_field="T", tag="success"):
    """``session`` is the simulated venue's own: the name under which it counts what it sends."""

    msg: str
    session: str | None = None


class ErrorMessage(msgspec.Struct, tag_field="T", tag="error"):
    code: int
    msg: str


class SubscriptionMessage(msgspec.Struct, tag_field="T", tag="subscription"):
    """``events_sent`` is the simulated venue's own: how many quotes and trades it sent before this message."""

    trades: list[str] = []
    quotes: list[str] = []
    bars: list[str] = []
    events_sent: int | None = None


MarketMessage = QuoteMessage | TradeMessage | SuccessMessage | ErrorMessage | SubscriptionMessage
_market_decoder = msgspec.json.Decoder(list[MarketMessage])


class MarketRequest(msgspec.Struct):
    """What a client says on the market-data stream."""

    action: str
    key: str = ""
    secret: str = ""
    trades: list[str] = []
    quotes: list[str] = []
    bars: list[str] = []


def decode_market(content: bytes | str) -> list[MarketMessage]:
    """One message of the market-data stream. Kinds that were not subscribed to (bars, statuses, …) are left out.

    Raises:
        FeedError: no JSON, or a message that lacks what its kind must have.
    """
    try:
        return _market_decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _decode_one_by_one(content, error)


_KNOWN_TAGS = frozenset({"q", "t", "success", "error", "subscription"})
_other_kinds_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_tag_decoder = msgspec.json.Decoder(dict[str, Any])


def _decode_one_by_one(content: bytes | str, error: Exception) -> list[MarketMessage]:
    try:
        tagged = [(_tag_decoder.decode(raw).get("T"), raw) for raw in _other_kinds_decoder.decode(content)]
        if all(tag in _KNOWN_TAGS for tag, _ in tagged):
            raise error
        kept = [bytes(raw) for tag, raw in tagged if tag in _KNOWN_TAGS]
        return _market_decoder.decode(b"[" + b",".join(kept) + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise FeedError(f"market data without meaning: {problem}") from problem
