"""`sigward actions` and `sigward knowledge`: from the shell, and their tables against AWS's own managed policies."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
from botocore import __version__ as botocore_version

from sigward import _core
from sigward.knowledge.__main__ import SHIPPED
from sigward.knowledge.actions import EXCEPTIONS, FURTHER, PREFIXES, actions, reverse
from sigward.knowledge.models import services
from tests.conftest import ROOT
from tests.shell import Shell


@cache
def granted() -> frozenset[str]:
    """Actions that AWS's managed policies name, as moto keeps them; in lower case."""
    from moto.iam import aws_managed_policies

    data = aws_managed_policies.aws_managed_policies_data
    text = data if isinstance(data, str) else json.dumps(data)
    found = frozenset(action.lower() for action in re.findall(r'"([a-z0-9-]+:[A-Za-z0-9*]+)"', text))
    assert len(found) > 10_000
    return found


@pytest.mark.parametrize("action", sorted({action for names in EXCEPTIONS.values() for action in names} | FURTHER.keys()))
def test_each_exception_is_an_action_of_awss(action: str) -> None:
    assert action.lower() in granted()


def test_an_invented_action_would_be_noticed() -> None:
    assert "s3:listobjectsv2" not in granted()
    assert "sqs:sendmessagebatch" not in granted()


def test_each_exception_is_an_operation_of_botocores() -> None:
    known = {f"{service.name}:{operation.name}" for service in services() for operation in service.operations}
    assert set(EXCEPTIONS) <= known
    assert {operation for needing in FURTHER.values() for operation in needing} <= known
    assert not known & FURTHER.keys(), "these are operations"


def test_the_engine_has_the_same_table() -> None:
    held = json.loads((ROOT / "rust" / "gateway" / "data" / "actions.json").read_text())
    assert held == reverse(), "make it with `python -m sigward.knowledge`"
    assert held["operations"]["s3:ListBucket"] == ["s3:HeadBucket", "s3:ListObjects", "s3:ListObjectsV2"]


def test_the_prefixes_are_those_of_policies() -> None:
    named = {action.partition(":")[0] for action in granted()}
    signing_names = {service.signing_name for service in services()} | {"s3express"}
    assert set(PREFIXES) <= signing_names
    assert {prefix for prefix in PREFIXES.values() if prefix not in named} <= {"mechanicalturk", "s3express", "iotjobsdata", "sso"}


def test_a_name_alone_is_not_proof() -> None:
    assert actions("ec2", "ec2", "DescribeInstances", "POST").source is None
    assert actions("apigateway", "apigateway", "GetRestApis", "get").names == ("apigateway:GET",)
    assert actions("cognito-idp", "cognito-idp", "SignUp", "POST", unsigned=True).names == ()


def told(sigward: Shell, *arguments: str) -> dict[str, object]:
    return dict(json.loads(sigward(*arguments, "--json-output").out))


def test_actions_of_a_request(sigward: Shell) -> None:
    found = told(sigward, "actions", "GET", "https://b.s3.eu-west-1.amazonaws.com/?list-type=2")
    assert found["operation"] == "s3:ListObjectsV2"
    assert found["actions"] == ["s3:ListBucket"]
    assert found["resource"] == "arn:aws:s3:::b"
    assert found["certain"] is True
    found = told(sigward, "actions", "HEAD", "https://s3.cn-north-1.amazonaws.com.cn/b/a/key")
    assert (found["actions"], found["resource"]) == (["s3:GetObject"], "arn:aws-cn:s3:::b/a/key")
    found = told(
        sigward, "actions", "POST", "https://dynamodb.us-east-1.amazonaws.com/", "--header", "x-amz-target: DynamoDB_20120810.PutItem"
    )
    assert (found["actions"], found["certain"]) == (["dynamodb:PutItem"], False)
    found = told(sigward, "actions", "POST", "https://sqs.us-east-1.amazonaws.com/", "--data", "Action=SendMessageBatch&Version=2012-11-05")
    assert found["actions"] == ["sqs:SendMessage"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("actions", "GET", "nonsense"), "Give it whole"),
        (("actions", "GET", "https://example.org/"), "--service"),
        (("actions", "POST", "https://dynamodb.us-east-1.amazonaws.com/"), "x-amz-target"),
        (("knowledge", "show"), "there is no host"),
        (("knowledge", "show", "example.org"), "[[route]]"),
        (("knowledge", "show", "sqs.us-east-1.amazonaws.com", "--knowledge", "/nowhere"), "knowledge refresh"),
    ],
)
def test_what_cannot_be_told_says_how_to_mend_it(sigward: Shell, arguments: tuple[str, ...], text: str) -> None:
    result = sigward(*arguments)
    assert result.status == 64
    assert text in result.err


def test_a_host_is_explained(sigward: Shell) -> None:
    found = told(sigward, "knowledge", "show", "https://search-x.eu-west-1.es.amazonaws.com/")
    assert (found["signing_name"], found["region"], found["partition"], found["variant"]) == ("es", "eu-west-1", "aws", "v4")
    assert "v4a" in sigward("knowledge", "show", "abc.endpoint.events.amazonaws.com").out
    unknown = sigward("knowledge", "show", "new-thing.us-east-1.amazonaws.com")
    assert "unknown" in unknown.out
    assert "[[route]]" in unknown.err


def test_a_table_is_made_and_used(sigward: Shell, tmp_path: Path) -> None:
    made = tmp_path / "new" / "knowledge.bin"
    assert "botocore" in sigward("knowledge", "refresh", "--output", str(made)).out
    assert made.read_bytes()[:8] == b"SIGWARDK"
    if f"botocore {botocore_version}" == _core.Knowledge().source:
        assert made.read_bytes() == SHIPPED.read_bytes()
    found = told(sigward, "knowledge", "show", "sqs.us-east-1.amazonaws.com", "--knowledge", str(made))
    assert found["signing_name"] == "sqs"
    _core.Engine(json.dumps({"knowledge": str(made)})).close()
    made.write_bytes(made.read_bytes()[:-1])
    with pytest.raises(_core.SettingsError, match="damaged"):
        _core.Engine(json.dumps({"knowledge": str(made)}))
    with pytest.raises(_core.SettingsError, match="knowledge refresh"):
        _core.Engine(json.dumps({"knowledge": str(tmp_path / "none")}))
