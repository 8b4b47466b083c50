"""The native front against nginx's plain `proxy_pass`: requests a CPU-second and a second, latency, memory, start, cost as work grows.

nginx, sigward and the proxies that `SIGWARD_PEER` names (`name=command`, several with `;;` between; see `rivals.peer`) run on CPU 0, the
upstream (nginx behind TLS) and the load generator on CPU 1. They take turns: a row is the median over the rounds of the ratio within one.
Needs Linux with two CPUs, nginx, wrk, h2load, curl, taskset and cc (Debian: nginx-light, wrk, nghttp2-client, util-linux, build-essential).
"""

import argparse
import contextlib
import functools
import http.client
import math
import os
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from sigward.demo.child import Child, clean_environment
from sigward.errors import DemoError
from tests.bench import plot
from tests.bench.bench_proxy import BODY, HEADERS
from tests.bench.generators import MIB, Generators, LoadError, Turn
from tests.bench.harness import (
    CREDENTIALS,
    DYNAMODB,
    GLACIER,
    REGION,
    S3,
    Proxy,
    Table,
    Upstream,
    certificate,
    finish,
    free_port,
    parser,
    pinned,
    sigward,
    upstream,
)
from tests.bench.ratios import Figure, Round, Sample, goal, middle, p50, p99, per_cpu, rate, ratio
from tests.bench.rivals import nginx, peer, peers

PROXY_CPU, LOAD_CPU = "0", "1"
SIZE = 64 * MIB
CONNECTIONS = (1, 4, 16, 64, 256, 1024, 4096)
COUNTS = (1, 10, 100, 1000)
"""Of routes and of identities."""
STARTS = 7
LOADING = 30.0
"""Seconds that the credentials of all identities may take to be loaded."""


class NotLoadedError(LoadError):
    """They were not. The message says how many."""


