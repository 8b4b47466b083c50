"""The compiled module: sigward's Rust signer and engine, as Python sees them (crate `sigward-python`).

Nothing here blocks on the network. Every call takes microseconds and is safe from any thread.
"""

from collections.abc import Sequence
from typing import Final, Literal, final

__all__ = [
    "ENTRY_CONNECT",
    "ENTRY_FORWARD",
    "ENTRY_REVERSE",
    "EVENT_DATA",
    "EVENT_FAILED",
    "EVENT_LOG",
    "EVENT_REFRESH",
    "EVENT_RESPONSE",
    "EVENT_TRAILERS",
    "EVENT_WRITABLE",
    "Allowance",
    "Call",
    "Difference",
    "Engine",
    "Held",
    "Job",
    "Knowledge",
    "Operation",
    "Recognised",
    "Rehearsal",
    "Rehearsed",
    "Report",
    "SettingsError",
    "Signer",
    "SigningError",
    "SigningSteps",
    "SigwardError",
    "VerificationError",
    "Verifier",
    "__version__",
    "aws_domains",
    "cut_ini",
    "difference",
    "first_bytes",
    "header_text",
    "issue_key",
    "metric_descriptions",
    "normal_host",
    "recognise",
    "redact_text",
    "refusals",
    "retry_delay",
    "same_authority",
    "unsigned_headers",
]

__version__: Final[str]

_Headers = Sequence[tuple[bytes, bytes]]
"""Ordered pairs of (name, value), names in any case, repeated names allowed."""

class SigwardError(Exception):
    """Base of what the Rust module raises. `slug`, `fault` ("client" | "sigward" | "upstream") and `hint` say more."""

    slug: str
    fault: str
    hint: str

class SettingsError(SigwardError):
    """The settings handed to `Engine` do not hold; the message names the field."""

class SigningError(SigwardError):
    """A request cannot be signed; the message names the part and its mend."""

def refusals() -> list[tuple[str, str, list[int], str, str]]:
    """Every error that sigward answers with: slug, side at fault, HTTP statuses, meaning, mend."""

def header_text(text: str, /) -> str:
    """A text as a header's value, such as `x-sigward-reason`: visible ASCII, other characters escaped (`\\u{e9}`), at most 1 KiB."""

def redact_text(text: str, /) -> str:
    """A text that may quote what a client sent, with the values of signatures, tokens and passwords replaced by `redacted`."""

class VerificationError(SigwardError):
    """A request was not signed as it should be. `slug` says why: `signature`, `payload-hash`, `skewed`, `header-gone`, …"""

# ---------------------------------------------------------------- signing

_Payload = bytes | str
"""The body; or, as a `str`, the value for `x-amz-content-sha256`: 64 hexadecimal digits, or `UNSIGNED-PAYLOAD` and its kin."""

