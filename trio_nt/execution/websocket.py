"""A WebSocket client for the broker's update stream: the protocol of ``websockets`` over a Trio stream.

A chunk from the socket is taken whole: ``receive`` returns every message in it, so a burst of updates costs one step.
"""

import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio
from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from trio_nt.errors import ExecutionError

_CHUNK = 65_536


class UpdateSocket:
    """An open connection. One task reads, another may send."""

    def __init__(self, stream: trio.abc.Stream, protocol: ClientProtocol) -> None:
        self._stream = stream
        self._protocol = protocol
        self._sending = trio.Lock()
        self._parts: list[bytes] = []

    async def send(self, text: bytes) -> None:
        """Send one text message. A checkpoint."""
        self._protocol.send_text(text)
        await self._flush()

    async def ping(self) -> None:
        """Send a ping; the answer keeps the connection's read side busy. A checkpoint."""
        self._protocol.send_ping(b"")
        await self._flush()

    async def receive(self) -> list[bytes]:
        """Every whole message that has arrived, at least one. A checkpoint; cancelled, no message is lost.

        Raises:
            trio.EndOfChannel: the peer closed the connection.
            ExecutionError: it broke.
        """
        while True:
            messages = self._messages()
            await self._flush()
            if messages:
                return messages
            if self._protocol.state is not State.OPEN:
                raise trio.EndOfChannel
            await self._read()

    async def handshake(self) -> None:
        self._protocol.send_request(self._protocol.connect())
        await self._flush()
        while self._protocol.state is State.CONNECTING:
            if self._protocol.handshake_exc is not None:
                raise ExecutionError(f"the update stream refused us: {self._protocol.handshake_exc}")
            await self._read()
        if self._protocol.handshake_exc is not None:
            raise ExecutionError(f"the update stream refused us: {self._protocol.handshake_exc}")

    async def close(self) -> None:
        """Say goodbye as far as that goes without waiting, and close the stream."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            if self._protocol.state is State.OPEN:
                self._protocol.send_close()
                with contextlib.suppress(ExecutionError):  # it is gone already, which is what we are after
                    await self._flush()
        with trio.CancelScope() as scope:
            scope.cancel()
            await self._stream.aclose()

    def _messages(self) -> list[bytes]:
        messages: list[bytes] = []
        for event in self._protocol.events_received():
            if not isinstance(event, Frame) or event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                continue
            self._parts.append(bytes(event.data))
            if event.fin:
                messages.append(b"".join(self._parts))
                self._parts.clear()
        return messages

    async def _read(self) -> None:
        try:
            chunk = await self._stream.receive_some(_CHUNK)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ExecutionError("the update stream broke") from error
        try:
            if chunk:
                self._protocol.receive_data(chunk)
            else:
                self._protocol.receive_eof()
        except (WebSocketException, EOFError) as error:
            raise ExecutionError(f"the update stream broke: {error}") from error

    async def _flush(self) -> None:
        async with self._sending:
            chunks = self._protocol.data_to_send()
            try:
                for chunk in chunks:
                    if chunk:
                        await self._stream.send_all(chunk)
                    else:
                        await _send_eof(self._stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ExecutionError("the update stream broke") from error


async def _send_eof(stream: trio.abc.Stream) -> None:
    if isinstance(stream, trio.SocketStream):
        await stream.send_eof()


@asynccontextmanager
async def open_update_socket(url: str, *, timeout_s: float) -> AsyncIterator[UpdateSocket]:
    """Connect to a ``ws://`` or ``wss://`` URL.

    Raises:
        ExecutionError: it cannot be reached, or does not speak WebSocket.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    socket: UpdateSocket | None = None
    try:
        try:
            with trio.fail_after(timeout_s):
                stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
                socket = UpdateSocket(stream, ClientProtocol(parse_uri(url)))
                if secure:
                    context = ssl.create_default_context()
                    stream = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
                    socket = UpdateSocket(stream, ClientProtocol(parse_uri(url)))
                await socket.handshake()
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            raise ExecutionError(f"the update stream at {host}:{port} cannot be reached: {error}") from error
        yield socket
    finally:
        if socket is not None:
            await socket.close()
