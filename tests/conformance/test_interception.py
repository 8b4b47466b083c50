"""Only HTTP is looked into. All else passes untouched, unless the settings might forbid what is in it; nobody is left in silence."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_requests import request
from tests.support import Upstream, connected, read_response

MQTT = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02id"
SIGNED = {"host": "localhost", "service": "sqs", "region": "us-east-1"}
"""A host that is looked into, and that a test's server can have."""


@contextlib.asynccontextmanager
async def strange_server(upstream: Upstream, *, tls: bool) -> AsyncIterator[tuple[int, list[bytes]]]:
    """The port of a server that echoes what comes, and what came. Over TLS, it has the upstream's certificate."""
    came: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                came.append(data)
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=upstream.context if tls else None)
    async with server:
        yield server.sockets[0].getsockname()[1], came


@contextlib.asynccontextmanager
async def connect(proxy: Proxy, authority: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """The bytes behind a CONNECT. Raises ConnectionRefusedError with the status and the slug."""
    async with connected(proxy.forward) as (reader, writer):
        writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        response = await asyncio.wait_for(read_response(reader, "HEAD"), 10)
        if response.status != 200:
            raise ConnectionRefusedError(response.status, response.get("x-sigward-error"))
        yield reader, writer


def offering(upstream: Upstream, *protocols: str) -> ssl.SSLContext:
    """Trusts the upstream itself, and not sigward."""
    context = ssl.create_default_context(cadata=upstream.ca.cert_pem.bytes().decode())
    context.set_alpn_protocols(list(protocols))
    return context


@pytest.mark.parametrize("protocols", [("x-amzn-mqtt-ca",), ("mqtt", "amqp"), None], ids=["mqtt-ca", "two", "no-tls"])
async def test_another_protocol_passes_untouched(start: Start, upstream: Upstream, protocols: tuple[str, ...] | None) -> None:
    proxy = await start(upstream, routes=[SIGNED])
    async with strange_server(upstream, tls=protocols is not None) as (port, _), connect(proxy, f"localhost:{port}") as (reader, writer):
        if protocols is not None:
            await asyncio.wait_for(writer.start_tls(offering(upstream, *protocols), server_hostname="localhost"), 10)
        writer.write(MQTT)
        assert await asyncio.wait_for(reader.readexactly(len(MQTT)), 10) == MQTT


@pytest.mark.parametrize("protocols", [("http/1.0",), ("mqtt", "http/1.1"), ()], ids=["http-1.0", "one-of-two", "no-alpn"])
async def test_http_is_looked_into(start: Start, upstream: Upstream, protocols: tuple[str, ...]) -> None:
    proxy = await start(upstream)
    async with proxy.tunnel(f"{HOST}:443", HOST, list(protocols) or None) as (reader, writer):
        writer.write(request())
        assert (await asyncio.wait_for(read_response(reader), 10)).status == 200
    assert dict(upstream.received[-1].headers)["authorization"].startswith("AWS4-")


DENIES = {"host": "localhost", "operation": "sqs:Delete*", "action": "deny"}


@pytest.mark.parametrize("protocol", ["mqtt", None], ids=["alpn", "no-tls"])
async def test_what_a_rule_might_deny_does_not_pass(start: Start, upstream: Upstream, protocol: str | None) -> None:
    """CONNECT cannot say so: only then it is known that it is not HTTP."""
    proxy = await start(upstream, routes=[DENIES, SIGNED])
    async with strange_server(upstream, tls=protocol is not None) as (port, came), connect(proxy, f"localhost:{port}") as (reader, writer):
        if protocol is not None:
            with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
                await asyncio.wait_for(writer.start_tls(offering(upstream, protocol), server_hostname="localhost"), 10)
        else:
            writer.write(MQTT)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 10) == b""
        assert not came


@pytest.mark.parametrize(
    ("settings", "slug"),
    [
        ({"routes": [{"operation": "ses:*", "action": "deny"}]}, "tunnel-refused"),
        ({"routes": [{"host": "*.amazonaws.com", "port": 465, "action": "deny"}]}, "tunnel-refused"),
        ({"clients": {"required": True}}, "missing-authentication-token"),
    ],
)
async def test_connect_to_a_port_without_http(start: Start, upstream: Upstream, settings: dict[str, Any], slug: str, tmp_path: Any) -> None:
    if "clients" in settings:
        (tmp_path / "master").write_text("ab" * 32)
        issued = [{"name": "ci", "rotation": 1, "identity": None}]
        settings = {"clients": {"required": True, "key_file": str(tmp_path / "master"), "issued": issued}}
    proxy = await start(upstream, **settings)
    with pytest.raises(ConnectionRefusedError) as refused:
        async with connect(proxy, "email.us-east-1.amazonaws.com:465"):
            pass
    assert refused.value.args == (403, slug)


async def test_a_route_passes_a_port_though_keys_are_required(start: Start, upstream: Upstream, tmp_path: Any) -> None:
    (tmp_path / "master").write_text("ab" * 32)
    issued = [{"name": "ci", "rotation": 1, "identity": None}]
    clients = {"required": True, "key_file": str(tmp_path / "master"), "issued": issued}
    async with strange_server(upstream, tls=False) as (port, _):
        proxy = await start(upstream, clients=clients, routes=[{"host": "localhost", "port": port, "action": "pass"}])
        async with connect(proxy, f"localhost:{port}") as (reader, writer):
            writer.write(MQTT)
            assert await asyncio.wait_for(reader.readexactly(len(MQTT)), 10) == MQTT
        with pytest.raises(ConnectionRefusedError):
            async with connect(proxy, f"localhost:{port + 1 if port < 65535 else port - 1}"):
                pass
