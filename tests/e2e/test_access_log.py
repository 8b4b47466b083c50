"""The access log of a running sigward: rotation on SIGHUP, and what is said of a file that cannot be opened."""

import asyncio
import json
import signal
import subprocess
from pathlib import Path

import pytest

from sigward.demo.gateway import Gateway
from tests.e2e.conftest import SIGWARD
from tests.e2e.test_faults import PATIENCE, Client, Load, Local, progressed
from tests.support import Upstream, assert_no_secret


def contents(folder: Path, pattern: str = "access.log*") -> list[str]:
    """Of every log there."""
    return [path.read_text() for path in folder.glob(pattern)]


async def rotated_under_load(front: str, folder: Path, setting: str, name: str) -> tuple[Load, list[Client]]:
    """Has a gateway write a log and rotates it five times while 16 clients send all they can, then ends it."""
    log = folder / name
    async with Upstream() as upstream:
        local = Local(upstream, upstream.write_ca(folder / "ca.pem"))
        gateway = await asyncio.to_thread(Gateway(local, front=front, grace=PATIENCE, **{setting: str(log)}).__enter__)
        try:
            await asyncio.to_thread(gateway.wait_ready)
            load = Load(upstream, gateway)
            clients = [await load.client(f"client{number}") for number in range(16)]
            running = [asyncio.create_task(client.run()) for client in clients]
            for turn in range(5):
                await progressed(clients, 5)
                log.rename(folder / f"{name}.{turn}")
                load.signal(signal.SIGHUP)
                async with asyncio.timeout(PATIENCE):
                    while not log.exists():
                        await asyncio.sleep(0.01)
            await progressed(clients, 5)
            load.signal(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(*running), PATIENCE)
            assert await load.exits() == 0
        finally:
            await asyncio.to_thread(gateway.close)
    return load, clients


@pytest.mark.fault("logs that are rotated under load", holds="no line is lost")
@pytest.mark.parametrize("front", ["mitmproxy", "native"])
async def test_no_line_is_lost_in_a_rotation_under_load(front: str, tmp_path: Path) -> None:
    load, clients = await rotated_under_load(front, tmp_path, "access_log", "access.log")
    load.nothing_is_lost()
    files = contents(tmp_path)
    assert len(files) == 6
    assert all(files), "each has some"
    lines = [json.loads(line) for text in files for line in text.splitlines()]
    told = sorted(line["path"] for line in lines if line.get("status") == 200)
    assert told == sorted(path for client in clients for path in client.answered)
    assert_no_secret("".join(files), "the access log")


@pytest.mark.fault("a log that cannot be opened again", holds="sigward keeps writing to the old file and logs it")
@pytest.mark.parametrize("front", ["mitmproxy", "native"])
async def test_a_file_that_cannot_be_opened_anew_is_used_on(front: str, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    async with Upstream() as upstream:
        local = Local(upstream, upstream.write_ca(tmp_path / "ca.pem"))
        gateway = await asyncio.to_thread(Gateway(local, front=front, grace=PATIENCE, access_log=str(folder / "access.log")).__enter__)
        try:
            await asyncio.to_thread(gateway.wait_ready)
            load = Load(upstream, gateway)
            folder.rename(tmp_path / "elsewhere")
            load.signal(signal.SIGHUP)
            await asyncio.to_thread(gateway.child.wait_for, "Could not reopen the log; still writing to the old file: access_log: ")
            client = await load.client("client")
            client.send()
            assert await asyncio.wait_for(client.read(), PATIENCE)
            load.signal(signal.SIGTERM)
            assert await load.exits() == 0
            client.writer.close()
        finally:
            await asyncio.to_thread(gateway.close)
    assert [json.loads(line)["path"] for line in (tmp_path / "elsewhere" / "access.log").read_text().splitlines()] == client.sent


def test_a_file_that_cannot_be_opened_is_named(config: Path, environment: dict[str, str], tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "access.log"
    command = [*SIGWARD, "serve", "--config", str(config), "--access-log", str(missing)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 64
    assert f"access_log: {missing}: No such file" in done.stderr
    assert "hint:" in done.stderr


def test_it_goes_to_stderr_too(config: Path, environment: dict[str, str]) -> None:
    program = ["curl", "-sS", "-d", "Action=GetCallerIdentity&Version=2011-06-15", "https://sts.us-east-1.amazonaws.com/"]
    command = [*SIGWARD, "run", "--config", str(config), "--access-log", "stderr", "--", *program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    (line,) = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert (line["operation"], line["status"], line["action"]) == ("GetCallerIdentity", 200, "sign")
