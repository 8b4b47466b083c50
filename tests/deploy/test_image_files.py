"""deploy/docker without an engine: what the images are made of can be had for both platforms."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parents[2]
PRUNED = {"sigward": {"mitmproxy", "uvloop"}, "sigward-inspect": set[str]()}
"""What the Dockerfile leaves out of each image."""

MACHINES = ("x86_64", "aarch64")


def locked(pruned: set[str]) -> dict[str, dict[str, Any]]:
    """What uv.lock has for sigward, by name, without development's and what is left out."""
    packages = {entry["name"]: entry for entry in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    found: dict[str, dict[str, Any]] = {}
    waiting = ["sigward"]
    while waiting:
        package = packages[waiting.pop()]
        found[package["name"]] = package
        for needed in package.get("dependencies", []):
            here = {"sys_platform": "linux", "python_full_version": "3.13.5", "python_version": "3.13", "platform_system": "Linux"}
            wanted = "marker" not in needed or Marker(needed["marker"]).evaluate({**here, "implementation_name": "cpython"})
            if wanted and needed["name"] not in pruned | set(found):
                waiting.append(needed["name"])
    del found["sigward"]
    return found


def tags(machine: str) -> set[Tag]:
    """What Debian 13's Python takes there; its glibc is 2.41."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(17, 42)] + [f"manylinux2014_{machine}"]
    return {*cpython_tags((3, 13), platforms=platforms), *compatible_tags((3, 13), platforms=platforms)}


@pytest.mark.parametrize("image", PRUNED)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_package_has_a_wheel(machine: str, image: str) -> None:
    taken = tags(machine)
    packages = locked(PRUNED[image])
    assert {"botocore", "cryptography", "pydantic-core"} <= set(packages)
    without = [
        name
        for name, package in packages.items()
        if not any(taken & parse_wheel_filename(wheel["url"].rpartition("/")[2])[3] for wheel in package.get("wheels", []))
    ]
    assert without == []


def test_the_dockerfile_leaves_out_the_same() -> None:
    text = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    exports = [line for line in text.splitlines() if "uv export" in line]
    assert [{word for word, before in zip(line.split()[1:], line.split(), strict=False) if before == "--prune"} for line in exports] == [
        PRUNED["sigward-inspect"],
        PRUNED["sigward"],
    ]
