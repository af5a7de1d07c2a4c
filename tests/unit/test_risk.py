"""Risk: every reason it can refuse for, what it reserves, and how targets become orders."""

import itertools
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest

from trio_nt.execution.orders import OrderTable
from trio_nt.model.actions import Action, Cancel, Replace, Signal, buy, sell, target
from trio_nt.model.decisions import ApprovedCancel, ApprovedOrder, ApprovedReplace, Decision
from trio_nt.model.events import Refused
from trio_nt.model.instruments import Instrument, InstrumentKind, Instruments, Side
from trio_nt.model.orders import (
    BrokerUpdate,
    Execution,
    Liquidity,
    Order,
    OrderRequest,
    OrderState,
    UpdateKind,
)
from trio_nt.model.reasons import Reason
from trio_nt.risk.core import RiskEngine
from trio_nt.risk.exposure import Exposure
from trio_nt.risk.limits import RiskLimits, SelfTrade, TradingState

D = Decimal
SECOND = 1_000_000_000


class Shut:
    """A market that is never open."""

    def is_open(self, at_ns: int) -> bool:
        return False

    def trading_day(self, at_ns: int) -> Any:
        return at_ns // (86_400 * SECOND)


INSTRUMENTS = Instruments(
    [
        Instrument(id="ABC", symbol="ABC", kind=InstrumentKind.LINEAR, settlement="USD", lot_size=1),
        Instrument(id="XYZ", symbol="XYZ", min_quantity=5, min_notional=1000, shortable=False),
        Instrument(id="SHUT", symbol="SHUT", calendar=Shut()),
        Instrument(id="INV", symbol="INV", kind=InstrumentKind.INVERSE, base="BTC", quote="USD", multiplier=100),
        Instrument(id="QUIET", symbol="QUIET"),
    ]
)


class Account:
    """Risk and the order table together, with a venue that does what the test says."""

    def __init__(self, strategy_limits: Mapping[str, RiskLimits] | None = None, rules: Any = (), **limits: Any) -> None:
        numbers = itertools.count(1)
        self.risk = RiskEngine(
            INSTRUMENTS,
            RiskLimits(**limits),
            strategy_limits=strategy_limits or {},
            order_ids=lambda: f"o-{next(numbers)}",
            rules=rules,
        )
        self.table = OrderTable()
        self.now_ns = 10 * SECOND
        for index in range(4):
            self.risk.set_quote(index, 99.0, 101.0, self.now_ns)

    def ask(self, action: Action, strategy_id: str = "s") -> tuple[Decision, ...]:
        action = attrs.evolve(action, strategy_id=strategy_id)
        decisions = self.risk.evaluate(action, now_ns=self.now_ns, ts_signal=self.now_ns)
        for decision in decisions:
            if isinstance(decision, ApprovedOrder):
                self.table.add(decision.order)
                self.table.mark_sent(decision.order)
        return decisions

    def order(self, action: Action, strategy_id: str = "s") -> Order:
        (decision,) = self.ask(action, strategy_id)
        assert isinstance(decision, ApprovedOrder), decision
        return decision.order

    def reason(self, action: Action, strategy_id: str = "s") -> Reason:
        (decision,) = self.ask(action, strategy_id)
        assert isinstance(decision, Refused), decision
        assert decision.detail
        assert decision.strategy_id == strategy_id
        return decision.reason

    def tell(self, kind: UpdateKind, order: Order, execution: Execution | None = None, broker_id: str = "b") -> None:
        update = BrokerUpdate(kind, order.client_order_id, broker_id, order.instrument, 1, execution)
        for event in self.table.apply(update, self.now_ns):
            self.risk.apply(event, order)

    def fill(self, order: Order, quantity: int | None = None, price: str = "100", fee: str = "0") -> None:
        amount = order.remaining_quantity if quantity is None else D(quantity)
        settlement = INSTRUMENTS[order.instrument].settlement
        execution = Execution(f"e{next(_executions)}", amount, D(price), D(fee), settlement, Liquidity.TAKER)
        kind = UpdateKind.FILLED if amount == order.remaining_quantity else UpdateKind.PARTIALLY_FILLED
        self.tell(kind, order, execution)

    def trade(self, action: Action, strategy_id: str = "s", price: str = "100") -> None:
        for decision in self.ask(action, strategy_id):
            assert isinstance(decision, ApprovedOrder), decision
            self.fill(decision.order, price=price)

    def worst(self, strategy_id: str | None = None, instrument: str = "ABC") -> tuple[Decimal, Decimal]:
        exposure = self.risk.exposure
        return exposure.short(instrument, strategy_id), exposure.long(instrument, strategy_id)


