"""The parts joined: which identity's keys come from where."""

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sigward.cli.commands import Serve, read
from sigward.cli.serving import JsonFormatter, Service, load_addon, tell
from sigward.errors import UsageError
from tests.shell import Shell


def test_an_identity_that_a_route_names_is_the_profile_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    routes = [{"host": "a", "identity": "other"}, {"host": "b", "action": "deny", "identity": "unused"}, {"host": "c"}]
    service = Service(read(Serve, "sigward serve", ["--profile", "main", "--route", json.dumps(routes)]).plan())
    try:
        assert {name: keeper._chain.profile for name, keeper in service.keepers.items()} == {"other": "other", "default": "main"}
        service.refresh("nobody")
        assert not service.engine.is_ready()
    finally:
        service.engine.close()


@pytest.mark.fault("the front fails while sigward ends", holds="the logs get their last lines all the same")
async def test_the_engine_is_closed_whatever_fails_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    service = Service(read(Serve, "sigward serve", []).plan())

    class Front:
        async def drain(self) -> None:
            raise RuntimeError("a bug")

    service.front = Front()
    closed: list[float] = []
    monkeypatch.setattr(service, "close", closed.append)
    with pytest.raises(RuntimeError, match="a bug"):
        await service.stop()
    assert len(closed) == 1
    service.engine.close()


@pytest.mark.parametrize("text", ["this is no Python", "raise RuntimeError('at import')"])
def test_an_addon_that_cannot_be_imported_is_named(tmp_path: Path, text: str) -> None:
    script = tmp_path / "addon.py"
    script.write_text(text)
    for path in (script, tmp_path / "not-there.py"):
        with pytest.raises(UsageError, match=path.name) as caught:
            load_addon(path)
        assert caught.value.exit_code == 64


def test_a_line_for_others_is_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pieces(list[str]):
        write = list.append

        def flush(self) -> None: ...

    pieces = Pieces()
    monkeypatch.setattr("sys.stderr", pieces)
    tell("sigward: listening admin=127.0.0.1:1")
    assert pieces == ["sigward: listening admin=127.0.0.1:1\n"]


def record(message: str, *arguments: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("sigward.engine.fleet", logging.WARNING, "", 0, message, arguments, None)
    made.created = 1_440_938_160.0075
    vars(made).update(more)
    return made


def test_a_log_line_of_json() -> None:
    line = JsonFormatter().format(record('two\nlines and "quotes" of %s', "é\x1b"))
    assert "\n" not in line
    assert line.isascii(), "no control character reaches a terminal"
    assert json.loads(line) == {
        "time": "2015-08-30T12:36:00.007Z",
        "level": "warning",
        "logger": "sigward.engine.fleet",
        "message": 'two\nlines and "quotes" of é\x1b',
    }


def test_a_log_line_of_json_has_what_goes_with_it() -> None:
    told = json.loads(JsonFormatter().format(record("a thing a=b", said=("a thing", {"request_id": "an-id"}))))
    assert (told["message"], told["request_id"]) == ("a thing", "an-id")
    try:
        raise ValueError("why")
    except ValueError:
        told = json.loads(JsonFormatter().format(record("it failed", exc_info=sys.exc_info())))
    assert told["exception"].endswith("ValueError: why")


@pytest.mark.parametrize("front", ["mitmproxy", "native"])
def test_whatever_a_serving_sigward_writes_is_json_then(sigward: Shell, front: str) -> None:
    arguments = ("serve", "--front", front, "--listen", "127.0.0.1:0", "--admin", "off", "--region", "us-east-1", "--access-log", "stderr")
    process = sigward.keys().start(*arguments, "--log-format", "json", "--pacing.shared", "redis://127.0.0.1:1")
    try:
        assert process.stderr is not None
        lines: list[dict[str, str]] = []
        while not any(line["message"].startswith("sigward: listening forward=") for line in lines):
            lines.append(json.loads(process.stderr.readline()))
        process.send_signal(signal.SIGTERM)
        lines += [json.loads(line) for line in process.stderr]
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert any(line["message"].startswith("stopping:") and line["level"] == "info" for line in lines)
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines)


def test_the_native_front_imports_no_mitmproxy() -> None:
    program = "import sys, sigward.cli.serving, sigward.front; sys.exit('mitmproxy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what a process has mapped")
def test_an_idle_native_front_holds_nothing_that_only_its_start_needs(sigward: Shell) -> None:
    """Each of these is loaded for settings, a new CA, or keys from elsewhere than the environment: megabytes, and a share of the start."""
    process = sigward.keys().start("serve", "--front", "native", "--listen", "127.0.0.1:0", "--admin", "off", "--region", "us-east-1")
    try:
        assert process.stderr is not None
        told = next(line for line in process.stderr if "listening" in line)
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "sigward/_core" in maps, told
        assert not [name for name in ("pydantic_core", "uvloop", "cryptography", "mitmproxy", "lxml") if name in maps]
    finally:
        process.kill()
        process.communicate()


def test_serving_imports_no_more_than_it_needs() -> None:
    heavy = (
        "pydantic",
        "pydantic_settings",
        "botocore.session",
        "botocore.credentials",
        "uvloop",
        "cryptography",
        "rich",
        "urllib.request",
    )
    program = f"import sys, sigward.cli, sigward.cli.serving; sys.exit(' '.join(name for name in {heavy} if name in sys.modules) or None)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("body", "said", "status"),
    [("raise ValueError", "Traceback", 1), ("import os; os._exit(9)", "the process that reads them has died", 0)],
    ids=["raises", "dies"],
)
def test_settings_that_cannot_be_read_are_an_error_and_no_hang(body: str, said: str, status: int) -> None:
    """What reads them is a process of its own."""
    program = f"""
import sys
from sigward.cli import command, reading
from sigward.errors import SigwardError

def broken(*_):
    {body}

command.read = broken
try:
    reading.read_at_start("serve", [])
except SigwardError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert said in ran.stdout + ran.stderr
    assert ran.returncode == status
