"""The only file that touches mitmproxy's private classes. Pinned to one minor version, held by contract tests.

mitmproxy's HTTP layer asks for an upstream connection and gets a `Server` that looks open. Behind it stands `EngineConnection`,
which hands each request to the engine and turns the engine's events into the HTTP events that mitmproxy expects from a server.
So mitmproxy never opens a connection for HTTP; tunnels alone are its own.

Towards the client, the subclasses here add what mitmproxy leaves out: bounds on what is buffered, on time, and on what a client may
make it do; HTTP/1 trailers; clients that have said all, or stop when they have their answer; and that a hook may answer a request that
streams.
"""

import asyncio
import contextlib
import logging
import math
import select
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol
from weakref import WeakSet

import h2.config
import h2.errors
import h2.events
import h2.exceptions
from h2.connection import ConnectionState as Http2State
from h2.frame_buffer import FrameBuffer
from h2.stream import StreamState
from h2.windows import WindowManager
from h11._readers import ChunkedReader
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame
from mitmproxy import http
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, Connection, ConnectionState, Server
from mitmproxy.flow import Error
from mitmproxy.net.http import http1, status_codes
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    GetHttpConnection,
    GetHttpConnectionCompleted,
    HttpLayer,
    HTTPMode,
    HttpStream,
    SendHttp,
)
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
from mitmproxy.proxy.layers.http._hooks import HttpResponseHeadersHook
from mitmproxy.proxy.layers.http._http1 import Http1Server
from mitmproxy.proxy.layers.http._http2 import Http2Server
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection
from mitmproxy.proxy.layers.tls import ClientTLSLayer
from mitmproxy.proxy.server import ConnectionHandler
from OpenSSL import SSL

from sigward import _core
from sigward.mitm.floods import Ledger
from sigward.mitm.heads import END, ChunkReader, Wrong, is_malformed_http2, wrong_head
from sigward.mitm.log_once import once_a_day
from sigward.mitm.refusals import refusal

logger = logging.getLogger(__name__)

TURNS = 10

HEAD_LIMIT = 128 * 1024
"""Bytes of an HTTP/1 request's head after which a client that has not ended it is refused."""

AHEAD_LIMIT = 1 << 20
"""Bytes that an HTTP/1 client may send of later requests while one is under way."""

STREAM_WINDOW = 2 << 20
"""Bytes that an HTTP/2 client may send of one request ahead of what is taken; mitmproxy's own window is 2 GiB."""

CONNECTION_WINDOW = 16 << 20
"""The same of all its requests together; here, too, mitmproxy's own window is 2 GiB."""

REST = 64 << 20
"""Bytes more that it may send of requests that are answered before their end: they are dropped as they come. The native front's number."""

GRANT = 64 << 10
"""Bytes that are taken of a request before its client is told that it may send as many more."""

STREAMS = 1000
"""Requests at once on one HTTP/2 connection; the native front's number."""

LARGEST_WINDOW = 2**31 - 1
"""RFC 9113, section 6.9.1."""

CONTINUATIONS = 64
"""Frames of one HTTP/2 head."""

QUIET = 1.0
"""Seconds of silence after which an HTTP/2 client that has its answer counts as one that has stopped its upload."""

SENDS_ON = 30.0
"""Seconds in which an HTTP/2 client that has its answer may end its upload: curl before 8 takes a reset for a failure."""

LINGER = 5.0
"""Seconds that a client which still sends has to see why its connection ends."""

LINGER_BYTES = 16 << 20
"""What it may send in that time."""

MESSAGE_LIMIT = 16
"""WebSocket messages that a flow keeps; mitmproxy keeps them all."""

Commands = Generator[commands.Command, Any]
Pairs = tuple[tuple[bytes, bytes], ...]


class Bridge(Protocol):
    """What an `EngineConnection` needs of `bridge.Bridge`."""

    def submit(self, connection: "EngineConnection", stream_id: int, request: http.Request, body: bytes | None) -> _core.Job | None:
        """Starts a job; None: the engine does not take it."""

    engine: _core.Engine
    draining: bool
    layers: "WeakSet[EngineHttpLayer]"

    def opened(self, client: Client) -> None:
        """HTTP begins on this connection."""

    def has_left(self, client: Client) -> bool:
        """True if the client's connection is broken, rather than closed on its side."""

    def upload_full(self, job: _core.Job) -> None:
        """The job's upload queue is full."""

    def forget(self, job: _core.Job) -> None:
        """No event of this job is of interest any more."""

    def tunnel_closed(self, job: _core.Job) -> None:
        """The client has ended an upgraded connection; what it sent before still goes out."""


class EngineEvent(events.ConnectionEvent):
    """Events of the engine for one `EngineConnection`, in order. Without any: what HTTP/2 has to say by itself is sent."""

    def __init__(self, connection: Connection, http_events: Sequence[HttpEvent]) -> None:
        super().__init__(connection)
        self.http_events = http_events


