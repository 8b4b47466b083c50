"""Files that hold secrets, or that sigward does what they say: only root and its own user may write them or put others in their place.

Root may do so anyway, and what a container engine mounts is root's: a Kubernetes secret has files of root's that the pod's group may read,
behind links (`key` -> `..data/key`). On a mount that is read-only nobody can write, whoever owns the file.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

LINKS = 40
"""As many as the kernel follows."""

Complaint = tuple[str, str]
"""What is wrong, and what to do."""


def complaint(path: Path, *, secret: bool) -> Complaint | None:
    """None: nothing is wrong. `secret`: others may not even read it. Raises OSError."""
    for hop in hops(path):
        if (wrong := of_folder(hop.parent)) is not None:
            return wrong
    return of_file(path, secret=secret)


def hops(path: Path) -> Iterator[Path]:
    """The path, and where its links lead, one after the other."""
    hop = Path(os.path.abspath(path))  # noqa: PTH100 - a link is not to be followed yet
    for _ in range(LINKS):
        yield hop
        if not hop.is_symlink():
            return
        hop = hop.parent / hop.readlink()


def of_file(path: Path, *, secret: bool) -> Complaint | None:
    """Of the file itself."""
    found = path.stat()
    if is_read_only(path):
        return None
    if found.st_uid not in trusted():
        return foreign(path, found)
    mode = stat.S_IMODE(found.st_mode)
    if secret and found.st_uid == os.geteuid() and mode & 0o077:
        return f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}"
    if mode & 0o002 or (mode & 0o020 and (secret or found.st_gid not in groups())):
        return f"others can write to {path} (mode {mode:04o})", f"chmod go-w {path}"
    return None


def of_folder(folder: Path) -> Complaint | None:
    """Of a file's folder, and, as far as they could be another's, of those above it."""
    if is_read_only(folder):
        return None
    found = folder.stat()
    mode = stat.S_IMODE(found.st_mode)
    sticky = bool(mode & stat.S_ISVTX)
    if not sticky and (mode & 0o002 or (mode & 0o020 and found.st_gid not in groups())):
        return f"others can write to the folder {folder} (mode {mode:04o})", f"chmod go-w {folder}, or use a folder of sigward's own"
    # Each is there under the name that was given, and under its own.
    for above in {folder, *folder.parents, Path(os.path.realpath(folder)), *Path(os.path.realpath(folder)).parents}:
        found = above.stat()
        if found.st_uid not in trusted() | unmapped():
            return foreign(above, found)
    return None


def foreign(path: Path, found: os.stat_result) -> Complaint:
    """It belongs to somebody else."""
    return (
        f"{path} belongs to user {found.st_uid}, neither to root nor to sigward's own ({os.geteuid()})",
        f"chown {os.geteuid()} {path}; in a container, mount it read-only",
    )


def trusted() -> set[int]:
    """Root can read and write everything as it is."""
    return {0, os.geteuid()}


def groups() -> set[int]:
    """Sigward's own: a user's private one, a pod's `fsGroup`."""
    return {os.getegid(), *os.getgroups()}


def unmapped() -> set[int]:
    """Whom all users seem to be that a user namespace does not have, among them the host's root: nobody in it can be one."""
    try:
        mapped = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
        return set() if mapped == ["0", "0", "4294967295"] else {int(Path("/proc/sys/fs/overflowuid").read_text(encoding="ascii"))}
    except (OSError, ValueError):
        return set()


def is_read_only(path: Path) -> bool:
    """True on a mount that is."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
