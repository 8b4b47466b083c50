"""Requests as botocore serialises them, and what may be made of them: other spellings, calls named twice, parts of different calls."""

import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from sigward.knowledge.report import requests

Headers = list[tuple[bytes, bytes]]
FORM = b"application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Spelt:
    """One request. `service`, `operation`: what it was before anything was made of it; `by`: what was."""

    service: str
    operation: str
    method: str
    host: str
    target: str
    headers: Headers
    body: bytes
    by: tuple[str, ...] = field(default=())

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def pairs(self) -> list[str]:
        """Of the query."""
        query = self.target.partition("?")[2]
        return query.split("&") if query else []

    @property
    def is_form(self) -> bool:
        return any(name == b"content-type" and value.startswith(FORM) for name, value in self.headers)

    def at(self, path: str | None = None, pairs: Iterable[str] | None = None) -> "Spelt":
        """At another path, or with another query."""
        query = "&".join(self.pairs if pairs is None else pairs)
        target = self.path if path is None else path
        return replace(self, target=f"{target}?{query}" if query else target)

    def raw(self) -> bytes:
        """As HTTP/1.1."""
        lines = [f"{self.method} {self.target} HTTP/1.1".encode(), b"Host: " + self.host.encode()]
        lines += [name + b": " + value for name, value in self.headers]
        if self.body or self.method in ("POST", "PUT", "PATCH"):
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join([*lines, b"", b""]) + self.body


REGION = "us-east-1"
S3_HOSTS = [
    f"s3.{REGION}",
    "s3",
    f"s3.dualstack.{REGION}",
    f"s3-fips.{REGION}",
    "s3-eu-west-1",
    "s3.eu-west-1",
    f"s3-fips.dualstack.{REGION}",
]
BUCKETS = ["text", "secret", "a.b", "x.s3-control.y", "my-s3.bucket", "123"]
KEYS = [
    "text",
    "secret/x",
    "a//b",
    "../x",
    "a/./b",
    "a%2Fb",
    "a+b",
    "a%20b",
    "service/x/operation/y",
    "%C3%A9",
    "k/",
    "a:b",
    "policy",
    "a%3Facl",
]


def hosts() -> dict[str, str]:
    """By service: where botocore sends its requests in REGION; without those that sigward knows to take no Signature Version 4."""
    from botocore.endpoint_provider import EndpointProvider
    from botocore.exceptions import EndpointProviderError, UnknownServiceError
    from botocore.session import Session

    loader = Session().get_component("data_loader")
    partitions = loader.load_data("partitions")
    found = {}
    for name in loader.list_available_services("service-2"):
        try:
            rules = loader.load_service_model(name, "endpoint-rule-set-1")
        except UnknownServiceError:
            continue
        defaults = {name: what["default"] for name, what in rules["parameters"].items() if "default" in what}
        region = {"Region": REGION} if "Region" in rules["parameters"] else {}
        try:
            endpoint = EndpointProvider(rules, partitions).resolve_endpoint(**defaults | region)
        except EndpointProviderError:
            continue
        found[name] = urlsplit(endpoint.url).hostname or ""
    return found


def serialised(service: str, host: str, chance: random.Random, most: int | None = None) -> Iterator[Spelt]:
    """A service's operations, in each protocol that it speaks; `most`: of so many operations."""
    from botocore.model import ServiceModel
    from botocore.session import Session

    model = ServiceModel(Session().get_component("data_loader").load_service_model(service, "service-2"), service)
    names = list(model.operation_names)
    if most is not None and len(names) > most:
        names = chance.sample(names, most)
    for name in names:
        operation = model.operation_model(name)
        prefix = re.sub(r"{\w+}", "123456789012", (operation.endpoint or {}).get("hostPrefix", ""))  # type: ignore[call-overload]
        for request in requests(model, operation):
            yield spelt(service, name, prefix + host, request)


def spelt(service: str, operation: str, host: str, request: dict[str, Any]) -> Spelt:
    """One of botocore's requests."""
    query, target, body = request["query_string"], request["url_path"], request["body"]
    if isinstance(query, dict):
        query = urlencode(query, doseq=True, quote_via=quote)
    if query:
        target = f"{target}{'&' if '?' in target else '?'}{query}"
    headers = [(name.lower().encode(), str(text).encode()) for name, text in request["headers"].items()]
    if isinstance(body, dict):
        body = urlencode(body, doseq=True).encode()
    elif isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes | bytearray):
        body = b""
    return Spelt(service, operation, request["method"], host, target, headers, bytes(body))


