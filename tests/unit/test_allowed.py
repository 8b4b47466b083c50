"""A sigward.toml of the current folder counts only after `sigward config allow`, as it was then and where it was then."""

import os
import sys
from pathlib import Path

import pytest

from sigward.cli.commands import COMMANDS, read
from sigward.cli.reading import read_again
from sigward.errors import SigwardError, UsageError
from sigward.settings import Settings
from tests.shell import Shell

STRICT = {"serve", "web", "run", "check"}
"""Commands that refuse; all others ignore it."""

ARGUMENTS = {
    "sign": ["GET", "https://sqs.us-east-1.amazonaws.com/"], "explain": ["-"], "token": ["msk"], "imds": ["role"], "client": ["list"],
    "knowledge": ["refresh"], "actions": ["GET", "https://sqs.us-east-1.amazonaws.com/"], "ca": ["path"], "completion": ["bash"],
    "config": ["allow"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(empty_folder: Path) -> Path:
    """The current one, with a settings file."""
    (empty_folder / "sigward.toml").write_text("grace = 1\n")
    return empty_folder


def config(*arguments: str) -> None:
    assert read(COMMANDS["config"], "sigward config", list(arguments)).execute() == 0  # type: ignore[attr-defined]


def grace(*arguments: str) -> float:
    return read(COMMANDS["serve"], "sigward serve", list(arguments)).grace


def refused(*arguments: str) -> str:
    with pytest.raises(UsageError) as caught:
        grace(*arguments)
    assert "sigward config allow" in caught.value.hint
    return str(caught.value.args[0])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_it_or_says_that_it_is_ignored(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("sigward.toml").write_text('graze = "a mistake, that would be told if the file were read"\n')
    if name in STRICT:
        with pytest.raises(UsageError, match=r"sigward\.toml: it is not allowed"):
            read(COMMANDS[name], f"sigward {name}", [])
        return
    assert read(COMMANDS[name], f"sigward {name}", ARGUMENTS.get(name, [])).grace == 10
    said = capsys.readouterr().err
    assert said.splitlines() == ([] if name == "config" else [said.strip()])
    assert name == "config" or said.startswith("sigward: sigward.toml is ignored: it is not allowed")
    assert Settings.source is None


def test_help_is_given_all_the_same() -> None:
    with pytest.raises(SystemExit) as ended:
        grace("--help")
    assert ended.value.code == 0


def test_it_is_allowed_until_it_changes_and_in_its_place_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "it is not allowed" in refused()
    config("allow")
    assert f"{folder}/sigward.toml: allowed until it changes" in capsys.readouterr().out
    assert grace() == 1
    Path("sigward.toml").write_text("grace = 2\n")
    assert "it has changed since it was allowed" in refused()
    config("allow", "sigward.toml")
    assert grace() == 2
    copy = folder.parent / "copy"
    copy.mkdir()
    (copy / "sigward.toml").write_text("grace = 2\n")
    (folder.parent / "link").symlink_to(folder)
    os.chdir(folder.parent / "link")
    assert grace() == 2, "the same folder by another name"
    os.chdir(copy)
    assert "it is not allowed" in refused()
    (copy / "sigward.toml").unlink()
    (copy / "sigward.toml").symlink_to(folder / "sigward.toml")
    assert "it is not allowed" in refused(), "what an allowed file names is relative to the folder that it is used in"
    config("revoke", str(folder / "sigward.toml"))
    os.chdir(folder)
    assert "it is not allowed" in refused()


def test_a_running_sigward_asks_again_too() -> None:
    config("allow")
    flags = ["--listen", "127.0.0.1:0", "--admin", "off"]
    assert read_again("serve", flags).grace == 1
    Path("sigward.toml").write_text("grace = 2\n")
    with pytest.raises(SigwardError, match="it has changed since it was allowed"):
        read_again("serve", flags)


def test_no_module_of_the_current_folder_is_run(folder: Path) -> None:
    """`python -m` looks there first."""
    for name in ("sigward", "pydantic", "pickle"):
        (folder / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    assert read_again("serve", ["--config", "sigward.toml"]).grace == 1
    assert not (folder / "ran").exists()


def test_a_file_that_is_named_needs_no_leave(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert grace("--config", "sigward.toml") == 1
    monkeypatch.setenv("SIGWARD_CONFIG", "sigward.toml")
    assert grace() == 1
    assert grace("--config", os.devnull) == 10, "none at all"
    assert capsys.readouterr().err == ""


def test_a_persons_own_file_and_the_systems_need_no_leave(tmp_path: Path) -> None:
    """Not even where that is the current folder."""
    Path("sigward.toml").unlink()
    for place, seconds in (("etc", 3), ("xdg/sigward", 4)):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "sigward.toml").write_text(f"grace = {seconds}\n")
        assert grace() == seconds
    for place, seconds in (("etc", 3), ("xdg/sigward", 4)):
        os.chdir(tmp_path / place)
        assert grace() == seconds


def test_an_ignored_file_does_not_hide_the_persons_own(tmp_path: Path) -> None:
    (tmp_path / "xdg/sigward").mkdir(parents=True)
    (tmp_path / "xdg/sigward/sigward.toml").write_text("grace = 4\n")
    assert read(COMMANDS["env"], "sigward env", []).grace == 4


def test_what_allowing_it_means_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sigward.toml").write_text(
        'addons = ["spy.py"]\n[identities.a]\nprocess = "get-keys"\n[[route]]\nhost = "a"\nupstream = "https://b.test"\n'
        '[egress]\nproxy = "http://user:a-secret-that-must-not-leak@p.test:3128"\n'
    )
    config("allow")
    said = capsys.readouterr().out
    for line in (
        "runs     addons = ['spy.py']", "runs     identities.a.process = 'get-keys'", "sends to route.1.upstream = 'https://b.test'",
        "sends to egress.proxy = 'http://p.test:3128'",
    ):  # fmt: skip
        assert line in said


def test_whom_it_lets_in_and_what_it_writes_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sigward.toml").write_text(
        'listen = "0.0.0.0:8080"\nadmin = "127.0.0.1:9901"\nweb_host = "::"\ntransparent = "off"\n'
        'reverse = ["127.0.0.1:1=https://b.test", "[::]:2"]\naudit_log = "/tmp/a"\naccess_log = true\nca_dir = "ca"\n'
    )
    config("allow")
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  opens    listen = '0.0.0.0:8080'",
        "  opens    web_host = '::'",
        "  sends to reverse.1.upstream = 'https://b.test'",
        "  opens    reverse.2.listen = '[::]:2'",
        "  writes   audit_log = '/tmp/a'",
        "  writes   ca_dir = 'ca'",
    ]
    Path("sigward.toml").write_text('[[reverse]]\nlisten = "[::]:2"\nupstream = "https://b.test"\n')
    config("allow")
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  opens    reverse.1.listen = '[::]:2'",
        "  sends to reverse.1.upstream = 'https://b.test'",
    ]


