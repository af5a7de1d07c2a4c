"""Execution's loops against a venue that loses requests and answers, as the test says; time is simulated."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Any

import attrs
import pytest
import trio

from scheduler.mailbox import MailboxSender, open_mailbox
from trio_nt.errors import DuplicateOrder, ExecutionError, JournalError, OrderRejected, OutcomeUnknown
from trio_nt.execution.gateway import Gateway, GatewaySettings, Outgoing
from trio_nt.execution.lookup import LookupSettings
from trio_nt.execution.orders import OrderTable
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.broker import Account, BrokerOrder
from trio_nt.model.decisions import Approved, ApprovedCancel, ApprovedOrder, ApprovedReplace
from trio_nt.model.events import Accepted, CancelRejected, Filled, OrderEvent, Rejected, Replaced
from trio_nt.model.instruments import Side
from trio_nt.model.orders import (
    BrokerUpdate,
    Execution,
    Liquidity,
    Order,
    OrderRequest,
    OrderState,
    UpdateKind,
)
from trio_nt.stamps import StageClock
from trio_nt.storage.journal import CancelIntent, MemoryJournal, OrderIntent, Record

D = Decimal
SECOND = 1_000_000_000


@attrs.define
class Wire:
    """How the next requests fare: each entry is used once, then all is well.

    ``lose``: the request never arrives. ``deaf``: it takes effect, the answer is lost. ``no``: refused.
    ``down``: it does not leave. A number: it takes effect after so many seconds, the answer is lost.
    """

    submit: list[str | float] = attrs.field(factory=list)
    cancel: list[str | float] = attrs.field(factory=list)
    replace: list[str | float] = attrs.field(factory=list)


class Updates:
    def __init__(self) -> None:
        self.sender, self.receiver = trio.open_memory_channel[BrokerUpdate](1000)

    async def receive(self) -> Sequence[BrokerUpdate]:
        return [await self.receiver.receive()]


class FakeVenue:
    """A ``Broker`` whose wire can fail; orders rest until the test fills them."""

    def __init__(self, nursery: trio.Nursery, log: list[str]) -> None:
        self.wire = Wire()
        self.book: dict[str, BrokerOrder] = {}
        self.fills: list[BrokerUpdate] = []
        self.log = log
        self.latency_s = 0.0
        self.in_flight = self.most_in_flight = 0
        self.stream: Updates | None = None
        self.refuse_stream = False
        self._nursery = nursery

    async def _call(self, behaviours: list[str | float], effect: Callable[[], None]) -> None:
        behaviour = behaviours.pop(0) if behaviours else "ok"
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        try:
            await trio.sleep(self.latency_s)
        finally:
            self.in_flight -= 1
        if behaviour == "down":
            raise ExecutionError("cannot connect")
        if behaviour == "no":
            raise OrderRejected("no")
        if isinstance(behaviour, float):
            self._nursery.start_soon(self._later, behaviour, effect)
            raise OutcomeUnknown("lost")
        if behaviour != "lose":
            effect()
        if behaviour != "ok":
            raise OutcomeUnknown("lost")

    async def _later(self, delay_s: float, effect: Callable[[], None]) -> None:
        await trio.sleep(delay_s)
        effect()

    async def submit(self, request: OrderRequest) -> BrokerOrder:
        self.log.append(f"submit {request.client_order_id}")
        if request.client_order_id in self.book:
            await trio.lowlevel.checkpoint()
            raise DuplicateOrder("client_order_id must be unique")
        await self._call(self.wire.submit, lambda: self._place(request))
        return self.book[request.client_order_id]

    def _place(self, request: OrderRequest) -> None:
        order_id = request.client_order_id
        self.book[order_id] = BrokerOrder(
            order_id, f"b-{order_id}", request.instrument, OrderState.ACCEPTED, request.quantity, D(0), request
        )

    async def cancel(self, client_order_id: str) -> None:
        self.log.append(f"cancel {client_order_id}")
        await self._call(self.wire.cancel, lambda: self.end(client_order_id, OrderState.CANCELLED))

    async def replace(
        self, client_order_id: str, *, quantity: Decimal | None = None, limit_price: Decimal | None = None
    ) -> BrokerOrder:
        self.log.append(f"replace {client_order_id}")

        def effect() -> None:
            order = self.book[client_order_id]
            assert order.request is not None
            request = attrs.evolve(order.request, quantity=quantity or order.quantity)
            self.book[client_order_id] = attrs.evolve(
                order, broker_order_id=order.broker_order_id + "'", quantity=request.quantity, request=request
            )

        await self._call(self.wire.replace, effect)
        return self.book[client_order_id]

    async def find(self, client_order_id: str) -> BrokerOrder | None:
        await trio.lowlevel.checkpoint()
        self.log.append(f"find {client_order_id}")
        return self.book.get(client_order_id)

    async def open_orders(self) -> Sequence[BrokerOrder]:
        await trio.lowlevel.checkpoint()
        return [order for order in self.book.values() if not order.state.is_final]

    async def fills_since(self, ts_event: int) -> Sequence[BrokerUpdate]:
        await trio.lowlevel.checkpoint()
        return [fill for fill in self.fills if fill.ts_event >= ts_event]

    async def positions(self) -> Mapping[str, Decimal]:
        return {}

    async def account(self) -> Account:
        return Account({})

    @asynccontextmanager
    async def updates(self) -> AsyncIterator[Updates]:
        await trio.lowlevel.checkpoint()
        if self.refuse_stream:
            raise ExecutionError("refused")
        self.log.append("connected")
        self.stream = Updates()
        try:
            yield self.stream
        finally:
            self.stream = None

    def end(self, order_id: str, state: OrderState, kind: UpdateKind = UpdateKind.CANCELLED) -> None:
        self.book[order_id] = attrs.evolve(self.book[order_id], state=state)
        self.tell(BrokerUpdate(kind, order_id, "", "ABC", 1))

    def fill(self, order_id: str) -> None:
        order = self.book[order_id]
        self.book[order_id] = attrs.evolve(order, state=OrderState.FILLED, filled_quantity=order.quantity)
        execution = Execution(f"e-{order_id}", order.quantity, D(100), D(0), "USD", Liquidity.TAKER)
        update = BrokerUpdate(UpdateKind.FILLED, order_id, order.broker_order_id, "ABC", 1, execution)
        self.fills.append(update)
        self.tell(update)

    def tell(self, update: BrokerUpdate) -> None:
        if self.stream is not None:
            self.stream.sender.send_nowait(update)


class LoggedJournal(MemoryJournal):
    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log
        self.broken = False

    async def append(self, records: Sequence[Record]) -> None:
        if self.broken:
            await trio.lowlevel.checkpoint()
            raise JournalError("the disk is full")
        await super().append(records)
        for record in records:
            if isinstance(record, OrderIntent):
                self.log.append(f"journal {record.request.client_order_id}")


class Rig:
    """A gateway with everything around it, run by the test."""

    def __init__(self, nursery: trio.Nursery, settings: GatewaySettings) -> None:
        self.log: list[str] = []
        self.venue = FakeVenue(nursery, self.log)
        self.journal = LoggedJournal(self.log)
        self.table = OrderTable()
        self.events: list[OrderEvent] = []
        self.halted: list[str] = []
        self.stamps = StageClock()
        self.gateway = Gateway(
            self.venue,
            self.table,
            self.journal,
            hear=self.hear,
            now_ns=lambda: int(trio.current_time() * SECOND),
            stamps=self.stamps,
            settings=settings,
            reconcile=self.reconcile,
            on_halt=self.halted.append,
        )
        self.sender: MailboxSender[Outgoing]
        self.sender, self.receiver = open_mailbox[Outgoing](1000)

    def hear(self, update: BrokerUpdate) -> Sequence[OrderEvent]:
        events = self.table.apply(update, 1)
        self.events += events
        return events

    async def reconcile(self) -> None:
        self.log.append("reconciled")
        await trio.lowlevel.checkpoint()

    def order(self, order_id: str, side: Side = Side.BUY) -> Order:
        order = Order(
            order_id, "s", "ABC", side, D(10), OrderType.LIMIT, D(99), None, TimeInForce.GTC, False, "",
            int(trio.current_time() * SECOND),
        )  # fmt: skip
        self.table.add(order)
        self.send(ApprovedOrder(order))
        return order

    def send(self, decision: Approved) -> None:
        self.sender.send_nowait(Outgoing(decision, 1, 1))

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        lookup = LookupSettings(grace_s=5, signal_valid_s=settings.pop("signal_valid_s", 60))
        rig = Rig(nursery, GatewaySettings(lookup=lookup, **settings))
        nursery.start_soon(rig.gateway.run_orders, rig.receiver)
        await nursery.start(lambda task_status: rig.gateway.run_updates(task_status=task_status))
        yield rig
        nursery.cancel_scope.cancel()


async def test_the_intent_is_journalled_before_the_request_leaves(autojump_clock: trio.abc.Clock) -> None:
    async with running() as rig:
        order = rig.order("o-1")
        await trio.sleep(1)
        assert rig.log[-2:] == ["journal o-1", "submit o-1"]
        assert order.state is OrderState.ACCEPTED
        rig.venue.fill("o-1")
        await trio.sleep(1)
        assert [type(event) for event in rig.events] == [Accepted, Filled]
        assert {row.name.split(" (")[0] for row in rig.stamps.rows()} == {"submission", "execution", "end to end"}


async def test_nothing_leaves_when_the_journal_cannot_record(autojump_clock: trio.abc.Clock) -> None:
    async with running() as rig:
        rig.journal.broken = True
        order = rig.order("o-1")
        await trio.sleep(1)
        assert "submit o-1" not in rig.log
        assert order.state is OrderState.REJECTED
        assert rig.halted == ["the journal cannot record: the disk is full"]
        rig.journal.broken = False
        rig.order("o-2")
        await trio.sleep(1)
        assert "submit o-2" not in rig.log  # a person must decide first


async def test_a_cancel_leaves_even_when_halted(autojump_clock: trio.abc.Clock) -> None:
    async with running() as rig:
        order = rig.order("o-1")
        await trio.sleep(1)
        rig.journal.broken = True
        rig.gateway.halt("enough")
        rig.send(ApprovedCancel(order))
        await trio.sleep(1)
        assert order.state is OrderState.CANCELLED


class TestSubmitWithoutAnswer:
    async def test_found_by_its_client_order_id(self, autojump_clock: trio.abc.Clock) -> None:
        async with running() as rig:
            rig.venue.wire.submit.append("deaf")
            order = rig.order("o-1")
            await trio.sleep(0.01)
            assert order.state is OrderState.ACCEPTED
            assert rig.log.count("submit o-1") == 1

    async def test_found_filled(self, autojump_clock: trio.abc.Clock) -> None:
        async with running() as rig:
            rig.venue.wire.submit.append("lose")
            order = rig.order("o-1")
            await trio.sleep(0.4)
            assert order.state is OrderState.UNKNOWN
            stream, rig.venue.stream = rig.venue.stream, None  # the stream tells nothing of it
            rig.venue._place(order.request())
            rig.venue.fill("o-1")
            await trio.sleep(2)
            assert order.state is OrderState.FILLED
            rig.venue.stream = stream

    async def test_not_found_now_does_not_prove_absence(self, autojump_clock: trio.abc.Clock) -> None:
        async with running() as rig:
            rig.venue.wire.submit.append(3.0)  # it arrives after three seconds
            order = rig.order("o-1")
            await trio.sleep(2.9)
            assert order.state is OrderState.UNKNOWN
            await trio.sleep(5)
            assert order.state is OrderState.ACCEPTED
            assert rig.log.count("submit o-1") == 1

    async def test_sent_again_under_the_same_id_when_it_never_arrived(self, autojump_clock: trio.abc.Clock) -> None:
        async with running() as rig:
            rig.venue.wire.submit.append("lose")
            order = rig.order("o-1")
            await trio.sleep(10)
            assert rig.log.count("submit o-1") == 2
            assert order.state is OrderState.ACCEPTED

    async def test_refused_as_a_duplicate_it_had_arrived(self, autojump_clock: trio.abc.Clock) -> None:
        async with running() as rig:
            rig.venue.wire.submit.append("lose")
            order = rig.order("o-1")
            hidden = rig.venue.find

            async def not_found(client_order_id: str) -> None:
                await trio.lowlevel.checkpoint()

            rig.venue.find = not_found  # type: ignore[method-assign]
            await trio.sleep(4.9)
            rig.venue._place(order.request())
            while rig.log.count("submit o-1") < 2:
                await trio.sleep(0.01)
            rig.venue.find = hidden  # type: ignore[method-assign]
            await trio.sleep(1)
            assert order.state is OrderState.ACCEPTED
            assert len(rig.of(Accepted)) == 1

    async def test_abandoned_when_its_signal_is_too_old_and_still_watched(self, autojump_clock: trio.abc.Clock) -> None:
        async with running(signal_valid_s=1) as rig:
            rig.venue.wire.submit.append(8.0)
            order = rig.order("o-1")
            await trio.sleep(7)
            assert order.state is OrderState.ABANDONED
            assert rig.gateway.statistics().abandoned == 1
            assert rig.log.count("submit o-1") == 1
            await trio.sleep(2)
            rig.venue.fill("o-1")
            await trio.sleep(1)
            assert order.state is OrderState.FILLED


async def test_a_refused_order_and_one_that_did_not_leave(autojump_clock: trio.abc.Clock) -> None:
    async with running() as rig:
        rig.venue.wire.submit += ["no", "down"]
        refused = rig.order("o-1")
        await trio.sleep(1)
        unsent = rig.order("o-2")
        await trio.sleep(1)
        assert refused.state is unsent.state is OrderState.REJECTED
        assert [event.reason for event in rig.of(Rejected)] == ["no", "not sent: cannot connect"]


class TestCancel:
    @pytest.mark.parametrize("behaviour", ["lose", "deaf", 2.0])
    async def test_without_answer_is_repeated_until_the_order_ends(
        self, behaviour: str | float, autojump_clock: trio.abc.Clock
    ) -> None:
        async with running() as rig:
            rig.venue.wire.cancel.append(behaviour)
            order = rig.order("o-1")
            await trio.sleep(1)
            rig.send(ApprovedCancel(order))
            await trio.sleep(10)
            assert order.state is OrderState.CANCELLED

    async def test_that_comes_too_late(self, autojump_clock: trio.abc.Clock) -> None:
        async with running() as rig:
            order = rig.order("o-1")
            await trio.sleep(1)
            stream, rig.venue.stream = rig.venue.stream, None
            rig.venue.fill("o-1")
            rig.venue.stream = stream
            rig.venue.wire.cancel.append("no")
            rig.send(ApprovedCancel(order))
            await trio.sleep(1)
            assert order.state is OrderState.FILLED

    async def test_that_is_refused_while_the_order_lives(self, autojump_clock: trio.abc.Clock) -> None:
        async with running() as rig:
            order = rig.order("o-1")
            await trio.sleep(1)
            rig.venue.wire.cancel.append("no")
            rig.send(ApprovedCancel(order))
            await trio.sleep(1)
            assert order.state is OrderState.ACCEPTED
            assert len(rig.of(CancelRejected)) == 1

    async def test_waits_for_the_answer_to_its_order(self, autojump_clock: trio.abc.Clock) -> None:
        async with running() as rig:
            rig.venue.latency_s = 1.0
            order = rig.order("o-1")
            rig.send(ApprovedCancel(order))
            await trio.sleep(0.9)
            assert "cancel o-1" not in rig.log
            await trio.sleep(2)
            assert order.state is OrderState.CANCELLED

    async def test_does_not_stand_behind_orders(self, autojump_clock: trio.abc.Clock) -> None:
        async with running(in_flight=2) as rig:
            order = rig.order("o-0")
            await trio.sleep(0.1)
            rig.venue.latency_s = 1.0
            for number in range(1, 3):
                rig.order(f"o-{number}")
            rig.send(ApprovedCancel(order))
            await trio.sleep(0.1)
            assert "cancel o-0" in rig.log


class TestReplace:
    @pytest.mark.parametrize(("behaviour", "state"), [("ok", 20), ("deaf", 20), (2.0, 20), ("lose", 10), ("no", 10)])
    async def test_however_its_answer_fares(
        self, behaviour: str | float, state: int, autojump_clock: trio.abc.Clock
    ) -> None:
        async with running() as rig:
            rig.venue.wire.replace.append(behaviour)
            order = rig.order("o-1")
            await trio.sleep(1)
            rig.send(ApprovedReplace(order, D(20), None))
            await trio.sleep(10)
            assert order.state is OrderState.ACCEPTED
            assert order.quantity == state
            assert len(rig.of(Replaced)) == (state == 20)
            assert len(rig.of(CancelRejected)) == (state == 10)
            assert rig.log.count("replace o-1") == 1  # never repeated


class TestUpdateStream:
    async def test_while_it_is_down_no_order_leaves(self, autojump_clock: trio.abc.Clock) -> None:
        async with running(stream_grace_s=1.0) as rig:
            working = rig.order("o-0")
            await trio.sleep(1)
            rig.venue.refuse_stream = True
            assert rig.venue.stream is not None
            rig.venue.stream.sender.close()
            await trio.sleep(1)
            assert not rig.gateway.statistics().is_connected
            order = rig.order("o-1")
            rig.send(ApprovedCancel(working))
            await trio.sleep(2)
            assert "submit o-1" not in rig.log
            assert order.state is OrderState.REJECTED
            assert "cancel o-0" in rig.log

    async def test_coming_back_in_time_the_order_leaves_after_reconciling(self, autojump_clock: trio.abc.Clock) -> None:
        async with running(stream_grace_s=3.0) as rig:
            rig.venue.refuse_stream = True
            assert rig.venue.stream is not None
            rig.venue.stream.sender.close()
            await trio.sleep(1)
            order = rig.order("o-1")
            await trio.sleep(0.5)
            rig.venue.refuse_stream = False
            await trio.sleep(3)
            assert order.state is OrderState.ACCEPTED
            assert rig.log == ["connected", "reconciled", "connected", "reconciled", "journal o-1", "submit o-1"]
            assert rig.gateway.statistics().reconnects >= 1


async def test_requests_in_flight_are_bounded(autojump_clock: trio.abc.Clock) -> None:
    async with running(in_flight=3) as rig:
        rig.venue.latency_s = 0.1
        for number in range(20):
            rig.order(f"o-{number}")
        await trio.sleep(5)
        assert rig.venue.most_in_flight == 3
        assert rig.gateway.statistics().acknowledged == 20


async def test_an_order_that_waits_for_a_place_is_cancelled_without_the_broker(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running(in_flight=1) as rig:
        rig.venue.latency_s = 1.0
        first = rig.order("o-1")
        second = rig.order("o-2")
        await trio.sleep(0.5)
        rig.send(ApprovedCancel(second))
        await trio.sleep(3)
        assert (first.state, second.state) == (OrderState.ACCEPTED, OrderState.CANCELLED)
        assert "submit o-2" not in rig.log


async def test_kill_cancels_what_works_past_every_queue_and_lets_nothing_else_out(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running(in_flight=2) as rig:
        working = [rig.order(f"w-{number}") for number in range(5)]
        await trio.sleep(1)
        rig.venue.latency_s = 1.0
        sent = [rig.order(f"s-{number}") for number in range(2)]
        queued = [rig.order(f"q-{number}") for number in range(50)]
        await trio.sleep(0.5)
        late = rig.order("late")
        rig.gateway.kill("enough")
        await trio.sleep(1.2)
        assert [order.state for order in working] == [OrderState.CANCELLED] * 5
        assert [order.state for order in queued] == [OrderState.CANCELLED] * 50
        assert late.state is OrderState.CANCELLED or late.state is OrderState.REJECTED
        await trio.sleep(2)
        assert [order.state for order in sent] == [OrderState.CANCELLED] * 2
        assert not [line for line in rig.log if line.startswith(("submit q", "submit late"))]
        assert rig.halted == ["enough"]


async def test_cancel_intents_are_journalled_too(autojump_clock: trio.abc.Clock) -> None:
    async with running() as rig:
        order = rig.order("o-1")
        await trio.sleep(1)
        rig.send(ApprovedCancel(order))
        await trio.sleep(1)
        assert CancelIntent in [type(record) for record in rig.journal.records]
