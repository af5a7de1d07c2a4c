"""One engine per journal and per account: locks that the kernel takes back when their holders die."""

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trio_nt.errors import JournalError


def account_lock_path(account: str, folder: Path | None = None) -> Path:
    """Where the lock of an account stands on this machine."""
    if folder is None:
        folder = Path(tempfile.gettempdir()) / f"trio-nt-{os.getuid()}"
    return folder / (re.sub(r"[^A-Za-z0-9.-]+", "_", account) + ".account.lock")


def lock_of(journal: Path) -> Path:
    """Where the lock of a journal stands."""
    return journal.with_name(journal.name + ".lock")


@contextmanager
def hold(path: Path, what: str) -> Iterator[int]:
    """Hold a lock file; its descriptor, which a child may inherit to hold the lock as well.

    Raises:
        JournalError: somebody else holds it; the message says who.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise JournalError(f"{what} is in use by another engine (process {holder})") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)
