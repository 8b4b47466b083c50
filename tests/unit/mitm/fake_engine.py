"""A stand-in for `sigward._core.Engine` that does what a test tells it to, when it is told. Its interface is `_core.pyi`'s."""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sigward import _core

Pairs = tuple[tuple[bytes, bytes], ...]


class FakeReport:
    """What a flow shows."""

    summary = "a summary"


@dataclass
class FakeJob:
    """One request as the front handed it over, and what the front did with it since."""

    engine: "FakeEngine"
    id: int
    entry: int
    method: bytes
    scheme: bytes
    host: str
    port: int
    path: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes | None
    client: str
    allowance: object = None
    sent: bytearray = field(default_factory=bytearray)
    trailers: Sequence[tuple[bytes, bytes]] | None = None
    ended: bool = False
    acked: int = 0
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    room: bool = True
    """What `send` answers."""

    def send(self, data: bytes, /) -> bool:
        self.sent += data
        self.engine.wake()
        return self.room

    def end(self, trailers: Sequence[tuple[bytes, bytes]] | None = None, /) -> None:
        if not self.ended:
            self.ended, self.trailers = True, trailers
        self.engine.wake()

    def ack(self, size: int, /) -> None:
        self.acked += size
        self.engine.wake()

    def cancel(self) -> None:
        self.cancelled.set()
        self.engine.wake()

    def respond(self, status: int = 200, headers: Pairs = (), data: bytes = b"", *, end: bool = True) -> None:
        """The head of an answer, and what data came with it."""
        self.engine.tell((_core.EVENT_RESPONSE, self.id, b"HTTP/1.1", status, b"", headers, data, end, FakeReport()))

    def data(self, data: bytes, *, end: bool = False) -> None:
        self.engine.tell((_core.EVENT_DATA, self.id, data, end))

    def fail(self, message: str = "broken") -> None:
        self.engine.tell((_core.EVENT_FAILED, self.id, message))

    def writable(self) -> None:
        self.room = True
        self.engine.tell((_core.EVENT_WRITABLE, self.id))


class FakeEngine:
    """See the module. `jobs`: in the order in which they were submitted. `refuses`: what `submit` raises."""

    def __init__(self) -> None:
        self.jobs: list[FakeJob] = []
        self.refuses: Exception | None = None
        self._events: list[tuple[Any, ...]] = []
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._changed: asyncio.Future[None] | None = None

    def fileno(self) -> int:
        return self._reader.fileno()

    def load_authority(self, _: str, __: bool = False, /) -> bool:
        """It is limited."""
        return True

    def refuses_tunnel(self, _: str, /) -> None:
        """No CONNECT."""

    def vouches_for(self, _: str, /) -> bool:
        """For every host."""
        return True

    def tell(self, *events: tuple[Any, ...]) -> None:
        """These are due at once, as one batch."""
        self._events += events
        self._writer.send(b"x")

    def poll(self) -> list[tuple[Any, ...]]:
        self._reader.recv(64)
        events, self._events = self._events, []
        return events

    def submit(self, *arguments: Any) -> FakeJob:
        if self.refuses is not None:
            raise self.refuses
        job = FakeJob(self, len(self.jobs) + 1, *arguments)
        self.jobs.append(job)
        self.wake()
        return job

    def offers_http2(self, _host: str, /) -> bool:
        return True

    def handling(self, host: str, _port: int, opening: str, *_: object) -> tuple[str, str, str]:
        return ("intercept" if host.endswith(".amazonaws.com") and opening != "other" else "tunnel"), "", ""

    def came_round(self, _headers: object, /) -> None:
        return None

    def leads_back(self, _address: str, _port: int, /) -> None:
        return None

    def listens(self, _host: str, _port: int, /) -> None:
        """No tunnel is asked for."""

    def make_room(self, _for_client: bool, /) -> None:
        """There is."""

    def held(self) -> "FakeEngine":
        return self

    def grow(self, _size: int, /) -> bool:
        return True

    def allowance(self) -> None:
        return None

    def client_timeouts(self) -> tuple[float, float, float, float]:
        return 60.0, 350.0, 60.0, 60.0

    def slow_client(self, at: str, /) -> None:
        """Nobody asks."""

    def may_connect(self, _host: str, _address: str | None = None, /) -> bool:
        return False

    def in_flight(self) -> int:
        return len(self.jobs)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def wake(self) -> None:
        """Something happened that a test may wait for."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    async def until(self, holds: Any) -> None:
        """Waits until the front has done something. Fails after ten seconds."""
        async with asyncio.timeout(10):
            while not holds():
                self._changed = asyncio.get_running_loop().create_future()
                await self._changed

    async def job(self, number: int = 0) -> FakeJob:
        """A request, when it has come."""
        await self.until(lambda: len(self.jobs) > number)
        return self.jobs[number]
