"""The market ring: rows in, with their stamps and flags; a full ring waits, and says who holds it."""

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_nt.feeds.market_ring import EngineSender, MarketRing, QuoteBoard, Sequence
from trio_nt.model.instruments import Instrument, Instruments
from trio_nt.model.market import BAR_FIELDS, MARKET_FIELDS, QUOTE, TRADE, empty_columns
from trio_nt.stamps import StageClock


class Senders:
    """Two feeds' ends onto one engine's rings."""

    def __init__(self, capacity: int = 16, **settings: Any) -> None:
        self.instruments = Instruments([Instrument(id="ABC", symbol="ABC")])
        self.market, self.bars = MarketRing(capacity, **settings), MarketRing(capacity, BAR_FIELDS)
        self.board = QuoteBoard(1)
        self.unknown: list[str] = []
        sequence = Sequence()
        self.one, self.other = (
            EngineSender(
                self.market,
                self.bars,
                self.instruments,
                self.board,
                now_ns=lambda: 5_000,
                sequence=sequence,
                stamps=StageClock(),
                on_unknown=lambda instrument: self.unknown.append(instrument.id),
            )
            for _ in range(2)
        )

    async def quotes(self, *prices: float, by: EngineSender | None = None) -> None:
        values = np.array(prices)
        await (by or self.one).quotes(instrument="ABC", ts_event=1, bid=values, ask=values, bid_size=1, ask_size=1)


class Follower:
    """A reader that takes rows when the ring asks it to."""

    def __init__(self, ring: MarketRing) -> None:
        self.taken = 0
        self._receiver = ring.subscribe("follower")
        ring.followers.append(self._take)

    def _take(self) -> None:
        with suppress(trio.WouldBlock):
            while True:
                self.taken += len(self._receiver.receive_nowait())


async def test_rows_of_all_kinds_and_feeds_are_numbered_in_one_order() -> None:
    senders = Senders()
    market, bars = senders.market.subscribe("a"), senders.bars.subscribe("b")
    await senders.quotes(10.0, 11.0)
    await senders.other.trades(instrument="ABC", ts_event=1, price=12.0, size=3)
    await senders.other.bars(instrument="ABC", ts_event=1, open=1, high=2, low=1, close=2, volume=5)
    await senders.quotes(13.0)
    batch, bar = market.receive_nowait(), bars.receive_nowait()
    assert batch["sequence"].tolist() == [0, 1, 2, 4]
    assert bar["sequence"].tolist() == [3]
    assert batch["bid"].tolist()[:2] == [10.0, 11.0]
    assert (batch["price"][2], batch["size"][2], np.isnan(batch["bid"][2])) == (12.0, 3.0, True)
    assert set(batch["ts_init"]) == {5_000}
    assert (senders.market.rows_sent, senders.bars.rows_sent, senders.one.rows_sent) == (4, 1, 3)
    assert senders.board.mid(0) == 13


async def test_bad_rows_are_flagged_counted_and_price_nothing() -> None:
    senders = Senders()
    receiver = senders.market.subscribe("a")
    await senders.quotes(10.0, np.nan, -1.0)
    assert (receiver.receive_nowait()["flags"] != 0).tolist() == [False, True, True]
    assert senders.market.flagged == 2
    assert senders.board.mid(0) == 10


def test_the_board_shows_the_last_good_quote_or_what_stands_in_for_it() -> None:
    board, columns = QuoteBoard(2), empty_columns(4)
    board.show(empty_columns(0))
    columns["kind"][:] = TRADE, TRADE, QUOTE, TRADE
    columns["instrument"][:] = 0, 1, 0, 0
    columns["price"][:] = 5.0, 6.0, np.nan, 9.0
    columns["bid"][2], columns["ask"][2] = 7.0, 8.0
    columns["ts_init"][:] = 1, 2, 3, 4
    board.show(columns)
    assert sorted(board.take_changed()) == [(0, 7.0, 8.0, 3), (1, 6.0, 6.0, 2)]
    columns["flags"][:] = 1
    board.show(columns)
    assert board.take_changed() == []


async def test_an_instrument_that_nobody_described_is_taken_in_once() -> None:
    senders = Senders()
    senders.market.subscribe("a")
    for _ in range(2):
        await senders.one.trades(instrument=["XYZ", "ABC"], ts_event=1, price=[1.0, 2.0], size=1)
    assert senders.unknown == ["XYZ"]
    assert senders.instruments.index("XYZ") == 1
    for wrong in (7, "", 1.5):
        with pytest.raises((KeyError, IndexError, TypeError)):
            await senders.one.trades(instrument=wrong, ts_event=1, price=1.0, size=1)
    assert senders.market.rows_sent == 4


async def test_columns_that_do_not_fit_are_refused_before_any_effect() -> None:
    senders = Senders()
    with pytest.raises(ValueError, match=r"columns must have the same length, were .*price 2, size 3"):
        await senders.one.trades(instrument="ABC", ts_event=1, price=[1, 2], size=[1, 2, 3])
    with pytest.raises(ValueError, match="one-dimensional"):
        await senders.one.trades(instrument="ABC", ts_event=1, price=[[1, 2]], size=1)
    assert senders.market.rows_sent == 0


