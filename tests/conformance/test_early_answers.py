"""Answers that come before the whole request, of an upstream's or of sigward's own: the client gets them, whatever it does next."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import h2.errors
import h2.events
import pytest

from tests.conformance.conftest import Proxy, Start
from tests.conformance.test_http2 import Http2Client, http2
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.needs import need, needs
from tests.support import Received, Upstream, connected, read_response

SIZE = 24 << 20
EARLY = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly"


class EarlyUpstream(Upstream):
    """Answers as soon as it has a head, then takes the rest in, as nginx does for `return 200`."""

    early = EARLY

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        head = await reader.readuntil(b"\r\n\r\n")
        async with self.arrived:
            self.received.append(Received("PUT", head.split()[1].decode(), [], b""))
            self.arrived.notify_all()
        writer.write(self.early)
        await writer.drain()
        while await reader.read(65536):
            pass
        writer.close()


async def upload_http2(client: Http2Client) -> bytes:
    """Sends SIZE bytes as the windows allow; returns the answer's body."""
    number = client.connection.get_next_available_stream_id()
    client.connection.send_headers(
        number, [(":method", "PUT"), (":scheme", "https"), (":authority", BUCKET_HOST), (":path", "/k"), ("content-length", str(SIZE))]
    )
    left, body, ended = SIZE, b"", False
    while not ended:
        window = min(client.connection.local_flow_control_window(number), left)
        while window > 0:
            piece = min(window, client.connection.max_outbound_frame_size)
            client.connection.send_data(number, b"x" * piece, end_stream=piece == left)
            left, window = left - piece, window - piece
        client.flush()
        await client.writer.drain()
        for event in client.connection.receive_data(await asyncio.wait_for(client.reader.read(65536), 10)):
            if isinstance(event, h2.events.DataReceived):
                body += event.data
                client.connection.acknowledge_received_data(event.flow_controlled_length, number)
            ended |= isinstance(event, h2.events.StreamEnded | h2.events.StreamReset)
    return body


