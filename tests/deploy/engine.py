"""The Docker engine of the deployment tests: what they run there, how it is watched, and that all of it is removed."""

import contextlib
import json
import os
import re
import socket
import socketserver
import subprocess
import tempfile
import threading
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import docker.errors
from docker import DockerClient
from docker.models.containers import Container

from sigward.demo.child import Child, clean_environment
from sigward.demo.tunnel import copy
from sigward.errors import DemoError
from tests.namespace import inside
from tests.needs import lack
from tests.support import assert_no_secret

USER = 65532
"""sigward's, in its images."""

RESTRICTED: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "user": f"{USER}:{USER}",
    "pids_limit": 64,
}
"""What a careful cluster demands of every container."""

OFTEN = {"interval": 500_000_000}
"""The image's own health check, but every half second. In nanoseconds."""

PATIENCE = 60
"""Seconds that an event may take on a busy machine."""


class EngineError(Exception):
    """There is no engine here, or a container did not do what was waited for; the message says why."""


@contextlib.contextmanager
def running_engine() -> Iterator[DockerClient]:
    """The engine that runs here; else one that is started, and stopped at the end. Raises `EngineError`."""
    client = _connected()
    if client is not None:
        yield client
        client.close()
        return
    if why := lack("dockerd"):
        raise EngineError(why)
    with (
        tempfile.TemporaryDirectory(prefix="sigward-dockerd-") as directory,
        Child(["dockerd"], clean_environment(), Path(directory)) as daemon,
    ):
        try:
            daemon.wait_for("API listen on")
        except DemoError as error:
            raise EngineError(f"dockerd does not start here: {daemon.output().strip().splitlines()[-1]}") from error
        client = docker.from_env()
        yield client
        client.close()


def _connected() -> DockerClient | None:
    with contextlib.suppress(docker.errors.DockerException):
        client = docker.from_env()
        client.ping()
        return client
    return None


