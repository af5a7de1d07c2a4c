"""Priority lanes and channels for any Trio program."""

from scheduler.core import (
    Scheduler,
    TaskCancelled,
    TaskHandle,
    checkpoint_if_needed,
    current_priority,
    open_scheduler,
    pin_thread,
    should_yield,
)
from scheduler.lanes import LaneSettings, TaskPriority

__all__ = [
    "LaneSettings",
    "Scheduler",
    "TaskCancelled",
    "TaskHandle",
    "TaskPriority",
    "checkpoint_if_needed",
    "current_priority",
    "open_scheduler",
    "pin_thread",
    "should_yield",
]
