"""A configuration file says everything a run needs, and every mistake in it is named."""

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from scheduler import TaskPriority
from trio_nt.config import RunConfig, load_config
from trio_nt.errors import InputError
from trio_nt.strategies.supervision import OverrunPolicy, RestartPolicy, Supervision

STRATEGY = """
import attrs
from trio_nt.strategies.base import Strategy
@attrs.define
class Cross(Strategy):
    fast: int = 10
"""

FULL = """
seed = 7
duration_s = 20
broker = "alpaca-paper"
events_per_second = 500
[cash]
USD = 1000.50
[risk]
max_position = 5
[[strategies]]
strategy = "of_a_configuration.py:Cross"
id = "first"
settings = { fast = 3 }
restart = "on-failure"
risk = { max_order_quantity = 2 }
[[strategies]]
strategy = "of_a_configuration.py:Cross"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "of_a_configuration.py").write_text(STRATEGY)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_everything_written_arrives_and_the_rest_is_default(folder: Path) -> None:
    config = load_config(write(folder, FULL))
    assert (config.seed, config.duration_s, config.broker, config.events_per_second) == (7, 20.0, "alpaca-paper", 500)
    assert config.cash == {"USD": Decimal("1000.5")}
    assert config.risk.max_position == 5
    first, second = config.strategies
    strategy: Any = first.strategy
    assert (first.id, strategy.fast, first.supervision.restart.when) == ("first", 3, "on-failure")
    assert first.risk is not None
    assert first.risk.max_order_quantity == 2
    assert (second.id, second.supervision, second.risk) == ("", Supervision(), None)
    assert load_config(write(folder, "")) == RunConfig()


def test_supervision_is_written_beside_the_other_keys(folder: Path) -> None:
    text = """
    state_folder = "kept"
    linger_s = 0.002
    [[strategies]]
    strategy = "of_a_configuration.py:Cross"
    restart = { when = "always", backoff_s = 2 }
    on_failure = "keep"
    lane = "MEDIUM"
    overruns = { warn_after = 1, quarantine_after = 5 }
    """
    config = load_config(write(folder, text))
    assert config.strategies[0].supervision == Supervision(
        restart=RestartPolicy(when="always", backoff_s=2.0),
        on_failure="keep",
        lane=TaskPriority.MEDIUM,
        overruns=OverrunPolicy(warn_after=1, quarantine_after=5),
    )
    assert (config.state_folder, config.linger_s) == (folder / "kept", 0.002)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sead = 1", "unknown key sead; known: "),
        ("seed = 'x'", "seed: must be a whole number, was 'x'"),
        ("seed = ", "Invalid value (at "),
        ("duration_s = 0", "'duration_s' must be > 0: 0.0"),
        ("events_per_second = 0", "'events_per_second' must be >= 1: 0"),
        ("broker = 'binance'", "'broker' must be in ('sim', 'alpaca-paper', 'alpaca-live') (got 'binance')"),
        ("[cash]\nUSD = 'many'", "cash[USD]: value must be a number, was 'many'"),
        ("[risk]\nmax_positon = 5", "unknown key risk.max_positon; known: max_order_quantity, "),
        ("[risk]\nmax_position = -5", "risk: max_position must not be negative, was -5"),
        ("strategies = 3", "strategies must be written as [[strategies]] tables"),
        ("[[strategies]]\nid = 'a'", 'strategies[0]: strategy must be given as "FILE.py:CLASS" or "MODULE:CLASS"'),
        ("[[strategies]]\nstrategy = 'gone.py:X'", "strategy file gone.py is not there (looked in "),
        (
            "[[strategies]]\nstrategy = 'of_a_configuration.py:Cross'\nsettings = { fats = 1 }",
            "Cross has no field 'fats'",
        ),
        ("[[strategies]]\nstrategy = 'of_a_configuration.py:Cross'\nsettings = 5", "settings must be a table, was 5"),
        (
            "[[strategies]]\nstrategy = 'of_a_configuration.py:Cross'\nrestrat = ''",
            "unknown key restrat; known: settings, strategy, id, ",
        ),
        ("[[strategies]]\nstrategy = 'of_a_configuration.py:Cross'\nrestart = 'x'", "'when' must be in ('never', "),
        ("[[strategies]]\nstrategy = 'of_a_configuration.py:Cross'\nlane = 'FAST'", "lane: must be one of "),
        ("[[strategies]]\nstrategy = 'of_a_configuration.py:Cross'\nrestart = { limit = -1 }", "'limit' must be >= 0"),
        ("linger_s = -1", "'linger_s' must be >= 0"),
    ],
)
def test_a_mistake_names_file_and_key(folder: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        load_config(write(folder, text))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.toml: No such file or directory"):
        load_config(folder / "gone.toml")
    (folder / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"bytes\.toml: 'utf-8' codec"):
        load_config(folder / "bytes.toml")
