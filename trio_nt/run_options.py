"""From the options of ``run`` and ``replay`` to what the engine takes."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs

from trio_nt.config import BROKERS, RunConfig, StrategyConfig, load_config
from trio_nt.errors import InputError
from trio_nt.options import parse_cash, positive
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.loading import load_class, make_strategies, parse_settings


def strategies_of(specifications: Sequence[str] | None, settings: Sequence[str] | None) -> list[Strategy]:
    """The strategies that ``--strategy`` and ``--set`` ask for; the example EMA crossover without any.

    Raises:
        InputError: one does not load, or a setting does not fit.
    """
    from trio_nt.strategies.examples import EmaCrossover

    classes = [load_class(each) for each in specifications] if specifications else [EmaCrossover]
    return make_strategies(classes, parse_settings(settings or ()))


def run_config(
    path: Path | None,
    duration_s: float | None,
    specifications: Sequence[str] | None,
    settings: Sequence[str] | None,
    broker: str | None,
    seed: int | None,
    cash: str | None,
    journal: Path | None = None,
) -> RunConfig:
    """The configuration file with the options over it: an option that is given wins, ``--strategy`` replaces all.

    Raises:
        InputError: the file or an option is wrong.
    """
    config = RunConfig() if path is None else load_config(path)
    changes: dict[str, Any] = {}
    if specifications or not config.strategies:
        chosen = strategies_of(specifications, settings)
        changes["strategies"] = tuple(StrategyConfig(strategy=strategy) for strategy in chosen)
    elif settings:
        raise InputError(
            f"--set {settings[0]}: goes with --strategy; the strategies of {path} have settings of their own"
        )
    if duration_s is not None:
        changes["duration_s"] = positive("--for", duration_s)
    if broker is not None:
        if broker not in BROKERS:
            raise InputError(f"--broker must be one of {', '.join(BROKERS)}, was {broker!r}")
        changes["broker"] = broker
    if seed is not None:
        if seed < 0:
            raise InputError(f"--seed must not be negative, was {seed}")
        changes["seed"] = seed
    if journal is not None:
        changes["journal"] = attrs.evolve(config.journal, file=journal)
    amounts = parse_cash(cash)
    if amounts is not None:
        changes["cash"] = amounts if isinstance(amounts, Mapping) else {"USD": Decimal(amounts)}
    return attrs.evolve(config, **changes)
