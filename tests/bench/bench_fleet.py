"""Eight processes with one Redis share 1,000 calls a second; the store is killed for ten seconds and comes back.

`python -m tests.bench.bench_fleet`. The upstream counts: arrivals in every window of one second, in steps of 10 ms.
"""

import asyncio
import bisect
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT, MEMBERS, CONCURRENCY = 1000, 8, 64
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Counting(asyncio.Protocol):
    """Answers every request at once and notes when it came."""

    arrivals: list[float] = []  # noqa: RUF012 - one for all connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.seen = b""

    def data_received(self, data: bytes) -> None:
        self.seen += data
        while (end := self.seen.find(b"\r\n\r\n")) >= 0:
            # The requests have no body.
            self.seen = self.seen[end + 4 :]
            self.arrivals.append(time.monotonic())
            self.transport.write(OK)  # type: ignore[attr-defined]


def settings(upstream: int, store: int, **more: object) -> str:
    """A member's."""
    rule = {"operation": "dynamodb:ListTables", "rate": LIMIT, "burst": 1}
    return json.dumps(
        {
            "routes": [{"host": "*.amazonaws.com", "upstream": f"http://127.0.0.1:{upstream}"}],
            "pace": {"rules": [rule], "shared": f"redis://127.0.0.1:{store}", "share": 1 / MEMBERS, "places": 100_000} | more,
        }
    )


def redis(port: int, directory: str) -> "subprocess.Popen[bytes]":
    """A server of one's own, that keeps nothing."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    assert program, "redis-server is not installed"
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def windows(arrivals: list[float], start: float, end: float) -> tuple[int, float]:
    """(most in a second, mean a second)."""
    inside = [at for at in arrivals if start <= at < end]
    most = 0
    at = start
    while at + 1 <= end:
        most = max(most, bisect.bisect_left(inside, at + 1) - bisect.bisect_left(inside, at))
        at += 0.01
    return most, len(inside) / (end - start)


async def run(seconds: float, killed: tuple[float, float] | None = None) -> tuple[list[float], float, list[dict[str, object]]]:
    """(arrivals, when it began, what the members tell)."""
    loop = asyncio.get_running_loop()
    Counting.arrivals = []
    server = await loop.create_server(Counting, "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    probe = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    store_port = probe.sockets[0].getsockname()[1]
    probe.close()
    with tempfile.TemporaryDirectory() as directory:
        store = redis(store_port, directory)
        command = [sys.executable, "-m", "tests.bench.fleet_member", settings(port, store_port), str(seconds), str(CONCURRENCY)]
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
        root = ROOT
        members = [await asyncio.create_subprocess_exec(*command, cwd=root, **pipes) for _ in range(MEMBERS)]
        for member in members:
            assert member.stdout
            assert await member.stdout.readline() == b"ready\n"
        began = time.monotonic()
        for member in members:
            assert member.stdin
            member.stdin.write(b"go\n")
        if killed:
            await asyncio.sleep(killed[0])
            store.kill()
            store.wait()
            await asyncio.sleep(killed[1])
            store = redis(store_port, directory)
        told = [json.loads((await member.communicate())[0]) for member in members]
        store.terminate()
        store.wait()
    server.close()
    return Counting.arrivals, began, told


def main() -> None:
    """Prints the table."""
    arrivals, began, told = asyncio.run(run(15))
    most, mean = windows(arrivals, began + 2, began + 15)
    print(f"{MEMBERS} members, {LIMIT}/s: most in a second {most / LIMIT:.3f} (goal ≤ 1.02), used {mean / LIMIT:.3f} (goal ≥ 0.95)")
    print(f"  refused {sum(int(str(one['refused'])) for one in told)}, failed {sum(int(str(one['failed'])) for one in told)}")
    arrivals, began, told = asyncio.run(run(25, (5, 10)))
    most, mean = windows(arrivals, began + 2, began + 25)
    print(f"store killed for 10 s and back: most in a second {most / LIMIT:.3f} (goal ≤ 1.1), used {mean / LIMIT:.3f}")
    print(f"  refused {sum(int(str(one['refused'])) for one in told)}, failed {sum(int(str(one['failed'])) for one in told)}")
    print("  log:", *sorted({line for one in told for line in one["log"]}), sep="\n    ")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
