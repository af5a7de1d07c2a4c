"""Orders that wait for others: held by the desk, released or dropped when those have ended."""

import itertools
from decimal import Decimal

import attrs
import pytest

from trio_nt.desk import Desk, Outcome
from trio_nt.model.actions import Action, Cancel, OrderType, Signal, target
from trio_nt.model.decisions import ApprovedCancel, ApprovedOrder
from trio_nt.model.events import Cancelled
from trio_nt.model.instruments import Instrument, InstrumentKind, Instruments, Side
from trio_nt.model.orders import BrokerUpdate, Execution, Liquidity, Order, OrderState, UpdateKind
from trio_nt.portfolio import Portfolio
from trio_nt.risk.core import RiskEngine
from trio_nt.risk.limits import RiskLimits, SelfTrade

D = Decimal


class Rig:
    def __init__(self) -> None:
        instruments = Instruments([Instrument(id="ABC", symbol="ABC", kind=InstrumentKind.EQUITY, quote="USD")])
        numbers = itertools.count(1)
        limits = RiskLimits(self_trade=SelfTrade.CANCEL_WORKING, stale_after_s=None, submit_rate_per_s=None)
        risk = RiskEngine(instruments, limits, order_ids=lambda: f"o-{next(numbers)}")
        risk.set_quote(0, 10.0, 10.0, 1)
        self.desk = Desk(instruments, risk, Portfolio(instruments))
        self.executions = itertools.count(1)

    def act(self, action: Action) -> Outcome:
        return self.desk.decide(attrs.evolve(action, strategy_id="s"), now_ns=1, ts_signal=1)

    def say(self, kind: UpdateKind, order: Order, quantity: int = 0) -> Outcome:
        execution = None
        if quantity:
            execution = Execution(f"e-{next(self.executions)}", D(quantity), D(10), D(0), "USD", Liquidity.TAKER)
        return self.desk.hear(BrokerUpdate(kind, order.client_order_id, "b", "ABC", 1, execution), now_ns=1, mid=None)

    def flip(self) -> tuple[Order, Order]:
        """Own 10, then want -5: the half that closes has left, the half that opens waits."""
        (bought,) = self.act(target("ABC", 10)).approved
        self.say(UpdateKind.FILLED, bought.order, 10)
        (closing,) = self.act(target("ABC", -5)).approved
        (opening,) = [order for order in self.desk.orders.working() if order is not closing.order]
        assert (closing.order.quantity, opening.quantity) == (10, 5)
        return closing.order, opening


def test_the_opening_half_goes_when_the_closing_half_is_filled_and_not_before() -> None:
    rig = Rig()
    closing, opening = rig.flip()
    assert rig.say(UpdateKind.ACCEPTED, closing).approved == ()
    assert rig.say(UpdateKind.PARTIALLY_FILLED, closing, 4).approved == ()
    (released,) = rig.say(UpdateKind.FILLED, closing, 6).approved
    assert released.order is opening
    assert opening.state is OrderState.INTENDED


@pytest.mark.parametrize("kind", [UpdateKind.CANCELLED, UpdateKind.REJECTED, UpdateKind.EXPIRED])
def test_it_is_dropped_when_the_closing_half_ends_otherwise(kind: UpdateKind) -> None:
    rig = Rig()
    closing, opening = rig.flip()
    outcome = rig.say(kind, closing)
    assert outcome.approved == ()
    assert opening.state is OrderState.CANCELLED
    assert "closes the position first" in opening.reason
    assert [event.client_order_id for event in outcome.events] == [closing.client_order_id, opening.client_order_id]
    assert rig.desk.risk.exposure.open_orders() == 0


def test_one_that_waits_is_cancelled_without_the_broker() -> None:
    rig = Rig()
    closing, opening = rig.flip()
    outcome = rig.act(Cancel(opening.client_order_id))
    assert outcome.approved == ()
    assert [type(event) for event in outcome.events] == [Cancelled]
    assert rig.say(UpdateKind.FILLED, closing, 10).approved == ()


@pytest.mark.parametrize("end", [UpdateKind.CANCELLED, UpdateKind.REJECTED])
def test_an_order_against_an_own_one_waits_for_its_end_whatever_it_is(end: UpdateKind) -> None:
    rig = Rig()
    (resting,) = rig.act(Signal("ABC", Side.SELL, 1, order_type=OrderType.LIMIT, limit_price=D("10.5"))).approved
    rig.say(UpdateKind.ACCEPTED, resting.order)
    (cancel,) = rig.act(Signal("ABC", Side.BUY, 1, order_type=OrderType.LIMIT, limit_price=D("10.6"))).approved
    assert isinstance(cancel, ApprovedCancel)
    assert cancel.order is resting.order
    (released,) = rig.say(end, resting.order).approved
    assert isinstance(released, ApprovedOrder)
    assert released.order.side is Side.BUY


def test_what_waits_at_the_end_is_withdrawn() -> None:
    rig = Rig()
    closing, opening = rig.flip()
    (event,) = rig.desk.withdraw_waiting("the engine is closing", now_ns=2)
    assert type(event) is Cancelled
    assert (opening.state, opening.reason) == (OrderState.CANCELLED, "the engine is closing")
    assert rig.say(UpdateKind.FILLED, closing, 10).approved == ()
