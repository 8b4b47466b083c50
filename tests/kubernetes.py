"""Manifests of deploy/kubernetes: rendered by kustomize and Helm, and held against the schemas of several Kubernetes versions."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from sigward.environ import ClientEnvironment
from sigward.trust import Trust
from tests.conftest import ROOT
from tests.needs import need

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("endpoint-url", "https-proxy", "transparent", "irsa", "pod-identity")
CHART = FOLDER / "chart"
CHART_VALUES = ("endpoint-url", "https-proxy", "transparent", "standalone")
VERSIONS = ("1.29", "1.30", "1.31", "1.32", "1.33", "1.34")
"""From the first one on that starts native sidecars without a feature gate."""

Manifest = dict[str, Any]


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def objects(text: str) -> list[Manifest]:
    """All documents that are not empty."""
    return [document for document in yaml.safe_load_all(text) if document]


def kustomized(folder: Path) -> list[Manifest]:
    """What `kustomize build` makes of it. Skips the test where there is no kustomize."""
    done = run(need("kustomize"), "build", str(folder))
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def helm(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs Helm. Skips the test where there is none."""
    return run(need("helm"), *arguments)


def template(chart: Path, *arguments: str, version: str = VERSIONS[-1]) -> "subprocess.CompletedProcess[str]":
    """`helm template` of a release `app`, for a cluster of that version."""
    return helm("template", "app", str(chart), "--kube-version", version, *arguments)


def templated(*arguments: str, chart: Path = CHART) -> list[Manifest]:
    """What `helm template` makes."""
    done = template(chart, *arguments)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def chart_values(name: str) -> tuple[str, str]:
    """The arguments for one of the chart's own sets of values."""
    return ("--values", str(CHART / "ci" / f"{name}-values.yaml"))


def the(found: list[Manifest], kind: str) -> Manifest:
    """The only object of this kind."""
    [one] = [manifest for manifest in found if manifest["kind"] == kind]
    return one


def pod(found: list[Manifest]) -> Manifest:
    """The spec of the only Deployment's pods."""
    spec: Manifest = the(found, "Deployment")["spec"]["template"]["spec"]
    return spec


def containers(spec: Manifest) -> Iterator[Manifest]:
    """All containers of a pod, in the order in which they start."""
    yield from spec.get("initContainers", [])
    yield from spec["containers"]


def container(spec: Manifest, name: str) -> Manifest:
    """The container of this name."""
    [one] = [one for one in containers(spec) if one["name"] == name]
    return one


def variables(of: Manifest) -> dict[str, str]:
    """A container's variables; each is set once."""
    names = [variable["name"] for variable in of.get("env", [])]
    assert sorted(set(names)) == sorted(names)
    return {variable["name"]: variable["value"] for variable in of.get("env", [])}


def assert_valid(manifest: Manifest) -> None:
    """By the OpenAPI schema of each version; a field that it does not know is an error."""
    for version in VERSIONS:
        try:
            assert kubernetes_validate.validate(manifest, version, strict=True) == version
        except kubernetes_validate.ValidationError as error:
            where = ".".join(map(str, error.path))
            raise AssertionError(
                f"{manifest['kind']} {manifest['metadata']['name']}, Kubernetes {version}: {where}: {error.message}"
            ) from error


def assert_restricted(spec: Manifest) -> None:
    """The `restricted` level of "Pod Security Standards", but for the container that sets the packet filter; and a read-only root."""
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    for volume in spec.get("volumes", []):
        assert volume.keys() - {"name"} <= {"configMap", "emptyDir", "projected", "secret"}
    shared = spec["securityContext"]
    assert shared["seccompProfile"] == {"type": "RuntimeDefault"}
    assert shared["runAsNonRoot"] is True
    for one in containers(spec):
        own = one["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"]["drop"] == ["ALL"]
        if one["name"] == "sigward-init":
            assert own["capabilities"]["add"] == ["NET_ADMIN"]
        else:
            assert "add" not in own["capabilities"]
            assert own.get("runAsNonRoot", True) is True
            assert own["runAsUser"] > 0