@final
class SigningSteps:
    """The four steps of 'Create a signed AWS API request', for `sigward sign` and for tests. Holds no secret."""

    @property
    def canonical_request(self) -> bytes: ...
    @property
    def string_to_sign(self) -> str: ...
    @property
    def signature(self) -> str:
        """Hexadecimal digits: 64, or up to 144 with "v4a"."""
    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What signing adds to the request, in order: x-amz-date, x-amz-security-token, …, authorization. Empty when presigned."""
    @property
    def query(self) -> bytes | None:
        """When presigned: the whole query to send, without `?`. It may hold a session token."""

@final
class Signer:
    """Signs for one identity, region and signing name; caches its derived keys. `repr` shows no secret.

    `style`: "s3" (path encoded once, as sent) or "generic" (path normalised, encoded twice). `variant`: "v4a" takes a region set
    (`*`, or regions joined by commas) for `region`. `token`: where a session token goes, "signed" as `x-amz-security-token`,
    "added-after" signing (IoT), or "s3express" as `x-amz-s3session-token`. `normalize` False: the generic style leaves the path
    as it is. `content_sha256`: add that header also where the style does not ask for it. `query_plus`: what a raw `+` in the query is.
    Raises `SigningError` when a field is empty or holds a control character, `ValueError` for an unknown word.
    """

    def __new__(
        cls,
        access_key_id: str,
        secret_access_key: str,
        session_token: str | None,
        region: str,
        signing_name: str,
        style: Literal["s3", "generic"] = "generic",
        *,
        variant: Literal["v4", "v4a"] = "v4",
        token: Literal["signed", "added-after", "s3express"] = "signed",  # noqa: S107 (no password)
        normalize: bool = True,
        content_sha256: bool = False,
        query_plus: Literal["blank", "plus"] = "blank",
    ) -> Signer: ...
    def sign(
        self,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        payload: _Payload,
        timestamp: int,
        /,
    ) -> bytes:
        """Signs one request by headers.

        `path`, `query`: as sent, undecoded, without `?`. `headers`: must hold `host`. `timestamp`: Unix seconds.
        Returns the header lines to add, one blob: `name: value\\r\\n` each, in order, `authorization` last.
        """
    def steps(
        self,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        payload: _Payload,
        timestamp: int,
        /,
    ) -> SigningSteps:
        """The same signature with every intermediate string."""
    def presign(
        self,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        payload: _Payload,
        expires: int,
        timestamp: int,
        /,
    ) -> bytes:
        """Signs one request by query: valid for `expires` seconds (1 to 604,800) from `timestamp` on.

        S3 takes "UNSIGNED-PAYLOAD" for `payload`, all others the body, mostly `b""`. Returns the whole query to send, without `?`.
        """
    def presign_steps(
        self,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        payload: _Payload,
        expires: int,
        timestamp: int,
        /,
    ) -> SigningSteps:
        """The same with every intermediate string."""
    def public_key(self) -> bytes:
        """The point of the key pair with which "v4a" signs, uncompressed: 65 bytes."""

@final
class Verifier:
    """Checks requests that were signed with one access key, by headers or by query, SigV4 and SigV4a. `repr` shows no secret.

    `style`, `token`, `normalize`: as `Signer`. `window`: seconds by which clocks may differ.
    """

    def __new__(
        cls,
        access_key_id: str,
        secret_access_key: str,
        session_token: str | None,
        style: Literal["s3", "generic"] = "generic",
        *,
        token: Literal["signed", "added-after", "s3express"] = "signed",  # noqa: S107 (no password)
        normalize: bool = True,
        window: int = 900,
    ) -> Verifier: ...
    def verify(
        self,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        payload: _Payload,
        timestamp: int,
        /,
    ) -> None:
        """Raises `VerificationError` unless the request, signature included, is as it was signed. `timestamp`: now, in Unix seconds."""

@final
class Difference:
    """The first difference of two texts. It may hold what was signed, a session token too."""

    @property
    def part(self) -> str:
        """E.g. `path`, `header "host"`, `query parameter "a"`, `payload hash`, `time`, `credential scope`."""
    @property
    def line(self) -> int:
        """Counted from 1."""
    @property
    def column(self) -> int:
        """In bytes, counted from 1."""
    @property
    def ours(self) -> bytes | None:
        """The line (of the query: the parameter); None: only the other side has it."""
    @property
    def theirs(self) -> bytes | None: ...

def difference(what: Literal["canonical-request", "string-to-sign"], ours: bytes, theirs: bytes, /) -> Difference | None:
    """Where two canonical requests, or two strings to sign, differ first. Headers and parameters are compared by name."""

# ---------------------------------------------------------------- recognising

@final
class Recognised:
    """What a host name says. `style`: "s3" | "generic"; `region` None: the host names none, so the default is used."""

    @property
    def signing_name(self) -> str: ...
    @property
    def region(self) -> str | None: ...
    @property
    def partition(self) -> str: ...
    @property
    def style(self) -> str: ...
    @property
    def signed(self) -> bool:
        """False for hosts that sigward does not sign for, such as S3 websites."""
    @property
    def variant(self) -> str:
        """How: "v4" | "v4a" | "bearer" | "v2" | "none"; "scoped": only for clients whose own scope says so; "unknown": a guess."""

def recognise(host: str, hint: tuple[str, str] | None = None, /) -> Recognised | None:
    """Looks one host name up (no port) in the shipped table. None: not a host of AWS's that is known.

    `hint`: signing name and region that a client's own signature is for. It settles which of the scopes that the table has
    for a host is meant; one that the table has not counts for nothing. Where the table has no such host, it counts if it says
    what the host says.
    """

def aws_domains() -> list[str]:
    """Domains that all of AWS's hosts stand under, of every partition: "amazonaws.com", "api.aws", …"""

