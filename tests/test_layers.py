"""Who may import whom, as one table. The route has one way, so no stage knows another.

A unit is a module or a package right below ``trio_nt`` (``trio_nt.risk``), or a top-level package. Every import in the
source counts, also one inside a function or for type checking alone.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Unit → the units of ours that it may import beside itself. ``errors`` and ``model`` are for every unit of trio_nt.
LAYERS: dict[str, str] = {
    # Concurrency for any Trio program.
    "scheduler": "",
    # What everything shares.
    "errors": "",
    "model": "",
    "conversion": "",
    "report": "report_text",
    "report_text": "report",
    "stamps": "report",
    "metrics": "",
    "clock": "",
    # Protocols of the outside world.
    "http1": "",
    "websocket": "",
    "alpaca": "",
    # The stages: the model's types and the scheduler's channels, never one another.
    "feeds": "scheduler stamps alpaca websocket",
    "features": "scheduler stamps",
    # A strategy names features and reads the portfolio's state: their types are part of its contract.
    "strategies": "scheduler stamps conversion features portfolio",
    "risk": "scheduler stamps",
    # The order journal is execution's own memory.
    "execution": "scheduler stamps alpaca http1 storage websocket",
    "portfolio": "",
    "storage": "scheduler",
    "event_bus": "scheduler",
    # The venue is outside: it knows the dialect and the model, and nothing of the engine. Its process runs under the
    # scheduler, which is for any Trio program.
    "exchange": "alpaca http1 scheduler websocket",
    # Pure cores together: what risk, orders and portfolio say of one action.
    "desk": "risk execution portfolio",
    # What joins the stages.
    "replay": "desk exchange execution features feeds portfolio report risk stamps strategies",
    "engine_config": "execution features risk scheduler strategies",
    "engine_tasks": "scheduler",
    "engine_recovery": "desk execution storage",
    "engine_feeds": "engine_tasks feeds scheduler",
    "engine": "desk engine_config engine_feeds engine_recovery engine_report engine_tasks event_bus execution kill"
    " features feeds portfolio report risk scheduler stamps storage strategies",
    "engine_opening": "clock engine engine_config exchange features feeds scheduler storage strategies",
    "engine_report": "engine report strategies",
    "config": "conversion risk strategies",
    "live": "brokers clock config engine engine_config engine_opening episodes exchange execution feeds live_safety"
    " report risk scheduler stamps strategies",
    # What keeps a live run safe, and stops it.
    "brokers": "execution",
    "journal_files": "storage",
    "live_safety": "clock config engine journal_files storage watchdog",
    "watchdog": "brokers clock execution kill scheduler",
    "kill": "storage",
    "kill_command": "brokers clock execution journal_files kill storage",
    "testing": "feeds replay report risk strategies",
    "episodes": "strategies",
    "bridge": "engine engine_config event_bus report scheduler strategies",
    "trio_nt": "_scheduler_check engine engine_config engine_opening episodes exchange features feeds metrics portfolio"
    " replay report risk storage strategies",
    # The command line.
    "_scheduler_check": "",
    "interrupt": "",
    "progress": "",
    "options": "",
    "run_options": "config options strategies",
    "scaffold": "",
    "bench": "options",
    "doctor": "_scheduler_check",
    "commands": "bench doctor exchange feeds interrupt kill_command live options progress replay report run_options"
    " scaffold strategies trio_nt",
    "cli": "commands",
    "__main__": "cli",
}

# Third-party package → the modules (or packages) of ours that may import it.
ONLY_IN: dict[str, set[str]] = {
    "prometheus_client": {"trio_nt.metrics"},
    "httpx": {"trio_nt.execution", "trio_nt.live"},
    "numba": {"trio_nt.features"},
    "cyclopts": {"trio_nt.commands", "trio_nt.cli"},
    "cattrs": {"trio_nt.conversion"},
    "rich": {"trio_nt.commands"},
    "polars": {"trio_nt.features.history"},
    "pandas": {"trio_nt.features.history"},
    "pyarrow": {"trio_nt.features.history"},
    "websockets": {"trio_nt.websocket", "trio_nt.execution.websocket", "trio_nt.exchange", "trio_nt.feeds"},
}

# The pure cores: no Trio and no scheduler in them.
PURE = [
    "scheduler.backpressure",
    "scheduler.lanes",
    "scheduler.ready",
    "trio_nt.alpaca",
    "trio_nt.config",
    "trio_nt.conversion",
    "trio_nt.desk",
    "trio_nt.exchange.book",
    "trio_nt.exchange.checks",
    "trio_nt.exchange.faults",
    "trio_nt.exchange.fees",
    "trio_nt.exchange.margin",
    "trio_nt.exchange.market",
    "trio_nt.exchange.matching",
    "trio_nt.exchange.records",
    "trio_nt.execution.orders",
    "trio_nt.features.board",
    "trio_nt.features.compiled",
    "trio_nt.features.interpreted",
    "trio_nt.features.kernels",
    "trio_nt.features.pipeline",
    "trio_nt.feeds.binance",
    "trio_nt.feeds.csv",
    "trio_nt.feeds.data",
    "trio_nt.feeds.merge",
    "trio_nt.http1",
    "trio_nt.model",
    "trio_nt.portfolio",
    "trio_nt.replay.driver",
    "trio_nt.replay.venue",
    "trio_nt.report",
    "trio_nt.risk.checks",
    "trio_nt.risk.core",
    "trio_nt.risk.exposure",
    "trio_nt.stamps",
    "trio_nt.strategies.requirements",
    "trio_nt.strategies.runner",
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path for folder in ("trio_nt", "scheduler") for path in sorted((ROOT / folder).rglob("*.py"))
}


def imports_of(source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that ``source`` imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            assert node.module is not None
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield node.lineno, submodule if submodule in SOURCES else node.module


def unit_of(module: str) -> str:
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == "trio_nt" and rest else first


def allowed(unit: str) -> list[str]:
    vocabulary = [] if unit in ("scheduler", "errors", "model") else ["errors", "model"]
    return vocabulary + LAYERS.get(unit, "").split()


def below(module: str, name: str) -> bool:
    return module == name or module.startswith(name + ".")


IMPORTS = [(module, line, name) for module, path in SOURCES.items() for line, name in imports_of(path.read_text())]


def test_units_import_what_the_table_allows() -> None:
    wrong = [
        f"{module}:{line} imports {name}"
        for module, line, name in IMPORTS
        if name.partition(".")[0] in ("trio_nt", "scheduler")
        and unit_of(name) != unit_of(module)
        and unit_of(name) not in allowed(unit_of(module))
    ]
    assert wrong == []


def test_the_table_names_every_unit() -> None:
    assert {unit_of(module) for module in SOURCES} - set(LAYERS) == set()


def test_the_library_uses_the_schedulers_public_names_alone() -> None:
    private = [
        f"{module}:{line} imports {name}"
        for module, line, name in IMPORTS
        if below(module, "trio_nt") and name.startswith("scheduler.")
    ]
    assert private == []


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_in_its_place_alone(package: str) -> None:
    wrong = [
        f"{module}:{line}"
        for module, line, name in IMPORTS
        if below(name, package) and not any(below(module, place) for place in ONLY_IN[package])
    ]
    assert wrong == []


@pytest.mark.parametrize("core", PURE)
def test_a_pure_core_imports_no_trio(core: str) -> None:
    wrong = [
        f"{module}:{line} imports {name}"
        for module, line, name in IMPORTS
        if below(module, core) and any(below(name, package) for package in ("trio", "scheduler", "httpx", "asyncio"))
        if not (below(core, "scheduler") and below(name, "scheduler"))
    ]
    assert wrong == []


def test_the_reader_sees_every_form_of_import() -> None:
    source = (
        "import trio_nt.risk.core as x\ndef f():\n    from trio_nt.model import money\n    from trio import sleep\n"
    )
    assert list(imports_of(source)) == [(1, "trio_nt.risk.core"), (3, "trio_nt.model.money"), (4, "trio")]
    assert [unit_of(name) for name in ("trio_nt.risk.core", "trio_nt", "scheduler.lanes")] == [
        "risk",
        "trio_nt",
        "scheduler",
    ]
