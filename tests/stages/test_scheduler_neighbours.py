"""The scheduler beside what else runs on Trio: pytest-trio, anyio, trio-asyncio, guest mode, greenback."""

import asyncio
import subprocess
import sys
from typing import Any

import anyio
import greenback
import pytest
import trio
import trio.testing

from scheduler import Scheduler, TaskPriority, current_priority, open_scheduler
from scheduler.testing import assert_at_rest

CRITICAL, HIGH, MEDIUM, LOW, BACKGROUND = TaskPriority


async def step(steps: int = 20) -> str:
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    return "done"


async def crowd(scheduler: Scheduler) -> None:
    for _ in range(20):
        scheduler.start_soon(BACKGROUND, step, 50)


@pytest.fixture
async def scheduler() -> Any:
    async with open_scheduler() as opened:
        yield opened


async def test_pytest_trio_fixtures_and_clock(scheduler: Scheduler, autojump_clock: Any, nursery: trio.Nursery) -> None:
    await crowd(scheduler)
    nursery.start_soon(step)
    start = trio.current_time()
    handle = scheduler.spawn(LOW, trio.sleep, 100)
    await handle.result()
    assert trio.current_time() - start == pytest.approx(100)
    assert_at_rest(scheduler)


async def test_anyio(scheduler: Scheduler) -> None:
    async def uses_anyio() -> Any:
        got: list[Any] = []
        lock = anyio.Lock()

        async def child(number: int) -> None:
            async with lock:
                await anyio.sleep(0)
                got.append((number, current_priority(), anyio.get_current_task().id is not None))

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(child, number)
        with anyio.move_on_after(0) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        got.append(await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(step)))
        return got

    await crowd(scheduler)
    got = await scheduler.spawn(LOW, uses_anyio).result()
    assert sorted(got[:3]) == [(number, LOW, True) for number in range(3)]
    assert got[3] == "done"


WITH_TRIO_ASYNCIO = """
import asyncio, trio, trio_asyncio
from scheduler import TaskPriority, open_scheduler

async def step():
    for _ in range(20):
        await trio.lowlevel.checkpoint()
    return "done"

async def uses_asyncio():
    async def in_asyncio():
        await asyncio.sleep(0.001)
        return await trio_asyncio.trio_as_aio(step)()
    async with trio_asyncio.open_loop():
        return await trio_asyncio.aio_as_trio(in_asyncio)()

async def main():
    async with open_scheduler() as scheduler:
        for _ in range(20):
            scheduler.start_soon(TaskPriority.BACKGROUND, step)
        for lane in (TaskPriority.LOW, TaskPriority.CRITICAL):
            print(await scheduler.spawn(lane, uses_asyncio).result())

trio.run(main)
"""


@pytest.mark.slow
def test_trio_asyncio() -> None:
    """In a process of its own: importing trio_asyncio changes asyncio for all that comes after it."""
    command = [sys.executable, "-c", WITH_TRIO_ASYNCIO]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert (done.stdout.split(), done.returncode) == (["done", "done"], 0), done.stderr


def test_guest_mode() -> None:
    async def main() -> str:
        async with open_scheduler() as scheduler:
            await crowd(scheduler)
            result = await scheduler.spawn(LOW, step).result()
            await trio.sleep(0.001)
            assert await scheduler.run_blocking(lambda: 5) == 5
        assert_at_rest(scheduler)
        assert scheduler.statistics().instrument_lost == 0
        return result

    async def host() -> Any:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            main, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        return (await done).unwrap()

    assert asyncio.run(host()) == "done"


async def test_greenback(scheduler: Scheduler) -> None:
    def synchronous() -> Any:
        first = greenback.await_(step(3))
        greenback.await_(trio.sleep(0))
        return first, current_priority()

    async def ensured() -> Any:
        await greenback.ensure_portal()
        await step(2)
        result = synchronous()
        with trio.move_on_after(0) as scope:
            greenback.await_(trio.sleep_forever())
        assert scope.cancelled_caught
        return result

    async def with_portal() -> Any:
        return await greenback.with_portal_run_sync(synchronous)

    async def tree() -> Any:
        results = []

        async def child() -> None:
            results.append(synchronous())

        async def parent() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(child)

        await greenback.with_portal_run_tree(parent)
        assert len(set(results)) == 1
        return results[0]

    await crowd(scheduler)
    for lane in (LOW, CRITICAL):
        for function in (ensured, with_portal, tree):
            assert await scheduler.spawn(lane, function).result() == ("done", lane)
