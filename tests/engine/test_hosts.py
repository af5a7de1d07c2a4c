"""Engines inside Trio, asyncio and threads, and ``trio-nt run``: however they end, nothing of them is left."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from command_output import without_long_steps

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MARK = "TRIO_NT_TEST_MARK"

pytestmark = pytest.mark.slow


def start(folder: Path, *command: str) -> "tuple[subprocess.Popen[str], str]":
    """A Python process whose children can be told by a mark in their environment."""
    mark = secrets.token_hex(8)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}", MARK: mark}
    process = subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    return process, mark


def marked(mark: str) -> list[str]:
    """Command lines of the processes that carry a mark."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
            command = Path(f"/proc/{entry}/cmdline").read_text()
        except OSError:
            continue
        if f"{MARK}={mark}".encode() in environment.split(b"\0"):
            found.append(command.replace("\0", " "))
    return found


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm"))


def until(condition: object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


RAISED = {
    ("trio", "cancel"): [],
    ("guest", "cancel"): ["CancelledError"],
    ("asyncio", "cancel"): ["CancelledError"],
    ("thread", "cancel"): [],
}


@pytest.mark.parametrize("host", ["trio", "guest", "asyncio", "thread"])
@pytest.mark.parametrize("ending", ["end", "cancel", "error", "crash", "interrupt"])
def test_a_host_is_left_as_it_was(tmp_path: Path, host: str, ending: str) -> None:
    process, mark = start(tmp_path, str(HERE / "host_programs.py"), host, ending, str(tmp_path))
    with process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        assert lines == ["ready\n"], process.communicate(timeout=60)
        if ending == "interrupt":
            assert len(marked(mark)) > 1  # the journal's writer
            process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    told = json.loads(output)
    by_ending = {"end": [], "error": ["ValueError"], "crash": ["ConnectionError"], "interrupt": ["KeyboardInterrupt"]}
    assert told == {"raised": RAISED.get((host, ending), by_ending.get(ending)), "left": {}}
    assert marked(mark) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_leaves_nothing(tmp_path: Path, number: int) -> None:
    before = shared_memory()
    process, mark = start(tmp_path, "-m", "trio_nt", "run", "--json", "report.json")
    with process:
        until(lambda: len(marked(mark)) == 2)  # the venue
        time.sleep(2)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, without_long_steps(errors)) == (0, "")
    assert "BROKEN" not in output
    assert json.loads((tmp_path / "report.json").read_text())["ok"] is True
    assert marked(mark) == []
    assert shared_memory() - before == set()
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]


def test_a_run_that_is_interrupted_while_it_starts_or_killed_leaves_no_process(tmp_path: Path) -> None:
    for number, code in ((signal.SIGINT, (0, 130)), (signal.SIGKILL, (-9,))):
        process, mark = start(tmp_path, "-m", "trio_nt", "run", "--for", "60")
        with process:
            until(lambda mark=mark: len(marked(mark)) == 2)  # the venue is there, the engine is not yet
            process.send_signal(number)
            process.communicate(timeout=60)
        assert process.returncode in code
        until(lambda mark=mark: marked(mark) == [], 10)


def test_the_web_example_serves_a_running_engine_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process, mark = start(tmp_path, str(ROOT / "docs" / "examples" / "web.py"), str(port))
    with process, httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:

        def answers() -> bool:
            try:
                return bool(client.get("/statistics").json()["fills"])
            except httpx.TransportError:
                return False

        until(answers, 60)
        seen = set()
        with client.stream("GET", "/events") as response:
            for line in response.iter_lines():
                seen.add(json.loads(line)["event"])
                if seen >= {"Accepted", "Filled"}:
                    break
        assert client.get("/portfolio").json().keys() <= {"ABC"}
        assert client.post("/halt").json() == {"halted": True}
        orders = client.get("/statistics").json()["orders"]
        rows = client.get("/statistics").json()["rows"]
        until(lambda: client.get("/statistics").json()["rows"] > rows + 50)
        assert client.get("/statistics").json()["orders"] == orders
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors, errors
    assert marked(mark) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
