"""Positions by average price, and the ledger that books executions into cash, positions, fees and realised PnL.

One ledger serves the engine's portfolio and the simulated venue: what one execution does to an account stands here
and nowhere else. Spot and equity pay their notional in cash; linear and inverse contracts move cash only by realised
PnL and fees.
"""

from collections.abc import Mapping
from decimal import Decimal

import attrs

from trio_nt.model.instruments import Instrument, InstrumentKind, Instruments, Side
from trio_nt.model.money import EXACT, ZERO, Money

_add, _subtract = EXACT.add, EXACT.subtract


@attrs.frozen
class Position:
    """A signed quantity and what it cost. ``average_price`` is 0 when flat."""

    quantity: Decimal = ZERO
    average_price: Decimal = ZERO

    def after(self, instrument: Instrument, signed_quantity: Decimal, price: Decimal) -> "tuple[Position, Decimal]":
        """The position after an execution, and the realised profit in ``instrument.settlement``, before fees.

        An inverse contract's average is harmonic (of 1 / price), so that closing at the average gains nothing.
        """
        held = self.quantity
        if not held:
            return Position(signed_quantity, price), ZERO
        quantity = _add(held, signed_quantity)
        was_long = held > 0
        if was_long is (signed_quantity > 0):
            return Position(quantity, self._average(instrument, signed_quantity, price)), ZERO
        flipped = bool(quantity) and was_long is not (quantity > 0)
        closed = -signed_quantity if quantity and not flipped else held
        realised = instrument.profit(closed, self.average_price, price)
        if not quantity:
            return FLAT, realised
        return Position(quantity, price if flipped else self.average_price), realised

    def _average(self, instrument: Instrument, signed_quantity: Decimal, price: Decimal) -> Decimal:
        total = EXACT.add(self.quantity, signed_quantity)
        if instrument.kind is InstrumentKind.INVERSE:
            inverse = EXACT.add(EXACT.divide(self.quantity, self.average_price), EXACT.divide(signed_quantity, price))
            return EXACT.divide(total, inverse)
        cost = EXACT.add(EXACT.multiply(self.quantity, self.average_price), EXACT.multiply(signed_quantity, price))
        return EXACT.divide(cost, total)

    def unrealised(self, instrument: Instrument, price: Decimal) -> Decimal:
        """What closing at ``price`` would gain, before fees, in ``instrument.settlement``."""
        return instrument.profit(self.quantity, self.average_price, price) if self.quantity else ZERO


FLAT = Position()


class Ledger:
    """Cash, positions, fees and realised PnL of one account (or of one strategy's share of it)."""

    def __init__(self, instruments: Instruments, cash: Mapping[str, Decimal] | None = None) -> None:
        self._instruments = instruments
        self.cash = Money(cash)
        self.fees = Money()
        self.realised = Money()
        self._positions: dict[str, Position] = {}

    def book(
        self, instrument_id: str, side: Side, quantity: Decimal, price: Decimal, fee: Decimal, fee_currency: str
    ) -> Decimal:
        """Book one execution; the realised profit before fees, in the instrument's settlement currency."""
        instrument = self._instruments[instrument_id]
        currency, kind = instrument.settlement, instrument.kind
        signed = quantity if side is Side.BUY else -quantity
        before = self._positions.get(instrument_id, FLAT)
        self._positions[instrument_id], realised = before.after(instrument, signed, price)
        if kind is InstrumentKind.SPOT or kind is InstrumentKind.EQUITY:
            paid = -instrument.notional(signed, price)
        else:
            paid = realised
        if fee_currency == currency:
            self.cash.add(currency, _subtract(paid, fee))
        else:
            self.cash.add(currency, paid)
            self.cash.add(fee_currency, -fee)
        self.realised.add(currency, realised)
        self.fees.add(fee_currency, fee)
        return realised

    def position(self, instrument_id: str) -> Position:
        return self._positions.get(instrument_id, FLAT)

    def set_position(self, instrument_id: str, position: Position) -> None:
        """Go on from a position that was not booked here."""
        self._positions[instrument_id] = position

    @property
    def positions(self) -> Mapping[str, Position]:
        """Every instrument ever traded, by id; flat ones included."""
        return self._positions

    def unrealised(self, prices: Mapping[str, Decimal]) -> Money:
        """Unrealised PnL at ``prices`` (by instrument id), per settlement currency; unpriced positions count 0."""
        total = Money()
        for instrument_id, position in self._positions.items():
            if position.quantity and instrument_id in prices:
                instrument = self._instruments[instrument_id]
                total.add(instrument.settlement, position.unrealised(instrument, prices[instrument_id]))
        return total
