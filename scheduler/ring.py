"""A ring of columns in one preallocated block: where rows lie, who may read them, what is handed out.

Pure: no Trio, no clock. The rules:

1. Row number s (counted from the first row ever sent) lies in slot s % capacity of every column.
2. Rows are checked whole before the first byte is written: a refused send changes nothing.
3. A batch is a run of consecutive rows that does not cross the ring's end, so that it is contiguous in every column.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scheduler.backpressure import check_capacity

Column: TypeAlias = NDArray[Any]
Rows: TypeAlias = Mapping[str, NDArray[Any] | Sequence[Any] | float | str | bytes | np.generic]

_ALIGNMENT = 64  # one cache line: the first row of every column starts one


class Batch:
    """A run of consecutive rows as columns: ``batch["bid"]`` is a read-only array of shape ``(len(batch),)``.

    A lossless receiver's batch is a window into the ring: its arrays are valid until the next ``receive()`` or
    ``close()`` of the end that handed it out; take a ``copy()`` of what must live longer. Batches of lagging and
    conflating receivers are copies already.

    Attributes:
        sequence: number of rows sent before its first row.
        slot: position of its first row in the ring; side arrays of the ring's capacity line up with it.
    """

    __slots__ = ("_arrays", "_length", "_sources", "sequence", "slot")

    def __init__(self, sources: Mapping[str, Column], sequence: int, slot: int, length: int) -> None:
        self._sources = sources
        self._arrays: dict[str, Column] = {}
        self.sequence = sequence
        self.slot = slot
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, field: str) -> Column:
        array = self._arrays.get(field)
        if array is None:
            slot = self.slot
            array = self._arrays[field] = self._sources[field][slot : slot + self._length]
        return array

    def __iter__(self) -> Iterator[str]:
        raise TypeError("a batch is not iterable: iterate over batch.columns or over one of its columns")

    def __repr__(self) -> str:
        return f"<Batch of {self._length} rows from {self.sequence}: {', '.join(self._sources)}>"

    @property
    def columns(self) -> Mapping[str, Column]:
        """All columns by name, in the order of the ring's fields."""
        return BatchColumns(self)

    def copy(self) -> "Batch":
        """The same rows in memory of their own, valid for ever; ``sequence`` and ``slot`` are kept."""
        return OwnedBatch({field: self[field].copy() for field in self._sources}, self.sequence, self.slot)


class BatchColumns(Mapping[str, Column]):
    """The columns of a batch; each array is made when it is asked for."""

    __slots__ = ("_batch",)

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __getitem__(self, field: str) -> Column:
        return self._batch[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch._sources)

    def __len__(self) -> int:
        return len(self._batch._sources)


class OwnedBatch(Batch):
    """A batch whose arrays are its own."""

    __slots__ = ()

    def __init__(self, arrays: dict[str, Column], sequence: int, slot: int) -> None:
        super().__init__(arrays, sequence, slot, len(next(iter(arrays.values()))))
        for array in arrays.values():
            array.flags.writeable = False
        self._arrays = arrays


class DebugBatch(Batch):
    """A window that refuses to be read once it was given back; arrays kept from it show poisoned values."""

    __slots__ = ("_expired",)

    def __init__(self, ring: "Ring", sequence: int, length: int) -> None:
        super().__init__(ring.readable, sequence, sequence % ring.capacity, length)
        self._expired = False

    def expire(self) -> None:
        self._expired = True

    def __getitem__(self, field: str) -> Column:
        if self._expired:
            raise RuntimeError("this batch was given back by a later receive() or close(): keep a copy() instead")
        return super().__getitem__(field)


