"""The report reads in the order of trust, and its orders file is the same bytes for the same orders."""

import csv
import io
import json
from decimal import Decimal

import pytest

from trio_nt.model.actions import Cancel, OrderType, TimeInForce, sell
from trio_nt.model.events import Refused
from trio_nt.model.instruments import Side
from trio_nt.model.orders import Fill, Liquidity, Order, OrderState
from trio_nt.model.reasons import Reason
from trio_nt.report import (
    CENT,
    ORDER_FIELDS,
    Check,
    CurrencyPnl,
    LatencyRow,
    OrderRecord,
    Report,
    StrategyLine,
    Throughput,
    amounts,
    counted,
    plain,
)
from trio_nt.report_text import duration

FILL = Fill("e1", "c1", "s", "ABC", Side.BUY, Decimal("1.50"), Decimal("100.10"), Decimal("0.0010"), "USD",
            Liquidity.TAKER, 50, 60)  # fmt: skip
ORDER = Order("c1", "s", "ABC", Side.BUY, Decimal("1.50"), OrderType.LIMIT, Decimal("100.20"), None, TimeInForce.DAY,
              False, "a,tag", 7, OrderState.FILLED)  # fmt: skip


def full_report() -> Report:
    return Report(
        title="replay of x",
        checks=(Check.equal("events", 1000, 1000), Check.equal("orders", 1, 2)),
        pnl=(CurrencyPnl("USD", Decimal(10), Decimal(1), Decimal(2), Decimal(7)),),
        latencies=(LatencyRow("risk", 3, 100, 20_000_000, 20_000_001, 30_000_000, 10_000_000, 50_000_000),),
        throughput=(Throughput("events", 1000, 2.0),),
        orders_by_state={"filled": 1},
        refusals={"position limit": 4},
        strategies=(
            StrategyLine("s", 1000, 2, 1, 1, "failed", "ValueError: x (s.py, line 3)", "Traceback\n  ValueError: x\n"),
        ),
        data=("x: 3 lines",),
        assumptions=("latency 5 ms",),
        next_steps=("trio-nt init",),
        orders=(OrderRecord.of(ORDER, [FILL]),),
    )


def test_the_sections_come_in_the_order_of_trust() -> None:
    text = full_report().format()
    headings = [line for line in text.splitlines()[1:] if line and not line.startswith(" ")]
    assert headings == [
        "Checked", "Profit and loss", "Latency", "Throughput", "Orders", "Refused by risk", "Strategies", "Tracebacks",
        "Data", "Assumed", "What to try next",
    ]  # fmt: skip
    assert "\x1b" not in text
    assert text.endswith("\n")


def test_what_was_not_measured_is_left_out() -> None:
    assert Report(title="nothing").format() == "nothing\n"


def test_the_limits_are_the_last_and_grey_column() -> None:
    line = next(line for line in full_report().format(colour=True).splitlines() if "risk" in line)
    assert "\x1b[90m10 ms (50 ms)\x1b[0m" in line
    assert line.index("30 ms") < line.index("10 ms (50 ms)")
    assert "above" in line


def test_a_failed_strategy_has_one_line_in_the_table_and_its_traceback_in_a_section() -> None:
    lines = full_report().format().splitlines()
    place = next(number for number, line in enumerate(lines) if line.split()[-1:] == ["failed"])
    assert lines[place + 1 : place + 3] == ["    ValueError: x (s.py, line 3)", ""]
    place = lines.index("Tracebacks")
    assert lines[place + 1 : place + 4] == ["  s:", "    Traceback", "      ValueError: x"]


def test_a_broken_check_or_a_failed_strategy_is_not_ok() -> None:
    assert not full_report().ok
    assert not Report(title="", checks=(Check.equal("x", 1, 2),)).ok
    assert not Report(title="", strategies=(StrategyLine("s", 0, 0, 0, 0, "failed", "x"),)).ok
    assert Report(title="", checks=(Check.equal("x", 1, 1),)).ok


