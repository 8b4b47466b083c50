"""What the command line says, and does, where credentials fail: the cause in one line, the provider's own hint, status 77."""

import json
import os
import sys
from pathlib import Path

import pytest

from sigward import settings
from sigward.cli.commands import COMMANDS, read
from sigward.errors import CredentialsError
from tests.shell import KEY, SECRET, Shell

OF_PROFILE = "sso_account_id = 123456789012\nsso_role_name = ops\n"
START = "sso_start_url = https://corp.example/start\nsso_region = us-east-1\n"
PAST = {"Version": 1, "AccessKeyId": "AKIDPROC", "SecretAccessKey": "process-secret", "Expiration": "2020-01-01T00:00:00Z"}
OF_PROCESS = "custom-process: Error when retrieving credentials from custom-process: "
BY_ITSELF = "Run the profile's credential_process by itself to see what it says."

CASES = {
    "sso": (
        START + OF_PROFILE,
        "sso: Error loading SSO Token: Token for https://corp.example/start does not exist.",
        "Run `aws sso login --profile it`.",
    ),
    "sso-session": (
        f"sso_session = corp\n{OF_PROFILE}[sso-session corp]\n{START}",
        "sso: Error loading SSO Token: Token for corp does not exist.",
        "Run `aws sso login --profile it`.",
    ),
    "role": (
        "role_arn = arn:aws:iam::123456789012:role/x\nsource_profile = middle\n"
        "[profile middle]\nrole_arn = arn:aws:iam::123456789012:role/y\nsource_profile = corp\n"
        f"[profile corp]\n{START}{OF_PROFILE}",
        "assume-role: Error loading SSO Token: Token for https://corp.example/start does not exist.",
        "Run `aws sso login --profile corp`.",
    ),
    "role by process": (
        "role_arn = arn:aws:iam::123456789012:role/x\nsource_profile = keys\n[profile keys]\ncredential_process = sh say.sh\n",
        f"assume-role: {OF_PROCESS.partition(' ')[2]}vault token: expired.",
        BY_ITSELF,
    ),
    "login": ("login_session = arn:aws:iam::123456789012:user/me\n", "login: ", "Run `aws login --profile it`."),
    "process": ("credential_process = sh say.sh\n", f"{OF_PROCESS}vault token: expired.", BY_ITSELF),
    "traceback": (f"credential_process = {sys.executable} fail.py\n", f"{OF_PROCESS}RuntimeError: sealed.", BY_ITSELF),
    "mute": ("credential_process = false\n", f"{OF_PROCESS}it ended with status 1 and wrote nothing on stderr.", BY_ITSELF),
    "no program": ("credential_process = /nowhere/at-all\n", "custom-process: [Errno 2] No such file or directory", BY_ITSELF),
    "no JSON": ("credential_process = echo hello\n", "custom-process: what it gave is not JSON: ", BY_ITSELF),
    "expired": (
        "credential_process = cat past.json\n",
        "custom-process: its keys expired at 2020-01-01T00:00:00Z.",
        "The process must make new keys.",
    ),
    "missing": (
        None,
        "profile: The config profile (it) could not be found.",
        "Did you mean itt? See `aws configure list-profiles`.",
    ),
    "half": ("aws_access_key_id = AKID\n", "config-file: ", "Set both the access key id and the secret access key."),
}


def set_up(case: str, home: Path, config: Path) -> None:
    profile = CASES[case][0]
    config.write_text("[profile itt]\n" if profile is None else f"[profile it]\n{profile}")
    (home / "say.sh").write_text("echo 'vault token: expired' >&2\nexit 3\n")
    (home / "fail.py").write_text("raise RuntimeError('sealed')\n")
    (home / "past.json").write_text(json.dumps(PAST))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, and a home, for commands in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    return tmp_path


def execute(name: str, *arguments: str) -> int:
    status: int = read(COMMANDS[name], f"sigward {name}", list(arguments)).execute()  # type: ignore[attr-defined]
    return status


@pytest.mark.parametrize("case", CASES)
def test_the_cause_and_the_hint_are_told_in_a_line_each(here: Path, case: str) -> None:
    set_up(case, here, Path(os.environ["AWS_CONFIG_FILE"]))
    with pytest.raises(CredentialsError) as caught:
        execute("whoami", "--profile", "it")
    cause, hint = str(caught.value.args[0]), caught.value.hint
    assert cause.startswith(f"no AWS credentials: {CASES[case][1]}")
    assert "\n" not in cause
    assert hint == CASES[case][2]


