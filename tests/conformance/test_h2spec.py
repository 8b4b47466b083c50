"""h2spec's cases against both fronts, over TLS, and in the clear where a front speaks HTTP/2 so.

`make build/h2spec/bin/h2spec` builds it.
"""

import asyncio
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from sigward.front import NativeFront
from sigward.mitm import Front
from tests.conformance.conftest import Proxy
from tests.needs import need, needs

CASES = 145

Case = tuple[str, str]
"""Section, and what is done."""

LARGE_FRAME: Case = ("http2/4.2", "Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE")
NO_PREFACE: Case = ("http2/3.5", "Sends invalid connection preface")

ALLOWED: dict[tuple[type, bool], dict[Case, str]] = {
    (Front, True): {LARGE_FRAME: "its SETTINGS allow frames of 128 KiB; h2spec sends 20,000 bytes, and takes 16 KiB for the limit"},
    (NativeFront, False): {NO_PREFACE: "what is no preface is HTTP/1.1 there: the client is told so in that, and the connection ends"},
}
"""Cases that a front fails, by right."""


@needs("h2spec")
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "clear"])
async def test_h2spec(proxy: Proxy, tmp_path: Path, tls: bool) -> None:
    if not tls and isinstance(proxy.front, Front):
        pytest.skip("mitmproxy speaks HTTP/2 over TLS alone")
    allowed = ALLOWED.get((type(proxy.front), tls), {}).keys()
    # On a machine that is busy, h2spec may run out of time.
    for _ in range(3):
        failed, said = await h2spec(proxy, tmp_path / "report.xml", tls=tls)
        if failed == allowed:
            return
    assert failed == allowed, said


async def h2spec(proxy: Proxy, report: Path, *, tls: bool) -> tuple[set[Case], str]:
    """What failed, and what it says of that."""
    host, port = proxy.fixed
    command = [str(need("h2spec")), "-h", host, "-p", str(port), "-o", "4", "-j", str(report), *(["-t", "-k"] if tls else [])]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    said, _ = await asyncio.wait_for(process.communicate(), 300)
    try:
        cases = list(ET.parse(report).iter("testcase"))  # noqa: S314 (of its own making)
    except FileNotFoundError:
        return {("h2spec", "does not begin")}, said.decode()
    failed = {(case.get("package", ""), case.get("classname", "")) for case in cases if {"failure", "error"} & {part.tag for part in case}}
    assert len(cases) == CASES, said.decode()
    return failed, said.decode()
