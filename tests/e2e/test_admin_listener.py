"""The admin listener under clients that hold their connections: how many there are, and for how long."""

import contextlib
import json
import socket
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from sigward import _core

MOST = 512
"""Connections at once."""


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
@pytest.mark.fault(
    "thousands connect to the admin address and say nothing", holds="descriptors are bounded, and probes come through in the end"
)
def test_idle_connections_are_bounded() -> None:
    engine = _core.Engine(json.dumps({}))
    with contextlib.ExitStack() as stack:
        stack.callback(engine.close)
        place = engine.admin("127.0.0.1:0")
        before = descriptors()
        idle = [stack.enter_context(socket.create_connection(place)) for _ in range(800)]
        end = time.monotonic() + 60
        with urllib.request.urlopen(f"http://{place[0]}:{place[1]}/healthz", timeout=60) as answer:
            assert answer.read() == b"ok\n"
        assert descriptors() - before - len(idle) <= MOST + 8
        while descriptors() - before > len(idle) + 8:
            assert time.monotonic() < end, "the listener keeps them"
            time.sleep(0.05)
