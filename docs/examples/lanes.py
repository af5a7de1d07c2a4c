"""Priority lanes alone, in any Trio program: urgent work overtakes a crowd of background tasks."""

import time
from functools import partial

import trio

from scheduler import TaskPriority, open_scheduler


async def crunch():
    for _ in range(50):
        deadline = time.perf_counter() + 0.0005  # half a millisecond of work in every step
        while time.perf_counter() < deadline:
            pass
        await trio.lowlevel.checkpoint()


async def answer(asked):
    for _ in range(5):
        await trio.lowlevel.checkpoint()
    print(f"  answered after {(time.perf_counter() - asked) * 1e3:5.1f} ms")


async def ask(start_answer):
    for _ in range(3):
        await trio.sleep(0.1)
        start_answer(answer, time.perf_counter())


async def main():
    print("twenty busy tasks in a plain nursery:")
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(crunch)
        await ask(nursery.start_soon)
    print("the same in lanes:")
    async with open_scheduler() as lanes:
        for _ in range(20):
            lanes.start_soon(TaskPriority.BACKGROUND, crunch)
        await ask(partial(lanes.start_soon, TaskPriority.CRITICAL))


trio.run(main)