_executions = itertools.count()


class TestTargets:
    def test_the_order_is_what_is_missing(self) -> None:
        account = Account()
        account.trade(buy("ABC", 3))
        order = account.order(target("ABC", -2))
        assert (order.side, order.quantity) == (Side.SELL, 5)

    def test_working_orders_count(self) -> None:
        account = Account()
        account.order(buy("ABC", 4, limit_price=90))
        order = account.order(target("ABC", 6))
        assert (order.side, order.quantity) == (Side.BUY, 2)

    def test_of_this_strategy_alone(self) -> None:
        account = Account()
        account.order(buy("ABC", 4), "other")
        assert account.order(target("ABC", 3)).quantity == 3

    def test_reached_needs_nothing(self) -> None:
        account = Account()
        account.order(target("ABC", 3))
        assert account.ask(target("ABC", 3)) == ()
        assert account.ask(target("XYZ", 0)) == ()

    def test_less_than_a_lot_needs_nothing(self) -> None:
        account = Account()
        account.trade(buy("ABC", 3))
        assert account.ask(target("ABC", "3.7")) == ()

    def test_partly_filled_orders_count_once(self) -> None:
        account = Account()
        order = account.order(buy("ABC", 4))
        account.fill(order, 1)
        assert account.ask(target("ABC", 4)) == ()
        account.tell(UpdateKind.CANCELLED, order)
        assert account.order(target("ABC", 4)).quantity == 3


def test_quantity_goes_on_the_lot_towards_zero_and_prices_to_the_side_of_caution() -> None:
    account = Account()
    order = account.order(buy("ABC", "3.9", limit_price="99.999"))
    assert (order.quantity, order.limit_price) == (3, D("99.99"))
    order = account.order(sell("INV", 2, limit_price="99.991"))
    assert order.limit_price == D("100.00")
    order = account.order(buy("ABC", 2, stop_price="105.001"))
    assert order.stop_price == D("105.01")  # never triggers earlier than asked


