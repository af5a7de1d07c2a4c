"""The venue over real sockets: httpx and websockets as its clients."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import httpx
import pytest
import trio
import trio.testing
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.trio.client import connect as connect_websocket
from websockets.uri import parse_uri

from trio_nt.errors import EnvironmentFailure
from trio_nt.exchange import server
from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.server import serve_exchange
from trio_nt.websocket import ConnectionFailed, WebSocket, connect

KEYS = {"APCA-API-KEY-ID": "sim", "APCA-API-SECRET-KEY": "sim"}
ORDER = {"symbol": "ALBA", "qty": 10, "side": "buy", "type": "market", "time_in_force": "day"}
AUTH = b'{"action":"auth","key":"sim","secret":"sim"}'
ALL = b'{"action":"subscribe","quotes":["*"],"trades":["*"]}'
NONE = b'{"action":"unsubscribe","quotes":["*"],"trades":["*"]}'


@asynccontextmanager
async def venue(**settings: object) -> AsyncIterator[int]:
    """A venue on a free port; its number."""
    config = ExchangeConfig(**({"events_per_second": 2_000} | settings))  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(serve_exchange, config, now_ns=time.time_ns))
        nursery.cancel_scope.cancel()


def client(port: int, **options: object) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=KEYS, **options)  # type: ignore[arg-type]


async def until(socket_, wanted) -> list:
    """Messages up to and including the first that is wanted."""
    seen = []
    while True:
        for content in await socket_.receive():
            seen.append(json.loads(content))
            if wanted(seen[-1]):
                return seen


# -- orders --


async def test_orders_over_http_and_their_updates_in_order():
    async with venue() as port, client(port) as http:
        stream = await connect(f"ws://127.0.0.1:{port}/stream")
        await stream.send(b'{"action":"authenticate","data":{"key_id":"sim","secret_key":"sim"}}')
        await stream.send(b'{"action":"listen","data":{"streams":["trade_updates"]}}')
        await until(stream, lambda message: message["stream"] == "listening")
        for number in range(3):
            response = await http.post("/v2/orders", json=ORDER | {"client_order_id": f"o{number}"})
            assert (response.status_code, response.json()["status"]) == (200, "filled")
            assert int(response.headers["X-RateLimit-Remaining"]) == 300_000 - number - 1
        duplicate = await http.post("/v2/orders", json=ORDER | {"client_order_id": "o0"})
        assert (duplicate.status_code, duplicate.json()["code"]) == (422, 40010001)
        updates = await until(stream, lambda message: message["data"]["order"]["filled_qty"] != "0" and last(message))
        told = [(message["data"]["order"]["client_order_id"], message["data"]["event"]) for message in updates]
        assert told == [(f"o{number}", event) for number in range(3) for event in ("new", "fill")]
        fill = updates[-1]["data"]
        assert (fill["position_qty"], fill["qty"], fill["liquidity"], fill["fee_currency"]) == (
            "30",
            "10",
            "taker",
            "USD",
        )
        await stream.close()


def last(message) -> bool:
    return message["data"]["order"]["client_order_id"] == "o2"


async def test_every_listener_hears_the_same():
    async with venue() as port, client(port) as http:
        streams = [await connect(f"ws://127.0.0.1:{port}/stream") for _ in range(3)]
        for stream in streams:
            await stream.send(b'{"action":"authenticate","data":{"key_id":"sim","secret_key":"sim"}}')
            await stream.send(b'{"action":"listen","data":{"streams":["trade_updates"]}}')
            await until(stream, lambda message: message["stream"] == "listening")
        await http.post("/v2/orders", json=ORDER)
        heard = [await until(stream, lambda message: message["data"]["event"] == "fill") for stream in streams]
        assert heard[0] == heard[1] == heard[2]
        for stream in streams:
            await stream.close()


async def test_wrong_keys():
    async with venue() as port, client(port) as http:
        response = await http.get("/v2/account", headers={"APCA-API-SECRET-KEY": "wrong"})
        assert (response.status_code, response.json()["code"]) == (401, 40110000)
        market = await connect(f"ws://127.0.0.1:{port}/v2/iex")
        await market.send(b'{"action":"auth","key":"sim","secret":"wrong"}')
        refusal = (await until(market, lambda message: message[0]["T"] == "error"))[-1]
        assert refusal == [{"T": "error", "code": 402, "msg": "auth failed"}]
        with pytest.raises(trio.EndOfChannel):
            await market.receive()
        await market.close()


async def test_requests_in_pieces_and_in_a_row_and_a_body_that_is_no_json():
    head = b"POST /v2/orders HTTP/1.1\r\nHost: x\r\nAPCA-API-KEY-ID: sim\r\nAPCA-API-SECRET-KEY: sim\r\n"
    async with venue() as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        for byte in head + b"Content-Length: 5\r\n\r\n{nope":
            await stream.send_all(bytes([byte]))
        answer = await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"request body format is invalid" in answer
        clock = b"GET /v2/clock HTTP/1.1\r\nHost: x\r\nAPCA-API-KEY-ID: sim\r\nAPCA-API-SECRET-KEY: sim\r\n\r\n"
        await stream.send_all(clock * 2)
        answers = b""
        while answers.count(b"is_open") < 2:
            answers += await stream.receive_some()
        assert answers.count(b"HTTP/1.1 200") == 2
        await stream.aclose()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"POST /v2/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 1_100_000, b"413"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000, b"431"),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", b"404"),
        (b"GET /stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", b"400"),
    ],
)
async def test_what_is_no_request_is_refused_and_the_connection_closed(sent, status):
    async with venue() as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.move_on_after(5):
            with suppress(trio.BrokenResourceError):  # it may be answered before it was read to its end
                await stream.send_all(sent)
        try:
            answer = await stream.receive_some()
            assert answer.startswith(b"HTTP/1.1 " + status)
        except trio.BrokenResourceError:
            assert len(sent) > 1_000_000
        await stream.aclose()
        async with client(port) as http:
            assert (await http.get("/v2/clock")).status_code == 200


async def test_what_is_no_websocket_is_refused_to_a_websocket_client():
    async with venue() as port:
        with pytest.raises(ConnectionFailed, match="refused the WebSocket"):
            await connect(f"ws://127.0.0.1:{port}/nowhere")
    with pytest.raises(ConnectionFailed, match="cannot connect"):
        await connect(f"ws://127.0.0.1:{port}/stream")


# -- market data --


async def test_market_data_to_a_client_of_another_make():
    async with venue() as port, connect_websocket(f"ws://127.0.0.1:{port}/v2/iex") as market:
        assert json.loads(await market.recv())[0]["msg"] == "connected"
        await market.send(AUTH.decode())
        assert json.loads(await market.recv())[0]["msg"] == "authenticated"
        await market.send(ALL.decode())
        assert json.loads(await market.recv())[0]["T"] == "subscription"
        rows = json.loads(await market.recv())
        assert {row["T"] for row in rows} <= {"q", "t"}
        assert all(len(row["t"]) == 30 for row in rows)
        await (await market.ping()).wait()


async def test_fragmented_messages_are_put_together():
    """As an official client sends them: the payload in frames that are not the last, then an empty last one."""
    async with venue() as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/v2/iex"))
        protocol.send_request(protocol.connect())
        for message in (AUTH, ALL):
            await stream.send_all(b"".join(protocol.data_to_send()))
            while protocol.state.name == "CONNECTING":
                protocol.receive_data(await stream.receive_some())
            protocol.send_text(message[:7], fin=False)
            protocol.send_ping(b"between the fragments")
            protocol.send_continuation(message[7:], fin=False)
            protocol.send_continuation(b"", fin=True)
        await stream.send_all(b"".join(protocol.data_to_send()))
        text, pongs = b"", 0
        while b'"T":"q"' not in text:
            protocol.receive_data(await stream.receive_some())
            frames = [event for event in protocol.events_received() if isinstance(event, Frame)]
            text += b"".join(bytes(frame.data) for frame in frames if frame.opcode is Opcode.TEXT)
            pongs += sum(frame.opcode is Opcode.PONG for frame in frames)
        assert text.count(b"authenticated") == 1
        assert pongs == 2
        await stream.aclose()


async def test_a_message_may_be_sent_while_another_is_on_its_way():
    left, right = trio.testing.memory_stream_pair()
    may_go, deliver = trio.Event(), left.send_stream.send_all_hook

    async def deliver_late() -> None:
        await may_go.wait()
        await deliver()

    left.send_stream.send_all_hook = deliver_late
    protocols = ClientProtocol(parse_uri("ws://x/")), ServerProtocol()
    for protocol in protocols:
        protocol.state = State.OPEN
        protocol.parser = protocol.parse()
        next(protocol.parser)
    near, far = WebSocket(protocols[0], left), WebSocket(protocols[1], right)
    async with trio.open_nursery() as nursery:
        for message in (b"one", b"two", b"three"):
            nursery.start_soon(near.send, message)
            await trio.testing.wait_all_tasks_blocked()
        may_go.set()
    received = []
    while len(received) < 3:
        received += await far.receive()
    assert received == [b"one", b"two", b"three"]


async def test_what_was_sent_is_what_came():
    async with venue(events_per_second=20_000) as port, client(port) as http:
        market = await connect(f"ws://127.0.0.1:{port}/v2/iex")
        for message in (AUTH, ALL):
            await market.send(message)
        received, times = 0, []
        with trio.fail_after(60):
            while received <= 1_000:
                for content in await market.receive():
                    rows = [row for row in json.loads(content) if row["T"] in ("q", "t")]
                    received += len(rows)
                    times += [row["t"] for row in rows]
        await market.send(NONE)
        for message in await until(
            market, lambda message: message[0]["T"] == "subscription" and not message[0]["quotes"]
        ):
            received += sum(row["T"] in ("q", "t") for row in message)
            told = message[0].get("events_sent")
        assert received == told > 1_000
        assert times == sorted(times)
        sessions = (await http.get("/v2/simulation")).json()["sessions"]
        assert sessions["md-1"] == {"events_sent": received, "events_dropped": 0}
        await market.close()


@pytest.mark.slow
async def test_a_client_that_does_not_read_is_dropped_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(server, "SLOW_CLIENT_GRACE_S", 0.5)
    async with venue(events_per_second=20_000, outbox_bytes=200_000) as port, client(port) as http:
        with trio.socket.socket() as slow_socket:
            slow_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await slow_socket.connect(("127.0.0.1", port))
            await ask_for_everything(trio.SocketStream(slow_socket), port)
            quick = await connect(f"ws://127.0.0.1:{port}/v2/iex")
            try:
                await quick.send(AUTH)
                await quick.send(ALL)
                sessions = await read_until_one_is_dropped(quick, http)
                assert sessions["md-2"]["events_dropped"] == 0
                with trio.fail_after(60):
                    received = 0
                    while received < 10:
                        received += len(await quick.receive())
                sessions = (await http.get("/v2/simulation")).json()["sessions"]
                assert sessions["md-2"]["events_dropped"] == 0
            finally:
                await quick.close()


async def ask_for_everything(stream: trio.SocketStream, port: int) -> None:
    """Open a WebSocket by hand and subscribe, without reading what comes."""
    protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/v2/iex"))
    protocol.send_request(protocol.connect())
    await stream.send_all(b"".join(protocol.data_to_send()))
    while protocol.state.name == "CONNECTING":
        protocol.receive_data(await stream.receive_some())
    protocol.send_text(AUTH)
    protocol.send_text(ALL)
    await stream.send_all(b"".join(protocol.data_to_send()))


async def read_until_one_is_dropped(quick: WebSocket, http: httpx.AsyncClient) -> dict[str, dict[str, int]]:
    """Go on reading until the venue gave up on the client that came first; what it says of its clients then."""
    with trio.fail_after(60):
        while True:
            await quick.receive()
            sessions = (await http.get("/v2/simulation")).json()["sessions"]
            if sessions["md-1"]["events_dropped"]:
                return sessions


async def test_the_venue_says_goodbye_to_its_clients():
    async with trio.open_nursery() as nursery:
        config = ExchangeConfig(duration_s=0.1)
        port = await nursery.start(partial(serve_exchange, config, now_ns=time.time_ns))
        market = await connect(f"ws://127.0.0.1:{port}/v2/iex")
        with pytest.raises(trio.EndOfChannel):
            await until(market, lambda message: False)
        await market.close()


# -- the process --


async def test_a_port_in_use_is_one_clear_line():
    async with venue() as port:
        with pytest.raises(EnvironmentFailure, match=f"^port {port} on 127.0.0.1 is in use$"):
            await serve_exchange(ExchangeConfig(port=port), now_ns=time.time_ns)


PROCESS = "from trio_nt.exchange.config import ExchangeConfig; from trio_nt.exchange.process import run_exchange; "


def start_process(arguments: str) -> "subprocess.Popen[str]":
    program = f"{PROCESS}run_exchange(ExchangeConfig(events_per_second=1000), {arguments})"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, "standard input"])
def test_the_process_announces_its_port_and_ends_cleanly(how):
    with start_process("end_with_stdin=True" if how == "standard input" else "") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on http://127.0.0.1:")
        if how == "standard input":
            process.stdin.close()
        else:
            process.send_signal(how)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize("wrong", [{"port": 70_000}, {"symbols": 11}, {"events_per_second": 0}, {"cash": "many"}])
def test_a_wrong_setting_is_named(wrong):
    with pytest.raises(ValueError):
        ExchangeConfig(**wrong)