class EngineConnection(HttpConnection):
    """Stands where mitmproxy expects the HTTP client of an upstream connection."""

    def __init__(self, context: Context, bridge: Bridge, http_layer: "EngineHttpLayer") -> None:
        super().__init__(context, context.server)
        self.server = context.server
        self.bridge = bridge
        self.http_layer = http_layer
        self.entry = entry_of(context, http_layer)
        self.jobs: dict[int, _core.Job] = {}
        self.waiting: dict[int, tuple[http.Request, list[bytes]]] = {}
        self.last_pieces: dict[int, bytes] = {}
        self.unframed: set[int] = set()

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, EngineEvent):
            for http_event in event.http_events:
                yield ReceiveHttp(http_event)
            if not event.http_events and (http2 := self.http2) and (data := http2.data_to_send()):
                yield commands.SendData(self.context.client, data)
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
            if b"content-length" in event.request.headers:
                # A body of known length is complete with its last byte, and addons' `request` hooks run after that: the last
                # piece waits for them, so that they can still refuse the request.
                self.last_pieces[event.stream_id] = b""
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
        elif job := self.jobs.get(event.stream_id):
            data = event.data
            if event.stream_id in self.last_pieces:
                data, self.last_pieces[event.stream_id] = self.last_pieces[event.stream_id], data
            if not job.send(data):
                self.bridge.upload_full(job)

    def _end(self, stream_id: int) -> None:
        if waiting := self.waiting.pop(stream_id, None):
            request, pieces = waiting
            self._submit(stream_id, request, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        elif job := self.jobs.get(stream_id):
            if last := self.last_pieces.pop(stream_id, b""):
                job.send(last)
            job.end()

    def _trailers(self, event: RequestTrailers) -> None:
        # A held body goes out with its length, and such a request has no trailers.
        if event.stream_id not in self.waiting and (job := self.jobs.get(event.stream_id)):
            if last := self.last_pieces.pop(event.stream_id, b""):
                job.send(last)
            job.end(event.trailers.fields)

    def _abort(self, event: RequestProtocolError) -> None:
        self.waiting.pop(event.stream_id, None)
        job = self.jobs.get(event.stream_id)
        self.finished(event.stream_id)
        self.http_layer.passed(event)
        if job is None:
            return
        if event.code is ErrorCode.PASSTHROUGH_CLOSE:
            self.bridge.tunnel_closed(job)
        else:
            self.bridge.forget(job)
            job.cancel()

    def finished(self, stream_id: int) -> None:
        """The engine has told all there is of this stream."""
        self.jobs.pop(stream_id, None)
        self.last_pieces.pop(stream_id, None)
        self.unframed.discard(stream_id)

    @property
    def http2(self) -> "EngineH2Connection | None":
        """What the client's HTTP/2 connection buffers and grants; None: the client speaks HTTP/1."""
        server = self.http_layer.connections.get(self.context.client)
        return server.h2_conn if isinstance(server, EngineHttp2Server) else None

    def stream(self, stream_id: int) -> HttpStream | None:
        """The stream, unless it is over."""
        stream = self.http_layer.streams.get(stream_id)
        # A hook that kills a flow leaves its stream behind, errored.
        return None if stream is None or stream.server_state == stream.state_errored else stream

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
        if fields is headers and not end and status >= 200 and not any(name == b"content-length" for name, _ in headers):
            self.unframed.add(stream_id)
        if self.bridge.draining and status != 101 and self.http2 is None:
            fields = (*fields, (b"connection", b"close"))
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

    def refusal_events(self, stream_id: int, response: http.Response) -> list[HttpEvent]:
        """The events of an answer of sigward's own."""
        data = response.raw_content or b""
        return [ResponseHeaders(stream_id, response), ResponseData(stream_id, data), ResponseEndOfMessage(stream_id)]

    def ends_by_close(self, stream_id: int) -> bool:
        """True if the client knows the end of this answer by the end of the connection alone (HTTP/1.0)."""
        return stream_id in self.unframed and self.http2 is None

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


@dataclass
class RequestStalled(HttpEvent):
    """A client sends no more of a body that is held until it is whole."""


class Alarm:
    """The time-outs of one client's connection, by mitmproxy's timers. One of them counts; a later one may still run."""

    def __init__(self, engine: _core.Engine) -> None:
        self._engine = engine
        self._at = math.inf
        self._command: commands.RequestWakeup | None = None
        self.head, self.idle, self.write, self.body = engine.client_timeouts()

    def set(self, at: float) -> Commands:
        """Wakes its layer at this time of the monotonic clock, if not before."""
        if at < self._at:
            self._at, self._command = at, commands.RequestWakeup(max(at - time.monotonic(), 0.0))
            yield self._command

    def rang(self, event: events.Wakeup) -> bool:
        """True if this is the timer that counts. It must be set again, by time-outs that may have changed."""
        if event.command is not self._command:
            return False
        self._at, self._command = math.inf, None
        self.head, self.idle, self.write, self.body = self._engine.client_timeouts()
        return True


class EngineHttp1Server(Http1Server):
    """mitmproxy's HTTP/1 server, with trailers, strict heads and chunks, limits to the head and to time, and a held answer in one write.

    `proxy`: this is a forward listener, outside of CONNECT. `said_all`: the client has closed its side after a whole request.
    """

    held_head = b""
    proxy = False
    said_all = False
    first = True
    """No request has been answered on this connection."""

    begun: float | None = None
    """When the first bytes of the next head came."""

    hangs_up = False
    """The connection ends with the answer."""

    def __init__(self, context: Context, http_layer: "EngineHttpLayer") -> None:
        super().__init__(context)
        self.http_layer = http_layer
        self.alarm = Alarm(http_layer.bridge.engine)
        self.since = time.monotonic()

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Wakeup):
            if self.alarm.rang(event):
                yield from self.look_at_the_clock()
            return
        if isinstance(event, events.DataReceived):
            self.since = time.monotonic()
        yield from super()._handle_event(event)
        self.http_layer.passed(event)
        yield from self.alarm.set(self.deadline())

    def deadline(self) -> float:
        """When the client will have been too slow, as it stands now."""
        if self.state == self.read_headers:
            if self.begun is not None:
                return self.begun + self.alarm.head
            return self.since + (self.alarm.head if self.first else self.alarm.idle)
        # While the answer is under way, time is the engine's.
        return self.since + self.alarm.body if self.state == self.read_body else math.inf

    def look_at_the_clock(self) -> Commands:
        """Ends what has lasted too long."""
        if time.monotonic() >= self.deadline():
            if self.state == self.read_headers:
                if self.begun is not None:
                    self.http_layer.bridge.engine.slow_client("head")
                    why = "the request's head did not come to its end in time"
                    yield from self.refuse(Wrong(408, "head-timeout", why), "Send it faster, or raise timeouts.client_head.")
                yield from self.hang_up()
            elif self.response_done:
                # The client has its answer, and does not end its request.
                stream_id = self.stream_id
                yield from self.hang_up()
                yield ReceiveHttp(RequestProtocolError(stream_id, "the client has stopped", ErrorCode.CLIENT_DISCONNECTED))
            elif self.http_layer.waits_for_body(self.stream_id):
                self.http_layer.bridge.engine.slow_client("body")
                self.hangs_up = True
                yield ReceiveHttp(RequestStalled(self.stream_id))
            self.since = time.monotonic()
        yield from self.alarm.set(self.deadline())

    def hang_up(self) -> Commands:
        """Nothing more is read or written."""
        yield commands.CloseConnection(self.conn)
        self.state = self.done

    def mark_done(self, *, request: bool = False, response: bool = False) -> Commands:
        self.since, self.begun, self.first = time.monotonic(), None, self.first and not response
        yield from super().mark_done(request=request, response=response)
        if response and self.hangs_up and self.state != self.done:
            yield from self.hang_up()
        if self.said_all and self.state == self.read_body:
            yield from self.read_body(events.ConnectionClosed(self.conn))
        elif self.said_all and self.state == self.read_headers:
            yield from self.hang_up()

    def send(self, event: HttpEvent) -> Commands:
        if isinstance(event, ResponseHeaders) and event.response.status_code >= 200:
            self.tell_whether_it_stays(event.response)
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
        if not isinstance(event, events.DataReceived):
            yield from super().read_headers(event)
            return
        if self.begun is None:
            self.begun = time.monotonic()
        # RFC 9112, section 2.2: empty lines before a request are no part of it. mitmproxy would wait behind one for more bytes.
        while self.buf._data.startswith(b"\r\n"):
            self.buf.maybe_extract_at_most(2)
        wrong = None
        if end := END.search(self.buf._data):
            wrong = wrong_head(bytes(self.buf._data[: end.end()]), proxy=self.proxy)
        elif len(self.buf) > HEAD_LIMIT:
            wrong = Wrong(431, "head-too-large", "the request's head does not end")
        if wrong:
            yield from self.refuse(wrong)
            yield from self.hang_up()
        elif end:
            yield from super().read_headers(event)

    def tell_whether_it_stays(self, response: http.Response) -> None:
        """RFC 9112, sections 9.3 and 9.6: what a client asks of its connection, in any case, is done and confirmed.

        mitmproxy does it where it is asked in small letters, and says nothing.
        """
        if self.request is None or "connection" not in self.request.headers:
            return
        asked = self.request.headers["connection"] = self.request.headers["connection"].lower()
        tokens = {token.strip() for token in asked.split(",")}
        if "close" in tokens:
            response.headers["connection"] = "close"
        elif "keep-alive" in tokens and self.request.http_version == "HTTP/1.0":
            response.headers.setdefault("connection", "keep-alive" if self.ends_by_itself(response) else "close")

    def ends_by_itself(self, response: http.Response) -> bool:
        """True if an HTTP/1.0 client knows the answer's end without the connection's."""
        assert self.request is not None
        return self.request.method == "HEAD" or response.status_code in (204, 304) or "content-length" in response.headers

    def refuse(self, wrong: Wrong, hint: str = "Send a request that keeps to RFC 9112.") -> Commands:
        """Answers a request whose end is not clear; the connection is closed behind it."""
        answer = refusal(wrong.status, wrong.slug, f"{wrong.why}. {hint}")
        answer.headers["connection"] = "close"
        yield commands.SendData(self.conn, http1.assemble_response(answer))

    def wait(self, event: events.Event) -> Commands:
        # mitmproxy keeps what comes of later requests until this one is done, without limit.
        if isinstance(event, events.DataReceived) and len(self.buf) > AHEAD_LIMIT:
            event = events.ConnectionClosed(self.conn)
        elif isinstance(event, events.ConnectionClosed) and not self.http_layer.bridge.has_left(self.context.client):
            # As busybox's wget, `ncat < file` and socat do: it waits for its answers, however long they take.
            self.said_all = True
            return
        yield from super().wait(event)

    def read_body(self, event: events.Event) -> Commands:
        if isinstance(self.body_reader, ChunkedReader):
            self.body_reader = ChunkReader()  # type: ignore[assignment]
        reader: Any = self.body_reader
        for command in super().read_body(event):
            trailers = reader.trailers if isinstance(reader, ChunkReader) else []
            if trailers and isinstance(command, ReceiveHttp) and isinstance(command.event, RequestEndOfMessage):
                yield ReceiveHttp(RequestTrailers(command.event.stream_id, http.Headers(trailers)))
            if isinstance(command, commands.CloseConnection) and not (self.request_done or self.response):
                # mitmproxy closes without a word.
                yield from self.refuse(Wrong(400, "bad-request", "the request's body is malformed, or not whole"))
                self.state = self.done
            yield command


