"""The order table: every state's way, and the real world's oddities one by one."""

from decimal import Decimal

import pytest

from trio_nt.execution.orders import TRANSITIONS, OrderTable
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.events import Accepted, Cancelled, CancelRejected, Expired, Filled, OrderEvent, Rejected, Replaced
from trio_nt.model.instruments import Side
from trio_nt.model.orders import (
    EXTERNAL,
    BrokerUpdate,
    Execution,
    Liquidity,
    Order,
    OrderRequest,
    OrderState,
    UpdateKind,
)


def make_order(order_id: str = "o-1", quantity: int = 10) -> Order:
    price = Decimal(100)
    return Order(
        order_id, "s", "ABC", Side.BUY, Decimal(quantity), OrderType.LIMIT, price, None, TimeInForce.GTC, False, "", 1
    )


def news(kind: UpdateKind, order_id: str = "o-1", broker_id: str = "b-1", reason: str = "") -> BrokerUpdate:
    return BrokerUpdate(kind, order_id, broker_id, "ABC", 5, None, reason)


def fill(quantity: int, execution_id: str, *, last: bool = False, broker_id: str = "b-1") -> BrokerUpdate:
    execution = Execution(execution_id, Decimal(quantity), Decimal(99), Decimal(0), "USD", Liquidity.TAKER)
    kind = UpdateKind.FILLED if last else UpdateKind.PARTIALLY_FILLED
    return BrokerUpdate(kind, "o-1", broker_id, "ABC", 5, execution)


class Followed:
    """One order in a table, told things one by one."""

    def __init__(self, state: OrderState = OrderState.SENT) -> None:
        self.table = OrderTable()
        self.order = make_order()
        self.table.add(self.order)
        if state is OrderState.INTENDED:
            return
        self.table.mark_sent(self.order)
        if state is OrderState.ACCEPTED:
            self.hear(news(UpdateKind.ACCEPTED))

    def hear(self, update: BrokerUpdate) -> list[type[OrderEvent]]:
        return [type(event) for event in self.table.apply(update, 7)]

    @property
    def state(self) -> OrderState:
        return self.order.state


def test_an_order_is_accepted_then_filled() -> None:
    it = Followed()
    assert it.hear(news(UpdateKind.ACCEPTED)) == [Accepted]
    assert it.order.broker_order_id == "b-1"
    assert it.hear(fill(4, "e1")) == [Filled]
    assert it.state is OrderState.PARTIALLY_FILLED
    assert it.hear(fill(6, "e2", last=True)) == [Filled]
    assert it.state is OrderState.FILLED
    assert it.order.ts_end == 7
    assert list(it.table.working()) == []


def test_average_price_weighs_by_quantity() -> None:
    it = Followed()
    for quantity, price in ((1, 100), (3, 104)):
        execution = Execution(f"e{price}", Decimal(quantity), Decimal(price), Decimal(0), "USD", Liquidity.TAKER)
        it.hear(BrokerUpdate(UpdateKind.PARTIALLY_FILLED, "o-1", "b", "ABC", 5, execution))
    assert it.order.average_price == Decimal(103)


@pytest.mark.parametrize(
    ("kind", "state", "event"),
    [
        (UpdateKind.CANCELLED, OrderState.CANCELLED, Cancelled),
        (UpdateKind.EXPIRED, OrderState.EXPIRED, Expired),
        (UpdateKind.REJECTED, OrderState.REJECTED, Rejected),
    ],
)
@pytest.mark.parametrize("before", [OrderState.SENT, OrderState.ACCEPTED])
def test_each_end(kind: UpdateKind, state: OrderState, event: type, before: OrderState) -> None:
    it = Followed(before)
    assert it.hear(news(kind)) == [event]
    assert it.state is state
    assert it.hear(news(kind)) == []  # told again


def test_a_fill_before_the_acknowledgement_implies_it() -> None:
    it = Followed()
    assert it.hear(fill(10, "e1", last=True)) == [Accepted, Filled]
    assert it.hear(news(UpdateKind.ACCEPTED)) == []
    assert it.state is OrderState.FILLED


def test_a_fill_after_the_cancel_was_sent() -> None:
    it = Followed(OrderState.ACCEPTED)
    it.table.mark_pending_cancel(it.order)
    assert it.hear(fill(4, "e1")) == [Filled]
    assert it.state is OrderState.PENDING_CANCEL
    assert it.hear(news(UpdateKind.CANCELLED)) == [Cancelled]
    assert it.order.filled_quantity == 4


