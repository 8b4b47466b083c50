"""What clients may take of a front: connections, streams, requests, memory, time. Beyond it they wait, or are told so."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import h2.exceptions
import pytest

from sigward.mitm import Front
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_flow_control import MUCH, Source
from tests.conformance.test_hooks import idle
from tests.conformance.test_http2 import Http2Client, http2
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import OK, Received, Upstream, connected, counted, read_response

NATIVE = "mitmproxy has limits of its own"
PATIENCE = 20.0


async def until(come: Callable[[], object]) -> None:
    """Waits for it; counters tell nobody that they change."""
    async with asyncio.timeout(PATIENCE):
        while not come():
            await asyncio.sleep(0.01)


def metric(proxy: Proxy, name: str, **labels: str) -> float:
    return counted(proxy.engine.metrics(), name, **labels)


class Held:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def __call__(self, _: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.released.wait()
        writer.write(OK)


# ---------------------------------------------------------------- connections


def paused(proxy: Proxy) -> float:
    return metric(proxy, "sigward_accept_paused_total", reason="limit")


@pytest.mark.fault("more connections than allowed", holds="they wait until one ends")
@pytest.mark.native(NATIVE)
async def test_connections_beyond_the_limit_wait_until_one_ends(start: Start, upstream: Upstream) -> None:
    """Whichever listener they come to."""
    proxy = await start(upstream, limits={"connections": 2})
    async with contextlib.AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(connected(proxy.reverse)) for _ in range(2)]
        for reader, writer in (first, second):
            writer.write(request("GET", "/served"))
            assert (await asyncio.wait_for(read_response(reader), 10)).status == 200
        waiting = [asyncio.create_task(proxy.ask(request("GET", "/waits"), to=to)) for to in (proxy.reverse, proxy.fixed)]
        await until(lambda: paused(proxy) >= 2)
        # Those that are there are served.
        first[1].write(request("GET", "/served"))
        assert (await asyncio.wait_for(read_response(first[0]), 10)).status == 200
        assert {received.target for received in upstream.received} == {"/served"}
        assert metric(proxy, "sigward_client_connections") == 2
        second[1].close()
        answers = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
        assert [answer.status for answer in answers] == [200, 200]
    await until(lambda: metric(proxy, "sigward_client_connections") == 0)


@pytest.mark.native(NATIVE)
async def test_tunnels_count_as_connections(start: Start, upstream: Upstream) -> None:
    routes = [{"host": "localhost", "action": "pass"}, {"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}"}]
    proxy = await start(upstream, limits={"connections": 1}, routes=routes)
    async with proxy.tunnel(f"localhost:{upstream.port}", "localhost"):
        waiting = asyncio.create_task(proxy.ask(request()))
        await until(lambda: paused(proxy) >= 1)
        assert upstream.received == []
    assert (await asyncio.wait_for(waiting, PATIENCE)).status == 200


@pytest.mark.native(NATIVE)
async def test_a_limit_that_is_raised_lets_them_in(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, limits={"connections": 1})
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request())
        assert (await asyncio.wait_for(read_response(reader), 10)).status == 200
        waiting = asyncio.create_task(proxy.ask(request()))
        await until(lambda: paused(proxy) >= 1)
        proxy.point_to(upstream.port, limits={"connections": 2})
        assert (await asyncio.wait_for(waiting, PATIENCE)).status == 200


# ---------------------------------------------------------------- streams, requests


@pytest.mark.native(NATIVE)
async def test_streams_at_once(start: Start, upstream: Upstream) -> None:
    """h2 itself keeps to what the proxy says."""
    held = Held()
    proxy = await start(upstream, limits={"streams": 3})
    upstream.answers = [held] * 3
    async with http2(proxy) as client, http2(proxy) as other:
        await client.echo()
        assert client.connection.remote_settings.max_concurrent_streams == 3
        numbers = [client.send("GET", f"/{number}", HOST) for number in range(3)]
        await upstream.wait_for(3)
        [stream] = await other.finished(other.send("GET", "/other", HOST))
        assert stream.body == b"ok"
        held.released.set()
        assert [stream.body for stream in await client.finished(*numbers)] == [b"ok"] * 3


@pytest.mark.fault("more requests at once than allowed", holds="those beyond are refused at once")
async def test_requests_at_once(start: Start, upstream: Upstream) -> None:
    held = Held()
    proxy = await start(upstream, limits={"in_flight": 2})
    upstream.answers = [held, held]
    served = [asyncio.create_task(proxy.ask(request())) for _ in range(2)]
    await upstream.wait_for(2)
    for _ in range(2):
        refused = await proxy.ask(request("POST", "/", "X-Amz-Target: AmazonSQS.ListQueues", body=b"{}"))
        assert (refused.status, refused.get("x-sigward-error"), refused.get("retry-after")) == (503, "overloaded", "1")
        assert b"limits.in_flight" in refused.body
        assert refused.get("x-sigward-attempts") is None
    assert metric(proxy, "sigward_overloaded_total") == 2
    # More of them, from now on.
    proxy.point_to(upstream.port, limits={"in_flight": 3})
    assert (await proxy.ask(request())).status == 200
    held.released.set()
    assert [answer.status for answer in await asyncio.gather(*served)] == [200, 200]
    await idle(proxy)
    assert (await proxy.ask(request())).status == 200
    assert len(upstream.received) == 4


RECEIVE = ("X-Amz-Target: AmazonSQS.ReceiveMessage", "Content-Type: application/x-amz-json-1.0")
FIVE = {"pace": {"max_wait": 0.0, "rules": [{"operation": "sqs:ReceiveMessage", "rate": 0.001, "burst": 5.0}]}}
"""Five calls, and no other for a quarter of an hour."""


async def receive(proxy: Proxy, size: int = 0) -> str:
    """The status of a call that FIVE counts, and sigward's word for what is wrong."""
    response = await proxy.ask(request("POST", "/", *RECEIVE, body=b"x" * size))
    return f"{response.status} {response.get('x-sigward-error') or ''}".strip()


