"""Hosts that the CA does not vouch for: a client is told, instead of finding out by a handshake that fails."""

import ssl

import pytest

from sigward.front import NativeFront
from tests.conformance.conftest import Start
from tests.support import Upstream, connected

PRIVATE = "search.internal.example"


@pytest.mark.parametrize("action", ["sign", "deny"])
async def test_a_tunnel_is_refused(action: str, start: Start, upstream: Upstream) -> None:
    """The routes named the host after the CA was made."""
    route = {"host": PRIVATE, "service": "es", "region": "us-east-1", "action": action, "connect": f"127.0.0.1:{upstream.port}"}
    proxy = await start(upstream, routes=[route])
    with pytest.raises(ConnectionRefusedError) as caught:
        async with proxy.tunnel(f"{PRIVATE}:443", PRIVATE):
            pass
    assert caught.value.args == (403, "not-vouched-for")
    assert upstream.received == []


async def test_what_is_passed_on_needs_no_certificate_of_ours(start: Start, upstream: Upstream) -> None:
    """`localhost` is a name of the upstream's own certificate, and a route lets it be reached."""
    proxy = await start(upstream, routes=[{"host": "127.0.0.1", "action": "pass"}])
    async with proxy.tunnel(f"127.0.0.1:{upstream.port}", "localhost") as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")


async def test_a_listeners_own_name(start: Start, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    """The handshake cannot say more than that it failed; the log says what would mend it."""
    proxy = await start(upstream)
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    async with connected(proxy.reverse, ssl=context, server_hostname="localhost"):
        pass
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree"):
        async with connected(proxy.reverse, ssl=context, server_hostname="sigward.internal"):
            pass
    if isinstance(proxy.front, NativeFront):
        proxy.front._take()
    assert "sigward.internal" in caplog.text
    assert "ca_names" in caplog.text
