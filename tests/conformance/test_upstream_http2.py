"""HTTP/2 to the upstream, as `egress.http2` says: one connection for many requests, and how each ends."""

import asyncio
import contextlib
import hashlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import h2.errors
import pytest
import pytest_asyncio

from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_forms import message, messages
from tests.conformance.test_hooks import idle
from tests.conformance.test_http2 import http2
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.http2_upstream import Http2Upstream, ServerStream, ok
from tests.support import OK, Received, Upstream, assert_signed, connected, read_response

ALWAYS = {"egress": {"http2": "always"}}
QUERY = "/?Action=SendMessage&QueueUrl=x"
"""May not be repeated, unless it is known that nothing was done."""


@pytest_asyncio.fixture
async def far() -> AsyncIterator[Http2Upstream]:
    async with Http2Upstream() as running:
        yield running


@pytest_asyncio.fixture
async def proxy(start: Start, far: Http2Upstream) -> Proxy:
    """All that it can send goes over HTTP/2."""
    running: Proxy = await start(far, **ALWAYS)
    return running


CONNECTION_SPECIFIC = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host", "te", "expect"}


async def test_requests_are_signed_for_the_authority_on_one_connection(proxy: Proxy, far: Http2Upstream) -> None:
    asked = [
        request("GET", "/a%20b?x=1&y=%2F"),
        request("POST", "/", "X-Amz-Target: AmazonSQS.ListQueues", "Connection: X-Gone, keep-alive", "X-Gone: 1", body=b"{}"),
        request("PUT", "/k", "Transfer-Encoding: chunked", "TE: trailers") + b"5\r\nhello\r\n0\r\n\r\n",
        request("DELETE", "/k", "Expect: 100-continue"),
    ]
    for raw in asked:
        response = await proxy.ask(raw)
        assert (response.status, response.body, response.get("x-sigward-attempts")) == (200, b"ok", "1")
    assert [received.method for received in far.received] == ["GET", "POST", "PUT", "DELETE"]
    assert [received.body for received in far.received] == [b"", b"{}", b"hello", b""]
    assert far.received[0].target == "/a%20b?x=1&y=%2F"
    for stream in far.streams_seen:
        assert_signed(stream.received(), HOST)
        names = [name for name, _ in stream.head]
        assert names[:4] == sorted(names[:4], key=[":method", ":scheme", ":authority", ":path"].index)
        assert not CONNECTION_SPECIFIC & set(names)
        assert "x-gone" not in names
    assert far.connections == 1


async def test_a_port_stands_in_the_authority_too(start: Start, far: Http2Upstream) -> None:
    routes = [{"host": "search.test", "service": "es", "upstream": f"https://localhost:{far.port}", "connect": f"127.0.0.1:{far.port}"}]
    proxy = await start(far, routes=routes, **ALWAYS)
    assert (await proxy.ask(request("GET", "/_search", host="search.test"))).status == 200
    assert_signed(far.received[0], f"localhost:{far.port}")


async def test_many_at_once_share_one_connection(proxy: Proxy, far: Http2Upstream) -> None:
    """From the first on: who comes while it is made waits for it."""
    count = 60
    all_there = asyncio.Event()

    async def together(stream: ServerStream) -> None:
        await stream.whole()
        await asyncio.wait_for(all_there.wait(), 20)
        stream.respond(200)
        await stream.send(stream.target.encode(), end=True)

    far.plans = [together] * count
    asking = [asyncio.create_task(proxy.ask(request("GET", f"/{number}"))) for number in range(count)]
    await far.wait_for(count)
    all_there.set()
    answers = await asyncio.gather(*asking)
    assert [answer.body for answer in answers] == [b"/%d" % number for number in range(count)]
    assert far.connections == 1


