"""The venue's REST calls: a request in, a response out, in Alpaca's dialect.

Pure: no socket, and the only clock is the venue's. Errors leave as ``_Problem`` and become the dialect's error body in
one place.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import attrs
import msgspec

from trio_nt import alpaca
from trio_nt.alpaca import OrderBody, ReplaceBody, amount, format_time, parse_time
from trio_nt.errors import DuplicateOrder
from trio_nt.exchange.book import VenueOrder
from trio_nt.exchange.reports import account_message, activity, asset_message, clock_message
from trio_nt.exchange.venue import Venue
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.instruments import Side
from trio_nt.model.orders import BrokerUpdate, OrderRequest, UpdateKind

WordT = TypeVar("WordT", bound=Enum)
_MINUTE_NS = 60_000_000_000
LONGEST_ID = 128


@attrs.frozen
class Request:
    """``target`` is the path with its query; header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""


@attrs.frozen
class Response:
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class _Problem(Exception):
    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def _not_found(message: str = "order not found") -> _Problem:
    return _Problem(404, alpaca.NOT_FOUND, message)


def _unprocessable(message: str, code: int = alpaca.UNPROCESSABLE) -> _Problem:
    return _Problem(422, code, message)


def _refused(reason: str) -> _Problem:
    """What the matching core said no to."""
    return _Problem(403, alpaca.FORBIDDEN, reason) if reason.startswith("insufficient") else _unprocessable(reason)


