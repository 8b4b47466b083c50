"""The walk along the chain: real metadata servers, real files, a real process, moto's STS."""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.credentials import AssumeRoleProvider, ContainerProvider, ProcessProvider, ProfileProviderBuilder, RefreshableCredentials
from botocore.session import Session
from botocore.utils import ContainerMetadataFetcher

from sigward.credentials import Chain, Failure, Found
from sigward.credentials.chain import freeze, redact
from tests.unit.credentials.servers import Ecs, Imds, Metadata, keys, serving

REGION = "us-east-1"


def found(profile: str | None = None, **more: float) -> Found:
    outcome = Chain(profile, REGION, **more).load()
    assert isinstance(outcome, Found), outcome
    return outcome


def failed(profile: str | None = None, **more: float) -> dict[str, str]:
    outcome = Chain(profile, REGION, **more).load()
    assert isinstance(outcome, Failure), outcome
    return dict(outcome.reasons)


def env_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")


def config(text: str) -> None:
    Path(os.environ["AWS_CONFIG_FILE"]).write_text(text)


def shared(text: str) -> None:
    Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).write_text(text)


def process(tmp_path: Path, script: str) -> str:
    """A credential_process line that runs this Python."""
    file = tmp_path / "process.py"
    file.write_text(script)
    return f"{sys.executable} {file}"


@pytest.fixture
def imds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    with serving(Imds, keys("imds")) as server:
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        yield server


@pytest.fixture
def ecs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    with serving(Ecs, keys("ecs")) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/keys")
        yield server


# ---------------------------------------------------------------- each provider


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    env_keys(monkeypatch)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "env-token")
    snapshot = found().snapshot
    assert (snapshot.access_key_id, snapshot.secret_access_key, snapshot.session_token) == ("AKIDENV", "env-secret", "env-token")
    assert (snapshot.provider, snapshot.expires_at) == ("env", None)


def test_imds_version_2(imds: Metadata) -> None:
    outcome = found()
    assert (outcome.snapshot.provider, outcome.snapshot.access_key_id) == ("iam-role", "ASIAIMDS")
    assert outcome.snapshot.expires_at is not None
    assert outcome.snapshot.expires_at > time.time() + 3000
    assert [(method, status) for method, _, status in imds.seen] == [("PUT", 200), ("GET", 200), ("GET", 200)]


def test_imds_gets_a_new_token_when_the_old_one_is_stale(imds: Metadata) -> None:
    found()
    imds.tokens.clear()
    imds.answer = keys("second")
    assert found().snapshot.access_key_id == "ASIASECOND"
    assert 401 not in [status for _, _, status in imds.seen]


