"""What goes wrong between a venue and its clients, on purpose: decided from a seed, request by request.

Pure: it says what happens to request number n, and to each message of a stream; ``faulty.py`` lets it happen. The same
settings give the same decisions in the same order of requests. Nothing here makes the venue lie: whatever it answers
is true, and what it accepted stays accepted.

What may happen to a request (at most one of these, and a delay before it):

- ``drop_request``: it is never read by the venue; no answer comes, then the connection is cut.
- ``drop_response``: it takes effect; no answer comes, then the connection is cut.
- ``duplicate``: it arrives twice, as from a proxy that repeats; the answer is that of the first or of the second.
- ``reorder``: it is held back until a later request was answered, or for ``delay_s``.
- ``error``: 500, 502, 503 or 504, with the effect (half of them) or without.
- ``rate_limit``: 429 with the headers that say when to come back; no effect.
- ``reset``: it takes effect; a part of the answer comes, then the connection is reset.

What may happen to a message of a stream: ``stream_duplicate``, ``stream_reorder`` (it changes places with the next),
``stream_slow`` (it and all after it wait), ``disconnect`` (the connection breaks instead; what was on its way is lost).
The market-data stream has the last two alone: it is counted event by event.
A single message is never lost from a stream that goes on: no venue's stream does that.
"""

import random
import tomllib
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import attrs

from trio_nt.errors import InputError

WORDS = ("POST", "PATCH", "DELETE", "GET")


class FaultKind(Enum):
    DROP_REQUEST = "drop_request"
    DROP_RESPONSE = "drop_response"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    ERROR = "error"
    RATE_LIMIT = "rate_limit"
    RESET = "reset"


def _share(default: float = 0.0) -> Any:
    return attrs.field(default=default, converter=float, validator=[attrs.validators.ge(0), attrs.validators.le(1)])


def _seconds(default: float) -> Any:
    return attrs.field(default=default, converter=float, validator=[attrs.validators.ge(0), attrs.validators.le(60)])


@attrs.frozen(kw_only=True)
class FaultSettings:
    """How often what goes wrong. Shares are from 0 to 1, of the requests by ``methods`` or of a stream's messages.

    Attributes:
        delay: share of requests that wait up to ``delay_s`` first.
        silence_s: how long a dropped request or response leaves the client without a word before the cut.
        rate_limit_s: how long a 429 asks to stay away.
        slow_s: how long a slow stream stands still at most.

    Raises:
        ValueError: a share or a time out of its range, or shares that add up to more than 1.
    """

    seed: int = 0
    methods: Sequence[str] = attrs.field(default=WORDS, converter=tuple)
    delay: float = _share()
    delay_s: float = _seconds(0.05)
    drop_request: float = _share()
    drop_response: float = _share()
    duplicate: float = _share()
    reorder: float = _share()
    error: float = _share()
    rate_limit: float = _share()
    reset: float = _share()
    silence_s: float = _seconds(1.0)
    rate_limit_s: float = _seconds(1.0)
    stream_duplicate: float = _share()
    stream_reorder: float = _share()
    stream_slow: float = _share()
    disconnect: float = _share()
    slow_s: float = _seconds(0.1)

    def __attrs_post_init__(self) -> None:
        if unknown := [word for word in self.methods if word not in WORDS]:
            raise ValueError(f"methods must be of {', '.join(WORDS)}, had {unknown[0]!r}")
        for names in ([kind.value for kind in FaultKind], ["stream_duplicate", "stream_reorder", "disconnect"]):
            if sum(getattr(self, name) for name in names) > 1:
                raise ValueError(f"{', '.join(names)} must not add up to more than 1")

    @property
    def in_requests(self) -> bool:
        return any(getattr(self, name) for name in ("delay", *(kind.value for kind in FaultKind)))

    @property
    def in_streams(self) -> bool:
        return any((self.stream_duplicate, self.stream_reorder, self.stream_slow, self.disconnect))


@attrs.frozen
class RequestFault:
    """What happens to one request. ``choice`` settles what its kind leaves open, from 0 to 1."""

    kind: FaultKind | None = None
    delay_s: float = 0.0
    choice: float = 0.0


