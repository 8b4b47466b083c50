"""The limit on descriptors: raised for sigward, and as it was for its children."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sigward import descriptors
from sigward.credentials.process import CredentialProcess

SCRIPT = "import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE))"


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """The limits, with a soft one that is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(descriptors, "_before", None)
    low = 256 if soft == resource.RLIM_INFINITY else min(soft - 1, 256)
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    yield low, hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.fault("a soft limit of few descriptors", holds="sigward raises its own to the hard one, and its children keep what was set")
def test_it_is_raised_and_children_keep_theirs(low: tuple[int, int]) -> None:
    soft, hard = low
    command = [sys.executable, "-c", SCRIPT]
    assert descriptors.for_child(command) == command, "nothing was raised"
    descriptors.raise_limit()
    raised = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert raised == (descriptors.MOST if hard == resource.RLIM_INFINITY else min(hard, descriptors.MOST))
    # Once more changes nothing: what was set is what was set first.
    descriptors.raise_limit()
    said = subprocess.run(descriptors.for_child(command), capture_output=True, text=True, check=True).stdout.split()
    assert said[0] == str(soft)
    told = ["sh", "-c", 'ulimit -S -n; test "$1" = "a b"', "sh", "a b"]
    process = CredentialProcess(told, 30, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, _ = subprocess.Popen.communicate(process)
    assert (out.strip(), process.returncode) == (str(soft).encode(), 0)


def test_what_cannot_be_started_is_told_as_ever(low: tuple[int, int], tmp_path: Path) -> None:
    assert low[0] > 0
    descriptors.raise_limit()
    with pytest.raises(FileNotFoundError):
        subprocess.run(descriptors.for_child(["no-such-program-at-all"]), check=False)
    (tmp_path / "text").write_text("no program")
    with pytest.raises(PermissionError):
        subprocess.run(descriptors.for_child([str(tmp_path / "text")]), check=False)
