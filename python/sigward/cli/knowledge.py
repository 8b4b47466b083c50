"""`sigward knowledge` and `sigward actions`: what the table says, and a new one."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sigward import _core
from sigward.errors import UsageError
from sigward.knowledge.actions import actions

if TYPE_CHECKING:
    from sigward.cli.commands import ActionsOf, KnowledgeOf

ROUTE = "A [[route]] in sigward.toml says what it is: host, service (the signing name), region."


def table(path: Path | None) -> _core.Knowledge:
    """The table that the settings name, or the shipped one. Raises `UsageError`."""
    if path is None:
        return _core.Knowledge()
    try:
        return _core.Knowledge(path.read_bytes())
    except OSError as error:
        raise UsageError(f"knowledge: {path}: {error.strerror}.", hint="`sigward knowledge refresh` makes it.") from error
    except _core.SettingsError as error:
        raise UsageError(f"{path}: {error}.", hint="`sigward knowledge refresh` makes it anew.") from error


def knowledge(command: "KnowledgeOf") -> int:
    """Returns the exit status."""
    if command.what == "refresh":
        return refresh(command)
    if not command.host:
        raise UsageError("knowledge show: there is no host.", hint="sigward knowledge show sqs.eu-west-1.amazonaws.com")
    known = table(command.knowledge)
    host = command.host.strip()
    try:
        host = (urlsplit(host).hostname if "://" in host else urlsplit(f"//{host}").hostname) or ""
    except ValueError as error:
        raise UsageError(f"knowledge show: {host!r} is no host.", hint="sigward knowledge show sqs.eu-west-1.amazonaws.com") from error
    route = next((route for route in command.route if route.host == host), None)
    found = known.recognise(host)
    if found is None and route is None:
        raise UsageError(f"{command.host}: not a host of AWS's that the table ({known.source}) knows.", hint=ROUTE)
    if found is not None and found.variant == "unknown" and route is None:
        sys.stderr.write(f"{host} is not in the table ({known.source}): requests to it pass unsigned. {ROUTE}\n")
    told: dict[str, Any] = {"host": host, "table": known.source}
    if found is not None:
        told |= {
            "signing_name": found.signing_name,
            "region": found.region,
            "partition": found.partition,
            "variant": found.variant,
            "path_rule": found.style,
        }
    if route is not None:
        told |= {"route": route.name or route.host, "signing_name": route.service or told.get("signing_name")}
        told["region"] = route.region or told.get("region")
    return show(told, as_json=command.json_output)


def refresh(command: "KnowledgeOf") -> int:
    """Makes a table of the installed botocore."""
    from sigward.ca import write_new
    from sigward.file import check_home, config_home
    from sigward.knowledge.build import build

    target = command.output or command.knowledge or config_home() / "knowledge.bin"
    check_home(target, "output")
    content = build()
    made = _core.Knowledge(content)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_new(target, content, 0o644)
    except OSError as error:
        raise UsageError(f"output: {target}: {error.strerror}.", hint="Give another file with --output.") from error
    sys.stdout.write(f"{target}: {made.source}, {len(content):,} bytes\n")
    if command.knowledge != target:
        sys.stderr.write(f'use it with: knowledge = "{target}"\n')
    return 0


def actions_of(command: "ActionsOf") -> int:
    """Returns the exit status."""
    from sigward.cli.signing import header, split_url

    split = split_url(command.url, "https://my-bucket.s3.eu-west-1.amazonaws.com/key")
    name = split.hostname or ""
    known = table(command.knowledge)
    host = known.recognise(name)
    service = command.service or (host.signing_name if host else None)
    if service is None:
        raise UsageError(f"url: {name} does not say which AWS service it is.", hint="Give its signing name with --service.")
    path = (split.path or "/") + (f"?{split.query}" if split.query else "")
    headers = [header(text) for text in command.header]
    body = (command.data or "").encode()
    if body and not any(name.lower() == b"content-type" for name, _ in headers):
        # As curl's --data.
        headers.append((b"content-type", b"application/x-www-form-urlencoded"))
    try:
        call = known.read(service, name, command.method.upper(), path, headers, body)
    except ValueError as error:
        raise UsageError(f"{command.method.upper()} {command.url}: {error}.", hint="sigward refuses it (`ambiguous-call`).") from error
    operation = call.operation
    if operation is None:
        raise UsageError(
            f"{command.method.upper()} {command.url}: the table ({known.source}) knows no such operation of {service}.",
            hint="JSON services name it in a header: --header 'x-amz-target: DynamoDB_20120810.PutItem'; query services in --data.",
        )
    needed = actions(service, operation.service, operation.name, command.method, unsigned=operation.unsigned)
    told: dict[str, Any] = {
        "operation": f"{operation.service}:{operation.name}",
        "actions": list(needed.names),
        "certain": needed.source is not None,
        "source": needed.source or "the operation's name: likely, not proven",
    }
    resource = call.resource(host.partition if host else "aws")
    if resource is not None:
        told["resource"] = resource
    return show(told, as_json=command.json_output)


def show(told: dict[str, Any], *, as_json: bool) -> int:
    """JSON, or a line for each."""
    if as_json:
        sys.stdout.write(json.dumps(told) + "\n")
        return 0
    width = max(map(len, told))
    for key, value in told.items():
        text = ", ".join(value) or "none" if isinstance(value, list) else {True: "yes", False: "no"}.get(value, value)
        sys.stdout.write(f"{key.replace('_', ' '):<{width}}  {text}\n")
    return 0
