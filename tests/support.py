"""Real parts for tests: a TLS upstream that speaks bytes, raw clients, and an oracle that checks signatures with botocore's code."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import trustme
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KEY, SECRET, TOKEN = "AKIDTESTS", "a-secret-that-must-not-leak", "a-token-that-must-not-leak"


SECRETS = [
    re.compile(r"a-secret-that-must-not-leak|a-token-that-must-not-leak|the-cli-(secret|token)|\bthe-(secret|token)\b"),
    re.compile(r"\b(env|imds|ecs|sso|user|assumed|process|base|config|shared|login|renewed|signin|profile)-(secret|token)\b"),
]
"""Every secret that tests use. A test that makes one adds it."""


def assert_no_secret(text: str, where: str) -> None:
    """Fails if a secret stands in what sigward wrote."""
    for secret in SECRETS:
        if found := secret.search(text):
            raise AssertionError(f"{where} holds a secret: …{text[max(0, found.start() - 60) : found.start()]}[{found.re.pattern:.40}]")


@dataclass
class Received:
    """One request as it came in at the upstream."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    trailers: list[tuple[str, str]] = field(default_factory=list)
    connection: int = 0

    def get(self, name: str) -> str | None:
        """The only value of a header; None if it is not there."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


Answer = bytes | Callable[[Received, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Upstream:
    """A TLS server that reads one request after another and answers with what it is told, bytes or a coroutine."""

    def __init__(
        self,
        answers: Iterable[Answer] = (),
        hosts: tuple[str, ...] = (
            "*.us-east-1.amazonaws.com",
            "*.amazonaws.com",
            "*.s3.us-east-1.amazonaws.com",
            "*.s3.eu-west-1.amazonaws.com",
            "*.geo.us-east-1.amazonaws.com",
            "localhost",
        ),
    ) -> None:
        self.answers = list(answers)
        self.received: list[Received] = []
        self.connections = 0
        self.arrived = asyncio.Condition()
        self.accepted = asyncio.Event()
        self.ca = trustme.CA()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*hosts).configure_cert(self.context)
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context, limit=1 << 20)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for task in self._tasks:
            task.cancel()

    def write_ca(self, path: Path) -> Path:
        """The CA's certificate as a PEM file."""
        self.ca.cert_pem.write_to_path(str(path))
        return path

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.accepted.set()
        number = self.connections
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while received := await read_request(reader):
                received.connection = number
                async with self.arrived:
                    self.received.append(received)
                    answer = self.answers.pop(0) if self.answers else OK
                    self.arrived.notify_all()
                if callable(answer):
                    await answer(received, reader, writer)
                else:
                    writer.write(answer)
                await writer.drain()
        writer.close()

    async def wait_for(self, count: int) -> list[Received]:
        """Waits until so many requests have come in."""
        async with self.arrived:
            await asyncio.wait_for(self.arrived.wait_for(lambda: len(self.received) >= count), 10)
        return self.received


async def read_request(reader: asyncio.StreamReader) -> Received | None:
    """Reads one HTTP/1.1 request, whole."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    lines = head[:-4].decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
    lower = {name.lower(): value for name, value in headers}
    body, trailers = b"", []
    if "chunked" in lower.get("transfer-encoding", ""):
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            trailers.append((name, value.strip()))
    elif length := int(lower.get("content-length", "0")):
        body = await reader.readexactly(length)
    return Received(method, target, headers, body, trailers)


def authorization(received: Received) -> dict[str, str]:
    """Credential, SignedHeaders and Signature of a signed request."""
    value = received.get("authorization")
    assert value is not None, "the request was not signed"
    algorithm, _, rest = value.partition(" ")
    assert algorithm == "AWS4-HMAC-SHA256"
    return dict(part.strip().split("=", 1) for part in rest.split(","))  # type: ignore[misc]


def assert_signed(received: Received, host: str, *, token: str | None = None) -> dict[str, str]:
    """Recomputes the signature of what arrived, with botocore's code. Returns the scope's parts."""
    parts = authorization(received)
    access_key, date, region, service, ending = parts["Credential"].split("/")
    assert (access_key, ending) == (KEY, "aws4_request")
    assert received.get("host") == host
    signed_names = parts["SignedHeaders"].split(";")
    for name, _ in received.headers:
        if name.lower().startswith("x-amz-") and name.lower() != "x-amzn-trace-id":
            assert name.lower() in signed_names, f"{name} was sent unsigned"
    auth_type = S3SigV4Auth if service == "s3" else SigV4Auth
    auth = auth_type(Credentials(KEY, SECRET, token), service, region)
    split = urlsplit(f"https://{host}{received.target}")
    request = AWSRequest(received.method, split.geturl(), data=received.body)
    for name, value in received.headers:
        if name.lower() in signed_names:
            request.headers.add_header(name, value)
    stamp = received.get("x-amz-date")
    assert stamp is not None
    assert stamp.startswith(date)
    request.context["timestamp"] = stamp
    request.context["payload_signing_enabled"] = True
    canonical = auth.canonical_request(request)
    expected = auth.signature(auth.string_to_sign(request, canonical), request)
    assert parts["Signature"] == expected, canonical
    return {"service": service, "region": region, "headers": parts["SignedHeaders"]}


def signing_key(date: str, region: str, service: str) -> bytes:
    """Step 3's key, from RFC 2104 and AWS's page."""
    key = f"AWS4{SECRET}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


@dataclass
class Chunks:
    """A body that came in chunks: its bytes, its trailers, the chunks' sizes."""

    body: bytes
    trailers: dict[str, str]
    sizes: list[int]