async def test_more_than_the_upstream_takes_at_once_wait(start: Start) -> None:
    """h2 ends a connection whose client opens more streams than it may."""
    together = asyncio.Barrier(3)

    async def meet(stream: ServerStream) -> None:
        await asyncio.wait_for(together.wait(), 20)
        await ok(stream)

    async with Http2Upstream(streams=3) as far:
        proxy = await start(far, **ALWAYS)
        await proxy.ask(request())
        far.plans = [meet] * 21
        answers = await asyncio.gather(*(proxy.ask(request("GET", f"/{number}")) for number in range(21)))
        assert [(answer.body, answer.get("x-sigward-attempts")) for answer in answers] == [(b"ok", "1")] * 21
        assert far.connections == 1


class Gate:
    """A TCP relay to an upstream that passes nothing on until it is opened; counts who connects."""

    def __init__(self, port: int) -> None:
        self.target, self.opened, self.connections = port, asyncio.Event(), 0
        self.arrived = asyncio.Condition()

    async def __aenter__(self) -> "Gate":
        self.server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port: int = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self.arrived:
            self.connections += 1
            self.arrived.notify_all()
        with contextlib.suppress(OSError):
            first = await reader.read(65536)
            await self.opened.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            far_writer.write(first)
            await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def wait_for(self, count: int) -> None:
        async with self.arrived:
            await asyncio.wait_for(self.arrived.wait_for(lambda: self.connections >= count), 10)


async def in_flight(proxy: Proxy, count: int) -> None:
    """Waits until so many requests are under way in the engine."""
    async with asyncio.timeout(10):
        while proxy.engine.in_flight() != count:
            await asyncio.sleep(0.01)


async def test_who_connects_for_all_may_leave(start: Start, far: Http2Upstream) -> None:
    """The next one connects then; the others do not fail."""
    proxy = await start(far, **ALWAYS)
    async with Gate(far.port) as gate:
        proxy.point_to(gate.port)
        async with connected(proxy.reverse) as (_, writer):
            writer.write(request("GET", "/leaves"))
            await gate.wait_for(1)
            others = [asyncio.create_task(proxy.ask(request("GET", f"/{number}"))) for number in range(5)]
            await in_flight(proxy, 6)
            assert gate.connections == 1, "each made a connection of its own"
            writer.transport.abort()
        gate.opened.set()
        answers = await asyncio.gather(*others)
        assert [(answer.status, answer.get("x-sigward-attempts")) for answer in answers] == [(200, "1")] * 5
        assert gate.connections <= 2
        assert "/leaves" not in [received.target for received in far.received] or gate.connections == 1


async def test_a_connection_that_cannot_be_made_fails_for_all_who_wait(start: Start, far: Http2Upstream) -> None:
    proxy = await start(far, retry={"mode": "off"}, timeouts={"connect": 0.5}, **ALWAYS)
    async with Gate(far.port) as gate:
        proxy.point_to(gate.port)
        answers = await asyncio.gather(*(proxy.ask(request("GET", f"/{number}")) for number in range(5)))
        assert {(answer.status, answer.get("x-sigward-error")) for answer in answers} == {(502, "connect-failed")}
        connections = gate.connections
        assert connections < 5, "each tried for itself, one after the other"
        gate.opened.set()
        assert (await proxy.ask(request())).status == 200, "a failure is not remembered"


