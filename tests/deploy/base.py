"""Base images that come from no registry: Debian by debootstrap, and the same with the Rust that is installed here, to compile on.

Both stay with the engine under a tag that names their recipe, so that only the first run makes them.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import docker.errors
from docker import DockerClient

from tests.needs import lack

SUITE = "trixie"
MIRROR = os.environ.get("SIGWARD_TEST_DEBIAN_MIRROR", "http://deb.debian.org/debian")

LOCAL_ROOTS = Path("/usr/local/share/ca-certificates")
"""What this machine's administrator trusts beyond Debian's roots, such as a proxy on the way to the package indexes."""

# As the official slim images have it.
SLIM = """path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/groff/*
path-exclude /usr/share/info/*
path-exclude /usr/share/linda/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
"""
UNWANTED = ("doc", "groff", "info", "linda", "lintian", "locale", "man")


class BaseError(Exception):
    """It cannot be made here; the message says why."""


def debian(client: DockerClient) -> str:
    """The tag of an image like `debian:trixie-slim`. Raises `BaseError`."""
    return _made(client, "base", [])


def with_rust(client: DockerClient) -> str:
    """The tag of an image like `rust:1-trixie`: the same with a C compiler, and this machine's Rust. Raises `BaseError`."""
    return _made(client, "rust", ["build-essential", "ca-certificates", "cmake"])


def _made(client: DockerClient, name: str, packages: list[str]) -> str:
    toolchain = rust() if packages else None
    recipe = hashlib.sha256(Path(__file__).read_bytes())
    for part in (SUITE, MIRROR, *packages, *(sorted(LOCAL_ROOTS.glob("*.crt"))), toolchain):
        recipe.update(part.read_bytes() if isinstance(part, Path) and part.is_file() else str(part).encode())
    tag = f"sigward-test/{name}:{SUITE}-{recipe.hexdigest()[:12]}"
    try:
        client.images.get(tag)
    except docker.errors.ImageNotFound:
        with tempfile.TemporaryDirectory(prefix="sigward-base-") as directory:
            root = Path(directory)
            _bootstrap(root, packages)
            if toolchain:
                _add_rust(root, toolchain)
            _import(root, tag, ["ENV PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin"] if toolchain else [])
    return tag


def rust() -> Path:
    """The toolchain that is installed here. Raises `BaseError`."""
    if why := lack("rustc"):
        raise BaseError(why)
    return Path(subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip())


def _bootstrap(root: Path, packages: list[str]) -> None:
    if os.geteuid() != 0:
        raise BaseError("debootstrap needs root")
    if why := lack("debootstrap"):
        raise BaseError(why)
    include = [f"--include={','.join(packages)}"] if packages else []
    ran = subprocess.run(
        ["debootstrap", "--variant=minbase", *include, SUITE, str(root), MIRROR],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if ran.returncode:
        raise BaseError(f"debootstrap: {ran.stdout.strip().splitlines()[-1]}")
    for place in [*(f"usr/share/{name}" for name in UNWANTED), "var/cache/apt", "var/lib/apt/lists", "var/log"]:
        for found in (root / place).glob("*"):
            shutil.rmtree(found) if found.is_dir() and not found.is_symlink() else found.unlink()
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(SLIM)
    # An image has no name server of its own: the engine mounts one.
    (root / "etc/resolv.conf").write_text("")
    roots = root / "usr/local/share/ca-certificates"
    roots.mkdir(parents=True, exist_ok=True)
    for certificate in LOCAL_ROOTS.glob("*.crt"):
        shutil.copy(certificate, roots)
    if packages:
        subprocess.run(["chroot", str(root), "update-ca-certificates"], check=True, capture_output=True)


def _add_rust(root: Path, toolchain: Path) -> None:
    """What compiles; neither documentation nor the targets of other platforms."""
    target = f"{platform.machine()}-unknown-linux-gnu"
    place = root / "usr/local/rust"
    (place / "bin").mkdir(parents=True)
    for program in ("cargo", "rustc"):
        shutil.copy(toolchain / "bin" / program, place / "bin")
    shutil.copytree(toolchain / "lib" / "rustlib" / target, place / "lib" / "rustlib" / target, symlinks=True)
    for library in (toolchain / "lib").glob("*.so*"):
        shutil.copy(library, place / "lib")


def _import(root: Path, tag: str, changes: list[str]) -> None:
    change = [word for line in ['CMD ["/bin/bash"]', *changes] for word in ("--change", line)]
    with subprocess.Popen(["tar", "--create", "--numeric-owner", "--directory", str(root), "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["docker", "import", *change, "-", tag], stdin=tar.stdout, check=True, stdout=subprocess.DEVNULL)
    if tar.returncode:
        raise BaseError(f"tar: status {tar.returncode}")
