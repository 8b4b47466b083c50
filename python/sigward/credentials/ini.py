"""AWS's config and credentials files, section by section: what botocore's parser makes of one, for those sections that somebody asks for.

botocore parses a file whole, in Python: eight seconds for 100,000 profiles, most of which nobody asks for. A long file is cut at its
headers instead (`_core.cut_ini`), and configparser gets the pieces that are wanted. Only a plain file is cut, where each line tells by
itself what it is; any other is parsed whole. tests/unit/credentials/test_ini.py holds both to the same.
"""

import configparser
import functools
import io
import locale
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sigward import _core
from sigward.bounds import TooLargeError, read_file

MOST = 64 << 20
"""Bytes of a file: half a million profiles."""

WORTH_CUTTING = 64 << 10
"""Bytes: a shorter file is parsed whole in some milliseconds."""

type Section = Mapping[str, Any]
type Parsed = Mapping[str, Any]


class Lazy(Mapping[str, Any]):
    """What is behind each name is made when it is asked for. `places`: what `_make` needs for each."""

    def __init__(self, places: dict[str, Any]) -> None:
        self._places = places

    def _make(self, place: Any) -> Any:
        raise NotImplementedError

    def __getitem__(self, name: str) -> Any:
        return self._make(self._places[name])

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Sections(Lazy):
    """Of a file that was cut. A place: from where to where."""

    def __init__(self, data: bytes, places: dict[str, tuple[int, int]]) -> None:
        super().__init__(places)
        self._data = data
        self._parsed: dict[tuple[int, int], Section] = {}

    def _make(self, place: tuple[int, int]) -> Section:
        found = self._parsed.get(place)
        if found is None:
            (found,) = parse(self._data[slice(*place)]).values()
            self._parsed[place] = found
        return found


class Named(Lazy):
    """Some sections by other names. A place: the section's own."""

    def __init__(self, sections: Mapping[str, Section], places: dict[str, str]) -> None:
        super().__init__(places)
        self._sections = sections

    def _make(self, place: str) -> Section:
        return self._sections[place]


class Later(Lazy):
    """A place: what makes it."""

    def _make(self, place: Callable[[], Any]) -> Any:
        return place()


class Merged(Lazy):
    """Profiles of two files, those of the second above those of the first."""

    def __init__(self, low: Mapping[str, Section], high: Mapping[str, Section]) -> None:
        super().__init__(dict.fromkeys(low) | dict.fromkeys(high))
        self._both = low, high

    def __getitem__(self, name: str) -> Section:
        if name not in self._places:
            raise KeyError(name)
        low, high = self._both
        return {**low.get(name, {}), **high.get(name, {})}


def read(file: str) -> Mapping[str, Section]:
    """`botocore.configloader.raw_config_parse`: sections by name. Raises `ConfigNotFound`, `ConfigParseError`."""
    from botocore.exceptions import ConfigNotFound, ConfigParseError

    path = os.path.expanduser(os.path.expandvars(file))  # noqa: PTH111 - as botocore does
    if not os.path.isfile(path):  # noqa: PTH113
        raise ConfigNotFound(path=path)
    try:
        data = read_file(path, MOST)
        return cut(data) or parse(data, path)
    except OSError:
        # As configparser takes a file that cannot be opened.
        return {}
    except (configparser.Error, TooLargeError, ValueError) as error:
        raise ConfigParseError(path=path, error=error) from None


def cut(data: bytes) -> Sections | None:
    """None: it is to be parsed whole."""
    if len(data) < WORTH_CUTTING or locale.getencoding().lower().replace("-", "") != "utf8":
        return None
    found = _core.cut_ini(data)
    if not found:
        return None
    sections = Sections(data, {name: (start, end) for name, start, end, _ in found})
    try:
        for name, *_, doubtful in found:
            if doubtful:
                sections[name]
    except (configparser.Error, ValueError):
        # The error's line number is that of the whole.
        return None
    return sections


def parse(data: bytes, path: str = "<file>") -> Mapping[str, Section]:
    """All of it, as `raw_config_parse` does. Raises `configparser.Error`, `ValueError`."""
    from botocore import configloader

    nested: Any = configloader._parse_nested  # type: ignore[attr-defined]
    parser = configparser.RawConfigParser()
    parser.read_file(io.TextIOWrapper(io.BytesIO(data), locale.getencoding()), path)
    found: dict[str, dict[str, Any]] = {}
    for section in parser.sections():
        found[section] = {}
        for option in parser.options(section):
            value = parser.get(section, option)
            found[section][option] = nested(value) if value.startswith("\n") else value
    return found


def profiled(sections: Mapping[str, Section]) -> Parsed:
    """`botocore.configloader.build_profile_map`: with `profiles`, `sso_sessions`, `services`, and the other sections beside them."""
    groups: dict[str, dict[str, str]] = {"profile": {}, "sso-session": {}, "services": {}}
    others: list[str] = []
    for name in sections:
        group = next((group for group in groups if name.startswith(group)), None)
        if group is not None:
            if (short := second_word(name)) is not None:
                # The last one counts, at its place.
                groups[group][short] = name
        elif name == "default":
            groups["profile"][name] = name
        else:
            others.append(name)
    return Later(
        {name: functools.partial(sections.__getitem__, name) for name in others}
        | {
            "profiles": lambda: Named(sections, groups["profile"]),
            "sso_sessions": lambda: Named(sections, groups["sso-session"]),
            "services": lambda: Named(sections, groups["services"]),
        }
    )


def with_profiles(config: Parsed, keys: Mapping[str, Section]) -> Parsed:
    """The same with the credentials file's profiles in it, as botocore's `Session.full_config`."""
    profiles = Merged(config["profiles"], keys)
    return Later({name: functools.partial(config.__getitem__, name) for name in config} | {"profiles": lambda: profiles})


def second_word(header: str) -> str | None:
    """Of two words, as a shell reads them; None: there are not two."""
    # Python has more blanks than a shell: all others are of what is printed and ASCII.
    if any(special in header for special in "'\"\\") or not (header.isascii() and header.isprintable()):
        try:
            words = shlex.split(header)
        except ValueError:
            return None
    else:
        words = header.split()
    return words[1] if len(words) == 2 else None
