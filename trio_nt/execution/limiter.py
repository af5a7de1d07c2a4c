"""What a broker's rate-limit headers ask for. Pure: times are given, UNIX seconds."""

from collections.abc import Mapping

LIMIT, REMAINING, RESET, RETRY_AFTER = "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after"


class RateLimit:
    """How long to wait before the next request.

    ``remaining`` 0 means: nothing more before ``reset``. A ``Retry-After`` in seconds weighs more.
    """

    def __init__(self) -> None:
        self._free_at = 0.0

    def read(self, headers: Mapping[str, str], now_s: float) -> None:
        """Take in one response's headers; numbers that are none are passed over."""
        if (wait_s := _number(headers.get(RETRY_AFTER))) is not None:
            self._free_at = now_s + wait_s
        elif _number(headers.get(REMAINING)) == 0:
            self._free_at = _number(headers.get(RESET)) or self._free_at
        else:
            self._free_at = 0.0

    def delay_s(self, now_s: float) -> float:
        """Seconds until a request is welcome; 0 when it is now."""
        return max(self._free_at - now_s, 0.0)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
