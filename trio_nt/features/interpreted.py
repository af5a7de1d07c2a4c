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
    node: Node,
    state: State,
    base: int,
    news: Sequence[Sequence[int]],
    instruments: Sequence[int],
    inputs: Sequence[Sequence[float]],
) -> tuple[list[float], list[bool]]:
    """One value per row for one node, and whether it is new on that row.

    ``news`` and ``inputs`` say the same of what the node reads. A row updates the node when one of its inputs is new
    and all are finite; every other row repeats the instrument's last value (0 where the node is an event).
    """
    kernel: Callable[..., float] = node.kernel.function
    window, factor, stride = node.spec.window, node.spec.factor, node.state_size
    values: list[float] = []
    updated: list[bool] = []
    add, mark = values.append, updated.append
    if len(inputs) == 1 and not node.kernel.is_event:
        for new, instrument, x in zip(news[0], instruments, inputs[0], strict=True):
            at = base + instrument * stride
            if new and x - x == 0.0:  # neither NaN nor infinite
                state[at] = value = kernel(state, at + 1, window, factor, x)
                add(value)
                mark(True)
            else:
                add(state[at])
                mark(False)
        return values, updated
    some = news[0] if all(new is news[0] for new in news) else [any(row) for row in zip(*news, strict=True)]
    for new, instrument, row in zip(some, instruments, zip(*inputs, strict=True), strict=True):
        at = base + instrument * stride
        if new and _finite(row):
            state[at] = kernel(state, at + 1, window, factor, *row)
            mark(True)
        else:
            if node.kernel.is_event:
                state[at] = 0.0
            mark(False)
        add(state[at])
    return values, updated


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
        fields: Sequence[tuple[int, int, NDArray[Any]]],
    ) -> int | None:
        """Fill ``block[slot]`` for every node; ``fields``: slot, kind of row and column.

        Returns:
            None; or an instrument that has no room, and then nothing was done.
        """
        who: list[int] = instruments.tolist()
        if who and not 0 <= min(who) <= max(who) < self._capacity:
            return next(instrument for instrument in who if not 0 <= instrument < self._capacity)
        good = [0 if flag else kind for kind, flag in zip(kinds.tolist(), flags.tolist(), strict=True)]
        of_kind: dict[int, list[bool]] = {}
        columns: dict[int, list[float]] = {}
        news: dict[int, list[bool]] = {}
        for slot, kind, column in fields:
            if kind not in of_kind:
                of_kind[kind] = [kind == other for other in good]
            columns[slot], news[slot] = column.tolist(), of_kind[kind]
        absent, never = [float("nan")] * len(who), [False] * len(who)
        for node, base in self._nodes:
            inputs = [columns.get(slot, absent) for slot in node.inputs]
            new = [news.get(slot, never) for slot in node.inputs]
            values, updated = run_node(node, self.state, base, new, who, inputs)
            columns[node.slot], news[node.slot] = values, updated
            block[node.slot] = values
        return None
