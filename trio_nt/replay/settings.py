"""How a replay trades."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

import attrs

from trio_nt.risk.core import RiskRule
from trio_nt.risk.limits import RiskLimits

DEFAULT_CASH = Decimal(100_000)
DEFAULT_LATENCY_S = 0.005


def _not_negative(instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{attribute.name} must be finite and not negative, was {value}")


@attrs.frozen(kw_only=True)
class ReplaySettings:
    """What is traded with, and how rows are shown.

    ``cash``: what the account starts with by currency.
    ``order_latency_s``, ``report_latency_s``: from the row that caused an order to the exchange, and back. With both
    at 0 strategies are shown one row at a time.
    ``single_rows``: show one row at a time, whatever the latencies. ``raise_errors``: a strategy's exception ends the
    replay. ``keep_actions``: the driver keeps every action. None of these three changes an order.
    """

    cash: Mapping[str, Decimal]
    order_latency_s: float = attrs.field(default=DEFAULT_LATENCY_S, validator=_not_negative)
    report_latency_s: float = attrs.field(default=DEFAULT_LATENCY_S, validator=_not_negative)
    limits: RiskLimits = attrs.field(factory=RiskLimits)
    rules: Sequence[RiskRule] = ()
    single_rows: bool = False
    raise_errors: bool = False
    keep_actions: bool = False

    @property
    def order_latency_ns(self) -> int:
        return round(self.order_latency_s * 1e9)

    @property
    def report_latency_ns(self) -> int:
        return round(self.report_latency_s * 1e9)

    @property
    def trading(self) -> "ReplaySettings":
        """Only what decides on orders."""
        return attrs.evolve(self, single_rows=False, raise_errors=False, keep_actions=False)
