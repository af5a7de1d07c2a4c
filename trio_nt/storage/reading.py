"""What a journal's file says, read from any process, also while an engine writes it."""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from trio_nt.errors import JournalError
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.instruments import Side
from trio_nt.model.orders import BrokerUpdate, Execution, Liquidity, OrderRequest, UpdateKind
from trio_nt.storage import writer
from trio_nt.storage.journal import (
    CancelIntent,
    Carried,
    Heard,
    HeldMoney,
    HeldPosition,
    OrderIntent,
    Record,
    Recovered,
    ReplaceIntent,
)

RECOVERY = (
    "keep a copy of it and of its -wal file, move both away and start again; "
    "open orders and positions are then taken in from the broker as EXTERNAL"
)
# An order that was over for so long when the engine summed up is not read: no news of it is expected.
SETTLED_NS = 86_400 * 1_000_000_000
_UPDATES = (
    "SELECT updates.*, execution_id, quantity, price, fee, fee_currency, liquidity "
    "FROM updates LEFT JOIN executions USING (sequence)"
)
_Numbered = list[tuple[int, Record]]


def read_journal(path: Path) -> Recovered:
    """What a journal knows: everything since its last summary, and what was not long over then.

    Raises:
        JournalError: it is damaged or of another version; the message says how to recover.
    """
    with _opened(path) as database:
        (damage,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if damage != "ok":
            raise JournalError(f"the journal {path} cannot be trusted ({damage}): {RECOVERY}")
        version = _about(database).get("schema", "0")
        if version != str(writer.SCHEMA_VERSION):
            raise JournalError(f"the journal {path} is of version {version}, not {writer.SCHEMA_VERSION}")
        summed_up_to, carried = _summary(database)
        earlier, records = _read_records(database, summed_up_to, carried.ts_ns - SETTLED_NS)
        halted = writer.halted_because(database)
    last = records[-1][0] if records else summed_up_to
    return Recovered(_in_order(records), halted, last, _in_order(earlier), carried)


def read_about(path: Path) -> Mapping[str, str]:
    """What the file is: its ``account``, its ``broker``, its ``schema``.

    Raises:
        JournalError: it cannot be read.
    """
    with _opened(path) as database:
        return _about(database)


def halted_because(path: Path) -> str:
    """Why a journal is HALTED, empty when it is not.

    Raises:
        JournalError: it cannot be read.
    """
    with _opened(path) as database:
        return writer.halted_because(database)


def mark_halted(path: Path, reason: str, ts_ns: int, *, halted: bool = True) -> None:
    """Mark a journal HALTED (or release it) from any process, also while an engine uses it; durable on return.

    Raises:
        JournalError: it cannot be written.
    """
    try:
        with contextlib.closing(writer.connect(str(path))) as database:
            database.execute(writer.INSERT["halts"], (int(halted), reason, ts_ns))
    except sqlite3.Error as error:
        raise JournalError(f"the journal {path} cannot be marked: {error}") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        # Read-only: the last connection to close would bring the WAL into the file, also into a damaged one.
        address = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, timeout=5.0, uri=True)) as database:
            yield database
    except sqlite3.Error as error:
        raise JournalError(f"the journal {path} cannot be read ({error}): {RECOVERY}") from error


def _about(database: sqlite3.Connection) -> dict[str, str]:
    return dict(database.execute("SELECT key, value FROM about"))


def _summary(database: sqlite3.Connection) -> tuple[int, Carried]:
    row = database.execute("SELECT sequence, ts FROM carried").fetchone()
    if row is None:
        return 0, Carried()
    positions = tuple(
        HeldPosition(strategy_id, instrument, Decimal(quantity), Decimal(price))
        for strategy_id, instrument, quantity, price in database.execute("SELECT * FROM carried_positions")
    )
    money = tuple(
        HeldMoney(strategy_id, currency, *map(Decimal, amounts))
        for strategy_id, currency, *amounts in database.execute("SELECT * FROM carried_money")
    )
    return row[0], Carried(positions, money, row[1])


def _read_records(database: sqlite3.Connection, summed_up_to: int, settled_ns: int) -> tuple[_Numbered, _Numbered]:
    """Records up to the summary, and after it; not yet in order."""
    earlier: _Numbered = []
    records: _Numbered = []
    after = "WHERE sequence > ?"
    orders = f"SELECT * FROM orders {after} OR NOT COALESCE({writer.IS_OVER}, 0)"  # noqa: S608
    for row in database.execute(orders, (summed_up_to, settled_ns)):
        if row[0] > summed_up_to:
            records.append((row[0], _intent(row)))
            continue
        earlier.append((row[0], _intent(row)))
        about = (row[1], summed_up_to)
        of_order = "WHERE client_order_id = ? AND sequence <= ?"
        earlier += [(each[0], _request(each)) for each in database.execute(f"SELECT * FROM requests {of_order}", about)]  # noqa: S608
        earlier += [(each[0], _heard(each)) for each in database.execute(f"{_UPDATES} {of_order}", about)]
    since = (summed_up_to,)
    records += [(each[0], _request(each)) for each in database.execute(f"SELECT * FROM requests {after}", since)]  # noqa: S608
    records += [(each[0], _heard(each)) for each in database.execute(f"{_UPDATES} {after}", since)]
    records.sort(key=_sequence)
    return earlier, records


def _in_order(numbered: _Numbered) -> tuple[Record, ...]:
    return tuple(record for _, record in sorted(numbered, key=_sequence))


def _sequence(numbered: tuple[int, Record]) -> int:
    return numbered[0]


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _intent(row: tuple[Any, ...]) -> OrderIntent:
    (
        _, order_id, strategy_id, instrument, side, quantity, order_type, limit_price, stop_price,
        time_in_force, reduce_only, tag, ts_signal, ts_ns,
    ) = row  # fmt: skip
    request = OrderRequest(
        order_id, instrument, Side(side), Decimal(quantity), OrderType(order_type), _decimal(limit_price),
        _decimal(stop_price), TimeInForce(time_in_force), bool(reduce_only),
    )  # fmt: skip
    return OrderIntent(request, strategy_id, tag, ts_signal, ts_ns)


def _request(row: tuple[Any, ...]) -> Record:
    _, order_id, kind, quantity, limit_price, ts_ns = row
    if kind == "cancel":
        return CancelIntent(order_id, ts_ns)
    return ReplaceIntent(order_id, _decimal(quantity), _decimal(limit_price), ts_ns)


def _heard(row: tuple[Any, ...]) -> Heard:
    (
        _, order_id, broker_id, instrument, kind, ts_event, ts_ns, reason,
        execution_id, quantity, price, fee, fee_currency, liquidity,
    ) = row  # fmt: skip
    execution = None
    if execution_id is not None:
        execution = Execution(
            execution_id, Decimal(quantity), Decimal(price), Decimal(fee), fee_currency, Liquidity(liquidity)
        )
    return Heard(BrokerUpdate(UpdateKind(kind), order_id, broker_id, instrument, ts_event, execution, reason), ts_ns)
