"""HTTP/1.1 messages of the plainest kind, each read by one regular expression.

A broker's requests and answers are small, whole and many, and a general parser costs more than all else that is done
with them. So what is plain is read here, and everything else (chunks, upgrades, ``Expect``, a header twice, anything
doubtful) is ``ODD``: it is for h11, which reads it from its first byte. Pure.

Plain is a message with a known length, a head of at most 16 KiB in this form alone, and no wish about its connection
but to keep it.
"""

import re
from enum import Enum, auto
from typing import Final, NamedTuple

LARGEST_HEAD = 16_384
_FIELDS = rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*)\r\n"
_REQUEST = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]+) HTTP/1\.1\r\n" + _FIELDS)
_RESPONSE = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: ([\t\x20-\x7e]*))?\r\n" + _FIELDS)
_FOR_H11 = frozenset({"transfer-encoding", "upgrade", "expect", "trailer", "te"})
_NO_CONTENT = 204


class Unread(Enum):
    """Why there is no message (yet): more bytes are needed, or it is not plain."""

    MORE = auto()
    ODD = auto()


MORE: Final = Unread.MORE
ODD: Final = Unread.ODD


class Request(NamedTuple):
    """Header names are in lower case; ``size`` is how many bytes the message took."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    size: int


class Response(NamedTuple):
    """Header names are in lower case; ``size`` is how many bytes the message took."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes
    size: int


def read_request(received: bytes | bytearray, *, largest_body: int) -> Request | Unread:
    """The first message of what was received by a server."""
    head = _head(_REQUEST, received)
    if isinstance(head, Unread):
        return head
    match, headers = head
    length = _length(headers, 0)
    if "host" not in headers or length is None or length > largest_body:
        return ODD
    end = match.end() + length
    if len(received) < end:
        return MORE
    body = bytes(received[match.end() : end])
    return Request(match[1].decode("ascii"), match[2].decode("ascii"), headers, body, end)


def read_response(received: bytes | bytearray) -> Response | Unread:
    """The first message of what was received by a client that did not ask by HEAD or CONNECT."""
    head = _head(_RESPONSE, received)
    if isinstance(head, Unread):
        return head
    match, headers = head
    status = int(match[1])
    length = _length(headers, 0 if status == _NO_CONTENT else None)
    if length is None or (status == _NO_CONTENT and length) or status == 304:
        return ODD
    end = match.end() + length
    if len(received) < end:
        return MORE
    return Response(status, (match[2] or b"").decode("ascii"), headers, bytes(received[match.end() : end]), end)


def _head(
    pattern: "re.Pattern[bytes]", received: bytes | bytearray
) -> "tuple[re.Match[bytes], dict[str, str]] | Unread":
    match = pattern.match(received)
    if match is None or match.end() > LARGEST_HEAD:
        return MORE if match is None and len(received) <= LARGEST_HEAD and b"\r\n\r\n" not in received else ODD
    headers: dict[str, str] = {}
    lines = match[3].decode("latin-1").split("\r\n")
    for line in lines[:-1]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip(" \t")
    if len(headers) != len(lines) - 1 or not _FOR_H11.isdisjoint(headers):
        return ODD
    if headers.get("connection", "keep-alive").lower() != "keep-alive":
        return ODD
    return match, headers


def _length(headers: dict[str, str], default: int | None) -> int | None:
    text = headers.get("content-length")
    if text is None:
        return default
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def response_bytes(status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> bytes:
    """An answer of the plain kind; names and values are the caller's own and are not checked."""
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers])
    return f"HTTP/1.1 {status} \r\n{fields}\r\n".encode("latin-1") + body
