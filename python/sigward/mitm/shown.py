"""What people may see of a flow: a copy of it without signatures, tokens and keys, and what sigward made of the request in plain values.

The live flow is what is signed and sent, so nothing is taken out of it. `sigward.mitm.web` keeps the copies.
"""

from collections.abc import Callable
from typing import Any

from mitmproxy import http, tcp
from mitmproxy.flow import Flow

from sigward import _core

NOT_KEPT = b"sigward: this body is not kept: it streamed, or it is larger than web_bodies.\n"
"""Stands for a request's body that is not there: mitmproxy shows no view, and so not ours, of what is missing."""

REFUSED, GAVE_UP, RETRIED = ":no_entry:", ":warning:", ":repeat:"
"""Marks: sigward sent nothing; it sent the request in vain; it sent it more than once."""

OWN = "own-authorization"
"""The reason of what passes because the client authenticates it itself."""

LINKS = ("content-location", "location", "referer")
"""Headers that hold a URL, maybe a presigned one."""


class Shown:
    """Makes copies. `largest`: bytes of a body that is copied; a larger one is left out."""

    def __init__(self, engine: _core.Engine, largest: int) -> None:
        self._redact: Callable[[bytes, bytes], bytes] = engine.redact
        self._redact_target: Callable[[str], str] = engine.redact_target
        self._largest = largest

    def copy(self, flow: Flow) -> Flow:
        """A flow with the same id that belongs to no connection."""
        shown = type(flow)(flow.client_conn, flow.server_conn)
        shown.id, shown.timestamp_created = flow.id, flow.timestamp_created
        self.refresh(shown, flow)
        return shown

    def refresh(self, shown: Flow, flow: Flow) -> None:
        """Brings a copy up to date."""
        shown.error = flow.error
        if isinstance(flow, http.HTTPFlow) and isinstance(shown, http.HTTPFlow):
            shown.request = self._request(flow.request)
            shown.response = self._response(flow.response) if flow.response else None
            shown.websocket = flow.websocket
            report = flow.metadata.get("sigward")
            made = told(report) if isinstance(report, _core.Report) else told_by_front(flow.response)
            if made:
                shown.metadata["sigward"] = made
                shown.comment, shown.marked = comment(made), mark(made)
        elif isinstance(flow, tcp.TCPFlow) and isinstance(shown, tcp.TCPFlow):
            shown.messages = flow.messages

    def _request(self, request: http.Request) -> http.Request:
        shown = request.copy()
        shown.path = self._redact_target(request.path)
        self._clean(shown)
        if shown.raw_content is None:
            shown.raw_content = NOT_KEPT
        return shown

    def _response(self, response: http.Response) -> http.Response:
        shown = response.copy()
        self._clean(shown)
        return shown

    def _clean(self, message: http.Message) -> None:
        message.headers = self._headers(message.headers)
        if message.trailers is not None:
            message.trailers = self._headers(message.trailers)
        if message.raw_content is not None and len(message.raw_content) > self._largest:
            message.raw_content = None

    def _headers(self, headers: http.Headers) -> http.Headers:
        return http.Headers([(name, self._value(name, value)) for name, value in headers.fields])

    def _value(self, name: bytes, value: bytes) -> bytes:
        if name.lower().decode("latin-1") in LINKS:
            return self._redact_target(value.decode("latin-1")).encode("latin-1")
        return self._redact(name, value)


def told(report: _core.Report) -> dict[str, Any]:
    """A report in plain values, which mitmproxy can write into a file. Its keys: those of `_core.Report`, and `steps` with names."""
    waited, rule = report.paced
    made: dict[str, Any] = {
        "action": report.action,
        "route": report.route,
        "service": report.service,
        "operation": report.operation.partition(":")[2] if report.operation else None,
        "region": report.region,
        "identity": report.identity,
        "client": report.client,
        "resource": report.resource,
        "upstream": report.upstream,
        "paced": waited,
        "pace_rule": rule,
        "attempts": [{"outcome": outcome, "took": took, "waited": before} for outcome, took, before in report.attempts],
        "error": report.error,
        "reason": report.reason,
        "ambiguous": report.ambiguous,
        "would_refuse": [list(pair) for pair in report.would_refuse],
        "steps": None,
    }
    if report.steps:
        canonical_request, string_to_sign, signature, added = report.steps
        made["steps"] = {
            "canonical_request": canonical_request,
            "string_to_sign": string_to_sign,
            "signature": signature,
            "added": [list(pair) for pair in added],
        }
    return made


def told_by_front(response: http.Response | None) -> dict[str, Any] | None:
    """The same of a request that was refused before the engine saw it; None: there is nothing to tell yet."""
    slug = response.headers.get("x-sigward-error") if response else None
    if response is None or slug is None:
        return None
    return {"action": "refuse", "error": slug, "reason": response.headers.get("x-sigward-reason"), "attempts": [], "steps": None}


def comment(made: dict[str, Any]) -> str:
    """`dynamodb GetItem eu-west-1 default 200 (2 attempts)`; of a denied call with its route: `… default denied by no-deletes`."""
    attempts = made["attempts"]
    words = [made.get(name) for name in ("service", "operation", "region", "identity")]
    outcome = made["error"] or (attempts[-1]["outcome"] if attempts else None)
    repeated = f"({len(attempts)} attempts)" if len(attempts) > 1 else None
    rule = f"by {made['route']}" if made["action"] == "deny" and made.get("route") else None
    own = OWN if made["action"] == "pass" and made.get("reason") == OWN else None
    return " ".join(word for word in (*words, own, outcome, rule, repeated) if word)


def mark(made: dict[str, Any]) -> str:
    """Empty: there is nothing odd about it."""
    if made["error"]:
        return GAVE_UP if made["attempts"] else REFUSED
    return RETRIED if len(made["attempts"]) > 1 else ""