class _RateLimit:
    """So many requests per API key and minute of the clock."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._minute = -1
        self._used: dict[str, int] = {}

    def take(self, key: str, now_ns: int) -> tuple[bool, tuple[tuple[str, str], ...]]:
        """Whether the request may go on, and the headers that say what is left."""
        minute = now_ns // _MINUTE_NS
        if minute != self._minute:
            self._minute, self._used = minute, {}
        used = self._used.get(key, 0)
        allowed = used < self._limit
        self._used[key] = used = used + allowed
        reset = (minute + 1) * 60
        return allowed, (
            ("X-RateLimit-Limit", str(self._limit)),
            ("X-RateLimit-Remaining", str(self._limit - used)),
            ("X-RateLimit-Reset", str(reset)),
        )


class Api:
    """``simulation`` adds what the server knows to GET /v2/simulation."""

    def __init__(self, venue: Venue, *, simulation: Callable[[], Mapping[str, Any]] = dict) -> None:
        self._venue = venue
        self._simulation = simulation
        self._rate_limit = _RateLimit(venue.config.requests_per_minute)
        self._requests = 0
        self._fixed: dict[tuple[str, str], Callable[[Request], Response]] = {
            ("POST", "/v2/orders"): self._submit,
            ("GET", "/v2/orders"): self._list_orders,
            ("DELETE", "/v2/orders"): self._cancel_all,
            ("GET", "/v2/orders:by_client_order_id"): self._order_by_client_id,
            ("GET", "/v2/account"): lambda _: _json(account_message(venue)),
            ("GET", "/v2/account/activities"): self._activities,
            ("GET", "/v2/account/activities/FILL"): self._activities,
            ("GET", "/v2/clock"): lambda _: _json(clock_message(venue.now_ns())),
            ("GET", "/v2/assets"): lambda _: _json([asset_message(venue, symbol) for symbol in venue.symbols]),
            ("GET", "/v2/positions"): self._positions,
            ("GET", "/v2/simulation"): self._simulation_state,
        }
        self._by_id: dict[tuple[str, str], Callable[[Request, str], Response]] = {
            ("GET", "/v2/orders/"): lambda _, key: _json(venue.order_message(self._link(key))),
            ("PATCH", "/v2/orders/"): self._replace,
            ("DELETE", "/v2/orders/"): self._cancel,
            ("GET", "/v2/positions/"): self._position,
            ("GET", "/v2/assets/"): lambda _, key: _json(asset_message(venue, self._symbol(key))),
        }

    def handle(self, request: Request) -> Response:
        """Answer one request. Whatever was sent, the answer is one of the dialect's; nothing is raised."""
        self._requests += 1
        headers: tuple[tuple[str, str], ...] = (("X-Request-ID", f"{self._requests:016x}"),)
        try:
            key = self._authorised(request.headers)
            allowed, limits = self._rate_limit.take(key, self._venue.now_ns())
            headers += limits
            if not allowed:
                raise _Problem(429, alpaca.RATE_LIMITED, "rate limit exceeded")
            response = self._route(request)
        except _Problem as problem:
            body = alpaca.encode({"code": problem.code, "message": problem.message})
            response = Response(problem.status, body)
        return attrs.evolve(response, headers=response.headers + headers)

    def _authorised(self, headers: Mapping[str, str]) -> str:
        key = headers.get("apca-api-key-id", "")
        secret = self._venue.config.keys.get(key)
        if secret is None or headers.get("apca-api-secret-key") != secret:
            raise _Problem(401, alpaca.UNAUTHORIZED, "request is not authorized")
        return key

    def _route(self, request: Request) -> Response:
        path = urlsplit(request.target).path
        handler = self._fixed.get((request.method, path))
        if handler is not None:
            return handler(request)
        folder, _, key = path.rpartition("/")
        by_id = self._by_id.get((request.method, folder + "/"))
        if by_id is not None and key:
            return by_id(request, unquote(key))
        known = any(path == known for _, known in self._fixed) or any(folder + "/" == known for _, known in self._by_id)
        if known:
            raise _Problem(405, 40510000, f"method {request.method} is not allowed here")
        raise _not_found("endpoint not found")

    # -- orders --

    def _submit(self, request: Request) -> Response:
        venue = self._venue
        wanted = _order_request(_body(request, OrderBody), venue)
        try:
            updates = venue.exchange.submit(wanted, venue.now_ns())
        except DuplicateOrder as error:
            raise _unprocessable(str(error), alpaca.BAD_PARAMETER) from error
        if updates[-1].kind is UpdateKind.REJECTED:
            raise _refused(updates[-1].reason)
        return _json(venue.order_message(venue.exchange.orders[wanted.client_order_id]))

    def _replace(self, request: Request, broker_order_id: str) -> Response:
        order = self._link(broker_order_id)
        body = _body(request, ReplaceBody)
        for name in ("stop_price", "trail", "time_in_force", "client_order_id"):
            if getattr(body, name) is not None:
                raise _unprocessable(f"this venue does not replace {name}")
        if body.qty is None and body.limit_price is None:
            raise _unprocessable("at least one of qty, limit_price is required", alpaca.BAD_PARAMETER)
        self._must_be_last(order)
        client_order_id = order.request.client_order_id
        exchange = self._venue.exchange
        updates = exchange.replace(
            client_order_id, quantity=body.qty, limit_price=body.limit_price, now_ns=self._venue.now_ns()
        )
        if updates[-1].kind is UpdateKind.REPLACE_REJECTED:
            raise _refused(updates[-1].reason)
        return _json(self._venue.order_message(exchange.orders[client_order_id]))

    def _cancel(self, request: Request, broker_order_id: str) -> Response:
        order = self._link(broker_order_id)
        self._must_be_last(order)
        updates = self._venue.exchange.cancel(order.request.client_order_id, self._venue.now_ns())
        if updates[-1].kind is UpdateKind.CANCEL_REJECTED:
            raise _unprocessable(updates[-1].reason)
        return Response(204, b"")

    def _cancel_all(self, request: Request) -> Response:
        exchange, now_ns = self._venue.exchange, self._venue.now_ns()
        results = []
        for order in exchange.working_orders():
            update = exchange.cancel(order.request.client_order_id, now_ns)[-1]
            status = 200 if update.kind is UpdateKind.CANCELLED else 422
            results.append({"id": order.broker_order_id, "status": status})
        return attrs.evolve(_json(results), status=207)

    def _must_be_last(self, order: VenueOrder) -> None:
        if order.replaced_by:
            raise _unprocessable(f"order was replaced by {order.replaced_by}")

    def _link(self, broker_order_id: str) -> VenueOrder:
        order = self._venue.exchange.links.get(broker_order_id)
        if order is None:
            raise _not_found()
        return order

    def _order_by_client_id(self, request: Request) -> Response:
        order = self._venue.exchange.orders.get(_query(request).get("client_order_id", ""))
        if order is None:
            raise _not_found()
        return _json(self._venue.order_message(order))

    def _list_orders(self, request: Request) -> Response:
        query = _query(request)
        status, newest_first = query.get("status", "open"), _newest_first(query)
        if status not in ("open", "closed", "all"):
            raise _unprocessable(f"invalid status {status!r}", alpaca.BAD_PARAMETER)
        limit = _whole_number(query, "limit", 50, 500)
        after, until = _moment(query, "after"), _moment(query, "until")
        symbols = query["symbols"].split(",") if query.get("symbols") else self._venue.symbols
        exchange = self._venue.exchange
        # Links are in order of arrival; open ones are few, so that a poll does not walk through the whole history.
        found = sorted(exchange.working_orders(), key=_arrival) if status == "open" else list(exchange.links.values())
        orders = []
        for order in reversed(found) if newest_first else found:
            if (
                (status != "closed" or order.state.is_final)
                and (after is None or order.created_ns > after)
                and (until is None or order.created_ns < until)
                and order.request.instrument in symbols
                and order.request.side.value == query.get("side", order.request.side.value)
            ):
                orders.append(self._venue.order_message(order))
                if len(orders) == limit:
                    break
        return _json(orders)

    # -- the account --

    def _positions(self, request: Request) -> Response:
        positions = self._venue.exchange.ledger.positions
        held = [(symbol, position) for symbol, position in positions.items() if position.quantity]
        return _json([self._venue.position_message(symbol, position) for symbol, position in held])

    def _position(self, request: Request, key: str) -> Response:
        position = self._venue.exchange.ledger.position(self._symbol(key, "position does not exist"))
        if not position.quantity:
            raise _not_found("position does not exist")
        return _json(self._venue.position_message(self._symbol(key), position))

    def _activities(self, request: Request) -> Response:
        query = _query(request)
        page = _whole_number(query, "page_size", 100, 100)
        after, until = _moment(query, "after"), _moment(query, "until")
        exchange = self._venue.exchange
        fills = exchange.fills if after is None else exchange.fills_since(after + 1)
        fills = [fill for fill in fills if until is None or fill.ts_event < until]
        if _newest_first(query):
            fills.reverse()
        token = query.get("page_token")
        if token is not None:
            fills = fills[self._place_of(token, fills) + 1 :]
        return _json([activity(self._venue, fill) for fill in fills[:page]])

    def _place_of(self, token: str, fills: Sequence[BrokerUpdate]) -> int:
        """The place of the fill that a page ended with."""
        execution_id = token.rpartition("::")[2]
        for place, fill in enumerate(fills):
            if fill.execution is not None and fill.execution.execution_id == execution_id:
                if activity(self._venue, fill)["id"] == token:
                    return place
                break
        raise _unprocessable("invalid page_token", alpaca.BAD_PARAMETER)

    def _simulation_state(self, request: Request) -> Response:
        venue = self._venue
        ledger = venue.exchange.ledger
        state = {
            "seed": venue.config.seed,
            "started_at": format_time(venue.started_ns),
            "events_made": venue.events_made,
            "orders": len(venue.exchange.orders),
            "working_orders": venue.exchange.working_count,
            "fills": len(venue.exchange.fills),
            "cash": {currency: amount(value) for currency, value in ledger.cash.items()},
            "fees": {currency: amount(value) for currency, value in ledger.fees.items()},
            "positions": {symbol: amount(position.quantity) for symbol, position in ledger.positions.items()},
        }
        return _json(state | dict(self._simulation()))

    def _symbol(self, key: str, message: str = "asset not found") -> str:
        symbol = self._venue.symbol_by_asset_id.get(key, key)
        if symbol not in self._venue.asset_ids:
            raise _not_found(f"{message}: {key}" if message.startswith("asset") else message)
        return symbol


