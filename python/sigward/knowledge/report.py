"""Measures the table against botocore: `make knowledge-report`.

Every host that botocore's resolver gives is looked up; what comes back must be the scope that botocore signs with.
Every operation of every model is serialised by botocore itself, with the required members alone and with all of them, and
looked up. What comes back must be that operation.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from sigward import _core
from sigward.knowledge.hosts import Endpoint, endpoints

if TYPE_CHECKING:
    from botocore.model import OperationModel, ServiceModel, Shape

REASONS = {
    "s3:GetBucketLifecycle": "the deprecated name of GetBucketLifecycleConfiguration: the same request",
    "s3:GetBucketNotification": "the deprecated name of GetBucketNotificationConfiguration: the same request",
    "s3:PutBucketLifecycle": "the deprecated name of PutBucketLifecycleConfiguration: the same request",
    "s3:PutBucketNotification": "the deprecated name of PutBucketNotificationConfiguration: the same request",
    "s3:ListDirectoryBuckets": "ListBuckets, but for the host (s3express-control)",
}
"""Operations that a request alone cannot tell from another, and why."""

TWINS = {
    "docdb": "rds",
    "neptune": "rds",
    "greengrassv2": "greengrass",
    "lambda-microvms": "lambda",
    "pinpoint-sms-voice": "sms-voice",
    "qconnect": "wisdom",
}
"""Models that share host, signing name and some requests, byte for byte, with another: its operation of the same name is the answer."""

HOST_REASONS = {
    "pricing-plan-manager": "China and the commercial partition share the host: the same scope, another partition's name",
    "sdb": "takes Signature Version 2; simpledbv2, which takes SigV4, has the same hosts",
    "signin": "a host of its own for each partition; its operations take no signature",
}
"""Services with hosts that botocore answers otherwise for, and why."""

UNSIGNED = ("bearer", "v2")
"""Schemes of hosts that sigward does not sign for: what botocore would sign with does not matter there."""


@dataclass
class HostResult:
    """`wrong`: (service, host, expected, found); what is compared: signing name, region, partition and variant.

    `hinted` of the right ones share their host, and the client's own scope settled which is meant. `unsigned` take no
    SigV4, and the table says so.
    """

    right: int = 0
    hinted: int = 0
    unsigned: int = 0
    wrong: list[tuple[str, str, str, str]] = field(default_factory=list)
    explained: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many (service, region, FIPS, dual-stack) were looked up."""
        return self.right + self.unsigned + len(self.wrong) + sum(self.explained.values())

    def differs(self, endpoint: Endpoint, expected: str, found: str) -> None:
        """Notes a difference: with its reason, or as wrong."""
        if endpoint.service in HOST_REASONS:
            self.explained[endpoint.service] = self.explained.get(endpoint.service, 0) + 1
        else:
            self.wrong.append((endpoint.service, endpoint.host, expected, found))


def measure_hosts(table: _core.Knowledge | None = None) -> HostResult:
    """Looks up every endpoint that botocore's resolver gives."""
    table = table or _core.Knowledge()
    result = HostResult()

    def scope(endpoint: Endpoint, hint: tuple[str, str] | None) -> str:
        found = table.recognise(endpoint.host, hint)
        return f"{found.signing_name} {found.region} {found.partition} {found.variant}" if found else "unknown"

    for endpoint in endpoints():
        if endpoint.scheme in UNSIGNED:
            recognised = table.recognise(endpoint.host)
            if recognised and recognised.variant == endpoint.scheme:
                result.unsigned += 1
            else:
                result.differs(endpoint, endpoint.scheme, str(recognised))
            continue
        variant = {"sigv4": "v4", "sigv4a": "v4a"}[endpoint.scheme]
        expected = f"{endpoint.signing_name} {endpoint.signing_region} {endpoint.partition} {variant}"
        found = scope(endpoint, None)
        if found != expected and scope(endpoint, (endpoint.signing_name, endpoint.signing_region)) == expected:
            result.hinted += 1
            found = expected
        if found == expected:
            result.right += 1
        else:
            result.differs(endpoint, expected, found)
    return result