async def all_five(proxy: Proxy) -> None:
    """None of them was spent."""
    assert [await receive(proxy) for _ in range(6)] == ["200"] * 5 + ["503 slow-down"]


async def test_what_is_refused_for_load_spends_nothing(start: Start, upstream: Upstream) -> None:
    held = Held()
    proxy = await start(upstream, limits={"in_flight": 1}, **FIVE)
    upstream.answers = [held]
    served = asyncio.create_task(proxy.ask(request("GET", "/", host=BUCKET_HOST)))
    await upstream.wait_for(1)
    before = metric(proxy, "sigward_signatures_total")
    # A form too: what it is says only its body, which is not read.
    form = request("POST", "/", "Content-Type: application/x-www-form-urlencoded", body=b"Action=ReceiveMessage")
    for _ in range(10):
        assert await receive(proxy) == "503 overloaded"
    assert (await proxy.ask(form)).get("x-sigward-error") == "overloaded"
    assert metric(proxy, "sigward_overloaded_total") == 11
    assert metric(proxy, "sigward_signatures_total") == before
    held.released.set()
    assert (await served).status == 200
    await idle(proxy)
    await all_five(proxy)


async def test_what_is_denied_is_denied_under_load_too(start: Start, upstream: Upstream) -> None:
    held = Held()
    routes = [{"host": HOST, "path": "/no", "action": "deny"}, {"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}"}]
    proxy = await start(upstream, limits={"in_flight": 1}, routes=routes)
    upstream.answers = [held]
    served = asyncio.create_task(proxy.ask(request()))
    await upstream.wait_for(1)
    denied, refused = await proxy.ask(request("GET", "/no")), await proxy.ask(request("GET", "/yes"))
    assert (denied.get("x-sigward-error"), refused.get("x-sigward-error")) == ("denied", "overloaded")
    assert metric(proxy, "sigward_overloaded_total") == 1
    held.released.set()
    assert (await served).status == 200


