"""The venue's log: durable before anybody is told, and all that a venue needs to go on."""

import json
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from trio_nt.errors import EnvironmentFailure
from trio_nt.exchange import statelog
from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.server import serve_exchange
from trio_nt.exchange.statelog import FILE, open_log
from trio_nt.websocket import WebSocket, connect

KEYS = {"APCA-API-KEY-ID": "sim", "APCA-API-SECRET-KEY": "sim"}
ORDER = {"symbol": "ALBA", "qty": 10, "side": "buy", "type": "market", "time_in_force": "day"}
RESTING = ORDER | {"type": "limit", "limit_price": "1.00", "time_in_force": "gtc"}


@asynccontextmanager
async def venue(folder: Path, **settings: object) -> AsyncIterator[httpx.AsyncClient]:
    """A venue on this folder's log, and a client of it."""
    config = ExchangeConfig(**({"events_per_second": 1_000, "state": folder} | settings))  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        port = await nursery.start(partial(serve_exchange, config, now_ns=time.time_ns))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=KEYS, trust_env=False) as client:
            yield client
        nursery.cancel_scope.cancel()


async def listen(client: httpx.AsyncClient) -> WebSocket:
    stream = await connect(f"ws://127.0.0.1:{client.base_url.port}/stream")
    await stream.send(b'{"action":"authenticate","data":{"key_id":"sim","secret_key":"sim"}}')
    await stream.send(b'{"action":"listen","data":{"streams":["trade_updates"]}}')
    heard = 0
    while heard < 2:
        heard += len(await stream.receive())
    return stream


async def told(client: httpx.AsyncClient) -> dict[str, object]:
    paths = ("orders?status=all&limit=500", "positions", "account/activities/FILL")
    answers = {path: (await client.get(f"/v2/{path}")).json() for path in paths}
    for position in answers["positions"]:  # these move with the market
        for key in ("market_value", "unrealized_pl", "unrealized_plpc", "current_price"):
            del position[key]
    account = (await client.get("/v2/account")).json()
    return answers | {key: account[key] for key in ("id", "cash", "accrued_fees", "created_at")}


async def test_a_venue_goes_on_where_the_last_one_ended(tmp_path):
    async with venue(tmp_path) as client:
        for number in range(5):
            await client.post("/v2/orders", json=ORDER | {"client_order_id": f"filled-{number}"})
        resting = (await client.post("/v2/orders", json=RESTING | {"client_order_id": "resting"})).json()
        await client.patch(f"/v2/orders/{resting['id']}", json={"qty": 7})
        other = (await client.post("/v2/orders", json=RESTING | {"client_order_id": "cancelled"})).json()
        await client.delete(f"/v2/orders/{other['id']}")
        stop = ORDER | {"type": "stop", "stop_price": "10000", "client_order_id": "stop"}
        await client.post("/v2/orders", json=stop)
        before = await told(client)
    async with venue(tmp_path) as client:
        assert await told(client) == before
        again = await client.post("/v2/orders", json=ORDER | {"client_order_id": "filled-0"})
        assert (again.status_code, again.json()["code"]) == (422, 40010001)
        new = (await client.post("/v2/orders", json=ORDER)).json()
        links = (await client.get("/v2/orders?status=all&limit=500")).json()
        found = (await client.get("/v2/orders:by_client_order_id?client_order_id=resting")).json()
        assert (found["status"], found["qty"], found["replaces"]) == ("new", "7", resting["id"])
        assert (await client.delete(f"/v2/orders/{found['id']}")).status_code == 204
    ids = [link["id"] for link in links]
    assert len(set(ids)) == len(ids) == len(before["orders?status=all&limit=500"]) + 1  # type: ignore[arg-type]
    assert new["id"] in ids


async def test_ids_do_not_repeat_after_any_number_of_restarts(tmp_path):
    ids, executions = [], []
    for _ in range(4):
        async with venue(tmp_path) as client:
            ids += [(await client.post("/v2/orders", json=ORDER)).json()["id"] for _ in range(3)]
            fills = (await client.get("/v2/account/activities/FILL")).json()
            executions = [fill["id"].rpartition("::")[2] for fill in fills]
    assert len(set(ids)) == len(ids) == 12
    assert len(set(executions)) == len(executions) == 12