class HeadBuffer(FrameBuffer):
    """h2's buffer of frames, with a bound to a head in many (CVE-2024-27316) that its client is told by its name."""

    def _update_header_buffer(self, f: Frame | None) -> Frame | None:
        pieces = self._headers_buffer
        if pieces and (len(pieces) >= CONTINUATIONS or sum(len(piece.data) for piece in pieces) > HEAD_LIMIT):
            raise h2.exceptions.DenialOfServiceError("a head that does not end")
        return super()._update_header_buffer(f)

    @property
    def within_head(self) -> bool:
        """True if what has come ends within a frame that is no DATA, or between the frames of a head."""
        return bool(self._headers_buffer) or (len(self._data) > 0 and self._data[3:4] != bytes([DataFrame.type]))

    @property
    def began(self) -> bool:
        """True if the client's preface is there."""
        return not self._preamble_len


class ConnectionWindow(WindowManager):
    """What an HTTP/2 client may send of all its requests: h2's own would keep the largest size that it ever had.

    What it was granted beyond `CONNECTION_WINDOW` is not granted again.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.max_window_size = CONNECTION_WINDOW

    def window_opened(self, size: int) -> None:
        self.current_window_size += size

    def _maybe_update_window(self) -> int | None:
        # Early and often, as for streams.
        if self._bytes_processed < GRANT and self.current_window_size > 0:
            return None
        increment = max(min(self._bytes_processed, self.max_window_size - self.current_window_size), 0)
        self._bytes_processed = 0
        self.current_window_size += increment
        return increment


class EngineH2Connection(BufferedH2Connection):
    """mitmproxy's HTTP/2 buffers, with a bound in both directions: it would take in 2 GiB of a request, and of an answer all there is.

    And with a bound to what a client may make it do beside requests.
    """

    incoming_buffer: HeadBuffer

    def __init__(self, config: h2.config.H2Configuration) -> None:
        super().__init__(config)
        self.incoming_buffer = HeadBuffer(server=True)
        self.ledger = Ledger()
        self._receiving = False
        self._opened: set[int] = set()
        self.local_settings.initial_window_size = STREAM_WINDOW
        self.local_settings.max_concurrent_streams = STREAMS
        # As in the base class: without this the old value would be announced.
        self.local_settings.acknowledge()
        self._inbound_flow_control_window_manager = ConnectionWindow(self.inbound_flow_control_window)
        self.room = asyncio.Event()
        self._held: dict[int, int] = {}

    def initiate_connection(self) -> None:
        super(BufferedH2Connection, self).initiate_connection()
        self.increment_flow_control_window(CONNECTION_WINDOW - self.inbound_flow_control_window)

    def hold(self, stream_id: int) -> bool:
        """Grants a stream's client no more than it has been granted. False: it has been granted everything."""
        stream = self.streams.get(stream_id)
        if stream is None or stream.state_machine.headers_sent:
            return False
        self._held.setdefault(stream_id, 0)
        return True

    def grant_all(self, stream_id: int) -> None:
        """Before an answer that comes earlier than the request's end: a client may send on, but read no more.

        curl 7.88 does: it never sees a later window update, and hangs.
        """
        stream = self.streams.get(stream_id)
        if stream is not None and stream.state_machine.state is StreamState.OPEN:
            self.release(stream_id)
            self.increment_flow_control_window(LARGEST_WINDOW - STREAM_WINDOW, stream_id)
            if (more := CONNECTION_WINDOW + REST - self.inbound_flow_control_window) > 0:
                self.increment_flow_control_window(more)

    def release(self, stream_id: int) -> bool:
        """Grants what was held back. True: something was, and `data_to_send` now says so."""
        size = self._held.pop(stream_id, 0)
        if size:
            self.acknowledge_received_data(size, stream_id)
        return size > 0

    def acknowledge_received_data(self, acknowledged_size: int, stream_id: int) -> None:
        if stream_id in self._held:
            self._held[stream_id] += acknowledged_size
        else:
            super().acknowledge_received_data(acknowledged_size, stream_id)
            self._grant_early(stream_id)

    def _grant_early(self, stream_id: int) -> None:
        """h2 grants half a window at once. libcurl 7.88 may miss a grant that comes just as it has used its window up, and waits for
        another one: with few bytes at a time, more follow. Git hangs else, with pushes a little larger than the window.
        """
        stream = self.streams.get(stream_id)
        taken = stream._inbound_window_manager._bytes_processed if stream is not None else 0
        if stream is not None and taken >= GRANT and stream.state_machine.state is StreamState.OPEN:
            stream._inbound_window_manager._bytes_processed = 0
            self.increment_flow_control_window(taken, stream_id)

    def receive_data(self, data: bytes) -> list[h2.events.Event]:
        """As in the base class; a request that is reset by the same bytes that made it never was."""
        self._opened.clear()
        told: list[h2.events.Event] = super().receive_data(data)
        if any(isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated) for event in told):
            # What was buffered of their answers is gone.
            self.room.set()
        taken_back = {event.stream_id for event in told if isinstance(event, h2.events.StreamReset)} & self._opened if self._opened else ()
        if not taken_back:
            return told
        left = []
        for event in told:
            if getattr(event, "stream_id", None) not in taken_back:
                left.append(event)
            elif isinstance(event, h2.events.DataReceived):
                # Of the connection's window.
                self.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        return left

    def _receive_frame(self, frame: Frame) -> list[h2.events.Event]:
        if not self._is_of_a_request(frame) and not self.ledger.frame(frame.body_len):
            raise h2.exceptions.DenialOfServiceError("more frames than requests need")
        self._receiving = True
        try:
            told = super()._receive_frame(frame)
        finally:
            self._receiving = False
        for event in told:
            if isinstance(event, h2.events.RequestReceived):
                if is_malformed_http2(event.headers, ended=event.stream_ended is not None):
                    self.reset_stream(frame.stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
                    self._tell_reset(wasted=True)
                    return []
                self._opened.add(frame.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self._tell_reset(wasted=not event.remote_reset or frame.stream_id in self._opened)
        return told

    def _is_of_a_request(self, frame: Frame) -> bool:
        if not isinstance(frame, HeadersFrame | DataFrame):
            return isinstance(frame, GoAwayFrame)
        stream = self.streams.get(frame.stream_id)
        if stream is None or stream.closed:
            return isinstance(frame, HeadersFrame) and frame.stream_id > self.highest_inbound_stream_id
        return isinstance(frame, HeadersFrame) or bool(frame.data) or "END_STREAM" in frame.flags

    def _tell_reset(self, *, wasted: bool) -> None:
        if not self.ledger.reset(wasted=wasted):
            raise h2.exceptions.DenialOfServiceError("too many stream resets")

    def _prepare_for_sending(self, frames: list[Frame]) -> None:
        if not self._receiving:
            self.ledger.sent(len(frames))
        super()._prepare_for_sending(frames)

    def reset_stream(self, stream_id: int, error_code: int = 0) -> None:
        super().reset_stream(stream_id, error_code)
        self.room.set()

    def buffered(self, stream_id: int) -> int:
        """Bytes of an answer that the client's window does not let out yet."""
        return sum(len(piece.data) for piece in self.stream_buffers.get(stream_id, ()))

    async def flushed(self, stream_id: int, limit: int, patience: float | None = None) -> None:
        """Waits until at most `limit` bytes of a stream are buffered.

        Raises TimeoutError when the client takes nothing of it for `patience` seconds.
        """
        while (before := self.buffered(stream_id)) > limit:
            self.room.clear()
            async with asyncio.timeout(patience):
                while self.buffered(stream_id) >= before:
                    await self.room.wait()
                    self.room.clear()

    def stream_window_updated(self, stream_id: int) -> bool:
        sent = super().stream_window_updated(stream_id)
        self.room.set()
        return sent


@once_a_day
def tell_flood(address: str, why: str) -> None:
    """To the log, for each client and reason."""
    logger.warning("closed the HTTP/2 connection of %s (ENHANCE_YOUR_CALM): %s", address, why)


@dataclass(slots=True)
class Answered:
    """A stream whose answer is out, while its client has not ended its request. Times are of the monotonic clock."""

    since: float
    heard: float

    @property
    def ends(self) -> float:
        """When the client must have stopped."""
        return min(self.heard + QUIET, self.since + SENDS_ON)


class EngineHttp2Server(Http2Server):
    """mitmproxy's HTTP/2 server with those bounds, time-outs, and an end for requests that are answered early.

    `bodies`: when something last came of requests that have not ended. `answered`: those whose answer is out. `leaving`: answers that wait
    for their client's window; since when, and how much.
    """

    h2_conn: EngineH2Connection
    over = False
    head_since: float | None = None
    """Since when a head has been coming in."""

    def __init__(self, context: Context, http_layer: "EngineHttpLayer") -> None:
        super().__init__(context)
        self.h2_conn = EngineH2Connection(self.h2_conf)
        self.http_layer = http_layer
        self.alarm = Alarm(http_layer.bridge.engine)
        self.since = time.monotonic()
        """When the last request came, or was answered."""
        self.bodies: dict[int, float] = {}
        self.answered: dict[int, Answered] = {}
        self.leaving: dict[int, tuple[float, int]] = {}

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Wakeup):
            if self.alarm.rang(event):
                yield from self.look_at_the_clock()
            return
        if isinstance(event, ResponseHeaders) and event.response.status_code >= 200:
            self.h2_conn.grant_all(event.stream_id)
        yield from super()._handle_event(event)
        self.http_layer.passed(event)
        if self.over:
            return
        if isinstance(event, ResponseEndOfMessage):
            yield from self.answer_ends(event.stream_id)
        elif isinstance(event, events.DataReceived):
            now = time.monotonic()
            self.head_since = (self.head_since or now) if self.h2_conn.incoming_buffer.within_head else None
            if self.head_since is not None:
                yield from self.alarm.set(self.head_since + self.alarm.head)
        elif isinstance(event, events.Start):
            yield from self.alarm.set(self.since + min(self.alarm.head, self.alarm.idle))

    def answer_ends(self, stream_id: int) -> Commands:
        """All of an answer is out, or will be when the client's window opens."""
        self.h2_conn.ledger.answered()
        self.since = now = time.monotonic()
        if self.is_closed(stream_id):
            self.forget(stream_id)
            return
        if left := self.h2_conn.buffered(stream_id):
            self.leaving[stream_id] = now, left
            yield from self.alarm.set(now + self.alarm.write)
        if stream_id in self.bodies:
            self.answered[stream_id] = Answered(now, now)
            yield from self.alarm.set(self.answered[stream_id].ends)

    def forget(self, stream_id: int) -> None:
        """Nothing more of this stream is of interest."""
        self.streams.pop(stream_id, None)
        self.bodies.pop(stream_id, None)
        self.answered.pop(stream_id, None)
        self.leaving.pop(stream_id, None)

    def look_at_the_clock(self) -> Commands:
        """Ends what has lasted too long."""
        now = time.monotonic()
        alarm, engine = self.alarm, self.http_layer.bridge.engine
        for stream_id in [stream_id for stream_id in self.streams if self.is_closed(stream_id)]:
            self.forget(stream_id)
        if self.head_since is not None and now >= self.head_since + alarm.head:
            engine.slow_client("head")
            yield from self.protocol_error("a head did not come to its end in time", h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            return
        patience = alarm.idle if self.h2_conn.incoming_buffer.began else min(alarm.head, alarm.idle)
        if not self.streams and now >= self.since + patience:
            yield from self.protocol_error("nothing is asked any more", h2.errors.ErrorCodes.NO_ERROR)
            return
        for stream_id in [stream_id for stream_id, answered in self.answered.items() if now >= answered.ends]:
            yield from self.stop_upload(stream_id)
        for stream_id in [stream_id for stream_id, heard in self.bodies.items() if now >= heard + alarm.body]:
            self.bodies[stream_id] = now
            if self.http_layer.waits_for_body(stream_id):
                engine.slow_client("body")
                yield ReceiveHttp(RequestStalled(stream_id))
        yield from self.reset_what_is_not_taken(now)
        waits = [heard + alarm.body for heard in self.bodies.values()] + [answered.ends for answered in self.answered.values()]
        waits += [since + alarm.write for since, _ in self.leaving.values()]
        if self.head_since is not None:
            waits.append(self.head_since + alarm.head)
        yield from alarm.set(min(waits, default=max(self.since, now - patience / 2) + patience))

    def reset_what_is_not_taken(self, now: float) -> Commands:
        """Answers that are whole, and stay here: their client opens no window."""
        for stream_id, (since, before) in list(self.leaving.items()):
            left = self.h2_conn.buffered(stream_id)
            if not left:
                del self.leaving[stream_id]
            elif now >= since + self.alarm.write:
                self.leaving[stream_id] = now, left
                if left >= before:
                    self.http_layer.bridge.engine.slow_client("answer")
                    self.forget(stream_id)
                    self.h2_conn.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
                    yield commands.SendData(self.conn, self.h2_conn.data_to_send())
                    yield ReceiveHttp(RequestProtocolError(stream_id, "its answer is not taken", ErrorCode.CLIENT_DISCONNECTED))

    def stop_upload(self, stream_id: int) -> Commands:
        """RFC 9113, section 8.1: a client that has its whole answer is asked to send no more of its request."""
        stream = self.h2_conn.streams.get(stream_id)
        if stream is not None and stream.state_machine.state is StreamState.OPEN:
            # The answer waits for the client's window.
            self.answered[stream_id] = Answered(time.monotonic(), time.monotonic())
            return
        self.forget(stream_id)
        if stream is not None and not stream.closed:
            self.h2_conn.reset_stream(stream_id, h2.errors.ErrorCodes.NO_ERROR)
            yield commands.SendData(self.conn, self.h2_conn.data_to_send())
        yield ReceiveHttp(RequestProtocolError(stream_id, "answered before its end", ErrorCode.CLIENT_DISCONNECTED))

    def handle_h2_event(self, event: h2.events.Event) -> Generator[commands.Command, Any, bool]:
        if isinstance(event, h2.exceptions.ProtocolError) and self.h2_conn.state_machine.state is Http2State.CLOSED:
            # h2 has said so by the error's own code; mitmproxy would add a PROTOCOL_ERROR.
            if isinstance(event, h2.exceptions.DenialOfServiceError):
                tell_flood(self.conn.peername[0] if self.conn.peername else "a client", str(event))
            yield commands.SendData(self.conn, self.h2_conn.data_to_send())
            yield from self.close_connection(f"HTTP/2 protocol error: {event}")
            return True
        if isinstance(event, h2.events.RequestReceived):
            self.since = time.monotonic()
            if event.stream_ended is None:
                self.bodies[event.stream_id] = self.since
                yield from self.alarm.set(self.since + self.alarm.body)
        elif isinstance(event, h2.events.DataReceived):
            if event.stream_id in self.bodies:
                self.bodies[event.stream_id] = time.monotonic()
            if answered := self.answered.get(event.stream_id):
                answered.heard = time.monotonic()
        elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
            self.bodies.pop(event.stream_id, None)
            self.answered.pop(event.stream_id, None)
        return (yield from super().handle_h2_event(event))

    def close_connection(self, msg: str) -> Commands:
        self.over = True
        yield from super().close_connection(msg)


class EngineHttpStream(HttpStream):
    """mitmproxy's stream, for which a response that a hook has set stands also when the request's body streams.

    mitmproxy raises then (and the client hangs), or passes over it (and the request goes on).

    And an answer is complete when it is, not when the request is: Go's client sends nothing more, and waits.
    """

    answer_ended = False
    engine: _core.Engine
    held: _core.Held | None = None
    """What it holds of its body, as the engine counts it."""

    def _handle_event(self, event: events.Event) -> Commands:
        if not isinstance(event, RequestStalled):
            yield from super()._handle_event(event)
        elif self.client_state == self.state_consume_request_body:
            self.flow.response = refusal(400, "body-failed", "the request's body did not come to its end in time. Send all of it.")
            if not self.flow.request.is_http2:
                self.flow.response.headers["connection"] = "close"
            self.held = None
            self.request_body_buf.clear()
            self.client_state = self.state_discard_request_body
            yield from self.answer()

    def state_consume_request_body(self, event: events.Event) -> Commands:
        if isinstance(event, RequestEndOfMessage):
            # From here on the engine counts it.
            self.held = None
        yield from super().state_consume_request_body(event)
        if isinstance(event, RequestData) and self.client_state == self.state_consume_request_body:
            self.held = self.held or self.engine.held()
            if not self.held.grow(len(self.request_body_buf)):
                # Too much is held already. The engine says what becomes of the request, as of any other.
                body = bytes(self.request_body_buf)
                self.request_body_buf.clear()
                self.flow.request.stream = True
                yield from self.start_request_stream()
                yield from self.handle_event(RequestData(self.stream_id, body))

    def handle_protocol_error(self, event: RequestProtocolError | ResponseProtocolError) -> Commands:
        self.held = None
        yield from super().handle_protocol_error(event)

    def send_response(self, already_streamed: bool = False) -> Commands:
        yield from super().send_response(already_streamed)
        unended = self.client_state not in (self.state_done, self.state_errored)
        if unended and self.server_state == self.state_done and self.flow.response and self.flow.response.status_code != 101:
            self.answer_ended = True
            yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)

    def flow_done(self) -> Commands:
        for command in super().flow_done():
            ends = isinstance(command, SendHttp) and isinstance(command.event, ResponseEndOfMessage)
            if not (ends and self.answer_ended):
                yield command

    def start_request_stream(self) -> Commands:
        self.held = None
        if self.flow.response is None:
            yield from super().start_request_stream()
        else:
            # The client gets it at once; what it still sends is taken in and dropped.
            self.client_state = self.state_discard_request_body
            yield from self.answer()

    def answer(self) -> Commands:
        """Tells the client what a hook has answered."""
        assert self.flow.response
        self.flow.response.timestamp_start = time.time()
        yield HttpResponseHeadersHook(self.flow)
        if not (yield from self.check_killed(True)):
            yield from self.send_response()

    def state_discard_request_body(self, event: events.Event) -> Commands:
        """The response is out; the request must come to its end before the next one can begin."""
        if isinstance(event, RequestEndOfMessage):
            self.client_state = self.server_state = self.state_done
            yield from self.flow_done()
        yield from ()

    def state_stream_request_body(self, event: RequestData | RequestEndOfMessage) -> Commands:
        for command in super().state_stream_request_body(event):
            # These are sent after the `request` hook has run.
            ends = isinstance(command, SendHttp) and isinstance(command.event, RequestTrailers | RequestEndOfMessage)
            if ends and (self.killed() or self.answered_by_a_hook()):
                yield from self.stop_request()
                return
            yield command

    def killed(self) -> bool:
        """True if an addon has killed the flow."""
        return self.flow.error is not None and self.flow.error.msg == Error.KILLED_MESSAGE

    def answered_by_a_hook(self) -> bool:
        """True if there is a response, and not upstream's."""
        return self.flow.response is not None and self.server_state == self.state_wait_for_response_headers

    def stop_request(self) -> Commands:
        """A hook wants the request not to go on: the engine drops it unfinished."""
        yield SendHttp(RequestProtocolError(self.stream_id, "stopped by a hook", ErrorCode.CANCEL), self.context.server)
        if self.killed():
            yield from self.check_killed(True)
        else:
            yield from self.answer()
        # An answer of upstream's that came meanwhile is of no interest.
        self.server_state = self.state_errored


class EngineHttpLayer(HttpLayer):
    """mitmproxy's HTTP layer, with the engine for its upstream half."""

    bridge: Bridge
    passing: dict[int, asyncio.Event]
    """Answers that are on their way through hooks to the client's connection."""

    @classmethod
    def adopt(cls, http_layer: HttpLayer, bridge: Bridge) -> None:
        """Makes a layer that mitmproxy has just made, and that has seen no event, one of ours."""
        http_layer.__class__ = cls
        assert isinstance(http_layer, cls)
        http_layer.bridge = bridge
        http_layer.passing = {}
        bridge.layers.add(http_layer)

    @property
    def busy(self) -> bool:
        """True while a request is under way, from its head on. A tunnel is none."""
        return any(
            stream.client_state != stream.state_errored and stream.flow.request.method != "CONNECT" for stream in self.streams.values()
        )

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Start):
            # Only now is it known what the client's TLS has agreed on.
            client = self.context.client
            self.bridge.opened(client)
            server = EngineHttp2Server(self.context.fork(), self) if client.alpn == b"h2" else EngineHttp1Server(self.context.fork(), self)
            if isinstance(server, EngineHttp1Server):
                server.proxy = self.mode is HTTPMode.regular
            self.connections[client] = server
            yield from self.event_to_child(self.connections[client], event)
        else:
            yield from super()._handle_event(event)

    def passes(self, stream_id: int) -> asyncio.Event:
        """Set once all of an answer has been handed to the client's connection, or nothing more of it will be."""
        return self.passing.setdefault(stream_id, asyncio.Event())

    def passed(self, event: events.Event) -> None:
        """Notes an answer's end, or a request's that was given up."""
        if self.passing and isinstance(event, ResponseEndOfMessage | ResponseProtocolError | RequestProtocolError):
            passing = self.passing.pop(event.stream_id, None)
            if passing is not None:
                passing.set()

    def waits_for_body(self, stream_id: int) -> bool:
        """True if a body is held here until it is whole, and no hook is at it. Of what streams, the engine's time-out takes care."""
        stream = self.streams.get(stream_id)
        return stream is not None and stream._paused is None and stream.client_state == stream.state_consume_request_body

    def make_stream(self, stream_id: int) -> Commands:
        stream = self.streams[stream_id] = EngineHttpStream(self.context.fork(), stream_id)
        stream.engine = self.bridge.engine
        yield from self.event_to_child(stream, events.Start())

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
        for outer, inner in pairwise(layers):
            if isinstance(outer, HttpLayer) and outer is not self and isinstance(inner, HttpStream):
                outer.connections[server] = inner
        return server


