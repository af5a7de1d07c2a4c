"""The replay against a reference that looks at everything, one row at a time: orders, fills, news, positions, cash."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from replay_reference import MAKER, TAKER, Reference
from replay_scripts import (
    MS,
    OPS,
    Asynchronous,
    InBatches,
    OpenLoop,
    OpenLoopInBatches,
    PerEvent,
    Script,
)

from trio_nt import Fill, Instrument, InstrumentKind, Instruments, Quote, RiskLimits, Trade
from trio_nt.feeds.data import from_events
from trio_nt.replay import ReplaySettings, run_replay

START = 1_700_000_000_000_000_000
LIMIT = 4
LATENCIES_MS = (0, 1, 5, 10)
STYLES: dict[str, Any] = {
    "event": PerEvent,
    "batch": InBatches,
    "async": Asynchronous,
    "open": OpenLoop,
    "open batch": OpenLoopInBatches,
}
INSTRUMENTS = Instruments(
    Instrument(id=name, symbol=name, kind=InstrumentKind.SPOT, maker_fee=MAKER, taker_fee=TAKER) for name in ("A", "B")
)
LIMITS = RiskLimits(
    price_collar=None,
    stale_after_s=None,
    submit_rate_per_s=None,
    max_open_orders=None,
    self_trade="allow",
    max_position=LIMIT,
    split_flips=False,
)


@st.composite
def markets(draw: st.DrawFn) -> list[Any]:
    """Rows of two instruments at whole milliseconds, many at the same time or a latency apart; some are bad."""
    rows: list[Any] = []
    at, ticks = START, {"A": 10_000, "B": 5_000}
    count = draw(st.integers(2, 40))
    for number in range(count):
        gap, kind, step = draw(
            st.tuples(st.sampled_from((0, 0, 1, 1, 2, 4, 5, 10)), st.sampled_from("qqqtx"), st.integers(-2, 2))
        )
        name = "AB"[number] if number < 2 else draw(st.sampled_from("AAB"))
        at += gap * MS
        ticks[name] += step
        bid, ask = ticks[name] / 100, (ticks[name] + 2) / 100
        if kind == "t" and number >= 2:
            rows.append(Trade(name, at, at, (ticks[name] + 1) / 100, 1.0, 0))
        elif kind == "x" and number >= 2:
            rows.append(Quote(name, at, at, ask, bid, 1.0, 1.0))
        else:
            rows.append(Quote(name, at, at, bid, ask, 1.0, 1.0))
    return rows


@attrs.frozen
class Plan:
    """One strategy: how it is written, and what it follows."""

    style: str
    ops: list[int]
    timer_ns: int

    def script(self, name: str) -> Script:
        # In a batch "now" is the batch's last row: a script that sets timers by it is none that can be compared.
        ops = [0 if op == 17 and "batch" in self.style else op for op in self.ops]
        return Script(name, ops, blind="open" in self.style, timer_ns=self.timer_ns)


plans = st.builds(
    Plan,
    st.sampled_from(list(STYLES)),
    st.lists(st.integers(0, OPS - 1), min_size=1, max_size=12),
    st.sampled_from((0, 0, 2 * MS, 5 * MS, 7 * MS)),
)


def replayed(
    rows: list[Any], chosen: Sequence[Plan], order_ms: int, report_ms: int, block_rows: int, single: bool
) -> tuple[Any, ...]:
    scripts = {f"s{turn}": plan.script(f"s{turn}") for turn, plan in enumerate(chosen)}
    strategies = {name: STYLES[plan.style](scripts[name]) for plan, name in zip(chosen, scripts, strict=True)}
    settings = ReplaySettings(
        cash={"USD": Decimal(1_000_000)},
        order_latency_s=order_ms / 1e3,
        report_latency_s=report_ms / 1e3,
        limits=LIMITS,
        raise_errors=True,
        single_rows=single,
    )
    data = from_events(rows, instruments=INSTRUMENTS, block_rows=block_rows)
    desk = run_replay(data, strategies, settings).driver.desk
    orders = [
        (
            order.ts_signal,
            order.strategy_id,
            order.instrument,
            order.side.sign,
            int(order.quantity),
            order.limit_price,
            order.stop_price,
            order.state.value,
            [as_tuple(fill) for fill in desk.books.fills_by_order.get(order.client_order_id, ())],
        )
        for order in desk.orders
    ]
    refusals = [(refused.ts_ns, refused.strategy_id, refused.reason.value) for refused in desk.refusals]
    positions = [int(desk.position(name, instrument)) for name in scripts for instrument in "AB"]
    return orders, refusals, positions, desk.books.account.cash["USD"], [script.log for script in scripts.values()]


def as_tuple(fill: Fill) -> tuple[Any, ...]:
    return fill.ts_event, fill.price, int(fill.quantity), fill.fee, fill.ts_init


def expected(rows: list[Any], chosen: Sequence[Plan], order_ms: int, report_ms: int) -> tuple[Any, ...]:
    scripts = {f"s{turn}": plan.script(f"s{turn}") for turn, plan in enumerate(chosen)}
    reference = Reference(rows, scripts, order_ms * MS, report_ms * MS, LIMIT)
    reference.run()
    orders = [
        (
            order.signal_ns,
            order.strategy,
            order.wish.instrument,
            order.side,
            order.quantity,
            order.wish.limit,
            order.wish.stop,
            order.state,
            order.fills,
        )
        for order in reference.orders
    ]
    positions = [reference.position(name, instrument) for name in scripts for instrument in "AB"]
    return orders, reference.refusals, positions, reference.cash, [script.log for script in scripts.values()]


@given(
    rows=markets(),
    chosen=st.lists(plans, min_size=1, max_size=3),
    order_ms=st.sampled_from(LATENCIES_MS),
    report_ms=st.sampled_from(LATENCIES_MS),
    block_rows=st.sampled_from((1, 2, 3, 7, 1000)),
    single=st.booleans(),
)
def test_a_replay_does_what_the_reference_does(
    rows: list[Any], chosen: list[Plan], order_ms: int, report_ms: int, block_rows: int, single: bool
) -> None:
    found = replayed(rows, chosen, order_ms, report_ms, block_rows, single)
    wanted = expected(rows, chosen, order_ms, report_ms)
    for what, one, other in zip(("orders", "refusals", "positions", "cash", "news"), found, wanted, strict=True):
        assert one == other, what
