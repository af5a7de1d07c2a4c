"""Random scripts of senders and receivers on a clock that jumps, against what any order of events must satisfy.

Senders pause, send, are cancelled, time out; receivers join late, pause, take few, leave early, lag. A recorder
receives everything at once; what it saw is the order in which rows were accepted, and all else is compared with it.
"""

from collections import Counter
from typing import Any

import attrs
import numpy as np
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from scheduler import Backpressure, Lagged, SendTimeout, TaskPriority, open_broadcast, open_mailbox, open_scheduler

pauses = st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 3.0])


@attrs.frozen
class Send:
    """Pause, then send ``count`` rows, cancelled ``give_up_s`` later (if that is not 0)."""

    pause_s: float
    count: int
    give_up_s: float
    from_clone: bool


@attrs.frozen
class Reader:
    """Joins after ``join_s``, pauses after every batch, leaves after ``batches``."""

    join_s: float
    pause_s: float
    max_items: int | None
    batches: int
    policy: str


sends = st.builds(Send, pauses, st.integers(1, 6), st.sampled_from([0.0, 0.0, 0.25, 0.5, 2.0]), st.booleans())
readers = st.builds(
    Reader,
    pauses,
    pauses,
    st.none() | st.integers(1, 4),
    st.integers(0, 12),
    st.sampled_from(["lossless", "lossless", "lagging"]),
)
scripts = st.lists(st.lists(sends, min_size=1, max_size=8), min_size=1, max_size=3)
lanes = st.sampled_from([None, None, TaskPriority.CRITICAL, TaskPriority.MEDIUM])


def run(main: Any, lane: TaskPriority | None) -> None:
    async def inside() -> None:
        if lane is None:
            await main()
            return
        async with open_scheduler() as scheduler:
            await scheduler.spawn(lane, main).result()

    trio.run(inside, clock=trio.testing.MockClock(autojump_threshold=0))


async def send_as_scripted(sender: Any, script: list[Send], rows_of: Any, timeout_s: float) -> list[int]:
    """Returns the numbers that were sent; those of a cancelled or timed-out send are none of them."""
    sent: list[int] = []
    number = 0
    for step in script:
        await trio.sleep(step.pause_s)
        numbers = list(range(number, number + step.count))
        number += step.count
        rows = rows_of(numbers)
        end = sender.clone() if step.from_clone else sender
        began = trio.current_time()
        with trio.CancelScope(deadline=began + step.give_up_s if step.give_up_s else np.inf):
            try:
                await end.send(rows)
                sent += numbers
            except SendTimeout as timeout:
                assert timeout.item is rows  # noqa: PT017  # whether it times out is open
                assert trio.current_time() - began >= timeout_s
        if step.from_clone:
            end.close()
    sender.close()
    return sent


