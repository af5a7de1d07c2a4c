"""The venue's past as lines: whatever changes an order or the account is one record, and they rebuild the book.

Pure. One record is one line of JSON; ``kind`` says what happened, amounts are exact decimals as strings, times UNIX ns
of the venue:

- ``opened``: the venue began, with its seed, cash and how often it had been opened before;
- ``accepted``, ``replaced``: an order, or the next link of its chain (``replaces`` names the one before);
- ``partially filled``, ``filled``: an execution; ``cancelled``, ``expired``: an end;
- ``progress``: an order was triggered or rests, which nobody is told.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal

import attrs
import msgspec

from trio_nt.exchange.book import Book, VenueOrder, open_order
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.instruments import Side
from trio_nt.model.orders import BrokerUpdate, Execution, Liquidity, OrderRequest, OrderState, UpdateKind

OPENED, PROGRESS = "opened", "progress"
_ENDS = {
    UpdateKind.FILLED: OrderState.FILLED,
    UpdateKind.CANCELLED: OrderState.CANCELLED,
    UpdateKind.EXPIRED: OrderState.EXPIRED,
}


class Record(msgspec.Struct, omit_defaults=True):
    """One line. ``order`` is the broker order id of the link that it is about."""

    kind: str
    ts: int
    order: str = ""
    client_order_id: str = ""
    symbol: str = ""
    side: str = ""
    qty: Decimal | None = None
    type: str = ""
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str = ""
    replaces: str = ""
    execution: str = ""
    price: Decimal | None = None
    fee: Decimal | None = None
    fee_currency: str = ""
    liquidity: str = ""
    is_resting: bool = False
    is_triggered: bool = False
    seed: int = 0
    cash: Decimal | None = None
    times_before: int = 0


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Record)


def line_of(record: Record) -> bytes:
    return _encode(record) + b"\n"


def read_lines(content: bytes) -> list[Record]:
    """The records of whole lines.

    Raises:
        ValueError: a line is no record; the message has its number.
    """
    records = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            records.append(_decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"line {number}: {error}") from error
    return records


def record_of(update: BrokerUpdate, order: VenueOrder) -> Record:
    """What an update changed, as a record. ``order`` is the link that goes on."""
    record = Record(update.kind.value, update.ts_event, order.broker_order_id, update.client_order_id)
    if update.kind in (UpdateKind.ACCEPTED, UpdateKind.REPLACED):
        request = order.request
        record.symbol, record.side, record.qty = request.instrument, request.side.value, request.quantity
        record.type, record.time_in_force = request.order_type.value, request.time_in_force.value
        record.limit_price, record.stop_price = request.limit_price, request.stop_price
        record.replaces = order.replaces
    elif update.execution is not None:
        execution = update.execution
        record.execution, record.qty, record.price = execution.execution_id, execution.quantity, execution.price
        record.fee, record.fee_currency = execution.fee, execution.fee_currency
        record.liquidity = execution.liquidity.value
    return record


def progress_of(order: VenueOrder, now_ns: int) -> Record:
    return Record(
        PROGRESS,
        now_ns,
        order.broker_order_id,
        order.request.client_order_id,
        is_resting=order.is_resting,
        is_triggered=order.is_triggered,
    )


def restore(book: Book, records: Iterable[Record]) -> None:
    """Bring an empty book to where the records left it.

    Raises:
        ValueError: a record does not fit those before it, or names what this venue does not trade.
    """
    for number, record in enumerate(records, 1):
        try:
            _apply(book, record)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"line {number}: {record.kind} does not fit what came before: {error!r}") from error


def _apply(book: Book, record: Record) -> None:
    if record.kind == OPENED:
        return
    if record.kind == PROGRESS:
        order = book.links[record.order]
        order.is_resting, order.is_triggered = record.is_resting, record.is_triggered
        return
    kind = UpdateKind(record.kind)
    if kind is UpdateKind.ACCEPTED:
        book.enter(_order_of(book, record))
        return
    if kind is UpdateKind.REPLACED:
        book.continue_chain(book.links[record.replaces], _order_of(book, record), record.ts)
        return
    order, end = book.links[record.order], _ENDS.get(kind)
    if kind in (UpdateKind.FILLED, UpdateKind.PARTIALLY_FILLED):
        _execute(book, order, kind, record)
    if end is not None:
        order.state, order.ended_ns = end, record.ts
        book.leave(order)
    order.updated_ns = record.ts


def _execute(book: Book, order: VenueOrder, kind: UpdateKind, record: Record) -> None:
    if record.qty is None or record.price is None or record.fee is None:
        raise ValueError("an execution has qty, price and fee")
    execution = Execution(
        record.execution, record.qty, record.price, record.fee, record.fee_currency, Liquidity(record.liquidity)
    )
    book.take_execution(order, execution)
    order.state = OrderState.PARTIALLY_FILLED
    request = order.request
    book.fills.append(
        BrokerUpdate(kind, request.client_order_id, order.broker_order_id, request.instrument, record.ts, execution)
    )


def _order_of(book: Book, record: Record) -> VenueOrder:
    if record.qty is None:
        raise ValueError("an order has qty")
    request = OrderRequest(
        record.client_order_id,
        record.symbol,
        Side(record.side),
        record.qty,
        OrderType(record.type),
        record.limit_price,
        record.stop_price,
        TimeInForce(record.time_in_force),
    )
    index = book.instruments.index(record.symbol)
    return open_order(request, record.order, index, book.state_of(index).at(record.ts).day, record.ts)


@attrs.frozen
class Past:
    """What a venue that opens again must know beside its book."""

    times_opened: int = 0
    created_ns: int = 0  # first opened
    last_ns: int = 0
    cash: Decimal | None = None


def past_of(records: Sequence[Record]) -> Past:
    openings = [record for record in records if record.kind == OPENED]
    if not openings:
        if records:
            raise ValueError(f"line 1: the first record must be {OPENED!r}, was {records[0].kind!r}")
        return Past()
    return Past(len(openings), openings[0].ts, max(record.ts for record in records), openings[0].cash)
