"""Features of data that is all there: the same kernels over a whole frame, for notebooks and research."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trio_nt.features.pipeline import FeaturePipeline, FeatureValues
from trio_nt.features.specs import FIELD_KINDS, FeatureSpec, check_specs
from trio_nt.model.market import BAR, QUOTE, TRADE


def compute(columns: Mapping[str, Any], specs: Iterable[FeatureSpec], *, compiled: bool = True) -> FeatureValues:
    """One value per row for every spec, bit for bit as a run over the same rows gives it.

    Args:
        columns: by field, each of shape (n,): a ``Frame``, a block of market rows, a dict of arrays or lists, a
            pandas DataFrame. Without ``kind``, all rows are of the kind whose prices are there; without ``flags``
            all are good; without ``instrument`` all belong to one.
        specs: what to compute.
        compiled: use numba where it is installed.

    Returns:
        The columns by spec, each of shape (n,), float64, NaN during warm-up.

    Raises:
        TypeError: an element of ``specs`` is no FeatureSpec.
        ValueError: a field that ``columns`` has not, a window longer than n, columns of different lengths, or rows
            whose kind cannot be told.
    """
    wanted = list(specs)
    names = list(columns)
    block: dict[str, NDArray[Any]] = {
        name: np.ascontiguousarray(columns[name], np.float64) for name in FIELD_KINDS if name in names
    }
    lengths = {len(column) for column in block.values()}
    if len(lengths) != 1:
        raise ValueError(f"columns must hold prices, all of one length; had {dict.fromkeys(names)}")
    count = lengths.pop()
    check_specs(wanted, longest_window=count, fields=block)
    block["kind"] = (
        np.ascontiguousarray(columns["kind"], np.uint8)
        if "kind" in names
        else np.full(count, _kind_of(block), np.uint8)
    )
    for name, dtype in (("flags", np.uint8), ("instrument", np.int32)):
        given = columns[name] if name in names else np.zeros(count)
        block[name] = np.ascontiguousarray(given, dtype)
    pipeline = FeaturePipeline(longest_window=max(1, count))
    if compiled:
        pipeline.prepare()
    pipeline.require(wanted)
    return pipeline.compute(block)


def _kind_of(block: Mapping[str, Any]) -> int:
    """The kind of rows that have no column ``kind``."""
    kinds = {FIELD_KINDS[name] for name in block}
    if len(kinds) > 1:
        raise ValueError("columns of several kinds of rows need a column 'kind' (1 quote, 2 trade, 3 bar)")
    (kind,) = kinds
    assert kind in (QUOTE, TRADE, BAR)
    return kind
