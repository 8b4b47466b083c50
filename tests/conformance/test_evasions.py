"""Calls in disguise: what a rule forbids must not reach the upstream, however it is spelt; what a rule allows must.

Each row is one raw request under one set of rules. Either it is refused and the upstream sees nothing, or the upstream sees the call that
was allowed. Most rows are kinds of spelling times services; the rest are written by hand. `F` is the forbidden call, `L` the allowed one.
"""

import base64
import gzip
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

import pytest

from sigward import _core
from tests.conformance.conftest import Proxy, Start
from tests.conformance.test_requests import dummy, request
from tests.support import KEY, Received, Upstream, engine_settings, unwrapped

DENIED = frozenset({"denied"})
AMBIGUOUS = frozenset({"ambiguous-call"})
EITHER = DENIED | AMBIGUOUS

FORM = "Content-Type: application/x-www-form-urlencoded"
JSON = "Content-Type: application/x-amz-json-1.0"
XML = "Content-Type: application/xml"


@dataclass(frozen=True)
class Row:
    """`slugs`: refused with one of these; empty: allowed, and `reads`, if given, is to be true of what reached the upstream."""

    name: str
    rules: str
    raw: bytes
    slugs: frozenset[str] = frozenset()
    reads: Callable[[Received], bool] | None = None

    @property
    def host(self) -> str:
        """As TLS has to name it."""
        found = re.search(rb"(?mi)^host: *(\S+)", self.raw)
        assert found
        return found[1].decode().lower().partition(":")[0].rstrip(".")


# ---------------------------------------------------------------- kinds


@dataclass(frozen=True)
class Query:
    """A service of the query protocols: `F` is forbidden, `L` is allowed."""

    service: str
    host: str
    version: str
    F: str
    L: str


QUERIES = [
    Query("sqs", "sqs", "2012-11-05", "DeleteQueue", "ListQueues"),
    Query("sns", "sns", "2010-03-31", "DeleteTopic", "ListTopics"),
    Query("iam", "iam", "2010-05-08", "DeleteUser", "ListUsers"),
    Query("ec2", "ec2", "2016-11-15", "TerminateInstances", "DescribeInstances"),
    Query("rds", "rds", "2014-10-31", "DeleteDBInstance", "DescribeDBInstances"),
    Query("cloudformation", "cloudformation", "2010-05-15", "DeleteStack", "ListStacks"),
    Query("autoscaling", "autoscaling", "2011-01-01", "DeleteAutoScalingGroup", "DescribeAutoScalingGroups"),
]


def in_region(prefix: str) -> str:
    return "iam.amazonaws.com" if prefix == "iam" else f"{prefix}.us-east-1.amazonaws.com"


def encoded(text: str, *places: int) -> str:
    """Letters at these places, percent-encoded; without places, all of them."""
    return "".join(f"%{ord(letter):02X}" if not places or at in places else letter for at, letter in enumerate(text))


def words(text: str) -> list[str]:
    """A table in a text: what stands between blanks."""
    return text.split()


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


PADDING = "x=" + "y" * 17_000
MULTIPART = (
    "--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
    '--b\r\nContent-Disposition: form-data; name="Version"\r\n\r\n1\r\n--b--\r\n'
)  # fmt: skip


def query_evasions(of: Query) -> Iterator[tuple[str, bytes, frozenset[str]]]:
    """Spellings of `F`, and of `F` beside `L`, in the query protocols."""
    host, rest = in_region(of.host), f"Version={of.version}"

    def post(body: str | bytes, *headers: str, path: str = "/", method: str = "POST") -> bytes:
        return request(method, path, *(headers or (FORM,)), host=host, body=body if isinstance(body, bytes) else body.encode())

    plain = f"Action={of.F}&{rest}"
    yield "form", post(plain), DENIED
    yield "key encoded in part", post(f"%41ction={of.F}&{rest}"), DENIED
    yield "key encoded whole", post(f"{encoded('Action')}={of.F}&{rest}"), DENIED
    yield "value encoded in part", post(f"Action={encoded(of.F, len(of.F) - 3)}&{rest}"), DENIED
    yield "value encoded in lower-case hex", post(f"Action={encoded(of.F).lower()}&{rest}"), DENIED
    yield "behind 17 kB", post(f"{PADDING}&{plain}"), DENIED
    yield "behind 17 kB, key encoded", post(f"{PADDING}&%41ction={of.F}&{rest}"), DENIED
    yield "behind empty pairs", post(f"&&&{plain}"), DENIED
    yield "no content type", post(plain, "Accept: */*"), DENIED
    yield "text/plain", post(plain, "Content-Type: text/plain"), DENIED
    yield "application/json", post(plain, "Content-Type: application/json"), DENIED
    yield "a type that begins like a form's", post(plain, f"{FORM}x"), DENIED
    yield "a form's type in other case", post(plain, "Content-Type: Application/X-WWW-Form-URLencoded"), DENIED
    yield "a form's type with parameters", post(plain, f"{FORM} ; charset=UTF-8"), DENIED
    yield "charset utf-16", post(plain.encode("utf-16"), f"{FORM}; charset=utf-16"), DENIED
    yield "charset utf-16, but ASCII", post(plain, f"{FORM}; charset=utf-16"), DENIED
    yield "utf-16 without a charset", post(plain.encode("utf-16")), DENIED
    yield "charset utf-7", post(plain, f"{FORM}; charset=utf-7"), DENIED
    yield "a byte order mark", post(b"\xef\xbb\xbf" + plain.encode()), DENIED
    yield "gzip", post(gzip.compress(plain.encode()), FORM, "Content-Encoding: gzip"), DENIED
    yield "said to be gzip", post(plain, FORM, "Content-Encoding: gzip"), DENIED
    yield "two content types", post(plain, "Content-Type: text/plain", FORM), EITHER
    yield "two content types, form first", post(plain, FORM, "Content-Type: text/plain"), EITHER
    multipart = MULTIPART.format(name="Action", value=of.F)
    yield "multipart", post(multipart, "Content-Type: multipart/form-data; boundary=b"), DENIED
    yield "a body in chunks", request("POST", "/", FORM, "Transfer-Encoding: chunked", host=host) + chunked(plain.encode()), DENIED
    yield "a path beside it", post(plain, path="/a/b"), DENIED
    yield "PUT", post(plain, method="PUT"), DENIED
    yield "in the query", request("GET", f"/?{plain}", host=host), DENIED
    yield "in the query, key encoded", request("GET", f"/?A%63tion={of.F}&{rest}", host=host), DENIED
    yield "in the query, value encoded", request("GET", f"/?{rest}&Action={encoded(of.F)}", host=host), DENIED
    yield "in the query of a POST", request("POST", f"/?{plain}", host=host), DENIED
    yield "in the query of a POST without a body, as a form", request("POST", f"/?{plain}", FORM, "Content-Length: 0", host=host), DENIED
    yield "key in lower case", post(f"action={of.F}&{rest}"), DENIED
    yield "name in lower case", post(f"Action={of.F.lower()}&{rest}"), DENIED
    yield "a NUL behind the name", post(f"Action={of.F}%00&{rest}"), DENIED
    yield "a blank before the name", post(f"Action=+{of.F}&{rest}"), DENIED
    yield "a blank behind the key", post(f"Action+={of.F}&{rest}"), DENIED
    yield "semicolons", post(f"Action={of.L};Action={of.F}&{rest}"), EITHER
    yield "no action at all", post(rest), DENIED
    yield "an empty form", request("POST", "/", FORM, "Content-Length: 0", host=host), DENIED
    yield "the same twice", post(f"{plain}&Action={of.F}"), EITHER
    for name, first, second in (("L, F", of.L, of.F), ("F, L", of.F, of.L)):
        yield f"{name}: twice in the form", post(f"Action={first}&Action={second}&{rest}"), AMBIGUOUS
        yield f"{name}: twice in the form, the second encoded", post(f"Action={first}&{rest}&%41ction={encoded(second)}"), AMBIGUOUS
        yield f"{name}: twice, 17 kB between", post(f"Action={first}&{PADDING}&Action={second}&{rest}"), AMBIGUOUS
        yield f"{name}: twice in the query", request("GET", f"/?Action={first}&{rest}&Action={second}", host=host), AMBIGUOUS
        yield f"{name}: query, then form", post(f"Action={second}&{rest}", path=f"/?Action={first}"), AMBIGUOUS
        yield f"{name}: encoded query, then form", post(f"Action={second}&{rest}", path=f"/?{encoded('Action')}={first}"), AMBIGUOUS
    yield "query L, F in a body of no type", post(plain, "Accept: */*", path=f"/?Action={of.L}"), EITHER
    yield (
        "query L, F in a gzipped form",
        post(gzip.compress(plain.encode()), FORM, "Content-Encoding: gzip", path=f"/?Action={of.L}"),
        EITHER,
    )
    yield "an empty action first", post(f"Action=&{plain}"), EITHER
    yield "F beside a target", post(plain, FORM, f"X-Amz-Target: Nobody.{of.L}"), EITHER
    yield "F beside a CBOR path", post(plain, FORM, path=f"/service/Nobody/operation/{of.L}"), EITHER


