"""Reads botocore's endpoint rule sets: which host belongs to which credential scope.

Every service is resolved in every region with FIPS and dual-stack on and off. What comes out is folded into patterns: the
host before its partition's DNS suffix (under `on.aws`: with it), its region's label written `{r}`, each label that is a
customer's written `*`. A pattern gives a signing name and a region: `{r}` the label's, `{g}` the region of the partition's
global services, else the name of one. Hosts that deviate stand in full. What botocore does not know is in `documented.py`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from sigward.knowledge.documented import Documented, documented
from sigward.knowledge.models import Service, services

REGION, GLOBAL, ANY = "{r}", "{g}", "*"

ON_AWS = ".on.aws"
"""A suffix that no partition has. Customers' own names stand under it, of few services."""

VARIANTS = {"sigv4": 0, "sigv4a": 1, "bearer": 2, "v2": 3, "none": 4, "scope": 5}
"""How a host's requests are signed, as the table writes it. `none`: not at all; `scope`: only for clients whose own scope says so."""

DEVIATES, OWN_API, OWNER_READS = 1, 2, 4
"""Bits of `Row.flags`. Their meaning is the table's: see rust/gateway/src/recognise/table.rs."""


@dataclass(frozen=True)
class Endpoint:
    """One answer of botocore's resolver: for `service` in `region`, and what it signs with."""

    service: str
    region: str
    partition: str
    host: str
    signing_name: str
    signing_region: str
    scheme: str


class Partitions:
    """botocore's `partitions.json`."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.regions = [
            (region, partition["id"])
            for partition in data["partitions"]
            for region in partition["regions"]
            if not region.endswith("-global")
        ]
        self.global_region = {partition["id"]: partition["outputs"]["implicitGlobalRegion"] for partition in data["partitions"]}
        found = {partition["outputs"][name] for partition in data["partitions"] for name in ("dnsSuffix", "dualStackDnsSuffix")}
        self.suffixes = sorted(found, key=lambda suffix: (-len(suffix), suffix))

    @staticmethod
    def tells(partition: str, labels: list[str]) -> bool:
        """GovCloud shares DNS suffixes with the commercial partition; a label must tell."""
        return partition != "aws-us-gov" or labels[-1] == "us-gov" or any(label.startswith("us-gov-") for label in labels)

    def front(self, host: str) -> str | None:
        """The host without its DNS suffix; None: it has none of AWS's."""
        for suffix in self.suffixes:
            if host.endswith(f".{suffix}"):
                return host[: -len(suffix) - 1]
        return None


def regions() -> list[str]:
    """Those of all partitions, by name."""
    from botocore.session import Session

    data = Session().get_component("data_loader").load_data("partitions")
    return sorted({region for region, _ in Partitions(data).regions})


def endpoints(known: Iterable[Service] | None = None) -> Iterator[Endpoint]:
    """All that botocore's resolver gives, service by service."""
    from botocore.endpoint_provider import EndpointProvider
    from botocore.exceptions import EndpointProviderError, UnknownServiceError
    from botocore.session import Session

    loader = Session().get_component("data_loader")
    data = loader.load_data("partitions")
    everywhere = Partitions(data).regions
    for service in services(loader) if known is None else known:
        try:
            rules = loader.load_service_model(service.name, "endpoint-rule-set-1")
        except UnknownServiceError:
            continue
        provider, parameters = EndpointProvider(rules, data), rules["parameters"]
        defaults = {name: what["default"] for name, what in parameters.items() if "default" in what}
        for region, partition in everywhere:
            for fips, dual in ((False, False), (True, False), (False, True), (True, True)):
                if (fips and "UseFIPS" not in parameters) or (dual and "UseDualStack" not in parameters):
                    continue
                variant = {"Region": region, "UseFIPS": fips, "UseDualStack": dual}
                given = defaults | {name: variant[name] for name in variant if name in parameters}
                # Operations may have endpoints of their own; most have the same.
                several = set()
                for context in service.contexts:
                    try:
                        found = provider.resolve_endpoint(**given | {name: context[name] for name in context if name in parameters})
                    except EndpointProviderError:
                        continue
                    scheme = (found.properties.get("authSchemes") or [{}])[0]
                    several.add(
                        Endpoint(
                            service.name,
                            region,
                            partition,
                            urlsplit(found.url).hostname or "",
                            scheme.get("signingName") or service.signing_name,
                            scheme.get("signingRegion") or next(iter(scheme.get("signingRegionSet", ())), region),
                            service.scheme or scheme.get("name", "sigv4"),
                        )
                    )
                yield from sorted(several, key=lambda endpoint: endpoint.host)


@dataclass(frozen=True)
class Row:
    """A pattern, and the scopes (signing name, region, variant) that its hosts may have: the likeliest first.

    `flags`: `DEVIATES`, some of its hosts stand in full too, with another scope; `OWN_API`, what is asked there is none of the
    operations of the service's models; `OWNER_READS`, the endpoint's owner may see what is sent there.
    """

    pattern: str
    scopes: tuple["Scope", ...]
    flags: int = 0


Scope = tuple[str, str, int]


