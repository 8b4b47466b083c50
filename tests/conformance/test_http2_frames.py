"""HTTP/2 frame by frame: windows, resets, large heads, many streams, and frames that no peer may send."""

import asyncio
import contextlib
import resource
import struct
from collections.abc import Iterator

import h2.settings
import pytest

from sigward.mitm import Front
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_hooks import idle
from tests.conformance.test_http2 import Stream, http2
from tests.conformance.test_requests import BUCKET_HOST
from tests.support import OK, Received, Upstream, assert_signed

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
CANCEL = 8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113, section 4.1."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def setting(name: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, struct.pack(">HI", name, value))


BLOCK = b"\x82\x87\x84\x01" + bytes([len(HOST)]) + HOST.encode()
"""GET, https, /, and the authority, without Huffman's code (RFC 7541, appendix A)."""

MALFORMED = {
    "DATA on no stream": frame(DATA, END_STREAM, 0, b"x"),
    "DATA on an idle stream": frame(DATA, END_STREAM, 1, b"x"),
    "HEADERS on no stream": frame(HEADERS, END_HEADERS | END_STREAM, 0, BLOCK),
    "HEADERS on a stream of the server's": frame(HEADERS, END_HEADERS | END_STREAM, 2, BLOCK),
    "HEADERS with too much padding": frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, b"\xff" + BLOCK),
    "a stream behind a later one": frame(HEADERS, END_HEADERS, 3, BLOCK) + frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK),
    "RST_STREAM on no stream": frame(RST_STREAM, 0, 0, b"\0\0\0\x08"),
    "RST_STREAM on an idle stream": frame(RST_STREAM, 0, 1, b"\0\0\0\x08"),
    "RST_STREAM of 3 bytes": frame(HEADERS, END_HEADERS, 1, BLOCK) + frame(RST_STREAM, 0, 1, b"\0\0\0"),
    "SETTINGS on a stream": frame(SETTINGS, 0, 1),
    "SETTINGS of 5 bytes": frame(SETTINGS, 0, 0, b"\0" * 5),
    "SETTINGS that acknowledge, with a payload": frame(SETTINGS, 1, 0, b"\0" * 6),
    "a window of 2^31": setting(4, 2**31),
    "a push setting of 2": setting(2, 2),
    "a frame size of 1": setting(5, 1),
    "PUSH_PROMISE": frame(HEADERS, END_HEADERS, 1, BLOCK) + frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + BLOCK),
    "PING of 7 bytes": frame(PING, 0, 0, b"\0" * 7),
    "PING on a stream": frame(PING, 0, 1, b"\0" * 8),
    "GOAWAY on a stream": frame(GOAWAY, 0, 1, b"\0" * 8),
    "WINDOW_UPDATE of 0": frame(WINDOW_UPDATE, 0, 0, b"\0" * 4),
    "WINDOW_UPDATE of 3 bytes": frame(WINDOW_UPDATE, 0, 0, b"\0" * 3),
    "WINDOW_UPDATE past 2^31": frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
    "CONTINUATION alone": frame(CONTINUATION, END_HEADERS, 1, BLOCK),
    "DATA within a head": frame(HEADERS, END_STREAM, 1, BLOCK[:2]) + frame(DATA, END_STREAM, 1, b"x"),
    "another stream within a head": frame(HEADERS, END_STREAM, 1, BLOCK[:2]) + frame(HEADERS, END_HEADERS | END_STREAM, 3, BLOCK),
    "a frame too large": frame(HEADERS, END_HEADERS, 1, BLOCK) + frame(DATA, END_STREAM, 1, b"x" * 300_000),
    "HPACK: an index of 0": frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x80"),
    "HPACK: an index of nothing": frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xfe"),
    "HPACK: a number without end": frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff" * 20),
    "HPACK: a string longer than the head": frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK[:-1]),
    "HPACK: a table too large": frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x3f\xe1\xff\xff\x0f" + BLOCK),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_frame_ends_the_connection(proxy: Proxy, name: str) -> None:
    async with http2(proxy) as client:
        await client.echo()
        client.writer.write(MALFORMED[name])
        client.streams[1] = client.streams[3] = Stream()
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                while data := await client.reader.read(65536):
                    for event in client.connection.receive_data(data):
                        client._take(event)
        assert client.terminated, "it is told why"
    await idle(proxy)
    assert proxy.upstream.received == []


