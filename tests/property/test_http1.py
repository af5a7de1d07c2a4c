"""Plain HTTP messages: whatever is read here, h11 reads the same; what is cut short is waited for."""

import string

import h11
from hypothesis import given
from hypothesis import strategies as st

from trio_nt import http1

LIMIT = 1000
TOKEN = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=12)
VALUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12)
NAMED = st.sampled_from(["Host", "Content-Length", "Connection", "Transfer-Encoding", "Expect", "Upgrade", "host"])
LENGTH = st.sampled_from(["0", "2", "5", "05", "+2", "2 ", "x", "1e1", "99999", "keep-alive", "close", "chunked", ""])
FIELD = st.tuples(TOKEN | NAMED, VALUE | LENGTH).map(lambda pair: f"{pair[0]}: {pair[1]}")
BODY = st.binary(max_size=8)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Requests as they may come, most of them sound."""
    body = draw(BODY)
    fields = draw(st.lists(FIELD, max_size=3))
    if draw(st.integers(0, 9)):
        fields = ["Host: x", f"Content-Length: {len(body)}", *fields]
    line = f"{draw(st.sampled_from(['GET', 'POST', 'DELETE', 'get']))} {draw(st.sampled_from(['/', '/a?b=c', 'x y']))}"
    head = "\r\n".join([f"{line} HTTP/1.{draw(st.sampled_from('111110'))}", *draw(st.permutations(fields))])
    return head.encode("latin-1") + b"\r\n\r\n" + body


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    body = draw(BODY)
    fields = draw(st.lists(FIELD, max_size=3))
    if draw(st.integers(0, 9)):
        fields = [f"Content-Length: {len(body)}", *fields]
    status = draw(st.sampled_from(["200 OK", "200 ", "200", "204 ", "304 ", "404 Not Found", "100 Continue", "20 "]))
    head = "\r\n".join([f"HTTP/1.1 {status}", *draw(st.permutations(fields))])
    return head.encode("latin-1") + b"\r\n\r\n" + body


@st.composite
def torn(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """A message with a byte put in, taken out or cut off somewhere."""
    message = draw(messages)
    at = draw(st.integers(0, len(message)))
    return draw(st.sampled_from([message, message, message[:at] + draw(st.binary(max_size=2)) + message[at:],
                                 message[:at] + message[at + 1 :], message[:at]]))  # fmt: skip


def by_h11(connection: h11.Connection, received: bytes) -> tuple[h11.Request | h11.Response, bytes, int]:
    connection.receive_data(received)
    head = connection.next_event()
    assert isinstance(head, (h11.Request, h11.Response)), head
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage), event
    return head, body, len(received) - len(connection.trailing_data[0])


def headers_of(head: h11.Request | h11.Response) -> dict[str, str]:
    return {name.decode(): value.decode("latin-1") for name, value in head.headers}


@given(torn(requests()))
def test_a_request_that_is_plain_is_what_h11_reads(received: bytes) -> None:
    plain = http1.read_request(received, largest_body=LIMIT)
    if isinstance(plain, http1.Request):
        head, body, size = by_h11(h11.Connection(h11.SERVER), received)
        assert isinstance(head, h11.Request)
        assert (head.method.decode(), head.target.decode()) == (plain.method, plain.target)
        assert (headers_of(head), body, size) == (plain.headers, plain.body, plain.size)


@given(torn(responses()))
def test_an_answer_that_is_plain_is_what_h11_reads(received: bytes) -> None:
    plain = http1.read_response(received)
    if isinstance(plain, http1.Response):
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        client.send(h11.EndOfMessage())
        head, body, size = by_h11(client, received)
        assert isinstance(head, h11.Response)
        assert (head.status_code, head.reason.decode()) == (plain.status, plain.reason)
        assert (headers_of(head), body, size) == (plain.headers, plain.body, plain.size)


@given(requests(), st.data())
def test_a_request_that_is_cut_short_is_waited_for(whole: bytes, data: st.DataObject) -> None:
    if isinstance(plain := http1.read_request(whole, largest_body=LIMIT), http1.Request):
        part = whole[: data.draw(st.integers(0, plain.size - 1))]
        assert http1.read_request(part, largest_body=LIMIT) is http1.MORE
        assert http1.read_request(whole + part, largest_body=LIMIT) == plain


def test_what_is_written_is_read() -> None:
    content = http1.response_bytes(200, (("X-A", "1"), ("Content-Length", "2")), b"ok")
    assert http1.read_response(content) == (200, "", {"x-a": "1", "content-length": "2"}, b"ok", len(content))


def test_a_plain_request_is_read_here_and_an_odd_one_is_not() -> None:
    plain = b"POST /v2/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    assert isinstance(http1.read_request(plain, largest_body=LIMIT), http1.Request)
    for odd in (b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", b"Transfer-Encoding: chunked\r\n",
                b"Connection: close\r\n", b"Host: y\r\n", b" folded\r\n"):  # fmt: skip
        message = plain.replace(b"Host: x\r\n", b"Host: x\r\n" + odd)
        assert http1.read_request(message, largest_body=LIMIT) is http1.ODD, odd
    assert http1.read_request(b"G" * (http1.LARGEST_HEAD + 1), largest_body=LIMIT) is http1.ODD
    assert http1.read_request(plain, largest_body=1) is http1.ODD
