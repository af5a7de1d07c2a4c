"""Engines under load are killed with SIGKILL at random moments. Afterwards the engine's journal is what the venue has:
no order lost, none doubled, no execution counted twice.
"""

import json
import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.server import serve_exchange

TRADER = Path(__file__).with_name("trader.py")
KILLS = int(os.environ.get("TRIO_NT_KILLS", "12"))
KEYS = {"APCA-API-KEY-ID": "sim", "APCA-API-SECRET-KEY": "sim"}


async def started(url: str, folder: Path, *options: str) -> trio.Process:
    process = await trio.lowlevel.open_process(
        [sys.executable, str(TRADER), url, str(folder), *options], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with trio.fail_after(30):
        line = b""
        while not line.endswith(b"\n"):
            chunk = await process.stdout.receive_some(1)
            assert chunk, "the trader died before it traded"
            line += chunk
    return process


async def settled(url: str, folder: Path) -> dict[str, Any]:
    process = await started(url, folder, "--settle")
    assert process.stdout is not None
    content = b"".join([bytes(chunk) async for chunk in process.stdout])
    assert await process.wait() == 0
    told: dict[str, Any] = json.loads(content)
    return told


async def of_venue(url: str) -> tuple[dict[str, list[str]], list[str], dict[str, str]]:
    """The venue's own account: orders by client order id, executions, positions."""
    async with httpx.AsyncClient(base_url=url, headers=KEYS, trust_env=False) as client:
        orders: dict[str, list[str]] = {}
        after = ""
        while True:
            page = (await client.get(f"/v2/orders?status=all&direction=asc&limit=500{after}")).json()
            for order in page:
                if order["status"] != "replaced":
                    assert order["client_order_id"] not in orders, "an order was doubled"
                    orders[order["client_order_id"]] = [order["status"], order["filled_qty"]]
            if len(page) < 500:
                break
            after = f"&after={page[-1]['submitted_at']}"
        executions: list[str] = []
        token = ""
        while True:
            page = (await client.get(f"/v2/account/activities/FILL?direction=asc&page_size=100{token}")).json()
            executions += [entry["id"].rpartition("::")[2] for entry in page]
            if len(page) < 100:
                break
            token = f"&page_token={page[-1]['id']}"
        positions = {entry["symbol"]: entry["qty"] for entry in (await client.get("/v2/positions")).json()}
    return orders, sorted(executions), positions


STATE_BY_STATUS = {"filled": "filled", "canceled": "cancelled", "rejected": "rejected", "expired": "expired"}


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_order_is_lost_or_doubled_whenever_the_engine_dies(tmp_path: Path) -> None:
    seed = int(os.environ.get("TRIO_NT_SEED", str(time.time_ns() % 100_000)))
    print(f"TRIO_NT_SEED={seed}")
    choose = random.Random(seed)
    async with trio.open_nursery() as nursery:
        config = ExchangeConfig(symbols=4, events_per_second=2000, cash=10**9, requests_per_minute=10**9)
        port = await nursery.start(partial(serve_exchange, config, now_ns=time.time_ns))
        url = f"http://127.0.0.1:{port}"
        for _ in range(KILLS):
            process = await started(url, tmp_path)
            await trio.sleep(choose.uniform(0, 0.4))
            process.kill()
            await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()
        told = await settled(url, tmp_path)
        orders, executions, positions = await of_venue(url)
        nursery.cancel_scope.cancel()
    check(told, orders, executions, positions)


def check(told: dict[str, Any], orders: dict[str, list[str]], executions: list[str], positions: dict[str, str]) -> None:
    assert told["halted"] == []
    assert told["differences"] == []
    assert told["executions"] == executions
    assert len(set(executions)) == len(executions)
    assert told["positions"] == positions
    assert orders.keys() <= told["orders"].keys()  # nothing is at the venue that the journal does not know
    for order_id, (state, filled) in told["orders"].items():
        if order_id in orders:
            status, venue_filled = orders[order_id]
            assert (STATE_BY_STATUS[status], venue_filled) == (state, filled), order_id
        else:  # journalled, and the engine died before it left, or the venue refused it
            assert (state, filled) in (("abandoned", "0"), ("rejected", "0")), order_id
    assert len(orders) > 0