def unwrapped(framed: bytes, check: Callable[[str, bytes], None] | None = None) -> Chunks:
    """Takes aws-chunked apart. `check(signature, data)`: called for each chunk, the last and empty one too."""
    body, sizes = b"", []
    while True:
        head, _, framed = framed.partition(b"\r\n")
        size, _, signature = head.partition(b";chunk-signature=")
        sizes.append(int(size, 16))
        data, framed = framed[: sizes[-1]], framed[sizes[-1] :]
        body += data
        if check:
            check(signature.decode(), data)
        if not sizes[-1]:
            break
        assert framed[:2] == b"\r\n"
        framed = framed[2:]
    *lines, last, end = framed.split(b"\r\n")
    assert (last, end) == (b"", b"")
    return Chunks(body, dict(line.decode().split(":", 1) for line in lines), sizes)  # type: ignore[misc]


def assert_chunks_signed(received: Received) -> Chunks:
    """Recomputes every signature in a body sent in chunks, after the S3 API Reference. Returns what was in them."""
    parts = authorization(received)
    _, date, region, service, _ = parts["Credential"].split("/")
    stamp, scope = received.get("x-amz-date"), parts["Credential"].partition("/")[2]
    key = signing_key(date, region, service)
    previous = parts["Signature"]

    def sign(algorithm: str, *hashes: str) -> str:
        return hmac.digest(key, "\n".join([algorithm, str(stamp), scope, previous, *hashes]).encode(), "sha256").hex()

    def check(signature: str, data: bytes) -> None:
        nonlocal previous
        expected = sign("AWS4-HMAC-SHA256-PAYLOAD", hashlib.sha256(b"").hexdigest(), hashlib.sha256(data).hexdigest())
        assert signature == expected
        previous = signature

    chunks = unwrapped(received.body, check)
    signature = chunks.trailers.pop("x-amz-trailer-signature", None)
    if (received.get("x-amz-content-sha256") or "").endswith("-TRAILER"):
        canonical = "".join(f"{name}:{value}\n" for name, value in chunks.trailers.items())
        assert signature == sign("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(canonical.encode()).hexdigest())
    else:
        assert (signature, chunks.trailers) == (None, {})
    return chunks


@dataclass
class Response:
    """One response as a raw client sees it. `informational`: the status and headers of each 1xx before it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    trailers: list[tuple[str, str]] = field(default_factory=list)
    informational: list[tuple[int, list[tuple[str, str]]]] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


LONGEST_REASON = 1024


def assert_says_why(response: Response) -> None:
    """An answer of sigward's own gives its reason in a header, in visible ASCII."""
    slugs, reasons = ([value for key, value in response.headers if key.lower() == f"x-sigward-{name}"] for name in ("error", "reason"))
    assert len(slugs) <= 1, response
    assert len(reasons) == len(slugs), response
    assert all(re.fullmatch(rf"[!-~](?:[ -~]{{0,{LONGEST_REASON - 2}}}[!-~])?", reason) for reason in reasons), response
    assert_no_secret("".join(reasons), "the reason")


async def read_response(reader: asyncio.StreamReader, method: str = "GET") -> Response:
    """Reads one HTTP/1.1 response, whole. 101 is one, all other 1xx come before one. What is sigward's own must say why."""
    informational, trailers = [], []
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head[:-4].decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        if status >= 200 or status == 101:
            break
        informational.append((status, headers))
    lower = {name.lower(): value for name, value in headers}
    body = b""
    if method == "HEAD" or status in (204, 304) or status < 200:
        pass
    elif "chunked" in lower.get("transfer-encoding", ""):
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            trailers.append((name, value.strip()))
    elif "content-length" in lower:
        body = await reader.readexactly(int(lower["content-length"]))
    else:
        body = await reader.read()
    response = Response(status, headers, body, trailers, informational)
    assert_says_why(response)
    return response


def engine_settings(upstream_port: int, ca_file: Path, **more: Any) -> str:
    """Settings that send AWS's hosts to a local upstream."""
    settings: dict[str, Any] = {
        "tls": {"ca_files": [str(ca_file)], "system_roots": False},
        "retry": {"attempts": 3, "base": 0.01, "throttle_base": 0.01},
        "routes": [{"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream_port}"}],
    }
    settings.update(more)
    return json.dumps(settings)


@contextlib.asynccontextmanager
async def connected(address: tuple[str, int], **tls: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw client connection."""
    reader, writer = await asyncio.open_connection(*address, limit=1 << 24, **tls)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def counted(metrics: str, name: str, **labels: str) -> float:
    """The sum of all samples of this name that have these labels. `metrics`: in Prometheus's text format."""
    total = 0.0
    for found in re.finditer(rf"^{name}(?:\{{(.*)\}})? (\S+)$", metrics, re.MULTILINE):
        if labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', found[1] or "")).items():
            total += float(found[2])
    return total
