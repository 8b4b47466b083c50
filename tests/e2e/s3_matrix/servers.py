"""S3 servers, over plain HTTP and over TLS under S3's own name. Both check signatures with code that is not ours."""

import asyncio
import re
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from sigward.demo.child import START_SECONDS, Child, clean_environment
from sigward.errors import DemoError
from tests.conftest import ROOT

REGION = "us-east-1"
HOST = f"s3.{REGION}.amazonaws.com"
DUAL_STACK_HOST = f"s3.dualstack.{REGION}.amazonaws.com"
"""Where MinIO's clients go instead."""
KEY, SECRET = "AKIDMATRIX", "a-secret-of-the-matrix"


@dataclass(frozen=True)
class Server:
    """Running. What a gateway needs of its upstream, and what a client needs of its server."""

    name: str
    plain_port: int
    port: int
    """With TLS."""
    ca_file: Path
    region: str = REGION
    key: str = KEY
    secret: str = SECRET

    def url(self, scheme: str) -> str:
        return f"{scheme}://localhost:{self.port if scheme == 'https' else self.plain_port}"

    def credentials(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}


def listening_port(child: Child, seconds: float = START_SECONDS) -> int:
    """Of a process that takes port 0 and does not say which port it got."""
    deadline = time.monotonic() + seconds
    process = Path("/proc") / str(child.process.pid)
    while time.monotonic() < deadline and child.process.poll() is None:
        inodes = set()
        for descriptor in (process / "fd").iterdir():
            try:
                inodes.add(str(descriptor.readlink()))
            except FileNotFoundError:
                continue
        for line in (process / "net" / "tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                return int(fields[1].rpartition(":")[2], 16)
        # Nothing tells when it has begun to listen.
        time.sleep(0.02)
    raise DemoError(f"a server does not listen:\n{child.output()}", hint="Its output above says why.")


class Relay(asyncio.Protocol):
    """One side of a connection that goes on to another port. What arrives is sent on at once: a reset behind it takes nothing away."""

    def __init__(self, port: int | None) -> None:
        self.port, self.waiting = port, bytearray()
        self.transport: asyncio.Transport | None = None
        self.other: Relay | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        if self.port is not None:
            asyncio.get_running_loop().create_task(self.connect(self.port))

    async def connect(self, port: int) -> None:
        there = Relay(None)
        there.other = self
        await asyncio.get_running_loop().create_connection(lambda: there, "127.0.0.1", port)
        self.other = there
        if there.transport and self.waiting:
            there.transport.write(bytes(self.waiting))

    def data_received(self, data: bytes) -> None:
        if self.other and self.other.transport:
            self.other.transport.write(data)
        else:
            self.waiting += data

    def connection_lost(self, _error: Exception | None) -> None:
        if self.other and self.other.transport:
            self.other.transport.close()


@contextmanager
def tls_before(port: int, context: ssl.SSLContext) -> Iterator[int]:
    """A port with TLS whose bytes go to a plain one: versitygw and MinIO listen with TLS or without."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: Relay(port), "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def binary(name: str) -> Path:
    """Where `make` puts it."""
    return ROOT / "build" / name / "bin" / name


@contextmanager
def started(name: str) -> Iterator[Server]:
    """`minio` or `versitygw`, with an empty store."""
    with tempfile.TemporaryDirectory(prefix=f"sigward-{name}-") as made:
        folder = Path(made)
        (folder / "data").mkdir()
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1", HOST, DUAL_STACK_HOST).configure_cert(context)
        environment = clean_environment() | {"HOME": str(folder)}
        if name == "minio":
            environment |= {"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET, "MINIO_BROWSER": "off"}
            command = ["server", "--address", "127.0.0.1:0", str(folder / "data")]
        else:
            environment |= {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
            (folder / "attributes").mkdir()
            # Not --keep-alive: then it takes a request of the C++ SDK for a bad one now and then.
            posix = ["posix", "--sidecar", str(folder / "attributes"), str(folder / "data")]
            command = ["--port", "127.0.0.1:0", "--quiet", *posix]
        with Child([str(binary(name)), *command], environment, folder) as child:
            plain = int(child.wait_for(r"API: http://127\.0\.0\.1:(\d+)")[1]) if name == "minio" else listening_port(child)
            with tls_before(plain, context) as port:
                yield Server(name, plain, port, folder / "ca.pem")


NAMES = ("minio", "versitygw")


def plain(text: str) -> str:
    """Without what differs from run to run: times, and numbers that only a server makes."""
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?", "TIME", text)
    return re.sub(r"(?i)(x-amz-)?(request.?id|host.?id|x-amz-id-2)\W+[\w/+=-]+", "", text)
