"""How to make a strategy again: its class and its configuration, as they were before its first handler was called.

Containers in a configuration are copied, because a strategy may have written into them; what else it holds (a client,
a lock, a function) is shared, because another one would not be what the host gave.
"""

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from trio_nt.conversion import field_types, structure
from trio_nt.errors import InputError
from trio_nt.strategies.base import Strategy

_PLAIN = (bool, int, float, str, list, dict)


@attrs.frozen
class Blueprint:
    """A strategy's class and the values of its fields, by the names its constructor takes."""

    strategy_class: type[Strategy]
    values: Mapping[str, Any]

    @classmethod
    def of(cls, strategy: Strategy) -> "Blueprint":
        kind: Any = type(strategy)
        if not _is_attrs(kind):
            return cls(kind, _fresh(vars(strategy)))
        fields = [field for field in attrs.fields(kind) if field.init]
        return cls(kind, {field.alias: _fresh(getattr(strategy, field.name)) for field in fields})

    def make(self) -> Strategy:
        """A fresh strategy. Raises whatever its class raises."""
        make = self.strategy_class
        if _is_attrs(make):
            return make(**_fresh(self.values))
        strategy = make.__new__(make)
        vars(strategy).update(_fresh(self.values))
        return strategy

    def changed(self, changes: Mapping[str, Any], where: str) -> "Blueprint":
        """The same with other values: numbers, text, lists and tables as TOML has them, or objects of the field's type.

        Raises:
            InputError: there is no such field, or a value does not fit it.
        """
        if not _is_attrs(self.strategy_class):
            raise InputError(f"{where}: {self.strategy_class.__name__} is no attrs class: it has no configuration")
        types = field_types(self.strategy_class, where) or _inherited(self.strategy_class, where)
        name, values = self.strategy_class.__name__, dict(self.values)
        for key, value in changes.items():
            if key not in types:
                raise InputError(f"{where}: {name} has no field {key!r}; it has {', '.join(types) or 'none'}")
            plain = type(value) in _PLAIN and types[key] is not Any
            values[key] = structure(value, types[key], f"{where}: {key}") if plain else value
        return Blueprint(self.strategy_class, values)


def _is_attrs(strategy_class: type) -> bool:
    return attrs.has(strategy_class)


def _inherited(strategy_class: type[Strategy], where: str) -> Mapping[str, Any]:
    """The fields of the nearest attrs class above one that adds no field."""
    for base in strategy_class.__mro__[1:]:
        if "__attrs_attrs__" in vars(base):
            return field_types(base, where)
    return {}


def _fresh(value: Any) -> Any:
    kind = type(value)
    if kind in (list, tuple):
        return kind(map(_fresh, value))
    if kind is dict:
        return {key: _fresh(each) for key, each in value.items()}
    if kind is set or isinstance(value, np.ndarray):
        return value.copy()
    return value
