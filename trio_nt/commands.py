"""The commands of ``trio-nt``. Each imports what it needs when it runs, so that ``--help`` is quick."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from trio_nt.report import Report
    from trio_nt.strategies.base import Strategy

app = App(
    name="trio-nt",
    help="An event-driven trading engine on Trio: replay recorded markets, trade a simulated or a real one.",
    help_format="plaintext",
    usage="Usage: trio-nt COMMAND [OPTIONS]",
    version=lambda: _version(),
)

Strategies = Annotated[
    list[str] | None,
    Parameter(
        name="--strategy",
        negative=(),
        help="FILE.py:CLASS or MODULE:CLASS, searched in the current folder. May be repeated. "
        "Without it: the example EMA crossover.",
    ),
]
Settings = Annotated[
    list[str] | None,
    Parameter(
        name="--set",
        negative=(),
        help="KEY=VALUE sets a field of every strategy that has it, CLASS.KEY=VALUE of that class alone. "
        "May be repeated.",
    ),
]
Json = Annotated[Path | None, Parameter(name="--json", help="Write the report as JSON to this file.")]
Orders = Annotated[
    Path | None,
    Parameter(name="--orders", help="Write every order and every fill to this CSV file: times, status, prices, fees."),
]
Cash = Annotated[
    str | None,
    Parameter(
        name="--cash",
        help="What the account starts with: USDT=100000,BTC=1, or one number for every settlement currency.",
    ),
]


@app.command(usage="Usage: trio-nt run [CONFIG.toml] [OPTIONS]")
def run(
    config: Annotated[Path | None, Parameter(help="A TOML file; see the documentation of trio_nt.config.")] = None,
    /,
    *,
    for_seconds: Annotated[
        float | None, Parameter(name="--for", help="Stop after this many seconds. Without it: at Ctrl-C.")
    ] = None,
    strategy: Strategies = None,
    settings: Settings = None,
    broker: Annotated[
        str | None, Parameter(name="--broker", help="sim (the default), alpaca-paper or alpaca-live.")
    ] = None,
    seed: Annotated[int | None, Parameter(help="Seed of the simulated market. Default 1.")] = None,
    cash: Cash = None,
    journal: Annotated[
        Path | None,
        Parameter(
            name="--journal",
            help="The SQLite file that orders are recorded in before they leave. Without it: one for each account, and "
            "a new one for each simulated market, in your folder for state.",
        ),
    ] = None,
    orders: Orders = None,
    json: Json = None,
) -> int:
    """Trade: by default for a demo, in a simulated market that it starts by itself.

    Ctrl-C ends it with the report; a second Ctrl-C ends it at once. SIGUSR1 is the kill switch, SIGUSR2 closes every
    position besides; `trio-nt kill` does the same from outside.
    """
    from trio_nt.interrupt import stop_on_interrupt
    from trio_nt.live import run as run_engine
    from trio_nt.options import check_writable
    from trio_nt.progress import progress_line
    from trio_nt.run_options import run_config

    check_writable("--orders", orders)
    check_writable("--json", json)
    chosen = run_config(config, for_seconds, strategy, settings, broker, seed, cash, journal)
    with stop_on_interrupt() as stop, progress_line() as show:
        report = run_engine(chosen, stop=stop, progress=show)
    return _finish(report, orders, json)


@app.command(usage="Usage: trio-nt replay FILE... [OPTIONS]")
def replay(
    *files: Annotated[Path, Parameter(help="Binance captures and CSV files, plain or gzip, merged by time.")],
    strategy: Strategies = None,
    settings: Settings = None,
    instruments: Annotated[
        Path | None, Parameter(help="A TOML file that describes the instruments. Without it they are inferred.")
    ] = None,
    cash: Cash = None,
    fees: Annotated[
        str | None,
        Parameter(help="Fraction of the notional, or MAKER,TAKER, instead of the instruments' own (0.001 is 0.1 %)."),
    ] = None,
    order_latency_ms: Annotated[float, Parameter(help="From the market event to the exchange.")] = 5.0,
    report_latency_ms: Annotated[float, Parameter(help="From the exchange to the strategy.")] = 5.0,
    time_unit: Annotated[str | None, Parameter(help="Of numeric CSV times: s, ms, us or ns.")] = None,
    bar_time: Annotated[str | None, Parameter(help="What CSV bars are stamped with: open or close.")] = None,
    check_causality: Annotated[
        bool, Parameter(negative=(), help="Replay a second time, event by event, and compare the orders.")
    ] = False,
    orders: Orders = None,
    json: Json = None,
) -> int:
    """Replay recorded market data: the same data and settings give the same orders, every time.

    Ctrl-C ends it with the report of what was replayed; a second Ctrl-C ends it at once.
    """
    from trio_nt.errors import InputError
    from trio_nt.interrupt import stop_on_interrupt
    from trio_nt.options import check_writable, parse_cash, parse_fees, seconds_of
    from trio_nt.progress import progress_line
    from trio_nt.replay import replay as run_replay

    if not files:
        raise InputError("replay needs at least one FILE; `trio-nt sample FILE.csv` writes one")
    check_writable("--orders", orders)
    check_writable("--json", json)
    strategies = _strategies(strategy, settings)
    with stop_on_interrupt() as stop, progress_line() as show:
        report = run_replay(
            files,
            strategies,
            instruments=instruments,
            cash=parse_cash(cash),
            fees=parse_fees(fees),
            order_latency_s=seconds_of("--order-latency-ms", order_latency_ms),
            report_latency_s=seconds_of("--report-latency-ms", report_latency_ms),
            time_unit=time_unit,
            bar_time=bar_time,
            check_causality=check_causality,
            progress=lambda rows, at_ns: show(f"{rows:,} market events, at {_utc(at_ns)}"),
            stop=lambda: stop.requested,
        )
    return _finish(report, orders, json)


@app.command
def exchange(
    *,
    port: Annotated[int, Parameter(help="Where to listen on 127.0.0.1; 0 takes any free port.")] = 8765,
    seed: Annotated[int, Parameter(help="Of the market: the same seed gives the same prices.")] = 1,
    events_per_second: Annotated[float, Parameter(help="Of all instruments together.")] = 10_000.0,
    for_seconds: Annotated[
        float | None, Parameter(name="--for", help="Stop after this many seconds. Without it: at Ctrl-C.")
    ] = None,
    cash: Annotated[float, Parameter(help="What the account starts with, in US dollars.")] = 100_000.0,
    state: Annotated[
        Path | None, Parameter(help="A folder for the venue's log: started again on it, the venue goes on.")
    ] = None,
    partial_fills: Annotated[float, Parameter(help="Share of executions that fill only a part of their order.")] = 0.0,
    faults: Annotated[
        str | None, Parameter(help="What goes wrong on purpose: FILE.toml, or drop_response=0.1,error=0.05.")
    ] = None,
) -> int:
    """Run the simulated venue alone: a seeded market with orders over HTTP and streams, in Alpaca's dialect."""
    from trio_nt.errors import InputError
    from trio_nt.exchange.config import ExchangeConfig
    from trio_nt.exchange.faults import FaultSettings, read_faults
    from trio_nt.exchange.process import run_exchange
    from trio_nt.model.money import to_decimal
    from trio_nt.options import positive

    try:
        config = ExchangeConfig(
            port=port,
            seed=seed,
            events_per_second=events_per_second,
            duration_s=positive("--for", for_seconds),
            cash=to_decimal(cash),
            state=state,
            partial_fills=partial_fills,
            faults=FaultSettings() if faults is None else read_faults(faults),
        )
    except ValueError as error:
        raise InputError(f"exchange: {error.args[0]}") from error
    run_exchange(config)
    return 0


