"""``trio-nt bench``: run the repository's benchmarks, each in a process of its own, and join their results."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from trio_nt.errors import InputError
from trio_nt.options import write_result

_NOT_A_BENCHMARK = {"__init__", "harness"}


def available() -> list[str]:
    """Names of the benchmarks in the folder ``benchmarks`` of the current folder.

    Raises:
        InputError: there is none; they are part of the source repository, not of the installed package.
    """
    folder = Path("benchmarks")
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem not in _NOT_A_BENCHMARK)
    if not names or not (folder / "harness.py").exists():
        raise InputError(f"no benchmarks in {Path.cwd()}: they are in the source repository, run this in its folder")
    return names


def run_benchmarks(names: Sequence[str], *, quick: bool, json_file: Path | None) -> int:
    """Run ``names`` (all without any) one after the other; 0 when every gate held, else 1."""
    known = available()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    rows: list[object] = []
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in names or known:
            result = Path(folder) / f"{name}.json"
            command = [
                sys.executable,
                "-m",
                f"benchmarks.{name}",
                "--json",
                str(result),
                *(["--quick"] if quick else []),
            ]
            missed += subprocess.run(command, check=False).returncode != 0  # noqa: S603 - our own modules
            if result.exists():
                rows += json.loads(result.read_text(encoding="utf-8"))
    write_result("--json", json_file, json.dumps(rows, indent=1) + "\n")
    return 1 if missed else 0