# ---------------------------------------------------------------- memory


async def test_what_is_refused_for_memory_spends_nothing(start: Start, upstream: Upstream) -> None:
    held = Held()
    proxy = await start(upstream, limits={"held_bytes": 100_000}, **FIVE)
    upstream.answers = [held]
    first = asyncio.create_task(proxy.ask(request("POST", "/first", host=BUCKET_HOST, body=b"x" * 60_000)))
    await upstream.wait_for(1)
    before = metric(proxy, "sigward_signatures_total")
    for _ in range(10):
        assert await receive(proxy, 60_000) == "503 overloaded"
    assert (metric(proxy, "sigward_overloaded_total"), metric(proxy, "sigward_signatures_total")) == (10, before)
    held.released.set()
    assert (await first).status == 200
    await idle(proxy)
    await all_five(proxy)


@pytest.mark.fault("more bodies than the memory for them", holds="those beyond are refused; memory stays bounded")
async def test_bodies_in_memory_at_once(start: Start, upstream: Upstream) -> None:
    held = Held()
    proxy = await start(upstream, limits={"held_bytes": 100_000})
    upstream.answers = [held]
    first = asyncio.create_task(proxy.ask(request("POST", "/first", body=b"x" * 60_000)))
    await upstream.wait_for(1)
    assert metric(proxy, "sigward_held_body_bytes") == 60_000
    refused = await proxy.ask(request("POST", "/second", body=b"x" * 60_000))
    assert (refused.status, refused.get("x-sigward-error"), refused.get("retry-after")) == (503, "overloaded", "1")
    assert b"limits.held_bytes" in refused.body
    assert (await proxy.ask(request("POST", "/small", body=b"x" * 1000))).status == 200
    held.released.set()
    assert (await first).status == 200
    await idle(proxy)
    assert metric(proxy, "sigward_held_body_bytes") == 0
    assert (await proxy.ask(request("POST", "/second", body=b"x" * 60_000))).status == 200
    assert metric(proxy, "sigward_overloaded_total") == 1


