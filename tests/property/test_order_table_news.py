"""The order table under news that is repeated, reordered and delayed, compared with what happened at the venue."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from trio_nt.execution.orders import OrderTable
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.events import Accepted, Cancelled, Expired, Filled, Rejected, Replaced
from trio_nt.model.instruments import Side
from trio_nt.model.orders import BrokerUpdate, Execution, Liquidity, Order, OrderState, UpdateKind

ENDS = {
    UpdateKind.CANCELLED: (OrderState.CANCELLED, Cancelled),
    UpdateKind.EXPIRED: (OrderState.EXPIRED, Expired),
    UpdateKind.REJECTED: (OrderState.REJECTED, Rejected),
}


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[BrokerUpdate], list[int]]:
    """What happened at the venue to an order of ten, and in which order (with repetitions) it is told."""
    happened = [BrokerUpdate(UpdateKind.ACCEPTED, "o", "b-1", "ABC", 0)]
    left, broker_id = 10, "b-1"
    for number, quantity in enumerate(draw(st.lists(st.integers(1, 5), max_size=5))):
        quantity = min(quantity, left)
        if quantity == 0:
            break
        left -= quantity
        kind = UpdateKind.PARTIALLY_FILLED if left else UpdateKind.FILLED
        execution = Execution(f"e{number}", Decimal(quantity), Decimal(100), Decimal(0), "USD", Liquidity.TAKER)
        happened.append(BrokerUpdate(kind, "o", broker_id, "ABC", number, execution))
    if left:
        happened.append(BrokerUpdate(draw(st.sampled_from(sorted(ENDS, key=str))), "o", broker_id, "ABC", 9))
    order = draw(st.permutations(range(len(happened))))
    repeated = draw(st.lists(st.sampled_from(range(len(happened))), max_size=4))
    told = [*order, *repeated] if draw(st.booleans()) else [*repeated, *order]
    return happened, told


@given(histories(), st.booleans())
def test_the_end_is_the_venues_whatever_way_it_was_told(
    history: tuple[list[BrokerUpdate], list[int]], unknown: bool
) -> None:
    happened, told = history
    table = OrderTable()
    order = Order(
        "o", "s", "ABC", Side.BUY, Decimal(10), OrderType.MARKET, None, None, TimeInForce.DAY, False, "", 1
    )  # fmt: skip
    table.add(order)
    table.mark_sent(order)
    if unknown:
        table.mark_unknown(order)
    events = [event for number in told for event in table.apply(happened[number], 1)]

    executions = [update.execution for update in happened if update.execution is not None]
    fills = [event.fill for event in events if isinstance(event, Filled)]
    assert sorted(fill.execution_id for fill in fills) == sorted(execution.execution_id for execution in executions)
    assert order.filled_quantity == sum(execution.quantity for execution in executions)
    assert sum(isinstance(event, Accepted) for event in events) <= 1
    complete = order.filled_quantity == 10
    if complete:
        assert order.state is OrderState.FILLED
        assert sum(event.complete for event in events if isinstance(event, Filled)) == 1
    else:
        state, event_type = ENDS[happened[-1].kind]
        assert order.state is state
        assert sum(isinstance(event, event_type) for event in events) == 1
    assert list(table.working()) == []
    assert not table.incomplete


@given(
    st.lists(st.tuples(st.integers(11, 20), st.integers(1, 3)), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_replacements_count_once_told_by_answer_stream_or_both(
    replacements: list[tuple[int, int]], told_twice: list[bool]
) -> None:
    table = OrderTable()
    order = Order(
        "o", "s", "ABC", Side.BUY, Decimal(10), OrderType.LIMIT, Decimal(9), None, TimeInForce.GTC, False, "", 1
    )  # fmt: skip
    table.add(order)
    table.mark_sent(order)
    table.apply(BrokerUpdate(UpdateKind.ACCEPTED, "o", "b-0", "ABC", 0), 1)
    seen = 0
    for number, (quantity, filled) in enumerate(replacements, 1):
        table.mark_pending_replace(order, Decimal(quantity), None)
        update = BrokerUpdate(UpdateKind.REPLACED, "o", f"b-{number}", "ABC", 0)
        for _ in range(2 if told_twice[number] else 1):
            seen += sum(isinstance(event, Replaced) for event in table.apply(update, 1))
        execution = Execution(f"e{number}", Decimal(filled), Decimal(9), Decimal(0), "USD", Liquidity.MAKER)
        former = BrokerUpdate(UpdateKind.PARTIALLY_FILLED, "o", f"b-{number - 1}", "ABC", 0, execution)
        table.apply(former, 1)
        assert order.broker_order_id == f"b-{number}"
        assert order.quantity == quantity
    assert seen == len(replacements)
    assert order.filled_quantity == sum(filled for _, filled in replacements)
