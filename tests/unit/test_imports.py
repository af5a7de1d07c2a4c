"""Importing the library is quick: what is heavy is imported where it is used."""

import subprocess
import sys

import pytest

LAZY = [
    "cattrs",
    "cyclopts",
    "httpx",
    "numba",
    "pandas",
    "polars",
    "prometheus_client",
    "pyarrow",
    "rich",
    "sqlite3",
    "starlette",
]


def modules_after(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in result.stdout.split()}


@pytest.fixture(scope="module")
def imported() -> set[str]:
    return modules_after("import trio_nt, trio_nt.testing, scheduler")


@pytest.mark.parametrize("name", LAZY)
def test_the_library_leaves_it_to_whoever_uses_it(imported: set[str], name: str) -> None:
    assert "trio_nt" in imported
    assert name not in imported


def test_the_scheduler_needs_trio_attrs_and_numpy_alone() -> None:
    added = modules_after("import trio, attrs, numpy, scheduler") - modules_after("import trio, attrs, numpy")
    assert added - set(sys.stdlib_module_names) == {"scheduler"}
