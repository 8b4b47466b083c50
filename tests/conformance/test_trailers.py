"""Trailers of requests: none adds to what a request's head says, or says it otherwise. Whoever decides, has seen the head."""

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest

from tests.conformance.conftest import HOST, Start
from tests.conformance.test_forms import HOLD, LARGE, SMALL, crc32
from tests.conformance.test_http2 import Http2Client
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.http2_upstream import Http2Upstream
from tests.support import Upstream, assert_signed, unwrapped

DYNAMODB = "dynamodb.us-east-1.amazonaws.com"
FORBIDDEN = [
    ("x-amz-target", "DynamoDB_20120810.DeleteTable"),
    ("x-amz-copy-source", "/bucket/secret"),
    ("x-amz-security-token", "t"),
    ("x-amz-date", "20260101T000000Z"),
    ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
    ("x-amz-checksum-algorithm", "CRC32"),
    ("x-amzn-bedrock-guardrailidentifier", "none"),
    ("smithy-protocol", "rpc-v2-cbor"),
    ("host", "evil.test"),
    ("content-length", "5"),
    ("content-type", "application/x-amz-json-1.1"),
    ("content-encoding", "gzip"),
    ("transfer-encoding", "chunked"),
    ("connection", "close"),
    ("authorization", "Bearer evil"),
    ("cookie", "a=b"),
    ("range", "bytes=0-1"),
    ("if-match", "x"),
    ("expect", "100-continue"),
    ("x-http-method-override", "DELETE"),
    ("forwarded", "for=evil"),
    ("x-forwarded-for", "evil"),
    ("x-there", "2"),
]
"""Each is announced, too. `x-there` is in the head."""
ALL = ", ".join(name for name, _ in FORBIDDEN)


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("length", [False, True])
@pytest.mark.parametrize("action", ["sign", "pass"])
async def test_of_a_body_that_streams(start: Start, upstream: Upstream, action: str, length: bool, http2: bool) -> None:
    """As trailers of HTTP: they go on behind the body, but for those that would say more of the call."""
    far: Upstream = Http2Upstream() if http2 else upstream
    async with far if http2 else nullcontext():
        more: dict[str, Any] = {"egress": {"http2": "always"}} if http2 else {}
        routes = [{"host": "*.amazonaws.com", "connect": f"127.0.0.1:{far.port}", "action": action}]
        proxy = await start(far, body={"hold": 4}, routes=routes, **more)
        async with proxy.tunnel(f"{BUCKET_HOST}:443", BUCKET_HOST, ["h2"]) as (reader, writer):
            client = Http2Client(reader, writer)
            head = [("x-amz-content-sha256", "UNSIGNED-PAYLOAD"), ("x-there", "1"), ("trailer", f"x-sum, {ALL}")]
            head += [("content-length", "8")] if length else []
            # Of an HTTP/2 message, these are malformed.
            allowed = [pair for pair in FORBIDDEN if pair[0] not in ("host", "transfer-encoding", "connection", "content-length")]
            number = client.send("PUT", "/k", BUCKET_HOST, b"streamed", (*allowed, ("x-sum", "1")), *head)
            [stream] = await client.finished(number)
        assert stream.headers[":status"] == "200"
        raw = request(
            "PUT",
            "/k",
            *(f"{name}: {value}" for name, value in head if name != "content-length"),
            "Transfer-Encoding: chunked",
            host=BUCKET_HOST,
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in [*FORBIDDEN, ("x-sum", "1")])
        assert (await proxy.ask(raw + f"8\r\nstreamed\r\n0\r\n{lines}\r\n".encode())).status == 200
        of_http2, of_http1 = far.received
        for received in (of_http2, of_http1):
            assert received.body == b"streamed"
            assert received.trailers in ([("x-sum", "1")], [])
        # A body of known length ends with its last byte.
        assert of_http1.trailers == [("x-sum", "1")]
        assert (of_http2.trailers == []) == length


async def test_those_that_are_not_announced_end_here(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, body={"hold": 4})
    head = request("PUT", "/k", "Transfer-Encoding: chunked", "x-amz-content-sha256: UNSIGNED-PAYLOAD", host=BUCKET_HOST)
    assert (await proxy.ask(head + b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n")).status == 200
    assert upstream.received[0].trailers == []


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["held", "spooled"])
async def test_of_a_body_that_is_kept(start: Start, upstream: Upstream, body: bytes) -> None:
    proxy = await start(upstream, body={"hold": HOLD})
    head = request("POST", "/", "Transfer-Encoding: chunked", "X-Amz-Target: DynamoDB_20120810.GetItem", f"Trailer: {ALL}", host=DYNAMODB)
    lines = "".join(f"{name}: {value}\r\n" for name, value in FORBIDDEN)
    assert (await proxy.ask(head + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, lines.encode()))).status == 200
    (received,) = upstream.received
    assert (received.body, received.trailers, received.get("x-amz-target")) == (body, [], "DynamoDB_20120810.GetItem")
    assert_signed(received, DYNAMODB)


