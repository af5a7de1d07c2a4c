"""Watermarks turned into one question: from which consumption on may this send go ahead?

Pure: no Trio, no clock, no data. A channel counts what it ever accepted (``sent``) and what was ever taken out of it
(``taken``); the difference lies in the buffer. The rules:

1. A send of n items goes ahead when the buffer is at or below the high watermark afterwards. A send larger than the
   watermark itself goes ahead only into an empty buffer.
2. A send that rule 1 holds back makes the flow SLOWED. It is FREE again when the buffer was seen at or below the low
   watermark. Between two such changes at least (high - low) items are consumed: that is the hysteresis.
3. While SLOWED, n items are accepted for every n / slow_down_factor items consumed since the last accepted send. The
   consumer's own progress is the clock: no timer, nothing to tune, and the consumer never runs dry while it drains.

So the consumer works at full speed all the time, the producer at ``slow_down_factor`` of that speed until the buffer is
down, and the buffer never passes the high watermark.
"""

from math import ceil, floor

import attrs


def _fraction(instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{attribute.name} must be between 0 and 1, was {value!r}")


@attrs.frozen(kw_only=True)
class Backpressure:
    """When a channel slows its senders, and for how long a send may wait.

    Attributes:
        high_watermark: fraction of the capacity that the buffer never passes.
        low_watermark: fraction of the capacity at which a slowed flow is free again; below ``high_watermark``.
        slow_down_factor: speed of a slowed flow, as a fraction of what the receiver takes; above 0, at most 1.
        send_timeout_s: how long one send may wait, in seconds, before it raises ``SendTimeout``.

    Raises:
        ValueError: a setting out of its range, or ``low_watermark`` not below ``high_watermark``.
    """

    high_watermark: float = attrs.field(default=0.8, validator=_fraction)
    low_watermark: float = attrs.field(default=0.3, validator=_fraction)
    slow_down_factor: float = attrs.field(default=0.5, validator=_fraction)
    send_timeout_s: float = 5.0

    def __attrs_post_init__(self) -> None:
        if self.low_watermark >= self.high_watermark:
            raise ValueError(
                f"low_watermark must be below high_watermark, was {self.low_watermark!r} of {self.high_watermark!r}"
            )
        if not self.slow_down_factor > 0.0:
            raise ValueError(f"slow_down_factor must be above 0, was {self.slow_down_factor!r}")
        if not self.send_timeout_s > 0.0:
            raise ValueError(f"send_timeout_s must be above 0, was {self.send_timeout_s!r}")


def check_capacity(capacity: int) -> None:
    """Raises TypeError or ValueError unless ``capacity`` is an integer of at least 1."""
    if type(capacity) is not int:
        raise TypeError(f"capacity must be an int, was {capacity!r}")
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, was {capacity}")


class FlowControl:
    """The rules above for one channel; without settings the capacity is the only bound and nothing is slowed."""

    __slots__ = ("_factor", "_mark", "capacity", "high", "low", "slow_downs", "slowed")

    def __init__(self, capacity: int, settings: Backpressure | None) -> None:
        self.capacity = capacity
        shape = settings or Backpressure()
        self.low = floor(shape.low_watermark * capacity)
        self.high = capacity if settings is None else max(1, floor(shape.high_watermark * capacity))
        self._factor = None if settings is None else shape.slow_down_factor
        self._mark = 0
        self.slowed = False
        self.slow_downs = 0

    @property
    def piece(self) -> int:
        """How much of a long batch goes in at once: what fits between the watermarks."""
        return max(1, self.high - self.low)

    def rate(self, used: int) -> float:
        """1.0 while the flow is free, the slow-down factor (of what the receiver takes) while it is slowed."""
        return self._factor if self.slowed and used > self.low and self._factor is not None else 1.0

    def admits_at(self, sent: int, taken: int, count: int) -> int:
        """The consumption from which ``count`` more items may be sent: now, if it is at most ``taken``.

        Changes the flow's state by rule 2. The answer stays true until something else is sent.
        """
        if self.slowed and sent - taken <= self.low:
            self.slowed = False
        fits_at = sent + count - max(self.high, count)
        if not self.slowed and fits_at > taken and self._factor is not None:
            self.slowed = True
            self.slow_downs += 1
            self._mark = taken
        if not self.slowed or self._factor is None:
            return fits_at
        paced_at = self._mark + ceil(count / self._factor)
        return max(fits_at, min(sent - self.low, paced_at))

    def accepted(self, taken: int) -> None:
        """A send went ahead at this consumption."""
        self._mark = taken
