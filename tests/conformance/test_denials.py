"""A call that sigward does not let pass: what the client's SDK makes of the answer, and what the operator sees of it.

The answer has AWS's own code for it, so that programs catch what they always catch; `x-sigward-error` and `x-sigward-reason` say
that it was sigward. Metrics, logs and spans describe the call as fully as one that was signed.
"""

import asyncio
import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.loaders import Loader

from sigward import _core
from tests.collector import Collector, plain
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_access_log import grown
from tests.conformance.test_http2 import Http2Client
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import LONGEST_REASON, SECRETS, Upstream, assert_no_secret, counted

DENY_ALL = [{"name": "nothing", "host": "*", "action": "deny"}]


DUMMY = ("AKIDDUMMY", "dummy")


def client(proxy: Proxy, service: str, keys: tuple[str, str] = DUMMY) -> Any:
    """One of boto3's, whose requests come to the forward listener in plain text."""
    config = Config(proxies={"http": "http://{}:{}".format(*proxy.forward)}, retries={"total_max_attempts": 1})
    return boto3.client(
        service, region_name="us-east-1", use_ssl=False, config=config, aws_access_key_id=keys[0], aws_secret_access_key=keys[1]
    )


async def refused(call: Callable[..., Any], arguments: dict[str, Any]) -> ClientError:
    """The error that boto3 raises."""
    with pytest.raises(ClientError) as caught:
        await asyncio.to_thread(lambda: call(**arguments))
    return caught.value