def query_allowed(of: Query) -> Iterator[tuple[str, bytes, Callable[[Received], bool]]]:
    """`L`, in spellings that have one reading."""
    host, plain = in_region(of.host), f"Action={of.L}&Version={of.version}"

    def reads(received: Received) -> bool:
        query = received.target.partition("?")[2]
        return [value for key, value in parse_qsl(query) + parse_qsl(received.body.decode()) if key == "Action"] == [of.L]

    for name, body in (
        ("form", plain),
        ("key encoded", plain.replace("A", "%41", 1)),
        ("value encoded", f"Action={encoded(of.L)}&Version={of.version}"),
        ("behind 17 kB", f"{PADDING}&{plain}"),
        ("with F as another's value", f"{plain}&Name=Action%3D{of.F}&ActionName={of.F}"),
    ):
        yield name, request("POST", "/", FORM, host=host, body=body.encode()), reads
    yield "charset utf-8", request("POST", "/", f"{FORM}; charset=utf-8", host=host, body=plain.encode()), reads
    yield "in chunks", request("POST", "/", FORM, "Transfer-Encoding: chunked", host=host) + chunked(plain.encode()), reads
    yield "in the query", request("GET", f"/?{plain}", host=host), reads


@dataclass(frozen=True)
class Target:
    """A service of the JSON protocols."""

    service: str
    host: str
    prefix: str
    F: str
    L: str


TARGETS = [
    Target("dynamodb", "dynamodb", "DynamoDB_20120810", "DeleteTable", "ListTables"),
    Target("sqs", "sqs", "AmazonSQS", "DeleteQueue", "ListQueues"),
    Target("kinesis", "kinesis", "Kinesis_20131202", "DeleteStream", "ListStreams"),
    Target("secretsmanager", "secretsmanager", "secretsmanager", "GetSecretValue", "ListSecrets"),
    Target("kms", "kms", "TrentService", "ScheduleKeyDeletion", "ListKeys"),
    Target("ssm", "ssm", "AmazonSSM", "GetParameters", "DescribeParameters"),
    Target("stepfunctions", "states", "AWSStepFunctions", "DeleteStateMachine", "ListStateMachines"),
]


def target_evasions(of: Target) -> Iterator[tuple[str, bytes, frozenset[str]]]:
    """Spellings of `F`, and of `F` beside `L`, in the JSON protocols."""
    host = in_region(of.host)

    def post(*targets: str, path: str = "/", more: Iterable[str] = (JSON,), body: bytes = b"{}") -> bytes:
        return request("POST", path, *more, *(f"X-Amz-Target: {target}" for target in targets), host=host, body=body)

    forbidden, allowed = f"{of.prefix}.{of.F}", f"{of.prefix}.{of.L}"
    yield "target", post(forbidden), DENIED
    yield "header in other case", post(more=(JSON, f"x-AMZ-tArGeT:\t{forbidden} \t")), DENIED
    yield "two, L first", post(allowed, forbidden), AMBIGUOUS
    yield "two, F first", post(forbidden, allowed), AMBIGUOUS
    yield "the same twice", post(forbidden, forbidden), AMBIGUOUS
    yield "L twice", post(allowed, allowed), AMBIGUOUS
    yield "an empty one behind L", post(allowed, ""), AMBIGUOUS
    yield "two in one header", post(f"{allowed}, {forbidden}"), EITHER
    yield "two in one header, F first", post(f"{forbidden},{allowed}"), EITHER
    yield "name in lower case", post(f"{of.prefix}.{of.F.lower()}"), DENIED
    yield "an operation that nobody knows", post(f"{of.prefix}.NobodyKnowsIt"), DENIED
    yield "a prefix that nobody knows", post(f"Nobody_20990101.{of.F}"), DENIED
    yield "a prefix that nobody knows, with L", post(f"Nobody_20990101.{of.L}"), DENIED
    yield "another service's", post("Logs_20140328.DescribeLogGroups"), EITHER
    yield "no prefix", post(of.F), DENIED
    yield "an empty prefix", post(f".{of.F}"), DENIED
    yield "no name", post(f"{of.prefix}."), DENIED
    yield "a dot behind", post(f"{forbidden}."), DENIED
    yield "a prefix before the prefix", post(f"x.{forbidden}"), DENIED
    yield "a blank inside", post(f"{of.prefix}. {of.F}"), DENIED
    yield "a shape's name", post(f"{of.prefix}#{of.F}"), DENIED
    yield "empty", post(""), DENIED
    yield "none", post(), DENIED
    yield "none, without a content type", post(more=()), DENIED
    yield "L, which Connection names", post(allowed, more=(JSON, "Connection: x-amz-target, close")), EITHER
    yield "L on the CBOR path of F", post(allowed, path=f"/service/{of.prefix}/operation/{of.F}"), AMBIGUOUS
    yield "L on its own CBOR path", post(allowed, path=f"/service/{of.prefix}/operation/{of.L}"), AMBIGUOUS
    yield "F on the CBOR path of L", post(forbidden, path=f"/service/{of.prefix}/operation/{of.L}"), AMBIGUOUS
    yield "the CBOR path of F alone", post(path=f"/service/{of.prefix}/operation/{of.F}", more=("smithy-protocol: rpc-v2-cbor",)), DENIED
    yield "L beside an action", post(allowed, path=f"/?Action={of.F}"), AMBIGUOUS
    yield "L beside an encoded action", post(allowed, path=f"/?{encoded('Action')}={of.F}"), AMBIGUOUS
    yield "L beside a form", post(allowed, more=(FORM,), body=f"Action={of.F}".encode()), AMBIGUOUS


def target_allowed(of: Target) -> Iterator[tuple[str, bytes, Callable[[Received], bool]]]:
    """`L`, in spellings that have one reading."""

    def reads(received: Received) -> bool:
        return (received.get("x-amz-target") or "").strip() == f"{of.prefix}.{of.L}"

    for name, header in (("target", "X-Amz-Target: "), ("header in other case", "x-aMz-TARGET:\t ")):
        yield name, request("POST", "/", JSON, f"{header}{of.prefix}.{of.L}", host=in_region(of.host), body=b'{"A": "B"}'), reads


@dataclass(frozen=True)
class Rest:
    """A service of the REST protocols: method and path of `F` and of `L`. The paths' first segments are literal."""

    service: str
    host: str
    F: tuple[str, str, str]
    L: tuple[str, str, str]


RESTS = [
    Rest("lambda", "lambda", ("DeleteFunction", "DELETE", "/2015-03-31/functions/f"), ("GetFunction", "GET", "/2015-03-31/functions/f")),
    Rest("eks", "eks", ("DeleteCluster", "DELETE", "/clusters/c"), ("DescribeCluster", "GET", "/clusters/c")),
    Rest("apigateway", "apigateway", ("DeleteRestApi", "DELETE", "/restapis/r"), ("GetRestApi", "GET", "/restapis/r")),
    Rest(
        "efs", "elasticfilesystem",
        ("DeleteFileSystem", "DELETE", "/2015-02-01/file-systems/fs"),
        ("DescribeFileSystemPolicy", "GET", "/2015-02-01/file-systems/fs/policy"),
    ),
    Rest("backup", "backup", ("DeleteBackupVault", "DELETE", "/backup-vaults/v"), ("DescribeBackupVault", "GET", "/backup-vaults/v")),
    Rest("iot", "iot", ("DeleteThing", "DELETE", "/things/t"), ("DescribeThing", "GET", "/things/t")),
]  # fmt: skip


def rest_evasions(of: Rest) -> Iterator[tuple[str, bytes, frozenset[str]]]:
    """Spellings of `F`, and of `F` beside `L`, in the REST protocols."""
    _, method, path = of.F
    first, _, rest = path[1:].partition("/")

    def ask(target: str, *headers: str) -> bytes:
        return request(method, target, *headers, host=in_region(of.host))

    yield "path", ask(path), DENIED
    yield "a letter encoded", ask(f"/{encoded(first, 0)}/{rest}"), DENIED
    yield "a segment encoded", ask(f"/{encoded(first)}/{rest}"), DENIED
    yield "a segment encoded in lower-case hex", ask(f"/{encoded(first).lower()}/{rest}"), DENIED
    yield "two slashes first", ask(f"/{path}"), DENIED
    yield "two slashes inside", ask(f"/{first}//{rest}"), DENIED
    yield "two slashes at the end", ask(f"{path}//"), DENIED
    yield "a slash at the end", ask(f"{path}/"), DENIED
    yield "a dot segment", ask(f"/./{first}/{rest}"), DENIED
    yield "a dot segment inside", ask(f"/{first}/./{rest}"), DENIED
    yield "a dot segment at the end", ask(f"{path}/."), DENIED
    yield "up again", ask(f"/x/../{first}/{rest}"), DENIED
    yield "up again, encoded", ask(f"/x/%2e%2E/{first}/{rest}"), DENIED
    yield "up beyond the root", ask(f"/..{path}"), DENIED
    yield "an encoded slash between", ask(f"/{first}%2F{rest}"), DENIED
    yield "an encoded slash between, lower case", ask(f"/{first}%2f{rest}"), DENIED
    yield "an encoded slash first", ask(f"/%2F{first}/{rest}"), DENIED
    yield "an encoded backslash", ask(f"/x/..%5C..%5C{first}/{rest}"), DENIED
    yield "beside L's target", ask(path, f"X-Amz-Target: Nobody.{of.L[0]}"), EITHER
    yield "beside L's action", ask(f"{path}?Action={of.L[0]}"), EITHER
    yield "beside L's encoded action", ask(f"{path}?{encoded('Action')}={of.L[0]}"), EITHER
    yield "with a query", ask(f"{path}?a=b"), DENIED
    yield "method in lower case", request(method.lower(), path, host=in_region(of.host)), EITHER | {"bad-request"}