def test_imds_switched_off_is_not_asked(imds: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "iam-role" in failed()
    assert imds.seen == []


def test_container_full_uri_with_token(ecs: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    ecs.authorization = "Basic abc"
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Basic abc")
    assert found().snapshot.access_key_id == "ASIAECS"


def test_container_token_file_is_read_each_time(ecs: Metadata, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "token"
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(file))
    for token in ("first", "second"):
        file.write_text(token)
        ecs.authorization = token
        assert found().snapshot.provider == "container-role"


def test_container_relative_uri(ecs: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/task")
    # The address is a constant of botocore's (169.254.170.2).
    monkeypatch.setattr(ContainerMetadataFetcher, "full_url", lambda self, path: ecs.url + path)
    assert found().snapshot.access_key_id == "ASIAECS"
    assert ecs.seen == [("GET", "/v2/credentials/task", 200)]


def test_container_elsewhere_over_plain_http_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/keys")
    assert "192.0.2.1" in failed()["container-role"]


def test_shared_file_with_several_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    shared("[default]\naws_access_key_id = AKIDDEFAULT\naws_secret_access_key = one\n"
           "[other]\naws_access_key_id = AKIDOTHER\naws_secret_access_key = two\n")  # fmt: skip
    assert found().snapshot.access_key_id == "AKIDDEFAULT"
    assert found("other").snapshot.access_key_id == "AKIDOTHER"
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert found().snapshot.access_key_id == "AKIDOTHER"


def test_profile_that_is_not_there() -> None:
    assert "nowhere" in failed("nowhere")["profile"]


def test_process(tmp_path: Path) -> None:
    answer = {"Version": 1, "AccessKeyId": "AKIDPROC", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": "2099-01-01T00:00:00"}
    config(f"[default]\ncredential_process = {process(tmp_path, f'print({json.dumps(json.dumps(answer))})')}\n")
    snapshot = found().snapshot
    assert (snapshot.provider, snapshot.access_key_id) == ("custom-process", "AKIDPROC")
    assert snapshot.expires_at == 4070908800, "without a zone it is UTC"


@pytest.mark.fault("a `credential_process` that hangs", holds="killed with its children at the deadline")
def test_process_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """Both hold a pipe open for writing: it ends for its reader when both have ended."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    script = (
        "import os, subprocess, sys\n"
        f"writer = os.open({str(pipe)!r}, os.O_WRONLY)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'], pass_fds=[writer])\n"
        "os.write(writer, b'both run')\n"
        "child.wait()\n"
    )
    config(f"[default]\ncredential_process = {process(tmp_path, script)}\n")
    try:
        assert "killed" in failed(deadline=3.0)["custom-process"]
        os.set_blocking(reader, True)
        assert os.read(reader, 100) == b"both run"
        assert os.read(reader, 100) == b"", "the end"
    finally:
        os.close(reader)


def test_process_of_a_source_profile_is_killed_too(tmp_path: Path) -> None:
    hanging = process(tmp_path, "import signal; signal.pause()")
    config(f"[profile source]\ncredential_process = {hanging}\n"
           "[default]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = source\n")  # fmt: skip
    assert "killed" in failed(deadline=1.0)["assume-role"]


def test_assume_role(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto)
    shared("[source]\naws_access_key_id = AKIDSOURCE\naws_secret_access_key = one\n")
    config("[profile role]\nrole_arn = arn:aws:iam::123456789012:role/tests\nsource_profile = source\n")
    snapshot = found("role").snapshot
    assert snapshot.provider == "assume-role"
    assert snapshot.access_key_id.startswith("ASIA")
    assert snapshot.session_token
    assert snapshot.expires_at is not None


def test_every_load_asks_sts_anew(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto)
    shared("[source]\naws_access_key_id = AKIDSOURCE\naws_secret_access_key = one\n")
    config("[profile role]\nrole_arn = arn:aws:iam::123456789012:role/tests\nsource_profile = source\n")
    assert found("role").snapshot.access_key_id != found("role").snapshot.access_key_id


def test_web_identity(moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a.web.token")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/tests")
    assert found().snapshot.provider == "assume-role-with-web-identity"


def test_nobody_is_asked_for_an_mfa_code(monkeypatch: pytest.MonkeyPatch) -> None:
    shared("[source]\naws_access_key_id = AKIDSOURCE\naws_secret_access_key = one\n")
    config("[default]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = source\nmfa_serial = arn:aws:iam::1:mfa/me\n")
    assert "MFA" in failed()["assume-role"]


# ---------------------------------------------------------------- the order


def test_pairs_that_are_both_there(ecs: Metadata, imds: Metadata, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From the last of the chain to the first: each one added wins over all before."""
    assert found().snapshot.provider == "container-role"
    answer = json.dumps({"Version": 1, "AccessKeyId": "AKIDPROC", "SecretAccessKey": "s"})
    line = process(tmp_path, f"print({answer!r})")
    config("[default]\naws_access_key_id = AKIDCONFIG\naws_secret_access_key = s\n")
    assert found().snapshot.provider == "config-file"
    config(f"[default]\naws_access_key_id = AKIDCONFIG\naws_secret_access_key = s\ncredential_process = {line}\n")
    assert found().snapshot.provider == "custom-process"
    shared("[default]\naws_access_key_id = AKIDSHARED\naws_secret_access_key = s\n")
    assert found().snapshot.provider == "shared-credentials-file"
    env_keys(monkeypatch)
    outcome = found()
    assert outcome.snapshot.provider == "env"
    assert imds.seen == []


def test_a_named_profile_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    env_keys(monkeypatch)
    shared("[other]\naws_access_key_id = AKIDOTHER\naws_secret_access_key = two\n")
    assert found("other").snapshot.access_key_id == "AKIDOTHER"
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert found().snapshot.access_key_id == "AKIDENV", "AWS_PROFILE does not, as in AWS's own tools"


def test_what_was_passed_over_is_told(ecs: Metadata) -> None:
    passed = dict(found().passed)
    assert list(passed)[:2] == ["env", "assume-role"]
    assert passed["env"] == "AWS_ACCESS_KEY_ID is not set"
    assert "container-role" not in passed


def test_nothing_anywhere_gives_a_reason_for_each() -> None:
    reasons = failed()
    assert list(reasons) == [
        "env", "assume-role", "assume-role-with-web-identity", "sso", "shared-credentials-file", "login", "custom-process",
        "config-file", "ec2-credentials-file", "boto-config", "container-role", "iam-role",
    ]  # fmt: skip
    assert all(reasons.values())


def test_a_source_that_is_set_up_and_fails_ends_the_walk(monkeypatch: pytest.MonkeyPatch, imds: Metadata) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    reasons = failed()
    assert list(reasons) == ["env"]
    assert "AWS_SECRET_ACCESS_KEY" in reasons["env"]
    assert imds.seen == [], "the next one's keys would be another identity's"


# ---------------------------------------------------------------- dangers


def test_no_secret_in_reason_repr_or_log(ecs: Metadata, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    secret = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY12"
    # Three times a second apart is botocore's own way with this endpoint.
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    ecs.failing = (500, f'{{"SecretAccessKey": "{secret}", "Token": "{"t" * 400}"}}')
    reason = failed()["container-role"]
    assert "500" in reason
    assert secret not in reason
    assert "tttt" not in reason
    assert secret not in caplog.text
    ecs.failing = None
    assert "ecs-secret" not in repr(found())
    assert "ecs-token" not in repr(found())


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("SecretAccessKey: abc123", "abc123"),
        ('"SessionToken":"IQoJb3JpZ2luX2Vj"', "IQoJb3JpZ2luX2Vj"),
        ("key wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY refused", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        ("bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJhbGci"),
        ("Authorization: Bearer eyJhbGci.short", "eyJhbGci"),
        ("authorization: Basic dXNlcjpw", "dXNlcjpw"),
        ('"Token": "expired"', "expired"),
        ("Token: IQoJ", "IQoJ"),
        ("password: hunter", "hunter"),
        ("got eyJhbGciOi.eyJzdWIi.c2ln from the broker", "c2ln"),
        ("vault: hvs.CAESIJabc", "CAESI"),
        ("vault gave s.iyNUhq8Ov4hIAx6snw5mB2nL", "iyNU"),
        ("remote: ghp_16C7e42F292c6912E7 refused", "16C7"),
        ("gho_16C7e42F292c6912E7", "16C7"),
        ("GET https://me:hun@ter@vault.example/v1 failed", "ter"),
        ("proxy http://hunter@proxy.example:3128 failed", "hunter"),
        ("passwd=hunter", "hunter"),
        ("pwd: hunter", "hunter"),
        ("https://a.example/?api_key=hunter&x=1", "hunter"),
        ("X-Api-Key: hunter", "hunter"),
        ("x-vault-token: hunter", "hunter"),
        ("SAMLResponse=PHNhbWw+", "PHNh"),
        ("authorization: hunter", "hunter"),
        ('authorization: Digest username="me", response="hunter"', "hunter"),
        ("Authorization: ApiKey=hunter", "hunter"),
        ("refresh_token: left.right", "right"),
        ("secret key: hunter", "hunter"),
        ("the secret access key: hunter", "hunter"),
        ("get-keys --user me --password hunter", "hunter"),
        ("key=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalr"),
        ("it is wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY.", "wJalr"),
        ("password='correct horse' was refused", "horse"),
        ('password: "correct \\"horse\\" battery" was refused', "battery"),
        (r"{\"token\": \"correct horse\"}", "horse"),
        ('secret="correct horse', "horse"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----", "MIIE"),
        ("private_key: -----BEGIN PRIVATE KEY-----\nMIIE\nabc", "abc"),
        ("a" * 500 + " password: " + '"' + "x y " * 4000, "x y"),
    ],
)
def test_redact(text: str, hidden: str) -> None:
    assert hidden not in redact(text)


def test_what_stands_around_a_secret_stays() -> None:
    text = 'GET https://me:x@vault.example/v1: 403, {"token": "a b", "why": "sealed"}, X-Api-Key: c'
    said = 'GET https://[redacted]vault.example/v1: 403, {"token": [redacted], "why": "sealed"}, X-Api-Key: [redacted]'
    assert redact(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "/home/someone/.aws/sso/cache: no such file",
        "arn:aws:iam::123456789012:role/a/path/to/the/role is not assumable",
        "Error loading SSO Token: Token for https://corp.awsapps.com/start does not exist",
        "token: expired, log in again",
        "Authorization: Bearer token is missing",
        "Password: required",
        "secret = missing",
        "token = expired.",
        "AWS_WEB_IDENTITY_TOKEN_FILE: /var/run/token cannot be read",
        "see https://docs.example/it?mail=me@example.com",
        "/srv/tools/company/bin/get/keys/for/prod: not found",
    ],
)
def test_redact_leaves_what_helps(text: str) -> None:
    assert redact(text) == text


def test_of_a_traceback_the_cause_is_told() -> None:
    text = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\nRuntimeError: the vault is sealed\n'
    assert redact(text) == "RuntimeError: the vault is sealed"


def test_keys_near_their_end_are_taken_though_the_source_is_down_now(ecs: Metadata) -> None:
    """botocore would ask once more inside its mandatory window, and fail with the source."""
    ecs.answer = keys("ecs", minutes=5)
    real = ContainerProvider.load

    def load(self: ContainerProvider) -> RefreshableCredentials | None:
        credentials = real(self)
        ecs.failing = (500, "down")
        return credentials

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContainerProvider, "load", load)
        assert found().snapshot.access_key_id == "ASIAECS"
    assert len(ecs.seen) == 1


@pytest.mark.parametrize("expires", ["4102444800", "soon", "0001-01-01T00:00:00+14:00"])
@pytest.mark.parametrize("source", ["imds", "ecs"])
def test_keys_that_expire_at_no_time_are_named(source: str, expires: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(source).answer = keys(source) | {"Expiration": expires}
    outcome = Chain(None, "us-east-1").load()
    assert isinstance(outcome, Failure)
    assert outcome.cause[1].startswith("Expiration is no time such as"), outcome.cause


def test_the_walk_is_given_up_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(ContainerProvider, "load", lambda self: release.wait(60))
    try:
        outcome = Chain(None, "us-east-1", deadline=2.0).load()
        assert isinstance(outcome, Failure)
        assert outcome.cause[0] == "container-role"
        assert "hangs" in outcome.cause[1]
        assert outcome.down == "the container credentials endpoint"
    finally:
        release.set()


def test_private_parts_of_botocore_are_where_they_were() -> None:
    """What `_unattended` and `freeze` lean on."""
    providers = {provider.METHOD: provider for provider in Session().get_component("credential_provider").providers}
    process_provider, assume_role = providers["custom-process"], providers["assume-role"]
    assert isinstance(process_provider, ProcessProvider)
    assert hasattr(process_provider, "_popen")
    assert isinstance(assume_role, AssumeRoleProvider)
    assert hasattr(assume_role, "_prompter")
    assert isinstance(assume_role._profile_provider_builder, ProfileProviderBuilder)
    assert hasattr(assume_role._profile_provider_builder, "_create_process_provider")
    metadata, container = providers["iam-role"]._role_fetcher, providers["container-role"]._fetcher
    assert callable(metadata._get_credentials)
    assert all(hasattr(one._session, "send") for one in (metadata, container))
    assert hasattr(metadata, "_timeout")
    assert set(assume_role._credential_sourcer._providers) >= {providers["iam-role"], providers["container-role"]}
    assert freeze(None, "env") is None
