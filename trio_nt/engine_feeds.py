"""The feeds of one engine: a task each, from their connection to their end."""

from collections.abc import Callable, Sequence
from functools import partial

import trio

from scheduler import TaskHandle, TaskPriority
from trio_nt.engine_tasks import EngineTasks
from trio_nt.feeds.base import Feed
from trio_nt.feeds.market_ring import EngineSender
from trio_nt.model.events import FeedState

_LONGEST_END = 12  # times the patience for a feed that goes on sending after it was asked to finish


class EngineFeeds:
    """Runs feeds, and asks for the engine's end when the last of them has ended.

    Args:
        make_sender: what a feed sends its rows with.
        stopping: set where the end was asked for; no feed begins then.
        publish: told what becomes of each feed.
        rows_sent: how many rows all of them have sent.
        rows_unseen: how many quotes and trades some strategy was not shown yet.

    A feed runs in CRITICAL, as risk waits for its prices; while a strategy has not seen the block before, it takes
    turns with the strategies in HIGH. Else, on a busy machine, it would cut what comes into small blocks for those that
    are behind, and take the time in which they could catch up.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        make_sender: Callable[[Feed], EngineSender],
        tasks: EngineTasks,
        *,
        stopping: trio.Event,
        publish: Callable[[FeedState], None],
        now_ns: Callable[[], int],
        rows_sent: Callable[[], int],
        rows_unseen: Callable[[], int],
    ) -> None:
        self._feeds = list(feeds)
        self._make_sender = make_sender
        self._tasks = tasks
        self._stopping = stopping
        self._publish = publish
        self._now_ns = now_ns
        self._rows_sent = rows_sent
        self._rows_unseen = rows_unseen
        self._scopes: list[trio.CancelScope] = []
        self._running = 0
        self._left = len(self._feeds)

    async def start(self) -> None:
        """Start one after the other. Returns when all are connected, or when the end was asked for meanwhile.

        Raises:
            RuntimeError: one has ended without saying that it was connected.
            FeedError: one could not be reached.
        """
        for feed in self._feeds:
            if self._stopping.is_set():
                break
            self._running += 1
            sender = self._make_sender(feed)
            await self._tasks.start(
                TaskPriority.CRITICAL, self._run, feed, sender, name=f"feed {feed!r}",
                on_spawn=partial(self._pace, sender),
            )  # fmt: skip

    async def end(self, patience_s: float) -> None:
        """Let feeds finish what they were sent, where they know how to; cancel the others.

        A feed is cancelled that has sent no row for ``patience_s``: what a busy machine has yet to read is still read.
        """
        with trio.move_on_after(patience_s * _LONGEST_END):
            with trio.move_on_after(patience_s):
                for feed in self._feeds:
                    finish = getattr(feed, "finish", None)
                    if finish is not None:
                        await finish()
            if all(hasattr(feed, "finish") for feed in self._feeds):
                sent = -1
                while self._running and self._rows_sent() > sent:
                    sent = self._rows_sent()
                    with trio.move_on_after(patience_s):
                        await self._tasks.until(lambda: not self._running)
        for scope in self._scopes:
            scope.cancel()
        await self._tasks.until(lambda: not self._running)

    def _pace(self, sender: EngineSender, handle: TaskHandle[None]) -> None:
        """Have a feed take turns while it is ahead of a strategy."""

        def choose_lane(rows: int) -> None:
            lane = TaskPriority.HIGH if self._rows_unseen() > rows else TaskPriority.CRITICAL
            if lane is not handle.priority:
                handle.priority = lane

        sender.on_sent = choose_lane

    async def _run(
        self, feed: Feed, sender: EngineSender, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        scope, is_connected = trio.CancelScope(), False

        class Connected:
            """Tells host and starter that the feed is connected."""

            def started(_, value: None = None) -> None:  # noqa: N805 - self is the feeds'
                nonlocal is_connected
                is_connected = True
                self._tell(feed, "connected")
                task_status.started()

        self._scopes.append(scope)
        self._tell(feed, "connecting")
        try:
            with scope:
                if self._stopping.is_set():
                    return
                await feed.run(sender, task_status=Connected())
            if not is_connected and not scope.cancel_called:
                raise RuntimeError(f"feed {feed!r} has ended without calling task_status.started()")
        finally:
            self._running -= 1
            self._tell(feed, "ended")
            self._left -= 1
            if not self._left:
                self._stopping.set()
            self._tasks.notify()

    def _tell(self, feed: Feed, state: str) -> None:
        self._publish(FeedState(repr(feed), state, self._now_ns()))
