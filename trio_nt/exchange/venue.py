"""The venue without its sockets: a market, the matching core, and the account's orders in the dialect's words.

Pure: the caller brings the time, and takes the messages away.
"""

import random
import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal

from trio_nt import alpaca
from trio_nt.alpaca import OrderMessage, PositionMessage, TradeUpdate, amount, format_time
from trio_nt.errors import EnvironmentFailure
from trio_nt.exchange.book import VenueOrder
from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.margin import Margin
from trio_nt.exchange.market import Market, venue_instruments
from trio_nt.exchange.matching import Exchange
from trio_nt.exchange.records import OPENED, Past, Record, past_of, progress_of, record_of, restore
from trio_nt.model.instruments import Instrument, Side
from trio_nt.model.market import QUOTE, Columns
from trio_nt.model.money import EXACT, ZERO, to_decimal
from trio_nt.model.orders import BrokerUpdate, OrderState, UpdateKind
from trio_nt.model.positions import Position

_NAMESPACE = uuid.UUID("6f2a1c0e-7b53-5b0c-9d55-0c6f1a1f4d10")


_PLACES = Decimal("1e-8")


class Venue:
    """One account's venue. ``now_ns`` is the venue's clock, UNIX ns; its market begins at its first reading.

    ``listeners`` hear each order's updates as encoded messages of the stream ``trade_updates``, in order. ``past`` is
    what an earlier venue had recorded: this one goes on from there, at a later time and with other ids. ``record``
    hears of everything that must be known to do so again, before the listeners do.

    Raises:
        EnvironmentFailure: ``past`` contradicts itself or the settings.
    """

    def __init__(
        self,
        config: ExchangeConfig,
        now_ns: Callable[[], int],
        *,
        past: Sequence[Record] = (),
        record: Callable[[Record], None] | None = None,
    ) -> None:
        self.config = config
        known = _past(config, past)
        self.now_ns = _never_before(now_ns, known.last_ns)
        self.instruments = venue_instruments(config.symbols, maker_fee=config.maker_fee, taker_fee=config.taker_fee)
        self.symbols = self.instruments.ids
        self.asset_ids = {symbol: str(uuid.uuid5(_NAMESPACE, symbol)) for symbol in self.symbols}
        self.symbol_by_asset_id = {asset_id: symbol for symbol, asset_id in self.asset_ids.items()}
        self.account_id = str(uuid.uuid5(_NAMESPACE, f"account {config.seed}"))
        self.started_ns = self.now_ns()
        self.created_ns = known.created_ns or self.started_ns
        self.market = Market(
            seed=config.seed,
            start_ns=self.started_ns,
            symbols=config.symbols,
            events_per_second=config.events_per_second,
            step_ns=config.step_ns,
        )
        self.events_made = 0
        self.listeners: list[Callable[[bytes], None]] = []
        # The ids of a venue that opens again must not repeat those of the ones before.
        run = f"{config.seed}/{known.times_opened}" if known.times_opened else config.seed
        bits = random.Random(run).getrandbits  # noqa: S311  # names, not secrets
        self.new_id: Callable[[], str] = lambda: str(uuid.UUID(int=bits(128), version=4))
        self.exchange = Exchange(
            self.instruments,
            cash={"USD": config.cash},
            match_on_arrival=True,
            new_id=self.new_id,
            listener=self._on_update,
            on_progress=None if record is None else lambda order: record(progress_of(order, self.now_ns())),
            portion=_portions(config.partial_fills, f"portions {run}") if config.partial_fills else None,
            afford=None if config.leverage is None else lambda *order: self.margin.refusal(*order),
        )
        self.margin = Margin(self.exchange, config.leverage or Decimal(1))
        self._record = record
        try:
            restore(self.exchange, past)
        except ValueError as error:
            raise EnvironmentFailure(f"the venue's past cannot be restored: {error}") from error
        if record is not None:
            opened = Record(OPENED, self.started_ns, seed=config.seed, cash=config.cash)
            opened.times_before = known.times_opened
            record(opened)

    def step(self, now_ns: int) -> Columns | None:
        """Take the market's next piece that is due, match against it, and return it; None when nothing is due."""
        columns = self.market.next(now_ns)
        rows = len(columns["kind"])
        if not rows:
            return None
        self.events_made += rows
        quote, trade = self.exchange.quote, self.exchange.trade
        names = ("kind", "instrument", "bid", "ask", "bid_size", "ask_size", "price", "size")
        for kind, index, bid, ask, bid_size, ask_size, price, size in zip(
            *(columns[name].tolist() for name in names), strict=True
        ):
            if kind == QUOTE:
                quote(index, bid, ask, bid_size, ask_size, now_ns)
            else:
                trade(index, price, size, now_ns)
        return columns

    # -- the dialect's words --

    def order_message(self, order: VenueOrder) -> OrderMessage:
        request = order.request
        ended = format_time(order.ended_ns) if order.ended_ns else None
        created, average = format_time(order.created_ns), order.average_price
        return OrderMessage(
            id=order.broker_order_id,
            client_order_id=request.client_order_id,
            created_at=created,
            updated_at=format_time(order.updated_ns),
            submitted_at=created,
            filled_at=ended if order.state is OrderState.FILLED else None,
            expired_at=ended if order.state is OrderState.EXPIRED else None,
            canceled_at=ended if order.state is OrderState.CANCELLED else None,
            replaced_at=ended if order.state is OrderState.REPLACED else None,
            replaced_by=order.replaced_by or None,
            replaces=order.replaces or None,
            asset_id=self.asset_ids[request.instrument],
            symbol=request.instrument,
            qty=amount(request.quantity),
            filled_qty=amount(order.filled_quantity),
            filled_avg_price=None if average is None else shown(average),
            order_type=request.order_type.value,
            type=request.order_type.value,
            side=request.side.value,
            time_in_force=request.time_in_force.value,
            limit_price=None if request.limit_price is None else amount(request.limit_price),
            stop_price=None if request.stop_price is None else amount(request.stop_price),
            status=alpaca.STATUS_BY_STATE[order.state],
        )

    def position_message(self, symbol: str, position: Position) -> PositionMessage:
        instrument = self.instruments[symbol]
        quantity, price = position.quantity, self.mark(symbol)
        value = instrument.notional(quantity, price)
        cost = instrument.notional(quantity, position.average_price)
        gain = position.unrealised(instrument, price)
        return PositionMessage(
            asset_id=self.asset_ids[symbol],
            symbol=symbol,
            qty=amount(quantity),
            avg_entry_price=shown(position.average_price),
            cost_basis=shown(cost),
            side="long" if quantity > 0 else "short",
            market_value=shown(value),
            unrealized_pl=shown(gain),
            unrealized_plpc=shown(EXACT.divide(gain, abs(cost))),
            current_price=amount(price),
            qty_available=amount(self._available(symbol, quantity)),
        )

    def mark(self, symbol: str) -> Decimal:
        """The middle of the quote in force; 0 before the first."""
        touch = self.exchange.last_quote(self.instruments.index(symbol))
        return ZERO if touch is None else (to_decimal(touch.bid) + to_decimal(touch.ask)) / 2

    def equity(self) -> Decimal:
        """Cash and what the positions are worth at the middle of the quotes in force, USD."""
        marks = {symbol: self.mark(symbol) for symbol in self.symbols}
        ledger = self.exchange.ledger
        worth = [
            self.instruments[symbol].notional(position.quantity, marks[symbol])
            for symbol, position in ledger.positions.items()
        ]
        return sum(worth, ledger.cash["USD"])

    def _available(self, symbol: str, quantity: Decimal) -> Decimal:
        closing = Side.SELL if quantity > 0 else Side.BUY
        held = sum(
            (
                order.remaining_quantity
                for order in self.exchange.working_orders()
                if order.request.instrument == symbol and order.request.side is closing
            ),
            ZERO,
        )
        return max(ZERO, abs(quantity) - held).copy_sign(quantity)

    def _on_update(self, update: BrokerUpdate, order: VenueOrder) -> None:
        if self._record is not None:
            self._record(record_of(update, order))
        if not self.listeners:
            return
        # The dialect tells a replacement by the link that ends: it names its successor.
        told = self.exchange.links[order.replaces] if update.kind is UpdateKind.REPLACED else order
        message = TradeUpdate(
            event=alpaca.EVENT_BY_KIND[update.kind],
            order=self.order_message(told),
            timestamp=format_time(update.ts_event),
        )
        execution = update.execution
        if execution is not None:
            position = self.exchange.ledger.position(update.instrument).quantity
            message.execution_id = execution.execution_id
            message.price, message.qty = amount(execution.price), amount(execution.quantity)
            message.position_qty = amount(position)
            message.fee, message.fee_currency = amount(execution.fee), execution.fee_currency
            message.liquidity = execution.liquidity.value
        content = b'{"stream":"trade_updates","data":' + alpaca.encode(message) + b"}"
        for listener in self.listeners:
            listener(content)


