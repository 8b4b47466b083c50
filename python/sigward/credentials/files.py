"""The shared config and credentials files, parsed as botocore does, and kept until they change or nobody loads any more.

The chain and the region's look-up ask here; the keepers' pool forgets, when it comes to rest.

Of botocore this takes its parser's errors alone: its providers and its session cost 0.2 s and 28 MiB to import.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from sigward.credentials import ini

type Parsed = Mapping[str, Any]

TICK = 50_000_000
"""Nanoseconds: a file that was younger when it was parsed may have changed since with the same time of change."""

NOTHING: Parsed = {"profiles": {}}
"""What there is without a config file."""

_lock = threading.Lock()
_turns: dict[tuple[str, bool], threading.Lock] = {}
_kept: dict[tuple[str, bool], tuple[object, Any]] = {}
_merged: list[tuple[Parsed, Parsed, Parsed]] = []
"""At most one: what `full` gives, and behind it what it is made of."""


def config_file() -> str:
    """Where the config file lies, `~` and all."""
    return os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")


def credentials_file() -> str:
    """The same of the shared credentials file."""
    return os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")


def sections(file: str) -> Parsed:
    """`botocore.configloader.raw_config_parse`: sections by name. Not to be changed. Raises `ConfigNotFound`, `ConfigParseError`."""
    parsed: Parsed = _once(file, whole=False, parse=ini.read)
    return parsed


def profiled(file: str) -> Parsed:
    """`botocore.configloader.load_config`: the same with `profiles`, `sso_sessions`, `services`."""
    parsed: Parsed = _once(file, whole=True, parse=lambda name: ini.profiled(sections(name)))
    return parsed


def full() -> Parsed:
    """What botocore's `Session.full_config` is: the config file, with the credentials file's profiles in it. Raises `ConfigParseError`."""
    from botocore.exceptions import ConfigNotFound

    try:
        config = profiled(config_file())
    except ConfigNotFound:
        config = NOTHING
    try:
        keys = sections(credentials_file())
    except ConfigNotFound:
        return config
    with _lock:
        for made, *sources in _merged:
            if sources[0] is config and sources[1] is keys:
                return made
    made = ini.with_profiles(config, keys)
    with _lock:
        _merged[:] = [(made, config, keys)]
    return made


def forget() -> None:
    """Lets go of what is kept: it holds secrets."""
    with _lock:
        _kept.clear()
        _merged.clear()


def chosen(profile: str | None) -> str | None:
    """The profile's name: the one that is given, else the environment's, in botocore's order. None: nobody names one."""
    return profile if profile is not None else os.environ.get("AWS_DEFAULT_PROFILE", os.environ.get("AWS_PROFILE"))


def scoped(profile: str | None) -> Parsed:
    """What the files say of a profile. Raises `ConfigParseError`, `ProfileNotFound`."""
    from botocore.exceptions import ProfileNotFound

    name = chosen(profile)
    profiles: Mapping[str, Parsed] = full()["profiles"]
    if name is not None and name not in profiles:
        raise ProfileNotFound(profile=name)
    return profiles.get(name or "default", {})


def _once(file: str, *, whole: bool, parse: Callable[[str], Any]) -> Any:
    """The last parse, unless the file has changed since."""
    place = os.path.expanduser(os.path.expandvars(file))  # noqa: PTH111 - as botocore does
    with _lock:
        mine = _turns.setdefault((place, whole), threading.Lock())
    # Of many that ask at once, one parses.
    with mine:
        now = stamp(place)
        with _lock:
            then, known = _kept.get((place, whole), (None, None))
        if now is not None and now == then:
            return known
        young = now is not None and 0 <= time.time_ns() - now[0] < TICK
        # The stamp was taken first: of a file that changes meanwhile it is the old one, and the next to ask parses anew.
        made = parse(file)
        if not young:
            with _lock:
                _kept[place, whole] = (now, made)
        return made


def stamp(file: str) -> tuple[int, int, int] | None:
    """What changes when a file does; of a directory, when files come and go. None: it is not there."""
    try:
        found = os.stat(file)  # noqa: PTH116
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
