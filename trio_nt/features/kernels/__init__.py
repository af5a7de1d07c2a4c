"""The streaming kernels: one small function each, plain Python over a flat array of numbers.

The rules that all of them keep:

- ``kernel(state, at, window, factor, *inputs) -> float`` reads and writes ``state[at:]`` only: the state of one
  instrument, zeros at first, as many numbers as the kernel's table entry says. ``state[at - 1]`` holds the
  value that it returned last (NaN at first).
- It returns NaN until it has seen what its warm-up rule names, and a finite number or NaN afterwards.
- Inputs are finite: rows without a finite input never reach a kernel.
- No division by zero, no root or logarithm outside its domain: interpreted Python raises where compiled code
  would not, and the two must agree to the last bit.
- Nothing but ``math`` and arithmetic, so that numba compiles the same source.

**Why nothing drifts.** No kernel subtracts what leaves a window. A window is the end of one block of ``window``
values and the beginning of the next: the older part is a sum that was made backwards when its block was complete
(one pass per block, so one addition per update), the newer part a sum from the block's beginning (van Herk 1992,
Gil and Werman 1993, for maxima; the same holds for every associative operation). So every sum is recomputed
once per window by construction, and an outlier leaves no trace when it has left.
"""

from collections.abc import MutableSequence
from typing import TypeAlias

State: TypeAlias = MutableSequence[float]

NAN = float("nan")
