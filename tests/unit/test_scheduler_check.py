"""A foreign package called scheduler is noticed at once, wherever its files lie."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = "import trio_nt; print('ours')"


def run(*search: Path) -> "subprocess.CompletedProcess[str]":
    path = "; ".join(f"sys.path.insert(0, {str(folder)!r})" for folder in reversed(search))
    program = f"import sys; {path}; {PROGRAM}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd="/")


def test_ours_passes() -> None:
    assert run(ROOT).stdout == "ours\n"


@pytest.mark.parametrize("layout", ["package", "module", "over ours"])
def test_another_one_is_named_with_the_way_out(tmp_path: Path, layout: str) -> None:
    (tmp_path / "trio_nt").mkdir()
    (tmp_path / "trio_nt" / "__init__.py").write_text("import trio_nt._scheduler_check\n")
    check = (ROOT / "trio_nt" / "_scheduler_check.py").read_text()
    (tmp_path / "trio_nt" / "_scheduler_check.py").write_text(check)
    folder = tmp_path / "scheduler"
    if layout == "module":
        (tmp_path / "scheduler.py").write_text("import no_such_thing\n")
    else:
        folder.mkdir()
    if layout in ("package", "over ours"):
        (folder / "__init__.py").write_text("raise RuntimeError('it must not run')\n")
    if layout == "over ours":
        (folder / "lanes.py").write_text((ROOT / "scheduler" / "lanes.py").read_text())
    result = run(tmp_path)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: trio-nt needs its own package 'scheduler', but Python finds")
    assert "pip uninstall scheduler" in last


def test_a_missing_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "trio_nt").mkdir()
    (tmp_path / "trio_nt" / "__init__.py").write_text("import trio_nt._scheduler_check\n")
    check = (ROOT / "trio_nt" / "_scheduler_check.py").read_text()
    (tmp_path / "trio_nt" / "_scheduler_check.py").write_text(check)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {PROGRAM}"
    result = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=False, cwd="/")
    assert "ImportError: trio-nt's package 'scheduler' is missing" in result.stderr