@dataclass
class Result:
    """`wrong`: (expected, found). `missed`: not recognised at all."""

    right: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    explained: list[tuple[str, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many requests were looked up."""
        return self.right + len(self.wrong) + len(self.missed) + len(self.explained)


def value(shape: "Shape", everything: bool, depth: int = 0) -> Any:
    """A value that botocore's serialisers take for this shape."""
    kind = shape.type_name
    if kind == "structure":
        return members(shape, everything, depth + 1)
    if kind == "list":
        return [value(shape.member, everything, depth + 1)] if depth < DEEPEST else []  # type: ignore[attr-defined]
    if kind == "map":
        return {"k": value(shape.value, everything, depth + 1)} if depth < DEEPEST else {}  # type: ignore[attr-defined]
    if kind == "string":
        return next(iter(shape.enum), "text")  # type: ignore[attr-defined]
    return {"boolean": True, "timestamp": 1_700_000_000, "blob": b"blob", "float": 1.5, "double": 1.5}.get(kind, 1)


DEEPEST = 4
"""Beyond this, members that may be left out are."""


def members(shape: "Shape", everything: bool, depth: int = 0) -> dict[str, Any]:
    """A structure: its required members, or all of them."""
    if getattr(shape, "is_tagged_union", False):
        first = next(iter(shape.members.items()), None)  # type: ignore[attr-defined]
        return {first[0]: value(first[1], everything, depth)} if first and depth < 2 * DEEPEST else {}
    required = set(shape.required_members)
    taken: dict[str, Any] = {}
    for name, member in shape.members.items():  # type: ignore[attr-defined]
        if (name in required and depth < 2 * DEEPEST) or (everything and depth < DEEPEST):
            if getattr(member, "serialization", {}).get("eventstream"):
                continue
            taken[name] = value(member, everything, depth)
    return taken


def requests(service: "ServiceModel", operation: "OperationModel") -> Iterator[dict[str, Any]]:
    """What botocore sends: by each protocol that the service speaks, minimal and with all members."""
    from botocore.serialize import SERIALIZERS, create_serializer

    spoken = service.metadata.get("protocols") or [service.metadata["protocol"]]
    for protocol in spoken:
        if protocol not in SERIALIZERS:
            continue
        for everything in (False, True):
            shape = operation.input_shape
            serializer = create_serializer(protocol, include_validation=False)
            yield serializer.serialize_to_request(members(shape, everything) if shape else {}, operation)


def look_up(table: _core.Knowledge, service: "ServiceModel", host: str, request: dict[str, Any]) -> str | None:
    """What the table says of one of botocore's requests."""
    query, path = request["query_string"], request["url_path"]
    if isinstance(query, dict):
        query = urlencode(query, doseq=True, quote_via=quote)
    if query:
        path = f"{path}{'&' if '?' in path else '?'}{query}"
    headers = [(name.encode(), str(text).encode()) for name, text in request["headers"].items()]
    body = request["body"]
    form = urlencode(body, doseq=True).encode() if isinstance(body, dict) else b""
    names = table.read(service.signing_name, host, request["method"], path, headers, form).names
    return names[0] if names else None


def measure(table: _core.Knowledge, names: list[str] | None = None) -> Result:
    """Looks up every operation of these services; None: of all."""
    from botocore.model import ServiceModel
    from botocore.session import Session

    loader = Session().get_component("data_loader")
    result = Result()
    for name in names or loader.list_available_services("service-2"):
        service = ServiceModel(loader.load_service_model(name, "service-2"), name)
        host = f"{service.endpoint_prefix}.us-east-1.amazonaws.com"
        for operation_name in service.operation_names:
            expected = f"{name}:{operation_name}"
            for request in requests(service, service.operation_model(operation_name)):
                found = look_up(table, service, host, request)
                if found == expected:
                    result.right += 1
                elif expected in REASONS or found == f"{TWINS.get(name)}:{operation_name}":
                    result.explained.append((expected, str(found)))
                elif found is None:
                    result.missed.append(expected)
                else:
                    result.wrong.append((expected, found))
    return result


def main() -> int:
    """Prints the figures; 1: they are not what they must be."""
    table = _core.Knowledge()
    result = measure(table)
    right = result.right + len(result.explained)
    say = sys.stdout.write
    say(f"table made of {table.source}\n")
    hosts = measure_hosts(table)
    same = hosts.right + hosts.unsigned
    say(f"endpoints of botocore's resolver: {hosts.total:,}; the same scope, partition and variant: {same:,} ({same / hosts.total:.4%})\n")
    say(f"  {hosts.hinted} share their host: the client's own signature tells; {hosts.unsigned:,} take no SigV4\n")
    for service, count in sorted(hosts.explained.items()):
        say(f"  {service}: {count}: {HOST_REASONS[service]}\n")
    for service, host, wanted, scope in hosts.wrong:
        say(f"  wrong   {service} {host}: {wanted}, not {scope}\n")
    say(f"requests serialised by botocore: {result.total:,}; recognised {right:,} ({right / result.total:.4%})\n")
    shared = len(result.explained)
    say(f"as another operation: {len(result.wrong)}; not recognised: {len(result.missed)}; under another model's name: {shared}\n")
    for expected, found in sorted(set(result.wrong)):
        say(f"  wrong   {expected} → {found}\n")
    for expected in sorted(set(result.missed)):
        say(f"  missed  {expected}\n")
    for expected, found in sorted(set(result.explained)):
        if expected in REASONS:
            say(f"  {expected} → {found}: {REASONS[expected]}\n")
    for name, twin in TWINS.items():
        count = len({expected for expected, _ in result.explained if expected.startswith(f"{name}:")})
        say(f"  {name} → {twin}: {count} operations are the same request (host, path and version)\n")
    return 1 if hosts.wrong or result.wrong or right / result.total < 0.999 else 0


if __name__ == "__main__":
    sys.exit(main())
