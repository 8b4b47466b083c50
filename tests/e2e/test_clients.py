"""curl, boto3 and the AWS CLI, none of which signs validly, through every kind of listener."""

import hashlib
import json
import subprocess
from typing import Any
from urllib.parse import quote, urlsplit

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.config import Config

from sigward.demo.calls import Ways
from sigward.demo.child import clean_environment
from sigward.demo.clients import AwsCli, Boto3, Curl
from sigward.demo.emulator import Arrived, Emulator
from sigward.demo.emulator_server import FAIL_HEADER
from sigward.demo.gateway import Gateway
from sigward.environ import DUMMY_KEY
from tests.e2e.conftest import ask
from tests.needs import need

REGION = Emulator.region
BUCKET = "e2e-bucket"
HOST = f"{BUCKET}.s3.{REGION}.amazonaws.com"
KEYS = (
    "plain",
    "a b+c",
    "a//b///",
    "größe €/日本語",
    "100%25 %2F",
    "~'(quote)*!",
    "a&b=c?d#e;f,g:h@i$",
)
PROXY_WAYS = ("HTTPS_PROXY", "s3")
CURL_WAYS = ("HTTPS_PROXY", "http:// proxy", "Host header")
JSON = {"content-type": "application/x-amz-json-1.0"}
# curl would say that it is a form, and the emulator would read it as one.
BINARY = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module", autouse=True)
def bucket(ways: Ways) -> None:
    """Made by the AWS CLI, whose own keys are dummies."""
    made = AwsCli(["s3api", "create-bucket", "--bucket", BUCKET], REGION)(ways.through("HTTPS_PROXY"))
    assert made.ok, made.detail


def last(emulator: Emulator) -> Arrived:
    """The request that arrived last."""
    return emulator.requests()[-1]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("mode", PROXY_WAYS)
def test_s3_keys_by_boto3(mode: str, key: str, ways: Ways) -> None:
    name, content = f"boto3-{mode[:2]}/{key}", key.encode()

    def flow(client: Any) -> tuple[bytes, list[str], list[str]]:
        client.put_object(Bucket=BUCKET, Key=name, Body=content, Metadata={"note": "two  blanks"})
        got = client.get_object(Bucket=BUCKET, Key=name)
        assert got["Metadata"] == {"note": "two  blanks"}
        there = client.list_objects_v2(Bucket=BUCKET, Prefix=name)["Contents"]
        client.delete_object(Bucket=BUCKET, Key=name)
        gone = client.list_objects_v2(Bucket=BUCKET, Prefix=name).get("Contents", [])
        return got["Body"].read(), [found["Key"] for found in there], gone

    outcome = Boto3("s3", REGION, flow)(ways.through(mode))
    assert outcome.ok, outcome.detail
    assert outcome.content == (content, [name], [])


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("mode", CURL_WAYS)
def test_s3_keys_by_curl(mode: str, key: str, ways: Ways) -> None:
    way, path = ways.through(mode), "/" + quote(f"curl-{mode[:2]}/{key}", safe="/~")
    put = Curl(HOST, path, "PUT", BINARY | {"x-amz-meta-note": "kept"}, key.encode())(way)
    assert put.ok, put.detail
    got = Curl(HOST, path)(way)
    assert got.content == key.encode()
    assert last(ways.emulator).scope == (ways.emulator.access_key_id, REGION, "s3")
    assert Curl(HOST, path, "DELETE")(way).code == "204"
    assert Curl(HOST, path)(way).code == "404"


@pytest.mark.parametrize("size", [0, 1, 100_000, 3 << 20])
def test_bodies_of_all_sizes(size: int, ways: Ways) -> None:
    """Held, and more than that: it streams as UNSIGNED-PAYLOAD. boto3 sends chunks with a checksum behind them."""
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    way = ways.through("HTTPS_PROXY")
    put = Curl(HOST, f"/size-{size}", "PUT", BINARY, body)(way)
    assert put.ok, put.detail
    got = Curl(HOST, f"/size-{size}")(way)
    assert hashlib.sha256(got.content).digest() == hashlib.sha256(body).digest()
    name = f"size-{size}-boto3"
    outcome = Boto3(
        "s3",
        REGION,
        lambda client: client.put_object(Bucket=BUCKET, Key=name, Body=body) and client.get_object(Bucket=BUCKET, Key=name)["Body"].read(),
    )(way)
    assert outcome.ok, outcome.detail
    assert outcome.content == body


def test_a_chunked_body_from_curl(ways: Ways) -> None:
    """Its length is unknown: DynamoDB's payload hash needs the whole of it."""
    headers = JSON | {"x-amz-target": "DynamoDB_20120810.ListTables", "transfer-encoding": "chunked"}
    outcome = Curl(f"dynamodb.{REGION}.amazonaws.com", "/", "POST", headers, b"{}")(ways.through("dynamodb"))
    assert outcome.ok, outcome.detail


@pytest.mark.parametrize("mode", ["HTTPS_PROXY", "sqs"])
def test_the_aws_cli_with_dummy_keys(mode: str, ways: Ways) -> None:
    outcome = AwsCli(["sqs", "create-queue", "--queue-name", f"cli-{mode[:3]}"], REGION)(ways.through(mode))
    assert outcome.ok, outcome.detail
    arrived = last(ways.emulator)
    assert arrived.scope == (ways.emulator.access_key_id, REGION, "sqs")
    assert not any(DUMMY_KEY in value for _, value in arrived.headers)


def test_the_aws_cli_copies_a_stream(ways: Ways) -> None:
    way = ways.through("s3")
    put = AwsCli(["s3", "cp", "-", f"s3://{BUCKET}/streamed"], REGION, b"from stdin")(way)
    assert put.ok, put.detail
    assert AwsCli(["s3", "cp", f"s3://{BUCKET}/streamed", "-"], REGION)(way).content == b"from stdin"


