"""What unit tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from sigward import file
from sigward.settings import Settings
from tests.shell import Shell


@pytest.fixture(autouse=True)
def no_settings_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that one test's command has read is not the next one's."""
    monkeypatch.setattr(Settings, "source", None)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty. No settings file is in a user's or the system's place."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(file, "SYSTEM", tmp_path / "etc" / "sigward.toml")
    return here


@pytest.fixture
def sigward(tmp_path: Path) -> Shell:
    """The command line, in a home of its own."""
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """moto's server."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
