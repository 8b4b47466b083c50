"""Transparent mode for real: iptables turns connections round in a network namespace of the test's own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.harness import ROOT

NEEDED = ("unshare", "ip", "iptables", "setpriv", "curl")


def test_connections_that_were_turned_round_are_served() -> None:
    if missing := [program for program in NEEDED if shutil.which(program) is None]:
        pytest.skip(f"{', '.join(missing)} missing: apt-get install iptables iproute2 util-linux curl")
    alone = ["unshare", "--net"]
    if subprocess.run([*alone, "iptables", "-t", "nat", "-S"], capture_output=True).returncode != 0:
        pytest.skip("network namespaces and iptables are root's, and the kernel's to give")
    # Another user has to read the certificates.
    directory = Path(f"/tmp/sigward-transparent-{id(alone)}")
    directory.mkdir(mode=0o755)
    try:
        ran = subprocess.run(
            [*alone, sys.executable, "-m", "tests.e2e.turned_round", str(directory)], cwd=ROOT, capture_output=True, text=True, timeout=110
        )
    finally:
        shutil.rmtree(directory)
    assert ran.returncode == 0, ran.stdout + ran.stderr