class EngineClientTls(ClientTLSLayer):
    """mitmproxy's, which says close_notify before it closes (RFC 8446, section 6.1)."""

    said_goodbye = False
    established = False
    """Its handshake has succeeded, however much of the connection is left."""

    def _handshake_finished(self, err: str | None) -> Commands:
        self.established = err is None
        yield from super()._handshake_finished(err)

    def send_data(self, data: bytes) -> Commands:
        if not self.said_goodbye:
            yield from super().send_data(data)

    def send_close(self, command: commands.CloseConnection) -> Commands:
        if data := self.goodbye():
            yield commands.SendData(self.tunnel_connection, data)
        yield from super().send_close(command)

    def goodbye(self, last: bytes = b"") -> bytes:
        """What ends this TLS, once. `last`: what goes through it before."""
        if self.said_goodbye or not self.established:
            return b""
        self.said_goodbye = True
        data = bytearray()
        with contextlib.suppress(SSL.Error):
            if last:
                self.tls.sendall(last)
            self.tls.shutdown()
        with contextlib.suppress(SSL.WantReadError):
            while True:
                data += self.tls.bio_read(65535)
        return bytes(data)


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


def adopt_tls(next_layer: layer.NextLayer) -> None:
    """Makes TLS layers that mitmproxy has just made, and that have seen no event, ours."""
    for found in next_layer.context.layers:
        if type(found) is ClientTLSLayer:
            found.__class__ = EngineClientTls


