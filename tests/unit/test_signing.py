"""The signer: byte-equality with botocore, and what is never shown."""

import datetime
from typing import Any, Literal
from unittest import mock
from urllib.parse import quote

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sigward import _core
from tests.samples import SEARCHED

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
WHEN = 1_440_938_160


def botocore_signed(
    style: str, method: str, url: str, headers: list[tuple[str, str]], body: bytes, token: str | None
) -> tuple[str, str, str]:
    """(canonical request, string to sign, authorization) by botocore."""
    auth_type = botocore.auth.S3SigV4Auth if style == "s3" else botocore.auth.SigV4Auth
    auth = auth_type(Credentials(KEY, SECRET, token), "s3" if style == "s3" else "dynamodb", "eu-west-1")
    request = AWSRequest(method, url, data=body)
    for name, value in headers:
        request.headers.add_header(name, value)
    request.context["payload_signing_enabled"] = True
    seen: dict[str, str] = {}
    original_canonical, original_to_sign = auth.canonical_request, auth.string_to_sign

    def canonical(request: AWSRequest) -> str:
        return seen.setdefault("canonical", original_canonical(request))

    def to_sign(request: AWSRequest, canonical: str) -> str:
        return seen.setdefault("to_sign", original_to_sign(request, canonical))

    now = datetime.datetime.fromtimestamp(WHEN, datetime.UTC)
    with (
        mock.patch.object(botocore.auth, "get_current_datetime", return_value=now, create=True),
        mock.patch.object(auth, "canonical_request", canonical),
        mock.patch.object(auth, "string_to_sign", to_sign),
    ):
        auth.add_auth(request)
    return seen["canonical"], seen["to_sign"], request.headers["Authorization"]


def test_what_botocore_does_not_sign_is_not_signed_nor_what_a_hop_may_change() -> None:
    signer = _core.Signer(KEY, SECRET, None, "us-east-1", "sqs")
    listed = {name.replace("*", "x") for name, _ in _core.unsigned_headers()}
    assert {"via", "forwarded", "x-forwarded-x", "x-real-ip", *botocore.auth.SIGNED_HEADERS_BLACKLIST} <= listed
    left_out = [(name.title().encode(), b"x") for name in listed]
    steps = signer.steps(b"GET", b"/", b"", [(b"host", b"h"), (b"kept", b"x"), *left_out], b"", WHEN)
    assert b"SignedHeaders=host;kept;x-amz-date," in dict(steps.headers)[b"authorization"]


names = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-", min_size=1, max_size=20).map(lambda name: f"x-{name}")
plain_values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
reserved = ("x-amz-date", "x-amz-security-token", "x-amz-content-sha256", *(name.removesuffix("*") for name, _ in _core.unsigned_headers()))
header_lists = st.lists(st.tuples(names, plain_values), max_size=8).map(
    lambda pairs: [(name, value) for name, value in pairs if not name.lower().startswith(reserved)]
)
segments = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), max_size=12)
tokens = st.one_of(st.none(), st.text("abcABC012+/=", min_size=1, max_size=60))
queries = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    ),
    max_size=5,
)


def encoded_query(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)


@pytest.mark.parametrize("style", ["s3", "generic"])
@settings(max_examples=SEARCHED, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD"]),
    path=st.lists(segments, max_size=5),
    query=queries,
    headers=header_lists,
    body=st.binary(max_size=200),
    token=tokens,
)
def test_equal_with_botocore(
    style: str,
    method: str,
    path: list[str],
    query: list[tuple[str, str]],
    headers: list[tuple[str, str]],
    body: bytes,
    token: str | None,
) -> None:
    """2,000 requests in two styles (`make readers`: 10,000): canonical request, string to sign and Authorization, byte for byte."""
    raw_path = "/" + "/".join(quote(part, safe="-_.~") for part in path)
    raw_query = encoded_query(query)
    url = f"https://host.example.com{raw_path}" + (f"?{raw_query}" if raw_query else "")
    theirs = botocore_signed(style, method, url, headers, body, token)
    signer = _core.Signer(KEY, SECRET, token, "eu-west-1", "s3" if style == "s3" else "dynamodb", style)  # type: ignore[arg-type]
    ours_headers = [(b"host", b"host.example.com"), *((name.encode(), value.encode()) for name, value in headers)]
    steps = signer.steps(method.encode(), raw_path.encode(), raw_query.encode(), ours_headers, body, WHEN)
    assert steps.canonical_request.decode() == theirs[0]
    assert steps.string_to_sign == theirs[1]
    assert dict(steps.headers)[b"authorization"].decode() == theirs[2]


def signer(style: str = "generic", token: str | None = None) -> _core.Signer:
    return _core.Signer(KEY, SECRET, token, "us-east-1", "s3" if style == "s3" else "dynamodb", style)  # type: ignore[arg-type]


