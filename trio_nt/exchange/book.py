"""An order in the venue's book, and the checks that a request must pass to get there.

Pure: no Trio, no clock.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import TypeAlias

import attrs

from trio_nt.model.actions import TimeInForce
from trio_nt.model.instruments import Instrument, Side
from trio_nt.model.money import EXACT, ZERO, Number, to_decimal
from trio_nt.model.orders import OrderRequest, OrderState

DUPLICATE_ID = "client_order_id must be unique"
NOT_FOUND = "order not found"
NOT_WORKING = "order is no longer working"
LARGEST = Decimal(10) ** 15  # beyond this, amounts are mistakes, and products would not stay exact


@attrs.frozen
class Fees:
    """Fractions of the notional that every execution pays, instead of each instrument's own."""

    maker: Decimal = attrs.field(converter=to_decimal)
    taker: Decimal = attrs.field(converter=to_decimal)


FeesLike: TypeAlias = "Fees | Number | Mapping[str, Number] | None"


def as_fees(fees: FeesLike) -> Fees | None:
    """``None`` keeps the instruments' own fees; one number is both; a mapping has ``maker`` and ``taker``.

    Raises:
        TypeError, ValueError: no number, or a mapping with other keys.
    """
    if fees is None or isinstance(fees, Fees):
        return fees
    if isinstance(fees, Mapping):
        if set(fees) != {"maker", "taker"}:
            raise ValueError(f"fees must have the keys maker and taker, had {', '.join(map(str, fees)) or 'none'}")
        return Fees(fees["maker"], fees["taker"])
    return Fees(fees, fees)


@attrs.define(eq=False)
class VenueOrder:
    """One link of an order's chain: a replace ends it and starts the next, which carries the fills on.

    ``request`` holds what is in force now. Times: UNIX ns of the venue, 0 for what has not happened.
    """

    request: OrderRequest
    broker_order_id: str
    index: int  # of the instrument
    is_buy: bool
    limit: float | None  # the same prices as in the request, comparable with columns
    stop: float | None
    created_ns: int
    updated_ns: int
    day: date | None  # the trading day that a DAY order ends with
    is_triggered: bool  # a stop price, where there is one, has been reached
    is_resting: bool = False  # it met a first quote and was not marketable: from now on it makes
    state: OrderState = OrderState.ACCEPTED
    filled_quantity: Decimal = ZERO
    filled_notional: Decimal = ZERO  # Σ quantity × price
    ended_ns: int = 0
    replaces: str = ""
    replaced_by: str = ""

    @property
    def remaining_quantity(self) -> Decimal:
        return self.request.quantity - self.filled_quantity

    @property
    def average_price(self) -> Decimal | None:
        return EXACT.divide(self.filled_notional, self.filled_quantity) if self.filled_quantity else None

    @property
    def ends_at_once(self) -> bool:
        return self.request.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)

    def reaches_stop(self, price: float) -> bool:
        assert self.stop is not None
        return price >= self.stop if self.is_buy else price <= self.stop

    def is_marketable(self, touch: float) -> bool:
        return self.limit is None or (touch <= self.limit if self.is_buy else touch >= self.limit)

    def is_printed_through(self, price: float) -> bool:
        """A print at the limit may have been another's in the queue; one beyond it cannot."""
        assert self.limit is not None
        return price < self.limit if self.is_buy else price > self.limit


def open_order(request: OrderRequest, broker_order_id: str, index: int, day: date | None, now_ns: int) -> VenueOrder:
    return VenueOrder(
        request=request,
        broker_order_id=broker_order_id,
        index=index,
        is_buy=request.side is Side.BUY,
        limit=None if request.limit_price is None else float(request.limit_price),
        stop=None if request.stop_price is None else float(request.stop_price),
        created_ns=now_ns,
        updated_ns=now_ns,
        day=day if request.time_in_force is TimeInForce.DAY else None,
        is_triggered=not request.order_type.needs_stop,
    )


def check_request(
    request: OrderRequest, instrument: Instrument, position: Decimal, working: Iterable[VenueOrder]
) -> str | None:
    """Why the venue does not take an order; None if it does.

    ``position`` is signed; ``working`` are the instrument's orders in the book.
    """
    order_type = request.order_type
    for name, price, needed in (
        ("limit_price", request.limit_price, order_type.needs_limit),
        ("stop_price", request.stop_price, order_type.needs_stop),
    ):
        if needed and price is None:
            return f"{order_type.value} orders require {name}"
        if price is not None and not needed:
            return f"{order_type.value} orders must not have {name}"
        if price is not None and (problem := check_price(name, price, instrument)):
            return problem
    return (
        check_quantity(request.quantity, instrument)
        or _check_notional(request, instrument)
        or _check_available(request, instrument, position, working)
    )


def check_replace(
    order: VenueOrder, instrument: Instrument, quantity: Decimal | None, limit_price: Decimal | None
) -> str | None:
    """Why the venue does not change an order; None if it does."""
    if quantity is not None:
        if problem := check_quantity(quantity, instrument):
            return problem
        if quantity <= order.filled_quantity:
            return f"qty must be above the filled {order.filled_quantity}, was {quantity}"
    if limit_price is not None:
        if order.limit is None:
            return f"{order.request.order_type.value} orders must not have limit_price"
        return check_price("limit_price", limit_price, instrument)
    return None


def check_price(name: str, price: Decimal, instrument: Instrument) -> str | None:
    if not (price.is_finite() and 0 < price < LARGEST):
        return f"invalid {name} {price}. it must be above 0 and below {LARGEST}"
    if price % instrument.tick_size:
        # The words of the dialect that the loopback venue speaks.
        return f"invalid {name} {price}. sub-penny increment does not fulfill minimum pricing criteria"
    return None


def check_quantity(quantity: Decimal, instrument: Instrument) -> str | None:
    if not (quantity.is_finite() and 0 < quantity < LARGEST):
        return f"qty must be > 0 and below {LARGEST}, was {quantity}"
    if quantity % instrument.lot_size:
        return f"qty must be a multiple of {instrument.lot_size}, was {quantity}"
    if quantity < instrument.min_quantity:
        return f"qty must be at least {instrument.min_quantity}, was {quantity}"
    return None


def _check_notional(request: OrderRequest, instrument: Instrument) -> str | None:
    if request.limit_price is None or not instrument.min_notional or request.reduce_only:
        return None
    notional = abs(instrument.notional(request.quantity, request.limit_price))
    if notional < instrument.min_notional:
        return f"cost basis must be >= minimal amount of order {instrument.min_notional}"
    return None


def _check_available(
    request: OrderRequest, instrument: Instrument, position: Decimal, working: Iterable[VenueOrder]
) -> str | None:
    if instrument.shortable or request.side is Side.BUY or request.reduce_only:
        return None
    held = sum((order.remaining_quantity for order in working if not order.is_buy), ZERO)
    if request.quantity > position - held:
        return f"insufficient qty available for order (requested: {request.quantity}, available: {position - held})"
    return None
