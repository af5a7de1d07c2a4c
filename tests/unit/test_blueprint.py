"""A strategy made again is as its host first gave it, whatever it did meanwhile."""

from decimal import Decimal
from typing import Any

import attrs
import pytest
import trio

from trio_nt import Strategy
from trio_nt.errors import InputError
from trio_nt.strategies.blueprint import Blueprint


@attrs.define
class Configured(Strategy):
    fast: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    size: Decimal = Decimal(1)
    seen: list[Any] = attrs.field(factory=list)
    limits: dict[str, list[int]] = attrs.field(factory=dict)
    event: Any = None
    _secret: str = "s"
    cost: int = attrs.field(init=False, default=0)


class Plain(Strategy):
    def __init__(self, fast: int) -> None:
        self.fast = fast
        self.seen: list[int] = []


@attrs.define
class Derived(Configured):
    pass


class Undecorated(Configured):
    pass


def test_what_it_wrote_into_its_fields_is_forgotten_and_what_the_host_shares_is_shared() -> None:
    event = trio.Event()
    strategy = Configured(5, seen=[1], limits={"A": [1]}, event=event, secret="x")
    blueprint = Blueprint.of(strategy)
    strategy.fast, strategy.cost = 7, 9
    strategy.seen.append(2)
    strategy.limits["A"].append(2)
    first, second = blueprint.make(), blueprint.make()
    assert first == second == Configured(5, seen=[1], limits={"A": [1]}, event=event, secret="x")
    assert isinstance(first, Configured)
    assert first.event is event
    first.seen.append(3)
    first.limits["A"].append(3)
    assert blueprint.make() == second


def test_a_class_without_attrs_is_made_again_without_its_constructor() -> None:
    strategy = Plain(3)
    blueprint = Blueprint.of(strategy)
    strategy.fast = 4
    strategy.seen.append(1)
    made: Any = blueprint.make()
    assert (type(made), made.fast, made.seen) == (Plain, 3, [])
    with pytest.raises(InputError, match="Plain is no attrs class"):
        blueprint.changed({"fast": 1}, "strategy x")


@pytest.mark.parametrize("kind", [Configured, Derived, Undecorated])
def test_changes_are_read_as_in_a_file_and_the_rest_stays(kind: Any) -> None:
    blueprint = Blueprint.of(kind(5, seen=[1]))
    changed = blueprint.changed({"fast": 6, "size": "0.5", "event": 3}, "strategy x").make()
    assert changed == kind(6, Decimal("0.5"), seen=[1], event=3)
    assert blueprint.make() == kind(5, seen=[1])
    assert blueprint.changed({"size": Decimal(3)}, "").make() == kind(5, Decimal(3), seen=[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fats": 1}, "strategy x: Configured has no field 'fats'; it has fast, size, "),
        ({"fast": "many"}, "strategy x: fast: must be a whole number, was 'many'"),
        ({"fast": True}, "strategy x: fast: must be a whole number, was True"),
        ({"cost": 1}, "has no field 'cost'"),
    ],
)
def test_a_change_that_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        Blueprint.of(Configured()).changed(changes, "strategy x")
    assert message in str(raised.value)


def test_what_the_class_refuses_it_refuses_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="fast"):
        Blueprint.of(Configured()).changed({"fast": 0}, "").make()
