"""Connections that iptables' REDIRECT turned round, and names with several addresses: `sigward serve` in a network of its own.

The rule leaves out root's connections, as which the proxy runs here; clients are somebody else's.
"""

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from sigward.demo.child import Child, clean_environment
from sigward.demo.gateway import inline
from tests.namespace import NOBODY, Namespace, NamespaceError
from tests.support import KEY, SECRET, Received, Upstream, assert_signed, counted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces and iptables are Linux's")

HOST = "sqs.us-east-1.amazonaws.com"
AWS, AWS_TOO, OTHER, NOWHERE, METADATA = "203.0.113.10", "203.0.113.11", "203.0.113.20", "198.51.100.7", "169.254.169.254"
NAME, V6 = "eyeballs.sigward.test", "2001:db8::1"
OTHER_V6, NOWHERE_V6, METADATA_V6 = "2001:db8:1::20", "2001:db8:1::7", "fd00:ec2::254"
READ_ANEW = "settings and credentials are read anew"
PATIENCE = 20.0
CALL = "/?Action=ListQueues"


@dataclass
class World:
    """One namespace with a proxy in it. `ca`: of AWS's hosts here. `public`: files that everybody may read."""

    namespace: Namespace
    ca: trustme.CA
    public: Path
    child: Child
    port: int
    admin: int
    reverse: int
    settings: dict[str, Any]

    @property
    def sigward_ca(self) -> Path:
        return self.public / "sigward.pem"

    def metrics(self) -> str:
        return self.namespace.run("curl", "-sS", f"http://127.0.0.1:{self.admin}/metrics")

    def curl(self, *arguments: str, user: int = NOBODY) -> "subprocess.Popen[bytes]":
        """A client. It writes the body, and then the status and the version."""
        command = ["curl", "-sS", "--max-time", "20", "-w", "\n%{http_code} %{http_version}", *arguments]
        return subprocess.Popen(
            self.namespace.command(*command, user=user), env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    async def got(self, *arguments: str, user: int = NOBODY) -> tuple[str, str]:
        """(body, status and version) of what a client got; fails if it got nothing."""
        code, body, status = await self.tried(*arguments, user=user)
        assert code == 0, (code, body, self.child.output()[-2000:])
        return body, status

    async def tried(self, *arguments: str, user: int = NOBODY) -> tuple[int, str, str]:
        """curl's own status, body, status and version."""
        with self.curl(*arguments, user=user) as client:
            out, _ = await asyncio.to_thread(client.communicate)
        body, _, status = out.decode().rpartition("\n")
        return client.returncode, body, status

    def reload(self, **settings: Any) -> None:
        """SIGHUP with other settings."""
        before = self.child.output().count(READ_ANEW)
        write_settings(self.public / "sigward.toml", self.settings | settings)
        self.child.process.send_signal(signal.SIGHUP)
        for line in iter(lambda: self.child.output().count(READ_ANEW) > before, True):
            assert line is False
            assert self.child.process.poll() is None


def write_settings(path: Path, settings: dict[str, Any]) -> None:
    tables = {name: settings[name] for name in ("route", "reverse") if name in settings}
    lines = [f"{name} = {inline(value)}" for name, value in settings.items() if name not in tables]
    for name, rows in tables.items():
        for row in rows:
            lines += [f"[[{name}]]", *(f"{key} = {inline(value)}" for key, value in row.items())]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def public() -> Iterator[Path]:
    """Not pytest's own directory: that is closed to others."""
    with tempfile.TemporaryDirectory(prefix="sigward-tests-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.fixture(scope="module")
def namespace(public: Path) -> Iterator[Namespace]:
    addresses = tuple(f"{address}/32" for address in (AWS, AWS_TOO, OTHER, METADATA))
    try:
        made = Namespace(public, addresses)
    except NamespaceError as error:
        pytest.skip(str(error))
    try:
        made.run("ip", "route", "add", "local", f"{NOWHERE}/32", "dev", "lo")
    except NamespaceError as error:
        made.close()
        pytest.skip(str(error))
    yield made
    made.close()


@pytest.fixture(scope="module")
def world(namespace: Namespace, public: Path) -> Iterator[World]:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(public / "aws.pem"))
    settings: dict[str, Any] = {
        "front": "native",
        "listen": "off",
        "transparent": "localhost:0",
        "admin": "127.0.0.1:0",
        "ca_dir": str(public / "ca"),
        "access_log": str(public / "access.log"),
        "tls": {"ca_files": [str(public / "aws.pem")], "system_roots": False},
        "timeouts": {"dns": "50ms", "pool_idle": "1ms", "connect": "3s"},
        "retry": {"mode": "off"},
        "reverse": [{"listen": "127.0.0.1:0", "upstream": f"https://{HOST}"}],
        "route": [
            {"host": "dynamodb.us-east-1.amazonaws.com", "connect": f"{NAME}:443"},
            {"host": "*.amazonaws.com", "connect": f"{AWS}:443"},
        ],
    }
    write_settings(public / "sigward.toml", settings)
    environment = clean_environment() | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    command = namespace.command(sys.executable, "-m", "sigward", "serve", "--config", str(public / "sigward.toml"))
    # nsenter becomes the program itself.
    with Child(command, environment, public) as child:
        told = child.wait_for(
            r"listening reverse:0=127.0.0.1:(\d+) transparent=127.0.0.1:(\d+)(?: transparent-ipv6=\[::1\]:\2)? admin=127.0.0.1:(\d+)$"
        )
        reverse, port, admin = map(int, told.groups())
        shutil.copy(public / "ca" / "mitmproxy-ca-cert.pem", public / "sigward.pem")
        rule = ["OUTPUT", "-p", "tcp", "-m", "multiport", "--dports", "80,443", "-m", "owner", "!", "--uid-owner", "0"]
        try:
            namespace.run("iptables", "-t", "nat", "-A", *rule, "-j", "REDIRECT", "--to-ports", str(port))
        except NamespaceError as error:
            pytest.skip(str(error))
        yield World(namespace, ca, public, child, port, admin, reverse, settings)


class Placed(Upstream):
    """An upstream at an address of the namespace's, with a certificate of this CA; without one: plain HTTP."""

    def __init__(self, namespace: Namespace, address: str, ca: trustme.CA | None, *hosts: str, port: int = 443) -> None:
        super().__init__()
        self.address, self.port, self.namespace = address, port, namespace
        self.secure = ca is not None
        if ca is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ca.issue_cert(*hosts).configure_cert(self.context)

    async def __aenter__(self) -> "Placed":
        listener = self.namespace.listening(self.address, self.port)
        self.server = await asyncio.start_server(self._serve, sock=listener, ssl=self.context if self.secure else None)
        return self


@pytest.fixture
async def aws(world: World) -> AsyncIterator[Placed]:
    async with Placed(world.namespace, AWS, world.ca, "*.us-east-1.amazonaws.com") as running:
        yield running


def at(host: str, address: str, port: int = 443) -> tuple[str, ...]:
    """Where a client takes this name to be."""
    return ("--resolve", f"{host}:{port}:{address}")


def untouched(received: Received) -> bool:
    return not any(name.lower().startswith(("x-amz", "authorization", "via", "x-forwarded")) for name, _ in received.headers)


# ---------------------------------------------------------------- AWS's hosts


@pytest.mark.parametrize(("flag", "version"), [("--http1.1", "1.1"), ("--http2", "2")])
async def test_tls_to_an_aws_host_is_signed(world: World, aws: Placed, flag: str, version: str) -> None:
    """Wherever the client takes it to be; where it goes is found anew from its name."""
    body, status = await world.got(flag, "--cacert", str(world.sigward_ca), *at(HOST, NOWHERE), f"https://{HOST}{CALL}")
    assert (body, status) == ("ok", f"200 {version}")
    assert_signed(aws.received[0], HOST)


async def test_plain_http_to_an_aws_host_goes_out_signed_over_tls(world: World, aws: Placed) -> None:
    body, status = await world.got(*at(HOST, NOWHERE, 80), "-d", "x=1", f"http://{HOST}{CALL}")
    assert (body, status) == ("ok", "200 1.1")
    assert_signed(aws.received[0], HOST)
    assert aws.received[0].body == b"x=1"


async def test_a_host_header_for_another_host_is_refused_within(world: World, aws: Placed) -> None:
    resolve = (*at(HOST, NOWHERE), "--cacert", str(world.sigward_ca))
    _, status = await world.got("--http1.1", *resolve, "-H", "Host: s3.us-east-1.amazonaws.com", f"https://{HOST}/")
    assert status.startswith("421")
    assert aws.received == []


async def test_a_client_hello_that_dribbles_in(world: World, aws: Placed) -> None:
    """Each byte in a segment of its own."""
    context = ssl.create_default_context(cafile=str(world.sigward_ca))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    client = world.namespace.connected(NOWHERE, 443)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def talk() -> bytes:
        first = True
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                data = outgoing.read()
                for piece in [data[at : at + 1] for at in range(len(data))] if first else [data]:
                    client.sendall(piece)
                first = False
                incoming.write(client.recv(65536))
        tls.write(f"GET {CALL} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        client.sendall(outgoing.read())
        got = b""
        while b"\r\n\r\nok" not in got:
            try:
                got += tls.read()
            except ssl.SSLWantReadError:
                incoming.write(client.recv(65536))
        return got

    with contextlib.closing(client):
        client.settimeout(PATIENCE)
        assert (await asyncio.to_thread(talk)).startswith(b"HTTP/1.1 200")
    assert_signed(aws.received[0], HOST)


# ---------------------------------------------------------------- all others


async def test_another_hosts_tls_goes_where_it_was_bound_for(world: World) -> None:
    """By its name or without one: the certificate that the client sees is the other host's own."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(world.public / "other.pem"))
    async with Placed(world.namespace, OTHER, ca, "other.test", OTHER) as other:
        trust = ("--cacert", str(world.public / "other.pem"))
        for asked in ((*at("other.test", OTHER), "https://other.test/named"), (f"https://{OTHER}/unnamed",)):
            body, status = await world.got("--http1.1", *trust, *asked)
            assert (body, status) == ("ok", "200 1.1")
        assert [received.target for received in other.received] == ["/named", "/unnamed"]
        assert all(untouched(received) for received in other.received)


async def test_plain_http_goes_where_it_was_bound_for(world: World) -> None:
    """Whatever it says: the first request decides, and what follows it on the connection is not looked into."""
    async with Placed(world.namespace, OTHER, None, port=80) as other:
        body, _ = await world.got(*at("other.test", OTHER, 80), "http://other.test/plain", "http://other.test/again")
        assert body.startswith("ok")
        assert {received.connection for received in other.received} == {1}
        odd = b"GET /odd HTTP/1.1\r\nhost:other.test\r\nX Y: bad\r\n\r\n"
        client = world.namespace.connected(OTHER, 80)
        with contextlib.closing(client):
            client.settimeout(PATIENCE)
            client.sendall(odd)
            assert (await asyncio.to_thread(client.recv, 100)).startswith(b"HTTP/1.1 200")
        assert [received.target for received in other.received] == ["/plain", "/again", "/odd"]
        assert all(untouched(received) for received in other.received)


async def test_what_is_neither_tls_nor_http_goes_where_it_was_bound_for(world: World) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data.upper())
        writer.write(b"ended")
        writer.close()

    server = await asyncio.start_server(echo, sock=world.namespace.listening(OTHER, 443))
    client = world.namespace.connected(OTHER, 443)
    with contextlib.closing(client), contextlib.closing(server):
        client.settimeout(PATIENCE)
        client.sendall(b"\0\1 hello")
        assert await asyncio.to_thread(client.recv, 100) == b"\0\1 HELLO"
        client.shutdown(socket.SHUT_WR)
        assert await asyncio.to_thread(client.recv, 100) == b"ended"


async def test_a_host_that_is_away_ends_the_connection(world: World) -> None:
    code, body, _ = await world.tried(*at("other.test", OTHER, 80), "http://other.test/")
    assert code in (52, 56), (code, body)


# ---------------------------------------------------------------- what is not reached


@pytest.mark.parametrize("user", [0, NOBODY])
async def test_who_connects_to_the_listener_itself_is_let_go(world: World, aws: Placed, user: int) -> None:
    code, _, status = await world.tried("-H", f"Host: {HOST}", f"http://127.0.0.1:{world.port}{CALL}", user=user)
    assert code in (52, 56)
    assert status == "000 0"
    assert aws.received == []


@pytest.mark.parametrize("address", [METADATA, "127.0.0.1"])
async def test_metadata_and_loopback_are_not_reached(world: World, address: str) -> None:
    async with Placed(world.namespace, address, None, port=80) as local:
        # Nothing is wrong with it.
        assert (await world.got(f"http://{address}/root", user=0))[0] == "ok"
        code, _, _ = await world.tried(f"http://{address}/latest/meta-data/")
        assert code in (52, 56)
        assert [received.target for received in local.received] == ["/root"]


async def test_no_tunnels_where_keys_are_required(world: World, aws: Placed) -> None:
    """Neither for what is no AWS host; nor is an AWS host's request without a key served. SIGHUP changes it, both ways."""
    async with Placed(world.namespace, OTHER, None, port=80) as other:
        plain = (*at("other.test", OTHER, 80), "http://other.test/")
        call = ("--cacert", str(world.sigward_ca), *at(HOST, NOWHERE), f"https://{HOST}{CALL}")
        world.reload(clients={"required": True, "key_file": str(world.public / "clients.key"), "app": {}})
        try:
            assert (await world.tried(*plain))[0] in (52, 56)
            _, status = await world.got(*call)
            assert status.startswith("403")
            assert (other.received, aws.received) == ([], [])
        finally:
            world.reload()
        assert (await world.got(*plain))[0] == "ok"
        assert (await world.got(*call))[0] == "ok"


# ---------------------------------------------------------------- IPv6


@pytest.fixture(scope="module")
def ipv6(world: World) -> World:
    """The same for connections over IPv6."""
    if "transparent-ipv6=" not in world.child.output():
        pytest.skip("there is no ::1 here")
    rule = ["OUTPUT", "-p", "tcp", "-m", "multiport", "--dports", "80,443", "-m", "owner", "!", "--uid-owner", "0"]
    try:
        world.namespace.run("ip6tables", "-t", "nat", "-A", *rule, "-j", "REDIRECT", "--to-ports", str(world.port))
        for address in (OTHER_V6, NOWHERE_V6, METADATA_V6):
            world.namespace.run("ip", "address", "add", f"{address}/128", "dev", "lo", "nodad")
    except NamespaceError as error:
        pytest.skip(str(error))
    return world


async def test_ipv6_to_an_aws_host_is_signed(ipv6: World, aws: Placed) -> None:
    """It goes on over IPv4, as its name says."""
    resolve = (*at(HOST, f"[{NOWHERE_V6}]"), *at(HOST, f"[{NOWHERE_V6}]", 80), "--cacert", str(ipv6.sigward_ca))
    for scheme in ("https", "http"):
        body, _ = await ipv6.got(*resolve, f"{scheme}://{HOST}{CALL}")
        assert body == "ok"
    for received in aws.received:
        assert_signed(received, HOST)
    assert len(aws.received) == 2


async def test_another_hosts_ipv6_goes_where_it_was_bound_for(ipv6: World) -> None:
    async with Placed(ipv6.namespace, OTHER_V6, None, port=80) as other:
        assert (await ipv6.got(f"http://[{OTHER_V6}]/six"))[0] == "ok"
        assert [received.target for received in other.received] == ["/six"]
        assert untouched(other.received[0])


def test_where_there_is_no_ipv6_it_listens_on_ipv4_alone(tmp_path: Path) -> None:
    try:
        namespace = Namespace(tmp_path, ())
        namespace.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    except NamespaceError as error:
        pytest.skip(str(error))
    settings = {"front": "native", "listen": "off", "transparent": "localhost:0", "admin": "off", "ca_dir": str(tmp_path / "ca")}
    write_settings(tmp_path / "sigward.toml", settings)
    command = namespace.command(sys.executable, "-m", "sigward", "serve", "--config", str(tmp_path / "sigward.toml"))
    with contextlib.closing(namespace), Child(command, clean_environment(), tmp_path) as child:
        child.wait_for(r"listening transparent=127\.0\.0\.1:\d+$")


async def test_metadata_is_not_reached_over_ipv6(ipv6: World) -> None:
    async with Placed(ipv6.namespace, METADATA_V6, None, port=80) as local:
        assert (await ipv6.got(f"http://[{METADATA_V6}]/root", user=0))[0] == "ok"
        assert (await ipv6.tried(f"http://[{METADATA_V6}]/latest/meta-data/"))[0] in (52, 56)
        assert [received.target for received in local.received] == ["/root"]


# ---------------------------------------------------------------- metrics, names


async def test_connections_are_counted_and_told(world: World, aws: Placed) -> None:
    await world.got("--cacert", str(world.sigward_ca), *at(HOST, NOWHERE), f"https://{HOST}/told{CALL[1:]}")
    async with asyncio.timeout(PATIENCE):
        while counted(world.metrics(), "sigward_client_connections"):
            await asyncio.sleep(0.05)
        while not (lines := [json.loads(line) for line in (world.public / "access.log").read_text().splitlines() if "/told" in line]):
            await asyncio.sleep(0.05)
    assert (lines[0]["host"], lines[0]["action"]) == (HOST, "sign")


def named(world: World, *lines: str) -> None:
    """Makes its /etc/hosts, in place: the process has this very file."""
    with world.namespace.hosts.open("r+") as file:
        file.write("".join(f"{line}\n" for line in ("127.0.0.1 localhost", *lines)))
        file.truncate()


async def asked(world: World) -> tuple[str, str]:
    resolve = at("dynamodb.us-east-1.amazonaws.com", NOWHERE)
    return await world.got("--cacert", str(world.sigward_ca), *resolve, "https://dynamodb.us-east-1.amazonaws.com/")


async def test_a_name_is_asked_for_anew(world: World, aws: Placed) -> None:
    """After `timeouts.dns`; until then what was found counts."""
    async with Placed(world.namespace, AWS_TOO, world.ca, "*.us-east-1.amazonaws.com") as too:
        named(world, f"{AWS} {NAME}")
        assert (await asked(world))[0] == "ok"
        assert (len(aws.received), len(too.received)) == (1, 0)
        named(world, f"{AWS_TOO} {NAME}")
        async with asyncio.timeout(PATIENCE):
            while not too.received:
                assert (await asked(world))[0] == "ok"
        world.reload(timeouts={**world.settings["timeouts"], "dns": "1h"})
        try:
            await asked(world)
            count = len(too.received)
            named(world, f"{AWS} {NAME}")
            for _ in range(3):
                assert (await asked(world))[0] == "ok"
            assert len(too.received) == count + 3
        finally:
            world.reload()


async def test_a_dead_ipv6_address_does_not_hold_up_a_live_ipv4_one(world: World, aws: Placed) -> None:
    """RFC 8305: packets to the first vanish, so only a second attempt beside it comes through before the time is over."""
    try:
        world.namespace.run("ip", "link", "add", "void", "type", "veth", "peer", "name", "end")
    except NamespaceError as error:
        pytest.skip(str(error))
    world.namespace.run("ip", "address", "add", "2001:db8::2/64", "dev", "void", "nodad")
    for end in ("void", "end"):
        world.namespace.run("ip", "link", "set", end, "up")
    world.namespace.run("ip", "-6", "neigh", "add", V6, "lladdr", "02:00:00:00:00:01", "dev", "void", "nud", "permanent")
    named(world, f"{V6} {NAME}", f"{AWS} {NAME}")
    sent = vanished(world)
    assert (await asked(world))[0] == "ok"
    assert_signed(aws.received[0], "dynamodb.us-east-1.amazonaws.com")
    assert vanished(world) > sent, "the IPv6 address was not tried"
    # Nothing but the dead one.
    named(world, f"{V6} {NAME}")
    async with asyncio.timeout(PATIENCE):
        while (answer := await asked(world))[1].startswith("200"):
            pass
    assert answer[1].startswith("502")
    assert "no connection within 3s" in answer[0]


def vanished(world: World) -> int:
    """Packets that were sent to nowhere."""
    [link] = json.loads(world.namespace.run("ip", "-json", "-s", "link", "show", "void"))
    count: int = link["stats64"]["tx"]["packets"]
    return count


# ---------------------------------------------------------------- the environment's proxy


async def test_the_environments_proxy_is_used(namespace: Namespace, world: World, aws: Placed, tmp_path: Path) -> None:
    """HTTPS_PROXY of sigward's own environment, unless it is on this host; NO_PROXY's hosts are reached straight."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        raw = namespace.connected(AWS, 443, 0)
        far_reader, far_writer = await asyncio.open_connection(sock=raw)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    server = await asyncio.start_server(serve, sock=namespace.listening(OTHER, 3128))
    settings = world.settings | {"transparent": "off", "ca_dir": str(tmp_path / "ca"), "access_log": "off", "route": []}
    write_settings(tmp_path / "sigward.toml", settings)
    environment = clean_environment() | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    environment |= {"HTTPS_PROXY": f"http://user:the-proxys-own@{OTHER}:3128", "NO_PROXY": "dynamodb.us-east-1.amazonaws.com"}
    command = namespace.command(sys.executable, "-m", "sigward", "serve", "--config", str(tmp_path / "sigward.toml"))
    with contextlib.closing(server):
        child = await asyncio.to_thread(Child, command, environment, tmp_path)
        try:
            told = await asyncio.to_thread(child.wait_for, r"listening reverse:0=127.0.0.1:(\d+)")
            body, _ = await world.got(f"http://127.0.0.1:{told[1]}{CALL}", user=0)
            assert body == "ok"
            assert_signed(aws.received[0], HOST)
            assert heads[0].startswith(f"CONNECT {HOST}:443 HTTP/1.1\r\n".encode())
            assert b"Proxy-Authorization: Basic dXNlcjp0aGUtcHJveHlzLW93bg==" in heads[0]
        finally:
            await asyncio.to_thread(child.stop)
        assert "the-proxys-own" not in child.output()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


# ---------------------------------------------------------------- its own connections

MOST_DESCRIPTORS = 60
"""Of one process with a few connections. Without an end, a loop takes thousands in a second."""
RING_DESCRIPTORS = 400
"""Of each of two processes that redirect each other's connections: they end it when a few dozen are silent."""
UNSPOKEN = 5432
"""A port whose server speaks first: nothing is waited for."""


@dataclass
class Loose:
    """A proxy whose own connections are redirected, too: to itself, or to another. `group`: of its process."""

    child: Child
    port: int
    admin: int

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.child.process.pid}/fd").iterdir()))


@contextlib.contextmanager
def loose(namespace: Namespace, directory: Path, ca: Path, group: int) -> Iterator[Loose]:
    directory.mkdir(exist_ok=True)
    settings = {
        "front": "native",
        "listen": "off",
        "transparent": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "ca_dir": str(directory / "ca"),
        "tls": {"ca_files": [str(ca)], "system_roots": False},
        "timeouts": {"connect": "3s", "pool_idle": "1ms"},
        "retry": {"mode": "off"},
        "route": [{"host": "*.amazonaws.com", "connect": f"{AWS}:443"}],
    }
    write_settings(directory / "sigward.toml", settings)
    environment = clean_environment() | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    serve = [sys.executable, "-m", "sigward", "serve", "--config", str(directory / "sigward.toml")]
    command = namespace.command("setpriv", f"--regid={group}", "--clear-groups", *serve)
    with Child(command, environment, directory) as child:
        port, admin = map(int, child.wait_for(r"listening transparent=127.0.0.1:(\d+) admin=127.0.0.1:(\d+)$").groups())
        yield Loose(child, port, admin)


@pytest.fixture
def alone(public: Path) -> Iterator[Namespace]:
    """A namespace whose rules are this test's."""
    directory = public / "alone"
    directory.mkdir(exist_ok=True)
    try:
        made = Namespace(directory, (f"{AWS}/32", f"{OTHER}/32"))
    except NamespaceError as error:
        pytest.skip(str(error))
    with contextlib.closing(made):
        yield made


def redirect(namespace: Namespace, port: int, *match: str) -> None:
    rule = ["OUTPUT", "-p", "tcp", "-m", "multiport", "--dports", f"80,443,{UNSPOKEN}", *match]
    try:
        namespace.run("iptables", "-t", "nat", "-A", *rule, "-j", "REDIRECT", "--to-ports", str(port))
    except NamespaceError as error:
        pytest.skip(str(error))


def ended(client: socket.socket) -> bytes:
    """What comes until the connection ends."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while data := client.recv(65536):
            got += data
    return got


@pytest.mark.native("mitmproxy's front has no transparent mode")
@pytest.mark.fault(
    "iptables redirects sigward's own connections to itself", holds="each is refused at its second turn, and the log names the rule"
)
async def test_its_own_connections_are_recognised(alone: Namespace, public: Path) -> None:
    """No exception for its user. Whatever a connection carries, and whether its client or its server speaks first."""
    ca = public / "aws-alone.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    with loose(alone, public / "self", ca, 0) as proxy:
        redirect(alone, proxy.port)
        before = proxy.descriptors()
        for port, said in ((UNSPOKEN, b""), (443, b"\0\1 neither"), (80, b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n")):
            client = alone.connected(OTHER, port)
            with contextlib.closing(client):
                client.settimeout(PATIENCE)
                client.sendall(said)
                got = await asyncio.to_thread(ended, client)
                assert proxy.descriptors() < before + MOST_DESCRIPTORS
                if port == 80:
                    assert got.startswith(b"HTTP/1.1 508 ")
                    assert b"x-sigward-error: loop" in got
        # A call that is signed says why it does not go out.
        shutil.copy(public / "self" / "ca" / "mitmproxy-ca-cert.pem", public / "self.pem")
        command = ["curl", "-sS", "--max-time", "20", "-w", " %{http_code}", "--cacert", str(public / "self.pem"), *at(HOST, AWS)]
        answer = await asyncio.to_thread(alone.run, *command, f"https://{HOST}{CALL}", user=NOBODY)
        assert answer.endswith(" 508")
        assert "leads back" in answer
        assert "--uid-owner" in proxy.child.output()
        metrics = alone.run("curl", "-sS", f"http://127.0.0.1:{proxy.admin}/metrics")
        assert counted(metrics, "sigward_loops_total") >= 4
        assert proxy.descriptors() < before + MOST_DESCRIPTORS


@pytest.mark.long
@pytest.mark.native("mitmproxy's front has no transparent mode")
@pytest.mark.fault("two sigwards redirect each other's connections", holds="the circle has an end, and closes from there")
async def test_a_circle_of_two_has_an_end(alone: Namespace, public: Path) -> None:
    ca = public / "aws-alone.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    with loose(alone, public / "one", ca, 0) as one, loose(alone, public / "other", ca, 1234) as other:
        redirect(alone, one.port, "-m", "owner", "--gid-owner", "1234")
        redirect(alone, other.port, "-m", "owner", "!", "--gid-owner", "1234")
        client = alone.connected(OTHER, UNSPOKEN)
        with contextlib.closing(client):
            client.settimeout(PATIENCE)
            assert await asyncio.to_thread(ended, client) == b""
        assert max(one.descriptors(), other.descriptors()) < RING_DESCRIPTORS
        async with asyncio.timeout(PATIENCE):
            while max(one.descriptors(), other.descriptors()) > MOST_DESCRIPTORS:
                await asyncio.sleep(0.05)
