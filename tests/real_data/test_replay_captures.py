"""Replay of real captures: every message counted, markets kept apart, amounts as worked out by hand."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest

from trio_nt import MarketBatch, Quote, Report, Strategy, StrategyContext, buy, replay, sell, target
from trio_nt.report import OrderRecord

CAPTURES = (
    "cm_btcusd_perp_20240808",
    "cm_btcusd_perp_20240809",
    "spot_btcusdt_20240808",
    "spot_ethusdt_20240808",
    "usdm_btcusdt_20240808",
)
MARKETS = {
    "spot_btcusdt_20240808": "BTCUSDT.BINANCE",
    "usdm_btcusdt_20240808": "BTCUSDT.BINANCE_UM",
    "cm_btcusd_perp_20240808": "BTCUSD_PERP.BINANCE_CM",
}


def path(shared_data: Path, name: str) -> Path:
    return shared_data / "binance_ws_raw" / f"{name}.jsonl.gz"


def messages(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Receipt and data of every quote and trade, as the file has them."""
    with gzip.open(file, "rt") as lines:
        for line in lines:
            stamp, _, text = line.partition(" ")
            if '@bookTicker"' in text[:60] or '@trade"' in text[:60]:
                yield int(stamp), json.loads(text)


@attrs.define
class Counts(Strategy):
    rows: int = 0

    def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> None:
        self.rows += len(batch)


@pytest.mark.slow
@pytest.mark.parametrize("name", CAPTURES)
def test_every_quote_and_trade_is_counted_and_seen(shared_data: Path, name: str) -> None:
    file = path(shared_data, name)
    with gzip.open(file, "rb") as lines:
        kinds = Counter(match[1] for line in lines if (match := re.search(rb'@(bookTicker|trade)"', line)))
    quotes, trades = kinds[b"bookTicker"], kinds[b"trade"]
    strategy = Counts()
    report = replay(file, strategy)
    assert report.ok
    assert strategy.rows == quotes + trades
    assert f"{quotes:,} bookTicker" in report.data[0]
    assert f"{trades:,} trade" in report.data[0]


@attrs.define
class PerMarket(Strategy):
    """Buys on the 100th quote of each instrument and sells on the 5,000th; notes every price it sees."""

    seen: dict[str, list[tuple[int, float, float]]] = attrs.field(factory=dict)

    def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
        rows = self.seen.setdefault(quote.instrument, [])
        rows.append((quote.ts_init, quote.bid, quote.ask))
        size = 5 if quote.instrument.endswith("_CM") else Decimal("0.01")
        if len(rows) == 100:
            return buy(quote.instrument, size)
        return sell(quote.instrument, size) if len(rows) == 5_000 else None


@pytest.mark.slow
def test_three_markets_are_kept_apart_and_the_inverse_ones_profit_is_as_by_hand(shared_data: Path) -> None:
    files = [path(shared_data, name) for name in MARKETS]
    latency_ns = 5_000_000
    strategy = PerMarket()
    report = replay(files, strategy, cash={"USDT": 100_000, "BTC": 1})
    assert report.ok
    assert set(strategy.seen) == set(MARKETS.values())
    found: dict[str, list[Any]] = {name: [] for name in MARKETS.values()}
    for order in report.orders:
        assert order.status == "filled"
        found[order.instrument] += order.fills
    for name, instrument in MARKETS.items():
        raw = [
            (stamp, Decimal(message["data"]["b"]), Decimal(message["data"]["a"]))
            for stamp, message in messages(path(shared_data, name))
            if message["stream"].endswith("@bookTicker")
        ]
        assert len(raw) == len(strategy.seen[instrument])
        for fill, cause, side in zip(found[instrument], (99, 4_999), (2, 1), strict=True):
            arrival = raw[cause][0] + latency_ns
            met = next(row for row in raw if row[0] >= arrival)
            assert (fill.ts_event, fill.price) == (met[0], met[side])
    entry, exit_ = (fill.price for fill in found["BTCUSD_PERP.BINANCE_CM"])
    worth_in, worth_out = Decimal(5 * 100) / entry, Decimal(5 * 100) / exit_
    fees = sum(round(worth * Decimal("0.0005"), 8) for worth in (worth_in, worth_out))
    pnl = {row.currency: row for row in report.pnl}
    assert pnl["BTC"].fees == fees
    assert abs(pnl["BTC"].net - (worth_in - worth_out - fees)) < Decimal("1e-20")
    assert set(pnl) == {"BTC", "USDT"}


@attrs.define
class Momentum(Strategy):
    """Follows the last change of each instrument's bid."""

    last: dict[str, float] = attrs.field(factory=dict)

    def on_quote(self, quote: Quote, context: StrategyContext) -> Any:
        return self.decide(quote.instrument, quote.bid, context, None)

    def decide(self, instrument: str, bid: float, context: StrategyContext, row: int | None) -> Any:
        before, self.last[instrument] = self.last.get(instrument, bid), bid
        if bid == before:
            return None
        held = context.position(instrument)
        wanted = Decimal("0.002") if bid > before else Decimal("-0.002")
        return target(instrument, wanted, row=row) if held != wanted else None


@attrs.define
class MomentumInBatches(Strategy):
    inner: Momentum = attrs.field(factory=Momentum)

    def on_market_data(self, batch: MarketBatch, context: StrategyContext) -> Any:
        bids, names = batch["bid"], [each.id for each in batch.instruments]
        decided = (
            self.inner.decide(names[batch["instrument"][row]], float(bids[row]), context, int(row))
            for row in batch.quotes
        )
        return [action for action in decided if action is not None]


@pytest.mark.slow
@pytest.mark.parametrize("round_trip_ms", [1, 5, 10])
def test_batches_and_single_events_give_the_same_orders(shared_data: Path, round_trip_ms: int) -> None:
    file = path(shared_data, "usdm_btcusdt_20240808")

    def run(strategy: Strategy) -> Report:
        return replay(
            file, {"m": strategy}, order_latency_s=round_trip_ms * 0.4e-3, report_latency_s=round_trip_ms * 0.6e-3
        )

    one, other = run(Momentum()), run(MomentumInBatches())
    assert len(one.orders) > 100
    assert [traded(order) for order in one.orders] == [traded(order) for order in other.orders]


def traded(order: OrderRecord) -> Any:
    """All but the ids, which tell configurations apart."""
    fills = [attrs.evolve(fill, client_order_id="") for fill in order.fills]
    reason = order.reason if not order.client_order_id else ""
    return attrs.evolve(order, client_order_id="", fills=(), reason=reason), fills
