"""deploy/kubernetes: what kustomize and Helm render, run as pods. The emulator verifies the app's calls; the app has no keys.

NetworkPolicies are not run: an engine enforces none.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from sigward.demo.emulator import Arrived, Emulator
from sigward.demo.emulator_server import HOLD_HEADER
from tests.deploy.aws import AGENT, IMDS, STS, Metadata, PodIdentityAgent, SecurityTokenService, role_keys
from tests.deploy.conftest import Images
from tests.deploy.engine import Pod, Workshop, build, wait_output
from tests.deploy.pods import OWN, KubernetesPod
from tests.kubernetes import CHART, FOLDER, Manifest, container, kustomized, templated, the

pytestmark = pytest.mark.deploy

AWS_AT, STS_AT, NOWHERE_IPV6 = "203.0.113.10", "203.0.113.11", "2001:db8:1::7"
DYNAMODB = "dynamodb.us-east-1.amazonaws.com"
# botocore's S3 in us-east-1 has been at the global name.
S3 = ("s3.us-east-1.amazonaws.com", "s3.amazonaws.com")
TOKENS = {"sts.amazonaws.com": "token-for-sts", "pods.eks.amazonaws.com": "token-for-the-agent"}
CURL = (
    "curl --silent --show-error --max-time 30 "
    '-H "x-amz-target: DynamoDB_20120810.ListTables" -H "content-type: application/x-amz-json-1.0" -d "{}" '
)
LIST = CURL + '"${AWS_ENDPOINT_URL_DYNAMODB:-https://dynamodb.us-east-1.amazonaws.com}/"'
BOTO3 = 'import boto3; print(boto3.client("dynamodb").list_tables(), boto3.client("s3").list_buckets()["Buckets"])'
METADATA = f"curl --silent --show-error --max-time 10 http://{IMDS}/latest/meta-data/"
KEYS = f"curl --silent --show-error --max-time 10 http://{AGENT}/v1/credentials"
REFUSED = 7
"""curl's status where nobody takes the connection."""


@pytest.fixture(scope="session")
def init_image(base_image: str) -> str:
    """`sigward-init`."""
    folder = FOLDER / "init"
    return build(folder / "Dockerfile", folder, None, "sigward-test/sigward-init", BASE=base_image)


@dataclass
class Cluster:
    """What a pod finds around it. `start(objects)` makes one and starts it up to its app."""

    workshop: Workshop
    images: dict[str, str]
    emulator: Emulator
    directory: Path
    authority: trustme.CA
    keys: dict[str, str]
    agent: PodIdentityAgent
    sts: SecurityTokenService
    imds: Metadata

    def start(self, objects: list[Manifest], *, ipv6: bool = False) -> KubernetesPod:
        """`ipv6`: the pod has addresses of both families."""
        network: Pod = self.workshop.pod(self.images["app"])
        pod = KubernetesPod(self.workshop, network, objects, self.images, self.directory, TOKENS)
        if ipv6:
            pod.enable_ipv6()
        for address in (AWS_AT, STS_AT, AGENT, IMDS, *([NOWHERE_IPV6] if ipv6 else [])):
            pod.route_here(address)
        network.lead(AWS_AT, 443, self.emulator.port)
        for server, address, port in ((self.sts, STS_AT, 443), (self.agent, AGENT, 80), (self.imds, IMDS, 80)):
            network.serve(server, address, port)
        pod.start()
        return pod

    @property
    def trusted(self) -> str:
        """The CAs of AWS's hosts here."""
        return self.emulator.ca_file.read_text() + self.authority.cert_pem.bytes().decode()

    def arrived(self, since: int) -> list[Arrived]:
        """What came to AWS, all of it signed with the role's keys and accepted."""
        found = self.emulator.requests(since)
        for request in found:
            assert request.status == 200, request
            assert request.scope is not None
            assert request.scope[0] == self.keys["AccessKeyId"]
        return found


