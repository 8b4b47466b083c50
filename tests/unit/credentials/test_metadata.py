"""Metadata and container credentials: past every proxy, as often and as long as is said, and with what they refuse told by name."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from sigward.cli.commands import COMMANDS, read
from sigward.cli.imds import service
from sigward.credentials import Chain, Failure, Found
from sigward.credentials.chain import unexpired
from sigward.errors import UsageError
from tests.unit.credentials.servers import Ecs, Imds, Metadata, keys, serving

REGION = "us-east-1"


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    """A proxy that gives keys of its own for whatever it is asked."""
    with serving(Imds, keys("proxy")) as server:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, server.url)
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        yield server


def reasons(profile: str | None = None) -> dict[str, str]:
    outcome = Chain(profile, REGION).load()
    assert isinstance(outcome, Failure), outcome
    return dict(outcome.reasons)


def found() -> Found:
    outcome = Chain(None, REGION).load()
    assert isinstance(outcome, Found), outcome
    return outcome


def config(text: str) -> None:
    Path(os.environ["AWS_CONFIG_FILE"]).write_text(text)


@pytest.mark.parametrize("kind", ["imds", "container", "imds of a role's source"])
def test_no_proxy_sees_who_gives_keys(proxy: Metadata, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    with serving(Ecs if kind == "container" else Imds, keys("real")) as real, serving(Imds, keys("sts")) as sts:
        if kind == "container":
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{real.url}/keys")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", real.url)
        if kind.endswith("source"):
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
            monkeypatch.setenv("NO_PROXY", sts.url.removeprefix("http://"))
            config("[profile role]\nrole_arn = arn:aws:iam::123456789012:role/x\ncredential_source = Ec2InstanceMetadata\n")
            reasons("role")
        else:
            assert found().snapshot.access_key_id == "ASIAREAL"
        assert [status for _, _, status in real.seen][-1] == 200
    assert proxy.seen == []


def test_the_ipv6_address_is_not_asked_for_at_a_proxy(proxy: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_PROXY as sigward sets it has the address without brackets, which botocore compares with brackets."""
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6")
    monkeypatch.setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "1")
    monkeypatch.setenv("NO_PROXY", "fd00:ec2::254")
    assert "iam-role" in reasons()
    assert proxy.seen == []


def test_the_instance_s_region_is_not_asked_for_at_a_proxy(proxy: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore's `defaults_mode = auto` looks it up when a client is made."""
    monkeypatch.setenv("AWS_DEFAULTS_MODE", "auto")
    monkeypatch.setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "1")
    Chain(None, REGION).session().create_client("sts", aws_access_key_id="a", aws_secret_access_key="b")
    assert proxy.seen == []


@pytest.mark.parametrize(
    ("variables", "profile"),
    [
        ({"AWS_METADATA_SERVICE_TIMEOUT": "7", "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "5"}, ""),
        ({}, "metadata_service_timeout = 8\nmetadata_service_num_attempts = 6\n"),
        ({"AWS_METADATA_SERVICE_NUM_ATTEMPTS": "1"}, "metadata_service_timeout = 8\nmetadata_service_num_attempts = 6\n"),
    ],
)
def test_waits_and_attempts_are_botocores(variables: dict[str, str], profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config(f"[default]\n{profile}")

    def fetcher(session: Session) -> Any:
        providers = session.get_component("credential_provider").providers
        return next(one for one in providers if one.METHOD == "iam-role")._role_fetcher

    expected, ours = fetcher(Session()), fetcher(Chain(None, REGION).session())
    assert (ours._timeout, ours._num_attempts) == (expected._timeout, expected._num_attempts)


def test_attempts_that_are_asked_for_are_made(proxy: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    class Down(Imds):
        def do_GET(self) -> None:  # noqa: N802
            self.reply(500, "not now")

    with serving(Down, keys("imds")) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        for said, expected in (("", 2), ("metadata_service_num_attempts = 4", 4)):
            server.seen.clear()
            config(f"[default]\n{said}\n")
            assert "iam-role" in reasons()
            assert [method for method, _, _ in server.seen].count("GET") == expected
    monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "1s")
    told = reasons()["profile"]
    assert "AWS_METADATA_SERVICE_TIMEOUT" in told
    assert "'1s'" in told


def test_sigward_imds_reads_the_same_settings(proxy: Metadata, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def asked() -> tuple[str, float]:
        found = service(read(COMMANDS["imds"], "sigward imds", ["role"]))  # type: ignore[arg-type]
        return found.endpoint, found.timeout

    assert asked() == ("http://169.254.169.254", 1)
    config("[default]\nec2_metadata_service_endpoint_mode = IPv6\nmetadata_service_timeout = 4\n")
    assert asked() == ("http://[fd00:ec2::254]", 4)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1/")
    assert asked() == ("http://127.0.0.1:1", 4)
    for name, value in (("AWS_METADATA_SERVICE_TIMEOUT", "soon"), ("AWS_PROFILE", "nowhere")):
        monkeypatch.setenv(name, value)
        with pytest.raises(UsageError):
            asked()


@pytest.mark.parametrize("container", [False, True])
def test_a_refusal_is_told_by_its_code(proxy: Metadata, monkeypatch: pytest.MonkeyPatch, container: bool) -> None:
    refusal = {"Code": "AssumeRoleUnauthorizedAccess", "Message": "EC2 cannot assume the role tests-role."}
    with serving(Ecs if container else Imds, refusal) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        if container:
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/keys")
            monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
        told = reasons()["container-role" if container else "iam-role"]
        assert "AssumeRoleUnauthorizedAccess: EC2 cannot assume the role tests-role" in told
        server.answer = keys("imds", Code="Success")
        assert found().snapshot.access_key_id == "ASIAIMDS"


def test_expired_keys_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=5)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", ends.isoformat())
    alive = found()
    assert unexpired(alive, ends.timestamp() - 1) is alive
    gone = unexpired(alive, ends.timestamp())
    assert isinstance(gone, Failure)
    assert gone.cause == ("env", f"its keys expired at {ends.strftime('%Y-%m-%dT%H:%M:%SZ')}")
    assert gone.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in ("TIMEOUT", "NUM_ATTEMPTS") for value in ("-1", "9" * 20, "soon")] + [("TIMEOUT", "0")],
)
def test_waits_that_cannot_be_are_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"AWS_METADATA_SERVICE_{name}", value)
    failure = Chain(None, "us-east-1").load()
    assert isinstance(failure, Failure)
    assert f"AWS_METADATA_SERVICE_{name}" in failure.cause[1]
    assert "expected" in failure.cause[1]
