"""What is owned and what it earned: per strategy and for the account. Pure: no Trio, no clock.

Rules
-----
- A fill is booked once into the ledger of its strategy and into the account's. Positions of strategies are virtual;
  the account is their sum.
- Amounts are exact, per currency, never added across currencies.
- ``net = realised + unrealised - fees``; ``gross = net + half_spread + fees``: what the same trades would have earned
  at the mid price and for nothing. ``half_spread`` is the cost of not trading at the mid: positive where it was paid.
- An inverse contract's amounts follow its own arithmetic (``Instrument.profit``).
"""

from collections.abc import Mapping
from decimal import Decimal

import attrs

from trio_nt.model.instruments import Instruments, Side
from trio_nt.model.money import EXACT, ZERO, Money
from trio_nt.model.orders import Fill
from trio_nt.model.positions import FLAT, Ledger, Position

_NO_MARKS: Mapping[str, Decimal] = {}


@attrs.frozen
class ProfitAndLoss:
    """One currency's profit, split. Costs are positive where they were paid."""

    currency: str
    gross: Decimal
    half_spread: Decimal
    fees: Decimal
    net: Decimal


@attrs.frozen
class PortfolioState:
    """The account as last booked. ``strategies`` holds the positions of each strategy; flat ones are left out."""

    cash: Mapping[str, Decimal]
    positions: Mapping[str, Position]
    fees: Mapping[str, Decimal]
    realised: Mapping[str, Decimal]
    strategies: Mapping[str, Mapping[str, Position]]
    fills: int

    def position(self, instrument_id: str, strategy_id: str | None = None) -> Position:
        """The account's position, or a strategy's share of it."""
        positions = self.positions if strategy_id is None else self.strategies.get(strategy_id, {})
        return positions.get(instrument_id, FLAT)


