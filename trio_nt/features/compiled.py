"""The driver that runs machine code: one call per batch for all features of all instruments."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from trio_nt.features.interpreted import run_node
from trio_nt.features.kernels import State
from trio_nt.features.machine import FIELDS_IN_CALL, PROGRAM_WIDTH, compile_drive, compile_kernel
from trio_nt.features.plan import Node


class _Part:
    """Consecutive nodes that one compiled function takes in one call."""

    def __init__(self, drive: Any, nodes: Sequence[tuple[Node, int]]) -> None:
        self.drive = drive
        program = np.array([_instruction(node, base) for node, base in nodes], np.int64)
        self.program = program.reshape(len(nodes), PROGRAM_WIDTH)
        self.factors = np.array([node.spec.factor for node, _ in nodes], np.float64)


def _instruction(node: Node, base: int) -> list[int]:
    kernel = node.kernel
    head = [kernel.opcode, node.slot, node.spec.window, base, node.state_size]
    return [*head, *node.inputs, *([node.inputs[0]] * (4 - len(node.inputs)))]


class CompiledDriver:
    """Runs a list of nodes over blocks of rows; holds their state as one array, room for ``capacity`` instruments."""

    def __init__(self, nodes: Sequence[Node], bases: Sequence[int], state: Sequence[float], capacity: int) -> None:
        self.state = np.array(state, np.float64)
        self._capacity = capacity
        self._layouts: dict[tuple[int, ...], NDArray[np.int64]] = {}
        # The first part is always built-in, if empty: it checks the instruments and brings the fields into the block.
        parts: list[list[tuple[Node, int]]] = [[]]
        for node, base in zip(nodes, bases, strict=True):
            if node.kernel.opcode < 0:
                parts.extend([[(node, base)], []])
            else:
                parts[-1].append((node, base))
        self._parts = [self._part(part) for index, part in enumerate(parts) if part or index == 0]

    @staticmethod
    def _part(nodes: Sequence[tuple[Node, int]]) -> "_Part | tuple[Node, int]":
        if not nodes or nodes[0][0].kernel.opcode >= 0:
            return _Part(compile_drive(), nodes)
        kernel = nodes[0][0].kernel
        return _Part(compile_kernel(kernel), nodes) if kernel.compiles else nodes[0]

    def run(
        self,
        block: NDArray[np.float64],
        kinds: NDArray[Any],
        flags: NDArray[Any],
        instruments: NDArray[Any],
        fields: Sequence[tuple[int, int, NDArray[Any]]],
    ) -> int | None:
        """As ``InterpretedDriver.run``."""
        fresh = np.zeros(block.shape, np.uint8)
        slots = self._slots_of(fields)
        columns = [field[2] for field in fields[:FIELDS_IN_CALL]] + _NO_COLUMNS[len(fields) :]
        for slot, kind, column in fields[FIELDS_IN_CALL:]:
            block[slot] = column
            fresh[slot] = (kinds == kind) & (flags == 0) & np.isfinite(column)
        for part in self._parts:
            if not isinstance(part, _Part):
                self._run_interpreted(part, block, fresh, instruments)
                continue
            head = part.program, part.factors, self.state, self._capacity, block, fresh
            try:
                strange = part.drive(*head, kinds, flags, instruments, slots, *columns)
            except TypeError:  # another dtype or stride than the ring's; nothing has run yet
                kinds, flags = (np.ascontiguousarray(column, np.uint8) for column in (kinds, flags))
                instruments = np.ascontiguousarray(instruments, np.int32)
                columns = [np.ascontiguousarray(column, np.float64) for column in columns]
                strange = part.drive(*head, kinds, flags, instruments, slots, *columns)
            if strange >= 0:
                return int(instruments[strange])
            slots = _NO_SLOTS  # the fields are in the block now
        return None

    def _slots_of(self, fields: Sequence[tuple[int, int, NDArray[Any]]]) -> NDArray[np.int64]:
        """Slot and kind of every field that goes into the call, as the compiled function takes them."""
        key = tuple(field[0] for field in fields)
        slots = self._layouts.get(key)
        if slots is None:
            slots = _NO_SLOTS.copy()
            for index, (slot, kind, _) in enumerate(fields[:FIELDS_IN_CALL]):
                slots[2 * index : 2 * index + 2] = slot, kind
            self._layouts[key] = slots
        return slots

    def _run_interpreted(
        self, part: tuple[Node, int], block: NDArray[np.float64], fresh: NDArray[np.uint8], instruments: NDArray[Any]
    ) -> None:
        node, base = part
        inputs = [block[slot].tolist() for slot in node.inputs]
        news = [fresh[slot].tolist() for slot in node.inputs]
        values, new = run_node(node, cast(State, self.state), base, news, instruments.tolist(), inputs)
        block[node.slot] = values
        fresh[node.slot] = new


_NO_SLOTS = np.full(2 * FIELDS_IN_CALL, -1)
_NO_COLUMNS = [np.empty(0)] * FIELDS_IN_CALL
