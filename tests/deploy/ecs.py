"""What Amazon ECS does with a task definition, as far as a Docker engine can: for the tests of deploy/ecs.

After "Amazon ECS task definition parameters" and "Task IAM role" in the Amazon ECS Developer Guide: the containers of a task share a
network namespace (awsvpc), start in the order of `dependsOn`, and fetch the task role's credentials from 169.254.170.2. What is not
translated here is refused, so that nothing stands in a definition that no test has run.
"""

import json
import socketserver
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from docker.models.containers import Container

from tests.deploy.engine import Pod, Workshop, wait_health

AGENT = "169.254.170.2"
"""Where ECS's agent gives out credentials."""

NANOSECONDS = 1_000_000_000

ELSEWHERE = {"name", "image", "essential", "dependsOn", "stopTimeout", "logConfiguration", "cpu", "memoryReservation", "secrets"}
"""What `Task` sees to, and what the engine here has no part for: CloudWatch, the shares of a host."""


class Agent(ThreadingHTTPServer):
    """The credentials endpoint. `path`: what the containers are told. `asked`: how often it was asked with it."""

    daemon_threads = True

    def __init__(self, credentials: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), AgentHandler, bind_and_activate=False)
        self.credentials = credentials
        self.path = f"/v2/credentials/{uuid.uuid4()}"
        self.asked = 0


class AgentHandler(BaseHTTPRequestHandler):
    """Credentials for whoever knows the path."""

    server: Agent

    def do_GET(self) -> None:
        known = self.path == self.server.path
        self.server.asked += known
        body = json.dumps(self.server.credentials if known else {"message": "CredentialsIDNotFound"}).encode()
        self.send_response(200 if known else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@dataclass
class Task:
    """One task.

    `images`: an image's name in the definition, without registry and tag, to the id of the one to run. `more`: what the test adds to a
    container, as docker-py's `containers.create` takes it. `secrets`: what Secrets Manager holds, by ARN.
    """

    workshop: Workshop
    pod: Pod
    definition: dict[str, Any]
    images: dict[str, str]
    agent: Agent
    more: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    _volumes: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Starts the containers, each once those that it depends on are as it wants them."""
        assert self.definition["networkMode"] == "awsvpc"
        self.pod.add_address(AGENT)
        server: socketserver.TCPServer = self.agent
        self.pod.serve(server, AGENT, 80)
        self._volumes = {volume["name"]: self.workshop.volume() for volume in self.definition["volumes"]}
        for container in self._in_order():
            for needed in container.get("dependsOn", []):
                assert needed["condition"] == "HEALTHY", "no other condition is needed so far"
                wait_health(self.containers[needed["containerName"]])
            self._start(container)

    def stop(self, name: str) -> int:
        """Stops a container as ECS does, in the time that its definition gives it; returns its status."""
        (wanted,) = (container for container in self.definition["containerDefinitions"] if container["name"] == name)
        self.containers[name].stop(timeout=wanted["stopTimeout"])
        return int(self.containers[name].wait()["StatusCode"])

    def _in_order(self) -> list[dict[str, Any]]:
        waiting, ordered = list(self.definition["containerDefinitions"]), []
        while waiting:
            started = {container["name"] for container in ordered}
            ready = [one for one in waiting if {needed["containerName"] for needed in one.get("dependsOn", [])} <= started]
            assert ready, "dependsOn goes in a circle"
            ordered += ready
            waiting = [one for one in waiting if one not in ready]
        return ordered

    def _start(self, container: dict[str, Any]) -> None:
        how, added = translated(container, self._volumes), self.more.get(container["name"], {})
        # ECS tells every container of the task where the role's credentials are.
        how["environment"] |= {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": self.agent.path}
        how["environment"] |= {secret["name"]: self.secrets[secret["valueFrom"]] for secret in container.get("secrets", [])}
        for key, value in added.items():
            how[key] = how.get(key, {}) | value if isinstance(value, dict) else value
        how["network_mode"] = self.pod.network_mode
        image = container["image"].rpartition("/")[2].partition(":")[0]
        self.containers[container["name"]] = self.workshop.run(self.images[image], how.pop("command", None), restricted=False, **how)


def translated(container: dict[str, Any], volumes: dict[str, str]) -> dict[str, Any]:
    """A container definition as docker-py's `containers.create` takes it. `volumes`: the task's, to the engine's."""
    how: dict[str, Any] = {"environment": {}}
    for key, value in container.items():
        if key == "environment":
            how["environment"] = {entry["name"]: entry["value"] for entry in value}
        elif key == "user":
            how["user"] = value
        elif key == "readonlyRootFilesystem":
            how["read_only"] = value
        elif key == "memory":
            how["mem_limit"] = f"{value}m"
        elif key == "command":
            how["command"] = value
        elif key == "dockerSecurityOptions":
            how["security_opt"] = value
        elif key == "dockerLabels":
            assert value, "an empty table says nothing"
        elif key == "healthCheck":
            how["healthcheck"] = health_check(value)
        elif key == "linuxParameters":
            how |= linux(value)
        elif key == "mountPoints":
            how["volumes"] = {
                volumes[mount["sourceVolume"]]: {"bind": mount["containerPath"], "mode": "ro" if mount["readOnly"] else "rw"}
                for mount in value
            }
        elif key not in ELSEWHERE:
            raise NotImplementedError(f"{container['name']}: {key}: nothing here runs it")
    return how


def health_check(value: dict[str, Any]) -> dict[str, Any]:
    """Seconds to nanoseconds."""
    times = {"interval": "interval", "timeout": "timeout", "startPeriod": "start_period"}
    assert set(value) <= {"command", "retries", *times}
    return {"test": value["command"], "retries": value["retries"]} | {
        name: value[key] * NANOSECONDS for key, name in times.items() if key in value
    }


def linux(value: dict[str, Any]) -> dict[str, Any]:
    """Capabilities and temporary file systems."""
    assert set(value) <= {"capabilities", "tmpfs"}
    how: dict[str, Any] = {"cap_drop": value["capabilities"]["drop"]}
    if "tmpfs" in value:
        how["tmpfs"] = {one["containerPath"]: ",".join([f"size={one['size']}m", *one["mountOptions"]]) for one in value["tmpfs"]}
    return how
