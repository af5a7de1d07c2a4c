"""The mailbox against a list, with clones at both ends and every way of taking items out."""

import pytest
import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scheduler import MailboxReceiver, MailboxSender, open_mailbox


class Mailbox(RuleBasedStateMachine):
    """Synchronous uses; what waits is tested under Trio."""

    @initialize(capacity=st.integers(1, 8))
    def open(self, capacity: int) -> None:
        self.capacity = capacity
        sender, receiver = open_mailbox[int](capacity)
        self.senders: list[MailboxSender[int]] = [sender]
        self.receivers: list[MailboxReceiver[int]] = [receiver]
        self.closed: list[MailboxSender[int] | MailboxReceiver[int]] = []
        self.model: list[int] = []
        self.sent = self.received = self.dropped = 0
        self.first = sender

    @precondition(lambda self: self.senders)
    @rule(place=st.integers(0, 9))
    def send(self, place: int) -> None:
        sender = self.senders[place % len(self.senders)]
        if not self.receivers:
            with pytest.raises(trio.BrokenResourceError):
                sender.send_nowait(self.sent)
        elif len(self.model) == self.capacity:
            with pytest.raises(trio.WouldBlock):
                sender.send_nowait(self.sent)
        else:
            sender.send_nowait(self.sent)
            self.model.append(self.sent)
            self.sent += 1

    @precondition(lambda self: self.receivers)
    @rule(place=st.integers(0, 9), max_items=st.none() | st.integers(1, 9), batch=st.booleans())
    def receive(self, place: int, max_items: int | None, batch: bool) -> None:
        receiver = self.receivers[place % len(self.receivers)]

        def take() -> list[int]:
            return receiver.receive_batch_nowait(max_items) if batch else [receiver.receive_nowait()]

        if not self.model:
            with pytest.raises(trio.WouldBlock if self.senders else trio.EndOfChannel):
                take()
            return
        count = 1 if not batch else len(self.model) if max_items is None else max_items
        expected, self.model = self.model[:count], self.model[count:]
        assert take() == expected
        self.received += len(expected)

    @rule(place=st.integers(0, 9), sending=st.booleans())
    def clone(self, place: int, sending: bool) -> None:
        ends: list[MailboxSender[int]] | list[MailboxReceiver[int]] = self.senders if sending else self.receivers
        if 0 < len(ends) < 4:
            ends.append(ends[place % len(ends)].clone())  # type: ignore[arg-type]

    @rule(place=st.integers(0, 9), sending=st.booleans())
    def close(self, place: int, sending: bool) -> None:
        ends: list[MailboxSender[int]] | list[MailboxReceiver[int]] = self.senders if sending else self.receivers
        if not ends:
            return
        end = ends.pop(place % len(ends))
        end.close()
        end.close()
        self.closed.append(end)
        if not self.receivers:
            self.dropped += len(self.model)
            self.model.clear()

    @invariant()
    def closed_ends_are_closed_and_nothing_is_lost(self) -> None:
        for end in self.closed:
            with pytest.raises(trio.ClosedResourceError):
                end.clone()
        statistics = self.first.statistics()
        assert statistics.used == len(self.model)
        assert (statistics.sent, statistics.received) == (self.sent, self.received)
        assert statistics.dropped.get("closed", 0) == self.dropped
        assert statistics.sent == statistics.received + statistics.used + self.dropped
        assert (statistics.open_senders, statistics.open_receivers) == (len(self.senders), len(self.receivers))


TestMailbox = Mailbox.TestCase
