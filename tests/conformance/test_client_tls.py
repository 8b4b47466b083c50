"""TLS with clients: what is offered, and what a client, the log and the metrics hear of a handshake that fails."""

import asyncio
import contextlib
import socket
import ssl
from typing import Any

import pytest

from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_requests import request
from tests.support import Upstream, connected, counted, read_response

PATIENCE = 10.0
ALERT, ENCRYPTED = 0x15, 0x17


def trusting(proxy: Proxy, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


async def until_logged(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    async with asyncio.timeout(PATIENCE):
        while not (found := [record.getMessage() for record in caplog.records if words in record.getMessage()]):
            await asyncio.sleep(0.01)
    return found


async def until_counted(proxy: Proxy, count: int, reason: str) -> None:
    """Failed handshakes, for this reason."""
    async with asyncio.timeout(PATIENCE):
        while counted(proxy.engine.metrics(), "sigward_tls_handshake_failures_total", reason=reason) != count:
            await asyncio.sleep(0.01)


@pytest.mark.native("the other front's TLS has options of its own")
async def test_http2_is_offered_unless_it_is_off(start: Start, upstream: Upstream) -> None:
    for setting, protocol in (("auto", "h2"), ("never", "http/1.1")):
        proxy = await start(upstream, client_http2=setting)
        async with connected(proxy.reverse, ssl=trusting(proxy, "h2", "http/1.1"), server_hostname="localhost") as (_, writer):
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == protocol


@pytest.mark.native("mitmproxy knows it by ALPN alone")
async def test_http2_without_tls_is_refused_where_it_is_off(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, client_http2="never")
    response = await proxy.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert (response.status, response.get("x-sigward-error")) == (505, "bad-version")


NATIVE = pytest.mark.native("mitmproxy logs in words of its own, and counts nothing")


def shake(address: tuple[str, int]) -> None:
    """As programs do that trust the system's roots alone. asyncio's clients close without their alert."""
    with socket.create_connection(address, PATIENCE) as plain, ssl.create_default_context().wrap_socket(plain, server_hostname="localhost"):
        pass


@NATIVE
async def test_a_client_that_does_not_trust_the_ca(start: Start, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    proxy = await start(upstream)
    with caplog.at_level("WARNING"):
        for _ in range(3):
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.to_thread(shake, proxy.reverse)
        await until_counted(proxy, 3, "untrusted")
        [told] = await until_logged(caplog, "handshake")
    assert "the client does not trust the CA" in told
    assert "127.0.0.1" in told


def hello(*protocols: str) -> bytes:
    """A ClientHello."""
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


NO_SUITE = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03" + bytes(33) + b"\x00\x04\x00\x01\x00\x02\x01\x00"
"""Offers two suites that nobody should have."""

FAILURES: list[Any] = [
    pytest.param(hello("mqtt"), 120, "alpn", id="no-application-protocol"),
    pytest.param(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", 50, "malformed", id="no-hello"),
    pytest.param(b"\x16garbage\r\n\r\n", 50, "malformed", id="garbage"),
    pytest.param((b"\x16\x03\x01\x40\x00" + b"\x01\x00\xff\xff" + bytes(0x3FFC)) * 8, 50, "malformed", id="without-end"),
    pytest.param(NO_SUITE, None, "incompatible", id="no-suite"),
    pytest.param(hello() + b"\x16\x03\x03\x00\x04\x02\x00\x00\x00", 10, "malformed", id="out-of-turn"),
]  # fmt: skip


@NATIVE
@pytest.mark.parametrize(("raw", "alert", "reason"), FAILURES)
async def test_a_failed_handshake_ends_with_an_alert(start: Start, upstream: Upstream, raw: bytes, alert: int | None, reason: str) -> None:
    proxy = await start(upstream)
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(raw)
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
    records = []
    while answer:
        size = int.from_bytes(answer[3:5])
        records.append((answer[0], answer[5 : 5 + size]))
        answer = answer[5 + size :]
    kind, body = records[-1]
    if kind == ENCRYPTED:
        # Two bytes, the type and a tag.
        assert len(body) == 19
    else:
        assert kind == ALERT, records
        assert body[0] == 2
        assert alert in (None, body[1])
    await until_counted(proxy, 1, reason)


@NATIVE
@pytest.mark.parametrize(("sent", "reason"), [(hello()[:20], "timeout"), (hello(), "closed")], ids=["half", "whole"])
async def test_a_client_that_stops_in_the_middle(start: Start, upstream: Upstream, sent: bytes, reason: str) -> None:
    proxy = await start(upstream, timeouts={"client_head": 0.2})
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(sent)
        if reason == "closed":
            await reader.read(1)
        else:
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
    if reason == "closed":
        await until_counted(proxy, 1, reason)
    else:
        assert counted(proxy.engine.metrics(), "sigward_slow_clients_total", at="head") == 1


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_a_proxy_behind_tls(start: Start, upstream: Upstream, http2: bool) -> None:
    """`https://` as the proxy's URL: on the same port as plain text, and TLS inside TLS."""
    proxy = await start(upstream)
    async with connected(proxy.forward, ssl=trusting(proxy, "http/1.1"), server_hostname="localhost") as (reader, writer):
        writer.write(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode())
        assert (await read_response(reader, "HEAD")).status == 200
        inner = trusting(proxy, "h2" if http2 else "http/1.1")
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = inner.wrap_bio(incoming, outgoing, server_hostname=HOST)
        await pumped(tls.do_handshake, incoming, outgoing, reader, writer)
        if http2:
            assert tls.selected_alpn_protocol() == "h2"
            return
        tls.write(request())
        writer.write(outgoing.read())
        answer = await pumped(lambda: tls.read(4096), incoming, outgoing, reader, writer)
        assert answer.startswith(b"HTTP/1.1 200 ")
    async with connected(proxy.forward, ssl=trusting(proxy), server_hostname="localhost") as (reader, writer):
        writer.write(request(path=f"http://{HOST}/"))
        assert (await read_response(reader)).status == 200


async def pumped(
    step: Any, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Any:
    """Does a step of TLS in memory, with what it needs of the connection."""
    while True:
        try:
            return step()
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            data = await asyncio.wait_for(reader.read(65536), PATIENCE)
            assert data, "the proxy closed the connection"
            incoming.write(data)
        finally:
            writer.write(outgoing.read())
