"""`sigward login` and `sigward imds`, from the shell."""

import json
from pathlib import Path

import pytest

from tests.shell import KEY, SECRET, Shell
from tests.unit.credentials.servers import ROLE, Imds, keys, serving


@pytest.fixture
def user(sigward: Shell, moto: str) -> Shell:
    (sigward.home / "credentials").write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    sigward.environment |= {"AWS_ENDPOINT_URL_STS": moto, "AWS_REGION": "us-east-1"}
    return sigward


def test_login_and_whoami(user: Shell) -> None:
    ran = user("login", "--serial", "arn:aws:iam::123456789012:mfa/me", stdin="123456\n")
    assert ran.status == 0, ran.err
    assert Path(ran.out.strip()).stat().st_mode & 0o777 == 0o600
    assert "logged in until" in ran.err
    told = json.loads(user("whoami", "--json-output").out)
    assert (told["provider"], told["temporary"]) == ("mfa-session", True)


def test_login_by_a_command(user: Shell) -> None:
    assert user("login", "--serial", "arn:aws:iam::123456789012:mfa/me", "--code-command", "echo 654321").status == 0


@pytest.mark.parametrize(
    ("arguments", "stdin", "text"),
    [
        ((), "123456\n", "which MFA device"),
        (("--serial", "arn:aws:iam::123456789012:mfa/me"), "12\n", "six digits"),
        (("--serial", "arn:aws:iam::123456789012:mfa/me", "--code-command", "false"), None, "code_command"),
        (("--profile", "nobody"), None, "nobody"),
    ],
)
def test_a_login_that_cannot_be_says_why(user: Shell, arguments: tuple[str, ...], stdin: str | None, text: str) -> None:
    ran = user("login", *arguments, stdin=stdin)
    assert ran.status == 64
    assert text in ran.err
    assert SECRET not in ran.out + ran.err


def test_instance_metadata(sigward: Shell) -> None:
    del sigward.environment["AWS_EC2_METADATA_DISABLED"]
    with serving(Imds, keys("imds")) as server:
        sigward.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = server.url
        assert sigward("imds", "get", "placement/region").out == "eu-west-3\n"
        assert [method for method, _, _ in server.seen] == ["PUT", "GET"]
        told = json.loads(sigward("imds", "role").out)
        assert (told["role"], told["region"], told["state"]) == (ROLE, "eu-west-3", "Success")
        assert "imds-secret" not in json.dumps(told)
        refused = sigward("imds", "get", f"iam/security-credentials/{ROLE}")
        assert refused.status == 64
        assert "prints no keys" in refused.err
        assert sigward("imds", "get", "nothing/here").status == 64
    ran = sigward("imds", "role")
    assert ran.status == 69
    assert "hop limit" in ran.err
    sigward.environment["AWS_EC2_METADATA_DISABLED"] = "true"
    assert sigward("imds", "role").status == 64


def test_a_stale_token_is_replaced() -> None:
    from sigward.cli.imds import Metadata

    with serving(Imds, keys("imds")) as server:
        metadata = Metadata(server.url)
        assert metadata.get("/latest/meta-data/placement/region") == "eu-west-3"
        assert metadata.get("/latest/meta-data/placement/region") == "eu-west-3"
        server.tokens.clear()
        assert metadata.get("/latest/meta-data/placement/region") == "eu-west-3"
        assert [(method, status) for method, _, status in server.seen] == [
            ("PUT", 200), ("GET", 200), ("GET", 200), ("GET", 401), ("PUT", 200), ("GET", 200),
        ]  # fmt: skip
        assert next(iter(server.tokens)) not in repr(metadata)
