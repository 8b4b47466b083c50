"""What is refused, and that nothing fails open."""

import asyncio
import contextlib
import json
from typing import Any

import pytest

from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_half_open import reset
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import Received, Upstream, assert_signed, connected, read_response

LIST = "X-Amz-Target: AmazonSQS.ListQueues"
S503 = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("host", ["evil-amazonaws.com", "s3.amazonaws.com.evil.test", "127.0.0.1", "10.0.0.1", "anything.amazonaws.test"])
async def test_strangers_are_refused_by_a_reverse_listener(proxy: Proxy, host: str) -> None:
    response = await proxy.ask(request(host=host))
    assert response.status == 403
    assert response.get("x-sigward-error") in ("not-aws", "forbidden-address")
    assert proxy.upstream.received == []


async def test_metadata_addresses_are_out_of_reach(proxy: Proxy) -> None:
    for host in ("169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "127.0.0.1:1", "localhost:1", "[::ffff:127.0.0.1]:1"):
        raw = f"GET http://{host}/latest/meta-data/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        response = await proxy.ask(raw, to=proxy.forward)
        assert (response.status, response.get("x-sigward-error")) == (403, "forbidden-address"), host
        # Who sees this meant to set NO_PROXY, or has.
        assert "ignores NO_PROXY" in (response.get("x-sigward-reason") or "")
        async with connected(proxy.forward) as (reader, writer):
            authority = host if ":" in host.rpartition("]")[2] else f"{host}:80"
            writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            response = await read_response(reader)
            assert (response.status, response.get("x-sigward-error")) == (403, "forbidden-address"), host
            assert "ignores NO_PROXY" in (response.get("x-sigward-reason") or "")


async def test_a_host_header_for_another_host_is_refused(proxy: Proxy) -> None:
    async with proxy.tunnel(f"{HOST}:443", HOST) as (reader, writer):
        writer.write(request(host=BUCKET_HOST))
        response = await read_response(reader)
    assert (response.status, response.get("x-sigward-error")) == (421, "host-mismatch")
    raw = f"GET http://{HOST}/ HTTP/1.1\r\nHost: {BUCKET_HOST}\r\n\r\n".encode()
    response = await proxy.ask(raw, to=proxy.forward)
    assert (response.status, response.get("x-sigward-error")) == (421, "host-mismatch")
    assert proxy.upstream.received == []


async def test_an_sni_of_awss_does_not_make_an_address_awss(start: Start, upstream: Upstream) -> None:
    """CONNECT 127.0.0.1 with an AWS name in SNI and Host: tunnelled or refused, never signed."""
    proxy = await start(upstream)
    with pytest.raises(ConnectionRefusedError):
        async with proxy.tunnel(f"127.0.0.1:{upstream.port}", HOST):
            pass
    assert upstream.received == []


async def test_an_sni_that_differs_from_connect_is_not_signed_for(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream)
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        async with proxy.tunnel(f"{HOST}:443", BUCKET_HOST) as (reader, writer):
            writer.write(request(host=BUCKET_HOST))
            await read_response(reader)
    assert all(received.get("authorization") is None for received in upstream.received)


async def test_other_hosts_are_tunnelled_untouched(start: Start, upstream: Upstream) -> None:
    """The client sees the upstream's own certificate, and the upstream the client's own bytes."""
    proxy = await start(upstream, routes=[{"host": "localhost", "action": "pass"}])
    async with proxy.tunnel(f"localhost:{upstream.port}", "localhost") as (reader, writer):
        names = writer.get_extra_info("peercert")["subjectAltName"]
        assert ("DNS", "localhost") in names
        assert len(names) > 1, "that is the upstream's certificate, not one of sigward's"
        writer.write(request("GET", "/", "X-Amz-Date: mine", host="localhost"))
        assert (await read_response(reader)).body == b"ok"
    assert upstream.received[0].get("x-amz-date") == "mine"
    assert upstream.received[0].get("authorization") is None


async def test_an_unverified_upstream_gets_nothing(start: Start) -> None:
    async with Upstream(hosts=("wrong.test",)) as upstream:
        proxy = await start(upstream)
        response = await proxy.ask(request())
        assert (response.status, response.get("x-sigward-error")) == (502, "tls-failed")
        assert upstream.received == []


@pytest.mark.mitmproxy("it has addons")
async def test_a_hook_of_anothers_that_raises_refuses_the_request(start: Start, upstream: Upstream) -> None:
    class Broken:
        def __init__(self, hook: str) -> None:
            def fail(_flow: Any) -> None:
                raise RuntimeError("addon is broken")

            setattr(self, hook, fail)

    for hook in ("requestheaders", "request"):
        proxy = await start(upstream, addons=(Broken(hook),))
        response = await proxy.ask(request("POST", "/", body=b"x"))
        assert (response.status, response.get("x-sigward-error")) == (500, "hook-failed")
        assert upstream.received == []


@pytest.mark.mitmproxy("it has addons")
async def test_a_hook_of_ours_that_raises_refuses_the_request(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    from sigward.mitm import addon

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("we are broken")

    monkeypatch.setattr(addon.url, "parse_authority", fail)
    response = await proxy.ask(request())
    assert (response.status, response.get("x-sigward-error")) == (500, "hook-failed")
    assert proxy.upstream.received == []


async def test_no_credentials_names_what_was_tried(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, credentials=False)
    proxy.engine.set_credentials_failed("default", [("env", "AWS_ACCESS_KEY_ID is not set"), ("iam-role", "no answer")])
    response = await proxy.ask(
        request("POST", "/", "Content-Type: application/x-amz-json-1.0", "X-Amz-Target: AmazonSQS.ListQueues", body=b"{}")
    )
    assert (response.status, response.get("x-sigward-error")) == (503, "no-credentials")
    told = json.loads(response.body)
    assert told["__type"] == "sigward#NoCredentials"
    assert "env: AWS_ACCESS_KEY_ID is not set; iam-role: no answer" in told["message"]
    response = await proxy.ask(request(host=BUCKET_HOST))
    assert b"<Code>NoCredentials</Code>" in response.body
    assert upstream.received == []


async def test_a_request_waits_for_credentials_that_are_being_loaded(start: Start, upstream: Upstream) -> None:
    from tests.support import KEY, SECRET

    proxy = await start(upstream, credentials=False)
    asked = asyncio.Event()
    proxy.on_refresh = lambda identity: asked.set()
    waiting = asyncio.create_task(proxy.ask(request()))
    await asyncio.wait_for(asked.wait(), 10)
    assert not waiting.done()
    proxy.engine.set_credentials("default", KEY, SECRET, None, None, "test")
    assert (await waiting).status == 200


async def test_expired_credentials_are_not_used(start: Start, upstream: Upstream) -> None:
    from tests.support import KEY, SECRET

    proxy = await start(upstream, credentials=False)
    proxy.engine.set_credentials("default", KEY, SECRET, None, 1_000_000_000.0, "test")
    proxy.engine.set_credentials_failed("default", [("test", "source is down")])
    assert (await proxy.ask(request())).status == 503
    assert upstream.received == []


async def test_503_twice_then_success(proxy: Proxy) -> None:
    proxy.upstream.answers = [S503, S503]
    assert (await proxy.ask(request("POST", "/", LIST, body=b"again"))).status == 200
    assert [received.body for received in proxy.upstream.received] == [b"again"] * 3
    for received in proxy.upstream.received:
        assert_signed(received, HOST)


async def test_the_last_failure_is_delivered(proxy: Proxy) -> None:
    proxy.upstream.answers = [S503, S503, b"HTTP/1.1 503 Busy\r\nx-last: 1\r\ncontent-length: 4\r\n\r\nbusy"]
    response = await proxy.ask(request())
    assert (response.status, response.get("x-last"), response.body) == (503, "1", b"busy")
    assert len(proxy.upstream.received) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 409, 501])
