"""Which waiting task goes next: the ready lanes and the one rule of choice. Pure: no Trio, no clock.

The rule, in this order:

1. CRITICAL is never queued here. While it is ready nothing else is granted, unless the lower lanes together are owed
   part of what CRITICAL's quota leaves them.
2. A lane that is owed its minimum share goes next, the most owed first.
3. Otherwise the lane with the least virtual run time (``shares``), or the first lane (``strict``).
4. Within a lane: the order of waking, kept by a sequence number, also for an entry that was granted and sent back.

Time enters only as the busy seconds and steps that the caller adds to a lane. ``bill`` turns them into virtual run
time (busy seconds divided by the share), into what each lane is owed, and into the average step. Debt and credit reach
back one second of busy time and no further. A lane that slept gains nothing: on waking its virtual run time is lifted
to the least one of the lanes that did not sleep, and whatever it was owed is forgotten.

A choice is a *batch*: entries worth one quantum, one to 64. Lanes are mixed in it as their virtual run times say, and
the batch ends as soon as the lane whose turn it is has nothing left to give; so a single task gets its lane's share.

Entries sent back are a lane's next batch by themselves: whoever came after them waits until they have run. So nobody is
overtaken by more entries than one batch holds, however often they are sent back.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from itertools import islice
from typing import Any, Generic, Literal, TypeVar

from scheduler.lanes import LaneSettings, TaskPriority

Policy = Literal["shares", "strict"]

IDLE, QUEUED, GRANTED, READY = range(4)
"""States of an entry. READY is CRITICAL's: runnable, never queued. A running entry keeps the state it started with."""

CRITICAL_BIT = 1
MAX_BATCH = 64
STEP_OVERHEAD_S = 5e-6
FIRST_STEP_GUESS_S = 20e-6
MEMORY_S = 1.0
_WEIGHT_OF_ONE_STEP = 0.05


class Entry:
    """Something that can be ready: a task at the gate."""

    __slots__ = ("above", "lane", "sequence", "state")

    def __init__(self, lane: "Lane") -> None:
        self.lane = lane
        self.state = IDLE
        self.sequence = 0
        self.above = 0  # the lanes that may still hold up a granted entry


E = TypeVar("E", bound=Entry)


class Lane:
    """One lane's queue and accounts. ``busy_s`` and ``steps`` are the caller's to add to."""

    __slots__ = (
        "above",
        "available",
        "billed_s",
        "billed_steps",
        "bit",
        "busy_s",
        "index",
        "inverse_share",
        "minimum_share",
        "owed_s",
        "planned_owed_s",
        "planned_s",
        "queue",
        "queued",
        "ready",
        "returned",
        "step_s",
        "steps",
        "virtual_s",
    )

    def __init__(self, index: int, settings: LaneSettings, policy: Policy) -> None:
        self.index = index
        self.bit = 1 << index
        self.above = (self.bit - 1) if policy == "strict" else (CRITICAL_BIT if index else 0)
        self.inverse_share = 1 / settings.share
        self.minimum_share = settings.minimum_share
        self.busy_s = self.billed_s = 0.0
        self.steps = self.billed_steps = 0
        self.virtual_s = self.planned_s = 0.0
        self.owed_s = self.planned_owed_s = 0.0
        self.step_s = FIRST_STEP_GUESS_S
        self.ready = 0  # entries runnable or running
        self.queued = 0  # entries waiting in `queue` or `returned`
        self.available = 0  # those of them that the batch being chosen may take
        self.queue: deque[tuple[int, Any]] = deque()  # in order of waking; may hold stale pairs
        self.returned: list[tuple[int, Any]] = []  # a heap: entries sent back or moved here


