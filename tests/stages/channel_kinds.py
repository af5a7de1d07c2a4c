"""Every kind of channel behind one face, so that one contract suite runs over all of them.

Values are integers 0, 1, 2, …; ``take`` returns the list of values that one receive gave.
"""

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import trio

from scheduler import Backpressure, open_broadcast, open_mailbox

GENTLE = Backpressure(high_watermark=0.75, low_watermark=0.25, send_timeout_s=1e6)


@attrs.frozen
class Kind:
    """How a channel of this kind is opened, sent to and received from.

    ``room`` is how many single values fit without anybody receiving.
    """

    name: str
    open: Callable[[int], tuple[Any, Any]]
    send: Callable[[Any, int], Any]
    send_nowait: Callable[[Any, int], None]
    take: Callable[[Any], Any]
    take_nowait: Callable[[Any], list[int]]
    room: Callable[[int], int] = lambda capacity: capacity

    def __str__(self) -> str:
        return self.name


def _open_ring(policy: str = "lossless", **settings: Any) -> Callable[[int], tuple[Any, Any]]:
    def opened(capacity: int) -> tuple[Any, Any]:
        sender, receiver = open_broadcast(capacity, {"value": "i8", "half": "f8"}, **settings)
        if policy != "lossless":
            receiver.close()
            receiver = sender.subscribe(policy, key="value" if policy == "conflating" else None)
        return sender, receiver

    return opened


def _rows(value: int) -> dict[str, Any]:
    return {"value": np.array([value]), "half": value / 2}


def _values(batch: Any) -> list[int]:
    assert (batch["half"] * 2 == batch["value"]).all()
    return batch["value"].tolist()


async def _receive_rows(receiver: Any) -> list[int]:
    return _values(await receiver.receive())


def _ring(name: str, **settings: Any) -> Kind:
    room = (
        (lambda capacity: max(1, int(capacity * 0.75))) if "backpressure" in settings else (lambda capacity: capacity)
    )
    return Kind(
        name,
        _open_ring(**settings),
        lambda sender, value: sender.send(_rows(value)),
        lambda sender, value: sender.send_nowait(_rows(value)),
        _receive_rows,
        lambda receiver: _values(receiver.receive_nowait()),
        room,
    )


async def _receive_one(receiver: Any) -> list[int]:
    return [await receiver.receive()]


MAILBOX = Kind(
    "mailbox",
    lambda capacity: open_mailbox(capacity),
    lambda sender, value: sender.send(value),
    lambda sender, value: sender.send_nowait(value),
    _receive_one,
    lambda receiver: [receiver.receive_nowait()],
)
MAILBOX_IN_BATCHES = Kind(
    "mailbox-batches",
    lambda capacity: open_mailbox(capacity),
    lambda sender, value: sender.send_batch([value]),
    lambda sender, value: sender.send_nowait(value),
    lambda receiver: receiver.receive_batch(),
    lambda receiver: receiver.receive_batch_nowait(),
)
MAILBOX_WITH_WATERMARKS = attrs.evolve(
    MAILBOX,
    name="mailbox-watermarks",
    open=lambda capacity: open_mailbox(capacity, backpressure=GENTLE),
    room=lambda capacity: max(1, int(capacity * 0.75)),
)
TRIO_MEMORY_CHANNEL = attrs.evolve(MAILBOX, name="trio", open=lambda capacity: trio.open_memory_channel(capacity))

RING_WITH_WATERMARKS = _ring("ring-watermarks", backpressure=GENTLE)

BOUNDED = [
    MAILBOX,
    MAILBOX_IN_BATCHES,
    MAILBOX_WITH_WATERMARKS,
    _ring("ring"),
    _ring("ring-debug", debug=True),
    RING_WITH_WATERMARKS,
]
COPYING = [_ring("ring-lagging", policy="lagging"), _ring("ring-conflating", policy="conflating")]
"""These never hold the sender back; with room enough they deliver everything, too."""
EVERY = [*BOUNDED, *COPYING]
