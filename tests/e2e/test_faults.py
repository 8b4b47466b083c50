"""What goes wrong around a running sigward: upstreams that are killed, names, descriptors and disks that are gone, signals under load."""

import asyncio
import contextlib
import http.client
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sigward.demo.gateway import Gateway, settings_file
from tests.e2e.conftest import ask
from tests.far import Far
from tests.support import KEY, OK, SECRET, Received, Upstream, counted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc and sets limits of a running process")

SQS = {"host": "sqs.us-east-1.amazonaws.com"}
READ_ANEW = "settings and credentials are read anew"
PATIENCE = 30.0


@pytest.fixture(params=["mitmproxy", "native"], scope="module")
def front(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    running = Far(tmp_path / "far")
    yield running
    running.close()


def until(come: Callable[[], object], what: str) -> None:
    """Waits for it; the processes that it looks at tell no event."""
    end = time.monotonic() + PATIENCE
    while not come():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)


def works(gateway: Gateway) -> None:
    """The next request does, at its first attempt."""
    told = ask(gateway.addresses["by-host"], headers=SQS)
    assert (told.status, told.body, told.headers["x-sigward-attempts"]) == (200, b"ok", "1"), told


def metric(gateway: Gateway, name: str, **labels: str) -> float:
    return counted(gateway.admin("/metrics")[1], name, **labels)


def reload(gateway: Gateway, **settings: Any) -> None:
    """Writes the settings anew and waits until they are taken."""
    before = gateway.child.output().count(READ_ANEW)
    gateway.config_file.write_text(settings_file(gateway.emulator, gateway.directory / "ca", gateway.settings | settings))
    gateway.child.process.send_signal(signal.SIGHUP)
    until(lambda: gateway.child.output().count(READ_ANEW) > before, READ_ANEW)


# ---------------------------------------------------------------- the upstream


@pytest.mark.fault(
    "an upstream that is killed within its answer, or before it",
    holds="no part of an answer passes for the whole; another upstream takes its place at SIGHUP",
)
def test_an_upstream_that_is_killed(front: str, far: Far, tmp_path: Path) -> None:
    """Within its answer, or before it; another takes its place."""
    with Gateway(far, front=front, retry={"base": "10ms"}) as gateway, contextlib.ExitStack() as stack:
        gateway.wait_ready()
        host, _, port = gateway.addresses["by-host"].rpartition(":")
        for path in ("/half", "/chunks", "/silent"):
            connection = stack.enter_context(contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=PATIENCE)))
            connection.request("GET", path, headers=SQS)
            if path == "/silent":
                far.child.wait_for("silent")
                far.kill()
                response = connection.getresponse()
                assert (response.status, response.getheader("x-sigward-error")) == (502, "connect-failed"), "it was tried again"
                assert b"sigward: " in response.read()
                assert metric(gateway, "sigward_retries_total", cause="connection-broken") == 1
                assert metric(gateway, "sigward_requests_total", service="sqs", code="502") == 1
            else:
                response = connection.getresponse()
                assert (response.status, response.read(1)) == (200, b"x")
                far.kill()
                with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                    response.read()
            until(lambda: not gateway.in_flight(), "nothing under way")
            far = Far(tmp_path / path[1:])
            stack.callback(far.close)
            gateway.emulator = far
            reload(gateway)
            works(gateway)


NAME = "upstream.sigward.test"


