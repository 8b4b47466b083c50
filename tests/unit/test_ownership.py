"""Files that others could write, or put others in the place of, are not taken."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sigward import _core, ownership
from sigward.ca import CertificateAuthority
from sigward.cli.serving import load_addon
from sigward.clients import KeyFileError, MasterKey
from sigward.errors import CaError, UsageError
from sigward.file import TomlFile
from sigward.settings import Settings
from tests.support import engine_settings

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


def master(file: Path) -> None:
    MasterKey(file).ensure()


def settings(file: Path) -> None:
    TomlFile(file)


def authority(file: Path) -> None:
    CertificateAuthority(file.parent).ensure()


def addon(file: Path) -> None:
    load_addon(file)


def knowledge(file: Path) -> None:
    Settings(knowledge=file).plan()


def roots(file: Path) -> None:
    Settings(tls={"ca_files": [file]}).plan()


SECRET: dict[str, Callable[[Path], None]] = {"clients.key_file": master, "the CA key": authority}
POWER: dict[str, Callable[[Path], None]] = {"file": settings, "addons": addon, "knowledge": knowledge, "tls.ca_files": roots}
NAMES = {authority: "mitmproxy-ca.pem", addon: "addon.py"}
USES = SECRET | POWER


def made(tmp_path: Path, use: Callable[[Path], None]) -> Path:
    """A good one."""
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    file = folder / NAMES.get(use, "file")
    if use in (master, authority):
        use(file)
    else:
        file.write_text("")
        file.chmod(0o600)
    return file


def refused(use: Callable[[Path], None], file: Path, *said: str) -> None:
    with pytest.raises((KeyFileError, CaError, UsageError)) as caught:
        use(file)
    assert all(part in f"{caught.value.args[0]} {caught.value.hint}" for part in said), (caught.value.args, caught.value.hint)


@as_root
@pytest.mark.fault("a key, a CA, a settings file, an addon or a table belongs to another user", holds="it is refused, with its owner")
@pytest.mark.parametrize("name", USES)
def test_what_belongs_to_another_user(name: str, tmp_path: Path) -> None:
    file = made(tmp_path, USES[name])
    os.chown(file, NOBODY, -1)
    refused(USES[name], file, str(file), f"belongs to user {NOBODY}", "chown 0")
    os.chown(file, 0, -1)
    os.chown(file.parent, NOBODY, -1)
    refused(USES[name], file, str(file.parent), f"belongs to user {NOBODY}")


@pytest.mark.fault("others can write to a key, a CA, a settings file, an addon or a table", holds="it is refused, with its mode")
@pytest.mark.parametrize("name", USES)
def test_what_others_can_write(name: str, tmp_path: Path) -> None:
    file = made(tmp_path, USES[name])
    file.chmod(0o606)
    refused(USES[name], file, str(file), "0606", "chmod")
    file.chmod(0o600)
    file.parent.chmod(0o777)
    refused(USES[name], file, str(file.parent), "0777")
    file.parent.chmod(0o1777)
    if USES[name] is not authority:
        assert ownership.complaint(file, secret=name in SECRET) is None, "of a sticky folder, only who owns a file takes it away"


def test_a_link_leads_to_what_counts(tmp_path: Path) -> None:
    file = made(tmp_path, master)
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    link = open_folder / "key"
    link.symlink_to(file)
    master(link)
    open_folder.chmod(0o777)
    refused(master, link, str(open_folder), "0777")


@as_root
def test_a_secret_of_kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's files, that the pod's group may read, behind links; sigward is another user."""
    volume = tmp_path / "volume"
    data = volume / "..2026_01_01"
    data.mkdir(parents=True)
    volume.chmod(0o1777)
    file = data / "key"
    file.write_text("00" * 32)
    file.chmod(0o440)
    (volume / "..data").symlink_to(data.name)
    (volume / "key").symlink_to("..data/key")
    monkeypatch.setattr(ownership.os, "geteuid", lambda: 1000)
    master(volume / "key")
    file.chmod(0o444)
    master(volume / "key")
    file.chmod(0o446)
    refused(master, volume / "key", "0446")
    monkeypatch.setattr(ownership, "is_read_only", lambda _: True)
    os.chown(file, NOBODY, -1)
    master(volume / "key")


def test_the_host_s_root_is_nobody_in_a_user_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = made(tmp_path, master)
    monkeypatch.setattr(ownership.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(ownership, "trusted", lambda: {1000})
    assert ownership.complaint(file, secret=True) is not None
    monkeypatch.setattr(ownership, "unmapped", lambda: {os.getuid()})
    assert ownership.of_folder(file.parent) is None


@pytest.mark.fault("body.spool_dir is missing or cannot be written", holds="refused at the start and at a reload, with the reason")
@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_a_place_for_large_bodies_that_is_none(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "spool"
    if kind == "a file":
        place.write_text("")
    good = engine(tmp_path)
    bad = engine(tmp_path, body={"spool_dir": str(place)})
    with pytest.raises(_core.SettingsError, match=r"body\.spool_dir: .*spool"):
        _core.Engine(bad)
    running = _core.Engine(good)
    with pytest.raises(_core.SettingsError, match=r"body\.spool_dir: .*spool"):
        running.configure(bad)
    running.close(0)


def test_no_place_for_large_bodies_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "away"))
    running = _core.Engine(engine(tmp_path))
    assert [warning for warning in running.warnings() if "body.spool_dir is not set" in warning]
    running.close(0)


def engine(tmp_path: Path, **more: Any) -> str:
    import trustme

    ca_file = tmp_path / "ca.pem"
    if not ca_file.exists():
        trustme.CA().cert_pem.write_to_path(str(ca_file))
    return engine_settings(9, ca_file, **more)
