"""The audit log: a line of JSON for each call, whatever became of it; and nothing is signed that it does not tell of."""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sigward import _core
from tests.audit import begun, ended, parsed
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_access_log import grown, read
from tests.conformance.test_half_open import reset
from tests.conformance.test_limits import FIVE, all_five, receive
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.conformance.test_retries import LIST, S500, answer
from tests.support import Received, Upstream, assert_no_secret, connected, counted

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
PATIENCE = 20.0
OWN_ID = re.compile(r"sigward-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


async def read_lines(path: Path, count: int) -> list[dict[str, Any]]:
    """The lines of so many calls, once they are over. What all of them have is checked and taken out."""
    at_least = count
    while len(lines := ended(parsed(text := await grown(path, at_least)))) < count:
        at_least = text.count("\n") + 1
    assert_no_secret(text, "the audit log")
    assert "secret" not in text
    assert len(lines) == count, lines
    for line in lines:
        assert TIME.fullmatch(line.pop("time"))
        assert line.pop("client") == "127.0.0.1"
    return lines


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


async def test_a_signed_call(start: Start, upstream: Upstream, log: Path) -> None:
    routes = [{"name": "queues", "host": HOST, "connect": f"127.0.0.1:{upstream.port}"}]
    proxy = await start(upstream, audit_log=str(log), token="a-token-that-must-not-leak", routes=routes)
    upstream.answers = [answer(200, b"{}", "x-amzn-RequestId: an-id")]
    body = b'{"QueueUrl": "https://sqs.us-east-1.amazonaws.com/1/q", "MessageBody": "secret"}'
    headers = ("X-Amz-Target: AmazonSQS.SendMessage", "Content-Type: application/x-amz-json-1.0", "Authorization: AWS4-HMAC-SHA256 secret")
    await proxy.ask(request("POST", "/?x=secret", *headers, body=body))
    assert os.stat(log).st_mode & 0o777 == 0o600  # noqa: PTH116
    assert await read_lines(log, 1) == [
        {
            "method": "POST",
            "host": HOST,
            "path": "/",
            "decision": "sign",
            "route": "queues",
            "service": "sqs",
            "operation": "SendMessage",
            "region": "us-east-1",
            "identity": "default",
            "provider": "test",
            "resource": "https://sqs.us-east-1.amazonaws.com/1/q",
            "status": 200,
            "request_id": "an-id",
            "attempts": 1,
        }
    ]


@pytest.mark.parametrize(
    ("raw", "resource"),
    [
        (request("PUT", "/a%20key?x-id=PutObject", host=BUCKET_HOST, body=b"secret"), "arn:aws:s3:::bucket/a key"),
        (
            request(
                "POST", "/", "X-Amz-Target: DynamoDB_20120810.GetItem", "Content-Type: application/x-amz-json-1.0",
                host="dynamodb.us-east-1.amazonaws.com", body=b'{"Key": {"k": {"S": "secret"}}, "TableName": "orders"}',
            ),
            "TableName=orders",
        ),
        (
            request(
                "POST", "/", "Content-Type: application/x-www-form-urlencoded", host="sns.us-east-1.amazonaws.com",
                body=b"Action=Publish&Message=secret&TopicArn=arn%3Aaws%3Asns%3Aus-east-1%3A1%3At",
            ),
            "arn:aws:sns:us-east-1:1:t",
        ),
        (request("POST", "/", LIST, "Content-Type: application/x-amz-json-1.0", body=b'{"QueueNamePrefix": "secret"}'), None),
    ],
)  # fmt: skip
async def test_the_resource(start: Start, upstream: Upstream, log: Path, raw: bytes, resource: str | None) -> None:
    proxy = await start(upstream, audit_log=str(log))
    await proxy.ask(raw)
    (line,) = await read_lines(log, 1)
    assert (line["decision"], line.get("resource")) == ("sign", resource)


async def test_what_is_not_signed_is_told_too(start: Start, upstream: Upstream, log: Path) -> None:
    routes = [{"host": HOST, "path": "/no/*", "action": "deny"}, {"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}"}]
    proxy = await start(upstream, audit_log=str(log), routes=routes)
    presigned = "/key?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=secret&X-Amz-Expires=60"
    answers = [
        await proxy.ask(request("GET", path, host=host))
        for path, host in (("/no/more?x=secret", HOST), ("/", "nobody.example"), (presigned, BUCKET_HOST))
    ]
    denied, unknown, passed = await read_lines(log, 3)
    assert (denied["decision"], denied["route"], denied["error"], denied["attempts"]) == ("deny", "#1", "denied", 0)
    assert (unknown["decision"], unknown["host"], unknown["status"]) == ("refuse", "nobody.example", 403)
    assert (passed["decision"], passed["path"], passed.get("identity"), passed.get("provider")) == ("pass", "/key", None, None)
    # What sigward answers itself has an id by which the client's error is found in the log.
    for told, line in zip(answers, (denied, unknown), strict=False):
        assert told.get("x-amzn-requestid") == line["request_id"]
        assert OWN_ID.fullmatch(line["request_id"])
    assert denied["request_id"] != unknown["request_id"]


@pytest.mark.fault("sigward is killed while calls are in flight", holds="the audit log had a line for each before it went out")
@pytest.mark.parametrize("size", [0, 2, 300_000], ids=["without a body", "held", "spooled"])
async def test_a_line_is_written_before_the_call_goes_out(start: Start, upstream: Upstream, log: Path, size: int) -> None:
    """One, however often it is tried."""
    proxy = await start(upstream, audit_log=str(log), retry={"base": 0.01}, body={"hold": 100_000})
    there: list[str] = []

    async def look(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there.append(read(log))
        writer.write(S500 if len(there) == 1 else answer(200, b"{}", "x-amzn-RequestId: an-id"))

    upstream.answers = [look] * 2
    raw = request("POST", "/", LIST, "Content-Type: application/x-amz-json-1.0", body=b"{}".ljust(size)) if size else request()
    assert (await proxy.ask(raw)).status == 200
    (line,) = begun(parsed(there[0]))
    assert "status" not in line
    assert (line["decision"], line["identity"], line["provider"], line["service"]) == ("sign", "default", "test", "sqs")
    assert there[0] == there[1], "it comes once"
    (over,) = await read_lines(log, 1)
    assert (over["status"], over["attempts"], over["request_id"]) == (200, 2, "an-id")


async def test_who_has_a_line_before_the_call(start: Start, upstream: Upstream, log: Path) -> None:
    """What goes out; not what sigward answers itself, and nothing if it is not wanted."""
    routes = [{"host": HOST, "path": "/no", "action": "deny"}, {"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}"}]
    proxy = await start(upstream, audit_log=str(log), routes=routes)
    presigned = "/key?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=secret&X-Amz-Expires=60"
    asked = (("/no", HOST), (presigned, BUCKET_HOST), ("/key", BUCKET_HOST), ("/", "nobody.example"))
    for path, host in asked:
        await proxy.ask(request("GET", path, host=host))
    await read_lines(log, len(asked))
    assert [line["decision"] for line in begun(parsed(read(log)))] == ["pass", "sign"]
    for number, (setting, expected) in enumerate(
        (({"audit_begun": False}, 0), ({"audit_when_full": "drop"}, 0), ({"audit_when_full": "drop", "audit_begun": True}, 1))
    ):
        other = log.with_name(f"{number}.log")
        proxy.point_to(upstream.port, audit_log=str(other), **setting)
        assert await audited(proxy) == 200
        await read_lines(other, 1)
        lines = parsed(read(other))
        assert (len(begun(lines)), len([line for line in lines if "call_id" in line])) == (expected, 2 * expected)


WAYS = {
    "full": "/dev/full",
    "a folder that is gone": "gone/audit.log",
    "a pipe that nobody reads": "pipe",
}


@pytest.mark.fault(
    "the audit log cannot be written (disk full, folder gone, reader stuck)", holds="not one call is sent, also of many at once"
)
@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
@pytest.mark.parametrize("way", WAYS)
async def test_no_call_is_sent_whose_line_is_not_written(start: Start, upstream: Upstream, tmp_path: Path, way: str) -> None:
    log = tmp_path / WAYS[way]
    if way == "a pipe that nobody reads":
        os.mkfifo(log)
        with os.fdopen(os.open(log, os.O_RDWR | os.O_NONBLOCK), "r+b", buffering=0) as pipe:
            proxy = await start(upstream, audit_log=str(log))
            while pipe.write(bytes(4096)):
                pass
            await all_are_refused(proxy, upstream)
            await served_again(proxy, lambda: pipe.read(1 << 16))
        return
    log.parent.mkdir(exist_ok=True)
    proxy = await start(upstream, audit_log=str(log))
    if way == "full":
        await all_are_refused(proxy, upstream)
        return
    assert await audited(proxy) == 200
    await read_lines(log, 1)
    shutil.rmtree(log.parent)
    upstream.received.clear()
    await all_are_refused(proxy, upstream)
    log.parent.mkdir()
    await served_again(proxy)
    assert len(ended(parsed(read(log)))) >= 90, "the lines were kept"


async def all_are_refused(proxy: Proxy, upstream: Upstream) -> None:
    statuses = await asyncio.gather(*[audited(proxy) for _ in range(90)])
    assert statuses == [503] * 90
    assert upstream.received == []


async def served_again(proxy: Proxy, meanwhile: Callable[[], object] = lambda: None) -> None:
    async with asyncio.timeout(PATIENCE):
        while meanwhile() or await audited(proxy) != 200:
            await asyncio.sleep(0.01)


async def test_a_call_whose_client_has_gone(start: Start, upstream: Upstream, log: Path) -> None:
    """It may have been done: that it was signed and sent is told."""
    proxy = await start(upstream, audit_log=str(log), retry={"base": 0.01})

    async def never(_: Received, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await reader.read()

    upstream.answers = [S500, never]
    async with connected(proxy.reverse) as (_, writer):
        writer.write(request("GET", "/?Action=ListQueues"))
        await upstream.wait_for(2)
        reset(writer)
    (line,) = await read_lines(log, 1)
    assert (line["decision"], line["operation"], line["identity"], line["provider"]) == ("sign", "ListQueues", "default", "test")
    assert (line["error"], line["attempts"], line.get("status")) == ("client-gone", 2, None)
    assert counted(proxy.engine.metrics(), "sigward_requests_total", code="client-gone", service="sqs", action="sign") == 1


@pytest.mark.parametrize(("service", "host", "name"), [("s3", BUCKET_HOST, "x-amz-request-id"), ("sqs", HOST, "x-amzn-requestid")])
async def test_both_spellings_of_a_request_id(
    start: Start, upstream: Upstream, log: Path, tmp_path: Path, service: str, host: str, name: str
) -> None:
    """AWS's, and that of sigward's own error: the same in the answer, the access log and the audit log."""
    access = tmp_path / "access.log"
    proxy = await start(upstream, audit_log=str(log), access_log=str(access))
    upstream.answers = [answer(200, b"", f"{name}: {service}-id")]
    await proxy.ask(request("GET", "/", host=host))
    proxy.point_to(1)
    refused = await proxy.ask(request("GET", "/", host=host))
    assert refused.status == 502
    assert OWN_ID.fullmatch(refused.get(name) or "")
    assert (refused.get(name) or "-") in refused.body.decode() or service == "sqs"
    ids = [f"{service}-id", refused.get(name)]
    assert [line["request_id"] for line in await read_lines(log, 2)] == ids
    assert [line["request_id"] for line in parsed(await grown(access, 2))] == ids


async def audited(proxy: Proxy) -> int:
    return (await proxy.ask(request("GET", "/?Action=ListQueues"))).status


async def until_failing(proxy: Proxy) -> None:
    """Calls until a line could not be written."""
    async with asyncio.timeout(PATIENCE):
        while not counted(proxy.engine.metrics(), "sigward_audit_log_errors_total"):
            await audited(proxy)


@pytest.mark.fault("an audit log that cannot be written", holds="nothing is signed")
@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
async def test_nothing_is_signed_while_it_cannot_be_told(start: Start, upstream: Upstream, log: Path) -> None:
    routes = [{"host": BUCKET_HOST, "action": "pass", "connect": f"127.0.0.1:{upstream.port}"}]
    routes.append({"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}"})
    proxy = await start(upstream, audit_log="/dev/full", routes=routes)
    await until_failing(proxy)
    sent = len(upstream.received)
    refused = await proxy.ask(request("POST", "/", LIST, "Content-Type: application/x-amz-json-1.0", body=b"{}"))
    assert (refused.status, refused.get("x-sigward-error"), refused.get("retry-after")) == (503, "audit-log-unavailable", "1")
    assert len(upstream.received) == sent
    assert counted(proxy.engine.metrics(), "sigward_audit_log_refused_total") >= 1
    assert counted(proxy.engine.metrics(), "sigward_audit_log_dropped_total") == 0, "they are kept"
    # What bears nobody's keys is not held back.
    assert (await proxy.ask(request("GET", "/", host=BUCKET_HOST))).status == 200
    # Another file, and calls go out again.
    proxy.point_to(upstream.port, audit_log=str(log))
    assert await audited(proxy) == 200
    (line,) = await read_lines(log, 1)
    assert line["decision"] == "sign"


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
async def test_what_is_refused_for_it_spends_nothing(start: Start, upstream: Upstream, log: Path) -> None:
    proxy = await start(upstream, audit_log="/dev/full", **FIVE)
    await until_failing(proxy)
    before = counted(proxy.engine.metrics(), "sigward_signatures_total")
    refused_before = counted(proxy.engine.metrics(), "sigward_audit_log_refused_total")
    for _ in range(10):
        assert await receive(proxy) == "503 audit-log-unavailable"
    form = "Content-Type: application/x-www-form-urlencoded"
    refused = await proxy.ask(request("POST", "/", form, body=b"Action=ReceiveMessage&Version=2012-11-05"))
    assert refused.get("x-sigward-error") == "audit-log-unavailable"
    # Operations that take no signature are served.
    unsigned = b"Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=r&RoleSessionName=s&WebIdentityToken=t"
    assert (await proxy.ask(request("POST", "/", form, host="sts.us-east-1.amazonaws.com", body=unsigned))).status == 200
    metrics = proxy.engine.metrics()
    assert counted(metrics, "sigward_signatures_total") == before
    assert counted(metrics, "sigward_audit_log_refused_total") == refused_before + 11
    proxy.point_to(upstream.port, audit_log=str(log))
    await all_five(proxy)


async def piped(log: Path, count: int) -> list[dict[str, Any]]:
    """What comes out of a named pipe, until so many calls are over."""
    lines: list[dict[str, Any]] = []
    with log.open("rb") as reading:
        while len(over := ended(lines)) < count:
            lines.append(json.loads(await asyncio.to_thread(reading.readline)))
    return over


async def test_a_call_that_waits_while_it_fails_is_kept(start: Start, upstream: Upstream, log: Path) -> None:
    """It was accepted when it came; what is signed later is logged."""
    os.mkfifo(log)
    proxy = await start(upstream, audit_log=str(log), grace=0.0, retry={"base": 0.01})
    blocked = asyncio.Event()

    async def later(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await blocked.wait()
        writer.write(S500)

    upstream.answers = [later]
    waiting = asyncio.create_task(proxy.ask(request("GET", "/?Action=ListQueues")))
    await upstream.wait_for(1)
    path = "/" + "long" * 3500
    async with asyncio.timeout(60):
        served = 0
        while (await proxy.ask(request("GET", path, host=BUCKET_HOST))).status == 200:
            served += 1
        blocked.set()
        assert (await waiting).status == 200
        # That of the call which was refused, too.
        told = await piped(log, served + 2)
    assert [line.get("operation") for line in told if line.get("attempts") == 2] == ["ListQueues"]
    assert counted(proxy.engine.metrics(), "sigward_audit_log_dropped_total") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
async def test_or_lines_are_dropped_and_counted(start: Start, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    proxy = await start(upstream, audit_log="/dev/full", audit_when_full="drop")
    await until_failing(proxy)
    assert await audited(proxy) == 200
    async with asyncio.timeout(PATIENCE):
        while counted(proxy.engine.metrics(), "sigward_audit_log_dropped_total") < 2 or "lines are lost" not in caplog.text:
            assert await audited(proxy) == 200


@pytest.mark.fault("an audit log whose reader is too slow", holds="calls stop, no line is lost")
async def test_a_reader_that_is_too_slow_stops_calls_and_loses_none(start: Start, upstream: Upstream, log: Path) -> None:
    os.mkfifo(log)
    proxy = await start(upstream, audit_log=str(log), grace=0.0)
    path = "/" + "long" * 3500
    served = 0
    async with asyncio.timeout(60):
        while (response := await proxy.ask(request("GET", path, host=BUCKET_HOST))).status == 200:
            served += 1
        assert response.get("x-sigward-error") == "audit-log-unavailable"
        told = await piped(log, served + 1)
    assert {line["path"] for line in told} == {path}
    assert [line["status"] for line in told] == [200] * served + [503]
    assert len(upstream.received) == served
    assert counted(proxy.engine.metrics(), "sigward_audit_log_dropped_total") == 0


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(_core.SettingsError, match=r"audit_log: .*missing"):
        _core.Engine(json.dumps({"audit_log": str(tmp_path / "missing" / "audit.log")}))
