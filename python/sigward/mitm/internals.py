"""The only file that touches mitmproxy's private classes. Pinned to one minor version, held by contract tests.

mitmproxy's HTTP layer asks for an upstream connection and gets a `Server` that looks open. Behind it stands `EngineConnection`,
which hands each request to the engine and turns the engine's events into the HTTP events that mitmproxy expects from a server.
So mitmproxy never opens a connection for HTTP; tunnels alone are its own.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Protocol

import h11
from mitmproxy import http
from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.net.http import status_codes
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import GetHttpConnection, GetHttpConnectionCompleted, HttpLayer, HTTPMode, HttpStream
from mitmproxy.proxy.layers.http._base import HttpConnection, HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._http1 import Http1Server
from mitmproxy.proxy.server import ConnectionHandler

from sigward import _core

HEAD_LIMIT = 128 * 1024
"""Bytes of an HTTP/1 request's head after which a client that has not ended it is refused."""

HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nx-sigward-error: head-too-large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)

MESSAGE_LIMIT = 16
"""WebSocket messages that a flow keeps; mitmproxy keeps them all."""

Commands = Generator[commands.Command, Any]
Pairs = tuple[tuple[bytes, bytes], ...]


class Bridge(Protocol):
    """What an `EngineConnection` needs of `bridge.Bridge`."""

    def submit(self, connection: "EngineConnection", stream_id: int, request: http.Request, body: bytes | None) -> _core.Job | None:
        """Starts a job; None: the engine does not take it."""

    def upload_full(self, connection: "EngineConnection", job: _core.Job) -> None:
        """The job's upload queue is full."""

    def forget(self, job: _core.Job) -> None:
        """No event of this job is of interest any more."""


class EngineEvent(events.ConnectionEvent):
    """Events of the engine for one `EngineConnection`, in order."""

    def __init__(self, connection: Connection, http_events: Sequence[HttpEvent]) -> None:
        super().__init__(connection)
        self.http_events = http_events


