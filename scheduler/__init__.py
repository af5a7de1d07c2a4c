"""Priority lanes and channels for any Trio program."""

from importlib import import_module
from typing import TYPE_CHECKING

from scheduler.affinity import Pin, pin_thread, unpin_process, unpinned
from scheduler.backpressure import Backpressure
from scheduler.channel_errors import Lagged, SendTimeout
from scheduler.core import Scheduler
from scheduler.current import checkpoint_if_needed, current_priority, should_yield, unconstrained
from scheduler.handle import TaskCancelled, TaskHandle
from scheduler.lanes import LaneSettings, TaskPriority
from scheduler.mailbox import DEFAULT_SIZES, ChannelSizes, MailboxReceiver, MailboxSender, open_mailbox
from scheduler.opening import open_scheduler
from scheduler.settings import RuntimeSettings
from scheduler.shared import EventLog, OrderQueue, PositionCache, SharedLog, SharedMap, SharedQueue
from scheduler.statistics import LaneStatistics, SchedulerStatistics, Timing
from scheduler.watch import WatchReceiver, WatchSender, open_watch

if TYPE_CHECKING:
    from scheduler.broadcast import Batch, BroadcastReceiver, BroadcastSender, open_broadcast

__all__ = [
    "DEFAULT_SIZES",
    "Backpressure",
    "Batch",
    "BroadcastReceiver",
    "BroadcastSender",
    "ChannelSizes",
    "EventLog",
    "Lagged",
    "LaneSettings",
    "LaneStatistics",
    "MailboxReceiver",
    "MailboxSender",
    "OrderQueue",
    "Pin",
    "PositionCache",
    "RuntimeSettings",
    "Scheduler",
    "SchedulerStatistics",
    "SendTimeout",
    "SharedLog",
    "SharedMap",
    "SharedQueue",
    "TaskCancelled",
    "TaskHandle",
    "TaskPriority",
    "Timing",
    "WatchReceiver",
    "WatchSender",
    "checkpoint_if_needed",
    "current_priority",
    "open_broadcast",
    "open_mailbox",
    "open_scheduler",
    "open_watch",
    "pin_thread",
    "should_yield",
    "unconstrained",
    "unpin_process",
    "unpinned",
]

_NEEDS_NUMPY = {"Batch", "BroadcastReceiver", "BroadcastSender", "open_broadcast"}


def __getattr__(name: str) -> object:
    """The ring's names import NumPy, which takes longer than all else here: only for those who use them."""
    if name in _NEEDS_NUMPY:
        return getattr(import_module("scheduler.broadcast"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
