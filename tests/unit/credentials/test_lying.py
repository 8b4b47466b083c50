"""Keys that lie in the environment or a file: found without botocore's providers, and the same as theirs."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sigward.credentials import Chain
from sigward.credentials.files import forget

ENVIRONMENTS: list[dict[str, str]] = [
    {},
    {"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "env-secret"},
    {"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t", "AWS_SECURITY_TOKEN": "older"},
    {"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t", "AWS_SECURITY_TOKEN": ""},
    {"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "s", "AWS_CREDENTIAL_EXPIRATION": "2099-01-01T00:00:00Z"},
    {"AWS_ACCESS_KEY_ID": "AKIDENV"},
    {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "s"},
    {"AWS_PROFILE": "a"},
    {"AWS_PROFILE": "a", "AWS_DEFAULT_PROFILE": "b"},
    {"AWS_PROFILE": ""},
    {"AWS_PROFILE": "nowhere", "AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "s"},
]
KEYS = "aws_access_key_id = AKID{0}\naws_secret_access_key = secret-{0}\n"
CREDENTIALS = [
    None,
    "",
    f"[default]\n{KEYS.format('D')}[a]\n{KEYS.format('A')}aws_session_token = t\n[b]\n{KEYS.format('B')}aws_security_token =\n"
    "aws_session_token = t\n",
    "[default]\naws_access_key_id = AKIDHALF\n[a]\naws_access_key_id =\naws_secret_access_key = s\n",
    "no section = 1\n",
    "[default]\nregion = eu-west-1\n[a]\nregion = eu-west-1\n",
]
CONFIGS = [
    None,
    f"[default]\n{KEYS.format('CD')}[profile a]\n{KEYS.format('CA')}s3 =\n  addressing_style = path\n[a]\n{KEYS.format('NO')}",
    f"[default]\ncredential_process = false\n{KEYS.format('CD')}[profile a]\nregion = x\n",
    "[default\n",
]


@pytest.mark.parametrize(("environment", "profile"), list(itertools.product(ENVIRONMENTS, [None, "default", "a", "nowhere"])))
def test_what_lies_about_is_what_botocore_finds(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], profile: str | None) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = 0
    for credentials, config in itertools.product(CREDENTIALS, CONFIGS):
        for variable, text in (("AWS_SHARED_CREDENTIALS_FILE", credentials), ("AWS_CONFIG_FILE", config)):
            file = Path(os.environ[variable])
            file.unlink(missing_ok=True)
            if text is not None:
                file.write_text(text)
        forget()
        chain = Chain(profile, "us-east-1")
        lying = chain.lying()
        forget()
        assert lying is None or lying == chain._asked(), (credentials, config)
        found += lying is not None
    if (profile in (None, "default") and environment in ENVIRONMENTS[:4]) or profile == "a":
        assert found, "nothing is found without asking"


@pytest.mark.parametrize(
    "line", ["role_arn = x", "web_identity_token_file = x", "sso_role_name = x", "login_session = x", "credential_process = x"]
)
def test_whoever_must_be_asked_is_asked_first(line: str) -> None:
    Path(os.environ["AWS_CONFIG_FILE"]).write_text(f"[default]\n{line}\n")
    Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).write_text(f"[default]\n{KEYS.format('D')}")
    assert Chain(None, "us-east-1").lying() is None


def test_a_token_file_in_the_environment_comes_before_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).write_text(f"[default]\n{KEYS.format('D')}")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere")
    assert Chain(None, "us-east-1").lying() is None


def test_they_take_no_session_of_botocores() -> None:
    program = (
        "import sys; from sigward.credentials import Chain, resolve_region; resolve_region(None, None); Chain(None, 'us-east-1').load(); "
        "sys.exit(' '.join(name for name in ('botocore.session', 'botocore.credentials', 'urllib3') if name in sys.modules) or None)"
    )
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
