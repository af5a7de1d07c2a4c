"""Priority lanes and channels for any Trio program."""

from importlib import import_module
from typing import TYPE_CHECKING

from scheduler.backpressure import Backpressure
from scheduler.channel_errors import Lagged, SendTimeout
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
from scheduler.mailbox import MailboxReceiver, MailboxSender, open_mailbox
from scheduler.shared import EventLog, OrderQueue, PositionCache, SharedLog, SharedMap, SharedQueue
from scheduler.watch import WatchReceiver, WatchSender, open_watch

if TYPE_CHECKING:
    from scheduler.broadcast import Batch, BroadcastReceiver, BroadcastSender, open_broadcast

__all__ = [
    "Backpressure",
    "Batch",
    "BroadcastReceiver",
    "BroadcastSender",
    "EventLog",
    "Lagged",
    "LaneSettings",
    "MailboxReceiver",
    "MailboxSender",
    "OrderQueue",
    "PositionCache",
    "Scheduler",
    "SendTimeout",
    "SharedLog",
    "SharedMap",
    "SharedQueue",
    "TaskCancelled",
    "TaskHandle",
    "TaskPriority",
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
]

_NEEDS_NUMPY = {"Batch", "BroadcastReceiver", "BroadcastSender", "open_broadcast"}


def __getattr__(name: str) -> object:
    """The ring's names import NumPy, which takes longer than all else here: only for those who use them."""
    if name in _NEEDS_NUMPY:
        return getattr(import_module("scheduler.broadcast"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
