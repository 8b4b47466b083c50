"""Every error code and status that botocore's standard mode knows, in every protocol: the same decision, or a difference with a reason."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.parsers import create_parser
from botocore.retries.standard import (
    ExponentialBackoff,
    RetryContext,
    RetryEventAdapter,
    StandardRetryConditions,
    ThrottledRetryableChecker,
    ThrottlingErrorDetector,
    TransientRetryableChecker,
)

from sigward import _core

DELIVER, TRANSIENT, THROTTLING = "deliver", "transient", "throttling"
STATUSES = (400, 401, 403, 404, 408, 409, 412, 413, 424, 429, 500, 501, 502, 503, 504, 509)

SERVICES = {
    # protocol: (service, operation)
    "json-1.0": ("dynamodb", "GetItem"),
    "json-1.1": ("kms", "Decrypt"),
    "rest-json": ("lambda", "Invoke"),
    "rest-xml": ("s3", "GetObject"),
    "query": ("sts", "AssumeRole"),
    "ec2": ("ec2", "DescribeInstances"),
    "smithy-rpc-v2-cbor": ("arc-region-switch", "GetPlan"),
}

DIFFERENCES = {
    "mended": "an expired token, a wrong clock or another region is mended once, which botocore leaves to its caller or to other handlers",
    "429": "a 429 with the code of an error that the model gives another status: no service sends it, and the status is believed; botocore "
    "believes the code (errors that the model itself gives 429 are decided as botocore does)",
    "509": "509 without a modelled code is S3-compatible stores' word for throttling (botocore's legacy mode says so, too)",
}
"""Why sigward decides otherwise than botocore's standard mode."""

MENDED = {"expired", "clock", "signature", "region"}


@dataclass(frozen=True)
class Case:
    """One answer of one operation."""

    protocol: str
    service: str
    operation: str
    status: int
    code: str


def models() -> Iterator[tuple[str, Any]]:
    """(protocol, operation model)."""
    session = botocore.session.Session()
    for protocol, (service, operation) in SERVICES.items():
        yield protocol, session.get_service_model(service).operation_model(operation)


