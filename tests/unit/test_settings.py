"""Settings: who wins, how values are spelled, and what is said about bad ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from sigward import _core, allowed
from sigward.cli.commands import Serve, read
from sigward.errors import UsageError
from sigward.file import config_home
from sigward.settings import Settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sigward.toml of the checkout's or the person's is read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))


def serve(*arguments: str) -> Settings:
    return read(Serve, "sigward serve", list(arguments))


def refused(*arguments: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        serve(*arguments)
    assert caught.value.exit_code == 64
    assert caught.value.hint
    return caught.value


def file(text: str, path: str = "sigward.toml") -> None:
    """One of the current folder's is allowed, as it then is."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    allowed.allow(Path(path), text.encode(), config_home())


# ---------------------------------------------------------------- who wins


def test_flag_environment_file_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert serve().grace == 10
    file("grace = 1\n")
    assert serve().grace == 1
    monkeypatch.setenv("SIGWARD_GRACE", "2s")
    assert serve().grace == 2
    assert serve("--grace", "3s").grace == 3


def test_tables_are_merged_key_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    file("[timeouts]\nconnect = 1\nhead = 1\nidle = 1\n")
    monkeypatch.setenv("SIGWARD_TIMEOUTS__HEAD", "2")
    timeouts = serve("--timeouts.idle", "3").timeouts
    assert (timeouts.connect, timeouts.head, timeouts.idle, timeouts.pool_idle) == (1, 2, 3, 60)


def test_which_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file("grace = 4\n", "xdg/sigward/sigward.toml")
    assert serve().grace == 4
    file("grace = 3\n")
    assert serve().grace == 3
    file("grace = 2\n", "variable.toml")
    monkeypatch.setenv("SIGWARD_CONFIG", "variable.toml")
    assert serve().grace == 2
    file("grace = 1\n", "flag.toml")
    assert serve("--config", "flag.toml").grace == 1
    assert serve("--config=flag.toml").grace == 1


def test_a_file_that_was_named_must_be_there() -> None:
    assert "nowhere.toml" in str(refused("--config", "nowhere.toml"))


# ---------------------------------------------------------------- spellings


@pytest.mark.parametrize(("text", "seconds"), [("10", 10), ("10s", 10), ("500ms", 0.5), ("0.5s", 0.5), ("2m", 120), ("1h", 3600)])
def test_durations(text: str, seconds: float) -> None:
    assert serve("--grace", text).grace == seconds
    file(f'grace = "{text}"\n')
    assert serve().grace == seconds


def test_durations_as_numbers() -> None:
    file("grace = 10\n[timeouts]\nhead = 0.5\n")
    assert (serve().grace, serve().timeouts.head) == (10, 0.5)


@pytest.mark.parametrize("text", ["soon", "-1", "10 parsecs", "nan", "inf", "1e3s", ""])
def test_bad_durations(text: str) -> None:
    assert "grace" in str(refused(f"--grace={text}"))


def test_a_truth_value_is_no_duration_and_no_size() -> None:
    file("grace = true\n")
    assert "grace" in str(refused())
    file("[body]\nhold = true\n")
    assert "body.hold" in str(refused())


@pytest.mark.parametrize(
    ("text", "size"), [("1048576", 1 << 20), ("1MiB", 1 << 20), ("64KiB", 65536), ("5GiB", 5 << 30), ("1MB", 10**6), ("1TiB", 1 << 40)]
)
def test_sizes(text: str, size: int) -> None:
    assert serve("--body.hold", text).body.hold == size


@pytest.mark.parametrize("text", ["big", "-1", "1XB", "nan"])
def test_bad_sizes(text: str) -> None:
    assert "body.hold" in str(refused(f"--body.hold={text}"))


def test_limits_can_be_lifted_again() -> None:
    file('[timeouts]\ntotal = "5s"\n[body]\nmax = "1MiB"\n')
    assert serve().timeouts.total == 5
    told = json.loads(serve("--timeouts.total", "none", "--body.max", "none").engine_json("us-east-1"))
    assert (told["timeouts"]["total"], told["body"]["max"]) == (None, None)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.0.0.1:65535", "[::1]:8080", "localhost:8080", "127.1.2.3:80"])
