"""What tests need of the machine: CI has it, and the end of a run says what was missing."""

import re

import pytest

from tests import needs
from tests.conftest import ROOT

pytest_plugins = ["pytester"]

LEFT_OUT = {
    "bash": "everywhere",
    "dash": "everywhere",
    "git": "CI checks out with it",
    "perl": "everywhere",
    "util-linux": "everywhere",
    "kubernetes-client": "Debian's is older than what can render deploy/kubernetes",
}
"""What .ci/run need not install."""


def test_ci_installs_every_package() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    lists = re.findall(r"^(?:packages\+?=\(|for pair in )(.*?)(?:^\)|; do$)", script, re.MULTILINE | re.DOTALL)
    installed = {word.rpartition("=")[2] for words in lists for word in words.split()}
    named = {package for tool in needs.TOOLS.values() if tool.how.startswith("apt-get ") for package in tool.how.split()[2:]}
    assert len(installed) > 30
    assert named - installed == LEFT_OUT.keys()


def test_make_builds_the_others() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [tool.how.removeprefix("make ") for tool in needs.TOOLS.values() if tool.how.startswith("make ")]
    assert len(targets) > 5
    missing = [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)]
    assert missing == ["build/uv/bin/uv"], "that one is by the way of what needs it"


CASES = """
import pytest
from tests.needs import need, needs

@pytest.mark.parametrize("case", range(3))
@needs("sh", "no-such-tool")
def test_marked(case): pass

def test_asked(): need("no-such-tool")

def test_other(): pytest.skip("of one front alone")

def test_here(): assert need("sh").endswith("/sh")

@pytest.mark.xfail(reason="known")
def test_known(): assert False
"""


@pytest.mark.parametrize("ci", ["true", ""])
def test_a_missing_tool_is_one_line(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ci: str
) -> None:
    monkeypatch.setitem(needs.TOOLS, "no-such-tool", needs.debian("its-package"))
    monkeypatch.setenv("CI", ci)
    pytester.makepyfile(CASES)
    options = re.search(r'^addopts = "(-r\w+) ', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert options
    pytester.inline_run(options[1], "-p", "no:anyio", "-p", "no:asyncio", "-p", "no:timeout", plugins=[needs])
    told = capsys.readouterr().out
    assert "no-such-tool     4 skipped  apt-get install its-package" in told
    assert "1 skipped for other reasons: -rs lists them" in told
    assert ("CI ran without: no-such-tool" in told) == bool(ci)
    assert "SKIPPED" not in told
    assert "XFAIL test_a_missing_tool_is_one_line.py::test_known - known" in told
