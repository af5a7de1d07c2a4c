"""Instruments: described in TOML, or inferred from data. What is assumed is said, fees are never silently zero."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import numpy as np

from trio_nt.errors import InputError
from trio_nt.model.calendar import ALWAYS_OPEN, US_EQUITIES, Calendar
from trio_nt.model.instruments import Instrument, InstrumentKind, Instruments
from trio_nt.model.market import Column, Columns
from trio_nt.model.money import Number, to_decimal

Fees: TypeAlias = Number | tuple[Number, Number]

# Maker, taker: the venues' published rates for customers without a discount.
DEFAULT_FEES: dict[InstrumentKind, tuple[Decimal, Decimal]] = {
    InstrumentKind.SPOT: (Decimal("0.001"), Decimal("0.001")),
    InstrumentKind.LINEAR: (Decimal("0.0002"), Decimal("0.0005")),
    InstrumentKind.INVERSE: (Decimal("0.0001"), Decimal("0.0005")),
    InstrumentKind.EQUITY: (Decimal("0.0005"), Decimal("0.0005")),
}
INFERENCE_ROWS = 8_192
MAX_DECIMALS = 9
_BAR_PRICES = ("open", "high", "low", "close")


def decimals(values: Column, *, at_most: int = MAX_DECIMALS) -> int:
    """How many decimals the finite ones of ``values`` (float64, any shape) show, at most ``at_most``."""
    finite = values[np.isfinite(values)]
    for places in range(at_most):
        # Dividing an exact integer by an exact power of ten gives the very float that reading the decimal gives.
        if np.array_equal(np.round(finite, places), finite):
            return places
    return at_most


def step(values: Iterable[Column]) -> Decimal:
    """The coarsest power of ten, at most 1, on which all ``values`` lie: a tick or lot as far as data can tell."""
    return Decimal(1).scaleb(-max((decimals(column) for column in values), default=0))


def prices_and_sizes(parts: Sequence[Columns]) -> tuple[list[Column], list[Column]]:
    """The price and the size columns of an instrument's rows, good rows only."""
    prices: list[Column] = []
    sizes: list[Column] = []
    for columns in parts:
        good = columns["flags"] == 0
        bars = "open" in columns
        prices += [columns[name][good] for name in (_BAR_PRICES if bars else ("bid", "ask", "price"))]
        sizes += [columns[name][good] for name in (("volume",) if bars else ("bid_size", "ask_size", "size"))]
    return prices, sizes


def as_fees(fees: Fees) -> tuple[Decimal, Decimal]:
    """(maker, taker) from a fraction for both, or from a pair.

    Raises:
        ValueError: no number, or a fraction of 1 or more.
    """
    pair = fees if isinstance(fees, tuple) else (fees, fees)
    if len(pair) != 2:
        raise ValueError(f"fees must be one fraction or (maker, taker), was {fees!r}")
    maker, taker = (to_decimal(fee, "fee") for fee in pair)
    for fee in (maker, taker):
        if not -1 < fee < 1:
            raise ValueError(f"a fee must be a fraction of the notional (0.001 is 0.1 %), was {fee}")
    return maker, taker


def say_fees(instrument: Instrument) -> str:
    fees = f"maker {instrument.maker_fee:f}, taker {instrument.taker_fee:f}"
    return f"fees of {instrument.id}: {fees} (default for {instrument.kind.value})"


CALENDARS: dict[str, Calendar] = {"always-open": ALWAYS_OPEN, "us-equities": US_EQUITIES}
_TEXTS = ("symbol", "venue", "base", "quote", "settlement")
_NUMBERS = ("multiplier", "tick_size", "lot_size", "min_quantity", "min_notional", "maker_fee", "taker_fee")
_KEYS = (*_TEXTS, "kind", *_NUMBERS, "shortable", "calendar")


