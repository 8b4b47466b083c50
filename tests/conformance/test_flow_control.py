"""Memory per request is bounded: who does not read holds back who writes, stream by stream."""

import asyncio
import contextlib

import pytest
from mitmproxy import http

from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_hooks import Hook, idle
from tests.conformance.test_http2 import Http2Client, http2
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import Received, Upstream, connected, read_response

MUCH = 64 << 20
"""More than sockets and queues hold."""


class Source:
    """Answers with MUCH, and counts what it could write."""

    def __init__(self) -> None:
        self.written = 0
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, _: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        piece = b"x" * (1 << 18)
        try:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % MUCH)
            self.began.set()
            while self.written < MUCH:
                writer.write(piece)
                await writer.drain()
                self.written += len(piece)
        finally:
            self.ended.set()

    async def stalled(self) -> int:
        """What was written when nothing more could be."""
        await asyncio.wait_for(self.began.wait(), 10)
        while True:
            before = self.written
            try:
                await asyncio.wait_for(asyncio.shield(self.ended.wait()), 0.5)
            except TimeoutError:
                if self.written == before and before:
                    return before
            else:
                return self.written


@pytest.mark.fault("a client that does not read its answer", holds="the upstream is held back; nothing is piled up")
async def test_an_http1_client_that_does_not_read_holds_the_answer_back(proxy: Proxy) -> None:
    source = Source()
    proxy.upstream.answers = [source]
    reader, writer = await asyncio.open_connection(*proxy.reverse, limit=1 << 16)
    writer.write(request("GET", "/k", host=BUCKET_HOST))
    assert await source.stalled() < MUCH // 2
    assert len((await reader.readuntil(b"\r\n\r\n")) + await reader.readexactly(MUCH)) > MUCH
    writer.close()


