"""How tunnels and the proxy itself end."""

import asyncio
import contextlib
import zlib

import pytest

from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_hooks import idle
from tests.conformance.test_http2 import Http2Client
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import Received, Upstream, assert_signed, connected, read_response

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: %s\r\nConnection: Upgrade\r\n\r\n"
WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
"""A client's Close frame, code 1000, masked with zeros."""


KEEPS = {
    "HTTP/1.1": ("1.1", (), True),
    "HTTP/1.1, keep-alive": ("1.1", ("Connection: keep-alive",), True),
    "HTTP/1.1, close": ("1.1", ("Connection: close",), False),
    "HTTP/1.1, Close among others": ("1.1", ("Connection: x-gone, Close",), False),
    "HTTP/1.1, close on a second line": ("1.1", ("Connection: x-gone", "Connection: close"), False),
    "HTTP/1.0": ("1.0", (), False),
    "HTTP/1.0, keep-alive": ("1.0", ("Connection: Keep-Alive",), True),
    "HTTP/1.0, close": ("1.0", ("Connection: close",), False),
}
OUTCOMES = {"answered": "/", "denied": "/denied", "failed upstream": "/failed"}


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("keeps", KEEPS)
async def test_a_clients_connection_is_kept_or_closed(start: Start, upstream: Upstream, keeps: str, outcome: str) -> None:
    """As the client says, whatever became of its request. What it says twice at once is not lost by that, nor served too much."""
    version, headers, kept = KEEPS[keeps]
    routes = [{"host": HOST, "path": "/denied", "action": "deny"}, {"host": "*", "connect": f"127.0.0.1:{upstream.port}"}]
    proxy = await start(upstream, routes=routes, retry={"mode": "off"})
    if outcome == "failed upstream":
        upstream.answers = [b"not HTTP\r\n\r\n"]
    raw = request("GET", OUTCOMES[outcome], *headers).replace(b"HTTP/1.1", b"HTTP/" + version.encode(), 1)
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(raw + request("GET", "/next", "Connection: close"))
        first = await asyncio.wait_for(read_response(reader), 10)
        assert (first.status, first.get("x-sigward-error") is None) == {
            "answered": (200, True),
            "denied": (403, False),
            "failed upstream": (502, False),
        }[outcome]
        told = (first.get("connection") or "").lower()
        if kept:
            # An HTTP/1.0 client takes it for closed unless it is told otherwise (RFC 9112, appendix C.2.2).
            assert told == ("keep-alive" if version == "1.0" else "") or (told == "keep-alive" and "keep-alive" in keeps)
            assert (await asyncio.wait_for(read_response(reader), 10)).status == 200
        elif version == "1.1":
            assert told == "close"
        assert await asyncio.wait_for(reader.read(), 10) == b""
    await idle(proxy)
    assert [received.target for received in upstream.received if received.target == "/next"] == ["/next"] * kept


async def test_an_upstream_that_closes_does_not_close_the_clients_connection(proxy: Proxy) -> None:
    for headers in (b"connection: close\r\n", b"connection: x-gone, Close\r\n"):
        proxy.upstream.answers.append(b"HTTP/1.1 200 OK\r\n" + headers + b"content-length: 2\r\n\r\nok")
    proxy.upstream.answers.append(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok")
    async with connected(proxy.reverse) as (reader, writer):
        for _ in range(4):
            writer.write(request())
            response = await asyncio.wait_for(read_response(reader), 10)
            assert (response.body, response.get("connection")) == (b"ok", None)
    assert [received.connection for received in proxy.upstream.received] == [1, 2, 3, 4]


async def test_much_that_is_sent_ahead_is_answered_in_order(proxy: Proxy) -> None:
    """More requests than one read takes in, bodies among them."""
    count = 200
    raw = b"".join(request("POST", f"/{number}", body=b"%d" % number * 200) for number in range(count))
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(raw)
        for _ in range(count):
            assert (await asyncio.wait_for(read_response(reader), 10)).status == 200
    assert [received.target for received in proxy.upstream.received] == [f"/{number}" for number in range(count)]
    assert [received.body for received in proxy.upstream.received] == [b"%d" % number * 200 for number in range(count)]


@pytest.mark.mitmproxy("it ends WebSockets itself; the native one passes their bytes on")
async def test_a_websocket_close_frame_reaches_the_upstream(proxy: Proxy) -> None:
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def peer(_: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH % b"websocket")
        got.set_result(await reader.read())

    proxy.upstream.answers = [peer]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("GET", "/", *WEBSOCKET))
        assert (await read_response(reader)).status == 101
        writer.write(b"\x82\x85\x00\x00\x00\x00hello" + CLOSE)
        assert await asyncio.wait_for(reader.readexactly(4), 10) == b"\x88\x02\x03\xe8"
    frames = await asyncio.wait_for(got, 10)
    assert frames[0] == 0x82, "the message that came before"
    assert b"\x88" in frames[6:], "and the close"
    await idle(proxy)


