"""The live feed: messages to columns, and its life with a venue that goes and comes back."""

import time
from contextlib import asynccontextmanager
from functools import partial

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_nt.alpaca import decode_market, encode
from trio_nt.errors import FeedError
from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.market import Market, venue_instruments
from trio_nt.exchange.server import serve_exchange
from trio_nt.exchange.streams import EncodedRows
from trio_nt.feeds.alpaca import AlpacaFeed, RowDecoder
from trio_nt.model.instruments import Instrument, Instruments
from trio_nt.model.market import MARKET_FIELDS, QUOTE, TRADE
from trio_nt.websocket import accept

START = 1_700_000_000_000_000_000
COLUMNS = set(MARKET_FIELDS) - {"sequence", "flags", "ts_init"}


class Sink:
    """A MarketSender that keeps what it gets."""

    def __init__(self, instruments: Instruments | None = None) -> None:
        self.instruments = instruments or venue_instruments()
        self.blocks: list[dict[str, np.ndarray]] = []
        self.got = trio.Event()

    async def rows(self, columns) -> None:
        await trio.lowlevel.checkpoint()
        self.blocks.append(columns)
        self.got.set()

    async def more(self) -> None:
        self.got = trio.Event()
        with trio.fail_after(60):
            await self.got.wait()

    def __len__(self) -> int:
        return sum(len(block["kind"]) for block in self.blocks)


@asynccontextmanager
async def venue(**settings):
    async with trio.open_nursery() as nursery:
        config = ExchangeConfig(**({"events_per_second": 5_000} | settings))
        yield await nursery.start(partial(serve_exchange, config, now_ns=time.time_ns))
        nursery.cancel_scope.cancel()


def feed_of(port: int, **options) -> AlpacaFeed:
    return AlpacaFeed(f"ws://127.0.0.1:{port}/v2/iex", **({"key": "sim", "secret": "sim"} | options))


@asynccontextmanager
async def running(feed: AlpacaFeed, sink: Sink):
    async with trio.open_nursery() as nursery:

        async def run(task_status):
            await feed.run(sink, task_status=task_status)

        await nursery.start(run)
        yield nursery


@given(st.integers(0, 1000), st.integers(1, 60))
def test_what_the_market_made_comes_out_of_the_decoder(seed, milliseconds):
    market = Market(seed=seed, start_ns=START).next(START + milliseconds * 1_000_000)
    if not len(market["kind"]):
        return
    instruments = venue_instruments()
    columns = RowDecoder(instruments).rows(decode_market(EncodedRows(market, instruments.ids).all()))
    assert columns is not None
    assert set(columns) == COLUMNS
    for name in COLUMNS - {"aggressor"}:  # the dialect has no word for it
        assert columns[name].dtype == MARKET_FIELDS[name]
        np.testing.assert_array_equal(columns[name], market[name])
    assert not columns["aggressor"].any()


def test_instruments_that_the_engine_does_not_know_are_counted_and_left_out():
    decoder = RowDecoder(Instruments([Instrument(id="BRIO.SIM", symbol="BRIO")]))
    instruments = venue_instruments()
    market = Market(seed=1, start_ns=START).next(START + 50_000_000)
    columns = decoder.rows(decode_market(EncodedRows(market, instruments.ids).all()))
    assert columns is not None
    known = int((market["instrument"] == 1).sum())
    assert columns["instrument"].tolist() == [0] * known
    assert decoder.events_unknown == len(market["kind"]) - known
    assert decoder.rows([]) is None


def test_a_time_that_is_none_is_an_error():
    message = b'[{"T":"t","S":"ALBA","p":1,"s":1,"t":"noon"}]'
    with pytest.raises(FeedError, match="time must be RFC 3339"):
        RowDecoder(venue_instruments()).rows(decode_market(message))


async def test_it_starts_when_it_is_subscribed_and_ends_with_all_that_was_sent():
    async with venue() as port:
        sink, feed = Sink(), feed_of(port, now_ns=lambda: 77)
        async with running(feed, sink):
            for _ in range(5):
                await sink.more()
            await feed.finish()
    (session,) = feed.statistics().sessions
    assert session.name == "md-1"
    assert session.events_sent == session.events_received == len(sink) == feed.statistics().events_received > 0
    assert {int(ts) for block in sink.blocks for ts in block["ts_init"]} == {77}
    assert {int(kind) for block in sink.blocks for kind in block["kind"]} <= {QUOTE, TRADE}


async def test_without_a_clock_the_engine_stamps():
    async with venue() as port:
        sink = Sink()
        async with running(feed_of(port), sink) as nursery:
            await sink.more()
            nursery.cancel_scope.cancel()
    assert set(sink.blocks[0]) == COLUMNS


async def test_it_hears_only_the_symbols_that_it_asked_for():
    async with venue() as port:
        sink, feed = Sink(), feed_of(port, symbols=["CIMA"])
        async with running(feed, sink):
            await sink.more()
            await feed.finish()
    assert {int(index) for block in sink.blocks for index in block["instrument"]} == {2}


async def test_a_connection_that_breaks_is_opened_again():
    sink = Sink()
    async with trio.open_nursery() as nursery:
        async with venue() as port:
            feed = feed_of(port)
            await nursery.start(lambda task_status: feed.run(sink, task_status=task_status))
            await sink.more()
        before = len(sink)
        async with venue(port=port):
            await sink.more()
            await feed.finish()
    assert len(sink) > before > 0
    statistics = feed.statistics()
    assert statistics.reconnects >= 1
    assert len(statistics.sessions) == 2
    assert statistics.events_received == len(sink)


async def test_a_connection_that_breaks_while_it_finishes_is_not_opened_again():
    sink = Sink()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            async with venue() as port:
                feed = feed_of(port)
                await nursery.start(lambda task_status: feed.run(sink, task_status=task_status))
                await sink.more()
            await feed.finish()


async def test_without_reconnect_a_broken_connection_is_an_error():
    sink, raised = Sink(), []

    async def run(feed, task_status):
        try:
            await feed.run(sink, task_status=task_status)
        except FeedError as error:
            raised.append(str(error))

    async with trio.open_nursery() as nursery, venue() as port:
        await nursery.start(run, feed_of(port, reconnect=False))
        await sink.more()
    assert [f"market data from ws://127.0.0.1:{port}/v2/iex" in message for message in raised] == [True]


async def test_wrong_keys_and_symbols_are_errors_that_do_not_tell_the_keys():
    async with venue() as port:
        for options, message in (({"secret": "hush"}, "auth failed"), ({"symbols": ["NONE"]}, "unknown symbol NONE")):
            feed = feed_of(port, **options)
            with pytest.raises(FeedError, match=message) as caught:
                await feed.run(Sink())
            assert "hush" not in str(caught.value) + repr(feed)


async def test_a_venue_that_is_not_there_is_an_error():
    async with venue() as port:
        pass
    with pytest.raises(FeedError, match="cannot connect"):
        await feed_of(port).run(Sink())


async def test_data_without_meaning_is_an_error():
    async def lie(stream):
        received = await stream.receive_some()
        socket, _ = await accept(stream, bytes(received))
        await socket.send(encode([{"T": "q", "S": "ALBA"}]))
        await socket.close()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, lie, [listener])
        with pytest.raises(FeedError, match="without meaning"):
            await feed_of(listener.socket.getsockname()[1]).run(Sink())
        nursery.cancel_scope.cancel()
