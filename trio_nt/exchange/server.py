"""The venue's process: one port that serves orders over HTTP and two WebSocket streams, in Alpaca's dialect.

One task paces the market, one per connection serves it. Nothing here decides anything: the venue does.
"""

import errno
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import h11
import trio

from trio_nt import alpaca, http1
from trio_nt.errors import EnvironmentFailure
from trio_nt.exchange.api import Api, Request, Response
from trio_nt.exchange.config import ExchangeConfig
from trio_nt.exchange.faults import Faults
from trio_nt.exchange.faulty import FaultyResponder, FaultySocket
from trio_nt.exchange.pacing import Pacer
from trio_nt.exchange.statelog import StateLog, open_log
from trio_nt.exchange.streams import EncodedRows, MarketSession, Outbox, TradeSession
from trio_nt.exchange.venue import Venue
from trio_nt.websocket import ConnectionFailed, WebSocket, accept

LARGEST_BODY = 1_048_576
SLOW_CLIENT_GRACE_S = 1.0
LONGEST_SLEEP_NS = 100_000_000
FINISHED_SESSIONS = 100
MARKET_PATHS = ("/v2/iex", "/v2/sip")


class _Writer:
    """Empties one session's outbox into its socket."""

    def __init__(self, outbox: Outbox, socket: WebSocket | FaultySocket, *, binary: bool) -> None:
        self._outbox = outbox
        self._socket = socket
        self._binary = binary
        self._filled = trio.Event()
        self._deadline = trio.CancelScope()

    def wake(self) -> None:
        """Something was put into the outbox."""
        self._filled.set()
        if self._outbox.is_closing and self._deadline.deadline == float("inf"):
            self._deadline.deadline = trio.current_time() + SLOW_CLIENT_GRACE_S

    async def run(self) -> None:
        with self._deadline, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                self._filled = trio.Event()
                messages = self._outbox.take()
                if messages:
                    await self._socket.send(*messages, binary=self._binary)
                elif self._outbox.is_closing:
                    return
                else:
                    await self._filled.wait()


