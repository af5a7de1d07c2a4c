"""Lets happen what ``faults.py`` decides: the shell between the venue and its sockets, there only if faults are on."""

import socket
import struct
from collections.abc import Awaitable, Callable

import trio

from trio_nt import alpaca
from trio_nt.exchange.api import Request, Response
from trio_nt.exchange.faults import FaultKind, Faults, StreamFaults
from trio_nt.websocket import WebSocket

_STATUS = (500, 502, 503, 504)
Handle = Callable[[Request], Response]
Encode = Callable[[Response], bytes]


class FaultyResponder:
    """Answers requests, or does worse.

    ``handle`` is the venue; ``settled`` waits until what it did may be told; ``now_ns`` is its clock.
    """

    def __init__(
        self, faults: Faults, handle: Handle, settled: Callable[[], Awaitable[None]], now_ns: Callable[[], int]
    ) -> None:
        self._faults = faults
        self._handle = handle
        self._settled = settled
        self._now_ns = now_ns
        self._answered = trio.Event()

    async def answer(self, stream: trio.SocketStream, request: Request, encode: Encode) -> bool:
        """Answer one request over its connection; whether the connection goes on."""
        fault = self._faults.of_request(request.method)
        if fault.delay_s:
            await trio.sleep(fault.delay_s)
        kind, settings = fault.kind, self._faults.settings
        if kind is FaultKind.DROP_REQUEST:
            await trio.sleep(settings.silence_s)
            return False
        if kind is FaultKind.REORDER:
            with trio.move_on_after(settings.delay_s):
                await self._answered.wait()
        response = self._respond(request, kind, fault.choice)
        await self._settled()
        if kind is FaultKind.DROP_RESPONSE:
            await trio.sleep(settings.silence_s)
            return False
        if kind is FaultKind.RESET:
            await stream.send_all(encode(response)[: 1 + int(fault.choice * 60)])
            reset(stream)
            return False
        await stream.send_all(encode(response))
        answered, self._answered = self._answered, trio.Event()
        answered.set()
        return True

    def _respond(self, request: Request, kind: FaultKind | None, choice: float) -> Response:
        if kind is FaultKind.RATE_LIMIT:
            return self._come_back_later()
        if kind is FaultKind.ERROR:
            if choice < 0.5:
                self._handle(request)
            return Response(_STATUS[int(choice * 8) % 4], b"<html>upstream trouble</html>")
        response = self._handle(request)
        if kind is FaultKind.DUPLICATE:
            second = self._handle(request)
            return response if choice < 0.5 else second
        return response

    def _come_back_later(self) -> Response:
        at_ns = self._now_ns() + int(self._faults.settings.rate_limit_s * 1e9)
        headers = (
            ("X-RateLimit-Limit", "200"),
            ("X-RateLimit-Remaining", "0"),
            ("X-RateLimit-Reset", str(-(-at_ns // 1_000_000_000))),
        )
        return Response(429, alpaca.encode({"code": alpaca.RATE_LIMITED, "message": "rate limit exceeded"}), headers)


class FaultySocket:
    """The sending end of a stream, with its faults."""

    def __init__(self, socket: WebSocket, stream: trio.SocketStream, faults: StreamFaults) -> None:
        self._socket = socket
        self._stream = stream
        self._faults = faults

    async def send(self, *messages: bytes, binary: bool) -> None:
        """Raises ``trio.BrokenResourceError`` when the connection was to break."""
        ready: list[bytes] = []
        for delivery in self._faults.of_messages(messages):
            if delivery.delay_s or delivery.message is None:
                await self._flush(ready, binary)
                await trio.sleep(delivery.delay_s)
            if delivery.message is None:
                reset(self._stream)
                raise trio.BrokenResourceError("a fault was asked for")
            ready.append(delivery.message)
        await self._flush(ready, binary)

    async def _flush(self, ready: list[bytes], binary: bool) -> None:
        if ready:
            await self._socket.send(*ready, binary=binary)
            ready.clear()


def reset(stream: trio.SocketStream) -> None:
    """Close a connection so that the other side sees a reset, not an end."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