async def test_other_failures_are_not_retried(proxy: Proxy, status: int) -> None:
    proxy.upstream.answers = [f"HTTP/1.1 {status} No\r\ncontent-length: 2\r\n\r\nno".encode()]
    response = await proxy.ask(request())
    assert (response.status, response.body) == (status, b"no")
    assert len(proxy.upstream.received) == 1


async def test_throttling_as_a_400_is_retried_and_its_body_kept_otherwise(proxy: Proxy) -> None:
    throttled = b'{"__type":"com.amazonaws.dynamodb#ThrottlingException"}'
    invalid = b'{"__type":"com.amazonaws.dynamodb#ValidationException"}'
    head = b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n"
    proxy.upstream.answers = [head % len(throttled) + throttled, head % len(invalid) + invalid]
    response = await proxy.ask(request())
    assert (response.status, response.body) == (400, invalid)
    assert len(proxy.upstream.received) == 2


async def test_a_connection_that_breaks_before_an_answer_is_tried_again(proxy: Proxy) -> None:
    async def hang_up(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    proxy.upstream.answers = [hang_up]
    assert (await proxy.ask(request("POST", "/", LIST, body=b"x"))).status == 200


async def test_a_silent_upstream_times_out(start: Start, upstream: Upstream) -> None:
    async def silent(_: Received, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await reader.read(1)

    proxy = await start(upstream, timeouts={"head": 0.1}, retry={"attempts": 1})
    upstream.answers = [silent]
    response = await proxy.ask(request())
    assert (response.status, response.get("x-sigward-error")) == (504, "head-timeout")


async def test_a_client_that_leaves_while_a_retry_waits_stops_it(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, retry={"attempts": 3, "base": 20.0, "throttle_base": 20.0})
    upstream.answers = [b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"] * 3
    async with connected(proxy.reverse) as (_, writer):
        writer.write(request())
        await upstream.wait_for(1)
        # A client that only ends its side may still want its answer.
        reset(writer)
    await gone(proxy)
    assert len(upstream.received) == 1
    assert "client-gone" in proxy.engine.metrics()


async def test_a_client_that_leaves_during_an_upload_stops_it(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, body={"hold": 1000})
    async with connected(proxy.reverse) as (_, writer):
        writer.write(request("PUT", "/key", "Content-Length: 1000000", host=BUCKET_HOST) + b"x" * 5000)
        await writer.drain()
        while not proxy.engine.in_flight():
            await asyncio.sleep(0)
    await gone(proxy)
    assert upstream.received == []


async def gone(proxy: Proxy) -> None:
    """Waits until the engine has let go of every request."""
    async with asyncio.timeout(10):
        while proxy.left():
            await asyncio.sleep(0.01)


async def test_a_head_without_end_is_refused(proxy: Proxy) -> None:
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        with contextlib.suppress(OSError):
            for number in range(4000):
                writer.write(b"X-%d: %s\r\n" % (number, b"y" * 100))
                await writer.drain()
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            assert (await read_response(reader)).status == 431


async def test_a_large_head_is_refused(proxy: Proxy) -> None:
    response = await proxy.ask(request("GET", "/", *(f"X-{number}: {'y' * 1000}" for number in range(80))))
    assert (response.status, response.get("x-sigward-error")) == (431, "head-too-large")


async def test_routes_deny_pass_and_sign_others(start: Start, upstream: Upstream) -> None:
    target = f"127.0.0.1:{upstream.port}"
    routes = [
        {"host": HOST, "path": "/secret*", "action": "deny"},
        {"host": HOST, "path": "/public*", "action": "pass", "connect": target},
        {"host": "search.internal.amazonaws.com", "service": "es", "region": "eu-west-1", "connect": target},
        {"host": "*", "connect": target},
    ]
    proxy = await start(upstream, routes=routes)
    assert (await proxy.ask(request("GET", "/secret/x"))).get("x-sigward-error") == "denied"
    assert (await proxy.ask(request("GET", "/public/x"))).status == 200
    assert upstream.received[-1].get("authorization") is None
    assert (await proxy.ask(request("GET", "/else"))).status == 200
    assert_signed(upstream.received[-1], HOST)
    async with Upstream(hosts=("search.internal.amazonaws.com",)):
        response = await proxy.ask(request(host="search.internal.amazonaws.com"))
    # The upstream's certificate covers one label, so this name is not verified; the route did decide.
    assert response.get("x-sigward-error") in (None, "tls-failed")


async def test_drain_ends_what_is_under_way(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream)
    release = asyncio.Event()

    async def later(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")

    upstream.answers = [later]
    waiting = asyncio.create_task(proxy.ask(request()))
    await upstream.wait_for(1)
    address = proxy.reverse
    draining = asyncio.create_task(proxy.front.drain())
    async with asyncio.timeout(10):
        while True:
            try:
                async with connected(address):
                    await asyncio.sleep(0.01)
            except OSError:
                break
    release.set()
    assert (await waiting).body == b"late"
    await draining


async def test_expired_credentials_are_renewed_once_for_many_requests(start: Start, upstream: Upstream) -> None:
    from tests.support import KEY, OK, SECRET, authorization

    expired = b"HTTP/1.1 403 Forbidden\r\nx-amzn-errortype: ExpiredTokenException\r\ncontent-length: 0\r\n\r\n"
    proxy = await start(upstream)
    asked: list[str] = []

    def renew(identity: str) -> None:
        asked.append(identity)
        proxy.engine.set_credentials(identity, "AKIDRENEWED", SECRET, None, None, "test")

    proxy.on_refresh = renew

    async def answer(received: Received, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(expired if authorization(received)["Credential"].startswith(f"{KEY}/") else OK)

    upstream.answers = [answer] * 16
    responses = await asyncio.gather(*(proxy.ask(request()) for _ in range(8)))
    assert [response.status for response in responses] == [200] * 8
    assert asked == ["default"]
    assert authorization(upstream.received[-1])["Credential"].startswith("AKIDRENEWED/")
