"""deploy/ecs: each task definition run by Docker as a task, with a task role as ECS gives it, before an emulator that checks signatures."""

import json
import re
import shlex
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from sigward.demo.child import cleaned
from sigward.demo.emulator import Emulator
from sigward.demo.emulator_server import HOLD_HEADER
from tests.deploy import sidecar
from tests.deploy.conftest import ROOT, Images
from tests.deploy.ecs import Agent, Task
from tests.deploy.engine import Workshop, wait_output
from tests.support import SECRETS

pytestmark = pytest.mark.deploy

ECS = ROOT / "deploy" / "ecs"
DEFINITIONS = sorted(ECS.glob("*.json"))

ROLE = "app-with-sigward-task"
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


def allow(*actions: str, resource: str = "*") -> str:
    """A policy."""
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": resource}]})


def trusting(**conditions: Any) -> str:
    """A role's trust policy. Not ecs-tasks.amazonaws.com is trusted, as on AWS: moto knows no services."""
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement | ({"Condition": conditions} if conditions else {})]})


@dataclass
class Account:
    """The emulator's IAM and STS."""

    emulator: Emulator

    def client(self, service: str) -> Any:
        """With the rights of the emulator's user."""
        session = botocore.session.Session()
        session.set_credentials(self.emulator.access_key_id, self.emulator.secret_access_key)
        url = f"https://localhost:{self.emulator.port}"
        return session.create_client(service, region_name=self.emulator.region, endpoint_url=url, verify=str(self.emulator.ca_file))

    def role(self, name: str, rights: str, trust: str) -> str:
        """Makes a role; returns its ARN."""
        with cleaned():
            iam = self.client("iam")
            arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
            iam.put_role_policy(RoleName=name, PolicyName="rights", PolicyDocument=rights)
            return arn

    def task_credentials(self, role: str) -> dict[str, str]:
        """Temporary credentials of a role, as ECS's agent words them."""
        with cleaned():
            keys = self.client("sts").assume_role(RoleArn=role, RoleSessionName="task")["Credentials"]
        SECRETS.append(re.compile(re.escape(keys["SecretAccessKey"]) + "|" + re.escape(keys["SessionToken"])))
        return {
            "RoleArn": role,
            "AccessKeyId": keys["AccessKeyId"],
            "SecretAccessKey": keys["SecretAccessKey"],
            "Token": keys["SessionToken"],
            "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600)),
        }


@pytest.fixture(scope="module")
def account(emulator: Emulator) -> Account:
    """Roles can be made in it."""
    return Account(emulator)


@pytest.fixture(scope="module")
def task_role(account: Account) -> dict[str, str]:
    """Credentials of a task role that may do everything."""
    return account.task_credentials(account.role(ROLE, allow("*"), trusting()))


@dataclass
class Starter:
    """Starts a definition with a script for its app. What sigward gets beyond its definition: where AWS is. `app`: what the app gets."""

    workshop: Workshop
    images: Images
    emulator: Emulator
    directory: Path
    app: dict[str, Any] = field(default_factory=dict)

    def __call__(self, definition: dict[str, Any], script: str, role: dict[str, str], secrets: dict[str, str] | None = None) -> Task:
        pod = self.workshop.pod(self.images.client)
        pod.lead("127.0.0.1", sidecar.AWS_PORT, self.emulator.port)
        aws = {
            "SIGWARD_CONFIG": "/etc/sigward/sigward.toml",
            # For its own calls to STS.
            "AWS_ENDPOINT_URL_STS": f"https://localhost:{sidecar.AWS_PORT}",
            "AWS_CA_BUNDLE": "/etc/sigward/aws.pem",
        }
        more: dict[str, dict[str, Any]] = {
            "sigward": {"environment": aws, "volumes": sidecar.settings(self.emulator, self.directory, sidecar.AWS)},
            "app": self.app | {"command": ["sh", "-c", script]},
        }
        images = {"sigward": self.images.sigward, "app": self.images.client}
        task = Task(self.workshop, pod, definition, images, Agent(role), more, secrets or {})
        task.start()
        return task