def is_inside_connect(context: Context) -> bool:
    """True for what a client sends after CONNECT."""
    return any(isinstance(found, HttpStream) for found in context.layers)


async def deliver(handler: ConnectionHandler, event: EngineEvent) -> None:
    """Hands an event in at the outermost layer of a client's connection."""
    await handler.server_event(event)


async def drained(handler: ConnectionHandler, patience: float | None = None) -> None:
    """Waits until the client's socket has taken what was written to it. Not the gate: a full upload must not stop a download.

    Raises TimeoutError when the client takes nothing for `patience` seconds.
    """
    transport = handler.transports.get(handler.client)
    if transport is None or not isinstance(transport.writer, asyncio.StreamWriter):
        return
    left = math.inf
    while True:
        before, left = left, transport.writer.transport.get_write_buffer_size()
        if left >= before:
            raise TimeoutError
        try:
            async with asyncio.timeout(patience), handler._drain_lock:
                await transport.writer.drain()
        except TimeoutError:
            continue
        except OSError:
            # The connection's own task does not find out when the client has closed its side before.
            hang_up(handler)
        return


class Discard(asyncio.Protocol):
    """Takes in what a client sends after its connection has ended, so that it sees why: the kernel resets what is not read."""

    def __init__(self, transport: Any) -> None:
        self._before: Any = transport.get_protocol()
        self._timer = asyncio.get_running_loop().call_later(LINGER, transport.abort)
        self._transport, self._left = transport, LINGER_BYTES

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._transport.abort()

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._before.connection_lost(exc)


