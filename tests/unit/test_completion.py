"""`sigward completion`, in the shells that complete: each is asked what it would offer."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sigward.cli import COMMANDS
from tests.needs import need
from tests.shell import Shell

BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_sigward
printf '%s\\n' "${COMPREPLY[@]}"
"""

# An interactive zsh in a pseudo-terminal. At the tab it prints what compadd is given, between two lines, and ends.
ZSH = """
zmodload zsh/zpty
zpty z zsh -f -i
out() { local line; while zpty -r z line; do print -rn -- "$line"; done }
zpty -w z "PROMPT=; stty -onlcr; autoload -U compinit && compinit -D -u"
zpty -w z "source $1; compdef _shtab_sigward sigward; source $2"
zpty -w z 'print ready''-now'
while zpty -r z line; do [[ $line == *ready-now* ]] && break; done
zpty -w -n z "$3"$'\\t'
out
"""

ZSH_SETUP = """
bindkey '^I' complete-word
zstyle ':completion:*' verbose no
around() { print -r -- '<<>>' }
compprefuncs=(around)
comppostfuncs=(around exit)
compadd() {
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]]; then builtin compadd "$@"; return; fi
    local -a hits
    builtin compadd -A hits "$@"
    (( $#hits )) && print -rl -- $hits
    builtin compadd "$@"
}
"""

Complete = Callable[..., set[str]]


@pytest.fixture(params=["bash", "zsh", "fish"])
def complete(request: pytest.FixtureRequest, sigward: Shell, tmp_path: Path) -> Complete:
    """What a shell offers for the last of some words."""
    shell: str = request.param
    found = need(shell)
    script = tmp_path / f"sigward.{shell}"
    ran = sigward("completion", shell)
    assert (ran.status, ran.err) == (0, "")
    script.write_text(ran.out)
    setup = tmp_path / "setup.zsh"
    setup.write_text(ZSH_SETUP)

    def offered(*words: str, **environment: str) -> set[str]:
        line = " ".join(words)
        command = {
            "bash": [found, "--norc", "-c", BASH, "bash", str(script), *words],
            "zsh": [found, "-f", "-c", ZSH, "zsh", str(script), str(setup), line],
            "fish": [found, "--no-config", "-c", f"source {script}; complete -C '{line}'"],
        }[shell]
        clean = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TERM": "dumb"} | environment
        said = subprocess.run(command, env=clean, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True).stdout
        if shell == "zsh":
            said = said.split("<<>>")[1]
        return {line.partition("\t")[0].strip() for line in said.splitlines() if line.strip()}

    return offered


def test_commands(complete: Complete) -> None:
    assert set(COMMANDS) <= complete("sigward", "")
    assert complete("sigward", "who") == {"whoami"}


def test_flags(complete: Complete) -> None:
    offered = complete("sigward", "serve", "--timeouts.c")
    assert offered == {
        "--timeouts.connect",
        "--timeouts.credentials",
        "--timeouts.client-head",
        "--timeouts.client-idle",
        "--timeouts.client-write",
    }
    assert complete("sigward", "serve", "--no-allow") == {"--no-allow-remote"}
    assert complete("sigward", "web", "--web-po") == {"--web-port"}


def test_a_table_in_one_flag_is_not_offered(complete: Complete) -> None:
    assert complete("sigward", "serve", "--circui") == {
        "--circuit.concurrency",
        "--circuit.failures",
        "--circuit.longest",
        "--circuit.pause",
    }


def test_values_of_flags(complete: Complete) -> None:
    assert complete("sigward", "serve", "--front", "") == {"mitmproxy", "native"}
    assert complete("sigward", "serve", "--grace", "5", "--retry.mode", "a") == {"adaptive"}


def test_values_of_positional_arguments(complete: Complete) -> None:
    assert complete("sigward", "token", "") == {"rds", "elasticache", "msk", "eks"}
    assert complete("sigward", "ca", "ex") == {"export"}
    assert complete("sigward", "completion", "z") == {"zsh"}


def test_files_and_directories(complete: Complete, tmp_path: Path) -> None:
    (tmp_path / "settings-here.toml").touch()
    (tmp_path / "settings-there").mkdir()
    files = {name.rstrip("/") for name in complete("sigward", "check", "--config", "settings-")}
    assert {"settings-here.toml", "settings-there"} <= files
    directories = {name.rstrip("/") for name in complete("sigward", "check", "--ca-dir", "settings-")}
    assert "settings-there" in directories


def test_profiles_are_those_of_the_files(complete: Complete, tmp_path: Path) -> None:
    config, credentials = tmp_path / "the config", tmp_path / "credentials"
    config.write_text("[default]\nregion = eu-west-1\n[profile staging]\n[profile production]\n[sso-session corp]\n[services local]\n")
    credentials.write_text("[legacy]\naws_access_key_id = A\n")
    files = {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(credentials)}
    assert complete("sigward", "whoami", "--profile", "", **files) == {"default", "staging", "production", "legacy"}
    assert complete("sigward", "whoami", "--profile", "st", **files) == {"staging"}
    # Without the files there is nothing to offer, and nothing to complain of.
    assert complete("sigward", "whoami", "--profile", "st") == set()


def test_the_program_after_run(complete: Complete) -> None:
    assert "env" in complete("sigward", "run", "--", "en")


def test_completions_are_made_from_every_command_that_there_is() -> None:
    from sigward.cli.commands import COMMANDS as MODELS
    from sigward.cli.completion import parser

    flags = {
        name: {flag for action in one._actions for flag in action.option_strings}
        for name, one in parser()._subparsers._group_actions[0].choices.items()  # type: ignore[union-attr]
    }
    assert set(flags) == set(COMMANDS)
    for name in MODELS:
        assert {"--config", "--profile", "--help"} <= flags[name], name
