"""Ten minutes through each front in which 300 days pass, and everything around sigward comes and goes.

`python -m tests.bench.soak`. The clock is moved forward in steps; SIGHUP every five seconds, each with another upstream, the last of which
is killed; every third time the upstream is killed and comes back at its place; credentials live 60 s; Redis is killed and comes back.
Fails if a call that an upstream answered did not succeed, if anything was executed twice, if a call failed for another reason than its
upstream, if the audit log lacks a call, or if memory or descriptors grow. Needs redis-server.
"""

import argparse
import json
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import trustme

from sigward.demo.child import Child, clean_environment
from sigward.demo.gateway import Gateway, settings_file
from tests.bench.bench_fleet import redis
from tests.bench.counted import HOSTS, KEY, Moved
from tests.bench.generators import MIB
from tests.bench.harness import ROOT, Proxy, Table, finish, free_port, parser
from tests.bench.saturation import FRONTS, MOST_GROWTH, Soaked, settled
from tests.moved_clock import MovedClock

DAYS = 300
DAY = 86_400.0
LIFETIME = 60
"""Seconds that keys live."""
RELOAD = 5.0
"""Seconds between two SIGHUPs."""
STEP = 10.0
"""Seconds between two steps of the clock, at most: a short run has four."""
REDIS = 20.0
"""Seconds from one restart of Redis to the next; it is away for one of them."""
WARM = 3.0
"""Seconds of load before descriptors are counted first."""
LONG = 120.0
"""Seconds of a run that says something about memory."""
EXPECTED = {"502 connect-failed", "502 connection-broken", "503 circuit-open"}
"""What a client is told while no upstream is there."""
READ = "settings and credentials are read anew"


class Clock:
    """sigward's, its clients', its upstreams' and its credentials'."""

    def __init__(self, directory: Path) -> None:
        self.ahead = 0.0
        self._file = directory / "clock.json"
        self._moved = MovedClock(directory)
        self.environment = self._moved.environment
        Moved().write(self._file)

    def step(self, seconds: float) -> None:
        """Everybody is so much further ahead."""
        before, self.ahead = self.ahead, self.ahead + seconds
        Moved(self.ahead, before, time.time()).write(self._file)
        self._moved.move(self.ahead)


