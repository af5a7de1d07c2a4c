"""The Trio transport under httpx, against a server that does what the test says."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
import trio
import trio.testing

from trio_nt.execution.transport import Connections, Origin, TrioTransport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Handler = Callable[[trio.SocketStream, int], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler, **settings: float) -> AsyncIterator[tuple[httpx.AsyncClient, list[int]]]:
    """A client, and the numbers of the connections that were opened."""
    opened: list[int] = []

    async def serve(stream: trio.SocketStream) -> None:
        opened.append(len(opened))
        await handler(stream, opened[-1])

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        transport = TrioTransport(connections=int(settings.get("connections", 4)))
        timeout = settings.get("timeout", 5.0)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=timeout
        ) as client:
            yield client, opened
        nursery.cancel_scope.cancel()


async def request_of(stream: trio.SocketStream) -> bytes:
    content = b""
    while b"\r\n\r\n" not in content:
        chunk = await stream.receive_some()
        if not chunk:
            return b""
        content += bytes(chunk)
    return content


async def answer_always(stream: trio.SocketStream, number: int) -> None:
    while await request_of(stream):
        await stream.send_all(OK)


async def test_a_connection_is_used_again() -> None:
    async with serving(answer_always) as (client, opened):
        for _ in range(5):
            answer = await client.post("/x", content=b"")
            assert (answer.status_code, answer.text) == (200, "ok")
        assert len(opened) == 1


async def test_connections_are_bounded_and_requests_beyond_them_wait() -> None:
    async def slow(stream: trio.SocketStream, number: int) -> None:
        while await request_of(stream):
            await trio.sleep(0.02)
            await stream.send_all(OK)

    async with serving(slow, connections=2) as (client, opened), trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(client.get, "/")
    assert len(opened) == 2


async def test_one_that_was_closed_while_idle_is_not_used() -> None:
    async def once(stream: trio.SocketStream, number: int) -> None:
        await request_of(stream)
        await stream.send_all(OK)
        await stream.aclose()

    async with serving(once) as (client, opened):
        for _ in range(3):
            await client.get("/")
            await trio.sleep(0.02)
        assert len(opened) == 3


async def test_the_last_byte_is_told_and_a_kept_connection_is_written_to_at_once() -> None:
    told: list[int] = []
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, lambda stream: answer_always(stream, 0), 0)
        origin = Origin(False, "127.0.0.1", listeners[0].socket.getsockname()[1])
        connections, content = Connections(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        assert (await connections.request(origin, content)).content == b"ok"
        request = connections.request(origin, content, on_sent=told.append)
        nursery.start_soon(_finish, request)
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert len(told) == 1
        await connections.aclose()
        nursery.cancel_scope.cancel()


async def _finish(request: Awaitable[object]) -> None:
    await request


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
HINTED = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\n\r\nok"


@pytest.mark.parametrize(
    ("said", "closes", "reuses"),
    [(CHUNKED, False, True), (HINTED + OK, False, True), (CLOSING, True, False), (UNTIL_CLOSED, True, False),
     (OK + b"?", False, False)],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, 1000])
async def test_an_answer_of_another_form_is_read_all_the_same(
    said: bytes, closes: bool, reuses: bool, step: int
) -> None:
    async def odd(stream: trio.SocketStream, number: int) -> None:
        with suppress(trio.BrokenResourceError):  # a client that was told too much hangs up
            while await request_of(stream):
                for start in range(0, len(said), step):
                    await stream.send_all(said[start : start + step])
                if closes:
                    await stream.aclose()
                    return

    async with serving(odd) as (client, opened):
        for _ in range(2):
            answer = await client.get("/")
            assert (answer.status_code, answer.text) == (200, "ok")
            await trio.sleep(0.01)
        assert (len(opened) == 1) == reuses


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"what?\r\n\r\n"])
async def test_an_answer_that_is_cut_short_or_none_is_an_error(said: bytes) -> None:
    async def cut(stream: trio.SocketStream, number: int) -> None:
        await request_of(stream)
        if said:
            await stream.send_all(said)
        await stream.aclose()

    async with serving(cut) as (client, _):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.post("/", content=b"x")


async def test_no_answer_in_time() -> None:
    async def never(stream: trio.SocketStream, number: int) -> None:
        await trio.sleep_forever()

    async with serving(never, timeout=0.05) as (client, _):
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/")


async def test_nobody_listens() -> None:
    async with httpx.AsyncClient(transport=TrioTransport()) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("http://127.0.0.1:1/")
