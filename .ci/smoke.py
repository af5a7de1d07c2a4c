"""The installed wheel as a user meets it: run by ``.ci/run`` in an empty folder with the wheel's own interpreter."""

import subprocess
import sys
from pathlib import Path

COMMANDS = [
    ["--version"],
    ["--help"],
    ["run", "--help"],
    ["doctor"],
    ["sample", "sample.csv"],
    ["replay", "sample.csv", "--orders", "first.csv", "--json", "report.json"],
    ["replay", "sample.csv", "--orders", "second.csv", "--check-causality"],
    ["init", "my_strategy.py"],
    ["replay", "sample.csv", "--strategy", "my_strategy.py:Crossover", "--set", "fast=5"],
    # Slow averages: quick ones trade hundreds of times a second there, more than a busy machine may be able to.
    ["run", "--for", "3", "--strategy", "my_strategy.py:Crossover", "--set", "fast=200", "--set", "slow=800"],
]


def main(environment: Path) -> None:
    import scheduler
    import trio_nt

    for module in (trio_nt, scheduler):
        assert module.__file__ is not None
        assert Path(module.__file__).is_relative_to(environment), f"{module.__name__} came from {module.__file__}"
        assert Path(module.__file__).with_name("py.typed").exists(), f"{module.__name__} has no py.typed"
    program = environment / "bin" / "trio-nt"
    for command in COMMANDS:
        print("trio-nt", *command, flush=True)
        subprocess.run([program, *command], check=True, stdout=subprocess.DEVNULL, timeout=240)
    assert Path("first.csv").read_bytes() == Path("second.csv").read_bytes() != b"", "two replays differ"
    subprocess.run([sys.executable, "-m", "pytest", "-q", "test_my_strategy.py"], check=True, timeout=240)
    wrong = subprocess.run([program, "replay", "gone.csv"], check=False, capture_output=True, text=True, timeout=240)
    assert wrong.returncode == 2, wrong
    assert wrong.stderr == "trio-nt: error: gone.csv: No such file or directory\n", wrong.stderr


if __name__ == "__main__":
    main(Path(sys.argv[1]))