@attrs.frozen
class Delivery:
    """One message's fate in a stream: ``message`` None breaks the connection here."""

    message: bytes | None
    delay_s: float = 0.0


class Faults:
    """Decides. One for a venue; requests and each stream draw from generators of their own."""

    def __init__(self, settings: FaultSettings) -> None:
        self.settings = settings
        self._choose = random.Random(f"requests {settings.seed}")  # noqa: S311  # luck, not secrets
        self._streams = 0

    def of_request(self, method: str) -> RequestFault:
        """What happens to the next request."""
        settings, draw = self.settings, self._choose.random
        delayed, length, which, choice = draw(), draw(), draw(), draw()
        if method not in settings.methods:
            return _NO_FAULT
        delay_s = length * settings.delay_s if delayed < settings.delay else 0.0
        for kind in FaultKind:
            share = getattr(settings, kind.value)
            if which < share:
                return RequestFault(kind, delay_s, choice)
            which -= share
        return RequestFault(None, delay_s)

    def of_stream(self, *, repeats: bool = True) -> "StreamFaults":
        """The fates of the next stream's messages. Without ``repeats`` they only come slowly, or break off."""
        self._streams += 1
        settings = self.settings if repeats else attrs.evolve(self.settings, stream_duplicate=0, stream_reorder=0)
        return StreamFaults(settings, random.Random(f"stream {self._streams} {settings.seed}"))  # noqa: S311


class StreamFaults:
    """Decides about one stream's messages."""

    def __init__(self, settings: FaultSettings, choose: random.Random) -> None:
        self._settings = settings
        self._choose = choose
        self.is_broken = False

    def of_messages(self, messages: Sequence[bytes]) -> list[Delivery]:
        """What is sent instead of these. After a break nothing more is."""
        settings, draw = self._settings, self._choose.random
        sent: list[Delivery] = []
        waiting: Delivery | None = None  # changes places with the next
        for message in messages:
            if self.is_broken:
                break
            slow, length, which = draw(), draw(), draw()
            delivery = Delivery(message, length * settings.slow_s if slow < settings.stream_slow else 0.0)
            if which < settings.disconnect:
                self.is_broken = True
                sent.append(Delivery(None))
                break
            which -= settings.disconnect
            if which < settings.stream_reorder and waiting is None:
                waiting = delivery
                continue
            sent.append(delivery)
            if settings.stream_reorder <= which < settings.stream_reorder + settings.stream_duplicate:
                sent.append(Delivery(message))
            if waiting is not None:
                sent.append(waiting)
                waiting = None
        if waiting is not None and not self.is_broken:
            sent.append(waiting)
        return sent


_NO_FAULT = RequestFault()


def fault_settings(values: Mapping[str, object], where: str) -> FaultSettings:
    """Settings from a file or a command line.

    Raises:
        InputError: an unknown name or a wrong value; the message begins with ``where``.
    """
    known = [field.name for field in attrs.fields(FaultSettings)]
    for name, value in values.items():
        if name not in known:
            raise InputError(f"{where}: unknown fault {name!r}; known are {', '.join(known)}")
        wanted = list if name == "methods" else int if name == "seed" else (int, float)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise InputError(f"{where}: {name} must be a {'list' if name == 'methods' else 'number'}, was {value!r}")
    try:
        return FaultSettings(**values)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"{where}: {error.args[0]}") from error


def read_faults(text: str) -> FaultSettings:
    """``FILE.toml``, or settings in line: ``drop_response=0.1,error=0.05,seed=3``.

    Raises:
        InputError: the file cannot be read, or a setting is wrong.
    """
    if "=" in text:
        values: dict[str, object] = {}
        for part in text.split(","):
            name, _, number = part.partition("=")
            try:
                values[name.strip()] = int(number) if number.strip().isdigit() else float(number)
            except ValueError:
                raise InputError(f"--faults: {name.strip()} must be a number, was {number!r}") from None
        return fault_settings(values, "--faults")
    try:
        content = tomllib.loads(Path(text).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"--faults: {text}: {error}") from error
    return fault_settings(content, text)
