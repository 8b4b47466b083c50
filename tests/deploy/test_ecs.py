"""deploy/ecs: each task definition run by Docker as a task, with a task role as ECS gives it, before an emulator that checks signatures."""

import json
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from sigward.demo.child import cleaned
from sigward.demo.emulator import Emulator
from sigward.settings import Settings
from tests.deploy import sidecar
from tests.deploy.conftest import ROOT, Images
from tests.deploy.ecs import Agent, Task
from tests.deploy.engine import Workshop
from tests.support import SECRETS

pytestmark = pytest.mark.deploy

ECS = ROOT / "deploy" / "ecs"
DEFINITIONS = sorted(ECS.glob("*.json"))

ROLE = "app-with-sigward-task"
# Not ecs-tasks.amazonaws.com, as on AWS: moto knows no services.
ANYBODY = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}
TRUST = {"Version": "2012-10-17", "Statement": [ANYBODY]}
RIGHTS = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}

PYTHON = """
import boto3, json, os, pathlib
calls = {
    "sts": lambda client: client.get_caller_identity()["Arn"],
    "dynamodb": lambda client: client.list_tables()["TableNames"],
    "s3": lambda client: len(client.list_buckets()["Buckets"]),
    "sqs": lambda client: client.list_queues().get("QueueUrls", []),
}
told = {service: call(boto3.client(service)) for service, call in calls.items()}
trust = pathlib.Path("/var/lib/sigward-trust")
told["keys"] = [str(file) for file in trust.glob("**/*") if file.is_file() and b"PRIVATE KEY" in file.read_bytes()]
told["may change trust"] = os.access(trust, os.W_OK)
told["signs as"] = boto3.Session().get_credentials().access_key
print(json.dumps(told))
"""
APP = f"""set -eu
curl --silent --show-error --fail-with-body --data 'Action=GetCallerIdentity&Version=2011-06-15' \
    "${{AWS_ENDPOINT_URL_STS:-https://sts.us-east-1.amazonaws.com}}"
echo
exec python3 -c {shlex.quote(PYTHON)}
"""
"""Five calls: curl's, unsigned, and four that boto3 signs with the keys that it finds."""


@pytest.fixture(scope="module")
def task_role(emulator: Emulator) -> dict[str, str]:
    """Temporary credentials of the task role, as ECS's agent words them."""
    with cleaned():
        session = botocore.session.Session()
        session.set_credentials(emulator.access_key_id, emulator.secret_access_key)
        url = f"https://localhost:{emulator.port}"
        place: dict[str, Any] = {"region_name": emulator.region, "endpoint_url": url, "verify": str(emulator.ca_file)}
        iam: Any = session.create_client("iam", **place)
        role = iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]
        iam.put_role_policy(RoleName=ROLE, PolicyName="everything", PolicyDocument=json.dumps(RIGHTS))
        sts: Any = session.create_client("sts", **place)
        keys = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="task")["Credentials"]
    SECRETS.append(re.compile(re.escape(keys["SecretAccessKey"]) + "|" + re.escape(keys["SessionToken"])))
    return {
        "RoleArn": role["Arn"],
        "AccessKeyId": keys["AccessKeyId"],
        "SecretAccessKey": keys["SecretAccessKey"],
        "Token": keys["SessionToken"],
        "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600)),
    }


Start = Callable[[dict[str, Any], str], Task]


@pytest.fixture
def start(workshop: Workshop, images: Images, emulator: Emulator, task_role: dict[str, str], tmp_path: Path) -> Start:
    """Starts a definition with a script for its app. What sigward gets beyond its definition: where AWS is."""

    def started(definition: dict[str, Any], script: str) -> Task:
        pod = workshop.pod(images.client)
        pod.lead("127.0.0.1", sidecar.AWS_PORT, emulator.port)
        aws = sidecar.settings(emulator, tmp_path, sidecar.AWS)
        more: dict[str, dict[str, Any]] = {
            "sigward": {"environment": {"SIGWARD_CONFIG": "/etc/sigward/sigward.toml"}, "volumes": aws},
            "app": {"command": ["sh", "-c", script]},
        }
        task = Task(workshop, pod, definition, {"sigward": images.sigward, "app": images.client}, Agent(task_role), more)
        task.start()
        return task

    return started


def needs_trust_dir(definition: dict[str, Any]) -> None:
    """Skips what cannot be served yet."""
    if "SIGWARD_TRUST_DIR" in json.dumps(definition) and "trust_dir" not in Settings.model_fields:
        pytest.skip("there is no setting trust_dir yet")


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: file.stem)
def test_the_apps_calls_are_signed_with_the_task_role(
    file: Path, start: Start, workshop: Workshop, emulator: Emulator, task_role: dict[str, str]
) -> None:
    definition = json.loads(file.read_text())
    needs_trust_dir(definition)
    before = len(emulator.requests())
    task = start(definition, APP)
    status, told = workshop.ended(task.containers["app"])
    assert status == 0, told
    answer, _, result = told.strip().rpartition("\n")
    assert f"assumed-role/{ROLE}/task" in answer
    found = json.loads(result)
    assert found["sts"].endswith(f"assumed-role/{ROLE}/task")
    assert (found["keys"], found["may change trust"], found["signs as"]) == ([], False, "SIGWARDDUMMYKEYID000")
    arrived = emulator.requests(before)
    assert [one.status for one in arrived] == [200] * 5
    assert {one.scope[0] for one in arrived if one.scope} == {task_role["AccessKeyId"]}
    assert all(one.header("x-amz-security-token") for one in arrived)
    assert task.agent.asked == 1
    assert task.stop("sigward") == 0
