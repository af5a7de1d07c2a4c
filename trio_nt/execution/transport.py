"""An HTTP/1.1 transport for httpx, native to Trio: h11 over kept-alive streams.

For a handful of hosts and many small requests, where httpx's own pool costs more than the request itself.

Rules
-----
- A connection is used by one request at a time, the one used last first. At most ``connections`` are open; a request
  beyond them waits.
- A connection that has something to read while it is idle was closed by the other side: it is not used again. So a
  request that fails after its first byte left has failed for another reason, and is never sent twice here.
- Request and response bodies are whole: neither streams.
"""

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import h11
import httpx
import trio

_CHUNK = 65_536
Origin = tuple[bytes, bytes, int | None]


@attrs.define(eq=False)
class _Connection:
    stream: trio.abc.Stream
    socket: trio.socket.SocketType
    http: h11.Connection

    def is_usable(self) -> bool:
        return not self.socket.is_readable()


class TrioTransport(httpx.AsyncBaseTransport):
    """Give it to ``httpx.AsyncClient(transport=…)``."""

    def __init__(self, *, connections: int = 32, ssl_context: ssl.SSLContext | None = None) -> None:
        self._idle: dict[Origin, list[_Connection]] = {}
        self._places = trio.Semaphore(connections)
        self._ssl_context = ssl_context

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and read its whole response. Cancelled, its connection is closed.

        Raises:
            httpx.ConnectError, httpx.ConnectTimeout: it did not leave.
            httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadTimeout: it may have arrived.
        """
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        async with self._places:
            connection = await self._connection(request, timeouts.get("connect"))
            reusable = False
            try:
                with trio.move_on_after(_seconds(timeouts.get("read"))) as scope:
                    response = await _exchange(connection, request)
                    reusable = connection.http.our_state is h11.DONE and connection.http.their_state is h11.DONE
                if scope.cancelled_caught:
                    raise httpx.ReadTimeout("no answer in time", request=request)
            finally:
                if reusable:
                    connection.http.start_next_cycle()
                    self._idle.setdefault(_origin(request), []).append(connection)
                else:
                    await trio.aclose_forcefully(connection.stream)
        return response

    async def aclose(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                await trio.aclose_forcefully(connection.stream)
        self._idle.clear()

    async def _connection(self, request: httpx.Request, timeout_s: float | None) -> _Connection:
        idle = self._idle.get(_origin(request), [])
        while idle:
            connection = idle.pop()
            if connection.is_usable():
                return connection
            await trio.aclose_forcefully(connection.stream)
        scheme, raw_host, port = _origin(request)
        host = raw_host.decode("ascii")
        try:
            with trio.fail_after(_seconds(timeout_s)):
                tcp = await trio.open_tcp_stream(host, port or (443 if scheme == b"https" else 80))
                stream: trio.abc.Stream = tcp
                if scheme == b"https":
                    context = self._ssl_context or ssl.create_default_context()
                    secure = trio.SSLStream(tcp, context, server_hostname=host, https_compatible=True)
                    await secure.do_handshake()
                    stream = secure
        except trio.TooSlowError as error:
            raise httpx.ConnectTimeout("cannot connect in time", request=request) from error
        except (OSError, trio.BrokenResourceError) as error:
            raise httpx.ConnectError(str(error) or type(error).__name__, request=request) from error
        return _Connection(stream, tcp.socket, h11.Connection(h11.CLIENT))


async def _exchange(connection: _Connection, request: httpx.Request) -> httpx.Response:
    http, stream = connection.http, connection.stream
    trace: Callable[[str, dict[str, Any]], Awaitable[None]] | None = request.extensions.get("trace")
    try:
        content = request.content
        head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        parts = [http.send(head), http.send(h11.Data(content)) if content else b"", http.send(h11.EndOfMessage())]
        await stream.send_all(b"".join(part for part in parts if part))
    except h11.LocalProtocolError as error:
        raise httpx.LocalProtocolError(str(error), request=request) from error
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise httpx.WriteError("the connection broke", request=request) from error
    if trace is not None:
        await trace("http11.send_request_body.complete", {})
    response: h11.Response | None = None
    body: list[bytes] = []
    while True:
        try:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some(_CHUNK)))
                continue
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error), request=request) from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpx.ReadError("the connection broke", request=request) from error
        if isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            assert response is not None
            headers = list(response.headers.raw_items())
            return httpx.Response(response.status_code, headers=headers, content=b"".join(body))
        elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            raise httpx.RemoteProtocolError("the other side hung up", request=request)


def _origin(request: httpx.Request) -> Origin:
    url = request.url
    return url.raw_scheme, url.raw_host, url.port


def _seconds(timeout_s: float | None) -> float:
    return float("inf") if timeout_s is None else timeout_s
