"""Requests and answers that two readers may read differently. Each is refused, or goes on in one form only; both fronts agree.

A case is data: what the client sends, and what becomes of it. Behind each come the bytes of a second request, NEXT: it is served
where the first one's end is clear, and is nobody's request where it is not.
"""

import asyncio
import re
from dataclasses import dataclass, field

import pytest

from sigward.front import NativeFront
from sigward.mitm import Front
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_hooks import idle
from tests.conformance.test_http2 import Http2Client, Stream
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import Received, Response, Upstream, assert_signed, connected, read_response

NEXT = request("GET", "/next")
HELLO = b"5\r\nhello\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Refused:
    """With this status and sigward's words; the connection ends, and nothing that follows is a request."""

    status: int


@dataclass(frozen=True)
class Declined:
    """With this status and sigward's words. Its end is clear: what follows is served, or the connection ends."""

    status: int


@dataclass(frozen=True)
class Forwarded:
    """What the upstream gets. `headers`: these values, in order; `absent`: no such header; `closes`: the connection ends then."""

    target: str = "/"
    method: str = "GET"
    body: bytes = b""
    headers: dict[str, list[str]] = field(default_factory=dict)
    absent: tuple[str, ...] = ("transfer-encoding", "expect")
    closes: bool = False
    signed: bool = True
    """False: botocore's code, the oracle, would sign it in another form."""


def raw(*lines: str | bytes, body: bytes = b"") -> bytes:
    """A head of these lines, and what follows it."""
    return b"\r\n".join([*(line.encode("latin-1") if isinstance(line, str) else line for line in lines), b"", b""]) + body


def get(*headers: str | bytes, line: str | bytes = "GET / HTTP/1.1", body: bytes = b"") -> bytes:
    return raw(line, f"Host: {HOST}", *headers, body=body)


def post(*headers: str | bytes, body: bytes = b"") -> bytes:
    return get(*headers, line="POST / HTTP/1.1", body=body)


def chunked(body: bytes) -> bytes:
    return post("Transfer-Encoding: chunked", body=body)


HELD = Forwarded(method="POST", body=b"hello", headers={"content-length": ["5"]})

LENGTHS: dict[str, tuple[bytes, Refused | Declined | Forwarded]] = {
    "length, then chunks": (post("Content-Length: 5", "Transfer-Encoding: chunked", body=HELLO), Refused(400)),
    "chunks, then length": (post("Transfer-Encoding: chunked", "Content-Length: 5", body=HELLO), Refused(400)),
    "a length of 0, then chunks": (post("Content-Length: 0", "Transfer-Encoding: chunked", body=HELLO), Refused(400)),
    "the same length twice": (post("Content-Length: 5", "Content-Length: 5", body=b"hello"), Refused(400)),
    "two lengths": (post("Content-Length: 5", "Content-Length: 6", body=b"hello"), Refused(400)),
    "a list of equal lengths": (post("Content-Length: 5, 5", body=b"hello"), Refused(400)),
    "a list of lengths": (post("Content-Length: 5, 6", body=b"hello"), Refused(400)),
    "a length with a plus": (post("Content-Length: +5", body=b"hello"), Refused(400)),
    "a length with a minus": (post("Content-Length: -5", body=b"hello"), Refused(400)),
    "a hexadecimal length": (post("Content-Length: 0x5", body=b"hello"), Refused(400)),
    "a length with a fraction": (post("Content-Length: 5.0", body=b"hello"), Refused(400)),
    "a length with a blank within": (post("Content-Length: 1 0", body=b"hello"), Refused(400)),
    "a length with a zero before": (post("Content-Length: 05", body=b"hello"), Refused(400)),
    "a folded length": (post("Content-Length:", " 5", body=b"hello"), Refused(400)),
    "a length with a fold behind": (post("Content-Length: 5", " ", body=b"hello"), Refused(400)),
    "a length of nothing": (post("Content-Length:", body=b"hello"), Refused(400)),
    "a length of 2^64 + 5": (post("Content-Length: 18446744073709551621", body=b"hello"), Refused(400)),
    "a length in other digits": (post(b"Content-Length: \xc2\xb2", body=b"hello"), Refused(400)),
    "a length among blanks": (post("Content-Length: \t 5 \t", body=b"hello"), HELD),
    "a body of GET": (get("Content-Length: 5", body=b"hello"), Forwarded(body=b"hello", headers={"content-length": ["5"]})),
    "a body that looks like a request": (
        post(f"Content-Length: {len(NEXT)}", body=NEXT),
        Forwarded(method="POST", body=NEXT, headers={"content-length": [str(len(NEXT))]}),
    ),
}

