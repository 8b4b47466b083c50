"""deploy/ecs without an engine: against botocore's model, in moto, and by the rules that a sidecar has to keep.

The template and the module are held equal to the definitions that `test_ecs.py` runs.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import hcl2
import pytest
from botocore.validate import ParamValidator
from cfnlint import api as cfn_lint
from cfnlint import core as cfn_core
from moto import mock_aws

from sigward.cli.command import Serve, read
from sigward.demo.child import clean_environment
from tests.needs import need
from tests.shell import Shell

ROOT = Path(__file__).resolve().parents[2]
ECS = ROOT / "deploy" / "ecs"
TEMPLATE = ECS / "cloudformation.yaml"
MODULE = ECS / "terraform"
DEFINITIONS = sorted(ECS.glob("*.json"))
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/{}"
LOGS = "/ecs/app-with-sigward"
ACCOUNT_KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}

FARGATE_HAS_NONE = {"dockerSecurityOptions", "links", "extraHosts", "hostname", "privileged", "systemControls", "resourceRequirements"}
"""See "Amazon ECS task definition differences for Fargate" in the Amazon ECS Developer Guide."""


@pytest.fixture(params=DEFINITIONS, ids=lambda file: file.stem)
def definition(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each task definition."""
    told: dict[str, Any] = json.loads(request.param.read_text())
    return told


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """For moto, which looks at none."""
    for name, value in ACCOUNT_KEYS.items():
        monkeypatch.setenv(name, value)


def container(definition: dict[str, Any], name: str) -> dict[str, Any]:
    """One of its containers."""
    (found,) = (one for one in definition["containerDefinitions"] if one["name"] == name)
    told: dict[str, Any] = found
    return told


def environment(container: dict[str, Any]) -> dict[str, str]:
    """Its variables."""
    return {entry["name"]: entry["value"] for entry in container["environment"]}


def test_there_is_one_for_each_kind_of_host_and_each_way() -> None:
    assert [file.stem for file in DEFINITIONS] == [
        f"{kind}-{way}" for kind in ("ec2", "fargate") for way in ("endpoint-url", "https-proxy")
    ]


def test_it_is_what_register_task_definition_takes(definition: dict[str, Any]) -> None:
    model = botocore.session.Session().get_service_model("ecs").operation_model("RegisterTaskDefinition")
    report = ParamValidator().validate(definition, model.input_shape)
    assert not report.has_errors(), report.generate_report()


def test_moto_registers_it(definition: dict[str, Any], keys: None) -> None:
    with mock_aws():
        ecs = boto3.client("ecs", region_name="us-east-1")
        arn = ecs.register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]
        told = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
    for expected in definition["containerDefinitions"]:
        assert expected.items() <= container(told, expected["name"]).items()
    assert told["taskRoleArn"] == definition["taskRoleArn"]