@pytest.mark.parametrize("mode", ["always", "auto"])
async def test_an_upstream_of_http1_alone_is_used_as_one(start: Start, mode: str) -> None:
    """Side by side: nobody waits for another's connection there."""
    count = 6
    together = asyncio.Barrier(count)

    async def meet(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.wait_for(together.wait(), 20)
        writer.write(OK)

    async with Http2Upstream(protocols=("http/1.1",)) as far:
        proxy = await start(far, egress={"http2": mode})
        for turn in range(2):
            far.answers = [meet] * count
            answers = await asyncio.gather(*(proxy.ask(request("GET", f"/{turn}/{number}")) for number in range(count)))
            assert [answer.body for answer in answers] == [b"ok"] * count
        for received in far.received:
            assert_signed(received, HOST)
        assert far.connections == count


@pytest.mark.parametrize(("mode", "spoken"), [("always", "h2"), ("auto", "http/1.1"), ("never", "http/1.1")])
async def test_when_http2_is_offered(start: Start, far: Http2Upstream, mode: str, spoken: str) -> None:
    proxy = await start(far, egress={"http2": mode})
    assert (await proxy.ask(request())).body == b"ok"
    assert (len(far.peers), len(far.received)) == (1 if spoken == "h2" else 0, 1)


async def test_an_upgrade_goes_over_http1(proxy: Proxy, far: Http2Upstream) -> None:
    async def switch(_: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
        writer.write(await reader.readexactly(5))
        await writer.drain()

    far.answers = [switch]
    assert (await proxy.ask(request())).status == 200
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("GET", "/", "Connection: Upgrade", "Upgrade: echo"))
        assert (await asyncio.wait_for(read_response(reader), 10)).status == 101
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.readexactly(5), 10) == b"hello"
    assert (far.connections, len(far.peers)) == (2, 1)


async def test_trailers_both_ways(start: Start, far: Http2Upstream) -> None:
    async def trailed(stream: ServerStream) -> None:
        await stream.whole()
        stream.respond(200, ("trailer", "x-end"))
        await stream.send(b"abc")
        stream.end(("x-end", "y"))

    far.plans = [trailed]
    proxy = await start(far, body={"hold": 4}, **ALWAYS)
    async with http2(proxy, BUCKET_HOST) as client:
        unsigned = ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        number = client.send("PUT", "/k", BUCKET_HOST, b"hello", (("x-sum", "1"),), ("trailer", "x-sum"), unsigned)
        [stream] = await client.finished(number)
    assert (stream.headers[":status"], stream.body, stream.trailers) == ("200", b"abc", {"x-end": "y"})
    received = far.received[0]
    assert (received.body, received.trailers) == (b"hello", [("x-sum", "1")])
    assert_signed(received, BUCKET_HOST)


async def test_large_bodies_both_ways(start: Start, far: Http2Upstream) -> None:
    """Larger than every window."""
    proxy = await start(far, body={"hold": 4096}, **ALWAYS)
    up, down = hashlib.sha256(b"up").digest() * (1 << 17), hashlib.sha256(b"down").digest() * (1 << 18)

    async def both(stream: ServerStream) -> None:
        await stream.whole()
        stream.respond(200, ("content-length", str(len(down))))
        await stream.send(down, end=True)

    far.plans = [both]
    response = await proxy.ask(request("PUT", "/k", host=BUCKET_HOST, body=up), patience=60)
    assert (response.status, response.body == down) == (200, True)
    assert far.received[0].body == up
    assert far.received[0].get("content-length") == str(len(up))
    assert_signed(far.received[0], BUCKET_HOST)


async def test_an_upload_that_the_upstream_does_not_take_is_left_with_the_client(start: Start, far: Http2Upstream) -> None:
    """And holds up nothing else on the connection."""
    proxy = await start(far, body={"hold": 4096}, **ALWAYS)
    go_on = asyncio.Event()
    size = 24 << 20

    async def slow(stream: ServerStream) -> None:
        stream.holds_back = True
        await asyncio.wait_for(go_on.wait(), 20)
        stream.holds_back = False
        # The stream's part of what was not granted; the connection's window was never used up.
        stream.peer.http.increment_flow_control_window(size, stream.number)
        stream.peer.http.increment_flow_control_window(size)
        stream.peer.flush()
        await ok(stream)

    far.plans = [slow]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("PUT", "/k", f"Content-Length: {size}", host=BUCKET_HOST))
        sending = asyncio.create_task(pour(writer, size))
        await far.until(lambda far: far.streams_seen)
        stream = far.streams_seen[0]
        await stream.until(lambda: len(stream.body) == 65535)
        other = await proxy.ask(request("GET", "/other", host=HOST))
        assert other.body == b"ok"
        assert not sending.done(), "all of it was taken in although nobody read it"
        go_on.set()
        assert (await asyncio.wait_for(read_response(reader), 60)).body == b"ok"
        await sending
    assert len(stream.body) == size


