"""Instruments described in TOML."""

import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from trio_nt.errors import InputError
from trio_nt.feeds.data import open_market_data
from trio_nt.feeds.instruments import as_fees, decimals, load_described, load_instruments, step
from trio_nt.model.calendar import ALWAYS_OPEN, US_EQUITIES
from trio_nt.model.instruments import InstrumentKind

FULL = """
[instruments."BTCUSD_PERP.BINANCE_CM"]
venue = "BINANCE_CM"
kind = "inverse"
base = "BTC"
quote = "USD"
multiplier = 100
tick_size = "0.1"
lot_size = 1
maker_fee = -0.0001
taker_fee = 0.0005
min_notional = 5

[instruments.BRK]
symbol = "BRK.B"
calendar = "us-equities"
shortable = false
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "instruments.toml"
    path.write_text(text)
    return path


def test_every_field_is_read(tmp_path: Path) -> None:
    inverse, share = load_instruments(write(tmp_path, FULL))
    assert (inverse.id, inverse.symbol, inverse.venue) == ("BTCUSD_PERP.BINANCE_CM", "BTCUSD_PERP", "BINANCE_CM")
    assert (inverse.kind, inverse.settlement, inverse.multiplier) == (InstrumentKind.INVERSE, "BTC", Decimal(100))
    assert (inverse.tick_size, inverse.maker_fee, inverse.taker_fee) == (
        Decimal("0.1"),
        Decimal("-0.0001"),
        Decimal("0.0005"),
    )
    assert inverse.calendar == ALWAYS_OPEN
    assert (share.symbol, share.kind, share.settlement) == ("BRK.B", InstrumentKind.EQUITY, "USD")
    assert (share.calendar, share.shortable) == (US_EQUITIES, False)


def test_fees_that_are_not_stated_are_the_kind_s_and_are_named(tmp_path: Path) -> None:
    instruments, without_fees = load_described(write(tmp_path, FULL))
    assert without_fees == ["BRK"]
    assert instruments["BRK"].taker_fee == Decimal("0.0005")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[instruments.A]\ntick = 1\n", "instrument 'A': unknown key 'tick'"),
        ("[instruments.A]\ntick_size = 0\n", "instrument 'A': tick_size of A must be above 0, was 0"),
        ("[instruments.A]\ntick_size = 'x'\n", "instrument 'A': tick_size must be a number, was 'x'"),
        ("[instruments.A]\ntick_size = true\n", "instrument 'A': tick_size must be a number"),
        ("[instruments.A]\nmin_quantity = -1\n", "min_quantity of A must not be negative"),
        ("[instruments.A]\nkind = 'future'\n", "kind must be one of spot, linear, inverse, equity, was 'future'"),
        ("[instruments.A]\ncalendar = 'moon'\n", "calendar must be one of always-open, us-equities, was 'moon'"),
        ("[instruments.A]\nshortable = 'no'\n", "shortable must be true or false"),
        ("[instruments.A]\nvenue = 1\n", "venue must be a string"),
        ("[instruments.A]\nkind = 'inverse'\n", "an inverse contract needs 'base' or 'settlement'"),
        ("[instrument.A]\n", "unknown key 'instrument'"),
        ("", "describes no instrument"),
        ("[instruments]\nA = 1\n", "'A' must be a table"),
        ("[instruments.A]\n[instruments.A]\n", "no TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_instruments(write(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / 'instruments.toml'}: ")
    assert said in str(caught.value)


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_instruments(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no TOML"):
        load_instruments(tmp_path / "binary.toml")


def test_fees_as_one_fraction_or_as_a_pair() -> None:
    assert as_fees("0.001") == (Decimal("0.001"), Decimal("0.001"))
    assert as_fees((0, 0.0005)) == (0, Decimal("0.0005"))
    for wrong in (5, (0.1, 2), float("nan"), "x"):
        with pytest.raises(ValueError):
            as_fees(wrong)


def test_decimals_as_far_as_values_show_them() -> None:
    assert decimals(np.array([61800.20, 61800.3, np.nan])) == 1
    assert decimals(np.array([1.0, 250.0])) == 0
    assert decimals(np.array([0.00001, 3.78826])) == 5
    assert decimals(np.array([1 / 3])) == 9
    assert decimals(np.array([])) == 0
    assert step([np.array([1.25]), np.array([0.5])]) == Decimal("0.01")


def test_the_guide_s_examples_are_read_as_they_stand(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "how-to" / "data.md").read_text()
    examples: dict[str, list[str]] = {"toml": [], "csv": [], "text": []}
    for language, text in re.findall(r"```(\w+)\n(.*?)```", guide, re.DOTALL):
        examples.get(language, []).append(text)
    (described,) = examples["toml"]
    assert load_instruments(write(tmp_path, described)).ids == ["BTCUSDT.BINANCE_UM", "ACME"]
    assert len(examples["csv"]) == 3
    for text in [*examples["csv"], *examples["text"]]:
        (tmp_path / "example").write_text(text)
        data = open_market_data([tmp_path / "example"], bar_time="open")
        assert sum(len(block["kind"]) for block in data.blocks()) == len(text.splitlines()) - ("time" in text)
