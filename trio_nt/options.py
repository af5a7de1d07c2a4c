"""What the command line's option texts mean. Every mistake is an ``InputError`` that names the option."""

import math
import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

from trio_nt.errors import EnvironmentFailure, InputError
from trio_nt.model.money import to_decimal


def parse_cash(text: str | None) -> Mapping[str, Decimal] | Decimal | None:
    """``100000``: of every settlement currency. ``USDT=100000,BTC=1``: by currency. None stays None."""
    if text is None:
        return None
    if "=" not in text:
        return _amount("--cash", text, text)
    amounts: dict[str, Decimal] = {}
    for part in text.split(","):
        currency, separator, amount = (piece.strip() for piece in part.partition("="))
        if not separator or not currency:
            raise InputError(f"--cash {text}: must be an amount, or like USDT=100000,BTC=1")
        if currency in amounts:
            raise InputError(f"--cash {text}: {currency} is given twice")
        amounts[currency] = _amount("--cash", text, amount)
    return amounts


def parse_fees(text: str | None) -> Decimal | tuple[Decimal, Decimal] | None:
    """``0.0004``: a fraction of the notional for both sides. ``0.0002,0.0005``: maker, taker. None stays None."""
    if text is None:
        return None
    fees = [_amount("--fees", text, part.strip()) for part in text.split(",")]
    if len(fees) > 2:
        raise InputError(f"--fees {text}: must be one fraction, or MAKER,TAKER")
    if not all(-1 < fee < 1 for fee in fees):
        raise InputError(f"--fees {text}: a fee is a fraction of the notional (0.001 is 0.1 %)")
    return fees[0] if len(fees) == 1 else (fees[0], fees[1])


def _amount(option: str, text: str, amount: str) -> Decimal:
    try:
        return to_decimal(amount)
    except ValueError:
        raise InputError(f"{option} {text}: {amount!r} is no number") from None


def seconds_of(option: str, milliseconds: float) -> float:
    """A latency given in milliseconds, in seconds."""
    if not (math.isfinite(milliseconds) and milliseconds >= 0):
        raise InputError(f"{option} must be at least 0 ms, was {milliseconds}")
    return milliseconds / 1000


def positive(option: str, value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise InputError(f"{option} must be above 0, was {value}")
    return value


def check_writable(option: str, path: Path | None) -> None:
    """Refuse a result file that cannot be written, before the work and not after it."""
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise EnvironmentFailure(f"{option} {path}: may not be written")


def write_result(option: str, path: Path | None, text: str) -> None:
    """Write ``text`` to ``path`` (nothing where it is None).

    Raises:
        EnvironmentFailure: the disk is full, or the file cannot be written any more.
    """
    if path is None:
        return
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise EnvironmentFailure(f"{option} {path}: {error.strerror}") from error
