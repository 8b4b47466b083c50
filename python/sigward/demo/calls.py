"""What the demo shows: each call past sigward, where it must be refused, and through it, where it must be accepted.

Accepted means: the emulator found sigward's signature right, the client got the right content, and none of its own keys
arrived.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from sigward.demo.clients import AwsCli, Boto3, Curl, Outcome, Way
from sigward.demo.emulator import Arrived, Emulator
from sigward.demo.emulator_server import FAIL_HEADER
from sigward.demo.gateway import Gateway
from sigward.environ import DUMMY_KEY

BUCKET = "demo-bucket"
KEYS = ("plain.txt", "with space/and+plus.txt", "double//slash/", "größe €/日本語.txt")
"""S3 keys that proxies like to break."""

DYNAMODB = {"content-type": "application/x-amz-json-1.0"}
FORM = {"content-type": "application/x-www-form-urlencoded"}

Client = Curl | Boto3 | AwsCli
Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Call:
    """One line of the table.

    `mode`: as `Ways.through` takes it. `holds`: whether the content is right. `arrivals`: the emulator's answers.
    """

    title: str
    client: Client
    mode: str
    holds: Check
    arrivals: tuple[int, ...] = (200,)

    @property
    def client_name(self) -> str:
        """For the table."""
        return {Curl: "curl", Boto3: "boto3", AwsCli: "AWS CLI"}[type(self.client)]


@dataclass(frozen=True)
class Result:
    """Both runs of a call, and what the emulator saw of the second. `faults`: what did not hold; empty if all did."""

    call: Call
    refused: Outcome
    accepted: Outcome
    arrived: tuple[Arrived, ...]
    faults: tuple[str, ...]

    @property
    def signed(self) -> str:
        """`service/region` of the last signature."""
        scope = self.arrived[-1].scope if self.arrived else None
        return f"{scope[2]}/{scope[1]}" if scope else "-"


class Ways:
    """All the ways to reach the emulator."""

    def __init__(self, emulator: Emulator, gateway: Gateway, tunnel: str) -> None:
        self.emulator = emulator
        self.gateway = gateway
        self.direct = Way("direct", emulator.ca_file, proxy=tunnel)

    def through(self, mode: str) -> Way:
        """`mode`: "HTTPS_PROXY", "http:// proxy", "Host header", or a service's name: its endpoint URL."""
        ca_file = self.gateway.ca_file
        if mode == "HTTPS_PROXY":
            return Way(mode, ca_file, proxy=self.gateway.url("forward"))
        if mode == "http:// proxy":
            return Way(mode, ca_file, proxy=self.gateway.url("forward"), scheme="http")
        if mode == "Host header":
            return Way(mode, ca_file, endpoint=self.gateway.url("by-host"), by_host=True)
        return Way(f"endpoint URL ({mode})", ca_file, endpoint=self.gateway.url(mode))

    def try_call(self, call: Call) -> Result:
        """Runs it both ways and looks at what the emulator got."""
        before = len(self.emulator.requests())
        refused = call.client(self.direct)
        between = self.emulator.requests(before)
        accepted = call.client(self.through(call.mode))
        arrived = tuple(self.emulator.requests(before + len(between)))
        return Result(call, refused, accepted, arrived, tuple(self._faults(call, refused, between, accepted, arrived)))

    def _faults(
        self, call: Call, refused: Outcome, direct: list[Arrived], accepted: Outcome, arrived: tuple[Arrived, ...]
    ) -> Iterator[str]:
        if refused.ok:
            yield "it was accepted without sigward"
        elif not direct or not all(400 <= request.status < 500 for request in direct):
            yield f"without sigward it was not refused by the emulator but failed: {refused.code} {refused.detail}"
        if not accepted.ok:
            yield f"it was not accepted: {accepted.code} {accepted.detail}"
        elif not call.holds(accepted.content):
            yield f"the content is not right: {accepted.content!r}"
        statuses = tuple(request.status for request in arrived)
        if statuses != call.arrivals:
            yield f"the emulator answered {statuses} where {call.arrivals} was expected"
        for request in arrived:
            if request.scope is None or request.scope[0] != self.emulator.access_key_id:
                yield f"{request.method} {request.target} was not signed with sigward's key"
            if any(DUMMY_KEY in value for _, value in request.headers):
                yield f"{request.method} {request.target} carried the client's key"


