"""A raw `+` in a query: a blank to most clients, a plus sign to some. What was decided on is what is signed and sent."""

import time
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sigward import _core
from tests.conformance.conftest import HOST, Start
from tests.conformance.test_issued_keys import HOLD, Issue, Issued, issue, refused
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import Upstream, assert_signed

__all__ = ["issue"]

SNS, IOT = "sns.us-east-1.amazonaws.com", "iot.us-east-1.amazonaws.com"
S3 = "s3.us-east-1.amazonaws.com"
QUERY = "a=b+c%2Bd%20e&f+"


def routes(port: int) -> list[dict[str, Any]]:
    there = {"connect": f"127.0.0.1:{port}"}
    return [
        {"name": "no-blanks", "host": S3, "bucket": "b/a b/*", "action": "deny"},
        {"name": "no-pluses", "host": S3, "bucket": "b/c+d/*", "action": "deny", "query_plus": "plus"},
        {"host": SNS, "query_plus": "plus", **there},
        {"host": IOT, "signature": "query", **there},
        {"host": BUCKET_HOST, "path": "/passed", "action": "pass", **there},
        {"host": "*.amazonaws.com", **there},
    ]


async def test_what_goes_out_is_what_the_route_reads(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, routes=routes(upstream.port))
    for host, path, expected in [
        (HOST, "/a+b", "/a+b?a=b%20c%2Bd%20e&f%20"),
        (SNS, "/a+b", "/a+b?a=b%2Bc%2Bd%20e&f%2B"),
        (BUCKET_HOST, "/a+b", "/a%2Bb?a=b%20c%2Bd%20e&f%20"),
        (BUCKET_HOST, "/passed", f"/passed?{QUERY}"),
    ]:
        assert (await proxy.ask(request("GET", f"{path}?{QUERY}", host=host))).status == 200
        received = upstream.received[-1]
        assert received.target == expected
        if path != "/passed":
            assert_signed(received, host)
    # Signed in the query, which is then in its canonical order.
    assert (await proxy.ask(request("GET", "/a+b?z=b+c%2B", host=IOT))).status == 200
    assert upstream.received[-1].target.startswith("/a+b?X-Amz-Algorithm=")
    assert "&z=b%20c%2B&" in upstream.received[-1].target


async def test_a_rule_reads_no_other_bytes_than_are_sent(start: Start, upstream: Upstream) -> None:
    """Rules with other readings come before the one that applies: what they would say of what goes out counts."""
    there = {"connect": f"127.0.0.1:{upstream.port}"}
    deny = {"name": "no", "host": S3, "bucket": "b/a+b*", "action": "deny"}
    proxy = await start(upstream, routes=[deny, {"host": S3, "query_plus": "plus", **there}])
    response = await proxy.ask(request("GET", "/b?list-type=2&prefix=a+b", host=S3))
    assert (response.status, response.get("x-sigward-error")) == (400, "ambiguous-call")
    assert (await proxy.ask(request("GET", "/b?list-type=2&prefix=c+d", host=S3))).status == 200
    assert upstream.received[-1].target.endswith("prefix=c%2Bd")
    # What the client authenticates itself goes out as it is spelled: S3 reads a blank.
    deny = {"name": "no", "host": S3, "bucket": "b/a b*", "action": "deny", "query_plus": "plus"}
    proxy = await start(upstream, routes=[deny, {"host": S3, "query_plus": "plus", **there}])
    own = request("GET", "/b?list-type=2&prefix=a+b", "Authorization: Bearer x", host=S3)
    assert (await proxy.ask(own)).get("x-sigward-error") == "ambiguous-call"


async def test_rules_see_the_reading_that_is_sent(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, routes=routes(upstream.port))
    for prefix, denied in [("a+b/", True), ("a%20b/", True), ("a%2Bb/", False), ("c+d/", True), ("c%2Bd/", True), ("c%20d/", False)]:
        response = await proxy.ask(request("GET", f"/b?list-type=2&prefix={prefix}", host=S3))
        assert (response.status, response.get("x-sigward-error")) == ((403, "denied") if denied else (200, None)), prefix


# ---------------------------------------------------------------- a client's own signature


def by_own_reading(issued: Issued, plus: str, method: str, target: str, host: str, body: bytes) -> list[tuple[str, str]]:
    """The head as a client signs it that takes a raw `+` for `blank`, for `plus`, or leaves it `raw` (botocore)."""
    if plus == "raw":
        asked = AWSRequest(method, f"https://{host}{target}", data=body, headers={"Host": host})
        SigV4Auth(Credentials(issued.key, issued.secret), "sqs", "us-east-1").add_auth(asked)
        return list(asked.headers.items())
    path, _, query = target.partition("?")
    service, style = ("s3", "s3") if host == BUCKET_HOST else ("sqs", "generic")
    signer = _core.Signer(issued.key, issued.secret, None, "us-east-1", service, style, query_plus=plus)  # type: ignore[arg-type]
    added = signer.sign(method.encode(), path.encode(), query.encode(), [(b"host", host.encode())], body, int(time.time()))
    return [("host", host), *(line.split(": ", 1) for line in added.decode().splitlines())]  # type: ignore[list-item]


@pytest.mark.parametrize("route", ["blank", "plus"])
async def test_the_reading_that_verifies_is_sent(issue: Issue, upstream: Upstream, route: str) -> None:
    """Whatever the route says: with a body that must be read for it, without one, for S3, and presigned."""
    rule = {"host": "*.amazonaws.com", "query_plus": route, "connect": f"127.0.0.1:{upstream.port}"}
    denied = {"host": S3, "bucket": "b/a b/*", "action": "deny"}
    issued = await issue(settings={"routes": [denied, rule]}, required=True)
    sent = {"blank": "/p?a=b%20c", "plus": "/p?a=b%2Bc", "raw": {"blank": "/p?a=b%20c", "plus": "/p?a=b%2Bc"}[route]}
    for plus in ("blank", "plus", "raw"):
        for method, host, body in [("GET", HOST, b""), ("POST", HOST, b"hello"), ("PUT", BUCKET_HOST, b"hello")]:
            if plus == "raw" and host == BUCKET_HOST:
                continue
            head = by_own_reading(issued, plus, method, "/p?a=b+c", host, body)
            assert (await issued.ask(method, "/p?a=b+c", head, body)).status == 200, (plus, method, host)
            assert upstream.received[-1].target == sent[plus]
            assert_signed(upstream.received[-1], host)
            # A query that was changed on the way to another meaning is not what was signed.
            changed = "/p?a=b%2Bc" if plus == "blank" else "/p?a=b%20c"
            refused(await issued.ask(method, changed, head, body), "signature-does-not-match")
    signed = issued.presigned("GET", "/p?a=b+c")
    for spelled in (signed, signed.replace("b%20c", "b+c")):
        assert (await issued.ask("GET", spelled, [("host", BUCKET_HOST)])).status == 200
        assert upstream.received[-1].target == "/p?a=b%20c"


async def test_a_body_too_large_to_be_read_first_does_not_hide_another_reading(issue: Issue, upstream: Upstream) -> None:
    issued = await issue()
    body = b"x" * (HOLD + 1)
    for plus in ("blank", "plus"):
        head = by_own_reading(issued, plus, "POST", "/p?a=b+c", HOST, body)
        response = await issued.ask("POST", "/p?a=b+c", head, body)
        if plus == "blank":
            assert (response.status, upstream.received[-1].target) == (200, "/p?a=b%20c")
        else:
            refused(response, "signature-does-not-match", "query_plus")
    assert len(upstream.received) == 1
