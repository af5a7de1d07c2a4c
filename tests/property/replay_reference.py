"""A replay that is slow and plainly right: one row at a time, every pending thing found by looking at all of them.

It shares no code with ``trio_nt.replay``, ``trio_nt.exchange``, ``trio_nt.risk`` or the order table. Both instruments
pay their notional in cash. Everything that happens has the key (time, row, number): ``row`` is -1 for what a latency
or a timer brought, else the row that it follows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from trio_nt import Quote, Trade

MAKER, TAKER = Decimal("0.0002"), Decimal("0.001")


@dataclass
class Wish:
    """What a scripted strategy asks for. ``side`` None: a target; ``kind`` "cancel": all orders of the instrument."""

    kind: str
    instrument: str
    side: int | None = None
    quantity: int = 0
    limit: Decimal | None = None
    stop: Decimal | None = None
    ioc: bool = False


@dataclass(eq=False)
class RefOrder:
    strategy: str
    wish: Wish
    side: int
    quantity: int
    signal_ns: int
    # as the engine knows it
    state: str = "sent"
    fills: list[tuple[Any, ...]] = field(default_factory=list)
    cancelling: bool = False
    # as the venue knows it
    working: bool = False
    triggered: bool = True
    resting: bool = False

    @property
    def open(self) -> bool:
        return self.state in ("sent", "accepted")


class Reference:
    """``scripts`` by id, in order of registration; a script has ``start``, ``row``, ``order`` and ``timer``."""

    def __init__(self, rows: list[Any], scripts: dict[str, Any], order_ns: int, report_ns: int, limit: int) -> None:
        self.rows, self.scripts = rows, scripts
        self.order_ns, self.report_ns, self.limit = order_ns, report_ns, limit
        self.pending: list[tuple[tuple[int, int, int], Callable[[tuple[int, int]], None]]] = []
        self.timers: list[tuple[int, int, str, str, int]] = []
        self.number = 0
        self.orders: list[RefOrder] = []
        self.refusals: list[tuple[int, str, str]] = []
        self.quote: dict[str, Any] = {}
        self.book: list[RefOrder] = []
        self.cash = Decimal(1_000_000)
        self.now = 0

    # -- what a script may ask --

    def position(self, strategy: str, instrument: str) -> int:
        return sum(
            fill[2] * order.side
            for order in self.orders
            if order.strategy == strategy and order.wish.instrument == instrument
            for fill in order.fills
        )

    def told(self, strategy: str, instrument: str) -> int:
        return sum(
            order.state == "accepted" and order.strategy == strategy and order.wish.instrument == instrument
            for order in self.orders
        )

    def set_timer(self, strategy: str, name: str, at_ns: int) -> None:
        self.number += 1
        self.timers.append((max(at_ns, self.now + 1), self.number, strategy, name, 0))

    # -- the run --

    def run(self) -> None:
        self.now = self.rows[0].ts_init
        self._call(lambda script: script.start(self), (self.now, -1))
        for number, row in enumerate(self.rows):
            self._drain((row.ts_init, number, 0))
            self.now = row.ts_init
            good = row.bid <= row.ask if isinstance(row, Quote) else row.price >= 0
            if good:
                if isinstance(row, Quote):
                    self.quote[row.instrument] = row
                self._show(row, number)
                self._call(lambda script, row=row: script.row(row, self), (row.ts_init, number))
        self._drain((2**63, -1, 0), timers=False)

    def _call(self, call: Callable[[Any], list[Wish]], place: tuple[int, int]) -> None:
        for strategy, script in self.scripts.items():
            for wish in call(script):
                self._decide(strategy, wish, place)

    def _drain(self, limit: tuple[int, int, int], *, timers: bool = True) -> None:
        while True:
            key = min((key for key, _ in self.pending), default=limit)
            timer = min((at for at, *_ in self.timers), default=None) if timers else None
            if timer is not None and (timer, -1, 0) < min(key, limit):
                self._fire(timer)
            elif key < limit:
                place, happen = next(entry for entry in self.pending if entry[0] == key)
                self.pending.remove((place, happen))
                self.now = key[0]
                happen(key[:2])
            else:
                return

    def _fire(self, at_ns: int) -> None:
        self.now = at_ns
        for strategy, script in self.scripts.items():
            due = sorted(timer for timer in self.timers if timer[0] == at_ns and timer[2] == strategy)
            for timer in due:
                self.timers.remove(timer)
                for wish in script.timer(timer[3], self):
                    self._decide(strategy, wish, (at_ns, -1))

    def _later(self, place: tuple[int, int], latency: int, happen: Callable[[tuple[int, int]], None]) -> None:
        self.number += 1
        at_ns, row = (place[0] + latency, -1) if latency else place
        self.pending.append(((at_ns, row, self.number), happen))

    # -- risk --

    def _decide(self, strategy: str, wish: Wish, place: tuple[int, int]) -> None:
        if wish.kind == "cancel":
            for order in self.orders:
                mine = order.strategy == strategy and order.wish.instrument == wish.instrument
                if mine and order.open and not order.cancelling:
                    order.cancelling = True
                    self._later(place, self.order_ns, lambda at, order=order: self._cancel(order, at))
            return
        side, quantity = wish.side, wish.quantity
        mine = [each for each in self.orders if each.open and each.wish.instrument == wish.instrument]
        if side is None:
            working = sum(self._left(each) * each.side for each in mine if each.strategy == strategy)
            quantity = wish.quantity - self.position(strategy, wish.instrument) - working
            side = 1 if quantity > 0 else -1
            quantity = abs(quantity)
            if not quantity:
                return
        reason = None
        if wish.instrument not in self.quote:
            reason = "no good quote yet"
        else:
            held = sum(self.position(each, wish.instrument) for each in self.scripts) * side
            same_side = sum(self._left(each) for each in mine if each.side == side)
            if held + same_side + quantity > self.limit:
                reason = "position limit"
        if reason is not None:
            self.refusals.append((place[0], strategy, reason))
            self._later(
                place,
                self.order_ns,
                lambda at: self._later(at, self.report_ns, lambda at: self._tell(strategy, "refused", at)),
            )
            return
        order = RefOrder(strategy, wish, side, quantity, place[0], triggered=wish.stop is None)
        self.orders.append(order)
        self._later(place, self.order_ns, lambda at: self._arrive(order, at))

    @staticmethod
    def _left(order: RefOrder) -> int:
        return 0 if order.fills else order.quantity

    # -- venue --

    def _arrive(self, order: RefOrder, at: tuple[int, int]) -> None:
        order.working = True
        self.book.append(order)
        self._report(order, "accepted", at)
        quote = self.venue_quote(order.wish.instrument)
        if quote is not None and quote.ts_init == at[0]:
            self._meet(order, quote, at)

    def venue_quote(self, instrument: str) -> Any:
        return self.quote.get(instrument)

    def _cancel(self, order: RefOrder, at: tuple[int, int]) -> None:
        if order.working:
            self._end(order)
            self._report(order, "cancelled", at)
        else:
            self._later(at, self.report_ns, lambda at: self._cancel_failed(order, at))

    def _cancel_failed(self, order: RefOrder, at: tuple[int, int]) -> None:
        if order.open:  # else it has been told how the order ended: old news
            order.cancelling = False
            self._tell(order.strategy, "cancel rejected", at)

    def _end(self, order: RefOrder) -> None:
        order.working = False
        self.book.remove(order)

    def _show(self, row: Any, number: int) -> None:
        at = (row.ts_init, number)
        for order in [each for each in self.book if each.wish.instrument == row.instrument]:
            if isinstance(row, Quote):
                self._meet(order, row, at)
            elif isinstance(row, Trade):
                self._print(order, row, at)

    def _print(self, order: RefOrder, row: Trade, at: tuple[int, int]) -> None:
        if not order.triggered:
            assert order.wish.stop is not None
            if (row.price - float(order.wish.stop)) * order.side >= 0:
                order.triggered = True
                quote = self.quote.get(row.instrument)
                if quote is not None and quote.ts_init == at[0]:
                    self._meet(order, quote, at)
        elif order.resting:
            assert order.wish.limit is not None
            if (float(order.wish.limit) - row.price) * order.side > 0:
                self._fill(order, order.wish.limit, MAKER, at)

    def _meet(self, order: RefOrder, quote: Quote, at: tuple[int, int]) -> None:
        touch = quote.ask if order.side > 0 else quote.bid
        wish = order.wish
        if not order.triggered:
            assert wish.stop is not None
            if (touch - float(wish.stop)) * order.side < 0:
                return
            order.triggered = True
        if wish.limit is None or (float(wish.limit) - touch) * order.side >= 0:
            assert not order.resting or wish.limit is not None
            price, rate = (wish.limit, MAKER) if order.resting and wish.limit else (Decimal(str(touch)), TAKER)
            self._fill(order, price, rate, at)
        elif wish.ioc:
            self._end(order)
            self._report(order, "cancelled", at)
        else:
            order.resting = True

    def _fill(self, order: RefOrder, price: Decimal, rate: Decimal, at: tuple[int, int]) -> None:
        self._end(order)
        fee = (order.quantity * price * rate).quantize(Decimal("1e-8"), ROUND_HALF_EVEN)
        fill = (at[0], price, order.quantity, fee)
        self._report(order, "filled", at, fill)

    # -- reports --

    def _report(self, order: RefOrder, state: str, at: tuple[int, int], fill: tuple[Any, ...] | None = None) -> None:
        self._later(at, self.report_ns, lambda at: self._hear(order, state, fill, at))

    def _hear(self, order: RefOrder, state: str, fill: tuple[Any, ...] | None, at: tuple[int, int]) -> None:
        order.state = state
        if fill is not None:
            order.fills.append((*fill, at[0]))
            self.cash -= order.side * fill[2] * fill[1] + fill[3]
        self._tell(order.strategy, state, at)

    def _tell(self, strategy: str, state: str, at: tuple[int, int]) -> None:
        for wish in self.scripts[strategy].order(state, self):
            self._decide(strategy, wish, at)
