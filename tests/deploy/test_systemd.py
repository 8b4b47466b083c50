"""deploy/systemd: systemd verifies the unit, and a user's systemd runs it, sandbox and all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import need

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "systemd" / "sigward.service"
NAMESPACES = ["unshare", "--mount", "--pid", "--cgroup", "--net", "--fork"]


def verified(unit: Path, home: Path) -> "subprocess.CompletedProcess[str]":
    need("systemd-analyze")
    program = home / ".local" / "bin" / "sigward"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.touch(mode=0o755)
    environment = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "PATH": os.environ["PATH"]}
    return subprocess.run(["systemd-analyze", "verify", "--user", "--man=no", unit], env=environment, capture_output=True, text=True)


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    ran = verified(UNIT, tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_systemd_finds_mistakes(tmp_path: Path) -> None:
    wrong = tmp_path / "sigward.service"
    wrong.write_text(UNIT.read_text().replace("NoNewPrivileges", "NoNewPrivilege"))
    assert "NoNewPrivilege" in verified(wrong, tmp_path).stderr


@pytest.mark.parametrize("front", ["mitmproxy", "native"])
def test_a_users_systemd_runs_it(front: str) -> None:
    """Started means listening, a reload reads anew, a stop is a success; keys come from a program that the sandbox holds, too."""
    if os.geteuid() != 0:
        pytest.skip("needs root: for namespaces, in which a user's systemd believes that the machine runs systemd")
    for program in ("unshare", "setpriv", "ip", "systemctl"):
        need(program)
    tried = subprocess.run([*NAMESPACES, "mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"there can be no namespaces here: {tried.stderr.strip()}")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = ["unshare", "--mount", "sh", ROOT / "tests/deploy/user_systemd.sh", ROOT, sys.base_prefix, version, front]
    # A user's systemd gives its own variables to its units.
    ran = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = ran.stdout.splitlines()
    assert [line for line in told if not line.startswith(("log", "written"))] == [
        "state active",
        "ready",
        "NoNewPrivs: 1",
        "Seccomp: 2",
        "reloaded",
        "result success",
    ]
    assert {line.removeprefix("written ") for line in told if line.startswith("written ")} == {
        "/home/user/.aws/written",
        "/home/user/.config/sigward/written",
        "/run/user/sigward/written",
    }
    assert any("stopping: requests under way" in line for line in told)
