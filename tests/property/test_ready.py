"""The choice rule as a state machine, against a model that sorts a list at every question."""

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule
from scheduler_examples import EXAMPLES

from scheduler.lanes import DEFAULT_LANES, TaskPriority
from scheduler.ready import (
    CRITICAL_BIT,
    GRANTED,
    IDLE,
    MAX_BATCH,
    QUEUED,
    READY,
    STEP_OVERHEAD_S,
    Entry,
    ReadyLanes,
    make_lanes,
)

LOWER = st.sampled_from(list(TaskPriority)[1:])
ANY_LANE = st.sampled_from(TaskPriority)
STEP_S = st.sampled_from([1e-6, 20e-6, 50e-6, 300e-6, 5e-3])


def expected_batch(
    ready: ReadyLanes[Entry], waiting: list[Entry], quantum_s: float, returned: set[Entry]
) -> list[Entry]:
    """The rule in words: at every pick look at all lanes again, and at all entries in order of waking."""
    if ready.mask & CRITICAL_BIT and ready.lower_owed_s <= 0:
        return []
    left = sorted(waiting, key=lambda entry: entry.sequence)
    lanes = sorted({entry.lane.index for entry in left})
    for i in lanes:  # a lane to which some were sent back gives no more than those
        here = [entry for entry in left if entry.lane.index == i]
        first_those = min(MAX_BATCH, sum(entry in returned for entry in here)) or len(here)
        left = [entry for entry in left if entry not in here[first_those:]]
    virtual = {i: float(i) if ready.strict else ready.lanes[i].virtual_s for i in lanes}
    owed = {i: ready.lanes[i].owed_s for i in lanes}
    batch: list[Entry] = []
    room = quantum_s
    only_lane = len(lanes) == 1
    while left and len(batch) < MAX_BATCH:
        owed_lanes = [i for i in lanes if owed[i] > 0 and any(e.lane.index == i for e in left)]
        if owed_lanes and not only_lane:
            index = max(owed_lanes, key=lambda i: (owed[i], -i))
        else:
            index = min(lanes, key=lambda i: (virtual[i], i))
        lane = ready.lanes[index]
        first = next((entry for entry in left if entry.lane is lane), None)
        cost = lane.step_s + STEP_OVERHEAD_S
        if first is None or (batch and cost > room and not only_lane):
            break
        if only_lane and len(batch) >= max(1, int(quantum_s / cost)):
            break
        if only_lane and batch and ready.strict and owed[index] > 0 and not ready.mask & CRITICAL_BIT:
            break
        batch.append(first)
        left.remove(first)
        room -= cost
        owed[index] -= 0 if only_lane else lane.step_s
        if not ready.strict:
            virtual[index] += lane.step_s * lane.inverse_share
    return batch


