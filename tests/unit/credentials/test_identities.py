"""Identities beside the chain: roles, token files and processes; moto's STS."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from sigward.credentials import Assume, Chain, Failure, Found
from sigward.credentials.chain import session_name
from sigward.settings import Settings
from tests.unit.credentials.servers import Sts

ROLE = "arn:aws:iam::123456789012:role/ops"


def load(assume: Assume) -> Found | Failure:
    return Chain(None, "us-east-1", assume=assume).load()


def test_a_role_is_taken_with_the_chains_keys(sts: Sts) -> None:
    found = load(
        Assume(
            role_arn=ROLE,
            external_id="ext",
            session_name="me",
            duration=900,
            source_identity="alice",
            policy='{"Version":"2012-10-17","Statement":[]}',
            tags=(("team", "a"),),
        )
    )
    assert isinstance(found, Found), found
    assert (found.snapshot.access_key_id, found.snapshot.secret_access_key) == ("ASIAASSUMED", "assumed-secret")
    assert found.snapshot.session_token == "assumed-token"
    assert found.snapshot.expires_at is not None
    assert found.snapshot.provider == "env → identity-role"
    [told] = sts.told
    assert "AKIDENV" in told["authorization"]
    assert told["Action"] == "AssumeRole"
    assert (told["RoleArn"], told["RoleSessionName"], told["ExternalId"]) == (ROLE, "me", "ext")
    assert (told["DurationSeconds"], told["SourceIdentity"]) == ("900", "alice")
    assert json.loads(told["Policy"])["Statement"] == []
    assert (told["Tags.member.1.Key"], told["Tags.member.1.Value"]) == ("team", "a")


def test_a_role_that_is_denied_says_so_without_a_secret(sts: Sts) -> None:
    sts.deny = True
    failure = load(Assume(role_arn=ROLE))
    assert isinstance(failure, Failure)
    provider, why = failure.reasons[-1]
    assert provider == "identity-role"
    assert ROLE in why
    assert "AccessDenied" in why
    assert "trust policy" in why
    assert "env-secret" not in repr(failure)


def test_a_session_is_named_after_the_sidecar(sts: Sts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTNAME", "pod/with spaces")
    assert isinstance(load(Assume(role_arn=ROLE)), Found)
    assert sts.told[0]["RoleSessionName"] == "sigward-pod-with-spaces"
    monkeypatch.setenv("HOSTNAME", "x" * 100)
    assert len(session_name()) == 64


def test_a_token_file_takes_a_role_without_keys(sts: Sts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    token = tmp_path / "token"
    token.write_text("the-oidc-token")
    found = load(Assume(role_arn=ROLE, web_identity_token_file=str(token), duration=900))
    assert isinstance(found, Found), found
    assert found.snapshot.provider == "identity-web-identity"
    [told] = sts.told
    assert (told["Action"], told["WebIdentityToken"], told["authorization"]) == ("AssumeRoleWithWebIdentity", "the-oidc-token", "")
    token.unlink()
    failure = load(Assume(role_arn=ROLE, web_identity_token_file=str(token)))
    assert isinstance(failure, Failure)
    assert "No such file" in failure.reasons[-1][1]


def test_a_process_gives_keys(tmp_path: Path) -> None:
    script = tmp_path / "process.py"
    script.write_text('print(\'{"Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": "process-secret"}\')')
    chain = Chain(None, "us-east-1", assume=Assume(process=f"{sys.executable} {script}"))
    found = chain.load()
    assert isinstance(found, Found), found
    assert (found.snapshot.access_key_id, found.snapshot.provider) == ("AKIDPROCESS", "identity-process")
    script.write_text("import sys; sys.exit('no luck')")
    failure = replace(chain).load()
    assert isinstance(failure, Failure)
    assert "no luck" in failure.reasons[-1][1]
    assert failure.for_clients() == (("identity-process", "the command failed"),)


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("[1]", "a JSON object is expected, and it printed a list"),
        ("null", "a JSON object is expected"),
        ("hello", "what it gave is not JSON"),
        ('{"Version": 1, "AccessKeyId": 5, "SecretAccessKey": "s"}', "AccessKeyId must be a string"),
        *(
            (f'{{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "s", "Expiration": {when}}}', said)
            for when, said in (
                ('"soon"', "Expiration is no time"),
                (f'"{"9" * 40}"', "Expiration is no time"),
                ('"4102444800"', "Expiration is no time"),
                ('"20300101"', "Expiration is no time"),
                ('"0001-01-01T00:00:00+14:00"', "Expiration is no time"),
                ("[]", "Expiration must be a string"),
            )
        ),
    ],
)
def test_what_a_process_prints_in_place_of_keys_is_named(printed: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "said").write_text(printed)
    failure = load(Assume(process=f"cat {tmp_path}/said"))
    assert isinstance(failure, Failure)
    assert said in failure.cause[1]
    assert failure.for_clients() == (("identity-process", "what the command printed is not valid"),)


def test_an_identity_of_the_settings_is_a_chain_of_its_own() -> None:
    settings = Settings(
        identities={"ops": {"profile": "base", "role_arn": ROLE, "tags": {"b": "2", "a": "1"}}},  # type: ignore[dict-item]
        route=[{"host": "*", "identity": "ops"}, {"host": "x", "identity": "other"}],  # type: ignore[list-item]
    )
    chains = settings.chains("eu-west-1")
    assert list(chains) == ["default", "ops", "other"]
    assert chains["ops"].profile == "base"
    assert chains["ops"].assume == Assume(role_arn=ROLE, tags=(("a", "1"), ("b", "2")))
    assert chains["other"] == Chain("other", "eu-west-1")


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        ({"process": "x", "role_arn": ROLE}, "process stands alone"),
        ({"web_identity_token_file": "/t"}, "needs role_arn"),
        ({"external_id": "x"}, "set role_arn"),
        ({"role_arn": "ops"}, "role_arn"),
        ({"role_arn": ROLE, "duration": 60}, "duration"),
        ({"role_arn": ROLE, "session_name": "a b"}, "session_name"),
        ({"rolearn": ROLE}, "rolearn"),
    ],
)
def test_a_wrong_identity_names_the_field(identity: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Settings(identities={"ops": identity})  # type: ignore[dict-item]
    assert os.environ.get("SIGWARD_IDENTITIES") is None