class Portfolio:
    """Books fills.

    Args:
        cash: what the account starts with.
        keep_fills: remember every fill in ``fills_by_order``, for a run that ends with a list of its orders.
    """

    def __init__(
        self, instruments: Instruments, cash: Mapping[str, Decimal] | None = None, *, keep_fills: bool = True
    ) -> None:
        self._instruments = instruments
        self.account = Ledger(instruments, cash)
        self.strategies: dict[str, Ledger] = {}
        self._half_spread: dict[str, Money] = {}
        self._account_half_spread = Money()
        self._state: PortfolioState | None = None
        self.fills = 0
        self.fills_by_order: dict[str, list[Fill]] = {}
        self._keep_fills = keep_fills
        self.unpriced: dict[str, dict[str, None]] = {}  # adopted positions without a price yet: instrument -> owners

    def book(self, fill: Fill, mid: Decimal | None = None) -> None:
        """Book one fill. ``mid``: the mid price when it happened; without it the fill counts as one at the mid.

        Booking the same fill twice doubles it: the order table tells executions apart.
        """
        strategy_id, key, side, quantity, price = (
            fill.strategy_id, fill.instrument, fill.side, fill.quantity, fill.price
        )  # fmt: skip
        ledger = self._ledger(strategy_id)
        ledger.book(key, side, quantity, price, fill.fee, fill.fee_currency)
        self.account.book(key, side, quantity, price, fill.fee, fill.fee_currency)
        if mid is not None:
            instrument = self._instruments[key]
            # The profit of the other side of the trade is what this side paid.
            cost = instrument.profit(quantity if side is Side.SELL else -quantity, price, mid)
            self._account_half_spread.add(instrument.settlement, cost)
            self._half_spread[strategy_id].add(instrument.settlement, cost)
        self.fills += 1
        if self._keep_fills:
            fills = self.fills_by_order.get(fill.client_order_id)
            if fills is None:
                self.fills_by_order[fill.client_order_id] = [fill]
            else:
                fills.append(fill)
        self._state = None

    def adopt_position(
        self, strategy_id: str, instrument_id: str, signed_quantity: Decimal, price: Decimal | None
    ) -> None:
        """Take in a position that exists already, without profit, loss or cash: found at the broker.

        ``price`` is what it cost; None: it costs what ``set_price`` says first.
        """
        instrument = self._instruments[instrument_id]
        for ledger in (self._ledger(strategy_id), self.account):
            held = ledger.position(instrument_id)
            if price is not None:
                held, _ = held.after(instrument, signed_quantity, price)
            else:
                total = EXACT.add(held.quantity, signed_quantity)
                held = Position(total, held.average_price) if total else FLAT
            ledger.set_position(instrument_id, held)
        if price is None:
            self.unpriced.setdefault(instrument_id, {})[strategy_id] = None
        self._state = None

    def set_price(self, instrument_id: str, price: Decimal) -> None:
        """The first known price of an instrument: what adopted positions without one count as having cost."""
        owners = self.unpriced.pop(instrument_id, None)
        for ledger in (self.account, *map(self._ledger, owners or ())):
            held = ledger.position(instrument_id)
            if held.quantity and not held.average_price:
                ledger.set_position(instrument_id, Position(held.quantity, price))
        self._state = None

    def carry_position(self, owner: str, instrument_id: str, quantity: Decimal, average_price: Decimal) -> None:
        """Go on from a position of an earlier run; ``owner`` is a strategy, empty for the account."""
        self._owned(owner).set_position(instrument_id, Position(quantity, average_price))
        self._state = None

    def carry_money(self, owner: str, currency: str, cash: Decimal, fees: Decimal, realised: Decimal) -> None:
        """Go on from the sums of an earlier run, in one currency."""
        ledger = self._owned(owner)
        for sums, amount in ((ledger.cash, cash), (ledger.fees, fees), (ledger.realised, realised)):
            sums.add(currency, amount)
        self._state = None

    def set_cash(self, cash: Mapping[str, Decimal]) -> None:
        """What the account has now, by the broker's word."""
        self.account.cash = Money(cash)
        self._state = None

    def _owned(self, owner: str) -> Ledger:
        return self._ledger(owner) if owner else self.account

    def position(self, strategy_id: str, instrument_id: str) -> Decimal:
        """A strategy's signed position."""
        ledger = self.strategies.get(strategy_id)
        return ZERO if ledger is None else ledger.position(instrument_id).quantity

    def state(self) -> PortfolioState:
        """What is booked by now; the same object until the next fill."""
        if self._state is None:
            self._state = PortfolioState(
                dict(self.account.cash),
                _held(self.account),
                dict(self.account.fees),
                dict(self.account.realised),
                {strategy_id: _held(ledger) for strategy_id, ledger in self.strategies.items()},
                self.fills,
            )
        return self._state

    def pnl(
        self, marks: Mapping[str, Decimal] = _NO_MARKS, *, strategy_id: str | None = None
    ) -> tuple[ProfitAndLoss, ...]:
        """Profit per currency at ``marks`` (price by instrument id), of the account or of one strategy.

        Positions without a mark count as worth what they cost. Currencies in order of their first booking.
        """
        ledger = self.account if strategy_id is None else self._ledger(strategy_id)
        half_spread = self._account_half_spread if strategy_id is None else self._half_spread[strategy_id]
        unrealised = ledger.unrealised(marks)
        rows = []
        for currency in dict.fromkeys((*ledger.realised, *ledger.fees)):
            fees, cost = ledger.fees[currency], half_spread[currency]
            gain = ledger.realised[currency] + unrealised[currency]
            rows.append(ProfitAndLoss(currency, gain + cost, cost, fees, gain - fees))
        return tuple(rows)

    def _ledger(self, strategy_id: str) -> Ledger:
        found = self.strategies.get(strategy_id)
        if found is None:
            found = self.strategies[strategy_id] = Ledger(self._instruments)
            self._half_spread[strategy_id] = Money()
        return found


def _held(ledger: Ledger) -> dict[str, Position]:
    return {key: position for key, position in ledger.positions.items() if position.quantity != ZERO}
