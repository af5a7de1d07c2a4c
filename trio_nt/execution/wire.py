"""How the broker adapter's requests reach the other side: past httpx, or through a transport of it.

``httpx.AsyncClient`` would add cookies, redirects, proxies and authentication flows, none of which a broker's interface
has; its request and response objects alone cost more than reading and writing the bytes (see the ADR on this).
"""

import re
import time
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from trio_nt.errors import ExecutionError
from trio_nt.execution.transport import Answer, Connections, OnSent, Origin

_FIELD = re.compile(r"[\x21-\x7e]+")


class Wire(Protocol):
    """Errors of a wire are ``httpx.RequestError``s, whichever wire it is."""

    @property
    def url(self) -> str: ...

    async def send(self, method: str, path: str, content: bytes | None = None, on_sent: OnSent | None = None) -> Answer:
        """One request and its whole answer. ``on_sent`` is told when its last byte has left (``perf_counter_ns``)."""

    async def aclose(self) -> None: ...


class DirectWire:
    """Requests over connections of our own, their heads made beforehand."""

    def __init__(self, url: str, headers: Mapping[str, str], *, timeout_s: float, connections: int) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ExecutionError(f"the broker's address must begin with http:// or https:// and a host, was {url!r}")
        is_secure = parts.scheme == "https"
        self._origin = Origin(is_secure, parts.hostname, parts.port or (443 if is_secure else 80))
        self._prefix = parts.path
        for name, value in headers.items():
            if not _FIELD.fullmatch(value):
                raise ExecutionError(f"the value of {name} has characters that a header cannot carry")
        fields = {"Host": parts.netloc.rpartition("@")[2], **headers}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._connections = Connections(limit=connections)
        self._timeout_s = timeout_s

    async def send(self, method: str, path: str, content: bytes | None = None, on_sent: OnSent | None = None) -> Answer:
        length = "" if content is None else f"Content-Length: {len(content)}\r\n"
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._head}{length}\r\n".encode("ascii")
        return await self._connections.request(
            self._origin,
            head if content is None else head + content,
            connect_s=self._timeout_s,
            read_s=self._timeout_s,
            on_sent=on_sent,
        )

    async def aclose(self) -> None:
        await self._connections.aclose()


class HttpxWire:
    """Requests through an ``httpx`` transport of the caller's."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport, url: str, headers: Mapping[str, str], *, timeout_s: float
    ) -> None:
        self.url = url.rstrip("/")
        self._transport = transport
        self._headers = httpx.Headers(headers)
        self._timeout = dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)

    async def send(self, method: str, path: str, content: bytes | None = None, on_sent: OnSent | None = None) -> Answer:
        extensions: dict[str, object] = {"timeout": self._timeout}
        if on_sent is not None:
            extensions["trace"] = _SentTrace(on_sent)
        request = httpx.Request(method, self.url + path, headers=self._headers, content=content, extensions=extensions)
        response = await self._transport.handle_async_request(request)
        response.request = request
        try:
            await response.aread()
        finally:
            await response.aclose()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, response.reason_phrase, headers, response.content)

    async def aclose(self) -> None:
        await self._transport.aclose()


class _SentTrace:
    """httpcore's hook into a request: when its last byte has left."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell

    async def __call__(self, event: str, info: object) -> None:
        if event == "http11.send_request_body.complete":
            self._tell(time.perf_counter_ns())