@given(
    scripts=scripts,
    readers=st.lists(readers, max_size=4),
    capacity=st.integers(6, 12),
    watermarks=st.booleans(),
    debug=st.booleans(),
    lane=lanes,
)
def test_ring(
    scripts: list[list[Send]], readers: list[Reader], capacity: int, watermarks: bool, debug: bool, lane: Any
) -> None:
    timeout_s = 4.0
    backpressure = Backpressure(send_timeout_s=timeout_s) if watermarks else None

    async def main() -> None:
        sender, recorder = open_broadcast(
            capacity, {"sender": "i4", "number": "i8"}, backpressure=backpressure, debug=debug
        )
        record: list[tuple[int, int]] = []
        sent: dict[int, list[int]] = {}
        seen: list[tuple[Reader, int, list[tuple[int, int]], int]] = []

        async def send(place: int, end: Any) -> None:
            sent[place] = await send_as_scripted(
                end, scripts[place], lambda numbers: {"sender": place, "number": np.array(numbers)}, timeout_s
            )

        async def keep_record() -> None:
            async for batch in recorder:
                record.extend(zip(batch["sender"].tolist(), batch["number"].tolist(), strict=True))

        async def read(reader: Reader) -> None:
            await trio.sleep(reader.join_s)
            with recorder.subscribe(reader.policy) as end:
                joined_at = sender.statistics().sent
                rows: list[tuple[int, int]] = []
                missed = 0
                for _ in range(reader.batches):
                    try:
                        batch = await end.receive(reader.max_items)
                    except trio.EndOfChannel:
                        break
                    except Lagged as lagged:
                        missed += lagged.missed
                        continue
                    assert len(batch) <= (reader.max_items or capacity)
                    before = list(zip(batch["sender"].tolist(), batch["number"].tolist(), strict=True))
                    assert batch.sequence == joined_at + missed + len(rows)
                    rows += before
                    await trio.sleep(reader.pause_s)
                    assert list(zip(batch["sender"].tolist(), batch["number"].tolist(), strict=True)) == before
                seen.append((reader, joined_at, rows, missed))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_record)
            for reader in readers:
                nursery.start_soon(read, reader)
            for place in range(len(scripts)):
                nursery.start_soon(send, place, sender.clone())
            sender.close()

        for place in range(len(scripts)):
            assert [number for who, number in record if who == place] == sent[place]
        assert len(record) == sum(len(numbers) for numbers in sent.values())
        for reader, joined_at, rows, missed in seen:
            if reader.policy == "lossless":
                assert missed == 0
                assert rows == record[joined_at : joined_at + len(rows)]
            else:
                assert set(rows) <= set(record[joined_at:])
        statistics = sender.statistics()
        assert statistics.sends_waiting == statistics.receivers_waiting == statistics.used == 0
        assert statistics.receivers[1:] == ()

    run(main, lane)


@given(
    scripts=scripts,
    workers=st.lists(readers, min_size=1, max_size=3),
    capacity=st.integers(1, 10),
    watermarks=st.booleans(),
    lane=lanes,
)
def test_mailbox(scripts: list[list[Send]], workers: list[Reader], capacity: int, watermarks: bool, lane: Any) -> None:
    """Workers compete and leave; the last one stays. Items are whole sends (lists), sent one by one."""
    timeout_s = 4.0
    backpressure = Backpressure(send_timeout_s=timeout_s) if watermarks else None

    async def main() -> None:
        sender, receiver = open_mailbox[tuple[int, list[int]]](capacity, backpressure=backpressure)
        sent: dict[int, list[int]] = {}
        taken: list[list[tuple[int, list[int]]]] = []

        async def send(place: int, end: Any) -> None:
            sent[place] = await send_as_scripted(end, scripts[place], lambda numbers: (place, numbers), timeout_s)

        async def work(worker: Reader, end: Any, stays: bool) -> None:
            mine: list[tuple[int, list[int]]] = []
            taken.append(mine)
            await trio.sleep(worker.join_s)
            with end:
                turns = 0
                while stays or turns < worker.batches:
                    turns += 1
                    try:
                        with trio.move_on_after(2.0):
                            mine += await end.receive_batch(worker.max_items)
                    except trio.EndOfChannel:
                        break
                    await trio.sleep(worker.pause_s)

        async with trio.open_nursery() as nursery:
            for place, worker in enumerate(workers):
                nursery.start_soon(work, worker, receiver.clone(), place == 0)
            receiver.close()
            for place in range(len(scripts)):
                nursery.start_soon(send, place, sender.clone())
            sender.close()

        everything = [item for mine in taken for item in mine]
        for place in range(len(scripts)):
            numbers = [number for who, run in everything if who == place for number in run]
            assert Counter(numbers) == Counter(sent[place])
            for mine in taken:
                own = [number for who, run in mine if who == place for number in run]
                assert own == sorted(own)
        statistics = sender.statistics()
        assert statistics.sends_waiting == statistics.receivers_waiting == statistics.used == 0

    run(main, lane)
