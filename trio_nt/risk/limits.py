"""What risk allows: settings of one strategy or of the whole account.

Amounts of money (``max_order_notional`` and the like) are either one number that holds in every currency, or a mapping
from currency to number; currencies are never added together. ``None`` switches a limit off. Prices that a limit needs
come from the last good quote.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import Any

import attrs

from trio_nt.model.money import Amount, Number, to_decimal


class TradingState(Enum):
    """ACTIVE: everything; REDUCING: only what brings a position nearer to zero, and cancels; HALTED: cancels only."""

    ACTIVE = "active"
    REDUCING = "reducing"
    HALTED = "halted"


class SelfTrade(Enum):
    """What to do with an order that could trade against a working order of the same account."""

    REFUSE = "refuse"
    CANCEL_WORKING = "cancel working"  # cancel the working order first, then send
    ALLOW = "allow"


def _decimal_or_none(value: "Number | None") -> Decimal | None:
    return None if value is None else to_decimal(value)


def _amount(value: "Number | Mapping[str, Number] | None") -> Amount:
    if isinstance(value, Mapping):
        return {currency: to_decimal(amount) for currency, amount in value.items()}
    return _decimal_or_none(value)


def _not_negative(instance: object, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    numbers = value.values() if isinstance(value, Mapping) else (value,)
    for number in numbers:
        if number is not None and number < 0:
            raise ValueError(f"{attribute.name} must not be negative, was {number}")


def _positive(instance: object, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if value is not None and value <= 0:
        raise ValueError(f"{attribute.name} must be above 0, was {value}")


@attrs.frozen(kw_only=True)
class RiskLimits:
    """Limits of one level: the account, or one strategy within it. Both are checked, the stricter wins.

    Attributes:
        max_order_quantity: units of one order.
        min_order_notional, max_order_notional: worth of one order at its worst price; the instrument's own minimum
            holds besides.
        max_position: absolute position per instrument, working orders counted at their worst case.
        max_gross_exposure: sum over instruments of the worst-case position's worth.
        price_collar: how far a limit price may reach beyond the last quote's far side (0.1 = 10 %), a buy above the
            ask, a sell below the bid. A stop-limit order's limit is measured from its stop.
        stale_after_s: age of the last good quote above which no order is sent.
        submit_rate_per_s, submit_burst: token bucket; orders and replaces count, refused ones too, cancels do not.
        max_open_orders: orders that may be working at the same time.
        duplicate_window_s: the same order again within this time is refused; 0 allows it.
        max_daily_loss: loss since the start of the trading day, unrealised included, above which only orders that
            reduce a position are sent.
        leverage: worst-case gross exposure per currency may not exceed leverage x (cash + profit) of that currency.
            Checked only at account level, where cash is known.
        restricted: instrument ids that may only be reduced.
        self_trade: see ``SelfTrade``; of the account's limits alone.
        split_flips: send an order that would turn the account's position around as two, close and then open.
            ``None``: for equities, where venues refuse such orders.
    """

    max_order_quantity: Decimal | None = attrs.field(default=None, converter=_decimal_or_none, validator=_positive)
    min_order_notional: Amount = attrs.field(default=None, converter=_amount, validator=_not_negative)
    max_order_notional: Amount = attrs.field(default=None, converter=_amount, validator=_not_negative)
    max_position: Decimal | None = attrs.field(default=None, converter=_decimal_or_none, validator=_not_negative)
    max_gross_exposure: Amount = attrs.field(default=None, converter=_amount, validator=_not_negative)
    price_collar: float | None = attrs.field(default=0.10, validator=_not_negative)
    stale_after_s: float | None = attrs.field(default=60.0, validator=_positive)
    submit_rate_per_s: float | None = attrs.field(default=1_000.0, validator=_positive)
    submit_burst: int = attrs.field(default=1_000, validator=_positive)
    max_open_orders: int | None = attrs.field(default=1_000, validator=_positive)
    duplicate_window_s: float = attrs.field(default=0.0, validator=_not_negative)
    max_daily_loss: Amount = attrs.field(default=None, converter=_amount, validator=_not_negative)
    leverage: float | None = attrs.field(default=None, validator=_positive)
    restricted: frozenset[str] = attrs.field(default=frozenset(), converter=frozenset)
    self_trade: SelfTrade = attrs.field(default=SelfTrade.REFUSE, converter=SelfTrade)
    split_flips: bool | None = None


def amount_in(amount: Amount, currency: str) -> float | None:
    """A limit in one currency, None where there is none. Float: it is compared with worths at float prices."""
    if isinstance(amount, Mapping):
        found = amount.get(currency)
        return None if found is None else float(found)
    return None if amount is None else float(amount)
