"""Settings of the runtime around the lanes: threads. The seed's names where Trio has a counterpart."""

from typing import Any

import attrs


def _whole_number(lowest: int) -> Any:
    def check(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{attribute.name} must be a whole number, was {value!r}")
        if value < lowest:
            raise ValueError(f"{attribute.name} must be at least {lowest}, was {value}")

    return check


def _thread_name(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be a string, was {value!r}")
    if not (value and value.isascii() and len(value) <= 15):
        raise ValueError(f"{attribute.name} must be 1 to 15 ASCII characters, the kernel's limit, was {value!r}")


def _stack_size(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if value is None:
        return
    _whole_number(32 * 1024)(_, attribute, value)
    if isinstance(value, int) and value % 4096:
        raise ValueError(f"{attribute.name} must be a multiple of 4096, was {value}")


@attrs.frozen(kw_only=True)
class RuntimeSettings:
    """How ``run_blocking`` uses threads.

    ``docs/explanation/scheduler.md`` says which of Tokio's runtime settings have no counterpart here, and why.

    Attributes:
        max_blocking_threads: threads of all lanes together, at least 5 (one a lane). CRITICAL and HIGH may take all of
            them, MEDIUM three quarters, LOW half and BACKGROUND a quarter.
        thread_name: of the threads while they work for the scheduler, at most 15 ASCII characters.
        thread_stack_size: bytes of stack for threads started while the scheduler is open, a multiple of 4096; ``None``
            leaves the platform's default. Process-wide, restored when the last scheduler that asked for it closes.
    """

    max_blocking_threads: int = attrs.field(default=512, validator=_whole_number(5))
    thread_name: str = attrs.field(default="nt-worker", validator=_thread_name)
    thread_stack_size: int | None = attrs.field(default=None, validator=_stack_size)
