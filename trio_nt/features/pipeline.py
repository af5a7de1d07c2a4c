"""Features as columns of market rows: each computed once per instrument and row, for everybody. Pure and stateful.

The rule of a row, for every feature:

1. A row *updates* a feature when at least one of the feature's inputs is new on that row and all are finite. A field is
   new on good rows (``flags`` 0) of the kind that has it; a feature is new where it was updated.
2. The value of a row is made from this row and earlier rows of the same instrument, of nothing else.
3. A row that does not update a feature repeats the instrument's last value; an event (``cross``) says 0 there.
4. NaN until the feature has seen what its warm-up rule names.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from trio_nt.features.interpreted import InterpretedDriver
from trio_nt.features.plan import FeaturePlan, Node
from trio_nt.features.specs import FIELD_KINDS, FeatureSpec, check_specs

LONGEST_WINDOW = 100_000

FloatArray: TypeAlias = NDArray[np.float64]
Columns: TypeAlias = Mapping[str, NDArray[Any]]
Progress: TypeAlias = Callable[[str], None]
FieldColumns: TypeAlias = list[tuple[int, int, NDArray[Any]]]


class Driver(Protocol):
    """Runs nodes over blocks; ``state`` is one flat array of numbers."""

    state: Any

    def run(
        self,
        block: FloatArray,
        kinds: NDArray[Any],
        flags: NDArray[Any],
        instruments: NDArray[Any],
        fields: FieldColumns,
    ) -> int | None: ...


@attrs.frozen
class FeatureStatistics:
    """What a pipeline has done.

    ``requests`` counts every spec that was asked for, ``features`` the distinct ones, ``nodes`` those and what they
    read; ``values`` = rows × features. ``state_bytes`` counts numbers of state, 8 bytes each.
    """

    compiled: bool
    instruments: int
    requests: int
    features: int
    nodes: int
    batches: int
    rows: int
    values: int
    state_bytes: int


class FeatureValues(Mapping[FeatureSpec, FloatArray]):
    """The columns of one batch by spec: shape (n,), float64, one value per row."""

    __slots__ = ("_block", "_plan")

    def __init__(self, plan: FeaturePlan, block: FloatArray) -> None:
        self._plan = plan
        self._block = block

    def __getitem__(self, spec: FeatureSpec) -> FloatArray:
        column: FloatArray = self._block[self._plan.slot(spec)]
        return column

    def __iter__(self) -> Iterator[FeatureSpec]:
        return iter(self._plan)

    def __len__(self) -> int:
        return len(self._plan.requested)

    def ready(self, spec: FeatureSpec) -> NDArray[np.bool_]:
        """True on the rows where the feature is past its warm-up, shape (n,)."""
        return self._ready(self._plan.slot(spec))

    def _ready(self, slot: int) -> NDArray[np.bool_]:
        node = self._plan.node_of_slot(slot)
        if node is None or not node.kernel.is_event:
            known: NDArray[np.bool_] = ~np.isnan(self._block[slot])
            return known
        # An event says 0 during warm-up: it is ready when what it reads is.
        known = self._ready(node.inputs[0])
        for inner in node.inputs[1:]:
            known = known & self._ready(inner)
        return known


def compiler_is_loaded() -> bool:
    """Whether this process has compiled features before: then ``prepare`` costs next to nothing."""
    return "trio_nt.features.compiled" in sys.modules


class FeaturePipeline:
    """Streaming features of all instruments.

    Not thread-safe; any split of the rows into batches gives the same values, bit for bit. Rows come in the order of
    their ``sequence``; market rows and bars in blocks of their own.

    Args:
        instrument_count: instruments to make room for; more are taken in as they appear.
        fields: names of the market fields that the data has; None: every field may come.
        longest_window: the greatest window that a spec may have.
        rows_of_kind: how many rows of each kind will come at most, where that is known: no window may be longer.
    """

    def __init__(
        self,
        instrument_count: int = 0,
        *,
        fields: Iterable[str] | None = None,
        longest_window: int = LONGEST_WINDOW,
        rows_of_kind: Mapping[int, int] | None = None,
    ) -> None:
        if instrument_count < 0:
            raise ValueError(f"instrument_count must be at least 0, was {instrument_count}")
        self.plan = FeaturePlan()
        self._fields = None if fields is None else tuple(fields)
        self._longest_window = longest_window
        self._rows_of_kind = rows_of_kind
        self._capacity = max(1, instrument_count)
        self._bases: list[int] = []
        self._driver: Driver = InterpretedDriver((), (), (), 1)
        self._make_driver: Callable[[list[Node], list[int], list[float], int], Driver] = InterpretedDriver
        self._first: FloatArray | None = None  # the state before any row, made when it is first needed
        self._requests = self._batches = self._rows = self._values = 0

    @property
    def compiled(self) -> bool:
        """True once ``prepare`` has found numba."""
        return self._make_driver is not InterpretedDriver

    @property
    def instrument_count(self) -> int:
        """Instruments that have room."""
        return self._capacity

    def require(self, specs: Iterable[FeatureSpec]) -> None:
        """Compute ``specs`` from the next batch on; those that are computed already go on.

        Raises:
            TypeError: an element is no FeatureSpec, or a user's kernel cannot be compiled.
            ValueError: a window above ``longest_window``, or a field that the data does not have. Nothing was added.
        """
        wanted = list(specs)
        self.check(wanted)
        self._requests += len(wanted)
        if self.plan.add(wanted):
            self._rebuild(self._capacity)

    def check(self, specs: Iterable[FeatureSpec]) -> None:
        """Refuse what ``require`` would refuse, and change nothing. Raises as ``require``."""
        wanted = list(specs)
        check_specs(wanted, longest_window=self._longest_window, fields=self._fields, rows_of_kind=self._rows_of_kind)
        if self.compiled:
            self._compile_kernels(wanted)

    def prepare(self, progress: Progress | None = None) -> bool:
        """Compile, where the extra ``[compiled]`` is installed; True if it is. Takes seconds at first, blocking.

        Without it nothing changes. The values are the same, and so is the state: it may be called in mid-run.

        Args:
            progress: told in a few words what is being done.

        Raises:
            TypeError: a user's kernel cannot be compiled. The pipeline stays interpreted.
        """
        if self.compiled:
            return True
        try:
            from trio_nt.features.compiled import CompiledDriver
            from trio_nt.features.machine import compile_drive
        except ModuleNotFoundError as error:
            if error.name != "numba":
                raise
            return False
        compile_drive(progress)
        self._compile_kernels(self.plan)
        self._make_driver = CompiledDriver
        self._rebuild(self._capacity)
        return True

    @staticmethod
    def _compile_kernels(specs: Iterable[FeatureSpec]) -> None:
        """Compile the users' kernels among ``specs`` before anything is changed: one that cannot be is refused."""
        from trio_nt.features.machine import compile_kernel

        for node in FeaturePlan(specs).nodes:
            if node.kernel.opcode < 0 and node.kernel.compiles:
                compile_kernel(node.kernel)

    def compute(self, columns: Columns, out: Mapping[FeatureSpec, FloatArray] | None = None) -> FeatureValues:
        """One value per row for every required spec.

        Args:
            columns: a block of market rows or of bars, by field, each of shape (n,); reads ``kind``, ``flags``,
                ``instrument`` and the numeric fields that the specs need.
            out: arrays of shape (n,) to write into as well, by spec: slices of side arrays beside the market ring.

        Returns:
            The columns by spec, new arrays.

        Raises:
            ValueError: a negative instrument; nothing was done.
            KeyError: ``out`` names a spec that was not required.
        """
        count = len(columns["kind"])
        block = np.empty((self.plan.slots, count))
        if count:
            fields = [
                (slot, FIELD_KINDS[name], columns[name]) for name, slot in self.plan.fields.items() if name in columns
            ]
            who = columns["instrument"]
            while (strange := self._driver.run(block, columns["kind"], columns["flags"], who, fields)) is not None:
                if strange < 0:
                    raise ValueError(f"an instrument's index must be at least 0, was {strange}")
                self._rebuild(max(2 * self._capacity, strange + 1))
        self._batches += 1
        self._rows += count
        self._values += count * len(self.plan.requested)
        if out is not None:
            for spec, column in out.items():
                column[:] = block[self.plan.slot(spec)]
        return FeatureValues(self.plan, block)

    def reset(self) -> None:
        """Forget every row; the specs stay, and start their warm-up anew."""
        if self._first is None:
            self._first = np.concatenate(
                [np.zeros(0), *(np.tile(node.first_state(), self._capacity) for node in self.plan.nodes)]
            )
        self._driver.state[:] = self._first if self.compiled else self._first.tolist()

    def _rebuild(self, capacity: int) -> None:
        """Lay the state out anew, for more nodes or more instruments, keeping what there is."""
        old_state, old_bases, old_capacity = self._driver.state, self._bases, self._capacity
        bases: list[int] = []
        state: list[float] = []
        for index, node in enumerate(self.plan.nodes):
            bases.append(len(state))
            kept = old_capacity if index < len(old_bases) else 0
            if kept:
                state.extend(old_state[old_bases[index] : old_bases[index] + kept * node.state_size])
            state.extend(node.first_state() * (capacity - kept))
        self._bases, self._capacity, self._first = bases, capacity, None
        self._driver = self._make_driver(self.plan.nodes, bases, state, capacity)

    @property
    def latest(self) -> Mapping[FeatureSpec, FloatArray]:
        """Copies of the last values: shape (instruments,) per spec. For hosts and dashboards, never for a strategy:
        read at the end of a batch, it looks ahead of the batch's rows."""
        table: dict[FeatureSpec, FloatArray] = {}
        for node, base in zip(self.plan.nodes, self._bases, strict=True):
            stop = base + self._capacity * node.state_size
            table[node.spec] = np.array(self._driver.state[base : stop : node.state_size], np.float64)
        return {spec: table[spec] for spec in self.plan}

    def last(self, instrument: int, spec: FeatureSpec) -> float:
        """A feature's last value of one instrument; NaN before the first. For hosts, as ``latest``.

        Raises:
            KeyError: the feature was not required.
        """
        node = self.plan.node_of_slot(self.plan.slot(spec))
        assert node is not None
        if not 0 <= instrument < self._capacity:
            return 0.0 if node.kernel.is_event else float("nan")
        return float(self._driver.state[self._bases[self.plan.nodes.index(node)] + instrument * node.state_size])

    def statistics(self) -> FeatureStatistics:
        """Counters since the pipeline was made."""
        return FeatureStatistics(
            compiled=self.compiled,
            instruments=self._capacity,
            requests=self._requests,
            features=len(self.plan.requested),
            nodes=len(self.plan.nodes),
            batches=self._batches,
            rows=self._rows,
            values=self._values,
            state_bytes=8 * len(self._driver.state),
        )