def codes(model: Any) -> list[str]:
    """All that the lists and the model know, and one that nobody knows."""
    listed = [*ThrottledRetryableChecker._THROTTLED_ERROR_CODES, *TransientRetryableChecker._TRANSIENT_ERROR_CODES]
    modelled = [shape.metadata.get("error", {}).get("code") or shape.name for shape in model.error_shapes]
    others = ["ExpiredToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "PermanentRedirect", "IDPCommunicationError", "AccessDenied"]
    return [*dict.fromkeys([*listed, *modelled, *others, "NobodyKnowsThis"])]


def body(protocol: str, code: str) -> tuple[dict[str, str], bytes]:
    """An error as the protocol has it."""
    if protocol in ("json-1.0", "json-1.1"):
        return {"content-type": "application/x-amz-json-1.1"}, json.dumps({"__type": f"com.amazonaws#{code}", "message": "m"}).encode()
    if protocol == "rest-json":
        return {"content-type": "application/json", "x-amzn-errortype": f"{code}:http://x"}, b'{"message": "m"}'
    if protocol == "rest-xml":
        return {"content-type": "application/xml"}, f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()
    if protocol == "query":
        error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>m</Message></Error>"
        return {"content-type": "text/xml"}, f"<ErrorResponse>{error}<RequestId>r</RequestId></ErrorResponse>".encode()
    if protocol == "ec2":
        text = f"<Response><Errors><Error><Code>{code}</Code><Message>m</Message></Error></Errors><RequestID>r</RequestID></Response>"
        return {"content-type": "text/xml"}, text.encode()
    name = f"com.amazonaws#{code}".encode()
    length = bytes([0x60 + len(name)]) if len(name) < 24 else b"\x78" + bytes([len(name)])
    told = b"\xa2\x66__type" + length + name + b"\x67message\x61m"
    return {"content-type": "application/cbor", "smithy-protocol": "rpc-v2-cbor"}, told


class Raw:
    """What botocore's response reads from."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def stream(self, **_: object) -> Iterator[bytes]:
        yield self.content


def botocores(model: Any, protocol: str, status: int, headers: dict[str, str], content: bytes) -> tuple[str, str]:
    """(decision, the code that it read)."""
    response = AWSResponse("https://x/", status, headers, Raw(content))
    parser = create_parser(protocol.split("-1.")[0])
    parsed = parser.parse({"status_code": status, "headers": headers, "body": content, "context": {}}, model.output_shape)
    context = RetryContext(attempt_number=1, operation_model=model, parsed_response=parsed, http_response=response)
    if not StandardRetryConditions(max_attempts=3).is_retryable(context):
        return DELIVER, str(context.get_error_code())
    throttled = ThrottlingErrorDetector(RetryEventAdapter()).is_throttling_error_from_context(context)
    return THROTTLING if throttled else TRANSIENT, str(context.get_error_code())


def test_every_code_status_and_protocol() -> None:
    judge = _core.Knowledge()
    found: dict[str, int] = {}
    seen = 0
    for protocol, model in models():
        service = model.service_model
        for status, code in itertools.product(STATUSES, codes(model)):
            headers, content = body(protocol, code)
            theirs, read = botocores(model, protocol, status, headers, content)
            assert read == code, "the oracle has read the code"
            pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
            ours = judge.judge(service.signing_name, service.service_name, model.name, status, pairs, content)
            seen += 1
            if ours == theirs:
                continue
            reason = "mended" if ours in MENDED else str(status) if status in (429, 509) and ours == THROTTLING else None
            if reason == "429":
                assert not any(
                    shape.metadata.get("error", {}).get("httpStatusCode") == 429 and shape.name == code for shape in model.error_shapes
                )
            assert reason is not None, (Case(protocol, service.service_name, model.name, status, code), ours, theirs)
            found[reason] = found.get(reason, 0) + 1
    assert seen > 3000
    assert set(found) == set(DIFFERENCES), "each difference is one that is there, and each that is there has a reason"


@pytest.mark.parametrize("status", [200, 204, 304, 400, 404, 429, 500, 501, 502, 503, 504])
def test_answers_without_a_body(status: int) -> None:
    model = botocore.session.Session().get_service_model("dynamodb").operation_model("GetItem")
    response = AWSResponse("https://x/", status, {}, Raw(b""))
    context = RetryContext(attempt_number=1, operation_model=model, parsed_response={}, http_response=response)
    retried = StandardRetryConditions(max_attempts=3).is_retryable(context)
    ours = _core.Knowledge().judge("dynamodb", "dynamodb", "GetItem", status, [], b"")
    assert (ours != DELIVER) == retried


@pytest.mark.parametrize("header", ["0", "1500", "999999999", "-1", "soon", "1.5", ""])
@pytest.mark.parametrize("throttled", [False, True])
@pytest.mark.parametrize("service", ["dynamodb", "sqs"])
def test_delays_are_botocores(service: str, throttled: bool, header: str) -> None:
    class Detector:
        def is_throttling_error_from_context(self, _: object) -> bool:
            return throttled

    response = AWSResponse("https://x/", 503, {"x-amz-retry-after": header} if header else {}, Raw(b""))
    for attempt, chance in itertools.product(range(1, 9), (0.0, 0.3, 0.999)):
        backoff = ExponentialBackoff(random=lambda chance=chance: chance, service_name=service, throttling_detector=Detector())
        theirs = backoff.delay_amount(RetryContext(attempt_number=attempt, http_response=response, parsed_response={}))
        ours = _core.retry_delay(service, throttled, attempt, chance, header or None)
        assert ours == pytest.approx(theirs, abs=1e-6), (attempt, chance)