@pytest.mark.fault("many bodies on one connection that do not come to their end", holds="all that is held of them is bounded")
async def test_bodies_that_do_not_come_to_their_end(start: Start, upstream: Upstream) -> None:
    """Each is short enough to be held; together they are not."""
    most, size = 1 << 20, 100_000
    proxy = await start(upstream, limits={"held_bytes": most}, **FIVE)
    async with proxy.tunnel(f"{HOST}:443", HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        numbers = [client.begin("POST", "/", HOST, ("content-length", str(size))) for _ in range(30)]
        for number in numbers:
            await client.upload(number, size - 1, patience=0.2)
        async with asyncio.timeout(20):
            while not any(stream.headers.get("x-sigward-error") == "overloaded" for stream in client.streams.values()):
                await client.read()
        assert 0 < metric(proxy, "sigward_held_body_bytes") <= most + size
    await idle(proxy)
    await until(lambda: metric(proxy, "sigward_held_body_bytes") == 0)


async def test_one_body_alone_is_always_held(start: Start, upstream: Upstream) -> None:
    """However little may be: it would never be served otherwise. In chunks, too."""
    proxy = await start(upstream, limits={"held_bytes": 1000})
    assert (await proxy.ask(request("POST", "/", body=b"x" * 60_000))).status == 200
    chunked = request("POST", "/", "Transfer-Encoding: chunked") + b"ea60\r\n" + b"x" * 60_000 + b"\r\n0\r\n\r\n"
    assert (await proxy.ask(chunked)).status == 200
    await idle(proxy)
    assert metric(proxy, "sigward_held_body_bytes") == 0


@pytest.mark.fault("more bodies than the memory for them", holds="what was held is given back, however a request ends")
@pytest.mark.parametrize("gone", ["client", "upstream"])
async def test_what_was_held_is_given_back_however_a_request_ends(start: Start, upstream: Upstream, gone: str) -> None:
    proxy = await start(upstream, limits={"held_bytes": 100_000}, retry={"mode": "off"})

    async def leave(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    if gone == "upstream":
        upstream.answers = [leave]
        assert (await proxy.ask(request("POST", "/", body=b"x" * 60_000))).status == 502
    else:
        async with connected(proxy.reverse) as (_, writer):
            writer.write(request("POST", "/", body=b"x" * 60_000)[:-1])
            await until(lambda: metric(proxy, "sigward_held_body_bytes") > 0 or isinstance(proxy.front, Front))
    await idle(proxy)
    assert metric(proxy, "sigward_held_body_bytes") == 0
    assert (await proxy.ask(request("POST", "/", body=b"x" * 60_000))).status == 200


# ---------------------------------------------------------------- heads


def padded(count: int, size: int = 1) -> tuple[str, ...]:
    return tuple(f"x-{number:03}: {'v' * size}" for number in range(count))


@pytest.mark.parametrize(
    ("limits", "path", "headers", "status", "slug"),
    [
        ({"headers": 20}, "/", padded(19), 200, None),
        ({"headers": 20}, "/", padded(20), 431, "head-too-large"),
        ({"header_bytes": 1000}, "/", padded(1, 1000 - len("x-000") - len(f"host{HOST}")), 200, None),
        ({"header_bytes": 1000}, "/", padded(1, 1001 - len("x-000") - len(f"host{HOST}")), 431, "head-too-large"),
        ({"target_bytes": 100}, "/" + "p" * 99, (), 200, None),
        ({"target_bytes": 100}, "/" + "p" * 100, (), 414, "target-too-long"),
        ({"target_bytes": 100}, "/?" + "q" * 99, (), 414, "target-too-long"),
    ],
)
async def test_heads(
    start: Start, upstream: Upstream, limits: dict[str, int], path: str, headers: tuple[str, ...], status: int, slug: str | None
) -> None:
    proxy = await start(upstream, limits=limits)
    response = await proxy.ask(request("GET", path, *headers))
    assert (response.status, response.get("x-sigward-error")) == (status, slug)
    async with http2(proxy) as client:
        pairs = [(name, value) for name, _, value in (header.partition(": ") for header in headers)]
        [stream] = await client.finished(client.send("GET", path, HOST, b"", (), *pairs))
        assert (stream.headers[":status"], stream.headers.get("x-sigward-error")) == (str(status), slug)
        # The connection goes on.
        [stream] = await client.finished(client.send("GET", "/", HOST))
        assert stream.body == b"ok"
    assert len(upstream.received) == 1 + 2 * (status == 200)


# ---------------------------------------------------------------- time


def slow(proxy: Proxy, at: str) -> float:
    return metric(proxy, "sigward_slow_clients_total", at=at)


async def test_a_head_that_does_not_come_to_its_end(start: Start, upstream: Upstream) -> None:
    """However steadily it comes; a later one on the same connection, too."""
    proxy = await start(upstream, timeouts={"client_head": 0.3})
    for before in (b"", request()):
        async with connected(proxy.reverse) as (reader, writer):
            if before:
                writer.write(before)
                assert (await asyncio.wait_for(read_response(reader), 10)).status == 200
            writer.write(b"GET / HTTP/1.1\r\nHost: ")
            dribbling = asyncio.create_task(dribble(writer))
            response = await asyncio.wait_for(read_response(reader), PATIENCE)
            assert (response.status, response.get("x-sigward-error"), response.get("connection")) == (408, "head-timeout", "close")
            dribbling.cancel()
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 10) == b""
    assert slow(proxy, "head") == 2
    assert len(upstream.received) == 1


async def dribble(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"a")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("hold", [1 << 20, 2], ids=["held", "streamed"])
async def test_a_body_that_stalls(start: Start, upstream: Upstream, hold: int) -> None:
    """However it is kept: its client is told, and the connection of HTTP/2 goes on."""
    # Of what streams, nobody knows which side waits.
    told = {(400, "body-failed"), (504, "head-timeout")} if hold == 2 else {(400, "body-failed")}
    proxy = await start(upstream, timeouts={"idle": 0.3}, body={"hold": hold})
    for framing, said in (("Content-Length: 5", b"he"), ("Transfer-Encoding: chunked", b"5\r\nhe")):
        async with connected(proxy.reverse) as (reader, writer):
            writer.write(request("PUT", "/k", framing, host=BUCKET_HOST) + said)
            response = await asyncio.wait_for(read_response(reader), PATIENCE)
            assert (response.status, response.get("x-sigward-error")) in told
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
    async with http2(proxy, BUCKET_HOST) as client:
        number = client.begin("PUT", "/k", BUCKET_HOST, ("content-length", "5"))
        client.connection.send_data(number, b"he")
        client.flush()
        [stream] = await client.finished(number)
        assert (int(stream.headers[":status"]), stream.headers["x-sigward-error"]) in told
        [other] = await client.finished(client.send("GET", "/", BUCKET_HOST))
        assert other.body == b"ok"
    await idle(proxy)
    assert [received.method for received in upstream.received] == ["GET"]


@contextlib.asynccontextmanager
async def begun(proxy: Proxy, kind: str) -> AsyncIterator[asyncio.StreamReader]:
    """A connection whose client says no more than this."""
    said = {"nothing": b"", "half a ClientHello": b"\x16\x03\x01\x02\x00\x01", "a preface": b"PRI * HTTP/2.0\r\n"}
    to = proxy.reverse if kind in said else proxy.forward
    async with connected(to) as (reader, writer):
        if kind in said:
            writer.write(said[kind])
        else:
            writer.write(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode())
            assert (await asyncio.wait_for(read_response(reader, "HEAD"), 10)).status == 200
            if kind == "half a ClientHello inside":
                writer.write(b"\x16\x03\x01\x02\x00\x01")
        yield reader


BEGUN = ["nothing", "half a ClientHello", "a preface", "nothing inside", "half a ClientHello inside"]


@pytest.mark.parametrize("kind", BEGUN)
async def test_a_client_that_says_too_little(start: Start, upstream: Upstream, kind: str) -> None:
    proxy = await start(upstream, timeouts={"client_head": 0.3})
    async with begun(proxy, kind) as reader:
        told = await asyncio.wait_for(reader.read(), PATIENCE)
        assert told == b"" or told.startswith(b"HTTP/1.1 408")
    await until(lambda: metric(proxy, "sigward_client_connections") == 0)


async def test_an_idle_connection_is_closed(start: Start, upstream: Upstream) -> None:
    """Not one with a request under way, however long that takes."""
    held = Held()
    proxy = await start(upstream, timeouts={"client_idle": 0.2, "client_head": 30})
    async with connected(proxy.reverse) as (reader, writer), connected(proxy.reverse) as (busy, asking):
        upstream.answers = [held]
        asking.write(request())
        await upstream.wait_for(1)
        writer.write(request())
        assert (await asyncio.wait_for(read_response(reader), 10)).body == b"ok"
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        held.released.set()
        assert (await asyncio.wait_for(read_response(busy), 10)).body == b"ok"


async def test_an_idle_connection_of_http2_is_closed(start: Start, upstream: Upstream) -> None:
    held = Held()
    proxy = await start(upstream, timeouts={"client_idle": 0.5, "client_head": 30})
    async with http2(proxy) as busy:
        upstream.answers = [held]
        number = busy.send("GET", "/", HOST)
        await upstream.wait_for(1)
        async with http2(proxy) as unused, http2(proxy) as client:
            [stream] = await client.finished(client.send("GET", "/", HOST))
            assert stream.body == b"ok"
            for idle_one in (client, unused):
                await ended(idle_one)
                assert idle_one.terminated == 0
        held.released.set()
        [stream] = await busy.finished(number)
        assert stream.body == b"ok"


@pytest.mark.parametrize("size", [10, 200_000])
async def test_answers_that_nothing_is_taken_of_do_not_keep_a_connection(start: Start, upstream: Upstream, size: int) -> None:
    """Whole or in pieces. The client answers PINGs, but opens no window."""
    proxy = await start(upstream, timeouts={"client_write": 0.3, "client_idle": 0.5})
    upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size] * 3
    async with http2(proxy, BUCKET_HOST, window=0) as client:
        for _ in range(3):
            client.send("GET", "/k", BUCKET_HOST)
        await upstream.wait_for(3)
        await ended(client)
    await idle(proxy)


