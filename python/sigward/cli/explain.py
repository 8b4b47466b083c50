"""`sigward explain`: what AWS's refusal of a signature says, and what most likely caused it.

An answer to a wrong signature carries the canonical request and the string to sign that AWS made of what arrived. See
"Troubleshoot Signature Version 4 signing for AWS API requests" (IAM User Guide).
"""

import hashlib
import hmac
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote
from xml.etree import ElementTree

from sigward import _core
from sigward.cli.signing import load_credentials, signed_steps
from sigward.credentials import Found, Region
from sigward.errors import SigwardError, UsageError

if TYPE_CHECKING:
    from sigward.cli.commands import Explain

MISMATCH = {"SignatureDoesNotMatch", "InvalidSignatureException", "InvalidSignature"}

UNKNOWN_KEY = (
    "AWS does not know this access key, or its session token.",
    "See `sigward whoami`: temporary keys need their token; a region that is not enabled refuses global tokens.",
)

UNAUTHORIZED = "UnauthorizedException"
"""The code of an answer that has none, and says no more than this."""

BARE = re.compile(r"unauthorized|forbidden|authentication failed\b.*", re.IGNORECASE | re.DOTALL)
"""All that API Gateway, OpenSearch and Bedrock say of a token, a password or a key that does not do."""

CODES = {
    UNAUTHORIZED: (
        "The endpoint refused what authenticates the request, and does not say why. If the client sends its own Authorization header "
        "(Bearer, Basic, …), sigward passes it on and does not sign; the log then gives the reason own-authorization.",
        'Correct that credential. Or set `authorization = "replace"` in a [[route]] for the host, and sigward signs in its place.',
    ),
    "RequestTimeTooSkewed": ("The clocks differ too much.", "Set the clock of the host that signs (chrony, NTP)."),
    "RequestExpired": ("The signature is too old: it was made more than 5 or 15 minutes ago.", "Set the clock; sign when you send."),
    "RequestInTheFuture": ("The signature is from the future.", "Set the clock of the host that signs (chrony, NTP)."),
    "AuthorizationHeaderMalformed": (
        "The credential scope does not fit the bucket or the endpoint.",
        "Sign for the region that the answer names.",
    ),
    "IncompleteSignature": ("A part of the signature did not arrive.", "Look for a proxy that changes the Authorization header."),
    "InvalidAccessKeyId": ("AWS does not know this access key.", "It was deleted, or is another partition's: see `sigward whoami`."),
    "InvalidClientTokenId": UNKNOWN_KEY,
    "UnrecognizedClientException": UNKNOWN_KEY,
    "ExpiredToken": ("The temporary credentials have expired.", "Refresh them; sigward does so by itself where its source can."),
    "XAmzContentSHA256Mismatch": (
        "The body that arrived is not the body that was signed.",
        "Look for a proxy that changes bodies; sign what is sent.",
    ),
    "MissingAuthenticationToken": ("The request came without a signature.", "Send it through sigward, to a host that it signs for."),
}
"""Cause and mend by code; a code that only begins so, such as `ExpiredTokenException`, has the same."""

HEADERS = ("x-amz-security-token", "x-amz-s3session-token")
PARAMETERS = re.compile(r"(X-Amz-(?:Security|S3session)-Token=)[^&\s]*", re.IGNORECASE)


@dataclass
class Answer:
    """What AWS's answer says."""

    code: str
    message: str
    canonical: bytes | None = None
    to_sign: bytes | None = None
    signature: str | None = None
    details: dict[str, str] = field(default_factory=dict)


@dataclass
class Verdict:
    """The cause, the mend, and the difference if there is one to show."""

    cause: str
    mend: str
    difference: _core.Difference | None = None
    details: dict[str, str] = field(default_factory=dict)


def explain(command: "Explain") -> int:
    """Prints the verdict. Raises `UsageError` for what is no such answer."""
    raw = read(command)
    answer = parse(raw)
    verdict = judge(answer, command)
    if command.json_output:
        told: dict[str, object] = {"code": answer.code, "cause": verdict.cause, "mend": verdict.mend, **verdict.details}
        if verdict.difference:
            found = verdict.difference
            told["difference"] = {
                "part": found.part, "line": found.line, "column": found.column, "ours": shown(found.ours), "aws": shown(found.theirs),
            }  # fmt: skip
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
        return 0
    lines = [f"{answer.code}: {verdict.cause}"]
    if verdict.difference:
        found = verdict.difference
        lines += ["", f"First difference: {found.part}, line {found.line}, column {found.column}"]
        lines += [f"  ours   {shown(found.ours)}", f"  AWS's  {shown(found.theirs)}"]
        if found.ours is not None and found.theirs is not None and "redacted" not in shown(found.ours):
            before = found.ours[: found.column - 1].decode("utf-8", "backslashreplace")
            lines.append("         " + " " * len(before) + "^")
    lines += [f"{name}: {value}" for name, value in verdict.details.items()]
    sys.stdout.write("\n".join([*lines, "", f"Fix: {verdict.mend}", ""]))
    return 0


