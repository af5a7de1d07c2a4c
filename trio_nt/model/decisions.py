"""What risk lets through. Only ``trio_nt.risk`` makes these; execution takes nothing else, so that no order leaves
unchecked."""

from decimal import Decimal
from typing import TypeAlias

import attrs

from trio_nt.model.events import Refused
from trio_nt.model.orders import Order


@attrs.frozen
class ApprovedOrder:
    """An order that may be sent once every order named in ``after`` has ended.

    ``after`` holds own working orders on the other side that are cancelled first, and on the same side the half that
    closes a position before this one opens the opposite position: that half must have been filled. Empty for others.
    """

    order: Order
    after: tuple[str, ...] = ()


@attrs.frozen
class ApprovedCancel:
    """A working order that may be cancelled."""

    order: Order


@attrs.frozen
class ApprovedReplace:
    """A working order that may get a new total quantity, a new limit price, or both (None: unchanged)."""

    order: Order
    quantity: Decimal | None
    limit_price: Decimal | None


Approved: TypeAlias = ApprovedOrder | ApprovedCancel | ApprovedReplace
Decision: TypeAlias = Approved | Refused  # a refusal is told to the strategy as it is