class _Server:
    def __init__(self, config: ExchangeConfig, now_ns: Callable[[], int], log: StateLog | None = None) -> None:
        self._log = log
        self.venue = Venue(config, now_ns) if log is None else Venue(config, now_ns, past=log.records, record=log.note)
        self._api = Api(self.venue, simulation=self._simulation)
        faults = Faults(config.faults)
        self._responder = (
            FaultyResponder(faults, self._api.handle, self._settled, self.venue.now_ns)
            if config.faults.in_requests
            else None
        )
        self._stream_faults = faults if config.faults.in_streams else None
        self._config = config
        self._market_sessions: dict[str, tuple[MarketSession, _Writer]] = {}
        self._finished: deque[tuple[str, Outbox]] = deque(maxlen=FINISHED_SESSIONS)
        self._sessions_opened = 0
        self._latest_ns = 0  # by how much the market was sent late, at worst

    # -- the market --

    async def run_market(self) -> None:
        """Send each step of the market when it is due; a step that comes late is sent at once, with its own time."""
        venue = self.venue
        with Pacer() as pacer:
            while True:
                due_ns = venue.market.next_due_ns
                delay_ns = due_ns - venue.now_ns()
                if delay_ns > 0:
                    await pacer.sleep_ns(min(delay_ns, LONGEST_SLEEP_NS))
                    continue
                self._latest_ns = max(self._latest_ns, -delay_ns)
                columns = venue.step(venue.now_ns())
                if columns is not None and self._market_sessions:
                    encoded = EncodedRows(columns, venue.symbols)
                    for session, writer in self._market_sessions.values():
                        session.publish(encoded)
                        writer.wake()
                # The next step may be due already; the clients' tasks must run all the same.
                await trio.lowlevel.checkpoint()
                venue.market.prepare()  # now that this step has left

    # -- one connection --

    async def serve(self, stream: trio.SocketStream) -> None:
        try:
            received = await self._serve_plain_http(stream)
            if received is not None:
                await self._serve_http(stream, received)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has gone; its orders stay
        finally:
            await trio.aclose_forcefully(stream)

    async def _serve_plain_http(self, stream: trio.SocketStream) -> bytearray | None:
        """Answer requests as long as they are plain; what was received and not answered, None if nothing more is."""
        received = bytearray()
        while True:
            request = http1.read_request(received, largest_body=LARGEST_BODY)
            if request is http1.MORE:
                chunk = await stream.receive_some(65_536)
                if not chunk:
                    return received
                received += chunk
            elif isinstance(request, http1.Request):
                del received[: request.size]
                asked = Request(request.method, request.target, request.headers, request.body)
                if not await self._respond(stream, asked, _plain_bytes):
                    return None
            else:
                return received

    async def _serve_http(self, stream: trio.SocketStream, received: bytearray) -> None:
        """Answer any request, and hand over to a WebSocket. ``received`` are the first bytes."""
        connection = h11.Connection(h11.SERVER)
        if received:
            connection.receive_data(bytes(received))
        # What came since the last answer is kept: a handshake is read again by the WebSocket's own reader.
        while True:
            try:
                request, body = await _next_request(connection, stream, received)
            except h11.RemoteProtocolError as error:
                await _refuse(connection, stream, error)
                return
            if request is None:
                return
            headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
            target = request.target.decode("ascii", "replace")
            if headers.get("upgrade", "").lower() == "websocket":
                await self._serve_websocket(stream, bytes(received), target.partition("?")[0])
                return
            asked = Request(request.method.decode(), target, headers, body)
            if not await self._respond(stream, asked, partial(_response_bytes, connection)):
                return
            if connection.our_state is h11.MUST_CLOSE or connection.their_state is h11.MUST_CLOSE:
                return
            connection.start_next_cycle()
            received = bytearray(connection.trailing_data[0])

    async def _respond(self, stream: trio.SocketStream, request: Request, encode: Callable[[Response], bytes]) -> bool:
        """Answer one request, with the faults that were asked for; whether the connection goes on."""
        if self._responder is not None:
            return await self._responder.answer(stream, request, encode)
        response = self._api.handle(request)
        if self._log is not None:
            await self._log.settled()
        await stream.send_all(encode(response))
        return True

    async def _serve_websocket(self, stream: trio.SocketStream, received: bytes, path: str) -> None:
        if path not in ("/stream", *MARKET_PATHS):
            await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        try:
            socket, _ = await accept(stream, received)
        except ConnectionFailed:
            return  # it was told why
        if path == "/stream":
            await self._serve_order_stream(socket, stream)
        else:
            await self._serve_market_stream(socket, stream)

    async def _serve_market_stream(self, socket: WebSocket, stream: trio.SocketStream) -> None:
        self._sessions_opened += 1
        name = f"md-{self._sessions_opened}"
        session = MarketSession(name, self.venue.symbols, self._config.keys, self._config.outbox_bytes)
        writer = _Writer(session.outbox, self._sender(socket, stream, repeats=False), binary=False)
        self._market_sessions[name] = session, writer
        try:
            await _converse(socket, session, writer)
        finally:
            del self._market_sessions[name]
            self._finished.append((name, session.outbox))
            await socket.close()  # noqa: ASYNC102 - shields itself, with a deadline

    async def _serve_order_stream(self, socket: WebSocket, stream: trio.SocketStream) -> None:
        session = TradeSession(self._config.keys, self._config.outbox_bytes)
        # The paper host sends this stream in binary frames, and so does this one.
        writer = _Writer(session.outbox, self._sender(socket, stream, repeats=True), binary=True)

        def publish(message: bytes) -> None:
            session.publish(message)
            writer.wake()

        log = self._log
        listener = publish if log is None else lambda message: log.tell(partial(publish, message))
        self.venue.listeners.append(listener)
        try:
            await _converse(socket, session, writer)
        finally:
            self.venue.listeners.remove(listener)
            await socket.close()  # noqa: ASYNC102 - shields itself, with a deadline

    def _sender(self, socket: WebSocket, stream: trio.SocketStream, *, repeats: bool) -> WebSocket | FaultySocket:
        faults = self._stream_faults
        return socket if faults is None else FaultySocket(socket, stream, faults.of_stream(repeats=repeats))

    async def _settled(self) -> None:
        if self._log is not None:
            await self._log.settled()

    def _simulation(self) -> Mapping[str, Any]:
        live = [(name, session.outbox) for name, (session, _) in self._market_sessions.items()]
        return {
            "latest_send_us": self._latest_ns // 1000,
            "sessions": {
                name: {"events_sent": outbox.events_sent, "events_dropped": outbox.events_dropped}
                for name, outbox in (*self._finished, *live)
            },
        }


