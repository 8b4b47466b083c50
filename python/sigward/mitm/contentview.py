"""mitmproxy's content view `sigward`: which call it is, as whom, each attempt, and the four steps of the signature.

It shows what `sigward.mitm.shown` has put onto a flow's copy, where no secrets are.
"""

from collections.abc import Iterator
from typing import Any

from mitmproxy.contentviews import Contentview, Metadata, SyntaxHighlight

ACTIONS = {"sign": "signed and sent", "pass": "sent as it came", "deny": "denied by a [[route]]", "refuse": "refused"}

FACTS = ("route", "service", "operation", "resource", "region", "identity", "client", "upstream", "error", "reason", "ambiguous")

MILLISECONDS = 1000

CONTINUED = "\n    "
"""Between the parts of a long value."""


class SigwardContentview(Contentview):
    """Its name in the list of views is `sigward`. It is never chosen by itself: a body is what one expects to see first."""

    @property
    def name(self) -> str:
        return "sigward"

    @property
    def syntax_highlight(self) -> SyntaxHighlight:
        return "yaml"

    def prettify(self, data: bytes, metadata: Metadata) -> str:
        """YAML; the body itself is not looked at."""
        made = metadata.flow.metadata.get("sigward") if metadata.flow else None
        return "\n".join(lines(made)) if made else "decision: none yet\n"

    def render_priority(self, data: bytes, metadata: Metadata) -> float:
        return -1


def lines(made: dict[str, Any]) -> Iterator[str]:
    """The view, line by line. `made`: see `shown.told`."""
    yield f"decision: {ACTIONS[made['action']]}"
    for name in FACTS:
        if made.get(name):
            yield f"{name}: {made[name]}"
    yield from (f"would be refused by rule {rule}; unknown: {unknown}" for rule, unknown in made.get("would_refuse", ()))
    if made.get("paced"):
        yield f"waited for its turn: {milliseconds(made['paced'])} (rule {made['pace_rule'] or 'unknown'})"
    if made["attempts"]:
        yield "attempts:"
        yield from (f"  - {attempt(one)}" for one in made["attempts"])
    if made["steps"]:
        yield ""
        yield from steps(made["steps"])


def attempt(one: dict[str, Any]) -> str:
    """`503 throttled, 12 ms`; `200, 9 ms, after a wait of 310 ms`"""
    wait = f", after a wait of {milliseconds(one['waited'])}" if one["waited"] else ""
    return f"{one['outcome']}, {milliseconds(one['took'])}{wait}"


def milliseconds(seconds: float) -> str:
    """`12 ms`"""
    return f"{seconds * MILLISECONDS:.0f} ms"


def steps(made: dict[str, Any]) -> Iterator[str]:
    """See 'Create a signed AWS API request', steps 1 to 4; of the last attempt."""
    yield from block("step 1, canonical request", made["canonical_request"])
    yield from block("step 2, string to sign", made["string_to_sign"])
    yield f"step 3, signature: {made['signature']}"
    yield "step 4, added to the request:"
    # `authorization` has three parts, and they are long.
    yield from (f"  {name}: {value.replace(', ', f',{CONTINUED}')}" for name, value in made["added"])


def block(title: str, text: str) -> Iterator[str]:
    """Lines as they are, below a title."""
    yield f"{title}: |"
    yield from (f"  {line}" for line in text.split("\n"))
    yield ""
