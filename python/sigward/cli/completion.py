"""`sigward completion`: a script for a shell, made by shtab from the commands' own flags.

A shell reads it once; at each tab no Python starts. AWS's profiles alone are looked up then, in the files that hold them.
"""

import argparse
import shlex
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import shtab
from pydantic import BaseModel
from pydantic_settings import CliSettingsSource

from sigward.cli import COMMANDS as DESCRIPTIONS

if TYPE_CHECKING:
    from sigward.cli.commands import Completion

HELP_WIDTH = 72
"""Of a flag's description beside it."""

PROFILES = (
    r"""sed -n -e 's/^\[profile \([^ ]*\)\]/\1/p' -e 's/^\[\([^] ]*\)\]/\1/p'"""
    r""" "${AWS_CONFIG_FILE:-$HOME/.aws/config}" "${AWS_SHARED_CREDENTIALS_FILE:-$HOME/.aws/credentials}" 2>/dev/null"""
)
"""For a POSIX shell: the profiles' names, each in a line. See the AWS CLI's 'Configuration and credential file settings'."""

PROFILE = {
    "bash": "_sigward_profiles",
    "zsh": "_sigward_profiles",
    "fish": "(_sigward_profiles)",
    "preamble": {
        "bash": f'_sigward_profiles() {{\n  compgen -W "$({PROFILES})" -- "$1"\n}}',
        "zsh": f'_sigward_profiles() {{\n  compadd -- ${{(f)"$({PROFILES})"}}\n}}',
        "fish": f"function _sigward_profiles\n  sh -c {shlex.quote(PROFILES)}\nend",
    },
}

PROGRAM = {
    "bash": "_sigward_program",
    "zsh": "_command_names -e",
    "fish": "(__fish_complete_command)",
    "preamble": {"bash": '_sigward_program() {\n  compgen -c -- "$1"\n  compgen -f -- "$1"\n}'},
}
"""What follows `sigward run --`."""


def completion(command: "Completion") -> int:
    """Returns the exit status."""
    sys.stdout.write(script(command.shell_name))
    return 0


def script(shell: str) -> str:
    """What `shell` ("bash", "zsh" or "fish") reads."""
    made: str = shtab.complete(parser(), shell)
    return made


def parser() -> argparse.ArgumentParser:
    """All commands and their flags, as pydantic-settings makes them for each command alone."""
    from sigward.cli.commands import COMMANDS

    root = argparse.ArgumentParser("sigward")
    root.add_argument("-V", "--version", action="store_true", help="Print the version.")
    commands = root.add_subparsers(title="command")
    for name, description in DESCRIPTIONS.items():
        # shtab reads help texts with argparse's own placeholders.
        one = commands.add_parser(name, help=description, description=description)
        if (model := COMMANDS.get(name)) is not None:
            CliSettingsSource(model, root_parser=one)
            for action in one._actions:
                enrich(action, model)
        if name == "run":
            one.add_argument("program", nargs=argparse.REMAINDER, help="The program and its arguments.").complete = PROGRAM  # type: ignore[attr-defined]
    return root


def enrich(action: argparse.Action, model: type[BaseModel]) -> None:
    """Tells shtab of a flag what pydantic-settings keeps to itself: choices, files, profiles, and a help of one short line."""
    field = field_of(model, action.dest.split("."))
    if field is None:
        return
    if action.metavar == "JSON":
        # A whole table in one flag: its keys have flags of their own.
        action.help = argparse.SUPPRESS
        return
    action.help = textwrap.shorten(field.description or action.dest, HELP_WIDTH, placeholder=" …").replace("%", "%%")
    leaves = list(leaves_of(field.annotation))
    if action.dest == "profile":
        action.complete = PROFILE  # type: ignore[attr-defined]
    elif Path in leaves:
        action.complete = shtab.DIRECTORY if action.dest.endswith("_dir") else shtab.FILE  # type: ignore[attr-defined]
    elif choices := [leaf for leaf in leaves if isinstance(leaf, str)]:
        action.choices = choices


def field_of(model: Any, path: list[str]) -> Any:
    """The field that a flag sets, through nested tables; None: it sets none."""
    field = None
    for name in path:
        field = model.model_fields.get(name)
        if field is None:
            return None
        model = field.annotation
    return field


def leaves_of(annotation: Any) -> Iterator[Any]:
    """What a type is made of: types, and the values of its `Literal`s."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    elif parts := get_args(annotation):
        for part in parts:
            yield from leaves_of(part)
    else:
        yield annotation