def test_addresses(address: str) -> None:
    assert serve("--listen", address).listen == address


@pytest.mark.parametrize(
    "address",
    ["8080", "localhost", ":8080", "127.0.0.1:65536", "127.0.0.1:", "::1:8080", "[::1:8080", "127.0.0.1:x", "127.0.0.1:\uff18\uff10"],
)
def test_bad_addresses(address: str) -> None:
    assert "listen" in str(refused(f"--listen={address}"))


@pytest.mark.parametrize("off", ["off", ""])
def test_listeners_can_be_off(off: str) -> None:
    settings = serve(f"--listen={off}", f"--admin={off}", "--reverse", "127.0.0.1:0")
    assert (settings.listen, settings.admin) == ("off", "off")


def test_reverse_listeners() -> None:
    both = [("127.0.0.1:1", "https://sqs.us-east-1.amazonaws.com"), ("127.0.0.1:2", None)]
    assert serve("--reverse", "127.0.0.1:1=https://sqs.us-east-1.amazonaws.com", "--reverse", "127.0.0.1:2").reverse_listeners() == both
    file('[[reverse]]\nlisten = "127.0.0.1:1"\nupstream = "https://sqs.us-east-1.amazonaws.com"\n[[reverse]]\nlisten = "127.0.0.1:2"\n')
    assert serve().reverse_listeners() == both


@pytest.mark.parametrize(
    "entry",
    ["x", "127.0.0.1:1=sqs", "127.0.0.1:1=ftp://x", "127.0.0.1:1=https://x/path", "127.0.0.1:1=https://u@x", "127.0.0.1:1=https://x:99999"],
)
def test_bad_reverse_listeners(entry: str) -> None:
    assert "reverse" in str(refused("--reverse", entry))


# ---------------------------------------------------------------- loopback by default


