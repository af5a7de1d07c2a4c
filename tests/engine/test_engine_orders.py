"""Kinds of orders through the whole engine: stops, stop-limits, orders that turn a position around."""

from typing import Any

import pytest
import trio
from engine_scripts import Listening, ScriptedFeed, arguments, failed_checks, pause, quote

from trio_nt import Instrument, Instruments, OrderType, buy, open_engine, sell, target
from trio_nt.engine import Engine
from trio_nt.model.instruments import InstrumentKind
from trio_nt.model.orders import OrderState


def stock() -> Instruments:
    return Instruments([Instrument(id="ABC", symbol="ABC", kind=InstrumentKind.EQUITY, quote="USD")])


def does(*actions: Any) -> Listening:
    """Does these, one with every quote."""
    left = list(actions)
    return Listening(lambda event, context: left.pop(0) if left else None)


async def run(strategy: Listening, *prices: float) -> Engine:
    """The engine over these prices, each of them settled before the next."""
    steps = [step for price in prices for step in (quote("ABC", price), pause(0.05))]
    with trio.fail_after(60):
        async with open_engine(**arguments([ScriptedFeed(*steps)], strategy, instruments=stock())) as engine:
            await engine.start()
            await engine.wait()
            assert failed_checks(engine) == []
            return engine


def states(engine: Engine) -> list[OrderState]:
    return [order.state for order in engine.desk.orders]


async def test_a_stop_sells_when_the_market_has_fallen_to_it_and_not_before() -> None:
    stop = sell("ABC", 10, stop_price=9.5)
    assert stop.order_type is OrderType.STOP
    strategy = does(buy("ABC", 10), stop)
    engine = await run(strategy, 10.0, 10.0, 9.75, 9.5, 9.0)
    assert states(engine) == [OrderState.FILLED] * 2
    assert engine.desk.position("listening", "ABC") == 0
    waiting = does(buy("ABC", 10), stop)
    engine = await run(waiting, 10.0, 10.0, 9.75)
    assert states(engine) == [OrderState.FILLED, OrderState.CANCELLED]  # on exit


async def test_a_stop_limit_rests_at_its_limit_once_the_market_has_fallen_through_it() -> None:
    order = sell("ABC", 10, stop_price=9.5, limit_price=9.4)
    assert order.order_type is OrderType.STOP_LIMIT
    engine = await run(does(buy("ABC", 10), order), 10.0, 10.0, 9.0, 9.0)
    assert states(engine) == [OrderState.FILLED, OrderState.CANCELLED]  # it never got its price
    engine = await run(does(buy("ABC", 10), order), 10.0, 10.0, 9.0, 9.45)
    assert states(engine) == [OrderState.FILLED] * 2


@pytest.mark.parametrize("wanted", [-4, -10])
async def test_turning_a_position_around_is_two_orders_one_after_the_other(wanted: int) -> None:
    strategy = does(target("ABC", 10), target("ABC", wanted))
    engine = await run(strategy, 10.0, 10.0, 10.0)
    assert [order.quantity for order in engine.desk.orders] == [10, 10, -wanted]
    assert states(engine) == [OrderState.FILLED] * 3
    assert engine.desk.position("listening", "ABC") == wanted
    names = strategy.names()
    assert names == ["Accepted", "Filled"] * 3
