"""A network and mount namespace of its own: addresses, packet filters and /etc/hosts as a test wants them. For root alone."""

import ctypes
import encodings.idna  # noqa: F401 - `create_connection` imports it, as a user who may not read Python's own files
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.needs import lack

NOBODY = 65534
CLONE_NEWNET = 0x40000000


class NamespaceError(Exception):
    """There can be none here; the message says why."""


def inside(pid: int, made: Callable[[], Any], user: int = 0) -> Any:
    """Calls it in a thread that is in that process's network namespace. Sockets that it makes stay there, and belong to that user."""
    outcome: list[Any] = []

    def enter() -> None:
        try:
            with Path(f"/proc/{pid}/ns/net").open() as net:
                os.setns(net.fileno(), CLONE_NEWNET)
            # glibc asks the kernel for this thread alone.
            ctypes.CDLL(None).setfsuid(user)
            outcome.append(made())
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return outcome[0]


class Namespace:
    """Runs from its making to `close`, or the test's end. `hosts`: its /etc/hosts, to be changed in place."""

    def __init__(self, directory: Path, addresses: tuple[str, ...]) -> None:
        if os.geteuid() != 0:
            raise NamespaceError("a network namespace can be made by root alone")
        for program in ("ip", "iptables", "unshare", "nsenter", "setpriv"):
            if why := lack(program):
                raise NamespaceError(why)
        self.hosts = directory / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n")
        script = f"mount --make-rprivate / && mount --bind {self.hosts} /etc/hosts && ip link set lo up && echo ready && exec cat"
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self.holder.stdout is not None
        if (told := self.holder.stdout.readline()) != b"ready\n":
            self.close()
            raise NamespaceError(f"no namespace can be made here: {told.decode().strip()}")
        for address in addresses:
            self.run("ip", "address", "add", address, "dev", "lo")

    def command(self, *command: str, user: int = 0) -> list[str]:
        """A command that runs in it."""
        drop = ["setpriv", f"--reuid={user}", "--clear-groups"] if user else []
        return ["nsenter", "-t", str(self.holder.pid), "-n", "-m", *drop, *command]

    def run(self, *command: str, user: int = 0) -> str:
        """Runs a program in it; raises `NamespaceError` if it fails."""
        done = subprocess.run(self.command(*command, user=user), capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise NamespaceError(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def inside(self, made: Callable[[], Any], user: int = 0) -> Any:
        """As `inside`, here."""
        return inside(self.holder.pid, made, user)

    def listening(self, address: str, port: int) -> socket.socket:
        """A TCP socket that listens there."""

        def made() -> socket.socket:
            listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(64)
            return listener

        found: socket.socket = self.inside(made)
        return found

    def connected(self, address: str, port: int, user: int = NOBODY) -> socket.socket:
        """A TCP connection of that user's."""
        found: socket.socket = self.inside(lambda: socket.create_connection((address, port), 20), user)
        return found

    def close(self) -> None:
        """Ends it: sockets that are open keep the namespace until they are closed."""
        self.holder.kill()
        self.holder.wait()
        for pipe in (self.holder.stdin, self.holder.stdout):
            if pipe is not None:
                pipe.close()
