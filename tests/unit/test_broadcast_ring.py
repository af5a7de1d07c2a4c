"""What a ring takes, where it puts it, and what it refuses before anything has happened."""

from typing import Any

import numpy as np
import polars
import pyarrow
import pytest
import trio
import trio.testing

from scheduler import Lagged, open_broadcast

DAY = np.datetime64("2026-01-02")
FIELDS = {"bid": "f8", "size": "i4", "flag": "u1"}


def rows(count: int, first: int = 0) -> dict[str, Any]:
    numbers = np.arange(first, first + count)
    return {"bid": numbers / 4, "size": numbers.astype("i4"), "flag": (numbers % 5).astype("u1")}


@pytest.mark.parametrize("capacity", range(1, 10))
def test_batches_are_right_at_every_offset_and_never_cross_the_end(capacity: int) -> None:
    for offset in range(capacity):
        for count in range(1, capacity + 1):
            sender, receiver = open_broadcast(capacity, FIELDS)
            if offset:
                sender.send_nowait(rows(offset))
                assert len(receiver.receive_nowait()) == offset
                with pytest.raises(trio.WouldBlock):
                    receiver.receive_nowait()
            sender.send_nowait(rows(count, offset))
            sizes = []
            for _ in range(2):
                try:
                    batch = receiver.receive_nowait()
                except trio.WouldBlock:
                    break
                expected = rows(len(batch), batch.sequence)
                assert all((batch[field] == expected[field]).all() for field in FIELDS)
                assert batch.slot == batch.sequence % capacity
                assert batch.slot + len(batch) <= capacity
                sizes.append(len(batch))
            assert sizes == ([count] if offset + count <= capacity else [capacity - offset, offset + count - capacity])