@pytest.fixture
def cluster(workshop: Workshop, emulator: Emulator, images: Images, init_image: str, tmp_path: Path) -> Cluster:
    """AWS's hosts are at addresses of the pod's, under their own names; what gives out keys is where it is on EKS."""
    authority, keys = trustme.CA(), role_keys(emulator)
    return Cluster(
        workshop,
        {"sigward": images.sigward, "sigward-init": init_image, "app": images.client},
        emulator,
        tmp_path,
        authority,
        keys,
        PodIdentityAgent(keys, TOKENS["pods.eks.amazonaws.com"]),
        SecurityTokenService(authority, keys, TOKENS["sts.amazonaws.com"]),
        Metadata(),
    )


ALIASES = [{"ip": AWS_AT, "hostnames": [DYNAMODB, *S3]}, {"ip": STS_AT, "hostnames": [STS]}]
OURS: list[dict[str, str]] = [
    {"name": "SIGWARD_TLS__CA_FILES", "value": "/etc/aws/aws.pem"},
    {"name": "SIGWARD_TLS__SYSTEM_ROOTS", "value": "false"},
    {"name": "AWS_CA_BUNDLE", "value": "/etc/aws/aws.pem"},
]
"""That sigward trusts what stands in for AWS."""

MOUNT = {"name": "aws", "mountPath": "/etc/aws", "readOnly": True}
VOLUME = {"name": "aws", "configMap": {"name": "aws"}}


def overlay(cluster: Cluster, name: str, *components: str) -> list[Manifest]:
    """An overlay with more components, and nothing changed but where AWS is."""
    folder = cluster.directory / "overlay"
    folder.mkdir()
    (folder / "aws.pem").write_text(cluster.trusted)
    up = os.path.relpath(FOLDER, folder)
    spec = {"hostAliases": ALIASES, "initContainers": [{"name": "sigward", "env": OURS, "volumeMounts": [MOUNT]}], "volumes": [VOLUME]}
    patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"}, "spec": {"template": {"spec": spec}}}
    kustomization = {
        "resources": [f"{up}/overlays/{name}"],
        "components": [f"{up}/components/{component}" for component in components],
        "configMapGenerator": [{"name": "aws", "files": ["aws.pem"]}],
        "patches": [{"patch": yaml.safe_dump(patch)}],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return kustomized(folder)


def release(cluster: Cluster, name: str) -> list[Manifest]:
    """The chart with one of its own sets of values, likewise."""
    values = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text())
    values |= {"env": OURS, "volumeMounts": [MOUNT], "volumes": [VOLUME]}
    if "app" in values:
        values["app"]["template"]["spec"]["hostAliases"] = ALIASES
    path = cluster.directory / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    aws = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "aws"}, "data": {"aws.pem": cluster.trusted}}
    return [*templated("--values", str(path)), aws]


def shell(pod: KubernetesPod, script: str) -> str:
    """What a script of the app's prints; it must end well."""
    status, told = pod.app("sh", "-c", script)
    assert status == 0, told + pod.logs()
    return told


def assert_calls_are_signed(cluster: Cluster, pod: KubernetesPod) -> None:
    """Unsigned ones of curl's, and those that boto3 signs with dummy keys."""
    before = len(cluster.emulator.requests())
    assert "TableNames" in shell(pod, LIST)
    assert "TableNames" in shell(pod, f"python3 -c '{BOTO3}'")
    found = cluster.arrived(before)
    assert [request.host for request in found[:2]] == [DYNAMODB, DYNAMODB]
    assert [request.host in S3 for request in found[2:]] == [True]
    assert all(request.header("x-amz-security-token") == cluster.keys["SessionToken"] for request in found)


