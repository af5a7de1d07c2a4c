"""Every rule that can refuse an order, one function each: ``check(candidate, level) -> detail | None``.

A rule sees the order as it would be sent (on tick and lot) and one level, the strategy's or the account's: its limits
and what it owns at worst. ``RULES`` at the end names which limit switches which rule on; a rule that is off costs
nothing. Prices are float64, in quote currency; worths are float64, in the instrument's settlement currency.
"""

from collections.abc import Callable
from decimal import Decimal

import attrs

from trio_nt.model.instruments import Instrument, InstrumentKind
from trio_nt.model.money import EXACT, ZERO
from trio_nt.model.reasons import Reason
from trio_nt.risk.exposure import Book, Slot
from trio_nt.risk.limits import RiskLimits, amount_in
from trio_nt.risk.rate import Recent, TokenBucket

_add, _subtract = EXACT.add, EXACT.subtract


@attrs.define(eq=False)
class Market:
    """One instrument, with what the rules need of it at hand, and its last good quote."""

    index: int
    instrument: Instrument
    settlement: str
    inverse: bool
    multiplier: float
    always_open: bool
    bid: float = 0.0
    ask: float = 0.0
    ts_init: int = 0
    unit: float = 0.0  # what one unit is worth at the mid price, in ``settlement``

    def show(self, bid: float, ask: float, ts_init: int) -> None:
        """The last good quote."""
        self.bid = bid
        self.ask = ask
        self.ts_init = ts_init
        mid = (bid + ask) / 2
        self.unit = self.multiplier / mid if self.inverse else self.multiplier * mid

    def mark(self, price: float) -> None:
        """A price to count with where there is no quote."""
        self.unit = self.multiplier / price if self.inverse else self.multiplier * price

    def worth(self, quantity: float, price: float) -> float:
        """``Instrument.notional`` in floats."""
        size = quantity * self.multiplier
        return size / price if self.inverse else size * price

    def profit_value(self, quantity: float, price: float) -> float:
        """What holding ``quantity`` adds to profit at ``price``; an inverse contract gains as 1 / price falls."""
        return -self.worth(quantity, price) if self.inverse else self.worth(quantity, price)


@attrs.define(eq=False)
class Candidate:
    """An order as it would be sent.

    ``quantity`` is all that may yet be filled, ``added`` what comes on top of what is already reserved: the same for a
    new order, less for a replace.
    """

    market: Market
    buy: bool
    quantity: Decimal
    added: Decimal
    price: float  # the price at which its worth is judged
    limit: Decimal | None
    stop: Decimal | None
    own: Slot
    whole: Slot
    now_ns: int
    is_new: bool
    _reduces: bool | None = None
    _worth: float | None = None

    @property
    def reduces(self) -> bool:
        """Even if it and every order on its side fill, the strategy's position only comes nearer to zero."""
        if self._reduces is None:
            own = self.own
            if self.buy:
                self._reduces = _add(_add(own.position, own.buys), self.added) <= ZERO
            else:
                self._reduces = _subtract(_subtract(own.position, own.sells), self.added) >= ZERO
        return self._reduces

    @property
    def worth(self) -> float:
        """What may be filled of it, at the price at which it is judged."""
        if self._worth is None:
            self._worth = self.market.worth(float(self.quantity), self.price)
        return self._worth


