"""Strategies by name: ``FILE.py:CLASS`` or ``MODULE:CLASS``, with ``--set key=value`` as their configuration.

The folder of a file, and for modules the current folder, comes first in the import path, as for a script. The class may
be left out where a file defines one strategy.
"""

import contextlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from trio_nt.conversion import field_types, field_value, structure
from trio_nt.errors import InputError
from trio_nt.strategies.base import Strategy

T = TypeVar("T")


def parse_settings(settings: Sequence[str]) -> dict[str, str]:
    """``key=value`` texts by key.

    Raises:
        InputError: no ``=`` in it, or a key given twice.
    """
    parsed: dict[str, str] = {}
    for text in settings:
        key, separator, value = text.partition("=")
        key = key.strip()
        if not separator or not key:
            raise InputError(f"--set {text}: must be key=value")
        if key in parsed:
            raise InputError(f"--set {text}: {key} is set twice")
        parsed[key] = value.strip()
    return parsed


def load_strategies(specifications: Sequence[str], settings: Mapping[str, str] | None = None) -> list[Strategy]:
    """One strategy for each of ``specifications``, in their order.

    A setting ``key=value`` holds in every strategy that has the field ``key``, ``CLASS.key=value`` in that class alone.

    Raises:
        InputError: a file, module or class that is not there, does not import or is no strategy; a key that no
            strategy has; a value that does not fit its field or that the strategy refuses.
    """
    classes = [load_class(specification) for specification in specifications]
    return make_strategies(classes, settings or {})


def make_strategies(classes: Sequence[type[Strategy]], settings: Mapping[str, str]) -> list[Strategy]:
    """An instance of each class with ``settings`` as in ``load_strategies``."""
    arguments: list[dict[str, object]] = [{} for _ in classes]
    for key, text in settings.items():
        takers = [number for number, cls in enumerate(classes) if _own_key(cls, key) is not None]
        if not takers:
            raise InputError(f"--set {key}={text}: {_no_such_field(classes, key)}")
        for number in takers:
            own_key = _own_key(classes[number], key)
            assert own_key is not None
            arguments[number][own_key] = field_value(text, classes[number], own_key, "--set")
    return [_instance(cls, values) for cls, values in zip(classes, arguments, strict=True)]


def configured_strategy(specification: str, settings: Mapping[str, Any], where: str, folder: Path) -> Strategy:
    """A strategy from a configuration file: values as TOML gave them, files relative to ``folder``."""
    cls = load_class(specification, folder)
    types = field_types(cls, where)
    values = {}
    for key, value in settings.items():
        if key not in types:
            raise InputError(f"{where}: {cls.__name__} has no field {key!r}; it has {', '.join(types) or 'none'}")
        values[key] = structure(value, types[key], f"{where}: {key}")
    return _instance(cls, values)


def load_class(specification: str, folder: Path | None = None) -> type[Strategy]:
    """The class that ``FILE.py[:CLASS]`` or ``MODULE:CLASS`` names, searched in ``folder`` (default: the current one).

    Raises:
        InputError: it is not there, does not import or is no strategy.
    """
    folder = folder or Path.cwd()
    source, separator, name = specification.rpartition(":")
    if not separator or name.endswith(".py"):
        source, name = specification, ""
    is_file = source.endswith(".py") or "/" in source
    if not source or not (is_file or name):
        raise InputError(f"--strategy {specification}: must be FILE.py:CLASS or MODULE:CLASS")
    module = _load_file(folder / source) if is_file else _load_module(source, folder)
    found = getattr(module, name, None) if name else _only_strategy(module, source)
    if found is None:
        raise InputError(f"{source} has no class {name!r}; its strategies: {_names(module)}")
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise InputError(f"{name} of {source} is no subclass of trio_nt.Strategy")
    return found


def load_rule(specification: str, where: str, folder: Path) -> Callable[..., Any]:
    """The risk rule that ``FILE.py:FUNCTION`` or ``MODULE:FUNCTION`` names, searched in ``folder``.

    Raises:
        InputError: it is not there, does not import, or takes no ``(action, exposure, limits)``.
    """
    source, separator, name = specification.rpartition(":")
    if not separator or not source or not name or name.endswith(".py"):
        raise InputError(f"{where}: must be FILE.py:FUNCTION or MODULE:FUNCTION, was {specification!r}")
    is_file = source.endswith(".py") or "/" in source
    found = getattr(_load_file(folder / source) if is_file else _load_module(source, folder), name, None)
    try:
        inspect.signature(found).bind("action", "exposure", "limits")  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{where}: {name} of {source} must be a function of (action, exposure, limits)") from None
    return found  # type: ignore[return-value]


def _load_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise InputError(f"strategy file {path.name} is not there (looked in {path.parent})")
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(path):
            return module
    # A file may be called like a module that is there already: neither may replace the other.
    name = (
        path.stem if path.stem not in sys.modules and path.stem.isidentifier() else f"strategy_file_{len(sys.modules)}"
    )
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"strategy file {path.name} is no Python source file")
    module = importlib.util.module_from_spec(spec)
    _search_first(path.parent)
    sys.modules[name] = module  # attrs and pickle look a class's module up
    with contextlib.ExitStack() as undo:
        undo.callback(sys.modules.pop, name)
        _run_users_code(partial(spec.loader.exec_module, module), f"{path.name} does not import", str(path))
        undo.pop_all()
    return module


def _load_module(name: str, folder: Path) -> ModuleType:
    _search_first(folder)
    return _run_users_code(partial(importlib.import_module, name), f"{name} does not import (looked in {folder} first)")


def _instance(cls: type[Strategy], values: Mapping[str, object]) -> Strategy:
    return _run_users_code(partial(cls, **values), f"strategy {cls.__name__}")


def _run_users_code(call: Callable[[], T], what: str, path: str = "") -> T:
    try:
        return call()
    except Exception as error:  # the user's own code may raise anything, and one clear line is what is owed
        raise InputError(f"{what}: {_in_one_line(error, path)}") from error


def _in_one_line(error: Exception, path: str) -> str:
    """What went wrong and, where it was raised in the file ``path``, in which line."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    message = str(error).splitlines()[0] if str(error) else ""
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return f"line {lines[-1]}: {text}" if lines else text


def _search_first(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _strategies_of(module: ModuleType) -> list[type[Strategy]]:
    """Strategies that the module itself defines, in the order of their definition."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Strategy) and value.__module__ == module.__name__
    ]


def _names(module: ModuleType) -> str:
    return ", ".join(cls.__name__ for cls in _strategies_of(module)) or "none"


def _only_strategy(module: ModuleType, source: str) -> type[Strategy]:
    found = _strategies_of(module)
    if len(found) != 1:
        raise InputError(f"{source}: say which class as {source}:CLASS; its strategies: {_names(module)}")
    return found[0]


def _own_key(cls: type[Strategy], key: str) -> str | None:
    """The field of ``cls`` that ``key`` or ``CLASS.key`` names."""
    prefix, _, own_key = key.rpartition(".")
    return own_key if prefix in ("", cls.__name__) and own_key in field_types(cls, "--set") else None


def _no_such_field(classes: Sequence[type[Strategy]], key: str) -> str:
    known = "; ".join(f"{cls.__name__} has {', '.join(field_types(cls, '--set')) or 'none'}" for cls in classes)
    return f"no strategy has a field {key!r}" + (f" ({known})" if known else "")
