"""The simulated venue's own figures.

    in this process:   seeded market ─► matching (─► rows as JSON for one client)
    in two processes:  raw client, so many connections ─► venue (HTTP on loopback)

The first says how much of a core the venue's market takes at 10,000 events/s, the second how many orders a second it
can answer at most; ``log`` is with every order on the disk first.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal

from benchmarks.harness import Row, main, median_of
from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.streams import EncodedRows
from trio_nt.exchange.venue import Venue
from trio_nt.model.actions import OrderType
from trio_nt.model.instruments import Side
from trio_nt.model.orders import OrderRequest

RATE = 10_000
START_NS = 1_700_000_000_000_000_000
_ONE = Decimal(1)
_HEAD = b"POST /v2/orders HTTP/1.1\r\nHost: venue\r\nAPCA-API-KEY-ID: sim\r\nAPCA-API-SECRET-KEY: sim\r\n"


def share_of_a_core(seconds: float, *, resting: int, encode: bool) -> float:
    """Processor time of the market's steps over the time that they stand for."""
    now = START_NS
    venue = Venue(ExchangeConfig(events_per_second=RATE, cash=10**12), lambda: now)
    for number in range(resting):
        symbol = venue.symbols[number % len(venue.symbols)]
        request = OrderRequest(f"r{number}", symbol, Side.BUY, _ONE, OrderType.LIMIT, _ONE)
        venue.exchange.submit(request, now)
    steps = int(seconds * 1e9) // venue.config.step_ns
    start = time.process_time()
    for _ in range(steps):
        now += venue.config.step_ns
        columns = venue.step(now)
        if encode and columns is not None:
            EncodedRows(columns, venue.symbols).all()
        venue.market.prepare()
    spent = time.process_time() - start
    assert abs(venue.events_made / (RATE * seconds) - 1) < 0.2
    return spent / seconds


@contextmanager
def venue_process(**settings: object) -> Iterator[int]:
    """The venue in its own process; its port."""
    known = {"events_per_second": 100, "cash": str(10**12), "requests_per_minute": 10**9, **settings}
    command = [sys.executable, "-m", "trio_nt.exchange", json.dumps(known)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline().rpartition(":")[2])
        finally:
            process.kill()


def answer(connection: socket.socket) -> bytes:
    """One response, whole."""
    content = b""
    while b"\r\n\r\n" not in content:
        content += connection.recv(65_536)
    head, _, body = content.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65_536)
    assert head.startswith(b"HTTP/1.1 200"), content
    return body


def orders_per_second(port: int, connections: int, rounds: int, run: str) -> float:
    """Market orders over so many connections, one under way on each; every one is answered as filled."""
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(connections)]
        for connection in opened:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = time.perf_counter()
        for number in range(rounds):
            for index, connection in enumerate(opened):
                side = ("buy", "sell")[number % 2]
                body = (
                    f'{{"symbol":"ALBA","qty":"1","side":"{side}","type":"market","time_in_force":"day",'
                    f'"client_order_id":"{run}-{number}-{index}"}}'
                ).encode()
                connection.sendall(_HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            for connection in opened:
                assert b'"status":"filled"' in answer(connection)
        return connections * rounds / (time.perf_counter() - start)


def cases(quick: bool) -> Iterator[Row]:
    runs, seconds, orders = (1, 1.0, 400) if quick else (7, 5.0, 4_000)
    for case, resting, encode in (
        ("market and matching", 0, False),
        ("market and matching, 200 resting orders", 200, False),
        ("market, matching and rows as JSON", 0, True),
    ):
        share = median_of(lambda r=resting, e=encode: share_of_a_core(seconds, resting=r, encode=e), runs=runs)  # type: ignore[misc]
        yield Row(f"{case}, {RATE:,} events/s", "share of a core", 100 * share, "%")
    with tempfile.TemporaryDirectory() as folder:
        for case, settings in (("orders", {}), ("orders, log", {"state": folder})):
            with venue_process(**settings) as port:
                for connections in (1, 20):
                    number = iter(range(1000))
                    rate = median_of(
                        lambda p=port, c=connections, n=number: orders_per_second(p, c, orders // c, f"{c}-{next(n)}"),  # type: ignore[misc]
                        runs=runs,
                    )
                    yield Row(f"{case}, {connections} under way", "answered", rate, "orders/s", at_most=False)


if __name__ == "__main__":
    raise SystemExit(main("venue", cases))
