"""Orders, executions and what a broker says about them.

The state table below is the only place that knows which state follows which. The real world's oddities are in it on
purpose: a fill may come before the acknowledgement, after a cancel was sent, even after the cancel was confirmed.
"""

from decimal import Decimal
from enum import Enum

import attrs

from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.instruments import Side
from trio_nt.model.money import EXACT, ZERO

EXTERNAL = "EXTERNAL"  # the owner of orders and positions of the account that no strategy of ours made


class OrderState(Enum):
    is_final: bool  # nothing more is expected of it; set below

    __hash__ = object.__hash__  # members are singletons; Enum's own takes ten times as long

    INTENDED = "intended"  # recorded, not yet sent
    SENT = "sent"
    ACCEPTED = "accepted"
    PARTIALLY_FILLED = "partially filled"
    PENDING_CANCEL = "pending cancel"
    PENDING_REPLACE = "pending replace"
    UNKNOWN = "unknown"  # the outcome of a request is not known
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    REPLACED = "replaced"  # lives on under another broker id
    ABANDONED = "abandoned"  # never confirmed; its id is still watched


FINAL_STATES = frozenset(
    {
        OrderState.FILLED,
        OrderState.CANCELLED,
        OrderState.REJECTED,
        OrderState.EXPIRED,
        OrderState.REPLACED,
        OrderState.ABANDONED,
    }
)
for _state in OrderState:
    _state.is_final = _state in FINAL_STATES


class Liquidity(Enum):
    MAKER = "maker"
    TAKER = "taker"


class UpdateKind(Enum):
    """What a broker's update stream can say."""

    __hash__ = object.__hash__

    ACCEPTED = "accepted"
    PARTIALLY_FILLED = "partially filled"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    REPLACED = "replaced"
    PENDING_CANCEL = "pending cancel"
    PENDING_REPLACE = "pending replace"
    CANCEL_REJECTED = "cancel rejected"
    REPLACE_REJECTED = "replace rejected"


@attrs.frozen
class OrderRequest:
    """An order as it crosses to a venue: everything on tick and lot, exact."""

    client_order_id: str
    instrument: str
    side: Side
    quantity: Decimal
    order_type: OrderType = OrderType.MARKET
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.DAY
    reduce_only: bool = False


@attrs.frozen
class Execution:
    """One execution as the venue reports it. ``fee`` is positive when it was paid."""

    execution_id: str
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_currency: str
    liquidity: Liquidity


@attrs.frozen
class BrokerUpdate:
    """One message about one order from a broker. Times: UNIX ns by the venue's clock."""

    kind: UpdateKind
    client_order_id: str
    broker_order_id: str
    instrument: str
    ts_event: int
    execution: Execution | None = None
    reason: str = ""
    request: OrderRequest | None = None  # the order as the broker knows it, where its message holds it


@attrs.frozen
class Fill:
    """One execution of one strategy's order, booked once. ``fee`` is positive when it was paid."""

    execution_id: str
    client_order_id: str
    strategy_id: str
    instrument: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_currency: str
    liquidity: Liquidity
    ts_event: int
    ts_init: int

    @property
    def signed_quantity(self) -> Decimal:
        return self.quantity if self.side is Side.BUY else -self.quantity


@attrs.define(eq=False)
class Order:
    """One order of one strategy, from its recording to its end. Times: UNIX ns of the engine's clock."""

    client_order_id: str
    strategy_id: str
    instrument: str
    side: Side
    quantity: Decimal
    order_type: OrderType
    limit_price: Decimal | None
    stop_price: Decimal | None
    time_in_force: TimeInForce
    reduce_only: bool
    tag: str
    ts_signal: int  # ts_init of the row that caused it
    state: OrderState = OrderState.INTENDED
    broker_order_id: str = ""
    filled_quantity: Decimal = ZERO
    filled_notional: Decimal = ZERO  # Σ quantity × price, for the average price alone
    reason: str = ""
    ts_end: int = 0

    @property
    def remaining_quantity(self) -> Decimal:
        return self.quantity - self.filled_quantity

    @property
    def is_working(self) -> bool:
        return not self.state.is_final

    @property
    def average_price(self) -> Decimal | None:
        """Quantity-weighted price of its fills; None before the first."""
        return EXACT.divide(self.filled_notional, self.filled_quantity) if self.filled_quantity else None

    @property
    def signed_remaining(self) -> Decimal:
        return self.remaining_quantity if self.side is Side.BUY else -self.remaining_quantity

    def request(self) -> OrderRequest:
        return OrderRequest(
            self.client_order_id,
            self.instrument,
            self.side,
            self.quantity,
            self.order_type,
            self.limit_price,
            self.stop_price,
            self.time_in_force,
            self.reduce_only,
        )