@pytest.mark.parametrize(
    ("left", "right", "ok"),
    [("1", "1.004", True), ("1", "1.01", True), ("1", "1.0101", False), ("1", "0.98", False), ("0", "0", True)],
)
def test_cash_is_compared_to_the_cent(left: str, right: str, ok: bool) -> None:
    assert Check.amounts("cash", {"USD": Decimal(left)}, {"USD": Decimal(right)}, within=CENT).ok is ok


def test_a_missing_currency_counts_as_nothing() -> None:
    assert Check.amounts("x", {"USD": Decimal(0)}, {}).ok
    assert not Check.amounts("x", {}, {"BTC": Decimal(1)}).ok


def test_a_difference_beyond_the_places_shown_is_shown() -> None:
    check = Check.amounts("x", {"BTC": Decimal("1.0000000001")}, {"BTC": Decimal(1)})
    assert not check.ok
    assert check.left != check.right


def test_the_orders_file_has_a_line_for_each_order_and_each_fill() -> None:
    rows = list(csv.DictReader(io.StringIO(full_report().orders_csv(), newline="")))
    assert tuple(rows[0]) == ORDER_FIELDS
    order, fill = rows
    assert (order["record"], order["quantity"], order["limit_price"], order["tag"]) == (
        "order",
        "1.5",
        "100.2",
        "a,tag",
    )
    assert (order["signal_time_ns"], order["status"], order["fill_price"]) == ("7", "filled", "")
    assert (fill["record"], fill["client_order_id"], fill["strategy"], fill["side"]) == ("fill", "c1", "s", "buy")
    assert (fill["fill_time_ns"], fill["fill_price"], fill["fee"], fill["liquidity"]) == (
        "50",
        "100.1",
        "0.001",
        "taker",
    )


def test_a_refusal_is_a_record() -> None:
    action = sell("ABC", 3, limit_price="9.5", tag="t")
    record = OrderRecord.of_refusal(Refused("s", "", "ABC", 5, Reason.POSITION_LIMIT, "4 > 3", action))
    assert (record.status, record.reason, record.quantity, record.side) == (
        "refused", "position limit: 4 > 3", Decimal(3), "sell",
    )  # fmt: skip
    cancel = OrderRecord.of_refusal(Refused("s", "c1", "ABC", 5, Reason.UNKNOWN_ORDER, "", Cancel("c1")))
    assert (cancel.order_type, cancel.side, cancel.reason) == ("cancel", "", "unknown order")


def test_json_holds_everything_with_exact_amounts() -> None:
    data = json.loads(full_report().as_json())
    assert data["ok"] is False
    assert data["pnl"] == [{"currency": "USD", "gross": "10", "half_spread": "1", "fees": "2", "net": "7"}]
    assert data["latencies"][0]["ok"] is False
    assert data["throughput"][0]["per_second"] == 500
    assert data["orders"][0]["fills"][0]["price"] == "100.1"
    assert data["orders"][0]["fills"][0]["liquidity"] == "taker"


@pytest.mark.parametrize(
    ("value", "text"),
    [("1E+3", "1000"), ("-0.00", "0"), ("0.10", "0.1"), ("1E-8", "0.00000001"), ("100", "100"), ("-5.50", "-5.5")],
)
def test_amounts_are_shown_in_plain_digits(value: str, text: str) -> None:
    assert plain(Decimal(value)) == text


def test_amounts_by_name_leave_zeros_out() -> None:
    assert amounts({"USD": Decimal("1.50"), "BTC": Decimal(0)}) == "1.5 USD"
    assert amounts({}) == "nothing"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0 ns"), (850, "850 ns"), (12_345, "12.3 µs"), (999_499, "999 µs"), (999_500, "1 ms"), (2_000_000_000, "2 s"),
     (3_600_000_000_000, "3,600 s")],
)  # fmt: skip
def test_durations_have_three_digits(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text


def test_counts_are_ordered_by_frequency_then_name() -> None:
    assert list(counted(["b", "a", "c", "c"]).items()) == [("c", 2), ("a", 1), ("b", 1)]
