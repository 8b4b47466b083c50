"""`sigward demo` itself, as a person runs it."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from sigward.demo.calls import all_calls
from sigward.demo.child import clean_environment
from tests.e2e.conftest import SIGWARD


def assert_whole(told: str) -> None:
    """Every call was refused without sigward, accepted with it, and counted."""
    lines = told.splitlines()
    assert sum("refused: " in line and "accepted: " in line for line in lines) == len(all_calls("us-east-1")), told
    assert any("accepted: 503, 503, 200" in line for line in lines)
    for service in ("s3", "dynamodb", "sqs", "sts", "ec2"):
        assert f"{service}/us-east-1" in told


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return clean_environment() | {"TMPDIR": str(tmp_path), "HOME": str(tmp_path), "NO_COLOR": "1"}


@pytest.mark.slow
def test_the_demo_holds_and_leaves_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    done = subprocess.run([*SIGWARD, "demo", "--front", "native"], env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_whole(done.stdout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_demo_that_keeps_running_ends_its_children_when_it_is_stopped(tmp_path: Path, environment: dict[str, str]) -> None:
    """With the default front."""
    with subprocess.Popen([*SIGWARD, "demo", "--keep"], env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        told: list[str] = []
        for line in demo.stdout:
            told.append(line)
            if "/metrics" in line:
                break
        assert_whole("".join(told))
        children = [int(pid) for pid in Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()]
        assert len(children) == 2, told
        demo.send_signal(signal.SIGTERM)
        demo.stdout.read()
        assert demo.wait(60) == 0
    assert list(tmp_path.iterdir()) == []
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_demo_of_throttling(environment: dict[str, str]) -> None:
    done = subprocess.run([*SIGWARD, "demo", "--throttle", "--seconds", "2"], env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "were throttled; with it none of" in done.stdout
    assert re.search(r"Without sigward [1-9]\d* of", done.stdout)
