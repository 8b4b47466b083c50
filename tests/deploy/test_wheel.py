"""The wheel for this platform: what is in it, and that `uv tool install` and `pipx install` make a sigward of it that works.

`.ci/wheel` runs these (`make wheel`). The wheel is the one that the images are made of too.
"""

import email
import hmac
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from email.message import Message
from pathlib import Path

import pytest
from packaging.utils import parse_wheel_filename

from sigward import __version__
from tests.deploy.conftest import ROOT
from tests.needs import need
from tests.support import KEY, SECRET, assert_no_secret, signing_key

pytestmark = pytest.mark.deploy

INFO = f"sigward-{__version__}.dist-info"

CONTENTS = {
    r"sigward/_core\.[\w-]+\.so": "the Rust module",
    r"sigward/_core\.pyi": "its types",
    r"sigward/py\.typed": "says that there are types",
    r"sigward/([a-z0-9_]+/)*[a-z0-9_]+\.py": "Python",
    re.escape(INFO) + r"/(METADATA|WHEEL|RECORD|entry_points\.txt|licenses/LICENSE|sboms/[\w.-]+\.json)": "about the wheel",
}
"""Patterns of all that may be in it."""

OURS = ("AWS_", "SIGWARD_", "XDG_", "PIPX_", "UV_TOOL", "UV_PROJECT", "PYTHON", "VIRTUAL_ENV")
"""Variables that an installed sigward or its installer would take from whoever runs the tests."""


@pytest.fixture(scope="module")
def built(wheel: Path) -> Path:
    """The newest: there may be wheels of other days beside it."""
    return max(wheel.glob(f"sigward-{__version__}-cp313-*.whl"), key=lambda file: file.stat().st_mtime)


@pytest.fixture(scope="module")
def names(built: Path) -> list[str]:
    with zipfile.ZipFile(built) as archive:
        return [name for name in archive.namelist() if not name.endswith("/")]


@pytest.fixture(scope="module")
def metadata(built: Path) -> Message:
    with zipfile.ZipFile(built) as archive:
        return email.message_from_bytes(archive.read(f"{INFO}/METADATA"))


def test_nothing_but_the_package_is_in_it(names: list[str]) -> None:
    assert [name for name in names if not any(re.fullmatch(pattern, name) for pattern in CONTENTS)] == []
    assert len(names) == len(set(names))


def test_the_package_is_whole(names: list[str]) -> None:
    tracked = subprocess.run(["git", "ls-files", "python"], cwd=ROOT, capture_output=True, text=True)
    assert tracked.returncode == 0, tracked.stderr
    assert {name.removeprefix("python/") for name in tracked.stdout.split()} <= set(names)
    assert len([name for name in names if re.fullmatch(r"sigward/_core\.[\w-]+\.so", name)]) == 1
    assert f"{INFO}/licenses/LICENSE" in names


def test_metadata(built: Path, metadata: Message) -> None:
    assert metadata["Name"] == "sigward"
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.12"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert set(metadata.get_all("Provides-Extra", [])) == {"demo", "totp"}
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {re.split(r"\W", line, maxsplit=1)[0] for line in needed} >= {"botocore", "cryptography", "mitmproxy", "pydantic"}
    with zipfile.ZipFile(built) as archive:
        scripts = archive.read(f"{INFO}/entry_points.txt").decode()
    assert scripts.split() == ["[console_scripts]", "sigward=sigward.cli:main"]


@pytest.mark.skipif(sys.platform != "linux", reason="manylinux is Linux's")
def test_its_platform_is_what_it_needs(built: Path) -> None:
    """The tag is maturin's finding. auditwheel, which shares no code with it, finds the same or an older glibc."""
    platforms = {tag.platform for tag in parse_wheel_filename(built.name)[3]}
    shown = subprocess.run([Path(sys.executable).with_name("auditwheel"), "show", built], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    found = re.search(r'platform\s+tag:\s+"(manylinux_2_(\d+)_\w+)"', shown.stdout)
    assert found, shown.stdout
    named = [re.fullmatch(r"manylinux_2_(\d+)_\w+", platform) for platform in platforms]
    newest = max(int(match[1]) for match in named if match)
    assert int(found[2]) <= newest, (platforms, shown.stdout)


UV_TRUST = {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true"}
"""The machine's roots, as pip has them; older versions of uv know them by the second name."""


def with_uv(home: Path, built: Path) -> tuple[list[str | Path], dict[str, str]]:
    uv = need("uv")
    # The home is new, what has been downloaded before is not.
    cache = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    return [uv, "tool", "install", "--no-config", "--python", sys.executable, built], {"UV_CACHE_DIR": cache} | UV_TRUST


def with_pipx(home: Path, built: Path) -> tuple[list[str | Path], dict[str, str]]:
    cache = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True).stdout.strip()
    command: list[str | Path] = [Path(sys.executable).with_name("pipx"), "install", "--python", sys.executable, built]
    # Where there is a uv, pipx takes it.
    return command, {"PIP_CACHE_DIR": cache or str(home / "pip")} | UV_TRUST


@pytest.mark.parametrize("installer", [with_uv, with_pipx])
def test_an_installed_sigward_signs(
    installer: Callable[[Path, Path], tuple[list[str | Path], dict[str, str]]], tmp_path: Path, built: Path
) -> None:
    command, more = installer(tmp_path, built)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)} | {"HOME": str(tmp_path)}
    installed = subprocess.run(command, env=clean | more, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert installed.returncode == 0, installed.stdout
    program = tmp_path / ".local" / "bin" / "sigward"

    def sigward(*arguments: str) -> str:
        environment = clean | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
        ran = subprocess.run([program, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        assert_no_secret(ran.stdout + ran.stderr, f"the output of sigward {arguments[0]}")
        return ran.stdout

    assert sigward("--version") == f"sigward {__version__}\n"
    assert re.search(r"^credentials +ok \(env;", sigward("check"), re.MULTILINE)
    signed = sigward("sign", "GET", "https://s3.us-east-1.amazonaws.com/")
    to_sign = re.search(r"^AWS4-HMAC-SHA256\n(\d{8})T\d{6}Z\n.*\n[0-9a-f]{64}$", signed, re.MULTILINE)
    assert to_sign, signed
    expected = hmac.digest(signing_key(to_sign[1], "us-east-1", "s3"), to_sign[0].encode(), "sha256").hex()
    assert f"authorization: AWS4-HMAC-SHA256 Credential={KEY}/" in signed
    assert signed.rstrip().endswith(f"Signature={expected}")
