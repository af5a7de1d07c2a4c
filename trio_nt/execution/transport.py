"""Requests over kept-alive connections, native to Trio, and a transport for httpx on top of them.

For a handful of hosts and many small requests, where httpx's own pool costs more than the request itself.

Rules
-----
- A connection is used by one request at a time, the one used last first. At most ``connections`` are open; a request
  beyond them waits.
- A connection that has something to read while it is idle was closed by the other side: it is not used again. So a
  request that fails after its first byte left has failed for another reason, and is never sent twice here.
- Request and response bodies are whole: neither streams.
- Where a connection is there, the first write is made before anything is waited for.
- A plain answer is read by ``http1``, any other by h11.
"""

import os
import ssl
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import attrs
import h11
import httpx
import trio

from trio_nt import http1

_CHUNK = 65_536
OnSent = Callable[[int], None]


class Origin(NamedTuple):
    is_secure: bool
    host: str
    port: int


class Answer(NamedTuple):
    """Header names are in lower case; where one came more than once, its values are joined by commas."""

    status_code: int
    reason_phrase: str
    headers: Mapping[str, str]
    content: bytes


@attrs.define(eq=False)
class _Connection:
    stream: trio.abc.Stream
    socket: trio.socket.SocketType

    def is_usable(self) -> bool:
        return not self.socket.is_readable()

    def write_now(self, content: bytes) -> int:
        """Write what the socket takes without waiting; how many bytes."""
        if not isinstance(self.stream, trio.SocketStream) or os.name != "posix":
            return 0
        try:
            return os.write(self.socket.fileno(), content)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error


class Connections:
    """Kept-alive connections, at most ``limit`` in use, and whole requests over them."""

    def __init__(self, *, limit: int = 32, ssl_context: ssl.SSLContext | None = None) -> None:
        self._idle: dict[Origin, list[_Connection]] = {}
        self._places = trio.Semaphore(limit)
        self._ssl_context = ssl_context

    async def request(
        self,
        origin: Origin,
        content: bytes,
        *,
        connect_s: float | None = None,
        read_s: float | None = None,
        on_sent: OnSent | None = None,
    ) -> Answer:
        """Send one request, given in its bytes and not by HEAD, and read its whole answer. A checkpoint.

        Cancelled, its connection is closed. ``on_sent`` is told when its last byte has left (``perf_counter_ns``).

        Raises:
            httpx.ConnectError, httpx.ConnectTimeout: it did not leave.
            httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadTimeout: it may have arrived.
        """
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            await self._places.acquire()
        try:
            connection = await self._connection(origin, connect_s)
            reusable = False
            try:
                with trio.move_on_after(_seconds(read_s)) as scope:
                    answer, reusable = await _exchange(connection, content, on_sent)
                if scope.cancelled_caught:
                    raise httpx.ReadTimeout("no answer in time")
            finally:
                if reusable:
                    self._idle.setdefault(origin, []).append(connection)
                else:
                    await trio.aclose_forcefully(connection.stream)
        finally:
            self._places.release()
        return answer

    async def aclose(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                await trio.aclose_forcefully(connection.stream)
        self._idle.clear()

    async def _connection(self, origin: Origin, timeout_s: float | None) -> _Connection:
        idle = self._idle.get(origin, [])
        while idle:
            connection = idle.pop()
            if connection.is_usable():
                return connection
            await trio.aclose_forcefully(connection.stream)
        try:
            with trio.fail_after(_seconds(timeout_s)):
                tcp = await trio.open_tcp_stream(origin.host, origin.port)
                stream: trio.abc.Stream = tcp
                if origin.is_secure:
                    context = self._ssl_context or ssl.create_default_context()
                    secure = trio.SSLStream(tcp, context, server_hostname=origin.host, https_compatible=True)
                    await secure.do_handshake()
                    stream = secure
        except trio.TooSlowError as error:
            raise httpx.ConnectTimeout("cannot connect in time") from error
        except (OSError, trio.BrokenResourceError) as error:
            raise httpx.ConnectError(str(error) or type(error).__name__) from error
        return _Connection(stream, tcp.socket)


async def _exchange(connection: _Connection, content: bytes, on_sent: OnSent | None) -> tuple[Answer, bool]:
    """The answer, and whether the connection can be used again."""
    stream = connection.stream
    try:
        sent = connection.write_now(content)
        if sent < len(content):
            await stream.send_all(content[sent:])
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise httpx.WriteError("the connection broke") from error
    if on_sent is not None:
        on_sent(time.perf_counter_ns())
    received = bytearray()
    try:
        while True:
            chunk = await stream.receive_some(_CHUNK)
            received += chunk
            plain = http1.read_response(received)
            if isinstance(plain, http1.Response):
                answer = Answer(plain.status, plain.reason, plain.headers, plain.body)
                return answer, plain.size == len(received)
            if plain is http1.ODD or not chunk:
                return await _odd_answer(stream, bytes(received), is_over=not chunk)
    except h11.RemoteProtocolError as error:
        raise httpx.RemoteProtocolError(str(error)) from error
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise httpx.ReadError("the connection broke") from error


async def _odd_answer(stream: trio.abc.Stream, received: bytes, *, is_over: bool) -> tuple[Answer, bool]:
    """Any answer, read by h11 from its first byte."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "-")]))  # something must have been asked
    http.send(h11.EndOfMessage())
    http.receive_data(received)
    if is_over and received:
        http.receive_data(b"")
    response: h11.Response | None = None
    body: list[bytes] = []
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(b"" if is_over else bytes(await stream.receive_some(_CHUNK)))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            assert response is not None
            headers: dict[str, str] = {}
            for name, value in response.headers:
                key, text = name.decode("ascii"), value.decode("latin-1")
                headers[key] = f"{headers[key]}, {text}" if key in headers else text
            answer = Answer(response.status_code, response.reason.decode("ascii", "replace"), headers, b"".join(body))
            is_clean = http.our_state is h11.DONE and http.their_state is h11.DONE and not http.trailing_data[0]
            return answer, is_clean
        elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            raise h11.RemoteProtocolError("the other side hung up")


class TrioTransport(httpx.AsyncBaseTransport):
    """Give it to ``httpx.AsyncClient(transport=…)``."""

    def __init__(self, *, connections: int = 32, ssl_context: ssl.SSLContext | None = None) -> None:
        self._connections = Connections(limit=connections, ssl_context=ssl_context)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and read its whole response. Cancelled, its connection is closed.

        Raises:
            httpx.ConnectError, httpx.ConnectTimeout: it did not leave.
            httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadTimeout: it may have arrived.
        """
        if request.method in ("HEAD", "CONNECT"):
            raise httpx.UnsupportedProtocol(f"{request.method} is not supported here", request=request)
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        url = request.url
        is_secure = url.scheme == "https"
        origin = Origin(is_secure, url.raw_host.decode("ascii"), url.port or (443 if is_secure else 80))
        try:
            answer = await self._connections.request(
                origin, _bytes_of(request), connect_s=timeouts.get("connect"), read_s=timeouts.get("read")
            )
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error), request=request) from error
        except httpx.RequestError as error:
            error.request = request
            raise
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    async def aclose(self) -> None:
        await self._connections.aclose()


def _bytes_of(request: httpx.Request) -> bytes:
    http = h11.Connection(h11.CLIENT)  # it refuses what is no HTTP
    content = request.content
    head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
    parts = [http.send(head), http.send(h11.Data(content)) if content else b"", http.send(h11.EndOfMessage())]
    return b"".join(part for part in parts if part)


def _seconds(timeout_s: float | None) -> float:
    return float("inf") if timeout_s is None else timeout_s
