"""Spawns strategies, lists them, tells them, restarts and stops them. What each goes through is in ``supervised``."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import trio

from scheduler import BroadcastReceiver, MailboxSender, TaskHandle, TaskPriority, open_mailbox
from trio_nt.errors import TrioNTError
from trio_nt.model.events import OrderEvent, StrategyState, StrategyWarning
from trio_nt.model.instruments import Instruments
from trio_nt.model.market import Column
from trio_nt.model.memory import MemorySource
from trio_nt.stamps import StageRecorder
from trio_nt.strategies.actor import FeatureSource, SharedRows, Source, StrategyActor
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.blueprint import Blueprint
from trio_nt.strategies.context import Desk
from trio_nt.strategies.memory import MemoriesInMemory
from trio_nt.strategies.messages import SaveState, UpdateConfig
from trio_nt.strategies.pacing import Linger
from trio_nt.strategies.runner import StrategyRunner
from trio_nt.strategies.states import MAX_STATE_BYTES, StateStore
from trio_nt.strategies.supervised import (
    FAILED,
    QUARANTINED,
    RESTARTING,
    RUNNING,
    STOPPED,
    StrategyLife,
    StrategyStatistics,
    SupervisedStrategy,
)
from trio_nt.strategies.supervision import CANCEL, Supervision, SupervisorSettings

__all__ = ["FAILED", "QUARANTINED", "RESTARTING", "RUNNING", "STOPPED", "StrategySupervisor"]

LATE = "it did not end in time"


class Ring(Protocol):
    """A ring of rows, with its stamps."""

    capacity: int
    t0: Column
    t2: Column
    rows_sent: int

    def subscribe(self, name: str) -> BroadcastReceiver: ...


class Tasks(Protocol):
    """Where tasks run; ``until`` asks its condition again after every ``notify``."""

    def spawn(
        self, lane: TaskPriority, async_fn: Callable[..., Awaitable[Any]], *args: Any, name: str
    ) -> TaskHandle[None]: ...
    async def until(self, condition: Callable[[], bool]) -> None: ...
    def notify(self) -> None: ...
    async def run_blocking(self, sync_fn: Callable[..., Any], *args: Any) -> Any: ...


class StrategySupervisor:
    """The strategies of one engine.

    Args:
        rings: quotes and trades, and bars, each with the features of its rows.
        proposals: to risk; ``decided`` says how many of them it has decided on.
        cancel_working: asks for the cancellation of a strategy's working orders.
        states: keeps what strategies want to be saved across runs; None keeps it in memory.
        memory: where strategies' memories are; None for ones that end with the engine.
    """

    def __init__(
        self,
        instruments: Instruments,
        rings: Sequence[tuple[Ring, FeatureSource]],
        proposals: MailboxSender[Any],
        tasks: Tasks,
        *,
        settings: SupervisorSettings,
        signal: StageRecorder,
        now_ns: Callable[[], int],
        publish: Callable[[StrategyState | StrategyWarning], None],
        decided: Callable[[], int],
        cancel_working: Callable[[str], Awaitable[None]],
        states: StateStore | None = None,
        memory: MemorySource | None = None,
    ) -> None:
        self.entries: dict[str, SupervisedStrategy] = {}
        self._waiting: dict[str, tuple[Strategy, Supervision]] = {}
        self._instruments = instruments
        self._rings = [(ring, features, SharedRows(instruments, ring.capacity)) for ring, features in rings]
        self._proposals = proposals
        self._tasks = tasks
        self._settings = settings
        self._signal = signal
        self._now_ns = now_ns
        self._publish = publish
        self._decided = decided
        self._cancel_working = cancel_working
        self._states = states
        self._memory = MemoriesInMemory() if memory is None else memory
        self._linger = Linger(settings.linger_s) if settings.linger_s else None
        self._desk: Desk | None = None
        self._withdrawing = 0
        self._saving = trio.CancelScope()

    # -- coming and going --

    def add(self, strategy_id: str, strategy: Strategy, supervision: Supervision) -> None:
        """Spawn a strategy, or note it where ``open`` was not called yet.

        Raises:
            ValueError: the id is in use, or a feature of the strategy cannot be computed. Nothing was added.
            KeyError: it names an instrument that is not known.
        """
        if strategy_id in self._waiting or strategy_id in self.entries:
            raise ValueError(f"a strategy with the id {strategy_id!r} is there already")
        if self._desk is None:
            self._waiting[strategy_id] = (strategy, supervision)
            return
        budget_s = self._settings.step_budget_s
        entry = SupervisedStrategy(strategy_id, strategy, supervision, self, step_budget_s=budget_s)
        entry.begin()
        self.entries[strategy_id] = entry
        self._spawn(entry)

    def open(self, desk: Desk) -> None:
        """Spawn what was added so far, and from now on at once."""
        self._desk = desk
        while self._waiting:
            strategy_id = next(iter(self._waiting))
            self.add(strategy_id, *self._waiting.pop(strategy_id))
        if self._settings.state_every_s is not None:
            self._tasks.spawn(TaskPriority.LOW, self._save_now_and_then, name="strategies: saving")

    async def stop(self, strategy_id: str) -> None:
        """Stop one strategy, and wait for its end. KeyError for an unknown id."""
        if self._waiting.pop(strategy_id, None) is not None:
            return
        entry = self.entries[strategy_id]
        entry.stop()
        await entry.market_ended.wait()
        entry.end_news()
        await entry.ended.wait()

    async def restart(self, strategy_id: str) -> None:
        """Stop a strategy where it runs, and start a fresh one of its configuration. KeyError for an unknown id."""
        entry = self.entries[strategy_id]
        await self.stop(strategy_id)
        entry.begin()
        self._spawn(entry)

    async def update(self, strategy_id: str, changes: Mapping[str, Any]) -> None:
        """Give a strategy another configuration: see ``Engine.update_strategy``."""
        if strategy_id in self._waiting:
            first, supervision = self._waiting[strategy_id]
            changed = Blueprint.of(first).changed(changes, f"strategy {strategy_id}").make()
            self._waiting[strategy_id] = (changed, supervision)
            return
        entry = self.entries[strategy_id]
        blueprint = entry.blueprint.changed(changes, f"strategy {strategy_id}")
        strategy = blueprint.make()
        message = UpdateConfig(strategy, partial(setattr, entry, "blueprint", blueprint))
        if entry.state != RUNNING:
            message.done()  # its next life begins with it
            return
        await entry.life.actor.mailbox.send(message)
        await message.answer()

    def _spawn(self, entry: SupervisedStrategy) -> None:
        entry.handle = self._tasks.spawn(entry.supervision.lane, entry.run, name=f"strategy {entry.strategy_id}")

    # -- telling --

    def tell(self, events: Iterable[OrderEvent]) -> None:
        """Pass on news of orders to the strategies whose orders they are."""
        for event in events:
            entry = self.entries.get(event.strategy_id)
            if entry is not None:
                entry.tell(event)

    def broadcast(self, make_message: Callable[[], SaveState]) -> list[SaveState]:
        """Put a message into the mailbox of every running strategy; those sent. A full mailbox gets none."""
        sent = []
        for entry in self.entries.values():
            if entry.state == RUNNING:
                message = make_message()
                try:
                    entry.life.actor.mailbox.send_nowait(message)
                except (trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
                    continue
                sent.append(message)
        return sent

    def stalled(self, names: Iterable[str]) -> None:
        """These receivers have held the market data for too long."""
        for entry in self.entries.values():
            if _receiver_name(entry.strategy_id) in names:
                entry.quarantine("it held the market data of all others for too long")

    async def save(self) -> None:
        """Have every running strategy save its state, and wait for it."""
        for message in self.broadcast(SaveState):
            try:
                await message.answer()
            except trio.BrokenResourceError:
                continue  # it ended meanwhile: by itself it was saved, by an error it was not to be

    async def _save_now_and_then(self) -> None:
        assert self._settings.state_every_s is not None
        with self._saving:
            while True:
                await trio.sleep(self._settings.state_every_s)
                self.broadcast(SaveState)

    # -- reading --

    def proposed(self) -> int:
        """Proposals of all strategies so far."""
        return sum(entry.proposed for entry in self.entries.values())

    def market_seen(self) -> int | None:
        """How many quotes and trades every running strategy was shown or had before its time; None where none runs."""
        return min(
            (entry.life.actor.market_end for entry in self.entries.values() if entry.state == RUNNING), default=None
        )

    def statistics(self) -> dict[str, StrategyStatistics]:
        """Counters by id, in order of coming."""
        return {name: entry.statistics() for name, entry in self.entries.items()}

    # -- ending --

    def let_end(self) -> None:
        """The rings are ending: no strategy begins another life."""
        self._saving.cancel()
        for entry in self.entries.values():
            entry.let_end()

    async def end_rings(self, timeout_s: float) -> None:
        """Wait until every strategy has read its rings to the end. Insist where one is in the middle of something."""
        await self._end_each(lambda entry: entry.market_ended, lambda entry: entry.stop(), timeout_s)

    async def end_news(self, timeout_s: float) -> None:
        """Let every strategy hear the rest of its news and end; wait until what failed has no orders left to cancel."""
        for entry in self.entries.values():
            entry.end_news()
        await self._end_each(lambda entry: entry.ended, lambda entry: entry.quarantine(LATE), timeout_s)
        await self._tasks.until(lambda: not self._withdrawing)

    async def _end_each(
        self,
        event: Callable[[SupervisedStrategy], trio.Event],
        insist: Callable[[SupervisedStrategy], None],
        timeout_s: float,
    ) -> None:
        """Wait for every strategy. Insist where one takes too long, then put it out."""
        entries = list(self.entries.values())

        async def wait() -> None:
            for entry in entries:
                await event(entry).wait()

        for then in (insist, lambda entry: entry.quarantine(LATE)):
            with trio.move_on_after(timeout_s):
                await wait()
            for entry in entries:
                if not event(entry).is_set():
                    then(entry)
        await wait()

    # -- what supervised strategies ask for --

    def make_life(self, entry: SupervisedStrategy) -> StrategyLife:
        """An actor of a strategy, with its queues, in the rings from the next row on."""
        runner = self._make_runner(entry.strategy_id, entry.make())  # first: what it raises leaves nothing to close
        market, bars = (
            Source(
                ring.subscribe(_receiver_name(entry.strategy_id)),
                features,
                rows,
                ring.t0,
                ring.t2,
                partial(getattr, ring, "rows_sent"),
            )
            for ring, features, rows in self._rings
        )
        joined_at = sum(ring.rows_sent for ring, _, _ in self._rings)
        news_sender, news = open_mailbox[OrderEvent](self._settings.news_capacity)
        proposals: Any = self._proposals.clone()  # last: risk goes on until every clone is closed
        actor = StrategyActor(
            runner,
            market,
            bars,
            news,
            proposals,
            make_runner=partial(self._make_runner, entry.strategy_id),
            signal=self._signal,
            now_ns=self._now_ns,
            budget_s=self._settings.step_budget_s,
            mailbox_capacity=self._settings.mailbox_capacity,
            on_step=entry.stepped,
            save=partial(self._keep, entry),
            linger=self._linger,
        )
        return StrategyLife(actor, news_sender, proposals, joined_at)

    def _make_runner(self, strategy_id: str, strategy: Strategy) -> StrategyRunner:
        assert self._desk is not None

        async def sleep(at_ns: int) -> None:
            await trio.sleep(max(0, at_ns - self._now_ns()) / 1e9)
            runner.context.now_ns = max(at_ns, runner.context.now_ns)

        memory = self._memory.of(strategy_id)  # the same after a restart
        runner = StrategyRunner(strategy_id, strategy, self._instruments, self._desk, sleep=sleep, memory=memory)
        for _, features, _ in self._rings:
            features.require(runner.feature_specs.values())
        return runner

    async def load(self, entry: SupervisedStrategy) -> bytes | None:
        """The last state that a strategy saved, in this run or, where states are kept, in an earlier one."""
        if entry.saved is None and self._states is not None:
            entry.saved = await self._tasks.run_blocking(self._states.load, entry.strategy_id)
        return entry.saved

    async def _keep(self, entry: SupervisedStrategy, state: bytes) -> None:
        if len(state) > MAX_STATE_BYTES:
            entry.warn(
                "state", f"{len(state):,} bytes were refused, {MAX_STATE_BYTES:,} are the most; the last one stays"
            )
            return
        entry.saved, entry.saved_ns = state, self._now_ns()
        if self._states is not None:
            try:
                await self._tasks.run_blocking(self._states.save, entry.strategy_id, state)
            except TrioNTError as error:
                entry.warn("state", str(error))

    def entered(self, entry: SupervisedStrategy, detail: str) -> None:
        self._publish(StrategyState(entry.strategy_id, entry.state, self._now_ns(), detail))
        if entry.state in (FAILED, QUARANTINED) and not entry.life.is_withdrawing:
            entry.life.is_withdrawing = True
            self._withdrawing += 1
            name = f"withdraw orders of {entry.strategy_id}"
            self._tasks.spawn(TaskPriority.CRITICAL, self._withdraw, entry, entry.life, name=name)
        self._tasks.notify()

    def warned(self, entry: SupervisedStrategy, reason: str, detail: str) -> None:
        self._publish(StrategyWarning(entry.strategy_id, reason, self._now_ns(), detail))

    async def _withdraw(self, entry: SupervisedStrategy, life: StrategyLife) -> None:
        """Cancel what a strategy that failed has working, after all that it did was decided on."""
        await life.ended.wait()
        proposed = self.proposed()
        await self._tasks.until(lambda: self._decided() >= proposed)
        if entry.supervision.on_failure == CANCEL:
            await self._cancel_working(entry.strategy_id)
        life.withdrawn.set()
        self._withdrawing -= 1
        self._tasks.notify()


def _receiver_name(strategy_id: str) -> str:
    return f"strategy {strategy_id}"
