"""An engine inside a web application on asyncio: Starlette under uvicorn, the engine in a thread of its own.

``python web.py`` serves http://127.0.0.1:8000: ``/statistics``, ``/portfolio`` and ``/events`` (one line of JSON for
each event, as it happens); ``POST /halt`` blocks new orders. Ctrl-C closes the engine in order. Needs ``starlette``
and ``uvicorn``.
"""

import json
import sys
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from trio_nt import SimulatedBroker, Strategy, open_engine, target
from trio_nt.bridge import open_asyncio_bridge


class RandomFeed:
    """Stands for your vendor's. It runs in the engine's thread, on Trio."""

    async def run(self, send, *, task_status=trio.TASK_STATUS_IGNORED):
        task_status.started()
        price, number = 100.0, 0
        while True:
            number += 1
            price += 0.05 if number % 20 < 10 else -0.05
            await send.quotes(
                instrument="ABC", ts_event=0, bid=price - 0.01, ask=price + 0.01, bid_size=100, ask_size=100
            )
            await trio.sleep(0.01)


@attrs.define
class Swing(Strategy):
    def on_quote(self, quote, context):
        return target(quote.instrument, 1 if quote.bid > 100.2 else -1)


@asynccontextmanager
async def lifespan(app):
    opened = partial(open_engine, feeds=[RandomFeed()], broker=SimulatedBroker(), strategies=[Swing()])
    async with open_asyncio_bridge(opened) as engine:
        await engine.start()
        app.state.engine = engine
        yield  # nothing of the engine is left when this block has ended


async def statistics(request):
    counts = await request.app.state.engine.statistics()
    return JSONResponse({"rows": counts.rows, "orders": counts.approved, "fills": counts.fills})


async def portfolio(request):
    async def positions(engine):  # runs in the engine's thread, where its state may be read
        return {name: str(position.quantity) for name, position in engine.portfolio.latest().positions.items()}

    return JSONResponse(await request.app.state.engine.run(positions))


async def events(request):
    async def lines():
        with await request.app.state.engine.events() as received:
            async for event in received:
                yield json.dumps({"event": type(event).__name__, "at_ns": event.ts_ns}) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def halt(request):
    await request.app.state.engine.halt()
    return JSONResponse({"halted": True})


app = Starlette(
    routes=[
        Route("/statistics", statistics),
        Route("/portfolio", portfolio),
        Route("/events", events),
        Route("/halt", halt, methods=["POST"]),
    ],
    lifespan=lifespan,
)

if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=2)