@pytest.mark.parametrize("setting", ["--listen", "--admin", "--reverse"])
@pytest.mark.parametrize("address", ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080", "example.com:8080", "localhost.example.com:80"])
def test_others_reach_it_only_if_that_is_said(setting: str, address: str) -> None:
    assert "allow_remote" in str(refused(setting, address)) + refused(setting, address).hint
    assert serve(setting, address, "--allow-remote")


# ---------------------------------------------------------------- what is said


def test_unknown_key_in_the_file() -> None:
    file("grace = 1\n\n[timeouts]\nidle = 1\nconect = 2\n")
    error = refused()
    assert "sigward.toml:5: timeouts.conect" in str(error)
    assert "connect" in error.hint


def test_unknown_table_and_top_level_key() -> None:
    file("[timeout]\nidle = 1\n")
    error = refused()
    assert "sigward.toml:1: timeout" in str(error)
    assert "timeouts" in error.hint


def test_bad_value_in_an_array_of_tables() -> None:
    file('[[route]]\nhost = "a"\n\n[[route]]\nhost = "b"\naction = "sing"\n')
    error = refused()
    assert "sigward.toml:6: " in str(error)
    assert "sing" in str(error)
    assert "sign" in error.hint


def test_bad_value_in_an_inline_table() -> None:
    file("grace = 1\nretry = { attempts = 0 }\n")
    assert "sigward.toml:2: retry.attempts" in str(refused())


def test_a_key_that_is_missing() -> None:
    file('\n[[route]]\nservice = "es"\n')
    error = refused()
    assert "sigward.toml:2: " in str(error)
    assert "host" in str(error)


def test_no_toml() -> None:
    file("grace = 1\nlisten = 127.0.0.1:8080\n")
    error = refused()
    assert "sigward.toml" in str(error)
    assert "line 2" in str(error) or ":2:" in str(error)


def test_the_value_that_was_found_is_told() -> None:
    for arguments in (["--grace", "soonish"], ["--listen", "soonish"], ["--retry.attempts", "soonish"], ["--log-level", "soonish"]):
        error = refused(*arguments)
        assert arguments[0] in str(error)
        assert "soonish" in str(error)


def test_every_hint_helps_with_the_value() -> None:
    """A hint that only names the manual is none."""
    for arguments in (
        ["--grace", "soon"],
        ["--listen", "soon"],
        ["--body.hold", "soon"],
        ["--retry.attempts", "0"],
        ["--log-level", "infos"],
        ["--listen", "0.0.0.0:1"],
    ):
        hint = refused(*arguments).hint
        assert not hint.startswith("See "), (arguments, hint)


def test_environment_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGWARD_TIMEOUTS__CONNECT", "soon")
    assert "SIGWARD_TIMEOUTS__CONNECT" in str(refused())


@pytest.mark.parametrize(
    ("name", "meant"),
    [("SIGWARD_LISTNE", "SIGWARD_LISTEN"), ("SIGWARD_BODY__HODL", "SIGWARD_BODY__HOLD"), ("SIGWARD_BODY_HOLD", "SIGWARD_BODY__HOLD")],
)
def test_unknown_variables(monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    monkeypatch.setenv(name, "1")
    error = refused()
    assert name in str(error)
    assert meant in error.hint


def test_what_kubernetes_sets_is_not_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every pod beside a service that is called `sigward`."""
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8080_TCP", "PORT_8080_TCP_ADDR"):
        monkeypatch.setenv(f"SIGWARD_{name}", "tcp://10.0.0.1:8080")
    assert serve()


@pytest.mark.parametrize(("flag", "meant"), [("--lisen", "--listen"), ("--timeouts.conect", "--timeouts.connect")])
def test_unknown_flags(flag: str, meant: str) -> None:
    error = refused(flag, "1")
    assert flag in str(error)
    assert meant in error.hint


def test_a_flag_without_its_value() -> None:
    assert "--listen" in str(refused("--listen"))


def test_nothing_to_serve() -> None:
    assert refused("--listen", "off")


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("true", "stderr"),
        ("false", "off"),
        ('"off"', "off"),
        ('"stderr"', "stderr"),
        ('"/var/log/a"', "/var/log/a"),
        ('"./True"', "./True"),
    ],
)
def test_where_the_access_log_goes(written: str, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert serve().access_log == "off"
    file(f"access_log = {written}\n")
    assert serve().access_log == taken
    monkeypatch.setenv("SIGWARD_ACCESS_LOG", written.strip('"'))
    file("")
    assert serve().access_log == taken
    assert serve("--access-log", "/flag").access_log == "/flag"


@pytest.mark.parametrize("written", ['"stdout"', "3", '"access.log"', '"/a\\u0000b"'])
def test_what_the_access_log_may_not_be(written: str) -> None:
    file(f"access_log = {written}\n")
    error = refused()
    assert "sigward.toml:1: access_log: off, stderr or a file's path is expected" in str(error)
    assert "slash" in error.hint


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("transparent", ("--front", "native", "--transparent", "127.0.0.1:0")), ("clients.socket", ("--clients.socket", "/tmp/s"))],
)
def test_what_only_linux_has_is_refused_elsewhere(name: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    serve(*arguments)
    monkeypatch.setattr("sys.platform", "darwin")
    assert f"{name}: only Linux" in str(refused(*arguments))
    serve()


# ---------------------------------------------------------------- what the engine gets


def test_the_engine_takes_the_defaults_and_agrees_with_them() -> None:
    told = json.loads(serve().engine_json("eu-west-1"))
    assert told["default_region"] == "eu-west-1"
    assert told["body"]["hold"] == 1 << 20
    assert told["timeouts"]["total"] is None
    _core.Engine(json.dumps(told)).close()


def test_the_engine_takes_everything_set() -> None:
    file(
        'threads = 2\n[body]\nhold = "2MiB"\nmax = "1GiB"\nspool_dir = "/tmp"\n[timeouts]\ntotal = "90s"\n[retry]\nattempts = 5\n'
        '[tls]\nsystem_roots = true\n[limits]\nheaders = 50\n'
        '[[route]]\nname = "search"\nhost = "*.example.com"\npath = "/a*"\naction = "sign"\nservice = "es"\nregion = "eu-west-1"\n'
        'identity = "other"\nupstream = "https://search.example.com:9200"\nstyle = "generic"\n'
        '[[route]]\nhost = "b"\naction = "deny"\n[[route]]\nhost = "c"\nconnect = "127.0.0.1:1"\n'
    )  # fmt: skip
    settings = serve()
    told: dict[str, Any] = json.loads(settings.engine_json("us-east-1"))
    assert told["routes"][0]["upstream"] == "https://search.example.com:9200"
    assert [route["action"] for route in told["routes"]] == ["sign", "deny", "sign"]
    assert {name: chain.profile for name, chain in settings.chains("us-east-1").items()} == {"default": None, "other": "other"}
    _core.Engine(json.dumps(told)).close()


def test_routes_as_json_in_a_flag() -> None:
    assert serve("--route", '[{"host": "a", "action": "pass"}]').route[0].action == "pass"


# ---------------------------------------------------------------- telemetry


def otlp(*arguments: str) -> Any:
    return json.loads(serve(*arguments).engine_json("us-east-1"))["otlp"]


def test_telemetry_is_off_and_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "nonsense")
    assert otlp() is None
    file('[otlp]\nendpoint = "http://c:1"\ntraces = false\nmetrics = false\n')
    assert otlp() is None


def test_telemetry_by_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://elsewhere:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "other=1")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "other")
    file(
        '[otlp]\nendpoint = "https://c:4318/base/"\nheaders = { x-key = "k" }\ntimeout = "2s"\nsample_ratio = 0.5\n'
        'service_name = "sidecar"\nattributes = { team = "a" }\ninterval = "5s"\n'
    )
    assert otlp() == {
        "traces": "https://c:4318/base/v1/traces",
        "metrics": "https://c:4318/base/v1/metrics",
        "headers": {"x-key": "k"},
        "timeout": 2.0,
        "interval": 5.0,
        "delay": 1.0,
        "sample_ratio": 0.5,
        "attributes": {"team": "a", "service.name": "sidecar"},
    }
    assert otlp("--otlp.headers", "a=1,b=x%2Cy", "--no-otlp.metrics")["headers"] == {"a": "1", "b": "x,y"}
    assert otlp("--no-otlp.metrics")["metrics"] is None


def test_telemetry_by_opentelemetry_s_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert otlp("--otlp.endpoint", "environment")["traces"] == "http://127.0.0.1:4318/v1/traces"
    for name, value in {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://other:4318/m",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20b, y=c",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=of-the-resource,team=a",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
    }.items():
        monkeypatch.setenv(name, value)
    assert otlp("--otlp.endpoint", "environment") == {
        "traces": "http://collector:4318/v1/traces",
        "metrics": "http://other:4318/m",
        "headers": {"x-key": "a b", "y": "c"},
        "timeout": 2.5,
        "interval": 1.0,
        "delay": 0.5,
        "sample_ratio": 0.25,
        "attributes": {"service.name": "of-the-resource", "team": "a"},
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "its-key"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "its-key@collector:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ],
)
def test_a_variable_of_opentelemetry_s_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"environment: {name}: ") as caught:
        otlp("--otlp.endpoint", "environment")
    assert caught.value.hint
    assert "its-key" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("endpoint", "its-key@collector"),
        ("endpoint", "http://c/?its-key"),
        ("headers", "its-key"),
        ("sample_ratio", "1.5"),
        ("timeout", "0s"),
    ],
)
def test_a_bad_telemetry_setting_is_named_and_no_key_is_shown(key: str, value: str) -> None:
    error = refused(f"--otlp.{key.replace('_', '-')}", value)
    assert f"otlp.{key}" in str(error)
    assert "its-key" not in str(error)


def test_headers_of_the_collector_are_shown_nowhere() -> None:
    settings = serve("--otlp.endpoint", "http://c:1", "--otlp.headers", "x-key=its-key")
    assert "its-key" not in repr(settings)
    assert "its-key" not in repr(settings.plan())
