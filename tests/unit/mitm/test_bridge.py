"""The bridge, on an engine that does what it is told: what is handed over, when, and what holds what back."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from mitmproxy import http

from sigward import _core
from sigward.ca import CertificateAuthority
from sigward.front import FrontError, FrontOptions, ReverseListener
from sigward.mitm import Front, bridge
from sigward.mitm.internals import EngineHttp1Server, deliver
from tests.support import connected, read_response
from tests.unit.mitm.fake_engine import FakeEngine

HOST = "sqs.us-east-1.amazonaws.com"
HOLD = 1000


class Watch:
    """Another addon: keeps the flows it sees, and changes each request."""

    def __init__(self) -> None:
        self.flows: list[http.HTTPFlow] = []

    def request(self, flow: http.HTTPFlow) -> None:
        self.flows.append(flow)
        flow.request.headers["x-added"] = "1"


class Running:
    """A front on a fake engine."""

    def __init__(self, front: Front, engine: FakeEngine, watch: Watch, refreshed: list[str]) -> None:
        self.front, self.engine, self.watch, self.refreshed = front, engine, watch, refreshed

    @property
    def reverse(self) -> tuple[str, int]:
        return self.front.addresses["reverse:0"]

    @property
    def forward(self) -> tuple[str, int]:
        return self.front.addresses["forward"]


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    CertificateAuthority(tmp_path / "ca").ensure()
    engine, watch, refreshed = FakeEngine(), Watch(), list[str]()
    listeners = (ReverseListener("127.0.0.1:0", None), ReverseListener("127.0.0.1:0", f"http://{HOST}:8080"))
    options = FrontOptions("127.0.0.1:0", listeners, tmp_path / "ca", HOLD, grace=0.0, addons=(watch,))
    front = Front(cast(_core.Engine, engine), options, refreshed.append)
    await front.start()
    yield Running(front, engine, watch, refreshed)
    await front.drain()
    engine.close()


def post(body: bytes, *headers: str, host: str = HOST) -> bytes:
    return "\r\n".join([f"POST /a?b=c HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}", *headers, "", ""]).encode() + body


async def test_a_held_request_is_handed_over_whole_after_the_hooks(running: Running) -> None:
    async with connected(running.reverse) as (reader, writer):
        writer.write(post(b"hello", "X-Twice: 1", "x-twice: 2"))
        job = await running.engine.job()
        assert (job.entry, job.method, job.scheme, job.host, job.port) == (_core.ENTRY_REVERSE, b"POST", b"https", HOST, 443)
        assert (job.path, job.body, job.client) == (b"/a?b=c", b"hello", "127.0.0.1")
        assert [pair for pair in job.headers if pair[0].lower().startswith(b"x-")] == [
            (b"X-Twice", b"1"),
            (b"x-twice", b"2"),
            (b"x-added", b"1"),
        ]
        job.respond(data=b"ok")
        response = await asyncio.wait_for(read_response(reader), 10)
        assert (response.status, response.body, response.get("content-length")) == (200, b"ok", "2")
    assert running.watch.flows[0].comment == "a summary"
    assert not running.front.bridge.pending


async def test_where_requests_are_bound_for(running: Running) -> None:
    cases = [
        ("reverse:0", post(b"", host=f"{HOST}:8443"), (_core.ENTRY_REVERSE, b"https", HOST, 8443)),
        ("reverse:0", post(b"", host=f"{HOST}:80"), (_core.ENTRY_REVERSE, b"https", HOST, 443)),
        ("reverse:1", post(b"", host="127.0.0.1"), (_core.ENTRY_REVERSE, b"http", HOST, 8080)),
        ("forward", post(b"").replace(b"/a", f"http://{HOST}:81/a".encode(), 1), (_core.ENTRY_FORWARD, b"http", HOST, 81)),
    ]
    for number, (listener, raw, target) in enumerate(cases):
        async with connected(running.front.addresses[listener]) as (_, writer):
            writer.write(raw)
            job = await running.engine.job(number)
            assert (job.entry, job.scheme, job.host, job.port) == target
            assert job.path == b"/a?b=c"


async def test_plain_http_inside_connect_is_bound_for_the_connect_authority(running: Running) -> None:
    async with connected(running.forward) as (reader, writer):
        writer.write(f"CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}:80\r\n\r\n".encode())
        assert (await read_response(reader, "HEAD")).status == 200
        writer.write(post(b"", host="other.us-east-1.amazonaws.com"))
        job = await running.engine.job()
        assert (job.entry, job.scheme, job.host, job.port) == (_core.ENTRY_CONNECT, b"http", HOST, 80)
        assert (b"Host", b"other.us-east-1.amazonaws.com") in job.headers, "the engine is to see that they differ"


async def test_a_large_request_is_handed_over_as_it_comes(running: Running) -> None:
    body = b"x" * 5000
    async with connected(running.reverse) as (_, writer):
        writer.write(post(body)[:-2000])
        job = await running.engine.job()
        assert job.body is None
        writer.write(body[-2000:])
        await running.engine.until(lambda: job.ended)
        assert bytes(job.sent) == body
        assert job.trailers is None


async def test_the_last_piece_of_a_known_length_waits_for_the_request_hook(running: Running) -> None:
    """Or the upstream would have the whole of a request that an addon can still refuse."""
    body = b"x" * 5000
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(flow: http.HTTPFlow) -> None:
        entered.set()
        await leave.wait()

    running.watch.request = slow  # type: ignore[method-assign, assignment]
    async with connected(running.reverse) as (_, writer):
        writer.write(post(body))
        await asyncio.wait_for(entered.wait(), 10)
        job = await running.engine.job()
        assert len(job.sent) < len(body)
        assert not job.ended
        leave.set()
        await running.engine.until(lambda: job.ended)
        assert bytes(job.sent) == body


async def test_a_full_upload_queue_stops_the_client(running: Running) -> None:
    total = 64 << 20
    async with connected(running.reverse) as (_, writer):
        writer.write(post(b"")[:-4].replace(b"Content-Length: 0", b"Content-Length: %d" % total) + b"\r\n\r\n" + b"x" * 5000)
        job = await running.engine.job()
        job.room = False
        writing = asyncio.create_task(write(writer, total - 5000))
        await running.engine.until(lambda: len(job.sent) >= 5000)
        before = -1
        while before != len(job.sent):
            before = len(job.sent)
            # Every callback that is due has run, several times over.
            for _ in range(100):
                await asyncio.sleep(0)
        assert before < 1 << 20
        assert not writing.done()
        job.writable()
        await running.engine.until(lambda: job.ended)
        assert len(job.sent) == total
        await writing


async def write(writer: asyncio.StreamWriter, size: int) -> None:
    while size:
        piece = b"x" * min(size, 1 << 18)
        writer.write(piece)
        await writer.drain()
        size -= len(piece)


async def test_credit_is_given_back_when_the_client_has_read(running: Running) -> None:
    piece = b"x" * (1 << 20)
    reader, writer = await asyncio.open_connection(*running.reverse, limit=1 << 16)
    writer.write(post(b""))
    job = await running.engine.job()
    job.respond(headers=((b"content-length", b"%d" % (64 << 20)),), end=False)
    for _ in range(64):
        job.data(piece)
    job.data(b"", end=True)
    await reader.readuntil(b"\r\n\r\n")
    await running.engine.until(lambda: job.acked > 0)
    assert job.acked < 32 << 20, "more than the sockets hold was acknowledged, and nobody has read it"
    assert len(await asyncio.wait_for(reader.readexactly(64 << 20), 20)) == 64 << 20
    await running.engine.until(lambda: job.acked == 64 << 20)
    writer.close()


async def test_answers_that_are_told_whole_count_until_the_client_has_read_them(running: Running) -> None:
    """A client may send requests without reading: each of its answers is told at once."""
    piece = b"x" * (60 << 10)
    reader, writer = await asyncio.open_connection(*running.reverse, limit=1 << 14)
    count = 400
    writer.write(post(b"") * count)
    for number in range(count):
        await running.engine.until(lambda number=number: len(running.engine.jobs) > number)
        running.engine.jobs[number].respond(headers=((b"content-length", b"%d" % len(piece)),), data=piece)
    jobs = running.engine.jobs
    await running.engine.until(lambda: any(job.acked for job in jobs))
    assert sum(job.acked for job in jobs) < count * len(piece) // 2, "more than the sockets hold"
    for _ in range(count):
        assert (await asyncio.wait_for(read_response(reader), 20)).body == piece
    await running.engine.until(lambda: all(job.acked == len(piece) for job in jobs))
    writer.close()


async def test_a_client_that_leaves_cancels_its_job(running: Running) -> None:
    async with connected(running.reverse) as (_, writer):
        writer.write(post(b""))
        job = await running.engine.job()
        assert not job.cancelled.is_set()
        # Who ends in good order may have closed its side alone.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    await asyncio.wait_for(job.cancelled.wait(), 10)
    assert not running.front.bridge.pending
    # An event that was on its way is of no interest.
    job.respond(data=b"late")
    await asyncio.sleep(0)


async def test_a_client_that_closes_its_side_is_answered(running: Running) -> None:
    """Whatever becomes of its request."""
    for failed in (False, True):
        async with connected(running.reverse) as (reader, writer):
            writer.write(post(b""))
            job = await running.engine.job(int(failed))
            writer.write_eof()
            connection = running.front.bridge.pending[job.id].connection
            server = connection.http_layer.connections[connection.context.client]
            assert isinstance(server, EngineHttp1Server)
            async with asyncio.timeout(10):
                while not server.said_all:
                    await asyncio.sleep(0)
            if failed:
                job.fail()
            else:
                job.respond(headers=((b"content-length", b"2"),), data=b"ok")
            told = await asyncio.wait_for(reader.read(), 10)
            assert told.startswith(b"HTTP/1.1 500 " if failed else b"HTTP/1.1 200 ")
            assert not job.cancelled.is_set()


async def test_a_small_answer_takes_no_task_and_one_event(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []

    async def count(handler: Any, event: Any) -> None:
        events.append(event.http_events)
        await deliver(handler, event)

    monkeypatch.setattr(bridge, "deliver", count)
    async with connected(running.reverse) as (reader, writer):
        writer.write(post(b"{}"))
        (await running.engine.job()).respond(data=b"ok")
        assert (await read_response(reader)).body == b"ok"
    assert [len(told) for told in events] == [3]
    assert not running.front.bridge.tasks


async def test_a_failure_before_the_head_is_an_answer(running: Running) -> None:
    async with connected(running.reverse) as (reader, writer):
        writer.write(post(b""))
        (await running.engine.job()).fail("a bug")
        response = await asyncio.wait_for(read_response(reader), 10)
    assert (response.status, response.get("x-sigward-error")) == (500, "internal")


async def test_a_failure_after_the_head_breaks_the_connection(running: Running) -> None:
    async with connected(running.reverse) as (reader, writer):
        writer.write(post(b""))
        job = await running.engine.job()
        job.respond(headers=((b"content-length", b"10"),), data=b"abc", end=False)
        job.fail()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asyncio.wait_for(read_response(reader), 10)
    assert not running.front.bridge.pending


@pytest.mark.parametrize("error", [RuntimeError("the engine is closed"), TypeError("port"), OverflowError("port")])
async def test_a_request_the_engine_does_not_take_is_refused(running: Running, error: Exception) -> None:
    running.engine.refuses = error
    for body in (b"", b"small", b"x" * 5000):
        async with connected(running.reverse) as (reader, writer):
            writer.write(post(body))
            response = await asyncio.wait_for(read_response(reader), 10)
        assert (response.status, response.get("x-sigward-error")) == (500, "internal")


async def test_an_event_that_cannot_be_passed_on_breaks_its_connection_and_no_other(running: Running) -> None:
    async with connected(running.reverse) as (reader, writer), connected(running.reverse) as (other_reader, other_writer):
        writer.write(post(b""))
        job = await running.engine.job()
        other_writer.write(post(b""))
        other = await running.engine.job(1)
        other_event = (_core.EVENT_DATA, other.id, b"", True)
        running.engine.tell((_core.EVENT_RESPONSE, job.id, "not an event"))
        other.respond(headers=((b"content-length", b"0"),), end=False)
        running.engine.tell(other_event)
        assert (await asyncio.wait_for(read_response(other_reader), 10)).status == 200
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        assert job.cancelled.is_set()


async def test_a_refresh_is_passed_on(running: Running) -> None:
    running.engine.tell((_core.EVENT_REFRESH, "default"))
    async with asyncio.timeout(10):
        while not running.refreshed:
            await asyncio.sleep(0)
    assert running.refreshed == ["default"]


async def test_an_address_in_use_is_named(running: Running, tmp_path: Path) -> None:
    host, port = running.forward
    options = FrontOptions(f"{host}:{port}", (ReverseListener("127.0.0.1:0", None),), tmp_path / "ca", HOLD, grace=0.0)
    engine = FakeEngine()
    second = Front(cast(_core.Engine, engine), options, lambda _: None)
    with pytest.raises(FrontError, match=f"{port}"):
        await second.start()
    assert second.addresses == {}, "nothing is left listening"
    engine.close()


async def test_a_client_that_sends_far_ahead_of_its_answer_is_cut_off(running: Running) -> None:
    """While hooks run, too: there mitmproxy would leave the socket open, with nobody to read it."""
    async with connected(running.reverse) as (_, writer):
        writer.write(post(b""))
        job = await running.engine.job()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(write(writer, 64 << 20), 20)
        await asyncio.wait_for(job.cancelled.wait(), 10)


async def test_an_answer_of_unknown_length_that_breaks_off_is_reset_for_http1_0(running: Running) -> None:
    async with connected(running.reverse) as (reader, writer):
        writer.write(post(b"").replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        job = await running.engine.job()
        job.respond(data=b"abc", end=False)
        assert (await asyncio.wait_for(reader.readuntil(b"abc"), 10)).endswith(b"abc")
        job.fail()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 10)


@pytest.mark.parametrize("kill", [False, True])
async def test_upstreams_answer_that_comes_while_a_hook_answers_is_passed_over(
    running: Running, caplog: pytest.LogCaptureFixture, kill: bool
) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(flow: http.HTTPFlow) -> None:
        entered.set()
        await leave.wait()
        if kill:
            flow.kill()
        else:
            flow.response = http.Response.make(418, b"teapot")

    running.watch.request = slow  # type: ignore[method-assign, assignment]
    async with connected(running.reverse) as (reader, writer):
        writer.write(post(b"x" * 5000))
        await asyncio.wait_for(entered.wait(), 10)
        job = await running.engine.job()
        job.respond(data=b"theirs", end=False)
        async with asyncio.timeout(10):
            # Until it waits behind the hook.
            while running.front.bridge.pending[job.id].pump is None:
                await asyncio.sleep(0)
        leave.set()
        if kill:
            assert await asyncio.wait_for(reader.read(), 10) == b""
        else:
            response = await asyncio.wait_for(read_response(reader), 10)
            assert (response.status, response.body) == (418, b"teapot")
        await asyncio.wait_for(job.cancelled.wait(), 10)
    assert not job.ended
    assert "mitmproxy has crashed" not in caplog.text
