"""The watch: the latest value, for many readers, without ever holding the writer up."""

import pytest
import trio
from trio.testing import assert_checkpoints, assert_no_checkpoints, wait_all_tasks_blocked

from scheduler import TaskPriority, open_scheduler, open_watch


async def test_a_reader_gets_the_latest_and_skips_what_it_missed() -> None:
    writer, reader = open_watch("a")
    assert reader.latest() == "a"
    with assert_no_checkpoints():
        for value in "bcd":
            writer.set(value)
    assert reader.latest() == writer.latest() == "d"
    with assert_checkpoints():
        assert await reader.changed() == "d"
    with trio.move_on_after(0) as scope:
        await reader.changed()
    assert scope.cancelled_caught, "there is no further news"


async def test_the_initial_value_is_no_news_and_the_present_one_neither_for_a_subscriber() -> None:
    writer, reader = open_watch(0)
    writer.set(1)
    late, twin = writer.subscribe(), reader.clone()
    for end, is_news in [(reader, True), (twin, True), (late, False), (open_watch(0)[1], False)]:
        with trio.move_on_after(60 if is_news else 0.001) as scope:
            await end.changed()
        assert scope.cancelled_caught is not is_news


@pytest.mark.parametrize("lane", [None, TaskPriority.CRITICAL, TaskPriority.LOW])
async def test_all_readers_that_wait_are_woken(lane: TaskPriority | None) -> None:
    writer, reader = open_watch(0)
    seen: list[list[int]] = [[] for _ in range(20)]

    async def read(number: int) -> None:
        end = reader.clone()
        try:
            while True:
                with assert_checkpoints():
                    seen[number].append(await end.changed())
        except trio.EndOfChannel:
            end.close()

    async def run(start: object) -> None:
        for number in range(20):
            start(number)  # type: ignore[operator]
        for value in range(1, 6):
            await wait_all_tasks_blocked()
            writer.set(value)
        await wait_all_tasks_blocked()
        writer.close()

    if lane is None:
        async with trio.open_nursery() as nursery:
            await run(lambda number: nursery.start_soon(read, number))
    else:
        async with open_scheduler() as scheduler:
            await run(lambda number: scheduler.start_soon(lane, read, number))
    assert seen == [[1, 2, 3, 4, 5]] * 20


async def test_a_cancelled_wait_leaves_the_news_news() -> None:
    writer, reader = open_watch(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.changed)
        await wait_all_tasks_blocked()
        assert writer.statistics().tasks_waiting == 1
        nursery.cancel_scope.cancel()
    assert writer.statistics().tasks_waiting == 0
    writer.set(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await reader.changed()
    assert scope.cancelled_caught
    assert await reader.changed() == 1


async def test_the_end_comes_after_the_last_news() -> None:
    writer, reader = open_watch(0)
    other = writer.clone()
    writer.set(1)
    writer.close()
    other.set(2)
    other.close()
    other.close()
    assert await reader.changed() == 2
    for _ in range(2):
        with pytest.raises(trio.EndOfChannel):
            await reader.changed()
    assert reader.latest() == 2


async def test_closing_wakes_who_waits() -> None:
    writer, reader = open_watch(0)
    twin = reader.clone()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def closed_here() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await reader.changed()

        @nursery.start_soon
        async def ended() -> None:
            with pytest.raises(trio.EndOfChannel):
                await twin.changed()

        await wait_all_tasks_blocked()
        with reader:
            pass
        await wait_all_tasks_blocked()
        assert writer.statistics().tasks_waiting == 1
        with writer:
            pass


async def test_use_after_close_is_an_error() -> None:
    writer, reader = open_watch(0)
    writer.close()
    reader.close()
    reader.close()
    for use in (lambda: writer.set(1), writer.clone, writer.subscribe, reader.latest, reader.clone):
        with pytest.raises(trio.ClosedResourceError):
            use()
    with pytest.raises(trio.ClosedResourceError):
        await reader.changed()
    statistics = writer.statistics()
    assert (statistics.version, statistics.open_senders, statistics.open_receivers) == (0, 0, 0)
