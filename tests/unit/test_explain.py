"""`sigward explain`: from AWS's answer to the cause. The answers are made as AWS makes them, by botocore's code for its side."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sigward import _core
from tests.shell import KEY, SECRET, TOKEN, Shell

URL = "https://bucket.s3.eu-west-1.amazonaws.com/a%20key?list-type=2&prefix=x%20y"
STAMP = "20150830T123600Z"


@dataclass
class Aws:
    """What AWS made of the request that arrived, and what it got as its signature."""

    canonical: str
    to_sign: str
    signature: str

    def s3(self) -> str:
        def hexed(text: str) -> str:
            return " ".join(f"{byte:02x}" for byte in text.encode())

        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we '
            f"calculated does not match.</Message><AWSAccessKeyId>{KEY}</AWSAccessKeyId><StringToSign>{escape(self.to_sign)}</StringToSign>"
            f"<SignatureProvided>{self.signature}</SignatureProvided><StringToSignBytes>{hexed(self.to_sign)}</StringToSignBytes>"
            f"<CanonicalRequest>{escape(self.canonical)}</CanonicalRequest>"
            f"<CanonicalRequestBytes>{hexed(self.canonical)}</CanonicalRequestBytes></Error>"
        )

    def message(self) -> str:
        return (
            "The request signature we calculated does not match the signature you provided.\n\nThe Canonical String for this request "
            f"should have been\n'{self.canonical}'\n\nThe String-to-Sign should have been\n'{self.to_sign}'\n"
        )

    def json(self) -> str:
        return json.dumps({"__type": "com.amazon.coral.service#InvalidSignatureException", "message": self.message()})

    def query(self) -> str:
        return (
            '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
            f"<Code>SignatureDoesNotMatch</Code><Message>{escape(self.message())}</Message></Error></ErrorResponse>"
        )


def aws(url: str = URL, *, method: str = "GET", region: str = "eu-west-1", token: str | None = None, body: bytes = b"", **more: Any) -> Aws:
    """AWS's side, with its own secret `SECRET`."""
    service = more.get("service", "s3")
    auth = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials(KEY, more.get("secret", SECRET), token), service, region)
    request = AWSRequest(method, url, data=body, headers={"X-Amz-Date": STAMP} | more.get("headers", {}))
    request.context |= {"timestamp": STAMP, "payload_signing_enabled": True}
    if service == "s3":
        request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(body).hexdigest()
    if token:
        request.headers["X-Amz-Security-Token"] = token
    canonical = auth.canonical_request(request)
    to_sign = auth.string_to_sign(request, canonical)
    return Aws(canonical, to_sign, more.get("provided") or auth.signature(to_sign, request))


def explained(sigward: Shell, body: str, *arguments: str, token: bool = False) -> dict[str, Any]:
    done = sigward.keys(token=token)("explain", "-", *arguments, "--json-output", stdin=body)
    assert done.status == 0, done.err
    for secret in (SECRET, TOKEN):
        assert secret not in done.out + done.err
    told: dict[str, Any] = json.loads(done.out)
    return told


def test_a_wrong_secret_is_seen_without_the_request(sigward: Shell) -> None:
    """We signed AWS's very string with what we hold, and AWS refused it: what AWS holds is another."""
    told = explained(sigward, aws().s3())
    assert "the secret is not the one of access key …ESTS" in told["cause"]


def test_a_wrong_secret_is_seen_with_the_request(sigward: Shell) -> None:
    told = explained(sigward, aws().s3(), "--url", URL)
    assert "the secret is not the one" in told["cause"]
    other = explained(sigward, aws(provided="0" * 64).s3(), "--url", URL)
    assert "signed others, or with another secret" in other["cause"]


def test_a_plus_in_the_query_is_what_it_is_said_to_be(sigward: Shell) -> None:
    asked, theirs = ["--url", URL.replace("x%20y", "x+y")], aws(URL.replace("x%20y", "x%2By")).s3()
    assert "`+`" in explained(sigward, theirs, *asked)["cause"]
    assert "the secret is not the one" in explained(sigward, theirs, *asked, "--query-plus", "plus")["cause"]
    assert "the secret is not the one" in explained(sigward, aws().s3(), *asked)["cause"]


@pytest.mark.parametrize(
    ("theirs", "arguments", "part", "said"),
    [
        (aws(URL.replace("%20key", "%2520key")), [], "path", "encoded once"),
        (aws(URL.replace("/a%20key", "/b")), [], "path", "path was changed"),
        (aws(URL.replace("x%20y", "x%2By")), [], 'query parameter "prefix"', "`+`"),
        (aws(URL.replace("list-type=2&", "")), [], 'query parameter "list-type"', "list-type"),
        (aws(method="PUT"), [], "method", "method"),
        (aws(region="us-east-1"), [], "credential scope", "region or service"),
        (aws(body=b"other"), ["--data", "mine"], 'header "x-amz-content-sha256"', "x-amz-content-sha256"),
        (aws(headers={"X-Custom": "a"}), ["--header", "x-custom: b"], 'header "x-custom"', "another value"),
        (aws(), ["--header", "x-custom: b"], 'header "x-custom"', "did not arrive"),
        (aws(headers={"X-Custom": "a"}), [], 'header "x-custom"', "not one of ours"),
    ],
)
def test_the_first_difference_tells_the_cause(sigward: Shell, theirs: Aws, arguments: list[str], part: str, said: str) -> None:
    told = explained(sigward, theirs.s3(), "--url", URL, "--region", "eu-west-1", *arguments)
    assert told["difference"]["part"] == part
    assert said in told["cause"]
    assert told["mend"]