def test_sigward_has_no_right_that_it_does_not_need(definition: dict[str, Any]) -> None:
    sigward = container(definition, "sigward")
    assert sigward["user"] == "65532:65532"
    assert sigward["readonlyRootFilesystem"] is True
    assert sigward["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
    if definition["requiresCompatibilities"] == ["EC2"]:
        assert sigward["dockerSecurityOptions"] == ["no-new-privileges"]
    assert not sigward.get("portMappings"), "it listens on the task's own loopback"


def test_the_task_lives_and_ends_with_sigward(definition: dict[str, Any]) -> None:
    sigward, app = container(definition, "sigward"), container(definition, "app")
    assert sigward["essential"] is app["essential"] is True
    assert sigward["healthCheck"]["command"] == ["CMD", "sigward", "healthcheck"]
    assert app["dependsOn"] == [{"containerName": "sigward", "condition": "HEALTHY"}]
    assert definition["networkMode"] == "awsvpc"
    assert {one["logConfiguration"]["logDriver"] for one in (sigward, app)} == {"awslogs"}
    assert definition["taskRoleArn"] != definition["executionRoleArn"]
    assert (ROOT / sigward["dockerLabels"]["sigward.test"]).is_file()


def test_its_settings_hold_and_its_grace_fits(definition: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sigward = container(definition, "sigward")
    for name, value in environment(sigward).items():
        monkeypatch.setenv(name, value)
    settings = read(Serve, "sigward serve", [])
    assert settings.grace < sigward["stopTimeout"] <= 120
    listeners = {listen for listen, _ in settings.reverse_listeners()} | ({settings.listen} - {"off"})
    told = {value.removeprefix("http://") for value in environment(container(definition, "app")).values() if value.startswith("http://")}
    assert told == listeners


def test_the_app_gets_no_key_of_anybodys(definition: dict[str, Any]) -> None:
    app = container(definition, "app")
    variables = environment(app)
    assert variables["AWS_ACCESS_KEY_ID"] == "SIGWARDDUMMYKEYID000"
    assert "no-secret" in variables["AWS_SECRET_ACCESS_KEY"]
    assert "secrets" not in app
    assert {mount["containerPath"] for mount in app.get("mountPoints", []) if not mount["readOnly"]} == set()
    assert "/var/lib/sigward" not in {mount["containerPath"] for mount in app.get("mountPoints", [])}
    if "HTTPS_PROXY" in variables:
        assert {"169.254.170.2", "169.254.169.254"} <= set(variables["NO_PROXY"].split(","))


@pytest.mark.parametrize("kind", ["ec2", "fargate"])
def test_by_proxy_the_app_has_the_variables_that_sigward_env_prints(kind: str, tmp_path: Path) -> None:
    sigward = Shell(tmp_path)
    sigward.environment["AWS_REGION"] = "us-east-1"
    ran = sigward("env", "--proxy", "http://127.0.0.1:8080", "--trust-dir", "/var/lib/sigward-trust", "--shell", "docker")
    assert ran.status == 0, ran.err
    definition = json.loads((ECS / f"{kind}-https-proxy.json").read_text())
    assert environment(container(definition, "app")) == dict(line.split("=", 1) for line in ran.out.splitlines())


def test_fargate_takes_it(definition: dict[str, Any]) -> None:
    if definition["requiresCompatibilities"] != ["FARGATE"]:
        assert all("memory" in one for one in definition["containerDefinitions"]), "EC2 needs a limit for each container"
        return
    assert (definition["cpu"], definition["memory"]) == ("256", "512")
    for one in definition["containerDefinitions"]:
        assert not FARGATE_HAS_NONE & set(one)
        assert "tmpfs" not in one.get("linuxParameters", {})
    assert all(set(volume) == {"name"} for volume in definition["volumes"])


def test_cloudformation_finds_nothing_wrong() -> None:
    problems = cfn_lint.lint_file(TEMPLATE, config=cfn_lint.ManualArgs(regions=["us-east-1"]))
    assert [str(problem) for problem in problems] == []


def test_cfn_lint_would_find_something() -> None:
    text = TEMPLATE.read_text().replace("Essential: true", "Essential: perhaps", 1)
    assert cfn_lint.lint(text, cfn_core.get_rules([], [], []), ["us-east-1"])


@pytest.mark.parametrize("way", ["endpoint-url", "https-proxy"])
def test_the_template_makes_the_definition_that_is_run(way: str, keys: None) -> None:
    expected = json.loads((ECS / f"fargate-{way}.json").read_text())
    parameters = {"AppImage": IMAGE.format("app:1"), "SigwardImage": IMAGE.format("sigward:0.1.0"), "Way": way, "TaskPolicyArns": ""}
    with mock_aws():
        boto3.client("cloudformation", region_name="us-east-1").create_stack(
            StackName="test",
            TemplateBody=TEMPLATE.read_text(),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
        ecs = boto3.client("ecs", region_name="us-east-1")
        (arn,) = ecs.list_task_definitions()["taskDefinitionArns"]
        told = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
    for name in ("sigward", "app"):
        assert_same(container(told, name), container(expected, name))
    assert [volume["name"] for volume in told["volumes"]] == [volume["name"] for volume in expected["volumes"]]


def terraform() -> str:
    """OpenTofu or Terraform: on PATH, or as `make build/tofu/bin/tofu` builds it."""
    return need("tofu")


def test_the_modules_variables_and_outputs_say_what_they_are() -> None:
    told = {file.stem: hcl2.loads(file.read_text()) for file in MODULE.glob("*.tf")}
    entries = [entry for kind, name in (("variables", "variable"), ("outputs", "output")) for entry in told[kind][name]]
    assert len(entries) > 10
    for entry in entries:
        ((name, block),) = entry.items()
        assert block["description"], name


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: file.stem)
def test_the_terraform_module_makes_the_definition_that_is_run(file: Path, tmp_path: Path) -> None:
    program, expected = terraform(), json.loads(file.read_text())
    kind, _, way = file.stem.partition("-")
    place = tmp_path / "module"
    shutil.copytree(MODULE, place)
    variables = {"image": IMAGE.format("sigward:0.1.0"), "region": "us-east-1", "log_group": LOGS, "way": way, "launch_type": kind.upper()}

    def run(*command: str) -> str:
        nothing = {"TF_CLI_CONFIG_FILE": os.devnull, "TF_IN_AUTOMATION": "1"}
        ran = subprocess.run([program, *command], cwd=place, env=clean_environment() | nothing, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    run("fmt", "-check", "-diff")
    run("init", "-backend=false", "-input=false")
    assert json.loads(run("validate", "-json"))["diagnostics"] == []
    run("apply", "-auto-approve", "-input=false", *(f"-var={name}={value}" for name, value in variables.items()))
    told = {name: output["value"] for name, output in json.loads(run("output", "-json")).items()}
    app = container(expected, "app")
    assert_same(told["container"], container(expected, "sigward"))
    assert_same(
        {"environment": told["app_environment"], "dependsOn": told["app_depends_on"], "mountPoints": told["app_mount_points"]},
        {"mountPoints": []} | {key: app[key] for key in ("environment", "dependsOn", "mountPoints") if key in app},
    )
    assert told["volumes"] == [volume["name"] for volume in expected["volumes"]]


def assert_same(told: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same container; variables in whatever order, numbers as text or not, and what moto adds by itself left out."""

    def plain(found: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in found.items() if value not in ([], {}) and (key != "cpu" or value)}
        return json.loads(json.dumps(kept), parse_int=str) | {"environment": environment(found)}

    assert plain(told) == plain(expected)
