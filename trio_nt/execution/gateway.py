"""Execution's loops: approved decisions to the broker, the broker's news to the engine.

Rules
-----
- An intent is durable in the journal before its request leaves. A journal that cannot write stops all sending.
- Requests run concurrently, a bounded number at a time; cancels have places of their own, so that no queue of orders
  stands before them. Requests about one order follow one another.
- No answer is not a no: the order is UNKNOWN and looked up (``lookup.py``), its exposure stays reserved.
- While the broker's update stream is down no new order leaves. On connecting the engine catches up by look-up before
  the first order.
- Everything that is learnt goes through ``hear``, one update after another: from the stream, from answers, from
  look-ups. The order table makes repeated news harmless.
- Execution waits for nobody downstream or upstream: it drains its mailbox, and pushes back by not draining it.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

import attrs
import trio

from trio_nt.errors import DuplicateOrder, ExecutionError, JournalError, OrderRejected, OutcomeUnknown
from trio_nt.execution.lookup import Lookup, LookupSettings
from trio_nt.execution.orders import OrderTable
from trio_nt.model.broker import Broker, BrokerOrder
from trio_nt.model.decisions import Approved, ApprovedCancel, ApprovedOrder, ApprovedReplace
from trio_nt.model.events import OrderEvent
from trio_nt.model.orders import BrokerUpdate, Order, OrderState, UpdateKind
from trio_nt.stamps import END_TO_END, EXECUTION, SUBMISSION, StageClock
from trio_nt.storage.journal import CancelIntent, Heard, Journal, Record, ReplaceIntent, intent_of


@attrs.frozen(kw_only=True)
class GatewaySettings:
    """How requests are sent.

    Attributes:
        in_flight, cancels_in_flight: how many requests may wait for an answer at the same time.
        waiting: how many journalled requests may wait for their turn before the mailbox is left to fill.
        stream_grace_s: how long an approved order waits for the update stream to come back before it is given up.
        reconnect_s, reconnect_max_s: the first and the greatest pause before connecting again.
    """

    in_flight: int = 20
    cancels_in_flight: int = 10
    waiting: int = 1_000
    stream_grace_s: float = 1.0
    reconnect_s: float = 0.05
    reconnect_max_s: float = 5.0
    lookup: LookupSettings = attrs.field(factory=LookupSettings)


@attrs.define
class Outgoing:
    """A decision on its way. Stamps are ``perf_counter_ns``; 0 where they were not taken."""

    decision: Approved
    t0: int = 0
    t4: int = 0
    t5: int = 0
    t6: int = 0
    t7: int = 0
    t3: int = 0


class OutgoingReceiver(Protocol):
    """The receiving end of the mailbox that risk fills."""

    async def receive_batch(self, max_items: int | None = None) -> list[Outgoing]: ...


@runtime_checkable
class TellsSending(Protocol):
    """A broker that can say when the last byte of a request has left (``perf_counter_ns``)."""

    on_sent: Callable[[str, int], None] | None


@attrs.frozen
class GatewayStatistics:
    """``unknown`` counts orders whose first request had no answer that settled it, ``abandoned`` those never confirmed
    nor denied, ``unrecorded`` those that were turned back here before they were journalled.

    ``in_flight`` counts requests without an answer yet, ``held`` those that wait for a place.
    """

    submitted: int
    acknowledged: int
    rejected: int
    unknown: int
    abandoned: int
    in_flight: int
    held: int
    reconnects: int
    is_connected: bool
    unrecorded: int = 0


Hear = Callable[[BrokerUpdate], Sequence[OrderEvent]]


class Gateway:
    """Sends what risk approved and hears what comes of it.

    Args:
        broker: where orders go.
        table: the orders; the engine adds an order on approval, before it is put into the mailbox.
        journal: see ``storage/journal.py``.
        hear: takes one update into table, risk and portfolio and tells the strategies; the events it made.
        now_ns: the engine's clock.
        stamps: where durations are recorded; None records none.
        reconcile: awaited whenever the update stream is connected, before the first update is read.
        on_halt: called once with the reason when nothing may be sent any more.
    """

    def __init__(
        self,
        broker: Broker,
        table: OrderTable,
        journal: Journal,
        *,
        hear: Hear,
        now_ns: Callable[[], int],
        stamps: StageClock | None = None,
        settings: GatewaySettings | None = None,
        reconcile: Callable[[], Awaitable[None]] | None = None,
        on_halt: Callable[[str], None] | None = None,
    ) -> None:
        self._broker = broker
        self._table = table
        self._journal = journal
        self._hear = hear
        self._now_ns = now_ns
        self._stamps = stamps
        self._settings = settings or GatewaySettings()
        self._reconcile = reconcile
        self._on_halt = on_halt
        self._lookup = Lookup(broker, table, self.hear, now_ns, self._settings.lookup)
        self._orders = _Queue(self._settings.in_flight)  # and replaces
        self._cancels = _Queue(self._settings.cancels_in_flight)
        self._room = trio.Event()
        self._last_request: dict[str, trio.Event] = {}  # about each order: set when it has ended
        self._stamped: dict[str, Outgoing] = {}  # from sending to the last fill
        self._connected = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._halted = ""
        self._submitted = self._acknowledged = self._rejected = self._unknown = self._reconnects = self._unrecorded = 0
        if isinstance(broker, TellsSending):
            broker.on_sent = self._on_sent

    # ── the loops ──

    async def run_orders(self, decisions: OutgoingReceiver) -> None:
        """Send what arrives until the mailbox ends and every request has its answer.

        Cancelled, requests under way are left without an answer: their orders are UNKNOWN in the journal's eyes and
        are looked up on the next start.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            while True:
                try:
                    batch = await decisions.receive_batch()
                except trio.EndOfChannel:
                    break
                await self._take(batch)

    async def run_updates(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hear the broker's update stream for ever, connecting again when it breaks; started when connected first."""
        pause_s = self._settings.reconnect_s
        started = False
        while True:
            try:
                async with self._broker.updates() as receiver:
                    if self._reconcile is not None:
                        await self._reconcile()
                    self._connected.set()
                    pause_s = self._settings.reconnect_s
                    if not started:
                        started = True
                        task_status.started()
                    while True:
                        for update in await receiver.receive():
                            self.hear(update)
            except (trio.EndOfChannel, trio.BrokenResourceError, ExecutionError):
                if not started:
                    raise
                self._reconnects += 1
            finally:
                self._connected = trio.Event()
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._settings.reconnect_max_s)

    def hear(self, update: BrokerUpdate) -> None:
        """Take in one piece of news: pass it on and journal it."""
        events = self._hear(update)
        if not events:
            return
        self._journal.note(Heard(update, self._now_ns()))
        order = self._table.get(update.client_order_id)
        if order is not None and order.state.is_final:
            self._stamp_end(order)

    def halt(self, reason: str) -> None:
        """Nothing but cancels is sent from now on; orders on their way to a request are rejected with the reason."""
        if not self._halted:
            self._halted = reason
            if self._on_halt is not None:
                self._on_halt(reason)

    def kill(self, reason: str) -> int:
        """Halt, and start cancelling every working order, past every queue; how many. Cancelling needs no approval.

        Not a checkpoint. Orders that wait here are withdrawn; those on their way here are refused as they arrive.
        """
        self.halt(reason)
        working = list(self._table.working())
        for order in working:
            item = Outgoing(ApprovedCancel(order))
            if self._nursery is None or not self._may_go(item) or order.state is OrderState.INTENDED:
                continue  # withdrawn, or refused when it arrives here
            self._journal.note(CancelIntent(order.client_order_id, self._now_ns()))
            self._cancels.put(item)
        if self._nursery is not None:
            self._start_requests(self._cancels)
        return len(working)

    def statistics(self) -> GatewayStatistics:
        return GatewayStatistics(
            self._submitted,
            self._acknowledged,
            self._rejected,
            self._unknown,
            self._lookup.abandoned,
            self._orders.in_flight + self._cancels.in_flight,
            len(self._orders) + len(self._cancels),
            self._reconnects,
            self._connected.is_set(),
            self._unrecorded,
        )

    # ── taking decisions ──

    async def _take(self, batch: list[Outgoing]) -> None:
        """Journal a batch of decisions as one group, then start their requests."""
        await self._await_stream()
        now_ns = self._now_ns()
        ready = [item for item in batch if self._may_go(item)]
        records = [_record(item.decision, now_ns) for item in ready]
        if not records:
            return
        try:
            await self._journal.append(records)
        except JournalError as error:
            self.halt(f"the journal cannot record: {error}")
        if self._halted:  # by now
            ready = [item for item in ready if not self._refused(item)]
        stamp = time.perf_counter_ns()
        for item in ready:
            item.t5 = stamp
            await self._start(item)

    def _may_go(self, item: Outgoing) -> bool:
        decision = item.decision
        if isinstance(decision, ApprovedCancel):
            order = decision.order
            if self._orders.withdraw(order):  # it has not left: the broker need not be asked
                self._stamped.pop(order.client_order_id, None)
                self._conclude(order, UpdateKind.CANCELLED, "cancelled before it was sent")
                return False
            return not order.state.is_final
        if self._refused(item):
            self._unrecorded += isinstance(decision, ApprovedOrder)
            return False
        return True

    def _refused(self, item: Outgoing) -> bool:
        """Whether a new order or replace may not leave now; then it is concluded with the reason."""
        decision = item.decision
        reason = self._halted or ("" if self._connected.is_set() else "the broker's update stream is down")
        if not reason or isinstance(decision, ApprovedCancel):
            return False
        kind = UpdateKind.REJECTED if isinstance(decision, ApprovedOrder) else UpdateKind.REPLACE_REJECTED
        if kind is UpdateKind.REPLACE_REJECTED:
            self._table.mark_pending_replace(decision.order, None, None)
        self._conclude(decision.order, kind, reason)
        return True

    async def _await_stream(self) -> None:
        if not self._connected.is_set():
            with trio.move_on_after(self._settings.stream_grace_s):
                await self._connected.wait()

    # ── requests ──

    async def _start(self, item: Outgoing) -> None:
        while len(self._orders) + len(self._cancels) >= self._settings.waiting:
            self._room = trio.Event()
            await self._room.wait()
        queue = self._cancels if isinstance(item.decision, ApprovedCancel) else self._orders
        queue.put(item)
        self._start_requests(queue)

    def _start_requests(self, queue: "_Queue") -> None:
        assert self._nursery is not None
        while (item := queue.take()) is not None:
            order_id = item.decision.order.client_order_id
            before, ended = self._last_request.get(order_id), trio.Event()
            self._last_request[order_id] = ended
            self._nursery.start_soon(self._request, item, queue, before, ended)

    async def _request(self, item: Outgoing, queue: "_Queue", before: trio.Event | None, ended: trio.Event) -> None:
        """One request, after the one before it about the same order."""
        decision = item.decision
        try:
            if before is not None:
                await before.wait()
            if isinstance(decision, ApprovedOrder):
                await self._submit(item, decision.order)
            elif isinstance(decision, ApprovedCancel):
                await self._cancel(decision.order)
            else:
                await self._replace(decision)
        finally:
            ended.set()
            if self._last_request.get(decision.order.client_order_id) is ended:
                del self._last_request[decision.order.client_order_id]
            queue.in_flight -= 1
            self._room.set()
        self._start_requests(queue)

    async def _submit(self, item: Outgoing, order: Order) -> None:
        order_id = order.client_order_id
        self._table.mark_sent(order)
        self._stamped[order_id] = item
        self._submitted += 1
        try:
            try:
                answer = await self._broker.submit(order.request())
            except DuplicateOrder:
                self._unknown += 1
                await self._lookup.submitted(order)  # an earlier attempt had arrived
                return
        except OrderRejected as error:
            self._rejected += 1
            self._conclude(order, UpdateKind.REJECTED, str(error))
        except OutcomeUnknown:
            self._unknown += 1
            self._table.mark_unknown(order)
            await self._lookup.submitted(order)
        except ExecutionError as error:
            self._rejected += 1
            self._conclude(order, UpdateKind.REJECTED, f"not sent: {error}")
        else:
            self._acknowledge(item, answer)

    def _acknowledge(self, item: Outgoing, answer: BrokerOrder) -> None:
        item.t7 = time.perf_counter_ns()
        self._acknowledged += 1
        if self._stamps is not None and item.t4:
            self._stamps.record(SUBMISSION, item.t7 - item.t4)
            if item.t0:
                self._stamps.record(END_TO_END, (item.t6 or item.t7) - item.t0)
        order = item.decision.order
        self.hear(
            BrokerUpdate(
                UpdateKind.ACCEPTED, order.client_order_id, answer.broker_order_id, order.instrument, self._now_ns()
            )
        )

    async def _cancel(self, order: Order) -> None:
        if order.state.is_final:
            return
        self._table.mark_pending_cancel(order)
        try:
            await self._broker.cancel(order.client_order_id)
        except OrderRejected as error:
            await self._lookup.cancelled(order, str(error))
        except OutcomeUnknown:
            await self._lookup.cancelled(order, "")
        except ExecutionError as error:
            self._conclude(order, UpdateKind.CANCEL_REJECTED, f"not sent: {error}")

    async def _replace(self, decision: ApprovedReplace) -> None:
        order = decision.order
        if order.state.is_final:
            return
        self._table.mark_pending_replace(order, decision.quantity, decision.limit_price)
        try:
            answer = await self._broker.replace(
                order.client_order_id, quantity=decision.quantity, limit_price=decision.limit_price
            )
        except OrderRejected as error:
            self._conclude(order, UpdateKind.REPLACE_REJECTED, str(error))
        except OutcomeUnknown:
            await self._lookup.replaced(order, decision.quantity, decision.limit_price)
        except ExecutionError as error:
            self._conclude(order, UpdateKind.REPLACE_REJECTED, f"not sent: {error}")
        else:
            self._lookup.hear_of(order, UpdateKind.REPLACED, answer)

    def _conclude(self, order: Order, kind: UpdateKind, reason: str) -> None:
        """News of our own making: a request was refused, or never left."""
        update = BrokerUpdate(
            kind, order.client_order_id, order.broker_order_id, order.instrument, self._now_ns(), None, reason
        )
        self.hear(update)

    # ── stamps ──

    def _on_sent(self, client_order_id: str, stamp: int) -> None:
        item = self._stamped.get(client_order_id)
        if item is not None and not item.t6:
            item.t6 = stamp

    def _stamp_end(self, order: Order) -> None:
        item = self._stamped.pop(order.client_order_id, None)
        if item is not None and item.t4 and self._stamps is not None and order.state is OrderState.FILLED:
            self._stamps.record(EXECUTION, time.perf_counter_ns() - item.t4)


class _Queue:
    """Journalled requests that wait for a place, oldest first, and how many have one."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._items: dict[str, Outgoing] = {}
        self.in_flight = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Outgoing) -> None:
        self._items[item.decision.order.client_order_id] = item

    def take(self) -> Outgoing | None:
        """The oldest one, if there is a place for it."""
        if not self._items or self.in_flight >= self._places:
            return None
        self.in_flight += 1
        return self._items.pop(next(iter(self._items)))

    def withdraw(self, order: Order) -> bool:
        """Take out the submission of an order, if it waits here."""
        item = self._items.get(order.client_order_id)
        if item is None or not isinstance(item.decision, ApprovedOrder):
            return False
        del self._items[order.client_order_id]
        return True


def _record(decision: Approved, now_ns: int) -> Record:
    if isinstance(decision, ApprovedOrder):
        return intent_of(decision.order, now_ns)
    if isinstance(decision, ApprovedCancel):
        return CancelIntent(decision.order.client_order_id, now_ns)
    return ReplaceIntent(decision.order.client_order_id, decision.quantity, decision.limit_price, now_ns)
