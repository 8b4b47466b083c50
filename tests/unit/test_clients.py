"""Issued keys: the master key's file, who may fetch a pair, and what the settings take."""

import asyncio
import json
import os
import socket
from pathlib import Path

import pytest

from sigward.clients import KeyFileError, MasterKey, Vendor, ask, key_of
from sigward.environ import DUMMY_SECRET
from sigward.errors import UnavailableError, UsageError
from sigward.settings import Client, Clients
from tests.shell import Shell

NOBODY = 65534


def clients(tmp_path: Path, **more: object) -> Clients:
    return Clients.model_validate({"key_file": tmp_path / "keys" / "clients.key", "ci": {}, **more})


def test_the_master_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    key = MasterKey(tmp_path / "keys" / "clients.key")
    first = key.issue("ci", 1)
    assert key.path.stat().st_mode & 0o777 == 0o600
    assert key.path.parent.stat().st_mode & 0o777 == 0o700
    assert key.issue("ci", 1) == first
    assert len({first, key.issue("ci", 2), key.issue("cd", 1), MasterKey(tmp_path / "other").issue("ci", 1)}) == 4
    assert first.secret_access_key not in repr(first)
    assert first.secret_access_key not in key.path.read_text()


@pytest.mark.parametrize("content", ["", "00", "zz" * 32, "00" * 33, "\N{GREEK SMALL LETTER ALPHA}" * 32])
def test_a_damaged_key_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "clients.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=r"clients\.key_file: .*clients\.key: 64 hexadecimal digits"):
        MasterKey(path).issue("ci", 1)


def test_a_key_file_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "clients.key"
    path.write_text("00" * 32)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="can be read by others") as told:
        MasterKey(path).issue("ci", 1)
    assert told.value.hint == f"chmod 600 {path}"


def test_a_client_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no client 'cd'") as told:
        key_of(clients(tmp_path), "cd")
    assert told.value.hint == "One of ci."


async def answers(given: Clients, path: Path, *names: str) -> list[str]:
    """What the socket says to each name."""
    vendor = Vendor(given, path)
    await vendor.start()
    told = []
    for name in names:
        try:
            told.append(await asyncio.to_thread(ask, path, name))
        except UsageError as error:
            told.append(str(error.args[0]))
    await vendor.stop()
    assert not path.exists()  # noqa: ASYNC240 - a test
    return told


async def test_the_socket_gives_a_pair_to_whom_it_belongs(tmp_path: Path) -> None:
    given = clients(tmp_path)
    own, named = await answers(given, tmp_path / "socket", "", "ci")
    key = key_of(given, "ci")
    assert json.loads(own) == {"Version": 1, "AccessKeyId": key.access_key_id, "SecretAccessKey": key.secret_access_key}
    assert named == own


async def test_the_socket_refuses_other_users_and_asks_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uid = os.geteuid()
    given = clients(tmp_path, ci={"uids": [NOBODY]}, a={"uids": [uid]}, b={"uids": [uid, NOBODY]})
    stranger, unknown, which, mine = await answers(given, tmp_path / "socket", "ci", "nobody", "", "b")
    assert stranger == f"client: uid {uid} may not have the key of client 'ci'."
    assert unknown == f"client: uid {uid} may not have the key of client 'nobody'."
    assert which == "client: say which: a, b."
    assert json.loads(mine)["AccessKeyId"] == key_of(given, "b").access_key_id
    assert "may not have it" in caplog.text
    alone = clients(tmp_path, ci={"uids": [NOBODY]})
    assert await answers(alone, tmp_path / "socket", "") == [f"client: uid {uid} is no client."]


async def test_a_peer_that_says_nothing_or_too_much_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    vendor = Vendor(clients(tmp_path), path)
    await vendor.start()
    for sent in (b"", b"x" * (1 << 17)):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
    await vendor.stop()


