"""Every setting, in one place: flag > `SIGWARD_…` environment > sigward.toml > default.

The same model checks all four and makes what the engine takes (`Settings.engine_json`) and the reference (`sigward.docs`).
"""

import contextlib
import difflib
import ipaddress
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, get_args, get_origin
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from sigward.ca import subtree
from sigward.clients import Client as ClientTerms
from sigward.clients import Terms
from sigward.credentials import Assume, Chain, resolve_region
from sigward.credentials.region import scope_region
from sigward.environ import NO_PROXY, own_no_proxy, without_own_proxy
from sigward.errors import UsageError
from sigward.file import TomlFile, config_home
from sigward.ownership import complaint
from sigward.plan import DEFAULT_IDENTITY, Plan, Web
from sigward.trust import Trust

UNITS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0}
SIZES = {
    "": 1,
    "b": 1,
    "k": 1024,
    "kib": 1024,
    "kb": 1000,
    "m": 1024**2,
    "mib": 1024**2,
    "mb": 1000**2,
    "g": 1024**3,
    "gib": 1024**3,
    "gb": 1000**3,
    "t": 1024**4,
    "tib": 1024**4,
    "tb": 1000**4,
}


DURATION_HINT = 'Write seconds or a duration: 10, "500ms", "10s", "2m".'
SIZE_HINT = 'Write bytes or a size: 1048576, "64KiB", "1MiB", "5GiB".'
LISTEN_HINT = (
    'Write HOST:PORT: "127.0.0.1:8080", "[::1]:8080", or "127.0.0.1:0" for any free port; native front: also "unix:/run/sigward.sock".'
)
UPSTREAM_HINT = 'Write scheme, host and, if it is not the usual one, port: "https://sqs.eu-west-1.amazonaws.com".'
REACH_HINT = "Bind 127.0.0.1, or set allow_remote = true (--allow-remote) if that is meant."

CA_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*")
CA_NAME_HINT = 'Write a domain, which stands for all below it too, or an address: "sigward.internal", "10.0.0.7". No `*`.'

KUBERNETES = re.compile(r"SIGWARD_(SERVICE_HOST|(SERVICE_)?PORT(_.*)?)")
"""Set in every pod beside a service that is called `sigward`; see "Accessing the Service" in Kubernetes' documentation."""


def wrong(message: str, hint: str) -> NoReturn:
    """Refuses a value, and says how to write it."""
    raise PydanticCustomError("sigward", "{message}", {"message": message, "hint": hint})


def parse_duration(value: object) -> object:
    """ "500ms", "10s", "5m", 10 → seconds."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", value.lower())
        if match and match[2] in UNITS:
            return float(match[1]) * UNITS[match[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    wrong("a duration is expected", DURATION_HINT)


def parse_size(value: object) -> object:
    """ "1MiB", "64k", 65536 → bytes."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+)\s*([a-z]*)\s*", value.lower())
        if match and match[2] in SIZES:
            return int(match[1]) * SIZES[match[2]]
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    wrong("a size is expected", SIZE_HINT)


def or_none(parse: Callable[[object], object]) -> Callable[[object], object]:
    """The same, but "none" lifts a limit that the file sets: TOML has no null."""
    return lambda value: None if value is None or value == "none" else parse(value)


def split_commas(value: object) -> object:
    """A list from one string, as flags and variables give it."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def check_listen(value: str) -> str:
    """ "127.0.0.1:8080", "[::1]:8080", "unix:/run/sigward.sock", or "off"."""
    if value in ("", "off"):
        return "off"
    if not is_address(value) and not (value.startswith("unix:/") and "=" not in value):
        wrong("HOST:PORT is expected", LISTEN_HINT)
    return value


def is_address(value: str) -> bool:
    """True for HOST:PORT with IPv6 in brackets; port 0 to 65535."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", value)
    return match is not None and int(match[2]) <= 65535


def is_ip(value: str) -> bool:
    """True for an address of IPv4 or IPv6, without brackets."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def is_loopback(listen: str) -> bool:
    """True if nobody but this host can connect."""
    if listen.startswith("unix:"):
        return True
    host = listen.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_upstream(value: str) -> str:
    """ "https://host[:port]"."""
    scheme, separator, rest = value.removesuffix("/").partition("://")
    if scheme not in ("http", "https") or not separator or not (is_address(rest) or is_address(f"{rest}:0")):
        wrong("https://host[:port] is expected", UPSTREAM_HINT)
    return value


LOG_HINT = 'Write "off", "stderr", or a path with a slash: "/var/log/sigward/access.log".'


def parse_log(value: object) -> object:
    """True → "stderr", False → "off"; a path stays what it is."""
    word = str(value).lower() if isinstance(value, bool | str) else None
    if word in ("", "off", "false", "no", "0"):
        return "off"
    if word in ("stderr", "on", "true", "yes", "1"):
        return "stderr"
    if word is None or "/" not in word or "\0" in word:
        wrong("off, stderr or a file's path is expected", LOG_HINT)
    return value


@dataclass(frozen=True)
class Shape:
    """How a value is written, for the reference."""

    text: str


Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0), Shape("duration")]
PositiveDuration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0), Shape("duration above 0")]
Size = Annotated[int, BeforeValidator(parse_size), Field(ge=0), Shape("size")]
OptionalDuration = Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(or_none(parse_duration)), Shape("duration above 0")]
OptionalNonNegative = Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(or_none(parse_duration)), Shape("duration")]
OptionalSize = Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(or_none(parse_size)), Shape("size")]
Listen = Annotated[str, AfterValidator(check_listen), Shape("HOST:PORT")]
UpstreamUrl = Annotated[str, AfterValidator(check_upstream), Shape("URL")]


class Group(BaseModel):
    """A table of settings."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class Body(Group):
    """How request bodies are kept."""

    hold: Size = Field(
        1 << 20,
        description="Bodies up to this are held in memory, hashed and can be sent again; larger ones are spooled or streamed.",
    )
    max: OptionalSize = Field(None, description="Largest body that is served; none: no limit.")
    spool_dir: Path | None = Field(
        None,
        description="Where spooled bodies lie, in files without a name; none: the system's directory for temporary files.",
    )
    spool_max: Size = Field(5 << 40, description="Largest body that is spooled.")


