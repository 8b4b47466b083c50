"""What goes wrong around sigward, one fault at a time: the client is told, the operator can see it, and the next request works."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, cast

import h2.exceptions
import pytest
import pytest_asyncio

from sigward import _core
from sigward.credentials import Chain, Failure, Found, Keeper, Snapshot
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_hooks import idle
from tests.conformance.test_http2 import Http2Client
from tests.conformance.test_requests import request
from tests.conformance.test_retries import answer, hang_up
from tests.far import Far
from tests.support import (
    KEY,
    OK,
    SECRET,
    Answer,
    Received,
    Response,
    Upstream,
    assert_signed,
    authorization,
    connected,
    counted,
    read_response,
)

GONE = "gone.sigward.invalid"
"""A name that does not resolve (RFC 6761, section 6.4)."""
BROKEN = (asyncio.IncompleteReadError, ConnectionError)
"""What a client sees of an answer that is not whole."""


async def works(proxy: Proxy) -> None:
    """The next request does, at its first attempt."""
    response = await proxy.ask(request())
    assert (response.status, response.body, response.get("x-sigward-attempts")) == (200, b"ok", "1")
    await idle(proxy)


def refused(response: Response, status: int, slug: str, *words: str) -> None:
    """It is sigward's own answer, in the shape of SQS's protocol, and says what is wrong."""
    assert (response.status, response.get("x-sigward-error")) == (status, slug), response
    for word in ("sigward: ", *words):
        assert word in response.body.decode(), response.body


# ---------------------------------------------------------------- the upstream breaks

HEAD = b"HTTP/1.1 200 OK\r\n"
SMALL, LARGE = b"x" * 10, b"x" * (256 << 10)


def breaks_off(begun: bytes, *, reset: bool) -> Answer:
    """An answer that ends where it should not: in good order (TLS is closed as it should be), or by a reset."""

    async def broken(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        await writer.drain()
        if reset:
            writer.transport.abort()
        writer.close()

    return broken


BREAKS = {
    "a small body, of known length": HEAD + b"content-length: 100\r\n\r\n" + SMALL,
    "a large body, of known length": HEAD + b"content-length: 1000000\r\n\r\n" + LARGE,
    "between chunks": HEAD + b"transfer-encoding: chunked\r\n\r\na\r\n" + SMALL + b"\r\n",
    "in a chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n64\r\n" + SMALL,
    "before the last chunk's end": HEAD + b"transfer-encoding: chunked\r\n\r\na\r\n" + SMALL + b"\r\n0\r\n",
    "an error's body, of known length": b"HTTP/1.1 400 X\r\ncontent-length: 100\r\n\r\n" + SMALL,
    "an error's body, between chunks": b"HTTP/1.1 400 X\r\ntransfer-encoding: chunked\r\n\r\na\r\n" + SMALL + b"\r\n",
}


@pytest.mark.fault("an upstream that dies, or resets, within its answer", holds="the client sees that the answer is not whole")
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("where", BREAKS)
async def test_an_upstream_that_dies_in_its_answer(proxy: Proxy, where: str, reset: bool) -> None:
    """A client must not take what came for the whole."""
    proxy.upstream.answers = [breaks_off(BREAKS[where], reset=reset)] * 2
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request())
        with pytest.raises(BROKEN):
            await asyncio.wait_for(read_response(reader), 10)
    async with proxy.tunnel(f"{HOST}:443", HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        number = client.send("GET", "/", HOST)
        with contextlib.suppress(AssertionError, ConnectionError):
            await asyncio.wait_for(client.finished(number), 10)
        assert client.streams[number].reset is not None or not client.streams[number].ended, "the stream came to its end"
    assert len(proxy.upstream.received) == 2, "nothing is repeated once an answer has begun"
    await works(proxy)


@pytest.mark.fault("an error's body that does not come to its end", holds="the client has the head when `timeouts.total` ends")
@pytest.mark.native("mitmproxy shows its hooks a small answer whole")
async def test_an_errors_body_that_does_not_go_on(start: Start, upstream: Upstream) -> None:
    """Its code is read from it, if it comes in time."""

    async def stalled(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 X\r\ntransfer-encoding: chunked\r\n\r\na\r\n" + SMALL + b"\r\n")
        await writer.drain()
        await asyncio.Event().wait()

    upstream.answers = [stalled]
    proxy = await start(upstream, timeouts={"total": 1, "idle": 3600})
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    assert head.startswith(b"HTTP/1.1 400 "), head
    await works(proxy)


@pytest.mark.fault("credentials that do not come", holds="the client has its answer when `timeouts.total` ends")
async def test_credentials_that_do_not_come(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, credentials=False, timeouts={"total": 1, "credentials": 3600})
    refused(await proxy.ask(request()), 503, "no-credentials")
    assert not upstream.received


async def test_answers_that_break_off_are_counted(proxy: Proxy) -> None:
    proxy.upstream.answers = [breaks_off(BREAKS["a large body, of known length"], reset=True)]
    with pytest.raises(BROKEN):
        await proxy.ask(request())
    await idle(proxy)
    assert counted(proxy.engine.metrics(), "sigward_broken_answers_total", service="sqs") == 1


@pytest.mark.fault(
    "an upstream that dies, or resets, before its answer",
    holds="a call that is safe to repeat is tried again; the last failure is a 502 that says why",
)
@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\ncontent-le"], ids=["no byte", "half a head"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_an_upstream_that_dies_before_its_head(proxy: Proxy, begun: bytes, reset: bool) -> None:
    proxy.upstream.answers = [breaks_off(begun, reset=reset)] * 3
    response = await proxy.ask(request())
    refused(response, 502, "connection-broken", HOST)
    assert response.get("x-sigward-attempts") == "3"
    metrics = proxy.engine.metrics()
    assert counted(metrics, "sigward_requests_total", service="sqs", code="502") == 1
    assert counted(metrics, "sigward_retries_total", cause="connection-broken") == 2
    await works(proxy)


@pytest.mark.fault(
    "an upstream that dies, or resets, before its answer",
    holds="a call that is safe to repeat is tried again; the last failure is a 502 that says why",
)
async def test_an_upstream_that_dies_once_before_its_head_is_not_noticed(proxy: Proxy) -> None:
    proxy.upstream.answers = [hang_up]
    response = await proxy.ask(request())
    assert (response.status, response.get("x-sigward-attempts")) == (200, "2")


@pytest.mark.fault("an upstream that refuses connections", holds="a 502 that says why; it works again as soon as the upstream does")
async def test_an_upstream_that_refuses_connections(proxy: Proxy) -> None:
    """Its port is taken all the while, so that nobody else gets it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        proxy.point_to(taken.getsockname()[1])
        response = await proxy.ask(request())
        refused(response, 502, "connect-failed", HOST)
        metrics = proxy.engine.metrics()
        assert counted(metrics, "sigward_requests_total", service="sqs", code="502") == 1
        assert counted(metrics, "sigward_retries_total", cause="connect-failed") == 2
        server = await asyncio.start_server(proxy.upstream._serve, sock=taken, ssl=proxy.upstream.context)
        async with server:
            await works(proxy)


