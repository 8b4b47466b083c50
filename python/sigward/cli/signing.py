"""`sigward sign`, and the credentials that it and its kin need once."""

import datetime
import json
import sys
import time
from typing import TYPE_CHECKING, Literal, cast
from urllib.parse import SplitResult, urlsplit

from sigward import _core
from sigward.credentials import Failure, Found, Region, resolve_region
from sigward.credentials.chain import unexpired
from sigward.environ import leave_own_proxy
from sigward.errors import UsageError
from sigward.plan import DEFAULT_IDENTITY
from sigward.settings import Settings

if TYPE_CHECKING:
    from sigward.cli.commands import Explain, Sign


YEAR_9999 = 253_370_764_800
"""Unix seconds: what is signed in the years before ends in a year that can be written."""


def load_credentials(settings: Settings, identity: str = DEFAULT_IDENTITY) -> tuple[Found, Region]:
    """Walks an identity's chain once. Raises `CredentialsError` with all that was tried."""
    from sigward.cli.commands import no_credentials

    outcome, region = walk(settings, identity)
    if isinstance(outcome, Failure):
        raise no_credentials(outcome)
    return outcome, region


def walk(settings: Settings, identity: str) -> tuple[Found | Failure, Region]:
    """Walks an identity's chain once. Keys that have expired are none."""
    leave_own_proxy()
    region = resolve_region(settings.region, settings.profile)
    return unexpired(settings.chain(identity, region.asked).load(), time.time()), region


def signed_steps(
    command: "Sign | Explain", method: str, url: str, found: Found, region: Region, *, at: str | None
) -> tuple[_core.SigningSteps, dict[str, str]]:
    """The four steps of one request, and its scope: `service`, `region`, `style`. Raises `UsageError`."""
    split = split_url(url, "https://sqs.us-east-1.amazonaws.com/?Action=ListQueues")
    host = _core.recognise(split.hostname or "")
    # A guess at what the table does not have needs a word for it.
    service = command.service or (host.signing_name if host and host.variant != "unknown" else None)
    if service is None:
        raise UsageError(f"url: {split.hostname} does not say which AWS service it is.", hint="Give its signing name with --service.")
    scope = region.name if command.region else (host.region if host else None) or region.name
    style = cast("Literal['s3', 'generic']", host.style if host else ("s3" if service == "s3" else "generic"))
    headers = [header(text) for text in command.header]
    if not any(name.lower() == b"host" for name, _ in headers):
        named = split.netloc.rpartition("@")[2]
        try:
            headers.insert(0, (b"host", named.encode("idna" if not named.isascii() else "ascii")))
        except UnicodeError as error:
            raise UsageError(f"url: {named!r} is no host.", hint="Give its ASCII form: xn--….") from error
    snapshot = found.snapshot
    # What a client says of its body's hash is what is signed.
    given = next((value.decode("latin-1") for name, value in headers if name.lower() == b"x-amz-content-sha256"), None)
    try:
        keys = snapshot.access_key_id, snapshot.secret_access_key, snapshot.session_token
        signer = _core.Signer(*keys, scope, service, style, query_plus=command.query_plus)
        steps = signer.steps(
            method.encode(), (split.path or "/").encode(), split.query.encode(), headers, given or body(command), moment(at)
        )
    except _core.SigningError as error:
        raise UsageError(f"{error}.", hint=error.hint) from error
    return steps, {"service": service, "region": scope, "style": style}


def split_url(url: str, example: str) -> SplitResult:
    """An absolute URL with a host. Raises `UsageError`."""
    try:
        split = urlsplit(url)
        if split.scheme in ("http", "https") and split.hostname and split.port != 0:
            return split
    except ValueError:
        pass
    raise UsageError(f"url: {url!r} is not one.", hint=f"Give it whole: {example}")


def sign(command: "Sign") -> int:
    """Prints the four steps. Signatures are shown, as that is what was asked; keys and tokens are not."""
    found, region = load_credentials(command)
    steps, scope = signed_steps(command, command.method, command.url, found, region, at=command.at)
    host = urlsplit(command.url).hostname or ""
    known = _core.recognise(host)
    if command.service is None and known is not None and not known.signed:
        sys.stderr.write(f"note: `sigward serve` passes requests to {host} unsigned, unless a [[route]] names the host.\n")
    snapshot = found.snapshot
    added = [(name.decode(), "redacted" if name == b"x-amz-security-token" else value.decode()) for name, value in steps.headers]
    canonical = steps.canonical_request.decode("utf-8", "backslashreplace")
    if snapshot.session_token:
        canonical = canonical.replace(snapshot.session_token, "redacted")
    if command.json_output:
        told = {
            **scope, "canonical_request": canonical,
            "string_to_sign": steps.string_to_sign, "signature": steps.signature, "headers": dict(added),
        }  # fmt: skip
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
        return 0
    lines = "".join(f"{name}: {value}\n" for name, value in added)
    sys.stdout.write(
        f"# {scope['service']} in {scope['region']}, {scope['style']} path rules\n\n# 1. Canonical request\n{canonical}\n\n"
        f"# 2. String to sign\n{steps.string_to_sign}\n\n"
        f"# 3. Signature\n{steps.signature}\n\n# 4. Headers to add\n{lines}"
    )
    return 0


def header(text: str) -> tuple[bytes, bytes]:
    """ "name: value"."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UsageError(f"--header: {text!r} is not `name: value`.", hint="E.g. --header 'content-type: application/json'")
    return name.strip().encode(), value.strip().encode()


def body(command: "Sign | Explain") -> bytes:
    """--data or --data-file."""
    if command.data is not None and command.data_file is not None:
        raise UsageError("--data and --data-file are both given.", hint="Give one of them.")
    if command.data_file is not None:
        try:
            return command.data_file.read_bytes()
        except OSError as error:
            raise UsageError(f"--data-file: {error}.", hint="Name a readable file.") from error
    return (command.data or "").encode()


def moment(text: str | None) -> int:
    """Unix seconds of an ISO 8601 time."""
    if text is None:
        return int(time.time())
    try:
        when = datetime.datetime.fromisoformat(text)
        seconds = int((when if when.tzinfo else when.replace(tzinfo=datetime.UTC)).timestamp())
    except (ValueError, OverflowError) as error:
        raise UsageError(f"--at: {text!r} is not a time.", hint="E.g. 2015-08-30T12:36:00Z") from error
    if not 0 <= seconds < YEAR_9999:
        raise UsageError(f"--at: {text!r} is before 1970 or after 9998.", hint="E.g. 2015-08-30T12:36:00Z")
    return seconds
