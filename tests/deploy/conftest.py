"""A Docker engine, base images from Debian's archive, sigward's images, and what stands in for AWS; once a session.

Tests that need them are marked `deploy`; a plain `pytest` leaves them out, `make deploy-test` runs them. Images stay with the engine as
`sigward-test/…`, for the next run; all else is removed.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker import DockerClient

from sigward import __version__
from sigward.demo.emulator import Emulator
from tests.deploy import base
from tests.deploy.engine import EngineError, Workshop, build, running_engine

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Building images takes minutes, and counts for the first test that needs them."""
    for item in items:
        if item.get_closest_marker("deploy") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def engine() -> Iterator[DockerClient]:
    """The engine that runs here, or one started for these tests."""
    if os.geteuid() != 0:
        pytest.skip("needs root: for debootstrap, and to enter the containers' network namespaces")
    with contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(running_engine())
        except EngineError as error:
            pytest.skip(str(error))
        yield client


@pytest.fixture(scope="session")
def base_image(engine: DockerClient) -> str:
    """Debian trixie, slim."""
    try:
        return base.debian(engine)
    except base.BaseError as error:
        pytest.skip(str(error))


@dataclass(frozen=True)
class Images:
    """Ids of sigward's images, and of an application's that has clients and no keys."""

    sigward: str
    inspect: str
    client: str


@pytest.fixture(scope="session")
def wheel() -> Path:
    """sigward's wheel for the images' Python, compiled here as `make build` did."""
    if sys.version_info[:2] != (3, 13):
        pytest.skip("the images have Python 3.13: make .venv with it, so that the wheel compiled here fits")
    dist = ROOT / "dist"
    made = max((file.stat().st_mtime for file in dist.glob(f"sigward-{__version__}-cp313-*.whl")), default=0.0)
    if made < max(file.stat().st_mtime for file in sources()):
        maturin = Path(sys.executable).with_name("maturin")
        command = [maturin, "build", "--release", "--locked", "--interpreter", sys.executable, "--out", str(dist)]
        ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert ran.returncode == 0, ran.stdout[-4000:]
    return dist


def sources() -> Iterator[Path]:
    """What the wheel is made of. A wheel made anew differs from the last one, and has the images made anew."""
    yield from (ROOT / name for name in ("Cargo.lock", "Cargo.toml", "README.md", "pyproject.toml"))
    yield from (
        file for place in ("python", "rust") for file in (ROOT / place).rglob("*") if file.suffix in (".py", ".pyi", ".rs", ".toml")
    )


@pytest.fixture(scope="session")
def images(base_image: str, wheel: Path) -> Images:
    """Built from the wheel; `test_image.py` has one that is compiled by the Dockerfile itself."""
    arguments = {"BASE": base_image, "BUILDER": base_image, "WHEELS": wheel.name, "VERSION": __version__, "REVISION": "test"}
    return Images(
        sigward=build(DOCKERFILE, ROOT, "sigward", "sigward-test/sigward", **arguments),
        inspect=build(DOCKERFILE, ROOT, "sigward-inspect", "sigward-test/sigward-inspect", **arguments),
        client=build(ROOT / "tests/deploy/client.Dockerfile", ROOT / "tests/deploy", None, "sigward-test/client", BASE=base_image),
    )


@pytest.fixture
def workshop(engine: DockerClient) -> Iterator[Workshop]:
    """Runs containers, and removes what the test has made."""
    workshop = Workshop(engine)
    yield workshop
    workshop.close()


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    """AWS, as far as these tests can tell; on this machine's loopback: `Pod.lead` leads there."""
    with Emulator() as emulator:
        yield emulator
