"""What goes upstream, and what comes back: signatures, headers, framing."""

import asyncio
import hashlib

import pytest
from mitmproxy import http

from sigward import _core
from sigward.mitm import Front
from tests.conformance.conftest import HOST, Proxy, Start
from tests.support import OK, TOKEN, Received, Upstream, assert_no_secret, assert_signed, authorization, connected, read_response

BUCKET_HOST = "bucket.s3.us-east-1.amazonaws.com"


def request(method: str = "GET", path: str = "/", *headers: str, host: str = HOST, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def dummy(service: str, region: str = "us-east-1") -> str:
    """The signature of a client with dummy keys."""
    scope = f"AKIDUMMY/20260101/{region}/{service}/aws4_request"
    return f"Authorization: AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature={'0' * 64}"


async def upstream_saw(proxy: Proxy, raw: bytes) -> Received:
    response = await proxy.ask(raw)
    assert response.status == 200, response
    return proxy.upstream.received[-1]


async def test_reverse_by_host(proxy: Proxy) -> None:
    response = await proxy.ask(request(path="/?Action=ListQueues"))
    assert (response.status, response.body) == (200, b"ok")
    scope = assert_signed(proxy.upstream.received[0], HOST)
    assert (scope["service"], scope["region"]) == ("sqs", "us-east-1")


async def test_reverse_with_a_fixed_upstream(proxy: Proxy) -> None:
    response = await proxy.ask(request(host="127.0.0.1:8081"), to=proxy.fixed)
    assert response.status == 200
    assert_signed(proxy.upstream.received[0], HOST)


async def test_plain_http_through_the_forward_proxy_goes_out_over_tls(proxy: Proxy) -> None:
    raw = f"GET http://{HOST}/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    response = await proxy.ask(raw, to=proxy.forward)
    assert response.status == 200
    # The upstream speaks TLS alone.
    assert_signed(proxy.upstream.received[0], HOST)


async def test_intercepted_connect(proxy: Proxy) -> None:
    async with proxy.tunnel(f"{HOST}:443", HOST) as (reader, writer):
        for _ in range(3):
            writer.write(request())
            assert (await read_response(reader)).status == 200
    for received in proxy.upstream.received:
        assert_signed(received, HOST)
    assert proxy.upstream.connections == 1


async def test_upstream_connections_are_shared_by_clients(proxy: Proxy) -> None:
    for _ in range(4):
        await upstream_saw(proxy, request())
    assert proxy.upstream.connections == 1


async def test_a_clients_signature_is_replaced(proxy: Proxy) -> None:
    dummy = (
        "Authorization: AWS4-HMAC-SHA256 Credential=DUMMY/20150830/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=00",
        "X-Amz-Date: 20150830T123600Z",
        "X-Amz-Security-Token: theirs",
    )
    received = await upstream_saw(proxy, request("GET", "/", *dummy))
    assert_signed(received, HOST)
    assert received.all("x-amz-security-token") == []
    assert "DUMMY" not in authorization(received)["Credential"]


async def test_a_session_token_is_sent_and_signed(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, token=TOKEN)
    received = await upstream_saw(proxy, request())
    scope = assert_signed(received, HOST, token=TOKEN)
    assert received.get("x-amz-security-token") == TOKEN
    assert "x-amz-security-token" in scope["headers"].split(";")


async def test_every_x_amz_header_of_the_client_is_signed(proxy: Proxy) -> None:
    received = await upstream_saw(proxy, request("GET", "/", "X-Amz-Target: A.B", "x-amz-meta-x: y"))
    scope = assert_signed(received, HOST)
    assert {"x-amz-target", "x-amz-meta-x"} <= set(scope["headers"].split(";"))


async def test_what_connection_names_is_removed_but_never_ours(proxy: Proxy) -> None:
    raw = request("GET", "/", "Connection: X-Amz-Date, Authorization, X-Gone, keep-alive", "X-Gone: 1", "Keep-Alive: 5")
    received = await upstream_saw(proxy, raw)
    assert_signed(received, HOST)
    assert received.get("x-gone") is None
    assert received.get("keep-alive") is None


async def test_hop_by_hop_headers_are_not_forwarded(proxy: Proxy) -> None:
    raw = request("GET", "/", "TE: trailers", "Proxy-Connection: keep-alive", "Proxy-Authorization: Basic c2VjcmV0")
    received = await upstream_saw(proxy, raw)
    for name in ("te", "proxy-connection", "proxy-authorization"):
        assert received.get(name) is None
    assert_signed(received, HOST)


@pytest.mark.parametrize("host", [f"{HOST}:443", HOST.upper(), f"{HOST}."])
async def test_host_is_written_in_one_form(proxy: Proxy, host: str) -> None:
    received = await upstream_saw(proxy, request(host=host))
    assert_signed(received, HOST)


async def test_repeated_headers_are_joined_in_order(proxy: Proxy) -> None:
    received = await upstream_saw(proxy, request("GET", "/", "X-Twice: one", "X-Between: 0", "X-Twice: two"))
    assert received.all("x-twice") == ["one", "two"]
    assert_signed(received, HOST)


async def test_expect_continue(proxy: Proxy) -> None:
    body = b"x" * 1000
    async with connected(proxy.reverse) as (reader, writer):
        head = request("POST", "/", "Expect: 100-continue", f"Content-Length: {len(body)}")
        writer.write(head)
        line = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert line.startswith(b"HTTP/1.1 100")
        writer.write(body)
        assert (await read_response(reader)).status == 200
    received = proxy.upstream.received[0]
    assert received.body == body
    assert received.get("expect") is None
    assert_signed(received, HOST)


async def test_a_chunked_body_is_sent_with_its_length(proxy: Proxy) -> None:
    raw = request("POST", "/", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n"
    received = await upstream_saw(proxy, raw)
    assert received.body == b"hello world"
    assert received.get("content-length") == "11"
    assert received.get("transfer-encoding") is None
    assert_signed(received, HOST)


async def test_trailers_of_a_chunked_body_neither_crash_nor_hang(proxy: Proxy) -> None:
    raw = request("POST", "/", "Transfer-Encoding: chunked", "Trailer: X-Sum") + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
    received = await upstream_saw(proxy, raw)
    assert received.body == b"hello"
    assert_signed(received, HOST)


async def test_a_streamed_chunked_body_keeps_its_trailers(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, body={"hold": 4})
    head = request("PUT", "/k", "Transfer-Encoding: chunked", "Trailer: X-Sum", "x-amz-content-sha256: UNSIGNED-PAYLOAD", host=BUCKET_HOST)
    received = await upstream_saw(proxy, head + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert received.body == b"hello"
    assert received.trailers == [("x-sum", "1")]


@pytest.mark.parametrize("hold", [1 << 20, 1000])
async def test_a_body_is_hashed_held_or_spooled(start: Start, upstream: Upstream, hold: int) -> None:
    proxy = await start(upstream, body={"hold": hold})
    body = bytes(range(256)) * 400
    received = await upstream_saw(proxy, request("POST", "/", body=body))
    assert received.body == body
    assert_signed(received, HOST)


async def test_a_large_body_to_s3_is_streamed_unsigned(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, body={"hold": 1000})
    body = bytes(range(256)) * 4000
    received = await upstream_saw(proxy, request("PUT", "/key", host=BUCKET_HOST, body=body))
    assert received.get("x-amz-content-sha256") == "UNSIGNED-PAYLOAD"
    assert received.body == body
    assert received.get("content-length") == str(len(body))


async def test_a_small_body_to_s3_is_hashed(proxy: Proxy) -> None:
    received = await upstream_saw(proxy, request("PUT", "/key", host=BUCKET_HOST, body=b"hello"))
    assert received.get("x-amz-content-sha256") == hashlib.sha256(b"hello").hexdigest()
    assert_signed(received, BUCKET_HOST)


async def test_aws_chunked_of_an_unsigned_sdk_passes_with_its_keyword(proxy: Proxy) -> None:
    body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
    extra = ("Content-Encoding: aws-chunked", "X-Amz-Trailer: x-amz-checksum-crc32", "X-Amz-Decoded-Content-Length: 5")
    received = await upstream_saw(proxy, request("PUT", "/key", *extra, host=BUCKET_HOST, body=body))
    assert received.get("x-amz-content-sha256") == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    assert received.body == body


@pytest.mark.parametrize(
    ("path", "wire"),
    [
        ("/a%20b", "/a%20b"),
        ("/a+b", "/a%2Bb"),
        ("/a%2Bb", "/a%2Bb"),
        ("/a//b/../c", "/a//b/../c"),
        ("/%d0%ba%7E", "/%D0%BA~"),
        ("/*'()!", "/%2A%27%28%29%21"),
        ("/x?versionId=a+b&acl&empty=", "/x?versionId=a%20b&acl&empty="),
    ],
)
async def test_s3_keys(proxy: Proxy, path: str, wire: str) -> None:
    received = await upstream_saw(proxy, request("GET", path, host=BUCKET_HOST))
    assert received.target == wire
    assert_signed(received, BUCKET_HOST)


async def test_raw_bytes_in_a_key_are_encoded(proxy: Proxy) -> None:
    raw = request("GET", "/PLACE", host=BUCKET_HOST).replace(b"PLACE", "ключ".encode())
    received = await upstream_saw(proxy, raw)
    assert received.target == "/%D0%BA%D0%BB%D1%8E%D1%87"
    assert_signed(received, BUCKET_HOST)


async def test_repeated_query_keys_keep_their_order(proxy: Proxy) -> None:
    received = await upstream_saw(proxy, request("GET", "/?b=2&a=1&b=1&a=0"))
    assert received.target == "/?b=2&a=1&b=1&a=0"
    assert_signed(received, HOST)


async def test_presigned_requests_pass_untouched(proxy: Proxy) -> None:
    path = "/key?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=abc&X-Amz-Expires=60&x=a+b"
    received = await upstream_saw(proxy, request("GET", path, host=BUCKET_HOST))
    assert received.target == path
    assert received.get("authorization") is None


async def test_head_has_no_body_and_keeps_its_length(proxy: Proxy) -> None:
    proxy.upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n"]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("HEAD", "/key", host=BUCKET_HOST))
        response = await read_response(reader, "HEAD")
        assert (response.status, response.get("content-length")) == (200, "12345")
        # The connection goes on.
        writer.write(request("GET", "/key", host=BUCKET_HOST))
        assert (await read_response(reader)).body == b"ok"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answers_without_a_body(proxy: Proxy, status: str) -> None:
    proxy.upstream.answers = [f"HTTP/1.1 {status}\r\netag: x\r\n\r\n".encode()]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request())
        response = await read_response(reader)
        assert (str(response.status), response.get("etag")) == (status.split()[0], "x")
        assert response.get("transfer-encoding") is None
        writer.write(request())
        assert (await read_response(reader)).body == b"ok"


async def test_range(proxy: Proxy) -> None:
    proxy.upstream.answers = [b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-1/5\r\ncontent-length: 2\r\n\r\nhe"]
    response = await proxy.ask(request("GET", "/key", "Range: bytes=0-1", host=BUCKET_HOST))
    assert (response.status, response.body, response.get("content-range")) == (206, b"he", "bytes 0-1/5")
    assert proxy.upstream.received[0].get("range") == "bytes=0-1"


HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"


async def test_informational_answers_come_before_the_answer(proxy: Proxy) -> None:
    async with connected(proxy.reverse) as (reader, writer):
        for version in ("1.1", "1.0"):
            proxy.upstream.answers = [HINTS + OK]
            writer.write(request().replace(b"HTTP/1.1", b"HTTP/" + version.encode(), 1))
            response = await asyncio.wait_for(read_response(reader), 10)
            assert (response.status, response.body) == (200, b"ok")
            # mitmproxy has no form for them, nor has HTTP/1.0 (RFC 9110, section 15.2).
            told = [] if isinstance(proxy.front, Front) or version == "1.0" else [(103, [("link", "</x>")]), (102, [])]
            assert response.informational == told


async def test_a_100_that_nobody_asked_for_is_dropped(proxy: Proxy) -> None:
    proxy.upstream.answers = [b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + OK]
    response = await proxy.ask(request())
    assert (response.status, response.body, response.informational) == (200, b"ok", [])


@pytest.mark.parametrize("expectation", ["200-ok", "100-continue, x", ""])
async def test_an_expectation_that_is_unknown_is_passed_over(proxy: Proxy, expectation: str) -> None:
    """RFC 9110, section 10.1.1: it may be."""
    response = await proxy.ask(request("POST", "/", f"Expect: {expectation}", body=b"x"))
    assert (response.status, response.informational) == (200, [])
    assert proxy.upstream.received[0].get("expect") is None


async def test_an_http1_0_client_is_not_told_to_continue(proxy: Proxy) -> None:
    raw = request("POST", "/", "Expect: 100-continue", body=b"x").replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    response = await proxy.ask(raw)
    assert (response.status, response.informational) == (200, [])


async def test_a_client_that_expects_and_sends_at_once(proxy: Proxy) -> None:
    """It may, and what follows is read as ever."""
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("POST", "/1", "Expect: 100-continue", body=b"x") + request("GET", "/2"))
        for _ in range(2):
            assert (await asyncio.wait_for(read_response(reader), 10)).status == 200
    assert [received.target for received in proxy.upstream.received] == ["/1", "/2"]


async def test_headers_keep_their_order_and_values_both_ways(proxy: Proxy) -> None:
    """Names are in small letters then, as in HTTP/2 (RFC 9110, section 5.1: case means nothing)."""
    sent = [("X-Zulu", "Upper Lower"), ("x-alpha", "ü"), ("X-MIKE", ",;="), ("X-Alpha-2", '"q, q"'), ("x-zulu", "again")]
    lines = [f"{name}: {value}" for name, value in sent]
    head = "\r\n".join(["HTTP/1.1 200 OK", *lines, "content-length: 2", "", ""])
    proxy.upstream.answers = [head.encode("latin-1") + b"ok"]
    raw = request("GET", "/", *lines).decode().encode("latin-1")
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(raw)
        response = await asyncio.wait_for(read_response(reader), 10)
    small = [(name.lower(), value) for name, value in sent]
    # What comes twice may stand where it first stood; its values keep their order.
    for headers in (proxy.upstream.received[0].headers, response.headers):
        found = [(name, value) for name, value in headers if name.startswith("x-") and not name.startswith(("x-amz-", "x-sigward-"))]
        assert sorted(found) == sorted(small)
        assert list(dict(found)) == list(dict(small))
        assert [value for name, value in found if name == "x-zulu"] == ["Upper Lower", "again"]


@pytest.mark.parametrize(
    "answer", [b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"connection: close\r\n\r\nabcde"]
)
async def test_answers_of_unknown_length(proxy: Proxy, answer: bytes) -> None:
    async def tell(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + answer)
        await writer.drain()
        if answer.startswith(b"connection"):
            writer.close()

    proxy.upstream.answers = [tell]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request())
        response = await read_response(reader)
        assert response.body == b"abcde"
        assert response.get("transfer-encoding") == "chunked"
        writer.write(request())
        assert (await read_response(reader)).body == b"ok"


TRAILED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\nX-Sum: 1\r\n\r\n"


@pytest.mark.parametrize("te", [("TE: trailers",), ()])
async def test_trailers_of_an_answer_for_an_http1_client(proxy: Proxy, te: tuple[str, ...]) -> None:
    """It gets them if it says that it takes them (RFC 9110, section 6.5.1); the connection goes on in any case."""
    proxy.upstream.answers = [TRAILED]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("GET", "/", *te))
        response = await read_response(reader)
        # mitmproxy's HTTP/1 server has no form for them.
        wanted = [("x", "y"), ("x-sum", "1")] if te and not isinstance(proxy.front, Front) else []
        assert (response.body, response.trailers) == (b"abc", wanted)
        writer.write(request())
        assert (await read_response(reader)).body == b"ok"