# ---------------------------------------------------------------- rehearsing

@final
class Rehearsal:
    """Shows what would become of requests: the gateway's decisions, without a socket, real credentials or a clock.

    `settings`: JSON, as `Engine` takes them; every identity in them has the same made-up credentials. Requests are dated 2015-08-30 and
    a minute apart. Nothing is learnt from one for the next, so a run says the same each time. For tests and tools.
    Raises `SettingsError` when the settings do not hold.
    """

    def __new__(cls, settings: str) -> Rehearsal: ...
    def run(
        self,
        entry: Literal["forward", "connect", "reverse"],
        scheme: Literal["http", "https"],
        host: str,
        method: str,
        target: bytes,
        headers: _Headers,
        body: bytes | None = None,
        port: int | None = None,
    ) -> Rehearsed:
        """One request, up to its first attempt or its refusal. `host`: where the client sends it; `target`: origin-form, with query.

        Raises `ValueError` for an unknown word; a request that no client may send is refused, as the fronts do.
        """

@final
class Rehearsed:
    """What would have become of a request: it was `sent`, or answered with `status` and `slug`."""

    @property
    def sent(self) -> bool: ...
    @property
    def decision(self) -> str:
        """ "sign" | "pass" | "deny" | "refuse"."""
    @property
    def method(self) -> str | None:
        """As sent; None: it was not. The same holds for `target` and `host`."""
    @property
    def target(self) -> str | None:
        """Origin-form."""
    @property
    def host(self) -> str | None:
        """Of the endpoint, without a port."""
    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What is sent, signature and all; or those of the answer."""
    @property
    def body(self) -> bytes:
        """What is sent, in the chunks that it is sent in; or that of the answer. Events are as they came, unsigned."""
    @property
    def status(self) -> int | None:
        """Of sigward's own answer."""
    @property
    def slug(self) -> str | None: ...
    @property
    def reason(self) -> str | None:
        """The refusal in words, where sigward gives one; of what passes: `own-authorization`, `public`, `route` or `unsigned-host`."""
    @property
    def service(self) -> str | None:
        """Signing name."""
    @property
    def region(self) -> str | None: ...
    @property
    def operation(self) -> str | None:
        """`s3:GetObject`, the service by botocore's name; None: unknown, or there is none."""
    @property
    def resource(self) -> str | None:
        """As the audit log has it."""
    @property
    def bucket(self) -> str | None:
        """Of S3; None: unknown, or there is none. The same holds for `key`."""
    @property
    def key(self) -> str | None:
        """Decoded; empty: the bucket itself is meant."""
    @property
    def route(self) -> str | None:
        """The rule that decided."""
    @property
    def ambiguous(self) -> str | None:
        """Where the request names its call twice, and differently."""
    @property
    def would_refuse(self) -> list[tuple[str, str]]:
        """Rules that would have refused it (`rules.unknown = "report"`), each with what is unknown."""

@final
class Operation:
    """One operation of one of botocore's service models."""

    @property
    def service(self) -> str:
        """botocore's name, e.g. `s3control`."""
    @property
    def name(self) -> str:
        """E.g. `PutItem`."""
    @property
    def unsigned(self) -> bool:
        """It takes no signature, e.g. STS AssumeRoleWithWebIdentity."""
    @property
    def read_only(self) -> bool: ...
    @property
    def idempotent(self) -> bool: ...
    @property
    def streaming(self) -> tuple[bool, bool]:
        """(its request, its answer) is a stream."""
    @property
    def takes_token(self) -> bool:
        """It has a member for an idempotency token."""