async def pour(writer: asyncio.StreamWriter, size: int) -> None:
    for _ in range(0, size, 1 << 18):
        writer.write(b"x" * (1 << 18))
        await writer.drain()


async def reset(stream: ServerStream) -> None:
    await stream.whole()
    stream.refuse(h2.errors.ErrorCodes.INTERNAL_ERROR)


async def refuse(stream: ServerStream) -> None:
    await stream.whole()
    stream.refuse(h2.errors.ErrorCodes.REFUSED_STREAM)


@pytest.mark.fault("an HTTP/2 upstream that resets a stream", holds="repeated where that is safe, else told")
@pytest.mark.parametrize(
    ("plan", "method", "path", "status", "attempts"),
    [
        (reset, "GET", "/", 200, "2"),
        (reset, "POST", QUERY, 502, None),
        # Nothing was done, says RFC 9113, section 8.7.
        (refuse, "POST", QUERY, 200, "2"),
    ],
)
async def test_a_stream_that_is_reset(
    proxy: Proxy, far: Http2Upstream, plan: Any, method: str, path: str, status: int, attempts: str | None
) -> None:
    """Is tried again if that is safe; the connection goes on."""
    far.plans = [plan]
    response = await proxy.ask(request(method, path, body=b"x" if method == "POST" else b""))
    assert (response.status, response.get("x-sigward-error")) == (status, None if status == 200 else "connection-broken")
    if attempts:
        assert response.get("x-sigward-attempts") == attempts
    assert len(far.streams_seen) == (2 if status == 200 else 1)
    assert (await proxy.ask(request())).body == b"ok"
    assert far.connections == 1


@pytest.mark.fault("an HTTP/2 upstream that resets a stream within its answer", holds="the client sees that the answer is not whole")
async def test_an_answer_that_is_reset_breaks_off(proxy: Proxy, far: Http2Upstream) -> None:
    async def half(stream: ServerStream) -> None:
        await stream.whole()
        stream.respond(200, ("content-length", "1000"))
        await stream.send(b"x" * 500)
        stream.refuse(h2.errors.ErrorCodes.INTERNAL_ERROR)

    far.plans = [half]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request())
        with pytest.raises(asyncio.IncompleteReadError):
            await asyncio.wait_for(read_response(reader), 10)
    assert (await proxy.ask(request())).body == b"ok"
    assert far.connections == 1


async def test_after_goaway_the_next_request_has_a_new_connection(proxy: Proxy, far: Http2Upstream) -> None:
    """And what is under way comes to its end on the old one."""
    left, end = asyncio.Event(), asyncio.Event()

    async def leave(stream: ServerStream) -> None:
        await stream.whole()
        stream.respond(200)
        await stream.send(b"begun ")
        stream.peer.leave()
        left.set()
        await asyncio.wait_for(end.wait(), 20)
        await stream.send(b"ended", end=True)

    far.plans = [leave]
    under_way = asyncio.create_task(proxy.ask(request()))
    await asyncio.wait_for(left.wait(), 10)
    for _ in range(3):
        # What may not be repeated, too.
        response = await proxy.ask(request("POST", QUERY, body=b"x"))
        assert (response.status, response.get("x-sigward-attempts")) == (200, "1")
    end.set()
    assert (await under_way).body == b"begun ended"
    assert [stream.peer.number for stream in far.streams_seen] == [1, 2, 2, 2]


async def test_streams_behind_the_last_that_goaway_names_are_tried_again(proxy: Proxy, far: Http2Upstream) -> None:
    """Nothing was done of them, so whatever they are."""
    assert (await proxy.ask(request())).body == b"ok"

    async def not_this(stream: ServerStream) -> None:
        await stream.whole()
        stream.peer.leave(1)

    far.plans = [not_this]
    response = await proxy.ask(request("POST", QUERY, body=b"x"))
    assert (response.status, response.get("x-sigward-attempts")) == (200, "2")
    assert [stream.peer.number for stream in far.streams_seen] == [1, 1, 2]