@pytest.fixture
def speaks(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """`speaks(service, protocol)`: clients made from here on speak an older protocol of the service's, as older SDKs do."""
    load = Loader.load_service_model

    def choose(service: str, protocol: str) -> None:
        def other(self: Loader, name: str, kind: str, api_version: str | None = None) -> Any:
            model = load(self, name, kind, api_version)
            if (name, kind) != (service, "service-2"):
                return model
            model = copy.deepcopy(model)
            model["metadata"] |= {"protocol": protocol, "protocols": [protocol]}
            if protocol == "query":
                model["metadata"].pop("awsQueryCompatible", None)
            return model

        monkeypatch.setattr(Loader, "load_service_model", other)

    return choose


CALLS = {
    "s3": ("s3", None, "get_object", {"Bucket": "bucket", "Key": "k"}, "AccessDenied"),
    "s3, HEAD": ("s3", None, "head_object", {"Bucket": "bucket", "Key": "k"}, "403"),
    "rest-xml": ("route53", None, "list_hosted_zones", {}, "AccessDenied"),
    "rest-xml of cloudfront": ("cloudfront", None, "list_distributions", {}, "AccessDenied"),
    "rest-xml of s3control": ("s3control", None, "list_jobs", {"AccountId": "123456789012"}, "AccessDenied"),
    "query": ("iam", None, "list_users", {}, "AccessDenied"),
    "ec2": ("ec2", None, "describe_key_pairs", {}, "UnauthorizedOperation"),
    "json 1.0": ("dynamodb", None, "list_tables", {}, "AccessDeniedException"),
    "json 1.1": ("logs", None, "describe_log_groups", {}, "AccessDeniedException"),
    "json 1.1, modelled": ("kinesis", None, "list_streams", {}, "AccessDeniedException"),
    "rest-json": ("lambda", None, "list_functions", {}, "AccessDeniedException"),
    "json, once query": ("sqs", None, "list_queues", {}, "AccessDenied"),
    "query, before it was json": ("sqs", "query", "list_queues", {}, "AccessDenied"),
    "cbor, once query": ("cloudwatch", None, "list_metrics", {}, "AccessDenied"),
    "json, before it was cbor": ("cloudwatch", "json", "list_metrics", {}, "AccessDenied"),
    "query, before it was cbor": ("cloudwatch", "query", "list_metrics", {}, "AccessDenied"),
    "cbor": ("eventbridgev2", None, "list_event_buses", {}, "AccessDeniedException"),
    "of sns alone": ("sns", None, "publish", {"TopicArn": "arn:aws:sns:us-east-1:123456789012:t", "Message": "m"}, "AuthorizationError"),
    "of iot alone": ("iot-data", None, "publish", {"topic": "t"}, "ForbiddenException"),
}
"""Service, an older protocol of its, operation, arguments; the code that programs catch."""


@pytest.mark.parametrize("call", CALLS)
async def test_an_sdk_raises_what_it_raises_where_aws_denies(
    call: str, start: Start, upstream: Upstream, speaks: Callable[[str, str], None]
) -> None:
    service, protocol, name, arguments, code = CALLS[call]
    if protocol:
        speaks(service, protocol)
    proxy = await start(upstream, routes=DENY_ALL)
    made = client(proxy, service)
    error = await refused(getattr(made, name), arguments)
    answer = error.response
    assert answer["Error"]["Code"] == code
    told = answer["ResponseMetadata"]
    assert told["HTTPStatusCode"] == 403
    assert told["HTTPHeaders"]["x-sigward-error"] == "denied"
    assert told["HTTPHeaders"]["x-sigward-reason"].startswith("route nothing denies ")
    if code != "403":
        assert answer["Error"]["Message"] == f"sigward: {told['HTTPHeaders']['x-sigward-reason']}"
    # What a program catches by class.
    for shape in made.meta.service_model.error_shapes:
        if shape.error_code == code:
            assert type(error) is made.exceptions.from_code(code)
    assert upstream.received == []


@pytest.mark.parametrize("service", ["sqs", "cloudwatch"])
async def test_other_errors_too_have_a_code_for_clients_of_the_query_protocol(service: str, start: Start, upstream: Upstream) -> None:
    """The side at fault comes with it, by which SDKs decide on a repeat."""
    proxy = await start(upstream, credentials=False)
    proxy.engine.set_credentials_failed("default", [("env", "nothing")])
    call = {"sqs": "list_queues", "cloudwatch": "list_metrics"}[service]
    error = (await refused(getattr(client(proxy, service), call), {})).response["Error"]
    assert (error["Code"], error["Type"]) == ("NoCredentials", "Receiver")


ODD = 'nö\r\nx-evil: 1\t"\x00\u202e\x7f\\'


async def test_a_reason_is_a_header_whatever_it_says(start: Start, upstream: Upstream) -> None:
    """A route's name is the operator's, and may be anything."""
    for name in (ODD, ODD * 200, " "):
        proxy = await start(upstream, routes=[{"name": name, "host": "*", "action": "deny"}])
        response = await proxy.ask(request())
        assert (response.status, response.get("x-sigward-error"), response.get("x-evil")) == (403, "denied", None)
        async with proxy.tunnel(f"{BUCKET_HOST}:443", BUCKET_HOST, ["h2"]) as (reader, writer):
            http2 = Http2Client(reader, writer)
            (stream,) = await http2.finished(http2.send("HEAD", "/k", BUCKET_HOST))
        assert (stream.headers[":status"], stream.headers["x-sigward-error"], bytes(stream.body)) == ("403", "denied", b"")
        for reason in (response.get("x-sigward-reason") or "", stream.headers["x-sigward-reason"]):
            assert re.fullmatch(r"route [ -~]*", reason)
            assert len(reason) <= LONGEST_REASON
            assert name != ODD or reason.startswith(r'route n\u{f6}\r\nx-evil: 1\t"\u{0}\u{202e}\u{7f}\ denies ')


EARLY = {
    "no head": b"GET\r\n\r\n",
    "a version": b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two lengths": request("POST", "/", "Content-Length: 1", "Content-Length: 2"),
    "a long head": request("GET", "/", *(f"X-{number}: {'y' * 1000}" for number in range(80))),
    "a stranger": request(host="nobody.example"),
    "a metadata address": request(host="169.254.169.254"),
    "a head request": request("HEAD", host="nobody.example"),
    "a deadline": request("GET", "/", "X-Sigward-Deadline: soon"),
    "chunks": request("POST", "/", "Transfer-Encoding: chunked") + b"nonsense\r\n",
}


@pytest.mark.parametrize("early", EARLY)
async def test_every_answer_of_sigward_s_own_says_why(early: str, proxy: Proxy) -> None:
    """`read_response` holds the reason to its form, here and in all other tests."""
    response = await proxy.ask(EARLY[early])
    assert response.status >= 400
    assert response.get("x-sigward-error")
    assert response.get("x-sigward-reason")


@pytest.mark.parametrize("authority", ["127.0.0.1:1", "localhost:1", "h", "[::1]:80", "no-such-host.invalid:443", "me:secret@h:1"])
async def test_a_connect_that_is_refused_says_why(proxy: Proxy, authority: str) -> None:
    response = await proxy.ask(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode(), to=proxy.forward)
    assert response.status >= 400
    assert response.get("x-sigward-error")
    assert "secret" not in (response.get("x-sigward-reason") or "")


@pytest.mark.mitmproxy("it has addons")
async def test_a_failed_hook_says_why(start: Start, upstream: Upstream) -> None:
    class Broken:
        def request(self, _flow: Any) -> None:
            raise RuntimeError("addon is broken")

    proxy = await start(upstream, addons=(Broken(),))
    response = await proxy.ask(request())
    assert response.get("x-sigward-error") == "hook-failed"
    assert (response.get("x-sigward-reason") or "").endswith("failed. The request was not sent. See sigward's log.")


async def test_what_a_client_sends_as_a_secret_is_in_no_answer_and_no_line(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    logs = {"access_log": str(tmp_path / "access.log"), "audit_log": str(tmp_path / "audit.log")}
    proxy = await start(upstream, routes=DENY_ALL, **logs)
    secret = "the-secret"
    asked = [
        request("GET", f"/k?X-Amz-Security-Token={secret}&X-Amz-Signature={secret}&AWSAccessKeyId=A&Signature={secret}", host=BUCKET_HOST),
        request("GET", f"/k%3FX-Amz-Security-Token%3D{secret}", host=BUCKET_HOST).replace(b"GET /k%3F", b"GET /list?prefix=k%3F"),
        request(
            "POST", "/", "Content-Type: application/x-amz-json-1.0", "X-Amz-Target: AmazonSQS.DeleteQueue",
            f"Authorization: Bearer {secret}", f"Cookie: {secret}", f"X-Amz-Security-Token: {secret}",
            body=json.dumps({"QueueUrl": f"https://me:{secret}@queue.example/1/q?X-Amz-Signature={secret}"}).encode(),
        ),
        request("GET", "/", f"X-Sigward-Deadline: Signature={secret}"),
    ]  # fmt: skip
    for raw in asked:
        response = await proxy.ask(raw)
        assert response.status in (400, 403)
        assert_no_secret(f"{response}", "the answer")
    for path in map(Path, logs.values()):
        assert_no_secret(await grown(path, len(asked)), path.name)
    assert_no_secret(proxy.engine.metrics(), "the metrics")


async def issued(start: Start, upstream: Upstream, tmp_path: Path, **settings: Any) -> tuple[Proxy, tuple[str, str]]:
    """A proxy with a client `ci`, and its key."""
    master = "ab" * 32
    (tmp_path / "clients.key").write_text(master)
    key, secret = _core.issue_key(master.encode(), "ci", 1)
    SECRETS.append(re.compile(re.escape(secret)))
    clients = {"key_file": str(tmp_path / "clients.key"), "issued": [{"name": "ci", "rotation": 1}]}
    return await start(upstream, clients=clients, **settings), (key, secret)


QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/q"

DESCRIBED = {
    "s3": ("s3", None, "get_object", {"Bucket": "bucket", "Key": "k"}, "GetObject", "arn:aws:s3:::bucket/k"),
    "dynamodb": ("dynamodb", None, "delete_table", {"TableName": "orders"}, "DeleteTable", "TableName=orders"),
    "sqs": ("sqs", "query", "delete_queue", {"QueueUrl": QUEUE}, "DeleteQueue", QUEUE),
}


@pytest.mark.parametrize("call", DESCRIBED)
async def test_a_denied_call_is_described_as_fully_as_a_signed_one(
    call: str, start: Start, upstream: Upstream, tmp_path: Path, speaks: Callable[[str, str], None]
) -> None:
    service, protocol, name, arguments, operation, resource = DESCRIBED[call]
    if protocol:
        speaks(service, protocol)
    access, audit = tmp_path / "access.log", tmp_path / "audit.log"
    routes = [{"name": "not-this", "operation": f"{service}:{operation}", "action": "deny"}]
    async with Collector() as collector:
        proxy, keys = await issued(
            start, upstream, tmp_path, routes=routes, access_log=str(access), audit_log=str(audit), otlp=collector.settings()
        )
        answer = (await refused(getattr(client(proxy, service, keys), name), arguments)).response["ResponseMetadata"]["HTTPHeaders"]
        (span,) = await collector.requests(1)
    known = {"service": service, "operation": operation, "region": "us-east-1", "identity": "default", "issued_client": "ci"}
    reason = answer["x-sigward-reason"]
    for said in ("not-this", f"{service}:{operation}", resource, "us-east-1", "client ci", "identity default"):
        assert said in reason
    expected = known | {"route": "not-this", "resource": resource, "error": "denied", "reason": reason, "status": 403}
    for path, decision in ((access, "action"), (audit, "decision")):
        (line,) = [json.loads(text) for text in (await grown(path, 1)).splitlines()]
        assert {field: line.get(field) for field in expected} == expected, path.name
        assert line[decision] == "deny"
    labels = {name: value for name, value in known.items() if name != "issued_client"} | {"action": "deny", "code": "403"}
    assert counted(proxy.engine.metrics(), "sigward_requests_total", **labels) == 1
    told = plain(span.attributes)
    assert (span.name, told["sigward.action"], told["error.type"]) == (f"{service}/{operation}", "deny", "denied")
    assert (told["sigward.route"], told["sigward.client"], told["sigward.identity"]) == ("not-this", "ci", "default")
    assert (told["sigward.resource"], told["sigward.reason"], told["cloud.region"]) == (resource, reason, "us-east-1")
    assert upstream.received == []


@pytest.mark.mitmproxy("it has flows")
async def test_a_flow_s_report_says_it_too(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    flows: list[Any] = []

    class Keep:
        def response(self, flow: Any) -> None:
            flows.append(flow)

    routes = [{"name": "not-this", "operation": "dynamodb:DeleteTable", "action": "deny"}]
    proxy, keys = await issued(start, upstream, tmp_path, routes=routes, audit_log=str(tmp_path / "log"), addons=(Keep(),))
    await refused(client(proxy, "dynamodb", keys).delete_table, {"TableName": "orders"})
    (flow,) = flows
    report = flow.metadata["sigward"]
    assert (report.action, report.route, report.error) == ("deny", "not-this", "denied")
    assert report.reason == flow.response.headers["x-sigward-reason"]
    assert (report.ambiguous, report.would_refuse) == (None, [])
    assert (report.service, report.operation, report.region) == ("dynamodb", "dynamodb:DeleteTable", "us-east-1")
    assert (report.identity, report.client, report.resource) == ("default", "ci", "TableName=orders")


async def test_what_is_no_request_of_a_rule_s_has_the_reason_in_both_logs(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """An upstream that fails, too: whatever sigward answers itself."""
    access, audit = tmp_path / "access.log", tmp_path / "audit.log"
    proxy = await start(upstream, access_log=str(access), audit_log=str(audit), retry={"attempts": 1})
    proxy.point_to(1)
    answers = [await proxy.ask(request(host=host)) for host in ("nobody.example", HOST)]
    assert [answer.status for answer in answers] == [403, 502]
    for path, count in ((access, 2), (audit, 3)):
        lines = [json.loads(text) for text in (await grown(path, count)).splitlines()]
        assert [line["reason"] for line in lines if not line.get("begun")] == [answer.get("x-sigward-reason") for answer in answers]
    proxy.point_to(upstream.port)
    assert (await proxy.ask(request())).status == 200
    for path, count in ((access, 3), (audit, 5)):
        assert "reason" not in json.loads((await grown(path, count)).splitlines()[-1])
