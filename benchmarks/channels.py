"""The channels' gates: events a second to many receivers, latency of a hundred actors, backpressure, drains, steps.

    python -m benchmarks.channels [--quick] [--only WORD] [--json FILE]

Topology of the lossless cases, all in one Trio loop, outside lanes and with every task in lane HIGH:

    1 sender ──sends of 1,024 rows (ts, instrument, bid, ask)──► ring of 65,536 rows ──► N receivers, each sums "bid"

The sender takes one checkpoint after every 4 sends (a producer within its step budget, the gated form) or after every
send. An event is one row; the rate counts rows sent, each of which reaches all N. Every receiver's sum must equal the
one computed beforehand, or there is no figure. Batch: rows a receive took. Age: from the send of a batch's oldest row
to its receipt by the last receiver.

The actors: 100 strategies in lane HIGH, each with a ring receiver and a mailbox of its own (configuration and stop).
Every send is the cue for one of them to signal; a risk task in lane CRITICAL takes the signals. A dashboard in lane LOW
receives the latest row per instrument, that is, copies.

    feed ──► ring ──► 100 × (ring receiver + mailbox) ──one signal a send──► mailbox ──► risk

At 100,000 events/s the feed sends by its own schedule (100 rows each millisecond, or all that are due), and latency
counts from the scheduled time on, so a loop that falls behind cannot hide it.

Backpressure: a producer offers 100 items each millisecond (or without pause) by ``send_batch``; the consumer works for
1 / R seconds an item on its own schedule, so time in which it finds nothing is lost to it. Capacity R x 20 ms.

Words for --only: lossless, plain, actors, zero-copy, backpressure, mailbox, watch, send, thread.
"""

import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from time import perf_counter, perf_counter_ns
from typing import Any, TypeVar

import attrs
import numpy as np
import trio
import trio.testing

from benchmarks.alternatives.plain_broadcasts import ALTERNATIVES
from benchmarks.alternatives.seed_backpressure import SeedBackpressure
from benchmarks.harness import RUNS, Row, main, median_of, percentile
from scheduler import (
    Backpressure,
    BroadcastReceiver,
    MailboxReceiver,
    MailboxSender,
    TaskPriority,
    open_broadcast,
    open_mailbox,
    open_scheduler,
    open_watch,
)

FIELDS = {"ts": "i8", "instrument": "i4", "bid": "f8", "ask": "f8"}
CAPACITY = 65_536
ROWS = 1024
Start = Callable[..., None]
T = TypeVar("T")


@asynccontextmanager
async def tasks(in_lanes: bool) -> AsyncIterator[Start]:
    """``start(priority, function, *args)`` in a lane, or as plain Trio tasks."""
    if in_lanes:
        async with open_scheduler() as scheduler:
            yield scheduler.start_soon
    else:
        async with trio.open_nursery() as nursery:
            yield lambda _priority, function, *args: nursery.start_soon(function, *args)


def microseconds(ages_ns: list[int], fraction: float) -> float:
    return percentile(sorted(ages_ns), fraction) / 1e3


# -- lossless


@attrs.frozen
class Flow:
    """What one run of the lossless topology gave."""

    events_per_s: float
    batch: float
    ages_ns: list[int]


