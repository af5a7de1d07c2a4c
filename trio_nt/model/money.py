"""Exact amounts.

Positions, cash, fees and PnL are ``Decimal``, one amount per currency; currencies are never added together.
Prices and sizes in columns are float64 and become ``Decimal`` once, where they meet an order or a fill.
"""

from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Any, TypeAlias

import numpy as np

Number: TypeAlias = int | float | str | Decimal | np.integer[Any] | np.floating[Any]
# A limit that is money: one number that holds in every currency, a number for each currency, or none.
Amount: TypeAlias = Decimal | Mapping[str, Decimal] | None
ZERO = Decimal(0)

# Wide enough for the product of any price, quantity and multiplier in use; fixed, so that no caller's context
# can change what an engine books.
EXACT = Context(prec=50, rounding=ROUND_HALF_EVEN)
_add, _divide, _multiply = EXACT.add, EXACT.divide, EXACT.multiply


def to_decimal(value: Number, name: str = "value") -> Decimal:
    """Convert a caller's number once, exactly as it is written.

    A float becomes the shortest decimal that reads back as the same float (0.1 becomes 0.1).

    Raises:
        TypeError: not a number (a bool is none).
        ValueError: NaN, infinite, or a string that is no number.
    """
    if type(value) is float:
        result = Decimal(repr(value))
    elif type(value) is int:
        return Decimal(value)
    elif isinstance(value, Decimal):
        result = value
    elif isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a number, was {value!r}")
    elif isinstance(value, (int, np.integer)):
        return Decimal(int(value))
    elif isinstance(value, (float, np.floating)):
        result = Decimal(repr(float(value)))
    elif isinstance(value, str):
        try:
            result = Decimal(value)
        except InvalidOperation:
            raise ValueError(f"{name} must be a number, was {value!r}") from None
    else:
        raise TypeError(f"{name} must be a number, was {value!r}")
    if not result.is_finite():
        raise ValueError(f"{name} must be finite, was {value!r}")
    return result


def round_down(value: Decimal, step: Decimal) -> Decimal:
    """The multiple of ``step`` nearest to ``value`` on the side of zero."""
    return _on_step(value, step, ROUND_DOWN)


def floor_to(value: Decimal, step: Decimal) -> Decimal:
    """The greatest multiple of ``step`` that is not above ``value``."""
    return _on_step(value, step, ROUND_FLOOR)


def ceil_to(value: Decimal, step: Decimal) -> Decimal:
    """The smallest multiple of ``step`` that is not below ``value``."""
    return _on_step(value, step, ROUND_CEILING)


def nearest(value: Decimal, step: Decimal) -> Decimal:
    """The nearest multiple of ``step``; a tie goes to the even multiple."""
    return _on_step(value, step, ROUND_HALF_EVEN)


def _on_step(value: Decimal, step: Decimal, rounding: str) -> Decimal:
    return _multiply(_divide(value, step).to_integral_value(rounding=rounding), step)


class Money(Mapping[str, Decimal]):
    """Amounts by currency, e.g. cash. ``add`` books in place; reading an unknown currency gives 0."""

    __slots__ = ("_amounts",)

    def __init__(self, amounts: Mapping[str, Decimal] | None = None) -> None:
        self._amounts: dict[str, Decimal] = dict(amounts or {})

    def add(self, currency: str, amount: Decimal) -> None:
        if amount:
            self._amounts[currency] = _add(self._amounts.get(currency, ZERO), amount)
        elif currency not in self._amounts:
            self._amounts[currency] = amount

    def __getitem__(self, currency: str) -> Decimal:
        return self._amounts.get(currency, ZERO)

    def __iter__(self) -> Iterator[str]:
        return iter(self._amounts)

    def __len__(self) -> int:
        return len(self._amounts)

    def __repr__(self) -> str:
        return "Money(" + ", ".join(f"{amount} {currency}" for currency, amount in self._amounts.items()) + ")"

    def copy(self) -> "Money":
        return Money(self._amounts)