@final
class Call:
    """One request, read once: what rules decide on."""

    @property
    def operation(self) -> Operation | None:
        """None: it is unknown."""
    @property
    def names(self) -> list[str]:
        """`service:Operation`, the first speaks for it; the others are names that other models of botocore's have for the request."""
    @property
    def unknown(self) -> str | None:
        """Why the operation is unknown; None: it is known."""
    @property
    def bucket(self) -> str | None:
        """The S3 bucket, or the access point that stands for one."""
    @property
    def key(self) -> bytes | None:
        """The key in it, decoded; empty: the bucket itself; of a listing: its prefix."""
    @property
    def target(self) -> str:
        """Path and query as they go out."""
    def resource(self, partition: str) -> str | None:
        """What the call is for, as far as host, path and query tell: an ARN, a URL, or `Member=value`."""

@final
class Knowledge:
    """The table of operations. `table`: its bytes; None: the one that sigward ships with. Raises `SettingsError`: damaged or newer."""

    def __new__(cls, table: bytes | None = None, /) -> Knowledge: ...
    @property
    def source(self) -> str:
        """What it was made of, e.g. `botocore 1.44.5`."""
    def judge(self, signing_name: str, service: str, operation: str, status: int, headers: _Headers, body: bytes, /) -> str:
        """What becomes of an answer: `deliver`, `transient`, `throttling`, `expired`, `clock`, `signature` or `region`. `service`:
        botocore's name. A repeat may still be refused: by the mode, the quota, or because the call could be made twice."""
    def recognise(self, host: str, hint: tuple[str, str] | None = None, /) -> Recognised | None:
        """As the function of this name, by this table."""
    def read(self, signing_name: str, host: str, method: str, path: str, headers: _Headers, body: bytes | None = None, /) -> Call:
        """Reads a request, as the engine does. `host`: lower-case; `path`: with query, as sent; `body`: all of it. Raises
        `ValueError`: the request can be read in two ways, or the method is not one."""

# ---------------------------------------------------------------- engine

@final
class Report:
    """What happened to one exchange: for flows, logs and the demo. Signatures and tokens are redacted."""

    @property
    def service(self) -> str | None: ...
    @property
    def client(self) -> str | None:
        """The `[clients.NAME]` whose issued key signed the request."""
    @property
    def operation(self) -> str | None:
        """E.g. `dynamodb:PutItem` (botocore's names); None: the table of operations does not tell."""
    @property
    def region(self) -> str | None: ...
    @property
    def identity(self) -> str | None: ...
    @property
    def action(self) -> str:
        """ "sign" | "pass" | "deny" | "refuse"."""
    @property
    def upstream(self) -> str | None:
        """`scheme://host:port` that the bytes went to."""
    @property
    def attempts(self) -> list[tuple[str, float, float]]:
        """(outcome: "200", "503 throttled", "connect-failed", …; seconds it took; seconds waited before it)."""
    @property
    def signed_head(self) -> list[tuple[bytes, bytes]]:
        """The last head sent upstream, with `authorization` signature and token values replaced by `redacted`."""
    @property
    def steps(self) -> tuple[str, str, str, list[tuple[str, str]]] | None:
        """How it was signed: canonical request, string to sign, the signature's beginning, what was added; tokens are replaced by
        `redacted`. None: it was not signed, or the settings' `inspect` is off."""
    @property
    def paced(self) -> tuple[float, str | None]:
        """(seconds waited for its turn, all attempts together; the rule that it waited for, or that refused it)."""
    @property
    def error(self) -> str | None:
        """Slug of the error that sigward answered with, if it did."""
    @property
    def reason(self) -> str | None:
        """The same in words, as the client got it in `x-sigward-reason`."""
    @property
    def route(self) -> str | None:
        """Name of the `[[route]]` that decided, or `#` and its number; None: no route matched."""
    @property
    def resource(self) -> str | None:
        """What the call is for: an ARN, a URL, or `Member=value`. Known of calls that a rule denies, and of all while `audit_log` is on."""
    @property
    def ambiguous(self) -> str | None:
        """Where the request names its call twice, and differently: `target`, `query`, …"""
    @property
    def would_refuse(self) -> list[tuple[str, str]]:
        """(rule, what of the call is unknown): rules that would have refused it if `rules.unknown` were "closed"."""
    @property
    def summary(self) -> str:
        """One line: `sign dynamodb PutItem us-east-1 default: 503, 503, 200`."""

