"""What importing costs: ``trio_nt`` beside its foundations, ``scheduler`` beside Trio.

Each figure is the median over fresh interpreters, which start, import and measure themselves; interpreter start-up is
not in it. Bytecode is cached, as pip leaves an installed package. Both sides alternate, so that the machine's mood
meets both. The expected answer is checked first: nothing that is to be imported where it is used may be there after
``import trio_nt``.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks.harness import RUNS, Row, main

FOUNDATIONS = "trio, numpy, attrs"
LAZY = ("httpx", "prometheus_client", "numba", "rich", "starlette", "cyclopts", "polars", "pyarrow", "pandas", "cattrs")


def python(program: str, cache: str) -> str:
    """What ``program`` printed, run by a fresh interpreter with its bytecode in the folder ``cache``."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = cache
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def import_seconds(modules: str, cache: str) -> float:
    program = f"import time; start = time.perf_counter()\nimport {modules}\nprint(time.perf_counter() - start)"
    return float(python(program, cache))


def check_nothing_heavy(cache: str) -> None:
    program = f"import sys, trio_nt, scheduler; print(*(name for name in {LAZY!r} if name in sys.modules))"
    heavy = python(program, cache)
    assert heavy == "", f"import trio_nt also imports {heavy}"


def added(base: str, module: str, runs: int, cache: str) -> tuple[float, float]:
    """Median seconds that ``module`` adds to ``base``, and those of ``base`` itself."""
    both = f"{base}, {module}"
    import_seconds(both, cache)  # fills the caches: bytecode and disk
    pairs = [(import_seconds(base, cache), import_seconds(both, cache)) for _ in range(runs)]
    alone = statistics.median(first for first, _ in pairs)
    return statistics.median(second for _, second in pairs) - alone, alone


def cases(quick: bool) -> Iterator[Row]:
    runs = 3 if quick else 2 * RUNS + 1
    with tempfile.TemporaryDirectory() as cache:
        check_nothing_heavy(cache)
        for base, module, gate in ((FOUNDATIONS, "trio_nt", 0.1), ("trio", "scheduler", 0.05)):
            cost, alone = added(base, module, runs, cache)
            yield Row(f"import {module}", "added to its base", cost, "s", baseline=alone, gate=gate, note=f"to {base}")


if __name__ == "__main__":
    raise SystemExit(main("imports", cases))
