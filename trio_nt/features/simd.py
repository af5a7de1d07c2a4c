"""The seed's two SIMD kernels, on NumPy's vector loops: float32 and float64, no compiler needed."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Float = TypeVar("Float", np.float32, np.float64)


def moving_average(prices: NDArray[Float], window: int) -> NDArray[Float]:
    """Average every run of ``window`` consecutive prices.

    Sums of 2, 4, 8, … neighbours are made from one another, so that a window costs one vector addition per bit of its
    length; nothing is subtracted, so nothing drifts, and a NaN spoils only the windows that contain it.

    Args:
        prices: shape (n,), float32 or float64, oldest first.
        window: number of prices per average, at least 1.

    Returns:
        Shape (n - window + 1,), same dtype; element i averages ``prices[i : i + window]``. Empty when n < window.

    Raises:
        ValueError: ``window`` below 1, or ``prices`` not one-dimensional.
        TypeError: another dtype.

    Source: the seed, "SIMD Acceleration".
    """
    _check(prices)
    if window < 1:
        raise ValueError(f"window must be at least 1, was {window}")
    count = len(prices) - window + 1
    if count < 1:
        return np.empty(0, prices.dtype)
    doubled, length = prices, 1  # doubled[i] = sum of prices[i : i + length]
    total: NDArray[Float] | None = None
    covered = 0
    while True:
        if window & length:
            part = doubled[covered : covered + count]
            total = part.copy() if total is None else np.add(total, part, out=total)
            covered += length
        if 2 * length > window:
            break
        doubled = doubled[:-length] + doubled[length:]
        length *= 2
    assert total is not None
    total *= prices.dtype.type(1.0 / window)
    return total


def dot_product(first: NDArray[Float], second: NDArray[Float]) -> Float:
    """Sum of the products of two vectors' elements.

    Args:
        first: shape (n,), float32 or float64.
        second: same shape and dtype.

    Raises:
        ValueError: not one-dimensional, or different lengths.
        TypeError: another dtype, or two.

    Source: the seed, "SIMD Acceleration".
    """
    if first.dtype != second.dtype:
        raise TypeError(f"both vectors must have one dtype, had {first.dtype} and {second.dtype}")
    _check(first)
    if first.shape != second.shape:
        raise ValueError(f"both vectors must have one length, had {first.shape} and {second.shape}")
    product: Float = first.dot(second)
    return product


def _check(array: NDArray[Any]) -> None:
    if array.ndim != 1:
        raise ValueError(f"the array must have one dimension, had {array.ndim}")
    if array.dtype.type not in (np.float32, np.float64):
        raise TypeError(f"the dtype must be float32 or float64, was {array.dtype}")