class Timeouts(Group):
    """How long each wait may last."""

    connect: PositiveDuration = Field(5.0, description="TCP and TLS handshakes with the upstream.")
    head: PositiveDuration = Field(
        60.0, description="From the request's last byte to the whole head of the final answer; 1xx extends nothing."
    )
    idle: PositiveDuration = Field(60.0, description="Without a byte while a body is under way.")
    total: OptionalDuration = Field(
        None, description="From the request's head to the answer's head, attempts and waits together; none: no limit."
    )
    pool_idle: PositiveDuration = Field(60.0, description="An idle connection to the upstream is closed after this.")
    credentials: PositiveDuration = Field(10.0, description="A request waits so long for credentials that are being loaded.")
    dns: Duration = Field(5.0, description="Addresses of names are remembered for so long; 0: not at all.")
    client_head: PositiveDuration = Field(
        60.0,
        description="Time for a client to send a request's head, for a TLS handshake, and for the first bytes inside a CONNECT.",
    )
    client_idle: PositiveDuration = Field(350.0, description="A client's idle connection is closed after this.")
    client_write: PositiveDuration = Field(
        60.0, description="Close the connection if the client reads nothing of its answer for this long."
    )


class Retry(Group):
    """Attempts, and full-jitter exponential delays between them. See "How sigward retries and paces"."""

    mode: Literal["standard", "adaptive", "off"] = Field(
        "standard", description="`adaptive`: throttled answers also teach how fast an operation may be called; `off`: no retry."
    )
    attempts: int | None = Field(
        None, ge=1, le=20, description="Attempts in all, 1: no retry; none: 3, of DynamoDB 4. Only 500, 502, 503, 504, throttling and "
        "connection errors are retried.",
    )  # fmt: skip
    base: OptionalNonNegative = Field(
        None, description="Scale of the delays after failures: random() · min(base · 2^(n-1), cap); none: 50ms, of DynamoDB 25ms."
    )
    throttle_base: Duration = Field(1.0, description="The same after throttling.")
    cap: Duration = Field(20.0, description="Longest delay before jitter.")
    repeat: Literal["safe", "all"] = Field(
        "safe",
        description="What is repeated after a failure that does not say that nothing was done: requests for which twice is as good as once "
        "(by method, model, name or idempotency token), or `all`, as the AWS SDKs do. Throttled requests are always repeated.",
    )
    tokens: bool = Field(
        True, description="Add the idempotency token that an operation takes, where the client left it out (JSON and forms)."
    )
    constants: Literal["current", "before-2026"] = Field(
        "current", description="Of the AWS SDKs: what repeats cost of an endpoint's 500 tokens (14, throttled 5; before: 5, timed out 10)."
    )


class Pacing(Group):
    """Limits of calls a second, kept before AWS has to: the documented ones, and `[[pace]]` rules."""

    defaults: bool = Field(True, description="Keep the limits that AWS documents; `[[pace]]` rules come before them.")
    max_wait: Duration = Field(30.0, description="A request that would wait longer for its turn is refused at once.")
    places: int = Field(10_000, ge=1, le=10_000_000, description="Requests that may wait for one limit.")
    shared: str | None = Field(
        None, pattern=r"^rediss?(\+unix)?://.+|^unix://.+", repr=False,
        description="`redis://…`, `rediss://user:password@host:port/db` (TLS): the sidecars of a fleet keep each limit together.",
    )  # fmt: skip
    share: float = Field(0.1, gt=0, le=1, description="What this sidecar takes of every shared limit while the store is away.")


class Circuit(Group):
    """Endpoints that keep failing are left alone for a while: clients get 503 at once."""

    failures: int = Field(20, ge=0, le=1_000_000, description="So many failures in a row open the circuit; 0: never.")
    pause: PositiveDuration = Field(0.5, description="Then nothing goes there for so long; doubled with every probe that fails.")
    longest: PositiveDuration = Field(3.0, description="At most so long.")
    concurrency: int = Field(0, ge=0, le=1_000_000, description="Requests under way to one endpoint at most; 0: any number.")


class Pace(Group):
    """One `[[pace]]`: how often operations may be called; the first that fits counts."""

    name: str = Field("", description="For messages and metrics; empty: its operation.")
    operation: str | None = Field(None, description="`ec2:Describe*`, `s3:*`; none: every operation.")
    bucket: str | None = Field(None, description="An S3 bucket, or `bucket/key`; `*` matches any run of characters.")
    rate: float = Field(ge=1e-6, le=1e9, allow_inf_nan=False, description="Calls a second.")
    burst: float | None = Field(None, ge=1, le=1e9, allow_inf_nan=False, description="Calls at once; none: those of a second.")
    per: list[Literal["account", "region", "operation", "bucket", "prefix", "client"]] | None = Field(
        None, min_length=1, max_length=6, description="What shares the limit; none: account, region and operation together, or the bucket."
    )
    max_wait: OptionalNonNegative = Field(None, description="The longest wait; none: `pacing.max_wait`.")
    when_full: Literal["wait", "refuse"] = Field("wait", description="Wait in line, or refuse with 503 at once.")
    unchecked: bool = Field(False, description="Accept an `operation` that the table of operations does not have.")


class Tls(Group):
    """Whom to trust upstream (verification is never off), and what to show to clients."""

    ca_files: Annotated[list[Path], NoDecode, BeforeValidator(split_commas)] = Field(
        default_factory=list, description="PEM files with certificates to trust besides the system's."
    )
    system_roots: bool = Field(True, description="Trust the system's roots.")
    certificate: Path | None = Field(
        None, description="Native front: PEM file with the chain that reverse listeners show to TLS clients; none: one of sigward's CA."
    )
    key: Path | None = Field(None, description="PEM file with its key.")

    @model_validator(mode="after")
    def _both(self) -> "Tls":
        if (self.certificate is None) != (self.key is None):
            wrong("certificate and key go together", "Set both, or neither.")
        return self


PROXY_HINT = 'Write "http://proxy.example:3128", "http://user:password@proxy.example:3128", "environment" or "off".'


def check_proxy(value: str) -> str:
    """ "http://[user:password@]host[:port]", "environment" or "off"."""
    if value in ("environment", "off"):
        return value
    parts = urlsplit(value)
    try:
        known = parts.scheme == "http" and bool(parts.hostname) and parts.path in ("", "/") and (parts.port or 80) > 0
    except ValueError:
        known = False
    if not known:
        wrong("http://host[:port] is expected", PROXY_HINT)
    return value.removesuffix("/")


