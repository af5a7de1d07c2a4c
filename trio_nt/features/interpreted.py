"""The driver without numba: the same kernels, in plain Python over lists.

Lists, because an interpreted kernel on NumPy scalars is five times as slow. The rule of a row stands here and, for
the compiled driver, in ``compiled.py``; a property test holds the two together.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trio_nt.features.kernels import State
from trio_nt.features.plan import Node


def run_node(
    node: Node, state: State, base: int, updates: Sequence[bool], instruments: Sequence[int], inputs: list[list[float]]
) -> list[float]:
    """One value per row for one node.

    A row updates the node when it is of its kinds and good (``updates``) and all its inputs are finite; every other
    row repeats the instrument's last value (0 where the node is an event).
    """
    kernel: Callable[..., float] = node.kernel.function
    window, factor, stride = node.spec.window, node.spec.factor, node.state_size
    values: list[float] = []
    append = values.append
    if node.kernel.is_event:
        for update, instrument, row in zip(updates, instruments, zip(*inputs, strict=True), strict=True):
            at = base + instrument * stride
            value = kernel(state, at + 1, window, factor, *row) if update and _finite(row) else 0.0
            state[at] = value
            append(value)
    elif len(inputs) == 1:
        for update, instrument, x in zip(updates, instruments, inputs[0], strict=True):
            at = base + instrument * stride
            if update and x - x == 0.0:  # neither NaN nor infinite
                state[at] = value = kernel(state, at + 1, window, factor, x)
                append(value)
            else:
                append(state[at])
    else:
        for update, instrument, row in zip(updates, instruments, zip(*inputs, strict=True), strict=True):
            at = base + instrument * stride
            if update and _finite(row):
                state[at] = value = kernel(state, at + 1, window, factor, *row)
                append(value)
            else:
                append(state[at])
    return values


def _finite(row: tuple[float, ...]) -> bool:
    for value in row:  # noqa: SIM110  a generator would double the cost
        if value - value != 0.0:
            return False
    return True


class InterpretedDriver:
    """Runs a list of nodes over blocks of rows; holds their state as one list, room for ``capacity`` instruments."""

    def __init__(self, nodes: Sequence[Node], bases: Sequence[int], state: Sequence[float], capacity: int) -> None:
        self._nodes = list(zip(nodes, bases, strict=True))
        self._capacity = capacity
        self.state = list(state)

    def run(
        self,
        block: NDArray[np.float64],
        kinds: NDArray[Any],
        flags: NDArray[Any],
        instruments: NDArray[Any],
        fields: Sequence[tuple[int, NDArray[Any]]],
    ) -> int | None:
        """Fill ``block[slot, :n]`` for every node, n = ``len(kinds)``.

        Returns:
            None; or an instrument that has no room, and then nothing was done.
        """
        count = len(kinds)
        who: list[int] = instruments.tolist()
        if who and not 0 <= min(who) <= max(who) < self._capacity:
            return next(instrument for instrument in who if not 0 <= instrument < self._capacity)
        columns: dict[int, list[float]] = {slot: column.tolist() for slot, column in fields}
        absent = [float("nan")] * count
        bits = [0 if flag else 1 << kind for kind, flag in zip(kinds.tolist(), flags.tolist(), strict=True)]
        masks: dict[int, list[bool]] = {}
        for node, base in self._nodes:
            updates = masks.get(node.kinds)
            if updates is None:
                updates = masks[node.kinds] = [bit & node.kinds != 0 for bit in bits]
            inputs = [columns.get(slot, absent) for slot in node.inputs]
            values = columns[node.slot] = run_node(node, self.state, base, updates, who, inputs)
            block[node.slot, :count] = values
        return None
