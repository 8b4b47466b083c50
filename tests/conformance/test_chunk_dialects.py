"""`aws-chunked` as public clients send it, and which of S3's calls go out in chunks.

Where the dialects come from: AWS's SDKs (.NET's `ChunkedUploadWrapperStream`, C++'s `AwsChunkedStream`, aws-c-s3's `s3_chunk_stream.c`),
MinIO's clients (`pkg/signer` of minio-go, in mc, warp and restic), async-aws for PHP, aiohttp-s3-client.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.conftest import Start
from tests.conformance.test_forms import LARGE, SMALL, crc32, routed, saw
from tests.conformance.test_issued_keys import Issue, Issued, Pairs, issue
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import Upstream, assert_chunks_signed, assert_signed, unwrapped

__all__ = ["issue"]

SIGNED, UNSIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
DUMMY = "Authorization: AWS4-HMAC-SHA256 Credential=dummy/20250101/us-east-1/s3/aws4_request,SignedHeaders=host,Signature=00"
Sign = Callable[[str, bytes], str]


def zeros(_kind: str, _data: bytes) -> str:
    return "0" * 64


def chunks(body: bytes, sign: Sign | None, *, digits: str = "x", extension: str = "", size: int = 65_536) -> bytes:
    """Up to the last chunk's head."""
    framed = b""
    # One more than there are, and empty.
    for at in range(0, len(body) + size, size):
        piece = body[at : at + size]
        ending = f";chunk-signature={sign('PAYLOAD', piece)}" if sign else extension
        framed += f"{len(piece):{digits}}{ending}\r\n".encode() + (piece + b"\r\n" if piece else b"")
    return framed


def total(body: bytes) -> str:
    return f"x-amz-checksum-crc32:{crc32(body)}"


def minio_signed(body: bytes, sign: Sign = zeros) -> bytes:
    framed = chunks(body, sign)
    return framed + f"{total(body)}\n\r\nx-amz-trailer-signature:{sign('TRAILER', total(body).encode() + b'\n')}\r\n\r\n".encode()


def minio_unsigned(body: bytes) -> bytes:
    return chunks(body, None) + f"{total(body)}\n\r\n\r\n".encode()


def dotnet_signed(body: bytes) -> bytes:
    return chunks(body, zeros, digits="X", size=81_920) + f"{total(body)}\r\nx-amz-trailer-signature:{'0' * 64}\r\n\r\n".encode()


TRAILER = ("x-amz-trailer: x-amz-checksum-crc32",)
ENCODED = ("Content-Encoding: aws-chunked",)

# What the head says (but for the lengths), the frame, and whether a checksum follows.
DIALECTS: dict[str, tuple[tuple[str, ...], Callable[[bytes], bytes], bool]] = {
    "minio-go, signed": ((f"x-amz-content-sha256: {SIGNED}-TRAILER", *TRAILER), minio_signed, True),
    "minio-go, unsigned": ((f"x-amz-content-sha256: {UNSIGNED}", *TRAILER, *ENCODED), minio_unsigned, True),
    "minio-go without a checksum": ((f"x-amz-content-sha256: {SIGNED}",), lambda body: chunks(body, zeros) + b"\r\n", False),
    ".NET, signed": ((f"x-amz-content-sha256: {SIGNED}-TRAILER", *TRAILER), dotnet_signed, True),
    ".NET, unsigned: one chunk": (
        (f"x-amz-content-sha256: {UNSIGNED}", *TRAILER),
        lambda body: chunks(body, None, digits="X", size=1 << 30) + f"{total(body)}\r\n\r\n".encode(),
        True,
    ),
    "C++ without a checksum": (
        (f"x-amz-content-sha256: {UNSIGNED}", *ENCODED),
        lambda body: chunks(body, None, digits="X") + b"\r\n",
        False,
    ),
    "CRT: no encoding told": (
        (f"x-amz-content-sha256: {UNSIGNED}", *TRAILER),
        lambda body: chunks(body, None, digits="X", size=1 << 30) + f"{total(body)}\r\n\r\n".encode(),
        True,
    ),
    "boto3 without signatures: no keyword": (
        ("Content-Encoding: gzip,aws-chunked", *TRAILER),
        lambda body: chunks(body, None, size=1 << 20) + f"{total(body)}\r\n\r\n".encode(),
        True,
    ),
    "Java: UNSIGNED-PAYLOAD": (
        ("x-amz-content-sha256: UNSIGNED-PAYLOAD", *ENCODED, *TRAILER),
        lambda body: chunks(body, None) + f"{total(body)}\r\n\r\n".encode(),
        True,
    ),
    "async-aws": ((f"x-amz-content-sha256: {SIGNED}", *ENCODED), lambda body: chunks(body, zeros) + b"\r\n", False),
    "extensions without a name": (
        (f"x-amz-content-sha256: {UNSIGNED}", *TRAILER),
        lambda body: chunks(body, None, extension=";") + f"{total(body)}\r\n\r\n".encode(),
        True,
    ),
    "no empty line at the end": (
        (f"x-amz-content-sha256: {UNSIGNED}", *TRAILER, *ENCODED),
        lambda body: chunks(body, None) + f"{total(body)}\r\n".encode(),
        True,
    ),
    "blanks around the colon": (
        (f"x-amz-content-sha256: {UNSIGNED}", *TRAILER, *ENCODED),
        lambda body: chunks(body, None) + f"{total(body)}\r\n\r\n".replace(":", " : ").encode(),
        True,
    ),
}


