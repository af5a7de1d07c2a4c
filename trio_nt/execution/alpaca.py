"""A broker that speaks Alpaca's dialect: the simulated venue, paper trading, live trading.

Rules
-----
- A request that changes something is sent once. No answer (a lost connection, a timeout, a 5xx, a body that is no
  JSON) is ``OutcomeUnknown``; whoever asked looks it up. Reading is repeated.
- A refusal for the rate limit had no effect, so it is repeated when the headers allow it, if that is soon.
- Replacing makes a new order at the broker, under ids of the broker's choice. Every message names the order that it
  replaces, so each link leads to the client order id of the first: the only one that anybody outside sees.
- Keys come from the caller or from the environment and stand in no repr, log or error.
"""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import TypeVar
from urllib.parse import quote

import attrs
import httpx
import msgspec
import trio

from trio_nt.alpaca import (
    KEY_HEADER,
    SECRET_HEADER,
    AccountMessage,
    ErrorBody,
    OrderMessage,
    PositionMessage,
    TradeUpdate,
    broker_order,
    broker_update,
    decode,
    encode_order,
    encode_replace,
    format_time,
    parse_time,
)
from trio_nt.errors import DuplicateOrder, ExecutionError, OrderRejected, OutcomeUnknown
from trio_nt.execution.alpaca_updates import Updates, open_updates
from trio_nt.execution.limiter import RateLimit
from trio_nt.execution.transport import Answer
from trio_nt.execution.wire import DirectWire, HttpxWire, Wire
from trio_nt.model.broker import Account, BrokerOrder
from trio_nt.model.instruments import Instruments
from trio_nt.model.money import to_decimal
from trio_nt.model.orders import BrokerUpdate, Execution, Liquidity, OrderRequest, UpdateKind

PAPER_URL, LIVE_URL = "https://paper-api.alpaca.markets", "https://api.alpaca.markets"
KEY_VARIABLE, SECRET_VARIABLE = "APCA_API_KEY_ID", "APCA_API_SECRET_KEY"
_READ_ATTEMPTS = 3
_KNOWN_IDS = 100_000
_PAGE = 500
_NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
MessageT = TypeVar("MessageT")


class _Activity(msgspec.Struct):
    """One execution of the past. The last four keys are the simulated venue's own."""

    id: str
    transaction_time: str
    type: str
    price: str
    qty: str
    symbol: str
    order_id: str
    client_order_id: str | None = None
    fee: str = "0"
    fee_currency: str = "USD"
    liquidity: str = "taker"


