"""The configuration of ``trio-nt run``: a TOML file, or the same as attrs objects.

    seed = 1
    broker = "sim"

    [cash]
    USD = 100_000

    [risk]                              # of the account; the keys are those of RiskLimits
    max_position = 500

    [[strategies]]
    strategy = "my_strategy.py:Crossover"  # FILE.py:CLASS relative to this file, or MODULE:CLASS
    id = "crossover"
    settings = { fast = 10, slow = 20 }
    risk = { max_order_quantity = 10 }

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
from trio_nt.risk.limits import RiskLimits
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.loading import configured_strategy

BROKERS = ("sim", "alpaca-paper", "alpaca-live")
DEFAULT_CASH = {"USD": Decimal(1_000_000)}


@attrs.frozen(kw_only=True)
class StrategyConfig:
    """One strategy of a run. An empty ``id`` is chosen by the engine; ``restart``: ``never`` or ``on-failure``."""

    strategy: Strategy
    id: str = ""
    risk: RiskLimits | None = None
    restart: str = attrs.field(default="never", validator=attrs.validators.in_(("never", "on-failure")))


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
        risk: the account's limits.
    """

    strategies: Sequence[StrategyConfig] = ()
    duration_s: float | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.gt(0)))
    broker: str = attrs.field(default="sim", validator=attrs.validators.in_(BROKERS))
    seed: int = 1
    events_per_second: int = attrs.field(default=10_000, validator=attrs.validators.ge(1))
    cash: Mapping[str, Decimal] = attrs.field(factory=DEFAULT_CASH.copy)
    risk: RiskLimits = attrs.field(factory=RiskLimits)


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
    config = structure(document, RunConfig, str(path))
    return attrs.evolve(config, strategies=tuple(_strategy(path, number, table) for number, table in enumerate(tables)))


def _strategy(path: Path, number: int, table: Mapping[str, Any]) -> StrategyConfig:
    where = f"{path}: strategies[{number}]"
    known = ["settings", *(field.name for field in attrs.fields(StrategyConfig))]
    unknown = [key for key in table if key not in known]
    if unknown:
        raise InputError(f"{where}: unknown key {', '.join(unknown)}; known: {', '.join(known)}")
    options = dict(table)
    specification, settings = options.pop("strategy", None), options.pop("settings", {})
    if not isinstance(specification, str):
        raise InputError(f'{where}: strategy must be given as "FILE.py:CLASS" or "MODULE:CLASS"')
    if not isinstance(settings, dict):
        raise InputError(f"{where}: settings must be a table, was {settings!r}")
    strategy = configured_strategy(specification, settings, where, path.resolve().parent)
    return structure(options | {"strategy": strategy}, StrategyConfig, where)