def rest_allowed(of: Rest) -> Iterator[tuple[str, bytes, Callable[[Received], bool] | None]]:
    """`L`, in spellings that have one reading."""
    _, method, path = of.L
    first, _, rest = path[1:].partition("/")
    host = in_region(of.host)
    yield "path", request(method, path, host=host), None
    yield "a letter encoded", request(method, f"/{encoded(first, 1)}/{rest}", host=host), None
    yield "a query", request(method, f"{path}?a=b%20c", host=host), None


# ---------------------------------------------------------------- CBOR, by hand

CLOUDWATCH = "monitoring.us-east-1.amazonaws.com"
GRANITE = "GraniteServiceVersion20100801"
CBOR = ("smithy-protocol: rpc-v2-cbor", "Content-Type: application/cbor")
ENCODED_GRANITE, FORBIDDEN_ALARMS = encoded(GRANITE, 0), "Delete%41larms"


def cbor_evasions() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    """CloudWatch speaks CBOR, JSON and the query protocol: `F` is DeleteAlarms, `L` is ListMetrics."""

    def post(path: str, *headers: str, body: bytes = b"\xa0") -> bytes:
        return request("POST", path, *(headers or CBOR), host=CLOUDWATCH, body=body)

    path, allowed = f"/service/{GRANITE}/operation/DeleteAlarms", f"/service/{GRANITE}/operation/ListMetrics"
    yield "path", post(path), DENIED
    yield "without its headers", post(path, "Accept: */*"), DENIED
    for name, spelt in (
        ("name encoded", f"/service/{GRANITE}/operation/{FORBIDDEN_ALARMS}"),
        ("service encoded", f"/service/{ENCODED_GRANITE}/operation/DeleteAlarms"),
        ("literals encoded", f"/%73ervice/{GRANITE}/%6fperation/DeleteAlarms"),
        ("a slash at the end", f"{path}/"),
        ("two slashes", f"/{path}"),
        ("two slashes inside", f"/service/{GRANITE}//operation/DeleteAlarms"),
        ("dot segments", f"/x/..{path}"),
        ("behind another path", f"/a/b{path}"),
        ("an encoded slash", f"/service/{GRANITE}/operation%2FDeleteAlarms"),
        ("L, then up to F", f"{allowed}/../DeleteAlarms"),
        ("name in lower case", f"/service/{GRANITE}/operation/deletealarms"),
        ("a service that nobody knows", "/service/Nobody/operation/DeleteAlarms"),
        ("an operation that nobody knows", f"/service/{GRANITE}/operation/Nobody"),
        ("L inside a longer path", f"{allowed}/operation/DeleteAlarms"),
    ):
        yield name, post(spelt), EITHER
    yield "F beside L's target", post(path, *CBOR, f"X-Amz-Target: {GRANITE}.ListMetrics"), AMBIGUOUS
    yield "L beside F's target", post(allowed, *CBOR, f"X-Amz-Target: {GRANITE}.DeleteAlarms"), AMBIGUOUS
    yield "L beside F's action", post(f"{allowed}?Action=DeleteAlarms"), AMBIGUOUS
    yield "L beside F's form", post(allowed, FORM, body=b"Action=DeleteAlarms&Version=2010-08-01"), AMBIGUOUS
    yield "F beside L's form", post(path, FORM, body=b"Action=ListMetrics&Version=2010-08-01"), AMBIGUOUS
    yield "F's target, JSON", post("/", JSON, f"X-Amz-Target: {GRANITE}.DeleteAlarms", body=b"{}"), DENIED
    yield "F's form", post("/", FORM, body=b"Version=2010-08-01&Action=Delete%41larms"), DENIED


# ---------------------------------------------------------------- S3

S3 = "s3.us-east-1.amazonaws.com"


def s3(method: str, target: str, *headers: str, host: str = S3, body: bytes = b"") -> bytes:
    return request(method, target, *headers, host=host, body=body)


def s3_target_evasions() -> Iterator[tuple[str, str, bytes, frozenset[str]]]:
    """A target on S3: it has none."""
    for target in (".GetObject", "s3.GetObject", "A.B", "AmazonS3.GetObject", "DynamoDB_20120810.GetItem", "GetObject", ""):
        header = f"X-Amz-Target: {target}"
        yield "s3: allow Get*", f"DELETE with {target or 'an empty target'}", s3("DELETE", "/agents/k", header), AMBIGUOUS
        yield "s3: deny DeleteObject", f"DELETE with {target or 'an empty target'}", s3("DELETE", "/pub/k", header), AMBIGUOUS
    header = "X-Amz-Target: .GetObject"
    for name, raw in (
        ("PUT", s3("PUT", "/agents/k", header, body=b"x")),
        ("PUT of a copy", s3("PUT", "/agents/k", header, "x-amz-copy-source: /other/k")),
        ("DELETE of a policy", s3("DELETE", "/agents?policy", header)),
        ("DELETE, virtual host", s3("DELETE", "/k", header, host=f"agents.{S3}")),
        ("GET", s3("GET", "/agents/k", header)),
        ("twice", s3("DELETE", "/agents/k", header, header)),
    ):
        yield "s3: allow Get*", f"{name} with .GetObject", raw, AMBIGUOUS
    yield "none", "DELETE with .GetObject", s3("DELETE", "/agents/k", header), AMBIGUOUS


UPLOAD_FORM = "Content-Type: multipart/form-data; boundary=b"


def s3_method_evasions() -> Iterator[tuple[str, str, bytes, frozenset[str]]]:
    """Calls that look like others by their keys and their queries."""
    allow, deny = "s3: allow Get*", "s3: deny DeleteObject"
    for name, raw in (
        ("PUT", s3("PUT", "/agents/k", body=b"x")),
        ("DELETE", s3("DELETE", "/agents/k")),
        ("DELETE of a policy", s3("DELETE", "/agents?policy")),
        ("DELETE of a policy, encoded", s3("DELETE", "/agents?%70olicy")),
        ("PUT of a copy", s3("PUT", "/agents/k", "x-amz-copy-source: /agents/l")),
        ("another bucket", s3("GET", "/other/k")),
        ("another bucket, virtual host", s3("GET", "/agents/k", host=f"other.{S3}")),
        ("the bucket in the key alone", s3("GET", "/agents/k", host=f"x.{S3}")),
        ("another bucket that begins so", s3("GET", "/agents-too/k")),
        ("buckets", s3("GET", "/")),
        ("a key like a CBOR path", s3("DELETE", "/agents/service/x/operation/GetObject")),
        ("a key like a CBOR path, virtual host", s3("DELETE", "/service/x/operation/GetObject", host=f"agents.{S3}")),
        ("a bucket like a CBOR path's", s3("DELETE", "/service/x/operation/GetObject")),
        ("POST of a form", s3("POST", "/agents", UPLOAD_FORM, body=MULTIPART.format(name="key", value="k").encode())),
        ("an action", s3("DELETE", "/agents/k?Action=GetObject")),
        ("an x-id", s3("DELETE", "/agents/k?x-id=GetObject")),
        ("a method in the query", s3("DELETE", "/agents/k?method=GET")),
        ("encoded slash behind the bucket", s3("DELETE", "/agents%2Fk")),
    ):  # fmt: skip
        yield allow, name, raw, EITHER
    for name, raw in (
        ("key", s3("DELETE", "/pub/k")),
        ("virtual host", s3("DELETE", "/k", host=f"pub.{S3}")),
        ("virtual host, two slashes", s3("DELETE", "//k", host=f"pub.{S3}")),
        ("a key like a CBOR path", s3("DELETE", "/pub/service/x/operation/y")),
        ("a key like a CBOR path, virtual host", s3("DELETE", "/service/x/operation/y", host=f"pub.{S3}")),
        ("a bucket called service", s3("DELETE", "/service/x/operation/y")),
        ("a version", s3("DELETE", "/pub/k?versionId=1")),
        ("a key of slashes", s3("DELETE", "/pub//")),
        ("a key with dots", s3("DELETE", "/pub/a/../k")),
        ("an encoded key", s3("DELETE", "/pub/%6B")),
        ("an encoded bucket", s3("DELETE", "/p%75b/k")),
        ("an encoded slash", s3("DELETE", "/pub%2Fk")),
        ("an x-id", s3("DELETE", "/pub/k?x-id=GetObject")),
        ("an action", s3("DELETE", "/pub/k?Action=GetObject")),
        ("an encoded x-id", s3("DELETE", "/pub/k?%78-id=GetObject")),
        ("a query that means nothing", s3("DELETE", "/pub/k?acl2=1&list-type=2")),
        ("presigned", s3("DELETE", "/pub/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a%2F20150830%2Fus-east-1%2Fs3%2Faws4_request"
                                   "&X-Amz-Date=20150830T123600Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00")),
        ("method in lower case", s3("delete", "/pub/k")),
        ("a form's type", s3("DELETE", "/pub/k", FORM, body=b"Action=GetObject")),
        ("accelerated", s3("DELETE", "/k", host="pub.s3-accelerate.amazonaws.com")),
        ("an access point", s3("DELETE", "/k", host="ap-123456789012.s3-accesspoint.us-east-1.amazonaws.com")),
    ):  # fmt: skip
        slugs = EITHER | {"bad-request"} if name in ("method in lower case", "an x-id", "an action", "an encoded x-id") else DENIED
        yield deny, name, raw, slugs
    for one, other in (("policy", "acl"), ("acl", "tagging"), ("uploads", "versions"), ("tagging", "%61cl"), ("website", "cors")):
        yield allow, f"two sub-resources: {one}, {other}", s3("GET", f"/agents?{one}&{other}"), EITHER
    yield "s3: allow GetObject", "an ACL", s3("GET", "/agents/k?acl"), DENIED
    yield "s3: allow GetObject", "an ACL, encoded", s3("GET", "/agents/k?%61cl"), DENIED
    yield "s3: allow GetObject", "an ACL with a value", s3("GET", "/agents/k?acl="), DENIED
    yield "s3: allow GetObject", "an ACL behind another", s3("GET", "/agents/k?versionId=1&acl"), DENIED
    yield "s3: allow GetObject", "a listing", s3("GET", "/agents?list-type=2"), DENIED
    yield "s3: allow GetObject", "a listing by a slash", s3("GET", "/agents/"), DENIED
    yield "s3: allow GetObject", "two sub-resources", s3("GET", "/agents/k?acl&tagging"), EITHER