def test_a_fill_after_the_cancel_was_confirmed_is_booked_and_the_order_stays_ended() -> None:
    it = Followed(OrderState.ACCEPTED)
    it.hear(news(UpdateKind.CANCELLED))
    assert it.hear(fill(4, "e1")) == [Filled]
    assert it.state is OrderState.CANCELLED
    assert it.order.filled_quantity == 4
    assert it.hear(fill(6, "e2", last=True)) == [Filled]
    assert it.state is OrderState.FILLED


def test_an_execution_counts_once() -> None:
    it = Followed(OrderState.ACCEPTED)
    assert it.hear(fill(4, "e1")) == [Filled]
    assert it.hear(fill(4, "e1")) == []
    assert it.order.filled_quantity == 4


def test_executions_out_of_order_fill_when_their_sum_does() -> None:
    it = Followed(OrderState.ACCEPTED)
    assert it.hear(fill(6, "e2", last=True)) == [Filled]
    assert it.state is OrderState.PARTIALLY_FILLED
    assert list(it.table.incomplete) == ["o-1"]  # the venue says filled, four are missing
    assert it.hear(fill(4, "e1")) == [Filled]
    assert it.state is OrderState.FILLED
    assert not it.table.incomplete


def test_more_than_was_ordered_is_booked_as_it_happened() -> None:
    it = Followed(OrderState.ACCEPTED)
    it.hear(fill(12, "e1", last=True))
    assert (it.state, it.order.filled_quantity) == (OrderState.FILLED, 12)


def test_a_late_acknowledgement_changes_nothing() -> None:
    it = Followed(OrderState.ACCEPTED)
    it.table.mark_pending_cancel(it.order)
    assert it.hear(news(UpdateKind.ACCEPTED)) == []
    assert it.state is OrderState.PENDING_CANCEL


def test_a_refused_cancel_lets_the_order_live() -> None:
    it = Followed(OrderState.ACCEPTED)
    it.hear(fill(4, "e1"))
    it.table.mark_pending_cancel(it.order)
    assert it.hear(news(UpdateKind.CANCEL_REJECTED)) == [CancelRejected]
    assert it.state is OrderState.PARTIALLY_FILLED
    assert it.hear(news(UpdateKind.CANCEL_REJECTED)) == []


def test_a_cancel_asked_for_before_the_acknowledgement_is_pending_after_it() -> None:
    it = Followed()
    it.table.mark_pending_cancel(it.order)
    assert it.state is OrderState.SENT
    it.hear(news(UpdateKind.ACCEPTED))
    assert it.state is OrderState.PENDING_CANCEL


class TestReplace:
    def begun(self, quantity: int = 20) -> Followed:
        it = Followed(OrderState.ACCEPTED)
        it.table.mark_pending_replace(it.order, Decimal(quantity), Decimal(101))
        assert it.state is OrderState.PENDING_REPLACE
        return it

    def test_takes_effect_once_however_often_it_is_told(self) -> None:
        it = self.begun()
        assert it.hear(news(UpdateKind.REPLACED, broker_id="b-2")) == [Replaced]
        order = it.order
        assert (order.quantity, order.limit_price, order.broker_order_id) == (20, 101, "b-2")
        assert it.hear(news(UpdateKind.REPLACED, broker_id="b-2")) == []

    def test_a_fill_on_the_former_link_counts_and_does_not_bring_its_id_back(self) -> None:
        it = self.begun()
        it.hear(news(UpdateKind.REPLACED, broker_id="b-2"))
        assert it.hear(fill(4, "e1", broker_id="b-1")) == [Filled]
        assert it.order.broker_order_id == "b-2"
        assert it.hear(fill(4, "e1", broker_id="b-2")) == []  # the same execution told on the new link

    def test_a_fill_of_the_old_quantity_does_not_end_an_order_that_may_grow(self) -> None:
        it = self.begun()
        it.hear(fill(10, "e1"))
        assert it.state is OrderState.PENDING_REPLACE
        it.hear(news(UpdateKind.REPLACED, broker_id="b-2"))
        assert it.state is OrderState.PARTIALLY_FILLED
        it.hear(fill(10, "e2", last=True))
        assert it.state is OrderState.FILLED

    def test_filled_before_it_arrived(self) -> None:
        it = self.begun()
        assert it.hear(fill(10, "e1", last=True)) == [Filled]
        assert it.state is OrderState.FILLED
        assert it.hear(news(UpdateKind.REPLACE_REJECTED)) == []

    def test_refused(self) -> None:
        it = self.begun()
        assert it.hear(news(UpdateKind.REPLACE_REJECTED, reason="too late")) == [CancelRejected]
        assert it.state is OrderState.ACCEPTED
        assert (it.order.quantity, it.order.limit_price) == (10, 100)

    def test_a_refused_cancel_leaves_the_replace_pending(self) -> None:
        it = self.begun()
        it.table.mark_pending_cancel(it.order)
        assert it.state is OrderState.PENDING_CANCEL
        it.hear(news(UpdateKind.CANCEL_REJECTED))
        assert it.state is OrderState.PENDING_REPLACE
        assert it.hear(news(UpdateKind.REPLACED, broker_id="b-2")) == [Replaced]
        assert it.state is OrderState.ACCEPTED


