"""The channels' public names are where users look for them, and cost nothing to those who do not use the ring."""

import subprocess
import sys

import pytest

import scheduler

NAMES = [
    *("Backpressure", "Batch", "BroadcastReceiver", "BroadcastSender", "EventLog", "Lagged", "MailboxReceiver"),
    *("MailboxSender", "OrderQueue", "PositionCache", "SendTimeout", "SharedLog", "SharedMap", "SharedQueue"),
    *("WatchReceiver", "WatchSender", "open_broadcast", "open_mailbox", "open_watch"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_exported(name: str) -> None:
    assert name in scheduler.__all__
    assert getattr(scheduler, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="open_everything"):
        scheduler.open_everything


def test_numpy_is_imported_with_the_ring_only() -> None:
    before = "import sys, scheduler; assert 'numpy' not in sys.modules"
    code = f"{before}; scheduler.open_broadcast; assert 'numpy' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