async def test_nobody_is_told_before_the_disk_has_it(tmp_path, monkeypatch):
    disk, synced = threading.Event(), os.fsync
    disk.set()

    def slow_sync(descriptor: int) -> None:
        assert disk.wait(20)
        synced(descriptor)

    monkeypatch.setattr(statelog.os, "fsync", slow_sync)
    async with venue(tmp_path) as client:
        await client.post("/v2/orders", json=ORDER)  # answered: nothing is on its way to the disk any more
        before = (tmp_path / FILE).read_bytes().count(b"\n")
        stream = await listen(client)
        disk.clear()
        answers: list[int] = []

        async def post() -> None:
            answers.append((await client.post("/v2/orders", json=ORDER, timeout=30)).status_code)

        async def read() -> None:
            answers.append(len(await stream.receive()))

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(post)
                nursery.start_soon(read)
                with trio.fail_after(60):  # it was accepted and filled, and is on its way to the disk
                    while (tmp_path / FILE).read_bytes().count(b"\n") < before + 2:
                        await trio.sleep(0.01)
                await trio.sleep(0.05)
                assert answers == []
                disk.set()
            assert 200 in answers
        finally:
            disk.set()
            await stream.close()


async def test_a_disk_that_refuses_ends_the_venue_and_nothing_was_answered(tmp_path, monkeypatch):
    def failing(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with pytest.RaisesGroup(EnvironmentFailure, flatten_subgroups=True):
        async with venue(tmp_path) as client:
            await client.post("/v2/orders", json=ORDER | {"client_order_id": "good"})
            monkeypatch.setattr(statelog.os, "fsync", failing)
            with pytest.raises(httpx.HTTPError):
                await client.post("/v2/orders", json=ORDER | {"client_order_id": "bad"})
            await trio.sleep_forever()


def test_a_torn_last_line_was_never_told_and_is_cut_off(tmp_path):
    open_log(tmp_path).close()
    whole = b'{"kind":"opened","ts":1,"seed":1,"cash":"5"}\n'
    for torn in range(len(whole) - 1):
        (tmp_path / FILE).write_bytes(whole + whole[:torn])
        log = open_log(tmp_path)
        assert len(log.records) == 1
        log.close()
        assert (tmp_path / FILE).read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"nonsense\n", "line 2"),
        (b"\xff\n", "line 2"),
        (b'{"kind":"filled"}\n', "line 2"),
        (b'{"kind":"filled","ts":2,"order":"x"}\n', "line 2: filled does not fit"),
        (b'{"kind":"accepted","ts":2,"order":"x","symbol":"NONE","qty":"1"}\n', "line 2: accepted does not fit"),
        (b'{"kind":"odd","ts":2}\n', "line 2: odd does not fit"),
    ],
)
async def test_a_damaged_log_is_refused_by_its_line(tmp_path, line, why):
    good = b'{"kind":"opened","ts":1,"seed":1,"cash":"100000"}\n'
    (tmp_path / FILE).write_bytes(good + line + good)
    with pytest.raises(EnvironmentFailure, match=why):
        await serve_exchange(ExchangeConfig(state=tmp_path), now_ns=time.time_ns)
    assert (tmp_path / FILE).read_bytes() == good + line + good


async def test_a_log_is_used_by_one_venue_at_a_time_and_by_the_same_account(tmp_path):
    async with venue(tmp_path):
        with pytest.raises(EnvironmentFailure, match="in use by another venue"):
            await serve_exchange(ExchangeConfig(state=tmp_path), now_ns=time.time_ns)
    with pytest.raises(EnvironmentFailure, match="began with cash=100000; cash=5 needs another folder"):
        await serve_exchange(ExchangeConfig(state=tmp_path, cash=5), now_ns=time.time_ns)
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFailure, match="cannot be opened"):
        await serve_exchange(ExchangeConfig(state=tmp_path / "file"), now_ns=time.time_ns)


async def test_a_clock_that_was_set_back_does_not_bring_the_past_out_of_order(tmp_path):
    async with venue(tmp_path) as client:
        await client.post("/v2/orders", json=ORDER)
    config = ExchangeConfig(state=tmp_path, events_per_second=1_000)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(partial(serve_exchange, config, now_ns=lambda: time.time_ns() - 3_600 * 10**9))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=KEYS, trust_env=False) as client:
            await client.post("/v2/orders", json=ORDER)
        nursery.cancel_scope.cancel()
    times = [json.loads(line)["ts"] for line in (tmp_path / FILE).read_bytes().splitlines()]
    assert times == sorted(times)


async def test_each_line_says_what_happened(tmp_path):
    async with venue(tmp_path, partial_fills=0.999) as client:
        await client.post("/v2/orders", json=ORDER | {"client_order_id": "a", "time_in_force": "ioc"})
    lines = [json.loads(line) for line in (tmp_path / FILE).read_bytes().splitlines()]
    assert [line["kind"] for line in lines] == ["opened", "accepted", "partially filled", "cancelled"]
    assert {line["order"] for line in lines[1:]} == {lines[1]["order"]}
    assert 0 < int(lines[2]["qty"]) < 10
