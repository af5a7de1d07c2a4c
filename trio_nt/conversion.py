"""From what people write (TOML values, the text of ``--set``) to typed attrs fields, strictly.

Nothing is guessed: an int is no bool, a float no int, a word no number. Every error names the key, the value and what
was wanted.
"""

import functools
import tomllib
import types
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs

from trio_nt.errors import InputError
from trio_nt.model.money import Amount, to_decimal

if TYPE_CHECKING:
    import cattrs

T = TypeVar("T")


def structure(value: object, wanted: type[T], where: str) -> T:
    """``value`` (as ``tomllib`` reads it) as an instance of ``wanted``.

    Raises:
        InputError: with ``where`` (a file, an option) and the path of keys to what is wrong.
    """
    import cattrs

    try:
        return _converter().structure(value, wanted)
    except (cattrs.BaseValidationError, cattrs.ForbiddenExtraKeysError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{where}: {'; '.join(_explain(error))}") from error


def field_value(text: str, instance_class: type, key: str, where: str) -> object:
    """The text of ``key=text`` as the type of the attrs field ``key`` of ``instance_class``.

    Text is taken as it is for ``str`` and ``Decimal`` fields, ``none`` where a field may be None; everything else is
    read as a TOML value (``3``, ``0.5``, ``true``, ``["a", "b"]``), or as a word where it is none.

    Raises:
        InputError: it has no such field, or the text does not fit it.
    """
    wanted = field_types(instance_class, where).get(key)
    if wanted is None:
        fields = ", ".join(field_types(instance_class, where)) or "none"
        raise InputError(f"{where}: {instance_class.__name__} has no field {key!r}; it has {fields}")
    options = get_args(wanted) if get_origin(wanted) in (Union, types.UnionType) else (wanted,)
    if text.lower() == "none" and type(None) in options:
        return None
    value: object = text if str in options or Decimal in options else _toml_value(text)
    return structure(value, wanted, f"{where}: {key}={text}")


def field_types(instance_class: type, where: str) -> Mapping[str, Any]:
    """The types of the attrs fields that a caller may set, by name.

    Raises:
        InputError: the class has annotations but is no attrs class, or an annotation names what does not exist.
    """
    if "__attrs_attrs__" not in vars(instance_class):
        if vars(instance_class).get("__annotations__"):
            raise InputError(f"{where}: {instance_class.__name__} has fields but lacks @attrs.define above its class")
        return {}
    try:
        hints = get_type_hints(instance_class)
    except NameError as error:
        raise InputError(
            f"{where}: {instance_class.__name__} has an annotation that does not resolve: {error}"
        ) from error
    return {
        field.alias or field.name: hints.get(field.name, Any) for field in attrs.fields(instance_class) if field.init
    }


def _toml_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except tomllib.TOMLDecodeError:
        return text


@functools.cache
def _converter() -> "cattrs.Converter":
    import cattrs
    from cattrs.gen import make_dict_structure_fn

    converter = cattrs.Converter(forbid_extra_keys=True, structure_fallback_factory=_already)
    converter.register_structure_hook(bool, _exactly(bool, "true or false"))
    converter.register_structure_hook(int, _int)
    converter.register_structure_hook(str, _exactly(str, "a text"))
    converter.register_structure_hook(float, _float)
    converter.register_structure_hook(Decimal, lambda value, _: to_decimal(value))
    converter.register_structure_hook(Path, lambda value, _: Path(_exactly(str, "a path")(value, str)))
    converter.register_structure_hook_func(lambda wanted: isinstance(wanted, type) and issubclass(wanted, Enum), _enum)
    converter.register_structure_hook_func(lambda wanted: wanted == Amount, _amount)
    converter.register_structure_hook_func(lambda wanted: wanted == frozenset[str], _texts)
    converter.register_structure_hook_factory(
        attrs.has, lambda wanted: make_dict_structure_fn(wanted, converter, _cattrs_forbid_extra_keys=True)
    )
    return converter


def _amount(value: object, _: object) -> object:
    """One number, or a number for each currency."""
    if isinstance(value, Mapping):
        return {currency: to_decimal(amount) for currency, amount in value.items()}
    return None if value is None else to_decimal(value)  # type: ignore[arg-type]


def _texts(value: object, _: object) -> frozenset[str]:
    if not isinstance(value, (list, tuple, set, frozenset)) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"must be a list of texts, was {value!r}")
    return frozenset(value)


def _already(wanted: Any) -> Any:
    """For types that no text can give: only an instance will do."""

    def check(value: object, _: object) -> object:
        if isinstance(wanted, type) and isinstance(value, wanted):
            return value
        raise ValueError(f"must be a {getattr(wanted, '__name__', wanted)}, was {value!r}")

    return check


def _exactly(kind: type, description: str) -> Any:
    def check(value: object, wanted: object) -> object:
        if type(value) is not kind:
            raise ValueError(f"must be {description}, was {value!r}")
        return value

    return check


def _int(value: object, wanted: Any) -> object:
    # The hook for enumerations is not asked where the members are numbers.
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return _enum(value, wanted)
    return _exactly(int, "a whole number")(value, wanted)


def _float(value: object, wanted: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"must be a number, was {value!r}")
    return float(value)


def _enum(value: object, wanted: type[Enum]) -> Enum:
    for member in wanted:
        if value == member.value or (isinstance(value, str) and value.upper() == member.name):
            return member
    names = [member.name if isinstance(member, int) else str(member.value) for member in wanted]
    raise ValueError(f"must be one of {', '.join(names)}, was {value!r}")


def _explain(error: BaseException, path: str = "") -> list[str]:
    """One line for each thing that is wrong, with its path of keys."""
    import cattrs

    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        keys = ", ".join(sorted(_joined(path, key) for key in error.extra_fields))
        known = ", ".join(field.name for field in attrs.fields(error.cl)) if attrs.has(error.cl) else ""
        return [f"unknown key {keys}" + (f"; known: {known}" if known else "")]
    if isinstance(error, cattrs.ClassValidationError | cattrs.IterableValidationError):
        lines: list[str] = []
        for inner in error.exceptions:
            lines += _explain(inner, _joined(path, _note(inner)))
        return lines
    if isinstance(error, KeyError):
        return [f"{_joined(path, str(error.args[0]))} is missing" if not path else f"{path} is missing"]
    return [f"{path}: {error}" if path else str(error)]


def _note(error: BaseException) -> str:
    for note in getattr(error, "__notes__", []):
        if hasattr(note, "name"):  # of an attribute
            return str(note.name)
        if hasattr(note, "index"):  # of an item
            return f"[{note.index}]"
    return ""


def _joined(path: str, key: str) -> str:
    if not key or not path:
        return path or key
    return f"{path}{key}" if key.startswith("[") else f"{path}.{key}"
