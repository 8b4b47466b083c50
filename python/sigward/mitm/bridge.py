"""Between the engine's queue and mitmproxy's event loop.

The engine makes a descriptor readable when it has something to tell; one callback takes all of it. An answer that streams has a task, its
pump. One that is told whole has a task, too, which ends at once if the client takes all of it. Both wait for the client before they give
the engine its credit back: what clients leave untaken is bounded for each answer, for each connection and in all.
"""

import asyncio
import ctypes
import gc
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.proxy.layers.http._base import HttpEvent
from mitmproxy.proxy.server import ConnectionHandler

from sigward import _core
from sigward.front import log_event
from sigward.mitm.internals import (
    EngineConnection,
    EngineEvent,
    EngineHttpLayer,
    Gate,
    break_off,
    close_socket,
    deliver,
    drained,
    hang_up,
    has_left,
    has_tunnel,
    linger,
)
from sigward.mitm.refusals import refusal

logger = logging.getLogger(__name__)

TUNNEL_PATIENCE = 10.0
"""Seconds that the upstream of an upgraded connection has to close it, once the client has."""

MANY = 100
"""Requests of one client that end with it, after which memory is given back."""

CALM = 2.0
"""Seconds after that until it is: what ends has ended then."""

SELDOM = 60.0
"""Seconds between two times: to look for garbage holds everybody up."""

LAST = -1
"""In place of a size, in a pump's queue: nothing follows."""


