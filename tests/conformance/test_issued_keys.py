"""Clients with issued keys: what they signed is what goes out, and nothing else of theirs does."""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.auth
import pytest
import pytest_asyncio
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sigward import _core
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_forms import LARGE, SMALL, crc32, message
from tests.conformance.test_http2 import Http2Client
from tests.conformance.test_requests import BUCKET_HOST
from tests.http2_upstream import Http2Upstream
from tests.support import SECRETS, Response, Upstream, assert_signed, unwrapped

EMPTY = hashlib.sha256(b"").hexdigest()
UNSIGNED, UNSIGNED_TRAILER = "UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
HOLD = 64 << 10
Pairs = list[tuple[str, str]]


@dataclass
class Issued:
    """A front, and the key that one client of it has."""

    proxy: Proxy
    key: str
    secret: str

    def signed(self, method: str, target: str, *headers: tuple[str, str], host: str = BUCKET_HOST, payload: bytes | str = b"") -> Pairs:
        """The head that the client sends: Host, these headers, and its signature. `payload`: the body, or what is said of it."""
        path, _, query = target.partition("?")
        service, style = ("s3", "s3") if host == BUCKET_HOST else ("sqs", "generic")
        pairs = [("host", host), *headers]
        if isinstance(payload, str):
            pairs.append(("x-amz-content-sha256", payload))
        signer = _core.Signer(self.key, self.secret, None, "us-east-1", service, style)  # type: ignore[arg-type]
        raw = [(name.encode(), value.encode()) for name, value in pairs]
        added = signer.sign(method.encode(), path.encode(), query.encode(), raw, payload, int(time.time()))
        lines = [line.partition(": ") for line in added.decode().splitlines()]
        return [*pairs, *((name, value) for name, _, value in lines if name not in dict(pairs))]

    def presigned(
        self, method: str, target: str, *headers: tuple[str, str], host: str = BUCKET_HOST, payload: bytes | str = UNSIGNED
    ) -> str:
        """The target that the client asks for."""
        path, _, query = target.partition("?")
        service, style = ("s3", "s3") if host == BUCKET_HOST else ("sqs", "generic")
        signer = _core.Signer(self.key, self.secret, None, "us-east-1", service, style)  # type: ignore[arg-type]
        raw = [("host", host), *headers]
        pairs = [(name.encode(), value.encode()) for name, value in raw]
        return path + "?" + signer.presign(method.encode(), path.encode(), query.encode(), pairs, payload, 60, int(time.time())).decode()

    async def ask(self, method: str, target: str, head: Pairs, body: bytes = b"", *, chunked: str | None = None) -> Response:
        """Sends it. `chunked`: in chunks of HTTP/1.1, with these trailers."""
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in head)]
        if chunked is not None:
            lines.append("transfer-encoding: chunked")
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + f"0\r\n{chunked}\r\n".encode()
        elif body:
            lines.append(f"content-length: {len(body)}")
        return await self.proxy.ask("\r\n".join([*lines, "", ""]).encode() + body)


Issue = Callable[..., Any]


@pytest_asyncio.fixture
async def issue(start: Start, upstream: Upstream, tmp_path: Path) -> AsyncIterator[Issue]:
    """`await issue(required=…, payload=…)`: settings of `[clients]`. `to`: another upstream. `settings`: more of the engine's."""

    async def issuer(*, to: Upstream = upstream, settings: dict[str, Any] | None = None, **clients: Any) -> Issued:
        master = "ab" * 32
        (tmp_path / "clients.key").write_text(master)
        key, secret = _core.issue_key(master.encode(), "ci", 1)
        SECRETS.append(re.compile(re.escape(secret)))
        clients = {"key_file": str(tmp_path / "clients.key"), "issued": [{"name": "ci", "rotation": 1}]} | clients
        proxy = await start(to, clients=clients, **({"body": {"hold": HOLD}} | (settings or {})))
        return Issued(proxy, key, secret)

    yield issuer


@pytest_asyncio.fixture
async def issued(issue: Issue) -> Issued:
    made: Issued = await issue()
    return made