def patterns(found: Iterable[Endpoint], known: Iterable[Service] | None = None) -> list[Row]:
    """Sorted. What most endpoints of a pattern say comes first; a host that deviates stands in full.

    The others that the same host has are for clients that say which of them they mean. `known` adds the host prefixes that
    operations have of their own, and the endpoints that are a customer's; None: those of all services.
    """
    from botocore.session import Session

    loader = Session().get_component("data_loader")
    partitions = Partitions(loader.load_data("partitions"))
    known = list(services(loader) if known is None else known)
    prefixes = {service.name: service.host_prefixes for service in known}
    told: dict[str, Counter[Scope]] = defaultdict(Counter)
    hosts: dict[str, tuple[str, Counter[Scope]]] = {}
    others: dict[str, set[Scope]] = defaultdict(set)

    def fold(endpoint: Endpoint) -> tuple[str, Scope] | None:
        front = partitions.front(endpoint.host) or (endpoint.host if endpoint.host.endswith(ON_AWS) else None)
        if front is None:
            return None
        labels, region = front.split("."), endpoint.signing_region
        label = region if region in labels else endpoint.region
        pattern = ".".join(REGION if part == label else part for part in labels)
        if region == label and REGION in pattern:
            region = REGION
        elif region == partitions.global_region[endpoint.partition] and partitions.tells(endpoint.partition, labels):
            region = GLOBAL
        return pattern, (endpoint.signing_name, region, VARIANTS[endpoint.scheme])

    prefixed: list[Endpoint] = []
    for endpoint in found:
        prefixed += (replace(endpoint, host=prefix + endpoint.host) for prefix in prefixes.get(endpoint.service, ()))
        folded = fold(endpoint)
        if folded is None:
            continue
        pattern, scope = folded
        told[pattern][scope] += 1
        hosts.setdefault(endpoint.host, (pattern, Counter()))[1][scope] += 1
    own = set(told)
    for endpoint in prefixed:
        folded = fold(endpoint)
        if folded is not None and folded[0] in own:
            others[folded[0]].add(folded[1])
        elif folded is not None:
            told[folded[0]][folded[1]] += 1
    for service in known:
        for pattern, scope in customers(loader, service, partitions):
            told[pattern][scope] += 1
    for pattern, counter in hosts.values():
        if len(counter) > 1:
            others[pattern].update(counter)
    winners = {pattern: most(counter) for pattern, counter in told.items()}
    # Of hosts that take no SigV4, the scope is of no use.
    signed = {pattern for pattern, (_, _, variant) in winners.items() if variant < VARIANTS["bearer"]}
    deviating = {host: pattern for host, (pattern, counter) in hosts.items() if pattern in signed and most(counter) != winners[pattern]}
    marked = set(deviating.values())
    rows = [
        Row(pattern, (winner, *sorted(others[pattern] - {winner} if pattern in signed else ())), DEVIATES * (pattern in marked))
        for pattern, winner in winners.items()
    ]
    rows += [Row(host, (most(hosts[host][1]),)) for host in deviating]
    by_pattern = {row.pattern: row for row in rows}
    for other in documented():
        flags = OWN_API * other.own_api | OWNER_READS * other.owner_reads
        # Of what botocore has too, only the marks are news.
        row = by_pattern.get(other.pattern) or Row(other.pattern, of_document(other))
        by_pattern[other.pattern] = replace(row, flags=row.flags | flags)
    return sorted(by_pattern.values(), key=lambda row: row.pattern)


def of_document(row: Documented) -> tuple[Scope, ...]:
    """The scopes of a documented pattern."""
    signed = (row.signing_name, row.region, VARIANTS["sigv4"])
    if row.takes == "v4":
        return (signed,)
    unsigned = (row.signing_name, row.region, VARIANTS["none" if row.takes == "never" else "scope"])
    return (unsigned, signed) if row.takes == "scope" else (unsigned,)


def customers(loader: Any, service: Service, partitions: Partitions) -> Iterator[tuple[str, Scope]]:
    """Endpoints whose first labels are a customer's, by the rule sets' templates: `{AccountId}.ddb.{Region}.…`; not S3's."""
    from botocore.exceptions import UnknownServiceError

    if service.signing_name == "s3":
        return
    try:
        rules = loader.load_service_model(service.name, "endpoint-rule-set-1")
    except UnknownServiceError:
        return
    waiting = list(rules["rules"])
    while waiting:
        rule = waiting.pop()
        waiting += rule.get("rules", ())
        endpoint = rule.get("endpoint") or {}
        if not str(endpoint.get("url", "")).startswith("https://{"):
            continue
        scheme = (endpoint.get("properties", {}).get("authSchemes") or [{}])[0]
        region = scheme.get("signingRegion") or next(iter(scheme.get("signingRegionSet", ())), "{Region}")
        scope = (
            scheme.get("signingName") or service.signing_name,
            region.replace("{Region}", REGION),
            VARIANTS[scheme.get("name", "sigv4")],
        )
        template = endpoint["url"].removeprefix("https://").replace("{Region}", REGION)
        template = re.sub(r"\.\{\w+#(dnsSuffix|dualStackDnsSuffix)\}$", "", template)
        for operation_type in ("control", "data") if "{OperationType}" in template else ("",):
            host = template.replace("{OperationType}", operation_type)
            labels = re.match(r"(\{[A-Z]?[\w#]{2,}\}\.)*", host)
            if labels:
                host = f"{ANY}." * labels[0].count(".") + host[labels.end() :]
            host = partitions.front(host) or host
            if host.startswith(f"{ANY}.") and "{" not in host.replace(REGION, ""):
                yield host, scope


def most(counter: "Counter[Scope]") -> Scope:
    """The commonest; of equals the first by name."""
    return min(counter, key=lambda key: (-counter[key], key))
