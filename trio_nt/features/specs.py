"""What a feature is: a value that names a kernel, its parameters and its inputs.

Two equal specs are one feature: the pipeline computes it once, whoever asks. Every spec has one output; an
indicator with several (MACD, Bollinger bands) is a spec with further specs as attributes.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import attrs

from trio_nt.model.market import BAR, QUOTE, TRADE

FIELD_KINDS = {
    **dict.fromkeys(("bid", "ask", "bid_size", "ask_size"), QUOTE),
    **dict.fromkeys(("price", "size"), TRADE),
    **dict.fromkeys(("open", "high", "low", "close", "volume"), BAR),
}
"""The numeric fields that a feature can read, and the kind of row that has them."""

FIELDS = tuple(FIELD_KINDS)

KernelFunction: TypeAlias = Callable[..., float]


def _no_state(window: int) -> int:
    return 0


def _no_warm_up(window: int) -> int:
    return 1


@attrs.frozen
class Kernel:
    """A streaming function and what the pipeline must know of it; equal when it runs the same function.

    ``function(state, at, window, factor, *inputs) -> float`` keeps the rules of ``trio_nt.features.kernels``.

    Attributes:
        name: for messages and tables.
        function: plain Python; compiled as it is when the pipeline is compiled, unless ``compiles`` is False.
        arity: number of inputs, 1 to 4.
        state_size: numbers of state per instrument, from the window.
        warm_up: number of inputs, this one included, at which the first value appears, from the window.
        is_event: 0 on every row where the feature does not update, instead of the last value.
        opcode: its place in the compiled driver; -1 for a user's kernel.
        compiles: False for functions that numba cannot compile; they run interpreted in every pipeline.
    """

    name: str
    function: KernelFunction
    arity: int
    state_size: Callable[[int], int] = attrs.field(default=_no_state, eq=False)
    warm_up: Callable[[int], int] = attrs.field(default=_no_warm_up, eq=False)
    is_event: bool = False
    opcode: int = -1
    compiles: bool = True

    def __reduce__(self) -> Any:
        if self.opcode < 0:
            return type(self), attrs.astuple(self, recurse=False)
        from trio_nt.features.table import kernel_named

        return kernel_named, (self.name,)


@attrs.frozen
class Field:
    """A column of the market rows as an input. ``name`` is one of ``FIELDS``."""

    name: str = attrs.field()

    @name.validator
    def _check(self, attribute: object, name: str) -> None:
        if name not in FIELD_KINDS:
            raise ValueError(f"a field must be one of {', '.join(FIELDS)}, was {name!r}")

    def __str__(self) -> str:
        return self.name


@attrs.frozen(eq=False, repr=False)
class FeatureSpec:
    """One feature of every instrument: one float64 value per row.

    Made by ``ema(10)``, ``rsi(14, on="trade")`` and their like. Hashable; equal when it means the same numbers.

    Attributes:
        kernel: the streaming function.
        inputs: fields and other specs that it reads, in the function's order.
        window: the kernel's window, 0 where it has none.
        factor: the kernel's number (smoothing of an EMA, width of a band).
        skip: inputs passed over before the kernel starts.
        label: how it was written; not part of the value.
    """

    kernel: Kernel
    inputs: "tuple[Field | FeatureSpec, ...]"
    window: int = 0
    factor: float = 0.0
    skip: int = 0
    label: str = ""
    _hash: int = attrs.field(init=False)

    @_hash.default
    def _hash_once(self) -> int:
        # Specs are keys of every mapping on the way; hashing the tree anew each time would cost microseconds.
        return hash(self._value())

    def _value(self) -> tuple[object, ...]:
        return self.kernel, self.inputs, self.window, self.factor, self.skip

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, FeatureSpec) and self._hash == other._hash and self._value() == other._value()

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> Any:
        # Rebuilt, not copied: hashes differ from process to process.
        return type(self), tuple(getattr(self, item.name) for item in attrs.fields(type(self)) if item.init)

    def __repr__(self) -> str:
        if self.label:
            return self.label
        inside = ", ".join([*([str(self.window)] if self.window else []), *map(str, self.inputs)])
        return f"{self.kernel.name}({inside})"

    @property
    def warm_up(self) -> int:
        """Number of updates of its source at which the first value appears."""
        inputs = max((spec.warm_up for spec in self.inputs if isinstance(spec, FeatureSpec)), default=1)
        return inputs - 1 + self.skip + self.kernel.warm_up(self.window)

    @property
    def longest_window(self) -> int:
        """The longest window of this spec and of what it reads."""
        inner = [spec.longest_window for spec in self.inputs if isinstance(spec, FeatureSpec)]
        return max([self.window, *inner])


def fields_of(spec: FeatureSpec) -> tuple[str, ...]:
    """Names of the market fields that ``spec`` reads, itself or through its inputs, in the order of ``FIELDS``."""
    names: set[str] = set()
    _collect_fields(spec, names)
    return tuple(name for name in FIELDS if name in names)


def _collect_fields(spec: FeatureSpec, names: set[str]) -> None:
    for item in spec.inputs:
        if isinstance(item, Field):
            names.add(item.name)
        else:
            _collect_fields(item, names)


def fields_of_kinds(kinds: Iterable[int]) -> tuple[str, ...]:
    """Names of the fields that rows of these kinds have, in the order of ``FIELDS``."""
    wanted = frozenset(kinds)
    return tuple(name for name, kind in FIELD_KINDS.items() if kind in wanted)


def check_specs(
    specs: Iterable[FeatureSpec],
    *,
    longest_window: int,
    fields: Iterable[str] | None,
    rows_of_kind: Mapping[int, int] | None = None,
) -> None:
    """Refuse what could only fail later.

    Raises:
        TypeError: an element is no FeatureSpec.
        ValueError: a window longer than ``longest_window``, or than there will be rows that update it (None: as many as
            it needs); a field that is not among ``fields`` (None: all are).
    """
    known = None if fields is None else tuple(fields)
    for spec in specs:
        if not isinstance(spec, FeatureSpec):
            raise TypeError(f"a feature must be a FeatureSpec such as ema(10), was {spec!r}")
        if spec.longest_window > longest_window:
            raise ValueError(
                f"the window of {spec} must be at most {longest_window} rows, the history, was {spec.longest_window}"
            )
        missing = [] if known is None else [name for name in fields_of(spec) if name not in known]
        if missing:
            raise ValueError(
                f"{spec} needs the field {missing[0]!r}, which the data does not have; it has {', '.join(known or ())}"
            )
        if rows_of_kind is not None:
            _check_rows(spec, spec, rows_of_kind)


def _check_rows(spec: FeatureSpec, part: FeatureSpec, rows_of_kind: Mapping[int, int]) -> None:
    """Refuse ``spec`` where ``part``, itself or what it reads, has a window that the data can never fill."""
    rows = sum(rows_of_kind.get(kind, 0) for kind in {FIELD_KINDS[name] for name in fields_of(part)})
    if part.window > rows:
        raise ValueError(f"the window of {spec} must be at most {rows:,} rows, all there are, was {part.window}")
    for inner in part.inputs:
        if isinstance(inner, FeatureSpec):
            _check_rows(spec, inner, rows_of_kind)
