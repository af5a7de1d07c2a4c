"""An engine inside a running asyncio loop, in the same thread: Trio as its guest."""

import asyncio

import attrs
import trio

from trio_nt import SimulatedBroker, Strategy, open_engine, target
from trio_nt.bridge import run_in_asyncio

prices = asyncio.Queue()  # filled by asyncio, read by the engine's feed: both are in one thread


class QueueFeed:
    async def run(self, send, *, task_status=trio.TASK_STATUS_IGNORED):
        task_status.started()
        while True:
            while not prices.empty():
                price = prices.get_nowait()
                if price is None:
                    return
                await send.quotes(
                    instrument="ABC", ts_event=0, bid=price - 0.01, ask=price + 0.01, bid_size=100, ask_size=100
                )
            await trio.sleep(0.005)


@attrs.define
class Contrarian(Strategy):
    def on_quote(self, quote, context):
        return target(quote.instrument, 1 if quote.bid < 9 else -1)


async def trade():  # Trio's side
    async with open_engine(
        feeds=[QueueFeed()], broker=SimulatedBroker(cash=100_000), strategies=[Contrarian()]
    ) as engine:
        await engine.start()
        return await engine.wait()


async def main():  # asyncio's side
    async with asyncio.TaskGroup() as tasks:
        trading = tasks.create_task(run_in_asyncio(trade))
        for price in [10, 9, 8, 12, 7, 13]:
            prices.put_nowait(price)
            await asyncio.sleep(0.01)
        prices.put_nowait(None)
    print(trading.result().format())


asyncio.run(main())