def refused(response: Response, slug: str, said: str = "") -> None:
    assert (response.status, response.get("x-sigward-error")) == (403, slug), response
    assert said in response.body.decode()


# ---------------------------------------------------------------- headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-copy-source", "/bucket/secret"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-acl", "private"),
        ("range", "bytes=0-1"),
        ("content-type", "text/plain"),
        ("if-match", '"etag"'),
        ("x-amz-content-sha256", EMPTY),
        ("x-amz-date", ""),
    ],
)
@pytest.mark.parametrize("connection", ["{}", "keep-alive, {}", "keep-alive\r\nConnection: {},close"])
async def test_a_signed_header_does_not_end_at_this_hop(issued: Issued, name: str, value: str, connection: str) -> None:
    """sigward would take out what `Connection` names, and send a request that the client did not sign."""
    extra = [(name, value)] if value and name != "x-amz-content-sha256" else []
    head = issued.signed("PUT", "/k", *extra, payload=EMPTY)
    assert (await issued.ask("PUT", "/k", head)).status == 200
    for spelling in (name, name.upper()):
        response = await issued.ask("PUT", "/k", [*head, ("Connection", connection.format(spelling))])
        refused(response, "signed-header-removed", name)
    assert len(issued.proxy.upstream.received) == 1


async def test_what_is_not_signed_ends_where_connection_says(issued: Issued) -> None:
    head = issued.signed("PUT", "/k", payload=EMPTY)
    assert (await issued.ask("PUT", "/k", [*head, ("Connection", "X-Gone, host, keep-alive"), ("X-Gone", "1")])).status == 200
    (received,) = issued.proxy.upstream.received
    assert received.get("x-gone") is None
    assert_signed(received, BUCKET_HOST)


