"""The seed's backpressure as written ("Backpressure Handling"), over a Trio memory channel.

Every item looks at the buffer, multiplies the rate, and sleeps up to 100 ms before it is sent. It has no hysteresis
(each single item above the high watermark halves the rate again), recovers only below the low watermark, and a
timed-out send loses its item. Kept runnable because ``benchmarks.channels`` publishes the comparison.
"""

from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class SeedBackpressure(Generic[T]):
    """``BackpressureControl`` with the seed's defaults; ``send`` is its ``send_with_backpressure``."""

    def __init__(self, channel: trio.MemorySendChannel[T], capacity: int) -> None:
        self.channel = channel
        self.capacity = capacity
        self.high_watermark = 0.8
        self.low_watermark = 0.3
        self.slow_down_factor = 0.5
        self.current_rate = 1.0
        self.lost = 0

    async def send(self, item: T) -> None:
        utilization = self.channel.statistics().current_buffer_used / self.capacity
        if utilization > self.high_watermark:
            self.current_rate *= self.slow_down_factor
        elif utilization < self.low_watermark:
            self.current_rate = min(self.current_rate * 1.5, 1.0)
        if self.current_rate < 1.0:
            await trio.sleep((1.0 - self.current_rate) * 0.1)
        with trio.move_on_after(5.0) as scope:
            await self.channel.send(item)
        if scope.cancelled_caught:
            self.lost += 1  # the seed: "can't recover item"
