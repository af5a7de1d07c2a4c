"""How many orders per second, and which of them said the same: two small memories, pure."""

from collections import deque
from collections.abc import Hashable


class TokenBucket:
    """Holds at most ``burst`` tokens and gains ``rate_per_s``; full at the start.

    Time that steps back adds nothing and takes nothing away.
    """

    __slots__ = ("_burst", "_per_ns", "_tokens", "_ts_ns")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._per_ns = rate_per_s / 1e9
        self._burst = float(burst)
        self._tokens = float(burst)
        self._ts_ns: int | None = None

    def take(self, now_ns: int) -> bool:
        """Take one token; False when there is none."""
        if self._ts_ns is None:
            self._ts_ns = now_ns
        elapsed = now_ns - self._ts_ns
        self._ts_ns = now_ns
        if elapsed > 0:
            self._tokens = min(self._burst, self._tokens + elapsed * self._per_ns)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Recent:
    """What was seen within the last ``window_ns``. Bounded by the submit rate times the window."""

    __slots__ = ("_order", "_seen", "_window_ns")

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._seen: dict[Hashable, int] = {}
        self._order: deque[tuple[int, Hashable]] = deque()

    def seen(self, key: Hashable, now_ns: int) -> bool:
        """Whether ``key`` was remembered within the window."""
        while self._order and now_ns - self._order[0][0] >= self._window_ns:
            ts_ns, old = self._order.popleft()
            if self._seen.get(old) == ts_ns:
                del self._seen[old]
        return key in self._seen

    def remember(self, key: Hashable, now_ns: int) -> None:
        """``key`` was sent at ``now_ns``."""
        self._seen[key] = now_ns
        self._order.append((now_ns, key))
