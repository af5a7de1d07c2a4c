"""A configuration file says everything a run needs, and every mistake in it is named."""

import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest

from scheduler import TaskPriority
from trio_nt.config import RunConfig, load_config
from trio_nt.errors import InputError
from trio_nt.model.reasons import Reason
from trio_nt.risk.limits import RiskLimits, SelfTrade
from trio_nt.strategies.supervision import FloodPolicy, OverrunPolicy, RestartPolicy, Supervision

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
    floods = { quarantine_after = 50 }
    """
    config = load_config(write(folder, text))
    assert config.strategies[0].supervision == Supervision(
        restart=RestartPolicy(when="always", backoff_s=2.0),
        on_failure="keep",
        lane=TaskPriority.MEDIUM,
        overruns=OverrunPolicy(warn_after=1, quarantine_after=5),
        floods=FloodPolicy(quarantine_after=50),
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


EVERY_LIMIT = """
[risk]
max_order_quantity = 10
min_order_notional = 1
max_order_notional = { USD = 1000, BTC = "0.5" }
max_position = "5.5"
max_gross_exposure = 10000.5
price_collar = 0.05
stale_after_s = "none"
submit_rate_per_s = 10
submit_burst = 20
max_open_orders = 50
duplicate_window_s = 0.5
max_daily_loss = { USD = 100 }
leverage = 2
restricted = ["XYZ"]
self_trade = "cancel working"
split_flips = true
"""


def test_every_limit_can_be_written_for_the_account_and_for_a_strategy(folder: Path) -> None:
    text = (
        EVERY_LIMIT
        + '[[strategies]]\nstrategy = "of_a_configuration.py:Cross"\n'
        + EVERY_LIMIT.replace("[risk]", "[strategies.risk]")
    )
    config = load_config(write(folder, text))
    amounts = {"USD": Decimal(1000), "BTC": Decimal("0.5")}
    expected = RiskLimits(
        max_order_quantity=10, min_order_notional=1, max_order_notional=amounts, max_position=Decimal("5.5"),
        max_gross_exposure=Decimal("10000.5"), price_collar=0.05, stale_after_s=None, submit_rate_per_s=10.0,
        submit_burst=20, max_open_orders=50, duplicate_window_s=0.5, max_daily_loss={"USD": Decimal(100)},
        leverage=2.0, restricted=frozenset({"XYZ"}), self_trade=SelfTrade.CANCEL_WORKING, split_flips=True,
    )  # fmt: skip
    assert config.risk == expected
    assert config.strategies[0].risk == expected
    assert {field.name for field in attrs.fields(RiskLimits)} == set(re.findall(r"^(\w+) =", EVERY_LIMIT, re.MULTILINE))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('restricted = "XYZ"', "risk.restricted: must be a list of texts"),
        ("max_daily_loss = { USD = -1 }", "risk: max_daily_loss must not be negative"),
        ('max_daily_loss = { USD = "x" }', "risk.max_daily_loss: value must be a number, was 'x'"),
        ("max_order_notional = true", "risk.max_order_notional: value must be a number"),
        ('submit_burst = "none"', "risk.submit_burst: must be a whole number"),
        ("stale_after_s = 0", "risk: stale_after_s must be above 0"),
        ('self_trade = "maybe"', "risk.self_trade: must be one of refuse"),
        ("max_losses = 1", "unknown key risk.max_losses"),
    ],
)
def test_a_limit_that_makes_no_sense_is_named(folder: Path, line: str, complaint: str) -> None:
    with pytest.raises(InputError, match=re.escape(complaint)) as caught:
        load_config(write(folder, f"[risk]\n{line}\n"))
    assert "run.toml" in str(caught.value)


def test_the_journal_stands_beside_the_configuration(folder: Path) -> None:
    config = load_config(write(folder, 'watchdog_s = 5\non_exit = "keep"\n[journal]\nfile = "o.sqlite"\nkeep_days = 0'))
    assert (config.journal.file, config.journal.keep_days) == (folder.resolve() / "o.sqlite", 0)
    assert (config.watchdog_s, config.on_exit) == (5.0, "keep")


RULES = """
from trio_nt import Reason
def no_more(action, exposure, limits):
    return Reason.USER_RULE
def too_few(action):
    return None
"""


def test_rules_of_the_users_own_are_loaded_and_asked(folder: Path) -> None:
    (folder / "my_rules.py").write_text(RULES)
    (rule,) = load_config(write(folder, 'rules = ["my_rules.py:no_more"]')).rules
    assert rule(None, None, None) is Reason.USER_RULE  # type: ignore[arg-type]
    for wrong, complaint in (
        (
            '["my_rules.py:too_few"]',
            "rules[0]: too_few of my_rules.py must be a function of (action, exposure, limits)",
        ),
        ('["my_rules.py:nothing"]', "rules[0]: nothing of my_rules.py must be a function"),
        ('["my_rules.py"]', "rules[0]: must be FILE.py:FUNCTION"),
        ('"my_rules.py:no_more"', "rules must be a list"),
        ('["other_rules.py:x"]', "other_rules.py is not there"),
    ):
        with pytest.raises(InputError, match=re.escape(complaint)):
            load_config(write(folder, f"rules = {wrong}"))


def test_the_file_of_memories_is_found_beside_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('memory = "memory.sqlite"\n')
    assert load_config(path).memory == str(tmp_path / "memory.sqlite")
    path.write_text("")
    assert load_config(path).memory is None