class TestReasons:
    def test_unknown_instrument(self) -> None:
        assert Account().reason(buy("NOPE", 1)) is Reason.UNKNOWN_INSTRUMENT
        assert Account().reason(Cancel(instrument="NOPE")) is Reason.UNKNOWN_INSTRUMENT

    def test_unknown_order(self) -> None:
        account = Account()
        order = account.order(buy("ABC", 1, limit_price=90))
        assert account.reason(Cancel("nobody's")) is Reason.UNKNOWN_ORDER
        assert account.reason(Cancel(order.client_order_id), "another") is Reason.UNKNOWN_ORDER
        assert account.reason(Replace("nobody's", quantity=2)) is Reason.UNKNOWN_ORDER

    def test_quantity_too_small(self) -> None:
        assert Account().reason(buy("ABC", "0.5")) is Reason.QUANTITY_TOO_SMALL
        assert Account().reason(buy("XYZ", 4)) is Reason.QUANTITY_TOO_SMALL

    def test_order_quantity(self) -> None:
        account = Account(max_order_quantity=5)
        assert account.reason(buy("ABC", 6)) is Reason.ORDER_QUANTITY
        account.order(buy("ABC", 5))

    def test_order_notional(self) -> None:
        account = Account(max_order_notional=505, min_order_notional=100)
        assert account.reason(buy("ABC", 6)) is Reason.ORDER_NOTIONAL  # 6 × 101
        account.order(buy("ABC", 5))
        assert account.reason(sell("INV", 1, limit_price=200)) is Reason.ORDER_NOTIONAL  # 0.5 BTC

    def test_notional_limits_by_currency(self) -> None:
        account = Account(max_order_notional={"USD": 500})
        assert account.reason(buy("ABC", 6)) is Reason.ORDER_NOTIONAL
        account.order(buy("INV", 1_000_000))  # nothing is said about BTC

    def test_the_instruments_own_minimum(self) -> None:
        account = Account()
        assert account.reason(buy("XYZ", 9)) is Reason.ORDER_NOTIONAL
        account.trade(buy("XYZ", 10))
        account.order(sell("XYZ", 5))  # but a position can always be closed

    def test_position_limit_counts_working_orders(self) -> None:
        account = Account(max_position=10)
        account.order(buy("ABC", 6, limit_price=90))
        assert account.reason(buy("ABC", 5)) is Reason.POSITION_LIMIT
        account.order(buy("ABC", 4))
        account = Account(max_position=10)
        account.trade(sell("ABC", 10))
        assert account.reason(sell("ABC", 1)) is Reason.POSITION_LIMIT
        account.order(buy("ABC", 20))

    def test_ten_signals_of_one_drain_do_not_each_pass_a_limit(self) -> None:
        account = Account(max_position=3)
        decisions = [account.ask(buy("ABC", 1))[0] for _ in range(10)]
        assert sum(isinstance(decision, ApprovedOrder) for decision in decisions) == 3

    def test_position_limit_of_a_strategy_and_of_the_account(self) -> None:
        account = Account({"a": RiskLimits(max_position=2)}, max_position=3)
        assert account.reason(buy("ABC", 3), "a") is Reason.POSITION_LIMIT
        account.order(buy("ABC", 2), "a")
        assert account.reason(buy("ABC", 2), "b") is Reason.POSITION_LIMIT
        account.order(buy("ABC", 1), "b")

    def test_gross_exposure_sums_over_instruments_at_the_mark(self) -> None:
        account = Account(max_gross_exposure=1500, self_trade="allow")
        account.trade(buy("ABC", 5))  # 500
        account.order(buy("XYZ", 10))  # + 1000
        assert account.reason(buy("ABC", 1)) is Reason.GROSS_EXPOSURE
        account.order(sell("ABC", 5))  # reducing is always allowed
        account.risk.set_quote(0, 199, 201, account.now_ns)
        account.order(buy("INV", 10))  # another currency

    def test_price_collar(self) -> None:
        account = Account(price_collar=0.05)
        assert account.reason(buy("ABC", 1, limit_price=107)) is Reason.PRICE_COLLAR
        assert account.reason(sell("ABC", 1, limit_price=94)) is Reason.PRICE_COLLAR
        account.order(buy("ABC", 1, limit_price=106))
        account.order(buy("ABC", 1, limit_price=1))  # far away, but it costs nothing
        account.order(buy("ABC", 1, stop_price=150, limit_price=156))  # measured from its stop
        assert account.reason(buy("ABC", 1, stop_price=150, limit_price=160)) is Reason.PRICE_COLLAR
        assert account.reason(buy("ABC", 1, limit_price="0.001")) is Reason.PRICE_COLLAR  # below one tick

    def test_no_price(self) -> None:
        assert Account().reason(buy("QUIET", 1)) is Reason.NO_PRICE

    def test_stale_market_data(self) -> None:
        account = Account(stale_after_s=1)
        account.now_ns += SECOND
        account.order(buy("ABC", 1))
        account.now_ns += 1
        assert account.reason(buy("ABC", 1)) is Reason.STALE_MARKET_DATA

    def test_submit_rate_counts_refusals_and_no_cancels(self) -> None:
        account = Account(submit_rate_per_s=2, submit_burst=3, max_order_quantity=5)
        order = account.order(buy("ABC", 1, limit_price=90))
        assert account.reason(buy("ABC", 6)) is Reason.ORDER_QUANTITY
        account.order(buy("ABC", 1))
        assert account.reason(buy("ABC", 1)) is Reason.SUBMIT_RATE
        assert isinstance(account.ask(Cancel(order.client_order_id))[0], ApprovedCancel)
        account.now_ns += SECOND // 2
        account.order(buy("ABC", 1))
        assert account.reason(buy("ABC", 1)) is Reason.SUBMIT_RATE

    def test_a_clock_that_steps_back_neither_gives_nor_takes_tokens(self) -> None:
        account = Account(submit_rate_per_s=1, submit_burst=2)
        account.order(buy("ABC", 1))
        account.now_ns -= 5 * SECOND
        account.order(buy("ABC", 1))
        assert account.reason(buy("ABC", 1)) is Reason.SUBMIT_RATE
        account.now_ns += SECOND
        account.order(buy("ABC", 1))

    def test_a_reached_target_uses_no_token(self) -> None:
        account = Account(submit_burst=1)
        assert account.ask(target("ABC", 0)) == ()
        account.order(buy("ABC", 1))

    def test_open_orders(self) -> None:
        account = Account(max_open_orders=2)
        first = account.order(buy("ABC", 1))
        account.order(buy("ABC", 1))
        assert account.reason(buy("ABC", 1)) is Reason.OPEN_ORDERS
        account.fill(first)
        account.order(buy("ABC", 1))

    def test_duplicate_within_the_window(self) -> None:
        account = Account(duplicate_window_s=1)
        account.order(buy("ABC", 1))
        assert account.reason(buy("ABC", 1)) is Reason.DUPLICATE
        account.order(buy("ABC", 2))
        account.now_ns += SECOND
        account.order(buy("ABC", 1))

    def test_daily_loss_lets_only_reducing_orders_through_until_the_next_day(self) -> None:
        account = Account(max_daily_loss=100)
        account.trade(buy("ABC", 10), price="100")
        account.risk.set_quote(0, 88.0, 89.0, account.now_ns)  # 115 lost at the mid
        assert account.reason(buy("ABC", 1)) is Reason.DAILY_LOSS
        account.trade(sell("ABC", 4), price="88")
        account.now_ns += 24 * 3600 * SECOND
        account.risk.set_quote(0, 88.0, 89.0, account.now_ns)
        account.order(buy("ABC", 1, limit_price=80))

    def test_buying_power(self) -> None:
        account = Account(leverage=1)
        account.risk.set_cash({"USD": D(1000)})
        assert account.reason(buy("ABC", 11)) is Reason.BUYING_POWER
        account.trade(buy("ABC", 10), price="100")
        assert account.reason(buy("ABC", 1)) is Reason.BUYING_POWER
        account.order(sell("ABC", 10))
        assert account.reason(buy("INV", 1)) is Reason.BUYING_POWER  # no BTC at all

    def test_restricted(self) -> None:
        account = Account()
        account.trade(buy("ABC", 2))
        restricted = Account(restricted={"ABC"})
        restricted.risk.adopt_position("s", "ABC", D(2), D(100))
        assert restricted.reason(buy("ABC", 1)) is Reason.RESTRICTED
        assert restricted.reason(sell("ABC", 3)) is Reason.RESTRICTED
        restricted.order(sell("ABC", 2))

    def test_not_shortable(self) -> None:
        account = Account()
        account.trade(buy("XYZ", 20))
        assert account.reason(sell("XYZ", 25)) is Reason.NOT_SHORTABLE
        account.order(sell("XYZ", 15))
        assert account.reason(sell("XYZ", 6)) is Reason.NOT_SHORTABLE  # fifteen are on their way out

    def test_self_trade(self) -> None:
        account = Account()
        account.order(sell("ABC", 1, limit_price=105), "a")
        assert account.reason(buy("ABC", 1), "b") is Reason.SELF_TRADE
        assert account.reason(buy("ABC", 1, limit_price=105), "b") is Reason.SELF_TRADE
        account.order(buy("ABC", 1, limit_price=104), "b")
        account.order(sell("ABC", 1, limit_price="104.5"), "b")
        assert account.reason(sell("ABC", 1), "a") is Reason.SELF_TRADE

    def test_self_trade_is_over_when_the_order_is(self) -> None:
        account = Account()
        order = account.order(sell("ABC", 1, limit_price=105))
        account.tell(UpdateKind.CANCELLED, order)
        account.order(buy("ABC", 1))

    def test_two_market_orders_cannot_trade_with_each_other(self) -> None:
        account = Account()
        account.order(buy("ABC", 1))
        account.order(sell("ABC", 1))

    def test_self_trade_can_cancel_the_working_order_first(self) -> None:
        account = Account(self_trade=SelfTrade.CANCEL_WORKING)
        working = account.order(sell("ABC", 1, limit_price=105))
        cancel, order = account.ask(buy("ABC", 1))
        assert isinstance(cancel, ApprovedCancel)
        assert cancel.order is working
        assert isinstance(order, ApprovedOrder)
        assert order.after == (working.client_order_id,)

    def test_reduce_only(self) -> None:
        account = Account()
        assert account.reason(buy("ABC", 1, reduce_only=True)) is Reason.REDUCE_ONLY
        account.trade(sell("ABC", 2))
        assert account.reason(buy("ABC", 3, reduce_only=True)) is Reason.REDUCE_ONLY
        account.order(buy("ABC", 2, reduce_only=True))
        assert account.reason(buy("ABC", 1, reduce_only=True)) is Reason.REDUCE_ONLY  # two are on their way

    def test_trading_state(self) -> None:
        account = Account()
        account.trade(buy("ABC", 2))
        resting = account.order(buy("INV", 1, limit_price=90))
        account.risk.state = TradingState.REDUCING
        assert account.reason(buy("ABC", 1)) is Reason.REDUCING
        account.order(sell("ABC", 1))
        account.risk.state = TradingState.HALTED
        assert account.reason(sell("ABC", 1)) is Reason.HALTED
        assert isinstance(account.ask(Cancel(resting.client_order_id))[0], ApprovedCancel)

    def test_closed(self) -> None:
        assert Account().reason(buy("SHUT", 1)) is Reason.CLOSED

    def test_user_rule(self) -> None:
        seen: list[tuple[Action, Decimal]] = []

        def no_more_than_two(action: Action, exposure: Exposure, limits: RiskLimits) -> Reason | None:
            seen.append((action, exposure.long("ABC")))
            return Reason.USER_RULE if exposure.long("ABC") >= 2 else None

        account = Account(rules=(no_more_than_two,))
        account.order(buy("ABC", 2))
        assert account.reason(buy("ABC", 1)) is Reason.USER_RULE
        assert [long for _, long in seen] == [0, 2]
        assert isinstance(seen[0][0], Signal)

    def test_not_replaceable(self) -> None:
        account = Account()
        order = account.order(buy("ABC", 1, limit_price=90))
        assert account.reason(Replace(order.client_order_id, quantity=2)) is Reason.NOT_REPLACEABLE  # not accepted yet

    def test_every_reason_is_tested_here(self) -> None:
        source = Path(__file__).read_text()
        assert [reason for reason in Reason if f"Reason.{reason.name}" not in source] == []


