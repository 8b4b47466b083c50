"""The reference, made of what the code knows: `python -m sigward.docs [DIRECTORY]` (`make reference`) writes its pages.

What no model holds stands in the pages' texts below. Nothing that serves imports this module.
"""

import importlib
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic_settings import CliPositionalArg

import sigward
from sigward import _core, metrics
from sigward.cli import COMMANDS as SUMMARIES
from sigward.cli.commands import COMMANDS
from sigward.errors import SigwardError
from sigward.settings import Client, Clients, Group, Identity, Pace, Route, Settings, Shape

MADE = "<!-- Made by `make reference`; its words stand in the code. -->\n\n"

DEFAULTS = {"ca_dir": "~/.config/sigward/ca", "key_file": "~/.config/sigward/clients.key"}
"""Paths below the home directory, whosever it is."""

POSITIONAL = get_args(CliPositionalArg[str])[1]
"""What marks an argument without a flag."""

SETTINGS = """\
# Settings

Each can be a flag (`--timeouts.connect 2s`), a variable (`SIGWARD_TIMEOUTS__CONNECT=2s`) or a key in `sigward.toml`; a flag wins
over a variable, a variable over the file. Durations: `500ms`, `10s`, `5m`; sizes: `64KiB`, `1MiB`. Unknown keys and bad values
end with status 64.

A flag has a dash where a key has `_`; a variable is in capitals, with two underscores for the dot. Lists are separated by commas.
`[[route]]`, `[[pace]]` and `[identities.NAME]` are JSON in a flag or a variable: `SIGWARD_ROUTE='[{"host": "a.example", "action":
"pass"}]'`. SIGHUP reads all of it anew; what is taken at the start alone is named in the log.
"""

UNSIGNED = """\
# Unsigned headers

These headers go on, but the signature does not cover them: each may be changed, added or removed between sigward and AWS, and a signature
over the old value would not match. `*` stands for any rest of a name. `sigward sign` leaves out the same ones. What the client listed
in `SignedHeaders` does not matter, because its signature is replaced.

If something in your network changes another header, name it in a route:

```toml
[[route]]
host = "storage.internal.example"
service = "s3"
unsigned_headers = ["Range", "X-Tenant"]
```

Host, every `x-amz-*` header, `Content-Type` and the other headers that say which call a request is cannot be left unsigned.
"""

CLI = """\
# Commands

`sigward COMMAND --help` tells the same. Every command that takes flags takes every [setting](settings.md) as one, too, and reads
`SIGWARD_…` variables and the settings file. Data goes to stdout, all else to stderr; every error ends in a hint. Exit statuses:
[Errors](errors.md#exit-statuses).

| command | what it does |
|---|---|
"""

ERRORS = """\
# Errors

## Answers of sigward's own

An answer that sigward gives itself has two headers that AWS's answers do not have:

- `x-sigward-error`: the slug, one of those below.
- `x-sigward-reason`: the cause and how to fix it, in words. At most 1 KiB of visible ASCII; other characters are escaped (`\\u{e9}`).
  An answer to HEAD has no body, so this is where to look.

The body has the same words, in the error format of the client's protocol (JSON, XML, CBOR), so that an SDK shows them. Its error code is
the slug in AWS's spelling: `no-credentials` is `NoCredentials`. `Retry-After` and `x-amz-retry-after` say when it makes sense to
try again. The access log and the audit log have the slug as `error` and the words as `reason`. Signatures, tokens and passwords that a
client sent are replaced by `redacted`.

### Denied calls

A call that a rule does not allow (`denied`, `customer-endpoint`) gets AWS's own error code for that, so that a program catches what it
always catches:

| protocol | code |
|---|---|
| S3 and other services with XML (CloudFront, Route 53), query (IAM, STS) | `AccessDenied` |
| JSON (DynamoDB), REST with JSON (Lambda), CBOR | `AccessDeniedException` |
| EC2 | `UnauthorizedOperation` |
| SNS | `AuthorizationError` |
| IoT data | `ForbiddenException` |

SDKs that once spoke the query protocol with a service (SQS, CloudWatch) say so with `x-amzn-query-mode: true`. They also get
`x-amzn-query-error: AccessDenied;Sender`, and raise `AccessDenied`.

`ambiguous-call` keeps a code of its own, `AmbiguousCall`: no SDK sends such a request, and programs take a validation error for an
answer about a resource.
"""

