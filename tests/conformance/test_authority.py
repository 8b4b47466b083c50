"""A request names its host once, whatever the protocol has two places for: two names that differ are two readings of one request."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import pytest

from sigward.mitm import Front
from tests.conformance.conftest import HOST, Proxy
from tests.conformance.test_hooks import idle
from tests.conformance.test_http2 import Http2Client, Stream
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.conformance.test_smuggling import Fields, fields, unchecked
from tests.support import assert_signed, connected, read_response

OTHER = "dynamodb.us-east-1.amazonaws.com"


@contextlib.asynccontextmanager
async def http2_to(proxy: Proxy, listener: str) -> AsyncIterator[Http2Client]:
    """A client of HTTP/2: inside a CONNECT to HOST, or by TLS to a reverse listener."""
    if listener == "connect":
        async with proxy.tunnel(f"{HOST}:443", HOST, ["h2"]) as (reader, writer):
            yield Http2Client(reader, writer)
        return
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    context.set_alpn_protocols(["h2"])
    async with connected(getattr(proxy, listener), ssl=context) as (reader, writer):
        yield Http2Client(reader, writer)


async def sent(client: Http2Client, head: Fields) -> Stream:
    """What becomes of one request, as it stands."""
    unchecked(client)
    number = client.connection.get_next_available_stream_id()
    client.streams[number] = Stream()
    client.connection.send_headers(number, head, end_stream=True)
    client.flush()
    return await client.settled(number)


TWO_NAMES: dict[str, Fields] = {
    "another host": fields(("host", OTHER)),
    "another authority": fields(("host", HOST), authority=OTHER),
    "another port": fields(("host", f"{HOST}:8443")),
    "a port that is not TLS's": fields(("host", f"{HOST}:80")),
    "an empty host": fields(("host", "")),
    "an empty authority": fields(("host", HOST), authority=""),
    "a host that is none": fields(("host", f"{HOST}/x")),
    "a host with a port that is none": fields(("host", f"{HOST}:x")),
    "a host below it": fields(("host", f"a.{HOST}")),
    "a host of which it is the beginning": fields(("host", f"{HOST}.evil.test")),
    "a list of hosts": fields(("host", f"{HOST}, {HOST}")),
    "two hosts": fields(("host", HOST), ("host", HOST)),
    "two hosts that differ": fields(("host", HOST), ("host", OTHER)),
    "two hosts alone": fields(("host", HOST), ("host", OTHER), authority=None),
    "two authorities": fields((":authority", OTHER)),
    "a user in the authority": fields(authority=f"user@{HOST}"),
    "a user and a password in the authority": fields(authority=f"user:word@{HOST}"),
    "a user in both": fields(("host", f"user@{HOST}"), authority=f"user@{HOST}"),
    "a user in host": fields(("host", f"user@{HOST}")),
    "a user in host alone": fields(("host", f"user@{HOST}"), authority=None),
    "another host behind a user": fields(("host", f"{HOST}@{OTHER}")),
    "no host at all": fields(authority=None),
    "an empty host alone": fields(("host", ""), authority=None),
}


@pytest.mark.parametrize("listener", ["connect", "reverse", "fixed"])
@pytest.mark.parametrize("name", TWO_NAMES)
async def test_http2_names_its_host_once(proxy: Proxy, name: str, listener: str) -> None:
    """RFC 9113, section 8.3.1: such a request is malformed."""
    if (name, listener) == ("an empty host alone", "fixed"):
        pytest.skip("such a client knows no host, and need not")
    async with http2_to(proxy, listener) as client:
        stream = await sent(client, TWO_NAMES[name])
        if not client.terminated and stream.reset is None:
            assert (stream.headers[":status"], stream.headers["x-sigward-error"]) == ("400", "bad-host")
    await idle(proxy)
    assert proxy.upstream.received == []
    assert (await proxy.ask(request())).status == 200


ONE_NAME: dict[str, Fields] = {
    "in both": fields(("host", HOST)),
    "in other letters": fields(("host", HOST.upper())),
    "with a dot": fields(("host", f"{HOST}.")),
    "with the usual port": fields(("host", f"{HOST}:443")),
    "with the usual port in :authority": fields(("host", HOST), authority=f"{HOST}:443"),
    "in :authority": fields(),
    "in host": fields(("host", HOST), authority=None),
}


NOT_OF_MITMPROXY = ("in other letters", "with a dot", "with the usual port", "with the usual port in :authority")
"""h2 holds the two against each other byte by byte."""


@pytest.mark.parametrize("listener", ["connect", "reverse", "fixed"])
@pytest.mark.parametrize("name", ONE_NAME)
async def test_http2_may_name_it_in_either_place_and_in_any_spelling(proxy: Proxy, name: str, listener: str) -> None:
    async with http2_to(proxy, listener) as client:
        stream = await sent(client, ONE_NAME[name])
        if isinstance(proxy.front, Front) and name in NOT_OF_MITMPROXY:
            assert stream.reset is not None or client.terminated
            assert proxy.upstream.received == []
            return
    assert (stream.headers[":status"], stream.body) == ("200", b"ok")
    assert_signed(proxy.upstream.received[0], HOST)


@pytest.mark.native("mitmproxy speaks HTTP/2 over TLS alone")
@pytest.mark.parametrize("method", ["GET", "CONNECT"])
async def test_http2_to_a_forward_listener(proxy: Proxy, method: str) -> None:
    head = (
        fields(("host", OTHER), scheme="http") if method == "GET" else [(":method", method), (":authority", f"{HOST}:443"), ("host", OTHER)]
    )
    async with connected(proxy.forward) as (reader, writer):
        stream = await sent(Http2Client(reader, writer), head)
    assert (stream.headers[":status"], stream.headers["x-sigward-error"]) == ("400", "bad-host")
    assert proxy.upstream.connections == 0


ABSOLUTE = {
    "another host": (f"http://{HOST}/", OTHER, (421, "host-mismatch")),
    "a user": (f"http://{HOST}/", f"user@{HOST}", (400, "bad-host")),
    "the host as a user": (f"http://{HOST}/", f"{HOST}@{OTHER}", (400, "bad-host")),
    "a list": (f"http://{HOST}/", f"{HOST}, {OTHER}", (400, "bad-host")),
    "a path": (f"http://{HOST}/", f"{HOST}/x", (400, "bad-host")),
}


@pytest.mark.parametrize("listener", ["forward", "reverse", "fixed", "connect"])
@pytest.mark.parametrize("name", ABSOLUTE)
async def test_the_absolute_form_names_the_host_that_host_does(proxy: Proxy, name: str, listener: str) -> None:
    target, host, expected = ABSOLUTE[name]
    raw = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    if listener == "connect":
        async with proxy.tunnel(f"{HOST}:443", HOST) as (reader, writer):
            writer.write(raw)
            response = await asyncio.wait_for(read_response(reader), 10)
    else:
        response = await proxy.ask(raw, to=getattr(proxy, listener))
    told = (response.status, response.get("x-sigward-error"))
    # What is no host differs from every host.
    assert told in (expected, (421, "host-mismatch"))
    assert proxy.upstream.connections == 0


@pytest.mark.parametrize("host", [HOST.upper(), f"{HOST}.", f"{HOST}:80"])
@pytest.mark.parametrize("listener", ["forward", "reverse", "fixed"])
async def test_the_absolute_form_may_have_another_spelling(proxy: Proxy, listener: str, host: str) -> None:
    response = await proxy.ask(f"GET http://{HOST}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), to=getattr(proxy, listener))
    assert response.status == 200
    assert_signed(proxy.upstream.received[0], HOST)


@pytest.mark.parametrize(
    "host", [f"user@{HOST}", f"user:word@{HOST}", f"{HOST}@{BUCKET_HOST}", f"{HOST}/x", f"{HOST}, {HOST}", "a..b", "1.2.3.256"]
)
@pytest.mark.parametrize("listener", ["reverse", "fixed"])
async def test_a_host_header_that_is_no_host(proxy: Proxy, listener: str, host: str) -> None:
    """Also where the listener itself knows where to send it."""
    response = await proxy.ask(request(host=host), to=getattr(proxy, listener))
    assert (response.status, response.get("x-sigward-error")) == (400, "bad-host")
    assert proxy.upstream.connections == 0


async def test_an_empty_host_to_a_listener_with_an_upstream(proxy: Proxy) -> None:
    """RFC 9112, section 3.2: a client whose URL names no host sends it."""
    response = await proxy.ask(request(host=""), to=proxy.fixed)
    assert response.status == 200
    assert_signed(proxy.upstream.received[0], HOST)