def test_the_reference_lists_every_reason_once() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "risk-reasons.md").read_text()
    for reason in Reason:
        assert text.count(f"| `{reason.name}` |") == 1, reason


class TestReserving:
    def test_from_approval_until_the_end(self) -> None:
        account = Account()
        order = account.order(buy("ABC", 4))
        assert account.worst() == (0, 4)
        account.fill(order, 1)
        assert account.worst() == (1, 4)
        account.tell(UpdateKind.CANCELLED, order)
        assert account.worst() == account.worst("s") == (1, 1)
        assert account.risk.exposure.open_orders() == 0

    def test_a_refusal_reserves_nothing(self) -> None:
        account = Account(max_order_quantity=5)
        account.reason(buy("ABC", 6))
        assert account.worst() == (0, 0)

    def test_an_unknown_and_an_abandoned_order_stay_reserved(self) -> None:
        account = Account()
        order = account.order(buy("ABC", 4))
        account.table.mark_unknown(order)
        account.table.mark_abandoned(order, 1, "")
        assert order.state is OrderState.ABANDONED
        assert account.worst() == (0, 4)
        account.fill(order)  # it had arrived after all
        assert account.worst() == (4, 4)

    def test_an_abandoned_order_is_released_when_its_absence_is_certain(self) -> None:
        account = Account()
        order = account.order(buy("ABC", 4))
        account.table.mark_unknown(order)
        account.table.mark_abandoned(order, 1, "")
        account.risk.release(order)
        assert account.worst() == (0, 0)

    def test_a_fill_after_the_end_moves_the_position(self) -> None:
        account = Account()
        order = account.order(buy("ABC", 4))
        account.tell(UpdateKind.CANCELLED, order)
        account.fill(order, 3)
        assert account.worst() == (3, 3)


