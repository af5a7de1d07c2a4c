"""What can be traded, and how its amounts are computed.

An inverse contract is worth ``multiplier / price`` of its settlement currency; every other kind
``multiplier × price``. This is the one place that knows the difference.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from enum import Enum
from typing import Any, TypeAlias

import attrs
import numpy as np

from trio_nt.model.calendar import ALWAYS_OPEN, Calendar
from trio_nt.model.money import EXACT, ZERO, ceil_to, floor_to, round_down, to_decimal

_multiply, _subtract = EXACT.multiply, EXACT.subtract


class InstrumentKind(Enum):
    SPOT = "spot"
    LINEAR = "linear"
    INVERSE = "inverse"
    EQUITY = "equity"


class Side(Enum):
    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        return 1 if self is Side.BUY else -1

    @property
    def opposite(self) -> "Side":
        return Side.SELL if self is Side.BUY else Side.BUY


def _decimal(value: object) -> Decimal:
    return to_decimal(value)  # type: ignore[arg-type]


def _positive(instance: "Instrument", attribute: "attrs.Attribute[Decimal]", value: Decimal) -> None:
    if value <= 0:
        raise ValueError(f"{attribute.name} of {instance.id} must be above 0, was {value}")


def _not_negative(instance: "Instrument", attribute: "attrs.Attribute[Decimal]", value: Decimal) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} of {instance.id} must not be negative, was {value}")


@attrs.frozen(kw_only=True)
class Instrument:
    """One tradable thing on one venue.

    ``id`` is unique and names the venue where a symbol alone would be ambiguous (``BTCUSDT.BINANCE_UM``).
    Fees are fractions of the notional (0.0004 = 4 basis points), paid in ``settlement``; a negative maker
    fee is a rebate.
    """

    id: str
    symbol: str
    venue: str = ""
    kind: InstrumentKind = InstrumentKind.EQUITY
    base: str = ""
    quote: str = "USD"
    settlement: str = attrs.field()
    multiplier: Decimal = attrs.field(default=Decimal(1), converter=_decimal, validator=_positive)
    tick_size: Decimal = attrs.field(default=Decimal("0.01"), converter=_decimal, validator=_positive)
    lot_size: Decimal = attrs.field(default=Decimal(1), converter=_decimal, validator=_positive)
    min_quantity: Decimal = attrs.field(default=ZERO, converter=_decimal, validator=_not_negative)
    min_notional: Decimal = attrs.field(default=ZERO, converter=_decimal, validator=_not_negative)
    maker_fee: Decimal = attrs.field(default=ZERO, converter=_decimal)
    taker_fee: Decimal = attrs.field(default=ZERO, converter=_decimal)
    shortable: bool = True
    calendar: Calendar = ALWAYS_OPEN

    @settlement.default
    def _settlement_default(self) -> str:
        return self.base if self.kind is InstrumentKind.INVERSE else self.quote

    def __attrs_post_init__(self) -> None:
        if not self.id:
            raise ValueError("id of an instrument must not be empty")

    def round_quantity(self, quantity: Decimal) -> Decimal:
        """Put a quantity on the lot, towards zero."""
        return round_down(quantity, self.lot_size)

    def round_price(self, price: Decimal, side: Side) -> Decimal:
        """Put a limit or stop price on the tick: a buy never pays more, a sell never takes less than asked."""
        return floor_to(price, self.tick_size) if side is Side.BUY else ceil_to(price, self.tick_size)

    def notional(self, quantity: Decimal, price: Decimal) -> Decimal:
        """What ``quantity`` is worth at ``price``, in ``settlement``, with the sign of ``quantity``."""
        size = _multiply(quantity, self.multiplier)
        if self.kind is InstrumentKind.INVERSE:
            return EXACT.divide(size, price)
        return _multiply(size, price)

    def profit(self, quantity: Decimal, entry: Decimal, exit: Decimal) -> Decimal:
        """What a signed ``quantity`` entered at ``entry`` gained at ``exit``, before fees, in ``settlement``."""
        if self.kind is InstrumentKind.INVERSE:
            return EXACT.subtract(self.notional(quantity, entry), self.notional(quantity, exit))
        return _multiply(_multiply(quantity, self.multiplier), _subtract(exit, entry))


InstrumentKey: TypeAlias = str | int | np.integer[Any] | Instrument


class Instruments:
    """The instruments of one run, in order of registration; the column ``instrument`` holds their index.

    Lookup takes an id, a symbol where it is unambiguous, an index, or an ``Instrument``.
    """

    __slots__ = ("_all", "_index_by_id", "_index_by_symbol")

    def __init__(self, instruments: Iterable[Instrument] = ()) -> None:
        self._all: list[Instrument] = []
        self._index_by_id: dict[str, int] = {}
        self._index_by_symbol: dict[str, int | None] = {}
        for instrument in instruments:
            self.add(instrument)

    def add(self, instrument: Instrument) -> int:
        """Register one; its index. The same instrument again is allowed, another with its id is not."""
        known = self._index_by_id.get(instrument.id)
        if known is not None:
            if self._all[known] != instrument:
                raise ValueError(f"instrument {instrument.id!r} is described twice, differently")
            return known
        index = len(self._all)
        self._all.append(instrument)
        self._index_by_id[instrument.id] = index
        # None marks a symbol that several venues list: it names no instrument any more.
        self._index_by_symbol[instrument.symbol] = None if instrument.symbol in self._index_by_symbol else index
        return index

    def index(self, key: InstrumentKey) -> int:
        """The column value of an instrument. ``KeyError`` names what is unknown or ambiguous, and what there is."""
        if isinstance(key, str):
            found = self._index_by_id.get(key)
            if found is None:
                found = self._index_by_symbol.get(key)
            if found is not None:
                return found
            if key in self._index_by_symbol:
                ids = [instrument.id for instrument in self._all if instrument.symbol == key]
                raise KeyError(f"symbol {key!r} is ambiguous, use one of the ids {', '.join(ids)}")
        elif isinstance(key, Instrument):
            return self.index(key.id)
        elif not isinstance(key, (bool, np.bool_)):
            position = int(key)
            if 0 <= position < len(self._all):
                return position
        raise KeyError(f"unknown instrument {key!r}; known: {', '.join(self._index_by_id) or 'none'}")

    def __getitem__(self, key: InstrumentKey) -> Instrument:
        found = self._index_by_id.get(key) if type(key) is str else None  # as a rule it is an id
        return self._all[self.index(key) if found is None else found]

    def __contains__(self, key: object) -> bool:
        try:
            self.index(key)  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError):
            return False
        return True

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __repr__(self) -> str:
        return f"Instruments({', '.join(self._index_by_id)})"

    @property
    def ids(self) -> list[str]:
        return [instrument.id for instrument in self._all]
