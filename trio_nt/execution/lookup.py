"""What became of a request that got no answer.

Rules
-----
- Look up by client order id, again and again with growing pauses, until the grace period ends: "not found" now does
  not prove that a request is not still on its way.
- Not found by then: the order is sent again under the *same* client order id if its signal is still valid (a broker
  that refuses it as a duplicate had it all along); else it is ABANDONED and news of it still counts.
- A cancel without an answer is repeated: cancelling twice does no harm. A replace without an answer is never
  repeated: the book shows whether it took effect.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Self

import attrs
import trio

from trio_nt.errors import DuplicateOrder, ExecutionError, OrderRejected, OutcomeUnknown
from trio_nt.execution.orders import OrderTable
from trio_nt.model.broker import Broker, BrokerOrder
from trio_nt.model.orders import BrokerUpdate, Order, OrderState, UpdateKind


@attrs.frozen(kw_only=True)
class LookupSettings:
    """Attributes:
    grace_s: how long a request may still be on its way.
    signal_valid_s: age of the signal up to which an order that did not arrive is sent again.
    answer_s: how long one look-up may take.
    pause_s, pause_max_s: the first and the greatest pause between look-ups.
    """

    grace_s: float = 5.0
    signal_valid_s: float = 10.0
    pause_s: float = 0.05
    pause_max_s: float = 1.0
    answer_s: float = 2.0


UNANSWERED = (OrderState.SENT, OrderState.UNKNOWN)
SKEW_NS = 60 * 1_000_000_000  # between the broker's clock and ours, when executions are asked for by time
_END_BY_STATE = {
    OrderState.CANCELLED: UpdateKind.CANCELLED,
    OrderState.EXPIRED: UpdateKind.EXPIRED,
    OrderState.REJECTED: UpdateKind.REJECTED,
}


class Lookup:
    """Finds out, and tells ``hear`` what it found. All methods are checkpoints and raise nothing of the broker's."""

    def __init__(
        self,
        broker: Broker,
        table: OrderTable,
        hear: Callable[[BrokerUpdate], object],
        now_ns: Callable[[], int],
        settings: LookupSettings,
    ) -> None:
        self._broker = broker
        self._table = table
        self._hear = hear
        self._now_ns = now_ns
        self._settings = settings
        self.abandoned = 0

    async def submitted(self, order: Order) -> None:
        """Resolve an order of which it is not known whether it arrived."""
        async for found in self._until_grace_ends(order):
            if found is not None:
                await self.follow(order, found)
                return
            if order.state not in UNANSWERED:
                return  # the update stream told of it meanwhile
        if not self._is_valid(order):
            self._abandon(order, "no answer, not found, and its signal is too old to send it again")
            return
        try:
            found = await self._broker.submit(order.request())
        except DuplicateOrder:
            await self._find_duplicate(order)
        except OrderRejected as error:
            self._say(order, UpdateKind.REJECTED, str(error))
        except ExecutionError as error:
            self._abandon(order, f"no answer, not found, and sent again without an answer: {error}")
        else:
            await self.follow(order, found)

    async def unanswered(self, order: Order) -> None:
        """Resolve an order of an earlier run that was about to be sent: it is never sent late."""
        async for found in self._until_grace_ends(order):
            if found is not None:
                await self.follow(order, found)
                return
            if order.state not in UNANSWERED:
                return
        self._abandon(order, "no answer before the restart, and not found")

    async def cancelled(self, order: Order, refusal: str) -> None:
        """Resolve a cancel that was refused (with the reason) or got no answer (empty)."""
        async for found in self._until_grace_ends(order):
            if order.state.is_final:
                return
            if found is None:
                continue
            if found.state.is_final:
                await self.follow(order, found)
                return
            if refusal:
                self._say(order, UpdateKind.CANCEL_REJECTED, refusal)
                return
            try:
                await self._broker.cancel(order.client_order_id)
            except OutcomeUnknown:
                continue
            except OrderRejected as error:
                refusal = str(error)
                continue
            except ExecutionError:
                continue
            return  # it was taken; the stream tells the end
        if not order.state.is_final:
            self._say(order, UpdateKind.CANCEL_REJECTED, refusal or "no answer to the cancel; the order may be working")

    async def replaced(self, order: Order, quantity: Decimal | None, limit_price: Decimal | None) -> None:
        """Resolve a replace that got no answer by what the broker's book shows."""
        async for found in self._until_grace_ends(order):
            if order.state is not OrderState.PENDING_REPLACE:
                return
            if found is None:
                continue
            if found.state.is_final:
                await self.follow(order, found)
                return
            request = found.request
            if request is None:
                continue
            if quantity in (None, request.quantity) and limit_price in (None, request.limit_price):
                self.hear_of(order, UpdateKind.REPLACED, found)
                return
        if order.state is OrderState.PENDING_REPLACE:
            self._say(order, UpdateKind.REPLACE_REJECTED, "no answer to the replace, and the book shows the old order")

    async def follow(self, order: Order, found: BrokerOrder) -> None:
        """Bring an order to the state in which the broker has it, fills first."""
        self.hear_of(order, UpdateKind.ACCEPTED, found)
        if found.filled_quantity > order.filled_quantity:
            try:
                for update in await self._broker.fills_since(max(order.ts_signal - SKEW_NS, 0)):
                    if update.client_order_id == order.client_order_id:
                        self._hear(update)
            except ExecutionError:
                return  # the update stream or the next reconciliation brings them
        end = _END_BY_STATE.get(found.state)
        if end is not None:
            self._say(order, end, "found so by look-up")

    def hear_of(self, order: Order, kind: UpdateKind, found: BrokerOrder) -> None:
        """Tell that ``found`` is what the broker has."""
        request = found.request if kind is UpdateKind.REPLACED else None
        self._hear(
            BrokerUpdate(
                kind, order.client_order_id, found.broker_order_id, order.instrument, self._now_ns(), None, "", request
            )
        )

    async def _find_duplicate(self, order: Order) -> None:
        async for found in self._until_grace_ends(order):
            if found is not None:
                await self.follow(order, found)
                return
        self._abandon(order, "refused as a duplicate, yet not found")

    def _until_grace_ends(self, order: Order) -> "_Finds":
        return _Finds(self._broker, order.client_order_id, self._settings)

    def _is_valid(self, order: Order) -> bool:
        return self._now_ns() - order.ts_signal <= self._settings.signal_valid_s * 1e9

    def _abandon(self, order: Order, reason: str) -> None:
        if order.state in UNANSWERED:
            self.abandoned += 1
            self._table.mark_abandoned(order, self._now_ns(), reason)

    def _say(self, order: Order, kind: UpdateKind, reason: str) -> None:
        update = BrokerUpdate(
            kind, order.client_order_id, order.broker_order_id, order.instrument, self._now_ns(), None, reason
        )
        self._hear(update)


class _Finds:
    """Looks an order up until the grace period ends: what was found, None where nothing was (or nobody answered).

    No async generator: one that is left before its end would be closed whenever it is collected.
    """

    def __init__(self, broker: Broker, client_order_id: str, settings: LookupSettings) -> None:
        self._broker = broker
        self._client_order_id = client_order_id
        self._settings = settings
        self._deadline = trio.current_time() + settings.grace_s
        self._pause_s = 0.0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BrokerOrder | None:
        if self._pause_s:
            if trio.current_time() + self._pause_s > self._deadline:
                raise StopAsyncIteration
            await trio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s or self._settings.pause_s, self._settings.pause_max_s)
        with trio.move_on_after(self._settings.answer_s):
            try:
                return await self._broker.find(self._client_order_id)
            except ExecutionError:
                return None
        return None