def read(command: "Explain") -> bytes:
    """The answer's body."""
    if command.answer == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(command.answer).read_bytes()
    except OSError as error:
        raise UsageError(f"answer: {error}.", hint="Name a file with the body of AWS's answer, or `-` for standard input.") from error


def parse(raw: bytes) -> Answer:
    """Reads XML (S3's, or of the query protocol) and JSON. Raises `UsageError`."""
    text = raw.strip()
    if BARE.fullmatch(text.decode("utf-8", "replace")):
        return Answer(UNAUTHORIZED, text.decode("utf-8", "replace"))
    fields = json_fields(text) if text.startswith(b"{") else xml_fields(text)
    code = fields.get("Code") or fields.get("__type") or fields.get("code") or ""
    code = code.rpartition("#")[2].partition(":")[0]
    message = fields.get("Message") or fields.get("message") or ""
    if not code and BARE.fullmatch(message):
        code = UNAUTHORIZED
    if not code and not message:
        raise UsageError(
            "answer: it is not an error of AWS's.",
            hint="Give the body of the answer as it came: XML with <Code> and <Message>, or JSON with __type or message.",
        )
    answer = Answer(code or "Error", message, signature=fields.get("SignatureProvided"))
    answer.canonical = exact(fields, "CanonicalRequest")
    answer.to_sign = exact(fields, "StringToSign")
    quoted = re.search(r"Canonical String for this request should have been\s*'(.*?)'\s*The String-to-Sign", message, re.DOTALL)
    if quoted:
        answer.canonical = quoted[1].encode()
        if to_sign := re.search(r"String-to-Sign should have been\s*'(.*?)'", message, re.DOTALL):
            answer.to_sign = to_sign[1].encode()
    for name in ("Region", "RequestTime", "ServerTime", "MaxAllowedSkewMilliseconds", "AWSAccessKeyId"):
        if value := fields.get(name):
            answer.details[name] = f"…{value[-4:]}" if name == "AWSAccessKeyId" else value
    return answer


def json_fields(text: bytes) -> dict[str, str]:
    try:
        told = json.loads(text)
    except ValueError as error:
        raise UsageError(f"answer: it looks like JSON, but is not: {error}.", hint="Give the body as it came.") from error
    # AppSync's, as GraphQL has them.
    errors = told.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        told = {"code": errors[0].get("errorType")} | errors[0]
    return {name: value for name, value in told.items() if isinstance(value, str)}


def xml_fields(text: bytes) -> dict[str, str]:
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 (expat limits entities)
    except ElementTree.ParseError as error:
        raise UsageError(f"answer: it is neither XML nor JSON: {error}.", hint="Give the body of AWS's answer as it came.") from error
    fields: dict[str, str] = {}
    for element in root.iter():
        if not len(element) and element.text:
            fields.setdefault(element.tag.rpartition("}")[2], element.text)
    return fields


def exact(fields: dict[str, str], name: str) -> bytes | None:
    """S3 gives its strings as hexadecimal bytes, too: XML may have changed the text."""
    try:
        return bytes.fromhex(fields[f"{name}Bytes"])
    except (KeyError, ValueError):
        return fields[name].encode() if name in fields else None


def judge(answer: Answer, command: "Explain") -> Verdict:
    """The likeliest cause."""
    if answer.code not in MISMATCH:
        return by_code(answer)
    if "not yet current" in answer.message or "expired" in answer.message.lower():
        cause, mend = CODES["RequestTimeTooSkewed"]
        return Verdict(cause, mend, details={"AWS says": answer.message})
    if "should be scoped to" in answer.message:
        return Verdict("The credential scope names another region or service than the endpoint's.", "Set --region or --service.")
    if answer.canonical is None or answer.to_sign is None or answer.to_sign.count(b"\n") != 3 or not answer.to_sign.isascii():
        return Verdict(
            "This service does not tell what it would have signed.",
            "Compare with `sigward sign` what the client signed; check clock, region and secret.",
            details={"AWS says": answer.message},
        )
    loaded = credentials(command)
    if command.url is not None and loaded is not None:
        return compare(answer, command, *loaded)
    return without_request(answer, loaded[0] if loaded else None, given=command.url is not None)


def by_code(answer: Answer) -> Verdict:
    for code, (cause, mend) in CODES.items():
        if answer.code.startswith(code):
            return Verdict(cause, mend, details=answer.details | ({"AWS says": answer.message} if answer.message else {}))
    raise UsageError(
        f"answer: {answer.code} is not about a signature.",
        hint="`explain` reads SignatureDoesNotMatch, InvalidSignatureException and their kin.",
    )


def credentials(command: "Explain") -> tuple[Found, Region] | None:
    """Those that sigward would sign with, if there are any."""
    try:
        return load_credentials(command)
    except SigwardError:
        return None


