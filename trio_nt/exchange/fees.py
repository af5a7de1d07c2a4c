"""What executions pay. Pure."""

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TypeAlias

import attrs

from trio_nt.model.instruments import Instrument
from trio_nt.model.money import EXACT, Number, to_decimal

FEE_STEP = Decimal("1e-8")


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


def fee_of(instrument: Instrument, quantity: Decimal, price: Decimal, rate: Decimal) -> Decimal:
    """What an execution pays, in the settlement currency, to the eighth decimal place; negative: a rebate."""
    exact = EXACT.multiply(abs(instrument.notional(quantity, price)), rate)
    return exact.quantize(FEE_STEP, ROUND_HALF_EVEN, EXACT)
