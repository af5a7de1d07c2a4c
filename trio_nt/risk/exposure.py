"""What could be owned at worst: positions plus every working or in-flight order, per strategy and for the account.

Rules
-----
- An order reserves its whole remaining quantity from approval until it is final; a replace under way reserves the
  greater of the old and the new quantity.
- For any subset of the working orders that fills, a position lies between ``position - sells`` and
  ``position + buys``; limits look at these two ends only.
- Sums are kept as orders come and go: nothing here looks at all orders.
- A fill moves quantity from the reservation to the position. A fill beyond the reservation (an order that was
  cancelled and filled all the same) still moves the position: exposure follows the truth.
"""

from collections.abc import Iterator
from decimal import Decimal

from trio_nt.model.instruments import Instruments, Side
from trio_nt.model.money import EXACT, ZERO
from trio_nt.model.orders import Order

_add, _subtract = EXACT.add, EXACT.subtract


class Slot:
    """Position and reservations of one owner in one instrument. ``flow`` is money spent (-) and got (+), for PnL."""

    __slots__ = ("buys", "flow", "held", "position", "sells", "worst")

    def __init__(self) -> None:
        self.position = ZERO
        self.buys = ZERO
        self.sells = ZERO
        self.flow = 0.0
        self.held = 0.0  # the position as a float
        self.worst: float | None = 0.0  # the greatest absolute position that could come to be; None: to be computed

    def worst_case(self) -> float:
        """The greatest absolute position that could come to be."""
        if self.worst is None:
            self.worst = float(max(_add(self.position, self.buys), _subtract(self.sells, self.position)))
        return self.worst


class Book:
    """The slots of one owner, by instrument index, and how many of its orders are working."""

    __slots__ = ("open_orders", "slots")

    def __init__(self) -> None:
        self.slots: dict[int, Slot] = {}
        self.open_orders = 0

    def slot(self, index: int) -> Slot:
        found = self.slots.get(index)
        if found is None:
            found = self.slots[index] = Slot()
        return found


class _Reservation:
    __slots__ = ("buy", "own", "quantity", "whole")

    def __init__(self, buy: bool, own: Slot, whole: Slot) -> None:
        self.buy = buy
        self.own = own
        self.whole = whole
        self.quantity = ZERO


class Exposure:
    """Owned by risk; strategies and user rules read it through ``position``, ``long`` and ``short``."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self.account = Book()
        self.books: dict[str, Book] = {}
        self._reservations: dict[str, _Reservation] = {}

    def book(self, strategy_id: str) -> Book:
        found = self.books.get(strategy_id)
        if found is None:
            found = self.books[strategy_id] = Book()
        return found

    def reserve(self, order: Order, index: int, quantity: Decimal) -> None:
        """Make ``quantity`` (not negative) the reservation of ``order``; 0 releases it."""
        reservation = self._reservations.get(order.client_order_id)
        book = self.book(order.strategy_id)
        if reservation is None:
            if not quantity:
                return
            reservation = _Reservation(order.side is Side.BUY, book.slot(index), self.account.slot(index))
            self._reservations[order.client_order_id] = reservation
            book.open_orders += 1
            self.account.open_orders += 1
        own, whole = reservation.own, reservation.whole
        change = _subtract(quantity, reservation.quantity)
        reservation.quantity = quantity
        own.worst = whole.worst = None
        if reservation.buy:
            own.buys, whole.buys = _add(own.buys, change), _add(whole.buys, change)
        else:
            own.sells, whole.sells = _add(own.sells, change), _add(whole.sells, change)
        if not quantity:
            del self._reservations[order.client_order_id]
            book.open_orders -= 1
            self.account.open_orders -= 1

    def reserved(self, client_order_id: str) -> Decimal:
        """What an order has reserved; 0 when it is final or unknown."""
        reservation = self._reservations.get(client_order_id)
        return ZERO if reservation is None else reservation.quantity

    def move(self, strategy_id: str, index: int, signed_quantity: Decimal, flow: float) -> None:
        """Book an execution (or an adjustment) into position and flow of a strategy and of the account."""
        for slot in (self.book(strategy_id).slot(index), self.account.slot(index)):
            slot.position = position = _add(slot.position, signed_quantity)
            slot.held = float(position)
            slot.worst = None
            slot.flow += flow

    def position(self, instrument: str, strategy_id: str | None = None) -> Decimal:
        """The signed position of a strategy, or of the account."""
        return self._read(instrument, strategy_id).position

    def long(self, instrument: str, strategy_id: str | None = None) -> Decimal:
        """The greatest signed position that could come to be."""
        slot = self._read(instrument, strategy_id)
        return _add(slot.position, slot.buys)

    def short(self, instrument: str, strategy_id: str | None = None) -> Decimal:
        """The least signed position that could come to be."""
        slot = self._read(instrument, strategy_id)
        return _subtract(slot.position, slot.sells)

    def open_orders(self, strategy_id: str | None = None) -> int:
        """How many orders have something reserved."""
        book = self.account if strategy_id is None else self.books.get(strategy_id)
        return 0 if book is None else book.open_orders

    def owners(self) -> Iterator[str]:
        """Every strategy that ever traded, in order of its first order."""
        return iter(self.books)

    def _read(self, instrument: str, strategy_id: str | None) -> Slot:
        book = self.account if strategy_id is None else self.books.get(strategy_id)
        found = None if book is None else book.slots.get(self._instruments.index(instrument))
        return _EMPTY if found is None else found


_EMPTY = Slot()
