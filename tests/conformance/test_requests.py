"""What goes upstream, and what comes back."""

import asyncio

from tests.conformance.conftest import HOST, Proxy
from tests.support import assert_signed

GET = f"GET /?Action=ListQueues HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


async def test_reverse_by_host(proxy: Proxy) -> None:
    response = await proxy.ask(GET)
    assert (response.status, response.body) == (200, b"ok")
    scope = assert_signed(proxy.upstream.received[0], HOST)
    assert scope["service"] == "sqs"
