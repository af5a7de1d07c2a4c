"""The stream ``trade_updates``: connecting, saying who we are, and what comes over it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import msgspec
import trio

from trio_nt.alpaca import StreamMessage, decode, encode
from trio_nt.errors import ExecutionError
from trio_nt.model.orders import BrokerUpdate
from trio_nt.websocket import ConnectionFailed, WebSocket, connect

_CLOSE_S = 2.0
ReadUpdate: TypeAlias = Callable[[msgspec.Raw], BrokerUpdate | None]


@asynccontextmanager
async def open_updates(
    url: str, *, key: str, secret: str, timeout_s: float, read: ReadUpdate
) -> "AsyncIterator[Updates]":
    """Connect and listen; the connection is closed with the block.

    Args:
        url: of the stream, ``ws://…`` or ``wss://…``.
        read: makes an update of one message's data; None where it says nothing about an order.

    Raises:
        ExecutionError: the stream cannot be reached, does not answer in time, or refuses the keys.
    """
    receiver = await _connect(url, key, secret, timeout_s, read)
    try:
        yield receiver
    finally:
        with trio.move_on_after(_CLOSE_S, shield=True):
            await receiver.close()


async def _connect(url: str, key: str, secret: str, timeout_s: float, read: ReadUpdate) -> "Updates":
    try:
        with trio.fail_after(timeout_s):
            return await _listen(await connect(url), key, secret, read)
    except ConnectionFailed as error:
        raise ExecutionError(f"the update stream cannot be reached: {error}") from error
    except (trio.EndOfChannel, trio.BrokenResourceError) as error:
        raise ExecutionError(f"the update stream hung up: {error}") from error
    except trio.TooSlowError as error:
        raise ExecutionError("the update stream did not answer in time") from error


async def _listen(socket: WebSocket, key: str, secret: str, read: ReadUpdate) -> "Updates":
    receiver = Updates(socket, read)
    try:
        await socket.send(encode({"action": "authenticate", "data": {"key_id": key, "secret_key": secret}}))
        await receiver.expect("authorization")
        await socket.send(encode({"action": "listen", "data": {"streams": ["trade_updates"]}}))
        await receiver.expect("listening")
    except BaseException:
        with trio.move_on_after(_CLOSE_S, shield=True):
            await socket.close()
        raise
    return receiver


class Updates:
    """The stream ``trade_updates``."""

    def __init__(self, socket: WebSocket, read: ReadUpdate) -> None:
        self._socket = socket
        self._read = read
        self._early: list[bytes] = []

    async def close(self) -> None:
        await self._socket.close()

    async def expect(self, stream: str) -> None:
        """Wait for the answer to authenticate or listen. Raises ``ExecutionError`` where it is a no."""
        while True:
            messages = await self._socket.receive()
            for position, content in enumerate(messages):
                message = decode(content, StreamMessage)
                if message.stream not in (stream, "authorization"):
                    continue
                answer = decode(message.data, _StreamAnswer)
                if answer.status == "unauthorized" or answer.error_message:
                    raise ExecutionError(f"the update stream refused us: {answer.error_message or answer.status}")
                if message.stream == stream:
                    self._early += messages[position + 1 :]
                    return

    async def receive(self) -> Sequence[BrokerUpdate]:
        """All updates that are there, at least one. A checkpoint.

        Raises:
            trio.EndOfChannel: the stream has ended.
            trio.BrokenResourceError: it broke.
            ExecutionError: it said what has no meaning.
        """
        while True:
            contents: Sequence[bytes]
            contents, self._early = self._early or await self._socket.receive(), []
            updates = [update for content in contents if (update := self._decode(content)) is not None]
            if updates:
                return updates

    def _decode(self, content: bytes) -> BrokerUpdate | None:
        try:
            message = decode(content, StreamMessage)
        except msgspec.DecodeError as error:
            raise ExecutionError(f"the update stream said what has no meaning: {error}") from error
        return self._read(message.data) if message.stream == "trade_updates" else None


class _StreamAnswer(msgspec.Struct):
    status: str = ""
    error_message: str = ""
