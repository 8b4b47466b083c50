"""Answers of sigward's own that are made before the engine knows of the request. Used by the addons, the master and the bridge."""

from mitmproxy import http

from sigward import _core


def refusal(status: int, slug: str, message: str) -> http.Response:
    """A plain-text answer. `slug`: the value of `x-sigward-error`; the message is the value of `x-sigward-reason` too."""
    message = _core.redact_text(message)
    headers = {"content-type": "text/plain; charset=utf-8", "x-sigward-error": slug, "x-sigward-reason": _core.header_text(message)}
    return http.Response.make(status, f"sigward: {message}\n", headers)


def refuse_flow(flow: http.HTTPFlow, why: str) -> None:
    """Answers a request that a hook failed on, instead of letting it go on."""
    flow.response = refusal(500, "hook-failed", f"{why} The request was not sent. See sigward's log.")