class AlpacaBroker:
    """The ``Broker`` protocol over HTTP and the stream ``trade_updates``. Open it with ``open_alpaca``."""

    def __init__(
        self,
        wire: Wire,
        instruments: Instruments,
        *,
        stream_url: str,
        key: str,
        secret: str,
        timeout_s: float,
        max_wait_s: float,
        unix_s: Callable[[], float],
    ) -> None:
        self._wire = wire
        self._instruments = instruments
        self._stream_url = stream_url
        self._key, self._secret = key, secret
        self._timeout_s = timeout_s
        self._max_wait_s = max_wait_s
        self._unix_s = unix_s
        self._rate = RateLimit()
        self._broker_ids: dict[str, str] = {}  # the last link of each chain, by our client order id
        self._links: dict[str, str] = {}  # our client order id, by the broker id of every link
        self.on_sent: Callable[[str, int], None] | None = None

    def __repr__(self) -> str:
        return f"AlpacaBroker({self._wire.url!r})"

    # ── requests that change something ──

    async def submit(self, request: OrderRequest) -> BrokerOrder:
        content = encode_order(request, self._symbol(request.instrument))
        answer = await self._change("POST", "/v2/orders", content, request.client_order_id)
        return self._known(self._read(answer, OrderMessage, changes=True))

    async def replace(
        self, client_order_id: str, *, quantity: Decimal | None = None, limit_price: Decimal | None = None
    ) -> BrokerOrder:
        broker_id = await self._broker_id(client_order_id)
        answer = await self._change("PATCH", f"/v2/orders/{broker_id}", encode_replace(quantity, limit_price))
        return self._known(self._read(answer, OrderMessage, changes=True))

    async def cancel(self, client_order_id: str) -> None:
        broker_id = await self._broker_id(client_order_id)
        await self._change("DELETE", f"/v2/orders/{broker_id}", None)

    # ── requests that look ──

    async def find(self, client_order_id: str) -> BrokerOrder | None:
        path = f"/v2/orders:by_client_order_id?client_order_id={quote(client_order_id, safe='')}"
        answer = await self._look(path)
        while True:
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            message = self._read(answer, OrderMessage)
            if not message.replaced_by:
                return self._known(message)
            answer = await self._look(f"/v2/orders/{message.replaced_by}")

    async def open_orders(self) -> Sequence[BrokerOrder]:
        return [order for order in map(self._known, await self._list_orders("open")) if not order.state.is_final]

    async def fills_since(self, ts_event: int) -> Sequence[BrokerUpdate]:
        """Executions at or after ``ts_event`` (UNIX ns by the broker's clock), oldest first."""
        updates: list[BrokerUpdate] = []
        token = ""
        while True:
            after = quote(format_time(max(ts_event - 1, 0)), safe="")
            path = f"/v2/account/activities/FILL?direction=asc&page_size=100&after={after}{token}"
            activities = self._read(await self._look(path), list[_Activity])
            updates += [await self._activity(activity) for activity in activities]
            if len(activities) < 100:
                return updates
            token = f"&page_token={quote(activities[-1].id, safe='')}"

    async def positions(self) -> Mapping[str, Decimal]:
        messages = self._read(await self._look("/v2/positions"), list[PositionMessage])
        return {self._instrument(message.symbol): to_decimal(message.qty) for message in messages}

    async def account(self) -> Account:
        message = self._read(await self._look("/v2/account"), AccountMessage)
        return Account({message.currency: to_decimal(message.cash or "0")}, message.account_number)

    # ── the update stream ──

    def updates(self) -> AbstractAsyncContextManager[Updates]:
        return open_updates(
            self._stream_url, key=self._key, secret=self._secret, timeout_s=self._timeout_s, read=self._update
        )

    # ── the wire ──

    async def _change(self, method: str, path: str, content: bytes | None, sent_id: str = "") -> Answer:
        """One request that is sent once. The response is a success."""
        on_sent = partial(self.on_sent, sent_id) if sent_id and self.on_sent is not None else None
        waited_s = 0.0
        while True:
            waited_s += await self._await_welcome(waited_s)
            try:
                answer = await self._wire.send(method, path, content, on_sent)
            except _NEVER_LEFT as error:
                raise ExecutionError(f"{method} {path}: cannot reach the broker: {error}") from error
            except httpx.HTTPError as error:
                raise OutcomeUnknown(f"{method} {path}: no answer: {type(error).__name__} {error}") from error
            self._rate.read(answer.headers, self._unix_s())
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                break
            if not self._rate.delay_s(self._unix_s()):
                self._rate.read({"retry-after": "1"}, self._unix_s())
        if answer.status_code >= 500:
            raise OutcomeUnknown(f"{method} {path}: the broker answered {answer.status_code}")
        if not _is_success(answer):
            raise self._refusal(answer)
        return answer

    async def _look(self, path: str) -> Answer:
        """A GET, repeated while nobody answers. The response is a success or 404."""
        waited_s = 0.0
        problem: Exception | None = None
        for attempt in range(_READ_ATTEMPTS):
            if attempt:
                await trio.sleep(0.05 * 4**attempt)
            waited_s += await self._await_welcome(waited_s)
            try:
                answer = await self._wire.send("GET", path)
            except httpx.HTTPError as error:
                problem = error
                continue
            self._rate.read(answer.headers, self._unix_s())
            if _is_success(answer) or answer.status_code == httpx.codes.NOT_FOUND:
                return answer
            problem = self._refusal(answer)
            if answer.status_code < 500 and answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                break
        raise ExecutionError(f"GET {path.partition('?')[0]}: {problem}") from problem

    async def _await_welcome(self, waited_s: float) -> float:
        """Wait as long as the rate limit asks for; seconds waited."""
        delay_s = self._rate.delay_s(self._unix_s())
        if waited_s + delay_s > self._max_wait_s:
            raise ExecutionError(f"the broker's rate limit asks to wait {delay_s:.1f} s")
        if delay_s:
            await trio.sleep(delay_s)
        return delay_s

    def _refusal(self, answer: Answer) -> ExecutionError:
        try:
            body = decode(answer.content, ErrorBody)
        except msgspec.DecodeError:
            body = ErrorBody(message=answer.reason_phrase)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            return ExecutionError(f"the broker does not know these keys (HTTP 401): {body.message}")
        text = f"{body.message} (HTTP {answer.status_code}{f', code {body.code}' if body.code else ''})"
        if "client_order_id must be unique" in body.message:
            return DuplicateOrder(text)
        return OrderRejected(text)

    def _read(self, answer: Answer, kind: type[MessageT], *, changes: bool = False) -> MessageT:
        try:
            return decode(answer.content, kind)
        except msgspec.DecodeError as error:
            # A change whose answer is garbled has happened all the same.
            problem = OutcomeUnknown if changes else ExecutionError
            raise problem(f"an answer without meaning: {error}") from error

    # ── names ──

    def _known(self, message: OrderMessage) -> BrokerOrder:
        """An order under our own client order id, its broker id remembered."""
        message.client_order_id = self._root(message)
        order = broker_order(message, self._instrument(message.symbol or ""))
        self._broker_ids[order.client_order_id] = message.replaced_by or order.broker_order_id
        _keep_last(self._broker_ids)
        return order

    def _root(self, message: OrderMessage) -> str:
        """The client order id of the first link of the chain that an order belongs to."""
        root = self._links.get(message.id) or self._links.get(message.replaces or "") or message.client_order_id
        for link in (message.id, message.replaced_by):
            if link:
                self._links[link] = root
        _keep_last(self._links)
        return root

    async def _broker_id(self, client_order_id: str) -> str:
        known = self._broker_ids.get(client_order_id)
        if known is not None:
            return known
        found = await self.find(client_order_id)
        if found is None:
            raise OrderRejected(f"the broker does not know order {client_order_id}")
        return found.broker_order_id

    def _symbol(self, instrument: str) -> str:
        return self._instruments[instrument].symbol if instrument in self._instruments else instrument

    def _instrument(self, symbol: str) -> str:
        try:
            return self._instruments[symbol].id
        except KeyError:
            return symbol  # one that this run does not trade; its orders and positions are somebody else's

    async def _list_orders(self, status: str) -> list[OrderMessage]:
        """Every order of a status, oldest first, page by page."""
        found: list[OrderMessage] = []
        after = ""
        while True:
            path = f"/v2/orders?status={status}&limit={_PAGE}&direction=asc{after}"
            page = self._read(await self._look(path), list[OrderMessage])
            found += page
            if len(page) < _PAGE or not page[-1].submitted_at:
                return found
            after = f"&after={quote(page[-1].submitted_at, safe='')}"

    async def _activity(self, activity: _Activity) -> BrokerUpdate:
        """An execution of the past. The broker's own kind of message names its order by the broker's id alone."""
        client_order_id = self._links.get(activity.order_id) or activity.client_order_id
        if client_order_id is None:
            answer = await self._look(f"/v2/orders/{activity.order_id}")
            if _is_success(answer):
                client_order_id = self._known(self._read(answer, OrderMessage)).client_order_id
        execution = Execution(
            activity.id.rpartition("::")[2],
            to_decimal(activity.qty),
            to_decimal(activity.price),
            to_decimal(activity.fee),
            activity.fee_currency,
            Liquidity.MAKER if activity.liquidity == "maker" else Liquidity.TAKER,
        )
        return BrokerUpdate(
            UpdateKind.FILLED if activity.type == "fill" else UpdateKind.PARTIALLY_FILLED,
            client_order_id or "",
            activity.order_id,
            self._instrument(activity.symbol),
            parse_time(activity.transaction_time),
            execution,
        )

    def _update(self, data: msgspec.Raw) -> BrokerUpdate | None:
        try:
            message = decode(data, TradeUpdate)
        except msgspec.DecodeError as error:
            raise ExecutionError(f"the update stream said what has no meaning: {error}") from error
        order = message.order
        order.client_order_id = self._root(order)
        instrument = self._instrument(order.symbol or "")
        update = broker_update(message, instrument)
        if update is None:
            return None
        self._broker_ids[update.client_order_id] = update.broker_order_id
        _keep_last(self._broker_ids)
        if update.kind is UpdateKind.REPLACED:  # its message shows the order that was replaced, not the new one
            return update
        # An order of somebody else's is adopted by what its message says of it.
        return attrs.evolve(update, request=broker_order(order, instrument).request)


