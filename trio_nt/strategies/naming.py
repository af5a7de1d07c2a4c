"""Strategies by id, in an order that does not depend on how they were listed."""

import re
from collections.abc import Iterable, Mapping

import attrs

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


def configuration_of(strategy: object) -> str:
    """A strategy's fields as text; empty for a class without attrs fields."""
    # The default repr holds an address; equal classes without fields keep the order in which they were listed.
    return repr(strategy) if attrs.has(type(strategy)) else ""


def _base_name(strategy: object) -> str:
    kind = strategy if isinstance(strategy, type) else type(strategy)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()


def _check(name: object, strategy: object) -> None:
    if not isinstance(strategy, Strategy):
        hint = ": make an instance of it" if isinstance(strategy, type) else ""
        raise TypeError(f"strategy {name!r} must be an instance of Strategy, was {strategy!r}{hint}")
    if not isinstance(name, str) or not name:
        raise ValueError(f"the id of a strategy must be a text that is not empty, was {name!r}")
