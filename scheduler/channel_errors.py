"""What a channel raises beside Trio's own errors."""


class SendTimeout(Exception):
    """A send had to wait longer than its timeout; ``item`` is what was not sent, so that nothing is lost."""

    def __init__(self, item: object, timeout_s: float) -> None:
        super().__init__(f"the channel did not accept the send within {timeout_s:g} s")
        self.item = item
        self.timeout_s = timeout_s


class Lagged(Exception):
    """A lagging receiver was overtaken; ``missed`` rows were overwritten before it read them. Raised once per gap."""

    def __init__(self, missed: int) -> None:
        super().__init__(f"{missed} rows were overwritten before they were received")
        self.missed = missed