def test_no_key_hides_what_comes_after_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal obeys escapes, carriage returns, and marks that turn the direction of writing."""
    (hidden := folder / "a\x1b[8m").mkdir()
    (hidden / "sigward.toml").write_text('[identities."a\\u001b[8m\\r\\u202e"]\nprocess = "get\\u001b[8m"\n')
    config("allow", str(hidden / "sigward.toml"))
    said = capsys.readouterr().out
    assert "  runs     identities.a\\x1b[8m\\r\\u202e.process = 'get\\x1b[8m'\n" in said
    assert all(letter.isprintable() for line in said.splitlines() for letter in line)


def test_a_program_in_it_is_not_run_before(sigward: Shell) -> None:
    answer = '{"Version": 1, "AccessKeyId": "AKIDPROC", "SecretAccessKey": "s"}'
    (sigward.home / "keys.py").write_text(f"open('ran', 'w')\nprint('{answer}')\n")
    (sigward.home / "sigward.toml").write_text(f'[identities.default]\nprocess = "{sys.executable} keys.py"\n')
    assert sigward("whoami").status == 77
    for command in (("serve",), ("run", "--", "true"), ("check",)):
        assert sigward(*command).status == 64
    assert not (sigward.home / "ran").exists()
    assert sigward("config", "allow").status == 0
    assert sigward("whoami").status == 0
    assert (sigward.home / "ran").exists()
