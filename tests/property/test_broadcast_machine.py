"""The ring against a list of all rows ever sent: receivers join, clone, lag, stall, leave and are collected."""

from typing import Any

import attrs
import numpy as np
import pytest
import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scheduler import Lagged, open_broadcast

KEYS = 3


def rows(first: int, count: int) -> dict[str, Any]:
    numbers = np.arange(first, first + count)
    return {"number": numbers, "half": numbers / 2, "key": (numbers * 7 % KEYS).astype("i2")}


@attrs.frozen(eq=False)
class Held:
    """A batch and an array kept from it."""

    batch: Any
    view: Any


@attrs.define(eq=False)
class Reader:
    """What the model knows of one cursor: the next row, per end the rows it holds, what a conflating one left over."""

    policy: str
    next: int
    ends: list[Any]
    held: dict[int, tuple[int, int, Any]] = attrs.Factory(dict)
    left: list[int] = attrs.Factory(list)

    @property
    def floor(self) -> int:
        return min([start for start, _, _ in self.held.values()], default=self.next)


def received(end: Any, max_items: int | None) -> Any:
    """A batch, or what was raised; no traceback is kept that would keep a collected receiver alive."""
    try:
        return end.receive_nowait(max_items)
    except trio.WouldBlock:
        return "nothing"
    except Lagged as lagged:
        return f"missed {lagged.missed}"


