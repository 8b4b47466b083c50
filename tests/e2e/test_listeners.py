"""`sigward serve` with unix sockets, and what SIGHUP changes of a running native front."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sigward.demo.child import Child, clean_environment
from sigward.demo.gateway import inline
from tests.e2e.conftest import SIGWARD
from tests.e2e.test_faults import READ_ANEW, until
from tests.far import Far
from tests.needs import need
from tests.support import counted

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no unix sockets")

HOST = "sqs.us-east-1.amazonaws.com"


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    running = Far(tmp_path_factory.mktemp("far") / "far")
    yield running
    running.close()


class Serving:
    """A running `sigward serve --config FILE`, before an upstream, on one unix socket where Host names the endpoint."""

    def __init__(self, far: Far, directory: Path, **settings: Any) -> None:
        self.far, self.directory = far, directory
        self.socket, self.config = directory / "s", directory / "sigward.toml"
        self.write(**settings)
        environment = clean_environment() | far.credentials() | {"AWS_REGION": far.region}
        self.child = Child([*SIGWARD, "serve", "--config", str(self.config)], environment, directory)
        self.ready = self.child.wait_for(r"listening (.*)$")[1]

    def write(self, **settings: Any) -> None:
        usual = {
            "front": "native",
            "listen": "off",
            "admin": "127.0.0.1:0",
            "grace": 0.2,
            "ca_dir": str(self.directory / "ca"),
            "tls": {"ca_files": [str(self.far.ca_file)], "system_roots": False},
            "retry": {"mode": "off"},
        }
        lines = [f"{name} = {inline(value)}" for name, value in (usual | settings).items()]
        lines += ["[[reverse]]", f"listen = {json.dumps(f'unix:{self.socket}')}"]
        lines += ["[[route]]", 'host = "*.amazonaws.com"', f'connect = "127.0.0.1:{self.far.port}"']
        self.config.write_text("\n".join(lines) + "\n")

    def reload(self, **settings: Any) -> None:
        before = self.child.output().count(READ_ANEW)
        self.write(**settings)
        self.child.process.send_signal(signal.SIGHUP)
        until(lambda: self.child.output().count(READ_ANEW) > before, READ_ANEW)

    def curl(self, path: str, *arguments: str) -> str:
        """Body, and status on a line of its own."""
        command = [need("curl"), "-sS", "--max-time", "20", "-w", "\n%{http_code}", "--unix-socket", str(self.socket), *arguments]
        done = subprocess.run([*command, f"http://{HOST}{path}"], capture_output=True, text=True, env=clean_environment())
        return done.stdout or done.stderr

    def metric(self, name: str) -> float:
        address = re.search(r"admin=(\S+)", self.ready)
        assert address is not None
        done = subprocess.run(
            [need("curl"), "-sS", f"http://{address[1]}/metrics"], capture_output=True, text=True, env=clean_environment()
        )
        return counted(done.stdout, name)

    def __enter__(self) -> "Serving":
        return self

    def __exit__(self, *_: object) -> None:
        self.child.stop()


def test_a_unix_socket_from_start_to_end(far: Far, tmp_path: Path) -> None:
    with Serving(far, tmp_path) as serving:
        assert serving.ready.split()[0] == f"reverse:0=unix:{serving.socket}"
        assert serving.curl("/") == "ok\n200"
        assert serving.socket.stat().st_mode & 0o777 == 0o600
        second = subprocess.run(
            [*SIGWARD, "serve", "--config", str(serving.config)], env=clean_environment(), capture_output=True, text=True, timeout=60
        )
        assert second.returncode == 69
        assert f"cannot listen on unix:{serving.socket}" in second.stderr
        assert "in use" in second.stderr
        assert serving.curl("/") == "ok\n200"
        assert serving.child.stop() == 0
        assert not serving.socket.exists()


@pytest.mark.fault("a sigward that was killed", holds="its socket's file does not stop the next one")
def test_one_that_was_killed_leaves_a_file_that_the_next_replaces(far: Far, tmp_path: Path) -> None:
    with Serving(far, tmp_path) as serving:
        serving.child.process.kill()
        serving.child.process.wait()
        assert serving.socket.exists()
    with Serving(far, tmp_path) as serving:
        assert serving.curl("/") == "ok\n200"


def test_sighup_takes_limits_timeouts_and_the_way_out(far: Far, tmp_path: Path) -> None:
    """Of a running front, without a new connection of its clients."""
    with Serving(far, tmp_path) as serving, contextlib.ExitStack() as stack:
        assert serving.curl("/") == "ok\n200"
        # Settings that do not hold change nothing.
        serving.write(egress={"proxy": "socks5://user:a-password@proxy.invalid"})
        serving.child.process.send_signal(signal.SIGHUP)
        serving.child.wait_for("the settings are left as they were")
        assert "a-password" not in serving.child.output()
        assert serving.curl("/") == "ok\n200"

        serving.reload(limits={"target_bytes": 10})
        assert serving.curl("/0123456789").endswith("\n414")
        serving.reload(timeouts={"head": "200ms"})
        assert serving.curl("/0123456789") == "ok\n200"
        assert serving.curl("/silent").endswith("\n504")

        serving.reload(limits={"in_flight": 1})
        curl = threading.Thread(target=serving.curl, args=("/silent", "--max-time", "60"))
        curl.start()
        stack.callback(curl.join)
        until(lambda: serving.metric("sigward_in_flight_requests") == 1, "under way")
        assert serving.curl("/").endswith("\n503")
        assert serving.metric("sigward_overloaded_total") == 1

        # Nobody is there: it is asked, all the same.
        serving.reload(egress={"proxy": "http://127.0.0.1:1", "no_proxy": []})
        told = serving.curl("/")
        assert "the proxy 127.0.0.1:1 (egress.proxy)" in told
        assert told.endswith("\n502")
        serving.reload()
        assert serving.curl("/") == "ok\n200"
        assert serving.child.stop() == 0


def test_settings_that_need_the_native_front_or_a_port(far: Far, tmp_path: Path) -> None:
    """Each says so before anything is bound."""
    path = f"unix:{tmp_path}/s"
    for arguments, told in (
        (("serve", "--listen", path), "native front"),
        (("serve", "--transparent", "127.0.0.1:0"), "native front"),
        (("serve", "--front", "native", "--admin", path), "HOST:PORT is expected"),
        (("env", "--front", "native", "--listen", path), "known port"),
        (("run", "--front", "native", "--listen", path, "--", "true"), "needs a forward proxy"),
    ):
        done = subprocess.run([*SIGWARD, *arguments], env=clean_environment(), capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert done.returncode == 64, done
        assert told in done.stderr, done.stderr
        assert "hint:" in done.stderr
    assert not (tmp_path / "s").exists()


def test_run_leaves_serves_transparent_listener_alone(far: Far, tmp_path: Path) -> None:
    """It may be in use by it."""
    with Serving(far, tmp_path, transparent="127.0.0.1:0") as serving:
        port = re.search(r"transparent=127\.0\.0\.1:(\d+)", serving.ready)
        assert port is not None
        serving.write(transparent=f"127.0.0.1:{port[1]}")
        environment = clean_environment() | far.credentials()
        command = [*SIGWARD, "run", "--config", str(serving.config), "--", need("curl"), "-sS", f"https://{HOST}/"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "ok"), done.stderr


def test_sighup_tells_of_what_the_ca_was_not_made_for(far: Far, tmp_path: Path) -> None:
    with Serving(far, tmp_path, ca_names=["one.internal"]) as serving:
        assert "does not vouch" not in serving.child.output()
        serving.reload(ca_names=["one.internal", "two.internal"])
        assert "does not vouch for two.internal" in serving.child.output()
        assert "sigward ca renew" in serving.child.output()
        assert "vouch for one.internal" not in serving.child.output()
