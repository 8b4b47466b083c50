"""Which settings files of working directories are read: those that a person has allowed, by path and content, as direnv does.

A settings file runs programs (`process`, `addons`) and says where signed requests go (`upstream`, `connect`). One that merely is in the
current folder, such as a repository's, must not do that. `sigward.file` asks; `sigward config` allows and revokes.

One file a path in `~/.config/sigward/allowed`: its name is the path's hash, it holds the hash of the content. What an allowed file names
(scripts, programs) is not part of the hash.
"""

import hashlib
import os
from pathlib import Path
from typing import Literal

State = Literal["allowed", "changed", "unknown"]


def state(file: Path, content: bytes, home: Path) -> State:
    """`content`: the file's, as it is used. `home`: sigward's folder of settings. `changed`: it was allowed with another content."""
    try:
        known = _entry(file, home).read_text()
    except OSError:
        return "unknown"
    return "allowed" if known.split()[:1] == [_digest(content)] else "changed"


def allow(file: Path, content: bytes, home: Path) -> None:
    """Remembers the file as it is. Raises OSError."""
    import tempfile

    entry = _entry(file, home)
    entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Whole or not at all. mkstemp's mode is 0600.
    handle, name = tempfile.mkstemp(dir=entry.parent)
    with os.fdopen(handle, "w") as written:
        written.write(f"{_digest(content)} {place(file)}\n")
    Path(name).replace(entry)


def revoke(file: Path, home: Path) -> bool:
    """Forgets the file. False: it was not allowed. Raises OSError."""
    try:
        _entry(file, home).unlink()
    except FileNotFoundError:
        return False
    return True


def place(file: Path) -> Path:
    """The whole path, its folder without links. The file may be a link: what it names is relative to the folder that it is used in."""
    return Path(os.path.realpath(file.parent), file.name)


def _entry(file: Path, home: Path) -> Path:
    return home / "allowed" / _digest(os.fsencode(place(file)))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