# ---------------------------------------------------------------- what may be made of one


def encode_some(text: str, chance: random.Random) -> str:
    """A few unreserved letters percent-encoded, hex in either case; what is encoded stays so."""

    def respell(found: re.Match[str]) -> str:
        token = found[0]
        escape = token if len(token) == 3 else f"%{ord(token):02X}"
        if chance.random() < 0.85:
            return token
        return escape.lower() if chance.random() < 0.5 else escape.upper()

    return re.sub(r"%[0-9A-Fa-f]{2}|[A-Za-z0-9._~-]", respell, text)


def path_letters(of: Spelt, chance: random.Random) -> Spelt:
    return of.at(path=encode_some(of.path, chance))


def path_slashes(of: Spelt, chance: random.Random) -> Spelt:
    places = [at for at, letter in enumerate(of.path) if letter == "/"]
    at = chance.choice(places)
    middle = chance.choice(["//", "/./", "/x/../", "/%2e/", "%2F", "%2f", "/..%2F", "///"])
    return of.at(path=of.path[:at] + middle + of.path[at + 1 :] if at or middle.startswith("/") else f"/{middle}{of.path[1:]}")


def path_end(of: Spelt, chance: random.Random) -> Spelt:
    return of.at(path=of.path + chance.choice(["/", "//", "/x", "/.", "%2F", "/%20"]))


def path_segment(of: Spelt, chance: random.Random) -> Spelt:
    segments = of.path.split("/")
    segments[chance.randrange(len(segments))] = chance.choice(
        ["x", "service", "operation", "arn:aws:x:::a/b", "arn%3Aaws%3Ax%3A%3A%3Aa%2Fb", "a+b", ""]
    )
    path = "/".join(segments)
    return of.at(path=path if path.startswith("/") else f"/{path}")


def path_cbor(of: Spelt, chance: random.Random) -> Spelt:
    name = chance.choice([of.operation, "ListQueues"])
    return of.at(path=chance.choice(["", of.path.rstrip("/")]) + f"/service/{of.service}/operation/{name}")


def query_letters(of: Spelt, chance: random.Random) -> Spelt:
    return of.at(pairs=[encode_some(pair, chance) for pair in of.pairs])


def query_order(of: Spelt, chance: random.Random) -> Spelt:
    pairs = of.pairs
    chance.shuffle(pairs)
    return of.at(pairs=pairs)


PAIRS = """
    acl policy tagging uploads delete versions list-type=2 prefix=secret/ prefix=pub/ versionId=1 uploadId=u x-id=GetObject partNumber=1
    Action=ListQueues %41ction=DeleteQueue Action= a=b%20c a=b+c = X=%zz a;b
""".split()  # noqa: SIM905 (a table)


def query_more(of: Spelt, chance: random.Random) -> Spelt:
    pairs = of.pairs
    pairs.insert(chance.randint(0, len(pairs)), chance.choice([*PAIRS, "", f"Action={of.operation}"]))
    return of.at(pairs=pairs)


def query_repeated(of: Spelt, chance: random.Random) -> Spelt:
    pairs = of.pairs
    return of.at(pairs=[*pairs, chance.choice(pairs)]) if pairs else query_more(of, chance)


def query_less(of: Spelt, chance: random.Random) -> Spelt:
    pairs = of.pairs
    if pairs:
        pairs.pop(chance.randrange(len(pairs)))
    return of.at(pairs=pairs)


ADDED = [
    (b"x-amz-target", b"AmazonSQS.DeleteQueue"),
    (b"x-amz-target", b"DynamoDB_20120810.GetItem"),
    (b"x-amz-target", b".GetObject"),
    (b"x-amz-target", b""),
    (b"x-amz-copy-source", b"/secret/x"),
    (b"x-amz-copy-source", b"text%2Fk?versionId=1"),
    (b"x-amz-rename-source", b"/secret/x"),
    (b"x-amz-account-id", b"123456789012"),
    (b"x-amz-meta-a", b"b"),
    (b"accept", b"*/*"),
    (b"smithy-protocol", b"rpc-v2-cbor"),
    (b"content-encoding", b"gzip"),
    (b"x-http-method-override", b"DELETE"),
    (b"connection", b"x-amz-target, x-amz-copy-source"),
]


