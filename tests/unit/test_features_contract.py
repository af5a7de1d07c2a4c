"""What the engine and a strategy's author rely on: names, rows, batches, errors."""

import numpy as np
import pytest

from trio_nt.features import FeaturePipeline, cross, ema, field, mid, sma
from trio_nt.model.market import BAR, BAR_FIELDS, QUOTE, TRADE, Column, empty_columns


def quotes(mids: list[float], instruments: list[int] | None = None) -> dict[str, Column]:
    columns = empty_columns(len(mids))
    columns["kind"][:] = QUOTE
    columns["bid"][:] = columns["ask"][:] = mids
    if instruments is not None:
        columns["instrument"][:] = instruments
    return columns


def test_the_cross_of_the_contract() -> None:
    spec = cross(ema(2), ema(3))
    pipeline = FeaturePipeline(1)
    pipeline.require([spec])
    assert pipeline.compute(quotes([10, 9, 8, 12, 7]))[spec].tolist() == [0, 0, 0, 1, -1]
