"""What the documentation shows runs as it is written."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_output import is_broken, without_long_steps

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "docs" / "examples").glob("*.py") if path.stem != "web")  # see test_hosts
FILE = re.compile(r"`(\w+\.py)`:\n\n```python\n(.*?)```", re.DOTALL)


def python(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=240
    )


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(tmp_path: Path, example: Path) -> None:
    result = python(tmp_path, str(example))
    assert (result.returncode, without_long_steps(result.stderr)) == (0, "")
    assert result.stdout


@pytest.mark.slow
def test_the_readmes_strategy_and_test_pass_as_typed_in(tmp_path: Path) -> None:
    files = dict(FILE.findall((ROOT / "README.md").read_text()))
    assert list(files) == ["my_strategy.py", "test_my_strategy.py"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    result = python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_strategy.py")
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout
    assert python(tmp_path, "-m", "trio_nt", "sample", "sample.csv").returncode == 0
    replayed = python(tmp_path, "-m", "trio_nt", "replay", "sample.csv", "--strategy", "my_strategy.py:Crossover",
                      "--set", "fast=5", "--orders", "orders.csv")  # fmt: skip
    assert replayed.returncode == 0, replayed.stderr
    assert (tmp_path / "orders.csv").stat().st_size > 1_000


@pytest.mark.slow
def test_the_commands_of_the_tutorial_work_one_after_the_other_in_an_empty_folder(tmp_path: Path) -> None:
    tutorial = (ROOT / "docs" / "tutorial" / "first-strategy.md").read_text()
    (configuration,) = re.findall(r"```toml\n(.*?)```", tutorial, re.DOTALL)
    commands = [line for block in re.findall(r"```text\n(.*?)```", tutorial, re.DOTALL) for line in block.splitlines()]
    assert [command.split()[:2] for command in commands] == [
        ["trio-nt", "init"], ["python", "-m"], ["trio-nt", "sample"], ["trio-nt", "replay"], ["trio-nt", "replay"],
        ["trio-nt", "run"], ["trio-nt", "run"],
    ]  # fmt: skip
    (tmp_path / "my_run.toml").write_text(configuration.replace("duration_s = 60", "duration_s = 2"))
    for command in commands:
        words = shlex.split(command.replace("--for 20", "--for 2"))
        program, arguments = words[0], words[1:]
        result = python(tmp_path, *(["-m", "trio_nt"] if program == "trio-nt" else []), *arguments)
        code = 1 if "BROKEN" in result.stdout else 0
        assert (result.returncode, without_long_steps(result.stderr)) == (code, ""), (command, result.stdout)
        assert not is_broken(result.stdout), (command, result.stdout)


def test_the_tutorial_shows_what_init_writes() -> None:
    from trio_nt.scaffold import _STRATEGY, _TEST

    tutorial = (ROOT / "docs" / "tutorial" / "first-strategy.md").read_text()
    first, second = re.findall(r"```python\n(.*?)```", tutorial, re.DOTALL)

    def code(text: str) -> list[str]:
        lines = re.sub(r'""".*?"""', "", text, flags=re.DOTALL).splitlines()
        return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]

    assert code(first) == code(_STRATEGY)
    assert code(second) == code(_TEST.format(module="my_strategy"))[: len(code(second))]


def test_links_between_the_documents_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        if "_build" not in page.parts
        for link in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert broken == []