def compare(answer: Answer, command: "Explain", found: Found, region: Region) -> Verdict:
    """What we would have signed at AWS's own time, beside what AWS would have."""
    assert answer.canonical is not None
    assert answer.to_sign is not None
    assert command.url is not None
    stamp = answer.to_sign.split(b"\n")[1].decode()
    steps, _ = signed_steps(command, command.method, command.url, found, region, at=stamp)
    if difference := _core.difference("canonical-request", steps.canonical_request, answer.canonical):
        return from_difference(difference)
    if difference := _core.difference("string-to-sign", steps.string_to_sign.encode(), answer.to_sign):
        return from_difference(difference)
    key = f"…{found.snapshot.access_key_id[-4:]}"
    if answer.signature == steps.signature:
        return wrong_secret(key)
    return Verdict(
        "AWS signed the same strings as sigward would: the client signed others, or with another secret.",
        "Send the request through sigward, or compare with what the client logs as its canonical request.",
    )


def without_request(answer: Answer, found: Found | None, *, given: bool) -> Verdict:
    """AWS's two strings alone."""
    assert answer.canonical is not None
    assert answer.to_sign is not None
    if found and answer.signature and hmac.compare_digest(signature_of(found, answer.to_sign), answer.signature):
        return wrong_secret(f"…{found.snapshot.access_key_id[-4:]}")
    if answer.to_sign.rpartition(b"\n")[2].decode() != hashlib.sha256(answer.canonical).hexdigest():
        return Verdict(
            "AWS's string to sign is not of the canonical request that stands beside it: the text was changed on its way here.",
            "Give the body byte for byte, e.g. with `curl -o answer.xml`.",
        )
    lacking = "no credentials were found" if found is None else "the client signed another string, or with other keys"
    return Verdict(
        f"AWS's strings fit together; {lacking}.",
        "Set credentials as for `sigward sign`." if given else "Give the request too: --method, --url, --header, --data.",
        details={"canonical request": "\n" + shown(answer.canonical), "string to sign": "\n" + shown(answer.to_sign)},
    )


def wrong_secret(key: str) -> Verdict:
    return Verdict(
        f"The client signed the very string that AWS expects: the secret is not the one of access key {key}.",
        "Copy the secret again, or make a new key; look for a blank or line end at its end.",
    )


def signature_of(found: Found, to_sign: bytes) -> str:
    """Step 3 over a string that is there already."""
    key = b"AWS4" + found.snapshot.secret_access_key.encode()
    for part in to_sign.split(b"\n")[2].split(b"/"):
        key = hmac.digest(key, part, "sha256")
    return hmac.digest(key, to_sign, "sha256").hex()


def from_difference(difference: _core.Difference) -> Verdict:
    """The usual cause of a difference in this part."""
    ours, theirs = ((side or b"").decode("utf-8", "backslashreplace") for side in (difference.ours, difference.theirs))
    part = difference.part
    name = part.partition('"')[2].rstrip('"')
    if part == "time":
        cause, mend = "The times differ.", "Set the clock of the host that signs (chrony, NTP)."
    elif part == "credential scope":
        cause, mend = "The scopes differ: region or service.", "Set --region and --service to those of the endpoint."
    elif part == "path":
        once = unquote(ours) == theirs or unquote(theirs) == ours
        cause = "The path is encoded once on one side and twice on the other." if once else "The path was changed on the way."
        mend = "S3 takes one encoding, all others two: set the route's `style`; look for a proxy that decodes or normalises paths."
    elif part.startswith("query"):
        plus = "+" in ours + theirs or ("%20" in ours) != ("%20" in theirs) or ("%2B" in ours) != ("%2B" in theirs)
        cause = "A `+` or a blank in the query is read in two ways." if plus else f"The query parameter {name} differs."
        mend = (
            "Send a blank as %20 and a plus as %2B; see `query_plus`."
            if plus
            else "Look for what adds, drops or changes it between signer and AWS."
        )
    elif part.startswith("header"):
        missing = difference.theirs is None
        cause = f"The header {name} {'did not arrive' if missing else 'arrived with another value' if ours else 'is not one of ours'}."
        mend = "A proxy between signer and AWS changes it: sign behind that proxy, or leave the header unsigned."
    elif part == "payload hash":
        cause, mend = "The body that arrived is not the one that was signed.", "Look for a proxy that changes bodies; give --data as sent."
    elif part == "list of signed headers":
        cause, mend = "The lists of signed headers differ.", "Look for a proxy that changes the Authorization header."
    else:
        cause, mend = f"The {part} differs.", "Sign the request as it is sent."
    return Verdict(cause, mend, difference)


def shown(text: bytes | None) -> str:
    """For people; without tokens."""
    if text is None:
        return "(not there)"
    lines = []
    for line in text.decode("utf-8", "backslashreplace").split("\n"):
        name, colon, _ = line.partition(":")
        lines.append(f"{name}:redacted" if colon and name.lower() in HEADERS else PARAMETERS.sub(r"\1redacted", line))
    return "\n".join(lines)