def build(dockerfile: Path, context: Path, target: str | None = None, tag: str | None = None, **arguments: str) -> str:
    """Builds an image with the command that people use; returns its id. `arguments`: of the build. Raises `EngineError`."""
    with tempfile.TemporaryDirectory() as directory:
        told = Path(directory) / "id"
        command = ["docker", "build", "--file", str(dockerfile), "--iidfile", str(told)]
        command += ["--target", target] if target else []
        command += ["--tag", tag] if tag else []
        command += [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        ran = subprocess.run([*command, str(context)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if ran.returncode:
            raise EngineError(f"{' '.join(command)}:\n{ran.stdout[-6000:]}")
        return told.read_text().strip()


def compressed_size(client: DockerClient, image: str) -> int:
    """Bytes of the image as `docker save | gzip` has it."""
    packer, size = zlib.compressobj(6, wbits=31), 0
    for piece in client.images.get(image).save(chunk_size=1 << 20):
        size += len(packer.compress(piece))
    return size + len(packer.flush())


@dataclass
class Workshop:
    """What one test makes. `close` removes it all: containers with their volumes, volumes, networks, relays."""

    client: DockerClient
    label: str = field(default_factory=lambda: f"sigward.test={uuid.uuid4().hex[:12]}")
    _closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def run(self, image: str, command: list[str] | None = None, *, restricted: bool = True, **how: Any) -> Container:
        """Starts a container and returns at once. `restricted`: with `RESTRICTED`. `how`: as docker-py's `containers.run` takes it."""
        options: dict[str, Any] = {"network_mode": "none"} if "network" not in how else {}
        options |= (RESTRICTED if restricted else {}) | how
        created = self.client.containers.create(image, command, labels=self.labels(), **options)
        created.start()
        return created

    def finish(self, image: str, command: list[str], **how: Any) -> tuple[int, str]:
        """Runs a container to its end; returns (status, what it has written)."""
        return self.ended(self.run(image, command, **how))

    def ended(self, container: Container) -> tuple[int, str]:
        """(status, what it has written), once it has ended."""
        status = container.wait(timeout=PATIENCE)["StatusCode"]
        return int(status), output(container)

    def volume(self) -> str:
        """The name of a new, empty volume."""
        return str(self.client.volumes.create(labels=self.labels()).name)

    def network(self) -> str:
        """The name of a new network that leads nowhere: its containers reach each other and this machine."""
        name = f"sigward-test-{uuid.uuid4().hex[:12]}"
        self.client.networks.create(name, driver="bridge", internal=True, labels=self.labels())
        return name

    def pod(self, image: str) -> "Pod":
        """A network namespace that containers share, as in a Kubernetes pod or an ECS task. `image`: any that has `sleep`."""
        return self.pod_of(self.run(image, ["infinity"], entrypoint="sleep"))

    def pod_of(self, container: Container) -> "Pod":
        """The network namespace of a container that runs."""
        container.reload()
        pod = Pod(f"container:{container.id}", int(container.attrs["State"]["Pid"]))
        self._closing.callback(pod.close)
        return pod

    def close(self) -> None:
        """Idempotent. Fails if a container has told a secret."""
        self._closing.close()
        containers = self.client.containers.list(all=True, filters={"label": self.label})
        told = [output(container) for container in containers]
        # The one that holds the namespace is the oldest, and the others need it.
        for container in containers:
            container.remove(force=True, v=True)
        for network in self.client.networks.list(filters={"label": self.label}):
            network.remove()
        for volume in self.client.volumes.list(filters={"label": self.label}):
            volume.remove(force=True)
        for text in told:
            assert_no_secret(text, "a container's log")

    def labels(self) -> dict[str, str]:
        """By which all that it makes is found."""
        name, _, value = self.label.partition("=")
        return {name: value}


@dataclass
class Pod:
    """A network namespace; with nothing in it but loopback, if `Workshop.pod` made it.

    `network_mode`: for `Workshop.run`. `pid`: of a process in it.
    """

    network_mode: str
    pid: int
    _servers: list[socketserver.BaseServer] = field(default_factory=list)

    def add_address(self, address: str) -> None:
        """An address of its own, such as that of ECS's agent. Needs root."""
        command = ["nsenter", "--net", "--target", str(self.pid), "ip", "address", "add", f"{address}/32", "dev", "lo"]
        subprocess.run(command, check=True, capture_output=True)

    def lead(self, address: str, port: int, to: int) -> None:
        """Connections to ADDRESS:PORT in the pod go to that port of this machine's loopback. Needs root."""
        self.serve(Relay(to), address, port)

    def serve(self, server: socketserver.TCPServer, address: str, port: int) -> None:
        """Has a server, made with `bind_and_activate=False`, serve in the pod, from here. Needs root."""
        server.socket.close()
        server.socket = inside(self.pid, lambda: socket.create_server((address, port), backlog=64))
        server.server_address = (address, port)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self._servers.append(server)

    def close(self) -> None:
        """Ends what is served. Idempotent."""
        while self._servers:
            server = self._servers.pop()
            server.shutdown()
            server.server_close()


class Relay(socketserver.ThreadingTCPServer):
    """Passes connections on to a port of this machine's loopback."""

    daemon_threads = True

    def __init__(self, to: int) -> None:
        super().__init__(("127.0.0.1", 0), RelayHandler, bind_and_activate=False)
        self.to = to


class RelayHandler(socketserver.BaseRequestHandler):
    """One connection."""

    server: Relay

    def handle(self) -> None:
        """Bytes both ways until both sides have ended."""
        with socket.create_connection(("127.0.0.1", self.server.to)) as upstream:
            back = threading.Thread(target=copy, args=(upstream, self.request), daemon=True)
            back.start()
            copy(self.request, upstream)
            back.join()


def output(container: Container) -> str:
    """What it has written so far, stdout and stderr."""
    return str(container.logs().decode("utf-8", "replace"))


def wait_output(container: Container, pattern: str) -> re.Match[str]:
    """Returns the first match in what it writes. Raises `EngineError` if it ends before."""
    told = ""
    for piece in container.logs(stream=True, follow=True):
        told += piece.decode("utf-8", "replace")
        if found := re.search(pattern, told, re.MULTILINE):
            return found
    raise EngineError(f"the container has ended without a line that matches {pattern!r}:\n{told[-4000:]}")


def wait_health(container: Container, wanted: str = "healthy") -> None:
    """Returns once the engine finds it so. Raises `EngineError` if it finds otherwise, or the container ends."""
    container.reload()
    since = container.attrs["Created"].partition(".")[0] + "Z"
    command = ["docker", "events", "--since", since, "--filter", f"container={container.id}", "--format", "{{.Action}}"]
    with Child(command, dict(os.environ), Path("/")) as events:
        # A name and what it was found to be; the engine puts a blank behind the colon or not.
        found = events.wait_for(r"^(die$|health_status: *(?P<health>\w+))", PATIENCE)
    if found["health"] != wanted:
        container.reload()
        state = json.dumps(container.attrs["State"], indent=1)
        raise EngineError(f"it is not {wanted}: {state}\n{output(container)[-4000:]}")
