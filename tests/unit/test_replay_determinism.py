"""The same orders, to the byte: five strategies listed in any order, fresh interpreters, hash seeds, a busy machine."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trio_nt import RiskLimits
from trio_nt.strategies.examples import EmaCrossover
from trio_nt.strategies.naming import by_id, configuration_of

ROOT = Path(__file__).parents[2]
RUNS = 20
PROGRAM = """
import random, sys
from trio_nt import RiskLimits, Strategy, buy, ema, replay, rsi, sell, target
from trio_nt.strategies.examples import EmaCrossover, MeanReversion
import attrs

@attrs.define
class Asynchronous(Strategy):
    names: frozenset = frozenset({"beta", "alpha", "gamma"})
    count: int = 0
    def features(self):
        return {"fast": ema(3), "strength": rsi(9)}
    async def on_quote(self, quote, context):
        self.count += 1
        if self.count % 97 == 0:
            await context.sleep(0.003)
            return target(quote.instrument, self.count % 3 - 1)

@attrs.define
class OpenLoop(Strategy):
    open_loop = True
    def on_market_data(self, batch, context):
        rows, bids = batch.quotes[::50], batch["bid"]
        return [buy(batch.instruments[0], 1, row=row, limit_price=float(bids[row])) for row in rows]

strategies = [EmaCrossover(), EmaCrossover(fast=3, slow=9), MeanReversion(window=50), Asynchronous(), OpenLoop()]
random.Random(int(sys.argv[2])).shuffle(strategies)
limits = RiskLimits(restricted={"X", "Y", "Z"}, self_trade="cancel working")
report = replay(sys.argv[1], strategies, limits=limits)
assert "hypothesis" not in sys.modules
assert all(not line.failure for line in report.strategies), report.format()
assert report.ok, report.format()
sys.stdout.write(report.orders_csv())
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_orders_are_the_same_bytes_in_every_interpreter(tmp_path: Path) -> None:
    from trio_nt.feeds.sample import write_sample

    data = tmp_path / "sample.csv"
    write_sample(data)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def run(seed: int) -> bytes:
        environment = {**os.environ, "PYTHONHASHSEED": str(seed * 7919 % 4_000_000_000), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(program), str(data), str(seed)]
        return subprocess.run(command, env=environment, capture_output=True, check=True).stdout

    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with ThreadPoolExecutor(2) as pool:
            outputs = list(pool.map(run, range(RUNS)))
    finally:
        neighbour.kill()
        neighbour.wait()
    assert outputs[0].count(b"\n") > 100
    assert len(set(outputs)) == 1


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_command_writes_the_same_orders_every_time(tmp_path: Path) -> None:
    from trio_nt.feeds.sample import write_sample

    data = tmp_path / "sample.csv"
    write_sample(data)

    def run(seed: int) -> bytes:
        orders = tmp_path / f"orders{seed}.csv"
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "trio_nt", "replay", str(data), "--orders", str(orders)]
        subprocess.run(command, env=environment, capture_output=True, check=True)
        return orders.read_bytes()

    outputs = {run(seed) for seed in (1, 2, 3)}
    assert len(outputs) == 1
    assert outputs.pop().count(b"\n") > 1


def test_ids_do_not_depend_on_how_strategies_are_listed() -> None:
    one, other = EmaCrossover(fast=3), EmaCrossover(fast=5)
    assert by_id([one, other]) == by_id([other, one]) == {"ema_crossover": one, "ema_crossover-2": other}
    assert list(by_id({"b": one, "a": other})) == ["a", "b"]


def test_a_configurations_text_is_the_same_in_every_interpreter() -> None:
    names = ["alpha", "beta", "gamma", "delta"]
    texts = {configuration_of(RiskLimits(restricted=names[turn:] + names[:turn])) for turn in range(4)}
    assert len(texts) == 1
    assert "0x" not in configuration_of({"call": print, "object": object(), "strategy": EmaCrossover()})
