"""The venue in the process, seen through the Broker protocol."""

from decimal import Decimal

import pytest
import trio
import trio.testing

from trio_nt.errors import DuplicateOrder, OrderRejected
from trio_nt.exchange import simulated
from trio_nt.exchange.matching import Exchange
from trio_nt.exchange.simulated import SimulatedBroker, show_rows
from trio_nt.model.actions import OrderType
from trio_nt.model.instruments import Instrument, Instruments, Side
from trio_nt.model.market import QUOTE, TRADE, empty_columns
from trio_nt.model.orders import OrderRequest, OrderState, UpdateKind


def columns(*rows: tuple[object, ...]):
    """Rows ``(instrument, bid, ask)`` or ``(instrument, price)``, one nanosecond apart, from 1."""
    made = empty_columns(len(rows))
    made["ts_init"][:] = range(1, len(rows) + 1)
    for number, (index, *values) in enumerate(rows):
        made["instrument"][number] = index
        made["kind"][number] = QUOTE if len(values) == 2 else TRADE
        for name, value in zip(("bid", "ask") if len(values) == 2 else ("price",), values, strict=True):
            made[name][number] = value
        for name in ("bid_size", "ask_size", "size"):
            made[name][number] = 1
    return made


def make(cash: object = 100_000) -> SimulatedBroker:
    broker = SimulatedBroker(cash=cash)  # type: ignore[arg-type]
    broker.bind(Instruments([Instrument(id="AAA", symbol="AAA"), Instrument(id="BBB", symbol="BBB")]))
    return broker


def limit(key: str, price: str, side: Side = Side.BUY) -> OrderRequest:
    return OrderRequest(key, "AAA", side, Decimal(10), OrderType.LIMIT, Decimal(price))


async def test_an_order_fills_and_the_stream_tells_it():
    broker = make()
    broker.observe(columns((0, 1.00, 1.01)))
    async with broker.updates() as updates:
        order = await broker.submit(OrderRequest("a", "AAA", Side.BUY, Decimal(10)))
        assert order.state is OrderState.FILLED
        assert [update.kind for update in await updates.receive()] == [UpdateKind.ACCEPTED, UpdateKind.FILLED]
    assert await broker.positions() == {"AAA": 10}
    assert (await broker.account()).cash == {"USD": Decimal("99989.90")}
    assert [fill.client_order_id for fill in await broker.fills_since(0)] == ["a"]
    assert await broker.fills_since(2) == []


async def test_a_resting_order_fills_from_the_market_that_it_is_shown():
    broker = make()
    broker.observe(columns((0, 1.00, 1.01)))
    await broker.submit(limit("a", "0.99"))
    assert [order.client_order_id for order in await broker.open_orders()] == ["a"]
    async with broker.updates() as updates:
        broker.observe(columns((1, 0.10, 0.20), (0, 0.98), (0, 1.00, 1.01)))
        (update,) = await updates.receive()
    assert (update.kind, update.ts_event) == (UpdateKind.FILLED, 2)
    found = await broker.find("a")
    assert found is not None
    assert found.state is OrderState.FILLED
    assert await broker.find("b") is None


async def test_a_refusal_is_raised_with_its_reason_and_not_streamed():
    broker = make()
    async with broker.updates() as updates:
        with pytest.raises(OrderRejected, match="sub-penny"):
            await broker.submit(limit("a", "0.999"))
        with pytest.raises(OrderRejected, match="order not found"):
            await broker.cancel("a")
        await broker.submit(limit("a", "0.99"))
        with pytest.raises(DuplicateOrder):
            await broker.submit(limit("a", "0.98"))
        with pytest.raises(OrderRejected, match="multiple of 1"):
            await broker.replace("a", quantity=Decimal("1.5"))
        assert [update.kind for update in await updates.receive()] == [UpdateKind.ACCEPTED]


async def test_cancel_and_replace():
    broker = make()
    await broker.submit(limit("a", "0.99"))
    order = await broker.replace("a", quantity=Decimal(20), limit_price=Decimal("0.98"))
    assert (order.quantity, order.client_order_id) == (20, "a")
    await broker.cancel("a")
    assert await broker.open_orders() == []


async def test_every_listener_hears_everything_from_when_it_came():
    broker = make()
    async with broker.updates() as first:
        await broker.submit(limit("a", "0.99"))
        async with broker.updates() as second:
            await broker.cancel("a")
            assert [update.kind for update in await first.receive()] == [UpdateKind.ACCEPTED, UpdateKind.CANCELLED]
            assert [update.kind for update in await second.receive()] == [UpdateKind.CANCELLED]
        with pytest.raises(trio.EndOfChannel):
            await second.receive()


async def test_a_listener_waits_for_what_comes():
    broker = make()
    heard = []

    async def listen(task_status):
        async with broker.updates() as updates:
            task_status.started()
            heard.extend(await updates.receive())

    async with trio.open_nursery() as nursery:
        await nursery.start(listen)
        await trio.testing.wait_all_tasks_blocked()
        assert heard == []
        await broker.submit(limit("a", "0.99"))
    assert [update.client_order_id for update in heard] == ["a"]


async def test_a_listener_that_falls_behind_is_told_instead_of_growing(monkeypatch):
    monkeypatch.setattr(simulated, "UPDATE_CAPACITY", 3)
    broker = make()
    async with broker.updates() as updates:
        for number in range(4):
            await broker.submit(limit(f"o{number}", "0.99"))
        with pytest.raises(trio.BrokenResourceError, match="fell behind"):
            await updates.receive()


async def test_every_call_is_a_checkpoint():
    broker = make()
    with trio.testing.assert_checkpoints():
        await broker.submit(limit("a", "0.99"))
    with trio.testing.assert_checkpoints():
        await broker.open_orders()
    with trio.testing.assert_checkpoints():
        await broker.account()


def test_a_broker_serves_one_engine():
    broker = make()
    with pytest.raises(RuntimeError, match="give each engine its own"):
        broker.bind(Instruments())


def test_cash_may_be_in_several_currencies():
    assert dict(make({"USD": 1, "BTC": "0.5"}).exchange.ledger.cash) == {"USD": 1, "BTC": Decimal("0.5")}


def test_bad_rows_and_rows_of_idle_instruments_are_not_shown():
    class Counting(Exchange):
        shown = 0

        def quote(self, *arguments):
            self.shown += 1
            return super().quote(*arguments)

    exchange = Counting(Instruments([Instrument(id="AAA", symbol="AAA")]), cash={}, match_on_arrival=True)
    block = columns((0, 1.00, 1.01), (0, 1.01, 1.02), (0, 5.00, 4.00))
    block["flags"][2] = 4
    assert show_rows(exchange, block) == []
    assert exchange.shown == 1
    assert exchange.last_quote(0) == (1.01, 1.02, 1, 1, 2)
    assert show_rows(exchange, columns()) == []