SECRET = "team/secret/x"
LEGACY_HOSTS = [
    (f"team.{S3}", "/secret/x"),
    ("s3.amazonaws.com", "/team/secret/x"),
    ("team.s3.amazonaws.com", "/secret/x"),
    ("s3.dualstack.us-east-1.amazonaws.com", "/team/secret/x"),
    ("team.s3.dualstack.us-east-1.amazonaws.com", "/secret/x"),
    ("s3-fips.us-east-1.amazonaws.com", "/team/secret/x"),
    ("team.s3-fips.us-east-1.amazonaws.com", "/secret/x"),
    ("s3-fips.dualstack.us-east-1.amazonaws.com", "/team/secret/x"),
    ("team.s3-fips.dualstack.us-east-1.amazonaws.com", "/secret/x"),
    ("team.s3-accelerate.amazonaws.com", "/secret/x"),
    ("team.s3-accelerate.dualstack.amazonaws.com", "/secret/x"),
    ("s3-eu-west-1.amazonaws.com", "/team/secret/x"),
    ("team.s3-eu-west-1.amazonaws.com", "/secret/x"),
    ("s3.eu-west-1.amazonaws.com", "/team/secret/x"),
    ("S3.US-EAST-1.AMAZONAWS.COM", "/team/secret/x"),
    (f"Team.{S3}", "/secret/x"),
    (f"team.{S3}.", "/secret/x"),
    (f"team.{S3}:443", "/secret/x"),
    ("bucket.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com", "/team/secret/x"),
    ("team.bucket.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com", "/secret/x"),
]
"""Every shape of host that S3 has for one bucket."""


def s3_key_evasions() -> Iterator[tuple[str, str, bytes, frozenset[str]]]:
    """Ways to a key that a rule denies, or does not allow."""
    deny, allow = "s3: deny team/secret/*", "s3: allow team/pub/*"
    both = (deny, allow)

    for host, path in LEGACY_HOSTS:
        for rules in both:
            yield rules, f"{host}{path}", s3("GET", path, host=host), DENIED
        yield deny, f"encoded: {host}{path}", s3("GET", path.replace("secret", "%73ecre%74"), host=host), DENIED
        yield deny, f"DELETE {host}{path}", s3("DELETE", path, host=host), DENIED
    for spelt in words("""
        /t%65am/secret/x /%74%65%61%6D/secret/x /team/%73ecret/x /team/secret%2Fx /team/secret%2fx
        /team/s%65cret%2F%78 /team/secret//x /team/secret/../x /team/secret/./x /team/secret/ /team/secret/%00
        /team/secret/x%20y /team/secret/x+y /team/secret/x?versionId=1 /team/secret/x?acl /team/secret/x?tagging
        /team/secret/x?partNumber=1 /team/secret/service/a/operation/b
    """):
        for rules in both:
            yield rules, f"GET {spelt}", s3("GET", spelt), DENIED
        yield deny, f"HEAD {spelt}", s3("HEAD", spelt), DENIED
    for spelt in ("/team%2Fsecret/x", "/team%2fsecret%2fx", "/t%65am%2Fsecret/x"):
        for rules in both:
            yield rules, f"GET {spelt}", s3("GET", spelt), EITHER
    for spelt in words("""
        PUT DELETE PUT?acl PUT?tagging PUT?legal-hold PUT?retention POST?uploads POST?restore POST?select&select-type=2
        PUT?partNumber=1&uploadId=u POST?uploadId=u DELETE?uploadId=u GET?uploadId=u GET?torrent GET?attributes DELETE?tagging
    """):
        method, mark, query = spelt.partition("?")
        for rules in both:
            yield rules, spelt, s3(method, f"/{SECRET}{mark}{query}", "x-amz-object-attributes: ETag"), DENIED

    # Listings: what begins with the prefix is what they touch.
    for spelt in words("""
        /team /team/ /team?list-type=2 /team?list-type=2&prefix= /team?list-type=2&prefix=s
        /team?list-type=2&prefix=secret /team?list-type=2&prefix=secret/ /team?list-type=2&prefix=secret%2F
        /team?list-type=2&prefix=%73ecret%2f /team?prefix=secret/deep/er /team?list-type=2&pr%65fix=secret/
        /team?%70%72%65%66%69%78=secret/ /team?versions&prefix=secret/ /team?uploads&prefix=secret/ /team?versions
        /team?uploads /team?Prefix=pub/ /team?list-type=2&delimiter=/ /team?list-type=2&prefix=secret/&delimiter=%2F
        /team?list-type=2&start-after=pub/ /team?prefix /t%65am?prefix=secret/
    """):
        for rules in both:
            yield rules, f"listing {spelt}", s3("GET", spelt), DENIED
    for spelt in words("""
        /team?prefix=pub/&prefix=secret/ /team?prefix=secret/&prefix=pub/ /team?prefix=pub/&pr%65fix=secret/
        /team?prefix=pub/&prefix= /team?list-type=2&prefix=pub/&list-type=1&prefix=secret/
    """):
        for rules in both:
            yield rules, f"listing {spelt}", s3("GET", spelt), EITHER
    yield deny, "listing, virtual host", s3("GET", "/?list-type=2&prefix=secret%2F", host=f"team.{S3}"), DENIED
    yield deny, "listing, virtual host, no prefix", s3("GET", "/", host=f"team.{S3}"), DENIED
    yield allow, "listing, a prefix that the pattern does not cover", s3("GET", "/team?prefix=pub"), DENIED
    yield allow, "listing, a prefix beside the pattern", s3("GET", "/team?prefix=public/"), DENIED

    # What an access point or an alias leads to is not known.
    for host, path in (
        ("ap-123456789012.s3-accesspoint.us-east-1.amazonaws.com", "/secret/x"),
        ("ap-123456789012.s3-accesspoint.dualstack.us-east-1.amazonaws.com", "/secret/x"),
        ("ap-123456789012.s3-accesspoint-fips.us-east-1.amazonaws.com", "/secret/x"),
        ("mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com", "/secret/x"),
        (f"ap-metadata12345-s3alias.{S3}", "/secret/x"),
        (S3, "/ap-metadata12345-s3alias/secret/x"),
    ):
        for rules in both:
            yield rules, f"access point {host}{path}", s3("GET", path, host=host), DENIED
        yield deny, f"access point, listing {host}{path}", s3("GET", path.removesuffix("secret/x") + "?list-type=2", host=host), DENIED

    # A form that uploads names its key inside.
    form = MULTIPART.format(name="key", value="secret/x").encode()
    for rules in both:
        yield rules, "POST of a form", s3("POST", "/team", UPLOAD_FORM, body=form), DENIED


ACCESS_POINT = "arn:aws:s3:us-east-1:123456789012:accesspoint/ap/object/secret/x"
COPY_SOURCES = [
    *words("""
        team/secret/x /team/secret/x team%2Fsecret%2Fx %2Fteam%2Fsecret%2Fx t%65am/secret/x /team/%73ecret/x team%2fsecret/x
        team/secret/x?versionId=1 /team/secret/x?versionId=null team%2Fsecret%2Fx?versionId=1 team/secret/x%3FversionId=1
        team/secret/x+y team/secret/x%20y arn:aws:s3:::team/secret/x ap-metadata12345-s3alias/secret/x //team/secret/x /
        arn:aws:s3-outposts:us-east-1:123456789012:outpost/o/object/secret/x
    """),
    ACCESS_POINT,
    ACCESS_POINT.replace(":", "%3A").replace("/", "%2F"),
    "",
]
"""What leads to team/secret/x, or may do so."""