@pytest.mark.mitmproxy("it ends WebSockets itself; the native one passes their bytes on")
async def test_a_websocket_that_the_upstream_closes_is_closed_for_the_client(proxy: Proxy) -> None:
    async def peer(_: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH % b"websocket" + b"\x88\x02\x03\xe9")
        await writer.drain()
        await reader.read()

    proxy.upstream.answers = [peer]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("GET", "/", *WEBSOCKET))
        assert (await read_response(reader)).status == 101
        assert await asyncio.wait_for(reader.read(), 10) == b"\x88\x02\x03\xe9"
    await idle(proxy)


async def test_a_client_that_drops_a_websocket_ends_the_job(proxy: Proxy) -> None:
    ended = asyncio.Event()

    async def peer(_: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH % b"websocket")
        with contextlib.suppress(OSError):
            await reader.read()
        ended.set()

    proxy.upstream.answers = [peer]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("GET", "/", *WEBSOCKET))
        assert (await read_response(reader)).status == 101
        writer.transport.abort()
    await asyncio.wait_for(ended.wait(), 10)
    await idle(proxy)


async def test_another_protocol_is_passed_as_bytes(proxy: Proxy) -> None:
    async def peer(_: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH % b"raw" + b"first")
        writer.write((await reader.readexactly(4)).upper())
        await writer.drain()
        writer.close()

    proxy.upstream.answers = [peer]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("GET", "/", "Connection: Upgrade", "Upgrade: raw"))
        response = await read_response(reader)
        assert (response.status, response.get("upgrade")) == (101, "raw")
        assert await asyncio.wait_for(reader.readexactly(5), 10) == b"first"
        writer.write(b"ping")
        assert await asyncio.wait_for(reader.read(), 10) == b"PING"
    assert_signed(proxy.upstream.received[0], HOST)
    await idle(proxy)


async def test_much_data_through_a_tunnel_both_ways(proxy: Proxy) -> None:
    size = 8 << 20

    async def peer(_: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH % b"raw")
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    proxy.upstream.answers = [peer]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("GET", "/", "Connection: Upgrade", "Upgrade: raw"))
        assert (await read_response(reader)).status == 101
        writing = asyncio.create_task(write_all(writer, size))
        assert len(await asyncio.wait_for(reader.readexactly(size), 30)) == size
        await writing


async def write_all(writer: asyncio.StreamWriter, size: int) -> None:
    for _ in range(size >> 16):
        writer.write(b"x" * 65536)
        await writer.drain()


