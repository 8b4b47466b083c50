"""A request that comes round to the sigward that sent it ends there; two sigwards in a row are two."""

import asyncio
import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sigward import _core
from sigward.front import ReverseListener
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_http2 import http2
from tests.conformance.test_requests import request
from tests.support import KEY, SECRET, Received, Response, Upstream, assert_signed, connected, counted, engine_settings, read_response

OWN = re.compile(r"1\.1 sigward-[0-9a-f]{16}")


async def own_via(proxy: Proxy) -> str:
    """How it calls itself."""
    assert (await proxy.ask(request())).status == 200
    via = proxy.upstream.received[-1].get("via")
    assert via is not None
    return via


def vias(received: Received) -> list[str]:
    """Each hop, whoever joined them."""
    return [via.strip() for line in received.all("via") for via in line.split(",")]


@pytest.mark.fault("a request that comes round to sigward itself", holds="refused at its second turn")
async def test_what_comes_round_is_refused(proxy: Proxy) -> None:
    via = await own_via(proxy)
    assert OWN.fullmatch(via)
    # It is the same for every request, and none of the signature's.
    assert (await proxy.ask(request("GET", "/", "Via: 1.0 fred, 1.1 p.example.net (a comment)", "Via: 2 two"))).status == 200
    received = proxy.upstream.received[-1]
    assert vias(received) == ["1.0 fred", "1.1 p.example.net (a comment)", "2 two", via]
    assert "via" not in assert_signed(received, HOST)["headers"].split(";")
    before = len(proxy.upstream.received)
    forms = [
        (f"Via: {via}",),
        ("Via: 1.0 fred", f"VIA: 1.1 a, {via} (c),1.1 b"),
        (f"Via: {via}", "Connection: via"),
        (f"Via: {via}", "Expect: x"),
    ]
    for form in forms:
        response = await proxy.ask(request("GET", "/?Action=ListQueues", *form))
        assert (response.status, response.get("x-sigward-error")) == (508, "loop"), form
        assert b"<Code>Loop</Code>" in response.body
    async with http2(proxy) as client:
        [stream] = await client.finished(client.send("GET", "/", HOST, b"", (), ("via", via)))
    assert (stream.headers[":status"], stream.headers["x-sigward-error"]) == ("508", "loop")
    # Intercepted or not.
    for authority in (f"{HOST}:443", "example.test:443"):
        connect = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nVia: {via}\r\n\r\n".encode()
        response = await proxy.ask(connect, to=proxy.forward)
        assert (response.status, response.get("x-sigward-error")) == (508, "loop"), authority
    assert len(proxy.upstream.received) == before
    # Another's is none of its business.
    assert (await proxy.ask(request("GET", "/", "Via: 1.1 sigward-0123456789abcdef"))).status == 200


@pytest.fixture
def second(upstream: Upstream, tmp_path: Path) -> Iterator[_core.Engine]:
    """Another sigward, whose upstream is the usual one."""
    engine = _core.Engine(engine_settings(upstream.port, upstream.write_ca(tmp_path / "second.pem")))
    engine.set_credentials("default", KEY, SECRET, None, None, "test")
    yield engine
    engine.close()


def to(address: tuple[str, int]) -> dict[str, object]:
    """A rule that sends AWS's hosts to another listener."""
    return {"host": "*.amazonaws.com", "upstream": f"http://127.0.0.1:{address[1]}", "service": "sqs", "region": "us-east-1"}


@pytest.mark.fault("a request that comes round to sigward itself", holds="two in a row are no loop, a circle is")
async def test_two_in_a_row_are_no_loop_but_a_circle_is(proxy: Proxy, second: _core.Engine, tmp_path: Path) -> None:
    own = await own_via(proxy)
    beyond = second.listen("127.0.0.1:0", "reverse", f"https://{HOST}")
    proxy.point_to(0, routes=[to(beyond)])
    assert (await proxy.ask(request("GET", "/?Action=ListQueues"))).status == 200
    received = proxy.upstream.received[-1]
    assert_signed(received, HOST)
    first, other = vias(received)
    assert first == own
    assert OWN.fullmatch(other)
    assert other != own
    # The second sends it back to the first, or the first to itself.
    second.configure(engine_settings(0, tmp_path / "second.pem", routes=[to(proxy.fixed)]))
    for circle in (beyond, proxy.fixed):
        proxy.point_to(0, routes=[to(circle)])
        response = await proxy.ask(request("POST", "/", "Content-Type: application/x-www-form-urlencoded", body=b"Action=ListQueues"))
        assert response.status == 508
        assert b"go round for ever" in response.body