def contains(*texts: str) -> Check:
    """The content, bytes or whatever has a readable form, holds all of these."""

    def holds(content: Any) -> bool:
        text = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
        return all(part in text for part in texts)

    return holds


def equals(expected: Any) -> Check:
    """The content is just this."""

    def holds(content: Any) -> bool:
        return bool(content == expected)

    return holds


def content_of(key: str) -> bytes:
    """What is stored under a key: more than one line, and not ASCII."""
    return f"the content of {key}\n".encode() * 3


def status(answer: Any) -> int:
    """The HTTP status of an answer of boto3's."""
    return int(answer["ResponseMetadata"]["HTTPStatusCode"])


def all_calls(region: str) -> list[Call]:
    """The demo's calls, in order: later ones read what earlier ones wrote."""
    return [*s3(region), *dynamodb(region), *sqs(region), *identity(region), *ec2(region), retried(region)]


def s3(region: str) -> list[Call]:
    """Put, get, list and delete with awkward keys, by three clients and four ways."""
    host, virtual = f"s3.{region}.amazonaws.com", f"{BUCKET}.s3.{region}.amazonaws.com"
    plain, plus, slashes, foreign = KEYS

    def path(key: str) -> str:
        return "/" + quote(key, safe="/")

    def curl_put(key: str) -> Curl:
        return Curl(virtual, path(key), "PUT", {"content-type": "text/plain"}, content_of(key))

    def get(key: str) -> Callable[[Any], bytes]:
        return lambda client: client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def put(key: str) -> Callable[[Any], int]:
        return lambda client: status(client.put_object(Bucket=BUCKET, Key=key, Body=content_of(key)))

    def keys(client: Any) -> list[str]:
        return [found["Key"] for found in client.list_objects_v2(Bucket=BUCKET)["Contents"]]

    def delete(client: Any) -> int:
        return status(client.delete_object(Bucket=BUCKET, Key=plus))

    upload = AwsCli(["s3", "cp", "-", f"s3://{BUCKET}/{plain}"], region, content_of(plain))
    download = AwsCli(["s3", "cp", f"s3://{BUCKET}/{foreign}", "-"], region)
    list_query = "/?" + urlencode({"list-type": "2", "prefix": "größe €/", "encoding-type": "url"}, quote_via=quote)
    return [
        Call(
            "S3 CreateBucket",
            AwsCli(["s3api", "create-bucket", "--bucket", BUCKET], region),
            "HTTPS_PROXY",
            contains(BUCKET),
        ),
        Call(f"S3 PUT {plain}", upload, "HTTPS_PROXY", equals(b"")),
        Call(f"S3 PUT {plus}", curl_put(plus), "HTTPS_PROXY", equals(b"")),
        Call(f"S3 PUT {slashes}", curl_put(slashes), "Host header", equals(b"")),
        Call(f"S3 PUT {foreign}", Boto3("s3", region, put(foreign)), "HTTPS_PROXY", equals(200)),
        Call(f"S3 GET {plus}", Boto3("s3", region, get(plus)), "s3", equals(content_of(plus))),
        Call(f"S3 GET {slashes}", Boto3("s3", region, get(slashes)), "HTTPS_PROXY", equals(content_of(slashes))),
        # The CLI asks for the head first.
        Call(f"S3 GET {foreign}", download, "HTTPS_PROXY", equals(content_of(foreign)), (200, 200)),
        Call(f"S3 GET {plain}", Curl(host, f"/{BUCKET}{path(plain)}"), "s3", equals(content_of(plain))),
        Call(
            "S3 list, non-ASCII prefix",
            Curl(virtual, list_query),
            "http:// proxy",
            contains(quote("größe €/日本語.txt")),
        ),
        Call("S3 ListObjectsV2", Boto3("s3", region, keys), "s3", equals(sorted(KEYS))),
        Call(f"S3 DELETE {plus}", Boto3("s3", region, delete), "HTTPS_PROXY", equals(204), (204,)),
        Call(f"S3 DELETE {slashes}", Curl(virtual, path(slashes), "DELETE"), "Host header", equals(b""), (204,)),
    ]


