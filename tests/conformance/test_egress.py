"""A proxy on the way to the upstream (`egress.proxy`): what goes through it, what it is told, and how it fails."""

import asyncio
import base64
import contextlib
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from sigward import _core
from sigward.environ import NO_PROXY
from sigward.settings import Egress, Settings
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.http2_upstream import Http2Upstream
from tests.shell import Shell
from tests.support import SECRETS, Upstream, assert_signed, connected, read_response

USER, PASSWORD = "egress-user", "egress-p@ss:word"
ENCODED = "egress-p%40ss%3Aword"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
PASSWORDS = (PASSWORD, ENCODED, BASIC)
SECRETS.append(re.compile("|".join(map(re.escape, PASSWORDS))))

TUNNELS = "mitmproxy makes the connections of tunnels itself"

Plan = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class ConnectProxy:
    """Takes CONNECT and passes bytes on, to `leads[authority]` or to where it was told. `heads`: what it was sent, one a connection.

    `plan`: does something else instead, once the head is there.
    """

    leads: dict[str, int] = field(default_factory=dict)
    heads: list[bytes] = field(default_factory=list)
    plan: Plan | None = None
    port: int = 0

    async def __aenter__(self) -> "ConnectProxy":
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    @property
    def asked(self) -> list[str]:
        """The target of each CONNECT."""
        return [head.split(b" ")[1].decode() for head in self.heads]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if self.plan:
                await self.plan(reader, writer)
            else:
                await self.established(reader, writer, b"HTTP/1.1 200 Connection established\r\n\r\n")
        writer.close()

    async def established(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
        """Answers, and passes bytes on both ways."""
        authority = self.asked[-1]
        port = self.leads.get(authority) or int(authority.rpartition(":")[2])
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(answer)
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest_asyncio.fixture
async def egress(upstream: Upstream) -> AsyncIterator[ConnectProxy]:
    """Leads every host of these tests to the upstream."""
    hosts = (HOST, BUCKET_HOST, "dynamodb.us-east-1.amazonaws.com")
    async with ConnectProxy({f"{host}:443": upstream.port for host in hosts}) as running:
        yield running


async def behind(start: Start, upstream: Upstream, url: str, *no_proxy: str, **settings: object) -> Proxy:
    """A proxy whose only way out is that one."""
    settings.setdefault("routes", [])
    running: Proxy = await start(upstream, egress={"proxy": url, "no_proxy": list(no_proxy)}, **settings)
    return running


def url(egress: ConnectProxy, user: str = "") -> str:
    return f"http://{user}{'@' if user else ''}127.0.0.1:{egress.port}"


async def test_signed_requests_go_through_it(start: Start, upstream: Upstream, egress: ConnectProxy) -> None:
    """TLS is verified from end to end; a connection is used again; the name is not looked up here."""
    proxy = await behind(start, upstream, url(egress))
    for _ in range(2):
        response = await proxy.ask(request())
        assert (response.status, response.body) == (200, b"ok")
    assert egress.asked == [f"{HOST}:443"]
    head = rb"CONNECT %b:443 HTTP/1\.1\r\nHost: %b:443\r\nVia: 1\.1 sigward-[0-9a-f]{16}\r\n\r\n"
    assert re.fullmatch(head % ((re.escape(HOST.encode()),) * 2), egress.heads[0])
    for received in upstream.received:
        assert_signed(received, HOST)
        assert received.all("proxy-authorization") == []


async def test_the_password_is_for_the_proxy_alone(
    start: Start, upstream: Upstream, egress: ConnectProxy, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    log = tmp_path / "access.log"
    proxy = await behind(start, upstream, url(egress, f"{USER}:{ENCODED}"), access_log=str(log), log_level="debug")
    assert (await proxy.ask(request())).status == 200
    assert b"\r\nProxy-Authorization: Basic " + BASIC.encode() + b"\r\n" in egress.heads[0]
    upstream_saw = upstream.received[0]
    assert not any(secret in f"{upstream_saw.target}{upstream_saw.headers}" for secret in PASSWORDS)
    # A request that fails on the way says nothing of it, either.
    egress.plan = refused
    proxy.point_to(upstream.port, egress={"proxy": url(egress, f"{USER}:{ENCODED}")})
    response = await proxy.ask(request("GET", "/fails"))
    assert (response.status, response.get("x-sigward-error")) == (502, "connect-failed")
    async with asyncio.timeout(10):
        while log.read_text().count("\n") < 2:
            await asyncio.sleep(0.01)
    told = f"{log.read_text()}{response.headers}{response.body!r}{caplog.text}{proxy.engine.metrics()}{proxy.engine!r}"
    assert not any(secret in told for secret in PASSWORDS), told


async def refused(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\ncontent-length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("user", "mend"), [("", b"it wants a user and a password in egress.proxy"), (f"{USER}:{ENCODED}", b"does not take the user")]
)
async def test_a_proxy_that_wants_other_credentials(start: Start, upstream: Upstream, egress: ConnectProxy, user: str, mend: bytes) -> None:
    egress.plan = refused
    proxy = await behind(start, upstream, url(egress, user), retry={"mode": "off"})
    response = await proxy.ask(request())
    assert (response.status, response.get("x-sigward-error")) == (502, "connect-failed")
    assert b"407 Proxy Authentication Required" in response.body
    assert f"127.0.0.1:{egress.port}".encode() in response.body
    assert mend in response.body
    assert upstream.connections == 0


async def test_a_proxy_that_is_down_is_named(start: Start, upstream: Upstream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    proxy = await behind(start, upstream, f"http://127.0.0.1:{port}")
    response = await proxy.ask(request())
    assert (response.status, response.get("x-sigward-error"), response.get("x-sigward-attempts")) == (502, "connect-failed", "3")
    assert f"127.0.0.1:{port}".encode() in response.body
    assert b"egress.proxy" in response.body


@pytest.mark.native(TUNNELS)
async def test_a_tunnel_without_its_proxy(start: Start, upstream: Upstream, egress: ConnectProxy) -> None:
    egress.plan = refused
    proxy = await behind(start, upstream, url(egress))
    status, slug, body = await connect(proxy, "example.invalid:443")
    assert (status, slug) == (502, "connect-failed")
    assert f"127.0.0.1:{egress.port}" in body
    assert "407" in body


async def connect(proxy: Proxy, authority: str) -> tuple[int, str | None, str]:
    """Status, slug and body of what CONNECT is answered with, if it is refused."""
    async with connected(proxy.forward) as (reader, writer):
        writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        response = await asyncio.wait_for(read_response(reader, "GET"), 20)
        return response.status, response.get("x-sigward-error"), response.body.decode()


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def closing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n200 200 200\r\n\r\n")


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while not writer.is_closing():
        writer.write(b"x-more: " + b"y" * 1000 + b"\r\n")
        await writer.drain()


async def talkative(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\nand more")


async def forbids(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 403 " + b"No" * 5000 + b"\r\n\r\n")


@pytest.mark.parametrize("plan", [silent, closing, nonsense, endless, talkative, forbids])
async def test_a_proxy_that_does_not_do_it(start: Start, upstream: Upstream, egress: ConnectProxy, plan: Plan) -> None:
    egress.plan = plan
    proxy = await behind(start, upstream, url(egress), retry={"mode": "off"}, timeouts={"connect": 1.0})
    response = await proxy.ask(request())
    assert (response.status, response.get("x-sigward-error")) == (502, "connect-failed")
    assert f"127.0.0.1:{egress.port}".encode() in response.body, response.body
    assert len(response.body) < 1000
    assert upstream.connections == 0


async def test_an_answer_that_dribbles_in(start: Start, upstream: Upstream, egress: ConnectProxy) -> None:
    """One byte a segment, headers and all; then the tunnel is like any other."""

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        *answer, last = b"HTTP/1.0 200 Tunnel\r\nVia: 1.0 corp\r\nX-Cache: MISS\r\n\r\n"
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in answer:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        await egress.established(reader, writer, bytes([last]))

    egress.plan = dribble
    proxy = await behind(start, upstream, url(egress))
    assert (await proxy.ask(request())).body == b"ok"
    assert_signed(upstream.received[0], HOST)


NAME = "a.b.sigward.invalid"
"""Has no address anywhere (RFC 6761, section 6.4)."""


@pytest.mark.parametrize(
    ("no_proxy", "through"),
    [
        (".sigward.invalid", False),
        ("sigward.invalid", False),
        ("b.sigward.invalid", False),
        (NAME, False),
        ("*", False),
        ("ward.invalid", True),
        ("other.sigward.invalid", True),
        ("c.a.b.sigward.invalid", True),
        ("", True),
    ],
)
async def test_hosts_that_are_reached_without_it(start: Start, egress: ConnectProxy, no_proxy: str, *, through: bool) -> None:
    async with Upstream(hosts=(NAME,)) as upstream:
        egress.leads[f"{NAME}:443"] = upstream.port
        routes = [{"host": NAME, "service": "es"}]
        proxy = await behind(start, upstream, url(egress), *([no_proxy] if no_proxy else []), routes=routes, retry={"mode": "off"})
        response = await proxy.ask(request(host=NAME))
        assert egress.asked == ([f"{NAME}:443"] if through else [])
        assert (response.status, response.get("x-sigward-error")) == ((200, None) if through else (502, "connect-failed"))
        assert b"egress.proxy" not in response.body


async def test_where_a_route_connects_to_counts(start: Start, upstream: Upstream, egress: ConnectProxy) -> None:
    """For `no_proxy`, and for what the proxy is asked for."""
    routes = [{"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}"}]
    proxy = await behind(start, upstream, url(egress), "127.0.0.1", routes=routes)
    assert (await proxy.ask(request())).body == b"ok"
    assert egress.heads == []
    proxy.point_to(upstream.port, egress={"proxy": url(egress)})
    assert (await proxy.ask(request())).body == b"ok"
    assert egress.asked == [f"127.0.0.1:{upstream.port}"]


@pytest.mark.native(TUNNELS)
async def test_tunnels_go_through_it_too(start: Start, upstream: Upstream, egress: ConnectProxy) -> None:
    egress.leads["example.test:443"] = upstream.port
    proxy = await behind(start, upstream, url(egress, f"{USER}:{ENCODED}"))
    async with connected(proxy.forward) as (reader, writer):
        writer.write(b"CONNECT example.test:443 HTTP/1.1\r\nHost: example.test:443\r\nProxy-Authorization: Basic b3duOm93bg==\r\n\r\n")
        assert (await read_response(reader, "HEAD")).status == 200
        context = upstream_context(upstream)
        await writer.start_tls(context, server_hostname="localhost")
        writer.write(b"GET /untouched HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await asyncio.wait_for(read_response(reader), 10)).body == b"ok"
    assert egress.asked == ["example.test:443"]
    assert BASIC.encode() in egress.heads[0]
    assert b"b3duOm93bg==" not in egress.heads[0]
    assert upstream.received[0].all("authorization") == []


def upstream_context(upstream: Upstream) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=upstream.ca.cert_pem.bytes().decode())


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "[::1]", "[fd00:ec2::254]", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_local_addresses_are_not_reached_through_it(start: Start, upstream: Upstream, egress: ConnectProxy, address: str) -> None:
    """Neither by a tunnel nor by a request: the proxy might be on this very host."""
    proxy = await behind(start, upstream, url(egress))
    assert (await connect(proxy, f"{address}:{upstream.port}"))[:2] == (403, "forbidden-address")
    async with connected(proxy.forward) as (reader, writer):
        writer.write(f"GET http://{address}:{upstream.port}/ HTTP/1.1\r\nHost: {address}:{upstream.port}\r\n\r\n".encode())
        response = await asyncio.wait_for(read_response(reader), 10)
    assert (response.status, response.get("x-sigward-error")) == (403, "forbidden-address")
    assert egress.heads == []


async def test_http2_goes_through_it(start: Start, egress: ConnectProxy) -> None:
    async with Http2Upstream() as far:
        egress.leads = {f"{HOST}:443": far.port}
        settings = {"egress": {"proxy": url(egress), "http2": "always"}, "routes": []}
        proxy = await start(far, **settings)
        answers = await asyncio.gather(*(proxy.ask(request("GET", f"/{number}")) for number in range(5)))
        assert [answer.body for answer in answers] == [b"ok"] * 5
        assert_signed(far.received[0], HOST)
        assert (len(far.peers), len(egress.heads)) == (1, 1)


# ---------------------------------------------------------------- settings


def made(monkeypatch: pytest.MonkeyPatch, egress: Egress | None = None, **environment: str) -> dict[str, object]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return (egress or Egress()).engine()


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize(
    ("value", "taken"),
    [
        ("http://proxy.corp:3128", "http://proxy.corp:3128"),
        ("http://proxy.corp:3128/", "http://proxy.corp:3128"),
        ("proxy.corp:3128", "http://proxy.corp:3128"),
        ("http://me:pa%40ss@proxy.corp", "http://me:pa%40ss@proxy.corp"),
        ("http://127.0.0.1:8080", None),
        ("http://localhost:8080", None),
        ("http://[::1]:8080", None),
        ("", None),
    ],
)
def test_the_environments_proxy(monkeypatch: pytest.MonkeyPatch, name: str, value: str, taken: str | None) -> None:
    assert made(monkeypatch, **{name: value})["proxy"] == taken
    assert made(monkeypatch, Egress(proxy="off"), **{name: value})["proxy"] is None
    assert made(monkeypatch, Egress(proxy="http://other:1"), **{name: value})["proxy"] == "http://other:1"


def test_the_environments_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_PROXY counts for the settings' proxy, too; this host and the metadata services are always reached straight."""
    own = NO_PROXY.split(",")
    assert made(monkeypatch)["no_proxy"] == own
    assert made(monkeypatch, NO_PROXY=" .corp, 10.0.0.1,,INTERNAL.Example ")["no_proxy"] == [".corp", "10.0.0.1", "internal.example", *own]
    assert made(monkeypatch, Egress(no_proxy=["A.test"]))["no_proxy"] == ["a.test"]


@pytest.mark.parametrize("value", [f"socks5://{USER}:{ENCODED}@h", f"http://{USER}:{ENCODED}@", f"http://{USER}:{ENCODED}@h:x/path"])
def test_a_password_is_not_shown_by_what_refuses_it(value: str) -> None:
    with pytest.raises(_core.SettingsError) as caught:
        _core.Engine(f'{{"egress": {{"proxy": "{value}"}}}}')
    assert not any(secret in f"{caught.value!r}{caught.value.args}" for secret in (*PASSWORDS, USER))


def test_a_password_is_in_no_repr() -> None:
    egress = Egress(proxy=f"http://{USER}:{ENCODED}@h:1")
    assert ENCODED not in f"{egress!r}{egress}{Settings.model_construct(egress=egress)!r}"


GOOD, BAD = f"http://{USER}:{ENCODED}@proxy.invalid:3128", f"socks5://{USER}:{ENCODED}@proxy.invalid:3128"


@pytest.mark.parametrize(
    ("arguments", "variable", "file", "status"),
    [
        (("check",), GOOD, "", 0),
        (("check", "--egress.proxy", GOOD), "", "", 0),
        (("serve", "--egress.proxy", BAD), "", "", 64),
        (("check", "--egress.proxy", f"{USER}:{ENCODED}@proxy.invalid"), "", "", 64),
        (("check", "--egress", f'{{"proxi": "{GOOD}"}}'), "", "", 64),
        (("check", "--egress", GOOD), "", "", 64),
        (("check",), BAD, "", 64),
        (("check",), "", BAD, 64),
    ],
)
def test_the_command_line_shows_no_password(tmp_path: Path, arguments: tuple[str, ...], variable: str, file: str, status: int) -> None:
    """Neither where all is well nor where it is refused; `Shell` looks for it."""
    shell = Shell(tmp_path).keys()
    if variable:
        shell.environment["SIGWARD_EGRESS__PROXY"] = variable
    if file:
        shell.settings(f'[egress]\nproxy = "{file}"\n')
    ran = shell(*arguments)
    assert ran.status == status, ran
    assert USER not in ran.out + ran.err
