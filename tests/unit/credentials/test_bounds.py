"""Sources that give too much, too slowly, or without end: each is read to a bound, ended and named."""

import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest

from sigward.bounds import MOST, TooLargeError, read_file
from sigward.credentials import Assume, Chain, Failure, Found
from sigward.credentials.process import end_all
from tests.unit.credentials.test_providers import ROLE, START

KEYS = {"Version": 1, "AccessKeyId": "AKIDGOOD", "SecretAccessKey": "s"}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def later(minutes: float = 60) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def process(tmp_path: Path, program: str, deadline: float = 30.0) -> Found | Failure:
    """What a process gives. `program`: Python."""
    script = tmp_path / "process.py"
    script.write_text(f"import json, os, signal, subprocess, sys, time\nkeys = {json.dumps(json.dumps(KEYS))}\n{program}\n")
    command = shlex.join([sys.executable, str(script)])
    return Chain(None, "us-east-1", deadline=deadline, assume=Assume(process=command)).load()


@pytest.mark.fault("a credential process prints without end", holds="it is killed at 1 MiB, and the error says so")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_process_that_prints_without_end(tmp_path: Path, stream: str) -> None:
    child = tmp_path / "child"
    program = f"""
child = subprocess.Popen(["sleep", "600"])
open({str(child)!r}, "w").write(str(child.pid))
while True:
    sys.{stream}.write("x" * 65536)
"""
    outcome = process(tmp_path, program)
    assert isinstance(outcome, Failure)
    assert outcome.cause[0] == "identity-process"
    assert "more than 1 MiB and was killed" in outcome.cause[1]
    gone(int(child.read_text()))


@pytest.mark.fault("a credential process hangs, and so do its children", holds="they end with it")
def test_a_process_that_hangs_ends_with_its_children(tmp_path: Path) -> None:
    child = tmp_path / "child"
    program = f'child = subprocess.Popen(["sleep", "600"])\nopen({str(child)!r}, "w").write(str(child.pid))\nchild.wait()'
    outcome = process(tmp_path, program, deadline=1.0)
    assert isinstance(outcome, Failure)
    assert "no answer within" in outcome.cause[1]
    gone(int(child.read_text()))


@pytest.mark.fault("a credential process fails and leaves a program behind", holds="that ends too: each try would leave one more")
@pytest.mark.parametrize("end", ["sys.exit(3)", "os.kill(os.getpid(), signal.SIGTERM)", 'print("no keys")', 'print("[1]")'])
def test_a_process_that_fails_leaves_none_behind(tmp_path: Path, end: str) -> None:
    child = tmp_path / "child"
    program = f"""
child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
open({str(child)!r}, "w").write(str(child.pid))
{end}
"""
    assert isinstance(process(tmp_path, program), Failure)
    gone(int(child.read_text()))


@pytest.mark.fault("a credential process leaves a program behind that holds its standard output", holds="its keys are used at once")
@pytest.mark.parametrize(
    "program",
    [
        'subprocess.Popen(["sleep", "600"])\nprint(keys)',
        # The keys come from the one that is left behind.
        (
            'late = f"import sys, time; time.sleep(0.2); print({keys!r}); sys.stdout.flush(); time.sleep(600)"\n'
            'subprocess.Popen([sys.executable, "-c", late])'
        ),
        # In pieces.
        'sys.stdout.write(keys[:20])\nsys.stdout.flush()\ntime.sleep(0.1)\nsubprocess.Popen(["sleep", "600"])\nprint(keys[20:])',
    ],
)
def test_a_process_that_leaves_another_behind(tmp_path: Path, program: str) -> None:
    note = f'os.setsid() if os.getpid() != os.getsid(0) else None\nopen({str(tmp_path / "group")!r}, "w").write(str(os.getpid()))\n'
    outcome = process(tmp_path, note + program)
    assert isinstance(outcome, Found), outcome
    assert outcome.snapshot.access_key_id == "AKIDGOOD"
    os.killpg(int((tmp_path / "group").read_text()), signal.SIGKILL)