class TestReplacing:
    def resting(self, **limits: Any) -> tuple[Account, Order]:
        account = Account(**limits)
        order = account.order(buy("ABC", 4, limit_price=90))
        account.tell(UpdateKind.ACCEPTED, order)
        return account, order

    def replace(self, account: Account, order: Order, **changes: Any) -> ApprovedReplace:
        (decision,) = account.ask(Replace(order.client_order_id, **changes))
        assert isinstance(decision, ApprovedReplace), decision
        account.table.mark_pending_replace(order, decision.quantity, decision.limit_price)
        return decision

    def test_reserves_the_greater_quantity_until_it_is_decided(self) -> None:
        account, order = self.resting()
        self.replace(account, order, quantity=7)
        assert account.worst() == (0, 7)
        account.tell(UpdateKind.REPLACE_REJECTED, order)
        assert account.worst() == (0, 4)
        self.replace(account, order, quantity=2)
        assert account.worst() == (0, 4)
        account.tell(UpdateKind.REPLACED, order, broker_id="b-2")
        assert account.worst() == (0, 2)

    def test_only_what_is_added_counts_against_the_limits(self) -> None:
        account, order = self.resting(max_position=6)
        assert account.reason(Replace(order.client_order_id, quantity=7)) is Reason.POSITION_LIMIT
        self.replace(account, order, quantity=6)

    def test_one_at_a_time(self) -> None:
        account, order = self.resting()
        self.replace(account, order, quantity=5)
        assert account.reason(Replace(order.client_order_id, quantity=6)) is Reason.NOT_REPLACEABLE

    def test_counts_at_both_prices_against_own_orders(self) -> None:
        account, order = self.resting()
        self.replace(account, order, limit_price=95)
        assert account.reason(sell("ABC", 1, limit_price=95)) is Reason.SELF_TRADE
        account.order(sell("ABC", 1, limit_price=96))
        account.tell(UpdateKind.REPLACE_REJECTED, order)
        account.order(sell("ABC", 1, limit_price=95))
        assert account.reason(sell("ABC", 1, limit_price=90)) is Reason.SELF_TRADE

    def test_may_not_meet_own_orders(self) -> None:
        account, order = self.resting()
        account.order(sell("ABC", 1, limit_price=100))
        assert account.reason(Replace(order.client_order_id, limit_price=100)) is Reason.SELF_TRADE

    def test_what_is_filled_is_no_longer_asked_for(self) -> None:
        account, order = self.resting()
        account.fill(order, 3)
        assert account.reason(Replace(order.client_order_id, quantity=3)) is Reason.QUANTITY_TOO_SMALL

    def test_a_market_order_has_no_limit_to_replace(self) -> None:
        account = Account()
        order = account.order(buy("ABC", 4))
        account.tell(UpdateKind.ACCEPTED, order)
        assert account.reason(Replace(order.client_order_id, limit_price=90)) is Reason.NOT_REPLACEABLE