def _arrival(order: VenueOrder) -> int:
    return order.created_ns


def _json(content: Any) -> Response:
    return Response(200, alpaca.encode(content))


def _body(request: Request, kind: type[alpaca.MessageT]) -> alpaca.MessageT:
    try:
        return alpaca.decode(request.body, kind)
    except msgspec.ValidationError as error:
        raise _unprocessable(f"invalid request body: {error}", alpaca.BAD_PARAMETER) from error
    except msgspec.DecodeError as error:
        raise _Problem(400, alpaca.BAD_BODY, "request body format is invalid") from error


def _order_request(body: OrderBody, venue: Venue) -> OrderRequest:
    if body.order_class not in (None, "", "simple"):
        raise _unprocessable(f"this venue does not take order_class {body.order_class!r}")
    for name in ("notional", "trail_price", "trail_percent"):
        if getattr(body, name) is not None:
            raise _unprocessable(f"this venue does not take {name}")
    if body.qty is None:
        raise _unprocessable("qty is required", alpaca.BAD_PARAMETER)
    client_order_id = body.client_order_id
    if client_order_id is not None and not 0 < len(client_order_id) <= LONGEST_ID:
        raise _unprocessable(f"client_order_id must have 1 to {LONGEST_ID} characters", alpaca.BAD_PARAMETER)
    return OrderRequest(
        client_order_id=venue.new_id() if client_order_id is None else client_order_id,
        instrument=body.symbol,
        side=_word(Side, "side", body.side),
        quantity=body.qty,
        order_type=_word(OrderType, "type", body.type),
        limit_price=body.limit_price,
        stop_price=body.stop_price,
        time_in_force=_word(TimeInForce, "time_in_force", body.time_in_force),
    )


def _word(kind: type[WordT], name: str, word: str) -> WordT:
    try:
        return kind(word)
    except ValueError:
        known = ", ".join(member.value for member in kind)
        raise _unprocessable(f"invalid {name} {word!r}, this venue knows {known}", alpaca.BAD_PARAMETER) from None


def _query(request: Request) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(urlsplit(request.target).query).items()}


def _newest_first(query: Mapping[str, str]) -> bool:
    direction = query.get("direction", "desc")
    if direction not in ("asc", "desc"):
        raise _unprocessable(f"invalid direction {direction!r}", alpaca.BAD_PARAMETER)
    return direction == "desc"


def _whole_number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
        raise _unprocessable(f"{name} must be from 1 to {most}, was {text!r}", alpaca.BAD_PARAMETER)
    return int(text)


def _moment(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    try:
        # A "+" that was not escaped arrives as a space; in a time it can only be the sign of an offset.
        return None if text is None else parse_time(text[:19] + text[19:].replace(" ", "+"))
    except (ValueError, OverflowError) as error:
        raise _unprocessable(f"invalid {name}: {error}", alpaca.BAD_PARAMETER) from error