def copy_evasions() -> Iterator[tuple[str, str, bytes, frozenset[str]]]:
    """Sources of copies: a call touches them, too."""
    for source in COPY_SOURCES:
        header = f"x-amz-copy-source: {source}"
        for rules in ("s3: deny team/secret/*", "s3: allow team/pub/*"):
            yield rules, f"copy of {source!r}", s3("PUT", "/team/pub/k", header), EITHER
            yield rules, f"part copied of {source!r}", s3("PUT", "/team/pub/k?partNumber=1&uploadId=u", header), EITHER
    for source in ("other/k", "/other/k", "oth%65r/k", "/other/k?versionId=1", "%2561gents/k", "agents-too/k", ACCESS_POINT):
        header = f"x-amz-copy-source: {source}"
        yield "s3: allow agents/* Copy*", f"copy of {source}", s3("PUT", "/agents/k", header), EITHER
        yield "s3: allow agents/* Copy*", f"copy of {source}, virtual host", s3("PUT", "/k", header, host=f"agents.{S3}"), EITHER
        part = s3("PUT", "/agents/k?partNumber=1&uploadId=u", header)
        yield "s3: allow agents/* UploadPart*", f"part copied of {source}", part, EITHER
    two = ("x-amz-copy-source: /team/pub/x", "x-amz-copy-source: /team/secret/x")
    for rules in ("s3: deny team/secret/*", "s3: allow team/pub/*"):
        yield rules, "two copy sources", s3("PUT", "/team/pub/k", *two), EITHER
        yield rules, "two copy sources, the secret first", s3("PUT", "/team/pub/k", *reversed(two)), EITHER
    yield "s3: allow agents/* PutObject", "a copy", s3("PUT", "/agents/k", "x-amz-copy-source: /agents/l"), DENIED
    yield "s3: allow agents/* PutObject", "a copy, header in other case", s3("PUT", "/agents/k", "X-AMZ-Copy-SOURCE: /agents/l"), DENIED
    connection = ("x-amz-copy-source: /agents/l", "Connection: x-amz-copy-source, close")
    yield "s3: allow agents/* Copy*", "a copy whose source Connection names: an upload", s3("PUT", "/agents/k", *connection), EITHER
    blank = s3("PUT", "/pub/k", "x-amz-copy-source: /team/a+b/k")
    yield "s3: deny team/a b/*", "a plus is a blank", blank, DENIED
    yield "s3: deny team/a b/*", "an encoded blank", s3("PUT", "/pub/k", "x-amz-copy-source: /team/a%20b/k"), DENIED
    yield "s3: deny team/a b/*", "an encoded blank in a key", s3("GET", "/team/a%20b/k"), DENIED
    yield "s3: deny team/a b/*", "an encoded blank in a prefix", s3("GET", "/team?prefix=a%20b/"), DENIED
    zone = "zone--use1-az4--x-s3"
    host = f"{zone}.s3express-use1-az4.us-east-1.amazonaws.com"
    for source in (f"/{zone}/secret/x", f"{zone}/secret/x", f"{zone}%2Fsecret%2Fx", f"/{zone}/%73ecret/x"):
        yield (
            f"s3: deny {zone}/secret/*",
            f"renamed from {source}",
            s3("PUT", "/k?renameObject", f"x-amz-rename-source: {source}", host=host),
            EITHER,
        )
    yield f"s3: deny {zone}/secret/*", "key in a zone", s3("GET", "/secret/x", host=host), DENIED


def deletion(keys: str, before: str = "", attributes: str = "") -> bytes:
    return f"{before}<Delete{attributes}>{keys}</Delete>".encode()


def keyed(*keys: str) -> str:
    return "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)


DELETIONS: list[tuple[str, bytes, tuple[str, ...]]] = [
    ("plain", deletion(keyed("secret/x")), ()),
    ("the last of many", deletion(keyed(*(f"pub/{at}" for at in range(20)), "secret/x")), ()),
    ("decimal reference", deletion(keyed("&#115;ecret/x")), ()),
    ("hexadecimal reference", deletion(keyed("&#x73;ecret&#x2f;x")), ()),
    ("CDATA", deletion(keyed("<![CDATA[secret/x]]>")), ()),
    ("CDATA in part", deletion(keyed("sec<![CDATA[ret]]>/x")), ()),
    ("a comment inside", deletion(keyed("sec<!-- -->ret/x")), ()),
    ("a processing instruction inside", deletion(keyed("sec<?x y?>ret/x")), ()),
    ("a doctype's entity", deletion(keyed("&s;/x"), '<!DOCTYPE Delete [<!ENTITY s "secret">]>'), ()),
    ("a doctype", deletion(keyed("secret/x"), "<!DOCTYPE Delete>"), ()),
    ("a default namespace", deletion(keyed("secret/x"), attributes=' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'), ()),
    (
        "a prefixed namespace",
        b'<s:Delete xmlns:s="http://s3.amazonaws.com/doc/2006-03-01/"><s:Object><s:Key>secret/x</s:Key></s:Object></s:Delete>',
        (),
    ),
    ("attributes", deletion("<Object a=\"&gt;\"><Key b='c'>secret/x</Key></Object>"), ()),
    ("blanks in the tags", deletion("<Object\n><Key\t>secret/x</Key ></Object >"), ()),
    ("a version before", deletion("<Object><VersionId>1</VersionId><Key>secret/x</Key></Object>"), ()),
    ("two keys in one object", deletion("<Object><Key>pub/x</Key><Key>secret/x</Key></Object>"), ()),
    ("a commented-out end", deletion(f"<!-- </Delete> -->{keyed('secret/x')}"), ()),
    ("a declaration", deletion(keyed("secret/x"), '<?xml version="1.0" encoding="UTF-8"?>'), ()),
    ("another coding declared", deletion(keyed("secret/x"), '<?xml version="1.0" encoding="ISO-8859-1"?>'), ()),
    ("utf-16", deletion(keyed("secret/x"), '<?xml version="1.0" encoding="UTF-16"?>').decode().encode("utf-16"), ()),
    ("a byte order mark", b"\xef\xbb\xbf" + deletion(keyed("secret/x")), ()),
    ("gzip", gzip.compress(deletion(keyed("secret/x"))), ("Content-Encoding: gzip",)),
    ("in other case", b"<delete><object><key>secret/x</key></object></delete>", ()),
    ("no XML", b"secret/x", ()),
    ("not closed", b"<Delete><Object><Key>secret/x", ()),
    ("empty", b"", ("Content-Length: 0",)),
    ("JSON", b'{"Object": [{"Key": "secret/x"}]}', ("Content-Type: application/json",)),
    ("a form's type", deletion(keyed("secret/x")), (FORM,)),
]
"""Multi-object deletes that touch secret/x, or may do so."""


def deletion_evasions() -> Iterator[tuple[str, str, bytes, frozenset[str]]]:
    for name, body, headers in DELETIONS:
        for rules in ("s3: deny team/secret/*", "s3: allow team/pub/*"):
            yield rules, f"delete many: {name}", s3("POST", "/team?delete", *headers, body=body), EITHER
    body = deletion(keyed("pub/x", "secret/x"))
    for name, raw in (
        ("virtual host", s3("POST", "/?delete", host=f"team.{S3}", body=body)),
        ("a value", s3("POST", "/team?delete=", body=body)),
        ("a slash", s3("POST", "/team/?delete", body=body)),
        ("encoded", s3("POST", "/team?%64elete", body=body)),
        ("encoded bucket", s3("POST", "/t%65am?delete", body=body)),
        ("an x-id", s3("POST", "/team?delete&x-id=DeleteObjects", body=body)),
        ("in chunks", s3("POST", "/team?delete", "Transfer-Encoding: chunked") + chunked(body)),
    ):
        yield "s3: deny team/secret/*", f"delete many: {name}", raw, DENIED
    digest = "x-amz-checksum-crc32: AAAAAA=="
    framed = b"%x\r\n%s\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n" % (len(body), body)
    headers = (
        "Content-Encoding: aws-chunked", "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-trailer: x-amz-checksum-crc32",
        f"x-amz-decoded-content-length: {len(body)}",
    )  # fmt: skip
    yield "s3: deny team/secret/*", "delete many: aws-chunked", s3("POST", "/team?delete", *headers, body=framed), DENIED
    yield "s3: deny team/secret/*", "delete many: with a checksum", s3("POST", "/team?delete", digest, body=body), DENIED
    long = deletion(f"<Quiet>true</Quiet>{' ' * 2000}{keyed('secret/x')}")
    yield "s3: deny team/secret/*, hold 1 kB", "delete many: beyond body.hold", s3("POST", "/team?delete", body=long), DENIED
    many = deletion(keyed(*(f"pub/{at}" for at in range(200))))
    yield (
        "s3: deny team/secret/*, hold 1 kB",
        "delete many: beyond body.hold, nothing secret",
        s3("POST", "/team?delete", body=many),
        DENIED,
    )


def path_evasions() -> Iterator[tuple[str, str, bytes, frozenset[str]]]:
    """Rules on hosts and paths see the path as the service will."""
    rules = "path: deny /secrets/*"
    for spelt in words("""
        /secrets/x /%73ecrets/x /secrets%2fx /secrets%2Fx /%73%65%63%72%65%74%73/x /secr%65ts%2F%78 /secrets/x?a=b
        /secrets/
    """):
        yield rules, f"S3 {spelt}", s3("GET", spelt), DENIED
        yield rules, f"API {spelt}", request("GET", spelt, host="abc123.execute-api.us-east-1.amazonaws.com"), DENIED
    for spelt in words("""
        //secrets/x /./secrets/x /a/../secrets/x /a/%2e%2e/secrets/x /%2E/secrets/x /secrets/./x /a/b/../../secrets/x
        /../secrets/x /a/..%2Fsecrets/x /secrets//x /%2Fsecrets/x /.%2Fsecrets/x
    """):
        yield rules, f"API {spelt}", request("GET", spelt, host="abc123.execute-api.us-east-1.amazonaws.com"), DENIED


