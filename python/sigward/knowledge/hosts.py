"""Reads botocore's endpoint rule sets: which host belongs to which credential scope.

Every service is resolved in every region with FIPS and dual-stack on and off. What comes out is folded into patterns: the
host before its partition's DNS suffix, its region's label written `{r}`. A pattern gives a signing name and a region: `{r}`
the label's, `{g}` the region of the partition's global services, else the name of one. Hosts that deviate stand in full.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sigward.knowledge.models import Service, services

REGION, GLOBAL = "{r}", "{g}"


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

    def front(self, host: str) -> str | None:
        """The host without its DNS suffix; None: it has none of AWS's."""
        for suffix in self.suffixes:
            if host.endswith(f".{suffix}"):
                return host[: -len(suffix) - 1]
        return None


def endpoints(known: Iterable[Service] | None = None) -> Iterator[Endpoint]:
    """All that botocore's resolver gives, service by service."""
    from botocore.endpoint_provider import EndpointProvider
    from botocore.exceptions import EndpointProviderError, UnknownServiceError
    from botocore.session import Session

    loader = Session().get_component("data_loader")
    data = loader.load_data("partitions")
    regions = Partitions(data).regions
    for service in services(loader) if known is None else known:
        try:
            rules = loader.load_service_model(service.name, "endpoint-rule-set-1")
        except UnknownServiceError:
            continue
        provider, parameters = EndpointProvider(rules, data), rules["parameters"]
        defaults = {name: what["default"] for name, what in parameters.items() if "default" in what}
        for region, partition in regions:
            for fips, dual in ((False, False), (True, False), (False, True), (True, True)):
                if (fips and "UseFIPS" not in parameters) or (dual and "UseDualStack" not in parameters):
                    continue
                variant = {"Region": region, "UseFIPS": fips, "UseDualStack": dual}
                try:
                    found = provider.resolve_endpoint(**defaults | {name: variant[name] for name in variant if name in parameters})
                except EndpointProviderError:
                    continue
                scheme = (found.properties.get("authSchemes") or [{}])[0]
                yield Endpoint(
                    service.name,
                    region,
                    partition,
                    urlsplit(found.url).hostname or "",
                    scheme.get("signingName") or service.signing_name,
                    scheme.get("signingRegion") or next(iter(scheme.get("signingRegionSet", ())), region),
                    scheme.get("name", "sigv4"),
                )


def patterns(found: Iterable[Endpoint]) -> list[tuple[str, str, str]]:
    """(pattern, signing name, region), sorted. What most endpoints of a pattern say wins; a host that deviates stands in full."""
    from botocore.session import Session

    partitions = Partitions(Session().get_component("data_loader").load_data("partitions"))
    told: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    hosts: dict[str, tuple[str, Counter[tuple[str, str]]]] = {}
    for endpoint in found:
        front = partitions.front(endpoint.host)
        if front is None or endpoint.scheme not in ("sigv4", "sigv4a"):
            continue
        labels = front.split(".")
        pattern = ".".join(REGION if label == endpoint.region else label for label in labels)
        region = endpoint.signing_region
        if region == endpoint.region and REGION in pattern:
            region = REGION
        elif region == partitions.global_region[endpoint.partition]:
            region = GLOBAL
        told[pattern][endpoint.signing_name, region] += 1
        hosts.setdefault(endpoint.host, (pattern, Counter()))[1][endpoint.signing_name, region] += 1
    winners = {pattern: most(counter) for pattern, counter in told.items()}
    rows = {(pattern, *winner) for pattern, winner in winners.items()}
    for host, (pattern, counter) in hosts.items():
        if most(counter) != winners[pattern]:
            rows.add((host, *most(counter)))
    return sorted(rows)


def most(counter: "Counter[tuple[str, str]]") -> tuple[str, str]:
    """The commonest; of equals the first by name."""
    return min(counter, key=lambda key: (-counter[key], key))