async def test_a_client_that_does_not_answer_goaway_is_not_waited_for(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, timeouts={"client_write": 0.3, "client_idle": 0.2})
    async with proxy.tunnel(f"{HOST}:443", HOST, ["h2"]) as (reader, writer):
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        while await asyncio.wait_for(reader.read(65536), PATIENCE):
            pass


async def ended(client: Http2Client) -> None:
    """Waits until the proxy has closed the connection."""
    with contextlib.suppress(ConnectionError):
        while data := await asyncio.wait_for(client.reader.read(65536), PATIENCE):
            # After GOAWAY h2 takes nothing more.
            with contextlib.suppress(h2.exceptions.ProtocolError):
                for event in client.connection.receive_data(data):
                    client._take(event)
            client.flush()


async def http1_reverse(proxy: Proxy, stack: contextlib.AsyncExitStack) -> asyncio.StreamReader:
    reader, writer = await asyncio.open_connection(*proxy.reverse, limit=1 << 16)
    # A method of the writer's: the connection is closed when nobody has that any more.
    stack.callback(writer.close)
    writer.write(request("GET", "/k", host=BUCKET_HOST))
    return reader


async def http1_tls(proxy: Proxy, stack: contextlib.AsyncExitStack) -> asyncio.StreamReader:
    reader, writer = await stack.enter_async_context(proxy.tunnel(f"{BUCKET_HOST}:443", BUCKET_HOST))
    stack.callback(writer.transport.abort)
    # Nothing more is taken from the socket.
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(request("GET", "/k", host=BUCKET_HOST))
    return reader