@pytest.mark.fault("a name that comes and goes", holds="a 502 that says DNS while it is gone; calls work as soon as it is there")
def test_a_name_that_comes_and_goes(front: str, far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process has a hosts file of its own."""
    hosts, python = tmp_path / "hosts", tmp_path / "python"
    hosts.write_text("127.0.0.1 localhost\n")
    python.write_text(
        f'#!/bin/sh\nexec unshare --mount sh -c \'mount --bind {hosts} /etc/hosts && exec "$@"\' sh {sys.executable} "$@"\n',
    )
    python.chmod(0o700)
    if subprocess.run([python, "-c", ""], capture_output=True).returncode != 0:
        pytest.skip("a process with files of its own can be started by root alone")
    monkeypatch.setattr("sigward.demo.gateway.sys.executable", str(python))
    # Sooner than a resolver that cannot be reached gives up.
    settings = {"timeouts": {"connect": "1s", "pool_idle": "1ms", "dns": 0}, "retry": {"base": "10ms"}}
    with Gateway(far, front=front, **settings) as gateway:
        gateway.wait_ready()
        text = gateway.config_file.read_text().replace(f"127.0.0.1:{far.port}", f"{NAME}:{far.port}")
        gateway.config_file.write_text(text)
        gateway.child.process.send_signal(signal.SIGHUP)
        gateway.child.wait_for(READ_ANEW)

        def fails() -> None:
            told = ask(gateway.addresses["by-host"], headers=SQS)
            assert (told.status, told.headers["x-sigward-error"]) == (502, "connect-failed"), told
            assert b"DNS" in told.body

        fails()
        # In place: the process has this very file.
        with hosts.open("a") as file:
            file.write(f"127.0.0.1 {NAME}\n")
        works(gateway)
        with hosts.open("r+") as file:
            file.truncate(0)
        reload_unchanged(gateway)
        fails()
        assert metric(gateway, "sigward_requests_total", service="sqs", code="502") == 2
        assert metric(gateway, "sigward_retries_total", cause="connect-failed") == 4


def reload_unchanged(gateway: Gateway) -> None:
    """New connections to the upstream are made from here on."""
    before = gateway.child.output().count(READ_ANEW)
    gateway.child.process.send_signal(signal.SIGHUP)
    until(lambda: gateway.child.output().count(READ_ANEW) > before, READ_ANEW)


# ---------------------------------------------------------------- what the system runs out of

ROOM = 32
"""Descriptors that are left."""
IDLE = 150
SPIN = 0.25
"""Of one processor: what a process that has nothing to do does not use."""


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Crowd:
    """Idle clients that have taken every descriptor. `old`, `other`: connections from before; `old` has one upstream, too."""

    gateway: Gateway
    pid: int
    old: http.client.HTTPConnection
    other: http.client.HTTPConnection
    idle: list[socket.socket] = field(default_factory=list)

    def leave(self) -> None:
        for one in self.idle:
            one.close()
        self.idle.clear()


@pytest.fixture(scope="module")
def crowd(front: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    far = Far(tmp_path_factory.mktemp("crowd") / "far")
    with contextlib.closing(far), Gateway(far, front=front, retry={"base": "10ms"}) as gateway:
        gateway.wait_ready()
        pid = gateway.child.process.pid
        host, _, port = gateway.addresses["by-host"].rpartition(":")
        old, other = (http.client.HTTPConnection(host, int(port), timeout=PATIENCE) for _ in range(2))
        for connection in (old, other):
            connection.request("GET", "/", headers=SQS)
            assert connection.getresponse().read() == b"ok"
        running = Crowd(gateway, pid, old, other)
        most = descriptors(pid) + ROOM
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
        for _ in range(IDLE):
            running.idle.append(socket.socket())
            running.idle[-1].setblocking(False)
            running.idle[-1].connect_ex((host, int(port)))
        # One may be kept for the purpose of telling clients so. The native front keeps a part for upstreams.
        if front == "native":
            until(lambda: metric(gateway, "sigward_accept_paused_total", reason="descriptors"), "no more clients taken")
        else:
            until(lambda: descriptors(pid) >= most - 1, "all descriptors taken")
        yield running
        running.leave()
        old.close()
        other.close()


@pytest.mark.fault(
    "no descriptors left",
    holds="idle upstream connections make room, open connections are served, nothing spins, and new ones are served as soon as there is room",
)
def test_all_descriptors_taken(crowd: Crowd, front: str) -> None:
    """Whoever is there is served, nothing spins, and those that come after are served."""
    gateway = crowd.gateway
    used, began = processor_seconds(crowd.pid), time.monotonic()
    time.sleep(1)  # Not for anything to happen: it is the time over which what is used is measured.
    share = (processor_seconds(crowd.pid) - used) / (time.monotonic() - began)
    assert share < SPIN, "it spins"
    crowd.old.request("GET", "/", headers=SQS)
    assert crowd.old.getresponse().read() == b"ok"
    # Another endpoint: that takes a connection of its own, for which an idle one is closed.
    for connection, host in ((crowd.other, "kms"), (crowd.old, "sts"), (crowd.other, "sqs")):
        connection.request("GET", "/", headers={"host": f"{host}.us-east-1.amazonaws.com"})
        assert connection.getresponse().read() == b"ok", host
    if front == "mitmproxy":
        none_is_left(crowd)
    crowd.leave()
    until(lambda: descriptors(crowd.pid) < ROOM + IDLE and served(gateway), "served again")
    works(gateway)


def none_is_left(crowd: Crowd) -> None:
    """No idle connection either."""
    gateway = crowd.gateway
    crowd.old.request("GET", "/half", headers=SQS)
    broken = crowd.old.getresponse()
    crowd.other.request("GET", "/", headers={"host": "kms.us-east-1.amazonaws.com"})
    response = crowd.other.getresponse()
    assert (response.status, response.getheader("x-sigward-error")) == (502, "connect-failed")
    assert b"Too many open files" in response.read()
    broken.close()
    crowd.leave()
    until(lambda: served(gateway), "served again")
    assert metric(gateway, "sigward_requests_total", service="kms", code="502") == 1
    assert metric(gateway, "sigward_idle_upstream_closed_total", reason="descriptors") >= 3


def served(gateway: Gateway) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return ask(gateway.addresses["by-host"], headers=SQS).status == 200
    return False


@pytest.mark.fault("no descriptors left", holds="log or metric say so")
def test_that_all_descriptors_are_taken_is_told(crowd: Crowd, front: str, request: pytest.FixtureRequest) -> None:
    if front == "mitmproxy":
        request.applymarker(pytest.mark.xfail(strict=True, reason="libuv closes such connections, and says so to nobody"))
    crowd.leave()
    until(lambda: served(crowd.gateway), "served again")
    told = crowd.gateway.child.output()
    assert (
        re.search("(?i)too many open files|descriptor", told)
        or metric(crowd.gateway, "sigward_accept_paused_total", reason="descriptors") > 0
    )


@pytest.mark.fault(
    "a disk that is full, or gone, during an upload",
    holds="a 500 that says so; small bodies go on, large ones again when there is room",
)
def test_a_disk_that_is_full(front: str, far: Far) -> None:
    """Files may not grow any more; then they may."""
    size = 4 << 20
    with Gateway(far, front=front) as gateway:
        gateway.wait_ready()
        pid = gateway.child.process.pid
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (65536, hard))
        host, _, port = gateway.addresses["by-host"].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        connection.putrequest("POST", "/", skip_host=True)
        for name, value in (*SQS.items(), ("content-length", str(size))):
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(bytes(size // 2))
        response = connection.getresponse()
        assert (response.status, response.getheader("x-sigward-error")) == (500, "internal")
        assert b"spooled" in response.read()
        connection.close()
        assert metric(gateway, "sigward_requests_total", service="sqs", code="500") == 1
        until(lambda: not gateway.in_flight(), "nothing under way")
        works(gateway)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert ask(gateway.addresses["by-host"], "POST", "/", SQS, bytes(size)).status == 200


# ---------------------------------------------------------------- signals under load


@dataclass
class Local:
    """An upstream in this process, as `Gateway` wants it."""

    upstream: Upstream
    ca_file: Path
    region: str = "us-east-1"

    @property
    def port(self) -> int:
        return self.upstream.port

    def credentials(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}


@dataclass
class Client:
    """Asks again and again on one connection, with a path of its own each time, until that ends. `sent`, `answered`: paths."""

    name: str
    sent: list[str] = field(default_factory=list)
    answered: dict[str, int] = field(default_factory=dict)
    part: bytes = b""
    """What came of an answer that did not come whole."""
    told: bool = False
    """The last answer said that the connection ends."""

    async def open(self, address: tuple[str, int]) -> None:
        # A reader takes little ahead of what is asked of it.
        self.reader, self.writer = await asyncio.open_connection(*address, limit=65536)

    def send(self, prefix: str = "", size: int = 0) -> None:
        """Hands a request to the kernel; a body of `size` bytes is to follow."""
        self.sent.append(f"/{prefix}{self.name}/{len(self.sent)}")
        self.writer.write(f"PUT {self.sent[-1]} HTTP/1.1\r\nHost: {SQS['host']}\r\nContent-Length: {size}\r\n\r\n".encode())

    async def read(self) -> bool:
        """Takes the answer. False: there is none, or not a whole one."""
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        except asyncio.IncompleteReadError as error:
            self.part = error.partial
            return False
        except ConnectionError:
            return False
        self.part = head
        size = re.search(rb"content-length: (\d+)", head)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self.reader.readexactly(int(size[1]) if size else 0)
            self.part = b""
            self.answered[self.sent[-1]] = int(head.split()[1])
            self.told = b"connection: close" in head
        return not self.part

    async def run(self) -> None:
        """To the connection's end."""
        while not self.told:
            self.send()
            if not await self.read():
                break
        self.writer.close()


LARGE = 8 << 20
"""More than the sockets on the way hold."""


WAITING = {"mitmproxy": 50, "native": 1000}
"""As many as a front lets wait to be accepted: who is quick must not be done with them before a signal is seen."""
SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
if SOMAXCONN.exists():
    WAITING["native"] = min(WAITING["native"], int(SOMAXCONN.read_text()))


async def held_or_ok(go: asyncio.Event, received: Received, writer: asyncio.StreamWriter) -> None:
    """What `/held/…` asks for waits; what `/large/…` asks for is `LARGE`."""
    if received.target.startswith("/held/"):
        await go.wait()
    if received.target.startswith("/large/"):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE + bytes(LARGE))
    else:
        writer.write(OK)