def assert_sound(spec: Manifest, user: int = 65532) -> None:
    """What holds for every pod with sigward as sidecar."""
    assert_restricted(spec)
    # In either order: kustomize puts what it patches first. The rules stand before the app starts, and sigward is not subject to them.
    first = {one["name"] for one in spec["initContainers"]}
    assert first in ({"sigward"}, {"sigward-init", "sigward"})
    sigward = container(spec, "sigward")
    assert sigward["restartPolicy"] == "Always"
    for probe in ("startupProbe", "readinessProbe"):
        assert sigward[probe]["exec"]["command"] == ["sigward", "healthcheck"]
    assert sigward["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in sigward["resources"]["limits"]
    assert spec["terminationGracePeriodSeconds"] > float(variables(sigward)["SIGWARD_GRACE"].removesuffix("s"))
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert sigward["securityContext"]["runAsUser"] == user
    if "sigward-init" in first:
        assert variables(container(spec, "sigward-init"))["PROXY_UID"] == str(user)
    names = {volume["name"] for volume in spec["volumes"]}
    for one in containers(spec):
        mounts = {mount["name"]: mount for mount in one.get("volumeMounts", [])}
        assert mounts.keys() <= names
        if one["name"] != "sigward":
            # Neither the CA's key nor a token for AWS; the trust volume to read.
            assert mounts.keys() <= {"sigward-trust"}
            assert all(mount["readOnly"] for mount in mounts.values())
            assert one["securityContext"]["runAsUser"] != user


def assert_trusts(spec: Manifest) -> None:
    """sigward writes what clients trust to where the app looks for it."""
    sigward, app = container(spec, "sigward"), container(spec, "app")
    trusted = variables(sigward)["SIGWARD_TRUST_DIR"]
    assert trusted in {mount["mountPath"] for mount in sigward["volumeMounts"] if not mount.get("readOnly")}
    assert trusted in {mount["mountPath"] for mount in app["volumeMounts"]}
    told = variables(app)
    expected = ClientEnvironment("http://127.0.0.1:8080", Trust(Path(trusted)), "us-east-1").variables()
    files = {name: value for name, value in expected.items() if trusted in value and name != "JAVA_TOOL_OPTIONS"}
    assert {name: told.get(name) for name in files} == files
    assert f"trustStore={trusted}/truststore.p12 " in told["JAVA_TOOL_OPTIONS"]


def assert_enters(spec: Manifest, entry: str) -> None:
    """sigward listens where the app goes; nothing of it is reached from outside the pod."""
    sigward, app = variables(container(spec, "sigward")), variables(container(spec, "app"))
    endpoints = {name: value for name, value in app.items() if name.startswith("AWS_ENDPOINT_URL_")}
    listeners = dict(one.split("=") for one in sigward.get("SIGWARD_REVERSE", "").split(",") if one)
    assert {value.removeprefix("http://") for value in endpoints.values()} == set(listeners)
    assert all(listener.startswith("127.0.0.1:") for listener in listeners)
    assert sigward["SIGWARD_LISTEN"] == (app["HTTPS_PROXY"].removeprefix("http://") if entry == "https-proxy" else "off")
    assert ("HTTPS_PROXY" in app) == (entry == "https-proxy")
    assert ("SIGWARD_TRANSPARENT" in sigward) == (entry == "transparent")
    if entry == "transparent":
        port = variables(container(spec, "sigward-init"))["REDIRECT_TO"]
        assert sigward["SIGWARD_TRANSPARENT"] == f"localhost:{port}"
    if entry == "https-proxy":
        direct = app["JAVA_TOOL_OPTIONS"].partition("-Dhttp.nonProxyHosts=")[2].split("|")
        assert {"169.254.169.254", "[fd00:ec2::254]", "*.svc"} <= set(direct)
        assert {"169.254.169.254", "fd00:ec2::254", ".svc"} <= set(app["NO_PROXY"].split(","))
    assert bool(endpoints) == (entry == "endpoint-url")
    if entry != "endpoint-url":
        assert_trusts(spec)


def closed(policy: Manifest) -> set[str]:
    """The networks that a NetworkPolicy lets nobody reach; all else is open."""
    [rule] = policy["spec"]["egress"]
    assert "Egress" in policy["spec"]["policyTypes"]
    assert rule.keys() == {"to"}
    four, six, pods = rule["to"]
    assert (four["ipBlock"]["cidr"], six["ipBlock"]["cidr"]) == ("0.0.0.0/0", "::/0")
    assert pods == {"namespaceSelector": {}}
    return {*four["ipBlock"]["except"], *six["ipBlock"]["except"]}


IMDS = {"169.254.169.254/32", "169.254.170.2/32", "fd00:ec2::254/128"}
AGENT = {"169.254.170.23/32", "fd00:ec2::23/128"}
