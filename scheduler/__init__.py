"""Priority lanes and channels for any Trio program."""

from scheduler.affinity import Pin, pin_thread, unpinned
from scheduler.core import Scheduler, open_scheduler
from scheduler.current import checkpoint_if_needed, current_priority, should_yield, unconstrained
from scheduler.handle import TaskCancelled, TaskHandle
from scheduler.lanes import LaneSettings, TaskPriority
from scheduler.settings import RuntimeSettings
from scheduler.statistics import LaneStatistics, SchedulerStatistics, Timing

__all__ = [
    "LaneSettings",
    "LaneStatistics",
    "Pin",
    "RuntimeSettings",
    "Scheduler",
    "SchedulerStatistics",
    "TaskCancelled",
    "TaskHandle",
    "TaskPriority",
    "Timing",
    "checkpoint_if_needed",
    "current_priority",
    "open_scheduler",
    "pin_thread",
    "should_yield",
    "unconstrained",
    "unpinned",
]
