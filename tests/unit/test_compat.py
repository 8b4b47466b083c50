"""`--compat aws-sigv4-proxy`: flag by flag, what becomes of it; what is refused, and what is said."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from sigward import _core, compat
from sigward.errors import UsageError
from sigward.settings import Settings
from tests.conftest import ROOT
from tests.shell import Shell

HEADERS = ("copy_headers", "remove_headers", "add_headers")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sigward.toml of the checkout's or the person's is read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))


def read(*arguments: str) -> Settings:
    """The settings; the engine takes them, too."""
    settings = compat.read(["--compat", "aws-sigv4-proxy", *arguments])
    _core.Engine(settings.engine_json("us-east-1")).close()
    return settings


def routes(*arguments: str) -> list[dict[str, Any]]:
    """What the routes set."""
    return [route.model_dump(exclude_defaults=True, exclude={"name"}) for route in read(*arguments).route]


def test_without_flags_it_goes_by_host_on_loopback(capsys: pytest.CaptureFixture[str]) -> None:
    settings = read()
    assert (settings.front, settings.listen, settings.reverse, settings.route) == ("native", "off", ["127.0.0.1:8080"], [])
    assert not settings.allow_remote
    assert settings.timeouts.pool_idle == 40
    assert "give --port :8080 if that is meant" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("port", "listen", "remote"),
    [(":8080", "0.0.0.0:8080", True), ("127.0.0.1:9000", "127.0.0.1:9000", False), ("[::]:8005", "[::]:8005", True)],
)
def test_port(port: str, listen: str, remote: bool) -> None:
    settings = read("--port", port)
    assert (settings.reverse, settings.allow_remote) == ([listen], remote)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("-v",), {"log_level": "debug", "access_log": "stderr"}),
        (("--verbose",), {"log_level": "debug", "access_log": "stderr"}),
        (("--no-verbose",), {"log_level": "info", "access_log": "off"}),
        (("--log-failed-requests",), {"log_level": "info", "access_log": "stderr"}),
        (("--log-signing-process",), {"log_level": "debug", "access_log": "off"}),
        (("--region", "eu-west-1"), {"region": "eu-west-1", "route": []}),
        (("--name", "es"), {"region": None, "route": []}),
        (("--no-no-verify-ssl",), {"route": []}),
        (("--upstream-url-scheme", "https"), {"route": []}),
        # Charts leave flags empty.
        (("--name=", "--region=", "--host=", "--sign-host=", "--role-arn=", "--custom-headers="), {"region": None, "route": []}),
    ],
)
def test_flags_that_are_settings(flags: tuple[str, ...], expected: dict[str, Any]) -> None:
    settings = read(*flags)
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("flags", "route"),
    [
        (("--name", "es", "--region", "eu-west-1"), {"host": "*", "service": "es", "region": "eu-west-1"}),
        (("--host", "vpc.example"), {"host": "*", "upstream": "https://vpc.example"}),
        (("--host", "vpc.example:8443"), {"host": "*", "upstream": "https://vpc.example:8443"}),
        (("--host", "vpc.example", "--upstream-url-scheme", "http"), {"host": "*", "upstream": "http://vpc.example"}),
        (
            ("--host", "tunnel:4443", "--sign-host", "a.es.amazonaws.com"),
            {"host": "*", "upstream": "https://a.es.amazonaws.com", "connect": "tunnel:4443"},
        ),
        (
            ("--host", "tunnel", "--sign-host", "a.es.amazonaws.com"),
            {"host": "*", "upstream": "https://a.es.amazonaws.com", "connect": "tunnel:443"},
        ),
        (
            ("--host", "tunnel", "--sign-host", "a.test", "--upstream-url-scheme", "http"),
            {"host": "*", "upstream": "http://a.test", "connect": "tunnel:80"},
        ),
        (("--unsigned-payload",), {"operation": "*:*", "payload": "unsigned"}),
        (("-s", "Authorization", "--strip", "X-Old"), {"operation": "*:*", "remove_headers": ["Authorization", "X-Old"]}),
        (("-sAuthorization",), {"operation": "*:*", "remove_headers": ["Authorization"]}),
        (("-vs", "X-Old"), {"operation": "*:*", "remove_headers": ["X-Old"]}),
        (
            ("--duplicate-headers", "Authorization"),
            {"operation": "*:*", "copy_headers": {"Authorization": "X-Original-Authorization"}},
        ),
        # What is stripped is gone before it could be duplicated.
        (("--duplicate-headers", "X-Old", "-s", "x-old"), {"operation": "*:*", "remove_headers": ["x-old"]}),
        (
            ("--custom-headers", "X-A=1,X-B=a=b,broken,X-A=2"),
            {"operation": "*:*", "add_headers": {"X-A": "1, 2", "X-B": "a=b"}},
        ),
    ],
)
def test_flags_that_make_a_route(flags: tuple[str, ...], route: dict[str, Any]) -> None:
    assert routes(*flags) == [route]


@pytest.mark.parametrize("flags", [("-s", "Host"), ("--strip", "content-length"), ("--custom-headers", "Authorization=x,Host=y")])
def test_what_the_proxy_sets_itself_is_left_as_it_is(flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert routes(*flags) == []
    assert "the flag changes nothing" in capsys.readouterr().err


def test_a_role_is_taken_under_the_same_session_name(monkeypatch: pytest.MonkeyPatch) -> None:
    arn = "arn:aws:iam::123456789012:role/r"
    taken = read("--role-arn", arn).identities["default"]
    assert (taken.role_arn, taken.session_name) == (arn, f"aws-sigv4-proxy-{socket.gethostname()}"[:64])
    monkeypatch.setenv("AWS_ROLE_SESSION_NAME", "mine")
    assert read("--role-arn", arn).identities["default"].session_name == "mine"


@pytest.mark.parametrize(("text", "seconds"), [("40s", 40), ("1m30s", 90), ("250ms", 0.25), ("1.5h", 5400)])
def test_go_durations(text: str, seconds: float) -> None:
    assert read("--transport.idle-conn-timeout", text).timeouts.pool_idle == seconds


@pytest.mark.parametrize(
    ("flags", "said", "hint"),
    [
        (("--no-verify-ssl",), "--no-verify-ssl", "SIGWARD_TLS__CA_FILES"),
        (("--sign-host", "a.test"), "--sign-host", "--host"),
        (("--upstream-url-scheme", "http"), "--upstream-url-scheme", "--host"),
        (("--upstream-url-scheme", "ftp", "--host", "a"), "'ftp'", "https"),
        (("--port", "8080"), "--port: '8080'", ":8080"),
        (("--transport.idle-conn-timeout", "0s"), "--transport.idle-conn-timeout: '0s'", "40s"),
        (("--transport.idle-conn-timeout", "40"), "--transport.idle-conn-timeout: '40'", "40s"),
        (("--role-arn", "admin"), "--role-arn:", ""),
        (("--host", "a/b"), "--host and --sign-host:", "https://"),
        (("--schema", "http"), "--schema", "--help"),
        (("--prot", ":1"), "--prot", "Did you mean --port?"),
        (("--log-level", "debug"), "--log-level", "SIGWARD_LOG_LEVEL"),
        (("--timeouts.head=1s",), "--timeouts.head", "SIGWARD_TIMEOUTS__HEAD"),
        (("--compat", "another-proxy"), "another-proxy", ""),
    ],
)
def test_what_is_refused_says_what_to_do(flags: tuple[str, ...], said: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*flags)
    assert caught.value.exit_code == 64
    assert said in str(caught.value.args[0])
    assert caught.value.hint
    assert hint in caught.value.hint


def test_environment_and_file_count_and_a_route_of_the_file_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGWARD_CONFIG", "sigward.toml")
    Path("sigward.toml").write_text('grace = 3\n[[route]]\nhost = "a.test"\naction = "deny"\n')
    monkeypatch.setenv("SIGWARD_ADMIN", "off")
    monkeypatch.setenv("SIGWARD_TIMEOUTS__HEAD", "5s")
    settings = read("--unsigned-payload")
    assert (settings.grace, settings.admin) == (3, "off")
    assert (settings.timeouts.head, settings.timeouts.pool_idle) == (5, 40)
    monkeypatch.setenv("SIGWARD_TIMEOUTS__POOL_IDLE", "6s")
    assert read().timeouts.pool_idle == 6
    assert read("--transport.idle-conn-timeout", "7s").timeouts.pool_idle == 7
    assert [route.name for route in settings.route] == ["", "aws-sigv4-proxy"]


def test_serve_reads_it_and_the_entry_point_may_leave_serve_out(sigward: Shell) -> None:
    for arguments in (("--compat", "aws-sigv4-proxy"), ("--compat=aws-sigv4-proxy",), ("serve", "--compat", "aws-sigv4-proxy")):
        ran = sigward(*arguments, "--no-verify-ssl")
        assert (ran.status, ran.err.splitlines()[0]) == (64, "error: --no-verify-ssl: sigward always verifies TLS.")
    assert "--transport.idle-conn-timeout" in sigward("--compat", "aws-sigv4-proxy", "--help").out
    assert "--compat" in sigward("serve", "--help").out


def test_the_guide_s_table_has_every_flag() -> None:
    guide = (ROOT / "docs" / "guides" / "migrate-aws-sigv4-proxy.md").read_text()
    rows = {cell for line in guide.splitlines() if line.startswith("| `") for cell in line.split("|")[1].replace("`", "").split(", ")}
    told = {word.strip() for cell in rows for word in cell.split()}
    options = {option for action in compat.parser()._actions for option in action.option_strings if not option.startswith("--no-")}
    assert options - {"-h", "--help", "--compat"} <= told
    assert "--no-verify-ssl" in told


def test_a_custom_header_s_value_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGWARD_CONFIG", "sigward.toml")
    Path("sigward.toml").write_text('[[route]]\nhost = "a"\nadd_headers = { x = ["a-secret-that-must-not-leak"] }\n')
    with pytest.raises(UsageError) as caught:
        read()
    assert "leak" not in json.dumps([str(caught.value), caught.value.hint])
