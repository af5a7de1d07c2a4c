"""The table of kernels. The order of the rows is the compiled driver's opcode: append, never reorder."""

from collections.abc import Callable
from typing import Any

from trio_nt.features.kernels import averages, deviations, oscillators, quotes, ranges, volumes
from trio_nt.features.specs import Kernel

_ROWS: tuple[tuple[Any, int, Callable[[int], int], Callable[[int], int]], ...] = (
    # function, inputs, state of an instrument, first ready input
    (quotes.value, 1, lambda window: 0, lambda window: 1),
    (quotes.mid, 2, lambda window: 0, lambda window: 1),
    (quotes.spread, 2, lambda window: 0, lambda window: 1),
    (quotes.microprice, 4, lambda window: 0, lambda window: 1),
    (quotes.imbalance, 2, lambda window: 0, lambda window: 1),
    (quotes.typical, 3, lambda window: 0, lambda window: 1),
    (averages.sma, 1, lambda window: window + 4, lambda window: window),
    (averages.ema, 1, lambda window: 2, lambda window: window),
    (averages.wma, 1, lambda window: window + 5, lambda window: window),
    (averages.dema, 2, lambda window: 0, lambda window: 1),
    (averages.tema, 3, lambda window: 0, lambda window: 1),
    (averages.difference, 2, lambda window: 0, lambda window: 1),
    (averages.cross, 2, lambda window: 1, lambda window: 1),
    (oscillators.rsi, 1, lambda window: 4, lambda window: window + 1),
    (oscillators.roc, 1, lambda window: window + 2, lambda window: window + 1),
    (oscillators.stochastic, 3, lambda window: 0, lambda window: 1),
    (oscillators.williams_r, 3, lambda window: 0, lambda window: 1),
    (oscillators.cci, 1, lambda window: window + 2, lambda window: window),
    (ranges.atr, 3, lambda window: 3, lambda window: window + 1),
    (ranges.plus_di, 3, lambda window: 7, lambda window: window + 1),
    (ranges.minus_di, 3, lambda window: 7, lambda window: window + 1),
    (ranges.adx, 3, lambda window: 8, lambda window: 2 * window),
    (ranges.rolling_max, 1, lambda window: window + 3, lambda window: window),
    (ranges.rolling_min, 1, lambda window: window + 3, lambda window: window),
    (deviations.stdev, 1, lambda window: 2 * window + 4, lambda window: window),
    (deviations.band, 2, lambda window: 0, lambda window: 1),
    (deviations.zscore, 3, lambda window: 0, lambda window: 1),
    (deviations.realised_volatility, 1, lambda window: window + 5, lambda window: window + 1),
    (volumes.vwap_total, 2, lambda window: 4, lambda window: 1),
    (volumes.vwap, 2, lambda window: 2 * window + 6, lambda window: window),
    (volumes.obv, 2, lambda window: 4, lambda window: 1),
    (volumes.mfi, 2, lambda window: 2 * window + 8, lambda window: window + 1),
)

EVENTS = frozenset({"cross"})

KERNELS: dict[str, Kernel] = {
    function.__name__: Kernel(
        name=function.__name__,
        function=function,
        arity=arity,
        state_size=state_size,
        warm_up=warm_up,
        is_event=function.__name__ in EVENTS,
        opcode=opcode,
    )
    for opcode, (function, arity, state_size, warm_up) in enumerate(_ROWS)
}


def kernel_named(name: str) -> Kernel:
    """The built-in kernel of that name.

    Raises:
        ValueError: there is none.
    """
    try:
        return KERNELS[name]
    except KeyError:
        raise ValueError(f"a kernel must be one of {', '.join(KERNELS)}, was {name!r}") from None
