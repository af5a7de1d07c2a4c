"""Feeds and strategies for tests of the engine: scripted."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
import trio

from trio_nt import SimulatedBroker, Strategy
from trio_nt.engine import Engine
from trio_nt.engine_config import EngineConfig

START_NS = 1_700_000_000_000_000_000
Step = Callable[[Any], Awaitable[None]]


def now_ns() -> int:
    return START_NS + round(trio.current_time() * 1e9)


def quote(instrument: Any, price: Any, **more: Any) -> Step:
    """Send one quote, or a block where ``price`` is an array."""

    async def step(send: Any) -> None:
        values = {"bid": price, "ask": price, "bid_size": 100, "ask_size": 100, "ts_event": 0, **more}
        await send.quotes(instrument=instrument, **values)

    return step


def trade(instrument: str, price: Any) -> Step:
    async def step(send: Any) -> None:
        await send.trades(instrument=instrument, ts_event=0, price=price, size=1)

    return step


def bar(instrument: str, close: Any) -> Step:
    async def step(send: Any) -> None:
        await send.bars(instrument=instrument, ts_event=0, open=close, high=close, low=close, close=close, volume=1)

    return step


def pause(seconds: float = 0.01) -> Step:
    async def step(send: Any) -> None:
        await trio.sleep(seconds)

    return step


def wait(event: trio.Event) -> Step:
    async def step(send: Any) -> None:
        await event.wait()

    return step


class ScriptedFeed:
    """Takes its steps one after another and ends."""

    def __init__(self, *steps: Step) -> None:
        self.steps = steps

    async def run(self, send: Any, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        for step in self.steps:
            await step(send)


class EndlessFeed:
    """Sends a quote every millisecond until it is cancelled."""

    async def run(self, send: Any, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            await quote("ABC", 10.0)(send)
            await trio.sleep(0.001)


@attrs.define
class Listening(Strategy):
    """Notes what it is shown; ``react`` says what it does about an event."""

    react: Callable[[Any, Any], Any] = lambda event, context: None
    seen: list[Any] = attrs.field(factory=list)
    heard: list[Any] = attrs.field(factory=list)

    def on_quote(self, quote: Any, context: Any) -> Any:
        self.seen.append(quote)
        return self.react(quote, context)

    def on_trade(self, trade: Any, context: Any) -> Any:
        self.seen.append(trade)
        return self.react(trade, context)

    def on_bar(self, bar: Any, context: Any) -> Any:
        self.seen.append(bar)
        return self.react(bar, context)

    def on_order(self, update: Any, context: Any) -> None:
        self.heard.append(update)

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.heard]


def arguments(feeds: Sequence[Any], strategies: Any, **config: Any) -> dict[str, Any]:
    return {
        "config": EngineConfig(**config),
        "feeds": feeds,
        "broker": SimulatedBroker(cash=100_000),
        "strategies": strategies,
        "now_ns": now_ns,
    }


def failed_checks(engine: Engine) -> list[Any]:
    return [check for check in engine.report().checks if not check.ok]