def test_a_call_that_meets_503_twice(ways: Ways) -> None:
    before = len(ways.emulator.requests())
    headers = JSON | {"x-amz-target": "DynamoDB_20120810.ListTables", FAIL_HEADER: "e2e-twice/2"}
    outcome = Curl(f"dynamodb.{REGION}.amazonaws.com", "/", "POST", headers, b"{}")(ways.through("HTTPS_PROXY"))
    assert outcome.ok, outcome.detail
    arrived = ways.emulator.requests(before)
    assert [request.status for request in arrived] == [503, 503, 200]


def test_a_call_that_meets_503_always_gets_the_last_one(ways: Ways) -> None:
    before = len(ways.emulator.requests())
    headers = JSON | {"x-amz-target": "DynamoDB_20120810.ListTables", FAIL_HEADER: "e2e-always/99"}
    outcome = Curl(f"dynamodb.{REGION}.amazonaws.com", "/", "POST", headers, b"{}")(ways.through("HTTPS_PROXY"))
    assert outcome.code == "503"
    assert json.loads(outcome.content)["__type"].endswith("#ServiceUnavailable")
    assert [request.status for request in ways.emulator.requests(before)] == [503] * 4, "DynamoDB's four attempts"


def test_a_clients_own_signature_is_replaced(ways: Ways) -> None:
    """Whatever of it is left beside ours would be sent unsigned, or be signed and wrong."""
    theirs = {
        "authorization": f"AWS4-HMAC-SHA256 Credential={DUMMY_KEY}/20200101/eu-west-1/iam/aws4_request, "
        f"SignedHeaders=host, Signature={'0' * 64}",
        "x-amz-date": "20200101T000000Z",
        "x-amz-security-token": "a-token-of-the-clients",
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
    }
    outcome = Curl(HOST, "/?list-type=2", headers=theirs)(ways.through("HTTPS_PROXY"))
    assert outcome.ok, outcome.detail
    arrived = last(ways.emulator)
    assert arrived.scope == (ways.emulator.access_key_id, REGION, "s3")
    for name in ("authorization", "x-amz-date"):
        assert sum(key.lower() == name for key, _ in arrived.headers) == 1
    assert not any(word in value for _, value in arrived.headers for word in (DUMMY_KEY, "20200101", "a-token-of-the-clients"))


def test_a_presigned_url_passes_as_it_is(ways: Ways) -> None:
    """It brings its own signature. The emulator cannot check that kind: what arrives is compared with what was made."""
    client = boto3.client(
        "s3",
        region_name=REGION,
        config=Config(signature_version="s3v4", s3={"addressing_style": "virtual"}),
        aws_access_key_id=ways.emulator.access_key_id,
        aws_secret_access_key=ways.emulator.secret_access_key,
    )
    split = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "presigned"}))
    before = len(ways.emulator.requests())
    Curl(str(split.hostname), f"{split.path}?{split.query}")(ways.through("HTTPS_PROXY"))
    arrived = ways.emulator.requests(before)[0]
    assert arrived.host == split.hostname
    assert arrived.target == f"{split.path}?{split.query}"
    assert arrived.header("authorization") is None
    assert arrived.header("x-amz-date") is None


def test_curl_speaks_http2_to_sigward(ways: Ways, gateway: Gateway) -> None:
    url = f"https://{HOST}/?list-type=2"
    command = [
        need("curl"),
        "-sS",
        "--http2",
        "-o",
        "/dev/null",
        "-w",
        "%{http_version} %{http_code}",
        "-x",
        gateway.url("forward"),
    ]
    done = subprocess.run(
        [*command, "--cacert", str(gateway.ca_file), url],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=60,
    )
    assert done.stdout == "2 200", done.stderr


def test_head_range_and_not_modified(ways: Ways, gateway: Gateway) -> None:
    put = Curl(HOST, "/ranged", "PUT", BINARY, b"0123456789")(ways.through("HTTPS_PROXY"))
    assert put.ok, put.detail
    path, address = f"/{BUCKET}/ranged", gateway.addresses["s3"]
    head = ask(address, "HEAD", path)
    assert (head.status, head.headers["content-length"], head.body) == (200, "10", b"")
    part = ask(address, "GET", path, {"range": "bytes=2-4"})
    assert (part.status, part.body) == (206, b"234")
    same = ask(address, "GET", path, {"if-none-match": head.headers["etag"]})
    assert (same.status, same.body) == (304, b"")


def test_one_connection_many_services(gateway: Gateway) -> None:
    """The listener where Host names the endpoint signs each request for its own service."""
    import http.client

    connection = http.client.HTTPConnection(gateway.addresses["by-host"], timeout=60)
    try:
        for service, body, headers, expected in (
            (
                "sts",
                b"Action=GetCallerIdentity&Version=2011-06-15",
                {"content-type": "application/x-www-form-urlencoded"},
                b"user/demo",
            ),
            ("dynamodb", b"{}", JSON | {"x-amz-target": "DynamoDB_20120810.ListTables"}, b"TableNames"),
            ("sqs", b"{}", JSON | {"x-amz-target": "AmazonSQS.ListQueues"}, b""),
        ):
            connection.request("POST", "/", body, {"host": f"{service}.{REGION}.amazonaws.com"} | headers)
            response = connection.getresponse()
            text = response.read()
            assert response.status == 200, text
            assert expected in text
            assert last(gateway.emulator).scope == (gateway.emulator.access_key_id, REGION, service)
    finally:
        connection.close()
