"""MFA codes from the system's keyring: a keyring of the test's own, STS that keeps what it is told."""

import time
from pathlib import Path

import pyotp
import pytest

from tests.shell import Shell
from tests.unit.credentials.servers import Sts

SERIAL = "arn:aws:iam::123456789012:mfa/me"

SEED = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
KEYRING = '''
import json, pathlib
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

class FileKeyring(KeyringBackend):
    """A keyring in a file, as a desktop's is to those who ask."""

    priority = 1
    file = pathlib.Path(__file__).with_name("keyring.json")

    def _all(self):
        if self.file.with_name("locked").exists():
            raise KeyringLocked("it is locked")
        return json.loads(self.file.read_text()) if self.file.exists() else {}

    def get_password(self, service, username):
        return self._all().get(f"{service} {username}")

    def set_password(self, service, username, password):
        self.file.write_text(json.dumps(self._all() | {f"{service} {username}": password}))
'''


@pytest.fixture
def user(sigward: Shell, sts: Sts) -> Shell:
    sigward.keys()
    sigward.environment |= {"AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{sts.server_address[1]}", "AWS_REGION": "us-east-1"}
    return sigward


@pytest.fixture
def keyring(user: Shell) -> Path:
    directory = user.home / "keyring"
    directory.mkdir()
    (directory / "tests_keyring.py").write_text(KEYRING)
    user.environment |= {"PYTHONPATH": str(directory), "PYTHON_KEYRING_BACKEND": "tests_keyring.FileKeyring"}
    return directory


def test_a_code_from_the_keyring(user: Shell, sts: Sts, keyring: Path) -> None:
    nothing = user("login", "--serial", SERIAL, "--totp")
    assert (nothing.status, "the keyring has no secret" in nothing.err.replace("\n", " ")) == (64, True), nothing.err
    stored = user("login", "--serial", SERIAL, "--totp-store", stdin=f"{SEED[:4]} {SEED[4:]}\n")
    assert stored.status == 0, stored.err
    before = int(time.time())
    again = user("login", "--serial", SERIAL, "--totp")
    assert again.status == 0, again.err
    expected = {pyotp.TOTP(SEED).at(moment) for moment in (before, int(time.time()))}
    assert sts.told[-1]["TokenCode"] in expected
    for ran in (nothing, stored, again):
        assert SEED not in ran.out + ran.err


def test_a_secret_that_is_none_and_a_keyring_that_is_locked(user: Shell, keyring: Path) -> None:
    wrong = user("login", "--serial", SERIAL, "--totp-store", stdin="0189!\n")
    assert (wrong.status, "not base32" in wrong.err) == (64, True), wrong.err
    (keyring / "locked").touch()
    locked = user("login", "--serial", SERIAL, "--totp")
    assert (locked.status, "does not answer: it is locked" in locked.err) == (77, True), locked.err
