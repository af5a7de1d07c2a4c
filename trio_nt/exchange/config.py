"""What a simulated venue is started with."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import attrs

from trio_nt.exchange.faults import FaultSettings
from trio_nt.exchange.market import SYMBOLS
from trio_nt.model.money import Number, to_decimal


def _amount(value: Number) -> Decimal:
    return to_decimal(value)


@attrs.frozen(kw_only=True)
class ExchangeConfig:
    """Settings of the venue's process. ``port=0`` takes any free one.

    ``keys`` are the accepted pairs of API key and secret; all of them open the one account. ``step_ns`` is the grid of
    the market's schedule. ``outbox_bytes`` is how much a stream's client may be behind before it is dropped.
    ``duration_s=None`` runs until it is told to end. ``leverage`` × equity is what may be open; None takes every order.
    ``partial_fills`` is the share of executions that take only a part of their order. ``state`` is a folder for the
    venue's log: with it every order, fill and cancel is on the disk before anybody is told, and a venue that opens on
    the same folder goes on where the last one ended, however it ended. ``faults`` is what goes wrong on purpose.

    Raises:
        ValueError, TypeError: a value out of its range; the message names it.
    """

    host: str = "127.0.0.1"
    port: int = attrs.field(default=0, validator=[attrs.validators.ge(0), attrs.validators.le(65535)])
    seed: int = attrs.field(default=1, validator=attrs.validators.ge(0))
    symbols: int = attrs.field(
        default=len(SYMBOLS), validator=[attrs.validators.ge(1), attrs.validators.le(len(SYMBOLS))]
    )
    events_per_second: float = attrs.field(default=10_000.0, validator=attrs.validators.gt(0))
    cash: Decimal = attrs.field(default=Decimal(100_000), converter=_amount)
    maker_fee: Decimal = attrs.field(default=Decimal("0.0001"), converter=_amount)
    taker_fee: Decimal = attrs.field(default=Decimal("0.0003"), converter=_amount)
    keys: Mapping[str, str] = attrs.field(factory=lambda: {"sim": "sim"}, repr=False)
    duration_s: float | None = None
    step_ns: int = attrs.field(default=1_000_000, validator=attrs.validators.gt(0))
    requests_per_minute: int = attrs.field(default=300_000, validator=attrs.validators.gt(0))
    outbox_bytes: int = attrs.field(default=1_048_576, validator=attrs.validators.gt(0))
    leverage: Decimal | None = attrs.field(default=Decimal(4), converter=attrs.converters.optional(_amount))
    partial_fills: float = attrs.field(default=0.0, validator=[attrs.validators.ge(0), attrs.validators.lt(1)])
    faults: FaultSettings = attrs.field(factory=FaultSettings)
    state: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
