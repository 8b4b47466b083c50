"""No keys, wrong keys, temporary keys; and that none of them shows."""

import json
import re

from sigward.demo.calls import Ways
from sigward.demo.emulator import Emulator
from sigward.demo.gateway import Gateway
from sigward.environ import DUMMY_KEY, DUMMY_SECRET
from tests.e2e.conftest import ask

FORM = {"content-type": "application/x-www-form-urlencoded"}
IDENTITY = b"Action=GetCallerIdentity&Version=2011-06-15"
LIST_TABLES = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "DynamoDB_20120810.ListTables"}


def test_no_credentials_says_what_was_tried(emulator: Emulator) -> None:
    before = len(emulator.requests())
    with Gateway(emulator, credentials={}) as gateway:
        dynamodb = ask(gateway.addresses["dynamodb"], "POST", "/", LIST_TABLES, b"{}")
        s3 = ask(gateway.addresses["s3"])
        sts = ask(gateway.addresses["sts"], "POST", "/", FORM, IDENTITY)
        ready = gateway.admin("/readyz")
        healthy = gateway.admin("/healthz")
    for answer in (dynamodb, s3, sts):
        assert answer.status == 503
        assert answer.headers["x-sigward-error"] == "no-credentials"
        for provider in (b"env", b"shared-credentials-file", b"assume-role", b"container-role", b"iam-role"):
            assert provider in answer.body, answer.body
    told = json.loads(dynamodb.body)
    assert told["__type"]
    assert "sigward" in told["message"]
    assert dynamodb.headers["content-type"].startswith("application/x-amz-json")
    assert re.search(rb"<Error><Code>\w+</Code><Message>sigward", s3.body)
    assert re.search(rb"<ErrorResponse.*<Error>.*<Code>\w+</Code>", sts.body, re.DOTALL)
    assert ready[0] == 503
    assert "credentials" in ready[1]
    assert healthy[0] == 200
    assert emulator.requests(before) == []


def test_wrong_credentials_bring_the_upstreams_own_refusal(emulator: Emulator) -> None:
    wrong = {
        "AWS_ACCESS_KEY_ID": emulator.access_key_id,
        "AWS_SECRET_ACCESS_KEY": "wrong" + emulator.secret_access_key[5:],
    }
    before = len(emulator.requests())
    with Gateway(emulator, wrong) as gateway:
        answer = ask(gateway.addresses["sts"], "POST", "/", FORM, IDENTITY)
    assert answer.status == 403
    assert b"SignatureDoesNotMatch" in answer.body
    assert "x-sigward-error" not in answer.headers
    assert [request.status for request in emulator.requests(before)] == [403]


def test_temporary_keys_work_and_nothing_secret_shows(ways: Ways, session_keys: dict[str, str]) -> None:
    keys = session_keys
    with Gateway(ways.emulator, keys, log_level="debug") as gateway:
        gateway.wait_ready()
        theirs = {"authorization": f"AWS4-HMAC-SHA256 Credential={DUMMY_KEY}/x, Signature={DUMMY_SECRET}"}
        good = ask(gateway.addresses["sts"], "POST", "/", FORM | theirs, IDENTITY)
        missing = ask(gateway.addresses["s3"], path="/no-such-bucket/key")
        refused = ask(gateway.addresses["by-host"], headers={"host": "s3.amazonaws.com.evil.test"})
        metrics = gateway.admin("/metrics")[1]
        gateway.child.stop()
        output = gateway.child.output()
    assert good.status == 200, good.body
    assert b"assumed-role/e2e/session" in good.body
    assert missing.status == 404
    assert refused.status == 403
    arrived = next(request for request in reversed(ways.emulator.requests()) if request.host.startswith("sts."))
    assert arrived.header("x-amz-security-token") == keys["AWS_SESSION_TOKEN"]
    signature = str(arrived.header("authorization")).partition("Signature=")[2]
    shown = output + metrics + repr((missing, refused))
    for secret in (keys["AWS_SECRET_ACCESS_KEY"], keys["AWS_SESSION_TOKEN"], signature, DUMMY_SECRET):
        assert secret not in shown
