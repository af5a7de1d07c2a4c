"""The venue's streams without their sockets: who is let in, who hears what, and who is dropped."""

import json

import numpy as np

from trio_nt.alpaca import decode_market
from trio_nt.exchange.market import Market, venue_instruments
from trio_nt.exchange.streams import EncodedRows, MarketSession, Outbox, TradeSession
from trio_nt.model.market import QUOTE, TRADE

KEYS = {"me": "hush"}
SYMBOLS = venue_instruments().ids
START = 1_700_000_000_000_000_000
AUTH = b'{"action":"auth","key":"me","secret":"hush"}'
AUTHENTICATE = b'{"action":"authenticate","data":{"key_id":"me","secret_key":"hush"}}'
LISTEN = b'{"action":"listen","data":{"streams":["trade_updates"]}}'


def rows():
    columns = Market(seed=1, start_ns=START).next(START + 100_000_000)
    return columns, EncodedRows(columns, SYMBOLS)


def market(*said: bytes, limit: int = 1_000_000) -> MarketSession:
    session = MarketSession("md-1", SYMBOLS, KEYS, limit)
    for message in said:
        session.receive(message)
    return session


def heard(session: MarketSession | TradeSession) -> list:
    return [json.loads(message) for message in session.outbox.take()]


def subscribe(**channels: list[str]) -> bytes:
    return json.dumps({"action": "subscribe", **channels}).encode()


def test_a_client_is_greeted_let_in_and_told_what_it_subscribed_to():
    session = market(AUTH, subscribe(quotes=["ALBA"], trades=["*"]), subscribe(quotes=["BRIO"]))
    subscription = {"T": "subscription", "trades": ["*"], "quotes": ["ALBA"], "bars": [], "events_sent": 0}
    assert heard(session) == [
        [{"T": "success", "msg": "connected", "session": "md-1"}],
        [{"T": "success", "msg": "authenticated"}],
        [subscription],
        [subscription | {"quotes": ["ALBA", "BRIO"]}],
    ]


def test_what_is_not_allowed_is_answered_with_its_code():
    def codes(*said: bytes) -> list[int]:
        return [message[0]["code"] for message in heard(market(*said)) if message[0]["T"] == "error"]

    assert codes(subscribe(quotes=["*"])) == [401]
    assert codes(b'{"action":"auth","key":"me","secret":"wrong"}') == [402]
    assert codes(b'{"action":"auth","key":"other","secret":""}') == [402]
    assert codes(AUTH, AUTH) == [403]
    assert codes(b"no json", b'{"action":5}', b"[]", b'{"action":"dance"}') == [400] * 4
    assert codes(AUTH, subscribe(quotes=["NONE"])) == [400]


def test_a_wrong_key_ends_the_stream():
    assert market(b'{"action":"auth","key":"me","secret":"wrong"}').outbox.is_closing
    assert not market(subscribe(quotes=["*"])).outbox.is_closing


def test_each_client_hears_what_it_subscribed_to_and_nothing_else():
    columns, encoded = rows()
    quotes_of_two = market(AUTH, subscribe(quotes=["ALBA", "CIMA"]))
    everything = market(AUTH, subscribe(quotes=["*"], trades=["*"]))
    nothing = market(AUTH)
    for session in (quotes_of_two, everything, nothing):
        session.outbox.take()
        session.publish(encoded)
    wanted = (columns["kind"] == QUOTE) & np.isin(columns["instrument"], [0, 2])
    (message,) = heard(quotes_of_two)
    assert [(row["T"], row["S"], row["bp"]) for row in message] == [
        ("q", SYMBOLS[index], bid)
        for index, bid in zip(columns["instrument"][wanted], columns["bid"][wanted], strict=True)
    ]
    (message,) = heard(everything)
    assert len(message) == len(columns["kind"]) == everything.outbox.events_sent
    assert sum(row["T"] == "t" for row in message) == (columns["kind"] == TRADE).sum()
    assert heard(nothing) == []


