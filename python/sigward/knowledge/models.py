"""Reads botocore's service models: which operations there are, and how each stands in a request."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from botocore.loaders import Loader

UNSIGNED, READ_ONLY, IDEMPOTENT, STREAMS_IN, STREAMS_OUT, TOKEN, DEPRECATED = (1 << bit for bit in range(7))
"""Bits of `Operation.flags`. Meaning and order are the table's: see rust/gateway/src/knowledge.rs."""

PROTOCOLS = {"json-1.0": 1, "json-1.1": 2, "rest-json": 4, "rest-xml": 8, "query": 16, "ec2": 32, "smithy-rpc-v2-cbor": 64}
"""Bits of `Service.protocols`."""

TRANSIENT, THROTTLING, FINAL = 1, 2, 3
"""What a service's model says of an error: a repeat may help, too many calls, or a 429 that no repeat helps."""


@dataclass(frozen=True)
class Operation:
    """`path`: the URI template without its query. `query`: (name, value or None) that must be there; `headers`: likewise."""

    name: str
    method: str
    path: str
    query: tuple[tuple[str, str | None], ...]
    headers: tuple[str, ...]
    flags: int
    token: str = ""
    """The idempotency token's name in a JSON or form body; empty: it has none there."""


@dataclass(frozen=True)
class Service:
    """One service model of botocore's, by its directory's name."""

    name: str
    model: dict[str, Any]

    @property
    def metadata(self) -> dict[str, Any]:
        return self.model["metadata"]  # type: ignore[no-any-return]

    @property
    def signing_name(self) -> str:
        return self.metadata.get("signingName") or self.endpoint_prefix

    @property
    def endpoint_prefix(self) -> str:
        return str(self.metadata["endpointPrefix"])

    @property
    def target_prefix(self) -> str:
        return str(self.metadata.get("targetPrefix", ""))

    @property
    def protocols(self) -> int:
        spoken = self.metadata.get("protocols") or [self.metadata["protocol"]]
        version = self.metadata.get("jsonVersion", "1.0")
        # Services that moved from the query protocol still take it: SQS, CloudWatch.
        spoken = {*spoken, "query"} if "awsQueryCompatible" in self.metadata else set(spoken)
        return sum(PROTOCOLS[f"json-{version}" if name == "json" else name] for name in spoken)

    @property
    def scheme(self) -> str:
        """`bearer` or `v2` where the service takes no SigV4; else nothing: its endpoints say."""
        auth = self.metadata.get("auth", ())
        version = "bearer" if list(auth) == ["smithy.api#httpBearerAuth"] else self.metadata.get("signatureVersion", "")
        return version if version in ("bearer", "v2") else ""

    @property
    def host_prefixes(self) -> list[str]:
        """What operations put before the endpoint's host, e.g. `sync-`; those that hold a member's value are left out."""
        found = {raw.get("endpoint", {}).get("hostPrefix", "") for raw in self.model["operations"].values()}
        return sorted(prefix for prefix in found if prefix and "{" not in prefix)

    @property
    def contexts(self) -> list[dict[str, str | bool]]:
        """What operations give an endpoint's rules, each set once; the empty one is for those that give nothing.

        Not S3's, which Rust knows, nor sign-in's, which take no signature and stand under domains of their own.
        """
        raw = () if self.signing_name in ("s3", "signin") else self.model["operations"].values()
        given = {tuple(sorted((name, what["value"]) for name, what in one.get("staticContextParams", {}).items())) for one in raw}
        return [dict(one) for one in sorted(given | {()}, key=repr)]

    @cached_property
    def operations(self) -> list[Operation]:
        """By name."""
        return [self._operation(name, raw) for name, raw in sorted(self.model["operations"].items())]

    def _operation(self, name: str, raw: dict[str, Any]) -> Operation:
        http = raw.get("http", {})
        path, _, literals = http.get("requestUri", "/").partition("?")
        query: list[tuple[str, str | None]] = []
        for pair in filter(None, literals.split("&")):
            key, equals, value = pair.partition("=")
            query.append((key, value if equals else None))
        headers: list[str] = []
        members, required = self._members(raw, "input")
        for member, reference in members.items():
            if member in required and reference.get("location") == "querystring":
                query.append((reference["locationName"], None))
            if member in required and reference.get("location") == "header":
                headers.append(reference["locationName"].lower())
        return Operation(
            name, http.get("method", "POST"), path, tuple(sorted(query)), tuple(sorted(headers)), self._flags(raw), self._token(raw)
        )

    def _token(self, raw: dict[str, Any]) -> str:
        shape = self.model["shapes"][raw["input"]["shape"]] if "input" in raw else {}
        for name, reference in self._members(raw, "input")[0].items():
            if reference.get("idempotencyToken") and "location" not in reference and "payload" not in shape:
                named = str(reference.get("locationName", name))
                return str(reference.get("queryName", named[:1].upper() + named[1:])) if self.protocols & PROTOCOLS["ec2"] else named
        return ""

    @cached_property
    def errors(self) -> list[tuple[str, int]]:
        """(code, class) of what repeats may help, and of what comes as a 429 and is final; by code."""
        raised = {error["shape"] for raw in self.model["operations"].values() for error in raw.get("errors", ())}
        found: dict[str, int] = {}
        for name in sorted(raised):
            shape = self.model["shapes"][name]
            about = shape.get("error", {})
            kind = 0
            if "retryable" in shape:
                kind = THROTTLING if shape["retryable"].get("throttling") else TRANSIENT
            elif about.get("httpStatusCode") == 429:
                kind = FINAL
            if kind:
                found[about.get("code") or name] = kind
        return sorted(found.items())

    def _members(self, raw: dict[str, Any], side: str) -> tuple[dict[str, Any], set[str]]:
        if side not in raw:
            return {}, set()
        shape = self.model["shapes"][raw[side]["shape"]]
        return shape.get("members", {}), set(shape.get("required", ()))

    def _flags(self, raw: dict[str, Any]) -> int:
        flags = 0
        if raw.get("authtype") == "none" or raw.get("auth") == ["smithy.api#noAuth"]:
            flags |= UNSIGNED
        if raw.get("readonly"):
            flags |= READ_ONLY
        if raw.get("idempotent") or raw.get("readonly"):
            flags |= IDEMPOTENT
        for side, bit in (("input", STREAMS_IN), ("output", STREAMS_OUT)):
            members, _ = self._members(raw, side)
            if any(self._streams(reference) for reference in members.values()):
                flags |= bit
        if any(reference.get("idempotencyToken") for reference in self._members(raw, "input")[0].values()):
            flags |= TOKEN
        if raw.get("deprecated"):
            flags |= DEPRECATED
        return flags

    def _streams(self, reference: dict[str, Any]) -> bool:
        shape = self.model["shapes"][reference["shape"]]
        return bool(reference.get("streaming") or shape.get("streaming") or shape.get("eventstream") or reference.get("eventstream"))


def services(loader: "Loader | None" = None) -> Iterator[Service]:
    """Every service that botocore knows, by name."""
    if loader is None:
        from botocore.session import Session

        loader = Session().get_component("data_loader")
    for name in sorted(loader.list_available_services("service-2")):
        yield Service(name, loader.load_service_model(name, "service-2"))