async def test_a_proxy_on_the_way_that_is_sigward_itself(proxy: Proxy) -> None:
    proxy.point_to(0, routes=[], egress={"proxy": f"http://127.0.0.1:{proxy.forward[1]}"})
    response = await proxy.ask(request("GET", "/?Action=ListQueues"))
    assert (response.status, response.get("x-sigward-error")) == (502, "connect-failed")
    assert b" 508 " in response.body


def own_addresses() -> list[str]:
    """Addresses of this host that are not loopback's."""
    found: set[str] = set()
    for family, far in ((socket.AF_INET, "203.0.113.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Nothing is sent: this asks which address the way there begins at.
            probe.connect((far, 9))
            found.add(probe.getsockname()[0])
    return sorted(found)


@pytest.mark.fault("a tunnel to sigward itself", holds="it is refused before it is made, by whichever of the host's addresses and names")
async def test_a_tunnel_to_a_listener_of_its_own_is_refused(start: Start, upstream: Upstream) -> None:
    hosts = ["127.0.0.1", "127.0.0.2", "localhost", "0x7f.1", *own_addresses()]
    routes = [{"host": host, "action": "pass"} for host in ("localhost", "127.0.0.1", "127.0.0.2")]
    routes.append({"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}"})
    options = {"forward": "0.0.0.0:0", "reverse": (ReverseListener("0.0.0.0:0", None),)}
    proxy = await start(upstream, options=options, routes=routes)
    forward = ("127.0.0.1", proxy.forward[1])

    async def connect(host: str, port: int) -> Response:
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return await proxy.ask(f"CONNECT {shown} HTTP/1.1\r\nHost: {shown}\r\n\r\n".encode(), to=forward)

    for port in (proxy.forward[1], proxy.reverse[1]):
        for host in hosts:
            if ":" in host:
                # The listeners are IPv4's: there is nothing.
                continue
            response = await connect(host, port)
            assert (response.status, response.get("x-sigward-error")) == (508, "loop"), (host, port)
            assert b"leads back" in response.body
    # Another program's listener on this host is none of its own.
    async with connected(forward) as (reader, writer):
        writer.write(f"CONNECT 127.0.0.1:{upstream.port} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert (await asyncio.wait_for(read_response(reader, "HEAD"), 20)).status == 200
    assert counted(proxy.engine.metrics(), "sigward_loops_total") >= 6


@pytest.mark.fault("a tunnel to sigward within a tunnel to another sigward", holds="each is a tunnel of its client's, and none leads back")
async def test_two_in_a_row_carry_tunnels(start: Start, upstream: Upstream, second: _core.Engine, tmp_path: Path) -> None:
    """The second is asked for a tunnel within a tunnel of the first; for one to itself it refuses."""
    beyond = second.listen("127.0.0.1:0", "forward")
    settings = engine_settings(upstream.port, tmp_path / "second.pem", routes=[{"host": "127.0.0.1", "action": "pass"}])
    second.configure(settings)
    proxy = await start(upstream, routes=[{"host": "127.0.0.1", "action": "pass"}])
    for port, status in ((upstream.port, 200), (beyond[1], 508)):
        async with connected(proxy.forward) as (reader, writer):
            for step, expected in ((beyond[1], 200), (port, status)):
                writer.write(f"CONNECT 127.0.0.1:{step} HTTP/1.1\r\nHost: 127.0.0.1:{step}\r\n\r\n".encode())
                response = await asyncio.wait_for(read_response(reader, "HEAD" if expected == 200 else "CONNECT"), 20)
                assert response.status == expected, step


async def test_nothing_is_said_where_that_is_asked_for(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, via=False)
    assert (await proxy.ask(request("GET", "/", "Via: 1.0 fred"))).status == 200
    assert upstream.received[0].all("via") == ["1.0 fred"]