@dataclass
class Bench:
    """One run. `proxies`: nginx, sigward, the peers, in the order of their turns."""

    behind: Upstream
    generators: Generators
    proxies: list[Proxy]
    rounds: int
    plots: Path | None
    large: Path
    against: Table = field(init=False)
    limits: Table = field(init=False)
    figures: Table = field(init=False)
    more: list[Table] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [proxy.name for proxy in self.proxies[2:]]
        self.against = Table(
            "Native front, signing, against nginx's plain `proxy_pass` on the same core",
            ["", "goal", "÷ nginx, per CPU-second", "÷ nginx, by the clock", "", *(f"{name} ÷ nginx, per CPU-second" for name in names)],
        )
        self.limits = Table("Native front: memory, start, connections", ["", "goal", "found", ""])
        self.figures = Table(
            "What the ratios are of: medians",
            ["", "unit", *(f"{proxy.name}, {what}" for proxy in self.proxies for what in ("a CPU-second", "a second"))],
            readme=False,
        )

    @property
    def sigward(self) -> Proxy:
        """The native front."""
        return next(proxy for proxy in self.proxies if proxy.name == "sigward")

    def run(self, name: str, row: Callable[["Bench"], None]) -> bool:
        """One of `ROWS`. What fails is said, and the others go on."""
        try:
            row(self)
        except (LoadError, DemoError) as error:
            self.limits.rows.append([f"{name}: failed", "", "–", "✗"])
            sys.stderr.write(f"{name}: failed: {str(error)[-3000:]}\n")
            return False
        return True

    def turns(self, turn: Turn, proxies: Sequence[Proxy], rounds: int | None = None) -> list[Round]:
        """The rounds. A peer that fails is left out from then on; nginx and sigward may not."""
        playing = list(proxies)
        done: list[Round] = []
        for _ in range(rounds or self.rounds):
            now = {}
            for proxy in list(playing):
                try:
                    now[proxy.name] = turn(proxy)
                except LoadError as error:
                    if proxy not in self.proxies[2:]:
                        raise
                    sys.stderr.write(f"{proxy.name} failed: {str(error)[-500:]}\n")
                    playing.remove(proxy)
            done.append(now)
        return done

    def compare(
        self, name: str, turn: Turn, *, least: float | None = None, unit: str = "requests", wall: bool = False, tls: bool = False
    ) -> None:
        """One row. `least`: the goal, of the ratio per CPU-second; `wall`: and by the clock. `tls`: a row without peers."""
        rounds = self.turns(turn, self.proxies[:2] if tls else self.proxies)
        cpu, clock = (ratio(rounds, "sigward", "nginx", figure) for figure in (per_cpu, rate))
        met = goal(min(cpu, clock) if wall else cpu, least=least)
        others = [number(ratio(rounds, proxy.name, "nginx", per_cpu)) for proxy in self.proxies[2:]]
        self.against.rows.append([name, f"≥ {least:.2f}" if least else "", f"**{number(cpu)}**", number(clock), met, *others])
        medians = [number(middle(rounds, proxy.name, figure), 0) for proxy in self.proxies for figure in (per_cpu, rate)]
        self.figures.rows.append([name, unit, *medians])
        say(self.against.rows[-1])

    def latency(self, name: str, turn: Turn, figure: Figure, *, most: float) -> None:
        """One row: a latency, in the column of the clock."""
        rounds = self.turns(turn, self.proxies)
        found = ratio(rounds, "sigward", "nginx", figure)
        others = [number(ratio(rounds, proxy.name, "nginx", figure)) for proxy in self.proxies[2:]]
        self.against.rows.append([name, f"≤ {most:.2f}", "", f"**{number(found)}**", goal(found, most=most), *others])
        medians = [text for proxy in self.proxies for text in ("", number(middle(rounds, proxy.name, figure), 0))]
        self.figures.rows.append([name, "µs", *medians])
        say(self.against.rows[-1])

    def limit(
        self, name: str, text: str, found: float, *, most: float | None = None, least: float | None = None, unit: str = "MiB"
    ) -> None:
        """One row of the second table."""
        bound = f"≤ {most:g} {unit}" if most is not None else f"≥ {least:g} {unit}" if least is not None else ""
        self.limits.rows.append([name, bound, f"**{text}**", goal(found, least=least, most=most)])
        say(self.limits.rows[-1])

    def plot(self, file: str, title: str, x: str, y: str, series: Sequence[plot.Series]) -> None:
        """Into docs/plots, if asked for."""
        if self.plots:
            plot.write(self.plots / f"{file}.svg", plot.line_plot(title, x, y, series, log_x=True))


def say(row: Sequence[str]) -> None:
    """So that a long run shows where it is."""
    sys.stderr.write(f"{' | '.join(part for part in row if part)}\n")


def number(value: float, digits: int = 2) -> str:
    """ "0.93", "41,200", "–"."""
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"


# Rows against nginx.


def post(bench: Bench) -> None:
    """1 KiB POST over plain HTTP/1.1 with keep-alive, reverse mode."""
    for connections in (32, 256):
        fill(bench, connections)
        bench.compare(f"POST 1 KiB, {connections} connections", bench.generators.wrk(connections), least=0.9)


def latency(bench: Bench) -> None:
    """One connection; and half of what the slower of the two can serve, offered to both alike, at random times."""
    bench.latency("latency, 1 connection, median", bench.generators.paced(1), p50, most=1.15)
    saturated = bench.generators.wrk(64)
    half = min(rate(saturated(proxy)) for proxy in bench.proxies[:2]) / 2
    bench.latency(f"latency at half of saturation ({half:,.0f}/s), 99th percentile", bench.generators.paced(64, half), p99, most=1.3)


def forward(bench: Bench) -> None:
    """sigward inside a CONNECT with interception; nginx without CONNECT, ending TLS itself."""
    turn = crossing(bench.generators.wrk, 32)
    bench.compare("HTTPS_PROXY: POST 1 KiB in TLS, 32 connections", turn, least=0.8, tls=True)


