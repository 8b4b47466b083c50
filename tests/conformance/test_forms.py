"""Every form of a signature, on the wire: in headers and query, over bodies hashed, unsigned, in chunks, in messages."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import struct
import time
from typing import Any
from urllib.parse import parse_qsl

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sigward import _core
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import (
    KEY,
    SECRET,
    TOKEN,
    Received,
    Upstream,
    assert_chunks_signed,
    assert_signed,
    authorization,
    connected,
    read_response,
    signing_key,
    unwrapped,
)

HOLD = 64 << 10
SMALL, LARGE = b"small body", bytes(range(256)) * 1000


async def routed(start: Start, upstream: Upstream, *, session: str | None = None, **route: Any) -> Proxy:
    """A proxy whose only route has these options."""
    rule = {"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}"} | route
    proxy: Proxy = await start(upstream, token=session, body={"hold": HOLD}, routes=[rule])
    return proxy


async def saw(proxy: Proxy, raw: bytes) -> Received:
    response = await proxy.ask(raw)
    assert response.status == 200, response
    return proxy.upstream.received[-1]


def crc32(body: bytes) -> str:
    return base64.b64encode(binascii.crc32(body).to_bytes(4, "big")).decode()


def dummy_chunks(body: bytes, *, signed: bool, trailer: bool, size: int = 50_000) -> bytes:
    """What an SDK with made-up keys sends."""
    signature = ";chunk-signature=" + "0" * 64 if signed else ""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(f"{len(piece):x}{signature}\r\n".encode() + piece + b"\r\n" for piece in pieces) + f"0{signature}\r\n".encode()
    if trailer:
        framed += f"x-amz-checksum-crc32:{crc32(body)}\r\n".encode()
        framed += b"x-amz-trailer-signature:" + b"0" * 64 + b"\r\n" if signed else b""
    return framed + b"\r\n"


def put_in_chunks(body: bytes, *, signed: bool, trailer: bool, length: bool = True) -> bytes:
    framed = dummy_chunks(body, signed=signed, trailer=trailer)
    keyword = f"STREAMING-{'AWS4-HMAC-SHA256' if signed else 'UNSIGNED'}-PAYLOAD{'-TRAILER' if trailer else ''}"
    extra = [
        "Authorization: AWS4-HMAC-SHA256 Credential=dummy/20250101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00",
        f"x-amz-content-sha256: {keyword}",
        "Content-Encoding: aws-chunked",
        "Content-Type: text/plain",
    ]
    if length:
        extra.append(f"x-amz-decoded-content-length: {len(body)}")
    if trailer:
        extra.append("x-amz-trailer: x-amz-checksum-crc32")
    return request("PUT", "/key", *extra, host=BUCKET_HOST, body=framed)


# ---------------------------------------------------------------- payload


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["held", "streamed"])
async def test_signed_chunks(start: Start, upstream: Upstream, body: bytes) -> None:
    proxy = await routed(start, upstream, payload="chunked")
    received = await saw(proxy, request("PUT", "/key", "Content-Encoding: gzip", host=BUCKET_HOST, body=body))
    assert received.get("x-amz-content-sha256") == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    assert received.get("x-amz-decoded-content-length") == str(len(body))
    assert received.get("content-encoding") == "aws-chunked,gzip"
    assert received.get("content-length") == str(len(received.body))
    chunks = assert_chunks_signed(received)
    assert chunks.body == body
    assert all(size == 65536 for size in chunks.sizes[:-2])


async def test_signed_chunks_of_a_body_of_unknown_length(start: Start, upstream: Upstream) -> None:
    """It is read whole first: the head must tell its length."""
    proxy = await routed(start, upstream, payload="chunked")
    for body in (SMALL, LARGE):
        raw = request("PUT", "/key", "Transfer-Encoding: chunked", host=BUCKET_HOST) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        received = await saw(proxy, raw)
        assert assert_chunks_signed(received).body == body


async def test_chunks_are_signed_anew_for_each_attempt(start: Start, upstream: Upstream) -> None:
    proxy = await routed(start, upstream, payload="chunked")
    upstream.answers = [b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n"]
    await saw(proxy, request("PUT", "/key", host=BUCKET_HOST, body=SMALL))
    first, second = upstream.received
    assert assert_chunks_signed(first).body == assert_chunks_signed(second).body == SMALL


async def test_an_empty_body_has_no_chunks(start: Start, upstream: Upstream) -> None:
    proxy = await routed(start, upstream, payload="chunked")
    received = await saw(proxy, request("PUT", "/key", "Content-Length: 0", host=BUCKET_HOST))
    assert received.get("x-amz-content-sha256") == hashlib.sha256(b"").hexdigest()
    assert_signed(received, BUCKET_HOST)


@pytest.mark.parametrize("payload", ["unsigned", "hash"])
@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
async def test_unsigned_and_hashed_whatever_the_size(start: Start, upstream: Upstream, payload: str, body: bytes) -> None:
    proxy = await routed(start, upstream, payload=payload)
    received = await saw(proxy, request("PUT", "/key", "x-amz-content-sha256: UNSIGNED-PAYLOAD", host=BUCKET_HOST, body=body))
    expected = "UNSIGNED-PAYLOAD" if payload == "unsigned" else hashlib.sha256(body).hexdigest()
    assert (received.get("x-amz-content-sha256"), received.body) == (expected, body)
    assert_signed(received, BUCKET_HOST)


async def test_other_services_have_no_chunks(start: Start, upstream: Upstream) -> None:
    proxy = await routed(start, upstream, payload="chunked")
    received = await saw(proxy, request("POST", body=SMALL))
    assert received.body == SMALL
    assert_signed(received, HOST)


# ---------------------------------------------------------------- bodies that come in chunks


@pytest.mark.parametrize("body", [b"", SMALL, LARGE], ids=["empty", "held", "streamed"])
async def test_chunks_of_a_dummy_key_go_on_without_signatures(start: Start, upstream: Upstream, body: bytes) -> None:
    """Over TLS, as S3 takes them: with the trailer that guards them, or as they are."""
    proxy = await routed(start, upstream)
    received = await saw(proxy, put_in_chunks(body, signed=True, trailer=True))
    assert received.get("x-amz-content-sha256") == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    assert received.get("x-amz-trailer") == "x-amz-checksum-crc32"
    assert received.get("x-amz-decoded-content-length") == str(len(body))
    assert received.get("content-length") == str(len(received.body))
    chunks = unwrapped(received.body)
    assert (chunks.body, chunks.trailers) == (body, {"x-amz-checksum-crc32": crc32(body)})
    assert authorization(received)["Credential"].startswith(KEY)

    received = await saw(proxy, put_in_chunks(body, signed=True, trailer=False))
    assert (received.get("x-amz-content-sha256"), received.body) == ("UNSIGNED-PAYLOAD", body)
    for name in ("content-encoding", "x-amz-decoded-content-length", "x-amz-trailer"):
        assert received.get(name) is None
    assert received.get("content-type") == "text/plain"
    assert_signed(received, BUCKET_HOST)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["held", "streamed"])
async def test_chunks_are_signed_with_our_key(start: Start, upstream: Upstream, body: bytes, signed: bool) -> None:
    proxy = await routed(start, upstream, payload="chunked")
    received = await saw(proxy, put_in_chunks(body, signed=signed, trailer=True))
    assert received.get("x-amz-content-sha256") == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    assert received.get("content-length") == str(len(received.body))
    chunks = assert_chunks_signed(received)
    assert (chunks.body, chunks.trailers) == (body, {"x-amz-checksum-crc32": crc32(body)})


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["held", "spooled"])
async def test_chunks_are_hashed_and_their_trailer_is_a_header(start: Start, upstream: Upstream, body: bytes) -> None:
    proxy = await routed(start, upstream, payload="hash")
    received = await saw(proxy, put_in_chunks(body, signed=False, trailer=True))
    assert (received.body, received.get("x-amz-checksum-crc32")) == (body, crc32(body))
    assert received.get("x-amz-content-sha256") == hashlib.sha256(body).hexdigest()
    assert received.get("x-amz-trailer") is None
    assert_signed(received, BUCKET_HOST)


async def test_chunks_whose_length_is_not_told(start: Start, upstream: Upstream) -> None:
    proxy = await routed(start, upstream)
    for body in (SMALL, LARGE):
        received = await saw(proxy, put_in_chunks(body, signed=True, trailer=True, length=False))
        assert received.get("x-amz-decoded-content-length") == str(len(body))
        assert unwrapped(received.body).body == body


async def test_chunks_are_not_held_whole(start: Start, upstream: Upstream) -> None:
    """The upstream hears of the request before its client has sent all of it."""
    proxy = await routed(start, upstream)
    raw = put_in_chunks(LARGE, signed=True, trailer=True)
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(raw[:-1000])
        await writer.drain()
        await asyncio.wait_for(upstream.accepted.wait(), 10)
        assert not upstream.received
        writer.write(raw[-1000:])
        assert (await asyncio.wait_for(read_response(reader), 20)).status == 200
    assert unwrapped(upstream.received[0].body).body == LARGE


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["held", "streamed"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda raw: raw.replace(b"x-amz-decoded-content-length: ", b"x-amz-decoded-content-length: 1"), "x-amz-decoded-content-length"),
        (lambda raw: raw.replace(b";chunk-signature", b"z;chunk-signature", 1), "framing is wrong"),
        (lambda raw: raw.replace(b"\r\n0;chunk", b"\r\nz;chunk"), "framing is wrong"),
    ],
    ids=["length", "size", "end"],
)
async def test_chunks_that_are_wrong(start: Start, upstream: Upstream, body: bytes, spoil: Any, said: str) -> None:
    proxy = await routed(start, upstream)
    response = await proxy.ask(spoil(put_in_chunks(body, signed=True, trailer=False)))
    assert (response.status, response.get("x-sigward-error")) == (400, "body-failed"), response
    assert said.encode() in response.body
    assert not upstream.received


# ---------------------------------------------------------------- SigV4a, S3 Express, services with their own wishes


def verifier(**more: Any) -> _core.Verifier:
    return _core.Verifier(KEY, SECRET, more.pop("session", None), **more)


def verify(verifier: _core.Verifier, received: Received, payload: bytes | str | None = None) -> None:
    path, _, query = received.target.partition("?")
    headers = [(name.encode(), value.encode()) for name, value in received.headers]
    body = received.body if payload is None else payload
    verifier.verify(received.method.encode(), path.encode(), query.encode(), headers, body, int(time.time()))


async def test_sigv4a_by_headers(start: Start, upstream: Upstream) -> None:
    proxy = await routed(start, upstream, variant="v4a", region="*")
    received = await saw(proxy, request("POST", "/a//b", body=SMALL))
    assert received.get("x-amz-region-set") == "*"
    assert (received.get("authorization") or "").startswith(f"AWS4-ECDSA-P256-SHA256 Credential={KEY}/")
    verify(verifier(), received)


async def test_sigv4a_by_query(start: Start, upstream: Upstream) -> None:
    proxy = await routed(start, upstream, variant="v4a", region="us-east-1,us-west-2", signature="query")
    received = await saw(proxy, request("GET", "/x?a=b"))
    assert dict(parse_qsl(received.target.partition("?")[2]))["X-Amz-Region-Set"] == "us-east-1,us-west-2"
    verify(verifier(), received)


async def test_sigv4a_in_chunks(start: Start, upstream: Upstream) -> None:
    proxy = await routed(start, upstream, variant="v4a", region="*", payload="chunked")
    received = await saw(proxy, request("PUT", "/key", host=BUCKET_HOST, body=LARGE))
    assert received.get("x-amz-content-sha256") == "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"
    assert received.get("content-length") == str(len(received.body))
    signatures: list[str] = []
    assert unwrapped(received.body, lambda signature, _: signatures.append(signature)).body == LARGE
    assert {len(signature) for signature in signatures} == {144}
    verify(verifier(style="s3"), received, "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD")


async def test_s3_express_has_a_token_of_its_own(start: Start, upstream: Upstream) -> None:
    proxy = await routed(start, upstream, session=TOKEN, service="s3express", token="s3express")
    received = await saw(proxy, request("PUT", "/key", host=BUCKET_HOST, body=SMALL))
    assert received.get("x-amz-s3session-token") == TOKEN
    assert received.get("x-amz-security-token") is None
    assert "/s3express/aws4_request" in (received.get("authorization") or "")
    verify(verifier(style="s3", session=TOKEN), received)


async def test_opensearch_serverless_gets_a_hash_and_no_signed_length(start: Start, upstream: Upstream) -> None:
    proxy = await routed(start, upstream, service="aoss")
    received = await saw(proxy, request("POST", "/index/_doc", body=SMALL))
    assert received.get("x-amz-content-sha256") == hashlib.sha256(SMALL).hexdigest()
    scope = assert_signed(received, HOST)
    assert scope["service"] == "aoss"
    assert "x-amz-content-sha256" in scope["headers"].split(";")
    assert "content-length" not in scope["headers"].split(";")


async def test_lambda_urls_get_a_hash(start: Start) -> None:
    host = "abc.lambda-url.us-east-1.on.aws"
    async with Upstream(hosts=(host,)) as upstream:
        proxy = await routed(start, upstream, host=host, service="lambda")
        received = await saw(proxy, request("POST", "/", host=host, body=SMALL))
    assert received.get("x-amz-content-sha256") == hashlib.sha256(SMALL).hexdigest()
    assert assert_signed(received, host)["service"] == "lambda"


# ---------------------------------------------------------------- in the query


def assert_presigned(received: Received, service: str, *, payload: bytes = b"") -> dict[str, str]:
    """Recomputes a query's signature with botocore's code. Returns its parameters."""
    path, _, query = received.target.partition("?")
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    signature = parameters.pop("X-Amz-Signature")
    assert received.get("authorization") is None
    auth = SigV4QueryAuth(Credentials(KEY, SECRET), service, "us-east-1", int(parameters["X-Amz-Expires"]))
    unsigned = "&".join(part for part in query.split("&") if not part.startswith("X-Amz-Signature="))
    presented = AWSRequest(received.method, f"https://{received.get('host')}{path}?{unsigned}", data=payload)
    presented.headers.add_header("host", received.get("host") or "")
    presented.context["timestamp"] = parameters["X-Amz-Date"]
    canonical = auth.canonical_request(presented)
    assert auth.signature(auth.string_to_sign(presented, canonical), presented) == signature
    return parameters


async def test_s3_in_the_query_signs_no_body(start: Start, upstream: Upstream) -> None:
    proxy = await routed(start, upstream, signature="query", payload="chunked")
    for raw in (request("PUT", "/key", host=BUCKET_HOST, body=SMALL), put_in_chunks(SMALL, signed=True, trailer=True)):
        received = await saw(proxy, raw)
        assert (received.body, received.get("content-encoding"), received.get("x-amz-content-sha256")) == (SMALL, None, None)
        verify(verifier(style="s3"), received, "UNSIGNED-PAYLOAD")


async def test_a_signature_in_the_query(start: Start, upstream: Upstream) -> None:
    proxy = await routed(start, upstream, signature="query")
    received = await saw(proxy, request("GET", "/?Action=ListQueues&b=c%20d", "X-Custom: not signed"))
    parameters = assert_presigned(received, "sqs")
    assert (parameters["X-Amz-SignedHeaders"], parameters["X-Amz-Expires"], parameters["Action"]) == ("host", "300", "ListQueues")
    assert received.get("x-custom") == "not signed"


@pytest.mark.parametrize(("service", "path"), [("iotdevicegateway", "/mqtt"), ("transcribe", "/stream-transcription-websocket?a=b")])
async def test_websockets_are_signed_where_their_service_reads_it(start: Start, upstream: Upstream, service: str, path: str) -> None:
    async def switch(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        writer.write(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")

    upstream.answers = [switch]
    proxy = await routed(start, upstream, session=TOKEN if service == "iotdevicegateway" else None, service=service)
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    response = await proxy.ask(request("GET", path, *upgrade))
    assert response.status == 101
    received = upstream.received[0]
    if service == "iotdevicegateway":
        # IoT's token stands in the query, but is not signed.
        token = "&X-Amz-Security-Token=" + TOKEN
        assert token in received.target
        received.target = received.target.replace(token, "")
    assert_presigned(received, service)


# ---------------------------------------------------------------- event streams


def message(headers: bytes, payload: bytes) -> bytes:
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + payload
    return body + struct.pack(">I", binascii.crc32(body))


def messages(stream: bytes) -> list[tuple[dict[str, bytes], bytes]]:
    """(headers, payload) of each; checksums are checked."""
    found = []
    while stream:
        total, length = struct.unpack(">II", stream[:8])
        one, stream = stream[:total], stream[total:]
        assert struct.unpack(">I", one[8:12])[0] == binascii.crc32(one[:8])
        assert struct.unpack(">I", one[-4:])[0] == binascii.crc32(one[:-4])
        raw, headers = one[12 : 12 + length], {}
        while raw:
            name, kind = raw[1 : 1 + raw[0]].decode(), raw[1 + raw[0]]
            raw = raw[2 + raw[0] :]
            size = 8 if kind == 8 else struct.unpack(">H", raw[:2])[0]
            raw = raw if kind == 8 else raw[2:]
            headers[name], raw = raw[:size], raw[size:]
        found.append((headers, one[12 + length : -4]))
    return found


async def test_each_message_of_an_event_stream_is_signed(start: Start, upstream: Upstream) -> None:
    proxy = await routed(start, upstream, service="transcribe")
    events = [message(b"\x04kind\x07\x00\x05audio", b"a" * size) for size in (3, 70_000, 0)]
    head = request("POST", "/stream", "Content-Type: application/vnd.amazon.eventstream", "Transfer-Encoding: chunked")
    stream = b"".join(events)
    raw = head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (stream[:10], stream[10:30_000], stream[30_000:])) + b"0\r\n\r\n"
    received = await saw(proxy, raw)
    assert received.get("x-amz-content-sha256") == "STREAMING-AWS4-HMAC-SHA256-EVENTS"
    parts = authorization(received)
    _, day, region, service, _ = parts["Credential"].split("/")
    key, previous = signing_key(day, region, service), parts["Signature"]
    signed = messages(received.body)
    assert [payload for _, payload in signed] == [*events, b""]
    for headers, payload in signed:
        seconds = struct.unpack(">q", headers[":date"])[0] // 1000
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))
        date = hashlib.sha256(b"\x05:date\x08" + headers[":date"]).hexdigest()
        text = [
            "AWS4-HMAC-SHA256-PAYLOAD",
            stamp,
            f"{day}/{region}/{service}/aws4_request",
            previous,
            date,
            hashlib.sha256(payload).hexdigest(),
        ]
        previous = hmac.digest(key, "\n".join(text).encode(), "sha256").hex()
        assert headers[":chunk-signature"].hex() == previous


async def test_an_event_stream_is_not_held(start: Start, upstream: Upstream) -> None:
    """Its client may wait for an answer to its first message before it sends the next."""
    proxy = await routed(start, upstream, service="transcribe")
    event = message(b"", b"audio")
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("POST", "/stream", "Content-Type: application/vnd.amazon.eventstream", "Transfer-Encoding: chunked"))
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await asyncio.wait_for(upstream.accepted.wait(), 10)
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))
        assert (await asyncio.wait_for(read_response(reader), 20)).status == 200
    assert [payload for _, payload in messages(upstream.received[0].body)] == [event, event, b""]


async def test_a_message_that_is_not_whole(start: Start, upstream: Upstream) -> None:
    proxy = await routed(start, upstream, service="transcribe")
    raw = request("POST", "/stream", "Content-Type: application/vnd.amazon.eventstream", body=message(b"", b"abc")[:-1])
    response = await proxy.ask(raw)
    assert (response.status, response.get("x-sigward-error")) == (400, "body-failed")
    assert b"not whole" in response.body
