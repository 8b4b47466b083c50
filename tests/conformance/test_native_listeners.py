"""The native front's own listeners: unix sockets (who may connect, whose file it is, what is served), and a certificate of one's own."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from sigward import _core
from sigward.front import FrontError, ReverseListener
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_hooks import idle
from tests.conformance.test_http2 import Http2Client
from tests.conformance.test_requests import request
from tests.support import Received, Upstream, assert_signed, connected, read_response

pytestmark = pytest.mark.native("mitmproxy's own modes are not opened to settings")


@contextlib.asynccontextmanager
async def at(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client's connection."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
    try:
        yield reader, writer
    finally:
        writer.close()


async def ask(path: Path, raw: bytes) -> Any:
    async with at(path) as (reader, writer):
        writer.write(raw)
        return await asyncio.wait_for(read_response(reader), 20)


async def on(start: Start, upstream: Upstream, path: Path, **settings: Any) -> Proxy:
    """A proxy with a reverse listener there, where Host names the endpoint."""
    options = {"forward": None, "reverse": (ReverseListener(f"unix:{path}", None),)}
    running: Proxy = await start(upstream, options=options, **settings)
    return running


async def test_requests_by_host(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """One after the other on a connection; who asked is told as a user."""
    path, log = tmp_path / "s", tmp_path / "log"
    proxy = await on(start, upstream, path, access_log=str(log))
    assert proxy.front.addresses == {"reverse:0": (f"unix:{path}", 0)}
    async with at(path) as (reader, writer):
        for number in range(3):
            writer.write(request("POST", f"/{number}", body=b"x" * 70_000))
            assert (await asyncio.wait_for(read_response(reader), 10)).body == b"ok"
    for received in upstream.received:
        assert_signed(received, HOST)
    async with asyncio.timeout(10):
        while log.read_text().count("\n") < 3:
            await asyncio.sleep(0.01)
    assert {json.loads(line)["client"] for line in log.read_text().splitlines()} == {f"uid {os.getuid()}"}


async def test_a_forward_proxy(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """Absolute-form, and CONNECT with TLS inside."""
    path = tmp_path / "s"
    proxy = await start(upstream, options={"forward": f"unix:{path}", "reverse": ()})
    absolute = request("GET", f"http://{HOST}/absolute")
    assert (await ask(path, absolute)).body == b"ok"
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    async with at(path) as (reader, writer):
        writer.write(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode())
        assert (await read_response(reader, "HEAD")).status == 200
        await writer.start_tls(context, server_hostname=HOST)
        writer.write(request("GET", "/inside"))
        assert (await asyncio.wait_for(read_response(reader), 10)).body == b"ok"
    assert [received.target for received in upstream.received] == ["/absolute", "/inside"]
    for received in upstream.received:
        assert_signed(received, HOST)


async def test_tls_and_http2(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "s"
    proxy = await on(start, upstream, path)
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_unix_connection(path, ssl=context, server_hostname="localhost")
    with contextlib.closing(writer):
        client = Http2Client(reader, writer)
        [stream] = await client.finished(client.send("GET", "/", HOST))
        assert stream.body == b"ok"
    assert_signed(upstream.received[0], HOST)


async def test_several_threads_share_the_socket(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "s"
    proxy = await on(start, upstream, path, threads=3)
    together = asyncio.Barrier(9)

    async def meet(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await together.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    upstream.answers = [meet] * 9
    answers = await asyncio.gather(*(ask(path, request()) for _ in range(9)))
    assert [answer.body for answer in answers] == [b"ok"] * 9
    await proxy.front.drain()
    assert not path.exists()


async def test_only_its_user_may_connect_and_it_goes_with_the_front(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """Whatever the umask says."""
    path = tmp_path / "s"
    before = os.umask(0)
    try:
        proxy = await on(start, upstream, path)
    finally:
        os.umask(before)
    found = path.stat()
    assert (stat.S_ISSOCK(found.st_mode), stat.S_IMODE(found.st_mode)) == (True, 0o600)
    await proxy.front.drain()
    assert not path.exists()


async def test_a_request_under_way_ends_when_the_front_drains(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def wait(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    path = tmp_path / "s"
    proxy = await on(start, upstream, path, grace=20.0)
    upstream.answers = [wait]
    asking = asyncio.create_task(ask(path, request()))
    await upstream.wait_for(1)
    draining = asyncio.create_task(proxy.front.drain())
    async with asyncio.timeout(10):
        while path.exists():
            await asyncio.sleep(0.01)
    assert not draining.done()
    go_on.set()
    assert (await asking).body == b"ok"
    await draining
    await idle(proxy)


async def test_a_file_that_nobody_listens_on_is_replaced(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    path.chmod(0o777)
    await on(start, upstream, path)
    assert (await ask(path, request())).body == b"ok"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("backlog", [16, 0])
async def test_one_that_is_listened_on_is_in_use(start: Start, upstream: Upstream, tmp_path: Path, backlog: int) -> None:
    """Also if whoever listens takes nobody in just now."""
    path = tmp_path / "s"
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(socket.socket(socket.AF_UNIX))
        live.bind(str(path))
        live.listen(backlog)
        if not backlog:
            with contextlib.suppress(BlockingIOError):
                while True:
                    client = stack.enter_context(socket.socket(socket.AF_UNIX))
                    client.setblocking(False)
                    client.connect(str(path))
        inode = path.stat().st_ino
        with pytest.raises(FrontError, match=r"in use") as caught:
            await on(start, upstream, path)
        assert str(path) in str(caught.value)
        assert path.stat().st_ino == inode


async def test_two_of_one_front_do_not_share_a_path(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = ReverseListener(f"unix:{path}", None)
    with pytest.raises(FrontError, match="in use"):
        await start(upstream, options={"forward": None, "reverse": (listener, listener)})


@pytest.mark.parametrize("kind", ["file", "directory", "link", "fifo"])
async def test_what_is_no_socket_is_left_alone(start: Start, upstream: Upstream, tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "s", tmp_path / "precious"
    other.write_text("precious")
    if kind == "file":
        other.rename(path)
        other = path
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(other)
    before = path.lstat()
    with pytest.raises(FrontError, match=str(path)):
        await on(start, upstream, path)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert other.read_text() == "precious"


async def test_a_link_to_a_stale_socket_is_left_alone(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    path, other = tmp_path / "s", tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(other))
    path.symlink_to(other)
    with pytest.raises(FrontError, match=str(path)):
        await on(start, upstream, path)
    assert path.is_symlink()
    assert other.exists()


@pytest.mark.parametrize("name", ["missing/s", "s" * 200])
async def test_a_path_that_cannot_be_is_named(start: Start, upstream: Upstream, tmp_path: Path, name: str) -> None:
    with pytest.raises(FrontError, match=name):
        await on(start, upstream, tmp_path / name)


async def test_a_file_that_took_its_place_is_left(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "s"
    proxy = await on(start, upstream, path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        await proxy.front.drain()
        assert path.exists()


async def test_tcp_and_unix_side_by_side(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "s"
    listeners = (ReverseListener("127.0.0.1:0", None), ReverseListener(f"unix:{path}", f"https://{HOST}"))
    proxy = await start(upstream, options={"reverse": listeners})
    assert (await proxy.ask(request())).body == b"ok"
    assert (await ask(path, request(host="anything"))).body == b"ok"
    assert proxy.fixed == (f"unix:{path}", 0)
    async with connected(proxy.forward) as (reader, writer):
        writer.write(request("GET", f"http://{HOST}/"))
        assert (await asyncio.wait_for(read_response(reader), 10)).body == b"ok"
    for received in upstream.received:
        assert_signed(received, HOST)


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
