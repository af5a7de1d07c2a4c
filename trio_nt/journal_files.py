"""Where the journals of ``trio-nt run`` stand, and which engines use them now.

``$XDG_STATE_HOME/trio-nt`` (without it ``~/.local/state/trio-nt``) holds ``BROKER-ACCOUNT.sqlite`` for each account of
a broker, and in ``simulated/`` one file for each run against a simulated venue: such a venue ends with its run, so that
no later run could go on from its orders. Of these the last ``KEEP_SIMULATED`` stay.
"""

import fcntl
import os
import re
from collections.abc import Mapping
from pathlib import Path

from trio_nt.storage.locks import lock_of

KEEP_SIMULATED = 20
SUFFIX = ".sqlite"


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The current user's folder for what programs must remember."""
    base = environment.get("XDG_STATE_HOME", "")
    # The specification tells us to ignore a relative path.
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "trio-nt"


def account_journal(broker: str, account: str, folder: Path) -> Path:
    """The journal of one account of a broker."""
    return folder / (re.sub(r"[^A-Za-z0-9.-]+", "_", f"{broker}-{account}") + SUFFIX)


def simulated_journal(started_ns: int, folder: Path) -> Path:
    """A new journal for one run against a simulated venue; old ones that nobody uses are deleted.

    Raises:
        OSError: an old one cannot be deleted.
    """
    folder /= "simulated"
    old = sorted(path for path in folder.glob(f"*{SUFFIX}") if not is_in_use(path)) if folder.is_dir() else []
    for path in old[: max(0, len(old) - KEEP_SIMULATED + 1)]:
        for each in (path, lock_of(path), *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
            each.unlink(missing_ok=True)
    return folder / f"{started_ns}-{os.getpid()}{SUFFIX}"


def journals_in_use(folder: Path) -> list[Path]:
    """Journals in the folder that an engine has open now."""
    return [path for path in sorted(folder.rglob(f"*{SUFFIX}")) if is_in_use(path)]


def is_in_use(journal: Path) -> bool:
    """Whether an engine, or the writer that it left behind, has a journal open."""
    try:
        descriptor = os.open(lock_of(journal), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
