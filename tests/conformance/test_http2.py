"""HTTP/2 clients, and protocols that a request upgrades to."""

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest

from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import Received, Upstream, assert_signed, connected, read_response


@dataclass
class Stream:
    """What came on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    trailers: dict[str, str] = field(default_factory=dict)
    ended: bool = False
    whole: bool = False
    """It ended by END_STREAM."""

    reset: int | None = None
    pieces: list[int] = field(default_factory=list)
    """Sizes of DATA frames."""


class Http2Client:
    """A small HTTP/2 client over an open TLS connection. `window`: what each stream may be sent; then nothing is granted by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, window: int | None = None) -> None:
        self.reader, self.writer, self.window = reader, writer, window
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        if window is not None:
            self.connection.local_settings.initial_window_size = window
            self.connection.local_settings.acknowledge()
        self.connection.initiate_connection()
        self.streams: dict[int, Stream] = {}
        self.terminated: int | None = None
        """The code of the proxy's GOAWAY."""
        self.pongs = 0
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.connection.data_to_send())

    def send(
        self, method: str, path: str, host: str, body: bytes = b"", trailers: tuple[tuple[str, str], ...] = (), *more: tuple[str, str]
    ) -> int:
        number = self.connection.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", host), (":path", path), *more]
        self.streams[number] = Stream()
        self.connection.send_headers(number, head, end_stream=not body and not trailers)
        for at in range(0, len(body), 16384):
            last = at + 16384 >= len(body) and not trailers
            self.connection.send_data(number, body[at : at + 16384], end_stream=last)
        if trailers:
            self.connection.send_headers(number, trailers, end_stream=True)
        self.flush()
        return number

    def begin(self, method: str, path: str, host: str, *more: tuple[str, str]) -> int:
        """Sends the head of a request whose body follows by `upload` and `end`."""
        number = self.connection.get_next_available_stream_id()
        self.streams[number] = Stream()
        self.connection.send_headers(number, [(":method", method), (":scheme", "https"), (":authority", host), (":path", path), *more])
        self.flush()
        return number

    async def upload(self, number: int, size: int, patience: float) -> int:
        """Sends so many bytes as far as the proxy opens its windows; gives up when it opens none for `patience` seconds, or resets."""
        sent = 0
        while sent < size and self.streams[number].reset is None:
            window = min(self.connection.local_flow_control_window(number), self.connection.max_outbound_frame_size, size - sent)
            if window:
                self.connection.send_data(number, b"x" * window)
                sent += window
                self.flush()
                await self.writer.drain()
            else:
                try:
                    await asyncio.wait_for(self.read(), patience)
                except TimeoutError:
                    break
        return sent

    def end(self, number: int) -> None:
        self.connection.end_stream(number)
        self.flush()

    async def read(self) -> None:
        """Takes in what comes next."""
        data = await self.reader.read(65536)
        assert data, "the proxy closed the connection"
        for event in self.connection.receive_data(data):
            self._take(event)
        self.flush()

    async def finished(self, *numbers: int) -> list[Stream]:
        while not all(self.streams[number].ended for number in numbers):
            await asyncio.wait_for(self.read(), 10)
        return [self.streams[number] for number in numbers]

    async def echo(self) -> None:
        """Waits until the proxy has seen what was sent, and what it sent until then is here."""
        want = self.pongs + 1
        self.connection.ping(b"sigward!")
        self.flush()
        while self.pongs < want:
            await asyncio.wait_for(self.read(), 10)

    def grant(self, number: int, size: int) -> None:
        """Lets so many bytes more come on a stream."""
        self.connection.increment_flow_control_window(size, number)
        self.flush()

    async def settled(self, number: int) -> Stream:
        """One stream, once it has ended, or the connection has."""
        stream = self.streams[number]
        # A connection that ends may be reset, or say what h2 does not expect any more.
        with contextlib.suppress(ConnectionError, h2.exceptions.ProtocolError):
            while not stream.ended and (data := await asyncio.wait_for(self.reader.read(65536), 10)):
                for event in self.connection.receive_data(data):
                    self._take(event)
                self.flush()
        assert stream.ended or self.terminated is not None, "the connection ended without a word"
        return stream

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.terminated = int(event.error_code or 0)
        elif isinstance(event, h2.events.PingAckReceived):
            self.pongs += 1
        stream = self.streams.get(getattr(event, "stream_id", 0) or 0)
        if stream is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            stream.headers = dict(event.headers)
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data
            stream.pieces.append(len(event.data))
            if self.window is None:
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            stream.reset, stream.ended = int(event.error_code), True
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = stream.whole = True


@contextlib.asynccontextmanager
async def http2(proxy: Proxy, host: str = HOST, window: int | None = None) -> AsyncIterator[Http2Client]:
    """A client inside an intercepted CONNECT."""
    async with proxy.tunnel(f"{host}:443", host, ["h2"]) as (reader, writer):
        yield Http2Client(reader, writer, window)


async def test_many_streams_on_one_connection(proxy: Proxy) -> None:
    async with proxy.tunnel(f"{HOST}:443", HOST, ["h2"]) as (reader, writer):
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        client = Http2Client(reader, writer)
        numbers = [client.send("POST", f"/{number}", HOST, b"body %d" % number) for number in range(50)]
        for stream in await client.finished(*numbers):
            assert (stream.headers[":status"], stream.body) == ("200", b"ok")
    assert sorted(received.body for received in proxy.upstream.received) == sorted(b"body %d" % number for number in range(50))
    for received in proxy.upstream.received:
        assert_signed(received, HOST)


