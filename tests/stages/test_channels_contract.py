"""What every channel promises, whatever its kind: one suite over all of them."""

import inspect
from functools import partial
from typing import Any

import pytest
import trio
from channel_kinds import BOUNDED, COPYING, EVERY, TRIO_MEMORY_CHANNEL, Kind
from trio.testing import assert_checkpoints, assert_no_checkpoints, wait_all_tasks_blocked

from scheduler import TaskPriority, open_scheduler

every_kind = pytest.mark.parametrize("kind", EVERY, ids=str)
bounded_kind = pytest.mark.parametrize("kind", BOUNDED, ids=str)
like_trio = pytest.mark.parametrize("kind", [*BOUNDED, TRIO_MEMORY_CHANNEL], ids=str)


def inside_and_outside_lanes(test: Any) -> Any:
    """Run the test as plain Trio tasks, then as members of a lane (children join their parent's lane)."""

    @pytest.mark.parametrize("lane", [None, TaskPriority.CRITICAL, TaskPriority.MEDIUM], ids=str)
    async def run(lane: TaskPriority | None, **arguments: Any) -> None:
        if lane is None:
            await test(**arguments)
            return
        async with open_scheduler() as scheduler:
            await scheduler.spawn(lane, partial(test, **arguments)).result()

    parameters = inspect.signature(test).parameters.values()
    lane = inspect.Parameter("lane", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = inspect.Signature([*parameters, lane])  # type: ignore[attr-defined]
    run.__name__ = test.__name__
    run.pytestmark = [*run.pytestmark, *getattr(test, "pytestmark", [])]  # type: ignore[attr-defined]
    return run


async def drain(kind: Kind, receiver: Any) -> list[int]:
    """All values until the channel ends."""
    values: list[int] = []
    while True:
        try:
            values += await kind.take(receiver)
        except trio.EndOfChannel:
            return values


@every_kind
@inside_and_outside_lanes
async def test_everything_arrives_once_and_in_order(kind: Kind) -> None:
    sender, receiver = kind.open(1000)
    for value in range(500):
        kind.send_nowait(sender, value)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            with sender:
                for value in range(500, 1000):
                    await kind.send(sender, value)

        assert await drain(kind, receiver) == list(range(1000))


@like_trio
@pytest.mark.parametrize("capacity", [1, 2, 3, 7])
@inside_and_outside_lanes
async def test_everything_arrives_through_a_channel_that_is_too_small(kind: Kind, capacity: int) -> None:
    sender, receiver = kind.open(capacity)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            with sender:
                for value in range(100):
                    await kind.send(sender, value)

        assert await drain(kind, receiver) == list(range(100))


@like_trio
@inside_and_outside_lanes
async def test_nothing_overtakes_a_send_that_waits(kind: Kind) -> None:
    sender, receiver = kind.open(1)
    kind.send_nowait(sender, 0)
    async with trio.open_nursery() as nursery:
        for value in (1, 2, 3):
            nursery.start_soon(kind.send, sender, value)
            await wait_all_tasks_blocked()
        received = []
        while len(received) < 4:
            with pytest.raises(trio.WouldBlock):
                kind.send_nowait(sender, 99)
            received += await kind.take(receiver)
    assert received == [0, 1, 2, 3]


@like_trio
@inside_and_outside_lanes
async def test_senders_that_are_clones_share_one_channel(kind: Kind) -> None:
    sender, receiver = kind.open(4)
    async with trio.open_nursery() as nursery:
        for first in (0, 100, 200):

            @nursery.start_soon
            async def send(first: int = first, end: Any = sender.clone()) -> None:  # noqa: B008
                with end:
                    for value in range(first, first + 50):
                        await kind.send(end, value)

        sender.close()
        received = await drain(kind, receiver)
    assert sorted(received) == [first + value for first in (0, 100, 200) for value in range(50)]
    for first in (0, 100, 200):
        assert [v for v in received if first <= v < first + 50] == list(range(first, first + 50))


@like_trio
@inside_and_outside_lanes
async def test_receivers_that_are_clones_share_the_stream(kind: Kind) -> None:
    sender, receiver = kind.open(3)
    shares: list[list[int]] = []
    async with trio.open_nursery() as nursery:
        for end in (receiver, receiver.clone(), receiver.clone()):

            @nursery.start_soon
            async def work(end: Any = end) -> None:
                shares.append(await drain(kind, end))

        await wait_all_tasks_blocked()
        with sender:
            for value in range(100):
                await kind.send(sender, value)
    assert sorted(value for share in shares for value in share) == list(range(100))
    assert all(share == sorted(share) for share in shares)


@every_kind
@inside_and_outside_lanes
async def test_the_end_comes_after_everything_was_received(kind: Kind) -> None:
    sender, receiver = kind.open(8)
    clone = sender.clone()
    kind.send_nowait(sender, 0)
    sender.close()
    kind.send_nowait(clone, 1)
    clone.close()
    received: list[int] = []
    while len(received) < 2:
        received += kind.take_nowait(receiver)
    assert received == [0, 1]
    for _ in range(2):
        with pytest.raises(trio.EndOfChannel):
            kind.take_nowait(receiver)
        with pytest.raises(trio.EndOfChannel):
            await kind.take(receiver)


@every_kind
@inside_and_outside_lanes
async def test_closing_the_last_sender_ends_receivers_that_wait(kind: Kind) -> None:
    sender, receiver = kind.open(8)
    results = []
    async with trio.open_nursery() as nursery:
        for end in (receiver, receiver.clone()):

            @nursery.start_soon
            async def wait(end: Any = end) -> None:
                with pytest.raises(trio.EndOfChannel):
                    await kind.take(end)
                results.append("ended")

        await wait_all_tasks_blocked()
        assert not results
        sender.close()
    assert results == ["ended", "ended"]


@every_kind
@inside_and_outside_lanes
async def test_use_after_close_is_an_error_and_closing_twice_is_none(kind: Kind) -> None:
    sender, receiver = kind.open(8)
    kind.send_nowait(sender, 0)
    for end in (sender, receiver):
        with end:
            pass
        end.close()
    for use in (lambda: kind.send_nowait(sender, 1), lambda: kind.take_nowait(receiver), sender.clone, receiver.clone):
        with pytest.raises(trio.ClosedResourceError):
            use()
    with pytest.raises(trio.ClosedResourceError):
        await kind.send(sender, 1)
    with pytest.raises(trio.ClosedResourceError):
        await kind.take(receiver)
    assert sender.statistics() == receiver.statistics()


@bounded_kind
@inside_and_outside_lanes
async def test_closing_an_end_that_waits_raises_there(kind: Kind) -> None:
    sender, receiver = kind.open(1)
    other = sender.clone()
    kind.send_nowait(sender, 0)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await kind.send(sender, 1)

        await wait_all_tasks_blocked()
        sender.close()
    assert kind.take_nowait(receiver) == [0], "nothing of the refused send may be left behind"
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await kind.take(receiver)

        await wait_all_tasks_blocked()
        receiver.close()
    other.close()


@bounded_kind
@inside_and_outside_lanes
async def test_a_waiting_clone_goes_on_when_another_one_closes(kind: Kind) -> None:
    sender, receiver = kind.open(4)
    clone = receiver.clone()
    received: list[int] = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def closes() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await kind.take(receiver)

        await wait_all_tasks_blocked()

        @nursery.start_soon
        async def receives() -> None:
            received.extend(await kind.take(clone))

        await wait_all_tasks_blocked()
        kind.send_nowait(sender, 0)  # wakes the first, which is closed before it runs
        receiver.close()
    assert received == [0]


@every_kind
@inside_and_outside_lanes
async def test_checkpoints_are_where_they_are_promised(kind: Kind) -> None:
    sender, receiver = kind.open(8)
    with assert_checkpoints():
        await kind.send(sender, 0)
    with assert_checkpoints():
        assert await kind.take(receiver) == [0]
    with assert_no_checkpoints():
        kind.send_nowait(sender, 1)
        assert kind.take_nowait(receiver) == [1]
        with pytest.raises(trio.WouldBlock):
            kind.take_nowait(receiver)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def blocked() -> None:
            with assert_checkpoints():
                assert await kind.take(receiver) == [2]
            sender.close()
            with assert_checkpoints(), pytest.raises(trio.EndOfChannel):
                await kind.take(receiver)

        await wait_all_tasks_blocked()
        kind.send_nowait(sender, 2)


@like_trio
@inside_and_outside_lanes
async def test_a_send_that_waits_is_a_checkpoint(kind: Kind) -> None:
    sender, receiver = kind.open(1)
    kind.send_nowait(sender, 0)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def blocked() -> None:
            with assert_checkpoints():
                await kind.send(sender, 1)
            sender.close()

        await wait_all_tasks_blocked()
        assert await drain(kind, receiver) == [0, 1]


@every_kind
@inside_and_outside_lanes
async def test_in_a_cancelled_scope_nothing_happens(kind: Kind) -> None:
    sender, receiver = kind.open(8)
    kind.send_nowait(sender, 0)
    with trio.CancelScope() as scope:
        scope.cancel()
        await kind.send(sender, 1)
    assert scope.cancelled_caught
    with trio.CancelScope() as scope:
        scope.cancel()
        await kind.take(receiver)
    assert scope.cancelled_caught
    assert kind.take_nowait(receiver) == [0]
    with pytest.raises(trio.WouldBlock):
        kind.take_nowait(receiver)


@like_trio
@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("capacity", [1, 3])
@inside_and_outside_lanes
async def test_what_was_sent_is_what_is_received_wherever_a_cancellation_falls(
    kind: Kind, steps: int, capacity: int
) -> None:
    """Sender and receiver are cancelled ``steps`` checkpoints after they began, again and again."""
    sender, receiver = kind.open(capacity)
    sent: list[int] = []
    received: list[int] = []

    async def cancel_after(scope: trio.CancelScope, count: int) -> None:
        for _ in range(count):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async def send() -> None:
        with sender:
            for value in range(60):
                async with trio.open_nursery() as nursery:
                    if value % 3:
                        nursery.start_soon(cancel_after, nursery.cancel_scope, steps)
                    await kind.send(sender, value)
                    sent.append(value)
                    nursery.cancel_scope.cancel()

    async def receive() -> None:
        patience = 0
        while True:
            patience += 1
            async with trio.open_nursery() as nursery:
                if patience % 2:
                    nursery.start_soon(cancel_after, nursery.cancel_scope, steps)
                try:
                    received.extend(await kind.take(receiver))
                except trio.EndOfChannel:
                    nursery.cancel_scope.cancel()
                    return
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(receive)
    assert received == sent
    assert len(sent) >= 20


@like_trio
@inside_and_outside_lanes
async def test_a_cancelled_send_lets_the_next_one_go(kind: Kind) -> None:
    sender, receiver = kind.open(1)
    kind.send_nowait(sender, 0)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        @nursery.start_soon
        async def cancelled() -> None:
            with scope:
                await kind.send(sender, 1)

        await wait_all_tasks_blocked()
        nursery.start_soon(kind.send, sender, 2)
        await wait_all_tasks_blocked()
        scope.cancel()
        assert await kind.take(receiver) == [0]
        assert await kind.take(receiver) == [2]


@bounded_kind
@pytest.mark.parametrize("capacity", [4, 9, 10])
@inside_and_outside_lanes
async def test_it_takes_what_its_room_allows_and_not_more(kind: Kind, capacity: int) -> None:
    sender, receiver = kind.open(capacity)
    for value in range(kind.room(capacity)):
        kind.send_nowait(sender, value)
    assert sender.statistics().used == kind.room(capacity)
    with pytest.raises(trio.WouldBlock):
        kind.send_nowait(sender, 99)
    assert sender.statistics().used == kind.room(capacity)
    sender.close()
    assert await drain(kind, receiver) == list(range(kind.room(capacity)))


@pytest.mark.parametrize("kind", COPYING, ids=str)
@inside_and_outside_lanes
async def test_receivers_of_copies_never_hold_the_sender_back(kind: Kind) -> None:
    sender, receiver = kind.open(4)
    for value in range(100):
        kind.send_nowait(sender, value)
        await kind.send(sender, value)
    receiver.close()


@every_kind
@pytest.mark.parametrize("capacity", [0, -1])
def test_a_capacity_below_one_is_refused(kind: Kind, capacity: int) -> None:
    with pytest.raises(ValueError, match=f"capacity must be at least 1, was {capacity}"):
        kind.open(capacity)


@every_kind
def test_a_capacity_that_is_no_integer_is_refused(kind: Kind) -> None:
    with pytest.raises(TypeError, match="capacity must be an int"):
        kind.open(2.5)  # type: ignore[arg-type]


@every_kind
@inside_and_outside_lanes
async def test_opened_outside_trio_it_works_inside(kind: Kind) -> None:
    opened: list[Any] = []
    await trio.to_thread.run_sync(lambda: opened.append(kind.open(1)))
    sender, receiver = opened[0]
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            with sender:
                for value in range(3):
                    await kind.send(sender, value)
                    await wait_all_tasks_blocked(0.0)

        assert await drain(kind, receiver) == [0, 1, 2]
