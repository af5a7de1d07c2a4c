"""Checked by mypy --strict, never run: the types that the scheduler's public names promise."""

from typing import assert_type

import scheduler as s
from scheduler import LaneSettings, RuntimeSettings, Scheduler, TaskHandle, TaskPriority, Timing


async def answer(number: int) -> str:
    return str(number)


async def use(opened: Scheduler) -> None:
    handle = opened.spawn(TaskPriority.LOW, answer, 1)
    assert_type(handle, TaskHandle[str])
    assert_type(await handle.result(), str)
    assert_type(handle.done, bool)
    assert_type(handle.name, str)
    assert_type(handle.priority, TaskPriority)
    handle.priority = TaskPriority.HIGH
    assert_type(await opened.submit(TaskPriority.LOW, answer, 1, name="named"), TaskHandle[str])
    assert_type(await opened.run_blocking(len, "abc", priority=TaskPriority.LOW), int)
    assert_type(opened.statistics().lanes[TaskPriority.LOW].wake_to_run, Timing)
    assert_type(s.current_priority(), TaskPriority | None)
    assert_type(s.should_yield(), bool)


async def open_it() -> None:
    lanes = {TaskPriority.LOW: LaneSettings(share=100)}
    async with s.open_scheduler(
        policy="strict", quantum_s=1e-4, lanes=lanes, critical_quota=0.9, freeze_gc=True, runtime=RuntimeSettings()
    ) as opened:
        assert_type(opened, Scheduler)
    s.open_scheduler(policy="fair")  # type: ignore[arg-type]
