"""The kill switch against the simulated venue, with an engine that goes on sending until its journal is marked."""

import time
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path

import trio

from trio_nt.errors import ExecutionError, JournalError
from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.market import venue_instruments
from trio_nt.exchange.server import serve_exchange
from trio_nt.execution.alpaca import open_alpaca
from trio_nt.kill import KillResult, kill
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.broker import BrokerOrder
from trio_nt.model.instruments import Instruments, Side
from trio_nt.model.orders import OrderRequest
from trio_nt.storage.durable import open_journal
from trio_nt.storage.journal import CancelIntent
from trio_nt.storage.reading import read_journal

INSTRUMENTS = venue_instruments(2, maker_fee=Decimal(0), taker_fee=Decimal(0))
SYMBOL = INSTRUMENTS.ids[0]


def resting(order_id: str) -> OrderRequest:
    return OrderRequest(order_id, SYMBOL, Side.BUY, Decimal(1), OrderType.LIMIT, Decimal(1), None, TimeInForce.GTC)


async def run_kill(url: str, *, instruments: Instruments = INSTRUMENTS, **options: object) -> KillResult:
    async with open_alpaca(url, instruments, unix_s=time.time, key="sim", secret="sim") as broker:
        return await kill(broker, now_ns=time.time_ns, **options)  # type: ignore[arg-type]


async def test_everything_is_cancelled_and_closed_within_a_second_while_the_engine_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    async with trio.open_nursery() as nursery:
        config = ExchangeConfig(symbols=2, events_per_second=1000)
        port = await nursery.start(partial(serve_exchange, config, now_ns=time.time_ns))
        url = f"http://127.0.0.1:{port}"
        async with (
            open_journal(path, account="a", lock_folder=tmp_path) as journal,
            open_alpaca(url, INSTRUMENTS, unix_s=time.time, key="sim", secret="sim") as broker,
        ):
            await trio.sleep(0.05)
            await broker.submit(OrderRequest("m", SYMBOL, Side.BUY, Decimal(3)))
            ended = trio.Event()

            async def engine() -> None:
                number = 0
                try:
                    while True:
                        await journal.append([CancelIntent(f"o-{number}", 1)])  # any record stands for the intent
                        await broker.submit(resting(f"o-{number}"))
                        number += 1
                except JournalError:
                    ended.set()

            nursery.start_soon(engine)
            await trio.sleep(0.2)
            # Its own process does not know the engine's instruments.
            result = await run_kill(url, instruments=Instruments(), journal=path, flatten=True)
            assert result.is_complete, result
            assert result.took_s < 1.5
            assert len(result.cancelled) > 5
            assert result.closed == (SYMBOL,)
            await ended.wait()
            assert await broker.open_orders() == []
            assert await broker.positions() == {}
        nursery.cancel_scope.cancel()
    assert read_journal(path).halted == "kill switch"


async def test_without_a_broker_the_journal_is_marked_and_the_failure_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    result = await run_kill("http://127.0.0.1:1", journal=path, deadline_s=0.5)
    assert result.journal == "HALTED"
    assert not result.is_complete
    assert "deadline" in result.problems[-1]
    assert read_journal(path).halted == "kill switch"


class Stubborn:
    """A broker that never lets go of one order."""

    async def open_orders(self) -> Sequence[BrokerOrder]:
        await trio.lowlevel.checkpoint()
        from trio_nt.model.orders import OrderState

        return [BrokerOrder("o-1", "b", "ABC", OrderState.ACCEPTED, Decimal(1), Decimal(0))]

    async def cancel(self, client_order_id: str) -> None:
        await trio.lowlevel.checkpoint()
        raise ExecutionError("no")


async def test_what_is_left_open_is_named(autojump_clock: trio.abc.Clock) -> None:
    result = await kill(Stubborn(), now_ns=lambda: 1, deadline_s=2.0)  # type: ignore[arg-type]
    assert result.left_open == ("order o-1 in ABC",)
    assert not result.is_complete
    assert result.took_s <= 2.1