# ---------------------------------------------------------------- names that do not resolve


@pytest.mark.fault("a name that does not resolve", holds="a 502 that says so; it works again as soon as the name resolves")
async def test_an_upstreams_name_that_does_not_resolve(start: Start, upstream: Upstream) -> None:
    def route(target: str) -> list[dict[str, str]]:
        return [{"host": "*.amazonaws.com", "connect": target}]

    # A resolver that cannot be reached is as good as one that knows no such name.
    proxy = await start(upstream, routes=route(f"{GONE}:443"), timeouts={"connect": 2})
    for _ in range(2):
        response = await proxy.ask(request())
        refused(response, 502, "connect-failed", HOST, "DNS")
        assert response.get("x-sigward-attempts") == "3"
    metrics = proxy.engine.metrics()
    assert counted(metrics, "sigward_requests_total", service="sqs", code="502") == 2
    assert counted(metrics, "sigward_retries_total", cause="connect-failed") == 4
    assert upstream.connections == 0
    proxy.point_to(upstream.port, routes=route(f"localhost:{upstream.port}"))
    await works(proxy)


@pytest.mark.fault("a name that does not resolve", holds="a tunnel there is refused and says so")
async def test_a_tunnel_to_a_name_that_does_not_resolve(proxy: Proxy) -> None:
    raw = f"CONNECT {GONE}:443 HTTP/1.1\r\nHost: {GONE}:443\r\n\r\n".encode()
    response = await proxy.ask(raw, to=proxy.forward)
    assert (response.status, response.get("x-sigward-error")) == (502, "connect-failed")
    assert GONE in response.body.decode()
    await works(proxy)