class ReadyMachine(RuleBasedStateMachine):
    policy = "shares"
    entries = Bundle("entries")

    def __init__(self) -> None:
        super().__init__()
        self.quantum_s = 200e-6
        self.ready: ReadyLanes[Entry] = ReadyLanes(make_lanes(DEFAULT_LANES, self.policy), self.policy, 0.95)
        self.known: list[Entry] = []
        self.running: Entry | None = None
        self.returned: set[Entry] = set()  # sent back or moved here while they waited
        self.spent = dict.fromkeys(TaskPriority, 0.0)

    @rule(target=entries, lane=ANY_LANE)
    def create(self, lane: TaskPriority) -> Entry:
        entry = Entry(self.ready.lanes[lane])
        self.known.append(entry)
        return entry

    @rule(entry=entries)
    def wake(self, entry: Entry) -> None:
        if entry.state == IDLE and entry in self.known:
            asleep = not entry.lane.ready
            self.ready.wake(entry)
            if asleep and entry.lane.index:
                assert entry.lane.owed_s <= 0, "sleep earned credit"
                assert entry.lane.virtual_s >= self.ready.virtual_now_s

    @rule(lane=LOWER)
    def wake_the_lane(self, lane: TaskPriority) -> None:
        idle = [entry for entry in self.known if entry.state == IDLE and entry.lane.index == lane]
        if idle:
            self.ready.wake_all(self.ready.lanes[lane], idle)

    @precondition(lambda self: not self.ready.outstanding)
    @rule()
    def choose(self) -> None:
        waiting = [entry for entry in self.known if entry.state == QUEUED]
        self.ready.bill()
        expected = expected_batch(self.ready, waiting, self.quantum_s, self.returned)
        self.returned.difference_update(expected)
        assert list(self.ready.choose(self.quantum_s)) == expected
        assert all(entry.state == GRANTED for entry in expected)
        if waiting and not self.ready.mask & CRITICAL_BIT:
            assert expected, "something waits, nothing preferred is ready, and nothing was granted"

    @precondition(lambda self: self.running is None)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        ready_to_run = [e for e in self.known if e.state == GRANTED or (e.state == READY and not e.lane.index)]
        if ready_to_run:
            self.running = data.draw(st.sampled_from(ready_to_run))
            if self.running.state == GRANTED:
                self.ready.outstanding -= 1
                self.running.state = READY

    @precondition(lambda self: self.running is not None)
    @rule(step_s=STEP_S, then=st.sampled_from(["again", "rest", "end"]))
    def finish(self, step_s: float, then: str) -> None:
        entry, self.running = self.running, None
        assert entry is not None
        entry.lane.busy_s += step_s
        entry.lane.steps += 1
        self.spent[TaskPriority(entry.lane.index)] += step_s
        if then == "again":
            self.ready.again(entry)
        elif then == "rest":
            self.ready.rest(entry)
        else:
            self.ready.forget(entry)
            self.known.remove(entry)

    @rule(entry=entries)
    def send_back(self, entry: Entry) -> None:
        if entry.state == GRANTED and entry in self.known:
            before = entry.sequence
            self.ready.send_back(entry)
            self.returned.add(entry)
            assert entry.sequence == before

    @rule(entry=entries, lane=ANY_LANE)
    def move(self, entry: Entry, lane: TaskPriority) -> None:
        if entry in self.known:
            before = entry.sequence
            if entry.state == QUEUED and entry.lane.index != lane:
                self.returned.add(entry)
            self.ready.move(entry, self.ready.lanes[lane])
            if entry.state != QUEUED:
                self.returned.discard(entry)
            assert entry.sequence == before, "moving cost it its place"
            if entry.state == READY and entry.lane.index and entry is not self.running:
                self.ready.again(entry)  # as the gate does when such a task arrives

    @rule(entry=entries)
    def forget(self, entry: Entry) -> None:
        if entry in self.known and entry is not self.running:
            self.ready.forget(entry)
            self.returned.discard(entry)
            self.known.remove(entry)

    @invariant()
    def counts_agree(self) -> None:
        ready = self.ready
        assert ready.outstanding == sum(entry.state == GRANTED for entry in self.known)
        assert ready.queued == sum(entry.state == QUEUED for entry in self.known)
        for lane in ready.lanes:
            here = [entry for entry in self.known if entry.lane is lane]
            assert lane.ready == sum(entry.state != IDLE for entry in here)
            assert lane.queued == sum(entry.state == QUEUED for entry in here)
            assert bool(ready.mask & lane.bit) == bool(lane.ready)
            assert len(lane.queue) + len(lane.returned) <= 2 * lane.queued + MAX_BATCH + len(self.known)

    @invariant()
    def debts_reach_back_a_second(self) -> None:
        assert abs(self.ready.lower_owed_s) <= self.ready.reserve + 1e-9
        for lane in self.ready.lower:
            assert abs(lane.owed_s) <= lane.minimum_share + 1e-9 or lane.busy_s != lane.billed_s

    def teardown(self) -> None:
        """At rest nothing is queued, granted or marked ready."""
        for entry in list(self.known):
            self.ready.forget(entry)
        assert (self.ready.queued, self.ready.outstanding, self.ready.mask) == (0, 0, 0)
        for lane in self.ready.lanes:
            assert lane.busy_s == pytest.approx(self.spent[TaskPriority(lane.index)])


class StrictMachine(ReadyMachine):
    policy = "strict"


TestShares = ReadyMachine.TestCase
TestStrict = StrictMachine.TestCase
TestShares.settings = TestStrict.settings = EXAMPLES


def run_saturated(ready: ReadyLanes[Entry], entries: list[Entry], step_s: dict[int, float], total_s: float) -> None:
    """All entries always runnable: choose, step, again, until ``total_s`` of busy time."""
    spent = 0.0
    while spent < total_s:
        batch = ready.choose(200e-6)
        assert batch
        for entry in batch:
            ready.outstanding -= 1
            entry.state = READY
            entry.lane.busy_s += step_s[entry.lane.index]
            entry.lane.steps += 1
            spent += step_s[entry.lane.index]
            ready.again(entry)


@EXAMPLES
@given(
    tasks=st.lists(st.integers(1, 20), min_size=4, max_size=4),
    steps_us=st.lists(st.integers(5, 100), min_size=4, max_size=4),
)
def test_shares_do_not_depend_on_the_number_or_length_of_tasks(tasks: list[int], steps_us: list[int]) -> None:
    ready: ReadyLanes[Entry] = ReadyLanes(make_lanes(DEFAULT_LANES, "shares"), "shares", 0.95)
    entries = [Entry(ready.lanes[index + 1]) for index in range(4) for _ in range(tasks[index])]
    for entry in entries:
        ready.wake(entry)
    step_s = {index + 1: steps_us[index] * 1e-6 for index in range(4)}
    total_s = 0.1
    run_saturated(ready, entries, step_s, total_s)
    busy = sum(lane.busy_s for lane in ready.lower)
    weights = [DEFAULT_LANES[TaskPriority(lane.index)].share for lane in ready.lower]
    for lane, weight in zip(ready.lower, weights, strict=True):
        ideal = busy * weight / sum(weights)
        assert abs(lane.busy_s - ideal) <= 2 * 200e-6 + 2 * max(step_s.values()), lane.index


