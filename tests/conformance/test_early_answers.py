"""An upstream that answers before it has the whole request: the client gets the answer, and neither side hangs."""

import asyncio

import h2.events
import pytest

from tests.conformance.conftest import Proxy, Start
from tests.conformance.test_http2 import Http2Client
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import Received, Upstream, connected, read_response

SIZE = 24 << 20
EARLY = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly"


class EarlyUpstream(Upstream):
    """Answers as soon as it has a head, then takes the rest in, as nginx does for `return 200`."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        head = await reader.readuntil(b"\r\n\r\n")
        async with self.arrived:
            self.received.append(Received("PUT", head.split()[1].decode(), [], b""))
            self.arrived.notify_all()
        writer.write(EARLY)
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


@pytest.mark.parametrize("http2", [False, True])
async def test_an_early_answer_does_not_stall_the_upload(start: Start, http2: bool) -> None:
    async with EarlyUpstream() as upstream:
        proxy: Proxy = await start(upstream, body={"hold": 65536})
        if http2:
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
