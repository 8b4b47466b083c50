"""deploy/kubernetes/init/sigward-init, in a network namespace: whose connections are turned round, and who reaches the metadata addresses.

It runs here as it does in its image, but with this machine's iptables.
"""

import contextlib
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.namespace import NOBODY, Namespace, NamespaceError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces and iptables are Linux's")

SCRIPT = ROOT / "deploy" / "kubernetes" / "init" / "sigward-init"
SIGWARD = 65532
TRANSPARENT = 15001
FAR = {4: "203.0.113.10", 6: "2001:db8:1::10"}
OWN = {4: "203.0.113.1", 6: "2001:db8:1::1"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
LINK_LOCAL = "169.254.20.10"
METADATA = ("169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23")


class Pod:
    """A pod's network: the namespace, whether it has IPv6, and what listens in it."""

    def __init__(self, directory: Path) -> None:
        self.namespace = Namespace(directory, tuple(f"{address}/32" for address in (FAR[4], OWN[4], LINK_LOCAL)))
        self.six = bool(self.namespace.run("cat", "/proc/net/if_inet6"))
        if self.six:
            self.namespace.run("sysctl", "-qw", "net.ipv6.ip_nonlocal_bind=1")
            for address in (FAR[6], OWN[6]):
                self.namespace.run("ip", "address", "add", f"{address}/128", "dev", "lo", "nodad")
        # As from a pod, whose own address is another: what refuses a connection would be refused itself.
        for address in METADATA:
            six = ":" in address
            if self.six or not six:
                self.namespace.run("ip", "route", "add", "local", address, "dev", "lo", "src", OWN[6 if six else 4])

    @property
    def families(self) -> tuple[int, ...]:
        return (4, 6) if self.six else (4,)

    def init(self, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Runs the script."""
        settings = [f"{name}={value}" for name, value in environment.items()]
        command = self.namespace.command("env", *settings, "sh", str(SCRIPT))
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def rules(self) -> str:
        """All rules of both families; counters and dates are none."""
        told = self.namespace.run("iptables-nft-save") + self.namespace.run("ip6tables-nft-save")
        return "\n".join(line for line in told.splitlines() if not line.startswith(("#", ":")))

    def reached(self, address: str, port: int, user: int) -> str:
        """Where a connection of this user's ends: "there", "sigward", or "refused"."""
        six = ":" in address
        with (
            contextlib.closing(self.namespace.listening(address, port)) as there,
            contextlib.closing(self.namespace.listening(LOOPBACK[6 if six else 4], TRANSPARENT)) as sigward,
        ):
            try:
                client: socket.socket = self.namespace.connected(address, port, user)
            except ConnectionRefusedError:
                return "refused"
            with contextlib.closing(client):
                ready, _, _ = select.select([there, sigward], [], [], 20)
                return "there" if ready == [there] else "sigward"


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    """A pod without rules."""
    try:
        made = Pod(tmp_path)
        made.namespace.run("iptables-nft", "-t", "nat", "-S")
    except NamespaceError as error:
        pytest.skip(str(error))
    yield made
    made.namespace.close()


def test_all_but_sigward_is_turned_round(pod: Pod) -> None:
    assert {pod.reached(FAR[family], port, NOBODY) for family in pod.families for port in (80, 443)} == {"there"}
    done = pod.init()
    assert done.returncode == 0, done.stderr
    for family in pod.families:
        for port in (80, 443):
            assert pod.reached(FAR[family], port, NOBODY) == "sigward"
            assert pod.reached(FAR[family], port, 0) == "sigward"
            assert pod.reached(FAR[family], port, SIGWARD) == "there"
        assert pod.reached(FAR[family], 8443, NOBODY) == "there"


def test_what_is_the_pods_or_the_nodes_is_not(pod: Pod) -> None:
    assert pod.init().returncode == 0
    for address in (*(LOOPBACK[family] for family in pod.families), LINK_LOCAL):
        assert pod.reached(address, 80, NOBODY) == "there"


@pytest.mark.parametrize("redirect", [str(TRANSPARENT), "off"])
@pytest.mark.parametrize("address", METADATA)
def test_metadata_is_for_sigward_alone(pod: Pod, address: str, redirect: str) -> None:
    if ":" in address and not pod.six:
        pytest.skip("there is no IPv6 here")
    # The rules decide, not this machine.
    assert pod.reached(address, 80, NOBODY) == "there"
    assert pod.init(REDIRECT_TO=redirect).returncode == 0
    assert pod.reached(address, 80, SIGWARD) == "there"
    for user in (NOBODY, 0):
        assert pod.reached(address, 80, user) == "refused"
        assert pod.reached(address, 8080, user) == "refused"
    assert pod.reached(FAR[4], 443, NOBODY) == ("there" if redirect == "off" else "sigward")


def test_udp_to_metadata_is_refused_too(pod: Pod) -> None:
    def asked(user: int) -> socket.socket:
        def made() -> socket.socket:
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.connect((METADATA[0], 53))
            client.send(b"x")
            return client

        found: socket.socket = pod.namespace.inside(made, user)
        return found

    assert pod.init().returncode == 0
    with pytest.raises(PermissionError):
        asked(NOBODY)
    asked(SIGWARD).close()


def test_it_can_run_twice(pod: Pod) -> None:
    assert pod.init().returncode == 0
    once = pod.rules()
    assert "SIGWARD-REDIRECT" in once
    assert pod.init().returncode == 0
    assert pod.rules() == once


def test_other_rules_stay(pod: Pod) -> None:
    other = ["OUTPUT", "-p", "tcp", "--dport", "4444", "-j", "ACCEPT"]
    pod.namespace.run("iptables-nft", "-A", *other)
    assert pod.init().returncode == 0
    pod.namespace.run("iptables-nft", "-C", *other)


def test_user_port_ports_and_networks_are_settings(pod: Pod) -> None:
    done = pod.init(PROXY_UID="1337", REDIRECT_PORTS="8443", EXCLUDE_CIDRS="198.51.100.0/24,2001:db8:1::/64")
    assert done.returncode == 0, done.stderr
    assert pod.reached(FAR[4], 8443, NOBODY) == "sigward"
    assert pod.reached(FAR[4], 8443, SIGWARD) == "sigward"
    assert pod.reached(FAR[4], 8443, 1337) == "there"
    assert pod.reached(FAR[4], 443, NOBODY) == "there"
    assert "198.51.100.0/24" in pod.rules()
    if pod.six:
        assert pod.reached(FAR[6], 8443, NOBODY) == "there"


@pytest.mark.parametrize(
    ("setting", "value"),
    [("PROXY_UID", "sigward"), ("REDIRECT_TO", "localhost:15001"), ("REDIRECT_PORTS", "http"), ("EXCLUDE_CIDRS", "10.0.0.0/8; reboot")],
)
def test_a_bad_setting_is_named_and_nothing_is_set(pod: Pod, setting: str, value: str) -> None:
    done = pod.init(**{setting: value})
    assert done.returncode == 64
    assert f"{setting}:" in done.stderr
    assert "hint: Write" in done.stderr
    assert "SIGWARD-" not in pod.rules()


def test_without_the_capability_it_fails(pod: Pod) -> None:
    """The pod must not start as if there were rules."""
    command = pod.namespace.command("setpriv", "--bounding-set=-all", "--inh-caps=-all", "sh", str(SCRIPT))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode not in (0, 64)
    assert "CAP_NET_ADMIN" in done.stderr