@final
class Job:
    """One request under way. Obtained from `Engine.submit`; dropping it does not cancel it."""

    @property
    def id(self) -> int: ...
    def send(self, data: bytes, /) -> bool:
        """Queues a piece of the request body (after an upgrade: of the tunnel). False: more than the high-water mark (1 MiB)
        is queued, or more than 8 MiB in the queues of all jobs of its connection; send no more until the `EVENT_WRITABLE` for this job."""
    def end(self, trailers: _Headers | None = None, /) -> None:
        """The body is complete."""
    def ack(self, size: int, /) -> None:
        """`size` bytes of response data were handed to the client. What is not acknowledged is bounded: 512 KiB for a job, 8 MiB for a
        connection, 128 MiB for all; the more the others have, the less."""
    def cancel(self) -> None:
        """The client went away: stops waiting, retrying and sending at once. No event for this job follows."""

@final
class Held:
    """A body that a front holds, as a part of `limits.held_bytes` for as long as this is there. Obtained from `Engine.held`."""

    def grow(self, size: int, /) -> bool:
        """It is so large by now. False: more than `limits.held_bytes` is held."""

@final
class Allowance:
    """What one client's connection may have under way. Obtained from `Engine.allowance`."""

# Events, as `Engine.poll` gives them: tuples whose first item is one of these, and the second the job's id.
EVENT_RESPONSE: Final = 0
"""(0, job, version: bytes, status: int, reason: bytes, headers: tuple[tuple[bytes, bytes], ...], data: bytes, end: bool, report: Report)
The head and, where it came at once, the first data. Status 101: the connection is upgraded; data flows both ways from here.
sigward's own errors come this way too (report.error says so): a job that was not cancelled always gets exactly one of these,
or EVENT_FAILED. The headers are end-to-end: hop-by-hop headers and transfer-encoding are removed, content-length stands as
upstream sent it."""
EVENT_DATA: Final = 1
"""(1, job, data: bytes, end: bool)"""
EVENT_TRAILERS: Final = 2
"""(2, job, trailers: tuple[tuple[bytes, bytes], ...]): the response is complete."""
EVENT_FAILED: Final = 3
"""(3, job, message: str): the response broke off after its head was delivered; the client's connection must break too."""
EVENT_WRITABLE: Final = 4
"""(4, job): the upload queue is below its low-water mark again."""
EVENT_REFRESH: Final = 5
"""(5, identity: str): a request waits for this identity's credentials. Answer with set_credentials or set_credentials_failed."""
EVENT_LOG: Final = 6
"""(6, level: int, logger: str, message: str, fields: list[tuple[str, str]]): a line for the log. Level and logger are Python's:
`sigward.engine`, or one below it. `fields`: such as `request_id` and `trace_id`."""

ENTRY_FORWARD: Final = 0
"""The target is from an absolute-form request (http://host/…); the Host header must agree with it."""
ENTRY_CONNECT: Final = 1
"""The target is the CONNECT authority of an intercepted tunnel; the Host header must agree with it."""
ENTRY_REVERSE: Final = 2
"""The target is set by the reverse listener (or by Host where the listener has no upstream); Host is rewritten to it."""

