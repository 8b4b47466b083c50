"""Certificates under a running sigward whose clock is moved: leaves are made again, and the CA's end is no surprise."""

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from sigward.ca import CertificateAuthority
from sigward.demo.child import Child, clean_environment
from sigward.demo.gateway import Gateway
from tests.e2e.conftest import SIGWARD, ask
from tests.far import Far
from tests.moved_clock import MovedClock
from tests.support import counted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="moves the clock of a running process")

HOST = "sqs.us-east-1.amazonaws.com"
DAY = 86_400
CA_DAYS = 3650
READ_ANEW = "settings and credentials are read anew"


@pytest.fixture(params=["mitmproxy", "native"])
def front(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@dataclass
class World:
    """A sigward whose clock is so many `days` ahead of ours, and clients whose clock is too."""

    gateway: Gateway
    clock: MovedClock
    directory: Path
    days: float = 0

    def move(self, days: float) -> None:
        self.days = days
        self.clock.move(days * DAY)

    def fetch(self, *flags: str, ca_file: Path | None = None) -> str:
        """What `openssl s_client` prints of a call through the proxy. It trusts the CA alone, and verifies by the moved clock's time."""
        command = [
            *("openssl", "s_client", "-proxy", self.gateway.addresses["forward"], "-connect", f"{HOST}:443", "-servername", HOST),
            *("-verify_return_error", "-verify_hostname", HOST, "-CAfile", str(ca_file or self.gateway.ca_file), "-ign_eof"),
            *("-attime", str(int(time.time() + self.days * DAY)), *flags),
        ]
        call = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
        done = subprocess.run(command, input=call, capture_output=True, text=True, timeout=30)
        return done.stdout + done.stderr

    def leaf(self) -> x509.Certificate:
        """What a call through the proxy shows, which is answered by the upstream."""
        told = self.fetch()
        assert "Verify return code: 0 (ok)" in told, told
        assert "HTTP/1.1 200 OK" in told, told
        found = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", told, re.DOTALL)
        assert found, told
        return x509.load_pem_x509_certificate(found[0].encode())

    def reload(self) -> None:
        before = self.gateway.child.output().count(READ_ANEW)
        self.gateway.child.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 30
        while self.gateway.child.output().count(READ_ANEW) == before:
            assert time.monotonic() < end, self.gateway.child.output()
            time.sleep(0.01)

    def run(self, *arguments: str) -> tuple[int, str]:
        """Status and output of a command whose clock is the moved one."""
        environment = clean_environment() | self.gateway.credentials | {"AWS_REGION": "us-east-1"}
        command = [*SIGWARD, *arguments, "--config", str(self.gateway.config_file)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def expiry(self) -> float:
        """Days until the CA expires, as the metrics have it."""
        return counted(self.gateway.admin("/metrics")[1], "sigward_ca_expiry_seconds") / DAY


@pytest.fixture
def world(front: str, tmp_path: Path) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        far, clock = Far(tmp_path / "far"), MovedClock(tmp_path)
        stack.callback(far.close)
        gateway = stack.enter_context(Gateway(far, far.credentials() | clock.environment, front=front))
        gateway.wait_ready()
        yield World(gateway, clock, tmp_path)


@pytest.mark.fault(
    "the clock is 91, 200, 900 days further, or set back", holds="clients take the certificate of a host that was seen before"
)
def test_leaves_are_made_again(world: World) -> None:
    first = world.leaf()
    session = str(world.directory / "session")
    assert "New, TLS" in world.fetch("-sess_out", session)
    assert "Reused, TLS" in world.fetch("-sess_in", session)
    world.move(59)
    assert world.leaf().serial_number == first.serial_number
    world.move(61)
    assert "New, TLS" in world.fetch("-sess_in", session), "a session of the old leaf"
    assert world.leaf().serial_number != first.serial_number
    for days in (152, 352, 1252, 30):
        world.move(days)
        leaf = world.leaf()
        assert world.leaf().serial_number == leaf.serial_number, f"after {days} days it is made at each call"


@pytest.mark.long
@pytest.mark.fault(
    "the CA expires under a running process",
    holds="check, log, metric and /readyz say so 60 days before; then a CONNECT is refused with words; renewed, it is taken on SIGHUP",
)
def test_the_ca_expires(world: World) -> None:
    gateway = world.gateway
    assert gateway.admin("/readyz") == (200, "ready\n")
    assert CA_DAYS - 1 < world.expiry() <= CA_DAYS
    assert "expires 20" in world.run("check")[1]

    world.move(CA_DAYS - 59)
    soon = "the CA expires in 58 days"
    status, told = gateway.admin("/readyz")
    assert (status, told.startswith(f"ready\nca: {soon}"), "sigward ca renew" in told) == (200, True, True), told
    assert 58 < world.expiry() <= 59
    status, told = world.run("check")
    assert (status, f"warning      {soon}" in told, "sigward ca renew" in told) == (0, True, True), told
    world.reload()
    gateway.child.wait_for(soon)
    leaf = world.leaf()
    assert leaf.not_valid_after_utc == x509.load_pem_x509_certificate(gateway.ca_file.read_bytes()).not_valid_after_utc

    world.move(CA_DAYS + 2)
    told = world.fetch()
    assert "503" in told, told
    status, told = gateway.admin("/readyz")
    assert (status, told.startswith("ready\nca: the CA expired 2 days ago")) == (200, True), "reverse listeners serve"
    answer = ask(gateway.addresses["by-host"], headers={"host": HOST})
    assert (answer.status, answer.body) == (200, b"ok")
    assert -3 < world.expiry() <= -2
    status, told = world.run("check")
    assert (status, "the CA expired 2 days ago" in told, "sigward ca renew" in told) == (78, True, True), told
    world.reload()
    gateway.child.wait_for("the CA expired 2 days ago")

    status, told = world.run("ca", "renew")
    assert (status, "SIGHUP" in told) == (0, True), told
    assert "503" in world.fetch(), "whoever renews it says when"
    world.reload()
    certificate = x509.load_pem_x509_certificate(gateway.ca_file.read_bytes())
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    gateway.child.wait_for(f"CA changed: clients must trust SHA-256 {fingerprint}, expires {certificate.not_valid_after_utc.date()}")
    assert world.leaf().not_valid_after_utc > leaf.not_valid_after_utc
    assert gateway.admin("/readyz") == (200, "ready\n")
    assert "~/.mitmproxy" not in gateway.child.output()
    assert world.run("check")[0] == 0


@pytest.mark.long
@pytest.mark.fault("the CA has expired before the start", holds="/readyz is 503 where nobody can be served; the advice is sigward's own")
def test_an_expired_ca_at_the_start(front: str, tmp_path: Path) -> None:
    clock = MovedClock(tmp_path)
    CertificateAuthority(tmp_path / "ca").ensure()
    clock.move((CA_DAYS + 2) * DAY)
    flags = ("--front", front, "--ca-dir", str(tmp_path / "ca"), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    keys = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}
    child = Child([*SIGWARD, "serve", *flags], clean_environment() | keys | clock.environment, tmp_path)
    try:
        admin = child.wait_for(r"admin=(\S+)")[1]
        child.wait_for("the CA expired 2 days ago")
        answer = ask(admin, path="/readyz")
        assert answer.status == 503
        assert answer.body.startswith(b"not ready\nca: the CA expired 2 days ago"), answer.body
        assert b"sigward ca renew" in answer.body
        output = child.output()
    finally:
        child.stop()
    assert "ERROR" in output
    assert "mitmproxy" not in re.sub(r"mitmproxy-ca|sigward\.mitm", "", output)
