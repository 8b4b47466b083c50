"""deploy/kubernetes/chart: linted, rendered with several sets of values, and refusing what would not work."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubernetes import (
    AGENT,
    CHART,
    CHART_VALUES,
    IMDS,
    VERSIONS,
    assert_enters,
    assert_restricted,
    assert_sound,
    assert_valid,
    chart_values,
    closed,
    container,
    containers,
    helm,
    pod,
    template,
    templated,
    the,
    variables,
)

SIDECARS = [name for name in CHART_VALUES if name != "standalone"]
USERS = {"transparent": 1337}


@pytest.mark.parametrize("values", [None, *CHART_VALUES])
def test_lint(values: str | None) -> None:
    done = helm("lint", "--strict", str(CHART), *(chart_values(values) if values else ()))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", CHART_VALUES)
def test_objects_are_valid(values: str) -> None:
    found = templated(*chart_values(values))
    assert {"ConfigMap", "Deployment", "NetworkPolicy", "ServiceAccount"} <= {manifest["kind"] for manifest in found}
    for manifest in found:
        assert_valid(manifest)


def test_by_itself_it_makes_what_the_named_template_needs() -> None:
    assert sorted(manifest["kind"] for manifest in templated()) == ["ConfigMap", "NetworkPolicy"]


@pytest.mark.parametrize("values", SIDECARS)
def test_pods_are_sound(values: str) -> None:
    spec = pod(templated(*chart_values(values)))
    assert_sound(spec, USERS.get(values, 65532))
    assert_enters(spec, values)


@pytest.mark.parametrize("values", CHART_VALUES)
def test_volumes_and_selectors_lead_to_what_is_there(values: str) -> None:
    found = templated(*chart_values(values))
    deployment, policy = the(found, "Deployment"), the(found, "NetworkPolicy")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (deployment["spec"]["selector"]["matchLabels"], policy["spec"]["podSelector"]["matchLabels"]):
        assert selector.items() <= labels.items()
    spec = pod(found)
    [volume] = [volume for volume in spec["volumes"] if "configMap" in volume]
    assert volume["configMap"]["name"] == the(found, "ConfigMap")["metadata"]["name"]
    assert spec["serviceAccountName"] == the(found, "ServiceAccount")["metadata"]["name"]
    irsa = values == "endpoint-url"
    assert closed(policy) == (IMDS | AGENT if irsa else IMDS)
    skipped = deployment["spec"]["template"]["metadata"]["annotations"]["eks.amazonaws.com/skip-containers"].split(",")
    assert {one["name"] for one in containers(spec)} <= set(skipped)


def test_standalone_is_reached_by_whom_the_policy_names() -> None:
    found = templated(*chart_values("standalone"))
    spec = pod(found)
    assert_restricted(spec)
    sigward = container(spec, "sigward")
    assert "restartPolicy" not in sigward
    told = variables(sigward)
    assert told["SIGWARD_REVERSE"] == "0.0.0.0:8081=https://dynamodb.us-east-1.amazonaws.com"
    assert told["SIGWARD_LISTEN"] == "off"
    service, policy = the(found, "Service")["spec"], the(found, "NetworkPolicy")["spec"]
    labels = the(found, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert [port["port"] for port in service["ports"]] == [8081]
    assert {port["targetPort"] for port in service["ports"]} == {port["name"] for port in sigward["ports"]}
    [ingress] = policy["ingress"]
    assert ingress["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "app"}}}]
    assert ingress["ports"] == [{"protocol": "TCP", "port": 8081}]


def test_standalone_with_a_certificate() -> None:
    found = templated(*chart_values("standalone"), "--set", "standalone.tlsSecret=tls")
    for manifest in found:
        assert_valid(manifest)
    sigward = container(pod(found), "sigward")
    [mount] = [mount for mount in sigward["volumeMounts"] if mount["name"] == "sigward-tls"]
    assert variables(sigward)["SIGWARD_TLS__KEY"] == f"{mount['mountPath']}/tls.key"


def test_changed_settings_start_new_pods() -> None:
    def annotations(config: str) -> dict[str, str]:
        found = templated(*chart_values("endpoint-url"), "--set-string", f"config={config}")
        told: dict[str, str] = the(found, "Deployment")["spec"]["template"]["metadata"]["annotations"]
        return told

    assert annotations("threads = 1") == annotations("threads = 1") != annotations("threads = 2")


REFUSED = {
    "an unknown key": (["--set", "sidecar=true"], "sidecar"),
    "an unknown key below": (["--set", "image.name=x"], "name"),
    "an unknown entry": (["--set", "entry=socks"], "/entry"),
    "IRSA without a role": (["--set", "credentials.source=irsa"], "roleArn"),
    "a role that is none": (["--set", "credentials.source=irsa,credentials.roleArn=app"], "roleArn"),
    "an agent elsewhere": (["--set", "credentials.agent=http://10.0.0.1/"], "agent"),
    "a port that needs root": (["--set", "proxy.port=80"], "/proxy/port"),
    "a port that is a word": (["--set", "transparent.port=http"], "/transparent/port"),
    "more ports than a rule takes": (["--set-json", f"transparent.ports={list(range(1, 17))}"], "/transparent/ports"),
    "no endpoint": (["--set-json", "endpoints=[]"], "/endpoints"),
    "an endpoint that is no URL": (["--set", "endpoints[0].port=8081,endpoints[0].upstream=dynamodb"], "/endpoints/0/upstream"),
    "root": (["--set", "uid=0"], "/uid"),
    "no region": (["--set", "region=Frankfurt"], "/region"),
    "no memory limit": (["--set-json", "resources.limits={}", "--set", "resources.limits.memory=null"], "resources"),
    "an app without a spec": (["--set", "app.enabled=true"], "/app/template"),
    "standalone for everybody": (["--set", "mode=standalone"], "/standalone/from"),
    "standalone without a policy": ([*chart_values("standalone"), "--set", "networkPolicy.enabled=false"], "/networkPolicy/enabled"),
    "standalone as a proxy": ([*chart_values("standalone"), "--set", "entry=https-proxy"], "/entry"),
    "a grace that does not fit": ([*chart_values("endpoint-url"), "--set", "grace=45"], "terminationGracePeriodSeconds"),
    "the app as sigward's user": ([*chart_values("endpoint-url"), "--set", "uid=10001"], "which is sigward's"),
    "the app as nobody in particular": (
        [*chart_values("transparent"), "--set-json", 'app.template.spec.containers=[{"name": "app", "image": "app"}]'],
        "set securityContext.runAsUser",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_not_work_is_refused(case: str) -> None:
    arguments, named = REFUSED[case]
    done = template(CHART, *arguments)
    assert done.returncode != 0, done.stdout
    assert named in (done.stderr.replace(".", "/") if named.startswith("/") else done.stderr)


def test_an_older_cluster_is_refused() -> None:
    done = template(CHART, version="1.28.9")
    assert done.returncode != 0
    assert "1.29" in done.stderr
    for version in VERSIONS:
        assert template(CHART, version=f"{version}.1").returncode == 0


TEMPLATE = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: theirs
spec:
  selector:
    matchLabels: {app: theirs}
  template:
    {{- $template := fromYaml (include "theirs.template" .) }}
    {{- include "sigward.inject" (dict "sigward" .Subcharts.sigward "template" $template) | nindent 4 }}
"""