async def test_a_refused_upgrade_is_an_ordinary_answer(proxy: Proxy) -> None:
    proxy.upstream.answers = [b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno"]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("GET", "/", *WEBSOCKET))
        assert (await read_response(reader)).body == b"no"
        writer.write(request())
        assert (await read_response(reader)).body == b"ok"


class Release:
    """An answer that waits."""

    def __init__(self, body: bytes = b"late") -> None:
        self.go = asyncio.Event()
        self.body = body

    async def __call__(self, _: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(self.body) + self.body)
        await writer.drain()


async def refuses(address: tuple[str, int]) -> None:
    """Waits until a listener takes no more connections."""
    async with asyncio.timeout(10):
        with contextlib.suppress(OSError):
            while True:
                _, writer = await asyncio.open_connection(*address)
                writer.close()
                await asyncio.sleep(0.01)


async def test_drain_lets_an_upload_that_is_coming_in_finish(start: Start, upstream: Upstream) -> None:
    """The engine does not know of it yet: its body is still being read."""
    proxy = await start(upstream, grace=10.0)
    address = proxy.reverse
    async with connected(address) as (reader, writer):
        writer.write(request("POST", "/", "Content-Length: 5") + b"he")
        await writer.drain()
        while not proxy.busy():
            await asyncio.sleep(0.01)
        draining = asyncio.create_task(proxy.front.drain())
        await refuses(address)
        writer.write(b"llo")
        response = await asyncio.wait_for(read_response(reader), 10)
        assert (response.status, response.body) == (200, b"ok")
        await asyncio.wait_for(draining, 10)
    assert upstream.received[0].body == b"hello"


async def test_drain_tells_clients_not_to_come_back(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, grace=10.0)
    release = Release()
    upstream.answers = [release]
    address = proxy.reverse
    async with connected(address) as (reader, writer):
        writer.write(request())
        await upstream.wait_for(1)
        draining = asyncio.create_task(proxy.front.drain())
        await refuses(address)
        release.go.set()
        response = await asyncio.wait_for(read_response(reader), 10)
        assert (response.body, response.get("connection")) == (b"late", "close")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        await asyncio.wait_for(draining, 10)


@pytest.mark.mitmproxy("the native one says GOAWAY, which this client of the tests takes for the end")
async def test_drain_delivers_a_large_answer_whole(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, grace=20.0)
    release = Release(b"x" * (8 << 20))
    upstream.answers = [release]
    async with proxy.tunnel(f"{BUCKET_HOST}:443", BUCKET_HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        number = client.send("GET", "/", BUCKET_HOST)
        await upstream.wait_for(1)
        draining = asyncio.create_task(proxy.front.drain())
        release.go.set()
        [stream] = await client.finished(number)
        assert len(stream.body) == 8 << 20
        await asyncio.wait_for(draining, 10)


async def test_drain_does_not_wait_for_idle_connections(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, grace=3600.0)
    async with connected(proxy.reverse) as (reader, writer), proxy.tunnel(f"{HOST}:443", HOST) as (tunnel_reader, tunnel_writer):
        for one, other in ((reader, writer), (tunnel_reader, tunnel_writer)):
            other.write(request())
            assert (await read_response(one)).status == 200
        await asyncio.wait_for(proxy.front.drain(), 10)
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_drain_gives_up_after_its_grace(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, grace=0.1)
    upstream.answers = [Release()]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request())
        await upstream.wait_for(1)
        await asyncio.wait_for(proxy.front.drain(), 10)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asyncio.wait_for(read_response(reader), 10)


@pytest.mark.mitmproxy("it unpacks messages")
async def test_compressed_websocket_messages_pass(proxy: Proxy) -> None:
    """permessage-deflate: mitmproxy unpacks and packs them again, so both sides must agree on the extension."""
    compressed = b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"
    """ "Hello", from RFC 7692, section 7.2.3.1."""
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def peer(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert received.get("sec-websocket-extensions") == "permessage-deflate"
        extension = b"websocket\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover"
        writer.write(SWITCH % extension + compressed)
        head = await reader.readexactly(2)
        got.set_result(head + await reader.readexactly(4 + (head[1] & 0x7F)))
        await reader.read()

    proxy.upstream.answers = [peer]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("GET", "/", *WEBSOCKET, "Sec-WebSocket-Extensions: permessage-deflate"))
        response = await read_response(reader)
        assert (response.status, (response.get("sec-websocket-extensions") or "").split(";")[0]) == (101, "permessage-deflate")
        first, length = await asyncio.wait_for(reader.readexactly(2), 10)
        assert first == 0xC1, "one compressed text message"
        assert unpack(await reader.readexactly(length)) == b"Hello"
        writer.write(b"\xc1\x87\x00\x00\x00\x00" + compressed[2:])
        frame = await asyncio.wait_for(got, 10)
        assert frame[0] == 0xC1
        mask, payload = frame[2:6], frame[6:]
        assert unpack(bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))) == b"Hello"
    await idle(proxy)


def unpack(payload: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