def test_what_still_runs_ends_with_sigward(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = f'open({str(note)!r} + "~", "w").write(str(os.getpid()))\nos.rename({str(note)!r} + "~", {str(note)!r})\ntime.sleep(600)'
    outcome: list[Found | Failure] = []
    worker = threading.Thread(target=lambda: outcome.append(process(tmp_path, program)))
    worker.start()
    wait(note.exists)
    end_all()
    worker.join(20)
    assert isinstance(outcome[0], Failure)
    gone(int(note.read_text()))


def gone(pid: int) -> None:
    def is_gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        # Whoever adopts it has not looked yet.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    wait(is_gone)


def wait(come: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not come():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---------------------------------------------------------------- servers


class Endless(ThreadingTCPServer):
    """Answers every request with `head`, then with `more` again and again. `sent`: bytes. `pause`: seconds between them."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.head, self.more, self.pause, self.sent = b"", b"", 0.0, 0
        self.stop = threading.Event()
        self.open = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(StreamRequestHandler):
    server: Endless

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.server.open += 1
        try:
            self.wfile.write(self.server.head)
            while not self.server.stop.wait(self.server.pause):
                self.wfile.write(self.server.more)
                self.server.sent += len(self.server.more)
        except OSError:
            return
        finally:
            self.server.open -= 1


@pytest.fixture
def endless() -> Iterator[Endless]:
    server = Endless()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


FLOOD = bytes(1 << 16)
ANSWERS = {
    "three gibibytes": (HEAD + b"Content-Length: 3221225472\r\n\r\n", FLOOD),
    "a body without a length": (HEAD + b"\r\n", FLOOD),
    "chunks without end": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + FLOOD + b"\r\n"),
    "a chunk's size without end": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1", b"0" * 65536),
    "trailers without end": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 1000),
    "a head without end": (HEAD, b"x-y: z\r\n" * 1000),
    "a line without end": (b"HTTP/1.1 200 ", b"x" * 65536),
    "interim answers without end": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
}


def metadata(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)


def container(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/keys")


def sts(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    token = Path(os.environ["AWS_CONFIG_FILE"]).with_name("token")
    token.write_text("a.b.c")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)


def sign_on(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    tokens(json.dumps({"startUrl": START, "accessToken": "t", "expiresAt": later()}))
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", url)


def tokens(content: str) -> Path:
    """A sign-on's file, and a profile for it."""
    import hashlib

    from botocore.credentials import SSOProvider

    Path(os.environ["AWS_CONFIG_FILE"]).write_text(
        f"[default]\nsso_start_url = {START}\nsso_region = us-east-1\nsso_account_id = 123456789012\nsso_role_name = ops\n"
    )
    cache = Path(SSOProvider._SSO_TOKEN_CACHE_DIR)
    cache.mkdir(parents=True, exist_ok=True)
    file = cache / f"{hashlib.sha1(START.encode(), usedforsecurity=False).hexdigest()}.json"
    file.write_text(content)
    return file


SERVERS = {"iam-role": metadata, "container-role": container, "assume-role-with-web-identity": sts, "sso": sign_on}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore names it when it is imported. Nobody sleeps between two attempts."""
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    monkeypatch.setattr("botocore.credentials.SSOProvider._SSO_TOKEN_CACHE_DIR", str(tmp_path / "sso"))
    monkeypatch.setattr("botocore.tokens.SSOTokenProvider._SSO_TOKEN_CACHE_DIR", str(tmp_path / "sso"))


@pytest.mark.fault("a metadata service, STS or SSO answers without end", holds="1 MiB is read, and the error names it")
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_answers_without_end(monkeypatch: pytest.MonkeyPatch, endless: Endless, server: str, answer: str) -> None:
    endless.head, endless.more = ANSWERS[answer]
    SERVERS[server](monkeypatch, endless.url)
    outcome = Chain(None, "us-east-1").load()
    assert isinstance(outcome, Failure)
    assert outcome.reasons[-1][0] == server or (server, "the instance metadata service does not answer") in [
        (name, why[:45]) for name, why in outcome.reasons
    ], outcome
    # What the kernel's buffers take is sent too, at each attempt.
    assert endless.sent < 6 * (MOST + (8 << 20))
    wait(lambda: endless.open == 0)


@pytest.mark.fault("a metadata service or STS answers a byte at a time", holds="the load ends in time, and nothing of it goes on")
@pytest.mark.parametrize("head", [b"", HEAD, HEAD + b"Content-Length: 1000000\r\n\r\n"])
@pytest.mark.parametrize("server", ["container-role", "assume-role-with-web-identity"])
def test_a_server_that_drips(monkeypatch: pytest.MonkeyPatch, endless: Endless, server: str, head: bytes) -> None:
    endless.head, endless.more, endless.pause = head, b"x", 0.05
    SERVERS[server](monkeypatch, endless.url)
    outcome = Chain(None, "us-east-1", deadline=0.5).load()
    assert isinstance(outcome, Failure)
    wait(lambda: not [thread for thread in threading.enumerate() if thread.name == "sigward-credentials-load"])


@pytest.mark.parametrize("program", ["sleep 600", "cat /dev/zero"])
def test_a_process_is_no_source_of_others(program: str) -> None:
    """Its keys would take a role: that STS works is not said, nor that it does not."""
    Path(os.environ["AWS_CONFIG_FILE"]).write_text(
        f"[default]\nrole_arn = {ROLE}\nsource_profile = base\n[profile base]\ncredential_process = {program}\n"
    )
    outcome = Chain(None, "us-east-1", deadline=2.0).load()
    assert isinstance(outcome, Failure)
    assert "and was killed" in outcome.cause[1]
    assert outcome.down is None


# ---------------------------------------------------------------- files


def token_file(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)


def header_file(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/keys")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(file))


def old_file(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("AWS_CREDENTIAL_FILE", str(file))


def boto_file(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("BOTO_CONFIG", str(file))


def shared_file(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))


def config_file(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))


FILES: dict[str, Callable[[Any, Path], None]] = {
    "assume-role-with-web-identity": token_file,
    "container-role": header_file,
    "ec2-credentials-file": old_file,
    "boto-config": boto_file,
    "shared": shared_file,
    "config": config_file,
}


@pytest.mark.fault("a file with a token or keys is huge, or a pipe", holds="it is read to a bound and named; nobody waits for a pipe")
@pytest.mark.parametrize("kind", ["huge", "pipe"])
@pytest.mark.parametrize("source", FILES)
def test_a_file_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, kind: str) -> None:
    file = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(file)
    else:
        with file.open("w") as written:
            written.truncate(3 << 30)
    FILES[source](monkeypatch, file)
    outcome = Chain(None, "us-east-1", deadline=10.0).load()
    assert isinstance(outcome, Failure)
    assert not outcome.cause[1].startswith("no answer within"), "it hangs"
    if kind == "huge":
        assert f"{file} is larger than" in outcome.cause[1] or str(file) in outcome.cause[1], outcome


def test_a_cache_of_tokens_is_read_to_a_bound() -> None:
    with tokens("").open("w") as written:
        written.truncate(3 << 30)
    outcome = Chain(None, "us-east-1").load()
    assert isinstance(outcome, Failure)
    assert outcome.cause[0] == "sso"
    assert outcome.hint is not None
    assert "aws sso login" in outcome.hint


def test_a_file_is_read_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(10))
    assert read_file(file, 10) == bytes(10)
    with pytest.raises(TooLargeError, match="larger than"):
        read_file(file, 9)
    for other in ("/dev/zero", str(tmp_path)):
        with pytest.raises(OSError, match=r"regular file|directory"):
            read_file(other)
