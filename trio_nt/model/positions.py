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


@attrs.frozen
class Position:
    """A signed quantity and what it cost. ``average_price`` is 0 when flat."""

    quantity: Decimal = ZERO
    average_price: Decimal = ZERO

    def after(self, instrument: Instrument, signed_quantity: Decimal, price: Decimal) -> "tuple[Position, Decimal]":
        """The position after an execution, and the realised profit in ``instrument.settlement``, before fees.

        An inverse contract's average is harmonic (of 1 / price), so that closing at the average gains nothing.
        """
        quantity = EXACT.add(self.quantity, signed_quantity)
        if self.quantity * signed_quantity >= 0:
            return Position(quantity, self._average(instrument, signed_quantity, price)), ZERO
        closed = min(abs(self.quantity), abs(signed_quantity)).copy_sign(self.quantity)
        realised = instrument.profit(closed, self.average_price, price)
        if quantity == 0:
            return FLAT, realised
        flipped = quantity * self.quantity < 0
        return Position(quantity, price if flipped else self.average_price), realised

    def _average(self, instrument: Instrument, signed_quantity: Decimal, price: Decimal) -> Decimal:
        if self.quantity == 0:
            return price
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
        signed = quantity if side is Side.BUY else -quantity
        self._positions[instrument_id], realised = self.position(instrument_id).after(instrument, signed, price)
        if instrument.kind in (InstrumentKind.SPOT, InstrumentKind.EQUITY):
            self.cash.add(instrument.settlement, -instrument.notional(signed, price))
        else:
            self.cash.add(instrument.settlement, realised)
        self.realised.add(instrument.settlement, realised)
        self.cash.add(fee_currency, -fee)
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
