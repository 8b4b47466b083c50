"""`sigward login`: sessions of GetSessionToken and of roles, shared with the AWS CLI's cache."""

import json
import os
import threading
from pathlib import Path

import pytest

from sigward.credentials import Chain, Found, Keeper, Watcher
from sigward.credentials.keeper import stamp
from sigward.credentials.mfa import PROVIDER, directory, login, session
from sigward.errors import CredentialsError, UsageError
from tests.unit.credentials.servers import Sts

SERIAL = "arn:aws:iam::123456789012:mfa/me"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sts: Sts) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    credentials = tmp_path / "keys"
    credentials.write_text("[user]\naws_access_key_id = AKIDUSER\naws_secret_access_key = user-secret\n")
    config = tmp_path / "conf"
    config.write_text(
        f"[profile user]\nmfa_serial = {SERIAL}\n"
        f"[profile role]\nrole_arn = arn:aws:iam::123456789012:role/ops\nsource_profile = user\nmfa_serial = {SERIAL}\n"
        "[profile plain]\nrole_arn = arn:aws:iam::123456789012:role/ops\nsource_profile = user\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    return tmp_path


def chain(profile: str) -> Chain:
    return Chain(profile, "us-east-1")


def test_a_session_of_plain_keys_is_kept_and_used(sts: Sts) -> None:
    made = login(chain("user"), serial=None, duration=900, code=lambda _: "123456")
    [told] = sts.told
    assert (told["Action"], told["SerialNumber"], told["TokenCode"], told["DurationSeconds"]) == (
        "GetSessionToken",
        SERIAL,
        "123456",
        "900",
    )
    assert made.file.stat().st_mode & 0o777 == 0o600
    assert set(json.loads(made.file.read_text())["Credentials"]) == {"AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"}
    found = chain("user").load()
    assert isinstance(found, Found)
    assert (found.snapshot.provider, found.snapshot.access_key_id) == (PROVIDER, "ASIAASSUMED")
    # Another profile has nothing of it, and an old session counts for nothing.
    assert session("other") is None
    kept = json.loads(made.file.read_text())
    kept["Credentials"]["Expiration"] = "2020-01-01T00:00:00Z"
    made.file.write_text(json.dumps(kept))
    found = chain("user").load()
    assert isinstance(found, Found)
    assert found.snapshot.access_key_id == "AKIDUSER"
    made.file.write_text("{")
    assert session("user") is None


def test_a_role_with_mfa_is_taken_once_and_found_by_the_chain(sts: Sts) -> None:
    before = dict(chain("role").load().reasons)  # type: ignore[union-attr]
    assert "sigward login" in before["assume-role"]
    made = login(chain("role"), serial=None, duration=None, code=lambda _: "654321")
    assert made.role_arn == "arn:aws:iam::123456789012:role/ops"
    assert made.file.parent == directory()
    assert made.file.stat().st_mode & 0o777 == 0o600
    assert [(told["Action"], told["TokenCode"]) for told in sts.told] == [("AssumeRole", "654321")]
    found = chain("role").load()
    assert isinstance(found, Found), found
    assert (found.snapshot.provider, found.snapshot.access_key_id) == ("assume-role", "ASIAASSUMED")
    assert len(sts.told) == 1
    # The very file that botocore, and with it the AWS CLI, looks for.
    from botocore.session import Session
    from botocore.utils import JSONFileCache

    theirs = Session(profile="role")
    theirs.get_component("credential_provider").get_provider("assume-role").cache = JSONFileCache(str(directory()))
    assert theirs.get_credentials().access_key == "ASIAASSUMED"
    login(chain("role"), serial=None, duration=None, code=lambda _: "111111")
    assert len(sts.told) == 2


def test_what_cannot_be_logged_in_to_says_why(sts: Sts) -> None:
    for profile, more, text in [
        ("nobody", {}, "nobody"),
        ("plain", {}, "no mfa_serial"),
        ("role", {"duration": 900}, "its own settings count"),
    ]:
        with pytest.raises(UsageError, match=text):
            login(chain(profile), **{"serial": None, "duration": None, "code": lambda _: "123456"} | more)  # type: ignore[arg-type]
    assert sts.told == []
    sts.deny = True
    with pytest.raises(CredentialsError) as caught:
        login(chain("user"), serial=None, duration=None, code=lambda _: "123456")
    assert "user-secret" not in str(caught.value)


def test_a_wrong_code_says_what_to_do() -> None:
    from sigward.credentials.mfa import mend

    assert "wait for the next" in mend("AccessDenied: MultiFactorAuthentication failed with invalid MFA one time pass code.")


def test_a_changed_file_wakes_the_keeper(tmp_path: Path) -> None:
    file, asked = tmp_path / "watched", threading.Event()
    keeper = Keeper(chain("user"), lambda _: None, lambda _: None)
    keeper.request_refresh = asked.set  # type: ignore[method-assign]
    watcher = Watcher({keeper: [str(file)]}, period=0.01)
    watcher.start()
    try:
        # The thread takes its first look at once; write until it has seen a change.
        for number in range(500):
            file.write_text("x" * number)
            if asked.wait(0.02):
                break
        assert asked.is_set()
    finally:
        watcher.close()
    assert stamp(str(tmp_path / "none")) is None
    assert os.environ["HOME"]
