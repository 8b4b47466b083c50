"""The audit log of a running sigward: rotation on SIGHUP under load, and a disk that is full for a while."""

import asyncio
import re
import resource
import signal
import sys
from pathlib import Path

import pytest

from sigward.demo.gateway import Gateway
from tests.audit import begun, ended, parsed
from tests.e2e.test_access_log import contents, rotated_under_load
from tests.e2e.test_faults import PATIENCE, Load, Local, metric, progressed
from tests.support import Upstream, assert_no_secret

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sets limits of a running process")


@pytest.mark.fault("logs that are rotated under load", holds="no line is lost")
@pytest.mark.parametrize("front", ["mitmproxy", "native"])
async def test_no_line_is_lost_in_a_rotation_under_load(front: str, tmp_path: Path) -> None:
    load, clients = await rotated_under_load(front, tmp_path, "audit_log", "audit.log")
    files = contents(tmp_path, "audit.log*")
    assert len(files) == 6
    lines = [line for text in files for line in parsed(text)]
    assert len(begun(lines)) == len({line["call_id"] for line in begun(lines)})
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
            # No file of its may be longer: the first line is written in part.
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
    lines = ended(parsed(log.read_text()))
    assert [line["path"] for line in lines] == client.sent
    assert [line["status"] for line in lines] == [503, 200]
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
            assert list(client.answered.values()) == [503, 503]
            assert upstream.received == []
            load.signal(signal.SIGTERM)
            assert await load.exits() == 0
            client.writer.close()
            # The one that went before the first call, and those of the two that were refused.
            lost = re.findall(
                r"audit_log: /dev/full: No space left on device \(os error 28\); (\d+) lines are lost", gateway.child.output()
            )
            assert sum(map(int, lost)) == 3
        finally:
            await asyncio.to_thread(gateway.close)


HELD = 24
"""Calls in flight when the process ends."""

ENDS = {
    "a second SIGTERM": ([signal.SIGTERM, signal.SIGTERM], PATIENCE, 1),
    "SIGQUIT": ([signal.SIGQUIT], PATIENCE, 1),
    "SIGTERM, then SIGINT": ([signal.SIGTERM, signal.SIGINT], PATIENCE, 1),
    "the grace is over": ([signal.SIGTERM], 0.1, 0),
    "SIGKILL": ([signal.SIGKILL], PATIENCE, -signal.SIGKILL),
}
OFTEN = {"a second SIGTERM"}


@pytest.mark.fault(
    "sigward ends at once: a second SIGTERM, SIGQUIT, the grace is over, SIGKILL", holds="each call that was sent has an audit line"
)
@pytest.mark.parametrize("front", ["mitmproxy", "native"])
@pytest.mark.parametrize("end", [pytest.param(name, marks=[] if name in OFTEN else [pytest.mark.long]) for name in ENDS])
async def test_each_call_in_flight_has_its_line(front: str, end: str, tmp_path: Path) -> None:
    signals, grace, status = ENDS[end]
    log = tmp_path / "audit.log"
    async with Upstream() as upstream:
        local = Local(upstream, upstream.write_ca(tmp_path / "ca.pem"))
        gateway = await asyncio.to_thread(Gateway(local, front=front, grace=grace, audit_log=str(log)).__enter__)
        try:
            await asyncio.to_thread(gateway.wait_ready)
            load = Load(upstream, gateway)
            held = [await load.client(f"held{number}") for number in range(HELD)]
            busy = [await load.client(f"busy{number}") for number in range(8)]
            for client in held:
                client.send("held/")
            running = [asyncio.create_task(client.run()) for client in busy]
            await progressed(busy, 3)
            async with asyncio.timeout(PATIENCE):
                while {client.sent[0] for client in held} - {received.target for received in upstream.received}:
                    await asyncio.sleep(0.01)
            for number in signals:
                load.signal(number)
                if number == signal.SIGTERM:
                    await asyncio.to_thread(gateway.child.wait_for, "stopping: ")
            assert await load.exits() == status
            for client in (*held, *busy):
                client.writer.close()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        finally:
            await asyncio.to_thread(gateway.close)
    lines = parsed(log.read_text())
    executed = {received.target for received in upstream.received}
    assert len(executed) == len(upstream.received)
    assert executed <= {line["path"] for line in begun(lines)}
    over = ended(lines)
    if end == "SIGKILL":
        assert len(begun(lines)) - len(over) >= HELD, "what is open is seen"
        return
    ids = [sorted(line["call_id"] for line in lines if "call_id" in line and line.get("begun") == of) for of in (True, None)]
    assert ids[0] == ids[1], "each has its end"
    assert {line["path"] for line in over if line.get("error") == "client-gone"} >= {client.sent[0] for client in held}