@pytest.mark.parametrize(
    ("sent", "error", "message"),
    [
        ({"bid": [1.0], "size": [1]}, ValueError, r"missing \['flag'\], unknown \[\]"),
        ({"bid": [1.0], "size": [1], "flag": [1], "x": [1]}, ValueError, r"missing \[\], unknown \['x'\]"),
        ({"bid": [1.0, 2.0], "size": [1], "flag": [1]}, ValueError, "of one length, 'size' has 1 rows, not 2"),
        ({"bid": np.ones((2, 2)), "size": [1, 2], "flag": [1, 2]}, ValueError, "'bid' must be one-dimensional"),
        ({"bid": 1.0, "size": np.array([1.0]), "flag": 1}, TypeError, "'size' must be of type int32, was float64"),
        ({"bid": 1.0, "size": np.array([2**40]), "flag": 1}, TypeError, "'size' must be of type int32, was int64"),
        ({"bid": 1.0, "size": [2**40], "flag": 1}, TypeError, "'size' must be of type int32, and not all"),
        ({"bid": 1.0, "size": [1.5], "flag": 1}, TypeError, "'size' must be of type int32, and not all"),
        ({"bid": 1.0, "size": 1, "flag": -1}, TypeError, "'flag' must be of type uint8, and not all"),
        ({"bid": "1.0", "size": 1, "flag": 1}, TypeError, "'bid' must be of type float64"),
        ({"bid": [None], "size": 1, "flag": 1}, TypeError, "'bid' must be of type float64"),
        ({"bid": 1j, "size": 1, "flag": 1}, TypeError, "'bid' must be of type float64"),
        (rows(5), ValueError, "at most 4 rows"),
    ],
)
async def test_what_is_wrong_is_refused_before_any_effect(sent: Any, error: type[Exception], message: str) -> None:
    sender, receiver = open_broadcast(4, FIELDS)
    sender.send_nowait(rows(2))
    before = sender.statistics()
    with pytest.raises(error, match=message):
        sender.send_nowait(sent)
    with pytest.raises(error, match=message):
        await sender.send(sent)
    with pytest.raises(error, match=message):
        await trio.to_thread.run_sync(sender.send_from_thread, sent)
    assert sender.statistics() == before
    assert receiver.receive_nowait()["bid"].tolist() == [0.0, 0.25]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, ValueError),
        ({"x": object}, ValueError),
        ({"x": ("f8", (2,))}, ValueError),
        ({"x": "S0"}, ValueError),
        ({3: "f8"}, TypeError),
        ({"x": "no type"}, TypeError),
    ],
)
def test_fields_that_cannot_lie_in_a_ring_are_refused(fields: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        open_broadcast(4, fields)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan")])
def test_a_stall_timeout_must_be_positive(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="stall_timeout_s must be above 0"):
        open_broadcast(4, FIELDS, stall_timeout_s=timeout_s)


def test_a_wrong_subscription_is_refused_before_any_effect() -> None:
    sender, receiver = open_broadcast(4, FIELDS)
    before = sender.statistics()
    for policy, key in [
        ("lossy", None),
        ("conflating", None),
        ("conflating", "ask"),
        ("lossless", "bid"),
        ("lagging", "bid"),
    ]:
        with pytest.raises(ValueError, match=r"key|Policy"):
            receiver.subscribe(policy, key=key)  # type: ignore[arg-type]
    assert sender.statistics() == before


@pytest.mark.parametrize("max_items", [0, -3])
async def test_a_receive_of_less_than_one_row_is_refused(max_items: int) -> None:
    sender, receiver = open_broadcast(4, FIELDS)
    with pytest.raises(ValueError, match="max_items must be at least 1"):
        await receiver.receive(max_items)  # at once, not when there are rows
    sender.send_nowait(rows(1))
    with pytest.raises(ValueError, match="max_items must be at least 1"):
        receiver.receive_nowait(max_items)
    with pytest.raises(ValueError, match="max_items must be at least 1"):
        await receiver.receive(max_items)


def test_scalars_stand_for_the_whole_run_and_alone_for_one_row() -> None:
    sender, receiver = open_broadcast(8, {"instrument": "i4", "bid": "f8", "venue": "S4", "at": "M8[ns]", "up": "?"})
    sender.send_nowait({"instrument": 7, "bid": [1, 2.5, 3], "venue": b"XLON", "at": DAY, "up": True})
    sender.send_nowait({"instrument": np.int16(8), "bid": 4, "venue": b"X", "at": DAY, "up": False})
    sender.send_nowait({"instrument": [], "bid": [], "venue": b"", "at": DAY, "up": False})
    batch = receiver.receive_nowait()
    assert batch["instrument"].tolist() == [7, 7, 7, 8]
    assert batch["bid"].tolist() == [1.0, 2.5, 3.0, 4.0]
    assert batch["venue"].tolist() == [b"XLON"] * 3 + [b"X"]
    assert batch["at"][3] == np.datetime64(DAY, "ns")
    assert batch["up"].tolist() == [True, True, True, False]


def test_a_senders_array_may_change_after_the_send() -> None:
    sender, receiver = open_broadcast(8, {"bid": "f8"})
    bids = np.array([1.0, 2.0])
    sender.send_nowait({"bid": bids})
    bids[:] = 9.0
    assert receiver.receive_nowait()["bid"].tolist() == [1.0, 2.0]


def test_lossless_receivers_see_the_rings_own_memory() -> None:
    sender, receiver = open_broadcast(8, FIELDS)
    other = sender.subscribe()
    sender.send_nowait(rows(6))
    first, second = receiver.receive_nowait(), other.receive_nowait(4)
    for field in FIELDS:
        assert first[field].ctypes.data == second[field].ctypes.data
        assert not first[field].flags.writeable
        assert not first[field].flags.owndata
        assert first[field].flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            first[field][0] = 1
    statistics = sender.statistics()
    assert statistics.bytes_viewed == (6 + 4) * (8 + 4 + 1)
    assert statistics.bytes_copied == 0
    receiver.close()
    other.close()
    again = sender.subscribe()
    sender.send_nowait(rows(8))
    assert again.receive_nowait()["bid"].ctypes.data == first["bid"].ctypes.data + 6 * 8


def test_frames_over_a_batch_share_its_memory() -> None:
    sender, receiver = open_broadcast(1024, FIELDS)
    sender.send_nowait(rows(1000))
    batch = receiver.receive_nowait()
    table = pyarrow.table(dict(batch.columns))
    frame = polars.from_arrow(table)
    for field in FIELDS:
        (chunk,) = table[field].chunks
        assert chunk.buffers()[1].address == batch[field].ctypes.data
        series = frame[field]
        assert series.to_numpy(allow_copy=False).ctypes.data == batch[field].ctypes.data


def test_copies_are_independent_and_say_where_they_came_from() -> None:
    sender, receiver = open_broadcast(4, {"bid": "f8"})
    lagging = sender.subscribe("lagging")
    sender.send_nowait({"bid": [1.0, 2.0, 3.0]})
    batch = receiver.receive_nowait()
    copy, lagged = batch.copy(), lagging.receive_nowait()
    receiver.close()
    sender.send_nowait({"bid": [7.0, 8.0, 9.0, 10.0]})
    assert batch["bid"].tolist() != [1.0, 2.0, 3.0], "this test must be able to fail"
    for kept in (copy, lagged):
        assert kept["bid"].tolist() == [1.0, 2.0, 3.0]
        assert (kept.sequence, kept.slot, len(kept)) == (0, 0, 3)
        assert list(kept.columns) == ["bid"]
        assert not kept["bid"].flags.writeable


def test_a_batch_lines_up_with_side_arrays_of_the_rings_capacity() -> None:
    sender, receiver = open_broadcast(5, {"number": "i8"})
    side = np.zeros(sender.capacity)
    for first in range(0, 23, 3):
        numbers = np.arange(first, first + 3)
        side[numbers % 5] = numbers * 2
        sender.send_nowait({"number": numbers})
        while True:
            try:
                batch = receiver.receive_nowait()
            except trio.WouldBlock:
                break
            assert (side[batch.slot : batch.slot + len(batch)] == batch["number"] * 2).all()


def test_a_batch_names_what_it_lacks() -> None:
    sender, receiver = open_broadcast(5, {"bid": "f8"})
    sender.send_nowait({"bid": 1.0})
    batch = receiver.receive_nowait()
    with pytest.raises(KeyError, match="ask"):
        batch["ask"]
    with pytest.raises(TypeError, match="not iterable"):
        iter(batch)
    assert repr(batch) == "<Batch of 1 rows from 0: bid>"


async def test_a_kept_view_is_caught_in_debug_mode() -> None:
    """The mistake that debug mode is for: a handler that keeps an array instead of a copy."""
    fields = {"bid": "f8", "size": "i4", "count": "u2", "at": "M8[ns]", "venue": "S2", "up": "?"}
    row = {"bid": 1.5, "size": 3, "count": 4, "at": DAY, "venue": b"AB", "up": False}
    sender, receiver = open_broadcast(16, fields, debug=True)
    kept: list[Any] = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def careless() -> None:
            kept.extend([(batch, dict(batch.columns)) async for batch in receiver])

        for _ in range(2):
            await sender.send(row)
            await trio.testing.wait_all_tasks_blocked()
        sender.close()
    for batch, columns in kept:
        with pytest.raises(RuntimeError, match=r"keep a copy\(\)"):
            batch["bid"]
        with pytest.raises(RuntimeError, match=r"keep a copy\(\)"):
            batch.copy()
        assert np.isnan(columns["bid"]).all()
        assert columns["size"].tolist() == [-(2**31)]
        assert columns["count"].tolist() == [2**16 - 1]
        assert np.isnat(columns["at"]).all()
        assert columns["venue"].tolist() == [b"\xdb\xdb"]
        assert columns["up"].tolist() == [True]


def test_without_receivers_rows_are_counted_as_dropped() -> None:
    sender, receiver = open_broadcast(4, {"bid": "f8"})
    receiver.close()
    for _ in range(3):
        sender.send_nowait({"bid": [1.0, 2.0, 3.0]})
    assert sender.statistics().dropped == {"no_receiver": 9}
    late = sender.subscribe()
    sender.send_nowait({"bid": 5.0})
    assert late.receive_nowait()["bid"].tolist() == [5.0]


def test_every_dropped_row_has_a_reason() -> None:
    sender, receiver = open_broadcast(4, {"key": "i4"})
    lagging, conflating = sender.subscribe("lagging"), sender.subscribe("conflating", key="key")
    for _ in range(3):
        sender.send_nowait({"key": [1, 2, 1]})
        receiver.receive_nowait()
        with pytest.raises(trio.WouldBlock):
            receiver.receive_nowait() and receiver.receive_nowait() and receiver.receive_nowait()
    sender.send_nowait({"key": [5]})
    receiver.close()
    with pytest.raises(Lagged) as lagged:
        lagging.receive_nowait()
    assert lagged.value.missed == 6
    assert conflating.receive_nowait(2)["key"].tolist() == [2, 1]
    conflating.close()
    assert sender.statistics().dropped == {"lagged": 6, "conflated": 7, "closed": 2}


def test_a_conflating_receiver_keeps_the_latest_row_of_a_key_beyond_the_rings_length() -> None:
    sender, receiver = open_broadcast(4, {"key": "i4", "bid": "f8"})
    receiver.close()
    conflating = sender.subscribe("conflating", key="key")
    sender.send_nowait({"key": [1, 2, 1], "bid": [1.0, 2.0, 1.5]})
    for bid in range(20):
        sender.send_nowait({"key": [3, 4, 3], "bid": float(bid)})
    batch = conflating.receive_nowait()
    assert batch["key"].tolist() == [2, 1, 4, 3]
    assert batch["bid"].tolist() == [2.0, 1.5, 19.0, 19.0]
    assert batch.sequence == 1


async def test_rows_wake_one_clone_not_all() -> None:
    sender, receiver = open_broadcast(4, {"bid": "f8"})
    other = sender.subscribe()
    async with trio.open_nursery() as nursery:
        for end in (receiver, receiver.clone(), receiver.clone(), other):
            nursery.start_soon(end.receive)
        await trio.testing.wait_all_tasks_blocked()
        sender.send_nowait({"bid": 1.0})
        assert sender.statistics().receivers_waiting == 2
        await trio.testing.wait_all_tasks_blocked()
        assert sender.statistics().receivers_waiting == 2
        nursery.cancel_scope.cancel()
