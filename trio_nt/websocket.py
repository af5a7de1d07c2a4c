"""A WebSocket over a Trio stream, a chunk at a time.

``websockets`` keeps the protocol (its Sans-I/O half), this module moves the bytes: one read of the socket gives all
messages that it completed, so that a busy stream costs one Trio step per chunk and not one per message. For client and
server alike. No compression is offered or taken: on a loopback or in a data centre it costs more than it saves.
"""

from collections.abc import Iterable, Sequence
from ssl import SSLContext, create_default_context
from typing import Any

import trio
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from trio_nt.errors import TrioNTError

CHUNK_BYTES = 262_144
LARGEST_MESSAGE = 8 * 1_048_576
CLOSE_TIMEOUT_S = 1.0


class ConnectionFailed(TrioNTError):
    """No WebSocket came to be: the address does not answer, or refuses."""


class WebSocket:
    """An open connection. ``receive`` is for one task at a time; ``send`` may be called by several."""

    def __init__(self, protocol: ClientProtocol | ServerProtocol, stream: trio.abc.Stream) -> None:
        self._protocol = protocol
        self._stream = stream
        self._sending = trio.Lock()
        self._fragments: list[bytes] = []
        self._owes_answer = False  # a ping or a close has come: data alone costs no step for an answer
        self._is_torn = False  # a write was cut short: whatever is written after it means nothing

    async def receive(self) -> Sequence[bytes]:
        """All messages that the next chunks complete, at least one; text as its UTF-8. Pings are answered within.

        A checkpoint. Cancelled while it waits, it has lost nothing.

        Raises:
            trio.EndOfChannel: the other side closed the connection.
            trio.BrokenResourceError: the connection broke, or what came over it is no WebSocket's.
            trio.ClosedResourceError: this side closed it.
        """
        messages = self._messages()  # what came along with the handshake
        while not messages:
            if self._protocol.state is State.CLOSED or self._protocol.close_expected():
                await self._flush()
                raise _how_it_ended(self._protocol)
            chunk = await self._stream.receive_some(CHUNK_BYTES)
            self._feed(chunk)
            messages = self._messages()
            if self._owes_answer:
                self._owes_answer = False
                await self._flush()
        return messages

    async def send(self, *messages: bytes, binary: bool = False) -> None:
        """Send whole messages, in order, in one write. Cancelled on the way, the connection is no longer usable.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: the connection is gone.
        """
        if self._protocol.state is not State.OPEN:
            raise trio.BrokenResourceError("the WebSocket is closing")
        put = self._protocol.send_binary if binary else self._protocol.send_text
        for message in messages:
            put(message)
        if not await self._flush():
            raise trio.BrokenResourceError("the WebSocket is torn: a message before this one was cut short")

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye, wait shortly for the other side to do the same, and close the stream. Never raises."""
        with trio.CancelScope(deadline=trio.current_time() + CLOSE_TIMEOUT_S, shield=True):
            try:
                if not self._is_torn and self._protocol.state is State.OPEN:
                    self._protocol.send_close(code, reason)
                await self._flush()
                while (
                    not self._is_torn and self._protocol.close_rcvd is None and self._protocol.state is not State.CLOSED
                ):
                    self._feed(await self._stream.receive_some(CHUNK_BYTES))
                    self._protocol.events_received()
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                pass
        await trio.aclose_forcefully(self._stream)

    def _feed(self, chunk: bytes | bytearray) -> None:
        if chunk:
            self._protocol.receive_data(bytes(chunk))
        else:
            self._protocol.receive_eof()

    def _messages(self) -> list[bytes]:
        messages = []
        for frame in self._protocol.events_received():
            if not isinstance(frame, Frame) or frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._owes_answer = True
                continue
            if frame.fin and not self._fragments:
                messages.append(bytes(frame.data))
                continue
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                messages.append(b"".join(self._fragments))
                self._fragments = []
        return messages

    async def _flush(self) -> bool:
        """Write what the protocol has to say; False where an earlier write was cut short: this one means nothing."""
        # The bytes are taken under the lock: what the protocol ordered first must leave first. A lock that is free is
        # taken without a step of the loop, which the bytes would have to wait for.
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            chunks = self._protocol.data_to_send()
            content = b"".join(chunks)
            if self._is_torn:  # asked under the lock: it is set while somebody else's write is under way
                return False
            if content:
                self._is_torn = True
                await self._stream.send_all(content)
                self._is_torn = False
            # An empty chunk asks to end our direction: without it each side waits for the other to hang up.
            if b"" in chunks and isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
            return True
        finally:
            self._sending.release()


def _how_it_ended(protocol: ClientProtocol | ServerProtocol) -> Exception:
    received = protocol.close_rcvd
    if protocol.close_sent is not None and not protocol.close_rcvd_then_sent:
        error: Exception = trio.BrokenResourceError(f"closed by this side: {protocol.close_sent}")
    elif received is None:
        error = trio.BrokenResourceError("the connection broke without a closing handshake")
    else:
        error = trio.EndOfChannel(str(received))
    if protocol.parser_exc is not None and not isinstance(protocol.parser_exc, EOFError):
        error.__cause__ = protocol.parser_exc
    return error


async def connect(url: str, *, headers: Iterable[tuple[str, str]] = (), ssl: SSLContext | None = None) -> WebSocket:
    """Open a WebSocket to ``ws://…`` or ``wss://…``. Cancelled, it leaves nothing open.

    Raises:
        ConnectionFailed: the address is none, does not answer, or refuses.
    """
    try:
        uri = parse_uri(url)
        stream: trio.abc.Stream = await trio.open_tcp_stream(uri.host, uri.port)
        if uri.secure:
            stream = trio.SSLStream(stream, ssl or create_default_context(), server_hostname=uri.host)
    except (OSError, InvalidURI) as error:
        raise ConnectionFailed(f"cannot connect to {url}: {error}") from error
    protocol = ClientProtocol(uri, max_size=LARGEST_MESSAGE)
    request = protocol.connect()
    for name, value in headers:
        request.headers[name] = value
    protocol.send_request(request)
    socket = WebSocket(protocol, stream)
    try:
        await socket._flush()
        while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
            socket._feed(await stream.receive_some(CHUNK_BYTES))
        if protocol.handshake_exc is not None:
            raise protocol.handshake_exc
        return socket
    except (OSError, EOFError, InvalidHandshake, trio.BrokenResourceError) as error:
        await trio.aclose_forcefully(stream)
        raise ConnectionFailed(f"{url} refused the WebSocket: {error}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def accept(stream: trio.abc.Stream, received: bytes) -> "tuple[WebSocket, Any]":
    """Answer a handshake whose request is in ``received``: the connection, and the headers of the request.

    Raises:
        ConnectionFailed: the request is no handshake; it was refused with the reason.
    """
    protocol = ServerProtocol(max_size=LARGEST_MESSAGE)
    protocol.receive_data(received)
    request = next((event for event in protocol.events_received() if isinstance(event, Request)), None)
    if request is None:
        raise ConnectionFailed(f"no WebSocket handshake: {protocol.handshake_exc}")
    response: Response = protocol.accept(request)
    protocol.send_response(response)
    socket = WebSocket(protocol, stream)
    await socket._flush()
    if protocol.handshake_exc is not None:
        raise ConnectionFailed(f"no WebSocket handshake: {protocol.handshake_exc}") from protocol.handshake_exc
    return socket, request.headers
