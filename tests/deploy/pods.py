"""What Kubernetes does with a pod, as far as a Docker engine can: for the tests of deploy/kubernetes.

After "Pods", "Init Containers" and "Sidecar Containers" in Kubernetes' documentation: the containers of a pod share a network namespace;
init containers run one after the other to their end, but for sidecars (`restartPolicy: Always`), which have started when their startup
probe passes; then the app starts. What is not translated here is refused, so that nothing stands in a manifest that no test has run.
"""

import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker.models.containers import Container

from tests.deploy.engine import OFTEN, Pod, Workshop, output, wait_health
from tests.kubernetes import Manifest, the

OWN = "203.0.113.1"
"""The pod's own address."""

OWN_IPV6 = "2001:db8:1::1"

ELSEWHERE = {"name", "image", "imagePullPolicy", "ports", "readinessProbe", "restartPolicy", "startupProbe"}
"""What `KubernetesPod` sees to, or the engine has no part for: the startup probe becomes a health check, readiness is a Service's."""

POD_ELSEWHERE = {"serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "initContainers", "containers", "volumes"}


@dataclass
class KubernetesPod:
    """The pods of one Deployment among rendered objects. `images`: a name in the manifest, without tag, to the id of the one to run.
    `tokens`: what the cluster would issue for each audience. `directory`: for volumes."""

    workshop: Workshop
    pod: Pod
    objects: list[Manifest]
    images: dict[str, str]
    directory: Path
    tokens: dict[str, str] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spec: Manifest = the(self.objects, "Deployment")["spec"]["template"]["spec"]
        unknown = self.spec.keys() - POD_ELSEWHERE - {"securityContext", "terminationGracePeriodSeconds", "hostAliases"}
        assert not unknown, f"not translated: {unknown}"
        # The token that a container would find at its usual place is no part of this.
        assert self.spec["automountServiceAccountToken"] is False
        self.pod.add_address(OWN)
        self.volumes = {volume["name"]: self._volume(volume) for volume in self.spec.get("volumes", [])}
        self.hosts = self.directory / "hosts"
        aliases = [f"{alias['ip']} {' '.join(alias['hostnames'])}\n" for alias in self.spec.get("hostAliases", [])]
        self.hosts.write_text("".join(["127.0.0.1 localhost\n::1 localhost\n", *aliases]))

    def inside(self, *command: str) -> None:
        """Runs a program of this machine's in the pod's network namespace."""
        subprocess.run(["nsenter", "--net", "--target", str(self.pod.pid), *command], check=True, capture_output=True)

    def route_here(self, address: str) -> None:
        """Connections to an address end in the pod, as if it were elsewhere: they come from the pod's own address."""
        self.inside("ip", "route", "replace", "local", address, "dev", "lo", "src", OWN_IPV6 if ":" in address else OWN)

    def enable_ipv6(self) -> None:
        """Docker's namespaces have none."""
        self.inside("sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=0")
        self.inside("ip", "address", "add", f"{OWN_IPV6}/128", "dev", "lo", "nodad")

    def start(self) -> None:
        """Runs the init containers, up to where the app may start. Fails if one does not end well."""
        for container in self.spec.get("initContainers", []):
            if container.get("restartPolicy") == "Always":
                self.start_probed(container)
            else:
                self.containers[container["name"]] = started = self._run(container)
                status, told = self.workshop.ended(started)
                assert status == 0, told

    def start_probed(self, container: Manifest) -> None:
        """Starts one that serves, and waits for its startup probe."""
        probe = container["startupProbe"]["exec"]["command"]
        self.containers[container["name"]] = started = self._run(container, healthcheck={"test": ["CMD", *probe], **OFTEN})
        wait_health(started)

    def app(self, *command: str, name: str = "app") -> tuple[int, str]:
        """Runs a program in a container as the app's; returns (status, what it has written)."""
        return self.workshop.ended(self.begin(*command, name=name))

    def begin(self, *command: str, name: str = "app") -> Container:
        """The same, while it runs."""
        [container] = [one for one in self.spec["containers"] if one["name"] == name]
        return self._run({**container, "command": list(command)})

    def stopping(self, name: str) -> threading.Thread:
        """Begins to end one container, and returns at once."""
        thread = threading.Thread(target=self.containers[name].stop, kwargs={"timeout": self.spec["terminationGracePeriodSeconds"]})
        thread.start()
        return thread

    def logs(self) -> str:
        """What all init containers and sidecars have written."""
        return "\n".join(f"{name}: {output(container)}" for name, container in self.containers.items())

    def _volume(self, volume: Manifest) -> Path:
        """A directory with what the volume holds; an emptyDir is everybody's to write, as the kubelet has it."""
        place = self.directory / "volumes" / volume["name"]
        place.mkdir(parents=True)
        files: dict[str, str] = {}
        match {key: value for key, value in volume.items() if key != "name"}:
            case {"emptyDir": dict()}:
                place.chmod(0o777)
            case {"configMap": {"name": str(name)}}:
                [files] = [one["data"] for one in self.objects if one["kind"] == "ConfigMap" and one["metadata"]["name"] == name]
            case {"projected": {"sources": [{"serviceAccountToken": {"audience": audience, "path": path}}]}}:
                files = {path: self.tokens[audience]}
            case unknown:
                raise AssertionError(f"not translated: {unknown}")
        for name, text in files.items():
            (place / name).write_text(text)
            (place / name).chmod(0o644)
        return place

    def _run(self, container: Manifest, **more: Any) -> Container:
        how = translated(container, self.spec.get("securityContext", {}))
        mounts = {str(self.volumes[mount["name"]]): self._mount(mount) for mount in container.get("volumeMounts", [])}
        mounts[str(self.hosts)] = {"bind": "/etc/hosts", "mode": "ro"}
        image = self.images[container["image"].rpartition("/")[2].partition(":")[0]]
        command = how.pop("command", None)
        return self.workshop.run(image, command, restricted=False, network_mode=self.pod.network_mode, volumes=mounts, **how, **more)

    @staticmethod
    def _mount(mount: Manifest) -> dict[str, str]:
        assert mount.keys() <= {"name", "mountPath", "readOnly"}
        return {"bind": mount["mountPath"], "mode": "ro" if mount.get("readOnly") else "rw"}


def translated(container: Manifest, pod: Manifest) -> dict[str, Any]:
    """A container as docker-py's `containers.create` takes it. `pod`: the pod's security context."""
    how: dict[str, Any] = {"environment": {}}
    security: Manifest = dict(pod)
    for key, value in container.items():
        if key == "env":
            how["environment"] = {entry["name"]: entry["value"] for entry in value}
        elif key == "command":
            how["entrypoint"], how["command"] = value[:1], value[1:]
        elif key == "args":
            how["command"] = value
        elif key == "resources":
            how["mem_limit"] = value["limits"]["memory"].removesuffix("i").lower()
        elif key == "securityContext":
            security |= value
        else:
            assert key in ELSEWHERE | {"volumeMounts"}, f"not translated: {key}"
    return how | secured(security)


def secured(context: Manifest) -> dict[str, Any]:
    """A security context, likewise."""
    how: dict[str, Any] = {}
    for key, value in context.items():
        if key == "runAsUser":
            how["user"] = f"{value}:{context['runAsGroup']}"
        elif key == "runAsNonRoot":
            assert context["runAsUser"] > 0 or not value, "the kubelet would not start it"
        elif key == "readOnlyRootFilesystem":
            how["read_only"] = value
        elif key == "allowPrivilegeEscalation":
            how["security_opt"] = [] if value else ["no-new-privileges"]
        elif key == "capabilities":
            how["cap_drop"], how["cap_add"] = value.get("drop", []), value.get("add", [])
        elif key == "seccompProfile":
            # The engine's own, which it applies by itself.
            assert value == {"type": "RuntimeDefault"}
        else:
            # With the user; and of volumes that none of these tests has.
            assert key in ("runAsGroup", "fsGroup"), f"not translated: {key}"
    return how
