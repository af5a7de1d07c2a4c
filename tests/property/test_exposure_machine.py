"""Exposure over any interleaving of approvals and reports.

Invariants, after every step: no worst case beyond a limit; what risk keeps as running sums is what a naive recount over
all orders and fills gives; the account is the sum of its strategies.
"""

import itertools
from decimal import Decimal

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from trio_nt.execution.orders import OrderTable
from trio_nt.model.actions import Action, Cancel, OrderType, Replace, Signal
from trio_nt.model.decisions import ApprovedCancel, ApprovedOrder, ApprovedReplace
from trio_nt.model.events import Filled
from trio_nt.model.instruments import Instrument, InstrumentKind, Instruments, Side
from trio_nt.model.orders import BrokerUpdate, Execution, Fill, Liquidity, Order, OrderState, UpdateKind
from trio_nt.risk.core import RiskEngine
from trio_nt.risk.limits import RiskLimits, SelfTrade

LIMITS = {"a": Decimal(6), "b": Decimal(9), None: Decimal(11)}
GROSS = 1500.0
INSTRUMENTS = Instruments(
    Instrument(id=name, symbol=name, kind=InstrumentKind.LINEAR, settlement="USD") for name in ("X", "Y")
)
PRICE = 100.0


class ExposureMachine(RuleBasedStateMachine):
    orders = Bundle("orders")

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count()
        self.risk = RiskEngine(
            INSTRUMENTS,
            RiskLimits(
                max_position=LIMITS[None], max_gross_exposure=GROSS, self_trade=SelfTrade.CANCEL_WORKING,
                split_flips=True, submit_rate_per_s=None, price_collar=None,
            ),
            strategy_limits={name: RiskLimits(max_position=LIMITS[name], submit_rate_per_s=None) for name in "ab"},
            order_ids=lambda: f"o-{next(self.numbers)}",
        )  # fmt: skip
        for index in (0, 1):
            self.risk.set_quote(index, PRICE, PRICE, 0)
        self.table = OrderTable()
        self.all: list[Order] = []
        self.fills: list[Fill] = []
        self.asked: dict[str, Decimal] = {}  # the greater quantity while a replace is under way
        self.late = False  # a fill came after its order's end: then, and only then, a limit may be passed

    def act(self, action: Action) -> list[Order]:
        made = []
        for decision in self.risk.evaluate(action, now_ns=1, ts_signal=1):
            if isinstance(decision, ApprovedOrder):
                self.table.add(decision.order)
                self.table.mark_sent(decision.order)
                self.all.append(decision.order)
                made.append(decision.order)
            elif isinstance(decision, ApprovedCancel):
                self.table.mark_pending_cancel(decision.order)
            elif isinstance(decision, ApprovedReplace):
                self.table.mark_pending_replace(decision.order, decision.quantity, decision.limit_price)
                if decision.quantity is not None:
                    self.asked[decision.order.client_order_id] = decision.quantity
        return made

    def tell(self, order: Order, kind: UpdateKind, execution: Execution | None = None, broker_id: str = "b") -> None:
        update = BrokerUpdate(kind, order.client_order_id, broker_id, order.instrument, 1, execution)
        for event in self.table.apply(update, 1):
            self.risk.apply(event, order)
            if isinstance(event, Filled):
                self.fills.append(event.fill)

    @rule(
        target=orders,
        strategy=st.sampled_from("ab"),
        instrument=st.sampled_from("XY"),
        side=st.sampled_from([Side.BUY, Side.SELL, None]),
        quantity=st.integers(1, 8),
        limit=st.sampled_from([None, 99, 100, 101]),
    )
    def signal(self, strategy: str, instrument: str, side: Side | None, quantity: int, limit: int | None) -> object:
        kind = OrderType.MARKET if limit is None or side is None else OrderType.LIMIT
        price = limit if kind is OrderType.LIMIT else None
        wanted = quantity if side is not None else quantity - 4
        signal = Signal(instrument, side, wanted, order_type=kind, limit_price=price, strategy_id=strategy)
        return multiple(*self.act(signal))

    @rule(order=orders)
    def cancel(self, order: Order) -> None:
        self.act(Cancel(order.client_order_id, strategy_id=order.strategy_id))

    @rule(order=orders, quantity=st.integers(1, 9), limit=st.sampled_from([None, 99, 101]))
    def replace(self, order: Order, quantity: int, limit: int | None) -> None:
        price = limit if order.limit_price is not None else None
        self.act(Replace(order.client_order_id, quantity=quantity, limit_price=price, strategy_id=order.strategy_id))

    @rule(order=orders)
    def accepted(self, order: Order) -> None:
        self.tell(order, UpdateKind.ACCEPTED)

    @rule(order=orders, quantity=st.integers(1, 8), says_filled=st.booleans())
    def filled(self, order: Order, quantity: int, says_filled: bool) -> None:
        most = order.remaining_quantity
        amount = min(Decimal(quantity), most)
        if order.state.is_final and order.state is not OrderState.ABANDONED:
            self.late = self.late or amount > 0
        if amount <= 0:
            return
        execution = Execution(f"e{next(self.numbers)}", amount, Decimal(100), Decimal(0), "USD", Liquidity.TAKER)
        kind = UpdateKind.FILLED if says_filled and amount == most else UpdateKind.PARTIALLY_FILLED
        self.tell(order, kind, execution)
        self.tell(order, kind, execution)  # told twice

    @rule(order=consumes(orders), kind=st.sampled_from([UpdateKind.CANCELLED, UpdateKind.EXPIRED, UpdateKind.REJECTED]))
    def ended(self, order: Order, kind: UpdateKind) -> None:
        self.tell(order, kind)

    @rule(order=orders, kind=st.sampled_from([UpdateKind.REPLACED, UpdateKind.REPLACE_REJECTED]))
    def replace_decided(self, order: Order, kind: UpdateKind) -> None:
        self.tell(order, kind, broker_id=f"b{next(self.numbers)}")

    @rule(order=orders)
    def cancel_refused(self, order: Order) -> None:
        self.tell(order, UpdateKind.CANCEL_REJECTED)

    @rule(order=orders)
    def no_answer(self, order: Order) -> None:
        self.table.mark_unknown(order)

    @rule(order=orders)
    def given_up(self, order: Order) -> None:
        self.table.mark_abandoned(order, 1, "not found")

    def recount(self, strategy: str | None, instrument: str) -> tuple[Decimal, Decimal]:
        position = sum(
            (
                fill.signed_quantity
                for fill in self.fills
                if fill.instrument == instrument and strategy in (None, fill.strategy_id)
            ),
            Decimal(0),
        )
        long = short = position
        for order in self.all:
            may_fill = not order.state.is_final or order.state is OrderState.ABANDONED
            if not may_fill or order.instrument != instrument or strategy not in (None, order.strategy_id):
                continue
            quantity = order.quantity
            if order.client_order_id in self.table._replace_pending:
                quantity = max(quantity, self.asked.get(order.client_order_id, quantity))
            remaining = max(quantity - order.filled_quantity, Decimal(0))
            if order.side is Side.BUY:
                long += remaining
            else:
                short -= remaining
        return short, long

    @invariant()
    def running_sums_are_what_a_recount_gives(self) -> None:
        exposure = self.risk.exposure
        for instrument, strategy in itertools.product("XY", ("a", "b", None)):
            kept = exposure.short(instrument, strategy), exposure.long(instrument, strategy)
            assert kept == self.recount(strategy, instrument), (instrument, strategy)

    @invariant()
    def the_worst_case_never_exceeds_a_limit(self) -> None:
        if self.late:
            return
        gross = 0.0
        for instrument in "XY":
            for strategy, limit in LIMITS.items():
                short, long = self.recount(strategy, instrument)
                assert max(-short, long) <= limit, (instrument, strategy)
            short, long = self.recount(None, instrument)
            gross += float(max(-short, long)) * PRICE
        assert gross <= GROSS

    @invariant()
    def the_account_is_the_sum_of_its_strategies(self) -> None:
        exposure = self.risk.exposure
        for instrument in "XY":
            shares = sum((exposure.position(instrument, name) for name in "ab"), Decimal(0))
            assert exposure.position(instrument) == shares
        assert exposure.open_orders() == sum(exposure.open_orders(name) for name in "ab")


TestExposure = ExposureMachine.TestCase