def linger(handler: ConnectionHandler) -> None:
    """Has a client's connection end for the client first, whenever mitmproxy closes it. Set on a writer's instance, not its class."""
    connection = handler.transports[handler.client]
    writer, reader = connection.writer, connection.reader
    if not isinstance(writer, asyncio.StreamWriter) or not isinstance(reader, asyncio.StreamReader):
        return
    transport: Any = writer.transport
    close = writer.close

    def closing() -> None:
        if transport.is_closing() or reader.at_eof() or not transport.can_write_eof():
            close()
        elif not isinstance(transport.get_protocol(), Discard):
            transport.set_protocol(Discard(transport))
            transport.write_eof()
            with contextlib.suppress(RuntimeError):
                # It was not paused.
                transport.resume_reading()

    writer.close = closing  # type: ignore[method-assign]


def has_left(handler: ConnectionHandler | None) -> bool:
    """True if a client's connection is broken, rather than closed on the client's side."""
    transport = handler.transports.get(handler.client) if handler is not None else None
    return transport is None or not isinstance(transport.writer, asyncio.StreamWriter) or transport.writer.transport.is_closing()


def has_tunnel(handler: ConnectionHandler) -> bool:
    """True if mitmproxy has connected, or is connecting, for this client: to somewhere that it passes bytes on to."""
    return len(handler.transports) > 1