def in_chunks(body: bytes, keyword: str, trailers: list[tuple[str, str]], *more: str, names: str, host: str, method: str = "PUT") -> bytes:
    """aws-chunked, as a client without keys sends it."""
    mark = ";chunk-signature=" + "0" * 64 if "HMAC" in keyword else ""
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    framed = b"".join(f"{len(piece):x}{mark}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    framed += f"0{mark}\r\n".encode() + "".join(f"{name}:{value}\r\n" for name, value in trailers).encode()
    framed += b"x-amz-trailer-signature:" + b"0" * 64 + b"\r\n" if mark else b""
    lines = [
        f"x-amz-content-sha256: {keyword}",
        "Content-Encoding: aws-chunked",
        f"x-amz-decoded-content-length: {len(body)}",
        *([f"x-amz-trailer: {names}"] if names else []),
        *more,
    ]
    return request(method, "/k", *lines, host=host, body=framed + b"\r\n")


KEYWORDS = ["STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"]


@pytest.mark.parametrize("keyword", KEYWORDS)
@pytest.mark.parametrize("names", ["", "x-amz-target", "X-Amz-Target,x-amz-meta-a, x-sum"])
@pytest.mark.parametrize("body", [b"", b"{}", LARGE], ids=["empty", "held", "spooled"])
async def test_chunks_for_a_service_that_has_none(start: Start, upstream: Upstream, body: bytes, names: str, keyword: str) -> None:
    """The rules have seen GetItem; so does the upstream, announced or not."""
    routes = [{"operation": "dynamodb:GetItem", "connect": f"127.0.0.1:{upstream.port}"}, {"host": "*", "action": "deny"}]
    proxy = await start(upstream, body={"hold": HOLD}, routes=routes)
    trailers = [("x-amz-target", "DynamoDB_20120810.DeleteTable"), ("x-amz-meta-a", "b"), ("x-sum", "1")]
    target = "X-Amz-Target: DynamoDB_20120810.GetItem"
    raw = in_chunks(body, keyword, trailers, target, names=names, host=DYNAMODB, method="POST")
    assert (await proxy.ask(raw)).status == 200
    (received,) = upstream.received
    assert (received.body, received.get("x-amz-target")) == (body, "DynamoDB_20120810.GetItem")
    assert [received.get(name) for name in ("x-amz-meta-a", "x-sum", "x-amz-trailer")] == [None] * 3
    assert_signed(received, DYNAMODB)


@pytest.mark.parametrize("keyword", KEYWORDS)
@pytest.mark.parametrize("payload", ["auto", "hash", "unsigned", "chunked"])
@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["held", "large"])
@pytest.mark.parametrize("announced", [True, False])
async def test_of_chunks_only_checksums_that_are_announced_go_on(
    start: Start, upstream: Upstream, payload: str, keyword: str, body: bytes, announced: bool
) -> None:
    rule = {"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}", "payload": payload}
    proxy = await start(upstream, body={"hold": HOLD}, routes=[rule])
    evil = [("x-amz-copy-source", "/bucket/secret"), ("x-amz-acl", "public-read"), ("x-amz-checksum-sha1", "A" * 28)]
    sums = [("x-amz-checksum-crc32", crc32(body))] if announced else []
    names = "x-amz-checksum-crc32, x-amz-acl" if announced else ""
    response = await proxy.ask(in_chunks(body, keyword, [*evil, *sums], names=names, host=BUCKET_HOST))
    assert response.status == 200, response
    (received,) = upstream.received
    assert [received.get(name) for name, _ in evil] == [None] * 3
    assert received.get("x-amz-trailer") in (None, "x-amz-checksum-crc32")
    hashed = received.get("x-amz-content-sha256") or ""
    if hashed.startswith("STREAMING"):
        chunks = unwrapped(received.body)
        assert chunks.body == body
        assert set(chunks.trailers) - {"x-amz-trailer-signature"} == {name for name, _ in sums}
    else:
        assert received.body == body
        assert received.get("x-amz-checksum-crc32") in (None, crc32(body))


async def test_a_checksum_that_stands_in_the_head_stays(start: Start, upstream: Upstream) -> None:
    rule = {"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}", "payload": "hash"}
    proxy = await start(upstream, routes=[rule])
    name = "x-amz-checksum-crc32"
    raw = in_chunks(SMALL, KEYWORDS[0], [(name, "AAAAAA==")], f"{name}: {crc32(SMALL)}", names=name, host=BUCKET_HOST)
    assert (await proxy.ask(raw)).status == 200
    assert upstream.received[0].get(name) == crc32(SMALL)


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["held", "streamed"])
async def test_a_checksum_that_comes_twice_is_refused(start: Start, upstream: Upstream, body: bytes) -> None:
    """Two readers could believe another one."""
    proxy = await start(upstream, body={"hold": HOLD})
    name = "x-amz-checksum-crc32"
    raw = in_chunks(body, KEYWORDS[0], [(name, crc32(body)), (name, "AAAAAA==")], names=name, host=BUCKET_HOST)
    response = await proxy.ask(raw)
    assert (response.status, response.get("x-sigward-error")) == (400, "body-failed"), response
    assert not upstream.received


async def test_a_client_hears_of_them_once_it_has_sent_all(start: Start, upstream: Upstream) -> None:
    """A stream that ends in trailers ends."""
    proxy = await start(upstream)
    async with proxy.tunnel(f"{HOST}:443", HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        numbers = [client.send("POST", "/", HOST, b"held", tuple(FORBIDDEN[:3])) for _ in range(3)]
        async with asyncio.timeout(20):
            assert [stream.headers[":status"] for stream in await client.finished(*numbers)] == ["200"] * 3
