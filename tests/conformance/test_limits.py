"""What clients may take of the native front, and what becomes of those that want more. The mitmproxy front has mitmproxy's limits."""

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from sigward import _core
from sigward.ca import CertificateAuthority
from sigward.front import FrontOptions, NativeFront
from tests.conformance.conftest import HOST, Start
from tests.conformance.test_lifetimes import Release
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import KEY, SECRET, Response, Upstream, assert_signed, connected, counted, engine_settings, read_response

pytestmark = pytest.mark.native("mitmproxy has limits of its own")


async def shown(engine: _core.Engine, name: str, **labels: str) -> None:
    """Waits until a metric is not 0."""
    async with asyncio.timeout(10):
        while not counted(engine.metrics(), name, **labels):
            await asyncio.sleep(0.01)


async def test_more_connections_than_may_be_wait_until_one_ends(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, limits={"connections": 2})
    async with connected(proxy.reverse) as first, connected(proxy.reverse) as second:
        for reader, writer in (first, second):
            writer.write(request())
            assert (await read_response(reader)).status == 200
        async with connected(proxy.reverse) as (reader, writer):
            writer.write(request("GET", "/third"))
            await shown(proxy.engine, "sigward_accept_paused_total", reason="limit")
            assert "/third" not in [received.target for received in upstream.received]
            first[1].close()
            assert (await asyncio.wait_for(read_response(reader), 10)).status == 200


async def test_more_requests_than_may_be_under_way_are_told_to_come_again(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, limits={"in_flight": 1})
    release = Release()
    upstream.answers = [release]
    waiting = asyncio.create_task(proxy.ask(request()))
    await upstream.wait_for(1)
    response = await proxy.ask(request())
    assert (response.status, response.get("x-sigward-error"), response.get("retry-after")) == (503, "overloaded", "1")
    assert counted(proxy.engine.metrics(), "sigward_overloaded_total") == 1
    release.go.set()
    assert (await waiting).body == b"late"
    assert (await proxy.ask(request())).status == 200


async def test_more_bodies_than_may_be_held_are_told_to_come_again(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, limits={"held_bytes": 1000})
    release = Release()
    upstream.answers = [release]
    # However little may be held, one is served alone.
    waiting = asyncio.create_task(proxy.ask(request("POST", "/", body=b"x" * 5000)))
    await upstream.wait_for(1)
    response = await proxy.ask(request("POST", "/", body=b"x"))
    assert (response.status, response.get("x-sigward-error")) == (503, "overloaded")
    assert counted(proxy.engine.metrics(), "sigward_held_body_bytes") == 5000
    release.go.set()
    assert (await waiting).status == 200
    assert (await proxy.ask(request("POST", "/", body=b"x"))).status == 200


async def test_a_head_that_does_not_end_is_answered(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, timeouts={"client_head": 0.2})
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: ")
        response = await asyncio.wait_for(read_response(reader), 10)
        assert (response.status, response.get("x-sigward-error")) == (408, "head-timeout")
        assert await asyncio.wait_for(reader.read(), 10) == b""
    assert counted(proxy.engine.metrics(), "sigward_slow_clients_total", at="head") == 1


@pytest.mark.parametrize("listener", ["forward", "reverse"])
async def test_who_says_nothing_is_let_go(start: Start, upstream: Upstream, listener: str) -> None:
    proxy = await start(upstream, timeouts={"client_head": 0.2})
    async with connected(getattr(proxy, listener)) as (reader, _):
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_an_idle_connection_is_closed(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, timeouts={"client_idle": 0.2})
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request())
        assert (await read_response(reader)).status == 200
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_client_that_takes_nothing_of_its_answer_is_let_go(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, timeouts={"client_write": 0.3})
    ended = asyncio.Event()

    async def endless(_: object, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        ended.set()

    upstream.answers = [endless]
    with socket.create_connection(proxy.reverse) as client:
        client.sendall(request("GET", "/k", host=BUCKET_HOST))
        await asyncio.wait_for(ended.wait(), 20)
    assert counted(proxy.engine.metrics(), "sigward_slow_clients_total", at="answer") == 1
    assert (await proxy.ask(request())).status == 200


async def test_limits_change_without_a_restart(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream)
    long = request("GET", "/" + "a" * 200)
    assert (await proxy.ask(long)).status == 200
    proxy.point_to(upstream.port, limits={"target_bytes": 100})
    assert (await proxy.ask(long)).status == 414


async def test_a_given_certificate_is_shown_by_reverse_listeners(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("sigward.internal")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "certificate.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    files = [str(upstream.write_ca(tmp_path / "trusted.pem"))]
    shown = {"certificate": str(tmp_path / "certificate.pem"), "key": str(tmp_path / "key.pem")}
    proxy = await start(upstream, tls={"ca_files": files, "system_roots": False, **shown})
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    async with connected(proxy.reverse, ssl=context, server_hostname="sigward.internal") as (reader, writer):
        writer.write(request())
        assert (await read_response(reader)).status == 200
    # Inside a CONNECT it is the host's, from sigward's own CA.
    async with proxy.tunnel(f"{HOST}:443", HOST) as (reader, writer):
        writer.write(request())
        assert (await read_response(reader)).status == 200
    for broken in ({"certificate": shown["certificate"]}, {**shown, "key": str(tmp_path / "gone.pem")}):
        with pytest.raises(_core.SettingsError, match=r"tls\.(key|certificate)"):
            proxy.point_to(upstream.port, tls={"ca_files": files, "system_roots": False, **broken})


async def asked(path: Path, raw: bytes) -> Response:
    """Over a unix socket."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(raw)
    response = await asyncio.wait_for(read_response(reader), 10)
    writer.close()
    return response


@pytest.fixture
def unix_front(tmp_path: Path, upstream: Upstream) -> tuple[NativeFront, Path]:
    path = tmp_path / "sigward.sock"
    engine = _core.Engine(engine_settings(upstream.port, upstream.write_ca(tmp_path / "upstream.pem")))
    engine.set_credentials("default", KEY, SECRET, None, None, "test")
    authority = tmp_path / "ca"
    CertificateAuthority(authority).ensure()
    return NativeFront(engine, FrontOptions(f"unix:{path}", (), authority, 1 << 20, 1.0), lambda _: None), path


@pytest.mark.parametrize("stale", [False, True])
async def test_a_unix_socket_is_served_and_goes(unix_front: tuple[NativeFront, Path], upstream: Upstream, stale: bool) -> None:
    front, path = unix_front
    if stale:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    await front.start()
    assert front.addresses["forward"] == (f"unix:{path}", 0)
    assert path.stat().st_mode & 0o777 == 0o600
    host = "sqs.us-east-1.amazonaws.com"
    assert (await asked(path, f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())).status == 200
    assert_signed(upstream.received[0], host)
    await front.drain()
    async with asyncio.timeout(10):
        while path.exists():
            await asyncio.sleep(0.01)