def break_off(handler: ConnectionHandler) -> None:
    """Resets a client's connection: what is not out yet is lost, and the client sees that."""
    transport = handler.transports.get(handler.client)
    if transport is not None and isinstance(transport.writer, asyncio.StreamWriter):
        # Without this the kernel ends the connection in good order all the same.
        transport.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.writer.transport.abort()


async def take_in(server: Proxyserver, patience: float) -> None:
    """Lets in who has connected before now: the kernel resets them with the listener, and the requests that they have sent.

    `patience`: seconds, for clients that go on coming.
    """
    poller = select.poll()
    instances: Any = server.servers
    for listening in (listening for instance in instances for listener in instance._servers for listening in listener.sockets):
        poller.register(listening.fileno(), select.POLLIN)
    end = time.monotonic() + patience
    while poller.poll(0) and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(0)
    # From a socket to the stream that is busy with a request it takes a few turns of the loop.
    for _ in range(TURNS):
        await asyncio.sleep(0)


def say_goodbye(handler: ConnectionHandler, layers: "WeakSet[EngineHttpLayer]") -> None:
    """Ends whatever TLS there is on a client's connection, the innermost first."""
    transport = handler.transports.get(handler.client)
    stacks = [found.context.layers for found in layers if found.context.client is handler.client]
    data = b""
    for tls in reversed(max(stacks, key=len, default=[])):
        if isinstance(tls, EngineClientTls):
            data = tls.goodbye(data)
    if data and transport is not None and isinstance(transport.writer, asyncio.StreamWriter):
        transport.writer.write(data)


def hang_up(handler: ConnectionHandler) -> None:
    """Closes a client's connection, and with it whatever it carries."""
    transport = handler.transports.get(handler.client)
    if transport is not None and transport.handler is not None:
        transport.handler.cancel("sigward shuts down")


def close_socket(handler: ConnectionHandler) -> None:
    """Closes what is left when mitmproxy is done with a client.

    When it is told to close while a hook runs and more data has come, its task ends without closing the socket.
    """
    transport = handler.transports.get(handler.client)
    if transport is not None and transport.writer is not None:
        transport.writer.close()
