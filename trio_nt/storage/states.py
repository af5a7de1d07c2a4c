"""Saved states of strategies: a file each in one folder, replaced as a whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote

from trio_nt.errors import EnvironmentFailure, InputError, JournalError
from trio_nt.storage.locks import hold

_MAGIC = b"trio-nt state 1\n"
_DIGEST_BYTES = 16
SUFFIX = ".state"


class StateFolder:
    """The states in a folder, by strategy. Its calls block.

    A file holds a line that names its format, a checksum, and the state. It is written beside the old one, synced to
    the disk and then renamed over it: whenever the machine stops, one of the two is there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, strategy_id: str) -> bytes | None:
        """The last state saved; None where there is none.

        Raises:
            InputError: the file is damaged, or no file of states.
            EnvironmentFailure: it cannot be read.
        """
        path = self._path(strategy_id)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EnvironmentFailure(f"{path}: {error.strerror}") from error
        digest, state = content[len(_MAGIC) :][:_DIGEST_BYTES], content[len(_MAGIC) + _DIGEST_BYTES :]
        if not content.startswith(_MAGIC):
            raise InputError(f"{path}: is no saved state of a strategy")
        if digest != _digest(state):
            raise InputError(f"{path}: is damaged; without it the strategy starts as if it had saved nothing")
        return state

    def save(self, strategy_id: str, state: bytes) -> None:
        """Replace the state of a strategy. On an error the old one stays.

        Raises:
            EnvironmentFailure: it cannot be written.
        """
        path = self._path(strategy_id)
        beside = path.with_name(f"{path.name}.new")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_MAGIC + _digest(state) + state)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            self._sync_folder()
        except OSError as error:
            raise EnvironmentFailure(f"{path}: {error.strerror}") from error

    def _path(self, strategy_id: str) -> Path:
        return self.folder / (quote(strategy_id, safe=" ") + SUFFIX)

    def _sync_folder(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def open_state_folder(folder: Path) -> Iterator[StateFolder]:
    """The states in a folder, made where it is not there; locked while the block runs.

    Raises:
        EnvironmentFailure: it cannot be made or written, or another engine uses it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(folder / "lock", f"the folder of saved states {folder}"))
        except OSError as error:
            raise EnvironmentFailure(f"{folder}: {error.strerror}") from error
        except JournalError as error:
            raise EnvironmentFailure(str(error)) from error
        yield StateFolder(folder)


def _digest(state: bytes) -> bytes:
    return blake2b(state, digest_size=_DIGEST_BYTES).digest()
