"""`sigward healthcheck`: whom it asks, what it says, and how it ends."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sigward.cli.healthcheck import ADMIN
from sigward.settings import Settings
from tests.shell import Ran, Shell

NOT_READY = "not ready\nlisteners: shutting down\ncredentials: none yet\n"


class Readiness(BaseHTTPRequestHandler):
    """Answers as the server's `answer` says, on the right path alone."""

    def do_GET(self) -> None:
        status, text = self.server.answer if self.path == "/readyz" else (404, "lost\n")  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """A small admin listener."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Readiness)
    server.answer = (200, "ready\n")  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def admin(server: ThreadingHTTPServer) -> str:
    """Its address."""
    return f"127.0.0.1:{server.server_port}"


def test_the_default_is_the_settings_own() -> None:
    assert Settings.model_fields["admin"].default == ADMIN


def test_ready(sigward: Shell, admin: str) -> None:
    assert sigward("healthcheck", "--admin", admin) == Ran(0, "ready\n", "")


def test_not_ready_tells_why_in_one_line(sigward: Shell, server: ThreadingHTTPServer, admin: str) -> None:
    server.answer = (503, NOT_READY)  # type: ignore[attr-defined]
    assert sigward("healthcheck", "--admin", admin) == Ran(1, "not ready: listeners: shutting down; credentials: none yet\n", "")


def test_nobody_there(sigward: Shell) -> None:
    with socket.socket() as taken:
        # Bound, but it does not listen: nobody else can take the port meanwhile.
        taken.bind(("127.0.0.1", 0))
        ran = sigward("healthcheck", "--admin", f"127.0.0.1:{taken.getsockname()[1]}")
    assert (ran.status, ran.err) == (1, "")
    assert ran.out.startswith("no answer: ")
    assert ran.out.count("\n") == 1


def test_somebody_who_speaks_no_http(sigward: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"SSH-2.0-nothing\r\n")

        threading.Thread(target=answer, daemon=True).start()
        ran = sigward("healthcheck", "--admin", f"127.0.0.1:{listener.getsockname()[1]}")
    assert (ran.status, ran.err) == (1, "")
    assert ran.out.startswith("no answer: ")


def test_flag_over_variable_over_file(sigward: Shell, admin: str) -> None:
    sigward.settings(f'# first line\nadmin = "{admin}"\n')
    assert sigward("healthcheck").status == 0
    sigward.settings('admin = "127.0.0.1:1"\n')
    sigward.environment |= {"SIGWARD_ADMIN": admin}
    assert sigward("healthcheck").status == 0
    sigward.environment |= {"SIGWARD_ADMIN": "127.0.0.1:1"}
    assert sigward("healthcheck", "--admin", admin).status == 0
    assert sigward("healthcheck").status == 1
    elsewhere = sigward.home / "elsewhere.toml"
    elsewhere.write_text(f'admin = "{admin}"\n')
    del sigward.environment["SIGWARD_ADMIN"]
    assert sigward("healthcheck", "--config", str(elsewhere)).status == 0


def test_a_listener_bound_to_all_addresses(sigward: Shell, server: ThreadingHTTPServer) -> None:
    assert sigward("healthcheck", "--admin", f"0.0.0.0:{server.server_port}").status == 0


@pytest.mark.parametrize("admin", ["off", "", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "unix:/run/admin.sock", "127.0.0.1:1/x"])
def test_nothing_to_ask(sigward: Shell, admin: str) -> None:
    ran = sigward("healthcheck", f"--admin={admin}")
    assert (ran.status, ran.out) == (64, "")
    assert ran.err.startswith(f"error: --admin: {admin}: there is no known HOST:PORT to ask.\nhint: ")


def test_a_bad_value_is_told_with_its_place(sigward: Shell) -> None:
    sigward.settings('region = "eu-west-1"\nadmin = "off"\n')
    assert sigward("healthcheck").err.startswith("error: sigward.toml:2: admin: off: ")
    sigward.environment |= {"SIGWARD_ADMIN": "nowhere"}
    assert sigward("healthcheck").err.startswith("error: environment: SIGWARD_ADMIN: nowhere: ")


@pytest.mark.parametrize("flags", [["--bogus"], ["--admin"], ["--adm", "127.0.0.1:1"]])
def test_flags_that_there_are_not(sigward: Shell, flags: list[str]) -> None:
    assert sigward("healthcheck", *flags).status == 64


def test_it_imports_nothing_heavy(sigward: Shell, admin: str) -> None:
    script = (
        "import sys; from sigward.cli import main; status = main(); "
        "parts = {part for name in sys.modules for part in name.split('.')}; "
        "heavy = {'pydantic', 'mitmproxy', 'botocore', 'rich', 'asyncio', '_core'} & parts; "
        "print(sorted(heavy), file=sys.stderr); sys.exit(status)"
    )
    command = [sys.executable, "-c", script, "healthcheck", "--admin", admin]
    ran = subprocess.run(command, cwd=sigward.home, env=sigward.environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "ready\n", "[]\n")
