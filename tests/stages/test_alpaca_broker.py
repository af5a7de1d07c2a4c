"""The broker adapter against the simulated venue's server, and against a wire that fails."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import httpx
import pytest
import trio

from trio_nt.alpaca import encode
from trio_nt.errors import DuplicateOrder, ExecutionError, OrderRejected, OutcomeUnknown
from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.market import venue_instruments
from trio_nt.exchange.server import serve_exchange
from trio_nt.execution.alpaca import KEY_VARIABLE, SECRET_VARIABLE, AlpacaBroker, open_alpaca
from trio_nt.execution.limiter import RateLimit
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.instruments import Side
from trio_nt.model.orders import BrokerUpdate, OrderRequest, OrderState, UpdateKind

D = Decimal
INSTRUMENTS = venue_instruments(2, maker_fee=D(0), taker_fee=D("0.0003"))
SYMBOL = INSTRUMENTS.ids[0]
KEYS = {"sim": "sim"}


def market(order_id: str, quantity: int = 2) -> OrderRequest:
    return OrderRequest(order_id, SYMBOL, Side.BUY, D(quantity))


def resting(order_id: str, price: str = "1.00") -> OrderRequest:
    return OrderRequest(order_id, SYMBOL, Side.BUY, D(5), OrderType.LIMIT, D(price), None, TimeInForce.GTC)


@asynccontextmanager
async def venue(**settings: Any) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        config = ExchangeConfig(symbols=2, events_per_second=500, **settings)
        port = await nursery.start(partial(serve_exchange, config, now_ns=time.time_ns))
        yield f"http://127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


def connect(url: str, **settings: Any) -> Any:
    keys = {"key": "sim", "secret": "sim"} | settings
    return open_alpaca(url, INSTRUMENTS, unix_s=time.time, **keys)


class Heard:
    """Collects a broker's updates until something is there."""

    def __init__(self, broker: AlpacaBroker) -> None:
        self.updates: list[BrokerUpdate] = []
        self._broker = broker

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with self._broker.updates() as receiver:
            task_status.started()
            while True:
                self.updates += await receiver.receive()

    async def until(self, order_id: str, kind: UpdateKind) -> BrokerUpdate:
        with trio.fail_after(60):
            while True:
                for update in self.updates:
                    if update.client_order_id == order_id and update.kind is kind:
                        return update
                await trio.sleep(0.005)


@asynccontextmanager
async def trading(**settings: Any) -> AsyncIterator[tuple[AlpacaBroker, Heard]]:
    async with venue(**settings) as url, connect(url) as broker, trio.open_nursery() as nursery:
        heard = Heard(broker)
        await nursery.start(heard.run)
        await trio.sleep(0.05)  # the venue's market has begun
        yield broker, heard
        nursery.cancel_scope.cancel()


async def test_a_market_order_is_accepted_and_filled() -> None:
    sent: list[tuple[str, int]] = []
    async with trading() as (broker, heard):
        broker.on_sent = lambda order_id, stamp: sent.append((order_id, stamp))
        before = time.perf_counter_ns()
        order = await broker.submit(market("o-1"))
        after = time.perf_counter_ns()
        assert order.client_order_id == "o-1"
        assert [(order_id, before < stamp < after) for order_id, stamp in sent] == [("o-1", True)]
        update = await heard.until("o-1", UpdateKind.FILLED)
        assert update.execution is not None
        assert update.execution.quantity == 2
        assert update.execution.fee > 0
        assert update.request is not None
        found = await broker.find("o-1")
        assert found is not None
        assert (found.state, found.filled_quantity) == (OrderState.FILLED, 2)
        assert await broker.positions() == {SYMBOL: D(2)}
        cash = (await broker.account()).cash["USD"]
        spent = update.execution.quantity * update.execution.price + update.execution.fee
        assert abs(cash - (D(100_000) - spent)) < D("0.01")
        (fill,) = await broker.fills_since(update.ts_event)
        assert fill.execution == update.execution
        assert (fill.client_order_id, fill.kind) == ("o-1", UpdateKind.FILLED)
        assert await broker.fills_since(update.ts_event + 1) == []


async def test_a_resting_order_is_listed_replaced_and_cancelled_under_one_name() -> None:
    async with trading() as (broker, heard):
        first = await broker.submit(resting("o-1"))
        assert [order.client_order_id for order in await broker.open_orders()] == ["o-1"]
        second = await broker.replace("o-1", quantity=D(7), limit_price=D("1.10"))
        assert second.client_order_id == "o-1"
        assert second.broker_order_id != first.broker_order_id
        assert second.request is not None
        assert (second.quantity, second.request.limit_price) == (7, D("1.10"))
        update = await heard.until("o-1", UpdateKind.REPLACED)
        assert update.broker_order_id == second.broker_order_id
        found = await broker.find("o-1")
        assert found is not None
        assert found.broker_order_id == second.broker_order_id
        await broker.cancel("o-1")
        await heard.until("o-1", UpdateKind.CANCELLED)
        assert await broker.open_orders() == []


