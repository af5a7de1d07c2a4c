"""A user's own features: a kernel, or a plain Python function of a window."""

import operator
from collections.abc import Callable
from typing import SupportsFloat, SupportsIndex

import attrs
import numpy as np
from numpy.typing import NDArray

from trio_nt.features.indicators import On, as_input, check_window
from trio_nt.features.kernels import NAN, State
from trio_nt.features.specs import FeatureSpec, Kernel


class KernelConstructor:
    """Makes specs of one kernel: ``decay = kernel(state=1)(function)``, then ``decay(20, on="trade")``."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __call__(
        self, window: SupportsIndex = 1, factor: SupportsFloat = 0.0, *, on: "On | tuple[On, ...]" = "quote"
    ) -> FeatureSpec:
        """A spec of this kernel.

        Args:
            window: passed to the function, at least 1.
            factor: passed to the function.
            on: what it reads; a tuple where it has several inputs.

        Raises:
            ValueError: a window below 1, an unknown ``on``, or another number of inputs than the function takes.
        """
        inputs = tuple(as_input(item) for item in (on if isinstance(on, tuple) else (on,)))
        if len(inputs) != self.kernel.arity:
            raise ValueError(f"{self.kernel.name} must have {self.kernel.arity} inputs in on, had {len(inputs)}")
        return FeatureSpec(self.kernel, inputs, check_window(window), float(factor))


def kernel(
    *,
    state: "int | Callable[[int], int]" = 0,
    warm_up: Callable[[int], int] = lambda window: 1,
    event: bool = False,
    compiles: bool = True,
) -> Callable[[Callable[..., float]], KernelConstructor]:
    """Register an own kernel.

    The function is called as ``function(state, at, window, factor, *inputs) -> float`` for every row that updates the
    feature. Its state are the numbers ``state[at]``, ``state[at + 1]``, … of one instrument, 0 at first; it reads
    and writes them by index and touches no others. It returns NaN until it is ready.

    Args:
        state: how many numbers of state it needs, or a function of the window.
        warm_up: at which input the first value appears, from the window; for messages and tables.
        event: the feature is 0, instead of its last value, on rows that do not update it. Two inputs only.
        compiles: False for a function that numba cannot compile; it then runs interpreted in every pipeline.

    Raises:
        ValueError: the function takes none or more than four inputs; or an event without exactly two.
    """
    size = state if callable(state) else _always(operator.index(state))

    def register(function: Callable[..., float]) -> KernelConstructor:
        arity = function.__code__.co_argcount - 4
        if not 1 <= arity <= 4:
            raise ValueError(f"{function.__name__} must take state, at, window, factor and 1 to 4 inputs, took {arity}")
        if event and arity != 2:
            raise ValueError(f"an event must take 2 inputs, {function.__name__} took {arity}")
        return KernelConstructor(
            Kernel(
                name=function.__name__,
                function=function,
                arity=arity,
                state_size=size,
                warm_up=warm_up,
                is_event=event,
                compiles=compiles,
            )
        )

    return register


def _always(size: int) -> Callable[[int], int]:
    if size < 0:
        raise ValueError(f"state must be at least 0, was {size}")
    return lambda window: size


def apply(function: Callable[[NDArray[np.float64]], float], window: SupportsIndex, on: On = "quote") -> FeatureSpec:
    """A plain Python function of the last ``window`` values.

    ``function`` gets an array of shape (window,), float64, oldest first, its own to keep, and returns one number. It is
    called once per row, interpreted also where the built-in kernels are compiled. Equal specs need the same function.
    """
    name = getattr(function, "__name__", "function")
    run = Kernel(name, _OfWindow(function), 1, _ring_size, _whole_window, compiles=False)
    return FeatureSpec(run, (as_input(on),), check_window(window))


def _ring_size(window: int) -> int:
    return window + 2


def _whole_window(window: int) -> int:
    return window


@attrs.frozen
class _OfWindow:
    """A kernel that keeps the window as a ring and hands it to ``function``. State: place, ring full, the ring."""

    function: Callable[[NDArray[np.float64]], float]

    def __call__(self, state: State, at: int, window: int, factor: float, value: float) -> float:
        place, ring = int(state[at]), at + 2
        state[ring + place] = value
        place = (place + 1) % window
        state[at] = place
        if place == 0:
            state[at + 1] = 1.0
        if state[at + 1] == 0.0:
            return NAN
        return float(self.function(np.array([*state[ring + place : ring + window], *state[ring : ring + place]])))
