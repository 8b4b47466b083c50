"""deploy/kubernetes: what kustomize renders is valid for several versions of Kubernetes, and says what it should."""

import copy
import os
import re
from pathlib import Path

import pytest

from sigward.environ import DUMMY
from tests.conftest import ROOT
from tests.kubernetes import (
    AGENT,
    FOLDER,
    IMDS,
    OVERLAYS,
    assert_enters,
    assert_sound,
    assert_valid,
    closed,
    container,
    containers,
    kustomized,
    pod,
    run,
    the,
    variables,
)
from tests.needs import need

ENTRIES = {"irsa": "endpoint-url", "pod-identity": "endpoint-url"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_objects_are_valid(overlay: str) -> None:
    found = kustomized(FOLDER / "overlays" / overlay)
    assert sorted(manifest["kind"] for manifest in found) == ["ConfigMap", "Deployment", "NetworkPolicy", "ServiceAccount"]
    for manifest in found:
        assert_valid(manifest)


def test_a_field_that_kubernetes_does_not_know_is_an_error() -> None:
    """The check itself."""
    found = the(kustomized(FOLDER / "overlays" / "endpoint-url"), "Deployment")
    for change in ({"restartPolcy": "Always"}, {"restartPolicy": 1}, {"securityContext": {"runAsUsr": 1}}):
        wrong = copy.deepcopy(found)
        wrong["spec"]["template"]["spec"]["initContainers"][0].update(change)
        with pytest.raises(AssertionError, match=r"Kubernetes 1\.29"):
            assert_valid(wrong)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_sound(overlay: str) -> None:
    spec = pod(kustomized(FOLDER / "overlays" / overlay))
    assert_sound(spec)
    assert_enters(spec, ENTRIES.get(overlay, overlay))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_app_has_no_keys(overlay: str) -> None:
    told = variables(container(pod(kustomized(FOLDER / "overlays" / overlay)), "app"))
    assert (told["AWS_ACCESS_KEY_ID"], told["AWS_SECRET_ACCESS_KEY"]) == (DUMMY.access_key_id, DUMMY.secret_access_key)
    assert not {"AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} & told.keys()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ekss_webhook_gives_nobody_a_token(overlay: str) -> None:
    template = the(kustomized(FOLDER / "overlays" / overlay), "Deployment")["spec"]["template"]
    skipped = template["metadata"]["annotations"]["eks.amazonaws.com/skip-containers"].split(",")
    assert {one["name"] for one in containers(template["spec"])} <= set(skipped)


@pytest.mark.parametrize(
    ("overlay", "audience", "variable"),
    [
        ("irsa", "sts.amazonaws.com", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        ("pod-identity", "pods.eks.amazonaws.com", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
    ],
)
def test_tokens_lie_where_sigward_looks(overlay: str, audience: str, variable: str) -> None:
    spec = pod(kustomized(FOLDER / "overlays" / overlay))
    sigward = container(spec, "sigward")
    [volume] = [volume for volume in spec["volumes"] if volume["name"] == "sigward-token"]
    [source] = volume["projected"]["sources"]
    [mount] = [mount for mount in sigward["volumeMounts"] if mount["name"] == "sigward-token"]
    assert source["serviceAccountToken"]["audience"] == audience
    assert variables(sigward)[variable] == f"{mount['mountPath']}/{source['serviceAccountToken']['path']}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_network_policy_closes_imds_and_leaves_sigwards_sources_open(overlay: str) -> None:
    found = kustomized(FOLDER / "overlays" / overlay)
    policy = the(found, "NetworkPolicy")
    labels = the(found, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert closed(policy) == (IMDS | AGENT if overlay == "irsa" else IMDS)


def test_components_can_be_added_to_an_overlay(tmp_path: Path) -> None:
    """As the overlays' comments say."""
    overlays = os.path.relpath(FOLDER, tmp_path)
    for source in ("irsa", "pod-identity"):
        for entry in ("endpoint-url", "https-proxy", "transparent"):
            folder = tmp_path / source / entry
            folder.mkdir(parents=True)
            up = f"../../{overlays}"
            (folder / "kustomization.yaml").write_text(f"resources: [{up}/overlays/{entry}]\ncomponents: [{up}/components/{source}]\n")
            found = kustomized(folder)
            assert_sound(pod(found))
            assert_enters(pod(found), entry)
            assert "sigward-token" in {volume["name"] for volume in pod(found)["volumes"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_renders_the_same(overlay: str) -> None:
    """Its kustomize knows components from kubectl 1.21 on; Debian 12's is older."""
    kubectl = need("kubectl")
    told = run(kubectl, "version", "--client", "--output=yaml").stdout
    version = re.search(r"gitVersion: v1\.(\d+)", told)
    if version is None or int(version[1]) < 25:
        pytest.skip("kubectl >= 1.25 is missing: Debian's is older")
    import yaml

    done = run(kubectl, "kustomize", str(FOLDER / "overlays" / overlay))
    assert done.returncode == 0, done.stderr
    assert [one for one in yaml.safe_load_all(done.stdout) if one] == kustomized(FOLDER / "overlays" / overlay)


def manifests() -> list[Path]:
    """All files of deploy/kubernetes that are applied or built."""
    found = [path for path in FOLDER.rglob("*") if path.suffix in (".yaml", ".toml") or path.name in ("Dockerfile", "sigward-init")]
    return sorted(found)


@pytest.mark.parametrize("path", manifests(), ids=lambda path: str(path.relative_to(FOLDER)))
def test_each_file_names_the_test_that_runs_it(path: Path) -> None:
    """A test that is there."""
    head = "\n".join(path.read_text().splitlines()[:24])
    named = re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", head)
    assert named, "it names none"
    for file, function in named:
        source = (ROOT / file).read_text()
        assert not function or f"def {function}(" in source, f"{file} has no {function}"