def lossless(receivers: int, events: int, in_lanes: bool, sends_per_checkpoint: int) -> Flow:
    bids = np.arange(ROWS, dtype="f8")
    sends = events // ROWS
    answer = sends * float(bids.sum())
    sums: list[float] = []
    batches: list[int] = []
    ages: list[int] = []

    async def receive(receiver: BroadcastReceiver, is_last: bool) -> None:
        total, count, add = 0.0, 0, np.add.reduce
        try:
            while True:
                batch = await receiver.receive()
                total += add(batch["bid"])
                count += 1
                if is_last:
                    ages.append(perf_counter_ns() - int(batch["ts"][0]))
        except trio.EndOfChannel:
            sums.append(total)
            batches.append(count)

    async def send(sender: Any) -> None:
        instruments, asks = np.zeros(ROWS, "i4"), bids + 1
        stamps = np.empty(ROWS, "i8")
        rows = {"ts": stamps, "instrument": instruments, "bid": bids, "ask": asks}
        with sender:
            for number in range(1, sends + 1):
                stamps[0] = perf_counter_ns()
                try:
                    sender.send_nowait(rows)
                except trio.WouldBlock:
                    await sender.send(rows)
                if number % sends_per_checkpoint == 0:
                    await trio.lowlevel.checkpoint()

    async def run() -> float:
        sender, first = open_broadcast(CAPACITY, FIELDS)
        first.close()
        async with tasks(in_lanes) as start:
            for number in range(receivers):
                start(TaskPriority.HIGH, receive, sender.subscribe(), number == receivers - 1)
            await trio.testing.wait_all_tasks_blocked()
            begin = perf_counter()
            start(TaskPriority.HIGH, send, sender)
        return perf_counter() - begin

    elapsed = trio.run(run)
    check(sums == [answer] * receivers, "a receiver's sum differs")
    return Flow(sends * ROWS / elapsed, sends * ROWS / statistics.mean(batches), ages)


def check(holds: bool, complaint: str) -> None:
    if not holds:
        raise SystemExit(f"wrong answer: {complaint}")


LOSSLESS_GATES = {
    False: {1: (15e6, 25e6), 10: (7e6, 12e6), 100: (3e6, 5e6)},
    True: {1: (10e6, 25e6), 10: (4e6, 12e6), 100: (2e6, 5e6)},
}
LOSSLESS_EVENTS = {1: 20_000_000, 10: 8_000_000, 100: 1_600_000}


def lossless_rows(quick: bool) -> Iterator[Row]:
    trio_channels, sizes = ALTERNATIVES["Trio memory channels"]
    for receivers, full in LOSSLESS_EVENTS.items():
        events = full // 10 if quick else full
        baseline = plain_rate(trio_channels, receivers, sizes[receivers], quick)
        for in_lanes in (False, True):
            for sends in (4, 1):
                flows = repeat(lambda: lossless(receivers, events, in_lanes, sends), quick)  # noqa: B023
                ages = [age for flow in flows for age in flow.ages_ns]
                gate, aim = LOSSLESS_GATES[in_lanes][receivers] if sends == 4 else (None, None)
                yield Row(
                    f"lossless to {receivers}, {where(in_lanes)}, checkpoint per {sends} sends",
                    "events",
                    statistics.median(flow.events_per_s for flow in flows),
                    "1/s",
                    baseline=baseline,
                    gate=gate,
                    aim=aim,
                    at_most=False,
                    note=f"batch {statistics.median(flow.batch for flow in flows):,.0f} rows, "
                    f"age p50 / p99 {microseconds(ages, 0.5):,.0f} / {microseconds(ages, 0.99):,.0f} µs; "
                    "baseline: Trio memory channels",
                )


def runs(quick: bool) -> int:
    return 2 if quick else RUNS


def repeat(measure: Callable[[], T], quick: bool) -> list[T]:
    """All but the first of runs + 1 results."""
    return [measure() for _ in range(runs(quick) + 1)][1:]


def where(in_lanes: bool) -> str:
    return "in lanes" if in_lanes else "outside lanes"


