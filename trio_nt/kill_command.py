"""``trio-nt kill``: finds the account, then throws the kill switch (``kill.py``) or releases it."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import attrs
import trio

from trio_nt.brokers import URLS, keys_for
from trio_nt.clock import wall_clock_ns
from trio_nt.errors import ExecutionError, InputError, JournalError
from trio_nt.execution.alpaca import open_alpaca
from trio_nt.journal_files import account_journal, is_in_use, journals_in_use, state_folder
from trio_nt.kill import KillResult, kill
from trio_nt.model.instruments import Instruments
from trio_nt.storage.reading import halted_because, mark_halted, read_about

DEADLINE_S = 10.0


@attrs.frozen
class Target:
    """One account: its broker's address, and its journal where there is one."""

    url: str
    journal: Path | None
    broker: str = ""  # where the journal is found by the account's number


def find_target(broker: str | None, journal: Path | None) -> Target:
    """What the options name; without any, the account of the only engine that runs now.

    Raises:
        InputError: they name nothing, or several engines run.
        JournalError: the journal does not say which account it is of.
    """
    if broker is not None:
        if broker not in URLS:
            raise InputError(
                f"--broker must be one of {', '.join(URLS)}, was {broker!r}; "
                "the engine of a simulated market is found without it, or by --journal"
            )
        return Target(URLS[broker], journal, broker)
    if journal is None:
        journal = _only(journals_in_use(state_folder()))
    elif not journal.is_file():
        raise InputError(f"--journal {journal}: there is no such file")
    url = read_about(journal).get("broker", "")
    if not url:
        raise JournalError(f"the journal {journal} does not say where its account is: name it with --broker")
    return Target(url, journal)


def _only(running: Sequence[Path]) -> Path:
    if not running:
        raise InputError("no engine of yours runs now; --broker or --journal names an account all the same")
    if len(running) > 1:
        raise InputError(f"several engines run; name one: {' or '.join(f'--journal {path}' for path in running)}")
    return running[0]


def run_kill(target: Target, *, flatten: bool, reason: str) -> KillResult:
    """Stop trading on an account, whatever state its engine is in. Blocking: its own Trio run.

    Raises:
        InputError: there are no keys for the account.
    """
    return trio.run(_kill, target, flatten, reason)


async def _kill(target: Target, flatten: bool, reason: str) -> KillResult:
    key, secret = keys_for(target.url)
    async with open_alpaca(
        target.url, Instruments(), unix_s=lambda: wall_clock_ns() / 1e9, key=key, secret=secret
    ) as broker:
        journal = target.journal
        if journal is None:
            # The cancels matter more than the journal: without an answer they are tried all the same.
            with trio.move_on_after(2), contextlib.suppress(ExecutionError):
                account = await broker.account()
                found = account_journal(target.broker, account.number, state_folder())
                journal = found if found.is_file() else None
        return await kill(
            broker, now_ns=wall_clock_ns, journal=journal, reason=reason, flatten=flatten, deadline_s=DEADLINE_S
        )


def format_result(result: KillResult) -> str:
    """What was done and what could not be, a line each."""
    lines = [f"journal: {result.journal or 'none found'}"]
    lines.append(f"cancelled: {len(result.cancelled)} orders")
    if result.closed:
        lines.append(f"closed: {', '.join(result.closed)}")
    lines += [f"STILL OPEN: {each}" for each in result.left_open]
    lines += [f"problem: {each}" for each in result.problems]
    lines.append(f"{'done' if result.is_complete else 'NOT COMPLETE'} after {result.took_s:.2f} s")
    if result.journal == "HALTED":
        lines.append("nothing is sent until a person has looked and says: trio-nt kill --release")
    return "\n".join(lines) + "\n"


def release(journal: Path | None, reason: str) -> str:
    """Let the next engine on a journal trade again: a person's act. What was done, in a line.

    Raises:
        InputError: there is no such journal, or several are HALTED.
        JournalError: it cannot be read or written.
    """
    if journal is None:
        folder = state_folder()
        halted = [path for path in sorted(folder.glob("*.sqlite")) if halted_because(path)]
        if len(halted) != 1:
            listed = " or ".join(f"--journal {path}" for path in halted)
            raise InputError(f"several journals are HALTED; name one: {listed}" if halted else
                             f"no journal in {folder} is HALTED; --journal names another")  # fmt: skip
        journal = halted[0]
    elif not journal.is_file():
        raise InputError(f"--journal {journal}: there is no such file")
    why = halted_because(journal)
    if not why:
        return f"{journal} was not HALTED\n"
    mark_halted(journal, reason, wall_clock_ns(), halted=False)
    again = "; the engine that has it open stays halted until it is started again" if is_in_use(journal) else ""
    return f"{journal} is released (it was HALTED: {why}){again}\n"
