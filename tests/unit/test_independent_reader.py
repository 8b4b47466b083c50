"""What is decided on is what is sent: an independent reader reads what would go out, and comes to the same call.

Short here; `make readers` compares 100,000 requests of all services.
"""

import random

import pytest

from tests.agreement import USUAL, Source, rehearse
from tests.reader import Reading, read

COUNT = 4_000


def test_what_was_decided_on_is_what_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    comparison = rehearse(Source(random.Random(17), USUAL, most=80), COUNT)
    with capsys.disabled():
        print(f"\n{COUNT:,} requests: {comparison.summary()}")
    comparison.check(least=COUNT // 4)


FORM = [(b"content-type", b"application/x-www-form-urlencoded")]


@pytest.mark.parametrize(
    ("service", "method", "host", "target", "headers", "body", "expected"),
    [
        ("s3", "GET", "s3.us-east-1.amazonaws.com", "/b/a%2Fb//c?versionId=1", [], b"", {Reading("GetObject", "b", "a/b//c")}),
        ("s3", "GET", "a.b.s3-fips.us-east-1.amazonaws.com", "/?policy", [], b"", {Reading("GetBucketPolicy", "a.b")}),
        (
            "s3",
            "PUT",
            "s3.us-east-1.amazonaws.com",
            "/b/k",
            [(b"X-Amz-Copy-Source", b"/c/d")],
            b"",
            {Reading("CopyObject", "b", "k", "/c/d")},
        ),
        ("sqs", "POST", "h", "/", FORM, b"%41ction=Delete%51ueue", {Reading("DeleteQueue")}),
        (
            "sqs",
            "POST",
            "h",
            "/",
            [*FORM, (b"x-amz-target", b"AmazonSQS.ListQueues")],
            b"Action=DeleteQueue",
            {Reading("DeleteQueue"), Reading("ListQueues")},
        ),
        ("sqs", "POST", "h", "/", [], b"Action=DeleteQueue", set()),
        ("ec2", "GET", "h", "/?Action=TerminateInstances", [], b"", {Reading("TerminateInstances")}),
        ("cloudwatch", "POST", "h", "/service/x/operation/DeleteAlarms", [], b"", {Reading("DeleteAlarms")}),
        ("lambda", "DELETE", "h", "/2015-03-31/functions/f", [], b"", {Reading("DeleteFunction")}),
        ("lambda", "DELETE", "h", "/2015-03-31/functions/f/x", [], b"", set()),
        ("lambda", "GET", "h", "/2015-03-31/functions/a%2Fb", [], b"", {Reading("GetFunction")}),
    ],
)
def test_the_reader_reads(
    service: str, method: str, host: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes, expected: set[Reading]
) -> None:
    """The reader itself: one that reads nothing would find nothing apart."""
    assert read(service, method, host, target, headers, body) == expected
