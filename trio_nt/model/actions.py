"""What a strategy may ask for: a ``Signal``, a ``Cancel`` or a ``Replace``. All are immutable.

``row`` is the index of the event that caused the action, within the batch that the handler got; per-event handlers
leave it to the engine. ``strategy_id`` is the engine's to fill in.
"""

from collections.abc import Iterable
from decimal import Decimal
from enum import Enum
from typing import Any, TypeAlias, TypedDict, Unpack

import attrs
import numpy as np

from trio_nt.model.instruments import Instrument, InstrumentKey, Side
from trio_nt.model.money import Number, to_decimal


class OrderType(Enum):
    needs_limit: bool  # which prices it goes with; set below
    needs_stop: bool

    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    STOP_LIMIT = "stop_limit"


for _type in OrderType:
    _type.needs_limit = _type in (OrderType.LIMIT, OrderType.STOP_LIMIT)
    _type.needs_stop = _type in (OrderType.STOP, OrderType.STOP_LIMIT)


class TimeInForce(Enum):
    DAY = "day"
    GTC = "gtc"
    IOC = "ioc"
    FOK = "fok"


def _optional_decimal(value: "Number | None") -> Decimal | None:
    return None if value is None else to_decimal(value)


def _instrument_key(key: object) -> str | int:
    if isinstance(key, str):
        return key
    if isinstance(key, Instrument):
        return key.id
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        return int(key)
    raise TypeError(f"instrument must be an id, a symbol, an index or an Instrument, was {key!r}")


def _row(row: "int | np.integer | None") -> int | None:
    return None if row is None else int(row)


