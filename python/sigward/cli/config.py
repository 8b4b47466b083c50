"""`sigward config`: allows the settings file of a folder to be read, or no longer."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigward import allowed
from sigward.errors import UnavailableError, UsageError
from sigward.file import TomlFile, config_home

if TYPE_CHECKING:
    from sigward.cli.commands import ConfigOf

CONSEQUENCES = {
    **dict.fromkeys(("process", "addons"), "runs"),
    **dict.fromkeys(("upstream", "connect", "proxy", "endpoint", "shared"), "sends to"),
    "ca_files": "trusts",
    "allow_remote": "opens",
}
"""Keys that run a program, say where something is sent or whom to trust, or let others connect."""


def config(command: "ConfigOf") -> int:
    """Returns the exit status. Raises `UsageError`, `UnavailableError`."""
    path, home = command.file or Path("sigward.toml"), config_home()
    try:
        if command.what == "revoke":
            was = allowed.revoke(path, home)
            sys.stdout.write(f"{allowed.place(path)}: {'no longer allowed' if was else 'it was not allowed'}\n")
            return 0
        if not path.is_file():
            raise UsageError(f"{path}: there is no such file.", hint="Run this where the sigward.toml is, or name the file.")
        file = TomlFile(path)
        allowed.allow(path, file.content, home)
    except OSError as error:
        raise UnavailableError(f"config: {error}.", hint="Can you write to ~/.config/sigward?") from error
    sys.stdout.write(f"{allowed.place(path)}: allowed until it changes\n")
    for word, key, value in consequences(file.data):
        sys.stdout.write(f"  {word:<8} {key} = {value}\n")
    return 0


def consequences(value: object, place: str = "") -> Iterator[tuple[str, str, str]]:
    """("runs", "sends to", "trusts" or "opens", key, value) of what a person should know of a file before they allow it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            key = f"{place}.{name}" if place else str(name)
            word = CONSEQUENCES.get(str(name))
            if word and not isinstance(inner, dict):
                yield word, key, without_password(inner)
            else:
                yield from consequences(inner, key)
    elif isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from consequences(inner, f"{place}.{number}")


def without_password(value: Any) -> str:
    """`value` in one line, without the user and password of a URL."""
    return re.sub(r"//[^/@\s]*@", "//", repr(value))
