"""What a request must be for the venue to take it. Pure: each check gives the reason why not, or None."""

from collections.abc import Iterable
from decimal import Decimal

from trio_nt.exchange.book import VenueOrder
from trio_nt.model.instruments import Instrument, Side
from trio_nt.model.money import ZERO
from trio_nt.model.orders import OrderRequest

LARGEST = Decimal(10) ** 15  # beyond this, amounts are mistakes, and products would not stay exact


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
