"""What is tried again, how long it may take, and what waits for its turn."""

import asyncio
import gzip
import json
import time

import pytest

from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_half_open import reset
from tests.conformance.test_requests import request
from tests.support import Received, Upstream, assert_signed, connected, read_response

LIST = "X-Amz-Target: AmazonSQS.ListQueues"
SEND = "X-Amz-Target: AmazonSQS.SendMessage"
S500 = b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def answer(status: int, body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{lines}\r\n".encode() + body


async def hang_up(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def test_how_often_it_was_tried_is_told(proxy: Proxy) -> None:
    assert (await proxy.ask(request())).get("x-sigward-attempts") == "1"
    proxy.upstream.answers = [S500, S500]
    response = await proxy.ask(request())
    assert (response.status, response.get("x-sigward-attempts")) == (200, "3")


@pytest.mark.fault("a failure that does not say whether the call was executed", holds="it is not executed twice")
@pytest.mark.parametrize("failure", [S500, hang_up])
async def test_what_may_have_been_done_is_not_done_twice(proxy: Proxy, failure: object) -> None:
    proxy.upstream.answers = [failure]  # type: ignore[list-item]
    response = await proxy.ask(request("POST", "/", SEND, body=b"{}"))
    assert (response.status, len(proxy.upstream.received)) == (500 if failure is S500 else 502, 1)


async def test_it_is_where_the_operator_says_so(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, retry={"base": 0.01, "repeat": "all"})
    upstream.answers = [S500, hang_up]
    assert (await proxy.ask(request("POST", "/", SEND, body=b"{}"))).status == 200
    assert len(upstream.received) == 3


@pytest.mark.parametrize(
    "throttled",
    [
        answer(400, b'{"__type":"com.amazonaws.sqs#RequestThrottled"}'),
        answer(400, b"", "x-amzn-errortype: ThrottlingException:http://x"),
        answer(429, b""),
        answer(400, gzip.compress(b'{"__type":"ThrottlingException"}'), "content-encoding: gzip"),
        answer(503, b"<Error><Code>SlowDown</Code></Error>"),
        answer(400, b"\xa1\x66__type\x73ThrottlingException", "content-type: application/cbor"),
    ],
)
async def test_throttling_is_known_in_every_form_and_always_repeated(proxy: Proxy, throttled: bytes) -> None:
    proxy.upstream.answers = [throttled]
    response = await proxy.ask(request("POST", "/", SEND, body=b"{}"))
    assert (response.status, response.get("x-sigward-attempts")) == (200, "2")


async def test_no_retry_where_it_is_off(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, retry={"mode": "off"})
    upstream.answers = [answer(429, b"slow")]
    response = await proxy.ask(request())
    assert (response.status, response.body) == (429, b"slow")


async def test_a_clients_deadline_is_kept_and_not_passed_on(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, retry={"attempts": 9, "base": 30.0, "throttle_base": 30.0})
    upstream.answers = [answer(429, b"slow")] * 9
    began = time.monotonic()
    response = await proxy.ask(request("GET", "/", "X-Sigward-Deadline: 500ms"))
    assert (response.status, response.body) == (429, b"slow")
    assert time.monotonic() - began < 5
    assert upstream.received[0].get("x-sigward-deadline") is None
    assert_signed(upstream.received[0], HOST)


async def test_a_deadline_cuts_an_attempt_short(proxy: Proxy) -> None:
    async def silent(_: Received, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await reader.read(1)

    proxy.upstream.answers = [silent]
    response = await proxy.ask(request("GET", "/", "X-Sigward-Deadline: 0.2"))
    assert (response.status, response.get("x-sigward-error")) == (504, "head-timeout")


@pytest.mark.parametrize("value", ["", "soon", "-1", "0", "1h", "nan", "inf", "1e99", "5 minutes"])
async def test_a_deadline_that_is_none_is_refused(proxy: Proxy, value: str) -> None:
    response = await proxy.ask(request("GET", "/", f"X-Sigward-Deadline: {value}"))
    assert (response.status, response.get("x-sigward-error")) == (400, "bad-deadline")
    assert proxy.upstream.received == []


async def test_what_aws_asks_for_is_waited_for(proxy: Proxy) -> None:
    proxy.upstream.answers = [answer(429, b"", "x-amz-retry-after: 300")]
    began = time.monotonic()
    assert (await proxy.ask(request())).status == 200
    assert time.monotonic() - began >= 0.3


async def test_an_idempotency_token_is_added_once_and_kept(proxy: Proxy) -> None:
    """Then a repeat does no harm, so there is one."""
    host = HOST.replace("sqs", "secretsmanager")
    headers = ("X-Amz-Target: secretsmanager.CreateSecret", "Content-Type: application/x-amz-json-1.1")
    proxy.upstream.answers = [S500, S500]
    body = b'{"Name": "a"}'
    response = await proxy.ask(request("POST", "/", *headers, body=body, host=host))
    assert response.get("x-sigward-attempts") == "3"
    told = [json.loads(received.body) for received in proxy.upstream.received]
    assert told[0]["Name"] == "a"
    assert len(told[0]["ClientRequestToken"]) == 36
    assert told == [told[0]] * 3
    for received in proxy.upstream.received:
        assert_signed(received, host)
    own = b'{"ClientRequestToken": "mine"}'
    await proxy.ask(request("POST", "/", *headers, body=own, host=host))
    assert proxy.upstream.received[-1].body == own


async def test_no_token_where_the_operator_wants_none(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, retry={"tokens": False})
    ec2 = HOST.replace("sqs", "ec2")
    body = b"Action=RunInstances&Version=2016-11-15&ImageId=ami-1&MinCount=1&MaxCount=1"
    upstream.answers = [S500]
    await proxy.ask(request("POST", "/", "Content-Type: application/x-www-form-urlencoded", body=body, host=ec2))
    assert [received.body for received in upstream.received] == [body]


async def test_a_form_gets_its_token(proxy: Proxy) -> None:
    ec2 = HOST.replace("sqs", "ec2")
    body = b"Action=RunInstances&Version=2016-11-15&ImageId=ami-1&MinCount=1&MaxCount=1"
    proxy.upstream.answers = [S500]
    await proxy.ask(request("POST", "/", "Content-Type: application/x-www-form-urlencoded", body=body, host=ec2))
    first, second = (received.body for received in proxy.upstream.received)
    assert first.startswith(body + b"&ClientToken=")
    assert first == second


async def test_s3_says_where_a_bucket_is_and_is_asked_there(proxy: Proxy) -> None:
    old, new = "bucket.s3.us-east-1.amazonaws.com", "bucket.s3.eu-west-1.amazonaws.com"
    proxy.upstream.answers = [answer(301, b"", "x-amz-bucket-region: eu-west-1")]
    response = await proxy.ask(request("GET", "/k", host=old))
    assert (response.status, response.get("x-sigward-attempts")) == (200, "2")
    first, second = proxy.upstream.received
    assert_signed(first, old)
    assert assert_signed(second, new)["region"] == "eu-west-1"
    await proxy.ask(request("GET", "/other", host=old))
    assert proxy.upstream.received[-1].get("host") == new, "it is remembered"
    assert len(proxy.upstream.received) == 3


async def test_s3_says_200_and_fails(proxy: Proxy) -> None:
    host = "bucket.s3.us-east-1.amazonaws.com"
    failed = b"<?xml version='1.0'?>\n\n   <Error><Code>InternalError</Code></Error>"
    done = b"<?xml version='1.0'?><CopyObjectResult></CopyObjectResult>"
    proxy.upstream.answers = [answer(200, failed), answer(200, done)]
    response = await proxy.ask(request("PUT", "/k", "X-Amz-Copy-Source: /b/k", host=host))
    assert (response.body, response.get("x-sigward-attempts")) == (done, "2")


async def test_an_error_body_of_any_size_is_passed_on(proxy: Proxy) -> None:
    body = b'{"message":"' + b"x" * (3 << 20) + b'"}'
    proxy.upstream.answers = [answer(400, body)]
    response = await proxy.ask(request())
    assert (response.status, response.body) == (400, body)


@pytest.mark.fault("an endpoint that keeps failing", holds="it is left alone for a while, and clients are told at once")
async def test_an_endpoint_that_keeps_failing_is_left_alone(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, retry={"mode": "off"}, circuit={"failures": 3, "pause": 0.3, "longest": 0.3})
    upstream.answers = [S500] * 3
    for _ in range(3):
        assert (await proxy.ask(request())).get("x-sigward-error") is None
    response = await proxy.ask(request())
    assert (response.status, response.get("x-sigward-error"), response.get("retry-after")) == (503, "circuit-open", "1")
    assert f'sigward_circuit_state{{endpoint="{HOST}"}} 2' in proxy.engine.metrics()
    assert len(upstream.received) == 3
    while (response := await proxy.ask(request())).status == 503:
        await asyncio.sleep(0.02)
    assert response.status == 200
    assert "sigward_circuit_state{" not in proxy.engine.metrics()


async def test_throttled_calls_do_not_open_the_circuit(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, retry={"mode": "off"}, circuit={"failures": 3})
    upstream.answers = [answer(429, b"")] * 10
    assert [(await proxy.ask(request())).status for _ in range(10)] == [429] * 10


async def test_requests_at_once_to_an_endpoint_are_limited(start: Start, upstream: Upstream) -> None:
    there, go = asyncio.Event(), asyncio.Event()

    async def slow(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there.set()
        await go.wait()
        writer.write(OK)

    proxy = await start(upstream, circuit={"concurrency": 1})
    upstream.answers = [slow]
    first = asyncio.create_task(proxy.ask(request()))
    await there.wait()
    response = await proxy.ask(request())
    assert (response.status, response.get("x-sigward-error")) == (503, "too-many-requests")
    go.set()
    assert (await first).status == 200
    assert (await proxy.ask(request())).status == 200


async def test_calls_wait_for_their_turn(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, pace={"rules": [{"operation": "sqs:ListQueues", "rate": 20, "burst": 1}]})
    began = time.monotonic()
    answers = await asyncio.gather(*(proxy.ask(request("POST", "/", LIST, body=b"{}")) for _ in range(5)))
    assert [response.status for response in answers] == [200] * 5
    assert time.monotonic() - began >= 0.18
    assert (await proxy.ask(request("POST", "/", SEND, body=b"{}"))).status == 200
    assert 'sigward_pace_wait_seconds_count{rule="sqs:ListQueues"} 4' in proxy.engine.metrics()


async def test_calls_that_may_not_wait_are_refused(start: Start, upstream: Upstream) -> None:
    rule = {"name": "few", "operation": "sqs:*", "rate": 0.5, "burst": 2, "when_full": "refuse"}
    proxy = await start(upstream, pace={"rules": [rule]})
    answers = [await proxy.ask(request("POST", "/", LIST, body=b"{}")) for _ in range(3)]
    assert [response.status for response in answers] == [200, 200, 503]
    assert (answers[2].get("x-sigward-error"), answers[2].get("retry-after")) == ("slow-down", "2")
    assert len(upstream.received) == 2
    assert 'sigward_pace_refused_total{rule="few"} 1' in proxy.engine.metrics()


async def test_who_leaves_the_line_is_not_waited_for(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, pace={"rules": [{"operation": "sqs:*", "rate": 2, "burst": 1}]})
    raw = request("POST", "/", LIST, body=b"{}")
    assert (await proxy.ask(raw)).status == 200
    async with connected(proxy.reverse) as (_, gone):
        gone.write(raw)
        while "sigward_pace_waiting_requests 1" not in proxy.engine.metrics():
            await asyncio.sleep(0.005)
        # One that closes in good order may still read.
        reset(gone)
    while "sigward_pace_waiting_requests 0" not in proxy.engine.metrics():
        await asyncio.sleep(0.005)
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(raw)
        assert (await read_response(reader)).status == 200
    assert len(upstream.received) == 2


async def test_a_deadline_is_not_waited_past(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, pace={"rules": [{"operation": "sqs:*", "rate": 0.1, "burst": 1}]})
    assert (await proxy.ask(request("POST", "/", LIST, body=b"{}"))).status == 200
    response = await proxy.ask(request("POST", "/", LIST, "X-Sigward-Deadline: 1s", body=b"{}"))
    assert (response.status, response.get("x-sigward-error")) == (503, "slow-down")


async def test_throttled_answers_teach_the_rate(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, retry={"mode": "adaptive", "attempts": 1}, pace={"defaults": False})
    upstream.answers = [answer(429, b"")] * 3
    for _ in range(3):
        assert (await proxy.ask(request("POST", "/", LIST, body=b"{}"))).status == 429
    began = time.monotonic()
    for _ in range(3):
        assert (await proxy.ask(request("POST", "/", LIST, body=b"{}"))).status == 200
    assert time.monotonic() - began > 0.2, "it calls slower now"
