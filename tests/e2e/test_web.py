"""`sigward web`: what stands in mitmweb's pages, in a real browser, and that no secret does."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.common.exceptions import NoSuchElementException

from sigward.demo.child import clean_environment
from sigward.demo.emulator import Emulator
from sigward.demo.gateway import Gateway
from tests.e2e import pages
from tests.e2e.conftest import SIGWARD
from tests.e2e.pages import Browser, Pages
from tests.needs import needs


@pytest.fixture(scope="module")
def seen(emulator: Emulator, session_keys: dict[str, str]) -> Iterator[tuple[Gateway, Pages]]:
    """sigward with a session's keys, and calls that it has served."""
    with Gateway(emulator, session_keys, command="web", web_port=0, open_browser=False, reverse=False, route=pages.ROUTES) as gateway:
        gateway.wait_ready()
        statuses = pages.make_calls(gateway)
        assert statuses == {
            "create": 200,
            "put": 200,
            "bucket": 200,
            "object": 200,
            "identity": 200,
            "presigned": 500,
            "metadata": 403,
            "denied": 403,
            "repeated": 200,
        }
        yield gateway, Pages(gateway.web_url)


def secrets(emulator: Emulator, session_keys: dict[str, str]) -> list[str]:
    """Keys, tokens, and every signature that arrived."""
    arrived = [(request.header("authorization") or "").partition("Signature=")[2] for request in emulator.requests()]
    keys = [session_keys["AWS_SECRET_ACCESS_KEY"], session_keys["AWS_SESSION_TOKEN"], emulator.secret_access_key]
    return [secret for secret in (*keys, *pages.CLIENTS_OWN.values(), *arrived) if secret]


def flow(of: Pages, comment: str) -> dict[str, Any]:
    """The only flow whose comment begins so."""
    (found,) = [flow for flow in of.flows() if flow["comment"].startswith(comment)]
    return found


def test_the_list_names_calls_and_marks_what_is_odd(seen: tuple[Gateway, Pages]) -> None:
    marks = {flow["comment"]: flow["marked"] for flow in seen[1].flows()}
    assert marks == {
        "dynamodb CreateTable us-east-1 default 200": "",
        "dynamodb PutItem us-east-1 default 200": "",
        "s3 CreateBucket us-east-1 default 200": "",
        "s3 PutObject us-east-1 default 200": "",
        "sts GetCallerIdentity us-east-1 default 200": "",
        "s3 GetObject us-east-1 own-authorization 500 (3 attempts)": "🔁",
        "forbidden-address": "⛔",
        "s3 GetObject us-east-1 default denied by #1": "⛔",
        "dynamodb GetItem us-east-1 default 200 (2 attempts)": "🔁",
    }


def test_no_secret_leaves_by_the_pages_interface(seen: tuple[Gateway, Pages], emulator: Emulator, session_keys: dict[str, str]) -> None:
    asked = seen[1]
    texts = [asked.request("GET", path).body for path in ("/flows", "/flows/dump", "/events", "/options", "/state")]
    for one in asked.flows():
        for message in ("request", "response"):
            for view in ("sigward", "raw"):
                texts.append(asked.request("GET", f"/flows/{one['id']}/{message}/content/{view}").body)
    told = b"\n".join(texts).decode("utf-8", "replace")
    assert "Signature=redacted" in told
    found = secrets(emulator, session_keys)
    assert len(found) > 10
    assert [secret for secret in found if secret in told] == []


def test_what_arrived_is_what_the_steps_say(seen: tuple[Gateway, Pages], emulator: Emulator) -> None:
    answer = json.loads(seen[1].request("GET", f"/flows/{flow(seen[1], 's3 PutObject')['id']}/request/content/sigward").body)
    arrived = next(request for request in emulator.requests() if request.method == "PUT" and request.target.endswith(".csv"))
    signature = (arrived.header("authorization") or "").partition("Signature=")[2]
    assert f"step 3, signature: {signature[:8]}…" in answer["text"]
    assert f"  x-amz-date:{arrived.header('x-amz-date')}\n" in answer["text"]
    assert "  x-amz-security-token:redacted\n" in answer["text"]