async def http2_window(proxy: Proxy, stack: contextlib.AsyncExitStack) -> asyncio.StreamReader:
    """The socket is read, but HTTP/2's windows stay closed."""
    client = await stack.enter_async_context(http2(proxy, BUCKET_HOST, window=65535))
    client.send("GET", "/k", BUCKET_HOST)
    return client.reader


@pytest.mark.fault("a client that takes nothing of its answer for too long", holds="its connection is closed")
@pytest.mark.parametrize("way", [http1_reverse, http1_tls, http2_window])
async def test_a_client_that_takes_nothing_is_let_go(
    start: Start, upstream: Upstream, way: Callable[[Proxy, contextlib.AsyncExitStack], Awaitable[asyncio.StreamReader]]
) -> None:
    """Its upstream's connection is free before the answer's time is over."""
    source = Source()
    upstream.answers = [source]
    proxy = await start(upstream, timeouts={"client_write": 0.3, "idle": 60})
    async with contextlib.AsyncExitStack() as stack:
        unread = await way(proxy, stack)
        await asyncio.wait_for(source.ended.wait(), PATIENCE)
        assert source.written < MUCH
        await until(lambda: slow(proxy, "answer") == 1)
        await idle(proxy)
        await until(lambda: metric(proxy, "sigward_client_connections") == 0)
        # asyncio goes on reading for a reader that is gone.
        assert unread is not None


