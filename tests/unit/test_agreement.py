"""Other signers sign alike: botocore (AWS's SDK for Python) on 20,000 requests (`make readers`: 100,000), awscrt (the
runtime under AWS's other SDKs) on 4,000.

`aws-sigv4` (AWS's SDK for Rust) is compared in `rust/sigv4/tests/agreement.rs`. Where signers disagree, `test_signing.py` has
one decision and one test for each case.
"""

import datetime
import random
from dataclasses import dataclass
from typing import Any
from unittest import mock
from urllib.parse import quote

import awscrt.auth
import awscrt.http
import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sigward import _core
from tests.samples import EACH

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
WHEN = 1_440_938_160
NOW = datetime.datetime.fromtimestamp(WHEN, datetime.UTC)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~ !\"#$%&'()*+,/:;<=>?@[]^`{|}éß日本€😀\t\x7f"
OWN = {"x-amz-date", "x-amz-security-token", "x-amz-content-sha256", "x-amzn-trace-id"}
UNSIGNED = tuple(name.removesuffix("*") for name, _ in _core.unsigned_headers())


@dataclass
class Case:
    """One made-up request, as a careful client writes it."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes
    token: str | None

    @property
    def url(self) -> str:
        return f"https://host.example.com{self.path}" + (f"?{self.query}" if self.query else "")

    def ours(self) -> tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]]:
        headers = [(name.encode(), value.encode()) for name, value in self.headers]
        return self.method.encode(), self.path.encode(), self.query.encode(), [(b"host", b"host.example.com"), *headers]


def cases(seed: str, count: int, *, dotted: bool = True) -> Any:
    """The same for the same seed. S3's keys hold no escaped slash: S3 reads it as a slash, and so do we; others sign it as it is."""
    in_path = LETTERS.replace("/", "") if "s3" in seed else LETTERS
    source = random.Random(seed)

    def text(letters: str, least: int, most: int) -> str:
        return "".join(source.choices(letters, k=source.randint(least, most)))

    def segment() -> str:
        special = source.random()
        return "" if special < 0.05 and dotted else ".." if special < 0.08 and dotted else quote(text(in_path, 1, 12), safe="-_.~")

    for _ in range(count):
        pairs = [(text(LETTERS, 1, 8), text(LETTERS, 0, 8)) for _ in range(source.randint(0, 6))]
        names = ["x-" + text("abcdefghijklmnopqrstuvwxyzABCDEF0123456789-", 1, 16) for _ in range(source.randint(0, 6))]
        values = "".join(letter for letter in LETTERS if letter.isascii() and letter.isprintable())
        yield Case(
            source.choice(["GET", "PUT", "POST", "DELETE", "HEAD"]),
            "/" + "/".join(segment() for _ in range(source.randint(0, 5))),
            "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs),
            [(name, text(values, 0, 30)) for name in names if name.lower() not in OWN and not name.lower().startswith(UNSIGNED)],
            source.randbytes(source.randint(0, 60)),
            text("abcABC012+/=", 1, 60) if source.random() < 0.5 else None,
        )


def signer(style: str, token: str | None) -> _core.Signer:
    service = "s3" if style == "s3" else "dynamodb"
    return _core.Signer(KEY, SECRET, token, "eu-west-1", service, style)  # type: ignore[arg-type]


def botocore_request(case: Case) -> AWSRequest:
    request = AWSRequest(case.method, case.url, data=case.body)
    for name, value in case.headers:
        request.headers.add_header(name, value)
    request.context["payload_signing_enabled"] = True
    return request


@pytest.mark.parametrize("style", ["s3", "generic"])
def test_botocore_by_headers(style: str) -> None:
    auth_type = botocore.auth.S3SigV4Auth if style == "s3" else botocore.auth.SigV4Auth
    compared = 0
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=NOW):
        for case in cases(f"headers {style}", EACH):
            auth = auth_type(Credentials(KEY, SECRET, case.token), "s3" if style == "s3" else "dynamodb", "eu-west-1")
            request = botocore_request(case)
            auth.add_auth(request)
            lines = signer(style, case.token).sign(*case.ours(), case.body, WHEN)
            assert lines.endswith(f"\r\nauthorization: {request.headers['Authorization']}\r\n".encode()), case
            compared += 1
    assert compared == EACH