CODINGS: dict[str, tuple[bytes, Refused | Declined | Forwarded]] = {
    "chunked": (chunked(HELLO), HELD),
    "chunked in capitals": (post("Transfer-Encoding: CHUNKED", body=HELLO), HELD),
    "chunked among tabs": (post("Transfer-Encoding: \tchunked \t", body=HELLO), HELD),
    "chunked, identity": (post("Transfer-Encoding: chunked, identity", body=HELLO), Refused(501)),
    "identity": (post("Transfer-Encoding: identity", "Content-Length: 5", body=b"hello"), Refused(400)),
    "identity alone": (post("Transfer-Encoding: identity", body=HELLO), Refused(501)),
    "identity, chunked": (post("Transfer-Encoding: identity, chunked", body=HELLO), Refused(501)),
    "gzip, chunked": (post("Transfer-Encoding: gzip, chunked", body=HELLO), Refused(501)),
    "xchunked": (post("Transfer-Encoding: xchunked", body=HELLO), Refused(501)),
    "chunkedx": (post("Transfer-Encoding: chunkedx", body=HELLO), Refused(501)),
    "chunked with a parameter": (post("Transfer-Encoding: chunked;q=1", body=HELLO), Refused(501)),
    "chunked in quotes": (post('Transfer-Encoding: "chunked"', body=HELLO), Refused(501)),
    "chunked in Cyrillic": (post("Transfer-Encoding: сhunked".encode(), body=HELLO), Refused(501)),
    "chunked on a fold of its own": (post("Transfer-Encoding:", " chunked", body=HELLO), Refused(400)),
    "chunked, and a fold behind": (post("Transfer-Encoding: chunked", " x", body=HELLO), Refused(400)),
    "no coding": (post("Transfer-Encoding:", body=HELLO), Refused(400)),
    "chunked, chunked": (post("Transfer-Encoding: chunked, chunked", body=HELLO), Refused(400)),
    "chunked twice": (post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=HELLO), Refused(400)),
    "chunked, then identity on a line": (post("Transfer-Encoding: chunked", "Transfer-Encoding: identity", body=HELLO), Refused(501)),
    "chunked behind a vertical tab": (post("Transfer-Encoding: \x0bchunked", body=HELLO), Refused(400)),
    "chunked behind a form feed": (post("Transfer-Encoding: \x0cchunked", body=HELLO), Refused(400)),
    "chunked behind a NUL": (post("Transfer-Encoding: \x00chunked", body=HELLO), Refused(400)),
    "chunked and a bare CR": (post("Transfer-Encoding: chunked\rX: y", body=HELLO), Refused(400)),
    "chunked on a folded line": (
        post("X: y", " Transfer-Encoding: chunked"),
        Forwarded(method="POST", headers={"x": ["y Transfer-Encoding: chunked"]}),
    ),
    "chunks in HTTP/1.0": (
        raw("POST / HTTP/1.0", f"Host: {HOST}", "Transfer-Encoding: chunked", body=HELLO),
        Refused(400),
    ),
}

