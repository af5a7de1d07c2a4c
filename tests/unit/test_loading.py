"""Strategies are found by name and configured by text; every mistake is one line that names it."""

import sys
import textwrap
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from trio_nt.errors import InputError
from trio_nt.strategies.loading import configured_strategy, load_class, load_strategies, parse_settings

PROGRAM = """
    from decimal import Decimal
    from enum import Enum
    import attrs
    from trio_nt.strategies.base import Strategy

    class Mode(Enum):
        CALM = "calm"
        WILD = "wild"

    @attrs.define
    class Cross(Strategy):
        fast: int = 10
        ratio: float = 0.5
        size: Decimal = Decimal(1)
        name: str = "x"
        loud: bool = False
        stop: float | None = None
        mode: Mode = Mode.CALM
        symbols: tuple[str, ...] = ()

    @attrs.define
    class Mean(Strategy):
        fast: int = attrs.field(default=3, validator=attrs.validators.ge(1))

    class Bare(Strategy):
        fast: int = 1

    class Other:
        pass
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    known = set(sys.modules)
    (tmp_path / "mine.py").write_text(textwrap.dedent(PROGRAM))
    yield tmp_path
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def only(specification: str, **settings: str) -> Any:
    (strategy,) = load_strategies([specification], settings)
    return strategy


def test_a_file_and_a_module_name_the_same_class() -> None:
    assert load_class("mine.py:Cross") is load_class("mine:Cross") is load_class("./mine.py:Cross")


def test_a_file_imports_its_neighbours(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "helper_of_mine.py").write_text("FAST = 7\n")
    (folder / "sub" / "uses.py").write_text(
        "import attrs, helper_of_mine\nfrom trio_nt.strategies.base import Strategy\n"
        "@attrs.define\nclass Uses(Strategy):\n    fast: int = helper_of_mine.FAST\n"
    )
    assert only("sub/uses.py").fast == 7


def test_a_file_called_like_a_known_module_replaces_nothing(folder: Path) -> None:
    (folder / "attrs.py").write_text((folder / "mine.py").read_text())
    known = sys.modules["attrs"]
    assert load_class("attrs.py:Cross").__name__ == "Cross"
    assert sys.modules["attrs"] is known


def test_settings_are_typed_by_their_fields() -> None:
    strategy = only(
        "mine.py:Cross", fast="5", ratio="2", size="0.10", name="5", loud="true", stop="1.5", mode="wild",
        symbols='["A", "B"]',
    )  # fmt: skip
    assert (strategy.fast, strategy.ratio, strategy.size, strategy.name) == (5, 2.0, Decimal("0.10"), "5")
    assert (strategy.loud, strategy.stop, strategy.mode.value, strategy.symbols) == (True, 1.5, "wild", ("A", "B"))
    assert isinstance(strategy.ratio, float)
    assert only("mine.py:Cross", stop="none").stop is None


def test_a_setting_holds_wherever_the_field_is_and_a_prefix_narrows_it() -> None:
    both: list[Any] = list(load_strategies(["mine.py:Cross", "mine.py:Mean"], {"fast": "5", "Mean.fast": "6"}))
    assert [strategy.fast for strategy in both] == [5, 6]


@pytest.mark.parametrize(
    ("specification", "settings", "message"),
    [
        ("mine.py:Cross", {"fats": "5"}, "--set fats=5: no strategy has a field 'fats' (Cross has fast, ratio, "),
        ("mine.py:Cross", {"fast": "five"}, "--set: fast=five: must be a whole number, was 'five'"),
        ("mine.py:Cross", {"fast": "5.0"}, "--set: fast=5.0: must be a whole number, was 5.0"),
        ("mine.py:Cross", {"fast": "true"}, "--set: fast=true: must be a whole number, was True"),
        ("mine.py:Cross", {"loud": "1"}, "--set: loud=1: must be true or false, was 1"),
        ("mine.py:Cross", {"size": "much"}, "--set: size=much: value must be a number, was 'much'"),
        ("mine.py:Cross", {"mode": "mad"}, "--set: mode=mad: must be one of calm, wild, was 'mad'"),
        ("mine.py:Mean", {"fast": "0"}, "strategy Mean: ValueError: 'fast' must be >= 1: 0"),
        ("mine.py:Bare", {"fast": "2"}, "--set: Bare has fields but lacks @attrs.define above its class"),
        ("mine.py:Crosss", {}, "mine.py has no class 'Crosss'; its strategies: Cross, Mean, Bare"),
        ("mine.py:Other", {}, "Other of mine.py is no subclass of trio_nt.Strategy"),
        ("mine.py", {}, "mine.py: say which class as mine.py:CLASS; its strategies: Cross, Mean, Bare"),
        ("gone.py:Cross", {}, "strategy file gone.py is not there (looked in "),
        ("gone_module:Cross", {}, "gone_module does not import (looked in "),
        ("Cross", {}, "--strategy Cross: must be FILE.py:CLASS or MODULE:CLASS"),
        (":Cross", {}, "--strategy :Cross: must be FILE.py:CLASS or MODULE:CLASS"),
        ("", {}, "--strategy : must be FILE.py:CLASS or MODULE:CLASS"),
    ],
)
def test_a_mistake_is_named(specification: str, settings: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as raised:
        load_strategies([specification], settings)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("x = 1\ny = nothing\n", "broken.py does not import: line 2: NameError: name 'nothing' is not defined"),
        ("x = 1\n\ndef f(:\n", "broken.py does not import: line 3: invalid syntax"),
        ("import no_such_thing\n", "broken.py does not import: line 1: ModuleNotFoundError: No module named"),
        ("raise RuntimeError('a\\nb')\n", "broken.py does not import: line 1: RuntimeError: a"),
    ],
)
def test_a_file_that_does_not_import_is_named_with_its_line(folder: Path, program: str, message: str) -> None:
    (folder / "broken.py").write_text(program)
    for _ in range(2):  # nothing of the first attempt is left behind
        with pytest.raises(InputError) as raised:
            load_class("broken.py:X")
        assert str(raised.value).startswith(message)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["fast", "=5", ""])
def test_a_setting_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="must be key=value"):
        parse_settings([text])


def test_a_setting_is_given_once() -> None:
    assert parse_settings(["a=1", "b = x=y "]) == {"a": "1", "b": "x=y"}
    with pytest.raises(InputError, match="a is set twice"):
        parse_settings(["a=1", "a=2"])


def test_a_configuration_names_its_key(folder: Path) -> None:
    strategy: Any = configured_strategy("mine.py:Cross", {"fast": 4, "symbols": ["A"]}, "f.toml: strategies[0]", folder)
    assert (strategy.fast, strategy.symbols) == (4, ("A",))
    with pytest.raises(InputError, match=r"f\.toml: strategies\[0\]: fast: must be a whole number, was '4'"):
        configured_strategy("mine.py:Cross", {"fast": "4"}, "f.toml: strategies[0]", folder)
    with pytest.raises(InputError, match=r"f\.toml: strategies\[0\]: Cross has no field 'fats'"):
        configured_strategy("mine.py:Cross", {"fats": 4}, "f.toml: strategies[0]", folder)
