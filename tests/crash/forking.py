"""What every trader's program is: a process that forks a trader for each connection, so that one is there at once.

Run as ``python PROGRAM SOCKET``: a connection's first line says what to do (a ``Task`` as JSON), what the trader says
comes back, and the connection ends when the trader and its journal's writer are dead.
"""

import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal

import attrs
import trio

from trio_nt.errors import JournalError
from trio_nt.execution.orders import OrderTable
from trio_nt.execution.recovery import Reconciliation
from trio_nt.model.orders import OrderRequest


@attrs.frozen
class Task:
    """``die`` is a broker's method, when, and how often it may be called first: ``submit before 3``. ``clock_s`` is
    added to the wall clock. ``environment`` is for the journal's writer. ``fills`` are what a whole engine books in the
    life in which it settles, before it does.
    """

    url: str
    folder: str
    settle: bool = False
    fills: int = 20
    die: str = ""
    kill_first: bool = False
    lock_wait_s: float = 10.0
    clock_s: float = 0.0
    environment: dict[str, str] = attrs.field(factory=dict)

    def now_ns(self) -> int:
        return time.time_ns() + int(self.clock_s * 1e9)


class Doomed:
    """A broker with which the process dies before or after a certain call. What then never left it says first.

    The journal's writer dies at the same moment: nothing counts but what was durable by then.
    """

    def __init__(self, broker: object, die: str) -> None:
        self._broker = broker
        self._method, self._when, left = die.split()
        self._left = int(left)

    def __getattr__(self, name: str) -> object:
        found = getattr(self._broker, name)
        if name != self._method:
            return found

        async def call(*arguments: object, **options: object) -> object:
            self._left -= 1
            if self._left < 0 and self._when == "before":
                if isinstance(arguments[0] if arguments else None, OrderRequest):
                    print(f"unsent {arguments[0].client_order_id}", flush=True)
                os.killpg(0, signal.SIGKILL)
            answer = await found(*arguments, **options)
            if self._left < 0:
                os.killpg(0, signal.SIGKILL)
            return answer

        return call


def truth(table: OrderTable, positions: dict[str, Decimal], history: Iterable[Reconciliation]) -> dict[str, object]:
    """What a trader knows of its orders and positions, and what its comparisons with the broker found."""
    found = list(history)
    return {
        "orders": {order.client_order_id: [order.state.value, plain(order.filled_quantity)] for order in table},
        "positions": {instrument: plain(quantity) for instrument, quantity in positions.items() if quantity},
        "differences": [[name, str(amount)] for result in found for name, amount in result.differences],
        "halted": [result.halted for result in found if result.halted],
    }


def plain(quantity: Decimal) -> str:
    return format(quantity.normalize(), "f")


def serve(path: str, main: Callable[[Task], Awaitable[None]]) -> None:
    """Fork a trader for each connection."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    run(connection, main)


def run(connection: socket.socket, main: Callable[[Task], Awaitable[None]]) -> None:
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        with connection.makefile("r") as lines:
            task = Task(**json.loads(lines.readline()))
        os.environ.update(task.environment)
        os.dup2(connection.fileno(), 1)
        connection.close()
        print(f"pid {os.getpid()}", flush=True)
        try:
            trio.run(main, task)
        except* JournalError as group:
            print(f"refused: {group.exceptions[0]}", flush=True)
        status = 0
    except Exception:  # noqa: BLE001 - the test reads it
        traceback.print_exc()
    finally:
        os._exit(status)
