"""Clients, servers, fronts, ways, treatments of bodies, each compared with the same client direct: the server's own keys, no sigward."""

import hashlib
import itertools
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config

from sigward.demo.gateway import Gateway
from sigward.environ import DUMMY_KEY
from tests.e2e.s3_matrix.clients import Client, Place, Steps
from tests.e2e.s3_matrix.servers import HOST, REGION, Server

FRONTS = ("mitmproxy", "native")
WAYS = ("endpoint", "proxy")
BODIES: dict[str, tuple[str, str]] = {
    # `body.hold`, and `payload` of the route.
    "hold": ("64MiB", "auto"),
    "spool": ("64KiB", "hash"),
    "stream": ("64KiB", "auto"),
    "chunked": ("64KiB", "chunked"),
}
DUMMY_SECRET = "not-a-secret"
NOW = str(int(time.time()))


@dataclass(frozen=True)
class Cell:
    """How a client reaches a server through sigward."""

    front: str
    way: str
    body: str

    @property
    def scheme(self) -> str:
        """That the client sees."""
        return "http" if self.way == "endpoint" else "https"

    def __str__(self) -> str:
        return f"{self.front}, {self.way}, {self.body}"


CELLS = tuple(Cell(*parts) for parts in itertools.product(FRONTS, WAYS, BODIES))


@dataclass(frozen=True)
class Difference:
    """A step that came to something else."""

    server: str
    client: str
    cell: Cell
    step: str
    direct: str
    through: str

    def __str__(self) -> str:
        return (
            f"{self.server}, {self.client}, {self.cell}: {self.step}\n    direct:  {self.direct[:300]}\n    sigward: {self.through[:300]}"
        )


@dataclass(frozen=True)
class Compared:
    """One client in one cell."""

    server: str
    client: str
    cell: Cell
    steps: int
    differences: tuple[Difference, ...]


class Matrix:
    """Before one server."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self.server, self._stack = server, stack
        self._gateways: dict[tuple[str, str], Gateway] = {}
        self._runs = itertools.count()
        self._s3: Any = boto3.client(
            "s3",
            endpoint_url=server.url("http"),
            region_name=REGION,
            aws_access_key_id=server.key,
            aws_secret_access_key=server.secret,
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )

    def start(self, cells: Iterable[Cell]) -> None:
        """The gateways of these cells, at once: one for each front and treatment of bodies."""
        wanted = [key for key in dict.fromkeys((cell.front, cell.body) for cell in cells) if key not in self._gateways]
        for front, body in wanted:
            hold, payload = BODIES[body]
            route = {"host": "*.amazonaws.com", "payload": payload}
            gateway = Gateway(self.server, front=front, grace="1s", body={"hold": hold}, route=[route])
            self._gateways[front, body] = self._stack.push(gateway)
        with ThreadPoolExecutor() as pool:
            for gateway in pool.map(Gateway.__enter__, [self._gateways[key] for key in wanted]):
                gateway.wait_ready()

    @contextmanager
    def place(self, cell: Cell | str) -> Iterator[Place]:
        """An empty bucket. `cell`: a scheme, if the client goes there directly."""
        bucket = f"matrix-{next(self._runs)}"
        self._s3.create_bucket(Bucket=bucket)
        with tempfile.TemporaryDirectory(prefix="sigward-matrix-") as made:
            folder = Path(made)
            if isinstance(cell, str):
                yield Place(self.server.url(cell), bucket, self.server.key, self.server.secret, self.server.ca_file, None, folder)
                return
            gateway = self._gateways[cell.front, cell.body]
            base = gateway.url("s3") if cell.way == "endpoint" else f"https://{HOST}"
            proxy = gateway.url("forward") if cell.way == "proxy" else None
            yield Place(base, bucket, DUMMY_KEY, DUMMY_SECRET, gateway.ca_file, proxy, folder)

    def run(self, client: Client, cell: Cell | str) -> Steps:
        """What each step came to, and what the server has then."""
        with self.place(cell) as place:
            steps = client.run(place)
            return steps | (self.stored(place) if client.repeatable else {})

    def stored(self, place: Place) -> Steps:
        """Every object as the server tells of it, past sigward."""
        found: Steps = {}
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=place.bucket):
            for listed in page.get("Contents", []):
                got = self._s3.get_object(Bucket=place.bucket, Key=listed["Key"], ChecksumMode="ENABLED")
                body = got["Body"].read()
                told = {
                    name: value for name, value in got.items() if re.match("Content(Type|Enc|Lang|Disp)|Cache|Expires|Meta|Tag|Check", name)
                }
                # In any order; and rclone gives what it reads from a pipe the time at which it did.
                metadata = sorted(told["Metadata"].items())
                told["Metadata"] = {name: "now" if name == "mtime" and value > NOW else value for name, value in metadata}
                found[f"stored {place.same(listed['Key'])}"] = f"{len(body)} {hashlib.sha256(body).hexdigest()[:16]} {got['ETag']} {told}"
        return found

    def direct(self, client: Client, cell: Cell) -> str:
        """How it goes to the server when it is compared: as SDKs send other bodies over TLS, the same way."""
        return "https" if self.server.name in client.refused else cell.scheme

    def compare(self, client: Client, direct: Steps, cell: Cell) -> Compared:
        through = self.run(client, cell)
        steps = dict.fromkeys([*direct, *through])
        pairs = ((step, direct.get(step, "nothing"), through.get(step, "nothing")) for step in steps)
        differences = tuple(Difference(self.server.name, client.name, cell, *pair) for pair in pairs if pair[1] != pair[2])
        return Compared(self.server.name, client.name, cell, len(steps), differences)

    def run_all(self, clients: Iterable[Client], cells: Iterable[Cell], workers: int) -> Iterator[Compared]:
        """Each client in each cell."""
        clients, cells = tuple(clients), tuple(cells)
        self.start(cells)
        with ThreadPoolExecutor(workers) as pool:
            wanted = dict.fromkeys((client, self.direct(client, cell)) for client in clients for cell in cells)
            directs = {(client.name, scheme): pool.submit(self.run, client, scheme) for client, scheme in wanted}

            def compare(client: Client, cell: Cell) -> Compared:
                return self.compare(client, directs[client.name, self.direct(client, cell)].result(), cell)

            # Submitted after all that they wait for.
            jobs = [pool.submit(compare, client, cell) for client in clients for cell in cells]
            try:
                for job in jobs:
                    yield job.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
