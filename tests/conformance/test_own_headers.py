"""What begins with `x-sigward-` comes from sigward alone: an upstream's headers and trailers of such names do not reach the client."""

import asyncio

import pytest

from sigward.mitm import Front
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_http2 import http2
from tests.conformance.test_requests import request
from tests.http2_upstream import Http2Upstream, ServerStream
from tests.support import Received, Upstream, connected, read_response

OWN = ("x-sigward-error: internal", "X-Sigward-Attempts: 99", "x-sigward-reason: no", "x-sigward-anything: 1", "X-SIGWARD-: 1")
OWN_PAIRS = tuple((name.lower(), value) for name, _, value in (line.partition(": ") for line in OWN))
BY_UPSTREAM = [
    b"\r\n".join(
        [
            b"HTTP/1.1 103 Early Hints",
            b"link: </x>",
            b"connection: x-gone",
            b"x-gone: 1",
            b"content-length: 5",
            *(line.encode() for line in OWN),
            b"\r\nHTTP/1.1 200 OK",
            b"x-sigwardish: theirs",
            *(line.encode() for line in OWN * 2),
            b"transfer-encoding: chunked",
            b"trailer: x-end",
            b"\r\n3\r\nabc\r\n0",
            b"x-end: y",
            *(line.encode() for line in OWN),
            b"\r\n",
        ]
    )
]


def own(headers: "list[tuple[str, str]] | dict[str, str]") -> list[tuple[str, str]]:
    """Those that begin as sigward's do."""
    pairs = headers.items() if isinstance(headers, dict) else headers
    return [(name.lower(), value) for name, value in pairs if name.lower().startswith("x-sigward-")]


ATTEMPTS = [("x-sigward-attempts", "1")]


async def test_an_upstream_does_not_speak_for_sigward(proxy: Proxy) -> None:
    """Neither in its head, before it, nor behind its body."""
    proxy.upstream.answers = list(BY_UPSTREAM)
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("GET", "/", "TE: trailers", "Connection: te"))
        response = await asyncio.wait_for(read_response(reader), 10)
    assert (response.status, response.body, response.get("x-sigwardish")) == (200, b"abc", "theirs")
    assert own(response.headers) == ATTEMPTS
    if not isinstance(proxy.front, Front):
        assert response.informational == [(103, [("link", "</x>")])]
        assert response.trailers == [("x-end", "y")]


async def test_an_upstream_does_not_speak_for_sigward_to_a_client_of_http2(proxy: Proxy) -> None:
    proxy.upstream.answers = list(BY_UPSTREAM)
    async with http2(proxy) as client:
        [stream] = await client.finished(client.send("GET", "/", HOST))
    assert (stream.body, stream.headers["x-sigwardish"], stream.trailers) == (b"abc", "theirs", {"x-end": "y"})
    assert own(stream.headers) == ATTEMPTS


@pytest.mark.parametrize("trailers", [(("x-end", "y"),), ()])
async def test_an_upstream_of_http2_does_not_speak_for_sigward(start: Start, trailers: tuple[tuple[str, str], ...]) -> None:
    async def speaks(stream: ServerStream) -> None:
        await stream.whole()
        stream.respond(200, *OWN_PAIRS, ("x-sigwardish", "theirs"))
        await stream.send(b"abc")
        stream.end(*trailers, *OWN_PAIRS)

    async with Http2Upstream([speaks]) as far:
        proxy = await start(far, egress={"http2": "always"})
        async with http2(proxy) as client:
            [stream] = await client.finished(client.send("GET", "/", HOST))
        assert (stream.body, stream.headers["x-sigwardish"], stream.trailers) == (b"abc", "theirs", dict(trailers))
        assert own(stream.headers) == ATTEMPTS


@pytest.mark.parametrize("status", ["403 Forbidden", "500 Oh", "204 No Content", "304 Not Modified"])
async def test_whatever_its_status(start: Start, upstream: Upstream, status: str) -> None:
    proxy = await start(upstream, retry={"mode": "off"})
    upstream.answers = ["\r\n".join([f"HTTP/1.1 {status}", *OWN, "content-length: 0", "", ""]).encode()]
    response = await proxy.ask(request())
    assert own(response.headers) == ATTEMPTS
    # What sigward itself has to say is there.
    refused = own((await proxy.ask(request(host="a.test"))).headers)
    assert [name for name, _ in refused] == ["x-sigward-error", "x-sigward-reason"]
    assert ("x-sigward-error", "not-aws") in refused


async def test_nor_where_protocols_are_switched(proxy: Proxy) -> None:
    async def switch(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(["HTTP/1.1 101 Switching Protocols", "Upgrade: echo", "Connection: Upgrade", *OWN, "", ""]).encode())

    proxy.upstream.answers = [switch]
    async with connected(proxy.reverse) as (reader, writer):
        writer.write(request("GET", "/", "Connection: Upgrade", "Upgrade: echo"))
        response = await asyncio.wait_for(read_response(reader), 10)
    assert (response.status, own(response.headers)) == (101, ATTEMPTS)
