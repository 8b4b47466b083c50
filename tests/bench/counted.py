"""An upstream and a client that count, each a process of its own: which calls were executed, answered, and arrived.

`python -m tests.bench.counted upstream DIRECTORY PORT`: AWS, as far as keys and clocks go. It notes each call in
`DIRECTORY/journal`: `e ID` before it is executed, `a ID` when its answer is with the kernel. Both hold if it is killed.
`python -m tests.bench.counted client DIRECTORY FORWARD REVERSE CA`: asks in several ways until its stdin ends, then says how it went in
`DIRECTORY/told.json`. Its clock is sigward's, because it verifies sigward's certificates.
"""

import asyncio
import contextlib
import json
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from tests.support import Received, Response, authorization, connected, read_request, read_response

REGIONS = ("us-east-1", "us-west-2", "eu-west-1", "eu-central-1", "ap-northeast-1", "sa-east-1")
HOSTS = tuple(f"sqs.{region}.amazonaws.com" for region in REGIONS)
KEY = "ASIASOAK"
"""Begins an access key; its end is when it expires."""
SKEW = 300
"""Seconds that a signature's date may be off. See 'Troubleshoot SigV4 signature errors'."""
LAG = 5
"""Seconds after a step of the clock in which a call that was signed before it may still arrive."""
LARGE = 1_500_000
PATIENCE = 60.0


# ---------------------------------------------------------------- the clock


