"""The parts joined: which identity's keys come from where."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sigward.cli.commands import Serve, read
from sigward.cli.serving import Service, load_addon, tell
from sigward.errors import UsageError


def test_an_identity_that_a_route_names_is_the_profile_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    routes = [{"host": "a", "identity": "other"}, {"host": "b", "action": "deny", "identity": "unused"}, {"host": "c"}]
    service = Service(read(Serve, "sigward serve", ["--profile", "main", "--route", json.dumps(routes)]))
    try:
        assert {name: keeper._chain.profile for name, keeper in service.keepers.items()} == {"other": "other", "default": "main"}
        service.refresh("nobody")
        assert not service.engine.is_ready()
    finally:
        service.engine.close()


@pytest.mark.parametrize("text", ["this is no Python", "raise RuntimeError('at import')"])
def test_an_addon_that_cannot_be_imported_is_named(tmp_path: Path, text: str) -> None:
    script = tmp_path / "addon.py"
    script.write_text(text)
    for path in (script, tmp_path / "not-there.py"):
        with pytest.raises(UsageError, match=path.name) as caught:
            load_addon(path)
        assert caught.value.exit_code == 64


def test_a_line_for_others_is_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pieces(list[str]):
        write = list.append

        def flush(self) -> None: ...

    pieces = Pieces()
    monkeypatch.setattr("sys.stderr", pieces)
    tell("sigward: listening admin=127.0.0.1:1")
    assert pieces == ["sigward: listening admin=127.0.0.1:1\n"]


def test_the_native_front_imports_no_mitmproxy() -> None:
    program = "import sys, sigward.cli.serving, sigward.front; sys.exit('mitmproxy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
