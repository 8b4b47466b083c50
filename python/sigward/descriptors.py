"""The limit on file descriptors: raised for sigward itself, and as it was for the programs that it starts.

A shell's soft limit of 1024 is there for programs that use select(2), which knows no larger descriptors. A program that does not may raise
its own to the hard limit, but must not pass it on (systemd's NEWS for version 240, and "File Descriptor Limits" by L. Poettering).
"""

import contextlib
import resource
import shutil
from collections.abc import Sequence

MOST = 1 << 20
"""More than any load takes. Some containers have a hard limit of a thousand times as many, and some programs look at each."""

SHELL = "/bin/sh"

_before: int | None = None
"""The soft limit as it was, if it was raised."""


def raise_limit() -> None:
    """Raises this process's soft limit to the hard one, once. Call it before the engine is made, which plans by it."""
    global _before  # noqa: PLW0603 - the limit is the process's, too
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    # macOS takes less than it says.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        _before = soft


def for_child(command: Sequence[str]) -> list[str]:
    """The command, so that it starts with the soft limit that this process was started with.

    A shell sets it and becomes the program: what Python could run between fork and exec is not safe beside the engine's threads.
    """
    if _before is None or shutil.which(SHELL) is None or shutil.which(command[0]) is None:
        # What cannot be found is reported by whoever starts it.
        return list(command)
    return [SHELL, "-c", 'ulimit -S -n "$0" && exec "$@"', str(_before), *command]
