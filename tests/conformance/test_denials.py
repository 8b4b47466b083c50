"""A call that sigward does not let pass: what the client's SDK makes of the answer.

The answer has AWS's own code for it, so that programs catch what they always catch; `x-sigward-error` and `x-sigward-reason` say
that it was sigward.
"""

import asyncio
import copy
import re
from collections.abc import Callable
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.loaders import Loader

from tests.conformance.conftest import Proxy, Start
from tests.conformance.test_http2 import Http2Client
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import LONGEST_REASON, Upstream

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
