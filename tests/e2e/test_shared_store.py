"""A store of shared limits that is wrong: what stands in it, what it refuses, and what it answers."""

import asyncio
import contextlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from sigward import _core
from tests.bench.bench_fleet import ROOT, Counting
from tests.support import KEY, SECRET, counted

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")
real = pytest.mark.skipif(SERVER is None, reason="there is no redis-server")

LIMIT, SHARE = 50, 0.125
RESERVED, WARM_UP, MOST = 1500, 400, 1024
HOUR = 3_600_000
SCRIPT = (ROOT / "rust" / "engine" / "src" / "lease.lua").read_text()


class RedisError(Exception):
    """What the store refuses."""


class Redis:
    """A store, and a connection of the test's own to it."""

    def __init__(self, directory: Path) -> None:
        path = directory / "store"
        self.url = f"redis+unix://{path}"
        assert SERVER
        command = [SERVER, "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no", "--dir", str(directory)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.socket = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + 20
        while True:
            try:
                self.socket.connect(str(path))
                break
            except OSError:
                assert time.monotonic() < end, "the store does not start"
                time.sleep(0.01)
        self.file = self.socket.makefile("rb")

    def close(self) -> None:
        self.file.close()
        self.socket.close()
        self.process.kill()
        self.process.wait()

    def ask(self, *words: object) -> Any:
        """One command."""
        spelt = [str(word).encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(spelt) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in spelt))
        return self._answer()

    def _answer(self) -> Any:
        line = self.file.readline()[:-2].decode()
        kind, rest = line[0], line[1:]
        if kind == "-":
            raise RedisError(rest)
        if kind == ":":
            return int(rest)
        if kind == "*":
            return [str(self._answer()) for _ in range(int(rest))]
        if kind == "$":
            return None if rest == "-1" else self.file.read(int(rest) + 2)[:-2].decode()
        return rest

    def now(self) -> int:
        seconds, micros = self.ask("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def entries(self, key: str) -> dict[str, str]:
        told = self.ask("HGETALL", key)
        return dict(zip(told[::2], told[1::2], strict=True))

    def lease(self, key: str, demand: float = LIMIT, held: float = 0) -> tuple[float, float, int]:
        """(leased, due, invalid)."""
        leased, due, invalid = self.ask("EVAL", SCRIPT, 1, key, "me", LIMIT, demand, held, RESERVED, WARM_UP, MOST)
        return float(leased), float(due), int(invalid)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    running = Redis(tmp_path_factory.mktemp("redis"))
    yield running
    running.close()


@pytest.mark.parametrize(
    ("others", "demand", "due"),
    [([], 45, 45), ([], 30, 30), ([25], 20, 20), ([10], 50, 40), ([5, 15], 25, 25), ([5, 30], 30, 22.5), ([50, 50, 50], 50, 12.5)],
)
def test_small_demands_are_met_and_large_ones_share_what_is_left(redis: Redis, others: list[float], demand: float, due: float) -> None:
    redis.ask("DEL", "fair")
    now = redis.now()
    entries = [word for number, wanted in enumerate(others) for word in (f"other{number}", f"0 {wanted} {now + RESERVED}")]
    redis.ask("HSET", "fair", "#", now - HOUR, *entries)
    leased, fair, _ = redis.lease("fair", demand)
    assert (leased, fair) == (due, due)


# name: (commands that write to KEY, where NOW is the store's clock in ms; what is leased at once of LIMIT)
NONSENSE: dict[str, tuple[list[list[str]], float]] = {
    "without end": ([["HSET", "KEY", "a", "inf inf inf"]], LIMIT),
    "no number": ([["HSET", "KEY", "a", "nan nan NOW+1000"]], LIMIT),
    "no number to wait for": ([["HSET", "KEY", "a", "10 nan NOW+1000"]], LIMIT),
    "negative": ([["HSET", "KEY", "a", "-1000 5 NOW+1000"]], LIMIT),
    "empty": ([["HSET", "KEY", "a", ""]], LIMIT),
    "long": ([["HSET", "KEY", "a", "1" * 10_000]], LIMIT),
    "words": ([["HSET", "KEY", "a", "{} [] null"]], LIMIT),
    "an entry from the future": ([["HSET", "KEY", "a", f"20 20 NOW+{HOUR}"]], LIMIT - 20),
    "a huge one from the future": ([["HSET", "KEY", "a", f"1e308 1e308 NOW+{HOUR}"]], 0),
    "for ever": ([["HSET", "KEY", "a", "20 20 1e300"]], LIMIT - 20),
    "begun in the future": ([["HSET", "KEY", "#", f"NOW+{HOUR}"]], 0),
    "begun without end": ([["HSET", "KEY", "#", "inf"]], 0),
    "begun as no number": ([["HSET", "KEY", "#", "nan"]], 0),
    "a text": ([["DEL", "KEY"], ["SET", "KEY", "x"]], 0),
    "a list": ([["DEL", "KEY"], ["RPUSH", "KEY", "x"]], 0),
    "thousands": ([["HSET", "KEY", *(word for number in range(5000) for word in (f"f{number}", "0.01 0.01 NOW+1000"))]], 0),
}


def write(store: Redis, key: str, commands: list[list[str]]) -> None:
    now = store.now()
    for command in commands:
        words = []
        for word in command:
            before, told, later = word.partition("NOW+")
            words.append(f"{before}{now + int(later)}" if told else word.replace("KEY", key))
        store.ask(*words)


@real
@pytest.mark.fault("the shared store holds what cannot be right", holds="it counts for one lease at most, and does not stay")
@pytest.mark.parametrize("kind", NONSENSE)
def test_what_cannot_be_right_counts_for_nothing(redis: Redis, kind: str) -> None:
    commands, leased = NONSENSE[kind]
    key = f"sigward:pace:{kind}"
    redis.ask("HSET", key, "#", redis.now() - 10_000)
    write(redis, key, commands)
    told = redis.lease(key)
    assert (told[0], told[2] > 0) == (leased, True), told
    entries = redis.entries(key)
    assert len(entries) <= 3
    assert int(entries.pop("#")) <= redis.now()
    assert all(int(entry.split()[2]) <= redis.now() + RESERVED for entry in entries.values())
    assert redis.lease(key)[2] == 0, "once"
    # After a warm-up, those who hold something keep it.
    if leased == 0 and kind != "a huge one from the future":
        assert redis.lease(key, held=30)[0] == 30


@real
def test_peers_of_other_limits_are_believed_up_to_this_one(redis: Redis) -> None:
    """While settings change from one sidecar to the next."""
    now = redis.now()
    redis.ask("HSET", "sigward:pace:other", "#", now - 10_000, "a", f"10 1000 {now + 1000}", "b", f"0 1e12 {now + 1000}")
    leased, due, invalid = redis.lease("sigward:pace:other")
    assert (round(leased, 6), round(due, 6), invalid) == (round(LIMIT / 3, 6), round(LIMIT / 3, 6), 0)


class Member:
    """One sidecar whose clients always want more than the limit."""

    def __init__(self, upstream: int, store: str, **more: object) -> None:
        rule = {"operation": "dynamodb:ListTables", "rate": LIMIT, "burst": 1}
        routes = [{"host": "*.amazonaws.com", "upstream": f"http://127.0.0.1:{upstream}"}]
        pace = {"rules": [rule], "shared": store, "share": SHARE}
        self.engine = _core.Engine(json.dumps({"routes": routes, "pace": pace} | more))
        self.engine.set_credentials("default", KEY, SECRET, None, None, "test")
        self.statuses: Counter[object] = Counter()
        self.log: list[str] = []
        self.jobs: dict[int, _core.Job] = {}

    def metric(self, name: str) -> float:
        return counted(self.engine.metrics(), f"sigward_pace_store_{name}")

    def said(self, words: str) -> int:
        return sum(words in line for line in self.log)

    def turn(self) -> None:
        headers = [(b"x-amz-target", b"DynamoDB_20120810.ListTables"), (b"host", b"dynamodb.us-east-1.amazonaws.com")]
        place = ("dynamodb.us-east-1.amazonaws.com", 443, b"/")
        while len(self.jobs) < 24:
            job = self.engine.submit(_core.ENTRY_REVERSE, b"POST", b"https", *place, headers, b"", "client")
            self.jobs[job.id] = job
        for event in self.engine.poll():
            if event[0] == _core.EVENT_LOG:
                self.log.append(str(event[3]))
            elif event[0] in (_core.EVENT_RESPONSE, _core.EVENT_FAILED):
                self.statuses[event[3] if event[0] == _core.EVENT_RESPONSE else "failed"] += 1
                self.jobs.pop(int(str(event[1])), None)

    async def until(self, come: Callable[[], object], what: str) -> None:
        """Clients go on asking until then."""
        end = time.monotonic() + 30
        while not come():
            assert time.monotonic() < end, f"never: {what}; {self.log} {self.statuses}"
            self.turn()
            await asyncio.sleep(0.005)

    async def serves(self, calls: int = 2) -> None:
        before = self.statuses[200]
        await self.until(lambda: self.statuses[200] >= before + calls, "calls are served")

    def close(self) -> None:
        for job in self.jobs.values():
            job.cancel()
        self.engine.close()


@pytest.fixture
async def member() -> AsyncIterator[Callable[..., Member]]:
    upstream = await asyncio.get_running_loop().create_server(Counting, "127.0.0.1", 0)
    members: list[Member] = []

    def begin(store: str, **more: object) -> Member:
        members.append(Member(upstream.sockets[0].getsockname()[1], store, **more))
        return members[-1]

    yield begin
    for one in members:
        one.close()
    upstream.close()


def leased(store: Redis) -> "Callable[[], float]":
    """What the only sidecar has of the limit, as the store has it."""

    def told() -> float:
        keys = store.ask("KEYS", "sigward:pace:dynamodb*")
        with contextlib.suppress(RedisError):
            return sum(float(entry.split()[0]) for key in keys for name, entry in store.entries(key).items() if len(name) == 32)
        return 0

    return told


@real
@pytest.mark.fault("the shared store holds nonsense while sidecars run", holds="no call is refused; one warning, and a metric")
async def test_nonsense_under_a_running_sidecar(redis: Redis, member: Callable[..., Member]) -> None:
    redis.ask("FLUSHALL")
    one = member(redis.url)
    has = leased(redis)
    await one.until(lambda: has() == LIMIT, "it has the limit to itself")
    key = redis.ask("KEYS", "sigward:pace:dynamodb*")[0]
    for kind in ("a list", "thousands", "begun in the future", "no number", "a huge one from the future"):
        before = one.metric("invalid_total")
        write(redis, key, NONSENSE[kind][0])
        await one.until(lambda before=before: one.metric("invalid_total") > before and has() == LIMIT, f"it copes with {kind}")  # type: ignore[misc]
        await one.serves()
    assert set(one.statuses) == {200}
    assert (one.metric("up"), one.metric("unusable_limits")) == (1, 0)
    assert one.said("cannot be right") == len(one.log) == 1, one.log


@real
@pytest.mark.long
@pytest.mark.fault("somebody else takes all of a shared limit, for ever", holds="the sidecar keeps to its share, says so, and comes back")
async def test_a_limit_of_which_nothing_is_granted(redis: Redis, member: Callable[..., Member]) -> None:
    redis.ask("FLUSHALL")
    one = member(redis.url)
    has = leased(redis)
    await one.until(lambda: has() == LIMIT, "it has the limit to itself")
    key = redis.ask("KEYS", "sigward:pace:dynamodb*")[0]

    def greedily(come: Callable[[], bool]) -> Callable[[], bool]:
        def after() -> bool:
            redis.ask("HSET", key, "greedy", f"1e9 1e9 {redis.now() + 1000}")
            return come()

        return after

    await one.until(greedily(lambda: one.metric("unusable_limits") == 1), "it falls back")
    before = one.statuses[200]
    await one.until(greedily(lambda: one.statuses[200] >= before + 5), "calls are served")
    await one.until(lambda: one.said("grants what is due again") and has() == LIMIT, "it comes back")
    assert one.metric("unusable_limits") == 0
    assert set(one.statuses) == {200}
    assert [one.said("grants nothing"), one.said("grants what is due again"), len(one.log)] == [1, 1, 2], one.log


@real
@pytest.mark.fault("the shared store refuses, waits or forgets", holds="calls go on, one warning names the cause, and leases come back")
async def test_a_store_that_refuses(redis: Redis, member: Callable[..., Member]) -> None:
    redis.ask("FLUSHALL")
    one = member(redis.url)
    has = leased(redis)
    await one.until(lambda: has() == LIMIT, "it has the limit to itself")
    redis.ask("SCRIPT", "FLUSH")
    redis.ask("FLUSHALL")
    await one.until(lambda: has() > 0, "the script is loaded again")
    assert (one.log, one.metric("errors_total")) == ([], 0)
    refusals: list[tuple[str, list[list[object]], list[list[object]]]] = [
        ("(READONLY)", [["REPLICAOF", "127.0.0.1", "1"]], [["REPLICAOF", "NO", "ONE"]]),
        ("(OOM)", [["CONFIG", "SET", "maxmemory", "1"]], [["CONFIG", "SET", "maxmemory", "0"]]),
        ("(NOPERM)", [["ACL", "SETUSER", "default", "-evalsha"]], [["ACL", "SETUSER", "default", "+evalsha"]]),
        (
            # Its connection is cut first.
            "(I/O error)",
            [["CONFIG", "SET", "requirepass", "x"], ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]],
            [["CONFIG", "SET", "requirepass", ""]],
        ),
        ("(I/O error)", [["CLIENT", "PAUSE", "600", "ALL"]], []),
    ]
    for word, refuse, allow in refusals:
        one.log.clear()
        before = one.metric("errors_total")
        for command in refuse:
            redis.ask(*command)
        await one.until(lambda: one.said("is away") == 1, f"it is away: {word}")
        assert word in one.log[0]
        assert one.metric("errors_total") > before
        await one.until(lambda: one.metric("up") == 0, "the metric says so")
        await one.serves()
        for command in allow:
            redis.ask(*command)
        await one.until(lambda: one.said("is back") == 1 and one.metric("up") == 1 and has() == LIMIT, f"it is back: {word}")
        assert len(one.log) == 2, one.log
    assert set(one.statuses) == {200}


Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def endless(first: bytes, rest: bytes) -> Answering:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(rest * (65536 // len(rest)))
            await writer.drain()

    return answer


async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"$2000000000\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


def each(line: bytes) -> Answering:
    """To every command."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line * 2)
        while data := await reader.read(65536):
            writer.write(line * len(re.findall(rb"\*\d+\r\n\$", data)))
            await writer.drain()

    return answer


LONG = "its answer is too long"
ANSWERS: dict[str, tuple[Answering, str]] = {
    "$2000000000": (endless(b"$2000000000\r\n", b"x"), LONG),
    "an array without end": (endless(b"*2000000000\r\n", b":1\r\n"), LONG),
    "an error without end": (endless(b"-", b"x"), LONG),
    "a line without end": (endless(b"+", b"x"), LONG),
    "a deep array": (endless(b"", b"*1\r\n"), ""),
    "pushes without end": (endless(b"", b">2\r\n+message\r\n+x\r\n"), ""),
    "a drip": (drip, ""),
    "LOADING": (each(b"-LOADING Redis is loading the dataset in memory\r\n"), "(LOADING)"),
    "MOVED": (each(b"-MOVED 3999 127.0.0.1:6381\r\n"), "(MOVED)"),
    "NOSCRIPT": (each(b"-NOSCRIPT No matching script\r\n"), "(NOSCRIPT)"),
    "an answer of another kind": (each(b"*3\r\n+a\r\n+b\r\n+c\r\n"), ""),
}


@contextlib.asynccontextmanager
async def answering(answer: Answering, sent: list[int], context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A store that answers like this: its port, and when it has been let go. `sent`: the bytes that each connection took."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(sent)
        sent.append(0)
        # What is taken is what the buffers of the system hold, and no more.
        writer.transport.set_write_buffer_limits(high=0)
        write = writer.write

        def counting(data: bytes) -> None:
            sent[number] += len(data)
            write(data)

        writer.write = counting  # type: ignore[method-assign,assignment]
        with contextlib.suppress(OSError):
            await reader.read(65536)
            await answer(reader, writer)
        ended.set()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], ended
    finally:
        server.close()


@pytest.mark.fault(
    "the shared store answers without end, slowly, or nonsense", holds="it is read to a bound and closed; calls go on by share"
)
async def test_answers_of_a_store_are_bounded(member: Callable[..., Member], tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("localhost").configure_cert(context)
    trusted = {"ca_files": [str(tmp_path / "ca.pem")], "system_roots": False}
    sent: list[int] = []

    async def check(kind: str, tls: ssl.SSLContext | None) -> None:
        answer, word = ANSWERS[kind]
        async with answering(answer, sent, tls) as (port, ended):
            one = member(f"redis{'s' if tls else ''}://localhost:{port}", tls=trusted, threads=1)
            await one.until(lambda: one.said("is away") == 1, f"it is away: {kind}")
            # A machine that is busy may be late before it is too long.
            assert any(why in one.log[0] for why in (word, "no connection in time", "I/O error")), (kind, one.log)
            await one.serves(1)
            await one.until(ended.is_set, "the connection is let go")
            assert (set(one.statuses), len(one.log)) == ({200}, 1), one.log
            one.close()

    by_tls = [kind for kind in ANSWERS if kind.startswith(("$", "an array"))]
    await asyncio.gather(*(check(kind, None) for kind in ANSWERS))
    await asyncio.gather(*(check(kind, context) for kind in by_tls))
    assert max(sent) < 16 << 20, "of 2 GB"


@pytest.mark.fault("the shared store leases what is no rate", holds="the sidecar keeps to its share, and says so")
async def test_rates_that_are_none(member: Callable[..., Member]) -> None:
    async def check(rate: bytes) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"+OK\r\n" * 2)
            while data := await reader.read(65536):
                told = b"*3\r\n$%d\r\n%s\r\n$1\r\n5\r\n:0\r\n" % (len(rate), rate)
                writer.write(told * data.count(b"EVALSHA") + b"+OK\r\n" * data.count(b"SCRIPT\r\n"))
                await writer.drain()

        async with answering(answer, []) as (port, _):
            one = member(f"redis://localhost:{port}", threads=1)
            await one.until(lambda: one.said("or no rate"), f"it falls back: {rate!r}")
            await one.serves(1)
            assert (one.metric("up"), one.metric("unusable_limits"), set(one.statuses)) == (1, 1, {200})
            assert one.metric("invalid_total") > 0
            assert (one.said("cannot be right"), len(one.log)) == (1, 2), one.log
            one.close()

    await asyncio.gather(*map(check, (b"nan", b"inf", b"-5", b"1e9")))