class TestUnknown:
    def test_resolved_by_any_news(self) -> None:
        for update in (news(UpdateKind.ACCEPTED), fill(4, "e1"), news(UpdateKind.REJECTED)):
            it = Followed()
            it.table.mark_unknown(it.order)
            assert it.state is OrderState.UNKNOWN
            assert it.hear(update)
            assert it.state is not OrderState.UNKNOWN

    def test_news_of_an_abandoned_order_brings_it_back(self) -> None:
        it = Followed()
        it.table.mark_unknown(it.order)
        it.table.mark_abandoned(it.order, 7, "never found")
        assert it.state is OrderState.ABANDONED
        assert list(it.table.working()) == []
        assert it.hear(news(UpdateKind.ACCEPTED)) == [Accepted]
        assert list(it.table.working()) == [it.order]
        assert it.order.ts_end == 0

    def test_an_order_that_was_answered_is_never_abandoned(self) -> None:
        it = Followed(OrderState.ACCEPTED)
        it.table.mark_unknown(it.order)
        it.table.mark_abandoned(it.order, 7, "")
        assert it.state is OrderState.ACCEPTED


def test_an_order_of_somebody_elses_is_adopted() -> None:
    table = OrderTable()
    request = OrderRequest("theirs", "ABC", Side.SELL, Decimal(3))
    update = BrokerUpdate(UpdateKind.ACCEPTED, "theirs", "b-9", "ABC", 5, None, "", request)
    table.apply(update, 7)
    order = table.get("theirs")
    assert order is not None
    assert (order.strategy_id, order.side, order.quantity, order.state) == (EXTERNAL, Side.SELL, 3, OrderState.ACCEPTED)


def test_news_that_cannot_be_placed_is_counted() -> None:
    table = OrderTable()
    assert table.apply(news(UpdateKind.CANCELLED, "nobody's"), 7) == ()
    assert table.unplaced == 1


def test_working_orders_by_strategy_and_instrument() -> None:
    table = OrderTable()
    first, second = make_order("o-1"), make_order("o-2")
    second.instrument = "XYZ"
    table.add(first)
    table.add(second)
    assert list(table.working()) == [first, second]
    assert list(table.working(instrument="XYZ")) == [second]
    assert list(table.working("nobody")) == []


def test_the_same_id_twice_is_a_mistake() -> None:
    table = OrderTable()
    table.add(make_order())
    with pytest.raises(ValueError, match="o-1"):
        table.add(make_order())


def test_ended_orders_are_forgotten_oldest_first_and_working_ones_never() -> None:
    table = OrderTable(keep_final=2)
    for number in range(4):
        table.add(make_order(f"o-{number}"))
    for number in (1, 2, 3):
        table.apply(news(UpdateKind.CANCELLED, f"o-{number}"), 7)
    assert [order.client_order_id for order in table] == ["o-0", "o-2", "o-3"]


def test_no_news_leaves_a_final_state_for_a_working_one() -> None:
    ended = (OrderState.FILLED, OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REJECTED)
    for kind, ways in TRANSITIONS.items():
        for state in ended:
            assert ways.get(state) in (None, "same"), (kind, state)