@pytest.mark.parametrize("name", ["te: trailers", "connection: keep-alive", "keep-alive: 5", "trailer: x-sum"])
async def test_headers_of_a_hop_may_be_signed(issued: Issued, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """They say nothing of the call. Some SDKs sign all that they send."""
    monkeypatch.setattr(botocore.auth, "SIGNED_HEADERS_BLACKLIST", [])
    name, _, value = name.partition(": ")
    asked = AWSRequest("GET", f"https://{HOST}/", headers={"host": HOST, name: value})
    botocore.auth.SigV4Auth(Credentials(issued.key, issued.secret), "sqs", "us-east-1").add_auth(asked)
    assert f";{name}" in asked.headers["authorization"] or f"={name}" in asked.headers["authorization"]
    assert (await issued.ask("GET", "/", list(asked.headers.items()))).status == 200
    assert_signed(issued.proxy.upstream.received[0], HOST)


# ---------------------------------------------------------------- two signatures

OTHER = "AWS4-HMAC-SHA256 Credential=AKIDOTHER/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00"


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize(
    "twice",
    [
        lambda issued, head: ("/k", [*head, ("Authorization", OTHER)]),
        lambda issued, head: ("/k", [("Authorization", OTHER), *head]),
        lambda issued, head: ("/k", [*head, ("Authorization", "Bearer abc")]),
        lambda issued, head: ("/k", [("Authorization", ""), *head]),
        lambda issued, head: ("/k", [*head, ("Authorization", dict(head)["authorization"])]),
        lambda issued, _: (issued.presigned("GET", "/k"), issued.signed("GET", issued.presigned("GET", "/k"), payload=EMPTY)),
        lambda issued, _: (issued.presigned("GET", "/k"), [("host", BUCKET_HOST), ("Authorization", OTHER)]),
        lambda issued, _: (issued.presigned("GET", "/k"), [("host", BUCKET_HOST), ("Authorization", "Bearer abc")]),
        lambda issued, _: ("/k?X-Amz-Signature=00", issued.signed("GET", "/k?X-Amz-Signature=00", payload=EMPTY)),
        lambda issued, _: ("/k?x-amz-signature=00", issued.signed("GET", "/k?x-amz-signature=00", payload=EMPTY)),
        lambda issued, _: ("/k?X-Amz-Cr%65dential=A", issued.signed("GET", "/k?X-Amz-Cr%65dential=A", payload=EMPTY)),
        lambda issued, _: ("/k?Signature=a&AWSAccessKeyId=b", issued.signed("GET", "/k?Signature=a&AWSAccessKeyId=b", payload=EMPTY)),
        *(
            lambda issued, _, more=more: (issued.presigned("GET", "/k") + more, [("host", BUCKET_HOST)])
            for more in (
                "&X-Amz-Signature=00", "&X-Amz-Signatur%65=00", "&x-amz-signature=00", "&X-Amz-Credential=AKIDOTHER%2F20260101",
                "&X-Amz-Algorithm=AWS4-HMAC-SHA256", "&X-Amz-Date=20260101T000000Z", "&X-Amz-SignedHeaders=host", "&X-Amz-Expires=604800",
                "&X-Amz-Signature", "&Signature=a&AWSAccessKeyId=b",
            )
        ),
    ],
)  # fmt: skip
async def test_a_request_is_signed_once(issue: Issue, required: bool, twice: Callable[[Issued, Pairs], tuple[str, Pairs]]) -> None:
    """Of two signatures, sigward and whoever reads it next might believe another."""
    issued = await issue(required=required)
    target, head = twice(issued, issued.signed("GET", "/k", payload=EMPTY))
    refused(await issued.ask("GET", target, head), "ambiguous-signature")
    assert not issued.proxy.upstream.received


async def test_a_signature_s_headers_come_once(issued: Issued) -> None:
    for name in ("x-amz-date", "x-amz-content-sha256"):
        head = issued.signed("GET", "/k", payload=EMPTY)
        response = await issued.ask("GET", "/k", [*head, (name, dict(head)[name])])
        refused(response, "ambiguous-signature", name)
    assert not issued.proxy.upstream.received


async def test_dummy_keys_may_stand_where_they_like(issued: Issued) -> None:
    """Nobody is believed for them."""
    head = [("Authorization", OTHER), ("Authorization", OTHER)]
    assert (await issued.ask("GET", "/k", [("host", BUCKET_HOST), *head])).status == 200
    assert_signed(issued.proxy.upstream.received[-1], BUCKET_HOST)


async def test_a_presigned_request_loses_its_signature_however_it_is_spelled(issued: Issued) -> None:
    target = issued.presigned("GET", "/k?versionId=1").replace("X-Amz-Date", "X-Amz-Dat%65").replace("X-Amz-Signature", "X-Amz%2DSignature")
    assert (await issued.ask("GET", target, [("host", BUCKET_HOST)])).status == 200
    (received,) = issued.proxy.upstream.received
    assert received.target == "/k?versionId=1"
    assert_signed(received, BUCKET_HOST)


# ---------------------------------------------------------------- bodies


def framed(body: bytes, *trailers: str) -> bytes:
    """aws-chunked, without signatures."""
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + "\r\n".join(["0", *trailers, "", ""]).encode()


def unsigned_trailer(body: bytes, *more: tuple[str, str], names: str = "x-amz-checksum-crc32") -> Pairs:
    return [("content-encoding", "aws-chunked"), ("x-amz-decoded-content-length", str(len(body))), ("x-amz-trailer", names), *more]


Sent = tuple[str, str, Pairs, bytes]


def uncovered(issued: Issued, body: bytes) -> dict[str, Sent]:
    """Requests whose signatures cover no body."""
    events = ("content-type", "application/vnd.amazon.eventstream")
    return {
        "unsigned": ("PUT", "/k", issued.signed("PUT", "/k", payload=UNSIGNED), body),
        "unsigned trailer": (
            "PUT",
            "/k",
            issued.signed("PUT", "/k", *unsigned_trailer(body), payload=UNSIGNED_TRAILER),
            framed(body, f"x-amz-checksum-crc32:{crc32(body)}"),
        ),
        "presigned": ("PUT", issued.presigned("PUT", "/k"), [("host", BUCKET_HOST)], body),
        "unsigned elsewhere": ("POST", "/", issued.signed("POST", "/", host=HOST, payload=UNSIGNED), body),
        "another word": ("POST", "/", issued.signed("POST", "/", host=HOST, payload="NONSENSE"), body),
        "events": (
            "POST",
            "/",
            issued.signed("POST", "/", events, host=HOST, payload="STREAMING-AWS4-HMAC-SHA256-EVENTS"),
            message(b"", body),
        ),
    }


UNCOVERED = ("unsigned", "unsigned trailer", "presigned", "unsigned elsewhere", "another word", "events")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["held", "large"])
@pytest.mark.parametrize("kind", UNCOVERED)
async def test_a_body_that_no_signature_covers(issue: Issue, kind: str, body: bytes, chunked: bool) -> None:
    issued = await issue(payload="signed")
    method, target, head, sent = uncovered(issued, body)[kind]
    refused(await issued.ask(method, target, head, sent, chunked="" if chunked else None), "unsigned-payload")
    assert not issued.proxy.upstream.received