def handshakes(bench: Bench) -> None:
    """A connection and a full handshake for each request."""
    turn = crossing(functools.partial(bench.generators.wrk, close=True), 32)
    bench.compare("HTTPS_PROXY: a full TLS handshake for each request", turn, least=0.7, tls=True)
    bench.compare(
        "endpoint URL over TLS: a full TLS handshake for each request", bench.generators.wrk(32, to="tls", close=True), least=0.7, tls=True
    )


def http2(bench: Bench) -> None:
    """One connection with a hundred streams."""
    turn = crossing(functools.partial(bench.generators.http2, streams=100), 1)
    bench.compare("HTTPS_PROXY: HTTP/2, POST 1 KiB, 100 streams", turn, least=0.8, tls=True)
    bench.compare("endpoint URL over TLS: HTTP/2, POST 1 KiB, 100 streams", bench.generators.http2(1, 100), least=0.8, tls=True)


def transfer(bench: Bench) -> None:
    """64 MiB from and to S3, streamed; nginx with buffering off."""
    several = 12 * bench.generators.seconds
    for name, upload in (("GET", False), ("PUT", True)):
        turn = bench.generators.transfers(several, bench.large, upload=upload)
        bench.compare(f"{name} 64 MiB, S3, streamed", turn, least=0.9, unit="MiB", wall=True)


def close(bench: Bench) -> None:
    """Clients that close after each request; the connections to the upstream are kept all the same."""
    share = {}
    turn = bench.generators.wrk(32, close=True)

    def counted(proxy: Proxy) -> Sample:
        before = bench.behind.counts()
        sample = turn(proxy)
        after = bench.behind.counts()
        # One of each is the asking for the counts itself.
        opened, asked = (now - then - 1 for now, then in zip(after, before, strict=True))
        share[proxy.name] = opened / asked
        return sample

    bench.compare("POST 1 KiB, `Connection: close`, 32 at once", counted)
    found = share["sigward"] * 100
    others = ", ".join(f"{name} {value:.2%}" for name, value in share.items() if name != "sigward")
    bench.limit("upstream handshakes, of requests with `Connection: close`", f"{found:.2f} % ({others})", found, most=1, unit="%")


def cores(bench: Bench) -> None:
    """Two engine threads on both CPUs, which the generator and the upstream share with them, so that none can be saturated alone.

    Each engine thread is offered the same load in both cases: about a third of the machine with one, two thirds with two. Requests a
    CPU-second of the busiest engine thread say at which rate that thread would be full, were there CPUs enough for all others.
    """
    both = f"{PROXY_CPU},{LOAD_CPU}"
    generators = Generators(bench.generators.directory, bench.generators.seconds, both)
    with ExitStack() as stack:
        behind = stack.enter_context(upstream(both))
        one, two = (stack.enter_context(sigward(behind, cpus=both, front="native", threads=threads)) for threads in (1, 2))
        one.name, two.name = "one thread", "two threads"
        for proxy in (one, two):
            generators.wrk(256, seconds=1)(proxy)
        most = rate(generators.wrk(256)(two))
        offered = {one.name: 0.3 * most, two.name: 0.6 * most}
        wall, whole, busiest = [], [], []
        for _ in range(bench.rounds):
            clock, efficiency, full = {}, {}, {}
            for proxy in (one, two):
                before = proxy.thread_seconds()
                sample = generators.paced(256, offered[proxy.name])(proxy)
                after = proxy.thread_seconds()
                efficiency[proxy.name] = per_cpu(sample)
                full[proxy.name] = sample.amount / max(after[thread] - before.get(thread, 0) for thread in after)
                clock[proxy.name] = rate(generators.wrk(256)(proxy))
            wall.append(clock[two.name] / clock[one.name])
            whole.append(2 * efficiency[two.name] / efficiency[one.name])
            busiest.append(full[two.name] / full[one.name])
    found = statistics.median(busiest)
    bench.limit(
        "two threads ÷ one, each thread offered the same: until the busiest thread is full", f"{found:.2f}×", found, least=1.8, unit="×"
    )
    bench.more.append(
        Table(
            "Two engine threads on two CPUs, which they share with generator and upstream",
            ["", "two threads ÷ one"],
            [
                ["requests a CPU-second of the busiest thread, each thread offered the same", f"**{found:.2f}**"],
                ["twice the requests a CPU-second of the whole process, the same load", f"{statistics.median(whole):.2f}"],
                ["requests a second at saturation, all four programs on the two CPUs", f"{statistics.median(wall):.2f}"],
            ],
            readme=False,
        )
    )