@dataclass(frozen=True)
class Moved:
    """Seconds that the clock is ahead, those before its last step, and when that was in real time."""

    ahead: float = 0.0
    before: float = 0.0
    at: float = 0.0

    def write(self, path: Path) -> None:
        """In one piece."""
        path.with_suffix(".new").write_text(json.dumps([self.ahead, self.before, self.at]))
        path.with_suffix(".new").replace(path)

    @classmethod
    def read(cls, path: Path) -> "Moved":
        """As it was written."""
        return cls(*json.loads(path.read_text()))

    def refusal(self, received: Received) -> tuple[float, str | None]:
        """(the time now, an error's code or None). Whoever has not seen the last step yet may go by the clock before it."""
        real, key = time.time(), int(authorization(received)["Credential"].split("/")[0].removeprefix(KEY))
        signed = datetime.strptime(received.get("x-amz-date") or "", "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        now = real + self.ahead
        if real - self.at < LAG and abs(real + self.before - signed) < SKEW:
            now = real + self.before
        if abs(now - signed) > SKEW:
            return now, "RequestTimeTooSkewed"
        return now, "ExpiredTokenException" if key + 1 < now else None


# ---------------------------------------------------------------- the upstream


async def upstream(directory: Path, port: int) -> None:
    """Serves until its stdin ends, or it is killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "upstream.pem")
    journal = os.open(directory / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while received := await read_request(reader):
                now, code = Moved.read(directory / "clock.json").refusal(received)
                date = f"Date: {format_datetime(datetime.fromtimestamp(now, UTC), usegmt=True)}\r\n"
                if code:
                    os.write(journal, f"{code} {received.target}\n".encode())
                    writer.write(f"HTTP/1.1 403 Forbidden\r\n{date}x-amzn-errortype: {code}\r\ncontent-length: 0\r\n\r\n".encode())
                    continue
                os.write(journal, f"e {received.target}\n".encode())
                if hash(received.target) % 20 == 0:
                    # Some are in flight when it is killed.
                    await asyncio.sleep(0.05)
                body = received.target.encode()
                writer.write(f"HTTP/1.1 200 OK\r\n{date}content-length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
                os.write(journal, f"a {received.target}\n".encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context, limit=1 << 20, backlog=1024)
    sys.stdout.write(f"listening {server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


# ---------------------------------------------------------------- the client


class Load:
    """`asked`: calls by worker. `failed`: why, by call."""

    def __init__(self, forward: str, reverse: str, ca_file: str) -> None:
        self.forward, self.reverse = ((host, int(port)) for host, _, port in (address.rpartition(":") for address in (forward, reverse)))
        self.context = ssl.create_default_context(cafile=ca_file)
        self.ended = asyncio.Event()
        self.asked: dict[str, int] = {}
        self.failed: dict[str, str] = {}

    @contextlib.asynccontextmanager
    async def connection(self, tunnel: str | None) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """To the reverse listener, or inside a CONNECT to a host."""
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await stack.enter_async_context(connected(self.forward if tunnel else self.reverse))
                if tunnel:
                    await self.inside(tunnel, reader, writer)
            yield reader, writer

    async def inside(self, tunnel: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """CONNECT, and TLS."""
        writer.write(f"CONNECT {tunnel}:443 HTTP/1.1\r\nHost: {tunnel}:443\r\n\r\n".encode())
        answer = await read_response(reader, "HEAD")
        if answer.status != 200:
            raise ConnectionError(f"CONNECT: {reason(answer)}")
        await writer.start_tls(self.context, server_hostname=tunnel)

    async def work(self, name: str, *, tunnel: bool, kept: bool) -> None:
        """Asks one thing after the other. `kept`: on one connection, until that ends."""
        self.asked[name] = 0
        early = False
        while not self.ended.is_set():
            host = HOSTS[self.asked[name] % len(HOSTS)]
            try:
                async with self.connection(host if tunnel else None) as (reader, writer):
                    early = False
                    pass_on = True
                    while pass_on and not self.ended.is_set():
                        pass_on = await asyncio.wait_for(self.ask(name, host, reader, writer), PATIENCE) and kept
                        if kept and self.asked[name] % 500 == 0:
                            break
            except Exception as error:
                # A certificate that is new by the new clock, before this process has seen that it was moved.
                if "not yet valid" in str(error) and not early:
                    early = True
                    await asyncio.sleep(LAG)
                    continue
                # Nothing was asked: a connection, or its handshake, failed.
                self.failed[self.new(name, "connect")] = f"{type(error).__name__}: {error}"
                await asyncio.sleep(0.05)

    def new(self, name: str, method: str) -> str:
        """A call's own path."""
        self.asked[name] += 1
        return f"/{method.lower()}/{name}/{self.asked[name]}"

    async def ask(self, name: str, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One call. False: the connection is over."""
        turn = self.asked[name] + 1
        method = "GET" if turn % 4 == 0 else "POST"
        body = b"" if method == "GET" else bytes(LARGE if turn % 200 == 1 else 100)
        path = self.new(name, method)
        try:
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
            answer = await asyncio.wait_for(read_response(reader, method), PATIENCE / 2)
        except Exception as error:
            self.failed[path] = f"{type(error).__name__}: {error}"[:200]
            return False
        if answer.status != 200 or answer.body != path.encode():
            self.failed[path] = reason(answer)
            await asyncio.sleep(0.02)
        return (answer.get("connection") or "").lower() != "close"


def reason(answer: Response) -> str:
    """How it failed: "502 connect-failed"; "403 by the upstream"; "another call's answer"."""
    if answer.status == 200:
        return "another call's answer"
    return f"{answer.status} {answer.get('x-sigward-error') or 'by the upstream'}"


async def client(directory: Path, forward: str, reverse: str, ca_file: str) -> None:
    """Until its stdin ends."""
    load = Load(forward, reverse, ca_file)
    workers = [load.work(f"kept{number}", tunnel=False, kept=True) for number in range(8)]
    workers += [load.work(f"new{number}", tunnel=False, kept=False) for number in range(2)]
    workers += [load.work(f"tunnel{number}", tunnel=True, kept=False) for number in range(2)]
    workers += [load.work(f"kept-tunnel{number}", tunnel=True, kept=True) for number in range(4)]
    tasks = [asyncio.create_task(work) for work in workers]
    sys.stdout.write("running\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    load.ended.set()
    await asyncio.gather(*tasks)
    (directory / "told.json").write_text(json.dumps({"asked": load.asked, "failed": load.failed}))


if __name__ == "__main__":
    role, directory, *rest = sys.argv[1:]
    asyncio.run(upstream(Path(directory), int(rest[0])) if role == "upstream" else client(Path(directory), *rest))
