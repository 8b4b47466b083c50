"""What an upstream sends before its answer (1xx, or a part of its head): none of it moves a time-out, or is without end."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from tests.conformance.conftest import Start
from tests.conformance.test_hooks import idle
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.http2_upstream import Http2Upstream, ServerStream
from tests.support import Answer, Received, Upstream, connected, read_response

PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
PAUSE = 0.01
"""Seconds; far below every time-out here."""
FOREVER = 600.0
"""Seconds of the time-outs that must not be what ends a request: the test would end before."""


def without_end(*pieces: bytes) -> Answer:
    """Sends these again and again, a piece at a time, and no answer."""

    async def sending(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while not writer.is_closing():
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(PAUSE)

    return sending


TRICKLES: dict[str, tuple[bytes, ...]] = {
    "1xx": (PROCESSING,),
    "100": (b"HTTP/1.1 100 Continue\r\n\r\n",),
    "1xx, byte by byte": tuple(bytes([byte]) for byte in PROCESSING),
    "headers of the answer": (b"HTTP/1.1 200 OK\r\n" + b"x-a: 1\r\n", *[b"x-b: 2\r\n"] * 20_000),
    "one header of the answer": (b"HTTP/1.1 200 OK\r\nx-a: ", *[b"a"] * 200_000),
}


@pytest.mark.parametrize("body", [b"", b"held"])
@pytest.mark.parametrize("name", TRICKLES)
async def test_only_the_answer_ends_the_wait_for_it(start: Start, upstream: Upstream, name: str, body: bytes) -> None:
    proxy = await start(upstream, timeouts={"head": 0.3, "idle": FOREVER}, retry={"mode": "off"})
    upstream.answers = [without_end(*TRICKLES[name])]
    response = await proxy.ask(request("POST", "/", body=body))
    assert (response.status, response.get("x-sigward-error")) == (504, "head-timeout")
    await idle(proxy)
    assert (await proxy.ask(request())).body == b"ok"


@pytest.mark.parametrize("body", [b"", b"held"])
async def test_only_the_answer_ends_the_wait_for_it_over_http2(start: Start, body: bytes) -> None:
    """Also where the request's end came after the wait for it had begun."""

    async def processing(stream: ServerStream) -> None:
        await stream.whole()
        while stream.reset is None and not stream.peer.closed:
            stream.peer.http.send_headers(stream.number, [(":status", "102")])
            stream.peer.flush()
            await asyncio.sleep(PAUSE)

    async with Http2Upstream([processing]) as far:
        settings = {"timeouts": {"head": 0.3, "idle": FOREVER}, "retry": {"mode": "off"}, "egress": {"http2": "always"}}
        proxy = await start(far, **settings)
        response = await proxy.ask(request("POST", "/", body=body))
        assert (response.status, response.get("x-sigward-error")) == (504, "head-timeout")
        await far.streams_seen[0].until(lambda: far.streams_seen[0].reset is not None)
        assert (await proxy.ask(request())).body == b"ok"


async def test_what_comes_early_is_no_progress_of_the_upload(start: Start, upstream: Upstream) -> None:
    """The upstream takes nothing of it, and talks on."""
    proxy = await start(upstream, body={"hold": 1000}, timeouts={"idle": 0.5, "head": FOREVER}, retry={"mode": "off"})
    size = 64 << 20

    async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await without_end(PROCESSING)(Received("", "", [], b""), reader, writer)  # type: ignore[operator]

    async with await serving(upstream, talks) as port:
        proxy.point_to(port)
        async with connected(proxy.reverse) as (reader, writer):
            writer.write(request("PUT", "/k", f"Content-Length: {size}", "x-amz-content-sha256: UNSIGNED-PAYLOAD", host=BUCKET_HOST))
            pouring = asyncio.create_task(pour(writer, size))
            try:
                response = await asyncio.wait_for(read_response(reader), 20)
            finally:
                pouring.cancel()
                writer.transport.abort()
    assert (response.status, response.get("x-sigward-error")) == (504, "head-timeout")


async def serving(
    upstream: Upstream, talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> "contextlib.AbstractAsyncContextManager[int]":
    """An upstream of the same certificate that reads no request before it talks."""

    @contextlib.asynccontextmanager
    async def running():  # type: ignore[no-untyped-def]
        server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=upstream.context)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    return running()


async def pour(writer: asyncio.StreamWriter, size: int) -> None:
    with contextlib.suppress(OSError):
        for _ in range(0, size, 1 << 18):
            writer.write(b"x" * (1 << 18))
            await writer.drain()


MOST = 256 << 10
"""Bytes of them before one answer."""

FLOODS = {"many": PROCESSING, "large": b"HTTP/1.1 103 Early Hints\r\nlink: " + b"x" * 60_000 + b"\r\n\r\n"}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_of_them_ends(start: Start, upstream: Upstream, name: str) -> None:
    """However fast it comes; a client is not sent all of it."""
    proxy = await start(upstream, timeouts={"head": FOREVER}, retry={"mode": "off"})

    async def flood(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while not writer.is_closing():
                writer.write(FLOODS[name] * 16)
                await writer.drain()
                await asyncio.sleep(0)

    upstream.answers = [flood]
    response = await proxy.ask(request())
    assert (response.status, response.get("x-sigward-error")) == (502, "connection-broken")
    assert b"informational" in response.body
    assert len(response.informational) * len(FLOODS[name]) <= MOST
    await idle(proxy)
    assert (await proxy.ask(request())).body == b"ok"
