"""The settings file: where it is found, and where in it each key stands.

`sigward.settings` checks what it says; `sigward healthcheck`, which has no time for that, reads one key of it.
"""

import contextlib
import os
import pwd
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from sigward.bounds import TooLargeError, read_file, size
from sigward.errors import UsageError
from sigward.ownership import complaint

MOST = 16 << 20
"""Bytes of a settings file."""

SYSTEM = Path("/etc/sigward/sigward.toml")
"""Read where no other file is."""


class TomlFile:
    """A settings file, and where in it each key stands."""

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        """`content`: what was read already. Raises `UsageError`."""
        self.path = path
        try:
            self.content = self._read() if content is None else content
            self.text = self.content.decode()
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: it cannot be read: {error}.", hint="Name a readable TOML file with --config.") from error
        try:
            self.data = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path}: {error}.", hint="See https://toml.io for the format, and docs/settings.md for the keys.") from error

    def _read(self) -> bytes:
        # A pipe, such as a shell's <(…), is the caller's own word.
        if self.path.is_file() and (wrong := complaint(self.path, secret=False)):
            raise UsageError(f"{wrong[0]}. A settings file can run programs and send signed requests elsewhere.", hint=wrong[1])
        with self.path.open("rb") as file:
            content = file.read(MOST + 1)
        if len(content) > MOST:
            raise TooLargeError(f"it is larger than {size(MOST)}")
        return content

    def line(self, location: tuple[int | str, ...]) -> int | None:
        """The line of a key, e.g. ("route", 1, "hots"); of its table if the key itself is not there."""
        found: int | None = None
        for number, where in self._lines():
            if where == location:
                return number
            if where and where == location[: len(where)] and (found is None or len(where) > 1):
                found = number
        return found

    def _lines(self) -> Iterator[tuple[int, tuple[int | str, ...]]]:
        table: tuple[int | str, ...] = ()
        counts: dict[str, int] = {}
        for number, line in enumerate(self.text.splitlines(), 1):
            if match := re.match(r"\s*\[\[\s*([\w.\"-]+)\s*\]\]", line):
                name = match[1].strip('"')
                counts[name] = counts.get(name, -1) + 1
                table = (*name.split("."), counts[name])
                yield number, table
            elif match := re.match(r"\s*\[\s*([\w.\"-]+)\s*\]", line):
                table = tuple(match[1].replace('"', "").split("."))
                yield number, table
            elif match := re.match(r"\s*([\w.\"-]+)\s*=", line):
                yield number, (*table, *match[1].replace('"', "").split("."))


NO_HOME = Path("/dev/null/sigward")
"""What stands for sigward's folder where the user has no home: nothing is in it, and nothing can be made in it."""


def home() -> Path | None:
    """The user's: $HOME, else what the system knows of the user. None: neither names one with its whole path."""
    with contextlib.suppress(KeyError):
        for place in (os.environ.get("HOME"), pwd.getpwuid(os.getuid()).pw_dir):
            if place and os.path.isabs(place):  # noqa: PTH117
                return Path(place)
    return None


def config_home() -> Path:
    """$XDG_CONFIG_HOME/sigward, else ~/.config/sigward, else `NO_HOME`. A relative path is none (XDG Base Directory Specification):
    it would name a place in whichever folder is the current one."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if os.path.isabs(base):  # noqa: PTH117
        return Path(base) / "sigward"
    own = home()
    return own / ".config" / "sigward" if own else NO_HOME


def check_home(path: Path, setting: str) -> None:
    """Raises `UsageError` if the path is in a home that the user does not have."""
    if path.is_relative_to(NO_HOME):
        raise UsageError(
            f"{setting}: it is not set, and the user has no home for its default.",
            hint=f"Set {setting} or HOME, to an absolute path.",
        )


def find_file(arguments: list[str], *, refuse: bool = False) -> TomlFile | None:
    """--config, SIGWARD_CONFIG, ./sigward.toml if it is allowed, ~/.config/sigward/sigward.toml, /etc/sigward/sigward.toml; the first that
    is named or there.

    `refuse`: raises `UsageError` where something is in such a place that is no regular file, and for a ./sigward.toml that is not
    allowed; else a line on stderr says that it is ignored.
    """
    named: str | None = None
    for at, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument == "--config" and at + 1 < len(arguments):
            named = arguments[at + 1]
        elif argument.startswith("--config="):
            named = argument.partition("=")[2]
    named = named or os.environ.get("SIGWARD_CONFIG")
    if named:
        return TomlFile(Path(named))
    own = [place for place in (config_home() / "sigward.toml", SYSTEM) if _is_there(place, refuse=refuse)]
    return _local(own, refuse=refuse) or next(map(TomlFile, own), None)


def _is_there(path: Path, *, refuse: bool) -> bool:
    """True for a regular file. Anything else may stand where rules should: a link to a file that is away, a pipe nobody writes to."""
    if path.is_file():
        return True
    if os.path.lexists(path):
        _ignore(path, "it is not a regular file", "Put the file back, or remove what is there.", refuse=refuse)
    return False


def _ignore(path: Path, why: str, hint: str, *, refuse: bool) -> None:
    if refuse:
        raise UsageError(f"{path}: {why}.", hint=hint)
    sys.stderr.write(f"sigward: {path} is ignored: {why}.\n")


def _local(own: list[Path], *, refuse: bool) -> TomlFile | None:
    """./sigward.toml, if it is there and allowed. `own`: the files that are always read."""
    path = Path("sigward.toml")
    if not _is_there(path, refuse=refuse):
        return None
    from sigward import allowed

    try:
        for place in own:
            if path.samefile(place):
                # By its own name: its paths are not relative to the folder that has a link to it.
                return TomlFile(place)
        content = read_file(path, MOST)
        state = allowed.state(path, content, config_home())
    except (OSError, TooLargeError):
        content, state = b"", "unknown"
    if state == "allowed":
        return TomlFile(path, content)
    why = "it has changed since it was allowed" if state == "changed" else "it is not allowed"
    if refuse:
        why += ". A settings file can run programs and send signed requests elsewhere"
    else:
        why += " (`sigward config allow`)"
    hint = "Look at it, then run `sigward config allow`. Or name the file to use: --config FILE, or SIGWARD_CONFIG."
    _ignore(path, why, hint, refuse=refuse)
    return None