def other_evasions() -> Iterator[tuple[str, str, bytes, frozenset[str]]]:
    """Names in other case, buckets that look like hosts, bodies beyond what is held, the mode for migration."""
    forms = {"DeleteQueue": request("POST", "/", FORM, host=in_region("sqs"), body=b"Action=DeleteQueue&Version=2012-11-05")}
    yield "names in other case", "sqs:DeleteQueue", forms["DeleteQueue"], DENIED
    yield (
        "names in other case",
        "target",
        request("POST", "/", JSON, "X-Amz-Target: AmazonSQS.DeleteQueue", host=in_region("sqs"), body=b"{}"),
        DENIED,
    )
    yield "names in other case", "s3:DeleteObject", s3("DELETE", "/pub/k"), DENIED
    yield "names in other case", "lambda:DeleteFunction", request("DELETE", "/2015-03-31/functions/f", host=in_region("lambda")), DENIED
    control = "x.s3-control.y"
    for host, path in ((f"{control}.{S3}", "/secret/x"), (S3, f"/{control}/secret/x"), (f"{control}.s3.amazonaws.com", "/secret/x")):
        for method in ("GET", "DELETE"):
            yield f"s3: deny {control}/secret/*", f"{method} {host}{path}", s3(method, path, host=host), DENIED
        yield f"s3: allow {control}/* Get*", f"DELETE {host}{path}", s3("DELETE", path, host=host), DENIED
    yield f"s3: allow {control}/* Get*", "another bucket", s3("GET", "/other/x"), DENIED
    for at, of in enumerate(QUERIES):
        host, plain = in_region(of.host), f"Action={of.F}&Version={of.version}"
        for name, body in (("padded", f"x={'y' * 2000}&{plain}"), ("padded behind", f"{plain}&x={'y' * 2000}")):
            for rules in ("calls: deny F, hold 1 kB", "calls: allow L, hold 1 kB"):
                slugs = DENIED
                yield rules, f"{of.service}: {name} beyond body.hold", request("POST", "/", FORM, host=host, body=body.encode()), slugs
        if at < 2:
            both = f"Action={of.L}&x={'y' * 2000}&Action={of.F}&Version={of.version}"
            for rules in ("calls: deny F, hold 1 kB", "calls: allow L, hold 1 kB"):
                yield rules, f"{of.service}: L, F beyond body.hold", request("POST", "/", FORM, host=host, body=both.encode()), EITHER
    report = "calls: deny F, report"
    yield report, "what is known", forms["DeleteQueue"], DENIED
    yield (
        report,
        "two targets",
        request("POST", "/", JSON, *["X-Amz-Target: AmazonSQS.ListQueues"] * 2, host=in_region("sqs"), body=b"{}"),
        AMBIGUOUS,
    )
    yield report, "two actions", request("GET", "/?Action=ListQueues&Action=DeleteQueue", host=in_region("sqs")), AMBIGUOUS
    twice = request("POST", "/?Action=ListQueues", FORM, host=in_region("sqs"), body=b"Action=DeleteQueue")
    yield "none", "query and form", twice, AMBIGUOUS
    yield (
        "none",
        "two targets",
        request("POST", "/", JSON, *["X-Amz-Target: AmazonSQS.ListQueues"] * 2, host=in_region("sqs"), body=b"{}"),
        AMBIGUOUS,
    )
    point = "ap-123456789012.s3-accesspoint.us-east-1.amazonaws.com"
    yield "s3: an access point by its label, deny", "host", s3("GET", "/secret/x", host=point), DENIED
    yield "s3: an access point by its label, deny", "FIPS host", s3("GET", "/secret/x", host=point.replace("point.", "point-fips.")), DENIED
    yield "s3: an access point by its label, deny", "encoded", s3("GET", "/%73ecret%2Fx", host=point), DENIED
    yield "s3: an access point by its label, allow", "another key", s3("GET", "/secret/x", host=point), DENIED
    yield (
        "s3: an access point by its label, allow",
        "another access point",
        s3("GET", "/pub/x", host=point.replace("ap-", "other-")),
        DENIED,
    )
    yield "s3: an access point by its label, allow", "another call", s3("DELETE", "/pub/x", host=point), DENIED


# ---------------------------------------------------------------- what must pass

FUNCTION = "arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Af"


def same_key(*keys: bytes) -> Callable[[Received], bool]:
    """The upstream reads one of these paths."""
    return lambda received: unquote_to_bytes(received.target.partition("?")[0]) in keys


