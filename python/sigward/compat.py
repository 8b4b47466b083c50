"""`--compat aws-sigv4-proxy`: the flags of awslabs/aws-sigv4-proxy, read as its own program reads them, made into sigward's settings.
`sigward.cli.reading` imports it when it is asked for.

What each flag means is taken from its `cmd/aws-sigv4-proxy/main.go` and `handler/proxy_client.go` (version 1.11). Where sigward will not
do the same, the flag is refused with what to do instead; where nothing comes of a flag, a line on stderr says so. Environment and settings
file count as ever; a route of the file comes before the one that the flags make. See docs/guides/migrate-aws-sigv4-proxy.md.
"""

import argparse
import os
import re
import socket
import sys
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

from pydantic import Field, ValidationError

from sigward.errors import UsageError
from sigward.file import find_file
from sigward.settings import (
    Listen,
    PositiveDuration,
    Settings,
    Timeouts,
    check_environment,
    did_you_mean,
    is_address,
    is_loopback,
    usage_error,
)

NAME = "aws-sigv4-proxy"

OWN = frozenset(
    {
        "connection", "content-length", "expect", "host", "http2-settings", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Headers that each hop sets itself: there is nothing to strip or to add."""

OF_SIGNATURE = frozenset({"authorization", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"})
"""Set by the signature, so that no custom header takes their place: theirs are "no overwrite"."""

GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

PLACES = {
    "role_arn": "--role-arn", "session_name": "AWS_ROLE_SESSION_NAME", "upstream": "--host and --sign-host",
    "service": "--name", "region": "--region",
}  # fmt: skip
"""The flag that a setting came from."""


class CompatibleTimeouts(Timeouts):
    """With that proxy's default of `--transport.idle-conn-timeout`."""

    pool_idle: PositiveDuration = 40.0


class Compatible(Settings):
    """sigward's settings, with the defaults that take that proxy's place: a reverse listener alone, on the front that sidecars have."""

    timeouts: CompatibleTimeouts = Field(default_factory=CompatibleTimeouts)  # type: ignore[arg-type]
    listen: Listen = "off"
    front: Literal["mitmproxy", "native"] = "native"
    authorization: Literal["keep", "replace", "refuse"] = "replace"


class Parser(argparse.ArgumentParser):
    """Its errors are ours."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"--compat {NAME}: {message}.", hint=hint_for(message))


def read(arguments: Sequence[str]) -> Settings:
    """The settings that these flags, the environment and the settings file make. Raises `UsageError`; SystemExit for `--help`."""
    flags = parser().parse_args(list(arguments))
    check_environment()
    Settings.source = find_file([], refuse=True)
    told = settings_of(flags)
    own = Settings.source.data.get("route", []) if Settings.source else []
    if "route" in told and isinstance(own, list):
        told["route"] = [*own, *told["route"]]
    try:
        return Compatible(**told)
    except ValidationError as error:
        wrong = usage_error(error, [])
        names = [str(part) for part in error.errors(include_url=False)[0]["loc"]]
        flag = next((f"{PLACES[name]}: " for name in reversed(names) if name in PLACES), "")
        raise UsageError(f"{flag}{wrong.args[0]}", hint=wrong.hint) from error


def parser() -> Parser:
    """Every flag of its main.go, with its default."""
    made = Parser(prog=f"sigward --compat {NAME}", allow_abbrev=False, description="sigward with the flags of awslabs/aws-sigv4-proxy.")
    add = made.add_argument
    add("--compat", choices=[NAME], required=True, help=argparse.SUPPRESS)
    switch = argparse.BooleanOptionalAction
    add("-v", "--verbose", action=switch, default=False, help="log_level debug, access_log stderr")
    add("--log-failed-requests", action=switch, default=False, help="access_log stderr: a line for each request, never its body")
    add("--log-signing-process", action=switch, default=False, help="log_level debug; `sigward sign` shows the steps")
    add("--unsigned-payload", action=switch, default=False, help="payload unsigned")
    add("--port", help="HOST:PORT, or :PORT for every address; none: 127.0.0.1:8080")
    add("-s", "--strip", action="append", default=[], metavar="HEADER", help="remove_headers; may be repeated")
    add("--custom-headers", metavar="NAME=VALUE,…", help="add_headers")
    add("--duplicate-headers", action="append", default=[], metavar="HEADER", help="copy_headers to X-Original-HEADER; may be repeated")
    add("--role-arn", metavar="ARN", help="the role to take with the credentials that are found")
    add("--name", metavar="SERVICE", help="signing name; counts together with --region")
    add("--sign-host", metavar="HOST", help="Host that is signed and sent; goes with --host")
    add("--host", metavar="HOST[:PORT]", help="where every request goes")
    add("--region", help="region to sign for; without --name: for hosts that name none")
    add("--upstream-url-scheme", metavar="SCHEME", help="https, or with --host also http")
    add("--no-verify-ssl", action="store_true", help="refused: TLS is always verified")
    add("--no-no-verify-ssl", action="store_false", dest="no_verify_ssl", help=argparse.SUPPRESS)
    add("--transport.idle-conn-timeout", dest="idle", metavar="DURATION", help="timeouts.pool_idle")
    return made


def hint_for(message: str) -> str:
    """What to do about argparse's complaint."""
    match = re.match(r"unrecognized arguments: (-[^ =]+)", message)
    if not match:
        return f"sigward --compat {NAME} --help tells its flags."
    flag = match[1]
    setting = flag.removeprefix("--").replace("-", "_")
    if setting.partition(".")[0] in Settings.model_fields:
        return f"Beside --compat, sigward's own settings are variables or in a file: SIGWARD_{setting.replace('.', '__').upper()}."
    known = [option for action in parser()._actions for option in action.option_strings if len(option) > 2 and option != "--compat"]
    return did_you_mean(flag, known).replace("docs/settings.md", f"sigward --compat {NAME} --help")


def settings_of(flags: argparse.Namespace) -> dict[str, Any]:
    """What the flags say, by sigward's names. Raises `UsageError` for what it will not do."""
    if flags.no_verify_ssl:
        raise UsageError(
            "--no-verify-ssl: sigward always verifies TLS.",
            hint="Set SIGWARD_TLS__CA_FILES to the endpoint's CA; for a tunnel, name what is at its other end with --sign-host.",
        )
    listen = listener(flags.port)
    told: dict[str, Any] = {"reverse": [listen]}
    if flags.idle is not None:
        told["timeouts"] = {"pool_idle": idle_seconds(flags.idle)}
    if not is_loopback(listen):
        told["allow_remote"] = True
    if flags.region:
        told["region"] = flags.region
    if flags.role_arn:
        told["identities"] = {"default": {"role_arn": flags.role_arn, "session_name": session_name()}}
    if flags.verbose or flags.log_signing_process:
        told["log_level"] = "debug"
        note(
            "--verbose, --log-signing-process: requests and what is signed of them are not logged; see `sigward sign` and `sigward explain`"
        )
    if flags.verbose or flags.log_failed_requests:
        told["access_log"] = "stderr"
    if route := route_of(flags):
        told["route"] = [{"name": NAME, **route}]
    return told


def listener(port: str | None) -> str:
    """HOST:PORT of Go's `net.Listen`, whose empty host is every address. Without the flag, none but this host reaches it."""
    if port is None:
        note(f"listening on 127.0.0.1:8080; {NAME} listens on every address: give --port :8080 if that is meant")
        return "127.0.0.1:8080"
    listen = f"0.0.0.0{port}" if port.startswith(":") else port
    if not is_address(listen):
        raise UsageError(f"--port: {port!r} is not HOST:PORT.", hint='Write ":8080" for every address, or "127.0.0.1:8080".')
    return listen


def route_of(flags: argparse.Namespace) -> dict[str, Any]:
    """The one rule that the flags make; empty: none is needed."""
    made = {**destination(flags), **changes(flags)}
    if flags.unsigned_payload:
        made["payload"] = "unsigned"
    if flags.name and flags.region:
        made |= {"service": flags.name, "region": flags.region}
    elif flags.name:
        note("--name counts only together with --region, as ever: hosts tell their service")
    if not made:
        return {}
    # With a name and a region, whatever host a client names is signed for; else AWS's hosts.
    every = "upstream" in made or "service" in made
    return {"host": "*", **made} if every else {"operation": "*:*", **made}


def destination(flags: argparse.Namespace) -> dict[str, str]:
    """--host, --sign-host, --upstream-url-scheme. With --sign-host, the certificate is verified for that: at a tunnel's end is no other."""
    scheme = flags.upstream_url_scheme or "https"
    if scheme not in ("http", "https"):
        raise UsageError(f"--upstream-url-scheme: {scheme!r} is neither https nor http.", hint="Leave it out: it is https then.")
    if not flags.host:
        if scheme == "http":
            raise UsageError(
                "--upstream-url-scheme http: without --host, requests go to AWS, and only over TLS.",
                hint="Leave it out, or name the endpoint that takes plain text with --host.",
            )
        if flags.sign_host:
            raise UsageError(
                "--sign-host: without --host, a request would be signed for one host and sent to the one that its client names.",
                hint="Give --host, too: where the requests go.",
            )
        return {}
    if not flags.sign_host:
        return {"upstream": f"{scheme}://{flags.host}"}
    has_port = re.search(r":[0-9]+$", flags.host)
    return {
        "upstream": f"{scheme}://{flags.sign_host}",
        "connect": flags.host if has_port else f"{flags.host}:{443 if scheme == 'https' else 80}",
    }


def changes(flags: argparse.Namespace) -> dict[str, Any]:
    """--strip, --duplicate-headers, --custom-headers. What is stripped is not duplicated, and what a client sends is not overwritten."""
    stripped = {name.lower() for name in flags.strip}
    removed = [name for name in flags.strip if not set_by_itself(name, OWN, "--strip")]
    copied = {name: f"X-Original-{name}" for name in flags.duplicate_headers if name.lower() not in stripped | {"host"}}
    added: dict[str, str] = {}
    for pair in (flags.custom_headers or "").split(",") if flags.custom_headers else ():
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not name:
            note(f"--custom-headers: {name!r} has no name or no value: it is left out")
        elif not set_by_itself(name, OWN | OF_SIGNATURE, "--custom-headers"):
            added[name] = f"{added[name]}, {value}" if name in added else value
    made = {"remove_headers": removed, "copy_headers": copied, "add_headers": added}
    return {name: value for name, value in made.items() if value}


def set_by_itself(name: str, known: frozenset[str], flag: str) -> bool:
    """True, and said, of a header that nobody else sets."""
    if name.lower() not in known:
        return False
    note(f"{flag}: {name} is set by the proxy itself, as ever: the flag changes nothing")
    return True


def idle_seconds(text: str) -> float:
    """Go's durations: "40s", "1m30s", "250ms"."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)", text)
    seconds = sum(float(number) * GO_UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise UsageError(
            f"--transport.idle-conn-timeout: {text!r} is not a time above 0.",
            hint='Write "40s" or "1m30s": idle connections are always closed.',
        )
    return seconds


def session_name() -> str:
    """As its `roleSessionName`: policies may ask for it."""
    return os.environ.get("AWS_ROLE_SESSION_NAME") or f"{NAME}-{socket.gethostname()}"[:64]


def note(text: str) -> None:
    """A line for whoever moves over."""
    sys.stderr.write(f"sigward: --compat {NAME}: {text}.\n")
