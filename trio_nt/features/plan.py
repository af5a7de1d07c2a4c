"""The order of computation: every distinct feature once, inputs before what reads them. Pure.

A node's values are one row of a block of columns (a *slot*); market fields that are read have slots, too. Slots are
given out once and never move, so that what was bound to a plan stays valid when the plan grows.
"""

from collections.abc import Iterable, Iterator

import attrs

from trio_nt.features.specs import FeatureSpec, Field, Kernel


@attrs.frozen
class Node:
    """One kernel at work: it reads the slots ``inputs`` and fills ``slot``."""

    spec: FeatureSpec
    slot: int
    inputs: tuple[int, ...]

    @property
    def kernel(self) -> Kernel:
        return self.spec.kernel

    @property
    def state_size(self) -> int:
        """Numbers of state per instrument: the last value and the kernel's own."""
        return 1 + self.kernel.state_size(self.spec.window)

    def first_state(self) -> list[float]:
        """State of an instrument that has seen nothing."""
        state = [0.0] * self.state_size
        if not self.kernel.is_event:
            state[0] = float("nan")
        if self.spec.skip:
            state[1] = -float(self.spec.skip)
        return state


class FeaturePlan:
    """Which features are computed, and in what order. Grows by ``add``; nothing is ever taken away."""

    def __init__(self, specs: Iterable[FeatureSpec] = ()) -> None:
        self.nodes: list[Node] = []
        self.slots = 0
        """Rows of a block that holds this plan's columns."""
        self.fields: dict[str, int] = {}
        self.requested: list[FeatureSpec] = []
        self._slots: dict[FeatureSpec, int] = {}
        self._nodes_by_slot: dict[int, Node] = {}
        self.add(specs)

    def add(self, specs: Iterable[FeatureSpec]) -> int:
        """Take ``specs`` and what they read into the plan; how many nodes that added."""
        before = len(self.nodes)
        known = set(self.requested)
        for spec in specs:
            self._slot_of(spec)
            if spec not in known:
                known.add(spec)
                self.requested.append(spec)
        return len(self.nodes) - before

    def _slot_of(self, item: FeatureSpec | Field) -> int:
        if isinstance(item, Field):
            if item.name not in self.fields:
                self.fields[item.name] = self._new_slot()
            return self.fields[item.name]
        if item not in self._slots:
            inputs = tuple(self._slot_of(inner) for inner in item.inputs)
            self._slots[item] = self._new_slot()
            node = Node(item, self._slots[item], inputs)
            self.nodes.append(node)
            self._nodes_by_slot[node.slot] = node
        return self._slots[item]

    def _new_slot(self) -> int:
        self.slots += 1
        return self.slots - 1

    def slot(self, spec: FeatureSpec) -> int:
        """The block's row of a feature.

        Raises:
            KeyError: the feature is not in the plan.
        """
        try:
            return self._slots[spec]
        except KeyError:
            raise KeyError(f"{spec} was not required; there are {', '.join(map(str, self.requested))}") from None

    def node_of_slot(self, slot: int) -> Node | None:
        """The node that fills a slot; None where a market field does."""
        return self._nodes_by_slot.get(slot)

    def __contains__(self, spec: object) -> bool:
        return spec in self._slots

    def __iter__(self) -> Iterator[FeatureSpec]:
        return iter(self.requested)