async def test_dialects(start: Start, upstream: Upstream) -> None:
    proxy = await routed(start, upstream)
    for name, (head, frame, summed) in DIALECTS.items():
        for body in (b"", SMALL, LARGE):
            for length in (True, False):
                framed = frame(body)
                told = [DUMMY, *head, *([f"x-amz-decoded-content-length: {len(body)}"] if length else [])]
                if body:
                    raw = request("PUT", "/key", *told, host=BUCKET_HOST, body=framed)
                else:
                    # Go sends what it thinks of as an empty body in HTTP's chunks.
                    raw = request("PUT", "/key", *told, "Transfer-Encoding: chunked", host=BUCKET_HOST)
                    raw += b"%x\r\n%b\r\n0\r\n\r\n" % (len(framed), framed)
                received = await saw(proxy, raw)
                where = (name, len(body), length)
                assert received.get("content-encoding") in ([None, "aws-chunked"] if "gzip" not in str(head) else ["aws-chunked,gzip"]), (
                    where
                )
                if received.get("x-amz-content-sha256") == UNSIGNED:
                    taken = unwrapped(received.body)
                    assert taken.trailers == ({"x-amz-checksum-crc32": crc32(body)} if summed else {}), where
                    assert taken.body == body, where
                    assert received.get("x-amz-decoded-content-length") == str(len(body)), where
                else:
                    assert (received.body, summed) == (body, False), where
                    assert_signed(received, BUCKET_HOST)


async def test_a_keyword_without_chunks_is_refused(start: Start, upstream: Upstream) -> None:
    """As aiohttp-s3-client sends it, in HTTP's chunks alone: S3 wants both, and a guess could lose bytes."""
    proxy = await routed(start, upstream)
    raw = request("PUT", "/key", f"x-amz-content-sha256: {UNSIGNED}", "Transfer-Encoding: chunked", host=BUCKET_HOST)
    response = await proxy.ask(raw + b"a\r\nsmall body\r\n0\r\n\r\n")
    assert (response.status, response.get("x-sigward-error")) == (400, "body-failed"), response
    assert not upstream.received


async def test_minio_s_trailers_are_verified(issue: Issue) -> None:
    """Signed with an issued key as minio-go does it, and nothing in them may change."""
    issued: Issued = await issue(payload="signed")
    for body in (SMALL, LARGE):
        headers = [("x-amz-decoded-content-length", str(len(body))), ("x-amz-trailer", "x-amz-checksum-crc32")]
        head = issued.signed("PUT", "/k", *headers, payload=f"{SIGNED}-TRAILER")
        framed = minio_signed(body, signing(issued, head))
        response = await issued.ask("PUT", "/k", head, framed)
        assert response.status == 200, response
        taken = unwrapped(issued.proxy.upstream.received[-1].body)
        assert (taken.body, taken.trailers) == (body, {"x-amz-checksum-crc32": crc32(body)})
    before = len(issued.proxy.upstream.received)
    for changed in (
        framed.replace(f"{total(body)}\n".encode(), f"{total(SMALL)}\n".encode()),
        framed[: framed.rindex(b"x-amz-trailer-signature")],
        framed.replace(b"\n\r\nx-amz-trailer-signature", b"\n\r\nx-amz-checksum-sha1:AA==\r\nx-amz-trailer-signature"),
        framed + b"\r\n",
    ):
        response = await issued.ask("PUT", "/k", head, changed)
        assert response.status in (400, 403), response
        assert response.get("x-sigward-error") in ("body-failed", "signature-mismatch"), response
    assert len(issued.proxy.upstream.received) == before