# Rows by themselves.

HASHING = """
import hashlib, time
data = bytes(1 << 20)
began = time.perf_counter()
for _ in range(512): hashlib.sha256(data).digest()
print(512 / (time.perf_counter() - began))
"""


def hashed(bench: Bench) -> None:
    """64 MiB that must be hashed before they may go: spooled to disk."""
    turn = bench.generators.transfers(3 * bench.generators.seconds, bench.large, host=GLACIER, upload=True)
    turn(bench.sigward)
    clock, cpu, raws = [], [], []
    for _ in range(bench.rounds):
        command = pinned(PROXY_CPU, [sys.executable, "-c", HASHING])
        raw = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        sample = turn(bench.sigward)
        raws.append(raw)
        clock.append(rate(sample) / raw)
        cpu.append(per_cpu(sample) / raw)
    text = f"{statistics.median(clock):.2f}; per CPU-second {statistics.median(cpu):.2f} (raw: {statistics.median(raws):,.0f} MiB/s)"
    bench.limit("PUT 64 MiB, hashed and spooled, MiB/s ÷ raw SHA-256", text, statistics.median(clock), least=0.8, unit="×")


def memory(bench: Bench) -> None:
    """Resident memory of a fresh process: idle, and how much it grows at its peak."""
    small = bench.generators.directory / "body"
    cases = [("256 connections", 16, bench.generators.wrk(256), bench.generators.wrk(1, seconds=1))]
    (bench.behind.directory / "files" / small.name).write_bytes(small.read_bytes())
    for many, most in ((1, 4), (64, 32)):
        for what, upload in (("upload", True), ("download", False)):
            name = f"{many} {what}{'s' if many > 1 else ''} of 64 MiB, streamed"
            turns = [bench.generators.at_once(times, file, upload=upload) for times, file in ((many, bench.large), (1, small))]
            cases.append((name, most, turns[0], turns[1]))
    idle = []
    for name, most, turn, first in cases:
        # The upstream has 64 bodies in hand when the last connections come to it.
        with sigward(bench.behind, cpus=PROXY_CPU, front="native", tables="[timeouts]\nconnect = 30\n") as proxy:
            # What a first request allocates once is not what is asked for.
            first(proxy)
            idle.append(proxy.resident() / MIB)
            before = proxy.reset_peak()
            turn(proxy)
            growth = (proxy.peak() - before) / MIB
        bench.limit(f"resident memory, more with {name}", f"{growth:.1f} MiB", growth, most=most)
    found = statistics.median(idle)
    bench.limits.rows.append(["resident memory, idle, Python with it", "≤ 55 MiB", f"**{found:.1f} MiB**", goal(found, most=55)])
    say(bench.limits.rows[-1])


def start(bench: Bench) -> None:
    """From the process's start to its first signed request at an upstream."""
    took: dict[str, list[float]] = {"native": [], "mitmproxy": []}
    with Arrivals() as arrivals:
        for _ in range(STARTS):
            for front, kept in took.items():
                kept.append(arrivals.after_start(front) * 1000)
    found = statistics.median(took["native"])
    text = f"{found:.0f} ms (the mitmproxy front: {statistics.median(took['mitmproxy']):.0f})"
    bench.limit("start to the first signed request at the upstream", text, found, most=400, unit="ms")


