"""Between the engine's queue and mitmproxy's event loop.

The engine makes a descriptor readable when it has something to tell; one callback takes all of it. A small answer is one event
and no task. An answer that streams has a task that waits for the client's socket before it gives the engine its credit back.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mitmproxy import http
from mitmproxy.proxy.layers.http._base import HttpEvent
from mitmproxy.proxy.server import ConnectionHandler

from sigward import _core
from sigward.mitm.internals import EngineConnection, EngineEvent, Gate, deliver

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Pending:
    """One job, as the bridge keeps it."""

    job: _core.Job
    connection: EngineConnection
    stream_id: int
    handler: ConnectionHandler
    queue: "asyncio.Queue[tuple[list[HttpEvent], int]] | None" = None
    pump: "asyncio.Task[None] | None" = None


@dataclass
class Bridge:
    """See the module. `handlers`: mitmproxy's connection handlers by client id."""

    engine: _core.Engine
    handlers: Callable[[str], ConnectionHandler | None]
    on_refresh: Callable[[str], None]
    pending: dict[int, Pending] = field(default_factory=dict)
    gates: dict[int, Gate] = field(default_factory=dict)
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)

    def start(self) -> None:
        """Begins to listen to the engine. Call it in the event loop."""
        asyncio.get_running_loop().add_reader(self.engine.fileno(), self._take)

    def stop(self) -> None:
        """Listens no more."""
        asyncio.get_running_loop().remove_reader(self.engine.fileno())

    def submit(self, connection: EngineConnection, stream_id: int, request: http.Request, body: bytes | None) -> _core.Job | None:
        """Hands a request to the engine. None: its client is gone."""
        client = connection.context.client
        handler = self.handlers(client.id)
        if handler is None:
            return None
        data = request.data
        headers = data.headers.fields
        if data.authority and not any(name.lower() == b"host" for name, _ in headers):
            # HTTP/2 says it in :authority.
            headers = ((b"host", data.authority), *headers)
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
        )
        self.pending[job.id] = Pending(job, connection, stream_id, handler)
        return job

    def upload_full(self, connection: EngineConnection, job: _core.Job) -> None:
        """Stops reading from the job's client until the engine has room."""
        pending = self.pending.get(job.id)
        if pending is None:
            return
        handler = pending.handler
        gate = self.gates.get(id(handler))
        if gate is None:
            gate = self.gates[id(handler)] = Gate(handler)
        gate.close(job.id)

    def forget(self, job: _core.Job) -> None:
        """The client of this job is gone."""
        if pending := self.pending.pop(job.id, None):
            self._open_gate(pending, job.id)
            if pending.pump is not None:
                pending.pump.cancel()

    def client_gone(self, handler: ConnectionHandler | None) -> None:
        """A client's connection has ended: its jobs end with it, whatever state they are in."""
        if handler is None:
            return
        for pending in [pending for pending in self.pending.values() if pending.handler is handler]:
            self.forget(pending.job)
            pending.job.cancel()
        self.gates.pop(id(handler), None)

    def _open_gate(self, pending: Pending, job: int) -> None:
        if gate := self.gates.get(id(pending.handler)):
            gate.open(job)

    def _take(self) -> None:
        for event in self.engine.poll():
            try:
                self._dispatch(event)
            except Exception:
                logger.exception("an event of the engine was lost")

    def _dispatch(self, event: tuple[Any, ...]) -> None:
        kind, number = event[0], event[1]
        if kind == _core.EVENT_REFRESH:
            self.on_refresh(number)
            return
        pending = self.pending.get(number)
        if pending is None:
            return
        if kind == _core.EVENT_WRITABLE:
            self._open_gate(pending, number)
            return
        connection, stream_id = pending.connection, pending.stream_id
        if kind == _core.EVENT_RESPONSE:
            _, _, _, status, reason, headers, data, end, report = event
            told = connection.response_events(stream_id, status, reason, headers, data, end, report)
            size = 0
            if status == 101:
                pending.queue = asyncio.Queue()
        elif kind == _core.EVENT_DATA:
            data, end = event[2], event[3]
            told, size = connection.data_events(stream_id, data, end), len(data)
        elif kind == _core.EVENT_TRAILERS:
            told, size, end = connection.trailer_events(stream_id, event[2]), 0, True
        else:
            told, size, end = connection.failed_events(stream_id, event[2]), 0, True
        if end:
            self.pending.pop(number, None)
            self._open_gate(pending, number)
        if end and pending.pump is None:
            self._spawn(deliver(pending.handler, EngineEvent(connection.conn, told)))
            return
        if pending.queue is None:
            pending.queue = asyncio.Queue()
        pending.queue.put_nowait((told, size))
        if end:
            pending.queue.put_nowait(([], -1))
        if pending.pump is None:
            pending.pump = self._spawn(self._pump(pending, pending.queue))

    def _spawn(self, work: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        if not task.done():
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        return task

    async def _pump(self, pending: Pending, queue: "asyncio.Queue[tuple[list[HttpEvent], int]]") -> None:
        """Passes a streaming answer on as fast as the client's socket takes it."""
        while True:
            told, size = await queue.get()
            if size < 0:
                return
            if told:
                await deliver(pending.handler, EngineEvent(pending.connection.conn, told))
            if size:
                await drained(pending.handler)
                pending.job.ack(size)


async def drained(handler: ConnectionHandler) -> None:
    """Waits until the client's socket has taken what was written to it. Not the gate: a full upload must not stop a download."""
    transport = handler.transports.get(handler.client)
    if transport is not None and transport.writer is not None:
        try:
            async with handler._drain_lock:
                await transport.writer.drain()
        except OSError:
            # The connection's own task finds out and ends the job.
            return