async def test_after_a_restart_an_order_is_found_and_cancelled_by_its_client_order_id() -> None:
    async with venue() as url:
        async with connect(url) as broker:
            await trio.sleep(0.05)
            await broker.submit(resting("o-1"))
            await broker.replace("o-1", quantity=D(7))
        async with connect(url) as broker:
            await broker.cancel("o-1")
            found = await broker.find("o-1")
            assert found is not None
            assert found.state is OrderState.CANCELLED


async def test_refusals_are_told_apart() -> None:
    async with trading() as (broker, _):
        await broker.submit(resting("o-1"))
        with pytest.raises(DuplicateOrder, match="unique"):
            await broker.submit(resting("o-1"))
        with pytest.raises(OrderRejected, match="HTTP 4"):
            await broker.submit(resting("o-2", "1.123"))
        with pytest.raises(OrderRejected, match="does not know"):
            await broker.cancel("nobody's")
        assert await broker.find("nobody's") is None
        await broker.cancel("o-1")
        with pytest.raises(OrderRejected):
            await broker.cancel("o-1")


async def test_wrong_keys() -> None:
    async with venue() as url, connect(url, secret="wrong") as broker:
        with pytest.raises(ExecutionError, match="401") as caught:
            await broker.submit(market("o-1"))
        assert not isinstance(caught.value, OrderRejected)
        with pytest.raises(ExecutionError, match="unauthorized"):
            async with broker.updates():
                pass  # pragma: no cover


async def test_nobody_is_there() -> None:
    async with connect("http://127.0.0.1:1") as broker:
        with pytest.raises(ExecutionError) as caught:
            await broker.submit(market("o-1"))
        assert not isinstance(caught.value, OutcomeUnknown)  # it did not leave
        with pytest.raises(ExecutionError, match="cannot be reached"):
            async with broker.updates():
                pass  # pragma: no cover


async def test_the_stream_ends_with_the_venue() -> None:
    async with trio.open_nursery() as nursery:
        config = ExchangeConfig(symbols=2, events_per_second=500)
        port = await nursery.start(partial(serve_exchange, config, now_ns=time.time_ns))
        async with connect(f"http://127.0.0.1:{port}") as broker, broker.updates() as receiver:
            nursery.cancel_scope.cancel()
            with (
                trio.CancelScope(shield=True, deadline=trio.current_time() + 5),
                pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)),
            ):
                await receiver.receive()


async def test_keys_come_from_the_environment_and_stand_nowhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ExecutionError, match=f"{KEY_VARIABLE} and {SECRET_VARIABLE}"):
        async with open_alpaca("http://127.0.0.1:1", INSTRUMENTS, unix_s=time.time):
            pass  # pragma: no cover
    monkeypatch.setenv(KEY_VARIABLE, "my-key")
    monkeypatch.setenv(SECRET_VARIABLE, "my-secret")
    caplog.set_level(logging.DEBUG)
    async with open_alpaca("http://127.0.0.1:1", INSTRUMENTS, unix_s=time.time) as broker:
        with pytest.raises(ExecutionError) as caught:
            await broker.submit(market("o-1"))
        for text in (repr(broker), str(broker), str(caught.value), caplog.text):
            assert "my-key" not in text
            assert "my-secret" not in text


# -- a wire that fails --