class TestCancelling:
    def test_all_of_an_instrument_and_each_once(self) -> None:
        account = Account()
        mine = [account.order(buy("ABC", 1, limit_price=90 - number)) for number in range(3)]
        account.order(buy("ABC", 1, limit_price=80), "another")
        account.order(buy("INV", 1, limit_price=80))
        decisions = account.ask(Cancel(instrument="ABC"))
        assert [decision.order for decision in decisions if isinstance(decision, ApprovedCancel)] == mine
        assert account.ask(Cancel(instrument="ABC")) == ()

    def test_again_after_it_was_refused(self) -> None:
        account = Account()
        order = account.order(buy("ABC", 1, limit_price=90))
        account.tell(UpdateKind.ACCEPTED, order)
        account.ask(Cancel(order.client_order_id))
        account.table.mark_pending_cancel(order)
        account.tell(UpdateKind.CANCEL_REJECTED, order)
        assert len(account.ask(Cancel(order.client_order_id))) == 1


class TestTurningAround:
    def test_is_sent_as_two_orders_where_asked_for(self) -> None:
        account = Account(split_flips=True)
        account.trade(buy("ABC", 3))
        first, second = account.ask(target("ABC", -2))
        assert isinstance(first, ApprovedOrder)
        assert isinstance(second, ApprovedOrder)
        assert (first.order.quantity, second.order.quantity) == (3, 2)
        assert (first.after, second.after) == ((), (first.order.client_order_id,))
        assert account.worst() == (-2, 3)

    def test_looks_at_the_account_not_at_the_strategy(self) -> None:
        account = Account(split_flips=True)
        account.trade(buy("ABC", 3), "a")
        account.trade(sell("ABC", 1), "b")
        assert len(account.ask(sell("ABC", 2), "b")) == 1  # the account goes from 2 to 0
        assert len(account.ask(sell("ABC", 2), "b")) == 1  # what is left to close is on its way already

    def test_equities_are_split_and_contracts_are_not(self) -> None:
        account = Account()
        account.trade(buy("ABC", 3))
        account.risk.set_quote(4, 99.0, 101.0, account.now_ns)
        account.trade(buy("QUIET", 3))
        assert len(account.ask(target("ABC", -2))) == 1
        assert len(account.ask(target("QUIET", -2))) == 2


