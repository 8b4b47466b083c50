"""Calls that must not be done twice, while upstream, Redis and sigward are killed at random; counted where they are carried out.

A run says its seed. `SIGWARD_TEST_SEED=… pytest …` repeats the same kills after the same numbers of calls.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import secrets
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from sigward.demo.child import Child, clean_environment
from tests.audit import Line
from tests.far import ROOT
from tests.ledger import FATES
from tests.support import KEY, SECRET, read_response

REDIS = shutil.which("redis-server") or shutil.which("valkey-server")
pytestmark = pytest.mark.skipif(REDIS is None, reason="there is no redis-server: apt-get install redis-server")

HOST = "sqs.us-east-1.amazonaws.com"
CLIENTS = 16
PATIENCE = 60.0
ORDERLY = {"SIGTERM": [signal.SIGTERM], "a second SIGTERM": [signal.SIGTERM, signal.SIGTERM]}
KILLS = ("upstream", "Redis", "SIGHUP", "SIGKILL")

CONFIG = """
front = "{front}"
listen = "off"
admin = "off"
grace = "500ms"
ca_dir = "{directory}/ca"
audit_log = "{directory}/audit.log"
retry = {{ base = "1ms", throttle_base = "1ms" }}
circuit = {{ failures = 0 }}
pacing = {{ shared = "redis://127.0.0.1:{redis}" }}
tls = {{ ca_files = ["{directory}/ca.pem"], system_roots = false }}

[[reverse]]
listen = "127.0.0.1:{sigward}"

[[pace]]
operation = "sqs:*"
rate = 100000
burst = 100000

[[route]]
host = "*.amazonaws.com"
connect = "127.0.0.1:{upstream}"
"""


@contextlib.contextmanager
def reserved() -> Iterator[int]:
    """A port of 127.0.0.1 that nobody else is given, and that a listener may have again and again."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


class World:
    """Upstream, Redis and sigward, each a process that is started again on its own port. `ends`: how each life of sigward has ended."""

    def __init__(self, front: str, directory: Path, ports: dict[str, int]) -> None:
        self.directory = directory
        self.ports = ports
        self.ends: list[str] = []
        self.rotations = 0
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(directory / "ca.pem"))
        ca.issue_cert("*.us-east-1.amazonaws.com").private_key_and_cert_chain_pem.write_to_path(str(directory / "upstream.pem"))
        self.log = directory / "audit.log"
        (directory / "sigward.toml").write_text(CONFIG.format(front=front, directory=directory, **ports))
        self.environment = clean_environment() | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "python")])}
        self.upstream = self.start_upstream()
        self.redis = self.start_redis()
        self.sigward = self.start_sigward()

    def start_upstream(self) -> Child:
        command = [sys.executable, "-m", "tests.ledger", str(self.directory), str(self.ports["upstream"])]
        child = Child(command, self.environment, ROOT)
        child.wait_for("^listening$")
        return child

    def start_redis(self) -> Child:
        assert REDIS is not None
        command = [REDIS, "--port", str(self.ports["redis"]), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.directory)]
        child = Child(command, self.environment, self.directory)
        child.wait_for("Ready to accept connections")
        return child

    def start_sigward(self) -> Child:
        command = [sys.executable, "-m", "sigward", "serve", "--config", str(self.directory / "sigward.toml")]
        keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
        child = Child(command, self.environment | keys, self.directory)
        child.wait_for("listening ")
        return child

    def rotate(self) -> None:
        """The log's file gets another name."""
        with contextlib.suppress(FileNotFoundError):
            self.log.rename(self.directory / f"audit.{len(self.ends)}.{self.rotations}")
        self.rotations += 1

    def kill(self, what: str) -> None:
        """Does so, and starts again what has ended."""
        if what == "upstream":
            self.upstream.stop(signal.SIGKILL)
            self.upstream = self.start_upstream()
        elif what == "Redis":
            self.redis.stop(signal.SIGKILL)
            self.redis = self.start_redis()
        elif what == "SIGHUP":
            self.rotate()
            self.sigward.process.send_signal(signal.SIGHUP)
        else:
            self.end_sigward(what)
            self.sigward = self.start_sigward()

    def end_sigward(self, how: str) -> None:
        signals = ORDERLY.get(how, [signal.SIGKILL])
        for number in signals:
            self.sigward.process.send_signal(number)
            if how in ORDERLY:
                self.sigward.wait_for("stopping: ")
        status = self.sigward.process.wait(PATIENCE)
        # Before the second one has come, it may have ended in order.
        assert status in {"SIGTERM": (0,), "a second SIGTERM": (0, 1), "SIGKILL": (-signal.SIGKILL,)}[how]
        self.sigward.stop()
        self.rotate()
        self.ends.append(how)

    def lines(self, life: int) -> list[Line]:
        """The audit log of one life. What a killed process was about to write may be there in part."""
        told = []
        for path in self.directory.glob(f"audit.{life}.*"):
            for line in path.read_bytes().splitlines(keepends=True):
                if self.ends[life] == "SIGKILL" and not line.endswith(b"\n"):
                    continue
                told.append(json.loads(line))
        return told

    def close(self) -> None:
        for child in (self.sigward, self.redis, self.upstream):
            child.stop(signal.SIGKILL)


