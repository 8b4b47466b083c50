"""An upstream that speaks HTTP/2, by the h2 library: a test sees each stream, and answers it as it likes."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from tests.support import Received, Upstream

Plan = Callable[["ServerStream"], Awaitable[None]]


@dataclass
class ServerStream:
    """One request. `head`: pseudo-headers, too, in the order they came."""

    peer: "Peer"
    number: int
    head: list[tuple[str, str]]
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None
    """The code that the client has reset it with."""
    holds_back: bool = False
    """Opens no window anew."""

    @property
    def target(self) -> str:
        return dict(self.head)[":path"]

    def received(self) -> Received:
        """As an HTTP/1.1 upstream sees it; Host from :authority."""
        head = dict(self.head)
        headers = [("host", head[":authority"]), *((name, value) for name, value in self.head if not name.startswith(":"))]
        return Received(head[":method"], head[":path"], headers, bytes(self.body), list(self.trailers), self.peer.number)

    async def until(self, come: Callable[[], object]) -> None:
        """Waits for it: looked at after all that comes on the connection."""
        async with self.peer.changed:
            await asyncio.wait_for(self.peer.changed.wait_for(lambda: come() or self.peer.closed), 20)
        assert come(), "the connection ended before"

    async def whole(self) -> None:
        """Waits until all of the request is there."""
        await self.until(lambda: self.ended)

    def respond(self, status: int = 200, *headers: tuple[str, str], end: bool = False) -> None:
        self.peer.http.send_headers(self.number, [(":status", str(status)), *headers], end_stream=end)
        self.peer.flush()

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Sends it, as far as the windows let it at a time."""
        http = self.peer.http
        for at in range(0, len(data), 16384):
            piece = data[at : at + 16384]
            await self.until(lambda least=piece: http.local_flow_control_window(self.number) >= len(least) or self.reset is not None)  # type: ignore[misc]
            assert self.reset is None, "it was reset"
            http.send_data(self.number, piece, end_stream=end and at + 16384 >= len(data))
            self.peer.flush()
            await self.peer.writer.drain()

    def end(self, *trailers: tuple[str, str]) -> None:
        if trailers:
            self.peer.http.send_headers(self.number, trailers, end_stream=True)
        else:
            self.peer.http.end_stream(self.number)
        self.peer.flush()

    def refuse(self, code: h2.errors.ErrorCodes) -> None:
        """Resets it."""
        self.peer.http.reset_stream(self.number, code)
        self.peer.flush()


async def ok(stream: ServerStream) -> None:
    """The whole request, then `ok`."""
    await stream.whole()
    stream.respond(200, ("content-length", "2"))
    await stream.send(b"ok", end=True)


class Peer:
    """One connection. `changed`: something has come. `closed`: nothing more will."""

    def __init__(self, upstream: "Http2Upstream", number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.upstream, self.number, self.reader, self.writer = upstream, number, reader, writer
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.http.local_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = upstream.streams
        # Or the first SETTINGS frame says the one before.
        self.http.local_settings.acknowledge()
        self.streams: dict[int, ServerStream] = {}
        self.changed = asyncio.Condition()
        self.closed = False
        self._answering: list[asyncio.Task[None]] = []

    def flush(self) -> None:
        self.writer.write(self.http.data_to_send())

    def leave(self, last: int | None = None) -> None:
        """GOAWAY, without an error. `last`: the last stream that is served; none: all that there are."""
        self.http.close_connection(h2.errors.ErrorCodes.NO_ERROR, last_stream_id=max(self.streams) if last is None else last)
        # h2 takes the connection for closed from here on; the streams that there are go on (RFC 9113, section 6.8).
        self.http.state_machine.state = h2.connection.ConnectionState.SERVER_OPEN
        self.flush()

    async def serve(self) -> None:
        self.http.initiate_connection()
        self.flush()
        with contextlib.suppress(OSError, asyncio.CancelledError, h2.exceptions.ProtocolError):
            while data := await self.reader.read(65536):
                for event in self.http.receive_data(data):
                    await self._take(event)
                self.flush()
                async with self.changed:
                    self.changed.notify_all()
        self.closed = True
        async with self.changed:
            self.changed.notify_all()
        async with self.upstream.arrived:
            self.upstream.arrived.notify_all()
        for task in self._answering:
            task.cancel()

    async def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            stream = ServerStream(self, event.stream_id, [(str(name), str(value)) for name, value in event.headers])
            self.streams[event.stream_id] = stream
            plan = self.upstream.plans.pop(0) if self.upstream.plans else ok
            self._answering.append(asyncio.create_task(self.upstream.carry_out(plan, stream)))
            async with self.upstream.arrived:
                self.upstream.streams_seen.append(stream)
                self.upstream.arrived.notify_all()
            return
        stream = self.streams.get(getattr(event, "stream_id", 0) or 0)  # type: ignore[assignment]
        if stream is None:
            return
        if isinstance(event, h2.events.DataReceived):
            stream.body += event.data
            if not stream.holds_back:
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = [(str(name), str(value)) for name, value in event.headers]
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = int(event.error_code)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
            async with self.upstream.arrived:
                self.upstream.received.append(stream.received())
                self.upstream.arrived.notify_all()


class Http2Upstream(Upstream):
    """`plans`: how the next streams are answered; then with `ok`. `streams`: at once on one connection.

    `protocols`: what ALPN agrees on; a client of HTTP/1.1 is served as by `Upstream`.
    """

    def __init__(self, plans: Iterable[Plan] = (), *, protocols: tuple[str, ...] = ("h2", "http/1.1"), streams: int = 1000) -> None:
        super().__init__()
        self.context.set_alpn_protocols(list(protocols))
        self.plans = list(plans)
        self.streams = streams
        self.streams_seen: list[ServerStream] = []
        self.peers: list[Peer] = []
        self.failures: list[BaseException] = []

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        assert not self.failures, self.failures

    async def carry_out(self, plan: Plan, stream: ServerStream) -> None:
        """Answers one stream; what goes wrong fails the test at its end."""
        try:
            await plan(stream)
        except (AssertionError, TimeoutError, h2.exceptions.ProtocolError) as error:
            self.failures.append(error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            await super()._serve(reader, writer)
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.accepted.set()
        peer = Peer(self, self.connections, reader, writer)
        self.peers.append(peer)
        await peer.serve()
        writer.close()

    async def until(self, come: Callable[["Http2Upstream"], Any]) -> None:
        """Waits for it: looked at when a stream begins or ends, or a connection does."""
        async with self.arrived:
            await asyncio.wait_for(self.arrived.wait_for(lambda: come(self)), 20)