def test_an_adopted_order_counts_like_an_own_one() -> None:
    account = Account(max_position=10)
    other = Account()
    found = other.order(buy("ABC", 8, limit_price=90))
    found.state = OrderState.ACCEPTED
    account.risk.adopt(found)
    account.risk.adopt(found)
    assert account.worst() == (0, 8)
    assert account.reason(buy("ABC", 3)) is Reason.POSITION_LIMIT


def test_a_position_that_was_there_before_makes_no_profit() -> None:
    account = Account(max_daily_loss=1)
    account.risk.adopt_position("EXTERNAL", "ABC", D(5), D(100))
    account.order(buy("ABC", 1))


def test_an_adopted_position_counts_from_the_first_quote_on() -> None:
    account = Account(max_daily_loss=100)
    account.risk.adopt_position("EXTERNAL", "QUIET", D(-5))
    account.risk.set_quote(4, 999.0, 1001.0, account.now_ns)
    account.order(buy("ABC", 1))
    account.risk.set_quote(4, 1019.0, 1021.0, account.now_ns)
    account.order(buy("ABC", 1))  # 100 lost, no more
    account.risk.set_quote(4, 1021.0, 1023.0, account.now_ns)
    assert account.reason(buy("ABC", 1)) is Reason.DAILY_LOSS


def test_cash_told_later_is_what_buying_power_counts_from() -> None:
    account = Account(leverage=1)
    account.risk.adopt_position("s", "XYZ", D(5), D(80))  # 500 at the mark
    account.risk.set_cash({"USD": D(500)})
    account.order(buy("ABC", 5))
    assert account.reason(buy("ABC", 1)) is Reason.BUYING_POWER


def test_somebody_elses_order_is_reserved_when_it_is_heard_of() -> None:
    account = Account()
    request = OrderRequest("theirs", "ABC", Side.SELL, D(3))
    update = BrokerUpdate(
        UpdateKind.PARTIALLY_FILLED,
        "theirs",
        "b",
        "ABC",
        1,
        Execution("e", D(1), D(100), D(0), "USD", Liquidity.TAKER),
        "",
        request,
    )
    for event in account.table.apply(update, 1):
        order = account.table.get("theirs")
        assert order is not None
        account.risk.apply(event, order)
    assert account.worst("EXTERNAL") == account.worst() == (-3, -1)


@pytest.mark.parametrize(
    "wrong",
    [{"max_position": -1}, {"submit_rate_per_s": 0}, {"max_order_notional": {"USD": -5}}, {"duplicate_window_s": -1}],
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RiskLimits(**wrong)
