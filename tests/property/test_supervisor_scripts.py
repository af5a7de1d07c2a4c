"""Whatever strategies and their host do, a neighbour sees every row once and in order, and everything ends.

A random script of rows, raising, stopping, restarting, changing, saving and flooding is played to a supervisor that
has two well-behaved strategies among three that do what the script says.
"""

from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from strategies_support import MemoryStates, Rig, open_rig
from trio.testing import MockClock

from trio_nt import Strategy, buy
from trio_nt.errors import InputError
from trio_nt.model.events import Accepted
from trio_nt.strategies.supervision import RestartPolicy

RAISE, FLOOD, SLEEP, HANG, GOOD = 1.0, 2.0, 3.0, 4.0, 9.0
STATES = {"running", "stopped", "failed", "restarting", "quarantined"}
# What may follow what; a strategy begins at "running".
AFTER = {
    "running": {"stopped", "failed", "quarantined"},
    "failed": {"restarting", "quarantined", "running"},
    "quarantined": {"restarting", "running"},
    "restarting": {"running", "failed", "quarantined"},
    "stopped": {"running"},
}


@attrs.define
class Neighbour(Strategy):
    seen: list[float] = attrs.field(factory=list)

    def on_quote(self, quote: Any, context: Any) -> None:
        self.seen.append(quote.ask)


@attrs.define
class SlowNeighbour(Neighbour):
    async def on_quote(self, quote: Any, context: Any) -> None:
        self.seen.append(quote.ask)
        await trio.lowlevel.checkpoint()


@attrs.define
class Bad(Strategy):
    """Does what a row says, if it is for it; ``refuse`` makes a configuration that cannot begin."""

    number: int = 0
    refuse: bool = False
    count: int = 0

    def on_start(self, context: Any) -> None:
        if self.refuse:
            raise ValueError("refused")

    def on_quote(self, quote: Any, context: Any) -> Any:
        self.count += 1
        if quote.bid_size != self.number:
            return None
        if quote.bid == RAISE:
            raise ZeroDivisionError
        return [buy("ABC", 1)] * 50 if quote.bid == FLOOD else None

    def save_state(self) -> Any:
        return {"count": self.count}

    def restore_state(self, state: Any) -> None:
        self.count = state["count"]


@attrs.define
class BadLater(Bad):
    async def on_quote(self, quote: Any, context: Any) -> Any:
        if quote.bid_size == self.number and quote.bid in (SLEEP, HANG):
            await context.sleep(0.3 if quote.bid == SLEEP else 1e9)
        return Bad.on_quote(self, quote, context)


NAMES = ("bad-1", "bad-2", "bad-3")
ROWS = st.tuples(
    st.just("rows"), st.integers(1, 3), st.sampled_from([RAISE, FLOOD, SLEEP, HANG, GOOD]), st.integers(1, 20)
)
STEPS = st.one_of(
    ROWS,
    ROWS,
    st.tuples(st.just("wait"), st.floats(0.01, 3)),
    st.tuples(st.sampled_from(["stop", "restart", "update", "refuse", "news", "save"]), st.sampled_from(NAMES)),
)
POLICIES = st.sampled_from(
    [
        RestartPolicy(),
        RestartPolicy(when="on-failure", limit=2, backoff_s=0.5),
        RestartPolicy(when="on-failure", limit=1, backoff_s=0),
        RestartPolicy(when="always", backoff_s=0.1, max_backoff_s=1),
    ]
)


async def play(rig: Rig, step: tuple[Any, ...], sent: list[float]) -> None:
    supervisor = rig.supervisor
    if step[0] == "rows":
        _, number, price, count = step
        asks = [GOOD + len(sent) + row for row in range(count)]
        await rig.send_to.quotes(instrument="ABC", ts_event=0, bid=price, ask=asks, bid_size=float(number), ask_size=1)
        sent += asks
    elif step[0] == "wait":
        await trio.sleep(step[1])
    elif step[0] == "save":
        with trio.move_on_after(1):
            await supervisor.save()
    elif step[0] == "news":
        for _ in range(60):
            supervisor.entries[step[1]].tell(Accepted(step[1], "nt-1", "ABC", 0))
    elif step[0] == "stop":
        await supervisor.stop(step[1])
    elif step[0] == "restart":
        await supervisor.restart(step[1])
    else:
        changes = {"refuse": True} if step[0] == "refuse" else {"count": 0}
        with trio.move_on_after(1):
            try:
                await supervisor.update(step[1], changes)
            except (ValueError, InputError, trio.BrokenResourceError):
                return


@pytest.mark.slow
@pytest.mark.timeout(600)
@given(
    policies=st.tuples(POLICIES, POLICIES, POLICIES),
    kinds=st.tuples(*[st.sampled_from([Bad, BadLater])] * 3),
    capacity=st.sampled_from([16, 100]),
    script=st.lists(STEPS, max_size=15),
)
def test_neighbours_lose_no_row(
    policies: tuple[RestartPolicy, ...], kinds: tuple[type[Bad], ...], capacity: int, script: list[tuple[Any, ...]]
) -> None:
    neighbours = {"good": Neighbour(), "slow": SlowNeighbour()}
    sent: list[float] = []

    async def main() -> Rig:
        async with open_rig(
            capacity, MemoryStates(), stall_timeout_s=1.0, signal_capacity=20, news_capacity=50, state_every_s=0.7
        ) as rig:
            for number, name in enumerate(NAMES, start=1):
                rig.add(name, kinds[number - 1](number), restart=policies[number - 1])
            for name, neighbour in neighbours.items():
                rig.add(name, neighbour)
            with trio.fail_after(1_000_000):
                for step in script:
                    await play(rig, step, sent)
        return rig

    rig = trio.run(main, clock=MockClock(autojump_threshold=0))
    for name, neighbour in neighbours.items():
        assert neighbour.seen == sent
        assert rig.states(name) == ["running", "stopped"]
    assert len(rig.proposed) == rig.supervisor.proposed()
    for name in NAMES:
        states = rig.states(name)
        assert states[0] == "running"
        for before, after in pairwise(states):
            assert after in AFTER[before], states
        counts = rig.supervisor.statistics()[name]
        assert counts.state == states[-1] in {"stopped", "failed", "quarantined"}
        assert counts.restarts == states.count("restarting")
        assert rig.withdrawn.count(name) <= sum(state in ("failed", "quarantined") for state in states)
        if states[-1] in ("failed", "quarantined"):
            assert name in rig.withdrawn
            assert counts.failure