@contextmanager
def credentials(clock: Clock) -> Iterator[dict[str, str]]:
    """A container's credentials, as the SDKs' reference has it ('Container credential provider'); keys live `LIFETIME`."""
    token = secrets.token_hex(8)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("authorization") != token:
                return self.send_error(401)
            expires = int(time.time() + clock.ahead) + LIFETIME
            keys = {"AccessKeyId": f"{KEY}{expires}", "SecretAccessKey": "s" * 40, "Token": "t" * 100}
            body = json.dumps(keys | {"Expiration": datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            return self.wfile.write(body) and None

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/keys"
        yield {"AWS_CONTAINER_CREDENTIALS_FULL_URI": url, "AWS_CONTAINER_AUTHORIZATION_TOKEN": token}
        server.shutdown()


class Store:
    """A Redis."""

    def __init__(self, directory: Path) -> None:
        self.port, self._directory = free_port(), str(directory)

    def start(self) -> None:
        """At its port."""
        self._process = redis(self.port, self._directory)

    def kill(self) -> None:
        """As a crash does."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Far:
    """An upstream, as `Gateway` wants it: see `counted`."""

    region = "us-east-1"

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.ca_file, self._directory = directory / "upstream-ca.pem", directory
        self.child = counting("upstream", directory, str(port))
        self.port = int(self.child.wait_for(r"^listening (\d+)$")[1])

    def credentials(self) -> dict[str, str]:
        """Of no use here: its keys expire."""
        return {}

    def again(self) -> "Far":
        """It is killed and comes back at its place."""
        self.kill()
        return Far(self._directory, self.port)

    def kill(self) -> None:
        """As a crash does."""
        self.child.stop(signal.SIGKILL)


def counting(role: str, directory: Path, *arguments: str, **environment: str) -> Child:
    """A process of `counted`."""
    return Child([sys.executable, "-m", "tests.bench.counted", role, str(directory), *arguments], clean_environment() | environment, ROOT)


@dataclass
class World:
    """What is around a running sigward."""

    directory: Path
    clock: Clock
    gateway: Gateway
    far: Far
    seconds: float
    soaked: Soaked = field(default_factory=Soaked)
    reloads: int = 0
    asked: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def load(self) -> Child:
        """Begins to ask."""
        addresses = self.gateway.addresses
        arguments = addresses["forward"], addresses["by-host"], str(self.gateway.ca_file)
        child = counting("client", self.directory, *arguments, **self.clock.environment)
        child.wait_for("^running$")
        return child

    def reload(self) -> None:
        """Another upstream, and SIGHUP; the old one is killed when the new settings count. Every third time at its place."""
        self.reloads += 1
        if self.reloads % 3 == 0:
            self.far = self.far.again()
        old, self.far = self.far, Far(self.directory)
        gateway = self.gateway
        before = gateway.child.output().count(READ)
        gateway.config_file.write_text(settings_file(self.far, gateway.directory / "ca", gateway.settings))
        gateway.child.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 30
        while gateway.child.output().count(READ) == before:
            if time.monotonic() > deadline:
                self.soaked.errors.append("SIGHUP was not answered in 30 s")
                break
            time.sleep(0.02)
        old.kill()

    def leave(self) -> None:
        """Ends the upstream."""
        self.far.kill()

    def judge(self) -> None:
        """Compares what the upstreams noted with what arrived."""
        told = json.loads((self.directory / "told.json").read_text())
        executed: Counter[str] = Counter()
        answered: Counter[str] = Counter()
        for line in (self.directory / "journal").read_text().splitlines():
            what, _, call = line.partition(" ")
            if what in "ea":
                (executed if what == "e" else answered)[call] += 1
            else:
                self.refused[what] += 1
        failed: dict[str, str] = told["failed"]
        self.asked = sum(told["asked"].values())
        self.failed = Counter(failed.values())
        asked = {
            f"/{method}/{name}/{number}"
            for name, count in told["asked"].items()
            for number in range(1, count + 1)
            for method in ("get", "post")
        }
        succeeded = (asked & executed.keys()) - failed.keys()
        audited = {json.loads(line)["path"] for line in (self.directory / "audit.log").read_text().splitlines()}
        self.soaked.requests["calls"] = len(succeeded)
        wrong = {
            "calls were answered by the upstream and failed for the client": [call for call in answered if call in failed],
            "calls were executed twice": [call for call, times in executed.items() if times > 1 and call.startswith("/post/")],
            "calls were answered twice": [call for call, times in answered.items() if times > 1],
            "calls succeeded and were not executed": range(self.asked - len(failed) - len(succeeded)),
            "calls failed though it was not for their upstream": [call for call, why in failed.items() if why not in EXPECTED],
            "executed calls are not in the audit log": [call for call in executed if call not in audited],
        }
        for what, calls in wrong.items():
            if calls:
                reasons = Counter(failed[call] for call in calls if call in failed).most_common(3)
                self.soaked.errors.append(f"{len(calls)} {what}: {list(calls)[:3]} {reasons or ''}")
        output = self.gateway.child.output()
        self.soaked.errors += [line for line in output.splitlines() if "Traceback" in line or "panicked" in line][:3]


def soak(front: str, seconds: float) -> World:
    """All of it, through one front."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sigward-soak-")))
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(directory / "upstream-ca.pem"))
        authority.issue_cert(*HOSTS).private_key_and_cert_chain_pem.write_to_path(str(directory / "upstream.pem"))
        clock = Clock(directory)
        store = stack.enter_context(Store(directory))
        keys = stack.enter_context(credentials(clock))
        far = Far(directory)
        gateway = Gateway(
            far, keys | clock.environment, front=front, audit_log=str(directory / "audit.log"), timeouts={"pool_idle": "2s"},
            pacing={"shared": f"redis://127.0.0.1:{store.port}", "share": 1.0}, pace=[{"rate": 100_000.0}], retry={"base": "20ms"},
        )  # fmt: skip
        world = World(directory, clock, stack.enter_context(gateway), far, seconds)
        stack.callback(world.leave)
        gateway.wait_ready()
        process = Proxy("sigward", gateway.child, {}, gateway.ca_file, "")
        warm = world.load()
        time.sleep(WARM)
        end_load(warm)
        world.soaked.idle_before = settled(process, None)
        (directory / "journal").write_text("")
        began = time.monotonic()
        load = world.load()
        ended = threading.Event()

        def sample() -> None:
            """By the second, whatever else goes on."""
            while not ended.wait(1):
                world.soaked.resident.append(process.resident() / MIB)
                world.soaked.descriptors.append(process.descriptors())

        sampler = threading.Thread(target=sample, daemon=True)
        sampler.start()
        steps = max(4, int(seconds / STEP))
        due = {"reload": RELOAD, "step": seconds / (steps + 1), "redis": min(REDIS, seconds / 3), "back": float("inf")}
        while (now := time.monotonic() - began) < seconds:
            if now >= due["step"]:
                clock.step(DAYS * DAY / steps)
                due["step"] += seconds / (steps + 1)
            if now >= due["redis"]:
                store.kill()
                due |= {"redis": due["redis"] + REDIS, "back": now + 1}
            if now >= due["back"]:
                store.start()
                due["back"] = float("inf")
            if now >= due["reload"]:
                world.reload()
                due["reload"] += RELOAD
            time.sleep(0.05)
        ended.set()
        sampler.join()
        end_load(load)
        if round(clock.ahead) != round(DAYS * DAY):
            world.soaked.errors.append(f"only {clock.ahead / DAY:.0f} days have passed")
        world.soaked.idle_after = settled(process, world.soaked.idle_before)
        status = gateway.child.stop()
        if status:
            world.soaked.errors.append(f"sigward ended with status {status}")
        world.judge()
        return world