@final
class Engine:
    """The driver: decides, signs, paces, sends, judges. Runs on its own threads; keeps the only connection pool.

    `settings`: JSON, shape `EngineSettings` in rust/gateway/src/settings.rs (python/sigward/settings.py makes it).
    Raises `SettingsError`.
    """

    def __new__(cls, settings: str) -> Engine: ...
    def configure(self, settings: str, /) -> None:
        """Swaps routes, limits and time-outs in; requests under way keep what they began with. Raises `SettingsError`."""
    def warnings(self) -> list[str]:
        """What looks wrong with the settings that count now: rules that may match nothing, no place for large bodies."""
    def reopen_logs(self) -> None:
        """Opens the files of the access log and the audit log anew, after they were renamed. Raises `SettingsError`: the old file is
        used on."""
    def fileno(self) -> int:
        """A descriptor that is readable whenever `poll` has something to give. Owned by the engine."""
    def poll(self) -> list[tuple[object, ...]]:
        """Takes all events that are due. Never blocks."""
    def submit(
        self,
        entry: int,
        method: bytes,
        scheme: bytes,
        host: str,
        port: int,
        path: bytes,
        headers: _Headers,
        body: bytes | None,
        client: str,
        allowance: Allowance | None = None,
        /,
    ) -> Job:
        """Starts an exchange.

        `path`: origin-form, as sent, with query. `headers`: the client's, unchanged. `body`: the whole body (b"" for none), or None
        when it follows by `Job.send`/`Job.end`. `client`: the peer's address, for the log.
        `allowance`: its connection's; None: its own.
        Bad input does not raise: it is answered by an EVENT_RESPONSE with the mend.
        """
    def handling(
        self,
        host: str,
        port: int,
        opening: Literal["unknown", "http", "tls", "other"],
        name: str | None = None,
        protocols: list[bytes] | None = None,
        /,
    ) -> tuple[Literal["intercept", "tunnel", "refuse"], str, str]:
        """What becomes of a client's connection to this destination (a route signs or denies it, or it is an AWS endpoint that may take
        Signature Version 4: intercepted, as long as it is HTTP), by what it begins with: `unknown`, nothing has come; `tls` with the
        server's name and what ALPN offers. With "refuse": the slug and what the client is told."""
    def offers_http2(self, host: str, /) -> bool:
        """True if HTTP/2 is offered to a client that wants this host (`client_http2`)."""
    def came_round(self, headers: _Headers, /) -> str | None:
        """Why a CONNECT with these headers is refused (508 `loop`): its `Via` says that it is this engine's own. None: it is not."""
    def listens(self, host: str, port: int, /) -> None:
        """Notes a listener of this process, so that no tunnel leads to it."""
    def leads_back(self, address: str, port: int, /) -> str | None:
        """Why a tunnel to this IP address is refused (508 `loop`): a listener of this process has it. None: none has."""
    def held(self) -> Held:
        """For a body that is held before it is handed over."""
    def allowance(self) -> Allowance:
        """What one client's connection may have under way."""
    def make_room(self, for_client: bool, /) -> None:
        """Before something that takes a descriptor: closes idle connections to upstreams if there are hardly any left. `for_client`: it
        is a client that takes it; some stay for those that are there."""
    def client_timeouts(self) -> tuple[float, float, float, float]:
        """Seconds that clients may take: for a head, between requests, over an answer, over a body (`timeouts`)."""
    def slow_client(self, at: Literal["head", "body", "answer"], /) -> None:
        """Counts a client that was let go because it was slow."""
    def load_authority(self, path: str, needed: bool = False, /) -> bool:
        """Reads the CA that forward listeners intercept with: one PEM file with its key, its certificate, and those up to the root that
        clients trust. Called again, it takes a renewed one; leaves are kept if it is the same. `needed`: once it has expired, `/readyz`
        says no. True: name constraints limit it. Raises ValueError, and leaves the one that there is."""
    def certificate(self, host: str, /) -> tuple[tuple[bytes, ...], bytes]:
        """What clients are shown for a host (a name in ASCII, or an address): its certificate and those behind it, the root left out, in
        DER; and its key, PKCS #8. Kept until two thirds of its life are over. Raises ValueError."""
    def refuses_tunnel(self, host: str, /) -> tuple[int, str, str] | None:
        """Status, slug and reason with which a CONNECT that would be intercepted is refused, because clients would refuse the certificate:
        the CA has expired, or does not vouch for the host. None: it is not refused."""
    def certificates(self) -> list[tuple[Literal["ca", "tls.certificate"], Literal["valid", "soon", "expired", "early"], int, str, str]]:
        """How the CA, if it is loaded, and the certificate of `tls.certificate` stand to the clock: name, state, end (Unix seconds), what
        is so, what to do. "soon": the CA within 60 days of its end. "early": it is not valid yet."""
    def vouches_for(self, host: str, /) -> bool:
        """False if name constraints keep clients from taking a certificate of that CA's for this host: a name or an address."""
    def listen(self, address: str, kind: str, upstream: str | None = None, /) -> tuple[str, int]:
        """Starts a listener of the native front on `HOST:PORT` or `unix:/path`; returns where it is bound: host and port, or `unix:/path`
        and 0. `kind`: "forward", "reverse" or "transparent". `upstream`: of a reverse listener, `https://host[:port]`; None: the Host
        header names the endpoint. Raises OSError, ValueError."""
    def drain(self) -> None:
        """The native front accepts no more; connections end after what they are at."""
    def cut(self) -> None:
        """Whatever the native front's clients are at ends now."""
    def connections(self) -> int:
        """Open connections of the native front's clients, tunnels among them."""
    def draining(self) -> bool:
        """After `drain`: True until all that had connected to the native front has ended."""
    def may_connect(self, host: str, address: str | None = None, /) -> bool:
        """False if `host`, or `address` (an IP address that it resolved to), is this host, a metadata or a link-local address, and no
        route names the host."""
    def set_credentials(
        self,
        identity: str,
        access_key_id: str,
        secret_access_key: str,
        session_token: str | None,
        expires_at: float | None,
        provider: str,
        /,
    ) -> None:
        """Publishes a snapshot. `expires_at`: Unix seconds, None: never. `provider`: botocore's `method`, for reports."""
    def set_credentials_failed(self, identity: str, reasons: Sequence[tuple[str, str]], /) -> None:
        """The chain found none: (provider, why) in the chain's order. Waiting requests get a 503 that lists them. A snapshot that is
        still valid goes on serving."""
    def clock_ahead(self) -> int:
        """Seconds that AWS's clock is ahead of this host's: the median of what endpoints last said, else what `hear_clock` was given."""
    def hear_clock(self, ahead: int, /) -> None:
        """Notes how a source of credentials dates its answers. `ahead`: seconds; more than a day is not believed."""
    def admin(self, address: str, /) -> tuple[str, int]:
        """Starts the admin listener (`/healthz`, `/readyz`, `/metrics`) on `HOST:PORT`; returns where it is bound. Raises OSError."""
    def set_ready(self, part: str, ready: bool, why: str = "", /) -> None:
        """Readiness by part ("listeners", "shutdown", …): `/readyz` answers 200 when every part is ready, among them "credentials",
        which the engine keeps itself."""
    def is_ready(self) -> bool: ...
    def metrics(self) -> str:
        """Prometheus text format 0.0.4."""
    def in_flight(self) -> int: ...
    def redact(self, name: bytes, value: bytes, /) -> bytes:
        """The value of one header as it may be shown: signatures, tokens and keys replaced."""
    def redact_target(self, target: str, /) -> str:
        """A path or URL as it may be shown: signatures and tokens in its query replaced."""
    def close(self, patience: float = 1.0, /) -> None:
        """Ends the threads; jobs under way are dropped. Idempotent. `patience`: seconds, ≥ 0, for traces and metrics that are still to be
        sent."""