CHUNKS: dict[str, tuple[bytes, Refused | Declined | Forwarded]] = {
    "an extension": (chunked(b'5;a=b;c="d e"\r\nhello\r\n0;z\r\n\r\n'), HELD),
    "a size in capitals": (chunked(b"A\r\n0123456789\r\n0\r\n\r\n"), Forwarded(method="POST", body=b"0123456789")),
    "zeros before a size": (chunked(b"0005\r\nhello\r\n0000\r\n\r\n"), HELD),
    "blanks after a size": (chunked(b"5 \t\r\nhello\r\n0 \r\n\r\n"), HELD),
    "a trailer": (chunked(b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"), HELD),
    "a trailer that frames": (
        chunked(b"5\r\nhello\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\nHost: other\r\n\r\n"),
        HELD,
    ),
    "a blank before a size": (chunked(b" 5\r\nhello\r\n0\r\n\r\n"), Refused(400)),
    "a plus before a size": (chunked(b"+5\r\nhello\r\n0\r\n\r\n"), Refused(400)),
    "a minus before a size": (chunked(b"-5\r\nhello\r\n0\r\n\r\n"), Refused(400)),
    "0x before a size": (chunked(b"0x5\r\nhello\r\n0\r\n\r\n"), Refused(400)),
    "an underscore in a size": (chunked(b"0_5\r\nhello\r\n0\r\n\r\n"), Refused(400)),
    "a size with another letter": (chunked(b"5g\r\nhello\r\n0\r\n\r\n"), Refused(400)),
    "two sizes": (chunked(b"5 5\r\nhello\r\n0\r\n\r\n"), Refused(400)),
    "no size": (chunked(b"\r\nhello\r\n0\r\n\r\n"), Refused(400)),
    "an extension and no size": (chunked(b";a=b\r\nhello\r\n0\r\n\r\n"), Refused(400)),
    "a size of 2^64 + 5": (chunked(b"10000000000000005\r\nhello\r\n0\r\n\r\n"), Refused(400)),
    "a size of 20 digits": (chunked(b"ffffffffffffffffffff\r\nhello\r\n0\r\n\r\n"), Refused(400)),
    "a size of 40 digits": (chunked(b"f" * 40 + b"\r\nhello\r\n0\r\n\r\n"), Refused(400)),
    "a bare LF after a size": (chunked(b"5\nhello\r\n0\r\n\r\n"), Refused(400)),
    "a bare CR after a size": (chunked(b"5\rhello\r\n0\r\n\r\n"), Refused(400)),
    "a bare LF in an extension": (chunked(b"5;a\nb\r\nhello\r\n0\r\n\r\n"), Refused(400)),
    "a bare CR in an extension": (chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n"), Refused(400)),
    "no line end after a chunk": (chunked(b"5\r\nhello0\r\n\r\n"), Refused(400)),
    "other bytes after a chunk": (chunked(b"5\r\nhelloXX0\r\n\r\n"), Refused(400)),
    "a bare LF after a chunk": (chunked(b"5\r\nhello\n0\r\n\r\n"), Refused(400)),
    "a bare LF after the last size": (chunked(b"5\r\nhello\r\n0\n\r\n"), Refused(400)),
    "a chunk longer than it says": (chunked(b"3\r\nhello\r\n0\r\n\r\n"), Refused(400)),
    "no line after the last chunk": (chunked(b"5\r\nhello\r\n0\r\n"), Refused(400)),
    "a trailer with a blank in its name": (chunked(b"5\r\nhello\r\n0\r\nX Sum: 1\r\n\r\n"), Refused(400)),
    "a trailer with a bare LF": (chunked(b"5\r\nhello\r\n0\r\nX-Sum: 1\nX: y\r\n\r\n"), Refused(400)),
    "a trailer with a NUL": (chunked(b"5\r\nhello\r\n0\r\nX-Sum: \x00\r\n\r\n"), Refused(400)),
}

HEADERS: dict[str, tuple[bytes, Refused | Declined | Forwarded]] = {
    "a folded value": (get("X-A: one", "  two", "\tthree", "X-B: 1"), Forwarded(headers={"x-a": ["one two three"], "x-b": ["1"]})),
    "a fold before all headers": (raw("GET / HTTP/1.1", " X-A: 1", f"Host: {HOST}"), Refused(400)),
    "line ends of LF": (f"GET / HTTP/1.1\nHost: {HOST}\n\n".encode(), Refused(400)),
    "one line end of LF": (get("X-A: 1\nX-B: 2"), Refused(400)),
    "an end of LF": (f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\n".encode(), Refused(400)),
    "line ends of CR": (get("X-A: 1\rX-B: 2"), Refused(400)),
    "a CR before the line end": (get("X-A: 1\r"), Refused(400)),
    "a NUL in a value": (get("X-A: 1\x002"), Refused(400)),
    "a control byte in a value": (get("X-A: 1\x012"), Refused(400)),
    "DEL in a value": (get("X-A: 1\x7f2"), Refused(400)),
    "runs of blanks in a value": (get("X-A:  1   2\t 3  "), Forwarded(headers={"x-a": ["1 2\t 3"]})),
    "a tab in a value": (get("X-A: 1\t2"), Forwarded(headers={"x-a": ["1\t2"]})),
    "a value of no ASCII": (get(b"X-A: \xff\xe9"), Forwarded(headers={"x-a": ["\xff\xe9"]}, signed=False)),
    "an empty value": (get("X-A:"), Forwarded(headers={"x-a": [""]})),
    "a blank before the colon": (get("X-A : 1"), Refused(400)),
    "a blank before the colon of a length": (post("Content-Length : 5", body=b"hello"), Refused(400)),
    "a tab before the colon of chunks": (post("Transfer-Encoding\t: chunked", body=HELLO), Refused(400)),
    "a blank in a name": (get("X A: 1"), Refused(400)),
    "a NUL in a name": (get("X\x00A: 1"), Refused(400)),
    "a name of no ASCII": (get(b"X\xe9: 1"), Refused(400)),
    "a name with brackets": (get("X(A): 1"), Refused(400)),
    "no name": (get(": 1"), Refused(400)),
    "no colon": (get("X-A"), Refused(400)),
    "a name of all marks": (get("!#$%&'*+-.^_`|~1: 1"), Forwarded(headers={"!#$%&'*+-.^_`|~1": ["1"]})),
    "a value of 8 KiB": (get("X-A: " + "a" * 8192), Forwarded(headers={"x-a": ["a" * 8192]})),
    "a value of 60 KiB": (get("X-A: " + "a" * 60_000), Forwarded(headers={"x-a": ["a" * 60_000]})),
    "a value of 64 KiB": (get("X-A: " + "a" * 65_536), Declined(431)),
    "a name of 64 KiB": (get("X" * 65_530 + ": 1"), Declined(431)),
    "200 headers": (get(*(f"X-{n}: {n}" for n in range(199))), Forwarded(headers={f"x-{n}": [str(n)] for n in range(199)})),
    "201 headers": (get(*(f"X-{n}: {n}" for n in range(200))), Declined(431)),
}

HOSTS: dict[str, tuple[bytes, Refused | Declined | Forwarded]] = {
    "no Host": (raw("GET / HTTP/1.1"), Declined(400)),
    "an empty Host": (raw("GET / HTTP/1.1", "Host:"), Declined(400)),
    "two Hosts": (raw("GET / HTTP/1.1", f"Host: {HOST}", f"Host: {BUCKET_HOST}"), Declined(400)),
    "the same Host twice": (raw("GET / HTTP/1.1", f"Host: {HOST}", f"Host: {HOST}"), Declined(400)),
    "a folded Host": (raw("GET / HTTP/1.1", "Host:", f" {HOST}"), Refused(400)),
    "a list of Hosts": (raw("GET / HTTP/1.1", f"Host: {HOST}, {HOST}"), Declined(400)),
    "a Host with a user": (raw("GET / HTTP/1.1", f"Host: user@{HOST}"), Declined(400)),
    "a Host with a user and a password": (raw("GET / HTTP/1.1", f"Host: user:word@{HOST}"), Declined(400)),
    "a Host with a path": (raw("GET / HTTP/1.1", f"Host: {HOST}/x"), Declined(400)),
    "a Host with a query": (raw("GET / HTTP/1.1", f"Host: {HOST}?x"), Declined(400)),
    "a Host with a scheme": (raw("GET / HTTP/1.1", f"Host: https://{HOST}"), Declined(400)),
    "a Host with a blank": (raw("GET / HTTP/1.1", f"Host: {HOST} x"), Declined(400)),
    "a Host with a wrong port": (raw("GET / HTTP/1.1", f"Host: {HOST}:x"), Declined(400)),
    "a Host with a port too large": (raw("GET / HTTP/1.1", f"Host: {HOST}:65536"), Declined(400)),
    "a Host with a backslash": (raw("GET / HTTP/1.1", f"Host: {HOST}\\.evil.test"), Declined(400)),
    "a Host of no ASCII": (raw("GET / HTTP/1.1", f"Host: é{HOST}".encode()), Declined(400)),
    "the target names another": (raw(f"GET http://{BUCKET_HOST}/ HTTP/1.1", f"Host: {HOST}"), Declined(421)),
    "the target names the same": (raw(f"GET http://{HOST}/x HTTP/1.1", f"Host: {HOST}"), Forwarded("/x", headers={"host": [HOST]})),
}

LINES: dict[str, tuple[bytes, Refused | Declined | Forwarded]] = {
    "two blanks after the method": (get(line="GET  / HTTP/1.1"), Refused(400)),
    "two blanks after the target": (get(line="GET /  HTTP/1.1"), Refused(400)),
    "a tab after the method": (get(line="GET\t/ HTTP/1.1"), Refused(400)),
    "a blank before the method": (get(line=" GET / HTTP/1.1"), Refused(400)),
    "a blank after the version": (get(line="GET / HTTP/1.1 "), Refused(400)),
    "a blank in the target": (get(line="GET /a b HTTP/1.1"), Refused(400)),
    "a tab in the target": (get(line="GET /a\tb HTTP/1.1"), Refused(400)),
    "a NUL in the target": (get(line="GET /a\x00b HTTP/1.1"), Refused(400)),
    "a control byte in the target": (get(line="GET /a\x01b HTTP/1.1"), Refused(400)),
    "DEL in the target": (get(line="GET /a\x7fb HTTP/1.1"), Refused(400)),
    "a bare CR in the target": (get(line="GET /a\rb HTTP/1.1"), Refused(400)),
    "a fragment": (get(line="GET /a#b HTTP/1.1"), Refused(400)),
    "a fragment in a query": (get(line="GET /?a=1#b HTTP/1.1"), Refused(400)),
    "a target without a slash": (get(line="GET a HTTP/1.1"), Refused(400)),
    "a target that is a query": (get(line="GET ?a HTTP/1.1"), Refused(400)),
    "a target of 17,000 bytes": (get(line=f"GET /{'a' * 17_000} HTTP/1.1"), Declined(414)),
    "a target of 70,000 bytes": (get(line=f"GET /{'a' * 70_000} HTTP/1.1"), Declined(414)),
    "GET *": (get(line="GET * HTTP/1.1"), Declined(400)),
    "another scheme": (get(line=f"GET ftp://{HOST}/ HTTP/1.1"), Refused(400)),
    "a target with a user": (get(line=f"GET http://user@{HOST}/ HTTP/1.1"), Refused(400)),
    "a method in small letters": (get(line="get / HTTP/1.1"), Forwarded(method="get", signed=False)),
    "a method of one's own": (get(line="M-SEARCH / HTTP/1.1"), Forwarded(method="M-SEARCH")),
    "a method with a bracket": (get(line="GE(T / HTTP/1.1"), Refused(400)),
    "a method with a NUL": (get(line="GE\x00T / HTTP/1.1"), Refused(400)),
    "a method of no ASCII": (get(line="GÉT / HTTP/1.1"), Refused(400)),
    "no version": (get(line="GET /"), Refused(400)),
    "no target": (get(line="GET HTTP/1.1"), Refused(400)),
    "a version in small letters": (get(line="GET / http/1.1"), Refused(400)),
    "another protocol": (get(line="GET / RTSP/1.0"), Refused(400)),
    "HTTP/1": (get(line="GET / HTTP/1"), Refused(400)),
    "HTTP/1.10": (get(line="GET / HTTP/1.10"), Refused(400)),
    "HTTP/01.1": (get(line="GET / HTTP/01.1"), Refused(400)),
    "HTTP/1.2": (get(line="GET / HTTP/1.2"), Refused(505)),
    "HTTP/0.9": (get(line="GET / HTTP/0.9"), Refused(505)),
    "HTTP/2.0": (get(line="GET / HTTP/2.0"), Refused(505)),
    "HTTP/3.0": (get(line="GET / HTTP/3.0"), Refused(505)),
    "HTTP/1.0": (get(line="GET / HTTP/1.0"), Forwarded(closes=True)),
    "an empty line before": (b"\r\n" + get(), Forwarded()),
    "three empty lines before": (b"\r\n\r\n\r\n" + get(), Forwarded()),
    "a line before": (b"x\r\n" + get(), Refused(400)),
    "bytes of TLS": (b"\x80\x2e\x01\x00\x02" + get(), Refused(400)),
}

SHAPES = {
    f"{group}: {name}": case
    for group, cases in {"length": LENGTHS, "coding": CODINGS, "chunks": CHUNKS, "header": HEADERS, "host": HOSTS, "line": LINES}.items()
    for name, case in cases.items()
}


async def exchanged(address: tuple[str, int], sent: bytes) -> tuple[list[Response], bytes]:
    """Sends it; reads answers until there are two or the connection ends. Also returns what came that is no answer."""
    answers: list[Response] = []
    async with connected(address) as (reader, writer), asyncio.timeout(10):
        writer.write(sent)
        while len(answers) < 2:
            try:
                answers.append(await read_response(reader))
            except asyncio.IncompleteReadError as error:
                return answers, error.partial
        return answers, b""


def assert_arrived(received: Received, expected: Forwarded) -> None:
    assert (received.method, received.target, received.body) == (expected.method, expected.target, expected.body)
    for name, values in expected.headers.items():
        # A fold may have become any number of blanks.
        assert [re.sub(" +", " ", value) for value in received.all(name)] == values, name
    for name in expected.absent:
        assert received.all(name) == [], name
    if expected.signed:
        assert_signed(received, HOST)


@pytest.mark.parametrize("name", SHAPES)
async def test_a_request_of_doubtful_shape(proxy: Proxy, name: str) -> None:
    sent, expected = SHAPES[name]
    await judge(proxy, proxy.reverse, sent, NEXT, expected)


async def judge(proxy: Proxy, address: tuple[str, int], sent: bytes, following: bytes, expected: Refused | Declined | Forwarded) -> None:
    """Sends a request and the one that follows, and holds what becomes of them to what is expected."""
    answers, rest = await exchanged(address, sent + following)
    await idle(proxy)
    arrived = proxy.upstream.received
    assert rest == b""
    if isinstance(expected, Forwarded):
        assert [answer.status for answer in answers] == [200] * (1 if expected.closes else 2)
        assert_arrived(arrived[0], expected)
        assert [received.target for received in arrived[1:]] == ([] if expected.closes else ["/next"])
        return
    assert (answers[0].status, bool(answers[0].get("x-sigward-error"))) == (expected.status, True)
    assert b"sigward: " in answers[0].body
    ended = isinstance(expected, Refused) or answers[0].get("connection") == "close"
    assert answers[0].get("connection") == ("close" if ended else None)
    assert [answer.status for answer in answers[1:]] == ([] if ended else [200])
    assert [received.target for received in arrived] == ([] if ended else ["/next"])


TO_A_PROXY: dict[str, tuple[bytes, Refused | Declined | Forwarded]] = {
    "a path": (get(), Refused(400)),
    "a path without Host": (raw("GET / HTTP/1.1"), Refused(400)),
    "GET *": (get(line="GET * HTTP/1.1"), Refused(400)),
    "no Host": (raw(f"GET http://{HOST}/ HTTP/1.1"), Refused(400)),
    "another Host": (raw(f"GET http://{HOST}/ HTTP/1.1", f"Host: {BUCKET_HOST}"), Declined(421)),
    "two Hosts": (raw(f"GET http://{HOST}/ HTTP/1.1", f"Host: {HOST}", f"Host: {HOST}"), Refused(400)),
    "a user": (raw(f"GET http://user@{HOST}/ HTTP/1.1", f"Host: {HOST}"), Refused(400)),
    "no host": (raw("GET http:///x HTTP/1.1", f"Host: {HOST}"), Refused(400)),
    "another scheme": (raw(f"GET ftp://{HOST}/ HTTP/1.1", f"Host: {HOST}"), Refused(400)),
    "no path": (raw(f"GET http://{HOST} HTTP/1.1", f"Host: {HOST}"), Forwarded("/")),
    "a query alone": (raw(f"GET http://{HOST}?a=1 HTTP/1.1", f"Host: {HOST}"), Forwarded("/?a=1")),
    "a scheme in capitals": (raw(f"GET HTTP://{HOST}/x HTTP/1.1", f"Host: {HOST}"), Forwarded("/x")),
    "CONNECT to a path": (raw("CONNECT /x HTTP/1.1", f"Host: {HOST}"), Refused(400)),
    "CONNECT with a scheme": (raw(f"CONNECT https://{HOST}:443 HTTP/1.1", f"Host: {HOST}"), Refused(400)),
    "CONNECT without a port": (raw(f"CONNECT {HOST} HTTP/1.1", f"Host: {HOST}"), Refused(400)),
    "CONNECT with a user": (raw(f"CONNECT user@{HOST}:443 HTTP/1.1", f"Host: {HOST}"), Refused(400)),
    "CONNECT with a port too large": (raw(f"CONNECT {HOST}:65536 HTTP/1.1", f"Host: {HOST}"), Refused(400)),
    "CONNECT with two Hosts": (raw(f"CONNECT {HOST}:443 HTTP/1.1", "Host: a", "Host: b"), Refused(400)),
    "CONNECT with length and chunks": (
        raw(f"CONNECT {HOST}:443 HTTP/1.1", f"Host: {HOST}", "Content-Length: 5", "Transfer-Encoding: chunked"),
        Refused(400),
    ),
}

NOT_OF_MITMPROXY: dict[str, tuple[Refused, str]] = {
    "a query alone": (Refused(400), "it takes what stands before the first slash for the authority"),
}
"""Where the fronts differ, and why."""


@pytest.mark.parametrize("name", TO_A_PROXY)
async def test_a_request_of_doubtful_shape_to_a_forward_listener(proxy: Proxy, name: str) -> None:
    sent, expected = TO_A_PROXY[name]
    if isinstance(proxy.front, Front) and name in NOT_OF_MITMPROXY:
        expected = NOT_OF_MITMPROXY[name][0]
    await judge(proxy, proxy.forward, sent, get(line=f"GET http://{HOST}/next HTTP/1.1"), expected)


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
IN_THE_CLEAR = {
    Front: "refused: mitmproxy knows HTTP/2 by ALPN alone",
    NativeFront: "served: a client may know beforehand that the listener speaks it (RFC 9113, section 3.3)",
}


@pytest.mark.parametrize("listener", ["forward", "reverse", "fixed"])
async def test_http2_in_the_clear(proxy: Proxy, listener: str) -> None:
    async with connected(getattr(proxy, listener)) as (reader, writer):
        if IN_THE_CLEAR[type(proxy.front)].startswith("served"):
            client = Http2Client(reader, writer)
            host = "127.0.0.1" if listener == "fixed" else HOST
            head = [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", "/")]
            client.streams[1] = Stream()
            client.connection.send_headers(1, head, end_stream=True)
            client.flush()
            [stream] = await client.finished(1)
            assert stream.body == b"ok"
            assert_signed(proxy.upstream.received[0], HOST)
            return
        writer.write(PREFACE + b"\0\0\0\4\0\0\0\0\0")
        answer = await asyncio.wait_for(read_response(reader), 10)
        assert (answer.status, answer.get("connection")) == (505, "close")
        assert await asyncio.wait_for(reader.read(), 10) == b""
    assert proxy.upstream.received == []


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("size", [1, 100])
async def test_the_body_of_a_refused_request_is_no_request(start: Start, upstream: Upstream, framing: str, size: int) -> None:
    """It is read to its end, or the connection ends. `size`: held, or longer than what is."""
    routes = [{"host": HOST, "path": "/denied", "action": "deny"}, {"host": "*", "connect": f"127.0.0.1:{upstream.port}"}]
    proxy = await start(upstream, body={"hold": 1000}, routes=routes)
    body = request("GET", "/smuggled") * size
    if framing == "length":
        sent = request("POST", "/denied", body=body)
    else:
        sent = request("POST", "/denied", "Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    await judge(proxy, proxy.reverse, sent, NEXT, Declined(403))


HTTP2_HEAD = {":method": "GET", ":scheme": "https", ":authority": HOST, ":path": "/"}
Fields = list[tuple[str, str]]


def fields(*more: tuple[str, str], **pseudo: str | None) -> Fields:
    """A request's fields. `method=`, `path=`, …: other pseudo-headers than the usual; None: without."""
    head = HTTP2_HEAD | {f":{name}": value for name, value in pseudo.items()}
    return [(name, value) for name, value in head.items() if value is not None] + list(more)


HTTP2_SHAPES: dict[str, tuple[Fields, bytes]] = {
    "CR LF in a value": (fields(("x-a", "1\r\nx-b: 2")), b""),
    "LF in a value": (fields(("x-a", "1\nx-b: 2")), b""),
    "CR in a value": (fields(("x-a", "1\rx-b: 2")), b""),
    "NUL in a value": (fields(("x-a", "1\0")), b""),
    "a colon in a name": (fields(("x:a", "1")), b""),
    "CR LF in a name": (fields(("x\r\ny", "1")), b""),
    "a blank in a name": (fields(("x a", "1")), b""),
    "a capital in a name": (fields(("X-a", "1")), b""),
    "no name": (fields(("", "1")), b""),
    "chunks": (fields(("transfer-encoding", "chunked"), method="POST"), HELLO),
    "connection": (fields(("connection", "close")), b""),
    "proxy-connection": (fields(("proxy-connection", "close")), b""),
    "keep-alive": (fields(("keep-alive", "5")), b""),
    "upgrade": (fields(("upgrade", "websocket")), b""),
    "te of gzip": (fields(("te", "gzip")), b""),
    "a length too small": (fields(("content-length", "3"), method="POST"), b"hello"),
    "a length too large": (fields(("content-length", "9"), method="POST"), b"hello"),
    "a length without a body": (fields(("content-length", "5"), method="POST"), b""),
    "two lengths": (fields(("content-length", "5"), ("content-length", "6"), method="POST"), b"hello"),
    "a length with a plus": (fields(("content-length", "+5"), method="POST"), b"hello"),
    "a length that is none": (fields(("content-length", "x"), method="POST"), b"hello"),
    "a blank in the path": (fields(path="/a b"), b""),
    "a request in the path": (fields(path="/ HTTP/1.1\r\nx-a: 1\r\n\r\n"), b""),
    "NUL in the path": (fields(path="/\0"), b""),
    "an empty path": (fields(path=""), b""),
    "no path": (fields(path=None), b""),
    "a path without a slash": (fields(path="a"), b""),
    "a fragment": (fields(path="/a#b"), b""),
    "two paths": (fields((":path", "/b")), b""),
    "a blank in the method": (fields(method="GET /x"), b""),
    "CR LF in the method": (fields(method="GET\r\n"), b""),
    "an empty method": (fields(method=""), b""),
    "no method": (fields(method=None), b""),
    "no scheme": (fields(scheme=None), b""),
    "no authority": (fields(authority=None), b""),
    "an empty authority": (fields(authority=""), b""),
    "a user in the authority": (fields(authority=f"user@{HOST}"), b""),
    "a path in the authority": (fields(authority=f"{HOST}/x"), b""),
    "CR LF in the authority": (fields(authority=f"{HOST}\r\nx-a: 1"), b""),
    "another Host": (fields(("host", BUCKET_HOST)), b""),
    "two Hosts": (fields(("host", HOST), ("host", HOST), authority=None), b""),
    "a pseudo-header behind": ([*fields(path=None), ("x-a", "1"), (":path", "/")], b""),
    "a pseudo-header of answers": (fields((":status", "200")), b""),
    "an unknown pseudo-header": (fields((":other", "1")), b""),
}

NOT_OF_NATIVE_HTTP2: dict[str, tuple[str, str]] = {
    "a fragment": ("/a", "hyper drops it before a request is seen"),
}
"""What the upstream gets where the native front forwards, and why."""


def unchecked(client: Http2Client) -> None:
    """Lets a client of h2's send what h2 would not."""
    config = client.connection.config
    config.validate_outbound_headers = config.normalize_outbound_headers = False


@pytest.mark.parametrize("name", HTTP2_SHAPES)
async def test_an_http2_request_of_doubtful_shape(proxy: Proxy, name: str) -> None:
    head, body = HTTP2_SHAPES[name]
    async with proxy.tunnel(f"{HOST}:443", HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        unchecked(client)
        client.streams[1] = Stream()
        client.connection.send_headers(1, head, end_stream=not body)
        if body:
            client.connection.send_data(1, body, end_stream=True)
        client.flush()
        stream = await client.settled(1)
        if isinstance(proxy.front, NativeFront) and name in NOT_OF_NATIVE_HTTP2:
            target, _ = NOT_OF_NATIVE_HTTP2[name]
            assert [received.target for received in proxy.upstream.received] == [target]
            return
        assert client.terminated or stream.reset is not None or stream.headers[":status"][0] == "4", stream
    await idle(proxy)
    assert (await proxy.ask(NEXT)).status == 200
    assert [received.target for received in proxy.upstream.received] == ["/next"]


@dataclass(frozen=True)
class Broken:
    """The client gets 502, and the upstream's connection is not used again."""

    slug: str = "connection-broken"


@dataclass(frozen=True)
class Cut:
    """The client has the head already; then its connection ends too early."""


@dataclass(frozen=True)
class Passed:
    """What the client gets. `again`: the upstream's connection is used again."""

    body: bytes
    headers: dict[str, str | None] = field(default_factory=dict)
    status: int = 200
    again: bool = True


def ok(*headers: str | bytes, line: str | bytes = "HTTP/1.1 200 OK", body: bytes = b"ok") -> bytes:
    return raw(line, *headers, body=body)


EVIL = ok("content-length: 4", body=b"evil")

ANSWERS: dict[str, tuple[bytes, Broken | Cut | Passed]] = {
    "length, then chunks": (ok("content-length: 2", "transfer-encoding: chunked", body=HELLO), Broken()),
    "chunks, then length": (ok("transfer-encoding: chunked", "content-length: 2", body=HELLO), Broken()),
    "two lengths": (ok("content-length: 2", "content-length: 3"), Broken()),
    "a list of lengths": (ok("content-length: 2, 3"), Broken()),
    "a length with a plus": (ok("content-length: +2"), Broken()),
    "a length with a minus": (ok("content-length: -2"), Broken()),
    "a length that is none": (ok("content-length: x"), Broken()),
    "a length of 2^64 + 2": (ok("content-length: 18446744073709551618"), Broken()),
    "an unknown coding": (ok("transfer-encoding: xchunked", body=HELLO), Broken()),
    "chunked twice": (ok("transfer-encoding: chunked, chunked", body=HELLO), Broken()),
    "chunks in HTTP/1.0": (ok("transfer-encoding: chunked", line="HTTP/1.0 200 OK", body=HELLO), Broken()),
    "a blank before the colon": (ok("content-length : 2"), Broken()),
    "a blank in a name": (ok("x a: 1", "content-length: 2"), Broken()),
    "no colon": (ok("xa", "content-length: 2"), Broken()),
    "no name": (ok(": 1", "content-length: 2"), Broken()),
    "a NUL in a value": (ok("x-a: \0", "content-length: 2"), Broken()),
    "a bare CR in a value": (ok("x-a: 1\rx-b: 2", "content-length: 2"), Broken()),
    "a status of two digits": (ok("content-length: 2", line="HTTP/1.1 20 OK"), Broken()),
    "a status of four digits": (ok("content-length: 2", line="HTTP/1.1 2000 OK"), Broken()),
    "a status of letters": (ok("content-length: 2", line="HTTP/1.1 abc OK"), Broken()),
    "a status below 100": (ok("content-length: 2", line="HTTP/1.1 099 OK"), Broken()),
    "another version": (ok("content-length: 2", line="HTTP/2.0 200 OK"), Broken()),
    "another protocol": (ok("content-length: 2", line="SIP/2.0 200 OK"), Broken()),
    "no head": (b"ok ok ok\r\n\r\n", Broken()),
    "a NUL in the reason": (ok("content-length: 2", line="HTTP/1.1 200 O\0K"), Broken()),
    "101 that nobody asked for": (ok("upgrade: x", "connection: upgrade", line="HTTP/1.1 101 Switching Protocols"), Broken()),
    "a size that is none": (ok("transfer-encoding: chunked", body=b"x\r\nhello\r\n0\r\n\r\n"), Cut()),
    "a size of 20 digits": (ok("transfer-encoding: chunked", body=b"f" * 20 + b"\r\nhello\r\n0\r\n\r\n"), Cut()),
    "a chunk longer than it says": (ok("transfer-encoding: chunked", body=b"3\r\nhello\r\n0\r\n\r\n"), Cut()),
    "a folded value": (ok("x-a: one", "  two", "content-length: 2"), Broken()),
    "no reason": (ok("content-length: 2", line="HTTP/1.1 200"), Passed(b"ok")),
    "HTTP/1.0 with a length": (ok("content-length: 2", line="HTTP/1.0 200 OK"), Passed(b"ok", again=False)),
    "a hop's own headers": (
        ok("connection: x-gone, keep-alive", "x-gone: 1", "keep-alive: timeout=5", "proxy-authenticate: x", "content-length: 2"),
        Passed(b"ok", {"x-gone": None, "keep-alive": None, "proxy-authenticate": None}),
    ),
    "a value of no ASCII": (ok(b"x-a: \xe9", "content-length: 2"), Passed(b"ok", {"x-a": "\xe9"})),
    "a second answer behind": (ok("content-length: 2") + EVIL, Passed(b"ok", again=False)),
    "an answer behind 204": (ok(line="HTTP/1.1 204 No Content", body=EVIL), Passed(b"", status=204, again=False)),
    "an answer behind 304": (
        ok("content-length: 30", line="HTTP/1.1 304 Not Modified", body=EVIL),
        Passed(b"", status=304, again=False),
    ),
    "an answer behind chunks": (ok("transfer-encoding: chunked", body=HELLO + EVIL), Passed(b"hello", again=False)),
    "bytes behind": (ok("content-length: 2", body=b"ok\r\n\r\n"), Passed(b"ok", again=False)),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_of_doubtful_shape(start: Start, upstream: Upstream, name: str) -> None:
    answer, expected = ANSWERS[name]
    proxy = await start(upstream, retry={"mode": "off"})
    upstream.answers = [answer]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("POST", "/1", body=b"x"))
        if isinstance(expected, Cut):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await asyncio.wait_for(read_response(reader), 10)
        else:
            told = await asyncio.wait_for(read_response(reader), 10)
            if isinstance(expected, Broken):
                assert (told.status, told.get("x-sigward-error")) == (502, expected.slug)
            else:
                assert (told.status, told.body) == (expected.status, expected.body)
                for header, value in expected.headers.items():
                    assert told.get(header) == value, header
    assert (await proxy.ask(request("POST", "/2", body=b"x"))).body == b"ok"
    same = isinstance(expected, Passed) and expected.again
    assert [received.connection for received in upstream.received] == [1, 1 if same else 2]


async def test_an_answer_to_head_has_no_body_that_is_another_answer(proxy: Proxy) -> None:
    proxy.upstream.answers = [ok(f"content-length: {len(EVIL)}", body=EVIL)]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("HEAD", "/1"))
        assert (await read_response(reader, "HEAD")).status == 200
        writer.write(request("GET", "/2"))
        assert (await asyncio.wait_for(read_response(reader), 10)).body == b"ok"


async def test_an_upgrade_to_http2_is_not_asked_for(start: Start, upstream: Upstream) -> None:
    """What is inside would be requests that nobody judges; RFC 9113, section 3.1, has done away with it."""
    proxy = await start(upstream)
    for protocol in ("h2c", "H2C", "h2c-14, websocket"):
        asks = request("GET", "/", "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AAMAAABk")
        assert (await proxy.ask(asks)).status == 200
        assert upstream.received[-1].get("upgrade") is None
        assert upstream.received[-1].get("http2-settings") is None
