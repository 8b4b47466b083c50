"""`sigward config`: allows the settings file of a folder to be read, or no longer."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigward import allowed
from sigward.errors import UnavailableError, UsageError
from sigward.file import TomlFile, check_home, config_home
from sigward.settings import is_loopback, split_commas

if TYPE_CHECKING:
    from sigward.cli.commands import ConfigOf

CONSEQUENCES = {
    **dict.fromkeys(("process", "addons"), "runs"),
    **dict.fromkeys(("upstream", "connect", "proxy", "endpoint", "shared"), "sends to"),
    "ca_files": "trusts",
    **dict.fromkeys(("allow_remote", "listen", "admin", "transparent", "web_host"), "opens"),
    **dict.fromkeys(("access_log", "audit_log", "ca_dir", "trust_dir", "key_file", "spool_dir", "socket"), "writes"),
}
"""Keys that run a program, say where something is sent or whom to trust, let others connect, or write files."""


def config(command: "ConfigOf") -> int:
    """Returns the exit status. Raises `UsageError`, `UnavailableError`."""
    path, home = command.file or Path("sigward.toml"), config_home()
    check_home(home, "XDG_CONFIG_HOME")
    shown = printable(str(allowed.place(path)))
    try:
        if command.what == "revoke":
            was = allowed.revoke(path, home)
            sys.stdout.write(f"{shown}: {'no longer allowed' if was else 'it was not allowed'}\n")
            return 0
        if not path.is_file():
            raise UsageError(f"{path}: there is no such file.", hint="Run this where the sigward.toml is, or name the file.")
        file = TomlFile(path)
        allowed.allow(path, file.content, home)
    except OSError as error:
        raise UnavailableError(f"config: {error}.", hint="Can you write to ~/.config/sigward?") from error
    sys.stdout.write(f"{shown}: allowed until it changes\n")
    for word, key, value in consequences(file.data):
        sys.stdout.write(f"  {word:<8} {printable(key)} = {value}\n")
    return 0


def consequences(value: object, place: str = "") -> Iterator[tuple[str, str, str]]:
    """("runs", "sends to", "trusts", "opens" or "writes", key, value) of what a person should know of a file before they allow it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            key = f"{place}.{name}" if place else str(name)
            word = CONSEQUENCES.get(str(name))
            if word and not isinstance(inner, dict):
                if not is_harmless(str(name), inner):
                    yield word, key, without_password(inner)
            elif name == "reverse" and isinstance(inner, (str, list)):
                yield from reverse(inner, key)
            else:
                yield from consequences(inner, key)
    elif isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from consequences(inner, f"{place}.{number}")


def reverse(value: str | list[Any], key: str) -> Iterator[tuple[str, str, str]]:
    """The same of reverse listeners, which may be tables or `LISTEN=UPSTREAM`."""
    entries: Any = split_commas(value)
    for number, entry in enumerate(entries, 1):
        place = f"{key}.{number}"
        if not isinstance(entry, str):
            yield from consequences(entry, place)
            continue
        listen, _, upstream = entry.partition("=")
        yield from consequences({"listen": listen} | ({"upstream": upstream} if upstream else {}), place)


def is_harmless(name: str, value: object) -> bool:
    """True for a listener that this host alone reaches, and a log that is no file."""
    if not isinstance(value, str):
        return name.endswith("_log") and isinstance(value, bool)
    if name.endswith("_log"):
        return "/" not in value
    if name == "web_host":
        return is_loopback(f"{value}:0")
    return name in ("listen", "admin", "transparent") and (value in ("", "off") or is_loopback(value))


def printable(text: str) -> str:
    """With escapes for what a terminal would obey."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def without_password(value: Any) -> str:
    """`value` in one line, without the user and password of a URL."""
    return re.sub(r"//[^/@\s]*@", "//", repr(value))