def plain_rate(
    alternative: Callable[[int, int], tuple[float, list[int]]], receivers: int, events: int, quick: bool
) -> float:
    events //= 10 if quick else 1

    def rate() -> float:
        elapsed, sums = alternative(receivers, events)
        check(sums == [events * (events - 1) // 2] * receivers, alternative.__name__)
        return events / elapsed

    return median_of(rate, runs=runs(quick))


def plain_rows(quick: bool) -> Iterator[Row]:
    for name, (alternative, sizes) in ALTERNATIVES.items():
        for receivers, events in sizes.items():
            yield Row(
                f"plain: {name} to {receivers}", "events", plain_rate(alternative, receivers, events, quick), "1/s"
            )


# -- actors

ACTORS = 100


@attrs.define
class Actors:
    """100 strategies; ``seen_ns[k]`` is when the last of them received send number k."""

    sums: list[float] = attrs.Factory(list)
    seen_ns: np.ndarray[Any, Any] = attrs.field(factory=lambda: np.zeros(1_000_000, "i8"))
    batches: int = 0
    configurations: int = 0
    signals: list[int] = attrs.Factory(list)

    async def actor(
        self, place: int, receiver: BroadcastReceiver, mailbox: MailboxReceiver[str], signals: MailboxSender[int]
    ) -> None:
        """The ring's loop and the mailbox's loop; the stop message ends the latter, the ring's end the former."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.read_mailbox, mailbox)
            total, add, cue = 0.0, np.add.reduce, place
            with signals:
                async for batch in receiver:
                    total += add(batch["bid"])
                    sends = batch["instrument"]
                    first, last = int(sends[0]), int(sends[-1])
                    self.seen_ns[first : last + 1] = perf_counter_ns()
                    self.batches += 1
                    while cue <= last:
                        await signals.send(cue)
                        cue += ACTORS
            self.sums.append(total)

    async def dashboard(self, receiver: BroadcastReceiver) -> None:
        async for _ in receiver:
            await trio.sleep(0.005)

    async def read_mailbox(self, mailbox: MailboxReceiver[str]) -> None:
        while True:
            for message in await mailbox.receive_batch():
                if message == "stop":
                    return
                self.configurations += 1

    async def risk(self, signals: MailboxReceiver[int]) -> None:
        try:
            while True:
                self.signals += await signals.receive_batch()
        except trio.EndOfChannel:
            pass

    async def run(self, in_lanes: bool, feed: Callable[[Any], Awaitable[None]]) -> tuple[float, float]:
        """Returns seconds and the share of delivered bytes that were views; one dashboard receives copies."""
        sender, first = open_broadcast(CAPACITY, FIELDS)
        first.close()
        signal_sender, signal_receiver = open_mailbox[int](1_000)
        mailboxes = []
        async with tasks(in_lanes) as start:
            start(TaskPriority.CRITICAL, self.risk, signal_receiver)
            start(TaskPriority.LOW, self.dashboard, sender.subscribe("conflating", key="bid"))
            for place in range(ACTORS):
                mailbox, inbox = open_mailbox[str]()
                mailboxes.append(mailbox)
                start(TaskPriority.HIGH, self.actor, place, sender.subscribe(), inbox, signal_sender.clone())
            signal_sender.close()
            await trio.testing.wait_all_tasks_blocked()
            begin = perf_counter()

            async def run_feed() -> None:
                with sender:
                    await feed(sender)
                for mailbox in mailboxes:
                    mailbox.send_nowait("stop")

            for mailbox in mailboxes:
                mailbox.send_nowait("configure")
            start(TaskPriority.HIGH, run_feed)
        elapsed = perf_counter() - begin
        sent = sender.statistics()
        check(self.configurations == ACTORS, "a configuration was lost")
        check(sorted(self.signals) == list(range(len(self.signals))), "a signal was lost, or came twice")
        return elapsed, sent.bytes_viewed / (sent.bytes_viewed + sent.bytes_copied)


def sustained(events: int, in_lanes: bool) -> tuple[float, float, float]:
    """Events a second, rows a batch, share of views."""
    actors = Actors()
    bids = np.arange(ROWS, dtype="f8") % 8
    sends = events // ROWS

    async def feed(sender: Any) -> None:
        numbers, rest = np.empty(ROWS, "i4"), np.zeros(ROWS, "i8")
        rows = {"ts": rest, "instrument": numbers, "bid": bids, "ask": bids}
        for number in range(sends):
            numbers[:] = number
            try:
                sender.send_nowait(rows)
            except trio.WouldBlock:
                await sender.send(rows)
            if number % 4 == 3:
                await trio.lowlevel.checkpoint()

    elapsed, views = trio.run(actors.run, in_lanes, feed)
    check(actors.sums == [sends * float(bids.sum())] * ACTORS, "an actor's sum differs")
    return sends * ROWS / elapsed, sends * ROWS * ACTORS / actors.batches, views


def paced(duration_s: float, in_lanes: bool) -> tuple[list[int], float]:
    """Nanoseconds from each scheduled send to its receipt by the last actor, and rows a batch."""
    actors = Actors()
    period_ns, rows_each = 1_000_000, 100
    sends = int(duration_s * 1e9) // period_ns
    due_ns = np.zeros(sends, "i8")
    bids = np.arange(rows_each, dtype="f8")

    async def feed(sender: Any) -> None:
        begin = perf_counter_ns() + period_ns
        due_ns[:] = begin + np.arange(sends) * period_ns
        number = 0
        while number < sends:
            behind_ns = perf_counter_ns() - int(due_ns[number])
            if behind_ns < 0:
                await trio.sleep(-behind_ns / 1e9)
                continue
            due = min(behind_ns // period_ns + 1, sends - number, 10)
            numbers = np.repeat(np.arange(number, number + due, dtype="i4"), rows_each)
            stamps = np.repeat(due_ns[number : number + due], rows_each)
            await sender.send({"ts": stamps, "instrument": numbers, "bid": np.tile(bids, due), "ask": 0.0})
            number += due

    trio.run(actors.run, in_lanes, feed)
    check(actors.sums == [sends * float(bids.sum())] * ACTORS, "an actor's sum differs")
    return (actors.seen_ns[:sends] - due_ns).tolist(), sends * rows_each * ACTORS / actors.batches


def actor_rows(quick: bool) -> Iterator[Row]:
    alternative, sizes = ALTERNATIVES["Trio memory channels"]
    baseline = plain_rate(alternative, 100, sizes[100], quick)
    for in_lanes in (False, True):
        flows = repeat(lambda: sustained(160_000 if quick else 1_600_000, in_lanes), quick)  # noqa: B023
        yield Row(
            f"actors: 100 strategies, {where(in_lanes)}",
            "events sustained",
            statistics.median(rate for rate, _, _ in flows),
            "1/s",
            baseline=baseline,
            gate=1e6,
            at_most=False,
            note=f"batch {statistics.median(batch for _, batch, _ in flows):,.0f} rows; baseline: Trio memory channels",
        )
        if in_lanes:
            yield Row(
                "zero-copy: 100 strategies and a conflating dashboard",
                "bytes as views",
                100 * statistics.median(views for _, _, views in flows),
                "%",
                gate=95.0,
                at_most=False,
                note=f"{100 * (1 - statistics.median(views for _, _, views in flows)):.3f} % copied, for the dashboard",
            )
        delays = repeat(lambda: paced(0.3 if quick else 1.0, in_lanes), quick)  # noqa: B023
        ordered = [sorted(delay) for delay, _ in delays]
        for name, fraction, gate in (("p50 to the last", 0.5, None), ("p99 to the last", 0.99, 25.0)):
            yield Row(
                f"actors: 100 strategies at 100,000 events/s, {where(in_lanes)}",
                name,
                statistics.median(percentile(delay, fraction) for delay in ordered) / 1e6,
                "ms",
                gate=gate,
                note=f"batch {statistics.median(batch for _, batch in delays):,.0f} rows, "
                f"worst {max(delay[-1] for delay in ordered) / 1e6:.1f} ms",
            )


# -- backpressure

OFFERED_PER_MS = 100


@attrs.frozen
class Pressed:
    """What a consumer able to take ``rate`` items a second got."""

    share: float
    highest_used: int
    waits_s: list[float]
    batch: float


async def consume(rate: float, take: Callable[[], Awaitable[list[int]]], end_s: float) -> tuple[int, int]:
    """Work 1 / rate seconds an item until ``end_s``; returns the items (each of which must be the next) and takes."""
    free_at = perf_counter()
    count = takes = 0
    while free_at < end_s:
        items = await take()
        now = perf_counter()
        free_at = max(free_at, now - 0.001) + len(items) / rate  # a timer may be 1 ms late, which is no idle time
        check(items == list(range(count, count + len(items))), "an item was lost, or came twice")
        count += len(items)
        takes += 1
        if free_at > now:
            await trio.sleep(free_at - now)
    return count, takes


def ours(rate: int, duration_s: float, every_s: float) -> Pressed:
    async def run() -> Pressed:
        capacity = max(1, rate // 50)
        sender, receiver = open_mailbox[int](capacity, backpressure=Backpressure())
        waits: list[float] = []
        used: list[int] = []
        at_once = max(1, rate // 1000)

        async def produce() -> None:
            number, due = 0, perf_counter()
            while True:
                delay = due - perf_counter()
                if delay > 0:
                    await trio.sleep(delay)
                begin = perf_counter()
                await sender.send_batch(range(number, number + OFFERED_PER_MS))
                waits.append(perf_counter() - begin)
                used.append(sender.statistics().used)
                number += OFFERED_PER_MS
                due = max(due + every_s, begin - 0.05)

        async def take() -> list[int]:
            used.append(receiver.statistics().used)
            return await receiver.receive_batch(at_once)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            begin = perf_counter()
            count, takes = await consume(rate, take, begin + duration_s)
            nursery.cancel_scope.cancel()
        return Pressed(count / (rate * duration_s), max(used), waits, count / takes)

    return trio.run(run)


def as_the_seed_wrote_it(rate: int, duration_s: float, every_s: float) -> float:
    """The share of ``rate`` that the consumer got."""

    async def run() -> float:
        capacity = max(1, rate // 50)
        send, channel = trio.open_memory_channel[int](capacity)
        control = SeedBackpressure(send, capacity)
        at_once = max(1, rate // 1000)

        async def produce() -> None:
            number, due = 0, perf_counter()
            while True:
                delay = due - perf_counter()
                if delay > 0:
                    await trio.sleep(delay)
                for _ in range(OFFERED_PER_MS):
                    await control.send(number)
                    number += 1
                due = max(due + every_s, perf_counter() - 0.05)

        async def take() -> list[int]:
            items = [await channel.receive()]
            while len(items) < at_once:
                try:
                    items.append(channel.receive_nowait())
                except trio.WouldBlock:
                    break
            return items

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            count, _ = await consume(rate, take, perf_counter() + duration_s)
            nursery.cancel_scope.cancel()
        return count / (rate * duration_s)

    return trio.run(run)


def backpressure_rows(quick: bool) -> Iterator[Row]:
    duration_s = 0.3 if quick else 1.2
    for rate, every_s in ((1_000, 0.001), (10_000, 0.001), (100_000, 0.001), (100_000, 0.0)):
        seed = 100 * median_of(lambda: as_the_seed_wrote_it(rate, duration_s, every_s), runs=runs(quick), warm_up=0)  # noqa: B023
        pressed = repeat(lambda: ours(rate, duration_s, every_s), quick)  # noqa: B023
        waits = sorted(wait for one in pressed for wait in one.waits_s)
        case = f"backpressure: a consumer able to take {rate:,}/s{'' if every_s else ', producer never pauses'}"
        yield Row(
            case,
            "of its rate",
            100 * statistics.median(one.share for one in pressed),
            "%",
            baseline=seed,
            gate=95.0,
            at_most=False,
            note=f"batch {statistics.median(one.batch for one in pressed):,.0f} items; baseline: the seed's algorithm",
        )
        yield Row(
            case,
            "highest fill",
            100 * max(one.highest_used for one in pressed) / max(1, rate // 50),
            "%",
            gate=80.0,
            note="of the capacity; gate: the high watermark",
        )
        yield Row(
            case, "p99 wait of a send", 1e3 * percentile(waits, 0.99), "ms", note=f"{OFFERED_PER_MS} items a send"
        )


# -- mailbox, watch, sends, threads


def drain_ns(quick: bool) -> float:
    """Nanoseconds an item of ``receive_batch``."""
    items = 1_000 if quick else 10_000

    async def run() -> float:
        sender, receiver = open_mailbox[int](items)
        best = []
        for _ in range(20):
            await sender.send_batch(range(items))
            begin = perf_counter_ns()
            taken = await receiver.receive_batch()
            best.append((perf_counter_ns() - begin) / items)
            check(taken == list(range(items)), "the drain is not what was sent")
        return statistics.median(best)

    return median_of(lambda: trio.run(run), runs=runs(quick))


def trio_drain_ns(quick: bool) -> float:
    items = 1_000 if quick else 10_000

    async def run() -> float:
        send, channel = trio.open_memory_channel[int](items)
        for value in range(items):
            send.send_nowait(value)
        begin = perf_counter_ns()
        taken = [channel.receive_nowait() for _ in range(items)]
        elapsed = perf_counter_ns() - begin
        check(taken == list(range(items)), "the drain is not what was sent")
        return elapsed / items

    return median_of(lambda: trio.run(run), runs=runs(quick))


def hand_over_ns(quick: bool, open_pair: Callable[[int], Any]) -> float:
    """Nanoseconds an item from a sender to a receiver that waits for each."""
    items = 2_000 if quick else 20_000

    async def run() -> float:
        sender, receiver = open_pair(1_000)
        total = 0
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def send() -> None:
                with sender:
                    for value in range(items):
                        await sender.send(value)

            begin = perf_counter_ns()
            async for value in receiver:
                total += value
        check(total == items * (items - 1) // 2, "the sum differs")
        return (perf_counter_ns() - begin) / items

    return median_of(lambda: trio.run(run), runs=runs(quick))


class StepCounter(trio.abc.Instrument):
    """Counts the steps of all tasks."""

    steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1


def watch_steps(in_lanes: bool) -> float:
    """Steps of any task after ``set()`` until a reader that waited has it, its own included; the worst of 100."""
    counter = StepCounter()
    worst = 0

    async def run() -> None:
        nonlocal worst
        writer, reader = open_watch(0)
        at_set = 0
        seen = []

        async def read() -> None:
            nonlocal worst
            for _ in range(100):
                seen.append(await reader.changed())
                worst = max(worst, counter.steps - at_set)

        async with tasks(in_lanes) as start:
            start(TaskPriority.HIGH, read)
            for value in range(1, 101):
                await trio.testing.wait_all_tasks_blocked()
                at_set = counter.steps
                writer.set(value)
        check(seen == list(range(1, 101)), "a value was not observed")

    trio.run(run, instruments=[counter])
    return float(worst)


def send_ns(columns: int, rows: int, quick: bool) -> float:
    """Nanoseconds of one ``send_nowait`` with a receiver that takes it at once."""
    fields = {f"field_{number}": "f8" for number in range(columns)}
    values = {name: np.arange(rows, dtype="f8") for name in fields}

    def run() -> float:
        sender, receiver = open_broadcast(CAPACITY, fields)
        sends = 500 if quick else 5_000
        spent = 0
        for _ in range(sends):
            begin = perf_counter_ns()
            sender.send_nowait(values)
            spent += perf_counter_ns() - begin
            receiver.receive_nowait()
        check(receiver.statistics().sent == sends * rows, "rows are missing")
        return spent / sends

    return median_of(run, runs=runs(quick))


def compute_and_send_us(quick: bool, in_place: bool) -> float:
    """Microseconds to compute 13 columns of 1,024 rows and send them; in place: straight into slots, as if reserved.

    The rejected ``reserve()``: it saves the temporary and the copy, at best.
    """
    names = [f"field_{number}" for number in range(13)]
    source = np.arange(ROWS, dtype="f8")
    slots = {name: np.empty(CAPACITY) for name in names}
    sender, receiver = open_broadcast(CAPACITY, dict.fromkeys(names, "f8"))

    def once() -> None:
        if in_place:
            for name in names:
                np.multiply(source, 2.0, out=slots[name][ROWS : 2 * ROWS])
        else:
            sender.send_nowait(dict.fromkeys(names, source * 2.0))
            receiver.receive_nowait()

    def run() -> float:
        sends = 200 if quick else 2_000
        begin = perf_counter()
        for _ in range(sends):
            once()
        return (perf_counter() - begin) / sends * 1e6

    return median_of(run, runs=runs(quick))


def from_thread_us(quick: bool, ours: bool) -> float:
    """Microseconds of one send from a plain thread; the alternative is ``trio.from_thread.run`` on a memory channel."""
    sends = 100 if quick else 1_000

    async def run() -> float:
        sender, receiver = open_mailbox[int](1_000)
        send, channel = trio.open_memory_channel[int](1_000)
        elapsed = 0.0

        def thread() -> None:
            nonlocal elapsed
            begin = perf_counter()
            for value in range(sends):
                if ours:
                    sender.send_from_thread(value)
                else:
                    trio.from_thread.run(send.send, value)
            elapsed = perf_counter() - begin

        await trio.to_thread.run_sync(thread)
        for value in range(sends):
            check((receiver.receive_nowait() if ours else channel.receive_nowait()) == value, "out of order")
        return elapsed / sends * 1e6

    return median_of(lambda: trio.run(run), runs=runs(quick))


def small_rows(quick: bool) -> Iterator[Row]:
    yield Row(
        "mailbox: receive_batch",
        "per item",
        drain_ns(quick) / 1e3,
        "µs",
        baseline=trio_drain_ns(quick) / 1e3,
        gate=1.0,
        note="baseline: Trio's receive_nowait",
    )
    yield Row(
        "mailbox: one by one",
        "per item",
        hand_over_ns(quick, open_mailbox) / 1e3,
        "µs",
        baseline=hand_over_ns(quick, trio.open_memory_channel) / 1e3,
        note="baseline: Trio's memory channel",
    )
    for in_lanes in (False, True):
        yield Row(f"watch: set to observed, {where(in_lanes)}", "steps", watch_steps(in_lanes), "", gate=2.0)
    for columns, rows in ((4, 1), (4, 1024), (13, 10), (13, 1024)):
        yield Row(f"send of {rows} rows in {columns} columns", "per send", send_ns(columns, rows, quick) / 1e3, "µs")
    yield Row(
        "send: compute 1,024 x 13, send and receive",
        "per send",
        compute_and_send_us(quick, in_place=False),
        "µs",
        baseline=compute_and_send_us(quick, in_place=True),
        note="baseline: compute straight into slots (rejected)",
    )
    yield Row(
        "thread: send_from_thread",
        "per send",
        from_thread_us(quick, ours=True),
        "µs",
        baseline=from_thread_us(quick, ours=False),
        note="baseline: trio.from_thread.run",
    )


GROUPS: dict[str, Callable[[bool], Iterator[Row]]] = {
    "lossless": lossless_rows,
    "plain": plain_rows,
    "actors": actor_rows,
    "zero-copy": actor_rows,
    "backpressure": backpressure_rows,
    "mailbox": small_rows,
    "watch": small_rows,
    "send": small_rows,
    "thread": small_rows,
}


def cases(quick: bool) -> Iterator[Row]:
    wanted = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
    chosen = [group for word, group in GROUPS.items() if word in wanted or wanted in word]
    for group in dict.fromkeys(chosen or GROUPS.values()):
        yield from group(quick)


if __name__ == "__main__":
    raise SystemExit(main("channels", cases))
