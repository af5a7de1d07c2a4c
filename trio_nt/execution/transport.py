"""HTTP for orders: an ``httpx`` transport on Trio's own streams, without a pool's detours.

One exchange at a time over each kept-alive connection, the connection used last first. A request is written once: a
connection that the other side has hung up on is noticed before anything is written to it, and what breaks later is the
caller's to look into (``httpx.ReadError`` and its like), never repeated here.
"""

import ssl
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeAlias

import h11
import httpx
import trio

CHUNK_BYTES = 65_536
SENT = "http11.send_request_body.complete"  # what httpcore calls this moment in its trace
Origin: TypeAlias = tuple[str, str, int]
Trace: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[None]]


class TrioTransport(httpx.AsyncBaseTransport):
    """At most ``connections`` at a time; one that was idle for ``keep_alive_s`` is not used again.

    Answers are read whole before they are returned. The extensions ``timeout`` (connect, read) and ``trace`` (the
    event that the request has been sent) are honoured.
    """

    def __init__(
        self, *, connections: int = 32, keep_alive_s: float = 60.0, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._limiter = trio.CapacityLimiter(connections)
        self._keep_alive_s = keep_alive_s
        self._ssl_context = ssl_context
        self._idle: dict[Origin, list[_Connection]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange. A checkpoint; cancelled, its connection is closed: whether the request took effect is unknown.

        Raises:
            httpx.ConnectError, httpx.ConnectTimeout: nothing has left.
            httpx.WriteError, httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError: something may have.
        """
        url = request.url
        origin = (url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        timeouts = request.extensions.get("timeout") or {}
        async with self._limiter:
            connection = await self._take(origin, timeouts.get("connect"))
            try:
                response = await connection.exchange(request, timeouts.get("read"))
            except BaseException:
                await trio.aclose_forcefully(connection.stream)
                raise
            if connection.is_reusable():
                self._idle.setdefault(origin, []).append(connection)
            else:
                await trio.aclose_forcefully(connection.stream)
            return response

    async def aclose(self) -> None:
        """Close idle connections."""
        for connections in self._idle.values():
            for connection in connections:
                await trio.aclose_forcefully(connection.stream)
        self._idle.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def _take(self, origin: Origin, timeout_s: float | None) -> "_Connection":
        idle = self._idle.get(origin, [])
        while idle:
            connection = idle.pop()
            if connection.is_alive(self._keep_alive_s):
                return connection
            await trio.aclose_forcefully(connection.stream)
        return await self._open(origin, timeout_s)

    async def _open(self, origin: Origin, timeout_s: float | None) -> "_Connection":
        scheme, host, port = origin
        try:
            with trio.fail_after(float("inf") if timeout_s is None else timeout_s):
                socket_stream = await trio.open_tcp_stream(host, port)
                if scheme != "https":
                    return _Connection(socket_stream, socket_stream)
                context = self._ssl_context or ssl.create_default_context()
                stream = trio.SSLStream(socket_stream, context, server_hostname=host, https_compatible=True)
                try:
                    await stream.do_handshake()
                except BaseException:
                    await trio.aclose_forcefully(stream)
                    raise
                return _Connection(stream, socket_stream)
        except trio.TooSlowError as error:
            raise httpx.ConnectTimeout(f"{host}:{port} did not answer in time") from error
        except (OSError, trio.BrokenResourceError, ssl.SSLError) as error:
            raise httpx.ConnectError(f"{host}:{port}: {error}") from error


class _Connection:
    def __init__(self, stream: trio.abc.Stream, socket_stream: trio.SocketStream) -> None:
        self.stream = stream
        self._socket_stream = socket_stream
        self._protocol = h11.Connection(h11.CLIENT)
        self._used_at = time.perf_counter()

    def is_reusable(self) -> bool:
        return self._protocol.our_state is h11.IDLE

    def is_alive(self, keep_alive_s: float) -> bool:
        """Whether a request may be written: it was used lately and the other side has said nothing since.

        What can be read from an idle connection is its end.
        """
        if time.perf_counter() - self._used_at > keep_alive_s:
            return False
        return not self._socket_stream.socket.is_readable()

    async def exchange(self, request: httpx.Request, timeout_s: float | None) -> httpx.Response:
        """Write a request, read its answer whole."""
        protocol = self._protocol
        head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        content = protocol.send(head) or b""
        body = await request.aread()
        if body:
            content += protocol.send(h11.Data(data=body)) or b""
        content += protocol.send(h11.EndOfMessage()) or b""
        try:
            with trio.fail_after(float("inf") if timeout_s is None else timeout_s):
                try:
                    await self.stream.send_all(content)
                except (trio.BrokenResourceError, ssl.SSLError) as error:
                    raise httpx.WriteError(f"the connection broke: {error}") from error
                trace: Trace | None = request.extensions.get("trace")
                if trace is not None:
                    await trace(SENT, {"return_value": None})
                return await self._answer()
        except trio.TooSlowError as error:
            raise httpx.ReadTimeout(f"no answer within {timeout_s:g} s") from error

    async def _answer(self) -> httpx.Response:
        protocol = self._protocol
        response: h11.Response | None = None
        body: list[bytes] = []
        while True:
            try:
                event = protocol.next_event()
            except h11.RemoteProtocolError as error:
                raise httpx.RemoteProtocolError(f"an answer without meaning: {error}") from error
            if event is h11.NEED_DATA:
                await self._read()
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
            elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)) or event is h11.PAUSED:
                break
        if response is None:
            raise httpx.RemoteProtocolError("the connection ended before an answer")
        if protocol.our_state is h11.DONE and protocol.their_state is h11.DONE:
            protocol.start_next_cycle()
        self._used_at = time.perf_counter()
        return httpx.Response(response.status_code, headers=list(response.headers.raw_items()), content=b"".join(body))

    async def _read(self) -> None:
        try:
            chunk = await self.stream.receive_some(CHUNK_BYTES)
        except (trio.BrokenResourceError, ssl.SSLError) as error:
            raise httpx.ReadError(f"the connection broke: {error}") from error
        self._protocol.receive_data(bytes(chunk))
