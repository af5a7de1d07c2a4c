"""One harness for every benchmark: rows, gates, the machine's header, the table and the JSON.

A benchmark is a module with ``def cases(quick: bool) -> Iterator[Row]`` and

    if __name__ == "__main__":
        raise SystemExit(main("channels", cases))

Its JSON is a list of ``{"case", "metric", "value", "unit", "baseline", "ratio", "gate", "aim", "ok"}``.
This module never imports Hypothesis: that import alone changes Trio's scheduling for the whole process.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import attrs

RUNS = 7
_only = ""


@attrs.frozen
class Row:
    """One measured figure.

    ``gate`` must hold, ``aim`` is what we are after; ``at_most`` says which side of the gate is good.
    ``baseline`` is the figure of the alternative measured in the same run, ``ratio`` is value / baseline.
    """

    case: str
    metric: str
    value: float
    unit: str
    baseline: float | None = None
    gate: float | None = None
    aim: float | None = None
    at_most: bool = True
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return None if not self.baseline else self.value / self.baseline

    @property
    def ok(self) -> bool | None:
        return None if self.gate is None else self._reaches(self.gate)

    def _reaches(self, bound: float) -> bool:
        return self.value <= bound if self.at_most else self.value >= bound

    def as_dict(self) -> dict[str, object]:
        row = attrs.asdict(self)
        return row | {"ratio": self.ratio, "ok": self.ok}


def median_of(measure: Callable[[], float], *, runs: int = RUNS, warm_up: int = 1) -> float:
    """Run ``measure`` ``warm_up`` times unrecorded, then ``runs`` times; the median of what it returned."""
    for _ in range(warm_up):
        measure()
    return statistics.median(measure() for _ in range(runs))


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The value below which ``fraction`` of the sorted, non-empty ``ordered`` values lie (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


def is_wanted(case: str) -> bool:
    """Whether a case is among those that the command line asked for: one that is not need not be measured."""
    return _only in case


def machine_header() -> str:
    """What the figures were measured on, in one line."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    import numpy
    import trio

    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, trio {trio.__version__}, numpy {numpy.__version__}"
    )


def format_value(value: float | None) -> str:
    if value is None:
        return ""
    magnitude = abs(value)
    if magnitude >= 1e6:
        return f"{value / 1e6:,.2f} M"
    if magnitude >= 1e4:
        return f"{value / 1e3:,.1f} k"
    return f"{value:,.3g}" if magnitude < 100 else f"{value:,.0f}"


def print_table(rows: Iterable[Row]) -> None:
    print(f"{'case':<54} {'metric':<22} {'value':>10} {'unit':<9} {'baseline':>10} {'ratio':>8}  gate")
    for row in rows:
        mark = {None: "", True: "ok", False: "MISSED"}[row.ok]
        bound = "" if row.gate is None else f"{'≤' if row.at_most else '≥'} {format_value(row.gate)} {mark}"
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}×"
        print(
            f"{row.case:<54} {row.metric:<22} {format_value(row.value):>10} {row.unit:<9} "
            f"{format_value(row.baseline):>10} {ratio:>8}  {bound}  {row.note}".rstrip(),
            flush=True,
        )


def main(name: str, cases: Callable[[bool], Iterator[Row]], *, options: Sequence[argparse.ArgumentParser] = ()) -> int:
    """Run a benchmark's cases from the command line; 0 when every gate holds, else 1.

    ``options``: parsers (without help) of options that the benchmark has besides.
    """
    global _only
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", parents=list(options))
    parser.add_argument("--quick", action="store_true", help="fewer runs and smaller sizes: a smoke test, not a figure")
    parser.add_argument("--json", metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--only", metavar="WORD", default="", help="only the cases whose name contains WORD")
    arguments = parser.parse_args()
    _only = arguments.only
    if "hypothesis" in sys.modules:
        raise SystemExit("hypothesis is imported: it makes Trio's scheduling deterministic, so no figure would be true")
    print(f"# {name}: {machine_header()}")
    rows: list[Row] = []

    def kept() -> Iterator[Row]:
        for row in cases(arguments.quick):
            if arguments.only in row.case:
                rows.append(row)
                yield row

    print_table(kept())
    if arguments.json:
        Path(arguments.json).write_text(json.dumps([row.as_dict() for row in rows], indent=1) + "\n")
    missed = [row for row in rows if row.ok is False]
    print(f"# {sum(row.ok is not None for row in rows)} gates, {len(missed)} missed")
    return 1 if missed else 0