async def test_an_answer_that_breaks_off_breaks_the_clients_connection(proxy: Proxy) -> None:
    async def break_off(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1000)
        await writer.drain()
        writer.close()

    proxy.upstream.answers = [break_off]
    with pytest.raises(asyncio.IncompleteReadError):
        await proxy.ask(request())


async def test_large_bodies_both_ways(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, body={"hold": 65536})
    size = 8 << 20
    body = hashlib.sha256(b"seed").digest() * (size // 32)
    upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + body]
    response = await proxy.ask(request("PUT", "/key", host=BUCKET_HOST, body=body))
    assert response.body == body
    assert upstream.received[0].body == body


async def test_a_slow_upstream_holds_the_upload_back(start: Start, upstream: Upstream) -> None:
    """The client can write no more than sockets and queues hold while the upstream reads nothing."""
    proxy = await start(upstream, body={"hold": 1000}, timeouts={"idle": 60})
    gate = asyncio.Event()
    total = 64 << 20
    reading = upstream.server

    async def stubborn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        await reader.readexactly(total)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()

    other = await asyncio.start_server(stubborn, "127.0.0.1", 0, ssl=upstream.context)
    port = other.sockets[0].getsockname()[1]
    proxy.point_to(port)
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("PUT", "/key", f"Content-Length: {total}", host=BUCKET_HOST))
        sent, piece = 0, b"x" * (1 << 20)
        try:
            while sent < total:
                writer.write(piece)
                await asyncio.wait_for(writer.drain(), 2)
                sent += len(piece)
        except TimeoutError:
            sent += len(piece)
        assert sent < total // 2, "the whole upload was taken in although nobody read it"
        gate.set()
        while sent < total:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
        assert (await asyncio.wait_for(read_response(reader), 30)).body == b"ok"
    other.close()
    assert reading.is_serving()