@pytest.mark.parametrize("style", ["s3", "generic"])
def test_botocore_by_query(style: str) -> None:
    """The signature and every parameter: the order of a query is free."""
    auth_type = botocore.auth.S3SigV4QueryAuth if style == "s3" else botocore.auth.SigV4QueryAuth
    compared = 0
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=NOW):
        for case in cases(f"query {style}", EACH):
            expires = 1 + compared % 604_800
            case.body = b""
            # botocore parses the query and writes it anew: names that come twice are told once, blank values are lost.
            case.query = "&".join({term.partition("=")[0]: term for term in case.query.split("&") if not term.endswith("=")}.values())
            auth = auth_type(Credentials(KEY, SECRET, case.token), "s3" if style == "s3" else "dynamodb", "eu-west-1", expires)
            request = botocore_request(case)
            auth.add_auth(request)
            payload: bytes | str = "UNSIGNED-PAYLOAD" if style == "s3" else b""
            query = signer(style, case.token).presign(*case.ours(), payload, expires, WHEN).decode()
            assert sorted(query.split("&")) == sorted(request.url.partition("?")[2].split("&")), case
            compared += 1
    assert compared == EACH


@pytest.mark.parametrize("variant", ["v4", "v4a"])
@pytest.mark.parametrize("style", ["s3", "generic"])
def test_awscrt(style: str, variant: str) -> None:
    """awscrt takes an S3 path as it stands, so that the cases have one spelling. SigV4a's signatures are random: they are verified."""
    compared = 0
    algorithms = awscrt.auth.AwsSigningAlgorithm
    for case in cases(f"awscrt {style} {variant}", 1000, dotted=style == "generic"):
        headers = [(name, value) for name, value in case.headers if value.strip()]
        request = awscrt.http.HttpRequest(case.method, case.path + (f"?{case.query}" if case.query else ""))
        request.headers.add_pairs([("host", "host.example.com"), *headers])
        config = awscrt.auth.AwsSigningConfig(
            algorithm=algorithms.V4 if variant == "v4" else algorithms.V4_ASYMMETRIC,
            signature_type=awscrt.auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
            credentials_provider=awscrt.auth.AwsCredentialsProvider.new_static(KEY, SECRET, case.token),
            region="eu-west-1",
            service="s3" if style == "s3" else "dynamodb",
            date=NOW,
            use_double_uri_encode=style != "s3",
            should_normalize_uri_path=style != "s3",
            signed_body_value="UNSIGNED-PAYLOAD" if style == "s3" else None,
            signed_body_header_type=awscrt.auth.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256
            if style == "s3"
            else awscrt.auth.AwsSignedBodyHeaderType.NONE,
        )
        signed = awscrt.auth.aws_sign_request(request, config).result(10)
        method, path, query, _ = case.ours()
        arrived = [(name.encode(), value.encode()) for name, value in signed.headers]
        verifier = _core.Verifier(KEY, SECRET, case.token, style)  # type: ignore[arg-type]
        verifier.verify(method, path, query, arrived, "UNSIGNED-PAYLOAD" if style == "s3" else b"", WHEN)
        if variant == "v4":
            ours = signer(style, case.token).sign(
                method, path, query, [(b"host", b"host.example.com"), *((name.encode(), value.encode()) for name, value in headers)],
                "UNSIGNED-PAYLOAD" if style == "s3" else b"", WHEN,
            )  # fmt: skip
            assert ours.endswith(f"\r\nauthorization: {signed.headers.get('authorization')}\r\n".encode()), case
        compared += 1
    assert compared == 1000