def test_run_does_not_start_the_program_unless_asked_to(sigward: Shell) -> None:
    case = "sso-session"
    set_up(case, sigward.home, sigward.home / "config")
    sigward.environment["AWS_PROFILE"] = "it"
    run = ("run", "--front", "native")
    ran = sigward(*run, "--", "touch", "started")
    first, second = ran.err.splitlines()
    assert (ran.status, ran.out) == (77, "")
    assert first.startswith(f"error: no AWS credentials: {CASES[case][1]}")
    assert second == f"hint: {CASES[case][2]}"
    assert not (sigward.home / "started").exists()
    ran = sigward(*run, "--no-credentials-ok", "--", "sh", "-c", "echo started; exit 3")
    assert (ran.status, ran.out) == (3, "started\n")


def test_run_needs_the_keys_of_its_own_client(sigward: Shell) -> None:
    sigward.keys().settings('[clients.ok]\n[clients.bad]\nidentity = "bad"\n[identities.bad]\nprocess = "false"\n')
    run = ("run", "--front", "native", "--client")
    ran = sigward(*run, "bad", "--", "true")
    assert ran.status == 77
    assert ran.err.startswith("error: no AWS credentials for bad: identity-process: ")
    assert sigward(*run, "ok", "--", "true").status == 0


def test_check_tries_every_identity(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "past.json").write_text(json.dumps(PAST))
    (here / "alive.json").write_text(json.dumps(PAST | {"Expiration": "2099-01-01T00:00:00Z"}))
    Path(os.environ["AWS_CONFIG_FILE"]).write_text("[profile good]\naws_access_key_id = AKIDGOOD\naws_secret_access_key = s\n")
    Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).write_text("[odd]\naws_access_key_id = AKID ODD\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    (here / "s.toml").write_text(
        '[[route]]\nbucket = "a"\nidentity = "gone"\n[[route]]\nbucket = "b"\nidentity = "good"\n'
        '[clients.ci]\nidentity = "deploy"\n[identities.deploy]\nprocess = "false"\n[identities.unused]\nprocess = "cat past.json"\n'
        '[identities.alive]\nprocess = "cat alive.json"\n[identities.odd]\nprofile = "odd"\n'
    )
    with pytest.raises(CredentialsError, match=r"no AWS credentials for deploy, gone, odd, unused\."):
        execute("check", "--config", "s.toml")
    said = capsys.readouterr().out
    for line in (
        "credentials  ok (env; expires never)",
        "identity     alive: ok (identity-process; expires 2099-01-01T00:00:00Z)",
        "identity     good: ok (config-file; expires never)",
        "identity     deploy: failed (identity-process: ",
        "identity     gone: failed (profile: ",
        "identity     odd: failed (shared-credentials-file: ",
        "identity     unused: failed (identity-process: its keys expired at 2020-01-01T00:00:00Z)",
    ):
        assert line in said
    with pytest.raises(CredentialsError, match=r"no AWS credentials: profile: The config profile \(gone\) could not be found\."):
        execute("whoami", "--identity", "gone", "--config", "s.toml")


def test_check_shows_every_place_that_requests_go_to(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    (here / "s.toml").write_text(
        'addons = ["spy.py"]\nreverse = ["127.0.0.1:0=https://one.example"]\n'
        '[egress]\nproxy = "http://user:a-secret-that-must-not-leak@p.example:3128"\n'
        '[[route]]\nhost = "s3.*.amazonaws.com"\nupstream = "https://two.example"\nconnect = "three.example:8443"\n'
    )
    assert execute("check", "--config", "s.toml") == 0
    said = capsys.readouterr().out.splitlines()
    for line in (
        "reverse      127.0.0.1:0 → https://one.example",
        "egress       p.example:3128",
        "addon        spy.py",
        "route 1      s3.*.amazonaws.com: sign → https://two.example → three.example:8443",
    ):
        assert line in said


def test_pseudo_regions_are_no_scopes(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A program still sees them: its SDK reads more from them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "fips-us-west-2")
    sign = ("sign", "GET", "https://es.internal.example/", "--service", "es", "--json-output")
    for more, region in (((), "us-west-2"), (("--region", "aws-global"), "us-east-1")):
        assert execute(*sign, *more) == 0
        assert json.loads(capsys.readouterr().out)["region"] == region
    assert execute("env") == 0
    assert "AWS_REGION=fips-us-west-2\n" in capsys.readouterr().out
    plan = read(COMMANDS["serve"], "sigward serve", []).plan()
    assert json.loads(plan.engine)["default_region"] == "us-west-2"
    route = settings.Route(host="a", region="us-gov-west-1-fips")  # type: ignore[call-arg]
    assert route.region == "us-gov-west-1"


def test_no_secret_of_a_process_is_told(here: Path) -> None:
    (here / "say.sh").write_text(f"echo 'refused: SecretAccessKey={SECRET} for {KEY}' >&2\nexit 1\n")
    Path(os.environ["AWS_CONFIG_FILE"]).write_text("[default]\ncredential_process = sh say.sh\n")
    with pytest.raises(CredentialsError) as caught:
        execute("whoami")
    assert "[redacted] for" in str(caught.value)
    assert SECRET not in str(caught.value)
