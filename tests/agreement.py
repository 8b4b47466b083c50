"""Compares what sigward decided on with what a service would read in what was sent: `python -m tests.agreement [COUNT]`."""

import json
import random
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sigward import _core
from sigward.knowledge.report import REASONS, TWINS
from tests.reader import Reading, read
from tests.spellings import BUCKETS, S3_HOSTS, Headers, Spelt, hosts, respelt, serialised

USUAL = """
    s3 s3control sqs sns dynamodb ec2 iam sts lambda cloudwatch rds kms eks apigateway elb elbv2 ses sesv2 iot backup secretsmanager ssm
    kinesis logs cloudformation autoscaling route53 cloudfront efs bedrock-runtime
""".split()  # noqa: SIM905 (a table)
"""Services of every protocol, and those that share a host."""

FORBIDDEN = [{"operation": "*:Delete*", "action": "deny"}, {"bucket": "secret/*", "action": "deny"}, {"bucket": "secret", "action": "deny"}]
SHOWN = (b"x-amz-target", b"content-type", b"x-amz-copy-source", b"smithy-protocol")
READING = ("Get", "List", "Describe", "Head")


def rule_sets(**place: str) -> dict[str, list[dict[str, str]]]:
    """Rules that decide by the call. `place`: where what is signed goes."""
    return {
        "deny": [*FORBIDDEN, {"host": "*", **place}],
        "allow": [*({"operation": f"*:{word}*", **place} for word in READING), {"operation": "*:*", "action": "deny"}],
        "none": [{"host": "*", **place}],
    }


@dataclass(frozen=True)
class Sent:
    """What went out, and what was decided of it; `operation`: `service:Name`, None: unknown."""

    method: str
    host: str
    target: str
    headers: Headers
    body: bytes
    operation: str | None
    bucket: str | None
    key: str | None


@dataclass
class Source:
    """Requests of these services, each respelt at random. `most`: of so many operations a service."""

    chance: random.Random
    services: Iterable[str] | None = None
    most: int | None = None

    @cached_property
    def hosts(self) -> dict[str, str]:
        return hosts()

    @cached_property
    def base(self) -> dict[str, list[Spelt]]:
        names = [name for name in (self.services or self.hosts) if name in self.hosts]
        found = {name: list(serialised(name, self.hosts[name], self.chance, self.most)) for name in names}
        return {name: requests for name, requests in found.items() if requests}

    @cached_property
    def prefixed(self) -> dict[str, set[str]]:
        """Operations may have a host of their own: `workflows-omics.…`."""
        found: dict[str, set[str]] = {}
        for request in self.flat:
            found.setdefault(request.host, set()).add(request.service)
        return found

    @cached_property
    def flat(self) -> list[Spelt]:
        return [request for requests in self.base.values() for request in requests]

    def next(self) -> Spelt:
        """A third are of the usual services: there are more ways to ask S3 than to ask hundreds of others."""
        usual = self.chance.random() < 0.33
        requests = self.base[self.chance.choice(USUAL)] if usual else self.flat
        return respelt(self.chance.choice(requests), self.chance)

    def at(self, host: str) -> set[str]:
        """The services that a host may be of, whatever sigward says: by botocore's endpoints."""
        if any(host == known or host.endswith(f".{known}") for known in (f"{name}.amazonaws.com" for name in S3_HOSTS)):
            return {"s3"}
        found = {name for name, known in self.hosts.items() if host == known or host.endswith(f".{known}")}
        return found | self.prefixed.get(host, set())


