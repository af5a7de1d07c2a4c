"""An engine died with a cancel or a replace, or both, on record for an order that it had heard nothing of. Whatever had
left, what recovers resolves all of it: no order stays pending for ever.
"""

from decimal import Decimal

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trio_nt.exchange.simulated import SimulatedBroker
from trio_nt.execution.lookup import LookupSettings
from trio_nt.execution.orders import OrderTable
from trio_nt.execution.recovery import Reconciler, restore
from trio_nt.model.actions import OrderType
from trio_nt.model.instruments import Instrument, Instruments, Side
from trio_nt.model.orders import BrokerUpdate, OrderRequest, OrderState, UpdateKind
from trio_nt.risk.core import RiskEngine
from trio_nt.risk.limits import RiskLimits
from trio_nt.storage.journal import CancelIntent, Heard, OrderIntent, Record, ReplaceIntent

REQUEST = OrderRequest("p-1", "AAA", Side.BUY, Decimal(10), OrderType.LIMIT, Decimal(1))
PENDING = (OrderState.PENDING_CANCEL, OrderState.PENDING_REPLACE, OrderState.UNKNOWN, OrderState.SENT)


@given(
    arrived=st.booleans(),
    heard=st.booleans(),
    asked=st.permutations(["cancel", "replace"]).flatmap(lambda both: st.integers(0, 2).map(lambda n: both[:n])),
    left=st.integers(0, 2),
)
def test_nothing_stays_pending_after_a_restart(arrived, heard, asked, left):
    instruments = Instruments([Instrument(id="AAA", symbol="AAA")])
    table, clock = OrderTable(), trio.testing.MockClock(autojump_threshold=0)
    risk = RiskEngine(instruments, RiskLimits(), order_ids=lambda: "none")

    def hear(update: BrokerUpdate, now_ns: int = 5) -> None:
        for event in table.apply(update, now_ns):
            order = table.get(event.client_order_id)
            assert order is not None
            risk.apply(event, order)

    async def main() -> None:
        broker = SimulatedBroker()
        broker.bind(instruments, now_ns=lambda: 5)
        if arrived:
            await broker.submit(REQUEST)
            for word in asked[:left]:
                if word == "replace" and await broker.open_orders():
                    await broker.replace("p-1", quantity=Decimal(12))
                elif word == "cancel":
                    await broker.cancel("p-1")
        records: list[Record] = [OrderIntent(REQUEST, "s", "", 1, 1)]
        if arrived and heard:
            records.append(Heard(BrokerUpdate(UpdateKind.ACCEPTED, "p-1", "V1", "AAA", 2), 2))
        cancel, replace = CancelIntent("p-1", 3), ReplaceIntent("p-1", Decimal(12), None, 3)
        records += [cancel if word == "cancel" else replace for word in asked]
        restore(records, table, risk, hear)
        reconciler = Reconciler(
            broker, table, risk, hear=hear, now_ns=lambda: 5, prefix="p-", halt=lambda reason: None, since_ns=0,
            settings=LookupSettings(grace_s=2, signal_valid_s=1),
        )  # fmt: skip
        async with broker.updates() as updates:
            await reconciler.reconcile()
            with trio.move_on_after(1):
                while True:
                    for update in await updates.receive():
                        hear(update)
        order = table.get("p-1")
        assert order is not None
        assert order.state not in PENDING
        there = [found.client_order_id for found in await broker.open_orders()]
        assert order.is_working == (there == ["p-1"])
        if not arrived:
            assert order.state is OrderState.ABANDONED
        assert not (order.is_working and "cancel" in asked)  # who asked for a cancel gets it

    trio.run(main, clock=clock)
