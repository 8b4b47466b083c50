"""The emulator and a running sigward, once a session."""

import http.client
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from sigward.demo.calls import Ways
from sigward.demo.child import clean_environment
from sigward.demo.emulator import Emulator
from sigward.demo.gateway import Gateway, settings_file
from sigward.demo.tunnel import Tunnel

SIGWARD = [sys.executable, "-m", "sigward"]


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    """AWS, as far as these tests can tell."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def gateway(emulator: Emulator) -> Iterator[Gateway]:
    """sigward with the emulator's keys, ready."""
    with Gateway(emulator) as gateway:
        gateway.wait_ready()
        yield gateway


@pytest.fixture(scope="session")
def ways(emulator: Emulator, gateway: Gateway) -> Iterator[Ways]:
    """All the ways to the emulator."""
    with Tunnel(emulator.port) as tunnel:
        yield Ways(emulator, gateway, tunnel.url)


@pytest.fixture
def config(emulator: Emulator, tmp_path: Path) -> Path:
    """A settings file that leads AWS's hosts to the emulator, for `sigward run`."""
    path = tmp_path / "sigward.toml"
    path.write_text(settings_file(emulator, tmp_path / "ca", {}))
    return path


@pytest.fixture
def environment(emulator: Emulator) -> dict[str, str]:
    """For a sigward that these tests start themselves: the emulator's keys and nobody else's."""
    return clean_environment() | emulator.credentials() | {"AWS_REGION": emulator.region}


@dataclass(frozen=True)
class Answer:
    """What a plain HTTP client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    address: str,
    method: str = "GET",
    path: str = "/",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """One request on a connection of its own. `address`: "127.0.0.1:PORT"."""
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()
