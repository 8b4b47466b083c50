"""The settings file: the one begun with stays the one that counts, and its paths are relative to it."""

import logging
import os
import pwd
from pathlib import Path

import pytest

from sigward import file
from sigward.cli.commands import COMMANDS, read
from sigward.cli.serving import Service
from sigward.credentials.mfa import directory
from sigward.errors import UsageError
from sigward.settings import Settings
from tests.shell import Shell

FLAGS = ["--listen", "127.0.0.1:0", "--admin", "off"]


@pytest.fixture(autouse=True)
def own(tmp_path: Path, empty_folder: Path) -> Path:
    """The user's own settings file, which is not there yet. The current folder is another one."""
    (tmp_path / "xdg/sigward").mkdir(parents=True)
    return tmp_path / "xdg/sigward/sigward.toml"


def serve(*arguments: str) -> Settings:
    return read(COMMANDS["serve"], "sigward serve", [*FLAGS, *arguments])


def test_a_reload_without_the_file_keeps_its_rules(own: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whether the file is away, or another comes before it."""
    caplog.set_level(logging.INFO)
    own.write_text('[[route]]\nhost = "sqs.*"\naction = "deny"\n')
    service = Service(begun := serve().plan())
    own.rename(own.with_suffix(".old"))
    service.reload(serve().plan())
    (tmp_path / "etc").mkdir()
    file.SYSTEM.write_text("")
    service.reload(serve().plan())
    assert service.plan is begun
    said = [record.getMessage() for record in caplog.records if record.name == "sigward"]
    # There is no CA here, either.
    assert [line for line in said if line.startswith("the settings")] == [
        f"the settings are left as they were: they would come from no file and no longer from {own}",
        f"the settings are left as they were: they would come from {file.SYSTEM} and no longer from {own}",
    ]
    own.with_suffix(".old").rename(own)
    service.reload(serve("--grace", "2").plan())
    assert service.plan.grace == 2
    service.engine.close()


@pytest.mark.parametrize("what", ["link", "folder", "pipe"])
@pytest.mark.parametrize("place", ["here", "own", "system"])
def test_what_is_no_file_hides_no_rules(place: str, what: str, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = {"here": Path("sigward.toml"), "own": own, "system": file.SYSTEM}[place]
    path.parent.mkdir(exist_ok=True)
    if what == "link":
        path.symlink_to("away.toml")
    elif what == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(UsageError, match=r"sigward\.toml: it is not a regular file"):
        serve()
    assert read(COMMANDS["env"], "sigward env", []).grace == 10
    assert capsys.readouterr().err == f"sigward: {path} is ignored: it is not a regular file.\n"


PATHS = """\
addons = ["my.py", "/opt/its.py"]
ca_dir = "ca"
access_log = "logs/access"
audit_log = "stderr"
body.spool_dir = "spool"
tls.ca_files = "a.pem, b.pem"
clients.key_file = "key"
[identities.path]
process = "bin/get-keys --from 'a vault' x/y"
[identities.name]
process = "get-keys bin/x"
[identities.token]
role_arn = "arn:aws:iam::123456789012:role/a"
web_identity_token_file = "token"
"""


def test_paths_in_a_file_are_relative_to_its_folder(own: Path) -> None:
    own.write_text(PATHS)
    other = Path("conf") / "s.toml"
    other.parent.mkdir()
    other.write_text(PATHS)
    for settings, folder in ((serve(), own.parent), (serve("--config", "conf/s.toml"), other.parent)):
        assert settings.addons == [folder / "my.py", Path("/opt/its.py")]
        assert settings.ca_dir == folder / "ca"
        assert (settings.access_log, settings.audit_log) == (f"{folder}/logs/access", "stderr")
        assert (settings.body.spool_dir, settings.clients.key_file) == (folder / "spool", folder / "key")
        assert settings.tls.ca_files == [folder / "a.pem", folder / "b.pem"]
        known = settings.identities
        assert known["path"].process == f"{folder}/bin/get-keys --from 'a vault' x/y"
        assert known["name"].process == "get-keys bin/x"
        assert known["token"].web_identity_token_file == folder / "token"
    assert serve("--addons", "my.py").addons == [Path("my.py")], "a flag's is relative to the current folder"


def test_a_link_to_the_own_file_does_not_make_the_folders_programs_its_own(own: Path) -> None:
    own.write_text('addons = ["my.py"]\n')
    Path("sigward.toml").symlink_to(own)
    assert serve().addons == [own.parent / "my.py"]


def test_of_the_current_folders_file_nothing_changes(own: Path) -> None:
    Path("sigward.toml").write_text('addons = ["my.py"]\n')
    assert read(COMMANDS["config"], "sigward config", ["allow"]).execute() == 0  # type: ignore[attr-defined]
    assert serve().addons == [Path("my.py")]


@pytest.mark.parametrize("value", ["", ".", "relative/home"])
def test_relative_homes_are_none(value: str, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", value)
    monkeypatch.setenv("HOME", "/home/me")
    assert file.config_home() == Path("/home/me/.config/sigward")
    monkeypatch.setenv("HOME", value)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(("me", "x", uid, uid, "", "/users/me", "")))
    assert file.config_home() == Path("/users/me/.config/sigward")
    assert directory() == Path("/users/me/.aws/cli/cache")


def test_a_user_without_a_home(sigward: Shell, tmp_path: Path) -> None:
    """A user id that the system does not know, as in containers."""
    (tmp_path / "sitecustomize.py").write_text("import pwd\npwd.getpwuid = {}.__getitem__\n")
    for name in ("HOME", "XDG_CONFIG_HOME"):
        del sigward.environment[name]
    sigward.keys().environment["PYTHONPATH"] = str(tmp_path)
    assert sigward("whoami").status == 0
    for command in (("env",), ("serve", *FLAGS)):
        ran = sigward(*command)
        assert (ran.status, "ca_dir: it is not set, and the user has no home" in ran.err.replace("\n", " ")) == (64, True), ran
    assert sigward("check", "--ca-dir", str(tmp_path / "ca")).status == 0
    sigward.settings("grace = 1\n")
    assert "XDG_CONFIG_HOME: it is not set, and the user has no home" in sigward("config", "allow").err.replace("\n", " ")
