"""From a live engine to its report. What only the venue knows is added by whoever can ask it (``live.py``)."""

from collections.abc import Iterator
from decimal import Decimal

import attrs

from trio_nt.engine import Engine
from trio_nt.model.orders import Order
from trio_nt.report import Check, CurrencyPnl, OrderRecord, Report, StrategyLine, Throughput, by_count, counted, plain
from trio_nt.strategies.supervised import RUNNING, STOPPED


def report_of(engine: Engine) -> Report:
    """What the engine itself knows: everything but the venue's side."""
    desk = engine.desk
    fills = desk.books.fills_by_order
    before = engine.recovery.orders_before
    orders = [
        order for order in desk.orders if order.strategy_id in engine.supervised and order.client_order_id not in before
    ]
    records = [OrderRecord.of(order, fills.get(order.client_order_id, ())) for order in orders]
    refused = [OrderRecord.of_refusal(refusal) for refusal in desk.refusals]
    return Report(
        title=f"engine with {', '.join(engine.supervised) or 'no strategy'}",
        checks=tuple(_checks(engine, orders)),
        pnl=tuple(CurrencyPnl(**attrs.asdict(row)) for row in desk.books.pnl(_marks(engine))),
        latencies=tuple(engine.stamps.rows()),
        throughput=tuple(_throughput(engine, len(orders))),
        orders_by_state=counted([order.status for order in records]),
        refusals=by_count({reason.value: count for reason, count in desk.refused.items()}),
        strategies=tuple(_strategies(engine, orders)),
        data=tuple(_data(engine)),
        assumptions=tuple(_assumptions(engine)),
        orders=tuple(records + refused),
    )


def _marks(engine: Engine) -> dict[str, Decimal]:
    mids = {instrument.id: engine.board.mid(index) for index, instrument in enumerate(engine.instruments)}
    return {name: mid for name, mid in mids.items() if mid is not None}


def _checks(engine: Engine, orders: list[Order]) -> Iterator[Check]:
    rows = engine.market.rows_sent + engine.bars.rows_sent
    for name, entry in engine.supervised.items():
        if entry.state not in (RUNNING, STOPPED):
            continue
        life = entry.life
        seen = life.actor.runner.rows_seen
        if entry.was_stopped:
            shown = life.actor.market_end + life.actor.bars_end - life.joined_at
            yield Check.equal(f"events until {name} was stopped = seen by it", shown, seen)
        else:
            yield Check.equal(f"events in the ring = seen by {name}", rows - life.joined_at, seen)
    yield from _journal_checks(engine)
    statistics = engine.gateway.statistics()
    yield Check.equal(
        "orders sent = acknowledged + rejected + unknown",
        statistics.submitted,
        statistics.acknowledged + statistics.rejected + statistics.unknown,
    )
    if engine.config.on_exit == "cancel":
        yield Check.equal("orders still working", 0, sum(order.is_working for order in orders))


def _journal_checks(engine: Engine) -> Iterator[Check]:
    if engine.halted:
        yield Check("trading was not halted", "halted", engine.halted, ok=False)
    journal = engine.journal.statistics()
    unrecorded = engine.desk.withdrawn + engine.gateway.statistics().unrecorded
    name = "orders approved = recorded + withdrawn before"
    yield Check.equal(name, engine.desk.approved, journal.orders + unrecorded)
    if engine.journal.place:
        yield Check.equal("records that the journal could not take", 0, journal.lost)


def _throughput(engine: Engine, orders: int) -> Iterator[Throughput]:
    seconds = engine.ran_s
    yield Throughput("market events", engine.market.rows_sent + engine.bars.rows_sent, seconds)
    yield Throughput("signals", engine.supervisor.proposed(), seconds)
    yield Throughput("orders", orders, seconds)


def _strategies(engine: Engine, orders: list[Order]) -> Iterator[StrategyLine]:
    fills = engine.desk.books.fills_by_order
    for name, entry in engine.supervised.items():
        own = [order for order in orders if order.strategy_id == name]
        filled = sum(len(fills.get(order.client_order_id, ())) for order in own)
        each = entry.statistics()
        counts = (each.rows, each.signals, len(own), filled)
        yield StrategyLine(
            name, *counts, each.state, each.failure, each.traceback, restarts=each.restarts, warnings=each.warnings
        )


def _data(engine: Engine) -> Iterator[str]:
    rows, bars = engine.market.rows_sent, engine.bars.rows_sent
    yield f"{rows:,} quotes and trades, {bars:,} bars of {len(engine.instruments)} instruments"
    if engine.recovery.restored:
        yield f"{engine.recovery.restored:,} orders of earlier runs were taken from the journal"
    for compared in engine.recovery.history:
        yield f"compared with the broker: {compared}"
    flagged = engine.market.flagged + engine.bars.flagged
    if flagged:
        yield f"{flagged:,} of them with bad prices or sizes, never traded on"
    asked, cached = engine.features.statistics(), engine.features.cache_statistics()
    if asked.requests:
        yield f"{asked.requests:,} features asked for, {asked.features:,} computed: equal ones once for all strategies"
    if cached.lookups:
        yield (
            f"feature cache: {cached.lookups:,} lookups, {cached.hit_rate:.1%} hits, {cached.rings:,} histories in "
            f"{cached.bytes / 1e6:.1f} MB, {cached.evictions:,} evicted"
        )


def _assumptions(engine: Engine) -> Iterator[str]:
    yield from engine.assumptions
    kept, refused = len(engine.desk.refusals), engine.desk.refused.total()
    if kept < refused:
        yield f"of {refused:,} refusals the last {kept:,} are listed among the orders"
    yield "half spread: against the mid price last seen when the fill was heard of"
    yield f"cash at the start: {_amounts(engine)}"
    if engine.journal.place:
        yield f"every order is in the journal {engine.journal.place}"
    else:
        yield "orders were recorded in memory: they do not survive the process"
    if engine.journal.recovered.last_sequence:
        yield "profit counts everything since the journal's first order; half spreads, since this start"


def _amounts(engine: Engine) -> str:
    return ", ".join(f"{plain(amount)} {currency}" for currency, amount in engine.initial_cash.items()) or "nothing"