@pytest.mark.parametrize("form", ["json", "query"])
def test_other_protocols(sigward: Shell, form: str) -> None:
    url = "https://dynamodb.eu-west-1.amazonaws.com/"
    theirs = aws(url, method="POST", service="dynamodb", body=b"{}")
    body = theirs.json() if form == "json" else theirs.query()
    told = explained(sigward, body, "--url", url, "--method", "POST", "--data", "{ }")
    assert told["difference"]["part"] == "payload hash"
    assert "body" in told["cause"]


def test_a_token_is_not_shown(sigward: Shell) -> None:
    told = explained(sigward, aws(token="their-token").s3(), "--url", URL, token=True)
    assert told["difference"]["part"] == 'header "x-amz-security-token"'
    assert (told["difference"]["ours"], told["difference"]["aws"]) == ("x-amz-security-token:redacted",) * 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<Error><Code>RequestTimeTooSkewed</Code><Message>x</Message><ServerTime>2015</ServerTime></Error>", "clocks differ"),
        ("<Error><Code>AuthorizationHeaderMalformed</Code><Message>x</Message><Region>eu-west-2</Region></Error>", "scope"),
        ('{"__type": "UnrecognizedClientException", "message": "x"}', "does not know this access key"),
        ('{"__type": "InvalidSignatureException", "message": "Signature expired: 1 is now earlier than 2"}', "clocks differ"),
        ('{"__type": "InvalidSignatureException", "message": "Credential should be scoped to a valid region."}', "region or service"),
        ('{"__type": "InvalidSignatureException", "message": "It does not match."}', "does not tell"),
        ("<Error><Code>ExpiredToken</Code><Message>x</Message></Error>", "expired"),
        ('{"message": "Unauthorized"}', "does not sign"),
        ('{"message":"Forbidden"}', "own-authorization"),
        ("Unauthorized", "own-authorization"),
        ('{"Message":"Authentication failed: Please make sure your API Key is valid."}', "own-authorization"),
        (
            '{"errors": [{"errorType": "UnauthorizedException", "message": "Valid authorization header not provided."}]}',
            "own-authorization",
        ),
    ],
)
def test_other_codes(sigward: Shell, body: str, said: str) -> None:
    told = explained(sigward, body)
    assert said in told["cause"]
    assert told["mend"]


@pytest.mark.parametrize("arguments", [[], ["--url", URL]])
@pytest.mark.parametrize("to_sign", ["one line", "AWS4-HMAC-SHA256\n\u00e9\nscope\nhash"])
def test_a_string_to_sign_that_is_none(sigward: Shell, to_sign: str, arguments: list[str]) -> None:
    assert "does not tell" in explained(sigward, Aws("GET\n/", to_sign, "00").s3(), *arguments)["cause"]


def test_strings_that_do_not_fit_together(sigward: Shell) -> None:
    theirs = aws(provided="0" * 64)
    theirs.canonical += " "
    assert "was changed on its way" in explained(sigward, theirs.s3())["cause"]
    assert "Give the request too" in explained(sigward, aws(provided="0" * 64).s3())["mend"]


@pytest.mark.parametrize("body", ["", "nonsense", "{", "<a/>", "<Error><Code>NoSuchKey</Code><Message>x</Message></Error>"])
def test_what_is_no_such_answer(sigward: Shell, body: str) -> None:
    done = sigward.keys()("explain", "-", stdin=body)
    assert (done.status, done.out) == (64, "")
    assert sigward("explain", "not-there").status == 64


def test_for_people(sigward: Shell) -> None:
    path = sigward.home / "answer.xml"
    path.write_text(aws(URL.replace("/a%20key", "/a%20kez")).s3())
    done = sigward.keys()("explain", str(path), "--url", URL)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "SignatureDoesNotMatch: The path was changed on the way."
    ours = next(at for at, line in enumerate(lines) if line.startswith("  ours"))
    assert lines[ours + 2].index("^") == lines[ours].index("key") + 2
    assert lines[-1].startswith("Fix: ")


def test_difference_takes_bytes() -> None:
    with pytest.raises(ValueError, match="what:"):
        _core.difference("nonsense", b"", b"")  # type: ignore[arg-type]
    found = _core.difference("string-to-sign", b"a\nb", b"a\nc")
    assert found is not None
    assert (found.part, found.line, found.column, found.ours, found.theirs) == ("time", 2, 1, b"b", b"c")
    assert repr(found) == "Difference(time line 2 column 1)"
