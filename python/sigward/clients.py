"""Issued keys: key pairs that sigward gives its clients, so that they can sign for sigward.

All are derived from one master key (`rust/gateway/src/client.rs`): nothing is kept of a single one. A client gets its pair from
`sigward client key`, or, on the same host, through a unix socket that tells by the kernel's word who asks.
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sigward import _core
from sigward.bounds import read_file
from sigward.ca import write_new
from sigward.errors import SigwardError, UnavailableError, UsageError
from sigward.file import check_home
from sigward.ownership import complaint

if TYPE_CHECKING:
    from sigward.settings import Clients

logger = logging.getLogger(__name__)

LONGEST_NAME = 256
"""Bytes of a question."""

PATIENCE = 5.0
"""Seconds that a question or an answer may take."""


class KeyFileError(SigwardError):
    """The master key cannot be used; the message names the file."""

    slug = "bad-key-file"
    exit_code = 78


@dataclass(frozen=True)
class IssuedKey:
    """One client's pair."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True)
class MasterKey:
    """`path`: 32 random bytes in hexadecimal digits, mode 0600."""

    path: Path

    def ensure(self) -> None:
        """Makes the key if there is none, and checks the one there is. Raises `KeyFileError`, `UsageError`."""
        check_home(self.path, "clients.key_file")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self.path.exists():
                # Of two processes that start at once, the first one's key stays.
                with contextlib.suppress(FileExistsError):
                    write_new(self.path, secrets.token_hex(32).encode() + b"\n", 0o600, replace=False)
            wrong = complaint(self.path, secret=True)
            if wrong is None and not self.path.is_file():
                wrong = f"{self.path} is not a regular file", "Choose a file of your own."
        except OSError as error:
            raise KeyFileError(
                f"clients.key_file: {self.path}: {error}.", hint="Choose a file of your own, in a directory that can be written."
            ) from error
        if wrong:
            raise KeyFileError(f"clients.key_file: {wrong[0]}.", hint=wrong[1])

    def issue(self, name: str, rotation: int) -> IssuedKey:
        """A client's pair. Raises `KeyFileError`."""
        self.ensure()
        try:
            return IssuedKey(*_core.issue_key(read_file(self.path), name, rotation))
        except (OSError, ValueError) as error:
            raise KeyFileError(
                f"clients.key_file: {self.path}: {error}.",
                hint="Move the file away; sigward makes a new one, and every client needs its new pair.",
            ) from error


@dataclass(frozen=True)
class Client:
    """What `[clients.NAME]` says."""

    rotation: int
    identity: str | None
    uids: tuple[int, ...]


@dataclass(frozen=True)
class Terms:
    """What `[clients]` says, in plain values."""

    key_file: Path
    socket: Path | None
    named: dict[str, Client]

    def issued(self) -> dict[str, Client]:
        """By name."""
        return self.named


def key_of(clients: "Clients | Terms", name: str) -> IssuedKey:
    """The pair of `[clients.NAME]`. Raises `UsageError`, `KeyFileError`."""
    known = clients.issued()
    if name not in known:
        raise UsageError(
            f"clients: there is no client {name!r}.",
            hint=f"Add [clients.{name}] to the settings file." if not known else f"One of {', '.join(sorted(known))}.",
        )
    return MasterKey(clients.key_file).issue(name, known[name].rotation)


def process_json(key: IssuedKey) -> str:
    """What `credential_process` prints."""
    return json.dumps({"Version": 1, "AccessKeyId": key.access_key_id, "SecretAccessKey": key.secret_access_key})


class Vendor:
    """Gives pairs out over a unix socket. A peer says which client it is, or nothing; the kernel says whose process it is."""

    def __init__(self, clients: "Clients | Terms", path: Path) -> None:
        self.clients = clients
        self.path = path
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens when it returns. Raises `UnavailableError`."""
        try:
            forget(self.path)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(self.path))
            # Whoever may reach the directory may ask; whom a process belongs to decides.
            self.path.chmod(0o666)
            self._server = await asyncio.start_unix_server(self._serve, sock=listener)
        except OSError as error:
            raise UnavailableError(
                f"clients.socket: {self.path}: {error}.",
                hint="Is another sigward running? Choose a path in a directory that can be written.",
            ) from error

    async def stop(self) -> None:
        """Listens no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                asked = (await reader.readuntil(b"\n"))[:LONGEST_NAME].decode(errors="replace").strip()
                uid = peer_uid(writer.get_extra_info("socket"))
                writer.write(self._answer(asked, uid).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            logger.debug("a peer of clients.socket went away")
        finally:
            writer.close()

    def _answer(self, asked: str, uid: int) -> str:
        mine = allowed(self.clients, uid)
        if asked and asked not in mine:
            logger.warning("uid %d asked for the key of client %.80r and may not have it", uid, asked)
            return json.dumps({"error": f"uid {uid} may not have the key of client {asked!r}"})
        if not asked and len(mine) != 1:
            return json.dumps({"error": f"uid {uid} is no client" if not mine else f"say which: {', '.join(mine)}"})
        name = asked or mine[0]
        logger.info("uid %d was given the key of client %s", uid, name)
        return process_json(key_of(self.clients, name))


def allowed(clients: "Clients | Terms", uid: int) -> list[str]:
    """The clients that a user's processes may be: those that name it, or name nobody while it is sigward's own."""
    return sorted(name for name, client in clients.issued().items() if uid in (client.uids or [os.geteuid()]))


def peer_uid(connection: socket.socket) -> int:
    """Whose process is at the other end (Linux's SO_PEERCRED)."""
    if sys.platform != "linux":
        raise NotImplementedError("the settings allow clients.socket nowhere else")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)


def forget(path: Path) -> None:
    """Takes a socket away that nobody listens on any more. Raises OSError if somebody does, or it is no socket."""
    if not path.exists():
        return
    if not path.is_socket():
        raise FileExistsError(f"{path} is there and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise FileExistsError("another process listens there")


def ask(path: Path, name: str) -> str:
    """The pair, as `credential_process` prints it, from a running sigward. Raises `UnavailableError`, `UsageError`."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(path))
            connection.sendall(name.encode()[: LONGEST_NAME - 1] + b"\n")
            with connection.makefile("rb") as answer:
                told: Mapping[str, str] = json.loads(answer.readline(1 << 16))
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f"clients.socket: {path}: {error}.", hint="Is sigward serving, with clients.socket set to this path?"
        ) from error
    if "error" in told:
        raise UsageError(f"client: {told['error']}.", hint="The operator sets [clients.NAME] uids.")
    return json.dumps(told)
