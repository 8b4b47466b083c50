"""Who authenticates a request, as the upstream sees it: what a client brings itself arrives untouched, all else is signed or public."""

import asyncio
import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from sigward.environ import DUMMY_KEY
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_access_log import grown
from tests.conformance.test_issued_keys import Issue, issue
from tests.support import Received, Upstream, assert_signed, connected, counted, read_response

__all__ = ["issue"]

REAL = "AKIAQYLPMN5HHHFPZAM2"
"""Of the form that AWS's own key ids have; AWS's examples end in EXAMPLE."""

JWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSJ9.c2ln"
DUMMY = "AWS4-HMAC-SHA256 Credential=dummy/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00"

S3, BUCKET = "s3.us-east-1.amazonaws.com", "bucket.s3.us-east-1.amazonaws.com"
SQS, STS, EC2 = HOST, "sts.us-east-1.amazonaws.com", "ec2.us-east-1.amazonaws.com"
BEDROCK, MANTLE = "bedrock-runtime.us-east-1.amazonaws.com", "bedrock-mantle.us-east-1.api.aws"
SEARCH, SERVERLESS = "search-logs.us-east-1.es.amazonaws.com", "abc.us-east-1.aoss.amazonaws.com"
API, URL = "abc123.execute-api.us-east-1.amazonaws.com", "abc123.lambda-url.us-east-1.on.aws"
GRAPHQL, REALTIME = "abc123.appsync-api.us-east-1.amazonaws.com", "abc123.appsync-realtime-api.us-east-1.amazonaws.com"
IOT = "abc123-ats.iot.us-east-1.amazonaws.com"
POOLS, IDENTITIES = "cognito-idp.us-east-1.amazonaws.com", "cognito-identity.us-east-1.amazonaws.com"

HOSTS = (
    "*.us-east-1.amazonaws.com",
    "*.amazonaws.com",
    "*.s3.us-east-1.amazonaws.com",
    "*.us-east-1.es.amazonaws.com",
    "*.us-east-1.aoss.amazonaws.com",
    "*.execute-api.us-east-1.amazonaws.com",
    "*.appsync-api.us-east-1.amazonaws.com",
    "*.appsync-realtime-api.us-east-1.amazonaws.com",
    "*.iot.us-east-1.amazonaws.com",
    "*.lambda-url.us-east-1.on.aws",
    "*.us-east-1.api.aws",
)

FORM = ("content-type", "application/x-www-form-urlencoded")
JSON = ("content-type", "application/json")
MULTIPART = ("content-type", "multipart/form-data; boundary=x")


def authorized(value: str) -> tuple[str, str]:
    return ("authorization", value)