async def test_a_socket_that_was_left_behind_is_taken_over_but_not_one_in_use(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    given = clients(tmp_path)
    first = Vendor(given, path)
    await first.start()
    with pytest.raises(UnavailableError, match="another process listens there"):
        await Vendor(given, path).start()
    await first.stop()
    path.write_text("")
    with pytest.raises(UnavailableError, match="is no socket"):
        await Vendor(given, path).start()


def test_nobody_to_ask(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"clients\.socket: .*socket"):
        ask(tmp_path / "socket", "")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("clients.required = true", "so nobody could ask"),
        ('[clients."a b"]', "is no name for a client"),
        ("[clients.ci]\nrotatoin = 2", "rotatoin: there is no such setting"),
        ("[clients.ci]\nrotation = 0", "rotation"),
        ("clients.requried = true", "requried"),
        ('[clients.ci]\n[[route]]\nclient = "cd"', "route 1: there is no client 'cd'"),
        ('[[route]]\nidentity = "a"', "sigward.toml:1: route.1: nothing says what it is for"),
        ('[[route]]\noperation = "GetObject"', "operation: service:Operation is expected"),
    ],
)
def test_settings_that_do_not_hold(sigward: Shell, tmp_path: Path, settings: str, said: str) -> None:
    (tmp_path / "sigward.toml").write_text(settings)
    ran = sigward("check", "--config", str(tmp_path / "sigward.toml"))
    assert ran.status == 64, ran.err
    assert said in ran.err.replace("\n", " "), ran.err


def test_the_command_prints_a_pair_in_three_forms(sigward: Shell, tmp_path: Path) -> None:
    (tmp_path / "sigward.toml").write_text("[clients.ci]\n[clients.robot]\nrotation = 3\nidentity = 'team'\n")
    config = ("--config", str(tmp_path / "sigward.toml"), "--clients.key-file", str(tmp_path / "key"))
    key = MasterKey(tmp_path / "key").issue("ci", 1)
    env = sigward("client", "key", "ci", *config)
    assert env.out == f"AWS_ACCESS_KEY_ID={key.access_key_id}\nAWS_SECRET_ACCESS_KEY={key.secret_access_key}\n", env.err
    profile = sigward("client", "key", "ci", "--format", "profile", *config).out
    assert profile.startswith(f"[ci]\naws_access_key_id = {key.access_key_id}\n")
    assert json.loads(sigward("client", "key", "ci", "--format", "json", *config).out)["SecretAccessKey"] == key.secret_access_key
    listed = sigward("client", "list", *config).out
    robot = MasterKey(tmp_path / "key").issue("robot", 3)
    assert listed == f"ci  {key.access_key_id}  identity as routes say\nrobot  {robot.access_key_id}  identity team\n"
    assert sigward("client", "key", "cd", *config).status == 64
    assert sigward("client", "key", *config).status == 64
    assert "clients.socket: it is not set" in sigward("client", "credentials", *config).err


def test_programs_get_an_issued_key_when_they_are_given_one(sigward: Shell, tmp_path: Path) -> None:
    (tmp_path / "sigward.toml").write_text("[clients]\nrequired = true\n[clients.ci]\n")
    config = ("--config", str(tmp_path / "sigward.toml"), "--clients.key-file", str(tmp_path / "key"))
    refused = sigward("env", *config)
    assert refused.status == 64
    assert "Choose --client: ci" in refused.err
    key = MasterKey(tmp_path / "key").issue("ci", 1)
    told = sigward("env", "--client", "ci", *config).out
    assert f"AWS_SECRET_ACCESS_KEY={key.secret_access_key}" in told.replace("'", "")
    assert DUMMY_SECRET not in told


def test_the_tables_of_clients_are_what_they_say() -> None:
    given = Clients.model_validate({"a": {"identity": "x"}, "b": {}})
    assert given.issued() == {"a": Client(identity="x", rotation=1, uids=[]), "b": Client(rotation=1, identity=None, uids=[])}
