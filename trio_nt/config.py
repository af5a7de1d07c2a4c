"""The configuration of ``trio-nt run``: a TOML file, or the same as attrs objects.

    seed = 1
    rules = ["my_rules.py:no_more"]     # FILE.py:FUNCTION or MODULE:FUNCTION
    broker = "sim"

    [cash]
    USD = 100_000

    [journal]
    file = "orders.sqlite"              # relative to this file
    keep_days = 400

    [risk]                              # of the account; the keys are those of RiskLimits
    max_position = 500
    max_daily_loss = { USD = 2_000 }    # or one number for every currency
    price_collar = "none"               # switches a limit off

    [[strategies]]
    strategy = "my_strategy.py:Crossover"  # FILE.py:CLASS relative to this file, or MODULE:CLASS
    id = "crossover"
    settings = { fast = 10, slow = 20 }
    risk = { max_order_quantity = 10 }
    restart = "on-failure"              # or { when = "on-failure", limit = 5, backoff_s = 2 }

An unknown key is an error that names the file and the key.
"""

import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs

from trio_nt.conversion import structure
from trio_nt.errors import InputError
from trio_nt.risk.core import RiskRule
from trio_nt.risk.limits import RiskLimits
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.loading import configured_strategy, load_rule
from trio_nt.strategies.supervision import Supervision

_positive_or_none: Any = attrs.validators.optional(attrs.validators.gt(0))
BROKERS = ("sim", "alpaca-paper", "alpaca-live")
DEFAULT_CASH = {"USD": Decimal(1_000_000)}


@attrs.frozen(kw_only=True)
class StrategyConfig:
    """One strategy of a run. An empty ``id`` is chosen by the engine.

    In a file the keys of ``Supervision`` stand beside the others.
    """

    strategy: Strategy
    id: str = ""
    risk: RiskLimits | None = None
    supervision: Supervision = attrs.field(factory=Supervision)


@attrs.frozen(kw_only=True)
class JournalConfig:
    """Where orders are recorded.

    Attributes:
        file: an SQLite file, relative to the configuration file. Without it: one for each account of a broker, and a
            new one for each run in a simulated market, in the user's folder for state (see ``journal_files``).
        keep_days: how long orders that are over stay in the file; ``0``: for ever.
    """

    file: Path | None = None
    keep_days: float = attrs.field(default=400.0, validator=attrs.validators.ge(0))


@attrs.frozen(kw_only=True)
class RunConfig:
    """Everything a run is told.

    Attributes:
        strategies: none: the demo's EMA crossover.
        duration_s: seconds until it closes by itself; None: until it is interrupted.
        broker: ``sim`` starts the simulated venue in a process of its own.
        seed: of the simulated venue's market.
        events_per_second: of the simulated venue's market, all instruments together.
        cash: what the simulated account starts with.
        memory: the SQLite file that keeps what strategies store in ``context.memory``, relative to the configuration
            file; without it their memories end with the run.
        risk: the account's limits.
        state_folder: where strategies' states are kept from run to run; in a file, relative to it.
        linger_s, stall_timeout_s: see ``EngineConfig``.
        rules: the user's own risk checks, run after all others but that for self-trade.
        journal: where orders are recorded.
        watchdog_s: cancel every working order from a process of its own when nothing was heard of the engine for so
            many seconds, or it died; None: no such process.
        on_exit: what the end does with working orders: ``cancel`` or ``keep`` them.
    """

    strategies: Sequence[StrategyConfig] = ()
    duration_s: float | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.gt(0)))
    broker: str = attrs.field(default="sim", validator=attrs.validators.in_(BROKERS))
    seed: int = 1
    events_per_second: int = attrs.field(default=10_000, validator=attrs.validators.ge(1))
    cash: Mapping[str, Decimal] = attrs.field(factory=DEFAULT_CASH.copy)
    memory: str | None = None
    risk: RiskLimits = attrs.field(factory=RiskLimits)
    state_folder: Path | None = None
    linger_s: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    stall_timeout_s: float | None = attrs.field(default=5.0, validator=_positive_or_none)
    rules: Sequence[RiskRule] = ()
    journal: JournalConfig = attrs.field(factory=JournalConfig)
    watchdog_s: float | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(0.1)))
    on_exit: str = attrs.field(default="cancel", validator=attrs.validators.in_(("cancel", "keep")))


def load_config(path: Path | str) -> RunConfig:
    """Read a configuration file.

    Raises:
        InputError: it cannot be read or is no TOML; an unknown key; a value that does not fit; a strategy that does not
            load. The message names the file and the key.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
    tables = document.pop("strategies", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{path}: strategies must be written as [[strategies]] tables")
    rules = document.pop("rules", [])
    if not isinstance(rules, list) or not all(isinstance(each, str) for each in rules):
        raise InputError(f'{path}: rules must be a list of "FILE.py:FUNCTION" or "MODULE:FUNCTION"')
    folder = path.resolve().parent
    loaded = tuple(load_rule(each, f"{path}: rules[{number}]", folder) for number, each in enumerate(rules))
    _switch_off(document)
    config = structure(document, RunConfig, str(path))
    if config.state_folder is not None:
        config = attrs.evolve(config, state_folder=folder / config.state_folder)
    if config.journal.file is not None:
        file = folder / config.journal.file
        config = attrs.evolve(config, journal=attrs.evolve(config.journal, file=file))
    if config.memory is not None:
        config = attrs.evolve(config, memory=str(folder / config.memory))
    config = attrs.evolve(config, rules=loaded)
    return attrs.evolve(config, strategies=tuple(_strategy(path, number, table) for number, table in enumerate(tables)))


def _switch_off(table: dict[str, Any]) -> None:
    """TOML has no null: ``"none"`` switches a limit off."""
    risk = table.get("risk")
    if isinstance(risk, dict):
        table["risk"] = {key: None if value == "none" else value for key, value in risk.items()}


def _strategy(path: Path, number: int, table: Mapping[str, Any]) -> StrategyConfig:
    where = f"{path}: strategies[{number}]"
    supervised = [field.name for field in attrs.fields(Supervision)]
    known = ["settings", "strategy", "id", "risk", *supervised]
    unknown = [key for key in table if key not in known]
    if unknown:
        raise InputError(f"{where}: unknown key {', '.join(unknown)}; known: {', '.join(known)}")
    options = dict(table)
    _switch_off(options)
    specification, settings = options.pop("strategy", None), options.pop("settings", {})
    if not isinstance(specification, str):
        raise InputError(f'{where}: strategy must be given as "FILE.py:CLASS" or "MODULE:CLASS"')
    if not isinstance(settings, dict):
        raise InputError(f"{where}: settings must be a table, was {settings!r}")
    if isinstance(options.get("restart"), str):
        options["restart"] = {"when": options["restart"]}
    supervision = structure({key: options.pop(key) for key in supervised if key in options}, Supervision, where)
    strategy = configured_strategy(specification, settings, where, path.resolve().parent)
    config = structure(options | {"strategy": strategy}, StrategyConfig, where)
    return attrs.evolve(config, supervision=supervision)
