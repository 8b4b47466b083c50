"""Hosts that are this host, its link, or a cloud's metadata service: in no spelling, and by no name, does a client reach them."""

import asyncio

import pytest

from tests.conformance.conftest import Proxy, Start
from tests.conformance.test_egress import ConnectProxy, behind, connect, egress, upstream_context, url
from tests.conformance.test_requests import request
from tests.support import Upstream, connected, read_response

__all__ = ["egress"]

METADATA = [
    "169.254.169.254",
    "169.254.169.254.",
    "2852039166",
    "0xa9fea9fe",
    "0XA9FEA9FE.",
    "025177524776",
    "0251.0376.0251.0376",
    "0xa9.0xfe.0xa9.0xfe",
    "169.0376.0xa9.254",
    "169.254.43518",
    "169.16689662",
    "[fd00:ec2::254]",
    "[FD00:0EC2:0:0:0:0:0:0254]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::ffff:0:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::a9fe:a9fe]",
    "[64:ff9b:1:a9fe:a9:fe00::]",
    "[2002:a9fe:a9fe::]",
    "[2001:0:0:0:0:0:5601:5601]",
    "[2600:1f18::5efe:a9fe:a9fe]",
]
LOOPBACK = [
    "127.1",
    "127.0.1",
    "127.0.0.1.",
    "0x7f.1",
    "0177.0.0.01",
    "2130706433",
    "017700000001",
    "127.255.255.254",
    "0",
    "0x0",
    "0.0.0.0",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::127.0.0.1]",
    "[fe80::1]",
]
NAMES = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "A.b.LocalHost.",
    "localhost.localdomain",
    "localhost.localdomain.",
    "a.localhost.localdomain",
    "localhost4",
    "localhost4.localdomain4",
    "localhost6",
    "localhost6.localdomain6",
    "ip6-localhost",
    "IP6-loopback",
    "ipv6-localhost",
    "ipv6-loopback",
    "loopback",
]
LOCAL = METADATA + LOOPBACK + NAMES


async def absolute(proxy: Proxy, authority: str) -> tuple[int, str | None]:
    """Status and slug of what a request for this URL is answered with."""
    async with connected(proxy.forward) as (reader, writer):
        writer.write(f"GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        response = await asyncio.wait_for(read_response(reader), 20)
        return response.status, response.get("x-sigward-error")


@pytest.mark.fault("names and spellings that lead to this host", holds="never reached, by request or tunnel")
@pytest.mark.parametrize("way", ["straight", "proxy"])
async def test_no_spelling_of_a_local_host_is_reached(start: Start, upstream: Upstream, egress: ConnectProxy, way: str) -> None:
    """By a request or a tunnel; no proxy on the way is asked for it: that one may run on this very host."""
    proxy = await (behind(start, upstream, url(egress)) if way == "proxy" else start(upstream))
    egress.leads = {f"{host}:{port}": upstream.port for host in LOCAL for port in (80, upstream.port)}
    for host in LOCAL:
        authority = f"{host}:{upstream.port}"
        assert await absolute(proxy, authority) == (403, "forbidden-address"), host
        assert await absolute(proxy, host) == (403, "forbidden-address"), host
        assert (await connect(proxy, authority))[:2] == (403, "forbidden-address"), host
    assert (egress.heads, upstream.connections) == ([], 0)


@pytest.mark.parametrize("host", [*METADATA, *LOOPBACK, *NAMES])
async def test_no_host_header_names_a_local_host(proxy: Proxy, host: str) -> None:
    response = await proxy.ask(request(host=host))
    assert (response.status, response.get("x-sigward-error")) == (403, "forbidden-address")
    assert proxy.upstream.connections == 0


NO_ADDRESSES = [
    "256.0.0.1",
    "1.2.3.4.5",
    "1.2.3.256",
    "4294967296",
    "0x100000000",
    "1.2.65536",
    "08",
    "1.2.3.09",
    "0xg.1",
    "a.1",
    "a.0x7f",
    "1..1",
    "a..b",
]
"""They end in a number, so they are addresses, and there are no such ones. Some resolvers take them all the same."""


@pytest.mark.parametrize("host", NO_ADDRESSES)
async def test_an_address_that_is_none(start: Start, upstream: Upstream, egress: ConnectProxy, host: str) -> None:
    proxy = await behind(start, upstream, url(egress))
    egress.leads = {f"{host}:{upstream.port}": upstream.port}
    assert (await absolute(proxy, f"{host}:{upstream.port}"))[0] == 400
    assert (await connect(proxy, f"{host}:{upstream.port}"))[0] == 400
    response = await proxy.ask(request(host=host))
    assert (response.status, response.get("x-sigward-error")) == (400, "bad-host")
    assert (egress.heads, upstream.connections) == ([], 0)


@pytest.mark.parametrize(
    ("named", "asked"),
    [
        ("localhost", "localhost"),
        ("localhost", "LOCALHOST."),
        ("LocalHost.", "localhost"),
        ("127.0.0.1", "127.1"),
        ("127.0.0.1", "0x7f000001"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "017700000001"),
    ],
)
async def test_a_route_that_names_a_local_host_names_all_its_spellings(start: Start, upstream: Upstream, named: str, asked: str) -> None:
    proxy = await start(upstream, routes=[{"host": named, "action": "pass"}])
    async with connected(proxy.forward) as (reader, writer):
        writer.write(f"CONNECT {asked}:{upstream.port} HTTP/1.1\r\nHost: {asked}:{upstream.port}\r\n\r\n".encode())
        assert (await asyncio.wait_for(read_response(reader, "HEAD"), 10)).status == 200
        await writer.start_tls(upstream_context(upstream), server_hostname="localhost")
        writer.write(request("GET", "/", host="localhost"))
        assert (await asyncio.wait_for(read_response(reader), 10)).body == b"ok"


async def test_a_route_that_names_one_local_host_names_no_other(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, routes=[{"host": "localhost", "action": "pass"}, {"host": "*.localhost", "action": "pass"}])
    for host in ("127.0.0.1", "localhost.localdomain", "a.localhost", "ip6-localhost", "[::1]"):
        assert await absolute(proxy, f"{host}:{upstream.port}") == (403, "forbidden-address"), host
        assert (await connect(proxy, f"{host}:{upstream.port}"))[:2] == (403, "forbidden-address"), host
    assert upstream.connections == 0


async def test_addresses_that_are_not_local_are_as_they_were(start: Start, upstream: Upstream, egress: ConnectProxy) -> None:
    """In any spelling, and the proxy is asked for the usual one."""
    proxy = await behind(start, upstream, url(egress))
    hosts = {
        "10.0.0.1": "10.0.0.1",
        "167772161": "10.0.0.1",
        "0xa.1": "10.0.0.1",
        "192.168.1.1": "192.168.1.1",
        "[fd00:ec3::254]": "[fd00:ec3::254]",
        "[64:ff9b::52.94.0.1]": "[64:ff9b::345e:1]",
        "127.0.0.1.nip.io": "127.0.0.1.nip.io",
        "localhost.example": "localhost.example",
    }
    egress.leads = {f"{host}:443": upstream.port for host in hosts.values()}
    routes = [{"host": host.strip("[]"), "service": "es", "region": "eu-west-1"} for host in hosts]
    proxy.point_to(upstream.port, egress={"proxy": url(egress)}, routes=routes)
    for host, asked in hosts.items():
        egress.heads.clear()
        # The upstream's certificate is for others: that the proxy was asked is enough.
        assert (await proxy.ask(request(host=host))).get("x-sigward-error") == "tls-failed", host
        assert set(egress.asked) == {f"{asked}:443"}, host