class Arrivals:
    """A TLS upstream that notes when a signed request has come."""

    def __enter__(self) -> "Arrivals":
        self._directory = tempfile.TemporaryDirectory(prefix="sigward-bench-")
        self.directory = Path(self._directory.name)
        authority = trustme.CA()
        certificate(self.directory, authority, DYNAMODB)
        authority.cert_pem.write_to_path(str(self.directory / "ca.pem"))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.directory / "certificate.pem", self.directory / "key.pem")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.arrived = threading.Event()
        self.at = 0.0
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._directory.cleanup()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._socket.accept()
                with contextlib.suppress(OSError), self._context.wrap_socket(plain, server_side=True) as connection:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        if not (piece := connection.recv(65536)):
                            break
                        head += piece
                    if b"AWS4-HMAC-SHA256 Credential=" in head:
                        self.at = time.perf_counter()
                        self.arrived.set()
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")

    def after_start(self, front: str) -> float:
        """Seconds."""
        port = free_port()
        upstream_port = self._socket.getsockname()[1]
        settings = self.directory / "sigward.toml"
        settings.write_text(
            f'front = "{front}"\nlisten = "off"\nadmin = "off"\nca_dir = "{self.directory}/ca"\n'
            f'[tls]\nca_files = ["{self.directory}/ca.pem"]\nsystem_roots = false\n'
            f'[[reverse]]\nlisten = "127.0.0.1:{port}"\nupstream = "https://{DYNAMODB}"\n'
            f'[[route]]\nhost = "{DYNAMODB}"\nconnect = "127.0.0.1:{upstream_port}"\n'
        )
        self.arrived.clear()
        began = time.perf_counter()
        command = pinned(PROXY_CPU, [sys.executable, "-m", "sigward", "serve", "--config", str(settings)])
        with Child(command, clean_environment() | CREDENTIALS, self.directory) as child:
            connection = connect_when_bound(port, child)
            head = "".join(
                f"{name}: {value}\r\n" for name, value in (HEADERS | {"host": DYNAMODB, "content-length": str(len(BODY))}).items()
            )
            connection.sendall(f"POST / HTTP/1.1\r\n{head}\r\n".encode() + BODY)
            assert self.arrived.wait(30), child.output()
            connection.recv(65536)
            connection.close()
        return self.at - began


