"""The same work in NautilusTrader. Run by ``benchmarks.engine`` with the Python of an environment that has it.

    python nautilus.py COLUMNS.npz CASE RUNS        CASE: nothing-1, nothing-10 or orders

Its objects (``QuoteTick``) are made beforehand; what is timed is ``BacktestEngine.run``: data engine, strategy, risk
engine, execution engine, simulated venue, portfolio. Logging is off and the order rate is not limited.
Prints JSON: the version, and for each run events per second, fills and net profit.
"""

import json
import sys
import time
from decimal import Decimal

import nautilus_trader
import numpy as np
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig, RiskEngineConfig, StrategyConfig
from nautilus_trader.indicators import ExponentialMovingAverage
from nautilus_trader.model.currencies import BTC, USD
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide, PriceType
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.trading.strategy import Strategy

VENUE = Venue("SIM")
CASH = 10**9
COUNT = 10
FAST, SLOW = 10, 20


class PerStrategy(StrategyConfig, frozen=True):
    instrument_ids: list[InstrumentId]


class DoNothing(Strategy):
    def on_start(self):
        for instrument_id in self.config.instrument_ids:
            self.subscribe_quote_ticks(instrument_id)

    def on_quote_tick(self, tick):
        pass


class Crossover(Strategy):
    def on_start(self):
        self.sides, self.averages = {}, {}
        self.fills = 0
        for instrument_id in self.config.instrument_ids:
            averages = [ExponentialMovingAverage(window, PriceType.MID) for window in (FAST, SLOW)]
            self.averages[instrument_id] = averages
            self.sides[instrument_id] = [0, 0]
            for average in averages:
                self.register_indicator_for_quote_ticks(instrument_id, average)
            self.subscribe_quote_ticks(instrument_id)

    def on_quote_tick(self, tick):
        fast, slow = self.averages[tick.instrument_id]
        if not slow.initialized:
            return
        side = (fast.value > slow.value) - (fast.value < slow.value)
        last = self.sides[tick.instrument_id]
        if side == 0 or side == last[0]:
            return
        crossed, last[0] = last[0] != 0, side
        if not crossed:
            return
        quantity = abs(side - last[1])
        last[1] = side
        order = self.order_factory.market(
            tick.instrument_id, OrderSide.BUY if side > 0 else OrderSide.SELL, Quantity.from_int(quantity)
        )
        self.submit_order(order)

    def on_order_filled(self, event):
        self.fills += 1


def instrument(index):
    return CryptoPerpetual(
        instrument_id=InstrumentId(Symbol(f"I{index}"), VENUE), raw_symbol=Symbol(f"I{index}"), base_currency=BTC,
        quote_currency=USD, settlement_currency=USD, is_inverse=False, price_precision=2, size_precision=0,
        price_increment=Price.from_str("0.01"), size_increment=Quantity.from_int(1), ts_event=0, ts_init=0,
        margin_init=Decimal("0.01"), margin_maint=Decimal("0.01"), maker_fee=Decimal("0.0002"),
        taker_fee=Decimal("0.0002"),
    )  # fmt: skip


def ticks(columns, ids):
    size = Quantity.from_int(100)
    names = ("instrument", "bid", "ask", "ts_event", "ts_init")
    return [
        QuoteTick(ids[index], Price(bid, 2), Price(ask, 2), size, size, ts_event, ts_init)
        for index, bid, ask, ts_event, ts_init in zip(*(columns[name].tolist() for name in names), strict=True)
    ]


def run(case, instruments, data):
    engine = BacktestEngine(
        BacktestEngineConfig(
            trader_id="BENCH-001",
            logging=LoggingConfig(bypass_logging=True),
            risk_engine=RiskEngineConfig(max_order_submit_rate="1000000000/00:00:01"),
            run_analysis=False,
        )
    )
    engine.add_venue(VENUE, OmsType.NETTING, AccountType.MARGIN, [Money(CASH, USD)], base_currency=USD)
    for each in instruments:
        engine.add_instrument(each)
    engine.add_data(data)
    ids = [each.id for each in instruments]
    kind, count = (Crossover, 1) if case == "orders" else (DoNothing, int(case.removeprefix("nothing-")))
    strategies = [
        kind(PerStrategy(strategy_id=f"S-{number:03}", order_id_tag=f"{number:03}", instrument_ids=ids))
        for number in range(count)
    ]
    for strategy in strategies:
        engine.add_strategy(strategy)
    start = time.perf_counter()
    engine.run()
    elapsed = time.perf_counter() - start
    net = float(engine.portfolio.account(VENUE).balance_total(USD)) - CASH
    net += sum(float(engine.portfolio.unrealized_pnl(each)) for each in ids) if case == "orders" else 0.0
    fills = strategies[0].fills if case == "orders" else 0
    engine.dispose()
    return {"rate": len(data) / elapsed, "fills": fills, "net": net}


def main():
    file, case, runs = sys.argv[1:]
    columns = np.load(file)
    instruments = [instrument(index) for index in range(COUNT)]
    data = ticks(columns, [each.id for each in instruments])
    results = [run(case, instruments, data) for _ in range(1 + int(runs))][1:]  # the first warms up
    print(json.dumps({"version": nautilus_trader.__version__, "runs": results}))


if __name__ == "__main__":
    main()
