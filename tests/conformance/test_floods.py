"""HTTP/2 clients that make work and mean no request: they are told to calm down, what they took back does not go out, others are served."""

import asyncio
import contextlib
import gc
import struct
from collections.abc import Callable, Iterator
from itertools import batched

import h2.errors
import pytest

from sigward.mitm import Front
from sigward.mitm.internals import EngineHttpStream
from tests.conformance.conftest import HOST, Proxy
from tests.conformance.test_hooks import idle
from tests.conformance.test_http2 import Http2Client, http2
from tests.conformance.test_http2_frames import (
    BLOCK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from tests.support import Received

MANY = 20_000
PROTOCOL_ERROR, ENHANCE_YOUR_CALM = 1, 11
PATIENCE = 30
LAST = b"the last"
CANCEL = struct.pack(">I", 8)


def streams() -> Iterator[int]:
    return iter(range(1, 2 * MANY, 2))


def opened(number: int, flags: int = END_STREAM) -> bytes:
    return frame(HEADERS, END_HEADERS | flags, number, BLOCK)


def taken_back() -> Iterator[bytes]:
    """CVE-2023-44487."""
    return (opened(number) + frame(RST_STREAM, 0, number, CANCEL) for number in streams())


def taken_back_later() -> Iterator[bytes]:
    """The same, in other bytes than the request."""
    for numbers in batched(streams(), 50, strict=False):
        yield b"".join(map(opened, numbers))
        yield b"".join(frame(RST_STREAM, 0, number, CANCEL) for number in numbers)


def windows_that_overflow() -> Iterator[bytes]:
    """CVE-2025-8671."""
    return (opened(number) + frame(WINDOW_UPDATE, 0, number, b"\x7f\xff\xff\xff") for number in streams())


def data_behind_the_end() -> Iterator[bytes]:
    """CVE-2025-8671."""
    return (opened(number) + frame(DATA, 0, number, b"x") for number in streams())


def malformed() -> Iterator[bytes]:
    """Requests that are reset because they have a body, and say that it is longer than it is."""
    block = BLOCK + b"\x00\x0econtent-length\x015"
    return (frame(HEADERS, END_HEADERS | END_STREAM, number, block) for number in streams())


def on_one_stream(piece: bytes) -> Iterator[bytes]:
    yield opened(1, 0)
    for _ in range(MANY):
        yield piece


def continued() -> Iterator[bytes]:
    """CVE-2024-27316."""
    yield frame(HEADERS, END_STREAM, 1, BLOCK)
    for _ in range(MANY):
        yield frame(CONTINUATION, 0, 1)


FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "taken back": taken_back,
    "taken back later": taken_back_later,
    "windows that overflow": windows_that_overflow,
    "DATA behind the end": data_behind_the_end,
    "malformed": malformed,
    "PING": lambda: on_one_stream(frame(PING, 0, 0, b"sigward!")),
    "SETTINGS": lambda: on_one_stream(frame(SETTINGS, 0, 0)),
    "PRIORITY": lambda: on_one_stream(frame(PRIORITY, 0, 3, b"\0\0\0\0\x10")),
    "DATA of nothing": lambda: on_one_stream(frame(DATA, 0, 1)),
    "WINDOW_UPDATE": lambda: on_one_stream(frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1")),
    "frames of no meaning": lambda: on_one_stream(frame(0x42, 0, 0)),
    "CONTINUATION": continued,
}

ABSORBED = {"PING", "SETTINGS", "PRIORITY", "WINDOW_UPDATE", "frames of no meaning"}
"""What the native front takes in: these cost it little. A peer that has sent them all is served."""


class Frames:
    """What the proxy says to a client that keeps to no state: h2 would not take it."""

    def __init__(self, client: Http2Client) -> None:
        self.client = client
        self.said = bytearray()
        self.goaway: int | None = None
        self.echoed = False

    async def read(self) -> bool:
        """False: the connection has ended."""
        try:
            data = await asyncio.wait_for(self.client.reader.read(65536), PATIENCE)
        except ConnectionError:
            return False
        self.said += data
        while len(self.said) >= 9 and len(self.said) >= (size := 9 + int.from_bytes(self.said[:3])):
            kind, payload = self.said[3], bytes(self.said[9:size])
            if kind == GOAWAY and self.goaway is None:
                self.goaway = int.from_bytes(payload[4:8])
            self.echoed |= kind == PING and payload == LAST
            del self.said[:size]
        return bool(data)


async def pour(client: Http2Client, pieces: Iterator[bytes]) -> Frames:
    """Sends all that the proxy takes, and waits until it has seen that, or has ended the connection."""

    async def sending() -> None:
        with contextlib.suppress(ConnectionError):
            for some in batched(pieces, 100, strict=False):
                client.writer.write(b"".join(some))
                await client.writer.drain()
            client.writer.write(frame(PING, 0, 0, LAST))

    frames, sender = Frames(client), asyncio.create_task(sending())
    while not frames.echoed and await frames.read():
        pass
    sender.cancel()
    await asyncio.wait({sender})
    return frames


@pytest.mark.fault("floods of HTTP/2 frames", holds="their connections end and say why; a client that is there meanwhile is served")
async def test_floods(proxy: Proxy) -> None:
    """Their connections end, and say why; nothing of them goes out; a client that is there meanwhile is served."""
    over, before = asyncio.Event(), len(flows())

    async def others() -> int:
        served = 0
        async with http2(proxy) as client:
            while not over.is_set():
                [stream] = await client.finished(client.send("GET", "/other", HOST))
                assert stream.body == b"ok"
                served += 1
        return served

    serving = asyncio.create_task(others())
    await proxy.upstream.wait_for(1)
    for name, flood in FLOODS.items():
        async with http2(proxy) as client:
            await client.echo()
            frames = await pour(client, flood())
        if isinstance(proxy.front, Front):
            assert frames.goaway == ENHANCE_YOUR_CALM, name
        else:
            assert frames.echoed if name in ABSORBED else frames.goaway in (PROTOCOL_ERROR, ENHANCE_YOUR_CALM), name
    over.set()
    assert await serving > 0
    await idle(proxy)
    assert {received.target for received in proxy.upstream.received} == {"/other"}
    assert len(flows()) <= before + 1, "the last one, at most"


async def test_a_client_that_cancels_all_it_has_is_no_flood(proxy: Proxy) -> None:
    """As programs do whose time is over. What the upstream has of it ends."""
    ended = []

    async def silent(_: Received, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        ended.append(await reader.read())

    count = 200
    proxy.upstream.answers = [silent] * count
    async with http2(proxy) as client:
        numbers = [client.send("GET", "/", HOST) for _ in range(count)]
        await proxy.upstream.wait_for(count)
        for number in numbers:
            client.connection.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
        client.flush()
        [stream] = await client.finished(client.send("GET", "/", HOST))
        assert stream.body == b"ok"
        await idle(proxy)
        async with asyncio.timeout(PATIENCE):
            while len(ended) < count:
                await asyncio.sleep(0.01)


def flows() -> list[EngineHttpStream]:
    """What is left of requests in mitmproxy."""
    gc.collect()
    return [found for found in gc.get_objects() if isinstance(found, EngineHttpStream)]