@pytest.mark.mitmproxy("it has flows")
async def test_the_flow_shows_what_was_done_and_no_secret(start: Start, upstream: Upstream) -> None:
    seen: list[object] = []

    class Watch:
        def response(self, flow: object) -> None:
            seen.append(flow)

    proxy = await start(upstream, addons=(Watch(),), token=TOKEN)
    upstream.answers = [b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"]
    assert (await proxy.ask(request())).status == 200
    flow = seen[0]
    report: _core.Report = flow.metadata["sigward"]  # type: ignore[attr-defined]
    assert [outcome for outcome, _, _ in report.attempts] == ["500", "200"]
    assert (report.service, report.region, report.identity, report.action) == ("sqs", "us-east-1", "default", "sign")
    head = dict(report.signed_head)
    assert head[b"x-amz-security-token"] == b"redacted"
    assert head[b"authorization"].endswith(b"Signature=redacted")
    assert flow.comment == report.summary == "sign sqs us-east-1 default: 500, 200"  # type: ignore[attr-defined]
    assert flow.request.headers.get("authorization") is None  # type: ignore[attr-defined]


@pytest.mark.mitmproxy("it has flows")
@pytest.mark.parametrize("place", ["header", "query"])
async def test_the_report_shows_how_it_was_signed_and_no_secret(start: Start, upstream: Upstream, place: str) -> None:
    seen: list[http.HTTPFlow] = []

    class Watch:
        def response(self, flow: http.HTTPFlow) -> None:
            seen.append(flow)

    routes = [{"host": HOST, "action": "sign", "signature": place, "connect": f"127.0.0.1:{upstream.port}"}]
    proxy = await start(upstream, addons=(Watch(),), token=TOKEN, inspect=True, routes=routes)
    received = await upstream_saw(proxy, request("GET", "/?Action=ListQueues"))
    canonical_request, string_to_sign, signature, added = seen[0].metadata["sigward"].steps
    assert_no_secret(repr((canonical_request, string_to_sign, signature, added)), "the report")
    sent = authorization(received)["Signature"] if place == "header" else received.target.partition("X-Amz-Signature=")[2][:64]
    assert signature == f"{sent[:8]}…"
    names = dict(added)
    if place == "header":
        assert "\nx-amz-security-token:redacted\n" in canonical_request
        assert names["x-amz-security-token"] == "redacted"
        assert names["authorization"].endswith("Signature=redacted")
    else:
        assert "X-Amz-Security-Token=redacted" in canonical_request
        assert (names["X-Amz-Security-Token"], names["X-Amz-Signature"]) == ("redacted", "redacted")
        assert sent not in repr(added)
    # The hash is that of what was signed, token and all.
    whole = canonical_request.replace("redacted", TOKEN)
    assert string_to_sign.endswith(f"\n{hashlib.sha256(whole.encode()).hexdigest()}")


@pytest.mark.mitmproxy("it has flows")
async def test_nothing_is_shown_of_the_signing_unless_that_is_asked_for(start: Start, upstream: Upstream) -> None:
    seen: list[http.HTTPFlow] = []

    class Watch:
        def response(self, flow: http.HTTPFlow) -> None:
            seen.append(flow)

    await upstream_saw(await start(upstream, addons=(Watch(),)), request())
    assert seen[0].metadata["sigward"].steps is None


@pytest.mark.mitmproxy("it has addons")
async def test_other_addons_see_and_change_the_request_before_it_is_signed(start: Start, upstream: Upstream) -> None:
    class Change:
        def request(self, flow: object) -> None:
            flow.request.headers["x-amz-meta-added"] = "1"  # type: ignore[attr-defined]
            flow.request.content = b"changed"  # type: ignore[attr-defined]

    proxy = await start(upstream, addons=(Change(),))
    received = await upstream_saw(proxy, request("POST", "/", body=b"original"))
    assert received.body == b"changed"
    scope = assert_signed(received, HOST)
    assert "x-amz-meta-added" in scope["headers"]


async def test_an_unsigned_operation_goes_out_unsigned_and_needs_no_credentials(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, credentials=False)
    proxy.engine.set_credentials_failed("default", [("env", "none")])
    form = b"Version=2011-06-15&Action=AssumeRoleWithWebIdentity&RoleArn=x"
    headers = ("Content-Type: application/x-www-form-urlencoded", "Authorization: AWS4-HMAC-SHA256 Credential=dummy")
    received = await upstream_saw(proxy, request("POST", "/", *headers, host="sts.us-east-1.amazonaws.com", body=form))
    assert received.get("authorization") is None
    refused = await proxy.ask(request("POST", "/", headers[0], host="sts.us-east-1.amazonaws.com", body=b"Action=GetCallerIdentity"))
    assert refused.status == 503


@pytest.mark.mitmproxy("it has flows")
async def test_the_report_names_the_operation(start: Start, upstream: Upstream) -> None:
    seen: list[object] = []

    class Watch:
        def response(self, flow: object) -> None:
            seen.append(flow)

    proxy = await start(upstream, addons=(Watch(),))
    host = "dynamodb.us-east-1.amazonaws.com"
    headers = ("X-Amz-Target: DynamoDB_20120810.ListTables", "Content-Type: application/x-amz-json-1.0")
    await upstream_saw(proxy, request("POST", "/", *headers, host=host, body=b"{}"))
    assert seen[0].metadata["sigward"].operation == "dynamodb:ListTables"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("claimed", "signed_for"), [("geo", "geo"), ("sqs", "geo-maps"), (None, "geo-maps")])
async def test_a_clients_scope_settles_which_service_of_a_shared_host_is_meant(proxy: Proxy, claimed: str | None, signed_for: str) -> None:
    scope = (
        f"Authorization: AWS4-HMAC-SHA256 Credential=AKIDDUMMY/20260101/us-east-1/{claimed}/aws4_request, SignedHeaders=host, Signature=00"
    )
    headers = [scope] if claimed else []
    response = await proxy.ask(request("GET", "/maps/v0/maps", *headers, host="maps.geo.us-east-1.amazonaws.com"))
    assert response.status == 200
    assert f"/us-east-1/{signed_for}/aws4_request" in (proxy.upstream.received[0].get("authorization") or "")