class Egress(Group):
    """The way to the upstreams: directly, or through a proxy that speaks CONNECT."""

    proxy: Annotated[str, AfterValidator(check_proxy), Shape("URL, `environment` or `off`")] = Field(
        "environment",
        repr=False,
        description="`http://[user:password@]host[:port]`; `environment`: HTTPS_PROXY of sigward's own environment, unless that is on this "
        "host (it may be sigward itself); `off`: none.",
    )
    no_proxy: Annotated[list[str] | None, NoDecode, BeforeValidator(split_commas)] = Field(
        None, description="Hosts that are reached without it: names with all below them, addresses, `*`; none: NO_PROXY, and this host."
    )
    http2: Literal["auto", "always", "never"] = Field(
        "auto", description="When HTTP/2 is offered to upstreams; `auto`: for event streams, which need both ways at once."
    )

    def engine(self) -> dict[str, Any]:
        """What the engine takes; reads the environment."""
        named, hosts = self.proxy, self.no_proxy
        if named == "environment":
            own = without_own_proxy(dict(os.environ))
            named = own.get("HTTPS_PROXY") or own.get("https_proxy") or "off"
            if "://" not in named and named != "off":
                named = f"http://{named}"
        if hosts is None:
            hosts = [*own_no_proxy(os.environ), *NO_PROXY.split(",")]
        hosts = [host.lower() for host in hosts]
        return {"proxy": None if named == "off" else named.removesuffix("/"), "no_proxy": hosts, "http2": self.http2}


class Limits(Group):
    """What clients may take of it; beyond it they wait or are refused."""

    header_bytes: Size = Field(64 << 10, description="All header names and values together.")
    headers: int = Field(200, ge=1, description="How many headers.")
    target_bytes: Size = Field(16 << 10, description="Path and query.")
    connections: int = Field(
        16_384,
        ge=1,
        le=1_000_000,
        description="Maximum client connections to the native front. Never more than three quarters of `ulimit -n`.",
    )
    streams: int = Field(1000, ge=1, le=100_000, description="Requests at once on one HTTP/2 connection to the native front.")
    in_flight: int = Field(16_384, ge=1, le=1_000_000, description="Requests under way at once; beyond it: 503 `overloaded`.")
    held_bytes: Size = Field(512 << 20, description="Bytes of bodies that are held in memory at once; beyond it: 503 `overloaded`.")


class Route(Group):
    """One `[[route]]`: the first whose conditions all match decides."""

    name: str = Field("", description="For messages; empty: its number.")
    host: str | None = Field(
        None, min_length=1, description="The host it is for; `*` matches any run of characters; none: every host of AWS's."
    )
    port: int | None = Field(None, ge=1, le=65535, description="Port that the client connects to. Default: every port.")
    path: str | None = Field(None, description="The path it is for, likewise; none: every path.")
    operation: str | None = Field(
        None,
        description="The operation it is for: `dynamodb:PutItem`, `s3:*`, `ec2:Describe*`; the service by its signing name or botocore's.",
    )
    bucket: str | None = Field(
        None,
        description="The S3 bucket it is for, or `bucket/key`, likewise: `team-*`, `logs/2026/*`. Of a listing, its prefix counts as key.",
    )
    client: str | None = Field(None, description="The `[clients.NAME]` it is for; none: whoever asks.")
    action: Literal["sign", "pass", "deny"] = Field("sign", description="Sign and forward, forward untouched, or refuse with 403.")
    service: str | None = Field(None, description="Signing name, e.g. `es` for OpenSearch, where the host does not tell.")
    region: Annotated[str | None, AfterValidator(or_none(scope_region))] = Field(
        None, description="Region in the credential scope, where the host does not tell."
    )
    identity: str | None = Field(
        None, description="Whose credentials: an `[identities.NAME]`, or an AWS profile; none: those that all other requests get."
    )
    authorization: Literal["keep", "replace", "refuse"] | None = Field(
        None, description="The same as `authorization` at the top, for this route. Default: that one."
    )
    upstream: UpstreamUrl | None = Field(
        None, description="`https://host[:port]`: send it there instead; scheme, Host and TLS name are rewritten."
    )
    connect: str | None = Field(
        None,
        description="`host:port`: only the socket goes there; Host and the verified TLS name stay. Allows local addresses.",
    )
    style: Literal["s3", "generic"] | None = Field(None, description="Path rule of the signature; none: by the signing name.")
    payload: Literal["auto", "hash", "unsigned", "chunked"] = Field(
        "auto",
        description="What the signature says of the body: its SHA-256, nothing (`UNSIGNED-PAYLOAD`), or one signature per chunk (S3's "
        "PutObject and UploadPart only; all others as `hash`). `auto`: by service, size and what the client sent.",
    )
    signature: Literal["auto", "header", "query"] = Field(
        "auto",
        description="Where it stands; `auto`: in the query for WebSockets of IoT, Transcribe and Kinesis Video, else in the headers.",
    )
    variant: Literal["v4", "v4a"] = Field("v4", description="`v4a`: SigV4a; `region` is then a region set such as `*`.")
    token: Literal["auto", "signed", "added-after", "s3express"] = Field(
        "auto",
        description="Where a session token goes: `x-amz-security-token` signed, or added after signing (IoT's WebSockets), or "
        "`x-amz-s3session-token` (S3 Express, with credentials of CreateSession).",
    )
    query_plus: Literal["blank", "plus"] = Field(
        "blank",
        description="What a raw `+` in a query means: a blank, sent and signed as `%20`, or a plus sign (`%2B`). A client with an issued "
        "key says it by its signature.",
    )
    unsigned_headers: list[str] = Field(
        default_factory=list,
        description="Headers to send unsigned because something behind sigward changes them, besides those that always are: see "
        '"Unsigned headers".',
    )
    copy_headers: dict[str, str] = Field(
        default_factory=dict,
        description='Of what is signed: headers that go on under another name, too: `{ Authorization = "X-Original-Authorization" }`.',
    )
    remove_headers: list[str] = Field(default_factory=list, description="Then: headers that do not go on.")
    add_headers: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description="Then: headers with their values, for requests that have none of that name; to replace a client's, remove it, too.",
    )
    unchecked: bool = Field(False, description="Accept an `operation` that the table of operations does not have.")

    @model_validator(mode="after")
    def _for_something(self) -> "Route":
        if not (self.host or self.operation or self.bucket or self.client):
            wrong("nothing says what it is for", "Set host, operation, bucket or client.")
        return self


class Rules(Group):
    """What routes do where sigward cannot tell which call a request is."""

    unknown: Literal["closed", "report"] = Field(
        "closed",
        description="When a rule asks for a part of the call that is unknown: `closed`: a `deny` applies, a `sign` or `pass` does not; "
        "`report`: let it pass, log and count what `closed` would refuse. For migration: `report` is no boundary.",
    )