def allowed_rows() -> Iterator[tuple[str, str, bytes, Callable[[Received], bool] | None]]:
    """Odd, but with one reading; or unknown where no rule asks."""
    get = "s3: allow Get*"
    for key in words("""
        a//b a/../b ../b a%2Fb a%2fb service/x/operation/y a+b a%2Bb a%20b . ./x %C3%A9 %c3%a9 / // k/ %6B a%25b a:b
        a%3Ab a=b&c ~x %7Ex a*b (a) %28a%29 a;b a@b a%3Fb
    """):
        wanted = unquote_to_bytes(key)
        yield get, f"key {key}", s3("GET", f"/agents/{key}"), same_key(b"/agents/" + wanted)
        yield get, f"key {key}, virtual host", s3("GET", f"/{key}", host=f"agents.{S3}"), same_key(b"/" + wanted)
        yield "s3: deny DeleteObject", f"PUT key {key}", s3("PUT", f"/pub/{key}", body=b"x"), same_key(b"/pub/" + wanted)
    for host, path in LEGACY_HOSTS:
        public = path.replace("secret", "pub")
        yield "s3: allow team/pub/*", f"{host}{public}", s3("GET", public, host=host), same_key(public.encode())
        yield "s3: deny team/secret/*", f"{host}{public}", s3("GET", public, host=host), same_key(public.encode())
    yield get, "an encoded bucket", s3("GET", "/%61gents/k"), same_key(b"/agents/k")
    yield get, "a policy", s3("GET", "/agents?policy"), None
    yield get, "a version", s3("GET", "/agents/k?versionId=1&x-id=GetObject"), None
    yield get, "an override of the answer's headers", s3("GET", "/agents/k?response-content-type=a%2Fb"), None
    allow, deny = "s3: allow team/pub/*", "s3: deny team/secret/*"
    for rules in (allow, deny):
        yield rules, "a listing", s3("GET", "/team?list-type=2&prefix=pub/"), None
        yield rules, "a listing, encoded", s3("GET", "/team?list-type=2&pr%65fix=p%75b%2Fmore"), None
        yield rules, "a listing's page", s3("GET", "/team?list-type=2&prefix=pub%2F&continuation-token=a%2Bb&max-keys=5"), None
        yield rules, "a copy", s3("PUT", "/team/pub/k", "x-amz-copy-source: /team/pub/x"), None
        yield rules, "a copy, encoded", s3("PUT", "/team/pub/k", "x-amz-copy-source: team%2Fpub%2Fx%2By"), None
        yield rules, "a copy of a version", s3("PUT", "/team/pub/k", "x-amz-copy-source: team/pub/x?versionId=secret/x"), None
        yield rules, "a part copied", s3("PUT", "/team/pub/k?partNumber=1&uploadId=u", "x-amz-copy-source: /team/pub/x"), None
        body = deletion(keyed("pub/x", "pub/&amp;y", "pub/<![CDATA[<z>]]>"), attributes=' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"')
        yield rules, "many deleted", s3("POST", "/team?delete", XML, body=body), lambda received: b"pub/&amp;y" in received.body
    yield deny, "another bucket", s3("GET", "/other/secret/x"), same_key(b"/other/secret/x")
    yield deny, "a key that holds the pattern", s3("GET", "/team/pub/secret/x"), same_key(b"/team/pub/secret/x")
    yield deny, "buckets", s3("GET", "/"), None
    yield deny, "a bucket's policy", s3("GET", "/team?policy"), None
    yield deny, "a bucket's head", s3("HEAD", "/team"), None
    yield "s3: allow agents/* Copy*", "a copy", s3("PUT", "/agents/k", "x-amz-copy-source: /agents/l"), None
    yield (
        "s3: allow agents/* UploadPart*",
        "a part copied",
        s3("PUT", "/agents/k?partNumber=1&uploadId=u", "x-amz-copy-source: agents/l"),
        None,
    )
    yield "s3: allow agents/* UploadPart*", "a part", s3("PUT", "/agents/k?partNumber=1&uploadId=u", body=b"x"), None
    yield "s3: allow GetObject", "an object", s3("GET", "/agents/k"), None
    framed = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
    headers = (
        "Content-Encoding: aws-chunked", "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-trailer: x-amz-checksum-crc32",
        "x-amz-decoded-content-length: 5",
    )  # fmt: skip
    upload = s3("PUT", "/agents/k", *headers, body=framed)
    yield "s3: allow agents/* PutObject", "aws-chunked", upload, lambda received: unwrapped(received.body).body == b"hello"
    yield "s3: allow agents/* PutObject", "an upload", s3("PUT", "/agents/k", "Content-Type: text/plain", body=b"x"), None
    yield "s3: allow agents/* PutObject", "an upload as a form's type", s3("PUT", "/agents/k", FORM, body=b"Action=DeleteObject"), None
    yield "s3: deny team/a b/*", "an encoded plus", s3("GET", "/team/a%2Bb/k"), same_key(b"/team/a+b/k")
    yield "s3: deny team/a b/*", "a plus in a key", s3("GET", "/team/a+b/k"), same_key(b"/team/a+b/k")
    control = "x.s3-control.y"
    yield f"s3: allow {control}/* Get*", "virtual host", s3("GET", "/secret/x", host=f"{control}.{S3}"), None
    yield f"s3: allow {control}/* Get*", "path", s3("GET", f"/{control}/secret/x"), None
    point = "ap-123456789012.s3-accesspoint.us-east-1.amazonaws.com"
    yield "s3: an access point by its label, allow", "a key", s3("GET", "/pub/x", host=point), None
    yield "s3: an access point by its label, deny", "another key", s3("GET", "/pub/x", host=point), None

    # ARNs in labels keep their slashes and colons.
    for name, path in (
        ("an ARN", f"/2015-03-31/functions/{FUNCTION}"),
        ("an ARN as it is", "/2015-03-31/functions/arn:aws:lambda:us-east-1:123456789012:function:f"),
        ("lower-case hex", f"/2015-03-31/functions/{FUNCTION.replace('%3A', '%3a')}"),
    ):
        yield "calls: allow L", name, request("GET", path, host=in_region("lambda")), same_key(unquote_to_bytes(path))
        yield "calls: deny F", name, request("GET", path, host=in_region("lambda")), same_key(unquote_to_bytes(path))
    tags = "/tags/arn%3Aaws%3Aapigateway%3Aus-east-1%3A%3A%2Frestapis%2Fr"
    yield (
        "calls: allow L",
        "a slash in an ARN",
        request("GET", tags, host=in_region("apigateway")),
        lambda received: "%2Frestapis%2F" in received.target,
    )
    cluster = "/tags/arn:aws:eks:us-east-1:123456789012:cluster%2Fc"
    yield (
        "calls: allow L",
        "a cluster's tags",
        request("GET", cluster, host=in_region("eks")),
        lambda received: "cluster%2Fc" in received.target,
    )
    yield "calls: allow L", "CBOR", request("POST", f"/service/{GRANITE}/operation/ListMetrics", *CBOR, host=CLOUDWATCH, body=b"\xa0"), None
    yield "calls: deny F", "CBOR", request("POST", f"/service/{GRANITE}/operation/ListMetrics", *CBOR, host=CLOUDWATCH, body=b"\xa0"), None

    # No rule asks: what is unknown passes.
    sqs, old = in_region("sqs"), b"Action=ListQueues&Version=2012-11-05"
    for rules in ("none", "calls: deny others", "s3: deny team/secret/*", "s3: allow Get*, all but S3"):
        yield rules, "SQS, no content type", request("POST", "/", host=sqs, body=old), lambda received: received.body == old
        yield rules, "SQS, text/plain", request("POST", "/", "Content-Type: text/plain", host=sqs, body=old), None
        yield rules, "SQS, an old target", request("POST", "/", JSON, "X-Amz-Target: AmazonSQSOld.ListQueues", host=sqs, body=b"{}"), None
        yield rules, "DynamoDB, an old target", request(
            "POST", "/", JSON, "X-Amz-Target: DynamoDB_20111205.GetItem", host=in_region("dynamodb"), body=b"{}"
        ), lambda received: received.get("x-amz-target") == "DynamoDB_20111205.GetItem"  # fmt: skip
        yield rules, "Lambda, two slashes", request("GET", "/2015-03-31//functions/f", host=in_region("lambda")), None
        yield rules, "an API's own path", request("GET", "/a%2Fb/c", host="abc123.execute-api.us-east-1.amazonaws.com"), None
        yield rules, "gzip", request("POST", "/", FORM, "Content-Encoding: gzip", host=in_region("sns"), body=gzip.compress(old)), None
        yield (
            rules,
            "a new service",
            request("POST", "/", JSON, "X-Amz-Target: New.Call", dummy("brandnew"), host="brandnew.us-east-1.amazonaws.com", body=b"{}"),
            None,
        )
    yield "none", "S3, a key like a CBOR path", s3("DELETE", "/service/x/operation/y"), None
    yield "none", "S3, two sub-resources in an odd key", s3("GET", "/b/policy&acl"), None
    long = old + b"&x=" + b"y" * 2000
    yield (
        "none, hold 1 kB",
        "a form beyond body.hold",
        request("POST", "/", FORM, host=sqs, body=long),
        lambda received: received.body == long,
    )
    yield "calls: deny F, report", "no content type", request("POST", "/", host=sqs, body=b"Action=DeleteQueue"), None
    yield "calls: deny F, report", "an old target", request("POST", "/", JSON, "X-Amz-Target: Old.DeleteQueue", host=sqs, body=b"{}"), None
    yield "calls: deny F, report", "two slashes", request("DELETE", "/2015-03-31//functions/f", host=in_region("lambda")), None
    yield "path: deny /secrets/*", "another path", s3("GET", "/secret/x"), same_key(b"/secret/x")
    yield "path: deny /secrets/*", "deeper", request("GET", "/a/secrets/x", host="abc123.execute-api.us-east-1.amazonaws.com"), None
    yield "names in other case", "sqs:ListQueues", request("GET", "/?Action=ListQueues", host=sqs), None
    yield "names in other case", "s3:GetObject", s3("GET", "/pub/k"), None


# ---------------------------------------------------------------- rules and rows


FORBIDDEN = (
    [f"{of.service}:{of.F}" for of in (*QUERIES, *TARGETS)] + [f"{of.service}:{of.F[0]}" for of in RESTS] + ["cloudwatch:DeleteAlarms"]
)
ALLOWED = [
    *(f"{of.service}:{of.L}" for of in (*QUERIES, *TARGETS)), *(f"{of.service}:{of.L[0]}" for of in RESTS),
    "cloudwatch:ListMetrics", "apigateway:GetTags", "eks:ListTagsForResource",
]  # fmt: skip
REST = {"host": "*"}
NOTHING_ELSE = {"operation": "*:*", "action": "deny"}


def deny(**conditions: str) -> dict[str, str]:
    return {**conditions, "action": "deny"}


def settings_of(rules: str) -> dict[str, Any]:
    """The settings that a name stands for; routes that sign go to the test's upstream."""
    zone = "zone--use1-az4--x-s3"
    base, _, extra = rules.partition(", hold 1 kB")
    base, report, _ = base.partition(", report")
    routes: dict[str, list[dict[str, str]]] = {
        "none": [REST],
        "calls: allow L": [*({"operation": name} for name in ALLOWED), NOTHING_ELSE],
        "calls: deny F": [*(deny(operation=name) for name in FORBIDDEN), REST],
        "calls: deny others": [deny(operation="s3:DeleteObject"), deny(operation="iam:*"), deny(bucket="b/*", operation="s3:Put*"), REST],
        "s3: allow Get*": [{"bucket": "agents/*", "operation": "s3:Get*"}, NOTHING_ELSE],
        "s3: allow Get*, all but S3": [{"bucket": "agents/*", "operation": "s3:Get*"}, deny(operation="s3:*"), REST],
        "s3: allow GetObject": [{"bucket": "agents", "operation": "s3:GetObject"}, deny(host="*")],
        "s3: allow agents/* PutObject": [{"bucket": "agents/*", "operation": "s3:PutObject"}, NOTHING_ELSE],
        "s3: allow agents/* Copy*": [{"bucket": "agents/*", "operation": "s3:Copy*"}, NOTHING_ELSE],
        "s3: allow agents/* UploadPart*": [{"bucket": "agents/*", "operation": "s3:UploadPart*"}, deny(host="*")],
        "s3: deny DeleteObject": [deny(operation="s3:DeleteObject"), REST],
        "s3: deny team/secret/*": [deny(bucket="team/secret/*"), REST],
        "s3: allow team/pub/*": [{"bucket": "team/pub/*"}, deny(host="*")],
        "s3: deny team/a b/*": [deny(bucket="team/a b/*"), REST],
        f"s3: deny {zone}/secret/*": [deny(bucket=f"{zone}/secret/*"), REST],
        "s3: deny x.s3-control.y/secret/*": [deny(bucket="x.s3-control.y/secret/*"), REST],
        "s3: allow x.s3-control.y/* Get*": [{"bucket": "x.s3-control.y/*", "operation": "s3:Get*"}, NOTHING_ELSE],
        "s3: an access point by its label, deny": [deny(bucket="ap-123456789012/secret/*"), REST],
        "s3: an access point by its label, allow": [{"bucket": "ap-123456789012/pub/*", "operation": "s3:Get*"}, NOTHING_ELSE],
        "path: deny /secrets/*": [
            deny(host="s3.*.amazonaws.com", path="/secrets/*"), deny(host="*.execute-api.*", path="/secrets/*"), REST,
        ],
        "names in other case": [
            deny(operation="SQS:deletequeue"), deny(operation="s3:DELETEobject"), deny(operation="Lambda:deleteFunction"), REST,
        ],
    }  # fmt: skip
    more: dict[str, Any] = {"body": {"hold": 1024}} if base != rules and not report and not extra else {}
    return {"routes": routes[base], **({"rules": {"unknown": "report"}} if report else {}), **more}


