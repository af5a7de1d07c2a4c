"""Could a new order trade against a working order of the same account?

Rules
-----
- Two orders can trade with each other when they stand on opposite sides, at least one of them has a limit (so that it
  can rest), and their prices meet. Market and stop orders meet every price.
- While a replace is under way an order counts at both prices.
- Prices are kept sorted as orders come and go: a check looks at the orders that conflict and at no others.
"""

from bisect import bisect_left, bisect_right, insort
from decimal import Decimal

from trio_nt.model.instruments import Side
from trio_nt.model.orders import Order


class _Standing:
    """Working orders of one instrument on one side."""

    __slots__ = ("limitless", "limits")

    def __init__(self) -> None:
        self.limits: list[tuple[Decimal, str]] = []  # ascending
        self.limitless: dict[str, None] = {}


class OwnOrders:
    """The account's working orders as the market could meet them."""

    def __init__(self) -> None:
        self._standing: dict[tuple[int, bool], _Standing] = {}
        self._prices: dict[str, list[Decimal]] = {}

    def add(self, order: Order, index: int) -> None:
        """A new working order, or one more price that ``order.limit_price`` may become: see ``add_price``."""
        standing = self._of(index, order.side is Side.BUY)
        if order.limit_price is None:
            standing.limitless[order.client_order_id] = None
        else:
            self.add_price(order, index, order.limit_price)

    def add_price(self, order: Order, index: int, price: Decimal) -> None:
        """One more price at which ``order`` may come to stand (a replace is under way)."""
        insort(self._of(index, order.side is Side.BUY).limits, (price, order.client_order_id))
        self._prices.setdefault(order.client_order_id, []).append(price)

    def discard(self, order: Order, index: int) -> None:
        """The order is final."""
        standing = self._of(index, order.side is Side.BUY)
        if order.limit_price is None:
            standing.limitless.pop(order.client_order_id, None)
            return
        for price in self._prices.pop(order.client_order_id, ()):
            limits = standing.limits
            del limits[bisect_left(limits, (price, order.client_order_id))]

    def settle(self, order: Order, index: int) -> None:
        """A replace has ended: ``order.limit_price`` is its only price again."""
        if order.limit_price is not None and len(self._prices.get(order.client_order_id, ())) > 1:
            self.discard(order, index)
            self.add(order, index)

    def against(self, index: int, side: Side, limit: Decimal | None, *, ignore: str = "") -> list[str]:
        """Client order ids that a new order could trade with: nearest price first, then those without a limit."""
        standing = self._standing.get((index, side is not Side.BUY))
        if standing is None or not (standing.limits or (limit is not None and standing.limitless)):
            return []
        limits = standing.limits
        if limit is None:
            met = limits
        elif side is Side.BUY:
            met = limits[: bisect_right(limits, limit, key=_price)]
        else:
            met = limits[bisect_left(limits, limit, key=_price) :]
        if side is Side.SELL:
            met = met[::-1]
        found = [order_id for _, order_id in met]
        if limit is not None:
            found.extend(standing.limitless)
        return [order_id for order_id in dict.fromkeys(found) if order_id != ignore]

    def _of(self, index: int, buy: bool) -> _Standing:
        found = self._standing.get((index, buy))
        if found is None:
            found = self._standing[index, buy] = _Standing()
        return found


def _price(entry: tuple[Decimal, str]) -> Decimal:
    return entry[0]