def canonical(style: str, path: bytes, query: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None) -> list[str]:
    steps = signer(style).steps(b"GET", path, query, [(b"Host", b"h.test"), *(headers or [])], b"", WHEN)
    return steps.canonical_request.decode().split("\n")


@pytest.mark.parametrize("style", ["generic", "s3"])
def test_a_literal_plus_in_a_query_is_a_blank_unless_told_otherwise(style: Literal["generic", "s3"]) -> None:
    """botocore leaves it as it is; a verifier that decodes reads a blank. `%20` and `%2B` are read alike by all."""
    assert canonical(style, b"/", b"a=b+c%2B")[2] == "a=b%20c%2B"
    plus = _core.Signer(KEY, SECRET, None, "us-east-1", "s3", style, query_plus="plus")
    headers = [(b"host", b"h.test")]
    assert b"\na=b%2Bc%2B\n" in plus.steps(b"GET", b"/", b"a=b+c%2B", headers, b"", WHEN).canonical_request
    assert plus.presign(b"GET", b"/", b"a=b+c", headers, b"", 60, WHEN).startswith(b"X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    assert plus.presign(b"GET", b"/", b"a=b+c", headers, b"", 60, WHEN).count(b"&a=b%2Bc&") == 1
    assert signer(style).presign(b"GET", b"/", b"a=b+c", headers, b"", 60, WHEN).count(b"&a=b%20c&") == 1


def test_lower_case_escapes_are_spelled_in_capitals() -> None:
    """botocore signs S3 paths as they come; S3 decodes and encodes anew."""
    assert canonical("s3", b"/%c3%a9%7e")[1] == "/%C3%A9~"


def test_an_escaped_slash_in_an_s3_key_is_a_slash() -> None:
    """botocore, awscrt and aws-sigv4 sign `%2F` as it is; S3 decodes it. It goes out as a slash, so that all see the same."""
    assert canonical("s3", b"/a%2Fb")[1] == "/a/b"
    assert canonical("generic", b"/a%2Fb")[1] == "/a%252Fb"


def test_s3_keeps_double_slashes_and_dots() -> None:
    assert canonical("s3", b"/a//b/../c")[1] == "/a//b/../c"


def test_a_clients_date_header_does_not_take_x_amz_dates_place() -> None:
    """botocore signs with `Date` where the client sent one; x-amz-date is read by every service."""
    lines = canonical("generic", b"/", headers=[(b"Date", b"Sun, 30 Aug 2015 12:36:00 GMT")])
    assert "date:Sun, 30 Aug 2015 12:36:00 GMT" in lines
    assert "x-amz-date:20150830T123600Z" in lines


def test_a_clients_signature_is_replaced_not_signed() -> None:
    old = [
        (b"Authorization", b"AWS4-HMAC-SHA256 x"),
        (b"X-Amz-Date", b"19700101T000000Z"),
        (b"x-amz-security-token", b"theirs"),
    ]
    lines = canonical("generic", b"/", headers=old)
    assert "x-amz-date:20150830T123600Z" in lines
    assert not any("theirs" in line or line.startswith("authorization") for line in lines)


def test_sign_gives_the_lines_to_add() -> None:
    blob = signer(token="tok").sign(b"GET", b"/", b"", [(b"host", b"h.test")], b"", WHEN)
    names = [line.partition(b": ")[0] for line in blob.split(b"\r\n")[:-1]]
    assert names == [b"x-amz-date", b"x-amz-security-token", b"authorization"]


@pytest.mark.parametrize(
    ("arguments", "slug"),
    [
        (("", SECRET, None, "r", "s"), "empty-field"),
        ((KEY, "a\nb", None, "r", "s"), "bad-byte"),
    ],
)
def test_bad_keys_are_named(arguments: tuple[Any, ...], slug: str) -> None:
    with pytest.raises(_core.SigningError) as caught:
        _core.Signer(*arguments)
    assert caught.value.slug == slug
    assert caught.value.hint
    assert "a\nb" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "headers", "slug"),
    [
        (b"GET", [], "missing-host"),
        (b"G T", [(b"host", b"h")], "bad-byte"),
        (b"GET", [(b"host", b"h"), (b"a b", b"")], "bad-byte"),
    ],
)
def test_bad_requests_are_named(method: bytes, headers: list[tuple[bytes, bytes]], slug: str) -> None:
    with pytest.raises(_core.SigningError) as caught:
        signer().sign(method, b"/", b"", headers, b"", WHEN)
    assert caught.value.slug == slug


def test_no_secret_in_repr() -> None:
    shown = repr(signer(token="token-of-mine")) + repr(signer().steps(b"GET", b"/", b"", [(b"host", b"h")], b"", WHEN))
    assert SECRET not in shown
    assert "token-of-mine" not in shown