class Script(httpx.AsyncBaseTransport):
    """Answers with what the test says, one after another."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


ORDER = {"id": "b-1", "client_order_id": "o-1", "symbol": SYMBOL, "qty": "2", "side": "buy", "type": "market",
         "time_in_force": "day", "status": "new"}  # fmt: skip


def answer(status: int, content: object = None, **headers: str) -> httpx.Response:
    body = content if isinstance(content, bytes) else encode(content)
    return httpx.Response(status, content=body, headers={key.replace("_", "-"): text for key, text in headers.items()})


@asynccontextmanager
async def scripted(*answers: httpx.Response | Exception, **settings: Any) -> AsyncIterator[tuple[AlpacaBroker, Script]]:
    script = Script(*answers)

    def unix_s() -> float:
        return 1_000_000 + trio.current_time()

    async with open_alpaca(
        "http://venue", INSTRUMENTS, unix_s=unix_s, key="k", secret="s", transport=script, **settings
    ) as broker:
        yield broker, script


@pytest.mark.parametrize(
    "lost",
    [
        httpx.ReadError("reset"), httpx.ReadTimeout("slow"), httpx.WriteError("reset"),
        httpx.RemoteProtocolError("hung up"), answer(500, {}), answer(504, b"<html>"), answer(200, b"{"),
        answer(200, {"id": "b-1"}),
    ],
)  # fmt: skip
async def test_no_answer_or_one_without_meaning_is_an_unknown_outcome_and_nothing_is_sent_twice(
    lost: httpx.Response | Exception,
) -> None:
    async with scripted(lost) as (broker, script):
        with pytest.raises(OutcomeUnknown):
            await broker.submit(market("o-1"))
        assert len(script.requests) == 1


@pytest.mark.parametrize(
    "down", [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), httpx.PoolTimeout("full")]
)
async def test_a_request_that_never_left_is_no_unknown_outcome(down: Exception) -> None:
    async with scripted(down) as (broker, _):
        with pytest.raises(ExecutionError) as caught:
            await broker.submit(market("o-1"))
        assert not isinstance(caught.value, OutcomeUnknown)


async def test_reading_is_repeated(autojump_clock: trio.abc.Clock) -> None:
    async with scripted(httpx.ReadError("reset"), answer(503, {}), answer(200, ORDER)) as (broker, script):
        assert await broker.find("o-1") is not None
        assert len(script.requests) == 3
    async with scripted(*[httpx.ReadError("reset")] * 3) as (broker, script):
        with pytest.raises(ExecutionError, match="reset"):
            await broker.find("o-1")


async def test_a_refusal_for_the_rate_is_repeated_when_the_headers_allow(autojump_clock: trio.abc.Clock) -> None:
    refused = answer(429, {"code": 42910000, "message": "rate limit exceeded"}, Retry_After="2")
    async with scripted(refused, answer(200, ORDER)) as (broker, script):
        start = trio.current_time()
        await broker.submit(market("o-1"))
        assert trio.current_time() - start == pytest.approx(2)
        assert len(script.requests) == 2


async def test_nothing_is_sent_when_the_headers_say_that_nothing_is_left(autojump_clock: trio.abc.Clock) -> None:
    last = answer(200, ORDER, X_RateLimit_Remaining="0", X_RateLimit_Reset=str(1_000_000 + 3))
    async with scripted(last, answer(200, ORDER)) as (broker, _):
        await broker.submit(market("o-1"))
        await broker.submit(market("o-2"))
        assert trio.current_time() == pytest.approx(3)


async def test_a_rate_limit_that_asks_for_too_long_is_an_error(autojump_clock: trio.abc.Clock) -> None:
    refused = answer(429, {}, Retry_After="60")
    async with scripted(refused, max_wait_s=5.0) as (broker, _):
        with pytest.raises(ExecutionError, match="wait 60") as caught:
            await broker.submit(market("o-1"))
        assert not isinstance(caught.value, OutcomeUnknown)


def test_rate_limit_headers() -> None:
    limit = RateLimit()
    assert limit.delay_s(100) == 0
    limit.read({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "160"}, 100)
    assert limit.delay_s(100) == 0
    limit.read({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "160"}, 100)
    assert limit.delay_s(100) == 60
    limit.read({"retry-after": "soon"}, 100)
    assert limit.delay_s(100) == 0
    limit.read({"retry-after": "3"}, 100)
    assert limit.delay_s(101) == 2
    assert limit.delay_s(200) == 0


async def test_a_chain_under_the_brokers_own_names_leads_to_ours() -> None:
    """The broker gives each replacing order a client order id of its own; ours stays the only one outside."""
    second = ORDER | {"id": "b-2", "client_order_id": "made-up", "replaces": "b-1", "qty": "3"}
    replaced = ORDER | {"status": "replaced", "replaced_by": "b-2"}
    async with scripted(answer(200, ORDER), answer(200, second), answer(200, replaced), answer(200, second)) as (
        broker,
        script,
    ):
        await broker.submit(market("o-1"))
        order = await broker.replace("o-1", quantity=D(3))
        assert (order.client_order_id, order.broker_order_id) == ("o-1", "b-2")
        found = await broker.find("o-1")
        assert found is not None
        assert (found.client_order_id, found.broker_order_id, found.quantity) == ("o-1", "b-2", 3)
        assert script.requests[1].url.path == "/v2/orders/b-1"


async def test_an_execution_told_by_the_brokers_id_alone_finds_its_order() -> None:
    activity = {"id": "2026::e-1", "transaction_time": "2026-01-01T00:00:00Z", "type": "fill", "price": "10",
                "qty": "2", "symbol": SYMBOL, "order_id": "b-1"}  # fmt: skip
    async with scripted(answer(200, [activity]), answer(200, ORDER)) as (broker, _):
        (update,) = await broker.fills_since(0)
        assert update.client_order_id == "o-1"
        assert update.execution is not None
        assert update.execution.execution_id == "e-1"