@attrs.define(eq=False)
class Level:
    """The account or one strategy: its limits, what it owns at worst, and its memories."""

    name: str  # "account" or the strategy's id
    limits: RiskLimits
    book: Book
    markets: list[Market]
    is_account: bool
    bucket: TokenBucket | None
    recent: Recent | None
    rules: "tuple[tuple[Reason, Rule], ...]" = ()
    cash: dict[str, float] = attrs.field(factory=dict)
    fees: dict[str, float] = attrs.field(factory=dict)
    day_started_at: dict[str, float] = attrs.field(factory=dict)  # profit per currency when the trading day began

    _amounts: dict[tuple[str, str], float | None] = attrs.field(factory=dict)
    _by_currency: dict[str, list[tuple[Slot, Market]]] = attrs.field(factory=dict)
    _slots_known: int = 0
    _judged: Candidate | None = None  # whose gross and profit are kept: several rules ask for the same
    _gross: float | None = None
    _profit: float | None = None

    def amount(self, name: str, currency: str) -> float | None:
        """One of the limits that are amounts of money, in one currency."""
        key = name, currency
        try:
            return self._amounts[key]
        except KeyError:
            found = self._amounts[key] = amount_in(getattr(self.limits, name), currency)
            return found

    def gross_with(self, candidate: Candidate) -> float:
        """``gross`` of the candidate's currency, computed once for a candidate."""
        self._judge(candidate)
        if self._gross is None:
            self._gross = self.gross(candidate.market.settlement, candidate)
        return self._gross

    def profit_before(self, candidate: Candidate) -> float:
        """``profit`` in the candidate's currency, computed once for a candidate."""
        self._judge(candidate)
        if self._profit is None:
            self._profit = self.profit(candidate.market.settlement)
        return self._profit

    def _judge(self, candidate: Candidate) -> None:
        if self._judged is not candidate:
            self._judged = candidate
            self._gross = self._profit = None

    def slot(self, candidate: Candidate) -> Slot:
        return candidate.whole if self.is_account else candidate.own

    def profit(self, currency: str) -> float:
        """Realised and unrealised, after fees, since the start, at the last marks."""
        total = -self.fees.get(currency, 0.0)
        for slot, market in self._holdings(currency):
            held = slot.held
            if held:
                total += slot.flow - held * market.unit if market.inverse else slot.flow + held * market.unit
            else:
                total += slot.flow
        return total

    def gross(self, currency: str, candidate: Candidate) -> float:
        """Worth of every worst-case position of a currency, the candidate included."""
        total, own = 0.0, self.slot(candidate)
        for slot, market in self._holdings(currency):
            worst = slot.worst
            if worst is None:
                worst = slot.worst_case()
            if worst and slot is not own:
                total += worst * market.unit
        if candidate.buy:
            longest = _add(_add(own.position, own.buys), candidate.added)
            shortest = _subtract(own.sells, own.position)
        else:
            longest = _add(own.position, own.buys)
            shortest = _add(_subtract(own.sells, own.position), candidate.added)
        return total + float(max(longest, shortest)) * candidate.market.unit

    def is_widened_by(self, candidate: Candidate) -> bool:
        """Whether the worst-case position of this level grows: closing a position never does that."""
        slot = self.slot(candidate)
        if candidate.buy:
            end = _add(_add(slot.position, slot.buys), candidate.added)
        else:
            end = _add(_subtract(slot.sells, slot.position), candidate.added)
        return float(end) > slot.worst_case()

    def _holdings(self, currency: str) -> list[tuple[Slot, Market]]:
        """Slots of instruments that settle in a currency; found anew when an instrument was first traded."""
        slots = self.book.slots
        if self._slots_known != len(slots):
            self._slots_known = len(slots)
            self._by_currency = {}
            for index, slot in slots.items():
                market = self.markets[index]
                self._by_currency.setdefault(market.settlement, []).append((slot, market))
        return self._by_currency.get(currency, [])


Rule = Callable[[Candidate, Level], str | None]


def check_order_quantity(candidate: Candidate, level: Level) -> str | None:
    limit = level.limits.max_order_quantity
    assert limit is not None
    if candidate.quantity > limit:
        return f"{candidate.quantity} is above {limit}"
    return None


def check_order_notional(candidate: Candidate, level: Level) -> str | None:
    currency = candidate.market.settlement
    worth = candidate.worth
    most = level.amount("max_order_notional", currency)
    if most is not None and worth > most:
        return f"{worth:.10g} {currency} is above {most:.10g}"
    least = level.amount("min_order_notional", currency)
    if least is not None and worth < least:
        return f"{worth:.10g} {currency} is below {least:.10g}"
    return None


def check_minimum_notional(candidate: Candidate, level: Level) -> str | None:
    instrument = candidate.market.instrument
    worth = candidate.worth
    if worth < float(instrument.min_notional) and not candidate.reduces:
        return f"{worth:.10g} {instrument.settlement} is below the instrument's minimum {instrument.min_notional}"
    return None


def check_position(candidate: Candidate, level: Level) -> str | None:
    limit, slot = level.limits.max_position, level.slot(candidate)
    assert limit is not None
    if candidate.buy:
        end = _add(_add(slot.position, slot.buys), candidate.added)
    else:
        end = _add(_subtract(slot.sells, slot.position), candidate.added)
    if end > limit and candidate.added > 0:
        return f"the position could reach {end if candidate.buy else -end}, the limit is {limit}"
    return None


def check_gross_exposure(candidate: Candidate, level: Level) -> str | None:
    currency = candidate.market.settlement
    limit = level.amount("max_gross_exposure", currency)
    if limit is None:
        return None
    gross = level.gross_with(candidate)
    if gross > limit and level.is_widened_by(candidate):
        return f"{gross:.10g} {currency} is above {limit:.10g}"
    return None


def check_buying_power(candidate: Candidate, level: Level) -> str | None:
    leverage = level.limits.leverage
    if not level.is_account or leverage is None:
        return None
    currency = candidate.market.settlement
    power = leverage * (level.cash.get(currency, 0.0) + level.profit_before(candidate))
    needed = level.gross_with(candidate)
    if needed > power and level.is_widened_by(candidate):
        return f"{needed:.10g} {currency} are needed, there are {power:.10g}"
    return None