def upload(*fields: tuple[str, str]) -> bytes:
    """A browser's form, with a file."""
    parts = [f'--x\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in (("key", "k"), *fields)]
    return ("".join(parts) + '--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\ncontent\r\n--x--\r\n').encode()


def parameters(**pairs: str) -> str:
    return urlencode(pairs)


POLICY = ("policy", base64.b64encode(b"{}").decode())
V4 = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F20260101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Expires=60&X-Amz-Signature=ab"
V2 = parameters(Action="ListQueues", AWSAccessKeyId=REAL, SignatureMethod="HmacSHA256", SignatureVersion="2", Signature="c2ln")
V2_OF_DUMMY = parameters(Action="ListQueues", AWSAccessKeyId="dummy", SignatureVersion="2", Signature="c2ln")
REALTIME_QUERY = parameters(header=base64.b64encode(b'{"host":"x","x-api-key":"da2-abc"}').decode(), payload="e30=")
CONVERSE = "/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse"
PUBLISH = "/topics/t?qos=1"
AUTHORIZER = (("x-amz-customauthorizer-name", "mine"), ("x-amz-customauthorizer-signature", "c2ln"), ("token", "abc"))


@dataclass(frozen=True)
class Row:
    """One request, and what arrives: `own` untouched, `signed` for a service, or `public`, untouched but for a dummy signature."""

    name: str
    arrives: str
    host: str
    method: str = "GET"
    target: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def raw(self) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", f"host: {self.host}", *(f"{name}: {value}" for name, value in self.headers)]
        if self.body:
            lines.append(f"content-length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


ROWS = [
    # What stands in Authorization.
    Row("Bedrock, an API key", "own", BEDROCK, "POST", CONVERSE, (authorized("Bearer bedrock-api-key-abc"), JSON), b"{}"),
    Row("Bedrock, the scheme in small letters", "own", BEDROCK, "POST", CONVERSE, (authorized("bearer abc"), JSON), b"{}"),
    Row("Bedrock mantle, as OpenAI's SDKs", "own", MANTLE, "POST", "/v1/chat/completions", (authorized("Bearer abc"), JSON), b"{}"),
    Row("Bedrock mantle, as Anthropic's SDKs", "own", MANTLE, "POST", "/anthropic/v1/messages", (("x-api-key", "abc"), JSON), b"{}"),
    Row("OpenSearch, Basic", "own", SEARCH, "GET", "/_search?q=a+b", (authorized("Basic dTpw"),)),
    Row("OpenSearch, Basic, a bulk", "own", SEARCH, "POST", "/_bulk", (authorized("Basic dTpw"), JSON), b"{}\n" * 100),
    Row("OpenSearch, a token", "own", SEARCH, "GET", "/_cat/indices", (authorized(f"Bearer {JWT}"),)),
    Row("OpenSearch, an empty password", "own", SEARCH, "GET", "/", (authorized("Basic Og=="),)),
    Row("API Gateway, a bearer token", "own", API, "GET", "/prod/items?a=%2B", (authorized(f"Bearer {JWT}"),)),
    Row("API Gateway, a bare token", "own", API, "GET", "/prod/items", (authorized(JWT),)),
    Row("API Gateway, a Lambda authorizer's word", "own", API, "GET", "/prod/items", (authorized("allow"),)),
    Row("API Gateway, a usage plan's key beside a token", "own", API, "GET", "/", (authorized(JWT), ("x-api-key", "abc"))),
    Row("Lambda URL, a token", "own", URL, "POST", "/a//b/../c?x", (authorized("Bearer abc"), JSON), b"{}"),
    Row("AppSync, a user's token", "own", GRAPHQL, "POST", "/graphql", (authorized(JWT), JSON), b'{"query":"{a}"}'),
    Row("S3, a token", "own", BUCKET, "GET", "/k", (authorized("Bearer abc"),)),
    Row("SQS, a token in a form", "own", SQS, "POST", "/", (authorized("Bearer abc"), FORM), b"Action=ListQueues"),
    Row("a token beside headers of a signature", "own", SQS, "GET", "/", (authorized("Bearer abc"), ("x-amz-security-token", "theirs"))),
    Row("Digest", "own", API, "GET", "/", (authorized('Digest username="u", response="0"'),)),
    Row("two headers, both the client's", "own", API, "GET", "/", (authorized("Bearer a"), authorized("Basic b"))),
    # Signature Version 2 and 3.
    Row("S3, Version 2", "own", BUCKET, "GET", "/k?acl", (authorized(f"AWS {REAL}:c2ln"), ("date", "Thu, 01 Jan 2026 00:00:00 GMT"))),
    Row("Version 3", "own", STS, "GET", "/", (authorized(f"AWS3-HTTPS AWSAccessKeyId={REAL},Algorithm=HmacSHA256,Signature=c2ln"),)),
    Row("Version 2 in a query", "own", SQS, "GET", f"/?{V2}"),
    Row("Version 2 in a form", "own", SQS, "POST", "/", (FORM,), V2.encode()),
    Row("Version 2 in a form, EC2", "own", EC2, "POST", "/", (FORM,), V2.replace("ListQueues", "DescribeRegions").encode()),
    # Presigned URLs.
    Row("presigned, Version 4", "own", BUCKET, "GET", f"/a%20b?{V4}"),
    Row("presigned, Version 4a", "own", BUCKET, "GET", f"/k?{V4.replace('AWS4-HMAC-SHA256', 'AWS4-ECDSA-P256-SHA256')}"),
    Row("presigned, in small letters", "own", BUCKET, "PUT", f"/k?{V4.lower()}", (), b"content"),
    Row("presigned, escaped", "own", BUCKET, "GET", f"/k?{V4.replace('X-Amz-Signature', 'X-Amz-%53ignature')}"),
    Row("presigned, Version 2", "own", BUCKET, "GET", f"/k?AWSAccessKeyId={REAL}&Expires=1&Signature=c2ln%3D"),
    Row("presigned as for CloudFront", "own", BUCKET, "GET", "/k?Expires=1&Signature=c2ln&Key-Pair-Id=K1"),
    Row("presigned, STS", "own", STS, "GET", f"/?Action=GetCallerIdentity&{V4}"),
    # Forms of browsers.
    Row("upload, Version 4", "own", BUCKET, "POST", "/", (MULTIPART,), upload(POLICY, ("x-amz-signature", "ab"))),
    Row("upload, Version 2", "own", BUCKET, "POST", "/", (MULTIPART,), upload(POLICY, ("AWSAccessKeyId", REAL), ("signature", "c2ln"))),
    Row("upload, nobody's", "own", BUCKET, "POST", "/", (MULTIPART,), upload()),
    Row("upload, the bucket in the path", "own", S3, "POST", "/bucket", (MULTIPART,), upload(POLICY, ("x-amz-signature", "ab"))),
    # Other headers and parameters.
    Row("AppSync, an API key", "own", GRAPHQL, "POST", "/graphql", (("x-api-key", "da2-abc"), JSON), b'{"query":"{a}"}'),
    Row("AppSync Events, an API key", "own", GRAPHQL, "POST", "/event", (("x-api-key", "da2-abc"), JSON), b"{}"),
    Row("AppSync, a subscription", "own", REALTIME, "GET", f"/graphql?{REALTIME_QUERY}"),
    Row("IoT, a custom authorizer in headers", "own", IOT, "POST", PUBLISH, AUTHORIZER, b"{}"),
    Row("IoT, its name alone", "own", IOT, "POST", PUBLISH, AUTHORIZER[:1], b"{}"),
    Row("IoT, a custom authorizer in the query", "own", IOT, "POST", f"{PUBLISH}&x-amz-customauthorizer-name=mine&token=abc", (), b"{}"),
    # Nobody's.
    Row("Cognito, the keys of a pool", "public", POOLS, "GET", "/us-east-1_abc/.well-known/jwks.json"),
    Row("Cognito, the settings of a pool", "public", POOLS, "GET", "/us-east-1_abc/.well-known/openid-configuration"),
    Row("Cognito, identities", "public", IDENTITIES, "GET", "/.well-known/openid-configuration"),
    Row("Cognito, a dummy signature", "public", POOLS, "GET", "/us-east-1_abc/.well-known/jwks.json", (authorized(DUMMY),)),
    Row("STS, a web identity", "public", STS, "POST", "/", (FORM,), b"Action=AssumeRoleWithWebIdentity&Version=2011-06-15"),
    # Sigward's.
    Row("unsigned", "sqs", SQS, "GET", "/?Action=ListQueues"),
    Row("unsigned form", "sqs", SQS, "POST", "/", (FORM,), b"Action=ListQueues"),
    Row("a dummy signature", "s3", BUCKET, "GET", "/k", (authorized(DUMMY),)),
    Row("a dummy signature of 4a", "s3", BUCKET, "GET", "/k", (authorized(DUMMY.replace("HMAC", "ECDSA-P256")),)),
    Row("an empty header", "s3", BUCKET, "GET", "/k", (authorized(""),)),
    Row("Version 2 of a dummy", "s3", BUCKET, "GET", "/k", (authorized("AWS dummy:c2ln"),)),
    Row("Version 2 of the dummy that sigward gives", "s3", BUCKET, "GET", "/k", (authorized(f"AWS {DUMMY_KEY}:c2ln"),)),
    Row("Version 2 of AWS's example", "s3", BUCKET, "GET", "/k", (authorized("AWS AKIAIOSFODNN7EXAMPLE:c2ln"),)),
    Row("Version 2 of a dummy in a form", "sqs", SQS, "POST", "/", (FORM,), V2_OF_DUMMY.encode()),
    Row("Version 2 of a dummy in a query", "sqs", SQS, "GET", f"/?{V2_OF_DUMMY}"),
    Row("API Gateway, a usage plan's key alone", "execute-api", API, "GET", "/", (("x-api-key", "abc"),)),
    Row("API Gateway, no credential", "execute-api", API, "GET", "/prod/items"),
    Row("AppSync, no credential", "appsync", GRAPHQL, "POST", "/graphql", (JSON,), b'{"query":"{a}"}'),
    Row("an object of a form's type", "s3", BUCKET, "PUT", "/k", (MULTIPART,), b"content"),
    Row("parts of such an object", "s3", BUCKET, "POST", "/k?uploads", (MULTIPART,)),
    Row("IoT, no credential", "iotdata", IOT, "POST", PUBLISH, (), b"{}"),
]


def routes(upstream: Upstream, **more: str) -> list[dict[str, str]]:
    """AWS's hosts go to a local upstream."""
    return [{"host": host, "connect": f"127.0.0.1:{upstream.port}", **more} for host in ("*.amazonaws.com", "*.on.aws", "*.api.aws")]


async def starting(start: Start, upstream: Upstream, **more: Any) -> Proxy:
    made: Proxy = await start(upstream, **({"routes": routes(upstream)} | more))
    return made


def differences(row: Row, received: Received) -> list[str]:
    """What of a request did not arrive as it was sent."""
    sent = sorted([("host", row.host), *row.headers, *([("content-length", str(len(row.body)))] if row.body else [])])
    if row.arrives == "public":
        sent = [(name, value) for name, value in sent if value != DUMMY]
    pairs = [
        ("method", row.method, received.method),
        ("target", row.target, received.target),
        ("headers", sent, sorted((name.lower(), value) for name, value in received.headers if name.lower() != "via")),
        ("body", row.body, received.body),
    ]
    return [f"{row.name}: {what}: {theirs!r} for {ours!r}" for what, ours, theirs in pairs if ours != theirs]


async def test_what_arrives(start: Start) -> None:
    """With credentials, and with none at all: nothing of a client's own needs them."""
    async with Upstream(hosts=HOSTS) as upstream:
        proxy = await starting(start, upstream, credentials=False, timeouts={"credentials": 0.01})
        proxy.engine.set_credentials_failed("default", [("env", "there are none")])
        wrong = []
        for row in ROWS:
            response = await proxy.ask(row.raw())
            if row.arrives not in ("own", "public"):
                if (response.status, response.get("x-sigward-error")) != (503, "no-credentials"):
                    wrong.append(f"{row.name}: {response.status} without credentials")
            elif response.status != 200:
                wrong.append(f"{row.name}: {response.status} {response.get('x-sigward-reason')}")
            else:
                wrong += differences(row, upstream.received[-1])
        assert wrong == []
        proxy.engine.set_credentials("default", "AKIDTESTS", "a-secret-that-must-not-leak", None, None, "test")
        for row in ROWS:
            response = await proxy.ask(row.raw())
            assert response.status == 200, (row.name, response)
            if row.arrives in ("own", "public"):
                wrong += differences(row, upstream.received[-1])
            else:
                assert assert_signed(upstream.received[-1], row.host)["service"] == row.arrives, row.name
        assert wrong == []


async def test_a_dummy_signature_of_version_2_is_replaced(proxy: Proxy) -> None:
    """Its parameters would stand beside ours."""
    for row in ROWS:
        if row.name in ("Version 2 of a dummy in a form", "Version 2 of a dummy in a query"):
            assert (await proxy.ask(row.raw())).status == 200
    form, query = proxy.upstream.received
    assert (form.target, form.body) == ("/", b"Action=ListQueues")
    assert (query.target, query.body) == ("/?Action=ListQueues", b"")


async def test_a_credential_that_streams(start: Start) -> None:
    """Larger than what is held."""
    async with Upstream(hosts=HOSTS) as upstream:
        proxy = await starting(start, upstream, body={"hold": 1000})
        form = b"Action=ListQueues&x=" + b"x" * 5000
        for row in (
            Row("a bulk", "own", SEARCH, "POST", "/_bulk", (authorized("Basic dTpw"), JSON), b"{}\n" * 5000),
            Row("an upload", "own", BUCKET, "POST", "/", (MULTIPART,), upload(POLICY, ("x-amz-meta-a", "x" * 5000))),
        ):
            assert (await proxy.ask(row.raw())).status == 200
            assert differences(row, upstream.received[-1]) == []
        # Of such a form it cannot be told: it is signed, as ever.
        assert (await proxy.ask(Row("a form", "sqs", SQS, "POST", "/", (FORM,), form).raw())).status == 200
        assert_signed(upstream.received[-1], SQS)
        assert upstream.received[-1].body == form


async def test_through_the_forward_proxy(start: Start) -> None:
    """Also in plain text, which goes out over TLS: a token is no less secret than a signature."""
    async with Upstream(hosts=HOSTS) as upstream:
        proxy = await starting(start, upstream)
        async with proxy.tunnel(f"{SEARCH}:443", SEARCH) as (reader, writer):
            writer.write(f"GET /a HTTP/1.1\r\nHost: {SEARCH}\r\nAuthorization: Basic dTpw\r\n\r\n".encode())
            assert (await read_response(reader)).status == 200
        for host in (SEARCH, "new-service.us-east-1.amazonaws.com"):
            async with connected(proxy.forward) as (reader, writer):
                writer.write(f"GET http://{host}/a HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic dTpw\r\n\r\n".encode())
                assert (await read_response(reader)).status == 200
        assert [(received.target, received.get("authorization")) for received in upstream.received] == [("/a", "Basic dTpw")] * 3


async def test_one_of_two_headers_is_the_clients(start: Start) -> None:
    async with Upstream(hosts=HOSTS) as upstream:
        proxy = await starting(start, upstream)
        for one, other in ((DUMMY, "Bearer abc"), ("Bearer abc", DUMMY)):
            response = await proxy.ask(Row("two", "", SQS, headers=(authorized(one), authorized(other))).raw())
            assert (response.status, response.get("x-sigward-error")) == (400, "ambiguous-call")
        assert upstream.received == []


REPLACED = [
    Row("Basic", "es", SEARCH, "GET", "/_search", (authorized("Basic dTpw"),)),
    Row("Bearer", "execute-api", API, "GET", "/", (authorized(f"Bearer {JWT}"),)),
    Row("Version 2", "s3", BUCKET, "GET", "/k", (authorized(f"AWS {REAL}:c2ln"),)),
    Row("an API key", "appsync", GRAPHQL, "POST", "/graphql", (("x-api-key", "da2-abc"), JSON), b"{}"),
]
KEPT = [
    row
    for row in ROWS
    if row.name in ("presigned, Version 4", "upload, Version 4", "Version 2 in a form", "IoT, a custom authorizer in the query")
]


@pytest.mark.parametrize("place", ["route", "top"])
async def test_replaced(start: Start, place: str) -> None:
    """What is in a URL or a form is the request: it cannot be taken out, and passes."""
    async with Upstream(hosts=HOSTS) as upstream:
        if place == "route":
            proxy = await starting(start, upstream, routes=routes(upstream, authorization="replace"), authorization="refuse")
        else:
            proxy = await starting(start, upstream, authorization="replace")
        for row in REPLACED:
            assert (await proxy.ask(row.raw())).status == 200, row.name
            assert assert_signed(upstream.received[-1], row.host)["service"] == row.arrives, row.name
        assert len(KEPT) == 4
        for row in KEPT:
            assert (await proxy.ask(row.raw())).status == 200, row.name
            assert differences(row, upstream.received[-1]) == []


async def test_refused(start: Start) -> None:
    async with Upstream(hosts=HOSTS) as upstream:
        proxy = await starting(start, upstream, routes=routes(upstream, authorization="refuse"))
        for row in (*REPLACED, *KEPT):
            response = await proxy.ask(row.raw())
            assert (response.status, response.get("x-sigward-error")) == (403, "own-authorization"), row.name
        assert upstream.received == []
        assert (await proxy.ask(Row("unsigned", "sqs", SQS).raw())).status == 200


async def test_what_takes_authorization_replaces_it(start: Start) -> None:
    """A route that moves a client's Authorization to another header means to sign."""
    async with Upstream(hosts=HOSTS) as upstream:
        moved = routes(upstream)[0] | {"copy_headers": {"authorization": "x-original-authorization"}}
        proxy = await starting(start, upstream, routes=[moved])
        assert (await proxy.ask(REPLACED[0].raw())).status == 200
        assert_signed(upstream.received[-1], SEARCH)
        assert upstream.received[-1].get("x-original-authorization") == "Basic dTpw"


async def test_rules_judge_what_passes(start: Start) -> None:
    async with Upstream(hosts=HOSTS) as upstream:
        denies = [
            {"operation": "bedrock*:Converse", "action": "deny"},
            {"operation": "sqs:*", "action": "deny"},
            {"bucket": "bucket", "action": "deny"},
            {"host": SEARCH, "path": "/_bulk", "action": "deny"},
        ]
        proxy = await starting(start, upstream, routes=[*denies, *routes(upstream)])
        denied = {
            row.name: (await proxy.ask(row.raw())).get("x-sigward-error")
            for row in ROWS
            if row.arrives == "own" and row.host in (BEDROCK, SQS, BUCKET, S3, SEARCH)
        }
        allowed = {"OpenSearch, Basic", "OpenSearch, a token", "OpenSearch, an empty password"}
        assert {name for name, slug in denied.items() if slug != "denied"} == allowed
        assert len(denied) > 15


async def test_only_issued_keys_are_served(issue: Issue) -> None:
    async with Upstream(hosts=HOSTS) as upstream:
        issued = await issue(to=upstream, settings={"routes": routes(upstream)}, required=True)
        for row in ROWS:
            response = await issued.proxy.ask(row.raw())
            assert response.status == 403, row.name
            slugs = ("missing-authentication-token", "invalid-access-key-id", "ambiguous-signature")
            assert response.get("x-sigward-error") in slugs, row.name
        assert upstream.received == []


async def test_what_is_told_of_it(start: Start, tmp_path: Path) -> None:
    """In both logs and in the metrics; and no token is."""
    access, audit = tmp_path / "access.log", tmp_path / "audit.log"
    async with Upstream(hosts=HOSTS) as upstream:
        proxy = await starting(start, upstream, access_log=str(access), audit_log=str(audit))
        asked = [row for row in ROWS if row.name in ("Bedrock, an API key", "presigned, Version 4", "STS, a web identity", "unsigned")]
        for row in asked:
            assert (await proxy.ask(row.raw())).status == 200
        for path, decision in ((access, "action"), (audit, "decision")):
            told = [
                (line[decision], line.get("reason"), line.get("service"), line.get("identity"))
                for line in map(json.loads, (await grown(path, 4 if path == access else 8)).splitlines())
                if not line.get("begun")
            ]
            assert told == [
                ("pass", "own-authorization", "bedrock", None),
                ("pass", "own-authorization", "s3", None),
                ("pass", "public", "sts", None),
                ("sign", None, "sqs", "default"),
            ]
            assert "bedrock-api-key-abc" not in await grown(path, 4)
        metrics = proxy.engine.metrics()
        assert 'sigward_passed_total{reason="own-authorization",service="bedrock"} 1' in metrics
        assert 'sigward_passed_total{reason="public",service="sts"} 1' in metrics
        assert counted(metrics, "sigward_signatures_total") == 1


async def test_a_refused_credential_is_told_of_once(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """Once for each host: whoever expects sigward to sign hears how."""
    refused = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 12\r\n\r\nUnauthorized"
    asked = [REPLACED[0], REPLACED[0], REPLACED[1], REPLACED[1], KEPT[0], Row("unsigned", "sqs", SQS)]
    async with Upstream(hosts=HOSTS) as upstream:
        with caplog.at_level("WARNING"):
            proxy = await starting(start, upstream)
            upstream.answers = [refused] * len(asked)
            for row in asked:
                assert (await proxy.ask(row.raw())).status == 401
            async with asyncio.timeout(20):
                while len(told := [text for text in caplog.messages if "replace" in text]) < 2:
                    await asyncio.sleep(0.01)
    assert [re.match(r"(\S+) answered 401 .*own Authorization", text)[1] for text in told] == [SEARCH, API]  # type: ignore[index]
    assert all("dTpw" not in text and JWT not in text for text in told)
