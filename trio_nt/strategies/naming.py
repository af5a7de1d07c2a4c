"""Strategies by id, in an order that does not depend on how they were listed."""

import re
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any

import attrs
import numpy as np

from trio_nt.strategies.base import Strategy


def by_id(strategies: "Strategy | Iterable[Strategy] | Mapping[str, Strategy]") -> dict[str, Strategy]:
    """Strategies by id, ascending: the order of registration, which breaks every tie.

    A mapping gives its own ids. Otherwise an id is the class's name in lower case, numbered from the second on in
    the order of the configurations: listing the same strategies in another order gives the same ids.

    Raises:
        TypeError: an element is no ``Strategy`` (a class instead of an instance is none).
        ValueError: there is no strategy, or an id that is empty.
    """
    named: dict[str, Strategy] = {}
    if isinstance(strategies, Mapping):
        named = dict(strategies)
    else:
        listed = [strategies] if isinstance(strategies, Strategy) else list(strategies)
        for strategy in sorted(listed, key=lambda one: (_base_name(one), configuration_of(one))):
            name, number = _base_name(strategy), 2
            while name in named:
                name = f"{_base_name(strategy)}-{number}"
                number += 1
            named[name] = strategy
    if not named:
        raise ValueError("there must be at least one strategy")
    for name, strategy in named.items():
        _check(name, strategy)
    return dict(sorted(named.items()))


def configuration_of(value: object) -> str:
    """A configuration as text: the same for equal ones, in every interpreter.

    attrs objects are named by their type and the fields that make them; sets are sorted; a function is named, and an
    object that nothing is known of is its type: the default ``repr`` holds an address.
    """
    kind: type[Any] = type(value)
    if attrs.has(kind):
        names = [field.name for field in attrs.fields(kind) if field.init]
        inner = ", ".join(f"{name}={configuration_of(getattr(value, name))}" for name in names)
        return f"{kind.__qualname__}({inner})"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{configuration_of(key)}: {configuration_of(each)}" for key, each in value.items())
        return f"{{{inner}}}"
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(configuration_of, value)))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(configuration_of, value))}]"
    if value is None or isinstance(value, (bool, int, float, str, bytes, Decimal, Enum, date, PurePath, np.generic)):
        return repr(value)
    return str(getattr(value, "__qualname__", kind.__qualname__))


def _base_name(strategy: object) -> str:
    kind = strategy if isinstance(strategy, type) else type(strategy)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()


def _check(name: object, strategy: object) -> None:
    if not isinstance(strategy, Strategy):
        hint = ": make an instance of it" if isinstance(strategy, type) else ""
        raise TypeError(f"strategy {name!r} must be an instance of Strategy, was {strategy!r}{hint}")
    if not isinstance(name, str) or not name:
        raise ValueError(f"the id of a strategy must be a text that is not empty, was {name!r}")
