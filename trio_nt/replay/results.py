"""From a finished replay to its report."""

from collections.abc import Iterator
from decimal import Decimal

import attrs

from trio_nt.features.pipeline import FeaturePipeline
from trio_nt.feeds.data import MarketData
from trio_nt.feeds.statistics import FileStatistics
from trio_nt.replay.driver import ReplayDriver
from trio_nt.replay.prices import middle
from trio_nt.replay.settings import ReplaySettings
from trio_nt.report import Check, CurrencyPnl, OrderRecord, Report, StrategyLine, Throughput, by_count, counted, plain


@attrs.frozen
class ReplayResult:
    """What a replay leaves: its driver with the desk, the venue and the strategies as they stand at the end."""

    data: MarketData
    settings: ReplaySettings
    driver: ReplayDriver
    pipeline: FeaturePipeline
    elapsed_s: float
    stopped: bool = False  # before the data's end, as asked

    @property
    def marks(self) -> dict[str, Decimal]:
        """Last mid price (or close) by instrument id."""
        instruments = self.driver.desk.instruments
        return {instruments[index].id: middle(*price) for index, price in self.driver.prices.last.items()}


def report_of(result: ReplayResult) -> Report:
    """The report of a replay."""
    desk = result.driver.desk
    records = [OrderRecord.of(order, desk.books.fills_by_order.get(order.client_order_id, ())) for order in desk.orders]
    refused = [OrderRecord.of_refusal(refusal) for refusal in desk.refusals]
    return Report(
        title=f"replay of {', '.join(file.path for file in result.data.statistics.files)}"
        + (" (interrupted: only its beginning)" if result.stopped else ""),
        checks=tuple(_checks(result)),
        pnl=tuple(CurrencyPnl(**attrs.asdict(row)) for row in desk.books.pnl(result.marks)),
        throughput=tuple(_throughput(result)),
        orders_by_state=counted([order.status for order in records]),
        refusals=by_count({reason.value: count for reason, count in desk.refused.items()}),
        strategies=tuple(_strategies(result)),
        data=tuple(line for file in result.data.statistics.files for line in _data_lines(file)),
        assumptions=tuple(_assumptions(result)),
        next_steps=tuple(_next_steps(result)),
        orders=tuple(records + refused),
    )


def _checks(result: ReplayResult) -> Iterator[Check]:
    driver, desk, exchange = result.driver, result.driver.desk, result.driver.venue.exchange
    rows = sum(file.rows for file in result.data.statistics.files)
    if not result.stopped:
        yield Check.equal("rows read = rows replayed", rows, driver.rows)
    for seat in driver.seats:
        if not seat.failure and not seat.is_asleep:
            yield Check.equal(
                f"rows replayed = rows seen by {seat.runner.strategy_id}", driver.rows, seat.runner.rows_seen
            )
    sent = [order for order in desk.orders if order.broker_order_id or order.state.value == "rejected"]
    rejected = sum(order.state.value == "rejected" for order in sent)
    yield Check.equal(
        "orders acknowledged = in the venue's book + rejected", len(sent), len(exchange.orders) + rejected
    )
    engine = {name: position.quantity for name, position in desk.books.account.positions.items()}
    venue = {name: position.quantity for name, position in exchange.ledger.positions.items()}
    yield Check.amounts("engine's positions = venue's", engine, venue)
    yield Check.amounts("engine's cash = venue's", desk.books.account.cash, exchange.ledger.cash)


def _data_lines(file: FileStatistics) -> Iterator[str]:
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in file.messages.items())
    yield f"{file.path}: {file.lines:,} lines, {kinds or 'no message'}; {file.rows:,} market events"
    if file.bad_lines:
        shown = "; ".join(f"line {line}: {why}" for line, why in file.bad_line_examples)
        yield f"{file.path}: {file.bad_lines:,} lines that could not be read, left out ({shown})"
    if file.flagged:
        flagged = ", ".join(f"{number:,} {reason}" for reason, number in file.flagged.items())
        yield f"{file.path}: bad prices or sizes, never traded on: {flagged}"
    for number, what in (
        (file.ts_event_absent, "without an exchange time"),
        (file.ts_event_backwards, "with an exchange time before the previous one"),
        (file.ts_event_ahead, "with an exchange time after their receipt: the clocks differ"),
        (file.ts_init_lifted, "with a receipt time before the previous one, replayed at the previous one"),
    ):
        if number:
            yield f"{file.path}: {number:,} events {what}"


def _throughput(result: ReplayResult) -> Iterator[Throughput]:
    files = result.data.statistics.files
    yield Throughput("messages", sum(sum(file.messages.values()) for file in files), result.elapsed_s)
    yield Throughput("events", result.driver.rows, result.elapsed_s)
    yield Throughput("orders", len(result.driver.desk.orders), result.elapsed_s)


def _strategies(result: ReplayResult) -> Iterator[StrategyLine]:
    desk = result.driver.desk
    for seat in result.driver.seats:
        runner = seat.runner
        own = [order for order in desk.orders if order.strategy_id == runner.strategy_id]
        fills = sum(len(desk.books.fills_by_order.get(order.client_order_id, ())) for order in own)
        state = "failed" if seat.failure else "asleep" if seat.is_asleep else "finished"
        counts = (runner.rows_seen, runner.signals, len(own), fills)
        yield StrategyLine(runner.strategy_id, *counts, state, seat.failure, seat.traceback)


def _assumptions(result: ReplayResult) -> Iterator[str]:
    settings = result.settings
    yield (
        f"latency {settings.order_latency_s * 1e3:g} ms to the exchange, {settings.report_latency_s * 1e3:g} ms back; "
        "an order meets the first quote at or after its arrival"
    )
    yield "the whole quantity fills at the touch, whatever size is shown; a resting limit fills at its price"
    cash = ", ".join(f"{plain(amount)} {currency}" for currency, amount in settings.cash.items())
    yield f"the account starts with {cash}"
    yield from result.data.assumptions


def _next_steps(result: ReplayResult) -> Iterator[str]:
    if not result.driver.desk.approved:
        yield "no order was sent: look at the refusals above, or at what the strategy waits for"
    yield "--orders orders.csv writes every order with its times, fills and fees"
    yield "--order-latency-ms 50 shows what a slower line would have cost"
    yield "trio-nt init my_strategy.py writes a strategy of your own and its test"