@dataclass
class Comparison:
    """`apart`: what is wrong, and of which request."""

    source: Source
    counts: Counter[str] = field(default_factory=Counter)
    apart: list[str] = field(default_factory=list)

    def refused(self, slug: str) -> None:
        self.counts[f"refused: {slug}"] += 1

    def sent(self, rules: str, given: Spelt, sent: Sent) -> None:
        """Reads what was sent again."""
        self.counts["sent"] += 1
        services = self.source.at(sent.host)
        readings = {name: found for name in services if (found := read(name, sent.method, sent.host, sent.target, sent.headers, sent.body))}
        self._hold_boundary(rules, given, sent, readings)
        if sent.operation is None:
            self.counts["unknown"] += 1
            return
        service, _, name = sent.operation.rpartition(":")
        if not service:
            # A log that has no more than the name: whichever of the host's services has read it.
            service = next((known for known, found in readings.items() if any(reading.operation == name for reading in found)), "")
            service = service or next(iter(services), "")
        if service not in services and not services & {known for known, twin in TWINS.items() if twin == service}:
            self._differ("decided on a service that the host is not of", given, sent, readings)
        elif service not in readings:
            # moto's routing has no rule for it, and no other service of the host has one: two readings there are not.
            if readings:
                self._differ("another service of the host reads it", given, sent, readings)
            else:
                self.counts["not read"] += 1
        else:
            self.counts["compared"] += 1
            self.counts[f"compared: {service}"] += 1
            for reading in readings[service]:
                self._compare(name, reading, given, sent, readings)

    def _compare(self, name: str, reading: Reading, given: Spelt, sent: Sent, readings: Any) -> None:
        if reading.operation != name and not {f"s3:{name}", f"s3:{reading.operation}"} & REASONS.keys():
            self._differ("another operation", given, sent, readings)
        elif reading.bucket and sent.bucket != reading.bucket and (sent.bucket is not None or reading.bucket in BUCKETS):
            self._differ("another bucket", given, sent, readings)
        elif reading.bucket and sent.bucket and (sent.key or "") != (reading.key or ""):
            self._differ("another key", given, sent, readings)

    def _hold_boundary(self, rules: str, given: Spelt, sent: Sent, readings: dict[str, set[Reading]]) -> None:
        """Whatever was decided: what a rule forbids must not be read in what was sent."""
        for reading in {reading for found in readings.values() for reading in found}:
            if rules == "deny" and (reading.operation.startswith("Delete") or "secret" in reading.buckets):
                self._differ("sent, though a rule denies it", given, sent, readings)
            if rules == "allow" and not reading.operation.startswith(READING):
                self._differ("sent, though no rule allows it", given, sent, readings)

    def _differ(self, what: str, given: Spelt, sent: Sent, readings: Any) -> None:
        self.counts[f"apart: {what}"] += 1
        headers = {
            name: value
            for name, value in sent.headers
            if name in (b"x-amz-target", b"content-type", b"x-amz-copy-source", b"smithy-protocol")
        }
        self.apart.append(
            f"{what}: {given.service}:{given.operation} {given.by}: "
            f"{sent.method} {sent.host}{sent.target[:200]} {headers} {sent.body[:80]!r}: "
            f"decided on {sent.operation} {sent.bucket} {sent.key}; read as {readings}"
        )

    def check(self, least: int) -> None:
        """Fails if any is apart, or if fewer than `least` were compared."""
        shown = "\n".join(f"  {line}" for line in self.apart[:40])
        assert not self.apart, f"{len(self.apart)} apart; {self.summary()}\n{shown}"
        assert self.counts["compared"] >= least, self.summary()
        # What moto cannot read at all must stay a small part, or the comparison says little.
        assert self.counts["not read"] <= 0.1 * self.counts["compared"], self.summary()

    def summary(self) -> str:
        services = sum(1 for name in self.counts if name.startswith("compared: "))
        counts = ", ".join(f"{name}: {count:,}" for name, count in sorted(self.counts.items()) if not name.startswith("compared: "))
        return f"{counts}; {services} services compared"


def rehearse(source: Source, count: int) -> Comparison:
    """So many requests through the gateway, without I/O, under each of the sets of rules in turn."""
    comparison = Comparison(source)
    rehearsals = [(name, _core.Rehearsal(json.dumps({"routes": routes}))) for name, routes in rule_sets().items()]
    for at in range(count):
        rules, rehearsal = rehearsals[at % len(rehearsals)]
        given = source.next()
        # As a server hands them on: without the blanks around.
        headers = [(b"host", given.host.encode()), *((name, value.strip()) for name, value in given.headers)]
        found = rehearsal.run("reverse", "https", given.host, given.method, given.target.encode("latin-1"), headers, given.body)
        if found.method and found.host and found.target:
            decided = (found.operation, found.bucket, found.key)
            comparison.sent(rules, given, Sent(found.method, found.host, found.target, found.headers, found.body, *decided))
        else:
            comparison.refused(found.slug or "")
    return comparison


def main() -> int:
    """Compares requests of all services."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    comparison = rehearse(Source(random.Random(17)), count)
    sys.stdout.write(f"{count:,} requests: {comparison.summary()}\n")
    comparison.check(least=count // 4)
    return 0


if __name__ == "__main__":
    sys.exit(main())