def connect_when_bound(port: int, child: Child) -> socket.socket:
    """As soon as somebody listens there."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            if child.process.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"sigward does not serve:\n{child.output()}", hint="Its output above says why.") from None
            time.sleep(0.001)


# Cost as work grows.


def growth(bench: Bench) -> None:
    """Requests a CPU-second over the number of routes, identities and connections."""
    routes = {str(number): {"tables": many_routes(number)} for number in COUNTS}
    turn = bench.generators.wrk(32)
    found = grown(bench, routes, lambda *_: turn)
    lost = 1 - found[-1][1] / found[0][1]
    bench.limit("lost from 1 to 1,000 routes, the last one matching, per CPU-second", f"{lost:.1%}", lost * 100, most=5, unit="%")
    loading: dict[str, float] = {}

    def identified_turn(name: str, proxy: Proxy) -> Turn:
        paths = [f"/team-{each}/key" for each in range(int(name))]
        loading[name] = once_each(proxy.addresses["s3"], paths)
        return bench.generators.wrk_paths(paths, 32)

    with shared_credentials(max(COUNTS)) as file:
        environment = {"AWS_REGION": REGION, "AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_PROFILE": "p0"}
        identities = {str(number): {"tables": many_identities(number, bench.behind.port), "environment": environment} for number in COUNTS}
        identified = grown(bench, identities, identified_turn)
    by_name = {f"{many:g}": f"{y:,.0f}" for many, y in identified}
    rows: list[Sequence[str]] = [
        ["routes, the last one matches", *(f"{y:,.0f}" for _, y in found)],
        ["identities in turn", *(by_name.get(name, "–") for name in identities)],
        [
            "until all identities were served once, s",
            *(f"{loading[name]:.1f}" if name in loading else f"> {LOADING:g}" for name in identities),
        ],
    ]
    title = "Requests a CPU-second over the number of routes and identities, 32 connections"
    bench.more.append(Table(title, ["", *(f"{count:,}" for count in COUNTS)], rows, readme=False))
    series = [plot.Series("routes, the last one matches", found), plot.Series("identities in turn", identified)]
    bench.plot("routes", "Cost over routes and identities", "routes, identities", "requests a CPU-second, native front", series)
    over_connections(bench)


def over_connections(bench: Bench) -> None:
    """nginx's, sigward's and the peers' cost over the number of clients."""
    points: dict[str, list[tuple[float, float]]] = {proxy.name: [] for proxy in bench.proxies}
    for many in CONNECTIONS:
        fill(bench, many)
        rounds = bench.turns(bench.generators.wrk(many), bench.proxies, min(bench.rounds, 3))
        for proxy in bench.proxies:
            if not math.isnan(found := middle(rounds, proxy.name, per_cpu)):
                points[proxy.name].append((many, found))
    columns = ["", *(f"{many:,}" for many in CONNECTIONS)]
    rows: list[Sequence[str]] = [
        [name, *(f"{dict(found)[many]:,.0f}" if many in dict(found) else "–" for many in CONNECTIONS)] for name, found in points.items()
    ]
    bench.more.append(Table("Requests a CPU-second over the number of connections, POST 1 KiB", columns, rows, readme=False))
    series = [plot.Series(name, found) for name, found in points.items() if found]
    bench.plot("connections", "Cost over connections: POST 1 KiB", "connections", "requests a CPU-second", series)


