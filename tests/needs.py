"""Programs that tests need beside Python and cargo. A test without them is skipped; the end of the run says once for each how to get it."""

import os
import re
import shlex
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Tool:
    """`how`: what brings it. `built`: where make puts it, if that is no folder of PATH. `check`: a command that fails without it."""

    how: str
    built: str | None = None
    check: str | None = None


def debian(package: str, check: str | None = None) -> Tool:
    """From a package of Debian's."""
    return Tool(f"apt-get install {package}", check=check)


def made(target: str) -> Tool:
    """Built by make."""
    return Tool(f"make {target}", built=target)


TOOLS = {
    "aria2c": debian("aria2"),
    "bash": debian("bash"),
    "busybox": debian("busybox"),
    "chromedriver": debian("chromium-driver"),
    "chromium": debian("chromium"),
    "curl": debian("curl"),
    "debootstrap": debian("debootstrap"),
    "dockerd": debian("docker.io"),
    "fish": debian("fish"),
    "git": debian("git"),
    "go": debian("golang"),
    "haproxy": debian("haproxy"),
    "helm": made("build/helm/bin/helm"),
    "h2spec": made("build/h2spec/bin/h2spec"),
    "ip": debian("iproute2"),
    "ip6tables": debian("iptables"),
    "iptables": debian("iptables"),
    "iptables-nft": debian("iptables"),
    "java": debian("default-jdk-headless"),
    "javac": debian("default-jdk-headless"),
    "keytool": debian("default-jdk-headless"),
    "kubectl": debian("kubernetes-client"),
    "kustomize": made("build/kustomize/bin/kustomize"),
    "LWP::Protocol::https": debian("liblwp-protocol-https-perl", "perl -MLWP::Protocol::https -e1"),
    "mvn": debian("maven"),
    "ncat": debian("ncat"),
    "nginx": debian("nginx"),
    "node": debian("nodejs"),
    "npm": debian("npm"),
    "nsenter": debian("util-linux"),
    "rustc": Tool("https://rustup.rs"),
    "openstack-swift": debian("swift-proxy swift-account swift-container swift-object", "/usr/bin/python3 -c 'import swift, eventlet'"),
    "perl": debian("perl"),
    "php": debian("php-cli"),
    "php-curl": debian("php-curl", "php --re curl"),
    "prometheus": debian("prometheus"),
    "promtool": debian("prometheus"),
    "pycurl": debian("python3-pycurl", "/usr/bin/python3 -c 'import pycurl'"),
    "redis-server": debian("redis-server"),
    "ruby": debian("ruby"),
    "s3s-fs": made("build/s3s-fs/bin/s3s-fs"),
    "setpriv": debian("util-linux"),
    "sh": debian("dash"),
    "socat": debian("socat"),
    "systemctl": debian("systemd"),
    "systemd-analyze": debian("systemd"),
    "tofu": made("build/tofu/bin/tofu"),
    "unshare": debian("util-linux"),
    "uv": made("build/uv/bin/uv"),
    "versitygw": Tool("make s3-matrix-short", built="build/versitygw/bin/versitygw"),
    "wget": debian("wget"),
    "wget2": debian("wget2"),
    "zsh": debian("zsh"),
}

ALSO = {"redis-server": ("valkey-server",), "tofu": ("terraform",)}
"""What will do instead."""

REASON = re.compile(r"(?:Skipped: )?(?P<tool>.+?) is missing: (?P<how>.+)", re.DOTALL)


@cache
def where(tool: str) -> str | None:
    """A tool's path, or its name if it has none; None: it is not here."""
    known = TOOLS[tool]
    if known.check:
        command = shlex.split(known.check)
        works = shutil.which(command[0]) and subprocess.run(command, capture_output=True).returncode == 0
        return tool if works else None
    # Debian's daemons are in sbin, which is not on every PATH.
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    names = (tool, *ALSO.get(tool, ()))
    found = next((found for name in names if (found := shutil.which(name, path=path))), None)
    built = ROOT / known.built if known.built else None
    return str(built) if built and built.exists() else found


def lack(*tools: str) -> str | None:
    """Why a test that needs these is skipped; None: they are all here."""
    missing = next((tool for tool in tools if where(tool) is None), None)
    return f"{missing} is missing: {TOOLS[missing].how}" if missing else None


def needs(*tools: str) -> pytest.MarkDecorator:
    """Marks a test that needs all of these."""
    reason = lack(*tools)
    return pytest.mark.skipif(reason is not None, reason=reason or "")


def need(tool: str) -> str:
    """A tool's path. Skips the test where it is not."""
    found = where(tool)
    if found is None:
        pytest.skip(str(lack(tool)))
    return found


# ---------------------------------------------------------------- the end of a run


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why it was skipped."""
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr).removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each tool that was missing. What is skipped for another reason is no news."""
    missing: Counter[tuple[str, str]] = Counter()
    others = 0
    for report in terminalreporter.stats.get("skipped", []):
        if found := REASON.fullmatch(reason_of(report)):
            missing[found["tool"], found["how"]] += 1
        else:
            others += 1
    if missing:
        terminalreporter.write_sep("=", "missing tools")
        width = max(len(tool) for tool, _ in missing)
        for (tool, how), count in sorted(missing.items()):
            terminalreporter.write_line(f"{tool:{width}}  {count:4} skipped  {how}")
        if os.environ.get("CI") == "true":
            terminalreporter.write_line(f"CI ran without: {', '.join(sorted({tool for tool, _ in missing}))}")
    if others:
        terminalreporter.write_line(f"{others} skipped for other reasons: -rs lists them")