POD: dict[str, Any] = {
    "metadata": {"labels": {"app": "theirs"}, "annotations": {"theirs": "yes"}},
    "spec": {
        "terminationGracePeriodSeconds": 90,
        "initContainers": [{"name": "migrate", "image": "theirs"}],
        "containers": [
            {"name": "theirs", "image": "theirs", "env": [{"name": "AWS_REGION", "value": "eu-west-1"}]},
            {"name": "helper", "image": "helper"},
        ],
        "volumes": [{"name": "theirs", "emptyDir": {}}],
    },
}


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A chart of somebody else's, that depends on this one."""
    chart = tmp_path / "theirs"
    (chart / "templates").mkdir(parents=True)
    (chart / "charts").mkdir()
    (chart / "charts" / "sigward").symlink_to(CHART)
    dependency = {"name": "sigward", "version": "0.1.0"}
    (chart / "Chart.yaml").write_text(json.dumps({"apiVersion": "v2", "name": "theirs", "version": "1.0.0", "dependencies": [dependency]}))
    (chart / "values.yaml").write_text(json.dumps({"sigward": {"entry": "https-proxy"}}))
    (chart / "templates" / "_pod.tpl").write_text('{{ define "theirs.template" }}\n' + yaml.safe_dump(POD) + "{{ end }}\n")
    (chart / "templates" / "deployment.yaml").write_text(TEMPLATE)
    return chart


def test_another_chart_injects_the_sidecar(theirs: Path) -> None:
    found = templated(chart=theirs)
    for manifest in found:
        assert_valid(manifest)
    template = the(found, "Deployment")["spec"]["template"]
    spec = template["spec"]
    assert [one["name"] for one in containers(spec)] == ["sigward", "migrate", "theirs", "helper"]
    for one in ("migrate", "theirs", "helper"):
        assert variables(container(spec, one))["HTTPS_PROXY"] == "http://127.0.0.1:8080"
        assert [mount["name"] for mount in container(spec, one)["volumeMounts"]] == ["sigward-trust"]
    # What is theirs stays.
    assert variables(container(spec, "theirs"))["AWS_REGION"] == "eu-west-1"
    assert spec["terminationGracePeriodSeconds"] == 90
    assert "theirs" in {volume["name"] for volume in spec["volumes"]}
    assert template["metadata"]["annotations"]["theirs"] == "yes"
    assert template["metadata"]["labels"]["app"] == "theirs"
    assert the(found, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_its_values_are_checked_in_another_chart_too(theirs: Path) -> None:
    done = template(theirs, "--set", "sigward.entry=socks")
    assert done.returncode != 0
    assert "entry" in done.stderr