async def test_frames_that_mean_nothing_are_passed_over(proxy: Proxy) -> None:
    async with http2(proxy) as client:
        client.writer.write(frame(0x42, 0xFF, 0, b"?") + frame(0x42, 0xFF, 1, b"?") + setting(0x4242, 1))
        client.writer.write(frame(PRIORITY, 0, 5, b"\0\0\0\0\x10") + frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1"))
        await client.echo()
        [stream] = await client.finished(client.send("GET", "/", HOST))
    assert stream.body == b"ok"


async def test_a_head_without_end_is_cut_off(proxy: Proxy) -> None:
    """CVE-2024-27316 and its kin: CONTINUATION after CONTINUATION."""
    most = 64 << 20
    async with http2(proxy) as client:
        await client.echo()
        client.writer.write(frame(HEADERS, END_STREAM, 1, BLOCK))
        piece = frame(CONTINUATION, 0, 1, b"\x00\x03x-a\x7f\x81\x7e" + b"a" * 253) * 64
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < most and not client.writer.transport.is_closing():
                client.writer.write(piece)
                await asyncio.wait_for(client.writer.drain(), 10)
                await asyncio.sleep(0)
                sent += len(piece)
        assert sent < most
    assert proxy.upstream.received == []


@pytest.mark.fault("HTTP/2 clients that reset what they have just asked", holds="nothing is left behind")
async def test_requests_that_are_reset_at_once_leave_nothing_behind(proxy: Proxy) -> None:
    """CVE-2023-44487. The connection may be ended for it; others are served."""
    async with http2(proxy) as client:
        with contextlib.suppress(ConnectionError):
            for number in range(1, 1000, 2):
                client.writer.write(frame(HEADERS, END_HEADERS | END_STREAM, number, BLOCK) + frame(RST_STREAM, 0, number, b"\0\0\0\x08"))
                await client.writer.drain()
        await idle(proxy)
    async with http2(proxy) as client:
        [stream] = await client.finished(client.send("GET", "/", HOST))
        assert stream.body == b"ok"


async def test_an_answer_through_a_window_of_one_byte(proxy: Proxy) -> None:
    body = bytes(range(50))
    proxy.upstream.answers = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n32\r\n" + body + b"\r\n0\r\nx: y\r\n\r\n"]
    async with http2(proxy, window=1) as client:
        number = client.send("GET", "/", HOST)
        stream = client.streams[number]
        for size in range(1, len(body) + 1):
            while len(stream.body) < size:
                await asyncio.wait_for(client.read(), 10)
            if size < len(body):
                client.grant(number, 1)
        await client.finished(number)
    assert (bytes(stream.body), stream.trailers) == (body, {"x": "y"})
    assert max(stream.pieces) == 1


async def test_an_answer_waits_for_its_window(proxy: Proxy) -> None:
    proxy.upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789"]
    async with http2(proxy, window=0) as client:
        number = client.send("GET", "/", HOST)
        stream = client.streams[number]
        while not stream.headers:
            await asyncio.wait_for(client.read(), 10)
        await client.echo()
        assert stream.pieces == []
        client.grant(number, 7)
        while len(stream.body) < 7:
            await asyncio.wait_for(client.read(), 10)
        await client.echo()
        assert bytes(stream.body) == b"0123456"
        # A larger window by SETTINGS counts for streams that are open (RFC 9113, section 6.9.2).
        client.connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 100})
        client.flush()
        await client.finished(number)
    assert bytes(stream.body) == b"0123456789"


async def test_an_upload_past_its_window_is_refused(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, body={"hold": 1000})
    over = asyncio.Event()

    async def stubborn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await over.wait()
        writer.close()

    server = await asyncio.start_server(stubborn, "127.0.0.1", 0, ssl=upstream.context)
    proxy.point_to(server.sockets[0].getsockname()[1])
    most = 64 << 20
    with contextlib.closing(server):
        async with http2(proxy, BUCKET_HOST) as client:
            number = client.begin("PUT", "/k", BUCKET_HOST, ("content-length", str(most)))
            settled = asyncio.create_task(client.settled(number))
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < most and not settled.done():
                    client.writer.write(frame(DATA, 0, number, b"x" * 16384))
                    await asyncio.wait_for(client.writer.drain(), 10)
                    await asyncio.sleep(0)
                    sent += 16384
            stream = await settled
            # FLOW_CONTROL_ERROR; h2 says PROTOCOL_ERROR (RFC 9113, section 5.4: any code will do).
            assert {client.terminated, stream.reset} & {1, 3}
        over.set()
    await idle(proxy)