@pytest.mark.parametrize("version", [1, 2])
async def test_an_early_answer_does_not_stall_the_upload(start: Start, version: int) -> None:
    async with EarlyUpstream() as upstream:
        proxy: Proxy = await start(upstream, body={"hold": 65536})
        if version == 2:
            async with proxy.tunnel(f"{BUCKET_HOST}:443", BUCKET_HOST, ["h2"]) as (reader, writer):
                assert await upload_http2(Http2Client(reader, writer)) == b"early"
            return
        async with connected(proxy.reverse) as (reader, writer):
            writer.write(request("PUT", "/k", f"Content-Length: {SIZE}", host=BUCKET_HOST))
            answer = asyncio.create_task(read_response(reader))
            for _ in range(SIZE // 65536):
                writer.write(b"x" * 65536)
                await asyncio.wait_for(writer.drain(), 10)
            assert (await asyncio.wait_for(answer, 10)).body == b"early"


NOT_THERE = b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 5\r\n\r\nearly"
NOT_THERE_IN_CHUNKS = b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nearly\r\n0\r\n\r\n"
UPLOAD = 3 << 20


async def stops(client: Http2Client, number: int) -> None:
    """As Go's net/http does at a status above 299: it sends nothing more, and waits for the answer's end."""
    await client.upload(number, 100_000, patience=10)
    while not client.streams[number].ended:
        await asyncio.wait_for(client.read(), 10)


async def stops_and_resets(client: Http2Client, number: int) -> None:
    """As Go does next."""
    await stops(client, number)
    if client.streams[number].reset is None:
        client.connection.reset_stream(number, h2.errors.ErrorCodes.NO_ERROR)
        client.flush()


async def goes_on(client: Http2Client, number: int) -> None:
    """As far as it is let."""
    sent = 0
    while sent < UPLOAD and client.streams[number].reset is None:
        window = min(client.connection.local_flow_control_window(number), client.connection.max_outbound_frame_size, UPLOAD - sent)
        if not window:
            await asyncio.wait_for(client.read(), 10)
            continue
        sent += window
        client.connection.send_data(number, b"x" * window, end_stream=sent == UPLOAD)
        client.flush()
        await client.writer.drain()


CLIENTS: dict[str, Callable[[Http2Client, int], Awaitable[None]]] = {
    "stops": stops,
    "stops and resets": stops_and_resets,
    "goes on": goes_on,
}


@pytest.mark.parametrize("answer", [NOT_THERE, NOT_THERE_IN_CHUNKS, None], ids=["length", "chunks", "sigward's"])
async def test_an_early_answer_ends_before_the_request_does(start: Start, answer: bytes | None) -> None:
    """And if the request is stopped then, it is by NO_ERROR (RFC 9113, section 8.1). The connection goes on."""
    async with EarlyUpstream() as upstream:
        denied = [{"host": BUCKET_HOST, "path": "/denied", "action": "deny"}]
        proxy: Proxy = await start(
            upstream, body={"hold": 65536}, routes=[*denied, {"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}"}]
        )
        upstream.early = answer or b""
        async with http2(proxy, BUCKET_HOST) as client:
            for does in CLIENTS.values():
                number = client.begin("PUT", "/k" if answer else "/denied", BUCKET_HOST, ("content-length", str(UPLOAD)))
                await does(client, number)
                [stream] = await client.finished(number)
                assert (stream.headers[":status"], stream.whole, stream.reset or 0) == ("404" if answer else "403", True, 0), does
                assert stream.body == b"early" if answer else stream.headers["x-sigward-error"] == "denied"
                await client.echo()


@pytest.mark.mitmproxy("the native one stops it at once")
async def test_an_upload_that_stops_is_ended_for_its_client(start: Start) -> None:
    """One that waits for nothing and says nothing keeps no stream open."""
    async with EarlyUpstream() as upstream:
        proxy: Proxy = await start(upstream, body={"hold": 65536})
        async with http2(proxy, BUCKET_HOST) as client:
            number = client.begin("PUT", "/k", BUCKET_HOST, ("content-length", str(UPLOAD)))
            await stops(client, number)
            stream = client.streams[number]
            assert (stream.whole, stream.body) == (True, b"early")
            while stream.reset is None:
                await asyncio.wait_for(client.read(), 10)
            assert stream.reset == h2.errors.ErrorCodes.NO_ERROR
        assert not proxy.left()


async def test_a_client_that_stops_gets_its_early_answer_over_http1(start: Start) -> None:
    """Also its last chunk."""
    async with EarlyUpstream() as upstream:
        upstream.early = NOT_THERE_IN_CHUNKS
        proxy: Proxy = await start(upstream, body={"hold": 65536})
        async with connected(proxy.reverse) as (reader, writer):
            writer.write(request("PUT", "/k", f"Content-Length: {UPLOAD}", host=BUCKET_HOST) + b"x" * 100_000)
            answer = await asyncio.wait_for(read_response(reader), 10)
            assert (answer.status, answer.body) == (404, b"early")


@pytest.mark.mitmproxy("test_http2_uploads.py has the native one's")
@needs("curl")
@pytest.mark.parametrize("size", [3 << 20, 24 << 20])
async def test_curl_gets_its_early_answer(start: Start, tmp_path: Path, size: int) -> None:
    """curl 7.88 takes a stream that is reset before it has sent all for a failure."""
    body = tmp_path / "body"
    body.write_bytes(b"x" * size)
    async with EarlyUpstream() as upstream:
        upstream.early = NOT_THERE
        proxy: Proxy = await start(upstream, body={"hold": 65536})
        host, port = proxy.forward
        command = ["curl", "-sS", "--http2", "--cacert", str(proxy.ca_file), "-x", f"http://{host}:{port}", "-T", str(body)]
        process = await asyncio.create_subprocess_exec(
            *command, "-w", "%{http_code} %{http_version}", f"https://{BUCKET_HOST}/k", stdout=asyncio.subprocess.PIPE
        )
        said, _ = await asyncio.wait_for(process.communicate(), 60)
        assert (process.returncode, said) == (0, b"early404 2")


CLIENTS_OF_OTHERS = {
    "go": ["go", "run", "upload.go"],
    "node": ["node", "upload.mjs"],
    "java": ["java", "-XX:TieredStopAtLevel=1", "Upload.java"],
}


@pytest.mark.parametrize("name", CLIENTS_OF_OTHERS)
async def test_real_clients_get_their_early_answers(start: Start, name: str) -> None:
    """Whether they stop, go on, or wait for 100: again and again on one connection."""
    command = CLIENTS_OF_OTHERS[name]
    need(command[0])
    async with EarlyUpstream() as upstream:
        upstream.early = NOT_THERE
        proxy: Proxy = await start(upstream, body={"hold": 65536})
        host, port = proxy.forward
        process = await asyncio.create_subprocess_exec(
            *command, f"http://{host}:{port}", str(proxy.ca_file), f"https://{BUCKET_HOST}/k",
            cwd=Path(__file__).parent / "clients", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, why = await asyncio.wait_for(process.communicate(), 120)
        assert said.decode().splitlines() == ["2 404 early true"] * 3, why.decode()