class EngineConnection(HttpConnection):
    """Stands where mitmproxy expects the HTTP client of an upstream connection."""

    def __init__(self, context: Context, bridge: Bridge, http_layer: HttpLayer) -> None:
        super().__init__(context, context.server)
        self.bridge = bridge
        self.http_layer = http_layer
        self.entry = entry_of(context, http_layer)
        self.jobs: dict[int, _core.Job] = {}
        self.waiting: dict[int, tuple[http.Request, list[bytes]]] = {}

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, EngineEvent):
            for http_event in event.http_events:
                yield ReceiveHttp(http_event)
        elif isinstance(event, RequestHeaders):
            self._start(event)
        elif isinstance(event, RequestData):
            self._data(event)
        elif isinstance(event, RequestEndOfMessage):
            self._end(event.stream_id)
        elif isinstance(event, RequestTrailers):
            self._trailers(event)
        elif isinstance(event, RequestProtocolError):
            self._abort(event)
        yield from ()

    def _start(self, event: RequestHeaders) -> None:
        if event.end_stream:
            self._submit(event.stream_id, event.request, b"")
        elif event.request.stream:
            self._submit(event.stream_id, event.request, None)
        else:
            # mitmproxy holds the body and sends it right after: one message to the engine instead of three.
            self.waiting[event.stream_id] = (event.request, [])

    def _submit(self, stream_id: int, request: http.Request, body: bytes | None) -> None:
        job = self.bridge.submit(self, stream_id, request, body)
        if job is not None:
            self.jobs[stream_id] = job

    def _data(self, event: RequestData) -> None:
        if waiting := self.waiting.get(event.stream_id):
            waiting[1].append(event.data)
        elif (job := self.jobs.get(event.stream_id)) and not job.send(event.data):
            self.bridge.upload_full(self, job)

    def _end(self, stream_id: int) -> None:
        if waiting := self.waiting.pop(stream_id, None):
            request, pieces = waiting
            self._submit(stream_id, request, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        elif job := self.jobs.get(stream_id):
            job.end()

    def _trailers(self, event: RequestTrailers) -> None:
        # A held body goes out with its length, and such a request has no trailers.
        if event.stream_id not in self.waiting and (job := self.jobs.get(event.stream_id)):
            job.end(event.trailers.fields)

    def _abort(self, event: RequestProtocolError) -> None:
        self.waiting.pop(event.stream_id, None)
        if job := self.jobs.pop(event.stream_id, None):
            self.bridge.forget(job)
            job.cancel()

    def finished(self, stream_id: int) -> None:
        """The engine has told all there is of this stream."""
        self.jobs.pop(stream_id, None)

    def stream(self, stream_id: int) -> HttpStream | None:
        """The stream, unless it is over."""
        return self.http_layer.streams.get(stream_id)

    def response_events(
        self, stream_id: int, status: int, reason: bytes, headers: Pairs, data: bytes, end: bool, report: _core.Report
    ) -> list[HttpEvent]:
        """The events that a response's head, and what came with it, makes. Notes the report on the flow."""
        stream = self.stream(stream_id)
        if stream is None:
            return []
        flow = stream.flow
        flow.metadata["sigward"] = report
        flow.comment = report.summary
        fields = framed(headers, flow.request, status, len(data) if end else None)
        now = time.time()
        response = http.Response(
            b"HTTP/1.1",
            status,
            reason or status_codes.RESPONSES.get(status, "").encode(),
            fields,
            None,
            None,
            now,
            now if end else None,
        )
        if status == 101:
            # mitmproxy switches protocols once the response is complete; what follows is the tunnel's.
            return [ResponseHeaders(stream_id, response, True), ResponseEndOfMessage(stream_id)]
        # Responses stream; one that is all there is one message, which other addons may read and change.
        # An addon that wants to hold a larger one sets `stream` to False in its `responseheaders`.
        response.stream = not end
        told: list[HttpEvent] = [ResponseHeaders(stream_id, response, end and not data)]
        if data:
            told.append(ResponseData(stream_id, data))
        if end:
            self.finished(stream_id)
            told.append(ResponseEndOfMessage(stream_id))
        return told

    def data_events(self, stream_id: int, data: bytes, end: bool) -> list[HttpEvent]:
        """The events that a piece of a response makes."""
        told: list[HttpEvent] = [ResponseData(stream_id, data)] if data else []
        if end:
            self.finished(stream_id)
            told.append(ResponseEndOfMessage(stream_id))
        return told

    def trailer_events(self, stream_id: int, trailers: Pairs) -> list[HttpEvent]:
        """The events that end a response with trailers. mitmproxy's HTTP/1 server has no form for them, so they end there."""
        self.finished(stream_id)
        told: list[HttpEvent] = []
        if self.context.client.alpn == b"h2":
            told.append(ResponseTrailers(stream_id, http.Headers(trailers)))
        return [*told, ResponseEndOfMessage(stream_id)]

    def failed_events(self, stream_id: int, message: str) -> list[HttpEvent]:
        """The events that break a response off: the client must not take it for complete."""
        self.finished(stream_id)
        return [ResponseProtocolError(stream_id, message, ErrorCode.GENERIC_SERVER_ERROR)]


def entry_of(context: Context, http_layer: HttpLayer) -> int:
    """How a request came in: what decides which Host headers it may have."""
    if context.client.proxy_mode.type_name == "reverse":
        return _core.ENTRY_REVERSE
    return _core.ENTRY_CONNECT if http_layer.mode is HTTPMode.transparent else _core.ENTRY_FORWARD


def framed(headers: Pairs, request: http.Request, status: int, length: int | None) -> Pairs:
    """Adds the framing that the client's protocol needs where upstream's length is unknown: chunks, or the length of what is all there."""
    if request.method == "HEAD" or status in (204, 304) or status < 200:
        return headers
    if any(name == b"content-length" for name, _ in headers):
        return headers
    if length is not None:
        return (*headers, (b"content-length", b"%d" % length))
    if request.http_version == "HTTP/1.1":
        return (*headers, (b"transfer-encoding", b"chunked"))
    return headers


class BodyReader:
    """Passes h11's reader through, and keeps the trailers, for which mitmproxy would raise (mitmproxy issue 2474)."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.trailers: list[tuple[bytes, bytes]] = []

    def __call__(self, buffer: Any) -> Any:
        event = self.inner(buffer)
        if isinstance(event, h11.EndOfMessage) and event.headers:
            self.trailers = list(event.headers)
            return h11.EndOfMessage()
        return event

    def read_eof(self) -> Any:
        return self.inner.read_eof()


class EngineHttp1Server(Http1Server):
    """mitmproxy's HTTP/1 server, with trailers, a limit to the head, and a held answer's head and body in one write."""

    held_head = b""

    def send(self, event: HttpEvent) -> Commands:
        follows = (
            isinstance(event, ResponseHeaders) and not event.end_stream and not event.response.stream and event.response.status_code >= 200
        )
        for command in super().send(event):
            if isinstance(command, commands.SendData):
                if follows:
                    self.held_head = command.data
                    continue
                command.data, self.held_head = self.held_head + command.data, b""
            elif self.held_head:
                yield commands.SendData(self.conn, self.held_head)
                self.held_head = b""
            yield command
        if self.held_head and not follows:
            yield commands.SendData(self.conn, self.held_head)
            self.held_head = b""

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        yield from super().read_headers(event)
        if self.state == self.read_headers and len(self.buf) > HEAD_LIMIT:
            yield commands.SendData(self.conn, HEAD_TOO_LARGE)
            yield commands.CloseConnection(self.conn)
            self.state = self.done

    def read_body(self, event: events.Event) -> Commands:
        if not isinstance(self.body_reader, BodyReader):
            self.body_reader = BodyReader(self.body_reader)  # type: ignore[assignment]
        reader: Any = self.body_reader
        for command in super().read_body(event):
            if reader.trailers and isinstance(command, ReceiveHttp) and isinstance(command.event, RequestEndOfMessage):
                trailers, reader.trailers = reader.trailers, []
                yield ReceiveHttp(RequestTrailers(command.event.stream_id, http.Headers(trailers)))
            yield command


class EngineHttpLayer(HttpLayer):
    """mitmproxy's HTTP layer, with the engine for its upstream half."""

    bridge: Bridge

    @classmethod
    def adopt(cls, http_layer: HttpLayer, bridge: Bridge) -> None:
        """Makes a layer that mitmproxy has just made, and that has seen no event, one of ours."""
        http_layer.__class__ = cls
        assert isinstance(http_layer, cls)
        http_layer.bridge = bridge

    def _handle_event(self, event: events.Event) -> Commands:
        client = self.context.client
        # Only now is it known what the client's TLS has agreed on.
        if isinstance(event, events.Start) and client.alpn not in (b"h2", b"h3"):
            self.connections[client] = EngineHttp1Server(self.context.fork())
        yield from super()._handle_event(event)

    def get_connection(self, event: GetHttpConnection, *, reuse: bool = True) -> Commands:
        for connection in self.connections:
            if isinstance(connection, Server) and event.connection_spec_matches(connection):
                server = connection
                break
        else:
            server = self._open(event)
        stream = self.command_sources.pop(event)
        yield from self.event_to_child(stream, GetHttpConnectionCompleted(event, (server, None)))

    def _open(self, event: GetHttpConnection) -> Server:
        """A `Server` that looks open to mitmproxy, and the connection behind it."""
        server = Server(address=event.address)
        server.tls = event.tls
        server.state = ConnectionState.OPEN
        server.timestamp_start = time.time()
        context = self.context.fork()
        context.server = server
        self.connections[server] = EngineConnection(context, self.bridge, self)
        # Inside a CONNECT, events come in at the outermost layer and are passed inwards by connection.
        layers = self.context.layers
        for outer, inner in itertools.pairwise(layers):
            if isinstance(outer, HttpLayer) and outer is not self and isinstance(inner, HttpStream):
                outer.connections[server] = inner
        return server


class Gate:
    """Stops reading from one client while any of its jobs' upload queues is full. Set on a handler's instance, not its class."""

    def __init__(self, handler: ConnectionHandler) -> None:
        self._drain: Callable[[], Awaitable[None]] = handler.drain_writers
        self._full: set[int] = set()
        self._open = asyncio.Event()
        self._open.set()
        handler.drain_writers = self.drain_writers  # type: ignore[method-assign]

    async def drain_writers(self) -> None:
        """Waits for room in the engine's queues, then in the sockets' buffers."""
        await self._open.wait()
        await self._drain()

    def close(self, job: int) -> None:
        """The job's queue is full."""
        self._full.add(job)
        self._open.clear()

    def open(self, job: int) -> None:
        """The job's queue has room, or the job is over."""
        self._full.discard(job)
        if not self._full:
            self._open.set()


def http_layer_to_adopt(next_layer: layer.NextLayer) -> HttpLayer | None:
    """The HTTP layer that mitmproxy has just decided on, if that is what it decided."""
    return next((found for found in next_layer.context.layers if type(found) is HttpLayer), None)


def is_inside_connect(context: Context) -> bool:
    """True for what a client sends after CONNECT."""
    return any(isinstance(found, HttpStream) for found in context.layers)


async def deliver(handler: ConnectionHandler, event: EngineEvent) -> None:
    """Hands an event in at the outermost layer of a client's connection."""
    await handler.server_event(event)