async def test_a_stream_that_takes_nothing_does_not_end_the_others(start: Start, upstream: Upstream) -> None:
    """The upstream of the one is let go; whatever else is on the connection goes on."""
    source, held = Source(), Held()
    proxy = await start(upstream, timeouts={"client_write": 0.3})
    upstream.answers = [held]
    async with http2(proxy, BUCKET_HOST, window=65535) as client:
        other = client.send("GET", "/other", BUCKET_HOST)
        await upstream.wait_for(1)
        upstream.answers = [source]
        stuck = client.send("GET", "/k", BUCKET_HOST)
        await asyncio.wait_for(source.ended.wait(), PATIENCE)
        await until(lambda: slow(proxy, "answer") == 1)
        held.released.set()
        client.connection.increment_flow_control_window(1000)
        [stream] = await client.finished(other)
        assert stream.body == b"ok"
        # The other is seen to be broken as soon as its client opens a window.
        client.connection.increment_flow_control_window(1 << 20)
        if not client.streams[stuck].ended:
            client.grant(stuck, 1 << 20)
        [stream] = await client.finished(stuck)
        assert stream.reset is not None


@pytest.mark.mitmproxy("the native one ends such a connection, when nothing else is on it")
@pytest.mark.parametrize("size", [10, 200_000])
async def test_an_answer_that_stays_is_reset_and_the_others_go_on(start: Start, upstream: Upstream, size: int) -> None:
    """It is all here; its client opens no window for it."""
    proxy = await start(upstream, timeouts={"client_write": 0.3})
    upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size]
    async with http2(proxy, BUCKET_HOST, window=1) as client:
        [stream] = await client.finished(client.send("GET", "/k", BUCKET_HOST))
        assert (stream.headers[":status"], bytes(stream.body), stream.whole) == ("200", b"x", False)
        assert stream.reset is not None
        assert slow(proxy, "answer") == 1
        other = client.send("DELETE", "/other", BUCKET_HOST)
        client.grant(other, 100)
        [stream] = await client.finished(other)
        assert stream.body == b"ok"


@pytest.mark.parametrize("version", ["http1", "http2"])
async def test_a_client_that_takes_little_at_a_time_is_served(start: Start, upstream: Upstream, version: str) -> None:
    """And a slow upstream is not the client's fault."""
    proxy = await start(upstream, timeouts={"client_write": 0.3})
    go_on = asyncio.Event()
    much = 4 << 20

    async def slowly(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (much + 5) + b"x" * much)
        await writer.drain()
        await go_on.wait()
        writer.write(b"ended")

    upstream.answers = [slowly]
    # Another client that is let go in the meantime: so long has it taken.
    source = Source()

    async def one_is_let_go() -> None:
        upstream.answers.append(source)
        async with contextlib.AsyncExitStack() as stack:
            unread = await http1_reverse(proxy, stack)
            await until(lambda: slow(proxy, "answer") == 1)
            assert unread is not None

    if version == "http1":
        reader, writer = await asyncio.open_connection(*proxy.reverse, limit=1 << 16)
        writer.write(request("GET", "/k", host=BUCKET_HOST))
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(much)
        await one_is_let_go()
        go_on.set()
        assert await asyncio.wait_for(reader.readexactly(5), 10) == b"ended"
        writer.close()
        return
    async with http2(proxy, BUCKET_HOST) as client:
        number = client.send("GET", "/k", BUCKET_HOST)
        while len(client.streams[number].body) < much:
            await asyncio.wait_for(client.read(), 10)
        await one_is_let_go()
        go_on.set()
        [stream] = await client.finished(number)
        assert stream.body.endswith(b"ended")


def test_nothing_is_unlimited() -> None:
    """The defaults hold for whoever sets nothing."""
    from sigward.settings import Limits, Timeouts

    defaults: dict[str, Any] = Limits().model_dump() | Timeouts().model_dump(include={"client_head", "client_idle", "client_write"})
    assert all(value for value in defaults.values())
