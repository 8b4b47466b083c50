"""Connections that end by halves, break, or hardly move: nothing hangs, and whoever is still there gets an answer."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest

from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_hooks import idle
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.needs import need
from tests.support import OK, Answer, Received, Upstream, assert_signed, connected, read_response

SEND = request("POST", "/", "X-Amz-Target: AmazonSQS.SendMessage", "Content-Type: application/x-amz-json-1.0", body=b"{}")
"""May have been done once it was sent, so it is not sent again."""

LIST = SEND.replace(b"SendMessage", b"ListQueues")
"""May be done again."""

HEAD, BODY = OK[:-2], OK[-2:]
ALWAYS = {"circuit": {"failures": 0}}
"""However often an endpoint fails, it is tried."""


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection by RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def cut(writer: asyncio.StreamWriter) -> None:
    """Ends a connection by FIN, and TLS not at all."""
    writer.transport.abort()


def close(writer: asyncio.StreamWriter) -> None:
    """Ends TLS and the connection in good order."""
    writer.close()


ENDINGS = {ending.__name__: ending for ending in (close, cut, reset)}
Ending = Callable[[asyncio.StreamWriter], None]


@pytest.fixture(params=ENDINGS)
def ending(request: pytest.FixtureRequest) -> Ending:
    return ENDINGS[request.param]


def ends_after(told: bytes, ending: Ending) -> Callable[[Received, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """An upstream that says so much, and is gone."""

    async def answer(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if told:
            writer.write(told)
            await writer.drain()
        ending(writer)

    return answer


@pytest.mark.fault(
    "an upstream that half-closes or resets within its answer's head",
    holds="a 502, and the call is not repeated where it may have been executed",
)
async def test_an_upstream_that_ends_within_its_head(start: Start, upstream: Upstream, ending: Ending) -> None:
    """At every byte of it: the client is told, and its connection goes on."""
    proxy = await start(upstream, **ALWAYS)
    async with connected(proxy.reverse) as (reader, writer):
        for size in range(len(HEAD)):
            upstream.answers = [ends_after(HEAD[:size], ending)]
            writer.write(SEND)
            answer = await asyncio.wait_for(read_response(reader), 10)
            assert (answer.status, answer.get("x-sigward-error")) == (502, "connection-broken"), size
        writer.write(SEND)
        assert (await asyncio.wait_for(read_response(reader), 10)).body == b"ok"
    assert len(upstream.received) == len(HEAD) + 1, "none was sent twice"


@pytest.mark.fault("an upstream that half-closes or resets within its answer's head", holds="asked again where that is safe")
async def test_an_upstream_that_ends_within_its_head_is_asked_again_where_that_is_safe(
    start: Start, upstream: Upstream, ending: Ending
) -> None:
    proxy = await start(upstream, **ALWAYS, retry={"attempts": 2, "base": 0.001})
    async with connected(proxy.reverse) as (reader, writer):
        for size in range(len(HEAD)):
            upstream.answers = [ends_after(HEAD[:size], ending)]
            writer.write(LIST)
            answer = await asyncio.wait_for(read_response(reader), 10)
            assert (answer.status, answer.body, answer.get("x-sigward-attempts")) == (200, b"ok", "2"), size
    assert len(upstream.received) == 2 * len(HEAD)


@pytest.mark.fault("an upstream that dies, or resets, within its answer", holds="the client sees that the answer is not whole")
async def test_an_upstream_that_ends_within_its_body(proxy: Proxy, ending: Ending) -> None:
    """The client has the head already: its connection ends, in no way that looks whole."""
    for told in (HEAD, HEAD + BODY[:1], b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", CHUNKED[:-1], CHUNKED[:-5], CHUNKED[:-8]):
        proxy.upstream.answers = [ends_after(told, ending)]
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await proxy.ask(LIST)
    assert (await proxy.ask(LIST)).body == b"ok"
    assert len(proxy.upstream.received) == 7


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


@pytest.mark.fault("an upstream that closes or resets kept connections", holds="the next call gets a new connection and does not fail")
@pytest.mark.parametrize("raw", [LIST, SEND])
async def test_an_upstream_that_has_ended_a_kept_connection_is_connected_to_anew(proxy: Proxy, ending: Ending, raw: bytes) -> None:
    """It ends as soon as it has answered; nobody's request is lost by that."""
    async with connected(proxy.reverse) as (reader, writer):
        for _ in range(20):
            ended = asyncio.Event()

            async def answer(_: Received, __: asyncio.StreamReader, upstream: asyncio.StreamWriter, ended: asyncio.Event = ended) -> None:
                upstream.write(OK)
                await upstream.drain()
                ending(upstream)
                ended.set()

            proxy.upstream.answers = [answer]
            writer.write(raw)
            assert (await asyncio.wait_for(read_response(reader), 10)).body == b"ok"
            await ended.wait()
    assert len(proxy.upstream.received) == proxy.upstream.connections


