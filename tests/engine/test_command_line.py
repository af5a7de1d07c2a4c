"""The commands as a user types them, in processes of their own."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_output import without_long_steps

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def trio_nt(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "trio_nt", *arguments],
        cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    assert trio_nt(folder, "sample", "sample.csv").returncode == 0
    assert trio_nt(folder, "init", "my_strategy.py").returncode == 0
    return folder


@pytest.mark.slow
def test_the_strategy_that_init_writes_passes_its_test_and_replays(folder: Path) -> None:
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_strategy.py"]
    result = subprocess.run(tests, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    replayed = trio_nt(folder, "replay", "sample.csv", "--strategy", "my_strategy.py:Crossover", "--set", "fast=5",
                       "--set", "slow=15", "--check-causality")  # fmt: skip
    assert replayed.returncode == 0, replayed.stderr
    assert "orders in batches = orders row by row" in replayed.stdout
    assert replayed.stderr == ""


@pytest.mark.slow
def test_a_replay_writes_the_same_orders_every_time_and_its_report(folder: Path) -> None:
    for name in ("first.csv", "second.csv"):
        result = trio_nt(folder, "replay", "sample.csv", "--orders", name, "--json", "report.json")
        assert result.returncode == 0, result.stderr
    assert (folder / "first.csv").read_bytes() == (folder / "second.csv").read_bytes()
    report = json.loads((folder / "report.json").read_text())
    orders = (folder / "first.csv").read_text().splitlines()
    assert len([line for line in orders if line.startswith("order,")]) == len(report["orders"]) > 0
    assert report["ok"] is True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["replay"], 2, "replay needs at least one FILE"),
        (["replay", "gone.csv"], 2, "gone.csv: No such file or directory"),
        (["replay", "my_strategy.py"], 2, "my_strategy.py: line 1: "),
        (["replay", "sample.csv", "--strategy", "gone.py:X"], 2, "strategy file gone.py is not there"),
        (["replay", "sample.csv", "--set", "fats=1"], 2, "--set fats=1: no strategy has a field 'fats'"),
        (["replay", "sample.csv", "--set", "fast=x"], 2, "--set: fast=x: must be a whole number, was 'x'"),
        (["replay", "sample.csv", "--set", "quantity=-1"], 2, "strategy EmaCrossover: ValueError: "),
        (["replay", "sample.csv", "--cash", "100USD"], 2, "--cash 100USD: '100USD' is no number"),
        (["replay", "sample.csv", "--cash", "USD=1,USD=2"], 2, "--cash USD=1,USD=2: USD is given twice"),
        (["replay", "sample.csv", "--fees", "5"], 2, "--fees 5: a fee is a fraction of the notional"),
        (["replay", "sample.csv", "--fees", "0,0,0"], 2, "--fees 0,0,0: must be one fraction, or MAKER,TAKER"),
        (["replay", "sample.csv", "--order-latency-ms", "-1"], 2, "--order-latency-ms must be at least 0 ms, was -1.0"),
        (["replay", "sample.csv", "--order-latency-ms", "x"], 2, "Invalid value"),
        (["replay", "sample.csv", "--orders", "no/such/folder.csv"], 2, "--orders no/such/folder.csv: there is no"),
        (["replay", "sample.csv", "--json", "."], 2, "--json .: is a folder"),
        (["replay", "sample.csv", "--orders", "/proc/version"], 1, "--orders /proc/version: may not be written"),
        (["replay", "sample.csv", "--instruments", "gone.toml"], 2, "gone.toml"),
        (["replay", "sample.csv", "--no-such-option"], 2, "Unknown option"),
        (["run", "gone.toml"], 2, "gone.toml: No such file or directory"),
        (["run", "--for", "0"], 2, "--for must be above 0, was 0.0"),
        (["run", "--broker", "moon"], 2, "--broker must be one of sim, alpaca-paper, alpaca-live, was 'moon'"),
        (["exchange", "--port", "99999"], 2, "exchange: 'port' must be <= 65535"),
        (["init", "my_strategy.py"], 2, "my_strategy.py is there already and is not overwritten"),
        (["init", "my-strategy.py"], 2, "my-strategy.py: the name must be that of a Python module"),
        (["sample", "my_strategy.py"], 2, "my_strategy.py: exists already and is not overwritten"),
        (["bench"], 2, "no benchmarks in "),
        (["fly"], 2, 'Unknown command "fly"'),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_an_exit_code(folder: Path, arguments: list[str], code: int, message: str) -> None:
    if code == 1 and os.access("/proc/version", os.W_OK):
        pytest.skip("the superuser may write anything")
    result = trio_nt(folder, *arguments)
    assert result.returncode == code, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith(f"trio-nt: error: {message}")
    assert result.stdout == ""


@pytest.mark.slow
def test_a_port_in_use_is_named(folder: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = trio_nt(folder, "exchange", "--port", port, "--for", "5")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
    assert port in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [[], ["run"], ["replay"], ["exchange"], ["init"], ["sample"], ["bench"], ["doctor"]]
)
def test_help_is_there_for_every_command(folder: Path, command: list[str]) -> None:
    result = trio_nt(folder, *command, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: trio-nt" + "".join(f" {word}" for word in command))


def start_run(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "trio_nt", "run", *arguments],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def until_it_catches_signals(pid: int) -> None:
    """SIGTERM tells: Python itself does not catch it, and a runner in the background starts us with SIGINT ignored."""
    while True:
        caught = re.search(r"SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
        if caught is not None and int(caught[1], 16) >> signal.SIGTERM - 1 & 1:
            return
        time.sleep(0.05)


@pytest.mark.slow
def test_ctrl_c_ends_a_run_with_its_report(folder: Path) -> None:
    with start_run(folder) as process:
        until_it_catches_signals(process.pid)
        time.sleep(4)
        process.send_signal(signal.SIGINT)
        report, errors = process.communicate(timeout=120)
    assert (process.returncode, without_long_steps(errors)) == (0, "")
    assert "events sent by the venue = received" in report
    assert "BROKEN" not in report


@pytest.mark.slow
def test_a_second_ctrl_c_ends_it_at_once(folder: Path) -> None:
    program = (
        "import os, signal, time\n"
        "from trio_nt.interrupt import stop_on_interrupt\n"
        "with stop_on_interrupt() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(stop.requested, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('still here')\n"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=240)
    assert (result.returncode, result.stdout, result.stderr) == (130, "True\n", "")


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal_alone(folder: Path) -> None:
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "trio_nt", "run", "--for", "2"]
    result = subprocess.run(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=child, check=False, timeout=240
    )
    os.close(child)
    shown = os.read(parent, 100_000).decode()
    os.close(parent)
    assert result.returncode == 0
    assert "events" in shown
    assert shown.endswith("\r\x1b[K")
    assert b"\x1b" not in result.stdout
