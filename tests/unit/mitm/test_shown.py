"""Copies of flows: what they show, and what they do not."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.contentviews import Metadata
from mitmproxy.test import tflow
from mitmproxy.utils.emoji import emoji

from sigward import _core
from sigward.mitm import shown as module
from sigward.mitm.contentview import SigwardContentview
from sigward.mitm.refusals import refusal
from sigward.mitm.shown import GAVE_UP, NOT_KEPT, REFUSED, RETRIED, Shown, comment, mark

SECRET = "never-to-be-seen"


@pytest.fixture
def engine() -> Iterator[_core.Engine]:
    engine = _core.Engine("{}")
    yield engine
    engine.close()


@pytest.fixture
def shown(engine: _core.Engine) -> Shown:
    return Shown(engine, 100)


def made(**more: Any) -> dict[str, Any]:
    """What sigward made of a request."""
    return (
        {"action": "sign", "service": "s3", "operation": "GetObject", "region": "eu-west-1", "identity": "default"}
        | {
            "attempts": [{"outcome": "200", "took": 0.012, "waited": 0.0}],
            "error": None,
            "steps": None,
        }
        | more
    )


def test_a_copy_holds_no_secret_and_the_flow_is_left_as_it_is(shown: Shown) -> None:
    flow = tflow.tflow(resp=True)
    flow.request.path = f"/k?X-Amz-Security-Token={SECRET}&x=1&X-Amz-Signature={SECRET}"
    flow.request.headers = http.Headers(
        authorization=f"AWS4-HMAC-SHA256 Credential=A/b, SignedHeaders=host, Signature={SECRET}",
        x_amz_security_token=SECRET,
        proxy_authorization=f"Basic {SECRET}",
        cookie=SECRET,
        referer=f"https://b.s3.amazonaws.com/k?X-Amz-Signature={SECRET}",
    )
    flow.response.headers = http.Headers(set_cookie=SECRET, location=f"https://b.s3.amazonaws.com/k?X-Amz-Signature={SECRET}&a=b")
    flow.response.trailers = http.Headers(x_amz_security_token=SECRET)
    copy = shown.copy(flow)
    assert SECRET not in str(copy.get_state())
    assert copy.request.path == "/k?X-Amz-Security-Token=redacted&x=1&X-Amz-Signature=redacted"  # type: ignore[attr-defined]
    assert copy.request.headers["authorization"].endswith("SignedHeaders=host, Signature=redacted")  # type: ignore[attr-defined]
    assert copy.response.headers["location"].endswith("?X-Amz-Signature=redacted&a=b")  # type: ignore[attr-defined]
    assert str(flow.get_state()).count(SECRET) == 10
    assert (copy.id, copy.live) == (flow.id, False)


def test_a_copy_is_refreshed_from_its_flow(shown: Shown) -> None:
    flow = tflow.tflow()
    copy = shown.copy(flow)
    assert copy.response is None  # type: ignore[attr-defined]
    assert "sigward" not in copy.metadata
    flow.response = refusal(403, "denied", "no.")
    shown.refresh(copy, flow)
    assert (copy.comment, copy.marked) == ("denied", REFUSED)
    assert copy.response.status_code == 403  # type: ignore[attr-defined]


def test_bodies_that_are_not_kept(shown: Shown) -> None:
    flow = tflow.tflow(resp=True)
    flow.request.content, flow.response.content = None, b"x" * 101
    copy = shown.copy(flow)
    assert copy.request.content == NOT_KEPT  # type: ignore[attr-defined]
    assert copy.response.raw_content is None  # type: ignore[attr-defined]
    assert len(flow.response.content) == 101


@pytest.mark.parametrize("flow", [tflow.ttcpflow(), tflow.twebsocketflow(), tflow.tflow(err=True)], ids=["tcp", "websocket", "error"])
def test_other_flows_are_copied_too(shown: Shown, flow: Any) -> None:
    copy: Any = shown.copy(flow)
    assert type(copy) is type(flow)
    assert getattr(copy, "messages", None) == getattr(flow, "messages", None)
    assert getattr(copy, "websocket", None) == getattr(flow, "websocket", None)
    assert copy.error == flow.error


REPEATED = [{"outcome": "503 throttled", "took": 0.012, "waited": 0.0}, {"outcome": "200", "took": 0.009, "waited": 0.31}]


@pytest.mark.parametrize(
    ("more", "said", "marked"),
    [
        ({}, "s3 GetObject eu-west-1 default 200", ""),
        ({"operation": None, "identity": None}, "s3 eu-west-1 200", ""),
        ({"attempts": REPEATED}, "s3 GetObject eu-west-1 default 200 (2 attempts)", RETRIED),
        ({"action": "deny", "attempts": [], "error": "denied"}, "s3 GetObject eu-west-1 default denied", REFUSED),
        (
            {"action": "deny", "attempts": [], "error": "denied", "route": "no-reads"},
            "s3 GetObject eu-west-1 default denied by no-reads",
            REFUSED,
        ),
        ({"action": "pass", "identity": None, "reason": "own-authorization"}, "s3 GetObject eu-west-1 own-authorization 200", ""),
        ({"error": "connect-failed", "route": "all"}, "s3 GetObject eu-west-1 default connect-failed", GAVE_UP),
    ],
)
def test_comments_and_marks(more: dict[str, Any], said: str, marked: str) -> None:
    assert (comment(made(**more)), mark(made(**more))) == (said, marked)


def test_mitmproxy_knows_the_marks() -> None:
    assert {REFUSED, GAVE_UP, RETRIED} <= set(emoji)


def view(**more: Any) -> str:
    """What the view says."""
    flow = tflow.tflow()
    flow.metadata["sigward"] = made(**more)
    return SigwardContentview().prettify(b"", Metadata(flow=flow))


def test_the_view() -> None:
    steps = {
        "canonical_request": "GET\n/\n\nhost:h\n\nhost\nhash",
        "string_to_sign": "AWS4-HMAC-SHA256\ndate",
        "signature": "0123abcd…",
        "added": [["x-amz-date", "20260101T000000Z"], ["authorization", "AWS4-HMAC-SHA256 Credential=A, Signature=redacted"]],
    }
    text = view(attempts=REPEATED, steps=steps, paced=0.02, pace_rule="s3 reads", client="reports")
    assert text == (
        "decision: signed and sent\nservice: s3\noperation: GetObject\nregion: eu-west-1\nidentity: default\nclient: reports\n"
        "waited for its turn: 20 ms (rule s3 reads)\nattempts:\n  - 503 throttled, 12 ms\n  - 200, 9 ms, after a wait of 310 ms\n\n"
        "step 1, canonical request: |\n  GET\n  /\n  \n  host:h\n  \n  host\n  hash\n\n"
        "step 2, string to sign: |\n  AWS4-HMAC-SHA256\n  date\n\nstep 3, signature: 0123abcd…\nstep 4, added to the request:\n"
        "  x-amz-date: 20260101T000000Z\n  authorization: AWS4-HMAC-SHA256 Credential=A,\n    Signature=redacted"
    )


def test_the_view_of_what_is_undecided_or_refused() -> None:
    assert SigwardContentview().prettify(b"", Metadata(flow=tflow.tflow())) == "decision: none yet\n"
    assert view(action="refuse", attempts=[], error="not-aws").startswith("decision: refused\n")
    told = module.told_by_front(refusal(400, "bad-host", "no."))
    assert told is not None
    assert (comment(told), told["reason"]) == ("bad-host", "no.")
    assert module.told_by_front(None) is None


def test_the_view_of_a_denied_call() -> None:
    text = view(
        action="deny",
        attempts=[],
        error="denied",
        route="no-reads",
        resource="arn:aws:s3:::b/k",
        client="ci",
        reason="route no-reads denies it.",
    )
    assert text == (
        "decision: denied by a [[route]]\nroute: no-reads\nservice: s3\noperation: GetObject\nresource: arn:aws:s3:::b/k\n"
        "region: eu-west-1\nidentity: default\nclient: ci\nerror: denied\nreason: route no-reads denies it."
    )


def test_the_view_of_what_a_rule_would_refuse() -> None:
    text = view(would_refuse=[["no-reads", "bucket"], ["#2", "operation"]], ambiguous="target")
    assert (
        "\nambiguous: target\nwould be refused by rule no-reads; unknown: bucket\nwould be refused by rule #2; unknown: operation\n"
    ) in text


@pytest.mark.parametrize("odd", ["nö\r\nx-evil: 1", f"X-Amz-Security-Token={SECRET}", "x" * 5000, f"me:{SECRET}@h"])
def test_a_refusal_s_reason_is_a_header(odd: str) -> None:
    answer = refusal(400, "bad-host", f"{odd!r} {odd} is no host.")
    (reason,) = answer.headers.get_all("x-sigward-reason")
    assert re.fullmatch(r"[ -~]{1,1024}", reason)
    assert SECRET not in f"{answer.headers} {answer.text}"
    assert answer.text is not None
    assert answer.text.startswith("sigward: ")


def test_the_view_is_never_chosen_by_itself() -> None:
    from mitmproxy import contentviews

    with_ours = contentviews.ContentviewRegistry()
    with_ours.register(contentviews.raw)
    with_ours.register(SigwardContentview)
    assert with_ours.get_view(b"", Metadata(flow=tflow.tflow())).name == contentviews.raw.name
    assert with_ours.get_view(b"", Metadata(flow=tflow.tflow()), "sigward").name == "sigward"
