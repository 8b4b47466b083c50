"""What cannot be used is named, with what to do, and never ends in a traceback."""

import sys
from collections.abc import Callable

import pytest

from sigward import cli

BYTES = "\udcff"
"""A byte that is no UTF-8, as Python gives it."""

SIGN = ("sign", "GET", "https://sqs.us-east-1.amazonaws.com/")
RDS = ("token", "rds", "--port", "5432", "--user", "me", "--host")


@pytest.fixture
def ended(tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs a command in this process; gives its status and what it said on stderr."""
    for name, value in {
        "HOME": tmp_path, "XDG_CONFIG_HOME": tmp_path, "AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none",
        "AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "eu-west-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(str(tmp_path))

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sigward", *arguments])
        return cli.main(), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sign", "GET", "https://[::1"), "url: 'https://[::1' is not one."),
        (("sign", "GET", "https://sqs.us-east-1.amazonaws.com:99999/"), "url: "),
        (("sign", "GET", "https://a..é/", "--service", "x"), "is no host"),
        (("actions", "GET", "https://[::1"), "url: 'https://[::1' is not one."),
        (("knowledge", "show", "[::1"), "'[::1' is no host."),
        ((*SIGN, "--at", "0001-01-01"), "--at: '0001-01-01' is before 1970"),
        ((*SIGN, "--at", "0001-01-01T00:00:00+14:00"), "--at: "),
        ((*SIGN, "--at", "1969-12-31T23:59:59Z"), "is before 1970"),
        (("token", "eks", "--cluster", "a", "--at", "9999-12-31T23:59:59Z"), "after 9998"),
        ((*SIGN, "--data", BYTES), "data: it holds bytes that are not UTF-8."),
        ((*SIGN, "--header", f"a: {BYTES}"), "header: it holds bytes"),
        ((SIGN[0], SIGN[1], SIGN[2] + BYTES), "url: it holds bytes"),
        ((*SIGN, "--service", BYTES), "service: it holds bytes"),
        (("token", "eks", "--cluster", BYTES), "cluster: it holds bytes"),
        (("token", "elasticache", "--cluster", "a", "--user", BYTES), "user: it holds bytes"),
        *((("env", "--proxy", url), f"--proxy: {url!r}: ") for url in ("http://h:99999", "http://[zz]:80", "http://[::1:80", "http://h:0")),
        *(
            ((*RDS, host), f"--host: {host!r} is no host name")
            for host in ("db.test:5432", "db.test.", "me@db.test", "db.test/x", "db.test?x", "db test", "[::1]", "https://db.test")
        ),
    ],
)
def test_arguments(arguments: tuple[str, ...], said: str, ended: Callable[..., tuple[int, str]]) -> None:
    status, err = ended(*arguments)
    assert (status, said in err, err.count("hint: ")) == (64, True, 1), err


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize("command", [("env",), ("run", "--", "true"), ("check",), ("whoami",)])
def test_variables_that_are_no_text(
    command: tuple[str, ...], name: str, ended: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"a.example,{BYTES}")
    status, err = ended(*command)
    assert (status, f"{name}: it holds bytes that are not UTF-8." in err) == (64, True), err


def test_a_proxy_that_is_no_url_is_not_taken_for_this_host(ended: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://[::1")
    assert ended("whoami")[0] == 0
    assert ended("check")[0] in (0, 64)
