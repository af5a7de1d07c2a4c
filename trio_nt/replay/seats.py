"""One strategy's place in a replay: its handlers called one after the other, failing or sleeping. Pure.

Rules
- What a handler raises ends its strategy, not the replay; what it did before it raised stands.
- While a handler sleeps, all that its strategy is to hear waits, and is heard in order when it wakes. The replay goes
  on meanwhile, so this backlog is as long as the sleep.
- Nothing here awaits. ``Run`` is a generator only because a handler may be ``async``: it yields what must be awaited
  (``asynchronous.py`` does), and nothing where every handler is plain.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from trio_nt.model.market import Column
from trio_nt.strategies.failures import in_one_line, with_traceback
from trio_nt.strategies.runner import BEFORE_ROWS, Caused, Steps, StrategyRunner

Run: TypeAlias = Generator["Handler | Wake", Any, None]
Call: TypeAlias = Callable[[list[Caused]], Steps]


class Handler(NamedTuple):
    """Yielded: await a handler. The answer is what it returned, or ``Asleep``."""

    strategy_id: str
    awaitable: Awaitable[Any]


class Wake(NamedTuple):
    """Yielded: let a sleeping handler go on. The answer is what it returned, or ``Asleep``."""

    strategy_id: str


class Asleep(NamedTuple):
    """The answer of a handler that sleeps until a market time."""

    until_ns: int


class Seat:
    """One strategy. ``failure`` says in one line what it raised, ``traceback`` where; it is then called no more.

    Args:
        runner: calls its handlers.
        turn: its position in the order of registration.
        raise_errors: let what a handler raises end the replay.
    """

    def __init__(self, runner: StrategyRunner, turn: int, *, raise_errors: bool) -> None:
        self.runner = runner
        self.turn = turn
        self.features: Mapping[str, Column] = {}
        self.feature_rows: Sequence[Any] = ()
        self.failure = ""
        self.traceback = ""
        self.wake_ns: int | None = None
        self._failed_now = False
        self._raise_errors = raise_errors
        self._caused: list[Caused] = []
        self._sleeping: Steps | None = None
        self._backlog: deque[Call] = deque()

    @property
    def is_asleep(self) -> bool:
        return self._sleeping is not None

    @property
    def next_call_ns(self) -> int | None:
        """The next time at which it wants to be called: its next timer, or its wake-up while it sleeps."""
        if self.failure:
            return None
        return self.runner.next_timer_ns if self._sleeping is None else self.wake_ns

    def hear(self, call: Call) -> Run:
        """Call handlers, after what the strategy still has to hear."""
        if self.failure:
            return
        if self._sleeping is not None:
            self._backlog.append(call)
            return
        self.runner.row = BEFORE_ROWS
        yield from self._go_on(call(self._caused), None)

    def wake(self, now_ns: int) -> Run:
        """Let the sleeping handler go on, then hear what came meanwhile, until one sleeps again."""
        assert self._sleeping is not None
        steps, self._sleeping, self.wake_ns = self._sleeping, None, None
        self.runner.context.now_ns = now_ns
        yield from self._go_on(steps, Wake(self.runner.strategy_id))
        while self._backlog and self._sleeping is None:
            yield from self.hear(self._backlog.popleft())

    def take(self) -> tuple[list[Caused], bool]:
        """What its handlers caused since the last time, and whether it failed after that."""
        caused, failed = self._caused.copy(), self._failed_now
        self._caused.clear()  # in place: a handler that sleeps still adds to it
        self._failed_now = False
        return caused, failed

    def fail(self, error: Exception) -> None:
        """A handler raised this: the strategy is called no more."""
        if self._raise_errors:
            raise error
        self.failure, self.traceback = in_one_line(error), with_traceback(error)
        self._backlog.clear()
        self.runner.context.log.error("failed and is stopped: %s", self.failure)

    def _go_on(self, steps: Steps, wake: Wake | None) -> Run:
        strategy_id = self.runner.strategy_id
        try:
            request: Handler | Wake = Handler(strategy_id, next(steps)) if wake is None else wake
            while True:
                answer = yield request
                if isinstance(answer, Asleep):
                    self._sleeping, self.wake_ns = steps, answer.until_ns
                    return
                request = Handler(strategy_id, steps.send(answer))
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001 - what a strategy raises ends that strategy
            steps.close()
            self.fail(error)
            self._failed_now = True
