"""An engine inside a program of your own: a feed, a simulated broker, a strategy, and every event it causes."""

import attrs
import trio

from trio_nt import SimulatedBroker, Strategy, cross, ema, open_engine, target


@attrs.define
class Crossover(Strategy):
    fast: int = 2
    slow: int = 3

    def features(self):
        return {"cross": cross(ema(self.fast), ema(self.slow))}

    def on_quote(self, quote, context):
        if context.features.cross:
            return target(quote.instrument, context.features.cross)


class VendorFeed:
    """Whatever brings prices: a socket, a file, another thread. ``run`` ends when there is nothing more."""

    def __init__(self, instrument, prices):
        self.instrument, self.prices = instrument, prices

    async def run(self, send, *, task_status=trio.TASK_STATUS_IGNORED):
        task_status.started()
        for price in self.prices:
            await send.quotes(
                instrument=self.instrument, ts_event=0, bid=price - 0.01, ask=price + 0.01, bid_size=100, ask_size=100
            )
            await trio.sleep(0.01)


async def show(events):
    async for event in events:
        print(type(event).__name__, getattr(event, "client_order_id", ""))


async def main():
    feed = VendorFeed("ABC", [10, 9, 8, 12, 7, 13])
    async with (
        open_engine(feeds=[feed], broker=SimulatedBroker(cash=100_000), strategies=[Crossover()]) as engine,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(show, engine.events())  # subscribed before the first event
        await engine.start()
        report = await engine.wait()  # until every feed has ended, or engine.stop() was called
        print(report.format())


trio.run(main)