class Identity(Group):
    """One `[identities.NAME]`: whose credentials; routes name it. Without `process` and token file it begins with the AWS chain."""

    profile: str | None = Field(None, description="AWS profile whose credentials it is, or takes the role with; none: AWS's own chain.")
    role_arn: str | None = Field(
        None, pattern=r"^arn:[\w-]+:iam::\d{12}:role/.+$", description="A role to take with them: `arn:aws:iam::123456789012:role/NAME`."
    )
    external_id: str | None = Field(None, description="What the role's trust policy may ask for.")
    session_name: str | None = Field(
        None,
        pattern=r"^[\w+=,.@-]{2,64}$",
        description="The session's name in CloudTrail; none: `sigward-` and the ECS task, pod or host.",
    )
    duration: int | None = Field(None, ge=900, le=43200, description="Seconds that the role's credentials live; none: the role's default.")
    source_identity: str | None = Field(None, description="Whom CloudTrail names behind the role.")
    policy: str | None = Field(None, description="A session policy (JSON): the role's rights are cut down to it.")
    tags: dict[str, str] = Field(default_factory=dict, description="Session tags.")
    web_identity_token_file: Path | None = Field(
        None, description="A file with an OIDC token to take the role with, instead of credentials."
    )
    process: str | None = Field(
        None,
        description="A program that prints credentials, as `credential_process`. A relative path of the program is relative to the "
        "settings file's folder; give whole paths in its arguments.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Identity":
        if self.process is not None and (self.role_arn or self.profile or self.web_identity_token_file):
            raise ValueError("process stands alone: without profile, role_arn and web_identity_token_file")
        if self.web_identity_token_file is not None and (self.role_arn is None or self.profile):
            raise ValueError("web_identity_token_file needs role_arn, and no profile")
        if self.role_arn is None and (
            self.external_id or self.session_name or self.duration or self.source_identity or self.policy or self.tags
        ):
            raise ValueError("external_id, session_name, duration, source_identity, policy and tags belong to a role: set role_arn")
        return self


class Client(Group):
    """One `[clients.NAME]`: a program that signs with a key pair that sigward has issued, and is known by it."""

    rotation: int = Field(1, ge=1, le=2**32 - 1, description="Raise it for a new pair; the one before is refused from then on.")
    identity: str | None = Field(None, description="Whose credentials its requests get where no route says.")
    uids: list[int] = Field(
        default_factory=list, description="Whose processes may fetch the pair from `clients.socket`; none: those of sigward's own user."
    )


class Clients(BaseModel):
    """Clients that sign with keys that sigward has issued; each is a table of its own, `[clients.NAME]`."""

    model_config = ConfigDict(extra="allow", defer_build=True)
    __pydantic_extra__: dict[str, Client] = Field(init=False)

    required: bool = Field(
        False,
        description="Serve only requests that are signed with an issued key. Tunnels need a `[[route]]` that passes the host and `port`.",
    )
    key_file: Path = Field(
        default_factory=lambda: config_home() / "clients.key",
        description="The master key that every pair is derived from; made there, mode 0600, when it is first needed.",
    )
    payload: Literal["any", "signed"] = Field(
        "any",
        description="`signed`: refuse a request with an issued key whose signature does not cover its body (`UNSIGNED-PAYLOAD`).",
    )
    socket: Path | None = Field(
        None,
        description="Linux: a unix socket where `sigward client credentials` fetches a pair, if the process is of a user that may have it.",
    )

    @model_validator(mode="after")
    def _names(self) -> "Clients":
        for name in self.__pydantic_extra__ or {}:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
                raise ValueError(f"{name!r} is no name for a client: up to 64 letters, digits, dots, dashes, underscores")
        if self.required and not self.__pydantic_extra__:
            raise ValueError("required is true, but there is no [clients.NAME], so nobody could ask")
        return self

    def issued(self) -> dict[str, Client]:
        """By name."""
        return dict(self.__pydantic_extra__ or {})


OTLP_HINT = 'Write the collector\'s URL, "http://127.0.0.1:4318", or "environment", or "off".'
PAIRS_HINT = 'Write a table, { name = "value" }, or "name=value,name=value" with %2C for a comma.'


def check_collector(value: str) -> str:
    """ "https://host[:port][/path]", "environment" or "off"."""
    if value in ("environment", "off"):
        return value
    parts = urlsplit(value)
    check = f"{parts.scheme}://{parts.netloc}"
    try:
        check_upstream(check)
    except PydanticCustomError:
        wrong("http[s]://host[:port][/path] is expected", OTLP_HINT)
    if parts.query or parts.fragment:
        wrong("no query is expected", OTLP_HINT)
    return value.removesuffix("/")


def split_pairs(value: object) -> object:
    """A table from one string, as flags and variables give it, and OpenTelemetry's own variables: percent-encoded values."""
    if not isinstance(value, str):
        return value
    pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
    if any(not name.strip() or not equals for name, equals, _ in pairs):
        wrong("name=value is expected", PAIRS_HINT)
    return {unquote(name.strip()): unquote(text.strip()) for name, _, text in pairs}


class Otlp(Group):
    """Traces and metrics by OpenTelemetry's protocol. See "Telemetry"."""

    endpoint: Annotated[str, AfterValidator(check_collector)] = Field(
        "off",
        repr=False,
        description="The collector, HTTP with protobuf: `http[s]://host[:port]`, and `/v1/traces`, `/v1/metrics` behind; `environment`: "
        "OTEL_EXPORTER_OTLP_ENDPOINT, or http://127.0.0.1:4318; `off`: nothing is sent.",
    )
    traces: bool = Field(True, description="Send a span for each request, and for its waits and attempts.")
    metrics: bool = Field(True, description="Send what /metrics shows.")
    headers: Annotated[dict[str, str] | None, NoDecode, BeforeValidator(split_pairs)] = Field(
        None, repr=False, description="Of each request to the collector, such as its key; none: OTEL_EXPORTER_OTLP_HEADERS."
    )
    timeout: OptionalDuration = Field(None, description="Of a request to the collector; none: OTEL_EXPORTER_OTLP_TIMEOUT, 10 s.")
    sample_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None,
        description="The part of requests that is traced, where the client's `traceparent` does not say; none: OTEL_TRACES_SAMPLER_ARG, 1.",
    )
    service_name: str | None = Field(None, min_length=1, description="`service.name`; none: OTEL_SERVICE_NAME, `sigward`.")
    attributes: Annotated[dict[str, str] | None, NoDecode, BeforeValidator(split_pairs)] = Field(
        None, description="Of the resource: `deployment.environment.name`, …; beside those of OTEL_RESOURCE_ATTRIBUTES."
    )
    interval: OptionalDuration = Field(None, description="Between metrics and the next; none: OTEL_METRIC_EXPORT_INTERVAL, 60 s.")

    def engine(self) -> dict[str, Any] | None:
        """What the engine takes; reads OpenTelemetry's own variables, and only where something is sent. Raises `UsageError`."""
        if self.endpoint == "off" or not (self.traces or self.metrics):
            return None
        attributes = otel_pairs("OTEL_RESOURCE_ATTRIBUTES") | (self.attributes or {})
        name = self.service_name or os.environ.get("OTEL_SERVICE_NAME") or attributes.get("service.name") or "sigward"
        ratio = self.sample_ratio if self.sample_ratio is not None else otel_number("OTEL_TRACES_SAMPLER_ARG", 1.0, most=1.0)
        headers = self.headers if self.headers is not None else otel_pairs("OTEL_EXPORTER_OTLP_HEADERS")
        return {
            "traces": self._url("traces") if self.traces else None,
            "metrics": self._url("metrics") if self.metrics else None,
            "headers": headers,
            "timeout": self.timeout or otel_number("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000.0) / 1000,
            "interval": self.interval or otel_number("OTEL_METRIC_EXPORT_INTERVAL", 60_000.0) / 1000,
            "delay": otel_number("OTEL_BSP_SCHEDULE_DELAY", 1_000.0) / 1000,
            "sample_ratio": ratio,
            "attributes": attributes | {"service.name": name},
        }

    def _url(self, signal: str) -> str:
        if self.endpoint != "environment":
            return f"{self.endpoint}/v1/{signal}"
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
        if protocol != "http/protobuf":
            raise UsageError(
                f"environment: OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r}: http/protobuf alone is spoken.",
                hint="Name the collector's port for HTTP, mostly 4318, in otlp.endpoint.",
            )
        own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
        url = own or (os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://127.0.0.1:4318").removesuffix("/") + f"/v1/{signal}"
        try:
            return check_collector(url)
        except PydanticCustomError as error:
            raise UsageError(f"environment: OTEL_EXPORTER_OTLP_ENDPOINT: {error.message()}.", hint=OTLP_HINT) from error


def otel_pairs(name: str) -> dict[str, str]:
    """One of OpenTelemetry's variables: name=value,… Raises `UsageError`, which does not show what may be a key."""
    try:
        pairs: Any = split_pairs(os.environ.get(name, ""))
    except PydanticCustomError as error:
        raise UsageError(f"environment: {name}: {error.message()}.", hint=PAIRS_HINT) from error
    return dict(pairs)


def otel_number(name: str, default: float, most: float = math.inf) -> float:
    """One of OpenTelemetry's variables: a number from 0 to `most`. Raises `UsageError`."""
    text = os.environ.get(name)
    if not text:
        return default
    with contextlib.suppress(ValueError):
        if 0 <= (number := float(text)) <= most and math.isfinite(number):
            return number
    raise UsageError(f"environment: {name}: {text!r}: a number from 0 on is expected.", hint=f"Write a number, such as {default:g}.")


def reverse_from_table(value: object) -> object:
    """`[[reverse]]` tables in the form of the flag: HOST:PORT[=URL]."""
    value = split_commas(value)
    if not isinstance(value, list):
        return value
    told: list[object] = []
    for number, item in enumerate(value):
        if isinstance(item, dict):
            unknown = set(item) - {"listen", "upstream"}
            if unknown or not isinstance(item.get("listen"), str):
                raise ValueError(
                    f"reverse {number + 1}: a table with `listen` and, if you like, `upstream` is expected; "
                    f"found {', '.join(sorted(item)) or 'nothing'}"
                )
            told.append(item["listen"] + (f"={item['upstream']}" if item.get("upstream") else ""))
        else:
            told.append(item)
    return told


class Settings(BaseSettings):
    """What sigward runs with."""

    model_config = SettingsConfigDict(
        env_prefix="SIGWARD_", env_nested_delimiter="__", extra="forbid", cli_kebab_case=True, cli_hide_none_type=True,
        cli_avoid_json=True, cli_implicit_flags=True, validate_default=True, defer_build=True,
    )  # fmt: skip

    config: Path | None = Field(
        None,
        description="Settings file. Default: ./sigward.toml if `sigward config allow` has allowed it, then ~/.config/sigward/sigward.toml, "
        "then /etc/sigward/sigward.toml. Relative paths in it are relative to its folder.",
    )
    profile: str | None = Field(None, description="AWS profile for credentials and region; none: AWS_PROFILE or the default one.")
    region: str | None = Field(
        None,
        description="Region for hosts that name none; none: AWS_REGION, AWS_DEFAULT_REGION, the profile, us-east-1.",
    )
    listen: Listen = Field(
        "127.0.0.1:8080", description="Forward proxy (HTTPS_PROXY); port 0 takes a free one; native front: also `unix:/path`; `off`: none."
    )
    reverse: Annotated[list[str], NoDecode, BeforeValidator(reverse_from_table), Shape("list of HOST:PORT=URL")] = Field(
        default_factory=list,
        description="Reverse proxy for endpoint URLs: `HOST:PORT=https://endpoint`, or `HOST:PORT`: the Host header names the endpoint. "
        "In the file: `[[reverse]]` with `listen` and `upstream`.",
    )
    transparent: Listen = Field(
        "off",
        description="Native front, Linux: connections redirected by iptables; AWS's hosts are served, all else goes on. "
        "`localhost:PORT`: on 127.0.0.1, and on ::1 where there is one.",
    )
    admin: Listen = Field("127.0.0.1:9901", description="/healthz, /readyz and /metrics; `off`: none.")
    allow_remote: bool = Field(
        False, description="Allow listeners that other hosts can reach: whoever reaches one can use your credentials."
    )
    ca_dir: Path = Field(default_factory=lambda: config_home() / "ca", description="sigward's CA: made there at the first start.")
    ca_names: Annotated[list[str], NoDecode, BeforeValidator(split_commas)] = Field(
        default_factory=list,
        description="Domains (with all below them) and addresses that a CA made anew vouches for, besides AWS's, this host's and those of "
        'routes: `sigward.internal`, `10.0.0.7`. See "Trust".',
    )
    ca_key: Literal["p256", "rsa2048"] = Field(
        "p256",
        description="Key type of the CA and its certificates; `rsa2048` is for old clients. A change takes `sigward ca renew`.",
    )
    trust_dir: Path | None = Field(
        None,
        description="Where what clients trust is written: `ca.pem` (the CA alone), `bundle.pem` (the system's roots too), `truststore.p12` "
        "(the same for Java), and files that lead PHP and wget to the bundle; no key. Default: `trust` in `ca_dir`.",
    )
    grace: Duration = Field(10.0, description="On SIGTERM, requests under way have so long to end.")
    front: Literal["mitmproxy", "native"] = Field(
        "mitmproxy", description="`native`: Rust from socket to socket, for high throughput; without addons and mitmweb."
    )
    client_http2: Literal["auto", "never"] = Field(
        "auto", description="HTTP/2 for clients: `auto` offers it to TLS clients beside HTTP/1.1; `never` serves HTTP/1.1 alone."
    )
    threads: int = Field(1, ge=1, le=64, description="Engine threads.")
    access_log: Annotated[str, BeforeValidator(parse_log), Shape("`off`, `stderr` or path")] = Field(
        "off",
        description="A line of JSON for each request: who, what, as whom, each attempt; never a query. `off`, `stderr` (or true), or a "
        'file\'s path: made with mode 0600, opened anew on SIGHUP. See "Logs".',
    )
    audit_log: Annotated[str, BeforeValidator(parse_log), Shape("`off`, `stderr` or path")] = Field(
        "off",
        description="A line of JSON for each call: client, identity, operation, resource, decision. `off`, `stderr`, or a file's path, as "
        '`access_log`. See "Logs".',
    )
    audit_when_full: Literal["refuse", "drop"] = Field(
        "refuse",
        description="While it cannot be written: sign nothing (503 `audit-log-unavailable`) and keep the lines, or drop and count them.",
    )
    audit_begun: bool | None = Field(
        None,
        description="Also write a line before each call is sent. After a crash, the log shows which calls were in flight. "
        'Default: true where `audit_when_full` is `refuse`. See "Logs".',
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Of the log on stderr; `json`: a line of JSON each, with time, level, logger and message."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Log on stderr.")
    knowledge: Path | None = Field(
        None, description="A table of hosts and operations that `sigward knowledge refresh` made; none: the shipped one."
    )
    addons: Annotated[list[Path], NoDecode, BeforeValidator(split_commas)] = Field(
        default_factory=list,
        description="mitmproxy scripts; they see and may change a request before it is signed. Relative to the settings file's folder.",
    )
    body: Body = Field(default_factory=Body)  # type: ignore[arg-type]
    timeouts: Timeouts = Field(default_factory=Timeouts)  # type: ignore[arg-type]
    retry: Retry = Field(default_factory=Retry)  # type: ignore[arg-type]
    pacing: Pacing = Field(default_factory=Pacing)  # type: ignore[arg-type]
    circuit: Circuit = Field(default_factory=Circuit)  # type: ignore[arg-type]
    tls: Tls = Field(default_factory=Tls)  # type: ignore[arg-type]
    egress: Egress = Field(default_factory=Egress)  # type: ignore[arg-type]
    limits: Limits = Field(default_factory=Limits)  # type: ignore[arg-type]
    otlp: Otlp = Field(default_factory=Otlp)  # type: ignore[arg-type]
    clients: Clients = Field(default_factory=Clients)  # type: ignore[arg-type]
    identities: dict[str, Identity] = Field(default_factory=dict, description="Whose credentials routes may name; see below.")
    rules: Rules = Field(default_factory=Rules)  # type: ignore[arg-type]
    customer_endpoints: Literal["sign", "refuse"] = Field(
        "sign",
        description="Endpoints that belong to an AWS customer, whichever it is (execute-api, lambda-url, AppSync, VPC Lattice, "
        "AgentCore gateways): sign, or refuse where no route names the host. The owner may see a session token that is sent there.",
    )
    via: bool = Field(
        True,
        description="Send a `Via` header with a random name of this process, and refuse a request that comes back with it (508 `loop`).",
    )
    authorization: Literal["keep", "replace", "refuse"] = Field(
        "keep",
        description="What to do with requests that bring their own credential (Bearer, Basic, a presigned URL, a form): pass them "
        "unsigned, replace an `Authorization` header and sign, or refuse with 403. A route's own `authorization` comes first.",
    )
    route: list[Route] = Field(default_factory=list, description="Rules for hosts; see below.")
    pace: list[Pace] = Field(default_factory=list, description="Limits of calls a second; see below.")

    web_host: str = Field("127.0.0.1", description="`sigward web`: the address of its pages.")
    web_port: int = Field(9902, ge=0, le=65535, description="`sigward web`: their port; 0 takes a free one.")
    web_password: str | None = Field(
        None,
        repr=False,
        description="`sigward web`: opens its pages; better an argon2 hash than plain text; none: a token, made anew at each start and "
        "printed in the pages' address.",
    )
    web_flows: int = Field(1000, ge=1, le=1_000_000, description="`sigward web`: so many requests are kept to look at, the last ones.")
    web_bodies: Size = Field(
        64 << 20, description="`sigward web`: bytes of bodies that are kept, all together; larger bodies are not kept; 0: none."
    )
    open_browser: bool = Field(True, description="`sigward web`: open its pages in a browser, where there is one.")

    inspects: ClassVar[bool] = False
    """True: what happens is shown, not only done."""

    source: ClassVar["TomlFile | None"] = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, FileSource(settings_cls, Settings.source))

    @field_validator("ca_names")
    @classmethod
    def _check_ca_names(cls, value: list[str]) -> list[str]:
        for name in value:
            if not CA_NAME.fullmatch(name) and not is_ip(name):
                wrong(f"{name!r} is neither a domain nor an address", CA_NAME_HINT)
        return [name.lower() for name in value]

    @model_validator(mode="after")
    def _check_clients(self) -> "Settings":
        known = self.clients.issued()
        for number, route in enumerate(self.route, 1):
            if route.client is not None and route.client not in known:
                wrong(
                    f"route {number}: there is no client {route.client!r}",
                    f"Add [clients.{route.client}]; {did_you_mean(route.client, known)}",
                )
        return self

    @field_validator("reverse")
    @classmethod
    def _check_reverse(cls, value: list[str]) -> list[str]:
        for entry in value:
            listen, _, upstream = entry.partition("=")
            check_listen(listen)
            if upstream:
                check_upstream(upstream)
        return value

    @model_validator(mode="after")
    def _check_reach(self) -> "Settings":
        fronts = (self.listen, self.transparent, *(entry.partition("=")[0] for entry in self.reverse))
        for listen in fronts:
            if listen.startswith("unix:") and self.front != "native":
                wrong(f"front: {listen} is a unix socket, which only the native front serves", 'Set front = "native", or HOST:PORT.')
        if self.tls.certificate and self.front != "native":
            wrong("front: tls.certificate is shown by the native front alone", 'Set front = "native".')
        if self.transparent != "off" and self.front != "native":
            wrong("front: transparent is served by the native front alone", 'Set front = "native".')
        if sys.platform != "linux":
            self._check_linux()
        for listen in (*fronts, self.admin):
            if listen != "off" and not is_loopback(listen) and not self.allow_remote:
                wrong(f"allow_remote: {listen} can be reached by other hosts, and whoever reaches it can use your credentials", REACH_HINT)
        if self.listen == "off" and self.transparent == "off" and not self.reverse:
            wrong("listen: it is off and there is no [[reverse]], so there is nothing to serve", "Set listen, or add a [[reverse]] table.")
        if self.admin.startswith("unix:"):
            wrong("admin: HOST:PORT is expected", LISTEN_HINT)
        return self

    def _check_linux(self) -> None:
        if self.transparent != "off":
            wrong("transparent: only Linux tells where a connection was bound for", "Use listen or [[reverse]] on this system.")
        if self.clients.socket:
            wrong("clients.socket: only Linux tells sigward whose process asks", "Give keys out with `sigward client key` on this system.")

    def reverse_listeners(self) -> list[tuple[str, str | None]]:
        """(listen, upstream or None)."""
        return [(listen, upstream or None) for listen, _, upstream in (entry.partition("=") for entry in self.reverse)]

    def trust(self) -> Trust:
        """Where what clients trust lies."""
        return Trust(self.trust_dir or self.ca_dir / "trust")

    def vouched_names(self) -> tuple[str, ...]:
        """`Plan.ca_names`."""
        return tuple(dict.fromkeys([*self.ca_names, *self._listener_hosts(), *self.routed_names()]))

    def routed_names(self) -> list[str]:
        """Domains, addresses and patterns of routes that TLS is ended for."""
        names = []
        for route in self.route:
            if route.host and (route.action != "pass" or route.upstream or route.connect):
                found = subtree(route.host)
                # What is denied needs no certificate: the tunnel is refused. `ca_names` says what a pattern cannot.
                names += [found] if found else [route.host] if route.action != "deny" and not self.ca_names else []
        return names

    def _listener_hosts(self) -> Iterator[str]:
        for listen, _ in self.reverse_listeners():
            host = listen.rpartition(":")[0].removeprefix("[").removesuffix("]")
            # Of a listener on every address, nobody knows by which it is reached.
            if not listen.startswith("unix:") and not (is_ip(host) and ipaddress.ip_address(host).is_unspecified):
                yield host

    def chains(self, region: str) -> dict[str, Chain]:
        """Where the keys of each identity in use come from. One that a route names and the settings do not is the profile of that name."""
        return {name: self.chain(name, region) for name in sorted(self._used_identities())}

    def every_identity(self) -> list[str]:
        """Those in use, and those that the settings hold besides; the default one first."""
        return sorted({*self._used_identities(), *self.identities}, key=lambda name: (name != DEFAULT_IDENTITY, name))

    def _used_identities(self) -> set[str]:
        named = {route.identity for route in self.route if route.identity and route.action == "sign"}
        return named | {client.identity for client in self.clients.issued().values() if client.identity} | {DEFAULT_IDENTITY}

    def chain(self, name: str, region: str) -> Chain:
        """Where one identity's keys come from."""
        known = self.identities.get(name)
        if known is None:
            return Chain(self.profile if name == DEFAULT_IDENTITY else name, region)
        assume = Assume(
            role_arn=known.role_arn,
            external_id=known.external_id,
            session_name=known.session_name,
            duration=known.duration,
            source_identity=known.source_identity,
            policy=known.policy,
            tags=tuple(sorted(known.tags.items())),
            web_identity_token_file=str(known.web_identity_token_file) if known.web_identity_token_file else None,
            process=known.process,
        )
        return Chain(known.profile or (self.profile if name == DEFAULT_IDENTITY else None), region, assume=assume)

    def plan(self) -> Plan:
        """What to serve, in plain values; reads the environment and, for the region, the profile. Raises `UsageError`."""
        self.check_owners()
        region = resolve_region(self.region, self.profile)
        named = {
            name: ClientTerms(rotation=client.rotation, identity=client.identity, uids=tuple(client.uids))
            for name, client in self.clients.issued().items()
        }
        return Plan(
            source=Settings.source.path.absolute() if Settings.source else None,
            front=self.front,
            listen=self.listen,
            reverse=tuple(self.reverse_listeners()),
            transparent=self.transparent,
            admin=self.admin,
            ca_dir=self.ca_dir,
            ca_names=self.vouched_names(),
            ca_key=self.ca_key,
            trust_dir=self.trust().directory,
            threads=self.threads,
            addons=tuple(self.addons),
            grace=self.grace,
            log_level=self.log_level,
            log_format=self.log_format,
            body_hold=self.body.hold,
            region=region.asked,
            engine=self.engine_json(region.name),
            chains=self.chains(region.asked),
            clients=Terms(self.clients.key_file, self.clients.socket, named),
            web=self.pages() if self.inspects else None,
        )

    def check_owners(self) -> None:
        """Of the files that say whom to trust and what calls are. Raises `UsageError`."""
        named = [("knowledge", self.knowledge), ("tls.certificate", self.tls.certificate), ("tls.key", self.tls.key)]
        for setting, path in (*named, *(("tls.ca_files", path) for path in self.tls.ca_files)):
            # What is missing, whoever reads it says.
            if path is not None and path.is_file() and (told := complaint(path, secret=False)):
                raise UsageError(f"{setting}: {told[0]}.", hint=told[1])

    def pages(self) -> Web:
        """`sigward web`'s."""
        return Web(self.web_host, self.web_port, self.web_password, self.web_flows, self.web_bodies, self.open_browser)

    def engine_json(self, region: str) -> str:
        """What the engine takes: `EngineSettings` in rust/gateway/src/settings.rs."""
        taken = {
            "threads",
            "access_log",
            "audit_log",
            "audit_when_full",
            "audit_begun",
            "log_level",
            "knowledge",
            "body",
            "timeouts",
            "retry",
            "circuit",
            "tls",
            "client_http2",
            "limits",
            "rules",
            "customer_endpoints",
            "via",
            "authorization",
        }
        chosen = self.model_dump(mode="json", include=taken)
        chosen["egress"] = self.egress.engine()
        chosen["otlp"] = self.otlp.engine()
        chosen["pace"] = self.pacing.model_dump(mode="json") | {"rules": [rule.model_dump(mode="json") for rule in self.pace]}
        chosen["routes"] = [route.model_dump(mode="json") for route in self.route]
        chosen["default_region"] = region
        chosen["inspect"] = self.inspects
        issued = [
            {"name": name, **client.model_dump(mode="json", include={"rotation", "identity"})}
            for name, client in self.clients.issued().items()
        ]
        chosen["clients"] = {
            "required": self.clients.required,
            "payload": self.clients.payload,
            "key_file": str(self.clients.key_file),
            "issued": issued,
        }
        return json.dumps(chosen)


class FileSource(PydanticBaseSettingsSource):
    """The settings file, as pydantic-settings takes sources."""

    def __init__(self, settings_cls: type[BaseSettings], file: TomlFile | None) -> None:
        super().__init__(settings_cls)
        self.file = file

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        value = self.file.data.get(field_name) if self.file else None
        return value, field_name, False

    def __call__(self) -> dict[str, Any]:
        if self.file is None:
            return {}
        folder = self.file.path.parent
        data = dict(self.file.data)
        return data if folder == Path() else within(self.settings_cls, data, folder)


def within(model: type[BaseModel], values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A file's values, with relative paths in them made relative to the file's folder: the current one may be anybody's, and a path may
    be of a program."""
    made = dict(values)
    for name, field in model.model_fields.items():
        if name in made:
            made[name] = _within(name, field.annotation, made[name], folder)
    return made


def _within(name: str, annotation: Any, value: Any, folder: Path) -> Any:
    kinds = (annotation, *get_args(annotation))
    group = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    if group is annotation and isinstance(value, dict):
        return within(group, value, folder)
    if group and isinstance(value, dict):
        return {key: within(group, inner, folder) if isinstance(inner, dict) else inner for key, inner in value.items()}
    if isinstance(value, list):
        return [_within(name, group or kinds[-1], inner, folder) for inner in value]
    if not isinstance(value, str):
        return value
    if annotation == list[Path]:
        return _within(name, annotation, split_commas(value), folder)
    if name == "process":
        return _program_within(value, folder)
    # A log is a path if it has a slash.
    return str(folder / value) if Path in kinds or (name.endswith("_log") and "/" in value) else value


def _program_within(command: str, folder: Path) -> str:
    """A command with a path for its program; a bare name is looked for on PATH, and arguments are the program's own affair."""
    try:
        program, *arguments = shlex.split(command)
    except ValueError:
        return command
    return shlex.join([str(folder / program), *arguments]) if "/" in program else command


def check_environment() -> None:
    """A SIGWARD_ variable that names no setting is a slip of the pen: said, not ignored."""
    known = {"SIGWARD_CONFIG", "SIGWARD_SIGNING_SUITE"}
    for name, field in Settings.model_fields.items():
        known.add(f"SIGWARD_{name.upper()}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group | Clients):
            known |= {f"SIGWARD_{name.upper()}__{key.upper()}" for key in field.annotation.model_fields}
    for name in os.environ:
        if name.startswith("SIGWARD_") and name.upper() not in known and not KUBERNETES.fullmatch(name):
            raise UsageError(f"environment: {name}: there is no such setting.", hint=did_you_mean(name, known))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest known word, or where they all stand."""
    close = difflib.get_close_matches(word, sorted(known), 1)
    return f"Did you mean {close[0]}?" if close else "See docs/settings.md for all of them."


def usage_error(error: ValidationError, arguments: list[str]) -> UsageError:
    """Pydantic's first complaint, with the place the value came from."""
    first = error.errors(include_url=False)[0]
    location = tuple(first["loc"])
    message = str(first["msg"]).removeprefix("Value error, ")
    if not location and (match := re.match(r"(\w+): ", message)):
        location, message = (match[1],), message[match.end() :]
    key = ".".join(str(part + 1 if isinstance(part, int) else part) for part in location)
    place = _place(location, arguments)
    if first["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        return UsageError(f"{place}{key}: there is no such setting.", hint=did_you_mean(str(location[-1]), known))
    if first["type"] == "missing":
        return UsageError(f"{place}{key}: it is missing.", hint="See docs/settings.md.")
    found = f" (found {json.dumps(first['input'], default=str)[:80]})" if first["loc"] and not _may_hold_a_secret(location) else ""
    return UsageError(f"{place}{key}: {message}{found}.", hint=_value_hint(dict(first)))


def _may_hold_a_secret(location: tuple[int | str, ...]) -> bool:
    """True for what no `repr` shows, and for the whole of a table that such a thing is in."""
    model: Any = Settings
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(str(part)) if isinstance(model, type) and issubclass(model, BaseModel) else None
        if field is None or not field.repr:
            return field is not None
        model = get_args(field.annotation)[0] if get_origin(field.annotation) is list else field.annotation
    return isinstance(model, type) and issubclass(model, BaseModel) and any(not field.repr for field in model.model_fields.values())


def unknown_flag(message: str) -> str:
    """The hint for a flag that argparse does not know."""
    flag = message.removeprefix("unrecognized arguments: ").partition(" ")[0].partition("=")[0]
    known = [f"--{name}" for name in Settings.model_fields]
    known += [f"--{name}.{key}" for name, field in Settings.model_fields.items() for key in _keys(field.annotation)]
    return did_you_mean(flag, [name.replace("_", "-") for name in known])


def _keys(annotation: Any) -> list[str]:
    return list(annotation.model_fields) if isinstance(annotation, type) and issubclass(annotation, Group | Clients) else []


def _value_hint(error: dict[str, Any]) -> str:
    kind, context = str(error["type"]), error.get("ctx", {})
    if "hint" in context:
        return str(context["hint"])
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        close = difflib.get_close_matches(str(error["input"]), choices, 1)
        return f"Did you mean {close[0]}?" if close else f"One of {', '.join(choices)}."
    if kind.startswith(("greater_than", "less_than")):
        return f"A number {'above' if kind == 'greater_than' else 'from' if 'greater' in kind else 'up to'} {next(iter(context.values()))}."
    return {"bool": "true or false.", "int": "A whole number.", "string": "Text, in quotes.", "list": "A list: [a, b]."}.get(
        kind.partition("_")[0], "See docs/settings.md."
    )


def _place(location: tuple[int | str, ...], arguments: list[str]) -> str:
    if not location:
        return ""
    flag = "--" + ".".join(str(part).replace("_", "-") for part in location if isinstance(part, str))
    if any(argument == flag or argument.startswith(f"{flag}=") for argument in arguments):
        return f"{flag}: "
    names = [f"SIGWARD_{'__'.join(str(part).upper() for part in location[:depth])}" for depth in range(1, len(location) + 1)]
    for name in reversed(names):
        if name in os.environ:
            return f"environment: {name}: "
    file = Settings.source
    if file is None:
        return ""
    line = file.line(location)
    return f"{file.path}:{line}: " if line else f"{file.path}: "


def _known_keys(location: tuple[int | str, ...]) -> set[str]:
    names: dict[str, type[BaseModel]] = {
        "body": Body,
        "timeouts": Timeouts,
        "retry": Retry,
        "pacing": Pacing,
        "circuit": Circuit,
        "pace": Pace,
        "tls": Tls,
        "egress": Egress,
        "limits": Limits,
        "otlp": Otlp,
        "route": Route,
        "clients": Client if len(location) > 1 else Clients,
        "identities": Identity,
    }
    group: type[BaseModel] = names.get(str(location[0]), Settings) if location else Settings
    return set(group.model_fields)
