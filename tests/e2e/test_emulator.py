"""The emulator refuses what AWS refuses: without that, none of the other tests here could fail."""

import http.client
import ssl
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from sigward.demo.calls import Ways
from sigward.demo.clients import Boto3
from sigward.demo.emulator import Emulator

CALLS = {
    "s3": lambda client: client.list_buckets(),
    "dynamodb": lambda client: client.list_tables(),
    "sqs": lambda client: client.list_queues(),
    "sts": lambda client: client.get_caller_identity(),
    "ec2": lambda client: client.describe_key_pairs(),
}


def signing_client(service: str, ways: Ways, access_key_id: str, secret_access_key: str) -> Any:
    """boto3 that signs, past sigward."""
    config = Config(proxies={"https": str(ways.direct.proxy)}, retries={"total_max_attempts": 1})
    return boto3.client(
        service,
        region_name=ways.emulator.region,
        config=config,
        verify=str(ways.emulator.ca_file),
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
    )


@pytest.mark.parametrize("service", CALLS)
def test_right_keys_are_accepted(service: str, ways: Ways) -> None:
    client = signing_client(service, ways, ways.emulator.access_key_id, ways.emulator.secret_access_key)
    assert CALLS[service](client)["ResponseMetadata"]["HTTPStatusCode"] == 200


@pytest.mark.parametrize("service", CALLS)
def test_a_wrong_secret_is_refused(service: str, ways: Ways) -> None:
    client = signing_client(service, ways, ways.emulator.access_key_id, ways.emulator.secret_access_key[::-1])
    with pytest.raises(ClientError) as caught:
        CALLS[service](client)
    assert caught.value.response["Error"]["Code"] in ("SignatureDoesNotMatch", "AuthFailure")


@pytest.mark.parametrize("service", CALLS)
def test_an_unknown_key_is_refused(service: str, ways: Ways) -> None:
    client = signing_client(service, ways, "AKIANOBODYSKEY000000", "x" * 40)
    with pytest.raises(ClientError) as caught:
        CALLS[service](client)
    assert caught.value.response["Error"]["Code"] in ("InvalidAccessKeyId", "InvalidClientTokenId", "AuthFailure")


@pytest.mark.parametrize("service", CALLS)
def test_no_signature_is_refused(service: str, ways: Ways) -> None:
    outcome = Boto3(service, ways.emulator.region, CALLS[service])(ways.direct)
    assert not outcome.ok
    assert outcome.code in ("AccessDenied", "MissingAuthenticationToken", "MissingAuthenticationTokenException")


@pytest.mark.parametrize(("service", "action"), [("sqs", "ListQueues"), ("sts", "GetCallerIdentity"), ("ec2", "DescribeRegions")])
def test_a_call_in_the_query_is_verified_too(service: str, action: str, emulator: Emulator) -> None:
    version = {"sqs": "2012-11-05", "sts": "2011-06-15", "ec2": "2016-11-15"}[service]
    host, target = f"{service}.{emulator.region}.amazonaws.com", f"/?Action={action}&Version={version}"
    context = ssl.create_default_context(cafile=str(emulator.ca_file))

    def status(secret: str, sent: str = target) -> int:
        request = AWSRequest("GET", f"https://{host}{target}")
        SigV4Auth(Credentials(emulator.access_key_id, secret), service, emulator.region).add_auth(request)
        connection = http.client.HTTPSConnection("localhost", emulator.port, context=context)
        try:
            connection.request("GET", sent, headers={"host": host} | dict(request.headers.items()))
            return connection.getresponse().status
        finally:
            connection.close()

    assert status(emulator.secret_access_key) == 200
    assert status(emulator.secret_access_key[::-1]) in (401, 403)
    assert status(emulator.secret_access_key, f"{target}&MaxResults=1") in (401, 403)


def signed_then(emulator: Emulator, added: dict[str, str], body: bytes) -> bytes:
    """Signs a call, then changes it; what the emulator says."""
    url = f"https://sqs.{emulator.region}.amazonaws.com/"
    headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "AmazonSQS.ListQueues"}
    request = AWSRequest("POST", url, data=b"{}", headers=headers)
    SigV4Auth(Credentials(emulator.access_key_id, emulator.secret_access_key), "sqs", emulator.region).add_auth(request)
    context = ssl.create_default_context(cafile=str(emulator.ca_file))
    connection = http.client.HTTPSConnection("localhost", emulator.port, context=context)
    try:
        sent = {"host": f"sqs.{emulator.region}.amazonaws.com"} | dict(request.headers.items()) | added
        connection.request("POST", "/", body, sent)
        return connection.getresponse().read()
    finally:
        connection.close()


def test_a_signature_covers_body_and_headers(emulator: Emulator) -> None:
    assert b"SignatureDoesNotMatch" in signed_then(emulator, {}, b'{"MaxResults":1}')
    assert b"not signed" in signed_then(emulator, {"x-amz-meta-late": "1"}, b"{}")
    assert b"Exception" not in signed_then(emulator, {}, b"{}")
