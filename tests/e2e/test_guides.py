"""The guides' commands, run: bash gets each shell block below `<!-- run -->` as it stands, but for its ports, and an emulator for AWS."""

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sigward.demo.child import clean_environment
from sigward.demo.emulator import Emulator
from sigward.demo.tunnel import Tunnel
from tests.conftest import ROOT
from tests.needs import need

GUIDES = ROOT / "docs" / "guides"

RUN = re.compile(r"^<!-- run(?:: (?P<needs>[^\n]*?))? -->\n```sh\n(?P<script>.*?)^```$", re.MULTILINE | re.DOTALL)
"""`<!-- run: COMMAND -->`: where COMMAND fails, the block cannot run."""

PORTS = ("8080", "8081", "8082", "9901")
"""The guides' own, each replaced by a free one."""


def marked() -> Iterator[tuple[str, str, str]]:
    """(where, what it needs, script)."""
    for page in sorted(GUIDES.glob("*.md")):
        text = page.read_text()
        for match in RUN.finditer(text):
            yield f"{page.name}:{text.count(chr(10), 0, match.start()) + 1}", match["needs"] or "", match["script"]


BLOCKS = list(marked())


def test_every_marker_is_followed_by_a_script() -> None:
    assert len(BLOCKS) == sum(page.read_text().count("<!-- run") for page in GUIDES.glob("*.md")) > 4


def free_ports(count: int) -> list[str]:
    """Ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def of_readme() -> str:
    """README's commands for one's own account, in its order; what they print is looked at."""
    text = (ROOT / "README.md").read_text()

    def line(start: str) -> str:
        [found] = re.findall(rf"^    ({start}.*)$", text, re.MULTILINE)
        return str(found)

    return "\n".join(
        [
            f"{line('sigward run -- curl ')} | grep user/demo",
            f"{line('sigward serve --listen off')} &",
            "curl -sS --retry 30 --retry-connrefused --retry-delay 1 --retry-all-errors --fail http://127.0.0.1:9901/readyz",
            line("AWS_ENDPOINT_URL_DYNAMODB="),
            line("curl -H .Host: sqs").replace("curl ", "curl -sS --fail ", 1),
            "kill %1",
        ]
    )


@pytest.mark.parametrize(
    ("where", "needs", "script"), [*BLOCKS, ("README.md", "", of_readme())], ids=[*(where for where, _, _ in BLOCKS), "README.md"]
)
def test_a_guide_s_commands_run(where: str, needs: str, script: str, emulator: Emulator, tmp_path: Path) -> None:
    if needs and subprocess.run(shlex.split(needs), capture_output=True).returncode:
        pytest.skip(f"`{needs}` is missing: {where} needs it")
    for program in ("bash", "curl"):
        need(program)
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    script = re.sub(rf"\b({'|'.join(PORTS)})\b", lambda match: ports[match[1]], script)
    with Tunnel(emulator.port) as tunnel:
        environment = clean_environment() | emulator.credentials()
        environment |= {
            "HOME": str(tmp_path),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "SIGWARD_LISTEN": f"127.0.0.1:{ports['8080']}",
            "SIGWARD_ADMIN": f"127.0.0.1:{ports['9901']}",
            # AWS's names lead to the emulator, whose CA sigward trusts.
            "SIGWARD_EGRESS__PROXY": tunnel.url,
            "SIGWARD_TLS__CA_FILES": str(emulator.ca_file),
            "SIGWARD_TLS__SYSTEM_ROOTS": "false",
            "XDG_CONFIG_HOME": str(tmp_path / ".config"),
        }
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{script}"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
    assert ran.returncode == 0, f"{where}\n{ran.stdout}\n{ran.stderr}"