def give_memory_back() -> None:
    """Gives what was freed back to the system. mitmproxy's streams are freed by the garbage collector alone, which looks when more is made;
    and glibc keeps what it got in small pieces."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


@dataclass(slots=True)
class Pending:
    """One job, as the bridge keeps it.

    `pump`: passes its answer on; of one that streams, from `queue`. `ended`: the engine has told all.
    """

    job: _core.Job
    connection: EngineConnection
    stream_id: int
    handler: ConnectionHandler
    ended: bool = False
    queue: "asyncio.Queue[tuple[list[HttpEvent], int]] | None" = None
    pump: "asyncio.Task[None] | None" = None


@dataclass
class Bridge:
    """See the module.

    `handlers`: mitmproxy's connection handlers by client id. `draining`: clients are told not to come back.
    """

    engine: _core.Engine
    handlers: Callable[[str], ConnectionHandler | None]
    on_refresh: Callable[[str], None]
    draining: bool = False
    pending: dict[int, Pending] = field(default_factory=dict)
    gates: dict[int, Gate] = field(default_factory=dict)
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)
    layers: "WeakSet[EngineHttpLayer]" = field(default_factory=WeakSet)
    allowances: "WeakKeyDictionary[Client, _core.Allowance]" = field(default_factory=WeakKeyDictionary)
    waits: dict[str, asyncio.TimerHandle] = field(default_factory=dict)
    """For clients that have connected, or opened a tunnel, and said nothing that could be served."""

    gives_back_from: float = 0.0
    """The event loop's time from which memory may be given back once more."""

    def start(self) -> None:
        """Begins to listen to the engine. Call it in the event loop."""
        asyncio.get_running_loop().add_reader(self.engine.fileno(), self._take)

    def stop(self) -> None:
        """Listens no more."""
        asyncio.get_running_loop().remove_reader(self.engine.fileno())

    def busy(self) -> bool:
        """True while a request is under way: with the engine, or still being read from its client."""
        return bool(self.pending or self.tasks) or any(
            layer.busy for layer in self.layers if self.handlers(layer.context.client.id) is not None
        )

    def connected(self, client: Client) -> None:
        """A client is there."""
        if handler := self.handlers(client.id):
            linger(handler)
        self.expect(client)

    def expect(self, client: Client) -> None:
        """From here on a client has `timeouts.client_head` until HTTP begins: for its first bytes, and for TLS."""
        self.opened(client)
        head = self.engine.client_timeouts()[0]
        self.waits[client.id] = asyncio.get_running_loop().call_later(head, self._says_nothing, client)

    def opened(self, client: Client) -> None:
        """HTTP begins on a client's connection, and has time-outs of its own; or the connection is over."""
        if wait := self.waits.pop(client.id, None):
            wait.cancel()

    def _says_nothing(self, client: Client) -> None:
        self.waits.pop(client.id, None)
        handler = self.handlers(client.id)
        if handler is not None and not has_tunnel(handler):
            hang_up(handler)

    def has_left(self, client: Client) -> bool:
        """True if the client's connection is broken, rather than closed on its side."""
        return has_left(self.handlers(client.id))

    def submit(self, connection: EngineConnection, stream_id: int, request: http.Request, body: bytes | None) -> _core.Job | None:
        """Hands a request to the engine. None: its client is gone, or it is refused because the engine does not take it."""
        client = connection.context.client
        handler = self.handlers(client.id)
        if handler is None:
            return None
        data = request.data
        headers = data.headers.fields
        if data.authority and not any(name.lower() == b"host" for name, _ in headers):
            # HTTP/2 says it in :authority.
            headers = ((b"host", data.authority), *headers)
        try:
            job = self.engine.submit(
                connection.entry,
                data.method,
                data.scheme,
                data.host,
                data.port,
                data.path,
                headers,
                body,
                client.peername[0] if client.peername else "",
                self._allowance(client),
            )
        except Exception:
            logger.exception("the engine did not take a request")
            response = refusal(500, "internal", "the request could not be handed to the engine. It was not sent. See sigward's log.")
            told = connection.refusal_events(stream_id, response)
            self._spawn(deliver(handler, EngineEvent(connection.server, told)))
            return None
        self.pending[job.id] = Pending(job, connection, stream_id, handler)
        return job

    def _allowance(self, client: Client) -> _core.Allowance:
        allowance = self.allowances.get(client)
        if allowance is None:
            allowance = self.allowances[client] = self.engine.allowance()
        return allowance

    def upload_full(self, job: _core.Job) -> None:
        """Takes no more of this upload until the engine has room: of this stream of HTTP/2, or of this connection of HTTP/1."""
        pending = self.pending.get(job.id)
        if pending is None or pending.ended:
            return
        http2 = pending.connection.http2
        if http2 and http2.hold(pending.stream_id):
            return
        gate = self.gates.get(id(pending.handler))
        if gate is None:
            gate = self.gates[id(pending.handler)] = Gate(pending.handler)
        gate.close(job.id)

    def forget(self, job: _core.Job) -> None:
        """Nothing that the engine tells of this job is of interest any more."""
        if pending := self.pending.pop(job.id, None):
            self._go_on(pending)
            if pending.pump is not None:
                pending.pump.cancel()

    def tunnel_closed(self, job: _core.Job) -> None:
        """The client has ended an upgraded connection. What it sent before, such as a Close frame, still goes out."""
        self.forget(job)
        job.end()
        asyncio.get_running_loop().call_later(TUNNEL_PATIENCE, job.cancel)

    def client_gone(self, handler: ConnectionHandler | None) -> None:
        """A client's connection has ended: its jobs end with it, whatever state they are in."""
        if handler is None:
            return
        left = [pending for pending in self.pending.values() if pending.handler is handler]
        for pending in left:
            self.forget(pending.job)
            pending.job.cancel()
        if len(left) >= MANY:
            self._give_back_soon()
        self.gates.pop(id(handler), None)
        close_socket(handler)

    def _give_back_soon(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now + CALM >= self.gives_back_from:
            self.gives_back_from = now + SELDOM
            loop.call_later(CALM, give_memory_back)

    def _go_on(self, pending: Pending) -> None:
        """Takes more of an upload."""
        if gate := self.gates.get(id(pending.handler)):
            gate.open(pending.job.id)
        if (http2 := pending.connection.http2) and http2.release(pending.stream_id):
            self._spawn(deliver(pending.handler, EngineEvent(pending.connection.server, ())))

    def _take(self) -> None:
        for event in self.engine.poll():
            try:
                self._dispatch(event)
            except Exception:
                logger.exception("an event of the engine could not be passed on")
                self._lost(event)

    def _lost(self, event: tuple[Any, ...]) -> None:
        """The client does not wait for what will not come."""
        if event[0] in (_core.EVENT_LOG, _core.EVENT_REFRESH):
            # Of no job.
            return
        if pending := self.pending.get(event[1]):
            self.forget(pending.job)
            pending.job.cancel()
            break_off(pending.handler)

    def _dispatch(self, event: tuple[Any, ...]) -> None:
        kind, number = event[0], event[1]
        if kind == _core.EVENT_LOG:
            log_event(event)
            return
        if kind == _core.EVENT_REFRESH:
            self.on_refresh(number)
            return
        pending = self.pending.get(number)
        if pending is None:
            return
        if kind == _core.EVENT_WRITABLE:
            self._go_on(pending)
            return
        connection, stream_id = pending.connection, pending.stream_id
        if connection.stream(stream_id) is None:
            # A hook has killed it. Nobody would see the rest.
            self.forget(pending.job)
            pending.job.cancel()
            return
        size = 0
        if kind == _core.EVENT_RESPONSE:
            _, _, _, status, reason, headers, data, end, report = event
            told, size = connection.response_events(stream_id, status, reason, headers, data, end, report), len(data)
        elif kind == _core.EVENT_DATA:
            data, end = event[2], event[3]
            told, size = connection.data_events(stream_id, data, end), len(data)
        elif kind == _core.EVENT_TRAILERS:
            told, end = connection.trailer_events(stream_id, event[2]), True
        else:
            told, end = self._failed(pending, event[2]), True
        if end:
            pending.ended = True
            self._go_on(pending)
            if pending.pump is None:
                pending.pump = self._spawn(self._pass_on(pending, told, size))
                return
        if pending.queue is None:
            pending.queue = asyncio.Queue()
        pending.queue.put_nowait((told, size))
        if end:
            pending.queue.put_nowait(([], LAST))
        if pending.pump is None:
            pending.pump = self._spawn(self._pump(pending, pending.queue))

    def _failed(self, pending: Pending, message: str) -> list[HttpEvent]:
        connection, stream_id = pending.connection, pending.stream_id
        if pending.pump is None:
            # No head was told.
            return connection.refusal_events(stream_id, refusal(500, "internal", f"the engine gave up: {message}."))
        if connection.ends_by_close(stream_id):
            break_off(pending.handler)
        return connection.failed_events(stream_id, message)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        if not task.done():
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        return task

    async def _pass_on(self, pending: Pending, told: list[HttpEvent], size: int) -> None:
        """Passes on an answer that is told whole."""
        passed = pending.connection.http_layer.passes(pending.stream_id) if size else None
        await deliver(pending.handler, EngineEvent(pending.connection.server, told))
        if passed is not None:
            # Hooks may take their time.
            await passed.wait()
            try:
                await drained(pending.handler, self.engine.client_timeouts()[2])
            except TimeoutError:
                self._let_go(pending)
                break_off(pending.handler)
                return
            if http2 := pending.connection.http2:
                # Its time is the connection's.
                await http2.flushed(pending.stream_id, 0)
            pending.job.ack(size)
        self.pending.pop(pending.job.id, None)

    async def _pump(self, pending: Pending, queue: "asyncio.Queue[tuple[list[HttpEvent], int]]") -> None:
        """Passes a streaming answer on as fast as the client takes it."""
        server, stream_id, http2 = pending.connection.server, pending.stream_id, pending.connection.http2
        while True:
            told, size = await queue.get()
            if told:
                await deliver(pending.handler, EngineEvent(server, told))
            if size == LAST:
                if http2:
                    await http2.flushed(stream_id, 0)
                self.pending.pop(pending.job.id, None)
                return
            if size:
                patience = self.engine.client_timeouts()[2]
                try:
                    await drained(pending.handler, patience)
                except TimeoutError:
                    self._let_go(pending)
                    break_off(pending.handler)
                    return
                try:
                    if http2:
                        await http2.flushed(stream_id, 0, patience)
                except TimeoutError:
                    self._let_go(pending)
                    await deliver(
                        pending.handler, EngineEvent(server, pending.connection.failed_events(stream_id, "nothing of it was taken"))
                    )
                    return
                pending.job.ack(size)

    def _let_go(self, pending: Pending) -> None:
        """The client takes nothing of its answer."""
        self.engine.slow_client("answer")
        self.pending.pop(pending.job.id, None)
        self._go_on(pending)
        pending.job.cancel()
