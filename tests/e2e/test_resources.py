"""What a running sigward takes of its machine while hosts are many and clients do not read: descriptors and memory have bounds."""

import asyncio
import contextlib
import http.client
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sigward.demo.gateway import Gateway
from tests.conformance.test_http2 import Http2Client
from tests.e2e.test_faults import SQS, Local, metric
from tests.support import Received, Upstream, counted, read_response

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PATIENCE = 90.0
BUCKETS = "s3.us-east-1.amazonaws.com"
LIMIT = 128
"""Descriptors; the mitmproxy front has about 40 by itself."""
HOSTS = LIMIT


@pytest.fixture(params=["mitmproxy", "native"])
def front(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Local]:
    async with Upstream() as running:
        yield Local(running, running.write_ca(tmp_path / "ca.pem"))


@contextlib.asynccontextmanager
async def running(local: Local, front: str, **settings: object) -> AsyncIterator[Gateway]:
    gateway = await asyncio.to_thread(Gateway(local, front=front, **settings).__enter__)
    try:
        await asyncio.to_thread(gateway.wait_ready)
        yield gateway
    finally:
        await asyncio.to_thread(gateway.close)


@pytest.mark.fault("more hosts than descriptors", holds="idle upstream connections have a bound in all; every call is answered")
async def test_more_hosts_than_descriptors(front: str, upstream: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each made-up bucket is a host of its own, and its connection would stay for as long as an idle one may."""
    limited = tmp_path / "limited"
    limited.write_text(f'#!/bin/sh\nulimit -n {LIMIT}\nexec {sys.executable} "$@"\n')
    limited.chmod(0o700)
    monkeypatch.setattr("sigward.demo.gateway.sys.executable", str(limited))
    async with running(upstream, front, retry={"mode": "off"}) as gateway:

        def ask_all() -> list[int]:
            host, _, port = gateway.addresses["by-host"].rpartition(":")
            client = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
            told = []
            for number in range(HOSTS):
                client.request("GET", "/key", headers={"host": f"made-up-{number}.{BUCKETS}"})
                response = client.getresponse()
                response.read()
                told.append(response.status)
            client.close()
            return told

        assert set(await asyncio.to_thread(ask_all)) == {200}
        metrics = (await asyncio.to_thread(gateway.admin, "/metrics"))[1]
        assert counted(metrics, "sigward_descriptors", kind="limit") == LIMIT
        assert 0 < counted(metrics, "sigward_descriptors", kind="open") < LIMIT
        assert 0 < counted(metrics, "sigward_idle_upstream_connections") <= LIMIT // 4
        assert counted(metrics, "sigward_idle_upstream_closed_total", reason="bound") > HOSTS // 3


# ---------------------------------------------------------------- clients that do not read

LARGE, SMALL = 4 << 20, 60_000
KEPT = 64 << 20
"""Bytes that stay when clients go: caches, and what lies between."""


def enough(streams: int) -> int:
    """Bytes that so many streams may take: about 160 KiB each, for a connection with TLS, a piece of the answer and what mitmproxy shows of
    the flow. Without a bound it was 700."""
    return (32 << 20) + streams * (220 << 10)


def resident(gateway: Gateway) -> int:
    fields = Path(f"/proc/{gateway.child.process.pid}/statm").read_text().split()
    return int(fields[1]) * 4096


SAMPLES = 5
"""In a row, that differ by 1 MiB at most."""


async def settled(size: Callable[[], int]) -> int:
    """What it is when it does not grow any more."""
    async with asyncio.timeout(PATIENCE):
        seen: list[int] = []
        while len(seen) < SAMPLES or max(seen[-SAMPLES:]) - min(seen[-SAMPLES:]) > 1 << 20:
            seen.append(size())
            await asyncio.sleep(0.4)
    return seen[-1]


async def glance(client: Http2Client) -> None:
    """Takes in the heads: a client that reads nothing at all is not read from either."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(client.read(), 0.05)


@pytest.mark.timeout(400)
@pytest.mark.fault(
    "hundreds of unread answers on one connection", holds="they are bounded for the connection, and given up when its client goes"
)
@pytest.mark.parametrize(
    ("protocol", "size", "count"),
    [
        ("h2", LARGE, 150),
        pytest.param("h2", LARGE, 400, marks=pytest.mark.long),
        pytest.param("h2", SMALL, 1000, marks=pytest.mark.long),
        pytest.param("http/1.1", SMALL, 5000, marks=pytest.mark.long),
    ],
)
async def test_answers_that_nobody_reads(front: str, upstream: Local, protocol: str, size: int, count: int) -> None:
    """`SMALL`: each is told in one piece. HTTP/1.1: the requests are sent one behind the other, without a look at the answers."""

    async def answer(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(0, size, SMALL):
            writer.write(bytes(SMALL))
            await writer.drain()

    upstream.upstream.answers = [answer] * 5000
    async with running(upstream, front) as gateway:
        before = resident(gateway)
        listener = gateway.addresses["forward" if protocol == "h2" else "by-host"]
        reader, writer = await asyncio.open_connection(*listener.rsplit(":", 1), limit=1 << (20 if protocol == "h2" else 14))
        host = f"bucket.{BUCKETS}"
        if protocol == "h2":
            context = ssl.create_default_context(cafile=str(gateway.ca_file))
            context.set_alpn_protocols(["h2"])
            writer.write(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
            assert (await read_response(reader, "HEAD")).status == 200
            await writer.start_tls(context, server_hostname=host)
            client = Http2Client(reader, writer, 0)
            for number in range(count):
                client.send("GET", f"/{number}", host)
                await writer.drain()
                if number % 50 == 0:
                    await glance(client)
        else:
            writer.write(f"GET /key HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() * count)
            await writer.drain()
        async with asyncio.timeout(PATIENCE):
            while len(upstream.upstream.received) < (count if protocol == "h2" else 20):
                await (glance(client) if protocol == "h2" else asyncio.sleep(0.05))
        grown = await settled(lambda: resident(gateway)) - before
        assert grown < enough(count if protocol == "h2" else 0), f"{grown >> 20} MiB"

        # Others are served meanwhile.
        def ask() -> int:
            other = http.client.HTTPConnection(gateway.addresses["by-host"], timeout=PATIENCE)
            other.request("GET", "/other", headers=SQS)
            response = other.getresponse()
            response.read()
            other.close()
            return response.status

        assert await asyncio.to_thread(ask) == 200
        writer.transport.abort()
        async with asyncio.timeout(PATIENCE):
            while await asyncio.to_thread(metric, gateway, "sigward_in_flight_requests"):
                await asyncio.sleep(0.05)
            # The engine's threads give it back four times a minute.
            while resident(gateway) > before + KEPT:
                await asyncio.sleep(0.2)


UPLOADS = 15


@pytest.mark.long
@pytest.mark.fault("uploads on one connection that the upstream does not read", holds="they are bounded for the connection together")
async def test_uploads_that_nobody_reads(front: str, upstream: Local) -> None:
    """An upstream that takes connections, and not even shakes hands: nothing leaves sigward."""
    with socket.create_server(("127.0.0.1", 0), backlog=UPLOADS) as deaf:
        upstream.upstream.port = deaf.getsockname()[1]
        await unread_uploads(front, upstream)


async def unread_uploads(front: str, upstream: Local) -> None:
    """Sends as much as is taken in."""
    async with running(upstream, front, timeouts={"connect": "60s"}, body={"hold": 1000}) as gateway:
        host = f"bucket.{BUCKETS}"
        context = ssl.create_default_context(cafile=str(gateway.ca_file))
        context.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection(*gateway.addresses["forward"].rsplit(":", 1))
        writer.write(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
        assert (await read_response(reader, "HEAD")).status == 200
        await writer.start_tls(context, server_hostname=host)
        client = Http2Client(reader, writer)
        sent = 0
        for number in range(UPLOADS):
            stream = client.begin("PUT", f"/{number}", host, ("content-length", str(LARGE)))
            sent += await client.upload(stream, LARGE, patience=0.05)
        assert 0 < sent < 32 << 20, f"{sent >> 20} MiB were taken in"
        writer.transport.abort()