@app.command
def kill(
    *,
    flatten: Annotated[bool, Parameter(negative=(), help="Close every position at the market as well.")] = False,
    broker: Annotated[
        str | None, Parameter(name="--broker", help="alpaca-paper or alpaca-live, whether an engine runs or not.")
    ] = None,
    journal: Annotated[
        Path | None, Parameter(name="--journal", help="The journal of the account. Without it: the engine's that runs.")
    ] = None,
    reason: Annotated[str, Parameter(help="Written into the journal.")] = "kill switch",
    release: Annotated[
        bool, Parameter(negative=(), help="Do not stop anything: let the next engine on a HALTED journal trade again.")
    ] = False,
) -> int:
    """Stop trading on an account: mark its journal HALTED and cancel every order, straight at the broker.

    Works from its own process, also when the engine hangs or is gone. Exit code 1 when something was left open.
    """
    from trio_nt import kill_command
    from trio_nt.errors import InputError

    if release:
        if flatten or broker:
            raise InputError("--release goes with --journal and --reason alone")
        sys.stdout.write(kill_command.release(journal, "released" if reason == "kill switch" else reason))
        return 0
    target = kill_command.find_target(broker, journal)
    result = kill_command.run_kill(target, flatten=flatten, reason=reason)
    sys.stdout.write(kill_command.format_result(result))
    return 0 if result.is_complete else 1


