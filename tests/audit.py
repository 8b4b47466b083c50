"""Reads an audit log: the line before a call goes out (`begun`), and the one when it is over."""

import json
from collections.abc import Iterable
from typing import Any

Line = dict[str, Any]


def parsed(text: str) -> list[Line]:
    """All of its lines."""
    return [json.loads(line) for line in text.splitlines()]


def begun(lines: Iterable[Line]) -> list[Line]:
    """Those from before."""
    return [line for line in lines if line.get("begun")]


def ended(lines: Iterable[Line]) -> list[Line]:
    """Those of calls that are over, without what joins them to the lines from before. Each call that was sent has one, and one alone."""
    told, before = [], {}
    for line in lines:
        call = line.get("call_id")
        if line.get("begun"):
            assert call not in before, line
            before[call] = line
            continue
        if call is not None:
            assert call in before, line
            earlier = before.pop(call)
            # What was known then is as it was.
            for name in earlier.keys() - {"begun", "decision"}:
                assert line[name] == earlier[name], (name, line, earlier)
        told.append({name: value for name, value in line.items() if name != "call_id"})
    return told
