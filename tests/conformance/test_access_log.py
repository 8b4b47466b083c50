"""The access log: a line of JSON for each request, whatever became of it, and no request waits for it."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_half_open import reset
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.conformance.test_retries import LIST, S500, answer
from tests.support import Received, Upstream, assert_no_secret, connected, counted, read_response

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
PATIENCE = 20.0


def read(*paths: Path) -> str:
    return "".join(path.read_text() for path in paths)


async def grown(path: Path, count: int) -> str:
    """The file, once it has so many lines."""
    async with asyncio.timeout(PATIENCE):
        # A file tells nobody that it grows.
        while (text := read(path)).count("\n") < count:
            await asyncio.sleep(0.01)
    return text


async def read_lines(path: Path, count: int) -> list[dict[str, Any]]:
    """So many lines, once they are there. What all of them have is checked and taken out."""
    text = await grown(path, count)
    assert_no_secret(text, "the access log")
    assert "Signature" not in text
    lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == count, lines
    for line in lines:
        assert TIME.fullmatch(line.pop("time"))
        assert line.pop("ms") >= 0
        assert line.pop("client") == "127.0.0.1"
        for attempt in line.get("attempts", ()):
            assert attempt.pop("ms") > 0
    return lines


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


async def test_a_signed_request(start: Start, upstream: Upstream, log: Path) -> None:
    proxy = await start(upstream, access_log=str(log), token="a-token-that-must-not-leak")
    upstream.answers = [answer(200, b"{}", "x-amzn-RequestId: an-id")]
    await proxy.ask(
        request("POST", "/?secret=1", LIST, "Authorization: AWS4-HMAC-SHA256 secret", "X-Amz-Security-Token: secret", body=b"{}")
    )
    assert os.stat(log).st_mode & 0o777 == 0o600  # noqa: PTH116
    assert await read_lines(log, 1) == [
        {
            "method": "POST",
            "host": HOST,
            "path": "/",
            "request_bytes": 2,
            "status": 200,
            "action": "sign",
            "route": "#1",
            "service": "sqs",
            "operation": "ListQueues",
            "region": "us-east-1",
            "identity": "default",
            "request_id": "an-id",
            "attempts": [{"outcome": "200"}],
        }
    ]
    assert "secret" not in read(log)


async def test_a_request_that_passes(start: Start, upstream: Upstream, log: Path) -> None:
    proxy = await start(upstream, access_log=str(log))
    upstream.answers = [answer(200, b"", "x-amz-request-id: of-s3")]
    await proxy.ask(request("GET", "/a%20key?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=abc&X-Amz-Expires=60", host=BUCKET_HOST))
    (line,) = await read_lines(log, 1)
    assert (line["action"], line["path"], line["status"], line["request_id"]) == ("pass", "/a%20key", 200, "of-s3")
    assert line["host"] == BUCKET_HOST


async def test_a_request_that_is_refused(start: Start, upstream: Upstream, log: Path) -> None:
    routes = [{"host": HOST, "path": "/secret*", "action": "deny"}, {"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}"}]
    proxy = await start(upstream, access_log=str(log), routes=routes)
    for path, host in (("/secret/key?x=1", HOST), ("/", "nobody.example")):
        assert (await proxy.ask(request("GET", path, host=host))).status == 403
    denied, unknown = await read_lines(log, 2)
    assert (denied["action"], denied["path"], denied["status"], denied["error"]) == ("deny", "/secret/key", 403, "denied")
    assert (unknown["action"], unknown["host"], unknown["status"]) == ("refuse", "nobody.example", 403)
    assert unknown["error"]
    assert not {"attempts"} & (denied.keys() | unknown.keys())


async def test_each_attempt(start: Start, upstream: Upstream, log: Path) -> None:
    proxy = await start(upstream, access_log=str(log), retry={"base": 0.05})
    upstream.answers = [S500, S500]
    assert (await proxy.ask(request("GET", "/path?secret=1"))).status == 200
    (line,) = await read_lines(log, 1)
    assert [attempt["outcome"] for attempt in line["attempts"]] == ["500", "500", "200"]
    assert line["waited_ms"] > 0
    assert (line["status"], line["path"]) == (200, "/path")


async def test_a_client_that_goes_before_the_answer(start: Start, upstream: Upstream, log: Path) -> None:
    proxy = await start(upstream, access_log=str(log))

    async def never(_: Received, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await reader.read()

    upstream.answers = [never]
    async with connected(proxy.reverse) as (_, writer):
        writer.write(request("GET", "/gone"))
        await upstream.wait_for(1)
        reset(writer)
    (line,) = await read_lines(log, 1)
    assert (line["path"], line["error"], line.get("status")) == ("/gone", "client-gone", None)


async def test_what_a_client_makes_up_is_one_line(start: Start, upstream: Upstream, log: Path) -> None:
    proxy = await start(upstream, access_log=str(log))
    await proxy.ask(request("GET", '/"},{"status":1,"\\'))
    (line,) = await read_lines(log, 1)
    assert line["path"].startswith(("/%22", '/"'))
    assert line["status"] == 200


async def test_settings_turn_it_on_and_off_while_it_runs(start: Start, upstream: Upstream, log: Path, tmp_path: Path) -> None:
    proxy: Proxy = await start(upstream)
    await proxy.ask(request("GET", "/untold"))
    for path, names in ((log, ["/one", "/two"]), (tmp_path / "other.log", ["/three"])):
        proxy.point_to(upstream.port, access_log=str(path))
        for name in names:
            await proxy.ask(request("GET", name))
        assert [line["path"] for line in await read_lines(path, len(names))] == names
    proxy.point_to(upstream.port, access_log=False)
    await proxy.ask(request("GET", "/untold"))
    assert "untold" not in read(log, tmp_path / "other.log")


async def test_a_pipe_that_nobody_reads_holds_no_request_up(start: Start, upstream: Upstream, log: Path) -> None:
    os.mkfifo(log)
    proxy = await start(upstream, access_log=str(log), grace=0.0)
    path = "/" + "long" * 3500

    def dropped() -> float:
        return counted(proxy.engine.metrics(), "sigward_access_log_dropped_total")

    asked = 0
    async with connected(proxy.reverse) as (reader, writer), asyncio.timeout(60):
        while not dropped():
            writer.write(request("GET", path))
            assert (await read_response(reader)).status == 200
            asked += 1
        # Whoever reads it in the end gets whole lines.
        with log.open("rb") as reading:
            first = await asyncio.to_thread(reading.readline)
    assert json.loads(first)["path"] == path
    assert asked > 100, "it takes some"


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
async def test_a_disk_that_is_full_holds_no_request_up(start: Start, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    proxy = await start(upstream, access_log="/dev/full")
    async with asyncio.timeout(PATIENCE):
        while "No space left on device" not in caplog.text:
            assert (await proxy.ask(request())).status == 200
        while counted(proxy.engine.metrics(), "sigward_access_log_errors_total") < 2:
            assert (await proxy.ask(request())).status == 200
    assert caplog.text.count("No space left on device") == 1, "it is said once"
    assert counted(proxy.engine.metrics(), "sigward_access_log_dropped_total") >= 2