def header_more(of: Spelt, chance: random.Random) -> Spelt:
    headers = list(of.headers)
    headers.insert(chance.randint(0, len(headers)), chance.choice([*ADDED, (b"x-amz-target", f"x.{of.operation}".encode())]))
    return replace(of, headers=headers)


def header_repeated(of: Spelt, chance: random.Random) -> Spelt:
    return replace(of, headers=[*of.headers, chance.choice(of.headers)]) if of.headers else header_more(of, chance)


def header_less(of: Spelt, chance: random.Random) -> Spelt:
    headers = list(of.headers)
    if headers:
        headers.pop(chance.randrange(len(headers)))
    return replace(of, headers=headers)


def header_case(of: Spelt, chance: random.Random) -> Spelt:
    return replace(
        of, headers=[(name.title(), chance.choice([b"", b" ", b"\t"]) + value + chance.choice([b"", b" "])) for name, value in of.headers]
    )


TYPES = [
    FORM,
    FORM.upper(),
    FORM + b"; charset=utf-8",
    FORM + b";charset=utf-16",
    b"text/plain",
    b"application/json",
    b"application/x-amz-json-1.0",
    b"application/x-amz-json-1.1",
    b"application/cbor",
    b"application/xml",
    b"multipart/form-data; boundary=b",
    b"",
]


def content_type(of: Spelt, chance: random.Random) -> Spelt:
    return replace(of, headers=[pair for pair in of.headers if pair[0] != b"content-type"] + [(b"content-type", chance.choice(TYPES))])


def form_letters(of: Spelt, chance: random.Random) -> Spelt:
    return replace(of, body=encode_some(of.body.decode("latin-1"), chance).encode("latin-1")) if of.is_form else path_letters(of, chance)


FIELDS = [
    b"Action=ListQueues",
    b"%41ction=DeleteQueue",
    b"action=DeleteQueue",
    b"x=" + b"y" * 17_000,
    b"",
    b"a;Action=DeleteQueue",
    b"Action",
    b"Version=1",
]


def form_more(of: Spelt, chance: random.Random) -> Spelt:
    if not of.is_form:
        return query_more(of, chance)
    pairs = of.body.split(b"&")
    pairs.insert(chance.randint(0, len(pairs)), chance.choice([*FIELDS, *pairs]))
    return replace(of, body=b"&".join(pairs))


def form_in_query(of: Spelt, chance: random.Random) -> Spelt:
    """The query protocols take either."""
    if not of.is_form:
        return query_order(of, chance)
    method = chance.choice(["GET", "POST"])
    return replace(of, method=method, body=b"").at(pairs=[*of.pairs, *of.body.decode("latin-1").split("&")])


BODIES = [
    b"",
    b"{}",
    b"Action=DeleteQueue&Version=2012-11-05",
    b"\xff\xfe",
    b'{"__type": "DeleteQueue"}',
    b"\xa0",
    b"<Delete><Object><Key>secret/x</Key></Object></Delete>",
]


def body_other(of: Spelt, chance: random.Random) -> Spelt:
    return replace(of, body=chance.choice(BODIES))


def method_other(of: Spelt, chance: random.Random) -> Spelt:
    return replace(of, method=chance.choice(["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"]))


def s3_address(of: Spelt, chance: random.Random) -> Spelt:
    """Another bucket and key, in the path or in the host."""
    if of.service != "s3" or of.path == "/":
        return path_letters(of, chance)
    bucket, key = chance.choice(BUCKETS), chance.choice(KEYS) if of.path.count("/") > 1 else ""
    host = f"{chance.choice(S3_HOSTS)}.amazonaws.com"
    if chance.random() < 0.5:
        return replace(of, host=f"{bucket}.{host}").at(path=f"/{key}")
    return replace(of, host=host).at(path=f"/{bucket}/{key}" if key else f"/{bucket}")


MUTATIONS: list[Callable[[Spelt, random.Random], Spelt]] = [
    *(path_letters, path_slashes, path_end, path_segment, path_cbor),
    *(query_letters, query_order, query_more, query_repeated, query_less),
    *(header_more, header_repeated, header_less, header_case, content_type),
    *(form_letters, form_more, form_in_query, body_other, method_other),
    *(s3_address, s3_address),
]


def respelt(of: Spelt, chance: random.Random) -> Spelt:
    """Up to three things made of it."""
    for mutation in chance.choices(MUTATIONS, k=chance.choice([0, 1, 1, 1, 2, 2, 3])):
        of = replace(mutation(of, chance), by=(*of.by, mutation.__name__))
    return of
