"""sigward's mitmproxy front against bare mitmproxy: requests a second, and CPU time a request.

Both run as processes of their own, to the same nginx behind TLS, with a 1 KiB POST. They take turns within one run.
Needs nginx, wrk and h2load (Debian: nginx-light, wrk, nghttp2-client).
"""

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.harness import (
    DYNAMODB,
    ExitStack,
    Proxy,
    Table,
    bare_mitmproxy,
    finish,
    need,
    parser,
    sigward,
    upstream,
)
from tests.bench.relay import Relay

BODY = b'{"TableName":"things","Item":{"id":{"S":"' + b"x" * 978 + b'"}}}'
HEADERS = {
    "content-type": "application/x-amz-json-1.0",
    "x-amz-target": "DynamoDB_20120810.PutItem",
    "user-agent": "benchmark",
    "accept": "*/*",
}
CONNECTIONS = (1, 32, 256)
STREAMS = ((1, 1), (4, 8), (8, 32))
"""HTTP/2: connections, and streams at once on each."""

Generate = Callable[[Proxy, float], int]
"""Loads a proxy for so many seconds; returns how many requests were answered."""

LUA = """
wrk.method = "POST"
wrk.body = io.open("{body}", "rb"):read("*a")
{headers}
"""


@dataclass
class Measured:
    """Sums over a proxy's turns."""

    requests: int = 0
    seconds: float = 0.0
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def microseconds(self) -> float:
        """CPU time a request."""
        return self.cpu / self.requests * 1e6


@dataclass
class Load:
    """The load generators, with their files in `directory`."""

    directory: Path
    seconds: float

    def __post_init__(self) -> None:
        (self.directory / "body").write_bytes(BODY)
        headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in (HEADERS | {"Host": DYNAMODB}).items())
        (self.directory / "post.lua").write_text(LUA.format(body=self.directory / "body", headers=headers))

    def http1(self, connections: int) -> Generate:
        """wrk over plain HTTP/1.1 with keep-alive, to the reverse listener."""

        def run(proxy: Proxy, seconds: float) -> int:
            address = proxy.addresses["dynamodb"]
            command = [
                need("wrk", "wrk"),
                "-t1",
                f"-c{connections}",
                f"-d{seconds:g}s",
                "--timeout",
                "10s",
                "-s",
                str(self.directory / "post.lua"),
                f"http://{address}/",
            ]
            told = output(command)
            check(told, re.search(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", told))
            found = re.search(r"(\d+) requests in", told)
            assert found is not None, told
            return int(found[1])

        return run

    def http2(self, connections: int, streams: int) -> Generate:
        """h2load over TLS inside a CONNECT, as a client with HTTPS_PROXY does; it knows no proxies, so a relay asks."""

        def run(proxy: Proxy, seconds: float) -> int:
            with Relay(proxy.addresses["forward"], proxy.target) as relay:
                return load(proxy.target, relay.address, seconds)

        def load(target: str, address: str, seconds: float) -> int:
            headers = [argument for name, value in HEADERS.items() for argument in ("-H", f"{name}: {value}")]
            # Without a warm-up h2load counts from its first connection attempt, as wrk does.
            command = [
                need("h2load", "nghttp2-client"),
                f"-c{connections}",
                f"-m{streams}",
                f"-D{seconds:g}",
                "--warm-up-time=0",
            ]
            told = output(
                [
                    *command,
                    "-d",
                    str(self.directory / "body"),
                    *headers,
                    f"--connect-to={address}",
                    f"https://{target}/",
                ]
            )
            found = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", told)
            assert found is not None, told
            assert found.groups()[1:] == ("0", "0", "0"), told
            return int(found[1])

        return run

    def measure(self, generate: Generate, proxies: list[Proxy], rounds: int) -> dict[str, Measured]:
        """The proxies take turns."""
        measured = {proxy.name: Measured() for proxy in proxies}
        for proxy in proxies:
            generate(proxy, 1)
        for _ in range(rounds):
            for proxy in proxies:
                before = proxy.cpu_seconds()
                requests = generate(proxy, self.seconds)
                it = measured[proxy.name]
                it.cpu += proxy.cpu_seconds() - before
                it.requests += requests
                it.seconds += self.seconds
        return measured


def output(command: list[str]) -> str:
    """Runs a generator."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(told: str, error: "re.Match[str] | None") -> None:
    """A measurement with errors in it measures something else."""
    assert error is None, told


def count(number: int, what: str) -> str:
    """ "1 connection", "32 connections"."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def row(name: str, measured: dict[str, Measured]) -> list[str]:
    """One line of a table."""
    bare, ours = measured["bare mitmproxy"], measured["sigward"]
    return [
        name,
        f"{bare.rate:,.0f}",
        f"{ours.rate:,.0f}",
        f"**{ours.rate / bare.rate:.2f}**",
        f"{bare.microseconds:,.0f}",
        f"{ours.microseconds:,.0f}",
    ]


def main() -> None:
    """Prints both tables."""
    flags = parser(str(__doc__).splitlines()[0])
    flags.add_argument("--seconds", type=float, default=4.0, help="length of one turn, at most 5")
    flags.add_argument("--rounds", type=int, default=3, help="turns for each")
    arguments = flags.parse_args()
    columns = [
        "",
        "bare mitmproxy, requests/s",
        "sigward, requests/s",
        "ratio",
        "bare mitmproxy, CPU µs/request",
        "sigward, CPU µs/request",
    ]
    first = Table("HTTP/1.1 client, 1 KiB POST, TLS to an HTTP/1.1 upstream; sigward signs", columns)
    second = Table("HTTP/2 client through CONNECT, 1 KiB POST, TLS to an HTTP/1.1 upstream; sigward signs", columns)
    with ExitStack() as stack:
        behind = stack.enter_context(upstream())
        proxies = [stack.enter_context(bare_mitmproxy(behind)), stack.enter_context(sigward(behind))]
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        load = Load(directory, min(arguments.seconds, 5.0))
        for connections in CONNECTIONS:
            first.rows.append(row(count(connections, "connection"), load.measure(load.http1(connections), proxies, arguments.rounds)))
        for connections, streams in STREAMS:
            name = f"{count(connections, 'connection')}, {count(streams, 'stream')} each"
            second.rows.append(row(name, load.measure(load.http2(connections, streams), proxies, arguments.rounds)))
    finish([first, second], arguments)


if __name__ == "__main__":
    main()
