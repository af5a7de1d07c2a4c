"""Orders that must wait for other orders to end. Pure.

Rule: an order may go when every order it waits for is final. One on its own side is the half that closes a position
first: unless it was filled, opening the opposite position is no longer what was asked for, and the waiting order is
dropped. One on the other side was cancelled because the two could have traded with each other: how it ended is all
the same.
"""

from collections.abc import Callable, Iterator

from trio_nt.model.decisions import ApprovedOrder
from trio_nt.model.orders import Order, OrderState


class OrderSequence:
    """Holds approved orders until they may go. ``find`` looks an order up by its client order id."""

    def __init__(self, find: Callable[[str], Order | None]) -> None:
        self._find = find
        self._waiting: dict[str, ApprovedOrder] = {}
        self._waited_for: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[ApprovedOrder]:
        return iter(list(self._waiting.values()))

    def admit(self, approved: ApprovedOrder) -> bool:
        """Whether it may go now; else it is held, and comes out of ``ended`` or ``give_up``."""
        open_ids = [order_id for order_id in approved.after if not self._has_ended(order_id)]
        if not open_ids:
            return True
        self._waiting[approved.order.client_order_id] = approved
        for order_id in open_ids:
            self._waited_for.setdefault(order_id, []).append(approved.order.client_order_id)
        return False

    def ended(self, order: Order) -> tuple[list[ApprovedOrder], list[ApprovedOrder]]:
        """An order became final: those that may go now, and those that are dropped, in order of approval."""
        ready: list[ApprovedOrder] = []
        dropped: list[ApprovedOrder] = []
        for waiting_id in self._waited_for.pop(order.client_order_id, ()):
            approved = self._waiting.get(waiting_id)
            if approved is None:
                continue
            if order.side is approved.order.side and order.state is not OrderState.FILLED:
                dropped.append(self._waiting.pop(waiting_id))
            elif all(self._has_ended(order_id) for order_id in approved.after):
                ready.append(self._waiting.pop(waiting_id))
        return ready, dropped

    def give_up(self, client_order_id: str) -> ApprovedOrder | None:
        """Take back one that is held."""
        return self._waiting.pop(client_order_id, None)

    def _has_ended(self, client_order_id: str) -> bool:
        order = self._find(client_order_id)
        return order is None or order.state.is_final