class Ring:
    """The memory and its layout; who may write when is the caller's business."""

    __slots__ = ("_last", "_writable", "capacity", "fields", "readable", "row_bytes")

    def __init__(self, capacity: int, fields: Mapping[str, DTypeLike]) -> None:
        check_capacity(capacity)
        self.capacity = capacity
        self.fields = MappingProxyType({name: _field_type(name, kind) for name, kind in fields.items()})
        if not self.fields:
            raise ValueError("fields must name at least one column, were none")
        self.row_bytes = sum(kind.itemsize for kind in self.fields.values())
        self._writable = _columns_in_one_block(capacity, self.fields)
        self.readable: dict[str, Column] = {}
        for name, column in self._writable.items():
            self.readable[name] = column.view()
            self.readable[name].flags.writeable = False
        self._last = Batch(self.readable, 0, 0, 0)

    def check(self, rows: Rows) -> tuple[list[Column], int]:
        """The rows as one value per field in the ring's order, each of its field's type, and their number.

        Raises:
            ValueError: columns missing or unknown, lengths that differ, more than one dimension, more rows than slots.
            TypeError: a column's values cannot be held by its field without loss.
        """
        fields = self.fields
        values: list[Column] = []
        length = -1
        try:
            for name, kind in fields.items():
                value = rows[name]
                if type(value) is not np.ndarray or value.dtype != kind:
                    value = _as_type(name, value, kind)
                if value.ndim == 1:
                    if length < 0:
                        length = len(value)
                    elif len(value) != length:
                        raise ValueError(f"columns must be of one length, {name!r} has {len(value)} rows, not {length}")
                elif value.ndim:
                    raise ValueError(f"column {name!r} must be one-dimensional, had shape {value.shape}")
                values.append(value)
        except KeyError:
            raise _wrong_columns(rows, fields) from None
        if len(rows) != len(values):
            raise _wrong_columns(rows, fields)
        if length < 0:
            length = 1
        if length > self.capacity:
            raise ValueError(f"a send must be at most {self.capacity} rows (the ring's capacity), was {length}")
        return values, length

    def write(self, sequence: int, values: list[Column], count: int) -> None:
        """Put checked rows into the slots from ``sequence`` on."""
        slot = sequence % self.capacity
        stop = slot + count
        if stop <= self.capacity:
            for column, value in zip(self._writable.values(), values, strict=True):
                column[slot:stop] = value
            return
        head = self.capacity - slot
        for column, value in zip(self._writable.values(), values, strict=True):
            column[slot:] = value[:head] if value.ndim else value
            column[: count - head] = value[head:] if value.ndim else value

    def window(self, sequence: int, count: int) -> Batch:
        """A batch of views; receivers that read the same rows share one."""
        last = self._last
        if last.sequence == sequence and last._length == count:
            return last
        batch = self._last = Batch(self.readable, sequence, sequence % self.capacity, count)
        return batch

    def copied(self, sequence: int, count: int) -> Batch:
        """A batch in memory of its own; the rows may not cross the ring's end."""
        slot = sequence % self.capacity
        return OwnedBatch(
            {name: column[slot : slot + count].copy() for name, column in self.readable.items()}, sequence, slot
        )

    def poison(self, start: int, stop: int) -> None:
        """Overwrite the rows from ``start`` to ``stop`` with values that no computation mistakes for data."""
        if start < stop:
            self.write(start, [_poison_value(kind) for kind in self.fields.values()], stop - start)


def _field_type(name: str, kind: DTypeLike) -> np.dtype[Any]:
    if not isinstance(name, str):
        raise TypeError(f"a field's name must be a str, was {name!r}")
    dtype = np.dtype(kind)
    if dtype.hasobject or dtype.subdtype is not None or dtype.itemsize == 0:
        raise ValueError(f"field {name!r} must be of a fixed-size scalar type, was {dtype}")
    return dtype


def _columns_in_one_block(capacity: int, fields: Mapping[str, np.dtype[Any]]) -> dict[str, Column]:
    sizes = {name: -(-kind.itemsize * capacity // _ALIGNMENT) * _ALIGNMENT for name, kind in fields.items()}
    block = np.zeros(sum(sizes.values()) + _ALIGNMENT, np.uint8)
    offset = -block.ctypes.data % _ALIGNMENT
    columns = {}
    for name, kind in fields.items():
        columns[name] = np.ndarray((capacity,), kind, buffer=block.data, offset=offset)
        offset += sizes[name]
    return columns


def _poison_value(kind: np.dtype[Any]) -> Column:
    """NaN, NaT, the most negative or largest integer; bytes of 0xDB for everything else."""
    if kind.kind in "fc":
        return np.array(np.nan, kind)
    if kind.kind in "mM":
        return np.array("NaT", kind)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return np.array(limits.min or limits.max, kind)
    if kind.kind == "b":
        return np.array(True)
    return np.frombuffer(b"\xdb" * kind.itemsize, kind)[0:1].reshape(())


def _wrong_columns(rows: Rows, fields: Mapping[str, object]) -> ValueError:
    missing = [name for name in fields if name not in rows]
    unknown = [name for name in rows if name not in fields]
    return ValueError(f"columns must be exactly {list(fields)}; missing {missing}, unknown {unknown}")


def _as_type(name: str, value: object, kind: np.dtype[Any]) -> Column:
    """``value`` as an array of ``kind``; a TypeError unless every value is held exactly (floats: as near as can be)."""
    given = np.asarray(value)
    if given.dtype == kind or np.can_cast(given.dtype, kind, "safe"):
        return given.astype(kind, copy=False)
    if isinstance(value, np.ndarray | np.generic) or given.dtype.kind not in kind.kind + "iuf":
        raise TypeError(f"column {name!r} must be of type {kind}, was {given.dtype}")
    with np.errstate(all="ignore"):
        converted = given.astype(kind)
    if kind.kind != "f" and not np.array_equal(converted, given):
        raise TypeError(f"column {name!r} must be of type {kind}, and not all its values fit")
    return converted