async def test_a_follower_that_nobody_asks_never_holds_the_ring() -> None:
    senders = Senders(capacity=8)
    follower = Follower(senders.market)
    with trio.fail_after(60):
        for number in range(100):
            await senders.quotes(*[10.0 + number] * (1 + number % 5))
    assert senders.market.rows_sent == 300
    assert 300 - follower.taken < 2  # a quarter of the ring


async def test_a_follower_is_called_for_room_before_a_stall_is_looked_for(autojump_clock: MockClock) -> None:
    senders = Senders(capacity=8, stall_timeout_s=1.0)
    Follower(senders.market)
    slow, stalled = senders.market.subscribe("slow"), []
    senders.market.on_stall = stalled.append
    await senders.quotes(*[10.0] * 7)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(senders.quotes, 11.0, 12.0)
        await trio.sleep(3)
        assert stalled
        assert {name for names in stalled for name in names} == {"slow"}
        while len(slow.receive_nowait()) != 7:
            pass
        with pytest.raises(trio.WouldBlock):
            slow.receive_nowait()
    assert senders.market.rows_sent == 9


@pytest.mark.slow
@given(
    capacity=st.integers(4, 40),
    blocks=st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=12),
    takes=st.integers(1, 7),
)
def test_every_reader_gets_every_row_once_and_in_order_however_long_the_blocks(
    capacity: int, blocks: list[tuple[bool, int]], takes: int
) -> None:
    """Two feeds, blocks longer than the ring, two readers of which one takes few rows at a time."""
    total = sum(rows for _, rows in blocks)

    async def main() -> None:
        senders = Senders(capacity)
        found: dict[str, list[int]] = {"quick": [], "slow": []}
        prices: dict[str, list[float]] = {"quick": [], "slow": []}

        async def read(name: str, most: int | None) -> None:
            with senders.market.subscribe(name) as receiver:
                while True:
                    try:
                        batch = await receiver.receive(most)
                    except trio.EndOfChannel:
                        return
                    found[name] += batch["sequence"].tolist()
                    prices[name] += batch["bid"].tolist()
                    stamps = senders.market.t1[batch.slot : batch.slot + len(batch)]
                    assert (stamps > 0).all()

        async def feed(by: EngineSender, which: bool) -> None:
            for number, (one, rows) in enumerate(blocks):
                if one == which:
                    await senders.quotes(*(float(1 + number * 100 + row) for row in range(rows)), by=by)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "quick", None)
            nursery.start_soon(read, "slow", takes)
            await wait_all_tasks_blocked()
            async with trio.open_nursery() as feeds:
                feeds.start_soon(feed, senders.one, True)
                feeds.start_soon(feed, senders.other, False)
            senders.market.sender.close()
        for name in ("quick", "slow"):
            assert len(found[name]) == total == senders.market.rows_sent
            assert found[name] == sorted(set(found[name]))
            for which in (True, False):
                expected = [
                    1.0 + number * 100 + row
                    for number, (one, rows) in enumerate(blocks)
                    if one == which
                    for row in range(rows)
                ]
                mine = set(expected)
                assert [price for price in prices[name] if price in mine] == expected

    trio.run(main)


async def test_a_cancelled_send_wrote_nothing(autojump_clock: MockClock) -> None:
    senders = Senders(8)
    receiver = senders.market.subscribe("a")
    for _ in range(4):
        await senders.quotes(1.0, 2.0)
    with trio.move_on_after(1) as scope:
        await senders.quotes(3.0, 4.0)
    assert scope.cancelled_caught
    assert senders.market.rows_sent == 8
    assert len(receiver.receive_nowait()) == 8


@pytest.mark.parametrize("timeout_s", [None, 2.0])
async def test_who_takes_nothing_from_a_full_ring_is_named_again_and_again(
    autojump_clock: MockClock, timeout_s: float | None
) -> None:
    senders = Senders(8, stall_timeout_s=timeout_s)
    said: list[tuple[float, list[str]]] = []
    began = trio.current_time()
    senders.market.on_stall = lambda names: said.append((round(trio.current_time() - began, 3), sorted(names)))
    stuck, late, slow, quick = (senders.market.subscribe(name) for name in ("stuck", "late", "slow", "quick"))

    async def take_once() -> None:
        await trio.sleep(1.5)
        late.receive_nowait(1)

    async def take(receiver: Any, every_s: float) -> None:
        while True:
            await receiver.receive(1)
            await trio.sleep(every_s)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, slow, 0.9)
        nursery.start_soon(take, quick, 0)
        nursery.start_soon(take_once)
        for _ in range(4):
            await senders.quotes(1.0, 2.0)
        with trio.move_on_after(4.5):
            await senders.quotes(3.0)
        if timeout_s is None:
            assert said == []
        else:
            assert [names for _, names in said] == [["stuck"], ["late", "stuck"], ["late", "stuck"]]
            assert [at for at, _ in said] == pytest.approx([2, 3, 4], abs=0.01)
        late.close()
        nursery.start_soon(take, stuck, 0.1)
        await senders.quotes(5.0)
        nursery.cancel_scope.cancel()


def test_fields_of_bars_and_quotes_differ() -> None:
    assert set(MARKET_FIELDS) - set(BAR_FIELDS)
    assert MarketRing(8, BAR_FIELDS).sender.fields.keys() == BAR_FIELDS.keys()
