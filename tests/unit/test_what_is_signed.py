"""docs/what-is-signed.md: each row of its tables is what the gateway does."""

import json
import re
import tomllib
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from sigward import _core
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "what-is-signed.md"
ENTRIES: dict[str, tuple[Any, ...]] = {"any": ("connect", "reverse"), "forward": ("connect",), "reverse": ("reverse",)}


@dataclass(frozen=True)
class Row:
    """One request of the page's. `settings`: TOML; `parts`: what stands in backquotes."""

    line: int
    settings: str
    listener: str
    parts: tuple[str, ...]
    result: str

    def __str__(self) -> str:
        return f"line {self.line}"


def rows() -> list[Row]:
    """Of every table of the page's that has a request and a result."""
    found: list[Row] = []
    columns: list[str] = []
    for number, line in enumerate(PAGE.read_text().splitlines(), 1):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells or set(cells[0]) == {"-"}:
            columns = columns if cells else []
        elif not columns:
            columns = cells
        elif {"request", "result"} <= set(columns):
            row = dict(zip(columns, cells, strict=True))
            parts = tuple(re.findall(r"`([^`]*)`", row["request"]))
            found.append(Row(number, row.get("settings", "").strip("`"), row.get("listener", "any"), parts, row["result"]))
    return found


ROWS = rows()


def became(row: Row, entry: Any) -> str:
    """The result, in the page's words."""
    settings = tomllib.loads(row.settings)
    settings["routes"] = settings.pop("route", [])
    request, *more = (part.replace("…", "x") for part in row.parts)
    method, url = request.split(" ")
    pairs = [part.split(": ", 1) for part in more]
    body = "".join(value for name, value in pairs if name == "body").encode()
    split = urlsplit(url)
    headers = [("host", split.netloc), *((name, value) for name, value in pairs if name != "body")]
    raw = [(name.encode(), value.encode()) for name, value in headers]
    target = split.path + (f"?{split.query}" if split.query else "")
    made = _core.Rehearsal(json.dumps(settings)).run(entry, "https", split.netloc, method, target.encode(), raw, body)
    if not made.sent:
        return f"refused: `{made.slug}`"
    signed = dict(made.headers).get(b"authorization", b"").startswith((b"AWS4-HMAC-", b"AWS4-ECDSA-"))
    if made.decision == "pass":
        sent = [pair for pair in made.headers if pair[0] in dict(raw)]
        assert not signed, made
        assert sorted(sent) == sorted(raw), made
        return f"passes: `{made.reason}`"
    assert signed, made
    return f"signed as `{made.service}` in `{made.region}`"


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_is_what_happens(row: Row) -> None:
    for entry in ENTRIES[row.listener]:
        assert became(row, entry) == row.result, (row.parts, entry)


def test_the_tables_are_found() -> None:
    results = {row.result.partition("`")[2].partition("`")[0] for row in ROWS if not row.result.startswith("signed")}
    assert {"own-authorization", "public", "route", "unsigned-host", "not-aws", "denied"} <= results
    assert len(ROWS) >= 40
