"""The writer forgets orders that are long over, and nothing else."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from trio_nt.model.instruments import Side
from trio_nt.model.orders import BrokerUpdate, Execution, Liquidity, OrderRequest, UpdateKind
from trio_nt.storage import writer
from trio_nt.storage.durable import rows_of, rows_of_summary
from trio_nt.storage.journal import CancelIntent, Carried, Heard, HeldPosition, OrderIntent, Record

D = Decimal
DAY_NS = 86_400 * 10**9
TABLES = ("orders", "requests", "updates", "executions")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(writer.connect(str(tmp_path / "j.sqlite"))) as opened:
        yield opened


def write(database: sqlite3.Connection, records: list[Record]) -> None:
    (start,) = database.execute(
        "SELECT COALESCE(MAX(sequence), 0) FROM (SELECT sequence FROM orders UNION ALL SELECT sequence FROM updates "
        "UNION ALL SELECT sequence FROM requests)"
    ).fetchone()
    for sequence, record in enumerate(records, start + 1):
        for table, row in rows_of(record, sequence):
            database.execute(writer.INSERT[table], row)


def sum_up(database: sqlite3.Connection, ts_ns: int, sequence: int = 10**9) -> None:
    for table in ("carried", "carried_positions", "carried_money"):
        database.execute(f"DELETE FROM {table}")
    held = HeldPosition("s", "ABC", D(1), D(10))
    for table, row in rows_of_summary(Carried((held,), (), ts_ns), sequence):
        database.execute(writer.INSERT[table], row)


def filled(order_id: str, ts: int) -> list[Record]:
    execution = Execution(f"e-{order_id}", D(1), D(10), D(0), "USD", Liquidity.TAKER)
    return [
        OrderIntent(OrderRequest(order_id, "ABC", Side.BUY, D(1)), "s", "", ts, ts),
        CancelIntent(order_id, ts),
        Heard(BrokerUpdate(UpdateKind.FILLED, order_id, "b", "ABC", ts, execution), ts),
    ]


def resting(order_id: str, ts: int) -> list[Record]:
    return [
        OrderIntent(OrderRequest(order_id, "ABC", Side.BUY, D(1)), "s", "", ts, ts),
        Heard(BrokerUpdate(UpdateKind.ACCEPTED, order_id, "b", "ABC", ts), ts),
    ]


def left(database: sqlite3.Connection) -> list[str]:
    return [row[0] for row in database.execute("SELECT client_order_id FROM orders ORDER BY sequence")]


def forget_all(database: sqlite3.Connection, keep_ns: int) -> int:
    """How many steps it took."""
    looked_at: int | None = 0
    steps = 0
    while looked_at is not None:
        looked_at = writer.forget(database, keep_ns, looked_at)
        steps += 1
    return steps


def test_what_is_long_over_goes_with_everything_about_it(database: sqlite3.Connection) -> None:
    write(database, [*filled("old", DAY_NS), *resting("open", DAY_NS), *filled("new", 9 * DAY_NS)])
    sum_up(database, 10 * DAY_NS)
    forget_all(database, 5 * DAY_NS)
    assert left(database) == ["open", "new"]
    counts = {table: database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in TABLES}
    assert counts == {"orders": 2, "requests": 1, "updates": 2, "executions": 1}


def test_without_a_summary_nothing_goes(database: sqlite3.Connection) -> None:
    write(database, filled("old", DAY_NS))
    forget_all(database, 1)
    assert left(database) == ["old"]


def test_what_the_summary_does_not_hold_stays(database: sqlite3.Connection) -> None:
    write(database, [*filled("old", DAY_NS), *filled("late", DAY_NS)])
    sum_up(database, 10 * DAY_NS, sequence=3)  # before anything of the second
    forget_all(database, DAY_NS)
    assert left(database) == ["late"]


def test_many_go_some_at_a_time(database: sqlite3.Connection) -> None:
    count = 2 * writer.FORGET_AT_ONCE + 1
    write(database, [record for number in range(count) for record in filled(f"o-{number}", DAY_NS)])
    sum_up(database, 10 * DAY_NS)
    assert forget_all(database, DAY_NS) == 3
    assert left(database) == []
