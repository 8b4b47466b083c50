"""What every test may use; and that no secret stands in anything that sigward writes while all of them run."""

import os
import re
import resource
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from sigward.demo.child import Child
from sigward.demo.emulator import Emulator
from sigward.demo.gateway import Gateway
from tests import needs
from tests.fault_table import FaultTable
from tests.support import SECRETS, assert_no_secret

ROOT = Path(__file__).resolve().parent.parent


def signing_suite() -> Path | None:
    """AWS's signing vectors: `$SIGWARD_SIGNING_SUITE`, else beside the checkout. They are not part of the project."""
    named = os.environ.get("SIGWARD_SIGNING_SUITE")
    places = [Path(named)] if named else [ROOT.parent / "shared" / "aws-signing-test-suite", ROOT / "shared" / "aws-signing-test-suite"]
    return next((place for place in places if (place / "v4").is_dir()), None)


def pytest_configure(config: pytest.Config) -> None:
    """What the end of a run shows: tools that were missing, and for `make faults` a table."""
    config.pluginmanager.register(needs)
    if config.getoption("markexpr") == "fault":
        config.pluginmanager.register(FaultTable())


@pytest.fixture(autouse=True)
def no_aws_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads the keys, profiles or proxies of whoever runs it."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "SIGWARD_")) and name not in ("SIGWARD_SIGNING_SUITE", "AWS_CA_BUNDLE"):
            monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))


@pytest.fixture
def many_descriptors() -> Generator[None]:
    """Room for thousands of connections, in this process and its children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if wanted < 5000:
        pytest.skip("a process may not have 5,000 descriptors here: see ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Log lines, stdout and stderr of every test."""
    report = yield
    try:
        for name, text in report.sections:
            assert_no_secret(text, name)
    except AssertionError as error:
        report.outcome, report.longrepr = "failed", str(error)
    return report


@pytest.fixture(scope="session", autouse=True)
def children_tell_no_secret() -> Generator[None]:
    """What every child process wrote, and every gateway's metrics."""
    stop, close, start = Child.stop, Gateway.close, Emulator.__enter__

    def checked_stop(child: Child, number: int = signal.SIGTERM) -> int:
        status = stop(child, number)
        assert_no_secret(child.output(), "a child's output")
        return status

    def checked_close(gateway: Gateway) -> None:
        if "admin" in gateway.addresses and gateway._child is not None and gateway.child.process.poll() is None:
            assert_no_secret(gateway.admin("/metrics")[1], "/metrics")
        close(gateway)

    def started(emulator: Emulator) -> Emulator:
        found = start(emulator)
        SECRETS.append(re.compile(re.escape(emulator.secret_access_key)))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Child, "stop", checked_stop)
        patch.setattr(Gateway, "close", checked_close)
        patch.setattr(Emulator, "__enter__", started)
        yield