def load_instruments(path: Path | str) -> Instruments:
    """Read instruments from TOML: one table ``[instruments."ID"]`` each, its keys the fields of ``Instrument``.

    Without ``maker_fee`` or ``taker_fee`` an instrument has its kind's default; ``load_described`` names these.

    Raises:
        InputError: the file cannot be read, is no TOML, or has an unknown key or a wrong value; the message names it.
    """
    return load_described(path)[0]


def load_described(path: Path | str) -> tuple[Instruments, list[str]]:
    """The instruments of a TOML file, and the ids of those that have a default fee."""
    try:
        with Path(path).open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no TOML: {error}") from error
    for key in document:
        if key != "instruments":
            raise InputError(f'{path}: unknown key {key!r}; instruments are tables [instruments."ID"]')
    tables = document.get("instruments")
    if not isinstance(tables, dict) or not tables:
        raise InputError(f'{path}: describes no instrument; each is a table [instruments."ID"]')
    instruments, without_fees = Instruments(), []
    for instrument_id, table in tables.items():
        if not isinstance(table, dict):
            raise InputError(f"{path}: {instrument_id!r} must be a table, was {table!r}")
        try:
            instruments.add(_from_table(instrument_id, table))
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: instrument {instrument_id!r}: {error}") from error
        if "maker_fee" not in table or "taker_fee" not in table:
            without_fees.append(instrument_id)
    return instruments, without_fees


def _from_table(instrument_id: str, table: Mapping[str, Any]) -> Instrument:
    fields: dict[str, Any] = {"id": instrument_id, "symbol": instrument_id}
    for key, value in table.items():
        if key not in _KEYS:
            raise ValueError(f"unknown key {key!r}; there are {', '.join(_KEYS)}")
        fields[key] = _value(key, value)
    venue = fields.get("venue")
    if venue and "symbol" not in table:
        fields["symbol"] = instrument_id.removesuffix(f".{venue}")
    kind = fields.get("kind", InstrumentKind.EQUITY)
    maker, taker = DEFAULT_FEES[kind]
    instrument = Instrument(**{"maker_fee": maker, "taker_fee": taker} | fields)
    if not instrument.settlement:
        raise ValueError("an inverse contract needs 'base' or 'settlement'")
    return instrument


def _value(key: str, value: Any) -> Any:
    if key in _NUMBERS:
        return to_decimal(value, key)
    if key == "kind":
        return _choice(key, value, {kind.value: kind for kind in InstrumentKind})
    if key == "calendar":
        return _choice(key, value, CALENDARS)
    expected = bool if key == "shortable" else str
    if not isinstance(value, expected):
        raise TypeError(f"{key} must be {'true or false' if expected is bool else 'a string'}, was {value!r}")
    return value


def _choice(key: str, value: Any, choices: Mapping[str, Any]) -> Any:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{key} must be one of {', '.join(choices)}, was {value!r}")
    return choices[value]


class Inference:
    """Instruments inferred one after the other; one that several files show is put together."""

    def __init__(self) -> None:
        self._known: dict[str, Instrument] = {}
        self._rows: dict[str, int] = {}
        self._taken_for: dict[str, str] = {}

    def add(self, instrument: Instrument, taken_for: str, *, rows: int) -> None:
        """``taken_for`` says what was assumed beyond tick, lot and fees, to be put after "X taken for"."""
        known = self._known.get(instrument.id)
        if known is not None:
            finest = {name: min(getattr(known, name), getattr(instrument, name)) for name in ("tick_size", "lot_size")}
            instrument = attrs.evolve(known, **finest)
        self._known[instrument.id] = instrument
        self._rows[instrument.id] = self._rows.get(instrument.id, 0) + rows
        self._taken_for.setdefault(instrument.id, taken_for)

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._known.values())

    @property
    def assumptions(self) -> list[str]:
        said = []
        for name, instrument in self._known.items():
            said.append(f"{name} taken for {self._taken_for[name]}")
            steps = f"tick {instrument.tick_size:f} and lot {instrument.lot_size:f}"
            said.append(f"{steps} of {name} inferred from its first {self._rows[name]:,} rows")
        return said
