"""sigward as a process: start, admin listener, shutdown, `sigward run`."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sigward.demo.calls import Ways
from sigward.demo.child import clean_environment
from sigward.demo.clients import Curl
from sigward.demo.emulator import Emulator
from sigward.demo.emulator_server import HOLD_HEADER
from sigward.demo.gateway import Gateway
from sigward.environ import DUMMY_KEY
from tests.e2e.conftest import SIGWARD, ask
from tests.needs import need

FORM = {"content-type": "application/x-www-form-urlencoded"}
IDENTITY = b"Action=GetCallerIdentity&Version=2011-06-15"


def test_health_readiness_and_metrics(gateway: Gateway) -> None:
    assert ask(gateway.addresses["sts"], "POST", "/", FORM, IDENTITY).status == 200
    assert gateway.admin("/healthz")[0] == 200
    assert gateway.admin("/readyz")[0] == 200
    assert gateway.admin("/nothing")[0] == 404
    status, text = gateway.admin("/metrics")
    assert status == 200
    assert (
        'sigward_requests_total{action="sign",code="200",identity="default",operation="GetCallerIdentity",region="us-east-1",service="sts"}'
        in text
    )
    assert 'sigward_signatures_total{identity="default",region="us-east-1",service="sts"}' in text
    assert "sigward_build_info{version=" in text


def held_call(gateway: Gateway, name: str) -> "subprocess.Popen[bytes]":
    """curl with a call that the emulator keeps waiting."""
    sts = f"sts.{gateway.emulator.region}.amazonaws.com"
    call = Curl(sts, "/", "POST", FORM | {HOLD_HEADER: name})
    command = [*call.command(Ways(gateway.emulator, gateway, "").through("HTTPS_PROXY")), "--data", IDENTITY.decode()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment())


def connects(address: str) -> bool:
    """True if somebody listens there."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 5):
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_under_way_ends_before_sigward_does(number: int, emulator: Emulator) -> None:
    name = f"drain-{number}"
    with Gateway(emulator, grace=30) as gateway, held_call(gateway, name) as curl:
        emulator.wait_held(name)
        gateway.child.process.send_signal(number)
        gateway.child.wait_for("stopping")
        while connects(gateway.addresses["forward"]):
            assert gateway.child.process.poll() is None
        assert gateway.child.process.poll() is None, "it ended with a request under way"
        emulator.release(name)
        out, err = curl.communicate(timeout=60)
        assert b"user/demo" in out, (out, err, gateway.child.output())
        assert out.endswith(b"\n200")
        assert gateway.child.process.wait(60) == 0


def test_the_grace_ends(emulator: Emulator) -> None:
    """A request that outlives it is cut off, and the status is 0 all the same."""
    with Gateway(emulator, grace=0.2) as gateway, held_call(gateway, "outlives") as curl:
        emulator.wait_held("outlives")
        gateway.child.process.send_signal(signal.SIGTERM)
        assert gateway.child.process.wait(60) == 0
        curl.communicate(timeout=60)
        emulator.release("outlives")


def run(config: Path, environment: dict[str, str], *program: str) -> "subprocess.CompletedProcess[str]":
    """`sigward run -- PROGRAM`."""
    command = [*SIGWARD, "run", "--config", str(config), "--", *program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


def test_run_gives_a_program_the_proxy_and_dummy_keys(config: Path, environment: dict[str, str], emulator: Emulator) -> None:
    url = f"https://sts.{emulator.region}.amazonaws.com/"
    done = run(config, environment, need("curl"), "-sS", "-d", IDENTITY.decode(), url)
    assert done.returncode == 0, done.stderr
    assert "user/demo" in done.stdout

    program = "import json, os; print(json.dumps(dict(os.environ)))"
    seen = json.loads(run(config, environment, sys.executable, "-c", program).stdout)
    assert seen["AWS_ACCESS_KEY_ID"] == DUMMY_KEY
    assert emulator.secret_access_key not in seen.values()
    assert "169.254.169.254" in seen["NO_PROXY"]


def test_run_with_the_aws_cli(config: Path, environment: dict[str, str]) -> None:
    done = run(config, environment, sys.executable, "-m", "awscli", "sts", "get-caller-identity")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Arn"].endswith("user/demo")


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + signal.SIGTERM)])
def test_run_ends_as_the_program_does(script: str, status: int, config: Path, environment: dict[str, str]) -> None:
    assert run(config, environment, "/bin/sh", "-c", script).returncode == status


def test_run_names_a_program_that_is_not_there(config: Path, environment: dict[str, str]) -> None:
    done = run(config, environment, "no-such-program")
    assert done.returncode != 0
    assert "no-such-program" in done.stderr
    assert "hint:" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_run_passes_signals_on(number: int, config: Path, environment: dict[str, str]) -> None:
    program = (
        "import signal, sys\n"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])\n"
        "print('waiting', flush=True)\n"
        f"sys.exit(30 + signal.sigwait([{int(number)}]))\n"
    )
    command = [*SIGWARD, "run", "--config", str(config), "--", sys.executable, "-c", program]
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        assert process.wait(60) == 30 + number


def test_a_taken_address_is_named(config: Path, environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [*SIGWARD, "serve", "--config", str(config), "--listen", address]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode not in (0, 1)
    assert address.rpartition(":")[2] in done.stderr
    assert "hint:" in done.stderr


def test_the_ca_is_its_owners_alone(gateway: Gateway) -> None:
    key = gateway.ca_file.parent / "mitmproxy-ca.pem"
    assert key.stat().st_mode & 0o077 == 0
