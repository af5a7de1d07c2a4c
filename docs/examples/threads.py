"""An engine beside a program that knows neither Trio nor asyncio: a script, a GUI, a plain thread."""

from functools import partial

import attrs
import trio

from trio_nt import SimulatedBroker, Strategy, open_engine, target
from trio_nt.bridge import open_thread_bridge


class VendorFeed:
    async def run(self, send, *, task_status=trio.TASK_STATUS_IGNORED):
        task_status.started()
        for price in [10, 9, 8, 12, 7, 13]:
            await send.quotes(
                instrument="ABC", ts_event=0, bid=price - 0.01, ask=price + 0.01, bid_size=100, ask_size=100
            )
            await trio.sleep(0.01)


@attrs.define
class Contrarian(Strategy):
    def on_quote(self, quote, context):
        return target(quote.instrument, 1 if quote.bid < 9 else -1)


opened = partial(open_engine, feeds=[VendorFeed()], broker=SimulatedBroker(cash=100_000), strategies=[Contrarian()])
with open_thread_bridge(opened) as engine:  # the engine runs in a thread of its own; its methods block
    events = engine.events()  # subscribed before the first event
    engine.start()
    for event in events:  # a GUI would ask from its timer: events.receive(timeout_s=0)
        print(type(event).__name__, getattr(event, "client_order_id", ""))
    print(engine.report().format())
