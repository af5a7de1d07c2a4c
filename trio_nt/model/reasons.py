"""Why risk refuses, coded: a report can count it, a strategy can act on it."""

from enum import Enum


class Reason(Enum):
    UNKNOWN_INSTRUMENT = "unknown instrument"
    UNKNOWN_ORDER = "unknown order"
    QUANTITY_TOO_SMALL = "quantity rounds to nothing or is below the minimum"
    ORDER_QUANTITY = "order quantity above the limit"
    ORDER_NOTIONAL = "order notional outside the limits"
    POSITION_LIMIT = "position limit"
    GROSS_EXPOSURE = "gross exposure limit"
    PRICE_COLLAR = "price too far from the last quote"
    NO_PRICE = "no good quote yet"
    STALE_MARKET_DATA = "market data too old"
    SUBMIT_RATE = "too many orders per second"
    OPEN_ORDERS = "too many working orders"
    DUPLICATE = "the same action again within the window"
    DAILY_LOSS = "daily loss limit"
    BUYING_POWER = "buying power"
    RESTRICTED = "restricted instrument"
    NOT_SHORTABLE = "instrument cannot be sold short"
    SELF_TRADE = "could trade against an own working order"
    REDUCE_ONLY = "would not reduce the position"
    REDUCING = "trading state is REDUCING: only orders that reduce a position"
    HALTED = "trading is halted"
    CLOSED = "the instrument's market is closed"
    USER_RULE = "a rule of the user's"