@pytest.fixture(params=["mitmproxy", "native"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with reserved() as upstream, reserved() as redis, reserved() as sigward:
        running = World(request.param, tmp_path, {"upstream": upstream, "redis": redis, "sigward": sigward})
        try:
            yield running
        finally:
            running.close()


@dataclass
class Calls:
    """What clients have sent, each path once. `answers`: status and attempts; None: none came."""

    port: int
    chance: random.Random
    left: Iterator[int]
    answers: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    progress: asyncio.Condition = field(default_factory=asyncio.Condition)

    def next(self) -> bytes | None:
        """A request: one in eight only reads."""
        number = next(self.left, None)
        if number is None:
            return None
        fate = self.chance.choices(FATES, [70, 6, 6, 6, 6, 6])[0]
        operation = "ListQueues" if number % 8 == 0 else "SendMessage"
        path = f"/{fate}/{operation.lower()}/{number}"
        body = b'{"QueueUrl": "https://sqs.us-east-1.amazonaws.com/1/q", "MessageBody": "once"}'
        self.answers[path] = None
        return (
            f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nX-Amz-Target: AmazonSQS.{operation}\r\n"
            f"Content-Type: application/x-amz-json-1.0\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    async def client(self) -> None:
        """Sends one after the other; who is cut off comes again, with the next."""
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                # Nobody is there yet; nothing was sent.
                await asyncio.sleep(0.02)
                continue
            try:
                async with asyncio.timeout(PATIENCE):
                    while (raw := self.next()) is not None:
                        writer.write(raw)
                        response = await read_response(reader)
                        path = raw.split(b" ")[1].decode()
                        self.answers[path] = (response.status, int(response.get("x-sigward-attempts") or 0))
                        async with self.progress:
                            self.progress.notify_all()
                        if response.get("connection") == "close":
                            break
                    else:
                        return
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

    async def reach(self, count: int) -> None:
        """Waits until so many calls were sent."""
        async with self.progress:
            await self.progress.wait_for(lambda: len(self.answers) >= count)


async def run(world: World, calls: Calls, kills: list[str], count: int) -> None:
    """Sends so many calls while that is killed, after as many calls each time."""
    clients = [asyncio.create_task(calls.client()) for _ in range(CLIENTS)]
    for number, kill in enumerate(kills, 1):
        await asyncio.wait_for(calls.reach(number * count // (len(kills) + 1)), PATIENCE)
        await asyncio.to_thread(world.kill, kill)
    await asyncio.wait_for(asyncio.gather(*clients), PATIENCE)
    await asyncio.to_thread(world.end_sigward, "SIGTERM")


HOLDS = "a call that must not be repeated is carried out once at most; each answer 200 was; each call has its audit line"


@pytest.mark.fault("upstream, Redis and sigward are killed under load (300 POSTs)", holds=HOLDS)
async def test_nothing_is_done_twice(world: World) -> None:
    await check(world, 300, KILLS)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.fault("upstream, Redis and sigward are killed at random, 60 times (10,000 POSTs)", holds=HOLDS)
async def test_nothing_is_done_twice_of_10_000(world: World) -> None:
    await check(world, 10_000, (*KILLS, *ORDERLY) * 10)


async def check(world: World, count: int, kills: tuple[str, ...]) -> None:
    """Sends so many POSTs, kills these in any order, and counts."""
    seed = int(os.environ.get("SIGWARD_TEST_SEED") or secrets.randbits(32))
    print(f"seed: {seed}")
    chance = random.Random(seed)
    calls = Calls(world.ports["sigward"], chance, iter(range(count)))
    await run(world, calls, chance.sample(kills, len(kills)), count)
    executed = Counter((world.directory / "ledger").read_text().splitlines())
    answers = calls.answers
    assert len(answers) == count
    assert executed.keys() <= answers.keys()
    sends = {path for path in answers if "/sendmessage/" in path}
    assert {path: times for path, times in executed.items() if path in sends and times > 1} == {}, "carried out more than once"
    assert {path for path, answer in answers.items() if answer and answer[0] == 200} <= executed.keys(), "answered and not carried out"
    told = [world.lines(life) for life in range(len(world.ends))]
    before = [{line["call_id"]: line["path"] for line in lines if line.get("begun")} for lines in told]
    assert executed.keys() <= set(itertools.chain.from_iterable(one.values() for one in before)), "not in the audit log"
    for end, lines, begun in zip(world.ends, told, before, strict=True):
        ended = [line["call_id"] for line in lines if "call_id" in line and not line.get("begun")]
        assert len(ended) == len(set(ended))
        # What a killed process had told it was about to do may have no end.
        assert set(ended) <= begun.keys()
        assert end == "SIGKILL" or set(ended) == begun.keys(), end
    # It would be seen: what may be repeated is, and there was reason to repeat the rest. Of few calls, none that only reads need be in
    # flight when something is killed.
    assert count < 10_000 or max(times for path, times in executed.items() if path not in sends) > 1
    assert any(answer and answer[0] == 200 and answer[1] > 1 for path, answer in answers.items() if path in sends), (
        "throttled, then sent again"
    )
    assert any(not answer or answer[0] != 200 for path, answer in answers.items() if path in sends and path in executed)