def end_load(load: Child) -> None:
    """It finishes what it is at."""
    with suppress(BrokenPipeError):
        assert load.process.stdin is not None
        load.process.stdin.close()
    if status := load.process.wait(120):
        raise AssertionError(f"the client ended with status {status}:\n{load.output()[-2000:]}")


def faults(world: World) -> list[str]:
    """Why it fails; a short run says nothing about memory."""
    found = world.soaked.faults()
    return found if world.seconds >= LONG else [fault for fault in found if not fault.startswith("the resident memory grew")]


def flags() -> argparse.ArgumentParser:
    """This one's."""
    made = parser(str(__doc__).splitlines()[0])
    made.add_argument("--seconds", type=float, default=600.0, help="for each front")
    made.add_argument("--front", choices=FRONTS, action="append", help="only this one; may be repeated")
    return made


def main() -> None:
    """Prints the table; ends with status 1 if something was wrong."""
    arguments = flags().parse_args()
    columns = ["", "calls", "without an upstream", "keys refused as expired", "resident after the first minute, MiB", "at the end, MiB"]
    columns += [f"growth (goal ≤ {MOST_GROWTH:.0%})", "descriptors idle, before / after"]
    table = Table(f"Soak: {DAYS} days in {arguments.seconds:,.0f} s", columns, readme=False)
    wrong: list[str] = []
    for front in arguments.front or FRONTS:
        world = soak(front, arguments.seconds)
        soaked = world.soaked
        before, after = (sorted(window)[len(window) // 2] for window in soaked.windows())
        expired = world.refused["ExpiredTokenException"]
        idle = f"{soaked.idle_before} / {soaked.idle_after}"
        row = [
            f"{world.asked:,}",
            f"{sum(world.failed.values()):,}",
            f"{expired:,}",
            f"{before:.1f}",
            f"{after:.1f}",
            f"**{soaked.grown:.1%}**",
            idle,
        ]
        table.rows.append([f"{front} front", *row])
        print(front, dict(world.failed), dict(world.refused), file=sys.stderr)
        wrong += [f"{front}: {fault}" for fault in faults(world)]
    finish([table], arguments)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
