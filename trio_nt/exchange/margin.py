"""Buying power: what the account may still open, in its one currency.

Rules
-----
- Buying power = leverage × equity - what the positions are worth - what working orders hold.
- An order holds its opening part: what is left of it beyond what closes a position, earlier orders first, at its
  limit; a market or stop buy at 2.5 % above the ask or its stop, an opening sale at no less than 3 % above the ask.
- An order that opens nothing always passes. A replacement needs the difference alone.

Pure. Exact amounts decide; floats only tell that the answer is far from close, which is the usual case.
"""

from collections.abc import Iterable
from decimal import Decimal

from trio_nt.exchange.book import Book, VenueOrder
from trio_nt.model.instruments import Side
from trio_nt.model.money import EXACT, ZERO, to_decimal
from trio_nt.model.orders import OrderRequest

_BUY_ABOVE, _SELL_ABOVE = Decimal("1.025"), Decimal("1.03")
_CURRENCY = "USD"
_ROUGHLY = 1.2


class Margin:
    """``leverage`` × equity is what may be open."""

    def __init__(self, book: Book, leverage: Decimal) -> None:
        self._book = book
        self.leverage = leverage

    def refusal(self, request: OrderRequest, index: int, replaced: VenueOrder | None = None) -> str | None:
        """Why an order (or a replacement) cannot be afforded; None if it can."""
        book = self._book
        touch = book.last_quote(index)
        ask = 0.0 if touch is None else touch.ask
        price = max(float(request.limit_price or 0), float(request.stop_price or 0), ask)
        if _ROUGHLY * (float(request.quantity) * price + book.working_value) < self._room_roughly():
            return None
        working = [order for order in book.state_of(index).working.values() if order is not replaced]
        parts = [(order.request, order.remaining_quantity) for order in working]
        already = self._held_in(index, parts)
        if replaced is not None:
            already = self._held_in(index, [*parts, (replaced.request, replaced.remaining_quantity)])
        left = request.quantity if replaced is None else request.quantity - replaced.filled_quantity
        needed = self._held_in(index, [*parts, (request, left)]) - already
        available = self.buying_power()
        if needed <= 0 or needed <= available:
            return None
        return f"insufficient buying power: the order needs {needed:.2f} and {max(available, ZERO):.2f} is left"

    def buying_power(self) -> Decimal:
        """What may still be opened; below zero after losses."""
        book = self._book
        worth = equity = ZERO
        held = ZERO
        for index, instrument in enumerate(book.instruments):
            value = instrument.notional(book.ledger.position(instrument.id).quantity, self._mark(index))
            equity, worth = EXACT.add(equity, value), EXACT.add(worth, abs(value))
            orders = book.state_of(index).working.values()
            held += self._held_in(index, [(order.request, order.remaining_quantity) for order in orders])
        equity = EXACT.add(equity, book.ledger.cash[_CURRENCY])
        return EXACT.multiply(self.leverage, equity) - worth - held

    def _held_in(self, index: int, orders: Iterable[tuple[OrderRequest, Decimal]]) -> Decimal:
        """What orders of one instrument, oldest first, with what is left of each, hold."""
        book = self._book
        instrument = book.instruments[index]
        position = book.ledger.position(instrument.id).quantity
        closable = {Side.BUY: max(ZERO, -position), Side.SELL: max(ZERO, position)}
        held = ZERO
        for request, left in orders:
            closing = min(left, closable[request.side])
            closable[request.side] -= closing
            if left > closing:
                held = EXACT.add(held, abs(instrument.notional(left - closing, self._price(index, request))))
        return held

    def _price(self, index: int, request: OrderRequest) -> Decimal:
        touch = self._book.last_quote(index)
        ask = ZERO if touch is None else to_decimal(touch.ask)
        if request.side is Side.SELL:
            return max(request.limit_price or ZERO, EXACT.multiply(ask, _SELL_ABOVE))
        return request.limit_price or EXACT.multiply(max(request.stop_price or ZERO, ask), _BUY_ABOVE)

    def _mark(self, index: int) -> Decimal:
        touch = self._book.last_quote(index)
        return ZERO if touch is None else (to_decimal(touch.bid) + to_decimal(touch.ask)) / 2

    def _room_roughly(self) -> float:
        book = self._book
        equity, worth = float(book.ledger.cash[_CURRENCY]), 0.0
        for symbol, position in book.ledger.positions.items():
            touch = book.last_quote(book.instruments.index(symbol))
            if position.quantity and touch is not None:
                value = float(position.quantity) * touch.ask
                equity, worth = equity + value, worth + abs(value)
        return float(self.leverage) * equity - _ROUGHLY * worth