class Load:
    """An upstream, sigward before it, and clients. `go`: lets the upstream answer `/held/…`."""

    def __init__(self, upstream: Upstream, gateway: Gateway) -> None:
        self.upstream, self.gateway = upstream, gateway
        host, _, port = gateway.addresses["by-host"].rpartition(":")
        self.address = (host, int(port))
        self.clients: list[Client] = []
        self.go = asyncio.Event()

        async def answer(received: Received, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await held_or_ok(self.go, received, writer)

        upstream.answers = [answer] * (1 << 20)

    async def client(self, name: str) -> Client:
        client = Client(name)
        await client.open(self.address)
        self.clients.append(client)
        return client

    def signal(self, number: int) -> None:
        self.gateway.child.process.send_signal(number)

    async def exits(self) -> int:
        """Its status, once it has ended."""
        return await asyncio.to_thread(self.gateway.child.process.wait, PATIENCE)

    def nothing_is_lost(self) -> None:
        """What has gone upstream was answered, and no answer came in part."""
        for client in self.clients:
            assert client.part == b"", f"{client.name} got a part of an answer"
            assert set(client.answered.values()) <= {200}
        answered = {path for client in self.clients for path in client.answered}
        assert {received.target for received in self.upstream.received} == answered


@pytest.fixture
async def load(front: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Load]:
    if "many_descriptors" in request.fixturenames:
        request.getfixturevalue("many_descriptors")
    async with Upstream() as upstream:
        local = Local(upstream, upstream.write_ca(tmp_path / "ca.pem"))
        gateway = await asyncio.to_thread(Gateway(local, front=front, grace=PATIENCE).__enter__)
        try:
            await asyncio.to_thread(gateway.wait_ready)
            yield Load(upstream, gateway)
        finally:
            await asyncio.to_thread(gateway.close)


async def progressed(clients: list[Client], by: int) -> None:
    """Waits until each has so many more answers. Fails if a connection ends."""
    before = [len(client.answered) for client in clients]
    async with asyncio.timeout(PATIENCE):
        while any(len(client.answered) < count + by for client, count in zip(clients, before, strict=True)):
            assert not any(client.writer.is_closing() for client in clients), "a connection has ended"
            await asyncio.sleep(0.005)


@pytest.mark.fault(
    "SIGTERM under load",
    holds="what was sent is answered, what the upstream executed reaches its client, no answer comes in part",
)
async def test_sigterm_under_load(load: Load) -> None:
    busy = [await load.client(f"busy{number}") for number in range(24)]
    held = [await load.client(f"held{number}") for number in range(8)]
    for client in held:
        client.send("held/")
    uploading, downloading = await load.client("upload"), await load.client("download")
    uploading.send(size=LARGE)
    uploading.writer.write(bytes(LARGE // 2))
    downloading.send("large/")
    await load.upstream.wait_for(len(held) + 1)
    running = [asyncio.create_task(client.run()) for client in busy]
    await progressed(busy, 10)
    load.signal(signal.SIGTERM)
    before = {path for client in load.clients for path in client.sent}
    # Whoever comes now is served whole, or not at all.
    late: list[Client] = []
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                client = await load.client(f"late{len(late)}")
            except ConnectionError:
                break
            late.append(client)
            running.append(asyncio.create_task(client.run()))
            await asyncio.sleep(0.01)
    assert load.gateway.child.process.poll() is None, "it waits for what is under way"
    uploading.writer.write(bytes(LARGE // 2))
    assert await asyncio.wait_for(uploading.read(), PATIENCE), "an upload that was under way got no answer"
    load.go.set()
    for client in held:
        assert await asyncio.wait_for(client.read(), PATIENCE), "a request that was under way got no answer"
    assert await asyncio.wait_for(downloading.read(), PATIENCE), "an answer that was under way did not come whole"
    await asyncio.wait_for(asyncio.gather(*running), PATIENCE)
    assert await load.exits() == 0
    assert "within the grace" not in load.gateway.child.output()
    load.nothing_is_lost()
    answered = {path for client in load.clients for path in client.answered}
    assert before <= answered, "what was sent before the signal was not answered"
    for client in held:
        client.writer.close()


@pytest.mark.fault("SIGTERM with up to 1,000 connections not yet accepted", holds="each of them is answered")
@pytest.mark.usefixtures("many_descriptors")
async def test_who_has_connected_when_sigterm_comes_is_answered(load: Load, front: str) -> None:
    """The kernel has taken the connection and the request; sigward has seen neither."""
    load.signal(signal.SIGSTOP)
    clients = [await load.client(f"new{number}") for number in range(WAITING[front])]
    for client in clients:
        client.send()
    load.signal(signal.SIGTERM)
    load.signal(signal.SIGCONT)
    answered = [await asyncio.wait_for(client.read(), PATIENCE) for client in clients]
    assert await load.exits() == 0
    load.nothing_is_lost()
    assert all(answered), f"{answered.count(False)} of {len(answered)} were not answered"


@pytest.mark.fault(
    "SIGHUP under load",
    holds="no call fails, no connection ends, new settings count for what comes after; a bad file changes nothing",
)
async def test_sighup_under_load(load: Load) -> None:
    """Changed settings count for what comes after; no request fails, and no connection ends."""
    gateway = load.gateway
    clients = [await load.client(f"client{number}") for number in range(16)]
    held = await load.client("held")
    held.send("held/")
    running = [asyncio.create_task(client.run()) for client in clients]
    async with asyncio.timeout(PATIENCE):
        while held.sent[0] not in {received.target for received in load.upstream.received}:
            await asyncio.sleep(0.01)
    for turn in range(6):
        await progressed(clients, 5)
        deny = turn % 2 == 0
        route = [{"host": "sqs.*", "path": "/denied", "action": "deny"}] if deny else []
        await asyncio.to_thread(reload, gateway, route=route, retry={"attempts": 2 + turn}, timeouts={"connect": f"{turn + 1}s"})
        told = await asyncio.to_thread(ask, gateway.addresses["by-host"], "GET", "/denied", SQS)
        assert told.status == (403 if deny else 200)
    await progressed(clients, 5)
    gateway.config_file.write_text("no settings")
    load.signal(signal.SIGHUP)
    await asyncio.to_thread(gateway.child.wait_for, "the settings are left as they were")
    await progressed(clients, 5)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for client in clients:
        if client.sent[-1] not in client.answered:
            assert await asyncio.wait_for(client.read(), PATIENCE)
    load.go.set()
    assert await asyncio.wait_for(held.read(), PATIENCE), "it was under way all the while"
    answers = sum(len(client.answered) for client in load.clients)
    assert answers == sum(len(client.sent) for client in load.clients)
    assert all(status == 200 for client in load.clients for status in client.answered.values())
    metrics = (await asyncio.to_thread(gateway.admin, "/metrics"))[1]
    assert counted(metrics, "sigward_requests_total", service="sqs", code="200") == answers + 3
    assert counted(metrics, "sigward_requests_total", code="403") == 3
    assert counted(metrics, "sigward_requests_total") == answers + 6
    for client in load.clients:
        client.writer.close()
