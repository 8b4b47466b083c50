"""Uploads over HTTP/2 by clients of every kind: those that wait for 100, that stop early, and that send on and read no more."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import h2.errors
import h2.events
import pytest

from tests.conformance.conftest import Proxy, Start
from tests.conformance.test_http2 import Http2Client
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.needs import need
from tests.support import Upstream, counted

MUCH = 48 << 20
EARLY = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 5\r\nconnection: close\r\n\r\nearly"
EXPECTS = ("expect", "100-continue")


@contextlib.asynccontextmanager
async def answering_early(upstream: Upstream) -> AsyncIterator[int]:
    """The port of an upstream that answers at a request's head, and takes the rest."""

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(EARLY)
            await writer.drain()
            while await reader.read(1 << 16):
                pass
        writer.close()

    server = await asyncio.start_server(early, "127.0.0.1", 0, ssl=upstream.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def client_of(proxy: Proxy) -> AsyncIterator[Http2Client]:
    async with proxy.tunnel(f"{BUCKET_HOST}:443", BUCKET_HOST, ["h2"]) as (reader, writer):
        yield Http2Client(reader, writer)


async def events_until(client: Http2Client, number: int, *kinds: type[h2.events.Event]) -> list[Any]:
    """What comes on a stream until one of these does."""
    seen: list[Any] = []
    while not any(isinstance(event, kinds) for event in seen):
        data = await asyncio.wait_for(client.reader.read(65536), 10)
        assert data, "the proxy closed the connection"
        seen += [event for event in client.connection.receive_data(data) if getattr(event, "stream_id", None) == number]
        client.flush()
    return seen


@pytest.mark.parametrize("hold", [1 << 20, 1000], ids=["held", "streamed"])
async def test_a_client_that_waits_gets_100_when_its_body_is_wanted(start: Start, upstream: Upstream, hold: int) -> None:
    proxy = await start(upstream, body={"hold": hold})
    async with client_of(proxy) as client:
        number = client.begin("PUT", "/k", BUCKET_HOST, ("content-length", "5000"), EXPECTS, ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"))
        [event] = await events_until(client, number, h2.events.InformationalResponseReceived, h2.events.ResponseReceived)
        assert dict(event.headers)[":status"] == "100"
        client.connection.send_data(number, b"x" * 5000, end_stream=True)
        client.flush()
        [stream] = await client.finished(number)
        assert (stream.headers[":status"], bytes(stream.body)) == ("200", b"ok")
    assert upstream.received[-1].body == b"x" * 5000
    assert "expect" not in dict(upstream.received[-1].headers)


@pytest.mark.native("mitmproxy answers 100 before it asks anybody")
async def test_a_client_that_waits_for_100_is_refused_without_it(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, routes=[{"host": BUCKET_HOST, "action": "deny"}], timeouts={"idle": 0.2})
    async with client_of(proxy) as client:
        number = client.begin("PUT", "/k", BUCKET_HOST, ("content-length", "5000"), EXPECTS)
        seen = await events_until(client, number, h2.events.StreamReset)
        kinds = [type(event) for event in seen]
        assert h2.events.InformationalResponseReceived not in kinds
        # A client that neither sends nor resets has the whole answer; its stream ends without an error (RFC 9113, section 8.1).
        assert kinds.index(h2.events.ResponseReceived) < kinds.index(h2.events.StreamEnded) < kinds.index(h2.events.StreamReset)
        assert seen[-1].error_code == h2.errors.ErrorCodes.NO_ERROR


async def test_a_client_that_stops_at_an_early_answer(start: Start, upstream: Upstream) -> None:
    """Go's: it sends no more above 299, waits for the answer's end, and resets. Its connection serves on."""
    proxy = await start(upstream, body={"hold": 1000})
    async with answering_early(upstream) as port, client_of(proxy) as client:
        proxy.point_to(port, body={"hold": 1000})
        for _ in range(3):
            number = client.begin("PUT", "/k", BUCKET_HOST, ("content-length", str(MUCH)))
            await client.upload(number, 100_000, patience=10)
            [stream] = await client.finished(number)
            assert (stream.headers[":status"], bytes(stream.body)) == ("403", b"early")
            client.connection.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
            client.flush()


async def test_what_is_left_of_requests_takes_nothing_from_others(start: Start, upstream: Upstream) -> None:
    """Clients that are answered early and neither send on nor reset: nothing of them is held, however many there are."""
    routes = [{"host": BUCKET_HOST, "action": "deny"}, {"host": "*", "connect": f"127.0.0.1:{upstream.port}"}]
    proxy = await start(upstream, routes=routes, limits={"held_bytes": 1 << 20})
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(6):
            client = await stack.enter_async_context(client_of(proxy))
            numbers = [client.begin("PUT", "/k", BUCKET_HOST, ("content-length", str(MUCH))) for _ in range(8)]
            while not all(client.streams[number].headers for number in numbers):
                await asyncio.wait_for(client.read(), 10)
            assert {client.streams[number].headers[":status"] for number in numbers} == {"403"}
        for _ in range(3):
            assert (await proxy.ask(request("POST", "/", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n")).status == 200
        assert counted(proxy.engine.metrics(), "sigward_held_body_bytes") == 0


@pytest.mark.native("mitmproxy grants it to one stream")
@pytest.mark.parametrize("resets", [True, False], ids=["a reset", "silence"])
async def test_what_a_client_is_granted_to_send_on_ends_with(start: Start, upstream: Upstream, resets: bool) -> None:
    """Others have their turn."""
    proxy = await start(upstream, routes=[{"host": BUCKET_HOST, "action": "deny"}])
    async with client_of(proxy) as client:
        usual = 256 << 10
        for _ in range(2):
            number = client.begin("PUT", "/k", BUCKET_HOST)
            for granted in (True, False):
                while (client.connection.remote_settings.initial_window_size > usual) != granted:
                    await asyncio.wait_for(client.read(), 10)
                if granted and resets:
                    client.connection.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
                    client.flush()


@pytest.mark.parametrize("denied", [False, True], ids=["upstream", "sigward"])
async def test_curl_gets_an_early_answer_to_a_large_upload(start: Start, upstream: Upstream, denied: bool) -> None:
    """Version 7.88 reads nothing behind an answer: neither a WINDOW_UPDATE nor, but as a failure, a reset."""
    curl = need("curl")
    settings: dict[str, Any] = {"routes": [{"host": BUCKET_HOST, "action": "deny"}]} if denied else {"body": {"hold": 1000}}
    proxy = await start(upstream, **settings)
    async with answering_early(upstream) as port:
        proxy.point_to(port)
        to = f"http://127.0.0.1:{proxy.forward[1]}"
        arguments = ("--silent", "--show-error", "--http2", "--proxy", to, "--cacert", str(proxy.ca_file), "--max-time", "20")
        process = await asyncio.create_subprocess_exec(
            curl, *arguments, "--write-out", " %{http_version} %{http_code}", "--upload-file", "-", "-H", f"content-length: {MUCH}",
            f"https://{BUCKET_HOST}/k", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, error = await process.communicate(b"x" * MUCH)
    assert process.returncode == 0, (process.returncode, error, out)
    assert out.endswith(b" 2 403"), out
    assert denied or out.startswith(b"early")