async def test_a_connection_that_is_cut(proxy: Proxy, far: Http2Upstream) -> None:
    """What was under way on it fails, or is tried again where that is safe; what comes then is served."""

    async def cut(stream: ServerStream) -> None:
        await stream.whole()
        stream.peer.writer.transport.abort()

    far.plans = [cut]
    response = await proxy.ask(request())
    assert (response.status, response.get("x-sigward-attempts")) == (200, "2")
    far.plans = [cut]
    response = await proxy.ask(request("POST", QUERY, body=b"x"))
    assert (response.status, response.get("x-sigward-error")) == (502, "connection-broken")
    assert (await proxy.ask(request())).body == b"ok"
    assert far.connections == 3


async def test_a_client_that_leaves_has_its_stream_reset(proxy: Proxy, far: Http2Upstream) -> None:
    """Before the answer, or within it; the connection goes on."""
    heard = asyncio.Event()

    async def silent(stream: ServerStream) -> None:
        await stream.until(lambda: stream.reset is not None)
        heard.set()

    async def much(stream: ServerStream) -> None:
        await stream.whole()
        stream.respond(200)
        with contextlib.suppress(AssertionError):
            await stream.send(bytes(64 << 20))
        assert stream.reset is not None
        heard.set()

    for plan in (silent, much):
        heard.clear()
        far.plans = [plan]
        before = len(far.streams_seen)
        async with connected(proxy.reverse) as (reader, writer):
            writer.write(request())
            await far.until(lambda far, before=before: len(far.streams_seen) > before)
            if plan is much:
                await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            # Only so does the native front know it for gone.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        await asyncio.wait_for(heard.wait(), 10)
        await idle(proxy)
    assert (await proxy.ask(request())).body == b"ok"
    assert far.connections == 1


async def test_a_body_that_breaks_its_framing_is_the_clients_fault(start: Start, far: Http2Upstream) -> None:
    proxy = await start(far, body={"hold": 4}, **ALWAYS)
    far.plans = [silent_until_reset]
    head = request("PUT", "/k", "Transfer-Encoding: chunked", "x-amz-content-sha256: UNSIGNED-PAYLOAD", host=BUCKET_HOST)
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(head + b"5\r\nhello\r\n")
        await far.until(lambda far: far.streams_seen)
        writer.write(b"zz\r\n")
        response = await asyncio.wait_for(read_response(reader), 10)
    assert response.status == 400
    await far.streams_seen[0].until(lambda: far.streams_seen[0].reset is not None)
    assert len(far.streams_seen) == 1, "it was tried again"


async def silent_until_reset(stream: ServerStream) -> None:
    await stream.until(lambda: stream.reset is not None)


async def test_no_answer_in_time(start: Start, far: Http2Upstream) -> None:
    proxy = await start(far, timeouts={"head": 0.2}, retry={"mode": "off"}, **ALWAYS)
    far.plans = [silent_until_reset]
    response = await proxy.ask(request())
    assert (response.status, response.get("x-sigward-error")) == (504, "head-timeout")
    await far.streams_seen[0].until(lambda: far.streams_seen[0].reset is not None)


async def test_an_idle_connection_is_closed(start: Start, far: Http2Upstream) -> None:
    """After `pool_idle`; one that is in use is not."""
    proxy = await start(far, timeouts={"pool_idle": 0.2}, **ALWAYS)
    end = asyncio.Event()

    async def long(stream: ServerStream) -> None:
        await stream.whole()
        stream.respond(200)
        await stream.send(b"begun ")
        await asyncio.wait_for(end.wait(), 20)
        await stream.send(b"ended", end=True)

    assert (await proxy.ask(request())).body == b"ok"
    await far.until(lambda far: far.peers[0].closed)
    far.plans = [long]
    asking = asyncio.create_task(proxy.ask(request()))
    await far.until(lambda far: len(far.streams_seen) == 2)
    # One that was used later, and is closed: the other's time is over, too.
    assert (await proxy.ask(request(host=BUCKET_HOST))).body == b"ok"
    await far.until(lambda far: far.peers[2].closed)
    end.set()
    assert (await asking).body == b"begun ended"
    await far.until(lambda far: far.peers[1].closed)


