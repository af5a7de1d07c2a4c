"""The supervisor alone: what becomes of a strategy that fails, misbehaves, is changed, saved or started again."""

from typing import Any

import attrs
import pytest
import trio
from strategies_support import MemoryStates, open_rig
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler import TaskPriority
from trio_nt import Strategy, buy
from trio_nt.errors import EnvironmentFailure, InputError
from trio_nt.model.events import Accepted, Refused, StrategyState, StrategyWarning
from trio_nt.model.reasons import Reason
from trio_nt.strategies.messages import SaveState
from trio_nt.strategies.states import MAX_STATE_BYTES, encode_state
from trio_nt.strategies.supervision import OverrunPolicy, RestartPolicy

LIVES: list["Noting"] = []


@pytest.fixture(autouse=True)
def _forget_lives() -> None:
    LIVES.clear()


@attrs.define
class Noting(Strategy):
    """Notes prices; raises at those of ``bad``, ``times`` times in all lives."""

    bad: tuple[float, ...] = ()
    times: int = 1_000
    step: int = 1
    seen: list[float] = attrs.field(factory=list)
    started: bool = False
    stopped: bool = False
    restored: Any = None

    def on_start(self, context: Any) -> None:
        assert not self.started
        self.started = True
        LIVES.append(self)

    def on_quote(self, quote: Any, context: Any) -> Any:
        self.seen.append(quote.bid)
        if quote.bid in self.bad and sum(price in self.bad for life in LIVES for price in life.seen) <= self.times:
            raise ZeroDivisionError(f"at {quote.bid}")
        return buy("ABC", 1) if quote.bid == 0.5 else None

    def on_stop(self, context: Any) -> None:
        self.stopped = True


@attrs.define
class Learning(Noting):
    """Keeps a sum."""

    total: float = 0.0
    refuse: bool = False

    def on_start(self, context: Any) -> None:
        super().on_start(context)
        if self.refuse:
            raise ValueError("not like this")

    def on_quote(self, quote: Any, context: Any) -> Any:
        super().on_quote(quote, context)
        self.total += self.step * quote.bid

    def save_state(self) -> Any:
        return {"total": self.total}

    def restore_state(self, state: Any) -> None:
        assert not self.started
        self.restored, self.total = state, state["total"]


def seen() -> list[list[float]]:
    return [life.seen for life in LIVES]


# -- restarts --