def _is_success(answer: Answer) -> bool:
    return httpx.codes.is_success(answer.status_code)


def _keep_last(known: dict[str, str]) -> None:
    while len(known) > _KNOWN_IDS:
        del known[next(iter(known))]


@asynccontextmanager
async def open_alpaca(
    url: str,
    instruments: Instruments,
    *,
    unix_s: Callable[[], float],
    key: str | None = None,
    secret: str | None = None,
    stream_url: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    timeout_s: float = 10.0,
    max_wait_s: float = 5.0,
    connections: int = 32,
) -> AsyncIterator[AlpacaBroker]:
    """Open a broker that speaks Alpaca's dialect; its connections are closed with the block.

    Args:
        url: of the REST interface, e.g. ``PAPER_URL`` or ``http://127.0.0.1:8080``.
        instruments: whose symbols the broker knows; others keep their symbol as id.
        unix_s: the engine's clock, UNIX seconds; rate limits are stated in it.
        key, secret: the API keys; by default from the environment (APCA_API_KEY_ID, APCA_API_SECRET_KEY).
        stream_url: of the update stream; by default ``url`` with ``ws`` and ``/stream``.
        transport: of httpx, to send requests through; by default they go over connections of our own.
        timeout_s: for one answer, and for connecting.
        max_wait_s: how long a request may wait for the rate limit.

    Raises:
        ExecutionError: keys are missing.
    """
    found_key, found_secret = key or os.environ.get(KEY_VARIABLE), secret or os.environ.get(SECRET_VARIABLE)
    if not found_key or not found_secret:
        raise ExecutionError(f"the broker's keys are missing: set {KEY_VARIABLE} and {SECRET_VARIABLE}")
    headers = {
        KEY_HEADER: found_key,
        SECRET_HEADER: found_secret,
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": "trio-nt",
    }
    wire: Wire
    if transport is None:
        wire = DirectWire(url, headers, timeout_s=timeout_s, connections=connections)
    else:
        wire = HttpxWire(transport, url, headers, timeout_s=timeout_s)
    async with aclosing(wire):
        yield AlpacaBroker(
            wire,
            instruments,
            stream_url=stream_url or "ws" + url.removeprefix("http") + "/stream",
            key=found_key,
            secret=found_secret,
            timeout_s=timeout_s,
            max_wait_s=max_wait_s,
            unix_s=unix_s,
        )
