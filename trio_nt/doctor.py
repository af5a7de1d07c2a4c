"""``trio-nt doctor``: what this machine and installation can do, and what to do where they fall short."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO


class Finding(NamedTuple):
    """``ok``: True, False, or None where it merely costs something. ``advice`` may be empty."""

    name: str
    ok: bool | None
    found: str
    advice: str = ""


def examine(stream: TextIO) -> int:
    """Write the findings; 1 when one of them keeps the engine from running."""
    failed = False
    for examination in (_python, _scheduler, _packages, _kernels, _cores, _clock, _sleep, _loopback, _folder):
        for finding in examination():
            mark = {True: "ok", None: "note", False: "FAILS"}[finding.ok]
            stream.write(f"{mark:<6} {finding.name:<18} {finding.found}\n")
            if finding.advice:
                stream.write(f"{'':<6} {'':<18} -> {finding.advice}\n")
            failed |= finding.ok is False
    return 1 if failed else 0


def _python() -> Iterator[Finding]:
    enough = sys.version_info >= (3, 11)
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    yield Finding(
        "Python", enough, f"{platform.python_version()} at {sys.executable}", "" if enough else "use 3.11 or newer"
    )
    yield Finding("platform", None if sys.platform != "linux" else True, platform.platform())
    if not gil:
        yield Finding("GIL", None, "disabled", "untested: use the ordinary build")


def _scheduler() -> Iterator[Finding]:
    from trio_nt._scheduler_check import check_scheduler

    try:
        check_scheduler()
    except ImportError as error:
        yield Finding("scheduler", False, str(error))
    else:
        yield Finding("scheduler", True, "our own")


def _packages() -> Iterator[Finding]:
    try:
        requirements = importlib.metadata.requires("trio-nt") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("packages", None, "trio-nt runs from its source folder", "pip install -e . installs it")
        return
    versions, missing = [], []
    for requirement in requirements:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        if "extra ==" in requirement:
            continue
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding("packages", True, ", ".join(versions))
    if missing:
        yield Finding("packages", False, f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")


def _kernels() -> Iterator[Finding]:
    if importlib.util.find_spec("numba") is not None:
        yield Finding("feature kernels", True, f"compiled by numba {importlib.metadata.version('numba')}")
    else:
        yield Finding("feature kernels", None, "interpreted", "pip install 'trio-nt[compiled]' makes features faster")


def _cores() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    advice = "" if cores >= 2 else "the simulated venue wants a core of its own: latencies will be worse"
    yield Finding("cores", True if cores >= 2 else None, f"{cores} usable", advice)


def _clock() -> Iterator[Finding]:
    steps = [_step(time.perf_counter_ns) for _ in range(200)]
    step = sorted(steps)[len(steps) // 2]
    ok = True if step <= 1_000 else None
    yield Finding("clock", ok, f"perf_counter steps of {step} ns", "" if ok else "latency figures will be coarse")


def _step(clock: Callable[[], int]) -> int:
    start = clock()
    while (now := clock()) == start:
        pass
    return now - start


def _sleep() -> Iterator[Finding]:
    """How late the machine wakes us: it bounds every live latency from below."""
    never, late = threading.Event(), []
    for _ in range(50):
        start = time.perf_counter_ns()
        never.wait(0.001)
        late.append(time.perf_counter_ns() - start - 1_000_000)
    late.sort()
    p50, worst = late[len(late) // 2] // 1000, late[-1] // 1000
    ok = True if worst < 5_000 else None
    yield Finding(
        "timer", ok, f"wakes {p50} µs late, at worst {worst} µs", "" if ok else "the machine is busy or throttled"
    )


def _loopback() -> Iterator[Finding]:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 1):
            yield Finding("loopback", True, "the simulated venue can be reached")
    except OSError as error:
        yield Finding("loopback", False, str(error), "`run` starts a simulated venue on 127.0.0.1; allow local sockets")


def _folder() -> Iterator[Finding]:
    try:
        with tempfile.NamedTemporaryFile(dir=Path.cwd()):
            yield Finding("current folder", True, f"{Path.cwd()} can be written")
    except OSError:
        yield Finding("current folder", None, f"{Path.cwd()} may not be written", "write results elsewhere")
