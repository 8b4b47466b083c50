"""What the service manager is told, over a datagram socket like systemd's."""

import logging
import os
import re
import signal
import socket
import sys
import uuid
from pathlib import Path

import pytest

from sigward.cli import notify
from tests.shell import Shell

PLACES = ["path", pytest.param("abstract", marks=pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's"))]


def manager_at(place: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """A manager's socket; NOTIFY_SOCKET names it."""
    name = f"@sigward-{uuid.uuid4()}" if place == "abstract" else str(directory / "notify")
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(name.replace("@", "\0") if place == "abstract" else name)
    manager.settimeout(60)
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    return manager


@pytest.mark.parametrize("front", ["mitmproxy", "native"])
@pytest.mark.parametrize("place", PLACES)
def test_serve_tells_its_manager(place: str, front: str, sigward: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with manager_at(place, tmp_path, monkeypatch) as manager:
        sigward.environment["NOTIFY_SOCKET"] = os.environ["NOTIFY_SOCKET"]
        process = sigward.keys().start("serve", "--front", front, "--listen", "127.0.0.1:0", "--admin", "off", "--region", "us-east-1")
        try:
            assert manager.recv(1000) == b"READY=1"
            process.send_signal(signal.SIGHUP)
            assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", manager.recv(1000))
            assert manager.recv(1000) == b"READY=1"
            process.send_signal(signal.SIGTERM)
            assert manager.recv(1000) == b"STOPPING=1"
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.communicate()


def test_without_a_manager_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delattr(socket, "socket")
    notify.ready()


def test_a_manager_that_is_gone_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    with caplog.at_level(logging.WARNING, "sigward"):
        notify.ready()
    assert f"NOTIFY_SOCKET: {tmp_path}/none: " in caplog.text