@attrs.frozen
class Signal:
    """A wish to trade.

    ``side=None`` makes ``quantity`` a target: the signed position wanted, this strategy's working orders counted.
    Use ``buy``, ``sell`` and ``target`` to make one.

    Raises:
        TypeError, ValueError: a quantity or price that is no finite number; a quantity not above 0 (targets may be
            any); a limit or stop price that the order type needs and has not, or has and does not use.
    """

    instrument: str | int = attrs.field(converter=_instrument_key)
    side: Side | None
    quantity: Decimal = attrs.field(converter=to_decimal)
    order_type: OrderType = attrs.field(default=OrderType.MARKET, kw_only=True)
    limit_price: Decimal | None = attrs.field(default=None, converter=_optional_decimal, kw_only=True)
    stop_price: Decimal | None = attrs.field(default=None, converter=_optional_decimal, kw_only=True)
    time_in_force: TimeInForce = attrs.field(default=TimeInForce.DAY, kw_only=True)
    reduce_only: bool = attrs.field(default=False, kw_only=True)
    row: int | None = attrs.field(default=None, converter=_row, kw_only=True)
    tag: str = attrs.field(default="", kw_only=True)
    strategy_id: str = attrs.field(default="", kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.side is not None and self.quantity <= 0:
            raise ValueError(f"quantity must be above 0, was {self.quantity}")
        if self.order_type is OrderType.MARKET and self.limit_price is None and self.stop_price is None:
            return
        for name, price, needed in (
            ("limit_price", self.limit_price, self.order_type.needs_limit),
            ("stop_price", self.stop_price, self.order_type.needs_stop),
        ):
            if needed and price is None:
                raise ValueError(f"{name} is needed by a {self.order_type.value} order")
            if price is not None and not needed:
                raise ValueError(f"{name} is not used by a {self.order_type.value} order, was {price}")
            if price is not None and price <= 0:
                raise ValueError(f"{name} must be above 0, was {price}")

    @property
    def is_target(self) -> bool:
        return self.side is None


@attrs.frozen
class Cancel:
    """Withdraw one working order by ``order_id``, or all of this strategy's working orders in ``instrument``."""

    order_id: str | None = None
    instrument: str | int | None = attrs.field(
        default=None, converter=attrs.converters.optional(_instrument_key), kw_only=True
    )
    row: int | None = attrs.field(default=None, converter=_row, kw_only=True)
    tag: str = attrs.field(default="", kw_only=True)
    strategy_id: str = attrs.field(default="", kw_only=True)

    def __attrs_post_init__(self) -> None:
        if (self.order_id is None) == (self.instrument is None):
            raise ValueError("Cancel needs either order_id or instrument")


@attrs.frozen
class Replace:
    """Change quantity or limit price of one working order. ``quantity`` is the new total, filled part included."""

    order_id: str
    quantity: Decimal | None = attrs.field(default=None, converter=_optional_decimal, kw_only=True)
    limit_price: Decimal | None = attrs.field(default=None, converter=_optional_decimal, kw_only=True)
    row: int | None = attrs.field(default=None, converter=_row, kw_only=True)
    tag: str = attrs.field(default="", kw_only=True)
    strategy_id: str = attrs.field(default="", kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.quantity is None and self.limit_price is None:
            raise ValueError("Replace needs a quantity or a limit_price")
        for name, value in (("quantity", self.quantity), ("limit_price", self.limit_price)):
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, was {value}")


Action: TypeAlias = Signal | Cancel | Replace
Actions: TypeAlias = Action | Iterable[Action] | None


class SignalOptions(TypedDict, total=False):
    """What ``buy`` and ``sell`` take beside instrument and quantity; see ``Signal``."""

    order_type: OrderType
    limit_price: Number | None
    stop_price: Number | None
    time_in_force: TimeInForce
    reduce_only: bool
    row: "int | np.integer | None"
    tag: str


def buy(instrument: InstrumentKey, quantity: Number, **options: Unpack[SignalOptions]) -> Signal:
    """A signal to buy ``quantity``; the order type follows from the prices given unless it is stated."""
    return _signal(Side.BUY, instrument, quantity, options)


def sell(instrument: InstrumentKey, quantity: Number, **options: Unpack[SignalOptions]) -> Signal:
    """A signal to sell ``quantity``; the order type follows from the prices given unless it is stated."""
    return _signal(Side.SELL, instrument, quantity, options)


def target(
    instrument: InstrumentKey, quantity: Number, *, row: int | np.integer | None = None, tag: str = ""
) -> Signal:
    """A signal for the signed position wanted: a market order for what is missing, nothing where nothing is."""
    return Signal(instrument, None, quantity, row=row, tag=tag)


_TYPE_BY_PRICES = {
    (False, False): OrderType.MARKET,
    (True, False): OrderType.LIMIT,
    (False, True): OrderType.STOP,
    (True, True): OrderType.STOP_LIMIT,
}


def _signal(side: Side, instrument: InstrumentKey, quantity: Number, options: SignalOptions) -> Signal:
    if "order_type" not in options:
        given = options.get("limit_price") is not None, options.get("stop_price") is not None
        options["order_type"] = _TYPE_BY_PRICES[given]
    return Signal(instrument, side, quantity, **options)


def as_actions(returned: object) -> tuple[Action, ...]:
    """What a handler returned, as actions.

    Raises:
        TypeError: it returned something else than None, an action or an iterable of actions.
    """
    if returned is None:
        return ()
    if type(returned) is Signal or isinstance(returned, (Signal, Cancel, Replace)):
        return (returned,)
    if isinstance(returned, Iterable) and not isinstance(returned, (str, bytes)):
        actions = tuple(returned)
        for action in actions:
            if not isinstance(action, (Signal, Cancel, Replace)):
                raise TypeError(f"a handler must return actions, one of them was {action!r}")
        return actions
    raise TypeError(f"a handler must return None, an action or an iterable of actions, was {returned!r}")


def stamped(action: Action, strategy_id: str, row: int) -> Action:
    """A copy of a strategy's action with its ``strategy_id`` and ``row`` filled in.

    Copied field by field: its values were checked when it was made.
    """
    kind = type(action)
    copy: Action = _new(kind)
    members, set_strategy_id, set_row = _MEMBERS[kind]
    for get, put in members:
        put(copy, get(action))
    set_strategy_id(copy, strategy_id)
    set_row(copy, row)
    return copy


def _members(kind: type) -> tuple[list[tuple[Any, Any]], Any, Any]:
    """How to read and write the slots of a class of actions, but for the two that are the engine's."""
    slots = {field.name: getattr(kind, field.name) for field in attrs.fields(kind)}
    set_strategy_id, set_row = slots.pop("strategy_id").__set__, slots.pop("row").__set__
    return [(member.__get__, member.__set__) for member in slots.values()], set_strategy_id, set_row


_new: Any = object.__new__
_MEMBERS = {kind: _members(kind) for kind in (Signal, Cancel, Replace)}
