"""What an engine knows before it trades: its journal, then its broker. And what it hands on to the next start.

Rules
-----
- ``restore`` books what the journal holds into the desk, by the rules of live trading. Strategies hear nothing of it.
- Every connection of the update stream begins with a comparison with the broker (``execution/recovery.py``).
- What the broker holds and nobody of ours is EXTERNAL's, in risk and in the portfolio alike. Instruments that the
  journal or the broker names and nobody described are taken for equities, and the report says so.
- Loss limits go on where they were: the trading day began with what was booked before it, at the last known prices.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import trio

from trio_nt.desk import Desk
from trio_nt.execution.gateway import Gateway
from trio_nt.execution.lookup import LookupSettings
from trio_nt.execution.recovery import Reconciler, Reconciliation, restore
from trio_nt.model.broker import Broker
from trio_nt.model.instruments import Instrument
from trio_nt.model.orders import BrokerUpdate, Order
from trio_nt.storage.journal import Carried, Heard, HeldMoney, HeldPosition, Journal, OrderIntent, Recovered

ORDER_PREFIX = "nt-"  # what our client order ids begin with, whatever the run
CARRY_AFTER = 1_000  # records
_ACCOUNT = ""  # the account's own rows in a summary
_log = logging.getLogger("trio_nt.engine")


class DeskBooks:
    """Risk and portfolio together, as recovery needs them."""

    def __init__(self, desk: Desk, on_unknown: Callable[[Instrument], None]) -> None:
        self._desk = desk
        self._on_unknown = on_unknown

    def adopt(self, order: Order) -> None:
        self.know(order.instrument)
        self._desk.risk.adopt(order)

    def adopt_position(
        self, strategy_id: str, instrument: str, signed_quantity: Decimal, price: Decimal | None = None
    ) -> None:
        self._desk.risk.adopt_position(strategy_id, instrument, signed_quantity, price)
        self._desk.books.adopt_position(strategy_id, instrument, signed_quantity, price)

    def position(self, instrument: str) -> Decimal:
        self.know(instrument)
        return self._desk.risk.position(instrument)

    def know(self, instrument_id: str) -> None:
        """Take an instrument that nobody described for an equity."""
        if instrument_id not in self._desk.instruments:
            instrument = Instrument(id=instrument_id, symbol=instrument_id)
            self._desk.instruments.add(instrument)
            self._on_unknown(instrument)


class EngineRecovery:
    """Restores, compares, and sums up. ``history`` holds the comparisons with the broker, the last hundred."""

    def __init__(
        self,
        desk: Desk,
        journal: Journal,
        *,
        now_ns: Callable[[], int],
        on_unknown: Callable[[Instrument], None],
    ) -> None:
        self.restored = 0  # orders
        self.fills = 0  # that were booked before this start
        self.orders_before: frozenset[str] = frozenset()  # ids of orders that had ended before this start
        self._desk = desk
        self._journal = journal
        self._now_ns = now_ns
        self._books = DeskBooks(desk, on_unknown)
        self._reconciler: Reconciler | None = None
        self._carried_at = 0

    def restore(self) -> None:
        """Bring the desk to where the journal says that it was."""
        recovered, desk = self._journal.recovered, self._desk
        now_ns = self._now_ns()
        calendar = desk.risk.calendar
        today = calendar.trading_day(now_ns)
        has_begun = False

        def hear(update: BrokerUpdate, ts_ns: int) -> None:
            nonlocal has_begun
            if not has_begun and calendar.trading_day(ts_ns) >= today:
                has_begun = True
                desk.risk.start_day(now_ns)
            desk.hear(update, now_ns=ts_ns, mid=None)
            if update.execution is not None and update.instrument in desk.instruments:
                desk.risk.set_mark(update.instrument, update.execution.price)

        self._take_summary(recovered.carried)
        self.restored = restore(
            recovered.records, desk.orders, self._books, hear, earlier=recovered.earlier, know=self._books.know
        )
        if not has_begun:
            desk.risk.start_day(now_ns)
        self.fills = desk.books.fills
        self.orders_before = frozenset(order.client_order_id for order in desk.orders if order.state.is_final)
        if self.restored:
            working = sum(1 for _ in desk.orders.working())
            _log.info("the journal held %d orders, %d without an end", self.restored, working)

    def connect(self, broker: Broker, gateway: Gateway, settings: LookupSettings) -> None:
        """Say whom ``reconcile`` compares with, and who hears of it."""
        recovered = self._journal.recovered
        executed = [
            record.update.ts_event
            for record in recovered.records
            if isinstance(record, Heard) and record.update.execution is not None
        ]
        self._reconciler = Reconciler(
            broker,
            self._desk.orders,
            self._books,
            hear=gateway.hear,
            now_ns=self._now_ns,
            prefix=ORDER_PREFIX,
            halt=gateway.halt,
            since_ns=max(executed, default=recovered.carried.ts_ns or self._began(recovered)),
            settings=settings,
        )

    def _began(self, recovered: Recovered) -> int:
        """When the first order of the journal was about to leave: nothing of ours was executed before."""
        intents = (record.ts_ns for record in recovered.records if isinstance(record, OrderIntent))
        return next(intents, self._now_ns())

    async def reconcile(self) -> None:
        """Compare with the broker; see ``Reconciler.reconcile``."""
        assert self._reconciler is not None
        await self._reconciler.reconcile()

    async def cash(self) -> Mapping[str, Decimal]:
        """The account's cash by the broker's word, with exactly those executions in it that are booked. A checkpoint.

        Raises:
            ExecutionError: the broker could not be asked, or executions never pause.
        """
        assert self._reconciler is not None
        return await self._reconciler.cash()

    @property
    def history(self) -> Sequence[Reconciliation]:
        return () if self._reconciler is None else self._reconciler.history

    # -- summing up --

    def carry(self) -> None:
        """Sum up for the next start. What is booked is what was noted: no step lies between the two."""
        self._carried_at = self._journal.statistics().records
        self._journal.carry(self._summary())

    async def carry_now_and_then(self, every_s: float) -> None:
        while True:
            await trio.sleep(every_s)
            if self._journal.statistics().records - self._carried_at >= CARRY_AFTER:
                self.carry()

    def _summary(self) -> Carried:
        books = self._desk.books
        positions: list[HeldPosition] = []
        money: list[HeldMoney] = []
        for owner, ledger in ((_ACCOUNT, books.account), *books.strategies.items()):
            for instrument_id, held in ledger.positions.items():
                if held.quantity:
                    positions.append(HeldPosition(owner, instrument_id, held.quantity, held.average_price))
            for currency in dict.fromkeys((*ledger.cash, *ledger.fees, *ledger.realised)):
                sums = ledger.cash[currency], ledger.fees[currency], ledger.realised[currency]
                money.append(HeldMoney(owner, currency, *sums))
        return Carried(tuple(positions), tuple(money), self._now_ns())

    def _take_summary(self, carried: Carried) -> None:
        risk, books = self._desk.risk, self._desk.books
        for held in carried.positions:
            self._books.know(held.instrument)
            books.carry_position(held.strategy_id, held.instrument, held.quantity, held.average_price)
            if held.strategy_id != _ACCOUNT:
                risk.set_mark(held.instrument, held.average_price)
                risk.adopt_position(held.strategy_id, held.instrument, held.quantity, held.average_price)
        for money in carried.money:
            books.carry_money(money.strategy_id, money.currency, money.cash, money.fees, money.realised)
