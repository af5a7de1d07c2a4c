"""What the engine tells strategies and hosts: immutable, one class per thing that can happen.

Every order event carries ``strategy_id``, ``client_order_id``, ``instrument`` (an id) and ``ts_ns``, the engine's
time of hearing it.
"""

from typing import TypeAlias

import attrs

from trio_nt.model.actions import Action
from trio_nt.model.orders import Fill
from trio_nt.model.reasons import Reason


@attrs.frozen
class Accepted:
    """The venue has the order."""

    strategy_id: str
    client_order_id: str
    instrument: str
    ts_ns: int


@attrs.frozen
class Refused:
    """Our own risk check said no: nothing was sent. ``client_order_id`` is empty where no order came to be."""

    strategy_id: str
    client_order_id: str
    instrument: str
    ts_ns: int
    reason: Reason
    detail: str
    action: Action


@attrs.frozen
class Rejected:
    """The venue said no."""

    strategy_id: str
    client_order_id: str
    instrument: str
    ts_ns: int
    reason: str


@attrs.frozen
class Filled:
    """An execution; ``complete`` when nothing of the order is left."""

    strategy_id: str
    client_order_id: str
    instrument: str
    ts_ns: int
    fill: Fill
    complete: bool


@attrs.frozen
class Cancelled:
    """The order was withdrawn; what was filled before stays filled."""

    strategy_id: str
    client_order_id: str
    instrument: str
    ts_ns: int


@attrs.frozen
class CancelRejected:
    """A cancel (or a replace) came too late or was not allowed; the order lives on as it was."""

    strategy_id: str
    client_order_id: str
    instrument: str
    ts_ns: int
    reason: str
    is_replace: bool = False


@attrs.frozen
class Replaced:
    """The order has its new quantity or price."""

    strategy_id: str
    client_order_id: str
    instrument: str
    ts_ns: int


@attrs.frozen
class Expired:
    """Its time in force ended."""

    strategy_id: str
    client_order_id: str
    instrument: str
    ts_ns: int


@attrs.frozen
class StrategyState:
    """A strategy changed state; ``detail`` says why.

    ``running``, ``stopped``, ``failed``, ``restarting`` (it waits for its next start), ``quarantined``.
    """

    strategy_id: str
    state: str
    ts_ns: int
    detail: str = ""


@attrs.frozen
class StrategyWarning:
    """A strategy runs on, but somebody should look at it.

    ``reason``: ``overrun`` (it holds the loop), ``demoted`` (to a lower lane for that), ``flood`` (risk refuses its
    orders for their rate), ``state`` (what it wants to be saved was refused, or could not be written).
    """

    strategy_id: str
    reason: str
    ts_ns: int
    detail: str = ""


@attrs.frozen
class FeedState:
    """A feed changed state: ``connected``, ``stale``, ``ended``."""

    feed: str
    state: str
    ts_ns: int
    detail: str = ""


@attrs.frozen
class Halted:
    """Trading stopped; nothing is sent until a person decides."""

    reason: str
    ts_ns: int


OrderEvent: TypeAlias = Accepted | Refused | Rejected | Filled | Cancelled | CancelRejected | Replaced | Expired
Event: TypeAlias = OrderEvent | StrategyState | StrategyWarning | FeedState | Halted