def assert_no_keys(cluster: Cluster, pod: KubernetesPod) -> None:
    """Neither keys nor tokens are in the app's container, nor the CA's key: the same search finds them in sigward's."""
    secrets = "|".join((*(cluster.keys[name] for name in ("SecretAccessKey", "SessionToken")), *TOKENS.values(), "PRIVATE KEY"))
    search = 'env; for file in $(grep -rlE "$0" /var/lib /run /etc 2>/dev/null); do echo "found in $file"; done'
    status, told = pod.app("sh", "-c", search, secrets)
    assert (status, "AWS_ACCESS_KEY_ID=SIGWARDDUMMYKEYID000" in told) == (0, True), told
    assert "found in" not in told
    assert not any(secret in told for secret in secrets.split("|"))
    held = pod.containers["sigward"].exec_run(["sh", "-c", search, secrets]).output.decode()
    assert "found in /var/lib/sigward/ca/" in held
    assert "found in /run/secrets/" in held


def assert_metadata_is_closed(cluster: Cluster, pod: KubernetesPod) -> None:
    """To the app; to sigward's user it is open, so that it is the rules that close it."""
    for question in (METADATA, KEYS):
        status, told = pod.app("sh", "-c", question)
        assert status == REFUSED, told
    user = next(one["securityContext"]["runAsUser"] for one in pod.spec["initContainers"] if one["name"] == "sigward")
    how: dict[str, Any] = {"network_mode": pod.pod.network_mode, "user": str(user)}
    assert cluster.workshop.finish(cluster.images["app"], ["sh", "-c", METADATA], **how) == (0, "the-nodes-role")
    assert cluster.imds.asked == ["GET /latest/meta-data/"]


def assert_unprivileged(pod: KubernetesPod) -> None:
    """sigward has no capability, whatever its pod's init container had."""
    status = pod.containers["sigward"].exec_run(["cat", "/proc/1/status"]).output.decode()
    told = dict(line.split(":", 1) for line in status.splitlines())
    assert [int(told[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0] * 5
    assert told["NoNewPrivs"].strip() == "1"


def test_endpoint_url(cluster: Cluster) -> None:
    pod = cluster.start(overlay(cluster, "endpoint-url", "pod-identity"))
    assert_calls_are_signed(cluster, pod)
    assert_no_keys(cluster, pod)
    assert_unprivileged(pod)
    assert cluster.agent.asked == ["GET /v1/credentials"]
    # Nothing keeps the app from the agent here; without the token it gets nothing.
    assert "Access Denied" in shell(pod, KEYS)
    assert cluster.imds.asked == []


def test_irsa(cluster: Cluster) -> None:
    pod = cluster.start(overlay(cluster, "irsa"))
    assert_calls_are_signed(cluster, pod)
    assert_no_keys(cluster, pod)
    assert cluster.sts.asked == ["POST /"]
    assert (cluster.agent.asked, cluster.imds.asked) == ([], [])


def test_pod_identity(cluster: Cluster) -> None:
    pod = cluster.start(overlay(cluster, "pod-identity"))
    assert_calls_are_signed(cluster, pod)
    assert_no_keys(cluster, pod)
    assert_metadata_is_closed(cluster, pod)
    assert_unprivileged(pod)
    assert cluster.agent.asked == ["GET /v1/credentials"]


def test_https_proxy(cluster: Cluster) -> None:
    pod = cluster.start(overlay(cluster, "https-proxy", "pod-identity"))
    assert_calls_are_signed(cluster, pod)
    assert_no_keys(cluster, pod)
    # Not through sigward either.
    _, told = pod.app("sh", "-c", f"{METADATA} --noproxy '' --proxy \"$HTTPS_PROXY\" --write-out ' %{{http_code}}'")
    assert told.endswith(" 403"), told
    assert cluster.imds.asked == []


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "both families"])
def test_transparent(cluster: Cluster, ipv6: bool) -> None:
    pod = cluster.start(overlay(cluster, "transparent", "pod-identity"), ipv6=ipv6)
    assert_calls_are_signed(cluster, pod)
    assert_no_keys(cluster, pod)
    assert_metadata_is_closed(cluster, pod)
    assert_unprivileged(pod)
    before = len(cluster.emulator.requests())
    assert "TableNames" in shell(pod, f"{CURL} http://{DYNAMODB}/")
    if ipv6:
        for port, scheme in ((443, "https"), (80, "http")):
            assert "TableNames" in shell(pod, f"{CURL} --resolve '{DYNAMODB}:{port}:[{NOWHERE_IPV6}]' {scheme}://{DYNAMODB}/")
    assert len(cluster.arrived(before)) == (3 if ipv6 else 1)


