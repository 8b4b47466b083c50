"""Other people's addons in the mitmproxy front: whatever a hook does, or fails to do, nothing goes on that it meant to stop."""

import asyncio
import contextlib
from typing import Any

import pytest
from mitmproxy import http

from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_http2 import Http2Client
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import Received, Upstream, connected, read_response

HOLD = 1000
LARGE = b"x" * 200_000

pytestmark = pytest.mark.mitmproxy("it has addons")


class Hook:
    """An addon with one hook."""

    def __init__(self, name: str, do: Any) -> None:
        setattr(self, name, do)


def broken(_: Any) -> None:
    raise RuntimeError("addon is broken")


def answer(flow: http.HTTPFlow) -> None:
    flow.response = http.Response.make(418, b"teapot")


@pytest.mark.fault("a hook of an addon that raises", holds="the request is refused, never sent unsigned")
@pytest.mark.parametrize("hook", ["requestheaders", "request"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_hook_that_raises_refuses_a_request_that_streams(start: Start, upstream: Upstream, hook: str, chunked: bool) -> None:
    proxy = await start(upstream, addons=(Hook(hook, broken),), body={"hold": HOLD})
    response = await proxy.ask(put(chunked))
    assert (response.status, response.get("x-sigward-error")) == (500, "hook-failed")
    await idle(proxy)
    assert upstream.received == []


@pytest.mark.parametrize("hook", ["requestheaders", "request"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_hook_may_answer_a_request_that_streams(start: Start, upstream: Upstream, hook: str, chunked: bool) -> None:
    proxy = await start(upstream, addons=(Hook(hook, answer),), body={"hold": HOLD})
    async with connected(proxy.reverse) as (reader, writer):
        for _ in range(2):
            writer.write(put(chunked))
            response = await asyncio.wait_for(read_response(reader), 10)
            assert (response.status, response.body) == (418, b"teapot")
    await idle(proxy)
    assert upstream.received == []


async def test_a_hook_that_raises_refuses_one_stream_of_http2(start: Start, upstream: Upstream) -> None:
    def fail_for_k(flow: http.HTTPFlow) -> None:
        if flow.request.path == "/k":
            raise RuntimeError("addon is broken")

    proxy = await start(upstream, addons=(Hook("request", fail_for_k),), body={"hold": HOLD})
    async with proxy.tunnel(f"{BUCKET_HOST}:443", BUCKET_HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        length = ("content-length", str(len(LARGE[:60000])))
        refused = client.send("PUT", "/k", BUCKET_HOST, LARGE[:60000], (), length)
        other = client.send("GET", "/other", BUCKET_HOST)
        first, second = await client.finished(refused, other)
    assert (first.headers[":status"], first.headers["x-sigward-error"]) == ("500", "hook-failed")
    assert second.body == b"ok"
    assert [received.target for received in upstream.received] == ["/other"]


@pytest.mark.parametrize("hook", ["responseheaders", "response"])
async def test_a_response_hook_that_raises_delivers_nothing(start: Start, upstream: Upstream, hook: str) -> None:
    proxy = await start(upstream, addons=(Hook(hook, broken),))
    with pytest.raises(asyncio.IncompleteReadError):
        await proxy.ask(request())


async def test_a_killed_flow_stops_its_job(start: Start, upstream: Upstream) -> None:
    def kill(flow: http.HTTPFlow) -> None:
        flow.kill()

    proxy = await start(upstream, addons=(Hook("responseheaders", kill),))
    gone = asyncio.Event()

    async def endless(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while not writer.transport.is_closing():
                writer.write(b"x" * 65536)
                await writer.drain()
                # uvloop's drain neither waits nor raises once the connection is lost.
                await asyncio.sleep(0)
        finally:
            gone.set()

    upstream.answers = [endless]
    async with proxy.tunnel(f"{HOST}:443", HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        [stream] = await client.finished(client.send("GET", "/", HOST))
        assert stream.reset is not None
        await asyncio.wait_for(gone.wait(), 10)
        await idle(proxy)


@pytest.mark.parametrize("hook", ["server_connect", "http_connect"])
async def test_a_connect_hook_that_raises_refuses_the_tunnel(start: Start, upstream: Upstream, hook: str) -> None:
    proxy = await start(upstream, addons=(Hook(hook, broken),), routes=[{"host": "localhost", "action": "pass"}])

    async def use_tunnel() -> None:
        async with proxy.tunnel(f"localhost:{upstream.port}", "localhost") as (reader, writer):
            writer.write(request(host="localhost"))
            await read_response(reader)

    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await use_tunnel()
    assert upstream.connections == 0


async def test_an_addon_that_sets_an_impossible_target_gets_an_error(start: Start, upstream: Upstream) -> None:
    def spoil(flow: http.HTTPFlow) -> None:
        flow.request.data.port = "no port"  # type: ignore[assignment]

    proxy = await start(upstream, addons=(Hook("request", spoil),))
    response = await asyncio.wait_for(proxy.ask(request()), 10)
    assert response.status >= 500
    assert response.get("x-sigward-error") == "internal"
    assert upstream.received == []


async def test_a_bad_host_with_a_large_body_is_refused(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, body={"hold": HOLD})
    response = await asyncio.wait_for(proxy.ask(request("PUT", "/", host="a b", body=LARGE)), 10)
    assert (response.status, response.get("x-sigward-error")) == (400, "bad-host")


def put(chunked: bool) -> bytes:
    if not chunked:
        return request("PUT", "/k", host=BUCKET_HOST, body=LARGE)
    head = request("PUT", "/k", "Transfer-Encoding: chunked", host=BUCKET_HOST)
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(LARGE), LARGE)


async def idle(proxy: Proxy) -> None:
    """Waits until nothing is under way any more."""
    async with asyncio.timeout(10):
        while proxy.left():
            await asyncio.sleep(0.01)


async def test_a_request_hook_that_raises_after_an_early_answer_breaks_it_off(start: Start, upstream: Upstream) -> None:
    """The answer is under way and cannot be taken back, but neither does the request come to its end."""
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nearly")
        await writer.drain()
        ended.set_result(await reader.read())
        writer.close()

    proxy = await start(upstream, addons=(Hook("request", broken),), body={"hold": HOLD})
    server = await asyncio.start_server(early, "127.0.0.1", 0, ssl=upstream.context)
    proxy.point_to(server.sockets[0].getsockname()[1])
    with contextlib.closing(server):
        async with connected(proxy.reverse) as (reader, writer):
            raw = put(chunked=False)
            writer.write(raw[:-1])
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 200")
            writer.write(raw[-1:])
            with contextlib.suppress(ConnectionError):
                assert len(await asyncio.wait_for(reader.read(), 10)) < 1_000_000
        assert len(await asyncio.wait_for(ended, 10)) < len(LARGE)


async def test_a_websocket_message_that_a_hook_fails_on_is_not_passed(start: Start, upstream: Upstream) -> None:
    def fail_on_secrets(flow: http.HTTPFlow) -> None:
        assert flow.websocket is not None
        if flow.websocket.messages[-1].content == b"secret":
            raise RuntimeError("addon is broken")

    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def peer(_: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        got.set_result(await reader.readexactly(6 + 6))
        await reader.read()

    proxy = await start(upstream, addons=(Hook("websocket_message", fail_on_secrets),))
    upstream.answers = [peer]
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("GET", "/", *upgrade))
        assert (await read_response(reader)).status == 101
        for message in (b"secret", b"public"):
            writer.write(b"\x82\x86\x00\x00\x00\x00" + message)
        frame = await asyncio.wait_for(got, 10)
    mask, payload = frame[2:6], frame[6:]
    assert bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) == b"public"