def all_rows() -> list[Row]:
    rows = []
    kinds: list[tuple[str, Iterable[tuple[str, bytes, frozenset[str]]], Iterable[tuple[str, bytes, Callable[[Received], bool] | None]]]] = [
        *((f"{of.service}, query", query_evasions(of), query_allowed(of)) for of in QUERIES),
        *((f"{of.service}, JSON", target_evasions(of), target_allowed(of)) for of in TARGETS),
        *((f"{of.service}, REST", rest_evasions(of), rest_allowed(of)) for of in RESTS),
        ("cloudwatch, CBOR", cbor_evasions(), ()),
    ]
    for service, evasions, allowed in kinds:
        refused = [Row(f"{service}: {name}", "calls: deny F", raw, slugs) for name, raw, slugs in evasions]
        passed = [Row(f"{service}, allowed: {name}", "calls: deny F", raw, reads=reads) for name, raw, reads in allowed]
        rows += [replace(row, rules=rules) for row in refused + passed for rules in ("calls: deny F", "calls: allow L")]
    for source in (
        s3_target_evasions, s3_method_evasions, s3_key_evasions, copy_evasions, deletion_evasions, path_evasions, other_evasions,
    ):  # fmt: skip
        rows += [Row(name, rules, raw, slugs) for rules, name, raw, slugs in source()]
    rows += [Row(name, rules, raw, reads=reads) for rules, name, raw, reads in allowed_rows()]
    return rows


ROWS = all_rows()
RULES = list(dict.fromkeys(row.rules for row in ROWS))


def read_as(raw: bytes) -> tuple[str, bytes, list[tuple[str, str]]]:
    """Method, path and query, as who reads them once sees them."""
    method, target, _ = raw.split(b"\r\n", 1)[0].decode().split(" ")
    path, _, query = target.partition("?")
    return method, unquote_to_bytes(path), parse_qsl(query, keep_blank_values=True)


async def outcome(proxy: Proxy, row: Row) -> str | None:
    """What is wrong with what became of a row."""
    upstream = proxy.upstream
    upstream.received.clear()
    try:
        response = await proxy.ask(row.raw)
    except Exception as error:
        return f"no answer: {error!r}"
    slug = response.get("x-sigward-error")
    if row.slugs:
        if upstream.received:
            return f"reached the upstream as {upstream.received[0].method} {upstream.received[0].target[:120]}"
        if slug not in row.slugs:
            return f"refused with {response.status} {slug}, not {' or '.join(sorted(row.slugs))}"
        return (
            None
            if response.status == (400 if slug in ("ambiguous-call", "bad-request") else 403)
            else f"{slug} with status {response.status}"
        )
    if response.status != 200 or len(upstream.received) != 1:
        return f"is allowed, but was refused with {response.status} {slug}: {response.get('x-sigward-reason') or response.body[:200]!r}"
    received = upstream.received[0]
    if not (received.get("authorization") or "").startswith(f"AWS4-HMAC-SHA256 Credential={KEY}/"):
        return "went out unsigned"
    sent = read_as(f"{received.method} {received.target} HTTP/1.1\r\n".encode())
    if sent[0] != read_as(row.raw)[0] or sorted(sent[2]) != sorted(read_as(row.raw)[2]):
        return f"went out as {received.method} {received.target}"
    if row.reads and not row.reads(received):
        return f"reads as another call: {received.method} {received.target} {received.body[:80]!r}"
    return None


@pytest.mark.parametrize("rules", RULES)
async def test_evasions(start: Start, rules: str) -> None:
    rows = [row for row in ROWS if row.rules == rules]
    async with Upstream(hosts=tuple({row.host: None for row in rows})) as upstream:
        settings = settings_of(rules)
        connect = f"127.0.0.1:{upstream.port}"
        routes = [route if route.get("action") else {**route, "connect": connect} for route in settings.pop("routes")]
        proxy = await start(upstream, routes=routes, pace={"defaults": False}, **settings)
        wrong = [(row, found) for row in rows if (found := await outcome(proxy, row))]
    listed = "\n".join(f"  {row.name}: {found}" for row, found in wrong)
    assert not wrong, f"{len(wrong)} of {len(rows)} rows under {rules!r}:\n{listed}"


def test_the_table_is_as_large_as_it_says() -> None:
    assert len(ROWS) == len({(row.rules, row.name) for row in ROWS}), "two rows have one name"
    assert len([row for row in ROWS if row.slugs]) >= 150
    assert len([row for row in ROWS if not row.slugs]) >= 100
    for rules in RULES:
        kinds = {bool(row.slugs) for row in ROWS if row.rules == rules}
        assert True in kinds or rules.startswith(("none", "calls: deny others", "s3: allow Get*, all")), rules
        assert False in kinds or "hold 1 kB" in rules or "zone" in rules or "control.y/secret" in rules, rules


# ---------------------------------------------------------------- more than a row


@pytest.mark.parametrize("path", ["/team/x", "/other/x", "/secret/x"])
async def test_an_upstream_in_the_place_of_a_virtual_host_loses_no_bucket(start: Start, upstream: Upstream, path: str) -> None:
    """The Host that named the bucket is gone: the bucket is in the path that is sent, or nothing is sent."""
    target = f"https://localhost:{upstream.port}"
    proxy = await start(upstream, routes=[{"host": f"*.{S3}", "bucket": "team/*", "upstream": target, "service": "s3"}, deny(host="*")])
    response = await proxy.ask(s3("GET", path, host=f"team.{S3}"))
    if upstream.received:
        assert upstream.received[0].target == f"/team{path}"
    else:
        assert response.status in (400, 403), response


@pytest.mark.parametrize("path", ["/secret/x", "/x"])
async def test_an_upstream_in_the_place_of_a_virtual_host_is_denied_what_it_would_read(start: Start, upstream: Upstream, path: str) -> None:
    target = f"https://localhost:{upstream.port}"
    routes = [deny(bucket="secret/*"), deny(bucket="team/secret/*"), {"host": "*", "upstream": target, "service": "s3"}]
    proxy = await start(upstream, routes=routes)
    response = await proxy.ask(s3("GET", path, host=f"team.{S3}"))
    if path == "/secret/x":
        assert (response.status, upstream.received) == (403, [])
    else:
        assert all(received.target == f"/team{path}" for received in upstream.received)


@pytest.mark.parametrize(
    "edit",
    [
        {"add_headers": {"x-amz-target": "AmazonSQS.DeleteQueue"}},
        {"copy_headers": {"x-mine": "X-Amz-Target"}},
        {"remove_headers": ["x-amz-target"]},
        {"add_headers": {"X-Amz-Copy-Source": "/other/k"}},
        {"copy_headers": {"x-mine": "x-amz-copy-source"}},
        {"remove_headers": ["x-amz-copy-source"]},
    ],
)
def test_edits_of_headers_that_name_a_call_are_refused_at_load(upstream_ca: Any, edit: dict[str, Any]) -> None:
    with pytest.raises(_core.SettingsError, match=next(iter(edit))):
        _core.Engine(engine_settings(1, upstream_ca, routes=[{"host": "*", **edit}])).close()


@pytest.fixture
def upstream_ca(tmp_path: Any) -> Any:
    return Upstream().write_ca(tmp_path / "upstream.pem")


@pytest.mark.parametrize("name", ["x-served-by", "x-mine"])
async def test_edits_of_other_headers_hold_under_a_rule(start: Start, upstream: Upstream, name: str) -> None:
    routes = [
        {"operation": "sqs:ListQueues", "add_headers": {name: "a"}, "connect": f"127.0.0.1:{upstream.port}"},
        NOTHING_ELSE,
    ]
    proxy = await start(upstream, routes=routes)
    response = await proxy.ask(request("POST", "/", JSON, "X-Amz-Target: AmazonSQS.ListQueues", body=b"{}"))
    assert (response.status, upstream.received[0].get(name)) == (200, "a")


async def test_a_plus_in_a_query_is_decided_on_as_it_is_sent(start: Start, upstream: Upstream) -> None:
    """A form's blank, or a plus: who reads what was sent must not read what the rule denies."""
    routes = [deny(bucket="team/a b/*"), {"host": "*", "connect": f"127.0.0.1:{upstream.port}"}]
    proxy = await start(upstream, routes=routes)
    await proxy.ask(s3("GET", "/team?prefix=a+b/"))
    assert all(dict(read_as(f"GET {received.target} \r\n".encode())[2])["prefix"] == "a+b/" for received in upstream.received)


async def test_a_refusal_says_which_rule_and_what_is_unknown(start: Start, upstream: Upstream) -> None:
    routes = [{"name": "no-deletes", **deny(operation="sqs:DeleteQueue")}, {"host": "*", "connect": f"127.0.0.1:{upstream.port}"}]
    proxy = await start(upstream, routes=routes)
    refused = await proxy.ask(request("POST", "/", body=b"Action=ListQueues"))
    assert (refused.status, refused.get("x-sigward-error"), upstream.received) == (403, "denied", [])
    assert "no-deletes" in (refused.get("x-sigward-reason") or ""), refused
    told = refused.body.decode()
    assert "no-deletes" in told or "no-deletes" in base64.b64encode(refused.body).decode(), told
    head = await proxy.ask(s3("HEAD", "/b/k", "X-Amz-Target: a.b"))
    assert (head.status, head.get("x-sigward-error"), head.body) == (400, "ambiguous-call", b"")
    assert head.get("x-sigward-reason")
