"""``trio_nt.live.run`` against the venue in its own process."""

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from trio_nt import live
from trio_nt.config import RunConfig, StrategyConfig
from trio_nt.errors import EnvironmentFailure
from trio_nt.report import Report
from trio_nt.strategies.examples import EmaCrossover

pytestmark = pytest.mark.slow


def children() -> list[str]:
    """Processes that this one has started and that have not ended, with their states."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == os.getpid():
            found.append(f"{entry} {state}")
    return found


def config(**settings: Any) -> RunConfig:
    strategies = (StrategyConfig(id="crossover", strategy=EmaCrossover()),)
    return RunConfig(strategies=strategies, events_per_second=2_000, **settings)


class StopAfter:
    """Asks for the end from a thread of its own, as a signal handler would."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def add_listener(self, listener: Callable[[], object]) -> None:
        threading.Timer(self.seconds, listener).start()


def check(name: str, report: Report) -> Any:
    (found,) = [each for each in report.checks if each.name == name]
    return found


def test_two_seconds_against_the_venue_lose_nothing() -> None:
    before = children()
    report = live.run(config(duration_s=2))
    assert report.ok, report.checks
    sent = check("events sent by the venue = received", report)
    assert sent.left == sent.right
    assert int(sent.left.replace(",", "")) > 2_000
    assert children() == before


def test_a_stop_request_ends_a_run_with_its_report() -> None:
    before = children()
    report = live.run(config(duration_s=60), stop=StopAfter(3))
    assert report.ok, report.checks
    assert children() == before


def test_a_venue_that_cannot_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    before = children()
    opened = live.open_exchange_process
    monkeypatch.setattr(live, "open_exchange_process", lambda **settings: opened(**settings, port=1 << 20))
    with pytest.raises((EnvironmentFailure, ExceptionGroup)) as caught:
        live.run(config(duration_s=1))
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, EnvironmentFailure)
    assert "the simulated venue did not start: " in str(error)
    assert len(str(error).splitlines()) == 1
    assert children() == before