@pytest.mark.fault("a client that does not read its answer", holds="the upstream is held back; nothing is piled up")
async def test_an_http2_client_that_opens_no_window_holds_the_answer_back(proxy: Proxy) -> None:
    """Its socket takes everything, so only HTTP/2's own window says that it does not read."""
    source = Source()
    proxy.upstream.answers = [source]
    async with proxy.tunnel(f"{BUCKET_HOST}:443", BUCKET_HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        number = client.send("GET", "/k", BUCKET_HOST)
        assert await source.stalled() < MUCH // 2
        # Another stream is not held up by it. Windows are per stream and per connection: this one is empty.
        other = client.send("DELETE", "/other", BUCKET_HOST)
        proxy.upstream.answers = [b"HTTP/1.1 204 No Content\r\n\r\n"]
        # From here on it reads.
        [stream, second] = await client.finished(number, other)
    assert len(stream.body) == MUCH
    assert second.headers[":status"] == "204"


async def test_an_http2_client_that_leaves_while_its_window_is_full_ends_the_job(proxy: Proxy) -> None:
    source = Source()
    proxy.upstream.answers = [source]
    async with proxy.tunnel(f"{BUCKET_HOST}:443", BUCKET_HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        client.send("GET", "/k", BUCKET_HOST)
        assert await source.stalled() < MUCH // 2
    await idle(proxy)
    await asyncio.wait_for(source.ended.wait(), 10)
    assert not proxy.busy()


async def test_an_http2_upload_that_is_held_back_does_not_hold_other_streams(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, body={"hold": 1000})
    gate = asyncio.Event()

    async def stubborn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"PUT"):
            await gate.wait()
            await reader.readexactly(MUCH)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(stubborn, "127.0.0.1", 0, ssl=upstream.context)
    proxy.point_to(server.sockets[0].getsockname()[1])
    with contextlib.closing(server):
        async with proxy.tunnel(f"{BUCKET_HOST}:443", BUCKET_HOST, ["h2"]) as (reader, writer):
            client = Http2Client(reader, writer)
            upload = client.begin("PUT", "/k", BUCKET_HOST, ("content-length", str(MUCH)))
            sent = await client.upload(upload, MUCH, patience=0.5)
            assert sent < MUCH // 2, "the whole upload was taken in although nobody read it"
            [other] = await client.finished(client.send("GET", "/other", BUCKET_HOST))
            assert other.body == b"ok"
            gate.set()
            assert await client.upload(upload, MUCH - sent, patience=20) == MUCH - sent
            client.end(upload)
            [stream] = await client.finished(upload)
            assert stream.body == b"ok"


@pytest.mark.fault("answers on a connection that their client does not read yet", holds="the others on that connection come through")
async def test_unread_answers_hold_up_no_other(proxy: Proxy) -> None:
    """More of them than the connection's part of what may be ahead has room for."""
    window, count = 65535, 30

    async def much(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % MUCH)
        for _ in range(0, MUCH, 1 << 16):
            writer.write(bytes(1 << 16))
            await writer.drain()

    proxy.upstream.answers = [much] * count
    async with http2(proxy, BUCKET_HOST, window=window) as client:
        client.connection.increment_flow_control_window(100 << 20)
        client.flush()
        numbers = [client.send("GET", f"/{number}", BUCKET_HOST) for number in range(count)]
        while not all(len(client.streams[number].body) == window for number in numbers):
            await asyncio.wait_for(client.read(), 10)
        [small] = await client.finished(client.send("GET", "/small", BUCKET_HOST))
        assert small.body == b"ok"


@pytest.mark.mitmproxy("it reads ahead; the native one leaves what is early in the socket")
async def test_a_client_that_sends_far_ahead_of_its_answer_is_cut_off(proxy: Proxy) -> None:
    waiting = asyncio.Event()

    async def silent(_: Received, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        waiting.set()
        await reader.read(1)

    proxy.upstream.answers = [silent]
    async with connected(proxy.reverse) as (_, writer):
        writer.write(request())
        await asyncio.wait_for(waiting.wait(), 10)
        sent = 0
        with contextlib.suppress(OSError):
            while sent < MUCH:
                writer.write(b"GET / HTTP/1.1\r\n" * 4096)
                await asyncio.wait_for(writer.drain(), 10)
                sent += 16 * 4096
        assert sent < MUCH
    await idle(proxy)


async def test_a_next_request_that_is_already_there_is_served(proxy: Proxy) -> None:
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request(path="/1") + request("POST", "/2", body=b"b") + request(path="/3"))
        for _ in range(3):
            assert (await asyncio.wait_for(read_response(reader), 10)).body == b"ok"
    assert [received.target for received in proxy.upstream.received] == ["/1", "/2", "/3"]


@pytest.mark.fault("an answer of unknown length that breaks off", holds="it does not look complete")
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_answer_of_unknown_length_that_breaks_off_does_not_look_complete(proxy: Proxy, version: str) -> None:
    """To an HTTP/1.0 client the end of the connection is the end of the answer: it must not end in good order."""

    async def break_off(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await writer.drain()
        writer.transport.abort()

    proxy.upstream.answers = [break_off]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request(host=HOST).replace(b"HTTP/1.1", b"HTTP/" + version.encode(), 1))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(read_response(reader), 10)


async def test_an_http1_0_client_gets_an_answer_of_unknown_length(proxy: Proxy) -> None:
    proxy.upstream.answers = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
    response = await proxy.ask(request().replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    assert (response.body, response.get("transfer-encoding")) == (b"abc", None)


@pytest.mark.parametrize("hooked", [False, pytest.param(True, marks=pytest.mark.mitmproxy("hooks are mitmproxy's"))])
async def test_an_http2_client_may_send_on_after_an_early_answer_without_reading(start: Start, upstream: Upstream, hooked: bool) -> None:
    """As curl does: it has its answer, and reads no window updates any more."""

    def refuse(flow: http.HTTPFlow) -> None:
        flow.response = http.Response.make(403, b"early")

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 5\r\n\r\nearly")
        await writer.drain()
        await reader.read()
        writer.close()

    proxy = await start(upstream, body={"hold": 1000}, addons=(Hook("requestheaders", refuse),) if hooked else ())
    server = await asyncio.start_server(early, "127.0.0.1", 0, ssl=upstream.context)
    proxy.point_to(server.sockets[0].getsockname()[1])
    with contextlib.closing(server):
        async with proxy.tunnel(f"{BUCKET_HOST}:443", BUCKET_HOST, ["h2"]) as (reader, writer):
            client = Http2Client(reader, writer)
            number = client.begin("PUT", "/k", BUCKET_HOST, ("content-length", str(MUCH)))
            async with asyncio.timeout(10):
                # The answer may come only when some of the body has.
                sent = await client.upload(number, 100_000, patience=10)
                while client.streams[number].body != b"early":
                    await client.read()
            assert client.streams[number].headers[":status"] == "403"
            assert client.connection.local_flow_control_window(number) >= MUCH - sent, "it would have to read, to send the rest"
            assert await client.upload(number, MUCH - sent, patience=10) == MUCH - sent
            client.end(number)
            await client.finished(number)
            [stream] = await client.finished(client.send("GET", "/other", BUCKET_HOST))
            assert stream.body == b"early"