async def test_a_stream_that_is_reset_during_its_upload_ends_it_for_the_upstream(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, body={"hold": 1000})
    size, began = 1 << 20, asyncio.Event()
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        first = await reader.read(1000)
        began.set()
        rest = b""
        with contextlib.suppress(OSError):
            rest = await reader.read()
        got.set_result(first + rest)
        writer.close()

    server = await asyncio.start_server(reading, "127.0.0.1", 0, ssl=upstream.context)
    proxy.point_to(server.sockets[0].getsockname()[1])
    with contextlib.closing(server):
        async with http2(proxy, BUCKET_HOST) as client:
            number = client.begin("PUT", "/k", BUCKET_HOST, ("content-length", str(size)))
            assert await client.upload(number, 50_000, patience=10) == 50_000
            await asyncio.wait_for(began.wait(), 10)
            client.connection.reset_stream(number, CANCEL)
            client.flush()
            assert len(await asyncio.wait_for(got, 10)) < size
            await idle(proxy)
            proxy.point_to(upstream.port)
            [other] = await client.finished(client.send("GET", "/", BUCKET_HOST))
            assert other.body == b"ok"


async def test_a_stream_that_is_reset_during_its_answer_ends_it_for_the_upstream(proxy: Proxy) -> None:
    ended = asyncio.Event()

    async def endless(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while not writer.transport.is_closing():
                writer.write(b"x" * 65536)
                await writer.drain()
                await asyncio.sleep(0)
        finally:
            ended.set()

    proxy.upstream.answers = [endless]
    async with http2(proxy) as client:
        number = client.send("GET", "/", HOST)
        while len(client.streams[number].body) < 200_000:
            await asyncio.wait_for(client.read(), 10)
        client.connection.reset_stream(number, CANCEL)
        client.flush()
        await asyncio.wait_for(ended.wait(), 10)
        await idle(proxy)
        [other] = await client.finished(client.send("GET", "/", HOST))
        assert other.body == b"ok"


async def test_a_client_that_says_goodbye_gets_what_it_asked_for(proxy: Proxy) -> None:
    go = asyncio.Event()

    async def answer(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(OK)

    proxy.upstream.answers = [answer]
    async with http2(proxy) as client:
        number = client.send("GET", "/", HOST)
        await proxy.upstream.wait_for(1)
        # h2 would take its own GOAWAY for the end.
        client.writer.write(frame(GOAWAY, 0, 0, b"\0" * 8))
        if isinstance(proxy.front, Front):
            # mitmproxy, and h2 in it, take GOAWAY for the end of all streams.
            with contextlib.suppress(AssertionError):
                await client.settled(number)
            assert not client.streams[number].headers
            await idle(proxy)
            return
        go.set()
        [stream] = await client.finished(number)
        assert stream.body == b"ok"
        assert await asyncio.wait_for(client.reader.read(), 10) is not None


@pytest.fixture
def many_sockets() -> Iterator[None]:
    """As many as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_sockets")
async def test_a_thousand_streams_at_once(start: Start, upstream: Upstream) -> None:
    """None is answered before the upstream has them all."""
    # A thousand handshakes take an upstream in Python its time.
    proxy = await start(upstream, timeouts={"connect": 60})
    there = 1000
    all_there = asyncio.Event()

    async def answer(received: Received, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(proxy.upstream.received) >= there:
            all_there.set()
        await all_there.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(received.body) + received.body)

    proxy.upstream.answers = [answer] * there
    async with http2(proxy) as client:
        await client.echo()
        assert client.connection.remote_settings.max_concurrent_streams >= there
        bodies = {client.send("POST", "/", HOST, b"body %d" % number): b"body %d" % number for number in range(there)}
        async with asyncio.timeout(60):
            while not all(stream.ended for stream in client.streams.values()):
                await client.read()
    assert {number: bytes(stream.body) for number, stream in client.streams.items()} == bodies
    assert sorted(received.body for received in proxy.upstream.received) == sorted(bodies.values())


@pytest.mark.parametrize("sizes", [(20_000,), (60_000,), (500,) * 100])
async def test_large_heads_both_ways(proxy: Proxy, sizes: tuple[int, ...]) -> None:
    """More than one frame holds."""
    fields = [(f"x-{number}", "a" * size) for number, size in enumerate(sizes)]
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    proxy.upstream.answers = [f"HTTP/1.1 200 OK\r\n{lines}content-length: 2\r\n\r\nok".encode()]
    async with http2(proxy) as client:
        [stream] = await client.finished(client.send("GET", "/", HOST, b"", (), *fields))
    assert stream.headers.get(":status") == "200"
    [received] = proxy.upstream.received
    for name, value in fields:
        assert (received.get(name), stream.headers[name]) == (value, value)
    assert_signed(received, HOST)


async def test_a_head_too_large_is_refused_and_others_are_served(proxy: Proxy) -> None:
    async with http2(proxy) as client:
        number = client.send("GET", "/", HOST, b"", (), ("x-a", "a" * 70_000))
        stream = await client.settled(number)
        assert client.terminated or stream.reset is not None or stream.headers[":status"] == "431"
    async with http2(proxy) as client:
        [stream] = await client.finished(client.send("GET", "/", HOST))
        assert stream.body == b"ok"
    assert len(proxy.upstream.received) == 1