def check_price_collar(candidate: Candidate, level: Level) -> str | None:
    collar, limit, market = level.limits.price_collar, candidate.limit, candidate.market
    if limit is None or collar is None:
        return None
    price = float(limit)
    if candidate.buy:
        reference = market.ask if candidate.stop is None else max(market.ask, float(candidate.stop))
        outside = price > reference * (1 + collar)
    else:
        reference = market.bid if candidate.stop is None else min(market.bid, float(candidate.stop))
        outside = price < reference * (1 - collar)
    return f"{limit} is more than {collar:.4g} beyond {reference:.10g}" if outside else None


def check_stale(candidate: Candidate, level: Level) -> str | None:
    limit = level.limits.stale_after_s
    assert limit is not None
    age_ns = candidate.now_ns - candidate.market.ts_init
    return f"the last quote is {age_ns / 1e9:.3f} s old" if age_ns > limit * 1e9 else None


def check_open_orders(candidate: Candidate, level: Level) -> str | None:
    limit = level.limits.max_open_orders
    assert limit is not None
    if candidate.is_new and level.book.open_orders >= limit:
        return f"{level.book.open_orders} are working, the limit is {limit}"
    return None


def check_daily_loss(candidate: Candidate, level: Level) -> str | None:
    if candidate.reduces:
        return None
    currency = candidate.market.settlement
    limit = level.amount("max_daily_loss", currency)
    if limit is None:
        return None
    loss = level.day_started_at.get(currency, 0.0) - level.profit_before(candidate)
    return f"{loss:.10g} {currency} lost today, the limit is {limit:.10g}" if loss > limit else None


def check_restricted(candidate: Candidate, level: Level) -> str | None:
    if candidate.market.instrument.id in level.limits.restricted and not candidate.reduces:
        return f"{candidate.market.instrument.id} may only be reduced"
    return None


def check_duplicate(candidate: Candidate, level: Level) -> str | None:
    assert level.recent is not None
    if candidate.is_new and level.recent.seen(duplicate_key(candidate), candidate.now_ns):
        return f"the same order was sent within {level.limits.duplicate_window_s:g} s"
    return None


def duplicate_key(candidate: Candidate) -> tuple[object, ...]:
    """What makes two orders the same."""
    return candidate.market.index, candidate.buy, candidate.quantity, candidate.limit, candidate.stop


# What a person must understand first comes first: an order refused for several reasons reports the first of them.
RULES: tuple[tuple[Reason, Rule, Callable[[RiskLimits], bool]], ...] = (
    (Reason.RESTRICTED, check_restricted, lambda limits: bool(limits.restricted)),
    (Reason.STALE_MARKET_DATA, check_stale, lambda limits: limits.stale_after_s is not None),
    (Reason.PRICE_COLLAR, check_price_collar, lambda limits: limits.price_collar is not None),
    (Reason.ORDER_QUANTITY, check_order_quantity, lambda limits: limits.max_order_quantity is not None),
    (
        Reason.ORDER_NOTIONAL,
        check_order_notional,
        lambda limits: limits.max_order_notional is not None or limits.min_order_notional is not None,
    ),
    (Reason.POSITION_LIMIT, check_position, lambda limits: limits.max_position is not None),
    (Reason.GROSS_EXPOSURE, check_gross_exposure, lambda limits: limits.max_gross_exposure is not None),
    (Reason.BUYING_POWER, check_buying_power, lambda limits: limits.leverage is not None),
    (Reason.DAILY_LOSS, check_daily_loss, lambda limits: limits.max_daily_loss is not None),
    (Reason.OPEN_ORDERS, check_open_orders, lambda limits: limits.max_open_orders is not None),
    (Reason.DUPLICATE, check_duplicate, lambda limits: limits.duplicate_window_s > 0),
)


def make_level(name: str, limits: RiskLimits, book: Book, markets: list[Market], *, is_account: bool) -> Level:
    """A level with the rules that its limits switch on."""
    rate, window_s = limits.submit_rate_per_s, limits.duplicate_window_s
    rules = [(reason, rule) for reason, rule, is_on in RULES if is_on(limits)]
    if is_account and any(market.instrument.min_notional for market in markets):
        rules.append((Reason.ORDER_NOTIONAL, check_minimum_notional))
    return Level(
        name,
        limits,
        book,
        markets,
        is_account,
        None if rate is None else TokenBucket(rate, limits.submit_burst),
        Recent(int(window_s * 1e9)) if window_s else None,
        tuple(rules),
    )


def make_market(index: int, instrument: Instrument) -> Market:
    """An instrument without a quote yet."""
    from trio_nt.model.calendar import ALWAYS_OPEN

    return Market(
        index,
        instrument,
        instrument.settlement,
        instrument.kind is InstrumentKind.INVERSE,
        float(instrument.multiplier),
        instrument.calendar is ALWAYS_OPEN,
    )