def signing(issued: Issued, head: Pairs) -> Sign:
    """The chain of signatures that begins with the head's."""
    parts = dict(part.strip().split("=", 1) for part in dict(head)["authorization"].partition(" ")[2].split(","))
    scope = parts["Credential"].partition("/")[2]
    key = f"AWS4{issued.secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    previous = parts["Signature"]

    def sign(kind: str, data: bytes) -> str:
        nonlocal previous
        empty = [hashlib.sha256(b"").hexdigest()] if kind == "PAYLOAD" else []
        lines = [f"AWS4-HMAC-SHA256-{kind}", dict(head)["x-amz-date"], scope, previous, *empty, hashlib.sha256(data).hexdigest()]
        previous = hmac.digest(key, "\n".join(lines).encode(), "sha256").hex()
        return previous

    return sign


# ---------------------------------------------------------------- what goes out in chunks

UPLOADS = [("PUT", "/key"), ("PUT", "/key?x-id=PutObject"), ("PUT", "/key?partNumber=1&uploadId=u")]
OTHERS = [
    ("PUT", "/key?tagging"),
    ("PUT", "/key?acl"),
    ("PUT", "/key?retention"),
    ("PUT", "/key?legal-hold"),
    ("PUT", "/"),
    ("PUT", "/?policy"),
    ("PUT", "/?lifecycle"),
    ("PUT", "/?versioning"),
    ("POST", "/?delete"),
    ("POST", "/key?uploadId=u"),
    ("POST", "/key?restore"),
    ("POST", "/key?select&select-type=2"),
]


@pytest.mark.parametrize("bucket", ["host", "path"])
async def test_uploads_alone_go_out_in_chunks(start: Start, upstream: Upstream, bucket: str) -> None:
    proxy = await routed(start, upstream, payload="chunked")
    host, prefix = (BUCKET_HOST, "") if bucket == "host" else ("s3.us-east-1.amazonaws.com", "/bucket")
    for method, target in UPLOADS:
        received = await saw(proxy, request(method, prefix + target, host=host, body=SMALL))
        assert received.get("x-amz-content-sha256") == SIGNED, target
        assert assert_chunks_signed(received).body == SMALL
    hexadecimal = hashlib.sha256(SMALL).hexdigest()
    framed = minio_signed(SMALL)
    for method, target in OTHERS:
        plain: tuple[list[str], bytes] = ([], SMALL)
        in_chunks = (
            [f"x-amz-content-sha256: {SIGNED}-TRAILER", *TRAILER, f"x-amz-decoded-content-length: {len(SMALL)}"],
            framed,
        )
        for headers, body in (plain, in_chunks):
            received = await saw(proxy, request(method, prefix + target, *headers, host=host, body=body))
            assert (received.get("x-amz-content-sha256"), received.body) == (hexadecimal, SMALL), target
            assert received.get("x-amz-decoded-content-length") is None
            assert received.get("x-amz-checksum-crc32") == (crc32(SMALL) if headers else None)
            assert_signed(received, host)


@pytest.mark.parametrize("payload", ["auto", "hash", "chunked"])
async def test_an_encoding_that_a_call_without_a_body_passes_on(start: Start, upstream: Upstream, payload: str) -> None:
    """Objects that were stored with `aws-chunked` as their encoding are copied, and uploaded in parts, with it."""
    proxy = await routed(start, upstream, payload=payload)
    cases: list[tuple[str, str, tuple[Any, ...]]] = [
        ("PUT", "/key", ("x-amz-copy-source: /bucket/other", "x-amz-metadata-directive: REPLACE", "Content-Length: 0")),
        ("PUT", "/key", ("x-amz-copy-source: /bucket/other",)),
        ("POST", "/key?uploads", ("Content-Length: 0",)),
    ]
    for method, target, headers in cases:
        received = await saw(proxy, request(method, target, "Content-Encoding: aws-chunked", *headers, host=BUCKET_HOST))
        assert (received.get("content-encoding"), received.body) == ("aws-chunked", b"")
        assert_signed(received, BUCKET_HOST)