def test_transparent_without_the_rules_reaches_aws_unsigned(cluster: Cluster) -> None:
    """It is they that lead there, and nothing else of the pod."""
    objects = overlay(cluster, "transparent", "pod-identity")
    spec = the(objects, "Deployment")["spec"]["template"]["spec"]
    spec["initContainers"] = [one for one in spec["initContainers"] if one["name"] != "sigward-init"]
    pod = cluster.start(objects)
    before = len(cluster.emulator.requests())
    shell(pod, f"{LIST} --insecure")
    (arrived,) = cluster.emulator.requests(before)
    assert (arrived.status, arrived.scope) == (400, None)


def test_the_rules_are_not_set_without_the_capability(cluster: Cluster) -> None:
    """Then the pod does not start, instead of starting without them."""
    objects = overlay(cluster, "transparent", "pod-identity")
    spec = the(objects, "Deployment")["spec"]["template"]["spec"]
    (init,) = (one for one in spec["initContainers"] if one["name"] == "sigward-init")
    init["securityContext"]["capabilities"] = {"drop": ["ALL"]}
    with pytest.raises(AssertionError, match="CAP_NET_ADMIN"):
        cluster.start(objects)


def test_a_call_under_way_ends_before_the_pod_does(cluster: Cluster) -> None:
    pod = cluster.start(overlay(cluster, "endpoint-url", "pod-identity"))
    name = f"pods-{pod.containers['sigward'].short_id}"
    app = pod.begin("sh", "-c", LIST.replace("curl ", f'curl -H "{HOLD_HEADER}: {name}" ', 1))
    cluster.emulator.wait_held(name)
    stopping = pod.stopping("sigward")
    wait_output(pod.containers["sigward"], "stopping: requests under way")
    cluster.emulator.release(name)
    status, told = cluster.workshop.ended(app)
    stopping.join()
    assert (status, "TableNames" in told) == (0, True), told
    assert pod.containers["sigward"].wait()["StatusCode"] == 0


@pytest.mark.parametrize("values", ["endpoint-url", "https-proxy", "transparent"])
def test_chart(cluster: Cluster, values: str) -> None:
    pod = cluster.start(release(cluster, values))
    before = len(cluster.emulator.requests())
    assert "TableNames" in shell(pod, LIST)
    assert len(cluster.arrived(before)) == 1
    assert_no_keys(cluster, pod)
    assert_unprivileged(pod)
    if values == "endpoint-url":
        assert cluster.sts.asked == ["POST /"]
    else:
        assert_metadata_is_closed(cluster, pod)
        assert cluster.agent.asked == ["GET /v1/credentials"]


def test_chart_standalone(cluster: Cluster) -> None:
    """Other pods reach it at its own address. The role's keys come as they do to a sidecar."""
    objects = release(cluster, "standalone")
    spec = the(objects, "Deployment")["spec"]["template"]["spec"]
    # A Service's client has its cluster's names; here they come this way.
    spec["hostAliases"] = ALIASES
    pod = cluster.start(objects)
    pod.start_probed(container(spec, "sigward"))
    assert_unprivileged(pod)
    before = len(cluster.emulator.requests())
    status, told = cluster.workshop.finish(
        cluster.images["app"], ["sh", "-c", f"{CURL} http://{OWN}:8081/"], network_mode=pod.pod.network_mode, user="10001"
    )
    assert (status, "TableNames" in told) == (0, True), told + pod.logs()
    assert len(cluster.arrived(before)) == 1