class ReadyLanes(Generic[E]):
    """All lanes of one gate."""

    __slots__ = ("critical", "lanes", "lower", "lower_owed_s", "mask", "outstanding", "queued", "reserve", "sequence",
                 "strict", "virtual_now_s")  # fmt: skip

    def __init__(self, lanes: Sequence[Lane], policy: Policy, critical_quota: float) -> None:
        self.lanes = tuple(lanes)
        self.critical = self.lanes[0]
        self.lower = self.lanes[1:]
        self.strict = policy == "strict"
        self.reserve = 1 - critical_quota
        self.mask = 0  # the lanes with something runnable or running
        self.queued = 0
        self.outstanding = 0  # granted entries that have not started yet
        self.sequence = 0
        self.lower_owed_s = 0.0
        self.virtual_now_s = 0.0

    # -- an entry's life: wake, (choose, send_back)*, its step, (again | rest). Before the step the caller sets a
    # granted entry READY and takes it off `outstanding`; the gate does that inline.

    def wake(self, entry: E) -> None:
        """An idle entry becomes ready: CRITICAL at once, any other at the tail of its lane."""
        lane = entry.lane
        if not lane.ready:
            self._rouse(lane)
        lane.ready += 1
        if lane.index:
            self.again(entry)
        else:
            entry.state = READY  # what `again` would do, without the call: every spawn and wake in CRITICAL pays for it

    def wake_all(self, lane: Lane, entries: Sequence[E]) -> None:
        """``wake`` for many idle entries of one lane at a time, CRITICAL excepted: five times as fast."""
        if not lane.ready:
            self._rouse(lane)
        lane.ready += len(entries)
        sequence = self.sequence
        append = lane.queue.append
        for entry in entries:
            sequence += 1
            entry.state = QUEUED
            entry.sequence = sequence
            append((sequence, entry))
        self.sequence = sequence
        lane.queued += len(entries)
        self.queued += len(entries)

    def again(self, entry: E) -> None:
        """A running entry has given way and stays ready: to the tail of its lane."""
        lane = entry.lane
        if lane.index:
            entry.state = QUEUED
            self.sequence = entry.sequence = sequence = self.sequence + 1
            lane.queue.append((sequence, entry))
            lane.queued += 1
            self.queued += 1
        else:
            entry.state = READY

    def rest(self, entry: E) -> None:
        """A running entry has blocked or ended."""
        entry.state = IDLE
        lane = entry.lane
        lane.ready -= 1
        if not lane.ready:
            self.mask &= ~lane.bit

    def send_back(self, entry: E) -> None:
        """A granted entry may not run after all: to its old place."""
        self.outstanding -= 1
        lane = entry.lane
        entry.state = QUEUED
        lane.queued += 1
        self.queued += 1
        heappush(lane.returned, (entry.sequence, entry))

    def move(self, entry: E, lane: Lane) -> None:
        """Put ``entry`` into another lane, at the place its time of waking gives it there."""
        old, state = entry.lane, entry.state
        if old is lane:
            return
        if state == IDLE:
            entry.lane = lane
            return
        if state == QUEUED:
            self._unqueue(entry)
        if state == GRANTED and not lane.index:
            self.outstanding -= 1
        old.ready -= 1
        if not old.ready:
            self.mask &= ~old.bit
        entry.lane = lane
        if not lane.ready:
            self._rouse(lane)
        lane.ready += 1
        if not lane.index:
            entry.state = READY
        elif state == QUEUED:
            entry.state = QUEUED
            lane.queued += 1
            self.queued += 1
            heappush(lane.returned, (entry.sequence, entry))
        elif state == GRANTED:
            entry.above = lane.above

    def forget(self, entry: E) -> None:
        """Take ``entry`` out, whatever its state."""
        state = entry.state
        if state == QUEUED:
            self._unqueue(entry)
        elif state == GRANTED:
            self.outstanding -= 1
        if state != IDLE:
            self.rest(entry)

    # -- the choice

    def choose(self, quantum_s: float) -> Sequence[E]:
        """Grant a batch of queued entries; empty when nothing waits or CRITICAL goes first."""
        self.bill()
        above = None
        if self.mask & CRITICAL_BIT:
            if self.lower_owed_s <= 0:
                return ()
            above = 0
        waiting = [lane for lane in self.lower if lane.queued]
        if not waiting:
            return ()
        for lane in waiting:
            lane.available = self._count_returned(lane) or lane.queued
        if len(waiting) == 1:
            return self._grant_from(waiting[0], quantum_s, above)
        return self._grant_mixed(waiting, quantum_s, above)

    def bill(self) -> None:
        """Account for the busy time added since the last bill."""
        total = 0.0
        floor = None
        for lane in self.lanes:
            spent = lane.busy_s - lane.billed_s
            if spent:
                total += spent
                lane.billed_s = lane.busy_s
                steps = lane.steps - lane.billed_steps
                lane.billed_steps = lane.steps
                if steps:
                    lane.step_s += min(1.0, steps * _WEIGHT_OF_ONE_STEP) * (spent / steps - lane.step_s)
                lane.virtual_s += spent * lane.inverse_share
                lane.owed_s -= spent
            elif not lane.ready:
                continue
            if lane.index and (floor is None or lane.virtual_s < floor):
                floor = lane.virtual_s
        if not total:
            return
        if floor is not None and floor > self.virtual_now_s:
            self.virtual_now_s = floor
        self._settle_debts(total)

    def _settle_debts(self, total_s: float) -> None:
        """What ``total_s`` of busy time entitles the ready lanes to; owed_s already has what each of them used."""
        if self.mask & ~CRITICAL_BIT:
            limit = self.reserve * MEMORY_S
            owed = self.lower_owed_s + self.reserve * total_s
            self.lower_owed_s = min(limit, owed)
        critical_used = -self.critical.owed_s
        self.critical.owed_s = 0.0
        self.lower_owed_s = max(-self.reserve * MEMORY_S, self.lower_owed_s - (total_s - critical_used))
        for lane in self.lower:
            limit = lane.minimum_share * MEMORY_S
            owed = lane.owed_s + (lane.minimum_share * total_s if lane.ready else 0.0)
            lane.owed_s = max(-limit, min(limit, owed))

    def _rouse(self, lane: Lane) -> None:
        """A lane that slept becomes ready and gains nothing from its sleep."""
        if lane.index:
            self.bill()
            lane.virtual_s = max(lane.virtual_s, self.virtual_now_s)
            lane.owed_s = min(lane.owed_s, 0.0)
            if not self.mask & ~CRITICAL_BIT:
                self.lower_owed_s = min(self.lower_owed_s, 0.0)
        self.mask |= lane.bit

    def _grant_from(self, lane: Lane, quantum_s: float, above: int | None) -> Sequence[E]:
        count = min(MAX_BATCH, lane.available, max(1, int(quantum_s / (lane.step_s + STEP_OVERHEAD_S))))
        if above is None:
            above = lane.above
            if self.strict and lane.owed_s > 0:
                above, count = above & CRITICAL_BIT, 1
        return self._grant_several(lane, above, count)

    def _grant_mixed(self, waiting: Sequence[Lane], quantum_s: float, above: int | None) -> Sequence[E]:
        for lane in waiting:
            lane.planned_s = float(lane.index) if self.strict else lane.virtual_s
            lane.planned_owed_s = lane.owed_s
        batch: list[E] = []
        room = quantum_s
        while len(batch) < MAX_BATCH:
            lane, owed = self._whose_turn(waiting)
            cost = lane.step_s + STEP_OVERHEAD_S
            if not lane.available or (batch and cost > room):
                break
            above_lane = lane.above & CRITICAL_BIT if owed else lane.above
            batch += self._grant_several(lane, above_lane if above is None else above, 1)
            room -= cost
            lane.planned_owed_s -= lane.step_s
            if not self.strict:
                lane.planned_s += lane.step_s * lane.inverse_share
        return batch

    @staticmethod
    def _whose_turn(waiting: Sequence[Lane]) -> tuple[Lane, bool]:
        """The lane to be served next and whether that is owed to it."""
        first = waiting[0]
        most_owed = None
        for lane in waiting:
            if lane.planned_s < first.planned_s:
                first = lane
            if lane.available and lane.planned_owed_s > (most_owed.planned_owed_s if most_owed else 0.0):
                most_owed = lane
        return (first, False) if most_owed is None else (most_owed, True)

    # -- queues

    def _unqueue(self, entry: E) -> None:
        """Out of the queue; its pair stays behind, stale, and is passed over later."""
        entry.state = IDLE
        lane = entry.lane
        lane.queued -= 1
        self.queued -= 1
        if len(lane.queue) + len(lane.returned) > 2 * lane.queued + MAX_BATCH:
            lane.queue = deque(pair for pair in lane.queue if _is_live(pair, lane))
            lane.returned = sorted(pair for pair in lane.returned if _is_live(pair, lane))

    def _grant_several(self, lane: Lane, above: int, count: int) -> list[E]:
        """The first ``count`` of the lane's entries, at most as many as are ``available``."""
        queue, returned = lane.queue, lane.returned
        batch: list[E] = []
        while len(batch) < count:
            first_returned = returned and (not queue or returned[0][0] <= queue[0][0])
            sequence, entry = heappop(returned) if first_returned else queue.popleft()
            if entry.state == QUEUED and entry.sequence == sequence and entry.lane is lane:  # see `_is_live`
                entry.state = GRANTED
                entry.above = above
                batch.append(entry)
        lane.available -= count
        lane.queued -= count
        self.queued -= count
        self.outstanding += count
        return batch

    @staticmethod
    def _count_returned(lane: Lane) -> int:
        """How many entries wait in ``returned``, a batch at most; one that was moved here counts as sent back."""
        if not lane.returned:
            return 0
        # A set: one that was moved away and back again has left a pair that looks alive again.
        count = len({entry for _, entry in islice((pair for pair in lane.returned if _is_live(pair, lane)), MAX_BATCH)})
        if not count:
            lane.returned.clear()
        return count


def _is_live(pair: tuple[int, Entry], lane: Lane) -> bool:
    sequence, entry = pair
    return entry.state == QUEUED and entry.sequence == sequence and entry.lane is lane


def make_lanes(settings: Mapping[TaskPriority, LaneSettings], policy: Policy) -> list[Lane]:
    """Five lanes in order, for ``ReadyLanes``."""
    return [Lane(priority, settings[priority], policy) for priority in TaskPriority]
