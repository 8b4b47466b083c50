"""Every way in, and that each request goes where its way in says, and nowhere else."""

import asyncio
import contextlib

import pytest

from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_hooks import idle
from tests.conformance.test_http2 import Http2Client
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import Upstream, assert_signed, connected, read_response


async def test_plain_http_inside_connect_goes_out_over_tls(proxy: Proxy) -> None:
    async with connected(proxy.forward) as (reader, writer):
        writer.write(f"CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}:80\r\n\r\n".encode())
        assert (await read_response(reader, "HEAD")).status == 200
        writer.write(request("POST", "/", body=b"x"))
        assert (await asyncio.wait_for(read_response(reader), 10)).status == 200
    assert_signed(proxy.upstream.received[0], HOST)


async def test_a_client_without_sni_is_intercepted_by_its_connect(proxy: Proxy) -> None:
    """As old clients do: the CONNECT authority names the host."""
    async with proxy.tunnel(f"{HOST}:443", HOST, send_sni=False) as (reader, writer):
        certificate = writer.get_extra_info("peercert")
        assert ("DNS", HOST) in certificate["subjectAltName"]
        writer.write(request())
        assert (await read_response(reader)).status == 200
    assert_signed(proxy.upstream.received[0], HOST)


@pytest.mark.parametrize("authority", [HOST.upper(), f"{HOST}."])
async def test_connect_in_another_spelling(proxy: Proxy, authority: str) -> None:
    async with proxy.tunnel(f"{authority}:443", HOST) as (reader, writer):
        writer.write(request())
        assert (await read_response(reader)).status == 200
    assert_signed(proxy.upstream.received[0], HOST)


async def test_absolute_form_inside_connect_does_not_change_the_destination(proxy: Proxy) -> None:
    async with proxy.tunnel(f"{HOST}:443", HOST) as (reader, writer):
        writer.write(f"GET https://{BUCKET_HOST}/key HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        response = await read_response(reader)
    assert response.status in (200, 400, 421)
    for received in proxy.upstream.received:
        assert_signed(received, HOST)


async def test_connect_inside_connect_is_refused(proxy: Proxy) -> None:
    async with proxy.tunnel(f"{HOST}:443", HOST) as (reader, writer):
        writer.write(f"CONNECT {BUCKET_HOST}:443 HTTP/1.1\r\nHost: {BUCKET_HOST}:443\r\n\r\n".encode())
        assert (await read_response(reader)).status >= 400
    assert proxy.upstream.received == []


async def test_connect_to_a_reverse_listener_is_refused(proxy: Proxy) -> None:
    for address in (proxy.reverse, proxy.fixed):
        async with connected(address) as (reader, writer):
            writer.write(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode())
            assert (await read_response(reader)).status >= 400
    assert proxy.upstream.connections == 0


async def test_requests_for_several_hosts_on_one_connection(proxy: Proxy) -> None:
    """Each goes to its own, though they share the client's connection."""
    async with connected(proxy.reverse) as (reader, writer):
        for host in (HOST, BUCKET_HOST, HOST, "sts.us-east-1.amazonaws.com"):
            writer.write(request(host=host))
            assert (await read_response(reader)).status == 200
            assert_signed(proxy.upstream.received[-1], host)


async def test_http2_trailers_of_a_request_that_streams(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, body={"hold": 4})
    async with proxy.tunnel(f"{BUCKET_HOST}:443", BUCKET_HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        number = client.send(
            "PUT", "/k", BUCKET_HOST, b"streamed", (("x-sum", "1"),), ("trailer", "x-sum"), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        )
        [stream] = await client.finished(number)
    assert stream.headers[":status"] == "200"
    assert upstream.received[0].body == b"streamed"
    assert upstream.received[0].trailers == [("x-sum", "1")]


async def test_a_stream_that_is_reset_while_a_retry_waits_stops_it(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, retry={"attempts": 3, "base": 20.0, "throttle_base": 20.0})
    upstream.answers = [b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"] * 3
    async with proxy.tunnel(f"{HOST}:443", HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        number = client.send("GET", "/", HOST)
        await upstream.wait_for(1)
        client.connection.reset_stream(number, 8)
        client.flush()
        await idle(proxy)
        assert len(upstream.received) == 1
        # The connection goes on.
        upstream.answers = []
        [stream] = await client.finished(client.send("GET", "/", HOST))
        assert stream.body == b"ok"


async def test_a_stream_that_is_reset_during_an_upload_stops_it(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, body={"hold": 1000})
    async with proxy.tunnel(f"{BUCKET_HOST}:443", BUCKET_HOST, ["h2"]) as (reader, writer):
        client = Http2Client(reader, writer)
        number = client.begin("PUT", "/k", BUCKET_HOST, ("content-length", "1000000"))
        assert await client.upload(number, 50_000, patience=10) == 50_000
        async with asyncio.timeout(10):
            while not proxy.engine.in_flight():
                await asyncio.sleep(0.01)
        client.connection.reset_stream(number, 8)
        client.flush()
        await idle(proxy)
    assert upstream.received == []


async def test_a_tls_client_hello_that_comes_in_pieces(proxy: Proxy) -> None:
    """Bytes of a CONNECT tunnel that arrive with its request, and one at a time."""
    import ssl

    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    async with connected(proxy.forward) as (reader, writer):
        writer.write(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode() + hello[:1])
        assert (await read_response(reader, "HEAD")).status == 200
        for at in range(1, len(hello)):
            writer.write(hello[at : at + 1])
            await writer.drain()
        async with asyncio.timeout(10):
            while True:
                data = await reader.read(65536)
                assert data, "the proxy closed the connection"
                incoming.write(data)
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
        assert ("DNS", HOST) in tls.getpeercert()["subjectAltName"]


@pytest.mark.parametrize("listener", ["reverse", "connect"])
async def test_a_request_that_comes_byte_by_byte(proxy: Proxy, listener: str) -> None:
    async with connected(proxy.reverse if listener == "reverse" else proxy.forward) as (reader, writer):
        if listener == "connect":
            writer.write(f"CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}:80\r\n\r\n".encode())
            assert (await read_response(reader, "HEAD")).status == 200
        for byte in request("POST", "/", body=b"hello"):
            writer.write(bytes([byte]))
            await writer.drain()
            # The proxy gets to see it alone.
            for _ in range(10):
                await asyncio.sleep(0)
        assert (await asyncio.wait_for(read_response(reader), 10)).status == 200
    assert proxy.upstream.received[0].body == b"hello"
    assert_signed(proxy.upstream.received[0], HOST)
