"""No decision may depend on the machine's clock or on chance: only the engine's clock decides, and every seed is given.

``perf_counter_ns`` measures, in statistics only; it is banned from the modules that decide (``DECIDES``). What else
reads a clock or draws a number is listed in ``ALLOWED``, each with its reason.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("trio_nt", "scheduler") for path in (ROOT / folder).rglob("*.py"))

BANNED_MODULES = {"secrets"}
BANNED = {
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "time.localtime",
    "time.gmtime",
    "time.sleep",
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
    "uuid.uuid1",
    "uuid.uuid4",
    "os.urandom",
    "np.random.default_rng",
    "np.random.rand",
    "np.random.randn",
    "np.random.random",
    "np.random.seed",
}
NAMES = {name.rpartition(".")[2] for name in BANNED if name.startswith(("time.", "uuid."))}

# File and name → why.
ALLOWED = {
    ("trio_nt/exchange/process.py", "time.time_ns"): "the venue's process gives its server the clock",
    ("trio_nt/clock.py", "time.time_ns"): "the engine's clock, the one that decides live",
}

# Modules whose results are decisions: not even a stopwatch in them.
DECIDES = [
    "trio_nt/model",
    "trio_nt/risk/core.py",
    "trio_nt/risk/checks.py",
    "trio_nt/risk/exposure.py",
    "trio_nt/risk/rate.py",
    "trio_nt/exchange/book.py",
    "trio_nt/exchange/checks.py",
    "trio_nt/exchange/fees.py",
    "trio_nt/exchange/margin.py",
    "trio_nt/exchange/market.py",
    "trio_nt/exchange/matching.py",
    "trio_nt/exchange/records.py",
    "trio_nt/execution/orders.py",
    "trio_nt/features/kernels",
    "trio_nt/portfolio.py",
    "trio_nt/replay/driver.py",
    "trio_nt/replay/venue.py",
    "trio_nt/strategies/runner.py",
]


def ambient(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of every ambient clock or source of chance that ``source`` mentions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if ast.unparse(node.value) == "random" and node.attr != "Random":
                yield node.lineno, name
            if any(name == banned or name.endswith("." + banned) for banned in BANNED):
                yield node.lineno, name
        elif isinstance(node, ast.Call):
            if ast.unparse(node.func) in ("random.Random", "Random") and not node.args:
                yield node.lineno, "random.Random without a seed"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if node.module == "random" and alias.name != "Random":
                    yield node.lineno, f"random.{alias.name}"
                if f"{node.module}.{alias.name}" in BANNED or (node.module in ("time", "uuid") and alias.name in NAMES):
                    yield node.lineno, f"{node.module}.{alias.name}"
            if node.module in BANNED_MODULES:
                yield node.lineno, str(node.module)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in BANNED_MODULES:
                    yield node.lineno, alias.name


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_nothing_reads_an_ambient_clock_or_draws_a_number() -> None:
    found = [
        f"{relative(path)}:{line} {name}"
        for path in SOURCES
        for line, name in ambient(path.read_text())
        if (relative(path), name) not in ALLOWED
    ]
    assert found == []


def test_every_exception_is_still_needed() -> None:
    used = {(relative(path), name) for path in SOURCES for _, name in ambient(path.read_text())}
    assert set(ALLOWED) - used == set()


def test_what_decides_has_no_stopwatch() -> None:
    found = [
        f"{relative(path)}:{number}"
        for path in SOURCES
        if any(relative(path) == place or relative(path).startswith(place + "/") for place in DECIDES)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if "perf_counter" in line
    ]
    assert found == []


@pytest.mark.parametrize("place", DECIDES)
def test_what_decides_is_there(place: str) -> None:
    assert (ROOT / place).exists()


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()",
        "import time\nf = time.monotonic",
        "from time import time_ns",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime\ndatetime.now(UTC)",
        "import random\nrandom.shuffle([])",
        "import random\nrandom.Random()",
        "from random import Random\nRandom()",
        "from random import choice",
        "import secrets",
        "import uuid\nuuid.uuid4()",
        "from uuid import uuid4",
        "import os\nos.urandom(8)",
        "import numpy as np\nnp.random.default_rng()",
    ],
)
def test_the_reader_finds_it(source: str) -> None:
    assert list(ambient(source))


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.perf_counter_ns()",
        "bits = np.random.PCG64(7)",
        "import random\nrandom.Random(7).getrandbits(8)",
        "clock.now_ns()",
    ],
)
def test_the_reader_leaves_the_rest(source: str) -> None:
    assert not list(ambient(source))
