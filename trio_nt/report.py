"""What a run or a replay comes to: plain data, filled by whoever drove it.

The order of the sections is the order of trust: first what was checked, then the money, then the speed. A figure that
was not measured is absent, never zero: an empty section is left out.

Rules:
- Amounts are ``Decimal`` per currency and never added across currencies; durations are integer nanoseconds.
- Costs are positive where they were paid: ``net = gross - half_spread - fees``.
- ``orders_csv`` gives the same bytes for the same orders, whatever the machine or the hash seed.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import attrs

from trio_nt.model.actions import Action
from trio_nt.model.events import Refused
from trio_nt.model.orders import Fill, Order

CENT = Decimal("0.01")


def plain(value: Decimal) -> str:
    """``value`` in digits, without exponent or trailing zeros; zero has no sign."""
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def amounts(values: Mapping[str, Decimal]) -> str:
    """Amounts by name as one line, to eight places, zeros left out: ``-0.5 BTC, 12.3 USDT``; else ``nothing``."""
    return ", ".join(f"{plain(round(value, 8))} {name}" for name, value in values.items() if value) or "nothing"


@attrs.frozen
class Check:
    """Two accounts of the same thing. ``left`` and ``right`` are shown as they are; ``ok`` is the verdict."""

    name: str
    left: str
    right: str
    ok: bool

    @classmethod
    def equal(cls, name: str, left: object, right: object) -> "Check":
        return cls(name, _shown(left), _shown(right), left == right)

    @classmethod
    def amounts(
        cls, name: str, left: Mapping[str, Decimal], right: Mapping[str, Decimal], *, within: Decimal = Decimal(0)
    ) -> "Check":
        """Amounts by currency or instrument; ``within`` is the difference still called equal (``CENT`` for cash)."""
        keys = dict.fromkeys([*left, *right])
        zero = Decimal(0)
        pairs = [(left.get(key, zero), right.get(key, zero)) for key in keys]
        ok = all(abs(a - b) <= within for a, b in pairs)
        shown_left, shown_right = amounts(left), amounts(right)
        if not ok and shown_left == shown_right:  # the difference is beyond the eight places shown
            shown_right += f", by {max(abs(a - b) for a, b in pairs):.3g} apart"
        return cls(name, shown_left, shown_right, ok)


def _shown(value: object) -> str:
    if isinstance(value, Decimal):
        return plain(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


@attrs.frozen
class CurrencyPnl:
    """Profit of one currency; ``net`` holds unrealised profit at the last marks."""

    currency: str
    gross: Decimal
    half_spread: Decimal
    fees: Decimal
    net: Decimal


@attrs.frozen
class LatencyRow:
    """One measured duration. ``target_ns`` and ``limit_ns`` are p99 bounds, None where none is set.

    ``exact`` is False when the percentiles come from a histogram whose buckets are at most 1/128 wide; they are then
    the upper edges of their buckets.
    """

    name: str
    count: int
    p50_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int
    target_ns: int | None = None
    limit_ns: int | None = None
    exact: bool = True

    @property
    def ok(self) -> bool | None:
        """Whether p99 meets the target; None where there is no target."""
        return None if self.target_ns is None else self.p99_ns <= self.target_ns


@attrs.frozen
class Throughput:
    """``count`` things in ``seconds`` of wall-clock time."""

    name: str
    count: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.count / self.seconds if self.seconds > 0 else 0.0


@attrs.frozen
class StrategyLine:
    """What one strategy saw and did. ``failure`` is what ended it, in one line; ``traceback`` where it raised.

    ``warnings``: what it was warned of, one line each.
    """

    strategy_id: str
    rows: int
    signals: int
    orders: int
    fills: int
    state: str
    failure: str = ""
    traceback: str = ""
    restarts: int = 0
    warnings: tuple[str, ...] = ()


@attrs.frozen
class OrderRecord:
    """One order at its end, with its fills. Times: UNIX ns of the run's clock.

    An action that risk refused is a record as well: status ``refused``, and an empty id where no order came to be.
    """

    client_order_id: str
    strategy_id: str
    instrument: str
    side: str
    quantity: Decimal
    order_type: str
    limit_price: Decimal | None
    stop_price: Decimal | None
    ts_signal: int
    status: str
    reason: str = ""
    tag: str = ""
    fills: tuple[Fill, ...] = ()

    @classmethod
    def of(cls, order: Order, fills: Iterable[Fill] = ()) -> "OrderRecord":
        return cls(
            order.client_order_id,
            order.strategy_id,
            order.instrument,
            order.side.value,
            order.quantity,
            order.order_type.value,
            order.limit_price,
            order.stop_price,
            order.ts_signal,
            order.state.value,
            order.reason,
            order.tag,
            tuple(fills),
        )

    @classmethod
    def of_refusal(cls, refused: Refused) -> "OrderRecord":
        action: Action = refused.action
        side = getattr(action, "side", None)
        order_type = getattr(action, "order_type", None)
        return cls(
            refused.client_order_id,
            refused.strategy_id,
            refused.instrument,
            side.value if side is not None else "",
            getattr(action, "quantity", None) or Decimal(0),
            order_type.value if order_type is not None else type(action).__name__.lower(),
            getattr(action, "limit_price", None),
            getattr(action, "stop_price", None),
            refused.ts_ns,
            "refused",
            f"{refused.reason.value}: {refused.detail}" if refused.detail else refused.reason.value,
            action.tag,
        )


ORDER_FIELDS = (
    "record",
    "client_order_id",
    "strategy",
    "instrument",
    "side",
    "quantity",
    "order_type",
    "limit_price",
    "stop_price",
    "signal_time_ns",
    "status",
    "reason",
    "tag",
    "fill_time_ns",
    "fill_price",
    "fee",
    "fee_currency",
    "liquidity",
    "execution_id",
)


@attrs.frozen(kw_only=True)
class Report:
    """The whole result. ``format()`` is for people, ``as_dict()`` for programs, ``orders_csv()`` for the orders.

    ``title`` is the first line; ``data`` are lines about the input as read; ``assumptions`` name everything that was
    not in the data (latencies, fees, fill model, instruments inferred); ``next_steps`` are commands worth trying.
    """

    title: str
    checks: tuple[Check, ...] = ()
    pnl: tuple[CurrencyPnl, ...] = ()
    latencies: tuple[LatencyRow, ...] = ()
    throughput: tuple[Throughput, ...] = ()
    orders_by_state: Mapping[str, int] = attrs.field(factory=dict)
    refusals: Mapping[str, int] = attrs.field(factory=dict)
    strategies: tuple[StrategyLine, ...] = ()
    data: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()
    orders: tuple[OrderRecord, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every check held and no strategy failed."""
        return all(check.ok for check in self.checks) and not any(line.failure for line in self.strategies)

    def format(self, colour: bool = False) -> str:
        """The report as text, with a newline at its end. ``colour`` adds ANSI colours."""
        from trio_nt.report_text import format_report

        return format_report(self, colour)

    def as_dict(self) -> dict[str, Any]:
        """The report as what JSON can hold: amounts as strings, times as integers. Orders come with their fills."""
        plainly: dict[str, Any] = attrs.asdict(self, value_serializer=_json_value)
        for row, latency in zip(plainly["latencies"], self.latencies, strict=True):
            row["ok"] = latency.ok
        for row, rate in zip(plainly["throughput"], self.throughput, strict=True):
            row["per_second"] = rate.per_second
        return plainly | {"ok": self.ok}

    def as_json(self) -> str:
        return json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n"

    def orders_csv(self) -> str:
        """A line for each order, each followed by a line for each of its fills, under ``ORDER_FIELDS``.

        The field ``record`` is ``order`` or ``fill``. A fill repeats id, strategy, instrument and side of its order;
        its ``quantity`` is what it filled. What a line has no value for is empty. Lines end with a newline.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(ORDER_FIELDS)
        for order in self.orders:
            writer.writerow(_order_line(order))
            writer.writerows(_fill_line(order, fill) for fill in order.fills)
        return text.getvalue()


def _order_line(order: OrderRecord) -> list[str]:
    return [
        "order",
        order.client_order_id,
        order.strategy_id,
        order.instrument,
        order.side,
        plain(order.quantity),
        order.order_type,
        "" if order.limit_price is None else plain(order.limit_price),
        "" if order.stop_price is None else plain(order.stop_price),
        str(order.ts_signal),
        order.status,
        order.reason,
        order.tag,
        *[""] * 6,
    ]


def _fill_line(order: OrderRecord, fill: Fill) -> list[str]:
    return [
        "fill",
        order.client_order_id,
        order.strategy_id,
        order.instrument,
        order.side,
        plain(fill.quantity),
        *[""] * 7,
        str(fill.ts_event),
        plain(fill.price),
        plain(fill.fee),
        fill.fee_currency,
        fill.liquidity.value,
        fill.execution_id,
    ]


def _json_value(instance: Any, attribute: Any, value: Any) -> Any:
    if isinstance(value, Decimal):
        return plain(value)
    if hasattr(value, "value") and hasattr(value, "name"):  # an enumeration
        return value.value
    return value


def counted(values: Sequence[str]) -> dict[str, int]:
    """How often each value occurs, most frequent first, then by name."""
    return by_count(Counter(values))


def by_count(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts, greatest first, then by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
