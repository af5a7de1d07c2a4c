"""The report as text: aligned tables, colours only where asked for."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from trio_nt.report import Check, CurrencyPnl, LatencyRow, Report, StrategyLine, Throughput, plain

BOLD, GREY, GREEN, RED, PLAIN = "\x1b[1m", "\x1b[90m", "\x1b[32m", "\x1b[31m", "\x1b[0m"


def format_report(report: Report, colour: bool) -> str:
    """``report`` as lines, each ended by a newline; sections without content are left out."""
    paint = _Paint(colour)
    sections = [
        ("Checked", _checks(report.checks, paint)),
        ("Profit and loss", _pnl(report.pnl)),
        ("Latency", _latencies(report.latencies, paint)),
        ("Throughput", _throughput(report.throughput)),
        ("Orders", _counts(report.orders_by_state)),
        ("Refused by risk", _counts(report.refusals)),
        ("Strategies", _strategies(report.strategies, paint)),
        ("Tracebacks", _tracebacks(report.strategies)),
        ("Data", report.data),
        ("Assumed", report.assumptions),
        ("What to try next", report.next_steps),
    ]
    lines = [paint(BOLD, report.title)]
    for heading, body in sections:
        if body:
            lines += ["", paint(BOLD, heading), *(f"  {line}".rstrip() for line in body)]
    return "\n".join(lines) + "\n"


class _Paint:
    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, code: str, text: str) -> str:
        return f"{code}{text}{PLAIN}" if self._colour and text else text


def _table(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Cells in columns: the first ``left`` columns to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _checks(checks: Sequence[Check], paint: _Paint) -> list[str]:
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        mark = paint(GREEN, "ok    ") if check.ok else paint(RED, "BROKEN")
        shown = check.left if check.left == check.right else f"{check.left}  {'=' if check.ok else '≠'}  {check.right}"
        lines.append(f"{mark}  {check.name.ljust(width)}  {shown}")
    return lines


def _pnl(rows: Sequence[CurrencyPnl]) -> list[str]:
    if not rows:
        return []
    table = [["", "gross", "half spread", "fees", "net"]]
    table += [[row.currency, *(_amount(x) for x in (row.gross, -row.half_spread, -row.fees, row.net))] for row in rows]
    return _table(table)


def _amount(value: Decimal) -> str:
    """To eight places at most, at least two, with thousands: enough for a cent and for a satoshi."""
    text = plain(round(value, 8 if abs(value) < 10 else 2))
    whole, _, fraction = text.partition(".")
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    return f"{sign}{int(digits):,}.{fraction.ljust(2, '0')}"


def _latencies(rows: Sequence[LatencyRow], paint: _Paint) -> list[str]:
    if not rows:
        return []
    table = [["", "count", "p50", "p99", "p99.9", "max"]]
    for row in rows:
        times = [duration(x) for x in (row.p50_ns, row.p99_ns, row.p999_ns, row.max_ns)]
        table.append([row.name, f"{row.count:,}", *times])
    bounds = ["target p99 (at most)", *(_bound(row) for row in rows)]
    lines = [f"{line}   {paint(GREY, bound)}" for line, bound in zip(_table(table), bounds, strict=True)]
    for number, row in enumerate(rows, start=1):
        if row.ok is False:
            lines[number] += paint(RED, "  above")
    if not all(row.exact for row in rows):
        lines.append(paint(GREY, "long run: percentiles from buckets 1/128 wide, rounded up; maxima are exact"))
    return lines


def _bound(row: LatencyRow) -> str:
    if row.target_ns is None:
        return ""
    limit = "" if row.limit_ns is None else f" ({duration(row.limit_ns)})"
    return f"{duration(row.target_ns)}{limit}"


def duration(nanoseconds: int) -> str:
    """A duration with three significant digits and its unit: ``850 ns``, ``12.3 µs``, ``1.25 ms``, ``2 s``."""
    value = float(nanoseconds)
    for unit in ("ns", "µs", "ms"):
        if abs(value) < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.0f} s" if abs(value) >= 999.5 else f"{value:.3g} s"


def _throughput(rows: Sequence[Throughput]) -> list[str]:
    table = [[row.name, f"{row.count:,}", f"in {row.seconds:,.2f} s", f"{row.per_second:,.0f}/s"] for row in rows]
    return _table(table) if table else []


def _counts(counts: Mapping[str, int]) -> list[str]:
    table = [[name, f"{count:,}"] for name, count in counts.items()]
    return _table(table) if table else []


def _strategies(rows: Sequence[StrategyLine], paint: _Paint) -> list[str]:
    if not rows:
        return []
    table = [["", "rows seen", "signals", "orders", "fills", "state"]]
    for row in rows:
        counts = [f"{x:,}" for x in (row.rows, row.signals, row.orders, row.fills)]
        again = {0: "", 1: ", restarted once"}.get(row.restarts, f", restarted {row.restarts} times")
        table.append([row.strategy_id, *counts, row.state + again])
    lines = _table(table)
    for number in range(len(rows), 0, -1):
        row = rows[number - 1]
        below = [row.failure, *row.warnings] if row.failure else row.warnings
        lines[number + 1 : number + 1] = [paint(RED, f"  {line}") for line in below]
    return lines


def _tracebacks(rows: Sequence[StrategyLine]) -> list[str]:
    lines: list[str] = []
    for row in rows:
        if row.traceback:
            lines += [f"{row.strategy_id}:", *(f"  {line}" for line in row.traceback.splitlines())]
    return lines