class Broadcast(RuleBasedStateMachine):
    """Everything here is synchronous: what waits and who is woken is tested under Trio."""

    @initialize(capacity=st.integers(1, 12), debug=st.booleans())
    def open(self, capacity: int, debug: bool) -> None:
        self.capacity = capacity
        self.debug = debug
        fields = {"number": "i8", "half": "f8", "key": "i2"}
        self.sender, first = open_broadcast(capacity, fields, debug=debug)
        self.head = 0
        self.readers = [Reader("lossless", 0, [first])]
        self.kept: list[tuple[int, np.ndarray[Any, Any]]] = []
        self.copies: list[tuple[list[int], Any]] = []

    @property
    def tail(self) -> int:
        return min([r.floor for r in self.readers if r.policy == "lossless"], default=self.head)

    def reader(self, data: st.DataObject) -> Reader:
        return self.readers[data.draw(st.integers(0, len(self.readers) - 1))]

    def end_of(self, reader: Reader, data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(reader.ends) - 1))

    @rule(share=st.floats(0.01, 1.0), as_lists=st.booleans())
    def send(self, share: float, as_lists: bool) -> None:
        count = max(1, round(share * self.capacity))
        sent = rows(self.head, count)
        if as_lists:
            sent = {name: column.tolist() for name, column in sent.items()}
        if self.head + count - self.tail > self.capacity:
            with pytest.raises(trio.WouldBlock):
                self.sender.send_nowait(sent)
        else:
            self.sender.send_nowait(sent)
            self.head += count

    @rule()
    def send_wrongly(self) -> None:
        with pytest.raises(ValueError, match="columns"):
            self.sender.send_nowait({"number": [1], "half": [1.0]})
        with pytest.raises(ValueError, match="capacity"):
            self.sender.send_nowait(rows(0, self.capacity + 1))

    @precondition(lambda self: len(self.readers) < 6)
    @rule(data=st.data(), policy=st.sampled_from(["lossless", "lossless", "lagging", "conflating"]))
    def join(self, data: st.DataObject, policy: str) -> None:
        sources = [self.sender, *(end for r in self.readers for end in r.ends)]
        source = sources[data.draw(st.integers(0, len(sources) - 1))]  # indices: drawn objects would be kept alive
        end = source.subscribe(policy, key="key" if policy == "conflating" else None)
        self.readers.append(Reader(policy, self.head, [end]))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def clone(self, data: st.DataObject) -> None:
        reader = self.reader(data)
        if len(reader.ends) < 4:
            reader.ends.append(reader.ends[self.end_of(reader, data)].clone())

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), collected=st.booleans())
    def leave(self, data: st.DataObject, collected: bool) -> None:
        reader = self.reader(data)
        end = reader.ends.pop(self.end_of(reader, data))
        reader.held.pop(id(end), None)
        if not collected:
            end.close()
        del end
        if not reader.ends:
            self.readers.remove(reader)

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), max_items=st.none() | st.integers(1, 12))
    def receive(self, data: st.DataObject, max_items: int | None) -> None:
        reader = self.reader(data)
        end = reader.ends[self.end_of(reader, data)]
        held = reader.held.pop(id(end), None)
        expected, missed = self.expected(reader, max_items)
        batch = received(end, max_items)
        if held is not None:
            start, _, given_back = held
            self.kept.append((start, given_back.view))
            if self.debug:
                with pytest.raises(RuntimeError, match="copy"):
                    given_back.batch["half"]
        if missed:
            assert batch == f"missed {missed}"
            reader.next = self.head - self.capacity
            return
        if not expected:
            assert batch == "nothing"
            return
        assert batch["number"].tolist() == expected
        assert batch.sequence == expected[0]
        assert batch.slot == expected[0] % self.capacity
        assert len(batch) == len(expected)
        if reader.policy == "lossless":
            reader.next = expected[-1] + 1
            reader.held[id(end)] = (expected[0], reader.next, Held(batch, batch["half"]))
        else:
            self.copies.append((expected, batch))
            if reader.policy == "lagging":
                reader.next = expected[-1] + 1

    def expected(self, reader: Reader, max_items: int | None) -> tuple[list[int], int]:
        """The rows a receive must give, or how many it has missed."""
        limit = self.capacity if max_items is None else max_items
        if reader.policy == "conflating":
            pending = self.conflated(reader)
            taken, left = pending[:max_items], [] if max_items is None else pending[max_items:]
            reader.next = self.head
            reader.left = left
            return taken, 0
        if reader.policy == "lagging" and reader.next < self.head - self.capacity:
            return [], self.head - self.capacity - reader.next
        stop = min(self.head, reader.next + limit, (reader.next // self.capacity + 1) * self.capacity)
        return list(range(reader.next, stop)), 0

    def conflated(self, reader: Reader) -> list[int]:
        """The latest row of every key, oldest first."""
        latest: dict[int, int] = {}
        for number in [*reader.left, *range(reader.next, self.head)]:
            latest.pop(number * 7 % KEYS, None)
            latest[number * 7 % KEYS] = number
        return list(latest.values())

    @invariant()
    def held_batches_are_untouched(self) -> None:
        for reader in self.readers:
            for start, stop, held in reader.held.values():
                assert held.view.tolist() == [number / 2 for number in range(start, stop)]
                assert held.batch["number"].tolist() == list(range(start, stop))
        for expected, copy in self.copies:
            assert copy["number"].tolist() == expected

    @invariant()
    def released_slots_are_poisoned_in_debug_mode(self) -> None:
        if not self.debug:
            return
        for end in (end for reader in self.readers for end in reader.ends):
            end.statistics()  # lets the ring notice collected receivers
        needed = min([self.tail, *(r.next for r in self.readers if r.policy != "lossless")])
        for start, view in self.kept:
            for number, value in enumerate(view.tolist(), start):
                if self.head - self.capacity <= number < needed:
                    assert np.isnan(value), f"row {number} was given back and can still be read"

    @invariant()
    def statistics_tell_the_truth(self) -> None:
        statistics = self.sender.statistics()
        assert statistics.sent == self.head
        assert statistics.used == self.head - self.tail
        lags = sorted(r.lag for r in statistics.receivers if r.policy != "conflating")
        assert lags == sorted(self.head - r.next for r in self.readers if r.policy != "conflating")
        assert [r.open_ends for r in statistics.receivers if r.policy == "lossless"] == [
            len(r.ends) for r in self.readers if r.policy == "lossless"
        ]


TestBroadcast = Broadcast.TestCase
