"""A start from a summary and what came after it knows what a start from every record knows: wherever the cut lies."""

import itertools
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trio_nt.desk import Desk
from trio_nt.engine_recovery import EngineRecovery
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.instruments import Instrument, InstrumentKind, Instruments, Side
from trio_nt.model.orders import BrokerUpdate, Execution, Liquidity, OrderRequest, UpdateKind
from trio_nt.portfolio import Portfolio
from trio_nt.risk.core import RiskEngine
from trio_nt.risk.limits import RiskLimits
from trio_nt.storage.journal import CancelIntent, Carried, Heard, MemoryJournal, OrderIntent, Record, Recovered

D = Decimal
KINDS = {"ABC": InstrumentKind.EQUITY, "LIN": InstrumentKind.LINEAR}
DAY_NS = 86_400 * 10**9


class Keeping(MemoryJournal):
    """Keeps the last summary and after how many records it came."""

    def __init__(self, recovered: Recovered) -> None:
        super().__init__()
        self.recovered = recovered
        self.carried = Carried()

    def carry(self, carried: Carried) -> None:
        self.carried = carried


def started(recovered: Recovered, now_ns: int) -> tuple[Desk, EngineRecovery, Keeping]:
    instruments = Instruments(Instrument(id=name, symbol=name, kind=kind, quote="USD") for name, kind in KINDS.items())
    numbers = itertools.count()
    risk = RiskEngine(instruments, RiskLimits(), order_ids=lambda: f"new-{next(numbers)}")
    desk, journal = Desk(instruments, risk, Portfolio(instruments)), Keeping(recovered)
    recovery = EngineRecovery(desk, journal, now_ns=lambda: now_ns, on_unknown=lambda instrument: None)
    recovery.restore()
    return desk, recovery, journal


@st.composite
def histories(draw: st.DrawFn) -> list[Record]:
    """Orders of two strategies in two instruments, filled in parts, cancelled or left working, over two days."""
    records: list[Record] = []
    executions = itertools.count()
    working: dict[str, tuple[str, Decimal]] = {}
    for step in range(draw(st.integers(1, 25))):
        ts = DAY_NS + step * DAY_NS // 12
        kind = draw(st.sampled_from(["order", "fill", "fill", "cancel"]))
        if kind == "order" or not working:
            order_id, instrument = f"o-{step}", draw(st.sampled_from(list(KINDS)))
            quantity = D(draw(st.integers(1, 9)))
            request = OrderRequest(
                order_id, instrument, draw(st.sampled_from(Side)), quantity, OrderType.LIMIT, D(10), None,
                TimeInForce.GTC,
            )  # fmt: skip
            records.append(OrderIntent(request, draw(st.sampled_from(["s", "t"])), "", ts, ts))
            accepted = BrokerUpdate(UpdateKind.ACCEPTED, order_id, f"b-{step}", instrument, ts)
            records.append(Heard(accepted, ts))
            working[order_id] = instrument, quantity
            continue
        order_id = draw(st.sampled_from(list(working)))
        instrument, left = working[order_id]
        if kind == "cancel":
            records += [
                CancelIntent(order_id, ts),
                Heard(BrokerUpdate(UpdateKind.CANCELLED, order_id, "b", instrument, ts), ts),
            ]
            del working[order_id]
            continue
        filled = D(draw(st.integers(1, int(left))))
        price, fee = D(draw(st.integers(8, 12))), D(draw(st.integers(0, 3))) / 10
        execution = Execution(f"e-{next(executions)}", filled, price, fee, "USD", Liquidity.TAKER)
        full = filled == left
        update = BrokerUpdate(
            UpdateKind.FILLED if full else UpdateKind.PARTIALLY_FILLED, order_id, "b", instrument, ts, execution
        )
        records.append(Heard(update, ts))
        if full:
            del working[order_id]
        else:
            working[order_id] = instrument, left - filled
    return records


def known(desk: Desk, orders: Sequence[str]) -> dict[str, Any]:
    """What a desk knows, with its profit at one price for all."""
    for index in range(len(KINDS)):
        desk.risk.set_quote(index, 11.0, 11.0, 1)
    exposure = desk.risk.exposure
    return {
        "positions": {
            (owner, name): (held.quantity, held.average_price)
            for owner, ledger in (("", desk.books.account), *desk.books.strategies.items())
            for name, held in ledger.positions.items()
            if held.quantity
        },
        "money": {
            (owner, currency): (ledger.realised[currency], ledger.fees[currency], ledger.cash[currency])
            for owner, ledger in (("", desk.books.account), *desk.books.strategies.items())
            for currency in ledger.fees
        },
        "exposure": {
            (owner, name): (exposure.long(name, owner), exposure.short(name, owner))
            for owner in ("s", "t", None)
            for name in KINDS
        },
        "open": exposure.open_orders(),
        "states": {
            order.client_order_id: (order.state, order.filled_quantity, order.broker_order_id)
            for order in desk.orders
            if order.client_order_id in orders
        },
    }


@given(histories(), st.data())
def test_a_summary_stands_for_what_came_before_it(history: list[Record], data: st.DataObject) -> None:
    now_ns = 4 * DAY_NS
    whole, _, _ = started(Recovered(tuple(history)), now_ns)
    cut = data.draw(st.integers(0, len(history)))
    _, recovery, journal = started(Recovered(tuple(history[:cut])), now_ns)
    recovery.carry()
    # Of the orders that had ended by then the file may have forgotten any.
    ended = sorted(recovery.orders_before)
    forgotten = set(data.draw(st.lists(st.sampled_from(ended), unique=True))) if ended else set()
    earlier = [record for record in history[:cut] if of(record) not in forgotten]
    again, _, _ = started(Recovered(tuple(history[cut:]), "", 0, tuple(earlier), journal.carried), now_ns)
    remembered = [order.client_order_id for order in whole.orders if order.client_order_id not in forgotten]
    assert known(again, remembered) == known(whole, remembered)


def of(record: Record) -> str:
    if isinstance(record, OrderIntent):
        return record.request.client_order_id
    if isinstance(record, Heard):
        return record.update.client_order_id
    assert isinstance(record, CancelIntent)
    return record.client_order_id
