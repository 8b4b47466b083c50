"""Files that somebody else writes, read to a bound: what is longer, or is no file, is no key, token or setting."""

import os
import stat

MOST = 1 << 20
"""Bytes of one answer with keys, be it a file, a process or a server that gives it."""


class TooLargeError(ValueError):
    """A source gives more than can be what is asked of it; it was read no further."""


def size(count: int) -> str:
    """`1 MiB`; of whole mebibytes."""
    return f"{count >> 20} MiB"


def read_file(path: str | os.PathLike[str], most: int = MOST) -> bytes:
    """The content of a regular file. Raises OSError, `TooLargeError`. A pipe nobody writes to must not be waited for."""
    # Without O_NONBLOCK the opening of a pipe waits.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{os.fspath(path)} is not a regular file")
        # Files such as /proc's say that they are empty.
        content = file.read(most + 1) if found.st_size <= most else b""
    if max(found.st_size, len(content)) > most:
        raise TooLargeError(f"{os.fspath(path)} is larger than {size(most)}")
    return content