async def test_cookies_in_crumbs_are_one_line_upstream(proxy: Proxy) -> None:
    crumbs = [("cookie", crumb) for crumb in ("a=1", "b=2; c=3", "d=4")]
    async with http2(proxy) as client:
        [stream] = await client.finished(client.send("GET", "/", HOST, b"", (), *crumbs))
    assert stream.headers[":status"] == "200"
    received = proxy.upstream.received[0]
    assert [value for name, value in received.headers if name.lower() == "cookie"] == ["a=1; b=2; c=3; d=4"]
    assert_signed(received, HOST)


async def test_tls_straight_to_a_reverse_listener(proxy: Proxy) -> None:
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    context.set_alpn_protocols(["h2"])
    async with connected(proxy.fixed, ssl=context) as (reader, writer):
        client = Http2Client(reader, writer)
        [stream] = await client.finished(client.send("POST", "/", "127.0.0.1", b"x"))
    assert stream.body == b"ok"
    assert_signed(proxy.upstream.received[0], HOST)


async def test_large_bodies(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, body={"hold": 4096})
    body = hashlib.sha256(b"x").digest() * 1000
    upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body]
    async with proxy.tunnel(f"{BUCKET_HOST}:443", BUCKET_HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        [stream] = await client.finished(client.send("PUT", "/k", BUCKET_HOST, body, (), ("content-length", str(len(body)))))
    assert stream.body == body
    assert upstream.received[0].body == body


async def test_trailers_of_an_answer(proxy: Proxy) -> None:
    proxy.upstream.answers = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n"]
    async with proxy.tunnel(f"{HOST}:443", HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        [stream] = await client.finished(client.send("GET", "/", HOST))
    assert (stream.body, stream.trailers) == (b"abc", {"x": "y"})


FRAMING = "Connection Keep-Alive Proxy-Connection Proxy-Authenticate TE Trailer Transfer-Encoding Upgrade Content-Length Host X-Named"


@pytest.mark.parametrize("among", [True, False])
async def test_trailers_of_an_answer_say_nothing_of_its_framing(proxy: Proxy, among: bool) -> None:
    """RFC 9110, section 6.5.1. HTTP/2 takes such an answer for malformed (RFC 9113, section 8.2.2)."""
    lines = "".join(f"{name}: x-named\r\n" for name in FRAMING.split()) + "x: y\r\n" * among
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n%b\r\n" % lines.encode()
    proxy.upstream.answers = [answer, answer]
    kept = {"x": "y"} if among else {}
    async with http2(proxy) as client:
        [stream] = await client.finished(client.send("GET", "/", HOST))
        assert (stream.body, stream.trailers, stream.whole) == (b"abc", kept, True)
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("GET", "/", "TE: trailers", "Connection: TE, close"))
        told = (await asyncio.wait_for(reader.read(), 10)).lower()
    head, _, body = told.partition(b"\r\n\r\n")
    assert head.startswith(b"http/1.1 200 ")
    # mitmproxy has no form for trailers.
    assert body in (b"3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\n%b\r\n" % (b"x: y\r\n" * among))


async def test_trailers_of_a_held_request(proxy: Proxy) -> None:
    async with proxy.tunnel(f"{HOST}:443", HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        [stream] = await client.finished(client.send("POST", "/", HOST, b"held", (("x-sum", "1"),)))
    assert stream.headers[":status"] == "200"
    assert proxy.upstream.received[0].body == b"held"
    assert_signed(proxy.upstream.received[0], HOST)


async def test_an_authority_for_another_host_is_refused(proxy: Proxy) -> None:
    async with proxy.tunnel(f"{HOST}:443", HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        [stream] = await client.finished(client.send("GET", "/", BUCKET_HOST))
    assert (stream.headers[":status"], stream.headers["x-sigward-error"]) == ("421", "host-mismatch")


async def test_a_stream_that_breaks_off_is_reset_and_the_others_go_on(proxy: Proxy) -> None:
    async def break_off(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1000)
        await writer.drain()
        writer.close()

    proxy.upstream.answers = [break_off]
    async with proxy.tunnel(f"{HOST}:443", HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        [broken] = await client.finished(client.send("GET", "/", HOST))
        [whole] = await client.finished(client.send("GET", "/", HOST))
    assert broken.reset is not None
    assert whole.body == b"ok"


async def test_websocket_upgrades_are_signed_and_pass(proxy: Proxy) -> None:
    host = HOST
    frame = b"\x82\x05hello"

    async def echo(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        writer.write(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        first = await reader.readexactly(6 + 5)
        assert first[0] == 0x82
        masked = bytes(byte ^ first[2 + at % 4] for at, byte in enumerate(first[6:]))
        writer.write(b"\x82\x05" + masked)
        await writer.drain()
        await reader.read(100)

    proxy.upstream.answers = [echo]
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("GET", "/mqtt", *upgrade, host=host))
        response = await read_response(reader)
        assert response.status == 101
        writer.write(b"\x82\x85\x00\x00\x00\x00hello")
        assert await asyncio.wait_for(reader.readexactly(len(frame)), 10) == frame
    received = proxy.upstream.received[0]
    assert_signed(received, host)
    assert (received.get("upgrade") or "").lower() == "websocket"