def shown(value: Decimal) -> str:
    """A computed amount, to the eighth decimal place."""
    return amount(value.quantize(_PLACES, context=EXACT))


def _past(config: ExchangeConfig, records: Sequence[Record]) -> Past:
    try:
        known = past_of(records)
    except ValueError as error:
        raise EnvironmentFailure(f"the venue's past cannot be restored: {error}") from error
    if known.cash is not None and known.cash != config.cash:
        raise EnvironmentFailure(f"this account began with cash={known.cash}; cash={config.cash} needs another folder")
    return known


def _never_before(now_ns: Callable[[], int], last_ns: int) -> Callable[[], int]:
    """The clock, moved on if it stands before what has happened already: the past of a venue stays in order."""
    behind = last_ns - now_ns()
    return now_ns if behind <= 0 else lambda: now_ns() + behind


def _portions(share: float, seed: str) -> Callable[[Instrument, Decimal], Decimal]:
    """How much of a quantity an execution takes: a part of its lots with probability ``share``, else all."""
    choose = random.Random(seed)  # noqa: S311  # luck, not secrets

    def portion(instrument: Instrument, quantity: Decimal) -> Decimal:
        lots = int(EXACT.divide(quantity, instrument.lot_size))
        if lots < 2 or choose.random() >= share:
            return quantity
        return instrument.lot_size * choose.randint(1, lots - 1)

    return portion
