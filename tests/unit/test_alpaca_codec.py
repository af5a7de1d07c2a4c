"""The dialect's words and the model's, there and back."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_nt.alpaca import (
    STATE_BY_STATUS,
    OrderBody,
    OrderMessage,
    QuoteMessage,
    TradeMessage,
    TradeUpdate,
    amount,
    broker_order,
    broker_update,
    decode,
    decode_market,
    encode,
    encode_order,
    encode_replace,
    format_time,
    parse_time,
)
from trio_nt.errors import ExecutionError, FeedError
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.instruments import Side
from trio_nt.model.orders import Liquidity, OrderRequest, OrderState, UpdateKind

QUOTE = (
    '{"T":"q","S":"AB","bx":"V","bp":1.5,"bs":3,"ax":"V","ap":2,"as":4,"c":["R"],"z":"A","t":"2024-01-01T00:00:00Z"}'
)


@given(st.integers(0, 4_102_444_800 * 10**9))
def test_times_come_back(ns):
    assert parse_time(format_time(ns)) == ns


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.5Z", 500_000_000),
        ("1970-01-01T01:00:00.000000001+01:00", 1),
        ("1969-12-31T19:00:00.981350886-05:00", 981_350_886),
        ("1970-01-01t00:00:00.1234567899z", 123_456_789),
    ],
)
def test_times_of_every_shape(text, ns):
    assert parse_time(text) == ns


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2024-01-01", "2024-01-01T00:00:00", "2024-13-01T00:00:00Z", "2024-01-01T00:00:00.+1234567Z"],
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError):
        parse_time(text)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=8, min_value=-(10**12), max_value=10**12))
def test_amounts_come_back_and_have_no_exponent(value):
    text = amount(value)
    assert Decimal(text) == value
    assert set(text) <= set("-0123456789.")


@pytest.mark.parametrize(("value", "text"), [("1E+2", "100"), ("0E-8", "0"), ("-0.00", "0"), ("1.50", "1.5")])
def test_amounts_are_plain(value, text):
    assert amount(Decimal(value)) == text


def test_an_order_crosses_as_strings_and_is_read_as_it_was():
    request = OrderRequest(
        "id", "AB.X", Side.SELL, Decimal("1E+1"), OrderType.STOP_LIMIT, Decimal("1.10"), Decimal("1.2"), TimeInForce.GTC
    )
    content = encode_order(request, "AB")
    assert msgspec.json.decode(content) == {
        "symbol": "AB",
        "qty": "10",
        "side": "sell",
        "type": "stop_limit",
        "time_in_force": "gtc",
        "client_order_id": "id",
        "limit_price": "1.1",
        "stop_price": "1.2",
    }
    assert decode(content, OrderBody).limit_price == Decimal("1.1")
    assert encode_replace(Decimal(3), None) == b'{"qty":"3"}'


def test_numbers_are_read_without_a_float_in_between():
    body = decode(
        b'{"symbol":"A","side":"buy","type":"limit","time_in_force":"day","qty":10.0,"limit_price":0.1}', OrderBody
    )
    assert (body.qty, body.limit_price) == (Decimal("10.0"), Decimal("0.1"))


def message(**fields: object) -> OrderMessage:
    known = {"id": "b", "client_order_id": "c", "qty": "10", "filled_qty": "4", "status": "partially_filled"}
    rest = {"symbol": "AB", "side": "buy", "type": "limit", "time_in_force": "day", "limit_price": "1.5"}
    return decode(encode(known | rest | fields), OrderMessage)


def test_an_order_message_becomes_the_models_order():
    order = broker_order(message(), "AB.X")
    assert (order.state, order.quantity, order.filled_quantity) == (OrderState.PARTIALLY_FILLED, 10, 4)
    assert order.request == OrderRequest("c", "AB.X", Side.BUY, Decimal(10), OrderType.LIMIT, Decimal("1.5"))


def test_an_order_of_a_kind_that_the_model_has_not_is_read_without_its_request():
    assert broker_order(message(type="trailing_stop"), "AB.X").request is None


@pytest.mark.parametrize("fields", [{"status": "odd"}, {"qty": "many"}, {"qty": None}, {"filled_qty": "NaN"}])
def test_an_order_message_without_meaning_is_an_error(fields):
    with pytest.raises(ExecutionError):
        broker_order(message(**fields), "AB.X")


def test_every_documented_status_is_known():
    documented = (
        "new partially_filled filled done_for_day canceled expired replaced pending_cancel pending_replace "
        "pending_review accepted pending_new accepted_for_bidding stopped rejected suspended calculated held"
    )
    assert set(documented.split()) == set(STATE_BY_STATUS)


def update(event: str, **fields: object) -> TradeUpdate:
    return TradeUpdate(event=event, order=message(), timestamp="1970-01-01T00:00:01Z", **fields)  # type: ignore[arg-type]


def test_a_fill_becomes_an_execution():
    told = update("fill", execution_id="x", price="1.5", qty="4", fee="0.01", fee_currency="EUR", liquidity="maker")
    heard = broker_update(told, "AB.X")
    assert heard is not None
    assert (heard.kind, heard.ts_event, heard.broker_order_id) == (UpdateKind.FILLED, 10**9, "b")
    execution = heard.execution
    assert execution is not None
    assert (execution.quantity, execution.price, execution.fee) == (4, Decimal("1.5"), Decimal("0.01"))
    assert (execution.fee_currency, execution.liquidity) == ("EUR", Liquidity.MAKER)


def test_a_replacement_is_known_by_its_new_id():
    told = update("replaced")
    told.order.replaced_by = "b2"
    heard = broker_update(told, "AB.X")
    assert heard is not None
    assert heard.broker_order_id == "b2"


def test_events_that_change_nothing_are_none_and_unknown_ones_are_errors():
    assert broker_update(update("pending_new"), "AB.X") is None
    with pytest.raises(ExecutionError, match="unknown event 'odd'"):
        broker_update(update("odd"), "AB.X")
    with pytest.raises(ExecutionError, match="without execution_id"):
        broker_update(update("fill", price="1", qty="1"), "AB.X")


def test_market_data_is_read_by_kind_and_other_kinds_are_left_out():
    trade = '{"T":"t","S":"AB","i":1,"x":"V","p":1.7,"s":5,"c":["@"],"z":"A","t":"2024-01-01T00:00:00Z"}'
    got = decode_market(f'[{QUOTE},{{"T":"b","S":"AB","o":1}},{trade}]')
    assert [type(one) for one in got] == [QuoteMessage, TradeMessage]
    assert isinstance(got[0], QuoteMessage)
    assert (got[0].bid, got[0].bid_size, got[0].ask, got[0].ask_size) == (1.5, 3, 2, 4)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"T":"q"}', b'[{"T":"q","S":"AB"}]', b'[{"T":"q","S":"\xff"}]', b'[{"S":"AB"}]']
)
def test_market_data_without_meaning_is_an_error(content):
    if content == b'[{"S":"AB"}]':  # no kind: one of those that are left out
        assert decode_market(content) == []
        return
    with pytest.raises(FeedError, match="market data without meaning"):
        decode_market(content)