SIDES = {
    "client": ("The client's side", "The program that asks, or whoever runs it, can mend it."),
    "sigward": ("Sigward's side", "Whoever runs sigward can mend it."),
    "upstream": ("The upstream's side", "The service, or the way to it."),
}

STATUSES = """\
## Exit statuses

After sysexits.h. On stderr stand `error:` with the cause and `hint:` with the mend.

| status | slug | when |
|---|---|---|
| 0 | | Done. |
"""

OTHER_STATUSES = """\
| 126, 127 | `cannot-run` | `sigward run`: the program may not be run, or is not found. Else its own status, or 128 and its signal. |
| 130 | | Interrupted (Ctrl-C). |
| 141 | | Whoever read stdout has gone. |
"""


def settings_page() -> str:
    """docs/settings.md."""
    tables: list[tuple[str, str, str, type[Any]]] = [("", "Top level", "SIGWARD_", Settings)]
    for name, field in Settings.model_fields.items():
        if is_group(field.annotation):
            tables.append((name, f"`[{name}]`", f"SIGWARD_{name.upper()}__", field.annotation))  # type: ignore[arg-type]
    tables += [
        ("clients", "`[clients.NAME]`", "", Client),
        ("identities", "`[identities.NAME]`", "", Identity),
        ("route", "`[[route]]`", "", Route),
        ("pace", "`[[pace]]`", "", Pace),
    ]
    lines = [SETTINGS]
    for prefix, title, variables, model in tables:
        lines += [f"## {title}", ""]
        if prefix:
            lines += [(model.__doc__ or "").strip().splitlines()[0], ""]
        if variables:
            first = next(name for name, field in model.model_fields.items() if not is_group(field.annotation))
            lines += [f"Variables: `{variables}{first.upper()}` and so on.", ""]
        lines += ["| key | value | default | what it does |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            if not is_group(field.annotation):
                lines.append(row(f"`{name}`", shape_of(field), default_of(name, field), field.description))
        lines.append("")
    return page(lines)


def cli_page() -> str:
    """docs/cli.md."""
    lines = [CLI.rstrip(), *(row(f"[`{name}`](#{name})", what) for name, what in SUMMARIES.items()), ""]
    for name, what in SUMMARIES.items():
        model = COMMANDS.get(name)
        lines += [f"## {name}", "", " ".join(((model and model.__doc__) or what).split()), ""]
        if model:
            lines += own_flags(model)
    return page(lines)


def own_flags(model: type[Settings]) -> list[str]:
    """A table of what a command takes beside the settings, and of settings whose default is another there."""
    rows = []
    for name, field in model.model_fields.items():
        usual = Settings.model_fields.get(name)
        if usual is not None and usual.default == field.default:
            continue
        spelled = name.upper().replace("_", "-") if POSITIONAL in field.metadata else f"--{name.replace('_', '-')}"
        rows.append(row(f"`{spelled}`", shape_of(field), default_of(name, field), field.description))
    return ["| argument | value | default | what it does |", "|---|---|---|---|", *rows, ""] if rows else []


def errors_page() -> str:
    """docs/errors.md."""
    lines = [ERRORS]
    for side, (title, who) in SIDES.items():
        lines += [f"### {title}", "", who, "", "| slug | status | what has happened | what to do |", "|---|---|---|---|"]
        for slug, fault, statuses, meaning, mend in _core.refusals():
            if fault == side:
                lines.append(row(f"`{slug}`", ", ".join(map(str, statuses)), meaning, mend))
        lines.append("")
    lines.append(STATUSES.rstrip())
    for error in sorted(raised(), key=lambda error: (error.exit_code, error.slug)):
        if error.slug != "cannot-run":
            when = "What has no slug of its own." if error is SigwardError else " ".join((error.__doc__ or "").split())
            lines.append(row(error.exit_code, f"`{error.slug}`", when))
    lines += [OTHER_STATUSES.rstrip(), ""]
    return page(lines)


def raised() -> list[type[SigwardError]]:
    """Every exception class of sigward's own that has a slug of its own."""
    for module in pkgutil.walk_packages(sigward.__path__, "sigward."):
        # The demo needs an emulator, and raises what stands in sigward.errors.
        if not module.name.endswith("__main__") and not module.name.startswith("sigward.demo."):
            importlib.import_module(module.name)

    def below(error: type[SigwardError]) -> Iterator[type[SigwardError]]:
        for heir in error.__subclasses__():
            yield heir
            yield from below(heir)

    found = {error.slug: error for error in below(SigwardError) if "slug" in vars(error) and error.__module__.startswith("sigward.")}
    return [SigwardError, *found.values()]


def is_group(annotation: Any) -> bool:
    """True for a table of settings within another."""
    return isinstance(annotation, type) and issubclass(annotation, Group | Clients)


def shape_of(field: Any) -> str:
    """How a field's value is written: "duration", "1 to 64", "`a`, `b`"."""
    for mark in field.metadata:
        if isinstance(mark, Shape):
            return mark.text
    return shape(field.annotation, field.metadata)


def shape(annotation: Any, marks: Any = ()) -> str:
    """The same of a type."""
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not type(None)]
    if origin is Annotated:
        return next((mark.text for mark in parts[1:] if isinstance(mark, Shape)), "") or shape(parts[0], parts[1:])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in parts)
    if origin is list:
        return "tables" if is_table(parts[0]) else f"list of {shape(parts[0])}"
    if origin is dict:
        return "tables" if is_table(parts[1]) else "table of text"
    if parts:
        return shape(parts[0], marks)
    if annotation is bool:
        return "`true`, `false`"
    if annotation in (int, float):
        return number(annotation, marks)
    return "path" if annotation is Path else "text"


