"""What the venue says of its account, its assets and its past, in Alpaca's dialect. Pure."""

from typing import Any

from trio_nt.alpaca import AccountMessage, amount, format_time
from trio_nt.exchange.venue import Venue, shown
from trio_nt.model.money import ZERO
from trio_nt.model.orders import BrokerUpdate, UpdateKind

_DAY_NS = 86_400_000_000_000


def account_message(venue: Venue) -> AccountMessage:
    ledger, equity = venue.exchange.ledger, venue.equity()
    values = [
        venue.instruments[symbol].notional(position.quantity, venue.mark(symbol))
        for symbol, position in ledger.positions.items()
    ]
    return AccountMessage(
        id=venue.account_id,
        account_number="SIM" + venue.account_id[:8].upper(),
        cash=amount(ledger.cash["USD"]),
        equity=shown(equity),
        last_equity=amount(venue.config.cash),
        portfolio_value=shown(equity),
        buying_power=shown(max(ZERO, venue.margin.buying_power())),
        long_market_value=shown(sum((value for value in values if value > 0), ZERO)),
        short_market_value=shown(sum((value for value in values if value < 0), ZERO)),
        initial_margin="0",
        maintenance_margin="0",
        accrued_fees=amount(ledger.fees["USD"]),
        multiplier=amount(venue.margin.leverage),
        shorting_enabled=True,
        trading_blocked=False,
        transfers_blocked=False,
        account_blocked=False,
        trade_suspended_by_user=False,
        created_at=format_time(venue.created_ns),
    )


def clock_message(now_ns: int) -> dict[str, Any]:
    """The venue never closes; its days are UTC days."""
    midnight = (now_ns // _DAY_NS + 1) * _DAY_NS
    return {
        "timestamp": format_time(now_ns),
        "is_open": True,
        "next_open": format_time(midnight),
        "next_close": format_time(midnight),
    }


def asset_message(venue: Venue, symbol: str) -> dict[str, Any]:
    instrument = venue.instruments[symbol]
    return {
        "id": venue.asset_ids[symbol],
        "class": "us_equity",
        "exchange": "NASDAQ",
        "symbol": symbol,
        "name": f"{symbol} (invented)",
        "status": "active",
        "tradable": True,
        "marginable": True,
        "shortable": instrument.shortable,
        "easy_to_borrow": instrument.shortable,
        "fractionable": False,
        "min_order_size": amount(instrument.lot_size),
        "min_trade_increment": amount(instrument.lot_size),
        "price_increment": amount(instrument.tick_size),
    }


def activity(venue: Venue, fill: BrokerUpdate) -> dict[str, Any]:
    """One execution of the past. Its id ends with the execution id that the update stream told; the last four keys
    are this venue's own.
    """
    execution = fill.execution
    assert execution is not None
    order = venue.exchange.links[fill.broker_order_id]
    time = format_time(fill.ts_event)
    stamp = "".join(character for character in time[:23] if character.isdigit())
    return {
        "activity_type": "FILL",
        "id": f"{stamp}::{execution.execution_id}",
        "transaction_time": time,
        "type": "fill" if fill.kind is UpdateKind.FILLED else "partial_fill",
        "price": amount(execution.price),
        "qty": amount(execution.quantity),
        "side": order.request.side.value,
        "symbol": fill.instrument,
        "order_id": fill.broker_order_id,
        "client_order_id": fill.client_order_id,
        "fee": amount(execution.fee),
        "fee_currency": execution.fee_currency,
        "liquidity": execution.liquidity.value,
    }