def test_unsubscribing_says_how_much_was_sent():
    columns, encoded = rows()
    session = market(AUTH, subscribe(quotes=["*"], trades=["*"]))
    session.publish(encoded)
    session.receive(b'{"action":"unsubscribe","quotes":["*"],"trades":["*"]}')
    session.publish(encoded)
    last = heard(session)[-1]
    assert last == [{"T": "subscription", "trades": [], "quotes": [], "bars": [], "events_sent": len(columns["kind"])}]


def test_what_is_sent_reads_back_as_it_was():
    columns, encoded = rows()
    for message, kind, bid, price, size in zip(
        decode_market(encoded.all()),
        *(columns[name].tolist() for name in ("kind", "bid", "price", "size")),
        strict=True,
    ):
        assert (message.bid == bid) if kind == QUOTE else (message.price, message.size) == (price, size)


def test_a_slow_client_is_told_and_dropped_and_its_loss_is_counted():
    columns, encoded = rows()
    session = market(AUTH, subscribe(quotes=["*"], trades=["*"]), limit=3 * len(encoded.all()))
    for _ in range(5):
        session.publish(encoded)
    assert heard(session) == [[{"T": "error", "code": 407, "msg": "slow client"}]]
    assert session.outbox.is_closing
    assert session.outbox.events_sent == 0
    assert session.outbox.events_dropped == 5 * len(columns["kind"])


def test_an_outbox_never_holds_more_than_its_limit_and_one_message():
    outbox = Outbox(10)
    assert outbox.put(b"x" * 50, 1)  # alone, however long: its client is not behind
    assert not outbox.put(b"y", 1)
    assert (outbox.take(), outbox.events_dropped) == ([], 2)


def test_the_order_stream_lets_in_listens_and_publishes():
    session = TradeSession(KEYS, 1_000_000)
    session.publish(b"{}")
    session.receive(AUTHENTICATE)
    session.receive(LISTEN)
    session.publish(b'{"stream":"trade_updates"}')
    assert heard(session) == [
        {"stream": "authorization", "data": {"status": "authorized", "action": "authenticate"}},
        {"stream": "listening", "data": {"streams": ["trade_updates"]}},
        {"stream": "trade_updates"},
    ]
    session.receive(b'{"action":"listen","data":{"streams":[]}}')
    session.publish(b'{"stream":"trade_updates"}')
    assert heard(session) == [{"stream": "listening", "data": {"streams": []}}]


def test_the_order_streams_older_form_of_authentication():
    session = TradeSession(KEYS, 1_000_000)
    session.receive(b'{"action":"auth","key":"me","secret":"hush"}')
    assert heard(session) == [{"stream": "authorization", "data": {"status": "authorized", "action": "auth"}}]


def test_the_order_stream_refuses():
    session = TradeSession(KEYS, 1_000_000)
    session.receive(LISTEN)
    session.receive(b"no json")
    session.receive(b'{"action":["dance"],"data":7}')
    refused, *errors = heard(session)
    assert refused == {"stream": "authorization", "data": {"status": "unauthorized", "action": "listen"}}
    assert [message["action"] for message in errors] == ["error", "error"]
    session.receive(AUTHENTICATE.replace(b"hush", b"wrong"))
    assert heard(session) == [{"stream": "authorization", "data": {"status": "unauthorized", "action": "authenticate"}}]
    assert session.outbox.is_closing


def test_a_listener_that_is_too_far_behind_is_dropped_with_the_reason():
    session = TradeSession(KEYS, 200)
    session.receive(AUTHENTICATE)
    session.receive(LISTEN)
    session.outbox.take()
    for _ in range(3):
        session.publish(b"x" * 100)
    assert heard(session) == [{"action": "error", "data": {"error_message": "slow client"}}]
    assert (session.outbox.is_closing, session.outbox.events_dropped) == (True, 3)
