"""What a strategy remembers beyond its life, as bytes: from its ``save_state`` to its ``restore_state``. Pure.

A mapping is kept as JSON, bytes as they are. The first byte says which.
"""

import json
from collections.abc import Mapping
from typing import Any, Protocol

from trio_nt.errors import InputError

MAX_STATE_BYTES = 5_000_000  # Source: the seed, "Memory".
_BYTES, _JSON = b"b", b"j"


class StateStore(Protocol):
    """Keeps states across runs. Its calls block, and are made in a thread."""

    def load(self, strategy_id: str) -> bytes | None: ...
    def save(self, strategy_id: str, state: bytes) -> None: ...


def encode_state(state: object) -> bytes:
    """What ``save_state`` returned, to be kept.

    Raises:
        TypeError: neither bytes nor a mapping of what JSON holds.
    """
    if isinstance(state, (bytes, bytearray, memoryview)):
        return _BYTES + bytes(state)
    if not isinstance(state, Mapping):
        raise TypeError(f"save_state must return bytes, a mapping or None, returned {state!r}")
    if strange := [key for key in state if not isinstance(key, str)]:
        raise TypeError(f"the keys of a state must be texts, one was {strange[0]!r}")
    return _JSON + json.dumps(dict(state), separators=(",", ":")).encode()


def decode_state(kept: bytes) -> bytes | dict[str, Any]:
    """What ``restore_state`` is given.

    Raises:
        InputError: it is not what ``encode_state`` made.
    """
    kind, payload = kept[:1], kept[1:]
    if kind == _BYTES:
        return payload
    try:
        if kind != _JSON:
            raise ValueError(f"it starts with {kind!r}")
        value = json.loads(payload)
    except ValueError as error:
        raise InputError(f"the saved state cannot be read: {error}") from error
    assert isinstance(value, dict)
    return value