async def _converse(socket: WebSocket, session: MarketSession | TradeSession, writer: _Writer) -> None:
    """Hear and answer one client until either side has had enough."""
    async with trio.open_nursery() as nursery:

        async def write() -> None:
            await writer.run()
            nursery.cancel_scope.cancel()

        nursery.start_soon(write)
        with suppress(trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                for message in await socket.receive():
                    session.receive(message)
                writer.wake()
        nursery.cancel_scope.cancel()


async def _next_request(
    connection: h11.Connection, stream: trio.SocketStream, received: bytearray
) -> tuple[h11.Request | None, bytes]:
    """The next request and its body; None when the client is done. What is read is added to ``received``.

    Raises:
        h11.RemoteProtocolError: it is no HTTP, or too large.
    """
    request, body = None, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                await stream.send_all(connection.send(go_on) or b"")
            chunk = await stream.receive_some(65_536)
            received += chunk
            connection.receive_data(bytes(chunk))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > LARGEST_BODY:
                raise h11.RemoteProtocolError("body too large", error_status_hint=413)
        elif isinstance(event, h11.EndOfMessage) or event is h11.PAUSED:
            return request, bytes(body)
        else:  # ConnectionClosed
            return None, b""


def _response_bytes(connection: h11.Connection, response: Response) -> bytes:
    head = connection.send(h11.Response(status_code=response.status, headers=list(_headers(response)), reason=b""))
    body = connection.send(h11.Data(data=response.body)) if response.body else b""
    return b"".join((head or b"", body or b"", connection.send(h11.EndOfMessage()) or b""))


def _plain_bytes(response: Response) -> bytes:
    return http1.response_bytes(response.status, _headers(response), response.body)


def _headers(response: Response) -> tuple[tuple[str, str], ...]:
    length = ("Content-Length", str(len(response.body)))
    return (
        (*response.headers, length, ("Content-Type", "application/json"))
        if response.body
        else (*response.headers, length)
    )


async def _refuse(connection: h11.Connection, stream: trio.SocketStream, error: h11.RemoteProtocolError) -> None:
    if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    status = error.error_status_hint
    body = alpaca.encode({"code": status * 100_000, "message": f"request is no valid HTTP: {error}"})
    await stream.send_all(_response_bytes(connection, Response(status, body, (("Connection", "close"),))))


async def serve_exchange(
    config: ExchangeConfig,
    *,
    now_ns: Callable[[], int],
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the venue until cancelled or ``config.duration_s`` is over; ``started()`` gives the port.

    ``now_ns`` is the venue's clock, UNIX ns. Clients that are connected at the end hear a closing handshake.

    Raises:
        EnvironmentFailure: the port is in use or not allowed; the log in ``config.state`` is in use, damaged, of
            other settings, or cannot be written.
    """
    with ExitStack() as stack:
        log = None
        if config.state is not None:
            log = open_log(config.state)
            stack.callback(log.close)
        await _serve(_Server(config, now_ns, log), config, log, task_status)


async def _serve(
    server: _Server, config: ExchangeConfig, log: StateLog | None, task_status: trio.TaskStatus[int]
) -> None:
    try:
        listeners = await trio.open_tcp_listeners(config.port, host=config.host)
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened: {error.strerror or error}"
        raise EnvironmentFailure(f"port {config.port} on {config.host} {why}") from error
    with trio.CancelScope() as scope:
        if config.duration_s is not None:
            scope.deadline = trio.current_time() + config.duration_s
        async with trio.open_nursery() as nursery:
            port: int = listeners[0].socket.getsockname()[1]
            if log is not None:
                nursery.start_soon(log.run)
            nursery.start_soon(server.run_market)
            nursery.start_soon(partial(trio.serve_listeners, server.serve, listeners))
            task_status.started(port)