HALF_CLOSED = {
    "no body": request(),
    "a length": request("POST", "/", body=b"hello"),
    "chunks": request("POST", "/", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.0": request().replace(b"HTTP/1.1", b"HTTP/1.0", 1),
}


@pytest.mark.parametrize("raw", HALF_CLOSED.values(), ids=HALF_CLOSED)
async def test_a_client_that_has_said_all_gets_its_answer(proxy: Proxy, raw: bytes) -> None:
    """It ends its side while the upstream is at it."""
    go = asyncio.Event()

    async def answer(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(OK)

    proxy.upstream.answers = [answer]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(raw)
        writer.write_eof()
        await proxy.upstream.wait_for(1)
        go.set()
        assert (await asyncio.wait_for(read_response(reader), 10)).body == b"ok"
        assert await asyncio.wait_for(reader.read(), 10) == b""
    assert_signed(proxy.upstream.received[0], HOST)


FAILED = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b"
WAITS = {
    "its turn": OK,
    "a retry after 500": FAILED % (b"500 Internal Server Error", 0, b""),
    "a retry after 503": FAILED % (b"503 Service Unavailable", 0, b""),
    "a retry after throttling": FAILED % (b"400 Bad Request", 32, b'{"__type":"ThrottlingException"}'),
}


@pytest.mark.parametrize("first", WAITS.values(), ids=WAITS)
async def test_a_client_that_has_said_all_gets_its_answers_however_long_they_take(start: Start, upstream: Upstream, first: bytes) -> None:
    """The first of its requests has to wait, and those behind it."""
    line = {"defaults": False, "rules": [{"operation": "sqs:ListQueues", "rate": 10, "burst": 1}]}
    proxy = await start(upstream, retry={"attempts": 3, "base": 0.2, "throttle_base": 0.2}, pace=line)
    upstream.answers = [first]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(LIST * 3)
        writer.write_eof()
        for _ in range(3):
            assert (await asyncio.wait_for(read_response(reader), 10)).body == b"ok"
        assert await asyncio.wait_for(reader.read(), 10) == b""
    assert len(upstream.received) == 3 + (first is not OK)


@pytest.mark.parametrize("inside", [False, True])
async def test_what_was_sent_before_a_client_closes_its_side_is_answered(proxy: Proxy, inside: bool) -> None:
    """All requests that are whole; not the one that is not."""
    there = proxy.tunnel(f"{HOST}:443", HOST) if inside else connected(proxy.reverse)
    async with there as (reader, writer):
        writer.write(request(path="/1") + request("POST", "/2", body=b"b") + request(path="/3") + b"GET /4 HTTP/1.1\r\nHo")
        if writer.can_write_eof():
            writer.write_eof()
        for _ in range(3):
            assert (await asyncio.wait_for(read_response(reader), 10)).body == b"ok"
        if writer.can_write_eof():
            assert await asyncio.wait_for(reader.read(), 10) == b""
    assert [received.target for received in proxy.upstream.received] == ["/1", "/2", "/3"]


CLOSE_THEIR_SIDE = {
    "busybox": ["busybox", "wget", "-q", "-O", "-", "http://{host}:{port}/"],
    "socat": ["socat", "-t", "20", "-", "TCP:{host}:{port}"],
    "ncat": ["ncat", "{host}", "{port}"],
}


@pytest.mark.parametrize("name", CLOSE_THEIR_SIDE)
async def test_clients_that_close_their_side(proxy: Proxy, name: str) -> None:
    command = CLOSE_THEIR_SIDE[name]
    need(name)
    go = asyncio.Event()

    async def answer(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(OK)

    proxy.upstream.answers = [answer]
    host, port = proxy.fixed
    process = await asyncio.create_subprocess_exec(
        *(part.format(host=host, port=port) for part in command), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    communicating = asyncio.create_task(process.communicate(request("GET", "/", "Connection: close")))
    await proxy.upstream.wait_for(1)
    await settle()
    go.set()
    said, _ = await asyncio.wait_for(communicating, 20)
    assert said.endswith(b"ok")


WHOLE = request("POST", "/", "X-Amz-Target: AmazonSQS.SendMessage", body=b"hello")


async def test_a_client_that_ends_its_side_too_early_is_let_go(proxy: Proxy) -> None:
    """At every byte of a request."""
    for size in range(1, len(WHOLE)):
        async with connected(proxy.reverse) as (reader, writer):
            writer.write(WHOLE[:size])
            writer.write_eof()
            left = await asyncio.wait_for(reader.read(), 10)
            assert left == b"" or left.startswith(b"HTTP/1.1 400 "), size
    await idle(proxy)
    assert proxy.upstream.received == []


@pytest.mark.fault("a client that resets after every byte of its request", holds="nothing is left behind")
async def test_a_client_that_resets_at_every_byte_leaves_nothing_behind(proxy: Proxy) -> None:
    for size in range(1, len(WHOLE)):
        async with connected(proxy.reverse) as (_, writer):
            writer.write(WHOLE[:size])
            await writer.drain()
            reset(writer)
    await idle(proxy)
    assert (await proxy.ask(SEND)).status == 200
    assert len(proxy.upstream.received) == 1


@pytest.mark.fault("a client that resets during its answer, or before it", holds="the call to the upstream ends")
async def test_a_client_that_resets_while_its_answer_streams_ends_the_job(proxy: Proxy) -> None:
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
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request())
        await reader.readexactly(100_000)
        reset(writer)
    await asyncio.wait_for(ended.wait(), 10)
    await idle(proxy)


@pytest.mark.fault("a client that resets during its answer, or before it", holds="the call to the upstream ends")
async def test_a_client_that_resets_while_the_upstream_is_silent_ends_the_job(proxy: Proxy) -> None:
    """In mid-answer: nobody waits for `timeouts.idle`."""
    ended = asyncio.Event()

    async def silent(_: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\no")
        await writer.drain()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.set()

    proxy.upstream.answers = [silent]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request())
        await reader.readuntil(b"\r\n\r\no")
        reset(writer)
    await asyncio.wait_for(ended.wait(), 10)
    await idle(proxy)


@pytest.mark.parametrize("raw", [WHOLE, request("POST", "/", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\nx: y\r\n\r\n"])
async def test_a_request_in_two_pieces(proxy: Proxy, raw: bytes) -> None:
    """Cut at every byte."""
    async with connected(proxy.reverse) as (reader, writer):
        for size in range(1, len(raw)):
            writer.write(raw[:size])
            await settle()
            writer.write(raw[size:])
            assert (await asyncio.wait_for(read_response(reader), 10)).status == 200, size
    assert {received.body for received in proxy.upstream.received} == {b"hello"}
    assert len(proxy.upstream.received) == len(raw) - 1


async def settle() -> None:
    """What was written gets to be seen alone."""
    for _ in range(10):
        await asyncio.sleep(0)


ANSWERS = {"a length": OK, "chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n"}


@pytest.mark.parametrize("told", ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_in_two_pieces(proxy: Proxy, told: bytes) -> None:
    """Cut at every byte; and the upstream's connection is used again."""
    async with connected(proxy.reverse) as (reader, writer):
        for size in range(1, len(told)):
            proxy.upstream.answers = [in_pieces(told[:size], told[size:])]
            writer.write(request())
            assert (await asyncio.wait_for(read_response(reader), 10)).body == b"ok", size
    assert proxy.upstream.connections == 1


@pytest.mark.fault("an upstream that sends byte by byte", holds="the answer arrives as it is")
@pytest.mark.parametrize("told", ANSWERS.values(), ids=ANSWERS)
async def test_an_upstream_that_dribbles(proxy: Proxy, told: bytes) -> None:
    proxy.upstream.answers = [in_pieces(*(bytes([byte]) for byte in told))]
    assert (await proxy.ask(request())).body == b"ok"


def in_pieces(*pieces: bytes) -> Answer:
    async def answer(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await settle()

    return answer


@pytest.mark.parametrize("told", [b"content-length: 30000\r\n\r\n%s", b"transfer-encoding: chunked\r\n\r\n7530\r\n%s\r\n0\r\n\r\n"])
async def test_a_client_that_reads_byte_by_byte(proxy: Proxy, told: bytes) -> None:
    """From a socket that hardly holds anything."""
    body = bytes(range(250)) * 120
    proxy.upstream.answers = [b"HTTP/1.1 200 OK\r\nconnection: close\r\n" + told % body]
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.setblocking(False)
        await loop.sock_connect(client, proxy.reverse)
        await loop.sock_sendall(client, request("GET", "/", "Connection: close", host=BUCKET_HOST))
        got = bytearray()
        async with asyncio.timeout(30):
            while piece := await loop.sock_recv(client, 1):
                got += piece
    reader = asyncio.StreamReader()
    reader.feed_data(bytes(got))
    reader.feed_eof()
    assert (await read_response(reader)).body == body


async def test_a_client_that_sends_its_body_byte_by_byte_through_a_stream(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, body={"hold": 10})
    body = bytes(range(200))
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("PUT", "/k", f"Content-Length: {len(body)}", host=BUCKET_HOST))
        for byte in body:
            writer.write(bytes([byte]))
            await settle()
        assert (await asyncio.wait_for(read_response(reader), 10)).status == 200
    assert upstream.received[0].body == body


class Early(Upstream):
    """Answers 403 when it has a head; reads no more."""

    def __init__(self, ending: Ending | None) -> None:
        super().__init__()
        self.ending = ending
        self.over = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 5\r\n\r\nearly")
        await writer.drain()
        if self.ending is not None:
            self.ending(writer)
        else:
            # In good order, but not a byte of the body is read.
            writer.transport.pause_reading()
            await self.over.wait()
            writer.close()


@pytest.mark.parametrize("how", [None, "close"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_an_answer_before_the_upload_has_ended(start: Start, how: str | None, framing: str) -> None:
    """The client gets it, though its upload can go nowhere; what it still sends is nobody's request."""
    size = 1 << 20
    async with Early(ENDINGS[how] if how else None) as upstream:
        proxy = await start(upstream, body={"hold": 1000}, retry={"mode": "off"})
        async with connected(proxy.reverse) as (reader, writer):
            if framing == "length":
                writer.write(request("PUT", "/k", f"Content-Length: {size}", host=BUCKET_HOST) + b"x" * (size // 2))
            else:
                head = request("PUT", "/k", "Transfer-Encoding: chunked", "x-amz-content-sha256: UNSIGNED-PAYLOAD", host=BUCKET_HOST)
                writer.write(head + b"%x\r\n" % size + b"x" * (size // 2))
            answer = await asyncio.wait_for(read_response(reader), 10)
            assert (answer.status, answer.body) == (403, b"early")
            with contextlib.suppress(ConnectionError):
                writer.write(request("GET", "/smuggled") * 10)
                writer.write_eof()
                assert b"HTTP/1.1 200" not in await asyncio.wait_for(reader.read(), 10)
        upstream.over.set()
        await idle(proxy)
        assert upstream.connections == 1