@pytest.mark.fault("SIGHUP with calls in flight over HTTP/2", holds="they end in good order")
async def test_settings_that_change_let_what_is_under_way_end(start: Start, far: Http2Upstream) -> None:
    proxy = await start(far, **ALWAYS)
    end = asyncio.Event()

    async def long(stream: ServerStream) -> None:
        await stream.whole()
        stream.respond(200)
        await stream.send(b"begun ")
        await asyncio.wait_for(end.wait(), 20)
        await stream.send(b"ended", end=True)

    far.plans = [long]
    asking = asyncio.create_task(proxy.ask(request()))
    await far.until(lambda far: far.streams_seen)
    proxy.point_to(far.port, egress={"http2": "never"})
    assert (await proxy.ask(request("GET", "/new"))).body == b"ok"
    end.set()
    assert (await asking).body == b"begun ended"
    assert (len(far.peers), far.connections) == (1, 2)
    await far.until(lambda far: far.peers[0].closed)


@pytest.mark.parametrize("mode", ["auto", "always"])
async def test_event_streams_go_both_ways_at_once(start: Start, far: Http2Upstream, mode: str) -> None:
    """Each message is answered before the next is sent."""
    turns = 3

    async def talk(stream: ServerStream) -> None:
        stream.respond(200, ("content-type", "application/vnd.amazon.eventstream"))
        for turn in range(1, turns + 1):
            await stream.until(lambda turn=turn: heard(bytes(stream.body)) >= turn)
            await stream.send(message(b"", b"heard %d" % turn))
        await stream.whole()
        stream.end()

    far.plans = [talk]
    routes = [{"host": "*.amazonaws.com", "service": "transcribe", "connect": f"127.0.0.1:{far.port}"}]
    proxy = await start(far, routes=routes, egress={"http2": mode})
    spoken = message(b"", b"audio")
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("POST", "/stream", "Content-Type: application/vnd.amazon.eventstream", "Transfer-Encoding: chunked"))
        writer.write(b"%x\r\n%b\r\n" % (len(spoken), spoken))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 200")
        for turn in range(1, turns + 1):
            answer = message(b"", b"heard %d" % turn)
            assert await asyncio.wait_for(reader.readuntil(answer + b"\r\n"), 10)
            if turn < turns:
                writer.write(b"%x\r\n%b\r\n" % (len(spoken), spoken))
        writer.write(b"0\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 10)).endswith(b"0\r\n\r\n")
    assert len(far.peers) == 1
    assert far.received[0].get("x-amz-content-sha256") == "STREAMING-AWS4-HMAC-SHA256-EVENTS"
    assert [payload for _, payload in messages(far.received[0].body)] == [spoken] * turns + [b""]


def heard(body: bytes) -> int:
    """Whole messages in it."""
    count = 0
    while len(body) >= 4 and len(body) >= (size := int.from_bytes(body[:4])):
        count, body = count + 1, body[size:]
    return count


async def test_a_certificate_that_is_not_trusted_is_told_to_all(start: Start, far: Http2Upstream) -> None:
    async with Upstream() as other:
        proxy = await start(other, **ALWAYS)
        # The same settings, but for whom they trust.
        proxy.point_to(far.port)
        answers = await asyncio.gather(*(proxy.ask(request("GET", f"/{number}")) for number in range(3)))
        assert {(answer.status, answer.get("x-sigward-error")) for answer in answers} == {(502, "tls-failed")}