def dynamodb(region: str) -> list[Call]:
    """A table, an item with non-ASCII text, and a read of it."""
    host = f"dynamodb.{region}.amazonaws.com"
    item = {"id": {"S": "größe €"}, "n": {"N": "42"}}

    def target(operation: str) -> dict[str, str]:
        return DYNAMODB | {"x-amz-target": f"DynamoDB_20120810.{operation}"}

    def make(client: Any) -> str:
        return client.create_table(  # type: ignore[no-any-return]
            TableName="things",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )["TableDescription"]["TableName"]

    put = Curl(host, "/", "POST", target("PutItem"), json.dumps({"TableName": "things", "Item": item}).encode())
    get = AwsCli(
        ["dynamodb", "get-item", "--table-name", "things", "--key", json.dumps({"id": item["id"]}), "--output", "json"],
        region,
    )
    return [
        Call("DynamoDB CreateTable", Boto3("dynamodb", region, make), "HTTPS_PROXY", equals("things")),
        Call("DynamoDB PutItem", put, "dynamodb", lambda body: bool(json.loads(body) == {})),
        Call("DynamoDB GetItem", get, "dynamodb", lambda body: bool(json.loads(body)["Item"] == item)),
    ]


def sqs(region: str) -> list[Call]:
    """A queue, a message, and its receipt. How a form encodes `+` and `&` is the client's choice; it arrives so."""
    text = "a+b & c=d, größe €"
    host = f"sqs.{region}.amazonaws.com"
    url = f"https://{host}/123456789012/demo-queue"
    form = urlencode({"Action": "SendMessage", "Version": "2012-11-05", "QueueUrl": url, "MessageBody": text}).encode()

    def receive(client: Any) -> str:
        return client.receive_message(QueueUrl=url)["Messages"][0]["Body"]  # type: ignore[no-any-return]

    return [
        Call(
            "SQS CreateQueue",
            AwsCli(["sqs", "create-queue", "--queue-name", "demo-queue"], region),
            "sqs",
            contains("demo-queue"),
        ),
        Call(
            "SQS SendMessage (form)",
            Curl(host, "/123456789012/demo-queue", "POST", FORM, form),
            "http:// proxy",
            contains("<MessageId>"),
        ),
        Call("SQS ReceiveMessage", Boto3("sqs", region, receive), "HTTPS_PROXY", equals(text)),
    ]


def identity(region: str) -> list[Call]:
    """Who AWS thinks is calling."""
    form = urlencode({"Action": "GetCallerIdentity", "Version": "2011-06-15"}).encode()
    return [
        Call(
            "STS GetCallerIdentity",
            Curl(f"sts.{region}.amazonaws.com", "/", "POST", FORM, form),
            "Host header",
            contains("user/demo"),
        ),
        Call(
            "STS GetCallerIdentity",
            AwsCli(["sts", "get-caller-identity"], region),
            "HTTPS_PROXY",
            contains("user/demo"),
        ),
        Call(
            "STS GetCallerIdentity",
            Boto3("sts", region, lambda client: client.get_caller_identity()["Arn"]),
            "sts",
            contains("user/demo"),
        ),
    ]


def ec2(region: str) -> list[Call]:
    """The ec2 protocol."""

    def regions(client: Any) -> list[str]:
        return [found["RegionName"] for found in client.describe_regions()["Regions"]]

    zones = AwsCli(["ec2", "describe-availability-zones", "--query", "AvailabilityZones[0].RegionName", "--output", "text"], region)
    return [
        Call("EC2 DescribeRegions", Boto3("ec2", region, regions), "HTTPS_PROXY", contains(region)),
        Call("EC2 DescribeAvailabilityZones", zones, "ec2", contains(region)),
    ]


def retried(region: str) -> Call:
    """A call that AWS answers with 503 twice. curl would give up at the first."""
    headers = DYNAMODB | {"x-amz-target": "DynamoDB_20120810.ListTables", FAIL_HEADER: "demo/2"}
    client = Curl(f"dynamodb.{region}.amazonaws.com", "/", "POST", headers, b"{}")
    return Call(
        "DynamoDB ListTables, 503 twice",
        client,
        "HTTPS_PROXY",
        lambda body: "things" in json.loads(body)["TableNames"],
        (503, 503, 200),
    )
