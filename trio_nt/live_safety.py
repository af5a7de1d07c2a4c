"""What keeps a run of ``trio-nt run`` safe: its journal, the kill switch by signal, the watchdog."""

import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from trio_nt.clock import wall_clock_ns
from trio_nt.config import RunConfig
from trio_nt.engine import Engine
from trio_nt.errors import EnvironmentFailure, InputError
from trio_nt.journal_files import account_journal, simulated_journal, state_folder
from trio_nt.storage.durable import DurableJournal, open_journal
from trio_nt.watchdog import Watched, open_watchdog

DAY_S = 86_400.0


def journal_path(config: RunConfig, account: str) -> Path:
    """Where a run records its orders.

    Raises:
        InputError: the file that was asked for is there already, and the market is a simulated one.
        EnvironmentFailure: the folder for state cannot be used.
    """
    file = config.journal.file
    if config.broker != "sim":
        return file or account_journal(config.broker, account, state_folder())
    if file is not None:
        if file.exists():
            raise InputError(
                f"journal {file}: is there already, and a simulated market starts anew with every run; "
                "delete it or name another"
            )
        return file
    try:
        return simulated_journal(wall_clock_ns(), state_folder())
    except OSError as error:
        raise EnvironmentFailure(f"journals in {state_folder()}: {error.strerror}; --journal names a file") from error


@asynccontextmanager
async def open_run_journal(config: RunConfig, url: str, account: str) -> AsyncIterator[DurableJournal]:
    """The journal of a run.

    Raises:
        JournalError: it is in use, damaged, or cannot be written.
        EnvironmentFailure: it is HALTED: a person must release it first.
    """
    path = journal_path(config, account)
    keep_s = config.journal.keep_days * DAY_S or None
    async with open_journal(path, account=f"{url} {account}", broker=url, keep_s=keep_s) as journal:
        if journal.halted:
            raise EnvironmentFailure(
                f"the journal {path} is HALTED ({journal.halted}): look at orders and positions at the broker, then "
                f"trio-nt kill --release --journal {path}"
            )
        yield journal


@asynccontextmanager
async def open_run_watchdog(config: RunConfig, url: str, journal: Path) -> AsyncIterator[None]:
    """The watchdog, where one is asked for."""
    if config.watchdog_s is None:
        yield
        return
    async with open_watchdog(Watched(url, str(journal), config.watchdog_s)):
        yield


async def kill_on_signal(engine: Engine) -> None:
    """SIGUSR1: the kill switch; SIGUSR2: it, and every position is closed. For ever; only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return
    with trio.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
        async for number in signals:
            await engine.halt(f"signal {signal.Signals(number).name}")
            if number == signal.SIGUSR2:
                await engine.flatten()
