"""Names that look like AWS's: none is recognised, and other spellings of AWS's own are the same host."""

import pytest

from sigward import _core

HOSTS = [
    "dynamodb.us-east-1.amazonaws.com",
    "s3.eu-west-1.amazonaws.com",
    "bucket.s3.us-west-2.amazonaws.com",
    "iam.amazonaws.com",
    "sqs.cn-north-1.amazonaws.com.cn",
    "lambda.eu-west-1.api.aws",
    "abc.lambda-url.us-east-1.on.aws",
    "ec2.us-gov-west-1.amazonaws.com",
    "vpce-1-a.sqs.us-east-1.vpce.amazonaws.com",
    "123456789012.ddb.us-east-1.amazonaws.com",
]

HOSTILE = {
    "below another name": "{}.evil.test",
    "below another name, no dot": "{}evil.test",
    "a label doubled at the end": "{}.com",
    "userinfo": "user@{}",
    "userinfo with a password": "user:secret@{}",
    "another host as userinfo": "{}@evil.test",
    "a port": "{}:443",
    "an empty port": "{}:",
    "two trailing dots": "{}..",
    "a leading dot": ".{}",
    "a path": "{}/evil.test",
    "a path before": "evil.test/{}",
    "a query": "evil.test?{}",
    "a fragment": "evil.test#{}",
    "a backslash": "evil.test\\{}",
    "NUL at the end": "{}\0",
    "NUL in front": "\0{}",
    "NUL and another name": "evil.test\0.{}",
    "a blank in front": " {}",
    "a blank at the end": "{} ",
    "a line's end": "{}\r\nx: y",
    "a tab": "\t{}",
    "percent-encoded": "%65.{}",
    "255 bytes and more": "a" * 250 + ".{}",
    "long, in labels": "a." * 130 + "{}",
    "an IPv6 address": "[::1].{}",
    "full-width letters": "\uff41.{}",
}


def spelled(template: str, host: str) -> str:
    return template.replace("{}", host)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_a_look_alike_is_not_recognised(template: str, host: str) -> None:
    assert _core.recognise(spelled(template, host)) is None


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("spelling", [str.upper, str.title, lambda host: f"{host}."], ids=["upper case", "mixed case", "trailing dot"])
def test_other_spellings_are_the_same_host(spelling, host: str) -> None:  # type: ignore[no-untyped-def]
    same, plain = _core.recognise(spelling(host)), _core.recognise(host)
    assert same is not None
    assert plain is not None
    assert (same.signing_name, same.region, same.partition) == (plain.signing_name, plain.region, plain.partition)