@pytest.mark.parametrize("kind", UNCOVERED)
async def test_it_goes_out_where_that_is_not_asked_for(issued: Issued, kind: str) -> None:
    method, target, head, sent = uncovered(issued, SMALL)[kind]
    assert (await issued.ask(method, target, head, sent)).status == 200


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("kind", ["unsigned", "presigned", "unsigned elsewhere", "unsigned trailer"])
async def test_there_is_no_body_to_cover(issue: Issue, kind: str, chunked: bool) -> None:
    issued = await issue(payload="signed")
    method, target, head, sent = uncovered(issued, b"")[kind]
    response = await issued.ask(method, target, head, sent, chunked="" if chunked else None)
    assert response.status == 200, response
    assert_signed(issued.proxy.upstream.received[0], dict(head)["host"])


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["held", "large"])
@pytest.mark.parametrize("host", [HOST, BUCKET_HOST])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("tells", [False, True])
async def test_a_body_that_is_covered(issue: Issue, host: str, body: bytes, chunked: bool, tells: bool) -> None:
    """By a hash in a header, or, but for S3, by that in the signature alone."""
    issued = await issue(payload="signed")
    payload: bytes | str = hashlib.sha256(body).hexdigest() if tells or host == BUCKET_HOST else body
    head = issued.signed("POST", "/k", host=host, payload=payload)
    assert (await issued.ask("POST", "/k", head, body, chunked="" if chunked else None)).status == 200
    assert issued.proxy.upstream.received[0].body == body


@pytest.mark.parametrize("payload", ["any", "signed"])
@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["held", "large"])
@pytest.mark.parametrize("route", ["unsigned", "chunked", "hash"])
async def test_a_hash_is_checked_where_it_does_not_go_on(issue: Issue, upstream: Upstream, payload: str, body: bytes, route: str) -> None:
    """The upstream sees another hash than the client's, and cannot find that the body is not the client's."""
    rule = {"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}", "payload": route}
    issued = await issue(payload=payload, settings={"routes": [rule]})
    head = issued.signed("PUT", "/k", payload=hashlib.sha256(body).hexdigest())
    assert (await issued.ask("PUT", "/k", head, body)).status == 200
    changed = b"X" + body[1:]
    response = await issued.ask("PUT", "/k", head, changed)
    if route == "hash":
        # It goes on here, and AWS refuses it.
        assert upstream.received[-1].get("x-amz-content-sha256") == hashlib.sha256(body).hexdigest()
    else:
        refused(response, "content-sha256-mismatch")
        assert len(upstream.received) == 1


# ---------------------------------------------------------------- trailers