def is_table(annotation: Any) -> bool:
    """True for one of several tables of a kind."""
    return isinstance(annotation, type) and issubclass(annotation, Group)


def number(kind: type, marks: Any) -> str:
    """A number's bounds, as far as it has any."""
    bounds = {name: getattr(mark, name) for mark in marks for name in ("gt", "ge", "lt", "le") if getattr(mark, name, None) is not None}
    noun = "whole number" if kind is int else "number"
    low, high = bounds.get("ge"), bounds.get("le")
    if low is not None and high is not None:
        return f"{noun}, {low:g} to {high:,}" if kind is float else f"{noun}, {low:,} to {high:,}"
    if low is not None:
        return f"{noun} from {low:,}"
    above = f" above {bounds['gt']:g}" if "gt" in bounds else ""
    return f"{noun}{above}" + (f", up to {high:,}" if high is not None else "")


def default_of(name: str, field: Any) -> str:
    """A default, as the file would have it."""
    if name in DEFAULTS:
        return f"`{DEFAULTS[name]}`"
    if field.is_required():
        return "required"
    value = field.default_factory() if field.default_factory else field.default
    return "none" if value is None or value in ([], {}, "") else f"`{json.dumps(value, default=str)}`"


def row(*cells: object) -> str:
    """One line of a table. A bar in it would begin a cell."""
    return "| " + " | ".join(re.sub(r"\|", r"\\|", str(cell)) for cell in cells) + " |"


def page(lines: list[str]) -> str:
    """A page's text."""
    return MADE + "\n".join(lines).rstrip() + "\n"


def unsigned_page() -> str:
    """docs/unsigned-headers.md."""
    rows = [row(f"`{name}`", source) for name, source in _core.unsigned_headers()]
    return page([UNSIGNED, "| header | source |", "|---|---|", *rows])


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "unsigned-headers.md": unsigned_page,
    "cli.md": cli_page,
    "errors.md": errors_page,
    "metrics.md": metrics.reference,
}


def main(directory: Path) -> None:
    """Writes every page."""
    for name, made in PAGES.items():
        (directory / name).write_text(made(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