async def test_a_failure_without_a_restart_is_final_and_heard(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.add("bad", Noting(bad=(2,)))
        rig.add("good", Noting())
        await rig.send(1, 2, 3)
        await rig.send(4)
        assert rig.states("bad") == ["running", "failed"]
        assert rig.withdrawn == ["bad"]
    assert sorted(seen()) == [[1, 2], [1, 2, 3, 4]]
    assert rig.states("good") == ["running", "stopped"]
    (detail,) = [each.detail for each in rig.said if isinstance(each, StrategyState) and each.state == "failed"]
    assert "ZeroDivisionError: at 2.0" in detail
    assert "Traceback" in detail
    counts = rig.supervisor.statistics()["bad"]
    assert (counts.state, counts.restarts) == ("failed", 0)
    assert counts.failure.startswith("ZeroDivisionError: at 2.0 (test_supervisor.py, line ")


async def test_a_fresh_object_of_the_same_configuration_joins_at_the_next_row(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        given = Noting(bad=(2,), step=7)
        rig.add("bad", given, restart=RestartPolicy(when="on-failure", backoff_s=1))
        await rig.send(1, 2, 3)
        assert rig.states("bad") == ["running", "failed", "restarting"]
        await trio.sleep(0.9)
        await rig.send(4)
        await trio.sleep(0.2)
        await rig.send(5)
    assert rig.states("bad") == ["running", "failed", "restarting", "running", "stopped"]
    assert seen() == [[1, 2], [5]]
    assert LIVES[0] is given
    assert LIVES[1] is not given
    assert (LIVES[1].step, LIVES[1].bad, LIVES[1].stopped) == (7, (2,), True)
    counts = rig.supervisor.statistics()["bad"]
    assert (counts.rows, counts.restarts, counts.state) == (4, 1, "stopped")
    assert "ZeroDivisionError" in counts.failure


async def test_beyond_its_limit_it_is_quarantined_with_what_it_raised(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.add("bad", Noting(bad=(2,)), restart=RestartPolicy(when="on-failure", limit=2, backoff_s=1))
        times = []
        for _ in range(8):
            await rig.send(2)
            times.append(trio.current_time())
            await trio.sleep(1)
    assert rig.states("bad") == [*["running", "failed", "restarting"] * 2, "running", "failed", "quarantined"]
    counts = rig.supervisor.statistics()["bad"]
    assert (counts.restarts, counts.rows, counts.state) == (2, 3, "quarantined")
    assert "3 times in a row" in counts.failure
    assert "ZeroDivisionError: at 2.0" in counts.traceback
    assert rig.withdrawn == ["bad"] * 3


async def test_its_orders_are_withdrawn_before_it_begins_again_and_after_all_it_did(autojump_clock: MockClock) -> None:
    order: list[str] = []

    class Acting(Noting):
        def on_start(self, context: Any) -> None:
            super().on_start(context)
            order.append("start")

    async with open_rig() as rig:
        rig.supervisor._cancel_working = noted = rig._cancel_working

        async def cancel(strategy_id: str) -> None:
            order.append(f"withdraw after {len(rig.proposed)}")
            await noted(strategy_id)

        rig.supervisor._cancel_working = cancel
        rig.add("bad", Acting(bad=(2,)), restart=RestartPolicy(when="on-failure", backoff_s=0))
        await rig.send(0.5, 0.5, 2)
        await trio.sleep(0.01)
    assert order == ["start", "withdraw after 2", "start"]


async def test_orders_are_withdrawn_only_when_risk_has_decided_on_all_it_did(autojump_clock: MockClock) -> None:
    decided = [0]
    async with open_rig() as rig:
        rig.supervisor._decided = lambda: decided[0]
        rig.add("bad", Noting(bad=(2,)))
        await rig.send(0.5, 0.5, 2)
        for decided[0] in (0, 1):
            rig.tasks.notify()
            await trio.sleep(1)
            assert rig.withdrawn == []
        decided[0] = 2
        rig.tasks.notify()
        await trio.sleep(1)
        assert rig.withdrawn == ["bad"]


async def test_one_failure_is_told_where_several_handlers_would_raise_at_once(autojump_clock: MockClock) -> None:
    class Everywhere(Noting):
        def on_quote(self, quote: Any, context: Any) -> None:
            raise ZeroDivisionError("in a row")

        def on_order(self, update: Any, context: Any) -> None:
            raise ZeroDivisionError("in news")

    async with open_rig() as rig:
        rig.add("bad", Everywhere())
        await wait_all_tasks_blocked()
        rig.supervisor.tell([Accepted("bad", "nt-1", "ABC", 0)])
        await rig.send(1)
    assert rig.supervisor.statistics()["bad"].failure.startswith("ZeroDivisionError: in ")


async def test_who_fails_while_all_end_is_not_restarted(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.add("bad", Noting(bad=(2,)), restart="always")
        await wait_all_tasks_blocked()
        rig.supervisor.let_end()
        await rig.send(2)
    assert rig.states("bad") == ["running", "failed"]


async def test_orders_are_kept_where_that_is_configured(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.add("bad", Noting(bad=(2,)), on_failure="keep", restart=RestartPolicy(when="on-failure", backoff_s=0))
        await rig.send(2)
        await trio.sleep(0.01)
        assert rig.states("bad")[-1] == "running"
    assert rig.withdrawn == []


@attrs.define
class Hearing(Noting):
    def on_order(self, event: Any, context: Any) -> None:
        return None


async def test_always_restarts_a_quarantined_strategy(autojump_clock: MockClock) -> None:
    async with open_rig(news_capacity=2) as rig:
        rig.add("deaf", Hearing(), restart=RestartPolicy(when="always", backoff_s=1))
        rig.add("once", Hearing(), restart=RestartPolicy(when="on-failure", backoff_s=1))
        rig.add("never asked", Noting())
        for name in ("deaf", "once", "never asked"):
            entry = rig.supervisor.entries[name]
            for number in range(3):  # in one step: nobody could take them
                entry.tell(Accepted(name, f"nt-{number}", "ABC", 0))
        await trio.sleep(2)
        assert rig.states("deaf") == ["running", "quarantined", "restarting", "running"]
        assert rig.states("once") == ["running", "quarantined"]
        assert rig.states("never asked") == ["running"]
    assert "news" in rig.supervisor.statistics()["once"].failure


async def test_who_is_told_to_stop_is_not_restarted(autojump_clock: MockClock) -> None:
    policy = RestartPolicy(when="always", backoff_s=10)
    async with open_rig() as rig:
        rig.add("running", Noting(), restart=policy)
        rig.add("waiting", Noting(bad=(1,)), restart=policy)
        await rig.send(1)
        began = trio.current_time()
        await rig.supervisor.stop("running")
        await rig.supervisor.stop("waiting")
        assert trio.current_time() == began
        assert rig.states("running") == ["running", "stopped"]
        assert rig.states("waiting") == ["running", "failed", "restarting", "failed"]
        await trio.sleep(100)
        await rig.supervisor.restart("running")
        await rig.supervisor.restart("waiting")
        await rig.send(2)
    assert seen() == [[1], [1], [2], [2]]
    assert rig.states("waiting") == ["running", "failed", "restarting", "failed", "running", "stopped"]


async def test_closing_waits_for_no_restart(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.add("bad", Noting(bad=(1,)), restart=RestartPolicy(when="always", backoff_s=50))
        await rig.send(1)
        began = trio.current_time()
    assert trio.current_time() == began
    assert rig.states("bad") == ["running", "failed", "restarting", "failed"]


async def test_a_strategy_that_cannot_be_made_again_counts_as_failed(autojump_clock: MockClock) -> None:
    made = []

    @attrs.define
    class Once(Noting):
        def __attrs_post_init__(self) -> None:
            made.append(self)
            if len(made) in (2, 3):
                raise OSError("no more of them")

    async with open_rig() as rig:
        rig.add("bad", Once(bad=(1,)), restart=RestartPolicy(when="on-failure", limit=5, backoff_s=0))
        await rig.send(1)
        await trio.sleep(1)
        await rig.send(2)
    failures = [each for each in rig.said if isinstance(each, StrategyState) and each.state == "failed"]
    assert ["OSError: no more of them" in each.detail for each in failures] == [False, True, True]
    assert seen() == [[1], [2]]


async def test_what_cannot_begin_is_not_added(autojump_clock: MockClock) -> None:
    class Wanting(Noting):
        def features(self) -> Any:
            return {"x": "y"}

    async with open_rig() as rig:
        with pytest.raises(ValueError, match="cannot be computed"):
            rig.add("wanting", Wanting())
        assert rig.supervisor.entries == {}
        rig.add("wanting", Noting())
        with pytest.raises(ValueError, match="there already"):
            rig.add("wanting", Noting())


# -- steps and floods --


async def test_one_that_holds_the_loop_is_warned_then_demoted_then_put_out(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    policy = OverrunPolicy(warn_after=2, demote_after=3, quarantine_after=5)
    async with open_rig(step_budget_s=1.0) as rig:
        rig.add("slow", Noting(), overruns=policy)
        rig.add("good", Noting())
        entry = rig.supervisor.entries["slow"]
        found = []
        for _ in range(5):
            entry.stepped(1, 2_000_000_000)
            counts = entry.statistics()
            found.append((counts.state, counts.lane.name))
        await wait_all_tasks_blocked()
        await rig.send(1)
    assert found == [("running", "HIGH")] * 2 + [("running", "MEDIUM")] * 2 + [("quarantined", "MEDIUM")]
    assert rig.warnings("slow") == ["overrun", "demoted"]
    first = next(each for each in rig.said if isinstance(each, StrategyWarning))
    assert first.detail == "2 steps over the budget of 1e+06 µs an event, the longest 2e+03 ms"
    assert rig.states("slow")[-1] == "quarantined"
    assert rig.states("good")[-1] == "stopped"
    assert sum("overrun" in record.message for record in caplog.records) == 1
    assert (counts.overruns, counts.slowest_step_s) == (5, 2.0)


async def test_real_steps_are_measured_and_waiting_is_none(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0]
    monkeypatch.setattr("time.perf_counter_ns", lambda: clock[0])

    def work() -> None:
        clock[0] += 2_000_000

    class Busy(Noting):
        def on_quote(self, quote: Any, context: Any) -> None:
            work()

    class BusyLater(Noting):
        async def on_quote(self, quote: Any, context: Any) -> None:
            clock[0] += 500_000
            await trio.sleep(1)
            work()
            clock[0] += 10_000_000 if quote.bid == 5 else 0

        async def on_start(self, context: Any) -> None:
            await trio.sleep(1)

    class Timed(Noting):
        def on_start(self, context: Any) -> None:
            context.set_timer("x", every_ns=1_000_000_000)

        def on_timer(self, name: str, context: Any) -> None:
            work()

    async with open_rig(step_budget_s=0.001) as rig:
        for name, strategy in {"busy": Busy(), "later": BusyLater(), "timed": Timed()}.items():
            rig.add(name, strategy, overruns=OverrunPolicy(warn_after=1))
        await trio.sleep(1.5)
        await rig.send(1)
        await rig.send(5)
        await trio.sleep(5)
        counts = rig.supervisor.statistics()
    assert counts["busy"].overruns == 2
    assert (counts["later"].overruns, counts["later"].slowest_step_s) == (2, 0.012)
    assert counts["timed"].overruns == 6
    assert all(rig.warnings(name) == ["overrun"] for name in ("busy", "later", "timed"))


async def test_a_flood_that_risk_refuses_is_warned_of_once_and_counted(autojump_clock: MockClock) -> None:
    reasons = (Reason.SUBMIT_RATE, Reason.NO_PRICE)
    refusals = [Refused("s", "", "ABC", 0, reason, "too many", buy("ABC", 1)) for reason in reasons]
    async with open_rig() as rig:
        rig.add("s", Noting())
        rig.supervisor.tell(refusals * 5)
        await wait_all_tasks_blocked()
    assert rig.warnings("s") == ["flood"]
    counts = rig.supervisor.statistics()["s"]
    assert (counts.refused_by_rate, counts.warnings) == (5, ("flood: its orders are refused: too many",))


# -- another configuration --


async def test_an_update_takes_the_old_ones_place_without_missing_a_row(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        given = Learning(step=1)
        rig.add("s", given)
        await rig.send(1, 2)
        await rig.supervisor.update("s", {"step": 10})
        await rig.send(3)
        assert rig.states("s") == ["running"]
    assert seen() == [[1, 2], [3]]
    first, second = LIVES
    assert first is given
    assert not first.stopped
    assert isinstance(second, Learning)
    assert (second.step, second.restored, second.total, second.stopped) == (10, {"total": 3.0}, 33.0, True)
    assert rig.supervisor.statistics()["s"].rows == 3


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"setp": 1}, InputError, "strategy s: Learning has no field 'setp'"),
        ({"step": "x"}, InputError, "strategy s: step: must be a whole number"),
        ({"refuse": True}, ValueError, "not like this"),
    ],
)
async def test_an_update_that_fails_changes_nothing(
    autojump_clock: MockClock, changes: Any, error: type[Exception], message: str
) -> None:
    async with open_rig() as rig:
        rig.add("s", Learning(), restart=RestartPolicy(when="on-failure", backoff_s=0))
        await rig.send(1)
        with pytest.raises(error, match=message):
            await rig.supervisor.update("s", changes)
        await rig.send(2)
        assert rig.states("s") == ["running"]
        assert LIVES[0].seen == [1, 2]
        assert rig.supervisor.entries["s"].blueprint.make() == Learning()
    assert rig.supervisor.statistics()["s"].rows == 2


async def test_what_a_failed_update_wanted_to_do_is_not_done(autojump_clock: MockClock) -> None:
    @attrs.define
    class Eager(Strategy):
        step: int = 0

        async def on_start(self, context: Any) -> Any:
            if self.step:
                context.set_timer("never", every_ns=1)
                raise ValueError("after all")

        def features(self) -> Any:
            return {"x": "y"} if self.step == 2 else {}

        async def on_timer(self, name: str, context: Any) -> Any:
            return buy("ABC", 1)

    async with open_rig() as rig:
        rig.add("s", Eager())
        for step in (1, 2):
            with pytest.raises(ValueError, match=r"after all|cannot be computed"):
                await rig.supervisor.update("s", {"step": step})
        await trio.sleep(1)
    assert rig.proposed == []


async def test_timers_of_the_old_configuration_end_and_those_of_the_new_one_fire(autojump_clock: MockClock) -> None:
    fired: list[tuple[int, float]] = []

    @attrs.define
    class Timed(Strategy):
        every_s: int = 2

        def on_start(self, context: Any) -> None:
            context.set_timer("x", every_ns=self.every_s * 1_000_000_000)

        def on_timer(self, name: str, context: Any) -> None:
            fired.append((self.every_s, round(trio.current_time() - began, 3)))

    async with open_rig() as rig:
        began = trio.current_time()
        rig.add("s", Timed())
        await trio.sleep(5)
        await rig.supervisor.update("s", {"every_s": 3})
        await trio.sleep(7)
    assert fired == [(2, 2), (2, 4), (3, 8), (3, 11)]


async def test_an_update_of_one_that_does_not_run_is_for_its_next_life(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.add("s", Noting(bad=(1,)), restart=RestartPolicy(when="on-failure", backoff_s=1))
        await rig.send(1)
        await rig.supervisor.update("s", {"step": 5})
        await trio.sleep(2)
        await rig.send(2)
        await rig.supervisor.stop("s")
        await rig.supervisor.update("s", {"step": 6})
        await rig.supervisor.restart("s")
    assert [life.step for life in LIVES] == [1, 5, 6]


async def test_an_update_waits_for_a_handler_and_hears_when_the_strategy_ends_first(autojump_clock: MockClock) -> None:
    class Slow(Noting):
        async def on_quote(self, quote: Any, context: Any) -> None:
            await trio.sleep(quote.bid)

    async with open_rig() as rig:
        rig.add("s", Slow())
        began = trio.current_time()
        await rig.send(3)
        await rig.supervisor.update("s", {"step": 2})
        assert trio.current_time() - began == pytest.approx(3)
        await rig.send(1e6)
        async with trio.open_nursery() as nursery:

            async def update() -> None:
                with pytest.raises(trio.BrokenResourceError, match="has ended"):
                    await rig.supervisor.update("s", {"step": 3})

            for _ in range(3):
                nursery.start_soon(update)
            await trio.sleep(1)
            await rig.supervisor.stop("s")  # does not queue behind them
        assert trio.current_time() - began < 10
    assert [life.step for life in LIVES] == [1, 2]


# -- states --


async def test_a_state_survives_a_restart_and_a_run(autojump_clock: MockClock) -> None:
    states = MemoryStates()
    async with open_rig(states=states) as rig:
        rig.add("s", Learning())
        await rig.send(1, 2)
        await rig.supervisor.restart("s")
        await rig.send(3)
        assert LIVES[1].restored == {"total": 3.0}
    assert states.kept == {"s": encode_state({"total": 6.0})}
    async with open_rig(states=states) as rig:
        rig.add("s", Learning())
        await rig.send(4)
        assert LIVES[2].restored == {"total": 6.0}
        counts = rig.supervisor.statistics()["s"]
        assert counts.state_bytes == len(encode_state({"total": 6.0}))


async def test_a_failed_life_saves_nothing_and_the_next_gets_the_last_state(autojump_clock: MockClock) -> None:
    async with open_rig(state_every_s=10) as rig:
        rig.add("s", Learning(bad=(7,)), restart=RestartPolicy(when="on-failure", backoff_s=0))
        await rig.send(1)
        await trio.sleep(11)
        await rig.send(2, 7)
        await trio.sleep(1)
        assert [life.restored for life in LIVES] == [None, {"total": 1.0}]
        assert rig.supervisor.entries["s"].saved_ns > 0


async def test_a_state_can_be_asked_for(autojump_clock: MockClock) -> None:
    states = MemoryStates()
    async with open_rig(states=states, state_every_s=None) as rig:
        rig.add("s", Learning())
        rig.add("nothing to say", Noting())
        await rig.send(1)
        await rig.supervisor.save()
        assert states.kept == {"s": encode_state({"total": 1.0})}
        assert len(rig.supervisor.broadcast(SaveState)) == 2


async def test_a_state_that_is_too_large_is_refused_and_the_last_one_stays(autojump_clock: MockClock) -> None:
    states = MemoryStates()

    @attrs.define
    class Growing(Strategy):
        size: int = 0

        def on_quote(self, quote: Any, context: Any) -> None:
            self.size = int(quote.bid)

        def save_state(self) -> bytes:
            return bytes(self.size)

    async with open_rig(states=states) as rig:
        rig.add("s", Growing())
        for size in (MAX_STATE_BYTES - 1, MAX_STATE_BYTES, MAX_STATE_BYTES * 2, 5):
            await rig.send(size)
            await rig.supervisor.save()
            if size > 5:
                assert len(states.kept["s"]) == MAX_STATE_BYTES
        assert rig.warnings("s") == ["state"]
    assert len(states.kept["s"]) == 6


async def test_a_disk_that_is_full_is_warned_of_and_a_file_that_is_damaged_fails_its_strategy(
    autojump_clock: MockClock,
) -> None:
    states = MemoryStates()
    states.error = EnvironmentFailure("s.state: No space left on device")
    states.kept["damaged"] = b"x"
    async with open_rig(states=states) as rig:
        rig.add("s", Learning())
        rig.add("damaged", Learning())
        await rig.send(1)
        await rig.supervisor.save()
        assert rig.warnings("s") == ["state"]
        assert rig.states("s") == ["running"]
        assert rig.states("damaged") == ["running", "failed"]
    assert "the saved state cannot be read" in rig.supervisor.statistics()["damaged"].failure
    assert states.kept["damaged"] == b"x"


# -- pacing --


async def test_lingering_strategies_take_what_came_meanwhile_in_one_turn(autojump_clock: MockClock) -> None:
    class Batches(Strategy):
        def __init__(self) -> None:
            self.batches: list[tuple[float, int]] = []

        def on_market_data(self, batch: Any, context: Any) -> None:
            self.batches.append((round(trio.current_time() - began, 6), len(batch)))

    lingering, prompt = Batches(), Batches()
    for strategy, linger_s in ((lingering, 0.0045), (prompt, 0.0)):
        async with open_rig(linger_s=linger_s) as rig:
            began = trio.current_time()
            rig.add("s", strategy)
            for _ in range(9):
                await rig.send(1)
                await trio.sleep(0.001)
    assert [rows for _, rows in prompt.batches] == [1] * 9
    assert [rows for _, rows in lingering.batches] == [1, 4, 4]
    assert [at for at, _ in lingering.batches] == pytest.approx([0, 0.0045, 0.009], abs=1e-4)


async def test_a_backlog_is_read_without_lingering(autojump_clock: MockClock) -> None:
    strategy = Noting()
    async with open_rig(linger_s=1.0) as rig:
        began = trio.current_time()
        rig.add("s", strategy)
        await rig.send(*range(1, 201))  # more than a first batch
        assert strategy.seen == list(range(1, 201))
        assert trio.current_time() == began


async def test_one_that_takes_no_row_is_put_out_and_one_that_is_slow_is_not(autojump_clock: MockClock) -> None:
    class Stuck(Noting):
        async def on_quote(self, quote: Any, context: Any) -> None:
            await trio.sleep_forever()

    class Slow(Noting):
        async def on_quote(self, quote: Any, context: Any) -> None:
            self.seen.append(quote.bid)
            await trio.sleep(0.4)

    slow, good = Slow(), Noting()
    async with open_rig(capacity=20, stall_timeout_s=1.0) as rig:
        for name, strategy in {"stuck": Stuck(), "slow": slow, "good": good}.items():
            rig.add(name, strategy)
        for number in range(1, 61):
            await rig.send(number)
        assert rig.states("stuck") == ["running", "quarantined"]
        await trio.sleep(60)
    assert slow.seen == good.seen == list(range(1, 61))
    assert rig.states("slow") == rig.states("good") == ["running", "stopped"]
    assert "held the market data" in rig.supervisor.statistics()["stuck"].failure
    assert rig.supervisor.statistics()["slow"].lane is TaskPriority.HIGH
