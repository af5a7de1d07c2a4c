"""The queries in the journal's reference run as they are pasted, and find what they say."""

import re
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from trio_nt.model.instruments import Side
from trio_nt.model.orders import BrokerUpdate, Execution, Liquidity, OrderRequest, UpdateKind
from trio_nt.storage import writer
from trio_nt.storage.durable import rows_of
from trio_nt.storage.journal import CancelIntent, HaltNote, Heard, OrderIntent, Record

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "journal.md").read_text()
QUERIES = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)
D = Decimal
EXECUTION = Execution("e-1", D("3"), D("10.5"), D("0.01"), "USD", Liquidity.TAKER)
RECORDS: list[Record] = [
    OrderIntent(OrderRequest("nt-1", "ABC", Side.BUY, D("5")), "s", "", 1_000_000, 2_000_000),
    OrderIntent(OrderRequest("nt-2", "ABC", Side.SELL, D("5")), "s", "", 1_000_000, 2_000_000),
    Heard(BrokerUpdate(UpdateKind.ACCEPTED, "nt-1", "b", "ABC", 3_000_000), 5_000_000),
    Heard(BrokerUpdate(UpdateKind.PARTIALLY_FILLED, "nt-1", "b", "ABC", 6_000_000, EXECUTION), 7_000_000),
    CancelIntent("nt-1", 8_000_000),
    Heard(BrokerUpdate(UpdateKind.CANCELLED, "nt-1", "b", "ABC", 9_000_000), 9_000_000),
    HaltNote(True, "enough", 10_000_000),
]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "j.sqlite"
    with closing(writer.connect(str(path))) as database:
        for sequence, record in enumerate(RECORDS, 1):
            for table, row in rows_of(record, sequence):
                database.execute(writer.INSERT[table], row)
    return path


def test_every_query_gives_what_it_promises(journal: Path) -> None:
    with closing(sqlite3.connect(journal)) as database:
        found: list[Any] = [database.execute(query).fetchall() for query in QUERIES]
    assert found == [
        [("1970-01-01 00:00:00", "s", "ABC", "buy", "3", "10.5", "0.01", "USD")],
        [
            (1, "intended", ""),
            (3, "accepted", ""),
            (4, "partially filled", ""),
            (5, "cancel intended", ""),
            (6, "cancelled", ""),
        ],
        [("nt-2", "s", "ABC", "sell", "5", None)],
        [("1970-01-01", "s", 1, 0.01, "USD")],
        [("nt-1", 3.0)],
        [("1970-01-01 00:00:00", 1, "enough")],
    ]


def test_every_table_and_column_is_described(journal: Path) -> None:
    described = {
        name: re.findall(r"`(\w+)`", columns)
        for name, columns in re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", TEXT, re.MULTILINE)
    }
    with closing(sqlite3.connect(journal)) as database:
        tables = [
            name
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not name.startswith("sqlite_")
        ]
        for table in tables:
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            assert described[table][: len(columns)] == columns, table