@app.command(usage="Usage: trio-nt init FILE.py")
def init(file: Annotated[Path, Parameter(help="Where to write the strategy, for example my_strategy.py.")], /) -> int:
    """Write a strategy and its test, both working, to start from."""
    from trio_nt.scaffold import write_strategy

    strategy, test = write_strategy(file)
    sys.stdout.write(
        f"wrote {strategy} and {test}; now try\n"
        f"  python -m pytest {test}\n"
        f"  trio-nt sample sample.csv\n"
        f"  trio-nt replay sample.csv --strategy {strategy}:Crossover\n"
        f"  trio-nt run --for 20 --strategy {strategy}:Crossover\n"
    )
    return 0


@app.command(usage="Usage: trio-nt sample FILE.csv")
def sample(file: Annotated[Path, Parameter(help="Where to write it.")], /) -> int:
    """Write a CSV file of sample quotes, to replay or to copy the form of."""
    from trio_nt.feeds.sample import write_sample

    write_sample(file)
    sys.stdout.write(f"{file} holds sample quotes; now try\n  trio-nt replay {file}\n")
    return 0


@app.command(usage="Usage: trio-nt bench [NAME...] [--quick] [--json FILE]")
def bench(
    *names: Annotated[str, Parameter(help="Which benchmarks; all without it.")],
    quick: Annotated[bool, Parameter(negative=(), help="A smoke test: fewer runs, no figures to rely on.")] = False,
    json: Annotated[Path | None, Parameter(name="--json", help="Write the rows as JSON to this file.")] = None,
) -> int:
    """Run the benchmarks of the source repository; run it in the repository's folder."""
    from trio_nt.bench import run_benchmarks
    from trio_nt.options import check_writable

    check_writable("--json", json)
    return run_benchmarks(names, quick=quick, json_file=json)


@app.command
def doctor() -> int:
    """Check this machine and installation; say what is wrong and what to do."""
    from trio_nt.doctor import examine

    return examine(sys.stdout)


def _strategies(specifications: Sequence[str] | None, settings: Sequence[str] | None) -> "list[Strategy]":
    from trio_nt.run_options import strategies_of

    return strategies_of(specifications, settings)


def _finish(report: "Report", orders: Path | None, json: Path | None) -> int:
    """Show the report, write the files asked for; 1 when a check is broken or a strategy failed."""
    from trio_nt.options import write_result

    sys.stdout.write(report.format(colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ))
    sys.stdout.flush()
    write_result("--orders", orders, report.orders_csv() if orders else "")
    write_result("--json", json, report.as_json() if json else "")
    return 0 if report.ok else 1


def _utc(at_ns: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _version() -> str:
    from trio_nt import __version__

    return __version__