@pytest.fixture
def start(workshop: Workshop, images: Images, emulator: Emulator, tmp_path: Path) -> Starter:
    """Starts a task."""
    return Starter(workshop, images, emulator, tmp_path)


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: file.stem)
def test_the_apps_calls_are_signed_with_the_task_role(
    file: Path, start: Starter, workshop: Workshop, emulator: Emulator, task_role: dict[str, str]
) -> None:
    definition = json.loads(file.read_text())
    before = len(emulator.requests())
    task = start(definition, APP, task_role)
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


HELD = f"""exec curl --silent --show-error --fail-with-body --header '{HOLD_HEADER}: NAME' \\
    --data 'Action=GetCallerIdentity&Version=2011-06-15' "$AWS_ENDPOINT_URL_STS"
"""


def test_a_task_that_stops_ends_what_is_under_way(
    start: Starter, workshop: Workshop, emulator: Emulator, task_role: dict[str, str], request: pytest.FixtureRequest
) -> None:
    definition = json.loads((ECS / "fargate-endpoint-url.json").read_text())
    task = start(definition, HELD.replace("NAME", request.node.name), task_role)
    emulator.wait_held(request.node.name)
    status: list[int] = []
    # Had the app asked for no more, ECS would stop sigward while an answer is under way.
    stopping = threading.Thread(target=lambda: status.append(task.stop("sigward")))
    stopping.start()
    wait_output(task.containers["sigward"], "stopping: requests under way have 20 s")
    emulator.release(request.node.name)
    ended, told = workshop.ended(task.containers["app"])
    stopping.join()
    assert (ended, status) == (0, [0]), told


THIEF = """
import boto3, json, os, urllib.request
from botocore.exceptions import ClientError
role = json.load(urllib.request.urlopen("http://169.254.170.2" + os.environ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]))
stolen = dict(aws_access_key_id=role["AccessKeyId"], aws_secret_access_key=role["SecretAccessKey"], aws_session_token=role["Token"])
del os.environ["AWS_ENDPOINT_URL_DYNAMODB"], os.environ["AWS_ENDPOINT_URL_STS"]
AWS = dict(endpoint_url="https://localhost:8443", verify="/aws.pem")

def attempt(call, **arguments):
    try:
        return str(call(**arguments))
    except ClientError as error:
        return error.response["Error"]["Code"]

sts = boto3.client("sts", **stolen, **AWS)
print(json.dumps({
    "uses the role": attempt(boto3.client("dynamodb", **stolen, **AWS).list_tables),
    "takes the other": attempt(sts.assume_role, RoleArn="SIGNING", RoleSessionName="thief", ExternalId="a guess"),
    "asks sigward": boto3.client("dynamodb", endpoint_url="http://127.0.0.1:8081").list_tables()["TableNames"],
    "sigward is": boto3.client("sts", endpoint_url="http://127.0.0.1:8084").get_caller_identity()["Arn"],
}))
"""


def test_an_app_that_fetches_the_task_role_can_do_nothing_with_it(
    start: Starter, workshop: Workshop, emulator: Emulator, account: Account
) -> None:
    """As deploy/ecs/README.md has it: "Who has which keys"."""
    known_to_sigward, arn = "an-id-that-the-app-does-not-know", "arn:aws:secretsmanager:us-east-1:123456789012:secret:sigward"
    SECRETS.append(re.compile(known_to_sigward))
    signing = account.role("signing", allow("*"), trusting(StringEquals={"sts:ExternalId": known_to_sigward}))
    task_role = account.task_credentials(account.role("task", allow("sts:AssumeRole"), trusting()))
    definition = json.loads((ECS / "fargate-endpoint-url.json").read_text())
    definition["containerDefinitions"][0]["secrets"] = [{"name": "SIGWARD_IDENTITIES", "valueFrom": arn}]
    secret = json.dumps({"default": {"role_arn": signing, "external_id": known_to_sigward}})
    script = f"python3 -c {shlex.quote(THIEF.replace('SIGNING', signing))}"
    start.app = {"volumes": {str(emulator.ca_file): {"bind": "/aws.pem", "mode": "ro"}}}
    task = start(definition, script, task_role, {arn: secret})
    status, told = workshop.ended(task.containers["app"])
    assert status == 0, told
    found = json.loads(told)
    assert found["uses the role"] == found["takes the other"] == "AccessDenied", found
    assert found["asks sigward"] == []
    assert ":assumed-role/signing/" in found["sigward is"]