def test_nobody_looks_without_the_token(seen: tuple[Gateway, Pages]) -> None:
    for path in ("/", "/flows", "/flows/dump", "/options", "/updates"):
        assert seen[1].request("GET", path, {"authorization": ""}).status == 403, path
    assert seen[1].request("GET", "/flows", {"authorization": "Bearer wrong"}).status == 403


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/options", b'{"listen_port": 1}'),
        ("POST", "/options/save", b""),
        ("POST", "/commands/view.flows.load", b'{"arguments": ["/etc/passwd"]}'),
        ("POST", "/flows/dump", b""),
        ("POST", "/flows/{id}/replay", b""),
        ("POST", "/flows/{id}/duplicate", b""),
        ("POST", "/flows/{id}/request/content.data", b"x"),
    ],
)
def test_the_pages_change_nothing(seen: tuple[Gateway, Pages], method: str, path: str, body: bytes) -> None:
    asked = seen[1]
    before = asked.flows()
    # As a page does it: the same value in the cookie and the header that forged requests cannot set.
    value = "00112233445566778899aabbccddeeff"
    headers = {"content-type": "application/json", "cookie": f"_mitmproxy_xsrf={value}", "x-xsrftoken": value}
    answer = asked.request(method, path.format(id=before[0]["id"]), headers, body)
    assert (answer.status, b"sigward's pages show what happens" in answer.body) == (403, True)
    assert asked.flows() == before


def test_a_port_in_use_is_named(seen: tuple[Gateway, Pages]) -> None:
    port = urlsplit(seen[1].url).port
    command = [*SIGWARD, "web", "--listen", "127.0.0.1:0", "--admin", "off", "--web-port", str(port), "--no-open-browser"]
    keys = {"AWS_ACCESS_KEY_ID": "AKIDNONE", "AWS_SECRET_ACCESS_KEY": "none"}
    ran = subprocess.run(command, env=clean_environment() | keys, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 69
    assert "error: web_port: cannot listen" in ran.stderr
    assert "hint: Is the address in use? Choose another with --web-port." in ran.stderr


@needs(*pages.BROWSER)
def test_a_browser_shows_calls_attempts_and_steps(seen: tuple[Gateway, Pages], emulator: Emulator, session_keys: dict[str, str]) -> None:
    with Browser(seen[0].web_url) as browser:
        repeated = browser.row("dynamodb GetItem us-east-1 default 200 (2 attempts)")
        assert "🔁" in repeated.text
        assert "⛔" in browser.row("denied").text
        assert "⛔" in browser.row("forbidden-address").text
        assert "⛔" not in browser.row("dynamodb PutItem").text

        shown = browser.look_at("dynamodb GetItem")
        for line in ("service: dynamodb", "operation: GetItem", "region: us-east-1", "identity: default", "decision: signed and sent"):
            assert line in shown.splitlines()
        assert "- 503, " in shown
        assert "- 200, " in shown
        for step in ("step 1, canonical request", "step 2, string to sign", "step 3, signature", "step 4, added to the request"):
            assert step in shown
        assert "x-amz-security-token:redacted" in shown
        texts = [browser.dom()]

        for row, message, told in [
            ("sts GetCallerIdentity", "Request", "identity: default"),
            ("own-authorization 500", "Request", "reason: own-authorization"),
            ("denied", "Response", "decision: denied by a [[route]]"),
            ("forbidden-address", "Response", "error: forbidden-address"),
        ]:
            assert told in browser.look_at(row, message)
            texts.append(browser.dom())
    for secret in secrets(emulator, session_keys):
        assert not any(secret in text for text in texts)


@needs(*pages.BROWSER)
def test_a_browser_sees_nothing_without_the_token(seen: tuple[Gateway, Pages]) -> None:
    with Browser(seen[0].web_url.partition("?")[0]) as browser:
        assert "GetItem" not in browser.dom()
        with pytest.raises(NoSuchElementException):
            browser.driver.find_element("css selector", ".flow-table")
