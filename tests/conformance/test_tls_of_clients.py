"""TLS between clients and sigward: how it ends, what it agrees on, and TLS to the proxy itself."""

import asyncio
import socket
import ssl

import pytest

from sigward.mitm import Front
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_http2 import Http2Client, Stream
from tests.conformance.test_requests import request
from tests.needs import needs
from tests.support import Upstream, assert_signed, connected, read_response


def tls_socket(proxy: Proxy, *, inside: bool, alpn: list[str]) -> ssl.SSLSocket:
    """TLS to the reverse listener, or inside an intercepted CONNECT. It blocks, and takes no end of the connection for its own."""
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    context.set_alpn_protocols(alpn)
    context.check_hostname = inside
    raw = socket.create_connection(proxy.forward if inside else proxy.fixed, timeout=20)
    if inside:
        raw.sendall(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode())
        assert raw.recv(65536).startswith(b"HTTP/1.1 200")
    return context.wrap_socket(raw, server_hostname=HOST if inside else "localhost", suppress_ragged_eofs=False)


def until_its_end(client: ssl.SSLSocket) -> bytes:
    """Raises `SSLEOFError` if the connection ends without close_notify."""
    told = b""
    with client:
        while piece := client.recv(65536):
            told += piece
    return told


@pytest.mark.parametrize("inside", [False, True])
async def test_tls_ends_with_close_notify(start: Start, upstream: Upstream, inside: bool) -> None:
    """RFC 8446, section 6.1: behind an answer, an error, a time-out, and when sigward stops."""
    proxy = await start(upstream, timeouts={"client_idle": 0.2})
    whole = request("GET", "/", "Connection: close", host=HOST)
    for said, status in ((whole, b"200"), (b"GET / HTTP/9.9\r\n\r\n", b"505"), (request(host=HOST), b"200")):
        client = await asyncio.to_thread(tls_socket, proxy, inside=inside, alpn=["http/1.1"])
        client.sendall(said)
        assert (await asyncio.to_thread(until_its_end, client)).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("inside", [False, True])
async def test_tls_ends_with_close_notify_for_a_client_that_has_said_all(proxy: Proxy, inside: bool) -> None:
    """It has ended its side of the connection, without a word of TLS."""
    client = await asyncio.to_thread(tls_socket, proxy, inside=inside, alpn=["http/1.1"])
    client.sendall(request(host=HOST))
    socket.socket.shutdown(client, socket.SHUT_WR)
    assert (await asyncio.to_thread(until_its_end, client)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("inside", [False, True])
async def test_tls_ends_with_close_notify_when_sigward_stops(proxy: Proxy, inside: bool) -> None:
    client = await asyncio.to_thread(tls_socket, proxy, inside=inside, alpn=["http/1.1"])
    client.sendall(request(host=HOST))
    ending = asyncio.create_task(asyncio.to_thread(until_its_end, client))
    await proxy.upstream.wait_for(1)
    await proxy.front.drain()
    assert (await ending).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("inside", [False, True])
async def test_clients_that_may_not_speak_http2(start: Start, upstream: Upstream, inside: bool) -> None:
    """`client_http2 = "never"`: those that offer both get HTTP/1.1. It may change while sigward runs."""
    proxy = await start(upstream, client_http2="never")
    for setting, agreed in (("never", "http/1.1"), ("auto", "h2")):
        proxy.point_to(upstream.port, client_http2=setting)
        client = await asyncio.to_thread(tls_socket, proxy, inside=inside, alpn=["h2", "http/1.1"])
        with client:
            assert client.selected_alpn_protocol() == agreed
    client = await asyncio.to_thread(tls_socket, proxy, inside=inside, alpn=["http/1.1"])
    client.sendall(request("GET", "/", "Connection: close", host=HOST))
    assert (await asyncio.to_thread(until_its_end, client)).startswith(b"HTTP/1.1 200")


async def test_http2_is_spoken_with_a_proxy_that_knows_its_connect(proxy: Proxy) -> None:
    """The library of mitmproxy's HTTP/2 refuses the CONNECT of RFC 9113, section 8.5: it is HTTP/1.1 there, and HTTP/2 in the tunnel."""
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with connected(proxy.forward, ssl=context, server_hostname="localhost") as (reader, writer):
        agreed = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        if agreed == "http/1.1":
            writer.write(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode())
            assert (await read_response(reader, "HEAD")).status == 200
        else:
            client = Http2Client(reader, writer)
            client.streams[1] = Stream()
            client.connection.config.validate_outbound_headers = False
            client.connection.send_headers(1, [(":method", "CONNECT"), (":authority", f"{HOST}:443")])
            client.flush()
            while not client.streams[1].headers:
                await asyncio.wait_for(client.read(), 10)
            assert client.streams[1].headers[":status"] == "200"
    assert agreed == ("http/1.1" if isinstance(proxy.front, Front) else "h2")
    for inside in (False, True):
        with await asyncio.to_thread(tls_socket, proxy, inside=inside, alpn=["h2", "http/1.1"]) as there:
            assert there.selected_alpn_protocol() == "h2"


@needs("curl")
@pytest.mark.parametrize("url", [f"https://{HOST}/", f"http://{HOST}/", "https://localhost:{port}/"])
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_tls_to_the_proxy_itself(start: Start, upstream: Upstream, url: str, version: str) -> None:
    """HTTPS_PROXY=https://…: requests that are looked into, in the clear, and in a tunnel."""
    routes = [{"host": "localhost", "action": "pass"}, {"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}"}]
    proxy = await start(upstream, routes=routes)
    to = f"https://127.0.0.1:{proxy.forward[1]}"
    trusted = proxy.ca_file.with_name("both.pem")
    trusted.write_bytes(proxy.ca_file.read_bytes() + upstream.ca.cert_pem.bytes())
    command = ["curl", "-sS", version, "--proxy", to, "--proxy-cacert", str(proxy.ca_file), "--cacert", str(trusted)]
    process = await asyncio.create_subprocess_exec(
        *command, "-w", " %{http_code}", url.format(port=upstream.port), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, why = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, said) == (0, b"ok 200"), why
    if HOST in url:
        assert_signed(upstream.received[0], HOST)
