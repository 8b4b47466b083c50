"""The audit log of a running sigward: rotation on SIGHUP under load, and a disk that is full for a while."""

import asyncio
import json
import resource
import signal
import sys
from pathlib import Path

import pytest

from sigward.demo.gateway import Gateway
from tests.e2e.test_access_log import contents, rotated_under_load
from tests.e2e.test_faults import PATIENCE, Load, Local, metric
from tests.support import Upstream, assert_no_secret

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sets limits of a running process")


@pytest.mark.fault("logs that are rotated under load", holds="no line is lost")
@pytest.mark.parametrize("front", ["mitmproxy", "native"])
async def test_no_line_is_lost_in_a_rotation_under_load(front: str, tmp_path: Path) -> None:
    load, clients = await rotated_under_load(front, tmp_path, "audit_log", "audit.log")
    files = contents(tmp_path, "audit.log*")
    assert len(files) == 6
    lines = [json.loads(line) for text in files for line in text.splitlines()]
    told = sorted(line["path"] for line in lines if line.get("status") == 200)
    assert told == sorted(path for client in clients for path in client.answered)
    # What went upstream is told, also where nobody waited for its answer.
    assert {received.target for received in load.upstream.received} <= {line["path"] for line in lines if line["decision"] == "sign"}
    assert_no_secret("".join(files), "the audit log")


@pytest.mark.fault("a disk that is full for a while under the audit log", holds="no line is torn or lost")
@pytest.mark.parametrize("front", ["mitmproxy", "native"])
async def test_a_disk_that_is_full_for_a_while_tears_no_line_and_loses_none(front: str, tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    async with Upstream() as upstream:
        local = Local(upstream, upstream.write_ca(tmp_path / "ca.pem"))
        gateway = await asyncio.to_thread(Gateway(local, front=front, grace=PATIENCE, audit_log=str(log)).__enter__)
        try:
            await asyncio.to_thread(gateway.wait_ready)
            load = Load(upstream, gateway)
            client = await load.client("client")
            process = gateway.child.process.pid
            # No file of its may be longer: the next line is written in part.
            _, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
            resource.prlimit(process, resource.RLIMIT_FSIZE, (100, hard))
            async with asyncio.timeout(PATIENCE):
                while not client.sent or client.answered[client.sent[-1]] == 200:
                    client.send()
                    assert await client.read()
                while not (errors := await asyncio.to_thread(metric, gateway, "sigward_audit_log_errors_total")):
                    await asyncio.sleep(0.01)
            assert errors
            assert client.answered.popitem()[1] == 503
            assert log.stat().st_size == 100
            assert await asyncio.to_thread(metric, gateway, "sigward_audit_log_refused_total") == 1
            resource.prlimit(process, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
            await asyncio.to_thread(gateway.child.wait_for, r"audit_log: .* is written again; no line is lost")
            client.send()
            assert await client.read()
            assert client.answered[client.sent[-1]] == 200
            load.signal(signal.SIGTERM)
            assert await load.exits() == 0
            client.writer.close()
        finally:
            await asyncio.to_thread(gateway.close)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["path"] for line in lines] == client.sent
    assert [line["status"] for line in lines].count(503) == 1
    assert {line["path"] for line in lines if line["status"] == 200} == {received.target for received in upstream.received}


@pytest.mark.fault("an audit log that cannot be written at the end", holds="what is lost is said")
@pytest.mark.parametrize("front", ["mitmproxy", "native"])
async def test_what_is_lost_at_the_end_is_said(front: str, tmp_path: Path) -> None:
    async with Upstream() as upstream:
        local = Local(upstream, upstream.write_ca(tmp_path / "ca.pem"))
        gateway = await asyncio.to_thread(Gateway(local, front=front, grace=PATIENCE, audit_log="/dev/full").__enter__)
        try:
            await asyncio.to_thread(gateway.wait_ready)
            load = Load(upstream, gateway)
            client = await load.client("client")
            client.send()
            assert await client.read()
            await asyncio.to_thread(gateway.child.wait_for, "audit_log: /dev/full: No space left .*; no call is signed until")
            client.send()
            assert await client.read()
            assert list(client.answered.values()) == [200, 503]
            load.signal(signal.SIGTERM)
            assert await load.exits() == 0
            client.writer.close()
            assert "audit_log: /dev/full: No space left on device (os error 28); 1 lines are lost" in gateway.child.output()
        finally:
            await asyncio.to_thread(gateway.close)