def issue_key(master: bytes, name: str, rotation: int, /) -> tuple[str, str]:
    """A client's access key id and secret access key. `master`: 64 hexadecimal digits, as in its file. Raises ValueError."""

def cut_ini(data: bytes, /) -> list[tuple[str, int, int, bool]] | None:
    """The sections of an INI file, as configparser sees them: name, and from which byte to which it stands. True: only configparser can
    tell whether it holds. None: it is not plain, and only configparser can tell its sections."""

def normal_host(host: str, /) -> str | None:
    """A host as rules compare it: in small letters, without brackets and trailing dot; an address in any spelling (WHATWG URL, host
    parsing) in its usual one. None: it is no host."""

def first_bytes(data: bytes, /) -> Literal["undecided", "http", "tls", "other"]:
    """What a client's first bytes are; `undecided`: too few to tell."""

def same_authority(one: str, other: str, port: int, /) -> bool:
    """True if two of `host[:port]` name one place. `port`: the one that is meant where none is given."""

def unsigned_headers() -> list[tuple[str, str]]:
    """Every header that goes on unsigned, and the source that says why. A name that ends in `*` stands for all that begin so."""

def metric_descriptions() -> list[tuple[str, Literal["counter", "gauge", "histogram"], str, list[str]]]:
    """Every metric, by name: its name, kind, help and label names."""

def retry_delay(service: str, throttled: bool, attempt: int, random: float, asked: str | None = None, /) -> float:
    """Seconds before the next attempt, with the settings' defaults. `attempt`: the one that failed, from 1. `random`: 0 ≤ random < 1.
    `asked`: an `x-amz-retry-after` header, in milliseconds."""