# ---------------------------------------------------------------- the disk is full

HOLD = 65536
SPOOLED = 2 << 20
SMUGGLED = request("DELETE", "/smuggled")
"""Stands in a body: whoever loses count of it takes this for a request."""


@pytest.fixture(params=["full", "gone"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A directory that takes no large file, and what mends it."""
    directory = tmp_path / "spool"
    directory.mkdir()
    if request.param == "gone":
        yield directory, directory.mkdir
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SPOOLED // 4}", "spool", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small disk can be mounted by root alone")

    def grow() -> None:
        subprocess.run(["mount", "-o", f"remount,size={4 * SPOOLED}", str(directory)], check=True)

    try:
        yield directory, grow
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


Disk = tuple[Path, Callable[[], None]]


@pytest_asyncio.fixture
async def spooling(start: Start, upstream: Upstream, disk: Disk) -> Proxy:
    running: Proxy = await start(upstream, body={"hold": HOLD, "spool_dir": str(disk[0])})
    if not disk[0].is_mount():
        # It was there at the start, else sigward would not have started.
        disk[0].rmdir()
    return running


def upload(size: int = SPOOLED) -> tuple[bytes, bytes]:
    """(head, body) of a request whose body is hashed before it is sent."""
    return request("POST", "/", f"Content-Length: {size}"), (SMUGGLED * (size // len(SMUGGLED) + 1))[:size]


@pytest.mark.fault(
    "a disk that is full, or gone, during an upload",
    holds="the client is told, nothing goes upstream, and the connection is not read wrongly",
)
async def test_a_disk_that_is_full(spooling: Proxy, disk: Disk) -> None:
    """Who has sent half of a body is told, and what follows is body still, and no request."""
    proxy, (head, body) = spooling, upload()
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(head + body[: SPOOLED // 2])
        response = await asyncio.wait_for(read_response(reader), 10)
        refused(response, 500, "internal", "spooled", "spool_dir")
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            writer.write(body[SPOOLED // 2 :] + request("GET", "/next"))
            after = await asyncio.wait_for(read_response(reader), 10)
            assert (after.status, after.body) == (200, b"ok")
    assert {received.target for received in proxy.upstream.received} <= {"/next"}
    assert counted(proxy.engine.metrics(), "sigward_requests_total", service="sqs", code="500") == 1
    await works(proxy)
    disk[1]()
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(head + body)
        assert (await asyncio.wait_for(read_response(reader), 10)).status == 200
    assert proxy.upstream.received[-1].body == body
    assert_signed(proxy.upstream.received[-1], HOST)


@pytest.mark.fault("a disk that is full, or gone, during an upload", holds="a client that does not read until all is sent gets its answer")
async def test_who_sends_on_while_the_disk_is_full_is_told(spooling: Proxy) -> None:
    """More than all sockets hold: who does not read until all is sent gets the answer all the same."""
    head, body = upload(32 << 20)

    def send_all_then_read() -> bytes:
        with socket.create_connection(spooling.reverse, 30) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(head + body)
            got = b""
            with contextlib.suppress(ConnectionError):
                while b"\r\n\r\n" not in got and (piece := connection.recv(65536)):
                    got += piece
            return got

    got = await asyncio.to_thread(send_all_then_read)
    assert got.startswith(b"HTTP/1.1 500 "), got
    assert b"x-sigward-error: internal\r\n" in got.lower()
    await works(spooling)


@pytest.mark.fault("a disk that is full, or gone, during an upload", holds="one stream of HTTP/2 ends, the others go on")
async def test_a_disk_that_is_full_ends_one_stream_of_http2(spooling: Proxy) -> None:
    proxy = spooling
    async with proxy.tunnel(f"{HOST}:443", HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        number = client.begin("POST", "/", HOST, ("content-length", str(SPOOLED)))
        other = client.send("GET", "/other", HOST)
        # The native front resets the stream once it has answered; mitmproxy's takes what still comes (docs/fronts.md).
        with contextlib.suppress(h2.exceptions.StreamClosedError):
            await client.upload(number, SPOOLED - 1, 1)
        stream = client.streams[number]
        async with asyncio.timeout(10):
            while len(stream.body) < int(stream.headers.get("content-length", "1")):
                await client.read()
        assert (stream.headers[":status"], stream.headers["x-sigward-error"]) == ("500", "internal")
        if not stream.ended:
            client.connection.send_data(number, b"x", end_stream=True)
        [fine, after] = await client.finished(other, client.send("GET", "/after", HOST))
        assert bytes(fine.body + after.body) == b"okok"
        await client.finished(number)
    assert [received.target for received in proxy.upstream.received] == ["/other", "/after"]


async def test_what_was_not_sent_is_no_attempt(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    spool = tmp_path / "gone"
    spool.mkdir()
    proxy = await start(upstream, body={"hold": HOLD, "spool_dir": str(spool)})
    spool.rmdir()
    response = await proxy.ask(b"".join(upload()))
    assert (response.status, upstream.received) == (500, [])
    assert response.get("x-sigward-attempts") is None
    assert counted(proxy.engine.metrics(), "sigward_attempts_total") == 0


# ---------------------------------------------------------------- clocks

HOUR = timedelta(hours=1)


class Clocked(Upstream):
    """AWS with a clock of its own, `ahead` of ours; checks signatures. `code`: "header" or "body", where its errors stand."""

    ahead = timedelta()
    code = "header"
    refusals = 0

    async def judge(self, received: Received, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert_signed(received, HOST)
        now = datetime.now(UTC) + self.ahead
        signed = datetime.strptime(received.get("x-amz-date") or "", "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        date = f"Date: {format_datetime(now, usegmt=True)}"
        if abs(now - signed) <= timedelta(minutes=5):
            writer.write(answer(200, b"ok", date))
            return
        self.refusals += 1
        if self.code == "header":
            writer.write(answer(403, b"", date, "x-amzn-errortype: RequestTimeTooSkewed"))
        else:
            writer.write(answer(403, b"<ErrorResponse><Error><Code>RequestTimeTooSkewed</Code></Error></ErrorResponse>", date))


@pytest.mark.fault("a clock that is an hour off", holds="corrected at the first refusal, once")
@pytest.mark.parametrize("code", ["header", "body"])
async def test_a_clock_that_is_an_hour_off_is_corrected_once(start: Start, code: str) -> None:
    async with Clocked() as upstream:
        upstream.answers, upstream.code = [upstream.judge] * 1000, code
        proxy = await start(upstream)
        for steps, ahead in enumerate((HOUR, timedelta(), -HOUR), 1):
            upstream.ahead = ahead
            response = await proxy.ask(request())
            # No step before the first: sigward's clock is the same then.
            assert (response.status, response.get("x-sigward-attempts")) == (200, "2")
            for _ in range(3):
                await works(proxy)
            assert upstream.refusals == steps
            assert counted(proxy.engine.metrics(), "sigward_retries_total", service="sqs", cause="403 clock") == steps


@pytest.mark.fault("a clock that is stepped under load", holds="no call fails that was signed by the old time")
async def test_a_clock_that_is_stepped_under_load(start: Start) -> None:
    """None of those that were signed by the old time fails."""
    async with Clocked() as upstream:
        upstream.answers = [upstream.judge] * 1000
        proxy = await start(upstream)
        await works(proxy)
        upstream.ahead = HOUR
        responses = await asyncio.gather(*(proxy.ask(request()) for _ in range(50)))
        assert [response.status for response in responses] == [200] * 50
        assert all(response.get("x-sigward-attempts") in ("1", "2") for response in responses)
        assert upstream.refusals >= 1
        await works(proxy)


# ---------------------------------------------------------------- credentials

EXPIRED = b"HTTP/1.1 403 Forbidden\r\nx-amzn-errortype: ExpiredTokenException\r\ncontent-length: 0\r\n\r\n"
MANY, WAVE = 1000, 100


class Source(Chain):
    """A chain that gives what it is told to, and counts. `may`: it answers only then."""

    def __init__(self, outcome: Found | Failure) -> None:
        self.outcome = outcome
        self.loads = 0
        self.may = threading.Event()
        self.may.set()

    def load(self, _now: object = None) -> Found | Failure:
        self.loads += 1
        assert self.may.wait(60)
        return self.outcome


def keys(name: str, expires_at: float | None = None) -> Found:
    return Found(Snapshot(name, SECRET, None, expires_at, "container-role"), ())


DOWN = Failure((("container-role", "the endpoint does not answer"),))


class Kept:
    """A keeper between a source and the engine. The keeper's time passes when `pass_time` says so, or when it is asked."""

    def __init__(self, proxy: Proxy, outcome: Found | Failure) -> None:
        self.proxy, self.source = proxy, Source(outcome)
        self.asked: list[str] = []
        self.later = 0.0
        self.pause = 0.0
        self.resting = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.keeper = Keeper(self.source, self.publish, self.fail, clock=lambda: time.time() + self.later, wait=self.wait)
        proxy.on_refresh = self.refresh

    def publish(self, snapshot: Snapshot) -> None:
        expires_at = snapshot.expires_at
        self.proxy.engine.set_credentials("default", snapshot.access_key_id, SECRET, None, expires_at, snapshot.provider)

    def fail(self, reasons: tuple[tuple[str, str], ...]) -> None:
        self.proxy.engine.set_credentials_failed("default", reasons)

    def refresh(self, name: str) -> None:
        self.asked.append(name)
        self.keeper.request_refresh()

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        self.pause = seconds or 0.0
        self.resting.release()
        while not event.is_set() and not self.go.acquire(timeout=0.01):
            pass
        return event.is_set()

    async def rests(self) -> None:
        """Waits until the keeper does."""
        assert await asyncio.to_thread(self.resting.acquire, timeout=10), "the keeper does not come to rest"

    async def pass_time(self) -> None:
        """What the keeper waits for passes, and it has loaded once more."""
        self.later += self.pause
        self.go.release()
        await self.rests()


@contextlib.asynccontextmanager
async def kept(proxy: Proxy, outcome: Found | Failure) -> AsyncIterator[Kept]:
    running = Kept(proxy, outcome)
    running.keeper.start()
    try:
        await running.rests()
        yield running
    finally:
        running.source.may.set()
        running.keeper.close()
        await asyncio.to_thread(running.keeper._pool.join, 10)


@pytest.mark.fault("credentials that expire under 1,000 requests in flight", holds="one refresh; every call is signed again and succeeds")
@pytest.mark.usefixtures("many_descriptors")
async def test_credentials_that_expire_under_a_thousand_requests(start: Start, upstream: Upstream) -> None:
    """All of them are with AWS when it says so; half of the answers come before the refresh is done, half after it."""
    proxy = await start(upstream, credentials=False, retry={"attempts": 1})
    first, rest = asyncio.Event(), asyncio.Event()
    old = 0

    async def judge(received: Received, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal old
        if not authorization(received)["Credential"].startswith(f"{KEY}/"):
            writer.write(OK)
            return
        old += 1
        await (first if old <= MANY // 2 else rest).wait()
        writer.write(EXPIRED)

    upstream.answers = [judge] * (3 * MANY)
    async with kept(proxy, keys(KEY)) as credentials:
        credentials.source.outcome = keys("AKIDRENEWED")
        credentials.source.may.clear()
        asking: list[asyncio.Task[Response]] = []
        while len(asking) < MANY:
            asking += [asyncio.create_task(proxy.ask(request(), patience=60)) for _ in range(WAVE)]
            await upstream.wait_for(len(asking))
        assert proxy.engine.in_flight() == MANY
        first.set()
        async with asyncio.timeout(30):
            while credentials.source.loads != 2:
                await asyncio.sleep(0.01)
        credentials.source.may.set()
        # Those of the first half have their answers before the second half is told.
        async with asyncio.timeout(30):
            while sum(task.done() for task in asking) < MANY // 2:
                await asyncio.sleep(0.01)
        rest.set()
        responses = await asyncio.gather(*asking)
        assert [(response.status, response.get("x-sigward-attempts")) for response in responses] == [(200, "2")] * MANY
        assert old == MANY
        assert credentials.asked == ["default"]
        assert credentials.source.loads == 2
        assert counted(proxy.engine.metrics(), "sigward_retries_total", cause="403 expired") == MANY
        await works(proxy)
    assert authorization(upstream.received[-1])["Credential"].startswith("AKIDRENEWED/")


@pytest.mark.fault(
    "a source of credentials that fails for minutes",
    holds="good keys go on serving; expired ones sign nothing, and the client is told why",
)
async def test_a_keeper_that_fails_for_minutes(start: Start, upstream: Upstream) -> None:
    """While the old keys are good they serve; when they are not, clients are told why; and new ones serve at once."""
    proxy = await start(upstream, credentials=False)
    async with kept(proxy, keys(KEY, time.time() + 3600)) as credentials:
        await works(proxy)
        credentials.source.outcome = DOWN
        failed_from = credentials.later + credentials.pause
        while credentials.later < failed_from + 300:
            await credentials.pass_time()
            await works(proxy)
        assert credentials.source.loads > 3
        assert proxy.engine.metrics().count("sigward_credentials_expiry_timestamp_seconds{") == 1
        assert counted(proxy.engine.metrics(), "sigward_credentials_expiry_timestamp_seconds", identity="default") > time.time()
        # The engine goes by the wall clock: here they do run out.
        proxy.engine.set_credentials("default", KEY, SECRET, None, time.time() + 1, "container-role")
        credentials.fail(DOWN.reasons)
        statuses = []
        async with asyncio.timeout(30):
            while (response := await proxy.ask(request())).status == 200:
                statuses.append(response.status)
        assert statuses, "they were good for a while"
        refused(response, 503, "no-credentials", "container-role: the endpoint does not answer")
        arrived = len(upstream.received)
        assert (await proxy.ask(request())).status == 503
        assert len(upstream.received) == arrived, "nothing goes out unsigned, or signed with them"
        assert not proxy.engine.is_ready()
        metrics = proxy.engine.metrics()
        assert counted(metrics, "sigward_requests_total", service="sqs", code="503") == 2
        assert counted(metrics, "sigward_credentials_expiry_timestamp_seconds", identity="default") < time.time()
        credentials.source.outcome = keys("AKIDRENEWED", time.time() + credentials.later + 3600)
        await credentials.pass_time()
        await works(proxy)
    assert authorization(upstream.received[-1])["Credential"].startswith("AKIDRENEWED/")


async def test_a_keeper_that_fails_is_counted(proxy: Proxy) -> None:
    proxy.engine.set_credentials_failed("default", DOWN.reasons)
    await works(proxy)
    assert counted(proxy.engine.metrics(), "sigward_credentials_failures_total", identity="default") == 1


# ---------------------------------------------------------------- a busy Python

ENOUGH = 50
"""Answers."""


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    running = Far(tmp_path / "far")
    yield running
    running.close()


def hold_up(far: Far, seconds: float) -> int:
    """Holds the interpreter until the other process has got `ENOUGH` more answers, or for so long. Gives how many it has got."""
    before, end = far.answers, time.monotonic() + seconds
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    try:
        while (got := far.answers - before) < ENOUGH and time.monotonic() < end:
            pass
    finally:
        sys.setswitchinterval(interval)
    return got


@pytest.mark.fault("an interpreter that is held up", holds="the native front goes on serving; mitmproxy's waits, then goes on")
async def test_a_busy_python_does_not_delay_native_requests(start: Start, far: Far, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Client and upstream are another process's. mitmproxy's front needs Python, which shows that it was held up indeed."""
    native = request.node.callspec.params["start"] == "native"
    proxy = await start(cast(Any, far), access_log=str(tmp_path / "access.log"))
    far.ask(proxy.reverse)
    async with asyncio.timeout(30):
        while far.answers < 3:
            await asyncio.sleep(0.01)
    got = hold_up(far, 30.0 if native else 1.0)
    # One answer may have been on its way.
    assert got >= ENOUGH if native else got <= 1
    async with asyncio.timeout(30):
        before = far.answers
        while far.answers < before + 3:
            await asyncio.sleep(0.01)
    # It goes on asking.
    answers = far.answers
    assert counted(proxy.engine.metrics(), "sigward_requests_total", service="sqs", code="200") >= answers - 1


# ---------------------------------------------------------------- the end

HASHED = 128 << 20
"""Bytes whose hash takes the engine a while, all of it in one go."""


@pytest.mark.fault("SIGTERM while requests are in the sockets", holds="each of them is answered")
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_what_is_in_its_sockets_when_it_drains_is_answered(start: Start, upstream: Upstream) -> None:
    """Requests that have come while the engine was busy, on connections that it has known for long, are no less accepted."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        busy = "kms.us-east-1.amazonaws.com"
        routes = [{"host": busy, "connect": f"127.0.0.1:{nobody.getsockname()[1]}"}]
        routes.append({"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}"})
        proxy = await start(upstream, body={"hold": 2 * HASHED}, retry={"mode": "off"}, routes=routes, grace=20.0)
        clients = [await asyncio.to_thread(socket.create_connection, proxy.reverse, 20) for _ in range(8)]
        for client in clients:
            client.sendall(REQUEST)
            assert (await asyncio.to_thread(client.recv, 65536)).startswith(b"HTTP/1.1 200 ")
        headers = [(b"Host", busy.encode()), (b"Content-Length", b"%d" % HASHED)]
        body, before = bytes(HASHED), engine_worked()
        proxy.engine.submit(_core.ENTRY_REVERSE, b"POST", b"https", busy, 443, b"/", headers, body, "127.0.0.1")
        end = time.monotonic() + 20
        while engine_worked() < before + BEGUN:
            assert time.monotonic() < end, "it does not begin"
        # All that follows until `drain` takes less time than the hash.
        for client in clients:
            client.sendall(REQUEST)
        draining = asyncio.create_task(proxy.front.drain())
        answers = await asyncio.gather(*(asyncio.to_thread(received_by, client) for client in clients))
        await asyncio.wait_for(draining, 30)
    assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * len(clients)


REQUEST = request()
BEGUN = 5_000_000
"""Nanoseconds of the engine's work: it is at the hash."""


def engine_worked() -> int:
    """Nanoseconds that the engine's thread has run for."""
    engines = [task for task in Path("/proc/self/task").glob("*/comm") if task.read_text() == "sigward-0\n"]
    return sum(int((engine.parent / "schedstat").read_text().split()[0]) for engine in engines)


def received_by(client: socket.socket) -> bytes:
    """What comes next; nothing, if the connection ends."""
    with client, contextlib.suppress(ConnectionError):
        return client.recv(65536)
    return b""
