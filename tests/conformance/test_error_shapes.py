"""sigward's own errors, read by botocore: each protocol's client raises its ordinary error, with sigward's words."""

import asyncio
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.conformance.conftest import Start
from tests.support import Upstream

CALLS = {
    "json 1.0": ("dynamodb", "list_tables", {}),
    "json 1.1": ("logs", "describe_log_groups", {}),
    "json, once query": ("sqs", "list_queues", {}),
    "rest-json": ("lambda", "list_functions", {}),
    "rest-json with a body": ("bedrock-runtime", "invoke_model", {"modelId": "m", "body": b"{}"}),
    "rest-xml": ("cloudfront", "list_distributions", {}),
    "rest-xml of route53": ("route53", "list_hosted_zones", {}),
    "rest-xml of s3": ("s3", "list_buckets", {}),
    "rest-xml of s3control": ("s3control", "list_jobs", {"AccountId": "123456789012"}),
    "query": ("iam", "list_users", {}),
    "query of sns": ("sns", "list_topics", {}),
    "ec2": ("ec2", "describe_key_pairs", {}),
    "cbor": ("cloudwatch", "list_metrics", {}),
}


@pytest.mark.parametrize("call", CALLS)
async def test_botocore_raises_its_ordinary_error(call: str, start: Start, upstream: Upstream) -> None:
    service, name, arguments = CALLS[call]
    proxy = await start(upstream, credentials=False)
    proxy.engine.set_credentials_failed("default", [("env", "it <is> not & set")])
    config = Config(proxies={"http": "http://{}:{}".format(*proxy.forward)}, retries={"total_max_attempts": 1})
    client = boto3.client(
        service, region_name="us-east-1", use_ssl=False, config=config, aws_access_key_id="AKIDDUMMY", aws_secret_access_key="dummy"
    )

    def ask() -> Any:
        return getattr(client, name)(**arguments)

    with pytest.raises(ClientError) as caught:
        await asyncio.to_thread(ask)
    answer = caught.value.response
    assert answer["Error"]["Code"] == "NoCredentials"
    assert answer["Error"]["Message"].startswith("sigward: identity")
    assert "it <is> not & set" in answer["Error"]["Message"]
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-sigward-error"] == "no-credentials"
    assert upstream.received == []
