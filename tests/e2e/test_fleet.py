"""One limit for a fleet: real processes, a real Redis, and stores that are none."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.bench.bench_fleet import LIMIT, MEMBERS, ROOT, run, settings, windows
from tests.needs import needs

pytestmark = needs("redis-server")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def test_the_fleet_keeps_the_limit_and_uses_it() -> None:
    arrivals, began, told = await run(4)
    most, mean = windows(arrivals, began + 1, began + 4)
    assert most <= LIMIT * 1.1
    assert mean >= LIMIT * 0.5, "shared, not divided by fear"
    assert [(one["refused"], one["failed"]) for one in told] == [(0, 0)] * MEMBERS
    assert min(int(str(one["served"])) for one in told) > 0


@pytest.mark.fault("a Redis that goes and comes back", holds="no call fails, and the limit holds")
async def test_the_store_may_go_and_come_back() -> None:
    arrivals, began, told = await run(6, (1.5, 2.0))
    assert windows(arrivals, began + 0.5, began + 6)[0] <= LIMIT * 1.1
    assert [(one["refused"], one["failed"]) for one in told] == [(0, 0)] * MEMBERS
    logged = [line for one in told for line in one["log"]]  # type: ignore[attr-defined]
    assert any("is away" in line for line in logged)
    assert any("is back" in line for line in logged)


@pytest.fixture
def upstream() -> Iterator[int]:
    """Answers every request with 200; in a thread of its own."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Fine(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Fine)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def member(given: str, seconds: float = 2.0) -> dict[str, object]:
    """What one member tells."""
    command = [sys.executable, "-m", "tests.bench.fleet_member", given, str(seconds), "4"]
    ran = subprocess.run(command, cwd=ROOT, input="go\n", capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "panicked" not in ran.stderr
    told: dict[str, object] = json.loads(ran.stdout.splitlines()[-1])
    return told


@pytest.mark.fault("a shared store that refuses, hangs or is no Redis", holds="no call fails")
@pytest.mark.parametrize("kind", ["garbage", "silent", "hangs up", "nothing", "half an answer", "wrong types"])
def test_a_store_that_is_none_costs_no_request(upstream: int, kind: str) -> None:
    """It is said, and the sidecar keeps to its share."""
    answers = {
        "garbage": b"HTTP/1.1 400 Bad Request\r\n\r\n",
        "half an answer": b"$100\r\nhalf",
        "wrong types": b"*3\r\n+a\r\n+b\r\n+c\r\n" * 50,
        "silent": None,
        "hangs up": b"",
    }
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    stop = False

    def serve() -> None:
        kept = []
        while not stop:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            told = answers.get(kind)
            if told is None:
                kept.append(connection)
                continue
            try:
                connection.recv(4096)
                connection.sendall(told)
            except OSError:
                pass
            if kind == "hangs up":
                connection.close()
            else:
                kept.append(connection)

    if kind == "nothing":
        listener.close()
    else:
        from threading import Thread

        Thread(target=serve, daemon=True).start()
    told = member(settings(upstream, port))
    stop = True
    listener.close()
    assert (told["refused"], told["failed"]) == (0, 0)
    assert 0 < int(str(told["served"])) <= LIMIT / MEMBERS * 2.5
    assert "is away" in str(told["log"])


def store(tmp_path: Path, *options: str) -> "tuple[subprocess.Popen[bytes], int]":
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    assert program
    port = free_port()
    common = ["--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    listens = [option.replace("PORT", str(port)) for option in options] or ["--port", str(port)]
    server = subprocess.Popen([program, *common, *listens], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.02)
    return server, port


def test_a_password_that_is_wrong_is_said_and_not_shown(upstream: int, tmp_path: Path) -> None:
    server, port = store(tmp_path, "--port", "PORT", "--requirepass", "right-password")
    try:
        told = member(settings(upstream, port, shared=f"redis://:wrong-password@127.0.0.1:{port}"))
        assert "is away" in str(told["log"])
        assert "password" not in str(told["log"])
        assert int(str(told["served"])) > 0
        told = member(settings(upstream, port, shared=f"redis://:right-password@127.0.0.1:{port}"))
        assert told["log"] == []
        assert int(str(told["served"])) > LIMIT / MEMBERS * 2.5, "it has the whole limit to itself"
    finally:
        server.terminate()
        server.wait()


def test_tls_and_a_user_of_ones_own(upstream: int, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    files = ["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-ca-cert-file", "ca.pem", "--tls-auth-clients", "no"]
    files = [str(tmp_path / word) if word.endswith(".pem") else word for word in files]
    rights = "sidecar on >its-password ~sigward:pace:* +@scripting +@hash +@read +@keyspace +time +ping +client"
    user = ["--user", *rights.split()]
    server, port = store(tmp_path, "--port", "0", "--tls-port", "PORT", *files, *user)
    try:
        shared = f"rediss://sidecar:its-password@localhost:{port}"
        given = json.loads(settings(upstream, port, shared=shared))
        untrusted = member(json.dumps(given))
        assert "is away" in str(untrusted["log"])
        given["tls"] = {"ca_files": [str(tmp_path / "ca.pem")], "system_roots": False}
        told = member(json.dumps(given))
        assert told["log"] == [], told
        assert int(str(told["served"])) > LIMIT / MEMBERS * 2.5
    finally:
        server.terminate()
        server.wait()


@pytest.mark.parametrize("url", ["http://x", "redis://", "redis://user@:x/y", "rediss://h:port", "memcached://x", "rediss://h/#insecure"])
def test_a_url_that_is_none_is_refused_at_the_start(url: str) -> None:
    from sigward import _core

    with pytest.raises(_core.SettingsError, match=r"pacing\.shared"):
        _core.Engine(json.dumps({"pace": {"shared": url}}))


def test_the_password_is_not_in_the_error() -> None:
    from sigward import _core

    with pytest.raises(_core.SettingsError) as told:
        _core.Engine(json.dumps({"pace": {"shared": "redis://user:its-password@host:port"}}))
    assert "its-password" not in str(told.value)