def fill(bench: Bench, many: int) -> None:
    """As many requests at once take as many connections to the upstream. Their handshakes are not what is asked for here."""
    if many >= 256:
        turn = bench.generators.wrk(many, seconds=max(1, many // 400))
        for proxy in bench.proxies:
            # Some time out meanwhile.
            with contextlib.suppress(LoadError):
                turn(proxy)


def grown(bench: Bench, settings: Mapping[str, Mapping[str, object]], turn: Callable[[str, Proxy], Turn]) -> list[tuple[float, float]]:
    """A process for each of the settings, by name; they take turns. Returns (the name as a number, requests a CPU-second).

    The figure is the first's median times the median ratio to it. One whose credentials are not loaded in time is left out.
    """
    with ExitStack() as stack:
        proxies, turns = {}, {}
        for name, more in settings.items():
            with ExitStack() as own:
                proxy = own.enter_context(sigward(bench.behind, cpus=PROXY_CPU, front="native", **more))  # type: ignore[arg-type]
                proxy.name = name
                try:
                    turns[name] = turn(name, proxy)
                except NotLoadedError as error:
                    say([f"{name} identities", str(error)])
                    continue
                proxies[name] = proxy
                stack.push(own.pop_all())
        rounds = bench.turns(lambda proxy: turns[proxy.name](proxy), list(proxies.values()), min(bench.rounds, 3))
    first = next(iter(settings))
    base = middle(rounds, first, per_cpu)
    return [(float(name), base * ratio(rounds, name, first, per_cpu)) for name in proxies]


def once_each(address: str, paths: Sequence[str]) -> float:
    """A GET of each path from S3, one after the other, until each has its credentials. Returns the seconds."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection(address, timeout=60)
    for place, path in enumerate(paths):
        while True:
            connection.request("GET", path, headers={"host": S3})
            answer = connection.getresponse()
            told = answer.read().decode("utf-8", "replace")
            if answer.status == 200:
                break
            if answer.status != 503:
                raise LoadError(f"GET {path}: {answer.status} {told[:500]}")
            if time.perf_counter() - began > LOADING:
                raise NotLoadedError(f"after {LOADING:g} s, {place:,} of {len(paths):,} identities have credentials: {told[:500]}")
    connection.close()
    return time.perf_counter() - began


def many_routes(number: int) -> str:
    """So many with the one that leads to the upstream: half of them name a host, half a pattern."""
    lines = []
    for each in range(number - 1):
        host = f"search-{each}.{REGION}.es.amazonaws.com" if each % 2 else f"search-{each}-*.{REGION}.es.amazonaws.com"
        lines += ["[[route]]", f'host = "{host}"']
    return "\n".join(lines)


def many_identities(number: int, port: int) -> str:
    """A route to `port` for each of so many buckets, with an identity of its own."""
    # What is asked here of one bucket is more than S3 allows.
    lines = ["[pacing]", "defaults = false"]
    for each in range(number):
        lines += [f"[identities.i{each}]", f'profile = "p{each}"']
    for each in range(number):
        lines += ["[[route]]", f'bucket = "team-{each}"', f'identity = "i{each}"', f'connect = "127.0.0.1:{port}"']
    return "\n".join(lines)


@contextmanager
def shared_credentials(number: int) -> Iterator[Path]:
    """A file with so many profiles."""
    with tempfile.TemporaryDirectory(prefix="sigward-bench-") as name:
        file = Path(name) / "credentials"
        profile = "[p{0}]\naws_access_key_id = AKIABENCHMARK{0:07}\naws_secret_access_key = {1}\n"
        file.write_text("".join(profile.format(each, CREDENTIALS["AWS_SECRET_ACCESS_KEY"]) for each in range(number)))
        file.chmod(0o600)
        yield file


# All together.


def crossing(make: Callable[..., Turn], connections: int) -> Turn:
    """sigward through its forward listener, nginx straight over TLS."""
    ours, theirs = make(connections, to="forward"), make(connections, to="tls")
    return lambda proxy: (ours if "forward" in proxy.addresses else theirs)(proxy)


ROWS: dict[str, Callable[[Bench], None]] = {
    each.__name__: each for each in (post, latency, forward, handshakes, http2, transfer, close, hashed, cores, memory, start, growth)
}


def flags() -> argparse.ArgumentParser:
    """This benchmark's."""
    made = parser(str(__doc__).splitlines()[0])
    made.add_argument("--seconds", type=int, default=2, help="length of one turn")
    made.add_argument("--rounds", type=int, default=5, help="turns for each")
    made.add_argument("--only", metavar="ROW", action="append", choices=ROWS, help=f"may be repeated: {', '.join(ROWS)}")
    made.add_argument("--plots", type=Path, help="write the plots there")
    return made


def main() -> None:
    """Prints the tables."""
    arguments = flags().parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("bench_native needs two CPUs: one for the proxy, one for its load")
    # Connections by the thousand, on both sides of a proxy.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, most) if most != resource.RLIM_INFINITY else 65536, most))
    with ExitStack() as stack:
        behind = stack.enter_context(upstream(LOAD_CPU))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sigward-bench-")))
        proxies = [stack.enter_context(nginx(behind, PROXY_CPU)), stack.enter_context(sigward(behind, cpus=PROXY_CPU, front="native"))]
        for name, command in peers(os.environ.get("SIGWARD_PEER", "")).items():
            proxies.append(stack.enter_context(peer(name, command, behind, PROXY_CPU)))
        large = behind.directory / "files" / "large"
        # Sparse: it takes no disk, and reading it no time.
        with large.open("wb") as file:
            file.truncate(SIZE)
        bench = Bench(behind, Generators(directory, arguments.seconds, LOAD_CPU), proxies, arguments.rounds, arguments.plots, large)
        # What a first turn costs once is not measured.
        bench.turns(bench.generators.wrk(32, seconds=1), proxies, rounds=1)
        failed = [name for name, row in ROWS.items() if (not arguments.only or name in arguments.only) and not bench.run(name, row)]
    finish([table for table in (bench.against, bench.limits, bench.figures, *bench.more) if table.rows], arguments)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
