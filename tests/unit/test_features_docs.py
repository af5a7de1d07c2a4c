"""The table of specs is complete, and the documentation's examples run."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import trio_nt.features as features
from trio_nt.features import FeaturePipeline, FeatureSpec, indicators
from trio_nt.features.table import KERNELS
from trio_nt.model.market import QUOTE, empty_columns

DOCS = Path(__file__).parents[2] / "docs"


def constructors() -> list[str]:
    return [
        name
        for name, value in vars(indicators).items()
        if inspect.isfunction(value) and name in features.__all__ and value.__module__ == indicators.__name__
    ]


def test_every_spec_is_in_the_table() -> None:
    table = (DOCS / "reference" / "features.md").read_text()
    assert len(constructors()) > 25
    missing = [name for name in [*constructors(), "apply", "kernel"] if f"`{name}(" not in table]
    assert missing == []


def test_the_tables_defaults_are_the_codes() -> None:
    table = (DOCS / "reference" / "features.md").read_text()
    for name in constructors():
        signature = inspect.signature(getattr(indicators, name))
        written = re.search(rf"`{name}\((.*?)\)`", table)
        assert written is not None
        defaults = [
            parameter.default for parameter in signature.parameters.values() if parameter.default is not parameter.empty
        ]
        for default in defaults:
            assert f"={default!r}".replace("'", '"') in written.group(1), name


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_states_formula_warm_up_and_source(name: str) -> None:
    text = inspect.getdoc(KERNELS[name].function) or ""
    for word in ("Warm-up:", "State:", "Source:"):
        assert word in text


def test_examples_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "explanation" / "features.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    rows = empty_columns(60)
    rows["kind"][:] = QUOTE
    rows["bid"][:] = rows["ask"][:] = np.arange(60) % 7 + 1.0
    for block in blocks:
        scope: dict[str, dict[str, FeatureSpec]] = {}
        exec(block, scope)
        pipeline = FeaturePipeline(1)
        pipeline.require(scope["features"].values())
        assert pipeline.compute(rows)[scope["features"].popitem()[1]].shape == (60,)
