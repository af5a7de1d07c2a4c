"""The venue's REST calls, without a socket: what the dialect promises, and what it says to nonsense."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_nt.alpaca import AccountMessage, OrderMessage, PositionMessage, decode
from trio_nt.exchange.api import Api, Request, Response
from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.venue import Venue

KEYS = {"apca-api-key-id": "sim", "apca-api-secret-key": "sim"}
START = 1_700_000_000_000_000_000


class Desk:
    """An API, its clock, and short ways to call it."""

    def __init__(self, **settings: object) -> None:
        self.now = START
        self.venue = Venue(ExchangeConfig(**settings), lambda: self.now)  # type: ignore[arg-type]
        self.api = Api(self.venue)
        self.go_on(5)

    def go_on(self, milliseconds: int) -> None:
        """Let the market run."""
        self.now += milliseconds * 1_000_000
        while self.venue.step(self.now) is not None:
            pass

    def call(self, method: str, path: str, body: object = None, *, headers: object = None) -> Response:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self.api.handle(Request(method, path, KEYS if headers is None else headers, content))  # type: ignore[arg-type]

    def order(self, key: str, **fields: object) -> Response:
        known = {"symbol": "ALBA", "qty": "10", "side": "buy", "type": "market", "time_in_force": "day"}
        return self.call("POST", "/v2/orders", known | {"client_order_id": key} | fields)

    def resting(self, key: str, **fields: object) -> OrderMessage:
        return decode(self.order(key, **({"type": "limit", "limit_price": "1.00"} | fields)).body, OrderMessage)


def error(response: Response) -> tuple[int, int, str]:
    body = json.loads(response.body)
    return response.status, body["code"], body["message"]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_market_order_fills_at_the_touch_and_is_in_every_list(desk):
    touch = desk.venue.exchange.last_quote(0)
    response = desk.order("a")
    assert response.status == 200
    order = decode(response.body, OrderMessage)
    assert (order.status, order.filled_qty, order.client_order_id) == ("filled", "10", "a")
    assert Decimal(order.filled_avg_price or 0) == Decimal(str(touch.ask))
    (position,) = decode(desk.call("GET", "/v2/positions").body, list[PositionMessage])
    assert (position.symbol, position.qty, position.side) == ("ALBA", "10", "long")
    account = decode(desk.call("GET", "/v2/account").body, AccountMessage)
    paid = 10 * Decimal(str(touch.ask)) * Decimal("1.0003")
    assert Decimal(account.cash or 0) == 100_000 - paid
    (activity,) = json.loads(desk.call("GET", "/v2/account/activities/FILL").body)
    assert (activity["order_id"], activity["qty"], activity["liquidity"]) == (order.id, "10", "taker")
    assert decode(desk.call("GET", f"/v2/orders/{order.id}").body, OrderMessage) == order


def test_a_short_position_is_negative(desk):
    desk.order("a", side="sell")
    position = decode(desk.call("GET", "/v2/positions/ALBA").body, PositionMessage)
    assert (position.qty, position.side) == ("-10", "short")
    assert Decimal(position.market_value or 0) < 0


def test_numbers_and_strings_are_both_amounts(desk):
    assert desk.resting("a", qty=10.0, limit_price=1.25).limit_price == "1.25"
    assert desk.resting("b", qty="10", limit_price="1.25").limit_price == "1.25"


def test_the_same_client_order_id_makes_one_order(desk):
    assert desk.order("a").status == 200
    for _ in range(4):
        assert error(desk.order("a")) == (422, 40010001, "client_order_id must be unique")
    assert len(desk.venue.exchange.orders) == 1
    assert desk.venue.exchange.ledger.position("ALBA").quantity == 10


def test_an_order_without_a_client_order_id_gets_one(desk):
    body = {"symbol": "ALBA", "qty": 1, "side": "buy", "type": "market", "time_in_force": "day"}
    ids = {decode(desk.call("POST", "/v2/orders", body).body, OrderMessage).client_order_id for _ in range(3)}
    assert len(ids) == 3


def test_lists_are_filtered_ordered_and_cut(desk):
    desk.order("filled")
    for number in range(3):
        desk.go_on(1)
        desk.resting(f"r{number}", symbol=("ALBA", "BRIO", "CIMA")[number], side="buy")

    def ids(query: str) -> list[str]:
        response = desk.call("GET", f"/v2/orders{query}")
        return [order.client_order_id for order in decode(response.body, list[OrderMessage])]

    assert ids("") == ["r2", "r1", "r0"]
    assert ids("?status=closed") == ["filled"]
    assert ids("?status=all&direction=asc") == ["filled", "r0", "r1", "r2"]
    assert ids("?limit=2") == ["r2", "r1"]
    assert ids("?symbols=ALBA%2CCIMA") == ["r2", "r0"]
    assert ids("?side=sell") == []
    after = desk.venue.order_message(desk.venue.exchange.orders["r0"]).submitted_at
    assert ids(f"?after={after}") == ["r2", "r1"]
    assert ids(f"?until={after}") == []
    assert ids(f"?status=all&until={after}") == ["filled"]


@pytest.mark.parametrize(
    "query", ["status=odd", "limit=0", "limit=501", "limit=many", "direction=up", "after=yesterday", "limit=9999999999"]
)
def test_a_list_with_a_wrong_parameter_names_it(desk, query):
    status, code, message = error(desk.call("GET", f"/v2/orders?{query}"))
    assert (status, code) == (422, 40010001)
    assert query.split("=")[0] in message


def test_activities_come_in_pages(desk):
    for number in range(5):
        desk.go_on(1)
        desk.order(f"o{number}", qty=number + 1)
    seen, token = [], ""
    while True:
        path = f"/v2/account/activities/FILL?direction=asc&page_size=2{token}"
        page = json.loads(desk.call("GET", path).body)
        seen += [activity["qty"] for activity in page]
        if len(page) < 2:
            break
        token = f"&page_token={page[-1]['id']}"
    assert seen == ["1", "2", "3", "4", "5"]
    assert error(desk.call("GET", "/v2/account/activities/FILL?page_token=x"))[0] == 422


def test_cancel(desk):
    order = desk.resting("a")
    assert desk.call("DELETE", f"/v2/orders/{order.id}").status == 204
    assert error(desk.call("DELETE", f"/v2/orders/{order.id}"))[0] == 422
    found = desk.call("GET", "/v2/orders:by_client_order_id?client_order_id=a")
    assert decode(found.body, OrderMessage).status == "canceled"


def test_cancel_all_answers_for_each(desk):
    orders = [desk.resting(key) for key in "ab"]
    response = desk.call("DELETE", "/v2/orders")
    assert response.status == 207
    assert json.loads(response.body) == [{"id": order.id, "status": 200} for order in orders]
    assert desk.venue.exchange.working_count == 0


def test_a_replacement_is_a_new_order_that_names_the_old_one(desk):
    first = desk.resting("a")
    response = desk.call("PATCH", f"/v2/orders/{first.id}", {"qty": 20, "limit_price": "1.50"})
    second = decode(response.body, OrderMessage)
    assert (second.qty, second.limit_price, second.replaces) == ("20", "1.5", first.id)
    old = decode(desk.call("GET", f"/v2/orders/{first.id}").body, OrderMessage)
    assert (old.status, old.replaced_by) == ("replaced", second.id)
    assert error(desk.call("PATCH", f"/v2/orders/{first.id}", {"qty": 30}))[0] == 422
    assert error(desk.call("DELETE", f"/v2/orders/{first.id}"))[0] == 422


@pytest.mark.parametrize(
    ("body", "message"),
    [({}, "at least one"), ({"qty": "1.5"}, "multiple"), ({"stop_price": "1"}, "does not replace stop_price")],
)
def test_a_wrong_replacement_is_refused(desk, body, message):
    order = desk.resting("a")
    status, _, text = error(desk.call("PATCH", f"/v2/orders/{order.id}", body))
    assert status == 422
    assert message in text


@pytest.mark.parametrize(
    ("fields", "status", "code", "message"),
    [
        ({"symbol": "NONE"}, 422, 42210000, "asset 'NONE' not found"),
        ({"qty": None}, 422, 40010001, "qty is required"),
        ({"qty": "-1"}, 422, 42210000, "qty must be > 0"),
        ({"qty": "NaN"}, 422, 42210000, "qty must be > 0"),
        ({"qty": 1e300}, 422, 42210000, "qty must be > 0 and below"),
        ({"qty": "0.5"}, 422, 42210000, "multiple of 1"),
        ({"qty": "ten"}, 422, 40010001, "qty"),
        ({"type": "limit", "limit_price": "290.123"}, 422, 42210000, "invalid limit_price 290.123. sub-penny"),
        ({"type": "limit"}, 422, 42210000, "limit orders require limit_price"),
        ({"type": "trailing_stop"}, 422, 40010001, "invalid type"),
        ({"side": "hold"}, 422, 40010001, "invalid side"),
        ({"time_in_force": "opg"}, 422, 40010001, "invalid time_in_force"),
        ({"notional": "100"}, 422, 42210000, "does not take notional"),
        ({"order_class": "bracket"}, 422, 42210000, "does not take order_class"),
        ({"client_order_id": ""}, 422, 40010001, "client_order_id must have 1 to 128"),
        ({"client_order_id": 5}, 422, 40010001, "client_order_id"),
    ],
)
def test_a_wrong_order_is_refused_in_the_dialects_words(desk, fields, status, code, message):
    response = desk.order("a", **fields)
    assert error(response)[:2] == (status, code)
    assert message in error(response)[2]
    assert not desk.venue.exchange.orders


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"symbol":"ALBA"}', b"null", b"1" * 5000])
def test_a_body_that_is_no_order_is_refused(desk, body):
    assert error(desk.call("POST", "/v2/orders", body))[0] in (400, 422)
    assert not desk.venue.exchange.orders


def test_a_body_that_nests_too_deeply_is_refused(desk):
    deep = b"[" * 100_000
    for body in (deep, b'{"x":' + deep + b"]" * 100_000 + b"}"):
        assert error(desk.call("POST", "/v2/orders", body))[:2] in ((400, 40010000), (422, 40010001))


@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_no_body_breaks_the_venue(body):
    assert SHARED.call("POST", "/v2/orders", body).status in (400, 422)
    assert SHARED.call("PATCH", "/v2/orders/none", body).status == 404


@given(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]), st.text(st.characters(codec="ascii"), max_size=40))
def test_no_path_breaks_the_venue(method, path):
    assert SHARED.call(method, "/v2/" + path).status in (200, 207, 400, 404, 405, 422)


SHARED = Desk()


@pytest.mark.parametrize(
    "headers", [{}, {"apca-api-key-id": "sim"}, KEYS | {"apca-api-secret-key": "no"}, KEYS | {"apca-api-key-id": "no"}]
)
def test_wrong_keys_are_not_let_in(desk, headers):
    body = {"symbol": "ALBA", "qty": 1, "side": "buy", "type": "market", "time_in_force": "day"}
    assert error(desk.call("POST", "/v2/orders", body, headers=headers)) == (401, 40110000, "request is not authorized")
    assert not desk.venue.exchange.orders


def test_secrets_are_in_no_repr():
    assert "hush" not in repr(ExchangeConfig(keys={"me": "hush"}))


@pytest.mark.parametrize("path", ["/v2/orders/none", "/v2/orders:by_client_order_id?client_order_id=none"])
def test_an_unknown_order_is_not_found(desk, path):
    assert error(desk.call("GET", path)) == (404, 40410000, "order not found")


def test_other_unknown_things_are_not_found(desk):
    assert error(desk.call("GET", "/v2/positions/ALBA")) == (404, 40410000, "position does not exist")
    assert error(desk.call("GET", "/v2/assets/NONE"))[:2] == (404, 40410000)
    assert error(desk.call("GET", "/v3/orders"))[:2] == (404, 40410000)
    assert error(desk.call("PUT", "/v2/orders"))[0] == 405


def test_the_rate_limit_counts_down_refuses_and_starts_again():
    desk = Desk(requests_per_minute=2)
    desk.now = (START // 60_000_000_000 + 1) * 60_000_000_000
    left = [dict(desk.order(key).headers)["X-RateLimit-Remaining"] for key in "ab"]
    assert left == ["1", "0"]
    refused = desk.order("c")
    assert error(refused) == (429, 42910000, "rate limit exceeded")
    headers = dict(refused.headers)
    assert headers["X-RateLimit-Limit"] == "2"
    assert int(headers["X-RateLimit-Reset"]) == desk.now // 10**9 + 60
    assert set(desk.venue.exchange.orders) == {"a", "b"}
    desk.now += 60 * 10**9
    assert desk.order("c").status == 200


def test_every_answer_has_its_own_request_id(desk):
    ids = {dict(desk.call("GET", "/v2/clock").headers)["X-Request-ID"] for _ in range(3)}
    assert len(ids) == 3


def test_the_simulation_tells_what_a_report_checks(desk):
    desk.order("a")
    state = json.loads(desk.call("GET", "/v2/simulation").body)
    assert (state["seed"], state["orders"], state["fills"], state["working_orders"]) == (1, 1, 1, 0)
    assert state["events_made"] == desk.venue.events_made > 0
    assert state["positions"] == {"ALBA": "10"}


def test_the_same_seed_gives_the_same_answers():
    def story() -> list[bytes]:
        desk = Desk(seed=3)
        answers = [desk.order("a").body, desk.order("b", side="sell", qty=3).body]
        desk.go_on(50)
        return [*answers, desk.call("GET", "/v2/account").body, desk.call("GET", "/v2/positions").body]

    assert story() == story()


def test_assets_and_clock(desk):
    assets = json.loads(desk.call("GET", "/v2/assets").body)
    assert len(assets) == 10
    by_id = json.loads(desk.call("GET", f"/v2/assets/{assets[3]['id']}").body)
    assert by_id == assets[3] == json.loads(desk.call("GET", f"/v2/assets/{assets[3]['symbol']}").body)
    clock = json.loads(desk.call("GET", "/v2/clock").body)
    assert clock["is_open"] is True


def test_a_replacement_is_told_by_the_order_that_ended(desk):
    told = []
    first = desk.resting("a")
    desk.venue.listeners.append(lambda message: told.append(json.loads(message)["data"]))
    second = decode(desk.call("PATCH", f"/v2/orders/{first.id}", {"qty": 20}).body, OrderMessage)
    (update,) = told
    assert (update["event"], update["order"]["id"], update["order"]["status"]) == ("replaced", first.id, "replaced")
    assert update["order"]["replaced_by"] == second.id


# -- buying power and executions in parts --


def power(desk: Desk) -> Decimal:
    return Decimal(decode(desk.call("GET", "/v2/account").body, AccountMessage).buying_power or 0)


def test_what_opens_more_than_the_account_can_carry_is_refused(desk):
    ask = desk.venue.exchange.last_quote(0).ask
    most = int(400_000 / (ask * 1.025))
    status, code, message = error(desk.order("a", qty=most + 1))
    assert (status, code) == (403, 40310000)
    assert message.startswith("insufficient buying power: the order needs 40")
    assert not desk.venue.exchange.orders
    assert desk.order("b", qty=most).status == 200
    assert error(desk.order("c", symbol="BRIO", qty=200))[0] == 403
    assert desk.order("d", side="sell", qty=most).status == 200  # what closes always passes


def test_working_orders_hold_buying_power_and_give_it_back(desk):
    before = power(desk)
    order = desk.resting("a", limit_price="80.00", qty=1000)
    assert power(desk) == before - 80_000
    changed = decode(desk.call("PATCH", f"/v2/orders/{order.id}", {"qty": 2000}).body, OrderMessage)
    assert power(desk) == before - 160_000
    refused = desk.call("PATCH", f"/v2/orders/{changed.id}", {"qty": 5001})
    assert error(refused)[:2] == (403, 40310000)
    assert error(desk.order("b", type="limit", limit_price="80.00", qty=3001))[0] == 403
    assert desk.order("c", type="limit", limit_price="80.00", qty=3000).status == 200
    desk.call("DELETE", "/v2/orders")
    assert power(desk) == before


def test_a_short_sale_needs_buying_power_too(desk):
    assert error(desk.order("a", side="sell", qty=5000))[0] == 403
    assert desk.order("b", side="sell", qty=1000).status == 200


def test_without_leverage_every_order_is_taken():
    desk = Desk(leverage=None)
    assert desk.order("a", qty=10**9).status == 200


@given(
    st.lists(
        st.tuples(st.sampled_from("bs"), st.integers(1, 3000), st.none() | st.integers(1, 300), st.booleans()),
        max_size=12,
    )
)
def test_the_quick_estimate_never_lets_through_what_the_exact_rule_refuses(orders):
    desk = Desk(events_per_second=100)
    margin, exchange = desk.venue.margin, desk.venue.exchange
    for number, (side, quantity, limit, cancel) in enumerate(orders):
        fields = {} if limit is None else {"type": "limit", "limit_price": str(limit)}
        before, held = margin.buying_power(), exchange.ledger.position("ALBA").quantity
        side = "buy" if side == "b" else "sell"
        response = desk.order(f"o{number}", side=side, qty=quantity, **fields)
        if response.status == 200 and before < 0:
            # Only what closes may pass an account that is overdrawn.
            assert (held > 0) == (side == "sell")
            assert held != 0
        if cancel:
            desk.call("DELETE", "/v2/orders")


def test_executions_come_in_parts_where_asked_for():
    desk = Desk(partial_fills=0.9, cash=10**9)
    for number in range(20):
        desk.order(f"o{number}", qty=50)
        desk.go_on(50)
    fills = [update.execution for update in desk.venue.exchange.fills]
    assert len(fills) > 20
    assert sum(fill.quantity for fill in fills) == desk.venue.exchange.ledger.position("ALBA").quantity
    assert not list(desk.venue.exchange.working_orders())