@EXAMPLES
@given(sleep_s=st.floats(0.001, 10.0), sleeper=st.integers(1, 4), other=st.integers(1, 4))
def test_a_lane_that_slept_gains_no_credit(sleep_s: float, sleeper: int, other: int) -> None:
    if sleeper == other:
        return
    ready: ReadyLanes[Entry] = ReadyLanes(make_lanes(DEFAULT_LANES, "shares"), "shares", 0.95)
    awake, asleep = Entry(ready.lanes[other]), Entry(ready.lanes[sleeper])
    ready.wake(awake)
    ready.lanes[other].busy_s += sleep_s  # it had the loop to itself
    ready.lanes[other].steps += 1000
    ready.wake(asleep)
    before = ready.lanes[other].busy_s
    run_saturated(ready, [awake, asleep], dict.fromkeys(range(1, 5), 50e-6), 0.05)
    weights = {index: DEFAULT_LANES[TaskPriority(index)].share for index in (sleeper, other)}
    ideal = 0.05 * weights[other] / sum(weights.values())
    assert ready.lanes[other].busy_s - before >= ideal - 2 * 200e-6


def test_the_quota_leaves_the_lower_lanes_their_part() -> None:
    ready: ReadyLanes[Entry] = ReadyLanes(make_lanes(DEFAULT_LANES, "strict"), "strict", 0.95)
    entries = [Entry(lane) for lane in ready.lanes]
    for entry in entries:
        ready.wake(entry)
    for _ in range(100_000):
        ready.critical.busy_s += 20e-6
        ready.critical.steps += 1
        for entry in ready.choose(200e-6):
            ready.outstanding -= 1
            entry.state = READY
            entry.lane.busy_s += 20e-6
            entry.lane.steps += 1
            ready.again(entry)
    total = sum(lane.busy_s for lane in ready.lanes)
    assert sum(lane.busy_s for lane in ready.lower) / total == pytest.approx(0.05, abs=0.001)
    for lane in ready.lower:
        assert lane.busy_s / total >= 0.0099, lane.index


@EXAMPLES
@given(sent_back=st.lists(st.sets(st.integers(0, MAX_BATCH - 1)), max_size=30))
def test_nobody_is_overtaken_by_more_than_a_batch(sent_back: list[set[int]]) -> None:
    """However often a tick ends in mid-batch, and whichever entries of it Trio had let go first."""
    ready: ReadyLanes[Entry] = ReadyLanes(make_lanes(DEFAULT_LANES, "shares"), "shares", 0.95)
    lane = ready.lanes[TaskPriority.MEDIUM]
    lane.step_s = 0.0
    entries = [Entry(lane) for _ in range(300)]
    ready.wake_all(lane, entries)
    ran: list[Entry] = []
    for places in [*sent_back, *[set[int]()] * 10]:
        for place, entry in enumerate(ready.choose(1.0)):
            if place in places:
                ready.send_back(entry)
            else:
                ready.outstanding -= 1
                entry.state = READY
                ready.forget(entry)
                ran.append(entry)
    assert len(ran) == len(entries)
    assert max(abs(place - (entry.sequence - 1)) for place, entry in enumerate(ran)) < MAX_BATCH


def test_an_entry_that_was_moved_away_and_back_counts_once() -> None:
    ready: ReadyLanes[Entry] = ReadyLanes(make_lanes(DEFAULT_LANES, "shares"), "shares", 0.95)
    high, medium = ready.lanes[TaskPriority.HIGH], ready.lanes[TaskPriority.MEDIUM]
    entry = Entry(high)
    ready.wake(entry)
    for lane in (medium, high, medium, high):
        ready.move(entry, lane)
    assert list(ready.choose(200e-6)) == [entry]


def test_a_batch_is_one_quantum_and_never_empty() -> None:
    ready: ReadyLanes[Entry] = ReadyLanes(make_lanes(DEFAULT_LANES, "shares"), "shares", 0.95)
    lane = ready.lanes[TaskPriority.LOW]
    for _ in range(200):
        ready.wake(Entry(lane))
    lane.step_s = 45e-6
    assert len(ready.choose(200e-6)) == 4
    lane.step_s = 1.0
    assert len(ready.choose(200e-6)) == 1
    lane.step_s = 0.0
    assert len(ready.choose(1.0)) == MAX_BATCH
    assert len(ready.choose(0.0)) == 1