SUM = f"x-amz-checksum-crc32:{crc32(SMALL)}"
ADDED = ["x-amz-copy-source:/bucket/secret", "X-Amz-Meta-Evil: 1", "host:evil.test", "x-sum:1"]


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["held", "streamed"])
@pytest.mark.parametrize("route", ["auto", "hash", "unsigned", "chunked"])
@pytest.mark.parametrize("http2", [False, True])
async def test_trailers_that_are_not_announced_are_not_the_client_s(
    issue: Issue, upstream: Upstream, route: str, body: bytes, http2: bool
) -> None:
    """No signature covers them. The one that is announced is named by a signed header."""
    far: Upstream = Http2Upstream() if http2 else upstream
    async with far if http2 else asyncio.timeout(60):
        rule = {"host": "*.amazonaws.com", "connect": f"127.0.0.1:{far.port}", "payload": route}
        more: dict[str, Any] = {"egress": {"http2": "always"}} if http2 else {}
        issued = await issue(to=far, settings={"routes": [rule], **more})
        for added in ADDED:
            head = issued.signed("PUT", "/k", *unsigned_trailer(body), payload=UNSIGNED_TRAILER)
            sent = framed(body, added, f"x-amz-checksum-crc32:{crc32(body)}", added)
            response = await issued.ask("PUT", "/k", head, sent)
            assert response.status == 200, response
            received = far.received[-1]
            name = added.partition(":")[0].lower()
            assert name == "host" or received.get(name) is None
            assert (received.get("host"), received.trailers) == (BUCKET_HOST, [])
            if route == "hash":
                assert (received.body, received.get("x-amz-checksum-crc32")) == (body, crc32(body))
            else:
                chunks = unwrapped(received.body)
                assert chunks.body == body
                assert set(chunks.trailers) - {"x-amz-trailer-signature"} == {"x-amz-checksum-crc32"}
                assert received.get("x-amz-trailer") == "x-amz-checksum-crc32"


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["held", "streamed"])
@pytest.mark.parametrize("http2", [False, True])
async def test_trailers_of_http_1_1(issue: Issue, upstream: Upstream, body: bytes, announced: bool, http2: bool) -> None:
    far: Upstream = Http2Upstream() if http2 else upstream
    async with far if http2 else asyncio.timeout(60):
        more: dict[str, Any] = {"egress": {"http2": "always"}} if http2 else {}
        issued = await issue(to=far, settings=more)
        head = issued.signed("PUT", "/k", payload=UNSIGNED)
        head += [("trailer", "x-sum, x-amz-copy-source")] if announced else []
        response = await issued.ask("PUT", "/k", head, body, chunked="x-sum: 1\r\nx-amz-copy-source: /bucket/secret\r\n")
        assert response.status == 200, response
        (received,) = far.received
        assert (received.body, received.trailers, received.get("trailer")) == (body, [], None)


@pytest.mark.parametrize("body", [SMALL, LARGE[: 96 << 10]], ids=["held", "streamed"])
async def test_trailers_of_http2(issue: Issue, upstream: Upstream, body: bytes) -> None:
    issued: Issued = await issue(settings={"body": {"hold": 1000}})
    head = [(name, value) for name, value in issued.signed("PUT", "/k", payload=UNSIGNED) if name != "host"]
    async with issued.proxy.tunnel(f"{BUCKET_HOST}:443", BUCKET_HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        number = client.begin("PUT", "/k", BUCKET_HOST, *head, ("trailer", "x-sum"))
        for at in range(0, len(body), 16_000):
            client.connection.send_data(number, body[at : at + 16_000])
            client.flush()
            await client.echo()
        client.connection.send_headers(number, [("x-sum", "1"), ("x-amz-copy-source", "/bucket/secret")], end_stream=True)
        client.flush()
        [stream] = await client.finished(number)
    assert stream.headers[":status"] == "200"
    (received,) = upstream.received
    assert (received.body, received.trailers, received.get("trailer")) == (body, [], None)


@pytest.mark.fault("signed chunks that were tampered with", holds="refused; nothing of them counts as the client's")
async def test_a_chunk_s_signature_is_checked_for_a_form_too(issue: Issue, upstream: Upstream) -> None:
    """Its body is read before its route is known, and not taken out of its chunks: then nobody has checked them."""
    routes = [{"operation": "sqs:List*", "host": HOST, "connect": f"127.0.0.1:{upstream.port}"}]
    issued = await issue(settings={"routes": routes})
    form = b"Action=ListQueues&Version=2012-11-05"
    headers = [("content-type", "application/x-www-form-urlencoded"), ("x-amz-decoded-content-length", str(len(form)))]
    head = issued.signed("POST", "/", *headers, host=HOST, payload="STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
    response = await issued.ask("POST", "/", head, form)
    assert (response.status, response.get("x-sigward-error")) in [(400, "body-failed"), (403, "unsigned-payload")], response
    assert not upstream.received
